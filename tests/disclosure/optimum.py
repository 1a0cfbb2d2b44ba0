"""The cheapest complementary suppression there is, for tables small enough to find it.

Hiding more never tells more, so what is insufficient stays so with less: for each set of hidden cells that leaves a demand
broken, grown until nothing more can be added without mending it, at least one cell outside must be hidden. A program of such cuts
(HiGHS) chooses the cheapest set; the attacker's programs find what it still leaves open and give new cuts, until they find
nothing: then the set is a cheapest one. The demands are those of ``judge``, single contributors included. (Fischetti and
Salazar-González, Solving the cell suppression problem on tabular data with linear constraints, Management Science 47(7), 2001,
cut by duals; here cuts are sets, so that whole numbers and insiders are cut alike: implicit hitting sets.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import highspy
import numpy as np

from tests.disclosure.attack import CLOSE, INFINITY, Component, System, solver
from tests.disclosure.judge import demands, insiders
from tests.disclosure.tables import Bools, Floats, Table


class NotProtectableError(Exception):
    """Not even hiding everything keeps what the rule demands."""


@dataclass(frozen=True)
class Optimum:
    """``hidden``: primary and complementary cells; ``cost``: of the complementary ones; ``cuts``: how many it took."""

    hidden: Bools
    cost: float
    cuts: int


def costs(truth: Table) -> Floats:
    """What hiding a cell costs, by the spec's ``cost``; never nothing."""
    value = np.maximum(np.abs(truth.value), 1.0)
    how = truth.spec.get("cost", "value")
    return {"value": value, "unit": np.ones_like(value), "log": np.log1p(value)}[how]


def candidates(truth: Table) -> Bools:
    """Cells that may be complementary."""
    may: Bools = ((truth.value != 0) | (not truth.zeros_published)) & ~truth.structural & ~truth.primary
    may[list(truth.known)] = False
    return may


@dataclass(frozen=True)
class _Broken:
    """A demand that is not kept: the interval of a primary cell, or what an insider (his cells) tells of it."""

    cell: int
    mine: int = -1


class _Oracle:
    """All cells in one program; which of them are hidden is a matter of their bounds."""

    def __init__(self, truth: Table) -> None:
        self.truth = truth
        least = 1.0 if truth.zeros_published and truth.counts else 0.0
        size = len(truth.value)
        self.least = np.where(truth.structural, 0.0, np.minimum(least, truth.value))
        open_ = System(truth.relations, self.least, np.full(size, INFINITY), truth.counts)
        self.part = Component(open_, np.arange(size), np.arange(len(truth.relations.row)))
        self.wanted = demands(truth, truth.primary)
        self.insiders = insiders(truth)
        self.primary = [int(cell) for cell in np.flatnonzero(truth.primary)]

    def hide(self, hidden: Bools) -> None:
        truth, part = self.truth, self.part
        fixed = ~hidden | truth.structural
        for cell in truth.known:
            fixed[cell] = True
        part.lower = np.where(fixed, truth.value, self.least)
        part.upper = np.where(fixed, truth.value, INFINITY)
        part.program.col_lower_, part.program.col_upper_ = part.lower, part.upper
        part.solver.changeColsBounds(len(fixed), np.arange(len(fixed)), part.lower, part.upper)
        part.met = 0

    def _ends(self, cell: int) -> tuple[float, float]:
        part, ends = self.part, [0.0, 0.0]
        attained = [True, True]
        for end, sign in ((0, 1), (1, -1)):
            ends[end], attained[end] = part.extreme([cell], sign)
        if part.whole:
            ends = [math.ceil(ends[0] - CLOSE), math.floor(ends[1] + CLOSE) if math.isfinite(ends[1]) else INFINITY]
            if self.wanted.met(cell, *ends) or ends[1] > ends[0]:
                for end, sign in ((0, 1), (1, -1)):
                    if not attained[end]:
                        ends[end] = part.whole_extreme(cell, sign)
        return ends[0], ends[1]

    def is_broken(self, demand: _Broken) -> bool:
        if demand.mine < 0:
            return not self.wanted.met(demand.cell, *self._ends(demand.cell))
        mine = self.insiders[demand.mine]
        self.part.fix(mine)
        low, high = self._ends(demand.cell)
        self.part.free()
        return high - low <= CLOSE * max(1.0, abs(low))

    def broken(self) -> Iterator[_Broken]:
        outside = [demand for demand in map(_Broken, self.primary) if self.is_broken(demand)]
        yield from outside
        if outside:
            return
        for number, mine in enumerate(self.insiders):
            for cell in self.primary:
                if cell not in mine and self.is_broken(_Broken(cell, number)):
                    yield _Broken(cell, number)


def optimum(truth: Table, most_cuts: int = 3000) -> Optimum:
    """Raises NotProtectableError."""
    oracle, cost, may = _Oracle(truth), costs(truth), candidates(truth)
    cells = np.flatnonzero(may)
    cuts: list[Bools] = []
    chosen = np.zeros(len(may), bool)
    cheap = cells[np.argsort(cost[cells], kind="stable")]
    while len(cuts) < most_cuts:
        hidden = truth.primary | chosen
        oracle.hide(hidden)
        broken = list(oracle.broken())
        if not broken:
            return Optimum(hidden, float(cost[chosen].sum()), len(cuts))
        found: set[bytes] = set()
        for demand in broken[:6]:
            grown = hidden.copy()
            for cell in cheap:
                if not grown[cell]:
                    grown[cell] = True
                    oracle.hide(grown)
                    if not oracle.is_broken(demand):
                        grown[cell] = False
            cut = may & ~grown
            if not cut.any():
                raise NotProtectableError(f"{truth.names(demand.cell)} cannot be protected")
            if cut.tobytes() not in found:
                found.add(cut.tobytes())
                cuts.append(cut)
        chosen = _cover(cuts, cost, cells)
    raise RuntimeError(f"no optimum within {most_cuts} cuts")


def _cover(cuts: list[Bools], cost: Floats, cells: np.ndarray) -> Bools:
    """The cheapest set that has a cell of every cut."""
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = len(cells), len(cuts)
    program.col_cost_ = cost[cells]
    program.col_lower_, program.col_upper_ = np.zeros(len(cells)), np.ones(len(cells))
    program.row_lower_, program.row_upper_ = np.ones(len(cuts)), np.full(len(cuts), INFINITY)
    terms = [np.flatnonzero(cut[cells]) for cut in cuts]
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.start_ = np.concatenate([[0], np.cumsum([len(term) for term in terms])])
    program.a_matrix_.index_ = np.concatenate(terms)
    program.a_matrix_.value_ = np.ones(sum(map(len, terms)))
    chooser = solver()
    chooser.setOptionValue("mip_rel_gap", 0.0)
    chooser.passModel(program)
    chooser.changeColsIntegrality(len(cells), np.arange(len(cells)), np.full(len(cells), 1, np.uint8))
    chooser.run()
    if chooser.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"HiGHS: {chooser.modelStatusToString(chooser.getModelStatus())}")
    chosen = np.zeros(len(cost), bool)
    chosen[cells[np.array(chooser.getSolution().col_value) > 0.5]] = True
    return chosen
