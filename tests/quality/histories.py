"""Histories of datasets as profiles see them, made with known faults: the answer key of what is unusual without a rule.

A history is two years of deliveries of one dataset, monthly or daily. Rows are drawn one by one and profiled, so that sampling
errors are real. What is usual differs by seed: size, trend, slow drift, over-dispersion, the year's wave, the dip of April, days
of the week, official holidays and what is made up after them, one day in some years that nobody announced; shares and numbers
with drifts and waves of their own. Faults are one-off and only in the second year: the first is what there is to learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dopa_pipelines.quality.unusual import Seen, Watch
from dopa_pipelines.thai.holidays import holidays

Array = npt.NDArray[Any]
Cadence = Literal["monthly", "daily"]
Alarm = tuple[str, str | None]
"""Aspect and column."""

KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "volume_drop": ("half of the rows are not there", ("rows",)),
    "volume_spike": ("twice the rows: all were sent twice", ("rows",)),
    "missing_jump": ("15 points more of a column are missing", ("missing",)),
    "category_gone": ("a category of 5 to 25 % is not there, its rows stand under the commonest", ("categories",)),
    "category_new": ("5 % of the rows have a code that never was", ("new_values", "categories")),
    "mix_shift": ("15 points of the commonest category stand under another", ("categories",)),
    "number_shift": ("all numbers of a column are off by half their interquartile range", ("numbers",)),
    "unit_change": ("30 % of a column's numbers are ten times as large: one sender changed the unit", ("numbers",)),
}
"""Each kind with its size, and the aspects under which it may be told."""

FIRST = date(2024, 1, 1)
"""The first year is 2024, the second, which is judged, 2025."""


@dataclass(frozen=True)
class Planted:
    kind: str
    column: str | None


@dataclass(frozen=True)
class History:
    name: str
    seen: tuple[Seen, ...]
    planted: Mapping[int, Planted]
    judged: Sequence[int]
    """Places of the second year."""


def history(seed: int, cadence: Cadence, *, clean: bool = False) -> History:
    """One dataset. A daily one has a fault of each kind; a monthly one two, so that four of them have all."""
    rng = np.random.default_rng([seed, cadence == "daily"])
    days = _days(cadence)
    size = len(days)
    years = np.array([(day - FIRST).days / 365.25 for day in days])
    expected = _volume(rng, days, years, cadence)
    spread = rng.choice([0.0, 0.02, 0.05, 0.08])
    rows = rng.poisson(expected * (rng.gamma(1 / spread**2, spread**2, size) if spread else 1.0))
    columns: dict[str, _Text | _Number | _Day] = {
        "kind": _Text(rng, years, ("A", "B", "C", "D", "E"), np.array([0.42, 0.25, 0.18, 0.10, 0.05])),
        "office": _Text(rng, years, tuple(f"{10 + n}" for n in range(12)), rng.dirichlet(np.full(12, 3.0))),
        "sex": _Text(rng, years, ("1", "2"), np.array([0.51, 0.49])),
        "age": _Number(rng, years, "normal", 42.0, 15.0, whole=True),
        "fee": _Number(rng, years, "lognormal", float(np.log(300)), 0.9, whole=False),
        "members": _Number(rng, years, "geometric", 0.3, 0.0, whole=True),
        "weight": _Number(rng, years, "normal", 3050.0, 450.0, whole=True),
        "event_on": _Day(31 if cadence == "monthly" else 3),
    }
    missing = {name: rng.choice([0.0, 0.001, 0.02, 0.1]) for name in columns}
    unsteady = {name: rng.choice([0.0, 0.05, 0.15]) for name in columns}
    second = [place for place, day in enumerate(days) if day.year == FIRST.year + 1]
    planted = {} if clean else _plant(rng, seed, cadence, days, second, columns)
    seen = []
    for place, day in enumerate(days):
        fault = planted.get(place)
        number = int(rows[place])
        if fault and fault.kind == "volume_drop":
            number = int(rng.binomial(number, 0.5))
        facts: dict[str, dict[str, Any]] = {}
        for name, column in columns.items():
            mine = fault.kind if fault and fault.column == name else ""
            share = missing[name]
            if share:
                odds: Any = np.log(share / (1 - share)) + unsteady[name] * rng.standard_normal()
                share = 1 / (1 + np.exp(-odds))
            share = share + 0.15 if mine == "missing_jump" else share
            empty = int(rng.binomial(number, share))
            facts[name] = {"missing": empty} | column.facts(rng, place, day, number - empty, mine)
        if fault and fault.kind == "volume_spike":
            number *= 2
            facts = {name: _twice(one) for name, one in facts.items()}
        seen.append(Seen(day, number, facts, place))
    return History(f"{cadence}-{seed}", tuple(seen), planted, range(second[0], size))


def _days(cadence: Cadence) -> list[date]:
    if cadence == "monthly":
        return [date(FIRST.year + month // 12, month % 12 + 1, 1) for month in range(24)]
    return [FIRST + timedelta(number) for number in range((date(FIRST.year + 2, 1, 1) - FIRST).days)]


def _volume(rng: np.random.Generator, days: list[date], years: Array, cadence: Cadence) -> Array:
    """Expected rows of each delivery."""
    size = len(days)
    base = np.exp(rng.uniform(np.log(400), np.log(12_000) if cadence == "monthly" else np.log(2_500)))
    log = np.log(base) + rng.uniform(-0.08, 0.08) * years
    log += rng.uniform(0, 0.2) * np.sin(2 * np.pi * (years + rng.uniform()))
    if cadence == "monthly":
        log += np.cumsum(rng.standard_normal(size)) * rng.choice([0.0, 0.01])
        log += np.where([day.month == 4 for day in days], -rng.uniform(0, 0.15), 0.0)
        return np.asarray(np.exp(log))
    log += np.cumsum(rng.standard_normal(size)) * rng.choice([0.0, 0.003])
    week = np.append(rng.uniform(-0.15, 0.15, 5), np.log(rng.uniform(0.08, 0.3, 2)))
    free = {day for day in days if day in holidays(day.year)}
    holiday = np.log(rng.uniform(0.05, 0.2))
    made_up = rng.uniform(0.0, 0.2)
    secret = rng.choice(size) if rng.uniform() < 1 / 3 else -1
    for place, day in enumerate(days):
        closed = day in free
        log[place] += holiday if closed else week[day.weekday()]
        before = day - timedelta(1)
        if not closed and day.weekday() < 5 and before in free:
            log[place] += made_up
        if place == secret and not closed and day.weekday() < 5:
            log[place] += holiday
    return np.asarray(np.exp(log))


def _drift(rng: np.random.Generator, years: Array, size: float) -> Array:
    """A trend, a wave of the year and unsteadiness, about ``size`` each."""
    trend = rng.uniform(-size, size) * years
    wave = rng.uniform(0, size) * np.sin(2 * np.pi * (years + rng.uniform()))
    return np.asarray(trend + wave + rng.choice([0.0, 0.5, 1.0]) * size * rng.standard_normal(len(years)))


class _Text:
    def __init__(self, rng: np.random.Generator, years: Array, values: tuple[str, ...], shares: Array) -> None:
        self.values = values
        self.shares = shares
        odds: Any = np.log(shares)[:, None] + np.stack([_drift(rng, years, 0.06) for _ in values])
        self.by_place = np.exp(odds) / np.exp(odds).sum(0)

    def facts(self, rng: np.random.Generator, place: int, day: date, number: int, fault: str) -> dict[str, Any]:
        shares = self.by_place[:, place].copy()
        commonest = int(self.shares.argmax())
        others = [index for index in range(len(shares)) if index != commonest]
        if fault == "category_gone":
            gone = rng.choice([index for index in others if 0.05 <= shares[index] <= 0.25])
            shares[commonest] += shares[gone]
            shares[gone] = 0
        elif fault == "mix_shift":
            moved = min(0.15, shares[commonest])
            shares[commonest] -= moved
            shares[rng.choice(others)] += moved
        counts = dict(zip(self.values, map(int, rng.multinomial(number, shares)), strict=True))
        if fault == "category_new":
            counts["99"] = 0
            for value in self.values:
                taken = int(rng.binomial(counts[value], 0.05))
                counts[value] -= taken
                counts["99"] += taken
        top = [[value, count] for value, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])) if count]
        return {"distinct": len(top), "top": top}


class _Number:
    def __init__(self, rng: np.random.Generator, years: Array, shape: str, place: float, spread: float, *, whole: bool) -> None:
        self.shape, self.place, self.spread, self.whole = shape, place, spread, whole
        self.drift = _drift(rng, years, 0.04)
        usual = np.percentile(self._draw(np.random.default_rng(0), 20_000, 0.0), [25, 75])
        self.half = (usual[1] - usual[0]) / 2

    def _draw(self, rng: np.random.Generator, number: int, drift: float) -> Array:
        if self.shape == "geometric":
            return np.asarray(rng.geometric(float(np.clip(self.place * (1 - drift), 0.01, 1)), number).astype(float))
        drawn = rng.normal(self.place + drift * self.spread, self.spread, number)
        return np.asarray(np.exp(drawn)) if self.shape == "lognormal" else drawn

    def facts(self, rng: np.random.Generator, place: int, day: date, number: int, fault: str) -> dict[str, Any]:
        drawn = self._draw(rng, number, float(self.drift[place]))
        if fault == "number_shift":
            drawn = drawn + self.half
        elif fault == "unit_change":
            drawn = np.where(rng.uniform(size=number) < 0.3, drawn * 10, drawn)
        drawn = np.round(drawn) if self.whole else np.round(drawn, 2)
        return _numbers(drawn)


class _Day:
    """Days of events: within so many days up to the delivery's."""

    def __init__(self, within: int) -> None:
        self.within = within

    def facts(self, rng: np.random.Generator, place: int, day: date, number: int, fault: str) -> dict[str, Any]:
        if not number:
            return {"distinct": 0}
        drawn = np.sort(day.toordinal() - rng.integers(0, self.within, number))
        at = [date.fromordinal(int(value)).isoformat() for value in np.percentile(drawn, SHARES, method="nearest")]
        return {"distinct": len(set(drawn)), "min": at[0], "max": at[-1], "quantiles": at}


