"""The recorded writes as a graph of columns: each write's definition, where it is another than before, and its edges.

Belongs here: which columns a contract, compiled SQL or a publication makes out of which. Does not belong here: the rules of SQL
(``columns``), the tables and their functions (a migration of the warehouse), asking the graph (``columntrace``).

What is the same as before costs a comparison of checksums. What cannot be resolved is recorded with the reason and without edges;
its columns are then those of the catalog, so that what reads it can still be resolved.

Of a table that is appended to (incremental models, snapshots, loads that add) the graph has the definition in force, by which
its newest rows were made; earlier rows were made by the one that was in force then, which ``as_of`` a time finds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from dopa_pipelines.lineage.model import ColumnEdge
from dopa_pipelines.lineage.naming import DatasetName, Identity
from dopa_pipelines.lineage.store import PRODUCTION, identity

if TYPE_CHECKING:
    from dopa_pipelines.contracts.model import Column, Contract

Connection = psycopg.Connection[Any]
Published = Mapping[str, Mapping[str, str]]
"""Checksum of a publication → its columns → the columns of its model that they are."""

FILE_NAME = "(file name)"
"""The field of a feed that a column is taken from which the contract fills from the file's name."""

_EDITION = 2
"""Raised when the same text would give other edges than before: what was recorded is then made anew by the next write."""
TURN = 0x646F7061_636F6C73
"""Any number: who records columns takes turns on this advisory lock, before that of events."""
_BATCH = 1000
# As a migration of a raw table records it (ingest.tables).
_RENAMED = re.compile(r"renamed (?P<old>\w+) to (?P<new>\w+)")


@dataclass(frozen=True)
class _Write:
    """A write that the graph does not know yet.

    ``checksum``: of its code, as it was recorded; ``more``: what else decides its edges (``fields`` of a seed's file,
    ``snapshot``, and ``kept`` where rows of earlier writes remain).
    """

    id: int
    kind: str
    target: str
    checksum: str | None
    version: str | None
    inputs: Sequence[Mapping[str, Any]]
    changes: Sequence[str] = ()
    """What a migration did to the table's columns, in words."""
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Known:
    """What is in force of a dataset, as far as it decides whether anything changed. ``columns``: SHA-256 of their names."""

    kind: str
    checksum: str
    reads: Mapping[str, str | None]
    names: tuple[str, ...]

    @property
    def columns(self) -> str:
        return _columns_checksum(self.names)


@dataclass
class _Definition:
    dataset: DatasetName
    kind: Literal["feed", "load", "model", "release", "table", "external"]
    checksum: str
    version: str | None = None
    reads: dict[str, str | None] = field(default_factory=dict)
    fields: list[dict[str, Any]] = field(default_factory=list)
    problem: dict[str, Any] | None = None
    edges: list[ColumnEdge] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(item["name"] for item in self.fields)


def record_columns(
    conn: Connection, *, published: Published | None = None, environment: str = PRODUCTION, batch: int = _BATCH
) -> int:
    """Bring the column graph to what the recorded writes made it; returns how many definitions were new.

    ``published``: for releases whose record does not say which column of the model each of theirs is. Part of the caller's
    transaction, or in one of its own; either must be read committed, and may not itself record writes afterwards.
    """
    recorder = _Recorder(conn, published or {})
    with conn.transaction():
        writes, snapshot = _pending(conn, environment)
        if snapshot is None:
            return 0
        conn.execute("select pg_advisory_xact_lock(%s)", (TURN,))
        # Who waited may find that another has recorded them meanwhile.
        writes, snapshot = _pending(conn, environment)
        for start in range(0, len(writes), batch):
            recorder.record(writes[start : start + batch])
        if snapshot is not None:
            conn.execute("select lineage.columns_looked_at(%s::pg_snapshot)", (snapshot,))
    return recorder.recorded


def pending(conn: Connection) -> bool:
    """Whether there are writes of production that the graph does not know."""
    return bool(_pending(conn, PRODUCTION)[0])


