"""The derived class of everything in the warehouse, kept up to date: a table, and the comments of tables and columns.

Belongs here: deriving anew where code, contracts, declarations or the rules changed, and saying it where people look. Does not
belong here: how it is derived (:mod:`.classification`, :mod:`.recorded`), and reading it (``lineage.classes``).

Derived is what was recorded, of production. Where nothing changed, it costs two queries. Whatever is missed (a table that is
being replaced just now) is made up for the next time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from dopa_pipelines.governance.classification import Classified
from dopa_pipelines.governance.recorded import recorded_all
from dopa_pipelines.lineage.classes import Class, classes_of, most_protected, with_class
from dopa_pipelines.warehouse import Role, Warehouse

Connection = psycopg.Connection[Any]

_TURN = 0x646F7061_636C7373
"""Any number: who derives takes turns on this advisory lock."""
_RULES = ("classification.py", "recorded.py", "derived.py")

# The last write of every table and release of production.
_LAST = """
select w.target, w.kind, w.code ->> 'checksum' as checksum, coalesce(w.detail -> 'said', '{}') as said, w.inputs,
    coalesce(w.detail -> 'columns', '[]') as columns
from (select distinct target from lineage.write where environment = 'production') t
cross join lateral (
    select *
    from lineage.write l
    where l.target = t.target and l.environment = 'production' and l.kind in ('load', 'model', 'release')
        and l.detail ->> 'superseded' is distinct from 'true'
    order by l.id desc
    limit 1
) w
order by w.target
"""

_COMMENTS = """
select n.nspname || '.' || c.relname, c.relkind, a.attname, pg_catalog.obj_description(c.oid, 'pg_class'),
    pg_catalog.col_description(c.oid, a.attnum)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname || '.' || c.relname = any(%s)
