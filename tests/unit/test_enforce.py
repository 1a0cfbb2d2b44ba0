"""Each reason code on the smallest contract that can give it, and what passes."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.ingest.enforce import UNREGISTERED, Enforced, Plan
from dopa_pipelines.sources import open_reader

AS_OF = date(2026, 1, 31)


def enforce(make_contract: Any, tmp_path: Path, columns: list[dict[str, Any]], text: str, **contract: Any) -> Enforced:
    """One block of headerless, pipe-separated ``text`` through reader and plan."""
    period = contract.pop("period", None)
    made = make_contract("d", columns, server={"delimiter": "|"}, layout={"header": False}, **contract)
    path = tmp_path / "d.txt"
    path.write_text(text, "utf-8")
    (batch,) = open_reader(made, path).batches()
    return Plan(made, AS_OF, period).apply(batch)


def reasons(found: Enforced) -> dict[int, list[tuple[str, str | None]]]:
    return {
        row["_row"]: [(reason["code"], reason["column"]) for reason in json.loads(row["reasons"])]
        for row in found.rejected.to_dicts()
    }


DATE = {"name": "a", "logicalType": "date", "logicalTypeOptions": {"minimum": "1900-01-01", "maximum": "delivery"}}


@pytest.mark.parametrize(
    ("column", "bad", "code", "good"),
    [
        ({"name": "a", "required": True}, " ", "missing", "x"),
        ({"name": "a", "required": True, "nullValues": ["-"]}, "-", "missing", "--"),
        ({"name": "a"}, "เธชเธกเธเธฒเธข", "mojibake", "สมชาย"),
        ({"name": "a", "logicalTypeOptions": {"maxLength": 3}}, "กขคง", "too_long", "กขค"),
        ({"name": "a", "logicalTypeOptions": {"pattern": "^[0-9]{4}$"}, "parse": "code"}, "12A4", "bad_pattern", "๑๒๓๔"),
        (
            {
                "name": "a",
                "quality": [
                    {
                        "metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": ["ชาย", "หญิง"]},
                        "dimension": "conformity",
                        "customProperties": [{"property": "nationalDimension", "value": "consistency"}],
                    }
                ],
            },
            "ช",
            "not_in_list",
            "ชาย",
        ),
        ({"name": "a", "parse": "citizen_number"}, "1234567890123", "bad_check_digit", "1-2345-67890-12-1"),
        ({"name": "a", "parse": "citizen_number"}, "123456789012", "bad_length", "๑๒๓๔๕๖๗๘๙๐๑๒๑"),
        ({"name": "a", "parse": "house_code"}, "1234567890", "bad_length", "12345678901"),
        ({"name": "a", "logicalType": "integer"}, "12.5", "bad_number", "1,234"),
        ({"name": "a", "logicalType": "integer"}, "1O2", "bad_number", "๑๐๒"),
        ({"name": "a", "logicalType": "integer", "physicalType": "smallint"}, "40000", "out_of_range", "-40"),
        ({"name": "a", "logicalType": "integer", "logicalTypeOptions": {"minimum": 0}}, "-1", "out_of_range", "0"),
        ({"name": "a", "logicalType": "number"}, "1e309", "out_of_range", "1e3"),
        ({"name": "a", "logicalType": "number", "physicalType": "numeric"}, "1.2.3", "bad_number", "0.10"),
        (DATE, "เมื่อวาน", "bad_date", "1 ม.ค. 2568"),
        (DATE, "00/04/2568", "bad_date", "01/04/2568"),
        (DATE, "31/02/2568", "impossible_date", "28/02/2568"),
        (DATE, "01/02/2569", "future_date", "31/01/2569"),
        (DATE, "31/12/2442", "out_of_range", "01/04/2443"),
        ({"name": "a", "logicalType": "timestamp"}, "2025-01-01", "bad_date", "2025-01-01 10:00:00"),
        ({"name": "a", "logicalType": "boolean"}, "maybe", "not_in_list", "ใช่"),
    ],
)  # fmt: skip
def test_one_reason(make_contract: Any, tmp_path: Path, column: dict[str, Any], bad: str, code: str, good: str) -> None:
    columns = [column, {"name": "k", "required": True}]
    found = enforce(make_contract, tmp_path, columns, f"{good}|1\n{bad}|2\n")
    assert reasons(found) == {2: [(code, "a")]}
    assert found.accepted["k"].to_list() == ["1"]
    assert found.accepted["a"].null_count() == 0
    assert found.rejected["_original"].to_list() == [f"{bad}|2"]


def test_a_row_has_a_reason_for_each_bad_column(make_contract: Any, tmp_path: Path) -> None:
    columns = [{"name": "a", "required": True}, {"name": "b", "logicalType": "integer"}, {"name": "c"}]
    found = enforce(make_contract, tmp_path, columns, "|x|ok\n")
    assert reasons(found) == {1: [("missing", "a"), ("bad_number", "b")]}


def test_a_row_that_cannot_be_taken_apart_has_that_reason_alone(make_contract: Any, tmp_path: Path) -> None:
    columns = [{"name": "a", "required": True}, {"name": "b", "logicalType": "integer", "required": True}]
    assert reasons(enforce(make_contract, tmp_path, columns, "x\n")) == {1: [("ragged_line", None)]}


def test_what_may_be_absent_is_not_checked(make_contract: Any, tmp_path: Path) -> None:
    columns = [{"name": "a", "parse": "citizen_number"}, {"name": "b", "logicalType": "date", "nullValues": ["0"]}, {"name": "c"}]
    found = enforce(make_contract, tmp_path, columns, "|0|x\n")
    assert found.accepted.select("a", "b", "c").rows() == [(None, None, "x")]


def test_a_number_that_begins_with_zero_is_noted_and_loaded(make_contract: Any, tmp_path: Path) -> None:
    found = enforce(make_contract, tmp_path, [{"name": "a", "parse": "citizen_number"}], "0000000000001\n")
    assert found.accepted.height == 1
    assert found.notes == {UNREGISTERED: 1}


def test_dates_known_in_part(make_contract: Any, tmp_path: Path) -> None:
    column = {**DATE, "parse": "be_date_ymd", "partial": True}
    found = enforce(
        make_contract, tmp_path, [column, {"name": "k"}], "25680401|1\n25680400|2\n25680000|3\n25690500|4\n25681301|5\n"
    )
    assert found.accepted.select("a", "a_year", "a_month").rows() == [
        (date(2025, 4, 1), 2025, 4),
        (None, 2025, 4),
        (None, 2025, None),
    ]
    assert reasons(found) == {4: [("future_date", "a")], 5: [("impossible_date", "a")]}


RULE = {"type": "custom", "engine": "polars", "name": "end_after_start", "implementation": "b >= a"}


def test_a_row_rule_rejects_what_is_false_and_passes_what_is_unknown(make_contract: Any, tmp_path: Path) -> None:
    columns = [{"name": "a", "logicalType": "date"}, {"name": "b", "logicalType": "date"}]
    text = "2025-01-01|2025-01-02\n2025-01-02|2025-01-01\n2025-01-02|\n"
    found = enforce(make_contract, tmp_path, columns, text, quality=[RULE])
    assert reasons(found) == {2: [("row_rule:end_after_start", None)]}
    assert found.accepted.height == 2


def test_a_row_of_another_month_is_out_of_scope(make_contract: Any, tmp_path: Path) -> None:
    columns = [{"name": "a", "logicalType": "date"}, {"name": "k"}]
    load = {"mode": "replace_scope", "scope": [{"column": "a", "granularity": "month"}]}
    text = "2025-12-31|1\n2025-11-30|2\n"
    found = enforce(make_contract, tmp_path, columns, text, load=load, period=date(2025, 12, 1))
    assert reasons(found) == {2: [("out_of_scope", "a")]}
    assert enforce(make_contract, tmp_path, columns, text, load=load).accepted.height == 2


def test_exact_decimals_keep_their_digits(make_contract: Any, tmp_path: Path) -> None:
    column = {"name": "a", "logicalType": "number", "physicalType": "numeric"}
    found = enforce(make_contract, tmp_path, [column, {"name": "k"}], "12345678901234567.89|1\n")
    assert found.accepted["a"].to_list() == ["12345678901234567.89"]
