"""Whether a release keeps its promise: what each attacker tells of the hidden cells, against what the rule demands.

The judge knows the truth (``tables.Table``) and the release (the JSON of ``dopa disclose``); the attackers get only the release.
Demands: a primary cell's interval is as wide as its rule says, no hidden cell can be told exactly, and no single contributor
tells another's primary cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.disclosure.attack import CLOSE, INFINITY, Attacker, InfeasibleError, Public, Wanted, joined, public, shuttle, system
from tests.disclosure.tables import Bools, Ints, Table

SAFETY = 0.1


@dataclass(frozen=True)
class Told:
    """A cell of which more can be told than the rule allows."""

    by: str
    """bounds, linear, integer, single contributor, noise; or ``published``: it was never hidden."""
    cell: dict[str, str]
    truth: float
    interval: tuple[float, float]
    demanded: str
    primary: bool

    def __str__(self) -> str:
        what = "primary" if self.primary else "complementary"
        return f"{self.by}: {what} {self.cell}, in truth {self.truth:g}, lies in {list(self.interval)}; demanded: {self.demanded}"


@dataclass
class Verdict:
    """``told``: demands that are broken. ``wrong``: what the release says that is not so. ``intervals``: what was found of each
    hidden cell (exact only where everything was asked).
    """

    told: list[Told] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    intervals: dict[int, tuple[float, float]] = field(default_factory=dict)
    hidden: int = 0
    primary: int = 0
    linear: int = 0
    integer: int = 0

    @property
    def kept(self) -> bool:
        return not self.told and not self.wrong


def demands(table: Table, hidden: Bools) -> Wanted:
    """What an outsider's interval of each hidden cell must be."""
    value = np.abs(table.value)
    # Any hidden cell: not exact.
    width = np.full(len(value), 1.0) if table.counts else np.maximum(2 * CLOSE, 10 * CLOSE * value)
    lower, upper = np.full(len(value), INFINITY), np.full(len(value), -INFINITY)
    by_threshold = table.by_threshold & hidden
    width[by_threshold] = np.maximum(width[by_threshold], table.threshold)
    if not table.counts:
        # For sums, k units say nothing: a tenth of the value on either side (the safety range of τ-ARGUS' threshold rule).
        width[by_threshold] = np.maximum(width[by_threshold], SAFETY * 2 * value[by_threshold])
    rule = table.spec.get("rule") or {}
    if "p" in rule:
        cells, part = table.by_p & hidden, float(rule["p"]) / 100
        lower[cells] = table.value[cells] * (1 - part)
        upper[cells] = table.value[cells] * (1 + part)
    if "dominance" in rule:
        # The attacker's upper estimate must not leave the largest n more than k % of it (τ-ARGUS manual, protection levels of the
        # dominance rule); the same distance below.
        cells, n, k = table.by_dominance & hidden, int(rule["dominance"]["n"]), float(rule["dominance"]["k"])
        needed = np.maximum(table.largest[:, :n].sum(1) * 100 / k - table.value, 0)
        lower[cells] = np.minimum(lower, table.value - needed)[cells]
        upper[cells] = np.maximum(upper, table.value + needed)[cells]
    return Wanted(width, np.where(np.isfinite(lower), np.maximum(lower, 0), lower), upper)


def _said(wanted: Wanted, cell: int) -> str:
    if np.isfinite(wanted.upper[cell]):
        return f"width {wanted.width[cell]:g}, from {wanted.lower[cell]:g} or less to {wanted.upper[cell]:g} or more"
    return f"width {wanted.width[cell]:g}"


def insiders(table: Table) -> list[dict[int, float]]:
    """For each person who is alone in an inner cell: all cells of which he is the only contributor."""
    found = []
    for cell in np.flatnonzero((table.contributors == 1) & table.inner):
        own = [number for number in table.containing(int(cell)) if table.contributors[number] == 1]
        found.append({number: float(table.value[number]) for number in own})
    return found


def judge(table: Table, cells: Iterable[Mapping[str, Any]], *, exact: bool = False, single: bool = True) -> Verdict:
    """``cells``: of the JSON. ``exact``: find every interval to its ends, and hold the audit's own intervals against them."""
    cells = list(cells)
    seen = public(table, cells)
    verdict = Verdict(hidden=int(seen.hidden.sum()), primary=int(table.primary.sum()))
    if seen.method != "suppression":
        return _perturbed(table, seen, verdict)
    hidden = seen.hidden
    wanted = demands(table, hidden)
    differs = ~hidden & (np.abs(np.nan_to_num(seen.published) - table.value) > CLOSE * np.maximum(1, np.abs(table.value)))
    verdict.wrong += [
        f"{table.names(int(cell))} is published as {seen.published[cell]:g}, in truth {table.value[cell]:g}"
        for cell in np.flatnonzero(differs)
    ]
    for number in np.flatnonzero(table.primary & ~hidden):
        value = float(table.value[number])
        verdict.told.append(Told("published", table.names(int(number)), value, (value, value), "hidden", True))
    verdict.wrong += [
        f"{table.names(int(cell))} is hidden, but a zero that is published as zero"
        for cell in np.flatnonzero(hidden & (table.value == 0) & table.zeros_published)
    ]
    if differs.any():
        return verdict
    try:
        attacker = Attacker(system(seen), None if exact else table.value)
        persons: dict[int, list[dict[int, float]]] = {}
        for mine in insiders(table) if single else []:
            for near in {int(attacker.group_of[own]) for own in mine if not attacker.told[own]}:
                persons.setdefault(near, []).append(mine)
        told = np.flatnonzero(hidden & ~table.structural & attacker.told)
        _outsider(table, told, attacker, wanted, exact, verdict)
        for group, cells_of in enumerate(attacker.groups):
            _outsider(table, cells_of[hidden[cells_of]], attacker, wanted, exact, verdict)
            _single(table, cells_of[hidden[cells_of] & table.primary[cells_of]], persons.get(group, []), attacker, verdict)
            part = attacker.component(int(cells_of[0]))
            verdict.linear, verdict.integer = verdict.linear + part.linear, verdict.integer + part.integer
            attacker.forget(group)
    except InfeasibleError as problem:
        verdict.wrong.append(str(problem))
        return verdict
    if exact:
        _compare(table, cells, verdict)
    return verdict


