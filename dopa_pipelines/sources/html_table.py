"""Tables of an HTML page, row by row, however carelessly it was written: what a bureau's system exports and calls ``.xls``."""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from dopa_pipelines.sources.lines import detect_encoding

PIECE_CHARACTERS = 1 << 16
MAX_CELLS = 16_384
"""Of a row: as many columns as Excel has."""
MAX_ROW_CHARACTERS = 1 << 20
MAX_TAG_CHARACTERS = 1 << 19
"""A tag or comment that is not closed within these is none: the parser would read it again with every piece."""
MAX_NESTED = 40
MAX_COVERED = 20_000_000
MAX_COLSPAN, MAX_ROWSPAN = 1_000, 65_534
"""As the HTML standard has them."""

_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([\w-]+)""", re.IGNORECASE)
_CHARSETS = {
    b"utf-8": "utf-8", b"utf8": "utf-8", b"windows-874": "cp874", b"tis-620": "cp874", b"cp874": "cp874", b"iso-8859-11": "cp874",
}  # fmt: skip
_SPACES = re.compile(r"[ \t\r\n\f]+")
_EXPONENT = re.compile(r"^-?\d(?:\.\d+)?[eE][+-]?\d+$")
_BREAKS = {"br", "p", "div", "li"}
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class PageError(ValueError):
    """The page cannot be read: why, and what to do. Belongs behind the file's name."""


@dataclass
class Row:
    """A row of table ``table`` (numbered as they begin). ``number``: from 1 within it.

    ``cells``: a place a column; what a merged cell covers is None. ``merged``: how many columns a cell covers, where more than
    one, by its place. ``wrong``: bytes of it are no text. ``end``: the table has ended; there are no cells then.
    """

    table: int
    number: int
    cells: list[str | None] = field(default_factory=list)
    merged: dict[int, int] = field(default_factory=dict)
    wrong: bool = False
    end: bool = False


@dataclass
class _Cell:
    texts: list[str | None]
    """None: a line break."""
    columns: int
    rows: int
    number: str | None


