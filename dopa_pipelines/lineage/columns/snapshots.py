"""A dbt snapshot as lineage: its query's columns, and those of dbt's own that say when a row was in force.

Belongs here: what dbt's snapshot materialization (1.11, strategies ``timestamp`` and ``check``) makes of the query. Does not
belong here: the query itself (``walk``).

With T the columns that ``updated_at`` names, C those of ``check_cols`` and K the key: a row is there for each state of K that was
seen, so K decides rows (JOIN) and T or C do (FILTER). ``dbt_updated_at`` and ``dbt_valid_from`` are T, or with ``check`` the time
of the build; ``dbt_valid_to`` is the next state's T, or the time at which C were seen changed, or K to be gone; ``dbt_scd_id`` is
a hash of K and T; ``dbt_is_deleted`` (``hard_deletes: new_record``) says that K is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from dopa_pipelines.lineage.columns.model import NONE, Edges, Lineage, Subtype, carried, deciding
from dopa_pipelines.lineage.columns.schema import Schema
from dopa_pipelines.lineage.columns.walk import analyze

NAMES = ("dbt_scd_id", "dbt_updated_at", "dbt_valid_from", "dbt_valid_to", "dbt_is_deleted")


def analyze_snapshot(sql: str, schema: Schema, told: Mapping[str, Any], *, statement: str = "") -> Lineage:
    """The lineage of a snapshot whose query is ``sql``.

    ``told``: ``strategy``, ``unique_key`` (one or several), ``updated_at``, ``check_cols`` (or ``all``), ``hard_deletes`` and
    ``columns``, what dbt's own are called where that was changed. Raises LineageError.
    """
    query = analyze(sql, schema, statement=statement)
    keys = _listed(told.get("unique_key"))
    by_time = told.get("strategy") == "timestamp"
    checked = [title for title, _ in query.columns] if told.get("check_cols") == "all" else _listed(told.get("check_cols"))
    # Each may be an expression over the query, so all are asked as one.
    asked = [*keys, *([str(told["updated_at"])] if by_time else checked)]
    quoted = {title: '"' + title.replace('"', '""') + '"' for title, _ in query.columns}
    items = ", ".join(f"({quoted.get(item, item)}) as c{number}" for number, item in enumerate(asked))
    whole = analyze(f"select {items} from (\n{sql.strip().rstrip(';')}\n) as q", schema, statement=statement)
    found = [edges for _, edges in whole.columns]
    key, moved = NONE.union(*found[: len(keys)]), NONE.union(*found[len(keys) :])
    changes = deciding(moved, Subtype.CONDITIONAL)
    at: Edges = moved if by_time else NONE
    gone = deciding(key, Subtype.CONDITIONAL)
    made = {
        "dbt_scd_id": carried(key | at, Subtype.TRANSFORMATION, True),
        "dbt_updated_at": at,
        "dbt_valid_from": at,
        "dbt_valid_to": carried(at, Subtype.TRANSFORMATION) | changes | gone,
        "dbt_is_deleted": gone,
    }
    if told.get("hard_deletes") != "new_record":
        del made["dbt_is_deleted"]
    called = told.get("columns") or {}
    own = tuple((str(called.get(name) or name), edges) for name, edges in made.items())
    decides = query.dataset | deciding(key, Subtype.JOIN) | deciding(moved, Subtype.FILTER)
    return replace(query, columns=query.columns + own, dataset=decides, kept=True)


def _listed(told: object) -> list[str]:
    if told is None or told == "":
        return []
    return [str(item) for item in told] if isinstance(told, Iterable) and not isinstance(told, str) else [str(told)]
