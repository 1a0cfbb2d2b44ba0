"""Scores of datasets by the national standard: working them out, keeping them, working an old one out again, explaining one.

A score is kept with all that it was worked out from (``why``): ids of results, facts as they stood, the steward's answer, and the
edition of the standard (``quality.standard``). So ``recompute`` needs nothing of today. What evidence amounts to is
:mod:`.standard`'s, what the facts are :mod:`.facts`'s.

Scores are taken after each delivery and each build. A look that finds what the last one of the same write found keeps nothing.
What is told to be unusual (kind ``unusual``) breaks no rule and is no part of a score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from dopa_pipelines.contracts import Contract
from dopa_pipelines.documents import DocumentError, Problem
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.model import Graph
from dopa_pipelines.lineage.store import graph as recorded_graph
from dopa_pipelines.quality import store
from dopa_pipelines.quality.assessment import Answer, read_assessment
from dopa_pipelines.quality.facts import facts_of
from dopa_pipelines.quality.places import OfDelivery, places_of
from dopa_pipelines.quality.standard import FORMULA, OVERALL, Found, Grade, Indicator, Standard, current, grade, mean, parse
from dopa_pipelines.settings import Settings
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.warehouse import Role, Warehouse

UNUSUAL = "unusual"
Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Score:
    """One kept score. ``code``: an indicator (``2.3``), a dimension (``2``) or ``0``, the whole.

    ``level``: 1 to 4 by the standard; ``score``: 0 to 100; both None where it does not apply to the dataset.
    """

    id: int
    dataset: str
    code: str
    measured_at: datetime
    write_id: int | None
    level: float | None
    score: float | None
    why: dict[str, Any]
    formula: str


@dataclass(frozen=True)
class _Worked:
    """Scores of one dataset before they are kept: of indicators, with their evidence, and the means."""

    indicators: dict[str, tuple[Grade, dict[str, Any]]]
    dimensions: dict[str, Grade]
    overall: Grade

    @property
    def grades(self) -> dict[str, Grade]:
        return {code: grade for code, (grade, _) in self.indicators.items()} | self.dimensions | {OVERALL: self.overall}


@dataclass(frozen=True)
class Taken:
    """Ids of the scores that were kept, by dataset (none: nothing changed), and self-assessments that are wrong."""

    kept: dict[str, list[int]]
    problems: list[Problem] = field(default_factory=list)


def reference_day(settings: Settings) -> date:
    """The day that ages, delays and answers refer to: ``DOPA_AS_OF``; of the demo's state the demo's own day, so that its scores
    are the same next year; else today in Thailand."""
    if settings.as_of is not None:
        return settings.as_of
    if (settings.demo_path / "made.json").exists():
        from dopa_pipelines.demo import DAY

        return DAY
    return datetime.now(BANGKOK).date()


def take(warehouse: Warehouse, contracts: Iterable[Contract], *, day: date | None = None) -> Taken:
    """Score datasets as they stand and keep what changed, each in a transaction of its own.

    For the end of an ingest, a run or a release. ``day``: the day that ages and answers refer to, default today. The answers of a
    self-assessment that is wrong do not count.
    """
    taken = Taken({})
    with warehouse.connect(Role.LOADER) as connection:
        graph = recorded_graph(connection)
        connection.commit()
        for contract in contracts:
            try:
                answers = read_assessment(contract)
            except DocumentError as error:
                taken.problems.extend(error.problems)
                answers = {}
            taken.kept[contract.dataset] = score(connection, contract, answers, graph=graph, day=day)
            connection.commit()
    return taken


def score(
    connection: Connection,
    contract: Contract,
    answers: Mapping[str, Answer] | None = None,
    *,
    graph: Graph | None = None,
    day: date | None = None,
    standard: Standard | None = None,
) -> list[int]:
    """Score one dataset and keep it, in the caller's transaction: ids of the kept scores, none where nothing changed.

    A dataset of which nothing was ever loaded has no score. ``answers``: of its self-assessment; ``graph``: the recorded lineage,
    read here unless it is given.
    """
    standard = standard or current()
    day = day or datetime.now(BANGKOK).date()
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"score:{contract.dataset}",))
    row = connection.execute(
        "select max(id) from lineage.write where target = %s and environment = 'production'", (contract.table,)
    ).fetchone()
    write: int | None = row[0] if row else None
    if write is None:
        return []
    results = results_of(connection, contract.dataset)
    facts = facts_of(connection, contract, results, graph or recorded_graph(connection), standard, day)
    worked = _work(standard, results, facts.values, facts.sources, answers or {}, day)
    before = latest(connection, contract.dataset)
    if _is_same(before, worked, write, standard):
        return []
    return _keep(connection, contract.dataset, write, standard, worked)


def results_of(connection: Connection, dataset: str) -> list[store.Kept]:
    """The results that a score of the dataset rests on: the latest of each rule that was looked at since its latest delivery.

    A rule that is no more in the contract has no result since, and counts no more.
    """
    row = connection.execute(
        "select min(r.id) from quality.result r where r.dataset = %(dataset)s and r.delivery_id = ("
        " select max(d.id) from ops.delivery d where d.dataset = %(dataset)s and d.status = 'loaded'"
        " and exists (select from quality.result k where k.delivery_id = d.id and k.dataset = d.dataset))",
        {"dataset": dataset},
    ).fetchone()
    since = row[0] if row and row[0] is not None else 0
    return [item for item in store.latest(connection, dataset) if item.id >= since and item.kind != UNUSUAL]


def _work(
    standard: Standard,
    results: Sequence[store.Kept],
    facts: Mapping[str, Any],
    sources: Mapping[str, Any],
    answers: Mapping[str, Answer],
    day: date,
) -> _Worked:
    indicators = {}
    for indicator in standard.indicators:
        own = [item for item in results if item.indicator == indicator.code]
        answer = answers.get(indicator.code) if indicator.is_judged else None
        counts = answer is not None and answer.counts_on(day, standard)
        found = grade(
            indicator, [_found(item) for item in own], {name: facts.get(name) for name in indicator.facts},
            answer.level if answer and counts else None,
        )  # fmt: skip
        why: dict[str, Any] = {"way": found.way, "day": day.isoformat()}
        if own:
            why["results"] = [item.id for item in own]
        if indicator.facts:
            why["facts"] = {name: facts.get(name) for name in indicator.facts}
            if read_from := {name: sources[name] for name in indicator.facts if name in sources}:
                why["sources"] = read_from
        if answer:
            why["answer"] = {
                "level": answer.level, "evidence": answer.evidence, "assessed_on": answer.assessed_on.isoformat(),
                "signed_by": answer.signed_by, "sha256": answer.sha256, "counts": counts,
            }  # fmt: skip
        indicators[indicator.code] = (found, why)
    dimensions = {
        dimension.code: mean((indicators[item.code][0], item.weight) for item in dimension.indicators)
        for dimension in standard.dimensions
    }
    overall = mean((dimensions[dimension.code], dimension.weight) for dimension in standard.dimensions)
    return _Worked(indicators, dimensions, overall)


def _found(item: store.Kept) -> Found:
    return Found(item.passed, item.rows_checked, item.rows_failed)


def _is_same(before: Mapping[str, Score], worked: _Worked, write: int, standard: Standard) -> bool:
    grades = worked.grades
    return set(before) == set(grades) and all(
        item.write_id == write
        and item.formula == standard.formula
        and item.level == grades[code].level
        and item.score == grades[code].score
        for code, item in before.items()
    )


def _keep(connection: Connection, dataset: str, write: int, standard: Standard, worked: _Worked) -> list[int]:
    connection.execute(
        "insert into quality.standard (formula, document) values (%s, %s) on conflict do nothing",
        (standard.formula, standard.document),
    )
    ids: dict[str, int] = {}

    def insert(code: str, graded: Grade, why: Mapping[str, Any]) -> None:
        row = connection.execute(
            "insert into quality.score (dataset, write_id, code, level, score, why, formula)"
            " values (%s, %s, %s, %s, %s, %s, %s) returning id",
            (dataset, write, code, graded.level, graded.score, Jsonb(dict(why)), standard.formula),
        ).fetchone()
        assert row is not None
        ids[code] = int(row[0])

    for code, (graded, why) in worked.indicators.items():
        insert(code, graded, why)
    for dimension in standard.dimensions:
        parts = [ids[item.code] for item in dimension.indicators]
        insert(dimension.code, worked.dimensions[dimension.code], {"scores": parts})
    insert(OVERALL, worked.overall, {"scores": [ids[dimension.code] for dimension in standard.dimensions]})
    return list(ids.values())


_COLUMNS = "id, dataset, code, measured_at, write_id, level::float8 as level, score::float8 as score, why, formula"


def latest(connection: Connection, dataset: str, *, as_of: datetime | None = None) -> dict[str, Score]:
    """The dataset's last scores by code, as of a moment or now; empty where it was never scored."""
    return latest_of_all(connection, [dataset], as_of=as_of).get(dataset, {})


