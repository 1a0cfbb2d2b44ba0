"""Fixed-width text: every column stands at its bytes. cp874 has one byte a character, so bytes are characters there."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from dopa_pipelines.sources.lines import LineTooLongError, read_blocks
from dopa_pipelines.sources.reader import FLAW, ORIGINAL, ROW, Reader


class FixedWidthReader(Reader):
    def read(self) -> Iterator[pl.DataFrame]:
        columns = [(column.name, *(column.position or (1, 1))) for column in self.contract.columns]
        width = max(start + length - 1 for _, start, length in columns)
        skip = 1 if self.contract.layout.header else 0
        try:
            for block in read_blocks(self.path, self.contract.layout.encoding):
                frame = pl.DataFrame({ORIGINAL: block.lines}).with_row_index(ROW, offset=block.first)
                flaws = pl.Series(block.flaws or [False], dtype=pl.Boolean)
                frame = frame.with_columns(
                    pl.when(pl.lit(flaws) if block.flaws else pl.lit(False))
                    .then(pl.lit("undecodable"))
                    .when((pl.col(ORIGINAL).str.len_chars() != width) & (pl.col(ORIGINAL) != ""))
                    .then(pl.lit("ragged_line"))
                    .alias(FLAW),
                    pl.col(ROW).cast(pl.Int64),
                    *(pl.col(ORIGINAL).str.slice(start - 1, length).alias(name) for name, start, length in columns),
                )
                yield frame.filter(pl.col(ROW) > skip) if block.first <= skip else frame
        except LineTooLongError as error:
            raise self.refuse(f"{error}; is it a fixed-width file?") from error
