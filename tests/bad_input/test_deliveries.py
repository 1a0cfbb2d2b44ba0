"""Bad input through the whole ingest into PostgreSQL: each ends as loaded, quarantined or refused with one sentence.

A case is a row of a table: the form of the contract, the bytes (or what puts a delivery into a folder), and the end. Before each
an earlier delivery is loaded; a refusal must leave its rows as they are.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest import Delivery, ingest

KEY = {"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1}
KV = [KEY, {"name": "v", "logicalType": "integer"}]
TYPED = [
    KEY,
    {"name": "d", "logicalType": "date"},
    {"name": "n", "logicalType": "number", "physicalType": "numeric"},
    {"name": "f", "logicalType": "number"},
    {"name": "at", "logicalType": "timestamp", "physicalType": "timestamptz"},
    {"name": "local", "logicalType": "timestamp", "physicalType": "timestamp"},
]
FIXED = [KEY | {"position": [1, 4]}, {"name": "v", "logicalType": "integer", "position": [5, 3]}]
GEO = [*KV, {"name": "geometry"}]
PIPE = {"server": {"delimiter": "|"}, "layout": {"header": False}}

FORMS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], bytes]] = {
    "csv": (KV, {}, b"k,v\nearlier,1\n"),
    "cp874": (KV, {"server": {"encoding": "cp874"}}, b"k,v\nearlier,1\n"),
    "pipe": (KV, PIPE, b"earlier|1\n"),
    "quoted": (KV, {"layout": {"quoted": True}}, b"k,v\nearlier,1\n"),
    "append": (KV, {"load": {"mode": "append"}}, b"k,v\nearlier,1\n"),
    "typed": (TYPED, {}, b"k,d,n,f,at,local\nearlier,2025-01-01,1.5,1,2025-01-01 00:00:00,2025-01-01 00:00:00\n"),
    "trailing": (KV, {"layout": {"trailingDelimiter": True}}, b"k,v,\nearlier,1,\n"),
    "fixed": (FIXED, {"server": {"format": "fixed_width", "encoding": "cp874"}, "layout": {"header": False}}, b"earl  1\n"),
    "titled": (FIXED, {"server": {"format": "fixed_width", "encoding": "cp874"}}, b"k     v\nearl  1\n"),
    "lines": (KV, {"server": {"format": "json_lines"}}, b'{"k": "earlier", "v": 1}\n'),
    "json": (KV, {"server": {"format": "json"}}, b'[{"k": "earlier", "v": 1}]'),
    "geojson": (
        GEO,
        {"server": {"format": "geojson"}},
        b'{"type": "FeatureCollection", "features": ['
        b'{"type": "Feature", "properties": {"k": "earlier", "v": 1}, "geometry": null}]}',
    ),
}
"""Columns, the rest of the contract, and an earlier delivery."""

Make = Callable[[Path], Path]


@dataclass(frozen=True)
class Case:
    """``make``: the content, or what puts a delivery into a folder and returns it. ``rows``: what is loaded, by key; a number
    where only their count is known. ``codes``: rows quarantined, by reason. ``refused``: a part of the sentence.
    """

    name: str
    form: str
    make: bytes | Make
    rows: list[tuple[Any, ...]] | int = 0
    codes: dict[str, int] = field(default_factory=dict)
    refused: str = ""
    file: str = "delivery.txt"


def zipped(files: dict[str, bytes], mode: int = 0) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as container:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            container.writestr(info, content)
    return made.getvalue()


def linked(folder: Path) -> Path:
    (folder / "target.txt").write_bytes(b"k,v\na,1\n")
    (folder / "delivery.txt").symlink_to("target.txt")
    return folder / "delivery.txt"


def folder_with_link(folder: Path) -> Path:
    made = folder / "delivery"
    made.mkdir()
    (made / "a.csv").write_bytes(b"k,v\na,1\n")
    (made / "b.csv").symlink_to("/etc/hostname")
    return made


def folder_with_odd_name(folder: Path) -> Path:
    made = folder / "delivery"
    made.mkdir()
    Path(os.fsdecode(bytes(made) + b"/a\xff.csv")).write_bytes(b"k,v\na,1\n")
    return made


def csv_of(*rows: str, encoding: str = "utf-8") -> bytes:
    return "".join(f"{row}\n" for row in ("k,v", *rows)).encode(encoding)


def typed(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in ("k,d,n,f,at,local", *rows)).encode()


LONG = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=10_000))
GOOD = csv_of("a,1", "ข,2")
GOOD_ROWS = [("a", 1), ("ข", 2)]
DEEP = b"[" * 99_999 + b"]" * 99_999
BOM = b"\xef\xbb\xbf"
SQL = "'); drop table raw.bad_csv; --"
TIME = "2025-01-01 07:00:00"

CASES = [
    Case("empty file", "csv", b"", refused="empty: not even the header line"),
    Case("empty file without header", "pipe", b"", refused="holds no rows"),
    Case("empty fixed width", "fixed", b"", refused="holds no rows"),
    Case("empty json lines", "lines", b"", refused="holds no rows"),
    Case("empty json", "json", b"", refused="is empty"),
    Case("empty geojson", "geojson", b"", refused="is empty"),
    Case("only line ends", "pipe", b"\n\r\n\n", refused="holds no rows"),
    Case("header only", "csv", b"k,v\n", refused="holds no rows"),
    Case("header only, no line end", "csv", b"k,v", refused="holds no rows"),
    Case("an empty list", "json", b"[]", refused="holds no rows"),
    # Encodings
    Case("utf-16", "csv", "k,v\nก,1\n".encode("utf-16"), refused="UTF-16"),
    Case("utf-16 without a mark", "csv", "k,v\nก,1\n".encode("utf-16-le"), refused="UTF-16"),
    Case("utf-16, no header", "pipe", "ก|1\n".encode("utf-16"), refused="UTF-16"),
    Case("utf-16, fixed width", "fixed", "k     1\n".encode("utf-16-be"), refused="UTF-16"),
    Case("utf-16, json lines", "lines", '{"k": "ก"}\n'.encode("utf-16"), refused="UTF-16"),
    Case("utf-16, json", "json", '[{"k": "ก"}]'.encode("utf-16"), refused="UTF-16"),
    Case("cp874 declared utf-8", "csv", csv_of("ก,1", encoding="cp874"), [("ก", 1)]),
    Case("utf-8 declared cp874", "cp874", csv_of("น้ำ,1"), [("น้ำ", 1)]),
    Case(
        "mixed encodings", "csv", csv_of("ก,1", "ข,2") + "ค,3\n".encode("cp874"), [("ก", 1), ("ข", 2)], {"undecodable": 1}
    ),
    Case(
        "mixed encodings, mostly cp874", "cp874", csv_of("ก,1", "ข,2", encoding="cp874") + b"\xdb\xdc,3\n",
        [("ก", 1), ("ข", 2)], {"undecodable": 1},
    ),
    Case("mojibake", "csv", csv_of("a,1", "เธชเธกเธเธฒเธข,2"), [("a", 1)], {"mojibake": 1}),
    Case("byte order mark", "csv", BOM + GOOD, GOOD_ROWS),
    Case("byte order mark, json", "json", BOM + b'[{"k": "a", "v": 1}]', [("a", 1)]),
    Case("byte order mark, fixed width", "fixed", BOM + b"a     1\n", [("a", 1)]),
    Case("only a byte order mark", "csv", BOM, refused="empty: not even the header line"),
    # Lines
    Case("CR only", "csv", GOOD.replace(b"\n", b"\r"), GOOD_ROWS),
    Case("CR only, no last one", "pipe", b"a|1\rb|2", [("a", 1), ("b", 2)]),
    Case("CR only, fixed width", "fixed", b"a     1\rb     2\r", [("a", 1), ("b", 2)]),
    Case("CR LF", "csv", GOOD.replace(b"\n", b"\r\n"), GOOD_ROWS),
    Case("mixed line ends", "csv", b"k,v\r\na,1\nb,2\r\n\r\nc,3", [("a", 1), ("b", 2), ("c", 3)]),
    Case("a lone CR within a line", "csv", b"k,v\na\rb,1\n", [("a b", 1)]),
    Case("a lone CR in a quoted title", "quoted", b'k,v,"x\ry"\na,1,2\n', [("a", 1)]),
    Case("ragged lines", "csv", csv_of("a,1", "b", "c,3,4", "d,4,", "", "e,5"), [("a", 1), ("e", 5)], {"ragged_line": 3}),
    Case("ragged fixed width", "fixed", b"a     1\nb    2\nc      3\n   \nd     4", [("a", 1), ("d", 4)], {"ragged_line": 2}),
    Case("a record of other columns", "json", b'[{"k": "a", "v": 1}, {"key": "b"}]', [("a", 1)], {"ragged_line": 1}),
    Case("an object of other columns", "lines", b'{"k": "a", "v": 1}\n{"key": "b"}\n{}\n', [("a", 1)], {"ragged_line": 1}),
    Case(
        "text after the last delimiter", "trailing", b"k,v,\na,1,\nb,2,x\nc,3, \nd,4\n,,y\n",
        [("a", 1), ("c", 3)], {"ragged_line": 3},
    ),
    Case("unclosed quote", "quoted", b'k,v\na,1\n"b,2\nc,3\n', [("a", 1), ("c", 3)], {"ragged_line": 1}),
    Case(
        "unclosed quote far from the end", "quoted", b'k,v\n"b,2\n' + b"".join(b"%d,1\n" % n for n in range(60)),
        60, {"ragged_line": 1},
    ),
    Case("titles over two lines", "quoted", b'"k","v\n","x"\na,1,2\n', [("a", 1)]),
    Case("titles that run into the data", "quoted", b'k,v,x"""\n"a,1",2\nb,2,3\n', refused="a quote that is not closed"),
    Case("unclosed quote in the titles", "quoted", b'k,v,"x\na,1,2\nb,2,3\n', refused="a quote that is not closed"),
    Case("quotes within a field", "quoted", b'k,v\na "b" c,1\n', [('a "b" c', 1)]),
    Case("text after a quote", "quoted", b'k,v\n"a"b,1\nc,2\n', [("c", 2)], {"ragged_line": 1}),
    Case("a form feed in a record of two lines", "quoted", b'k,v\n"a\nb\x0c","1"\nc,2\n', [("a\nb", 1), ("c", 2)]),
    Case("a line that is no text within quotes", "quoted", b'k,v\n"a\nx\0y\nb",1\nc,2\n', [("c", 2)], {"undecodable": 2}),
    Case("duplicate titles", "csv", b"k,v,v\na,1,2\n", refused="stands 2 times"),
    Case("two columns under one title", "csv", b"k\x0cv,x\na,1\n", refused="the columns k, v stand under one title"),
    Case("duplicate unknown titles", "csv", b"k,v,x,x\na,1,2,3\n", [("a", 1)]),
    Case("a title is missing", "csv", b"k,w\na,1\n", refused="column missing: v (v)"),
    Case("100,000 fields on one line", "csv", csv_of("a,1", "," * 100_000), [("a", 1)], {"ragged_line": 1}),
    Case("a long title", "quoted", b'k,v,"' + b"x" * 200_000 + b'"\na,1,2\n', [("a", 1)]),
    # Characters
    Case("NUL in a row", "csv", b"k,v\na\0,1\nb,2\n", [("b", 2)], {"undecodable": 1}),
    Case("NUL in the titles", "csv", b"k\0,v\na,1\nb,2\n", refused="line 1, its titles"),
    Case("NUL in the titles, fixed width", "titled", b"k \0   v\na     1\nb     2\n", [("a", 1), ("b", 2)]),
    Case("only NUL", "pipe", b"\0" * 4096, refused="1 of 1 rows (100.0 %) break the contract"),
    Case("NUL in JSON text", "lines", b'{"k": "a\\u0000", "v": 1}\n{"k": "b", "v": 2}\n', [("b", 2)], {"mojibake": 1}),
    Case("NUL in an unknown key", "lines", b'{"k": "a", "v": 1, "x\\u0000": 2}\n', [("a", 1)]),
    Case("NUL in a nested key", "geojson", FORMS["geojson"][2].replace(b"null", b'{"\\u0000": "\\u0000"}'), 1),
    Case("control characters", "csv", b"k,v\na\x07\x1b[2J\x7f,1\n\x1a,2\n", [("a\x07\x1b[2J\x7f", 1), ("\x1a", 2)]),
    Case("control characters in a title", "csv", b"k\x1b[2J,v\na,1\n", refused="the file has: k\\x1b[2J, v"),
    Case("right-to-left mark", "csv", csv_of("a\u202eb,1"), [("a\u202eb", 1)]),
    Case("right-to-left mark in a title", "csv", "k\u202e,v\na,1\n".encode(), refused="the file has: k\\u202e, v"),
    Case("half a character in JSON", "lines", b'{"k": "a\\ud800", "v": 1}\n', [("a?", 1)]),
    Case("half a character in a key", "lines", b'{"k": "a", "v": 1, "\\ud800": 2}\n', [("a", 1)]),
    Case("half a character as bytes", "csv", b"k,v\n\xed\xa0\x80,1\n\xe0\xb8\x81,2\n\xe0\xb8\x82,3\n", 2, {"undecodable": 1}),
    Case("SQL in a value", "csv", csv_of(f"{SQL},1", "$1 %s {t},2", "\\.,3"), [("$1 %s {t}", 2), (SQL, 1), ("\\.", 3)]),
    Case("SQL in a title", "csv", f'k,v,"{SQL}"\na,1,x\n'.encode(), [("a", 1)]),
    Case("SQL in a missing title", "csv", f"k,{SQL}\na,1\n".encode(), refused=f"the file has: k, {SQL}"),
    Case("../ in values and titles", "csv", b"k,v,../../x\n../../etc/passwd,1,x\n", [("../../etc/passwd", 1)]),
    # Values
    Case(
        "numbers as text", "json", b'[{"k": "a", "v": "7"}, {"k": 8, "v": 8.0}, {"k": "b", "v": "x"}]',
        [("8", 8), ("a", 7)], {"bad_number": 1},
    ),
    Case("-0", "csv", csv_of("a,-0", "b,+0", "c,-0.0"), [("a", 0), ("b", 0), ("c", 0)]),
    Case(
        "what no integer holds", "csv", csv_of("a,1", "b,1e9", "c," + "9" * 400, "d,2147483648"),
        [("a", 1)], {"bad_number": 1, "out_of_range": 2},
    ),
    Case(
        "1e309", "typed",
        typed("a,,1,1e308,,", "b,,1,1e309,,", "c,,1e309,1,,", "d,,1,-1e309,,", "e,,NaN,1,,", "f,,1,inf,,"),
        1, {"bad_number": 2, "out_of_range": 3},
    ),
    Case("-0 and tiny decimals", "typed", typed("a,,-0,-0,,", "b,,1e-400,1e-400,,", "c,,0." + "0" * 400 + "1,1,,"), 3),
    Case(
        "decimals that no numeric holds", "typed", typed("a,,1,1,,", "b,,1e-99999,1,,", "c,,0." + "0" * 20_000 + "1,1,,"),
        1, {"out_of_range": 2},
    ),
    Case(
        "the year 99999", "typed", typed("a,99999-01-01,,,,", "b,1/1/99999,,,,", "c,2568-01-01,,,,", "d,9999-01-01,,,,"),
        1, {"bad_date": 2, "impossible_date": 1},
    ),
    Case(
        "times that never were", "typed",
        typed(
            "a,,,,1920-04-01 00:05:00,", "b,,,,,1920-04-01T00:05:00", "c,,,,,2025-02-30 00:00:00", "d,,,,2025-01-01 24:30:00,",
            "e,,,,2025-01-01 00:00:00,2025-01-01 00:00:00",
        ),
        1, {"bad_date": 4},
    ),
    Case(
        "times of other ages", "typed",
        typed(
            "a,,,,+99999-01-01 00:00:00,", "b,,,,0000-01-01 00:00:00,", "c,,,,,-0044-03-15 00:00:00", "d,,,,2568-01-01 00:00:00,",
            "e,,,,1900-01-01 00:00:00,",
        ),
        1, {"impossible_date": 4},
    ),
    Case("exact decimals beside times", "typed", typed(f"a,,0.1,,{TIME},{TIME}"), 1),
    Case("a key of 10,000 bytes", "csv", csv_of("a,1", f"{LONG},2", "b,3"), refused="row 3: column k is part of the key"),
    Case("a key of 10,000 bytes, appended", "append", csv_of("a,1", f"{LONG},2"), refused="row 3: column k is part of the key"),
    Case("a value of 500,000 bytes", "csv", csv_of("a,1", "b," + "x" * 500_000), [("a", 1)], {"bad_number": 1}),
    Case("a line of 1 MB and more", "csv", csv_of("a,1", "b," + "x" * (1 << 20)), refused="line 3 is longer than"),
    # JSON
    Case(
        "deep nesting, unknown key", "lines", b'{"k": "a", "v": 1}\n{"k": "b", "v": 2, "x": ' + DEEP + b"}\n",
        [("a", 1)], {"undecodable": 1},
    ),
    Case(
        "deep nesting in a document", "json", b'[{"k": "a", "v": 1}, {"k": ' + DEEP + b"}]",
        refused="record 2 (from byte 21) is nested too deeply",
    ),
    Case("only brackets", "json", b"[" * 99_999, refused="broken JSON"),
    Case("a document that ends early", "json", b'[{"k": "a", "v": 1}, {"k": "b"', refused="it ends within record 2"),
    Case("text after a document", "json", b'[{"k": "a", "v": 1}] x', refused="broken JSON around the list of records"),
    Case(
        "a document of JSON lines", "json", b'{"k": "a", "v": 1}\n{"k": "b", "v": 2}\n',
        refused="if each line is a record of its own, the format is json_lines",
    ),
    Case("a list in JSON lines", "lines", b'[{"k": "a", "v": 1}]\n{"k": "b", "v": 2}\n', [("b", 2)], {"undecodable": 1}),
    Case("a key twice", "json", b'[{"k": "a", "v": 1, "v": 2}]', [("a", 2)]),
    Case(
        "1e309 and NaN in JSON", "lines", b'{"k": "a", "v": 1e309}\n{"k": "b", "v": NaN}\n{"k": "c", "v": -0}\n',
        [("c", 0)], {"bad_number": 2},
    ),
    Case("no FeatureCollection", "geojson", b'{"type": "Topology", "features": []}', refused="no FeatureCollection"),
    Case("no feature", "geojson", FORMS["geojson"][2].replace(b"[{", b'[1, {"type": "Point"}, {'), 1, {"undecodable": 2}),
    # Containers
    Case("gzip", "csv", gzip.compress(GOOD), GOOD_ROWS),
    Case("gzip with zeros behind", "csv", gzip.compress(GOOD) + b"\0" * 512, GOOD_ROWS),
    Case("gzip with garbage behind", "csv", gzip.compress(GOOD) + b"garbage", refused="cut off or damaged"),
    Case("truncated gzip", "csv", gzip.compress(GOOD)[:-5], refused="is cut off; deliver it again"),
    Case("gzip of a wrong sum", "csv", gzip.compress(GOOD)[:-8] + b"\0" * 8, refused="cut off or damaged"),
    Case("gzip of a gzip", "csv", gzip.compress(gzip.compress(GOOD)), refused="packed twice"),
    Case("zip", "csv", zipped({"a.csv": csv_of("a,1"), "b.csv": csv_of("ข,2")}), GOOD_ROWS),
    Case("truncated zip", "csv", zipped({"a.csv": GOOD})[:-30], refused="cut off or damaged"),
    Case("a file without a name in a zip", "csv", zipped({"a.csv": GOOD, "": GOOD}), refused="holds a file without a name"),
    Case("zip slip", "csv", zipped({"a.csv": GOOD, "../../evil.csv": GOOD}), refused="names a place outside of the zip"),
    Case("zip slip, absolute", "csv", zipped({"/tmp/evil.csv": GOOD}), refused="names a place outside of the zip"),
    Case("zip slip, Windows", "csv", zipped({"..\\evil.csv": GOOD}), refused="names a place outside of the zip"),
    Case("a link in a zip", "csv", zipped({"a.csv": b"/etc/passwd"}, stat.S_IFLNK | 0o777), refused="is a symbolic link"),
    Case("SQL as a member's name", "csv", zipped({f"{SQL}.csv": csv_of("a,1", "b,x")}), [("a", 1)], {"bad_number": 1}),
    Case("one of two members is bad", "csv", zipped({"a.csv": GOOD, "b.csv": b"x,y\n1,2\n"}), refused="b.csv: none of its"),
    Case("a symbolic link", "csv", linked, refused="is a symbolic link"),
    Case("a symbolic link in a folder", "csv", folder_with_link, refused="b.csv: is a symbolic link"),
    Case("a name that is no text in a folder", "csv", folder_with_odd_name, refused="a\\udcff.csv: its name is not UTF-8"),
    # Names
    Case("SQL as the file's name", "csv", GOOD, GOOD_ROWS, file="x'; drop table ops.delivery; --.csv"),
    Case("a name with a line end and a quote", "csv", GOOD + b"b,x\n", GOOD_ROWS, {"bad_number": 1}, file='a\n"b",\\.csv'),
    Case(
        "a refused name with a line end", "csv", b"", refused="a b\\x1b[2J\\u202e.csv: the file is empty",
        file="a\nb\x1b[2J\u202e.csv",
    ),
]  # fmt: skip


