"""Asking the column graph: what a column was made from or went into, now or as of a time.

Belongs here: reading ``lineage.column_edge`` and ``lineage.definition``, the walk, its text and JSON. Does not belong here: how
they are written (``columngraph``), pictures (``drawing``). Imports neither sqlglot nor Dagster, so that ``dopa trace`` answers at
once.

The walk follows values (DIRECT edges). What only decides which rows or values there are (INDIRECT) is told apart, and followed
where it is asked for: nearly everything decides about everything after a few steps.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.classes import WHATS, Class, classes_of
from dopa_pipelines.lineage.model import ColumnEdge
from dopa_pipelines.lineage.naming import DatasetName, Identity, release
from dopa_pipelines.lineage.store import identity
from dopa_pipelines.lineage.trace import BANGKOK, Direction

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

Connection = psycopg.Connection[Any]

DIRECT = frozenset({"IDENTITY", "TRANSFORMATION", "AGGREGATION"})
PROTECTED = frozenset({"personal", "confidential", "secret"})
"""Classes of a contract whose columns are marked."""


class Place(NamedTuple):
    """A column of a dataset; without a column, the dataset's rows whatever their values."""

    dataset: DatasetName
    column: str | None


@dataclass(frozen=True, slots=True)
class Definition:
    """What a dataset was made by at the time that is asked about, and which columns it had.

    ``kind``: feed, load, model, release, or table (written by nobody here). ``version`` is of the contract, of the model's code,
    or of the release; ``code`` is ``path``, ``checksum`` and such of the write since which it was in force. ``problem``: why its
    columns cannot be resolved (``construct``, ``reason``, ``line``, ``column``).
    """

    dataset: DatasetName
    kind: str
    version: str | None
    fields: tuple[Mapping[str, Any], ...]
    problem: Mapping[str, Any] | None
    valid_from: datetime
    valid_to: datetime | None
    write: int | None
    run_id: str | None
    written_by: str | None
    actor: str | None
    code: Mapping[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(item["name"] for item in self.fields)


@dataclass(frozen=True)
class ColumnWalk:
    """A walk from a column, or from all columns of a dataset.

    ``edges``: the DIRECT ones met; ``indirect``: those that decide values or rows of what was met. ``distance``: steps from the
    root of each place met. ``hidden``: edges that the depth limit kept out, by the place they lead to (or from). ``classes``:
    what columns are by their lineage, where that was derived; of now, so empty ``at`` a time.
    """

    root: Place
    direction: Direction
    at: datetime | None
    labels: Mapping[DatasetName, str]
    edges: tuple[ColumnEdge, ...] = ()
    indirect: tuple[ColumnEdge, ...] = ()
    distance: Mapping[Place, int] = field(default_factory=dict)
    hidden: Mapping[Place, int] = field(default_factory=dict)
    definitions: Mapping[DatasetName, Definition] = field(default_factory=dict)
    classes: Mapping[DatasetName, Mapping[str, Class]] = field(default_factory=dict)

    def class_of(self, place: Place) -> Class | None:
        """What a column is by its lineage, where that is known."""
        return self.classes.get(place.dataset, {}).get(place.column or "")

    def marks(self) -> dict[Place, str]:
        """Places that hold personal data: ``contract`` where a contract says so, ``derived`` where they do by their lineage: as
        their class was derived, or else where values come from such a column unmasked and not as an aggregate."""
        found = {
            Place(name, item["name"]): "contract"
            for name, definition in self.definitions.items()
            for item in definition.fields
            if is_protected(item)
        }
        onwards: dict[Place, list[Place]] = {}
        for edge in self.edges:
            if edge.subtype != "AGGREGATION" and not edge.masking:
                onwards.setdefault(source_of(edge), []).append(target_of(edge))
        waiting = [place for place in onwards if place in found]
        while waiting:
            for place in onwards.get(waiting.pop(), ()):
                if place not in found:
                    found[place] = "derived"
                    waiting.append(place)
        for dataset, columns in self.classes.items():
            for name, item in columns.items():
                place = Place(dataset, name)
                if item.protected:
                    found.setdefault(place, "derived")
                elif found.get(place) == "derived":
                    del found[place]
        return found


def is_protected(said: Mapping[str, Any]) -> bool:
    """Whether a contract says that a column holds personal or otherwise protected data."""
    return said.get("classification") in PROTECTED or "pdpa_role" in said


def source_of(edge: ColumnEdge) -> Place:
    return Place(edge.source, edge.source_column)


def target_of(edge: ColumnEdge) -> Place:
    return Place(edge.target, edge.target_column)


# Reading

_EDGES_INTO = """
select sd.namespace, sd.name, s.name as source, t.name as target, e.subtype::text, e.masking
from lineage.dataset d
join lineage.field t on t.dataset_id = d.id
join lineage.column_edge e on e.target_id = t.id
join lineage.field s on s.id = e.source_id
join lineage.dataset sd on sd.id = s.dataset_id
where d.name = %(name)s and d.namespace = %(namespace)s
    and case when %(at)s::timestamptz is null then e.valid_to = 'infinity'
        else e.valid_to > %(at)s and e.valid_from <= %(at)s end
order by t.id, e.subtype, sd.name, s.id
"""


def edges_into(conn: Connection, target: DatasetName, at: datetime | None = None) -> list[ColumnEdge]:
    """The edges that lead to a dataset's columns and rows: those in force now, or ``at`` a time. None where it is not known."""
    rows = conn.execute(_EDGES_INTO, {"name": target.name, "namespace": target.namespace, "at": at}).fetchall()
    return [
        ColumnEdge(DatasetName(namespace, name), source, target, column, subtype, masking)
        for namespace, name, source, column, subtype, masking in rows
    ]


def definitions(conn: Connection, datasets: Iterable[DatasetName], at: datetime | None = None) -> dict[DatasetName, Definition]:
    """What each dataset was made by, now or ``at`` a time; what is not known is left out."""
    asked = list(datasets)
    rows = conn.execute(
        "select id from lineage.dataset where (name, namespace) in (select * from unnest(%s::text[], %s::text[]))",
        ([name.name for name in asked], [name.namespace for name in asked]),
    ).fetchall()
    return {item.dataset: item for _, item in _definitions(conn, [row[0] for row in rows], at)}


def _definitions(conn: Connection, ids: Sequence[int], at: datetime | None) -> Iterator[tuple[int, Definition]]:
    when = "f.valid_to = 'infinity'" if at is None else "f.valid_to > %(at)s and f.valid_from <= %(at)s"
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f"""
            select d.id, d.namespace, d.name, f.kind, coalesce(f.version, w.version) as version, f.fields, f.problem,
                f.valid_from, nullif(f.valid_to, 'infinity') as valid_to, f.write_id as write, w.run_id, w.written_by,
                w.detail ->> 'actor' as actor,
                coalesce(w.code - 'compiled', '{{}}') as code
            from lineage.dataset d
            join lineage.definition f on f.dataset_id = d.id
            left join lineage.write w on w.id = f.write_id
            where d.id = any(%(ids)s) and {when}
            """.encode(),
            {"ids": list(ids), "at": at},
        ).fetchall()
    for row in rows:
        number, name = row.pop("id"), DatasetName(row.pop("namespace"), row.pop("name"))
        yield number, Definition(name, fields=tuple(row.pop("fields")), **row)


