"""Typed rows as the bytes that PostgreSQL's COPY takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import sql

from dopa_pipelines.contracts import Contract
from dopa_pipelines.ingest.tables import is_decimal
from dopa_pipelines.sources.batch import ROW

SLICE_ROWS = 10_000
"""Rows encoded at once: what is sent while the next ones are made."""

_TYPES: dict[str, Any] = {
    "text": pl.String, "smallint": pl.Int16, "integer": pl.Int32, "bigint": pl.Int64, "date": pl.Date,
    "double precision": pl.Float64, "boolean": pl.Boolean, "timestamp": pl.Datetime("us"),
    "timestamptz": pl.Datetime("us", "Asia/Bangkok"), "numeric": pl.String,
}  # fmt: skip


class Encoder:
    """Encodes the accepted rows of one contract: its table's columns and ``_row``."""

    def __init__(self, contract: Contract) -> None:
        self.columns = [*(name for name, _ in contract.table_columns), ROW]
        self._schema = pl.Schema({name: _TYPES[kind] for name, kind in contract.table_columns} | {ROW: pl.Int64})
        # Exact decimals travel as text: binary COPY from Arrow has no form for them.
        self._binary = not any(is_decimal(kind) for _, kind in contract.table_columns)

    def statement(self, table: sql.Composable, *, frozen: bool = False) -> sql.Composed:
        """The COPY that takes what ``encode`` gives. ``frozen``: into a table made in this transaction, so that no later reader
        has to mark its rows as committed.
        """
        return sql.SQL("copy {} ({}) from stdin (format {}, freeze {})").format(
            table,
            sql.SQL(", ").join(map(sql.Identifier, self.columns)),
            sql.SQL("binary" if self._binary else "csv"),
            sql.Literal(frozen),
        )

    def encode(self, frame: pl.DataFrame) -> Iterator[bytes]:
        rows = frame.select(self.columns).match_to_schema(self._schema)
        if not self._binary:
            yield csv_of(rows)
            return
        batches = rows.to_arrow(compat_level=pl.CompatLevel.newest()).to_batches(max_chunksize=SLICE_ROWS)
        encoder = ArrowToPostgresBinaryEncoder(batches[0].schema)
        yield encoder.write_header()
        for batch in batches:
            yield encoder.write_batch(batch)
        yield encoder.finish()


def csv_of(frame: pl.DataFrame) -> bytes:
    """CSV as COPY reads it: nulls are empty, empty text is quoted."""
    # A format of all times would ask those without a zone for one.
    times = [
        pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6f" + "%:z" * bool(kind.time_zone))
        for name, kind in frame.schema.items()
        if isinstance(kind, pl.Datetime)
    ]
    return frame.with_columns(times).write_csv(include_header=False, quote_style="non_numeric").encode()
