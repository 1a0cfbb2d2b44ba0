"""Schedules in the department's words mean the days that a calendar on the wall says, in Thai and English alike."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from dopa_pipelines.publishing import load_publications
from dopa_pipelines.publishing.calendar import release_calendar, write_calendar
from dopa_pipelines.publishing.schedule import NoScheduleError, read_schedule, thai_date
from dopa_pipelines.thai import BANGKOK

ASSETS = Path(__file__).parents[2] / "assets" / "open_data"
START = datetime(2026, 11, 25, tzinfo=BANGKOK)

# What a calendar says of the twelve months from 25 November B.E. 2569: (words, first days, how many).
MEANT = [
    (["on the 5th of each month", "ทุกวันที่ 5 ของเดือน", "ทุกวันที่ ๕ ของเดือน", "0 6 5 * *"], ["2026-12-05", "2027-01-05"], 12),
    (["on the last day of each month", "ทุกวันสิ้นเดือน"], ["2026-11-30", "2026-12-31", "2027-01-31", "2027-02-28"], 12),
    (["each month", "ทุกเดือน"], ["2026-12-01", "2027-01-01"], 12),
    (["each quarter", "ทุกไตรมาส"], ["2027-01-01", "2027-04-01", "2027-07-01", "2027-10-01"], 4),
    (["each half-year", "ทุกครึ่งปี"], ["2027-04-01", "2027-10-01"], 2),
    (["each fiscal year", "ทุกปีงบประมาณ"], ["2027-10-01"], 1),
    (["on the 10th day after each quarter", "วันที่ 10 หลังสิ้นไตรมาส"], ["2027-01-10", "2027-04-10"], 4),
    # 45 days after quarters that end on 31 December, 31 March, 30 June, 30 September.
    (["on the 45th day after each quarter"], ["2027-02-14", "2027-05-15", "2027-08-14", "2027-11-14"], 4),
    (["on the 30th day after each fiscal year", "วันที่ 30 หลังสิ้นปีงบประมาณ"], ["2027-10-30"], 1),
    (["each week on Monday", "every monday", "ทุกวันจันทร์", "ทุกสัปดาห์วันจันทร์"], ["2026-11-30", "2026-12-07"], 52),
    (["each week on Sunday", "ทุกวันอาทิตย์", "0 6 * * 7"], ["2026-11-29", "2026-12-06"], 52),
    (["each day", "ทุกวัน"], ["2026-11-25", "2026-11-26"], 365),
    (["0 6 * * 1-5"], ["2026-11-25", "2026-11-26", "2026-11-27", "2026-11-30"], 261),
    (["0 6 1,15 */3 *"], ["2027-01-01", "2027-01-15"], 8),
]


@pytest.mark.parametrize(("words", "days", "count"), [(word, *rest) for words, *rest in MEANT for word in words])
def test_words_mean_days(words: str, days: list[str], count: int) -> None:
    found = list(read_schedule(words).moments(START, START + timedelta(365)))
    assert [f"{moment:%Y-%m-%d}" for moment in found[: len(days)]] == days
    assert len(found) == count
    assert {f"{moment:%H:%M %z}" for moment in found} == {"06:00 +0700"}


@pytest.mark.parametrize("words", ["each quarter at 07:30", "ทุกไตรมาส เวลา 07:30 น.", "ทุกไตรมาส เวลา ๐๗.๓๐ น."])
def test_a_time_may_be_named(words: str) -> None:
    assert [f"{moment:%m-%d %H:%M}" for moment in read_schedule(words).moments(START, START + timedelta(100))] == ["01-01 07:30"]


@pytest.mark.parametrize("words", [words[0] for words, *_ in MEANT])
def test_what_starts_by_cron_and_is_due_is_what_is_meant(words: str) -> None:
    """The scheduler starts on the days of the cron lines on which the schedule says that it is due."""
    schedule = read_schedule(words)
    end = START.replace(year=2031)  # a leap year in between
    started = {
        moment for line in schedule.crons for moment in read_schedule(line).moments(START, end) if schedule.due(moment.date())
    }
    assert sorted(started) == list(schedule.moments(START, end))


def test_february_ends_on_its_last_day() -> None:
    last = read_schedule("on the last day of each month")
    assert last.due(date(2028, 2, 29)) and not last.due(date(2028, 2, 28))
    assert last.due(date(2027, 2, 28))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("monthly", "possible are .*each quarter.*ทุกไตรมาส.*cron"),
        ("on the 31st of each month", "not every month has a day 31.*last day"),
        ("ทุกวันที่ 30 ของเดือน", "not every month has a day 30"),
        ("on the 95th day after each quarter", "1 to 90"),
        ("each day at 25:00", "no time of day"),
        ("0 6 32 * *", "'32' of the cron line"),
        ("0 6 5 * mon", "no schedule"),
        ("0 6 5 *", "no schedule"),
    ],
)
def test_what_is_no_schedule_says_what_would_be_one(words: str, why: str) -> None:
    with pytest.raises(NoScheduleError, match=why):
        read_schedule(words)


@pytest.mark.parametrize("words", [words[0] for words, *_ in MEANT[:-2]])
def test_its_own_words_mean_the_same(words: str) -> None:
    schedule = read_schedule(words)
    end = START + timedelta(800)
    for said in schedule.as_words():
        assert list(read_schedule(said).moments(START, end)) == list(schedule.moments(START, end)), said


def test_the_calendar_says_what_comes_when_in_buddhist_years(tmp_path: Path) -> None:
    publications = load_publications(ASSETS).publications
    coming = write_calendar(tmp_path, publications, START)
    assert coming == release_calendar(publications, START)
    assert [item.at for item in coming] == sorted(item.at for item in coming)
    assert {item.publication for item in coming} == {item.name for item in publications}
    first = next(item for item in coming if item.publication == "population_by_district").as_dict()
    assert (first["date_th"], first["fiscal_year"], first["at"]) == ("5 ธันวาคม พ.ศ. 2569", 2570, "2026-12-05T06:00+07:00")
    assert thai_date(date(2026, 9, 30)) == "30 กันยายน พ.ศ. 2569"
    ics = (tmp_path / "calendar.ics").read_bytes()
    assert ics.count(b"BEGIN:VEVENT") == len(coming)
    assert b"DTSTART:20261204T230000Z" in ics  # 06:00 in Bangkok
    assert all(len(line) <= 75 for line in ics.split(b"\r\n"))
    assert ics.endswith(b"END:VCALENDAR\r\n") and b"\n" not in ics.replace(b"\r\n", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calendar.ics", "calendar.json"]