# Walking


def walk(
    conn: Connection,
    root: Place,
    direction: Direction = "up",
    depth: int | None = None,
    at: datetime | None = None,
    *,
    indirect: bool = False,
) -> ColumnWalk:
    """Walk from a column, or all columns of a dataset, to what it was made from (``up``) or went into (``down``).

    ``depth``: number of steps, None for all. ``at``: as the graph was then. ``indirect``: follow what decides rows and values,
    too. Raises UserError where the dataset or column was not known then.
    """
    with _uncollected():
        return _Walker(conn, root, direction, at, indirect).walk(depth)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Python's search for cycles waits: a walk makes thousands of tuples and no cycle, and in a large process one search takes
    longer than the walk.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Found:
    """Edges while they are walked, as numbers of fields. Lists of plain values: thousands of tuples would keep the garbage
    collector at work for longer than the query takes."""

    def __init__(self) -> None:
        self.here: list[int] = []
        self.there: list[int] = []
        self.subtypes: list[str] = []
        self.maskings: list[bool] = []

    def add(self, here: int, there: int, subtype: str, masking: bool) -> None:
        self.here.append(here)
        self.there.append(there)
        self.subtypes.append(subtype)
        self.maskings.append(masking)

    def __iter__(self) -> Iterator[tuple[int, int, str, bool]]:
        return zip(self.here, self.there, self.subtypes, self.maskings, strict=True)


