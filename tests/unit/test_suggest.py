"""Drafts of contracts from odd files and all forms: what is recognised, what is asked, what is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dopa_pipelines.contracts import Contract, read_contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.quality.suggest import Draft, Suggestion, suggest
from dopa_pipelines.quality.suggest_words import DIRECT, QUASI, english, has_word, names_a_thing
from dopa_pipelines.sources import open_reader
from dopa_pipelines.sources.recognise import recognise
from dopa_pipelines.sources.recognise_widths import widths_of
from tests.conftest import SAMPLE

DAY = date(2026, 1, 5)
Make = Callable[..., tuple[Suggestion, Contract]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def drafted(content: str | bytes, name: str = "sample.csv", **options: Any) -> tuple[Suggestion, Contract]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        made = suggest(path, tmp_path / "scratch", as_of=DAY, **options)
        written = tmp_path / "made.odcs.yaml"
        written.write_text(made.text, "utf-8")
        contract = read_contract(written)
        # The readers take the file by the draft.
        assert sum(batch.height for batch in open_reader(contract, path).batches()) == made.rows_read
        return made, contract

    return drafted


def column(made: Suggestion, name: str) -> Draft:
    return next(draft for draft in made.columns if draft.name == name)


def with_check_digit(body: str) -> str:
    return body + str((11 - sum(int(digit) * (13 - place) for place, digit in enumerate(body)) % 11) % 10)


def pids(count: int) -> list[str]:
    return [with_check_digit(f"1{1017:04}{place * 7919 % 10_000_000:07}") for place in range(count)]


# -- what cannot be drafted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"", "a.csv", "is empty"),
        (b"\r\n \r\n", "a.csv", "is empty"),
        (b"\xef\xbb\xbf", "a.csv", "is empty"),
        ("a,b\n1,2\n".encode("utf-16"), "a.csv", "UTF-16"),
        (b"\x7fELF\0\0\0\0" * 20, "a.bin", "no text"),
        (b"<html><body><p>none</p></body></html>", "a.xls", "without a table"),
        (b'{\n"meta": {"n": 1}, "rows": []\n}', "b.json", "no list"),
        (b"PK\x03\x04 broken", "a.xlsx", "damaged"),
        (b"a,a\n1,2\n", "a.csv", "none of its titles stands once"),
    ],
)
def test_what_is_no_sample_is_refused_in_a_sentence(make: Make, content: bytes, name: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        make(content, name)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_that_are_no_identifiers_are_refused(make: Make) -> None:
    with pytest.raises(UserError, match="--dataset 'Nope!'"):
        make("a,b\n1,2\n", dataset="Nope!")


# -- text ---------------------------------------------------------------------------------------------------------------


def test_one_column_without_header(make: Make) -> None:
    made, contract = make("".join(f"{pid}\n" for pid in pids(50)), "numbers.txt")
    assert (contract.layout.format, contract.layout.header) == ("fixed_width", False)
    assert [(draft.parse, draft.role, draft.key) for draft in made.columns] == [("citizen_number", "direct_identifier", 1)]
    assert made.rows_accepted == 50


def test_lines_of_words(make: Make) -> None:
    made, contract = make("ก\nขข\nค\nงงงง\n" * 30, "words.txt")
    assert (contract.layout.format, len(made.columns), made.rows_read) == ("delimited", 1, 120)
    assert "no delimiter was found" in made.text


def test_a_header_and_no_rows(make: Make) -> None:
    made, contract = make("เลขประจำตัวประชาชน,ชื่อ\n")
    assert contract.layout.header
    assert (made.rows_read, [draft.name for draft in made.columns]) == (0, ["pid", "first_name"])
    # By their titles alone.
    assert [draft.role for draft in made.columns] == ["direct_identifier", "direct_identifier"]


@pytest.mark.parametrize("delimiter", ["|", ",", ";", "\t", "^"])
@pytest.mark.parametrize("trailing", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "cp874"])
def test_delimiters(make: Make, delimiter: str, trailing: bool, encoding: str) -> None:
    end = delimiter * trailing + "\n"
    lines = [delimiter.join(("รหัส", "ชื่อจังหวัด", "จำนวน")), *(delimiter.join((f"{n:05}", "ระยอง", str(n * 3))) for n in range(60))]
    made, contract = make("".join(line + end for line in lines).encode(encoding))
    layout = contract.layout
    assert (layout.delimiter, layout.trailing_delimiter, layout.header, layout.encoding) == (delimiter, trailing, True, encoding)
    assert [(draft.name, draft.logical, draft.parse) for draft in made.columns] == [
        ("code", "string", "code"), ("province_name", "string", "text"), ("count", "integer", "integer"),
    ]  # fmt: skip
    assert (made.rows_read, made.rows_accepted, column(made, "code").key) == (60, 60, 1)
    assert {draft.role for draft in made.columns} == {"none"}


def test_quotes_and_commas_within(make: Make) -> None:
    lines = ["no,topic", *(f'A{n:04},"หนึ่ง, สอง"' for n in range(30))]
    made, contract = make("\n".join(lines) + "\n")
    assert contract.layout.quoted
    assert (made.rows_read, made.rows_accepted) == (30, 30)
    assert column(made, "no").pattern == r"^[A-Z]+\d{4}$"


def test_titles_that_stand_twice_or_nowhere_are_left_out_and_said(make: Make) -> None:
    made, _ = make("a,b,b,,c\n" + "1,2,3,4,x\n" * 5)
    assert [draft.name for draft in made.columns] == ["a", "c"]
    assert any("stand more than once: b" in note for note in made.notes)
    assert any("no title: 1" in note for note in made.notes)


def test_fixed_widths_of_text_and_numbers() -> None:
    draw = Random(1)
    names, towns = ["สมชาย", "มานี", "ปิติ", "ชูใจ ดี"], ["กรุงเทพ", "ระยอง", "ตราด"]
    lines = [
        f"{pid}{draw.choice(names):<20}{draw.choice(towns):<12}{draw.choice('12')}2{draw.randint(480, 567)}0715"
        for pid in pids(400)
    ]
    positions, notes = widths_of(lines, len(lines[0]))
    assert positions == [(1, 13), (14, 20), (34, 12), (46, 1), (47, 8)]
    assert notes == []


def test_digits_of_no_form_are_said_to_be_guessed() -> None:
    draw = Random(2)
    positions, notes = widths_of([f"{draw.randint(0, 10**9 - 1):09}" for _ in range(300)], 9)
    assert positions == [(1, 9)]
    assert "may be several columns" in notes[0]


# -- other forms --------------------------------------------------------------------------------------------------------

ROWS = [(f"{n:05}", f"เขต {n % 7}", n * 2, date(2024, 1, 1 + n % 28)) for n in range(60)]


def looks_right(made: Suggestion) -> None:
    assert [draft.logical for draft in made.columns] == ["string", "string", "integer", "date"]
    assert (made.columns[0].parse, made.columns[0].key, made.rows_read, made.rows_accepted) == ("code", 1, 60, 60)


def test_a_workbook_with_title_rows_and_a_total(make: Make, tmp_path: Path) -> None:
    import xlsxwriter

    with xlsxwriter.Workbook(tmp_path / "w.xlsx") as book:
        sheet = book.add_worksheet("ข้อมูล")
        sheet.merge_range(0, 0, 0, 3, "รายงานประจำปี 2568")
        sheet.write_row(2, 0, ["รหัส", "ชื่ออำเภอ", "จำนวน", "วันที่"])
        day = book.add_format({"num_format": "yyyy-mm-dd"})
        for place, row in enumerate(ROWS, 3):
            sheet.write_row(place, 0, row[:3])
            sheet.write_datetime(place, 3, datetime.combine(row[3], datetime.min.time()), day)
        sheet.write_row(63, 0, ["รวมทั้งสิ้น", "", sum(row[2] for row in ROWS)])
        book.add_worksheet("อื่น")
    made, contract = make((tmp_path / "w.xlsx").read_bytes(), "w2.xlsx")
    looks_right(made)
    assert contract.layout.sheet == "ข้อมูล"
    assert contract.layout.totals is not None and contract.layout.totals.pattern == "^รวม"
    assert any("header is row 3" in note for note in made.notes)


def test_a_page_that_is_called_a_workbook(make: Make) -> None:
    cells = "".join(f"<tr><td>{'</td><td>'.join(map(str, row))}</td></tr>" for row in ROWS)
    titles = "<tr><th>รหัส</th><th>เขต</th><th>จำนวน</th><th>วันที่</th></tr>"
    page = f"<html><table><tr><td>menu</td></tr></table><table>{titles}{cells}</table></html>"
    made, contract = make(page, "report.xls")
    looks_right(made)
    assert contract.layout.format == "html"


def test_dbf(make: Make) -> None:
    fields = [("CODE", "C", 5), ("NAME", "C", 20), ("AMOUNT", "N", 8), ("DAY", "D", 8)]
    size = 1 + sum(width for _, _, width in fields)
    head = struct.pack("<BBBBLHH20x", 3, 124, 1, 1, len(ROWS), 32 + 32 * len(fields) + 1, size)
    described = b"".join(struct.pack("<11sc4xBB14x", name.encode(), kind.encode(), width, 0) for name, kind, width in fields)
    records = b"".join(
        b" " + row[0].encode() + row[1].encode("cp874").ljust(20) + f"{row[2]:8}{row[3]:%Y%m%d}".encode()
        for row in ROWS
    )  # fmt: skip
    made, contract = make(head + described + b"\r" + records + b"\x1a", "t.dbf")
    looks_right(made)
    assert (contract.layout.format, [draft.place.title for draft in made.columns]) == ("dbf", [name for name, _, _ in fields])


def records() -> list[dict[str, Any]]:
    return [{"code": row[0], "at": {"district": row[1]}, "amount": row[2], "day": row[3].isoformat()} for row in ROWS]


@pytest.mark.parametrize(
    ("content", "form", "path"),
    [
        ("\n".join(json.dumps(record, ensure_ascii=False) for record in records()), "json_lines", ""),
        (json.dumps(records(), indent=1), "json", ""),
        (json.dumps({"total": 60, "result": {"items": records()}}), "json", "result.items"),
        (
            json.dumps({"type": "FeatureCollection", "features": [
                {"type": "Feature", "properties": record, "geometry": {"type": "Point", "coordinates": [100.5, 13.7]}}
                for record in records()
            ]}), "geojson", "",
        ),
    ],
)  # fmt: skip
def test_json(make: Make, content: str, form: str, path: str) -> None:
    made, contract = make(content, "d.json")
    assert (contract.layout.format, made.rows_read, made.rows_accepted) == (form, 60, 60)
    if form == "json":
        assert contract.layout.records_path == path
    told = {draft.place.title: (draft.logical, draft.parse) for draft in made.columns}
    assert told["code"] == ("string", "code")
    # A number in JSON is none of an identifier's digits.
    assert told["amount"] == ("integer", "integer")
    assert told["day"] == ("date", "date")
    assert told["at.district"] == ("string", "text")


def test_a_zip_and_a_folder(make: Make, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "d.zip", "w") as packed:
        packed.writestr("a.csv", "รหัส,จำนวน\n" + "".join(f"{n:05},{n}\n" for n in range(60)))
    made = suggest(tmp_path / "d.zip", tmp_path / "scratch", as_of=DAY)
    assert (made.rows_read, made.rows_accepted) == (60, 60)
    assert not any((tmp_path / "scratch").iterdir())


# -- types --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "logical", "parse"),
    [
        (["01/04/2568", "29/02/2567"], "date", "date"),
        (["1 เม.ย. 2568", "12 มกราคม 2540"], "date", "date"),
        (["25680401", "25400112", "25400000"], "date", "be_date_ymd"),
        (["2025-04-01", "2024-12-31"], "date", "date"),
        (["2025-04-01T10:20:30+07:00", "2024-12-31T01:02:03+07:00"], "timestamp", "timestamp"),
        (["1,200", "35", "-4"], "integer", "integer"),
        (["๑๒๓", "๔๕", "๖"], "integer", "integer"),
        (["1.50", "22.75"], "number", "number"),
        (["true", "false"], "boolean", "boolean"),
        (["0012", "0456"], "string", "code"),
        (["10", "7", "123"], "integer", "integer"),
        (["กข-123/2568", "คง-456/2567"], "string", "code"),
        (["ผ่าน", "ไม่ผ่าน"], "string", "text"),
        (["99999999999", "10012345678"], "string", "code"),
    ],
)
def test_types(make: Make, values: list[str], logical: str, parse: str) -> None:
    lines = "".join(f"A-{n:03};x{n % 3};{values[n % len(values)]}\n" for n in range(90))
    made, _ = make("no;kind;value\n" + lines)
    assert (column(made, "value").logical, column(made, "value").parse) == (logical, parse)
    assert made.rows_accepted == 90


def test_words_for_nothing_are_null_and_asked_about(make: Make) -> None:
    days = ["ตลอดชีพ" if n % 9 == 0 else "-" if n % 7 == 0 else f"{1 + n % 28:02}/01/2570" for n in range(120)]
    made, contract = make("no;expires_on\n" + "".join(f"A-{n:03};{day}\n" for n, day in enumerate(days)))
    assert set(contract.column("expires_on").null_values) == {"ตลอดชีพ", "-"}
    assert any("ตลอดชีพ" in text for text in column(made, "expires_on").ask)
    assert column(made, "expires_on").maximum is None
    assert made.rows_accepted == 120


def test_a_rule_that_many_rows_break_is_taken_back(make: Make) -> None:
    # A third of the days lie ahead.
    lines = "".join(f"A-{n:03};{'2031' if n % 3 == 0 else '2021'}-01-05\n" for n in range(90))
    made, contract = make("no;seen_on\n" + lines)
    assert contract.column("seen_on").maximum is None
    assert made.rows_accepted == 90
    assert any("taken back" in text for text in column(made, "seen_on").ask)


def test_a_file_of_errors_allows_them_and_says_so(make: Make) -> None:
    lines = "".join(f"A-{n:03};{'x' if n % 8 == 0 else n}\n" for n in range(160))
    made, contract = make("no;จำนวน\n" + lines)
    rejected = 100 * (made.rows_read - made.rows_accepted) / made.rows_read
    assert contract.load.max_rejected_percent >= rejected


# -- who may see it -----------------------------------------------------------------------------------------------------


def test_personal_columns_by_content_under_titles_that_say_nothing(make: Make) -> None:
    draw = Random(3)
    lines = [
        ";".join(
            (
                pid, draw.choice(("นาย", "นางสาว")) + draw.choice(("สมชาย", "มานี", "ปิติ")) + f" ใจดี{draw.choice('กขคง')}",
                f"08{draw.randint(0, 99_999_999):08}", f"u{place}@example.com", f"{draw.randint(1, 9)}/{draw.randint(1, 9)}",
                draw.choice(("แดง", "เขียว")),
            )
        )
        for place, pid in enumerate(pids(200))
    ]  # fmt: skip
    made, _ = make("f1;f2;f3;f4;f5;f6\n" + "\n".join(lines) + "\n")
    assert [draft.role for draft in made.columns] == [
        *["direct_identifier"] * 4, "quasi_identifier", "quasi_identifier",
    ]  # fmt: skip
    assert {draft.classification for draft in made.columns} == {"personal"}


def test_counts_of_people_are_of_no_person(make: Make) -> None:
    lines = "".join(f"{10 + n};{n * 31};{n * 29};{n * 60}\n" for n in range(80))
    made, _ = make("รหัสจังหวัด;จำนวนชาย;จำนวนหญิง;จำนวนผู้ป่วย\n" + lines)
    assert {draft.role for draft in made.columns} == {"none"}


def test_many_texts_without_a_title_may_be_names(make: Make) -> None:
    draw = Random(4)
    words = ["".join(draw.choice("กขคงจชซดตถทนบปพฟมยรลวสหอ") for _ in range(6)) for _ in range(90)]
    made, _ = make("".join(f"{n}|{word}|{draw.choice(('ก', 'ข'))}\n" for n, word in enumerate(words)))
    assert [draft.role for draft in made.columns] == ["none", "quasi_identifier", "none"]


def test_free_text_is_confidential(make: Make) -> None:
    lines = "".join(f'A-{n:03};"ผู้ร้องเรียนแจ้งว่าเมื่อวันที่ {n} มีเหตุเกิดขึ้นหน้าบ้านของนายแดง เลขที่ {n}"\n' for n in range(60))
    made, _ = make("no;x\n" + lines)
    assert (column(made, "x").classification, column(made, "x").role) == ("confidential", "sensitive")


@pytest.mark.parametrize(
    ("title", "thing"),
    [
        ("ชื่อโรงแรม", True), ("hotel_name", True), ("province_name_th", True), ("ชื่อหมู่บ้าน", True), ("ชื่อเจ้าของบริษัท", False),
        ("hotel_owner_name", False), ("ชื่อ", False), ("name", False), ("ชื่อผู้ใหญ่บ้าน", False), ("contact_name", False),
    ],
)  # fmt: skip
def test_whose_name_it_is(title: str, thing: bool) -> None:
    assert has_word(title, DIRECT)
    assert names_a_thing(title) is thing


def test_words_stand_by_themselves() -> None:
    assert not has_word("agency", QUASI)
    assert has_word("age", QUASI) and has_word("ageYears", QUASI) and has_word("age_2568", QUASI)
    assert not has_word("hotel_type", ("tel",))


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("ชื่อ - สกุล", "full_name"), ("น้ำหนักแรกเกิด (กรัม)", "weight_grams"), ("FirstName", "first_name"), ("CC-CODE", "cc_code"),
        ("2568", None), ("ฯลฯ", None), ("ที่อยู่ปัจจุบัน", "address"),
    ],
)  # fmt: skip
def test_names(title: str, name: str | None) -> None:
    assert english(title) == name


@pytest.mark.skipif(not SAMPLE.exists(), reason="the department's sample file is not here")
def test_the_departments_own_file(tmp_path: Path) -> None:
    found = recognise(SAMPLE)
    assert (found.layout.delimiter, found.layout.trailing_delimiter, found.layout.header, len(found.places)) == (
        "|",
        True,
        False,
        13,
    )
    made = suggest(SAMPLE, tmp_path, as_of=DAY)
    assert [draft.parse for draft in made.columns] == [
        "be_yymm", "code", "text", "code", "text", "code", "text", "code", "text", *["integer"] * 4,
    ]  # fmt: skip
    assert (made.rows_read, made.rows_accepted, {draft.role for draft in made.columns}) == (25, 25, {"none"})
