"""The rows of an extract, read from the warehouse in one snapshot and in bounded memory.

What the rows are written to is :mod:`.writers`; that they may go out was decided before.

The publication's own connection holds the source's lock and the snapshot, and is what a gate asks. The rows come by a second
connection in the same snapshot: ADBC reads PostgreSQL's binary COPY straight into Arrow, in C and beside the writers (2,000,000
rows in 1.1 × the time of the COPY itself; through psycopg and CSV it was 2.7 ×).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date

import adbc_driver_manager
import psycopg
import pyarrow as pa
import pyarrow.compute as compute
from adbc_driver_postgresql import dbapi
from psycopg import sql

from dopa_pipelines.errors import UnfinishedError, UserError
from dopa_pipelines.lineage.seal import Head, head
from dopa_pipelines.publishing.publication import GEOMETRY, Publication, PublishedColumn
from dopa_pipelines.warehouse import Role, Warehouse

BATCH_ROWS = 50_000
"""Rows held in memory at a time, and rows a Parquet row group: part of the bytes, so the same everywhere."""
_AHEAD = 3
"""Batches that are read while others are written."""

_POSTGRES_TYPES: dict[str, frozenset[str]] = {
    "string": frozenset({"text", "character varying", "character"}),
    "integer": frozenset({"smallint", "integer", "bigint"}),
    "number": frozenset({"numeric", "real", "double precision"}),
    "boolean": frozenset({"boolean"}),
    "date": frozenset({"date"}),
}
_GEOMETRY_TYPES = frozenset({"text", "json", "jsonb"})
_ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
}
_FIRST_DAY, _LAST_DAY = date(1, 1, 1), date(9999, 12, 31)


def beside(column: str) -> str:
    """What a column of the source is called in rows that carry it for their protection only."""
    return f"(source) {column}"


@dataclass
class Snapshot:
    """A publication's source as of one moment.

    ``schema``: the published columns, and the column ``GEOMETRY`` with GeoJSON text where the publication has one. ``writes``:
    the id in ``lineage.write`` of the source's last recorded write as of that moment; none where the table was made by hand.
    ``head``: the last seal of the records as of that moment. ``connection``: in the snapshot, read only; whoever judges whether
    these rows may go out asks by it. ``batches`` can be read as often as one likes while the snapshot is open.
    """

    publication: Publication
    schema: pa.Schema
    writes: list[int]
    head: Head | None
    connection: psycopg.Connection = field(repr=False)
    _query: str = field(repr=False)
    _url: str = field(repr=False)

    @property
    def published_schema(self) -> pa.Schema:
        """The schema without what is carried for protection only."""
        rule = self.publication.disclosure
        carries = set(map(beside, rule.carried)) if rule else set()
        return pa.schema([item for item in self.schema if item.name not in carries])

    def of(self, other: Publication) -> Snapshot | None:
        """Another publication's source as of the same moment; None where its table or a column is not there."""
        found = _found(self.connection, other)
        if any(column.source not in found for column in other.columns):
            return None
        carries = other.disclosure.carried if other.disclosure else []
        schema = _schema(found, other, carries)
        query = _query(other, schema, found, carries).as_string(self.connection)
        return Snapshot(other, schema, [], None, self.connection, query, self._url)

    def whole(self) -> pa.Table:
        """All rows at once: what disclosure control needs."""
        return pa.concat_tables([self.schema.empty_table(), *self.batches()])

    def batches(self) -> Iterator[pa.Table]:
        """The rows in the publication's order, ``BATCH_ROWS`` a table; the columns it lists and no other."""
        with closing(_ahead(lambda: _even(self._read(), self.schema))) as tables:
            yield from tables

    def _read(self) -> Iterator[pa.Table]:
        row = self.connection.execute("select pg_export_snapshot()").fetchone()
        assert row is not None
        try:
            with dbapi.connect(self._url) as connection, connection.cursor() as cursor:
                cursor.execute("set transaction isolation level repeatable read, read only")
                cursor.execute(f"set transaction snapshot '{row[0]}'")
                cursor.execute("set client_encoding to 'UTF8'")
                cursor.execute(self._query)
                for batch in cursor.fetch_record_batch():
                    yield self._table(batch)
        except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:  # Arrow tells a lost connection as the latter
            said = str(error).strip().splitlines()[0:1] or [type(error).__name__]
            raise UnfinishedError(
                f"reading {self.publication.source} was cut off ({said[0]}); see that the warehouse's server runs and publish "
                "again: the latest release is as it was"
            ) from error

    def _table(self, batch: pa.RecordBatch) -> pa.Table:
        """A batch as it came, in the types of the schema."""
        columns = []
        for found, wanted in zip(batch.columns, self.schema, strict=True):
            try:
                columns.append(_typed(found, wanted.type))
            except (pa.ArrowInvalid, ValueError) as error:
                raise UserError(
                    f"{self.publication.source} holds a value in {wanted.name} that the publication {self.publication.name} "
                    f"cannot write: {error}; correct it in the model."
                ) from error
        return pa.Table.from_arrays(columns, schema=self.schema)


