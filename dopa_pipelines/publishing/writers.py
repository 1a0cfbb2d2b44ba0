"""The files of an extract: CSV, JSON, Parquet, xlsx and GeoJSON, written batch by batch; the same rows give the same bytes.

Formats belong here, one class each; which rows and which columns is decided before they come.

- **CSV**: RFC 4180 with LF, UTF-8, a header; no value is an empty cell, an empty text is ``""``. With a byte order mark where
  Excel users read it: Excel takes a file without one for the code page of its machine. A spreadsheet takes a text that begins
  with ``= + - @``, a tab or a line end (or a full-width form of the signs) for a formula: such a cell gets an apostrophe in
  front. Only text columns, and only in CSV: the other formats carry the value as it is.
- **JSON**: an array of objects, one a line, UTF-8 with Thai unescaped.
- **Parquet**: zstd, a row group a batch. It holds no clock, but the version of the library that wrote it: an
  upgrade of pyarrow changes the bytes, and so makes a new release.
- **xlsx**: a sheet ``data`` with a header, and the data dictionary on another. Texts are written as texts, never as formulas or
  links, and one that could become a formula when a user edits its cell is marked as text (Excel's quote prefix). A whole number
  of more than 15 digits is text: Excel would round it. More rows than a sheet holds are refused: a second sheet is what readers
  overlook.
- **GeoJSON**: RFC 7946, a FeatureCollection with a feature a line, the columns as its properties.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as parquet
import xlsxwriter
from xlsxwriter.exceptions import XlsxWriterException

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.folders import WrittenFile
from dopa_pipelines.publishing.publication import GEOMETRY

FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"
"""What a spreadsheet may take for the beginning of a formula (OWASP, "CSV Injection")."""
BOM = b"\xef\xbb\xbf"
SHEET_ROWS = 1_048_575
"""Rows below the header that a sheet of Excel holds."""
_CELL_CHARACTERS = 32_767
_EXACT = 10**15
_SIGNS = tuple("=+-@\t\r\n＝＋－＠")
_FIRST_EXCEL_DAY = datetime.date(1900, 3, 1)  # before it, Excel counts a 29 February that never was
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Style:
    """What a publication says of its files. ``dictionary``: rows of the data dictionary, a header first, for the workbook."""

    excel: bool = False
    dictionary: Sequence[Sequence[str]] = ()


class Writer(Protocol):
    """Writes batches to a new file. ``close`` ends the format, and the file is on disk; ``abandon`` lets go of it as it is."""

    def write(self, table: pa.Table, frame: pl.DataFrame) -> None: ...

    def close(self) -> WrittenFile: ...

    def abandon(self) -> None: ...


class _File:
    """A file whose digest is taken while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = False
        self._file = path.open("wb", buffering=_BLOCK)
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, content: bytes | memoryview) -> int:
        self._digest.update(content)
        self._file.write(content)
        self._bytes += len(content)
        return len(content)

    def flush(self) -> None:
        pass

    def finish(self) -> WrittenFile:
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        return WrittenFile(self.path.name, self._bytes, self._digest.hexdigest())

    def close(self) -> None:
        """Let go of the file; what cannot be written any more is not needed."""
        with contextlib.suppress(OSError):
            self._file.close()


class _Streamed:
    """What the formats that are written from beginning to end share."""

    def __init__(self, path: Path, schema: pa.Schema, style: Style) -> None:
        self._file = _File(path)
        self._begin(schema, style)

    def _begin(self, schema: pa.Schema, style: Style) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        pass

    def close(self) -> WrittenFile:
        try:
            self._end()
            return self._file.finish()
        finally:
            self._file.close()

    def abandon(self) -> None:
        self._file.close()


class CsvWriter(_Streamed):
    def _begin(self, schema: pa.Schema, style: Style) -> None:
        self._names = [name for name in schema.names if name != GEOMETRY]
        self._text = [field.name for field in schema if field.type == pa.string() and field.name != GEOMETRY]
        self._file.write((BOM if style.excel else b"") + (",".join(self._names) + "\n").encode())

    def write(self, table: pa.Table, frame: pl.DataFrame) -> None:
        harmless = frame.select(self._names).with_columns(
            pl.when(pl.col(name).str.contains(FORMULA))
            .then(pl.concat_str(pl.lit("'"), pl.col(name)))
            .otherwise(pl.col(name))
            .alias(name)
            for name in self._text
        )
        text = io.BytesIO()
        harmless.write_csv(text, include_header=False, line_terminator="\n", quote_style="necessary")
        self._file.write(text.getbuffer())


