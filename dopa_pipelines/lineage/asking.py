"""Questions of people about lineage, answered alike whoever asks: the command line, the portal.

Belongs here: from the name and directions that a person gives to walks and their JSON. Does not belong here: the walks themselves
(``columntrace``, ``trace``), pictures (``drawing``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage import columntrace
from dopa_pipelines.lineage import trace as tracing
from dopa_pipelines.lineage.columntrace import ColumnWalk
from dopa_pipelines.lineage.store import graph
from dopa_pipelines.lineage.trace import Direction, Trace

Connection = psycopg.Connection[Any]


def names_column(conn: Connection, name: str, directions: Sequence[Direction]) -> bool:
    """Whether ``name`` means a column (``DATASET.COLUMN``), not a whole dataset. Raises UserError where it may mean several."""
    places = [columntrace.find_place(conn, name, direction) for direction in directions]
    return any(place is not None and place.column is not None for place in places)


def column_walks(
    conn: Connection,
    name: str,
    directions: Sequence[Direction],
    depth: int | None = None,
    at: datetime | None = None,
    *,
    indirect: bool = False,
) -> dict[Direction, ColumnWalk]:
    """The walks of columns from what ``name`` means, a dataset or a column of one, each way that is asked for.

    Raises UserError where nothing, or more than one thing, is called so, or its columns were not known then.
    """
    walks: dict[Direction, ColumnWalk] = {}
    for direction in directions:
        place = columntrace.find_place(conn, name, direction)
        if place is None:
            # In the words of the trace of datasets, which knows what is called nearly so.
            node = tracing.find(graph(conn, at=at), name, direction)
            raise UserError(f"The columns of {node.label} are not known; `dopa trace {name}` shows what was written")
        walks[direction] = columntrace.walk(conn, place, direction, depth, at, indirect=indirect)
    return walks


def dataset_walks(
    conn: Connection, name: str, directions: Sequence[Direction], depth: int | None = None, at: datetime | None = None
) -> dict[Direction, Trace]:
    """The walks of datasets from the one that ``name`` means. Raises UserError as :func:`column_walks`."""
    known = graph(conn, at=at)
    return {direction: tracing.trace(known, name, direction, depth) for direction in directions}


def as_json(
    conn: Connection,
    name: str,
    directions: Sequence[Direction],
    depth: int | None = None,
    at: datetime | None = None,
    *,
    indirect: bool = False,
) -> dict[str, Any]:
    """The answer for machines: of a column its walk over columns, of a dataset that over datasets.

    By direction where both are asked for. Raises UserError as :func:`column_walks`.
    """
    shown: Mapping[Direction, dict[str, Any]]
    if names_column(conn, name, directions):
        walks = column_walks(conn, name, directions, depth, at, indirect=indirect)
        shown = {direction: columntrace.as_json(walk) for direction, walk in walks.items()}
    else:
        traces = dataset_walks(conn, name, directions, depth, at)
        shown = {direction: _trace_json(conn, found, at) for direction, found in traces.items()}
    return next(iter(shown.values())) if len(shown) == 1 else {str(direction): told for direction, told in shown.items()}


def _trace_json(conn: Connection, found: Trace, at: datetime | None) -> dict[str, Any]:
    made = columntrace.definitions(conn, [node.dataset for node in found.nodes], at)
    return tracing.as_json(found) | {
        "as_of": at.isoformat() if at else None,
        "definitions": [
            columntrace.definition_json(made[node.dataset], node.label) for node in found.nodes if node.dataset in made
        ],
    }
