"""Only approved data goes out: what failed its blocking checks, was not checked, or is below its quality line is held back, said
in both languages, recorded, and let out again when it is repaired."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from dopa_pipelines.publishing import publish
from dopa_pipelines.publishing.held import HeldBack, held_back
from dopa_pipelines.publishing.readiness import check_reasons, readiness
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse
from dopa_pipelines.warehouse.work import Work
from tests.integration.conftest import MADE_BY
from tests.integration.releasing import publication, records

PASSED = {"assertion": "unique", "success": True, "severity": "error"}
FAILED = {"assertion": "custom_sql", "name": "people_add_up", "success": False, "severity": "error"}
WARNED = {**FAILED, "severity": "warn"}
ELSEWHERE = {**FAILED, "elsewhere": True}

Wrote = Callable[..., int]


_numbers = itertools.count()


def made(places: psycopg.Connection[Any], table: str) -> None:
    """Record that this transaction made what it wrote."""
    places.execute("select lineage.record_write('model', %s, 'run', p_code => %s)", (table, Jsonb({"compiled": MADE_BY})))


@pytest.fixture
def source(places: psycopg.Connection[Any]) -> Iterator[str]:
    """A table of this test alone: what was recorded of it stays in the shared warehouse."""
    table = f"open_data.held_{next(_numbers)}"
    with places.transaction():
        places.execute(f"create table {table} as table open_data.places_to_test".encode())
        made(places, table)
    yield table
    places.execute(f"drop table {table}".encode())


@pytest.fixture
def wrote(places: psycopg.Connection[Any]) -> Wrote:
    """Records a write of a table, as a model made from others."""

    def record(target: str, *made_of: str, kind: str = "model", **detail: object) -> int:
        row = places.execute(
            "select lineage.record_write(%s, %s, 'run', p_inputs => %s, p_code => %s, p_detail => %s)",
            (kind, target, Jsonb([{"name": name} for name in made_of]), Jsonb({"compiled": MADE_BY}), Jsonb(detail)),
        ).fetchone()
        assert row is not None
        time.sleep(0.002)
        return int(row[0])

    return record


def checked(warehouse: Warehouse, target: str, *assertions: dict[str, Any], **facts: object) -> None:
    with Work(warehouse, "check", target, run_id="run", detail=facts) as work:
        work.complete({"assertions": list(assertions)})


def rules(warehouse: Warehouse, source: str) -> list[str]:
    with warehouse.connect(Role.READER) as connection:
        return [reason.rule for reason in check_reasons(connection, source)]


def stands(warehouse: Warehouse) -> dict[str, list[str]]:
    with warehouse.connect(Role.READER) as connection:
        return {item.publication: [reason["rule"] for reason in item.reasons] for item in held_back(connection)}


def test_a_failed_blocking_check_holds_back_until_it_passes(
    warehouse: Warehouse, here: Settings, wrote: Wrote, source: str
) -> None:
    wrote("raw.hb_one")
    checked(warehouse, "raw.hb_one", PASSED)
    wrote(source, "raw.hb_one")
    checked(warehouse, source, PASSED, FAILED)
    with pytest.raises(HeldBack) as caught:
        publish(warehouse, here, publication("approved", source=source), "run-1")
    assert caught.value.exit_code == 4
    assert "people_add_up" in str(caught.value) and source in str(caught.value)
    (reason,) = caught.value.reasons
    assert (reason.rule, "people_add_up" in reason.reason_th) == ("blocking_check", True)
    assert stands(warehouse)["approved"] == ["blocking_check"]
    assert records(warehouse, "approved") == []
    assert [path.name for path in (here.releases_path / "approved").iterdir()] == [".lock"]

    checked(warehouse, source, PASSED)
    assert publish(warehouse, here, publication("approved", source=source), "run-2").status == "released"
    assert "approved" not in stands(warehouse)


def test_held_back_again_for_the_same_reason_is_one_entry_and_the_old_release_stays(
    warehouse: Warehouse, here: Settings, wrote: Wrote, source: str, places: psycopg.Connection[Any]
) -> None:
    old = publish(warehouse, here, publication("stays", source=source), "run-1")
    wrote(source)
    checked(warehouse, source, FAILED)
    with places.transaction():
        places.execute(f"update {source} set people = 0".encode())
        made(places, source)
    checked(warehouse, source, FAILED)
    for run in ("run-2", "run-3"):
        with pytest.raises(HeldBack):
            publish(warehouse, here, publication("stays", source=source), run)
    assert (here.releases_path / "stays" / "latest").resolve() == old.path.resolve()
    with warehouse.connect(Role.READER) as connection:
        rows = connection.execute("select run_id, last_at > at from ops.held_back where publication = 'stays'").fetchall()
    assert rows == [("run-3", True)]
    checked(warehouse, source, PASSED)


@pytest.mark.parametrize(
    ("assertions", "found"),
    [
        ([PASSED], []),
        ([WARNED], []),
        ([ELSEWHERE], []),
        ([FAILED, {**FAILED, "name": "other"}], ["blocking_check"] * 2),
    ],
)
def test_only_blocking_checks_of_the_table_itself_hold_back(
    warehouse: Warehouse, wrote: Wrote, source: str, assertions: list[dict[str, Any]], found: list[str]
) -> None:
    wrote(source)
    checked(warehouse, source, *assertions)
    assert rules(warehouse, source) == found


def test_a_table_that_was_written_and_not_checked_since_holds_back(warehouse: Warehouse, wrote: Wrote, source: str) -> None:
    wrote(source)
    assert rules(warehouse, source) == []  # it has no checks at all
    checked(warehouse, source, PASSED)
    assert rules(warehouse, source) == []
    wrote(source)
    assert rules(warehouse, source) == ["checks_missing"]


def test_what_it_is_made_of_counts_also_through_views(warehouse: Warehouse, wrote: Wrote, source: str) -> None:
    wrote("raw.hb_deep", kind="load")
    wrote("staging.hb_view", "raw.hb_deep", materialized="view")
    wrote("marts.hb_table", "staging.hb_view", materialized="table")
    wrote("open_data.hb_deep", "marts.hb_table")
    checked(warehouse, "raw.hb_deep", FAILED)
    assert rules(warehouse, "open_data.hb_deep") == ["blocking_check"]


def test_a_newer_delivery_that_failed_does_not_hold_back_what_was_made_before(
    warehouse: Warehouse, wrote: Wrote, source: str
) -> None:
    wrote("raw.hb_new", kind="load")
    checked(warehouse, "raw.hb_new", PASSED)
    wrote("open_data.hb_new", "raw.hb_new")
    wrote("raw.hb_new", kind="load")
    checked(warehouse, "raw.hb_new", FAILED)
    assert rules(warehouse, "open_data.hb_new") == []
    # Made again, it is made of what failed.
    wrote("open_data.hb_new", "raw.hb_new")
    assert rules(warehouse, "open_data.hb_new") == ["blocking_check"]


def test_suites_of_checks_are_judged_each_by_its_last_result(warehouse: Warehouse, wrote: Wrote, source: str) -> None:
    wrote(source)
    checked(warehouse, source, FAILED, unique_id="model.dopa.places")
    checked(warehouse, source, PASSED)
    assert rules(warehouse, source) == ["blocking_check"]
    checked(warehouse, source, PASSED, unique_id="model.dopa.places")
    assert rules(warehouse, source) == []


def test_a_dataset_whose_last_score_is_below_the_line_holds_back(warehouse: Warehouse, wrote: Wrote, source: str) -> None:
    write = wrote("raw.hb_quality", kind="load")
    checked(warehouse, "raw.hb_quality", PASSED)
    with warehouse.connect(Role.LOADER) as connection:
        for code, level, score in (("0", 3.1, 91.0), ("0", 2.9, 67.5), ("1", 4, 100.0)):
            connection.execute(
                "insert into quality.score (dataset, write_id, code, level, score, formula)"
                " values (%s, %s, %s, %s, %s, '1:test')",
                ("hb_quality", write, code, level, score),
            )
    wrote(source, "raw.hb_quality")
    checked(warehouse, source, PASSED)
    with warehouse.connect(Role.READER) as connection:
        reasons, quality = readiness(connection, publication("quality", source=source))
        lower, _ = readiness(connection, publication("quality", source=source, qualityLine=60.0))
    (reason,) = reasons
    assert reason.rule == "quality"
    assert "quality of hb_quality is 67.5 of 100, below the line of 80" in reason.reason_en
    assert (quality.score, quality.datasets, lower) == (67.5, {"hb_quality": 67.5}, [])


def test_rows_of_things_go_out_when_none_stands_alone(warehouse: Warehouse, here: Settings, places: psycopg.Connection) -> None:
    enough = {"quasiIdentifiers": ["city"], "sensitive": ["name"], "kAnonymity": 5, "lDiversity": 2}
    with pytest.raises(HeldBack, match="not 5-anonymous: its smallest class by code has 1 row") as caught:
        publish(warehouse, here, publication("alone", recordLevel={**enough, "quasiIdentifiers": ["code"]}), "run-1")
    assert [reason.rule for reason in caught.value.reasons] == ["record_level"]
    assert not (here.releases_path / "alone" / "latest").exists()
    release = publish(warehouse, here, publication("together", recordLevel=enough), "run-2")
    told = json.loads((release.path / "release.json").read_text())["record_level"]
    # Half of the 1,000 places are cities; their names are two of four, and an empty one, by number.
    assert (told["k"], told["rows"]) == (500, 1000) and told["l"] >= 2
