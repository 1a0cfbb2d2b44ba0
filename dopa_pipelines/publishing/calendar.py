"""The release calendar: what comes when, in the next twelve months, by the publications' schedules.

Written beside the releases as ``calendar.json``, for machines and the portal, and ``calendar.ics`` (RFC 5545), for people's own
calendars. A schedule is read in :mod:`.schedule`.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dopa_pipelines.publishing.publication import Publication
from dopa_pipelines.publishing.schedule import thai_date
from dopa_pipelines.thai import BANGKOK

JSON, ICS = FILES = ("calendar.json", "calendar.ics")
_MOST = 400
"""Moments that one publication may fill a calendar with: a year of days; one that comes each hour would hide the others."""


@dataclass(frozen=True)
class Coming:
    """A release that is to come."""

    at: datetime
    publication: str
    title_th: str
    title_en: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "at": self.at.isoformat(timespec="minutes"),
            "date_th": thai_date(self.at.date()),
            "fiscal_year": self.at.year + 543 + (self.at.month >= 10),
            "publication": self.publication,
            "title_th": self.title_th,
            "title_en": self.title_en,
        }


def release_calendar(publications: Iterable[Publication], start: datetime | None = None, days: int = 365) -> list[Coming]:
    """What comes in ``days`` after ``start`` (now), by time, then name."""
    begin = start or datetime.now(BANGKOK)
    found = []
    for publication in publications:
        moments = publication.calendar.moments(begin, begin + timedelta(days))
        for _, at in zip(range(_MOST), moments, strict=False):
            found.append(Coming(at, publication.name, publication.title_th, publication.title_en))
    return sorted(found, key=lambda coming: (coming.at, coming.publication))


def write_calendar(releases: Path, publications: Iterable[Publication], start: datetime | None = None) -> list[Coming]:
    """Put the calendar beside the releases, each file whole; returns what it says."""
    known = list(publications)
    begin = start or datetime.now(BANGKOK)
    coming = release_calendar(known, begin)
    releases.mkdir(parents=True, exist_ok=True)
    for name, content in calendar_files(known, coming, begin).items():
        _put(releases / name, content)
    return coming


def calendar_files(publications: Iterable[Publication], coming: list[Coming], begin: datetime) -> dict[str, bytes]:
    """The calendar's files by name. ``coming``: what :func:`release_calendar` says from ``begin``."""
    schedules = {
        item.name: dict(zip(("schedule_th", "schedule_en"), item.calendar.as_words(), strict=True)) for item in publications
    }
    told = {
        "from": begin.date().isoformat(),
        "timezone": "Asia/Bangkok",
        "publications": schedules,
        "releases": [item.as_dict() for item in coming],
    }
    return {JSON: (json.dumps(told, ensure_ascii=False, indent=2) + "\n").encode(), ICS: _ics(coming, begin)}


def _put(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    fresh.write_bytes(content)
    fresh.replace(path)


def _ics(coming: list[Coming], made: datetime) -> bytes:
    stamp = made.astimezone(BANGKOK).strftime("%Y%m%dT000000Z")
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//DOPA//release calendar//TH", "CALSCALE:GREGORIAN"]
    for item in coming:
        # Bangkok has had no summer time since it has been seven hours ahead: UTC says the same without a table of zones.
        at = (item.at.replace(tzinfo=None) - timedelta(hours=7)).strftime("%Y%m%dT%H%M%SZ")
        lines += [
            "BEGIN:VEVENT",
            f"UID:{item.publication}-{at}@releases.dopa",
            f"DTSTAMP:{stamp}",
            f"DTSTART:{at}",
            f"SUMMARY:{_escaped(item.title_th)}",
            f"DESCRIPTION:{_escaped(item.title_en)} (/releases/{item.publication}/latest/)",
            "END:VEVENT",
        ]
    lines.append("END:VCALENDAR")
    return "".join(_folded(line) + "\r\n" for line in lines).encode()


def _escaped(text: str) -> str:
    for sign in ("\\", ";", ","):
        text = text.replace(sign, "\\" + sign)
    return text.replace("\n", "\\n")


def _folded(line: str) -> str:
    """Lines of at most 75 octets, cut between characters (RFC 5545, 3.1)."""
    parts, room = [""], 75
    for character in line:
        size = len(character.encode())
        if size > room:
            parts.append(" ")
            room = 74
        parts[-1] += character
        room -= size
    return "\r\n".join(parts)
