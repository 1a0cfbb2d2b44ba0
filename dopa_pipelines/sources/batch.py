"""What a reader hands over: rows as columns of text, and the rows that could not be taken apart.

Bytes become text here and nowhere else. A value that repeats is decoded, and later typed and checked, once for all its rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

ROW, ORIGINAL, FLAW = "_row", "_original", "_flaw"
FLAWED = pl.Schema({ROW: pl.Int64, ORIGINAL: pl.String, FLAW: pl.String})

_CP874_WIDTHS = np.array(
    [len(text.encode()) if (text := bytes([byte]).decode("cp874", "ignore")) else 0 for byte in range(256)], dtype=np.uint8
)
"""Bytes that each cp874 byte takes in UTF-8; 0 where it is no character."""
_TELLING = re.compile("[\u0e01-\u0e3a\u0e3f-\u0e5b\u2010-\u2026]|[A-Za-z][\u00c0-\u024f]|[\u00c0-\u024f][A-Za-z]")
"""What in UTF-8 tells that it is: Thai, dashes and quotes, Latin words with accents."""


@dataclass(frozen=True)
class Text:
    """A column of text. With ``codes`` (UInt32, a row each), ``values`` holds each value once and a code is a place in it.

    ``ascii``: all values are known to be ASCII, so that nothing Thai need be looked for in them.
    """

    values: pl.Series
    codes: pl.Series | None = None
    ascii: bool = False

    def __len__(self) -> int:
        return len(self.values if self.codes is None else self.codes)

    def rows(self) -> pl.Series:
        """The value of every row."""
        return self.spread(self.values)

    def spread(self, values: pl.Series) -> pl.Series:
        """What was made of ``values``, for every row."""
        return values if self.codes is None else values.gather(self.codes)

    def take(self, places: pl.Series) -> pl.Series:
        """The values of the rows at ``places``."""
        return self.values.gather(places if self.codes is None else self.codes.gather(places))

    def filter(self, keep: pl.Series) -> Text:
        if self.codes is None:
            return Text(self.values.filter(keep), None, self.ascii)
        return Text(self.values, self.codes.filter(keep), self.ascii)


@dataclass(frozen=True)
class Batch:
    """Rows of a delivery.

    ``rows``: Int64 numbers, where each row stands in its source, from 1, not necessarily in order. ``columns``: by name.
    ``flawed``: rows that could not be taken apart (``_row``, ``_original``, ``_flaw``: a reason code). ``original(places)``: the
    text of the rows at these places as it came; made when asked for, since few are ever asked for.
    """

    rows: pl.Series
    columns: dict[str, Text]
    original: Callable[[pl.Series], pl.Series]
    flawed: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=FLAWED))

    @property
    def height(self) -> int:
        """Rows, flawed ones included."""
        return len(self.rows) + self.flawed.height

    def flaw(self, places: list[int], code: str) -> Batch:
        """The batch with the rows at ``places`` among the flawed ones, for the reason ``code``."""
        if not places:
            return self
        asked = pl.Series(places, dtype=pl.UInt32)
        taken = pl.DataFrame({ROW: self.rows.gather(asked), ORIGINAL: self.original(asked), FLAW: code}, schema=FLAWED)
        keep = ~pl.int_range(len(self.rows), eager=True).is_in(asked.cast(pl.Int64).implode())
        batch = self.filter(keep)
        return Batch(batch.rows, batch.columns, batch.original, pl.concat([self.flawed, taken]))

    def filter(self, keep: pl.Series) -> Batch:
        """The rows that ``keep`` (Boolean) marks; flawed ones stay."""
        places = keep.arg_true()
        return Batch(
            self.rows.filter(keep),
            {name: text.filter(keep) for name, text in self.columns.items()},
            lambda asked: self.original(places.gather(asked)),
            self.flawed,
        )


def frame_of(batch: Batch) -> pl.DataFrame:
    """The frame of ``_row``, ``_original``, ``_flaw`` and columns that a batch stands for, in order of ``_row``."""
    sound = pl.DataFrame(
        [
            batch.rows.alias(ROW),
            batch.original(pl.select(pl.int_range(len(batch.rows))).to_series()).alias(ORIGINAL),
            pl.Series(FLAW, [None], dtype=pl.String).new_from_index(0, len(batch.rows)),
            *(text.rows().alias(name) for name, text in batch.columns.items()),
        ]
    )
    return pl.concat([sound, batch.flawed], how="diagonal").sort(ROW)


def frame_schema(names: list[str]) -> dict[str, Any]:
    """The schema of a frame that a reader yields: ``_row``, ``_original``, ``_flaw`` and its columns as text."""
    return {**FLAWED, **dict.fromkeys(names, pl.String)}


def batch_of(frame: pl.DataFrame, names: list[str]) -> Batch:
    """A batch from a frame of ``_row``, ``_original``, ``_flaw`` and the columns ``names``, all text."""
    flaw = frame[FLAW].is_not_null()
    sound = frame.filter(~flaw) if flaw.any() else frame
    original = sound[ORIGINAL]
    return Batch(
        sound[ROW].cast(pl.Int64),
        {name: Text(sound[name]) for name in names},
        original.gather,
        frame.filter(flaw).select(pl.col(ROW).cast(pl.Int64), ORIGINAL, FLAW),
    )


REPEATING = 0.5
SAMPLE_ROWS = 20_000


def repeats(array: Any) -> bool:
    """Whether a column (Arrow) is worth a dictionary: in its first rows, less than half of the values are distinct."""
    sample = array.slice(0, SAMPLE_ROWS)
    return len(sample.unique()) < REPEATING * len(sample)


class UndecodableError(ValueError):
    """Some bytes are no text in the encoding."""


def text_of(array: Any, encoding: str) -> Text:
    """A column of text from an Arrow array of bytes (``binary`` or a dictionary of it). Raises :class:`UndecodableError`."""
    if pa.types.is_dictionary(array.type):
        indices = array.indices
        # The same bytes: a place is never below zero.
        codes = pl.Series(
            pl.from_arrow(pa.UInt32Array.from_buffers(pa.uint32(), len(indices), indices.buffers(), offset=indices.offset))
        )
        return Text(*_decoded(array.dictionary, encoding, codes))
    return Text(*_decoded(array, encoding, None))


def _decoded(array: Any, encoding: str, codes: pl.Series | None) -> tuple[pl.Series, pl.Series | None, bool]:
    """What a :class:`Text` is made of, from an Arrow ``binary`` array."""
    if array.offset:
        array = pa.concat_arrays([array])
    _, offsets, data = array.buffers()
    count = len(array)
    places = np.frombuffer(offsets, np.int32)[: count + 1]
    raw = b"" if data is None else memoryview(data)[: int(places[-1])].tobytes() if count else b""
    ascii_only = raw.isascii()
    if encoding == "utf-8" or ascii_only:
        try:
            made = array.cast(pa.string())
        except pa.ArrowInvalid as error:
            raise UndecodableError from error
    else:
        try:
            utf8 = raw.decode("cp874").encode()
        except UnicodeDecodeError as error:
            raise UndecodableError from error
        ends = np.zeros(len(raw) + 1, dtype=np.int32)
        np.cumsum(_CP874_WIDTHS[np.frombuffer(raw, np.uint8)], dtype=np.int32, out=ends[1:])
        made = pa.StringArray.from_buffers(count, pa.py_buffer(ends[places]), pa.py_buffer(utf8))
    return pl.Series(pl.from_arrow(made), dtype=pl.String), codes, ascii_only


def is_utf8(data: bytes) -> bool | None:
    """Whether bytes are UTF-8 and not cp874; None where they may be either.

    Thai letters in valid UTF-8 are practically never cp874 by chance, nor is a Latin letter with an accent beside one without.
    Others are: the cp874 bytes of ``ัก`` are those of a Cyrillic letter.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    if text.isascii():
        return None
    if _TELLING.search(text):
        return True
    try:
        data.decode("cp874")
    except UnicodeDecodeError:
        return True
    return None


def undecodable_lines(data: bytes, encoding: str, ends: Any) -> Any:
    """Places of the lines of ``data`` that hold NUL or bytes that are no text. ``ends``: where each line ends."""
    everything = np.frombuffer(data, np.uint8)
    if encoding == "cp874":
        wrong = np.flatnonzero((_CP874_WIDTHS[everything] == 0) | (everything == 0))
        return np.unique(np.searchsorted(ends, wrong))
    bad = set(np.searchsorted(ends, np.flatnonzero(everything == 0)).tolist())
    for place, line in enumerate(data.split(b"\n")):
        if not line.isascii():
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                bad.add(place)
    return np.array(sorted(bad), dtype=np.int64)
