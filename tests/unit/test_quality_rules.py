"""Rules of contracts: what is read, what is refused and where, what a number must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.contracts import Contract, Contracts, load_contracts
from dopa_pipelines.contracts.model import Limit
from dopa_pipelines.documents import DocumentError
from dopa_pipelines.quality.facts import of_contract
from dopa_pipelines.quality.measure import explain, stability_index
from dopa_pipelines.quality.places import _CODES
from dopa_pipelines.quality.rules import measured_rules, problems, rules_of
from dopa_pipelines.quality.standard import current

ROOT = Path(__file__).resolve().parents[2]
ELEVEN = load_contracts(ROOT / "assets")
COLUMNS = [
    {"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1},
    {"name": "n", "logicalType": "integer"},
    {"name": "d", "logicalType": "date"},
]
STATED = {"dimension": "completeness", "customProperties": [{"property": "nationalDimension", "value": "accuracy_completeness"}]}


def dopa(name: str = "some", **facts: Any) -> dict[str, Any]:
    around = {key: facts.pop(key) for key in list(facts) if key in ("unit", "severity")}
    return {"type": "custom", "engine": "dopa", "name": name, "implementation": facts} | around


def refusal(make_contract: Any, rule: dict[str, Any], columns: list[dict[str, Any]] | None = None) -> str:
    with pytest.raises(DocumentError) as refused:
        make_contract("ruled", columns or COLUMNS, quality=[rule])
    lines = (refused.value.problems[0].file).read_text("utf-8").splitlines()
    # The line that is told is within the rules.
    assert refused.value.problems[0].line > next(n for n, line in enumerate(lines, 1) if line.strip() == "quality:")
    return str(refused.value)


@pytest.mark.parametrize(
    ("limit", "good", "bad"),
    [
        (Limit(equal=0), 0, 1),
        (Limit(not_equal=3), 0, 3),
        (Limit(above=2), 3, 2),
        (Limit(at_least=2), 2, 1.9),
        (Limit(below=2), 1.9, 2),
        (Limit(at_most=2), 2, 2.1),
        (Limit(between=(-5, 5)), -5, 5.1),
        (Limit(outside=(0, 1)), 1.1, 1),
        (Limit(at_least=1, below=3), 2, 3),
    ],
)
def test_a_limit_holds(limit: Limit, good: float, bad: float) -> None:
    assert limit.holds(good)
    assert not limit.holds(bad)


def test_severities_and_limits_decide_what_is_enforced(make_contract: Any) -> None:
    def column(**rule: Any) -> Contract:
        made: Contract = make_contract(
            "ruled", [*COLUMNS[:2], COLUMNS[2] | {"quality": [STATED | {"metric": "nullValues"} | rule]}]
        )
        return made

    for enforced in ({}, {"mustBe": 0}, {"severity": "error"}, {"severity": "reject", "mustBe": 0}):
        contract = column(**enforced)
        assert contract.column("d").required and not contract.table_rules
    warned = column(severity="warn")
    assert not warned.column("d").required
    assert [(rule.name, rule.severity, rule.limit) for rule in warned.table_rules] == [("d_null_values", "warn", Limit(equal=0))]
    shared = column(mustBeLessThan=5, unit="percent", name="mostly", severity="block").table_rules[0]
    assert (shared.name, shared.severity, shared.limit) == ("mostly", "block", Limit(below=5, unit="percent"))
    assert (shared.dimension, shared.indicator) == ("accuracy_completeness", "1.3")


def test_a_table_rule_of_before_still_reads(make_contract: Any) -> None:
    rule = {"type": "sql", "name": "none", "query": "select count(*) from {table}", "mustBe": 0, "severity": "warning"}
    (found,) = make_contract("ruled", COLUMNS, quality=[rule]).table_rules
    assert (found.kind, found.severity, found.limit.equal) == ("sql", "warn", 0)


def test_lines_are_those_of_the_rule(make_contract: Any) -> None:
    contract = make_contract("ruled", COLUMNS, quality=[dopa("one", rule="condition", expression="n > 0")])
    line = contract.path.read_text("utf-8").splitlines()[contract.table_rules[0].line - 1]
    assert line.strip().startswith("- ")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (dopa(rule="freshnes"), "did you mean 'freshness'?"),
        (dopa(rule="freshness"), "mustBeLessOrEqualTo: 2"),
        (dopa(rule="freshness", mustBeLessThan="two"), "mustBeLessThan 'two' must be a number"),
        (dopa(rule="freshness", mustBeLessThan=2, unit="fortnights"), "unit 'fortnights' is not known"),
        (dopa(rule="condition"), "needs expression"),
        (dopa(rule="condition", expression="n > 0", colum="n"), "did you mean 'column'?"),
        (dopa(rule="condition", expression="n > 0", severity="reject"), "can reject no row"),
        (dopa(rule="condition", expression="n > 0", severity="fatal"), "severity 'fatal' is not known"),
        (dopa(rule="range", column="n"), "needs minimum, maximum or both"),
        (dopa(rule="range", column="m", minimum=1), "unknown column 'm'"),
        (dopa(rule="reference", column="k", to="area_code"), "must be dataset.column"),
        (dopa(rule="total", by=["k"], columns=["m"], whole="n = 0", parts="n > 0"), "unknown column 'm'"),
        (dopa(rule="distribution", column="k"), "has no list of values"),
        (dopa(rule="distribution", column="n", bins=[3, 1]), "rising order"),
        (dopa(rule="agreement", dataset="x", here={"value": "count(*)", "by": ["k"]}, there={"value": "count(*)"}), "as many"),
        (dopa(rule="agreement", dataset="x", here={"value": "1"}, there={"value": "1"}, tolerance=200), "from 0 to 100"),
        (dopa("required", rule="condition", expression="n > 0"), "choose another"),
        (dopa("k_format", rule="condition", expression="n > 0"), "choose another"),
        (dopa("Bad Name", rule="condition", expression="n > 0"), "must be lower case"),
        (dopa(rule="condition", expression="n > 0") | {"mustBe": 0}, "belongs into its implementation"),
        ({"type": "custom", "engine": "soda", "name": "x", "implementation": "x"}, "engine 'soda' is not known"),
        ({"type": "sql", "name": "x", "query": "select 1"}, "what its number must be"),
        ({"metric": "rowCount"}, "mustBeGreaterThan: 0"),
        ({"metric": "duplicateValues", "arguments": {"properties": ["m"]}}, "unknown column 'm'"),
        ({"metric": "rowCount", "mustBeBetween": [9, 1]}, "smaller number first"),
        ({"type": "custom", "engine": "polars", "name": "x", "implementation": "n > 0", "severity": "warn"}, "engine: dopa"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_refused(make_contract: Any, rule: dict[str, Any], said: str) -> None:
    assert said in refusal(make_contract, rule)


def test_two_rules_of_one_name_are_refused(make_contract: Any) -> None:
    rule = dopa("twice", rule="condition", expression="n > 0")
    with pytest.raises(DocumentError, match="two rules are called 'twice'"):
        make_contract("ruled", COLUMNS, quality=[rule, rule])


def test_an_indicator_is_one_of_its_dimension(make_contract: Any) -> None:
    def column(indicator: str) -> Contract:
        own = [*STATED["customProperties"], {"property": "indicator", "value": indicator}]
        rule = {"metric": "nullValues", "dimension": "completeness", "customProperties": own}
        made: Contract = make_contract("ruled", [*COLUMNS[:2], COLUMNS[2] | {"quality": [rule]}])
        return made

    (rule,) = [rule for rule in rules_of(column("1.5")) if rule.name == "d_required"]
    assert rule.indicator == "1.5"
    with pytest.raises(DocumentError, match=r"known: 1\.1, 1\.2, 1\.3, 1\.4, 1\.5"):
        column("2.3")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (dopa(rule="condition", expression="n >"), "is not SQL"),
        (dopa(rule="condition", expression="m > 0"), "unknown column 'm'"),
        (dopa(rule="condition", expression="n > 0, n < 0"), "must be one expression"),
        (dopa(rule="condition", expression="n > 0 from x"), "must be one expression"),
        (dopa(rule="condition", expression="n > 0", where="m = 1"), "where: names unknown column 'm'"),
        (dopa(rule="compare", dataset="other_set", match={"k": "code"}, expression="n = 1"), "must be named with this or other"),
        (dopa(rule="compare", dataset="other_set", match={"k": "code"}, expression="this.n = other.x"), "unknown column 'x'"),
        ({"type": "sql", "name": "q", "query": "delete from {table}", "mustBe": 0}, "must be one select"),
        ({"type": "sql", "name": "q", "query": "select count(* from {table}", "mustBe": 0}, "is not SQL"),
        ({"type": "custom", "engine": "polars", "name": "q", "implementation": "m > 0"}, "unknown column 'm'"),
        ({"type": "custom", "engine": "polars", "name": "q", "implementation": "n >"}, "is not an expression"),
    ],
)
def test_expressions_are_looked_at_with_their_line(make_contract: Any, rule: dict[str, Any], said: str) -> None:
    other = make_contract("other_set", [{"name": "code", "required": True, "primaryKey": True, "primaryKeyPosition": 1}])
    contract = make_contract("ruled", COLUMNS, quality=[rule])
    (problem,) = problems([contract, other])
    assert said in problem.message
    assert problem.file == contract.path and problem.line > 1


def test_what_a_rule_compares_with_must_be_there(make_contract: Any, tmp_path: Path) -> None:
    make_contract("other_set", [{"name": "code", "required": True, "primaryKey": True, "primaryKeyPosition": 1}])
    wrong = [
        dopa("one", rule="reference", column="k", to="nowhere.code"),
        dopa("two", rule="reference", column="k", to="other_set.cod"),
    ]
    make_contract("ruled", COLUMNS, quality=wrong)
    found: Contracts = load_contracts(tmp_path)
    said = "\n".join(map(str, found.problems))
    assert "'nowhere', which has no contract" in said and "did you mean 'code'?" in said
    assert all(problem.line > 1 for problem in found.problems)


def test_the_eleven_have_rules_in_every_dimension_that_is_measured() -> None:
    assert list(problems(ELEVEN)) == []
    for contract in ELEVEN:
        rules = rules_of(contract)
        names = [rule.name for rule in rules]
        assert len(set(names)) == len(names)
        assert {rule.dimension for rule in rules} >= {"accuracy_completeness", "consistency", "timeliness"}
        assert {rule.dimension for rule in rules if rule.measured} >= {"accuracy_completeness", "consistency", "timeliness"}
        # Each indicator that the standard works out of rules; what refers to nothing cannot conflict with it (2.4).
        of_rules = {item.code for item in current().indicators if any(way.way == "share" for way in item.ways)}
        assert of_rules == {"1.3", "2.2", "2.3", "2.4", "2.5"}
        stands_alone = not contract.references and not any(item.datasets for item in contract.table_rules)
        assert {rule.indicator for rule in rules} >= of_rules - ({"2.4"} if stands_alone else set()), contract.dataset
        assert {rule.indicator for rule in rules} >= {"1.2", "2.1", "4.1"}, contract.dataset
        for rule in rules:
            if rule.measured:
                assert rule.description and rule.description_th, f"{contract.dataset}.{rule.name}"
    kinds = {rule.kind for contract in ELEVEN for rule in rules_of(contract)}
    assert kinds >= {
        "required", "unique", "pattern", "range", "values", "reference", "compare", "total", "freshness", "volume",
        "distribution", "rows", "schema", "agreement", "row",
    }  # fmt: skip


def test_a_code_list_counts_whether_rows_are_rejected_by_it_or_counted(make_contract: Any) -> None:
    listed = {"metric": "invalidValues", "name": "listed", "mustBe": 0, "arguments": {"validValues": ["a", "b"]}}

    def has_lists(rules: list[dict[str, Any]]) -> Any:
        columns = [COLUMNS[0] | {"quality": [rule | STATED for rule in rules]}, *COLUMNS[1:]]
        return of_contract(make_contract("ruled", columns), current())["code_lists"]

    assert not has_lists([])
    assert has_lists([listed]) and has_lists([listed | {"severity": "warn"}])


def test_rows_behind_a_rule_are_found_by_its_own_reasons() -> None:
    """What a rule rejects is known of its kind alone, so that results of older contracts can be explained."""
    for rule in (rule for contract in ELEVEN for rule in rules_of(contract) if rule.codes and rule.kind != "row"):
        known = set(_CODES[rule.kind, rule.column is not None])
        assert set(rule.codes) - known in (set(), {"out_of_range", "future_date"}), rule.name
        assert known <= set(rule.codes), rule.name


def test_rules_of_one_table_are_one_scan(make_contract: Any) -> None:
    many = [dopa(f"c{number}", rule="condition", expression=f"n > {number}") for number in range(30)]
    repeated = [{"metric": "duplicateValues", "name": f"u_{name}", "arguments": {"properties": [name]}} for name in ("n", "d")]
    contract = make_contract("ruled", COLUMNS, quality=[*many, *repeated])
    assert len(explain(contract, measured_rules(contract))) == 2


def test_the_stability_index_is_that_of_its_formula() -> None:
    assert stability_index({"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5}) == 0
    # By hand: (0.6 − 0.5)·ln(0.6/0.5) + (0.4 − 0.5)·ln(0.4/0.5) = 0.1·0.182322 + 0.1·0.223144
    assert stability_index({"a": 0.5, "b": 0.5}, {"a": 0.6, "b": 0.4}) == pytest.approx(0.0405465, abs=1e-6)
    assert stability_index({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}) > 5
