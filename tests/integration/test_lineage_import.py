"""Events of other systems: checked, kept once, joined to our own graph, never half and never sent on."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from dopa_pipelines.cli.main import app
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage import importing
from dopa_pipelines.lineage.columngraph import record_columns
from dopa_pipelines.lineage.columntrace import edges_into
from dopa_pipelines.lineage.importing import import_events, imported_edges, imported_graph, read_events
from dopa_pipelines.lineage.model import ColumnEdge
from dopa_pipelines.lineage.naming import DatasetName, Identity
from dopa_pipelines.lineage.openlineage import record_events
from dopa_pipelines.lineage.outbox import standing
from dopa_pipelines.lineage.store import graph, identity, record_write
from dopa_pipelines.lineage.trace import trace
from dopa_pipelines.warehouse import Role, Warehouse
from tests.lineage.published import faults

RUN = "0190a3b4-aaaa-7bbb-8ccc-00000000000{}"
PRODUCER = "https://etl.bureau.example/talend"
SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
ORACLE = ("oracle://hr.bureau.example:1521", "HR.STAFF")
Event = dict[str, Any]


@pytest.fixture
def conn(warehouse: Warehouse) -> Iterator[psycopg.Connection[Any]]:
    """A loader's connection, whose work is thrown away."""
    with warehouse.connect(Role.LOADER) as connection:
        yield connection
        connection.rollback()


def event(state: str = "COMPLETE", run: int = 1, hour: int = 8, **parts: Any) -> Event:
    """What a department's own ETL emits: staff of an Oracle database into a file that we take in."""
    given = {"namespace": ORACLE[0], "name": ORACLE[1]}
    facet = {
        "_producer": PRODUCER,
        "_schemaURL": "https://openlineage.io/spec/facets/1-2-0/ColumnLineageDatasetFacet.json#/$defs/ColumnLineageDatasetFacet",
        "fields": {
            "pid": {
                "inputFields": [given | {"field": "CITIZEN_ID", "transformations": [{"type": "DIRECT", "subtype": "IDENTITY"}]}]
            },
            "name": {
                "inputFields": [
                    given
                    | {"field": "NAME", "transformations": [{"type": "DIRECT", "subtype": "TRANSFORMATION", "masking": True}]},
                    given | {"field": "TITLE"},
                ]
            },
        },
        "dataset": [given | {"field": "ACTIVE", "transformations": [{"type": "INDIRECT", "subtype": "FILTER"}]}],
    }
    return {
        "eventType": state,
        "eventTime": f"2026-01-31T{hour:02}:00:00+07:00",
        "producer": PRODUCER,
        "schemaURL": SPEC,
        "run": {"runId": RUN.format(run)},
        "job": {"namespace": "talend", "name": "staff_export"},
        "inputs": [given],
        "outputs": [{"namespace": "file", "name": "registration/staff", "facets": {"columnLineage": facet}}],
    } | parts


def written(folder: Path, text: str) -> str:
    path = folder / "events.json"
    path.write_text(text, "utf-8")
    return str(path)


def test_the_example_is_what_the_specification_calls_an_event() -> None:
    assert faults(event()) == []


@pytest.mark.parametrize(
    "form",
    [lambda e: json.dumps(e[0]), lambda e: json.dumps(e, indent=2), lambda e: "\n\n".join(map(json.dumps, e)) + "\n"],
    ids=["object", "array", "lines"],
)
def test_all_forms_are_read(form: Callable[[list[Event]], str], tmp_path: Path) -> None:
    events = [event("START"), event()]
    found = read_events(written(tmp_path, form(events)))
    assert found == events[: len(found)]


