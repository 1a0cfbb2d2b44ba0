"""The cell-key method: noise that is the same for the same people, wherever their cell appears.

Each record has a random key in [0, 1). The keys of a cell's records are added modulo 1; count and cell key look up the noise in a
perturbation table. Zeros stay zero, the noise is unbiased and at most ``maximum``; margins are perturbed by themselves, so they
need not add up. Sources: Fraser and Wooton (2006), Thompson, Broadfoot and Elazar (2013; ABS TableBuilder); the table's rows are
the distributions of maximum entropy of Giessing (2016), parametrised as in the R package ``ptable`` (D, V, js).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.disclosure.audit import Audit, bounded_audit
from dopa_pipelines.publishing.disclosure.rules import Sensitivity
from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Floats


@dataclass(frozen=True)
class Noise:
    """``maximum``: the greatest noise (D). ``variance``: at most (V). ``jth``: counts of 1 to this are never shown (js)."""

    variance: float = 2.0
    maximum: int = 4
    jth: int = 0


class Perturbed(NamedTuple):
    published: Floats
    audit: Audit


@cache
def table(noise: Noise) -> Floats:
    """Probabilities: row i for the count i (the last for all above), column j for the noise j - maximum. Row 0: zero stays."""
    rows = np.zeros((noise.maximum + noise.jth + 1, 2 * noise.maximum + 1))
    rows[0, noise.maximum] = 1
    for count in range(1, len(rows)):
        steps = np.arange(-noise.maximum, noise.maximum + 1)
        there = (count + steps >= 0) & ~((count + steps >= 1) & (count + steps <= noise.jth))
        rows[count, there] = _most_entropy(steps[there].astype(np.float64), noise, count)
    return rows


def _most_entropy(steps: Floats, noise: Noise, count: int) -> Floats:
    """The distribution over ``steps`` of maximum entropy with mean 0 and variance at most the given: exp(a v + b v²), b ≤ 0."""
    below, above = steps[steps <= 0], steps[steps >= 0]
    least = -below.max(initial=-np.inf) * above.min(initial=np.inf) if len(below) and len(above) else np.inf
    if not least <= noise.variance:
        raise UserError(
            f"cellKey: no noise of at most {noise.maximum} with variance {noise.variance:g} keeps a count of {count} unbiased "
            f"and out of 1 to {noise.jth}; raise maximum or variance, or lower jth"
        )

    def with_curve(curve: float) -> Floats:
        low, high = -60.0, 60.0
        for _ in range(200):
            tilt = (low + high) / 2
            power = tilt * steps + curve * steps**2
            weight = np.exp(power - power.max())
            weight /= weight.sum()
            low, high = (tilt, high) if weight @ steps < 0 else (low, tilt)
        return np.asarray(weight, dtype=np.float64)

    flat = with_curve(0.0)
    if flat @ steps**2 <= noise.variance:
        return flat
    low, high = -60.0, 0.0
    for _ in range(100):
        curve = (low + high) / 2
        low, high = (curve, high) if with_curve(curve) @ steps**2 < noise.variance else (low, curve)
    return with_curve(low)


def perturb(cells: Cells, noise: Noise, sensitive: Sensitivity, given: Bools, *, whole: bool) -> Perturbed:
    """Counts with their noise. Raises :class:`UserError` for sums."""
    if not whole:
        raise UserError("the cell-key method here is for counts; use suppression for sums")
    probabilities = table(noise)
    count = np.minimum(cells.value, len(probabilities) - 1).astype(np.int64)
    ends = np.cumsum(probabilities, axis=1)
    ends[:, -1] = 1.0
    key = np.mod(np.round(np.mod(cells.key, 1.0), 12), 1.0)
    step = (key[:, None] >= ends[count]).sum(axis=1) - noise.maximum
    published = cells.value + step
    audit = bounded_audit(
        cells, sensitive, np.maximum(published - noise.maximum, 0), published + noise.maximum, given, most=1.0, whole=whole
    )
    return Perturbed(published, audit)
