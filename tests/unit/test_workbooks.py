"""Workbooks of every kind, by other libraries or by hand: what is read, what is marked, what is refused."""

import random
import re
import struct
import time
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from datetime import time as clock
from pathlib import Path
from typing import Any

import openpyxl
import polars as pl
import pytest
import xlsxwriter
import xlwt  # type: ignore[import-untyped]

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.sources import html_table, office_file, open_reader, sheet_process
from dopa_pipelines.sources.batch import frame_of

AB = [{"name": "a"}, {"name": "b"}]
WORKBOOK = {"server": {"format": "xlsx"}}


def read(contract: Contract, path: Path) -> list[dict[str, Any]]:
    frames = [frame_of(batch) for batch in open_reader(contract, path).batches()]
    return pl.concat(frames).sort("_row").to_dicts() if frames else []


def column(rows: list[dict[str, Any]], name: str = "a") -> list[Any]:
    return [row[name] for row in rows]


def xlsx(
    path: Path, cells: dict[str, Any] | list[list[Any]], options: dict[str, Any] | None = None, sheet: str = "Sheet1"
) -> Path:
    """A workbook by xlsxwriter: rows of values, or a value (or ``(value, number format)``) by place such as ``B2``."""
    with xlsxwriter.Workbook(path, options or {}) as book:
        made = book.add_worksheet(sheet)
        if isinstance(cells, list):
            for number, row in enumerate(cells):
                made.write_row(number, 0, row)
        else:
            for place, value in cells.items():
                form = book.add_format({"num_format": value[1]}) if isinstance(value, tuple) else None
                value = value[0] if isinstance(value, tuple) else value
                if isinstance(value, datetime | date | clock):
                    made.write_datetime(place, value, form)
                else:
                    made.write(place, value, form)
    return path


def xls(path: Path, rows: list[list[Any]]) -> Path:
    """An old workbook by xlwt."""
    book = xlwt.Workbook()
    sheet = book.add_sheet("S")
    day = xlwt.easyxf(num_format_str="dd/mm/yyyy")
    for number, row in enumerate(rows):
        for place, value in enumerate(row):
            sheet.write(number, place, value, day) if isinstance(value, date) else sheet.write(number, place, value)
    book.save(str(path))
    return path


