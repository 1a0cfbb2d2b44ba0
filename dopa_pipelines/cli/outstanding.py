"""What there is to do: deliveries that wait, models and releases that are behind what they are made of.

Read from the records of writes, so that a run that would change nothing need not start Dagster at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg

from dopa_pipelines.contracts import Contracts
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest import arrivals
from dopa_pipelines.publishing import Publication, seen_writes
from dopa_pipelines.settings import Settings
from dopa_pipelines.sources import fetch, is_fetched
from dopa_pipelines.sources.containers import content_sha256
from dopa_pipelines.transform import Model


@dataclass
class Outstanding:
    """Names of what is behind. Empty: a run would change nothing."""

    deliveries: dict[str, int] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    releases: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.deliveries or self.models or self.releases)


def outstanding(
    connection: psycopg.Connection[Any],
    settings: Settings,
    contracts: Contracts,
    models: list[Model],
    publications: list[Publication],
) -> Outstanding:
    """What a run of everything would have to do."""
    found = Outstanding()
    for contract in contracts:
        count = (
            _feed_changed(connection, settings, contract)
            if is_fetched(contract)
            else sum(arrival.pending for arrival in arrivals(connection, contract, settings.drop_path))
        )
        if count:
            found.deliveries[contract.dataset] = count
    latest = {
        target: (int(write), version)
        for target, write, version in connection.execute(
            "select distinct on (target) target, id, version from lineage.write"
            " where environment = 'production' and kind not in ('migration', 'rebase') order by target, id desc"
        )
    }
    changed = {target: write for target, (write, _) in latest.items()}
    for model in models:
        write, version = latest.get(model.target, (0, None))
        inputs = max((changed.get(target, 0) for target in model.inputs), default=0)
        if version != model.checksum or (model.materialized != "view" and write < inputs):
            found.models.append(model.target)
        # A view has no rows of its own: it is as new as what it reads.
        changed[model.target] = max(write, inputs) if model.materialized == "view" else write
    found.releases = [
        publication.name
        for publication in publications
        if seen_writes(connection, settings, publication) < changed.get(publication.source, 1)
    ]
    return found


def _feed_changed(connection: psycopg.Connection[Any], settings: Settings, contract: Any) -> int:
    try:
        path = fetch(contract, settings.spool_path)
    except UserError:
        return 1  # the run says what is wrong with it
    row = connection.execute(
        "select from ops.delivery where dataset = %s and sha256 = %s and contract_checksum = %s and in_force",
        (contract.dataset, content_sha256(path), contract.checksum),
    ).fetchone()
    return 0 if row is not None else 1
