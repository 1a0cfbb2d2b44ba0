"""The rows of a query as a file: CSV that keeps null (nothing) apart from empty text (``""``), as PostgreSQL writes it.

The first line holds the titles, all in quotes. Values are the server's own text in UTF-8, with line breaks, quotes and delimiters
in quotes; nothing else is escaped, so that people and programs can read it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv

from dopa_pipelines.sources.batch import FLAWED, ROW, Batch, Text, UndecodableError, repeats, text_of
from dopa_pipelines.sources.reader import Reader

BLOCK_BYTES = 6 << 20
"""Rows are read in blocks of this size; a row that is longer is refused, so that memory stays bounded."""
MAX_HEADER_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


def header_line(titles: Sequence[str]) -> bytes:
    """The first line of the file. A line break in a title becomes a space."""
    quoted = ('"{}"'.format(" ".join(title.splitlines()).replace('"', '""')) for title in titles)
    return (",".join(quoted) + "\n").encode("utf-8", "replace")


class QueryResultReader(Reader):
    """Format ``sql``. ``_row`` is the number of the row in the query's result, from 1; ``_original`` the row as CSV."""

    def read(self) -> Iterator[Any]:
        with self.path.open("rb") as file:
            head = file.read(MAX_HEADER_BYTES)
        if head[:1] in (b"{", b""):
            # What was fetched before there was this form is in the archive as JSON lines.
            from dopa_pipelines.sources.json_lines import JsonLinesReader

            lines = JsonLinesReader(self.contract, self.path, self.name)
            yield from lines.read()
            self.layout_rows += lines.layout_rows
            self.unknown_titles = lines.unknown_titles
            return
        titles = self._titles(head)
        places = self.match_titles(titles)
        self._repeating: set[str] | None = None
        first = 1
        if len(head) == head.find(b"\n") + 1:
            return  # a header and no row
        for block, suspect in self._blocks(len(titles)):
            if self._repeating is None:
                self._repeating = {name for name, place in places.items() if repeats(block.column(place))}
            yield self._batch(block, places, first, suspect)
            first += block.num_rows

    def _titles(self, head: bytes) -> list[str]:
        line, end, _ = head.removeprefix(_BOM).partition(b"\n")
        if not end or line.count(b'"') % 2:
            raise self.refuse("its first line must hold the titles of the columns, as the rows of a query are kept")
        text = line.decode("utf-8", "replace").removesuffix("\r")
        try:
            return next(csv.reader([text], strict=True), [])
        except csv.Error as error:
            raise self.refuse(f"its first line cannot be read as titles ({error})") from error

    def _blocks(self, columns: int) -> Iterator[tuple[Any, bool]]:
        """Rows, and whether the file has held NUL so far."""
        names = [f"c{place}" for place in range(columns)]
        rows = 0
        with self.path.open("rb") as file:
            counted = _Quotes(file)
            try:
                reader = pyarrow.csv.open_csv(
                    pa.PythonFile(counted, "r"),
                    pyarrow.csv.ReadOptions(column_names=names, skip_rows=1, block_size=BLOCK_BYTES, use_threads=False),
                    pyarrow.csv.ParseOptions(newlines_in_values=True, escape_char=False, ignore_empty_lines=False),
                    pyarrow.csv.ConvertOptions(
                        check_utf8=False,
                        column_types=dict.fromkeys(names, pa.binary()),
                        null_values=[""],
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                    ),
                )
                for block in reader:
                    if block.num_rows:
                        yield block, counted.nul
                    rows += block.num_rows
            except pa.ArrowInvalid as error:
                if "straddl" in str(error) or "block size" in str(error):
                    reason = f"a row is longer than {BLOCK_BYTES:,} bytes, or a quote does not close"
                else:
                    reason = f"a row does not have {columns} fields"
                raise self.refuse(f"after row {rows:,}, {reason}; compare it with what the query gives") from error
        if counted.count % 2:
            raise self.refuse("ends within quotes: it is cut off; fetch it again")

    def _batch(self, block: Any, places: dict[str, int], first: int, suspect: bool) -> Batch:
        """``suspect``: NUL was read, which is no text either."""
        if self._repeating is None:
            self._repeating = {name for name, place in places.items() if repeats(block.column(place))}
        numbers = np.arange(first, first + block.num_rows, dtype=np.int64)
        flawed = pl.DataFrame(schema=FLAWED)
        try:
            if suspect:
                raise UndecodableError
            columns = self._columns(block, places)
        except UndecodableError:
            bad = self._no_text(block, places)
            flawed = pl.DataFrame(
                [numbers[bad], self._original(block.take(pa.array(bad))), ["undecodable"] * len(bad)], schema=FLAWED
            )
            kept = np.setdiff1d(np.arange(block.num_rows), bad)
            block, numbers = block.take(pa.array(kept)), numbers[kept]
            columns = self._columns(block, places)
        return Batch(
            pl.Series(ROW, numbers, dtype=pl.Int64), columns, lambda asked: self._original(block.take(asked.to_arrow())), flawed
        )

    def _columns(self, block: Any, places: dict[str, int]) -> dict[str, Text]:
        """Raises UndecodableError where a value is no text."""
        return {name: self._text(block.column(place), name in (self._repeating or ())) for name, place in places.items()}

    def _text(self, column: Any, repeating: bool) -> Text:
        try:
            return text_of(column.dictionary_encode("encode") if repeating else column, "utf-8")
        except UndecodableError:
            # A database that knows no encoding gives what was put into it: each value is what it can be read as.
            encoded = column.dictionary_encode("encode")
            found = encoded.dictionary.to_pylist()
            values = [None if value is None else self._decoded(value) for value in found]
            if values.count(None) > found.count(None):
                raise
            return Text(pl.Series(values, dtype=pl.String), pl.Series(pl.from_arrow(encoded.indices)).cast(pl.UInt32))

    def _no_text(self, block: Any, places: dict[str, int]) -> Any:
        """Places of rows with values that are no text in UTF-8 or the contract's encoding, or hold NUL."""
        bad: set[int] = set()
        for place in places.values():
            values = block.column(place).to_pylist()
            bad.update(row for row, value in enumerate(values) if value is not None and self._decoded(value) is None)
        return np.array(sorted(bad), dtype=np.int64)

    def _decoded(self, value: bytes) -> str | None:
        """The text that a value is; None where it is none."""
        for encoding in ("utf-8", self.contract.layout.encoding):
            try:
                text = value.decode(encoding)
            except UnicodeDecodeError:
                continue
            return None if "\0" in text else text
        return None

    def _original(self, rows: Any) -> pl.Series:
        """Rows as they stand in the file. Bytes that are no text, and NUL, are written out."""
        fields = []
        for place, column in enumerate(rows.columns):
            try:
                texts = pl.Series(pl.from_arrow(column.cast(pa.string())), dtype=pl.String)
            except pa.ArrowInvalid:
                texts = pl.Series(map(self._shown, column.to_pylist()), dtype=pl.String)
            if not texts.is_null().all():
                quoted = '"' + texts.str.replace_all('"', '""', literal=True) + '"'
                needed = (texts == "") | texts.str.contains(r'[",\r\n]')
                texts = quoted.zip_with(needed.fill_null(False), texts).str.replace_all("\0", "\\x00", literal=True)
            fields.append(texts.fill_null("").alias(f"c{place}"))
        return pl.DataFrame(fields).select(pl.concat_str(pl.all(), separator=",")).to_series()

    def _shown(self, value: bytes | None) -> str | None:
        return None if value is None else self._decoded(value) or value.decode("utf-8", "backslashreplace")


class _Quotes(io.RawIOBase):
    """A file that counts the quotes that are read of it, and looks for NUL."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0
        self.nul = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.count += data.count(b'"')
        self.nul = self.nul or b"\0" in data
        return data
