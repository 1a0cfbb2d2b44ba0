"""The attacker: what can be told about hidden cells from everything that is published.

A hidden cell's interval is found by linear programming (Hundepool et al. 2012, ch. 4.3; Fischetti and Salazar-González 2000),
solved with HiGHS. Solutions are used again: every point found widens the intervals of all cells in it, so a program of their own
is needed only by cells whose interval is still too narrow. For counts only whole tables are proof: a point with a fraction is not
counted, and what linear programming leaves open is settled by integer programming.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cache

import highspy
import numpy as np

from dopa_pipelines.publishing.disclosure.system import System
from dopa_pipelines.publishing.disclosure.tables import Bools, Floats, Ints

TINY = 1e-6
"""Differences below this are the solver's."""
IDLE = 3
"""Programs in a row that prove nothing new before others are tried."""
HASTY, LITTLE = 1, 0.1
"""The same where programs for single variables follow, and the share of what is open that is as good as nothing."""
BESIDES = 0.1
"""Weight of all others that are open in a program for one variable: they are often proven with it. At most as much is given to
what came out with a fraction."""
PATIENCE = 5000
"""Nodes that one integer program may take; what is open then counts as disclosed."""

LENIENT = 1000
"""In parts of more variables a solution with fractions counts for one less than it says, instead of not at all."""


@cache
def _quiet() -> None:
    """The first solver of a process prints a notice to standard output whatever it is told: it belongs in no document."""
    sys.stdout.flush()
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        highspy.Highs()  # type: ignore[no-untyped-call]
        libc.fflush(None)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def solver_of(
    relations: tuple[Ints, Ints, Floats],
    lower: Floats,
    upper: Floats,
    row_lower: Floats | float = 0.0,
    row_upper: Floats | float = 0.0,
) -> highspy.Highs:
    """A silent HiGHS, on one thread, that maximises over lower ≤ y ≤ upper, row_lower ≤ A y ≤ row_upper."""
    _quiet()
    start, index, coefficient = relations
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(lower), len(start) - 1
    model.col_cost_ = np.zeros(len(lower))
    model.col_lower_, model.col_upper_ = lower, upper
    model.row_lower_ = np.broadcast_to(row_lower, len(start) - 1).astype(np.float64)
    model.row_upper_ = np.broadcast_to(row_upper, len(start) - 1).astype(np.float64)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_, model.a_matrix_.index_, model.a_matrix_.value_ = start, index, coefficient
    model.sense_ = highspy.ObjSense.kMaximize
    solver.passModel(model)
    return solver


class Program:
    """Moves y of some variables with A y = 0 and bounds, and the best of them for a given objective."""

    def __init__(self, relations: tuple[Ints, Ints, Floats], lower: Floats, upper: Floats, *, primal: bool = False) -> None:
        """``primal``: mostly the objective changes from one program to the next, not the bounds."""
        self.count = len(lower)
        self.lower, self.upper = lower.copy(), upper.copy()
        self._all = np.arange(self.count, dtype=np.int32)
        self._objective = np.zeros(self.count)
        self._relations = relations
        self._solver = solver_of(relations, self.lower, self.upper)
        self._solver.setOptionValue("presolve", "off")
        # These programs are small: perturbing them against stalling costs more than it saves.
        self._solver.setOptionValue("dual_simplex_cost_perturbation_multiplier", 0.0)
        self._solver.setOptionValue("primal_simplex_bound_perturbation_multiplier", 0.0)
        if primal:
            self._solver.setOptionValue("simplex_strategy", 4)

    def bound(self, which: Ints, lower: Floats | float, upper: Floats | float) -> None:
        """New bounds of some variables."""
        if not len(which):
            return
        self.lower[which], self.upper[which] = lower, upper
        self._solver.changeColsBounds(len(which), which.astype(np.int32), self.lower[which], self.upper[which])

    def restart(self) -> None:
        """Begin the next program where nothing moves, not where the last one ended."""
        self._solver.clearSolver()

    def best(self, objective: Floats) -> Floats | None:
        """The move with the greatest ``objective`` @ y; None where there is none."""
        solver = self._solver
        changed = self._all[objective != self._objective]
        self._objective = objective.copy()
        solver.changeColsCost(len(changed), changed, objective[changed])
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            solver.clearSolver()
            solver.run()
            if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
                return None
        return np.array(solver.getSolution().col_value)

    def best_whole(self, objective: Floats) -> tuple[Floats | None, bool]:
        """The same over whole numbers; false where the time did not suffice to know that it is the best."""
        solver = solver_of(self._relations, self.lower, self.upper)
        solver.setOptionValue("mip_max_nodes", PATIENCE)
        solver.changeColsIntegrality(
            self.count, self._all, np.full(self.count, highspy.HighsVarType.kInteger.value, dtype=np.uint8)
        )
        solver.changeColsCost(self.count, self._all, objective)
        solver.run()
        done = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
        if not done and solver.getInfo().primal_solution_status != 2:
            return None, done
        return np.round(np.array(solver.getSolution().col_value)), done


