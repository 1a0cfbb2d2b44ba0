"""The fuzzer for some seconds, what it has found before, and files of any structure read back as they were written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dopa_pipelines.contracts import Column, Layout
from dopa_pipelines.contracts.model import Series, Unpivot
from dopa_pipelines.sources import open_reader
from dopa_pipelines.sources.batch import frame_of
from dopa_pipelines.sources.containers import unpacked
from tests.bad_input import fuzz

INPUTS = 15
"""Inputs of a target in the short run."""


@pytest.mark.parametrize("name", list(fuzz.TARGETS))
@pytest.mark.parametrize("seed", [2568, None], ids=["fixed seed", "random seed"])
def test_a_short_run_finds_nothing(name: str, seed: int | None) -> None:
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    outcome = fuzz.fuzz(INPUTS, seed, [name])
    told = [f"input {number} of seed {seed}: {error!r}, {minimal!r}" for _, number, error, minimal, _ in outcome.failures]
    assert not told, f"python -m tests.bad_input.fuzz --target {name} --seed {seed}: {told[0]}"
    assert sum(outcome.ends.values()) == INPUTS


@pytest.mark.parametrize("name", list(fuzz.TARGETS))
def test_the_seed_files_are_read(name: str, tmp_path: Path) -> None:
    target = fuzz.TARGETS[name]
    assert {fuzz.run(target, data, tmp_path) for data in target.seeds} == {"rows"}


SOUND_ZIP = fuzz.zip_bytes({"a": random.Random(1).randbytes(4000)})
LONG_NAME = SOUND_ZIP[:26] + (1500).to_bytes(2, "little") + SOUND_ZIP[28:]
"""The member's own header gives it a name of 1,500 bytes."""
TITLES = "ชื่อ,amount,at,local"
FOUND: list[tuple[str, bytes, int, str]] = [
    # A decimal makes CSV of a row, and then a time without a zone was asked for its zone.
    ("delimited-header", f"{TITLES}\nก,0.1,,2025-01-01 00:00:00\n".encode(), 0, "rows"),
    ("delimited-header", f"{TITLES}\nก,,,1920-04-01 00:05:00\n".encode(), 0, "rows"),
    ("delimited-header", f"{TITLES}\nก,1e-99999,,\n".encode(), 0, "rows"),
    # Control characters of a title in the sentence.
    ("delimited-header", b"\xad\x1c0", 0, "rejected"),
    ("zip", b"\x14", 0, "rejected"),
    # Titles that are taken apart, or run over the lines of the data.
    ("quoted-header", b"\xaa\xd7\xe8\xcd,small,Big,flag\x0csex\n9", 0, "rejected"),
    ("quoted-header", b'\xaa\xd7\xe8\xcd,small,big,flag,sex,"x\na,1,2,y,z,\n', 0, "rejected"),
    ("quoted-header", b"\xaa\xd7\xe8\xcd,small,big,flag,s\rex,\n", 0, "rejected"),
    ("quoted-header", '"ชื่อ",small,big,flag,x""",\n"a,"sex",\nb,1,2,no,,z,\n'.encode(), 0, "rejected"),
    # What stands after the last delimiter was left out.
    ("unpivot", b"\xa0||||||||||\xa1", 0, "rows"),
    ("delimited-trailing", "ก|||||ข\nค|||||\n".encode(), 0, "rows"),
    ("quoted-header", 'ชื่อ,small,big,flag,sex,\n"a\nb",1,2,no,,x\n'.encode(), 0, "rows"),
    # NUL within a record of several lines.
    ("quoted", b'"\n\x00\n"', 0, "rows"),
    # Lines end in CR alone.
    ("json-lines", b"\r{", 0, "rows"),
    ("delimited-trailing", b"\r|", 0, "rows"),
    # Which encoding, where as many lines tell one as the other, or the last has no end.
    ("json-lines", '\xe0\n{"ชื่อ":"x","amount":1,"at":"","local":""}'.encode("latin-1", "ignore"), 0, "rejected"),
    ("json-lines", b"\xb7\n" + '{"ชื่อ":"x","amount":1,"at":"","local":""}'.encode(), 0, "rows"),
    # A record whose keys are misspelt was counted as a blank line.
    ("json-lines", '{"ชื่อ":"x","amount":1,"at":"","local":""}\n{",":"x"}'.encode(), 0, "rows"),
    ("json-lines", '{"ชื่อ":"x","amount":1,"at":"","local":""}\n{"ช":"x","amount,":1,"at":""}'.encode(), 0, "rows"),
    # A zip whose damage filled the sentence, and one with a member that has no name.
    ("zip", LONG_NAME, 0, "rejected"),
    ("zip", fuzz.zip_bytes({"a.csv": fuzz.ONE, "": fuzz.ONE}), 0, "rejected"),
    # A mark at the start of a block.
    ("delimited-header", f"{TITLES}\n\ufeff,,,?".encode(), 20, "rows"),
]


