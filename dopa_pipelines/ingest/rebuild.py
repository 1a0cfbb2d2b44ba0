"""A dataset's table made again from the archive, and the proof that it is the same.

The deliveries that the table is made of are read from the archive under the contracts they were loaded with, in their order, as
of their days. What only other tables could decide then (references) is taken from the quarantine, where it was written down:
those tables have changed since. Everything happens in one transaction, in a table beside the dataset's own.
"""

from __future__ import annotations

import getpass
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dopa_pipelines.contracts import Contract, read_contract
from dopa_pipelines.documents import DocumentError
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest.archive import place_of, restored
from dopa_pipelines.ingest.encode import Encoder
from dopa_pipelines.ingest.enforce import Plan
from dopa_pipelines.ingest.history import COLUMNS as HISTORY_COLUMNS
from dopa_pipelines.ingest.history import apply_snapshot, next_snapshot
from dopa_pipelines.ingest.load import code_of, inputs_of, record_migration, take_turn
from dopa_pipelines.ingest.replay import batches_of, in_names
from dopa_pipelines.ingest.stream import Clock, Files, Place, Stream
from dopa_pipelines.ingest.tables import DropViews, Renames, ensure_tables, type_sql, views_on
from dopa_pipelines.scratch import private_folder
from dopa_pipelines.sources.containers import unpacked
from dopa_pipelines.warehouse import Role, Warehouse, unfinished
from dopa_pipelines.warehouse.work import Work

Connection = psycopg.Connection[Any]
TABLE = "rebuilt"


@dataclass
class Rebuild:
    """``missing``: rows that the archive gives and the table lacks; ``extra``: rows of the table that the archive does not give.

    ``destroyed``: deliveries whose rows cannot be given any more, since retention has destroyed them; their rows are in neither
    count. ``applied``: the table was replaced by what the archive gives.
    """

    dataset: str
    rows: int = 0
    missing: int = 0
    extra: int = 0
    deliveries: list[int] = field(default_factory=list)
    destroyed: list[dict[str, Any]] = field(default_factory=list)
    applied: bool = False
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        return not self.missing and not self.extra

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"equal": self.equal}


@dataclass(frozen=True)
class _Recorded:
    """A delivery as it was recorded."""

    id: int
    file: str
    sha256: str
    as_of: Any
    contract_checksum: str
    replayed: bool
    day: date | None


def rebuild(warehouse: Warehouse, contract: Contract, *, apply: bool = False) -> Rebuild:
    """Rebuild ``raw.<dataset>`` beside itself and compare. With ``apply``, put what was rebuilt in its place where they differ.

    Reading the archive is logged. Raises UserError where a delivery is in neither the archive nor the list of what was destroyed,
    or a contract is no more known.
    """
    clock = Clock()
    result = Rebuild(contract.dataset)
    with unfinished(f"rebuild of {contract.dataset}"), warehouse.connect(Role.LOADER) as connection:
        _log(connection, contract)
        take_turn(connection, contract)
        views = views_on(connection, contract)
        changes = ensure_tables(connection, contract, _refuse_views(contract))
        work = _Rebuild(warehouse, connection, contract, result, changes.words, views)
        work.run()
        if apply and not result.equal:
            run_id = str(uuid.uuid4())
            inputs = inputs_of(contract)
            with Work(
                warehouse, "load", contract.table, run_id=run_id, inputs=inputs, detail={"code": code_of(contract)}
            ) as told:
                work.apply(run_id, told.id)
                connection.commit()
                told.done()
        else:
            connection.rollback()
    result.seconds = round(clock.rounded()["total"], 3)
    return result


def _refuse_views(contract: Contract) -> DropViews:
    def refuse(views: list[str]) -> None:
        raise UserError(
            f"{contract.dataset}: under this contract the table is made anew, and {', '.join(views)} stand on it; bring a"
            " delivery in under it first, and rebuild then"
        )

    return refuse


def _log(connection: Connection, contract: Contract) -> None:
    connection.execute(
        "insert into ops.access_log (who, action, subject, detail) values (%s, 'archive read', %s, %s)",
        (getpass.getuser(), f"raw.{contract.dataset}", json.dumps({"for": "rebuild"})),
    )
    connection.commit()


