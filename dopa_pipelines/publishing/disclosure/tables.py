"""Tables of one family as cells and the sums between them.

What belongs here: dimensions with their hierarchies, the cells of one or several tables over the same people, margins, and
every additive relation as a sparse matrix. What does not: which cells are unsafe (:mod:`.rules`) and what is done about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dopa_pipelines.documents import did_you_mean
from dopa_pipelines.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MOST_CELLS = 20_000_000
"""More cells than this in one table are refused: they would not fit in memory."""


@dataclass(frozen=True)
class Dimension:
    """A column of codes and the tree they form; node 0 is the total, parents come before their children.

    ``parent[i]`` is the node that node ``i`` adds up to; -1 for the total.
    """

    name: str
    codes: tuple[str, ...]
    parent: tuple[int, ...]

    @staticmethod
    def from_parents(name: str, total: str, parents: Mapping[str, str]) -> Dimension:
        """A tree from child → parent; every chain must end at ``total``. Raises :class:`UserError` where one does not."""
        children: dict[str, list[str]] = {}
        for child, above in parents.items():
            if child == total:
                raise UserError(f"dimension {name!r}: the total {total!r} has a parent, {above!r}; it must be the top")
            children.setdefault(above, []).append(child)
        codes, at = [total], [-1]
        position = 0
        while position < len(codes):
            for child in sorted(children.get(codes[position], [])):
                codes.append(child)
                at.append(position)
            position += 1
        lost = sorted(set(parents) - set(codes))
        if lost:
            raise UserError(f"dimension {name!r}: {lost[0]!r} does not lead up to the total {total!r}; complete its parents")
        return Dimension(name, tuple(codes), tuple(at))

    @staticmethod
    def flat(name: str, total: str, codes: Iterable[str]) -> Dimension:
        """Every code but the total is its child."""
        return Dimension.from_parents(name, total, dict.fromkeys(set(codes) - {total}, total))

    @staticmethod
    def by_prefix(name: str, total: str, codes: Iterable[str], levels: Sequence[int]) -> Dimension:
        """A tree by the length of the code: with ``levels`` 2, 4, 6 the code 100102 lies below 1001, which lies below 10."""
        parents: dict[str, str] = {}
        for code in sorted(set(codes) - {total}):
            if len(code) not in levels:
                lengths = ", ".join(map(str, levels))
                raise UserError(
                    f"dimension {name!r}: code {code!r} has {len(code)} characters, not one of {lengths}; "
                    f"it is not the total {total!r} either"
                )
            above = total
            for length in levels[: levels.index(len(code)) + 1]:
                parents[code[:length]] = above
                above = code[:length]
        return Dimension.from_parents(name, total, parents)

    @property
    def total(self) -> str:
        return self.codes[0]

    @cached_property
    def position(self) -> dict[str, int]:
        return {code: node for node, code in enumerate(self.codes)}

    @cached_property
    def families(self) -> list[tuple[int, Ints]]:
        """Every parent with its children, the total first."""
        below: dict[int, list[int]] = {}
        for node, above in enumerate(self.parent):
            if above >= 0:
                below.setdefault(above, []).append(node)
        return [(above, np.array(nodes, dtype=np.int64)) for above, nodes in sorted(below.items())]

    def closed(self, nodes: Iterable[int]) -> list[int]:
        """``nodes`` with all their ancestors and siblings, in tree order: what a table that has them consists of."""
        found = {0}
        for node in nodes:
            while node > 0 and node not in found:
                found.add(node)
                node = self.parent[node]
        above = {self.parent[node] for node in found}
        return [node for node, parent in enumerate(self.parent) if node == 0 or parent in above]


@dataclass(frozen=True)
class Table:
    """One table: a row a cell, in long form.

    ``frame`` has a text column for each of ``dimensions``, the ``measure``, and where they exist ``contributors`` (how many
    people a sum is made of), ``largest`` (their greatest contributions, descending), ``key`` (sum of record keys, for the
    cell-key method) and ``impossible`` (true where nobody can be). A dimension of the family that the table lacks is at its
    total, or at the code that ``at`` names. ``threshold`` overrides the rule's for this table; the stricter wins in a
    shared cell.
    ``margins``: whether subtotals and totals that the frame has no row for are public (by dimension, or for all): one that
    is not is
    hidden from the start, without a demand of its own, unless another table publishes it. ``complete``: the table is about
    every code
    of its dimensions, also those it has no row for (zeros); otherwise it ends where its codes end, as at districts.
    """

    name: str
    frame: pl.DataFrame
    dimensions: tuple[str, ...]
    measure: str
    contributors: str | None = None
    largest: tuple[str, ...] = ()
    key: str | None = None
    impossible: str | None = None
    at: Mapping[str, str] = field(default_factory=dict)
    threshold: int | None = None
    margins: bool | Mapping[str, bool] = True
    complete: bool = False


@dataclass(frozen=True)
class Family:
    """Tables over the same people, and the dimensions that they share."""

    dimensions: tuple[Dimension, ...]
    tables: tuple[Table, ...]


@dataclass
class Cells:
    """All cells of a family, each once, and the relations between them.

    ``nodes`` (cells × dimensions) are positions in the dimensions. A relation is a row of the sparse matrix ``start``,
    ``cell``, ``sign``: the signed sum over its cells is zero (children +1, their parent -1). ``implied``: relations that follow
    from the others.
    """

    dimensions: tuple[Dimension, ...]
    nodes: Ints
    value: Floats
    contributors: Floats
    largest: Floats
    key: Floats
    impossible: Bools
    public: Bools
    threshold: Ints
    start: Ints
    cell: Ints
    sign: Floats
    implied: Bools
    _order: Ints = field(repr=False)
    _place: Ints = field(repr=False)

    def __len__(self) -> int:
        return len(self.value)

    @property
    def rows(self) -> Ints:
        """The relation that each entry of ``cell`` belongs to."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    def find(self, nodes: Ints) -> Ints:
        """Cells at ``nodes`` (n × dimensions); -1 where the family has none."""
        if not len(self):
            return np.full(len(nodes), -1, dtype=np.int64)
        place = _flat(self.dimensions, nodes)
        at = np.minimum(np.searchsorted(self._place, place), len(self._place) - 1)
        return np.where(self._place[at] == place, self._order[at], -1)

    def code(self, cell: int) -> dict[str, str]:
        """The cell's codes by dimension."""
        return {dimension.name: dimension.codes[node] for dimension, node in zip(self.dimensions, self.nodes[cell], strict=True)}

    def frame(self) -> pl.DataFrame:
        """A row a cell: its codes."""
        return pl.DataFrame(
            {
                dimension.name: pl.Series(np.array(dimension.codes, dtype=object)[self.nodes[:, axis]], dtype=pl.String)
                for axis, dimension in enumerate(self.dimensions)
            }
        )


