"""What lies in the drop zone and has not been processed yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg

from dopa_pipelines.contracts import Contract
from dopa_pipelines.sources.containers import content_sha256


@dataclass(frozen=True)
class Arrival:
    """A file of the drop zone. ``period``: first day of the month its name states; ``pending``: it should be processed."""

    path: Path
    period: date | None
    pending: bool


def arrivals(connection: psycopg.Connection[Any], contract: Contract, drop_zone: Path) -> list[Arrival]:
    """The dataset's files in order of period and name; of a dataset that is replaced whole, only the last one.

    Pending is what was never loaded under the contract as it is now; a refused delivery stays pending until one after it was
    loaded for the same period, so that it isn't forgotten. Names that begin with a dot are still being written.
    """
    if not contract.layout.path:
        return []
    files = [path for path in drop_zone.glob(contract.layout.path) if path.is_file() and not path.name.startswith(".")]
    ordered = sorted(files, key=lambda path: (contract.period_of(path.name) or date.min, path.name))
    if contract.load.mode == "replace":
        ordered = ordered[-1:]
    return [Arrival(path, contract.period_of(path.name), _pending(connection, contract, path)) for path in ordered]


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
        (contract.load.mode != "replace", day, day, contract.dataset, content_sha256(path), contract.checksum),
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
    period = contract.period_of(path.name)
    return not any(period is None or contract.period_of(file) == period for (file,) in later)
