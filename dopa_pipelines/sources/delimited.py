"""Delimited text: any one-character delimiter, quoted or not, with or without a header line, with or without a last delimiter.

Arrow splits the lines of a block at once, as bytes. Only what it would read in its own way is taken apart here first: records
that run over several lines, quotes that do not close, and lines that are no text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv

from dopa_pipelines.sources.batch import FLAW, ORIGINAL, ROW, Batch, UndecodableError, frame_schema, repeats, text_of
from dopa_pipelines.sources.lines import Block, LineTooLongError, is_utf16, read_blocks
from dopa_pipelines.sources.reader import Reader

MAX_RECORD_LINES = 50
"""A quoted field may run over line ends, but not further than this: an unclosed quote must not swallow the file."""
MAX_COLUMNS = 10_000
"""A header of more titles is none: a table has 1,600 columns at most."""

_LAST = "_last"
"""What stands after a last delimiter: nothing."""
_BYTES = pa.binary()
_DICTIONARY = pa.dictionary(pa.int32(), pa.binary())


class DelimitedReader(Reader):
    def read(self) -> Iterator[pl.DataFrame | Batch]:
        layout = self.contract.layout
        self._quote = layout.quoted
        self._repeating: set[str] | None = None
        self._names = [*self.names, *[_LAST] * layout.trailing_delimiter]
        waiting_for_header = layout.header
        carried: Block | None = None
        if is_utf16(self.path):
            raise self.refuse("is UTF-16 or UTF-32 text; have it saved as UTF-8 or cp874")
        try:
            for block in read_blocks(self.path, layout.encoding):
                if waiting_for_header and (block.count or block.flawed.height):
                    block = self._without_header(block)
                    waiting_for_header = False
                if carried is not None:
                    block, carried = _joined(carried, block), None
                if self._quote and b'"' in block.data:
                    block, records, carried = _records(block, self.contract.layout.delimiter)
                    if records:
                        yield self._taken_apart(block, records)
                yield self._batch(block)
        except LineTooLongError as error:
            raise self.refuse(f"{error}; is it a delimited text file?") from error
        if carried is not None:
            # The file ends within quotes: its first line is no record, and what follows is read anew.
            yield from self._rest(carried)
        if waiting_for_header:
            raise self.refuse("the file is empty: not even the header line is there")

    def _rest(self, block: Block) -> Iterator[pl.DataFrame | Batch]:
        while block.count:
            flawed = block.without(np.array([0]), "ragged_line")
            block, records, carried = _records(flawed, self.contract.layout.delimiter)
            if records:
                yield self._taken_apart(block, records)
            yield self._batch(block)
            if carried is None:
                return
            block = carried

    def _without_header(self, block: Block) -> Block:
        layout = self.contract.layout
        if block.first in block.flawed[ROW]:
            raise self.refuse("line 1, its titles, holds NUL bytes or others that are no text; have it exported again")
        line, lines = block.text(np.array([0]))[0], 1
        while self._quote and line.count('"') % 2 and lines < min(MAX_RECORD_LINES, len(block.ends)):
            line += "\n" + block.text(np.array([lines]))[0]
            lines += 1
        quoted = _fields(line, layout.delimiter) if self._quote else None
        if self._quote and quoted is None and (lines > 1 or line.count('"') % 2):
            # Lines of data must not be taken for titles.
            raise self.refuse("line 1, its titles, has a quote that is not closed; have it exported again")
        titles = [title.replace("\r", " ") for title in quoted or line.split(layout.delimiter)]
        if len(titles) > MAX_COLUMNS:
            raise self.refuse(
                f"line 1 holds {len(titles):,} titles, more than the {MAX_COLUMNS:,} of any table; is the delimiter right?"
            )
        if layout.trailing_delimiter and titles and not titles[-1].strip():
            titles = titles[:-1]
        found = self.match_titles(titles)
        places = {place: name for name, place in found.items()}
        if len(places) < len(found):
            both = [name for name in found if list(found.values()).count(found[name]) > 1]
            raise self.refuse(f"the columns {', '.join(both)} stand under one title; the delivery must name each column once")
        self._names = [places.get(place, f"_unknown_{place}") for place in range(len(titles))]
        self._names += [_LAST] * layout.trailing_delimiter
        return block.without(np.arange(lines), None)

    def _batch(self, block: Block) -> Batch:
        """The lines of a block. Each is a record, or too short or long."""
        wanted = dict.fromkeys(self.names, _BYTES)
        if self._repeating is not None:
            wanted |= dict.fromkeys(self._repeating, _DICTIONARY)
        try:
            table = self._split(block.data, wanted)
        except pa.ArrowInvalid:
            return self._batch(self._without_ragged(block))
        if self.contract.layout.trailing_delimiter:
            beyond = self._beyond(block)
            if len(beyond):
                return self._batch(block.without(beyond, "ragged_line"))
        if self._repeating is None and table.num_rows:
            self._repeating = {name for name in wanted if repeats(table[name])}
            for name in self._repeating:
                table = table.set_column(table.schema.get_field_index(name), name, table[name].dictionary_encode())
        try:
            columns = {name: text_of(_whole(table[name]), block.encoding) for name in wanted}
        except UndecodableError:
            return self._batch(block.only_text())
        return Batch(pl.Series(ROW, block.numbers, dtype=pl.Int64), columns, block.originals(None), block.flawed)

    def _beyond(self, block: Block) -> Any:
        """Places of the lines, each with all its fields, that hold something after their last delimiter."""
        delimiter = self.contract.layout.delimiter
        ends = np.frombuffer(block.data, np.uint8)[block.ends - 1] == ord(delimiter)
        places = np.flatnonzero(~ends)
        lasts = [
            (_fields(line, delimiter) or [""])[-1] if self._quote else line.rpartition(delimiter)[2]
            for line in (block.text(places) if len(places) else ())
        ]
        return places[[bool(last.strip()) for last in lasts]] if len(places) else places

    def _without_ragged(self, block: Block) -> Block:
        """The block without lines of too few or too many fields; of them, what is blank is layout."""
        bad: list[int] = []

        def skip(row: Any) -> str:
            bad.append(row.number - 1)
            return "skip"

        # Arrow hands a bad line over as UTF-8; only structure is looked at, so every other byte may stand for a letter.
        self._split(block.data.translate(_ASCII), dict.fromkeys(self.names[:1], _BYTES), skip)
        if not bad:
            raise self.refuse(f"cannot be read as delimited text near line {block.numbers[0]}; is the delimiter right?")
        places = np.array(bad, dtype=np.int64)
        blank = block.blank(places)
        self.layout_rows += len(blank)
        taken = block.without(places, "ragged_line")
        flawed = taken.flawed.filter(~pl.col(ROW).is_in(block.numbers[blank].tolist()))
        return Block(taken.data, taken.first, taken.encoding, flawed, taken.numbers)

    def _split(self, data: bytes, wanted: dict[str, Any], on_ragged: Callable[[Any], str] | None = None) -> Any:
        """The lines as an Arrow table of bytes. Raises ArrowInvalid at a ragged line, unless ``on_ragged`` takes it."""
        if not data:
            return pa.table({name: pa.array([], kind) for name, kind in wanted.items()})
        quoted = self._quote and b'"' in data
        # Arrow would take a lone carriage return for a line end.
        data = data.replace(b"\r", b" ") if b"\r" in data else data
        return pyarrow.csv.read_csv(
            pa.BufferReader(data),
            # One chunk, so that a dictionary is of the whole block and lines are numbered.
            pyarrow.csv.ReadOptions(column_names=self._names, use_threads=False, block_size=len(data) + 1),
            pyarrow.csv.ParseOptions(
                delimiter=self.contract.layout.delimiter,
                quote_char='"' if quoted else False,
                double_quote=quoted,
                escape_char=False,
                newlines_in_values=False,
                ignore_empty_lines=False,
                invalid_row_handler=on_ragged,
            ),
            pyarrow.csv.ConvertOptions(
                check_utf8=False,
                column_types={name: wanted.get(name, _BYTES) for name in self._names},
                strings_can_be_null=False,
                include_columns=list(wanted),
            ),
        )

    def _taken_apart(self, block: Block, records: list[tuple[int, str, bool]]) -> pl.DataFrame:
        """Records that run over several lines, each with the number of its first line."""
        rows = []
        for number, text, readable in records:
            fields = _fields(text, self.contract.layout.delimiter)
            row: dict[str, Any] = {ROW: number, ORIGINAL: text}
            if not readable:
                row[FLAW] = "undecodable"
            elif fields is None or len(fields) != len(self._names) or (self._names[-1] == _LAST and fields[-1].strip()):
                row[FLAW] = "ragged_line"
            else:
                row |= dict(zip(self._names, fields, strict=True))
            rows.append(row)
        return pl.DataFrame(rows, schema=frame_schema(self.names), orient="row", strict=False)


def _whole(column: Any) -> Any:
    """The one chunk of a column."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _fields(text: str, delimiter: str) -> list[str] | None:
    """The fields of one quoted record; None where its quotes do not enclose whole fields."""
    between = re.escape(delimiter)
    # Not the csv module: its bound of 131,072 characters is the process's, and it ends records where str.splitlines does.
    field = re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"{between}\n][^{between}\n]*|))({between}|\Z)')
    fields: list[str] = []
    at, end = 0, ""
    while found := field.match(text, at):
        quoted, plain, end = found.groups()
        fields.append(plain if quoted is None else quoted.replace('""', '"'))
        at = found.end()
        if not end:
            return fields if at == len(text) else None
    return None