def _flat(dimensions: Sequence[Dimension], nodes: Ints) -> Ints:
    place = np.zeros(len(nodes), dtype=np.int64)
    for axis, dimension in enumerate(dimensions):
        place = place * len(dimension.codes) + nodes[:, axis]
    return place


def nodes_of(frame: pl.DataFrame, dimensions: Sequence[Dimension], what: str, at: Mapping[str, str] | None = None) -> Ints:
    """Positions of a frame's codes (rows × dimensions). A dimension without a column is at its total, or where ``at`` says.

    Raises :class:`UserError` naming the row (the header is row 1) of an unknown code.
    """
    found = np.zeros((frame.height, len(dimensions)), dtype=np.int64)
    for axis, dimension in enumerate(dimensions):
        if dimension.name not in frame.columns:
            found[:, axis] = dimension.position[(at or {}).get(dimension.name, dimension.total)]
            continue
        codes = frame[dimension.name].cast(pl.String)
        known = pl.Series(list(dimension.codes), dtype=pl.String)
        nodes = codes.replace_strict(known, pl.Series(range(len(known)), dtype=pl.Int64), default=None, return_dtype=pl.Int64)
        if nodes.null_count():
            row = int(nodes.is_null().arg_max() or 0)
            code = codes[row]
            raise UserError(
                f"{what}, row {row + 2}, column {dimension.name!r}: "
                + ("is empty; give a code" if code is None else f"no code {code!r} in this dimension; {_near(code, dimension)}")
            )
        found[:, axis] = nodes.to_numpy()
    return found


