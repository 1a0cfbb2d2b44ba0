"""Profiles of the demo's deliveries against its answer key and its tables; kept with the load or not at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.contracts import Contract, Contracts, load_contracts
from dopa_pipelines.demo import generate
from dopa_pipelines.ingest import Delivery, ingest
from dopa_pipelines.quality.profiles import Profile, Profiler, latest
from dopa_pipelines.quality.unusual import look
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse

ROOT = Path(__file__).resolve().parents[2]
FILES = ("area_code", "person_register", "house_register", "birth_event", "village_headman", "complaint", "id_card_issue")


class Department:
    """A warehouse of its own into which the files of the demo's silos were brought, profiled."""

    def __init__(self, settings: Settings, warehouse: Warehouse, contracts: Contracts) -> None:
        self.settings, self.warehouse, self.contracts = settings, warehouse, contracts
        self.key = generate(settings, 2_000, 2568)
        self.deliveries: dict[str, list[Delivery]] = {}
        for contract in contracts.in_reference_order():
            if contract.dataset in FILES:
                folder = settings.drop_path / Path(contract.layout.path).parent
                self.deliveries[contract.dataset] = [
                    ingest(warehouse, contract, path, observe=Profiler) for path in sorted(folder.iterdir())
                ]

    def contract(self, dataset: str) -> Contract:
        return self.contracts.by_dataset[dataset]

    def profiles(self, dataset: str) -> list[tuple[Delivery, Profile]]:
        with self.warehouse.connect() as connection:
            found = [(item, latest(connection, dataset, item.delivery)) for item in self.deliveries[dataset]]
        assert all(profile is not None for _, profile in found)
        return [(item, profile) for item, profile in found if profile is not None]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with self.warehouse.connect() as connection:
            return connection.execute(statement.encode()).fetchall()


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory, _no_settings_from_outside: None) -> Iterator[Department]:
    settings = Settings(state=tmp_path_factory.mktemp("profiles") / "state")
    with open_warehouse(settings) as warehouse:
        yield Department(settings, warehouse, load_contracts(ROOT / "assets"))


@pytest.mark.parametrize("dataset", FILES)
def test_rows_are_those_of_the_answer_key(department: Department, dataset: str) -> None:
    totals, reasons = department.key.totals[dataset], department.key.reasons(dataset)
    whole = Counter[str]()
    for item, profile in department.profiles(dataset):
        facts = profile.facts[None]
        assert (item.status, profile.write) == ("loaded", item.write)
        assert facts["rows"] == profile.rows == facts["loaded"] + facts.get("late", 0)
        assert facts["bytes"] > 0
        whole.update({name: facts.get(name, 0) for name in ("read", "loaded", "quarantined", "late")})
    assert whole["read"] == totals.rows
    assert whole["quarantined"] == totals.defects
    # Repeated keys and unknown references are found out after the rows were seen.
    assert whole["late"] == reasons.get("duplicate_key", 0) + reasons.get("unknown_reference", 0)


@pytest.mark.parametrize("dataset", FILES)
def test_columns_are_those_of_the_table(department: Department, dataset: str) -> None:
    """Counted again by PostgreSQL over the loaded rows, which are fewer by those that were late."""
    contract = department.contract(dataset)
    for item, profile in department.profiles(dataset):
        late = profile.facts[None].get("late", 0)
        assert [name for name in profile.facts if name] == [column.name for column in contract.columns]
        for column in contract.columns:
            known = f"{column.name}_year" if column.partial else column.name
            ((empty, distinct),) = department.query(
                f"select count(*) filter (where {known} is null), count(distinct {column.name}) from {contract.table}"
                f" where _delivery_id = {item.delivery}"
            )
            facts = profile.facts[column.name]
            assert empty <= facts["missing"] <= empty + late
            assert distinct <= facts["distinct"] <= distinct + late and "distinct_error" not in facts


def test_values_are_those_of_the_table_where_they_are_not_personal(department: Department) -> None:
    contract = department.contract("area_code")
    ((_, profile),) = department.profiles("area_code")
    late = profile.facts[None].get("late", 0)
    counted = 0
    for column in contract.columns:
        facts = profile.facts[column.name]
        counts = dict(
            department.query(f"select {column.name}, count(*) from raw.area_code where {column.name} is not null group by 1")
        )
        if len(counts) <= 64:
            told = dict(facts["top"])
            plain = {value.isoformat() if hasattr(value, "isoformat") else value: count for value, count in counts.items()}
            assert told.keys() >= plain.keys()
            assert 0 <= sum(told.values()) - sum(plain.values()) <= late
            counted += 1
    assert counted


def test_no_value_of_a_personal_column_is_in_any_profile(department: Department) -> None:
    allowed = {"missing", "partial", "distinct", "distinct_error", "sample", "shapes"}
    seen = 0
    for dataset in FILES:
        contract = department.contract(dataset)
        for _, profile in department.profiles(dataset):
            for column in contract.columns:
                if column.is_personal:
                    assert profile.facts[column.name].keys() <= allowed
                    seen += 1
    assert seen > 20
    kept = json.dumps([row[0] for row in department.query("select facts from quality.profile")], ensure_ascii=False)
    names = department.query("select distinct first_name, last_name, pid from raw.person_register")
    assert names
    for first, last, pid in names:
        assert pid not in kept and last not in kept and f'"{first}"' not in kept


