"""Profiles against plain Python on the same rows; estimates within their stated errors; nothing of persons."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import date, timedelta
from random import Random
from typing import Any

import polars as pl
import pytest

from dopa_pipelines.ingest.enforce import Enforced, Plan
from dopa_pipelines.quality.profiles import (
    COUNTED,
    KEPT,
    LEVELS,
    SAMPLE,
    SKETCH,
    Field,
    Gathering,
    Profiler,
    fields_of,
    profile_rows,
    shape_of,
)
from dopa_pipelines.sources import open_reader
from dopa_pipelines.sources.batch import ROW, Text


def field(name: str, kind: Any = "text", personal: bool = False) -> Field:
    return Field(name, kind, personal, name, name)


def facts_of(values: list[Any], kind: Any = "text", personal: bool = False, **schema: Any) -> dict[str, Any]:
    frame = pl.DataFrame({"c": pl.Series(values, **schema)})
    return profile_rows([field("c", kind, personal)], [frame])["c"]


def quantile(values: list[Any], level: float) -> Any:
    """The smallest value with at least that share of all up to it."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(level * len(ordered)) - 1)]


@pytest.mark.parametrize("size", [1, 2, 7, 100, 3_000])
def test_small_columns_are_exact(size: int) -> None:
    draw = Random(size)
    numbers = [draw.choice([None, draw.randint(-50, 50)]) for _ in range(size)] + [3]
    there = [value for value in numbers if value is not None]
    found = facts_of(numbers, "number")
    assert found["missing"] == len(numbers) - len(there)
    assert found["distinct"] == len(set(there))
    assert (found["min"], found["max"]) == (min(there), max(there))
    assert found["mean"] == pytest.approx(sum(there) / len(there))
    assert found["quantiles"] == [quantile(there, level) for level in LEVELS]
    kept = Counter(there)
    assert len(found["top"]) == min(KEPT, len([v for v, n in kept.items() if len(kept) <= KEPT or n >= 5]))
    assert all(kept[value] == count for value, count in found["top"])
    assert "sample" not in found and "distinct_error" not in found


def test_dates_are_iso_and_days_that_are_there() -> None:
    days = [date(2020, 1, 1) + timedelta(days=n * n % 97) for n in range(500)]
    found = facts_of(days, "date")
    assert found["quantiles"] == [quantile(days, level).isoformat() for level in LEVELS]
    assert "mean" not in found


def test_what_a_large_column_is_estimated_by_is_within_its_error() -> None:
    rows, size = 200_000, 50_000
    draw = Random(1)
    numbers = [int(draw.lognormvariate(8, 1)) * 7 + place % 3 for place in range(rows)]
    keys = list(range(rows))
    frames = [
        pl.DataFrame({"n": numbers[at : at + size], "k": [f"{key:013d}" for key in keys[at : at + size]]})
        for at in range(0, rows, size)
    ]
    found = profile_rows([field("n", "number"), field("k")], frames)
    key, number = found["k"], found["n"]
    assert key["distinct_error"] == round(1 / math.sqrt(SKETCH - 2), 4)
    assert abs(key["distinct"] / rows - 1) < 4 * key["distinct_error"]
    assert abs(number["distinct"] / len(set(numbers)) - 1) < 4 * number["distinct_error"]
    assert (number["min"], number["max"]) == (min(numbers), max(numbers))
    assert number["mean"] == pytest.approx(sum(numbers) / rows)
    assert number["sample"] == key["sample"] == SAMPLE
    ordered = sorted(numbers)
    for level, value in list(zip(LEVELS, number["quantiles"], strict=True))[1:-1]:
        below = sum(other <= value for other in ordered) / rows
        assert abs(below - level) < 4 * math.sqrt(level * (1 - level) / SAMPLE) + 1e-3
    assert key["shapes"] == [["9999999999999", SAMPLE]]
    # Every value is some row's own: none of them is kept.
    assert key["top"] == []


