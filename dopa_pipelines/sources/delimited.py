"""Delimited text: any one-character delimiter, quoted or not, with or without a header line, with or without a last delimiter.

Lines without quotes are split by Polars at once; only a line that holds a quote is given to :mod:`csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

import polars as pl

from dopa_pipelines.sources.lines import Block, LineTooLongError, read_blocks
from dopa_pipelines.sources.reader import FLAW, ORIGINAL, ROW, Reader

MAX_RECORD_LINES = 50
"""A quoted field may run over line ends, but not further than this: an unclosed quote must not swallow the file."""


class DelimitedReader(Reader):
    def read(self) -> Iterator[pl.DataFrame]:
        layout = self.contract.layout
        places = {column.name: place for place, column in enumerate(self.contract.columns)}
        fields = len(places)
        waiting_for_header = layout.header
        try:
            for frame in self._records():
                if waiting_for_header:
                    titles = self._fields_of(frame, 0)
                    places = self.match_titles(titles)
                    fields = len(titles)
                    frame = frame.slice(1)
                    waiting_for_header = False
                yield self._columns(frame, places, fields)
        except LineTooLongError as error:
            raise self.refuse(f"{error}; is it a delimited text file?") from error
        if waiting_for_header:
            raise self.refuse("the file is empty: not even the header line is there")

    def _fields_of(self, frame: pl.DataFrame, row: int) -> list[str]:
        fields: list[str] = frame["_fields"][row].to_list()
        if self.contract.layout.trailing_delimiter and fields and not fields[-1].strip():
            fields = fields[:-1]
        return fields

    def _columns(self, frame: pl.DataFrame, places: dict[str, int], fields: int) -> pl.DataFrame:
        wanted = fields + (1 if self.contract.layout.trailing_delimiter else 0)
        count = pl.col("_fields").list.len()
        ragged = (count != wanted) & (pl.col(ORIGINAL).str.strip_chars() != "")
        return frame.select(
            pl.col(ROW),
            pl.col(ORIGINAL),
            pl.coalesce(FLAW, pl.when(ragged).then(pl.lit("ragged_line"))).alias(FLAW),
            *(pl.col("_fields").list.get(place, null_on_oob=True).alias(name) for name, place in places.items()),
        )

    def _records(self) -> Iterator[pl.DataFrame]:
        """Frames of row, original, flaw and the list of fields."""
        carried: list[tuple[int, str, bool]] = []
        for block in read_blocks(self.path, self.contract.layout.encoding):
            if self.contract.layout.quoted and (carried or block.lines.str.contains('"', literal=True).any()):
                frame, carried = self._quoted(block, carried)
            else:
                frame = self._plain(block)
            if frame.height:
                yield frame
        if carried:
            last = Block(carried[0][0], pl.Series([], dtype=pl.String))
            frame, _ = self._quoted(last, carried, final=True)
            yield frame

    def _plain(self, block: Block) -> pl.DataFrame:
        flaw = pl.Series(["undecodable" if bad else None for bad in block.flaws], dtype=pl.String) if block.flaws else None
        return pl.DataFrame({ORIGINAL: block.lines}).select(
            pl.int_range(block.first, block.first + pl.len(), dtype=pl.Int64).alias(ROW),
            pl.col(ORIGINAL),
            (pl.lit(flaw) if flaw is not None else pl.lit(None, pl.String)).alias(FLAW),
            pl.col(ORIGINAL).str.split(self.contract.layout.delimiter).alias("_fields"),
        )

    def _quoted(
        self, block: Block, carried: list[tuple[int, str, bool]], *, final: bool = False
    ) -> tuple[pl.DataFrame, list[tuple[int, str, bool]]]:
        flaws = block.flaws or [False] * len(block.lines)
        lines = carried + [
            (block.first + place, line, flaw) for place, (line, flaw) in enumerate(zip(block.lines, flaws, strict=True))
        ]
        delimiter = self.contract.layout.delimiter
        rows: list[tuple[int, str, str | None, list[str]]] = []
        place = 0
        while place < len(lines):
            number, text, flaw = lines[place]
            if '"' not in text:
                rows.append((number, text, "undecodable" if flaw else None, text.split(delimiter)))
                place += 1
                continue
            end = place + 1
            while not _closed(text, delimiter) and end < len(lines) and end - place < MAX_RECORD_LINES:
                text = f"{text}\n{lines[end][1]}"
                flaw = flaw or lines[end][2]
                end += 1
            if not _closed(text, delimiter):
                if end == len(lines) and end - place < MAX_RECORD_LINES and not final:
                    return _frame(rows), lines[place:]
                text, flaw, end = lines[place][1], lines[place][2], place + 1
                rows.append((number, text, "undecodable" if flaw else "ragged_line", []))
            else:
                fields, good = _split_quoted(text, delimiter)
                rows.append((number, text, "undecodable" if flaw else None if good else "ragged_line", fields))
            place = end
        return _frame(rows), []


def _closed(text: str, delimiter: str) -> bool:
    return text.count('"') % 2 == 0


def _split_quoted(text: str, delimiter: str) -> tuple[list[str], bool]:
    try:
        records = (
            list(csv.reader([text], delimiter=delimiter, strict=True))
            if "\n" not in text
            else list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True))
        )
    except csv.Error:
        return [], False
    return (records[0], True) if len(records) == 1 else ([], False)


def _frame(rows: list[tuple[int, str, str | None, list[str]]]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema={ROW: pl.Int64, ORIGINAL: pl.String, FLAW: pl.String, "_fields": pl.List(pl.String)},
        orient="row",
    )
