"""JSON lines, JSON documents and GeoJSON: numbers as written, hostile input, and Python's own json as the oracle."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dopa_pipelines.contracts import Contract
from dopa_pipelines.documents import DocumentError
from dopa_pipelines.errors import Rejected
from dopa_pipelines.sources import json_document, lines, open_reader, records
from dopa_pipelines.sources.batch import FLAW, FLAWED, ORIGINAL, ROW
from dopa_pipelines.sources.reader import Reader

AB = [{"name": "a"}, {"name": "b"}]


def rows_of(reader: Reader) -> list[dict[str, Any]]:
    """All rows, flawed ones included, by number."""
    found: list[dict[str, Any]] = []
    for batch in reader.batches():
        places = pl.int_range(len(batch.rows), eager=True)
        columns = {name: text.rows() for name, text in batch.columns.items()}
        frame = pl.DataFrame({ROW: batch.rows, ORIGINAL: batch.original(places)} | columns)
        found += [row | {FLAW: None} for row in frame.to_dicts()]
        assert batch.flawed.schema == FLAWED
        found += [row | dict.fromkeys(columns) for row in batch.flawed.to_dicts()]
    return sorted(found, key=lambda row: row[ROW])


@pytest.fixture
def open_text(make_contract: Any, tmp_path: Path) -> Callable[..., Reader]:
    def make(form: str, content: bytes, columns: Any = AB, encoding: str = "utf-8", **layout: Any) -> Reader:
        path = tmp_path / "delivery.json"
        path.write_bytes(content)
        contract: Contract = make_contract("d", columns, server={"format": form, "encoding": encoding}, layout=layout)
        return open_reader(contract, path)

    return make


def as_form(form: str, objects: list[bytes]) -> tuple[bytes, dict[str, Any]]:
    """Objects as a delivery of a form, and the layout for it."""
    if form == "json_lines":
        return b"\n".join(objects) + b"\n", {}
    if form == "json":
        return b'{"n": 1, "x": {"rows": [' + b", ".join(objects) + b'], "y": []}}', {"recordsPath": "x.rows"}
    features = [b'{"type": "Feature", "geometry": null, "properties": ' + one + b"}" for one in objects]
    return b'{"features": [' + b",\n".join(features) + b'], "type": "FeatureCollection"}', {}


FORMS = ("json_lines", "json", "geojson")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("null", None), ("true", "true"), ("false", "false"), ('""', ""), ('" x "', " x "), ('"ก\\u0e01"', "กก"),
        ("1", "1"), ("-0", "-0"), ("0", "0"), ("-0.0", "-0.0"), ("1.10", "1.10"), ("1e309", "1e309"), ("-1E-7", "-1E-7"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("18446744073709551616", "18446744073709551616"), ("9" * 5000, "9" * 5000), ("1e99999999999", "1e99999999999"),
        ("[]", "[]"), ("{}", "{}"), ("[1, 2.50, -0, 1e5]", "[1,2.50,-0,1e5]"), ('{"c": [1, {"d": "ก"}]}', '{"c":[1,{"d":"ก"}]}'),
        ('{"c": 99999999999999999999999}', '{"c":99999999999999999999999}'), ('[true, null, "1.0"]', '[true,null,"1.0"]'),
        ('"\\ud83d\\ude00"', "😀"), ('"\\ud800"', "?"), ('["\\ud800", 1.0]', '["?",1.0]'), ('"a\\u0000b"', "a\ufffdb"),
        ('["a\\u0000"]', '["a\\u0000"]'), ("NaN", "NaN"), ("13.75", "13.75"),
        ("[100.50178527832031, 123456789012345.6, 0.0001, 1e16, 1.0]", "[100.50178527832031,123456789012345.6,0.0001,1e16,1.0]"),
         ("[-Infinity]", '["-Infinity"]'), ('"\\"\\\\"', '"\\'),
        ('"]}, {[\\\\"', "]}, {[\\"), ("[" * 300 + "1.0" + "]" * 300, "[" * 300 + "1.0" + "]" * 300),
    ],
)  # fmt: skip
def test_values_become_text_as_they_were_written(open_text: Any, form: str, value: str, expected: str | None) -> None:
    content, layout = as_form(form, [f'{{"a": "first", "b": {value}}}'.encode(), f'{{"b":{value},"a":"next"}}'.encode()])
    rows = rows_of(open_text(form, content, **layout))
    assert [(row[FLAW], row["a"], row["b"]) for row in rows] == [(None, "first", expected), (None, "next", expected)]
    assert [row[ROW] for row in rows] == [1, 2]


@pytest.mark.parametrize("form", FORMS)
def test_of_a_key_that_stands_twice_the_last_counts(open_text: Any, form: str) -> None:
    content, layout = as_form(form, [b'{"a": 1, "b": 2, "a": 3}', b'{"a": 1.0, "b": 2, "a": 3.0}'])
    assert [(row["a"], row["b"]) for row in rows_of(open_text(form, content, **layout))] == [("3", "2"), ("3.0", "2")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", [b"5", b"null", b"[1]", b'"x"', b"[[]]"])
def test_what_is_no_object_is_a_flawed_row(open_text: Any, form: str, wrong: bytes) -> None:
    good = b'{"a": 1, "b": 2}'
    content, layout = as_form(form, [good, b"@@", good])
    content = content.replace(b'{"type": "Feature", "geometry": null, "properties": @@}', b"@@").replace(b"@@", wrong)
    rows = rows_of(open_text(form, content, **layout))
    assert [(row[ROW], row[FLAW]) for row in rows] == [(1, None), (2, "undecodable"), (3, None)]
    assert rows[1][ORIGINAL] == wrong.decode()


@pytest.mark.parametrize("form", FORMS)
def test_dotted_titles_reach_into_objects(open_text: Any, form: str) -> None:
    columns = [
        {"name": "tambon", "physicalName": "Address.tambon"},
        {"name": "moo", "physicalName": "Address.moo.no"},
        {"name": "c", "physicalName": "x.y"},
        {"name": "d", "physicalName": "รหัส", "titles": ["Code"]},
    ]
    objects = [
        b'{"address": {"tambon": "t1", "moo": {"no": 7.0}, "z": 0}, "x.y": 1, "CODE": 1}',
        b'{"address": {"tambon": null, "moo": 5}, "x": {"y": 2}, "CODE": 2}',
        '{"address": null, "รหัส": 3}'.encode(),
    ]
    content, layout = as_form(form, objects)
    reader = open_text(form, content, columns, **layout)
    found = [(row["tambon"], row["moo"], row["c"], row["d"]) for row in rows_of(reader)]
    assert found == [("t1", "7.0", "1", "1"), (None, None, "2", "2"), (None, None, None, "3")]
    assert reader.unknown_titles == (("geometry",) if form == "geojson" else ())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([b'{"a": 1, "x": 2}'], r"column missing: b \(b\); its records have: a,"),
        ([b'{"a": 1, "A": 2, "b": 3}'], r"column a stands 2 times in one record \(A and a\)"),
        ([b'{"a": 1, "b": 3, "k%d": 1}' % n for n in range(30)], "more than 20 different keys"),
    ],
)
def test_keys_that_do_not_fit_are_refused(
    open_text: Any, monkeypatch: pytest.MonkeyPatch, form: str, objects: list[bytes], words: str
) -> None:
    monkeypatch.setattr(records, "MAX_KEYS", 20)
    content, layout = as_form(form, objects)
    with pytest.raises(Rejected, match=words):
        rows_of(open_text(form, content, **layout))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_utf16_is_told(open_text: Any, form: str, encoding: str) -> None:
    content, layout = as_form(form, [b'{"a": 1, "b": 2}'])
    with pytest.raises(Rejected, match="UTF-16 or UTF-32 text; JSON is UTF-8"):
        rows_of(open_text(form, content.decode().encode(encoding), **layout))


@pytest.mark.parametrize("form", FORMS)
def test_a_byte_order_mark_and_cp874_are_read(open_text: Any, form: str) -> None:
    content, layout = as_form(form, ['{"a": "น้ำ", "b": "ก"}'.encode()])
    for encoded in (b"\xef\xbb\xbf" + content, content.decode().encode("cp874")):
        rows = rows_of(open_text(form, encoded, encoding="cp874", **layout))
        assert [(row["a"], row["b"]) for row in rows] == [("น้ำ", "ก")]


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "wrong",
    [
        b"not json", b'{"a": 1', b'{"a": 1,}', b"{'a': 1}", b'{"a": 01}', b'{"a": 1} {"a": 2}', b'{"a": "\x01"}',
        b'{"a": "\xff"}',
        b'{"a": ' + DEEP + b"}", DEEP, b'{"a": "\x00"}', b"{}}", b'{"a": +1}', b'{"a": .5}', b'{"a": tru}', b'{"a": "\\x"}',
        b'{"a": "\xed\xa0\x80"}',
    ],
)  # fmt: skip
def test_a_broken_line_is_one_flawed_row(open_text: Any, wrong: bytes) -> None:
    good = '{"a": "ก", "b": "ข"}'.encode()
    reader = open_text("json_lines", good + b"\n" + wrong + b"\r\n\n  \n" + good + b"\n")
    rows = rows_of(reader)
    assert [(row[ROW], row[FLAW], row["a"]) for row in rows] == [(1, None, "ก"), (2, "undecodable", None), (5, None, "ก")]
    assert reader.layout_rows == 2
    assert rows[2][ORIGINAL] == good.decode()


GOOD = b'{"a": 1, "b": 2}'


@pytest.mark.parametrize(
    ("content", "path", "words"),
    [
        (b"", "", "is empty"),
        (b"  \n", "", "is empty"),
        (GOOD + b"\n" + GOOD, "", "the format is json_lines"),
        (GOOD, "", "has no list of records at its beginning"),
        (b'{"x": {"y": 1}}', "x.z", r"no list of records under 'x.z' \(its keys: x\); correct recordsPath"),
        (b'{"x": {"y": {}}}', "x.y", r"no list of records under 'x.y'"),
        (b'{"x": 1, "y": [' + GOOD + b"]", "z", "broken JSON around"),
        (b"[" + GOOD + b"," + GOOD, "", r"ends within record 2 \(from byte 19"),
        (b"[" + GOOD + b", {", "", "ends within record 2"),
        (b"[" + GOOD + b",]", "", r"record 2 \(from byte 19\) is broken JSON: .* at byte 19"),
        (b"[," + GOOD + b"]", "", "record 1 .* is broken JSON"),
        (b"[" + GOOD + GOOD + b"]", "", r"record 1 \(from byte 2\) is broken JSON: Extra data at byte 18"),
        (b"[" + GOOD + b"}]", "", "after record 1: byte 18 is a bracket that nothing opened"),
        (b"[" + GOOD + b', {"a": "\xff"}]', "", "record 2 .* byte 27 is no UTF-8"),
        (b"[" + GOOD + b', {"a": ' + DEEP + b"}]", "", r"record 2 \(from byte 19\) is nested too deeply"),
        (DEEP, "", "record 1 .* is nested too deeply"),
        (b'{"y": ' + DEEP + b', "x": [' + GOOD + b"]}", "x", "nested too deeply"),
        (b'{"x": [' + GOOD + b'], "y": ' + DEEP + b"}", "x", "nested too deeply"),
        (b'{"x": [' + GOOD + b"]", "x", "broken JSON around"),
        (b'{"x": [' + GOOD + b"]} []", "x", "broken JSON around"),
        (b'{"x": [' + GOOD + b'], "x": [' + GOOD + b"]}", "x", "key 'x' stands twice"),
        (b'{"x": [' + GOOD + b'], "y": "\xff"}', "x", "no UTF-8"),
        (b"[" + GOOD + b', {"a": "open]', "", "ends within record 2"),
        (b"[" + GOOD + b', {"a": "line\nbreak"}]', "", "record 2 .* is broken JSON: Invalid control character"),
        (b'[{"a": "\x00"}]', "", "Invalid control character"),
        (b"[" + GOOD + b" /* */]", "", "record 1 .* is broken JSON"),
    ],
)
@pytest.mark.parametrize("piece", [json_document.PIECE_BYTES, 7])
def test_a_broken_document_is_refused_with_its_place(
    open_text: Any, monkeypatch: pytest.MonkeyPatch, content: bytes, path: str, words: str, piece: int
) -> None:
    # What is long is scanned again with every piece.
    monkeypatch.setattr(json_document, "PIECE_BYTES", piece if len(content) < 1000 else max(piece, 50_000))
    with pytest.raises(Rejected, match=words) as refused:
        rows_of(open_text("json", content, recordsPath=path))
    assert str(refused.value).startswith("delivery.json: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "path"), [(b"[]", ""), (b" [ ] ", ""), (b'{"x": []}', "x"), (b'{"w": "[{", "x": {"y":\n[ \n]}, "z": [1]}', "x.y")]
)
def test_a_list_may_be_empty(open_text: Any, content: bytes, path: str) -> None:
    assert rows_of(open_text("json", content, recordsPath=path)) == []


def test_the_original_is_the_record_on_one_line(open_text: Any) -> None:
    rows = rows_of(open_text("json", b'[\n  {\n    "a": "x  y",\r\n    "b": 1.0\n  },\n  5\n]\n'))
    assert [row[ORIGINAL] for row in rows] == ['{ "a": "x  y", "b": 1.0 }', "5"]


@pytest.mark.parametrize("before", [True, False])
def test_what_is_larger_than_memory_should_hold_is_refused(open_text: Any, monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    monkeypatch.setattr(json_document, "PIECE_BYTES", 100)
    monkeypatch.setattr(json_document, "MAX_RECORD_BYTES", 1000)
    around = b'"w": "' + b"x" * 2000 + b'"'
    content = b'{"x": [' + GOOD + b"], " + around + b"}" if not before else b"{" + around + b', "x": [' + GOOD + b"]}"
    with pytest.raises(Rejected, match="more than 1,000 bytes before or after the list of records under 'x'"):
        rows_of(open_text("json", content, recordsPath="x"))
    with pytest.raises(Rejected, match=r"record 2 \(from byte 19\) is longer than 1,000 bytes"):
        rows_of(open_text("json", b"[" + GOOD + b', {"a": "' + b"x" * 2000 + b'"}]'))


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.decimals(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6
)


class Exact(float):
    """A number that json writes with the digits it was given."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def dump(value: Any, indent: int | None) -> str:
    """JSON of a value, decimals with all their digits: an encoder of its own, so that it shares nothing with the reader."""
    marked: dict[str, str] = {}

    def mark(item: Any) -> str:
        key = f"@{len(marked)}@{random.Random(str(item)).random()}@"
        marked[json.dumps(key)] = str(item)
        return key

    text = json.dumps(value, ensure_ascii=False, indent=indent, default=mark)
    for key, number in marked.items():
        text = text.replace(key, number)
    return text


