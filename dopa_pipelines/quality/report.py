"""The report of quality: one self-contained page in Thai and English, for stewards and the data governance council.

Gathering what stands in it and drawing its pictures belong here; what a score is, is :mod:`.scores`'s. No value of a row is
in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from dopa_pipelines.contracts import Contract
from dopa_pipelines.quality import incidents, scores, store
from dopa_pipelines.quality.incidents import SEVERITY_TH, Incident
from dopa_pipelines.quality.scores import UNUSUAL, Score
from dopa_pipelines.quality.standard import OVERALL, Standard, Text, current
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.thai.dates import BUDDHIST_OFFSET

WORST = 15
"""Rules that the report lists as the worst."""
Connection = psycopg.Connection[Any]

DIMENSIONS = ("1", "2", "3", "4", "5")
MONTHS = ("ม.ค.", "ก.พ.", "มี.ค.", "เม.ย.", "พ.ค.", "มิ.ย.", "ก.ค.", "ส.ค.", "ก.ย.", "ต.ค.", "พ.ย.", "ธ.ค.")


@dataclass(frozen=True)
class Standing:
    """How one dataset stands: its scores by code (empty: never scored), the overall one over time, its open incidents."""

    contract: Contract
    scores: Mapping[str, Score] = field(default_factory=dict)
    history: Sequence[Score] = ()
    incidents: int = 0

    @property
    def score(self) -> float | None:
        return self.scores[OVERALL].score if OVERALL in self.scores else None

    @property
    def level(self) -> float | None:
        return self.scores[OVERALL].level if OVERALL in self.scores else None

    def dimension(self, code: str) -> float | None:
        """The dimension's score, 0 to 100."""
        return self.scores[code].score if code in self.scores else None

    @property
    def levels(self) -> dict[str, float | None]:
        """Levels by code, 1 to 4."""
        return {code: item.level for code, item in self.scores.items()}

    @property
    def trend(self) -> float | None:
        """Difference of the overall score to the one taken before; None where there is none."""
        known = [item.score for item in self.history if item.score is not None]
        return round(known[-1] - known[-2], 3) if len(known) > 1 else None


@dataclass(frozen=True)
class Whole:
    """Mean of the datasets of a bureau or the department: levels (1 to 4) and scores (0 to 100) by code."""

    name: str
    title: str
    datasets: int
    levels: Mapping[str, float]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Change:
    """Overall score of a dataset in the last report and now; None where it had none."""

    contract: Contract
    before: float | None
    now: float | None

    @property
    def difference(self) -> float | None:
        return None if self.before is None or self.now is None else round(self.now - self.before, 3)


@dataclass(frozen=True)
class Page:
    """Everything that the report says. ``since``: when the last report of the same scope was made."""

    made_at: datetime
    bureau: str | None
    standard: Standard
    standings: list[Standing]
    department: Whole
    bureaus: list[Whole]
    worst: list[store.Kept]
    incidents: list[Incident]
    since: datetime | None
    changes: list[Change]
    opened: int
    closed: int

    @property
    def line(self) -> float:
        return self.standard.line

    @property
    def key_total(self) -> int:
        return sum(1 for item in self.standings if item.contract.key_dataset)

    @property
    def key_reached(self) -> int:
        """Key datasets whose overall score reaches the line (KPI P1.1)."""
        return sum(1 for item in self.standings if item.contract.key_dataset and (item.score or 0) >= self.line)


def standings(connection: Connection, contracts: Iterable[Contract]) -> list[Standing]:
    """How datasets stand, by bureau and name."""
    ordered = sorted(contracts, key=lambda contract: (contract.bureau, contract.dataset))
    names = [contract.dataset for contract in ordered]
    latest = scores.latest_of_all(connection, names)
    over_time = scores.history(connection, names)
    open_now: dict[str, int] = dict(
        connection.execute(
            "select dataset, count(*) from quality.incident where closed_at is null and dataset = any(%s) group by dataset",
            (names,),
        ).fetchall()
    )
    return [
        Standing(contract, latest.get(name, {}), over_time.get(name, []), open_now.get(name, 0))
        for contract, name in zip(ordered, names, strict=True)
    ]


