"""Containers: what comes out of them, and what is refused before it does harm."""

import gzip
import hashlib
import io
import os
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter

from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.sources import containers
from dopa_pipelines.sources.containers import content_sha256, unpacked

Files = dict[str, bytes]


def contents(path: Path, scratch: Path) -> list[tuple[str, bytes]]:
    with unpacked(path, scratch) as parts:
        found = [(part.name, part.path.read_bytes()) for part in parts]
    assert not scratch.exists() or not list(scratch.iterdir())
    return found


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as container:
        for name, content in files.items():
            container.writestr(name, content)
    return made.getvalue()


def write_folder(path: Path, files: Files) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "state" / "scratch"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def make(content: bytes, name: str = "register.zip") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return make


def test_a_plain_file_is_its_own_part(write: Any, scratch: Path) -> None:
    path = write(b"a,b\n", "register.gz")  # the name says nothing
    with unpacked(path, scratch) as parts:
        assert [(part.name, part.path) for part in parts] == [("register.gz", path)]
    assert not scratch.exists()


@pytest.mark.parametrize(
    "content", [b"", b"P", b"PK\x03\x05", b"\x1f", *(text.encode(code) for text in ("ก", "ab") for code in ("utf-8", "cp874"))]
)
def test_what_is_no_container_is_left_alone(write: Any, scratch: Path, content: bytes) -> None:
    assert contents(write(content, "a"), scratch) == [("a", content)]


@pytest.mark.parametrize("members", [1, 3])
def test_a_gzip_of_one_or_more_members(write: Any, scratch: Path, members: int) -> None:
    path = write(b"".join(gzip.compress(f"{n}\n".encode()) for n in range(members)), "a.txt.gz")
    assert contents(path, scratch) == [("a.txt.gz", b"".join(f"{n}\n".encode() for n in range(members)))]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_its_files_by_name(write: Any, scratch: Path, method: int) -> None:
    files = {
        "b.txt": b"2", "a/c.txt": b"1", "empty.txt": b"", "folder/": b"", "z.txt.gz": gzip.compress(b"3"), "all.done": b"x",
        "__MACOSX/b.txt": b"x", ".hidden": b"x", "a/.DS_Store": b"x", "Register.DONE": b"x",
    }  # fmt: skip
    expected = [("r.zip/a/c.txt", b"1"), ("r.zip/b.txt", b"2"), ("r.zip/z.txt.gz", b"3")]
    assert contents(write(zipped(files, method), "r.zip"), scratch) == expected


def test_a_folder_is_its_files_by_name(tmp_path: Path, scratch: Path) -> None:
    files = {"b.txt": b"2", "a/c.txt": b"1", "empty": b"", "z.gz": gzip.compress(b"3"), "r.done": b"x", ".x/y": b"x"}
    folder = write_folder(tmp_path / "r", files)
    assert contents(folder, scratch) == [("r/a/c.txt", b"1"), ("r/b.txt", b"2"), ("r/z.gz", b"3")]
    with unpacked(folder, scratch) as parts:
        assert parts[0].path == folder / "a" / "c.txt"  # not copied


def test_what_is_unpacked_is_for_its_owner_only(write: Any, scratch: Path) -> None:
    old = os.umask(0)
    try:
        with unpacked(write(zipped({"a": b"1"})), scratch) as parts:
            path = parts[0].path
            assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent)] == [0o600, 0o700]
            assert path.parent.parent == scratch
    finally:
        os.umask(old)


