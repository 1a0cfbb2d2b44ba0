"""The search for complementary cells among some variables, by linear programs.

Each unsafe cell is given a cheapest move that takes it far enough away from the truth; the cells that move with it are hidden
(the incremental linear-programming heuristic of Robertson 1993 and Kelly, Golden and Assad 1992, with the slope scaling of Kim
and Pardalos 1999 for the fixed cost of a cell). What is hidden without need is given back. Which variables are searched, of a
table that is too large for all of them, belongs to :mod:`.suppression`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dopa_pipelines.publishing.disclosure.attack import TINY, Attacker, Needs, Program
from dopa_pipelines.publishing.disclosure.system import System
from dopa_pipelines.publishing.disclosure.tables import Bools, Floats, Ints

SMALL = 300
"""Up to this many variables a table is done as one, several times over, and the cheapest result kept."""
STARTS = ((60, 8), (150, 3), (SMALL, 1))
"""Starts for up to so many variables. Nothing is decided by the clock: the same data must give the same bytes."""
TIGHTER = 3
"""Rounds in which bounds are tightened."""
FREE = 1e-5
"""What a cell costs that is hidden already: little, so that moves stay short."""


@dataclass
class Problem:
    """A system, its needs, what hiding a variable costs; ``forced`` ones are hidden at first, ``candidate`` may be."""

    system: System
    needs: Needs
    cost: Floats
    forced: Bools
    candidate: Bools
    whole: bool


class Search:
    """The search for complementary cells among some variables."""

    def __init__(
        self,
        problem: Problem,
        variables: Ints,
        hidden: Bools,
        candidate: Bools,
        seed: int = 1,
        *,
        patient: bool = True,
    ) -> None:
        self.variables = variables
        self.cost = problem.cost[variables]
        self.forced = problem.forced[variables]
        self.candidate = candidate
        self.whole = problem.whole
        self.random = np.random.default_rng(seed)
        self.attacker = Attacker(
            problem.system,
            variables,
            problem.needs.of(variables),
            hidden,
            whole=problem.whole,
            seed=seed,
            patient=patient,
        )
        self.needs = self.attacker.needs
        self._relations = start, index, coefficient = problem.system.part(variables)
        row = np.repeat(np.arange(len(start) - 1), np.diff(start))
        usable = hidden | candidate
        self._up = np.where(usable, self.attacker._up, 0.0)
        self._down = np.where(usable, self.attacker._down, 0.0)
        for _ in range(TIGHTER):
            self._tighten(row, index, coefficient)
        needs = self.needs
        # What cannot be done here is not asked for: it is left to a wider search, or to the audit to say.
        self.within: Bools = self._up + self._down >= needs.width - TINY
        self.within &= (self._up >= needs.above - TINY) & (self._down >= needs.below - TINY)
        needs.ask(self.within)

    @cached_property
    def _program(self) -> Program:
        """Moves up and moves down are columns of their own: each has its cost. With the relations that follow from others, too:
        they make a program dearer, but here it needs a third fewer steps."""
        count = len(self.variables)
        start, index, coefficient = self._relations
        lengths = np.diff(start)
        row = np.repeat(np.arange(len(lengths)), lengths)
        order = np.argsort(np.concatenate([row, row]), kind="stable")
        both = (
            np.concatenate([[0], np.cumsum(2 * lengths)]),
            np.concatenate([index, index + count])[order],
            np.concatenate([coefficient, -coefficient])[order],
        )
        return Program(both, np.zeros(2 * count), np.concatenate([self._up, self._down]))

    def _tighten(self, row: Ints, index: Ints, coefficient: Floats) -> None:
        """Nothing moves further than the others in each relation make up for: what cannot move far enough needs no program."""
        count, rising = int(row.max(initial=-1)) + 1, coefficient > 0
        up, down = self._up[index], self._down[index]
        # How far the rest of a relation can fall and rise, as the variable counts in it.
        fall, rise = np.where(rising, down, up), np.where(rising, up, down)
        falls = np.bincount(row, weights=fall, minlength=count)[row] - fall
        rises = np.bincount(row, weights=rise, minlength=count)[row] - rise
        np.minimum.at(self._up, index, np.where(rising, falls, rises))
        np.minimum.at(self._down, index, np.where(rising, rises, falls))

    @property
    def hidden(self) -> Bools:
        return self.attacker.hidden

    def spent(self) -> float:
        """Cost of the complementary cells."""
        return float(self.cost[self.hidden & ~self.forced].sum())

    def _prices(self, amount: float, noise: Floats | None) -> Floats:
        """Cost of a unit of movement, up and down: a cell's cost spread over what may flow through it."""
        price = np.where(self.hidden, FREE, self.cost)
        if noise is not None:
            price = price * noise
        up = price / max(amount, 1e-9)
        down = price / np.maximum(np.minimum(self._down, amount), 1e-9)
        down = np.where(self._down > 0, down, 0.0)
        scale = max(float(np.max(np.concatenate([up, down]), initial=0.0)), 1e-9)
        return np.concatenate([up, down]) * (100.0 / scale)

    def _shortest(self, at: int, amount: float, noise: Floats | None, frozen: Ints) -> Floats | None:
        """A cheap move that takes ``at`` by ``amount`` (signed), what is ``frozen`` staying."""
        count = len(self.variables)
        program = self._program
        own = np.array([at, at + count])
        stay = np.concatenate([frozen, frozen + count])
        low, high = max(amount, 0.0), max(-amount, 0.0)
        if high > self._down[at] + 1e-9 or low > self._up[at] + 1e-9:
            return None
        program.bound(stay, 0.0, 0.0)
        program.bound(own, np.array([low, high]), np.array([low, high]))
        prices = self._prices(abs(amount), noise)
        best, least = None, np.inf
        # Where nothing moves no price is too high (dual feasible): from there it is a few steps.
        program.restart()
        for _ in range(3):
            found = program.best(-prices)
            if found is None:
                break
            move = found[:count] - found[count:]
            used = (np.abs(move) > TINY) & ~self.hidden
            spent = float(self.cost[used].sum()) + FREE * float(np.count_nonzero(np.abs(move) > TINY))
            if spent >= least - 1e-12:
                break
            best, least = move, spent
            if not used.any():
                break
            # Slope scaling: what is used costs as much whether much or little flows through it.
            flow = np.where(used, np.abs(move) / abs(amount), 1.0)
            prices = prices / np.tile(np.clip(flow, 0.05, 20.0), 2)
        program.bound(own, 0.0, np.array([self._up[at], self._down[at]]))
        program.bound(stay, 0.0, np.concatenate([self._up[frozen], self._down[frozen]]))
        return best

    def _take(self, move: Floats) -> None:
        """Hide what moves, and keep the move and its opposite as proofs."""
        self.attacker.hide(np.flatnonzero((np.abs(move) > TINY) & ~self.hidden))
        self.attacker.learn(move)
        rising = move > TINY
        back = float(np.min(self._down[rising] / move[rising], initial=np.inf))
        falling = move < -TINY
        back = min(back, float(np.min(self._up[falling] / -move[falling], initial=np.inf)))
        if self.whole:
            back = np.floor(back + 1e-9)
        if back > 0:
            self.attacker.learn(-move * back)

    def protect(self, at: int, noise: Floats | None = None, turn: int = 0) -> bool:
        """Hide what it takes that ``at`` is wide enough."""
        attacker, needs = self.attacker, self.needs
        attacker.push(at)
        for attempt in range(8):
            if attempt and attacker.open()[at]:
                attacker.stretch(at)
            if not attacker.open()[at]:
                return True
            high, low, width = attacker.high[at], -attacker.low[at], needs.width[at]
            fall = low if attempt else max(low, min(self._down[at], width - 1 if self.whole else width / 2))
            ways = []
            if high < needs.above[at] - TINY or high + low < width - TINY:
                ways.append(max(needs.above[at], width - fall, high + (1.0 if self.whole else 0.0)))
            if low < needs.below[at] - TINY:
                ways.append(-needs.below[at])
            elif high + low < width - TINY and self._down[at] >= width - high - TINY:
                ways.append(-(width - high))
            moves = [move for way in ways if (move := self._shortest(at, way, noise, np.zeros(0, dtype=np.int64))) is not None]
            if not moves:
                return False
            if needs.above[at] or needs.below[at]:
                for move in moves:
                    self._take(move)
            else:
                spent = [float(self.cost[(np.abs(move) > TINY) & ~self.hidden].sum()) for move in moves]
                self._take(moves[int(np.argmin(spent))])
        return not attacker.open()[at]

    def run(self, noise: Floats | None = None) -> Ints:
        """Protect everything; what cannot be protected among these variables is told."""
        failed: set[int] = set()
        self.attacker.roam(hasty=True)
        for _ in range(6):
            waiting = np.array([at for at in np.flatnonzero(self.attacker.open()) if at not in failed], dtype=np.int64)
            if not len(waiting):
                break
            order = self.needs.width[waiting] + self.needs.above[waiting] + self.needs.below[waiting]
            shuffled = np.argsort(-order, kind="stable") if noise is None else self.random.permutation(len(waiting))
            for at in waiting[shuffled]:
                if not self.protect(int(at), noise):
                    failed.add(int(at))
        return np.array(sorted(failed), dtype=np.int64)

    def shield(self, *, quick: bool = False) -> bool:
        """Hide what it takes that no single contributor tells another's cell. False where that cannot be."""
        hopeless: set[tuple[int, int]] = set()
        stuck: set[int] = set()
        for _ in range(2 if quick else 6):
            pairs = [pair for pair in self.attacker.told(quick=quick) if pair not in hopeless]
            if not pairs:
                break
            for person, at in pairs:
                # In a neighbourhood a cell that one person blocks is left to a wider one.
                if (quick and at in stuck) or self.attacker.apart(person, at):
                    continue
                own = np.flatnonzero(self.needs.person == person)
                step = 1.0 if self.whole else float(self.needs.width[at] or 1.0) / 2
                moves = [move for sign in (step, -step) if (move := self._shortest(at, sign, None, own)) is not None]
                if not moves:
                    hopeless.add((person, at))
                    stuck.add(at)
                    continue
                spent = [float(self.cost[(np.abs(move) > TINY) & ~self.hidden].sum()) for move in moves]
                self._take(moves[int(np.argmin(spent))])
            self.run()
        return not hopeless

    def give_back(self) -> None:
        """Publish complementary cells again that are not needed, the dearest first."""
        attacker = self.attacker
        free = np.flatnonzero(self.hidden & ~self.forced)
        told = len(attacker.told())
        failing = set(attacker.settle().tolist())
        for at in free[np.argsort(-self.cost[free], kind="stable")]:
            if not self.hidden[at]:
                continue
            before = attacker.snapshot()
            attacker.publish(np.array([at]))
            while True:
                left = [int(one) for one in attacker.settle() if int(one) not in failing]
                useless = [one for one in left if not self.forced[one]]
                if not left or len(useless) < len(left):
                    break
                attacker.publish(np.array(useless))
            if left or len(attacker.told()) > told:
                attacker.restore(before)


def thorough(problem: Problem) -> tuple[Bools, list[int]]:
    """Several starts over the whole system; the cheapest pattern of those that leave the least unprotected."""
    variables = np.arange(problem.system.count)
    best: tuple[tuple[float, float], Bools, list[int]] | None = None
    starts = next((count for most, count in STARTS if len(variables) <= most), 1)
    for start in range(starts):
        search = Search(problem, variables, problem.forced, problem.candidate, seed=start + 1)
        noise = None if start == 0 else search.random.uniform(0.6, 1.6, len(variables))
        failed = search.run(noise).tolist()
        shielded = search.shield()
        search.give_back()
        score = (float(len(failed)) + (not shielded), search.spent())
        if best is None or score < best[0]:
            best = (score, search.hidden.copy(), failed)
        if not (search.hidden & ~problem.forced).any():
            break
    assert best is not None
    return best[1], best[2]
