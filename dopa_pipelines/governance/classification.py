"""Classification that travels: what each column is by its lineage, and why.

Belongs here: what contracts, seeds and other tables say of columns (``About``), what that makes of every column that descends
from them, the declarations of models, and the path that shows it. Does not belong here: how SQL treats values
(``lineage.columns.treated``), and whether a publication may go out (:mod:`.gate`).

The order of protection: open < internal < aggregate of people < grouping key < generalised < personal < sensitive < direct
identifier < confidential < secret. The most protected edge of a column decides. docs/classification.md tells it to people.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dopa_pipelines.contracts.model import Contract
from dopa_pipelines.documents import DocumentError, Problem, read_document
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.columns import LineageError
from dopa_pipelines.lineage.columns.keyed import literal_keys
from dopa_pipelines.lineage.columns.model import Edge, Edges
from dopa_pipelines.lineage.columns.project import UNKNOWN, compiled, raw_schema
from dopa_pipelines.lineage.columns.schema import Schema, View
from dopa_pipelines.lineage.columns.treated import KINDS, ROW, ROW_ID, About, Treated, Treatment, satisfies
from dopa_pipelines.lineage.declared import ROWS, Declared, declared
from dopa_pipelines.transform import Model, Project

LEVELS = ("open", "internal", "personal", "confidential", "secret")
SHAPES = ("open", "internal", "aggregate", "grouping_key", "generalised", "personal", "sensitive", "direct_identifier")
RANKS = (*SHAPES, "confidential", "secret")
"""What a column can be, the least protected first."""
_IDENTIFYING = frozenset({ROW_ID, "_row", "ctid", "tableoid"})
_DATES = ("date", "timestamp", "time")
_WHOLE = ("smallint", "integer", "bigint", "int2", "int4", "int8", "int")


class Step(NamedTuple):
    """A column on the way from a person's column."""

    dataset: str
    column: str

    def __str__(self) -> str:
        return f"{self.dataset}.{self.column}"


@dataclass(frozen=True)
class Derived:
    """What a column is. ``what``: one of ``RANKS``; ``origin``: the silo's column that makes it so; ``path``: from there to it;
    ``indirect``: personal columns that only decide which of its rows or values there are."""

    dataset: str
    column: str
    what: str
    origin: Step | None = None
    path: tuple[Step, ...] = ()
    role: str = "none"
    indirect: tuple[Step, ...] = ()
    problem: str | None = None

    @property
    def level(self) -> str:
        """The classification of contracts that it comes to. What is of groups, not of persons, is internal until a publication
        protects it."""
        if self.what in ("aggregate", "grouping_key"):
            return "internal"
        return self.what if self.what in LEVELS else "personal"

    def as_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "column": self.column,
            "classification": self.level,
            "what": self.what,
            "pdpa_role": self.role,
            "path": [str(step) for step in self.path],
            "indirect": [str(step) for step in self.indirect],
            "problem": self.problem,
        }


def rank(about: About, edge: Edge) -> str:
    """What an edge makes of the column that it leads to."""
    if about.classification in ("confidential", "secret"):
        return about.classification
    if not about.personal:
        return "open" if about.classification == "open" else "internal"
    match edge.how.shape:
        case "statistic" | "fresh":
            return "aggregate"
        case "matched":
            return "internal"
    if about.role in ("direct_identifier", "sensitive"):
        return about.role
    if edge.how.shape == "key":
        return "grouping_key"
    return "generalised" if edge.how.declared and edge.how.shape == "value" else "personal"