def _near(code: str, dimension: Dimension) -> str:
    return did_you_mean(code, dimension.codes if len(dimension.codes) < 40 else dimension.codes[:40])


def build(family: Family) -> Cells:
    """The cells of all tables, margins computed or checked.

    Raises :class:`UserError` naming table and row for a value that is no number ≥ 0, a cell that stands twice, a margin that does
    not add up, a cell that two tables give differently.
    """
    parts = [_dense(table, family.dimensions) for table in family.tables]
    place = np.concatenate([_flat(family.dimensions, part.nodes) for part in parts])
    _unique, first, cell_of = np.unique(place, return_index=True, return_inverse=True)
    # Cells in the order in which the tables give them, the first table's first: stable.
    rank = np.argsort(np.argsort(first))
    cell_of = rank[cell_of]
    first = np.sort(first)
    count = len(first)

    def one(name: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(part, name) for part in parts])[first]

    value = one("value")
    offset = 0
    threshold = np.zeros(count, dtype=np.int64)
    public = np.zeros(count, dtype=bool)
    starts, cells, signs, implied, origin = [np.zeros(1, dtype=np.int64)], [], [], [np.zeros(0, dtype=bool)], 0
    for table, part in zip(family.tables, parts, strict=True):
        mine = cell_of[offset : offset + len(part.value)]
        wrong = ~np.isclose(value[mine], part.value, rtol=1e-9, atol=1e-6)
        if wrong.any():
            at = int(np.argmax(wrong))
            codes = _codes(family.dimensions, part.nodes[at])
            raise UserError(
                f"table {table.name!r} gives {_number(part.value[at])} for {codes}, another table of the family "
                f"{_number(value[mine[at]])}; tables over the same people must agree"
            )
        if table.threshold is not None:
            threshold[mine] = np.maximum(threshold[mine], table.threshold)
        starts.append(part.start[1:] + origin)
        origin += len(part.cell)
        cells.append(mine[part.cell])
        signs.append(part.sign)
        implied.append(part.implied)
        public[mine] |= part.public
        offset += len(part.value)
    nodes = np.concatenate([part.nodes for part in parts])[first]
    sorted_place = np.argsort(place[first])
    return Cells(
        dimensions=family.dimensions,
        nodes=nodes,
        value=value,
        contributors=one("contributors"),
        largest=one("largest"),
        key=one("key"),
        impossible=one("impossible").astype(bool),
        public=public,
        threshold=threshold,
        start=np.concatenate(starts),
        cell=np.concatenate(cells),
        sign=np.concatenate(signs),
        implied=np.concatenate(implied),
        _order=sorted_place,
        _place=place[first][sorted_place],
    )


@dataclass
class _Part:
    nodes: Ints
    value: Floats
    contributors: Floats
    largest: Floats
    key: Floats
    impossible: Floats
    public: Bools
    start: Ints
    cell: Ints
    sign: Floats
    implied: Bools


def _codes(dimensions: Sequence[Dimension], nodes: Ints) -> str:
    return ", ".join(f"{dimension.name} {dimension.codes[node]}" for dimension, node in zip(dimensions, nodes, strict=True))


def _number(number: float | np.float64) -> str:
    value = float(number)
    return f"{int(value)}" if value == int(value) else f"{value:g}"


def _numbers(table: Table, column: str, most: float | None = None) -> Floats:
    """A column as numbers ≥ 0; raises :class:`UserError` with the row."""
    if column not in table.frame.columns:
        raise UserError(f"table {table.name!r} has no column {column!r}; {did_you_mean(column, table.frame.columns)}")
    series = table.frame[column]
    numbers = series.cast(pl.Float64, strict=False)
    bad = numbers.is_null() | ~numbers.is_finite() | (numbers < 0)
    if most is not None:
        bad |= numbers > most
    if bad.any():
        row = int(bad.arg_max() or 0)
        shown = series[row]
        why = (
            "is negative; disclosure control needs sums of contributions that are not"
            if (numbers[row] or 0) < 0
            else "is no number"
        )
        raise UserError(f"table {table.name!r}, row {row + 2}, column {column!r}: {shown!r} {why}")
    return numbers.to_numpy().astype(np.float64)