def test_it_is_gone_after_an_error_of_the_reader(write: Any, scratch: Path) -> None:
    with pytest.raises(KeyError), unpacked(write(zipped({"a": b"1"})), scratch):
        raise KeyError
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("form", ["xlsx", "ods"])
def test_office_documents_are_files(tmp_path: Path, write: Any, scratch: Path, form: str) -> None:
    if form == "xlsx":
        book = xlsxwriter.Workbook(str(tmp_path / "b"))
        book.add_worksheet().write(0, 0, "x")
        book.close()
        content = (tmp_path / "b").read_bytes()
    else:
        content = zipped({"mimetype": b"application/vnd.oasis.opendocument.spreadsheet", "content.xml": b"<x/>"})
    assert contents(write(content, "book.zip"), scratch) == [("book.zip", content)]
    folder = write_folder(tmp_path / "f", {"book": content})
    assert contents(folder, scratch) == [("f/book", content)]
    assert contents(write(zipped({"x/book": content})), scratch) == [("register.zip/x/book", content)]
    assert contents(write(gzip.compress(content), "book.gz"), scratch) == [("book.gz", content)]


def raw_zip(name: bytes, content: bytes = b"x", flags: int = 0, mode: int = 0, method: int = 0) -> bytes:
    """A zip of one stored file, written byte by byte: names, flags and kinds that zipfile would not write."""
    import zlib

    facts = struct.pack("<HHHHLLLHH", flags, method, 0, 33, zlib.crc32(content), len(content), len(content), len(name), 0)
    local = b"PK\x03\x04\x14\x00" + facts + name + content
    central = b"PK\x01\x02\x14\x03\x14\x00" + facts + struct.pack("<HHHLL", 0, 0, 0, mode << 16, 0) + name
    return local + central + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        ("ทะเบียน.txt".encode("cp874"), 0, "ทะเบียน.txt"),
        ("ทะเบียน.txt".encode(), 0x800, "ทะเบียน.txt"),
        ("ทะเบียน.txt".encode(), 0, "ทะเบียน.txt"),
        ("น้ำ".encode("cp874"), 0, "น้ำ"),
        (b"plain.txt", 0, "plain.txt"),
        (b"a\x1b[31m.txt", 0, "a\ufffd[31m.txt"),
    ],
)
def test_names_are_read_as_they_were_written(write: Any, scratch: Path, name: bytes, flags: int, expected: str) -> None:
    assert contents(write(raw_zip(name, flags=flags)), scratch) == [(f"register.zip/{expected}", b"x")]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../a",
        "a/../../b",
        "..",
        "C:\\a",
        "c:a",
        "\\\\server\\a",
        "a\\..\\b",
        "a/..",
        "../.hidden",
        "__MACOSX/../../a",
    ],
)
def test_names_that_climb_out_are_refused(tmp_path: Path, write: Any, scratch: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Rejected, match="names a place outside of the zip"):
        contents(write(raw_zip(name.encode())), scratch)
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and path not in before] == [tmp_path / "register.zip"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (raw_zip(b"a", b"/etc/passwd", mode=stat.S_IFLNK | 0o777), "register.zip/a: is a symbolic link"),
        (raw_zip(b"a", mode=stat.S_IFIFO | 0o600), "register.zip/a: is a device or a pipe"),
        (raw_zip(b"a", flags=1), "register.zip/a: is encrypted"),
        (raw_zip(b"a", method=9), r"register.zip/a: is packed in a way that is not read \(method 9\)"),
        (raw_zip(b"a", method=98), "method 98"),
        (zipped({"a": b"x" * 99}, zipfile.ZIP_BZIP2), "method 12"),
        (zipped({"a": b"x" * 99}, zipfile.ZIP_LZMA), "method 14"),
        (zipped({"a.zip": zipped({"b": b"1"})}), r"register.zip/a.zip: is packed twice"),
        (zipped({"a.gz": gzip.compress(gzip.compress(b"1"))}), r"register.zip/a.gz: is packed twice"),
        (gzip.compress(zipped({"a": b"1"})), "is packed twice"),
        (gzip.compress(gzip.compress(b"1")), "is packed twice"),
        (zipped({}), "holds no file"),
        (zipped({"a/": b"", "b": b"", "c.done": b"1"}), "holds no file"),
        (gzip.compress(b""), "holds no file"),
        (zipped({"a": b"1" * 999})[:-30], "register.zip: is cut off or damaged"),
        (zipped({"a": os.urandom(9999)})[:500], "register.zip: is cut off or damaged"),
        (b"PK\x03\x04", "register.zip: is cut off or damaged"),
        (gzip.compress(os.urandom(5000))[:-9], "register.zip: is cut off"),
        (gzip.compress(b"abc")[:5], "register.zip: is cut off"),
        (gzip.compress(b"abc")[:-8] + b"\0" * 8, "register.zip: is cut off or damaged .*CRC"),
        (gzip.compress(b"abc") + b"rubbish", "register.zip: is cut off or damaged"),
        (b"\x1f\x8b\x08\x00" + b"\xff" * 40, "register.zip: is cut off"),
    ],
    ids=count(),  # bytes hold clocks, and would give every worker other names
)
def test_what_must_not_be_unpacked_is_refused(write: Any, scratch: Path, content: bytes, words: str) -> None:
    with pytest.raises(Rejected, match=words) as refused:
        contents(write(content), scratch)
    assert "\n" not in str(refused.value)
    assert list(scratch.iterdir()) == []


