"""A row of the table, and the median of some runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measure. ``met`` is None where there is no target."""

    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, str, str, str, str, str]:
        met = "" if self.met is None else "yes" if self.met else "no"
        return self.what, self.ours, self.peer, self.ratio, self.target, met


def median(run: Callable[[], float], times: int = 5) -> float:
    """Median of ``run``'s own figure over some runs."""
    return statistics.median(run() for _ in range(times))
