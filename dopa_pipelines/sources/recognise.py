"""What form a file has that no contract describes yet: format, encoding, delimiter, header, titles.

Only the form; what the columns hold is :mod:`dopa_pipelines.quality.suggest`'s. What is found is a layout by which the readers of
this room read the file, and notes on what the file alone cannot tell. Fixed widths are :mod:`.recognise_widths`'.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dopa_pipelines.contracts.model import FileFormat, Layout
from dopa_pipelines.errors import UserError
from dopa_pipelines.sources.html_table import PageError, read_rows
from dopa_pipelines.sources.lines import SAMPLE_BYTES, detect_encoding, is_utf16
from dopa_pipelines.sources.office_file import UnusableError, inspect, kind_of
from dopa_pipelines.sources.reader import clean_title
from dopa_pipelines.sources.recognise_widths import widths_of
from dopa_pipelines.sources.workbook import HEADER_SEARCH_ROWS, read_sheet

LOOKED_AT = 5_000
"""Lines, rows or records by which a form is told."""
MAX_DOCUMENT_BYTES = 64 << 20
DELIMITERS = ("|", "\t", ";", ",", "^", "~", "¦", "!")
SAME_FIELDS = 0.9
"""So many of the lines must have the same number of fields, or the same length."""
_NUMBER = re.compile(r"^[\s+-]*[\d๐-๙][\d๐-๙.,/:\s-]*$")
_DIGIT = re.compile(r"[\d๐-๙]")
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
_DBF = frozenset((0x03, 0x83, 0x8B, 0x43, 0x63, 0xCB, 0xF5, 0xFB, 0x30, 0x31, 0x32))
_DBF_READ = "CNFDLITYB+@"


@dataclass(frozen=True)
class Place:
    """A column as it stands in the file. ``title`` is empty where nothing names it; ``number``: written as a number (JSON)."""

    title: str
    position: tuple[int, int] | None = None
    number: bool = False


@dataclass(frozen=True)
class Recognised:
    """``notes``: what was decided without certainty, or cannot be known from the file; no value of a row is in them."""

    layout: Layout
    places: tuple[Place, ...]
    notes: tuple[str, ...] = ()


def recognise(path: Path, name: str | None = None) -> Recognised:
    """The form of a plain file. Raises UserError where it has none that is read. ``name``: what to call it."""
    shown = name or path.name
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    if not head.strip(b"\0 \r\n\t\xef\xbb\xbf"):
        raise UserError(f"{shown}: is empty; give a file that holds some rows")
    if is_utf16(path):
        raise UserError(f"{shown}: is UTF-16 or UTF-32 text; have it saved as UTF-8 or cp874")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    try:
        if head.startswith(_WORKBOOKS):
            return _workbook(path, head, shown)
        if start.startswith(b"<") and kind_of(path) == "html":
            return _html(path, shown)
        if _is_dbf(path, head):
            return _dbf(head)
    except (UnusableError, PageError) as error:
        raise UserError(f"{shown}: {error}") from error
    if start[:1] in (b"{", b"["):
        found = _json(path, start, shown)
        if found is not None:
            return found
    if b"\0" in head:
        raise UserError(
            f"{shown}: holds bytes that are no text, and is no workbook, DBF table or page; what is it exported from?"
        )
    return _text(path, head, shown)


# Text


def _text(path: Path, head: bytes, shown: str) -> Recognised:
    encoding = detect_encoding(path, "cp874")
    if head.isascii() and encoding == "cp874":
        encoding = "utf-8"
    if b"\n" not in head:
        head = head.replace(b"\r", b"\n")
    whole = len(head) < SAMPLE_BYTES
    raw = [line.removesuffix(b"\r") for line in head.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    raw = [line for line in (raw if whole else raw[:-1]) if line.strip()][:LOOKED_AT]
    if not raw:
        raise UserError(f"{shown}: its first line is longer than {SAMPLE_BYTES:,} bytes; is it a text file?")
    lines = [line.decode(encoding, "replace") for line in raw]
    found = _delimiter(lines)
    if found is not None:
        return _delimited(lines, encoding, *found)
    # Widths are of characters: one byte each in cp874, which is what the reader counts.
    lengths = Counter(map(len, lines))
    width, often = lengths.most_common(1)[0]
    if often >= SAME_FIELDS * len(lines) and width > 1 and (len(lines) > 1 or width > 20):
        return _fixed(lines, width, encoding)
    unused = next(delimiter for delimiter in DELIMITERS if not any(delimiter in line for line in lines[:200]) or delimiter == "!")
    one = _delimited(lines, encoding, unused, 1, False)
    note = "no delimiter was found that all lines have, and they are not of one length: each line is read as one column"
    return Recognised(one.layout, one.places, (note, *one.notes))


def _delimiter(lines: list[str]) -> tuple[str, int, bool] | None:
    """Delimiter, fields of most lines, and whether fields are quoted."""
    best: tuple[float, int] = (0, 0)
    found = None
    for delimiter in DELIMITERS:
        holding = sum(delimiter in line for line in lines)
        if holding < SAME_FIELDS * len(lines):
            continue
        quoted = any(line.startswith('"') or f'{delimiter}"' in line for line in lines) and _closes(lines, delimiter)
        counts = Counter(map(len, _records(lines, delimiter, quoted)))
        fields, often = counts.most_common(1)[0]
        share = round(often / sum(counts.values()), 2)
        if fields > 1 and share >= SAME_FIELDS and (share, fields) > best:
            best, found = (share, fields), (delimiter, fields, quoted)
    return found


def _closes(lines: list[str], delimiter: str) -> bool:
    """Whether the quotes that begin fields also end them."""
    quote = re.escape(delimiter)
    opened = sum(len(re.findall(rf'(?:^|{quote})"', line)) for line in lines)
    closed = sum(len(re.findall(rf'"(?={quote}|$)', line)) for line in lines)
    return closed >= 0.8 * opened


def _records(lines: Iterable[str], delimiter: str, quoted: bool) -> list[list[str]]:
    if not quoted:
        return [line.split(delimiter) for line in lines]
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return [line.split(delimiter) for line in lines]


def _delimited(lines: list[str], encoding: str, delimiter: str, fields: int, quoted: bool) -> Recognised:
    records = [record for record in _records(lines, delimiter, quoted) if len(record) == fields]
    trailing = fields > 1 and all(not record[-1].strip() for record in records)
    if trailing:
        fields -= 1
    first, rest = records[0][:fields], [record[:fields] for record in records[1:]]
    notes: list[str] = []
    header = len(_records(lines[:1], delimiter, quoted)[0]) in (fields, fields + trailing) and _is_header(first, rest)
    if header and not rest:
        notes.append("it has a header line and no rows: what the columns hold is not known")
    if not header:
        notes.append("no line of titles was found: the columns are named by their place; name them")
    layout = Layout(
        "delimited",
        encoding=encoding,
        delimiter=delimiter,
        header=header,
        # What separates by commas quotes, if not in this file then in the next.
        quoted=quoted or delimiter == ",",
        trailing_delimiter=trailing,
    )
    titles = [" ".join(title.split()) for title in first] if header else [""] * fields
    return Recognised(layout, *_once(titles, notes))


def _once(
    titles: Sequence[str], notes: list[str], numbers: frozenset[str] = frozenset()
) -> tuple[tuple[Place, ...], tuple[str, ...]]:
    """Places of titles that can be told from each other; the others cannot be read by their titles."""
    if not any(titles):
        return tuple(Place("") for _ in titles), tuple(notes)
    counts = Counter(clean_title(title) for title in titles if title)
    twice = sorted({title for title in titles if title and counts[clean_title(title)] > 1})
    blank = sum(not title for title in titles)
    if twice:
        notes.append(f"left out, since their titles stand more than once: {', '.join(twice)}; have each column named once")
    if blank:
        notes.append(f"left out, since they have no title: {blank} columns")
    kept = [title for title in titles if title and counts[clean_title(title)] == 1]
    if not kept:
        raise UserError("none of its titles stands once: have the columns named, each in its own way")
    return tuple(Place(title, None, title in numbers) for title in kept), tuple(notes)


def _is_header(first: list[str], rest: list[list[str]]) -> bool:
    """Whether the first line is one of titles: no value of its columns, and not written as values are."""
    cells = [cell.strip() for cell in first]
    if not any(cells) or any(_NUMBER.match(cell) for cell in cells if cell):
        return False
    if not rest:
        return True
    told = 0
    for cell, column in zip(cells, zip(*rest, strict=False), strict=False):
        values = [value.strip() for value in column if value.strip()]
        if not values or not cell:
            continue
        if cell in values:
            told -= 1
        elif sum(bool(_DIGIT.search(value)) for value in values) >= 0.8 * len(values) and not _DIGIT.search(cell):
            told += 2
        elif len(set(values)) <= 0.5 * len(values):
            # A line of data would hold one of the few values.
            told += 1
    distinct = len({clean_title(cell) for cell in cells if cell}) == sum(map(bool, cells))
    return told > 0 or (told == 0 and distinct and all(cells) and all(re.match(r"^[A-Za-z_][\w .()-]*$", cell) for cell in cells))


def _fixed(lines: list[str], width: int, encoding: str) -> Recognised:
    same = [line for line in lines if len(line) == width]
    header = len(same) > 2 and _is_header([same[0]], [[line] for line in same[1:]]) and not _DIGIT.search(same[0])
    positions, notes = widths_of(same[1:] if header else same, width)
    layout = Layout("fixed_width", encoding=encoding, header=header)
    told = ["its columns stand at fixed places, which the file does not name: the places are what its bytes suggest; hold them"
            " against the silo's own description", *notes]  # fmt: skip
    if encoding == "utf-8":
        told.append("it is UTF-8 or ASCII: places are counted in characters")
    return Recognised(layout, tuple(Place("", position) for position in positions), tuple(told))


# Workbooks and pages


def _workbook(path: Path, head: bytes, shown: str) -> Recognised:
    sheets = inspect(path, with_merged=True).sheets
    frame = read_sheet(path, "")
    rows = [list(row) for row in frame.head(HEADER_SEARCH_ROWS + 200).iter_rows()]
    form: FileFormat = "xlsx" if head.startswith(b"PK") else "xls"
    notes = []
    if len(sheets) > 1:
        notes.append(f"the first sheet, {sheets[0]!r}, is read; others: {', '.join(map(repr, sheets[1:11]))}")
    return _table(rows, Layout(form, sheet=sheets[0] if len(sheets) > 1 else None), notes, shown)


def _html(path: Path, shown: str) -> Recognised:
    tables: dict[int, list[list[str | None]]] = {}
    for row in islice(read_rows(path, "utf-8"), LOOKED_AT):
        if not row.end:
            tables.setdefault(row.table, []).append(list(row.cells))
    if not tables:
        raise UserError(f"{shown}: is a page without a table; give the one with the data")
    rows = max(tables.values(), key=lambda rows: sum(sum(bool(cell and cell.strip()) for cell in row) for row in rows))
    notes = [f"the largest of its {len(tables)} tables is read"] if len(tables) > 1 else []
    return _table(rows, Layout("html", encoding=detect_encoding(path, "utf-8")), notes, shown)


def _table(rows: list[list[str | None]], layout: Layout, notes: list[str], shown: str) -> Recognised:
    """The header is the first of the first rows that is as wide as the table and holds no value as data are written."""
    filled = [[(cell or "").strip() for cell in row] for row in rows]
    widths = [sum(map(bool, row)) for row in filled]
    if not any(widths):
        raise UserError(f"{shown}: its sheet is empty; give one that holds some rows")
    usual = sorted(width for width in widths if width)[len([w for w in widths if w]) // 2]
    start = next(
        (
            at
            for at, row in enumerate(filled[:HEADER_SEARCH_ROWS])
            if widths[at] >= max(1, 0.6 * usual) and not any(_NUMBER.match(cell) for cell in row if cell)
        ),
        None,
    )
    if start is None:
        raise UserError(f"{shown}: no row of titles was found in its first {HEADER_SEARCH_ROWS} rows; write one above the data")
    titles = [" ".join(cell.split()) for cell in filled[start]]
    while titles and not titles[-1]:
        titles.pop()
    if start:
        notes.append(f"the header is row {start + 1}; rows above it are not read")
    below = filled[start + 1] if start + 1 < len(filled) else []
    if below and len(titles) > 1 and not all(titles) and not any(_NUMBER.match(cell) for cell in below if cell):
        notes.append("some columns have no title in the header's row: if the header has two rows, set headerRows to 2")
    return Recognised(layout, *_once(titles, notes))


# DBF


def _is_dbf(path: Path, head: bytes) -> bool:
    """A header whose record length and number of records agree with the file's length."""
    if len(head) < 65 or head[0] not in _DBF or b"\r" not in head[64 : int.from_bytes(head[8:10], "little") + 1]:
        return False
    records, start, length = (int.from_bytes(head[a:b], "little") for a, b in ((4, 8), (8, 10), (10, 12)))
    return length > 1 and start >= 65 and 0 <= path.stat().st_size - start - records * length < 65_536


