"""Every form that a silo sends, by the command line, under a contract that the project has never seen.

The answer key is the list of rows below. Databases and APIs have tests of their own (``test_feeds_*``).
"""

import gzip
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlwt  # type: ignore[import-untyped]

DOPA = str(Path(sys.executable).with_name("dopa"))
ROWS = [("1101", "กรุงเทพมหานคร", date(2025, 4, 1), 5_588_222), ("5001", 'เชียง"ใหม่, เมือง', date(2025, 4, 2), 1_797_075)]
TITLES = ("รหัส", "ชื่อ", "วันที่", "จำนวน")
COLUMNS = [
    {
        "name": "code", "physicalName": TITLES[0], "titles": ["Code", "CODE"], "required": True, "primaryKey": True,
        "primaryKeyPosition": 1,
    },
    {"name": "name", "physicalName": TITLES[1], "titles": ["Name", "NAME"]},
    {"name": "day", "physicalName": TITLES[2], "titles": ["Day", "DAY"], "logicalType": "date"},
    {"name": "people", "physicalName": TITLES[3], "titles": ["People", "PEOPLE"], "logicalType": "integer"},
]  # fmt: skip


def buddhist(day: date) -> str:
    return f"{day.day:02}/{day.month:02}/{day.year + 543}"


def text_rows() -> list[list[str]]:
    return [[code, name, buddhist(day), f"{people:,}"] for code, name, day, people in ROWS]


def separated(delimiter: str, *, header: bool = True, quoted: bool = True, trailing: bool = False) -> bytes:
    def field(text: str) -> str:
        return '"{}"'.format(text.replace('"', '""')) if quoted and (delimiter in text or '"' in text) else text

    lines = [
        delimiter.join(map(field, row)) + (delimiter if trailing else "") for row in [*([TITLES] if header else []), *text_rows()]
    ]
    return ("\r\n".join(lines) + "\r\n").encode("cp874")


def fixed() -> bytes:
    return "".join(f"{c:<4}{n:<20}{d:<10}{p:>12}\n" for c, n, d, p in text_rows()).encode("cp874")


def xlsx() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["รายงานประจำเดือน"])
    sheet.merge_cells("A1:D1")
    sheet.append(["รหัส\nCode", "ชื่อ\nName", "วันที่\nDay", "จำนวน\nPeople"])
    for code, name, day, people in ROWS:
        sheet.append([code, name, day, people])
    sheet.append(["รวม", None, None, sum(row[3] for row in ROWS)])
    made = io.BytesIO()
    book.save(made)
    return made.getvalue()


def xls() -> bytes:
    book = xlwt.Workbook(encoding="utf-8")
    sheet = book.add_sheet("ข้อมูล")
    day_style = xlwt.easyxf(num_format_str="DD/MM/YYYY")
    for place, title in enumerate(TITLES):
        sheet.write(1, place, title)
    for number, (code, name, day, people) in enumerate(ROWS, 2):
        for place, value in enumerate((code, name, day, people)):
            sheet.write(number, place, value, *([day_style] if isinstance(value, date) else []))
    sheet.write(4, 0, "รวมทั้งสิ้น")
    made = io.BytesIO()
    book.save(made)
    return made.getvalue()


def html() -> bytes:
    def row(cells: Any, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    rows = "".join(row([cell.replace('"', "&quot;") for cell in cells], "td") for cells in text_rows())
    return f"<html><body><p>x</p><table border=1>{row(TITLES, 'th')}{rows}</table></body></html>".encode("cp874")


def records() -> list[dict[str, Any]]:
    return [{"Code": code, "Name": name, "Day": day.isoformat(), "People": people} for code, name, day, people in ROWS]


def json_lines() -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records()).encode()


def geojson() -> bytes:
    point = {"type": "Point", "coordinates": [100.5, 13.75]}
    features = [{"type": "Feature", "properties": record, "geometry": point} for record in records()]
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def dbf() -> bytes:
    fields = [(b"CODE", b"C", 4), (b"NAME", b"C", 20), (b"DAY", b"D", 8), (b"PEOPLE", b"N", 10)]
    head = struct.pack("<BBBBIHH20x", 3, 125, 4, 1, len(ROWS), 32 + 32 * len(fields) + 1, 1 + sum(field[2] for field in fields))
    described = b"".join(struct.pack("<11sc4xBB14x", name, kind, length, 0) for name, kind, length in fields)
    body = b"".join(
        b" " + code.encode() + name.encode("cp874").ljust(20) + day.strftime("%Y%m%d").encode() + str(people).encode().rjust(10)
        for code, name, day, people in ROWS
    )
    return head + described + b"\r" + body + b"\x1a"


