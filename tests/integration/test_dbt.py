"""dbt on the demo: its unit tests, an engineer's own target, two at once, and a hand-run build in the records."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.warehouse import Role, open_warehouse

ROOT = Path(__file__).resolve().parents[2]


def dbt(demo: Any, target: Path, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    """Start a real dbt, as a person runs it by hand."""
    with open_warehouse(demo.settings) as warehouse:
        login = warehouse.dbt_environment()
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("dbt")), "--no-use-colors", *arguments],
        cwd=ROOT / "dbt_project",
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