def latest_of_all(
    connection: Connection, datasets: Iterable[str], *, as_of: datetime | None = None
) -> dict[str, dict[str, Score]]:
    """Last scores by dataset and code. All codes of a dataset are of one look: that of its last overall score."""
    with connection.cursor(row_factory=class_row(Score)) as cursor:
        rows = cursor.execute(
            f"""
            with named as (
                select unnest(%(datasets)s::text[]) as dataset
            ),
            overall as (
                select n.dataset, s.id, s.why
                from named n
                cross join lateral (
                    select id, why
                    from quality.score s
                    where s.dataset = n.dataset and s.code = %(overall)s
                        and (%(as_of)s::timestamptz is null or s.measured_at <= %(as_of)s)
                    order by s.id desc
                    limit 1
                ) s
            ),
            dimension as (
                select s.id, s.why
                from overall o
                cross join lateral jsonb_array_elements_text(o.why -> 'scores') as part (id)
                join quality.score s on s.id = part.id::bigint
            ),
            of_one_look as (
                select id from overall
                union all
                select id from dimension
                union all
                select part.id::bigint
                from dimension d
                cross join lateral jsonb_array_elements_text(d.why -> 'scores') as part (id)
            )
            select {_COLUMNS}
            from quality.score
            where id in (select id from of_one_look)
            order by id
            """,
            {"datasets": list(datasets), "as_of": as_of, "overall": OVERALL},
        ).fetchall()
    found: dict[str, dict[str, Score]] = {}
    for row in rows:
        found.setdefault(row.dataset, {})[row.code] = row
    return found


