"""The graph in Dagster: what it shows, what blocks what, what a delivery sets off, what becomes of dead runs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.execute import execute
from assets.platform import Platform
from assets.sources import source_key
from assets.warehouse import _check_result
from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.publishing import load_publications
from dopa_pipelines.transform import NodeResult, Project
from dopa_pipelines.warehouse import Role, open_warehouse
from dopa_pipelines.warehouse.dagster_storage import dead_runs, prepare_home, purge_events
from sensors.housekeeping import fail_dead_runs

ROOT = Path(__file__).resolve().parents[2]
THAI = re.compile("[\u0e00-\u0e7f]")
SNAPSHOT = Path(__file__).with_name("asset_graph.txt")


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    from dopa_pipelines.definitions import build_definitions
    from dopa_pipelines.settings import load_settings

    return build_definitions(load_settings())


@pytest.fixture
def instance(own_demo: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a demo that the test may change, its environment set for this process."""
    monkeypatch.setenv("DOPA_STATE", str(own_demo.state))
    with open_warehouse(own_demo.settings) as warehouse:
        for name, value in prepare_home(own_demo.settings, warehouse).items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.get() as opened:
            yield opened


def specs(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_every_dataset_model_and_publication_is_one_asset(defs: dg.Definitions) -> None:
    found = specs(defs)
    contracts = load_contracts(ROOT / "assets")
    publications = load_publications(ROOT / "assets" / "open_data").publications
    models = {path.stem: path for path in (ROOT / "dbt_project" / "models").rglob("*.sql")}
    assert {name.split("/")[1] for name in found if name.startswith("raw/")} == set(contracts.by_dataset)
    assert {name.split("/")[1] for name in found if name.startswith("releases/")} == {item.name for item in publications}
    # The events are an asset that no run makes.
    assert {name for name in found if name.startswith("lineage/")} == {"lineage/events"}
    others = {name.split("/")[1] for name in found if not name.startswith(("raw/", "releases/", "lineage/"))}
    assert others == {*models, *(path.stem for path in (ROOT / "dbt_project" / "seeds").glob("*.csv"))}


def test_each_tells_what_a_person_needs(defs: dg.Definitions) -> None:
    for name, spec in specs(defs).items():
        assert spec.group_name, name
        assert spec.kinds, name
        assert spec.description, name
        assert THAI.search(spec.description), f"{name} has no Thai description"
        if name == "lineage/events":
            continue
        schema = spec.metadata["dagster/column_schema"]
        columns = schema.columns if isinstance(schema, dg.TableSchema) else schema.value.columns
        assert columns, f"{name} has no column schema"
        if name.startswith("raw/"):
            assert spec.owners, f"{name} has no owner"
        table = name.replace("releases/", "release:").replace("/", ".")
        trace = spec.metadata["trace"]
        assert isinstance(trace, dg.UrlMetadataValue)
        assert trace.url == f"http://127.0.0.1:3001/trace/{table}"
        for column in columns:
            assert f"]({trace.url}.{column.name})" in (column.description or ""), f"{name}.{column.name} has no link"


def test_the_graph_is_the_one_that_was_reviewed(defs: dg.Definitions) -> None:
    lines = []
    for name, spec in sorted(specs(defs).items()):
        deps = sorted(dep.asset_key.to_user_string() for dep in spec.deps)
        lines.append(f"{name}  {spec.group_name}  [{' '.join(sorted(spec.owners))}]  <- {' '.join(deps)}")
    text = "\n".join(lines) + "\n"
    if os.environ.get("REFRESH_SNAPSHOTS"):
        SNAPSHOT.write_text(text, "utf-8")
    assert text == SNAPSHOT.read_text("utf-8"), (
        "the asset graph changed; if that is meant: REFRESH_SNAPSHOTS=1 make test ARGS=<this file>"
    )


def test_contract_checks_block(defs: dg.Definitions) -> None:
    checks = {
        (check.asset_key.to_user_string(), check.name): check.blocking
        for asset in defs.assets or []
        if isinstance(asset, dg.AssetsDefinition)
        for check in asset.check_specs
    }
    for contract in load_contracts(ROOT / "assets"):
        assert checks[f"raw/{contract.dataset}", "contract"] is True
        assert checks[f"raw/{contract.dataset}", "reconciliation"] is True
    assert checks["raw/population_area", "offices_sum_to_province"] is True


def test_each_rule_is_a_check_with_numbers_and_what_to_do(instance: dg.DagsterInstance, own_demo: Any) -> None:
    def latest(name: str, dataset: str = "village_headman") -> dg.AssetCheckEvaluation:
        key = dg.AssetCheckKey(source_key(dataset), name)
        (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert record.event is not None
        evaluation = record.event.dagster_event.event_specific_data  # type: ignore[union-attr]
        assert isinstance(evaluation, dg.AssetCheckEvaluation)
        return evaluation

    with open_warehouse(own_demo.settings) as warehouse, warehouse.connect() as connection:
        rejected = connection.execute(
            'select count(*) from quarantine.village_headman q where reasons @> \'[{"code": "not_in_list"}]\''
        ).fetchone()
    assert rejected and rejected[0] > 0
    listed = latest("values")
    assert not listed.passed and listed.severity == dg.AssetCheckSeverity.WARN and not listed.blocking
    numbers = {name: value.value for name, value in listed.metadata.items() if isinstance(value.value, int | float)}
    assert numbers["rows_failed"] == rejected[0]
    assert numbers["share_failed"] == pytest.approx(rejected[0] / numbers["rows_checked"])
    assert "dopa quarantine export village_headman" in str(listed.metadata["what_to_do"].value)
    assert listed.metadata["repair"].value == f"{own_demo.settings.portal_address}/incidents?dataset=village_headman"
    assert THAI.search(listed.description or "") and "rows fail" in (listed.description or "")
    assert "| row | file |" in str(listed.metadata["sample"].value)
    registered = latest("pid_is_registered")
    assert registered.passed and registered.metadata["rows_failed"].value == 0
    total = latest("offices_sum_to_province", "population_area")
    assert total.passed and total.blocking and total.metadata["rows_checked"].value == 77 * 3


def test_a_model_shows_its_columns_and_where_they_came_from(instance: dg.DagsterInstance) -> None:
    event = instance.get_latest_materialization_event(dg.AssetKey(["marts", "people_by_area_age_sex"]))
    assert event is not None and event.asset_materialization is not None
    lineage = event.asset_materialization.metadata["dagster/column_lineage"]
    assert isinstance(lineage, dg.TableColumnLineageMetadataValue)
    schema = event.asset_materialization.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchemaMetadataValue)
    types = {column.name: column.type for column in schema.schema.columns}
    assert all(types.values()), "each column has the type of the warehouse"
    assert (types["age_band"], types["people"]) == ("text", "bigint")
    staged = dg.AssetKey(["staging", "stg_person_register"])
    assert {dep.column_name for dep in lineage.value.deps_by_column["age_band"]} == {
        "birth_date", "birth_year", "birth_month", "moved_in_date"
    }  # fmt: skip
    assert lineage.value.deps_by_column["sex"] == [dg.TableColumnDep(asset_key=staged, column_name="sex")]
    told = str(event.asset_materialization.metadata["columns_made_from"].value)
    assert "| `sex` | `staging.stg_person_register.sex` | IDENTITY |" in told
    assert "| `age_band` | `staging.stg_person_register.birth_date` | TRANSFORMATION, AGGREGATION, CONDITIONAL |" in told
    assert "| (which rows) | `staging.stg_person_register.status_code` | FILTER |" in told
    released = instance.get_latest_materialization_event(dg.AssetKey(["releases", "hotels_licensed"]))
    assert released is not None and released.asset_materialization is not None
    assert "dagster/column_lineage" in released.asset_materialization.metadata


def test_a_model_that_cannot_be_resolved_fails_a_check_and_holds_nothing_back(
    own_demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    for part in ("assets", "sensors", "dbt_project"):
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    model = project / "dbt_project" / "models" / "marts" / "legal_affairs" / "hotels_by_province.sql"
    model.write_text(model.read_text("utf-8").rstrip() + "\nwhere exists (select from pg_get_keywords() as k)\n", "utf-8")
    with open_warehouse(own_demo.settings) as warehouse:
        home = prepare_home(own_demo.settings, warehouse) | {"DOPA_STATE": str(own_demo.state)}
        done = subprocess.run(
            [sys.executable, "-m", "assets.execute", "--select", "hotels_by_province"],
            env=os.environ | home, cwd=project, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        for name, value in home.items():
            monkeypatch.setenv(name, value)
        key = dg.AssetCheckKey(dg.AssetKey(["marts", "hotels_by_province"]), "column_lineage")
        with dg.DagsterInstance.get() as opened:
            found = opened.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        evaluation = found.event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
        assert not evaluation.passed
        # Lines are those of the compiled model, which is what was run.
        compiled = (
            "select code ->> 'compiled' from lineage.write where target = 'marts.hotels_by_province' order by id desc limit 1"
        )
        with warehouse.connect(Role.READER) as connection:
            (sql,) = connection.execute(compiled).fetchone()  # type: ignore[misc]
        lines = sql.splitlines()
        place = f"line {len(lines)}, column {lines[-1].index('pg_get') + 1}: function pg_get_keywords in FROM is not known"
        assert str(evaluation.description).startswith(place)


def test_schedules_and_sensors_are_in_thai_time_and_off_by_default(defs: dg.Definitions) -> None:
    schedules = {item.name: item for item in defs.schedules or [] if isinstance(item, dg.ScheduleDefinition)}
    assert schedules["nightly_schedule"].cron_schedule == "0 2 * * *"
    assert len(schedules) == 2 + len(load_publications(ROOT / "assets" / "open_data").publications)
    assert {item.execution_timezone for item in schedules.values()} == {"Asia/Bangkok"}
    assert {item.default_status for item in schedules.values()} == {dg.DefaultScheduleStatus.STOPPED}


def test_one_bad_silo_stops_only_what_descends_from_it(own_demo: Any, defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    bad = source_key("house_register")
    descendants = dg.AssetSelection.assets(bad).downstream().resolve(graph) - {bad}
    assert descendants
    folder = own_demo.settings.drop_path / "registration" / "house_register"
    (folder / "zz_garbage.txt").write_bytes(b"this|is|no register\n1|2|3\n")
    before = writes(own_demo)
    done = own_demo.dopa("run", "--all", "--json")
    assert done.returncode == 4
    steps = {step["asset"]: step["state"] for step in json.loads(done.stdout)["steps"]}
    assert steps.pop("house_register") == "rejected"
    held = {name for name, state in steps.items() if state == "held_back"}
    assert held == {".".join(key.path) if key.path[0] != "releases" else key.path[1] for key in descendants}
    good = {"built", "unchanged", "released"}
    assert {state for name, state in steps.items() if name not in held} <= good
    after = writes(own_demo)
    rebuilt = {target for target in after if after[target] > before.get(target, 0)}
    models = {".".join(key.path) for key in graph.get_all_asset_keys() if key.path[0] in ("staging", "marts", "open_data")}
    assert rebuilt == models - {".".join(key.path) for key in descendants}


def writes(demo: Any) -> dict[str, int]:
    with open_warehouse(demo.settings) as warehouse, warehouse.connect() as connection:
        return dict(connection.execute("select target, max(id) from lineage.write group by 1").fetchall())


def test_a_monthly_dataset_shows_which_month_is_missing(
    own_demo: Any, instance: dg.DagsterInstance, defs: dg.Definitions
) -> None:
    key = source_key("birth_event")
    assert instance.get_materialized_partitions(key) == {"2025-10-01", "2025-11-01", "2025-12-01"}
    job = defs.resolve_job_def("everything")

    def run(month: str) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(instance=instance, asset_selection=[key], partition_key=month, raise_on_error=False)

    assert run("2025-11-01").success
    missing = run("2026-01-01")
    assert not missing.success
    check = next(item for item in missing.get_asset_check_evaluations() if item.check_name == "contract")
    assert not check.passed
    assert "no delivery of birth_event for 2026-01 has arrived" in (check.description or "")
    assert "2026-01-01" not in instance.get_materialized_partitions(key)


def test_the_nightly_proof_fails_where_something_was_done_by_hand(
    own_demo: Any, instance: dg.DagsterInstance, defs: dg.Definitions
) -> None:
    job = defs.resolve_job_def("lineage_proof")
    assert job.execute_in_process(instance=instance, raise_on_error=False).success
    assert json.loads(own_demo.dopa("status", "--json").stdout)["lineage_proof"]["findings"] == 0
    with open_warehouse(own_demo.settings) as warehouse, warehouse.connect(Role.TRANSFORMER) as connection:
        connection.execute("delete from marts.hotels where licence_no = (select min(licence_no) from marts.hotels)")
    failed = job.execute_in_process(instance=instance, raise_on_error=False)
    (failure,) = [event.step_failure_data for event in failed.all_node_events if event.is_step_failure]
    assert failure.error is not None
    assert "marts.hotels has 299 rows and its last write recorded 300" in failure.error.message
    proof = json.loads(own_demo.dopa("status", "--json").stdout)["lineage_proof"]
    assert (proof["findings"], proof["verified_at"] is not None) == (1, True)
    assert "marts.hotels has 299 rows" in proof["first"]
    assert "1 findings, the first: marts.hotels" in " ".join(own_demo.dopa("status").stdout.split())


def test_metadata_shows_counts_and_no_personal_value(own_demo: Any, instance: dg.DagsterInstance) -> None:
    event = instance.get_latest_materialization_event(source_key("person_register"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert metadata["dagster/row_count"] == 2_000
    assert metadata["rows_read"] == metadata["rows_loaded"] + metadata["rows_quarantined"]
    assert "•••" in metadata["rejected_rows"]
    with open_warehouse(own_demo.settings) as warehouse, warehouse.connect() as connection:
        texts = connection.execute(
            "select r ->> 'value' from quarantine.person_register, jsonb_array_elements(reasons) r"
            " where r ->> 'column' in ('pid', 'first_name', 'last_name', 'house_code') and length(r ->> 'value') > 3"
        ).fetchall()
        with warehouse.connect(Role.DAGSTER) as storage:
            ((events,),) = storage.execute("select string_agg(event, ' ') from event_logs").fetchall()
    assert texts
    log = (own_demo.state / "logs" / "run.log").read_text("utf-8", "replace")
    assert [text for (text,) in texts if text in events or text in log] == []


def test_a_file_that_arrives_becomes_a_run_of_its_dataset(
    own_demo: Any, instance: dg.DagsterInstance, defs: dg.Definitions
) -> None:
    sensor = next(item for item in defs.sensors or [] if item.name == "deliveries")
    assert isinstance(sensor, dg.SensorDefinition)

    def look(cursor: str | None) -> tuple[list[dg.RunRequest], str | None]:
        with dg.build_sensor_context(instance=instance, cursor=cursor, definitions=defs) as context:
            found = sensor.evaluate_tick(context)
        return list(found.run_requests or []), found.cursor

    requests, cursor = look(None)
    assert requests == [], "what was loaded already sets off nothing"
    folder = own_demo.settings.drop_path / "registration" / "death_event"
    new = folder / "death_event_2569-01.csv"
    new.write_bytes(next(folder.glob("*2568-12*")).read_bytes() + b"\r\n")
    assert look(cursor)[0] == [], "it may still be being written"
    old = time.time() - 60
    os.utime(new, (old, old))
    requests, cursor = look(cursor)
    assert [(item.asset_selection, item.partition_key) for item in requests] == [([source_key("death_event")], "2026-01-01")]
    assert look(cursor)[0] == [], "the same file once"


def test_a_run_whose_process_was_killed_is_found_and_marked_failed(own_demo: Any, instance: dg.DagsterInstance) -> None:
    with open_warehouse(own_demo.settings) as warehouse:
        child = subprocess.Popen(
            [sys.executable, "-m", "assets.execute", "--select", "dim_month+", "stg_area_code+"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
        deadline = time.monotonic() + 60
        while not (runs := instance.get_runs(started)) or not _reported(warehouse, runs[0].run_id):
            assert time.monotonic() < deadline, "the run did not start"
            assert child.poll() is None
            time.sleep(0.05)
        assert dead_runs(warehouse) == [], "it lives"
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert [run.run_id for run in dead_runs(warehouse)] == [runs[0].run_id]
        status = json.loads(own_demo.dopa("status", "--json").stdout)
        assert status["dead_runs"] == [runs[0].run_id]
        run = instance.get_run_by_id(runs[0].run_id)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert fail_dead_runs(instance, warehouse) == []


def _reported(warehouse: Any, run_id: str) -> bool:
    with warehouse.connect() as connection:
        return bool(connection.execute("select 1 from ops.run_note where run_id = %s", (run_id,)).fetchone())


def test_old_log_lines_go_and_asset_events_stay(own_demo: Any, instance: dg.DagsterInstance) -> None:
    def counts() -> tuple[int, int]:
        with warehouse.connect(Role.DAGSTER) as storage:
            ((every, assets),) = storage.execute(
                "select count(*), count(*) filter (where asset_key is not null) from event_logs"
            ).fetchall()
        return every, assets

    with open_warehouse(own_demo.settings) as warehouse:
        before, kept = counts()
        assert purge_events(warehouse) == 0, "young lines stay"
        with warehouse.connect(Role.DAGSTER) as storage:
            storage.execute("update event_logs set timestamp = %s", (datetime.now(UTC) - timedelta(days=200),))
        gone = purge_events(warehouse)
        assert gone > 0
        assert counts() == (before - gone, kept)
        checks = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(source_key("birth_event"), "contract"), limit=5
        )
        assert checks
        assert all(check.event is not None for check in checks)


def test_execute_finds_nothing_failed_on_a_small_selection(own_demo: Any, instance: dg.DagsterInstance) -> None:
    contracts = load_contracts(ROOT / "assets")
    assert execute(instance, contracts, {source_key("area_code"), dg.AssetKey(["staging", "stg_area_code"])}) is False


def test_a_failing_test_of_a_model_leads_to_its_repair(demo: Any) -> None:
    project = Project(demo.settings)
    model = next(item for item in project.models if item.tests)
    test, key = model.tests[0], dg.AssetKey(model.target.split("."))
    with open_warehouse(demo.settings) as opened:
        platform = Platform(demo.settings, opened, project)
        passed, failed = (
            _check_result(platform, model, key, test, NodeResult(test.unique_id, not rows, "", None, rows, 0.1))
            for rows in (0, 3)
        )
    assert passed.passed and "repair" not in passed.metadata
    assert not failed.passed and failed.metadata["failing_rows"].value == 3
    assert failed.metadata["repair"].value == f"{demo.settings.portal_address}/incidents?dataset={model.target}"
    assert f"dopa trace {model.target} --up" in str(failed.metadata["what_to_do"].value)
