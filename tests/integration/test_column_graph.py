"""The column graph of real writes: what it says, what it costs to say it again, and how it is asked."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import uuid
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.columngraph import contract_edges, pending, record_columns, record_imported
from dopa_pipelines.lineage.columntrace import Place, as_json, definitions, edges_into, find_place, moment, walk
from dopa_pipelines.lineage.model import ColumnEdge
from dopa_pipelines.lineage.naming import DatasetName, release
from dopa_pipelines.lineage.store import identity, record_write
from dopa_pipelines.warehouse import Role, Warehouse

ROOT = Path(__file__).resolve().parents[2]
GRAPH = ("dataset", "field", "definition", "column_edge")
PEOPLE = [
    {"name": "pid", "physicalName": "เลขประจำตัวประชาชน", "parse": "citizen_number", "primaryKey": True, "primaryKeyPosition": 1,
     "required": True, "classification": "personal", "pdpaRole": "direct_identifier"},
    {"name": "full_name", "physicalName": "ชื่อ", "classification": "personal", "pdpaRole": "direct_identifier"},
    {"name": "born", "physicalName": "วันเกิด", "logicalType": "date", "physicalType": "date", "parse": "be_date_ymd",
     "partial": True, "classification": "personal", "pdpaRole": "quasi_identifier"},
    {"name": "area", "physicalName": "area", "parse": "code"},
]  # fmt: skip


@dataclass
class Department:
    """A silo's table and models on it, named for one test; models are written as dbt's post-hook records them."""

    warehouse: Warehouse
    table: Any
    name: str

    def load(self, **changes: Any) -> None:
        done = self.table.deliver("เลขประจำตัวประชาชน,ชื่อ,วันเกิด,area\n1101700230708,สมชาย,25201231,1001\n", **changes)
        assert done.status in ("loaded", "unchanged"), done.problem

    def model(self, name: str, sql: str, inputs: list[str], *, create: bool = True, environment: str = "production") -> int:
        target = f"marts.{self.name}_{name}"
        sql = sql.format(raw=f"raw.{self.name}", marts=f"marts.{self.name}")
        with self.warehouse.connect(Role.TRANSFORMER) as connection:
            if create:
                connection.execute(f"drop table if exists {target} cascade".encode())
                connection.execute(f"create table {target} as {sql}".encode())
            checksum = hashlib.sha256(sql.encode()).hexdigest()
            write = record_write(
                connection, kind="model", target=target, version=checksum, environment=environment,
                code={"compiled": sql, "checksum": checksum, "path": f"models/{name}.sql", "unique_id": f"model.dopa.{name}"},
                inputs=[{"name": item.format(raw=f"raw.{self.name}", marts=f"marts.{self.name}")} for item in inputs],
            )  # fmt: skip
            connection.commit()
        return write

    def record(self) -> int:
        with self.warehouse.connect() as connection:
            count = record_columns(connection)
            connection.commit()
        return count

    def dataset(self, target: str) -> DatasetName:
        with self.warehouse.connect() as connection:
            return identity(connection).of_target(target)

    def edges(self, target: str, at: datetime | None = None) -> set[tuple[str, str, str | None, str]]:
        """Edges into a dataset, its own prefix left out of the names."""
        with self.warehouse.connect(Role.READER) as connection:
            found = edges_into(connection, self.dataset(target), at)
        return {
            (
                edge.source.name.replace(self.name, "").replace("warehouse.", ""),
                edge.source_column,
                edge.target_column,
                edge.subtype,
            )
            for edge in found
        }


@pytest.fixture
def department(warehouse: Warehouse, table: Callable[..., Any]) -> Department:
    name = f"g{uuid.uuid4().hex[:8]}"
    made = Department(warehouse, table(name, PEOPLE), name)
    # What other tests wrote into the warehouse that they share.
    made.record()
    made.load()
    return made


def sizes(connection: psycopg.Connection[Any]) -> dict[str, int]:
    return {name: connection.execute(f"select count(*) from lineage.{name}".encode()).fetchone()[0] for name in GRAPH}  # type: ignore[index]


def test_each_edge_from_the_field_of_the_silo_to_the_published_one(department: Department, warehouse: Warehouse) -> None:
    here = department
    here.model("people", "select pid, upper(full_name) as n, born_year, area from {raw} where born is not null", ["{raw}"])
    here.model(
        "areas", "select area, count(*) as people, md5(min(pid)) as any_one from {marts}_people group by area", ["{marts}_people"]
    )
    with warehouse.connect() as connection:
        record_write(
            connection, kind="release", target=f"release:{here.name}", version="1.0.0",
            inputs=[{"name": f"marts.{here.name}_areas"}], code={"checksum": "p1"},
            detail={"version": "2026-11-01-aa", "columns": [{"name": "area_code", "type": "string", "source": "area"}]},
        )  # fmt: skip
        connection.commit()
    assert here.record() == 5  # feed, table, two models, release
    feed = "testing/"
    assert here.edges(f"raw.{here.name}") == {
        (feed, "เลขประจำตัวประชาชน", "pid", "TRANSFORMATION"),
        (feed, "ชื่อ", "full_name", "IDENTITY"),
        (feed, "วันเกิด", "born", "TRANSFORMATION"),
        (feed, "วันเกิด", "born_year", "TRANSFORMATION"),
        (feed, "วันเกิด", "born_month", "TRANSFORMATION"),
        (feed, "area", "area", "TRANSFORMATION"),
    }
    assert here.edges(f"marts.{here.name}_people") == {
        ("raw.", "pid", "pid", "IDENTITY"),
        ("raw.", "full_name", "n", "TRANSFORMATION"),
        ("raw.", "born_year", "born_year", "IDENTITY"),
        ("raw.", "area", "area", "IDENTITY"),
        ("raw.", "born", None, "FILTER"),
    }
    assert here.edges(f"release:{here.name}") == {("marts._areas", "area", "area_code", "IDENTITY")}
    with warehouse.connect(Role.READER) as connection:
        up = walk(connection, Place(release(here.name), "area_code"))
        assert [steps for place, steps in up.distance.items()] == [0, 1, 2, 3, 4]
        assert {place.dataset.name.rpartition(".")[2]: mark for place, mark in up.marks().items() if place in up.distance} == {}
        down = walk(connection, Place(here.dataset(f"raw.{here.name}"), "pid"), "down")
        # What is only hashed or counted is personal no more, what is copied is.
        marked = {(place.dataset.name.partition("_")[2], place.column): mark for place, mark in down.marks().items()}
        assert marked["people", "pid"] == "derived"
        assert ("areas", "any_one") not in marked
        assert ("areas", "people") not in marked
        assert [edge.masking for edge in down.edges if edge.target_column == "any_one"] == [True]
        # It decides no rows directly, but what the column of the rows' filter goes into is told apart.
        born = walk(connection, Place(here.dataset(f"raw.{here.name}"), "born"), "down")
        assert born.edges == ()
        assert [(edge.target_column, edge.subtype) for edge in born.indirect] == [(None, "FILTER")]
        far = walk(connection, Place(here.dataset(f"raw.{here.name}"), "born"), "down", indirect=True)
        assert Place(release(here.name), "area_code") in far.distance
        nearest = walk(connection, Place(release(here.name), "area_code"), depth=2)
        assert max(nearest.distance.values()) == 2
        assert nearest.hidden == {Place(here.dataset(f"marts.{here.name}_people"), "area"): 1}


def test_what_did_not_change_adds_nothing_and_of_a_change_only_what_differs(department: Department, warehouse: Warehouse) -> None:
    here = department
    sql = "select pid, area, born_year from {raw}"
    here.model("people", sql, ["{raw}"])
    here.record()
    with warehouse.connect(Role.READER) as connection:
        before = sizes(connection)
        assert not pending(connection)
    for _ in range(3):
        here.model("people", sql, ["{raw}"])
        here.load()
        assert here.record() == 0
    assert here.record() == 0
    then = datetime.now().astimezone()
    with warehouse.connect(Role.READER) as connection:
        assert sizes(connection) == before
    here.model("people", "select pid, area, born_year + 543 as born_year from {raw}", ["{raw}"])
    assert here.record() == 1
    with warehouse.connect(Role.READER) as connection:
        after = sizes(connection)
        closed = connection.execute(
            "select count(*) from lineage.column_edge where valid_to > %s and valid_to < 'infinity'", (then,)
        )
        assert closed.fetchone() == (1,)
    assert {name: after[name] - before[name] for name in GRAPH} == {"dataset": 0, "field": 0, "definition": 1, "column_edge": 1}
    target = f"marts.{here.name}_people"
    assert ("raw.", "born_year", "born_year", "IDENTITY") in here.edges(target, then)
    assert ("raw.", "born_year", "born_year", "TRANSFORMATION") in here.edges(target)
    assert len(here.edges(target)) == len(here.edges(target, then)) == 3


def test_as_of_then_the_graph_and_the_code_were_others(department: Department, warehouse: Warehouse) -> None:
    here = department
    first = here.model("people", "select full_name as shown from {raw}", ["{raw}"])
    here.record()
    then = datetime.now().astimezone()
    second = here.model("people", "select area as shown from {raw}", ["{raw}"])
    here.record()
    target = here.dataset(f"marts.{here.name}_people")
    with warehouse.connect(Role.READER) as connection:
        for at, write, column in ((then, first, "full_name"), (None, second, "area")):
            found = walk(connection, Place(target, "shown"), at=at)
            assert next(edge.source_column for edge in found.edges if edge.target == target) == column
            made = found.definitions[target]
            assert made.write == write
            assert made.code["checksum"] == made.version
            told = as_json(found)
            assert told["as_of"] == (at.isoformat() if at else None)
        with pytest.raises(UserError, match=r"were not known at 2020-01-02 23:59"):
            walk(connection, Place(target, "shown"), at=moment(connection, "2020-01-02"))
        with pytest.raises(UserError, match=r"has no column 'nothing'; it has shown$"):
            walk(connection, Place(target, "nothing"))


def test_times_as_people_say_them(department: Department, warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        target = f"release:{department.name}"
        record_write(connection, kind="release", target=target, detail={"version": f"2026-11-01-{department.name}"})
        connection.commit()
        (made,) = connection.execute("select written_at from lineage.write where target = %s", (target,)).fetchone()  # type: ignore[misc]
        assert moment(connection, target) == moment(connection, f"2026-11-01-{department.name}") == made
        assert moment(connection, "2026-11-01").isoformat() == "2026-11-01T23:59:59.999999+07:00"
        assert moment(connection, "2026-11-01T08:30").isoformat() == "2026-11-01T08:30:00+07:00"
        assert moment(connection, "2026-11-01T08:30Z").utcoffset().total_seconds() == 0  # type: ignore[union-attr]
        with pytest.raises(UserError, match="'yesterday' is no time: give a date"):
            moment(connection, "yesterday")


def test_what_cannot_be_resolved_is_said_and_not_guessed(department: Department, warehouse: Warehouse) -> None:
    here = department
    here.model("odd", "select pid, area\nfrom {raw}, pg_get_keywords() as k", ["{raw}"])
    here.model("after", "select area as a from {marts}_odd", ["{marts}_odd"])
    here.record()
    odd = here.dataset(f"marts.{here.name}_odd")
    with warehouse.connect(Role.READER) as connection:
        made = definitions(connection, [odd])[odd]
    assert made.problem is not None
    assert made.problem["line"] == 2
    assert made.problem["construct"] == "function pg_get_keywords in FROM"
    assert here.edges(f"marts.{here.name}_odd") == set()
    # What stands on it is resolved all the same, over the columns that the catalog has.
    assert made.columns == ("pid", "area")
    assert here.edges(f"marts.{here.name}_after") == {("marts._odd", "area", "a", "IDENTITY")}
    here.model("odd", "select pid, area from {raw}", ["{raw}"])
    here.record()
    with warehouse.connect(Role.READER) as connection:
        assert definitions(connection, [odd])[odd].problem is None


def test_a_model_is_read_over_the_columns_known_then(department: Department) -> None:
    here = department
    here.model("one", "select pid from {raw}", ["{raw}"])
    here.model("two", "select * from {marts}_one", ["{marts}_one"])
    here.model("one", "select pid, area from {raw}", ["{raw}"])
    # All at once: the second was made before the first got its new column.
    here.record()
    assert {edge[2] for edge in here.edges(f"marts.{here.name}_two")} == {"pid"}
    here.model("two", "select * from {marts}_one", ["{marts}_one"])
    assert here.record() == 1
    assert {edge[2] for edge in here.edges(f"marts.{here.name}_two")} == {"pid", "area"}


def test_tables_of_others_seeds_and_incremental_models(department: Department, warehouse: Warehouse) -> None:
    here = department
    with warehouse.connect(Role.TRANSFORMER) as connection:
        connection.execute(f"create table marts.{here.name}_seed (code text, label text)".encode())
        connection.commit()
    sql = "select r.pid, s.label from {raw} r join {marts}_seed s on s.code = r.area"
    here.model("labelled", sql, ["{raw}", "{marts}_seed"])
    more = " where r.pid > (select max(pid) from {marts}_labelled)"
    here.model("labelled", sql + more, ["{raw}", "{marts}_seed"], create=False)
    here.record()
    found = here.edges(f"marts.{here.name}_labelled")
    assert {("raw.", "pid", "pid", "IDENTITY"), ("marts._seed", "label", "label", "IDENTITY")} <= found
    assert ("marts._labelled", "pid", None, "FILTER") in found
    with warehouse.connect(Role.TRANSFORMER) as connection:
        connection.execute(f"alter table marts.{here.name}_seed add column more text".encode())
        connection.commit()
        up = walk(connection, Place(here.dataset(f"marts.{here.name}_labelled"), "label"))
        assert [place.column for place in up.distance] == ["label", "label"]
    here.model("labelled", sql + more, ["{raw}", "{marts}_seed"], create=False)
    # The columns of a table that nobody here writes are looked up again.
    assert here.record() == 2


def test_a_contract_that_changes_closes_and_opens_its_edges(warehouse: Warehouse, table: Callable[..., Any]) -> None:
    name = f"g{uuid.uuid4().hex[:8]}"
    here = Department(warehouse, table(name, PEOPLE), name)
    here.load()
    here.record()
    then = datetime.now().astimezone()
    renamed = [*PEOPLE[:3], {"name": "area_code", "physicalName": "area", "parse": "code", "renamedFrom": "area"}]
    here.table = table(name, renamed, version="2.0.0")
    here.load()
    here.record()
    assert ("testing/", "area", "area", "TRANSFORMATION") in here.edges(f"raw.{name}", then)
    now = here.edges(f"raw.{name}")
    assert ("testing/", "area", "area_code", "TRANSFORMATION") in now
    assert len(now) == 6
    dataset = here.dataset(f"raw.{name}")
    with warehouse.connect(Role.READER) as connection:
        assert definitions(connection, [dataset])[dataset].version == "2.0.0"
        assert definitions(connection, [dataset], then)[dataset].version == "1.0.0"
        said = {item["name"]: item for item in definitions(connection, [dataset])[dataset].fields}
        assert (said["pid"]["classification"], said["pid"]["pdpa_role"]) == ("personal", "direct_identifier")


def test_a_column_that_was_renamed_is_followed_by_what_was_made_of_it(warehouse: Warehouse, table: Callable[..., Any]) -> None:
    """PostgreSQL rewrites a view on the column by itself; nothing builds it anew."""
    name = f"g{uuid.uuid4().hex[:8]}"
    here = Department(warehouse, table(name, PEOPLE), name)
    here.load()
    with warehouse.connect(Role.TRANSFORMER) as connection:
        sql = f"select area as code, full_name from raw.{name} where area > '1'"
        connection.execute(f"create view marts.{name}_seen as {sql}".encode())
        code = {"compiled": sql, "checksum": hashlib.sha256(sql.encode()).hexdigest(), "path": "models/seen.sql"}
        record_write(
            connection, kind="model", target=f"marts.{name}_seen", code=code, inputs=[{"name": f"raw.{name}"}],
            detail={"materialized": "view"},
        )  # fmt: skip
        connection.commit()
    here.record()
    before = here.edges(f"marts.{name}_seen")
    assert {("raw.", "area", "code", "IDENTITY"), ("raw.", "area", None, "FILTER")} <= before
    then = datetime.now().astimezone()
    renamed = [*PEOPLE[:3], {"name": "area_code", "physicalName": "area", "parse": "code", "renamedFrom": "area"}]
    here.table = table(name, renamed, version="2.0.0")
    here.load()
    here.record()
    after = {
        (source, column.replace("area_code", "area"), target, how)
        for source, column, target, how in here.edges(f"marts.{name}_seen")
    }
    assert after == before
    assert {column for _, column, _, _ in here.edges(f"marts.{name}_seen")} == {"area_code", "full_name"}
    assert here.edges(f"marts.{name}_seen", then) == before
    with warehouse.connect() as connection:
        # PostgreSQL's own word for what the view reads.
        assert connection.execute(
            "select array_agg(column_name::text order by 1) from information_schema.view_column_usage where view_name = %s",
            (f"{name}_seen",),
        ).fetchone() in ((["area_code", "full_name"],), (None,))  # only an owner of the table sees it
        assert [place.column for place in walk(connection, Place(here.dataset(f"marts.{name}_seen"), "code")).distance] == [
            "code", "area_code", "area",
        ]  # fmt: skip


def test_a_row_rule_decides_by_its_columns_which_rows_come_in(warehouse: Warehouse, table: Callable[..., Any]) -> None:
    name = f"g{uuid.uuid4().hex[:8]}"
    rule = {"name": "ended_after_it_began", "type": "custom", "engine": "polars", "implementation": "ended >= began"}
    columns = [{"name": "began", "physicalName": "เริ่ม"}, {"name": "ended"}, {"name": "n"}]
    here = Department(warehouse, table(name, columns, quality=[rule]), name)
    assert here.table.deliver("เริ่ม,ended,n\n1,2,x\n3,2,y\n").rows_quarantined == 1
    here.record()
    filters = {edge[:3] for edge in here.edges(f"raw.{name}") if edge[3] == "FILTER"}
    assert filters == {("testing/", "เริ่ม", None), ("testing/", "ended", None)}


def test_a_reference_decides_which_rows_come_in(warehouse: Warehouse, table: Callable[..., Any]) -> None:
    name = f"g{uuid.uuid4().hex[:8]}"
    areas = table(f"{name}_areas", [{"name": "code", "primaryKey": True, "primaryKeyPosition": 1, "required": True}])
    to = [{"type": "foreignKey", "to": f"{name}_areas.code"}]
    people = table(name, [{"name": "area", "relationships": to}, {"name": "n"}])
    here = Department(warehouse, people, name)
    people.deliver("area,n\n1,x\n")
    here.record()
    assert not [edge for edge in here.edges(f"raw.{name}") if edge[3] == "FILTER"]  # not loaded, so not checked
    areas.deliver("code\n1\n")
    people.deliver("area,n\n1,y\n")
    here.record()
    assert [edge for edge in here.edges(f"raw.{name}") if edge[3] == "FILTER"] == [("raw._areas", "code", None, "FILTER")]


def test_a_write_that_commits_late_is_not_missed(department: Department, warehouse: Warehouse) -> None:
    here = department
    here.record()
    with warehouse.connect(Role.TRANSFORMER) as slow:
        record_write(
            slow, kind="model", target=f"marts.{here.name}_slow", inputs=[{"name": f"raw.{here.name}"}],
            code={"compiled": f"select area from raw.{here.name}", "checksum": "slow"},
        )  # fmt: skip
        here.model("quick", "select area from {raw}", ["{raw}"])
        assert here.record() == 1
        slow.commit()
    assert here.record() == 1
    assert here.edges(f"marts.{here.name}_slow") == {("raw.", "area", "area", "IDENTITY")}


def test_only_production_is_in_the_graph(department: Department) -> None:
    here = department
    here.record()
    here.model("mine", "select area from {raw}", ["{raw}"], environment="dev")
    assert here.record() == 0
    assert here.edges(f"marts.{here.name}_mine") == set()


def test_the_graph_can_be_made_again_from_the_writes(department: Department, warehouse: Warehouse) -> None:
    here = department
    here.model("people", "select pid, area from {raw}", ["{raw}"])
    here.record()
    here.model("people", "select pid, born as area from {raw}", ["{raw}"])
    here.record()
    told = (
        "select d.name, s.name, t.name, e.subtype::text, e.masking, e.valid_from, e.valid_to::text from lineage.column_edge e"
        " join lineage.field s on s.id = e.source_id join lineage.field t on t.id = e.target_id"
        " join lineage.dataset d on d.id = t.dataset_id where position(%s in d.name) > 0 order by 1, 2, 3, 4, 6"
    )
    with warehouse.connect(Role.OWNER) as connection:
        before = connection.execute(told, (here.name,)).fetchall()
        connection.execute(
            "truncate lineage.columns_seen, lineage.column_edge, lineage.definition, lineage.field, lineage.dataset"
        )
        # As where these tables are new and the writes are old.
        assert record_columns(connection) > 0
        assert connection.execute(told, (here.name,)).fetchall() == before
        assert len(before) > 8
        connection.rollback()


def test_other_systems_tell_where_the_silos_fields_come_from(department: Department, warehouse: Warehouse) -> None:
    here = department
    here.record()
    feed, theirs = DatasetName("file", f"testing/{here.name}"), DatasetName("oracle://reg:1521", f"REG.{here.name}")
    base = DatasetName("oracle://reg:1521", f"REG.base_{here.name}")
    raw = here.dataset(f"raw.{here.name}")
    edges = [
        ColumnEdge(theirs, "NAME", feed, "ชื่อ", "IDENTITY"),
        ColumnEdge(base, "NAME", theirs, "NAME", "TRANSFORMATION"),
        ColumnEdge(theirs, "NAME", raw, "full_name", "IDENTITY"),
    ]
    event = "select lineage.record_event(null, null, %s)"
    tomorrow = json.dumps({"eventTime": "2999-01-01T00:00:00Z"})
    with warehouse.connect() as connection:
        for expected in (2, 0):
            (number,) = connection.execute(event, (tomorrow,)).fetchone()  # type: ignore[misc]
            new = record_imported(connection, number, edges, {base: ["NAME", "ID"]})
            connection.commit()
            assert new >= expected
        # A contract that changes says the fields anew, not where they come from; and we know best what we write.
        here.table.contract = replace(here.table.contract, version="9.0.0")
        here.load()
        here.record()
        assert edges_into(connection, feed) == edges[:1]
        assert not any(edge.source == theirs for edge in edges_into(connection, raw))
        up = walk(connection, Place(raw, "full_name"))
        assert [place.column for place in up.distance] == ["full_name", "ชื่อ", "NAME", "NAME"]
        assert up.definitions[theirs].kind == "external"
        record_imported(connection, number, [])
        assert edges_into(connection, feed) == edges[:1]


@pytest.mark.parametrize("role", [Role.LOADER, Role.TRANSFORMER, Role.READER])
def test_nobody_changes_the_graph_by_hand(warehouse: Warehouse, role: Role) -> None:
    for statement in (
        "update lineage.column_edge set masking = true",
        "delete from lineage.definition",
        "insert into lineage.dataset (namespace, name) values ('x', 'y')",
        "delete from lineage.columns_seen",
        "truncate lineage.field",
    ):
        with warehouse.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
    if role is Role.READER:
        with warehouse.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select lineage.columns_looked_at('1:1:')")


# The project


def reachable(edges: dict[Any, set[Any]], start: Any) -> set[Any]:
    """Everything on the way from a place, by plain search."""
    seen, queue = {start}, deque([start])
    while queue:
        for other in edges.get(queue.popleft(), ()):
            if other not in seen:
                seen.add(other)
                queue.append(other)
    return seen


@pytest.fixture(scope="module")
def reader(demo: Any) -> Iterator[psycopg.Connection[Any]]:
    from dopa_pipelines.warehouse import open_warehouse

    with open_warehouse(demo.settings) as opened, opened.connect(Role.READER) as connection:
        yield connection


def test_the_demo_is_resolved_from_silo_to_extract(reader: psycopg.Connection[Any]) -> None:
    """Every edge of the project is that of its compiled models, contracts and publications, which are analyzed here anew."""
    from dopa_pipelines.lineage.columns import Schema, analyze
    from dopa_pipelines.lineage.columns.project import raw_schema

    contracts = list(load_contracts(ROOT / "assets"))
    named = identity(reader)
    expected: set[ColumnEdge] = set()
    for contract in contracts:
        table = named.table(contract.table)
        expected |= set(contract_edges(contract, table, DatasetName(*contract.feed))[1])
        for column in contract.columns:
            if column.reference:
                source = named.table(f"raw.{column.reference.dataset}")
                expected.add(ColumnEdge(source, column.reference.column, table, None, "FILTER"))
    known = Schema(tables=dict(raw_schema(contracts).tables))
    writes = reader.execute(
        "select distinct on (target) target, kind, code ->> 'compiled', detail -> 'columns', inputs from lineage.write"
        " where kind in ('model', 'release') order by target, id desc"
    ).fetchall()
    models = {target: sql for target, kind, sql, _, _ in writes if kind == "model"}
    order = [target for target in models if target.startswith("staging")]
    order += [row[0] for row in reader.execute("select target from lineage.write where kind = 'model' order by id").fetchall()]
    for target in dict.fromkeys(order):
        if models[target] is None:  # a seed
            file = DatasetName("file", f"dbt_project/seeds/{target.partition('.')[2]}.csv")
            names = (ROOT / file.name).read_text("utf-8").splitlines()[0].split(",")
            known.add(target, dict.fromkeys(names, "text"))
            expected |= {ColumnEdge(file, name, named.table(target), name, "IDENTITY") for name in names}
            continue
        lineage = analyze(models[target], known)
        known.add(target, dict.fromkeys((title for title, _ in lineage.columns), "unknown"))
        for title, edges in [*lineage.columns, (None, lineage.dataset)]:
            expected |= {
                ColumnEdge(named.table(edge.table), edge.column, named.table(target), title, str(edge.subtype), edge.masking)
                for edge in edges
            }
    for target, kind, _, columns, inputs in writes:
        if kind == "release":
            source = named.canonical(inputs[0].get("namespace"), inputs[0]["name"])
            expected |= {ColumnEdge(source, c["source"], named.of_target(target), c["name"], "IDENTITY") for c in columns}
    rows = reader.execute("select namespace, name from lineage.dataset").fetchall()
    found = {edge for row in rows for edge in edges_into(reader, DatasetName(*row))}
    assert found == expected
    assert len(found) > 500
    assert reader.execute("select count(*) from lineage.definition where problem is not null").fetchone() == (0,)

    # The walk, either way, is what a plain search finds.
    direct = [edge for edge in found if edge.subtype in ("IDENTITY", "TRANSFORMATION", "AGGREGATION")]
    up: dict[Place, set[Place]] = {}
    down: dict[Place, set[Place]] = {}
    for edge in direct:
        up.setdefault(Place(edge.target, edge.target_column), set()).add(Place(edge.source, edge.source_column))
        down.setdefault(Place(edge.source, edge.source_column), set()).add(Place(edge.target, edge.target_column))
    for place in (*list(up)[::40], *list(down)[::40]):
        assert set(walk(reader, place, "up").distance) == reachable(up, place)
        assert set(walk(reader, place, "down").distance) == reachable(down, place)


@pytest.mark.parametrize(
    ("typed", "direction", "dataset", "column"),
    [
        ("hotels_licensed.hotel_name", "up", "releases/hotels_licensed", "hotel_name"),
        ("hotels_licensed.hotel_name", "down", "warehouse.open_data.hotels_licensed", "hotel_name"),
        ("person_register.birth_date", "up", "warehouse.raw.person_register", "birth_date"),
        ("marts.hotels.rooms", "up", "warehouse.marts.hotels", "rooms"),
        ("release:hotels_licensed", "up", "releases/hotels_licensed", None),
        ("registration/person_register.ชื่อตัว", "down", "registration/person_register", "ชื่อตัว"),
        ("marts.hotels", "up", "warehouse.marts.hotels", None),
        ("hotels", "up", "warehouse.marts.hotels", None),
    ],
)
def test_columns_as_people_type_them(
    reader: psycopg.Connection[Any], typed: str, direction: Any, dataset: str, column: str | None
) -> None:
    place = find_place(reader, typed, direction)
    assert place is not None
    assert (place.dataset.name, place.column) == (dataset, column)


def test_a_person_reads_the_way_of_a_column(demo: Any) -> None:
    up = demo.dopa("trace", "population_by_district.total").stdout
    lines = [line.strip("│├└─ ") for line in up.splitlines()]
    assert lines[0].startswith("release:population_by_district.total  release ")
    assert lines[1].startswith("open_data.population_by_district.total  IDENTITY  model ")
    assert any(line.startswith("raw.population_area.total  TRANSFORMATION  contract 1.0.0, since ") for line in lines)
    assert lines.index("registration/population_area.TOTAL  TRANSFORMATION") < lines.index(
        "Rows and values also depend on (INDIRECT):"
    )
    assert "raw.area_code.code  FILTER" in lines
    down = demo.dopa("trace", "raw.person_register.birth_date", "--down", "--json")
    told = json.loads(down.stdout)
    assert (told["dataset"], told["column"], told["direction"]) == ("raw.person_register", "birth_date", "down")
    marks = {(item["dataset"], item["column"]): item["personal"] for item in told["columns"]}
    assert marks["raw.person_register", "birth_date"] == "contract"
    assert marks["staging.stg_person_register", "birth_date"] == "derived"
    staged = next(item for item in told["datasets"] if item["name"] == "staging.stg_person_register")
    assert re.fullmatch("[0-9a-f]{64}", staged["code"]["checksum"])
    wrong = demo.dopa("trace", "marts.hotels.nosuch")
    assert wrong.returncode == 2
    assert "marts.hotels has no column 'nosuch'; it has" in " ".join(wrong.stderr.split())


def test_a_release_is_traced_with_the_lineage_of_its_day(own_demo: Any) -> None:
    from dopa_pipelines.warehouse import open_warehouse

    name = "open_data.hotels_licensed"
    released = json.loads(own_demo.dopa("trace", "release:hotels_licensed", "--json").stdout)
    version = released["nodes"][0]["last_write"]["version"]
    with open_warehouse(own_demo.settings) as warehouse, warehouse.connect(Role.TRANSFORMER) as connection:
        sql = "select hotel_type as hotel_name from marts.hotels"
        code = {"compiled": sql, "checksum": hashlib.sha256(sql.encode()).hexdigest(), "path": "by_hand.sql"}
        record_write(connection, kind="model", target=name, code=code, inputs=[{"name": "marts.hotels"}])
        connection.commit()
    # Written without us, and in the trace all the same.
    now = json.loads(own_demo.dopa("trace", f"{name}.hotel_name", "--json").stdout)
    assert "hotel_type" in {item["column"] for item in now["columns"]}
    for as_of in (version, "release:hotels_licensed"):
        then = json.loads(own_demo.dopa("trace", "release:hotels_licensed.hotel_name", "--as-of", as_of, "--json").stdout)
        assert {item["column"] for item in then["columns"]} == {"hotel_name"}
        assert "by_hand.sql" not in {item["code"].get("path") for item in then["datasets"]}
    datasets = json.loads(own_demo.dopa("trace", name, "--as-of", version, "--json").stdout)
    assert datasets["nodes"][0]["last_write"]["run_id"] == released["nodes"][1]["last_write"]["run_id"]
    assert datasets["definitions"][0]["code"]["path"] == "models/open_data/hotels_licensed.sql"


def test_pictures_need_nothing_else(demo: Any) -> None:
    svg = demo.dopa("trace", "dim_area", "--up", "--down", "--format", "svg").stdout
    root = ET.fromstring(svg)
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"marts.dim_area", "registration/area_code", "release:area_codes", "ชื่อภาษาไทย"} <= texts
    page = demo.dopa("trace", "raw.person_register.birth_date", "--down", "--format", "html").stdout
    assert '<meta charset="utf-8">' in page
    assert "personal data, as the contract says" in page
    assert not re.search(r"<script|<link|@import|url\(|src=|href=|https?://(?!www\.w3\.org/2000/svg)", page)
    dot = demo.dopa("trace", "hotels_licensed.hotel_name", "--format", "dot").stdout
    assert dot.startswith("digraph lineage {") and "->" in dot


def test_a_trace_imports_little() -> None:
    code = (
        "import sys, dopa_pipelines.lineage.columntrace, dopa_pipelines.lineage.columngraph, dopa_pipelines.lineage.drawing;"
        "slow = ('sqlglot', 'openlineage', 'dagster', 'polars', 'dbt', 'yaml', 'pyarrow');"
        "print([m for m in sys.modules if m.partition('.')[0] in slow])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
