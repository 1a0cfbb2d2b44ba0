"""What changed between two releases is counted right, however the files are cut into pieces."""

from __future__ import annotations

import datetime
import random
from collections import Counter
from collections.abc import Iterator

import polars as pl
import pytest

from dopa_pipelines.publishing import changes

SCHEMA = {"area": pl.String, "day": pl.Date, "n": pl.Int64, "share": pl.Float64}
Row = tuple[str | None, datetime.date | None, int | None, float | None]


def ordered(rows: list[Row]) -> list[Row]:
    """As a release has them: by all columns, no value first, texts by their bytes."""
    return sorted(
        rows, key=lambda row: [(value is not None, value.encode() if isinstance(value, str) else value) for value in row]
    )


def pieces(rows: list[Row], size: int) -> Iterator[pl.DataFrame]:
    for start in range(0, len(rows), size):
        yield pl.DataFrame(rows[start : start + size], schema=SCHEMA, orient="row")


def compared(before: list[Row], after: list[Row], size: int = 3, key: list[str] | None = None) -> tuple[changes.Rows, bool]:
    return changes.compare(
        pieces(ordered(before), size), pieces(ordered(after), size + 1), order=list(SCHEMA), key=key or ["area", "day"]
    )


def test_rows_added_removed_and_changed_by_their_key() -> None:
    day = datetime.date(2026, 1, 31)
    before: list[Row] = [("10", day, 1, 0.5), ("11", day, 2, None), ("12", day, 3, 1.0), (None, None, 4, 1.0)]
    after: list[Row] = [("10", day, 1, 0.5), ("11", day, 9, None), ("13", day, 3, 1.0), (None, None, 4, 2.0)]
    assert compared(before, after) == (changes.Rows(added=1, removed=1, changed=2), True)


def test_equal_tables_and_empty_ones() -> None:
    rows: list[Row] = [("10", None, 1, None)] * 2
    assert compared(rows, rows) == (changes.Rows(), False)
    assert compared([], []) == (changes.Rows(), True)
    assert compared(rows, []) == (changes.Rows(removed=2), False)


def test_where_the_order_is_no_key_a_changed_row_is_one_removed_and_one_added() -> None:
    before: list[Row] = [("10", None, 1, None), ("10", None, 2, None)]
    after: list[Row] = [("10", None, 1, None), ("10", None, 3, None)]
    assert compared(before, after) == (changes.Rows(added=1, removed=1), False)


@pytest.mark.parametrize("seed", range(30))
def test_it_agrees_with_counting_by_hand(seed: int) -> None:
    draw = random.Random(seed)
    days = [None, datetime.date(2026, 1, 1), datetime.date(2026, 2, 1)]

    def row() -> Row:
        return (
            draw.choice([None, "", "ก", "ข", "z", "é"]),
            draw.choice(days),
            draw.choice([None, 1, 2]),
            draw.choice([None, 0.5]),
        )

    before = [row() for _ in range(draw.randrange(60))]
    after = [item for item in before if draw.random() < 0.8] + [row() for _ in range(draw.randrange(20))]
    if seed % 2:  # one row a key
        before, after = ({item[:2]: item for item in rows} for rows in (before, after))
        before, after = list(before.values()), list(after.values())
    gone, come = Counter(before) - Counter(after), Counter(after) - Counter(before)
    keyed = all(max(Counter(item[:2] for item in rows).values(), default=1) == 1 for rows in (before, after))
    changed = len({item[:2] for item in gone} & {item[:2] for item in come}) if keyed else 0
    for size in (1, 2, 7, 100):
        found, is_key = compared(before, after, size)
        assert is_key == keyed
        assert found == changes.Rows(come.total() - changed, gone.total() - changed, changed)
