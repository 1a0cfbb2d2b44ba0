"""Workbooks and what is called one: xlsx, xls, and HTML tables named ``.xls``. What a file is, its first bytes tell.

The sheet the contract names, title rows above the header, a header of several rows with merged cells; rows are numbered as Excel
shows them, or as the table's own. Every value is text as a person would type it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from dopa_pipelines.sources import sheet_process
from dopa_pipelines.sources.batch import FLAWED, ROW, Batch, Text, repeats
from dopa_pipelines.sources.html_table import PageError, Row, read_rows
from dopa_pipelines.sources.office_file import PASSWORD, Facts, UnusableError, inspect, kind_of
from dopa_pipelines.sources.reader import Reader, clean_title, title_forms

HEADER_SEARCH_ROWS = 40
HTML_BATCH_ROWS = 20_000
_MIDNIGHT = " 00:00:00"
_EPOCH = pl.date(1899, 12, 30)
_DAYS_TO_1904 = 1462
_LAST_YEARS = ((1900, 2199), (2400, 2743))
"""Years of a serial number that is a date: common era, and Buddhist era typed as it is said."""
_NUL = "\0"


class WorkbookReader(Reader):
    """Formats ``xlsx``, ``xls`` and ``html``; which of them is declared makes no difference."""

    def read(self) -> Iterator[Batch]:
        columns = self.contract.file_columns
        self._dates = {column.name: column.parse for column in columns if column.parse in ("date", "timestamp")}
        try:
            if kind_of(self.path) == "html":
                yield from self._html()
            else:
                yield from self._sheet(inspect(self.path, with_merged=self.contract.layout.header_rows > 1))
        except (UnusableError, PageError) as error:
            raise self.refuse(str(error)) from error

    # Sheets

    def _sheet(self, facts: Facts) -> Iterator[Batch]:
        wanted = self.contract.layout.sheet or ""
        found: dict[str, int] | None = None
        places: list[int] = []
        first = 0
        for batch, at in _cells(self.path, wanted, facts.tiny):
            places = at
            skip = 0
            if found is None:
                lists = [column.to_pylist() for column in batch.slice(0, self._head_rows).columns]
                head = [list(row) for row in zip(*lists, strict=True)]
                header = self._header(head, self._sheet_filler(facts, wanted, places))
                if header is None:
                    raise self._no_header()
                skip, titles = header
                found = self.match_titles(titles)
            yield self._sheet_batch(batch.slice(skip), first + skip, found, facts)
            first += batch.num_rows
        if found is None:
            raise self.refuse("its sheet is empty: not even the header is there")

    def _sheet_filler(self, facts: Facts, wanted: str, places: list[int]) -> Callable[[int, list[str | None]], list[str | None]]:
        """How merged cells of a row are filled: as the sheet says, or else up to the next cell that holds something."""
        merged = facts.merged
        if merged is None or not facts.sheets:
            return lambda _, cells: _filled(cells)
        name = wanted or facts.sheets[0]
        if name not in merged:
            name = next((sheet for sheet in merged if clean_title(sheet) == clean_title(name)), name)
        column_at = {place: at for at, place in enumerate(places)}

        def fill(row: int, cells: list[str | None]) -> list[str | None]:
            filled = list(cells)
            for top, bottom, left, right in merged.get(name, ()):
                if top <= row <= bottom and left in column_at and right > left and row == top:
                    for column in range(left + 1, right + 1):
                        if column in column_at:
                            filled[column_at[column]] = cells[column_at[left]]
            return filled

        return fill

    def _sheet_batch(self, cells: Any, before: int, found: dict[str, int], facts: Facts) -> Batch:
        """Rows of the sheet, of which ``before`` are above them."""
        numbers = pl.Series(ROW, range(before + 1, before + 1 + cells.num_rows), dtype=pl.Int64)
        columns = {name: self._typed(name, _text(cells.column(place)), facts) for name, place in found.items()}
        batch = Batch(numbers, columns, lambda asked: _joined(cells.take(asked.to_arrow())))
        return _without_nul(batch)

    def _typed(self, name: str, text: Text, facts: Facts) -> Text:
        """What Excel makes of dates and times, as a person would type it."""
        values = text.values
        parse = self._dates.get(name)
        if parse is not None:
            values = _serials_as_dates(values, facts.epoch_1904)
        return Text(values if parse == "timestamp" else _days_and_times(values), text.codes, text.ascii)

    # HTML

    def _html(self) -> Iterator[Batch]:
        waiting: dict[int, list[Row]] = {}
        chosen: int | None = None
        tables: set[int] = set()
        found: dict[str, int] = {}
        width = offset = 0
        rows: list[tuple[int, Row]] = []
        for row in read_rows(self.path, self.contract.layout.encoding):
            if row.table == chosen:
                if row.end:
                    offset += row.number
                    chosen = None
                else:
                    rows.append((offset + row.number, row))
            elif row.table not in tables:
                held = waiting.setdefault(row.table, [])
                if not row.end:
                    held.append(row)
                if row.end or len(held) >= self._head_rows:
                    tables.add(row.table)
                    del waiting[row.table]
                    header = self._header([list(item.cells) for item in held], _html_filler(held))
                    if header is not None and (matched := self._matched(header[1], bool(found))) is not None:
                        if chosen is not None:
                            raise self.refuse("has tables with the header's titles within each other; have it saved as .xlsx")
                        if found and rows:
                            yield self._html_batch(rows, found, width)
                            rows = []
                        found, width = matched, len(header[1])
                        rows += [(offset + item.number, item) for item in held[header[0] :]]
                        chosen = None if row.end else row.table
                        offset += row.number if row.end else 0
                    elif found:
                        self.layout_rows += sum(any(cell and cell.strip() for cell in item.cells) for item in held)
            elif found and not row.end:
                self.layout_rows += any(cell and cell.strip() for cell in row.cells)
            if len(rows) >= HTML_BATCH_ROWS:
                yield self._html_batch(rows, found, width)
                rows = []
        if not found:
            raise self._no_header()
        yield self._html_batch(rows, found, width)

    def _matched(self, titles: list[str | None], again: bool) -> dict[str, int] | None:
        """The columns of a header; None where it is another table's, once the data was ``again`` and again read under one."""
        if not again:
            return self.match_titles(titles)
        known = self.unknown_titles
        try:
            return self.match_titles(titles)
        except Exception as error:
            raise self.refuse(f"has a second table with some of the header's titles: {error}; deliver one table") from error
        finally:
            self.unknown_titles = tuple(dict.fromkeys((*known, *self.unknown_titles)))

    def _html_batch(self, rows: list[tuple[int, Row]], found: dict[str, int], width: int) -> Batch:
        sound: list[tuple[int, Row]] = []
        flawed: list[tuple[int, str, str]] = []
        for number, row in rows:
            wrong = "undecodable" if row.wrong else "ragged_line" if any(row.cells[width:]) else None
            if wrong:
                original = "\t".join(cell or "" for cell in row.cells).encode("utf-8", "surrogateescape")
                flawed.append((number, original.decode("utf-8", "backslashreplace").replace(_NUL, "\\x00"), wrong))
            else:
                sound.append((number, row))
        columns = {
            name: _text(pa.array([row.cells[place] if place < len(row.cells) else None for _, row in sound], pa.string()))
            for name, place in found.items()
        }
        return Batch(
            pl.Series(ROW, [number for number, _ in sound], dtype=pl.Int64),
            columns,
            lambda asked: pl.Series(["\t".join(cell or "" for cell in sound[at][1].cells) for at in asked], dtype=pl.String),
            pl.DataFrame(flawed, schema=FLAWED, orient="row"),
        )

    # The header of both

    @property
    def _head_rows(self) -> int:
        return HEADER_SEARCH_ROWS + self.contract.layout.header_rows - 1

    def _header(
        self, head: list[list[str | None]], fill: Callable[[int, list[str | None]], list[str | None]]
    ) -> tuple[int, list[str | None]] | None:
        """Where the data begins, and the titles: of the places among the first rows, that with most known titles.

        None where no place has half of them.
        """
        columns = self.contract.file_columns
        known = {clean_title(title) for column in columns for title in column.known_titles}
        height = self.contract.layout.header_rows
        best, where, titles = 0, 0, list[str | None]()
        for start in range(max(0, len(head) - height + 1)):
            rows = head[start : start + height]
            parts = [*(fill(start + at, cells) for at, cells in enumerate(rows[:-1])), rows[-1]]
            made = _titles(parts) if height > 1 else parts[0]
            hits = len({form for title in made for form in title_forms(title)} & known)
            if hits > best:
                best, where, titles = hits, start, made
        return (where + height, titles) if best * 2 >= len(columns) else None

    def _no_header(self) -> Exception:
        wanted = ", ".join(column.title for column in self.contract.file_columns)
        rows = f" of {self.contract.layout.header_rows} rows" if self.contract.layout.header_rows > 1 else ""
        return self.refuse(
            f"no header row{rows} found in the first {HEADER_SEARCH_ROWS} rows; it should hold the titles {wanted[:400]}"
        )


