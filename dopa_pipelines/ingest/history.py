"""Snapshots applied as differences: what held when (business time), and what was believed when (load time).

A row of ``raw.<dataset>`` says that its values held from ``_valid_from`` until before ``_valid_to`` (null: until further notice).
It was recorded by the delivery ``_recorded_by``; where a later one knew better it is not changed but ``_superseded_by`` that one.
What is believed now is therefore ``_superseded_by is null``, what holds now also ``_valid_to is null``. ``_delivery_id`` and
``_row`` say where the values first stood. The two times are those of bitemporal tables (Snodgrass, Developing Time-Oriented
Database Applications in SQL, 2000; SQL:2011).

A snapshot of day ``b`` decides the time from ``b`` until the next snapshot there is. So a snapshot that comes late changes just
its own stretch, and what is believed is the same in whatever order snapshots come. What a delivery is and when it is recorded is
not asked here: see :mod:`dopa_pipelines.ingest.load`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from dopa_pipelines.contracts import Contract

Connection = psycopg.Connection[Any]

COLUMNS: dict[LiteralString, LiteralString] = {
    "_valid_from": "date not null",
    "_valid_to": "date",
    "_recorded_by": "bigint not null",
    "_superseded_by": "bigint",
}
"""The columns that a table with history has besides the others, and their types."""


@dataclass(frozen=True)
class Difference:
    """Keys that the snapshot brought, whose values it changed, and that it has no more; ``same``: rows that it confirmed."""

    inserted: int
    updated: int
    closed: int
    same: int

    def as_note(self) -> dict[str, int]:
        return {"inserted": self.inserted, "updated": self.updated, "closed": self.closed, "same": self.same}


def covering(day: date) -> sql.Composed:
    """The condition that a row ``t`` is believed now and holds on ``day``."""
    return sql.SQL("t._superseded_by is null and t._valid_from <= {0} and (t._valid_to is null or t._valid_to > {0})").format(
        sql.Literal(day)
    )


def same_key(contract: Contract, *, absent: bool = False) -> sql.Composed:
    """The condition that the rows ``t`` and ``i`` have the same key, of a form that PostgreSQL can hash.

    Arrays are equal where both hold null; ``is not distinct from`` would compare every row with every other. ``absent``: key
    values may be absent also where the contract requires them, in rows that are older than it.
    """
    pairs = []
    for name in contract.key:
        plain = contract.column(name).required and not absent
        pairs.append(sql.SQL("t.{0} = i.{0}" if plain else "array[t.{0}] = array[i.{0}]").format(sql.Identifier(name)))
    return sql.SQL(" and ").join(pairs)


def count_on(connection: Connection, table: sql.Composable, day: date) -> int:
    """Rows that hold on ``day``, by what is believed now."""
    row = connection.execute(sql.SQL("select count(*) from {} t where {}").format(table, covering(day))).fetchone()
    return int(row[0]) if row else 0


def next_snapshot(connection: Connection, dataset: str, day: date, before: int | None = None) -> date | None:
    """Day of the first snapshot after ``day``; of those up to delivery ``before`` only, where it is given."""
    row = connection.execute(
        """
        select min(business_date) from ops.delivery
        where dataset = %s and status = 'loaded' and business_date > %s and (%s::bigint is null or id < %s)
        """,
        (dataset, day, before, before),
    ).fetchone()
    return row[0] if row else None


def apply_snapshot(
    connection: Connection,
    contract: Contract,
    table: sql.Composable,
    incoming: sql.Composable,
    *,
    delivery: int,
    day: date,
    until: date | None,
    whole: bool = True,
    absent: bool = False,
) -> Difference:
    """Make ``table`` say of the days from ``day`` until before ``until`` what ``incoming`` says.

    ``incoming``: the contract's columns and ``_row``, one row a key. ``until``: the next snapshot's day, None if there is none.
    ``whole``: keys that are not in ``incoming`` did not exist; otherwise they are left as they are. ``absent``: see
    :func:`same_key`.
    """
    return _Snapshot(connection, contract, table, incoming, delivery, day, until, whole, absent).apply()


class _Snapshot:
    def __init__(
        self,
        connection: Connection,
        contract: Contract,
        table: sql.Composable,
        incoming: sql.Composable,
        delivery: int,
        day: date,
        until: date | None,
        whole: bool,
        absent: bool,
    ) -> None:
        self.connection = connection
        values = [name for name, _ in contract.table_columns]
        self.whole = whole
        self.parts: dict[str, sql.Composable] = {
            "table": table,
            "incoming": incoming,
            "columns": sql.SQL(", ").join(map(sql.Identifier, values)),
            "new_columns": sql.SQL(", ").join(sql.SQL("i.{}").format(sql.Identifier(name)) for name in values),
            "covering": covering(day),
            # Literals: a statement that makes a table takes no parameters.
            "day": sql.Literal(day),
            "until": sql.SQL("{}::date").format(sql.Literal(until)),
            "delivery": sql.Literal(delivery),
        }
        self.same_key = same_key(contract, absent=absent)
        self.values = values

    def run(self, statement: LiteralString) -> None:
        self.connection.execute(sql.SQL(statement).format(**self.parts))

    def differs(self) -> sql.Composed:
        sides = [
            sql.SQL("row({})").format(sql.SQL(", ").join(sql.Identifier(alias, name) for name in self.values))
            for alias in ("t", "i")
        ]
        return sql.SQL(" is distinct from ").join(sides)

    def apply(self) -> Difference:
        self.parts |= {
            "same_key": self.same_key,
            "differs": self.differs(),
            "gone": sql.SQL("i._row is null or" if self.whole else ""),
            "join": sql.SQL("left join" if self.whole else "join"),
        }
        # What the snapshot contradicts. No column of a contract begins with _.
        self.run(
            """
            create temporary table contradicted on commit drop as
            select t.*, t.ctid as _place, i._row is null as _closed
            from {table} t {join} {incoming} i on {same_key}
            where {covering} and ({gone} {differs})
            """
        )
        # What it says anew; a row that says the same about the time just before or just after is one with it.
        self.run(
            """
            create temporary table said on commit drop as
            with held as (select t.* from {table} t where {covering})
            select i.*, t._row is not null as _replaces
            from {incoming} i left join held t on {same_key}
            where t._row is null or {differs}
            """
        )
        self.run("analyze said")
        self.run(
            """
            create temporary table neighbours on commit drop as
            select i.ctid as said, t._valid_from, t._valid_to, t._delivery_id, t._row, t.ctid as place,
                t._valid_to is not distinct from {day} as before
            from said i join {table} t on {same_key}
            where t._superseded_by is null and (t._valid_to = {day} or t._valid_from = {until}) and not ({differs})
            """
        )
        # All of it is worked out before the first row is marked: places of rows change when they are.
        self.run(
            """
            create temporary table recorded on commit drop as
            select {columns}, _delivery_id, _row, _valid_from, {day} as _valid_to
            from contradicted where _valid_from < {day}
            union all
            select {columns}, _delivery_id, _row, {until}, _valid_to
            from contradicted where {until} is not null and (_valid_to is null or _valid_to > {until})
            union all
            select {new_columns}, coalesce(b._delivery_id, {delivery}), coalesce(b._row, i._row),
                coalesce(b._valid_from, {day}), case when a.said is null then {until} else a._valid_to end
            from said i
            left join neighbours b on b.said = i.ctid and b.before
            left join neighbours a on a.said = i.ctid and not a.before
            """
        )
        self.run(
            """
            update {table} t set _superseded_by = {delivery}
            where t.ctid in (select _place from contradicted union all select place from neighbours)
            """
        )
        self.run(
            """
            insert into {table} ({columns}, _delivery_id, _row, _valid_from, _valid_to, _recorded_by)
            select {columns}, _delivery_id, _row, _valid_from, _valid_to, {delivery}
            from recorded order by _valid_from, _delivery_id, _row
            """
        )
        row = self.connection.execute(
            sql.SQL(
                """
                select
                    (select count(*) from said where not _replaces),
                    (select count(*) from said where _replaces),
                    (select count(*) from contradicted where _closed),
                    (select count(*) from {incoming}) - (select count(*) from said)
                """
            ).format(**self.parts)
        ).fetchone()
        assert row is not None
        for name in ("contradicted", "said", "neighbours", "recorded"):
            self.run(f"drop table {name}")
        return Difference(*map(int, row))
