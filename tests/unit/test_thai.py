"""Thai text, numbers and dates, against the calendar of Python and the check digit of python-stdnum."""

from datetime import date

import geothai
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.th import pin

from dopa_pipelines.thai.dates import MONTHS, Form, parse_dates
from dopa_pipelines.thai.numbers import digits, has_citizen_check_digit, plain_number
from dopa_pipelines.thai.text import is_mojibake, repaired

AS_OF = date(2026, 1, 31)


def parsed(text: str | None, form: Form = "any") -> dict[str, object]:
    return parse_dates(pl.Series("t", [text], pl.String), form, AS_OF).row(0, named=True)


@pytest.mark.parametrize(
    "text",
    [
        "25680401", "01/04/2568", "1/4/2568", "1-4-2568", "01.04.2568", "1 เม.ย. 2568", "1 เมษายน พ.ศ. 2568",
        "๑ เมษายน ๒๕๖๘", "วันที่ 1 เมษายน 2568", "2025-04-01", "2025-04-01 00:00:00", "1/4/68", "1 เม.ย. 68",
    ],
)  # fmt: skip
def test_every_written_form_is_the_same_day(text: str) -> None:
    assert parsed(text)["value"] == date(2025, 4, 1)


@given(st.dates(date(1941, 1, 1), date(2026, 1, 31)))
def test_written_dates_come_back(day: date) -> None:
    year, names = day.year + 543, MONTHS[day.month - 1]
    forms = [
        f"{day.day}/{day.month}/{year}",
        f"{year}{day:%m%d}",
        f"{day.day} {names[0]} {year}",
        f"{day.day} {names[1]} พ.ศ. {year}",
    ]
    found = parse_dates(pl.Series("t", forms), "any", AS_OF)
    assert found["value"].to_list() == [day] * len(forms)


@given(st.integers(2484, 2569), st.integers(1, 12), st.integers(1, 31))
def test_possible_is_what_the_calendar_says(year: int, month: int, day: int) -> None:
    try:
        real: date | None = date(year - 543, month, day)
    except ValueError:
        real = None
    found = parsed(f"{day:02d}/{month:02d}/{year}")
    assert (found["value"], found["possible"], found["readable"]) == (real, real is not None, True)


@pytest.mark.parametrize(
    ("text", "value", "possible"),
    [
        ("29/02/2567", date(2024, 2, 29), True),
        ("29/02/2568", None, False),
        # Until B.E. 2483 the year began on 1 April.
        ("15/01/2480", date(1938, 1, 15), True),
        ("15/04/2480", date(1937, 4, 15), True),
        ("15/01/2482", date(1940, 1, 15), True),
        ("15/01/2483", None, False),
        ("31/03/2483", None, False),
        ("01/04/2483", date(1940, 4, 1), True),
        ("15/01/2484", date(1941, 1, 15), True),
        ("31/04/2568", None, False),
        ("01/13/2568", None, False),
    ],
)
def test_days_that_exist_and_days_that_do_not(text: str, value: date | None, possible: bool) -> None:
    found = parsed(text)
    assert (found["value"], found["possible"]) == (value, possible)


def day_of(year: int, month: int, day: int) -> tuple[date | None, bool]:
    """The day that eight digits mean, and whether there is one, by Python's calendar and the rules of the eras."""
    if year >= 2400:
        if year == 2483 and 1 <= month <= 3:
            return None, False
        year -= 542 if year <= 2482 and 1 <= month <= 3 else 543
    if not 1800 <= year <= 2200 or (month == 0 and day > 0):
        return None, False
    try:
        found = date(year, month or 1, day or 1)
    except ValueError:
        return None, False
    return (found if month and day else None), True


def test_eight_digits_are_judged_alike_in_every_year() -> None:
    years = [
        *range(1795, 1803),
        *range(1939, 1943),
        *range(2198, 2204),
        *range(2396, 2404),
        *range(2480, 2487),
        2568,
        *range(2740, 2748),
        0,
        9999,
    ]
    written = [(year, month, day) for year in years for month in range(15) for day in (*range(4), *range(27, 34), 99)]
    found = parse_dates(pl.Series("t", [f"{year:04}{month:02}{day:02}" for year, month, day in written]), "ymd", AS_OF)
    expected = [day_of(*each) for each in written]
    assert list(zip(found["value"], found["possible"], strict=True)) == expected
    months = [month if month and possible else None for (_, month, _), (_, possible) in zip(written, expected, strict=True)]
    assert found["month"].to_list() == months
    known = found.filter(pl.col("value").is_not_null())
    assert known["year"].to_list() == known["value"].dt.year().to_list()


