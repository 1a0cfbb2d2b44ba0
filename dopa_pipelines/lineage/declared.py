"""What the working copy declares: column lineage of contracts, models and publications as they stand in the files.

Belongs here: the declared graph, what descends from a column in it, and how two of them differ. Does not belong here: what was
recorded when rows were written (``columngraph``), and how SQL is analyzed (``columns``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dopa_pipelines.contracts.model import Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.columns import LineageError
from dopa_pipelines.lineage.columns.project import UNKNOWN, compiled, raw_schema, resolved, seed_columns
from dopa_pipelines.lineage.columns.schema import Schema
from dopa_pipelines.transform import Project

ROWS = "*"
"""In the place of a column: which rows a dataset has, whatever their values."""


class Dependence(NamedTuple):
    """That ``target.target_column`` is made from ``source.source_column``. ``how``: a subtype of OpenLineage's columnLineage.

    Datasets are named as people name them: ``raw.person_register``, ``marts.hotels``, ``release:hotels_licensed``.
    """

    source: str
    source_column: str
    target: str
    target_column: str
    how: str
    masking: bool = False


@dataclass
class Declared:
    """Datasets with their columns, what each column is made from, and the models that cannot be resolved.

    ``inputs``: the tables that a model's or publication's SQL reads, by its name; ``personal``: personal columns of raw tables.
    """

    columns: dict[str, list[str]] = field(default_factory=dict)
    edges: set[Dependence] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, list[str]] = field(default_factory=dict)
    personal: set[tuple[str, str]] = field(default_factory=set)

    def add_release(self, name: str, source: str, columns: Iterable[tuple[str, str]]) -> None:
        """A publication: ``columns`` are pairs of a published column and the column of ``source`` that it is."""
        target = f"release:{name}"
        pairs = list(columns)
        self.columns[target] = [published for published, _ in pairs]
        self.inputs[target] = [source]
        self.edges |= {Dependence(source, column, target, published, "IDENTITY") for published, column in pairs}

    def as_json(self) -> dict[str, Any]:
        return {
            "columns": self.columns,
            "edges": [edge._asdict() for edge in sorted(self.edges)],
            "problems": self.problems,
            "inputs": self.inputs,
            "personal": [".".join(pair) for pair in sorted(self.personal)],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Declared:
        personal = {(name.rpartition(".")[0], name.rpartition(".")[2]) for name in document["personal"]}
        edges = {Dependence(**edge) for edge in document["edges"]}
        return cls(document["columns"], edges, document["problems"], document["inputs"], personal)


def declared(project: Project, contracts: Iterable[Contract], sql: Mapping[str, str] | None = None) -> Declared:
    """Contracts and models of a working copy. ``sql``: what ``compiled`` gave, where it is known; else it takes seconds.

    A model that cannot be resolved is a problem with construct and line; what stands on it still counts.
    """
    made = Declared()
    contracts = list(contracts)
    raw = raw_schema(contracts)
    for contract in contracts:
        made.columns[contract.table] = list(raw.base_tables()[("raw", contract.dataset)].columns)
        made.personal |= {
            (contract.table, name) for item in contract.columns if item.is_personal for name, _ in item.table_columns
        }
    sql = compiled(project) if sql is None else sql
    known = Schema(tables=dict(raw.tables))
    for model in project.models:
        made.inputs[model.target] = list(model.inputs)
        if model.is_seed:
            known.add(model.target, seed_columns(model))
            made.columns[model.target] = list(model.file_fields)
            continue
        try:
            lineage = resolved(model, sql[model.target], known, statement=f"dbt_project/{model.path}")
        except LineageError as error:
            made.problems[model.target] = str(error)
            # As its yml has it, so that what reads it can be resolved.
            known.add(model.target, dict.fromkeys(model.columns, UNKNOWN))
            made.columns[model.target] = list(model.columns)
            continue
        known.add(model.target, {title: UNKNOWN for title, _ in lineage.columns})
        made.columns[model.target] = [title for title, _ in lineage.columns]
        for title, edges in [*lineage.columns, (ROWS, lineage.dataset)]:
            made.edges |= {Dependence(e.table, e.column, model.target, title, str(e.subtype), e.masking) for e in edges}
    return made


class Reached(NamedTuple):
    """A column that a change reaches. ``direct``: values arrive; else only which rows or which of several values."""

    dataset: str
    column: str
    direct: bool
    steps: int


@dataclass(frozen=True)
class Impact:
    """What a change of ``dataset`` (of its ``columns``) would touch, nearest first."""

    dataset: str
    columns: tuple[str, ...]
    reached: tuple[Reached, ...]
    problems: Mapping[str, str]

    def by_dataset(self) -> dict[str, list[Reached]]:
        grouped: dict[str, list[Reached]] = {}
        for item in self.reached:
            grouped.setdefault(item.dataset, []).append(item)
        return grouped

    def as_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "columns": list(self.columns),
            "reached": [item._asdict() for item in self.reached],
            "unresolved": dict(self.problems),
        }


def impact(graph: Declared, dataset: str, column: str | None = None) -> Impact:
    """What descends from a dataset, or from one of its columns. Raises UserError where there is no such thing."""
    target = dataset_named(graph, dataset)
    if column is not None and column not in graph.columns[target]:
        raise UserError(f"{target} has no column {column!r}; it has {', '.join(graph.columns[target])}")
    start = (column,) if column is not None else tuple(graph.columns[target])
    onward: dict[tuple[str, str], list[Dependence]] = {}
    for edge in graph.edges:
        onward.setdefault((edge.source, edge.source_column), []).append(edge)
    # A direct way counts more than an indirect one, however long.
    found: dict[tuple[str, str], tuple[bool, int]] = {}
    queue = deque((target, name, True, 0) for name in start)
    if column is None:
        queue.append((target, ROWS, False, 0))
    while queue:
        here, name, direct, steps = queue.popleft()
        for edge in _onward(graph, onward, here, name):
            place = (edge.target, edge.target_column)
            arrives = direct and edge.how in ("IDENTITY", "TRANSFORMATION", "AGGREGATION")
            before = found.get(place)
            if before is not None and (before[0] or not arrives):
                continue
            found[place] = (arrives, steps + 1 if before is None else before[1])
            queue.append((*place, arrives, steps + 1))
    reached = sorted(
        (Reached(name, place, direct, steps) for (name, place), (direct, steps) in found.items()),
        key=lambda item: (item.steps, item.dataset, item.column),
    )
    touched = {item.dataset for item in reached} | {target}
    problems = {name: why for name, why in graph.problems.items() if name in touched or touched & set(graph.inputs.get(name, ()))}
    return Impact(target, start, tuple(reached), problems)


def _onward(
    graph: Declared, onward: Mapping[tuple[str, str], list[Dependence]], dataset: str, column: str
) -> Iterable[Dependence]:
    if column != ROWS:
        return onward.get((dataset, column), ())
    # Other rows of a table are other rows of what reads it.
    return [
        Dependence(dataset, ROWS, reader, ROWS, "FILTER") for reader, inputs in sorted(graph.inputs.items()) if dataset in inputs
    ]


def dataset_named(graph: Declared, name: str) -> str:
    """The dataset that people mean by a name, bare or with its schema. Raises UserError."""
    if name in graph.columns:
        return name
    found = sorted(known for known in graph.columns if known.rpartition(".")[2].removeprefix("release:") == name)
    models = [known for known in found if known in graph.inputs and not known.startswith("release:")]
    if len(models) == 1 or len(found) == 1:
        return (models or found)[0]
    if found:
        raise UserError(f"{name!r} may mean {', '.join(found)}: say which")
    raise UserError(f"There is no model, table or publication {name!r}; `dopa dbt ls --resource-type model` lists the models")


@dataclass(frozen=True)
class Difference:
    """How the declared lineage changed: ``before`` is that of a revision, ``after`` that of the working copy."""

    before: Declared
    after: Declared

    @property
    def datasets_added(self) -> list[str]:
        return sorted(set(self.after.columns) - set(self.before.columns))

    @property
    def datasets_removed(self) -> list[str]:
        return sorted(set(self.before.columns) - set(self.after.columns))

    def columns(self) -> dict[str, tuple[list[str], list[str]]]:
        """Columns added and removed, by dataset that is in both."""
        found = {}
        for name in sorted(set(self.after.columns) & set(self.before.columns)):
            now, then = self.after.columns[name], self.before.columns[name]
            added, removed = [c for c in now if c not in then], [c for c in then if c not in now]
            if added or removed:
                found[name] = (added, removed)
        return found

    @property
    def added(self) -> list[Dependence]:
        return sorted(self.after.edges - self.before.edges, key=_by_target)

    @property
    def removed(self) -> list[Dependence]:
        return sorted(self.before.edges - self.after.edges, key=_by_target)

    @property
    def problems(self) -> dict[str, str]:
        """Models that can be resolved no more, or not yet."""
        return {name: why for name, why in sorted(self.after.problems.items()) if self.before.problems.get(name) != why}

    @property
    def empty(self) -> bool:
        sides = (self.datasets_added, self.datasets_removed, self.columns(), self.added, self.removed, self.problems)
        return not any(sides)

    def as_json(self) -> dict[str, Any]:
        return {
            "datasets": {"added": self.datasets_added, "removed": self.datasets_removed},
            "columns": {name: {"added": added, "removed": removed} for name, (added, removed) in self.columns().items()},
            "edges": {"added": [e._asdict() for e in self.added], "removed": [e._asdict() for e in self.removed]},
            "unresolved": self.problems,
        }


def _by_target(edge: Dependence) -> tuple[str, ...]:
    return (edge.target, edge.target_column, edge.source, edge.source_column, edge.how)