def test_the_same_delivery_again_adds_nothing(department: Department) -> None:
    (before,) = department.query("select count(*), max(id) from quality.profile")
    contract = department.contract("complaint")
    path = next(iter(sorted((department.settings.drop_path / Path(contract.layout.path).parent).iterdir())))
    assert ingest(department.warehouse, contract, path, observe=Profiler).status == "unchanged"
    assert department.query("select count(*), max(id) from quality.profile") == [before]
    assert not department.query(
        "select 1 from quality.profile where delivery_id is not null group by delivery_id, column_name having count(*) > 1"
    )
    assert not department.query("select 1 from ops.delivery where notes ? 'not_profiled'")


def test_what_watches_for_the_unusual_reads_them(department: Department) -> None:
    contract = department.contract("complaint")
    *_, (item, _) = department.profiles("complaint")
    assert item.delivery is not None
    with department.warehouse.connect() as connection:
        (result,) = look(connection, contract, item.delivery)
    assert result.passed
    assert result.detail["enough"] is False


COLUMNS = [
    {"name": "month", "logicalType": "date", "required": True, "primaryKey": True, "primaryKeyPosition": 1},
    {"name": "n", "logicalType": "integer", "required": True, "primaryKey": True, "primaryKeyPosition": 2},
    {"name": "kind"},
    {
        "name": "family_name", "classification": "personal", "pdpaRole": "direct_identifier", "lawfulBasis": "public_task",
        "purpose": "x",
    },
    {"name": "amount", "logicalType": "integer"},
]  # fmt: skip


def month_of(place: int, kinds: str = "AAB", rows: int = 600, times: int = 1, surname: str = "ใจดี") -> tuple[str, str]:
    year, month = 2023 + place // 12, place % 12 + 1
    lines = [
        f"{year}-{month:02}-01,{n},{kinds[n % len(kinds)]},{surname if n % 7 else ''},{(n * 37 + place * 11) % 500 * times}"
        for n in range(rows)
    ]
    return "\n".join(["month,n,kind,family_name,amount", *lines]) + "\n", f"m{year + 543}{month:02}.csv"


def test_two_years_of_deliveries_are_watched_by_their_profiles(table: Any) -> None:
    """From files to findings: what a profile keeps is what is watched."""
    made = table("watched", COLUMNS, load={"mode": "replace_scope", "scope": [{"column": "month"}]},
                 layout={"period": r"m(?P<year>\d{4})(?P<month>\d\d)"})  # fmt: skip

    def unusual(place: int, **changes: Any) -> set[str]:
        text, name = month_of(place, **changes)
        item = made.deliver(text, name, observe=Profiler)
        assert item.status == "loaded", item.problem
        with made.warehouse.connect() as connection:
            return {result.rule for result in look(connection, made.contract, item.delivery) if not result.passed}

    for place in range(12):
        assert unusual(place) == set()
    assert unusual(12) == set()
    assert "unusual_rows" in unusual(13, rows=150)
    assert unusual(14, kinds="AAC") >= {"unusual_categories_kind"}
    assert unusual(15, times=10) == {"unusual_numbers_amount"}
    assert unusual(16, surname="") == {"unusual_missing_family_name"}
    assert unusual(17) == set()


def test_a_refused_delivery_has_no_profile(table: Any) -> None:
    made = table("refused_unprofiled", COLUMNS)
    assert made.deliver("month,n,kind,family_name,amount\nx,1,A,,1\n", observe=Profiler).status == "rejected"
    assert made.query("select count(*) from quality.profile where dataset = '{d}'") == [(0,)]


def test_a_profile_that_fails_is_noted_and_the_delivery_loaded(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = table("broken_profile", COLUMNS)

    def fail(*_: Any) -> None:
        raise ValueError("ใจดี")

    monkeypatch.setattr("dopa_pipelines.quality.profiles.Gathering.add", fail)
    text, name = month_of(0)
    assert made.deliver(text, name, observe=Profiler).status == "loaded"
    assert made.query("select notes ->> 'not_profiled' from ops.delivery where dataset = '{d}'") == [("ValueError",)]
    assert made.query("select count(*) from quality.profile where dataset = '{d}'") == [(0,)]


def test_built_tables_are_profiled_and_values_of_persons_are_not_kept(demo: Any) -> None:
    told = demo.dopa("profile", "open_data.births_by_province", "--json")
    assert told.returncode == 0, told.stderr
    profile = json.loads(told.stdout)
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.READER) as connection:
        rows, least, most, provinces, mean = connection.execute(
            "select count(*), min(births), max(births), count(distinct province_code), avg(births)::float8"
            " from open_data.births_by_province"
        ).fetchone()
        tables = {
            name
            for (name,) in connection.execute(
                "select table_schema || '.' || table_name from information_schema.tables"
                " where table_schema in ('marts', 'open_data') and table_type = 'BASE TABLE'"
            )
        }
        profiled = {
            name for (name,) in connection.execute("select distinct dataset from quality.profile where delivery_id is null")
        }
        kept = connection.execute("select facts::text from quality.profile where delivery_id is null").fetchall()
    with open_warehouse(demo.settings) as warehouse, warehouse.connect() as connection:
        persons = [name for (name,) in connection.execute("select distinct pid from raw.person_register")]
    births = profile["columns"]["births"]
    assert (profile["rows"], births["min"], births["max"]) == (rows, least, most)
    assert births["mean"] == pytest.approx(mean)
    assert profile["columns"]["province_code"]["distinct"] == provinces
    assert tables <= profiled
    assert not any(person in facts for (facts,) in kept for person in persons)
    nothing = demo.dopa("profile", "births_by_provinces")
    assert nothing.returncode == 2 and "there is no profile of births_by_provinces" in nothing.stderr
