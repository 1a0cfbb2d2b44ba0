"""Incidents: a rule that failed, from its first failure until it passes again, with somebody who sees to it.

Belongs here: when incidents open, change and close, what people do with them, and figures of them by bureau and month. Does not
belong here: what a rule finds (``checking``, ``models``, ``unusual``), telling owners (``alerts``), the workbook (``workbook``).

An incident is of one rule of one dataset, and at most one of a rule is open. It opens with the first failed result, follows the
rows that fail, and closes with the first result that passes, or when its rule is no more. A rule that fails again within
:data:`REOPEN_DAYS` days reopens the last incident, which was not repaired then: its time to repair counts from the first opening.
After that a failure is a new incident. Incidents follow from results alone: to settle results again changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from psycopg.rows import class_row, dict_row

from dopa_pipelines.contracts import Contract
from dopa_pipelines.documents import did_you_mean
from dopa_pipelines.errors import UserError
from dopa_pipelines.quality.store import Connection
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.thai.holidays import is_closed

DUE_WORKING_DAYS: Mapping[str, int] = {"block": 3, "reject": 7, "warn": 14}
"""Working days until an incident should be repaired: what holds others back, rows that are kept out, all else."""
REOPEN_DAYS = 7
ROLES: Mapping[str, tuple[str, ...]] = {
    "block": ("technical_steward", "quality_steward", "data_steward"),
    "reject": ("technical_steward", "quality_steward", "data_steward"),
    "warn": ("quality_steward", "technical_steward", "data_steward"),
}
"""Roles of a contract by severity: the first that somebody has owns the incident."""
SEVERITIES = ("block", "reject", "warn")
SEVERITY_TH: Mapping[str, str] = {"block": "ระงับข้อมูลปลายทาง", "reject": "ไม่รับแถวที่ผิด", "warn": "เตือน"}
"""What a rule does that fails, as pages and workbooks tell it."""
# Who works, as the process says, or the database's role.
_WHO = "coalesce(nullif(current_setting('dopa.actor', true), ''), current_user::text)"


@dataclass(frozen=True)
class Owner:
    """Whose a dataset is: the bureau, and who owns its incidents by severity."""

    bureau: str | None = None
    by_severity: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settled:
    """Ids of the incidents that results changed. ``seen``: those whose rows changed."""

    opened: list[int] = field(default_factory=list)
    reopened: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Incident:
    """An incident as it stands. ``result``: its last one, of which ``kind``, ``detail`` and ``column`` are; ``rows_*``: None if
    not of rows."""

    id: int
    dataset: str
    bureau: str | None
    rule: str
    kind: str
    dimension: str
    severity: str
    opened_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None
    rows_first: int | None
    rows_now: int | None
    rows_most: int | None
    owner: str | None
    due_on: date | None
    acknowledged_at: datetime | None
    explanation: str | None
    result: int
    column: str | None
    value: float | None
    detail: dict[str, Any]

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    def overdue(self, day: date) -> bool:
        """Whether it should have been repaired before ``day``."""
        return self.is_open and self.due_on is not None and self.due_on < day

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "detail"}


@dataclass(frozen=True)
class Event:
    """What happened to an incident."""

    at: datetime
    who: str
    action: str
    note: str | None


@dataclass(frozen=True)
class Month:
    """One bureau's month in Thailand. ``errors``: rows that failed at most, of incidents opened in it; ``month_be``: ``2568-11``.

    ``days_to_repair``: mean and median of those closed in it, None where none was.
    """

    bureau: str
    month: date
    month_be: str
    opened: int
    errors: int
    closed: int
    closed_late: int
    days_to_repair: float | None
    days_to_repair_median: float | None
    open_at_end: int


def owner_of(contract: Contract) -> Owner:
    """Whose a dataset is by its contract."""
    held: dict[str, str] = {}
    for member in contract.team:
        held.setdefault(member.role, member.name)
    named = {severity: next((held[role] for role in roles if role in held), None) for severity, roles in ROLES.items()}
    return Owner(contract.bureau, {severity: name for severity, name in named.items() if name})


def owner_of_table(bureau: object, contracts: Iterable[Contract]) -> Owner:
    """Whose a built table is: the stewards of a dataset of its bureau see to it, as the bureau has no others."""
    if not isinstance(bureau, str):
        return Owner()
    own = sorted((item for item in contracts if item.bureau == bureau), key=lambda item: item.dataset)
    return Owner(bureau, owner_of(own[0]).by_severity if own else {})


def due(severity: str, opened: date) -> date:
    """The day by which an incident should be repaired: working days in Thailand after the one it was opened on."""
    day = opened
    for _ in range(DUE_WORKING_DAYS[severity]):
        day += timedelta(1)
        while is_closed(day):
            day += timedelta(1)
    return day


def settle(
    connection: Connection,
    results: Iterable[int],
    owner: Owner | None = None,
    *,
    known: Mapping[str, Collection[str]] | None = None,
) -> Settled:
    """Open, update and close incidents by kept results, in the caller's transaction. The same results again change nothing.

    ``results``: ids of ``quality.result``. ``owner``: whose what opens is. ``known``: the rules that datasets have now;
    incidents of rules that are no more are closed.
    """
    settled = Settled()
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(
            "select id, dataset, rule, dimension, severity, measured_at, rows_failed, passed from quality.result"
            " where id = any(%s) order by dataset, rule, id",
            (sorted(set(results)),),
        ).fetchall()
        datasets = sorted({row["dataset"] for row in found} | set(known or ()))
        for dataset in datasets:
            cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"incident:{dataset}",))
        last = {
            (row["dataset"], row["rule"]): row
            for row in cursor.execute(
                "select distinct on (dataset, rule) * from quality.incident where dataset = any(%s)"
                " order by dataset, rule, id desc",
                (datasets,),
            ).fetchall()
        }
    for result in found:
        key = (result["dataset"], result["rule"])
        before = last.get(key)
        if before is not None and result["id"] <= before["last_result"]:
            continue
        is_open = before is not None and before["closed_at"] is None
        if result["passed"]:
            if before is not None and is_open:
                last[key] = _close(connection, before, result["measured_at"], result["id"], None)
                settled.closed.append(before["id"])
        elif before is not None and is_open:
            last[key] = _see(connection, before, result)
            if last[key]["rows_now"] != before["rows_now"]:
                settled.seen.append(before["id"])
        elif before is not None and result["measured_at"] - before["closed_at"] < timedelta(days=REOPEN_DAYS):
            last[key] = _reopen(connection, before, result)
            settled.reopened.append(before["id"])
        else:
            last[key] = _open(connection, result, owner or Owner())
            settled.opened.append(last[key]["id"])
    for (dataset, rule), incident in last.items():
        if known and dataset in known and incident["closed_at"] is None and rule not in known[dataset] and "unusual" not in rule:
            _close(connection, incident, None, incident["last_result"], "the rule is no more")
            settled.closed.append(incident["id"])
    return settled


def _note(connection: Connection, incident: int, action: str, note: str | None = None, at: datetime | None = None) -> None:
    connection.execute(
        "insert into quality.incident_event (incident_id, at, who, action, note)"
        f" values (%s, coalesce(%s, clock_timestamp()), {_WHO}, %s, %s)",
        (incident, at, action, note),
    )


def _change(connection: Connection, incident: int, **facts: Any) -> dict[str, Any]:
    names = ", ".join(f"{name} = %({name})s" for name in facts)
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            f"update quality.incident set {names} where id = %(id)s returning *".encode(), {**facts, "id": incident}
        ).fetchone()
    assert row is not None
    return row


def _open(connection: Connection, result: Mapping[str, Any], owner: Owner) -> dict[str, Any]:
    at, rows = result["measured_at"], result["rows_failed"]
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            """
            insert into quality.incident (
                dataset, bureau, rule, dimension, severity, opened_at, first_result, last_result, last_seen_at, rows_first,
                rows_now, rows_most, owner, due_on
            ) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning *
            """,
            (
                result["dataset"], owner.bureau, result["rule"], result["dimension"], result["severity"], at, result["id"],
                result["id"], at, rows, rows, rows, owner.by_severity.get(result["severity"]),
                due(result["severity"], at.astimezone(BANGKOK).date()),
            ),
        ).fetchone()  # fmt: skip
    assert row is not None
    _note(connection, row["id"], "opened", _rows(rows), at)
    return row


def _see(connection: Connection, incident: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    rows = result["rows_failed"]
    if rows != incident["rows_now"]:
        _note(connection, incident["id"], "seen", f"{_rows(incident['rows_now'])} → {_rows(rows)}", result["measured_at"])
    return _change(
        connection, incident["id"], last_result=result["id"], last_seen_at=result["measured_at"], rows_now=rows,
        rows_most=_most(incident["rows_most"], rows), severity=result["severity"], dimension=result["dimension"],
    )  # fmt: skip


def _reopen(connection: Connection, incident: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    at, rows = result["measured_at"], result["rows_failed"]
    _note(connection, incident["id"], "reopened", _rows(rows), at)
    return _change(
        connection, incident["id"], last_result=result["id"], last_seen_at=at, rows_now=rows, closed_at=None,
        rows_most=_most(incident["rows_most"], rows), acknowledged_at=None, severity=result["severity"],
        due_on=due(result["severity"], at.astimezone(BANGKOK).date()),
    )  # fmt: skip


def _close(
    connection: Connection, incident: Mapping[str, Any], at: datetime | None, result: int, why: str | None
) -> dict[str, Any]:
    closed = max(at or datetime.now(BANGKOK), incident["opened_at"])
    _note(connection, incident["id"], "closed", why, at)
    rows = None if incident["rows_now"] is None else 0
    return _change(connection, incident["id"], closed_at=closed, last_result=result, rows_now=rows)


def _most(before: int | None, now: int | None) -> int | None:
    return now if before is None else before if now is None else max(before, now)


def _rows(rows: int | None) -> str | None:
    return None if rows is None else f"{rows:,} rows"


# What people do

_SELECT = """
    select i.id, i.dataset, i.bureau, i.rule, r.kind, i.dimension, i.severity, i.opened_at, i.last_seen_at, i.closed_at,
        i.rows_first, i.rows_now, i.rows_most, i.owner, i.due_on, i.acknowledged_at, i.explanation, r.id as result,
        r.column_name as column, r.value, r.detail
    from quality.incident i
    join quality.result r on r.id = i.last_result
