"""Releases that were held back: that they were, why, and until when.

The exception that any rule raises (data that is not approved, the gate, disclosure control), its record in ``ops.held_back``, and
what stands held back now, for `dopa status`, alerts and the catalogue page. The rules themselves are elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.publication import Publication


@dataclass(frozen=True)
class Reason:
    """A rule that holds a release back, and why, for people of both languages. Names of tables, columns and checks, no values."""

    rule: str
    reason_th: str
    reason_en: str

    def as_dict(self) -> dict[str, str]:
        return {"rule": self.rule, "reason_th": self.reason_th, "reason_en": self.reason_en}


class HeldBack(UserError):  # noqa: N818 - the word of the whole project
    """A release that is not made, for these reasons; the latest release stays as it is."""

    exit_code = 4

    def __init__(self, publication: str, reasons: Sequence[Reason]) -> None:
        self.reasons = list(reasons)
        told = "; ".join(reason.reason_en for reason in reasons)
        super().__init__(f"{publication} is held back: {told}. The latest release is as it was.")


@dataclass(frozen=True)
class Standing:
    """A publication that stands held back: since when, last tried when, by which run, and why."""

    publication: str
    since: datetime
    last: datetime
    run_id: str | None
    reasons: list[dict[str, str]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "publication": self.publication,
            "since": self.since.isoformat(timespec="seconds"),
            "last": self.last.isoformat(timespec="seconds"),
            "run_id": self.run_id,
            "reasons": self.reasons,
        }


def held_back(connection: psycopg.Connection[Any]) -> list[Standing]:
    """Publications whose last attempt was held back, by name."""
    rows = connection.execute(
        "select publication, at, last_at, run_id, reasons from ops.held_back where ended_at is null order by publication"
    ).fetchall()
    return [Standing(*row) for row in rows]


def note_held_back(connection: psycopg.Connection[Any], publication: Publication, held: HeldBack, run_id: str) -> None:
    """Record that a release was held back. The same reasons again are the same event: only when it was last tried is new."""
    reasons = Jsonb([reason.as_dict() for reason in held.reasons])
    with connection.transaction():
        again = connection.execute(
            "update ops.held_back set last_at = clock_timestamp(), run_id = %s"
            " where publication = %s and ended_at is null and reasons = %s",
            (run_id, publication.name, reasons),
        )
        if again.rowcount:
            return
        connection.execute(
            "update ops.held_back set ended_at = clock_timestamp() where publication = %s and ended_at is null",
            (publication.name,),
        )
        connection.execute(
            "insert into ops.held_back (publication, publication_checksum, run_id, reasons) values (%s, %s, %s, %s)",
            (publication.name, publication.checksum, run_id, reasons),
        )


def note_passed(connection: psycopg.Connection[Any], publication: Publication) -> None:
    """What held the publication back does so no more."""
    connection.execute(
        "update ops.held_back set ended_at = clock_timestamp() where publication = %s and ended_at is null", (publication.name,)
    )
