"""The outbox: our events on their way to other systems, by the OpenLineage client's own transports.

Belongs here: which events go out, in which order, and what is done when the receiver does not take them. Does not belong here:
making events (``openlineage``), and where they go: that is the client's standard configuration (``openlineage.yml``,
``OPENLINEAGE_URL``, ``OPENLINEAGE_CONFIG``, ``OPENLINEAGE__TRANSPORT__…``). Nothing configured, nothing waits.

Nothing is sent while a run works: a Dagster sensor and ``dopa lineage forward`` send what was recorded, at least once, and the
events of one run in their order. A receiver that does not answer, or answers 5xx, 408, 429 or with a refusal of us rather than of
the event (401, 403, 404, 405, 407), is tried again after a pause that doubles from 5 seconds to an hour; the rest of that run
waits, other runs go on. An event that is refused by itself (any other 4xx) is given up at once, and so is one that failed
:data:`MAX_ATTEMPTS` times while others got through; both are counted as failed and kept with the reason, and its run goes on.
Events older than :data:`MAX_AGE`, and the oldest of more than :data:`MAX_WAITING`, are dropped and counted. Events that were
imported from others are never sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from dopa_pipelines.errors import UserError

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent
    from openlineage.client.transport import Transport

MAX_AGE = timedelta(days=30)
MAX_WAITING = 200_000
MAX_ATTEMPTS = 10
"""Failures of one event, while others got through, after which it is given up."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=1)
BUDGET_SECONDS = 20.0
"""How long one pass may take before it leaves the rest to the next."""

TIMEOUT_SECONDS = 10.0
"""How long a transport that sends by itself (Kafka, asynchronous HTTP) may take for one event."""

RECEIVER_DOWN = 3
"""Failures one after the other, each of another run, after which a pass ends."""

_BATCH = 200
_NOTE_EVERY = 50
_OF_US = frozenset({401, 403, 404, 405, 407, 408, 425, 429})
# Any number: who forwards takes the turn, so that an order is kept.
_TURN = 0x646F7061_6F757462


@dataclass(frozen=True)
class Standing:
    """What became of the events so far. ``configured``: the transport's kind; None where nothing is configured.

    ``waiting`` counts events that are to be sent, ``retrying`` those of them that failed before. ``problem`` is the latest.
    """

    configured: str | None
    waiting: int
    retrying: int
    sent: int
    failed: int
    dropped: int
    oldest: datetime | None = None
    last_sent: datetime | None = None
    next_try: datetime | None = None
    problem: str | None = None

    @property
    def healthy(self) -> bool:
        """Nothing was lost, and nothing fails now."""
        return not (self.failed or self.dropped or self.retrying)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def __str__(self) -> str:
        if self.configured is None and not (self.sent or self.failed or self.dropped):
            return "lineage events are not forwarded: no receiver is configured"
        words = f"lineage events: {self.sent:,} sent, {self.waiting:,} waiting, {self.failed:,} refused, {self.dropped:,} dropped"
        if self.configured is None:
            words += "; no receiver is configured any more"
        if self.problem and (self.retrying or self.failed):
            words += f"; {self.problem}"
        return words


@dataclass
class Pass:
    """What one pass did; ``problem`` is the latest failure. ``busy``: another process was forwarding."""

    sent: int = 0
    failed: int = 0
    dropped: int = 0
    left: int = 0
    problem: str | None = None
    busy: bool = False


def configured() -> str | None:
    """The kind of transport that the client's standard configuration names; None where there is none.

    Raises UserError where the configuration cannot be used.
    """
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return None
    places = [Path("openlineage.yml"), Path("~/.openlineage/openlineage.yml").expanduser()]
    # Asked before the client is imported: most installations forward nothing, and `dopa status` should not pay for it.
    if not any(name.startswith("OPENLINEAGE_") for name in os.environ) and not any(place.is_file() for place in places):
        return None
    return _client()[1]


def standing(connection: psycopg.Connection[Any], kind: str | None) -> Standing:
    """What waits, was sent, failed and was dropped. ``kind``: what :func:`configured` says."""
    with connection.cursor(row_factory=dict_row) as cursor:
        state = cursor.execute("select * from ops.outbox_state").fetchone()
        waits = cursor.execute(
            """
            select count(*) as waiting, count(o.event_id) as retrying, min(e.event_time) as oldest,
                (select problem from ops.outbox where problem is not null order by at desc limit 1) as problem
            from lineage.event e
            left join ops.outbox o on o.event_id = e.id
            where e.id > (select through from ops.outbox_state) and e.imported is null
              and (o.state is null or o.state = 'retry')
            """
        ).fetchone()
    assert state is not None and waits is not None
    quiet = kind is None
    return Standing(
        configured=kind,
        waiting=0 if quiet else waits["waiting"],
        retrying=0 if quiet else waits["retrying"],
        sent=state["sent"],
        failed=state["failed"],
        dropped=state["dropped"],
        oldest=None if quiet else waits["oldest"],
        last_sent=state["last_sent"],
        next_try=None if quiet else state["pause_until"],
        problem=waits["problem"] or state["problem"],
    )


