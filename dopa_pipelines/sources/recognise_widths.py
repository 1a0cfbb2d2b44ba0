"""Where the columns of a fixed-width file begin, from its characters alone.

Text is set to the left and filled with blanks: a column begins where hardly any line is blank and the place before is blank in
many. Numbers touch: runs of digits are cut where what is known has its own form (citizen numbers by their check digit,
Buddhist-era days, area codes, house codes). What no form tells stays one column, cut only where the digits change their kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from dopa_pipelines.thai.numbers import checks_out

Table = NDArray[np.uint32]
"""Characters as code points, a row a line."""

SHARE = 0.96
"""So many of the lines must have a form, for a place to be told by it."""
_BLANK = 32


@dataclass(frozen=True)
class _Form:
    """A form of so many digits, and how much it tells: more than the parts it might be cut into."""

    name: str
    length: int
    worth: float
    fits: Callable[[NDArray[np.int64]], NDArray[np.bool_]]


def widths_of(lines: list[str], width: int) -> tuple[list[tuple[int, int]], list[str]]:
    """Positions ``(first, length)`` that cover a line of ``width`` characters, and notes on what is guessed."""
    same = [line for line in lines if len(line) == width]
    table = np.frombuffer("".join(same).encode("utf-32-le"), dtype=np.uint32).reshape(len(same), width)
    digits, starts = _digits(table), _text_starts(table)
    positions: list[tuple[int, int]] = []
    guessed: list[str] = []
    at = 0
    while at < width:
        end = at + 1
        while end < width and digits[end] == digits[at] and end not in starts:
            end += 1
        if digits[at]:
            for first, length, known in _cut(table[:, at:end]):
                positions.append((at + first + 1, length))
                if not known:
                    guessed.append(f"{at + first + 1}-{at + first + length}")
        else:
            positions.append((at + 1, end - at))
        at = end
    notes = [f"bytes {', '.join(guessed)}: digits of no form that is known; they may be several columns"] if guessed else []
    if len(same) < 200:
        notes.append(f"only {len(same)} lines were there to tell the places by: a larger sample tells them better")
    return positions, notes


def _digits(table: Table) -> NDArray[np.bool_]:
    """Places where nearly every line has a digit, or a blank in its stead."""
    is_digit = (table >= 48) & (table <= 57)
    blank = table == _BLANK
    share = is_digit.mean(axis=0)
    found: NDArray[np.bool_] = ((is_digit | blank).mean(axis=0) >= SHARE) & (share >= 0.5)
    return found


def _text_starts(table: Table) -> set[int]:
    """Places where a column set to the left begins: filled in most lines, while the place before is blank in many."""
    filled = (table != _BLANK).mean(axis=0)
    return {
        at for at in range(1, len(filled)) if filled[at] - filled[at - 1] >= 0.3 and filled[at] >= 0.5 and not _goes_on(table, at)
    }


def _goes_on(table: Table, at: int) -> bool:
    """Whether the blank before is one within text: most lines that are blank there have text on both sides."""
    blank = table[:, at - 1] == _BLANK
    if at < 2 or not blank.any():
        return False
    return bool((table[blank, at - 2] != _BLANK).mean() > 0.9 and blank.mean() < 0.9)


def _cut(table: Table) -> list[tuple[int, int, bool]]:
    """A run of digits as (place, length, whether its form is known): the cut by which known forms tell most."""
    size = table.shape[1]
    digit = np.where((table >= 48) & (table <= 57), table.astype(np.int64) - 48, -1)
    fitting = {
        (at, form.length): form.worth for form in _forms() for at in range(size - form.length + 1) if _fits(digit, at, form)
    }
    best: list[float] = [0.0] + [-1.0] * size
    came: list[tuple[int, bool]] = [(0, False)] * (size + 1)
    for end in range(1, size + 1):
        # What has no form costs nothing and tells nothing.
        best[end], came[end] = best[end - 1], (end - 1, False)
        for (at, length), worth in fitting.items():
            if at + length == end and best[at] + worth > best[end]:
                best[end], came[end] = best[at] + worth, (at, True)
    parts: list[tuple[int, int, bool]] = []
    end = size
    while end:
        at, known = came[end]
        if not known and parts and not parts[-1][2]:
            parts[-1] = (at, parts[-1][1] + 1, False)
        else:
            parts.append((at, end - at, known))
        end = at
    # A run of one digit is a code; of more, it is known that it is not known.
    return [(at, length, known or length == 1) for at, length, known in reversed(parts)]


def _fits(digit: NDArray[np.int64], at: int, form: _Form) -> bool:
    part = digit[:, at : at + form.length]
    whole = (part >= 0).all(axis=1) & (part != 0).any(axis=1)
    if whole.mean() < 0.5:
        return False
    part = part[whole]
    # The same in all lines is a filler, not a number of persons, houses or days.
    return bool((part[0] != part).any()) and bool(form.fits(part).mean() >= SHARE)


@cache
def _forms() -> tuple[_Form, ...]:
    provinces, districts, tambons = _areas()

    def number(part: NDArray[np.int64]) -> NDArray[np.int64]:
        made: NDArray[np.int64] = part @ (10 ** np.arange(part.shape[1] - 1, -1, -1, dtype=np.int64))
        return made

    def citizen(part: NDArray[np.int64]) -> NDArray[np.bool_]:
        return checks_out(np.ascontiguousarray(part.T).astype(np.uint8))

    def day(part: NDArray[np.int64]) -> NDArray[np.bool_]:
        year, month, rest = number(part[:, :4]), number(part[:, 4:6]), number(part[:, 6:])
        return (year >= 2400) & (year <= 2620) & (month <= 12) & (rest <= 31)

    def common_day(part: NDArray[np.int64]) -> NDArray[np.bool_]:
        year, month, rest = number(part[:, :4]), number(part[:, 4:6]), number(part[:, 6:])
        return (year >= 1880) & (year <= 2060) & (month >= 1) & (month <= 12) & (rest >= 1) & (rest <= 31)

    def house(part: NDArray[np.int64]) -> NDArray[np.bool_]:
        # The first four name the registration office: a district, or a municipality of the province, counted down from 99.
        office = number(part[:, :4])
        return np.isin(office, districts) | (np.isin(office // 100, provinces) & (office % 100 >= 80))

    def tambon(part: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.isin(number(part), tambons)

    def village(part: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.isin(number(part[:, :6]), tambons)

    return (
        _Form("citizen_number", 13, 30, citizen), _Form("be_date_ymd", 8, 16, day), _Form("date", 8, 15, common_day),
        _Form("house_code", 11, 12, house), _Form("village", 8, 13, village), _Form("tambon", 6, 11, tambon),
    )  # fmt: skip


@cache
def _areas() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Codes of provinces, districts and tambons that exist."""
    import geothai

    provinces = [province.code for province in geothai.provinces()]
    districts = [district.code for code in provinces for district in geothai.districts(code)]
    tambons = [tambon.code for code in districts for tambon in geothai.subdistricts(code)]
    return tuple(np.array(list(map(int, codes)), dtype=np.int64) for codes in (provinces, districts, tambons))  # type: ignore[return-value]