def gather(connection: Connection, contracts: Iterable[Contract], *, bureau: str | None = None) -> Page:
    """Everything the report says of these datasets. ``bureau``: the scope's name, None for the department."""
    found = standings(connection, contracts)
    names = [item.contract.dataset for item in found]
    bureaus = sorted({item.contract.bureau for item in found})
    row = connection.execute(
        "select made_at from quality.report where bureau is not distinct from %s order by id desc limit 1", (bureau,)
    ).fetchone()
    since: datetime | None = row[0] if row else None
    changes = []
    opened = closed = 0
    if since:
        before = scores.latest_of_all(connection, names, as_of=since)
        for item in found:
            old = before.get(item.contract.dataset, {}).get(OVERALL)
            changes.append(Change(item.contract, old.score if old else None, item.score))
        changes = [item for item in changes if item.before != item.now]
        counts = connection.execute(
            "select count(*) filter (where opened_at > %(since)s), count(*) filter (where closed_at > %(since)s)"
            " from quality.incident where dataset = any(%(names)s)"
            " or (dataset like '%%.%%' and (%(all)s or bureau = any(%(bureaus)s)))",
            {"since": since, "names": names, "all": bureau is None, "bureaus": bureaus},
        ).fetchone()
        opened, closed = (int(counts[0]), int(counts[1])) if counts else (0, 0)
    by_bureau: dict[str, list[Standing]] = {}
    for item in found:
        by_bureau.setdefault(item.contract.bureau, []).append(item)
    return Page(
        made_at=datetime.now(BANGKOK),
        bureau=bureau,
        standard=current(),
        standings=found,
        department=_whole("", "กรมการปกครอง", found),
        bureaus=[_whole(name, _bureau_title(items), items) for name, items in by_bureau.items()],
        worst=_worst(connection, names),
        incidents=_incidents(connection, names, None if bureau is None else bureaus),
        since=since,
        changes=changes,
        opened=opened,
        closed=closed,
    )


def keep(connection: Connection, bureau: str | None, who: str) -> None:
    """Note that a report was made, so that the next one says what changed since. In the caller's transaction."""
    connection.execute("insert into quality.report (bureau, made_by) values (%s, %s)", (bureau, who))


def _bureau_title(items: Sequence[Standing]) -> str:
    return str(items[0].contract.gd_catalog.get("maintainer") or items[0].contract.bureau)


def _whole(name: str, title: str, items: Sequence[Standing]) -> Whole:
    levels: dict[str, float] = {}
    points: dict[str, float] = {}
    for code in (*DIMENSIONS, OVERALL):
        known = [item.scores[code] for item in items if code in item.scores]
        found = [(score.level, score.score) for score in known if score.level is not None and score.score is not None]
        if found:
            levels[code] = sum(level for level, _ in found) / len(found)
            points[code] = sum(score for _, score in found) / len(found)
    return Whole(name, title, len(items), levels, points)


def _worst(connection: Connection, names: Sequence[str]) -> list[store.Kept]:
    """Rules that fail now, of datasets and of models built on any of them; the largest share of rows first."""
    known = set(names)
    failing = [
        item
        for item in store.latest(connection)
        if not item.passed and item.kind != UNUSUAL and (item.dataset in known or "." in item.dataset)
    ]
    return sorted(failing, key=lambda item: (-(share_failed(item) or 1.0), item.dataset, item.rule))[:WORST]


def share_failed(item: store.Kept) -> float | None:
    """Share of rows that break the rule; None where it is not about rows."""
    if item.rows_failed is None or not item.rows_checked:
        return None
    return item.rows_failed / item.rows_checked


def _incidents(connection: Connection, names: Sequence[str], bureaus: Sequence[str] | None) -> list[Incident]:
    """Open incidents of these datasets, and of tables built for these bureaus (None: all), in the order of their list."""
    return [
        item
        for item in incidents.incidents(connection)
        if item.dataset in names or ("." in item.dataset and (bureaus is None or item.bureau in bureaus))
    ]


# The page

RADAR_WORDS: tuple[tuple[str, Text], ...] = (
    ("1", Text("ถูกต้องสมบูรณ์", "Accuracy")),
    ("2", Text("สอดคล้องกัน", "Consistency")),
    ("3", Text("ตรงความต้องการ", "Relevancy")),
    ("4", Text("เป็นปัจจุบัน", "Timeliness")),
    ("5", Text("พร้อมใช้", "Availability")),
)


