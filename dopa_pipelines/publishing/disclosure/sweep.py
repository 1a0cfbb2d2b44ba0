"""The attack on a whole system: part by part, on two processes where it is large.

Hidden cells that no relation connects are attacked apart: most parts are small when most is published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np

from dopa_pipelines.publishing.disclosure.attack import Attacker, Needs
from dopa_pipelines.publishing.disclosure.cubes import Grid
from dopa_pipelines.publishing.disclosure.proof import Moves, Proven
from dopa_pipelines.publishing.disclosure.system import System
from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Floats, Ints

LARGE = 500
"""Variables from which a part is first attacked in pieces."""
NEAR = 1500
"""Variables around one that is asked about by itself."""
MANY = 2000
"""Variables from which cubes are looked at first."""
HUGE = 5_000
"""Variables from which a part is not attacked as a whole while cells are still being chosen."""
WORTH = 20_000
"""From this many variables on a second process pays for its start."""

Task = TypeVar("Task", bound=tuple[Any, ...])
Found = TypeVar("Found")

_shared: Any = None


def _share(value: Any) -> None:
    global _shared
    _shared = value


def _call(work: Callable[[Any, Any], Any], tasks: list[Any]) -> list[Any]:
    return [work(_shared, task) for task in tasks]


def side_by_side(work: Callable[[Any, Task], Found], shared: Any, tasks: Sequence[Task], processes: int) -> list[Found]:
    """``work(shared, task)`` for every task, in order; on several ``processes`` where there is much to do."""
    size = sum(len(task[0]) for task in tasks)
    if processes < 2 or size < WORTH or len(tasks) < 8:
        return [work(shared, task) for task in tasks]
    # A fresh interpreter: a fork would inherit other threads' locks.
    share, chunks = size / 24, list[list[Task]]()
    filled = share
    for task in tasks:
        if filled >= share:
            chunks.append([])
            filled = 0
        chunks[-1].append(task)
        filled += len(task[0])
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_share, initargs=(shared,)) as pool:
        return [found for chunk in pool.map(_call, [work] * len(chunks), chunks) for found in chunk]


@dataclass
class Parts:
    """How a table falls apart: the dimension with the most families, and each variable's nodes in it. ``margin``: variables that
    subtotals of that dimension are in."""

    axes: int
    families: list[tuple[int, Ints]]
    depth: list[int]
    node: Ints
    variable: Ints
    margin: Bools
    grid: Grid

    @staticmethod
    def of(cells: Cells, system: System) -> Parts:
        axis = int(np.argmax([len(dimension.families) for dimension in cells.dimensions]))
        dimension = cells.dimensions[axis]
        depth = [0] * len(dimension.codes)
        for node, above in enumerate(dimension.parent):
            if above >= 0:
                depth[node] = depth[above] + 1
        moving = system.variable >= 0
        inner = np.ones(len(dimension.codes), dtype=bool)
        for above, _ in dimension.families:
            inner[above] = False
        margin = np.zeros(system.count, dtype=bool)
        margin[system.variable[moving & ~inner[cells.nodes[:, axis]]]] = True
        node, variable = cells.nodes[moving, axis], system.variable[moving]
        order = np.argsort(node, kind="stable")
        axes = sum(len(one.codes) > 1 for one in cells.dimensions)
        return Parts(axes, dimension.families, depth, node[order], variable[order], margin, Grid(cells, system, axis))

    def _at(self, nodes: Ints) -> Ints:
        start, end = np.searchsorted(self.node, nodes, "left"), np.searchsorted(self.node, nodes, "right")
        return np.unique(np.concatenate([self.variable[a:b] for a, b in zip(start, end, strict=True)]))

    def levels(self) -> Iterator[list[Ints]]:
        """The subtables of each level, from the top down: a subtotal with its parts, all of the other dimensions."""
        for level in range(max(self.depth, default=0)):
            blocks = [self._at(np.concatenate([[above], below])) for above, below in self.families if self.depth[above] == level]
            yield [variables for variables in blocks if len(variables)]


@dataclass
class Sweep:
    """What an attack found, by variable: proven movement, variables that stay too narrow, pairs (person, variable told)."""

    low: Floats
    high: Floats
    failed: Ints
    told: Ints
    unsettled: bool


Shared = tuple[System, Needs, Bools, bool, Floats | None]


def _attack(shared: Shared, task: tuple[Ints, Proven, bool]) -> tuple[Proven, Ints, Ints, bool]:
    """One part of the hidden variables, whole."""
    needs = shared[1]
    variables, proven, quick = task
    if quick and len(variables) > HUGE:
        return proven, *_left(shared, variables, proven), False
    attacker = _attacker(shared, variables, proven, needs.of(variables), patient=not quick)
    failed = attacker.settle(quick=quick)
    told = attacker.told(quick=quick)
    found = _found(attacker, told, needs.secret[variables] & ~attacker.open(), variables)
    pairs = np.array([(person, variables[at]) for person, at in told], dtype=np.int64).reshape(-1, 2)
    return found, variables[failed], pairs, bool(attacker.unsettled.any())


def _left(shared: Shared, variables: Ints, proven: Proven) -> tuple[Ints, Ints]:
    """What is not proven, as if it were told: variables that are too narrow, pairs (person nearby, variable)."""
    system, needs, hidden, _, _ = shared
    mine, everything = needs.of(variables), np.ones(len(variables), dtype=bool)
    narrow = proven.open(mine, everything)
    pairs = []
    for at in np.flatnonzero(proven.unsure(mine, everything) & ~narrow).tolist():
        persons = proven.pending.get(at)
        if persons is None:
            around = needs.person[system.near(variables[[at]], 3, hidden, most=NEAR)]
            persons = set(around[around >= 0].tolist()) - {int(mine.person[at])}
        pairs += [(person, variables[at]) for person in sorted(persons)]
    return variables[narrow], np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _attacker(shared: Shared, variables: Ints, proven: Proven, needs: Needs, *, patient: bool) -> Attacker:
    system, _, _, whole, up = shared
    shown = np.ones(len(variables), dtype=bool)
    attacker = Attacker(system, variables, needs, shown, whole=whole, patient=patient, up=up)
    attacker.low, attacker.high, attacker.pending = proven.low, proven.high, proven.pending
    return attacker


def _found(attacker: Attacker, told: list[tuple[int, int]], asked: Bools, variables: Ints) -> Proven:
    pending: dict[int, set[int]] = {int(at): set() for at in np.flatnonzero(asked)}
    for person, at in told:
        pending.setdefault(at, set()).add(person)
    moves = [Moves.of(attacker.points, variables)] if attacker.whole else []
    return Proven(attacker.low, attacker.high, pending, moves)


def _piece(shared: Shared, task: tuple[Ints, Proven, bool]) -> Proven:
    """A piece of a large part, everything around it taken not to move: what is proven so holds all the more."""
    _, needs, _, _, _ = shared
    variables, proven, quick = task
    everything = np.ones(len(variables), dtype=bool)
    asked = needs.of(variables)
    waiting = proven.open(asked, everything) | proven.unsure(asked, everything)
    asked.ask(waiting)
    attacker = _attacker(shared, variables, proven, asked, patient=False)
    attacker.settle(quick=quick)
    told = attacker.told(quick=True)
    moved = np.zeros(len(variables), dtype=bool)
    moved[np.unique(np.nonzero(attacker.points)[1])] = True
    # Who is not in this piece is in none of its moves.
    return _found(attacker, told, asked.secret & ~attacker.open() & moved, variables)


def _keep(proven: Proven, variables: Ints, found: Proven) -> None:
    proven.low[variables] = np.minimum(proven.low[variables], found.low)
    proven.high[variables] = np.maximum(proven.high[variables], found.high)
    proven.pending.update((int(variables[at]), persons) for at, persons in found.pending.items())
    proven.moves += found.moves


def _piecewise(shared: Shared, parts: Parts, large: Bools, huge: Bools, proven: Proven, processes: int) -> None:
    """Prove what pieces of large parts can prove by themselves: subtables without their subtotals, then neighbourhoods."""
    system, needs, hidden, _, _ = shared
    pieces = system.components(large & ~parts.margin)
    for turn in range(3):
        waiting = (huge if turn else large) & (proven.open(needs, hidden) | proven.unsure(needs, hidden))
        if turn:
            tried, pieces = np.zeros(system.count, dtype=bool), []
            for at in np.flatnonzero(waiting):
                if not tried[at]:
                    pieces.append(system.near(np.array([at]), 3, large, most=NEAR))
                    tried[pieces[-1]] = True
        tasks = [(piece, proven.of(piece), turn < 2) for piece in pieces if waiting[piece].any()]
        for (piece, _, _), found in zip(tasks, side_by_side(_piece, shared, tasks, processes), strict=True):
            _keep(proven, piece, found)


def sweep(
    system: System,
    needs: Needs,
    hidden: Bools,
    whole: bool,
    parts: Parts,
    *,
    quick: bool = False,
    up: Floats | None = None,
    among: Bools | None = None,
    processes: int = 1,
    proven: Proven | None = None,
) -> Sweep:
    """Attack every hidden variable. ``quick``: without a program for each variable that random ones leave open; ``among``: only
    the parts that have one of these. ``proven`` is what is proven already, and grows."""
    proven = proven or Proven.nothing(system.count)
    components = system.components(hidden)
    if among is not None:
        components = [one for one in components if among[one].any()]
    shared = (system, needs, hidden, whole, up)
    asked = np.zeros(system.count, dtype=bool)
    asked[np.concatenate([np.zeros(0, dtype=np.int64), *components])] = True
    if np.count_nonzero(asked) > MANY:
        parts.grid.prove(needs, asked, needs.reach if up is None else up, proven, whole=whole)
    large = np.zeros(system.count, dtype=bool)
    huge = large.copy()
    for one in components:
        large[one], huge[one] = len(one) > LARGE, len(one) > HUGE
    _piecewise(shared, parts, large, huge, proven, processes)
    waiting = proven.open(needs, hidden) | proven.unsure(needs, hidden)
    tasks = [
        (one, proven.of(one), quick and len(one) > LARGE)
        for one in sorted(components, key=len, reverse=True)
        if waiting[one].any()
    ]
    failed: list[Ints] = [np.zeros(0, dtype=np.int64)]
    told: list[Ints] = [np.zeros((0, 2), dtype=np.int64)]
    unsettled = False
    for (one, _, _), (found, left, pairs, unsure) in zip(tasks, side_by_side(_attack, shared, tasks, processes), strict=True):
        _keep(proven, one, found)
        failed.append(left)
        told.append(pairs)
        unsettled |= unsure
    return Sweep(proven.low, proven.high, np.unique(np.concatenate(failed)), np.concatenate(told), unsettled)
