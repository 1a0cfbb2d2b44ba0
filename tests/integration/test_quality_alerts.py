"""Alerts reach stewards at least once, by a mail server and a webhook that fail and recover; none tells a value of a row."""

from __future__ import annotations

import email
import json
import socketserver
import threading
import time
import uuid
from collections.abc import Iterator
from email import policy
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import psycopg
import pytest

from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.errors import UserError
from dopa_pipelines.quality import alerts, incidents
from dopa_pipelines.quality.incidents import Owner
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse
from sensors import alerts as sensors
from tests.integration.conftest import ROOT, Demo

OWNER = Owner("registration", {"reject": "somchai@dopa.example"})


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a client needs. ``refuse``: how many mails are turned away first."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.mails: list[email.message.EmailMessage] = []
        self.refuse = 0


class _Session(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            word = line.split()[0].upper() if line.split() else b""
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (line := self.rfile.readline()) != b".\r\n":
                    lines.append(line.removeprefix(b"."))
                if self.server.refuse:
                    self.server.refuse -= 1
                    self.wfile.write(b"451 not now\r\n")
                    continue
                self.server.mails.append(email.message_from_bytes(b"".join(lines), policy=policy.default))  # type: ignore[arg-type]
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


class Hook(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.got: list[dict[str, Any]] = []
        self.answer = 200


class _Hook(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.answer == 200:
            self.server.got.append(body)
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def conn(warehouse: Warehouse) -> Iterator[psycopg.Connection[Any]]:
    with warehouse.connect(Role.LOADER) as connection:
        yield connection
        connection.rollback()
        # What was sent stays in the shared warehouse: it must not go out again in another test.
        connection.execute("update quality.alert_transport set pause_until = null, failures = 0, problem = null")
        connection.commit()


def fails(conn: psycopg.Connection[Any], rows: int, dataset: str | None = None) -> str:
    name = dataset or f"alerted_{uuid.uuid4().hex[:8]}"
    row = conn.execute(
        "insert into quality.result (dataset, rule, kind, dimension, severity, rows_checked, rows_failed, passed, detail)"
        " values (%s, 'sex_required', 'required', 'accuracy_completeness', 'reject', 100, %s, %s, '{}') returning id",
        (name, rows, rows == 0),
    ).fetchone()
    assert row is not None
    incidents.settle(conn, [row[0]], OWNER)
    conn.commit()
    return name


def tell(conn: psycopg.Connection[Any], ways: dict[str, alerts.Send]) -> int:
    alerts.collect(conn, {}, "http://portal/incidents/{}".format)
    conn.commit()
    return alerts.send(conn, ways)


def at(settings: Settings, **addresses: str) -> dict[str, alerts.Send]:
    return alerts.transports(settings.model_copy(update={name: _Secret(value) for name, value in addresses.items()}))


class _Secret:
    def __init__(self, value: str) -> None:
        self.get_secret_value = lambda: value


def test_the_owner_gets_one_mail_of_all_and_none_twice(conn: psycopg.Connection[Any], mail: MailServer) -> None:
    ways = at(Settings(), smtp_url=f"smtp://127.0.0.1:{mail.server_address[1]}")
    one, two = fails(conn, 3), fails(conn, 12)
    tell(conn, ways)
    mine = [item for item in mail.mails if one in item.get_content()]
    assert len(mine) == 1 and mine[0]["To"] == "somchai@dopa.example"
    text = mine[0].get_content()
    assert f"{one}: sex_required fails for 3 rows" in text and f"{two}: sex_required fails for 12 rows" in text
    numbers = [item.id for name in (one, two) for item in incidents.incidents(conn, name)]
    assert "12 แถว" in text and "dopa quality incidents about" in text
    assert len(numbers) == 2 and all(f"http://portal/incidents/{number}" in text.splitlines() for number in numbers)
    # The same day it is not told again, however often it is looked at.
    fails(conn, 5, one)
    tell(conn, ways)
    assert len([item for item in mail.mails if one in item.get_content()]) == 1


def test_a_server_that_is_down_is_tried_again_after_a_pause(conn: psycopg.Connection[Any], mail: MailServer) -> None:
    ways = at(Settings(), smtp_url=f"smtp://127.0.0.1:{mail.server_address[1]}")
    tell(conn, ways)
    mail.mails.clear()
    mail.refuse = 1
    name = fails(conn, 2)
    assert tell(conn, ways) == 0
    (stands,) = alerts.standing(conn, ways)
    assert stands.waiting == 1 and not stands.healthy and "451" in str(stands.problem)
    # While it pauses nothing is tried.
    assert tell(conn, ways) == 0 and mail.mails == []
    conn.execute("update quality.alert_transport set pause_until = clock_timestamp() - interval '1 second'")
    assert tell(conn, ways) == 1
    assert [name in item.get_content() for item in mail.mails] == [True]
    (stands,) = alerts.standing(conn, ways)
    assert (stands.waiting, stands.problem) == (0, None)


def test_a_webhook_gets_the_same_and_its_failure_does_not_keep_the_mail(
    conn: psycopg.Connection[Any], mail: MailServer, hook: Hook
) -> None:
    ways = at(
        Settings(),
        smtp_url=f"smtp://127.0.0.1:{mail.server_address[1]}",
        alert_webhook=f"http://127.0.0.1:{hook.server_address[1]}/here",
    )
    tell(conn, ways)
    mail.mails.clear()
    hook.answer = 503
    name = fails(conn, 4)
    tell(conn, ways)
    assert [name in item.get_content() for item in mail.mails] == [True]
    assert "503" in str(next(item.problem for item in alerts.standing(conn, ways) if item.transport == "webhook"))
    hook.answer = 200
    conn.execute("update quality.alert_transport set pause_until = null")
    tell(conn, ways)
    (told,) = [alert for item in hook.got for alert in item["alerts"] if alert["dataset"] == name]
    assert (told["rows"], told["rule"], told["severity"]) == (4, "sex_required", "reject")
    assert told["what_to_do"] and len(mail.mails) == 1


def test_what_is_repaired_before_it_is_told_is_not_told(conn: psycopg.Connection[Any], mail: MailServer) -> None:
    name = fails(conn, 4)
    fails(conn, 0, name)
    tell(conn, at(Settings(), smtp_url=f"smtp://127.0.0.1:{mail.server_address[1]}"))
    assert not [item for item in mail.mails if name in item.get_content()]


def test_a_failed_run_is_told_once(conn: psycopg.Connection[Any], mail: MailServer) -> None:
    ways = at(Settings(), smtp_url=f"smtp://127.0.0.1:{mail.server_address[1]}")
    run = str(uuid.uuid4())
    for _ in range(2):
        alerts.run_failed(conn, run, ["malee@dopa.example"], "marts__hotels", f"http://ui/runs/{run}")
    tell(conn, ways)
    (told,) = [item for item in mail.mails if run in item.get_content()]
    assert told["To"] == "malee@dopa.example" and "a run failed: marts__hotels" in told.get_content()


class Silent(socketserver.ThreadingTCPServer):
    """Takes connections and never says a word, until it is told to go on."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        self.go_on = threading.Event()
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.go_on.wait(30)


@pytest.fixture
def silent() -> Iterator[Silent]:
    with Silent() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.go_on.set()
        server.shutdown()


def test_a_receiver_that_hangs_is_left_after_a_while_and_gets_all_when_it_is_back(
    conn: psycopg.Connection[Any], mail: MailServer, hook: Hook, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {
        "smtp_url": f"smtp://127.0.0.1:{mail.server_address[1]}",
        "alert_webhook": f"http://127.0.0.1:{hook.server_address[1]}",
    }
    tell(conn, at(Settings(), **there))
    mail.mails.clear()
    monkeypatch.setattr(alerts, "TIMEOUT_SECONDS", 0.3)
    port = silent.server_address[1]
    hangs = at(Settings(), smtp_url=f"smtp://127.0.0.1:{port}", alert_webhook=f"http://127.0.0.1:{port}")
    name = fails(conn, 6)
    began = time.monotonic()
    assert tell(conn, hangs) == 0
    assert time.monotonic() - began < 5
    waiting = {item.transport: (item.waiting, bool(item.problem)) for item in alerts.standing(conn, hangs)}
    assert waiting == {"mail": (1, True), "webhook": (1, True)}

    conn.execute("update quality.alert_transport set pause_until = null")
    monkeypatch.setattr(alerts, "TIMEOUT_SECONDS", 10.0)
    assert tell(conn, at(Settings(), **there)) == 2
    assert [name in item.get_content() for item in mail.mails] == [True]
    assert [alert["dataset"] for item in hook.got for alert in item["alerts"] if alert.get("dataset") == name] == [name]


def test_dagsters_sensors_tell_of_failing_checks_and_failed_runs(
    conn: psycopg.Connection[Any], settings: Settings, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing check fails no run, so the first sensor tells of it; of a run that failed, the second, without the exception."""
    smtp = _Secret(f"smtp://127.0.0.1:{mail.server_address[1]}")
    places = {"ui_url": "https://dagster.example.go.th", "portal_url": "https://data.example.go.th/portal"}
    told_by = settings.model_copy(update={"smtp_url": smtp, "contracts": ROOT / "assets", **places})
    monkeypatch.setattr(sensors, "load_settings", lambda: told_by)
    each, failed_runs = sensors.alert_sensors()
    name = fails(conn, 9)

    @dg.op
    def breaks() -> None:
        raise ValueError("1101700203451 is no number of a house")

    @dg.job
    def broken() -> None:
        breaks()

    with dg.DagsterInstance.ephemeral() as instance:
        run = broken.execute_in_process(instance=instance, raise_on_error=False)
        context = dg.build_run_status_sensor_context(
            sensor_name="failed_runs", dagster_event=run.get_run_failure_event(), dagster_instance=instance,
            dagster_run=run.dagster_run,
        )  # fmt: skip
        failed_runs(context.for_run_failure())
        skipped = each(dg.build_sensor_context(instance=instance))
    assert isinstance(skipped, dg.SkipReason) and "0 wait" in str(skipped.skip_message)
    texts = {str(item["To"]): item.get_content() for item in mail.mails}
    owners = texts[OWNER.by_severity["reject"]]
    (incident,) = incidents.incidents(conn, name)
    assert (
        f"{name}: sex_required fails for 9 rows" in owners
        and f"{places['portal_url']}/incidents/{incident.id}" in owners.splitlines()
    )
    stewards = {item.name for made in load_contracts(ROOT / "assets") for item in made.team if item.role == "technical_steward"}
    assert stewards and all(
        f"{places['ui_url']}/runs/{run.run_id}" in texts[steward].splitlines() and "breaks" in texts[steward]
        for steward in stewards
    )
    assert not any("1101700203451" in text for text in texts.values())


def test_status_tells_of_alerts_that_wait_and_why(own_demo: Demo) -> None:
    nobody = "smtp://127.0.0.1:1"
    with open_warehouse(own_demo.settings) as warehouse:
        sensors.tell(warehouse, own_demo.settings.model_copy(update={"smtp_url": _Secret(nobody)}))
    told = json.loads(own_demo.dopa("status", "--json", DOPA_SMTP_URL=nobody).stdout)
    (stands,) = told["alerts"]
    assert stands["waiting"] == sum(told["incidents"][severity] for severity in incidents.SEVERITIES) > 0
    assert (stands["sent"], stands["transport"]) == (0, "mail") and "ConnectionRefused" in stands["problem"]
    shown = own_demo.dopa("status", DOPA_SMTP_URL=nobody, COLUMNS="200").stdout
    assert f"alerts by mail: 0 sent, {stands['waiting']} wait" in shown
    # Nothing configured, nothing waits.
    assert json.loads(own_demo.dopa("status", "--json").stdout)["alerts"] == []
    wrong = own_demo.dopa("status", DOPA_SMTP_URL="mail.example.go.th")
    assert "DOPA_SMTP_URL must be an address" in wrong.stdout + wrong.stderr


@pytest.mark.parametrize(("name", "value"), [("smtp_url", "mail.example"), ("alert_webhook", "ftp://example")])
def test_an_address_that_cannot_be_is_one_sentence(name: str, value: str) -> None:
    with pytest.raises(UserError, match="must be an address"):
        at(Settings(), **{name: value})
