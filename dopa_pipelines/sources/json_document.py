"""One JSON document of any size whose records are a list somewhere in it.

Only the list is taken apart here, record by record, in bounded memory; the records are parsed as those of JSON lines are. What
stands around the list is parsed with the list left out, so that the document is known to be JSON from its first byte to its
last. Own code, since what streams JSON in C (yajl below ijson) ends the process at a number of 5,000 digits or at deep nesting,
and does not keep numbers as they were written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from dopa_pipelines.sources.batch import FLAWED, ROW, Batch
from dopa_pipelines.sources.lines import detect_encoding
from dopa_pipelines.sources.reader import Reader
from dopa_pipelines.sources.records import Records, parse, parse_objects, refuse_utf16

PIECE_BYTES = 4 << 20
MAX_RECORD_BYTES = 8 << 20
"""A longer record is refused, and so is a document with more than this around its list: memory stays bounded."""

_OPEN, _CLOSE, _COMMA = 1, 2, 3
_KINDS = np.zeros(256, dtype=np.uint8)
for _characters, _kind in ((b"[{", _OPEN), (b"]}", _CLOSE), (b",", _COMMA)):
    _KINDS[list(_characters)] = _kind
_SPACE = " \t\n\r"
_LINE_BREAK = re.compile(r"\s*\n\s*")


@dataclass
class _Document:
    """A document while it is read. ``head`` and ``tail``: what stands before and after the records, with the list's brackets."""

    head: bytes
    tail: bytes = b""
    records: int = field(default=0)


class JsonReader(Reader):
    """Format ``json``. ``_row`` is the record's number, from 1; ``_original`` the record as it came, on one line."""

    def read(self) -> Iterator[Batch]:
        refuse_utf16(self)
        records = Records(self)
        self._records_path = self.records_path()
        with self.path.open("rb") as file:
            document = _Document(b"")
            for texts, at in self._pieces(file, document):
                yield self._batch(texts, at, document, records)
        self._around(document)
        records.finish()

    def records_path(self) -> tuple[str, ...]:
        """Keys that lead to the list of records; none where the document is the list."""
        path = self.contract.layout.records_path
        return tuple(path.split(".")) if path else ()

    def check(self, around: Any) -> None:
        """Whether what stands around the records is right. Raises Rejected."""

    def record(self, value: dict[str, Any]) -> dict[str, Any] | None:
        """The object whose keys are columns; None where ``value`` is no record."""
        return value

    def _pieces(self, file: BinaryIO, document: _Document) -> Iterator[tuple[list[bytes], int]]:
        """Records in pieces, each with the place in the file where it begins."""
        read = self._utf8(file)
        head = b""
        start: int | None = None
        while start is None:
            piece = read()
            head += piece
            start = self._list_start(head, whole=not piece)
        document.head, rest, at = head[:start], head[start:], start + self._mark
        while True:
            texts, used, closed = _split(rest)
            if closed:
                if document.records or len(texts) > 1 or texts[0].strip():
                    yield texts, at
                break
            if texts:
                yield texts, at
                rest, at = rest[used:], at + used
            if len(rest) > MAX_RECORD_BYTES:
                raise self.refuse(
                    f"record {document.records + 1:,} (from byte {at + 1:,}) is longer than {MAX_RECORD_BYTES:,} bytes;"
                    f" are its records the list {self._name_of_path()}?"
                )
            piece = read()
            if not piece:
                raise self.refuse(
                    f"is broken JSON: it ends within record {document.records + 1:,} (from byte {at + 1:,});"
                    " have it exported again"
                )
            rest += piece
        document.tail = rest[used:]
        if not document.tail.startswith(b"]"):
            raise self.refuse(
                f"is broken JSON after record {document.records:,}: byte {at + used + 1:,} is a bracket that nothing opened;"
                " have it exported again"
            )
        while piece := read():
            document.tail += piece
            self._bound(document.tail)

    def _utf8(self, file: BinaryIO) -> Any:
        """A function that reads the next piece of the file, as UTF-8 and without a byte order mark."""
        thai = self.contract.layout.encoding == "cp874" and detect_encoding(self.path, "cp874") == "cp874"
        self._mark = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
        file.seek(self._mark)

        def read() -> bytes:
            at = file.tell()
            piece = file.read(PIECE_BYTES)
            if not thai:
                return piece
            try:
                return piece.decode("cp874").encode()
            except UnicodeDecodeError as error:
                raise self.refuse(
                    f"byte {at + error.start + 1:,} is no text in cp874 and the file is not UTF-8 either; have it exported again"
                ) from error

        return read

    def _list_start(self, head: bytes, *, whole: bool) -> int | None:
        """Where the first record begins; None if more of the file must be read to tell."""
        try:
            return _find_list(head, self._records_path)
        except (ValueError, RecursionError):
            if not whole:
                self._bound(head)
                return None
        except _NoListError:
            if not whole and len(head) <= MAX_RECORD_BYTES:
                return None  # to tell what a small document holds instead
        holds = ""
        if whole:
            found = self._broken(head)
            holds = f" (its keys: {', '.join(found)[:400]})" if isinstance(found, dict) else ""
        raise self.refuse(
            f"has no list of records {self._name_of_path()}{holds}; correct recordsPath in {self.contract.path.name}, or its"
            " format, which is json_lines if each line is a record"
        )

    def _bound(self, around: bytes) -> None:
        if len(around) > MAX_RECORD_BYTES:
            raise self.refuse(
                f"has more than {MAX_RECORD_BYTES:,} bytes before or after the list of records {self._name_of_path()};"
                f" compare recordsPath in {self.contract.path.name} with what it holds"
            )

    def _name_of_path(self) -> str:
        return f"under {'.'.join(self._records_path)!r}" if self._records_path else "at its beginning"

    def _batch(self, texts: list[bytes], at: int, document: _Document, records: Records) -> Batch:
        found = parse_objects(texts)
        first = document.records + 1
        document.records += len(texts)
        flawed: list[tuple[int, str, str]] = []
        kept: list[int] = []
        objects: list[dict[str, Any]] = []
        for place, value in enumerate(found):
            record = self.record(value) if value is not None else None
            if record is not None:
                kept.append(place)
                objects.append(record)
                continue
            if value is None:
                self._check_record(texts, place, first + place, at)
            flawed.append((first + place, _one_line(texts[place]), "undecodable"))
        columns = records.columns(objects)
        batch = Batch(
            pl.Series(ROW, kept, dtype=pl.Int64) + first,
            columns,
            lambda asked: pl.Series([_one_line(texts[kept[place]]) for place in asked], dtype=pl.String),
            pl.DataFrame(flawed, schema=FLAWED, orient="row"),
        )
        return batch.flaw(records.strangers(objects, columns), "ragged_line")

    def _check_record(self, texts: list[bytes], place: int, number: int, at: int) -> None:
        """Raises Rejected if a record is no JSON: then nothing after it can be trusted either."""
        try:
            parse(texts[place])
        except (ValueError, RecursionError) as error:
            start = at + sum(len(text) + 1 for text in texts[:place])
            reason = "is nested too deeply to be read"
            if isinstance(error, UnicodeDecodeError):
                reason = f"is broken: byte {start + error.start + 1:,} is no UTF-8"
            elif isinstance(error, json.JSONDecodeError):
                byte = start + len(error.doc[: error.pos].encode()) + 1
                reason = f"is broken JSON: {error.msg} at byte {byte:,}"
            raise self.refuse(f"record {number:,} (from byte {start + 1:,}) {reason}; have it exported again") from error

    def _around(self, document: _Document) -> None:
        """What stands around the list must be JSON, name no key twice and be what the form asks for."""
        around = self._broken(document.head + document.tail)
        self.check(around)

    def _broken(self, text: bytes) -> Any:
        """The value of ``text``; raises Rejected where it is no JSON."""
        try:
            return json.loads(text.decode(), parse_int=str, parse_float=str, object_pairs_hook=_once)
        except _TwiceError as error:
            raise self.refuse(f"the key {str(error)!r} stands twice in one object; it is unclear which one counts") from error
        except RecursionError as error:
            raise self.refuse("is nested too deeply to be read") from error
        except UnicodeDecodeError as error:
            raise self.refuse("what stands around the list of records is no UTF-8; have it exported again") from error
        except json.JSONDecodeError as error:
            empty = not text.strip()
            raise self.refuse(
                "is empty; have it exported again"
                if empty
                else f"is broken JSON around the list of records: {error.msg} (line {error.lineno}, not counting the records);"
                " if each line is a record of its own, the format is json_lines"
            ) from error


