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

from dopa_pipelines.publishing.disclosure.attack import TINY, Attacker, Needs
from dopa_pipelines.publishing.disclosure.system import System
from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Floats, Ints

LARGE = 500
"""Variables from which a part is first attacked in pieces."""
NEAR = 1500
"""Variables around one that is asked about by itself."""
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
    """How a table falls apart: the dimension with the most families, and each variable's nodes in it."""

    axes: int
    families: list[tuple[int, Ints]]
    depth: list[int]
    node: Ints
    variable: Ints
    margin: Bools

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
        return Parts(axes, dimension.families, depth, node[order], variable[order], margin)

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


@dataclass
class Proven:
    """What is proven of each variable of a system; it holds for as long as hidden ones stay hidden. ``pending``: the single
    contributors that may still tell a variable; missing where nothing is known of them."""

    low: Floats
    high: Floats
    pending: dict[int, set[int]]

    @staticmethod
    def nothing(count: int) -> Proven:
        return Proven(np.zeros(count), np.zeros(count), {})


Shared = tuple[System, Needs, Bools, bool, bool, Floats | None]


def _attack(shared: Shared, task: tuple[Ints, Proven]) -> tuple[Proven, Ints, Ints, bool]:
    """One part of the hidden variables. A large one first piece by piece, its subtotals taken not to move: what is proven so
    holds all the more, and what is left for programs over the whole is little."""
    system, needs, margin, whole, quick, up = shared
    variables, proven = task
    mine = needs.of(variables)
    shown = np.ones(len(variables), dtype=bool)
    attacker = Attacker(system, variables, mine, shown, whole=whole, patient=not quick, up=up)
    attacker.low, attacker.high, attacker.pending = proven.low, proven.high, proven.pending
    large = len(variables) > LARGE
    if large:
        _piecewise(system, variables, mine, margin, whole, up, attacker)
    failed = attacker.settle(quick=quick and large)
    told = attacker.told(quick=quick and large)
    secret = needs.secret[variables] & ~attacker.open()
    pending: dict[int, set[int]] = {int(at): set() for at in np.flatnonzero(secret)}
    for person, at in told:
        pending.setdefault(at, set()).add(person)
    pairs = np.array([(person, variables[at]) for person, at in told], dtype=np.int64).reshape(-1, 2)
    return (
        Proven(attacker.low, attacker.high, pending),
        variables[failed],
        pairs,
        bool(attacker.unsettled.any()),
    )


def _piecewise(
    system: System, variables: Ints, needs: Needs, margin: Bools, whole: bool, up: Floats | None, attacker: Attacker
) -> None:
    """Prove what pieces of a large part can prove by themselves; ``needs`` forgets what needs no further proof."""
    place = np.full(system.count, -1, dtype=np.int64)
    place[variables] = np.arange(len(variables))
    inside = np.zeros(system.count, dtype=bool)
    inside[variables] = True
    secret = needs.secret.copy()
    asked_of = _Wide(needs, place)

    def left() -> Bools:
        unsure = secret.copy()
        unsure[[at for at, persons in attacker.pending.items() if not persons]] = False
        found: Bools = attacker.open() | unsure
        return found

    def prove(piece: Ints, waiting: Bools, quick: bool) -> None:
        at = place[piece]
        if not waiting[at].any():
            return
        asked = asked_of.of(piece)
        asked.ask(waiting[at])
        local = Attacker(system, piece, asked, np.ones(len(piece), dtype=bool), whole=whole, patient=False, up=up)
        local.low, local.high = attacker.low[at].copy(), attacker.high[at].copy()
        local.pending = {one: attacker.pending[int(far)] for one, far in enumerate(at) if int(far) in attacker.pending}
        local.settle(quick=quick)
        doubtful: dict[int, set[int]] = {}
        for person, one in local.told(quick=True):
            doubtful.setdefault(one, set()).add(person)
        attacker.low[at] = np.minimum(attacker.low[at], local.low)
        attacker.high[at] = np.maximum(attacker.high[at], local.high)
        moved = np.any(np.abs(local.points) > TINY, axis=0)
        for one in np.flatnonzero(asked.secret & ~local.open() & moved).tolist():
            # Who is not in this piece is in none of its moves.
            attacker.pending[int(at[one])] = doubtful.get(one, set())

    waiting = left()
    for piece in system.components(inside & ~margin):
        prove(piece, waiting, quick=True)
    attacker.roam(60)
    tried = np.zeros(len(variables), dtype=bool)
    for at in np.flatnonzero(left()):
        if not tried[at]:
            near = system.near(variables[[at]], 3, inside, most=NEAR)
            tried[place[near]] = True
            prove(near, left(), quick=False)
    waiting = left()
    needs.ask(waiting)


@dataclass
class _Wide:
    """Needs of a part, asked for by the system's numbers."""

    needs: Needs
    place: Ints

    def of(self, variables: Ints) -> Needs:
        return self.needs.of(self.place[variables])


def sweep(
    system: System,
    needs: Needs,
    hidden: Bools,
    whole: bool,
    margin: Bools,
    *,
    quick: bool = False,
    up: Floats | None = None,
    among: Bools | None = None,
    processes: int = 1,
    proven: Proven | None = None,
) -> Sweep:
    """Attack every hidden variable; ``margin``: those that subtotals are in. ``quick``: without a program for
    each variable that random ones leave open; ``among``: only the parts that have one of these."""
    proven = proven or Proven.nothing(system.count)
    components = system.components(hidden)
    if among is not None:
        components = [one for one in components if among[one].any()]
    tasks = []
    for one in sorted(components, key=len, reverse=True):
        pending = {at: proven.pending[int(far)] for at, far in enumerate(one) if int(far) in proven.pending}
        tasks.append((one, Proven(proven.low[one], proven.high[one], pending)))
    failed: list[Ints] = [np.zeros(0, dtype=np.int64)]
    told: list[Ints] = [np.zeros((0, 2), dtype=np.int64)]
    unsettled = False
    for (one, _), (found, left, pairs, unsure) in zip(
        tasks, side_by_side(_attack, (system, needs, margin, whole, quick, up), tasks, processes), strict=True
    ):
        proven.low[one], proven.high[one] = found.low, found.high
        proven.pending.update((int(one[at]), persons) for at, persons in found.pending.items())
        failed.append(left)
        told.append(pairs)
        unsettled |= unsure
    low, high = proven.low, proven.high
    return Sweep(low, high, np.unique(np.concatenate(failed)), np.concatenate(told), unsettled)