# A write is known when the snapshot sees it, so one that commits late is not missed, whatever its number. Another server
# counts transactions anew: there all writes are looked at once more, which changes nothing.
_PENDING = """
with seen as (select s.snapshot from lineage.columns_seen s where s.cluster = lineage.cluster())
select w.id, w.kind, w.target, w.code ->> 'checksum' as checksum,
    coalesce(case when w.kind = 'release' then w.detail ->> 'version' end, w.version) as version,
    w.inputs, jsonb_strip_nulls(jsonb_build_object(
        'fields', w.code -> 'fields', 'snapshot', w.code -> 'snapshot',
        'kept', case when w.detail ->> 'kept' = 'true' then true end
    )) as more, w.environment, pg_current_snapshot()::text as snapshot,
    case when jsonb_typeof(w.detail -> 'changes') = 'array' then w.detail -> 'changes' else '[]' end as changes,
    w.kind in ('load', 'model', 'release') and w.detail ->> 'superseded' is distinct from 'true'
        or w.kind = 'migration' and w.detail ? 'changes' as defines
from lineage.write w
where w.transaction_id >= coalesce((select pg_snapshot_xmin(snapshot) from seen), '0'::xid8)
    and not coalesce((select pg_visible_in_snapshot(w.transaction_id, snapshot) from seen), false)
order by w.id
"""


def _pending(conn: Connection, environment: str) -> tuple[list[_Write], str | None]:
    """The writes to look at, and the snapshot that sees them; None where nothing at all was written since."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_PENDING).fetchall()
    found = [
        _Write(
            row["id"],
            row["kind"],
            row["target"],
            row["checksum"],
            row["version"],
            row["inputs"] or (),
            row["changes"],
            row["more"],
        )
        for row in rows
        if row["defines"] and row["environment"] == environment
    ]
    return found, rows[0]["snapshot"] if rows else None


_IN_FORCE = """
select d.namespace, d.name, f.kind, f.checksum, f.reads, coalesce(
    (select array_agg(c.field ->> 'name' order by c.place)
     from jsonb_array_elements(f.fields) with ordinality as c (field, place)), '{}'
) as names
from lineage.dataset d
join lineage.definition f on f.dataset_id = d.id and f.valid_to = 'infinity'
where (d.name, d.namespace) in (select * from unnest(%s::text[], %s::text[]))
"""

_CATALOG = """
select a.attname
from pg_catalog.pg_attribute a
where a.attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text)) and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""


def record_imported(
    conn: Connection, event: int, edges: Iterable[ColumnEdge], columns: Mapping[DatasetName, Sequence[str]] | None = None
) -> int:
    """Take what an event of another system (``lineage.event.id``) tells of columns into the graph; returns how much was new.

    An event replaces what was told of the same dataset before. Of datasets that are written here nothing is taken, of what a
    silo sends only where its fields come from. ``columns``: of the datasets that the event describes.
    """
    columns = columns or {}
    told = list(edges)
    recorded = 0
    for dataset in dict.fromkeys([*columns, *(edge.target for edge in told)]):
        own = [edge for edge in told if edge.target == dataset]
        names = dict.fromkeys([*columns.get(dataset, ()), *(edge.target_column for edge in own if edge.target_column)])
        checksum = _sha256(json.dumps([_EDITION, "external", sorted(map(str, own))]))
        made = _Definition(dataset, "external", checksum, fields=[{"name": name} for name in names], edges=own)
        recorded += _store(conn, made, event=event)
    return recorded


def _store(conn: Connection, made: _Definition, *, write: int | None = None, event: int | None = None) -> bool:
    edges = [
        {
            "namespace": edge.source.namespace, "name": edge.source.name, "source": edge.source_column,
            "target": edge.target_column, "subtype": edge.subtype, "masking": edge.masking,
        }
        for edge in made.edges
    ]  # fmt: skip
    row = conn.execute(
        "select lineage.record_definition(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            write, made.dataset.namespace, made.dataset.name, made.kind, made.checksum, made.version,
            Jsonb(made.reads), Jsonb(made.fields), None if made.problem is None else Jsonb(made.problem), Jsonb(edges), event,
        ),
    ).fetchone()  # fmt: skip
    return bool(row and row[0])


