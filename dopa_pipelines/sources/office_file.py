"""What a file that should be a workbook really is, and whether it may be opened: nothing here trusts its name or what it claims.

Bureaus name HTML tables ``.xls`` and new workbooks ``.xls``. A workbook of XML parts is inflated once, counting the bytes that
come out, before a parser sees it; of an old one (CFB, BIFF) only the first records are looked at.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal
from xml.etree import ElementTree

from dopa_pipelines.sources.containers import MAX_DIRECTORY_BYTES, MAX_MEMBERS, MAX_RATIO, _directory_bytes

PIECE_BYTES = 1 << 20
MAX_INFLATED_BYTES = 8 << 30
RATIO_FROM_BYTES = 200_000_000
"""Sheets repeat themselves more than registers do: a workbook is no bomb before this many bytes came out of it."""
MAX_PART_BYTES = 16 << 20
"""Of the parts that are parsed here: the list of sheets and where they are."""
MERGE_ROWS = 200
"""Merged cells below this row are in no header."""

_CFB = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PASSWORD = "is protected by a password; save it without one and deliver it by a protected way"
_SAVE_AGAIN = "save it again as .xlsx"
_LOOKS = (
    (b"%PDF", "a PDF document"), (b"{\\rtf", "an RTF document"), (b"\x1f\x8b", "a gzip"), (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"), (b"\x89PNG", "a picture"), (b"\xff\xd8\xff", "a picture"), (b"PAR1", "a Parquet file"),
    (b"MIME-Version", "a web archive (.mht)"), (b"{", "JSON"), (b"[", "JSON"), (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"), (b"\x09\x00", "a workbook of Excel 2"), (b"\x09\x02", "a workbook of Excel 3"),
    (b"\x09\x04", "a workbook of Excel 4"), (b"\x09\x08", "a bare stream of an old workbook"),
)  # fmt: skip
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|table|meta|style|title|div|center|font|tr)\b", re.IGNORECASE)
_DTD = tuple(text.encode(code) for text in ("<!DOCTYPE", "<!ENTITY") for code in ("ascii", "utf-16-le", "utf-16-be"))
_TINY = re.compile(rb"<(?:\w+:)?v>-?[0-9.]+[eE]-")
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\b[^>]*?\bref\s*=\s*["\']([A-Z]{1,3})([0-9]{1,7}):([A-Z]{1,3})([0-9]{1,7})["\']')
_OVERLAP = 400


class UnusableError(ValueError):
    """The file cannot or must not be read: what it is, and what to do. Belongs behind the file's name."""


Kind = Literal["workbook", "html"]


@dataclass
class Facts:
    """What is known of a workbook before its cells are read.

    ``epoch_1904``: serial 0 is 1 January 1904. ``tiny``: some numbers are written with a negative exponent. ``merged``: cells
    merged in the first rows of each sheet by its name (first and last row, first and last column, from 0), None where that is
    not known.
    """

    epoch_1904: bool = False
    tiny: bool = False
    merged: dict[str, list[tuple[int, int, int, int]]] | None = None
    sheets: list[str] = field(default_factory=list)


