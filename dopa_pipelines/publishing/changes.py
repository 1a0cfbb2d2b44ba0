"""What changed between a release and the one before it, for whoever uses the data: columns, and rows added, removed and changed.

Two files in one order are read side by side, a stretch of the order at a time, so the memory it takes does not grow with them.
What a file's format is, is :mod:`.writers`; which releases are compared is :mod:`.releases`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as parquet

from dopa_pipelines.publishing.writers import FORMULA

_COUNT = "\x00rows"
_CSV_ROWS = 50_000


@dataclass
class Rows:
    """Rows added and removed; changed: those of one key of which a value differs, counted in neither of the others."""

    added: int = 0
    removed: int = 0
    changed: int = 0


def describe(
    before: dict[str, Any], after: dict[str, Any], folder_before: Path, folder_after: Path, order: list[str]
) -> dict[str, Any]:
    """``changes.json``. ``before`` and ``after``: the manifests (``release.json``) of the two releases; ``order``: the columns
    that the rows of both are ordered by, a key where no two rows share them."""
    old = {column["name"]: column["type"] for column in before.get("columns", [])}
    new = {column["name"]: column["type"] for column in after["columns"]}
    columns = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "retyped": [name for name in new if name in old and old[name] != new[name]],
    }
    told: dict[str, Any] = {
        "since": before["version"],
        "rows_before": before["rows"],
        "rows_after": after["rows"],
        "columns": columns,
        "publication_changed": before["publication_checksum"] != after["publication_checksum"],
        "rows": None,
    }
    form = next((form for form in ("parquet", "csv") if _has(folder_before, form) and _has(folder_after, form)), None)
    if form and old == new and list(old) == list(new) and before.get("order", order) == order:
        files = [next(folder.glob(f"*.{form}")) for folder in (folder_before, folder_after)]
        full = order + [name for name in new if name not in order]
        rows, keyed = compare(*(_read(file, form, new) for file in files), order=full, key=order)
        told["rows"] = {"added": rows.added, "removed": rows.removed, "changed": rows.changed if keyed else None}
    told["summary_th"], told["summary_en"] = _words(told)
    return told


def compare(
    before: Iterator[pl.DataFrame], after: Iterator[pl.DataFrame], *, order: list[str], key: list[str]
) -> tuple[Rows, bool]:
    """Compare two tables that are in the order of ``order``, all their columns, nulls first and texts by their bytes.

    The second value: whether ``key`` is one, in both. Where it isn't, a changed row counts as one removed and one added.
    """
    found = Rows()
    keyed = True
    sides = [_Side(before, key), _Side(after, key)]
    while True:
        for side in sides:
            side.fill()
        ends = [side.end() for side in sides if not side.over]
        if not ends and all(side.held.is_empty() for side in sides):
            return (found if keyed else Rows(found.added + found.changed, found.removed + found.changed)), keyed
        # Up to there both sides are known whole.
        until = min(ends, key=_rank) if ends else None
        one, two = (side.take(until) for side in sides)
        # A table without rows told no columns.
        one, two = (one if one.width else two.clear()), (two if two.width else one.clear())
        if one.equals(two):
            keyed = keyed and not one.select(key).is_duplicated().any()
            continue
        keyed = keyed and not any(part.select(key).is_duplicated().any() for part in (one, two))
        gone, come = _without(one, two, order), _without(two, one, order)
        removed, added = int(gone[_COUNT].sum()), int(come[_COUNT].sum())
        changed = gone.join(come, on=key, how="semi", nulls_equal=True).height if keyed else 0
        found.removed += removed - changed
        found.added += added - changed
        found.changed += changed


def _without(one: pl.DataFrame, two: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Rows that ``one`` has more of than ``two``, and how many more."""
    counts = one.group_by(columns).agg(pl.len().cast(pl.Int64).alias(_COUNT))
    others = two.group_by(columns).agg(pl.len().cast(pl.Int64).alias(_COUNT))
    joined = counts.join(others, on=columns, how="left", nulls_equal=True, suffix="_there")
    more = pl.col(_COUNT) - pl.col(f"{_COUNT}_there").fill_null(0)
    return joined.with_columns(more.alias(_COUNT)).filter(pl.col(_COUNT) > 0).select(*columns, _COUNT)


