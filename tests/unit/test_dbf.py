"""DBF tables, built byte by byte after the published format: what is read, what is marked, what is refused."""

import random
import re
import struct
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.sources import dbf as dbf_module
from dopa_pipelines.sources import open_reader
from dopa_pipelines.sources.batch import frame_of

AB = [{"name": "a"}, {"name": "b"}]
DBF = {"server": {"format": "dbf", "encoding": "cp874"}}
Field = tuple[str, str, int, int]
TWO: tuple[Field, ...] = (("A", "C", 5, 0), ("B", "N", 4, 0))


def field(name: str, kind: str, length: int, decimals: int = 0) -> bytes:
    head = name.encode("cp874").ljust(11, b"\0") + kind.encode() + bytes(4)
    return head + bytes([length & 0xFF, decimals or length >> 8]) + bytes(14)


def dbf(fields: Sequence[Field], records: Sequence[bytes], *, version: int = 3, end: bytes = b"\x1a", **wrong: int) -> bytes:
    """A table. ``records`` hold the mark of deletion; ``wrong``: numbers of the header that are not what they should be."""
    listed = b"".join(field(*item) for item in fields) + b"\r" + (bytes(263) if version == 0x30 else b"")
    length = 1 + sum(item[2] for item in fields)
    numbers = {"count": len(records), "start": 32 + len(listed), "length": length} | wrong
    head = struct.pack("<BBBBLHH", version, 125, 4, 1, numbers["count"], numbers["start"], numbers["length"])
    return head.ljust(32, b"\0") + listed + b"".join(records) + end


def text(value: str, length: int, encoding: str = "cp874") -> bytes:
    return value.encode(encoding).ljust(length)


def read(contract: Contract, path: Path) -> tuple[list[dict[str, Any]], int]:
    reader = open_reader(contract, path)
    frames = [frame_of(batch) for batch in reader.batches()]
    return (pl.concat(frames).sort("_row").to_dicts() if frames else []), reader.layout_rows


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def make(content: bytes) -> Path:
        path = tmp_path / "table.dbf"
        path.write_bytes(content)
        return path

    return make


def refused(contract: Contract, path: Path) -> str:
    with pytest.raises(Rejected) as raised:
        read(contract, path)
    assert re.fullmatch(r"table\.dbf: [^\n]+", str(raised.value))
    return str(raised.value)


@pytest.mark.parametrize("version", [0x03, 0x83, 0x8B, 0x30, 0xF5])
@pytest.mark.parametrize("batch_bytes", [1, 25, 1 << 20])
def test_records(make_contract: Any, write: Any, monkeypatch: pytest.MonkeyPatch, version: int, batch_bytes: int) -> None:
    monkeypatch.setattr(dbf_module, "BATCH_BYTES", batch_bytes)
    records = [b" " + text("น้ำ", 5) + b"  12", b"*" + text("gone", 5) + b"   0", b" " + text(" x", 5) + b"-1.5", b" " + b" " * 9]
    rows, layout = read(make_contract("dbf_rows", AB, **DBF), write(dbf(TWO, records, version=version)))
    assert [(row["_row"], row["_flaw"], row["a"], row["b"]) for row in rows] == [(1, None, "น้ำ", "12"), (3, None, " x", "-1.5")]
    assert [row["_original"] for row in rows] == ["น้ำ    12", " x   -1.5"]
    assert layout == 2  # a deleted record and a blank one


def test_titles_are_matched_as_in_every_form(make_contract: Any, write: Any) -> None:
    columns = [{"name": "a", "physicalName": "รหัสจังหวัด", "titles": ["รหัสจังหว"]}, {"name": "b"}]
    reader = open_reader(
        make_contract("dbf_titles", columns, **DBF),
        write(dbf([("B", "C", 1, 0), ("รหัสจังหว", "C", 2, 0), ("ETC", "M", 10, 0)], [b" x10" + b" " * 10])),
    )
    (row,) = pl.concat(map(frame_of, reader.batches())).to_dicts()
    assert (row["a"], row["b"], reader.unknown_titles) == ("10", "x", ("ETC",))
    assert "column missing: b" in refused(make_contract("dbf_titles", AB, **DBF), write(dbf(TWO[:1], [b" 12345"])))
    assert "stands 2 times" in refused(make_contract("dbf_titles", AB, **DBF), write(dbf([*TWO, TWO[0]], [])))


