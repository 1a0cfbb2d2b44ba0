"""Events on their way to a real receiver that fails, hangs, is down, refuses and recovers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml

from dopa_pipelines.lineage import outbox
from dopa_pipelines.lineage.openlineage import record_events
from dopa_pipelines.lineage.outbox import Pass, configured, forward, standing
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Warehouse, open_warehouse
from dopa_pipelines.warehouse.work import Work
from sensors.lineage import CHECK, EVENTS, events_asset, lineage_sensor

ROOT = Path(__file__).resolve().parents[2]
Answer = Callable[[dict[str, Any]], int]


class Receiver:
    """What Marquez or a catalogue would be: takes events by HTTP; ``answer`` says the status, or 0 to hang."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.tried: list[dict[str, Any]] = []
        self.answer: Answer = lambda _: 201
        self.port = 0
        self._over = threading.Event()

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[Receiver]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.tried.append(event)
                status = receiver.answer(event)
                if status == 0:
                    receiver._over.wait(5)
                    return
                if status < 300:
                    receiver.events.append(event)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        self._over.clear()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def states(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for event in self.events:
            found[event["job"]["name"]].append(event["eventType"])
        return dict(found)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """A warehouse of this module's own: an outbox is one for the whole warehouse."""
    with open_warehouse(Settings(state=tmp_path_factory.mktemp("o") / "state")) as warehouse:
        yield warehouse


@pytest.fixture
def box(opened: Warehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    """A connection to an empty outbox; nothing is configured, whatever the client leaves in the environment."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENLINEAGE")}
    monkeypatch.chdir(tmp_path)
    with opened.connect(autocommit=True) as connection:
        record_events(connection)
        connection.execute("delete from ops.outbox")
        connection.execute(
            "update ops.outbox_state set through = coalesce((select max(id) from lineage.event), 0), sent = 0, failed = 0,"
            " dropped = 0, failures = 0, pause_until = null, problem = null, last_sent = null"
        )
        yield connection
    for name in list(os.environ):
        if name.startswith("OPENLINEAGE"):
            del os.environ[name]
    os.environ.update(kept)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def use(receiver: Receiver, timeout: float = 2.0) -> None:
    os.environ["OPENLINEAGE__TRANSPORT__TYPE"] = "http"
    os.environ["OPENLINEAGE__TRANSPORT__URL"] = f"http://127.0.0.1:{receiver.port}"
    os.environ["OPENLINEAGE__TRANSPORT__TIMEOUT"] = str(timeout)


def happen(warehouse: Warehouse, connection: psycopg.Connection[Any], *names: str) -> None:
    """Two events of a run for each name, the runs interleaved: all begin before any ends."""
    works = [Work(warehouse, "check", f"raw.{name}") for name in names]
    for work in works:
        work.__enter__()
    for work in works:
        work.__exit__(None, None, None)
    record_events(connection)


def every(*names: str) -> dict[str, list[str]]:
    return {f"check.raw.{name}": ["START", "COMPLETE"] for name in names}


def test_nothing_configured_nothing_waits(opened: Warehouse, box: psycopg.Connection[Any]) -> None:
    happen(opened, box, "quiet")
    assert configured() is None
    assert forward(box) == Pass()
    now = standing(box, configured())
    assert (now.waiting, now.sent, now.healthy) == (0, 0, True)


def test_what_is_stored_arrives_whole_and_once(opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver) -> None:
    happen(opened, box, "a", "b", "c")
    with receiver.serving():
        # The variables that everybody knows.
        os.environ["OPENLINEAGE_URL"] = f"http://127.0.0.1:{receiver.port}"
        assert configured() == "http"
        assert standing(box, "http").waiting == 6
        assert forward(box) == Pass(sent=6)
        assert forward(box) == Pass()
    rows = box.execute("select lineage.whole_event(event) from lineage.event order by id desc limit 6").fetchall()
    assert receiver.events == [event for (event,) in reversed(rows)]
    now = standing(box, "http")
    assert (now.waiting, now.sent, now.failed, now.dropped, now.healthy) == (0, 6, 0, 0, True)
    assert now.last_sent is not None
    assert box.execute("select count(*) from ops.outbox").fetchone() == (0,), "what is settled is not kept one by one"


def test_a_receiver_that_fails_now_and_then_loses_nothing(
    opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver
) -> None:
    names = [f"n{number}" for number in range(6)]
    happen(opened, box, *names)
    tries = iter(range(1000))
    receiver.answer = lambda _: 500 if next(tries) % 3 == 0 else 201
    with receiver.serving():
        use(receiver)
        first = forward(box)
        assert 0 < first.sent < 12
        assert first.problem == "the receiver answered 500"
        assert standing(box, "http").retrying > 0
        # What failed waits for its time; by hand it is tried at once.
        again = forward(box)
        assert again.left == 12 - first.sent - again.sent
        for _ in range(12):
            if forward(box, at_once=True).left == 0:
                break
    assert receiver.states() == every(*names)
    assert standing(box, "http").sent == 12


def test_one_event_that_makes_the_receiver_hang_holds_up_only_its_run(
    opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver
) -> None:
    happen(opened, box, "hanging", "x", "y", "z")
    stuck = True
    receiver.answer = lambda event: 0 if stuck and event["job"]["name"] == "check.raw.hanging" else 200
    with receiver.serving():
        use(receiver, timeout=0.3)
        done = forward(box)
        assert (done.sent, done.left) == (6, 2)
        assert "ReadTimeout" in (done.problem or "")
        assert receiver.states() == every("x", "y", "z"), "its COMPLETE does not overtake its START"
        assert forward(box) == Pass(left=2), "it is not tried again before its time"
        happen(opened, box, "later")
        assert forward(box).sent == 2
        stuck = False
        assert forward(box, at_once=True).left == 0
    assert receiver.states() == every("hanging", "later", "x", "y", "z")


def test_a_receiver_that_is_down_is_left_alone_for_a_while(
    opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver
) -> None:
    names = [f"d{number}" for number in range(20)]
    happen(opened, box, *names)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        receiver.port = unused.getsockname()[1]
    use(receiver)
    started = time.monotonic()
    down = forward(box)
    assert (down.sent, down.left) == (0, 40)
    assert down.problem == "the receiver cannot be reached (ConnectionError)"
    assert time.monotonic() - started < 5
    now = standing(box, "http")
    assert (now.waiting, now.retrying) == (40, outbox.RECEIVER_DOWN)
    assert now.next_try is not None and not now.healthy
    with receiver.serving(receiver.port):
        assert forward(box).sent == 0, "its pause is not over"
        assert forward(box, at_once=True).sent == 40
        assert forward(box) == Pass()
    assert receiver.states() == every(*names)
    assert standing(box, "http").healthy


def test_the_pause_doubles_up_to_a_bound(opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver) -> None:
    happen(opened, box, "p1", "p2", "p3")
    receiver.answer = lambda _: 503
    pauses = []
    with receiver.serving():
        use(receiver)
        for _ in range(13):
            forward(box, at_once=True)
            ((pause,),) = box.execute("select pause_until - clock_timestamp() from ops.outbox_state").fetchall()
            pauses.append(round(pause.total_seconds()))
    assert pauses[:4] == [5, 10, 20, 40]
    assert pauses[-1] == outbox.LONGEST_PAUSE.total_seconds()
    assert standing(box, "http").failed == 0, "a receiver that takes nothing says nothing of an event"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_event_that_is_refused_is_counted_and_holds_up_nothing(
    opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver, status: int
) -> None:
    happen(opened, box, "fine", "poison")
    receiver.answer = lambda event: status if (event["job"]["name"], event["eventType"]) == ("check.raw.poison", "START") else 201
    with receiver.serving():
        use(receiver)
        done = forward(box)
    assert (done.sent, done.failed, done.left) == (3, 1, 0)
    assert receiver.states() == every("fine") | {"check.raw.poison": ["COMPLETE"]}
    assert len(receiver.tried) == 4, "it is not sent again"
    now = standing(box, "http")
    assert (now.failed, now.waiting, now.healthy, now.problem) == (1, 0, False, f"the receiver answered {status}")


def test_a_refusal_of_us_is_not_one_of_the_event(opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver) -> None:
    happen(opened, box, "locked")
    receiver.answer = lambda _: 401
    with receiver.serving():
        use(receiver)
        assert forward(box).failed == 0
        receiver.answer = lambda _: 200
        assert forward(box, at_once=True).sent == 2


def test_an_event_that_always_fails_is_given_up_while_others_get_through(
    opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver
) -> None:
    happen(opened, box, "cursed", "good")
    receiver.answer = lambda e: 500 if (e["job"]["name"], e["eventType"]) == ("check.raw.cursed", "START") else 200
    with receiver.serving():
        use(receiver)
        passes = [forward(box, at_once=True) for _ in range(outbox.MAX_ATTEMPTS)]
    assert [done.failed for done in passes] == [0] * (outbox.MAX_ATTEMPTS - 1) + [1]
    assert passes[-1].left == 0
    assert receiver.states() == every("good") | {"check.raw.cursed": ["COMPLETE"]}


def test_what_waits_too_long_or_is_too_much_is_dropped_and_counted(
    opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver
) -> None:
    happen(opened, box, "old", "new")
    with receiver.serving():
        use(receiver)
        done = forward(box, max_waiting=2)
        assert (done.dropped, done.sent, done.left) == (2, 2, 0)
        happen(opened, box, "aged")
        done = forward(box, max_age=timedelta(0))
        assert (done.dropped, done.sent) == (2, 0)
    assert receiver.states() == {"check.raw.old": ["COMPLETE"], "check.raw.new": ["COMPLETE"]}
    now = standing(box, "http")
    assert (now.dropped, now.sent, now.healthy) == (4, 2, False)


def test_two_forwarders_take_turns(opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver) -> None:
    happen(opened, box, "once")
    inside, go_on = threading.Event(), threading.Event()

    def slowly(_: dict[str, Any]) -> int:
        inside.set()
        go_on.wait(5)
        return 200

    receiver.answer = slowly
    with receiver.serving(), opened.connect(autocommit=True) as other:
        use(receiver, timeout=10)
        first = threading.Thread(target=forward, args=(box,))
        first.start()
        assert inside.wait(5)
        assert forward(other).busy
        go_on.set()
        first.join()
    assert len(receiver.tried) == 2


def test_a_forwarder_that_is_killed_loses_nothing(opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver) -> None:
    names = [f"k{number}" for number in range(40)]
    happen(opened, box, *names)
    with receiver.serving():
        child = subprocess.Popen(
            [str(Path(sys.executable).with_name("dopa")), "lineage", "forward"],
            env=os.environ | {"DOPA_STATE": str(opened.state), "OPENLINEAGE_URL": f"http://127.0.0.1:{receiver.port}"},
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )

        def kill(_: dict[str, Any]) -> int:
            if len(receiver.events) == outbox._NOTE_EVERY + 5:
                child.kill()
            return 200

        receiver.answer = kill
        assert child.wait(30) != 0
        receiver.answer = lambda _: 200
        use(receiver)
        until = time.monotonic() + 10
        # The server takes a moment to see that the killed one is gone.
        while forward(box, at_once=True).busy and time.monotonic() < until:
            pass
    order = [(event["job"]["name"], event["eventType"]) for event in receiver.events]
    assert {name: [state for job, state in dict.fromkeys(order) if job == name] for name, _ in order} == every(*names)
    assert len(order) - len(set(order)) <= outbox._NOTE_EVERY, "only what was not noted yet is sent again"
    assert standing(box, "http").waiting == 0


def test_all_receivers_of_a_composite_get_every_event(
    opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    happen(opened, box, "both")
    receiver.answer = lambda _: 503
    with receiver.serving():
        configuration = {
            "transport": {
                "type": "composite",
                "transports": {
                    "disk": {"type": "file", "log_file_path": str(file), "append": True},
                    "net": {"type": "http", "url": f"http://127.0.0.1:{receiver.port}"},
                },
            }
        }
        Path("openlineage.yml").write_text(yaml.safe_dump(configuration))
        assert configured() == "composite"
        assert forward(box).left == 2, "the client itself would have been content with the file"
        receiver.answer = lambda _: 200
        assert forward(box, at_once=True).sent == 2
    assert receiver.states() == every("both")
    assert [json.loads(line)["eventType"] for line in file.read_text().splitlines()] == ["START", "START", "COMPLETE"]


def test_a_filter_of_the_configuration_is_kept(opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver) -> None:
    happen(opened, box, "shown", "hidden")
    with receiver.serving():
        transport = {"type": "http", "url": f"http://127.0.0.1:{receiver.port}"}
        filters = [{"type": "exact", "match": "check.raw.hidden"}]
        Path("elsewhere.yml").write_text(yaml.safe_dump({"transport": transport, "filters": filters}))
        os.environ["OPENLINEAGE_CONFIG"] = "elsewhere.yml"
        assert forward(box).left == 0
    assert receiver.states() == every("shown")


def test_kafka_is_asked_whether_it_took_an_event() -> None:
    class Producer:
        """What confluent_kafka's does: keeps messages until flush, then calls back."""

        def __init__(self) -> None:
            self.kept: list[dict[str, Any]] = []
            self.error: object = None
            self.left = 0

        def produce(self, **message: Any) -> None:
            self.kept.append(message)

        def flush(self, timeout: float) -> int:
            assert timeout == outbox.TIMEOUT_SECONDS
            if not self.left:
                self.kept[-1]["on_delivery"](self.error, None)
            return self.left

    from openlineage.client.transport.kafka import KafkaConfig, KafkaTransport

    class Kafka(KafkaTransport):
        def _setup_producer(self, config: Any) -> None:
            self.producer = Producer()  # type: ignore[assignment]

    class Client:
        transport = Kafka(KafkaConfig({}, "lineage"))

        def filter_event(self, event: Any) -> Any:
            return event

    producer: Any = Client.transport.producer
    event = json.loads((Path(__file__).with_name("openlineage_events.json")).read_text())[1]
    event["run"]["runId"] = event["run"]["facets"]["parent"]["run"]["runId"] = "0190a3b4-aaaa-7bbb-8ccc-000000000001"
    event["run"]["facets"]["parent"]["root"]["run"]["runId"] = "0190a3b4-aaaa-7bbb-8ccc-000000000001"
    event["eventTime"] = "2026-01-01T00:00:00Z"
    sender = outbox._Sender(Client())
    assert sender.send(event) is None
    assert producer.kept[0]["key"] == "run:dopa-pipelines/dopa", "Kafka's own key of a run keeps the order"
    assert json.loads(producer.kept[0]["value"]) == event
    producer.error = "Broker: Message size too large"
    assert "too large" in str(sender.send(event))
    producer.error, producer.left = None, 1
    assert "no answer" in str(sender.send(event))


def test_the_command_and_the_status_tell_what_became_of_events(
    opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver
) -> None:
    happen(opened, box, "shown")

    def dopa(*arguments: str, **variables: str) -> tuple[int, Any]:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("dopa")), *arguments, "--json"],
            env=os.environ | {"DOPA_STATE": str(opened.state)} | variables,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    code, said = dopa("lineage", "forward")
    assert code == 2
    assert "OPENLINEAGE_URL" in said
    with receiver.serving():
        url = f"http://127.0.0.1:{receiver.port}"
        receiver.answer = lambda _: 500
        assert dopa("lineage", "forward", OPENLINEAGE_URL=url)[0] == 4
        _, status = dopa("status", OPENLINEAGE_URL=url)
        assert (status["lineage_events"]["waiting"], status["lineage_events"]["retrying"]) == (2, 1)
        receiver.answer = lambda _: 200
        code, said = dopa("lineage", "forward", OPENLINEAGE_URL=url)
    assert (code, said["pass"]["sent"], said["outbox"]["sent"]) == (0, 2, 2)
    assert receiver.states() == every("shown")


def test_the_sensor_forwards_and_its_check_says_what_fails(
    opened: Warehouse, box: psycopg.Connection[Any], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOPA_STATE", str(opened.state))
    happen(opened, box, "sensed")
    with receiver.serving(), dg.DagsterInstance.ephemeral() as instance:
        use(receiver)
        receiver.answer = lambda _: 422
        sensor = lineage_sensor()

        def tick(cursor: str | None) -> Any:
            return sensor(dg.build_sensor_context(instance=instance, cursor=cursor))

        result = tick(None)
        (evaluation,) = result.asset_events
        assert (evaluation.asset_key, evaluation.check_name, evaluation.passed) == (EVENTS, CHECK, False)
        assert evaluation.metadata["refused"].value == 2
        again = tick(result.cursor)
        assert not again.asset_events, "what is known is not reported again"
        assert "2 refused" in str(again.skip_reason)
    _, check = events_asset()
    assert not check.node_def.compute_fn.decorated_fn().passed  # type: ignore[attr-defined]