def history(connection: Connection, datasets: Iterable[str], code: str = OVERALL, *, limit: int = 24) -> dict[str, list[Score]]:
    """A score of each dataset over time, oldest first, at most the ``limit`` last of each."""
    with connection.cursor(row_factory=class_row(Score)) as cursor:
        rows = cursor.execute(
            f"""
            select {_COLUMNS}
            from unnest(%(datasets)s::text[]) as named (name)
            cross join lateral (
                select * from quality.score s
                where s.dataset = named.name and s.code = %(code)s
                order by s.id desc
                limit %(limit)s
            ) s
            order by id
            """,
            {"datasets": list(datasets), "code": code, "limit": limit},
        ).fetchall()
    found: dict[str, list[Score]] = {}
    for row in rows:
        found.setdefault(row.dataset, []).append(row)
    return found


def as_numbers(now: Mapping[str, Score], overall: Sequence[Score]) -> dict[str, float]:
    """Scores of a dataset as numbers by name, to be plotted: overall, by dimension, and the change since the one before."""
    named = {OVERALL: "quality_score"} | {item.code: f"quality_{item.name}" for item in current().dimensions}
    found = {named[code]: item.score for code, item in now.items() if code in named and item.score is not None}
    scores = [item.score for item in overall if item.score is not None]
    if len(scores) > 1:
        found["quality_trend"] = round(scores[-1] - scores[-2], 3)
    if OVERALL in now and now[OVERALL].level is not None:
        found["quality_level"] = float(now[OVERALL].level or 0)
    return found


def quality_of(connection: Connection, datasets: Iterable[str]) -> dict[str, float]:
    """The overall score of each dataset, 0 to 100, as it was last taken. A dataset that was never scored is not in it."""
    rows = connection.execute(
        "select distinct on (dataset) dataset, score::float8 from quality.score"
        " where dataset = any(%s) and code = %s and score is not null order by dataset, id desc",
        (sorted(set(datasets)), OVERALL),
    ).fetchall()
    return {name: float(value) for name, value in rows}


def score_of_rule(item: store.Kept | store.Result) -> float:
    """What one rule's result adds to a score, 0 to 100: the share of rows that keep the rule, or all or nothing."""
    return round(100 * Found(item.passed, item.rows_checked, item.rows_failed).share, 3)


def get(connection: Connection, score_id: int) -> Score:
    """One kept score. Raises ``UserError`` where there is none of that id."""
    with connection.cursor(row_factory=class_row(Score)) as cursor:
        found = cursor.execute(f"select {_COLUMNS} from quality.score where id = %s", (score_id,)).fetchone()
    if found is None:
        raise UserError(f"There is no score {score_id}; `dopa quality DATASET --json` tells the ids of a dataset's scores.")
    return found


def recompute(connection: Connection, score_id: int) -> Grade:
    """Work a kept score out again, from what it was worked out from and by the edition of the standard of its time.

    The results that it names are read anew, and for a mean all scores below it are worked out again, too. Raises ``UserError``
    where the score is unknown, its results are gone, or its arithmetic is no longer in this program.
    """
    return _again(connection, get(connection, score_id), cache(lambda formula: edition(connection, formula)))


