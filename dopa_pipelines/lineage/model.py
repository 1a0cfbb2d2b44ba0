"""The lineage graph as the rest sees it: datasets, the writes that made them, and what each was made from.

Plain immutable facts, no database. Belongs here: the graph and its neighbours' lookups. Does not belong here:
how it is read (``store``), walked and shown (``trace``), or told to others (``openlineage``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal, NamedTuple

from dopa_pipelines.lineage.naming import DatasetName

WriteKind = Literal["load", "model", "release", "migration", "rebase"]
NodeKind = Literal["feed", "table", "release", "external"]
EdgeKind = Literal["delivery", "reference", "model", "release", "imported"]


@dataclass(frozen=True, slots=True)
class Owner:
    """Who answers for a dataset: ``name`` as a URN (``user:somchai``, ``team:registration``), ``type`` a role
    (``data_owner``)."""

    name: str
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table or a published file."""

    name: str
    type: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """One recorded write (a row of ``lineage.write``), with its delivery where it was a load.

    ``version`` is of the contract, of the model's code, or of the release; ``actor`` who started it, where that is known.
    """

    id: int
    kind: WriteKind
    target: str
    written_at: datetime
    written_by: str
    run_id: str | None = None
    parent_run_id: str | None = None
    version: str | None = None
    rows_in: int | None = None
    rows_out: int | None = None
    rows_quarantined: int | None = None
    file: str | None = None
    sha256: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A dataset in the graph.

    ``target`` is its ``schema.table`` or ``release:<publication>``; None for feeds and datasets of others.
    ``write`` is the latest write of it; for a feed, of the table it feeds. ``exists`` is false for a table
    that was dropped since.
    """

    dataset: DatasetName
    kind: NodeKind
    target: str | None = None
    write: Write | None = None
    exists: bool = True

    @property
    def label(self) -> str:
        """The short name people use: ``raw.person_register``, ``registration/person_register``,
        ``release:population``."""
        return self.target or self.dataset.name

    @property
    def bare(self) -> str:
        """The name without schema, bureau or prefix."""
        if self.kind == "table":
            return self.label.rpartition(".")[2]
        if self.kind == "release":
            return self.label.removeprefix("release:")
        return self.label.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Edge:
    """``target`` was made from ``source``. A ``reference`` was only compared with; its rows went nowhere."""

    source: DatasetName
    target: DatasetName
    kind: EdgeKind


class ColumnEdge(NamedTuple):
    """That a column was made from another, in OpenLineage's terms.

    ``target_column``: None where the source decides which rows the target has, whatever their values. ``subtype``: one of
    :class:`~dopa_pipelines.lineage.columns.Subtype`. ``masking``: a one-way function lies between.
    """

    source: DatasetName
    source_column: str
    target: DatasetName
    target_column: str | None
    subtype: str
    masking: bool = False


@dataclass(frozen=True)
class Graph:
    """Datasets and what each is made from, as of the latest write of each."""

    nodes: Mapping[DatasetName, Node] = field(default_factory=dict)
    edges: tuple[Edge, ...] = ()

    @classmethod
    def of(cls, nodes: Iterable[Node], edges: Iterable[Edge]) -> Graph:
        """A graph in a stable order; an edge from a dataset to itself says nothing and is left out."""
        ordered = sorted(nodes, key=lambda node: node.dataset)
        kept = sorted(
            {edge for edge in edges if edge.source != edge.target},
            key=lambda edge: (edge.target, edge.kind == "reference", edge.source),
        )
        return cls({node.dataset: node for node in ordered}, tuple(kept))

    @cached_property
    def inputs(self) -> Mapping[DatasetName, tuple[Edge, ...]]:
        """The edges into each dataset: its data first, then references."""
        return _grouped((edge.target, edge) for edge in self.edges)

    @cached_property
    def outputs(self) -> Mapping[DatasetName, tuple[Edge, ...]]:
        """The edges out of each dataset."""
        return _grouped((edge.source, edge) for edge in self.edges)


def _grouped(pairs: Iterable[tuple[DatasetName, Edge]]) -> dict[DatasetName, tuple[Edge, ...]]:
    groups: dict[DatasetName, list[Edge]] = {}
    for key, edge in pairs:
        groups.setdefault(key, []).append(edge)
    return {key: tuple(edges) for key, edges in groups.items()}