def kind_of(path: Path) -> Kind:
    """What the first bytes say. Raises UnusableError for what is no workbook and no HTML."""
    with path.open("rb") as file:
        start = file.read(8192)
    if start.startswith((_CFB, b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "workbook"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        if b"urn:schemas-microsoft-com:office:spreadsheet" in text:
            raise UnusableError(f"cannot be opened as an Excel workbook: it looks like XML of Excel 2003; {_SAVE_AGAIN}")
        if _HTML.search(text):
            return "html"
    if not start:
        raise UnusableError("is empty; deliver it again")
    looks = next((name for magic, name in _LOOKS if text.startswith(magic) or start.startswith(magic)), None)
    if looks is None:
        looks = "XML" if text.startswith(b"<") else "something unknown" if b"\0" in start else "plain text"
    raise UnusableError(f"cannot be opened as an Excel workbook: it looks like {looks}; {_SAVE_AGAIN}, or correct its format")


def inspect(path: Path, with_merged: bool) -> Facts:
    """Look a workbook over before a parser does. Raises UnusableError for what would do harm or is protected by a password."""
    with path.open("rb") as file:
        try:
            if file.read(8) == _CFB:
                return _inspect_cfb(file)
            return _inspect_zip(file, with_merged)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, struct.error, ValueError) as error:
            if isinstance(error, UnusableError):
                raise
            reason = str(error).rstrip(".") or type(error).__name__
            raise UnusableError(f"is cut off or damaged ({reason}); deliver it again, or {_SAVE_AGAIN}") from error


def _inspect_zip(file: BinaryIO, with_merged: bool) -> Facts:
    if _directory_bytes(file) > MAX_DIRECTORY_BYTES:
        raise UnusableError(f"holds more than {MAX_MEMBERS:,} parts, as no workbook does; it is not read")
    with zipfile.ZipFile(file) as book:
        infos = book.infolist()
        names = [info.filename for info in infos]
        lower = {name.lower().replace("\\", "/").lstrip("/") for name in names}
        if len(infos) > MAX_MEMBERS:
            raise UnusableError(f"holds more than {MAX_MEMBERS:,} parts, as no workbook does; it is not read")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UnusableError(f"its part {twice!r} stands twice; {_SAVE_AGAIN}")
        if "mimetype" in lower:
            raise UnusableError(f"is an OpenDocument file; {_SAVE_AGAIN}")
        if not lower & {"xl/workbook.xml", "xl/workbook.bin"}:
            what = "a Word document" if any(name.startswith("word/") for name in lower) else "a zip without a workbook in it"
            raise UnusableError(f"is {what}; {_SAVE_AGAIN}")
        size = file.seek(0, 2)
        facts = Facts()
        inflated = 0
        for info in infos:
            if info.flag_bits & 0x1:
                raise UnusableError(PASSWORD)
            is_xml = info.filename.lower().endswith((".xml", ".rels", ".vml"))
            is_sheet = is_xml and "worksheets/" in info.filename.lower()
            before = b""
            for piece in _inflated(file, info):
                inflated += len(piece)
                if inflated > MAX_INFLATED_BYTES or (inflated > RATIO_FROM_BYTES and inflated > MAX_RATIO * size):
                    raise UnusableError(f"unpacks to more than {MAX_RATIO} times its size, as no workbook does; it is not read")
                if is_xml:
                    text = before + piece
                    if b"!" in text and any(mark in text for mark in _DTD):
                        raise UnusableError(
                            f"its part {info.filename!r} declares a document type or entities, as no Excel does; {_SAVE_AGAIN}"
                        )
                    if is_sheet and not facts.tiny and (b"E-" in text or b"e-" in text):
                        facts.tiny = _TINY.search(text) is not None
                    before = text[-_OVERLAP:]
        _read_parts(file, {info.filename.lower().lstrip("/"): info for info in infos}, facts, with_merged)
        return facts


def _inflated(file: BinaryIO, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes that really come out of a member, in pieces; what the directory says of their number is not believed."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnusableError(f"its part {info.filename!r} is packed in a way that Excel does not know; {_SAVE_AGAIN}")
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise EOFError(f"no file header at byte {info.header_offset:,}")
    names, extra = struct.unpack_from("<HH", header, 26)
    file.seek(names + extra, 1)
    left = info.compress_size
    if info.compress_type == zipfile.ZIP_STORED:
        while left and (piece := file.read(min(left, PIECE_BYTES))):
            left -= len(piece)
            yield piece
    else:
        inflate = zlib.decompressobj(-15)
        waiting = b""
        while not inflate.eof:
            if not waiting:
                waiting = file.read(min(left, PIECE_BYTES))
                left -= len(waiting)
                if not waiting:
                    raise EOFError(f"part {info.filename!r} ends too early")
            yield inflate.decompress(waiting, PIECE_BYTES)
            waiting = inflate.unconsumed_tail
    if left and info.compress_type == zipfile.ZIP_STORED:
        raise EOFError(f"part {info.filename!r} ends too early")


def _read_parts(file: BinaryIO, parts: dict[str, zipfile.ZipInfo], facts: Facts, with_merged: bool) -> None:
    """The date system and, where asked for, merged cells; of a part that is broken, nothing: the parser will say so."""
    try:
        book = _xml(file, parts.get("xl/workbook.xml"))
        if book is None:
            return
        for element in book.iter():
            if _local(element.tag) == "workbookPr":
                facts.epoch_1904 = element.get("date1904", "").lower() in ("1", "true", "on")
        if not with_merged:
            return
        links = _xml(file, parts.get("xl/_rels/workbook.xml.rels"))
        if links is None:
            return
        targets = {link.get("Id"): link.get("Target", "") for link in links.iter() if _local(link.tag) == "Relationship"}
        facts.merged = {}
        for element in book.iter():
            if _local(element.tag) != "sheet":
                continue
            link = next((value for key, value in element.attrib.items() if _local(key) == "id" and key != "id"), None)
            target = targets.get(link, "").lower().replace("\\", "/")
            part = parts.get(target.lstrip("/") if target.startswith("/") else f"xl/{target}")
            facts.sheets.append(element.get("name", ""))
            if part is not None:
                facts.merged[element.get("name", "")] = list(_merged_cells(file, part))
    except ElementTree.ParseError:
        facts.merged = None


def _xml(file: BinaryIO, info: zipfile.ZipInfo | None) -> ElementTree.Element | None:
    if info is None:
        return None
    data = bytearray()
    for piece in _inflated(file, info):
        data += piece
        if len(data) > MAX_PART_BYTES:
            raise UnusableError(f"its part {info.filename!r} is longer than {MAX_PART_BYTES:,} bytes; {_SAVE_AGAIN}")
    try:
        return ElementTree.fromstring(bytes(data))  # without a document type, as was looked for before
    except (LookupError, ValueError) as error:
        # It names an encoding that there is not, or that XML is not read in.
        raise ElementTree.ParseError(str(error)) from error


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _merged_cells(file: BinaryIO, info: zipfile.ZipInfo) -> Iterator[tuple[int, int, int, int]]:
    before = b""
    seen: set[tuple[int, int, int, int]] = set()
    for piece in _inflated(file, info):
        text = before + piece
        for first, top, last, bottom in _MERGED.findall(text):
            if int(top) <= MERGE_ROWS:
                place = (int(top) - 1, int(bottom) - 1, _column(first), _column(last))
                if place not in seen:
                    seen.add(place)
                    yield place
        before = text[-_OVERLAP:]


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return min(number, 16_384) - 1


_FREE = 0xFFFFFFFA
"""Sector numbers from here on are marks."""
_FIRST_RECORDS_BYTES = 4 << 20


def _inspect_cfb(file: BinaryIO) -> Facts:
    """Of an old workbook: whether it is one, is protected, and its date system."""
    entries, chain, sector = _cfb(file)
    if "EncryptedPackage" in entries:
        raise UnusableError(PASSWORD)
    found = next((entries[name] for name in ("Workbook", "Book", "WORKBOOK", "BOOK") if name in entries), None)
    if found is None:
        what = "a Word document" if "WordDocument" in entries else "an Office file without a workbook in it"
        raise UnusableError(f"is {what}; {_SAVE_AGAIN}")
    start, size = found
    if size < 4096:
        return Facts()  # within the small stream, where no Excel puts it
    data = bytearray()
    for number in chain(start):
        file.seek((number + 1) * sector)
        data += file.read(sector)
        if len(data) >= min(size, _FIRST_RECORDS_BYTES):
            break
    facts = Facts()
    at = 0
    while at + 4 <= len(data):
        kind, length = struct.unpack_from("<HH", data, at)
        if kind == 0x2F:
            raise UnusableError(PASSWORD)
        if kind == 0x22 and length >= 2 and at + 6 <= len(data):
            facts.epoch_1904 = struct.unpack_from("<H", data, at + 4)[0] == 1
        if kind == 0x0A:  # the end of what holds for all sheets
            break
        at += 4 + length
    return facts


class _Chain:
    """Sectors of a stream by the file allocation table, each once."""

    def __init__(self, table: list[int]) -> None:
        self._table = table

    def __call__(self, start: int) -> Iterator[int]:
        seen = 0
        while start < len(self._table) and seen <= len(self._table):
            yield start
            start = self._table[start]
            seen += 1


def _cfb(file: BinaryIO) -> tuple[dict[str, tuple[int, int]], _Chain, int]:
    """Streams by name (first sector, size), their chains, and the size of a sector in bytes."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(512)
    if len(head) < 512:
        raise EOFError("its header is not whole")
    shift = struct.unpack_from("<H", head, 30)[0]
    if shift not in (9, 12):
        raise ValueError("its header is wrong")
    sector = 1 << shift
    last = size // sector
    (first_directory,) = struct.unpack_from("<L", head, 48)
    (difat,) = struct.unpack_from("<L", head, 68)
    places = [place for place in struct.unpack_from("<109L", head, 76) if place < _FREE]
    steps = 0
    while difat < last and steps < last:
        file.seek((difat + 1) * sector)
        block = file.read(sector)
        if len(block) < sector:
            break
        *more, difat = struct.unpack(f"<{sector // 4}L", block)
        places += [place for place in more if place < _FREE]
        steps += 1
    table: list[int] = []
    for place in places[: last + 1]:
        if place >= last:
            raise EOFError("its table of sectors lies beyond its end")
        file.seek((place + 1) * sector)
        block = file.read(sector)
        table += struct.unpack(f"<{len(block) // 4}L", block[: len(block) // 4 * 4])
        if len(table) > last + sector:
            break
    chain = _Chain(table)
    entries: dict[str, tuple[int, int]] = {}
    for count, number in enumerate(chain(first_directory)):
        if count > 2_000:
            break
        file.seek((number + 1) * sector)
        block = file.read(sector)
        for at in range(0, len(block) - 127, 128):
            length = struct.unpack_from("<H", block, at + 64)[0]
            if 2 <= length <= 64:
                name = block[at : at + length - 2].decode("utf-16-le", "replace")
                entries.setdefault(name, struct.unpack_from("<LL", block, at + 116))
    return entries, chain, sector
