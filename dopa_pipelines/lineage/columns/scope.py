"""What a name can mean at a place in a statement: relations of FROM, columns in sight, common table expressions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlglot import exp

from dopa_pipelines.lineage.columns.model import NONE, Edges, Lineage, Subtype, Value, carried

Columns = tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of a query: its columns, and what decides which rows there are."""

    columns: Columns
    dataset: Edges = NONE

    @property
    def edges(self) -> Edges:
        return NONE.union(*(value.edges for _, value in self.columns))


@dataclass(frozen=True, slots=True)
class Relation:
    """One entry of FROM under the name that columns are qualified with.

    ``base``: how edges call it, of a base table; ``schema``: where it was found, so that ``schema.table.column`` can mean it;
    ``scalar``: a function of one value, whose row is that value.
    """

    name: str
    columns: Columns
    base: str | None = None
    schema: str | None = None
    scalar: bool = False

    def row(self) -> Value:
        if self.scalar:
            return self.columns[0][1]
        edges = NONE.union(*(value.edges for _, value in self.columns))
        return Value(carried(edges, Subtype.TRANSFORMATION), self.columns)


@dataclass(slots=True)
class Scope:
    """A query while it is walked. ``parent``: the query around it, whose columns it may use; ``outer``: what a subquery in FROM
    that isn't lateral may use; ``visible``: columns that a name without a table can mean, those merged by USING once.
    """

    parent: Scope | None
    ctes: Ctes
    outer: Scope | None = None
    relations: dict[str, Relation] = field(default_factory=dict)
    visible: list[tuple[str, Value]] = field(default_factory=list)
    dataset: set[Edges] = field(default_factory=set)
    windows: dict[str, exp.Window] = field(default_factory=dict)

    def decides(self, edges: Edges) -> None:
        if edges:
            self.dataset.add(edges)


class Ctes:
    """Common table expressions in sight, the inner ones first."""

    __slots__ = ("around", "by_name")

    def __init__(self, around: Ctes | None = None) -> None:
        self.around = around
        self.by_name: dict[str, Cte] = {}

    def find(self, name: str) -> Cte | None:
        here: Ctes | None = self
        while here is not None:
            if name in here.by_name:
                return here.by_name[name]
            here = here.around
        return None


class Cte:
    """A common table expression, walked when it is first used. ``so_far``: what a recursive one is known to give, while it is
    walked again and again until nothing is added; ``used``: whether it was asked for while it was being walked; ``change``: what
    it does to a table, once walked; ``silent``: it changes a table and returns nothing.
    """

    __slots__ = ("change", "evaluate", "rows", "silent", "so_far", "used", "walking")

    def __init__(self, evaluate: Callable[[Cte], Rows]) -> None:
        self.evaluate = evaluate
        self.rows: Rows | None = None
        self.so_far: Rows | None = None
        self.change: Lineage | None = None
        self.silent = False
        self.walking = False
        self.used = False
