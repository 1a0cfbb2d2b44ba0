"""Enforcement: one Polars plan compiled from a contract, applied to every batch.

Each column gets at most one reason code (the first that applies), each row as many as it has bad columns and broken row rules.
Rules that need other rows or tables (duplicates, references) are settled in the database: :mod:`dopa_pipelines.ingest.settle`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import polars as pl

from dopa_pipelines.contracts import Column, Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest.tables import is_decimal
from dopa_pipelines.sources.reader import FLAW, ORIGINAL, ROW
from dopa_pipelines.thai.dates import Form, parse_dates
from dopa_pipelines.thai.numbers import digits, has_citizen_check_digit, plain_number
from dopa_pipelines.thai.text import arabic_digits, is_mojibake, repaired

UNREGISTERED = "unregistered_citizen_number"
"""Note, not a reason: a number that begins with 0 belongs to a person without registration status."""

_DATE_FORMS: dict[str, Form] = {"date": "any", "be_yymm": "yymm", "be_date_ymd": "ymd"}
_INTEGERS = {"smallint": pl.Int16, "integer": pl.Int32, "bigint": pl.Int64}
_TRUE = ["true", "t", "yes", "y", "1", "ใช่"]
_FALSE = ["false", "f", "no", "n", "0", "ไม่ใช่"]


@dataclass(frozen=True)
class Enforced:
    """One batch after enforcement.

    ``accepted``: the table's typed columns and ``_row``. ``rejected``: ``_row``, ``_original`` and ``reasons``, a list of
    ``{code, column, value}``.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    notes: dict[str, int] = field(default_factory=dict)


REASONS = pl.List(pl.Struct({"code": pl.String, "column": pl.String, "value": pl.String}))


