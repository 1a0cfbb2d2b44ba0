"""Days on which government offices are closed beside Saturdays and Sundays.

Fixed days are rules. Days by the moon, and days that the cabinet declares for one year, are tables: they are announced, not
computed, and a year that is missing only lacks those days. Until when data may be late belongs to a contract, not here.

Sources: วันหยุดราชการประจำปี as the cabinet announces it (สำนักเลขาธิการคณะรัฐมนตรี); a holiday on a Saturday or Sunday is made good on
the next working day, once for days that follow one another.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache

FIXED = (
    (1, 1), (4, 6), (4, 13), (4, 14), (4, 15), (5, 4), (6, 3), (7, 28), (8, 12), (10, 13), (10, 23), (12, 5), (12, 10), (12, 31),
)  # fmt: skip
"""(month, day): New Year, Chakri, Songkran (three), Coronation, Queen Suthida, the King, the Queen Mother, Nawamin,
Chulalongkorn, National Day, Constitution, New Year's Eve."""

MOON = {
    2022: ((2, 16), (5, 15), (7, 13)),
    2023: ((3, 6), (6, 3), (8, 1)),
    2024: ((2, 24), (5, 22), (7, 20)),
    2025: ((2, 12), (5, 11), (7, 10)),
    2026: ((3, 3), (5, 31), (7, 29)),
    2027: ((2, 21), (5, 20), (7, 18)),
    2028: ((2, 10), (5, 8), (7, 6)),
    2029: ((2, 27), (5, 27), (7, 25)),
    2030: ((2, 17), (5, 16), (7, 14)),
}
"""Makha Bucha, Visakha Bucha, Asanha Bucha; Khao Phansa is the day after the last."""

DECLARED = {
    2022: ((5, 13), (7, 15), (7, 29), (10, 14), (12, 30)),
    2023: ((5, 5), (5, 17), (7, 31), (12, 29)),
    2024: ((4, 12), (5, 10), (12, 30)),
    2025: ((5, 9), (6, 2), (8, 11)),
    2026: ((1, 2), (5, 13)),
}
"""The Royal Ploughing Ceremony and what the cabinet declared for one year."""


@cache
def holidays(year: int) -> frozenset[date]:
    """Official holidays of a Gregorian year, with the days that make good for those on weekends."""
    named = {date(year, month, day) for month, day in FIXED}
    for makha, visakha, asanha in (MOON[year],) if year in MOON else ():
        named |= {date(year, *makha), date(year, *visakha), date(year, *asanha), date(year, *asanha) + timedelta(1)}
    given = named | {date(year, month, day) for month, day in DECLARED.get(year, ())}
    # New Year's Eve on a weekend is made good in the next year, after New Year's Day has been.
    eve, new_year = date(year - 1, 12, 31), date(year, 1, 1)
    named.add(eve)
    made_good: set[date] = set()
    for day in sorted(named):
        if day.weekday() < 5 or (day == date(year, 12, 31)):
            continue
        follows = day - timedelta(1) in named and (day - timedelta(1)).weekday() >= 5
        if follows and (eve, new_year) != (day - timedelta(1), day):
            continue
        free = day + timedelta(1)
        while free.weekday() >= 5 or free in given or free in made_good:
            free += timedelta(1)
        made_good.add(free)
    return frozenset(day for day in given | made_good if day.year == year)


def is_closed(day: date) -> bool:
    """Whether government offices are closed: a Saturday, a Sunday or an official holiday."""
    return day.weekday() >= 5 or day in holidays(day.year)
