"""What is unusual in a delivery without any rule: each of its figures held against its own history.

Figures come from profiles (``quality.profile``): rows, missing values, counts of categories, quantiles and mean of numbers. What
a delivery *must* be is a contract's rule; how it is profiled is the profiles' module. Nothing here reads data.

The method, with its sources, is in ``docs/quality_methods.md``; in short, for each series of figures on a scale where effects add
(logarithm of counts, logit of shares, numbers in units of their own spread):

- a robust regression on trend and season (M-estimation by reweighting: Huber 1964, Holland & Welsch 1977) whose terms are shrunk
  towards none by a prior, so that two years, or one, are enough to start with;
- a level that follows slow drift (robust exponential smoothing: Gelper, Fried & Croux 2010) where that has predicted better;
- the spread of what such predictions missed, by Qn or the median absolute deviation (Rousseeuw & Croux 1993; Hampel 1974), never
  less than the sampling error of a count (Poisson, binomial) or a quantile;
- a score: the deviance residual of the negative binomial for counts, Student's t for numbers, both as normal deviates;
- one bar for all series of a delivery (Benjamini & Hochberg 1995), at a level that spends a yearly budget of false alarms.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dopa_pipelines.contracts.model import Contract
from dopa_pipelines.quality.store import Connection, Dimension, Result
from dopa_pipelines.thai.holidays import holidays, is_closed

Aspect = Literal["rows", "missing", "categories", "new_values", "numbers", "repeated"]
Cadence = Literal["daily", "weekly", "monthly", "other"]
Array: TypeAlias = npt.NDArray[np.float64]

ALARMS_PER_YEAR = 0.5
"""False alarms that a dataset may raise in a year if nothing is wrong: half of what is promised, as the model is never exact."""
MIN_HISTORY: Mapping[Cadence, int] = {"daily": 28, "weekly": 10, "monthly": 8, "other": 8}
"""Deliveries before anything is judged."""
WINDOW_DAYS: Mapping[Cadence, int] = {"daily": 400, "weekly": 1100, "monthly": 2600, "other": 4000}
HALF_LIFE_DAYS: Mapping[Cadence, float] = {"daily": 150, "weekly": 365, "monthly": 730, "other": 1500}
"""After so long a delivery counts half."""
NEW_LEVEL = 3
"""So many unusual deliveries in a row are a new level."""
MOST_CATEGORIES = 30
"""A column with more values than that is not watched by category."""
QUANTILES = ("q0", "q1", "q5", "q25", "q50", "q75", "q95", "q99", "q100")
WATCHED = (2, 3, 4, 5, 6)
"""Places of the watched quantiles: 5, 25, 50, 75, 95 per cent. The outermost are single values and say little."""
QUANTILE_ERROR = (1.57, 1.01, 0.93, 1.01, 1.57)
"""Sampling error of those quantiles of a normal sample, in interquartile ranges over the root of its size: sqrt(p(1-p))/f."""
USUAL_SPREAD: Mapping[str, tuple[float, float]] = {"rows": (0.06, 6), "share": (0.08, 8), "number": (0.05, 8)}
"""What series of each kind usually vary by beside sampling (6 % of the rows, 0.08 of a logit, 0.05 of an interquartile range),
and how many deliveries' worth that knowledge is. It matters in the first year and is outweighed later."""
SMALLEST = {"rows": 0.05, "share": 0.01, "number": 0.1}
"""What nobody wants to be told: rows off by less than 5 %, shares by less than a point, numbers by less than a tenth of their
interquartile range, however certain it is."""
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Seen:
    """One delivery as it was profiled. ``columns``: the facts of each column, by name (``quality.profile.facts``)."""

    day: date
    rows: int
    columns: Mapping[str, Mapping[str, Any]]
    delivery: int | None = None


@dataclass(frozen=True)
class Finding:
    """One figure of a delivery against its history.

    ``value`` and the expected range ``low`` to ``high`` are in the figure's own unit: rows, a share 0 to 1, the column's unit.
    ``score``: a normal deviate, positive where there is more than expected; ``chance``: how often as much happens by chance.
    """

    aspect: Aspect
    column: str | None
    figure: str
    value: float
    expected: float
    low: float
    high: float
    score: float
    chance: float
    unusual: bool
    en: str
    th: str


@dataclass(frozen=True)
class Verdict:
    """All figures of a delivery. ``enough`` is False where there is not enough history to judge by: nothing is unusual then."""

    day: date
    enough: bool
    history: int
    needed: int
    cadence: Cadence
    findings: tuple[Finding, ...] = ()

    @property
    def unusual(self) -> tuple[Finding, ...]:
        return tuple(item for item in self.findings if item.unusual)


def judge(history: Sequence[Seen], new: Seen, *, alarms_per_year: float = ALARMS_PER_YEAR) -> Verdict:
    """Hold ``new`` against ``history`` (in any order; what is not before its day is left out)."""
    before = sorted((item for item in history if item.day < new.day), key=lambda item: item.day)
    return Watch([*before, new]).judge(len(before), alarms_per_year=alarms_per_year)


# -- what is kept -------------------------------------------------------------------------------------------------------

