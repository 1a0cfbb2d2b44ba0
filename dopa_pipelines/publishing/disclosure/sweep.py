"""The attack on a whole system: part by part, side by side where it is large.

Hidden cells that no relation connects are attacked apart: most parts are small when most is published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dopa_pipelines.publishing.disclosure.attack import Attacker, Needs
from dopa_pipelines.publishing.disclosure.cubes import Grid
from dopa_pipelines.publishing.disclosure.proof import Moves, Proven
from dopa_pipelines.publishing.disclosure.system import System
from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Floats, Ints
from dopa_pipelines.publishing.disclosure.workers import ALONE, Workers

LARGE = 500
"""Variables from which a part is first attacked in pieces."""
NEAR = 1500
"""Variables around one that is asked about by itself."""
MANY = 2000
"""Variables still open from which cubes are looked at first."""
HUGE = 5_000
"""Variables from which a part is not attacked as a whole while cells are still being chosen."""
FEW = 4
"""Codes of a dimension that a slice always has all of."""
OTHERS = 2
LONG = 40
"""Codes of a dimension without levels from which it is searched in groups."""
GROUP = 12
SLICE = 700


@dataclass
class Places:
    """Where the variables of a branch are: ``node`` (variables × dimensions), ``unit`` (which part of the branch, -1: its own
    total), the dimensions' ``parents`` and which of them the branch is of."""

    node: Ints
    unit: Ints
    parents: list[Ints]
    axis: int

    def slice(self, at: int, cost: Floats, turn: int, random: np.random.Generator) -> Ints:
        """Positions of variables around one: its unit and those others that are the cheapest to have moved with it, whole; in
        later turns any others, but of a dimension of many codes only its code, some others, and what lies above these."""
        there = np.ones(len(self.node), dtype=bool)
        for axis, parents in enumerate(self.parents):
            if turn == 0 or axis == self.axis or len(parents) <= FEW:
                continue
            inner = np.zeros(len(parents), dtype=bool)
            inner[parents[parents >= 0]] = True
            leaves = np.flatnonzero(~inner)
            chosen = {int(self.node[at, axis]), *random.choice(leaves, min(OTHERS + turn, len(leaves)), replace=False).tolist()}
            kept = np.zeros(len(parents), dtype=bool)
            for node in chosen:
                while node >= 0:
                    kept[node], node = True, int(parents[node])
            there &= kept[self.node[:, axis]]
        most = int(self.unit.max(initial=-1)) + 2
        size = np.bincount(self.unit[there] + 1, minlength=most)
        itself = there & (self.node[:, self.axis] == self.unit)
        price = np.bincount(self.unit[itself] + 1, weights=cost[itself], minlength=most)
        units = np.unique(self.unit[there & (self.unit >= 0)])
        wanted = np.zeros(most, dtype=bool)
        wanted[[0, self.unit[at] + 1]] = True
        for unit in units[np.argsort(price[units + 1], kind="stable")] if turn == 0 else random.permutation(units):
            if size[wanted].sum() + size[unit + 1] > SLICE and wanted.sum() > 3:
                break
            wanted[unit + 1] = True
        there &= wanted[self.unit + 1]
        there[at] = True
        return np.flatnonzero(there)