def test_imported_events_join_the_graph(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    named = identity(conn)
    feed = DatasetName("file", "registration/staff")
    conn.execute("create table raw.imported_staff (pid text)")
    record_write(conn, kind="load", target="raw.imported_staff", inputs=[feed])
    # A tool of others reads our table, under a name that leaves out the database.
    reader = event(
        run=2,
        job={"namespace": "powerbi", "name": "dashboard"},
        inputs=[{"namespace": named.namespace, "name": "raw.imported_staff"}],
        outputs=[{"namespace": "powerbi", "name": "staff dashboard"}],
    )
    done = import_events(conn, [event("START"), event(), reader], "x")
    assert (done.events, done.new, done.datasets, done.edges, done.column_edges) == (3, 3, 4, 2, 8)
    walk = trace(graph(conn), "staff dashboard", "up")
    assert [(node.label, node.kind) for node in walk.nodes] == [
        ("staff dashboard", "external"),
        ("raw.imported_staff", "table"),
        ("registration/staff", "feed"),
        ("HR.STAFF", "external"),
    ]
    source = DatasetName(*ORACLE)
    assert sorted(edges_into(conn, feed), key=str) == sorted(
        [
            ColumnEdge(source, "CITIZEN_ID", feed, "pid", "IDENTITY", False),
            ColumnEdge(source, "NAME", feed, "name", "TRANSFORMATION", True),
            ColumnEdge(source, "TITLE", feed, "name", "TRANSFORMATION", False),
            ColumnEdge(source, "ACTIVE", feed, None, "FILTER", False),
        ],
        key=str,
    )


def test_the_same_again_changes_nothing_and_nothing_is_sent_on(conn: psycopg.Connection[Any]) -> None:
    record_events(conn)
    waits = standing(conn, "http").waiting
    assert import_events(conn, [event("START"), event()], "x").new == 2
    stored = conn.execute("select count(*), max(id) from lineage.event where imported is not null").fetchone()
    reordered = json.loads(json.dumps(event(), sort_keys=True))
    assert import_events(conn, [event("START"), reordered, event("START")], "x").new == 0
    assert conn.execute("select count(*), max(id) from lineage.event where imported is not null").fetchone() == stored
    assert conn.execute("select event from lineage.event where id = %s", (stored[1],)).fetchone() == (event(),)  # type: ignore[index]
    assert standing(conn, "http").waiting == waits
    assert record_events(conn) == 0, "they are told already"


def test_the_latest_run_that_did_not_fail_counts(conn: psycopg.Connection[Any]) -> None:
    other = {"namespace": "oracle://hr.bureau.example:1521", "name": "HR.OLD"}
    out = [{"namespace": "file", "name": "registration/staff"}]
    # Read is told by START, written by COMPLETE: a run is what all its events say.
    import_events(conn, [event("START", 1, 6, inputs=[other], outputs=[]), event("COMPLETE", 1, 7, inputs=[], outputs=out)], "x")
    feed = DatasetName("file", "registration/staff")
    assert imported_graph(conn) == [(DatasetName(*other.values()), feed)]
    import_events(conn, [event("START", 2, 8), event("FAIL", 2, 9)], "x")
    assert imported_graph(conn) == [(DatasetName(*other.values()), feed)]
    import_events(conn, [event("COMPLETE", 3, 10)], "x")
    assert imported_graph(conn) == [(DatasetName(*ORACLE), feed)]
    from datetime import datetime

    then = datetime.fromisoformat("2026-01-31T08:30:00+07:00")
    assert imported_graph(conn, at=then) == [(DatasetName(*other.values()), feed)]


def test_dataset_and_job_events_are_taken_too(conn: psycopg.Connection[Any]) -> None:
    whole = event()
    base = {key: whole[key] for key in ("eventTime", "producer", "schemaURL")}
    job = base | {
        "job": {"namespace": "n", "name": "j"},
        "inputs": [{"namespace": "n", "name": "a"}],
        "outputs": [{"namespace": "n", "name": "b"}],
    }
    dataset = base | {"dataset": whole["outputs"][0] | {"name": "registration/other"}}
    import_events(conn, [job, dataset], "x")
    assert set(imported_graph(conn)) == {
        (DatasetName("n", "a"), DatasetName("n", "b")),
        (DatasetName(*ORACLE), DatasetName("file", "registration/other")),
    }


@pytest.mark.parametrize(
    "namespace",
    ["postgres://db.dopa.example:5432", "postgresql://DB.dopa.example", "postgres://etl:secret@db.dopa.example:5432"],
)
def test_our_own_tables_keep_their_name_however_others_write_it(namespace: str) -> None:
    here = Identity("postgres://db.dopa.example:5432", "warehouse")
    for name in ("warehouse.raw.staff", "raw.staff"):
        assert here.canonical(namespace, name) == here.table("raw.staff")
    output = {"namespace": namespace, "name": "warehouse.raw.staff", "facets": event()["outputs"][0]["facets"]}
    assert {edge.target for edge in imported_edges(event(outputs=[output]), here)} == {here.table("raw.staff")}
    assert here.canonical("postgres://db.dopa.example:5433", "raw.staff").namespace == "postgres://db.dopa.example:5433"


def changed(path: str, value: Any) -> Event:
    """The event with one place changed; ``...`` takes it away."""
    made = copy.deepcopy(event())
    *way, last = path.split("/")
    place: Any = made
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return made


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (changed("eventTime", ...), "lacks eventTime"),
        (changed("eventTime", "yesterday"), "eventTime is \"yesterday\"; it must be a time with its zone"),
        (changed("eventTime", "2026-01-31T08:00:00"), "a time with its zone"),
        (changed("eventTime", "2026-W05-6T08:00:00+07:00"), "a time with its zone"),
        (changed("eventTime", "2026-01-31T08:00:00+20:00"), "a time with its zone"),
        (changed("eventTime", "2026-02-30T08:00:00Z"), "which is no time"),
        (changed("outputs/0/facets/schema", {"fields": [{"type": "text"}]}), "lacks outputs[1].facets.schema.fields[1].name"),
        (changed("producer", ...), "lacks producer"),
        (changed("producer", "talend"), "which is no URI"),
        (changed("schemaURL", 2), "schemaURL is 2; it must be text"),
        (changed("run/runId", "17"), "run.runId is \"17\", which is no UUID"),
        (changed("run", []), "run is no object"),
        (changed("job", ...), "lacks job"),
        (changed("job/name", " "), "job.name is \" \"; it must be text"),
        (changed("eventType", "DONE"), "must be one of START, RUNNING, COMPLETE, ABORT, FAIL, OTHER"),
        (changed("inputs", {}), "inputs is no array"),
        (changed("inputs/0/namespace", ...), "lacks inputs[1].namespace"),
        (changed("outputs/0/facets/columnLineage/fields", ...), "outputs[1].facets.columnLineage lacks fields"),
        (changed("outputs/0/facets/columnLineage/fields/pid/inputFields/0/field", ...), "lacks outputs[1].facets.columnLineage."),
        (changed("outputs/0/facets/columnLineage/dataset/0/transformations", [{"type": "MAYBE"}]), "must be DIRECT or INDIRECT"),
        (changed("outputs/0/facets/columnLineage", []), "outputs[1].facets.columnLineage is no object"),
        (changed("job/name", "a\0b"), "with a character that no text of the warehouse can hold"),
        (changed("job/name", "a\ud800b"), "with a character that no text of the warehouse can hold"),
        ([], "is no JSON object"),
        ({}, "lacks eventTime"),
    ],
)  # fmt: skip
def test_a_wrong_event_is_named_by_its_number_and_nothing_is_imported(wrong: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        read_events(written(tmp_path, "\n".join(json.dumps(item) for item in (event(), event("FAIL"), wrong))))
    assert "event 3: " in str(refused.value)
    assert words in str(refused.value)
    assert str(refused.value).endswith("nothing was imported")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no JSON"),
        ("[]", "holds no event"),
        ('{"a": ', "is no JSON"),
        (json.dumps(event()) + "\nnonsense\n", "event 2 (line 2) is no JSON"),
        (json.dumps(event()).replace('"START"', "NaN").replace('"COMPLETE"', "NaN"), "NaN is no JSON value"),
        ("[" * 100_000, "is no JSON"),
        (json.dumps(event()).replace('"talend"', "1e999"), "event 1: holds a number that is too large"),
        (json.dumps(event()).replace('"talend"', "[" * 900 + "]" * 900), "event 1: "),
    ],
)
def test_what_is_no_json_is_refused_in_a_sentence(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="event") as refused:
        read_events(written(tmp_path, text))
    assert words in str(refused.value)


