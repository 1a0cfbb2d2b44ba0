"""The rules of a contract as one list: those that enforcement applies to each row, and those measured after the load.

What a rule is, and whether its expressions can be right, belongs here; measuring is :mod:`dopa_pipelines.quality.measure`'s and
:mod:`dopa_pipelines.quality.checking`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from dopa_pipelines.contracts import Column, Contract
from dopa_pipelines.contracts.model import Dimension, Limit, RuleKind, Severity, TableRule
from dopa_pipelines.contracts.read_rules import ENFORCED, NATIONAL_DIMENSIONS
from dopa_pipelines.documents import Problem, did_you_mean

NO_ROW = Limit(equal=0)
SCHEMA = TableRule(
    "schema", "schema", NO_ROW, "warn", description="The delivery has the columns of the contract and no others.",
    description_th="ข้อมูลที่ส่งมามีคอลัมน์ตรงตามสัญญาข้อมูล", dimension="consistency", indicator="2.1",
)  # fmt: skip
"""Measured of every dataset."""

_FORMAT_CODES = (
    "bad_number", "bad_date", "impossible_date", "bad_check_digit", "bad_length", "bad_pattern", "too_long", "mojibake",
)  # fmt: skip
_RANGE_CODES = ("out_of_range", "future_date")
_USUAL: dict[str, tuple[Dimension, str]] = {
    "required": ("accuracy_completeness", "1.3"), "format": ("consistency", "2.2"), "range": ("accuracy_completeness", "1.2"),
    "values": ("consistency", "2.5"), "reference": ("consistency", "2.4"),
}  # fmt: skip
_WORDS: dict[str, tuple[str, str]] = {
    "required": ("{0} is there", "ต้องมี{1}"),
    "format": ("{0} has its form", "{1}มีรูปแบบถูกต้อง"),
    "range": ("{0} is within its limits", "{1}อยู่ในช่วงที่กำหนด"),
    "values": ("{0} is one of the contract's values", "{1}อยู่ในรายการที่กำหนด"),
    "reference": ("{0} exists in {2}", "{1}มีอยู่ในทะเบียน {2}"),
}


@dataclass(frozen=True)
class Rule:
    """One rule of a dataset.

    ``codes``: the reason codes of the rows that enforcement rejects for it; empty where it is measured. ``measured``: the
    contract's rule in that case.
    """

    dataset: str
    name: str
    kind: RuleKind
    dimension: Dimension
    indicator: str | None
    severity: Severity
    column: str | None = None
    description: str = ""
    description_th: str = ""
    limit: Limit = NO_ROW
    codes: tuple[str, ...] = ()
    group: str = ""
    """The check that shows it: rules that enforcement has of columns are shown together by kind."""
    measured: TableRule | None = None


def rules_of(contract: Contract) -> list[Rule]:
    """All rules of a dataset: enforced ones by column, then those of rows and of the delivery, then measured ones."""
    rules = [rule for column in contract.columns for rule in _of_column(contract, column)]
    rules += _of_delivery(contract)
    rules += [
        Rule(
            contract.dataset, item.name, "row", item.dimension, item.indicator, "reject", None, item.description,
            item.description_th, codes=(f"row_rule:{item.name}",), group=item.name,
        )
        for item in contract.row_rules
    ]  # fmt: skip
    rules += [
        Rule(
            contract.dataset, item.name, item.kind, item.dimension, item.indicator, item.severity, item.column, item.description,
            item.description_th, item.limit, group=item.name, measured=item,
        )
        for item in measured_rules(contract)
    ]  # fmt: skip
    return rules


def measured_rules(contract: Contract) -> list[TableRule]:
    """The rules that are measured after a load: the contract's, and what is measured of every dataset."""
    return [SCHEMA, *contract.table_rules]


def _of_column(contract: Contract, column: Column) -> Iterator[Rule]:
    limited = column.minimum is not None or column.maximum is not None
    listed = bool(column.valid_values) or column.logical_type == "boolean"
    there: dict[str, tuple[bool, tuple[str, ...]]] = {
        "required": (column.required, ("missing",)),
        "format": (True, _FORMAT_CODES if limited else (*_FORMAT_CODES, *_RANGE_CODES)),
        "range": (limited, _RANGE_CODES),
        "values": (listed, ("not_in_list",)),
        "reference": (column.reference is not None, ("unknown_reference",)),
    }
    stated = {end: (dimension, indicator) for end, dimension, indicator in column.national}
    to = f"{column.reference.dataset}.{column.reference.column}" if column.reference else ""
    for end, (is_there, codes) in there.items():
        if not is_there:
            continue
        dimension, indicator = _USUAL[end]
        if end in stated:
            dimension, said = stated[end]
            indicator = said or _fitting(dimension, indicator) or ""
        words, words_th = _WORDS[end]
        name = column.business_name or column.name
        yield Rule(
            contract.dataset, f"{column.name}_{end}", _kind(ENFORCED[end]), dimension, indicator or None, "reject", column.name,
            words.format(column.name, name, to), words_th.format(column.name, name, to), codes=codes, group=end,
        )  # fmt: skip