def _dbf(head: bytes) -> Recognised:
    titles: list[str] = []
    left: list[str] = []
    for at in range(32, int.from_bytes(head[8:10], "little") - 1, 32):
        if head[at] == 0x0D:
            break
        name = head[at : at + 11].split(b"\0")[0].decode("cp874", "replace").strip()
        (titles if chr(head[at + 11]) in _DBF_READ else left).append(name)
    notes = [f"left out, since memos and pictures are not read: {', '.join(left)}"] if left else []
    notes.append("field names have at most ten letters: give the columns their whole names")
    return Recognised(Layout("dbf", encoding="cp874"), *_once(titles, notes))


# JSON


def _json(path: Path, start: bytes, shown: str) -> Recognised | None:
    first = start.split(b"\n", 1)[0].strip()
    if first.startswith(b"{") and isinstance(_parsed(first), dict):
        lines = [line for line in start.split(b"\n") if line.strip()]
        found = [_parsed(line) for line in lines[: LOOKED_AT + 1]]
        records = [record for record in found if isinstance(record, dict)]
        document = len(lines) == 1 and any(True for _ in _lists(records[0]))
        if not document and len(records) >= 0.5 * len(found):
            return _records_of(records, Layout("json_lines"), [], shown)
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise UserError(f"{shown}: is a JSON document of more than {MAX_DOCUMENT_BYTES >> 20} MiB; give a smaller sample of it")
    try:
        document_ = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if isinstance(document_, list):
        return _records_of(document_, Layout("json", records_path=""), [], shown)
    if document_.get("type") == "FeatureCollection" and isinstance(document_.get("features"), list):
        features = [item for item in document_["features"] if isinstance(item, dict)]
        records = [(item.get("properties") or {}) | {"geometry": "{}"} for item in features]
        return _records_of(records, Layout("geojson"), [], shown)
    lists = sorted(_lists(document_), key=lambda item: -len(item[1]))
    if not lists:
        raise UserError(f"{shown}: no list of objects was found in it")
    notes = [f"the longest list of objects, {lists[0][0]!r}, is read"] if len(lists) > 1 else []
    return _records_of(lists[0][1], Layout("json", records_path=lists[0][0]), notes, shown)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _lists(value: dict[str, Any], path: str = "", depth: int = 0) -> Iterable[tuple[str, list[Any]]]:
    """Lists of objects within objects, each with the keys that lead to it."""
    for key, inner in value.items():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield f"{path}{key}", inner
        elif isinstance(inner, dict) and depth < 4:
            yield from _lists(inner, f"{path}{key}.", depth + 1)


def _records_of(found: list[Any], layout: Layout, notes: list[str], shown: str) -> Recognised:
    records = [record for record in found[:LOOKED_AT] if isinstance(record, dict)]
    values: dict[str, list[Any]] = {}
    for record in records:
        for key, value in record.items():
            if isinstance(value, dict) and value and "." not in key:
                for inner, one in value.items():
                    values.setdefault(f"{key}.{inner}", []).append(one)
            else:
                values.setdefault(key, []).append(value)
    if not values:
        raise UserError(f"{shown}: holds no JSON objects with keys")
    numbers = frozenset(
        key
        for key, held in values.items()
        if (there := [value for value in held if value is not None])
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in there)
    )
    nested = sorted({key.split(".")[0] for key in values if "." in key})
    if nested:
        notes.append(f"objects within records are taken apart by dots: {', '.join(nested)}")
    return Recognised(layout, *_once(list(values), notes, numbers))
