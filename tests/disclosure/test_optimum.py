"""The optimum is one: against trying every set of hidden cells."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.disclosure import naive
from tests.disclosure.generate import case
from tests.disclosure.judge import judge
from tests.disclosure.optimum import NotProtectableError, candidates, costs, optimum
from tests.disclosure.tables import Table


def cheapest(truth: Table) -> float | None:
    """By trying all sets of complementary cells; None where not even all of them are enough."""
    cost, cells = costs(truth), np.flatnonzero(candidates(truth))
    sets = [chosen for size in range(len(cells) + 1) for chosen in itertools.combinations(cells, size)]
    for chosen in sorted(sets, key=lambda chosen: cost[list(chosen)].sum()):
        hidden = truth.primary.copy()
        hidden[list(chosen)] = True
        if not any(told.primary for told in judge(truth, naive.release(truth, hidden)).told):
            return float(cost[list(chosen)].sum())
    return None


def small(count: int) -> list[Table]:
    """Tables with at most ten cells that may be complementary, some with knowledge from outside."""
    found, seed = [], 0
    while len(found) < count:
        seed += 1
        truth = case(seed, most=18, dimensions=1 + seed % 3, kind=("frequency", "magnitude")[seed % 2]).table()
        if truth.primary.any() and 3 <= candidates(truth).sum() <= 10:
            found.append(truth)
    return found


@pytest.mark.parametrize("truth", small(16))
def test_nothing_cheaper_protects(truth: Table) -> None:
    expected = cheapest(truth)
    if expected is None:
        with pytest.raises(NotProtectableError):
            optimum(truth)
        return
    found = optimum(truth)
    assert found.cost == pytest.approx(expected)
    assert judge(truth, naive.release(truth, found.hidden), exact=True).kept
