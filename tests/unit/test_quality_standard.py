"""The national standard as code: levels and means against values worked out by hand; self-assessments refused with their line."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.contracts import load_contracts, read_contract
from dopa_pipelines.documents import DocumentError
from dopa_pipelines.quality.assessment import load_assessments, path_of, read_assessment
from dopa_pipelines.quality.facts import Arrival, timeliness
from dopa_pipelines.quality.standard import Found, Grade, current, grade, mean, parse

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = load_contracts(ROOT / "assets")
STANDARD = current()
SIGNED = "signedBy: q@dopa.example"
HEAD = f"dataset: judged\nassessedOn: 2026-10-01\n{SIGNED}\nanswers:\n"


def graded(code: str, results: list[Found] | None = None, answer: int | None = None, **facts: Any) -> Grade:
    indicator = STANDARD.indicator(code)
    assert indicator is not None
    return grade(indicator, results or [], facts, answer)


def test_the_standard_has_its_five_dimensions_and_22_indicators() -> None:
    assert [len(dimension.indicators) for dimension in STANDARD.dimensions] == [5, 6, 2, 4, 5]
    assert [item.code for item in STANDARD.dimensions[3].indicators] == ["4.1", "4.2", "4.3", "4.4"]
    for indicator in STANDARD.indicators:
        assert sorted(indicator.meaning) == [1, 2, 3, 4], indicator.code
        assert indicator.ways, indicator.code


@pytest.mark.parametrize(
    ("code", "fact", "levels"),
    [
        ("4.1", "delivery_delay_days", {0: 4, 1: 3, 7: 3, 8: 2, 14: 2, 15: 1}),
        ("4.2", "age_years", {0.5: 4, 1: 4, 1.01: 3, 5: 3, 6: 2, 15: 2, 15.1: 1}),
        ("4.3", "days_after_due", {0: 4, 1: 3, 7: 3, 8: 2, 31: 2, 32: 1}),
        ("5.4", "share_of_metadata_filled", {1.0: 4, 0.99: 3, 0.5: 3, 0.49: 2, 0.0: 1}),
    ],
)
def test_thresholds_are_those_of_the_standard(code: str, fact: str, levels: dict[float, int]) -> None:
    assert {number: graded(code, **{fact: number}).level for number in levels} == levels


def test_a_share_is_the_mean_over_rules_of_rows_that_keep_them() -> None:
    found = graded("1.3", [Found(False, 1000, 100), Found(True, 1000, 0), Found(True)])
    assert found.score == pytest.approx(100 * (0.9 + 1 + 1) / 3, abs=0.001)
    assert found.level == 3
    assert graded("1.3", [Found(False, 10, 10), Found(False)]) == Grade(1, 0.0, "share")


def test_what_nobody_checks_is_low_and_what_does_not_apply_is_left_out() -> None:
    assert graded("2.3") == Grade(1, 0.0, "otherwise")
    assert graded("2.4", linked=False).level is None
    assert graded("2.4", linked=True).level == 1
    assert graded("4.1", delivery_delay_days=None).level is None


def test_an_answer_counts_before_facts_and_steps_hold_one_after_the_other() -> None:
    assert graded("1.1", answer=2, source_named=True, owner_named=True).level == 2
    assert graded("1.1", source_named=True, owner_named=True).level == 3
    assert graded("1.1", source_named=False, owner_named=True).level == 1
    assert graded("3.1").level == 1


def test_a_mean_is_weighted_and_leaves_out_what_does_not_apply() -> None:
    parts = [(Grade(4, 100.0), 3.0), (Grade(2, 33.333), 1.0), (Grade(None, None), 9.0)]
    assert mean(parts) == Grade(3.5, 83.333)
    assert mean([(Grade(None, None), 1.0)]).level is None


def test_another_document_is_another_formula() -> None:
    other = parse(STANDARD.document.replace("edition: '1'", "edition: '2'"))
    assert other.formula != STANDARD.formula
    assert parse(STANDARD.document).formula == STANDARD.formula


def test_delay_is_from_the_last_day_of_the_period_to_its_first_arrival() -> None:
    contract = CONTRACTS.by_dataset["birth_event"]  # a month's file, due 7 days after the month
    of = date(2025, 10, 31)
    came = [Arrival(1, "a", of, date(2025, 11, 4)), Arrival(2, "correction", of, date(2025, 12, 30))]
    found = timeliness(contract, came, None, date(2025, 11, 20)).values
    assert found["delivery_delay_days"] == 4
    assert found["days_after_due"] == 0
    assert found["age_years"] == pytest.approx(20 / 365.25, abs=0.001)
    # The next month's is due 38 days (31 + 7) after 31 October: 8 December.
    assert timeliness(contract, came, None, date(2025, 12, 18)).values["days_after_due"] == 10
    assert timeliness(contract, [], None, date(2025, 12, 18)).values["age_years"] is None


def test_each_dataset_of_the_department_is_assessed_by_its_own_steward() -> None:
    found = load_assessments(CONTRACTS, ROOT / "assets")
    assert found.problems == []
    assert set(found.answers) == set(CONTRACTS.by_dataset)
    for contract in CONTRACTS:
        answers = found.answers[contract.dataset]
        assert {"1.1", "1.4", "3.1", "3.2", "5.5"} <= set(answers), contract.dataset
        assert contract.path.parent == path_of(contract).parent


def assessed(make_contract: Any, text: str) -> Any:
    made = make_contract("judged", [{"name": "a", "primaryKey": True, "primaryKeyPosition": 1}])
    document = made.path.read_text("utf-8").replace("technical_steward", "quality_steward").replace("steward@", "q@")
    made.path.write_text(document, "utf-8")
    contract = read_contract(made.path)
    path_of(contract).write_text(text, "utf-8")
    return contract


WRONG = {
    "unknown indicator": (HEAD +
                          "  - {indicator: '3.7', level: 2, evidence: x}", 5, "'3.7' is not known"),
    "computed": (HEAD + "  - {indicator: '3.1', level: 2, evidence: x}\n"
                 "  - {indicator: '2.3', level: 4, evidence: x}", 6, "is computed"),
    "twice": (HEAD + "  - {indicator: '3.1', level: 2, evidence: x}\n"
              "  - {indicator: '3.1', level: 4, evidence: x}", 6, "answered twice"),
    "level": (HEAD +
              "  - {indicator: '3.1', level: 5, evidence: x}", 5, "less than or equal to 4"),
    "unsigned": ("dataset: judged\nassessedOn: 2026-10-01\nanswers:\n"
                 "  - {indicator: '3.1', level: 2, evidence: x}", 1, "required"),
    "another's": ("dataset: judged\nassessedOn: 2026-10-01\nsignedBy: me@dopa.example\nanswers:\n"
                  "  - {indicator: '3.1', level: 2, evidence: x}", 3, "is not the quality_steward"),
    "undated": (f"dataset: judged\n{SIGNED}\nanswers:\n  - {{indicator: '3.1', level: 2, evidence: x}}", 1, "required"),
    "typing error": (f"dataset: judged\nassessedOn: 2026-10-01\n{SIGNED}\nanswrs: []", 4, "did you mean 'answers'"),
    "another dataset": (f"dataset: other\nassessedOn: 2026-10-01\n{SIGNED}\nanswers:\n"
                        "  - {indicator: '3.1', level: 2, evidence: x}", 1, "is not 'judged'"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_assessment_is_refused_with_its_line(make_contract: Any, text: str, line: int, says: str) -> None:
    contract = assessed(make_contract, text)
    with pytest.raises(DocumentError) as refused:
        read_assessment(contract)
    assert [problem.line for problem in refused.value.problems] == [line], refused.value.problems
    assert says in refused.value.problems[0].message
    found = load_assessments([contract])
    assert found.answers == {}
    assert found.problems == refused.value.problems


def test_an_assessment_beside_no_contract_is_told(tmp_path: Path) -> None:
    (tmp_path / "lost.assessment.yaml").write_text("dataset: lost\n", "utf-8")
    (problem,) = load_assessments([], tmp_path).problems
    assert "lost.odcs.yaml" in problem.message


def test_an_answer_counts_for_a_year_from_its_day(make_contract: Any) -> None:
    text = f"dataset: judged\nassessedOn: 2026-10-01\n{SIGNED}\nanswers:\n  - {{indicator: '3.1', level: 2, evidence: x}}\n"
    answer = read_assessment(assessed(make_contract, text))["3.1"]
    counted = {day: answer.counts_on(day, STANDARD) for day in (date(2026, 9, 30), date(2026, 10, 1), date(2027, 10, 1),
                                                                date(2027, 10, 2))}  # fmt: skip
    assert list(counted.values()) == [False, True, True, False]
