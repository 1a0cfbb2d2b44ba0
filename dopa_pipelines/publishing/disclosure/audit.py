"""The audit: does what goes out keep its secrets? It knows cells, relations and what is published; not how the pattern was found.

The attacker knows every published cell, every sum, that nothing is negative (and that a hidden count is not zero where zeros are
published), official totals and earlier releases. A second one is also the only person in a cell, and knows that cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dopa_pipelines.publishing.disclosure.attack import Attacker, Needs
from dopa_pipelines.publishing.disclosure.proof import Moves, Proven
from dopa_pipelines.publishing.disclosure.rules import Sensitivity
from dopa_pipelines.publishing.disclosure.sweep import Parts, sweep
from dopa_pipelines.publishing.disclosure.system import System, _labels, reduce
from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Floats, Ints
from dopa_pipelines.publishing.disclosure.workers import ALONE, Workers

EXACT = 400
"""Up to this many hidden variables every interval is solved exactly; beyond, it is what was proven, which may be too narrow."""
FAR = 1e7


@dataclass
class Audit:
    """``low``, ``high``: the attacker's interval of each hidden cell (NaN: published). ``disclosed``: what he can tell."""

    passed: bool
    method: str
    disclosed: list[dict[str, Any]]
    narrowest: dict[str, Any] | None
    low: Floats
    high: Floats
    told: Bools

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "method": self.method,
            "attackers": ["outsider", "single contributor"],
            "disclosed": self.disclosed,
            "narrowest": self.narrowest,
        }


def persons(cells: Cells, system: System, alone: Bools) -> Ints:
    """For each variable the single contributor whose cell it is, -1 for none: cells of one person above each other are one's."""
    mine = alone & (system.variable >= 0)
    row, cell = cells.rows, cells.cell
    held = mine[cell]
    parent = np.zeros(len(cells.start) - 1, dtype=bool)
    parent[row[held & (cells.sign < 0)]] = True
    held &= parent[row]
    order = np.argsort(system.variable[mine], kind="stable")
    same = np.flatnonzero(mine)[order]
    number = system.variable[same] + len(cells.start)
    label = _labels(
        len(cells), np.concatenate([row[held], number]), np.concatenate([cell[held], same]), len(cells.start) + system.count
    )
    found = np.full(system.count, -1, dtype=np.int64)
    found[system.variable[same]] = label[same]
    return found


def needs_of(cells: Cells, system: System, sensitive: Sensitivity, demanded: Bools, whole: bool) -> Needs:
    """What the variables need: an unsafe cell what its rule says, every other ``demanded`` one that it cannot be told exactly."""
    exact = 1.0 if whole else np.maximum(1e-3, 1e-5 * np.abs(cells.value))
    width = np.where(demanded, np.maximum(sensitive.width, exact), 0.0)
    primary = sensitive.primary & demanded
    return Needs(
        width=system.gather(width, np.maximum),
        above=system.gather(np.where(primary, sensitive.above, 0), np.maximum),
        below=system.gather(np.where(primary, sensitive.below, 0), np.maximum),
        person=persons(cells, system, sensitive.alone),
        secret=system.gather(primary.astype(np.float64), np.maximum) > 0,
    )


def audit(
    cells: Cells,
    sensitive: Sensitivity,
    hidden: Bools,
    demanded: Bools,
    known: Bools,
    lower: Floats,
    *,
    whole: bool,
    workers: Workers = ALONE,
    claimed: tuple[Ints, Moves, Moves] | None = None,
) -> Audit:
    """Attack a suppression pattern. ``hidden`` cells are not published; ``demanded`` ones must not be told; ``known`` ones are
    known from elsewhere, ``lower`` is what a hidden cell reaches at least. ``claimed``: a cell of each of some variables, and
    moves of these that are said to leave what is published as it is, short ones and long ones; they are believed after they were
    checked."""
    system = reduce(cells, ~hidden | known, lower)
    needs = needs_of(cells, system, sensitive, demanded, whole)
    everything = np.ones(system.count, dtype=bool)
    proven = Proven.nothing(system.count)
    parts = Parts.of(cells, system)
    if claimed is not None and whole:
        # Most of what single contributors cannot tell is shown by cubes, which are found in no time.
        parts.grid.prove(needs, everything, needs.reach, proven, whole=whole, walk=False)
        for moves, persons in ((claimed[1], True), (claimed[2], False)):
            checked = moves.renamed(system.variable[claimed[0]]).sound(system, everything, np.inf)
            proven.learn(checked, needs, everything, persons=persons)
    found = sweep(system, needs, everything, whole, parts, workers=workers, proven=proven)
    low, high = np.full(len(cells), np.nan), np.full(len(cells), np.nan)
    exact = system.count <= EXACT
    if exact:
        _exactly(system, needs, whole, found.low, found.high)
    secret = np.flatnonzero(hidden)
    variable = system.variable[secret]
    moving = variable >= 0
    low[secret] = high[secret] = cells.value[secret]
    low[secret[moving]] += found.low[variable[moving]]
    high[secret[moving]] += found.high[variable[moving]]
    high[high - np.nan_to_num(cells.value) >= FAR * 0.999] = np.inf
    # The last is that of cells that are no variable.
    failed = np.zeros(system.count + 1, dtype=bool)
    failed[found.failed] = True
    told = dict(found.told[:, ::-1].tolist())
    told_by = np.full(system.count + 1, -1, dtype=np.int64)
    for at, person in told.items():
        told_by[at] = person
    disclosed = []
    told_cells = np.zeros(len(cells), dtype=bool)
    asked = secret[demanded[secret]]
    lost = (system.variable[asked] < 0) | failed[system.variable[asked]] | (told_by[system.variable[asked]] >= 0)
    for at in asked[lost]:
        at_variable = system.variable[at]
        interval = [_plain(float(low[at])), _plain(float(high[at]))]
        entry: dict[str, Any] = {"cell": cells.code(int(at)), "value": _plain(float(cells.value[at])), "interval": interval}
        if at_variable < 0 or failed[at_variable]:
            told_cells[at] = True
            disclosed.append(entry | {"attacker": "outsider", "required": _required(sensitive, int(at), whole)})
        elif sensitive.primary[at] and told_by[at_variable] >= 0:
            told_cells[at] = True
            disclosed.append(entry | {"attacker": "single contributor", "contributor": cells.code(int(told_by[at_variable]))})
    primary = secret[demanded[secret] & sensitive.primary[secret]]
    narrowest = None
    if len(primary):
        spare = (
            high[primary]
            - low[primary]
            - np.maximum(sensitive.width[primary], sensitive.above[primary] + sensitive.below[primary])
        )
        at = int(primary[np.argmin(spare)])
        narrowest = {
            "cell": cells.code(at),
            "interval": [_plain(float(low[at])), _plain(float(high[at]))],
            "required": _required(sensitive, at, whole),
        }
    solved = "linear and, where fractions matter, integer programming (HiGHS) over all hidden cells and relations"
    method = solved + ("; intervals exact" if exact else "; intervals are those proven, the true ones are at least as wide")
    return Audit(not disclosed, method, disclosed, narrowest, low, high, told_cells)


