"""What every reader shares: titles, blank and total rows. The forms themselves are modules beside this one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import polars as pl

from dopa_pipelines.contracts import Column, Contract
from dopa_pipelines.errors import Rejected
from dopa_pipelines.sources.batch import Batch, Text, batch_of
from dopa_pipelines.sources.unpivot import fill_from_file, unpivot


class Reader(ABC):
    """Reads one delivery of one contract. ``layout_rows`` and ``unknown_titles`` are complete once ``batches`` is spent."""

    def __init__(self, contract: Contract, path: Path, name: str | None = None) -> None:
        self.contract = contract
        self.path = path
        self.name = name or path.name
        self.layout_rows = 0
        self.unknown_titles: tuple[str, ...] = ()
        self.names = [column.name for column in contract.file_columns]

    @abstractmethod
    def read(self) -> Iterator[pl.DataFrame | Batch]:
        """Rows with blank and total ones still in them.

        A frame has ``_row`` (from 1), ``_original``, ``_flaw`` (a reason code or null) and each of ``names`` as text.
        """

    def batches(self) -> Iterator[Batch]:
        """Data rows; blank and declared total rows are counted in ``layout_rows`` and left out."""
        self.layout_rows = 0
        for rows in self.read():
            batch = rows if isinstance(rows, Batch) else batch_of(rows, self.names)
            layout = self._layout(batch)
            if layout is not None:
                self.layout_rows += int(layout.sum())
                batch = batch.filter(~layout)
            for made in unpivot(batch, self.contract):
                if made.height:
                    yield fill_from_file(made, self.contract, self.name)

    def _layout(self, batch: Batch) -> pl.Series | None:
        """Which rows are blank or totals; None where none is."""
        layout: pl.Series | None = None
        for column in batch.columns.values():
            if not _may_be_blank(column):
                layout = None
                break
            empty = column.spread((column.values.str.strip_chars() == "").fill_null(True))
            layout = empty if layout is None else layout & empty
            if not layout.any():
                layout = None
                break
        if totals := self.contract.layout.totals:
            column = batch.columns[totals.column]
            found = column.spread(column.values.str.strip_chars().str.contains(totals.pattern).fill_null(False))
            if found.any():
                layout = found if layout is None else layout | found
        return layout

    def refuse(self, message: str) -> Rejected:
        return Rejected(f"{self.name}: {message}")

    def match_titles(self, titles: Sequence[str | None]) -> dict[str, int]:
        """Where each contract column stands among ``titles``. Raises Rejected where one is missing or stands twice."""
        cleaned = [clean_title(title) for title in titles]
        forms = [title_forms(title) for title in titles]
        found: dict[str, int] = {}
        missing: list[Column] = []
        for column in self.contract.file_columns:
            known = [clean_title(title) for title in column.known_titles]
            places = [place for place, title in enumerate(cleaned) if title and title in known]
            # A title in two languages stands on two lines; the whole comes first.
            places = places or [place for place, form in enumerate(forms) if not form.isdisjoint(known)]
            if len(places) > 1:
                raise self.refuse(
                    f"the title {titles[places[0]]!r} of column {column.name} stands {len(places)} times;"
                    " the delivery must name each column once"
                )
            if places:
                found[column.name] = places[0]
            else:
                missing.append(column)
        if missing and not found:
            # What stands there may be values of people.
            raise self.refuse(
                f"none of its {len(titles):,} titles is known; is the line of titles missing, or another one than the contract"
                f" says? Wanted: {', '.join(f'{column.name} ({column.title})' for column in missing[:20])}"
            )
        if missing:
            wanted = ", ".join(f"{column.name} ({column.title})" for column in missing)
            there = ", ".join(" ".join(str(title).split()) for title in titles[:60] if title)
            raise self.refuse(
                f"column missing: {wanted}; the file has: {there[:400]}. Ask the bureau for the column, or add its new title"
                f" to 'titles' in {self.contract.path.name}"
            )
        used = set(found.values())
        self.unknown_titles = tuple(
            " ".join(str(titles[place]).split()) for place, title in enumerate(cleaned) if title and place not in used
        )
        return found


def _may_be_blank(column: Text) -> bool:
    """Whether some value may be blank. Of ASCII that is told by how it begins, at a tenth of the cost of looking at all of it."""
    return not column.ascii or column.values.null_count() > 0 or bool((column.values < "!").any())


def clean_title(title: str | None) -> str:
    """A title as it is compared: one line, single spaces, no case."""
    return re.sub(r"\s+", " ", (title or "").replace("\ufeff", "")).strip().casefold()


def title_forms(title: str | None) -> frozenset[str]:
    """What a title may be known as: the whole, or one of its lines."""
    lines = (title or "").splitlines()
    return frozenset(filter(None, map(clean_title, [title, *lines] if len(lines) > 1 else [title])))


def open_reader(contract: Contract, path: Path, name: str | None = None) -> Reader:
    """The reader for the contract's form. ``name``: what to call the file in messages."""
    module, reader = _READERS[contract.layout.format]
    # One form needs few of the libraries that all of them need.
    made: Reader = getattr(import_module(f"dopa_pipelines.sources.{module}"), reader)(contract, path, name)
    return made


_READERS = {
    "delimited": ("delimited", "DelimitedReader"),
    "fixed_width": ("fixed_width", "FixedWidthReader"),
    "xlsx": ("workbook", "WorkbookReader"),
    "xls": ("workbook", "WorkbookReader"),
    "html": ("workbook", "WorkbookReader"),
    "dbf": ("dbf", "DbfReader"),
    "json_lines": ("json_lines", "JsonLinesReader"),
    "json": ("json_document", "JsonReader"),
    "geojson": ("geojson", "GeoJsonReader"),
    "json_api": ("json_lines", "JsonLinesReader"),  # fetched into JSON lines first: the delivery is what was fetched
    "sql": ("query_result", "QueryResultReader"),
}