def _joined(first: Block, second: Block) -> Block:
    return Block(
        first.data + second.data,
        first.first,
        second.encoding,
        pl.concat([first.flawed, second.flawed]),
        np.concatenate([first.numbers, second.numbers]),
    )


def _records(block: Block, delimiter: str) -> tuple[Block, list[tuple[int, str, bool]], Block | None]:
    """Take apart what quotes do to lines.

    Gives the block with only lines that are records of their own, well formed; the records that run over several lines (number
    of the first line, text, whether all of it is text); and the lines at the end whose quotes the next block may close.
    """
    quotes = np.flatnonzero(np.frombuffer(block.data, np.uint8) == ord('"'))
    counts = np.diff(np.searchsorted(quotes, np.append(block.starts, len(block.data))))
    odd = np.flatnonzero(counts % 2).tolist()
    records: list[tuple[int, str, bool]] = []
    gone: list[int] = []
    ragged: list[int] = []
    carried = None
    place = 0
    while place < len(odd):
        start = odd[place]
        end = odd[place + 1] if place + 1 < len(odd) else None
        if end is not None and end - start < MAX_RECORD_LINES:
            lines = list(range(start, end + 1))
            # A line that is no text may have been taken out of its middle: then a part of a value is gone.
            whole = int(block.numbers[end] - block.numbers[start]) == end - start
            readable = whole and block.is_text(start, end)
            records.append((int(block.numbers[start]), "\n".join(block.text(np.array(lines))), readable))
            gone += lines
            place += 2
        elif end is None and len(block.ends) - start < MAX_RECORD_LINES:
            rest = np.arange(start, len(block.ends))
            empty = block.flawed.clear()
            carried = Block(block.data[int(block.starts[start]) :], 0, block.encoding, empty, block.numbers[rest])
            gone += rest.tolist()
            place += 1
        else:
            ragged.append(start)
            place += 1
    within = set(gone)
    malformed = [line for line in _malformed(block, counts, delimiter).tolist() if line not in within]
    flawed = block.without(np.array(sorted({*ragged, *malformed})), "ragged_line").flawed
    kept = block.without(np.array(sorted({*gone, *ragged, *malformed})), None)
    return Block(kept.data, kept.first, kept.encoding, flawed, kept.numbers), records, carried


_ASCII = bytes(range(128)) + b"x" * 128


def _malformed(block: Block, counts: Any, delimiter: str) -> Any:
    """Places of lines with quotes that close but do not enclose whole fields."""
    places = np.flatnonzero((counts > 0) & (counts % 2 == 0))
    if not len(places):
        return places
    # Only structure is looked at: every other byte may stand for a letter.
    data = block.data.translate(_ASCII)
    offsets = np.append(block.starts, len(data)).astype(np.int32)
    lines = pa.StringArray.from_buffers(len(block.ends), pa.py_buffer(offsets), pa.py_buffer(data)).take(pa.array(places))
    between = re.escape(delimiter)
    field = rf'(?:"(?:[^"]|"")*"|[^"{between}\n][^{between}\n]*|)'
    well_formed = pl.Series(pl.from_arrow(lines)).str.contains(rf"^{field}(?:{between}{field})*\n$")
    return places[(~well_formed).to_numpy()]
