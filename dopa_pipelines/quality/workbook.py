"""The bureau's workbook of open incidents, in Thai: what fails, where, how it is repaired, by whom and until when.

Belongs here: the sheets. Does not belong here: rejected rows as they came, which ``dopa quarantine export`` writes for
correction: this workbook has files and row numbers, and of the values only those that name nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path

import xlsxwriter
from xlsxwriter.exceptions import XlsxWriterException

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest.reasons import meaning
from dopa_pipelines.quality import repair
from dopa_pipelines.quality.incidents import SEVERITY_TH, Incident, Month
from dopa_pipelines.quality.places import Places
from dopa_pipelines.quality.standard import current
from dopa_pipelines.thai import BANGKOK

MOST_ROWS = 1_000
"""Rows that the workbook lists of one incident; the rest is told as a number."""
_OF_PLACE = ("delivery", "file", "row", "quarantine_id", "codes")
SHEETS = ("เหตุที่ต้องแก้", "แถวที่ต้องแก้", "สถิติรายเดือน")


def write(
    path: Path,
    bureau: str,
    found: Sequence[Incident],
    places: Mapping[int, Places],
    contracts: Mapping[str, Contract],
    months: Sequence[Month],
    day: date,
) -> None:
    """Write the workbook: incidents (most pressing first), their rows, figures by month of the Buddhist era.

    ``places``: the rows to repair by result (:attr:`Incident.result`), each with its file, row number and reasons in Thai.
    Raises ``UserError`` where the file cannot be written; then there is none, or the one of before.
    """
    partial = path.with_name(f".{path.name}.part")
    # Text stays text: names of files come from outside, and =1+1 is no formula.
    options = {"strings_to_formulas": False, "strings_to_numbers": False, "strings_to_urls": False}
    try:
        with xlsxwriter.Workbook(partial, options) as book:
            _sheets(book, bureau, found, places, contracts, months, day)
        partial.replace(path)
    except (OSError, XlsxWriterException) as error:
        raise UserError(f"{path}: cannot be written ({error}); name another file with --out") from error
    finally:
        partial.unlink(missing_ok=True)


def _sheets(
    book: xlsxwriter.Workbook,
    bureau: str,
    found: Sequence[Incident],
    places: Mapping[int, Places],
    contracts: Mapping[str, Contract],
    months: Sequence[Month],
    day: date,
) -> None:
    bold = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
    wrapped = book.add_format({"text_wrap": True, "valign": "top"})
    plain = book.add_format({"valign": "top"})
    late = book.add_format({"valign": "top", "bg_color": "#FFE0B2"})
    count = book.add_format({"valign": "top", "num_format": "#,##0"})
    dimensions = {item.name: item.title.th for item in current().dimensions}

    def sheet(name: str, columns: Sequence[tuple[str, int]]) -> xlsxwriter.worksheet.Worksheet:
        made = book.add_worksheet(name)
        made.freeze_panes(1, 0)
        for place, (title, width) in enumerate(columns):
            made.set_column(place, place, width)
            made.write_string(0, place, title, bold)
        return made

    first = sheet(
        SHEETS[0],
        [("เลขที่", 8), ("ชุดข้อมูล", 26), ("กฎ", 30), ("มิติคุณภาพ", 22), ("ระดับ", 18), ("แถวที่ผิด", 10), ("พบครั้งแรก", 12),
         ("พบล่าสุด", 12), ("กำหนดแก้", 12), ("ผู้รับผิดชอบ", 26), ("คำอธิบาย", 30), ("วิธีแก้", 70)],
    )  # fmt: skip
    second = sheet(
        SHEETS[1],
        [("เลขที่", 8), ("ชุดข้อมูล", 26), ("กฎ", 30), ("คอลัมน์", 20), ("ไฟล์", 34), ("แถว", 10), ("เหตุผล", 44), ("วิธีแก้", 60),
         ("ค่าประกอบ", 40)],
    )  # fmt: skip
    row = 0
    for line, item in enumerate(found, 1):
        contract = contracts.get(item.dataset)
        name = f"{contract.title_th} ({item.dataset})" if contract else item.dataset
        steps = repair.of(item.kind, item.severity, item.rule, contract, item.dataset)
        first.write_number(line, 0, item.id, plain)
        first.write_string(line, 1, name, wrapped)
        first.write_string(line, 2, item.rule, wrapped)
        first.write_string(line, 3, dimensions.get(item.dimension, item.dimension), wrapped)
        first.write_string(line, 4, SEVERITY_TH[item.severity], plain)
        if item.rows_now is not None:
            first.write_number(line, 5, item.rows_now, count)
        first.write_string(line, 6, _day(item.opened_at), plain)
        first.write_string(line, 7, _day(item.last_seen_at), plain)
        first.write_string(line, 8, _day(item.due_on), late if item.overdue(day) else plain)
        first.write_string(line, 9, item.owner or "", plain)
        first.write_string(line, 10, item.explanation or "", wrapped)
        first.write_string(
            line, 11, "\n".join(f"{step.th}: {step.command}" if step.command else step.th for step in steps), wrapped
        )
        behind = places.get(item.result, Places())
        for each in behind.places:
            if "row" not in each:
                continue
            row += 1
            reasons = [meaning(code) for code in each.get("codes", ())]
            second.write_number(row, 0, item.id, plain)
            second.write_string(row, 1, name, plain)
            second.write_string(row, 2, item.rule, plain)
            second.write_string(row, 3, item.column or "", plain)
            second.write_string(row, 4, str(each.get("file") or ""), plain)
            second.write_number(row, 5, int(each["row"]), plain)
            second.write_string(row, 6, "; ".join(reason.thai for reason in reasons), wrapped)
            second.write_string(row, 7, "; ".join(reason.remedy_th for reason in reasons if reason.remedy_th), wrapped)
            values = [f"{column} {value}" for column, value in each.items() if column not in _OF_PLACE]
            second.write_string(row, 8, ", ".join(values), wrapped)
        if behind.rows > len(behind.places):
            row += 1
            second.write_number(row, 0, item.id, plain)
            second.write_string(row, 1, name, plain)
            more = f"และอีก {behind.rows - len(behind.places):,} แถว: dopa quarantine export {item.dataset}"
            second.write_string(row, 6, more, plain)
    third = sheet(
        SHEETS[2],
        [("เดือน (พ.ศ.)", 14), ("เหตุที่เปิด", 12), ("แถวที่ผิด", 12), ("เหตุที่ปิด", 12), ("ปิดช้ากว่ากำหนด", 16), ("วันที่ใช้แก้ (เฉลี่ย)", 18),
         ("วันที่ใช้แก้ (มัธยฐาน)", 18), ("ค้างสิ้นเดือน", 14)],
    )  # fmt: skip
    for line, month in enumerate(months, 1):
        third.write_string(line, 0, month.month_be, plain)
        numbers = (month.opened, month.errors, month.closed, month.closed_late, month.days_to_repair, month.days_to_repair_median,
                   month.open_at_end)  # fmt: skip
        for place, number in enumerate(numbers, 1):
            if number is not None:
                third.write_number(line, place, round(number, 1), count if isinstance(number, int) else plain)
    book.set_properties({"title": f"เหตุด้านคุณภาพข้อมูล {bureau}", "comments": f"{_day(day)}"})


def _day(moment: date | datetime | None) -> str:
    """A day as Thai offices write it: 26/11/2568."""
    if moment is None:
        return ""
    day = moment.astimezone(BANGKOK).date() if isinstance(moment, datetime) else moment
    return f"{day.day:02}/{day.month:02}/{day.year + 543}"
