"""The attack on a whole system: part by part, on two processes where it is large.

Hidden cells that no relation connects are attacked apart. A very large part is first cut at its subtotals, which then count as
known to move nowhere: what is proven so holds all the more. Only what that leaves open is attacked in wider parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np

from dopa_pipelines.publishing.disclosure.attack import Attacker, Needs
from dopa_pipelines.publishing.disclosure.system import System
from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Floats, Ints

PART = 1500
"""Variables of a part that is attacked without cutting it."""
WORTH = 20_000
"""From this many variables on a second process pays for its start."""

Task = TypeVar("Task")
Found = TypeVar("Found")

_shared: Any = None


def _share(value: Any) -> None:
    global _shared
    _shared = value


def _call(work: Callable[[Any, Any], Any], tasks: list[Any]) -> list[Any]:
    return [work(_shared, task) for task in tasks]


def side_by_side(work: Callable[[Any, Task], Found], shared: Any, tasks: Sequence[Task]) -> list[Found]:
    """``work(shared, task)`` for every task, in order; on two processes where there is much to do."""
    size = sum(len(task[0]) for task in tasks)  # type: ignore[index]
    if size < WORTH or len(tasks) < 8 or (os.cpu_count() or 1) < 2:
        return [work(shared, task) for task in tasks]
    # A fresh interpreter: a fork would inherit other threads' locks.
    chunks = [list(tasks[at : at + max(1, len(tasks) // 16)]) for at in range(0, len(tasks), max(1, len(tasks) // 16))]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=_share, initargs=(shared,)) as pool:
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


def _attack(
    shared: tuple[System, Needs, bool, bool, Floats | None], task: tuple[Ints, Ints]
) -> tuple[Floats, Floats, Ints, Ints, bool]:
    """One part: its variables, and those of them that are asked about."""
    system, needs, whole, patient, up = shared
    variables, asked = task
    mine = needs.of(variables)
    if len(asked) < len(variables):
        outside = ~np.isin(variables, asked)
        for array in (mine.width, mine.above, mine.below):
            array[outside] = 0
        mine.secret[outside] = False
    attacker = Attacker(system, variables, mine, np.ones(len(variables), dtype=bool), whole=whole, patient=patient, up=up)
    failed = attacker.settle()
    open_now = np.union1d(failed, np.flatnonzero(attacker.open()))
    told = np.array([(person, variables[at]) for person, at in attacker.told()], dtype=np.int64).reshape(-1, 2)
    return attacker.low, attacker.high, variables[open_now], told, bool(attacker.unsettled.any())


def sweep(
    system: System, needs: Needs, hidden: Bools, whole: bool, parts: Parts, *, quick: bool = False, up: Floats | None = None
) -> Sweep:
    """Attack every hidden variable. ``quick``: what only a very large part could prove is called failed."""
    low, high = np.zeros(system.count), np.zeros(system.count)
    shared = (system, needs, whole, not quick, up)
    told: list[Ints] = []
    failed: list[Ints] = []
    unsettled = False
    components = system.components(hidden)
    small = [(one, one) for one in components if len(one) <= PART]
    large = [one for one in components if len(one) > PART]
    cut: list[tuple[Ints, Ints]] = []
    open_in: dict[int, list[Ints]] = {}
    if large:
        inside = np.zeros(system.count, dtype=bool)
        for one in large:
            inside[one] = True
        cut = [(one, one) for one in system.components(inside & ~parts.margin)]
    owner = np.full(system.count, -1, dtype=np.int64)
    for number, one in enumerate(large):
        owner[one] = number
        open_in[number] = [one[parts.margin[one]]]
    found = side_by_side(_attack, shared, small + cut)
    for number, (task, (down, up, left, pairs, unsure)) in enumerate(zip(small + cut, found, strict=True)):
        low[task[0]], high[task[0]] = down, up
        if number < len(small):
            failed.append(left)
            told.append(pairs)
            unsettled |= unsure
        else:
            open_in[int(owner[task[0][0]])] += [left, pairs[:, 1]]
    for number, one in enumerate(large):
        waiting = np.unique(np.concatenate(open_in[number]))
        for steps in range(parts.axes, parts.axes + 4):
            tasks, rest = [], waiting
            while len(rest):
                near = system.near(rest[:1], steps, hidden, most=PART)
                tasks.append((near, np.intersect1d(rest, near)))
                rest = np.setdiff1d(rest, near)
            still = []
            for (near, asked), (down, up, left, pairs, _) in zip(tasks, side_by_side(_attack, shared, tasks), strict=True):
                low[near], high[near] = np.minimum(low[near], down), np.maximum(high[near], up)
                still += [np.intersect1d(left, asked), pairs[:, 1]]
            waiting = np.unique(np.concatenate(still)) if still else waiting[:0]
            if not len(waiting):
                break
        if len(waiting) and not quick:
            down, up, left, pairs, unsure = _attack(shared, (one, waiting))
            low[one], high[one] = np.minimum(low[one], down), np.maximum(high[one], up)
            failed.append(np.intersect1d(left, waiting))
            told.append(pairs)
            unsettled |= unsure
        else:
            failed.append(waiting)
    empty = np.zeros(0, dtype=np.int64)
    return Sweep(low, high, np.unique(np.concatenate([empty, *failed])), np.concatenate([empty.reshape(0, 2), *told]), unsettled)
