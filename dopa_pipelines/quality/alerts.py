"""Alerts: stewards are told of incidents that opened or changed, and of runs that failed, by mail and webhook.

Belongs here: what is told to whom, and that it arrives at least once. Does not belong here: what an incident is
(:mod:`.incidents`). Nothing is sent while a run works: a Dagster sensor collects and sends, so that no receiver that hangs or is
down slows or fails a run. Nothing configured, nothing waits: ``dopa status`` and the UI show incidents all the same.

An incident is told once a day at most, and all incidents of a steward go in one mail. A receiver that fails is tried again after
a pause that doubles from a minute to six hours; an alert older than :data:`MAX_AGE` is given up, and kept with the reason.
A message names datasets, rules, counts and what to do, in Thai and English; it has no value of a row.
"""

from __future__ import annotations

import json
import smtplib
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.quality import repair
from dopa_pipelines.quality.incidents import incidents
from dopa_pipelines.quality.store import Connection
from dopa_pipelines.settings import Settings

MAX_AGE = timedelta(days=3)
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=6)
TIMEOUT_SECONDS = 10.0
_TURN = 0x646F7061_616C6572
_SINCE = timedelta(days=1)

Send = Callable[[str, Sequence[Mapping[str, Any]]], None]


@dataclass(frozen=True)
class Standing:
    """Alerts of each transport that is configured. ``problem``: why the last attempt failed."""

    transport: str
    waiting: int
    sent: int
    given_up: int
    problem: str | None

    @property
    def healthy(self) -> bool:
        return not self.given_up and self.problem is None

    def __str__(self) -> str:
        given_up = f", {self.given_up} given up" if self.given_up else ""
        problem = f" ({self.problem})" if self.problem else ""
        return f"alerts by {self.transport}: {self.sent} sent, {self.waiting} wait{given_up}{problem}"


def collect(connection: Connection, contracts: Mapping[str, Contract], link: Callable[[int], str]) -> int:
    """Note what is to be told: incidents that opened, opened again or whose rows changed within a day; returns how many.

    ``link``: the page of an incident, by its number. In the caller's transaction; on the same day it is noted once.
    """
    moved = [
        row[0]
        for row in connection.execute(
            "select distinct e.incident_id from quality.incident_event e join quality.incident i on i.id = e.incident_id"
            " where e.action in ('opened', 'reopened', 'seen') and e.at > clock_timestamp() - %s and i.closed_at is null",
            (_SINCE,),
        )
    ]
    noted = 0
    for item in incidents(connection, ids=moved) if moved else ():
        if item.owner is None:
            continue
        contract = contracts.get(item.dataset)
        steps = repair.of(item.kind, item.severity, item.rule, contract, item.dataset)
        rows = "" if item.rows_now is None else f": {item.rows_now:,}"
        message = {
            "dataset": item.dataset,
            "rule": item.rule,
            "severity": item.severity,
            "rows": item.rows_now,
            "due": item.due_on,
            "incident": item.id,
            "th": f"{contract.title_th if contract else item.dataset}: กฎ {item.rule} ไม่ผ่าน{rows and f' {item.rows_now:,} แถว'}",
            "en": f"{item.dataset}: {item.rule} fails{rows and f' for {item.rows_now:,} rows'}",
            "what_to_do": [{"th": step.th, "en": step.en, "command": step.command} for step in steps],
            "link": link(item.id),
        }
        noted += _note(connection, "incident", item.id, None, [item.owner], message)
    return noted


def run_failed(connection: Connection, run_id: str, recipients: Sequence[str], problem: str, link: str) -> int:
    """Note that a run failed. ``problem``: one line, without values of rows."""
    message = {
        "run": run_id,
        "th": f"งานประมวลผลล้มเหลว: {problem}",
        "en": f"a run failed: {problem}",
        "link": link,
        "what_to_do": [],
    }
    return _note(connection, "run", None, run_id, list(recipients), message)