@dataclass
class Place:
    """A dataset of a form, its earlier delivery, and what it holds."""

    made: Any
    earlier: Path

    def load_earlier(self) -> None:
        earlier = ingest(self.made.warehouse, self.made.contract, self.earlier, accept_shrink=True)
        assert earlier.status in ("loaded", "unchanged"), earlier.problem

    def rows(self) -> list[tuple[Any, ...]]:
        return self.made.rows()  # type: ignore[no-any-return]

    def held(self) -> Any:
        """Every version of every row, and what is recorded as loaded."""
        rows = self.made.query("select xmin, ctid, tableoid, t.* from {t} t order by ctid")
        return rows, self.made.query(
            "select id, in_force, rows_held from ops.delivery where dataset = '{d}' and status = 'loaded' order by id"
        )


@pytest.fixture
def place(table: Any, tmp_path: Path) -> Callable[[str], Place]:
    def make(form: str) -> Place:
        columns, contract, earlier = FORMS[form]
        path = tmp_path / "earlier.txt"
        path.write_bytes(earlier)
        found = Place(table(f"bad_{form}", columns, **contract), path)
        found.load_earlier()
        return found

    return make


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_ends_as_loaded_quarantined_or_refused(place: Any, tmp_path: Path, case: Case) -> None:
    here: Place = place(case.form)
    before = here.held()
    folder = tmp_path / "in"
    folder.mkdir()
    if isinstance(case.make, bytes):
        path = folder / case.file
        path.write_bytes(case.make)
    else:
        path = case.make(folder)
    started = time.monotonic()
    delivery = ingest(here.made.warehouse, here.made.contract, path)
    assert time.monotonic() - started < 20
    ends_as(here, delivery, case, before)