def repacked(path: Path, change: Callable[[str, bytes], bytes | None], more: dict[str, bytes] | None = None) -> Path:
    """The same zip with other parts."""
    with zipfile.ZipFile(path) as book:
        parts = {name: change(name, book.read(name)) for name in book.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, data in (parts | (more or {})).items():
            if data is not None:
                book.writestr(name, data)
    return path


def refused(contract: Contract, path: Path) -> str:
    """The sentence that refuses the file: one line, with the file's name in front."""
    with pytest.raises(Rejected) as raised:
        read(contract, path)
    sentence = str(raised.value)
    assert sentence.startswith(f"{path.name}: ")
    assert "\n" not in sentence
    return sentence


# What the file is


@pytest.mark.parametrize("declared", ["xlsx", "xls", "html"])
@pytest.mark.parametrize("real", ["xlsx", "xls", "html"])
def test_the_first_bytes_decide_what_a_file_is(make_contract: Any, tmp_path: Path, declared: str, real: str) -> None:
    path = tmp_path / "register.xls"
    if real == "xlsx":
        xlsx(path, [["a", "b"], ["ก", 1]])
    elif real == "xls":
        xls(path, [["a", "b"], ["ก", 1]])
    else:
        path.write_text("<html><table><tr><th>a<th>b<tr><td>ก<td>1</table>", "utf-8")
    rows = read(make_contract("wb_kind", AB, server={"format": declared}), path)
    assert [(row["_row"], row["a"], row["b"], row["_original"]) for row in rows] == [(2, "ก", "1", "ก\t1")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"a,b\n1,2\n", "looks like plain text"),
        (b"%PDF-1.7\n", "looks like a PDF"),
        (b'{"a": 1}', "looks like JSON"),
        (b"\xff\xfe<\0h\0t\0m\0l\0", "looks like UTF-16 text"),
        (b"\x09\x08\x10\x00\x00\x06", "looks like a bare stream"),
        (b"\x00\x01\x02\x03", "looks like something unknown"),
        (b"<?xml version='1.0'?><rows/>", "looks like XML"),
        (b"<?xml version='1.0'?><Workbook xmlns='urn:schemas-microsoft-com:office:spreadsheet'/>", "XML of Excel 2003"),
        (b"MIME-Version: 1.0\n", "looks like a web archive"),
        (b"PK\x03\x04 cut", "cut off or damaged"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 cut", "cut off or damaged"),
    ],
)
def test_what_is_no_workbook_is_refused_by_what_it_looks_like(
    make_contract: Any, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "delivery.xls"
    path.write_bytes(content)
    assert words in refused(make_contract("wb_none", AB, **WORKBOOK), path)


@pytest.mark.parametrize(("part", "words"), [("word/document.xml", "Word document"), ("a.txt", "without a workbook")])
def test_other_zips_are_refused(make_contract: Any, tmp_path: Path, part: str, words: str) -> None:
    path = tmp_path / "delivery.xlsx"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("[Content_Types].xml", "<Types/>")
        made.writestr(part, "x")
    assert words in refused(make_contract("wb_zip", AB, **WORKBOOK), path)


# Values


def test_values_are_text_as_typed(make_contract: Any, tmp_path: Path) -> None:
    given: dict[str, tuple[Any, str]] = {
        "text": ("text", "text"),
        "leading zeros": ("0012", "0012"),
        "citizen number": (1101700230708, "1101700230708"),
        "whole": (5.0, "5"),
        "fraction": (5.5, "5.5"),
        "amount": (1234567890.12, "1234567890.12"),
        "large amount": (123456789012.34, "123456789012.34"),
        "coordinate": (100.523186123456, "100.523186123456"),
        "noise": (0.1 + 0.2, "0.3"),
        "tiny": (1e-10, "0.0000000001"),
        "small": (0.00001, "0.00001"),
        "large": (1e20, "100000000000000000000"),
        "true": (True, "true"),
        "false": (False, "false"),
        "day": ((datetime(2025, 4, 1), "dd/mm/yyyy"), "2025-04-01"),
        "thai day": ((datetime(2025, 4, 1), "[$-107041E]d mmm yyyy;@"), "2025-04-01"),
        "moment": ((datetime(2025, 4, 1, 12, 30), "dd/mm/yyyy hh:mm"), "2025-04-01 12:30:00"),
        "buddhist year": ((datetime(2568, 4, 1), "dd/mm/yyyy"), "2568-04-01"),
        "time": ((clock(12, 30), "hh:mm"), "12:30:00"),
        "lines": ("a\nb", "a\nb"),
        "spaces": (" a ", " a "),
    }
    cells: dict[str, Any] = {"A1": "a", "B1": "b"}
    for number, (name, (value, _)) in enumerate(given.items(), 2):
        cells |= {f"A{number}": value, f"B{number}": name}
    rows = read(make_contract("wb_values", AB, **WORKBOOK), xlsx(tmp_path / "b.xlsx", cells))
    assert dict(zip(column(rows, "b"), column(rows), strict=True)) == {name: text for name, (_, text) in given.items()}


def test_values_of_an_old_workbook(make_contract: Any, tmp_path: Path) -> None:
    values = ["0012", 1101700230708.0, 1234567890.12, 5.0, True, date(2025, 4, 1), date(2568, 4, 1), 0.1 + 0.2, "น้ำ"]
    path = xls(tmp_path / "b.xls", [["a", "b"], *([value, "x"] for value in values)])
    rows = read(make_contract("wb_values", AB, server={"format": "xls"}), path)
    assert column(rows) == ["0012", "1101700230708", "1234567890.12", "5", "true", "2025-04-01", "2568-04-01", "0.3", "น้ำ"]


def test_numbers_that_are_no_numbers_do_no_harm(make_contract: Any, tmp_path: Path) -> None:
    path = xlsx(tmp_path / "b.xlsx", [["a", "b"], [1001, "x"], [1002, "y"], [1003, "z"]])

    def change(name: str, data: bytes) -> bytes:
        if name == "xl/worksheets/sheet1.xml":
            data = data.replace(b"<v>1001</v>", b"<v>1e309</v>").replace(b"<v>1002</v>", b"<v>-0</v>")
        return data

    repacked(path, change)
    assert column(read(make_contract("wb_infinite", AB, **WORKBOOK), path)) == ["inf", "-0", "1003"]


def test_formulas_give_what_excel_calculated_and_errors_their_name(make_contract: Any, tmp_path: Path) -> None:
    errors = ["#REF!", "#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#VALUE!"]
    with xlsxwriter.Workbook(tmp_path / "b.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.write_row("C3", ["a", "b"])  # neither the first row nor the first column
        for number, value in enumerate([42, "ผล", *errors], 4):
            sheet.write_formula(f"C{number}", "=X1", None, value)
            sheet.write(f"D{number}", "x")
    rows = read(make_contract("wb_formulas", AB, **WORKBOOK), tmp_path / "b.xlsx")
    assert column(rows) == ["42", "ผล", *errors]
    assert column(rows, "_row") == [*range(4, 13)]
    book = xlwt.Workbook()
    sheet = book.add_sheet("S")
    for place, title in enumerate("ab"):
        sheet.write(0, place, title)
    codes = {"#REF!": 0x17, "#DIV/0!": 0x07, "#N/A": 0x2A, "#NAME?": 0x1D, "#NULL!": 0x00, "#NUM!": 0x24, "#VALUE!": 0x0F}
    for number, error in enumerate(errors, 1):
        sheet.row(number).set_cell_error(0, codes[error])  # MS-XLS, 2.5.10; xlwt's own names are wrong
        sheet.write(number, 1, "x")
    book.save(str(tmp_path / "b.xls"))
    assert column(read(make_contract("wb_formulas", AB, **WORKBOOK), tmp_path / "b.xls")) == errors


DATED = [{"name": "a", "logicalType": "date"}, {"name": "b"}]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (45748, "2025-04-01"),  # 1 April 2025 in Excel
        (45748.5, "2025-04-01 12:00:00"),
        (10000, "1927-05-18"),
        (244075, "2568-04-01"),  # counted by Python: date(2568, 4, 1) - date(1899, 12, 30)
        (60, "60"),  # Excel's 29 February 1900, which never was
        (2568, "2568"),  # a year
        (6812, "6812"),  # yymm
        (25680401, "25680401"),
        (120000, "120000"),  # 2228: no year of any era
        (-5, "-5"),
    ],
)
def test_a_serial_number_in_a_column_of_dates_is_a_date(make_contract: Any, tmp_path: Path, number: float, expected: str) -> None:
    path = xlsx(tmp_path / "b.xlsx", [["a", "b"], [number, number]])
    (row,) = read(make_contract("wb_serials", DATED, **WORKBOOK), path)
    assert (row["a"], row["b"]) == (expected, str(number))


