"""Complementary suppression: which further cells stay hidden so that the unsafe ones cannot be told.

Small tables are searched as one (:mod:`.search`). Large ones begin with what every single sum needs, then their subtables are
searched one by one (as in HiTaS: de Wolf 2002, but subtotals stay published as long as they can), then slices of the branches
above them, and at last they are attacked as a whole and repaired where that finds a leak.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from dopa_pipelines.publishing.disclosure.proof import Moves, Proven
from dopa_pipelines.publishing.disclosure.search import SMALL, Problem, Search, thorough
from dopa_pipelines.publishing.disclosure.sweep import Parts, Places, sweep
from dopa_pipelines.publishing.disclosure.system import ranges
from dopa_pipelines.publishing.disclosure.tables import Bools, Ints
from dopa_pipelines.publishing.disclosure.workers import ALONE, Workers


def fill_lines(problem: Problem, hidden: Bools) -> Bools:
    """Hide until every single relation leaves its unsafe cells room: what each must have whatever the others do.

    All relations at once, a cell a deficient relation a round: the one that is cheapest for the number of deficient
    relations that it helps. Necessary, not sufficient: the attack that follows finds what is still too narrow.
    """
    system, needs = problem.system, problem.needs
    hidden = hidden.copy()
    width = np.maximum(needs.width, needs.above + needs.below)
    asked = np.arange(len(system.start) - 1)
    while True:
        # What nothing was chosen for has room, or will never have it.
        rows, lengths = len(asked), system.start[asked + 1] - system.start[asked]
        entries = ranges(system.start[asked], system.start[asked + 1])
        row, index, parent = np.repeat(np.arange(rows), lengths), system.index[entries], system.coefficient[entries] < 0
        down = np.minimum(system.down[index], 1e12)
        person, secret = needs.person[index], needs.secret[index]
        shown = hidden[index]
        wanted = np.where(shown, width[index], 0.0)
        lacking = np.zeros(rows)
        for side in (parent, ~parent):
            mine = shown & side
            other = np.bincount(row[shown & ~side], minlength=rows) > 0
            count = np.bincount(row[mine], minlength=rows)
            room = np.bincount(row[mine], weights=down[mine], minlength=rows)
            most = np.zeros(rows)
            np.maximum.at(most, row[mine], wanted[mine])
            short = np.where(count == 1, most, most - room)
            lacking = np.where((count > 0) & ~other, np.maximum(lacking, short), lacking)
        # Two hidden cells in a relation: the only person in one tells the other.
        shown_count = np.bincount(row[shown], minlength=rows)
        alone = np.bincount(row[shown & (person >= 0)], minlength=rows)
        others = np.bincount(row[shown & secret], minlength=rows)
        one, last = np.full(rows, np.iinfo(np.int64).max), np.full(rows, -2)
        np.minimum.at(one, row[shown], person[shown])
        np.maximum.at(last, row[shown], person[shown])
        told = (shown_count == 2) & (alone > 0) & (others > 0) & (one != last)
        lacking = np.where(told, np.maximum(lacking, 1.0), lacking)
        deficient = lacking > 1e-9
        usable = ~shown & problem.candidate[index] & deficient[row]
        if not usable.any():
            return hidden
        helped = np.bincount(index[deficient[row]], minlength=system.count)
        # A parent gives all the room there is; a child only what it can fall, and the row needs more of them.
        enough = np.where(parent, 1.0, np.clip(down / np.maximum(lacking[row], 1e-9), 0.05, 1.0))
        score = np.where(usable, (problem.cost[index] + 1e-3) / (np.maximum(helped[index], 1) * enough), np.inf)
        order = np.lexsort((index, score, row))
        first = order[np.unique(row[order], return_index=True)[1]]
        chosen = index[first[np.isfinite(score[first])]]
        hidden[chosen] = True
        asked = system.rows_of(chosen)


def suppress(problem: Problem, parts: Parts, workers: Workers = ALONE) -> tuple[Bools, Moves, Moves]:
    """The variables to hide, and moves that prove it: first those that are short enough to tell of single contributors. What
    cannot be protected is left to the audit to say."""
    if problem.system.count <= SMALL:
        hidden = thorough(problem)[0] if problem.forced.any() else problem.forced.copy()
        return hidden, Moves.none(), Moves.none()
    needs, system = problem.needs, problem.system
    hidden = fill_lines(problem, problem.forced)
    proven = Proven.nothing(system.count)
    # Where the dimension has levels, walks take longer than the programs that they save.
    parts.grid.prove(needs, hidden, needs.reach, proven, whole=problem.whole, walk=parts.long)
    _each(_block, [(one,) for one in parts.blocks()], problem, hidden, proven, workers)
    if problem.whole:
        for turn in range(TURNS):
            _each(_branch, [(one, parts.places(one), turn) for one in parts.branches()], problem, hidden, proven, workers)
    hidden = _repair(problem, parts, hidden, proven, workers)
    return hidden, Moves.joined(proven.moves), Moves.joined(proven.walks)


def _each(work: Any, tasks: list[tuple[Any, ...]], problem: Problem, hidden: Bools, proven: Proven, workers: Workers) -> None:
    """Protect every part in which something waits; what is in none of them stays as it is, so that they do not disturb each
    other."""
    waiting = proven.open(problem.needs, hidden) | proven.unsure(problem.needs, hidden)
    asked = [(one, hidden[one], proven.of(one), *more) for one, *more in tasks if waiting[one].any()]
    done = workers.run(work, problem, asked)
    for (variables, *_), (found, _) in zip(asked, done, strict=True):
        hidden[variables[found]] = True
    _hand_on([moves for _, moves in done], problem, hidden, proven)


def _block(problem: Problem, task: tuple[Ints, Bools, Proven]) -> tuple[Bools, Moves]:
    """One subtable, whole."""
    variables, hidden, proven = task
    search = Search(problem, variables, hidden, problem.candidate[variables], patient=False)
    search.attacker.take(proven.low, proven.high, proven.safe, proven.pending)
    search.run()
    search.shield(quick=True)
    return search.hidden, Moves.of(search.attacker.points, variables)


def _branch(problem: Problem, task: tuple[Ints, Bools, Proven, Places, int]) -> tuple[Bools, Moves]:
    """What is still too narrow in one branch, subtotals too: each in a slice of the branch that leaves the rest as it is."""
    variables, hidden, proven, places, turn = task
    needs = problem.needs.of(variables)
    hidden = hidden.copy()
    narrow, unsure = proven.open(needs, hidden), proven.unsure(needs, hidden)
    random = np.random.default_rng(turn + 1)
    moves = []
    for at in np.flatnonzero(narrow | unsure):
        if not (narrow[at] or unsure[at]):
            continue
        near = places.slice(int(at), problem.cost[variables], turn, random)
        here = {far: number for number, far in enumerate(near.tolist())}
        pending = {here[far]: who for far, who in proven.pending.items() if far in here and unsure[far]}
        hidden[near], narrow[near], left, made = _mend(
            problem, variables[near], hidden[near], narrow[near], unsure[near], pending, seed=turn + 1
        )
        for one in np.flatnonzero(unsure[near] & ~narrow[near]).tolist():
            proven.pending[int(near[one])] = left.get(one, set())
            unsure[near[one]] = one in left
        moves.append(made)
    return hidden, Moves.joined(moves)


TURNS = 3
"""Slices that are tried around what is too narrow in a branch."""


def _hand_on(found: list[Moves], problem: Problem, hidden: Bools, proven: Proven) -> None:
    """Take moves of parts as proofs, as far as they leave everything else as it is."""
    if problem.whole:
        moves = Moves.joined(found).sound(problem.system, hidden, np.inf)
        proven.learn(moves, problem.needs, hidden)
        proven.moves.append(moves)


ROUNDS = 8
NEAR = 400
"""Variables of a neighbourhood in which a leak is mended at first; it grows with every round."""


def _repair(problem: Problem, parts: Parts, hidden: Bools, proven: Proven, workers: Workers) -> Bools:
    """Attack the whole, hide more where it leaks, in growing neighbourhoods."""
    moved = hidden
    for turn in range(ROUNDS):
        # Only what changed since the last round can have changed its answer.
        found = sweep(
            problem.system,
            problem.needs,
            hidden,
            problem.whole,
            parts,
            quick=True,
            among=moved,
            workers=workers,
            proven=proven,
        )
        narrow = np.zeros(len(hidden), dtype=bool)
        narrow[found.failed] = True
        told: dict[int, set[int]] = {}
        for person, at in found.told.tolist():
            told.setdefault(at, set()).add(person)
        leaks = np.unique(np.concatenate([found.failed, np.array(sorted(told), dtype=np.int64)]))
        if not len(leaks):
            break
        before = hidden.copy()
        moves: list[Moves] = []
        for at in leaks.tolist():
            for wider in range(turn, ROUNDS):
                if not (narrow[at] or told.get(at)):
                    break
                near = problem.system.near(np.array([at]), parts.axes + wider // 3, most=NEAR << wider)
                pending = {number: told[far] for number, far in enumerate(near.tolist()) if told.get(far)}
                secret = np.isin(np.arange(len(near)), list(pending))
                hidden[near], narrow[near], left, made = _mend(
                    problem, near, hidden[near], narrow[near], secret, pending, seed=wider + 1
                )
                told.update((int(near[number]), left.get(number, set())) for number in pending)
                moves.append(made)
        _hand_on(moves, problem, hidden, proven)
        moved = hidden & np.isin(np.arange(len(hidden)), np.concatenate([leaks, np.flatnonzero(hidden & ~before)]))
    return hidden


def _mend(
    problem: Problem, near: Ints, hidden: Bools, narrow: Bools, secret: Bools, pending: Mapping[int, Set[int]], seed: int
) -> tuple[Bools, Bools, dict[int, set[int]], Moves]:
    """Protect the ``narrow`` ones of a neighbourhood, and the ``secret`` ones from the single contributors that are ``pending``,
    by moves that leave everything outside as it is. By position in ``near``: what is hidden, what is still too narrow, who may
    still tell; and the moves."""
    search = Search(problem, near, hidden, problem.candidate[near], seed=seed, patient=False)
    search.needs.ask(narrow | ~hidden, secret)
    search.attacker.pending = pending
    search.run()
    search.shield(quick=True)
    left = {at: set(who) for at, who in pending.items() if not search.within[at]}
    for person, at in search.attacker.told(quick=True):
        left.setdefault(at, set()).add(person)
    return search.hidden, narrow & (search.attacker.open() | ~search.within), left, Moves.of(search.attacker.points, near)