def radar(levels: Mapping[str, float | None], *, size: int = 320, words: bool = True) -> Markup:
    """The five dimensions' levels, 1 at the centre to 4 at the rim, as SVG; a dimension without a level stands at the centre."""
    margin = 78 if words else 6
    width, height = size + (2 * margin if words else 0), size + (60 if words else 0)
    cx, cy, radius = width / 2, height / 2 + (6 if words else 0), size / 2 - (20 if words else 4)

    def at(place: int, part: float) -> tuple[float, float]:
        angle = -math.pi / 2 + place * 2 * math.pi / len(DIMENSIONS)
        return cx + math.cos(angle) * radius * part, cy + math.sin(angle) * radius * part

    def ring(part: float) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(place, part) for place in range(len(DIMENSIONS))))

    known = [levels.get(code) for code in DIMENSIONS]
    told = ", ".join(
        f"{word.en} {level:.2f}" if level is not None else f"{word.en} -"
        for (_, word), level in zip(RADAR_WORDS, known, strict=True)
    )
    drawn = [
        f'<svg class="radar" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(told)}">'
    ]
    drawn += [f'<polygon class="ring" points="{ring(part)}"/>' for part in (1 / 3, 2 / 3, 1.0)]
    for place in range(len(DIMENSIONS)):
        x, y = at(place, 1)
        drawn.append(f'<line class="ring" x1="{cx:.1f}" y1="{cy:.1f}" x2="{x:.1f}" y2="{y:.1f}"/>')
    parts = [0.0 if level is None else (level - 1) / 3 for level in known]
    points = [at(place, part) for place, part in enumerate(parts)]
    drawn.append(f'<polygon class="area" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
    drawn += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{3.5 if words else 2}"/>' for x, y in points]
    if words:
        for part, tick in ((1 / 3, 2), (2 / 3, 3), (1.0, 4)):
            x, y = at(0, part)
            drawn.append(f'<text class="tick" x="{x + 4:.1f}" y="{y + 12:.1f}">{tick}</text>')
        for place, (code, word) in enumerate(RADAR_WORDS):
            x, y = at(place, 1.12)
            anchor = "middle" if abs(x - cx) < 5 else "start" if x > cx else "end"
            lower = 10 if y > cy + radius / 2 else 0 if abs(x - cx) > 5 else -12
            level = levels.get(code)
            number = "-" if level is None else f"{level:.2f}"
            drawn.append(
                f'<text class="word" text-anchor="{anchor}" x="{x:.1f}" y="{y + lower:.1f}">{escape(word.th)}'
                f'<tspan class="tick" x="{x:.1f}" dy="14">{escape(word.en)} {number}</tspan></text>'
            )
    return Markup("".join([*drawn, "</svg>"]))


def sparkline(numbers: Sequence[float], *, width: int = 110, height: int = 26) -> Markup:
    """A score over time as SVG, oldest left, on a scale of its own that spans 10 points at least; nothing where there is none."""
    if not numbers:
        return Markup("")
    low, high = min(numbers), max(numbers)
    middle, span = (low + high) / 2, max(10.0, high - low)
    low = middle - span / 2
    step = (width - 8) / max(1, len(numbers) - 1)
    points = [(4 + place * step, height - 4 - (number - low) / span * (height - 8)) for place, number in enumerate(numbers)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    told = f"{numbers[0]:.1f} → {numbers[-1]:.1f}"
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{told}">'
        f'<polyline points="{line}"/><circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg>'
    )


def thai_day(moment: date | datetime) -> str:
    """A day as Thai offices write it: 25 พ.ย. 2569."""
    day = moment.astimezone(BANGKOK).date() if isinstance(moment, datetime) else moment
    return f"{day.day} {MONTHS[day.month - 1]} {day.year + BUDDHIST_OFFSET}"


@cache
def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "day": thai_day,
        "moment": lambda value: f"{thai_day(value)} {value.astimezone(BANGKOK):%H:%M} น.",
        "one": lambda value: "–" if value is None else f"{value:.1f}",
        "two": lambda value: "–" if value is None else f"{value:.2f}",
        "number": lambda value: "–" if value is None else f"{value:,}",
        "signed": lambda value: "–" if value is None else f"{value:+.1f}",
        "percent": lambda value: "–" if value is None else f"{100 * value:.2f} %",
    }
    return environment


def as_html(page: Page) -> str:
    """The page, complete in itself: no script, no font, no address outside."""
    template = _environment().from_string((files("dopa_pipelines.quality") / "templates" / "report.html.j2").read_text("utf-8"))
    return template.render(
        page=page,
        standard=page.standard,
        radar=radar,
        sparkline=sparkline,
        share_failed=share_failed,
        dimensions=page.standard.dimensions,
        overall=OVERALL,
        severities=SEVERITY_TH,
    )