def expected_text(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return None if value is None else value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"a": values, "b": values}), min_size=1, max_size=6),
    st.integers(1, 60),
    st.sampled_from([None, 1]),
    st.sampled_from(FORMS),
)
@example([{"a": "\\", "b": '\\"'}], 1, None, "json")
def test_any_objects_in_pieces_of_any_size_read_as_pythons_json_does(
    open_text: Any, objects: list[dict[str, Any]], piece: int, indent: int | None, form: str
) -> None:
    texts = [dump(one, None if form == "json_lines" else indent).encode("utf-8") for one in objects]
    content, layout = as_form(form, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_document, "PIECE_BYTES", piece)
        patch.setattr(lines, "BLOCK_BYTES", piece)
        reader = open_text(form, content, **layout)
        rows = rows_of(reader)
    oracle = [json.loads(text, parse_float=Decimal) for text in texts]
    shown = [one for one in oracle if any((expected_text(v) or "").strip() for v in one.values())]
    assert reader.layout_rows == len(objects) - len(shown)
    assert [row[FLAW] for row in rows] == [None] * len(shown)
    for row, one in zip(rows, shown, strict=True):
        for name in ("a", "b"):
            if isinstance(one[name], dict | list):
                assert json.loads(row[name], parse_float=Decimal) == one[name]
            else:
                assert row[name] == expected_text(one[name])