@dataclass
class Parts:
    """How a table falls apart: the dimension with the most families (of several: the most codes), and each variable's nodes in
    it. ``margin``: variables that subtotals of that dimension are in. ``branch``, ``unit``: by node, its ancestor (or itself) two
    levels and one level above the lowest, -1 above these; of a long dimension without levels, groups of codes that stand
    together."""

    axes: int
    families: list[tuple[int, Ints]]
    depth: list[int]
    long: bool
    node: Ints
    variable: Ints
    margin: Bools
    grid: Grid
    branch: Ints
    unit: Ints

    @staticmethod
    def of(cells: Cells, system: System) -> Parts:
        axis = max(
            range(len(cells.dimensions)), key=lambda at: (len(cells.dimensions[at].families), len(cells.dimensions[at].codes))
        )
        dimension = cells.dimensions[axis]
        depth = [0] * len(dimension.codes)
        for node, above in enumerate(dimension.parent):
            if above >= 0:
                depth[node] = depth[above] + 1
        # Of a country by province, district and tambon the provinces; districts are their units.
        top = max(1, max(depth, default=0) - 2)
        branch, unit = (np.full(len(dimension.codes), -1, dtype=np.int64) for _ in range(2))
        for at, above in enumerate(dimension.parent):
            branch[at] = at if depth[at] == top else branch[above] if above >= 0 else -1
            unit[at] = at if depth[at] == top + 1 else unit[above] if above >= 0 else -1
        leaves = np.flatnonzero(np.array(depth) == 1)
        long = max(depth, default=0) == 1 and len(leaves) > LONG
        if long:
            unit[leaves], branch[leaves] = np.arange(len(leaves)) // GROUP, np.arange(len(leaves)) // GROUP**2
        moving = system.variable >= 0
        inner = np.ones(len(dimension.codes), dtype=bool)
        for above, _ in dimension.families:
            inner[above] = False
        margin = np.zeros(system.count, dtype=bool)
        margin[system.variable[moving & ~inner[cells.nodes[:, axis]]]] = True
        node, variable = cells.nodes[moving, axis], system.variable[moving]
        order = np.argsort(node, kind="stable")
        axes = sum(len(one.codes) > 1 for one in cells.dimensions)
        return Parts(
            axes, dimension.families, depth, long, node[order], variable[order], margin, Grid(cells, system, axis), branch, unit
        )

    def _at(self, nodes: Ints) -> Ints:
        start, end = np.searchsorted(self.node, nodes, "left"), np.searchsorted(self.node, nodes, "right")
        return np.unique(np.concatenate([self.variable[a:b] for a, b in zip(start, end, strict=True)]))

    def subtables(self) -> Iterator[Ints]:
        """Every subtotal with its parts, all of the other dimensions, from the top down."""
        for level in range(max(self.depth, default=0)):
            for above, below in self.families:
                variables = self._at(np.concatenate([[above], below])) if self.depth[above] == level else below[:0]
                if len(variables):
                    yield variables

    def blocks(self) -> list[Ints]:
        """The subtables at the bottom: the parts of one subtotal by all of the other dimensions, without what is in a subtotal
        itself. Where there is but one level it is all one, unless it is long."""
        if max(self.depth, default=0) < 2 and not self.long:
            return [np.unique(self.variable)] if len(self.variable) else []
        groups = [np.flatnonzero(self.unit == one) for one in np.unique(self.unit[self.unit >= 0])]
        found = [self._at(below) for below in (groups if self.long else [below for _, below in self.families])]
        return [kept for one in found if len(kept := one[~self.margin[one]])]

    def branches(self) -> list[Ints]:
        """Whatever has parts that have parts, with all below it, by all other dimensions. None where there is but one level,
        unless it is long."""
        if max(self.depth, default=0) < 2 and not self.long:
            return []
        found = [self._at(np.flatnonzero(self.branch == top)) for top in np.unique(self.branch[self.branch >= 0])]
        return [one for one in found if len(one)]

    def places(self, variables: Ints) -> Places:
        cells, system = self.grid.cells, self.grid.system
        node = cells.nodes[system.cell[variables]]
        parents = [np.array(dimension.parent, dtype=np.int64) for dimension in cells.dimensions]
        return Places(node, self.unit[node[:, self.grid.axis]], parents, self.grid.axis)


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
    attacker.take(proven.low, proven.high, proven.safe, proven.pending)
    return attacker


def _found(attacker: Attacker, told: list[tuple[int, int]], asked: Bools, variables: Ints) -> Proven:
    by: dict[int, set[int]] = {}
    for person, at in told:
        by.setdefault(at, set()).add(person)
    safe = asked.copy()
    safe[list(by)] = False
    moves = [Moves.of(attacker.points, variables)] if attacker.whole else []
    return Proven(attacker.low, attacker.high, safe, dict(by), moves)


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
    proven.safe[variables] |= found.safe
    proven.pending.update((int(variables[at]), persons) for at, persons in found.pending.items())
    proven.moves += found.moves


def _piecewise(shared: Shared, parts: Parts, large: Bools, huge: Bools, proven: Proven, workers: Workers) -> None:
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
        for (piece, _, _), found in zip(tasks, workers.run(_piece, shared, tasks), strict=True):
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
    workers: Workers = ALONE,
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
    if np.count_nonzero(asked & (proven.open(needs, hidden) | proven.unsure(needs, hidden))) > MANY:
        parts.grid.prove(needs, asked, needs.reach if up is None else up, proven, whole=whole)
    large = np.zeros(system.count, dtype=bool)
    huge = large.copy()
    for one in components:
        large[one], huge[one] = len(one) > LARGE, len(one) > HUGE
    _piecewise(shared, parts, large, huge, proven, workers)
    waiting = proven.open(needs, hidden) | proven.unsure(needs, hidden)
    tasks = [
        (one, proven.of(one), quick and len(one) > LARGE)
        for one in sorted(components, key=len, reverse=True)
        if waiting[one].any()
    ]
    failed: list[Ints] = [np.zeros(0, dtype=np.int64)]
    told: list[Ints] = [np.zeros((0, 2), dtype=np.int64)]
    unsettled = False
    for (one, _, _), (found, left, pairs, unsure) in zip(tasks, workers.run(_attack, shared, tasks), strict=True):
        _keep(proven, one, found)
        failed.append(left)
        told.append(pairs)
        unsettled |= unsure
    return Sweep(proven.low, proven.high, np.unique(np.concatenate(failed)), np.concatenate(told), unsettled)
