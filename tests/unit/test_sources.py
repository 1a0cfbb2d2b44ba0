"""Readers on small files: what they take apart, what they mark, what they refuse."""

import csv
import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xlsxwriter
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected
from dopa_pipelines.sources import lines, open_reader
from dopa_pipelines.sources.batch import frame_of

AB = [{"name": "a"}, {"name": "b"}]


def read(contract: Contract, path: Path) -> tuple[list[dict[str, Any]], int]:
    reader = open_reader(contract, path)
    frames = [frame_of(batch) for batch in reader.batches()]
    return (pl.concat(frames).sort("_row").to_dicts() if frames else []), reader.layout_rows


def values(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["_row"], row["_flaw"], row["a"], row["b"]) for row in rows]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def make(content: bytes) -> Path:
        path = tmp_path / "delivery.txt"
        path.write_bytes(content)
        return path

    return make


@pytest.mark.parametrize(
    ("content", "layout", "expected"),
    [
        (b"a,b\n1,2\n", {}, [(2, None, "1", "2")]),
        (b"b,a\n1,2", {}, [(2, None, "2", "1")]),
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n", {}, [(2, None, "1", "2")]),
        (b"1,2\n3,4\n", {"header": False}, [(1, None, "1", "2"), (2, None, "3", "4")]),
        (b"1,2,\n", {"header": False, "trailingDelimiter": True}, [(1, None, "1", "2")]),
        (
            b"1,2\n3\n4,5,6\n",
            {"header": False},
            [(1, None, "1", "2"), (2, "ragged_line", None, None), (3, "ragged_line", None, None)],
        ),
        (b"a,b\n\n  \n1,2\n", {}, [(4, None, "1", "2")]),
        (b'a,b\n"x,y",2\n', {"quoted": True}, [(2, None, "x,y", "2")]),
        (b'a,b\n"x\ny",2\n3,4\n', {"quoted": True}, [(2, None, "x\ny", "2"), (4, None, "3", "4")]),
        (b'a,b\n"say ""hi""",2\n', {"quoted": True}, [(2, None, 'say "hi"', "2")]),
        (b'a,b\n"open,2\n3,4\n', {"quoted": True}, [(2, "ragged_line", None, None), (3, None, "3", "4")]),
        (b'a,b\n"x",2\n', {}, [(2, None, '"x"', "2")]),
        (b"a,b\n1\x00,2\n3,4\n", {}, [(2, "undecodable", None, None), (3, None, "3", "4")]),
    ],
)  # fmt: skip
def test_delimited(make_contract: Any, write: Any, content: bytes, layout: dict[str, Any], expected: list[Any]) -> None:
    rows, _ = read(make_contract("d", AB, layout=layout), write(content))
    assert values(rows) == expected


def test_the_original_is_the_line(make_contract: Any, write: Any) -> None:
    rows, _ = read(make_contract("d", AB), write(b"a,b\n 1 ,2\n"))
    assert rows[0]["_original"] == " 1 ,2"


def test_cp874_and_utf8_are_told_apart(make_contract: Any, write: Any) -> None:
    text = "a,b\nก,น้ำ\n"
    for encoding in ("utf-8", "cp874"):
        for declared in ("utf-8", "cp874"):
            rows, _ = read(make_contract("d", AB, server={"encoding": declared}), write(text.encode(encoding)))
            assert values(rows) == [(2, None, "ก", "น้ำ")]


@pytest.mark.parametrize(
    ("content", "declared", "expected"),
    [
        ("a,b\nัก,1\n".encode("cp874"), "cp874", "ัก"),  # the bytes of a Cyrillic letter
        ("a,b\né,1\n".encode(), "utf-8", "é"),  # the bytes of two Thai letters
        ("a,b\n“x”,1\n".encode(), "cp874", "“x”"),
        ("a,b\nRenée Muñoz,1\n".encode(), "cp874", "Renée Muñoz"),
        ("a,b\nรฉ,1\n".encode("cp874"), "cp874", "รฉ"),  # the bytes of é
        ("\ufeffa,b\né,1\n".encode(), "cp874", "é"),
    ],
)
def test_bytes_of_both_encodings_are_what_the_contract_says(
    content: bytes, declared: str, expected: str, make_contract: Any, write: Any
) -> None:
    rows, _ = read(make_contract("d", AB, server={"encoding": declared}), write(content))
    assert values(rows) == [(2, None, expected, "1")]


def test_of_mixed_encodings_the_odd_line_is_undecodable(make_contract: Any, write: Any) -> None:
    content = "a,b\nก,1\nข,2\nค,3\n".encode() + "ง,4\n".encode("cp874")
    rows, _ = read(make_contract("d", AB), write(content))
    assert [row["_flaw"] for row in rows] == [None, None, None, "undecodable"]
    content = "a,b\nก,1\nข,2\n".encode("cp874") + b"\xdb\xdc,3\n"
    rows, _ = read(make_contract("d", AB, server={"encoding": "cp874"}), write(content))
    assert [row["_flaw"] for row in rows] == [None, None, "undecodable"]