class _NoListError(Exception):
    """What was read so far shows that there is no list where it should be."""


class _TwiceError(Exception):
    """A key stands twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(key)
        found[key] = value
    return found


def _find_list(head: bytes, path: tuple[str, ...]) -> int:
    """Where the list at ``path`` begins: the byte after its bracket. Raises _NoListError; ValueError where more must be read."""
    text = head.decode("utf-8", "surrogateescape")
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)
    at = _expect(text, 0, "{" if path else "[")
    for depth, wanted in enumerate(path):
        while True:
            key, at = decoder.raw_decode(text, _skip(text, at))
            at = _skip(text, _expect(text, at, ":"))
            if key == wanted:
                break
            _, at = decoder.raw_decode(text, at)
            at = _expect(text, at, ",")
        at = _expect(text, at, "[" if depth == len(path) - 1 else "{")
    return len(text[:at].encode("utf-8", "surrogateescape"))


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _expect(text: str, at: int, character: str) -> int:
    """The place after ``character``, which must come next."""
    at = _skip(text, at)
    if at >= len(text):
        raise ValueError
    if text[at] != character:
        raise _NoListError
    return at + 1


def _split(data: bytes) -> tuple[list[bytes], int, bool]:
    """The whole records at the start of ``data``, how many bytes of it they take, and whether the list ends there.

    The bracket that ends the list is not among those bytes.
    """
    plain = data
    if b"\\" in data:
        # Pairs first: what is escaped is no quote, and no structure.
        plain = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    characters = np.frombuffer(plain, np.uint8)
    quotes = np.flatnonzero(characters == ord('"'))
    kinds = _KINDS[characters]
    places = np.flatnonzero(kinds)
    if len(quotes):
        places = places[np.searchsorted(quotes, places) % 2 == 0]
    kinds = kinds[places]
    depth = np.cumsum((kinds == _OPEN).astype(np.int32) - (kinds == _CLOSE))
    end = np.flatnonzero(depth < 0)
    closed = bool(len(end))
    if closed:
        places, kinds, depth = places[: end[0] + 1], kinds[: end[0] + 1], depth[: end[0] + 1]
    cuts = places[(kinds == _COMMA) & (depth == 0)].tolist()
    if closed:
        cuts.append(int(places[-1]))
    starts = [0, *(cut + 1 for cut in cuts)]
    texts = [data[start:cut] for start, cut in zip(starts, cuts, strict=False)]
    return texts, cuts[-1] + (not closed) if cuts else 0, closed


def _one_line(text: bytes) -> str:
    """A record as it came, on one line: JSON has line breaks between its parts only."""
    return _LINE_BREAK.sub(" ", text.decode("utf-8", "replace").strip())