class _Walker:
    """``dataset_of`` and ``column_of``: of each field that was met, by its number."""

    def __init__(self, conn: Connection, root: Place, direction: Direction, at: datetime | None, indirect: bool) -> None:
        self.conn, self.root, self.direction, self.at, self.indirect = conn, root, direction, at, indirect
        here, there = ("target_id", "source_id") if direction == "up" else ("source_id", "target_id")
        when = "valid_to = 'infinity'" if at is None else "valid_to > %(at)s and valid_from <= %(at)s"
        self.step = (
            f"select array_agg({here}), array_agg({there}), array_agg(subtype::text), array_agg(masking)"
            f" from lineage.column_edge where {here} = any(%(ids)s::integer[]) and {when}"
        ).encode()
        self.dataset_of: dict[int, int] = {}
        self.column_of: dict[int, str | None] = {}

    def walk(self, depth: int | None) -> ColumnWalk:
        frontier = self._start()
        distance = dict.fromkeys(frontier, 0)
        direct, indirect = _Found(), _Found()
        hidden: dict[int, int] = {}
        rows_of: set[int] = set()
        steps = 0
        while frontier:
            if depth is not None and steps >= depth:
                for here, _, subtype, _ in self._edges(frontier):
                    if subtype in DIRECT:
                        hidden[here] = hidden.get(here, 0) + 1
                break
            if self.indirect and self.direction == "up":
                frontier = frontier + self._rows_fields(frontier, rows_of)
            steps += 1
            met: dict[int, None] = {}
            for here, there, subtype, masking in self._edges(frontier):
                if subtype in DIRECT:
                    direct.add(here, there, subtype, masking)
                    met[there] = None
                else:
                    indirect.add(here, there, subtype, masking)
                    if self.indirect:
                        met[there] = None
            if self.indirect and self.direction == "down":
                self._add_columns(met)
            frontier = [number for number in met if number not in distance]
            distance |= dict.fromkeys(frontier, steps)
        if self.direction == "up" and not self.indirect:
            # What decides the rows of a dataset decides about every value in it.
            followed = [number for number, far in distance.items() if depth is None or far < depth]
            for edge in self._edges(self._rows_fields(followed, rows_of)):
                indirect.add(*edge)
        self._look_up([*distance, *indirect.here, *indirect.there])
        return self._told(distance, direct, indirect, hidden)

    def _edges(self, fields: Iterable[int]) -> Iterable[tuple[int, int, str, bool]]:
        row = self.conn.execute(self.step, {"ids": _array(fields), "at": self.at}, binary=True).fetchone()
        return zip(*row, strict=True) if row and row[0] else ()

    def _start(self) -> list[int]:
        name = self.root.dataset
        row = self.conn.execute(
            "select id from lineage.dataset where name = %s and namespace = %s", (name.name, name.namespace)
        ).fetchone()
        found = dict(_definitions(self.conn, [row[0]], self.at)) if row else {}
        if not row or not found:
            then = f" at {self.at.astimezone(BANGKOK):%Y-%m-%d %H:%M}" if self.at else ""
            label = label_of(identity(self.conn), name)
            raise UserError(f"The columns of {label} were not known{then}; `dopa trace {label}` shows what was written")
        columns = found[row[0]].columns
        if self.root.column is not None and self.root.column not in columns:
            label = label_of(identity(self.conn), name)
            raise UserError(f"{label} has no column {self.root.column!r}; it has {', '.join(columns)}")
        wanted = set(columns) if self.root.column is None else {self.root.column}
        return [number for number in self._fields("dataset_id = %s", row[0]) if self.column_of[number] in wanted]

    def _rows_fields(self, fields: Iterable[int], known: set[int]) -> list[int]:
        """What stands for the rows of the datasets that have ``fields``, but for those ``known``, which they then are."""
        self._look_up(fields)
        fresh = {self.dataset_of[number] for number in fields} - known
        known |= fresh
        return self._fields("dataset_id = any(%s::integer[]) and name is null", _array(fresh))

    def _add_columns(self, fields: dict[int, None]) -> None:
        """Down from what decides rows: every column that these have."""
        self._look_up(fields)
        whole = {self.dataset_of[number] for number in fields if self.column_of[number] is None}
        columns = {number: set(item.columns) for number, item in _definitions(self.conn, list(whole), self.at)}
        for number in self._fields("dataset_id = any(%s::integer[])", _array(whole)):
            if self.column_of[number] in columns.get(self.dataset_of[number], ()):
                fields[number] = None

    def _look_up(self, numbers: Iterable[int]) -> None:
        unknown = {number for number in numbers if number not in self.dataset_of}
        if unknown:
            self._fields("id = any(%s::integer[])", _array(unknown))

    def _fields(self, condition: str, value: object) -> list[int]:
        """The numbers of the fields where ``condition`` holds; what they are is known from then on."""
        query = "select array_agg(id), array_agg(dataset_id), array_agg(name) from (select * from lineage.field"
        row = self.conn.execute(f"{query} where {condition} order by id) f".encode(), (value,), binary=True).fetchone()
        if not row or not row[0]:
            return []
        numbers, datasets, names = row
        self.dataset_of.update(zip(numbers, datasets, strict=True))
        self.column_of.update(zip(numbers, names, strict=True))
        return list(numbers)

    def _told(self, distance: Mapping[int, int], direct: _Found, indirect: _Found, hidden: Mapping[int, int]) -> ColumnWalk:
        """The walk with names for numbers."""
        used = {*distance, *indirect.here, *indirect.there}
        met = list({self.dataset_of[number] for number in used})
        rows = self.conn.execute("select id, namespace, name from lineage.dataset where id = any(%s)", (met,)).fetchall()
        names = {number: DatasetName(namespace, name) for number, namespace, name in rows}
        labelled = {self.root.dataset, *names.values()}
        places = {number: Place(names[self.dataset_of[number]], self.column_of[number]) for number in used}
        up = self.direction == "up"

        def edges(found: _Found) -> tuple[ColumnEdge, ...]:
            made = []
            for here, there, subtype, masking in found:
                source, target = (places[there], places[here]) if up else (places[here], places[there])
                made.append(ColumnEdge(source[0], str(source[1]), target[0], target[1], subtype, masking))
            return tuple(made)

        named = identity(self.conn)
        known = {target: name for name in labelled if (target := named.target(name))} if self.at is None else {}
        classes = classes_of(self.conn, known) if known else {}
        return ColumnWalk(
            self.root, self.direction, self.at, {name: label_of(named, name) for name in labelled},
            edges(direct), edges(indirect), {places[number]: steps for number, steps in distance.items()},
            {places[number]: count for number, count in hidden.items()},
            {item.dataset: item for _, item in _definitions(self.conn, met, self.at)},
            {known[target]: columns for target, columns in classes.items()},
        )  # fmt: skip


