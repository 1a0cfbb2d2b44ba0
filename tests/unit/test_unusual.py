"""What is unusual without a rule: planted faults are found, kind by kind, and hardly anything else is told."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from statistics import NormalDist

import numpy as np
import pytest

from dopa_pipelines.quality import unusual
from dopa_pipelines.quality.unusual import Seen, Watch, judge, results
from dopa_pipelines.thai.holidays import holidays, is_closed
from tests.quality import histories
from tests.quality.histories import KINDS, history, measure, ours


def months(rows: list[int], start: date = date(2023, 1, 1), **columns: list[dict[str, object]]) -> list[Seen]:
    days = [date(start.year + n // 12, n % 12 + 1, 1) for n in range(len(rows))]
    return [
        Seen(day, count, {name: facts[place] for name, facts in columns.items()})
        for place, (day, count) in enumerate(zip(days, rows, strict=True))
    ]


def noisy(size: int, around: float, seed: int = 1) -> list[int]:
    return [int(count) for count in np.random.default_rng(seed).poisson(around, size)]


# -- the measure --------------------------------------------------------------------------------------------------------


def test_monthly_faults_are_found_kind_by_kind() -> None:
    found = measure([history(seed, "monthly") for seed in range(200, 212)], ours)
    assert found.recall >= 0.9
    assert found.false_per_year <= 1
    assert set(found.planted.values()) == {3}
    assert {kind: count for kind, count in found.found.items() if count < 2} == {}


def test_daily_faults_are_found_kind_by_kind() -> None:
    made = history(200, "daily")
    # The days of the faults and a week after each: the benchmark judges the whole year.
    found = measure([replace(made, judged=sorted({place + n for place in made.planted for n in range(7)}))], ours)
    assert found.found == dict.fromkeys(KINDS, 1)
    assert found.false_alarms <= 1


def test_clean_years_are_quiet() -> None:
    assert measure([history(seed, "monthly", clean=True) for seed in range(300, 308)], ours).false_per_year <= 1


def test_a_method_that_tells_everything_or_nothing_fails_the_measure() -> None:
    made = [history(seed, "monthly") for seed in range(200, 204)]
    everything = {(aspect, name) for aspect in ("missing", "categories", "numbers") for name in made[0].seen[0].columns}
    told = measure(made, lambda one: {place: everything | {("rows", None)} for place in one.judged})
    assert (told.recall, told.false_per_year > 50) == (1.0, True)
    silent = measure(made, lambda one: {})
    assert (silent.recall, silent.false_alarms) == (0.0, 0)


# -- what is usual ------------------------------------------------------------------------------------------------------


def test_songkran_and_weekends_are_usual_and_an_empty_working_day_is_not() -> None:
    rng = np.random.default_rng(5)
    days = [date(2024, 1, 1) + timedelta(n) for n in range(500)]
    seen = [Seen(day, int(rng.poisson(40 if is_closed(day) else 900)), {}) for day in days]
    watch = Watch(seen)
    for place, day in enumerate(days):
        if day in (date(2025, 4, 14), date(2025, 4, 15), date(2025, 4, 16), date(2025, 4, 19)):
            assert watch.judge(place).unusual == (), day
    wednesday = days.index(date(2025, 4, 23))
    seen[wednesday] = Seen(days[wednesday], 40, {})
    (found,) = Watch(seen).judge(wednesday).unusual
    assert found.aspect == "rows"
    assert found.low < 900 < found.high
    assert found.score < -6


def test_a_growing_dataset_is_usual() -> None:
    rows = [int(count * 1.01**n) for n, count in enumerate(noisy(30, 8_000))]
    assert all(not Watch(months(rows)).judge(place).unusual for place in range(12, 30))


def test_a_new_level_is_told_a_few_times_and_then_is_usual() -> None:
    rows = noisy(20, 5_000) + noisy(16, 9_000, seed=2)
    watch = Watch(months(rows))
    told = [place for place in range(12, 36) if watch.judge(place).unusual]
    assert told[0] == 20
    assert len(told) <= 4
    assert max(told) <= 24


def test_what_was_told_is_not_learned_from() -> None:
    rows = [*noisy(14, 5_000), 12_000, 5_050]
    seen = months(rows)
    watch = Watch(seen)
    assert watch.judge(14).unusual
    assert watch.judge(15).unusual == ()
    again = Watch(seen, [(14, "rows", None)]).judge(15)
    assert again.findings[0].expected == watch.judge(15).findings[0].expected


def test_short_histories_say_so() -> None:
    verdict = judge(months(noisy(5, 1_000)), Seen(date(2023, 6, 1), 3, {}))
    assert (verdict.enough, verdict.history, verdict.needed, verdict.unusual) == (False, 5, 8, ())
    (told,) = results("births", verdict)
    assert told.passed
    assert told.detail["en"] == "not enough history: 5 deliveries, 8 are needed"
    nothing = judge([], Seen(date(2023, 6, 1), 3, {}))
    assert (nothing.enough, nothing.history) == (False, 0)


def test_the_same_content_again() -> None:
    made = history(7, "monthly", clean=True)
    place = made.judged[5]
    before = made.seen[place - 1]
    copied = [*made.seen[:place], Seen(made.seen[place].day, before.rows, before.columns)]
    (found,) = [item for item in Watch(copied).judge(place).unusual if item.aspect == "repeated"]
    assert f"{made.seen[place - 1].day:%Y-%m-%d}" in found.en
    assert not [item for item in Watch(made.seen).judge(place).unusual if item.aspect == "repeated"]


def test_a_dataset_that_hardly_changes_may_repeat() -> None:
    facts = [{"missing": 0, "quantiles": [1, 1, 2, 3, 4, 5, 6, 7, 8]} for _ in range(14)]
    seen = months([7_000] * 14, code=facts, name=[{"missing": 3}] * 14, kind=[{"missing": 1}] * 14)
    assert Watch(seen).judge(13).unusual == ()


def test_later_deliveries_are_not_looked_at() -> None:
    made = history(11, "monthly")
    place = made.judged[0]
    short, whole = Watch(made.seen[: place + 1]).judge(place), Watch(made.seen).judge(place)
    assert short.findings == whole.findings


@pytest.mark.parametrize(("missing", "rows"), [(0, 3_000), (3_000, 3_000)])
def test_all_or_none_missing_then_some(missing: int, rows: int) -> None:
    seen = months([rows] * 14, c=[{"missing": missing}] * 14)
    assert Watch(seen).judge(13).unusual == ()
    seen[13] = Seen(seen[13].day, rows, {"c": {"missing": 300 if missing == 0 else 2_700}})
    (found,) = Watch(seen).judge(13).unusual
    assert (found.aspect, found.column, round(found.value, 2)) == ("missing", "c", 0.1 if missing == 0 else 0.9)


def test_empty_deliveries_and_absent_columns_are_no_error() -> None:
    made = history(3, "monthly", clean=True)
    place = made.judged[3]
    nothing = Seen(made.seen[place].day, 0, {name: {"missing": 0, "distinct": 0} for name in made.seen[0].columns})
    verdict = judge(made.seen[:place], nothing)
    assert [item.aspect for item in verdict.unusual if item.column is None] == ["rows"]
    bare = judge(made.seen[:place], Seen(made.seen[place].day, made.seen[place].rows, {}))
    assert {item.aspect for item in bare.findings} == {"rows"}


def test_too_many_values_are_no_categories() -> None:
    rng = np.random.default_rng(0)
    facts = []
    for _ in range(14):
        values = rng.integers(0, 10_000, 500)
        top = [[str(value), 1] for value in values[:10]]
        facts.append({"missing": 0, "distinct": len(set(values)), "top": top})
    assert {item.aspect for item in Watch(months([500] * 14, c=facts)).judge(13).findings} == {"rows", "missing"}


# -- the parts ----------------------------------------------------------------------------------------------------------


def test_qn_is_the_standard_deviation_of_normal_samples_and_forgets_outliers() -> None:
    rng = np.random.default_rng(1)
    assert np.mean(unusual._qn(rng.normal(0, 2, (400, 20)))) == pytest.approx(2, rel=0.05)
    values = rng.normal(0, 2, 40)
    values[:8] = 1e6
    assert unusual._qn(values[None])[0] < 6


def test_deviates_are_normal_where_counts_are_poisson() -> None:
    rng = np.random.default_rng(2)
    scores = np.array([unusual._deviance(float(count), 50.0, 0.0) for count in rng.poisson(50, 20_000)])
    assert scores.std() == pytest.approx(1, abs=0.03)
    assert np.mean(np.abs(scores) > 1.96) == pytest.approx(0.05, abs=0.01)


def test_deviates_are_normal_where_counts_are_spread_wider() -> None:
    rng = np.random.default_rng(3)
    counts = rng.poisson(1_000 * rng.gamma(100, 1 / 100, 20_000))
    scores = np.array([unusual._deviance(float(count), 1_000.0, 0.01) for count in counts])
    assert scores.std() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("t", "freedom", "chance"), [(2.571, 5, 0.05), (4.604, 4, 0.01), (3.169, 10, 0.01), (2.042, 30, 0.05)])
def test_students_t_by_the_table(t: float, freedom: float, chance: float) -> None:
    assert unusual._two_sided(unusual._as_normal(t, freedom)) == pytest.approx(chance, rel=0.06)
    assert unusual._as_normal(-t, freedom) == -unusual._as_normal(t, freedom)


def test_two_sided_chance() -> None:
    assert unusual._two_sided(NormalDist().inv_cdf(0.975)) == pytest.approx(0.05)
    assert math.isfinite(unusual._two_sided(300.0))


# -- holidays -----------------------------------------------------------------------------------------------------------


def test_official_holidays_of_2025() -> None:
    """As announced for B.E. 2568: มติคณะรัฐมนตรี."""
    expected = {
        (1, 1), (2, 12), (4, 6), (4, 7), (4, 13), (4, 14), (4, 15), (4, 16), (5, 4), (5, 5), (5, 9), (5, 11), (5, 12), (6, 2),
        (6, 3), (7, 10), (7, 11), (7, 28), (8, 11), (8, 12), (10, 13), (10, 23), (12, 5), (12, 10), (12, 31),
    }  # fmt: skip
    assert {(day.month, day.day) for day in holidays(2025)} == expected


def test_holidays_on_weekends_are_made_good_once_for_days_in_a_row() -> None:
    # Songkran of 2024: Saturday to Monday; Asanha Bucha and Khao Phansa: Saturday and Sunday.
    assert date(2024, 4, 16) in holidays(2024)
    assert date(2024, 4, 17) not in holidays(2024)
    assert date(2024, 7, 22) in holidays(2024)
    assert date(2024, 7, 23) not in holidays(2024)
    # New Year's Eve and New Year's Day, Saturday and Sunday: each.
    assert {date(2023, 1, 2), date(2023, 1, 3)} <= holidays(2023)


def test_the_generator_plants_what_it_says() -> None:
    made = history(4, "daily")
    assert sorted(fault.kind for fault in made.planted.values()) == sorted(KINDS)
    assert all(place in made.judged for place in made.planted)
    (gone,) = [place for place, fault in made.planted.items() if fault.kind == "category_gone"]
    column = made.planted[gone].column
    assert column is not None
    assert made.seen[gone].columns[column]["distinct"] < max(item.columns[column]["distinct"] for item in made.seen)
    assert histories.history(4, "daily").seen == made.seen, "the same seed makes the same history"