def _again(connection: Connection, kept: Score, editions: Callable[[str], Standard]) -> Grade:
    standard = editions(kept.formula)
    parts: list[int] = kept.why.get("scores") or []
    if parts:
        below = [get(connection, part) for part in parts]
        weights = _weights(standard)
        return mean((_again(connection, item, editions), weights[item.code]) for item in below)
    indicator = standard.indicator(kept.code)
    if indicator is None:
        raise UserError(f"Score {kept.id} is of {kept.code}, which its edition of the standard ({kept.formula}) does not have.")
    answer = kept.why.get("answer") or {}
    return grade(
        indicator,
        [_found(item) for item in named_results(connection, kept)],
        kept.why.get("facts") or {},
        answer.get("level") if answer.get("counts") else None,
    )


def _weights(standard: Standard) -> dict[str, float]:
    weights = {dimension.code: dimension.weight for dimension in standard.dimensions}
    return weights | {indicator.code: indicator.weight for indicator in standard.indicators}


def edition(connection: Connection, formula: str) -> Standard:
    """The edition of the standard that a score names. Raises ``UserError`` where it was not kept or the arithmetic is unknown."""
    if formula.partition(":")[0] != str(FORMULA):
        raise UserError(f"The score was worked out by arithmetic {formula.partition(':')[0]}; this program has {FORMULA}.")
    row = connection.execute("select document from quality.standard where formula = %s", (formula,)).fetchone()
    if row is None:
        raise UserError(
            f"The edition of the standard {formula} is not in quality.standard: the score cannot be worked out again."
        )
    return parse(str(row[0]))


def named_results(connection: Connection, kept: Score) -> list[store.Kept]:
    """The results that an indicator's score names, in their order. Raises ``UserError`` where one is gone."""
    ids: list[int] = kept.why.get("results") or []
    found = {item.id: item for item in store.named(connection, ids)}
    if gone := [str(id_) for id_ in ids if id_ not in found]:
        raise UserError(f"Score {kept.id} rests on results that are no more in quality.result: {', '.join(gone)}.")
    return [found[id_] for id_ in ids]


@dataclass(frozen=True)
class RuleBehind:
    """A rule behind a score, and the rejected rows behind its result: places (file, row), no values.

    ``rows``: those that wait for it in the quarantine now; they are fewer than failed then where some were repaired since.
    ``deliveries``: those of them by delivery.
    """

    result: store.Kept
    share: float
    rows: int = 0
    deliveries: list[OfDelivery] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Explained:
    """A score down to what it came from. ``parts``: the scores below a mean; ``rules``: of an indicator, the worst first."""

    score: Score
    standard: Standard
    indicator: Indicator | None
    parts: list[Score] = field(default_factory=list)
    rules: list[RuleBehind] = field(default_factory=list)


PLACES = 20
"""Rows that an explanation shows of one rule."""


def explain(connection: Connection, dataset: str, code: str, *, places: int = PLACES) -> Explained:
    """The dataset's last score of ``code``, down to the rows. Raises ``UserError`` where there is none.

    ``connection`` must be one that reads the quarantine (loader, custodian).
    """
    scores = latest(connection, dataset)
    if not scores:
        raise UserError(f"{dataset} has no score yet: `dopa ingest {dataset}` brings a delivery in and scores it.")
    if code not in scores:
        raise UserError(f"There is no score {code!r}; known: 0 (overall), 1 to 5 (dimensions), {', '.join(_indicators(scores))}.")
    kept = scores[code]
    standard = edition(connection, kept.formula)
    if kept.why.get("scores"):
        return Explained(kept, standard, None, [get(connection, part) for part in kept.why["scores"]])
    rules = []
    for item in named_results(connection, kept):
        rules.append(_behind(connection, item, places))
    rules.sort(key=lambda item: (item.share, item.result.rule))
    return Explained(kept, standard, standard.indicator(code), [], rules)


def failing(connection: Connection, dataset: str, *, places: int = 0) -> list[RuleBehind]:
    """The rules that a dataset's next score rests on and that fail, with the deliveries of their rows; by indicator, the worst
    first."""
    failed = [item for item in results_of(connection, dataset) if not item.passed]
    found = [_behind(connection, item, places) for item in failed]
    return sorted(found, key=lambda item: (item.result.indicator or "", item.share, item.result.rule))


def _behind(connection: Connection, item: store.Kept, limit: int) -> RuleBehind:
    found = places_of(connection, item, limit)
    return RuleBehind(item, _found(item).share, found.rows, found.deliveries, found.places)


def _indicators(scores: Iterable[str]) -> list[str]:
    return sorted(code for code in scores if "." in code)