class Abouts:
    """What is said of columns: of raw tables by contracts, of seeds and other tables by their yml or tags; else internal.

    A row of a raw table is about a person where one of the columns is personal, unless the table's key is open: then that there
    is such a thing is public (a licence), whoever holds it.
    """

    def __init__(self, contracts: Iterable[Contract] = ()) -> None:
        self.columns: dict[tuple[str, str], About] = {}
        for contract in contracts:
            self.add(contract)

    def add(self, contract: Contract) -> None:
        """What a contract says; where another edition of it has said something already, the more protected counts."""
        for column in contract.columns:
            for name, kind in column.table_columns:
                self.say(
                    contract.table,
                    name,
                    About(column.classification, column.pdpa_role, kind.startswith(_DATES), kind in _WHOLE),
                )
        people = any(column.is_personal for column in contract.columns)
        keys = [column for column in contract.columns if column.key_position is not None]
        public = bool(keys) and all(column.classification == "open" and column.pdpa_role == "none" for column in keys)
        if public:
            self.say(contract.table, ROW, About("open"))
        elif people:
            self.say(contract.table, ROW, About("personal", "quasi_identifier"))
            for name in _IDENTIFYING:
                self.say(contract.table, name, About("personal", "direct_identifier"))
            if len(keys) == 1 and keys[0].is_personal:
                # It names one row: a group of its values is a group of one.
                self.say(contract.table, keys[0].name, About(keys[0].classification, "direct_identifier"))

    def say(self, table: str, column: str, about: About) -> None:
        before = self.columns.get((table, column))
        if before is not None:
            about = max(before, about, key=_protection)
        self.columns[(table, column)] = about

    def __call__(self, table: str, column: str) -> About:
        return self.columns.get((table, column)) or _UNSAID


_UNSAID = About("internal")


def _protection(about: About) -> tuple[int, int]:
    return LEVELS.index(about.classification), ("none", "quasi_identifier", "sensitive", "direct_identifier").index(about.role)


@dataclass
class Classified:
    """Every column of a project, or of what was recorded. ``graph``: for paths; ``declared``: what models say of themselves."""

    about: Abouts
    treatment: Treatment
    graph: Declared
    unresolved: dict[str, str] = field(default_factory=dict)
    _treated: dict[str, Treated] = field(default_factory=dict)
    _ways: tuple[int, dict[Step, list[Step]]] = field(default_factory=lambda: (-1, {}))

    def treated(self, target: str) -> Treated:
        """Raises LineageError."""
        if target not in self._treated:
            self._treated[target] = self.treatment.of(target)
        return self._treated[target]

    def column(self, dataset: str, column: str) -> Derived:
        """What a column is, with the path that makes it so."""
        try:
            treated = self.treated(dataset)
        except LineageError as error:
            return Derived(dataset, column, "secret", problem=str(error))
        edges = treated.columns.get(column)
        if edges is None:
            raise UserError(f"{dataset} has no column {column!r}; it has {', '.join(treated.columns)}")
        deciding = worst(self.about, edges)
        indirect = sorted(
            {Step(e.table, e.column) for e in treated.rows if e.column != ROW and self.about(e.table, e.column).personal}
        )
        if deciding is None:
            return Derived(dataset, column, "open", indirect=tuple(indirect))
        about = self.about(deciding.table, deciding.column)
        origin = Step(deciding.table, deciding.column)
        what = rank(about, deciding)
        return Derived(dataset, column, what, origin, self.path(origin, Step(dataset, column)), about.role, tuple(indirect))

    def all(self) -> Iterator[Derived]:
        for dataset, columns in self.graph.columns.items():
            for column in columns:
                yield self.column(dataset, column)

    def path(self, origin: Step, end: Step) -> tuple[Step, ...]:
        """The shortest way of values from one column to the other; what counts or picks rows is a step too."""
        if origin == end:
            return (end,)
        onward = self._onward()
        queue: deque[tuple[Step, ...]] = deque([(origin,)])
        seen = {origin}
        while queue:
            way = queue.popleft()
            for step in onward.get(way[-1], ()):
                if step == end:
                    return (*way, step)
                if step not in seen and step.column != ROWS:
                    seen.add(step)
                    queue.append((*way, step))
        return (*self._by_tables(origin, end), end)

    def _onward(self) -> dict[Step, list[Step]]:
        """What each column goes into, in order; made anew where the graph has grown."""
        size, onward = self._ways
        if size != len(self.graph.edges):
            onward = {}
            for edge in sorted({(e.source, e.source_column, e.target, e.target_column) for e in self.graph.edges}):
                onward.setdefault(Step(*edge[:2]), []).append(Step(*edge[2:]))
            self._ways = len(self.graph.edges), onward
        return onward

    def _by_tables(self, origin: Step, end: Step) -> tuple[Step, ...]:
        """A way through tables, where no value travels: counts, and which rows there are."""
        readers: dict[str, list[str]] = {}
        for reader, inputs in self.graph.inputs.items():
            for name in inputs:
                readers.setdefault(name, []).append(reader)
        queue: deque[tuple[str, ...]] = deque([(origin.dataset,)])
        seen = {origin.dataset}
        while queue:
            way = queue.popleft()
            if way[-1] == end.dataset:
                return (origin, *(Step(name, ROW) for name in way[1:-1]))
            for reader in sorted(readers.get(way[-1], ())):
                if reader not in seen:
                    seen.add(reader)
                    queue.append((*way, reader))
        return (origin,)