def ends_as(here: Place, delivery: Delivery, case: Case, before: Any) -> None:
    if case.refused:
        problem = delivery.problem or ""
        assert delivery.status == "rejected", delivery
        assert case.refused in problem
        assert problem.startswith(case.file.split("\n")[0].removesuffix(".txt")), "the sentence names the file"
        assert problem.isprintable() and len(problem) < 2_000, "one line that a terminal shows as it is"
        assert here.held() == before, "the earlier delivery's rows are as they were"
        recorded = here.made.query(f"select status, rows_loaded, problem from ops.delivery where id = {delivery.delivery}")
        assert recorded == [("rejected", 0, problem)]
        return
    assert (delivery.status, delivery.problem) == ("loaded", None)
    assert delivery.reasons == case.codes
    assert delivery.rows_read == delivery.rows_loaded + delivery.rows_quarantined
    counts = "select count(*) from {t} where _delivery_id = " + str(delivery.delivery)
    assert here.made.query(counts) == [(delivery.rows_loaded,)]
    quarantined = f"select count(*) from quarantine.{{d}} where delivery_id = {delivery.delivery}"
    assert here.made.query(quarantined) == [(delivery.rows_quarantined,)]
    assert delivery.rows_quarantined == sum(case.codes.values())
    if isinstance(case.rows, int):
        assert delivery.rows_loaded == case.rows
    else:
        assert here.rows() == sorted(case.rows)


