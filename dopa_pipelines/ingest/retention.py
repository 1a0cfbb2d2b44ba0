"""The end of what is kept: deliveries in the archive and values in the quarantine, once their contracts' retention is over.

A content is destroyed when the retention of every delivery of it has ended; a dataset whose contract states none keeps all. That
it was there, and when and why it was destroyed, stays in ``ops.archived``. Of a rejected row its place and reason codes stay, its
values go (PDPA, B.E. 2562, section 37 (3): personal data is erased when its retention period ends).
"""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dopa_pipelines.contracts import Contract
from dopa_pipelines.ingest.archive import place_of
from dopa_pipelines.warehouse import Role, Warehouse

Connection = psycopg.Connection[Any]


@dataclass
class Ended:
    """What retention ends. ``contents``: of the archive (sha256, bytes, the files' names, datasets, since when);
    ``rejected_rows``: rows by dataset whose values go. ``applied``: it was destroyed.
    """

    contents: list[dict[str, Any]] = field(default_factory=list)
    rejected_rows: dict[str, int] = field(default_factory=dict)
    applied: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def end_retention(warehouse: Warehouse, contracts: Iterable[Contract], today: date, *, apply: bool = False) -> Ended:
    """Find what is kept longer than contracts allow; with ``apply``, destroy it.

    What is destroyed is written down first: where the process dies in between, the next time finishes the work.
    """
    contracts = list(contracts)
    years = {item.dataset: item.service_level.retention_years for item in contracts if item.service_level.retention_years}
    ended = Ended(applied=apply)
    with warehouse.connect(Role.LOADER) as connection:
        # Also what is kept for ever may bring a content that another dataset's retention ends.
        everything = {item.dataset for item in contracts} | {
            dataset for (dataset,) in connection.execute("select distinct dataset from ops.delivery")
        }
        _hold_back(connection, everything)
        ended.contents = _contents(connection, years, today)
        for dataset, kept in years.items():
            count = _rejected_rows(connection, dataset, kept, today, apply=apply)
            if count:
                ended.rejected_rows[dataset] = count
        if apply:
            for item in ended.contents:
                connection.execute(
                    "update ops.archived set destroyed_at = clock_timestamp(), destroyed_by = %s, why = %s where sha256 = %s",
                    (getpass.getuser(), f"retention ended on {item['ended']}", item["sha256"]),
                )
            connection.commit()
            _hold_back(connection, everything)
            for (sha256,) in connection.execute("select sha256 from ops.archived where destroyed_at is not null").fetchall():
                place_of(warehouse.archive, sha256).unlink(missing_ok=True)
            _remove_unrecorded(connection, warehouse.archive)
        connection.rollback()
    return ended


def _remove_unrecorded(connection: Connection, archive: Path) -> None:
    """Remove contents that no delivery has: it failed, or was killed, before it could be recorded, and is delivered again.

    Not what came in the last day: its delivery may be at work, of a dataset that nobody knows yet.
    """
    before = time.time() - 24 * 60 * 60
    recorded = {sha256 for (sha256,) in connection.execute("select sha256 from ops.archived")}
    for place in archive.glob("[0-9a-f][0-9a-f]/*.zst"):
        if place.stem not in recorded and place.stat().st_mtime < before:
            place.unlink(missing_ok=True)


def _hold_back(connection: Connection, datasets: Iterable[str]) -> None:
    """No delivery of these comes in until the transaction ends: it might bring back what is being destroyed."""
    for dataset in sorted(datasets):
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"ingest:{dataset}",))


def _contents(connection: Connection, years: dict[str, int], today: date) -> list[dict[str, Any]]:
    rows = connection.execute(
        """
        with kept (dataset, years) as (select * from unnest(%s::text[], %s::int[]))
        select a.sha256, a.bytes, array_agg(distinct d.dataset), array_agg(distinct d.file),
            max(d.received_at + make_interval(years => kept.years))::date
        from ops.archived a
        join ops.delivery d on d.sha256 = a.sha256
        left join kept on kept.dataset = d.dataset
        where a.destroyed_at is null
        group by a.sha256, a.bytes
        having bool_and(kept.years is not null) and max(d.received_at + make_interval(years => kept.years))::date <= %s
        order by 5, 1
        """,
        (list(years), list(years.values()), today),
    ).fetchall()
    names = ("sha256", "bytes", "datasets", "files", "ended")
    return [dict(zip(names, (*row[:4], row[4].isoformat()), strict=True)) for row in rows]


def _rejected_rows(connection: Connection, dataset: str, years: int, today: date, *, apply: bool) -> int:
    there = connection.execute(
        "select count(*) from pg_attribute where attrelid = to_regclass(%s) and attname = 'replayed_by'",
        (f"quarantine.{dataset}",),
    ).fetchone()
    if not there or not there[0]:
        return 0
    where = sql.SQL(
        """
        q.original <> '' and q.delivery_id in (
            select id from ops.delivery
            where dataset = {} and (received_at + make_interval(years => {}))::date <= {}
        )
        """
    ).format(sql.Literal(dataset), sql.Literal(years), sql.Literal(today))
    table = sql.Identifier("quarantine", dataset)
    if not apply:
        row = connection.execute(sql.SQL("select count(*) from {} q where {}").format(table, where)).fetchone()
        return int(row[0]) if row else 0
    count = connection.execute(
        sql.SQL(
            """
            update {} q set original = '', fields = null, corrected = null, reasons = (
                select jsonb_agg(reason - 'value') from jsonb_array_elements(q.reasons) as r (reason)
            )
            where {}
            """
        ).format(table, where)
    ).rowcount
    if count:
        connection.execute(
            "select lineage.record_write('migration', %s, p_detail => %s)",
            (f"quarantine.{dataset}", json.dumps({"changes": [f"retention ended for the values of {count} rows"]})),
        )
    return count
