"""JSON lines: one object a line. What was fetched from an API or a database is kept in this form, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from dopa_pipelines.sources.lines import LineTooLongError, read_blocks
from dopa_pipelines.sources.reader import FLAW, ORIGINAL, ROW, Reader


class JsonLinesReader(Reader):
    def read(self) -> Iterator[pl.DataFrame]:
        columns = self.contract.columns
        titles = {title: column.name for column in columns for title in reversed(column.known_titles)}
        schema = {ROW: pl.Int64, ORIGINAL: pl.String, FLAW: pl.String, **{c.name: pl.String for c in columns}}
        seen: set[str] = set()
        any_record = False
        try:
            for block in read_blocks(self.path, "utf-8"):
                flaws = block.flaws or [False] * len(block.lines)
                rows: list[dict[str, Any]] = []
                for place, (line, bad) in enumerate(zip(block.lines, flaws, strict=True)):
                    row: dict[str, Any] = {ROW: block.first + place, ORIGINAL: line}
                    record = None if bad else _object(line)
                    if record is None:
                        row[FLAW] = "undecodable" if line.strip() else None
                    else:
                        any_record = True
                        seen.update(key.encode("utf-8", "replace").decode() for key in record)
                        row |= {titles[key]: _text(value) for key, value in record.items() if key in titles}
                    rows.append(row)
                yield pl.DataFrame(rows, schema=schema, orient="row")
        except LineTooLongError as error:
            raise self.refuse(f"{error}; is it a file of JSON lines?") from error
        known = {titles[key] for key in seen if key in titles}
        missing = [column for column in columns if column.name not in known]
        if any_record and missing:
            self.match_titles(sorted(seen))
        self.unknown_titles = tuple(sorted(key for key in seen if key not in titles))


def _object(line: str) -> dict[str, Any] | None:
    try:
        # Numbers stay text: typing them is the contract's.
        value = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode() if isinstance(value, str) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)