def test_a_name_that_is_no_text_is_told_in_a_sentence(place: Any, tmp_path: Path) -> None:
    here: Place = place("csv")
    before = here.held()
    path = Path(os.fsdecode(bytes(tmp_path) + b"/a\xff.csv"))
    path.write_bytes(GOOD)
    refused = ingest(here.made.warehouse, here.made.contract, path)
    assert refused.status == "rejected"
    assert refused.problem == "a\\udcff.csv: its name is not UTF-8, so that it cannot be recorded; rename it"
    assert here.held() == before


@pytest.mark.parametrize("form", ["csv", "append"])
def test_a_file_that_grows_while_it_is_read_is_refused(place: Any, tmp_path: Path, form: str) -> None:
    here: Place = place(form)
    before = here.held()
    path = tmp_path / "growing.csv"
    path.write_bytes(GOOD)

    def grow(_: int) -> None:
        with path.open("ab") as file:
            file.write(b"late,9\n")

    delivery = ingest(here.made.warehouse, here.made.contract, path, progress=grow)
    assert delivery.status == "rejected"
    assert delivery.problem == "growing.csv: changed while it was read; deliver it under a name of its own once it is whole"
    assert here.held() == before


def test_a_pattern_that_columns_cannot_take_is_told_in_a_sentence(table: Any) -> None:
    made = table("bad_pattern", [KEY | {"logicalTypeOptions": {"pattern": "^(?!x)"}}])
    with pytest.raises(UserError, match=r"the pattern '\^\(\?!x\)' of k cannot be applied to columns \(look-around"):
        made.deliver("k\na\n")


