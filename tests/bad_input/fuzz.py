"""The fuzzer over all readers: mutated seed files, and what must hold whatever a file holds.

``python -m tests.bad_input.fuzz --inputs 100000 [--seed N] [--target NAME …]`` runs it at length, ``test_fuzz.py`` for seconds.
Input ``i`` of a target is made of ``(seed, target, i)`` alone, so that a failure is made again by its numbers.

Whatever the bytes: a file ends as rows or as one sentence (Rejected, UserError); rows have numbers of their own that lie within
the file; no line is lost; what is accepted is what a plain reading of the line says; enforcing and encoding never fail, and give
nothing that the database would refuse (NUL in text, JSON that is none). A new form takes part by one line in ``TARGETS``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import re
import shutil
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import xlsxwriter  # type: ignore[import-untyped]
import xlwt  # type: ignore[import-untyped]

from dopa_pipelines.contracts import Column, Contract, Layout, Load, RowRule
from dopa_pipelines.contracts.model import Series, Unpivot
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.ingest.encode import Encoder
from dopa_pipelines.ingest.enforce import Plan
from dopa_pipelines.sources import json_document, lines, open_reader, query_result
from dopa_pipelines.sources.batch import FLAW, ORIGINAL, ROW, Batch
from dopa_pipelines.sources.containers import unpacked
from dopa_pipelines.sources.query_result import header_line

AS_OF = date(2026, 1, 31)
SECONDS = 10.0
"""No input of some kilobytes may take longer; a hundredth of it is usual."""
ENDS = ("rows", "rejected", "user error")


class FoundError(AssertionError):
    """Something that must hold does not."""


# What is read ------------------------------------------------------------------------------------------------------------------

PID = Column("pid", "string", "text", "citizen_number", "เลขประจำตัวประชาชน", titles=("pid",), pdpa_role="direct_identifier")
NAME = Column("name", "string", "text", "text", "ชื่อ", titles=("name",), required=True, key_position=1, max_length=40)
BINARY = (
    NAME,
    PID,
    Column("count", "integer", "integer", "integer", "count", minimum=0, null_values=("-",)),
    Column("born", "date", "date", "be_date_ymd", "born", partial=True, maximum="delivery"),
    Column("day", "date", "date", "date", "day", minimum="1900-01-01"),
)
"""Columns whose table takes binary COPY."""
LATIN = tuple(replace(column, title=column.name) for column in BINARY)
CODES = (
    NAME,
    Column("house", "string", "text", "house_code", "house"),
    Column("code", "string", "text", "code", "code", pattern="^[0-9]{4}$", null_values=("-",)),
    Column("ratio", "number", "double precision", "number", "ratio", maximum=1_000_000),
    Column("month", "date", "date", "be_yymm", "month"),
)
EXACT = (
    NAME,
    Column("amount", "number", "numeric", "number", "amount", maximum=10**9),
    Column("at", "timestamp", "timestamptz", "timestamp", "at", maximum="delivery"),
    Column("local", "timestamp", "timestamp", "timestamp", "local"),
)
"""Columns with an exact decimal, whose table takes CSV."""
OTHER = (
    NAME,
    Column("small", "integer", "smallint", "integer", "small"),
    Column("big", "integer", "bigint", "integer", "big"),
    Column("flag", "boolean", "boolean", "boolean", "flag"),
    Column("sex", "string", "text", "text", "sex", valid_values=("ชาย", "หญิง")),
)
BINARY_ROWS = [
    ("สมชาย ใจดี", "1234567890121", "12", "25680401", "2025-04-01"),
    ("น้ำทิพย์", "๑๒๓๔๕๖๗๘๙๐๑๒๑", "1,200", "25100000", "1 เม.ย. 2568"),
    ("O'Brien; drop table x", "1-2345-67890-12-1", "-", "", "01/04/2568"),
    ("", "1234567890123", "-1", "25681301", "31/02/2568"),
]
CODE_ROWS = [
    ("ก", "10010000017", "1001", "0.5", "6812"),
    ("ข", "1001-000002-5", "๑๐๐๒", "-3.25", "6801"),
    ("", "1", "12A4", "1e7", "6813"),
]
EXACT_ROWS = [
    ("กรุงเทพ", "12345678901234567.89", "2025-01-01 07:00:00", "2025-01-01T07:00:00.5"),
    ("เชียงใหม่", "-0.10", "2025-01-01T00:00:00Z", "2568-01-01 00:00:00"),
    ("x", "1e3", "", ""),
]
OTHER_ROWS = [("กรุงเทพ", "7", "9000000000", "ใช่", "ชาย"), ("เชียงใหม่", "-3", "-1", "no", "หญิง"), ("x", "99999", "1e99", "?", "")]
WIDTHS = (20, 17, 6, 8, 12)


Rows = Sequence[tuple[str, ...]]


def contract_of(columns: tuple[Column, ...], layout: Layout, rules: tuple[RowRule, ...] = ()) -> Contract:
    return Contract(
        dataset="fuzzed", bureau="testing", version="1.0.0", path=Path("fuzzed.odcs.yaml"), title_th="", title_en="",
        description="", description_th="", grain="", columns=columns, layout=layout, load=Load(), row_rules=rules,
    )  # fmt: skip


def delimited_bytes(rows: Rows, delimiter: str = ",", encoding: str = "utf-8", **options: Any) -> bytes:
    """Rows as the csv module writes them. ``last``: text at the end of each line."""
    last = options.pop("last", "")
    made = io.StringIO()
    writer = csv.writer(made, delimiter=delimiter, lineterminator=f"{last}\n", **options)
    writer.writerows(rows)
    return made.getvalue().encode(encoding)


def plain_bytes(rows: Rows, delimiter: str, encoding: str, last: str = "") -> bytes:
    """Rows without quotes; a delimiter in a value is left out."""
    return "".join(delimiter.join(v.replace(delimiter, " ") for v in row) + f"{last}\n" for row in rows).encode(encoding)


def fixed_bytes(rows: Rows, encoding: str) -> bytes:
    return "".join(
        "".join(v[:w].ljust(w) for v, w in zip(row, WIDTHS, strict=True)) + "\n" for row in rows
    ).encode(encoding)  # fmt: skip


def titles_of(columns: tuple[Column, ...]) -> tuple[str, ...]:
    return tuple(column.title for column in columns)


def records_of(columns: tuple[Column, ...], rows: Rows) -> list[dict[str, Any]]:
    return [dict(zip(titles_of(columns), row, strict=True)) | {"extra": {"a": [1, None, 2.50, -0.0]}} for row in rows]


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def json_line_bytes(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json_bytes(record) + b"\n" for record in records)


def geojson_bytes(records: list[dict[str, Any]]) -> bytes:
    point = {"type": "Point", "coordinates": [100.50, 13.75]}
    features = [{"type": "Feature", "id": n, "properties": r, "geometry": point} for n, r in enumerate(records)]
    return json_bytes({"type": "FeatureCollection", "name": "x", "features": features, "bbox": [97, 5, 106, 21]})


def zip_bytes(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as container:
        for name, content in files.items():
            container.writestr(zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0)), content)
    return made.getvalue()


def dbf_bytes(columns: tuple[Column, ...], rows: Rows) -> bytes:
    """A dBase III table of text fields in cp874."""
    records = [
        b" " + b"".join(v.encode("cp874")[:width].ljust(width) for v, width in zip(row, WIDTHS, strict=True)) for row in rows
    ]
    made = struct.pack("<4BIHH20x", 3, 125, 1, 1, len(rows), 33 + 32 * len(columns), 1 + sum(WIDTHS))
    for column, width in zip(columns, WIDTHS, strict=True):
        made += column.name.encode().ljust(11, b"\0") + b"C" + bytes((0, 0, 0, 0, width)) + bytes(15)
    return made + b"\r" + b"".join(records) + b"\x1a"


def html_bytes(columns: tuple[Column, ...], rows: Rows) -> bytes:
    lines = ["".join(f"<td>{value}</td>" for value in row) for row in (titles_of(columns), *rows)]
    return ("<html><meta charset=utf-8><table>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table></html>").encode()


def xls_bytes(columns: tuple[Column, ...], rows: Rows) -> bytes:
    made = io.BytesIO()
    book = xlwt.Workbook()
    sheet = book.add_sheet("a")
    for place, row in enumerate([titles_of(columns), *rows]):
        for number, value in enumerate(row):
            sheet.write(place, number, value)
    book.save(made)
    return made.getvalue()


def query_bytes(columns: tuple[Column, ...], rows: Rows) -> bytes:
    """The rows of a query as they are kept: CSV whose titles are in quotes."""
    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerows(rows)
    return header_line(titles_of(columns)) + made.getvalue().encode()


def xlsx_bytes(columns: tuple[Column, ...], rows: Rows) -> bytes:
    made = io.BytesIO()
    with xlsxwriter.Workbook(made) as book:
        sheet = book.add_worksheet()
        for place, row in enumerate((titles_of(columns), *rows)):
            sheet.write_row(place, 0, row)
    return made.getvalue()


# What must hold ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """What came of one plain file: its rows as (number, original, values by column) and its flawed ones as (number, original)."""

    data: bytes
    rows: list[tuple[int, str, dict[str, str | None]]]
    flawed: list[tuple[int, str]]
    layout: int


Check = Callable[[Contract, Read], None]


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a text file by a plain reading: LF, CR LF or, in a file without LF, CR ends a line."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    data = data.replace(b"\r\n", b"\n")
    if b"\n" not in data and b"\r" in data:
        data = data.replace(b"\r", b"\n")
    found = data.split(b"\n")
    # Half an end at the end of the file is an end.
    return [*found[:-1], found[-1].removesuffix(b"\r")] if found[-1] else found[:-1]


def readings(line: bytes) -> set[str]:
    """A line in either encoding; what is no text is escaped."""
    return {line.decode(code, "backslashreplace").replace("\0", "\\x00") for code in ("utf-8", "cp874")}


def every_line_is_there(contract: Contract, read: Read) -> None:
    """Each line belongs to one row, one flaw or the layout, and a row's original is its line or lines."""
    there = lines_of(read.data)
    factor = contract.rows_per_line
    taken: set[int] = set()
    originals = {((number - 1) // factor, original) for number, original, _ in read.rows}
    originals |= {((number - 1) // factor, original) for number, original in read.flawed}
    # Lines that are no text may be taken out before quotes are looked at.
    single = {(number - 1) // factor for number, original in read.flawed if "\n" not in original}
    sound = [place for place in range(len(there)) if place not in single]
    places = {place: count for count, place in enumerate(sound)}
    for start, original in sorted(originals):
        count = original.count("\n") + 1
        own = sound[places[start] : places[start] + count] if start in places else [start]
        _hold(not taken & set(own) and len(own) == count, f"line {start + 1} is two rows, or none of the file")
        taken |= set(own)
        got = b"\n".join(there[place] for place in own)
        _hold(original in readings(got), f"the original of line {start + 1} is {original!r}, the line is {got!r}")
    first = int(contract.layout.header) if contract.layout.format != "json_lines" else 0
    if first and contract.layout.quoted:
        header = csv.reader(io.StringIO(b"\n".join(there).decode("latin-1").replace("\r", " "), newline="\n"))
        next(header, None)
        first = header.line_num
    rest = [line for place, line in enumerate(there) if place >= first and place not in taken]
    blank = _is_blank_object if contract.layout.format == "json_lines" else _is_blank
    lost = [line for line in rest if not blank(contract, line)]
    _hold(not lost, f"lost: {lost[:3]!r}")
    _hold(len(rest) >= read.layout, f"{read.layout} layout rows, but {len(rest)} lines that are none")


WHITE = "".join(character for character in map(chr, range(0x3001)) if character.isspace() and not "\x1c" <= character <= "\x1f")
"""White space by Unicode; Python counts four control characters as such, too."""


def _is_blank(contract: Contract, line: bytes) -> bool:
    texts = [text.replace(contract.layout.delimiter, "").replace('"', "") for text in readings(line)]
    return not all(text.strip(" \ufeff" + WHITE) for text in texts)


def _is_blank_object(contract: Contract, line: bytes) -> bool:
    """Nothing, an object without anything, or one that has all columns and nothing in them."""
    objects = [_object(text) for text in readings(line)]
    titles = {column.title for column in contract.columns}
    return not line.strip() or any(
        not any(str(item[title] or "").strip() for title in titles & item.keys())
        and (titles <= item.keys() or not any(value not in (None, "") for key, value in item.items() if key not in titles))
        for item in objects
        if isinstance(item, dict)
    )


def fields_are_between_delimiters(contract: Contract, read: Read) -> None:
    """Unquoted text: a row's values are what stands between delimiters."""
    there = lines_of(read.data)
    layout = contract.layout
    names: list[str] = [column.name for column in contract.file_columns]
    for number, _, values in read.rows:
        line = there[number - 1].replace(b"\r", b" ")
        parts = [text.split(layout.delimiter) for text in readings(line)]
        if layout.trailing_delimiter:
            parts = [part[:-1] for part in parts if not part[-1].strip()]
        if layout.header:
            header = [[t.strip().casefold() for t in text.split(layout.delimiter)] for text in readings(there[0])]
            found = [
                [part[place] for place in _places(contract, titles)]
                for part in parts
                for titles in header
                if len(part) == len(titles) and _places(contract, titles)
            ]
        else:
            found = parts
        if layout.header and not found:
            continue  # its titles are told apart in another way
        # Arrow takes a mark at the start of a block for the file's; enforcement takes all of them out.
        found = [[part.removeprefix("\ufeff").removeprefix("๏ปฟ") for part in parts] for parts in found]
        got = [(values[name] or "").removeprefix("\ufeff").removeprefix("๏ปฟ") for name in names]
        _hold(got in found, f"line {number} is read as {got!r}, it holds {found!r}")


def _places(contract: Contract, titles: list[str]) -> list[int]:
    known = [{title.casefold() for title in column.known_titles} for column in contract.file_columns]
    squeezed = [re.sub(r"\s+", " ", title.replace("\ufeff", "")).strip() for title in titles]
    places = [next((place for place, title in enumerate(squeezed) if title in own), -1) for own in known]
    return places if -1 not in places else []


def fields_stand_at_their_bytes(contract: Contract, read: Read) -> None:
    there = lines_of(read.data)
    for number, _, values in read.rows:
        found = []
        for text in readings(there[number - 1]):
            cut = [text[(column.position or (1, 1))[0] - 1 :][: (column.position or (1, 1))[1]] for column in contract.columns]
            found.append(cut)
        got = [values[column.name] for column in contract.columns]
        _hold(got in found, f"line {number} is read as {got!r}, it holds {found!r}")


def values_are_the_objects(contract: Contract, read: Read) -> None:
    """JSON lines: a row is an object, its values those of the json module; what is flawed is no object."""
    there = lines_of(read.data)
    for number, _, values in read.rows:
        found = [_object(text) for text in readings(there[number - 1])]
        _hold(any(isinstance(item, dict) for item in found), f"line {number} is a row, but no object: {there[number - 1]!r}")
        for column in contract.columns:
            wanted = [
                item[title] for item in found if isinstance(item, dict) for title in (column.title,) if title in item
            ]  # fmt: skip
            texts = {w.encode("utf-8", "replace").decode().replace("\0", "\ufffd") for w in wanted if isinstance(w, str)}
            if texts and all(isinstance(w, str) for w in wanted):
                _hold(values[column.name] in texts, f"line {number}, {column.name}: {values[column.name]!r}, not {texts!r}")
    telling = [line for line in there if not line.isascii()]
    if sum(map(_is_utf8, telling)) * 2 < len(telling):
        return  # the form of most lines decides, and these are read as cp874
    for number, _ in read.flawed:
        line = there[number - 1]
        try:
            item = json.loads(line.decode())
        except (ValueError, RecursionError):
            continue
        named = isinstance(item, dict) and any(str(item.get(column.title) or "").strip() for column in contract.columns)
        sound = b"\0" not in line and named
        _hold(not sound, f"line {number} is an object, but not read: {line!r}")


def _is_utf8(line: bytes) -> bool:
    return line.decode("utf-8", "replace").encode() == line


def _object(text: str) -> Any:
    try:
        return json.loads(text.lstrip("\ufeff"), parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None


def numbers_are_of_records(contract: Contract, read: Read) -> None:
    most = (read.data.count(b",") + 1) * contract.rows_per_line
    highest = max([number for number, *_ in read.rows] + [number for number, _ in read.flawed], default=0)
    _hold(highest <= most, f"row {highest} in a document of at most {most} records")


def _hold(condition: bool, message: str) -> None:
    if not condition:
        raise FoundError(message)


# Targets -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A form of delivery: its contract, some files of it, and what must hold of what is read of a file."""

    name: str
    contract: Contract
    seeds: tuple[bytes, ...]
    checks: tuple[Check, ...] = ()
    tokens: tuple[bytes, ...] = ()
    suffix: str = ".txt"
    contained: bool = False
    slow: bool = False
    """Takes a part in the long run only where it is named."""


def _fixed() -> Contract:
    starts = [1 + sum(WIDTHS[:place]) for place in range(len(WIDTHS))]
    columns = tuple(
        replace(column, position=(start, width)) for column, start, width in zip(BINARY, starts, WIDTHS, strict=True)
    )  # fmt: skip
    return contract_of(columns, Layout("fixed_width", encoding="cp874", header=False))


def _wide() -> Contract:
    columns = (
        Column("name", "string", "text", "text", "name", required=True),
        Column("age", "integer", "smallint", "integer", "age"),
        Column("sex", "string", "text", "text", "sex"),
        Column("people", "integer", "integer", "integer", "people", minimum=0),
    )
    series = (
        Series(2, 3, "age", 0, "sex", ("male", "female")),
        Series(8, each="sex", values=("male", "female", "total")),
    )
    return contract_of(columns, replace(PLAIN, trailing_delimiter=True, unpivot=Unpivot(("name",), "people", series)))


RULES = (RowRule("some", "count >= 0 or day > born"), RowRule("later", "day >= born"))
QUOTES = (b'"', b'""', b'",', b',"', b'"\n', b'\n"', b'"a\nb"')
JSON = (
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"null", b"true", b"NaN", b"-Infinity", b"1e309", b"-0", b"0.10",
    b'"\\ud800"', b'"\\u0000"', b"1" * 40, b"[" * 300, b'{"a":' * 200, b"\\u202e", '"ชื่อ":'.encode(), b'{"name":1,"name":2}',
    b"\xef\xbb\xbf",
)  # fmt: skip
WIDE_ROWS = [("พื้นที่ 1", *(str(n) for n in range(9))), ("x", *"123456789"), ("", *"1a3456-89")]
ONE = delimited_bytes([titles_of(EXACT), *EXACT_ROWS])
PLAIN = Layout("delimited", delimiter="|", header=False)
LINE_CHECKS = (every_line_is_there,)

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "delimited",
            contract_of(BINARY, PLAIN, RULES),
            (plain_bytes(BINARY_ROWS, "|", "utf-8"), plain_bytes(BINARY_ROWS, "|", "cp874")),
            (every_line_is_there, fields_are_between_delimiters),
        ),
        Target(
            "delimited-header",
            contract_of(EXACT, Layout("delimited")),
            (ONE, plain_bytes([titles_of(EXACT), *EXACT_ROWS], ",", "cp874").replace(b"\n", b"\r\n")),
            (every_line_is_there, fields_are_between_delimiters),
            ("ชื่อ".encode(), b"local", b"amount,", b"\xef\xbb\xbf"),
        ),
        Target(
            "delimited-trailing",
            contract_of(CODES, replace(PLAIN, trailing_delimiter=True)),
            (plain_bytes(CODE_ROWS, "|", "cp874", "|"),),
            (every_line_is_there, fields_are_between_delimiters),
        ),
        Target(
            "quoted",
            contract_of(BINARY, Layout("delimited", header=False, quoted=True)),
            (
                delimited_bytes(BINARY_ROWS, quoting=csv.QUOTE_ALL),
                delimited_bytes([(row[0] + '\n"ก",', *row[1:]) for row in BINARY_ROWS], encoding="cp874"),
            ),
            LINE_CHECKS,
            QUOTES,
        ),
        Target(
            "quoted-header",
            contract_of(OTHER, Layout("delimited", quoted=True, trailing_delimiter=True)),
            (
                delimited_bytes([titles_of(OTHER), *OTHER_ROWS], quoting=csv.QUOTE_ALL, last=","),
                delimited_bytes([titles_of(OTHER), *OTHER_ROWS], encoding="cp874", last=","),
            ),
            LINE_CHECKS,
            QUOTES,
        ),
        Target(
            "fixed-width",
            _fixed(),
            (fixed_bytes(BINARY_ROWS, "cp874"), fixed_bytes(BINARY_ROWS, "utf-8")),
            (every_line_is_there, fields_stand_at_their_bytes),
            (b" " * 20,),
        ),
        Target(
            "json-lines",
            contract_of(EXACT, Layout("json_lines")),
            (json_line_bytes(records_of(EXACT, EXACT_ROWS)),),
            (every_line_is_there, values_are_the_objects),
            JSON,
        ),
        Target(
            "json",
            contract_of(BINARY, Layout("json", records_path="data.rows")),
            (json_bytes({"n": 3, "data": {"rows": records_of(BINARY, BINARY_ROWS), "x": []}, "end": "]"}),),
            (numbers_are_of_records,),
            JSON,
        ),
        Target(
            "json-list",
            contract_of(OTHER, Layout("json", records_path="", encoding="cp874")),
            (json_bytes(records_of(OTHER, OTHER_ROWS)), json_bytes(records_of(OTHER, OTHER_ROWS)).decode().encode("cp874")),
            (numbers_are_of_records,),
            JSON,
        ),
        Target(
            "geojson",
            contract_of((*EXACT, Column("geometry", "string", "text", "text", "geometry")), Layout("geojson")),
            (geojson_bytes(records_of(EXACT, EXACT_ROWS)),),
            (numbers_are_of_records,),
            (*JSON, b'"type"', b'"Feature"', b'"properties":null', b'"geometry":{}', b'"id":[]'),
        ),
        Target(
            "unpivot",
            _wide(),
            (plain_bytes(WIDE_ROWS, "|", "utf-8", "|"), plain_bytes(WIDE_ROWS, "|", "cp874", "|")),
            LINE_CHECKS,
        ),
        Target(
            "dbf",
            contract_of(LATIN, Layout("dbf", encoding="cp874")),
            (dbf_bytes(LATIN, BINARY_ROWS),),
            tokens=(b"\x03", b"\x30", b"N", b"D", b"I", b"T", b"*", b"\r"),
        ),
        Target(
            "html",
            contract_of(EXACT, Layout("html")),
            (html_bytes(EXACT, EXACT_ROWS),),
            tokens=(
                b"<table>",
                b"</table>",
                b"<tr>",
                b"<td>",
                b"<td colspan=3>",
                b"<td rowspan=99999>",
                b"&#0;",
                b"&#xd800;",
                b"<!--",
            ),
        ),
        Target("xlsx", contract_of(EXACT, Layout("xlsx")), (xlsx_bytes(EXACT, EXACT_ROWS),), suffix=".xlsx", slow=True),
        Target("xls", contract_of(EXACT, Layout("xls")), (xls_bytes(EXACT, EXACT_ROWS),), suffix=".xls", slow=True),
        Target(
            "sql",
            contract_of(EXACT, Layout("sql")),
            (query_bytes(EXACT, EXACT_ROWS), query_bytes(EXACT, EXACT_ROWS * 5)),
            tokens=(*QUOTES, b"\0", b"\xef\xbb\xbf", b'""', b",,"),
            suffix=".csv",
        ),
        Target("gzip", contract_of(EXACT, Layout("delimited")), (gzip.compress(ONE, mtime=0),), suffix=".gz", contained=True),
        Target(
            "zip",
            contract_of(EXACT, Layout("delimited")),
            (zip_bytes({"a.csv": ONE, "ข/b.csv.gz": gzip.compress(ONE, mtime=0), "c.done": b""}), zip_bytes({"a": ONE * 9})),
            tokens=(b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"../", b"\xff\xff\xff\xff", b"/"),
            suffix=".zip",
            contained=True,
        ),
    )
}


# One input ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def blocks_of(size: int) -> Iterator[None]:
    """Readers take a file in blocks of ``size`` bytes, so that a small file has the seams of a large one."""
    before = lines.BLOCK_BYTES, json_document.PIECE_BYTES, query_result.BLOCK_BYTES
    lines.BLOCK_BYTES = json_document.PIECE_BYTES = query_result.BLOCK_BYTES = size
    try:
        yield
    finally:
        lines.BLOCK_BYTES, json_document.PIECE_BYTES, query_result.BLOCK_BYTES = before


def run(target: Target, data: bytes, folder: Path, block: int = 6 << 20, *, enforced: bool = True) -> str:
    """Read one input and enforce its contract: its end, one of ``ENDS``.

    Raises FoundError for what must not be, and whatever else is raised by it.
    """
    path = folder / f"input{target.suffix}"
    path.write_bytes(data)
    started = time.perf_counter()
    end = "rows"
    try:
        with blocks_of(block):
            if target.contained:
                with unpacked(path, folder / "scratch") as parts:
                    for part in parts:
                        _read(target, part.path, part.name, enforced)
            else:
                _read(target, path, path.name, enforced)
    except Rejected as error:
        _sentence(str(error), path.name)
        end = "rejected"
    except UserError as error:
        _sentence(str(error), "")
        end = "user error"
    seconds = time.perf_counter() - started
    _hold(seconds < SECONDS * (6 if target.slow else 1), f"took {seconds:.1f} s")
    return end


def _sentence(text: str, name: str) -> None:
    """A refusal names the file and is one line that a terminal shows as it is."""
    _hold(text.startswith(name) and len(text) < 2_000, f"no sentence about {name}: {text[:300]!r}")
    wrong = [character for character in text if character != " " and not character.isprintable()]
    _hold(not wrong, f"the sentence holds {wrong[:3]!r}: {text[:300]!r}")


def _read(target: Target, path: Path, name: str, enforced: bool) -> None:
    contract = target.contract
    reader = open_reader(contract, path, name)
    plan, encoder = Plan(contract, AS_OF), Encoder(contract)
    rows: list[tuple[int, str, dict[str, str | None]]] = []
    flawed: list[tuple[int, str]] = []
    for batch in reader.batches():
        rows += _rows(batch)
        flawed += [(number, original) for number, original, _ in batch.flawed.select(ROW, ORIGINAL, FLAW).iter_rows()]
        if enforced:
            _enforce(plan, encoder, batch)
    numbers = [number for number, *_ in rows] + [number for number, _ in flawed]
    _hold(len(set(numbers)) == len(numbers) and min(numbers, default=1) >= 1, "two rows have one number")
    read = Read(path.read_bytes(), rows, flawed, reader.layout_rows)
    for check in target.checks:
        check(contract, read)


def _rows(batch: Batch) -> list[tuple[int, str, dict[str, str | None]]]:
    count = len(batch.rows)
    originals = batch.original(pl.int_range(count, eager=True)).to_list()
    columns = {name: text.rows().to_list() for name, text in batch.columns.items()}
    for name, values in columns.items():
        _hold(len(values) == count, f"{len(values)} values of {name} in {count} rows")
        _hold(not any(value and "\0" in value for value in values), f"NUL in {name}")
    return [
        (number, original, {name: values[place] for name, values in columns.items()})
        for place, (number, original) in enumerate(zip(batch.rows.to_list(), originals, strict=True))
    ]


def _enforce(plan: Plan, encoder: Encoder, batch: Batch) -> None:
    enforced = plan.apply(batch)
    rejected = enforced.rejected
    _hold(enforced.accepted.height + rejected.height == batch.height, "rows read are not accepted plus rejected")
    if enforced.accepted.height:
        _hold(bool(b"".join(encoder.encode(enforced.accepted))), "nothing encoded")
    for number, original, reasons, fields in rejected.select(ROW, ORIGINAL, "reasons", "fields").iter_rows():
        _hold(original is not None and "\0" not in original, f"the original of row {number} is {original!r}")
        codes = [reason["code"] for reason in json.loads(reasons)]
        _hold(bool(codes) and all(codes), f"row {number} has the reasons {reasons}")
        _hold("\\u0000" not in reasons.replace("\\\\", ""), f"NUL in the reasons of row {number}")
        if fields is not None:
            _hold(set(json.loads(fields)) == {column.name for column in plan.contract.columns}, f"row {number}: {fields}")
            _hold("\\u0000" not in fields.replace("\\\\", ""), f"NUL in the fields of row {number}")


# Inputs ------------------------------------------------------------------------------------------------------------------------

TOKENS = (
    b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\x1a", b"\t", b" ", b",", b"|", b'"', b"'", b"\\", b"\\.", b"\x1b[2J", b"\x7f",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xa0", b"\xc2\xa0", b"\x80", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xe0\xb8",
    b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b", b"\x0c", b"\x1c", b"\xe2\x80\x8b", b"\xef\xbf\xbd",
    "ก".encode(), "ก".encode("cp874"), "น้ำ".encode(), "เธชเธกเธเธฒเธข".encode(), "๒๕๖๘".encode(),
    b"1e309", b"-1e309", b"1e-400", b"1e-99999", b"0." + b"0" * 400 + b"1", b"-0", b"+5", b".5", b"5.", b"00", b"NaN", b"inf",
    b"9" * 19, b"9" * 400, b"99999999999", b"2147483648", b"32768", b"-32769", b"1.0", b"1.00000", b"1,,2",
    b"25680401", b"00000000", b"25681399", b"99999-01-01", b"99999999", b"2568-02-30", b"29/02/2567", b"31/12/99999", b"1/1/0000",
    b"1920-04-01 00:05:00", b"9999-12-31 23:59:59.999999", b"+99999-01-01 00:00:00", b"-0001-01-01 00:00:00",
    b"2025-01-01T24:00:00", b"2025-01-01 00:00:00+23:59", b"0001-01-01T00:00:00+14:00", b"262142-12-31T23:59:59",
    b"1 \xe0\xb8\xa1.\xe0\xb8\x84. 2483",
    b"'); drop table raw.x; --", b"a" * 300, b"(" * 50,
)  # fmt: skip


def mutate(chance: random.Random, target: Target) -> bytes:
    """A seed after some changes."""
    data = bytearray(chance.choice(target.seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 5, 9))):
        data = _changed(chance, data, target)
    return bytes(data)


def _changed(chance: random.Random, data: bytearray, target: Target) -> bytearray:
    at = chance.randint(0, len(data))
    length = min(chance.choice((1, 1, 2, 4, 16, 64)), len(data) - at)
    kind = chance.randrange(10)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = chance.choice((0, 10, 13, 34, 44, 0x80, 0xA0, 0xFF, chance.randrange(256)))
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        data[at:at] = data[at : at + length] * chance.choice((1, 2, 9))
    elif kind == 5:
        other = chance.choice(target.seeds)
        start = chance.randint(0, len(other))
        data[at : at + length] = other[start : start + chance.choice((8, 64, 512))]
    elif kind == 6 and data:
        data = _line_changed(chance, data)
    else:
        token = chance.choice(target.tokens if target.tokens and chance.random() < 0.4 else TOKENS)
        # A token in the place of a value meets what reads values; one put anywhere meets what takes lines apart.
        if chance.random() < 0.5:
            start = max(data.rfind(b, 0, at) for b in (b",", b"|", b"\n", b'"')) + 1
            ends = [found for b in (b",", b"|", b"\n", b'"') if (found := data.find(b, at)) >= 0]
            data[start : min(ends, default=len(data))] = token
        else:
            data[at : at + chance.choice((0, length))] = token
    return data


def _line_changed(chance: random.Random, data: bytearray) -> bytearray:
    found = data.split(b"\n")
    at, other = chance.randrange(len(found)), chance.randrange(len(found))
    match chance.randrange(4):
        case 0:
            found[at:at] = [found[other]] * chance.choice((1, 3, 60))
        case 1:
            del found[at]
        case 2:
            found[at], found[other] = found[other], found[at]
        case _:
            found[at] = bytearray(chance.choice((b"", b" ", b"\r", b"\t", b"\xc2\xa0", b",,,", b"|" * 8)))
    return bytearray(chance.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r")).join(found))


def input_of(target: Target, seed: int, number: int) -> tuple[bytes, int, bool]:
    """Input ``number`` of a target, the size of the blocks it is read in, and whether it is enforced, too.

    Enforcing takes several times as long as reading and meets the same values again and again.
    """
    chance = random.Random(f"{seed}:{target.name}:{number}")
    data = mutate(chance, target)
    if target.suffix == ".xlsx" and chance.random() < 0.7:
        data = _repacked(chance, target)
    if target.contained and chance.random() < 0.3:
        # Sound container, mutated file.
        inner = bytes(_changed(chance, bytearray(ONE), target))
        data = gzip.compress(inner, mtime=0) if target.suffix == ".gz" else zip_bytes({"a.csv": inner, "b.csv": ONE})
    block = max(16, len(data) // chance.choice((3, 7))) if chance.random() < 0.3 else 6 << 20
    return data, block, chance.random() < 0.15


def _repacked(chance: random.Random, target: Target) -> bytes:
    """A sound zip of a workbook, of which one part is mutated."""
    with zipfile.ZipFile(io.BytesIO(chance.choice(target.seeds))) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    wrong = chance.choice(sorted(parts))
    for _ in range(chance.choice((1, 2, 4))):
        parts[wrong] = bytes(_changed(chance, bytearray(parts[wrong]), target))
    return zip_bytes(parts)


def shrunk(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """The input with all that is not needed for the failure taken out, piece by piece."""
    size = max(1, len(data) // 2)
    until = time.monotonic() + 15
    while size and time.monotonic() < until:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if time.monotonic() < until and fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


@dataclass
class Outcome:
    """Ends by target, and failures as (target, number, exception, minimal input, block size)."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[tuple[str, int, BaseException, bytes, int]] = field(default_factory=list)


def fuzz(
    inputs: int,
    seed: int,
    names: list[str],
    *,
    stop: int = 1,
    say: Callable[[int, Outcome], None] = lambda done, outcome: None,
) -> Outcome:
    """``inputs`` inputs in all, the targets in turn; ends after ``stop`` failures of different kinds."""
    outcome = Outcome()
    known: set[tuple[str, str]] = set()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        for number in range(inputs):
            target = TARGETS[names[number % len(names)]]
            data, block, enforced = input_of(target, seed, number)
            try:
                end = run(target, data, folder, block, enforced=enforced)
            except Exception as error:
                end = "failure"
                kind = _kind(error)
                if (target.name, kind) not in known:
                    known.add((target.name, kind))
                    minimal = shrunk(data, lambda less, t=target, b=block, k=kind: _fails_so(t, less, folder, b, k))  # type: ignore[misc]
                    outcome.failures.append((target.name, number, error, minimal, block))
            outcome.ends[target.name, end] += 1
            say(number + 1, outcome)
            if len(outcome.failures) >= stop:
                break
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _kind(error: BaseException) -> str:
    """What tells one failure from another: its type and where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} {Path(last.filename).name}:{last.name}" + (
        f" {str(error)[:12]}" if isinstance(error, FoundError) else ""
    )


def _fails_so(target: Target, data: bytes, folder: Path, block: int, kind: str) -> bool:
    try:
        run(target, data, folder, block)
    except Exception as error:
        return _kind(error) == kind
    return False


def _cut(data: bytes) -> str:
    return repr(data) if len(data) < 600 else f"{data[:300]!r} ({len(data):,} bytes in all)"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bad_input.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--stop", type=int, default=10, help="end after so many different failures")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    names = options.target or [name for name, target in TARGETS.items() if not target.slow]
    print(f"seed {seed}, {options.inputs:,} inputs over {', '.join(names)}", flush=True)
    started = time.perf_counter()

    told = 0

    def say(done: int, outcome: Outcome) -> None:
        nonlocal told
        for name, number, error, minimal, block in outcome.failures[told:]:
            print(f"\n{name}, input {number} of seed {seed}, blocks of {block}: {_cut(minimal)}")
            traceback.print_exception(error, limit=-4, file=sys.stdout)
        told = len(outcome.failures)
        if done % 5_000 == 0:
            rate = done / (time.perf_counter() - started)
            print(f"{done:,} inputs, {rate:,.0f}/s, {len(outcome.failures)} failures", flush=True)

    outcome = fuzz(options.inputs, seed, names, stop=options.stop, say=say)
    print(f"\n{'target':<20}" + "".join(f"{end:>12}" for end in (*ENDS, "failure")))
    for name in names:
        print(f"{name:<20}" + "".join(f"{outcome.ends[name, end]:>12,}" for end in (*ENDS, "failure")))
    total = Counter[str]()
    for (_, end), count in outcome.ends.items():
        total[end] += count
    print(f"{sum(total.values()):,} inputs: " + ", ".join(f"{total[end]:,} {end}" for end in (*ENDS, "failure")))
    return int(bool(outcome.failures))


if __name__ == "__main__":
    sys.exit(main())