@dataclass
class Needs:
    """What an interval must keep, by variable: see :class:`.rules.Sensitivity`. ``person``: whose variable it is (a single
    contributor's), -1 for nobody's. ``secret``: others' unsafe cells, which a single contributor must not tell exactly."""

    width: Floats
    above: Floats
    below: Floats
    person: Ints
    secret: Bools
    _least: tuple[Floats, ...] | None = field(default=None, init=False, repr=False)
    _sides: bool = field(default=True, init=False, repr=False)

    def of(self, variables: Ints) -> Needs:
        return Needs(
            self.width[variables], self.above[variables], self.below[variables], self.person[variables], self.secret[variables]
        )

    @property
    def reach(self) -> float:
        """How far cells that nothing bounds are let rise: far enough for every need."""
        return max(20.0, 4 * float(max(self.width.max(initial=0), self.above.max(initial=0), self.below.max(initial=0))))

    def met(self, low: Floats, high: Floats) -> Bools:
        """Where movements are wide enough."""
        if self._least is None:
            # Asked thousands of times between changes.
            self._least = tuple(need - 1e-6 * (1 + need) for need in (self.width, self.above, self.below))
            self._sides = bool(self.above.any() or self.below.any())
        width, above, below = self._least
        found: Bools = high - low >= width
        return found & (high >= above) & (-low >= below) if self._sides else found

    def ask(self, which: Bools, secret: Bools | None = None) -> None:
        """Drop the needs of the others, and what single contributors must not tell of those that are not ``secret``."""
        for array in (self.width, self.above, self.below):
            array[~which] = 0
        self._least = None
        self.secret[~(which if secret is None else secret)] = False