def _array(numbers: Iterable[int]) -> str:
    """An array as PostgreSQL reads it: made from a list of thousands, psycopg's takes longer than the query."""
    return f"{{{','.join(map(str, numbers))}}}"


def label_of(named: Identity, dataset: DatasetName) -> str:
    """The short name people use: ``raw.person_register``, ``release:population``, ``registration/person_register``."""
    return named.target(dataset) or dataset.name


# Finding what a person means


def find_place(conn: Connection, text: str, direction: Direction = "up") -> Place | None:
    """The dataset, or column of one, that ``text`` means: ``DATASET`` or ``DATASET.COLUMN``, the dataset as for ``trace.find``.

    None where no dataset or more than one comes into question; ``trace.find`` then says which.
    """
    named = identity(conn)
    text = text.strip()
    splits = [(text, None), *((text[:dot], text[dot + 1 :]) for dot in _dots(text))]
    for choose in (_by_full_name, _by_bare_name):
        for name, column in splits:
            found = choose(conn, named, name)
            if column is not None and len(found) > 1:
                having = [dataset for dataset, item in definitions(conn, found).items() if column in item.columns]
                found = [dataset for dataset in found if dataset in having] or found
            if len(found) > 1:
                raw = [dataset for dataset in found if dataset == named.table(f"raw.{name}")]
                found = raw or [_outermost(conn, name, direction)]
            if found:
                return Place(found[0], column)
    return None


def _dots(text: str) -> list[int]:
    return [place for place in range(len(text) - 2, 0, -1) if text[place] == "."]


def _by_full_name(conn: Connection, named: Identity, name: str) -> list[DatasetName]:
    wanted = [name, named.table(name).name]
    if name.startswith("release:"):
        wanted = [release(name.removeprefix("release:")).name]
    return _select(conn, "name = any(%s)", [wanted])


def _by_bare_name(conn: Connection, named: Identity, name: str) -> list[DatasetName]:
    if not name or "." in name or "/" in name:
        return []
    return _select(conn, "right(name, %s) in ('.' || %s, '/' || %s)", [len(name) + 1, name, name])


def _select(conn: Connection, condition: str, values: list[Any]) -> list[DatasetName]:
    rows = conn.execute(
        f"select namespace, name from lineage.dataset where {condition} order by name".encode(), values
    ).fetchall()
    return [DatasetName(*row) for row in rows]