def zipped(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as container:
        for name, content in files.items():
            container.writestr(f"{name}.csv", content)
    return made.getvalue()


CP874 = {"encoding": "cp874"}
TOTALS = {"totals": {"column": "code", "pattern": "^รวม"}}
POSITIONS = ([1, 4], [5, 20], [25, 10], [35, 12])
PLAIN = ("1101|กรุงเทพมหานคร|01/04/2568|5,588,222|\n", "5001|เชียง\"ใหม่, เมือง|02/04/2568|1,797,075|\n")  # fmt: skip
FORMS: dict[str, tuple[str, Callable[[], bytes], dict[str, Any], dict[str, Any]]] = {
    "csv": ("a.csv", lambda: separated(","), CP874, {"quoted": True}),
    "semicolon": ("a.csv", lambda: separated(";"), CP874, {"delimiter": ";", "quoted": True}),
    "tab_no_header": (
        "a.tsv", lambda: separated("\t", header=False, quoted=False), CP874, {"delimiter": "\t", "header": False}
    ),
    "pipe_trailing": (
        "a.txt", lambda: "".join(PLAIN).encode("cp874"), CP874,
        {"delimiter": "|", "header": False, "trailingDelimiter": True},
    ),
    "fixed_width": ("a.txt", fixed, CP874 | {"format": "fixed_width"}, {"header": False}),
    "xlsx": ("a.xlsx", xlsx, {"format": "xlsx"}, TOTALS),
    "xls": ("a.xls", xls, {"format": "xls"}, TOTALS),
    "html_named_xls": ("a.xls", html, CP874 | {"format": "xls"}, {}),
    "json_lines": ("a.jsonl", json_lines, {"format": "json_lines"}, {}),
    "json": (
        "a.json", lambda: json.dumps({"result": {"rows": records()}}).encode(), {"format": "json"},
        {"recordsPath": "result.rows"},
    ),
    "geojson": ("a.geojson", geojson, {"format": "geojson"}, {}),
    "dbf": ("A.DBF", dbf, CP874 | {"format": "dbf"}, {}),
    "gzip": ("a.csv.gz", lambda: gzip.compress(separated(",")), CP874, {"quoted": True}),
    "zip_of_two": (
        "a.zip", lambda: zipped(one=separated(",").rsplit(b"\r\n", 2)[0], two=separated(",", header=True)), CP874,
        {"quoted": True},
    ),
    "gzipped_json": ("a.json.gz", lambda: gzip.compress(json_lines()), {"format": "json_lines"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_contract_and_a_file_never_seen(
    form: str, make_contract: Any, warehouse: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    name, content, server, layout = FORMS[form]
    columns = [
        column | ({"position": position} if form == "fixed_width" else {})
        for column, position in zip(COLUMNS, POSITIONS, strict=True)
    ]
    contract = make_contract(f"form_{form}", columns, server=server, layout=layout)
    (tmp_path / name).write_bytes(content())
    done = subprocess.run(
        [DOPA, "ingest", "--contract", str(contract.path), str(tmp_path / name), "--json"],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    twice = 1 if form == "zip_of_two" else 0  # the first row stands in both files
    assert (said["status"], said["rows_loaded"], said["rows_quarantined"]) == ("loaded", len(ROWS), twice), said
    with warehouse.connect() as connection:
        found = connection.execute(f"select code, name, day, people from raw.form_{form} order by code".encode()).fetchall()
    assert found == ROWS


def test_the_age_file_of_220_fields(warehouse: Any, environment: dict[str, str], tmp_path: Path) -> None:
    """Two areas with other numbers in every field; sums by group and sex are those of the fields themselves."""
    fields = [[place * 1000 + number for number in range(1, 220)] for place in (1, 2)]
    lines = [f"พื้นที่ {place}|" + "|".join(f"{value:,}" for value in row) + "|" for place, row in enumerate(fields, 1)]
    delivery = tmp_path / "stat_age6812.txt"
    delivery.write_text("\n".join(lines) + "\n", "utf-8")
    contract = Path(__file__).parents[1] / "contracts" / "population_age.odcs.yaml"
    done = subprocess.run(
        [DOPA, "ingest", "--contract", str(contract), str(delivery), "--json"],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["rows_loaded"], said["rows_quarantined"]) == (2 * 219, 0), said
    with warehouse.connect() as connection:
        found = connection.execute(
            "select sex, sum(population) from raw.population_age where age is not null group by sex order by sex"
        ).fetchall()
        total = connection.execute("select sum(population) from raw.population_age").fetchone()
    ages = [row[:204] for row in fields]
    assert found == [("female", sum(sum(row[1::2]) for row in ages)), ("male", sum(sum(row[::2]) for row in ages))]
    assert total == (sum(map(sum, fields)),)
