"""Where the rows stand that fail a rule: delivery, file and row, with the reasons; never a value of a row.

Of rules by which rows are rejected these are rows of the quarantine that wait now, all of them. Of measured rules, which leave
the rows in the table, they are the sample that the result has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from dopa_pipelines.ingest.quarantine import WAITS
from dopa_pipelines.quality.store import Connection, Kept

_FORMS = ("bad_number", "bad_date", "impossible_date", "bad_check_digit", "bad_length", "bad_pattern", "too_long", "mojibake")
_LIMITS = ("out_of_range", "future_date")
_CODES: dict[tuple[str, bool], tuple[str, ...]] = {
    ("required", True): ("missing",),
    ("unique", False): ("duplicate_key",),
    ("values", True): ("not_in_list",),
    ("reference", True): ("unknown_reference",),
    ("range", True): _LIMITS,
    ("range", False): ("out_of_scope",),
    ("pattern", True): _FORMS,
    ("pattern", False): ("ragged_line", "undecodable"),
}
"""Reason codes of the rows that a rule of each kind rejects, of a column and of the whole row. Old results are explained without
the contract of their time, so they stand here beside :mod:`.rules`; a test holds the two together."""


@dataclass(frozen=True)
class OfDelivery:
    """How many rows of one delivery fail."""

    delivery: int
    file: str
    rows: int


@dataclass(frozen=True)
class Places:
    """Rows that fail a rule. ``rows``: all that wait in the quarantine for it, 0 where it rejects none; ``deliveries``: those of
    them by delivery; ``places``: the first of them, or the sample of a measured rule."""

    rows: int = 0
    deliveries: list[OfDelivery] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)


def places_of(connection: Connection, item: Kept, limit: int) -> Places:
    """Where the rows behind a result stand, at most ``limit``: rejected ones of deliveries up to the result's that still matter.

    They are fewer than ``item.rows_failed`` where some were repaired since. ``connection`` must be one that reads the quarantine
    (loader, custodian).
    """
    codes = _codes(connection, item) if item.severity == "reject" and item.rows_failed else []
    if not codes or not _has_quarantine(connection, item.dataset):
        return Places(places=[] if item.passed else _sampled(connection, item)[:limit])
    found = connection.execute(
        sql.SQL(
            """
            with waits as (
                select q.id, q.delivery_id, q.file, q.row, array_agg(distinct r ->> 'code') as codes
                from {} q
                join ops.delivery d on d.id = q.delivery_id and {}
                cross join jsonb_array_elements(q.reasons) r
                where q.replayed_by is null and r ->> 'code' = any(%(codes)s)
                    and (%(delivery)s::bigint is null or q.delivery_id <= %(delivery)s)
                    and (%(column)s::text is null
                        or r ->> 'column' in (%(column)s, %(column)s || '_year', %(column)s || '_month'))
                group by q.id, q.delivery_id, q.file, q.row
            )
            select delivery_id, min(file), count(*), (
                select coalesce(json_agg(json_build_object(
                    'delivery', f.delivery_id, 'file', f.file, 'row', f.row, 'quarantine_id', f.id, 'codes', f.codes
                ) order by f.id), '[]')
                from (select * from waits w where w.delivery_id = waits.delivery_id order by w.id limit %(limit)s) f
            )
            from waits
            group by delivery_id
            order by delivery_id
            """
        ).format(sql.Identifier("quarantine", item.dataset), sql.SQL(WAITS)),
        {"codes": codes, "delivery": item.delivery_id, "column": item.column_name, "limit": limit},
    ).fetchall()
    deliveries = [OfDelivery(int(delivery), file or "", int(rows)) for delivery, file, rows, _ in found]
    places = sorted((place for *_, first in found for place in first), key=lambda place: int(place["quarantine_id"]))
    return Places(sum(each.rows for each in deliveries), deliveries, places[:limit])


def _has_quarantine(connection: Connection, dataset: str) -> bool:
    row = connection.execute(
        "select exists (select from pg_tables where schemaname = 'quarantine' and tablename = %s)", (dataset,)
    ).fetchone()
    return bool(row and row[0])


def _sampled(connection: Connection, item: Kept) -> list[dict[str, Any]]:
    """The sample of a result, with the names of the files that its deliveries came as."""
    sample = [dict(place) for place in item.detail.get("sample") or [] if isinstance(place, dict)]
    asked = [place["delivery"] for place in sample if "file" not in place and isinstance(place.get("delivery"), int)]
    files = dict(connection.execute("select id, file from ops.delivery where id = any(%s)", (asked,)).fetchall()) if asked else {}
    return [({"file": files[place["delivery"]]} if place.get("delivery") in files else {}) | place for place in sample]


def _codes(connection: Connection, item: Kept) -> list[str]:
    if item.kind == "row":
        return [f"row_rule:{item.rule}"]
    codes = list(_CODES.get((item.kind, item.column_name is not None), ()))
    if item.kind == "pattern" and item.column_name:
        # What has a form has limits, too; a column whose contract states them has a rule for them.
        limited = connection.execute(
            "select exists (select from quality.result where dataset = %s and column_name = %s and kind = 'range'"
            " and severity = 'reject' and delivery_id is not distinct from %s)",
            (item.dataset, item.column_name, item.delivery_id),
        ).fetchone()
        codes += [] if limited and limited[0] else list(_LIMITS)
    return codes