_SPEAKS_TO: Mapping[Aspect, tuple[Dimension, str]] = {
    "rows": ("accuracy_completeness", "1.3"),
    "missing": ("accuracy_completeness", "1.3"),
    "categories": ("accuracy_completeness", "1.2"),
    "new_values": ("accuracy_completeness", "1.2"),
    "numbers": ("accuracy_completeness", "1.2"),
    "repeated": ("consistency", "2.3"),
}
"""Dimension and indicator of the national standard: completeness check, error-check tool, duplicate check."""


def look(connection: Connection, contract: Contract, delivery: int) -> list[Result]:
    """Hold a profiled delivery against the profiles of those before it, which are of the same place and came for earlier days.

    A result for every figure that is watched, unusual or not, so that an incident closes when the next delivery is as usual; one
    that says so where there is not enough history; none where the delivery was not profiled. Nothing is written.
    """
    seen, numbers, place = _profiled(connection, contract, delivery)
    if not seen:
        return []
    where = {item.delivery: at for at, item in enumerate(seen)}
    told = connection.execute(
        "select delivery_id, detail ->> 'aspect', column_name from quality.result"
        " where dataset = %s and kind = 'unusual' and not passed and delivery_id = any(%s)",
        (contract.dataset, numbers),
    ).fetchall()
    watch = Watch(seen, [(where[number], aspect, column) for number, aspect, column in told if number != delivery])
    return results(contract.dataset, watch.judge(len(seen) - 1), "/".join(place))


def results(dataset: str, verdict: Verdict, place: str = "") -> list[Result]:
    """A verdict as results to be kept. ``place``: where the delivery is of, if the dataset comes in parts; each has rules of its
    own, so that a usual delivery of one does not speak for another."""
    day = verdict.day.isoformat()
    if not verdict.enough:
        en = f"not enough history: {verdict.history} deliveries, {verdict.needed} are needed"
        th = f"ประวัติยังไม่พอ มี {verdict.history} ครั้ง ต้องมีอย่างน้อย {verdict.needed} ครั้ง"
        detail = {"enough": False, "history": verdict.history, "needed": verdict.needed, "day": day, "en": en, "th": th}
        return [Result(dataset, "unusual", "unusual", "accuracy_completeness", "warn", True, indicator="1.2", detail=detail)]
    found = []
    for item in verdict.findings:
        dimension, indicator = _SPEAKS_TO[item.aspect]
        rule = f"unusual_{item.aspect}" + (f"_{item.column}" if item.column else "") + (f"@{place}" if place else "")
        detail = {
            "aspect": item.aspect, "figure": item.figure, "expected": item.expected, "low": item.low, "high": item.high,
            "score": round(item.score, 2), "chance": item.chance, "history": verdict.history, "day": day,
            "en": item.en, "th": item.th,
        }  # fmt: skip
        found.append(
            Result(
                dataset, rule, "unusual", dimension, "warn", not item.unusual,
                value=item.value, indicator=indicator, column=item.column, detail=detail,
            )
        )  # fmt: skip
    return found


def _profiled(connection: Connection, contract: Contract, delivery: int) -> tuple[list[Seen], list[int], tuple[str, ...]]:
    """The deliveries up to one that tell of the same place, each day's last, oldest first; their numbers; and the place."""
    found = connection.execute(
        "select id, file, scope, coalesce(as_of, (received_at at time zone 'Asia/Bangkok')::date) from ops.delivery"
        " where dataset = %s and status = 'loaded' and not replayed and id <= %s"
        " and id in (select delivery_id from quality.profile where dataset = %s) order by id",
        (contract.dataset, delivery, contract.dataset),
    ).fetchall()
    days: dict[int, date] = {}
    of_place: dict[int, tuple[str, ...]] = {}
    for number, file, scope, received in found:
        days[number], of_place[number] = _of(contract, file or "", scope or [], received)
    if delivery not in days:
        return [], [], ()
    day, place = days[delivery], of_place[delivery]
    last = {days[number]: number for number in days if of_place[number] == place and days[number] < day} | {day: delivery}
    chosen = [last[key] for key in sorted(last)]
    rows: dict[int, int] = {}
    columns: dict[int, dict[str, Mapping[str, Any]]] = {number: {} for number in chosen}
    personal = {column.name for column in contract.columns if column.is_personal}
    # Of what was profiled twice the last holds.
    for number, name, count, facts in connection.execute(
        "select distinct on (delivery_id, column_name) delivery_id, column_name, rows, facts from quality.profile"
        " where dataset = %s and delivery_id = any(%s) order by delivery_id, column_name, id desc",
        (contract.dataset, chosen),
    ):
        if name is None:
            rows[number] = int(facts.get("rows", count))
        else:
            rows.setdefault(number, count)
            # What is found is shown to people: of a personal column no value may be among it.
            columns[number][name] = (
                {key: facts[key] for key in ("missing", "shapes") if key in facts} if name in personal else facts
            )
    return [Seen(days[number], rows[number], columns[number], number) for number in chosen], chosen, place