def _titles(parts: list[list[str | None]]) -> list[str | None]:
    """Titles of a header of several rows: each column's cells from top to bottom.

    Where its cells have the same number of lines, a language a line, the title has these lines, too.
    """
    width = max(map(len, parts), default=0)
    titles: list[str | None] = []
    for place in range(width):
        cells = [text for row in parts if place < len(row) and (text := (row[place] or "").strip())]
        lines = [cell.splitlines() for cell in cells]
        if cells and len({len(item) for item in lines}) == 1 and len(lines[0]) > 1:
            titles.append("\n".join(" ".join(line) for line in zip(*lines, strict=True)))
        else:
            titles.append(" ".join(" ".join(cells).split()) or None)
    return titles


def _filled(cells: list[str | None]) -> list[str | None]:
    filled: list[str | None] = []
    for cell in cells:
        filled.append(cell if (cell and cell.strip()) or not filled else filled[-1])
    return filled


def _html_filler(rows: list[Row]) -> Callable[[int, list[str | None]], list[str | None]]:
    def fill(at: int, cells: list[str | None]) -> list[str | None]:
        filled = list(cells)
        for place, columns in rows[at].merged.items():
            filled[place : place + columns] = [cells[place]] * columns
        return filled

    return fill


def _text(array: Any) -> Text:
    """A column of text; each value once where they repeat."""
    if len(array) and repeats(array):
        encoded = array.dictionary_encode("encode")
        codes = pl.Series(pl.from_arrow(encoded.indices)).cast(pl.UInt32)
        return Text(pl.Series(pl.from_arrow(encoded.dictionary), dtype=pl.String), codes)
    return Text(pl.Series(pl.from_arrow(array), dtype=pl.String))


