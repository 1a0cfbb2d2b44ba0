"""The record of what was pushed to catalogues: ``ops.ckan_push``.

Belongs here: writing it and reading it, without what a push itself needs. Does not belong here: pushing (:mod:`.ckan`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import psycopg

from dopa_pipelines.warehouse import Role, Warehouse

Status = Literal["created", "updated", "unchanged", "withdrawn", "failed"]


@dataclass(frozen=True)
class Push:
    """What became of one publication. ``files`` and ``bytes``: what was uploaded, in this push only; ``seconds``: wall time."""

    publication: str
    version: str | None
    status: Status
    address: str | None
    files: int
    bytes: int
    seconds: float
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


def record(warehouse: Warehouse, site: str, made: Push, run_id: str) -> None:
    """Write down what became of a publication; that nothing changed once more is no news."""
    with warehouse.connect(Role.LOADER) as ledger:
        last = ledger.execute(
            "select status, version from ops.ckan_push where publication = %s and site = %s order by id desc limit 1",
            (made.publication, site),
        ).fetchone()
        if made.status == "unchanged" and last and last[0] != "failed":
            return
        ledger.execute(
            "insert into ops.ckan_push (run_id, site, publication, version, status, problem, files, bytes, seconds)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (run_id, site, made.publication, made.version, made.status, made.problem, made.files, made.bytes, made.seconds),
        )


def last_pushes(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """The last push of each publication to each site: publication, site, status, version, problem and time."""
    rows = connection.execute(
        "select distinct on (publication, site) publication, site, status, version, problem, at"
        " from ops.ckan_push order by publication, site, id desc"
    ).fetchall()
    return [dict(zip(("publication", "site", "status", "version", "problem", "at"), row, strict=True)) for row in rows]
