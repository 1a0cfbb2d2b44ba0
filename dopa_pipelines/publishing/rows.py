"""The rows of an extract, read from the warehouse in one snapshot and in bounded memory.

What the rows are written to is :mod:`.writers`; that they may go out was decided before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import pyarrow as pa
import pyarrow.csv as arrow_csv
from psycopg import sql

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.seal import Head, head
from dopa_pipelines.publishing.publication import Publication, PublishedColumn
from dopa_pipelines.warehouse import Role, Warehouse

BATCH_ROWS = 50_000
"""Rows held in memory at a time, and rows a Parquet row group: part of the bytes, so the same everywhere."""

_POSTGRES_TYPES: dict[str, frozenset[str]] = {
    "string": frozenset({"text", "character varying", "character"}),
    "integer": frozenset({"smallint", "integer", "bigint"}),
    "number": frozenset({"numeric", "real", "double precision"}),
    "boolean": frozenset({"boolean"}),
    "date": frozenset({"date"}),
}
_ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
}


@dataclass
class Snapshot:
    """A publication's source as of one moment.

    ``writes``: the id in ``lineage.write`` of the source's last recorded write as of that moment; none where
    the table was made by hand. ``head``: the last seal of the records as of that moment. ``batches`` can be read once.
    """

    publication: Publication
    schema: pa.Schema
    writes: list[int]
    head: Head | None
    _connection: psycopg.Connection = field(repr=False)

    @property
    def connection(self) -> psycopg.Connection:
        """The connection of the snapshot, to ask it of other things as of the same moment."""
        return self._connection

    def batches(self) -> Iterator[pa.Table]:
        """The rows in the publication's order, ``BATCH_ROWS`` a table; the columns it lists and no other."""
        with self._connection.cursor() as cursor, cursor.copy(_query(self.publication)) as copy:
            lines: list[bytes | bytearray | memoryview] = []
            for line in copy:
                lines.append(line)
                if len(lines) == BATCH_ROWS:
                    yield self._table(lines)
                    lines = []
            if lines:
                yield self._table(lines)

    def _table(self, lines: list[bytes | bytearray | memoryview]) -> pa.Table:
        text = b"".join(lines)
        try:
            return arrow_csv.read_csv(
                pa.BufferReader(text),
                read_options=arrow_csv.ReadOptions(column_names=self.schema.names, block_size=len(text) + 1),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=self.schema,
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    true_values=["t"],
                    false_values=["f"],
                ),
            )
        except pa.ArrowInvalid as error:
            raise UserError(
                f"{self.publication.source} holds a value that the publication {self.publication.name} "
                f"cannot "
                f"write: {error}; correct it in the model."
            ) from error


@contextmanager
def snapshot(warehouse: Warehouse, publication: Publication) -> Iterator[Snapshot]:
    """Open the publication's source for reading, as of now.

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
        schema = _schema(connection, publication)
        rows = connection.execute(
            "select max(id) from lineage.write where target = %s having max(id) is not null",
            [publication.source],
        ).fetchall()
        yield Snapshot(publication, schema, [row[0] for row in rows], head(connection), connection)


def _schema(connection: psycopg.Connection, publication: Publication) -> pa.Schema:
    """The Arrow schema of the extract, after comparing the publication with the table."""
    found = {
        name: (type_name, modifier)
        for name, type_name, modifier in connection.execute(
            "select attname, format_type(atttypid, null), atttypmod from pg_attribute "
            "where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            [publication.source],
        )
    }
    missing = [column.source for column in publication.columns if column.source not in found]
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


def _query(publication: Publication) -> sql.Composed:
    """The extract as CSV. The columns that ``orderBy`` doesn't name break its ties: the order is total."""
    schema_name, table = publication.source.split(".")
    by_name = {column.name: column for column in publication.columns}
    order = [
        *(by_name[name] for name in publication.order_by),
        *(column for column in publication.columns if column.name not in publication.order_by),
    ]
    return sql.SQL("copy (select {columns} from {table} order by {order}) to stdout (format csv, encoding 'UTF8')").format(
        columns=sql.SQL(", ").join(sql.Identifier(column.source) for column in publication.columns),
        table=sql.Identifier(schema_name, table),
        order=sql.SQL(", ").join(
            sql.SQL("{}{} nulls first").format(
                sql.Identifier(column.source),
                sql.SQL(' collate "C"') if column.type == "string" else sql.SQL(""),
            )
            for column in order
        ),
    )
