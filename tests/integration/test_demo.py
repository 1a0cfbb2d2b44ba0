"""The demo from end to end, against its answer key and an independent look at its extracts."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.contracts.read import GD_CATALOG_KEYS
from dopa_pipelines.demo import AnswerKey, generate, hotel_rows, linkage_rows, serve_linkage_api, write_departmental
from dopa_pipelines.ingest import arrivals, ingest
from dopa_pipelines.publishing import load_publications
from dopa_pipelines.settings import Settings
from dopa_pipelines.sources import fetch, is_fetched
from dopa_pipelines.warehouse import Role, open_warehouse

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = load_contracts(ROOT / "assets")
PUBLICATIONS = load_publications(ROOT / "assets" / "open_data").publications

Found = set[tuple[str, int, tuple[str, ...]]]


def planted(key: AnswerKey, dataset: str) -> Found:
    return {(item.file, item.row, (item.reason,)) for item in key.defects if item.dataset == dataset}


def quarantined(connection: psycopg.Connection[Any], dataset: str) -> Found:
    rows = connection.execute(f"select file, row, reasons from quarantine.{dataset}".encode())
    return {(file, row, tuple(reason["code"] for reason in reasons)) for file, row, reasons in rows}


def test_it_says_what_it_did(demo: Any) -> None:
    for contract in CONTRACTS:
        assert contract.dataset in demo.output
    for publication in PUBLICATIONS:
        assert publication.name in demo.output
    assert "What next" in demo.output
    assert "✗" not in demo.output


def test_run_again_it_finds_nothing_new(own_demo: Any) -> None:
    again = own_demo.dopa("demo", "--persons", "2000")
    assert again.returncode == 0
    assert "nothing new" in again.stderr


def test_another_size_on_the_same_state_is_refused(demo: Any) -> None:
    other = demo.dopa("demo", "--persons", "3000")
    assert other.returncode == 2
    assert "make clean" in other.stderr


@pytest.mark.parametrize("dataset", sorted(CONTRACTS.by_dataset))
def test_the_answer_key_holds_exactly(demo: Any, dataset: str) -> None:
    key = AnswerKey.read(demo.settings.demo_path)
    with open_warehouse(demo.settings) as warehouse, warehouse.connect() as connection:
        assert quarantined(connection, dataset) == planted(key, dataset)
        ((read, loaded),) = connection.execute(
            "select sum(rows_read), sum(rows_loaded) from ops.delivery where dataset = %s", (dataset,)
        ).fetchall()
    totals = key.totals[dataset]
    assert (read, loaded) == (totals.rows, totals.rows - totals.defects)


@pytest.mark.parametrize(("seed", "persons"), [(1, 2_000), (7, 4_000), (99, 6_000)])
def test_for_other_seeds_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, persons: int) -> None:
    settings = Settings(state=tmp_path / "state")
    key = generate(settings, persons, seed)
    with open_warehouse(settings) as warehouse, serve_linkage_api(linkage_rows(settings), token="t") as url:
        with psycopg.connect(warehouse.departmental_database()) as silo:
            write_departmental(silo, hotel_rows(settings))
        monkeypatch.setenv("DOPA_SOURCE_HOTEL_URL", warehouse.departmental_database())
        monkeypatch.setenv("DOPA_SOURCE_LINKAGE_URL", url)
        monkeypatch.setenv("DOPA_SOURCE_LINKAGE_TOKEN", "t")
        for contract in CONTRACTS.in_reference_order():
            if is_fetched(contract):
                paths = [fetch(contract, settings.spool_path)]
            else:
                with warehouse.connect() as connection:
                    paths = [item.path for item in arrivals(connection, contract, settings.drop_path)]
            for path in paths:
                delivery = ingest(warehouse, contract, path)
                assert delivery.status == "loaded", delivery.problem
            with warehouse.connect() as connection:
                assert quarantined(connection, contract.dataset) == planted(key, contract.dataset), contract.dataset


@pytest.mark.parametrize("publication", PUBLICATIONS, ids=lambda publication: publication.name)
def test_an_extract_is_what_its_model_holds(demo: Any, publication: Any) -> None:
    folder = demo.settings.releases_path / publication.name / "latest"
    names = ", ".join(f"{column.source}::text as {column.name}" for column in publication.columns)
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.READER) as connection:
        expected = connection.execute(f"select {names} from {publication.source}".encode()).fetchall()
    assert expected, "an extract without rows proves nothing"
    header = [column.name for column in publication.columns]
    with (folder / f"{publication.name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == header
    rule = publication.disclosure
    counts = {measure.column for measure in rule.measures} if rule else set()
    rates = {rate.column for rate in rule.rates} if rule else set()
    hidden = [at for at, name in enumerate(header) if name in counts | rates]
    order = [header.index(name) for name in publication.order_by]
    whole = {tuple(row[at] for at in order): row for row in expected}
    assert len(whole) == len(rows) - 1
    for row in rows[1:]:
        # Only counts, and rates of them, may be hidden.
        shown = [value or None for value in row]
        was = whole[tuple(row[at] for at in order)]
        assert shown == [None if at in hidden and shown[at] is None else value for at, value in enumerate(was)]
    if rule:
        few = {str(count) for count in range(1, rule.threshold)}
        assert not {row[at] for row in rows[1:] for at in hidden if header[at] in counts} & few
    records = json.loads((folder / f"{publication.name}.json").read_text("utf-8"))
    frame = pl.read_parquet(folder / f"{publication.name}.parquet")
    assert [list(record) for record in records[:1]] == [header]
    assert frame.columns == header
    assert len(records) == frame.height == len(rows) - 1 == len(expected)
    # JSON knows no exact decimals.
    plain = frame.with_columns(pl.selectors.decimal().cast(pl.Float64)).to_dicts()
    assert plain == [
        record | {column: value for column, value in row.items() if frame.schema[column] == pl.Date}
        for record, row in zip(records, plain, strict=True)
    ]


@pytest.mark.parametrize("publication", PUBLICATIONS, ids=lambda publication: publication.name)
def test_a_release_is_whole_and_described(demo: Any, publication: Any) -> None:
    folder = demo.settings.releases_path / publication.name / "latest"
    for line in (folder / "checksums.sha256").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    metadata = json.loads((folder / "metadata.json").read_text("utf-8"))
    assert [key for key in GD_CATALOG_KEYS if not metadata.get(key)] == []
    with (folder / "data_dictionary.csv").open(encoding="utf-8", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [column.name for column in publication.columns]


def test_official_statistics_add_up(demo: Any) -> None:
    """A province is the sum of its offices, and of its districts."""
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.TRANSFORMER) as connection:
        ((provinces, offices, districts),) = connection.execute(
            """
            select
                (select sum(total) from raw.population_area where office_code is null),
                (select sum(total) from raw.population_area where office_code is not null and tambon_code is null),
                (select sum(total) from open_data.population_by_district)
            """
        ).fetchall()
    assert provinces == offices == districts > 0


@pytest.mark.parametrize(
    ("dataset", "measure", "models"),
    [
        ("birth_event", "births", ["births_by_province", "births_by_district"]),
        ("death_event", "deaths", ["deaths_by_province", "deaths_by_district", "deaths_by_cause", "deaths_by_age_sex"]),
        ("id_card_issue", "cards", ["id_cards_by_office", "id_cards_by_province"]),
        ("complaint", "cases", ["complaints_received", "complaints_by_channel"]),
    ],
)
def test_what_is_counted_in_several_ways_is_all_counted_in_each(demo: Any, dataset: str, measure: str, models: list[str]) -> None:
    """The good rows of the answer key, whatever they are told apart by."""
    totals = AnswerKey.read(demo.settings.demo_path).totals[dataset]
    good = totals.rows - totals.defects
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.READER) as connection:
        for model in models:
            found = connection.execute(f"select sum({measure}) from open_data.{model}".encode()).fetchone()
            assert found == (good,), model


def test_the_population_is_the_same_at_every_level(demo: Any) -> None:
    levels = ("province", "district", "tambon")
    query = " union all ".join(
        f"select '{level}', month, sum(male), sum(female), sum(total), sum(houses)"
        f" from open_data.population_by_{level} group by month"
        for level in levels
    )
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.READER) as connection:
        rows = connection.execute(query.encode()).fetchall()
    # Three months, and nobody counted is lost on the way down.
    assert len(rows) == 9
    by_level = [sorted(row[1:] for row in rows if row[0] == level) for level in levels]
    assert by_level[0] == by_level[1] == by_level[2]