def _joined(cells: Any) -> pl.Series:
    """Rows as text, a tabulator between their cells."""
    frame = pl.DataFrame([pl.Series(str(at), pl.from_arrow(column), dtype=pl.String) for at, column in enumerate(cells.columns)])
    return frame.select(
        pl.concat_str(pl.all().fill_null(""), separator="\t").str.replace_all(_NUL, "\\x00", literal=True)
    ).to_series()


def _without_nul(batch: Batch) -> Batch:
    """A text of PostgreSQL cannot hold NUL: such rows are undecodable."""
    wrong: pl.Series | None = None
    for text in batch.columns.values():
        held = text.values.str.contains(_NUL, literal=True)
        if held.any():
            rows = text.spread(held.fill_null(False))
            wrong = rows if wrong is None else wrong | rows
    if wrong is None:
        return batch
    places = wrong.arg_true()
    taken = pl.DataFrame(
        [batch.rows.gather(places), batch.original(places), pl.Series(["undecodable"] * len(places))], schema=FLAWED
    )
    kept = batch.filter(~wrong)
    return Batch(kept.rows, kept.columns, kept.original, taken)


def _days_and_times(values: pl.Series) -> pl.Series:
    """Moments at midnight as days, and those on Excel's day 0 as times."""
    if values.str.ends_with(_MIDNIGHT).any():
        values = values.str.replace(r"^(\d{4}-\d\d-\d\d) 00:00:00$", "${1}")
    if values.str.starts_with("1899-12-3").any():
        values = values.str.replace(r"^1899-12-3[01] (\d\d:\d\d:\d\d(?:\.\d+)?)$", "${1}")
    return values


