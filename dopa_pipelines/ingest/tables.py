"""The tables of a dataset, made and migrated from its contract: ``raw.<dataset>`` and ``quarantine.<dataset>``.

A contract may gain a column, rename one (``renamedFrom``) or retype one where PostgreSQL can cast every value; anything else is
refused with one sentence. Every change is part of the caller's transaction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest.history import COLUMNS as HISTORY_COLUMNS

Connection = psycopg.Connection[Any]
DropViews = Callable[[list[str]], None]
_RENAMED = re.compile(r"renamed (\w+) to (\w+)$")


@dataclass(frozen=True)
class Changes:
    """``created``: the table is new, and its key index is still to be made (``index_key``). ``words``: what changed in it."""

    created: bool
    words: list[str]


def is_decimal(kind: str) -> bool:
    return kind == "numeric"


def type_sql(kind: str) -> sql.Composable:
    """A column's type, which the contract's reader has checked; text sorts by code point everywhere."""
    return sql.SQL('text collate "C"') if kind == "text" else sql.SQL(kind)


def ensure_tables(connection: Connection, contract: Contract, drop_views: DropViews) -> Changes:
    """Make or migrate the dataset's tables.

    A column cannot change its type under a view: ``drop_views`` is called with the views that stand on the table, which the
    next dbt build makes anew. Raises UserError where a change cannot be made without losing data.
    """
    existing = _columns(connection, contract.dataset)
    if existing and not contract.has_history and "_valid_from" in existing:
        raise UserError(
            f"{contract.path.name}: raw.{contract.dataset} keeps a history that load mode {contract.load.mode} would destroy;"
            " keep mode history, or give the dataset another name"
        )
    if existing and contract.load.mode == "replace":
        _partition(connection, contract, drop_views)
    if not existing:
        _create(connection, contract)
        return Changes(True, [])
    if contract.has_history and "_valid_from" not in existing:
        _add_history(connection, contract)
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
    _change_key(connection, contract)
    _create_quarantine(connection, contract)
    return Changes(False, changes)


class Renames:
    """What the columns of a dataset are called today. ``words``: changes of the table that no write records yet."""

    def __init__(self, connection: Connection, contract: Contract, words: Iterable[str] = ()) -> None:
        writes = connection.execute(
            "select detail ->> 'delivery', detail -> 'changes' from lineage.write where target = %s order by id",
            (contract.table,),
        ).fetchall()
        self._renames: list[tuple[str, str]] = []
        self._before: dict[int, int] = {}
        for delivery, changes in [*writes, (None, list(words))]:
            if delivery is not None:
                self._before[int(delivery)] = len(self._renames)
            for change in changes or ():
                if found := _RENAMED.match(change):
                    self._renames.append((found[1], found[2]))

    def since(self, delivery: int, until: int | None = None) -> dict[str, str]:
        """Names of today, or of when delivery ``until`` was loaded, by those of when ``delivery`` was, where they are others."""
        names: dict[str, str] = {}
        for old, new in self._renames[self._before.get(delivery, 0) : None if until is None else self._before.get(until)]:
            names |= {name: new for name, now in names.items() if now == old}
            names.setdefault(old, new)
        return names


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
    own = sql.SQL(", ").join(sql.SQL(f"{name} {kind}") for name, kind in _own_columns(contract).items())
    # A dataset that is replaced whole has its rows in one partition, which the next delivery's takes the place of.
    kind = sql.SQL(" partition by list (_delivery_id)" if contract.load.mode == "replace" else "")
    connection.execute(sql.SQL("create table raw.{} ({}, {}){}").format(table, columns, own, kind))
    _create_quarantine(connection, contract)
    _describe(connection, contract)


def _own_columns(contract: Contract) -> dict[LiteralString, LiteralString]:
    """The platform's columns of a table, with their types."""
    own: dict[LiteralString, LiteralString] = {"_delivery_id": "bigint not null", "_row": "bigint not null"}
    return own | HISTORY_COLUMNS if contract.has_history else own


def _add_history(connection: Connection, contract: Contract) -> None:
    """Give a table of another mode its history: what it holds has held since the day of the delivery that brought it."""
    # None of these is a snapshot: what one brought may be a part of what held on its day.
    connection.execute(
        "update ops.delivery set business_date = coalesce(as_of, received_at::date), in_force = false"
        " where dataset = %s and status = 'loaded' and rows_held > 0",
        (contract.dataset,),
    )
    table = sql.Identifier("raw", contract.dataset)
    for name, kind in HISTORY_COLUMNS.items():
        connection.execute(
            sql.SQL("alter table {} add column {} {}").format(
                table, sql.Identifier(name), sql.SQL(kind.removesuffix(" not null"))
            )
        )
    connection.execute(
        sql.SQL(
            "update {} t set _recorded_by = d.id, _valid_from = coalesce(d.as_of, d.received_at::date)"
            " from ops.delivery d where d.id = t._delivery_id"
        ).format(table)
    )
    for name, kind in HISTORY_COLUMNS.items():
        if kind.endswith(" not null"):
            connection.execute(sql.SQL("alter table {} alter column {} set not null").format(table, sql.Identifier(name)))


