"""Names, walks and OpenLineage events, without a database."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.model import Column, Edge, Graph, Node, Owner, Write
from dopa_pipelines.lineage.naming import (
    DatasetName,
    FeedKind,
    Identity,
    release,
    release_target,
    without_credentials,
)
from dopa_pipelines.lineage.trace import TraceNode, as_json, as_tree, find, trace
from tests.lineage.published import faults

WHEN = datetime(2025, 11, 1, 20, 30, tzinfo=UTC)
HERE = Identity("postgres://embedded-777:5432", "warehouse")


def table(target: str, *, rows: int = 5) -> Node:
    write = Write(
        id=1,
        kind="load" if target.startswith("raw.") else "model",
        target=target,
        written_at=WHEN,
        written_by="dopa_loader",
        run_id="9b2d5b1e-0000-4000-8000-000000000000",
        rows_out=rows,
        file="person_register_25690101.txt" if target == "raw.person_register" else None,
        sha256="ab" * 32 if target == "raw.person_register" else None,
    )
    return Node(HERE.table(target), "table", target, write)


def department() -> Graph:
    """person_register and area_code, through two layers, to one publication of the same name as its table."""
    feed = DatasetName("file", "registration/person_register")
    raw = table("raw.person_register")
    areas = table("raw.area_code")
    staging = table("staging.person_register")
    mart = table("marts.people")
    out = table("open_data.people")
    publication = Node(release("people"), "release", release_target("people"), replace(out.write, kind="release"))  # type: ignore[type-var]
    nodes = [Node(feed, "feed", None, raw.write), raw, areas, staging, mart, out, publication]

    def edge(source: DatasetName, target: Node, kind: Any = "model") -> Edge:
        return Edge(source, target.dataset, kind)

    return Graph.of(
        nodes,
        [
            edge(feed, raw, "delivery"),
            edge(areas.dataset, raw, "reference"),
            edge(raw.dataset, staging),
            edge(staging.dataset, mart),
            edge(areas.dataset, mart),
            edge(mart.dataset, mart),
            edge(mart.dataset, out),
            edge(out.dataset, publication, "release"),
        ],
    )


def as_input(dataset: DatasetName, write: int | None = None) -> dict[str, object]:
    """A dataset as an element of ``lineage.write.inputs``."""
    return {"namespace": dataset.namespace, "name": dataset.name, "write": write}


def shape(place: TraceNode) -> Any:
    """The tree as nested tuples of labels."""
    name = place.node.label + ("*" if place.repeated else "")
    return (name, *(shape(child) for child in place.children)) if place.children else name


# names


def test_a_name_leads_back_to_what_it_names() -> None:
    for target in ("raw.person_register", "release:people"):
        assert HERE.target(HERE.of_target(target)) == target
    assert HERE.table("raw.x") == ("postgres://embedded-777:5432", "warehouse.raw.x")
    assert release("people") == ("file", "releases/people")
    assert HERE.target(DatasetName("file", "registration/person_register")) is None


@pytest.mark.parametrize("server", ["local", "api", "postgresql", "mysql"])
def test_contracts_name_their_feeds_alike(server: str) -> None:
    # A contract lies below lineage and names its feed itself.
    contract = SimpleNamespace(layout=SimpleNamespace(type=server), bureau="registration", dataset="person_register")
    named = Contract.feed.fget(contract)  # type: ignore[attr-defined]
    kind = {"local": FeedKind.FILE, "api": FeedKind.API, "postgresql": FeedKind.POSTGRES, "mysql": FeedKind.MYSQL}[server]
    assert named == (kind, "registration/person_register")


@pytest.mark.parametrize(
    ("namespace", "name", "expected"),
    [
        (None, "raw.x", "warehouse.raw.x"),
        ("", "release:people", "releases/people"),
        (HERE.namespace, "raw.x", "warehouse.raw.x"),
        (HERE.namespace, "warehouse.raw.x", "warehouse.raw.x"),
        ("postgres://other:5432", "db.raw.x", "db.raw.x"),
    ],
)
def test_inputs_written_short_or_long_are_one_dataset(namespace: str | None, name: str, expected: str) -> None:
    assert HERE.canonical(namespace, name).name == expected


def test_locations_are_told_without_credentials() -> None:
    assert (
        without_credentials("postgresql://reader:s3cret@db.example:5433/hotels?password=s3cret")
        == "postgresql://db.example:5433/hotels"
    )
    assert without_credentials("https://u:p@[::1]:8000/v1?token=t#f") == "https://[::1]:8000/v1"
    assert without_credentials("drop/registration") == "drop/registration"


# walks


def test_up_leads_from_the_extract_to_the_silo() -> None:
    walk = trace(department(), "people", "up")
    assert shape(walk.root) == (
        "release:people",
        (
            "open_data.people",
            (
                "marts.people",
                "raw.area_code",
                (
                    "staging.person_register",
                    ("raw.person_register", "registration/person_register", "raw.area_code*"),
                ),
            ),
        ),
    )
    assert len(walk.nodes) == 7
    assert {edge.kind for edge in walk.edges} == {"delivery", "reference", "model", "release"}


def test_down_leads_from_the_dataset_to_the_extract() -> None:
    walk = trace(department(), "person_register", "down")
    assert shape(walk.root) == (
        "raw.person_register",
        ("staging.person_register", ("marts.people", ("open_data.people", "release:people"))),
    )


def test_depth_keeps_what_is_near_and_counts_what_is_hidden() -> None:
    walk = trace(department(), "marts.people", "up", depth=1)
    assert shape(walk.root) == ("marts.people", "raw.area_code", "staging.person_register")
    assert [child.hidden for child in walk.root.children] == [0, 1]
    assert trace(department(), "marts.people", "up", depth=0).root.hidden == 2
    with pytest.raises(UserError, match="depth"):
        trace(department(), "marts.people", "up", depth=-1)


def test_a_limit_loses_nothing_that_a_longer_way_meets_first() -> None:
    # a is reached in three steps through b and c (met first, by name), and in one.
    names = {name: Node(HERE.table(f"s.{name}"), "table", f"s.{name}") for name in ("top", "b", "c", "z", "a", "x")}
    pairs = [("b", "top"), ("c", "b"), ("z", "c"), ("z", "top"), ("x", "z")]
    graph = Graph.of(names.values(), [Edge(names[s].dataset, names[t].dataset, "model") for s, t in pairs])
    assert shape(trace(graph, "s.top", "up", depth=2).root) == ("s.top", ("s.b", "s.c"), ("s.z", "s.x"))


def test_of_two_edges_to_a_dataset_one_is_followed() -> None:
    """Else the tree doubles with each step."""
    nodes = [table(f"marts.t{number}") for number in range(12)]
    edges = [Edge(source.dataset, target.dataset, kind) for target, source in pairwise(nodes) for kind in ("model", "imported")]
    place, steps = trace(Graph.of(nodes, edges), "marts.t0").root, 0
    while place.children:
        assert [child.repeated for child in place.children] == [False, True]
        assert not place.children[1].children
        place, steps = place.children[0], steps + 1
    assert steps == 11


def test_cycles_end() -> None:
    a, b = table("marts.a"), table("marts.b")
    graph = Graph.of([a, b], [Edge(a.dataset, b.dataset, "model"), Edge(b.dataset, a.dataset, "model")])
    for direction in ("up", "down"):
        assert shape(trace(graph, "a", direction).root) == ("marts.a", ("marts.b", "marts.a*"))


@pytest.mark.parametrize(
    ("typed", "direction", "found"),
    [
        ("person_register", "up", "raw.person_register"),
        ("person_register", "down", "raw.person_register"),
        ("staging.person_register", "up", "staging.person_register"),
        ("registration/person_register", "down", "registration/person_register"),
        ("warehouse.raw.area_code", "up", "raw.area_code"),
        ("people", "up", "release:people"),
        ("people", "down", "marts.people"),
        ("releases/people", "up", "release:people"),
        (" marts.people ", "up", "marts.people"),
    ],
)
def test_names_people_type(typed: str, direction: Any, found: str) -> None:
    assert find(department(), typed, direction).label == found


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(UserError, match=r"'person_registr'.*Did you mean .*raw\.person_register"):
        trace(department(), "person_registr")
    with pytest.raises(UserError, match=r"open_data\.people"):
        trace(department(), "opendata.people")
    with pytest.raises(UserError, match=r"'zzzzzz' was ever written here\.$"):
        trace(department(), "zzzzzz")
    with pytest.raises(UserError, match="No lineage is recorded yet"):
        trace(Graph.of([], []), "people")


def test_names_of_unrelated_datasets_are_ambiguous() -> None:
    graph = Graph.of([table("marts.people"), table("open_data.people")], [])
    with pytest.raises(UserError, match=r"may mean marts\.people, open_data\.people"):
        trace(graph, "people")


def test_the_tree_tells_when_by_whom_and_from_what() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(as_tree(trace(department(), "people", "up")))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    # 20:30 in UTC is the next day in Bangkok.
    assert "raw.person_register  2025-11-02 03:30, 5 rows, run 9b2d5b1e, from person_register_25690101.txt" in text
    assert "registration/person_register (silo)  person_register_25690101.txt sha256 abababababab" in text
    assert "raw.area_code (reference)  … shown elsewhere" in text
    assert "release:people (publication)" in text


def test_json_holds_each_dataset_and_edge_once() -> None:
    told = json.loads(json.dumps(as_json(trace(department(), "people", "up"))))
    names = [node["name"] for node in told["nodes"]]
    assert len(names) == len(set(names)) == 7
    assert {"from": "raw.area_code", "to": "raw.person_register", "kind": "reference"} in told["edges"]
    assert told["tree"]["children"][0]["name"] == "open_data.people"
    raw = next(node for node in told["nodes"] if node["name"] == "raw.person_register")
    assert raw["last_write"]["file"] == "person_register_25690101.txt"


def test_hundreds_of_datasets_take_milliseconds() -> None:
    layers = [[table(f"l{layer:02}.t{place}") for place in range(25)] for layer in range(20)]
    edges = [
        Edge(source.dataset, target.dataset, "model")
        for before, after in pairwise(layers)
        for source in before
        for target in after
    ]
    graph = Graph.of([node for layer in layers for node in layer], edges)
    started = time.perf_counter()
    walk = trace(graph, "l19.t0", "up")
    as_json(walk)
    # 11,000 edges in about 50 ms here; every path of this graph would be 25^19.
    assert time.perf_counter() - started < 2
    assert len(walk.nodes) == 19 * 25 + 1


def test_a_trace_pays_for_neither_openlineage_nor_dagster() -> None:
    code = (
        "import sys, dopa_pipelines.lineage.trace, dopa_pipelines.lineage.store;"
        "slow = ('openlineage', 'dagster', 'polars', 'dbt');"
        "print([m for m in sys.modules if m.partition('.')[0] in slow])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# OpenLineage

OWNERS = {"raw.person_register": (Owner("user:somchai", "data_owner"),)}
COLUMNS = {
    "raw.person_register": (Column("pid", "text", "เลขประจำตัวประชาชน"), Column("birth_date", "date")),
    "marts.people": (Column("area_code", "text"), Column("people", "bigint")),
}
FEED = DatasetName("file", "registration/person_register")


def context(**changes: Any) -> Any:
    from dopa_pipelines.lineage.openlineage import Context

    return Context(HERE, "18.1", owners=OWNERS, columns=COLUMNS, **changes)


def writes() -> dict[str, Any]:
    """A write of each kind, as told to the world."""
    from dopa_pipelines.lineage.openlineage import PendingWrite

    base = {"cluster": "777", "written_at": WHEN, "written_by": "dopa_loader", "transaction_id": "901"}
    run = "9b2d5b1e-0000-4000-8000-000000000000"
    return {
        "load": PendingWrite(
            id=1,
            kind="load",
            target="raw.person_register",
            run_id=run,
            version="1.0.0",
            code={"checksum": "c0ffee"},
            inputs=[as_input(FEED), as_input(HERE.table("raw.area_code"), 7)],
            rows_in=100,
            rows_out=98,
            detail={
                "location": "postgresql://u:p@db/hotels",
                "started_at": (WHEN - timedelta(seconds=2)).isoformat(),
                "nominal_start": "2025-11-01T00:00:00+07:00",
                "nominal_end": "2025-12-01T00:00:00+07:00",
            },
            sha256="ab" * 32,
            bytes=6600,
            **base,
        ),
        "model": PendingWrite(
            id=2,
            kind="model",
            target="marts.people",
            run_id="0190a3b4-aaaa-7bbb-8ccc-000000000001",
            parent_run_id=run,
            code={"compiled": "select 1 as area_code", "checksum": "f00d", "git_commit": "1234abc"},
            inputs=[as_input(HERE.table("staging.person_register"), 1)],
            rows_out=12,
            detail={"unique_id": "model.dopa.people", "job": "nightly"},
            **base,
        ),
        "release": PendingWrite(
            id=3,
            kind="release",
            target="release:people",
            run_id="by hand",
            version="1.0.0",
            inputs=[as_input(HERE.table("open_data.people"), 2)],
            rows_out=12,
            detail={
                "version": "2025-11-01-c0ffee00",
                "columns": [{"name": "area_code", "type": "string", "description": "Area"}, "people"],
                "files": ["people.csv", "people.json", "people.parquet"],
            },
            bytes=512,
            **base,
        ),
        "migration": PendingWrite(id=4, kind="migration", target="raw.person_register", **base),
        # The least that can be recorded: no run, no inputs, nothing known.
        "bare": PendingWrite(id=5, kind="model", target="marts.nothing", **base),
    }


def told(name: str, **changes: Any) -> list[dict[str, Any]]:
    from dopa_pipelines.lineage.openlineage import as_dict, events

    return [as_dict(event) for event in events(replace(writes()[name], **changes), context())]


@pytest.mark.parametrize("name", ["load", "model", "release", "migration", "bare"])
def test_events_are_valid(name: str) -> None:
    events = told(name)
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    for event in events:
        assert faults(event) == []
        assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert events[0]["run"]["runId"] == events[1]["run"]["runId"]
    assert events[0]["job"]["name"] == events[1]["job"]["name"]
    assert events[0]["eventTime"] <= events[1]["eventTime"]


def test_the_validation_finds_faults() -> None:
    event = told("load")[1]
    event["outputs"][0]["facets"]["schema"]["fields"][0].pop("name")
    event["run"]["runId"] = "no uuid"
    event["job"]["facets"]["owners"] = event["job"]["facets"].pop("ownership")
    assert len(faults(event)) == 3


def test_a_load_tells_its_delivery() -> None:
    start, complete = told("load")
    assert complete["job"]["name"] == "ingest.person_register"
    feed, areas = complete["inputs"]
    assert (feed["namespace"], feed["name"]) == ("file", "registration/person_register")
    assert feed["facets"]["version"]["datasetVersion"] == "ab" * 32
    assert feed["facets"]["dataSource"]["uri"] == "postgresql://db/hotels"
    assert (
        feed["inputFacets"]["inputStatistics"]["rowCount"],
        feed["inputFacets"]["inputStatistics"]["size"],
    ) == (100, 6600)
    assert areas["facets"]["version"]["datasetVersion"] == "7"
    (output,) = complete["outputs"]
    assert output["name"] == "warehouse.raw.person_register"
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 98
    assert [field["name"] for field in output["facets"]["schema"]["fields"]] == ["pid", "birth_date"]
    assert output["facets"]["ownership"]["owners"] == [{"name": "user:somchai", "type": "data_owner"}]
    assert complete["run"]["facets"]["parent"]["run"]["runId"] == "9b2d5b1e-0000-4000-8000-000000000000"
    assert complete["run"]["facets"]["nominalTime"]["nominalStartTime"] == "2025-10-31T17:00:00Z"
    assert start["eventTime"] == "2025-11-01T20:29:58Z"


def test_a_model_tells_its_sql_and_the_run_above() -> None:
    complete = told("model")[1]
    assert complete["job"]["name"] == "dbt.model.dopa.people"
    assert complete["job"]["facets"]["sql"]["query"] == "select 1 as area_code"
    parent = complete["run"]["facets"]["parent"]
    assert (parent["run"]["runId"], parent["job"]["name"]) == (
        "9b2d5b1e-0000-4000-8000-000000000000",
        "nightly",
    )
    assert complete["run"]["facets"]["processing_engine"]["name"] == "PostgreSQL"
    assert complete["run"]["facets"]["dopa_write"]["writeId"] == 2


def test_a_release_tells_its_files_and_columns() -> None:
    (output,) = told("release")[1]["outputs"]
    assert (output["namespace"], output["name"]) == ("file", "releases/people")
    assert output["facets"]["version"]["datasetVersion"] == "2025-11-01-c0ffee00"
    assert [field["name"] for field in output["facets"]["schema"]["fields"]] == ["area_code", "people"]
    assert output["outputFacets"]["outputStatistics"]["fileCount"] == 3


def test_columns_of_now_are_not_told_of_a_form_that_was_replaced() -> None:
    assert "schema" not in told("load", superseded=True)[1]["outputs"][0]["facets"]


def test_telling_again_tells_the_same() -> None:
    from dopa_pipelines.lineage.openlineage import run_uuid

    assert told("load") == told("load")
    assert told("release") == told("release")
    ids = {run_uuid(cluster, write, WHEN) for cluster in ("777", "778") for write in (1, 2)}
    assert len(ids) == 4


def test_owners_may_be_a_function_and_the_producer_is_a_setting() -> None:
    from dopa_pipelines.lineage.openlineage import as_dict, events

    said = replace(context(), owners=lambda target: [Owner(f"team:{target}")], producer="https://dopa.example/platform")
    event = as_dict(events(writes()["load"], said)[1])
    assert event["outputs"][0]["facets"]["ownership"]["owners"] == [{"name": "team:raw.person_register"}]
    assert "urn:x-dopa" not in json.dumps(event)


def test_a_run_is_of_one_job_whoever_tells_of_it() -> None:
    def parent(name: str, **changes: Any) -> tuple[str, str]:
        facet = told(name, **changes)[1]["run"]["facets"]["parent"]
        return facet["run"]["runId"], facet["job"]["name"]

    run = "9b2d5b1e-0000-4000-8000-000000000000"
    assert parent("load") == parent("model", parent_run_id=None, run_id=run, detail={}) == (run, "dopa")
    assert parent("model", parent_run_id=None, run_id=run, detail={"invocation_id": run}) == (run, "dbt")
    # An id that is no UUID becomes one, the same each time.
    assert parent("release") == parent("release")