class _Recorder:
    """The graph as it is now, brought forward write by write."""

    def __init__(self, conn: Connection, published: Published) -> None:
        self.conn = conn
        self.published = published
        self.named: Identity = identity(conn)
        self.known: dict[DatasetName, _Known | None] = {}
        self.recorded = 0

    def record(self, writes: Sequence[_Write]) -> None:
        datasets = [self.named.of_target(write.target) for write in writes]
        inputs = [self.named.canonical(item.get("namespace"), item["name"]) for write in writes for item in write.inputs]
        self._load([*datasets, *inputs])
        self._load(self.named.of_target(name) for found in self.known.values() if found for name in found.reads)
        for write, dataset in zip(writes, datasets, strict=True):
            if write.kind == "migration":
                self._follow_renames(write, dataset)
                continue
            if self._is_known(write, dataset):
                continue
            match write.kind:
                case "load":
                    made = self._of_load(write, dataset)
                case "release":
                    made = self._of_release(write, dataset)
                case _:
                    made = self._of_model(write, dataset)
            for definition in made:
                self._put(write, definition)

    def _is_known(self, write: _Write, dataset: DatasetName) -> bool:
        """Whether the write did what the last one did: the same code over the same columns."""
        found = self.known.get(dataset)
        kind = write.kind if write.kind in ("load", "release") else "model"
        if found is None or found.kind != kind or found.checksum != _checksum(write):
            return False
        return all(self._state(kind, name) == then for name, then in found.reads.items())

    def _state(self, kind: str, name: str) -> str | None:
        """What a definition notes of a dataset it reads: its columns; of a contract's reference only that it is there."""
        found = self._in_force(self.named.of_target(name))
        if found is None:
            return None
        if kind != "load" and found.kind == "table":
            # Nobody tells when it changes.
            return _columns_checksum(item["name"] for item in self._from_catalog(self.named.of_target(name)))
        return "" if kind == "load" else found.columns

    def _load(self, datasets: Iterable[DatasetName]) -> None:
        asked = list(dict.fromkeys(name for name in datasets if name not in self.known))
        if not asked:
            return
        self.known |= dict.fromkeys(asked)
        with self.conn.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_IN_FORCE, ([name.name for name in asked], [name.namespace for name in asked])).fetchall()
        for row in rows:
            known = _Known(row["kind"], row["checksum"], row["reads"], tuple(row["names"]))
            self.known[DatasetName(row["namespace"], row["name"])] = known

    def _in_force(self, dataset: DatasetName) -> _Known | None:
        if dataset not in self.known:
            self._load([dataset])
        return self.known[dataset]

    def _put(self, write: _Write, made: _Definition) -> None:
        self.recorded += _store(self.conn, made, write=write.id)
        self.known[made.dataset] = _Known(made.kind, made.checksum, made.reads, made.names)

    def _from_catalog(self, dataset: DatasetName) -> list[dict[str, Any]]:
        """The columns that a table has now; none where it is gone."""
        target = self.named.target(dataset) or ""
        schema, _, table = target.partition(".")
        return [{"name": row[0]} for row in self.conn.execute(_CATALOG, (schema, table)).fetchall()]

    def _unresolved(self, made: _Definition, construct: str, reason: str, line: int = 0, column: int = 0) -> _Definition:
        made.problem = {"construct": construct, "reason": reason, "line": line, "column": column}
        made.fields, made.edges = self._from_catalog(made.dataset), []
        return made

    def _follow_renames(self, write: _Write, dataset: DatasetName) -> None:
        """What was made of a column is made of it under its new name: PostgreSQL rewrites views so, and a table's rows came from
        it. The definitions stay, since nobody wrote them anew."""
        for change in write.changes:
            if found := _RENAMED.fullmatch(change):
                self.conn.execute(
                    "select lineage.rename_field(%s, %s, %s, %s, %s)", (write.id, *dataset, found["old"], found["new"])
                )

    # Loads

    def _of_load(self, write: _Write, dataset: DatasetName) -> Iterator[_Definition]:
        from dopa_pipelines.documents import DocumentError

        made = _Definition(dataset, "load", _checksum(write), write.version)
        row = self.conn.execute("select document from ops.contract where checksum = %s", (write.checksum,)).fetchone()
        if row is None:
            yield self._unresolved(made, f"the contract of {write.target}", "was not kept when this was loaded")
            return
        try:
            contract = contract_of(row[0])
        except DocumentError as error:
            yield self._unresolved(made, f"the contract of {write.target}", f"cannot be read any more: {error}")
            return
        feed = DatasetName(*contract.feed)
        fields, edges = contract_edges(contract, dataset, feed)
        yield _Definition(feed, "feed", made.checksum, write.version, fields=_feed_fields(contract))
        made.fields, made.edges = fields, edges
        for column in contract.columns:
            if column.reference and column.reference.dataset != contract.dataset:
                other = f"raw.{column.reference.dataset}"
                made.reads[other] = self._state("load", other)
                if made.reads[other] is not None:
                    # Rows whose value is not there went into the quarantine.
                    made.edges.append(ColumnEdge(self.named.table(other), column.reference.column, dataset, None, "FILTER"))
        yield made

    # Releases

    def _of_release(self, write: _Write, dataset: DatasetName) -> Iterator[_Definition]:
        made = _Definition(dataset, "release", _checksum(write), write.version)
        row = self.conn.execute("select detail -> 'columns' from lineage.write where id = %s", (write.id,)).fetchone()
        columns = [item for item in (row[0] if row and row[0] else []) if isinstance(item, Mapping)]
        told = self.published.get(write.checksum or "", {})
        sources = {item["name"]: item.get("source") or told.get(item["name"]) for item in columns}
        if len(write.inputs) != 1 or not columns or not all(sources.values()):
            reason = "do not say which columns of the model they are; publish it anew"
            yield self._unresolved(made, f"the recorded columns of {write.target}", reason)
            return
        source = self.named.canonical(write.inputs[0].get("namespace"), write.inputs[0]["name"])
        made.fields = [{key: item[key] for key in ("name", "type") if item.get(key)} for item in columns]
        made.edges = [ColumnEdge(source, str(sources[name]), dataset, name, "IDENTITY") for name in sources]
        yield made

    # Models

    def _of_model(self, write: _Write, dataset: DatasetName) -> Iterator[_Definition]:
        from dopa_pipelines.lineage.columns import Lineage, LineageError, Schema, analyze, analyze_snapshot
        from dopa_pipelines.lineage.columns.schema import Table, View

        row = self.conn.execute(
            "select code ->> 'compiled', code ->> 'path', code ->> 'unique_id' from lineage.write where id = %s", (write.id,)
        ).fetchone()
        sql, path, unique_id = row or (None, None, None)
        made = _Definition(dataset, "model", _checksum(write), write.version)
        if str(unique_id).startswith("seed."):
            yield from self._of_seed(write, made)
            return
        if not sql:
            yield self._unresolved(made, f"the SQL of {write.target}", "was not recorded")
            return
        observed: list[_Definition] = []

        class Known(Schema):
            """The tables that a statement names, with their columns as they are known by now."""

            def find(schema, db: str | None, name: str) -> Table | View | None:  # noqa: N805
                if db is None:
                    return None
                if (db, name) not in schema.tables and (columns := self._columns_of(f"{db}.{name}", observed)):
                    schema.tables[(db, name)] = Table(f"{db}.{name}", dict.fromkeys(columns, "unknown"))
                return schema.tables.get((db, name))

        known = Known()
        for item in write.inputs:
            target = self.named.target(self.named.canonical(item.get("namespace"), item["name"]))
            if target:
                known.find(*target.split(".", 1))
        lineage: Lineage | None = None
        try:
            if "snapshot" in write.more:
                lineage = analyze_snapshot(sql, known, write.more["snapshot"], statement=path or write.target)
            else:
                lineage = analyze(sql, known, statement=path or write.target)
        except LineageError as error:
            self._unresolved(made, error.construct, error.reason, error.line, error.column)
        yield from observed
        made.reads = {table.name: self._state("model", table.name) for table in known.base_tables().values()}
        if lineage is not None:
            made.fields = [{"name": title} for title, _ in lineage.columns]
            made.edges = [
                ColumnEdge(self.named.of_target(edge.table), edge.column, dataset, title, str(edge.subtype), edge.masking)
                for title, edges in [*lineage.columns, (None, lineage.dataset)]
                for edge in edges
            ]
            if write.more.get("kept"):
                # Rows of earlier writes are still there, as they were.
                itself = [ColumnEdge(dataset, title, dataset, title, "IDENTITY") for title in made.names]
                made.edges += [edge for edge in itself if edge not in made.edges]
        yield made

    def _of_seed(self, write: _Write, made: _Definition) -> Iterator[_Definition]:
        """A seed is a file of the project: what is in its first line is what the table has."""
        names = [str(name) for name in write.more.get("fields") or ()]
        if not names or len(write.inputs) != 1:
            yield self._unresolved(made, f"the file of {write.target}", "was not recorded; build it anew")
            return
        file = self.named.canonical(write.inputs[0].get("namespace"), write.inputs[0]["name"])
        made.fields = [{"name": name} for name in names]
        made.edges = [ColumnEdge(file, name, made.dataset, name, "IDENTITY") for name in names]
        yield _Definition(file, "feed", made.checksum, write.version, fields=made.fields)
        yield made

    def _columns_of(self, target: str, observed: list[_Definition]) -> tuple[str, ...]:
        """The columns of a table; what nobody here has written is as the catalog has it, and noted in ``observed``."""
        dataset = self.named.table(target)
        found = self._in_force(dataset)
        if found is not None and found.kind != "table":
            return found.names
        fields = self._from_catalog(dataset)
        if not fields:
            return ()
        names = tuple(item["name"] for item in fields)
        made = _Definition(dataset, "table", _columns_checksum(names), fields=fields)
        if found is None or found.names != names:
            observed.append(made)
            self.known[dataset] = _Known("table", made.checksum, {}, names)
        return names