class _Rebuild:
    def __init__(
        self,
        warehouse: Warehouse,
        connection: Connection,
        contract: Contract,
        result: Rebuild,
        changes: list[str],
        views: list[tuple[str, str]],
    ) -> None:
        self.warehouse = warehouse
        self.connection = connection
        self.contract = contract
        self.result = result
        self.changes = changes
        self.views = views
        self.renames = Renames(connection, contract, changes)
        self._contracts: dict[str, Contract] = {contract.checksum: contract}
        self.table = sql.Identifier("raw", contract.dataset)
        self.columns = [name for name, _ in contract.table_columns]

    def run(self) -> None:
        self.connection.execute(
            sql.SQL("create temporary table {} (like {}) on commit drop").format(sql.Identifier(TABLE), self.table)
        )
        if self.contract.has_history:
            for name in HISTORY_COLUMNS:
                self.connection.execute(
                    sql.SQL("alter table {} alter column {} drop not null").format(sql.Identifier(TABLE), sql.Identifier(name))
                )
        for recorded in self._deliveries():
            contract = self._contract_then(recorded)
            if contract.has_history:
                self._begin_history()
            if self._is_destroyed(recorded):
                self._note_destroyed(recorded)
                if contract.has_history and recorded.day is not None:
                    self._take_as_recorded(recorded, recorded.day)
                elif self.contract.has_history:
                    self._take_rows(recorded)
                continue
            self._load(contract, recorded)
            self.result.deliveries.append(recorded.id)
        if self.contract.has_history:
            self._begin_history()
        self._compare()

    def _begin_history(self) -> None:
        """Rows that came before the dataset had a history: as the table gained it, they hold since the day of their delivery."""
        self.connection.execute(
            sql.SQL(
                "update {} t set _recorded_by = d.id, _valid_from = coalesce(d.as_of, d.received_at::date)"
                " from ops.delivery d where d.id = t._delivery_id and t._valid_from is null"
            ).format(sql.Identifier(TABLE))
        )

    def _is_destroyed(self, recorded: _Recorded) -> bool:
        if not recorded.replayed:
            return not place_of(self.warehouse.archive, recorded.sha256).is_file()
        row = self.connection.execute(
            sql.SQL("select bool_or(coalesce(corrected, fields) is null) from {} where replayed_by = %s").format(
                sql.Identifier("quarantine", self.contract.dataset)
            ),
            (recorded.id,),
        ).fetchone()
        return bool(row and row[0])

    def _deliveries(self) -> list[_Recorded]:
        """Deliveries that have left a trace in the table, oldest first.

        What was replaced wholly by others of its kind has left none. Under a contract that replaced in another way it may have
        taken out what a later one would have left. Every snapshot has left one in a history: it says until when other rows held.
        """
        rows = self.connection.execute(
            """
            select id, file, sha256, coalesce(as_of, received_at::date), contract_checksum, replayed, business_date, rows_held
            from ops.delivery
            where dataset = %s and status = 'loaded'
            order by id
            """,
            (self.contract.dataset,),
        ).fetchall()
        found = [(_Recorded(*row[:-1]), int(row[-1])) for row in rows]
        known = {checksum for (checksum,) in self.connection.execute("select checksum from ops.contract")}
        ways = {
            (contract.load.mode, contract.load.scope, contract.key)
            for contract in (self._contract_then(item) for item, _ in found if item.contract_checksum in known)
        }
        if len(ways) <= 1:
            return [item for item, held in found if held or item.day is not None]
        whole = [
            place
            for place, (item, _) in enumerate(found)
            if not item.replayed and item.contract_checksum in known and self._contract_then(item).load.mode == "replace"
        ]
        return [item for item, _ in found[max(whole, default=0) :]]

    def _note_destroyed(self, recorded: _Recorded) -> None:
        row = self.connection.execute(
            "select destroyed_at::text, destroyed_by, why from ops.archived where sha256 = %s and destroyed_at is not null",
            (recorded.sha256,),
        ).fetchone()
        if recorded.replayed:
            row = row or (None, None, "retention ended of rejected rows that it loaded")
        if row is None:
            raise UserError(
                f"{self.contract.dataset}: delivery {recorded.id} ({recorded.file}) is not in the archive and no retention"
                f" destroyed it; restore {place_of(Path('archive'), recorded.sha256)} from a backup"
            )
        self.result.destroyed.append(
            {"delivery": recorded.id, "file": recorded.file, "destroyed_at": row[0], "destroyed_by": row[1], "why": row[2]}
        )

    def _load(self, contract: Contract, recorded: _Recorded) -> None:
        encoder = Encoder(contract)
        self.connection.execute("drop table if exists incoming")
        self.connection.execute(
            sql.SQL("create temporary table incoming ({}, _row bigint) on commit drop").format(
                sql.SQL(", ").join(
                    sql.SQL("{} {}").format(sql.Identifier(name), type_sql(kind)) for name, kind in contract.table_columns
                )
            )
        )
        statement = encoder.statement(sql.Identifier("incoming"))
        with self._source(contract, recorded) as source:
            plan = Plan(contract, recorded.as_of, contract.period_of(recorded.file))
            with Stream(source, plan, encoder, Clock()) as stream:
                for piece in stream:
                    if piece.data:
                        with self.connection.cursor().copy(statement) as copy:
                            for data in piece.data:
                                copy.write(data)
        if not recorded.replayed:
            self._drop_rejected(recorded, source)
        self._replace(contract, recorded)

    def _contract_then(self, recorded: _Recorded) -> Contract:
        if recorded.contract_checksum in self._contracts:
            return self._contracts[recorded.contract_checksum]
        row = self.connection.execute(
            "select document from ops.contract where checksum = %s", (recorded.contract_checksum,)
        ).fetchone()
        if row is None:
            raise UserError(
                f"{self.contract.dataset}: the contract of delivery {recorded.id} ({recorded.file}) was not recorded: it is"
                " older than the keeping of contracts; deliver the file once more"
            )
        with private_folder(self.warehouse.scratch, "contract") as folder:
            path = folder / f"{recorded.contract_checksum}.odcs.yaml"
            path.write_text(row[0], "utf-8")
            try:
                found = replace(read_contract(path), path=self.contract.path)
            except DocumentError as error:
                raise UserError(
                    f"{self.contract.dataset}: the contract of delivery {recorded.id} cannot be read any more: {error}"
                ) from error
        self._contracts[recorded.contract_checksum] = found
        return found

    def _source(self, contract: Contract, recorded: _Recorded) -> Any:
        if recorded.replayed:
            return _Replayed(self.connection, contract, recorded.id, self.renames)
        return _Archived(self.warehouse, contract, recorded)

    def _drop_rejected(self, recorded: _Recorded, source: _Archived) -> None:
        """Leave out what was rejected then for what other rows and tables held."""
        rows = self.connection.execute(
            sql.SQL(
                """
                select file, row from {} q
                where delivery_id = %s and exists (
                    select from jsonb_array_elements(q.reasons) as r (reason)
                    where r.reason ->> 'code' in ('unknown_reference', 'duplicate_key')
                )
                """
            ).format(sql.Identifier("quarantine", self.contract.dataset)),
            (recorded.id,),
        ).fetchall()
        numbers = [row + source.offsets.get(file, 0) for file, row in rows]
        if numbers:
            self.connection.execute(
                "delete from incoming using unnest(%s::bigint[]) as gone (row) where _row = gone.row", (numbers,)
            )

    def _replace(self, contract: Contract, recorded: _Recorded) -> None:
        """Put the delivery's rows where the load put them, in the columns of today."""
        load, rebuilt = contract.load, sql.Identifier(TABLE)
        renamed = self.renames.since(recorded.id)
        pairs = [(name, renamed.get(name, name)) for name, _ in contract.table_columns]
        pairs = [(old, new) for old, new in pairs if new in self.columns]
        types = dict(self.contract.table_columns)
        today = sql.SQL(", ").join(
            sql.SQL("{}::{} as {}").format(sql.Identifier(old), sql.SQL(types[new]), sql.Identifier(new)) for old, new in pairs
        )
        if contract.has_history and recorded.day is not None:
            lacking = [name for name in self.columns if name not in dict(pairs).values()]
            absent = [sql.SQL("null::{} as {}").format(sql.SQL(types[name]), sql.Identifier(name)) for name in lacking]
            self._apply_snapshot(
                recorded, recorded.day, sql.SQL("select {}, _row from incoming").format(sql.SQL(", ").join([today, *absent]))
            )
            return
        if not recorded.replayed:
            new = dict(pairs)
            if load.mode == "replace":
                self.connection.execute(sql.SQL("delete from {}").format(rebuilt))
            elif load.mode == "replace_scope":
                self._delete_matching([(part.column, new[part.column], part.granularity) for part in load.scope])
            else:
                self._delete_matching([(name, new[name], "value") for name in contract.key])
        self.connection.execute(
            sql.SQL("insert into {} ({}, _delivery_id, _row) select {}, {}, _row from incoming").format(
                rebuilt,
                sql.SQL(", ").join(sql.Identifier(new) for _, new in pairs),
                today,
                sql.Literal(recorded.id),
            )
        )

    def _take_as_recorded(self, recorded: _Recorded, day: date) -> None:
        """What a destroyed snapshot said is still in the table: what was believed of its day once it was loaded."""
        columns = sql.SQL(", ").join(map(sql.Identifier, [*self.columns, "_row"]))
        self._apply_snapshot(
            recorded,
            day,
            sql.SQL(
                """
                select {columns} from {table}
                where _recorded_by <= {delivery} and (_superseded_by is null or _superseded_by > {delivery})
                  and _valid_from <= {day} and (_valid_to is null or _valid_to > {day})
                """
            ).format(columns=columns, table=self.table, delivery=sql.Literal(recorded.id), day=sql.Literal(day)),
        )

    def _take_rows(self, recorded: _Recorded) -> None:
        """What a destroyed delivery from before the history brought is still in the table."""
        columns = sql.SQL(", ").join(map(sql.Identifier, [*self.columns, "_delivery_id", "_row"]))
        self.connection.execute(
            sql.SQL("insert into {} ({}) select {} from {} where _delivery_id = {} and _recorded_by = {}").format(
                sql.Identifier(TABLE), columns, columns, self.table, sql.Literal(recorded.id), sql.Literal(recorded.id)
            )
        )

    def _apply_snapshot(self, recorded: _Recorded, day: date, rows: sql.Composable) -> None:
        """``rows``: a query of the rows that the snapshot holds, in the columns of today."""
        self.connection.execute(sql.SQL("create temporary table snapshot on commit drop as {}").format(rows))
        apply_snapshot(
            self.connection,
            self.contract,
            sql.Identifier(TABLE),
            sql.Identifier("snapshot"),
            delivery=recorded.id,
            day=day,
            until=next_snapshot(self.connection, self.contract.dataset, day, before=recorded.id),
            whole=not recorded.replayed,
            absent=True,
        )
        self.connection.execute("drop table snapshot")

    def _delete_matching(self, columns: list[tuple[str, str, str]]) -> None:
        """Delete what is the same as an incoming row in ``columns``: the name then and now, and what dates are cut to.

        Arrays are the same where both hold null, and can be hashed.
        """
        types = dict(self.contract.table_columns)
        same = []
        for old, now, granularity in columns:
            kept = sql.SQL("t.{}").format(sql.Identifier(now))
            came = sql.SQL("i.{}::{}").format(sql.Identifier(old), sql.SQL(types[now]))
            if granularity != "value":
                kept, came = (sql.SQL("date_trunc({}, {})").format(sql.Literal(granularity), side) for side in (kept, came))
            same.append(sql.SQL("array[{}] = array[{}]").format(kept, came))
        self.connection.execute("analyze incoming")
        self.connection.execute(
            sql.SQL("delete from {} t where exists (select from incoming i where {})").format(
                sql.Identifier(TABLE), sql.SQL(" and ").join(same)
            )
        )

    def _compare(self) -> None:
        columns = self._all_columns()
        gone = sql.Literal([item["delivery"] for item in self.result.destroyed])
        row = self.connection.execute(
            sql.SQL(
                """
                with kept as (select {columns} from {table} where _delivery_id <> all ({gone}::bigint[])),
                made as (select {columns} from {rebuilt} where _delivery_id <> all ({gone}::bigint[]))
                select
                    (select count(*) from kept),
                    (select count(*) from (select * from made except all select * from kept) as missing),
                    (select count(*) from (select * from kept except all select * from made) as extra)
                """
            ).format(columns=columns, table=self.table, rebuilt=sql.Identifier(TABLE), gone=gone)
        ).fetchone()
        assert row is not None
        self.result.rows, self.result.missing, self.result.extra = (int(value) for value in row)

    def _all_columns(self) -> sql.Composed:
        own = ["_delivery_id", "_row", *(HISTORY_COLUMNS if self.contract.has_history else ())]
        return sql.SQL(", ").join(map(sql.Identifier, [*self.columns, *own]))

    def apply(self, run_id: str, work: str) -> None:
        """Put the rebuilt rows in the table's place; rows of destroyed deliveries stay as they are."""
        if self.changes:
            record_migration(self.connection, self.contract, run_id, self.changes, self.views)
        columns = self._all_columns()
        gone = sql.Literal([item["delivery"] for item in self.result.destroyed])
        self.connection.execute(sql.SQL("delete from {} where _delivery_id <> all ({}::bigint[])").format(self.table, gone))
        self.connection.execute(
            sql.SQL(
                "insert into {} ({}) select {} from {} where _delivery_id <> all ({}::bigint[]) order by _delivery_id, _row"
            ).format(self.table, columns, columns, sql.Identifier(TABLE), gone)
        )
        self.connection.execute(
            "select lineage.record_write(p_kind => 'load', p_target => %s, p_run_id => %s, p_version => %s, p_code => %s,"
            " p_inputs => %s, p_rows_out => %s, p_detail => %s)",
            (
                self.contract.table,
                run_id,
                self.contract.version,
                json.dumps(code_of(self.contract)),
                json.dumps(inputs_of(self.contract), ensure_ascii=False),
                self.result.rows + self.result.missing - self.result.extra,
                json.dumps({"rebuild": True, "deliveries": self.result.deliveries, "work": work, "mode": "rebuild"}),
            ),
        )
        # What it holds of each delivery is what the rebuild gave it.
        self.connection.execute(
            sql.SQL(
                """
                with held as (select _delivery_id as id, count(*) as rows from {} group by 1)
                update ops.delivery d set rows_held = coalesce(held.rows, 0)
                from ops.delivery o left join held on held.id = o.id
                where o.id = d.id and d.dataset = %s and d.rows_held is distinct from coalesce(held.rows, 0)
                """
            ).format(self.table),
            (self.contract.dataset,),
        )
        self.result.applied = True


