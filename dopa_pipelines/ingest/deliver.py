"""One delivery, from file to table, in one transaction.

The order: hash the content; read, enforce and copy batch by batch; settle what needs other rows; replace what the contract says;
record the delivery and its lineage; commit. Killed at any point, nothing of it is there; run again, it is done once.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
import psycopg
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import sql

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.ingest.enforce import Plan, reasons_as_json
from dopa_pipelines.ingest.settle import Reasons, settle
from dopa_pipelines.ingest.tables import ensure_tables, is_decimal, type_sql
from dopa_pipelines.sources import open_reader
from dopa_pipelines.sources.reader import ORIGINAL, ROW
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.warehouse import Role, Warehouse

Connection = psycopg.Connection[Any]
Progress = Callable[[int], None]

SMALL_DELIVERY = 20
"""Below so many rejected rows, or rows of the scope, percentages say little: no delivery is refused for them."""


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

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of the file's content: the identity of a delivery."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ingest(
    warehouse: Warehouse,
    contract: Contract,
    path: Path,
    *,
    run_id: str | None = None,
    parent_run_id: str | None = None,
    as_of: date | None = None,
    accept_shrink: bool = False,
    progress: Progress | None = None,
) -> Delivery:
    """Bring one delivery into ``raw.<dataset>``.

    ``as_of``: the day of the delivery (default today in Bangkok), which dates may not lie after. The content that is in force
    under the same contract changes nothing (``unchanged``). A refused delivery is recorded with its problem (``rejected``) and
    loads nothing. Raises UserError for what is no property of the data: a missing file, an impossible contract change.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a delivery of {contract.dataset}")
    started = time.perf_counter()
    clock = _Clock()
    with clock.step("hash"):
        digest = sha256_of(path)
    run = run_id or str(uuid.uuid4())
    delivery = Delivery(contract.dataset, path.name, digest, "loaded", run_id=run)
    with warehouse.connect(Role.LOADER) as connection:
        _take_turn(connection, contract)
        found = _in_force(connection, contract, digest)
        if found is not None:
            delivery.status, delivery.delivery = "unchanged", found
            delivery.seconds = clock.rounded(started)
            return delivery
        work = _Load(warehouse, connection, contract, path, delivery, clock, progress)
        try:
            work.run(as_of or datetime.now(BANGKOK).date(), parent_run_id, accept_shrink)
            delivery.seconds = clock.rounded(started)
            with clock.step("commit"):
                work.record(delivery.seconds)
                connection.commit()
        except Rejected as refusal:
            connection.rollback()
            delivery.status, delivery.problem = "rejected", str(refusal)
            delivery.rows_loaded = 0
            delivery.seconds = clock.rounded(started)
            delivery.delivery = _record_refusal(connection, contract, path, delivery)
            connection.commit()
    return delivery


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started  # type: ignore[assignment]

    def rounded(self, started: float) -> dict[str, float]:
        steps = {name: round(float(value), 4) for name, value in self.seconds.items()}
        return steps | {"total": round(time.perf_counter() - started, 4)}


def _take_turn(connection: Connection, contract: Contract) -> None:
    """Two deliveries of one dataset queue; the lock goes with the transaction, so also with a killed process."""
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"ingest:{contract.dataset}",))


def _in_force(connection: Connection, contract: Contract, digest: str) -> int | None:
    row = connection.execute(
        """
        select id from ops.delivery
        where dataset = %s and sha256 = %s and contract_checksum = %s and in_force and status = 'loaded'
          and to_regclass(%s) is not null
        order by id desc limit 1
        """,
        (contract.dataset, digest, contract.checksum, contract.table),
    ).fetchone()
    return int(row[0]) if row else None


