"""Rejected rows: looking at them, without personal values unless they are asked for, and handing them to their bureau.

Loading them after all is :mod:`dopa_pipelines.ingest.replay`. Whoever shows personal values has the look logged first.
"""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import xlsxwriter
from psycopg import sql

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest.reasons import meaning

Connection = psycopg.Connection[Any]
MASK = "•••"
SHEET = "quarantine"
"""Sheet of an exported workbook; a delivery that has it is a corrected one."""
NUMBER = "quarantine_id"
"""Title of the column by which a corrected row finds the one that it mends."""
MAX_EXPORT = 500_000

WAITS: LiteralString = """
    d.status = 'loaded' and not exists (
        select from ops.delivery l
        where l.dataset = d.dataset and l.id > d.id and l.status = 'loaded' and not l.replayed
          and (l.sha256 = d.sha256 or l.business_date = d.business_date or l.notes ->> 'replaces' = 'all')
    )
"""
"""Whether rejected rows of the delivery ``d`` still matter: neither the same content, nor another snapshot of its day, nor one
that takes the place of all came later. That its rows were replaced since says nothing about those that were rejected.
"""


@dataclass(frozen=True)
class RejectedRow:
    """A quarantined row as it may be shown.

    ``original`` and ``fields`` (the text of each column) are empty unless they were asked for. ``replayed_by``: the delivery that
    loaded it after all.
    """

    id: int
    delivery: int
    file: str
    row: int
    reasons: list[dict[str, Any]]
    original: str | None = None
    fields: dict[str, str | None] = field(default_factory=dict)
    replayed_by: int | None = None


@dataclass(frozen=True)
class Pattern:
    """Rows of a dataset that were rejected for the same reason in the same column; ``example`` is masked where it is personal."""

    code: str
    column: str | None
    rows: int
    deliveries: int
    example: str | None


def log_look(connection: Connection, action: str, subject: str, detail: dict[str, Any]) -> None:
    """Write down who looks, before anything is shown: a look that cannot be logged is not given. Commits."""
    connection.execute(
        "insert into ops.access_log (who, action, subject, detail) values (%s, %s, %s, %s)",
        (getpass.getuser(), action, subject, json.dumps(detail, ensure_ascii=False)),
    )
    connection.commit()


def overview(connection: Connection) -> list[tuple[str, int, int]]:
    """Dataset, rows that wait in its quarantine, rows that were replayed."""
    names = connection.execute(
        """
        select c.relname
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attname = 'replayed_by'
        where c.relnamespace = to_regnamespace('quarantine') and c.relkind = 'r'
        order by c.relname
        """
    ).fetchall()
    found = []
    for (name,) in names:
        row = connection.execute(
            sql.SQL(
                """
                select count(*) filter (where q.replayed_by is null and {}), count(q.replayed_by)
                from {} q
                join ops.delivery d on d.id = q.delivery_id
                """
            ).format(sql.SQL(WAITS), sql.Identifier("quarantine", name))
        ).fetchone()
        assert row is not None
        found.append((str(name), int(row[0]), int(row[1])))
    return found


def rejected_rows(
    connection: Connection,
    contract: Contract,
    *,
    reveal: bool = False,
    limit: int | None = 20,
    delivery: int | None = None,
    row: int | None = None,
    code: str | None = None,
    waiting: bool = False,
) -> Iterator[RejectedRow]:
    """Quarantined rows, those of the latest deliveries first. Without ``reveal``, personal values are masked.

    ``waiting``: only those that may still be loaded.
    """
    if not _exists(connection, contract):
        return
    rows = connection.execute(
        sql.SQL(
            """
            select q.id, q.delivery_id, q.file, q.row, q.reasons, q.original, q.fields, q.replayed_by
            from {} q
            where (%(delivery)s::bigint is null or q.delivery_id = %(delivery)s)
              and (%(row)s::bigint is null or q.row = %(row)s)
              and (%(code)s::text is null or q.reasons @> jsonb_build_array(jsonb_build_object('code', %(code)s::text)))
              and (not %(waiting)s or q.replayed_by is null and q.delivery_id in (select d.id from ops.delivery d where {}))
            order by q.delivery_id desc, q.row, q.id
            limit %(limit)s
            """
        ).format(sql.Identifier("quarantine", contract.dataset), sql.SQL(WAITS)),
        {"delivery": delivery, "row": row, "code": code, "limit": limit, "waiting": waiting},
    )
    shown_in_clear = _open_columns(contract)
    for number, origin, file, place, reasons, original, fields, replayed in rows:
        if reveal:
            yield RejectedRow(number, origin, file, place, reasons, original, fields or {}, replayed)
        else:
            text = (fields or {}).items()
            shown = {name: value if value is None or name in shown_in_clear else MASK for name, value in text}
            masked = [_masked(reason, shown_in_clear) for reason in reasons]
            yield RejectedRow(number, origin, file, place, masked, None, shown, replayed)


def patterns(connection: Connection, contract: Contract) -> list[Pattern]:
    """Why rows of the dataset wait: the most frequent reasons first."""
    if not _exists(connection, contract):
        return []
    rows = connection.execute(
        sql.SQL(
            """
            select r.reason ->> 'code', r.reason ->> 'column', count(*), count(distinct q.delivery_id),
                (array_agg(r.reason ->> 'value' order by q.id desc))[1]
            from {} q
            join ops.delivery d on d.id = q.delivery_id and {}
            cross join jsonb_array_elements(q.reasons) as r (reason)
            where q.replayed_by is null
            group by 1, 2
            order by 3 desc, 1, 2
            """
        ).format(sql.Identifier("quarantine", contract.dataset), sql.SQL(WAITS))
    )
    shown_in_clear = _open_columns(contract)
    found = []
    for code, column, count, deliveries, value in rows:
        shown = _masked({"column": column, "value": value}, shown_in_clear)["value"]
        found.append(Pattern(code, column, count, deliveries, shown))
    return found


