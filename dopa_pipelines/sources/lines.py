"""Lines of a text file in bounded blocks of bytes, UTF-8 or cp874; lines that are no text are taken out and kept readable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dopa_pipelines.sources.batch import FLAWED, is_utf8, undecodable_lines

BLOCK_BYTES = 10 << 20
FIRST_BYTES = 2 << 20
"""The first block is short, so that who waits for it begins early."""
SAMPLE_BYTES = 1 << 20
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
    """Whole lines, each with its end (``\\n``). ``first``: the number of the first one in the file, from 1; ``given``: the number
    of each, where they do not follow each other.

    ``flawed``: lines that were taken out of it (``_row``, ``_original``, ``_flaw``).
    """

    data: bytes
    first: int
    encoding: str
    flawed: pl.DataFrame
    given: Any = None

    @cached_property
    def count(self) -> int:
        return len(self.ends if self.given is None else self.given)

    @cached_property
    def numbers(self) -> Any:
        """The number of each line in the file."""
        return np.arange(self.first, self.first + self.count, dtype=np.int64) if self.given is None else self.given

    @cached_property
    def ends(self) -> Any:
        """Where each line ends: the place of its ``\\n``."""
        return np.flatnonzero(np.frombuffer(self.data, np.uint8) == 10)

    @cached_property
    def starts(self) -> Any:
        starts = np.zeros(len(self.ends), dtype=np.int64)
        starts[1:] = self.ends[:-1] + 1
        return starts

    def text(self, places: Any) -> list[str]:
        """The lines at these places."""
        return [
            self.data[start:end].decode(self.encoding, "backslashreplace").replace("\0", "\\x00")
            for start, end in zip(self.starts[places].tolist(), self.ends[places].tolist(), strict=True)
        ]

    def is_text(self, first: int, last: int) -> bool:
        """Whether the lines from place ``first`` to ``last`` are text in the block's encoding."""
        try:
            self.data[int(self.starts[first]) : int(self.ends[last])].decode(self.encoding)
        except UnicodeDecodeError:
            return False
        return True

    def originals(self, kept: Any) -> Callable[[pl.Series], pl.Series]:
        """Text of rows, where row ``i`` is the line at place ``kept[i]`` (None: at place ``i``)."""

        def original(asked: pl.Series) -> pl.Series:
            places = asked.to_numpy()
            return pl.Series(self.text(places if kept is None else kept[places]), dtype=pl.String)

        return original

    def without(self, places: Any, flaw: str | None) -> Block:
        """The block without these lines; they are ``flawed`` if ``flaw`` names a reason, else gone."""
        if not len(places):
            return self
        gone = np.zeros(len(self.ends), dtype=bool)
        gone[places] = True
        data = bytearray()
        at = 0
        for place in places.tolist():
            data += self.data[at : self.starts[place]]
            at = int(self.ends[place]) + 1
        data += self.data[at:]
        flawed = self.flawed
        if flaw:
            taken = pl.DataFrame([self.numbers[places], self.text(places), [flaw] * len(places)], schema=FLAWED)
            flawed = pl.concat([flawed, taken])
        return Block(bytes(data), self.first, self.encoding, flawed, self.numbers[~gone])

    def only_text(self) -> Block:
        """The block without the lines that are no text in its encoding."""
        return self.without(undecodable_lines(self.data, self.encoding, self.ends), "undecodable")

    def blank(self, places: Any) -> Any:
        """Which of these places hold nothing but white space."""
        lines = zip(self.starts[places].tolist(), self.ends[places].tolist(), strict=True)
        return places[[not self.data[start:end].strip() for start, end in lines]] if len(places) else places


def is_utf16(path: Path) -> bool:
    """Whether a file begins as UTF-16 or UTF-32 text does: with a mark, or with every other byte NUL."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    return len(start) == 4 and any(start) and (not any(start[::2]) or not any(start[1::2]))


def _with_line_feeds(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def detect_encoding(path: Path, declared: str) -> str:
    """``utf-8`` or ``cp874``: what the file's first lines with Thai in them are.

    Thai letters in valid UTF-8 are practically never cp874 by chance, so UTF-8 is asked first; in a file of both, the form of
    most lines decides and the others are undecodable. What is valid as both and has no Thai letter as UTF-8 is what the contract
    says: the cp874 bytes of ``ัก`` are those of a Cyrillic letter.
    """
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
        while head.isascii() and (more := file.read(SAMPLE_BYTES)):
            # Whole lines before the first Thai letter tell nothing.
            head = head[head.rfind(b"\n") + 1 :][-MAX_LINE_BYTES:] + more
        more = file.read(1)
    if b"\n" not in head:
        head = _with_line_feeds(head)
    if more:
        # The sample may end within a letter.
        head = head[: head.rfind(b"\n") + 1] or head
    whole = is_utf8(head.removeprefix(_BOM))
    if whole or (whole is None and head.startswith(_BOM)):
        return "utf-8"
    if whole is None:
        return declared
    lines = [is_utf8(line) for line in head.split(b"\n")]
    good, bad = lines.count(True), lines.count(False)
    if good == bad:
        return declared
    return "utf-8" if good > bad else "cp874"


def read_blocks(path: Path, declared: str) -> Iterator[Block]:
    """The file's lines. Raises :class:`LineTooLongError`. Bytes that are no text may still be in them: a decoder finds out.

    A line ends in LF or CR LF; in CR alone where nothing else ends one, as on the first Macintoshes.
    """
    encoding = detect_encoding(path, declared)
    number = 1
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
        only_returns = b"\r" in sample and b"\n" not in sample
        file.seek(0)
        start = file.read(len(_BOM))
        rest = b"" if start == _BOM else start
        size = min(FIRST_BYTES, BLOCK_BYTES)
        while True:
            data = file.read(size)
            size = BLOCK_BYTES
            whole = not data
            data = rest + data
            if only_returns:
                data = _with_line_feeds(data)
            if whole and data and not data.endswith(b"\n"):
                data += b"\n"
            cut = data.rfind(b"\n") + 1
            rest = data[cut:]
            if len(rest) > MAX_LINE_BYTES:
                raise LineTooLongError(number + data.count(b"\n"))
            if cut:
                block = _block(data[:cut], number, encoding)
                number += block.count + block.flawed.height
                yield block
            if whole:
                return


def _block(data: bytes, first: int, encoding: str) -> Block:
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    block = Block(data, first, encoding, pl.DataFrame(schema=FLAWED))
    # A line that is too long leaves a whole window without an end.
    window = MAX_LINE_BYTES // 2
    if any(data.find(b"\n", at, at + window) < 0 for at in range(0, len(data) - window, window)):
        lengths = block.ends - block.starts
        if int(lengths.max()) > MAX_LINE_BYTES:
            raise LineTooLongError(first + int(lengths.argmax()))
    return block.only_text() if b"\0" in data else block
