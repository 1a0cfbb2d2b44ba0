"""When a publication is released, in the terms of the department's calendar, Thai or English, or as a cron line.

What the words mean, the cron lines that a scheduler starts by, and the moments that follow belong here; what is released then
does not. The fiscal year begins on 1 October, and with it its quarters and halves. What comes *each quarter* comes on the day
after one ended; ``on the 10th day after each quarter`` is the tenth day after its last. Times are Bangkok's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Literal

from dopa_pipelines.thai import BANGKOK

Every = Literal["day", "week", "month", "quarter", "half-year", "fiscal year"]

POSSIBLE = (
    "each day · each week on Monday · each month · on the 5th of each month · on the last day of each month · each quarter · "
    "each half-year · each fiscal year · on the 10th day after each quarter, with `at 06:30` if you like; in Thai: ทุกวัน · "
    "ทุกวันจันทร์ · ทุกเดือน · ทุกวันที่ 5 ของเดือน · ทุกวันสิ้นเดือน · ทุกไตรมาส · ทุกครึ่งปี · ทุกปีงบประมาณ · วันที่ 10 หลังสิ้นไตรมาส, "
    "with เวลา 06:30 น.; or a cron line of five fields, such as 0 6 5 * *"
)
AT = time(6, 0)
"""When a release comes whose schedule names no time."""
MONTHS_TH = (
    "มกราคม", "กุมภาพันธ์", "มีนาคม", "เมษายน", "พฤษภาคม", "มิถุนายน",
    "กรกฎาคม", "สิงหาคม", "กันยายน", "ตุลาคม", "พฤศจิกายน", "ธันวาคม",
)  # fmt: skip
_DAYS_EN = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAYS_TH = ("จันทร์", "อังคาร", "พุธ", "พฤหัสบดี", "ศุกร์", "เสาร์", "อาทิตย์")
# The months in which a period of that kind ends, by the fiscal year.
_ENDS: dict[Every, tuple[int, ...]] = {
    "month": tuple(range(1, 13)),
    "quarter": (3, 6, 9, 12),
    "half-year": (3, 9),
    "fiscal year": (9,),
}
_LONGEST: dict[Every, int] = {"month": 28, "quarter": 90, "half-year": 180, "fiscal year": 365}
_PERIODS_EN: dict[str, Every] = {
    "month": "month",
    "quarter": "quarter",
    "fiscal quarter": "quarter",
    "half-year": "half-year",
    "half year": "half-year",
    "fiscal year": "fiscal year",
}
_PERIODS_TH: dict[str, Every] = {
    "เดือน": "month",
    "ไตรมาส": "quarter",
    "ครึ่งปี": "half-year",
    "ครึ่งปีงบประมาณ": "half-year",
    "ปีงบประมาณ": "fiscal year",
}
_CRON_FIELD = re.compile(r"^(\*|\d+(-\d+)?)(/\d+)?(,\d+(-\d+)?)*$")
_CRON_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_THAI_DIGITS = str.maketrans("๐๑๒๓๔๕๖๗๘๙", "0123456789")


class NoScheduleError(ValueError):
    """The text is no schedule; says why, and what would be one."""


@dataclass(frozen=True)
class Schedule:
    """A schedule as it was written. ``every`` and ``day``: of one in words (``day``: of the week from Monday 0; of the month, -1
    the last; or so many days after the period); ``cron``: of a cron line, its five fields as sets."""

    text: str
    at: time = AT
    every: Every | None = None
    day: int | None = None
    cron: tuple[frozenset[int], ...] | None = None

    @cached_property
    def crons(self) -> list[str]:
        """The cron lines that together start it; where :meth:`due` says no on a day, it is not meant."""
        if self.cron is not None:
            return [self.text]
        head = f"{self.at.minute} {self.at.hour}"
        if self.every == "day":
            return [f"{head} * * *"]
        if self.every == "week":
            return [f"{head} * * {((self.day or 0) + 1) % 7}"]
        # Two years, one of them a leap year, hold every day that can be meant.
        days: dict[int, set[int]] = {}
        for year in (2027, 2028):
            for day in self._days(date(year, 1, 1), date(year, 12, 31)):
                days.setdefault(day.day, set()).add(day.month)
        return [
            f"{head} {day} {'*' if len(months) == 12 else ','.join(map(str, sorted(months)))} *"
            for day, months in sorted(days.items())
        ]

    def due(self, day: date) -> bool:
        """Whether it is meant on ``day``."""
        return any(True for _ in self._days(day, day))

    def moments(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """When it comes after ``after`` and up to ``until``, both of which know their time zone; in Bangkok's time."""
        first, last = after.astimezone(BANGKOK), until.astimezone(BANGKOK)
        for day in self._days(first.date(), last.date()):
            for at in self._times():
                moment = datetime.combine(day, at, BANGKOK)
                if first < moment <= last:
                    yield moment

    def _times(self) -> list[time]:
        if self.cron is None:
            return [self.at]
        return [time(hour, minute) for hour in sorted(self.cron[1]) for minute in sorted(self.cron[0])]

    def _days(self, first: date, last: date) -> Iterator[date]:
        day = first
        while day <= last:
            if self._meant(day):
                yield day
            day += timedelta(1)

    def _meant(self, day: date) -> bool:
        if self.cron is not None:
            _, _, days, months, weekdays = self.cron
            fits = [day.day in days, (day.isoweekday() % 7) in weekdays]
            # As cron has it: where both are restricted, either is enough.
            free = [len(days) == 31, len(weekdays) >= 7]
            return day.month in months and (all(fits) if any(free) else any(fits))
        match self.every:
            case "day":
                return True
            case "week":
                return day.weekday() == self.day
            case "month" if self.day == -1:
                return (day + timedelta(1)).day == 1
            case None:
                return False
        assert self.day is not None
        # The last day of a period, so many days ago.
        end = day - timedelta(self.day)
        return end.month in _ENDS[self.every] and (end + timedelta(1)).day == 1

    def as_words(self) -> tuple[str, str]:
        """In Thai and English."""
        at = f"{self.at:%H:%M}"
        if self.cron is not None:
            return self._cron_as_words(self.cron)
        period_th = {"month": "เดือน", "quarter": "ไตรมาส", "half-year": "ครึ่งปีงบประมาณ", "fiscal year": "ปีงบประมาณ"}
        match self.every:
            case "day":
                words = "ทุกวัน", "each day"
            case "week":
                words = f"ทุกวัน{_DAYS_TH[self.day or 0]}", f"each week on {_DAYS_EN[self.day or 0].capitalize()}"
            case "month" if self.day == -1:
                words = "ทุกวันสิ้นเดือน", "on the last day of each month"
            case "month":
                words = f"ทุกวันที่ {self.day} ของเดือน", f"on the {_ordinal(self.day or 1)} of each month"
            case _:
                every = self.every or "month"
                words = (
                    f"วันที่ {self.day} หลังสิ้น{period_th[every]}",
                    f"on the {_ordinal(self.day or 1)} day after each {every}",
                )
        return f"{words[0]} เวลา {at} น.", f"{words[1]} at {at}"

    def _cron_as_words(self, cron: tuple[frozenset[int], ...]) -> tuple[str, str]:
        minutes, hours, days = cron[:3]
        _, _, day, *rest = self.text.split()
        if len(minutes) == len(hours) == 1 and rest == ["*", "*"]:
            at = time(min(hours), min(minutes))
            if day == "*":
                return Schedule(self.text, at, "day").as_words()
            if len(days) == 1:
                return Schedule(self.text, at, "month", min(days)).as_words()
        return f"ตามกำหนดการ cron {self.text}", f"by the cron line {self.text}"


