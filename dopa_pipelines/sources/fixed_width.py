"""Fixed-width text: every column stands at its bytes. cp874 has one byte a character, so bytes are characters there.

A file that turns out to be UTF-8 is counted in characters, as if it had been sent in cp874.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from dopa_pipelines.sources.batch import FLAW, ORIGINAL, ROW, Batch, UndecodableError, repeats, text_of
from dopa_pipelines.sources.lines import Block, LineTooLongError, is_utf16, read_blocks
from dopa_pipelines.sources.reader import Reader


class FixedWidthReader(Reader):
    def read(self) -> Iterator[pl.DataFrame | Batch]:
        self._places = {column.name: column.position or (1, 1) for column in self.contract.file_columns}
        self._width = max(start + length - 1 for start, length in self._places.values())
        self._repeating: set[str] | None = None
        header = self.contract.layout.header
        if is_utf16(self.path):
            raise self.refuse("is UTF-16 or UTF-32 text; have it saved as UTF-8 or cp874")
        try:
            for block in read_blocks(self.path, self.contract.layout.encoding):
                if header and (block.count or block.flawed.height):
                    block = _without_first(block)
                    header = False
                yield self._rows(block)
        except LineTooLongError as error:
            raise self.refuse(f"{error}; is it a fixed-width file?") from error

    def _rows(self, block: Block) -> pl.DataFrame | Batch:
        if block.encoding == "cp874" or block.data.isascii():
            return self._batch(block)
        try:
            data = block.data.decode("utf-8").encode("cp874")
        except UnicodeDecodeError:
            return self._rows(block.only_text())
        except UnicodeEncodeError:
            return self._by_characters(block)
        return self._batch(Block(data, block.first, "cp874", block.flawed, block.given))

    def _batch(self, block: Block) -> Batch:
        """One byte a character: lines of the right width are a table of bytes."""
        # Lines of the right width have their ends in one column; looking there is enough to know that all have.
        regular = len(block.data) == block.count * (self._width + 1)
        odd = np.array([], dtype=np.int64)
        if not regular or not (np.frombuffer(block.data, np.uint8)[self._width :: self._width + 1] == 10).all():
            odd = np.flatnonzero(block.ends - block.starts != self._width)
        if len(odd):
            blank = block.blank(odd)
            self.layout_rows += len(blank)
            block = block.without(np.setdiff1d(odd, blank), "ragged_line")
            # What still has another width is blank.
            block = block.without(np.flatnonzero(block.ends - block.starts != self._width), None)
        table = np.frombuffer(block.data, np.uint8).reshape(-1, self._width + 1)
        arrays = {name: _bytes(table[:, start - 1 : start - 1 + length]) for name, (start, length) in self._places.items()}
        if self._repeating is None and len(table):
            self._repeating = {name for name, array in arrays.items() if repeats(array)}
        for name in self._repeating or ():
            arrays[name] = arrays[name].dictionary_encode()
        try:
            columns = {name: text_of(array, block.encoding) for name, array in arrays.items()}
        except UndecodableError:
            return self._batch(block.only_text())
        return Batch(pl.Series(ROW, block.numbers, dtype=pl.Int64), columns, block.originals(None), block.flawed)

    def _by_characters(self, block: Block) -> pl.DataFrame:
        lines = block.text(np.arange(block.count))
        frame = pl.DataFrame({ROW: pl.Series(block.numbers, dtype=pl.Int64), ORIGINAL: pl.Series(lines, dtype=pl.String)})
        ragged = (pl.col(ORIGINAL).str.len_chars() != self._width) & (pl.col(ORIGINAL).str.strip_chars() != "")
        cut = frame.select(
            pl.col(ROW, ORIGINAL),
            pl.when(ragged).then(pl.lit("ragged_line")).alias(FLAW),
            *(pl.col(ORIGINAL).str.slice(start - 1, length).alias(name) for name, (start, length) in self._places.items()),
        )
        return pl.concat([cut, block.flawed], how="diagonal") if block.flawed.height else cut


def _without_first(block: Block) -> Block:
    """The file's first block without its first line, which may be one that is no text."""
    if block.first not in block.flawed[ROW]:
        return block.without(np.array([0]), None)
    return Block(block.data, block.first, block.encoding, block.flawed.filter(pl.col(ROW) != block.first), block.numbers)


def _bytes(cells: Any) -> Any:
    """An Arrow array of bytes from a table of them, a row a value."""
    count, width = cells.shape
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, pa.py_buffer(np.ascontiguousarray(cells))])
    return fixed.cast(pa.binary())