def contract_edges(contract: Contract, table: DatasetName, feed: DatasetName) -> tuple[list[dict[str, Any]], list[ColumnEdge]]:
    """The columns of a raw table with what the contract says of them, and the edges from the fields of its feed.

    Text that is kept as it stands is IDENTITY; what is typed, repaired or taken from a date of three parts TRANSFORMATION. Fields
    that a row rule looks at decide by it which rows there are: FILTER.
    """
    unpivot = contract.layout.unpivot
    wide = [name for name, _ in _wide_fields(contract)]
    judged = _judged(contract)
    rows: dict[str, None] = {}
    fields: list[dict[str, Any]] = []
    edges: list[ColumnEdge] = []
    for column in contract.columns:
        if column.from_file:
            sources = [FILE_NAME]
        elif unpivot and column.name == unpivot.value:
            sources = wide
        elif unpivot and column.name in unpivot.filled:
            sources = []  # the place of the field says it
        else:
            sources = [column.title]
        kept = column.logical_type == "string" and column.parse == "text" and not column.from_file
        for name, kind in column.table_columns:
            fields.append({"name": name, "type": kind} | _protection(column))
            edges += [ColumnEdge(feed, source, table, name, "IDENTITY" if kept else "TRANSFORMATION") for source in sources]
        rows |= dict.fromkeys(sources if any(name in judged for name, _ in column.table_columns) else ())
    edges += [ColumnEdge(feed, source, table, None, "FILTER") for source in rows]
    own = ["_delivery_id", "_row"]
    if contract.has_history:
        from dopa_pipelines.ingest.history import COLUMNS

        own += COLUMNS
    return fields + [{"name": name} for name in own], edges