"""


def incidents(
    connection: Connection,
    dataset: str | None = None,
    *,
    bureau: str | None = None,
    closed: bool = False,
    ids: Collection[int] | None = None,
) -> list[Incident]:
    """Open incidents, those that hold others back first, then by due date; with ``closed`` also those that were closed."""
    with connection.cursor(row_factory=class_row(Incident)) as cursor:
        return cursor.execute(
            _SELECT
            + """
            where (%(dataset)s::text is null or i.dataset = %(dataset)s) and (%(bureau)s::text is null or i.bureau = %(bureau)s)
                and (%(closed)s or i.closed_at is null) and (%(ids)s::bigint[] is null or i.id = any(%(ids)s))
            order by i.closed_at is not null, array_position(%(order)s, i.severity), i.due_on, i.dataset, i.rule, i.id
            """,
            {
                "dataset": dataset, "bureau": bureau, "closed": closed, "ids": None if ids is None else list(ids),
                "order": list(SEVERITIES),
            },
        ).fetchall()  # fmt: skip


def get(connection: Connection, incident: int) -> Incident:
    """One incident. Raises ``UserError`` where there is none of that id."""
    found = incidents(connection, closed=True, ids=[incident])
    if not found:
        raise UserError(f"There is no incident {incident}; `dopa quality incidents --all` lists them.")
    return found[0]


def events(connection: Connection, incident: int) -> list[Event]:
    """What happened to an incident, oldest first."""
    with connection.cursor(row_factory=class_row(Event)) as cursor:
        return cursor.execute(
            "select at, who, action, note from quality.incident_event where incident_id = %s order by id", (incident,)
        ).fetchall()


def acknowledge(connection: Connection, incident: int, note: str | None = None) -> Incident:
    """Say that somebody sees to it. Again changes nothing."""
    before = _still_open(connection, incident)
    if before.acknowledged_at is None:
        connection.execute("update quality.incident set acknowledged_at = clock_timestamp() where id = %s", (incident,))
        _note(connection, incident, "acknowledged", note)
    return get(connection, incident)


def explain(connection: Connection, incident: int, note: str) -> Incident:
    """Say what it is about, also when it is closed."""
    _locked(connection, incident)
    if not note.strip():
        raise UserError("say in --note what it is about; it is kept with your name")
    _change(connection, incident, explanation=note.strip())
    _note(connection, incident, "explained", note.strip())
    return get(connection, incident)


def assign(connection: Connection, incident: int, to: str) -> Incident:
    """Give it to somebody else: an e-mail address, as contracts name stewards."""
    before = _still_open(connection, incident)
    if "@" not in to or any(not character.isprintable() or character in " ,;<>" for character in to):
        raise UserError(f"{to!r} is no e-mail address; name the steward as contracts do, such as name@dopa.example")
    _change(connection, incident, owner=to)
    _note(connection, incident, "assigned", f"{before.owner or 'nobody'} → {to}")
    return get(connection, incident)


def set_due(connection: Connection, incident: int, day: date, note: str | None = None) -> Incident:
    """Set the day by which it should be repaired. Raises ``UserError`` for one before it was opened."""
    before = _still_open(connection, incident)
    if day < before.opened_at.astimezone(BANGKOK).date():
        raise UserError(
            f"incident {incident} was opened on {before.opened_at.astimezone(BANGKOK):%Y-%m-%d}; name a day after that"
        )
    _change(connection, incident, due_on=day)
    _note(connection, incident, "due", f"{before.due_on} → {day}" + (f": {note}" if note else ""))
    return get(connection, incident)


def _locked(connection: Connection, incident: int) -> Incident:
    connection.execute("select from quality.incident where id = %s for update", (incident,))
    return get(connection, incident)


def _still_open(connection: Connection, incident: int) -> Incident:
    found = _locked(connection, incident)
    if not found.is_open:
        raise UserError(
            f"incident {incident} is closed; it opens again by itself when {found.rule} of {found.dataset} fails again"
        )
    return found


# Figures


def months(connection: Connection, bureau: str | None = None) -> list[Month]:
    """Errors and time to repair by bureau and month in Thailand, from the first incident until now, without gaps."""
    with connection.cursor(row_factory=class_row(Month)) as cursor:
        return cursor.execute(
            "select bureau, month, month_be, opened, errors, closed, closed_late, days_to_repair, days_to_repair_median,"
            " open_at_end from quality.incident_month where %(bureau)s::text is null or bureau = %(bureau)s"
            " order by bureau, month",
            {"bureau": bureau},
        ).fetchall()


def open_by_severity(connection: Connection) -> dict[str, int]:
    """How many incidents are open, by severity, and how many of them should have been repaired (``overdue``)."""
    counts = dict.fromkeys((*SEVERITIES, "overdue"), 0)
    for severity, number, late in connection.execute(
        "select severity, count(*), count(*) filter (where due_on < (now() at time zone 'Asia/Bangkok')::date)"
        " from quality.incident where closed_at is null group by severity"
    ):
        counts[severity] = number
        counts["overdue"] += late
    return counts


def require_bureau(bureau: str, contracts: Iterable[Contract]) -> None:
    """Raises ``UserError`` for a bureau that no contract is of."""
    known = sorted({item.bureau for item in contracts})
    if bureau not in known:
        raise UserError(f"no dataset is of bureau {bureau!r}; {did_you_mean(bureau, known)}")
