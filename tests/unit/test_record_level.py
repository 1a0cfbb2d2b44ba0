"""k-anonymity and l-diversity of extracts, against a Polars group_by of our own."""

from __future__ import annotations

import random

import polars as pl
import pytest

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.publication import RecordLevel
from dopa_pipelines.publishing.record_level import Findings, check, findings


def rule(k: int = 5, diversity: int = 1, sensitive: tuple[str, ...] = ("cause",)) -> RecordLevel:
    return RecordLevel.model_validate(
        {"quasiIdentifiers": ["area", "sex", "band"], "sensitive": list(sensitive), "kAnonymity": k, "lDiversity": diversity}
    )


def people(seed: int, rows: int) -> pl.DataFrame:
    draw = random.Random(seed)
    return pl.DataFrame(
        {
            "area": [draw.choice(["10", "11", None]) for _ in range(rows)],
            "sex": [draw.choice(["male", "female"]) for _ in range(rows)],
            "band": [draw.choice([1, 2, 3, None]) for _ in range(rows)],
            "cause": [draw.choice(["ก", "ข", "ค", None]) for _ in range(rows)],
        }
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_numbers_are_those_of_a_group_by(seed: int) -> None:
    frame = people(seed, 30 + 40 * seed)
    grouped = frame.group_by("area", "sex", "band").agg(pl.len(), pl.col("cause").n_unique())
    sizes = grouped["len"]
    assert findings(frame, rule()) == Findings(frame.height, sizes.min(), grouped["cause"].min(), sizes.filter(sizes < 5).sum())


def test_a_row_with_a_missing_value_is_a_class_of_its_own() -> None:
    frame = pl.DataFrame({"area": ["10"] * 9 + [None], "sex": ["male"] * 10, "band": [1] * 10, "cause": ["ก"] * 10})
    assert findings(frame, rule()).k == 1


def test_what_is_too_small_is_refused_without_a_value() -> None:
    frame = pl.DataFrame({"area": ["Xyzzy"] * 7 + ["Plugh"] * 2, "sex": ["male"] * 9, "band": [1] * 9, "cause": ["a"] * 9})
    with pytest.raises(UserError) as refused:
        check(frame, rule())
    said = str(refused.value)
    assert "smallest class by area, sex, band has 2 rows, and 2 of 9 rows" in said
    assert not any(value in said for value in ("Xyzzy", "Plugh"))


def test_a_class_that_is_all_alike_is_refused() -> None:
    frame = pl.DataFrame({"area": ["10"] * 6, "sex": ["male"] * 6, "band": [1] * 6, "cause": ["ก"] * 6})
    with pytest.raises(UserError, match="2-diverse: in some class by area, sex, band, one of cause has only 1 distinct value;"):
        check(frame, rule(diversity=2))
    mixed = frame.with_columns(cause=pl.Series(["ก", "ข"] * 3))
    assert check(mixed, rule(diversity=2)) == Findings(6, 6, 2, 0)


def test_no_rows_no_sensitive_column_and_a_column_that_is_not_there() -> None:
    frame = people(1, 400)
    assert check(frame.clear(), rule()) == Findings(0, None, None, 0)
    assert findings(frame, rule(sensitive=())).l is None
    with pytest.raises(UserError, match="no column cause"):
        check(frame.drop("cause"), rule())
