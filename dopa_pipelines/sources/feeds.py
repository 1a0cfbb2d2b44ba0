"""Feeds that are fetched, not sent: departmental databases and JSON APIs.

What was fetched is written into the spool, and that file is the delivery: it has a checksum, can be read twice and looked at
later. Addresses and credentials come from the environment variables that the contract names; no message tells them. How rows come
out of a database is :mod:`dopa_pipelines.sources.databases`, how an API is paged :mod:`dopa_pipelines.sources.api`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.sources.spool import turn

if TYPE_CHECKING:
    from dopa_pipelines.sources.api import Timing


def is_fetched(contract: Contract) -> bool:
    return contract.layout.format in ("json_api", "sql")


def fetch(contract: Contract, spool: Path, timing: Timing | None = None) -> Path:
    """Fetch the feed into ``spool`` and return the file, in place only once it is whole.

    ``timing``: how to wait between attempts and what the time is; tests give their own. Two fetches of one dataset wait for each
    other. Raises UserError where the address is not configured or the spool cannot be written, Rejected where the silo does not
    answer as its contract says.
    """
    from dopa_pipelines.sources import api, databases

    variable = contract.layout.url_environment or ""
    address = os.environ.get(variable, "").strip()
    if not address:
        raise UserError(
            f"{contract.dataset}: the environment variable {variable} (named in {contract.path.name}) is not set;"
            " set it to the address of the silo"
        )
    try:
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        if spool.stat().st_mode & 0o077:
            spool.chmod(0o700)
        with turn(spool / f".{contract.dataset}.lock"):
            if contract.layout.format == "sql":
                return databases.fetch(contract, address, spool)
            return api.fetch(contract, address, spool, timing or api.Timing(time.sleep, time.time))
    except OSError as error:
        raise UserError(
            f"{contract.dataset}: what is fetched cannot be kept in {spool} ({error.strerror or type(error).__name__});"
            " make room there, or correct its permissions"
        ) from error