def feature(**facts: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"code": "1"}, "geometry": {"type": "Point", "coordinates": [100.50, 13.7]}} | facts


AREA = [{"name": "code"}, {"name": "shape", "physicalName": "geometry"}]


def test_geojson_gives_properties_and_geometry(open_text: Any) -> None:
    content = (
        b'{"type": "FeatureCollection", "name": "x", "features": ['
        b'{"type": "Feature", "properties": {"code": "1", "n": 1}, "geometry": {"type": "Point", "coordinates": [100.50, 1e2]}},'
        b'{"type": "Feature", "properties": {"code": 2}, "geometry": null},'
        b'{"type": "Feature", "properties": null, "geometry": {"type": "Point", "coordinates": []}, "id": 7},'
        b'{"type": "Point", "coordinates": [1, 2]}]}'
    )
    reader = open_text("geojson", content, [*AREA, {"name": "id"}])
    found = [(row[FLAW], row["code"], row["shape"], row["id"]) for row in rows_of(reader)]
    assert found == [
        (None, "1", '{"type":"Point","coordinates":[100.50,1e2]}', None),
        (None, "2", None, None),
        (None, None, '{"type":"Point","coordinates":[]}', "7"),
        ("undecodable", None, None, None),
    ]
    assert reader.unknown_titles == ("n",)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (feature(), "no list of records under 'features'"),
        ({"type": "Topology", "features": [feature()]}, "is no FeatureCollection .*'Topology'"),
        ({"features": [feature()]}, "is no FeatureCollection"),
        ([feature()], "no list of records under 'features'"),
    ],
)
def test_what_is_no_feature_collection_is_refused(open_text: Any, document: Any, words: str) -> None:
    with pytest.raises(Rejected, match=words):
        rows_of(open_text("geojson", json.dumps(document).encode(), AREA))


