"""Elementary moves of large tables: two siblings, two codes of every other dimension, the corners in turn up and down.

Such a hypercube (Repsilber 1994; Giessing and Repsilber 2002) leaves every sum as it is, so walks along many of them lead to
tables that an attacker cannot tell from the true one: all subtables of a country at once, and without a linear program. What
belongs here: finding cubes and walking. What they do not prove is left to linear programming (:mod:`.attack`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from dopa_pipelines.publishing.disclosure.attack import Needs
from dopa_pipelines.publishing.disclosure.proof import Moves, Proven
from dopa_pipelines.publishing.disclosure.system import System
from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Dimension, Floats, Ints

FAMILY = 12
"""Siblings that are paired with each other; a larger family is split."""
MOST = 4_000
"""Combinations of the other dimensions' codes that are tried."""
PLACES = 40_000_000
"""A dense table of more places is not looked at."""
WALKS = 2
STEPS = 400
AT_ONCE = 4096
"""Pairs of siblings whose cubes are looked at together."""

Vector = tuple[tuple[int, ...], tuple[int, ...]]


def _vectors(dimension: Dimension, present: Bools) -> list[Vector]:
    """Moves along one dimension that no sum notices: a leaf up, another down, and what lies above only one of them with it."""
    above = set(dimension.parent)
    leaves = [node for node in np.flatnonzero(present).tolist() if node not in above]
    if len(dimension.codes) == 1 or not leaves:
        return [((int(np.flatnonzero(present)[0]),), (1,))]
    chains: dict[int, list[int]] = {}
    for leaf in leaves:
        chains[leaf], node = [], leaf
        while node >= 0:
            chains[leaf].append(node)
            node = dimension.parent[node]
    found: list[Vector] = [(tuple(chain), (1,) * len(chain)) for chain in chains.values()]
    for one, other in combinations(leaves, 2):
        up = [node for node in chains[one] if node not in chains[other]]
        down = [node for node in chains[other] if node not in chains[one]]
        found.append((tuple(up + down), (1,) * len(up) + (-1,) * len(down)))
    return found


@dataclass
class Cubes:
    """``corner`` (cubes × corners): variables; ``sign``: 1 up, -1 down, 0 for a corner that is none. Those of a ``block`` stand
    together; no variable is in two blocks."""

    corner: NDArray[np.int32]
    sign: NDArray[np.int8]
    block: Ints

    @staticmethod
    def joined(pieces: Sequence[Cubes]) -> Cubes:
        return Cubes(
            np.concatenate([piece.corner for piece in pieces]),
            np.concatenate([piece.sign for piece in pieces]),
            np.concatenate([piece.block for piece in pieces]),
        )


