"""What is kept of measurements: results of rules, and their history.

The tables are a migration's (``quality.result``); what a rule means and how a score is worked out are other modules'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

Severity = Literal["reject", "block", "warn"]
Dimension = Literal["accuracy_completeness", "consistency", "relevancy", "timeliness", "availability"]
Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Result:
    """What one rule found at one moment.

    ``rows_checked``, ``rows_failed``: None where the rule is not about rows. ``value``: what was measured where it is more than a
    count (days late, a share 0 to 1, a distance). ``detail``: facts for people, never a personal value.
    """

    dataset: str
    rule: str
    kind: str
    dimension: Dimension
    severity: Severity
    passed: bool
    rows_checked: int | None = None
    rows_failed: int | None = None
    value: float | None = None
    indicator: str | None = None
    column: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """A result as it was kept, with its id and what it was measured on."""

    id: int
    dataset: str
    rule: str
    kind: str
    dimension: str
    indicator: str | None
    severity: str
    column_name: str | None
    measured_at: datetime
    delivery_id: int | None
    write_id: int | None
    rows_checked: int | None
    rows_failed: int | None
    value: float | None
    passed: bool
    detail: dict[str, Any]


def keep(
    connection: Connection,
    results: Iterable[Result],
    *,
    delivery: int | None = None,
    write: int | None = None,
    run_id: str | None = None,
    contract_version: str | None = None,
) -> list[int]:
    """Keep results in the caller's transaction; their ids, in order. ``write``: the write of the table that was looked at."""
    rows = [
        (
            item.dataset, item.rule, item.kind, item.dimension, item.indicator, item.severity, item.column, delivery, write,
            run_id, contract_version, item.rows_checked, item.rows_failed, item.value, item.passed, Jsonb(dict(item.detail)),
        )
        for item in results
    ]  # fmt: skip
    if not rows:
        return []
    ids = []
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into quality.result (dataset, rule, kind, dimension, indicator, severity, column_name, delivery_id, write_id,"
            " run_id, contract_version, rows_checked, rows_failed, value, passed, detail)"
            f" values ({', '.join(['%s'] * 16)}) returning id",
            rows,
            returning=True,
        )
        while True:
            row = cursor.fetchone()
            if row is not None:
                ids.append(int(row[0]))
            if not cursor.nextset():
                break
    return ids


_COLUMNS = """
    id, dataset, rule, kind, dimension, indicator, severity, column_name, measured_at, delivery_id, write_id, rows_checked,
    rows_failed, value, passed, detail
"""


def latest(connection: Connection, dataset: str | None = None, *, as_of: datetime | None = None) -> list[Kept]:
    """The last result of each rule, of one dataset or all, as of a moment or now; by dataset and rule."""
    with connection.cursor(row_factory=class_row(Kept)) as cursor:
        return cursor.execute(
            f"select distinct on (dataset, rule) {_COLUMNS} from quality.result"
            " where (%(dataset)s::text is null or dataset = %(dataset)s)"
            " and (%(as_of)s::timestamptz is null or measured_at <= %(as_of)s)"
            " order by dataset, rule, id desc",
            {"dataset": dataset, "as_of": as_of},
        ).fetchall()


def named(connection: Connection, ids: Iterable[int]) -> list[Kept]:
    """Results by their ids, in the order of those; what is not there is left out."""
    with connection.cursor(row_factory=class_row(Kept)) as cursor:
        return cursor.execute(
            f"select {_COLUMNS} from quality.result where id = any(%s) order by id", (sorted(set(ids)),)
        ).fetchall()


def history(connection: Connection, dataset: str, rule: str, *, limit: int = 1000) -> list[Kept]:
    """The results of one rule, oldest first, at most the ``limit`` last."""
    with connection.cursor(row_factory=class_row(Kept)) as cursor:
        rows = cursor.execute(
            f"select {_COLUMNS} from quality.result where dataset = %s and rule = %s order by id desc limit %s",
            (dataset, rule, limit),
        ).fetchall()
    return rows[::-1]