class _Load:
    """The transaction of one delivery."""

    def __init__(
        self,
        warehouse: Warehouse,
        connection: Connection,
        contract: Contract,
        path: Path,
        delivery: Delivery,
        clock: _Clock,
        progress: Progress | None,
    ) -> None:
        self.warehouse = warehouse
        self.connection = connection
        self.contract = contract
        self.path = path
        self.delivery = delivery
        self.clock = clock
        self.progress = progress
        self.table = sql.Identifier("raw", contract.dataset)
        self.names = [name for name, _ in contract.table_columns]
        self.reasons: Counter[str] = Counter()
        self.scope: list[dict[str, Any]] = []

    def run(self, as_of: date, parent_run_id: str | None, accept_shrink: bool) -> None:
        contract, delivery = self.contract, self.delivery
        changes = ensure_tables(self.connection, contract, self._drop_views)
        if changes:
            self._record_migration(changes)
        row = self.connection.execute(
            """
            insert into ops.delivery (
                dataset, bureau, file, sha256, bytes, contract_version, contract_checksum, run_id, status, in_force,
                rows_read, rows_loaded, rows_quarantined
            ) values (%s, %s, %s, %s, %s, %s, %s, %s, 'loaded', true, 0, 0, 0) returning id
            """,
            self._identity(),
        ).fetchone()
        assert row is not None
        delivery.delivery = int(row[0])
        self._incoming()
        period = contract.period_of(self.path.name)
        self._copy(Plan(contract, as_of, period))
        with self.clock.step("settle"):
            late, unchecked = settle(self.connection, contract)
            if late:
                self._quarantine_late(late)
        if unchecked:
            delivery.notes["references_not_checked"] = unchecked
        counted = self.connection.execute("select count(*) from incoming").fetchone()
        delivery.rows_loaded = int(counted[0]) if counted else 0
        delivery.reasons = dict(sorted(self.reasons.items()))
        self._refuse_what_is_too_bad()
        with self.clock.step("write"):
            self._replace(accept_shrink)
        if changes:
            delivery.notes["table_changed"] = changes
        delivery.write = self._record_write(parent_run_id)

    def _drop_views(self, views: list[str]) -> None:
        """Take down dbt's views as dbt's role: the loader owns none of them."""
        with self.warehouse.connect(Role.TRANSFORMER) as connection:
            for view in views:
                connection.execute(sql.SQL("drop view if exists {} cascade").format(sql.SQL(view)))
        self.delivery.notes["views_dropped"] = views

    def _identity(self) -> tuple[Any, ...]:
        contract, delivery = self.contract, self.delivery
        return (
            contract.dataset, contract.bureau, self.path.name, delivery.sha256, self.path.stat().st_size,
            contract.version, contract.checksum, delivery.run_id,
        )  # fmt: skip

    def _incoming(self) -> None:
        # Exact decimals travel as text: binary COPY from Arrow has no form for them.
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), type_sql("text" if is_decimal(kind) else kind))
            for name, kind in self.contract.table_columns
        )
        self.connection.execute(sql.SQL("create temporary table incoming ({}, _row bigint) on commit drop").format(columns))

    def _copy(self, plan: Plan) -> None:
        contract, delivery = self.contract, self.delivery
        reader = open_reader(contract, self.path)
        batches = reader.batches()
        schema = _schema(contract)
        notes: Counter[str] = Counter()
        while True:
            with self.clock.step("read"):
                batch = next(batches, None)
            if batch is None:
                break
            with self.clock.step("enforce"):
                enforced = plan.apply(batch)
            delivery.rows_read += batch.height
            notes.update(enforced.notes)
            with self.clock.step("copy"):
                if enforced.accepted.height:
                    self._copy_rows(enforced.accepted.select(*self.names, ROW).match_to_schema(schema))
                if enforced.rejected.height:
                    self._quarantine(enforced.rejected)
            if self.progress:
                self.progress(delivery.rows_read)
        delivery.rows_layout = reader.layout_rows
        delivery.notes |= dict(notes)
        if reader.unknown_titles:
            delivery.notes["unknown_columns"] = list(reader.unknown_titles)

    def _copy_rows(self, frame: pl.DataFrame) -> None:
        batches = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()
        encoder = ArrowToPostgresBinaryEncoder(batches[0].schema)
        with self.connection.cursor().copy("copy incoming from stdin (format binary)") as copy:
            copy.write(encoder.write_header())
            for batch in batches:
                copy.write(encoder.write_batch(batch))
            copy.write(encoder.finish())

    def _quarantine(self, rejected: pl.DataFrame) -> None:
        statement = sql.SQL("copy quarantine.{} (delivery_id, file, row, original, reasons) from stdin").format(
            sql.Identifier(self.contract.dataset)
        )
        with self.connection.cursor().copy(statement) as copy:
            for row, original, reasons in rejected.iter_rows():
                copy.write_row((self.delivery.delivery, self.path.name, row, original, reasons_as_json(reasons)))
                self.reasons.update({reason["code"] for reason in reasons})
        self.delivery.rows_quarantined += rejected.height

    def _quarantine_late(self, late: Reasons) -> None:
        """Rows that only the database could judge: their original text is read from the file once more."""
        wanted = pl.Series(sorted(late), dtype=pl.Int64)
        for batch in open_reader(self.contract, self.path).batches():
            found = batch.filter(pl.col(ROW).is_in(wanted.implode()))
            if found.height:
                self._quarantine(
                    found.select(ROW, ORIGINAL).with_columns(pl.Series("reasons", [late[row] for row in found[ROW]]))
                )

    def _refuse_what_is_too_bad(self) -> None:
        contract, delivery = self.contract, self.delivery
        if delivery.rows_read == 0:
            raise Rejected(f"{self.path.name}: holds no rows of {contract.dataset}; the table stays as it is")
        share = 100 * delivery.rows_quarantined / delivery.rows_read
        limit = contract.load.max_rejected_percent
        if share > limit and (delivery.rows_quarantined > SMALL_DELIVERY or delivery.rows_loaded == 0):
            worst = ", ".join(f"{code} {count:,}" for code, count in self.reasons.most_common(3))
            raise Rejected(
                f"{self.path.name}: {delivery.rows_quarantined:,} of {delivery.rows_read:,} rows ({share:.1f} %) break the"
                f" contract of {contract.dataset}, more than the {limit:g} % it allows ({worst}); ask the bureau for a corrected"
                " delivery"
            )
        if delivery.rows_loaded == 0:
            raise Rejected(f"{self.path.name}: no row keeps the contract of {contract.dataset}; the table stays as it is")

    def _replace(self, accept_shrink: bool) -> None:
        load = self.contract.load
        if load.mode == "replace":
            self._refuse_shrinking(sql.SQL("true"), accept_shrink)
            # Delete, not truncate: readers keep the old rows until the commit.
            self._take_out(sql.SQL("delete from {} returning _delivery_id").format(self.table))
        elif load.mode == "replace_scope":
            self._replace_scope(accept_shrink)
        else:
            self._replace_keys()
        columns = sql.SQL(", ").join(map(sql.Identifier, self.names))
        values = sql.SQL(", ").join(
            sql.SQL("{}::numeric").format(sql.Identifier(name)) if is_decimal(kind) else sql.Identifier(name)
            for name, kind in self.contract.table_columns
        )
        self.connection.execute(
            sql.SQL("insert into {} ({}, _delivery_id, _row) select {}, {}, _row from incoming order by _row").format(
                self.table, columns, values, sql.Literal(self.delivery.delivery)
            )
        )

    def _replace_scope(self, accept_shrink: bool) -> None:
        parts = [
            sql.SQL("{}").format(sql.Identifier(part.column))
            if part.granularity == "value"
            else sql.SQL("date_trunc({}, {})::date").format(sql.Literal(part.granularity), sql.Identifier(part.column))
            for part in self.contract.load.scope
        ]
        both = sql.SQL(", ").join(parts)
        found = self.connection.execute(sql.SQL("select distinct {} from incoming order by {}").format(both, both))
        names = [part.column for part in self.contract.load.scope]
        self.scope = [dict(zip(names, (str(value) for value in row), strict=True)) for row in found]
        named = [sql.Identifier(f"s{number}") for number in range(len(parts))]
        self.connection.execute(
            sql.SQL("create temporary table scope on commit drop as select distinct {} from incoming").format(
                sql.SQL(", ").join(sql.SQL("{} as {}").format(part, name) for part, name in zip(parts, named, strict=True))
            )
        )
        inside = sql.SQL("exists (select from scope where {})").format(
            sql.SQL(" and ").join(
                sql.SQL("{} is not distinct from {}").format(part, name) for part, name in zip(parts, named, strict=True)
            )
        )
        self._refuse_shrinking(inside, accept_shrink)
        self._take_out(sql.SQL("delete from {} where {} returning _delivery_id").format(self.table, inside))

    def _replace_keys(self) -> None:
        same = sql.SQL(" and ").join(
            sql.SQL("i.{} is not distinct from t.{}").format(sql.Identifier(name), sql.Identifier(name))
            for name in self.contract.key
        )
        self._take_out(sql.SQL("delete from {} t using incoming i where {} returning t._delivery_id").format(self.table, same))

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

    def _refuse_shrinking(self, inside: sql.Composable, accept: bool) -> None:
        before = self.connection.execute(sql.SQL("select count(*) from {} where {}").format(self.table, inside)).fetchone()
        count = int(before[0]) if before else 0
        floor = count * (1 - self.contract.load.max_shrink_percent / 100)
        if not accept and count > SMALL_DELIVERY and self.delivery.rows_loaded < floor:
            raise Rejected(
                f"{self.path.name}: would leave {self.delivery.rows_loaded:,} rows where {self.contract.table} has {count:,},"
                f" a loss of more than {self.contract.load.max_shrink_percent:g} %; if that is right, ingest it with"
                " --accept-shrink"
            )

    def _record_migration(self, changes: list[str]) -> None:
        self.connection.execute(
            "select lineage.record_write(p_kind => 'migration', p_target => %s, p_run_id => %s, p_code => %s,"
            " p_version => %s, p_detail => %s)",
            (
                self.contract.table,
                self.delivery.run_id,
                json.dumps({"checksum": self.contract.checksum, "path": self.contract.path.name}),
                self.contract.version,
                json.dumps({"changes": changes}, ensure_ascii=False),
            ),
        )

    def _record_write(self, parent_run_id: str | None) -> int:
        contract, delivery = self.contract, self.delivery
        namespace, name = contract.feed
        unchecked = delivery.notes.get("references_not_checked", [])
        inputs: list[dict[str, Any]] = [{"namespace": namespace, "name": name, "write": None}]
        skipped = {item.split(" → ")[1].split(".")[0] for item in unchecked}
        inputs += [{"name": f"raw.{other}"} for other in contract.references if other not in skipped | {contract.dataset}]
        row = self.connection.execute(
            "select lineage.record_write(p_kind => 'load', p_target => %s, p_run_id => %s, p_parent_run_id => %s,"
            " p_code => %s, p_version => %s, p_inputs => %s, p_rows_in => %s, p_rows_out => %s, p_detail => %s)",
            (
                contract.table,
                delivery.run_id,
                parent_run_id,
                json.dumps({"checksum": contract.checksum, "path": _relative(contract.path)}),
                contract.version,
                json.dumps(inputs, ensure_ascii=False),
                delivery.rows_read,
                delivery.rows_loaded,
                json.dumps(
                    {
                        "delivery": delivery.delivery,
                        "file": self.path.name,
                        "sha256": delivery.sha256,
                        "rows_quarantined": delivery.rows_quarantined,
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
        self.connection.execute(
            sql.SQL(
                """
                update ops.delivery
                set rows_read = %s,
                    rows_loaded = (select count(*) from {} where _delivery_id = %s),
                    rows_quarantined = (select count(*) from quarantine.{} where delivery_id = %s),
                    rows_held = %s, rows_layout = %s, reasons = %s, scope = %s, notes = %s, seconds = %s
                where id = %s
                """
            ).format(self.table, sql.Identifier(self.contract.dataset)),
            (
                delivery.rows_read, delivery.delivery, delivery.delivery, delivery.rows_loaded, delivery.rows_layout,
                json.dumps(delivery.reasons), json.dumps(self.scope),
                json.dumps(delivery.notes, ensure_ascii=False), json.dumps(seconds), delivery.delivery,
            ),
        )  # fmt: skip


def _relative(path: Path) -> str:
    """A contract's path as it is recorded: from the folder of its bureau, never a machine's own."""
    return "/".join(path.parts[-2:])


def _schema(contract: Contract) -> pl.Schema:
    kinds: dict[str, Any] = {
        "text": pl.String, "smallint": pl.Int16, "integer": pl.Int32, "bigint": pl.Int64, "date": pl.Date,
        "double precision": pl.Float64, "boolean": pl.Boolean, "timestamp": pl.Datetime("us"),
        "timestamptz": pl.Datetime("us", "Asia/Bangkok"),
    }  # fmt: skip
    columns = {name: kinds["text" if is_decimal(kind) else kind] for name, kind in contract.table_columns}
    return pl.Schema(columns | {ROW: pl.Int64})


def _record_refusal(connection: Connection, contract: Contract, path: Path, delivery: Delivery) -> int:
    row = connection.execute(
        """
        insert into ops.delivery (
            dataset, bureau, file, sha256, bytes, contract_version, contract_checksum, run_id, status, in_force,
            rows_read, rows_loaded, rows_quarantined, rows_layout, reasons, problem, seconds, notes
        ) values (%s, %s, %s, %s, %s, %s, %s, %s, 'rejected', false, %s, 0, %s, %s, %s, %s, %s, %s) returning id
        """,
        (
            contract.dataset, contract.bureau, path.name, delivery.sha256, path.stat().st_size, contract.version,
            contract.checksum, delivery.run_id, delivery.rows_read, delivery.rows_quarantined, delivery.rows_layout,
            json.dumps(delivery.reasons), delivery.problem, json.dumps(delivery.seconds),
            json.dumps(delivery.notes, ensure_ascii=False),
        ),
    ).fetchone()  # fmt: skip
    assert row is not None
    return int(row[0])
