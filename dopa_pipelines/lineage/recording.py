"""What is made of recorded writes once they are committed: the graph of columns, the events, their seals.

Belongs here: in which order that is brought up to date. Does not belong here: how each is made (``columngraph``,
``openlineage``, ``seal``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dopa_pipelines.contracts import Contract
from dopa_pipelines.lineage.columngraph import Published, record_columns
from dopa_pipelines.lineage.columntrace import Connection, edges_into
from dopa_pipelines.lineage.openlineage import record_events
from dopa_pipelines.lineage.seal import BRIEF, seal
from dopa_pipelines.warehouse import Warehouse


def bring_up_to_date(
    warehouse: Warehouse,
    contracts: Iterable[Contract],
    *,
    published: Published | None = None,
    derive: Callable[[Connection], object] | None = None,
    seconds: float = BRIEF,
) -> None:
    """Make of the writes that are committed what was not made of them yet; what it does not get to is made the next time.

    ``contracts`` say who owns what and how columns are classified; ``published``: the columns of publications; ``derive``: brings
    the derived classes up to date, which events tell; ``seconds``: what digests may take, the rest is left to the night.
    """
    with warehouse.connect() as connection:
        record_columns(connection, published=published)
        if derive is not None:
            derive(connection)
        # Events tell of columns what the graph knows.
        record_events(connection, contracts=list(contracts), column_edges=edges_into)
        connection.commit()
    seal(warehouse, seconds=seconds)