@pytest.mark.parametrize(("name", "data", "block", "end"), FOUND)
def test_what_was_found_before(name: str, data: bytes, block: int, end: str, tmp_path: Path) -> None:
    assert fuzz.run(fuzz.TARGETS[name], data, tmp_path, block or 6 << 20) == end


def test_the_fuzzer_finds_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that loses each tenth line is found at once, and its input made small."""
    target = fuzz.TARGETS["delimited"]
    before = fuzz.open_reader

    def losing(contract: Any, path: Path, name: str) -> Any:
        kept = [line for line in path.read_bytes().split(b"\n") if b"x" not in line]
        path.with_name("less").write_bytes(b"\n".join(kept))
        return before(contract, path.with_name("less"), name)

    monkeypatch.setattr(fuzz, "open_reader", losing)
    outcome = fuzz.fuzz(50, 1, [target.name])
    ((_, _, error, minimal, _),) = outcome.failures
    assert "lost" in str(error) or "original" in str(error) or "line" in str(error)
    assert len(minimal) < 40


# Structure ---------------------------------------------------------------------------------------------------------------------

A, B = Column("a", "string", "text", "text", "a"), Column("b", "string", "text", "text", "ข")
letters = st.characters(codec="utf-8", exclude_characters="\ufeff\0", exclude_categories=["Cs"])
plain = st.text(st.characters(codec="utf-8", exclude_characters="\ufeff\0\r\n|", exclude_categories=["Cs"]), max_size=6)
quoted = st.text(letters.filter(lambda character: character != "\r"), max_size=6)
thai = st.text(st.sampled_from("abc 019กขค๑๒ำ้ั฿"), max_size=4)
nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(letters, max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(letters, max_size=3), inner, max_size=3),
    max_leaves=6,
)
values = st.none() | st.integers() | st.text(letters, max_size=6) | st.lists(nested, max_size=3)
Pairs = list[tuple[Any, Any]]


def as_quoted(rows: Pairs) -> bytes:
    made = io.StringIO()
    csv.writer(made, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("a", "ข"), *rows])
    return made.getvalue().encode()


def as_lines(rows: Pairs) -> bytes:
    return "".join(f"{json.dumps({'a': a, 'ข': b}, ensure_ascii=bool(n % 2))}\n" for n, (a, b) in enumerate(rows)).encode()


def as_document(rows: Pairs) -> bytes:
    records = [{"a": a, "other": [1, {"]": "}"}], "ข": b} for a, b in rows]
    return json.dumps({"x": [1], "data": {"rows": records, "n": 1}}, indent=1, ensure_ascii=False).encode()


def as_geojson(rows: Pairs) -> bytes:
    features = [{"type": "Feature", "properties": {"a": a, "ข": b}, "geometry": None} for a, b in rows]
    return json.dumps({"features": features, "type": "FeatureCollection"}).encode()


def as_zip(rows: Pairs) -> bytes:
    """Two files in one zip, each a half of the rows."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as container:
        container.writestr("1.csv", as_quoted(rows[: len(rows) // 2]))
        container.writestr("2.csv", gzip.compress(as_quoted(rows[len(rows) // 2 :])))
    return made.getvalue()


def json_text(value: Any) -> str | None:
    """A JSON value as a column holds it, by the json module."""
    if value is None or isinstance(value, str):
        return None if value is None else value.replace("\0", "\ufffd")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


DELIMITED = Layout("delimited", delimiter="|", header=False)
QUOTED = Layout("delimited", quoted=True)
STRUCTURES: dict[str, tuple[Layout, Any, Callable[[Pairs], bytes], Callable[[Any], str | None]]] = {
    "delimited": (DELIMITED, plain, lambda rows: "".join(f"{a}|{b}\n" for a, b in rows).encode(), str),
    "trailing": (
        Layout("delimited", delimiter="|", trailing_delimiter=True, encoding="cp874"),
        thai,
        lambda rows: "".join(f"{a}|{b}|\r\n" for a, b in [("a", "ข"), *rows]).encode("cp874"),
        str,
    ),
    "quoted": (QUOTED, quoted, as_quoted, str),
    "fixed width": (
        Layout("fixed_width", header=False, encoding="cp874"),
        thai,
        lambda rows: "".join(f"{a:<4}{b:<4}\n" for a, b in rows).encode("cp874"),
        lambda value: f"{value:<4}",
    ),
    "json lines": (Layout("json_lines"), values, as_lines, json_text),
    "json": (Layout("json", records_path="data.rows"), values, as_document, json_text),
    "geojson": (Layout("geojson"), values, as_geojson, json_text),
    "zip": (QUOTED, quoted, as_zip, str),
}
"""Of each form: its layout, what its values may be, an independent writer, and a value as text."""


@pytest.mark.parametrize("form", list(STRUCTURES))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(data=st.data())
def test_any_rows_are_read_back_as_they_were_written(form: str, tmp_path: Path, data: st.DataObject) -> None:
    layout, value, write, text = STRUCTURES[form]
    rows = data.draw(st.lists(st.tuples(value, value), min_size=1, max_size=8))
    block = data.draw(st.integers(3, 60) | st.just(6 << 20))
    columns = (A, B)
    if layout.format == "fixed_width":
        columns = tuple(Column(c.name, "string", "text", "text", c.title, position=(1 + 4 * n, 4)) for n, c in enumerate((A, B)))
    path = tmp_path / "written"
    path.write_bytes(write(rows))
    got = read_all(fuzz.contract_of(columns, layout), path, tmp_path, block)
    wanted = [tuple(map(text, row)) for row in rows]
    assert [(row["a"], row["b"]) for row in got] == [row for row in wanted if any((part or "").strip(fuzz.WHITE) for part in row)]
    assert {row["_flaw"] for row in got} <= {None}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(thai.filter(str.strip), *[st.integers(0, 99)] * 4), min_size=1, max_size=6), block=st.integers(3, 60)
)
def test_wide_lines_are_read_back_as_rows(rows: list[tuple[Any, ...]], block: int, tmp_path: Path) -> None:
    columns = (A, B, Column("year", "integer", "integer", "integer", "year"), Column("n", "integer", "integer", "integer", "n"))
    series = (Series(2, 2, "year", 2567, "b", ("m", "f")),)
    layout = Layout("delimited", delimiter="|", header=False, encoding="cp874", unpivot=Unpivot(("a",), "n", series))
    path = tmp_path / "wide"
    path.write_bytes("".join("|".join(map(str, row)) + "\n" for row in rows).encode("cp874"))
    got = read_all(fuzz.contract_of(columns, layout), path, tmp_path, block)
    fields = [("2567", "m"), ("2567", "f"), ("2568", "m"), ("2568", "f")]
    wanted = [(a, sex, year, str(n)) for a, *numbers in rows for (year, sex), n in zip(fields, numbers, strict=True)]
    assert [(row["a"], row["b"], row["year"], row["n"]) for row in got] == wanted
    assert [row["_row"] for row in got] == list(range(1, len(wanted) + 1))


def read_all(contract: Any, path: Path, folder: Path, block: int) -> list[dict[str, Any]]:
    """Every row of every file of a delivery, in order."""
    found: list[dict[str, Any]] = []
    with fuzz.blocks_of(block), unpacked(path, folder / "scratch") as parts:
        for part in parts:
            frames = [frame_of(batch) for batch in open_reader(contract, part.path, part.name).batches()]
            found += pl.concat(frames).sort("_row").to_dicts() if frames else []
    return found
