"""Enforcement: one Polars plan compiled from a contract, applied to every batch.

Each column gets at most one reason code (the first that applies), each row as many as it has bad columns and broken row rules.
Rules that need other rows or tables (duplicates, references) are settled in the database: :mod:`dopa_pipelines.ingest.settle`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dopa_pipelines.contracts import Column, Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest.tables import is_decimal
from dopa_pipelines.sources.batch import FLAW, ORIGINAL, ROW, Batch, Text
from dopa_pipelines.thai.dates import Form, parse_dates
from dopa_pipelines.thai.numbers import (
    checks_out,
    digit_table,
    digits_only,
    has_citizen_check_digit,
    has_digits,
    plain_number,
)
from dopa_pipelines.thai.text import arabic_digits, is_mojibake, repaired

UNREGISTERED = "unregistered_citizen_number"
"""Note, not a reason: a number that begins with 0 belongs to a person without registration status."""

_DATE_FORMS: dict[str, Form] = {"date": "any", "be_yymm": "yymm", "be_date_ymd": "ymd"}
_DIGITS = {"citizen_number": 13, "house_code": 11, "be_date_ymd": 8}
_YEARS = (1800, 2200)
"""Common years of a time, as of a date: a year beyond them is one of another era, or a slip."""
_DECIMAL_BYTES = 15_000
"""A longer decimal, or one with an exponent of four digits, may have more places than PostgreSQL's numeric holds (16,383)."""
_INTEGERS = {"smallint": pl.Int16, "integer": pl.Int32, "bigint": pl.Int64}
_TRUE = ["true", "t", "yes", "y", "1", "ใช่"]
_FALSE = ["false", "f", "no", "n", "0", "ไม่ใช่"]