def _serials_as_dates(values: pl.Series, epoch_1904: bool) -> pl.Series:
    """Numbers of five or six digits that are a date as Excel counts them, from 30 December 1899, as ISO dates; others stay.

    Shorter numbers are years, days or ``yymm`` as often as dates before 1927: they stay what they are.
    """
    pattern = r"^[0-9]{5,6}(?:\.[0-9]+)?$"
    if not values.str.contains(pattern).any():
        return values
    number = pl.when(pl.col("v").str.contains(pattern)).then(pl.col("v")).cast(pl.Float64)
    days = number + (_DAYS_TO_1904 if epoch_1904 else 0)
    moment = _EPOCH.cast(pl.Datetime("ms")) + pl.duration(milliseconds=(days * 86_400_000).round(0).cast(pl.Int64))
    written = moment.dt.strftime("%Y-%m-%d %H:%M:%S%.3f").str.strip_suffix(".000")
    year = moment.dt.year()
    fits = pl.any_horizontal(*(year.is_between(first, last) for first, last in _LAST_YEARS))
    return values.to_frame("v").select(pl.when(fits).then(written).otherwise(pl.col("v"))).to_series()


# The process that parses


def read_sheet(path: Path, sheet: str) -> pl.DataFrame:
    """Every cell of a sheet as text, row for row from Excel's first. Raises :class:`UnusableError`."""
    if kind_of(path) != "workbook":
        raise UnusableError("is no Excel workbook")
    facts = inspect(path, with_merged=False)
    parts = [pl.DataFrame(pl.from_arrow(batch)) for batch, _ in _cells(path, sheet, facts.tiny)]
    return pl.concat(parts).with_columns(pl.all().map_batches(_days_and_times)) if parts else pl.DataFrame()


def _cells(path: Path, sheet: str, tiny: bool) -> Iterator[tuple[Any, list[int]]]:
    """Record batches of text, a column a place of the sheet, and the sheet column of each. Raises UnusableError."""
    # By path and not as a module: importing the package would take five times as long as the process itself.
    program = [sys.executable, "-P", str(Path(sheet_process.__file__)), str(path), sheet, *["tiny"] * tiny]
    # It reads what came from outside: it needs to know no credential.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DOPA_", "PG"))}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=environment)
        try:
            try:
                with pa.ipc.open_stream(process.stdout) as stream:
                    places = json.loads(stream.schema.metadata[b"places"])
                    for batch in stream:
                        yield batch, places
            except (pa.ArrowInvalid, OSError) as error:
                if process.wait() == 0:
                    raise UnusableError("cannot be read as a workbook; save it again as .xlsx") from error
            if process.wait():
                raise _ended(process.returncode, said, sheet)
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def _ended(code: int, said: Any, sheet: str) -> UnusableError:
    """Why the process ended, as a sentence."""
    said.seek(max(0, said.seek(0, 2) - 20_000))
    lines = said.read().decode("utf-8", "replace").strip().splitlines()
    try:
        facts = json.loads(lines[-1]) if lines else {}
        error = facts.get("error", "")
    except (ValueError, AttributeError):
        facts, error = {}, ""
    text = "\n".join(lines)
    if error == "sheet":
        sheets = ", ".join(map(repr, facts["sheets"]))
        if not sheets:
            return UnusableError("has no sheet")
        return UnusableError(f"has no sheet {sheet!r}; its sheets: {sheets[:400]}")
    if error == "password":
        return UnusableError(PASSWORD)
    if error == "memory" or "memory allocation" in text or "capacity overflow" in text or "MemoryError" in text:
        return UnusableError(
            f"needs more than {sheet_process.MEMORY_BYTES >> 30} GiB to be read: clear what stands far below or to the right of"
            " its data, or deliver it in parts"
        )
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return UnusableError(
            f"takes more than {sheet_process.CPU_SECONDS // 60} minutes or too much memory to be read; deliver it in parts"
        )
    reason = f" ({facts['reason']})" if error == "broken" else ""
    return UnusableError(f"its sheet cannot be read{reason}: it is cut off or damaged; save it again as .xlsx")
