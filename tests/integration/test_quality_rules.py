"""Rules measured on real tables: each kind against figures worked out by hand, and the demo against its answer key."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.demo import AnswerKey
from dopa_pipelines.ingest import replay
from dopa_pipelines.quality import store
from dopa_pipelines.quality.checking import Found, check
from dopa_pipelines.quality.rules import rules_of
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = load_contracts(ROOT / "assets")
PERSONAL = {"classification": "personal", "pdpaRole": "direct_identifier", "lawfulBasis": "public_task", "purpose": "test"}
COLUMNS = [
    {"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1},
    {"name": "area"},
    {"name": "who"} | PERSONAL,
    {"name": "n", "logicalType": "integer"},
    {"name": "day", "logicalType": "date"},
]
HEAD = "k,area,who,n,day\n"
ROWS = HEAD + ("a,10,Somchai,1,2025-01-01\nb,10,Somchai,5,2025-01-02\nc,20,Malee,12,2025-01-02\nd,20,,12,2025-03-01\ne,,Anan,,\n")


def dopa(name: str, **facts: Any) -> dict[str, Any]:
    around = {key: facts.pop(key) for key in list(facts) if key in ("unit", "severity")}
    return {"type": "custom", "engine": "dopa", "name": name, "implementation": facts} | around


def by_name(found: list[Found]) -> dict[str, Any]:
    return {item.rule.name: item.result for item in found}


def counts(result: Any) -> tuple[bool, int | None, int | None]:
    return result.passed, result.rows_checked, result.rows_failed


def test_each_kind_counts_what_a_person_counts(table: Any) -> None:
    areas = table("q_areas", [{"name": "code", "required": True, "primaryKey": True, "primaryKeyPosition": 1}, {"name": "size"}])
    areas.deliver("code,size\n10,large\n")
    stated = {"dimension": "conformity", "customProperties": [{"property": "nationalDimension", "value": "consistency"}]}
    watched = [
        {"metric": "invalidValues", "arguments": {"validValues": ["10", "30"]}, "severity": "warn", "name": "listed"},
        {"metric": "invalidValues", "arguments": {"pattern": "^1"}, "severity": "warn", "name": "formed"},
        {"metric": "missingValues", "arguments": {"missingValues": ["20"]}, "severity": "warn", "name": "given"},
        {"metric": "nullValues", "mustBeLessOrEqualTo": 20, "unit": "percent", "name": "mostly"},
        {"metric": "duplicateValues", "mustBeLessThan": 3, "name": "own_area"},
    ]
    columns = [COLUMNS[0], COLUMNS[1] | {"quality": [stated | rule for rule in watched]}, *COLUMNS[2:]]
    rules = [
        dopa("small", rule="condition", expression="n < 10"),
        dopa("small_in_20", rule="condition", expression="n < 10", where="area = '20'"),
        dopa("in_range", rule="range", column="n", minimum=2, maximum=11),
        dopa("in_time", rule="range", column="day", maximum="2025-02-01", severity="warn"),
        dopa("known", rule="reference", column="area", to="q_areas.code"),
        dopa("large", rule="compare", dataset="q_areas", match={"area": "code"}, expression="other.size = 'small' or this.n < 5"),
        dopa("people", rule="agreement", dataset="q_areas",
             here={"value": "count(*)", "by": ["area"], "where": "area is not null"},
             there={"value": "2 * count(*)", "by": ["code"]}),
        dopa("off_by_half", rule="agreement", dataset="q_areas", here={"value": "count(*)"}, there={"value": "4"}, tolerance=20),
        dopa("old", rule="freshness", column="day", mustBeLessOrEqualTo=3, unit="d"),
        dopa("fresh", rule="freshness", mustBeLessOrEqualTo=3, unit="d"),
        {"metric": "duplicateValues", "name": "one_a_day", "arguments": {"properties": ["who", "day"]}},
        {"metric": "duplicateValues", "name": "one_each", "arguments": {"properties": ["who"]}},
        {"metric": "rowCount", "mustBeBetween": [2, 4]},
        {"type": "sql", "name": "largest", "query": "select max(n) from {table}", "mustBeLessThan": 12},
    ]  # fmt: skip
    made = table("q_kinds", columns, quality=rules)
    delivery = made.deliver(ROWS)
    found = by_name(check(made.warehouse, made.contract, [delivery]).found)
    expected = {
        "listed": (False, 5, 2), "formed": (False, 5, 2), "given": (False, 5, 3), "mostly": (True, 5, 1),
        "own_area": (True, 5, 2),
        "small": (False, 5, 2), "small_in_20": (False, 2, 2), "in_range": (False, 5, 3), "in_time": (False, 5, 1),
        "known": (False, 4, 2), "large": (False, 2, 1), "people": (False, 2, 1), "off_by_half": (True, 1, 0),
        "one_a_day": (True, 5, 0), "one_each": (False, 5, 1), "schema": (True, None, None),
    }  # fmt: skip
    assert {name: counts(found[name]) for name in expected} == expected
    assert found["row_count"].passed is False and found["row_count"].value == 5
    assert found["largest"].passed is False and found["largest"].value == 12
    assert found["old"].passed is False and found["old"].value > 365 and found["old"].detail["newest"] == "2025-03-01"
    assert found["fresh"].passed is True and found["fresh"].value < 1
    # Which rows, without a value of a person.
    assert [row["row"] for row in found["in_range"].detail["sample"]] == [2, 4, 5]
    assert {row["k"] for row in found["known"].detail["sample"]} == {"c", "d"}
    assert {"row", "delivery", "k"} == set(found["one_each"].detail["sample"][0])
    with made.warehouse.connect() as connection:
        told = str([item.detail for item in store.latest(connection, "q_kinds")])
    assert "Somchai" not in told and "Malee" not in told


def test_totals_of_groups(table: Any) -> None:
    columns = [
        {"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1}, {"name": "province"}, {"name": "office"},
        {"name": "men", "logicalType": "integer"}, {"name": "houses", "logicalType": "integer"},
    ]  # fmt: skip
    rule = dopa(
        "offices_sum",
        rule="total",
        by=["province"],
        columns=["men", "houses"],
        whole="office is null",
        parts="office is not null",
    )
    made = table("q_totals", columns, quality=[rule])
    good = "1,10,,30,3\n2,10,x,10,1\n3,10,y,20,2\n"
    wrong = "4,20,,30,3\n5,20,x,10,1\n6,20,y,20,1\n"
    alone = "7,30,,5,5\n"
    delivery = made.deliver("k,province,office,men,houses\n" + good + wrong + alone)
    assert counts(by_name(check(made.warehouse, made.contract, [delivery]).found)["offices_sum"]) == (False, 2, 1)


def test_history_decides_volume_change_and_distribution(table: Any) -> None:
    columns = [*COLUMNS[:1], {"name": "sex", "quality": [], "logicalType": "string"}]
    rules = [
        dopa("volume", rule="volume", mustBeBetween=[0.5, 2], atLeast=2),
        dopa("change", rule="change", mustBeBetween=[-20, 20], unit="percent"),
        dopa("shares", rule="distribution", column="sex", values=["m", "f"]),
    ]
    made = table("q_history", columns, quality=rules, load={"mode": "replace", "maxShrinkPercent": 100})

    def deliver(men: int, women: int, name: str) -> dict[str, Any]:
        lines = [f"{name}m{n},m" for n in range(men)] + [f"{name}f{n},f" for n in range(women)]
        delivery = made.deliver("k,sex\n" + "\n".join(lines) + "\n", name=f"{name}.csv")
        return by_name(check(made.warehouse, made.contract, [delivery]).found)

    first = deliver(50, 50, "one")
    assert all(first[name].passed and first[name].detail["too_little_history"] for name in ("volume", "change", "shares"))
    second = deliver(55, 55, "two")
    assert second["change"].passed and second["change"].value == 10
    assert second["shares"].value == 0
    third = deliver(58, 52, "three")
    assert third["volume"].passed and third["volume"].value == pytest.approx(110 / 105, abs=1e-4)
    fourth = deliver(190, 50, "four")
    assert not fourth["volume"].passed and fourth["volume"].value == pytest.approx(240 / 110, abs=1e-4)
    assert not fourth["change"].passed and fourth["change"].detail["rows_before"] == 110
    assert not fourth["shares"].passed and fourth["shares"].value > 0.2


def test_a_rule_that_cannot_be_run_fails_alone_and_names_its_line(table: Any) -> None:
    rules = [
        dopa("good", rule="condition", expression="n > 0"),
        dopa("broken", rule="condition", expression="n / 0 = 1"),
        {"type": "sql", "name": "nowhere", "query": "select count(*) from raw.is_not_there", "mustBe": 0},
    ]
    made = table("q_broken", COLUMNS, quality=rules)
    found = by_name(check(made.warehouse, made.contract, [made.deliver(ROWS)]).found)
    assert counts(found["good"]) == (True, 5, 0)
    for name in ("broken", "nowhere"):
        line = next(rule.line for rule in made.contract.table_rules if rule.name == name)
        assert not found[name].passed
        assert f"q_broken.odcs.yaml:{line}" in found[name].detail["problem"]


def test_what_is_not_loaded_is_not_measured(table: Any) -> None:
    made = table("q_alone", COLUMNS, quality=[dopa("known", rule="reference", column="area", to="q_never.code")])
    (item,) = [item for item in check(made.warehouse, made.contract, [made.deliver(ROWS)]).found if item.rule.name == "known"]
    assert item.result is None and item.note == "not checked: raw.q_never holds nothing yet"


def test_unknown_columns_are_a_drift_of_the_schema(table: Any) -> None:
    made = table("q_drift", COLUMNS)
    found = by_name(
        check(made.warehouse, made.contract, [made.deliver("k,area,who,n,day,Somchai\na,1,b,1,2025-01-01,x\n")]).found
    )
    assert (found["schema"].passed, found["schema"].value) == (False, 1)
    assert "Somchai" not in str(found["schema"].detail)


def test_results_are_kept_once_for_a_delivery_and_its_write(table: Any) -> None:
    made = table("q_once", COLUMNS)
    delivery = made.deliver(ROWS)
    first = check(made.warehouse, made.contract, [delivery])
    again = check(made.warehouse, made.contract, [delivery])
    assert first.kept and not again.kept
    with made.warehouse.connect() as connection:
        kept = store.latest(connection, "q_once")
    assert {item.delivery_id for item in kept} == {delivery.delivery} and {item.write_id for item in kept} == {delivery.write}
    assert {item.rule for item in kept} == {rule.name for rule in rules_of(made.contract)} | {
        "reconciliation",
        "delivery_accepted",
    }
    # Another look, without a delivery: what is measured is kept anew, what was enforced is not.
    looked = check(made.warehouse, made.contract)
    assert len(looked.kept) == 2


def test_a_refused_delivery_fails_and_the_next_one_passes(table: Any) -> None:
    made = table("q_refused", COLUMNS)
    refused = made.deliver(HEAD, name="empty.csv")
    assert refused.status == "rejected"
    check(made.warehouse, made.contract, [refused])
    check(made.warehouse, made.contract, [made.deliver(ROWS)])
    with made.warehouse.connect() as connection:
        passed = [item.passed for item in store.history(connection, "q_refused", "delivery_accepted")]
    assert passed == [False, True]


def test_rejected_rows_fail_until_they_are_mended(table: Any, warehouse: Warehouse) -> None:
    codes = table("q_codes", [{"name": "code", "required": True, "primaryKey": True, "primaryKeyPosition": 1}])
    codes.deliver("code\n10\n")
    columns = [COLUMNS[0], {"name": "area", "relationships": [{"type": "foreignKey", "to": "q_codes.code"}]}, *COLUMNS[2:]]
    made = table("q_mended", columns, load={"mode": "append"})

    def state(*deliveries: Any) -> tuple[bool, int | None, int | None]:
        return counts(by_name(check(warehouse, made.contract, deliveries).found)["area_reference"])

    assert state(made.deliver(ROWS)) == (False, 5, 2)
    assert state(made.deliver(HEAD + "f,20,x,1,2025-01-01\ng,10,x,1,2025-01-01\n", name="more.csv")) == (False, 7, 3)
    codes.deliver("code\n10\n20\n", name="codes.csv")
    assert state(replay(warehouse, made.contract, why="codes came")) == (True, 7, 0)
    with warehouse.connect() as connection:
        assert [item.rows_failed for item in store.history(connection, "q_mended", "area_reference")] == [2, 3, 0]


@pytest.mark.parametrize("dataset", sorted(CONTRACTS.by_dataset))
def test_the_planted_errors_of_the_demo_are_the_results(demo: Any, dataset: str) -> None:
    """Rows that fail, by reason, are those of the answer key; whatever was not planted passes."""
    key = AnswerKey.read(demo.settings.demo_path)
    planted = Counter(key.reasons(dataset))
    contract = CONTRACTS.by_dataset[dataset]
    rules = {rule.name: rule for rule in rules_of(contract)}
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.TRANSFORMER) as connection:
        found = {item.rule: item for item in store.latest(connection, dataset)}
    groups = {rule.codes for rule in rules.values() if rule.codes}
    for codes in groups:
        failed = sum(found[name].rows_failed or 0 for name, rule in rules.items() if rule.codes == codes)
        if len({rule.kind for rule in rules.values() if rule.codes == codes}) == 1 and not _shares(codes, groups):
            assert failed == sum(planted[code] for code in codes), codes
    enforced = [found[name] for name, rule in rules.items() if rule.codes]
    assert sum(item.rows_failed or 0 for item in enforced) == sum(planted.values())
    assert {item.rows_checked for item in enforced} == {key.totals[dataset].rows}
    for name, rule in rules.items():
        if rule.measured:
            assert found[name].passed, name


def _shares(codes: tuple[str, ...], groups: set[tuple[str, ...]]) -> bool:
    """Whether another rule takes one of the codes, too: out of range is the format's of a column without limits."""
    return any(other != codes and set(other) & set(codes) for other in groups)