def test_types(make_contract: Any, write: Any) -> None:
    moment = datetime(2025, 4, 1, 13, 30)
    julian = 2_451_545 + (moment - datetime(2000, 1, 1)).days  # 1 January 2000 is Julian day 2,451,545
    at_noon = int(timedelta(hours=13, minutes=30).total_seconds() * 1000)
    cells = {
        "n": ("N", 8, [b" 1234.50", b"********"], ["1234.50", "********"]),
        "f": ("F", 8, [b" 1.5E+10", b"      -0"], ["1.5E+10", "-0"]),
        "d": ("D", 8, [b"25680401", b"        "], ["25680401", ""]),
        "l": ("L", 1, [b"Y", b"?"], ["true", ""]),
        "m": ("L", 1, [b"f", b" "], ["false", ""]),
        "i": ("I", 4, [struct.pack("<i", -2_147_483_648), struct.pack("<i", 7)], ["-2147483648", "7"]),
        "o": ("B", 8, [struct.pack("<d", 1234567890.12), struct.pack("<d", 1e-7)], ["1234567890.12", "0.0000001"]),
        "p": ("B", 8, [struct.pack("<d", float("inf")), struct.pack("<d", 1e22)], ["inf", "10000000000000000000000"]),
        "y": ("Y", 8, [struct.pack("<q", -12345), struct.pack("<q", -(2**63))], ["-1.2345", "-922337203685477.5808"]),
        "t": ("T", 8, [struct.pack("<ii", julian, at_noon), bytes(8)], ["2025-04-01 13:30:00", None]),
        "u": ("T", 8, [struct.pack("<ii", julian, at_noon - 1), struct.pack("<ii", -5, 1)], ["2025-04-01 13:30:00", "-5/1"]),
        "c": ("C", 300, [text("ก" * 290, 300), text("x", 300)], ["ก" * 290, "x"]),
    }  # fmt: skip
    fields = [(name, kind, length, 0) for name, (kind, length, _, _) in cells.items()]
    records = [b" " + b"".join(values[at] for _, _, values, _ in cells.values()) for at in (0, 1)]
    contract = make_contract("dbf_types", [{"name": name} for name in cells], **DBF)
    rows, _ = read(contract, write(dbf(fields, records, version=0x30)))
    for name, (_, _, _, expected) in cells.items():
        assert [row[name] for row in rows] == expected, name


def test_columns_that_repeat_are_the_same_text(make_contract: Any, write: Any) -> None:
    records = [b" " + text(f"v{number % 3}", 5) + f"{number:4}".encode() for number in range(1000)]
    rows, _ = read(make_contract("dbf_repeats", AB, **DBF), write(dbf(TWO, records)))
    assert [(row["a"], row["b"]) for row in rows] == [(f"v{number % 3}", str(number)) for number in range(1000)]


@pytest.mark.parametrize("encoding", ["cp874", "utf-8"])
@pytest.mark.parametrize("declared", ["cp874", "utf-8"])
def test_the_encoding_is_what_most_values_are(make_contract: Any, write: Any, encoding: str, declared: str) -> None:
    fields = (("A", "C", 30, 0), ("B", "C", 1, 0))
    records = [b" " + text(value, 30, encoding) + b"1" for value in ("plain", "น้ำ", "กรุงเทพ")]
    other = "utf-8" if encoding == "cp874" else "cp874"
    contract = make_contract("dbf_encoding", AB, server={"format": "dbf", "encoding": declared})
    rows, _ = read(contract, write(dbf(fields, records)))
    assert [row["a"] for row in rows] == ["plain", "น้ำ", "กรุงเทพ"]
    if encoding == "utf-8":
        rows, _ = read(contract, write(dbf(fields, [*records, b" " + text("ข้าว", 30, other) + b"1"])))
        assert [(row["_flaw"], row["a"]) for row in rows[2:]] == [(None, "กรุงเทพ"), ("undecodable", None)]


def test_bytes_that_are_no_text_mark_their_record(make_contract: Any, write: Any) -> None:
    records = [b" \xa1\xa2\xdb  1   ", b" \xa1\0\0\0\x002   ", b" \xa1\0\xa1  3   ", b" a\0\0  4   "]
    rows, _ = read(make_contract("dbf_bytes", AB, **DBF), write(dbf(TWO, records)))
    assert [(row["_row"], row["_flaw"], row["a"], row["b"]) for row in rows] == [
        (1, "undecodable", None, None), (2, None, "ก", "2"), (3, "undecodable", None, None), (4, None, "a", "4"),
    ]  # fmt: skip
    assert [row["_original"] for row in rows] == ["กข\\xdb  1", "ก\\x00\\x00\\x00\\x002", "ก\\x00ก  3", "a\\x00\\x00  4"]