def test_a_wrong_checksum_in_a_zip_names_the_file(write: Any, scratch: Path) -> None:
    content = zipped({"a.txt": b"unmistakable"}, zipfile.ZIP_STORED).replace(b"unmistakable", b"unmistakeable"[:12])
    with pytest.raises(Rejected, match=r"register.zip/a.txt: is cut off or damaged \(Bad CRC-32"):
        contents(write(content), scratch)


def test_a_name_that_stands_twice_is_refused(write: Any, scratch: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as container:
        for place, name in enumerate(("a", "b")):
            container.writestr(name, str(place))
    with pytest.raises(Rejected, match="stands twice"):
        contents(write(made.getvalue().replace(b"b", b"a")), scratch)


def test_files_that_share_bytes_are_refused(write: Any, scratch: Path) -> None:
    one = raw_zip(b"a", b"x" * 50)
    local, central = one[: one.index(b"PK\x01\x02")], one[one.index(b"PK\x01\x02") : -22]
    both = central + central.replace(b"a", b"b")
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 2, 2, len(both), len(local), 0)
    with pytest.raises(Rejected, match="overlaps another file"):
        contents(write(local + both + end), scratch)


def test_a_file_that_the_zip_calls_empty_is_not_lost(write: Any, scratch: Path) -> None:
    content = bytearray(raw_zip(b"a", b"xyz"))
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = b"\0" * 4
    with pytest.raises(Rejected, match="the zip calls it empty"):
        contents(write(bytes(content)), scratch)