class _Side:
    """A table that is being read: what of it is held, and whether there is more."""

    def __init__(self, batches: Iterator[pl.DataFrame], key: list[str]) -> None:
        self._batches = batches
        self._key = key
        self.held = pl.DataFrame()
        self.over = False

    def fill(self) -> None:
        """Hold more than one key, so that what comes before the last of them is whole."""
        while not self.over and (self.held.is_empty() or self._one_key()):
            batch = next(self._batches, None)
            if batch is None:
                self.over = True
            elif batch.height:
                self.held = batch if self.held.is_empty() else pl.concat([self.held, batch])

    def _one_key(self) -> bool:
        return self.held.select(self._key).row(0) == self.held.select(self._key).row(-1)

    def end(self) -> tuple[Any, ...]:
        return self.held.select(self._key).row(-1)

    def take(self, until: tuple[Any, ...] | None) -> pl.DataFrame:
        """The rows whose key comes before ``until``, all where that is None; they are held no more."""
        if until is None or self.held.is_empty():
            taken, self.held = self.held, self.held.clear()
            return taken
        before = _before(self._key, until)
        taken, self.held = self.held.filter(before), self.held.filter(~before)
        return taken


def _before(key: list[str], until: tuple[Any, ...]) -> pl.Expr:
    """That a row's key comes before ``until``; never null."""
    made = pl.lit(False)
    for name, value in reversed(list(zip(key, until, strict=True))):
        column = pl.col(name)
        if value is None:  # nothing comes before no value
            made = column.is_null() & made
        else:
            less = column.is_null() | (column < pl.lit(value)).fill_null(True)
            same = (column == pl.lit(value)).fill_null(False)
            made = less | (same & made)
    return made


def _rank(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """By which keys are compared: no value first, texts by their bytes."""
    return tuple(
        (value is not None, value.encode() if isinstance(value, str) else value if value is not None else 0) for value in values
    )


def _has(folder: Path, form: str) -> bool:
    return any(folder.glob(f"*.{form}")) if form != "csv" else _data_csv(folder) is not None


def _data_csv(folder: Path) -> Path | None:
    return next((path for path in folder.glob("*.csv") if path.name != "data_dictionary.csv"), None)


def _read(file: Path, form: str, types: dict[str, str]) -> Iterator[pl.DataFrame]:
    if form == "parquet":
        with parquet.ParquetFile(file) as source:
            for batch in source.iter_batches():
                yield pl.DataFrame(pl.from_arrow(batch))
        return
    yield from _read_csv(file, types)


def _read_csv(file: Path, types: dict[str, str]) -> Iterator[pl.DataFrame]:
    """Rows of one of our CSV files, as they were before texts were made harmless."""
    kinds: dict[str, Any] = {"integer": pl.Int64, "number": pl.Float64}

    def frame(rows: list[list[str]]) -> pl.DataFrame:
        texts = pl.DataFrame(rows, schema=dict.fromkeys(types, pl.String), orient="row")
        harmless = r"^'" + FORMULA.removeprefix("^")
        made = []
        for name, kind in types.items():
            column = pl.col(name)
            if kind == "string":
                made.append(pl.when(column.str.contains(harmless)).then(column.str.slice(1)).otherwise(column).alias(name))
            elif kind == "boolean":
                made.append(pl.when(column == "").then(None).otherwise(column == "true").alias(name))
            else:
                value = pl.when(column == "").then(None).otherwise(column)
                made.append((value.str.to_date("%Y-%m-%d") if kind == "date" else value.cast(kinds[kind])).alias(name))
        return texts.select(made)

    with file.open(encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text)
        next(lines, None)
        held: list[list[str]] = []
        for line in lines:
            held.append(line)
            if len(held) == _CSV_ROWS:
                yield frame(held)
                held = []
        if held:
            yield frame(held)


def _words(told: dict[str, Any]) -> tuple[str, str]:
    thai, english = [], []
    rows, columns = told["rows"], told["columns"]
    if rows is not None:
        thai.append(f"เพิ่ม {rows['added']:,} แถว ลบ {rows['removed']:,} แถว")
        english.append(f"{rows['added']:,} rows added, {rows['removed']:,} removed")
        if rows["changed"] is not None:
            thai.append(f"แก้ไข {rows['changed']:,} แถว")
            english.append(f"{rows['changed']:,} changed")
    else:
        thai.append(f"จาก {told['rows_before']:,} แถว เป็น {told['rows_after']:,} แถว")
        english.append(f"{told['rows_before']:,} rows before, {told['rows_after']:,} after")
    for kind, word_th, word_en in (
        ("added", "เพิ่มคอลัมน์", "new columns:"),
        ("removed", "ตัดคอลัมน์", "columns gone:"),
        ("retyped", "เปลี่ยนชนิดคอลัมน์", "columns of another type:"),
    ):
        if columns[kind]:
            thai.append(f"{word_th} {', '.join(columns[kind])}")
            english.append(f"{word_en} {', '.join(columns[kind])}")
    if told["publication_changed"]:
        thai.append("คำอธิบายหรือเงื่อนไขการเผยแพร่เปลี่ยน")
        english.append("the publication's description or terms changed")
    return " ".join(thai), "; ".join(english)
