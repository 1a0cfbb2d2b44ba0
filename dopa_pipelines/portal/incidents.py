"""What the pages of quality incidents show: what fails, since when, until when it is due, and how it is repaired.

Belongs here: gathering. Does not belong here: what an incident is and what people do with it (``quality.incidents``), pages
(``app``). Nobody is asked who they are here, so no page has the mail address of a person, words that somebody wrote freely, or a
value of a row: ``dopa quality incidents about`` and the bureau's workbook have those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from dopa_pipelines.contracts import Contract
from dopa_pipelines.lineage.columntrace import Connection
from dopa_pipelines.quality import repair
from dopa_pipelines.quality.incidents import SEVERITY_TH, Event, Incident, events, incidents
from dopa_pipelines.quality.repair import Step
from dopa_pipelines.quality.standard import Text, current

ACTIONS: Mapping[str, Text] = {
    "opened": Text("พบครั้งแรก", "opened"),
    "seen": Text("จำนวนแถวเปลี่ยน", "rows changed"),
    "acknowledged": Text("มีผู้รับเรื่องแล้ว", "acknowledged"),
    "explained": Text("มีคำอธิบายแล้ว", "explained"),
    "assigned": Text("มอบหมายผู้รับผิดชอบใหม่", "assigned"),
    "due": Text("เปลี่ยนกำหนดแก้", "due date set"),
    "closed": Text("ปิดแล้ว", "closed"),
    "reopened": Text("พบอีกครั้ง", "opened again"),
}
_COUNTED = ("opened", "seen", "reopened")
"""Actions of the platform itself, whose notes are counts of rows."""


@dataclass(frozen=True)
class Line:
    """An incident in words of the page. ``table``: what its trace is called, ``schema.table``."""

    incident: Incident
    title_th: str
    title_en: str
    table: str
    severity: Text
    dimension: Text
    overdue: bool


@dataclass(frozen=True)
class Happened:
    """Something that happened to an incident. ``note``: a count of rows, empty for what people did."""

    event: Event
    action: Text
    note: str


@dataclass(frozen=True)
class Place:
    """A row that fails, by the file it came in and its number there."""

    file: str
    row: int


@dataclass(frozen=True)
class Shown:
    """One incident, whole: what happened to it (oldest first), some rows, how it is repaired."""

    line: Line
    history: list[Happened]
    places: list[Place]
    steps: list[Step]


@dataclass(frozen=True)
class Listed:
    """Open incidents, most pressing first, and how many there are by severity."""

    lines: list[Line]
    by_severity: Mapping[str, int]
    overdue: int


def listed(
    connection: Connection, contracts: Mapping[str, Contract], day: date, *, dataset: str = "", bureau: str = ""
) -> Listed:
    """Open incidents as of ``day``: all, or those of a dataset (or ``schema.table``) or bureau."""
    lines = [_line(item, contracts, day) for item in incidents(connection, dataset or None, bureau=bureau or None)]
    counts = {name: sum(1 for item in lines if item.incident.severity == name) for name in SEVERITY_TH}
    return Listed(lines, counts, sum(1 for item in lines if item.overdue))


def open_by_dataset(connection: Connection) -> dict[str, int]:
    """How many incidents are open, by dataset or ``schema.table``."""
    found = connection.execute("select dataset, count(*) from quality.incident where closed_at is null group by dataset")
    return {str(dataset): int(number) for dataset, number in found}


def shown(connection: Connection, contracts: Mapping[str, Contract], day: date, number: int) -> Shown | None:
    """One incident, also a closed one; None where there is none of that number."""
    found = incidents(connection, closed=True, ids=[number])
    if not found:
        return None
    (item,) = found
    history = [
        Happened(event, ACTIONS[event.action], (event.note or "") if event.action in _COUNTED else "")
        for event in events(connection, number)
    ]
    contract = contracts.get(item.dataset)
    steps = repair.of(item.kind, item.severity, item.rule, contract, item.dataset) if item.is_open else []
    places = [place for each in item.detail.get("sample", ()) if (place := _place(each))] if item.is_open else []
    return Shown(_line(item, contracts, day), history, places, steps)


def _line(item: Incident, contracts: Mapping[str, Contract], day: date) -> Line:
    contract = contracts.get(item.dataset)
    titles = {one.name: one.title for one in current().dimensions}
    return Line(
        item,
        contract.title_th if contract else item.dataset,
        contract.title_en if contract else "",
        contract.table if contract else item.dataset,
        Text(SEVERITY_TH[item.severity], item.severity),
        titles.get(item.dimension, Text(item.dimension, item.dimension)),
        item.overdue(day),
    )


def _place(each: Mapping[str, Any]) -> Place | None:
    if "row" not in each:
        return None
    return Place(str(each.get("file") or ""), int(each["row"]))