letter = st.characters(codec="utf-8", exclude_characters="\ufeff", exclude_categories=["Cs", "Cc"]) | st.just("\n")
field = st.text(letter, max_size=8)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.tuples(field, field), min_size=1, max_size=12), st.integers(3, 40))
def test_quoted_files_of_any_block_size_read_as_csv_does(
    make_contract: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: list[tuple[str, str]], block: int
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", block)
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(records)
    path = tmp_path / "any.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    contract = make_contract("d", AB, layout={"header": False, "quoted": True})
    rows, layout = read(contract, path)
    assert [(row["a"], row["b"]) for row in rows] == [r for r in records if any(part.strip() for part in r)]
    assert layout == len(records) - len(rows)


def test_fixed_width_counts_bytes(make_contract: Any, write: Any) -> None:
    columns = [{"name": "a", "position": [1, 3]}, {"name": "b", "position": [4, 2]}]
    contract = make_contract("d", columns, server={"format": "fixed_width", "encoding": "cp874"}, layout={"header": False})
    rows, _ = read(contract, write("กขค12\r\nกข 34\r\nกข3\r\n".encode("cp874")))
    assert values(rows) == [(1, None, "กขค", "12"), (2, None, "กข ", "34"), (3, "ragged_line", None, None)]


def test_a_line_without_end_is_refused(make_contract: Any, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 100)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
    with pytest.raises(Rejected, match="line 2 is longer"):
        read(make_contract("d", AB), write(b"a,b\n" + b"x" * 5000))


@pytest.mark.parametrize(
    ("header", "words"),
    [(b"a,c\n", "column missing: b"), (b"a,b,A\n", "stands 2 times"), (b"", "the file is empty")],
)
def test_titles_that_do_not_fit_are_refused(make_contract: Any, write: Any, header: bytes, words: str) -> None:
    with pytest.raises(Rejected, match=words):
        read(make_contract("d", AB), write(header + (b"1,2\n" if header else b"")))


def test_titles_may_drift_and_others_are_told(make_contract: Any, write: Any) -> None:
    contract = make_contract("d", [{"name": "a", "physicalName": "รหัส", "titles": ["Code"]}, {"name": "b"}])
    reader = open_reader(contract, write(b" CODE ,B,extra\n1,2,3\n"))
    assert values(pl.concat(map(frame_of, reader.batches())).to_dicts()) == [(2, None, "1", "2")]
    assert reader.unknown_titles == ("extra",)


def test_xlsx_finds_its_header_and_keeps_excels_row_numbers(make_contract: Any, tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    book = xlsxwriter.Workbook(str(path))
    sheet = book.add_worksheet("ข้อมูล")
    sheet.merge_range(1, 0, 1, 1, "ทะเบียนทดสอบ")
    sheet.write_row(3, 0, ["ชื่อ", "วันที่"])
    sheet.write(4, 0, "ก")
    sheet.write_datetime(4, 1, datetime(2025, 4, 1), book.add_format({"num_format": "dd/mm/yyyy"}))
    sheet.write_row(6, 0, ["ข", "1 เม.ย. 2568"])
    sheet.write_row(7, 0, ["รวม", 2])
    book.close()
    columns = [{"name": "a", "physicalName": "ชื่อ"}, {"name": "b", "physicalName": "วันที่"}]
    contract = make_contract(
        "d", columns, server={"format": "xlsx"}, layout={"totals": {"column": "a", "pattern": "^รวม"}, "sheet": "ข้อมูล"}
    )
    rows, layout = read(contract, path)
    assert values(rows) == [(5, None, "ก", "2025-04-01"), (7, None, "ข", "1 เม.ย. 2568")]
    assert layout == 2


def test_what_is_no_workbook_is_refused(make_contract: Any, write: Any) -> None:
    with pytest.raises(Rejected, match=r"cannot be opened as an Excel workbook"):
        read(make_contract("d", AB, server={"format": "xlsx"}), write(b"not a zip"))


def test_json_lines(make_contract: Any, write: Any) -> None:
    content = '{"a": "ก", "b": 1.10}\n{"a": null, "b": true}\nnot json\n[1]\n\n{"b": {"c": 1}}\n'.encode()
    rows, layout = read(make_contract("d", AB, server={"format": "json_lines"}), write(content))
    assert values(rows) == [
        (1, None, "ก", "1.10"),
        (2, None, None, "true"),
        (3, "undecodable", None, None),
        (4, "undecodable", None, None),
        (6, None, None, '{"c":1}'),
    ]
    assert layout == 1


def test_half_characters_in_json_are_no_end(make_contract: Any, write: Any) -> None:
    reader = open_reader(
        make_contract("d", AB, server={"format": "json_lines"}), write(b'{"a": "\\ud800", "b": "1", "\\udfff": 2}\n')
    )
    assert values(pl.concat(map(frame_of, reader.batches())).to_dicts()) == [(1, None, "?", "1")]
    assert reader.unknown_titles == ("?",)