def _outermost(conn: Connection, name: str, direction: Direction) -> DatasetName:
    """Of datasets that share a bare name the one whose trace contains the others. Raises UserError where none does."""
    from dopa_pipelines.lineage.store import graph
    from dopa_pipelines.lineage.trace import find

    return find(graph(conn), name, direction).dataset


def moment(conn: Connection, text: str) -> datetime:
    """The time that a person means. Raises UserError.

    An ISO date (the end of that day) or time, in Bangkok unless it says otherwise; the version of a release, or
    ``release:<publication>`` (its latest): when that was made.
    """
    text = text.strip()
    try:
        return datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(), BANGKOK) - timedelta(microseconds=1)
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=BANGKOK)
        found.astimezone(BANGKOK)  # at the ends of the calendar there is no such time here
        return found
    except (ValueError, OverflowError):
        pass
    rows = conn.execute(
        "select w.written_at from lineage.write w where w.kind = 'release'"
        " and (w.target = %s or w.detail ->> 'version' = %s) order by w.written_at desc limit 1",
        (text, text),
    ).fetchall()
    if not rows:
        raise UserError(
            f"{text!r} is no time: give a date (2026-11-01), a time (2026-11-01T08:30), release:<publication>, or the version of"
            " a release"
        )
    return rows[0][0]  # type: ignore[no-any-return]


# Showing


def as_json(walk: ColumnWalk) -> dict[str, Any]:
    """The walk for machines: each column and each edge once, from source to target."""
    marks = walk.marks()
    said = {Place(name, item["name"]): item for name, definition in walk.definitions.items() for item in definition.fields}

    def place(item: Place) -> dict[str, Any]:
        return {"dataset": walk.labels[item.dataset], "column": item.column}

    def edge(item: ColumnEdge) -> dict[str, Any]:
        return {
            "from": place(source_of(item)),
            "to": place(target_of(item)),
            "type": "DIRECT" if item.subtype in DIRECT else "INDIRECT",
            "subtype": item.subtype,
            "masking": item.masking,
        }

    return {
        **place(walk.root),
        "direction": walk.direction,
        "as_of": walk.at.isoformat() if walk.at else None,
        "columns": [
            {
                **place(item),
                "steps": steps,
                "personal": marks.get(item),
                **_class_json(walk.class_of(item)),
                **{key: value for key, value in said.get(item, {}).items() if key != "name"},
            }
            for item, steps in walk.distance.items()
            if item.column is not None
        ],
        "edges": [edge(item) for item in walk.edges],
        "indirect": [edge(item) for item in walk.indirect],
        "hidden": sum(walk.hidden.values()),
        "datasets": [definition_json(item, walk.labels[name]) for name, item in walk.definitions.items()],
    }


def _class_json(item: Class | None) -> dict[str, Any]:
    """What a contract says of a column itself comes after this, and counts."""
    return {} if item is None else {"classification": item.level, "derived_as": item.what, "because": list(item.path)}


def definition_json(item: Definition, label: str) -> dict[str, Any]:
    """What a dataset was made by, for machines."""
    return {
        "name": label,
        "namespace": item.dataset.namespace,
        "dataset": item.dataset.name,
        "kind": item.kind,
        "version": item.version,
        "code": dict(item.code),
        "write": item.write,
        "run_id": item.run_id,
        "written_by": item.written_by,
        "actor": item.actor,
        "since": item.valid_from.isoformat(),
        "until": item.valid_to.isoformat() if item.valid_to else None,
        "problem": item.problem,
    }


