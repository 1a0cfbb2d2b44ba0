"""Which cells are unsafe, and how wide an attacker's interval must stay.

The rules are the standard ones: threshold (minimum frequency), dominance (n,k) and p %. Sources: Hundepool, Domingo-Ferrer,
Franconi, Giessing, Schulte Nordholt, Spicer, de Wolf, *Statistical Disclosure Control* (Wiley 2012), ch. 4; Willenborg and de
Waal, *Elements of Statistical Disclosure Control* (Springer 2001), ch. 6; the τ-ARGUS manual (protection levels); thresholds of 3
to 10 are in use (UNECE, *Managing Statistical Confidentiality and Microdata Access*, 2007; ONS, *Disclosure control guidance for
tables of birth and death statistics*). How cells are then hidden belongs to :mod:`.suppression`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Floats

SAFETY_RANGE = 10.0
"""Per cent by which a hidden sum must stay uncertain to either side where it is unsafe by its few contributors; p where that is
more."""


@dataclass(frozen=True)
class Dominance:
    """A sum is unsafe when its ``n`` largest contributors make more than ``k`` per cent of it."""

    n: int
    k: float


@dataclass(frozen=True)
class Rule:
    """``threshold``: fewer people than this are unsafe. ``dominance`` and ``p`` are for sums.

    p %: unsafe when the second largest contributor can estimate the largest to within ``p`` per cent: when the rest of the
    cell, without the two, is smaller than p/100 of the largest.
    """

    threshold: int = 5
    dominance: Dominance | None = None
    p: float | None = None


@dataclass
class Sensitivity:
    """For each cell: is it unsafe (``primary``), and what an attacker's interval [lo, hi] must then keep.

    ``width``: hi - lo at least. ``above``: hi - value at least. ``below``: value - lo at least. ``alone``: of one contributor.
    """

    primary: Bools
    width: Floats
    above: Floats
    below: Floats
    alone: Bools


def sensitivity(cells: Cells, rule: Rule, *, magnitude: bool) -> Sensitivity:
    """Apply ``rule``. A zero is never unsafe: there is nobody in it."""
    people, value = cells.contributors, cells.value
    there = people > 0
    threshold = np.where(cells.threshold > 0, cells.threshold, rule.threshold).astype(np.float64)
    few = there & (people < threshold)
    width = np.where(few, threshold, 0.0)
    above = np.zeros(len(cells))
    below = np.zeros(len(cells))
    primary = few.copy()
    if magnitude:
        above[few] = below[few] = max(SAFETY_RANGE, rule.p or 0.0) / 100 * value[few]
        if rule.dominance is not None:
            # Protection level of the tau-ARGUS manual: what the n largest would be k per cent of, less the cell.
            large = cells.largest[:, : rule.dominance.n].sum(axis=1)
            unsafe = there & (value > 0) & (large > rule.dominance.k / 100 * value * (1 + 1e-12))
            level = np.maximum(100 / rule.dominance.k * large - value, 0)
            above = np.maximum(above, np.where(unsafe, level, 0))
            below = np.maximum(below, np.where(unsafe, np.minimum(level, value), 0))
            primary |= unsafe
        if rule.p is not None:
            margin = rule.p / 100 * value
            rest = value - cells.largest[:, :2].sum(axis=1)
            unsafe = there & (value > 0) & (rest < rule.p / 100 * cells.largest[:, 0] * (1 - 1e-12))
            above = np.maximum(above, np.where(unsafe, margin, 0))
            below = np.maximum(below, np.where(unsafe, margin, 0))
            primary |= unsafe
    return Sensitivity(primary, width, above, below, there & (people == 1))