def _of(contract: Contract, file: str, scope: Sequence[Mapping[str, str]], received: date) -> tuple[date, tuple[str, ...]]:
    """The day that a delivery is of, by its scope, its file's name, or when it came; and the place, where its scope is one."""
    stated = contract.business_date_of(file)
    place = []
    for part in contract.load.scope:
        values = {row.get(part.column) for row in scope}
        if len(values) != 1:
            continue
        value = str(values.pop())
        if part.granularity == "value" and not contract.column(part.column).physical_type.startswith(("date", "timestamp")):
            place.append(value)
        elif stated is None:
            with contextlib.suppress(ValueError):
                stated = date.fromisoformat(value[:10])
    return stated or received, tuple(place)


# -- the series of a dataset --------------------------------------------------------------------------------------------


@dataclass
class _Series:
    """One figure over all deliveries: a count out of a total, a count of its own, or a number."""

    figure: str
    kind: Literal["rows", "share", "number"]
    y: Array
    """On the scale where effects add; NaN where it was not seen."""
    noise: Array
    """Sampling variance of ``y``."""
    count: Array = field(default_factory=lambda: np.empty(0))
    total: Array = field(default_factory=lambda: np.empty(0))
    unit: float = 1.0
    origin: float = 0.0
    logarithm: bool = False

    def shown(self, y: float) -> float:
        """A value of ``y`` in the figure's own unit."""
        if self.kind == "rows":
            return max(0.0, math.exp(min(y, 700)) - 0.5)
        if self.kind == "share":
            return 1 / (1 + math.exp(-max(-700.0, min(700.0, y))))
        number = y * self.unit + self.origin
        return math.exp(min(number, 700)) if self.logarithm else number


@dataclass
class _Group:
    """Series that are judged as one: the categories of a column, the quantiles of a column."""

    aspect: Aspect
    column: str | None
    members: list[_Series]


class Watch:
    """The figures of deliveries in the order of their days, ready to be judged one after the other.

    ``told``: place, aspect and column of what was found unusual before. It is not learned from, unless it stayed so for
    :data:`NEW_LEVEL` deliveries; judging adds to it.
    """

    def __init__(self, seen: Sequence[Seen], told: Iterable[tuple[int, Aspect, str | None]] = ()) -> None:
        self.seen = list(seen)
        self.told: dict[tuple[Aspect, str | None], set[int]] = {}
        for place, aspect, column in told:
            self.told.setdefault((aspect, column), set()).add(place)
        self.days = np.array([item.day.toordinal() for item in self.seen], dtype=np.float64)
        self.rows = np.array([item.rows for item in self.seen], dtype=np.float64)
        self.names = list(dict.fromkeys(name for item in self.seen for name in item.columns))

    # Everything below is taken at a place: only what came up to it is looked at.

    def judge(self, place: int, *, alarms_per_year: float = ALARMS_PER_YEAR) -> Verdict:
        """Hold the delivery at ``place`` against those before it."""
        day = self.seen[place].day
        cadence, gap = _cadence(self.days[:place])
        needed = MIN_HISTORY[cadence]
        if place < needed:
            return Verdict(day, False, place, needed, cadence)
        first = int(np.searchsorted(self.days[:place], self.days[place] - WINDOW_DAYS[cadence]))
        window = slice(first, place + 1)
        if place - first < needed:
            return Verdict(day, False, place - first, needed, cadence)
        groups = list(self._groups(window))
        for group in groups:
            self._forget(group, window)
        design = _design(self.days[window], cadence)
        predicted = _predict([series for group in groups for series in group.members], design)
        budget = min(0.5, alarms_per_year * gap / 365.25)
        findings = self._findings(window, groups, predicted, budget)
        for item in findings:
            if item.unusual:
                self.told.setdefault((item.aspect, item.column), set()).add(place)
        return Verdict(day, True, place - first, needed, cadence, findings)

    def _forget(self, group: _Group, window: slice) -> None:
        """Leave out of a group what was told of it, but not what has become usual."""
        places = sorted(
            place for place in self.told.get((group.aspect, group.column), ()) if place in range(window.start, window.stop - 1)
        )
        for place in places:
            run = [near for near in range(place - NEW_LEVEL + 1, place + NEW_LEVEL) if near in places]
            if not any(all(start + step in run for step in range(NEW_LEVEL)) for start in run):
                for series in group.members:
                    series.y[place - window.start] = np.nan

    def _groups(self, window: slice) -> Iterator[_Group]:
        rows = self.rows[window]
        yield _Group("rows", None, [_Series("rows", "rows", np.log(rows + 0.5), np.zeros_like(rows), rows, rows)])
        for name in self.names:
            column = self._column(name)
            present = column.missing[window]
            if np.isnan(present[-1]) or np.isfinite(present[:-1]).sum() < 6:
                continue
            yield _Group("missing", name, [_share("missing", present, rows)])
            yield from column.categories(window, rows)
            yield from column.numbers(window, rows)

    def _column(self, name: str) -> _Column:
        if name not in self._columns:
            self._columns[name] = _Column(name, self.seen)
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, _Column]:
        return {}

    def _findings(self, window: slice, groups: list[_Group], predicted: list[_Predicted], budget: float) -> tuple[Finding, ...]:
        judged: list[tuple[_Group, _Series, _Predicted, float, float]] = []
        at = iter(predicted)
        for group in groups:
            members = [(series, next(at)) for series in group.members]
            scored = [(series, found, _score(series, found)) for series, found in members]
            series, found, score = max(scored, key=lambda item: (_matters(item[0], item[1]), abs(item[2])))
            chance = min(1.0, len(members) * _two_sided(score))
            judged.append((group, series, found, score, chance))
        repeated = self._repeated(window)
        order = sorted(range(len(judged)), key=lambda index: judged[index][4])
        passed = 0
        for rank, index in enumerate(order, 1):
            if judged[index][4] <= budget * rank / len(judged):
                passed = rank
        unusual = {index for index in order[:passed] if _matters(judged[index][1], judged[index][2])}
        bar = -_NORMAL.inv_cdf(budget / len(judged) / 2)
        findings = [
            _finding(group, series, found, score, chance, bar, index in unusual)
            for index, (group, series, found, score, chance) in enumerate(judged)
        ]
        return (*findings, *repeated)

    def _repeated(self, window: slice) -> list[Finding]:
        """Whether the delivery looks exactly like an earlier one, though deliveries never, or hardly ever, do."""
        new = self.seen[window.stop - 1]
        numbers = [name for name, facts in new.columns.items() if _numbers_of(facts) is not None]
        if new.rows < 100 or len(new.columns) < 3 or not numbers:
            return []
        prints = [self._print(place) for place in range(window.start, window.stop)]
        known: set[str] = set()
        repeats = 0
        for one in prints[:-1]:
            repeats += one in known
            known.add(one)
        same = prints[-1] in known
        usual = repeats > 0.02 * len(prints)
        place = window.start + prints.index(prints[-1])
        of = f"{self.seen[place].day:%Y-%m-%d}"
        return [
            Finding(
                "repeated", None, "content", float(same), 0.0, 0.0, 0.0, 0.0, float(usual or not same), same and not usual,
                f"the same content as the delivery of {of}" if same else "content of its own",
                f"เนื้อหาเหมือนกับชุดที่ส่งของวันที่ {of}" if same else "เนื้อหาไม่ซ้ำกับที่เคยส่ง",
            )
        ]  # fmt: skip

    def _print(self, place: int) -> str:
        if place not in self._prints:
            item = self.seen[place]
            facts = [
                (name, one.get("missing"), one.get("quantiles"), one.get("top")) for name, one in sorted(item.columns.items())
            ]
            self._prints[place] = repr((item.rows, facts))
        return self._prints[place]

    @cached_property
    def _prints(self) -> dict[int, str]:
        return {}


