"""What can be told about hidden cells from what was published.

The attackers get a ``Public``: what a reader of the release sees, never the truth. Each makes of it a ``System`` of sums and
bounds, and reads the system:

- ``shuttle``: bounds carried from sum to sum until nothing moves (Buzzigoli and Giusti, An algorithm to calculate the lower and
  upper bounds of the elements of an array given its marginals, 1999);
- ``Attacker``: the interval of a cell over the whole system, by linear programming; for counts by integer programming where the
  linear answer is not whole (HiGHS). It also plays the insiders: single contributors, who know their own cells.

Earlier releases, other tables and official totals are cells that are known (``Public.known``), or a second table of the same
people (``joined``); percentages and means are sums between bounds (``rates``); rounding and noise are bounds on every cell.
Whether what was told may be told is for ``judge`` to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np

from tests.disclosure.tables import Bools, Dimension, Floats, Ints, Relations, Table, relations

INFINITY = math.inf
CLOSE = 1e-6
SECONDS = 30.0
"""What an integer program may take; after that its bound stands for its optimum, which is still a true bound."""


@dataclass(frozen=True)
class Public:
    """What everybody can see. ``published``: nan where a cell is hidden. Arrays over all cells, inner and margins."""

    dimensions: tuple[Dimension, ...]
    published: Floats
    structural: Bools
    known: dict[int, float]
    counts: bool
    zeros_published: bool
    method: str
    """suppression, rounding or cell_key; the last two publish numbers that are off by at most ``off``."""
    off: float = 0.0
    threshold: int = 5

    @property
    def hidden(self) -> Bools:
        return np.isnan(self.published)


def public(table: Table, cells: Iterable[Mapping[str, Any]]) -> Public:
    """``cells``: those that ``dopa disclose --json`` prints, of which only the coordinates and ``published`` are looked at.

    A combination that it does not print is published as zero.
    """
    published = np.zeros(len(table.value))
    for cell in cells:
        number = cell["published"]
        published[table.cell(cell)] = np.nan if number is None else float(number)
    method = str(table.spec.get("method", "suppression"))
    off = {
        "suppression": 0.0,
        "rounding": float(table.spec.get("base", 5)) - (1.0 if table.counts else 0.0),
        "cell_key": float((table.spec.get("cellKey") or {}).get("maximum", 5)),
    }[method]
    zeros = table.zeros_published
    return Public(table.dimensions, published, table.structural, table.known, table.counts, zeros, method, off, table.threshold)


@dataclass(frozen=True)
class System:
    """Sums of cells between bounds, and bounds of cells. ``whole``: cells are counts."""

    sums: Relations
    lower: Floats
    upper: Floats
    whole: bool


def system(seen: Public) -> System:
    """What an outsider knows: what is published, that it adds up, what zero means, and what he knows besides."""
    if seen.method == "suppression":
        least = 1.0 if seen.zeros_published and seen.counts else 0.0
        lower = np.where(seen.hidden, least, seen.published)
        upper = np.where(seen.hidden, INFINITY, seen.published)
    else:
        lower = np.maximum(np.ceil(seen.published - seen.off) if seen.counts else seen.published - seen.off, 0)
        upper = np.floor(seen.published + seen.off) if seen.counts else seen.published + seen.off
    lower, upper = np.where(seen.structural, 0.0, lower), np.where(seen.structural, 0.0, upper)
    for cell, value in seen.known.items():
        lower[cell] = upper[cell] = value
    return System(relations(seen.dimensions), lower, upper, seen.counts)


def joined(first: Public, second: Public) -> tuple[System, Ints]:
    """Two tables of one family as one system, and the numbers in it of the second table's cells.

    They count the same people: a cell whose named codes are alike, every other dimension at its total, is one cell.
    """
    one, two = system(first), system(second)
    names = {item.name: number for number, item in enumerate(first.dimensions)}
    shapes = [tuple(len(item.codes) for item in seen.dimensions) for seen in (first, second)]
    places = np.array(np.unravel_index(np.arange(len(two.lower)), shapes[1]))
    into = np.zeros((len(shapes[0]), len(two.lower)), np.int64)
    shared = np.ones(len(two.lower), bool)
    for axis, item in enumerate(second.dimensions):
        if item.name in names:
            codes = first.dimensions[names[item.name]].position
            there = np.array([codes.get(code, -1) for code in item.codes])[places[axis]]
            shared &= there >= 0
            into[names[item.name]] = np.maximum(there, 0)
        else:
            shared &= places[axis] == 0
    number = np.arange(len(two.lower)) + len(one.lower)
    number[shared] = np.ravel_multi_index(tuple(into[:, shared]), shapes[0])
    size = len(one.lower) + len(two.lower)
    lower, upper = np.zeros(size), np.zeros(size)
    lower[: len(one.lower)], upper[: len(one.upper)] = one.lower, one.upper
    lower[len(one.lower) :], upper[len(one.upper) :] = two.lower, two.upper
    lower[number[shared]] = np.maximum(one.lower[number[shared]], two.lower[shared])
    upper[number[shared]] = np.minimum(one.upper[number[shared]], two.upper[shared])
    again = replace(two.sums, cell=number[two.sums.cell])
    return System(one.sums.plus(again), lower, upper, one.whole and two.whole), number


@dataclass(frozen=True)
class Rate:
    """A figure published beside the table: 100 × numerator / denominator for percentages, numerator / denominator for means."""

    numerator: int
    denominator: int
    published: float
    decimals: int
    times: float = 100.0


def rates(known: System, published: Sequence[Rate]) -> System:
    """With what rates tell: the exact quotient lies within half a unit of the last digit, which binds two cells together."""
    row: list[int] = []
    cell: list[int] = []
    coefficient: list[float] = []
    lower: list[float] = []
    upper: list[float] = []
    for rate in published:
        half = 0.5 * 10.0**-rate.decimals
        for bound, below in (((rate.published - half) / rate.times, True), ((rate.published + half) / rate.times, False)):
            row += [len(lower)] * 2
            cell += [rate.numerator, rate.denominator]
            coefficient += [1.0, -bound]
            lower.append(-CLOSE if below else -INFINITY)
            upper.append(INFINITY if below else CLOSE)
    more = Relations(
        np.array(row, np.int64), np.array(cell, np.int64), np.array(coefficient), np.array(lower), np.array(upper)
    )  # fmt: skip
    return replace(known, sums=known.sums.plus(more))


def shuttle(known: System, rounds: int = 200) -> tuple[Floats, Floats]:
    """Bounds of every cell, carried from sum to sum: a term is what its sum leaves when the others are at their bounds."""
    sums, lower, upper = known.sums, known.lower.copy(), known.upper.copy()
    count = len(sums.lower)
    up = sums.coefficient > 0

    def total(values: Floats) -> tuple[Floats, Floats]:
        endless = np.isinf(values).astype(float)
        finite = np.where(endless > 0, 0.0, values)
        rest: Floats = np.bincount(sums.row, finite, count).astype(float)[sums.row] - finite
        ends: Floats = np.bincount(sums.row, endless, count).astype(float)[sums.row] - endless
        return rest, ends

    for _ in range(rounds):
        low, high = lower[sums.cell], upper[sums.cell]
        least = np.where(up, sums.coefficient * low, sums.coefficient * high)
        most = np.where(up, sums.coefficient * high, sums.coefficient * low)
        rest_least, endless_least = total(least)
        rest_most, endless_most = total(most)
        ceiling = np.where(endless_least > 0, INFINITY, sums.upper[sums.row] - rest_least)
        floor = np.where(endless_most > 0, -INFINITY, sums.lower[sums.row] - rest_most)
        with np.errstate(invalid="ignore"):
            new_high = np.where(up, ceiling, floor) / sums.coefficient
            new_low = np.where(up, floor, ceiling) / sums.coefficient
        if known.whole:
            new_high, new_low = np.floor(new_high + CLOSE), np.ceil(new_low - CLOSE)
        next_lower, next_upper = lower.copy(), upper.copy()
        np.maximum.at(next_lower, sums.cell, new_low)
        np.minimum.at(next_upper, sums.cell, new_high)
        # Numbers that were rounded on their way must not cross.
        next_lower = np.where(known.lower == known.upper, known.lower, next_lower)
        next_upper = np.where(known.lower == known.upper, known.upper, next_upper)
        finite = np.isfinite(upper)
        moved = bool((next_lower > lower + CLOSE).any() or (next_upper[finite] < upper[finite] - CLOSE).any())
        moved = moved or bool((np.isfinite(next_upper) & ~finite).any())
        lower, upper = next_lower, next_upper
        if not moved:
            break
    return lower, upper


def components(sums: Relations, open_: Bools) -> list[Ints]:
    """Cells that are open, in groups that no sum connects."""
    keep = open_[sums.cell]
    row, cell = sums.row[keep], sums.cell[keep]
    leader = np.arange(len(open_))
    while True:  # the least number spreads along sums, and jumps
        least = np.full(len(sums.lower), len(open_))
        np.minimum.at(least, row, leader[cell])
        new = leader.copy()
        np.minimum.at(new, cell, least[row])
        new = new[new]
        if (new == leader).all():
            break
        leader = new
    cells = np.flatnonzero(open_)
    order = cells[np.argsort(leader[cells], kind="stable")]
    cuts = np.flatnonzero(np.diff(leader[order])) + 1
    return list(np.split(order, cuts)) if len(order) else []


class InfeasibleError(Exception):
    """Nothing fits what was published: it does not add up, or what is known contradicts it."""


class Component:
    """Open cells that hang together, as a program that is asked for one cell after another.

    ``points``: assignments that fit everything published, met on the way (whole where cells are counts). Two of them that differ
    in a cell prove that it cannot be told.
    """

    def __init__(self, known: System, cells: Ints, entries: Ints) -> None:
        """``entries``: the terms of ``known.sums`` in all sums that any of ``cells`` is in."""
        self.cells, self.whole = cells, known.whole
        self.place = {int(cell): number for number, cell in enumerate(cells)}
        self.lower, self.upper = known.lower[cells].copy(), known.upper[cells].copy()
        self._points, self.met = np.zeros((0, len(cells))), 0
        self.linear = self.integer = 0
        sums = known.sums
        row, cell, coefficient = sums.row[entries], sums.cell[entries], sums.coefficient[entries]
        rows, row = np.unique(row, return_inverse=True)
        low, high = sums.lower[rows].copy(), sums.upper[rows].copy()
        mine = np.isin(cell, cells)
        fixed = np.bincount(row[~mine], coefficient[~mine] * known.lower[cell[~mine]], len(rows))
        low, high = low - fixed, high - fixed
        row, cell, coefficient = row[mine], np.searchsorted(cells, cell[mine]), coefficient[mine]
        order = np.argsort(row, kind="stable")
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = len(cells), len(rows)
        program.col_cost_ = np.zeros(len(cells))
        program.col_lower_, program.col_upper_ = self.lower, self.upper
        program.row_lower_, program.row_upper_ = low, high
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.start_ = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(rows)))])
        program.a_matrix_.index_ = cell[order]
        program.a_matrix_.value_ = coefficient[order]
        self.program = program
        self.solver = solver()
        self.solver.setOptionValue("presolve", "off")
        self.solver.setOptionValue("solver", "simplex")
        self.solver.passModel(program)
        self.objective: Ints = np.zeros(0, np.int64)

    def fix(self, values: Mapping[int, float]) -> None:
        """What an insider knows, until ``free``."""
        for cell, value in values.items():
            self.solver.changeColBounds(self.place[cell], value, value)
        self.fixed = dict(values)

    def free(self) -> None:
        for cell in self.fixed:
            at = self.place[cell]
            self.solver.changeColBounds(at, self.lower[at], self.upper[at])
        self.fixed = {}

    fixed: Mapping[int, float] = {}

    def extreme(self, cells: Sequence[int], sign: int) -> tuple[float, bool]:
        """The least (``sign`` 1) or greatest (-1) value of a sum of cells, by the linear program; and whether a point has it."""
        self.linear += 1
        at = np.array([self.place[int(cell)] for cell in cells], np.int64)
        if len(self.objective):
            self.solver.changeColsCost(len(self.objective), self.objective, np.zeros(len(self.objective)))
        self.solver.changeColsCost(len(at), at, np.full(len(at), float(sign)))
        self.objective = at
        self.solver.run()
        status = self.solver.getModelStatus()
        if status == highspy.HighsModelStatus.kUnknown:  # lost on the way from the answer before: begin anew
            self.solver.clearSolver()
            self.solver.run()
            status = self.solver.getModelStatus()
        if status in (highspy.HighsModelStatus.kUnbounded, highspy.HighsModelStatus.kUnboundedOrInfeasible):
            return -sign * INFINITY, True
        if status == highspy.HighsModelStatus.kInfeasible:
            raise InfeasibleError(f"nothing fits what was published around cell {cells[0]}")
        if status != highspy.HighsModelStatus.kOptimal:
            raise RuntimeError(f"HiGHS: {self.solver.modelStatusToString(status)}")
        point = np.array(self.solver.getSolution().col_value)
        return float(point[at].sum()), self.keep(point)

    def whole_extreme(self, cell: int, sign: int) -> float:
        """The same over whole numbers."""
        self.integer += 1
        whole = solver()
        whole.setOptionValue("time_limit", SECONDS)
        whole.setOptionValue("mip_rel_gap", 0.0)
        whole.passModel(self.program)
        count = len(self.cells)
        whole.changeColsIntegrality(count, np.arange(count), np.full(count, 1, np.uint8))
        for known, value in self.fixed.items():
            whole.changeColBounds(self.place[known], value, value)
        whole.changeColCost(self.place[cell], float(sign))
        whole.run()
        status = whole.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            raise InfeasibleError(f"no whole numbers fit what was published around cell {cell}")
        if status != highspy.HighsModelStatus.kOptimal:
            bound = float(whole.getInfo().mip_dual_bound)
            return math.ceil(bound - CLOSE) if sign > 0 else math.floor(-bound + CLOSE)
        point = np.array(whole.getSolution().col_value)
        self.keep(point)
        return round(float(point[self.place[cell]]))

    def keep(self, point: Floats) -> bool:
        """Remember an assignment that fits; False where it is none, for cells that are counts and not whole."""
        if self.whole:
            near = np.round(point)
            if np.abs(point - near).max() > 1e-5:
                return False
            point = near
        if self.met == len(self._points):
            self._points = np.concatenate([self._points, np.zeros((max(16, self.met), len(self.cells)))])
        self._points[self.met] = point
        self.met += 1
        return True

    @property
    def points(self) -> Floats:
        return self._points[: self.met]


def solver() -> highspy.Highs:
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    return solver


@dataclass(frozen=True)
class Wanted:
    """How wide intervals must be, cell by cell: enough of it ends the search. Without it every interval is exact.

    An interval is wide enough with ``width`` between its ends, its lower end at ``lower`` or below, its upper at ``upper`` or
    above.
    """

    width: Floats
    lower: Floats
    upper: Floats

    def met(self, cell: int, low: float, high: float) -> bool:
        slack = CLOSE * max(1.0, abs(self.width[cell]))
        return bool(
            high - low >= self.width[cell] - slack
            and (low <= self.lower[cell] + CLOSE * max(1.0, abs(low)))
            and (high >= self.upper[cell] - CLOSE * max(1.0, abs(high) if math.isfinite(high) else 1.0))
        )


class Attacker:
    """Who knows a system: first carries bounds, then asks programs.

    ``fits``: numbers that fit it. They are a point met beforehand and save some search; no answer depends on them.
    """

    def __init__(self, known: System, fits: Floats | None = None) -> None:
        self.known, self.fits = known, fits
        lower, upper = shuttle(known)
        if (lower > upper + CLOSE * np.maximum(1, np.abs(lower))).any():
            cell = int(np.argmax(lower - upper))
            raise InfeasibleError(f"nothing fits what was published around cell {cell}")
        self.carried = lower, upper
        told = upper - lower <= CLOSE * np.maximum(1, np.abs(lower))
        self.known = replace(known, lower=lower, upper=np.where(told, lower, upper))
        self.told = told
        self.groups = components(known.sums, ~told)
        self.group_of = np.full(len(lower), -1)
        for number, cells in enumerate(self.groups):
            self.group_of[cells] = number
        sums = known.sums
        row_group = np.full(len(sums.lower), -1)
        open_ = ~told[sums.cell]
        row_group[sums.row[open_]] = self.group_of[sums.cell[open_]]
        of = row_group[sums.row]
        order = np.argsort(of, kind="stable")
        starts = np.searchsorted(of[order], np.arange(len(self.groups) + 1))
        self._entries = [order[starts[number] : starts[number + 1]] for number in range(len(self.groups))]
        self._made: dict[int, Component] = {}

    def component(self, cell: int) -> Component:
        number = int(self.group_of[cell])
        if number not in self._made:
            self._made[number] = Component(self.known, self.groups[number], self._entries[number])
            if self.fits is not None:
                self._made[number].keep(self.fits[self.groups[number]])
        return self._made[number]

    def forget(self, group: int) -> None:
        """What was built for a group of cells is let go; whole countries have a thousand of them."""
        self._made.pop(group, None)

    def interval(self, cell: int, wanted: Wanted | None = None) -> tuple[float, float]:
        """What a cell can be at least and at most. With ``wanted``, two values of it that lie far enough apart, if there are."""
        low, high = float(self.known.lower[cell]), float(self.known.upper[cell])
        if self.told[cell]:
            return low, low
        if wanted is not None and not wanted.met(cell, low, high):
            return low, high  # already too narrow
        part = self.component(cell)
        at = part.place[cell]

        def seen() -> tuple[float, float]:
            values = part.points[:, at]
            return (float(values.min()), float(values.max())) if len(values) else (INFINITY, -INFINITY)

        ends, exact = [low, high], [False, False]
        for end, sign in ((1, -1), (0, 1)):
            if wanted is not None and wanted.met(cell, *seen()):
                return seen()
            ends[end], exact[end] = part.extreme([cell], sign)
        if not part.whole:
            return ends[0], ends[1]
        ends = [math.ceil(ends[0] - CLOSE), math.floor(ends[1] + CLOSE) if math.isfinite(ends[1]) else INFINITY]
        if wanted is not None and not wanted.met(cell, *ends):
            return ends[0], ends[1]  # the whole numbers are fewer still
        for end, sign in ((1, -1), (0, 1)):
            if not exact[end]:
                ends[end] = part.whole_extreme(cell, sign)
        return ends[0], ends[1]

    def tells(self, mine: Mapping[int, float], others: Iterable[int]) -> dict[int, float]:
        """Which of ``others`` can be told exactly by an insider who knows the values of cells ``mine``."""
        told: dict[int, float] = {}
        groups: dict[int, list[int]] = {}
        for cell in others:
            if self.told[cell] or cell in mine:
                continue  # told to everybody, or his own
            groups.setdefault(int(self.group_of[cell]), []).append(cell)
        knows: dict[int, dict[int, float]] = {}
        for cell, value in mine.items():
            if not self.told[cell]:
                knows.setdefault(int(self.group_of[cell]), {})[cell] = value
        for number, cells in groups.items():
            if number in knows:
                told |= _told(self.component(cells[0]), knows[number], cells)
        return told


def _told(part: Component, mine: Mapping[int, float], others: Sequence[int]) -> dict[int, float]:
    own = np.array([part.place[cell] for cell in mine])
    values = np.array(list(mine.values()))
    at = np.array([part.place[cell] for cell in others])
    low, high = np.full(len(at), INFINITY), np.full(len(at), -INFINITY)
    looked = 0

    def look() -> None:
        nonlocal looked, low, high
        new = part.points[looked:]
        fits = new[(np.abs(new[:, own] - values) <= CLOSE * np.maximum(1, np.abs(values))).all(1)]
        if len(fits):
            low, high = np.minimum(low, fits[:, at].min(0)), np.maximum(high, fits[:, at].max(0))
        looked = part.met

    def left() -> list[int]:
        return [int(number) for number in np.flatnonzero(~(high - low > CLOSE * np.maximum(1, np.abs(low))))]

    look()
    if not left():
        return {}
    told: dict[int, float] = {}
    part.fix(mine)
    try:
        for sign in (-1, 1):
            if left():
                part.extreme([others[number] for number in left()], sign)
                look()
        for number in left():
            cell, ends = others[number], [-INFINITY, INFINITY]
            for end, sign in ((0, 1), (1, -1)):
                if number not in left():
                    break  # points met on the way differ in it
                ends[end], attained = part.extreme([cell], sign)
                if part.whole and not attained:
                    ends[end] = part.whole_extreme(cell, sign)
                look()
            else:
                if ends[1] - ends[0] <= CLOSE * max(1.0, abs(ends[0])):
                    told[cell] = ends[0]
                else:
                    low[number], high[number] = ends[0], ends[1]
    finally:
        part.free()
    return told


def knowing(seen: Public, primary: Bools) -> System:
    """What somebody knows who can tell which hidden cells were hidden by the threshold: those are below it, the others are not.

    Nobody publishes that; what it would give away is what the pattern itself gives away at the very worst.
    """
    known = system(seen)
    lower, upper = known.lower.copy(), known.upper.copy()
    small, other = seen.hidden & primary, seen.hidden & ~primary & (known.lower > 0)
    upper[small] = np.minimum(upper[small], seen.threshold - 1)
    lower[other] = np.maximum(lower[other], seen.threshold)
    return replace(known, lower=lower, upper=upper)


def averaged(seen: Public) -> Floats:
    """The likeliest numbers behind noise that is alike and independent in every cell: the nearest that add up (least squares).

    Every margin is another measurement of its parts, so averaging over the sums takes noise away.
    """
    sums = relations(seen.dimensions)
    matrix = np.zeros((len(sums.lower), len(seen.published)))
    matrix[sums.row, sums.cell] = sums.coefficient
    away = np.linalg.lstsq(matrix @ matrix.T, matrix @ seen.published, rcond=None)[0]
    nearest: Floats = seen.published - matrix.T @ away
    return nearest