class _Archived:
    """A delivery from the archive. ``offsets``: what the rows of each of its files are numbered ahead of the file's own."""

    def __init__(self, warehouse: Warehouse, contract: Contract, recorded: _Recorded) -> None:
        self._contract = contract
        self._restored = restored(warehouse.archive, recorded.sha256, recorded.file, warehouse.scratch)
        self._scratch = warehouse.scratch
        self.layout_rows = 0
        self.unknown_titles: tuple[str, ...] = ()
        self.offsets: dict[str, int] = {}

    def __enter__(self) -> _Archived:
        path = self._restored.__enter__()
        self._unpacked = unpacked(path, self._scratch)
        self._files = Files(self._contract, self._unpacked.__enter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._unpacked.__exit__(*error)
        self._restored.__exit__(*error)

    def places(self) -> Iterator[Place]:
        for place in self._files.places():
            self.offsets[place.file] = place.offset
            yield place


class _Replayed:
    """Rows of the quarantine that a replay loaded."""

    def __init__(self, connection: Connection, contract: Contract, delivery: int, renames: Renames) -> None:
        self._connection = connection
        self._contract = contract
        self._delivery = delivery
        self._renames = renames
        self.layout_rows = 0
        self.unknown_titles: tuple[str, ...] = ()

    def __enter__(self) -> _Replayed:
        rows = self._connection.execute(
            sql.SQL(
                "select id, original, coalesce(corrected, fields), delivery_id from {} where replayed_by = %s order by id"
            ).format(sql.Identifier("quarantine", self._contract.dataset)),
            (self._delivery,),
        ).fetchall()
        names = {origin: self._renames.since(origin, self._delivery) for origin in {row[3] for row in rows}}
        self._rows = [
            {"id": number, "original": original, "fields": in_names(fields, names[origin])}
            for number, original, fields, origin in rows
        ]
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def places(self) -> Iterator[Place]:
        for batch in batches_of(self._contract, self._rows):
            yield Place(batch, "", 0)
