"""The national data quality standard as code: five dimensions, 22 indicators, four levels (มรด. 5:2565).

The standard's text, thresholds and our weights are ``standard.yaml`` beside this; what an indicator's evidence amounts to is
worked out here, from evidence alone. Gathering evidence is :mod:`.facts`'s, keeping scores :mod:`.scores`'s.

The formula (``FORMULA``):

- an indicator has a level of 1 to 4 by the standard, and a score of 0 to 100: 100 × the mean share of rows that keep its rules
  where ``scoreOf: results`` and rules were measured, else 100 × (level - 1) / 3;
- a dimension is the weighted mean of its indicators, levels and scores apart; the overall score that of the dimensions;
- what does not apply to a dataset is left out of the mean, with its weight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

FORMULA = 1
"""Edition of the arithmetic in this module; raised when it changes, with the old one kept beside it."""

OVERALL = "0"
Way = Literal["share", "number", "steps", "judged"]


@dataclass(frozen=True)
class Text:
    """What a person reads, in Thai and English."""

    th: str
    en: str


@dataclass(frozen=True)
class HowTo:
    """One way of coming to a level. ``names``: the fact, or the steps; ``bounds``: (level, bound), the highest level first."""

    way: Way
    names: tuple[str, ...] = ()
    bounds: tuple[tuple[int, float], ...] = ()
    at_most: bool = False


@dataclass(frozen=True)
class Indicator:
    """One of the 22. ``otherwise``: its level where no way has anything to say; None: it does not apply.

    ``from_standard``: the thresholds are told of the standard (second-hand); else they are the platform's own reading.
    """

    code: str
    name: Text
    question: Text
    meaning: Mapping[int, Text]
    ways: tuple[HowTo, ...]
    weight: float = 1.0
    otherwise: int | None = 1
    score_of_results: bool = False
    applies_if: str | None = None
    from_standard: bool = False

    @property
    def is_judged(self) -> bool:
        """Whether a person's answer counts for it."""
        return any(way.way == "judged" for way in self.ways)

    @property
    def facts(self) -> tuple[str, ...]:
        """Names of the facts that it looks at."""
        names = [name for way in self.ways for name in way.names]
        return tuple(dict.fromkeys([*names, *([self.applies_if] if self.applies_if else [])]))


@dataclass(frozen=True)
class Dimension:
    """One of the five, with its indicators in the standard's order. ``name`` is what rules call it."""

    code: str
    name: str
    title: Text
    weight: float
    indicators: tuple[Indicator, ...]


@dataclass(frozen=True)
class Standard:
    """One edition of the standard. ``line``: the score (0-100) that a key dataset must reach; ``answers_hold``: days."""

    edition: str
    formula: str
    document: str
    dimensions: tuple[Dimension, ...]
    levels: Mapping[int, Text]
    line: float
    answers_hold: int
    formats: Mapping[str, int] = field(default_factory=dict)
    says_nothing: tuple[str, ...] = ()

    @property
    def indicators(self) -> tuple[Indicator, ...]:
        return tuple(indicator for dimension in self.dimensions for indicator in dimension.indicators)

    def indicator(self, code: str) -> Indicator | None:
        return next((item for item in self.indicators if item.code == code), None)

    def title(self, code: str) -> Text:
        """Name of an indicator, dimension or of the whole, by code."""
        if code == OVERALL:
            return Text("คุณภาพโดยรวม", "Overall")
        found = self.indicator(code)
        return found.name if found else next(item.title for item in self.dimensions if item.code == code)

    def word(self, level: float) -> Text:
        """The level's word; a mean takes the nearest level's, a half the higher."""
        return self.levels[min(4, max(1, int(level + 0.5)))]


@dataclass(frozen=True)
class Found:
    """What the score needs of one result of a rule; a rule that is not about rows has none."""

    passed: bool
    rows_checked: int | None = None
    rows_failed: int | None = None

    @property
    def share(self) -> float:
        """Share of what was looked at that keeps the rule, 0 to 1."""
        if self.rows_checked and self.rows_failed is not None:
            return max(0.0, 1 - self.rows_failed / self.rows_checked)
        return 1.0 if self.passed else 0.0


