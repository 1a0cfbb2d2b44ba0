"""The additive relations as moves: how a table can change and still look the same from outside.

What an attacker cannot tell apart from the true table differs from it by a *move* y: the sums of the relations stay (A y = 0),
what is known does not change (y = 0), nothing falls below its bound (y ≥ -down). Cells that can only move together are one
*variable* here. What belongs here: that reduction, connected parts, submatrices. What does not: solving (:mod:`.attack`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Floats, Ints


@dataclass
class System:
    """``variable`` of each cell (-1: cannot move) and the relations between variables, as a sparse matrix by rows.

    ``down``: how far a variable can fall before one of its cells reaches its lower bound. ``implied``: relations that follow from
    the others, here and among any of the variables.
    """

    variable: Ints
    count: int
    start: Ints
    index: Ints
    coefficient: Floats
    down: Floats
    implied: Bools

    @cached_property
    def rows(self) -> Ints:
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    @cached_property
    def cell(self) -> Ints:
        """A cell of each variable."""
        moving = np.flatnonzero(self.variable >= 0)
        found = np.zeros(self.count, dtype=np.int64)
        found[self.variable[moving]] = moving
        return found

    @cached_property
    def _columns(self) -> tuple[Ints, Ints]:
        """Rows of each variable: ``rows[start[v]:start[v + 1]]``."""
        order = np.argsort(self.index, kind="stable")
        counts = np.bincount(self.index, minlength=self.count)
        return np.concatenate([[0], np.cumsum(counts)]), self.rows[order]

    @cached_property
    def _position(self) -> Ints:
        """-1 for every variable: filling it anew would take longer than the small parts that it is for."""
        return np.full(self.count, -1, dtype=np.int64)

    def gather(self, values: Floats, how: np.ufunc, start: float = 0.0) -> Floats:
        """One value for each variable out of its cells' values."""
        result = np.full(self.count, start)
        moving = self.variable >= 0
        how.at(result, self.variable[moving], values[moving])
        return result

    def rows_of(self, variables: Ints) -> Ints:
        start, rows = self._columns
        return np.unique(rows[ranges(start[variables], start[variables + 1])])

    def marks(self, seed: int) -> Ints:
        """A number of each variable, whose sum over the variables of a whole-number move vanishes where every relation's does."""
        weight = np.random.default_rng(seed).integers(-(2**62), 2**62, len(self.start) - 1)
        mark = np.zeros(self.count, dtype=np.int64)
        with np.errstate(over="ignore"):
            np.add.at(mark, self.index, weight[self.rows] * self.coefficient.astype(np.int64))
        return mark

    def near(self, variables: Ints, steps: int, allowed: Bools | None = None, most: int | None = None) -> Ints:
        """Variables reached through at most ``steps`` relations."""
        found = np.unique(variables)
        for _ in range(steps):
            rows = self.rows_of(found)
            wider = np.unique(np.concatenate([found, self.index[ranges(self.start[rows], self.start[rows + 1])]]))
            if allowed is not None:
                wider = wider[allowed[wider]]
            if len(wider) == len(found) or (most is not None and len(wider) > most):
                break
            found = wider
        return found

    def part(self, variables: Ints, *, closed: bool = False, implied: bool = True) -> tuple[Ints, Ints, Floats]:
        """The relations among ``variables`` when all others stay: start, position in ``variables``, coefficient.

        ``closed``: only the relations that have no other variable; the others are somebody else's to keep. ``implied``: also
        those that follow from others.
        """
        rows = self.rows_of(variables)
        if not implied:
            rows = rows[~self.implied[rows]]
        entries = ranges(self.start[rows], self.start[rows + 1])
        position = self._position
        position[variables] = np.arange(len(variables))
        index = position[self.index[entries]]
        position[variables] = -1
        row = np.repeat(np.arange(len(rows)), self.start[rows + 1] - self.start[rows])
        kept = index >= 0
        if closed:
            kept &= np.bincount(row[~kept], minlength=len(rows))[row] == 0
        counts = np.bincount(row[kept], minlength=len(rows))
        return np.concatenate([[0], np.cumsum(counts)]), index[kept], self.coefficient[entries][kept]

    def components(self, moving: Bools) -> list[Ints]:
        """Parts of the ``moving`` variables that no relation connects, the one with the first variable first."""
        kept = moving[self.index]
        label = _labels(self.count, self.rows[kept], self.index[kept], len(self.start) - 1)
        variables = np.flatnonzero(moving)
        order = np.argsort(label[variables], kind="stable")
        ordered = variables[order]
        cuts = np.flatnonzero(np.diff(label[ordered])) + 1
        return [part for part in np.split(ordered, cuts) if len(part)]


def ranges(start: Ints, end: Ints) -> Ints:
    """All of start[i] … end[i] - 1, one range after the other."""
    lengths = end - start
    if not lengths.sum():
        return np.zeros(0, dtype=np.int64)
    shift = np.repeat(start - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.asarray(np.arange(lengths.sum()) + shift, dtype=np.int64)


def _labels(count: int, row: Ints, index: Ints, rows: int) -> Ints:
    """The smallest variable that each variable is connected to, through rows."""
    label = np.arange(count)
    while True:
        least = np.full(rows, count, dtype=np.int64)
        np.minimum.at(least, row, label[index])
        new = label.copy()
        np.minimum.at(new, index, least[row])
        new = np.minimum(new, new[new])
        if np.array_equal(new, label):
            return label
        label = new


def reduce(cells: Cells, fixed: Bools, lower: Floats) -> System:
    """Variables of the cells that are not ``fixed``; ``lower`` is what each cell is known to reach at least.

    A cell alone in a relation is determined, so fixed; two with opposite signs in a relation of two move together.
    """
    count = len(cells)
    variable = np.where(fixed, -1, np.arange(count))
    row, index, coefficient = cells.rows, cells.cell, cells.sign
    while True:
        moved = variable[index]
        kept = moved >= 0
        # The same variable twice in a relation: add up, and drop what cancels.
        key, inverse = np.unique(row[kept] * np.int64(count + 1) + moved[kept], return_inverse=True)
        total = np.bincount(inverse, weights=coefficient[kept], minlength=len(key))
        stays = np.abs(total) > 0.5
        row, index = key[stays] // (count + 1), key[stays] % (count + 1)
        coefficient = total[stays].astype(np.float64)
        length = np.bincount(row, minlength=len(cells.start))[row]
        first = np.flatnonzero(length == 2)[::2]
        together = first[coefficient[first] == -coefficient[first + 1]]
        alone = index[length == 1]
        if not len(alone) and not len(together):
            break
        edges = np.arange(len(together))
        ends = np.concatenate([index[together], index[together + 1]])
        label = _labels(count, np.concatenate([edges, edges]), ends, len(edges))
        gone = np.zeros(count, dtype=bool)
        gone[label[alone]] = True
        moving = variable >= 0
        merged = label[variable[moving]]
        variable[moving] = np.where(gone[merged], -1, merged)
    moving = variable >= 0
    used, compact = np.unique(variable[moving], return_inverse=True)
    name = np.full(count, -1, dtype=np.int64)
    name[used] = np.arange(len(used))
    variable[moving] = compact
    down = np.full(len(used), np.inf)
    np.minimum.at(down, compact, np.maximum(cells.value - lower, 0)[moving])
    number, lengths = np.unique(row, return_counts=True)
    return System(
        variable=variable,
        count=len(used),
        start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        index=name[index],
        coefficient=coefficient,
        down=down,
        implied=cells.implied[number],
    )