@pytest.mark.parametrize("form", ["json", "geojson"])
def test_a_contract_of_the_form_needs_a_path(make_contract: Any, form: str) -> None:
    with pytest.raises(DocumentError, match="needs a path below the drop zone"):
        make_contract("d", AB, server={"format": form, "path": ""})
    assert make_contract("d", AB, server={"format": "json"}).layout.records_path == ""
    assert make_contract("d", AB, server={"format": "json"}, layout={"recordsPath": "x.y"}).layout.records_path == "x.y"


def test_memory_stays_flat(make_contract: Any, tmp_path: Path) -> None:
    """A document of 60 MB is read by a process that may not grow as large as it is."""
    contract = make_contract("d", AB, server={"format": "json"}, layout={"recordsPath": "x"})
    with (tmp_path / "large.json").open("w") as file:
        file.write('{"x": [')
        file.writelines(f'{"," if n else ""}{{"a": "{n}", "b": {n}.50, "other": ["{"x" * 60}", {n}]}}\n' for n in range(560_000))
        file.write("]}")
    assert (tmp_path / "large.json").stat().st_size > 60_000_000
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from dopa_pipelines.contracts import read_contract\n"
        "from dopa_pipelines.sources import open_reader\n"
        "reader = open_reader(read_contract(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "reader.names; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sum(batch.height for batch in reader.batches()))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    run = [sys.executable, "-c", code, str(contract.path), str(tmp_path / "large.json")]
    rows, grown = map(int, subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())
    assert rows == 560_000
    assert grown < 150, f"{grown} MiB"