def _open_columns(contract: Contract) -> set[str]:
    """Columns whose values may be shown. A name that the contract does not know may be one that a personal column had before."""
    plain = [column for column in contract.columns if not column.is_personal]
    return {column.name for column in plain} | {column.renamed_from for column in plain if column.renamed_from}


def _exists(connection: Connection, contract: Contract) -> bool:
    there = connection.execute("select to_regclass(%s)", (f"quarantine.{contract.dataset}",)).fetchone()
    return bool(there and there[0])


def _masked(reason: dict[str, Any], shown_in_clear: set[str]) -> dict[str, Any]:
    names = set(re.split(r",\s*", reason.get("column") or ""))
    value = reason.get("value")
    return reason | {"value": value if value is None or names <= shown_in_clear else MASK}


def rejected_preview(connection: Connection, contract: Contract) -> str:
    """A Markdown table of some rejected rows, without personal values."""
    lines = ["| file | row | reason | column | value |", "|---|---|---|---|---|"]
    for item in rejected_rows(connection, contract, limit=10):
        for reason in item.reasons:
            value = str(reason.get("value") or "").replace("|", "\\|").replace("\n", " ")[:60]
            lines.append(f"| {item.file} | {item.row} | {reason['code']} | {reason.get('column') or ''} | {value} |")
    if len(lines) == 2:
        return "no rejected rows"
    return "\n".join([*lines, "", f"All of them: `dopa quarantine list {contract.dataset}`"])


def export(connection: Connection, contract: Contract, path: Path, *, delivery: int | None = None) -> int:
    """Write the waiting rows into a workbook for their bureau, reasons in Thai; returns how many.

    The bureau corrects values in place; the file comes back as a delivery. Personal values are in the clear: the file is
    readable by its owner only. Raises UserError where there is nothing to export or the file cannot be written.
    """
    rows = list(rejected_rows(connection, contract, reveal=True, limit=MAX_EXPORT + 1, delivery=delivery, waiting=True))
    if not rows:
        raise UserError(f"{contract.dataset}: no rejected rows wait; nothing to export")
    if len(rows) > MAX_EXPORT:
        raise UserError(
            f"{contract.dataset}: more than {MAX_EXPORT:,} rows are too many for one workbook; export one --delivery at a time"
        )
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.touch(mode=0o600)
        _write_workbook(contract, rows, partial)
        partial.replace(path)
    except (OSError, xlsxwriter.exceptions.XlsxWriterException) as error:
        raise UserError(f"{path}: cannot be written ({error}); name another file with --to") from error
    finally:
        partial.unlink(missing_ok=True)
    return len(rows)


def _write_workbook(contract: Contract, rows: list[RejectedRow], path: Path) -> None:
    # Text stays text: a value such as =1+1 came from outside, and 0812 is no number.
    options = {"strings_to_formulas": False, "strings_to_numbers": False, "strings_to_urls": False, "constant_memory": True}
    with xlsxwriter.Workbook(path, options) as book:
        bold = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
        wrong = book.add_format({"bg_color": "#FFE0B2", "num_format": "@"})
        plain = book.add_format({"num_format": "@"})
        grey = book.add_format({"font_color": "#666666"})
        sheet = book.add_worksheet(SHEET)
        titles = [NUMBER, "ไฟล์", "แถว", "เหตุผล", "วิธีแก้ไข", "ข้อความเดิม", *(column.title for column in contract.columns)]
        sheet.set_column(0, 0, 8)
        sheet.set_column(1, 2, 14)
        sheet.set_column(3, 5, 42)
        sheet.set_column(6, len(titles) - 1, 18, plain)
        sheet.freeze_panes(1, 0)
        for place, title in enumerate(titles):
            sheet.write_string(0, place, title, bold)
        names = {column.name: column.business_name or column.title for column in contract.columns}
        for line, item in enumerate(rows, 1):
            blamed = {name for reason in item.reasons for name in re.split(r",\s*", reason.get("column") or "")}
            sheet.write_number(line, 0, item.id, grey)
            sheet.write_string(line, 1, item.file, grey)
            sheet.write_number(line, 2, item.row, grey)
            sheet.write_string(line, 3, "; ".join(_thai(reason, names) for reason in item.reasons))
            remedies = dict.fromkeys(meaning(reason["code"]).remedy_th for reason in item.reasons)
            sheet.write_string(line, 4, "; ".join(remedies))
            sheet.write_string(line, 5, item.original or "", grey)
            for place, column in enumerate(contract.columns, 6):
                text = item.fields.get(column.name)
                form = wrong if column.name in blamed else plain
                if text is None:
                    sheet.write_blank(line, place, None, form)
                else:
                    sheet.write_string(line, place, text[:32_767], form)


def _thai(reason: dict[str, Any], names: dict[str, str]) -> str:
    columns = [names.get(name, name) for name in re.split(r",\s*", reason.get("column") or "") if name]
    said = meaning(reason["code"]).thai
    return f"{', '.join(columns)}: {said}" if columns else said