class _Table:
    def __init__(self, name: int) -> None:
        self.name = name
        self.number = 0
        self.row: Row | None = None
        self.cell: _Cell | None = None
        self.covered: dict[int, int] = {}
        """Rows that a cell further up still covers, by column."""
        self.characters = 0


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: deque[Row] = deque()
        self.open: list[_Table] = []
        self.tables = 0
        self._mute: str | None = None
        self._covered = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style"):
            self._mute = tag
        elif tag == "table":
            if self.open and self.open[-1].cell is None:
                self._end_table()
            if len(self.open) >= MAX_NESTED:
                raise PageError(f"has tables nested more than {MAX_NESTED} deep; have it saved as .xlsx")
            self.tables += 1
            self.open.append(_Table(self.tables))
        elif self.open:
            table = self.open[-1]
            if tag == "tr":
                self._end_row(table)
                self._begin_row(table)
            elif tag in ("td", "th"):
                self._end_cell(table)
                if table.row is None:
                    self._begin_row(table)
                given = dict(attrs)
                columns, rows = _span(given.get("colspan"), MAX_COLSPAN), _span(given.get("rowspan"), MAX_ROWSPAN)
                table.cell = _Cell([], columns, rows, given.get("x:num"))
            elif tag in _BREAKS and table.cell is not None:
                table.cell.texts.append(None)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in ("script", "style"):
            self._mute = None
        elif tag in ("td", "th"):
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == self._mute:
            self._mute = None
        elif self.open:
            table = self.open[-1]
            if tag == "table":
                self._end_table()
            elif tag == "tr":
                self._end_row(table)
            elif tag in ("td", "th"):
                self._end_cell(table)

    def handle_data(self, data: str) -> None:
        if self.open and self._mute is None:
            self._add(self.open[-1], data)

    def _add(self, table: _Table, text: str) -> None:
        if table.cell is not None:
            table.characters += len(text)
            if table.characters > MAX_ROW_CHARACTERS:
                raise PageError(f"row {table.number} has more than {MAX_ROW_CHARACTERS:,} characters; is a tag not closed there?")
            table.cell.texts.append(text)

    def _begin_row(self, table: _Table) -> None:
        table.number += 1
        table.characters = 0
        table.row = Row(table.name, table.number)

    def _end_cell(self, table: _Table) -> None:
        cell, row = table.cell, table.row
        table.cell = None
        if cell is None or row is None:
            return
        self._skip_covered(table, row)
        text = _text(cell.texts)
        if cell.number and _EXPONENT.match(text):
            text = cell.number  # Excel's own HTML shows 1.23E+12 and keeps the number beside it
        place = len(row.cells)
        row.wrong = row.wrong or _NO_TEXT.search(text) is not None
        row.cells += [text, *[None] * (cell.columns - 1)]
        self._count_covered(cell.columns - 1)
        if cell.columns > 1:
            row.merged[place] = cell.columns
        if cell.rows > 1:
            for column in range(place, place + cell.columns):
                table.covered[column] = cell.rows
        if len(row.cells) > MAX_CELLS:
            raise PageError(f"row {table.number} has more than {MAX_CELLS:,} cells, as no table of a register does")

    def _skip_covered(self, table: _Table, row: Row) -> None:
        before = len(row.cells)
        while len(row.cells) in table.covered:
            row.cells.append(None)
        self._count_covered(len(row.cells) - before)

    def _count_covered(self, count: int) -> None:
        self._covered += count
        if self._covered > MAX_COVERED:
            raise PageError(f"its merged cells cover more than {MAX_COVERED:,} places, as no table of a register does")

    def _end_row(self, table: _Table) -> None:
        self._end_cell(table)
        if table.row is not None:
            self._skip_covered(table, table.row)
            table.covered = {column: rows - 1 for column, rows in table.covered.items() if rows > 1}
            self.rows.append(table.row)
            table.row = None

    def _end_table(self) -> None:
        table = self.open.pop()
        self._end_row(table)
        self.rows.append(Row(table.name, table.number, end=True))


def _span(value: str | None, most: int) -> int:
    if not value or not (digits := re.match(r"\s*([0-9]{1,9})", value)):
        return 1
    return max(1, min(int(digits[1]), most))


def _text(texts: list[str | None]) -> str:
    """A cell's text as a browser shows it: white space is one space, only tags break lines."""
    lines: list[list[str]] = [[]]
    for text in texts:
        if text is None:
            lines.append([])
        else:
            lines[-1].append(text)
    shown = [_SPACES.sub(" ", "".join(parts)).strip(" ") for parts in lines]
    return "\n".join(shown).strip("\n")


def encoding_of(path: Path, declared: str) -> str:
    """``utf-8`` or ``cp874``. What the page says of itself counts where it names one of the two and its bytes do not object."""
    with path.open("rb") as file:
        said = _CHARSET.search(file.read(4096))
    return detect_encoding(path, _CHARSETS.get(said[1].lower(), declared) if said else declared)


def read_rows(path: Path, declared: str) -> Iterator[Row]:
    """Rows of all tables of a page as they end; a table within a cell comes before the row around it.

    Bytes that are no text become surrogates, and their row is ``wrong``. Raises PageError for what is too large or cut off.
    """
    decoder = codecs.getincrementaldecoder(encoding_of(path, declared))("surrogateescape")
    parser = _Parser()
    with path.open("rb") as file:
        while data := file.read(PIECE_CHARACTERS):
            parser.feed(decoder.decode(data))
            if len(parser.rawdata) > MAX_TAG_CHARACTERS:
                raise PageError(f"has a tag or comment of more than {MAX_TAG_CHARACTERS:,} characters; is it not closed?")
            while parser.rows:
                yield parser.rows.popleft()
    parser.feed(decoder.decode(b"", final=True))
    cut = "<" in parser.rawdata
    parser.close()
    if parser.open or cut:
        raise PageError("is cut off: a table or tag is not closed at its end; deliver it again")
    yield from parser.rows
