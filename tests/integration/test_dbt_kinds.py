"""Seeds, snapshots and incremental models on the demo: recorded with their rows, traced by column, found whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.lineage.columngraph import record_columns
from dopa_pipelines.lineage.columntrace import edges_into
from dopa_pipelines.lineage.openlineage import record_events
from dopa_pipelines.lineage.seal import seal
from dopa_pipelines.lineage.store import identity
from dopa_pipelines.lineage.verify import verify
from dopa_pipelines.transform import Project
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOTS = """
snapshots:
  - name: hotel_states
    relation: ref('hotel_list')
    config: {strategy: check, unique_key: licence_no, check_cols: [rooms, hotel_name], hard_deletes: new_record}
  - name: hotel_times
    relation: ref('hotel_list')
    config: {strategy: timestamp, unique_key: licence_no, updated_at: issued_on}
"""
LIST = """
{{ config(materialized='table') }}
select licence_no, hotel_name, rooms * {{ var('times', 1) }} as rooms, issued_on::timestamp as issued_on
from {{ ref('stg_hotel_licence') }}
where rooms <> {{ var('without', -1) }}
"""
GROWING = """
{{ config(materialized='incremental', incremental_strategy='append') }}
select licence_no, rooms from {{ ref('hotel_list') }}
{% if is_incremental() %}where rooms > (select max(rooms) from {{ this }}){% endif %}
"""


class Copy:
    """A copy of the dbt project on a demo of its own."""

    def __init__(self, demo: Any, project: Path, warehouse: Warehouse) -> None:
        self.demo, self.project, self.warehouse = demo, project, warehouse

    def dbt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        target = str(self.project.parent / "target")
        return subprocess.run(
            [str(Path(sys.executable).with_name("dbt")), "--no-use-colors", *arguments],
            cwd=self.project,
            env=os.environ
            | self.warehouse.dbt_environment()
            | {"DBT_TARGET_PATH": target, "DBT_LOG_PATH": target, "DBT_PROFILES_DIR": "."},
            capture_output=True,
            text=True,
        )

    def build(self, *arguments: str) -> None:
        done = self.dbt(*arguments)
        assert done.returncode == 0, done.stdout

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.warehouse.connect(Role.TRANSFORMER) as connection:
            return connection.execute(statement.encode()).fetchall()

    def edges(self, target: str) -> set[tuple[str, str, str | None, str]]:
        with self.warehouse.connect(Role.TRANSFORMER) as connection:
            record_columns(connection)
            named = identity(connection)
            return {
                (named.target(edge.source) or edge.source.name, edge.source_column, edge.target_column, str(edge.subtype))
                for edge in edges_into(connection, named.table(target))
            }

    def findings(self) -> list[str]:
        seal(self.warehouse)
        return [finding.message for finding in verify(self.warehouse, self.demo.settings.releases_path).findings]


@pytest.fixture
def copy(own_demo: Any, tmp_path: Path) -> Iterator[Copy]:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "dbt_project", project)
    (project / "snapshots").mkdir()
    (project / "snapshots" / "hotels.yml").write_text(SNAPSHOTS)
    (project / "models" / "marts" / "hotel_list.sql").write_text(LIST)
    (project / "models" / "marts" / "growing.sql").write_text(GROWING)
    with open_warehouse(own_demo.settings) as warehouse:
        yield Copy(own_demo, project, warehouse)


def test_a_snapshot_and_an_incremental_model_are_recorded_with_their_rows(copy: Copy) -> None:
    chosen = ["build", "--select", "hotel_list", "hotel_states", "hotel_times", "growing"]
    copy.build(*chosen)
    count = copy.rows("select count(*) from marts.hotel_list")[0][0]
    assert count > 10
    listed = "marts.hotel_list"
    first = copy.edges("marts.growing")
    assert first == {(listed, name, name, "IDENTITY") for name in ("licence_no", "rooms")}, "nothing was there before"

    # Other rooms, and one hotel that is gone.
    gone = copy.rows("select rooms from marts.hotel_list group by rooms having count(*) = 1 limit 1")[0][0]
    copy.build(*chosen, "--vars", f"{{times: 2, without: {gone}}}")
    for target, rows in [("staging.hotel_states", 2 * count), ("marts.growing", None)]:
        writes = copy.rows(
            "select transaction_id::text, rows_out, (detail ->> 'kept')::boolean, code ->> 'checksum', inputs -> 0 ->> 'name'"
            f" from lineage.write where target = '{target}' order by id"
        )
        there = copy.rows(f"select xmin::text, count(*) from {target} group by 1")
        assert {transaction for transaction, *_ in writes} >= {xmin for xmin, _ in there}
        assert len(writes) == 2
        assert [kept for _, _, kept, *_ in writes] == [False, True]
        assert writes[1][1] == sum(number for _, number in there)
        assert rows is None or writes[1][1] == rows
        assert {name for *_, name in writes} == {listed}
    assert copy.rows("select count(*) > 0 from staging.hotel_states where dbt_is_deleted = 'True'") == [(True,)]

    states = copy.edges("staging.hotel_states")
    own = {edge for edge in states if (edge[2] or "").startswith("dbt_") and edge[0] == listed}
    assert own == {
        (listed, "licence_no", "dbt_scd_id", "TRANSFORMATION"),
        (listed, "licence_no", "dbt_valid_to", "CONDITIONAL"),
        (listed, "rooms", "dbt_valid_to", "CONDITIONAL"),
        (listed, "hotel_name", "dbt_valid_to", "CONDITIONAL"),
        (listed, "licence_no", "dbt_is_deleted", "CONDITIONAL"),
    }
    assert {edge for edge in states if edge[2] is None} == {
        (listed, "licence_no", None, "JOIN"), (listed, "rooms", None, "FILTER"), (listed, "hotel_name", None, "FILTER"),
    }  # fmt: skip
    columns = [name for (name,) in copy.rows(
        "select attname from pg_attribute where attrelid = 'staging.hotel_states'::regclass and attnum > 0"
    )]  # fmt: skip
    # The rows that were there remain, with every column.
    itself = {(target, column) for source, column, target, _ in states if source == "staging.hotel_states"}
    assert itself == {(name, name) for name in columns}
    times = {edge for edge in copy.edges("staging.hotel_times") if edge[0] == listed}
    assert {edge[1:] for edge in times if edge[2] in ("dbt_updated_at", "dbt_valid_from")} == {
        ("issued_on", "dbt_updated_at", "IDENTITY"), ("issued_on", "dbt_valid_from", "IDENTITY"),
    }  # fmt: skip
    growing = copy.edges("marts.growing")
    assert ("marts.growing", "rooms", "rooms", "IDENTITY") in growing
    assert ("marts.growing", "rooms", None, "FILTER") in growing

    # What leads back to itself does not keep a trace from ending where the values came from.
    for asked in ("growing.rooms", "hotel_states.rooms"):
        told = copy.demo.dopa("trace", asked, "--up")
        assert told.returncode == 0, told.stderr
        assert listed in told.stdout and "legal_affairs/hotel_licence" in told.stdout, told.stdout
        assert copy.demo.dopa("trace", asked, "--up", "--format", "svg").returncode == 0

    assert copy.findings() == []
    with copy.warehouse.connect(Role.TRANSFORMER) as connection:
        connection.execute("update staging.hotel_states set rooms = rooms + 1 where rooms > 5")
        connection.commit()
    assert any("staging.hotel_states" in message for message in copy.findings())


def test_work_on_snapshots_and_seeds_that_fails_is_told(copy: Copy) -> None:
    (copy.project / "snapshots" / "hotels.yml").write_text(SNAPSHOTS.replace("unique_key: licence_no", "unique_key: nothing"))
    (copy.project / "seeds" / "wrong.csv").write_text("code,amount\n1,x\n")
    (copy.project / "seeds" / "wrong.yml").write_text("seeds:\n  - name: wrong\n    config: {column_types: {amount: integer}}\n")
    before = copy.rows("select max(id) from lineage.write")
    done = copy.dbt("build", "--select", "hotel_states", "wrong")
    assert done.returncode == 1, done.stdout
    assert copy.rows("select max(id) from lineage.write") == before
    told = copy.rows(
        "select s.target, w.state from lineage.work s join lineage.work w using (work)"
        " where s.target in ('staging.wrong', 'staging.hotel_states') and s.state = 'START' order by 1, w.id"
    )
    assert told == [(f"staging.{name}", state) for name in ("hotel_states", "wrong") for state in ("START", "FAIL")]
    assert copy.rows("select to_regclass('staging.wrong')") == [(None,)]


def test_a_seed_comes_from_its_file(copy: Copy) -> None:
    """As `dopa demo` built it, through Dagster."""
    ((transaction, rows_in, rows_out, checksum, inputs),) = copy.rows(
        "select transaction_id::text, rows_in, rows_out, code ->> 'checksum', inputs from lineage.write"
        " where target = 'staging.province_region'"
    )
    assert copy.rows("select distinct xmin::text from staging.province_region") == [(transaction,)]
    assert (rows_in, rows_out) == (77, 77)
    file = "dbt_project/seeds/province_region.csv"
    assert [(item["namespace"], item["name"]) for item in inputs] == [("file", file)]
    with Project(copy.demo.settings) as project:
        (seed,) = [model for model in project.models if model.is_seed]
    assert seed.checksum == checksum
    fields = ("province_code", "region_code", "region_th", "region_en")
    assert copy.edges("staging.province_region") == {(file, name, name, "IDENTITY") for name in fields}
    told = copy.demo.dopa("trace", "dim_province.region_th", "--up").stdout
    assert file in told
    assert "file of the project" in copy.demo.dopa("trace", "dim_province", "--up").stdout

    copy.build("seed")
    assert copy.rows("select count(*) from lineage.write where target = 'staging.province_region'") == [(2,)]
    assert copy.findings() == []
    with copy.warehouse.connect(Role.TRANSFORMER) as connection:
        record_events(connection, column_edges=edges_into)
        connection.commit()
        events = [event for (event,) in connection.execute(
            "select lineage.whole_event(event) from lineage.event"
            " where event -> 'job' ->> 'name' = 'dbt.seed.dopa.province_region' order by id"
        ).fetchall()]  # fmt: skip
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"] * 2
    assert {event["job"]["facets"]["jobType"]["jobType"] for event in events} == {"SEED"}
    assert {event["inputs"][0]["name"] for event in events} == {file}
    assert set(events[-1]["outputs"][0]["facets"]["columnLineage"]["fields"]) == set(fields)