def read_schedule(text: str) -> Schedule:
    """What ``text`` says. Raises :class:`NoScheduleError`: why not, and what is possible."""
    plain = " ".join(text.translate(_THAI_DIGITS).split())
    if re.match(r"^[\d*/,-]+( [\d*/,-]+){4}$", plain):
        return Schedule(plain, cron=_cron(plain))
    rest, at = _time(plain)
    for pattern, make in _FORMS:
        found = re.fullmatch(pattern, rest, re.IGNORECASE)
        if found:
            every, day = make(found)
            return Schedule(text, at, every, day)
    raise NoScheduleError(f"{text!r} is no schedule; possible are {POSSIBLE}")


def _time(text: str) -> tuple[str, time]:
    found = re.fullmatch(r"(.*?)(?:,? at |,? ?เวลา ?)(\d{1,2})[:.](\d{2})(?: ?น\.?)?", text, re.IGNORECASE)
    if not found:
        return text, AT
    hour, minute = int(found[2]), int(found[3])
    if hour > 23 or minute > 59:
        raise NoScheduleError(f"{hour}:{minute:02} is no time of day; write it as `at 06:30` or `เวลา 06:30 น.`")
    return found[1].strip(), time(hour, minute)


def _of_month(found: re.Match[str]) -> tuple[Every, int]:
    day = int(found[1])
    if not 1 <= day <= 28:
        raise NoScheduleError(
            f"not every month has a day {day}; take one up to 28, or `on the last day of each month` (ทุกวันสิ้นเดือน)"
        )
    return "month", day