def _note(
    connection: Connection, kind: str, incident: int | None, run_id: str | None, recipients: list[str], message: dict[str, Any]
) -> int:
    row = connection.execute(
        "insert into quality.alert (kind, incident_id, run_id, day, recipients, message)"
        " values (%s, %s, %s, (now() at time zone 'Asia/Bangkok')::date, %s, %s) on conflict do nothing returning id",
        (
            kind,
            incident,
            run_id,
            recipients,
            Jsonb(message, dumps=lambda value: json.dumps(value, default=str, ensure_ascii=False)),
        ),
    ).fetchone()
    return int(row is not None)


# On their way


def transports(settings: Settings) -> dict[str, Send]:
    """Where alerts go, by the configuration. Raises :class:`UserError` for one that cannot be."""
    found: dict[str, Send] = {}
    if settings.smtp_url is not None:
        address = settings.smtp_url.get_secret_value()
        parts = urlsplit(address)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise UserError("DOPA_SMTP_URL must be an address such as smtps://user:password@mail.example.go.th:465")
        sender = settings.alert_from or f"dopa@{parts.hostname}"
        found["mail"] = lambda to, alerts: _mail(address, sender, to, alerts)
    if settings.alert_webhook is not None:
        hook = settings.alert_webhook.get_secret_value()
        if urlsplit(hook).scheme not in ("http", "https"):
            raise UserError("DOPA_ALERT_WEBHOOK must be an address that begins with https:// or http://")
        found["webhook"] = lambda to, alerts: _post(hook, to, alerts)
    return found


def send(connection: Connection, ways: Mapping[str, Send]) -> int:
    """Send what waits, a message a recipient and transport; returns the number of alerts that arrived. Commits as it goes.

    Another process that sends leaves it at once. A failure is noted and ends this pass of its transport.
    """
    sent = 0
    row = connection.execute("select pg_try_advisory_lock(%s)", (_TURN,)).fetchone()
    if not (row and row[0]):
        return 0
    try:
        for name, way in ways.items():
            connection.execute("insert into quality.alert_transport (transport) values (%s) on conflict do nothing", (name,))
            connection.execute(
                "insert into quality.alert_sending (alert_id, transport, state, attempts, problem)"
                " select a.id, %(name)s, 'given_up', coalesce(s.attempts, 0), coalesce(s.problem, 'too old')"
                " from quality.alert a left join quality.alert_sending s on s.alert_id = a.id and s.transport = %(name)s"
                " where a.raised_at < clock_timestamp() - %(age)s and coalesce(s.state, 'retry') = 'retry'"
                " and a.raised_at >= (select since from quality.alert_transport where transport = %(name)s)"
                " on conflict (alert_id, transport) do update set state = 'given_up'",
                {"name": name, "age": MAX_AGE},
            )
            connection.commit()
            sent += _send_by(connection, name, way)
    finally:
        connection.rollback()
        connection.execute("select pg_advisory_unlock(%s)", (_TURN,))
        connection.commit()
    return sent