class Plan:
    """The contract's rules, ready to apply.

    ``as_of``: the day of the delivery, which no date may lie after. ``period``: first day of the month that the delivery's name
    states, or None; rows of another month are out of scope.
    """

    def __init__(self, contract: Contract, as_of: date, period: date | None = None) -> None:
        self.contract = contract
        self.as_of = as_of
        self.period = period
        self._rules = [(rule.name, _expression(contract, rule.name, rule.expression)) for rule in contract.row_rules]
        months = [part.column for part in contract.load.scope if period]
        dates = {name for name, kind in contract.table_columns if kind == "date"}
        self._period_column = next((name for name in months if name in dates), None)

    def apply(self, batch: pl.DataFrame) -> Enforced:
        """Type and check one batch of text columns as a reader yields them."""
        notes: dict[str, int] = {}
        made: list[pl.Series] = [batch[ROW]]
        reasons: list[tuple[str, pl.Series]] = []
        for column in self.contract.columns:
            values, reason = self._column(column, batch[column.name], notes)
            made += values
            reasons.append((column.name, reason))
        typed = pl.DataFrame(made)
        flawed = batch[FLAW].is_not_null()
        codes = pl.DataFrame([reason.alias(f"reason:{name}") for name, reason in reasons])
        if self._rules or self._period_column:
            codes = codes.hstack(self._row_checks(typed))
        bad = codes.select(pl.any_horizontal(pl.all().is_not_null()).alias("bad"))["bad"] | flawed
        if not bad.any():
            return Enforced(typed, _no_rejects(), notes)
        wrong = pl.concat([batch.with_columns(flawed.alias("_flawed")), codes], how="horizontal").filter(bad)
        return Enforced(typed.filter(~bad), _with_reasons(wrong, codes.columns), notes)

    def _row_checks(self, typed: pl.DataFrame) -> pl.DataFrame:
        checks = [
            pl.when(expression.not_()).then(pl.lit(f"row_rule:{name}")).alias(f"rule:{name}") for name, expression in self._rules
        ]
        if self._period_column:
            month = pl.col(self._period_column).dt.truncate("1mo")
            checks.append(pl.when(month != self.period).then(pl.lit("out_of_scope")).alias(f"reason:{self._period_column}:scope"))
        try:
            return typed.select(checks)
        except pl.exceptions.PolarsError as error:
            names = ", ".join(name for name, _ in self._rules)
            raise UserError(
                f"{self.contract.path.name}: a row rule ({names}) cannot be applied to the columns: {error}"
            ) from error

    def _column(self, column: Column, raw: pl.Series, notes: dict[str, int]) -> tuple[list[pl.Series], pl.Series]:
        """The typed columns made from one text column, and the reason code of each row (null where it is good)."""
        text = raw.alias("t").to_frame().select(repaired(pl.col("t")))
        nulls = ["", *(value.strip() for value in column.null_values)]
        text = text.select(pl.when(~pl.col("t").is_in(nulls)).then(pl.col("t")))
        match column.logical_type:
            case "string":
                return self._string(column, text, notes)
            case "integer" | "number":
                return self._number(column, text)
            case "date":
                return self._date(column, text)
            case "timestamp":
                return self._timestamp(column, text)
            case _:
                return self._boolean(column, text)

    def _string(self, column: Column, frame: pl.DataFrame, notes: dict[str, int]) -> tuple[list[pl.Series], pl.Series]:
        text = pl.col("t")
        checks: list[tuple[pl.Expr, str]] = []
        if column.parse == "text":
            checks.append((is_mojibake(text), "mojibake"))
        elif column.parse == "code":
            frame = frame.select(arabic_digits(text).alias("t"))
            checks.append((is_mojibake(text), "mojibake"))
        elif column.parse == "citizen_number":
            frame = frame.select(digits(text).alias("t"))
            good = has_citizen_check_digit(frame["t"])
            frame = frame.with_columns(good.alias("good"))
            checks += [(pl.col("good").is_null(), "bad_length"), (~pl.col("good"), "bad_check_digit")]
            unregistered = frame.select((text.str.starts_with("0") & pl.col("good")).sum()).item()
            if unregistered:
                notes[UNREGISTERED] = notes.get(UNREGISTERED, 0) + int(unregistered)
        else:
            frame = frame.select(digits(text).alias("t"))
            checks.append((~text.str.contains(r"^[0-9]{11}$"), "bad_length"))
        if column.min_length is not None:
            checks.append((text.str.len_chars() < column.min_length, "bad_length"))
        if column.max_length is not None:
            checks.append((text.str.len_chars() > column.max_length, "too_long"))
        if column.pattern:
            checks.append((~text.str.contains(column.pattern), "bad_pattern"))
        if column.valid_values:
            checks.append((~text.is_in(column.valid_values), "not_in_list"))
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
            narrow = pl.when(pl.col("wide").is_finite()).then(kept)
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
        if not column.partial:
            checks.append((value.is_null(), "bad_date"))
        # A date that is known in part is judged by its earliest day.
        earliest = pl.coalesce(value, pl.date(year, pl.coalesce(month, 1), 1))
        frame = frame.with_columns(earliest.alias("earliest"))
        if column.maximum is not None:
            latest = self.as_of if column.maximum == "delivery" else _as_date(column, column.maximum)
            checks.append((pl.col("earliest") > latest, "future_date" if latest == self.as_of else "out_of_range"))
        if column.minimum is not None:
            checks.append((pl.col("earliest") < _as_date(column, column.minimum), "out_of_range"))
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
        local = local.dt.replace_time_zone("Asia/Bangkok").dt.convert_time_zone("UTC")
        value = pl.coalesce(offset, local).dt.convert_time_zone(zone or "Asia/Bangkok")
        frame = frame.with_columns((value if zone else value.dt.replace_time_zone(None)).alias("value"))
        checks = [(pl.col("value").is_null(), "bad_date")]
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


def _expression(contract: Contract, name: str, text: str) -> pl.Expr:
    try:
        return pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{contract.path.name}: the row rule {name!r} is not an expression: {error}") from error


def _no_rejects() -> pl.DataFrame:
    return pl.DataFrame(schema={ROW: pl.Int64, ORIGINAL: pl.String, "reasons": REASONS})


def _with_reasons(wrong: pl.DataFrame, codes: list[str]) -> pl.DataFrame:
    """Rejected rows with their reasons; a row that could not be taken apart has its flaw and nothing else."""
    found = []
    for row in wrong.iter_rows(named=True):
        flaw = [{"code": row[FLAW], "column": None, "value": None}]
        reasons = flaw if row["_flawed"] else list(_row_reasons(row, codes))
        found.append({ROW: row[ROW], ORIGINAL: row[ORIGINAL], "reasons": reasons})
    return pl.DataFrame(found, schema={ROW: pl.Int64, ORIGINAL: pl.String, "reasons": REASONS})


def _row_reasons(row: dict[str, str | None], codes: list[str]) -> Iterator[dict[str, str | None]]:
    for name in codes:
        if code := row[name]:
            kind, column, *_ = name.split(":")
            value = row[column] if kind == "reason" else None
            yield {"code": code, "column": column if kind == "reason" else None, "value": value}


def reasons_as_json(reasons: list[dict[str, str | None]]) -> str:
    """Reasons as they are kept in the quarantine."""
    return json.dumps(reasons, ensure_ascii=False)