SHARES = [0, 1, 5, 25, 50, 75, 95, 99, 100]


def _numbers(drawn: Array) -> dict[str, Any]:
    if not len(drawn):
        return {"distinct": 0}
    at = [float(value) for value in np.percentile(drawn, SHARES, method="nearest")]
    return {"distinct": len(np.unique(drawn)), "min": at[0], "max": at[-1], "quantiles": at, "mean": float(drawn.mean())}


def _twice(facts: dict[str, Any]) -> dict[str, Any]:
    top = {"top": [[value, count * 2] for value, count in facts["top"]]} if "top" in facts else {}
    return facts | {"missing": facts["missing"] * 2} | top


def _plant(
    rng: np.random.Generator, seed: int, cadence: Cadence, days: list[date], second: list[int], columns: Mapping[str, Any]
) -> dict[int, Planted]:
    kinds = list(KINDS)
    if cadence == "monthly":
        kinds = [kinds[2 * (seed % 4)], kinds[2 * (seed % 4) + 1]]
        start = int(rng.integers(0, 4))
        places = [second[start], second[start + int(rng.integers(4, 8))]]
    else:
        # On working days, as on others there is little to see, and at least ten days apart.
        places = []
        for place in rng.permutation(second):
            day = days[int(place)]
            if day.weekday() < 5 and day not in holidays(day.year) and all(abs(place - other) >= 10 for other in places):
                places.append(int(place))
            if len(places) == len(kinds):
                break
    rng.shuffle(kinds)
    fit: dict[str, tuple[type, ...]] = {"category": (_Text,), "mix": (_Text,), "number": (_Number,), "unit": (_Number,)}
    planted = {}
    for place, kind in zip(places, kinds, strict=True):
        wanted = fit.get(kind.split("_")[0], (_Text, _Number, _Day))
        names = [name for name, column in columns.items() if isinstance(column, wanted)]
        if kind == "category_gone":
            names.remove("sex")
        planted[place] = Planted(kind, None if kind.startswith("volume") else str(rng.choice(names)))
    return planted


