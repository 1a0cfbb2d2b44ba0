"""Citizen numbers and counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dopa_pipelines.thai.text import arabic_digits


def digits(text: pl.Expr) -> pl.Expr:
    """Text with Thai digits as Arabic ones and the separators people write into identifiers taken out."""
    return arabic_digits(text).str.replace_all(r"[\s-]", "")


def digits_only(text: pl.Series, length: int) -> pl.Series:
    """:func:`digits` of those values that are not ``length`` plain digits already."""
    plain = has_digits(text, length).fill_null(True)
    if plain.all():
        return text
    other = text.filter(~plain).to_frame().select(digits(pl.col(text.name)))[:, 0]
    return text.scatter((~plain).arg_true(), other)


def has_digits(text: pl.Series, length: int) -> pl.Series:
    """Whether a value is exactly ``length`` ASCII digits; null where it is null."""
    verdict = _judged(text, length, lambda digit: digit.max(axis=0) < 10).fill_null(False)
    return verdict.set(text.is_null(), None) if text.null_count() else verdict


def has_citizen_check_digit(number: pl.Series) -> pl.Series:
    """Whether the last of 13 digits is ``(11 - sum(d[i] * (13 - i)) mod 11) mod 10``; null unless 13 digits.

    Source: the department's citizen numbering, as in ``stdnum.th.pin``. A first digit of 0 is not judged here.
    """
    plain = has_digits(number, 13).fill_null(False)
    return _judged(number.set(~plain, None) if not plain.all() else number, 13, checks_out)


def checks_out(digit: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether the last of 13 digits (a column a value) is the check digit of the others."""
    total = np.zeros(digit.shape[1], dtype=np.uint16)
    for place, row in enumerate(digit[:12]):
        total += row * np.uint16(13 - place)
    verdict: NDArray[np.bool_] = (11 - total % 11) % 10 == digit[12]
    return verdict


def digit_table(text: pl.Series, length: int) -> NDArray[np.uint8] | None:
    """The digits of values, a column a value; None unless every one of them is ``length`` ASCII digits."""
    if not len(text) or text.null_count() or not (text.str.len_bytes() == length).all():
        return None
    table = byte_table(text, length)
    return table if table.max() < 10 else None


def byte_table(text: pl.Series, length: int) -> NDArray[np.uint8]:
    """Values of ``length`` bytes each as digits, a column a value; what is no digit is above 9."""
    array = text.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    start = int(np.frombuffer(offsets, np.int64)[array.offset])
    # Long rows: every later step runs over a whole position of all values at once.
    return np.ascontiguousarray(np.frombuffer(data, np.uint8, len(text) * length, start).reshape(-1, length).T) - 48


def _judged(text: pl.Series, length: int, judge: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]) -> pl.Series:
    """What ``judge`` says of the values that are ``length`` bytes long; null for the others."""
    fits = (text.str.len_bytes() == length).fill_null(False)
    if not len(text) or not fits.any():
        return pl.Series(text.name, [None] * len(text), dtype=pl.Boolean)
    if fits.all():
        return pl.Series(text.name, judge(byte_table(text, length)))
    verdict = pl.Series(judge(byte_table(text.filter(fits), length)))
    return pl.Series(text.name, [None], dtype=pl.Boolean).new_from_index(0, len(text)).scatter(fits.arg_true(), verdict)


def plain_number(text: pl.Expr) -> pl.Expr:
    """Digits as a number is written for machines: thousands commas and spaces out, Thai digits as Arabic."""
    return arabic_digits(text).str.replace_all(r"[,\s]", "")
