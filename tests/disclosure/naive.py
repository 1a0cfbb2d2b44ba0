"""Protectors that do too little, each in its own way: proof that the attacker finds what they leave open. And one that does all.

Never used to publish anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.disclosure.tables import Bools, Table

Cells = list[dict[str, Any]]


def release(truth: Table, hidden: Bools) -> Cells:
    """Cells as ``dopa disclose --json`` prints them."""
    found = []
    for cell in range(len(truth.value)):
        value = float(truth.value[cell])
        status = "published" if not hidden[cell] else "primary" if truth.primary[cell] else "complementary"
        names: dict[str, Any] = dict(truth.names(cell))
        found.append(names | {"value": value, "published": None if hidden[cell] else value, "status": status})
    return found


def primary_only(truth: Table) -> Cells:
    """Hides small cells and publishes the sums that they are told from."""
    return release(truth, truth.primary.copy())


def rows_only(truth: Table) -> Cells:
    """Sees to it that no group along the first dimension has just one hidden cell; the others are not looked at."""
    return release(truth, _second(truth, truth.primary.copy(), [0]))


def flat(truth: Table) -> Cells:
    """Two hidden cells in each group of every dimension, but only among inner cells: margins are not looked at."""
    hidden = truth.primary & truth.inner
    return release(truth, _second(truth, hidden, range(len(truth.dimensions)), only=truth.inner) | truth.primary)


def two_in_each(truth: Table) -> Cells:
    """Two hidden cells in every sum, whatever they are: no look at how wide what is left is, nor at who is alone in a cell."""
    return release(truth, _second(truth, truth.primary.copy(), range(len(truth.dimensions))))


def everything(truth: Table) -> Cells:
    """Hides all that may be hidden. What this does not protect, nothing does."""
    may = (truth.value != 0) | (not truth.zeros_published)
    may &= ~truth.structural
    may[list(truth.known)] = False
    return release(truth, may | truth.primary)


def _second(truth: Table, hidden: Bools, axes: Any, only: Bools | None = None) -> Bools:
    """Hides the smallest other cell of each sum with one hidden cell, until there is none."""
    sums = truth.relations
    groups: dict[int, list[int]] = {}
    for row, cell in zip(sums.row, sums.cell, strict=True):
        groups.setdefault(int(row), []).append(int(cell))
    kept = []
    for group in groups.values():
        places = np.unravel_index(np.array(group), truth.shape)
        along = next((axis for axis, place in enumerate(places) if len(set(place.tolist())) > 1), None)
        if along in set(axes):
            kept.append(group)
    moved = True
    while moved:
        moved = False
        for group in kept:
            if sum(hidden[cell] for cell in group) != 1:
                continue
            may = [cell for cell in group if not hidden[cell] and truth.value[cell] > 0 and (only is None or only[cell])]
            if may:
                hidden[min(may, key=lambda cell: (truth.value[cell], cell))] = True
                moved = True
    return hidden


def protectable(truth: Table) -> bool:
    """Whether any choice of hidden cells can keep what the rule demands: the widest there is, all of them."""
    from tests.disclosure.judge import judge

    return not any(told.primary for told in judge(truth, everything(truth)).told)


def rounded(base: int) -> Callable[[Table], Cells]:
    """Rounds every cell by itself to the nearest multiple; nothing adds up any more, and that tells."""

    def protect(truth: Table) -> Cells:
        cells = release(truth, np.zeros(len(truth.value), bool))
        for cell in cells:
            cell["published"] = base * round(cell["value"] / base)
            cell["status"] = "rounded"
        return cells

    return protect
