"""Rows of a query as they are kept: null and empty text apart, whatever else stands in a value."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected
from dopa_pipelines.sources import open_reader, query_result
from dopa_pipelines.sources.batch import frame_of
from dopa_pipelines.sources.query_result import header_line


@pytest.fixture
def contract(make_contract: Any) -> Any:
    def make(encoding: str = "utf-8", **layout: Any) -> Contract:
        server = {"type": "postgresql", "format": "sql", "encoding": encoding}
        layout |= {"query": "select a, b from t", "urlEnvironment": "U"}
        made: Contract = make_contract("query_result_unit", [{"name": "a"}, {"name": "b"}], server=server, layout=layout)
        return made

    return make


def read(contract: Contract, path: Path, content: bytes) -> pl.DataFrame:
    path.write_bytes(content)
    frames = [frame_of(batch) for batch in open_reader(contract, path).batches()]
    return pl.concat(frames) if frames else pl.DataFrame()


VALUES = st.none() | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(VALUES, VALUES), max_size=20), block=st.integers(200, 600), forced=st.booleans())
def test_any_values_come_back(contract: Any, tmp_path: Path, rows: list[Any], block: int, forced: bool) -> None:
    """Written by hand as PostgreSQL documents its CSV; ``forced``: each value in quotes, as the other writer does."""

    def field(value: str | None) -> str:
        if value is None:
            return ""
        quoted = '"' + value.replace('"', '""') + '"'
        return quoted if forced or value == "" or any(character in value for character in ',"\r\n') else value

    text = '"a","b"\n' + "".join(f"{field(a)},{field(b)}\n" for a, b in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query_result, "BLOCK_BYTES", block)
        found = read(contract(), tmp_path / "rows.csv", text.encode())
    # White space as Unicode has it; Python counts four separators of files, too.
    white = re.compile(r"[^\S\x1c-\x1f]*")
    blank = [place for place, row in enumerate(rows) if all(value is None or white.fullmatch(value) for value in row)]
    expected = [(place + 1, *row) for place, row in enumerate(rows) if place not in blank]
    assert (found.select("_row", "a", "b").rows() if found.height else []) == expected
    for original, (_, a, b) in zip(found["_original"].to_list() if found.height else [], expected, strict=True):
        assert next(csv.reader(io.StringIO(original, newline=""))) == [a or "", b or ""]


def test_what_is_no_text_is_quarantined_and_can_be_read(contract: Any, tmp_path: Path) -> None:
    content = b'"a","b"\n\xa1\xa2,1\n\xe0\xb8\x81,2\n\xdb,3\n"x\0,",4\nplain,\n'
    as_thai = read(contract("cp874"), tmp_path / "rows.csv", content)
    assert as_thai.select("_row", "_flaw", "a", "b").rows() == [
        (1, None, "กข", "1"), (2, None, "ก", "2"), (3, "undecodable", None, None), (4, "undecodable", None, None),
        (5, None, "plain", None),
    ]  # fmt: skip
    assert as_thai["_original"].to_list() == ["กข,1", "ก,2", "\\xdb,3", '"x\\x00,",4', "plain,"]
    plain = read(contract(), tmp_path / "rows.csv", content)
    assert plain.select("_row", "_flaw").rows() == [
        (1, "undecodable"), (2, None), (3, "undecodable"), (4, "undecodable"), (5, None),
    ]  # fmt: skip
    assert plain["_original"][0] == "\\xa1\\xa2,1"


def test_a_column_that_is_not_asked_for_may_hold_anything(contract: Any, tmp_path: Path) -> None:
    found = read(contract(), tmp_path / "rows.csv", b'"a","b","more"\n1,2,\xff\0\n')
    assert found.rows() == [(1, "1,2,\\xff\\x00", None, "1", "2")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'"a","b"\n1,2\n3\n', "a row does not have 2 fields"),
        (b'"a","b"\n1,2,3\n', "a row does not have 2 fields"),
        (b'"a","b"\n1,"2\n', "ends within quotes: it is cut off"),
        (b'"a","b"\n1,' + b"x" * 10_000 + b"\n", "a row is longer than 4,096 bytes, or a quote does not close"),
        (b'"a","b"\n1,"' + b"x\n" * 5000, "a row is longer than 4,096 bytes, or a quote does not close"),
        (b'"a', "its first line must hold the titles"),
        (b'"a","b', "its first line must hold the titles"),
        (b'"a\nb"\n1\n', "its first line must hold the titles"),
        (b"\x00" * 5000, "its first line must hold the titles"),
        (b'"a"\n1\n', r"column missing: b \(b\); the file has: a"),
        (b"PAR1\n\xff\n", "none of its 1 titles is known"),
    ],
)
def test_what_is_no_such_file_is_refused(contract: Any, tmp_path: Path, monkeypatch: Any, content: bytes, words: str) -> None:
    monkeypatch.setattr(query_result, "BLOCK_BYTES", 4096)
    with pytest.raises(Rejected, match=f"^rows.csv: .*{words}"):
        read(contract(), tmp_path / "rows.csv", content)


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b'"a","b"\n', []),
        (b"a,b\n1,2", [(1, "1", "2")]),
        (b'\xef\xbb\xbf"b","a"\r\n2,1\r\n', [(1, "1", "2")]),
    ],
)
def test_files_made_by_hand(contract: Any, tmp_path: Path, content: bytes, rows: list[Any]) -> None:
    found = read(contract(), tmp_path / "rows.csv", content)
    assert (found.select("_row", "a", "b").rows() if found.height else []) == rows


def test_titles_stand_in_one_line() -> None:
    assert header_line(["a", 'say "x"', "ไทย\r\nสอง", ""]) == '"a","say ""x""","ไทย สอง",""\n'.encode()