@contextmanager
def serving(status: int, body: bytes, wait: threading.Event | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)
            while wait is not None and not wait.wait(0.05):
                self.wfile.write(b" ")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_address[1]}/events?token=t"
    finally:
        if wait is not None:
            wait.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_url_is_read_within_its_time_and_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(200, json.dumps([event()]).encode()) as url:
        assert read_events(url) == [event()]
    with serving(404, b"") as url, pytest.raises(UserError, match="answered 404") as refused:
        read_events(url)
    assert "secret" not in str(refused.value)
    monkeypatch.setattr(importing, "FETCH_SECONDS", 0.2)
    with serving(200, b"[", threading.Event()) as url, pytest.raises(UserError, match=r"did not send all within 0.2 s"):
        read_events(url)
    with pytest.raises(UserError, match=r"can't be fetched \(ConnectError\)"):
        read_events("http://127.0.0.1:1/events")


def test_the_command_imports_and_traces(own_demo: Any, tmp_path: Path) -> None:
    source = written(
        tmp_path, json.dumps([event("START"), event(outputs=[{"namespace": "file", "name": "legal_affairs/hotel_licence"}])])
    )
    done = own_demo.dopa("lineage", "import", source, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["events"], said["new"], said["producers"]) == (2, 2, [PRODUCER])
    again = own_demo.dopa("lineage", "import", source)
    assert "0 of 2 events are new" in again.stdout
    assert "HR.STAFF" not in own_demo.dopa("trace", "hotels_licensed").stdout, "hotels come from a database, not a file"
    source = written(
        tmp_path, json.dumps(event(run=4, outputs=[{"namespace": "postgres", "name": "legal_affairs/hotel_licence"}]))
    )
    assert own_demo.dopa("lineage", "import", source).returncode == 0
    assert "HR.STAFF" in own_demo.dopa("trace", "hotels_licensed").stdout
    broken = own_demo.dopa("lineage", "import", written(tmp_path, json.dumps([event(), {"eventTime": 5}])))
    assert (broken.returncode, broken.stdout) == (2, "")
    assert "event 2: eventTime is 5" in broken.stderr


