"""What can be said of a dataset after its loads: counts and reconciliation. Its rules are :mod:`dopa_pipelines.quality`'s."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
from psycopg import sql

from dopa_pipelines.contracts import Contract

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class TableFacts:
    """``rows``: in the table now. ``rows_recorded``: what it should hold by the records. ``write``: the latest recorded one."""

    exists: bool
    rows: int = 0
    rows_recorded: int = 0
    reconciled: bool = True
    write: int | None = None


def table_facts(connection: Connection, contract: Contract) -> TableFacts:
    """Counts of ``raw.<dataset>`` against the deliveries that it is made of.

    Reconciled: every delivery read = loaded + quarantined, the table holds exactly the rows of each that later ones did
    not replace, and the quarantine holds what each put there. Of a dataset with history: what is believed now of the day of every
    snapshot in force is as many rows as it loaded.
    """
    there = connection.execute("select to_regclass(%s) is not null", (contract.table,)).fetchone()
    if not there or not there[0]:
        return TableFacts(False)
    row = connection.execute(
        sql.SQL(
            """
            with held as (select _delivery_id as id, count(*) as held from {} group by 1),
            kept as (select delivery_id as id, count(*) as kept from quarantine.{} group by 1),
            delivered as (
                select d.id, d.rows_held, d.rows_read, d.rows_loaded, d.rows_quarantined,
                    coalesce(h.held, 0) as held, coalesce(k.kept, 0) as kept
                from ops.delivery d
                left join held h using (id)
                left join kept k using (id)
                where d.dataset = %(dataset)s and d.status = 'loaded'
            )
            select
                (select coalesce(sum(held), 0) from held)::bigint,
                coalesce(sum(rows_held), 0)::bigint,
                coalesce(bool_and(
                    rows_read = rows_loaded + rows_quarantined
                    and kept = rows_quarantined
                    and held = rows_held
                ), true)
                and not exists (select from held h where not exists (select from delivered d where d.id = h.id)),
                (select max(id) from lineage.write where target = %(target)s)
            from delivered
            """
        ).format(sql.Identifier("raw", contract.dataset), sql.Identifier(contract.dataset)),
        {"dataset": contract.dataset, "target": contract.table},
    ).fetchone()
    assert row is not None
    reconciled = bool(row[2]) and (not contract.has_history or _snapshots_hold(connection, contract))
    return TableFacts(True, int(row[0]), int(row[1]), reconciled, row[3])


def _snapshots_hold(connection: Connection, contract: Contract) -> bool:
    row = connection.execute(
        sql.SQL(
            """
            select coalesce(bool_and(s.rows = (
                select count(*) from {} t
                where t._superseded_by is null and t._valid_from <= s.day and (t._valid_to is null or t._valid_to > s.day)
            )), true)
            from (
                select business_date as day, sum(rows_loaded) as rows
                from ops.delivery where dataset = {} and status = 'loaded' and in_force group by 1
            ) s
            """
        ).format(sql.Identifier("raw", contract.dataset), sql.Literal(contract.dataset))
    ).fetchone()
    return bool(row and row[0])


def months_held(connection: Connection, contract: Contract) -> set[date]:
    """First days of the months of which a partitioned dataset holds rows."""
    if contract.partition is None or not table_facts(connection, contract).exists:
        return set()
    rows = connection.execute(
        sql.SQL("select distinct date_trunc('month', {})::date from {}").format(
            sql.Identifier(contract.partition.column), sql.Identifier("raw", contract.dataset)
        )
    )
    return {month for (month,) in rows}


def as_checks(
    contract: Contract, facts: TableFacts, problems: list[str], measured: list[dict[str, Any]], quarantined: int
) -> dict[str, Any]:
    """What the checks of a table found: ``assertions`` and ``metrics``, as events tell them; counts, no values of rows.

    What the load itself enforces (required columns, the key) is known without a look at the rows. ``measured``: the assertions of
    rules that were measured on the table.
    """
    assertions: list[dict[str, Any]] = [
        {"assertion": "contract", "success": not problems, "severity": "error", "actual": f"{quarantined} rows quarantined"},
        {
            "assertion": "reconciliation",
            "success": facts.reconciled,
            "severity": "error",
            "expected": str(facts.rows_recorded),
            "actual": str(facts.rows),
        },
    ]
    columns: dict[str, dict[str, int]] = {}
    if facts.exists:
        for column in contract.columns:
            if column.required:
                assertions.append({"assertion": "not_null", "success": True, "severity": "error", "column": column.name})
                columns.setdefault(column.name, {})["nullCount"] = 0
        if len(contract.key) == 1 and not contract.has_history:
            assertions.append({"assertion": "unique", "success": True, "severity": "error", "column": contract.key[0]})
            columns.setdefault(contract.key[0], {})["distinctCount"] = facts.rows
    assertions += measured
    metrics = {"rowCount": facts.rows, "columnMetrics": columns} if facts.exists else None
    return {"assertions": assertions, **({"metrics": metrics} if metrics else {})}