@pytest.mark.parametrize(
    ("name", "content", "code", "sentence"),
    [
        (b"long key.csv", csv_of(f"{LONG},2"), 3, "long key.csv: row 2: column k is part of the key of bad_csv"),
        (b"\xffa.csv", GOOD, 3, "\\udcffa.csv: its name is not UTF-8"),
        (b"a\nb.csv", csv_of("\0,1"), 3, "a b.csv: "),
    ],
)
def test_the_command_line_says_one_sentence(
    place: Any, environment: dict[str, str], tmp_path: Path, name: bytes, content: bytes, code: int, sentence: str
) -> None:
    here: Place = place("csv")
    path = Path(os.fsdecode(bytes(tmp_path) + b"/" + name))
    path.write_bytes(content)
    script = "from dopa_pipelines.cli.main import main; main()"
    arguments = [sys.executable, "-c", script, "ingest", "--contract", str(here.made.contract.path), str(path)]
    done = subprocess.run(arguments, env=environment, capture_output=True, timeout=120)
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert sentence in " ".join(said.split())
    assert "Traceback" not in said


# Large ones --------------------------------------------------------------------------------------------------------------------

MEMORY = 600 << 20
"""What a client may take for a delivery of any size (bytes, above what a small one takes)."""
Pieces = Callable[[], Iterator[bytes]]


