"""The files of an extract: CSV, JSON and Parquet, written batch by batch; the same rows give the same bytes.

Formats belong here, one class each; which rows and which columns is decided before they come.

- **CSV**: RFC 4180 with LF, UTF-8, a header; no value is an empty cell, an empty text is ``""``. A
  spreadsheet takes a text that begins with ``= + - @``, a tab or a line end (or a full-width form of the
  signs) for a formula: such a cell gets an apostrophe in front. Only text columns, and only in CSV: JSON and
  Parquet carry the value as it is.
- **JSON**: an array of objects, one a line, UTF-8 with Thai unescaped.
- **Parquet**: zstd, a row group a batch. It holds no clock, but the version of the library that wrote it: an
  upgrade of pyarrow changes the bytes, and so makes a new release.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as parquet

# OWASP, "CSV Injection"
_FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"


class Writer(Protocol):
    """Writes batches to an open file; ``close`` ends the format and leaves the file open."""

    def write(self, table: pa.Table, frame: pl.DataFrame) -> None: ...

    def close(self) -> None: ...


class CsvWriter:
    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._file = file
        self._text = [field.name for field in schema if field.type == pa.string()]
        file.write((",".join(schema.names) + "\n").encode())

    def write(self, table: pa.Table, frame: pl.DataFrame) -> None:
        harmless = frame.with_columns(
            pl.when(pl.col(name).str.contains(_FORMULA))
            .then(pl.concat_str(pl.lit("'"), pl.col(name)))
            .otherwise(pl.col(name))
            .alias(name)
            for name in self._text
        )
        harmless.write_csv(self._file, include_header=False, line_terminator="\n", quote_style="necessary")

    def close(self) -> None:
        pass


class JsonWriter:
    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._file = file
        self._before = b"[\n"
        # A decimal would become a string.
        self._numbers = [field.name for field in schema if pa.types.is_decimal(field.type)]

    def write(self, table: pa.Table, frame: pl.DataFrame) -> None:
        lines = frame.with_columns(pl.col(self._numbers).cast(pl.Float64)).write_ndjson().encode()
        self._file.write(self._before)
        # A line feed inside a value is escaped, so each one here ends an object.
        self._file.write(lines.removesuffix(b"\n").replace(b"\n", b",\n"))
        self._before = b",\n"

    def close(self) -> None:
        self._file.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")


class ParquetWriter:
    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._writer = parquet.ParquetWriter(file, schema, compression="zstd", store_schema=False)

    def write(self, table: pa.Table, frame: pl.DataFrame) -> None:
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def close(self) -> None:
        self._writer.close()


WRITERS: dict[str, Callable[[BinaryIO, pa.Schema], Writer]] = {
    "csv": CsvWriter,
    "json": JsonWriter,
    "parquet": ParquetWriter,
}
MEDIA_TYPES: dict[str, str] = {
    "csv": "text/csv",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