order by c.oid, a.attnum
"""
_KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table"}
# Somebody else is at the table, or it is just being replaced; or nobody here may comment on it.
_LATER = (
    psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn, psycopg.errors.InternalError, psycopg.errors.InsufficientPrivilege,
)  # fmt: skip


def derive(connection: Connection) -> bool:
    """Bring ``governance.classified`` to what the recorded writes make it; whether anything of it was derived anew.

    Part of the caller's transaction, which must be read committed.
    """
    if _marks(_last(connection)) == _known_marks(connection):
        return False
    connection.execute("select pg_advisory_xact_lock(%s)", (_TURN,))
    # Who waited may find that another has derived it meanwhile.
    last = _last(connection)
    marks, known = _marks(last), _known_marks(connection)
    if marks == known:
        return False
    targets = [row["target"] for row in last if row["kind"] != "release"]
    if marks[0] == known[0]:
        # Releases alone are new: what they are made of is what it was.
        held = classes_of(connection, targets)
        found = [(target, item) for target, columns in held.items() for item in columns.values()]
    else:
        found = list(_derived(recorded_all(connection, targets), set(targets)))
    found += _of_releases(last, {(target, item.column): item for target, item in found})
    _store(connection, found)
    connection.execute(
        "insert into governance.classified_from (mark) values (%s) on conflict (single) do update set mark = excluded.mark",
        (" ".join(marks),),
    )
    return True


def _last(connection: Connection) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_LAST.encode()).fetchall()


def _known_marks(connection: Connection) -> list[str]:
    row = connection.execute("select mark from governance.classified_from").fetchone()
    return row[0].split() if row else [""]


def _marks(last: list[dict[str, Any]]) -> list[str]:
    """What tables are derived from, and releases."""
    told: list[list[Any]] = [[], []]
    for row in last:
        released = row["kind"] == "release"
        told[released].append([row["target"], row["kind"], row["checksum"], row["said"], row["columns"] if released else None])
    return [hashlib.sha256(json.dumps([_rules(), some], sort_keys=True).encode()).hexdigest() for some in told]


@cache
def _rules() -> str:
    """Digest of the rules: a rule that is mended holds for what was built before as well."""
    digest = hashlib.sha256()
    rules = [files("dopa_pipelines.governance") / name for name in _RULES]
    rules += [file for file in files("dopa_pipelines.lineage.columns").iterdir() if file.name.endswith(".py")]
    for file in sorted(rules, key=lambda file: file.name):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _derived(classified: Classified, targets: set[str]) -> Iterator[tuple[str, Class]]:
    for item in classified.all():
        if item.dataset in targets:
            yield (
                item.dataset,
                Class(
                    item.column, item.what, item.level, item.role, tuple(map(str, item.path)), tuple(map(str, item.indirect)),
                    item.problem,
                ),
            )  # fmt: skip


def _of_releases(last: list[dict[str, Any]], known: Mapping[tuple[str, str], Class]) -> Iterator[tuple[str, Class]]:
    """What passed the gate: counts of people and their keys are protected, what is internal is approved, so both are open."""
    for row in last:
        if row["kind"] != "release" or len(row["inputs"]) != 1:
            continue
        source = str(row["inputs"][0]["name"])
        for item in row["columns"]:
            made = known.get((source, str(item.get("source"))))
            if made is not None:
                level = "personal" if made.what == "generalised" else made.level if made.protected else "open"
                path = (*made.path, f"{row['target']}.{item['name']}")
                yield row["target"], Class(item["name"], made.what, level, made.role, path, made.indirect, made.problem)


def _store(connection: Connection, found: list[tuple[str, Class]]) -> None:
    """Make the table hold ``found``; what is as before is left alone."""
    place: Counter[str] = Counter()
    told = []
    for target, item in found:
        told.append(
            {
                "target": target, "name": item.column, "place": place[target], "what": item.what, "level": item.level,
                "role": item.role, "path": item.path, "indirect": item.indirect, "problem": item.problem,
            }
        )  # fmt: skip
        place[target] += 1
    connection.execute(
        """
        with told as (
            select t.target, t.name, t.place, t.what, t.level, t.role, t.path, t.indirect, t.problem
            from jsonb_to_recordset(%s) as t (
                target text, name text, place integer, what text, level text, role text, path text[], indirect text[],
                problem text
            )
        ), gone as (
            delete from governance.classified c
            where not exists (select from told t where t.target = c.target and t.name = c.name)
        )
        insert into governance.classified as c (target, name, place, what, level, role, path, indirect, problem)
        select target, name, place, what, level, role, path, indirect, problem from told
        on conflict (target, name) do update
        set place = excluded.place, what = excluded.what, level = excluded.level, role = excluded.role, path = excluded.path,
            indirect = excluded.indirect, problem = excluded.problem,
            since = case
                when (c.what, c.level, c.path) is distinct from (excluded.what, excluded.level, excluded.path)
                    then clock_timestamp()
                else c.since
            end
        where (c.place, c.what, c.level, c.role, c.path, c.indirect, c.problem) is distinct from
            (excluded.place, excluded.what, excluded.level, excluded.role, excluded.path, excluded.indirect, excluded.problem)
        """,
        (Jsonb(told),),
    )


# Comments


def comment(warehouse: Warehouse) -> int:
    """Put the classes into the comments of tables, views and their columns; returns how many comments were written.

    What a comment said before stands first. A comment that says it already is left alone, and so is a table that is in use.
    """
    with warehouse.connect(Role.READER, autocommit=True) as connection:
        known = classes_of(connection)
        found = connection.execute(_COMMENTS.encode(), (list(known),)).fetchall()
    wanted: dict[str, list[sql.Composed]] = {}
    for target, statement in _comments(known, found):
        wanted.setdefault(target, []).append(statement)
    written = 0
    for role in (Role.LOADER, Role.TRANSFORMER):
        own = [target for target in wanted if target.startswith("raw.") == (role is Role.LOADER)]
        if not own:
            continue
        with warehouse.connect(role) as connection:
            for target in own:
                try:
                    connection.execute("set local lock_timeout = '500ms'")
                    connection.execute(sql.SQL("; ").join(wanted[target]))
                    connection.commit()
                    written += len(wanted[target])
                except _LATER:
                    connection.rollback()
    return written


def _comments(known: Mapping[str, Mapping[str, Class]], found: list[tuple[Any, ...]]) -> Iterator[tuple[str, sql.Composed]]:
    tables: set[str] = set()
    for target, kind, column, of_table, of_column in found:
        if kind not in _KINDS:
            continue
        named = sql.Identifier(*target.split(".", 1))
        if target not in tables and (most := most_protected(known[target].values())):
            tables.add(target)
            text = with_class(of_table, f"{most.words}: {most.column}")
            if text != of_table:
                yield target, sql.SQL("comment on {} {} is {}").format(sql.SQL(_KINDS[kind]), named, sql.Literal(text))
        if item := known[target].get(column):
            text = with_class(of_column, f"{item.words}: {item.why}" if item.why else item.words)
            if text != of_column:
                named = sql.Identifier(*target.split(".", 1), column)
                yield target, sql.SQL("comment on column {} is {}").format(named, sql.Literal(text))
