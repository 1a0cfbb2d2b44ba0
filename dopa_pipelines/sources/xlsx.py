"""Excel workbooks: the sheet the contract names, title rows above the header, rows numbered as Excel shows them."""

from __future__ import annotations

from collections.abc import Iterator

import fastexcel
import polars as pl

from dopa_pipelines.sources.batch import FLAW, ORIGINAL, ROW
from dopa_pipelines.sources.reader import Reader, clean_title

HEADER_SEARCH_ROWS = 40


class XlsxReader(Reader):
    def read(self) -> Iterator[pl.DataFrame]:
        try:
            book = fastexcel.read_excel(self.path)
        except (fastexcel.FastExcelError, OSError) as error:
            raise self.refuse("cannot be opened as an Excel workbook; save it again as .xlsx") from error
        sheet = self.contract.layout.sheet
        if sheet is not None and sheet not in book.sheet_names:
            raise self.refuse(f"has no sheet {sheet!r}; its sheets: {', '.join(book.sheet_names)}")
        if not book.sheet_names:
            raise self.refuse("has no sheet")
        # skip_rows=0: by default leading empty rows are dropped and the row numbers would no longer be Excel's.
        try:
            cells = book.load_sheet(sheet or 0, header_row=None, skip_rows=0, dtypes="string", schema_sample_rows=1).to_polars()
        except fastexcel.FastExcelError as error:
            raise self.refuse("its sheet cannot be read; save it again as .xlsx") from error
        header = self._header_row(cells)
        places = self.match_titles([str(cell) if cell is not None else None for cell in cells.row(header)])
        names = cells.columns
        yield (
            cells.with_row_index(ROW, offset=1)
            .slice(header + 1)
            .select(
                pl.col(ROW).cast(pl.Int64),
                pl.concat_str(names, separator="\t", ignore_nulls=False)
                .fill_null(pl.concat_str([pl.col(name).fill_null("") for name in names], separator="\t"))
                .alias(ORIGINAL),
                pl.lit(None, pl.String).alias(FLAW),
                *(pl.col(names[place]).alias(name) for name, place in places.items()),
            )
        )

    def _header_row(self, cells: pl.DataFrame) -> int:
        """The row among the first ones that holds most of the known titles; at least half of them."""
        known = {clean_title(title) for column in self.contract.columns for title in column.known_titles}
        best, where = 0, 0
        for number, row in enumerate(cells.head(HEADER_SEARCH_ROWS).iter_rows()):
            hits = len({clean_title(str(cell)) for cell in row if cell is not None} & known)
            if hits > best:
                best, where = hits, number
        if best * 2 < len(self.contract.columns):
            wanted = ", ".join(column.title for column in self.contract.columns)
            raise self.refuse(f"no header row found in the first {HEADER_SEARCH_ROWS} rows; it should hold the titles {wanted}")
        return where