def one_line() -> Iterator[bytes]:
    yield from (b"x" * (1 << 20) for _ in range(100))


def titles_without_end() -> Iterator[bytes]:
    yield b"k,v"
    yield from (b",c%d" % n for n in range(2_000_000))
    yield b"\na,1\n"


def fields_without_end() -> Iterator[bytes]:
    yield b"k,v\na,1\nb"
    yield from (b",1" for _ in range(2_000_000))
    yield b"\n"


def short_titles() -> Iterator[bytes]:
    """As many as fit into one line that is short enough."""
    yield b"k,v" + b",c" * 400_000 + b"\na,1\n"


def one_string() -> Iterator[bytes]:
    yield b'[{"k": "'
    yield from (b"x" * (1 << 20) for _ in range(100))
    yield b'", "v": 1}]'


def nothing_but_keys() -> Iterator[bytes]:
    yield b'{"k": "a", "v": 1}\n'
    for start in range(0, 200_000, 1000):
        yield b'{"k": "b", "v": 2' + b"".join(b', "k%d": 0' % n for n in range(start, start + 1000)) + b"}\n"


def a_long_head() -> Iterator[bytes]:
    yield b'{"head": "'
    yield from (b"x" * (1 << 20) for _ in range(100))
    yield b'", "data": []}'


