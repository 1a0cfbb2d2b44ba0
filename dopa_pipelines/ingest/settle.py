"""Rules that need other rows: references and duplicates, settled by set operations on the rows just copied.

They run in the load's own transaction, on the table that holds the delivery's rows. What a rule rejects is taken out of it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import psycopg
from psycopg import sql

from dopa_pipelines.contracts import Contract

Connection = psycopg.Connection[Any]
Reasons = dict[int, list[dict[str, str | None]]]


def settle_references(connection: Connection, contract: Contract, incoming: sql.Composable) -> tuple[Reasons, list[str]]:
    """Reasons by row number of what was taken out of ``incoming`` (a table of just the delivery), and the references unchecked.

    A reference to a dataset that was never loaded cannot be checked; it is reported, not enforced.
    """
    reasons: Reasons = defaultdict(list)
    unchecked = _references(connection, contract, incoming, reasons)
    _take_out(connection, incoming, list(reasons))
    return reasons, unchecked


def settle_duplicates(connection: Connection, contract: Contract, incoming: sql.Composable) -> Reasons:
    """Reasons by row number of the rows that were taken out of ``incoming`` because others have the same key."""
    reasons: Reasons = defaultdict(list)
    _duplicates(connection, contract, incoming, reasons)
    _take_out(connection, incoming, list(reasons))
    return reasons


def _references(connection: Connection, contract: Contract, incoming: sql.Composable, reasons: Reasons) -> list[str]:
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
        history = connection.execute(
            "select count(*) from pg_attribute where attrelid = to_regclass(%s) and attname = '_superseded_by'",
            (f"raw.{reference.dataset}",),
        ).fetchone()
        # What was corrected away is believed no more.
        believed = sql.SQL("and r._superseded_by is null" if not own and history and history[0] else "")
        rows = connection.execute(
            sql.SQL(
                """
                select i._row, i.{column}::text
                from {incoming} i
                where i.{column} is not null
                  and not exists (select from {target} r where r.{key} = {value} {believed})
                """
            ).format(
                column=sql.Identifier(column.name),
                incoming=incoming,
                target=incoming if own else target,
                key=sql.Identifier(reference.column),
                value=value,
                believed=believed,
            )
        )
        for row, text in rows:
            reasons[row].append({"code": "unknown_reference", "column": column.name, "value": text})
    return unchecked


def _duplicates(connection: Connection, contract: Contract, incoming: sql.Composable, reasons: Reasons) -> None:
    if not contract.key:
        return
    key = sql.SQL(", ").join(map(sql.Identifier, contract.key))
    # A hash of the keys tells at once that there are none; sorting them all is for the rare delivery that has some.
    some = connection.execute(
        sql.SQL("select from {incoming} group by {key} having count(*) > 1 limit 1").format(incoming=incoming, key=key)
    ).fetchone()
    if some is None:
        return
    chosen = {
        "first": sql.SQL("row_number() over (partition by {} order by _row) > 1"),
        "last": sql.SQL("row_number() over (partition by {} order by _row desc) > 1"),
        "none": sql.SQL("count(*) over (partition by {}) > 1"),
    }[contract.load.duplicates]
    rows = connection.execute(
        sql.SQL("select _row, {key} from (select *, {chosen} as extra from {incoming}) numbered where extra").format(
            incoming=incoming, key=key, chosen=chosen.format(key)
        )
    )
    for row, *values in rows:
        shown = " | ".join("" if value is None else str(value) for value in values)
        reasons[row].append({"code": "duplicate_key", "column": ", ".join(contract.key), "value": shown})


def _take_out(connection: Connection, incoming: sql.Composable, rows: list[int]) -> None:
    if rows:
        connection.execute(sql.SQL("delete from {} where _row = any(%s)").format(incoming), (rows,))
