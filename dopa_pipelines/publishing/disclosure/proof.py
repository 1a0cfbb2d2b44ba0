"""Proofs that hidden cells cannot be told: moves that leave what is published as it is, and what they show of each variable.

A move that was found once proves the same to everybody who checks it, so suppression, repair and audit hand them on. What belongs
here: moves, checking them, what follows from them. What does not: finding them (:mod:`.cubes`, :mod:`.attack`).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from dopa_pipelines.publishing.disclosure.attack import TINY, Needs
from dopa_pipelines.publishing.disclosure.system import System, ranges
from dopa_pipelines.publishing.disclosure.tables import Bools, Floats, Ints


@dataclass
class Moves:
    """Moves as a sparse matrix by rows: move ``i`` takes ``index[start[i]:start[i + 1]]`` by ``value``, all others stay."""

    start: Ints
    index: Ints
    value: Floats

    def __len__(self) -> int:
        return len(self.start) - 1

    @staticmethod
    def none() -> Moves:
        return Moves(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))

    @staticmethod
    def of(points: Floats, variables: Ints) -> Moves:
        """Rows of a dense matrix over ``variables``."""
        row, at = np.nonzero(np.abs(points) > TINY)
        return Moves(np.searchsorted(row, np.arange(len(points) + 1)), variables[at], points[row, at])

    @staticmethod
    def joined(parts: Sequence[Moves]) -> Moves:
        parts = [part for part in parts if len(part)]
        if not parts:
            return Moves.none()
        lengths = np.concatenate([np.diff(part.start) for part in parts])
        return Moves(
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate([part.index for part in parts]),
            np.concatenate([part.value for part in parts]),
        )

    @property
    def rows(self) -> Ints:
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def only(self, which: Bools) -> Moves:
        kept = which[self.rows]
        lengths = np.diff(self.start)[which]
        return Moves(np.concatenate([[0], np.cumsum(lengths)]), self.index[kept], self.value[kept])

    def renamed(self, names: Ints) -> Moves:
        """Over other variables: ``names`` of those of now, -1 for what cannot move, which drops the move. Some may be one."""
        index = names[self.index]
        kept = np.bincount(self.rows[index < 0], minlength=len(self)) == 0
        left = Moves(self.start, index, self.value).only(kept)
        shared = np.flatnonzero((np.bincount(names[names >= 0]) > 1)[left.index])
        if not len(shared):
            return left
        rows, once = left.rows, np.ones(len(left.index), dtype=bool)
        _, first = np.unique(rows[shared] * np.int64(names.max() + 1) + left.index[shared], return_index=True)
        once[np.delete(shared, first)] = False
        return Moves(np.searchsorted(rows[once], np.arange(len(left) + 1)), left.index[once], left.value[once])

    def sound(self, system: System, hidden: Bools, up: Floats | float, seed: int = 1) -> Moves:
        """Those whole-number moves of ``hidden`` variables that every relation and bound of the system allows.

        The relations are weighted with random numbers of 64 bits and summed: a sum that is not zero in one of them does not
        vanish (Freivalds 1977).
        """
        rounded = np.round(self.value)
        top = np.broadcast_to(up, system.count)[self.index]
        wrong = (
            (np.abs(self.value - rounded) > 1e-5)
            | ~hidden[self.index]
            | (rounded < -system.down[self.index] - 1e-6)
            | (rounded > top + 1e-6)
        )
        mark = system.marks(seed)
        with np.errstate(over="ignore"):
            summed = np.concatenate([[0], np.cumsum(mark[self.index] * rounded.astype(np.int64))])
            sums = summed[self.start[1:]] - summed[self.start[:-1]]
        kept = (sums == 0) & (np.bincount(self.rows[wrong], minlength=len(self)) == 0)
        return Moves(self.start, self.index, rounded).only(kept)


@dataclass
class Proven:
    """What is proven of each variable of a system; it holds for as long as hidden ones stay hidden.

    ``low`` and ``high``: movement. ``safe``: what no single contributor can tell. ``pending``: of others, the single contributors
    that may still tell them; missing where nothing is known of them. ``moves``: what it rests on, as far as it may be handed on;
    ``walks``: moves with so many variables that they leave nobody's cells out.
    """

    low: Floats
    high: Floats
    safe: Bools
    pending: dict[int, Set[int]]
    moves: list[Moves] = field(default_factory=list)
    walks: list[Moves] = field(default_factory=list)

    @staticmethod
    def nothing(count: int) -> Proven:
        return Proven(np.zeros(count), np.zeros(count), np.zeros(count, dtype=bool), {})

    def of(self, variables: Ints) -> Proven:
        """What is proven of some, by their position."""
        pending = {at: self.pending[far] for at, far in enumerate(variables.tolist()) if far in self.pending}
        return Proven(self.low[variables], self.high[variables], self.safe[variables], pending)

    def open(self, needs: Needs, hidden: Bools) -> Bools:
        """Hidden variables whose movement is not yet proven wide enough."""
        return hidden & ~needs.met(self.low, self.high)

    def unsure(self, needs: Needs, hidden: Bools) -> Bools:
        """Unsafe ones that some single contributor may tell, as far as is known."""
        return hidden & needs.secret & ~self.safe

    def learn(self, moves: Moves, needs: Needs, hidden: Bools, *, persons: bool = True) -> None:
        """Take moves that are sound as proofs; ``persons``: also of what single contributors cannot tell."""
        if not len(moves):
            return
        np.minimum.at(self.low, moves.index, moves.value)
        np.maximum.at(self.high, moves.index, moves.value)
        if not persons:
            return
        rows, who_moves = moves.rows, needs.person[moves.index]
        asked = self.unsure(needs, hidden)[moves.index]
        cell, of = moves.index[asked], rows[asked]
        # Who is in all moves of a cell may tell it; anybody else cannot.
        there = who_moves >= 0
        pair = np.sort(rows[there] * np.int64(len(hidden)) + who_moves[there], kind="stable")
        pair = pair[np.concatenate([np.ones(1, dtype=bool), pair[1:] != pair[:-1]])[: len(pair)]]
        at, who = pair // len(hidden), pair % len(hidden)
        start = np.searchsorted(at, np.arange(len(moves) + 1))
        lengths = start[of + 1] - start[of]
        blocked = np.repeat(cell, lengths) * np.int64(len(hidden)) + who[ranges(start[of], start[of + 1])]
        seen, times = np.unique(blocked, return_counts=True)
        count = np.bincount(cell, minlength=len(hidden))
        always = seen[times == count[seen // len(hidden)]]
        doubtful: dict[int, set[int]] = {}
        for one, person in zip((always // len(hidden)).tolist(), (always % len(hidden)).tolist(), strict=True):
            if person != needs.person[one]:
                doubtful.setdefault(one, set()).add(person)
        self.safe[count > 0] = True
        for one, who in doubtful.items():
            if left := who & self.pending.get(one, who):
                self.safe[one], self.pending[one] = False, left
        self.pending = {one: who for one, who in self.pending.items() if not self.safe[one]}