def _after(found: re.Match[str]) -> tuple[Every, int]:
    every = (_PERIODS_EN | _PERIODS_TH)[found[2].lower()]
    day = int(found[1])
    if not 1 <= day <= _LONGEST[every]:
        raise NoScheduleError(f"day {day} after each {every} may lie in the next one; take 1 to {_LONGEST[every]}")
    return every, day


def _each(found: re.Match[str]) -> tuple[Every, int]:
    return (_PERIODS_EN | _PERIODS_TH)[found[1].lower()], 1


_EN = "|".join(sorted(_PERIODS_EN, key=len, reverse=True))
_TH = "|".join(sorted(_PERIODS_TH, key=len, reverse=True))
_FORMS: tuple[tuple[str, Callable[[re.Match[str]], tuple[Every, int | None]]], ...] = (
    (r"(?:each|every) day|daily|ทุกวัน", lambda found: ("day", None)),
    (
        rf"(?:each|every) (?:week on )?({'|'.join(_DAYS_EN)})",
        lambda found: ("week", _DAYS_EN.index(found[1].lower())),
    ),
    (rf"(?:ทุกสัปดาห์ ?)?(?:ทุก)?วัน({'|'.join(_DAYS_TH)})", lambda found: ("week", _DAYS_TH.index(found[1]))),
    (r"on the (\d+)(?:st|nd|rd|th) (?:day )?of (?:each|every) month", _of_month),
    (r"ทุก(?:วัน)?ที่ ?(\d+) ?ของ(?:ทุก)?เดือน", _of_month),
    (r"on the last day of (?:each|every) month|ทุกวันสิ้นเดือน|ทุกสิ้นเดือน|ทุกวันสุดท้ายของเดือน", lambda found: ("month", -1)),
    (rf"on the (\d+)(?:st|nd|rd|th) day after (?:each|every) ({_EN})", _after),
    (rf"(?:ทุก)?วันที่ ?(\d+) ?หลัง(?:จาก)?สิ้น(?:สุด)?(?:ทุก)?({_TH})", _after),
    (rf"(?:each|every) ({_EN})", _each),
    (rf"ทุก({_TH})", _each),
)


def _cron(text: str) -> tuple[frozenset[int], ...]:
    fields = []
    for field, (low, high) in zip(text.split(), _CRON_BOUNDS, strict=True):
        if not _CRON_FIELD.match(field):
            raise NoScheduleError(f"{field!r} is no field of a cron line; possible are {POSSIBLE}")
        values: set[int] = set()
        for part in field.split(","):
            span, _, step = part.partition("/")
            first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
            end = int(last) if last else high if step else int(first)
            if not (low <= int(first) <= end <= high) or step == "0":
                raise NoScheduleError(f"{part!r} of the cron line {text!r} must be within {low} and {high}")
            values.update(range(int(first), end + 1, int(step or 1)))
        fields.append(frozenset(values))
    fields[4] = frozenset(value % 7 for value in fields[4])
    return tuple(fields)


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def thai_date(day: date) -> str:
    """A day as people write it: 5 ธันวาคม พ.ศ. 2569."""
    return f"{day.day} {MONTHS_TH[day.month - 1]} พ.ศ. {day.year + 543}"