@pytest.mark.parametrize(("text", "year", "month"), [("25680400", 2025, 4), ("25680000", 2025, None), ("24990000", 1956, None)])
def test_an_unknown_day_is_not_invented(text: str, year: int, month: int | None) -> None:
    found = parsed(text, "ymd")
    assert (found["value"], found["year"], found["month"], found["possible"]) == (None, year, month, True)


def test_a_month_without_a_day_keeps_its_precision() -> None:
    assert parsed("มกราคม 2545") == {"value": None, "year": 2002, "month": 1, "readable": True, "possible": True}


def test_two_digit_year_and_month() -> None:
    assert parsed("6812", "yymm")["value"] == date(2025, 12, 1)
    assert parsed("6813", "yymm")["possible"] is False
    assert parsed("68", "yymm")["readable"] is False


@pytest.mark.parametrize("text", ["เมื่อวาน", "2568", "", "1/2", "31 ธ.ค.", "1e309", "-0"])
def test_what_is_no_date_is_unreadable(text: str) -> None:
    assert parsed(text)["readable"] is False


def test_nothing_stays_nothing() -> None:
    assert parsed(None) == {"value": None, "year": None, "month": None, "readable": False, "possible": False}


@given(st.integers(10**12, 9 * 10**12 - 1))
def test_check_digit_is_that_of_stdnum(number: int) -> None:
    text = str(number)
    assert has_citizen_check_digit(pl.Series("n", [text])).to_list() == [pin.is_valid(text)]


@given(st.integers(0, 10**12 - 1))
def test_exactly_one_last_digit_is_right(first: int) -> None:
    numbers = [f"{first:012d}{last}" for last in range(10)]
    assert has_citizen_check_digit(pl.Series("n", numbers)).sum() == 1


def test_what_has_not_thirteen_digits_is_not_judged() -> None:
    assert has_citizen_check_digit(pl.Series("n", ["123", "12345678901234", "123456789012X", None])).to_list() == [None] * 4


def test_numbers_lose_their_ornaments() -> None:
    frame = pl.DataFrame({"t": ["1-1002-00123-45-6", "๑๒๓", "1 2"]})
    assert frame.select(digits(pl.col("t"))).to_series().to_list() == ["1100200123456", "123", "12"]
    frame = pl.DataFrame({"t": ["1,383,924", "๑,๒๐๐", " 7 "]})
    assert frame.select(plain_number(pl.col("t"))).to_series().to_list() == ["1383924", "1200", "7"]


def test_text_is_repaired_and_never_taken_apart() -> None:
    frame = pl.DataFrame({"t": ["  นํา  ", "เเก้ว", "น้ำ", "ก\u200bข", "กำ", "ก\u00a0ข"]})
    assert frame.select(repaired(pl.col("t"))).to_series().to_list() == ["นำ", "แก้ว", "น้ำ", "กข", "กำ", "ก ข"]


DISTRICTS = [district for province in geothai.provinces() for district in geothai.districts(province.code)]
NAMES = [area.name_th for area in (*geothai.provinces(), *DISTRICTS)]
TAMBONS = [area.name_th for district in DISTRICTS for area in geothai.subdistricts(district.code)]


def test_real_names_are_no_mojibake() -> None:
    names = [*NAMES, *TAMBONS, "เธอ", "เน้น เนิน เนื้อ", "เธียรชัย"]
    frame = pl.DataFrame({"t": names})
    assert frame.filter(is_mojibake(pl.col("t")))["t"].to_list() == []


@pytest.mark.parametrize("encoding", ["cp874", "latin-1"])
def test_thai_read_in_the_wrong_encoding_is_mojibake(encoding: str) -> None:
    garbled = [name.encode().decode(encoding, "replace") for name in NAMES if len(name) > 3]
    frame = pl.DataFrame({"t": garbled})
    assert frame.filter(~is_mojibake(pl.col("t")))["t"].to_list() == []
