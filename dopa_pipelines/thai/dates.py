"""Dates as Thai silos write them, parsed without inventing anything.

Rules (shared facts of the department's registers): a Buddhist-era year is 543 ahead of the common one; a leap day is judged by
the common year; until B.E. 2483 the year began on 1 April, so January to March of years up to 2482 belong to the common year
after (year - 543), and January to March 2483 never existed; day or month ``00`` means unknown.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dopa_pipelines.thai.numbers import digit_table
from dopa_pipelines.thai.text import arabic_digits

BUDDHIST_OFFSET = 543
FIRST_BUDDHIST_YEAR = 2400
"""A four-digit year from here on is Buddhist era; below it is common era."""

_COMMON_YEARS = (1800, 2200)
"""A year beyond them is no year of a register."""
_WRITTEN_YEARS = (_COMMON_YEARS[0], _COMMON_YEARS[1] + BUDDHIST_OFFSET + 1)
"""Years of either era that may be possible: from the first one to before the second."""

MONTHS: tuple[tuple[str, ...], ...] = (
    ("มกราคม", "ม.ค.", "มค"),
    ("กุมภาพันธ์", "ก.พ.", "กพ"),
    ("มีนาคม", "มี.ค.", "มีค"),
    ("เมษายน", "เม.ย.", "เมย"),
    ("พฤษภาคม", "พ.ค.", "พค"),
    ("มิถุนายน", "มิ.ย.", "มิย"),
    ("กรกฎาคม", "ก.ค.", "กค"),
    ("สิงหาคม", "ส.ค.", "สค"),
    ("กันยายน", "ก.ย.", "กย"),
    ("ตุลาคม", "ต.ค.", "ตค"),
    ("พฤศจิกายน", "พ.ย.", "พย"),
    ("ธันวาคม", "ธ.ค.", "ธค"),
)

Form = Literal["any", "yymm", "ymd"]

SCHEMA = pl.Schema({"value": pl.Date, "year": pl.Int16, "month": pl.Int16, "readable": pl.Boolean, "possible": pl.Boolean})

_WRITTEN_FORMS = (
    r"^(?<y>\d{4})-(?<m>\d{1,2})-(?<d>\d{1,2})(?:T?00:?00(?::?00(?:\.0+)?)?)?$",
    r"^(?<d>\d{1,2})[/.-]{1,2}(?<m>\d{1,2})[/.-]{1,2}(?<y>\d{4}|\d{2})$",
    r"^(?<y>\d{4})(?<m>\d{2})(?<d>\d{2})$",
    r"^/(?<m>\d{1,2})/(?<y>\d{4}|\d{2})(?<d>)$",
)
_FORMS: dict[Form, tuple[str, ...]] = {
    "yymm": (r"^(?<y>\d{2})(?<m>\d{2})(?<d>)$",),
    "ymd": (r"^(?<y>\d{4})(?<m>\d{2})(?<d>\d{2})$",),
    "any": _WRITTEN_FORMS,
}


def parse_dates(text: pl.Series, form: Form, as_of: date) -> pl.DataFrame:
    """Parse the dates in ``text`` (trimmed; null gives nulls), a row a value, with the columns of ``SCHEMA``.

    ``any`` takes ISO (``2025-04-01``, with or without a time of midnight), ``01/04/2568``, ``1 เม.ย. 2568``,
    ``1 เมษายน พ.ศ. 2568``, ``เมษายน 2568``, ``25680401``, two-digit years; ``yymm`` takes ``6812`` (the month's first day);
    ``ymd`` takes ``25680401`` with ``00`` for an unknown day or month. ``as_of`` settles two-digit years: none lies more than
    ten years after it.

    ``value``: the day, null unless year, month and day are all known and real. ``year`` (common era) and ``month``: what is
    known. ``readable``: the text has the form of a date. ``possible``: such a day, month or year exists.
    """
    # The registers' own form needs no pattern.
    if form != "yymm" and (digit := digit_table(text.fill_null("00000000"), 8)) is not None:
        numbered = _numbered(digit)
        if not text.null_count():
            return numbered
        known = text.is_not_null()
        return numbered.select(
            pl.when(known).then(column).otherwise(False if kind == pl.Boolean else None).alias(column)
            for column, kind in SCHEMA.items()
        )
    # A column of dates repeats itself: its distinct values are parsed, not its rows.
    name = text.name
    distinct = text.unique().drop_nulls().alias(name)
    parsed = _parse(distinct.to_frame("text"), form, as_of).with_columns(distinct)
    return (
        text.to_frame()
        .join(parsed, on=name, how="left", maintain_order="left")
        .select(*(pl.col(column).cast(kind) for column, kind in SCHEMA.items()))
        .with_columns(pl.col("readable", "possible").fill_null(False))
    )


class _Calendar(NamedTuple):
    """What is true of the months of every year that can be written, at ``(year - 1800) * 13 + month``; month 0 is unknown.

    ``common``: the common year. ``real``: whether there was such a month or year. ``first``: its first day, in days since 1970.
    ``length``: its days, 0 where it never existed or is unknown.
    """

    common: NDArray[np.int16]
    real: NDArray[np.bool_]
    first: NDArray[np.int32]
    length: NDArray[np.int32]


@cache
def _calendar() -> _Calendar:
    slots = pl.select(era_year=pl.int_range(*_WRITTEN_YEARS, dtype=pl.Int32)).join(
        pl.select(month=pl.int_range(0, 13, dtype=pl.Int32)), how="cross", maintain_order="left_right"
    )
    slots = slots.with_columns(month=pl.when(pl.col("month") > 0).then("month"), readable=pl.lit(True))

    def judged(day: int | None) -> pl.DataFrame:
        return _judge(slots.with_columns(day=pl.lit(day, pl.Int32)))

    months, days = judged(None), [judged(day) for day in range(1, 32)]
    return _Calendar(
        months["year"].fill_null(0).cast(pl.Int16).to_numpy(),
        months["possible"].to_numpy(),
        days[0]["value"].to_physical().fill_null(0).to_numpy(),
        sum((day["possible"].cast(pl.Int32).to_numpy() for day in days), start=np.zeros(len(slots), dtype=np.int32)),
    )


def _numbered(digits: NDArray[np.uint8]) -> pl.DataFrame:
    """Dates of eight digits: year, month, day. What :func:`_judge` says of each month is looked up."""
    calendar = _calendar()
    digit = digits.astype(np.int32)
    year = digit[0] * 1000 + digit[1] * 100 + digit[2] * 10 + digit[3]
    month, day = digit[4] * 10 + digit[5], digit[6] * 10 + digit[7]
    written = (year >= _WRITTEN_YEARS[0]) & (year < _WRITTEN_YEARS[1]) & (month <= 12)
    slot = np.where(written, (year - _WRITTEN_YEARS[0]) * 13 + month, 0)
    possible = written & calendar.real[slot] & (day <= calendar.length[slot])
    frame = pl.DataFrame(
        {
            "value": pl.Series(calendar.first[slot] + day - 1, dtype=pl.Int32).cast(pl.Date),
            "year": calendar.common[slot],
            "month": month.astype(np.int16),
            "readable": pl.repeat(True, len(day), eager=True),
            "possible": possible,
        }
    )
    if (possible & (day > 0)).all():
        return frame
    known = pl.DataFrame({"month": possible & (month > 0), "day": possible & (day > 0)})
    return frame.with_columns(
        pl.when(known["day"]).then("value").alias("value"),
        pl.when("possible").then("year").alias("year"),
        pl.when(known["month"]).then("month").alias("month"),
    )


def _month_numbers(text: pl.Expr) -> pl.Expr:
    """Thai month names as ``/number/``; longer names first, so that no abbreviation eats a part of one."""
    names = {name: f"/{number}/" for number, forms in enumerate(MONTHS, 1) for name in forms}
    ordered = sorted(names, key=len, reverse=True)
    return text.str.replace_many(ordered, [names[name] for name in ordered], leftmost=True)


def _parse(frame: pl.DataFrame, form: Form, as_of: date) -> pl.DataFrame:
    plain = arabic_digits(pl.col("text"))
    if form == "any":
        plain = _month_numbers(plain).str.replace_all(r"วันที่|เดือน|พ\.?\s?ศ\.?|ค\.?\s?ศ\.?|\s", "")
    frame = frame.select(plain.alias("text"))
    for number, pattern in enumerate(_FORMS[form]):
        frame = frame.with_columns(pl.col("text").str.extract_groups(pattern).alias(f"form_{number}"))
    frame = frame.select(
        pl.coalesce(pl.col(f"form_{number}").struct.field(part) for number in range(len(_FORMS[form]))).alias(part)
        for part in ("y", "m", "d")
    )
    written = pl.col("y").cast(pl.Int32, strict=False)
    latest = as_of.year + 10 + BUDDHIST_OFFSET
    short = pl.when(written + 2500 > latest).then(written + 2400).otherwise(written + 2500)
    month, day = (pl.col(part).cast(pl.Int32, strict=False) for part in ("m", "d"))
    return _judge(
        frame.select(
            era_year=pl.when(pl.col("y").str.len_bytes() == 2).then(short).otherwise(written),
            month=pl.when(month > 0).then(month),
            day=pl.lit(1, pl.Int32) if form == "yymm" else pl.when(day > 0).then(day),
            readable=written.is_not_null(),
        )
    )


def _judge(frame: pl.DataFrame) -> pl.DataFrame:
    """Days of the common era from ``era_year``, ``month``, ``day`` (null: unknown) and ``readable``."""
    buddhist = pl.col("era_year") >= FIRST_BUDDHIST_YEAR
    early = (pl.col("month") <= 3).fill_null(False)
    frame = frame.with_columns(
        common=pl.when(~buddhist)
        .then(pl.col("era_year"))
        .when((pl.col("era_year") <= 2482) & early)
        .then(pl.col("era_year") - BUDDHIST_OFFSET + 1)
        .otherwise(pl.col("era_year") - BUDDHIST_OFFSET),
        never=buddhist & (pl.col("era_year") == 2483) & early,
    )
    common, month, day = pl.col("common"), pl.col("month"), pl.col("day")
    leap = ((common % 4 == 0) & (common % 100 != 0)) | (common % 400 == 0)
    length = pl.when(month.is_in([4, 6, 9, 11])).then(30).when(month == 2).then(28 + leap.cast(pl.Int32)).otherwise(31)
    frame = frame.with_columns(
        possible=pl.col("readable")
        & common.is_between(*_COMMON_YEARS)
        & (month.is_null() | month.is_between(1, 12))
        & (day.is_null() | (day <= length).fill_null(False))
        & ~(month.is_null() & day.is_not_null())
        & ~pl.col("never").fill_null(False)
    )
    common, month, day = (pl.when("possible").then(pl.col(part)) for part in ("common", "month", "day"))
    return frame.select(value=pl.date(common, month, day), year=common, month=month, readable="readable", possible="possible")
