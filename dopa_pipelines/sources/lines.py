"""Lines of a text file in bounded blocks, decoded as UTF-8 or cp874, with the lines that are neither marked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

BLOCK_BYTES = 8 << 20
SAMPLE_BYTES = 8 << 20
MAX_LINE_BYTES = 1 << 20
"""A line longer than this is no record of a register: the file is refused, so that memory stays bounded."""
_BOM = b"\xef\xbb\xbf"


class LineTooLongError(Exception):
    """A line exceeds ``MAX_LINE_BYTES``; ``row`` is its number from 1."""

    def __init__(self, row: int) -> None:
        super().__init__(f"line {row} is longer than {MAX_LINE_BYTES:,} bytes")
        self.row = row


@dataclass(frozen=True)
class Block:
    """Consecutive lines: ``first`` is the number of the first one, ``flaws`` marks undecodable ones (None: none)."""

    first: int
    lines: pl.Series
    flaws: list[bool] | None = None


def detect_encoding(path: Path, declared: str) -> str:
    """``utf-8`` or ``cp874``: what the file's first lines with Thai in them are.

    Valid UTF-8 with Thai in it is practically never cp874 by chance, so UTF-8 is asked first; in a file of both, the form of
    most lines decides and the others are undecodable.
    """
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    head = head[: head.rfind(b"\n") + 1] or head
    try:
        if not head.decode("utf-8-sig").isascii():
            return "utf-8"
        return declared
    except UnicodeDecodeError:
        pass
    good = bad = 0
    for line in head.split(b"\n"):
        if not line.isascii():
            if _decodes(line, "utf-8"):
                good += 1
            else:
                bad += 1
    return "utf-8" if good > bad else "cp874"


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def read_blocks(path: Path, declared: str) -> Iterator[Block]:
    """The file's lines without their ends. Raises :class:`LineTooLongError`."""
    encoding = detect_encoding(path, declared)
    number = 1
    rest = b""
    with path.open("rb") as file:
        start = file.read(len(_BOM))
        rest = b"" if start == _BOM else start
        while data := file.read(BLOCK_BYTES):
            data = rest + data
            cut = data.rfind(b"\n") + 1
            rest = data[cut:]
            if len(rest) > MAX_LINE_BYTES:
                raise LineTooLongError(number + data.count(b"\n"))
            if cut:
                block = _decode(data[: cut - 1], encoding, number)
                number += len(block.lines)
                yield block
    if rest:
        yield _decode(rest.removesuffix(b"\n"), encoding, number)


def _decode(data: bytes, encoding: str, first: int) -> Block:
    data = data.replace(b"\r\n", b"\n").removesuffix(b"\r")
    try:
        if b"\0" not in data:
            text = data.decode(encoding)
            lines = pl.Series("line", [text]).str.split("\n").explode(empty_as_null=False)
            return Block(first, lines)
    except UnicodeDecodeError:
        pass
    # Only a block with a bad line is taken apart line by line; bytes that are no text are kept readable as \xNN.
    texts, flaws = [], []
    for raw in data.split(b"\n"):
        flaw = b"\0" in raw or not _decodes(raw, encoding)
        text = raw.decode(encoding, "backslashreplace").replace("\0", "\\x00") if flaw else raw.decode(encoding)
        texts.append(text)
        flaws.append(flaw)
    return Block(first, pl.Series("line", texts, pl.String), flaws)