def worst(about: Abouts, edges: Edges) -> Edge | None:
    """The edge that protects a column most; None where it is made of nothing."""
    if not edges:
        return None
    return max(
        edges, key=lambda e: (RANKS.index(rank(about(e.table, e.column), e)), e.direct, e.column != ROW, e.table, e.column, e.how)
    )


def classify(
    sql: Mapping[str, str],
    raw: Schema,
    about: Abouts,
    declarations: Mapping[str, Mapping[str, str]] | None = None,
    graph: Declared | None = None,
) -> Classified:
    """The columns of models (``schema.table`` → SQL) over raw tables."""
    known = Schema(tables=dict(raw.tables))
    for target, text in sql.items():
        schema, _, name = target.partition(".")
        known.tables[(schema, name)] = View(target, text)
    return Classified(about, Treatment(known, about, declarations), graph or Declared())


@dataclass(frozen=True)
class Said:
    """What the yml of a model or seed says of a column: ``generalises`` (from, as) and ``classification``."""

    target: str
    column: str
    classification: str | None
    role: str | None
    source: str | None
    kind: str | None


def said_of(target: str, columns: Mapping[str, Any]) -> Iterator[Said]:
    for name, column in columns.items():
        meta = (column.get("config") or {}).get("meta") or column.get("meta") or {}
        generalises = meta.get("generalises") or {}
        if not isinstance(generalises, Mapping):
            generalises = {"as": str(generalises)}
        if generalises or meta.get("classification") or meta.get("pdpa_role"):
            yield Said(
                target, name, meta.get("classification"), meta.get("pdpa_role"), generalises.get("from"), generalises.get("as")
            )


@dataclass
class WorkingCopy:
    """The classification of the project as it stands in the files, and what its yml says."""

    classified: Classified
    project: Project
    models: list[Model]
    sql: Mapping[str, str]
    said: list[Said]

    def problems(self) -> Iterator[Problem]:
        """What models say of themselves and is not so, and keys of hashes in their SQL."""
        by_target = {model.target: model for model in self.models}
        for item in self.said:
            model = by_target.get(item.target)
            if model is None:
                continue
            yield from self._said(model, item)
        for model in self.models:
            for name in literal_keys(self.sql[model.target]):
                line = _line_of(self.project.folder / model.path, name)
                yield Problem(
                    self.project.folder / model.path, line,
                    f"{name} is given a key or salt as text: whoever reads the SQL or a log has it; take the hash in the silo,"
                    " with a key that stays there",
                )  # fmt: skip

    def _said(self, model: Model, item: Said) -> Iterator[Problem]:
        def problem(text: str) -> Problem:
            return yml_problem(self.project.folder, model, item.column, text)

        if item.kind is not None:
            if item.kind not in KINDS:
                yield problem(f"generalises {item.column!r} as {item.kind!r}; it must be one of {', '.join(KINDS)}")
            elif not item.source:
                yield problem(f"generalises {item.column!r} without saying from which column; add `from`")
            else:
                yield from self._recognised(model, item, problem)
        elif item.source:
            yield problem(f"generalises {item.column!r} without saying as what; add `as`: one of {', '.join(KINDS)}")
        if item.classification is not None:
            if item.classification not in LEVELS:
                yield problem(f"classification {item.classification!r} must be one of {', '.join(LEVELS)}")
                return
            derived = self.classified.column(model.target, item.column)
            if derived.problem is None and LEVELS.index(item.classification) < LEVELS.index(derived.level):
                way = " → ".join(map(str, derived.path))
                yield problem(
                    f"{model.target}.{item.column} is declared {item.classification} and is {derived.level} ({derived.what}) by"
                    f" its lineage: {way}; declare what it is, or change the SQL"
                )

    def _recognised(self, model: Model, item: Said, problem: Any) -> Iterator[Problem]:
        assert item.kind is not None and item.source is not None
        try:
            edges = self.classified.treated(model.target).columns.get(item.column, frozenset())
        except LineageError:
            return  # told where models are resolved
        of = [e for e in edges if self.classified.about(e.table, e.column).personal and e.how.shape in ("value", "key", "picked")]
        into = {e.source_column for e in self.classified.graph.edges if e.target == model.target}
        if item.source not in into | {e.column for e in edges}:
            yield problem(f"{item.column!r} is said to be made from {item.source!r}, which {model.name} does not read")
        elif of and not all(satisfies(e.how.grain, item.kind) for e in of):
            yield problem(
                f"the SQL of {model.name}.{item.column} is not recognised as {item.kind} of {item.source}: docs/classification.md"
                " has the forms that are; use one, or take the declaration out"
            )