class JsonWriter(_Streamed):
    def _begin(self, schema: pa.Schema, style: Style) -> None:
        self._before = b"[\n"
        self._names = [name for name in schema.names if name != GEOMETRY]
        # A decimal would become a string.
        self._numbers = [field.name for field in schema if pa.types.is_decimal(field.type)]

    def write(self, table: pa.Table, frame: pl.DataFrame) -> None:
        lines = frame.select(self._names).with_columns(pl.col(self._numbers).cast(pl.Float64)).write_ndjson().encode()
        self._file.write(self._before)
        # A line feed inside a value is escaped, so each one here ends an object.
        self._file.write(lines.removesuffix(b"\n").replace(b"\n", b",\n"))
        self._before = b",\n"

    def _end(self) -> None:
        self._file.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")


class ParquetWriter(_Streamed):
    def _begin(self, schema: pa.Schema, style: Style) -> None:
        self._schema = pa.schema([field for field in schema if field.name != GEOMETRY])
        self._sink = pa.PythonFile(self._file, mode="w")
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression="zstd", store_schema=False)

    def write(self, table: pa.Table, frame: pl.DataFrame) -> None:
        self._writer.write_table(table.select(self._schema.names), row_group_size=max(table.num_rows, 1))

    def _end(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()
        super().abandon()


class WorkbookWriter:
    def __init__(self, path: Path, schema: pa.Schema, style: Style) -> None:
        self._path = path
        self._names = [name for name in schema.names if name != GEOMETRY]
        self._rows = 0
        self._style = style
        # Constant memory keeps a row at a time; its temporary files lie beside the release, not on another disk.
        self._book = xlsxwriter.Workbook(
            str(path),
            {
                "constant_memory": True,
                "tmpdir": str(path.parent),
                "strings_to_formulas": False,
                "strings_to_urls": False,
                "strings_to_numbers": False,
            },
        )
        # The clock and the account would make other bytes of the same rows.
        self._book.set_properties({"author": "", "created": datetime.datetime(2000, 1, 1)})
        self._head = self._book.add_format({"bold": True})
        self._day = self._book.add_format({"num_format": "yyyy-mm-dd"})
        self._quoted = self._book.add_format()
        self._quoted.set_quote_prefix()
        self._sheet = self._book.add_worksheet("data")
        self._sheet.freeze_panes(1, 0)
        for place, name in enumerate(self._names):
            self._sheet.write_string(0, place, name, self._head)

    def write(self, table: pa.Table, frame: pl.DataFrame) -> None:
        if self._rows + table.num_rows > SHEET_ROWS:
            raise UserError(
                f"{self._path.name}: the extract has more than {SHEET_ROWS:,} rows, the most that a sheet of Excel holds; take "
                "xlsx out of `formats`, or publish the extract in parts."
            )
        for row in frame.select(self._names).iter_rows():
            self._rows += 1
            for place, value in enumerate(row):
                if value is not None:
                    self._cell(place, value)

    def _cell(self, place: int, value: Any) -> None:
        sheet, row = self._sheet, self._rows
        if isinstance(value, str):
            if len(value) > _CELL_CHARACTERS:
                raise UserError(
                    f"{self._path.name}, row {row}, column {self._names[place]}: a text of {len(value):,} characters; a cell of "
                    f"Excel holds {_CELL_CHARACTERS:,}: take xlsx out of `formats`, or shorten the column in the model."
                )
            sheet.write_string(row, place, value, self._quoted if value.startswith(_SIGNS) else None)
        elif isinstance(value, bool):
            sheet.write_boolean(row, place, value)
        elif isinstance(value, datetime.date):
            if value >= _FIRST_EXCEL_DAY:
                sheet.write_datetime(row, place, value, self._day)
            else:
                sheet.write_string(row, place, value.isoformat())
        elif (isinstance(value, int) and abs(value) >= _EXACT) or not math.isfinite(value):
            sheet.write_string(row, place, str(value))
        else:
            sheet.write_number(row, place, float(value) if isinstance(value, Decimal) else value)

    def close(self) -> WrittenFile:
        if self._style.dictionary:
            sheet = self._book.add_worksheet("data_dictionary")
            for row, cells in enumerate(self._style.dictionary):
                for place, text in enumerate(cells):
                    sheet.write_string(row, place, text, self._head if row == 0 else None)
        self._book.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return WrittenFile(self._path.name, self._path.stat().st_size, digest)

    def abandon(self) -> None:
        # Only closing ends its temporary files.
        with contextlib.suppress(OSError, XlsxWriterException):
            self._book.close()


class GeoJsonWriter(_Streamed):
    def _begin(self, schema: pa.Schema, style: Style) -> None:
        self._before = b'{"type":"FeatureCollection","features":[\n'
        self._names = [name for name in schema.names if name != GEOMETRY]
        self._numbers = [field.name for field in schema if pa.types.is_decimal(field.type)]
        self._rows = 0

    def write(self, table: pa.Table, frame: pl.DataFrame) -> None:
        lines = []
        properties = frame.select(self._names).with_columns(pl.col(self._numbers).cast(pl.Float64))
        for facts, text in zip(properties.iter_rows(named=True), frame[GEOMETRY], strict=True):
            self._rows += 1
            try:
                geometry = None if text is None else _geometry(orjson.loads(text))
            except ValueError as error:
                raise UserError(
                    f"{self._file.path.name}, row {self._rows}: its geometry is no GeoJSON ({error}); correct it in the model."
                ) from error
            lines.append(orjson.dumps({"type": "Feature", "geometry": geometry, "properties": facts}))
        self._file.write(self._before + b",\n".join(lines))
        self._before = b",\n"

    def _end(self) -> None:
        self._file.write((self._before if self._before != b",\n" else b"\n") + b"]}\n")


_DEPTH = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}