def _dense(table: Table, dimensions: tuple[Dimension, ...]) -> _Part:
    """A table as a full cross of its nodes."""
    for name in table.dimensions:
        if name not in table.frame.columns:
            raise UserError(f"table {table.name!r} has no column {name!r}; {did_you_mean(name, table.frame.columns)}")
    frame = table.frame.select(table.dimensions)
    nodes = nodes_of(frame, dimensions, f"table {table.name!r}", table.at)
    own = [axis for axis, dimension in enumerate(dimensions) if dimension.name in table.dimensions]
    present = [
        (
            list(range(len(dimensions[axis].codes)))
            if table.complete
            else dimensions[axis].closed(np.unique(nodes[:, axis]).tolist())
        )
        if axis in own
        else np.unique(nodes[:1, axis]).tolist() or [0]
        for axis in range(len(dimensions))
    ]
    shape = tuple(len(nodes) for nodes in present)
    if np.prod([float(length) for length in shape]) > MOST_CELLS:
        raise UserError(f"table {table.name!r} has more than {MOST_CELLS:,} cells with its margins; split it")
    local = [np.full(len(dimension.codes), -1, dtype=np.int64) for dimension in dimensions]
    for axis, kept in enumerate(present):
        local[axis][kept] = np.arange(len(kept))
    families = [
        [
            (int(local[axis][above]), local[axis][below])
            for above, below in dimensions[axis].families
            if local[axis][above] >= 0 and local[axis][below[0]] >= 0
        ]
        if axis in own
        else []
        for axis in range(len(dimensions))
    ]
    count = int(np.prod(shape))
    place = np.ravel_multi_index(tuple(local[axis][nodes[:, axis]] for axis in range(len(dimensions))), shape)
    order = np.argsort(place, kind="stable")
    twice = np.flatnonzero(np.diff(place[order]) == 0)
    if len(twice):
        one, other = order[twice[0]], order[twice[0] + 1]
        raise UserError(
            f"table {table.name!r}, row {max(one, other) + 2}: the cell {_codes(dimensions, nodes[one])} stands in row "
            f"{min(one, other) + 2} already; keep one"
        )
    given = np.zeros(count, dtype=bool)
    given[place] = True
    leaf = np.ones(shape, dtype=bool)
    private = np.zeros(shape, dtype=bool)
    for axis, pairs in enumerate(families):
        shown = table.margins if isinstance(table.margins, bool) else table.margins.get(dimensions[axis].name, True)
        for above, _ in pairs:
            np.moveaxis(leaf, axis, 0)[above] = False
            np.moveaxis(private, axis, 0)[above] |= not shown
    leaf, public = leaf.ravel(), ~private.ravel() | given
    measure = _numbers(table, table.measure)
    value = np.zeros(count)
    value[place] = measure
    stated = value.copy()
    people = np.zeros(count)
    people[place] = measure if table.contributors is None else _numbers(table, table.contributors)
    top = np.zeros((count, len(table.largest)))
    for rank, column in enumerate(table.largest):
        top[place, rank] = _numbers(table, column)
    key = np.zeros(count)
    if table.key is not None:
        key[place] = _numbers(table, table.key)
    impossible = np.zeros(count)
    if table.impossible is not None:
        impossible[place] = _flags(table, table.impossible)
    stated_people, stated_top, stated_key = people.copy(), top.copy(), key.copy()
    for array in (value, people, key):
        array[~leaf] = 0
    top[~leaf] = 0
    _add_up(value.reshape(shape), families)
    _add_up(people.reshape(shape), families)
    _add_up(key.reshape(shape), families)
    if table.largest:
        _largest(top.reshape((*shape, -1)), families)
    margin = given & ~leaf
    wrong = margin & ~np.isclose(stated, value, rtol=1e-9, atol=1e-6)
    if wrong.any():
        rows = np.flatnonzero(wrong[place])
        row, at = int(rows[0]), int(place[rows[0]])
        raise UserError(
            f"table {table.name!r}, row {row + 2}: the margin {_codes(dimensions, nodes[row])} is {_number(float(stated[at]))}, "
            f"but its parts add up to {_number(float(value[at]))}; mend one or leave the margin out"
        )
    people[margin] = stated_people[margin]
    top[margin] = stated_top[margin]
    key[margin] = stated_key[margin]
    odd = np.flatnonzero(((value > 0) & (people == 0)) | (impossible.astype(bool) & (value > 0)))
    if len(odd):
        why = "cannot be, but is not zero" if impossible[odd[0]] else "is a sum over nobody; give the number of contributors"
        at_node = np.array([present[axis][i] for axis, i in enumerate(np.unravel_index(odd[0], shape))])
        raise UserError(f"table {table.name!r}: the cell {_codes(dimensions, at_node)} {why}")
    start, cell, sign, implied = _relations(shape, families)
    grid = np.indices(shape).reshape(len(shape), -1)
    full = np.stack([np.array(kept, dtype=np.int64)[grid[axis]] for axis, kept in enumerate(present)], axis=1)
    return _Part(full, value, people, top, key, impossible, public, start, cell, sign, implied)


