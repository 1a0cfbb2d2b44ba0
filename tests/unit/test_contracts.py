"""Contracts: the eleven load; every kind of mistake is refused with its line; what is generated from them is up to date."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft201909Validator

from dopa_pipelines.contracts import dbt_sources, load_contracts, read_contract
from dopa_pipelines.contracts.read import GD_CATALOG_KEYS
from dopa_pipelines.documents import DocumentError

ROOT = Path(__file__).resolve().parents[2]
PERSONS = ROOT / "assets" / "registration" / "person_register.odcs.yaml"
ELEVEN = {
    "population_area", "person_register", "house_register", "birth_event", "death_event", "id_card_issue",
    "village_headman", "hotel_licence", "complaint", "linkage_usage", "area_code",
}  # fmt: skip

CONTRACTS = load_contracts(ROOT / "assets")


def test_the_eleven_load_without_a_problem() -> None:
    assert CONTRACTS.problems == []
    assert set(CONTRACTS.by_dataset) >= ELEVEN


@pytest.mark.parametrize("contract", list(CONTRACTS), ids=lambda contract: contract.dataset)
def test_each_says_what_a_steward_needs(contract) -> None:  # type: ignore[no-untyped-def]
    assert contract.title_th
    assert contract.description
    assert contract.description_th
    assert contract.key, "a key"
    assert contract.service_level.retention_years
    assert {member.role for member in contract.team} >= {"data_owner", "technical_steward", "quality_steward"}
    assert set(contract.gd_catalog) >= set(GD_CATALOG_KEYS)
    for column in contract.columns:
        assert column.business_name, column.name
        assert column.description, column.name
        if column.pdpa_role != "none":
            assert column.lawful_basis, f"{column.name} is personal and names no lawful basis"
            assert column.purpose, f"{column.name} is personal and names no purpose"


@pytest.mark.parametrize("contract", list(CONTRACTS), ids=lambda contract: contract.dataset)
def test_each_is_valid_by_the_standards_own_schema(contract) -> None:  # type: ignore[no-untyped-def]
    schema = json.loads((files("open_data_contract_standard") / "schema.json").read_text("utf-8"))
    document = json.loads(json.dumps(yaml.safe_load(contract.path.read_text("utf-8")), default=str))
    assert [error.message for error in Draft201909Validator(schema).iter_errors(document)] == []


def test_dbt_sources_are_those_of_the_contracts() -> None:
    assert [str(problem) for problem in dbt_sources.drift(CONTRACTS, ROOT / "dbt_project")] == []


def test_drift_is_found_with_its_line(tmp_path: Path) -> None:
    dbt_sources.write(CONTRACTS, tmp_path)
    assert list(dbt_sources.drift(CONTRACTS, tmp_path)) == []
    path = tmp_path / dbt_sources.FOLDER / "registration.yml"
    lines = path.read_text("utf-8").splitlines()
    lines[9] = "# edited"
    path.write_text("\n".join(lines), "utf-8")
    (problem,) = dbt_sources.drift(CONTRACTS, tmp_path)
    assert (problem.file, problem.line) == (path, 10)


def test_references_come_before_those_that_refer() -> None:
    order = [contract.dataset for contract in CONTRACTS.in_reference_order()]
    assert order.index("area_code") < order.index("person_register")


Edit = Callable[[str], str]


@pytest.mark.parametrize(
    ("edit", "line_of", "words"),
    [
        (lambda text: text.replace("domain:", "domian:"), "domian:", "did you mean 'domain'"),
        (lambda text: text.replace("property: parse", "property: prase", 1), "property: prase", "did you mean 'parse'"),
        (lambda text: text.replace("logicalType: string", "logicalType: txt", 1), "logicalType: txt", "logicalType 'txt'"),
        (lambda text: text.replace("physicalType: text", "physicalType: blob", 1), "physicalType: blob", "use text"),
        (lambda text: text.replace("classification: personal", "classification: prvt", 1), "classification: prvt", "'prvt'"),
        (lambda text: text.replace("area_code.code", "area_code.kode", 1), "area_code.kode", "area_code.kode"),
        (lambda text: text.replace("mode: replace", "mode: replce", 1), "mode: replce", "did you mean 'replace'"),
        (lambda text: text.replace("format: fixed_width", "format: fixed", 1), "format: fixed", "did you mean 'fixed_width'"),
        (lambda text: text.replace("version: 1.0.0", "version: 1.0.0\nversion: 2.0.0"), "version: 2.0.0", "stands twice"),
        (lambda text: text.replace("apiVersion: v3.1.0", "apiVersion: v2"), "apiVersion: v2", "must be 'v3.1.0'"),
        (lambda text: text.replace("encoding: cp874", "encoding: utf-7"), "encoding: utf-7", "did you mean 'utf-8'"),
        (lambda text: text.replace("kind: DataContract", "kind: [Data"), "kind: [Data", "not valid YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_where_it_stands(tmp_path: Path, edit: Edit, line_of: str, words: str) -> None:
    text = edit(PERSONS.read_text("utf-8"))
    assert line_of in text, "the test's own edit"
    path = tmp_path / PERSONS.name
    path.write_text(text, "utf-8")
    (tmp_path / "area_code.odcs.yaml").write_text((PERSONS.parent / "area_code.odcs.yaml").read_text("utf-8"), "utf-8")
    problems = [problem for problem in load_contracts(tmp_path).problems if problem.file == path]
    assert problems
    expected = next(number for number, line in enumerate(text.splitlines(), 1) if line_of in line)
    near = [problem for problem in problems if abs(problem.line - expected) <= 1 or words == "not valid YAML"]
    assert any(words in problem.message for problem in near), [str(problem) for problem in problems]


def test_one_wrong_contract_does_not_hold_back_the_others(tmp_path: Path) -> None:
    (tmp_path / "area_code.odcs.yaml").write_text((PERSONS.parent / "area_code.odcs.yaml").read_text("utf-8"), "utf-8")
    (tmp_path / "broken.odcs.yaml").write_text("kind: nonsense\n", "utf-8")
    found = load_contracts(tmp_path)
    assert list(found.by_dataset) == ["area_code"]
    assert {problem.file.name for problem in found.problems} == {"broken.odcs.yaml"}


@pytest.mark.parametrize("content", ["", "- a list", "just text", "\x00", "a: b: c"])
def test_what_is_no_contract_at_all_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.odcs.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(DocumentError):
        read_contract(path)


def test_a_physical_type_carries_no_sql(tmp_path: Path) -> None:
    path = tmp_path / PERSONS.name
    path.write_text(
        PERSONS.read_text("utf-8").replace("physicalType: text", 'physicalType: "text); drop table x; --"', 1), "utf-8"
    )
    with pytest.raises(DocumentError, match="does not fit"):
        read_contract(path)


def test_the_checksum_follows_rules_and_not_prose(tmp_path: Path) -> None:
    def checksum(text: str) -> str:
        path = tmp_path / PERSONS.name
        path.write_text(text, "utf-8")
        return read_contract(path).checksum

    text = PERSONS.read_text("utf-8")
    assert checksum(text.replace("businessName: ", "businessName: ก", 3)) == checksum(text)
    assert checksum(text.replace("duplicates: first", "duplicates: last")) != checksum(text)


@pytest.mark.parametrize(
    ("name", "month"),
    [
        ("x_2568-12.csv", "2025-12-01"),
        ("x_2025-12.csv", "2025-12-01"),
        ("x_2568-13.csv", None),
        ("x_1200-01.csv", None),
        ("x.csv", None),
    ],
)
def test_a_files_name_states_its_month_or_none(make_contract, name: str, month: str | None) -> None:  # type: ignore[no-untyped-def]
    contract = make_contract("d", [{"name": "a"}], layout={"period": r"_(?P<year>\d{4})-(?P<month>\d{2})"})
    found = contract.period_of(name)
    assert (found.isoformat() if found else None) == month