def _exactly(system: System, needs: Needs, whole: bool, low: Floats, high: Floats) -> None:
    for variables in system.components(np.ones(system.count, dtype=bool)):
        shown = np.ones(len(variables), dtype=bool)
        attacker = Attacker(system, variables, needs.of(variables), shown, whole=whole, up=np.full(system.count, FAR))
        for at, variable in enumerate(variables):
            low[variable], high[variable] = attacker.interval(at)


def _required(sensitive: Sensitivity, at: int, whole: bool) -> float | int:
    return _plain(max(float(sensitive.width[at]), float(sensitive.above[at] + sensitive.below[at]), 1.0 if whole else 0.0)) or 0


def _plain(number: float | np.float64) -> float | int | None:
    """As JSON writes it: a whole number without a point, null for what has no bound."""
    value = float(number)
    if not np.isfinite(value):
        return None
    return round(value) if abs(value - round(value)) < 1e-6 else float(value)


def bounded_audit(
    cells: Cells, sensitive: Sensitivity, lower: Floats, upper: Floats, given: Bools, *, most: float, whole: bool
) -> Audit:
    """Attack changed numbers: the attacker knows between what each true one lies, and that the true ones add up.

    An unsafe cell's interval must be as wide as its rule demands, but no more than ``most``, which the method can give.
    """
    system = reduce(cells, given, lower)
    up = system.gather(np.maximum(upper - cells.value, 0), np.minimum, np.inf)
    capped = Sensitivity(
        sensitive.primary, np.minimum(sensitive.width, most), np.zeros(len(cells)), np.zeros(len(cells)), sensitive.alone
    )
    needs = needs_of(cells, system, capped, sensitive.primary, whole)
    found = sweep(system, needs, np.ones(system.count, dtype=bool), whole, Parts.of(cells, system), up=up)
    low, high = cells.value.copy(), cells.value.copy()
    moving = system.variable >= 0
    if system.count <= EXACT:
        for variables in system.components(np.ones(system.count, dtype=bool)):
            shown = np.ones(len(variables), dtype=bool)
            attacker = Attacker(system, variables, needs.of(variables), shown, whole=whole, up=up)
            for at, variable in enumerate(variables):
                found.low[variable], found.high[variable] = attacker.interval(at)
    low[moving] += found.low[system.variable[moving]]
    high[moving] += found.high[system.variable[moving]]
    failed = np.zeros(system.count, dtype=bool)
    failed[found.failed] = True
    failed[found.told[:, 1]] = True
    failed_cells = sensitive.primary & (~moving | failed[np.maximum(system.variable, 0)] if system.count else sensitive.primary)
    disclosed = [
        {
            "cell": cells.code(int(at)),
            "value": _plain(float(cells.value[at])),
            "interval": [_plain(float(low[at])), _plain(float(high[at]))],
        }
        for at in np.flatnonzero(failed_cells)
    ]
    primary = np.flatnonzero(sensitive.primary)
    narrowest = None
    if len(primary):
        at = int(primary[np.argmin(high[primary] - low[primary])])
        narrowest = {
            "cell": cells.code(at),
            "interval": [_plain(float(low[at])), _plain(float(high[at]))],
            "required": _plain(max(float(capped.width[at]), 1.0 if whole else 0.0)),
        }
    method = "linear and integer programming (HiGHS) over the bounds that the changed numbers give and all relations"
    return Audit(not disclosed, method, disclosed, narrowest, low, high, failed_cells)