def _geometry(found: Any) -> dict[str, Any]:
    """A geometry as RFC 7946 has it: longitude and latitude of WGS 84, outer rings counterclockwise. Raises ValueError."""
    kind = found.get("type") if isinstance(found, dict) else None
    if kind == "GeometryCollection" and isinstance(found.get("geometries"), list):
        return {"type": kind, "geometries": [_geometry(part) for part in found["geometries"]]}
    if kind not in _DEPTH or "coordinates" not in found:
        raise ValueError(f"its type is {kind!r}")
    coordinates = found["coordinates"]
    for position in _positions(coordinates, _DEPTH[kind]):
        if not (
            isinstance(position, list) and len(position) >= 2 and all(isinstance(number, int | float) for number in position)
        ):
            raise ValueError("a position is not a list of numbers")
        if abs(position[0]) > 180 or abs(position[1]) > 90:
            raise ValueError(
                f"the position {position[0]}, {position[1]} is no longitude and latitude; make it WGS 84 in the model"
            )
    if kind == "Polygon":
        coordinates = _wound(coordinates)
    elif kind == "MultiPolygon":
        coordinates = [_wound(polygon) for polygon in coordinates]
    return {"type": kind, "coordinates": coordinates}


def _positions(found: Any, depth: int) -> Iterator[Any]:
    if depth == 0:
        yield found
    elif not isinstance(found, list):
        raise ValueError("its coordinates are not nested as its type needs")
    else:
        for part in found:
            yield from _positions(part, depth - 1)


def _wound(rings: list[Any]) -> list[Any]:
    """Rings by the right-hand rule: the outer one counterclockwise, holes clockwise."""
    made = []
    for place, ring in enumerate(rings):
        if len(ring) < 4 or ring[0] != ring[-1]:
            raise ValueError("a ring is not closed")
        doubled = sum(one[0] * two[1] - two[0] * one[1] for one, two in pairwise(ring))
        made.append(ring[::-1] if (doubled > 0) != (place == 0) and doubled != 0 else ring)
    return made


WRITERS: dict[str, Callable[[Path, pa.Schema, Style], Writer]] = {
    "csv": CsvWriter,
    "json": JsonWriter,
    "parquet": ParquetWriter,
    "xlsx": WorkbookWriter,
    "geojson": GeoJsonWriter,
}
MEDIA_TYPES: dict[str, str] = {
    "csv": "text/csv",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "geojson": "application/geo+json",
}