@dataclass
class Grid:
    """A family's cells by the dimension along which it falls apart into blocks, and by all the others together."""

    cells: Cells
    system: System
    axis: int

    def _others(self) -> tuple[Ints, NDArray[np.int8], Ints]:
        """Combinations of the other dimensions' moves: place of each corner (-1: none), its sign; and each cell's place."""
        dimensions = [one for at, one in enumerate(self.cells.dimensions) if at != self.axis]
        nodes = np.delete(self.cells.nodes, self.axis, axis=1)
        place = np.zeros(len(self.cells), dtype=np.int64)
        vectors: list[list[Vector]] = []
        for at, dimension in enumerate(dimensions):
            place = place * len(dimension.codes) + nodes[:, at]
            present = np.zeros(len(dimension.codes), dtype=bool)
            present[nodes[:, at]] = True
            vectors.append(_vectors(dimension, present))
        random = np.random.default_rng(len(self.cells))
        while np.prod([float(len(one)) for one in vectors]) > MOST:
            longest = max(vectors, key=len)
            kept = np.sort(random.choice(len(longest), len(longest) // 2, replace=False))
            longest[:] = [longest[number] for number in kept]
        combined = list(product(*vectors))
        corners = max(int(np.prod([len(where) for where, _ in one])) for one in combined)
        at_place = np.full((len(combined), corners), -1, dtype=np.int64)
        sign = np.zeros((len(combined), corners), dtype=np.int8)
        for number, one in enumerate(combined):
            where, signs = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int8)
            for dimension, (codes, vector) in zip(dimensions, one, strict=True):
                where = (where[:, None] * len(dimension.codes) + np.array(codes)).ravel()
                signs = (signs[:, None] * np.array(vector, dtype=np.int8)).ravel()
            at_place[number, : len(where)], sign[number, : len(where)] = where, signs
        return at_place, sign, place

    def _pairs(self, free: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Pairs of siblings without parts of their own, and the block of each."""
        dimension = self.cells.dimensions[self.axis]
        parents = set(dimension.parent)
        random = np.random.default_rng(len(self.cells))
        pairs, blocks = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        number = 0
        for _, below in dimension.families:
            leaves = np.array([node for node in below.tolist() if node not in parents and free[node]], dtype=np.int64)
            if len(leaves) > FAMILY:
                leaves = random.permutation(leaves)
            for first in range(0, len(leaves), FAMILY):
                group = leaves[first : first + FAMILY]
                one, other = np.triu_indices(len(group), 1)
                pairs.append(np.stack([group[one], group[other]], axis=1))
                blocks.append(np.full(len(one), number))
                number += 1
        return np.concatenate(pairs), np.concatenate(blocks)

    def cubes(self, moving: Bools) -> Iterator[Cubes]:
        """The cubes whose corners can all move, some at a time: no more than stay in a processor's cache."""
        system, cells = self.system, self.cells
        sizes = [len(dimension.codes) for dimension in cells.dimensions]
        if np.prod([float(size) for size in sizes]) > PLACES or not moving.any():
            return
        at_place, sign_other, place = self._others()
        # A last column for corners that are none.
        variable = np.full((sizes[self.axis], int(np.prod(sizes)) // sizes[self.axis] + 1), -1, dtype=np.int32)
        variable[:, -1] = 0
        there = (system.variable >= 0) & moving[system.variable]
        variable[cells.nodes[there, self.axis], place[there]] = system.variable[there]
        several = np.bincount(system.variable[there], minlength=system.count) > 1
        marks = system.marks(len(cells))
        free = np.ones((len(variable), len(at_place)), dtype=bool)
        for corner in range(at_place.shape[1]):
            free &= variable[:, at_place[:, corner]] >= 0
        pairs, blocks = self._pairs(np.any(free, axis=1))
        for first in range(0, len(pairs), AT_ONCE):
            pair, block = pairs[first : first + AT_ONCE], blocks[first : first + AT_ONCE]
            which, other = np.nonzero(free[pair[:, 0]] & free[pair[:, 1]])
            corners = np.concatenate([variable[pair[which, side][:, None], at_place[other]] for side in (0, 1)], axis=1)
            sign = np.concatenate([sign_other[other], -sign_other[other]], axis=1)
            # Cells that move together are one variable, and one corner.
            some = np.flatnonzero(several[corners].any(axis=1))
            used = np.where(sign[some] != 0, corners[some], -1)
            order = np.argsort(used, axis=1, kind="stable")
            ordered = np.take_along_axis(used, order, axis=1)
            again = np.zeros(used.shape, dtype=bool)
            np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
            sign[some] = np.where(again, 0, sign[some])
            with np.errstate(over="ignore"):
                sound = (marks[corners] * sign).sum(axis=1) == 0
            if sound.any():
                yield Cubes(corners[sound], sign[sound], block[which[sound]])

    def prove(self, needs: Needs, hidden: Bools, up: Floats | float, proven: Proven, *, whole: bool, walk: bool = True) -> None:
        """What cubes and walks along them prove. Where walks led is kept among ``proven.walks``, single cubes are not: they are
        found again at once."""
        top = np.broadcast_to(up, self.system.count)
        pieces: list[Cubes] = []
        for piece in self.cubes(hidden):
            fall, rise = self.system.down[piece.corner], top[piece.corner]
            for sign in (piece.sign, -piece.sign):
                # Each cube by itself, as far as it goes.
                room = np.where(sign < 0, fall, np.where(sign > 0, rise, np.inf)).min(axis=1)
                room = np.floor(room + 1e-9) if whole else np.minimum(room, 1e9)
                use = room > 0
                at = sign[use] != 0
                moves = Moves(
                    np.concatenate([[0], np.cumsum(at.sum(axis=1))]),
                    piece.corner[use][at].astype(np.int64),
                    (sign[use] * room[use][:, None])[at],
                )
                proven.learn(moves, needs, hidden)
            if walk:
                pieces.append(piece)
        if pieces and proven.open(needs, hidden).any():
            self._walk(Cubes.joined(pieces), needs, hidden, top, proven, whole)

    def _walk(self, cubes: Cubes, needs: Needs, hidden: Bools, top: Floats, proven: Proven, whole: bool) -> None:
        """Climb along random cubes of every block towards tables in which the cells that are open lie far away."""
        random = np.random.default_rng(1)
        _, first, size = np.unique(cubes.block, return_index=True, return_counts=True)
        block = np.full(len(hidden), -1, dtype=np.int64)
        used = cubes.sign != 0
        block[cubes.corner[used]] = np.broadcast_to(cubes.block[:, None], used.shape)[used]
        order = np.argsort(block, kind="stable")
        order = order[block[order] >= 0]
        down = self.system.down
        for _ in range(WALKS):
            target = proven.open(needs, hidden)
            weight = np.where(target, random.choice([-1.0, 1.0, 1.0], len(hidden)) * random.uniform(0.5, 1.0, len(hidden)), 0.0)
            moved = np.zeros(len(hidden))
            for _ in range(STEPS):
                step = first + (random.random(len(first)) * size).astype(np.int64)
                corner, sign = cubes.corner[step], cubes.sign[step].astype(np.float64)
                sign *= np.where((weight[corner] * sign).sum(axis=1) >= 0, 1.0, -1.0)[:, None]
                now = moved[corner]
                room = np.where(sign < 0, down[corner] + now, np.where(sign > 0, top[corner] - now, np.inf)).min(axis=1)
                if whole:
                    room = np.floor(room + 1e-9)
                use = sign != 0
                moved[corner[use]] = (now + sign * room[:, None])[use]
            better = (moved < proven.low) | (moved > proven.high)
            np.minimum(proven.low, moved, out=proven.low)
            np.maximum(proven.high, moved, out=proven.high)
            # What moved in one block is a move by itself.
            worth = np.zeros(int(cubes.block[-1]) + 2, dtype=bool)
            worth[block[better & target]] = True
            at = order[(moved[order] != 0) & worth[block[order]]]
            if len(at):
                rows = block[at]
                start = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1], [True]]))
                proven.walks.append(Moves(start, at, moved[at]))
