"""What is unusual without a rule: ours and elementary's z-score on the same series of the same histories, with planted faults.

Elementary (a dbt package) calls a value anomalous where it is more than ``anomaly_sensitivity`` standard deviations (3) off
the mean of a trailing ``training_period`` (14 time buckets by default, 30 in its examples), a day of the week among its own where
``seasonality: day_of_week`` is set; up to 0.21 the value itself was always in the mean, since then
``exclude_detection_period_from_training`` takes it out. All of these are tried on each series that we watch. Shown are its
defaults, its best setting at its sensitivity of 3, and its best with a sensitivity chosen in hindsight, on these very histories,
to keep to our promise of false alarms.

https://docs.elementary-data.com/data-tests/how-anomaly-detection-works,
https://docs.elementary-data.com/data-tests/anomaly-detection-configuration/anomaly-sensitivity,
https://docs.elementary-data.com/data-tests/anomaly-detection-configuration/training-period,
https://docs.elementary-data.com/data-tests/anomaly-detection-configuration/seasonality
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Row
from dopa_pipelines.settings import Settings

MONTHLY, DAILY = range(1000, 1120), range(1000, 1008)
"""Seeds; those below 1000 were there to build the method with."""
SENSITIVITIES = (3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 40.0)
Scores = list[tuple[int, str, str | None, float]]
"""Place, aspect, column, deviations off."""


@dataclass(frozen=True)
class Peer:
    """A way to set elementary's test."""

    training: int
    weekday: bool
    itself: bool

    def __str__(self) -> str:
        itself = "itself in the mean" if self.itself else "without itself"
        return f"{self.training} buckets{', by day of the week' if self.weekday else ''}, {itself}"

    def scores(self, made: Any) -> Scores:
        """Of every judged delivery the most deviant figure of each column and aspect."""
        found: dict[tuple[int, str, str | None], float] = {}
        weekdays = np.array([item.day.weekday() for item in made.seen])
        for aspect, column, values in _figures(made):
            for place in made.judged:
                before = np.arange(place + self.itself)
                if self.weekday:
                    before = before[weekdays[before] == weekdays[place]]
                training = values[before[-self.training :]]
                training = training[np.isfinite(training)]
                if len(training) < 7 or not np.isfinite(values[place]):
                    continue
                wide = training.std(ddof=1)
                # Where nothing ever varied elementary scores nothing.
                off = abs(values[place] - training.mean()) / wide if wide > 0 else 0.0
                key = (place, aspect, column)
                found[key] = max(found.get(key, 0.0), float(off))
        return [(*key, off) for key, off in found.items()]


def _figures(made: Any) -> list[tuple[str, str | None, npt.NDArray[np.float64]]]:
    """The series that we watch, as elementary has monitors for: row_count, null_percent, dimensions, average (and quantiles)."""
    seen = made.seen
    rows = np.array([item.rows for item in seen], dtype=np.float64)
    figures: list[tuple[str, str | None, npt.NDArray[np.float64]]] = [("rows", None, rows)]
    for name in seen[0].columns:
        facts = [item.columns[name] for item in seen]
        missing = np.array([one["missing"] for one in facts], dtype=np.float64)
        figures.append(("missing", name, missing / np.maximum(rows, 1)))
        if any("top" in one for one in facts):
            for value in dict.fromkeys(value for one in facts for value, _ in one.get("top", ())):
                counts = np.array([dict(map(tuple, one.get("top", ()))).get(value, 0) for one in facts], dtype=np.float64)
                # A dimension that elementary has not met has no training, so that it scores no first count.
                figures.append(("categories", name, counts / np.maximum(rows - missing, 1)))
        if any("mean" in one for one in facts):
            figures.append(("numbers", name, np.array([one.get("mean", np.nan) for one in facts], dtype=np.float64)))
            for at in range(2, 7):
                quantiles = [one["quantiles"][at] if "quantiles" in one else np.nan for one in facts]
                figures.append(("numbers", name, np.array(quantiles, dtype=np.float64)))
    return figures


def measure(settings: Settings) -> list[Row]:
    """Recall and false alarms a dataset and year, of monthly and of daily histories; and the time to judge one delivery."""
    from tests.quality import histories

    rows: list[Row] = []
    for cadence, seeds in (("monthly", MONTHLY), ("daily", DAILY)):
        made = [histories.history(seed, cadence) for seed in seeds]  # type: ignore[arg-type]
        judged = sum(len(one.judged) for one in made)
        started = time.perf_counter()
        us = histories.measure(made, histories.ours)
        taken = (time.perf_counter() - started) / judged
        peers = {}
        for training in (14, 30):
            for weekday in (False, True) if cadence == "daily" else (False,):
                for itself in (True, False):
                    peer = Peer(training, weekday, itself)
                    scored = {one.name: peer.scores(one) for one in made}
                    peers[peer] = [(bar, histories.measure(made, _told(scored, bar))) for bar in SENSITIVITIES]
        default = peers[Peer(14, False, True)][0][1]
        best, (_, as_set) = max(((peer, found[0]) for peer, found in peers.items()), key=lambda pair: pair[1][1].recall)
        kept = [(found.recall, peer, bar) for peer, tried in peers.items() for bar, found in tried if found.false_per_year <= 1]
        what = f"unusual without a rule, {len(made)} {cadence} datasets over a year"
        faults = sum(us.planted.values())
        rows += [
            Row(
                f"{what}: found of {faults} planted", f"{us.recall:.0%}",
                f"elementary's defaults {default.recall:.0%}; {best} {as_set.recall:.0%}", "", "≥ 90 %", us.recall >= 0.9,
            ),
            Row(
                f"false alarms a {cadence} dataset and year", f"{us.false_per_year:.2f}",
                f"elementary's defaults {default.false_per_year:.1f}; {best} {as_set.false_per_year:.1f}",
                "", "≤ 1", us.false_per_year <= 1,
            ),
        ]  # fmt: skip
        if kept:
            recall, peer, bar = max(kept, key=lambda item: item[0])
            rows.append(
                Row(
                    f"found in {cadence} ones, with false alarms ≤ 1",
                    f"{us.recall:.0%}",
                    f"elementary, {peer}, sensitivity {bar:g}: {recall:.0%}",
                )
            )
        worst = min(us.found, key=lambda kind: us.found[kind] / max(1, us.planted[kind]))
        rows.append(
            Row(f"the kind found least in {cadence} ones", f"{worst.replace('_', ' ')}, {us.found[worst]} of {us.planted[worst]}")
        )  # fmt: skip
        rows.append(Row(f"time to judge a {cadence} delivery of 8 columns", f"{taken * 1e3:.0f} ms"))
    return rows


def _told(scored: dict[str, Scores], bar: float) -> Callable[[Any], dict[int, set[tuple[str, str | None]]]]:
    def told(made: Any) -> dict[int, set[tuple[str, str | None]]]:
        found: dict[int, set[tuple[str, str | None]]] = {}
        for place, aspect, column, off in scored[made.name]:
            if off > bar:
                found.setdefault(place, set()).add((aspect, column))
        return found

    return told