# -- the measure --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """How a method did. ``found``, ``planted``: by kind. ``false_alarms``: pairs of delivery and column told for nothing."""

    found: Mapping[str, int]
    planted: Mapping[str, int]
    false_alarms: int
    years: int

    @property
    def recall(self) -> float:
        return sum(self.found.values()) / max(1, sum(self.planted.values()))

    @property
    def false_per_year(self) -> float:
        """For each dataset."""
        return self.false_alarms / max(1, self.years)


def ours(made: History) -> dict[int, set[Alarm]]:
    watch = Watch(made.seen)
    told: dict[int, set[Alarm]] = {}
    for place in made.judged:
        verdict = watch.judge(place)
        assert verdict.enough
        told[place] = {(item.aspect, item.column) for item in verdict.unusual}
    return told


def measure(made: list[History], method: Callable[[History], dict[int, set[Alarm]]]) -> Measured:
    """What is told of a planted column on its delivery is no false alarm; a fault counts as found only under its own aspect."""
    found = dict.fromkeys(KINDS, 0)
    planted = dict.fromkeys(KINDS, 0)
    false = 0
    for one in made:
        told = method(one)
        for place in one.judged:
            alarms = told.get(place, set())
            fault = one.planted.get(place)
            false += len({column for _, column in alarms} - ({fault.column} if fault else set()))
            if fault:
                planted[fault.kind] += 1
                found[fault.kind] += any((aspect, fault.column) in alarms for aspect in KINDS[fault.kind][1])
    return Measured(found, planted, false, len(made))
