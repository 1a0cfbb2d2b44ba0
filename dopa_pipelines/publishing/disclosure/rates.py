"""Percentages and means beside protected counts: what they tell, and what must be hidden or made coarser with them.

A percentage over a hidden count is hidden. One over published counts is shown to so many decimals that the interval of its
numerator, given percentage and denominator, is not narrower than the counts' own protection (Hundepool et al. 2012, ch. 5:
published ratios are relations like any other).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from dopa_pipelines.publishing.disclosure.tables import Bools, Floats


class Numerators(NamedTuple):
    """The least and the greatest numerator that a published rate allows."""

    low: Floats
    high: Floats


def numerators(rate: Floats, denominator: Floats, decimals: int, scale: float = 100.0) -> Numerators:
    """Whole numerators n with round(scale · n / denominator, decimals) = rate; rounding either way at a half is allowed for.

    ``denominator`` as published, 0 gives 0 … 0.
    """
    half = 0.5 * 10.0**-decimals
    low = np.ceil(np.maximum(rate - half, 0) * denominator / scale - 1e-9)
    high = np.floor((rate + half) * denominator / scale + 1e-9)
    return Numerators(low, np.maximum(high, low))


def decimals_for(denominator: Floats, width: float, most: int = 2, scale: float = 100.0) -> int:
    """The most decimals (possibly negative: tens) at which every numerator keeps ``width`` + 1 possible values."""
    least = float(np.min(denominator[denominator > 0], initial=np.inf))
    for decimals in range(most, -3, -1):
        if 10.0**-decimals * least / scale >= width + 1:
            return decimals
    return -2


def hidden_rates(numerator: pl.Series, denominator: pl.Series) -> pl.Series:
    """True where a rate must be hidden: its numerator or its denominator is (null)."""
    return numerator.is_null() | denominator.is_null()


def telling(
    rate: Floats, decimals: int, numerator: Floats, denominator: Floats, unsafe: Bools, width: float, scale: float = 100.0
) -> Bools:
    """True where a rate tells an ``unsafe`` numerator more nearly than ``width`` allows, the denominator being published."""
    found = numerators(rate, denominator, decimals, scale)
    inside = (found.low <= numerator) & (numerator <= found.high)
    return unsafe & inside & (found.high - found.low < width)
