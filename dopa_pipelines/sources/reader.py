"""What every reader shares: the batch, titles, blank and total rows. The forms themselves are modules beside this one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from dopa_pipelines.contracts import Column, Contract
from dopa_pipelines.errors import Rejected

ROW, ORIGINAL, FLAW = "_row", "_original", "_flaw"


class Reader(ABC):
    """Reads one delivery of one contract. ``layout_rows`` and ``unknown_titles`` are complete once ``batches`` is spent."""

    def __init__(self, contract: Contract, path: Path) -> None:
        self.contract = contract
        self.path = path
        self.layout_rows = 0
        self.unknown_titles: tuple[str, ...] = ()

    @abstractmethod
    def read(self) -> Iterator[pl.DataFrame]:
        """Batches with blank and total rows still in them."""

    def batches(self) -> Iterator[pl.DataFrame]:
        """Batches of data rows; blank and declared total rows are counted in ``layout_rows`` and left out."""
        self.layout_rows = 0
        names = [column.name for column in self.contract.columns]
        for frame in self.read():
            blank = pl.all_horizontal((pl.col(name).str.strip_chars() == "").fill_null(True) for name in names)
            layout = blank & pl.col(FLAW).is_null()
            if totals := self.contract.layout.totals:
                layout |= pl.col(totals.column).str.strip_chars().str.contains(totals.pattern).fill_null(False)
            marked = frame.with_columns(layout.alias("_layout"))
            kept = marked.filter(~pl.col("_layout")).drop("_layout")
            self.layout_rows += frame.height - kept.height
            if kept.height:
                yield kept

    def refuse(self, message: str) -> Rejected:
        return Rejected(f"{self.path.name}: {message}")

    def match_titles(self, titles: Sequence[str | None]) -> dict[str, int]:
        """Where each contract column stands among ``titles``. Raises Rejected where one is missing or stands twice."""
        cleaned = [clean_title(title) for title in titles]
        found: dict[str, int] = {}
        missing: list[Column] = []
        for column in self.contract.columns:
            known = [clean_title(title) for title in column.known_titles]
            places = [place for place, title in enumerate(cleaned) if title and title in known]
            if len(places) > 1:
                raise self.refuse(
                    f"the title {titles[places[0]]!r} of column {column.name} stands {len(places)} times;"
                    " the delivery must name each column once"
                )
            if places:
                found[column.name] = places[0]
            else:
                missing.append(column)
        if missing:
            wanted = ", ".join(f"{column.name} ({column.title})" for column in missing)
            there = ", ".join(str(title).strip() for title in titles[:60] if title)
            raise self.refuse(
                f"column missing: {wanted}; the file has: {there[:400]}. Ask the bureau for the column, or add its new title"
                f" to 'titles' in {self.contract.path.name}"
            )
        used = set(found.values())
        self.unknown_titles = tuple(
            str(titles[place]).strip() for place, title in enumerate(cleaned) if title and place not in used
        )
        return found


def clean_title(title: str | None) -> str:
    """A title as it is compared: one line, single spaces, no case."""
    return re.sub(r"\s+", " ", (title or "").replace("\ufeff", "")).strip().casefold()


def open_reader(contract: Contract, path: Path) -> Reader:
    """The reader for the contract's form."""
    from dopa_pipelines.sources.delimited import DelimitedReader
    from dopa_pipelines.sources.fixed_width import FixedWidthReader
    from dopa_pipelines.sources.json_lines import JsonLinesReader
    from dopa_pipelines.sources.xlsx import XlsxReader

    readers: dict[str, type[Reader]] = {
        "delimited": DelimitedReader,
        "fixed_width": FixedWidthReader,
        "xlsx": XlsxReader,
        "json_lines": JsonLinesReader,
        "json_api": JsonLinesReader,  # fetched into JSON lines first: the delivery is what was fetched
        "sql": JsonLinesReader,
    }
    return readers[contract.layout.format](contract, path)
