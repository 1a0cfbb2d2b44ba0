"""What lies in the drop zone and has not been processed yet: files, folders, and workbooks that a bureau corrected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest.replay import is_corrected
from dopa_pipelines.sources.containers import content_sha256, readable_name

SETTLED_SECONDS = 5.0
"""What was changed this recently may still be being written."""
LONGEST_WAIT_SECONDS = 30.0
_UNFINISHED = (".part", ".partial", ".filepart", ".tmp", ".crdownload", ".uploading")
_MARKER = ".done"


@dataclass(frozen=True)
class Arrival:
    """A delivery in the drop zone. ``period``: first day of the month its name states; ``pending``: it should be processed."""

    path: Path
    period: date | None
    pending: bool


def arrivals(connection: psycopg.Connection[Any], contract: Contract, drop_zone: Path, *, wait: bool = True) -> list[Arrival]:
    """The dataset's deliveries in order of day or period, and name; of a dataset that is replaced whole, only the last one.

    Pending is what was never loaded under the contract as it is now; a refused delivery stays pending until one after it was
    loaded for the same period, so that it isn't forgotten. Workbooks of rejected rows that came back corrected stand last; they
    are pending until they were tried once under the contract as it is. What is being written is waited for, for some seconds in
    all, and left for the next look if it goes on; without ``wait`` it is left at once.
    """
    until = time.monotonic() + (LONGEST_WAIT_SECONDS if wait else 0)
    found = [path for path in deliveries(contract, drop_zone) if _is_settled_by(path, until)]
    corrected = [path for path in found if is_corrected(path)]
    ordered = sorted(set(found) - set(corrected), key=lambda path: (contract.business_date_of(path.name) or date.min, path.name))
    if contract.load.mode == "replace":
        ordered = _last(connection, contract, ordered)
    return [
        *(Arrival(path, contract.period_of(path.name), _pending(connection, contract, path)) for path in ordered),
        *(Arrival(path, None, not _was_tried(connection, contract, path)) for path in corrected),
    ]


def _last(connection: psycopg.Connection[Any], contract: Contract, ordered: list[Path]) -> list[Path]:
    """The last delivery; where it was refused, also one that was written since: it is there to mend it, whatever its name."""
    if not ordered:
        return []
    *others, last = ordered
    asked = (contract.dataset, readable_name(last))
    named = "select from ops.delivery where dataset = %s and file = %s and status = 'rejected' limit 1"
    if not others or connection.execute(named, asked).fetchone() is None:
        return [last]
    refused = connection.execute(
        "select min(received_at) filter (where status = 'rejected'), bool_or(status = 'loaded') from ops.delivery"
        " where dataset = %s and sha256 = %s",
        (contract.dataset, _content(last)),
    ).fetchone()
    if refused is None or refused[0] is None or refused[1]:
        return [last]
    since = [path for path in others if path.stat().st_mtime > refused[0].timestamp()]
    return [*since[-1:], last]


def _content(path: Path) -> str | None:
    """SHA-256 of a delivery; None of what cannot be read, which :func:`~dopa_pipelines.ingest.ingest` refuses with its reason."""
    try:
        return content_sha256(path)
    except UserError:
        return None


def deliveries(contract: Contract, drop_zone: Path) -> Iterator[Path]:
    """What lies where the contract says, and workbooks beside it that are corrections; finished or not."""
    if not contract.layout.path:
        return
    named = set(drop_zone.glob(contract.layout.path))
    beside = {path for path in drop_zone.glob(str(Path(contract.layout.path).parent / "*.xlsx")) if is_corrected(path)}
    for path in sorted(named | beside):
        name = path.name
        if not name.startswith((".", "~$")) and not name.lower().endswith((_MARKER, *_UNFINISHED)):
            yield path


def settled(path: Path) -> list[float] | None:
    """Size and time of what is not being written any more; None of what is, or is gone.

    It has rested for some seconds, or a file of the same name with ``.done``, no older than it, says that it is whole.
    """
    try:
        items = [path, *path.rglob("*")] if path.is_dir() else [path]
        found = [item.stat() for item in items]
        marker = path.with_name(f"{path.name}{_MARKER}")
        marked = marker.stat().st_mtime if marker.exists() else None
    except OSError:
        return None
    changed = max(item.st_mtime for item in found)
    # A marker that is older than the file was of the one before it.
    done = marked is not None and marked >= changed
    if not done and 0 <= time.time() - changed < SETTLED_SECONDS:
        return None
    return [sum(item.st_size for item in found), changed]


def _is_settled_by(path: Path, until: float) -> bool:
    while settled(path) is None:
        if time.monotonic() > until or not path.exists():
            return False
        time.sleep(0.2)
    return True


def _was_tried(connection: psycopg.Connection[Any], contract: Contract, path: Path) -> bool:
    row = connection.execute(
        "select count(*) from ops.delivery where dataset = %s and sha256 = %s and (status = 'loaded' or contract_checksum = %s)",
        (contract.dataset, _content(path), contract.checksum),
    ).fetchone()
    return bool(row and row[0])


def _pending(connection: psycopg.Connection[Any], contract: Contract, path: Path) -> bool:
    day = contract.business_date_of(path.name) if contract.has_history else None
    row = connection.execute(
        """
        select
            bool_or(status = 'loaded' and (in_force or %s) and (%s::date is null or business_date = %s)),
            max(id) filter (where status = 'rejected')
        from ops.delivery
        where dataset = %s and sha256 = %s and contract_checksum = %s
        """,
        (contract.load.mode != "replace", day, day, contract.dataset, _content(path), contract.checksum),
    ).fetchone()
    loaded, refused = row if row else (None, None)
    if loaded:
        return False
    if refused is None:
        return True
    later = connection.execute(
        "select file from ops.delivery where dataset = %s and status = 'loaded' and id > %s",
        (contract.dataset, refused),
    ).fetchall()
    period = contract.business_date_of(path.name)
    return not any(period is None or contract.business_date_of(file) == period for (file,) in later)
