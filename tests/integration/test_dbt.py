"""dbt on the demo: its unit tests, an engineer's own target, two at once, and a hand-run build in the records."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.warehouse import Role, open_warehouse

ROOT = Path(__file__).resolve().parents[2]


def dbt(
    demo: Any, target: Path, *arguments: str, project: Path = ROOT / "dbt_project", **variables: str
) -> "subprocess.Popen[str]":
    """Start a real dbt, as a person runs it by hand."""
    with open_warehouse(demo.settings) as warehouse:
        login = warehouse.dbt_environment()
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("dbt")), "--no-use-colors", *arguments],
        cwd=project,
        env=os.environ
        | login
        | {"DBT_TARGET_PATH": str(target), "DBT_LOG_PATH": str(target), "DBT_PROFILES_DIR": "."}
        | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def running(own_demo: Any) -> Any:
    """The demo with its server held open, so that a dbt that is not ours finds it running."""
    with open_warehouse(own_demo.settings):
        yield own_demo


def query(demo: Any, statement: str) -> list[tuple[Any, ...]]:
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.TRANSFORMER) as connection:
        return connection.execute(statement.encode()).fetchall()


def test_what_computes_something_has_unit_tests_that_pass(running: Any, tmp_path: Path) -> None:
    said, _ = (process := dbt(running, tmp_path, "test", "--select", "test_type:unit")).communicate()
    assert process.returncode == 0, said
    assert "ERROR=0" in said
    assert int(said.rsplit("PASS=", 1)[1].split()[0]) >= 4


def test_an_engineer_builds_beside_production(running: Any, tmp_path: Path) -> None:
    schemas = "('staging'::regnamespace, 'marts'::regnamespace)"
    state = f"select relname, xmin::text, relfilenode from pg_class where relnamespace in {schemas}"
    before = sorted(query(running, state))
    process = dbt(running, tmp_path, "build", "--target", "dev", "--select", "+hotels", DOPA_DEV_SCHEMA="somchai")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert sorted(query(running, state)) == before, "production was touched"
    assert query(running, "select count(*) > 0 from dev_somchai_marts.hotels") == [(True,)]
    rows = query(running, "select distinct environment from lineage.write where target like 'dev_somchai%'")
    assert rows == [("dev",)]
    assert "dev_somchai" not in running.dopa("trace", "hotel_licence", "--down").stdout


def test_work_and_writes_say_whose_run_they_are(running: Any, tmp_path: Path) -> None:
    """Also of a model that cannot be compiled, which dbt's hooks never hear of."""
    turns = "select distinct turn like 'dopa-%' from lineage.work where kind = 'model' and state = 'START'"
    assert query(running, turns) == [(True,)], "the turn that `dopa` holds, and not that of each dbt that it starts"
    ((work, write),) = query(running, "select (select max(id) from lineage.work), (select max(id) from lineage.write)")
    project = tmp_path / "project"
    shutil.copytree(ROOT / "dbt_project", project)
    uncompiled = "{% if execute %}{{ exceptions.raise_compiler_error('not like this') }}{% endif %} select 1 as one"
    (project / "models" / "marts" / "uncompiled.sql").write_text(uncompiled)
    told = {"DOPA_RUN_ID": "the run", "DOPA_PARENT_RUN_ID": "its parent", "DOPA_DEV_SCHEMA": "somchai"}
    chosen = ("build", "--target", "dev", "--select", "+hotels", "uncompiled")
    said, _ = (process := dbt(running, tmp_path / "target", *chosen, project=project, **told)).communicate()
    assert process.returncode == 1, said

    begun = f"from lineage.work where id > {work} and state = 'START'"
    assert query(running, f"select distinct run_id, parent_run_id, environment {begun}") == [("the run", "its parent", "dev")]
    writes = f"from lineage.write where id > {write}"
    assert query(running, f"select distinct run_id, parent_run_id, environment {writes}") == [("the run", "its parent", "dev")]
    marts = f"{begun} and target in ('dev_somchai_marts.hotels', 'dev_somchai_marts.uncompiled')"
    assert query(running, f"select kind, target {marts} order by 1, 2") == [
        ("check", "dev_somchai_marts.hotels"),
        ("model", "dev_somchai_marts.hotels"),
        ("model", "dev_somchai_marts.uncompiled"),
    ]
    inputs = "array(select i ->> 'name' from jsonb_array_elements(inputs) as i)"
    (expected,) = query(running, f"select {inputs} {writes} and target = 'dev_somchai_marts.hotels'")
    assert len(expected[0]) >= 1
    assert query(running, f"select {inputs} {marts} and target like '%.hotels' and kind = 'model'") == [expected]
    failed = f"select state from lineage.work where work in (select work {marts} and target like '%.uncompiled') order by id"
    assert query(running, failed) == [("START",), ("FAIL",)]