class Attacker:
    """Attacks some variables of which the ``hidden`` ones are unknown to him; the others stay as published.

    ``low`` and ``high`` are the proven movements of each variable around the truth. Cells may be hidden and published after
    it was
    made; what was proven and still holds is kept.
    """

    def __init__(
        self,
        system: System,
        variables: Ints,
        needs: Needs,
        hidden: Bools,
        *,
        whole: bool,
        up: Floats | None = None,
        seed: int = 1,
        patient: bool = True,
    ) -> None:
        self.variables, self.needs, self.whole = variables, needs, whole
        self.hidden = hidden.copy()
        self.patient = patient
        self.lenient = len(variables) > LENIENT
        self.random = np.random.default_rng(seed)
        self._down = system.down[variables]
        self._up = np.full(len(variables), needs.reach) if up is None else up[variables]
        # Cells that may fall far need not for a proof, but what they free may.
        lower, upper = self._bounds(hidden)
        self.relations = system.part(variables, implied=False)
        self.program = Program(self.relations, lower, upper, primal=True)
        self._points = np.zeros((8, len(variables)), dtype=np.float64)
        self._held = 0
        self.low = np.zeros(len(variables))
        self.high = np.zeros(len(variables))
        self.safe = np.zeros(len(variables), dtype=bool)
        self.pending: Mapping[int, Set[int]] = {}
        self.unsettled = np.zeros(len(variables), dtype=bool)

    def _bounds(self, hidden: Bools) -> tuple[Floats, Floats]:
        return np.where(hidden, -self._down, 0.0), np.where(hidden, self._up, 0.0)

    def take(self, low: Floats, high: Floats, safe: Bools, pending: Mapping[int, Set[int]]) -> None:
        """What is proven already: see :class:`.proof.Proven`."""
        self.low, self.high, self.safe, self.pending = low, high, safe, pending

    @property
    def points(self) -> Floats:
        """Moves that leave what is published as it is, a row each."""
        return self._points[: self._held]

    def hide(self, which: Ints) -> None:
        self.hidden[which] = True
        self.program.bound(which, -self._down[which], self._up[which])

    def publish(self, which: Ints) -> None:
        """Take back what was hidden, and the proofs that rest on it."""
        self.hidden[which] = False
        self.program.bound(which, 0.0, 0.0)
        moved: Bools = np.any(np.abs(self.points[:, which]) > TINY, axis=1)
        self._keep(~moved)

    def _keep(self, kept: Bools) -> None:
        points = self.points[kept]
        self._held = len(points)
        self._points[: self._held] = points
        if self.whole and self.lenient:
            fraction = np.abs(points - np.round(points)).max(axis=1, initial=0.0) > 1e-5
            sure = np.sign(points) * np.floor(np.maximum(np.abs(points) - 1, 0) + TINY)
            points = np.where(fraction[:, None], sure, points)
        self.low = points.min(axis=0, initial=0.0)
        self.high = points.max(axis=0, initial=0.0)

    def snapshot(self) -> tuple[Floats, Bools]:
        return self.points.copy(), self.hidden.copy()

    def restore(self, state: tuple[Floats, Bools]) -> None:
        points, hidden = state
        changed = np.flatnonzero(hidden != self.hidden)
        self.hidden = hidden.copy()
        lower, upper = self._bounds(hidden)
        self.program.bound(changed, lower[changed], upper[changed])
        if len(points) > len(self._points):
            self._points = np.zeros((2 * len(points), len(hidden)))
        self._points[: len(points)] = points
        self._held = len(points)
        self._keep(np.ones(len(points), dtype=bool))

    def learn(self, move: Floats) -> bool:
        """Take a move as proof. False where it is none: a count with a fraction."""
        if self.whole:
            rounded = np.round(move)
            if np.abs(move - rounded).max(initial=0.0) > 1e-5:
                if self.lenient:
                    # One less than the fraction says, on each side: wide by a margin of one is wide enough.
                    sure = np.sign(move) * np.floor(np.maximum(np.abs(move) - 1, 0) + TINY)
                    self.low, self.high = np.minimum(self.low, sure), np.maximum(self.high, sure)
                    self._hold(np.where(np.abs(move) < TINY, 0.0, move))
                return False
            move = rounded
        else:
            move = np.where(np.abs(move) < TINY, 0.0, move)
        self._hold(move)
        self.low = np.minimum(self.low, move)
        self.high = np.maximum(self.high, move)
        return True

    def _find(self, objective: Floats) -> bool:
        """Take the best move for an objective as proof; false where there is none. One with fractions proves nothing of counts:
        the next, with random weights where they are, is mostly whole, and few steps away."""
        move = self.program.best(objective)
        if move is not None and not self.learn(move) and not self.lenient:
            fraction = np.abs(move - np.round(move)) > 1e-5
            move = self.program.best(objective + fraction * self.random.uniform(-BESIDES, BESIDES, len(move)))
            if move is not None:
                self.learn(move)
        return move is not None

    def _hold(self, move: Floats) -> None:
        if self._held == len(self._points):
            self._points = np.concatenate([self._points, np.zeros_like(self._points)])
        self._points[self._held] = move
        self._held += 1

    def open(self) -> Bools:
        """Hidden variables whose interval is not yet proven wide enough."""
        return self.hidden & ~self.needs.met(self.low, self.high)

    def settle(self, rounds: int = 40, *, quick: bool = False) -> Ints:
        """Prove what can be proven; the variables that stay too narrow are told. ``quick``: without programs of their own."""
        self.roam(rounds)
        if quick:
            return np.flatnonzero(self.open())
        failed = []
        for at in np.flatnonzero(self.open()):
            if self.open()[at] and not self.stretch(int(at)):
                failed.append(int(at))
        return np.array(failed, dtype=np.int64)

    def roam(self, rounds: int = 40, *, hasty: bool = False) -> None:
        """Programs with random objectives over what is open, while they help; ``hasty``: while they help much."""
        patience, little = (HASTY, LITTLE) if hasty else (IDLE, 0.0)
        idle, target = 0, self.open()
        for _ in range(rounds):
            before = int(target.sum())
            if before < 3:
                return
            if not self._find(self._objective(target)):
                return
            target = self.open()
            idle = idle + 1 if int(target.sum()) >= (1 - little) * before else 0
            if idle > patience:
                return

    def _objective(self, target: Bools) -> Floats:
        """Random weights of the ``target``: up more often than down, and never down where nothing is left to prove."""
        at = np.flatnonzero(target)
        left = self.low[at] > -np.minimum(self._down[at], self.needs.width[at]) + TINY
        objective = np.zeros(len(self.variables))
        down = left & (self.random.random(len(at)) < 1 / 3)
        objective[at] = np.where(down, -1.0, 1.0) * self.random.uniform(0.2, 1.0, len(at))
        return objective

    def push(self, at: int) -> None:
        """A program for one variable, each way that can help, fractions left aside."""
        for sign in (1.0, -1.0):
            target = self.open()
            if not target[at] or (sign < 0 and self.high[at] + self._down[at] < self.needs.width[at] - TINY):
                return
            objective = BESIDES * self._objective(target)
            objective[at] = sign
            self._find(objective)

    def stretch(self, at: int) -> bool:
        """Programs for one variable, both ways; whole-number ones where fractions leave it open."""
        needs = self.needs
        reached = {}
        for sign in (1.0, -1.0):
            if not self.open()[at]:
                return True
            objective = np.zeros(len(self.variables))
            objective[at] = sign
            move = self.program.best(objective)
            if move is None:
                return False
            reached[sign] = abs(float(move[at]))
            self.learn(move)
        if not self.open()[at]:
            return True
        top, bottom = reached.get(1.0, self.high[at]), reached.get(-1.0, -self.low[at])
        if self.whole:
            top, bottom = np.floor(top + 1e-6), np.floor(bottom + 1e-6)
        if top + bottom < needs.width[at] - 1e-6 or top < needs.above[at] - 1e-6 or bottom < needs.below[at] - 1e-6:
            return False
        if not self.whole or not self.patient:
            return False
        for sign in (1.0, -1.0):
            objective = np.zeros(len(self.variables))
            objective[at] = sign
            move, known = self.program.best_whole(objective)
            if move is not None:
                self.learn(move)
            elif not known:
                self.unsettled[at] = True
            if not self.open()[at]:
                return True
        return False

    # The single contributor: he knows the cells that only he is in.

    def told(self, *, quick: bool = False) -> list[tuple[int, int]]:
        """Pairs (person, variable): an unsafe cell that this single contributor can tell exactly; ``quick``: may be able
        to tell, which programs of their own would settle. ``pending`` names the persons that still matter to a cell. Cells that
        anybody can tell, or tell too nearly, are not asked about: they have failed already."""
        persons = self.needs.person
        secret = np.flatnonzero(self.hidden & self.needs.secret & ~self.safe & ~self.open())
        # Who may tell a cell and is not here is left out by every move here: one that takes the cell is wanted all the same.
        elsewhere = [who for one in secret.tolist() for who in self.pending.get(one, ())]
        known = np.union1d(persons[self.hidden & (persons >= 0)], np.array(elsewhere, dtype=np.int64))
        if not len(secret) or not len(known):
            return []
        unseen = self._unseen(known, secret)
        idle = 0
        for turn in range(80):
            waiting = unseen.any(axis=0)
            if np.count_nonzero(unseen.any(axis=1)) < 2 or idle > 3:
                break
            # What moves while all of them stay is safe from all of them. Who is alone in an unsafe cell has to move with it:
            # there, half of them stay.
            everybody = turn < 20 and bool((persons[secret[waiting]] < 0).any()) and not (turn and idle)
            stays = known if everybody else known[self.random.random(len(known)) < 0.5]
            own = np.flatnonzero(self.hidden & np.isin(persons, stays))
            self.program.bound(own, 0.0, 0.0)
            wanted = secret[waiting]
            objective = np.zeros(len(self.variables))
            objective[wanted] = self.random.choice([-1.0, 1.0, 1.0], len(wanted)) * self.random.uniform(0.5, 1.0, len(wanted))
            move = self.program.best(objective)
            self.program.bound(own, -self._down[own], self._up[own])
            if move is None:
                break
            before = int(np.count_nonzero(unseen))
            if self.learn(move) or self.lenient:
                self._see(unseen, known, secret, move)
            idle = idle + 1 if np.count_nonzero(unseen) > 0.98 * before else 0
        if quick:
            return [(int(known[number]), int(secret[at])) for number, at in np.argwhere(unseen)]
        found: list[tuple[int, int]] = []
        for column, one in enumerate(secret):
            # Few of many block a cell: halves of them are tried, then quarters.
            groups = [np.flatnonzero(unseen[:, column])]
            while groups:
                group = groups.pop()
                group = group[unseen[group, column]]
                if not len(group):
                    continue
                move = self._without(known[group], int(one))
                if move is not None:
                    self._see(unseen, known, secret, move)
                elif len(group) == 1:
                    found.append((int(known[group[0]]), int(one)))
                else:
                    groups += [group[: len(group) // 2], group[len(group) // 2 :]]
        return found

    def _unseen(self, known: Ints, secret: Ints) -> Bools:
        """Persons × cells: no known move takes the cell and leaves what is the person's."""
        persons = self.needs.person
        moves = np.abs(self.points) > TINY
        number = np.full(len(persons), -1, dtype=np.int64)
        mine = self.hidden & (persons >= 0)
        number[mine] = np.searchsorted(known, persons[mine])
        touched = np.zeros((len(moves), len(known)), dtype=bool)
        row, at = np.nonzero(moves[:, mine])
        touched[row, number[mine][at]] = True
        # By products of real numbers, which are many times faster than those of truth values.
        free = (~touched).T.astype(np.float32) @ self._sure(self.points)[:, secret].astype(np.float32)
        unseen: Bools = (free < 0.5) & (persons[secret][None, :] != known[:, None])
        for column, one in enumerate(secret):
            if (pending := self.pending.get(int(one))) is not None:
                unseen[:, column] &= np.isin(known, list(pending))
        return unseen

    def _sure(self, moves: Floats) -> Bools:
        """What is sure to move with each of some moves: with one that is held although it has fractions, only what moves by two
        or more."""
        moving: Bools = np.abs(moves) > TINY
        if self.whole and self.lenient:
            fraction = np.abs(moves - np.round(moves)).max(axis=1, initial=0.0) > 1e-5
            moving &= ~fraction[:, None] | (np.abs(moves) >= 2 - TINY)
        return moving

    def _see(self, unseen: Bools, known: Ints, secret: Ints, move: Floats) -> None:
        """Who is not in a move cannot tell what is sure to move in it."""
        touched = np.isin(known, self.needs.person[(np.abs(move) > TINY) & self.hidden])
        unseen[np.ix_(~touched, self._sure(move[None, :])[0, secret])] = False

    def apart(self, person: int, at: int) -> bool:
        """Whether a known move takes ``at`` and leaves the person's own cells."""
        own = np.flatnonzero(self.hidden & (self.needs.person == person))
        moving = self._sure(self.points)[:, at]
        return bool((moving & ~(np.abs(self.points[:, own]) > TINY).any(axis=1)).any())

    def _without(self, persons: Ints, at: int) -> Floats | None:
        """A move of ``at`` that leaves the cells of these persons; None where there is none."""
        own = np.flatnonzero(self.hidden & np.isin(self.needs.person, persons))
        self.program.bound(own, 0.0, 0.0)
        objective = np.zeros(len(self.variables))
        try:
            for sign in (1.0, -1.0):
                objective[at] = sign
                move = self.program.best(objective)
                if move is None or abs(move[at]) < TINY:
                    continue
                if self.learn(move):
                    return move
                whole = self.program.best_whole(objective)[0] if self.patient and len(persons) == 1 else None
                if whole is not None and abs(whole[at]) > TINY:
                    self.learn(whole)
                    return whole
            return None
        finally:
            self.program.bound(own, -self._down[own], self._up[own])

    def interval(self, at: int) -> tuple[float, float]:
        """The least and the greatest movement of a variable, exactly (for counts: over whole tables as far as fractions leave it
        open); infinite where nothing holds it."""
        ends = []
        for sign in (-1.0, 1.0):
            objective = np.zeros(len(self.variables))
            objective[at] = sign
            move = self.program.best(objective)
            if move is None:
                ends.append(0.0)
                continue
            end = float(move[at])
            if self.whole:
                if self.learn(move):
                    end = round(end)
                else:
                    whole, known = self.program.best_whole(objective)
                    end = float(whole[at]) if whole is not None and known else float(np.trunc(end + np.sign(end) * 1e-6))
            ends.append(end)
        return ends[0], ends[1]
