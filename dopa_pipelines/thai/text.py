"""Repair and inspection of Thai text.

Unicode compatibility forms (NFKC, NFKD) are never applied: they take ำ apart and names stop matching.
"""

from __future__ import annotations

import polars as pl

THAI_DIGITS = {thai: str(number) for number, thai in enumerate("๐๑๒๓๔๕๖๗๘๙")}

_REPAIRS = {
    "\u0e4d\u0e32": "\u0e33",  # nikhahit + sara aa, typed apart, is sara am
    "\u0e40\u0e40": "\u0e41",  # two sara e typed for one sara ae
    "\u200b": "",
    "\u200c": "",
    "\u200d": "",
    "\ufeff": "",
    "\u00a0": " ",
}


def repaired(text: pl.Expr) -> pl.Expr:
    """Trimmed text with ำ and แ put together again and zero-width characters taken out."""
    return text.str.replace_many(list(_REPAIRS), list(_REPAIRS.values())).str.strip_chars()


def arabic_digits(text: pl.Expr) -> pl.Expr:
    """Thai digits ๐-๙ as 0-9; everything else as it is."""
    return text.str.replace_many(list(THAI_DIGITS), list(THAI_DIGITS.values()))


def is_mojibake(text: pl.Expr) -> pl.Expr:
    """Whether text shows Thai in UTF-8 that was read as cp874 (``เธชเธกเธ``) or as latin-1 (``à¸ªà¸¡``).

    Every Thai letter in UTF-8 begins with the bytes E0 B8 or E0 B9, which cp874 shows as เธ or เน and latin-1 as à¸ or à¹;
    three in a row do not occur in real words. U+FFFD marks a decoder's own loss.
    """
    return text.str.contains(r"(?:เ[ธน][^a-zA-Z0-9\s]){3}|(?:à[¸¹].){2}|\x{FFFD}")