def forward(
    connection: psycopg.Connection[Any],
    *,
    at_once: bool = False,
    budget_seconds: float = BUDGET_SECONDS,
    max_age: timedelta = MAX_AGE,
    max_waiting: int = MAX_WAITING,
) -> Pass:
    """Send what waits, until nothing is left, the budget is used up or the receiver takes nothing.

    ``connection``: in autocommit, of the loader. ``at_once``: also what waits for its next try. Raises UserError where the
    configuration cannot be used; what a receiver does is never an error of ours.
    """
    done = Pass()
    if configured() is None:
        return done
    turn = connection.execute("select pg_try_advisory_lock(%s)", (_TURN,)).fetchone()
    if not turn or not turn[0]:
        done.busy = True
        return done
    try:
        paused = connection.execute("select pause_until > clock_timestamp() from ops.outbox_state").fetchone()
        done.dropped = _drop(connection, max_age, max_waiting)
        if at_once or not (paused and paused[0]):
            client, _ = _client()
            with _Sender(client) as sender:
                _send(connection, sender, done, at_once, time.monotonic() + budget_seconds)
        _settle(connection)
        row = connection.execute(f"select count(*) {_WAITING}").fetchone()
        done.left = int(row[0]) if row else 0
    finally:
        connection.execute("select pg_advisory_unlock(%s)", (_TURN,))
    return done


# Imported events are none of ours to send.
_WAITING = """
from lineage.event e
left join ops.outbox o on o.event_id = e.id
where e.id > (select through from ops.outbox_state) and e.imported is null and (o.state is null or o.state = 'retry')
"""


def _send(connection: psycopg.Connection[Any], sender: _Sender, done: Pass, at_once: bool, until: float) -> None:
    blocked: set[str | None] = set()
    sent: list[int] = []
    failures = 0
    after = 0
    try:
        while True:
            with connection.cursor(row_factory=dict_row) as cursor:
                rows = cursor.execute(
                    "select e.id, e.run_id, lineage.whole_event(e.event) as event, coalesce(o.attempts, 0) as attempts,"
                    " o.sent_before,"
                    f" coalesce(o.next_try > clock_timestamp(), false) as later {_WAITING} and e.id > %s order by e.id limit %s",
                    (after, _BATCH),
                ).fetchall()
            if not rows:
                return
            after = rows[-1]["id"]
            for row in rows:
                if time.monotonic() > until:
                    return
                if row["run_id"] in blocked:
                    continue
                if row["later"] and not at_once:
                    blocked.add(row["run_id"])
                    continue
                problem = sender.send(row["event"])
                if problem is None:
                    sent.append(row["id"])
                    done.sent += 1
                    failures = 0
                    if len(sent) == _NOTE_EVERY:
                        _note_sent(connection, sent)
                    continue
                _note_sent(connection, sent)
                done.problem = str(problem)
                if _note_problem(connection, row, problem):
                    done.failed += 1
                    continue
                blocked.add(row["run_id"])
                failures += 1
                if failures == RECEIVER_DOWN:
                    return
    finally:
        _note_sent(connection, sent)
        _note_pause(connection, failures == RECEIVER_DOWN and not done.sent, done.problem)


def _note_sent(connection: psycopg.Connection[Any], sent: list[int]) -> None:
    if sent:
        connection.execute(
            "with noted as (insert into ops.outbox (event_id, state) select unnest(%s::bigint[]), 'sent'"
            " on conflict (event_id) do update set state = 'sent', problem = null, next_try = null returning 1)"
            " update ops.outbox_state set sent = sent + (select count(*) from noted), last_sent = clock_timestamp()",
            (list(sent),),
        )
        sent.clear()