def _describe(connection: Connection, contract: Contract) -> None:
    table = sql.Identifier(contract.dataset)
    comment = f"{contract.title_th} / {contract.description}"
    connection.execute(sql.SQL("comment on table raw.{} is {}").format(table, sql.Literal(comment)))
    for column in contract.columns:
        words = f"{column.business_name} / {column.description}"
        connection.execute(
            sql.SQL("comment on column raw.{}.{} is {}").format(table, sql.Identifier(column.name), sql.Literal(words))
        )


def _create_quarantine(connection: Connection, contract: Contract) -> None:
    """The table of rejected rows.

    ``fields``: the text of every column, to enforce it anew; ``corrected``: what its bureau made of it; ``replayed_by``: the
    delivery that loaded the row after all.
    """
    table = sql.Identifier("quarantine", contract.dataset)
    found = connection.execute(
        "select array_agg(attname::text) from pg_attribute where attrelid = to_regclass(%s) and attnum > 0",
        (f"quarantine.{contract.dataset}",),
    ).fetchone()
    if found and found[0] and "replayed_by" in found[0]:
        return
    if found and found[0]:
        connection.execute(
            sql.SQL(
                "alter table {} add column fields jsonb, add column corrected jsonb, add column replayed_by bigint,"
                " add column id bigint generated always as identity"
            ).format(table)
        )
        return
    connection.execute(
        sql.SQL(
            """
            create table {} (
                id bigint generated always as identity,
                delivery_id bigint not null, file text not null, row bigint not null, original text not null,
                reasons jsonb not null, fields jsonb, quarantined_at timestamptz not null default clock_timestamp(),
                corrected jsonb, replayed_by bigint
            )
            """
        ).format(table)
    )
    connection.execute(
        sql.SQL("create index {} on {} (delivery_id, row)").format(sql.Identifier(f"{contract.dataset}_delivery"), table)
    )


def index_key(connection: Connection, contract: Contract, table: sql.Identifier | None) -> None:
    """The key's unique index on ``table``, made anew where the key is another one than before. Raises UniqueViolation."""
    if table is None:
        return
    name = _key_index(connection, table)
    have, wanted = _key_of(connection, table), _wanted_key(contract)
    if have == wanted:
        return
    if have:
        connection.execute(sql.SQL("drop index raw.{}").format(sql.Identifier(name)))
    if contract.key:
        connection.execute(
            sql.SQL("create unique index {} on {} ({}) nulls not distinct{}").format(
                sql.Identifier(name),
                table,
                sql.SQL(", ").join(map(sql.Identifier, wanted)),
                sql.SQL(" where _superseded_by is null" if contract.has_history else ""),
            )
        )


def _key_index(connection: Connection, table: sql.Identifier) -> str:
    return table.as_string(connection).rsplit(".", 1)[-1].strip('"') + "_key"


def _key_of(connection: Connection, table: sql.Identifier) -> tuple[str, ...]:
    """Columns of the key's index on ``table``; none where it has none."""
    found = connection.execute(
        """
        select array_agg(a.attname::text order by k.place)
        from pg_index i
        cross join unnest(i.indkey) with ordinality as k(attnum, place)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where i.indexrelid = to_regclass(%s)
        """,
        (f"raw.{_key_index(connection, table)}",),
    ).fetchone()
    return tuple(found[0]) if found and found[0] else ()


def _change_key(connection: Connection, contract: Contract) -> None:
    """Make the key's index that of the contract. Raises UserError where what the table holds does not have such a key."""
    holder = _holder(connection, contract)
    # Rows that the delivery is going to replace need no index of its key, and must not keep another one.
    wanted = replace(contract, columns=()) if contract.load.mode == "replace" else contract
    if holder is None or _key_of(connection, holder) == _wanted_key(contract):
        return
    key = ", ".join(contract.key)
    refusal = UserError(
        f"{contract.path.name}: the key cannot become {key or 'none'}: rows of raw.{contract.dataset} are the same or hold at the"
        " same time by it; keep the key, or give the dataset another name"
    )
    try:
        index_key(connection, wanted, holder)
    except psycopg.errors.UniqueViolation as error:
        raise refusal from error
    if (
        contract.has_history
        and connection.execute(
            sql.SQL(
                """
            select from (
                select _valid_from, lag(coalesce(_valid_to, 'infinity')) over (partition by {} order by _valid_from) as before
                from {} where _superseded_by is null
            ) held where before > _valid_from limit 1
            """
            ).format(sql.SQL(", ").join(map(sql.Identifier, contract.key)), holder)
        ).fetchone()
    ):
        raise refusal