def test_dates_of_the_1904_system(make_contract: Any, tmp_path: Path) -> None:
    path = xlsx(
        tmp_path / "b.xlsx",
        {"A1": "a", "B1": "b", "A2": 44286, "B2": (datetime(2025, 4, 1), "dd/mm/yyyy"), "B3": 44286},
        {"date_1904": True},
    )
    rows = read(make_contract("wb_1904", DATED, **WORKBOOK), path)
    assert [(row["a"], row["b"]) for row in rows] == [("2025-04-01", "2025-04-01"), (None, "44286")]
    book = xlwt.Workbook()
    book.dates_1904 = True
    sheet = book.add_sheet("S")
    for place, value in enumerate(["a", "b", 44286.0, "x"]):
        sheet.write(place // 2, place % 2, value)
    book.save(str(tmp_path / "b.xls"))
    assert column(read(make_contract("wb_1904", DATED, **WORKBOOK), tmp_path / "b.xls")) == ["2025-04-01"]


def test_timestamps_keep_their_time_and_codes_their_digits(make_contract: Any, tmp_path: Path) -> None:
    columns = [{"name": "a", "logicalType": "timestamp"}, {"name": "b", "logicalType": "date", "parse": "be_yymm"}]
    path = xlsx(
        tmp_path / "b.xlsx",
        {"A1": "a", "B1": "b", "A2": (datetime(2025, 4, 1), "dd/mm/yyyy"), "B2": 6812, "A3": 45748.75, "B3": 45748},
    )
    rows = read(make_contract("wb_moments", columns, **WORKBOOK), path)
    assert [(row["a"], row["b"]) for row in rows] == [("2025-04-01 00:00:00", "6812"), ("2025-04-01 18:00:00", "45748")]


# Layout

GROUPED = [
    {"name": "area", "physicalName": "พื้นที่"},
    {"name": "men", "physicalName": "ประชากร ชาย"},
    {"name": "women", "physicalName": "ประชากร หญิง"},
    {"name": "note", "physicalName": "หมายเหตุ"},
]


def test_a_header_of_two_rows_with_merged_cells(make_contract: Any, tmp_path: Path) -> None:
    with xlsxwriter.Workbook(tmp_path / "b.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.merge_range("B1:E1", "จำนวนประชากร")
        sheet.merge_range("B3:B4", "พื้นที่")
        sheet.merge_range("C3:D3", "ประชากร")
        sheet.write_row("C4", ["ชาย", "หญิง", "หมายเหตุ"])  # the last has nothing above it
        sheet.write_row("B5", ["ก", 1, 2, "x"])
        sheet.merge_range("B6:B7", "ข")
        sheet.write_row("C6", [3, 4])
        sheet.write_row("C7", [5, 6])
    contract = make_contract("wb_grouped", GROUPED, **WORKBOOK, layout={"headerRows": 2})
    rows = read(contract, tmp_path / "b.xlsx")
    assert [(row["_row"], row["area"], row["men"], row["women"], row["note"]) for row in rows] == [
        (5, "ก", "1", "2", "x"), (6, "ข", "3", "4", None), (7, None, "5", "6", None),
    ]  # fmt: skip


def test_a_header_of_two_rows_in_an_old_workbook(make_contract: Any, tmp_path: Path) -> None:
    book = xlwt.Workbook()
    sheet = book.add_sheet("S")
    sheet.write_merge(0, 1, 0, 0, "พื้นที่")
    sheet.write_merge(0, 0, 1, 2, "ประชากร")
    sheet.write_merge(0, 1, 3, 3, "หมายเหตุ")
    for place, value in enumerate(["ชาย", "หญิง"], 1):
        sheet.write(1, place, value)
    for place, value in enumerate(["ก", 1, 2, "x"]):
        sheet.write(2, place, value)
    book.save(str(tmp_path / "b.xls"))
    contract = make_contract("wb_grouped", GROUPED, server={"format": "xls"}, layout={"headerRows": 2})
    (row,) = read(contract, tmp_path / "b.xls")
    assert (row["_row"], row["area"], row["men"], row["women"], row["note"]) == (3, "ก", "1", "2", "x")


def test_titles_in_two_languages(make_contract: Any, tmp_path: Path) -> None:
    columns = [
        {"name": "a", "physicalName": "รหัสจังหวัด"},
        {"name": "b", "physicalName": "Population Male"},
        {"name": "c", "physicalName": "สี Colour"},
    ]
    one = xlsx(tmp_path / "1.xlsx", [["รหัสจังหวัด\nProvince code", "Population Male", "สี\nColour"], ["10", 1, "ขาว"]])
    rows = [(row["a"], row["b"], row["c"]) for row in read(make_contract("wb_lingual", columns, **WORKBOOK), one)]
    assert rows == [("10", "1", "ขาว")]
    two = xlsx(
        tmp_path / "2.xlsx",
        [["รหัสจังหวัด\nProvince code", "ประชากร\nPopulation", "สี"], [None, "ชาย\nMale", "Colour"], ["10", 1, "ขาว"]],
    )
    contract = make_contract("wb_lingual", columns, **WORKBOOK, layout={"headerRows": 2})
    assert [(row["a"], row["b"], row["c"]) for row in read(contract, two)] == rows


def test_a_title_that_stands_twice_is_refused(make_contract: Any, tmp_path: Path) -> None:
    path = xlsx(tmp_path / "b.xlsx", [["a", "b", "a"], [1, 2, 3]])
    assert "stands 2 times" in refused(make_contract("wb_twice", AB, **WORKBOOK), path)


def test_a_missing_column_is_refused_and_an_unknown_one_told(make_contract: Any, tmp_path: Path) -> None:
    path = xlsx(tmp_path / "b.xlsx", [["a", "c\nd"], [1, 2]])
    assert "column missing: b (b); the file has: a, c d" in refused(make_contract("wb_lacks", AB, **WORKBOOK), path)
    reader = open_reader(make_contract("wb_lacks", AB[:1], **WORKBOOK), path)
    list(reader.batches())
    assert reader.unknown_titles == ("c d",)


def test_sheets_are_chosen_by_name(make_contract: Any, tmp_path: Path) -> None:
    name = "'; drop table x; --"
    book = openpyxl.Workbook()
    book.active.append(["a", "b"])
    for value, title in ((1, name), (2, " ข้อมูล ")):
        sheet = book.create_sheet(title)
        sheet.append(["a", "b"])
        sheet.append([value, value])
    path = tmp_path / "b.xlsx"
    book.save(path)
    for wanted, value in ((name, "1"), (" ข้อมูล ", "2"), ("ข้อมูล", "2")):
        contract = make_contract("wb_sheets", AB, **WORKBOOK, layout={"sheet": wanted})
        assert column(read(contract, path)) == [value]
    contract = make_contract("wb_sheets", AB, **WORKBOOK, layout={"sheet": "2568"})
    assert "has no sheet '2568'; its sheets: 'Sheet'" in refused(contract, path)


@pytest.mark.parametrize("rows", [[], [["a", "b"]]])
def test_an_empty_sheet_is_refused_and_a_header_alone_holds_no_rows(
    make_contract: Any, tmp_path: Path, rows: list[list[Any]]
) -> None:
    path = xlsx(tmp_path / "b.xlsx", rows)
    contract = make_contract("wb_empty", AB, **WORKBOOK)
    if rows:
        assert read(contract, path) == []
    else:
        assert "sheet is empty" in refused(contract, path)


def test_sheets_longer_than_a_batch(make_contract: Any, tmp_path: Path) -> None:
    count = sheet_process.ROWS * 2 + 17
    path = tmp_path / "b.xlsx"
    with xlsxwriter.Workbook(path, {"constant_memory": True}) as book:
        sheet = book.add_worksheet()
        for number in range(count):
            sheet.write_row(number, 0, ["a", "b"] if not number else [f"{number:06}", "same"])
    rows = read(make_contract("wb_long", AB, **WORKBOOK), path)
    assert column(rows) == [f"{number:06}" for number in range(1, count)]
    assert column(rows, "_row") == [*range(2, count + 1)]
    assert rows[-1]["_original"] == f"{count - 1:06}\tsame"


@pytest.mark.parametrize("rows", [0, 1.5, "2", 21, True])
def test_header_rows_of_a_contract_are_checked(make_contract: Any, rows: Any) -> None:
    with pytest.raises(Exception, match="headerRows"):
        make_contract("wb_header_rows", AB, **WORKBOOK, layout={"headerRows": rows})
    with pytest.raises(Exception, match="headerRows is for"):
        make_contract("wb_header_rows", AB, layout={"headerRows": 2})


# Hostile workbooks


def test_a_zip_bomb_is_refused_by_what_comes_out_of_it(
    make_contract: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = xlsx(tmp_path / "b.xlsx", [["a", "b"], [1, 2]])
    repacked(path, lambda name, data: data, {"xl/media/image1.png": bytes(30_000_000)})
    data = bytearray(path.read_bytes())
    # The directory claims that the part is small.
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"xl/media/image1.png"))
    struct.pack_into("<L", data, at + 24, 100)
    path.write_bytes(data)
    contract = make_contract("wb_bomb", AB, **WORKBOOK)
    monkeypatch.setattr(office_file, "RATIO_FROM_BYTES", 20_000_000)
    assert "unpacks to more than 200 times" in refused(contract, path)


def test_document_types_and_entities_are_refused(make_contract: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for encoding in ("utf-8", "utf-16-le"):
        path = xlsx(tmp_path / "b.xlsx", [["a", "b"], ["x", 2]])

        def change(name: str, data: bytes, encoding: str = encoding) -> bytes:
            if name != "xl/sharedStrings.xml":
                return data
            text = data.decode().replace("<sst", f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}">]><sst')
            return text.replace("<t>x</t>", "<t>&e;</t>").encode(encoding)

        assert "declares a document type" in refused(make_contract("wb_entity", AB, **WORKBOOK), repacked(path, change))


def test_what_a_protected_workbook_looks_like_is_refused(make_contract: Any, tmp_path: Path) -> None:
    contract = make_contract("wb_protected", AB, **WORKBOOK)
    path = tmp_path / "b.xlsx"
    path.write_bytes(compound_file({"EncryptionInfo": b"x" * 5000, "EncryptedPackage": b"y" * 9000}))
    assert "is protected by a password" in refused(contract, path)
    # FILEPASS is the record that says so in an old workbook.
    stream = struct.pack("<HHHHLLL", 0x809, 16, 0x600, 5, 0, 0, 0)[:20] + struct.pack("<HHH", 0x2F, 2, 0)
    path.write_bytes(compound_file({"Workbook": stream.ljust(5000, b"\0")}))
    assert "is protected by a password" in refused(contract, path)
    path.write_bytes(compound_file({"WordDocument": b"x" * 5000}))
    assert "is a Word document" in refused(contract, path)


def compound_file(streams: dict[str, bytes]) -> bytes:
    """A compound file (MS-CFB, version 3) by hand: one sector of allocation table, one of directory, then the streams."""
    free, end, table = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
    allocation, sectors, entries = [table, end], b"", []
    for name, data in streams.items():
        count = -(-len(data) // 512)
        start = len(allocation)
        allocation += [*range(start + 1, start + count), end]
        sectors += data.ljust(count * 512, b"\0")
        entries.append((name, 2, start, len(data)))
    directory = b""
    for name, kind, start, size in [("Root Entry", 5, end, 0), *entries]:
        text = f"{name}\0".encode("utf-16-le")
        links = struct.pack("<LLL", free, free, 1 if kind == 5 else free)
        directory += text.ljust(64, b"\0") + struct.pack("<HBB", len(text), kind, 1) + links + bytes(36)
        directory += struct.pack("<LQ", start, size)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    header += struct.pack("<LLLLLLLLL", 0, 1, 1, 0, 4096, end, 0, end, 0) + struct.pack("<109L", 0, *[free] * 108)
    fat = struct.pack("<128L", *(allocation + [free] * 128)[:128])
    return header + fat + directory.ljust(512, b"\0") + sectors


def test_a_cell_in_the_farthest_corner_is_refused(make_contract: Any, tmp_path: Path) -> None:
    path = xlsx(tmp_path / "b.xlsx", {"A1": "a", "B1": "b", "A2": 1, "XFD1048576": "far"})
    start = time.monotonic()
    assert "GiB to be read: clear what stands far below" in refused(make_contract("wb_sparse", AB, **WORKBOOK), path)
    assert time.monotonic() - start < 30


def test_a_parser_that_dies_is_a_refusal(make_contract: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = make_contract("wb_dies", AB, **WORKBOOK)
    path = xlsx(tmp_path / "b.xlsx", [["a", "b"], [1, 2]])
    for code, words in (
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "cannot be read"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "minutes or too much memory"),
        ("import sys; sys.exit('memory allocation of 549755813888 bytes failed')", "GiB to be read"),
        ("pass", "cannot be read"),
    ):
        program = tmp_path / "process.py"
        program.write_text(code)
        monkeypatch.setattr(sheet_process, "__file__", str(program))
        assert words in refused(contract, path)


def test_reading_may_end_early(make_contract: Any, tmp_path: Path) -> None:
    path = xlsx(tmp_path / "b.xlsx", [["a", "b"], *([number, "x"] for number in range(60_000))])
    batches = open_reader(make_contract("wb_early", AB, **WORKBOOK), path).batches()
    assert next(batches).height
    batches.close()  # type: ignore[attr-defined]


def test_parts_that_are_damaged_are_refused(make_contract: Any, tmp_path: Path) -> None:
    contract = make_contract("wb_damaged", AB, **WORKBOOK)
    path = xlsx(tmp_path / "b.xlsx", [["a", "b"], [1, 2]])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "cut off or damaged" in refused(contract, path)
    path.write_bytes(data)
    repacked(path, lambda name, part: part[: len(part) // 2] if name.endswith("sheet1.xml") else part)
    assert "cannot be read" in refused(contract, path)
    path.write_bytes(data)
    repacked(path, lambda name, part: None if name.endswith("sheet1.xml") else part)
    assert "cannot be read" in refused(contract, path)


@pytest.mark.parametrize("encoding", [b"nowhere-8", b"utf-7", b"big5"])
def test_parts_in_an_encoding_that_xml_is_not_read_in_end_in_a_sentence_or_rows(
    make_contract: Any, tmp_path: Path, encoding: bytes
) -> None:
    path = xlsx(tmp_path / "b.xlsx", [["a", "b"], [1, 2]])
    repacked(path, lambda name, part: part.replace(b"UTF-8", encoding, 1) if name == "xl/workbook.xml" else part)
    try:
        rows = read(make_contract("wb_encoding", AB, **WORKBOOK), path)
    except Rejected as refusal:
        assert "cannot be read" in str(refusal)
    else:
        assert [(row["a"], row["b"]) for row in rows] == [("1", "2")]


# HTML


def page(text: str, encoding: str = "utf-8") -> bytes:
    return text.encode(encoding)


MESSY = """<!DOCTYPE html><html><head><meta charset="windows-1252"><style>td { a: "<td>" }</style>
<script>document.write("<table><tr><td>a</td><td>b</td></tr>")</script></head><body>
<table><tr><td>layout</td></tr></table>
<TABLE border=1><caption>ทะเบียน</caption><tr><td colspan=2>รายงาน
<tr><th> A <!-- a --></th><th>B</th></tr>
<tr><td>น้ำ&nbsp;&amp; ไฟ</td><td>1<br>2</td></tr>
<tr><td>  two
   spaces  <td>&#3585;&lt;b&gt;<script>x</script>
<tr><td rowspan=2>merged</td><td><table><tr><td>inner</td></tr></table>outer</td></tr>
<tr><td>beside</td></tr>
<tr></tr>
<tr><td x:num="1101700230708">1.1017E+12</td><td x:num="45748">1/4/2568</td></tr>
</TABLE><p>foot"""


@pytest.mark.parametrize("encoding", ["utf-8", "cp874"])
@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_html_as_it_is_written(
    make_contract: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, piece: int
) -> None:
    monkeypatch.setattr(html_table, "PIECE_CHARACTERS", piece)
    path = tmp_path / "b.xls"
    path.write_bytes(page(MESSY, encoding))
    rows = read(make_contract("wb_html", AB, server={"format": "html", "encoding": encoding}), path)
    assert [(row["_row"], row["a"], row["b"]) for row in rows] == [
        (3, "น้ำ\xa0& ไฟ", "1\n2"), (4, "two spaces", "ก<b>"), (5, "merged", "outer"), (6, None, "beside"),
        (8, "1101700230708", "1/4/2568"),
    ]  # fmt: skip


def test_a_header_of_two_rows_in_html(make_contract: Any, tmp_path: Path) -> None:
    path = tmp_path / "b.xls"
    path.write_text(
        "<table><tr><th rowspan=2>พื้นที่<th colspan=2>ประชากร<th rowspan=2>หมายเหตุ<tr><th>ชาย<th>หญิง"
        "<tr><td>ก<td>1<td>2<td>x</table>",
        "utf-8",
    )
    contract = make_contract("wb_grouped", GROUPED, server={"format": "html"}, layout={"headerRows": 2})
    (row,) = read(contract, path)
    assert (row["_row"], row["area"], row["men"], row["women"], row["note"]) == (3, "ก", "1", "2", "x")


def test_tables_that_go_on_are_read_on_and_others_counted(make_contract: Any, tmp_path: Path) -> None:
    path = tmp_path / "b.xls"
    head = "<tr><th>a</th><th>b</th></tr>"
    path.write_text(
        f"<table>{head}<tr><td>1</td><td>x</td></tr></table><table><tr><td>page 2</td></tr></table>"
        f"<table>{head}<tr><td>2</td><td>y</td></tr></table>",
        "utf-8",
    )
    reader = open_reader(make_contract("wb_pages", AB, server={"format": "html"}), path)
    rows = pl.concat(map(frame_of, reader.batches())).to_dicts()
    assert [(row["_row"], row["a"], row["b"]) for row in rows] == [(2, "1", "x"), (4, "2", "y")]
    assert reader.layout_rows == 1
    path.write_text(f"<table>{head}</table><table><tr><td>a<td>c<tr><td>1<td>2</table>", "utf-8")
    contract = make_contract("wb_pages", AB, server={"format": "html"})
    assert "has a second table" in refused(contract, path)


def test_rows_of_html_that_cannot_be_taken_are_marked(make_contract: Any, tmp_path: Path) -> None:
    path = tmp_path / "b.xls"
    rows = [
        b"<td>\xe0\xb8\x81<td>1",
        b"<td>\xe0\xb8\x81<td>1<td>extra",
        b"<td>\xff<td>1",
        b"<td>only",
        b"<td>n\0l<td>1",
        b"<td>2<td>3<td> ",
    ]
    path.write_bytes(b"<table><tr><th>a<th>b\n<tr>" + b"\n<tr>".join(rows) + b"</table>")
    found = read(make_contract("wb_marked", AB, server={"format": "html"}), path)
    assert [(row["_row"], row["_flaw"], row["a"]) for row in found] == [
        (2, None, "ก"), (3, "ragged_line", None), (4, "undecodable", None), (5, None, "only"), (6, "undecodable", None),
        (7, None, "2"),
    ]  # fmt: skip
    assert [row["_original"] for row in found[1:3]] == ["ก\t1\textra", "\\xff\t1"]
    assert found[4]["_original"] == "n\\x00l\t1"


def test_numbers_in_html_are_no_serial_numbers(make_contract: Any, tmp_path: Path) -> None:
    path = tmp_path / "b.xls"
    path.write_text("<table><tr><th>a<th>b<tr><td>45748<td>45748</table>")
    assert column(read(make_contract("wb_html_dates", DATED, server={"format": "html"}), path)) == ["45748"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<table><tr><th>a<th>b<tr><td>1<td>2", "is cut off"),
        ("<table><tr><th>a<th>b<tr><td>1<td>2</table", "is cut off"),
        ("<table><tr><th>a<th>b<tr><td>1<td><script>2</td></tr></table>", "is cut off"),
        ("<table><tr><th>c<th>d<tr><td>1<td>2</table>", "no header row found"),
        ("<html>nothing</html>", "no header row found"),
        ("<table><tr>" + "<td>x" * 2_000_000 + "</table>", "more than 16,384 cells"),
        ("<table><tr>" + "<td colspan=1000>x" * 20 + "</table>", "more than 16,384 cells"),
        ("<table>" + "<tr>" + "<td colspan=1000 rowspan=65534>" * 16 + "<tr>" * 65_000, "merged cells cover more"),
        ("<table><tr><td>" * 50, "nested more than"),
        ("<table><tr><td>" + "x" * 2_000_000, "more than 1,048,576 characters"),
        ("<table><!--" + "<td>" * 500_000, "a tag or comment of more"),
        ("<table><tr><td " + "a" * 2_000_000, "a tag or comment of more"),
    ],
)
def test_html_that_is_cut_off_or_made_to_harm_is_refused(make_contract: Any, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "b.xls"
    path.write_text(text)
    start = time.monotonic()
    assert words in refused(make_contract("wb_harm", AB, server={"format": "html"}), path)
    assert time.monotonic() - start < 30


# Any bytes


def mutations(data: bytes, count: int, seed: int) -> list[bytes]:
    """Copies with bytes changed, taken out, doubled or cut off."""
    random_ = random.Random(seed)
    made = []
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(random_.choice([1, 2, 8])):
            at, length = random_.randrange(len(changed)), random_.choice([1, 2, 4, 64])
            match random_.randrange(4):
                case 0:
                    changed[at : at + length] = random_.randbytes(length)
                case 1:
                    del changed[at : at + length]
                    changed = changed or bytearray(b"x")
                case 2:
                    changed[at:at] = changed[at : at + length]
                case _:
                    changed[at : at + 1] = random_.choice([b"\0", b"\xff", b"<", b">", b'"', b"&", b"\x7f"])
        made.append(bytes(changed[: random_.randrange(len(changed))] if random_.random() < 0.1 else changed))
    return made


def zip_part_mutations(path: Path, part: str, count: int, seed: int) -> list[bytes]:
    """A workbook with a sound zip around a part that is not."""
    original = path.read_bytes()
    with zipfile.ZipFile(path) as book:
        broken = mutations(book.read(part), count, seed)
    made = []
    for data in broken:
        path.write_bytes(original)
        repacked(path, lambda name, old, data=data: data if name == part else old)  # type: ignore[misc]
        made.append(path.read_bytes())
    path.write_bytes(original)
    return made


@pytest.mark.parametrize("form", ["zip", "sheet", "strings", "styles", "book", "xls", "html"])
def test_changed_bytes_end_as_rows_or_as_one_sentence(make_contract: Any, tmp_path: Path, form: str) -> None:
    path = tmp_path / "b.xls"
    rows = [["ชื่อ", "วันที่"], *([f"ก{number}", date(2025, 4, 1 + number)] for number in range(20))]
    columns = [{"name": "a", "physicalName": "ชื่อ"}, {"name": "b", "physicalName": "วันที่", "logicalType": "date"}]
    contract = make_contract("wb_any", columns, **WORKBOOK)
    count = 30
    if form == "html":
        body = "".join(f"<tr><td>{name}</td><td>{day}</td></tr>" for name, day in rows)
        inputs = mutations(page(f"<html><table border='1'>{body}</table></html>"), 400, 1)
    elif form == "xls":
        inputs = mutations(xls(path, rows).read_bytes(), 40, 2)
    else:
        xlsx(path, [list(map(str, row)) for row in rows])
        parts = {
            "sheet": "xl/worksheets/sheet1.xml", "strings": "xl/sharedStrings.xml", "styles": "xl/styles.xml",
            "book": "xl/workbook.xml",
        }  # fmt: skip
        inputs = mutations(path.read_bytes(), count, 3) if form == "zip" else zip_part_mutations(path, parts[form], count, 4)
    ended = {"rows": 0, "refused": 0}
    for data in inputs:
        path.write_bytes(data)
        try:
            read(contract, path)
            ended["rows"] += 1
        except UserError as error:
            assert re.fullmatch(r"b\.xls: [^\n]+", str(error)), error
            ended["refused"] += 1
    assert ended["rows"] + ended["refused"] == len(inputs)
    assert ended["refused"]
