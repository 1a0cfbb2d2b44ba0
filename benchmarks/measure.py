"""A row of the table, the median of some runs, the memory of a process."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


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


def peak_mb() -> float:
    """The most memory that this process ever held, in MB. (What getrusage says began with its parent's.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    return int(found[1]) / 1024 if found else 0.0