@dataclass(frozen=True)
class Enforced:
    """One batch after enforcement.

    ``accepted``: the table's typed columns and ``_row``. ``rejected``: ``_row``, ``_original``, ``reasons`` (JSON: a list of
    ``{code, column, value}``) and ``fields`` (JSON: the text of every column, null where the row could not be taken apart).
    ``codes``: rejected rows by reason code. ``values``: the typed columns of ``accepted`` as they were made, where a value that
    repeats may stand once.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    codes: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    values: dict[str, Text] = field(default_factory=dict)


@dataclass(frozen=True)
class _Found:
    """Reason codes of all rows (null where the row is good), the column that is to blame and its text."""

    column: str | None
    reason: pl.Series
    text: Text | None


class Plan:
    """The contract's rules, ready to apply.

    ``as_of``: the day of the delivery, which no date may lie after. ``period``: first day of the month that the delivery's name
    states, or None; rows of another month are out of scope.
    """

    def __init__(self, contract: Contract, as_of: date, period: date | None = None) -> None:
        self.contract = contract
        self.as_of = as_of
        self.period = period
        _refuse_patterns(contract)
        self._rules = [(rule.name, _expression(contract, rule.name, rule.expression)) for rule in contract.row_rules]
        months = [part.column for part in contract.load.scope if period]
        dates = {name for name, kind in contract.table_columns if kind == "date"}
        self._period_column = next((name for name in months if name in dates), None)

    def apply(self, batch: Batch) -> Enforced:
        """Type and check one batch as a reader gives it. A value that repeats is typed and checked once."""
        notes: Counter[str] = Counter()
        made: dict[str, Text] = {}
        found: list[_Found] = []
        for column in self.contract.columns:
            text = batch.columns[column.name]
            values, reason = self._column(column, text)
            made |= {value.name: Text(value, text.codes) for value in values}
            if reason.null_count() < len(reason):
                found.append(_Found(column.name, text.spread(reason), text))
            if column.parse == "citizen_number":
                unregistered = text.spread(values[0].str.starts_with("0") & reason.is_null()).sum()
                notes += Counter({UNREGISTERED: unregistered} if unregistered else {})
        if self._rules or self._period_column:
            found += self._row_checks(batch, made)
        bad: pl.Series | None = None
        for item in found:
            wrong = item.reason.is_not_null()
            bad = wrong if bad is None else bad | wrong
        accepted = {name: text if bad is None else text.filter(~bad) for name, text in made.items()}
        rows = batch.rows if bad is None else batch.rows.filter(~bad)
        typed = pl.DataFrame([text.rows().alias(name) for name, text in accepted.items()] + [rows.alias(ROW)])
        rejected, codes = _rejected(batch, pl.Series() if bad is None else bad.arg_true(), found)
        return Enforced(typed, rejected, codes, notes, accepted)

    def _row_checks(self, batch: Batch, made: dict[str, Text]) -> list[_Found]:
        checks: list[tuple[str | None, pl.Expr, pl.Expr]] = [
            (None, pl.when(expression.not_()).then(pl.lit(f"row_rule:{name}")), expression) for name, expression in self._rules
        ]
        if self._period_column:
            month = pl.col(self._period_column).dt.truncate("1mo")
            late = pl.when(month != self.period).then(pl.lit("out_of_scope"))
            checks.append((self._period_column, late, month))
        wanted = {name for _, _, expression in checks for name in expression.meta.root_names()} & set(made)
        typed = pl.DataFrame([made[name].rows().alias(name) for name in made if name in wanted])
        try:
            codes = [typed.select(check.alias("code"))["code"] for _, check, _ in checks]
        except pl.exceptions.PolarsError as error:
            names = ", ".join(name for name, _ in self._rules)
            raise UserError(
                f"{self.contract.path.name}: a row rule ({names}) cannot be applied to the columns: {_without_values(error)}"
            ) from error
        columns = [name and self._file_column(name) for name, _, _ in checks]
        return [
            _Found(name, code, batch.columns[name] if name else None)
            for name, code in zip(columns, codes, strict=True)
            if code.null_count() < len(code)
        ]

    def _file_column(self, name: str) -> str:
        """The column that makes a column of the table."""
        return next(column.name for column in self.contract.columns if name in dict(column.table_columns))

    def _column(self, column: Column, raw: Text) -> tuple[list[pl.Series], pl.Series]:
        """The typed columns made from the values of one text column, and the reason code of each (null where it is good)."""
        if raw.ascii and not column.null_values and (length := _DIGITS.get(column.parse)):
            # What silos send most is right as it stands.
            digit = digit_table(raw.values, length)
            if digit is not None:
                if column.logical_type == "date":
                    return self._date(column, raw.values.alias("t").to_frame())
                return self._digits(column, raw.values, digit)
        plain = pl.col("t").str.strip_chars() if raw.ascii else repaired(pl.col("t"))
        text = raw.values.alias("t").to_frame().select(plain)
        nulls = ["", *(value.strip() for value in column.null_values)]
        text = text.select(pl.when(~pl.col("t").is_in(nulls)).then(pl.col("t")))
        match column.logical_type:
            case "string":
                return self._string(column, text, raw.ascii)
            case "integer" | "number":
                return self._number(column, text)
            case "date":
                return self._date(column, text)
            case "timestamp":
                return self._timestamp(column, text)
            case _:
                return self._boolean(column, text)

    def _digits(self, column: Column, text: pl.Series, digit: NDArray[np.uint8]) -> tuple[list[pl.Series], pl.Series]:
        """A column that holds nothing but identifiers of the right length."""
        bad = pl.Series(~checks_out(digit) if column.parse == "citizen_number" else np.zeros(len(text), dtype=bool))
        frame = pl.DataFrame([text.alias("t"), bad.alias("bad")])
        frame = frame.with_columns(_reason(column, pl.lit(False), [(pl.col("bad"), "bad_check_digit"), *_text_checks(column)]))
        return [text.alias(column.name)], frame["reason"]

    def _string(self, column: Column, frame: pl.DataFrame, ascii_only: bool) -> tuple[list[pl.Series], pl.Series]:
        text = pl.col("t")
        checks: list[tuple[pl.Expr, str]] = []
        if column.parse in ("text", "code"):
            if not ascii_only:
                checks.append((is_mojibake(text), "mojibake"))
                if column.parse == "code":
                    frame = frame.select(arabic_digits(text).alias("t"))
        elif column.parse == "citizen_number":
            frame = digits_only(frame["t"], 13).to_frame()
            frame = frame.with_columns(has_citizen_check_digit(frame["t"]).alias("good"))
            checks += [(pl.col("good").is_null(), "bad_length"), (~pl.col("good"), "bad_check_digit")]
        else:
            frame = digits_only(frame["t"], 11).to_frame()
            frame = frame.with_columns(has_digits(frame["t"], 11).alias("good"))
            checks.append((~pl.col("good"), "bad_length"))
        checks += _text_checks(column)
        frame = frame.with_columns(_reason(column, text.is_null(), checks))
        return [frame["t"].alias(column.name)], frame["reason"]

    def _number(self, column: Column, frame: pl.DataFrame) -> tuple[list[pl.Series], pl.Series]:
        plain = pl.col("plain")
        frame = frame.select(plain_number(pl.col("t")).alias("plain"))
        kind = column.physical_type
        if column.logical_type == "integer":
            whole = plain.str.replace(r"\.0+$", "")
            wide = pl.when(whole.str.contains(r"^[+-]?[0-9]{1,18}$")).then(whole).cast(pl.Int64, strict=False)
            frame = frame.with_columns(wide.alias("wide"))
            narrow = pl.col("wide").cast(_INTEGERS[kind], strict=False)
            readable = plain.str.contains(r"^[+-]?[0-9]+(?:\.0+)?$")
        else:
            wide = pl.when(plain.str.contains(r"^[+-]?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?$")).then(plain)
            frame = frame.with_columns(wide.cast(pl.Float64, strict=False).alias("wide"))
            kept = pl.col("plain") if is_decimal(kind) else pl.col("wide")
            fits = pl.col("wide").is_finite()
            if is_decimal(kind):
                fits &= (plain.str.len_bytes() <= _DECIMAL_BYTES) & ~plain.str.contains(r"[eE][+-]?0*[0-9]{4,}$")
            narrow = pl.when(fits).then(kept)
            readable = pl.col("wide").is_not_null()
        frame = frame.with_columns(narrow.alias("value"))
        checks = [(~readable, "bad_number"), (pl.col("value").is_null(), "out_of_range")]
        if column.minimum is not None:
            checks.append((pl.col("wide") < column.minimum, "out_of_range"))
        if column.maximum is not None:
            checks.append((pl.col("wide") > column.maximum, "out_of_range"))
        frame = frame.with_columns(_reason(column, plain.is_null(), checks))
        return [frame["value"].alias(column.name)], frame["reason"]

    def _date(self, column: Column, frame: pl.DataFrame) -> tuple[list[pl.Series], pl.Series]:
        parsed = parse_dates(frame["t"], _DATE_FORMS[column.parse], self.as_of)
        frame = frame.hstack(parsed)
        value, year, month = pl.col("value"), pl.col("year"), pl.col("month")
        checks: list[tuple[pl.Expr, str]] = [
            (~pl.col("readable"), "bad_date"),
            (~pl.col("possible"), "impossible_date"),
        ]
        earliest = latest_day = value
        if not column.partial:
            checks.append((value.is_null(), "bad_date"))
        elif frame["value"].null_count():
            # A date that is known in part is wrong only if every day that it may be is.
            frame = frame.with_columns(
                earliest=pl.coalesce(value, pl.date(year, pl.coalesce(month, 1), 1)),
                latest=pl.coalesce(value, pl.date(year, pl.coalesce(month, 12), 1).dt.month_end()),
            )
            earliest, latest_day = pl.col("earliest"), pl.col("latest")
        if column.maximum is not None:
            latest = self.as_of if column.maximum == "delivery" else _as_date(column, column.maximum)
            checks.append((earliest > latest, "future_date" if latest == self.as_of else "out_of_range"))
        if column.minimum is not None:
            checks.append((latest_day < _as_date(column, column.minimum), "out_of_range"))
        frame = frame.with_columns(_reason(column, pl.col("t").is_null(), checks))
        values = [frame["value"].alias(column.name)]
        if column.partial:
            values += [
                frame["year"].alias(f"{column.name}_year"),
                frame["month"].alias(f"{column.name}_month"),
            ]
        return values, frame["reason"]

    def _timestamp(self, column: Column, frame: pl.DataFrame) -> tuple[list[pl.Series], pl.Series]:
        zone = "Asia/Bangkok" if column.physical_type == "timestamptz" else None
        moment = pl.col("t").str.replace(" ", "T").str.replace(r"Z$", "+00:00")
        offset = moment.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", strict=False, time_unit="us")
        local = moment.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="us")
        # Bangkok skipped 18 minutes on 1 April 1920.
        local = local.dt.replace_time_zone("Asia/Bangkok", non_existent="null").dt.convert_time_zone("UTC")
        value = pl.coalesce(offset, local).dt.convert_time_zone(zone or "Asia/Bangkok")
        frame = frame.with_columns((value if zone else value.dt.replace_time_zone(None)).alias("value"))
        checks = [
            (pl.col("value").is_null(), "bad_date"),
            (~pl.col("value").dt.year().is_between(*_YEARS), "impossible_date"),
        ]
        if column.maximum == "delivery":
            checks.append((pl.col("value").dt.date() > self.as_of, "future_date"))
        frame = frame.with_columns(_reason(column, pl.col("t").is_null(), checks))
        return [frame["value"].alias(column.name)], frame["reason"]

    def _boolean(self, column: Column, frame: pl.DataFrame) -> tuple[list[pl.Series], pl.Series]:
        lowered = pl.col("t").str.to_lowercase()
        value = pl.when(lowered.is_in(_TRUE)).then(True).when(lowered.is_in(_FALSE)).then(False)
        frame = frame.with_columns(value.alias("value"))
        reason = _reason(column, pl.col("t").is_null(), [(pl.col("value").is_null(), "not_in_list")])
        frame = frame.with_columns(reason)
        return [frame["value"].alias(column.name)], frame["reason"]


def _text_checks(column: Column) -> list[tuple[pl.Expr, str]]:
    """Limits of the length, pattern and list of a text column ``t``."""
    text = pl.col("t")
    checks: list[tuple[pl.Expr, str]] = []
    if column.min_length is not None:
        checks.append((text.str.len_chars() < column.min_length, "bad_length"))
    if column.max_length is not None:
        checks.append((text.str.len_chars() > column.max_length, "too_long"))
    if column.pattern:
        checks.append((~text.str.contains(column.pattern), "bad_pattern"))
    if column.valid_values:
        checks.append((~text.is_in(column.valid_values), "not_in_list"))
    return checks


def _reason(column: Column, absent: pl.Expr, checks: list[tuple[pl.Expr, str]]) -> pl.Expr:
    """The first code that applies. An absent value is missing or, where it may be, checked no further."""
    chain: Any = pl.when(absent).then(pl.lit("missing" if column.required else None, pl.String))
    for condition, code in checks:
        chain = chain.when(condition).then(pl.lit(code))
    reason: pl.Expr = chain.otherwise(pl.lit(None, pl.String))
    return reason.alias("reason")


def _as_date(column: Column, value: object) -> date:
    try:
        return value if isinstance(value, date) else date.fromisoformat(str(value))
    except ValueError as error:
        raise UserError(f"the limit {value!r} of column {column.name} must be a date such as 1900-01-01") from error


def _refuse_patterns(contract: Contract) -> None:
    """Raises UserError for a pattern that is right in Python, but not for columns (which can look neither ahead nor behind)."""
    totals = contract.layout.totals
    patterns = {column.name: column.pattern for column in contract.columns if column.pattern}
    for name, pattern in [*patterns.items(), *([("totals", totals.pattern)] if totals else [])]:
        try:
            pl.Series([""]).str.contains(pattern)
        except pl.exceptions.PolarsError as error:
            reason = next((line[7:] for line in str(error).splitlines() if line.startswith("error: ")), "unknown form")
            raise UserError(
                f"{contract.path.name}: the pattern {pattern!r} of {name} cannot be applied to columns ({reason});"
                " write it without looking ahead, behind or back"
            ) from error


def _without_values(error: Exception) -> str:
    """What Polars says of an expression that fails, without the values that it failed on: they may be of people."""
    return str(error).partition("\n")[0].partition(": [")[0]


def _expression(contract: Contract, name: str, text: str) -> pl.Expr:
    try:
        return pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{contract.path.name}: the row rule {name!r} is not an expression: {error}") from error


def _rejected(batch: Batch, places: pl.Series, found: list[_Found]) -> tuple[pl.DataFrame, Counter[str]]:
    """Rejected rows with their reasons, and the rows of each code. What could not be taken apart has its flaw, nothing else."""
    flawed = batch.flawed
    codes: Counter[str] = Counter(dict(flawed[FLAW].value_counts().iter_rows()))
    frames = [
        flawed.select(
            ROW,
            ORIGINAL,
            pl.format("[{}]", _reason_json(pl.col(FLAW), pl.lit(None, pl.String), pl.lit(None, pl.String))).alias("reasons"),
            pl.lit(None, pl.String).alias("fields"),
        )
    ]
    if len(places):
        each = []
        for item in found:
            code = item.reason.gather(places)
            hit = code.is_not_null()
            where = places.filter(hit)
            value = (
                pl.Series([None], dtype=pl.String).new_from_index(0, len(where)) if item.text is None else item.text.take(where)
            )
            column = pl.Series([item.column], dtype=pl.String).new_from_index(0, len(where))
            parts = {"place": where, "code": code.filter(hit), "column": column, "value": value}
            each.append(pl.DataFrame([part.alias(name) for name, part in parts.items()]))
        reasons = pl.concat(each)
        codes.update(dict(reasons.unique(["place", "code"])["code"].value_counts().iter_rows()))
        told = reasons.select("place", _reason_json(pl.col("code"), pl.col("column"), pl.col("value")).alias("reason"))
        joined = told.group_by("place", maintain_order=True).agg(pl.col("reason").str.join(",")).sort("place")
        frames.append(
            joined.select(
                pl.lit(batch.rows.gather(places)).alias(ROW),
                pl.lit(batch.original(places)).alias(ORIGINAL),
                pl.format("[{}]", "reason").alias("reasons"),
                pl.lit(fields_json(batch, places)).alias("fields"),
            )
        )
    return pl.concat(frames), codes


def _reason_json(code: pl.Expr, column: pl.Expr, value: pl.Expr) -> pl.Expr:
    return pl.struct(code.alias("code"), column.alias("column"), value.alias("value")).struct.json_encode()


def fields_json(batch: Batch, places: pl.Series) -> pl.Series:
    """The text of every column of the rows at ``places``, as JSON objects."""
    columns = [text.take(places).alias(name) for name, text in batch.columns.items()]
    return pl.DataFrame(columns).select(pl.struct(pl.all()).struct.json_encode())[:, 0]