def _flags(table: Table, column: str) -> Floats:
    if column not in table.frame.columns:
        raise UserError(f"table {table.name!r} has no column {column!r}; {did_you_mean(column, table.frame.columns)}")
    text = table.frame[column].cast(pl.String).str.to_lowercase().fill_null("false")
    bad = ~text.is_in(["true", "false", "1", "0", ""])
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise UserError(f"table {table.name!r}, row {row + 2}, column {column!r}: {text[row]!r} is neither true nor false")
    return text.is_in(["true", "1"]).to_numpy().astype(np.float64)


def _add_up(values: Floats, families: list[list[tuple[int, Ints]]]) -> None:
    """Fill margins, an axis after the other, from the leaves up."""
    for axis, pairs in enumerate(families):
        view = np.moveaxis(values, axis, 0)
        for above, below in reversed(pairs):
            view[above] = view[below].sum(axis=0)


def _largest(values: Floats, families: list[list[tuple[int, Ints]]]) -> None:
    """Fill the margins' largest contributions from their parts': a person is taken to be in one part only."""
    most = values.shape[-1]
    for axis, pairs in enumerate(families):
        view = np.moveaxis(values, axis, 0)
        for above, below in reversed(pairs):
            parts = np.moveaxis(view[below], 0, -2)
            parts = parts.reshape((*parts.shape[:-2], -1))
            view[above] = -np.sort(-parts, axis=-1)[..., :most]


def _relations(shape: tuple[int, ...], families: list[list[tuple[int, Ints]]]) -> tuple[Ints, Ints, Floats, Bools]:
    """Every parent = sum of its children, along every axis, as a sparse matrix, and which of these follow from the others.

    A sum along one axis at another's margin is the sum of such sums at that margin's parts: it is implied by them and by the sums
    along the other axis. Of two axes the one with longer sums is the one whose sums are implied.
    """
    place = np.arange(int(np.prod(shape))).reshape(shape)
    margin = np.zeros(shape, dtype=bool)
    lengths, cells, signs, implied = [], [], [], [np.zeros(0, dtype=bool)]
    for axis in sorted(
        range(len(shape)), key=lambda one: sum(len(below) for _, below in families[one]) / max(len(families[one]), 1)
    ):
        view = np.moveaxis(place, axis, 0).reshape(shape[axis], -1)
        elsewhere = np.moveaxis(margin, axis, 0)[0].flatten()
        for above, below in families[axis]:
            lines = np.concatenate([view[[above]], view[below]]).T
            lengths.append(np.full(len(lines), lines.shape[1], dtype=np.int64))
            cells.append(lines.ravel())
            signs.append(np.tile(np.concatenate([[-1.0], np.ones(len(below))]), len(lines)))
            implied.append(elsewhere)
        for above, _ in families[axis]:
            np.moveaxis(margin, axis, 0)[above] = True
    if not cells:
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0), implied[0]
    start = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return start, np.concatenate(cells), np.concatenate(signs), np.concatenate(implied)
