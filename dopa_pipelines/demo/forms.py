"""How silos write things: Buddhist-era dates, citizen numbers, workbooks, files that appear whole.

Only the writing of forms belongs here; what is written is decided in :mod:`dopa_pipelines.demo.department`.
Nothing of the platform's own parsing is used: the answer key is to be independent of what it examines.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import xlsxwriter

MONTHS = (
    "มกราคม", "กุมภาพันธ์", "มีนาคม", "เมษายน", "พฤษภาคม", "มิถุนายน",
    "กรกฎาคม", "สิงหาคม", "กันยายน", "ตุลาคม", "พฤศจิกายน", "ธันวาคม",
)  # fmt: skip
SHORT_MONTHS = (
    "ม.ค.", "ก.พ.", "มี.ค.", "เม.ย.", "พ.ค.", "มิ.ย.", "ก.ค.", "ส.ค.", "ก.ย.", "ต.ค.", "พ.ย.", "ธ.ค.",
)  # fmt: skip
CREATED = datetime(2026, 1, 1)
"""Workbooks claim to be made then, so that the same content gives the same bytes."""


def era_year(day: date) -> int:
    """Buddhist-era year of a day. Until B.E. 2483 the year began on 1 April."""
    return day.year + 543 - (1 if day.year <= 1940 and day.month <= 3 else 0)


def slashed(day: date) -> str:
    """``01/04/2568``"""
    return f"{day:%d/%m}/{era_year(day)}"


def short_written(day: date) -> str:
    """``1 เม.ย. 2568``"""
    return f"{day.day} {SHORT_MONTHS[day.month - 1]} {era_year(day)}"


def long_written(day: date) -> str:
    """``1 เมษายน 2568``"""
    return f"{day.day} {MONTHS[day.month - 1]} {era_year(day)}"


def formal(day: date) -> str:
    """``1 เมษายน พ.ศ. 2568``"""
    return f"{day.day} {MONTHS[day.month - 1]} พ.ศ. {era_year(day)}"


def thai_digits(text: str) -> str:
    return text.translate(str.maketrans("0123456789", "๐๑๒๓๔๕๖๗๘๙"))


def dashed(pid: str) -> str:
    """A citizen number as it stands on the card: ``1-1017-00230-70-8``."""
    return f"{pid[0]}-{pid[1:5]}-{pid[5:10]}-{pid[10:12]}-{pid[12:]}"


def era_year_of(day: pl.Expr) -> pl.Expr:
    """Buddhist-era year of a date column, as text."""
    early = (day.dt.year() <= 1940) & (day.dt.month() <= 3)
    return (day.dt.year() + 543 - early.cast(pl.Int32)).cast(pl.String)


def check_digit(first_twelve: str) -> str:
    """Last digit of a citizen number: ``(11 - sum(d[i] * (13 - i)) mod 11) mod 10``."""
    total = sum(int(digit) * (13 - place) for place, digit in enumerate(first_twelve))
    return str((11 - total % 11) % 10)


def with_check_digit(first_twelve: pl.Expr) -> pl.Expr:
    """Thirteen digits from a column of twelve (text)."""
    number = first_twelve.cast(pl.Int64)
    total = pl.sum_horizontal((number // 10 ** (11 - place) % 10) * (13 - place) for place in range(12))
    return first_twelve + ((11 - total % 11) % 10).cast(pl.String)


def misread(text: str, encoding: str) -> str:
    """Thai text whose UTF-8 bytes were taken for ``encoding`` (cp874 or latin-1)."""
    return text.encode("utf-8").decode(encoding)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is seen whole or not at all; one that already has this content is left alone."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # The leading dot keeps the unfinished file out of the contracts' globs.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        # Sent a minute ago: what is younger may be taken for a file that is still being written.
        sent = time.time() - 60
        os.utime(part, (sent, sent))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def workbook(sheet: str, titles: Sequence[str], header: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """An xlsx file: ``titles`` in merged rows on top, the header under them, then ``rows`` (empty sequence:
    blank row).

    Texts, numbers, dates (as real date cells) and None. The first of ``rows`` stands in sheet row
    ``len(titles) + 2``.
    """
    target = io.BytesIO()
    with xlsxwriter.Workbook(target, {"in_memory": True}) as book:
        book.set_properties({"created": CREATED, "author": "กรมการปกครอง"})
        bold = book.add_format({"bold": True, "align": "center"})
        day = book.add_format({"num_format": "dd/mm/yyyy"})
        page = book.add_worksheet(sheet)
        page.set_column(0, len(header) - 1, 20)
        for number, title in enumerate(titles):
            page.merge_range(number, 0, number, len(header) - 1, title, bold)
        for column, title in enumerate(header):
            page.write_string(len(titles), column, title, bold)
        for number, row in enumerate(rows, len(titles) + 1):
            for column, value in enumerate(row):
                if isinstance(value, str):
                    page.write_string(number, column, value)
                elif isinstance(value, date):
                    page.write_datetime(number, column, datetime(value.year, value.month, value.day), day)
                elif value is not None:
                    page.write_number(number, column, value)
    return target.getvalue()
