"""DBF: the tables of dBase III and IV and of FoxPro, whose text is cp874 in Thailand.

Every record has the same length, so a file is a table of bytes. What the header says is held against the file's length before a
record is read: a table that is cut off, or was not closed, is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa

from dopa_pipelines.sources.batch import FLAWED, ROW, Batch, Text, UndecodableError, is_utf8, repeats, text_of
from dopa_pipelines.sources.reader import Reader

BATCH_BYTES = 8 << 20
MAX_FIELDS = 2_046
"""As many as dBase 7 allows, the most of all."""
_FIELD_BYTES = 32
_HEADER_ENDS = 0x0D
_KINDS = {0x03, 0x83, 0x8B, 0x43, 0x63, 0xCB, 0xF5, 0xFB, 0x30, 0x31, 0x32}
"""First bytes: dBase III, IV and V without and with memo file or SQL table, FoxPro and Visual FoxPro."""
_FOXPRO = {0x30, 0x31, 0x32}
_OTHERS = {0x02: "dBase II", 0x04: "dBase 7", 0x8C: "dBase 7", 0x44: "dBase 7", 0xE5: "SMT"}
_WIDTHS = {"D": 8, "L": 1, "I": 4, "T": 8, "Y": 8}
"""Bytes of the types that always have the same number."""
_SPACE, _NUL = 32, 0
_UNIX_EPOCH_JULIAN = 2_440_588
_PADDING = b"\x1a\x00 "
_TEXT_KINDS = "CNFDL"
_EXPORT = "have it exported again, with this column as text (C)"


@dataclass(frozen=True)
class _Field:
    name: str
    kind: str
    start: int
    length: int
    decimals: int


class DbfReader(Reader):
    """Format ``dbf``. ``_row`` is the record's number, from 1; deleted records are layout."""

    def read(self) -> Iterator[Batch]:
        self._encoding: str | None = None
        self._repeating: set[str] = set()
        self._sampled = False
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            records, start, length, self._fields = self._header(file, size)
            found = self.match_titles([field.name for field in self._fields])
            self._wanted = {name: self._fields[place] for name, place in found.items()}
            for name, field in self._wanted.items():
                self._refuse_kind(name, field)
            file.seek(start)
            at = 0
            most = max(1, BATCH_BYTES // length)
            while at < records:
                count = min(most, records - at)
                data = file.read(count * length)
                if len(data) < count * length:
                    raise self._cut_off(records, (at * length + len(data)) // length)
                yield self._batch(np.frombuffer(data, np.uint8).reshape(count, length), at + 1)
                at += count

    # What the header says

    def _header(self, file: BinaryIO, size: int) -> tuple[int, int, int, list[_Field]]:
        """Records, where they begin, how long one is, and its fields. Raises Rejected where header and file disagree."""
        head = file.read(_FIELD_BYTES)
        if not head:
            raise self.refuse("is empty; deliver it again")
        if head[0] in _OTHERS:
            raise self.refuse(f"is a table of {_OTHERS[head[0]]}, which is not read; have it exported as dBase III or IV")
        if head[0] not in _KINDS:
            raise self.refuse("is no DBF table: its first byte is none of theirs; correct the contract's format or the file")
        if len(head) < _FIELD_BYTES:
            raise self.refuse("is cut off: its header is not whole; deliver it again")
        records, start, length = struct.unpack_from("<LHH", head, 4)
        if head[15]:
            raise self.refuse("is encrypted; have it exported without a password")
        raw = file.read(max(0, start - _FIELD_BYTES))
        if len(raw) + _FIELD_BYTES < start:
            raise self.refuse("is cut off: its header is not whole; deliver it again")
        fields = self._read_fields(raw, length)
        after = size - start
        if after < records * length:
            raise self._cut_off(records, after // length)
        self._check_rest(file, start + records * length, size, records, length)
        return records, start, length, fields

    def _read_fields(self, raw: bytes, length: int) -> list[_Field]:
        fields: list[_Field] = []
        at, start = 0, 1  # a record begins with the mark of deletion
        while at < len(raw) and raw[at] != _HEADER_ENDS:
            entry = raw[at : at + _FIELD_BYTES]
            if len(entry) < _FIELD_BYTES or len(fields) >= MAX_FIELDS:
                raise self._wrong_header("its list of fields does not end")
            name = entry[:11].split(b"\0")[0].decode("cp874", "replace").strip()
            kind, width, decimals = chr(entry[11]), entry[16], entry[17]
            if kind == "C":
                width += decimals << 8  # FoxPro and Clipper: texts of more than 255 bytes
                decimals = 0
            if not name or not kind.isprintable() or not width or _WIDTHS.get(kind, width) != width:
                raise self._wrong_header(f"field {len(fields) + 1} has no name, or a length that its type does not have")
            fields.append(_Field(name, kind, start, width, decimals))
            start += width
            at += _FIELD_BYTES
        if at >= len(raw):
            raise self._wrong_header("its list of fields does not end")
        if not fields:
            raise self._wrong_header("it has no field")
        if start != length:
            raise self._wrong_header(f"its fields are {start:,} bytes long together, but a record {length:,}")
        return fields

    def _check_rest(self, file: BinaryIO, end: int, size: int, records: int, length: int) -> None:
        """After the last record there may be an end mark and padding; a record there would be lost."""
        file.seek(end)
        left = size - end
        rest = file.read(min(left, 1 << 16))
        if not rest.strip(_PADDING) and len(rest) == left:
            return
        if left >= length:
            raise self.refuse(
                f"holds more than its header says: {records:,} records, but room for {records + left // length:,}; it was not"
                " closed: have it repaired or exported again"
            )
        raise self.refuse(f"holds {left:,} bytes after its last record; have it exported again")

    def _cut_off(self, records: int, there: int) -> Exception:
        return self.refuse(f"is cut off: its header says {records:,} records, but {there:,} are there; deliver it again")

    def _wrong_header(self, why: str) -> Exception:
        return self.refuse(f"its header is wrong: {why}; have it exported again")

    def _refuse_kind(self, name: str, field: _Field) -> None:
        if field.kind in _TEXT_KINDS or field.kind in "ITY" or (field.kind == "B" and field.length == 8):
            return
        if field.kind in "MGPBW":
            raise self.refuse(f"column {name}: field {field.name} is a memo, whose text is in another file; {_EXPORT}")
        raise self.refuse(f"column {name}: field {field.name} is of type {field.kind!r}, which is not read; {_EXPORT}")

    # Records

    def _batch(self, table: Any, first: int) -> Batch:
        numbers = np.arange(first, first + len(table), dtype=np.int64)
        marks = table[:, 0]
        deleted = marks == ord("*")
        strange = ~deleted & (marks != _SPACE)
        if strange.any():
            number = int(numbers[strange.argmax()])
            raise self.refuse(f"record {number:,} does not begin with a space or *: its header is wrong; have it exported again")
        if deleted.any():
            self.layout_rows += int(deleted.sum())
            table, numbers = table[~deleted], numbers[~deleted]
        cells = {name: _padded(table[:, field.start : field.start + field.length], field) for name, field in self._wanted.items()}
        encoding = self._encoding_of(cells)
        flawed = pl.DataFrame(schema=FLAWED)
        wrong = np.zeros(len(table), dtype=bool)
        for name, field in self._wanted.items():
            if field.kind in _TEXT_KINDS:
                wrong |= _undecodable(cells[name], encoding)
        if wrong.any():
            flawed = pl.DataFrame(
                [numbers[wrong], _originals(table[wrong], encoding), ["undecodable"] * int(wrong.sum())], schema=FLAWED
            )
            table, numbers = table[~wrong], numbers[~wrong]
            cells = {name: cell[~wrong] for name, cell in cells.items()}
        columns = {name: self._column(name, field, cells[name], encoding) for name, field in self._wanted.items()}
        self._sampled = self._sampled or len(table) > 0
        return Batch(
            pl.Series(ROW, numbers, dtype=pl.Int64),
            columns,
            lambda asked: pl.Series(_originals(table[asked.to_numpy()], encoding), dtype=pl.String),
            flawed,
        )

    def _column(self, name: str, field: _Field, cells: Any, encoding: str) -> Text:
        if field.kind == "I":
            return Text(pl.Series(cells.view("<i4")[:, 0]).cast(pl.String))
        if field.kind == "B":
            return Text(_doubles(cells.view("<f8")[:, 0], field.decimals))
        if field.kind == "Y":
            return Text(_currencies(cells.view("<i8")[:, 0]))
        if field.kind == "T":
            return Text(_moments(cells.view("<i4")))
        array = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(field.length), len(cells), [None, pa.py_buffer(np.ascontiguousarray(cells))]
        ).cast(pa.binary())
        if not self._sampled and len(array) and repeats(array):
            self._repeating.add(name)
        if name in self._repeating:
            array = array.dictionary_encode()
        try:
            text = text_of(array, encoding)
        except UndecodableError as error:  # every value was looked at before
            raise self.refuse(f"column {name}: field {field.name} is no text; have it exported again") from error
        values = text.values.str.strip_chars_end(" ")
        if field.kind in "NFD":
            values = values.str.strip_chars_start(" ")
        if field.kind == "L":
            values = values.replace({**dict.fromkeys("TtYy", "true"), **dict.fromkeys("FfNn", "false"), "?": ""})
        return Text(values, text.codes, text.ascii)

    def _encoding_of(self, cells: dict[str, Any]) -> str:
        """``utf-8`` or ``cp874``, by the first records with more than ASCII: what most of their values are."""
        if self._encoding is None:
            good = bad = 0
            for name, field in self._wanted.items():
                if field.kind == "C":
                    values = [is_utf8(value) for value in _values(cells[name])[:10_000]]
                    good += values.count(True)
                    bad += values.count(False)
            if not good and not bad:
                return "cp874"
            self._encoding = "utf-8" if good > bad else "cp874"
        return self._encoding


def _padded(cells: Any, field: _Field) -> Any:
    """The bytes of a field, with the NULs that some programs pad with as spaces."""
    cells = np.ascontiguousarray(cells)
    if field.kind not in _TEXT_KINDS or not (cells == _NUL).any():
        return cells
    padding = (cells == _NUL) | (cells == _SPACE)
    trailing = np.logical_and.accumulate(padding[:, ::-1], axis=1)[:, ::-1]
    return np.where(trailing, np.uint8(_SPACE), cells)


def _values(cells: Any) -> list[bytes]:
    """The distinct values that are not ASCII."""
    high = cells[(cells > 127).any(axis=1)]
    return list(dict.fromkeys(row.tobytes().rstrip() for row in high))


_CP874_HOLES = np.array([not bytes([byte]).decode("cp874", "ignore") for byte in range(256)])


def _undecodable(cells: Any, encoding: str) -> Any:
    """Which rows hold NUL, or bytes that are no text."""
    wrong = (cells == _NUL).any(axis=1)
    if encoding == "cp874":
        return wrong | _CP874_HOLES[cells].any(axis=1)
    places = np.flatnonzero((cells > 127).any(axis=1))
    wrong[[place for place in places.tolist() if is_utf8(cells[place].tobytes()) is False]] = True
    return wrong


def _originals(table: Any, encoding: str) -> list[str]:
    return [row[1:].tobytes().decode(encoding, "backslashreplace").replace("\0", "\\x00").rstrip() for row in table]


def _doubles(numbers: Any, decimals: int) -> pl.Series:
    """Numbers with the decimals the field shows, or else the shortest text that means them; infinite ones as they are called."""
    shown = [f"{number:.15g}" for number in numbers.tolist()]
    return pl.Series([f"{float(text):.{max(decimals, 15)}f}".rstrip("0").rstrip(".") if "e" in text else text for text in shown])


def _currencies(units: Any) -> pl.Series:
    """Whole ten-thousandths as amounts."""
    text = pl.Series(np.abs(units.astype(object)).astype(str)).str.zfill(5)
    sign = pl.Series(np.where(units < 0, "-", ""))
    return sign + text.str.head(-4) + "." + text.str.tail(4)


def _moments(parts: Any) -> pl.Series:
    """Julian day and milliseconds as ISO text; day 0 is none."""
    day, milliseconds = parts[:, 0].astype(np.int64), parts[:, 1].astype(np.int64)
    frame = pl.DataFrame({"day": day, "ms": milliseconds})
    # Milliseconds are of floating-point origin in FoxPro: 11:59:59.999 is noon.
    moment = pl.from_epoch((pl.col("day") - _UNIX_EPOCH_JULIAN) * 86_400 + ((pl.col("ms") + 500) // 1000), "s")
    possible = pl.col("day").is_between(1_721_426, 5_373_484)  # years 1 to 9999
    written = moment.dt.strftime("%Y-%m-%d %H:%M:%S")
    odd = pl.when(pl.col("day") != 0).then(pl.format("{}/{}", "day", "ms"))
    return frame.select(pl.when(possible).then(written).otherwise(odd)).to_series()