def test_models_keep_what_their_tests_found(demo: Any) -> None:
    from dopa_pipelines.transform import Project

    with open_warehouse(demo.settings) as warehouse, Project(demo.settings, warehouse) as project:
        expected = {(model.target, test.name, test.dimension) for model in project.models for test in model.tests}
        with warehouse.connect() as connection:
            rows = connection.execute(
                "select dataset, rule, dimension, passed, rows_failed from quality.result where dataset like '%.%'"
            ).fetchall()
    assert {row[:3] for row in rows} == expected
    assert all(passed and failed == 0 for *_, passed, failed in rows)


def test_a_refused_month_stays_refused_until_that_month_comes(table: Any) -> None:
    made = table("q_months", COLUMNS, layout={"period": r"(?P<year>\d{4})-(?P<month>\d{2})"}, load={"mode": "append"})

    def accepted(*deliveries: Any) -> tuple[bool, int | None, int | None]:
        check(made.warehouse, made.contract, deliveries)
        with made.warehouse.connect() as connection:
            return counts(store.history(connection, "q_months", "delivery_accepted")[-1])

    assert accepted(made.deliver(ROWS, "one_2025-01.csv")) == (True, 5, 0)
    bad = HEAD + "a,10,Somchai,x,2025-02-01\n" * 4
    refused = made.deliver(bad, "one_2025-02.csv")
    assert refused.status == "rejected" and refused.rows_read == 4
    assert accepted(refused) == (False, 4, 4)
    assert accepted(made.deliver(HEAD + "x,10,Anan,1,2025-03-01\n", "one_2025-03.csv")) == (False, 5, 4)
    assert accepted(made.deliver(HEAD + "y,10,Anan,1,2025-02-01\n", "corrected_2025-02.csv")) == (True, 1, 0)
