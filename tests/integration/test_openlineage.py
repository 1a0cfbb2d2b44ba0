"""What a run tells the world: one START and one end for each piece of work, valid, complete, and the failures too."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dopa_pipelines.lineage.model import ColumnEdge
from dopa_pipelines.lineage.naming import DatasetName
from dopa_pipelines.lineage.openlineage import record_events
from dopa_pipelines.lineage.store import identity
from dopa_pipelines.publishing.publication import load_publications
from dopa_pipelines.publishing.releases import publish
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse
from dopa_pipelines.warehouse.work import Work, end_dead_work, new_work, without_values
from tests.integration.conftest import Demo, _copy
from tests.lineage.published import faults

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("openlineage_events.json")
MODELS = [path for kind in ("models/**/*.sql", "snapshots/**/*.sql") for path in (ROOT / "dbt_project").glob(kind)]
KINDS = {"SEED", "LOAD", "MODEL", "TEST", "RELEASE"}
Event = dict[str, Any]


def told(connection: psycopg.Connection[Any], target: str | None = None) -> list[Event]:
    """Events in their order; ``target``: only those of work on it."""
    rows = connection.execute(
        "select lineage.whole_event(e.event) from lineage.event e"
        " left join lineage.work k on k.id = e.work_id left join lineage.work s on s.work = k.work and s.state = 'START'"
        " left join lineage.write w on w.id = e.write_id"
        " where e.imported is null and (%(target)s::text is null or coalesce(s.target, w.target) = %(target)s) order by e.id",
        {"target": target},
    )
    return [event for (event,) in rows]


def test_what_does_not_change_is_stored_once(events: list[Event], demo: Any) -> None:
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.READER) as connection:
        stored = [event for (event,) in connection.execute("select event from lineage.event order by id")]
        (facets, size) = connection.execute("select count(*), sum(length(facet::text)) from lineage.facet").fetchone() or ()
    assert "_facet" not in json.dumps(events)
    assert [event["eventTime"] for event in stored] == [event["eventTime"] for event in events]
    names = set(re.findall(r'"_facet": "([0-9a-f]{64})"', json.dumps(stored)))
    assert len(names) == facets
    whole, kept = len(json.dumps(events, ensure_ascii=False)), len(json.dumps(stored, ensure_ascii=False))
    assert kept < whole / 2, f"{kept:,} of {whole:,} characters, and {size:,} once"


def test_a_run_like_the_one_before_adds_no_facet(own_demo: Any) -> None:
    def sizes() -> tuple[int, int]:
        with open_warehouse(own_demo.settings) as warehouse, warehouse.connect(Role.READER) as connection:
            row = connection.execute(
                "select (select count(*) from lineage.facet), (select count(*) from lineage.event)"
            ).fetchone()
        assert row is not None
        return row

    built = ("dbt", "build", "--select", "stg_area_code", "dim_area", "--target", "production")
    counts = []
    for _ in range(3):
        done = own_demo.dopa(*built, DOPA_DBT_TARGET="production")
        assert done.returncode == 0, done.stdout
        counts.append(sizes())
    (_, first), (facets, second), (same, third) = counts
    assert third > second > first
    assert same == facets


def by_run(events: list[Event]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for event in events:
        found[event["run"]["runId"]].append(event["eventType"])
    return dict(found)


def kind(event: Event) -> str:
    return str(event["job"]["facets"]["jobType"]["jobType"])


@pytest.fixture(scope="module")
def demo(_made: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demo of this file's own: what other tests record in the session's one is no event of the demo's run."""
    folder, output = _made
    return Demo(_copy(folder / "pristine", tmp_path_factory.mktemp("events") / "state"), output)


@pytest.fixture(scope="module")
def events(demo: Any) -> list[Event]:
    """All events of the demo's run."""
    with open_warehouse(demo.settings) as warehouse, warehouse.connect() as connection:
        return told(connection)