def _send_by(connection: Connection, name: str, way: Send) -> int:
    sent = 0
    with connection.cursor(row_factory=dict_row) as cursor:
        waiting = cursor.execute(
            "select a.id, a.recipients, a.message from quality.alert a"
            " join quality.alert_transport t on t.transport = %(name)s"
            " and coalesce(t.pause_until, '-infinity') < clock_timestamp()"
            " left join quality.alert_sending s on s.alert_id = a.id and s.transport = %(name)s"
            " where coalesce(s.state, 'retry') = 'retry' and a.raised_at >= t.since - interval '1 day' order by a.id limit 1000",
            {"name": name},
        ).fetchall()
    by_recipient: dict[str, list[dict[str, Any]]] = {}
    for alert in waiting:
        for recipient in alert["recipients"]:
            by_recipient.setdefault(recipient, []).append(alert)
    for recipient, alerts in by_recipient.items():
        try:
            way(recipient, [alert["message"] for alert in alerts])
        except (OSError, smtplib.SMTPException, UserError) as error:
            problem = f"{type(error).__name__}: {error}"[:300]
            connection.execute(
                "update quality.alert_transport set failures = failures + 1, problem = %s,"
                " pause_until = clock_timestamp() + least(%s * power(2, least(failures, 20)), %s) where transport = %s",
                (problem, FIRST_PAUSE, LONGEST_PAUSE, name),
            )
            _became(connection, name, alerts, "retry", problem)
            connection.commit()
            return sent
        _became(connection, name, alerts, "sent", None)
        connection.execute(
            "update quality.alert_transport set failures = 0, problem = null, pause_until = null, last_sent = clock_timestamp()"
            " where transport = %s",
            (name,),
        )
        connection.commit()
        sent += len(alerts)
    return sent


def _became(connection: Connection, name: str, alerts: Sequence[Mapping[str, Any]], state: str, problem: str | None) -> None:
    connection.execute(
        "insert into quality.alert_sending (alert_id, transport, state, attempts, problem)"
        " select id, %s, %s, 1, %s from unnest(%s::bigint[]) as a (id)"
        " on conflict (alert_id, transport) do update set state = excluded.state, problem = excluded.problem,"
        " attempts = quality.alert_sending.attempts + 1, at = clock_timestamp()",
        (name, state, problem, [alert["id"] for alert in alerts]),
    )


def standing(connection: Connection, ways: Mapping[str, Send]) -> list[Standing]:
    """What became of alerts, by configured transport."""
    found = []
    for name in ways:
        row = connection.execute(
            "select count(*) filter (where coalesce(s.state, 'retry') = 'retry'), count(*) filter (where s.state = 'sent'),"
            " count(*) filter (where s.state = 'given_up'), max(t.problem)"
            " from quality.alert a left join quality.alert_sending s on s.alert_id = a.id and s.transport = %(name)s"
            " left join quality.alert_transport t on t.transport = %(name)s"
            " where a.raised_at >= coalesce(t.since, clock_timestamp()) - interval '1 day'",
            {"name": name},
        ).fetchone()
        assert row is not None
        found.append(Standing(name, *row))
    return found


def _mail(url: str, sender: str, to: str, alerts: Sequence[Mapping[str, Any]]) -> None:
    parts = urlsplit(url)
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, to
    first = alerts[0]["en"] if len(alerts) == 1 else f"{len(alerts)} alerts"
    mail["Subject"] = f"[dopa] {first}"
    mail.set_content(_text(alerts))
    port = parts.port or (465 if parts.scheme == "smtps" else 25)
    host = parts.hostname or ""
    if parts.scheme == "smtps":
        client: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context())
    else:
        client = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
    with client:
        if parts.username:
            if parts.scheme == "smtp":
                client.starttls(context=ssl.create_default_context())
            client.login(unquote(parts.username), unquote(parts.password or ""))
        client.send_message(mail)


def _text(alerts: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for alert in alerts:
        lines += [alert["th"], alert["en"]]
        if alert.get("due"):
            lines.append(f"กำหนดแก้ / due {alert['due']}; dopa quality incidents about {alert['incident']}")
        lines += [
            f"- {step['th']} / {step['en']}" + (f": {step['command']}" if step["command"] else "") for step in alert["what_to_do"]
        ]
        lines += [alert["link"], ""]
    return "\n".join(lines)


def _post(url: str, to: str, alerts: Sequence[Mapping[str, Any]]) -> None:
    import httpx

    try:
        answer = httpx.post(url, json={"to": to, "text": _text(alerts), "alerts": list(alerts)}, timeout=TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        raise UserError(f"the webhook did not answer: {type(error).__name__}") from error
    if answer.status_code >= 300:
        raise UserError(f"the webhook answered {answer.status_code}")
