"""Citizen numbers and counts."""

from __future__ import annotations

import polars as pl

from dopa_pipelines.thai.text import arabic_digits


def digits(text: pl.Expr) -> pl.Expr:
    """Text with Thai digits as Arabic ones and the separators people write into identifiers taken out."""
    return arabic_digits(text).str.replace_all(r"[\s-]", "")


def has_citizen_check_digit(number: pl.Series) -> pl.Series:
    """Whether the last of 13 digits is ``(11 - sum(d[i] * (13 - i)) mod 11) mod 10``; null unless 13 digits.

    Source: the department's citizen numbering, as in ``stdnum.th.pin``. A first digit of 0 is not judged here.
    """
    name = number.name
    value = number.to_frame().select(
        pl.when(pl.col(name).str.contains(r"^[0-9]{13}$")).then(pl.col(name)).cast(pl.Int64, strict=False).alias("value")
    )
    digit = [(pl.col("value") // 10 ** (12 - i)) % 10 for i in range(13)]
    total = pl.sum_horizontal((digit[i] * (13 - i) for i in range(12)), ignore_nulls=False)
    return value.select(((11 - total % 11) % 10 == digit[12]).alias(name)).to_series()


def plain_number(text: pl.Expr) -> pl.Expr:
    """Digits as a number is written for machines: thousands commas and spaces out, Thai digits as Arabic."""
    return arabic_digits(text).str.replace_all(r"[,\s]", "")