@pytest.mark.parametrize("kind", ["zip", "gzip", "folder"])
def test_bombs_are_refused(tmp_path: Path, write: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    content = b"\0" * 3_000_000
    packed = zipped({"a": content}) if kind == "zip" else gzip.compress(content)
    path = write_folder(tmp_path / "f", {"a.gz": packed}) if kind == "folder" else write(packed)
    assert [data for _, data in contents(path, scratch)] == [content]  # small enough to be harmless
    monkeypatch.setattr(containers, "RATIO_FROM_BYTES", 2_000_000)
    with pytest.raises(Rejected, match="more than 200 times its size"):
        contents(path, scratch)
    monkeypatch.setattr(containers, "MAX_BYTES", 1_500_000)
    with pytest.raises(Rejected, match="more than 1,500,000 bytes"):
        contents(path, scratch)


def test_a_bomb_in_two_layers_is_refused(write: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "RATIO_FROM_BYTES", 2_000_000)
    inner = gzip.compress(b"\0" * 40_000_000)
    with pytest.raises(Rejected, match=r"register.zip/a.gz: unpacks to more than 200 times"):
        contents(write(zipped({"a.gz": inner})), scratch)


def test_too_many_files_are_refused(tmp_path: Path, write: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{n}.txt": b"x" for n in range(30)}
    paths = [write(zipped(files)), write_folder(tmp_path / "f", files)]
    for limit, size in (("MAX_MEMBERS", 29), ("MAX_DIRECTORY_BYTES", 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(containers, limit, size)
            for path in paths[: 2 if limit == "MAX_MEMBERS" else 1]:
                with pytest.raises(Rejected, match="holds too many files"):
                    contents(path, scratch)
    assert [len(contents(path, scratch)) for path in paths] == [30, 30]


def test_links_and_pipes_are_refused(tmp_path: Path, write: Any, scratch: Path) -> None:
    target = write(b"x", "target")
    folder = write_folder(tmp_path / "f", {"a": b"1"})
    for link, to in ((tmp_path / "link", target), (folder / "link", target), (tmp_path / "folder link", folder)):
        link.symlink_to(to)
    for path, name in ((tmp_path / "link", "link"), (folder, "f/link"), (tmp_path / "folder link", "folder link")):
        with pytest.raises(Rejected, match=f"{name}: is a symbolic link"):
            contents(path, scratch)
    (folder / "link").unlink()
    os.mkfifo(folder / "pipe")
    for path in (folder, folder / "pipe"):
        with pytest.raises(Rejected, match="pipe: is a device or a pipe"):
            contents(path, scratch)
    with pytest.raises(Rejected, match="pipe: is a device or a pipe"):
        content_sha256(folder / "pipe")  # and does not wait for ever


def test_what_is_not_there_or_has_no_room_is_told(
    tmp_path: Path, write: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="gone: cannot be read"):
        contents(tmp_path / "gone", scratch)
    with pytest.raises(UserError, match="gone: cannot be read"):
        content_sha256(tmp_path / "gone")
    path = write(gzip.compress(b"x" * 10), "a.gz")
    with pytest.raises(UserError, match="nothing can be unpacked there"):
        contents(path, path / "below a file")

    really = os.open

    def full(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_WRONLY:
            raise OSError(28, "No space left on device")
        return really(path, flags, *rest, **more)

    monkeypatch.setattr(containers.os, "open", full)
    with pytest.raises(UserError, match=r"a.gz: cannot be unpacked into .* \(No space left on device\)"):
        contents(path, scratch)


def test_content_sha256(tmp_path: Path) -> None:
    files = {"b": b"2", "a/c": b"1"}
    folder = write_folder(tmp_path / "f", files)
    pairs = [(name, hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items())]
    assert content_sha256(folder) == hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in pairs).encode()).hexdigest()
    assert content_sha256(folder / "b") == hashlib.sha256(b"2").hexdigest()
    same = write_folder(tmp_path / "g", dict(reversed(files.items())))
    assert content_sha256(same) == content_sha256(folder)
    (same / "b").write_bytes(b"3")
    assert content_sha256(same) != content_sha256(folder)


def test_memory_stays_flat(tmp_path: Path) -> None:
    """300 MB come out of a zip and a gzip in a process that may not have 100 MB more than it starts with."""
    piece = os.urandom(1 << 16) + bytes(1 << 19)
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as container,
        container.open("a", "w") as file,
    ):
        for _ in range(500):
            file.write(piece)
    with gzip.open(tmp_path / "a.gz", "wb", 1) as packed:
        for _ in range(500):
            packed.write(piece)
    code = (
        "import resource, sys; from pathlib import Path; from dopa_pipelines.sources.containers import unpacked\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in sys.argv[2:]:\n"
        "    with unpacked(Path(name), Path(sys.argv[1])) as parts: print(parts[0].path.stat().st_size)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "s"), str(tmp_path / "a.zip"), str(tmp_path / "a.gz")]
    *sizes, grown = map(int, subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())
    assert sizes == [500 * len(piece)] * 2
    assert grown < 40, f"{grown} MiB"