def test_few_values_of_many_rows_are_counted_exactly_whether_or_not_they_come_as_codes() -> None:
    rows = 3 * SAMPLE
    values = pl.Series(["ก", "ข", None])
    codes = pl.Series([0 if place % 10 else 1 if place % 20 else 2 for place in range(rows)], dtype=pl.UInt32)
    one, other = Gathering([field("c")]), Gathering([field("c")])
    for at in range(0, rows, SAMPLE):
        numbers = pl.int_range(at, at + SAMPLE, eager=True)
        part = codes[at : at + SAMPLE]
        one.add({"c": Text(values, part)}, numbers)
        other.add({"c": Text(values.gather(part))}, numbers)
    assert one.facts() == other.facts()
    found = one.facts()["c"]
    assert found["top"] == [["ก", rows * 9 // 10], ["ข", rows // 20]]
    assert (found["missing"], found["distinct"]) == (rows // 20, 2)
    assert "sample" not in found


def test_values_that_become_the_same_when_typed_are_one() -> None:
    gathering = Gathering([field("c", "number")])
    gathering.add(
        {"c": Text(pl.Series(["1.0", "1", "2"]), pl.Series([0, 1, 2, 1], dtype=pl.UInt32))}, pl.int_range(4, eager=True)
    )
    found = gathering.facts()["c"]
    assert (found["distinct"], found["top"], found["mean"]) == (2, [[1, 3], [2, 1]], 1.25)


def test_more_values_than_are_counted_leave_no_count_that_is_wrong() -> None:
    rows = 4 * COUNTED
    frames = [pl.DataFrame({"c": [f"v{(at + n) % (3 * COUNTED)}" for n in range(COUNTED)]}) for at in range(0, rows, COUNTED)]
    found = profile_rows([field("c")], frames)["c"]
    # All rows are in the sample.
    assert found["distinct"] == 3 * COUNTED
    assert "sample" not in found and "distinct_error" not in found
    shapes = Counter("a" + "9" * len(str(n % (3 * COUNTED))) for n in range(rows))
    assert dict(map(tuple, found["shapes"])) == shapes


def test_a_column_that_is_empty_or_a_delivery_that_is() -> None:
    found = facts_of([None, None], "number", dtype=pl.Int64)
    assert found == {"missing": 2, "distinct": 0, "top": []}
    assert facts_of([None, None], "text", dtype=pl.String) == {"missing": 2, "distinct": 0, "top": []}
    assert profile_rows([field("c")], []) == {None: {"rows": 0}, "c": {"missing": 0, "distinct": 0, "top": []}}


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("สมชาย", "ก"), ("นาย สมชาย", "ก ก"), ("1-1017-00203-45-1", "9-9999-99999-99-9"), ("๑๒/๓", "99/9"),
        ("AB-12 cd", "A-99 a"),
        ("Smith", "Aa"), ("李小龙", "?"), ("😀x", "?a"), ("ก\u200bข", "ก?ก"), ("a\tb", "a a"), ("ฯลฯ ๆ", "ก ก"), ("฿5", "?9"),
    ],
)  # fmt: skip
def test_shapes(text: str, shape: str) -> None:
    assert pl.DataFrame({"t": [text]}).select(shape_of(pl.col("t")))[0, 0] == shape


COLUMNS = [
    {"name": "pid", "parse": "citizen_number", "classification": "personal", "pdpaRole": "direct_identifier"},
    {"name": "name", "classification": "personal", "pdpaRole": "direct_identifier"},
    {"name": "born", "logicalType": "date", "partial": True, "classification": "personal", "pdpaRole": "quasi_identifier"},
    {"name": "income", "logicalType": "integer", "physicalType": "bigint", "classification": "confidential"},
    {"name": "area"},
    {"name": "since", "logicalType": "date"},
    {"name": "amount", "logicalType": "number", "physicalType": "numeric"},
    {"name": "open", "logicalType": "boolean"},
]


def personal(column: dict[str, Any]) -> dict[str, Any]:
    return column | ({"lawfulBasis": "public_task", "purpose": "x"} if "pdpaRole" in column else {})


def delivered(make_contract: Any, tmp_path: Any, rows: list[str]) -> tuple[Any, Profiler]:
    contract = make_contract("profiled", [personal(column) for column in COLUMNS])
    path = tmp_path / "d.csv"
    path.write_text("\n".join([",".join(column["name"] for column in COLUMNS), *rows]) + "\n", "utf-8")
    plan, profiler = Plan(contract, date(2026, 1, 1)), Profiler(contract)
    for batch in open_reader(contract, path).batches():
        profiler.saw(plan.apply(batch))
    return contract, profiler


def test_nothing_of_a_person_is_kept(make_contract: Any, tmp_path: Any) -> None:
    """Values of personal columns, typed or as they were written, are nowhere in the profile, in whole or in part."""
    rows = [
        "1101700203450,สมชาย ใจดี,25300412,987654,10,2020-01-05,1.50,true",
        "1101700203450,Somchai,25300000,987655,10,2020-01-05,1.5,false",
        ",,,,11,2021-03-01,,",
        "123,ผิด,25300412,1,10,2020-01-05,1,true",
    ]
    contract, profiler = delivered(make_contract, tmp_path, rows)
    facts = profiler._gathering.facts()
    assert facts[None] == {"rows": 3}
    secret = {name: one for name, one in facts.items() if name in ("pid", "name", "born", "income")}
    assert secret == {
        "pid": {"missing": 1, "distinct": 1, "shapes": [["9999999999999", 2]]},
        "name": {"missing": 1, "distinct": 2, "shapes": [["Aa", 1], ["ก ก", 1]]},
        "born": {"missing": 1, "partial": 1, "distinct": 1},
        "income": {"missing": 1, "distinct": 2},
    }
    told = json.dumps(secret, ensure_ascii=False)
    assert not any(part in told for part in ("1101", "สม", "Somchai", "1987", "2530", "98765"))
    assert all(field.personal for field in fields_of(contract)[:4])
    assert facts["area"]["top"] == [["10", 2], ["11", 1]]
    assert facts["since"]["quantiles"][0] == "2020-01-05"
    assert (facts["amount"]["mean"], facts["amount"]["distinct"]) == (1.5, 1)
    assert facts["open"] == {"missing": 1, "distinct": 2, "top": [[False, 1], [True, 1]]}


def test_the_same_delivery_has_the_same_profile(make_contract: Any, tmp_path: Any) -> None:
    rows = [f",{place * 7919 % 30_011},,,{place % 17},2020-01-05,{place},true" for place in range(30_000)]
    _, one = delivered(make_contract, tmp_path, rows)
    _, other = delivered(make_contract, tmp_path, rows)
    assert one._gathering.facts() == other._gathering.facts()
    assert one._gathering.facts()["name"]["distinct"] == pytest.approx(30_000, rel=0.06)


def test_a_profile_that_fails_fails_nothing_and_tells_no_value(make_contract: Any, tmp_path: Any) -> None:
    _, profiler = delivered(make_contract, tmp_path, [",,,,10,,,"])

    # A column that the contract has and the batch does not.
    profiler.saw(Enforced(pl.DataFrame({ROW: [1]}), pl.DataFrame()))
    assert profiler._problem == "KeyError"