def _note_problem(connection: psycopg.Connection[Any], row: Mapping[str, Any], problem: _Problem) -> bool:
    """Keep what is wrong with an event; whether it is given up."""
    attempts = row["attempts"] + 1
    state = connection.execute("select sent from ops.outbox_state").fetchone()
    sent = int(state[0]) if state else 0
    before = row["sent_before"] if row["sent_before"] is not None else sent
    given_up = problem.for_good or (attempts >= MAX_ATTEMPTS and sent > before)
    connection.execute(
        """
        with noted as (
            insert into ops.outbox (event_id, state, attempts, sent_before, next_try, problem)
            values (%(id)s, %(state)s, %(attempts)s, %(before)s, clock_timestamp() + %(pause)s, %(problem)s)
            on conflict (event_id) do update set state = excluded.state, attempts = excluded.attempts,
                sent_before = excluded.sent_before, next_try = excluded.next_try, problem = excluded.problem,
                at = clock_timestamp()
        )
        update ops.outbox_state set failed = failed + %(failed)s
        """,
        {
            "id": row["id"],
            "state": "failed" if given_up else "retry",
            "attempts": attempts,
            "before": before,
            "pause": _pause(attempts),
            "problem": str(problem),
            "failed": int(given_up),
        },
    )
    return given_up


def _note_pause(connection: psycopg.Connection[Any], down: bool, problem: str | None) -> None:
    """A receiver that took nothing is left alone for a while, the longer the oftener it did."""
    if not down:
        connection.execute(
            "update ops.outbox_state set failures = 0, pause_until = null, problem = null"
            " where failures > 0 or problem is not null"
        )
        return
    row = connection.execute("update ops.outbox_state set failures = failures + 1, problem = %s returning failures", (problem,))
    failures = (row.fetchone() or (1,))[0]
    connection.execute("update ops.outbox_state set pause_until = clock_timestamp() + %s", (_pause(failures),))


def _pause(attempts: int) -> timedelta:
    return min(FIRST_PAUSE * (1 << min(attempts - 1, 20)), LONGEST_PAUSE)


def _drop(connection: psycopg.Connection[Any], max_age: timedelta, max_waiting: int) -> int:
    """Drop what waited too long or is too much, the oldest first; counted, never silently."""
    row = connection.execute(
        f"""
        with waiting as (select e.id, e.event_time {_WAITING}),
        -- An event's own time: that of its work, which says how old the news is.
        doomed as (
            select id from waiting where event_time < clock_timestamp() - %s
            union
            (select id from waiting order by id desc offset %s)
        ),
        noted as (
            insert into ops.outbox (event_id, state, problem) select id, 'sent', 'dropped' from doomed
            on conflict (event_id) do update set state = 'sent', problem = null, next_try = null
            returning 1
        )
        update ops.outbox_state set dropped = dropped + (select count(*) from noted) returning (select count(*) from noted)
        """,
        (max_age, max_waiting),
    ).fetchone()
    return int(row[0]) if row else 0


def _settle(connection: psycopg.Connection[Any]) -> None:
    """Move the mark up to which all is settled, and forget the rows below it but those that were refused.

    Events get their ids under one lock, held until they are committed: none can appear below the mark later.
    """
    connection.execute(
        f"""
        with mark as (
            select coalesce((select min(e.id) - 1 {_WAITING}), (select max(id) from lineage.event), 0) as through
        ),
        gone as (delete from ops.outbox using mark where event_id <= mark.through and state = 'sent')
        update ops.outbox_state set through = greatest(outbox_state.through, mark.through) from mark
        """
    )


# Transports


class _Problem:
    """Why an event was not taken; ``for_good``: it never will be."""

    def __init__(self, words: str, for_good: bool) -> None:
        self._words = words
        self.for_good = for_good

    def __str__(self) -> str:
        return self._words