def test_every_start_of_the_demo_has_one_end(events: list[Event]) -> None:
    assert {kind(event) for event in events} == KINDS
    runs = by_run(events)
    assert len(runs) > 100
    assert {tuple(states) for states in runs.values()} == {("START", "COMPLETE")}
    assert len({event["job"]["name"] for event in events if kind(event) == "MODEL"}) == len(MODELS)
    for run in runs:
        start, end = (event for event in events if event["run"]["runId"] == run)
        assert start["job"]["name"] == end["job"]["name"]
        assert start["eventTime"] <= end["eventTime"]


def test_all_events_of_the_demo_are_valid(events: list[Event]) -> None:
    wrong = {(event["job"]["name"], event["eventType"]): found for event in events if (found := faults(event))}
    assert wrong == {}


def test_each_facet_is_told(events: list[Event]) -> None:
    ended = {name: [event for event in events if kind(event) == name and event["eventType"] == "COMPLETE"] for name in KINDS}
    for event in events:
        parent = event["run"]["facets"]["parent"]
        assert parent["root"]["run"]["runId"] == parent["run"]["runId"] != event["run"]["runId"]
        assert "processing_engine" in event["run"]["facets"]
    for name in ("LOAD", "MODEL", "RELEASE"):
        for event in ended[name]:
            assert {"documentation", "ownership", "sourceCodeLocation"} <= event["job"]["facets"].keys(), event["job"]["name"]
            (output,) = event["outputs"]
            expected = {"schema", "dataSource", "datasetType", "documentation", "ownership", "storage", "version"}
            assert expected <= output["facets"].keys(), event["job"]["name"]
            path = event["job"]["facets"]["sourceCodeLocation"]["path"]
            assert (ROOT / path).is_file(), path
    assert all(event["job"]["facets"]["sql"]["query"] for event in ended["MODEL"])
    # Only the calendar is made of nothing.
    untold = {
        e["job"]["name"]
        for name in ("LOAD", "MODEL", "RELEASE")
        for e in ended[name]
        if "columnLineage" not in e["outputs"][0]["facets"]
    }
    assert untold <= {"dbt.model.dopa.dim_month"}
    assert all("sourceCode" in event["job"]["facets"] for event in ended["LOAD"])
    changes = {
        facets["lifecycleStateChange"]["lifecycleStateChange"]
        for event in events
        for output in event["outputs"]
        if "lifecycleStateChange" in (facets := output.get("facets") or {})
    }
    assert changes == {"CREATE"}, "nothing was there before the demo"
    for event in ended["LOAD"]:
        feed = event["inputs"][0]["inputFacets"]
        rows = event["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"]
        assert feed["inputStatistics"]["rowCount"] == feed["dataQualityMetrics"]["rowCount"] >= rows
        assert feed["dataQualityAssertions"]["assertions"][0]["success"] is True
    months = [event for event in ended["LOAD"] if event["job"]["name"] == "ingest.birth_event"]
    assert len({event["run"]["facets"]["nominalTime"]["nominalStartTime"] for event in months}) == 3


def test_classes_of_columns_are_those_of_the_contract(events: list[Event]) -> None:
    register = next(e for e in events if e["job"]["name"] == "ingest.person_register" and e["eventType"] == "COMPLETE")
    tags = {(tag["field"], tag["key"]): tag["value"] for tag in register["outputs"][0]["facets"]["tags"]["tags"]}
    assert (tags["pid", "classification"], tags["pid", "pdpaRole"]) == ("personal", "direct_identifier")
    columns = {field["name"] for field in register["outputs"][0]["facets"]["schema"]["fields"]}
    assert {field for field, _ in tags} == {name for name in columns if not name.startswith("_")}