@dataclass(frozen=True)
class Grade:
    """Level (1 to 4) and score (0 to 100) of an indicator, a dimension or the whole; None where it does not apply.

    ``way``: which of the indicator's ways decided; ``otherwise`` where none could.
    """

    level: float | None
    score: float | None
    way: str = "mean"


def grade(
    indicator: Indicator, results: Sequence[Found], facts: Mapping[str, Any], answer: int | None
) -> Grade:  # fmt: skip
    """What evidence amounts to. ``answer``: the level that the self-assessment gives, None where there is no valid answer."""
    if indicator.applies_if and not facts.get(indicator.applies_if) and not results:
        return Grade(None, None, "does not apply")
    level: int | None = indicator.otherwise
    way = "otherwise"
    share = sum(item.share for item in results) / len(results) if results else None
    for how in indicator.ways:
        found = _level(how, share, facts, answer)
        if found is not None:
            level, way = found, how.way
            break
    if level is None:
        return Grade(None, None, "does not apply")
    if indicator.score_of_results and share is not None:
        return Grade(level, round(100 * share, 3), way)
    return Grade(level, round(100 * (level - 1) / 3, 3), way)


def _level(how: HowTo, share: float | None, facts: Mapping[str, Any], answer: int | None) -> int | None:
    if how.way == "judged":
        return answer
    if how.way == "steps":
        level = 1
        for name in how.names:
            if not facts.get(name):
                break
            level += 1
        return level
    number = share if how.way == "share" else facts.get(how.names[0])
    if number is None:
        return None
    for level, bound in how.bounds:
        if number <= bound if how.at_most else number >= bound:
            return level
    return 1


def mean(parts: Iterable[tuple[Grade, float]]) -> Grade:
    """Weighted mean of grades; what does not apply is left out."""
    there = [(grade.level, grade.score, weight) for grade, weight in parts if grade.level is not None and grade.score is not None]
    weights = sum(weight for _, _, weight in there)
    if not weights:
        return Grade(None, None, "does not apply")
    level = sum(level * weight for level, _, weight in there) / weights
    score = sum(score * weight for _, score, weight in there) / weights
    return Grade(round(level, 3), round(score, 3))


def parse(document: str) -> Standard:
    """An edition of the standard from its text."""
    data: dict[str, Any] = yaml.safe_load(document)
    digest = hashlib.sha256(document.encode()).hexdigest()
    return Standard(
        edition=str(data["edition"]),
        formula=f"{FORMULA}:{digest[:16]}",
        document=document,
        dimensions=tuple(
            Dimension(
                code=str(item["code"]),
                name=item["name"],
                title=Text(item["th"], item["en"]),
                weight=float(item.get("weight", 1)),
                indicators=tuple(_indicator(inner) for inner in item["indicators"]),
            )
            for item in data["dimensions"]
        ),
        levels={int(level): Text(**words) for level, words in data["levels"].items()},
        line=float(data["line"]),
        answers_hold=int(data["answersHold"]),
        formats={name: int(level) for name, level in data["formats"].items()},
        says_nothing=tuple(data["saysNothing"]),
    )


def _indicator(data: Mapping[str, Any]) -> Indicator:
    return Indicator(
        code=str(data["code"]),
        name=Text(data["th"], data["en"]),
        question=Text(**data["question"]),
        meaning={int(level): Text(**words) for level, words in data["meaning"].items()},
        ways=tuple(_way(item) for item in data["ways"]),
        weight=float(data.get("weight", 1)),
        otherwise=data.get("otherwise", 1),
        score_of_results=data.get("scoreOf") == "results",
        applies_if=data.get("appliesIf"),
        from_standard=data["from"] == "second_hand",
    )


def _way(data: Mapping[str, Any]) -> HowTo:
    bounds: Mapping[int, float] = data.get("atMost") or data.get("atLeast") or {}
    ordered = tuple((level, float(bounds[level])) for level in sorted(bounds, reverse=True))
    if "steps" in data:
        return HowTo("steps", tuple(data["steps"]))
    if "number" in data:
        return HowTo("number", (data["number"],), ordered, "atMost" in data)
    return HowTo("judged") if data.get("judged") else HowTo("share", (), ordered)


@cache
def current() -> Standard:
    """The edition that is in force."""
    return parse((files("dopa_pipelines.quality") / "standard.yaml").read_text("utf-8"))
