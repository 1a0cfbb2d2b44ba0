"""Writes recorded in a real warehouse: the graph they make and the events told of them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from dopa_pipelines.lineage.model import Column, Owner
from dopa_pipelines.lineage.naming import DatasetName, release_target
from dopa_pipelines.lineage.openlineage import record_events, run_uuid
from dopa_pipelines.lineage.store import graph, identity, record_write
from dopa_pipelines.lineage.trace import trace
from dopa_pipelines.warehouse import Role, Warehouse

RUN = "9b2d5b1e-0000-4000-8000-000000000000"


@pytest.fixture
def conn(warehouse: Warehouse) -> Iterator[psycopg.Connection[Any]]:
    """A loader's connection, whose work is thrown away."""
    with warehouse.connect(Role.LOADER) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def own() -> str:
    """A prefix of the test's own, so that what others recorded does not mix in."""
    return f"raw.t{uuid.uuid4().hex[:8]}"


def bare(own: str) -> str:
    return own.removeprefix("raw.")


def make(conn: psycopg.Connection[Any], *tables: str) -> None:
    for table in tables:
        conn.execute(f"create table {table} (pid text not null, born date)")


def department(conn: psycopg.Connection[Any], own: str) -> dict[str, int]:
    """A silo, its table, a reference, a model and a release; returns the write of each."""
    named = identity(conn)
    make(conn, f"{own}_areas", f"{own}_persons", f"{own}_people")
    feed = DatasetName("file", f"registration/{bare(own)}_persons")
    writes = {"areas": record_write(conn, kind="load", target=f"{own}_areas", rows_out=3)}
    writes["persons"] = record_write(
        conn,
        kind="load",
        target=f"{own}_persons",
        run_id=RUN,
        version="1.0.0",
        inputs=[feed, named.table(f"{own}_areas")],
        rows_in=100,
        rows_out=98,
        detail={"file": "persons_25681101.txt", "sha256": "ab" * 32},
    )
    writes["people"] = record_write(
        conn,
        kind="model",
        target=f"{own}_people",
        run_id=RUN,
        inputs=[named.table(f"{own}_persons")],
        code={"compiled": "select 1", "checksum": "f00d"},
        rows_out=7,
        detail={"unique_id": "model.dopa.people"},
    )
    writes["release"] = record_write(
        conn,
        kind="release",
        target=release_target(f"{bare(own)}_people"),
        version="2025-11",
        inputs=[named.table(f"{own}_people")],
        rows_out=7,
    )
    return writes


def pending(conn: psycopg.Connection[Any]) -> int:
    return int(
        conn.execute(
            "select count(*) from lineage.write w where environment = 'production'"
            " and not exists (select from lineage.event e where e.write_id = w.id)"
        ).fetchone()[0]  # type: ignore[index]
    )


def stored(conn: psycopg.Connection[Any], write: int) -> list[dict[str, Any]]:
    query = "select lineage.whole_event(event) from lineage.event where write_id = %s order by id"
    rows = conn.execute(query, (write,)).fetchall()
    return [event if isinstance(event, dict) else json.loads(event) for (event,) in rows]


def test_the_warehouse_is_named_once_for_good(conn: psycopg.Connection[Any]) -> None:
    named = identity(conn)
    assert named.namespace.startswith("postgres://")
    assert named.table("raw.x").name == "warehouse.raw.x"


def test_records_make_the_path_from_silo_to_extract(conn: psycopg.Connection[Any], own: str) -> None:
    writes = department(conn, own)
    walk = trace(graph(conn), f"release:{bare(own)}_people", "up")
    assert [node.label for node in walk.nodes] == [
        f"release:{bare(own)}_people",
        f"{own}_people",
        f"{own}_persons",
        f"registration/{bare(own)}_persons",
        f"{own}_areas",
    ]
    assert {node.label: node.write.id for node in walk.nodes if node.write}[f"{own}_persons"] == writes["persons"]
    persons = next(node for node in walk.nodes if node.label == f"{own}_persons").write
    assert persons is not None
    assert (persons.rows_in, persons.rows_out, persons.run_id) == (100, 98, RUN)
    assert (persons.file, persons.sha256) == ("persons_25681101.txt", "ab" * 32)
    down = trace(graph(conn), f"registration/{bare(own)}_persons", "down")
    assert down.nodes[-1].label == f"release:{bare(own)}_people"


def test_the_latest_write_of_a_table_counts(conn: psycopg.Connection[Any], own: str) -> None:
    department(conn, own)
    named = identity(conn)
    again = record_write(conn, kind="model", target=f"{own}_people", inputs=[named.table(f"{own}_areas")], rows_out=1)
    # A change of form has no inputs, and doesn't hide where the rows came from.
    record_write(conn, kind="migration", target=f"{own}_people")
    here = graph(conn)
    node = here.nodes[named.table(f"{own}_people")]
    assert node.write is not None
    assert node.write.id == again
    assert [edge.source for edge in here.inputs[node.dataset]] == [named.table(f"{own}_areas")]


