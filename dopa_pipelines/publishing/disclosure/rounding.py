"""Controlled rounding: every cell to a neighbouring multiple of the base, so that all sums still hold.

Zero-restricted: a multiple stays, everything else moves by less than the base (Cox 1987; Hundepool et al. 2012, ch. 5.4;
Salazar-González 2006). Found by linear or, where fractions appear, integer programming that keeps the total change small; large
tables from the top down, a subtable at a time with its subtotals fixed. Where three or more dimensions admit no such table, cells
may move by up to two bases.
"""

from __future__ import annotations

from typing import NamedTuple

import highspy
import numpy as np

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.disclosure.attack import solver_of
from dopa_pipelines.publishing.disclosure.audit import Audit, bounded_audit
from dopa_pipelines.publishing.disclosure.rules import Sensitivity
from dopa_pipelines.publishing.disclosure.sweep import Parts
from dopa_pipelines.publishing.disclosure.system import System
from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Floats, Ints

AT_ONCE = 4000
"""Up to this many cells are rounded in one program."""
NODES = 20_000


class Rounded(NamedTuple):
    published: Floats
    audit: Audit


def control(cells: Cells, base: int, sensitive: Sensitivity, given: Bools, *, whole: bool) -> Rounded:
    """Round all cells. Raises :class:`UserError` where no controlled rounding is found."""
    published, reach = round_cells(cells, base)
    audit = bounded_audit(
        cells, sensitive, np.maximum(published - reach, 0), published + reach, given, most=float(base - 1), whole=whole
    )
    return Rounded(published, audit)


def round_cells(cells: Cells, base: int) -> tuple[Floats, float]:
    """Rounded values, and how far at most a true value lies from its rounded one."""
    floor = np.floor(cells.value / base + 1e-9)
    rest = np.maximum(cells.value - base * floor, 0)
    rest[rest < 1e-6] = 0
    system = System(np.arange(len(cells)), len(cells), cells.start, cells.cell, cells.sign, np.zeros(len(cells)), cells.implied)
    for widen in (0, 1):
        steps = _all(cells, system, floor, rest, base, widen)
        if steps is not None:
            return base * (floor + steps), float((widen + 1) * base - 1)
    raise UserError(f"no controlled rounding to base {base} was found; choose another base or suppression")


def _all(cells: Cells, system: System, floor: Floats, rest: Floats, base: int, widen: int) -> Floats | None:
    steps = np.zeros(len(cells))
    if len(cells) <= AT_ONCE:
        return _solve(system, np.arange(len(cells)), floor, rest, base, widen, np.zeros(len(cells), dtype=bool), steps)
    done = np.zeros(len(cells), dtype=bool)
    for variables in Parts.of(cells, system).subtables():
        found = _solve(system, variables, floor, rest, base, widen, done[variables], steps[variables])
        if found is None:
            return None
        steps[variables] = found
        done[variables] = True
    return steps


def _solve(
    system: System, variables: Ints, floor: Floats, rest: Floats, base: int, widen: int, done: Bools, steps: Floats
) -> Floats | None:
    """Steps of one base above the floor for some cells, those ``done`` as they are."""
    start, index, coefficient = relations = system.part(variables, closed=True)
    mine, over = floor[variables], rest[variables]
    row = np.repeat(np.arange(len(start) - 1), np.diff(start))
    lacking = -np.bincount(row, weights=coefficient * mine[index], minlength=len(start) - 1).astype(np.float64)
    low = np.where(over > 0, 0.0, 0.0) - widen
    high = np.where(over > 0, 1.0, 0.0) + widen
    low = np.where(mine + over == 0, 0.0, np.maximum(low, -mine))
    high = np.where(mine + over == 0, 0.0, high)
    low, high = np.where(done, steps, low), np.where(done, steps, high)
    solver = solver_of(relations, low, high, lacking, lacking)
    every = np.arange(len(variables), dtype=np.int32)
    # Rounding up costs base - rest, down rest; a step out of the neighbours costs a base more in either direction on the whole.
    solver.changeColsCost(len(variables), every, 2 * over - base)
    for integer in (False, True):
        if integer:
            solver.setOptionValue("mip_max_nodes", NODES)
            solver.setOptionValue("mip_rel_gap", 0.02)
            solver.changeColsIntegrality(
                len(variables), every, np.full(len(variables), highspy.HighsVarType.kInteger.value, dtype=np.uint8)
            )
        solver.run()
        status = solver.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            return None
        found = np.array(solver.getSolution().col_value)
        if len(found) == len(variables) and np.abs(found - np.round(found)).max(initial=0) < 1e-6:
            feasible = np.abs(np.bincount(row, weights=coefficient * np.round(found)[index], minlength=len(start) - 1) - lacking)
            if feasible.max(initial=0) < 1e-6:
                return np.round(found)
    return None