def _of_delivery(contract: Contract) -> Iterator[Rule]:
    if contract.key:
        names = ", ".join(contract.key)
        yield Rule(
            contract.dataset, "key_unique", "unique", "consistency", "2.3", "reject", None, f"One row for each {names}",
            f"ไม่มีแถวซ้ำของ {names}", codes=("duplicate_key",), group="unique",
        )  # fmt: skip
    yield Rule(
        contract.dataset, "lines_readable", "pattern", "consistency", "2.2", "reject", None,
        "Each line can be read and taken apart", "อ่านและแยกคอลัมน์ได้ทุกบรรทัด", codes=("ragged_line", "undecodable"),
        group="lines_readable",
    )  # fmt: skip
    dates = {name for name, kind in contract.table_columns if kind == "date"}
    if contract.layout.period and any(part.column in dates for part in contract.load.scope):
        yield Rule(
            contract.dataset, "period_matches", "range", "consistency", "2.4", "reject", None,
            "Each row is of the month that the file's name states", "ทุกแถวเป็นของเดือนตามชื่อไฟล์", codes=("out_of_scope",),
            group="period_matches",
        )  # fmt: skip


def _kind(kind: str) -> RuleKind:
    found: dict[str, RuleKind] = {
        "required": "required", "pattern": "pattern", "range": "range", "values": "values", "reference": "reference",
    }  # fmt: skip
    return found[kind]


def _fitting(dimension: Dimension, indicator: str) -> str | None:
    return indicator if indicator[0] == str(NATIONAL_DIMENSIONS.index(dimension) + 1) else None


def problems(contracts: Iterable[Contract]) -> Iterator[Problem]:
    """Where an expression of a rule is no SQL, or names a column that is not there; with file and line.

    Raises nothing. Row rules are read as Polars reads them, the others as PostgreSQL does.
    """
    import dopa_pipelines.lineage.columns  # noqa: F401 - imports the parser of SQL without its warning

    known = {contract.dataset: contract for contract in contracts}
    for contract in known.values():
        own = {name for name, _ in contract.table_columns}
        for row in contract.row_rules:
            yield from (Problem(contract.path, row.line, f"rule {row.name!r}: {text}") for text in _polars(row.expression, own))
        for rule in contract.table_rules:
            others = {name for set_ in rule.datasets if set_ in known for name, _ in known[set_].table_columns}
            for what, expression, tables in _expressions(rule, own, others):
                for text in _postgres(expression, tables, whole=what == "query"):
                    yield Problem(contract.path, rule.line, f"rule {rule.name!r}, {what}: {text}")


Tables = dict[str, set[str]]


def _expressions(rule: TableRule, own: set[str], others: set[str]) -> Iterator[tuple[str, str, Tables]]:
    """What, SQL, and the columns that it may name by alias (``""``: without one)."""
    arguments = rule.arguments
    single = {"": own, "this": own}
    if rule.kind == "sql":
        yield "query", str(arguments["query"]).replace("{table}", "this").replace("{object}", "this"), {}
        return
    for key in ("where", "whole", "parts"):
        if arguments.get(key):
            yield key, str(arguments[key]), single
    if arguments.get("expression"):
        joined = bool(rule.datasets)
        yield "expression", str(arguments["expression"]), {"this": own, "other": others} if joined else single
    sides: tuple[tuple[Literal["here", "there"], set[str]], ...] = (("here", own), ("there", others))
    for side, columns in sides:
        given: dict[str, Any] = arguments.get(side) or {}
        texts = [given.get("value"), given.get("where"), *(given.get("by") or [])]
        for text in filter(None, texts):
            yield side, str(text), {"": columns, "this": columns}


def _polars(expression: str, columns: set[str]) -> list[str]:
    import polars as pl

    try:
        names = pl.sql_expr(expression).meta.root_names()
    except pl.exceptions.PolarsError as error:
        return [f"is not an expression: {str(error).splitlines()[0]}"]
    return [f"names unknown column {name!r}; {did_you_mean(name, columns)}" for name in names if name not in columns]


def _postgres(text: str, tables: Tables, *, whole: bool) -> list[str]:
    import sqlglot
    from sqlglot import exp

    try:
        tree = sqlglot.parse_one(text, dialect="postgres") if whole else sqlglot.parse_one(f"select {text}", dialect="postgres")
    except sqlglot.errors.SqlglotError as error:
        return [f"is not SQL: {str(error).splitlines()[0]}"]
    if whole:
        return [] if isinstance(tree, exp.Query) else ["must be one select"]
    clauses = any(tree.args.get(part) for part in ("from_", "from", "where", "group"))
    if not isinstance(tree, exp.Select) or len(tree.expressions) != 1 or clauses:
        return ["must be one expression"]
    found = []
    for column in tree.find_all(exp.Column):
        if column.find_ancestor(exp.Subquery, exp.Exists):
            continue  # a query within it has tables of its own
        alias = column.table
        if alias not in tables:
            known = " or ".join(name for name in tables if name)
            found.append(f"column {column.sql()!r} must be named with {known}")
        elif column.name not in tables[alias]:
            found.append(f"names unknown column {column.name!r}; {did_you_mean(column.name, tables[alias])}")
    return found