def test_a_release_recorded_behind_a_newer_one_is_not_what_is_out(conn: psycopg.Connection[Any], own: str) -> None:
    target = release_target(f"{bare(own)}_people")
    out = record_write(conn, kind="release", target=target, version="1.0.0", detail={"version": "2025-11-01-aa"})
    record_write(conn, kind="release", target=target, detail={"version": "2025-10-01-bb", "superseded": True})
    write = graph(conn).nodes[identity(conn).of_target(target)].write
    assert write is not None
    assert (write.id, write.version) == (out, "2025-11-01-aa")


def test_a_dropped_table_stays_while_something_came_from_it(conn: psycopg.Connection[Any], own: str) -> None:
    department(conn, own)
    named = identity(conn)
    conn.execute(f"drop table {own}_persons")
    node = graph(conn).nodes[named.table(f"{own}_persons")]
    assert not node.exists
    make(conn, f"{own}_extra")
    record_write(conn, kind="model", target=f"{own}_extra", inputs=[named.table(f"{own}_areas")])
    assert named.table(f"{own}_extra") in graph(conn).nodes
    conn.execute(f"drop table {own}_extra")
    assert named.table(f"{own}_extra") not in graph(conn).nodes


def test_what_engineers_build_for_themselves_is_apart(conn: psycopg.Connection[Any], own: str) -> None:
    named = identity(conn)
    make(conn, f"{own}_mine")
    record_write(conn, kind="model", target=f"{own}_mine", environment="dev")
    mine = named.table(f"{own}_mine")
    assert mine not in graph(conn).nodes
    assert mine in graph(conn, environment="dev").nodes
    assert mine in graph(conn, environment=None).nodes


def test_each_write_is_told_once(conn: psycopg.Connection[Any], own: str) -> None:
    record_events(conn)  # what other tests left, work that ended without a write among it
    writes = department(conn, own)
    expected = 2 * pending(conn)
    assert expected == 2 * len(writes)
    owners = {f"{own}_persons": [Owner("user:somchai", "data_owner")]}
    extract = {release_target(f"{bare(own)}_people"): [Column("area", "string")]}
    assert record_events(conn, owners=owners, columns=extract) == expected
    assert record_events(conn, owners=owners) == 0

    start, complete = stored(conn, writes["persons"])
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    cluster, when = conn.execute("select cluster, written_at from lineage.write where id = %s", (writes["persons"],)).fetchone()  # type: ignore[misc]
    assert complete["run"]["runId"] == run_uuid(cluster, writes["persons"], when)
    output = complete["outputs"][0]
    assert [(f["name"], f["type"]) for f in output["facets"]["schema"]["fields"]] == [
        ("pid", "text"),
        ("born", "date"),
    ]
    assert output["facets"]["ownership"]["owners"][0]["name"] == "user:somchai"
    # The model reads what the load wrote, and the release what the model wrote: one graph.
    assert stored(conn, writes["people"])[1]["inputs"][0]["name"] == output["name"]
    released = stored(conn, writes["release"])[1]
    assert released["inputs"][0]["name"] == stored(conn, writes["people"])[1]["outputs"][0]["name"]
    assert released["outputs"][0]["facets"]["schema"]["fields"][0]["name"] == "area"
    # The server filled in which write was read.
    assert released["inputs"][0]["facets"]["version"]["datasetVersion"] == str(writes["people"])


def test_columns_are_not_told_of_a_form_that_was_replaced(conn: psycopg.Connection[Any], own: str) -> None:
    make(conn, f"{own}_grown")
    before = record_write(conn, kind="load", target=f"{own}_grown")
    conn.execute(f"alter table {own}_grown add column more int")
    record_write(conn, kind="migration", target=f"{own}_grown")
    after = record_write(conn, kind="load", target=f"{own}_grown")
    record_events(conn)
    assert "schema" not in stored(conn, before)[1]["outputs"][0]["facets"]
    assert len(stored(conn, after)[1]["outputs"][0]["facets"]["schema"]["fields"]) == 3


def test_hundreds_of_tables_cost_little(conn: psycopg.Connection[Any], own: str) -> None:
    named = identity(conn)
    before: list[DatasetName] = []
    for number in range(300):
        target = f"{own}_t{number}"
        conn.execute(f"create table {target} (pid text)")
        record_write(conn, kind="model", target=target, inputs=before[-5:], code={"compiled": "select 1"})
        before.append(named.table(target))
    started = time.perf_counter()
    walk = trace(graph(conn), f"{own}_t299", "up")
    traced = time.perf_counter() - started
    assert len(walk.nodes) == 300
    record_events(conn)
    told = time.perf_counter() - started - traced
    print(f"{traced=:.3f} {told=:.3f}")
    # Here about 0.02 s and 0.25 s; the bounds leave room for a busy machine.
    assert traced < 1
    assert told < 5


def test_readers_trace_and_may_not_record(warehouse: Warehouse) -> None:
    with warehouse.connect(Role.READER) as reader:
        graph(reader)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            record_write(reader, kind="model", target="marts.made_up")
