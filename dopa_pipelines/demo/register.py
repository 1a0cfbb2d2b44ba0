"""The people, houses, offices and areas of the synthetic department, as they truly are.

No file and no defect is made here: :mod:`dopa_pipelines.demo.department` writes these down in the forms of
the silos. Areas are the real ones of ``geothai``; people are drawn from a seeded generator, the same for the
same seed and number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from itertools import accumulate
from random import Random

import geothai
import polars as pl

from dopa_pipelines.demo.forms import era_year_of, with_check_digit
from dopa_pipelines.demo.vocabulary import (
    AGE_BAND_WEIGHTS,
    FEMALE_NAMES,
    HOUSE_TYPE_WEIGHTS,
    HOUSE_TYPES,
    MALE_NAMES,
    SURNAME_ENDS,
    SURNAME_STARTS,
    THOUSANDS_BY_PROVINCE,
)

SNAPSHOT = date(2025, 12, 31)
DAY = date(2026, 1, 5)
"""The day on which the department is looked at: its last deliveries have just come, whatever today is."""
"""Day of the registers: 31 December B.E. 2568."""

MONTHS = ((2025, 10, 31), (2025, 11, 30), (2025, 12, 31))
"""Year, month and days of the three months of events."""

EVENT_DAYS = 92
"""Days from the first of the three months to the snapshot."""

PERSONS_PER_HOUSE = 2.6
PEOPLE_PER_EVENT = 1700
"""Registered persons for each birth, and each death, of a month."""

SERIALS = 10_000_000
"""Citizen numbers hold a serial of seven digits; ``7919`` shares no divisor with it, so steps of it never
repeat.
"""


@dataclass(frozen=True)
class Register:
    """Frames of the department.

    ``tambons``: code, name_th, province, district. ``offices``: code, name, province, province_name.
    ``houses``: house_code, house_no, village (8 digits), tambon, office, house_type, registered (date),
    standing.
    ``persons``: sorted by pid, with what the register holds and what events need (``died``, ``born_month``
    …).
    """

    tambons: pl.DataFrame
    offices: pl.DataFrame
    houses: pl.DataFrame
    persons: pl.DataFrame


def events_a_month(persons: int) -> int:
    """Births, and deaths, of each month: enough of them in a small department to spoil some."""
    return max(round(persons / PEOPLE_PER_EVENT), min(100, persons // 20))


def make_register(rng: Random, persons: int) -> Register:
    """Draw the department."""
    tambons, offices = _areas(rng)
    houses = _houses(rng, tambons, max(1, round(persons / PERSONS_PER_HOUSE)))
    people = _persons(rng, houses, persons)
    return Register(tambons, offices, houses, people)


def unique_pid(serial: int, first: str, office: str) -> str:
    """The first twelve digits of the citizen number with this serial; no two serials share one."""
    return f"{first}{office}{serial * 7919 % SERIALS:07d}"


def _areas(rng: Random) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tambons with their weight and municipality, and registration offices."""
    tambons: list[tuple[str, str, str, str, float, str | None, int]] = []
    offices: list[tuple[str, str, str, str]] = []
    for province in geothai.provinces():
        bangkok = province.code == "10"
        title = province.name_th if bangkok else f"จังหวัด{province.name_th}"
        districts = geothai.districts(province.code)
        prefix = "ท้องถิ่น" if bangkok else "อำเภอ"
        offices += [(place.code, prefix + place.name_th, province.code, title) for place in districts]
        # Municipalities count down from 99; the capital district has the city, the others come in turn.
        count = 0 if bangkok else max(1, len(districts) // 3)
        municipal: dict[str, str] = {}
        for number, place in enumerate(districts[:count]):
            code = f"{province.code}{99 - number}"
            municipal[place.code] = code
            kind = "ท้องถิ่นเทศบาลนคร" if number == 0 else "ท้องถิ่นเทศบาลเมือง"
            name = province.name_th if number == 0 else place.name_th
            offices.append((code, kind + name, province.code, title))
        drawn: list[tuple[str, str, str, str, float, str | None, int]] = []
        for place in districts:
            size = 0.3 + rng.random() ** 2 + (1.0 if place is districts[0] else 0.0)
            for number, tambon in enumerate(geothai.subdistricts(place.code)):
                weight = size * (0.2 + rng.random())
                office = municipal.get(place.code) if number < 3 else None
                villages = 0 if bangkok else rng.randint(4, 14)
                drawn.append((tambon.code, tambon.name_th, province.code, place.code, weight, office, villages))
        scale = THOUSANDS_BY_PROVINCE[province.code] / sum(row[4] for row in drawn)
        tambons += [(*row[:4], row[4] * scale, *row[5:]) for row in drawn]
    columns = ["code", "name_th", "province", "district", "weight", "municipality", "villages"]
    return (
        pl.DataFrame(tambons, schema=columns, orient="row", infer_schema_length=None),
        pl.DataFrame(offices, schema=["code", "name", "province", "province_name"], orient="row").sort("code"),
    )


def _uniform(rng: Random, count: int) -> pl.Series:
    draw = rng.random
    return pl.Series([draw() for _ in range(count)], dtype=pl.Float64)


def _pick(rng: Random, values: tuple[str, ...], count: int) -> pl.Series:
    return pl.Series(rng.choices(values, k=count), dtype=pl.String)


def _houses(rng: Random, tambons: pl.DataFrame, count: int) -> pl.DataFrame:
    places = rng.choices(range(len(tambons)), cum_weights=list(accumulate(tambons["weight"])), k=count)
    frame = tambons[places].select(pl.col("code").alias("tambon"), "district", "municipality", "villages")
    frame = frame.with_columns(
        in_town=_uniform(rng, count) < 0.6,
        village_draw=_uniform(rng, count),
        number=_uniform(rng, count),
        branch=_uniform(rng, count),
        age_draw=_uniform(rng, count),
        standing=_uniform(rng, count) < 0.985,
        house_type=pl.Series(rng.choices(HOUSE_TYPES, HOUSE_TYPE_WEIGHTS, k=count)),
    )
    town = pl.col("municipality").is_not_null() & pl.col("in_town")
    # The square crowds the first villages of a tambon.
    settled = 1 + (pl.col("village_draw") ** 2 * pl.col("villages")).floor().cast(pl.Int64)
    village = pl.when(town | (pl.col("villages") == 0)).then(0).otherwise(settled)
    frame = frame.with_columns(
        office=pl.when(town).then("municipality").otherwise("district"),
        village=pl.col("tambon") + village.cast(pl.String).str.zfill(2),
        # Nobody's house is younger than the youngest move into it may be.
        registered=pl.lit(SNAPSHOT) - pl.duration(days=(30 + pl.col("age_draw") ** 2 * 25_000).floor().cast(pl.Int64)),
        house_no=(1 + pl.col("number") ** 2 * 900).floor().cast(pl.Int64).cast(pl.String)
        + pl.when(pl.col("branch") < 0.3)
        .then("/" + (1 + pl.col("branch") * 100).floor().cast(pl.Int64).cast(pl.String))
        .otherwise(pl.lit("")),
    )
    serial = (pl.int_range(pl.len()).over("office") + 1).cast(pl.String).str.zfill(7)
    return frame.with_columns(house_code=pl.col("office") + serial).select(
        "house_code", "house_no", "village", "tambon", "office", "house_type", "registered", "standing"
    ).sort("house_code")  # fmt: skip


def _persons(rng: Random, houses: pl.DataFrame, count: int) -> pl.DataFrame:
    babies = events_a_month(count) * len(MONTHS)
    base = count - babies
    bands = rng.choices(range(len(AGE_BAND_WEIGHTS)), AGE_BAND_WEIGHTS, k=base)
    days = [int((band * 5 + rng.random() * 5) * 365.2425) for band in bands]
    # Births of the three months are the babies and nobody else.
    days = [EVENT_DAYS + rng.randrange(365) if day < EVENT_DAYS else day for day in days]
    female = [rng.random() < 0.485 + max(0, day - 12_000) * 7e-6 for day in days]
    homes = [int(rng.random() * len(houses)) for _ in range(base)]
    starts, ends = rng.choices(SURNAME_STARTS, k=base), rng.choices(SURNAME_ENDS, k=base)
    surnames = [start + end for start, end in zip(starts, ends, strict=True)]
    foreign = [rng.random() < 0.015 for _ in range(base)]

    mothers = [
        position
        for position, (day, woman) in enumerate(zip(days, female, strict=True))
        if woman and 18 * 365.25 < day < 44 * 365.25
    ]
    mother_of = rng.choices(mothers, k=babies)
    offset, born_month, registered = 0, [], []
    for number, (year, month, length) in enumerate(MONTHS):
        for _ in range(babies // len(MONTHS)):
            born = rng.randint(1, length)
            days.append((SNAPSHOT - date(year, month, born)).days)
            registered.append(date(year, month, min(length, born + rng.randint(0, 14))))
            born_month.append(number)
            female.append(rng.random() < 0.485)
            mother = mother_of[offset]
            homes.append(homes[mother])
            surnames.append(surnames[mother])
            foreign.append(False)
            offset += 1

    status, died, died_month, death_registered = _deaths(rng, days, base, count)
    settled = [number for number in range(base) if status[number] == "0"]
    unregistered = set(rng.sample(settled, max(3, count // 20_000)))
    home = houses[homes].select("house_code", "village", "tambon", "office")
    serials = pl.Series([number * 7919 % SERIALS for number in range(count)])
    frame = home.with_columns(
        days=pl.Series(days, dtype=pl.Int64),
        sex=pl.Series(["2" if woman else "1" for woman in female]),
        last_name=pl.Series(surnames),
        foreign=pl.Series(foreign),
        unregistered=pl.Series([number in unregistered for number in range(count)]),
        status=pl.Series(status),
        died=pl.Series(died, dtype=pl.Date),
        died_month=pl.Series(died_month, dtype=pl.Int8),
        death_registered=pl.Series(death_registered, dtype=pl.Date),
        born_month=pl.Series([None] * base + born_month, dtype=pl.Int8),
        birth_registered=pl.Series([None] * base + registered, dtype=pl.Date),
        mother=pl.Series([None] * base + mother_of, dtype=pl.UInt32),
        serial=serials.cast(pl.String).str.zfill(7),
        male_name=_pick(rng, MALE_NAMES, count),
        female_name=_pick(rng, FEMALE_NAMES, count),
        married=_uniform(rng, count) < 0.7,
        moved_draw=_uniform(rng, count),
        unknown=_uniform(rng, count),
        origin=_uniform(rng, count),
        nation=_pick(rng, ("048", "056", "057", "044"), count),
    )
    frame = frame.with_columns(born=pl.lit(SNAPSHOT) - pl.duration(days="days"))
    woman = pl.col("sex") == "2"
    child = pl.col("days") < 15 * 365
    later = pl.col("born") >= date(1984, 1, 1)
    first = (
        pl.when("unregistered").then(pl.lit("0"))
        .when("foreign").then(pl.lit("6"))
        .when(pl.col("origin") < 0.02).then(pl.lit("5"))
        .when(later & (pl.col("origin") < 0.05)).then(pl.lit("2"))
        .when(later).then(pl.lit("1"))
        .otherwise(pl.lit("3"))
    )  # fmt: skip
    frame = frame.with_columns(
        pid=with_check_digit(first + pl.col("office") + pl.col("serial")),
        age=(pl.col("days") / 365.2425).floor().cast(pl.Int64),
        first_name=pl.when(woman).then("female_name").otherwise("male_name"),
        title=pl.when(child & woman).then(pl.lit("เด็กหญิง"))
        .when(child).then(pl.lit("เด็กชาย"))
        .when(~woman).then(pl.lit("นาย"))
        .when("married").then(pl.lit("นาง"))
        .otherwise(pl.lit("นางสาว")),
        nationality=pl.when("foreign").then("nation").otherwise(pl.lit("099")),
        moved=pl.lit(SNAPSHOT)
        - pl.duration(days=(pl.col("days") * pl.col("moved_draw")).floor().cast(pl.Int64)),
    )  # fmt: skip
    frame = frame.with_columns(mother_pid=frame["pid"].gather(frame["mother"]))
    # Parts of old birth dates are unknown; the months of years before B.E. 2484 are always known here,
    # because without the month it is unknown as well in which common year those people were born.
    aged = (pl.col("days") > 50 * 365) & (pl.col("born") >= date(1941, 1, 1))
    era, month_text = era_year_of(pl.col("born")), pl.col("born").dt.strftime("%m")
    moved = pl.col("moved")
    frame = frame.with_columns(
        birth_text=era
        + pl.when(aged & (pl.col("unknown") < 0.008)).then(pl.lit("0000"))
        .when(aged & (pl.col("unknown") < 0.025)).then(month_text + "00")
        .otherwise(month_text + pl.col("born").dt.strftime("%d")),
        moved_text=pl.when(pl.col("unknown") > 0.96).then(pl.lit("00000000"))
        .when(pl.col("unknown") > 0.95).then(era_year_of(moved) + moved.dt.strftime("%m") + "00")
        .otherwise(era_year_of(moved) + moved.dt.strftime("%m%d")),
    )  # fmt: skip
    return frame.sort("pid")


def _deaths(
    rng: Random, days: list[int], base: int, count: int
) -> tuple[list[str], list[date | None], list[int | None], list[date | None]]:
    """Status of everybody; day, month and registration of the deaths of the three months.

    Those who died before have status 1 and no day of death here.
    """
    status = rng.choices("0234", (96.8, 1.3, 1.4, 0.5), k=base) + ["0"] * (count - base)
    wanted = events_a_month(count) * len(MONTHS)
    old = list(accumulate(math.exp(day / 365.25 / 12) for day in days[:base]))
    chosen: dict[int, None] = {}
    while len(chosen) < wanted + count // 100:
        for position in rng.choices(range(base), cum_weights=old, k=wanted):
            if status[position] == "0":
                chosen.setdefault(position)
    died: list[date | None] = [None] * count
    month_of: list[int | None] = [None] * count
    registered: list[date | None] = [None] * count
    for number, position in enumerate(chosen):
        status[position] = "1"
        if number < wanted:
            turn = number % len(MONTHS)
            year, month, length = MONTHS[turn]
            day = rng.randint(1, length)
            died[position] = date(year, month, day)
            month_of[position] = turn
            registered[position] = date(year, month, min(length, day + rng.randint(0, 2)))
    return status, died, month_of, registered