class _Column:
    """The figures of one column over all deliveries."""

    def __init__(self, name: str, seen: Sequence[Seen]) -> None:
        self.name = name
        size = len(seen)
        self.missing = np.full(size, np.nan)
        self.quantiles = np.full((len(QUANTILES), size), np.nan)
        self.mean = np.full(size, np.nan)
        self.dates = False
        self.counted = np.full(size, np.nan)
        """The rows whose values were counted, which may be a sample; NaN where not all values are kept."""
        counts: dict[str, Array] = {}
        for place, item in enumerate(seen):
            facts = item.columns.get(name)
            if facts is None:
                continue
            self.missing[place] = float(facts.get("missing") or 0)
            numbers = _numbers_of(facts)
            if numbers is not None:
                values, dates = numbers
                self.dates |= dates
                # What a column of days tells is how far they lie from the delivery's own.
                self.quantiles[:, place] = values - item.day.toordinal() if dates else values
                mean = facts.get("mean")
                if not dates and isinstance(mean, int | float):
                    self.mean[place] = mean
            top = _counts_of(facts)
            filled = item.rows - self.missing[place]
            if top or not filled:
                self.counted[place] = sum(count for _, count in top)
            if len(counts) <= 20 * MOST_CATEGORIES:
                for value, count in top:
                    counts.setdefault(str(value), np.zeros(size))[place] = count
        self.counts = np.array(list(counts.values())) if counts else np.zeros((0, size))
        self.values = list(counts)
        seen_at = self.counts > 0
        self.first = np.where(seen_at.any(1), seen_at.argmax(1), size) if counts else np.zeros(0, dtype=np.int64)

    def categories(self, window: slice, rows: Array) -> Iterator[_Group]:
        """Counts of each category, and of values never seen before; nothing where values are too many to be categories."""
        counted = self.counted[window]
        whole = np.isfinite(counted)
        if not len(self.values) or whole[:-1].mean() < 0.9 or not whole[-1]:
            return
        counts = self.counts[:, window]
        known = np.flatnonzero(counts[:, :-1].sum(1) > 0)
        if not 1 < len(known) <= MOST_CATEGORIES:
            return
        shares = counts[known, :-1].sum(1) / np.nansum(counted[:-1])
        members = [
            _share(self.values[index], np.where(whole, counts[index], np.nan), counted)
            for index, share in zip(known, shares, strict=True)
            if share * counted[-1] >= 2 or counts[index, -1] >= 5
        ]
        if members:
            yield _Group("categories", self.name, members)
        # Of each delivery the rows whose value no earlier one had. The first ones, where everything is new, say nothing.
        begun = window.start
        size = window.stop - begun
        new = np.bincount(np.clip(self.first - begun, 0, size), weights=self._at_first(), minlength=size + 1)[:size].astype(
            np.float64
        )
        warm = min(12, size // 3)
        new = np.where(np.arange(size) < warm, np.nan, np.where(whole, new, np.nan))
        yield _Group("new_values", self.name, [_share("new", new, counted)])

    def _at_first(self) -> Array:
        """The rows that each value had when it was first seen."""
        return np.array([self.counts[index, place] for index, place in enumerate(self.first)], dtype=np.float64)

    def numbers(self, window: slice, rows: Array) -> Iterator[_Group]:
        quantiles, mean = self.quantiles[:, window], self.mean[window]
        there = np.isfinite(quantiles[0])
        if not there[-1] or there[:-1].sum() < 6:
            return
        past = quantiles[:, :-1][:, there[:-1]]
        filled = np.maximum(rows - self.missing[window], 1)
        logarithm = not self.dates and bool((past[0] > 0).all() and np.median(past[6] / past[2]) > 4)
        logarithm = logarithm and bool(quantiles[0, -1] > 0)
        low, middle, high = np.median(past[3]), np.median(past[4]), np.median(past[5])
        # Whole numbers step: half a step is no news.
        whole = bool((past == np.round(past)).all())
        if logarithm:
            unit, origin = math.log(high / low), math.log(middle)
            step = 1 / middle if whole else 0.0
        else:
            unit, origin = float(high - low), float(middle)
            step = 1.0 if whole else 0.0
        if not unit > 0:
            wide = float(np.median(past[6] - past[2])) / 3.3
            unit, origin, step, logarithm = (wide or abs(float(middle)) or 1.0), float(middle), float(whole), False
        members: list[_Series] = []

        def add(figure: str, values: Array, noise: Array) -> None:
            y = ((np.log(values) if logarithm else values) - origin) / unit
            members.append(_Series(figure, "number", y, noise, unit=unit, origin=origin, logarithm=logarithm))

        for place, error in zip(WATCHED, QUANTILE_ERROR, strict=True):
            add(QUANTILES[place], quantiles[place], error**2 / filled + (0.5 * step / unit) ** 2)
        if np.isfinite(mean[-1]) and (not logarithm or (mean[np.isfinite(mean)] > 0).all()):
            add("mean", mean, 0.8**2 / filled)
        yield _Group("numbers", self.name, members)


def _numbers_of(facts: Mapping[str, Any]) -> tuple[Array, bool] | None:
    """The quantiles of a column as numbers, and whether they are dates; None where it has none."""
    found = facts.get("quantiles")
    if not found or len(found) != len(QUANTILES) or any(value is None for value in found):
        return None
    try:
        if isinstance(found[0], str):
            return np.array([date.fromisoformat(value[:10]).toordinal() for value in found], dtype=np.float64), True
        return np.array(found, dtype=np.float64), False
    except (TypeError, ValueError):
        return None


def _counts_of(facts: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Values with their counts (shapes, where values are personal) if all there are were kept; nothing otherwise."""
    kept = facts.get("top") or facts.get("shapes") or ()
    distinct = facts.get("distinct") if facts.get("top") else len(kept)
    # The number of values may be an estimate, and a sample may lack a rare one.
    if not kept or len(kept) > 2 * MOST_CATEGORIES or (distinct is not None and len(kept) < 0.8 * distinct):
        return []
    return [(str(value), int(count)) for value, count in kept]


def _share(figure: str, count: Array, total: Array) -> _Series:
    """A share, as its logit; half a row is added to both sides, as none of none is no share."""
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.where(total > 0, np.log((count + 0.5) / (total - count + 0.5)), np.nan)
    return _Series(figure, "share", y, np.zeros_like(y), count, total)


def _cadence(days: Array) -> tuple[Cadence, float]:
    """How often deliveries come, and the days between two."""
    if len(days) < 2:
        return "other", 365.25
    gap = float(max(1.0, np.median(np.diff(days[-400:]))))
    if gap <= 3.5:
        # A dataset of working days has fewer deliveries than days.
        span = float(days[-1] - days[-min(len(days), 400)])
        return "daily", max(1.0, span / max(1, min(len(days), 400) - 1))
    return ("weekly" if gap <= 10 else "monthly" if gap <= 45 else "other"), gap


# -- the model ----------------------------------------------------------------------------------------------------------


@dataclass
class _Design:
    """Terms of the regression at each delivery (the last is the one to be judged), how far each may move a series of rows, shares
    or numbers (a standard deviation), and how much a delivery counts."""

    x: Array
    reach: Mapping[str, Array]
    weight: Array


_REACH: Mapping[str, Mapping[str, float]] = {
    #         level, trend a year, day of the week, closed, day after, wave of the year, month
    "rows": {"level": 30, "trend": 0.2, "weekday": 2.0, "closed": 1.0, "after": 0.5, "wave": 0.15, "month": 0.10},
    "share": {"level": 30, "trend": 0.2, "weekday": 0.5, "closed": 0.5, "after": 0.2, "wave": 0.10, "month": 0.08},
    "number": {"level": 30, "trend": 0.2, "weekday": 0.3, "closed": 0.2, "after": 0.1, "wave": 0.08, "month": 0.05},
}


def _design(days: Array, cadence: Cadence) -> _Design:
    dates = [date.fromordinal(int(day)) for day in days]
    years = (days - days[-1]) / 365.25
    angle = 2 * math.pi * years
    terms: list[tuple[str, Array]] = [("level", np.ones_like(days)), ("trend", years)]
    if cadence == "daily":
        closed = np.array([day in holidays(day.year) for day in dates])
        # A holiday is first of all a Sunday.
        weekday = np.where(closed, 6, [day.weekday() for day in dates])
        terms += [("weekday", (weekday == number).astype(np.float64)) for number in range(7)]
        terms.append(("closed", closed.astype(np.float64)))
        shut = weekday >= 5
        yesterday = np.array([is_closed(date.fromordinal(int(day) - 1)) for day in days])
        terms.append(("after", (~shut & yesterday & (weekday != 0)).astype(np.float64)))
        terms += [("wave", np.cos(angle)), ("wave", np.sin(angle))]
    elif cadence in ("weekly", "monthly"):
        for wave in (1, 2):
            terms += [("wave", np.cos(wave * angle) / wave), ("wave", np.sin(wave * angle) / wave)]
        months = np.array([day.month for day in dates])
        terms += [("month", (months == month).astype(np.float64)) for month in range(1, 13)]
    reach = {kind: np.array([each[name] for name, _ in terms]) for kind, each in _REACH.items()}
    weight = 0.5 ** ((days[-1] - days) / HALF_LIFE_DAYS[cadence])
    return _Design(np.stack([values for _, values in terms], axis=1), reach, weight[:-1])


@dataclass
class _Predicted:
    """What a series was expected to be: on its own scale, with the variance that is not sampling, and that variance's freedom."""

    mean: float
    spread: float
    freedom: float


def _predict(series: list[_Series], design: _Design) -> list[_Predicted]:
    """Fit all series at once; arrays below are (series, deliveries) or (series, terms)."""
    y = np.stack([one.y[:-1] for one in series])
    x, x_new = design.x[:-1], design.x[-1]
    prior = 1 / np.stack([design.reach[one.kind] for one in series]) ** 2
    kinds = [one.kind for one in series]
    there = np.isfinite(y)
    y = np.where(there, y, 0.0)
    noise = np.stack([one.noise[:-1] for one in series])
    noise = np.where(np.isfinite(noise), noise, 0.0)
    counted = [index for index, one in enumerate(series) if one.kind != "number"]
    counts = np.array([series[index].kind == "rows" for index in counted])
    total = np.nan_to_num(np.stack([series[index].total[:-1] for index in counted]))
    middle = _median(y, there)
    fitted = np.broadcast_to(middle[:, None], y.shape)
    spread = np.maximum(1.4826 * _median(np.abs(y - fitted), there), 1e-4) ** 2
    leverage: Array = np.zeros_like(y)
    solved = np.zeros((len(series), x.shape[1]))
    inverse: Array = np.zeros((len(series), x.shape[1], x.shape[1]))
    reached: Array = np.zeros_like(y)
    # Products of every two terms, so that all series are fitted by one multiplication.
    squares = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    for turn in range(7):
        noise[counted] = _sampling(counts, total, fitted[counted])
        # Terms are held back by what such series usually vary by: a last value must not bend a fit through few that agree.
        variance = noise + _moderated(spread, _free(design, there, leverage), kinds)[0][:, None]
        # Off a fit that did not know it, as a last value can draw the fit to itself (Handschin and others 1975).
        off = np.abs(y - fitted) / (1 - leverage) / np.sqrt(variance + reached)
        if turn < 4:
            robust = np.minimum(1.0, 1.5 / np.maximum(off, 1e-9))
        else:
            robust = np.where(off < 5.0, (1 - np.minimum(off / 5.0, 1) ** 2) ** 2, 0.0)
        weight = np.where(there, design.weight * robust / variance, 0.0)
        normal = (weight @ squares).reshape(inverse.shape)
        normal[:, np.arange(x.shape[1]), np.arange(x.shape[1])] += prior
        inverse = np.asarray(np.linalg.inv(normal), dtype=np.float64)
        solved = np.matvec(inverse, (weight * (y - middle[:, None])) @ x)
        fitted = middle[:, None] + solved @ x.T
        reached = inverse.reshape(len(series), -1) @ squares.T
        leverage = np.clip(weight * reached, 0, 0.95)
        reached = reached / (1 - leverage)
        spread = _spread(y - fitted, noise, leverage, there, spread)
    # What each delivery is off a fit that did not know it.
    missed = np.where(there, (y - fitted) / (1 - leverage), 0.0)
    scale = np.sqrt(noise + spread[:, None])
    level, missed = _follow(missed, scale, there)
    spread = _spread(missed * np.sqrt(1 - leverage), noise, np.zeros_like(leverage), there, spread, plain=True)
    unsure = np.einsum("p,spq,q->s", x_new, inverse, x_new)
    spread, freedom = _moderated(spread, _free(design, there, leverage), kinds)
    mean = middle + solved @ x_new + level
    return [
        _Predicted(float(m), float(s + u), float(f * ((s + u) / s) ** 2))
        for m, s, u, f in zip(mean, spread, unsure, freedom, strict=True)
    ]


def _free(design: _Design, there: npt.NDArray[np.bool_], leverage: Array) -> Array:
    """Degrees of freedom of the spread: deliveries less what the fit took, at the efficiency of Qn."""
    free: Array = np.maximum(1.0, 0.8 * ((design.weight * there).sum(1) - leverage.sum(1)))
    return free


def _moderated(spread: Array, freedom: Array, kinds: Sequence[str]) -> tuple[Array, Array]:
    """The variance of a short series leans on what such series have: on the others of its kind in the dataset, but at least on
    what is usual (moderated variances: Smyth 2004)."""
    moderated, free = spread.copy(), freedom.copy()
    for kind, (usual, known) in USUAL_SPREAD.items():
        mine = [index for index, one in enumerate(kinds) if one == kind]
        if mine:
            common = max(usual**2, float(np.median(spread[mine])) if len(mine) >= 5 else 0.0)
            moderated[mine] = (known * common + freedom[mine] * spread[mine]) / (known + freedom[mine])
            free[mine] = known + freedom[mine]
    return moderated, free


def _sampling(counts: npt.NDArray[np.bool_], total: Array, fitted: Array) -> Array:
    """Sampling variance of the logarithm of a Poisson count, or the logit of a binomial share, at what was fitted."""
    bound = np.exp(np.clip(fitted, -30, 30))
    return np.asarray(1 / (np.where(counts[:, None], bound, total * bound / (1 + bound) ** 2) + 0.5))


def _median(values: Array, there: npt.NDArray[np.bool_]) -> Array:
    """Of each row, the median of what is there; 0 where nothing is."""
    ordered = np.sort(np.where(there, values, np.inf), axis=1)
    seen = there.sum(1)
    rows = np.arange(len(values))
    found = (ordered[rows, np.maximum(seen - 1, 0) // 2] + ordered[rows, seen // 2]) / 2
    return np.asarray(np.where(seen > 0, found, 0.0))


def _spread(
    off: Array, noise: Array, leverage: Array, there: npt.NDArray[np.bool_], before: Array, *, plain: bool = False
) -> Array:
    """The variance beside sampling that makes the standardised residuals as wide as a normal's."""
    spread = before
    usual = _median(noise, there)
    for _ in range(6 if plain else 2):
        standard = off / np.sqrt((noise + spread[:, None]) * (1 - leverage))
        wide = _scale(standard, there)
        spread = np.maximum(wide**2 * (usual + spread) - usual, 1e-8)
    return spread


def _scale(values: Array, there: npt.NDArray[np.bool_]) -> Array:
    """Qn of few values (82 % as efficient as the standard deviation), the median absolute deviation of many (37 %)."""
    if values.shape[1] > 60:
        return 1.4826 * _median(np.abs(values), there)
    found = np.zeros(len(values))
    whole = there.all(1)
    found[whole] = _qn(values[whole])
    for row in np.flatnonzero(~whole):
        found[row] = _qn(values[row : row + 1, there[row]])[0]
    return found


def _qn(values: Array) -> Array:
    """Of each row about the first quartile of all distances between two, corrected for few (Rousseeuw & Croux 1993)."""
    size = values.shape[1]
    if size < 4:
        return np.asarray(1.4826 * np.median(np.abs(values), axis=1)) if size else np.zeros(len(values))
    above, beside = np.triu_indices(size, 1)
    half = size // 2 + 1
    rank = half * (half - 1) // 2 - 1
    distance = np.partition(np.abs(values[:, above] - values[:, beside]), rank, axis=1)[:, rank]
    return np.asarray(2.2219 * distance * (size / (size + 1.4) if size % 2 else size / (size + 3.8)))


def _follow(missed: Array, scale: Array, there: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """A level that follows what was missed lately, where following predicted better than not; it, and what is missed then.

    A single outlier moves it little, as what was missed is cut at two and a half times the scale; but three in a row on one side,
    each beyond three times the scale, are a new level.
    """
    size = missed.shape[1]
    level = np.zeros(len(missed))
    left = missed
    if size >= 20:
        cut = np.clip(missed, -2.5 * scale, 2.5 * scale)
        best = _median(np.abs(missed), there)
        long = min(30, size)
        padded = np.concatenate([np.zeros((len(missed), long)), cut], axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, long, axis=1)
        for share in (0.1, 0.25):
            kernel = share * (1 - share) ** np.arange(long)[::-1]
            followed = windows @ kernel
            rest = missed - followed[:, :-1]
            found = _median(np.abs(rest), there)
            better = found < 0.95 * best
            best = np.where(better, found, best)
            level = np.where(better, followed[:, -1], level)
            left = np.where(better[:, None], rest, left)
    if size >= NEW_LEVEL:
        last = left[:, -NEW_LEVEL:]
        beyond = there[:, -NEW_LEVEL:] & (np.abs(last) > 3 * scale[:, -NEW_LEVEL:])
        moved = beyond.all(1) & (np.abs(np.sign(last).sum(1)) == NEW_LEVEL)
        level = np.where(moved, level + np.median(last, axis=1), level)
    return level, left


# -- scores -------------------------------------------------------------------------------------------------------------


def _score(series: _Series, found: _Predicted) -> float:
    """How far the last value is from what was expected, as a normal deviate."""
    if series.kind == "number":
        noise = float(series.noise[-1])
        return _as_normal((float(series.y[-1]) - found.mean) / math.sqrt(found.spread + noise), _freedom(found, noise))
    count, freedom = float(series.count[-1]), _freedom(found, _noise_now(series, found))
    if series.kind == "rows":
        return _as_normal(_deviance(count, math.exp(min(found.mean, 40.0)), found.spread), freedom)
    total = float(series.total[-1])
    share = 1 / (1 + math.exp(-max(-30.0, min(30.0, found.mean))))
    if share > 0.5:
        return -_as_normal(_deviance(total - count, total * (1 - share), found.spread * share**2), freedom)
    return _as_normal(_deviance(count, total * share, found.spread * (1 - share) ** 2), freedom)


def _freedom(found: _Predicted, noise: float) -> float:
    """Of the whole variance, where the sampling part is known (Satterthwaite 1946)."""
    return float(found.freedom * ((found.spread + noise) / found.spread) ** 2)


def _deviance(count: float, expected: float, spread: float) -> float:
    """Signed root of the deviance of a negative binomial count; ``spread``: its variance beside Poisson's, in squared means."""
    expected = max(expected, 0.5)
    spread = max(spread, 1e-9)
    first = count * math.log(count / expected) if count > 0 else 0.0
    second = (count + 1 / spread) * math.log1p(spread * (count - expected) / (1 + spread * expected))
    return math.copysign(math.sqrt(max(0.0, 2 * (first - second))), count - expected)


def _as_normal(t: float, freedom: float) -> float:
    """The normal deviate as improbable as a Student's t (Wallace 1959)."""
    wide = math.sqrt(freedom * math.log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return math.copysign(wide, t)


def _two_sided(score: float) -> float:
    return math.erfc(abs(score) / math.sqrt(2))


def _matters(series: _Series, found: _Predicted) -> bool:
    """Whether anybody would want to be told, were it certain."""
    if series.kind == "number":
        return abs(float(series.y[-1]) - found.mean) >= SMALLEST["number"]
    count = float(series.count[-1])
    if series.kind == "rows":
        expected = math.exp(min(found.mean, 40.0))
        return abs(count - expected) >= max(5.0, SMALLEST["rows"] * expected)
    total = float(series.total[-1])
    expected = total * series.shown(found.mean)
    return total > 0 and abs(count - expected) >= max(5.0, SMALLEST["share"] * total)


def _finding(
    group: _Group, series: _Series, found: _Predicted, score: float, chance: float, bar: float, unusual: bool
) -> Finding:
    wide = bar * math.sqrt(found.spread + float(_noise_now(series, found)))
    expected, low, high = (series.shown(found.mean + side * wide) for side in (0, -1, 1))
    value = {
        "rows": lambda: float(series.count[-1]),
        "share": lambda: float(series.count[-1] / max(series.total[-1], 1)),
        "number": lambda: series.shown(float(series.y[-1])),
    }[series.kind]()
    en, th = _words(group, series, value, expected, low, high)
    return Finding(group.aspect, group.column, series.figure, value, expected, low, high, score, chance, unusual, en, th)


def _noise_now(series: _Series, found: _Predicted) -> float:
    if series.kind == "number":
        return float(series.noise[-1])
    if series.kind == "rows":
        return 1 / (math.exp(min(found.mean, 40.0)) + 0.5)
    share = series.shown(found.mean)
    return 1 / (float(series.total[-1]) * share * (1 - share) + 0.5)


_FIGURES_TH = {"mean": "ค่าเฉลี่ย", "q50": "มัธยฐาน"}


def _words(group: _Group, series: _Series, value: float, expected: float, low: float, high: float) -> tuple[str, str]:
    if group.aspect == "rows":
        shown = f"{value:,.0f}", f"{low:,.0f}", f"{high:,.0f}"
        return f"{shown[0]} rows, expected {shown[1]} to {shown[2]}", f"{shown[0]} แถว จากที่คาด {shown[1]} ถึง {shown[2]}"
    if series.kind == "share":
        shown = f"{value:.1%}", f"{low:.1%}", f"{high:.1%}"
        what_en = {"missing": "missing values", "new_values": "values never seen before"}.get(group.aspect, f"‘{series.figure}’")
        what_th = {"missing": "ค่าว่าง", "new_values": "ค่าที่ไม่เคยพบมาก่อน"}.get(group.aspect, f"‘{series.figure}’")
        return (
            f"{group.column}: {shown[0]} {what_en}, expected {shown[1]} to {shown[2]}",
            f"{group.column}: {what_th} {shown[0]} จากที่คาด {shown[1]} ถึง {shown[2]}",
        )
    shown = f"{value:,.4g}", f"{low:,.4g}", f"{high:,.4g}"
    en = {"mean": "mean", "q50": "median"}.get(series.figure, f"{series.figure[1:]} % quantile")
    th = _FIGURES_TH.get(series.figure, f"ควอนไทล์ที่ {series.figure[1:]} %")
    return (
        f"{group.column}: {en} {shown[0]}, expected {shown[1]} to {shown[2]}",
        f"{group.column}: {th} {shown[0]} จากที่คาด {shown[1]} ถึง {shown[2]}",
    )
