"""The lineage of an installation brought up to date: with all its contracts and publications, whoever asks.

Belongs here: what is told of a write does not depend on which command happened to tell it. Does not belong here: how it is told
(``dopa_pipelines.lineage``).
"""

from __future__ import annotations

from dopa_pipelines.contracts import Contract, load_contracts
from dopa_pipelines.governance import derived
from dopa_pipelines.lineage import classes
from dopa_pipelines.lineage.columntrace import Connection
from dopa_pipelines.lineage.recording import bring_up_to_date
from dopa_pipelines.lineage.seal import BRIEF
from dopa_pipelines.publishing.publication import columns_of, load_publications
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Warehouse


def tell(
    warehouse: Warehouse,
    settings: Settings,
    *,
    contract: Contract | None = None,
    seconds: float = BRIEF,
    comments: bool = True,
) -> None:
    """Make of what was recorded and committed the graph of columns, their classes, the events and their seals.

    ``contract``: takes the place of the installation's own for its dataset, or is one that it does not have. ``seconds``: what
    digests may take; 0 for none. ``comments``: also put the classes into the comments of tables and columns.
    """
    contracts = {item.dataset: item for item in load_contracts(settings.contracts)}
    if contract is not None:
        contracts[contract.dataset] = contract
    publications = load_publications(settings.contracts / "open_data").publications

    def derive(connection: Connection) -> None:
        derived.derive(connection)
        classes.write_file(connection, settings.state / classes.FILE)

    bring_up_to_date(warehouse, contracts.values(), published=columns_of(publications), derive=derive, seconds=seconds)
    if comments:
        derived.comment(warehouse)