def _wanted_key(contract: Contract) -> tuple[str, ...]:
    # Of a dataset with history, a key stands once at a time, among what is believed now.
    return (*contract.key, "_valid_from") if contract.has_history else contract.key


def create_rows(connection: Connection, contract: Contract, delivery: int) -> sql.Identifier:
    """A table for the rows of a delivery that replaces all: nobody's yet, filled without a log, indexed at the end."""
    # The number is unique, so that the name may be cut.
    table = sql.Identifier("raw", f"{contract.dataset[:40]}__{delivery}")
    connection.execute(sql.SQL("create table {} (like {})").format(table, sql.Identifier("raw", contract.dataset)))
    return table


def put_rows(connection: Connection, contract: Contract, table: sql.Identifier) -> None:
    """Make ``table`` the rows of the dataset; the rows before are dropped."""
    parent = sql.Identifier("raw", contract.dataset)
    before = _holder(connection, contract)
    if before is not None:
        connection.execute(sql.SQL("alter table {} detach partition {}").format(parent, before))
        connection.execute(sql.SQL("drop table {}").format(before))
    connection.execute(sql.SQL("alter table {} attach partition {} default").format(parent, table))


def _holder(connection: Connection, contract: Contract) -> sql.Identifier | None:
    """The table that holds the dataset's rows: itself or its one partition; None where it has none yet."""
    row = connection.execute(
        """
        select t.relkind, p.relname
        from pg_class t
        left join pg_inherits i on i.inhparent = t.oid
        left join pg_class p on p.oid = i.inhrelid
        where t.oid = to_regclass(%s)
        """,
        (contract.table,),
    ).fetchone()
    if row is None or (row[0] == "p" and row[1] is None):
        return None
    return sql.Identifier("raw", row[1] if row[0] == "p" else contract.dataset)


def _partition(connection: Connection, contract: Contract, drop_views: DropViews) -> None:
    """Turn a table of its own into a partitioned one with its rows: the contract did not replace all before."""
    row = connection.execute("select relkind from pg_class where oid = to_regclass(%s)", (contract.table,)).fetchone()
    if row is None or row[0] != "r":
        return
    _drop_dependent(connection, contract, drop_views)
    name, old = sql.Identifier(contract.dataset), sql.Identifier(f"{contract.dataset[:40]}__0")
    connection.execute(sql.SQL("alter table raw.{} rename to {}").format(name, old))
    connection.execute(
        sql.SQL("alter index if exists raw.{} rename to {}").format(
            sql.Identifier(f"{contract.dataset}_key"), sql.Identifier(f"{contract.dataset[:40]}__0_key")
        )
    )
    connection.execute(
        sql.SQL("create table raw.{} (like raw.{} including comments) partition by list (_delivery_id)").format(name, old)
    )
    connection.execute(sql.SQL("alter table raw.{} attach partition raw.{} default").format(name, old))
    _describe(connection, contract)


def _drop_dependent(connection: Connection, contract: Contract, drop_views: DropViews) -> None:
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


def views_on(connection: Connection, contract: Contract) -> list[tuple[str, str]]:
    """Views that stand on the dataset's table, and on one another, with their text; in the order in which they can be made."""
    return connection.execute(
        """
        with recursive standing (view, depth) as (
            select to_regclass(%s)::oid, 0
            union
            select r.ev_class, s.depth + 1
            from standing s
            join pg_depend d on d.refobjid = s.view and d.classid = 'pg_rewrite'::regclass
            join pg_rewrite r on r.oid = d.objid and r.ev_class <> s.view
            join pg_class c on c.oid = r.ev_class and c.relkind = 'v'
        )
        select view::regclass::text, pg_get_viewdef(view) from standing where depth > 0 group by view order by max(depth)
        """,
        (contract.table,),
    ).fetchall()


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
    _drop_dependent(connection, contract, drop_views)
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
                f" {_without_value(error)}; give the column a new name, or correct the values first"
            ) from error
        changes.append(f"retyped {name} from {existing[name]} to {kind}")
    return changes


def _without_value(error: psycopg.Error) -> str:
    """What PostgreSQL says of values that do not fit, without the value, which may be a personal one."""
    return (error.diag.message_primary or "the values do not fit").split(': "')[0]