def test_help_of_the_commands_is_there() -> None:
    said = CliRunner().invoke(app, ["lineage", "--help"]).stdout
    assert "import" in said
    assert "forward" in said


def test_an_older_event_that_comes_later_replaces_nothing(conn: psycopg.Connection[Any]) -> None:
    feed = DatasetName("file", "registration/staff")

    def telling(column: str, hour: int, run: int) -> Event:
        told = event("COMPLETE", run, hour)
        given = {"namespace": ORACLE[0], "name": ORACLE[1], "field": column}
        told["outputs"][0]["facets"]["columnLineage"]["fields"] = {"pid": {"inputFields": [given]}}
        told["outputs"][0]["facets"]["columnLineage"]["dataset"] = []
        return told

    def sources() -> list[str]:
        return [edge.source_column for edge in edges_into(conn, feed)]

    # Of a feed of ours the contract says the fields, others where they come from.
    conn.execute(
        "select lineage.record_definition(lineage.record_write('load', 'raw.staff_told'), %s, %s, 'feed', 'x', null, '{}',"
        " '[{\"name\": \"pid\"}]', null, '[]')",
        (*feed,),
    )
    import_events(conn, [telling("FIRST", 6, 21)], "x")
    import_events(conn, [telling("FIRST", 10, 22)], "x")  # says the same, and later
    import_events(conn, [telling("OLDER", 8, 23)], "x")
    assert sources() == ["FIRST"]
    import_events(conn, [telling("NEWER", 12, 24)], "x")
    assert sources() == ["NEWER"]
    import_events(conn, [telling("OLDEST", 5, 25)], "x")
    assert sources() == ["NEWER"]


def test_an_import_waits_for_who_records_columns(warehouse: Warehouse) -> None:
    """Both make rows of the graph: at the same time they would stand in each other's way."""
    told = event(run=31, outputs=[event()["outputs"][0] | {"name": "registration/raced"}])
    failures: list[BaseException] = []

    def take() -> None:
        try:
            with warehouse.connect() as own:
                import_events(own, [told], "x")
                own.commit()
        except BaseException as error:
            failures.append(error)

    with warehouse.connect() as first:
        record_write(first, kind="load", target="raw.raced")
        first.commit()
        record_columns(first)
        # A definition of the very dataset that the import tells of, not committed yet.
        first.execute(
            "select lineage.record_definition((select max(id) from lineage.write), 'file', 'registration/raced', 'feed', 'x',"
            " null, '{}', '[{\"name\": \"pid\"}]', null, '[]')"
        )
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive(), "it did not wait"
        first.commit()
        thread.join(10)
    assert not thread.is_alive()
    assert failures == []