def _typed(found: pa.Array, wanted: pa.DataType) -> pa.Array:
    if isinstance(found, pa.ExtensionArray):  # a numeric comes as its text
        found = found.storage
    if pa.types.is_date(wanted):
        # PostgreSQL's infinity, and years that no format of ours can write.
        days = compute.min_max(found.cast(pa.int32())).as_py()
        if days["min"] is not None and (days["min"] < _days(_FIRST_DAY) or days["max"] > _days(_LAST_DAY)):
            raise ValueError("a date outside the years 1 to 9999")
    return found if found.type == wanted else found.cast(wanted)


def _days(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _even(tables: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows, ``BATCH_ROWS`` a table: how the server cuts them must not show in the bytes of a file."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        while rows >= BATCH_ROWS:
            whole = pa.concat_tables(held)
            yield whole.slice(0, BATCH_ROWS).combine_chunks()
            rows -= BATCH_ROWS
            held = [whole.slice(BATCH_ROWS)]
    if rows:
        yield pa.concat_tables(held).combine_chunks()


def _ahead(make: Callable[[], Iterator[pa.Table]]) -> Generator[pa.Table, None, None]:
    """The tables that ``make`` gives, read by a thread while the caller is at work with those before. Closing ends the thread."""
    waiting: queue.Queue[pa.Table | BaseException | None] = queue.Queue(_AHEAD)
    enough = threading.Event()

    def put(item: pa.Table | BaseException | None) -> None:
        while not enough.is_set():
            try:
                waiting.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for table in make():
                put(table)
                if enough.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    reader = threading.Thread(target=read, name="rows of a release", daemon=True)
    reader.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        enough.set()
        reader.join()


@contextmanager
def snapshot(warehouse: Warehouse, publication: Publication, beside: Sequence[Publication] = ()) -> Iterator[Snapshot]:
    """Open the publication's source for reading, as of now. ``beside``: others whose sources are to be read in the same moment.

    Raises :class:`UserError` where the table or a listed column isn't there, or is of another type.
    """
    schema_name, table = publication.source.split(".")
    with warehouse.connect(Role.READER) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        try:
            # A rebuild swaps the table for a new one, whose rows an older snapshot doesn't see: it would read
            # nothing. The lock comes before the first query, hence before the snapshot; a rebuild waits.
            connection.execute(sql.SQL("lock table {} in access share mode").format(sql.Identifier(schema_name, table)))
            for other in beside:
                _hold(connection, other.source)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise UserError(
                f"{publication.path.name}: the table {publication.source} isn't in the warehouse; build the "
                f"model "
                f"with `dopa run`, or correct `source`."
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"{publication.path.name}: the role that publishes may not read {publication.source}; build "
                f"it "
                f"with dbt, which grants that, or correct `source`."
            ) from error
        found = _found(connection, publication)
        carries = publication.disclosure.carried if publication.disclosure else []
        schema = _schema(found, publication, carries)
        rows = connection.execute(
            "select max(id) from lineage.write where target = %s having max(id) is not null",
            [publication.source],
        ).fetchall()
        query = _query(publication, schema, found, carries).as_string(connection)
        writes = [row[0] for row in rows]
        yield Snapshot(publication, schema, writes, head(connection), connection, query, warehouse.url(Role.READER))


def _hold(connection: psycopg.Connection, source: str) -> None:
    """Keep a table from being swapped, if it is there."""
    there = connection.execute(
        "select c.oid::regclass::text from pg_class c where c.oid = to_regclass(%s) and c.relkind in ('r', 'p', 'v', 'm')",
        [source],
    ).fetchone()
    if there is not None:
        connection.execute(sql.SQL("lock table {} in access share mode").format(sql.Identifier(*source.split("."))))


def _found(connection: psycopg.Connection, publication: Publication) -> dict[str, tuple[str, int]]:
    """Type and modifier of the source's columns."""
    return {
        name: (type_name, modifier)
        for name, type_name, modifier in connection.execute(
            "select attname, format_type(atttypid, null), atttypmod from pg_attribute "
            "where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            [publication.source],
        )
    }


def _schema(found: dict[str, tuple[str, int]], publication: Publication, carries: Sequence[str]) -> pa.Schema:
    """The Arrow schema of the extract and what it carries besides, after comparing the publication with the table."""
    wanted = [column.source for column in publication.columns] + ([publication.geometry] if publication.geometry else [])
    wanted += carries
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(
            f"{publication.path.name}: {publication.source} has no column {', '.join(missing)}; "
            f"it has {', '.join(sorted(found))}."
        )
    fields = []
    for column in publication.columns:
        type_name, modifier = found[column.source]
        if type_name not in _POSTGRES_TYPES[column.type]:
            raise UserError(
                f"{publication.path.name}: column {column.name} is declared {column.type}, but "
                f"{publication.source}.{column.source} is {type_name}; declare what it is or cast it in the "
                f"model."
            )
        fields.append(pa.field(column.name, _arrow_type(column, type_name, modifier)))
    if publication.geometry:
        type_name = found[publication.geometry][0]
        if type_name not in _GEOMETRY_TYPES:
            raise UserError(
                f"{publication.path.name}: the geometry {publication.source}.{publication.geometry} is {type_name}; make it "
                f"GeoJSON text (of type text, json or jsonb) in the model."
            )
        fields.append(pa.field(GEOMETRY, pa.string()))
    for name in carries:
        if found[name][0] not in _POSTGRES_TYPES["integer"] | _POSTGRES_TYPES["number"]:
            raise UserError(
                f"{publication.path.name}: disclosure names {publication.source}.{name}, which is {found[name][0]}; "
                "name a column of numbers"
            )
        fields.append(pa.field(beside(name), pa.float64()))
    return pa.schema(fields)


def _arrow_type(column: PublishedColumn, type_name: str, modifier: int) -> pa.DataType:
    if column.type != "number":
        return _ARROW_TYPES[column.type]
    if type_name == "numeric" and modifier > 0:
        # PostgreSQL packs both into the modifier: ((precision << 16) | scale) + 4; the scale has 11 bits.
        precision, scale = ((modifier - 4) >> 16) & 0xFFFF, (modifier - 4) & 0x7FF
        if 0 <= scale <= precision <= 38:
            return pa.decimal128(precision, scale)
    return pa.float64()


def _query(
    publication: Publication, schema: pa.Schema, found: dict[str, tuple[str, int]], carries: Sequence[str]
) -> sql.Composed:
    """The extract. The columns that ``orderBy`` doesn't name break its ties: the order is total."""
    schema_name, table = publication.source.split(".")
    by_name = {column.name: column for column in publication.columns}
    order = [
        *(by_name[name] for name in publication.order_by),
        *(column for column in publication.columns if column.name not in publication.order_by),
    ]
    values = [_value(column, schema.field(column.name).type, found[column.source][0]) for column in publication.columns]
    if publication.geometry:
        values.append(sql.SQL("{}::text").format(sql.Identifier(publication.geometry)))
    values += [sql.SQL("{}::float8").format(sql.Identifier(name)) for name in carries]
    # The order is of the table's own values: a column of the output would be meant by its bare name.
    return sql.SQL("select {columns} from {table} as t order by {order}").format(
        columns=sql.SQL(", ").join(values),
        table=sql.Identifier(schema_name, table),
        order=sql.SQL(", ").join(
            sql.SQL("t.{}{} nulls first").format(
                sql.Identifier(column.source),
                sql.SQL(' collate "C"') if column.type == "string" else sql.SQL(""),
            )
            for column in order
        ),
    )


def _value(column: PublishedColumn, wanted: pa.DataType, type_name: str) -> sql.Composed:
    """A column as PostgreSQL sends it in binary: what Arrow has no type for is cast."""
    cast = {"integer": "::bigint", "number": "" if pa.types.is_decimal(wanted) else "::float8"}.get(column.type, "")
    if type_name == "real":
        # The number that is written, 0.1, not the one that is stored, 0.10000000149.
        cast = "::text::float8"
    return sql.SQL("t.{}" + cast).format(sql.Identifier(column.source))