def test_checks_tell_what_they_found(events: list[Event], demo: Any) -> None:
    checks = {event["job"]["name"]: event for event in events if kind(event) == "TEST" and event["eventType"] == "COMPLETE"}
    # Every data test of the project is told once for each table that it reads.
    from dopa_pipelines.transform import Project

    with open_warehouse(demo.settings) as warehouse:
        models = Project(demo.settings, warehouse).models
    expected = {
        (f"check.{next(m.target for m in models if m.unique_id == read)}", test.name)
        for model in models
        for test in model.tests
        for read in test.models
    }
    found = {
        (name, assertion["name"])
        for name, event in checks.items()
        for assertion in event["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
        if not name.startswith("check.raw.")
    }
    assert found == expected
    register = checks["check.raw.person_register"]["inputs"][0]["inputFacets"]
    results = {(a["assertion"], a.get("column")): a for a in register["dataQualityAssertions"]["assertions"]}
    assert results["reconciliation", None]["actual"] == results["reconciliation", None]["expected"] == "2000"
    assert results["unique", "pid"]["success"] is True
    assert register["dataQualityMetrics"]["columnMetrics"]["pid"] == {"nullCount": 0, "distinctCount": 2000}


def test_no_path_of_the_machine_is_told(events: list[Event], demo: Any) -> None:
    text = json.dumps(events, ensure_ascii=False)
    assert str(demo.state) not in text
    assert str(ROOT) not in text


def test_one_event_of_each_kind_is_as_kept(events: list[Event]) -> None:
    wanted = {
        "ingest.hotel_licence",
        "dbt.model.dopa.hotels",
        "check.marts.hotels",
        "check.raw.hotel_licence",
        "publish.hotels_licensed",
    }
    kept = [masked(event) for event in events if event["job"]["name"] in wanted]
    kept.sort(key=lambda event: (event["job"]["name"], event["eventType"] != "START"))
    assert len(kept) == 2 * len(wanted)
    text = json.dumps(kept, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    if os.environ.get("REFRESH_SNAPSHOTS"):
        GOLDEN.write_text(text, "utf-8")
    assert text == GOLDEN.read_text("utf-8"), "events changed; if that is meant: REFRESH_SNAPSHOTS=1 make test ARGS=<this file>"


VARIABLE = {
    "eventTime", "runId", "version", "datasetVersion", "openlineageAdapterVersion", "writeId", "cluster", "transactionId",
    "codeChecksum", "codeVersion", "nominalStartTime", "nominalEndTime", "query", "sourceCode", "size", "bytes", "url",
}  # fmt: skip


def masked(value: Any, key: str = "") -> Any:
    """An event without times, ids and versions, and without texts that are kept elsewhere."""
    if isinstance(value, dict):
        # A copy of the project without git knows no commit.
        return {
            name: masked(item, name) for name, item in value.items() if not (key == "sourceCodeLocation" and name == "version")
        }
    if isinstance(value, list):
        shown = [masked(item) for item in value]
        return sorted(shown, key=lambda item: item.get("name", "")) if key == "assertions" and "name" in value[0] else shown
    if key in VARIABLE:
        return "…"
    if isinstance(value, str) and value.startswith(("postgres://embedded-", "urn:x-dopa:")):
        return value.partition("embedded-")[0] + "…"
    return value


# what fails


def columns() -> list[dict[str, Any]]:
    return [{"name": "id", "primaryKey": True, "primaryKeyPosition": 1, "required": True}, {"name": "name"}]


def test_a_refused_delivery_leaves_no_write_and_tells_start_and_fail(table: Callable[..., Any], warehouse: Warehouse) -> None:
    made = table("told_refused", columns())
    assert made.deliver("id,name\n1,ก\n").status == "loaded"
    secret = "สมชาย ใจดี"
    refused = made.deliver(f"id,name\n,{secret}\n,1103700000017\n", "broken.csv")
    assert refused.status == "rejected"
    with warehouse.connect() as connection:
        record_events(connection, contracts=[made.contract])
        events = told(connection, made.contract.table)
        assert list(by_run(events).values()) == [["START", "COMPLETE"], ["START", "FAIL"]]
        assert connection.execute("select count(*) from lineage.write where target = 'raw.told_refused'").fetchone() == (1,)
    failed = events[-1]
    assert failed["run"]["runId"] == refused.work
    assert "broken.csv" in failed["run"]["facets"]["errorMessage"]["message"]
    assert failed["inputs"][0]["name"] == "testing/told_refused"
    assert secret not in json.dumps(events, ensure_ascii=False)
    assert [fault for event in events for fault in faults(event)] == []


def test_what_breaks_in_the_middle_is_told(table: Callable[..., Any], warehouse: Warehouse, monkeypatch: Any) -> None:
    made = table("told_broken", columns())

    def no_more(*_: object) -> None:
        raise RuntimeError('the disk is gone: value "สมชาย" of 1103700000017')

    monkeypatch.setattr("dopa_pipelines.ingest.load.Load.record", no_more)
    with pytest.raises(RuntimeError):
        made.deliver("id,name\n1,ก\n")
    monkeypatch.undo()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("dopa_pipelines.ingest.load.Load.record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        made.deliver("id,name\n1,ก\n")
    with warehouse.connect() as connection:
        record_events(connection)
        events = told(connection, made.contract.table)
        assert list(by_run(events).values()) == [["START", "FAIL"], ["START", "ABORT"]]
        (failed,) = (event for event in events if event["eventType"] == "FAIL")
    message = failed["run"]["facets"]["errorMessage"]["message"]
    assert message == 'the disk is gone: value "…" of …'


def test_work_whose_process_was_killed_is_found(warehouse: Warehouse, settings: Any) -> None:
    code = (
        "import sys, time; from dopa_pipelines.settings import load_settings;"
        "from dopa_pipelines.warehouse import open_warehouse; from dopa_pipelines.warehouse.work import Work\n"
        "with open_warehouse(load_settings()) as w, Work(w, 'load', 'raw.told_killed'):\n"
        "    print('begun', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"DOPA_STATE": str(settings.state)}, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "begun\n"
    assert ("load", "raw.told_killed") not in end_dead_work(warehouse), "it lives"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    found: list[tuple[str, str]] = []
    until = time.monotonic() + 10
    while not found and time.monotonic() < until:
        found = [item for item in end_dead_work(warehouse) if item[1] == "raw.told_killed"]
    assert found == [("load", "raw.told_killed")]
    assert end_dead_work(warehouse) == []
    with warehouse.connect() as connection:
        record_events(connection)
        assert [event["eventType"] for event in told(connection, "raw.told_killed")] == ["START", "ABORT"]


def test_work_ends_once_and_only_if_it_began(warehouse: Warehouse) -> None:
    with warehouse.connect(autocommit=True) as connection:
        end = "select lineage.end_work(%s, %s)"
        assert connection.execute(end, (new_work(), "FAIL")).fetchone() == (False,)
        with Work(warehouse, "check", "raw.told_once") as work:
            work.complete({"assertions": []})
        assert connection.execute(end, (work.id, "ABORT")).fetchone() == (False,)
        with Work(warehouse, "load", "raw.told_written") as work:
            connection.execute(
                "select lineage.record_write('load', 'raw.told_written', p_detail => %s)", (json.dumps({"work": work.id}),)
            )
            work.done()
        assert connection.execute(end, (work.id, "ABORT")).fetchone() == (False,), "its write tells that it is complete"


def test_nobody_changes_what_is_told(warehouse: Warehouse) -> None:
    for role in (Role.LOADER, Role.TRANSFORMER, Role.READER):
        for statement in (
            "insert into lineage.work (work, state, at, told_by) values (gen_random_uuid(), 'FAIL', now(), 'x')",
            "update lineage.work set state = 'COMPLETE'",
            "delete from lineage.work",
            "delete from lineage.imported_dataset",
            "update lineage.event set imported = 'x'",
        ):
            with warehouse.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_a_release_that_fails_or_changes_nothing_is_told(own_demo: Any) -> None:
    publication = next(p for p in load_publications(ROOT / "assets" / "open_data").publications if p.name == "hotels_licensed")
    with open_warehouse(own_demo.settings) as warehouse:
        assert publish(warehouse, own_demo.settings, publication, "again").status == "unchanged"
        with warehouse.connect(Role.TRANSFORMER) as connection:
            connection.execute("alter table open_data.hotels_licensed rename to away")
        with pytest.raises(Exception, match=r"isn't in the warehouse"):
            publish(warehouse, own_demo.settings, publication, "failing")
        with warehouse.connect() as connection:
            record_events(connection)
            events = told(connection, "release:hotels_licensed")
    assert list(by_run(events).values()) == [["START", "COMPLETE"], ["START", "COMPLETE"], ["START", "FAIL"]]
    assert "outputFacets" not in events[-1]["outputs"][0] or not events[-1]["outputs"][0]["outputFacets"]
    assert [fault for event in events for fault in faults(event)] == []


def test_a_model_that_fails_by_hand_is_told_and_its_message_holds_no_values(own_demo: Any, tmp_path: Path) -> None:
    project = tmp_path / "project"
    subprocess.run(["cp", "-a", str(ROOT / "dbt_project"), str(project)], check=True)
    model = next(project.rglob("marts/**/hotels.sql"))
    model.write_text("select pid::integer as licence_no from (select '1103700000017x' as pid) broken")
    with open_warehouse(own_demo.settings) as warehouse:
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("dbt")),
                "--no-use-colors",
                "build",
                "--select",
                "stg_hotel_licence hotels hotels_by_province",
            ],
            cwd=project,
            env=os.environ
            | warehouse.dbt_environment()
            | {"DBT_TARGET_PATH": str(tmp_path / "target"), "DBT_LOG_PATH": str(tmp_path), "DBT_PROFILES_DIR": "."},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1, done.stdout
        assert end_dead_work(warehouse) == []
        with warehouse.connect() as connection:
            before = len(told(connection))
            record_events(connection)
            events = told(connection)[before:]
    names = {event["run"]["runId"]: event["job"]["name"] for event in events}
    states = {names[run]: states for run, states in by_run(events).items()}
    assert states["dbt.model.dopa.stg_hotel_licence"] == ["START", "COMPLETE"]
    assert states["dbt.model.dopa.hotels"] == ["START", "FAIL"]
    assert "dbt.model.dopa.hotels_by_province" not in states, "it was never begun"
    assert states["check.staging.stg_hotel_licence"] == ["START", "COMPLETE"]
    assert all(ends[0] == "START" and len(ends) == 2 for ends in states.values()), states
    failed = next(event for event in events if event["eventType"] == "FAIL")
    assert "is out of range for type integer" in failed["run"]["facets"]["errorMessage"]["message"]
    assert "1103700000017" not in json.dumps(failed["run"])
    assert failed["run"]["facets"]["parent"]["job"]["name"] == "dbt"
    assert [fault for event in events for fault in faults(event)] == []


def test_tests_alone_and_a_killed_dbt_are_told(own_demo: Any, tmp_path: Path) -> None:
    with open_warehouse(own_demo.settings) as warehouse:
        environment = (
            os.environ
            | warehouse.dbt_environment()
            | {"DBT_TARGET_PATH": str(tmp_path), "DBT_LOG_PATH": str(tmp_path), "DBT_PROFILES_DIR": "."}
        )
        dbt = [str(Path(sys.executable).with_name("dbt")), "--no-use-colors"]
        tested = subprocess.run(
            [*dbt, "test", "--select", "hotels"], cwd=ROOT / "dbt_project", env=environment, capture_output=True
        )
        assert tested.returncode == 0, tested.stdout
        with warehouse.connect(Role.TRANSFORMER) as keeper, warehouse.connect(Role.TRANSFORMER, autocommit=True) as watcher:
            # The model waits for this lock in the middle of its work.
            keeper.execute("lock table marts.hotels_by_province in access exclusive mode")
            child = subprocess.Popen(
                [*dbt, "run", "--select", "hotels_by_province"],
                cwd=ROOT / "dbt_project",
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            begun = "select count(*) from lineage.work where target = 'marts.hotels_by_province' and state = 'START'"
            before = watcher.execute(begun).fetchone()
            until = time.monotonic() + 30
            while watcher.execute(begun).fetchone() == before and time.monotonic() < until:
                time.sleep(0.05)
            assert end_dead_work(warehouse, grace_seconds=0) == [], "it lives"
            child.kill()
            child.wait()
        found: list[tuple[str, str]] = []
        until = time.monotonic() + 20
        while not found and time.monotonic() < until:
            found = end_dead_work(warehouse, grace_seconds=0)
        assert found == [("model", "marts.hotels_by_province")]
        with warehouse.connect() as connection:
            record_events(connection)
            assert [e["eventType"] for e in told(connection, "marts.hotels_by_province")][-2:] == ["START", "ABORT"]
            checks = [e for e in told(connection, "marts.hotels") if kind(e) == "TEST"]
    assert [event["eventType"] for event in checks] == ["START", "COMPLETE"] * 2


def test_columns_are_told_as_they_were_made(table: Callable[..., Any], warehouse: Warehouse) -> None:
    made = table("told_columns", columns())
    made.deliver("id,name\n1,ก\n")
    feed = DatasetName("file", "testing/told_columns")
    with warehouse.connect() as connection:
        here = identity(connection).table(made.contract.table)
        asked: list[Any] = []

        def edges(given: Any, target: DatasetName, at: Any) -> list[ColumnEdge]:
            asked.append((given is connection, target, at is not None))
            if target != here:
                return []
            return [
                ColumnEdge(feed, "id", here, "id", "IDENTITY"),
                ColumnEdge(feed, "name", here, "name", "TRANSFORMATION", True),
                ColumnEdge(feed, "name", here, "name", "CONDITIONAL"),
                ColumnEdge(feed, "id", here, None, "FILTER"),
            ]

        record_events(connection, column_edges=edges)
        event = told(connection, made.contract.table)[-1]
    assert (True, here, True) in asked
    facet = event["outputs"][0]["facets"]["columnLineage"]
    assert {column: made["inputFields"] for column, made in facet["fields"].items()} == {
        "id": [_given("id", ("DIRECT", "IDENTITY", False))],
        "name": [_given("name", ("INDIRECT", "CONDITIONAL", False), ("DIRECT", "TRANSFORMATION", True))],
    }
    assert facet["dataset"] == [_given("id", ("INDIRECT", "FILTER", False))]
    assert faults(event) == []


def _given(column: str, *ways: tuple[str, str, bool]) -> dict[str, Any]:
    return {
        "namespace": "file",
        "name": "testing/told_columns",
        "field": column,
        "transformations": [{"type": kind, "subtype": subtype, "masking": masking} for kind, subtype, masking in ways],
    }


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ('invalid input syntax for type integer: "1103700000017"', 'invalid input syntax for type integer: "…"'),
        (
            'duplicate key value violates unique constraint "x_key"\nDETAIL:  Key (pid)=(1103700000017) already exists.',
            'duplicate key value violates unique constraint "x_key"',
        ),
        ('column "pid" does not exist', 'column "pid" does not exist'),
        ("a.csv: row 12,345: the name 'สมชาย ใจดี' is too long", "a.csv: row 12,345: the name '…' is too long"),
        ("call 081-234-5678 or somchai@dopa.example", "call … or …"),
        ("เลข ๑๑๐๓๗๐๐๐๐๐๐๑๗ ผิด", "เลข … ผิด"),
    ],
)
def test_a_failure_is_told_without_values(problem: str, expected: str) -> None:
    assert without_values(problem) == expected
