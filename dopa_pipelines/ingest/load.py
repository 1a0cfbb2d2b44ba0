"""The transaction of one delivery: its record, its rows on their way into the table, what they replace, their lineage.

What is done in which order is :mod:`dopa_pipelines.ingest.deliver`'s for a delivery and
:mod:`dopa_pipelines.ingest.replay`'s for rejected rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

import polars as pl
import psycopg
from psycopg import sql

from dopa_pipelines.code import commit
from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected
from dopa_pipelines.ingest.archive import Deposit, place_of
from dopa_pipelines.ingest.encode import Encoder, csv_of
from dopa_pipelines.ingest.enforce import Plan
from dopa_pipelines.ingest.history import COLUMNS as HISTORY_COLUMNS
from dopa_pipelines.ingest.history import apply_snapshot, count_on, next_snapshot, same_key
from dopa_pipelines.ingest.observe import Observer
from dopa_pipelines.ingest.settle import Reasons, settle_duplicates, settle_references
from dopa_pipelines.ingest.stream import Clock, Source, Stream, look_up
from dopa_pipelines.ingest.tables import Changes, create_rows, ensure_tables, index_key, put_rows, views_on
from dopa_pipelines.sources.batch import ORIGINAL, ROW
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.warehouse import Role, Warehouse
from dopa_pipelines.warehouse.work import Work

Connection = psycopg.Connection[Any]
Progress = Callable[[int], None]

SMALL_DELIVERY = 20
"""Below so many rejected rows, or rows of the scope, percentages say little: no delivery is refused for them."""

LONG_KEY_BYTES = 2_000
"""A shorter key always fits into an index (PostgreSQL: a third of a page, 2,704 bytes)."""


@dataclass
class Delivery:
    """What became of one delivery. ``seconds`` are by step; ``reasons`` counts rejected rows by code."""

    dataset: str
    file: str
    sha256: str
    status: Literal["loaded", "unchanged", "rejected"]
    delivery: int | None = None
    rows_read: int = 0
    rows_loaded: int = 0
    rows_quarantined: int = 0
    rows_layout: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    problem: str | None = None
    write: int | None = None
    run_id: str = ""
    work: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def take_turn(connection: Connection, contract: Contract) -> None:
    """Two deliveries of one dataset queue; the lock goes with the transaction, so also with a killed process."""
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"ingest:{contract.dataset}",))


class Load:
    """The transaction of one delivery. ``size``: its bytes; ``day``: that of a snapshot, where the dataset has history."""

    def __init__(
        self,
        warehouse: Warehouse,
        connection: Connection,
        contract: Contract,
        delivery: Delivery,
        size: int,
        clock: Clock,
        progress: Progress | None = None,
        day: date | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.warehouse = warehouse
        self.connection = connection
        self.contract = contract
        self.delivery = delivery
        self.size = size
        self.clock = clock
        self.progress = progress
        self.day = day
        self.observer = observer
        self.table = sql.Identifier("raw", contract.dataset)
        self.encoder = Encoder(contract)
        self.incoming: sql.Identifier = sql.Identifier("incoming")
        self.within = False
        """Part of another load's transaction, which has made the tables as they must be and holds them."""
        self.direct = False
        self.stored = 0
        self.held_before = 0
        self.views: list[tuple[str, str]] = []
        self.dropped_views: list[tuple[str, str]] = []
        self.reasons: Counter[str] = Counter()
        self.scope: list[dict[str, Any]] = []

    def run(self, source: Source, deposit: Deposit, as_of: date, parent_run_id: str | None, accept_shrink: bool) -> None:
        contract, delivery = self.contract, self.delivery
        changes = self.begin(as_of)
        self.direct = changes.created or contract.load.mode == "replace"
        self._make_incoming()
        # Once the file is read a core is free: hashing and compressing it use the time.
        self._copy(source, Plan(contract, as_of, contract.period_of(delivery.file)), deposit.start)
        with self.clock.step("settle"):
            self._settle(source)
        delivery.reasons = dict(sorted(self.reasons.items()))
        self._refuse_what_is_too_bad()
        with self.clock.step("write"):
            self._replace(accept_shrink)
        delivery.sha256 = deposit.wait()
        delivery.write = self.record_write(parent_run_id)

    def begin(self, as_of: date) -> Changes:
        """Make or migrate the tables and enter the delivery."""
        if not self.within:
            # Before anything changes, since later their text would be of the changed table; and apart, since it locks them.
            with self.warehouse.connect(Role.TRANSFORMER) as connection:
                self.views = views_on(connection, self.contract)
        changes = ensure_tables(self.connection, self.contract, self._drop_views)
        if changes.words:
            record_migration(self.connection, self.contract, self.delivery.run_id, changes.words, self.views)
            self.delivery.notes["table_changed"] = changes.words
        contract, delivery = self.contract, self.delivery
        row = self.connection.execute(
            """
            insert into ops.delivery (
                dataset, bureau, file, sha256, bytes, contract_version, contract_checksum, run_id, as_of, business_date, status,
                in_force, rows_read, rows_loaded, rows_quarantined
            ) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'loaded', true, 0, 0, 0) returning id
            """,
            (
                contract.dataset, contract.bureau, delivery.file, delivery.sha256, self.size, contract.version,
                contract.checksum, delivery.run_id, as_of, self.day,
            ),
        ).fetchone()  # fmt: skip
        assert row is not None
        delivery.delivery = int(row[0])
        keep_contract(self.connection, contract)
        return changes

    def _drop_views(self, views: list[str]) -> None:
        """Take down dbt's views as dbt's role: the loader owns none of them. What stands on them goes with them."""
        with self.warehouse.connect(Role.TRANSFORMER) as connection:
            for view in views:
                connection.execute(sql.SQL("drop view if exists {} cascade").format(sql.SQL(view)))
        self.dropped_views = self.views
        self.delivery.notes["views_dropped"] = views

    def restore_views(self) -> None:
        """Put dbt's views back, once the transaction that needed them away was rolled back."""
        with self.warehouse.connect(Role.TRANSFORMER) as connection:
            for view, definition in self.dropped_views:
                connection.execute(sql.SQL("create or replace view {} as {}").format(sql.SQL(view), sql.SQL(definition)))
        self.delivery.notes.pop("views_dropped", None)
        self.dropped_views = []

    def _make_incoming(self) -> None:
        """The table that takes the delivery's rows."""
        if not self.direct:
            self.make_incoming()
            return
        self.incoming = self.table
        if self.contract.load.mode == "replace":
            self.incoming = create_rows(self.connection, self.contract, self.delivery.delivery or 0)
        # A constant default costs nothing; a column sent with every row would.
        for column, value in self._same_in_all_rows().items():
            self._default(column, sql.SQL("set default {}").format(sql.Literal(value)))

    def make_incoming(self) -> None:
        """A table of the delivery's rows that nobody else sees."""
        self.connection.execute(sql.SQL("create temporary table incoming (like {}) on commit drop").format(self.table))
        for column in ("_delivery_id", *HISTORY_COLUMNS):
            self.connection.execute(sql.SQL("alter table incoming drop column if exists {}").format(sql.Identifier(column)))

    def _same_in_all_rows(self) -> dict[str, Any]:
        same: dict[str, Any] = {"_delivery_id": self.delivery.delivery}
        if self.contract.has_history:
            same |= {"_valid_from": self.day, "_recorded_by": self.delivery.delivery}
        return same

    def _default(self, column: str, change: sql.Composable) -> None:
        self.connection.execute(
            sql.SQL("alter table {} alter column {} {}").format(self.incoming, sql.Identifier(column), change)
        )

    def _copy(self, source: Source, plan: Plan, when_read: Callable[[], None]) -> None:
        delivery = self.delivery
        statement = self.encoder.statement(self.incoming, frozen=self.direct)
        notes: Counter[str] = Counter()
        with Stream(source, plan, self.encoder, self.clock, when_read, self.observer) as stream:
            for piece in stream:
                delivery.rows_read += piece.height
                delivery.rows_loaded += piece.accepted
                notes.update(piece.enforced.notes)
                with self.clock.step("copy"):
                    if piece.data:
                        cursor = self.connection.cursor()
                        with cursor.copy(statement) as copy:
                            for data in piece.data:
                                # psycopg cuts what it sends: of a view without a copy.
                                copy.write(memoryview(data))
                        self.stored += cursor.rowcount
                    if piece.enforced.rejected.height:
                        self._quarantine(piece.enforced.rejected, piece.file, piece.offset)
                        self.reasons.update(piece.enforced.codes)
                if self.progress:
                    self.progress(delivery.rows_read)
        delivery.rows_layout = source.layout_rows
        delivery.notes |= dict(notes)
        if source.unknown_titles:
            delivery.notes["unknown_columns"] = list(source.unknown_titles)

    def _quarantine(self, rejected: pl.DataFrame, file: str, offset: int) -> None:
        statement = sql.SQL("copy {} (delivery_id, file, row, original, reasons, fields) from stdin (format csv)").format(
            sql.Identifier("quarantine", self.contract.dataset)
        )
        rows = rejected.select(
            pl.lit(self.delivery.delivery, pl.Int64).alias("delivery_id"),
            pl.lit(file).alias("file"),
            pl.col(ROW) - offset,
            pl.col(ORIGINAL, "reasons", "fields"),
        )
        with self.connection.cursor().copy(statement) as copy:
            copy.write(csv_of(rows))
        self.delivery.rows_quarantined += rejected.height

    def _settle(self, source: Source) -> None:
        late, unchecked = settle_references(self.connection, self.contract, self.incoming)
        if self.direct:
            for column in self._same_in_all_rows():
                self._default(column, sql.SQL("drop default"))
            try:
                with self._keys_fit():
                    index_key(self.connection, self.contract, self.incoming)
            except psycopg.errors.UniqueViolation:
                late |= settle_duplicates(self.connection, self.contract, self.incoming)
                with self._keys_fit():
                    index_key(self.connection, self.contract, self.incoming)
        else:
            late |= settle_duplicates(self.connection, self.contract, self.incoming)
            self._refuse_long_keys()
        if late:
            self._quarantine_late(source, late)
        if unchecked:
            self.delivery.notes["references_not_checked"] = unchecked

    @contextmanager
    def _keys_fit(self) -> Iterator[None]:
        """A savepoint. Raises Rejected where a key is longer than an index can hold (some 2,700 bytes, compressed)."""
        try:
            with self.connection.transaction():
                yield
        except psycopg.errors.ProgramLimitExceeded as error:
            raise self._key_too_long() from error

    def _refuse_long_keys(self) -> None:
        """Find out before rows go into the table: they must not go in within a savepoint, whose transaction id is another one."""
        if not self.contract.key:
            return
        key = sql.SQL(", ").join(map(sql.Identifier, self.contract.key))
        lengths = sql.SQL(" + ").join(
            sql.SQL("coalesce(octet_length({}::text), 0)").format(sql.Identifier(name)) for name in self.contract.key
        )
        some = sql.SQL("select from {} where {} > {} limit 1").format(self.incoming, lengths, sql.Literal(LONG_KEY_BYTES))
        if self.connection.execute(some).fetchone() is not None:
            with self._keys_fit():
                self.connection.execute(sql.SQL("create index incoming_key on {} ({})").format(self.incoming, key))

    def _key_too_long(self) -> Rejected:
        sizes = [sql.SQL("coalesce(pg_column_size({}), 0)").format(sql.Identifier(name)) for name in self.contract.key]
        lengths = [sql.SQL("coalesce(octet_length({}::text), 0)").format(sql.Identifier(name)) for name in self.contract.key]
        found = self.connection.execute(
            sql.SQL("select _row, {}, {} from {} order by {} desc limit 1").format(
                sql.SQL(", ").join(sizes), sql.SQL(", ").join(lengths), self.incoming, sql.SQL(" + ").join(sizes)
            )
        ).fetchone()
        assert found is not None
        row, *both = found
        stored, written = both[: len(sizes)], both[len(sizes) :]
        place = stored.index(max(stored))
        return Rejected(
            f"{self.delivery.file}: row {row:,}: column {self.contract.key[place]} is part of the key of"
            f" {self.contract.dataset}, and its {written[place]:,} bytes are more than a key can hold; have the row corrected,"
            " or limit the column by maxLength in the contract, so that such rows are quarantined"
        )

    def _quarantine_late(self, source: Source, late: Reasons) -> None:
        """Rows that only the database could judge: their text is read from the delivery once more."""
        self.delivery.rows_loaded -= len(late)
        self.stored -= len(late)
        for reasons in late.values():
            self.reasons.update({str(reason["code"]) for reason in reasons})
        for file, offset, rows in look_up(source, list(late)):
            texts = [json.dumps(late[row], ensure_ascii=False) for row in rows[ROW]]
            self._quarantine(rows.with_columns(pl.Series("reasons", texts, dtype=pl.String)), file, offset)

    def _refuse_what_is_too_bad(self) -> None:
        contract, delivery = self.contract, self.delivery
        if delivery.rows_read == 0:
            raise Rejected(f"{self.delivery.file}: holds no rows of {contract.dataset}; the table stays as it is")
        share = 100 * delivery.rows_quarantined / delivery.rows_read
        limit = contract.load.max_rejected_percent
        if share > limit and (delivery.rows_quarantined > SMALL_DELIVERY or delivery.rows_loaded == 0):
            worst = ", ".join(f"{code} {count:,}" for code, count in self.reasons.most_common(3))
            raise Rejected(
                f"{self.delivery.file}: {delivery.rows_quarantined:,} of {delivery.rows_read:,} rows ({share:.1f} %) break the"
                f" contract of {contract.dataset}, more than the {limit:g} % it allows ({worst}); ask the bureau for a corrected"
                " delivery"
            )
        if delivery.rows_loaded == 0:
            raise Rejected(f"{self.delivery.file}: no row keeps the contract of {contract.dataset}; the table stays as it is")

    def _replace(self, accept_shrink: bool) -> None:
        load = self.contract.load
        if load.mode == "replace":
            self._replace_all(accept_shrink)
            return
        if self.direct:
            return
        if load.mode == "history":
            self._apply_snapshot(accept_shrink)
            return
        if load.mode == "replace_scope":
            self._replace_scope(accept_shrink)
        else:
            self._replace_keys()
        self.insert()

    def insert(self) -> None:
        """Move the rows of ``incoming`` into the table."""
        columns = sql.SQL(", ").join(map(sql.Identifier, self.encoder.columns))
        self.connection.execute(
            sql.SQL("insert into {} ({}, _delivery_id) select {}, {} from incoming order by _row").format(
                self.table, columns, columns, sql.Literal(self.delivery.delivery)
            )
        )

    def _replace_all(self, accept_shrink: bool) -> None:
        """The delivery's rows take the place of all there were: readers see the old ones until the commit."""
        held = self.connection.execute(
            "select coalesce(sum(rows_held), 0)::bigint from ops.delivery where dataset = %s", (self.contract.dataset,)
        ).fetchone()
        self._refuse_shrinking(int(held[0]) if held else 0, accept_shrink)
        put_rows(self.connection, self.contract, self.incoming)
        self.delivery.notes["replaces"] = "all"
        self.connection.execute(
            "update ops.delivery set in_force = false, rows_held = 0"
            " where dataset = %s and id <> %s and (in_force or rows_held <> 0)",
            (self.contract.dataset, self.delivery.delivery),
        )

    def _apply_snapshot(self, accept_shrink: bool) -> None:
        assert self.day is not None
        self._refuse_shrinking(count_on(self.connection, self.table, self.day), accept_shrink)
        self.connection.execute(
            "update ops.delivery set in_force = false where dataset = %s and business_date = %s and id <> %s and in_force",
            (self.contract.dataset, self.day, self.delivery.delivery),
        )
        self.apply_difference(whole=True)

    def apply_difference(self, *, whole: bool) -> None:
        """Apply ``incoming`` to the history; ``whole``: it is a snapshot, and what is not in it is gone."""
        assert self.day is not None and self.delivery.delivery is not None
        self.held_before = 0 if whole else count_on(self.connection, self.table, self.day)
        difference = apply_snapshot(
            self.connection,
            self.contract,
            self.table,
            self.incoming,
            delivery=self.delivery.delivery,
            day=self.day,
            until=next_snapshot(self.connection, self.contract.dataset, self.day),
            whole=whole,
        )
        self.delivery.notes["difference"] = difference.as_note()
        # The rows that were cut in two or lengthened are those of other deliveries.
        self.connection.execute(
            sql.SQL(
                """
                with new as (select _delivery_id as id, count(*) as rows from {} where _recorded_by = {} group by 1)
                update ops.delivery d set rows_held = d.rows_held + new.rows from new where d.id = new.id and d.id <> {}
                """
            ).format(self.table, sql.Literal(self.delivery.delivery), sql.Literal(self.delivery.delivery))
        )

    def _replace_scope(self, accept_shrink: bool) -> None:
        parts = scope_of(self.contract, "i")
        both = sql.SQL(", ").join(parts)
        found = self.connection.execute(sql.SQL("select distinct {} from incoming i order by {}").format(both, both))
        names = [part.column for part in self.contract.load.scope]
        self.scope = [dict(zip(names, (str(value) for value in row), strict=True)) for row in found]
        named = [sql.Identifier(f"s{number}") for number in range(len(parts))]
        self.connection.execute(
            sql.SQL("create temporary table scope on commit drop as select distinct {} from incoming i").format(
                sql.SQL(", ").join(sql.SQL("{} as {}").format(part, name) for part, name in zip(parts, named, strict=True))
            )
        )
        inside = sql.SQL("exists (select from scope where {})").format(
            sql.SQL(" and ").join(
                sql.SQL("array[{}] = array[scope.{}]").format(part, name)
                for part, name in zip(scope_of(self.contract, "t"), named, strict=True)
            )
        )
        before = self.connection.execute(sql.SQL("select count(*) from {} t where {}").format(self.table, inside)).fetchone()
        self._refuse_shrinking(int(before[0]) if before else 0, accept_shrink)
        self._take_out(sql.SQL("delete from {} t where {} returning _delivery_id").format(self.table, inside))

    def _replace_keys(self) -> None:
        self.connection.execute("analyze incoming")
        self._take_out(
            sql.SQL("delete from {} t using incoming i where {} returning t._delivery_id").format(
                self.table, same_key(self.contract)
            )
        )

    def _take_out(self, deletion: sql.Composable) -> None:
        """Delete rows of earlier deliveries. What lost rows is in force no more: its content would change the table again."""
        self.connection.execute(
            sql.SQL(
                """
                with gone as ({}), lost as (select _delivery_id as id, count(*) as rows from gone group by 1)
                update ops.delivery d
                set in_force = false, rows_held = d.rows_held - lost.rows
                from lost
                where d.id = lost.id
                """
            ).format(deletion)
        )

    def _refuse_shrinking(self, count: int, accept: bool) -> None:
        floor = count * (1 - self.contract.load.max_shrink_percent / 100)
        if not accept and count > SMALL_DELIVERY and self.delivery.rows_loaded < floor:
            raise Rejected(
                f"{self.delivery.file}: would leave {self.delivery.rows_loaded:,} rows where {self.contract.table} has {count:,},"
                f" a loss of more than {self.contract.load.max_shrink_percent:g} %; if that is right, ingest it with"
                " --accept-shrink"
            )

    def record_write(self, parent_run_id: str | None) -> int:
        contract, delivery = self.contract, self.delivery
        unchecked = delivery.notes.get("references_not_checked", [])
        inputs = inputs_of(contract, {item.split(" → ")[1].split(".")[0] for item in unchecked})
        row = self.connection.execute(
            "select lineage.record_write(p_kind => 'load', p_target => %s, p_run_id => %s, p_parent_run_id => %s,"
            " p_code => %s, p_version => %s, p_inputs => %s, p_rows_in => %s, p_rows_out => %s, p_detail => %s)",
            (
                contract.table,
                delivery.run_id,
                parent_run_id,
                json.dumps(code_of(contract)),
                contract.version,
                json.dumps(inputs, ensure_ascii=False),
                delivery.rows_read,
                delivery.rows_loaded,
                json.dumps(
                    {
                        "delivery": delivery.delivery,
                        "file": self.delivery.file,
                        "sha256": delivery.sha256,
                        "rows_quarantined": delivery.rows_quarantined,
                        **({"work": delivery.work} if delivery.work else {}),
                        **described(contract, delivery.file, self.day),
                    },
                    ensure_ascii=False,
                ),
            ),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def record(self, seconds: dict[str, float]) -> None:
        """Write the counts; the table's constraint refuses them unless read = loaded + quarantined."""
        delivery = self.delivery
        # What COPY says it stored is the server's own count; rows that went another way are counted where they are now.
        there = sql.SQL("(select count(*) from {} where _delivery_id = {})").format(self.table, sql.Literal(delivery.delivery))
        loaded: sql.Composable = there
        held: sql.Composable = sql.Literal(delivery.rows_loaded)
        if self.direct:
            loaded = sql.Literal(self.stored)
        elif self.day is not None:
            # A snapshot's rows are those that hold on its day, also those that an earlier one brought; a replay adds to them.
            loaded = sql.Literal(count_on(self.connection, self.table, self.day) - self.held_before)
            held = there
        self.connection.execute(
            sql.SQL(
                """
                update ops.delivery
                set sha256 = %s, rows_read = %s, rows_loaded = {},
                    rows_quarantined = (select count(*) from {} where delivery_id = %s),
                    rows_held = {}, rows_layout = %s, reasons = %s, scope = %s, notes = %s, seconds = %s
                where id = %s
                """
            ).format(loaded, sql.Identifier("quarantine", self.contract.dataset), held),
            (
                delivery.sha256, delivery.rows_read, delivery.delivery, delivery.rows_layout,
                json.dumps(delivery.reasons), json.dumps(self.scope), json.dumps(delivery.notes, ensure_ascii=False),
                json.dumps(seconds), delivery.delivery,
            ),
        )  # fmt: skip
        note_archived(self.warehouse, self.connection, delivery.sha256, self.size)


def scope_of(contract: Contract, alias: str) -> list[sql.Composed]:
    """What each part of the contract's scope is of the rows ``alias``."""
    return [
        sql.SQL("{}").format(sql.Identifier(alias, part.column))
        if part.granularity == "value"
        else sql.SQL("date_trunc({}, {})::date").format(sql.Literal(part.granularity), sql.Identifier(alias, part.column))
        for part in contract.load.scope
    ]


def inputs_of(contract: Contract, unchecked: Set[str] = frozenset()) -> list[dict[str, Any]]:
    """What a load's rows are made of and compared with, as ``lineage.write`` has it; not references that were ``unchecked``."""
    namespace, name = contract.feed
    compared = [other for other in contract.references if other not in unchecked and other != contract.dataset]
    return [{"namespace": namespace, "name": name, "write": None}, *({"name": f"raw.{other}"} for other in compared)]


def record_migration(
    connection: Connection, contract: Contract, run_id: str | None, changes: list[str], views: Sequence[tuple[str, str]] = ()
) -> None:
    """Record that the table changed its form: later readers of older deliveries need to know what its columns were called.

    ``views``: those that stood on it before, with their text.
    """
    connection.execute(
        "select lineage.record_write(p_kind => 'migration', p_target => %s, p_run_id => %s, p_code => %s,"
        " p_version => %s, p_detail => %s)",
        (
            contract.table,
            run_id,
            json.dumps(code_of(contract)),
            contract.version,
            json.dumps({"changes": changes}, ensure_ascii=False),
        ),
    )
    # Views on a renamed column have another definition now, those on a retyped one are gone: that, too, was no hand.
    connection.execute(
        """
        select lineage.record_write(
            'migration', v.target, p_run_id => %s, p_environment => (
                select environment from lineage.write w where w.target = v.target order by w.id desc limit 1
            ),
            p_detail => jsonb_build_object('because_of', %s::text)
                || case when to_regclass(v.name) is null then '{"dropped": true}' else '{}' end::jsonb
        )
        from (
            select name, definition, array_to_string(parse_ident(name), '.') as target
            from unnest(%s::text[], %s::text[]) as given (name, definition)
        ) v
        where pg_get_viewdef(to_regclass(v.name)) is distinct from v.definition
            and exists (select from lineage.write w where w.target = v.target)
        """,
        (run_id, contract.table, [name for name, _ in views], [definition for _, definition in views]),
    )


def note_archived(warehouse: Warehouse, connection: Connection, sha256: str, size: int) -> None:
    """Record that a delivery is in the archive, if it is: what is not recorded, retention would never end."""
    if place_of(warehouse.archive, sha256).is_file():
        connection.execute(
            "insert into ops.archived (sha256, bytes) values (%s, %s)"
            " on conflict (sha256) do update set destroyed_at = null, destroyed_by = null, why = null",
            (sha256, size),
        )


def keep_contract(connection: Connection, contract: Contract) -> None:
    """Keep the contract's text, so that what was loaded under it can be loaded again."""
    connection.execute(
        "insert into ops.contract (checksum, dataset, version, document) values (%s, %s, %s, %s) on conflict do nothing",
        (contract.checksum, contract.dataset, contract.version, contract.path.read_text("utf-8")),
    )


def work_of(warehouse: Warehouse, contract: Contract, delivery: Delivery, day: date | None, parent_run_id: str | None) -> Work:
    """That the load of ``delivery`` is going on; ``delivery`` takes its id."""
    namespace, name = contract.feed
    work = Work(
        warehouse,
        "load",
        contract.table,
        run_id=delivery.run_id,
        parent_run_id=parent_run_id,
        inputs=[{"namespace": namespace, "name": name}],
        detail={
            "code": code_of(contract),
            **described(contract, delivery.file, day),
        },
    )
    delivery.work = work.id
    return work


def described(contract: Contract, file: str, day: date | None) -> dict[str, Any]:
    """What is recorded of a load beside its counts: how it changes the table, and the time that the delivery is about."""
    found: dict[str, Any] = {"mode": contract.load.mode}
    start = day or contract.period_of(file)
    if start is not None:
        end = start + timedelta(days=1) if day is not None else (start + timedelta(days=31)).replace(day=1)
        found["nominal_start"], found["nominal_end"] = (
            datetime(moment.year, moment.month, moment.day, tzinfo=BANGKOK).isoformat() for moment in (start, end)
        )
    return found


def code_of(contract: Contract) -> dict[str, Any]:
    """What a load was done by, for its record: the contract's checksum and path, and the commit of the code where it is known.

    The path is from the folder of its bureau, never a machine's own.
    """
    return {"checksum": contract.checksum, "path": "/".join(contract.path.parts[-2:]), **commit()}