def _judged(contract: Contract) -> set[str]:
    """The table's columns that row rules look at; of a rule that is no expression none, since nothing is loaded under it."""
    if not contract.row_rules:
        return set()
    import polars as pl

    found: set[str] = set()
    for rule in contract.row_rules:
        with suppress(pl.exceptions.PolarsError):
            found |= set(pl.sql_expr(rule.expression).meta.root_names())
    return found


def _feed_fields(contract: Contract) -> list[dict[str, Any]]:
    """The fields of what a silo sends, in its order, by title, or by position where a line holds many rows."""
    value = contract.column(contract.layout.unpivot.value) if contract.layout.unpivot else None
    found: list[dict[str, Any]] = []
    for column in contract.file_columns if value is None else map(contract.column, contract.layout.unpivot.identity):  # type: ignore[union-attr]
        place = {"position": f"{column.position[0]}-{sum(column.position) - 1}"} if column.position else {}
        found.append({"name": column.title} | place | _protection(column))
    if value is not None:
        found += [{"name": name, "position": str(place)} | _protection(value) for name, place in _wide_fields(contract)]
    if any(column.from_file for column in contract.columns):
        found.append({"name": FILE_NAME})
    return found


def _wide_fields(contract: Contract) -> list[tuple[str, int]]:
    unpivot = contract.layout.unpivot
    if unpivot is None:
        return []
    first = len(unpivot.identity) + 1
    return [(f"field {place}", place) for place in range(first, first + len(unpivot.rows))]


def _protection(column: Column) -> dict[str, Any]:
    """What the contract says of who may see a column."""
    said: dict[str, Any] = {"classification": column.classification}
    return said | ({"pdpa_role": column.pdpa_role} if column.pdpa_role != "none" else {})


@lru_cache(maxsize=256)
def contract_of(document: str) -> Contract:
    """A contract from its text. Raises DocumentError."""
    from dopa_pipelines.contracts.read import SUFFIX, read_contract

    with TemporaryDirectory(prefix="dopa-contract-") as folder:
        path = Path(folder) / f"recorded{SUFFIX}"
        path.write_text(document, "utf-8")
        return read_contract(path)


def _checksum(write: _Write) -> str:
    return _sha256(json.dumps([_EDITION, write.kind, write.checksum, *([write.more] if write.more else [])], sort_keys=True))


def _columns_checksum(names: Iterable[str]) -> str:
    return _sha256("\n".join(names))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
