"""The facts of column lineage: edges, what a statement's columns are made of, and why one cannot be resolved.

An edge leads from a column of a base table to one output column, or to the output as a whole. Its names are those of
OpenLineage's columnLineage facet 1-2-0: DIRECT edges carry values, INDIRECT ones decide which values or rows there are. Edges
that come after one another become one: of two direct subtypes the stronger counts, and what is indirect once stays so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from dopa_pipelines.errors import UserError


class Subtype(StrEnum):
    """How a value travels (the first three: DIRECT), or what it decides (INDIRECT)."""

    IDENTITY = "IDENTITY"
    TRANSFORMATION = "TRANSFORMATION"
    AGGREGATION = "AGGREGATION"
    JOIN = "JOIN"
    FILTER = "FILTER"
    GROUP_BY = "GROUP_BY"
    SORT = "SORT"
    WINDOW = "WINDOW"
    CONDITIONAL = "CONDITIONAL"


_STRENGTH = {Subtype.IDENTITY: 0, Subtype.TRANSFORMATION: 1, Subtype.AGGREGATION: 2}
OF_ROWS = frozenset({Subtype.JOIN, Subtype.FILTER, Subtype.GROUP_BY, Subtype.SORT})
"""Subtypes that decide which rows there are, or in which order."""


class How(NamedTuple):
    """How a person's value was treated on its way; ``treated`` works it out, lineage alone does without.

    ``shape``: still the ``value`` of one person, the ``key`` of a group, a ``statistic`` of one, a ``singled`` value (it decides
    about one person), or ``matched`` with the same of another table; ``fresh``: a statistic of the query that is being walked.
    ``grain``: what the value was made coarser to, ``""`` where it is as it was; ``group``: the query that made key or statistic;
    ``declared``: the model's yml says that it is coarser.
    """

    shape: str = "value"
    grain: str = ""
    group: str = ""
    declared: bool = False


AS_IT_WAS = How()


class Edge(NamedTuple):
    """That the output depends on ``table.column``. ``masking``: a one-way function lies between."""

    table: str
    column: str
    subtype: Subtype
    masking: bool = False
    how: How = AS_IT_WAS

    @property
    def direct(self) -> bool:
        return self.subtype in _STRENGTH

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "column": self.column,
            "type": "DIRECT" if self.direct else "INDIRECT",
            "subtype": self.subtype.value,
            "masking": self.masking,
        }


Edges = frozenset[Edge]
NONE: Edges = frozenset()


@lru_cache(maxsize=65536)
def carried(edges: Edges, subtype: Subtype, masking: bool = False) -> Edges:
    """The edges of a value after it went through ``subtype``, a direct one."""
    if not edges or (subtype is Subtype.IDENTITY and not masking):
        return edges
    strength = _STRENGTH[subtype]
    return frozenset(
        Edge(e.table, e.column, subtype if _STRENGTH.get(e.subtype, 9) < strength else e.subtype, e.masking or masking, e.how)
        for e in edges
    )


@lru_cache(maxsize=65536)
def deciding(edges: Edges, subtype: Subtype) -> Edges:
    """The edges of a value where it decides: all are indirect. What decided rows before (a subquery's join) keeps its name."""
    if not edges:
        return edges
    of_rows = subtype in OF_ROWS
    return frozenset(
        e
        if e.subtype in OF_ROWS or (not of_rows and e.subtype not in _STRENGTH)
        else Edge(e.table, e.column, subtype, e.masking, e.how)
        for e in edges
    )


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression is made of. ``fields``: those of a row value, None where it is no row or its fields are not known."""

    edges: Edges = NONE
    fields: tuple[tuple[str, Value], ...] | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a statement's output depends on.

    ``columns``: each output column in order with its edges, direct ones and those indirect ones that concern it alone;
    ``dataset``: what decides rows; ``ordered``: the statement itself says in which order rows come; ``target``: the table or view
    that it makes, fills or changes, as it is written; ``kept``: that table's earlier rows are part of the output (of update,
    delete and merge, the output is the table as it is afterwards); ``also``: what the statement does besides: the tables that its
    common table expressions change, in their order, and the rows that RETURNING gives, which have no target.
    """

    columns: tuple[tuple[str, Edges], ...]
    dataset: Edges
    ordered: bool = False
    target: str | None = None
    kept: bool = False
    also: tuple[Lineage, ...] = ()

    def edges(self, column: str) -> Edges:
        """All edges of the output columns of this name."""
        return NONE.union(*(edges for name, edges in self.columns if name == column))

    def as_json(self) -> dict[str, Any]:
        """The form of ``dopa lineage sql --json``; output columns of the same name share an entry.

        Statements that do more than one thing have ``also``, a list of the same form with the ``target`` of each, null for what
        RETURNING gives.
        """
        output: dict[str, Any] = {}
        for name, _ in self.columns:
            output.setdefault(name, [edge.as_json() for edge in in_order(self.edges(name))])
        made = {"output": output, "dataset": [edge.as_json() for edge in in_order(self.dataset)]}
        return made | ({"also": [{"target": part.target, **part.as_json()} for part in self.also]} if self.also else {})


def in_order(edges: Iterable[Edge]) -> list[Edge]:
    """Direct ones first, then by name: the same edges always come in the same order."""
    return sorted(edges, key=lambda e: (not e.direct, e.table, e.column, e.subtype, e.masking))


class LineageError(UserError):
    """A statement that cannot be resolved: nothing of it is guessed.

    ``construct``: what could not be resolved; ``line`` and ``column`` count from 1, 0 where the place is not known;
    ``statement``: the name that the caller gave it.
    """

    def __init__(self, construct: str, reason: str, line: int = 0, column: int = 0, statement: str = "") -> None:
        self.construct, self.reason, self.line, self.column, self.statement = construct, reason, line, column, statement
        place = f", line {line}, column {column}" if line else ""
        super().__init__(f"{statement or 'The statement'}{place}: {construct} {reason}")