def working_copy(project: Project, contracts: Iterable[Contract], sql: Mapping[str, str] | None = None) -> WorkingCopy:
    """Classify the working copy. Without ``sql`` it is compiled, which takes seconds. Raises UserError."""
    contracts = list(contracts)
    sql = compiled(project) if sql is None else sql
    raw = raw_schema(contracts)
    about = Abouts(contracts)
    said: list[Said] = []
    for node in project.manifest["nodes"].values():
        target = f"{node['schema']}.{node['alias']}"
        if node["resource_type"] not in ("model", "seed"):
            continue
        found = list(said_of(target, node.get("columns") or {}))
        said += found
        if node["resource_type"] == "seed":
            raw.add(target, seed_columns(project.folder / node["original_file_path"], node.get("columns") or {}))
            say_seed(about, found)
    graph = declared(project, contracts, sql)
    models = [model for model in project.models if model.target in sql]
    kinds = declarations(said)
    made = classify({model.target: sql[model.target] for model in models}, raw, about, kinds, graph)
    return WorkingCopy(made, project, models, sql, said)


def declarations(said: Iterable[Said]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for item in said:
        if item.kind in KINDS and item.source:
            found.setdefault(item.target, {})[item.column] = str(item.kind)
    return found


def say_seed(about: Abouts, said: Iterable[Said]) -> None:
    """Seeds and tables of others are what their yml says; else internal."""
    for item in said:
        level = item.classification if item.classification in LEVELS else "internal"
        role = item.role if item.role in ("direct_identifier", "quasi_identifier", "sensitive") else "none"
        about.say(item.target, item.column, About(level, role))


def seed_columns(path: Path, columns: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a seed's file."""
    try:
        first = path.read_text("utf-8-sig").split("\n", 1)[0].strip()
    except OSError:
        first = ""
    found = [name.strip().strip('"') for name in first.split(",") if name.strip()]
    return dict.fromkeys([*found, *columns], UNKNOWN)


def yml_problem(folder: Path, model: Model, column: str, text: str) -> Problem:
    """A complaint about a column of a model's yml, at its line."""
    for path in (folder / model.path).with_suffix(".yml"), (folder / model.path).with_suffix(".yaml"):
        try:
            document = read_document(path)
        except DocumentError:
            continue
        for place, entry in enumerate(document.data.get("models") or []):
            if entry.get("name") == model.name:
                for number, item in enumerate(entry.get("columns") or []):
                    if item.get("name") == column:
                        return document.problem(text, "models", place, "columns", number)
    return Problem(folder / model.path, 1, text)


def _line_of(path: Path, word: str) -> int:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if word in line.lower():
                return number
    return 1