def test_two_at_once_take_turns_and_both_are_recorded(running: Any, tmp_path: Path) -> None:
    ((latest,),) = query(running, "select max(id) from lineage.write")
    pair = [dbt(running, tmp_path / str(number), "run", "--select", "+hotels") for number in range(2)]
    for process in pair:
        said, _ = process.communicate()
        assert process.returncode == 0, said
    runs = query(running, f"select run_id from lineage.write where id > {latest} and kind = 'model' order by id")
    order = [run for (run,) in runs]
    assert len(set(order)) == 2
    assert order == sorted(order, key=order.index), "one after the other, not mixed"
    ((xmin, transaction),) = query(
        running,
        "select (select min(xmin::text) from marts.hotels), (select transaction_id::text from lineage.write"
        " where target = 'marts.hotels' order by id desc limit 1)",
    )
    assert xmin == transaction


SLOW = """
{{ config(materialized='table') }}
select (select count(*) from {{ source('raw', 'complaint') }}) as complaints, pg_sleep({{ var('seconds') }})::text as slept
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A copy of the project with a model that takes its time, and whose input loads change meanwhile."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "dbt_project", project)
    (project / "models" / "marts" / "slow.sql").write_text(SLOW)
    return project


def waits_for(demo: Any, condition: str) -> None:
    for _ in range(300):
        if query(demo, f"select count(*) from pg_stat_activity where pid <> pg_backend_pid() and {condition}") != [(0,)]:
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody came to: {condition}")


def read_and_recorded(demo: Any) -> tuple[int, int]:
    """How many complaints the model read, and which write of them it is recorded to have read."""
    ((row,),) = query(demo, "select complaints from marts.slow")
    ((write,),) = query(
        demo, "select inputs -> 0 ->> 'write' from lineage.write where target = 'marts.slow' order by id desc limit 1"
    )
    return int(row), int(write)


def last_write(demo: Any) -> int:
    return int(query(demo, "select max(id) from lineage.write where target = 'raw.complaint'")[0][0])


TAKE_ONE = "delete from raw.complaint where case_no = (select min(case_no) from raw.complaint)"
RECORD = "select lineage.record_write('load', 'raw.complaint')"


def test_the_inputs_recorded_are_the_inputs_read_while_loads_commit(running: Any, slow: Path, tmp_path: Path) -> None:
    before = last_write(running)
    with open_warehouse(running.settings) as warehouse, warehouse.connect(Role.LOADER) as load:
        # A load that commits in the middle of the model: neither its rows nor its write are seen.
        process = dbt(running, tmp_path / "a", "run", "--select", "slow", "--vars", "seconds: 4", project=slow)
        waits_for(running, "wait_event = 'PgSleep' and query like '%model.dopa.slow%'")
        load.execute(TAKE_ONE)
        load.execute(RECORD)
        load.commit()
        said, _ = process.communicate()
        assert process.returncode == 0, said
        assert read_and_recorded(running) == (600, before)
        ((code, rows_in),) = query(
            running, "select code, rows_in from lineage.write where target = 'marts.slow' order by id desc limit 1"
        )
        assert rows_in == 600
        assert hashlib.sha256(code["compiled"].encode()).hexdigest() == code["checksum"]

        # A load that replaces the table when the model begins: waited for, and then both are seen.
        load.execute("lock table raw.complaint in access exclusive mode")
        process = dbt(running, tmp_path / "a", "run", "--select", "slow", "--vars", "seconds: 0", project=slow)
        waits_for(running, "wait_event_type = 'Lock' and query like '%model.dopa.slow%'")
        load.execute(TAKE_ONE)
        load.execute(RECORD)
        load.commit()
        said, _ = process.communicate()
        assert process.returncode == 0, said
    assert read_and_recorded(running) == (598, last_write(running))


def test_a_write_says_by_which_commit_it_was_made(running: Any, tmp_path: Path) -> None:
    """Given in the environment by `dopa`, as in a container without git; absent where a dbt by hand is not told."""
    for variables, expected in (
        ({"DOPA_GIT_COMMIT": "c0ffee", "DOPA_GIT_CHANGED": "1"}, {"git_commit": "c0ffee", "git_changed": True}),
        ({"DOPA_GIT_COMMIT": "", "DOPA_GIT_CHANGED": ""}, {}),
    ):
        process = dbt(running, tmp_path, "run", "--select", "dim_month", **variables)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        ((code,),) = query(running, "select code from lineage.write where target = 'marts.dim_month' order by id desc limit 1")
        assert {name: value for name, value in code.items() if name.startswith("git")} == expected


def test_processes_that_start_at_once_read_the_whole_manifest(tmp_path: Path) -> None:
    code = (
        "from dopa_pipelines.settings import load_settings; from dopa_pipelines.transform import Project;"
        " print(len(Project(load_settings()).models))"
    )
    environment = os.environ | {"DOPA_STATE": str(tmp_path / "state")}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [child.communicate(timeout=300) for child in started]
    assert [child.returncode for child in started] == [0, 0, 0], said
    assert len({output.splitlines()[-1] for output, _ in said}) == 1