def judge_family(
    tables: tuple[Table, Table], releases: tuple[Iterable[Mapping[str, Any]], Iterable[Mapping[str, Any]]]
) -> Verdict:
    """Two tables of counts over the same people, attacked as one: what both promise must hold for who has read both."""
    seen = tuple(public(table, cells) for table, cells in zip(tables, releases, strict=True))
    known, number = joined(seen[0], seen[1])
    into = (np.arange(len(tables[0].value)), number)
    verdict = Verdict(
        hidden=sum(int(item.hidden.sum()) for item in seen), primary=sum(int(table.primary.sum()) for table in tables)
    )
    truth = np.zeros(len(known.lower))
    for table, there in zip(tables, into, strict=True):
        truth[there] = table.value
    attacker = Attacker(known, truth)
    sensitive: list[int] = []
    for table, item, there in zip(tables, seen, into, strict=True):
        wanted = demands(table, item.hidden)
        spread = Wanted(np.zeros(len(truth)), np.zeros(len(truth)), np.zeros(len(truth)))
        spread.width[there], spread.lower[there], spread.upper[there] = wanted.width, wanted.lower, wanted.upper
        for cell in map(int, np.flatnonzero(table.primary)):
            sensitive.append(int(there[cell]))
            interval = attacker.interval(int(there[cell]), spread)
            if not wanted.met(cell, *interval):
                verdict.told.append(
                    Told("family", table.names(cell), float(table.value[cell]), interval, _said(wanted, cell), True)
                )
    for at, table in enumerate(tables):
        other, here, there = tables[1 - at], into[at], into[1 - at]
        for mine in insiders(table):
            own = {int(here[cell]): value for cell, value in mine.items()}
            # What he shares with the other table tells him his place in it, where that is his alone as well.
            for cell in map(int, np.flatnonzero(other.contributors == 1)):
                around = other.containing(cell)
                if any(int(there[above]) in own for above in around):
                    own |= {int(there[above]): 1.0 for above in around if other.contributors[above] == 1}
            for cell, value in attacker.tells(own, sensitive).items():
                by = f"single contributor of {table.names(next(iter(mine)))}"
                verdict.told.append(Told(by, {"cell": str(cell)}, value, (value, value), "more than one value", True))
    return verdict


def _outsider(table: Table, cells: Ints, attacker: Attacker, wanted: Wanted, exact: bool, verdict: Verdict) -> None:
    low, high = attacker.carried
    for cell in map(int, cells):
        interval = attacker.interval(cell, None if exact else wanted)
        verdict.intervals[cell] = interval
        if not wanted.met(cell, *interval):
            by = "bounds" if not wanted.met(cell, float(low[cell]), float(high[cell])) else "linear"
            if by == "linear" and table.counts and attacker.component(cell).integer:
                by = "integer"
            primary = bool(table.primary[cell])
            verdict.told.append(Told(by, table.names(cell), float(table.value[cell]), interval, _said(wanted, cell), primary))


def _single(table: Table, cells: Ints, persons: list[dict[int, float]], attacker: Attacker, verdict: Verdict) -> None:
    others = [int(cell) for cell in cells]
    for mine in persons:
        for cell, value in attacker.tells(mine, others).items():
            by = f"single contributor of {table.names(next(iter(mine)))}"
            names, truth = table.names(cell), float(table.value[cell])
            verdict.told.append(Told(by, names, truth, (value, value), "more than one value", True))


def _compare(table: Table, cells: Iterable[Mapping[str, Any]], verdict: Verdict) -> None:
    """An audit that claims more room than there is, reassures falsely."""
    for cell in cells:
        claimed, number = cell.get("interval"), table.cell(cell)
        if claimed is None or number not in verdict.intervals:
            continue
        low, high = (float(claimed[0]), INFINITY if claimed[1] is None else float(claimed[1]))
        found = verdict.intervals[number]
        slack = CLOSE * 10 * max(1.0, abs(found[0]))
        if low < found[0] - slack or high > found[1] + slack:
            verdict.wrong.append(f"the audit gives {table.names(number)} the interval {claimed}, the attacker {list(found)}")


def _perturbed(table: Table, seen: Public, verdict: Verdict) -> Verdict:
    """Rounding and noise hide no cell: small counts must not be told exactly by undoing them."""
    if seen.hidden.any():
        verdict.wrong.append("a method that changes numbers leaves none out")
        return verdict
    off = np.abs(seen.published - table.value)
    for far in np.flatnonzero(off > seen.off + CLOSE):
        verdict.wrong.append(f"{table.names(int(far))} is off by {off[far]:g}, more than {seen.off:g}")
    if verdict.wrong:
        return verdict
    attacker = Attacker(system(seen))
    low, high = shuttle(system(seen))
    for cell in (int(number) for number in np.flatnonzero(table.primary)):
        interval = attacker.interval(cell)
        verdict.intervals[cell] = interval
        if interval[1] - interval[0] < (1 if table.counts else CLOSE):
            by = "bounds" if high[cell] - low[cell] < 1 else "noise"
            verdict.told.append(Told(by, table.names(cell), float(table.value[cell]), interval, "more than one value", True))
    return verdict