@pytest.mark.parametrize("end", [b"", b"\x1a", b"\x1a" + bytes(511), b"\0" * 100])
def test_what_may_follow_the_last_record(make_contract: Any, write: Any, end: bytes) -> None:
    rows, _ = read(make_contract("dbf_end", AB, **DBF), write(dbf(TWO, [b" abcde1234"], end=end)))
    assert len(rows) == 1


def test_a_table_without_records(make_contract: Any, write: Any) -> None:
    assert read(make_contract("dbf_no_rows", AB, **DBF), write(dbf(TWO, []))) == ([], 0)


GOOD = [b" abcde1234", b" fghij5678"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\x03", "is cut off: its header is not whole"),
        (dbf(TWO, GOOD)[:60], "is cut off: its header is not whole"),
        (dbf(TWO, GOOD)[:-8], "is cut off: its header says 2 records, but 1 are there"),
        (dbf(TWO, GOOD, count=2_000_000_000), "is cut off: its header says 2,000,000,000 records, but 2 are there"),
        (dbf(TWO, GOOD, count=1), "1 records, but room for 2"),
        (dbf(TWO, GOOD, end=b"\x1aabc"), "4 bytes after its last record"),
        (dbf(TWO, GOOD, length=9), "its fields are 10 bytes long together, but a record 9"),
        (dbf(TWO, GOOD, length=0), "but a record 0"),
        (dbf(TWO, GOOD, start=33), "its list of fields does not end"),
        (dbf(TWO, GOOD, start=0), "its list of fields does not end"),
        (dbf(TWO, GOOD, start=95), "its list of fields does not end"),
        (dbf((), []), "it has no field"),
        (dbf([("A", "C", 0, 0)], []), "field 1 has no name, or a length"),
        (dbf([("", "C", 2, 0)], []), "field 1 has no name, or a length"),
        (dbf([("A", "I", 8, 0)], []), "field 1 has no name, or a length"),
        (dbf(TWO, [b" abcde1234", b"Xfghij5678"]), "record 2 does not begin with"),
        (dbf(TWO, GOOD, version=0x04), "dBase 7"),
        (dbf(TWO, GOOD, version=0x02), "dBase II"),
        (b"a,b\n1,2\n", "is no DBF table"),
        (dbf(TWO, GOOD)[:15] + b"\1" + dbf(TWO, GOOD)[16:], "is encrypted"),
        (dbf([("A", "M", 10, 0), ("B", "C", 1, 0)], []), "column a: field A is a memo"),
        (dbf([("A", "V", 10, 0), ("B", "C", 1, 0)], []), "column a: field A is of type 'V'"),
    ],
)
def test_tables_that_are_not_whole_or_not_readable_are_refused(
    make_contract: Any, write: Any, content: bytes, words: str
) -> None:
    assert words in refused(make_contract("dbf_refused", AB, **DBF), write(content))


def test_any_bytes_end_as_rows_or_as_one_sentence(make_contract: Any, write: Any) -> None:
    random_ = random.Random(5)
    fields = (("A", "C", 5, 0), ("B", "N", 4, 0), ("C", "D", 8, 0), ("D", "L", 1, 0), ("E", "T", 8, 0), ("F", "B", 8, 2))
    good = dbf(fields, [b" " + text("กข", 5) + b"   125680401T" + bytes(16) for _ in range(5)], version=0x30)
    contract = make_contract("dbf_any", [{"name": name} for name in "abcdef"], **DBF)
    ended = {"rows": 0, "refused": 0}
    for _ in range(600):
        changed = bytearray(good)
        for _ in range(random_.choice([1, 2, 8])):
            at = random_.randrange(len(changed))
            match random_.randrange(3):
                case 0:
                    changed[at] = random_.randrange(256)
                case 1:
                    del changed[at : at + random_.choice([1, 20])]
                case _:
                    changed[-40:] = random_.randbytes(40)
        try:
            rows, layout = read(contract, write(bytes(changed)))
            assert len(rows) + layout == struct.unpack_from("<L", changed, 4)[0]
            ended["rows"] += 1
        except UserError as error:
            assert re.fullmatch(r"table\.dbf: [^\n]+", str(error)), error
            ended["refused"] += 1
    assert min(ended.values()) > 50, ended