def as_tree(walk: ColumnWalk, *, zone: tzinfo = BANGKOK) -> Tree:
    """The walk as a rich tree: each column with how it came about; below, apart, what decides which rows and values there are.

    What has several ways to it is followed once, where it is nearest to the root.
    """
    from rich.text import Text
    from rich.tree import Tree

    marks = walk.marks()
    up = walk.direction == "up"
    steps: dict[Place, dict[Place, list[str]]] = {}
    for edge in walk.edges:
        here, there = (target_of(edge), source_of(edge)) if up else (source_of(edge), target_of(edge))
        steps.setdefault(here, {}).setdefault(there, []).append(how(edge))
    followed: set[Place] = set()

    def line(place: Place, ways: list[str], note: str = "") -> Text:
        text = Text(_name(walk, place), style="" if ways else "bold")
        if ways:
            text.append(f"  {', '.join(ways)}", style="cyan")
        if mark := marks.get(place):
            text.append(f"  {_mark(walk, place, mark)}", style="bold red")
        if made := _made_by(walk.definitions.get(place.dataset), place, zone):
            text.append(f"  {made}", style="dim")
        problem = _problem(walk.definitions.get(place.dataset))
        if problem and up and not note:
            text.append(f"  {problem}", style="bold yellow")
        if note:
            text.append(f"  {note}", style="dim")
        elif count := walk.hidden.get(place):
            text.append(f"  … {count} more {walk.direction}", style="yellow")
        return text

    def grow(branch: Tree, place: Place) -> None:
        followed.add(place)
        for there, ways in steps.get(place, {}).items():
            if there in followed or walk.distance.get(there) != walk.distance[place] + 1:
                branch.add(line(there, ways, "… itself" if there == place else "… shown elsewhere"))
            else:
                grow(branch.add(line(there, ways)), there)

    when = f" as of {walk.at.astimezone(zone):%Y-%m-%d %H:%M}" if walk.at else ""
    title = "made from" if up else "goes into"
    tree = Tree(Text(f"{_name(walk, walk.root)} {title}{when}", style="bold"), highlight=False)
    for place, distance in walk.distance.items():
        if distance == 0 and place.column is not None:
            if place == walk.root:
                tree = Tree(line(place, [], when.strip()), highlight=False)
                grow(tree, place)
            else:
                grow(tree.add(line(place, [])), place)
    _add_indirect(tree, walk)
    return tree


def _add_indirect(tree: Tree, walk: ColumnWalk) -> None:
    from rich.text import Text

    if not walk.indirect:
        return
    said = "Rows and values also depend on (INDIRECT):" if walk.direction == "up" else "It also decides about (INDIRECT):"
    apart = tree.add(Text(said, style="italic"))
    marks = walk.marks()
    groups: dict[Place, list[ColumnEdge]] = {}
    for edge in walk.indirect:
        groups.setdefault(target_of(edge), []).append(edge)
    for target, edges in groups.items():
        branch = apart.add(Text(_name(walk, target)))
        by_source: dict[Place, list[str]] = {}
        for edge in edges:
            by_source.setdefault(source_of(edge), []).append(how(edge))
        for source, ways in sorted(by_source.items(), key=lambda pair: (walk.labels[pair[0].dataset], str(pair[0].column))):
            text = Text(_name(walk, source))
            text.append(f"  {', '.join(dict.fromkeys(ways))}", style="cyan")
            if mark := marks.get(source):
                text.append(f"  {_mark(walk, source, mark)}", style="bold red")
            branch.add(text)


def how(edge: ColumnEdge) -> str:
    """``AGGREGATION, masked``."""
    return f"{edge.subtype}{', masked' if edge.masking else ''}"


def _name(walk: ColumnWalk, place: Place) -> str:
    label = walk.labels.get(place.dataset, place.dataset.name)
    return f"{label}.{place.column}" if place.column is not None else f"{label} (which rows)" if place != walk.root else label


def _mark(walk: ColumnWalk, place: Place, mark: str) -> str:
    if mark == "derived":
        known = walk.class_of(place)
        return WHATS[known.what].english if known and known.what in WHATS else "from personal data"
    definition = walk.definitions[place.dataset]
    said = next(item for item in definition.fields if item["name"] == place.column)
    role = str(said.get("pdpa_role", "")).replace("_", " ")
    return f"{said.get('classification', 'personal')}{f', {role}' if role else ''}"


def _made_by(definition: Definition | None, place: Place, zone: tzinfo) -> str:
    if definition is None:
        return ""
    since = f"since {definition.valid_from.astimezone(zone):%Y-%m-%d %H:%M}"
    version = definition.version or ""
    match definition.kind:
        case "load":
            return f"contract {version}, {since}"
        case "model":
            return f"model {version[:8]}, {since}"
        case "release":
            return f"release {version}"
        case _:
            position = next((item.get("position") for item in definition.fields if item["name"] == place.column), None)
            return f"at {position}" if position else ""


def _problem(definition: Definition | None) -> str:
    if definition is None or definition.problem is None:
        return ""
    return f"cannot be resolved: {problem_text(definition.problem)}"


def problem_text(problem: Mapping[str, Any]) -> str:
    """``line 3, column 9: lateral join is not understood``."""
    place = f"line {problem['line']}, column {problem['column']}: " if problem.get("line") else ""
    return f"{place}{problem['construct']} {problem['reason']}"