class _Sender:
    """The configured transport, one try an event: the outbox itself tries again, and keeps an order while it does."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._transports, self._all = _each(client.transport)
        for transport in self._transports:
            _once(transport)

    def __enter__(self) -> _Sender:
        return self

    def __exit__(self, *_: object) -> None:
        for transport in self._transports:
            transport.close(TIMEOUT_SECONDS)

    def send(self, event: Mapping[str, Any]) -> _Problem | None:
        """Send an event to all receivers, or to the first that takes it where the configuration says so. One that the
        configuration filters out has gone where it was to go."""
        revived = _revived(event)
        if self._client.filter_event(revived) is None:
            return None
        problems = []
        for transport in self._transports:
            problem = _emit(transport, revived)
            if problem is not None:
                problems.append(problem)
            elif not self._all:
                return None
        if not problems:
            return None
        # One receiver may take it yet: for good is only what all refuse that did not take it.
        lasting = [problem for problem in problems if not problem.for_good]
        return (lasting or problems)[0]


def _client() -> tuple[Any, str | None]:
    """The client by its standard configuration, and the kind of its transport (None: there is none)."""
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.noop import NoopTransport

    # A null transport: the configuration is read without making a transport that may print or connect.
    probe = OpenLineageClient(transport=NoopTransport(None))  # type: ignore[arg-type]
    try:
        kind = (probe.config.transport or {}).get("type") or ("http" if os.environ.get("OPENLINEAGE_URL") else None)
        if kind in (None, "noop"):
            return probe, None
        return OpenLineageClient(), str(kind)
    except Exception as error:
        raise UserError(f"The configuration of OpenLineage (openlineage.yml, OPENLINEAGE_…) cannot be used: {error}") from error


def _each(transport: Transport) -> tuple[list[Transport], bool]:
    """The transports of a composite one by one, since it says that all is well when only one took an event; and whether all
    of them have to take it."""
    from openlineage.client.transport.composite import CompositeTransport

    if not isinstance(transport, CompositeTransport):
        return [transport], True
    found = [inner for child in transport.transports for inner in _each(child)[0]]
    return found, transport.config.continue_on_success


def _once(transport: Transport) -> None:
    """Leave trying again to the outbox, and make a transport that sends by itself tell what became of an event."""
    from openlineage.client.transport.http import HttpTransport
    from openlineage.client.transport.http_common import DEFAULT_RETRY_CONFIG
    from openlineage.client.transport.kafka import KafkaTransport

    if isinstance(transport, HttpTransport) and transport.config.retry == DEFAULT_RETRY_CONFIG:
        transport.config.retry = {"total": 0, "status_forcelist": []}
    elif isinstance(transport, KafkaTransport):
        transport.flush = False
        transport.producer = _Acknowledged(transport.producer)


class _Acknowledged:
    """A Kafka producer that keeps what the broker answered to the last message."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self.problem: object = None

    def produce(self, **message: Any) -> None:
        self.problem = None

        def answered(error: object, _: object) -> None:
            self.problem = error

        self._producer.produce(**message | {"on_delivery": answered})

    def flush(self, timeout: float = -1) -> int:
        left: int = self._producer.flush(timeout)
        return left


def _emit(transport: Transport, event: RunEvent) -> _Problem | None:
    try:
        failed_before = _failed(transport)
        transport.emit(event)
        waited = getattr(transport, "wait_for_completion", None)
        if waited is not None and not waited(TIMEOUT_SECONDS):
            return _Problem(f"{transport.kind}: no answer within {TIMEOUT_SECONDS:g} s", False)
        if _failed(transport) > failed_before:
            return _Problem(f"{transport.kind}: the receiver did not take the event", False)
        answer = getattr(getattr(transport, "producer", None), "problem", None)
        if answer is not None:
            return _Problem(f"{transport.kind}: {answer}", False)
    except Exception as error:
        # Whatever a transport raises: a receiver's trouble is never a run's.
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return _Problem(f"the receiver answered {status}", 400 <= status < 500 and status not in _OF_US)
        # Neither an address nor a password of it belongs in a message.
        return _Problem(f"the receiver cannot be reached ({type(error).__name__})", False)
    return None


def _failed(transport: Transport) -> int:
    statistics = getattr(transport, "get_stats", None)
    return int(statistics()["failed"]) if statistics else 0


def _revived(event: Mapping[str, Any]) -> RunEvent:
    """The stored event as the client's class: transports look at the type, the run and the job."""
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.generated import parent_run

    facets = dict(event["run"].get("facets") or {})
    if parent := facets.get("parent"):
        root = parent.get("root")
        # Kafka's keys are made of the parent's classes.
        facets["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(parent["run"]["runId"], None),
            job=parent_run.Job(parent["job"]["namespace"], parent["job"]["name"], None),
            root=parent_run.Root(
                parent_run.RootRun(root["run"]["runId"], None),
                parent_run.RootJob(root["job"]["namespace"], root["job"]["name"], None),
            )
            if root
            else None,
            producer=parent["_producer"],
        )
    return RunEvent(
        eventType=RunState(event["eventType"]),
        eventTime=event["eventTime"],
        run=Run(event["run"]["runId"], facets),
        job=Job(event["job"]["namespace"], event["job"]["name"], event["job"].get("facets")),
        inputs=[
            InputDataset(d["namespace"], d["name"], d.get("inputFacets"), facets=d.get("facets"))
            for d in event.get("inputs") or ()
        ],
        outputs=[
            OutputDataset(d["namespace"], d["name"], d.get("outputFacets"), facets=d.get("facets"))
            for d in event.get("outputs") or ()
        ],
        producer=event["producer"],
    )
