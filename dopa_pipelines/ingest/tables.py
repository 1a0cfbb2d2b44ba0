"""The tables of a dataset, made and migrated from its contract: ``raw.<dataset>`` and ``quarantine.<dataset>``.

A contract may gain a column, rename one (``renamedFrom``) or retype one where PostgreSQL can cast every value; anything else is
refused with one sentence. Every change is part of the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import UserError

Connection = psycopg.Connection[Any]
DropViews = Callable[[list[str]], None]


def is_decimal(kind: str) -> bool:
    return kind == "numeric"


def type_sql(kind: str) -> sql.Composable:
    """A column's type, which the contract's reader has checked; text sorts by code point everywhere."""
    return sql.SQL('text collate "C"') if kind == "text" else sql.SQL(kind)


def ensure_tables(connection: Connection, contract: Contract, drop_views: DropViews) -> list[str]:
    """Make or migrate the dataset's tables; returns what changed in words, empty where nothing did.

    A column cannot change its type under a view: ``drop_views`` is called with the views that stand on the table, which the
    next dbt build makes anew. Raises UserError where a change cannot be made without losing data.
    """
    existing = _columns(connection, contract.dataset)
    if not existing:
        _create(connection, contract)
        return []
    wanted = dict(contract.table_columns)
    changes = _rename(connection, contract, existing, wanted)
    for name, kind in wanted.items():
        if name not in existing:
            connection.execute(
                sql.SQL("alter table raw.{} add column {} {}").format(
                    sql.Identifier(contract.dataset), sql.Identifier(name), type_sql(kind)
                )
            )
            changes.append(f"added {name} {kind}")
    retyped = {name: kind for name, kind in wanted.items() if name in existing and not _same(existing[name], kind)}
    if retyped:
        changes += _retype(connection, contract, existing, retyped, drop_views)
    gone = [name for name in existing if name not in wanted and not name.startswith("_")]
    if gone:
        raise UserError(
            f"{contract.path.name}: raw.{contract.dataset} has the column {', '.join(gone)} that the contract no longer names;"
            " name the column it became in renamedFrom, or keep it in the contract: a column with data is never dropped"
        )
    if changes:
        _index(connection, contract)
    return changes


def _columns(connection: Connection, dataset: str) -> dict[str, str]:
    rows = connection.execute(
        """
        select a.attname, format_type(a.atttypid, a.atttypmod)
        from pg_attribute a
        where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped
        order by a.attnum
        """,
        (f"raw.{dataset}",),
    ).fetchall()
    return dict(rows)


def _same(have: str, want: str) -> bool:
    names = {
        "timestamp": "timestamp without time zone",
        "timestamptz": "timestamp with time zone",
    }
    return have.replace(" ", "") == names.get(want, want).replace(" ", "")


def _create(connection: Connection, contract: Contract) -> None:
    table = sql.Identifier(contract.dataset)
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), type_sql(kind)) for name, kind in contract.table_columns
    )
    connection.execute(
        sql.SQL("create table raw.{} ({}, _delivery_id bigint not null, _row bigint not null)").format(table, columns)
    )
    connection.execute(
        sql.SQL(
            """
            create table if not exists quarantine.{} (
                delivery_id bigint not null, file text not null, row bigint not null, original text not null,
                reasons jsonb not null, quarantined_at timestamptz not null default clock_timestamp()
            )
            """
        ).format(table)
    )
    connection.execute(
        sql.SQL("create index if not exists {} on quarantine.{} (delivery_id, row)").format(
            sql.Identifier(f"{contract.dataset}_delivery"), table
        )
    )
    _index(connection, contract)
    comment = f"{contract.title_th} / {contract.description}"
    connection.execute(sql.SQL("comment on table raw.{} is {}").format(table, sql.Literal(comment)))
    for column in contract.columns:
        words = f"{column.business_name} / {column.description}"
        connection.execute(
            sql.SQL("comment on column raw.{}.{} is {}").format(table, sql.Identifier(column.name), sql.Literal(words))
        )


def _index(connection: Connection, contract: Contract) -> None:
    """The key's unique index, made anew where the key is another one than before."""
    name = f"{contract.dataset}_key"
    found = connection.execute(
        """
        select array_agg(a.attname::text order by k.place)
        from pg_index i
        cross join unnest(i.indkey) with ordinality as k(attnum, place)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where i.indexrelid = to_regclass(%s)
        """,
        (f"raw.{name}",),
    ).fetchone()
    have = tuple(found[0]) if found and found[0] else ()
    if have == contract.key:
        return
    if have:
        connection.execute(sql.SQL("drop index raw.{}").format(sql.Identifier(name)))
    if contract.key:
        connection.execute(
            sql.SQL("create unique index {} on raw.{} ({}) nulls not distinct").format(
                sql.Identifier(name),
                sql.Identifier(contract.dataset),
                sql.SQL(", ").join(map(sql.Identifier, contract.key)),
            )
        )


def _rename(connection: Connection, contract: Contract, existing: dict[str, str], wanted: dict[str, str]) -> list[str]:
    changes = []
    for column in contract.columns:
        old = column.renamed_from
        if not old or old not in existing or old in wanted:
            continue
        for name, _ in column.table_columns:
            before = old + name.removeprefix(column.name)
            if before in existing and name not in existing:
                connection.execute(
                    sql.SQL("alter table raw.{} rename column {} to {}").format(
                        sql.Identifier(contract.dataset), sql.Identifier(before), sql.Identifier(name)
                    )
                )
                existing[name] = existing.pop(before)
                changes.append(f"renamed {before} to {name}")
    return changes


def _retype(
    connection: Connection, contract: Contract, existing: dict[str, str], retyped: dict[str, str], drop_views: DropViews
) -> list[str]:
    views = connection.execute(
        """
        select distinct v.oid::regclass::text
        from pg_depend d
        join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
        join pg_class v on v.oid = r.ev_class and v.relkind = 'v'
        where d.refobjid = to_regclass(%s)
        """,
        (contract.table,),
    ).fetchall()
    if views:
        drop_views([view for (view,) in views])
    changes = []
    for name, kind in retyped.items():
        try:
            connection.execute(
                sql.SQL("alter table raw.{} alter column {} type {} using {}::{}").format(
                    sql.Identifier(contract.dataset),
                    sql.Identifier(name),
                    type_sql(kind),
                    sql.Identifier(name),
                    sql.SQL(kind),
                )
            )
        except (psycopg.DataError, psycopg.errors.CannotCoerce) as error:
            raise UserError(
                f"{contract.path.name}: raw.{contract.dataset}.{name} cannot change from {existing[name]} to {kind}:"
                f" {error.diag.message_primary}; give the column a new name, or correct the values first"
            ) from error
        changes.append(f"retyped {name} from {existing[name]} to {kind}")
    return changes