def many_records() -> Iterator[bytes]:
    yield b'[{"k": "x", "v": 0}'
    for start in range(0, 500_000, 1000):
        yield b"".join(
            b', {"k": "key of record %d", "v": %d, "other": {"list": [1, 2, 3]}}' % (n, n) for n in range(start, start + 1000)
        )
    yield b"]"


def many_flaws() -> Iterator[bytes]:
    yield b"k,v\n"
    yield from (b'"%d,\n' % n * 1000 for n in range(200))


def a_bomb() -> Iterator[bytes]:
    yield gzip.compress(b"k,v\n" + b"0" * (300 << 20), 9)


def a_zip_bomb() -> Iterator[bytes]:
    yield zipped({"a.csv": b"k,v\n" + b"0" * (200 << 20)})


LARGE: list[tuple[str, str, Pieces, str, int]] = [
    ("one line of 100 MB", "csv", one_line, "line 1 is longer than", 0),
    ("one line of 100 MB, no header", "pipe", one_line, "line 1 is longer than", 0),
    ("one line of 100 MB, fixed width", "fixed", one_line, "line 1 is longer than", 0),
    ("one line of 100 MB, json lines", "lines", one_line, "line 1 is longer than", 0),
    ("two million titles", "csv", titles_without_end, "line 1 is longer than", 0),
    ("400,000 titles", "csv", short_titles, "line 1 holds 400,002 titles", 0),
    ("two million fields", "csv", fields_without_end, "line 3 is longer than", 0),
    ("a string of 100 MB in JSON", "json", one_string, "record 1 (from byte 2) is longer than", 0),
    ("200,000 different keys", "lines", nothing_but_keys, "more than 10,000 different keys", 0),
    ("100 MB before the list", "json", a_long_head, "no list of records", 0),
    ("a document of 40 MB", "json", many_records, "", 500_001),
    ("200,000 unclosed quotes", "quoted", many_flaws, "break the contract", 0),
    ("a gzip bomb", "csv", a_bomb, "times its size", 0),
    ("a zip bomb", "csv", a_zip_bomb, "times its size", 0),
]


@pytest.mark.parametrize(("form", "pieces", "refused", "rows"), [row[1:] for row in LARGE], ids=[row[0] for row in LARGE])
def test_time_and_memory_are_bounded(
    place: Any, bounded: Any, tmp_path: Path, form: str, pieces: Pieces, refused: str, rows: int
) -> None:
    here: Place = place(form)
    before = here.held()
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.writelines(pieces())
    found = bounded(here.made.contract, here.earlier, path, MEMORY)
    assert found.memory <= MEMORY, f"{found.memory:,} bytes"
    if refused:
        assert found.delivery["status"] == "rejected"
        assert refused in found.delivery["problem"]
        assert found.delivery["problem"].startswith("large.txt")
        assert here.held() == before
    else:
        assert (found.delivery["status"], found.delivery["rows_loaded"]) == ("loaded", rows)
        assert found.delivery["rows_read"] == rows
