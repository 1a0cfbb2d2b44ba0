"""Rules that need other rows: references and duplicates, settled by set operations on the rows just copied.

They run in the load's own transaction, on the temporary table ``incoming``. What a rule rejects is taken out of it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import psycopg
from psycopg import sql

from dopa_pipelines.contracts import Contract

Connection = psycopg.Connection[Any]
Reasons = dict[int, list[dict[str, str | None]]]


def settle(connection: Connection, contract: Contract) -> tuple[Reasons, list[str]]:
    """Reasons by row number of what was taken out of ``incoming``, and the references that could not be checked.

    A reference to a dataset that was never loaded cannot be checked; it is reported, not enforced.
    """
    reasons: Reasons = defaultdict(list)
    unchecked = _references(connection, contract, reasons)
    _take_out(connection, list(reasons))
    duplicates: Reasons = defaultdict(list)
    _duplicates(connection, contract, duplicates)
    _take_out(connection, list(duplicates))
    return reasons | duplicates, unchecked


def _references(connection: Connection, contract: Contract, reasons: Reasons) -> list[str]:
    unchecked = []
    for column in contract.columns:
        reference = column.reference
        if reference is None:
            continue
        own = reference.dataset == contract.dataset
        there = connection.execute("select to_regclass(%s) is not null", (f"raw.{reference.dataset}",)).fetchone()
        target = sql.Identifier("raw", reference.dataset)
        if not own and (
            not there or not there[0] or connection.execute(sql.SQL("select from {} limit 1").format(target)).fetchone() is None
        ):
            unchecked.append(f"{column.name} → {reference.dataset}.{reference.column}")
            continue
        value = sql.SQL("i.{}").format(sql.Identifier(column.name))
        if reference.length:
            value = sql.SQL("left({}, {})").format(value, sql.Literal(reference.length))
        rows = connection.execute(
            sql.SQL(
                """
                select i._row, i.{column}::text
                from incoming i
                where i.{column} is not null
                  and not exists (select from {target} r where r.{key} = {value})
                """
            ).format(
                column=sql.Identifier(column.name),
                target=sql.Identifier("incoming") if own else target,
                key=sql.Identifier(reference.column),
                value=value,
            )
        )
        for row, text in rows:
            reasons[row].append({"code": "unknown_reference", "column": column.name, "value": text})
    return unchecked


def _duplicates(connection: Connection, contract: Contract, reasons: Reasons) -> None:
    if not contract.key:
        return
    key = sql.SQL(", ").join(map(sql.Identifier, contract.key))
    chosen = {
        "first": sql.SQL("row_number() over (partition by {} order by _row) > 1"),
        "last": sql.SQL("row_number() over (partition by {} order by _row desc) > 1"),
        "none": sql.SQL("count(*) over (partition by {}) > 1"),
    }[contract.load.duplicates]
    rows = connection.execute(
        sql.SQL("select _row, {key} from (select *, {chosen} as extra from incoming) numbered where extra").format(
            key=key, chosen=chosen.format(key)
        )
    )
    for row, *values in rows:
        shown = " | ".join("" if value is None else str(value) for value in values)
        reasons[row].append({"code": "duplicate_key", "column": ", ".join(contract.key), "value": shown})


def _take_out(connection: Connection, rows: list[int]) -> None:
    if rows:
        connection.execute("delete from incoming where _row = any(%s)", (rows,))
