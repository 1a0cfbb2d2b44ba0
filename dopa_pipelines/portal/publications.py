"""What the page of a publication shows beside its releases, and the calendar of what is to come.

Belongs here: gathering what was decided, what holds it back, what comes next. Does not belong here: what lies released
(``publishing.shelf``), pages (``app``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby

from dopa_pipelines.lineage.classes import Class, classes_of
from dopa_pipelines.lineage.columntrace import Connection
from dopa_pipelines.lineage.naming import release_target
from dopa_pipelines.publishing import Publication
from dopa_pipelines.publishing.calendar import Coming, release_calendar
from dopa_pipelines.publishing.held import Standing, held_back
from dopa_pipelines.publishing.plain import Sentence, protection
from dopa_pipelines.publishing.publication import GateException
from dopa_pipelines.thai import BANGKOK

_OFTEN = 4
"""What comes more often in a month is told by its schedule alone."""


# An attack that came through names the cells that it tells of: that is for stewards, not for everybody.
_UNTOLD: Mapping[str, Sentence] = {
    "disclosure": Sentence(
        "การควบคุมการเปิดเผยไม่ผ่านการตรวจสอบ ยังคำนวณย้อนกลับถึงบุคคลได้", "disclosure control does not hold: people could be found out"
    ),
}


@dataclass(frozen=True)
class Held:
    """A publication that is held back: since when, last tried when, and why."""

    since: datetime
    last: datetime
    reasons: tuple[Sentence, ...]


@dataclass(frozen=True)
class Known:
    """What the warehouse knows of publications. ``held``: by name, those that are held back now; ``classes``: of the one that is
    asked for, what its columns are."""

    held: Mapping[str, Held] = field(default_factory=dict)
    classes: Mapping[str, Class] = field(default_factory=dict)


def held(connection: Connection) -> Known:
    """The publications that are held back."""
    return Known({item.publication: _told(item) for item in held_back(connection)})


def _told(item: Standing) -> Held:
    reasons = (_UNTOLD.get(reason["rule"]) or Sentence(reason["reason_th"], reason["reason_en"]) for reason in item.reasons)
    return Held(item.since, item.last, tuple(reasons))


def known(connection: Connection, publication: Publication | None, name: str) -> Known:
    """What the warehouse knows of one publication: of a released column what was derived of it, else of what it reads."""
    target = release_target(name)
    source = publication.source if publication else ""
    found = classes_of(connection, [target, source])
    classes = dict(found.get(target, {}))
    for column in publication.columns if publication else ():
        if column.name not in classes and (made := found.get(source, {}).get(column.source)):
            classes[column.name] = made
    return Known(held(connection).held, classes)


@dataclass(frozen=True)
class Decided:
    """What a publication's file says of its going out, as of a day.

    ``due``: the next release; ``exceptions``: those in force; ``protection``: how people are protected, in words; ``overdue``:
    the review of its approval was due.
    """

    due: datetime | None
    schedule_th: str
    schedule_en: str
    exceptions: tuple[GateException, ...]
    protection: tuple[Sentence, ...]
    overdue: bool


def decided(publication: Publication, now: datetime) -> Decided:
    today = now.astimezone(BANGKOK).date()
    thai, english = publication.calendar.as_words()
    return Decided(
        next_release(publication, now), thai, english, tuple(item for item in publication.exceptions if item.expires_on >= today),
        tuple(protection(publication)), publication.approval.review_on < today,
    )  # fmt: skip


def next_release(publication: Publication, now: datetime) -> datetime | None:
    """When it is due next; None where that is not within two years."""
    return next(iter(publication.calendar.moments(now, now + timedelta(731))), None)


@dataclass(frozen=True)
class Month:
    """A month of the calendar: its first day, and the releases in it by day."""

    first: date
    days: tuple[tuple[date, tuple[Coming, ...]], ...]


@dataclass(frozen=True)
class Calendar:
    """What comes when: each publication with its next release, soonest first, and the months of the coming year."""

    upcoming: tuple[tuple[Publication, datetime | None], ...]
    months: tuple[Month, ...]


def calendar(publications: Iterable[Publication], now: datetime) -> Calendar:
    """The calendar from ``now``."""
    declared = list(publications)
    coming = release_calendar(declared, now)
    often: dict[tuple[str, int, int], int] = {}
    for item in coming:
        key = item.publication, item.at.year, item.at.month
        often[key] = often.get(key, 0) + 1
    shown = [item for item in coming if often[item.publication, item.at.year, item.at.month] <= _OFTEN]
    months = []
    for (year, month), of_month in groupby(shown, key=lambda item: (item.at.year, item.at.month)):
        days = tuple((day, tuple(of_day)) for day, of_day in groupby(of_month, key=lambda item: item.at.date()))
        months.append(Month(date(year, month, 1), days))
    upcoming = [(item, next_release(item, now)) for item in declared]
    far = datetime.max.replace(tzinfo=BANGKOK)
    return Calendar(tuple(sorted(upcoming, key=lambda pair: (pair[1] or far, pair[0].name))), tuple(months))
