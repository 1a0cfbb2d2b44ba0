"""JSON objects as columns of text: what JSON lines, JSON documents and GeoJSON share. Where the objects stand is theirs.

Every number stays the text that it was written as: typing it is the contract's. A nested value is JSON text of its own, on one
line. Of a key that an object holds twice the last value counts, as in every JSON library.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import polars as pl
import pyarrow as pa

from dopa_pipelines.sources.batch import Text, repeats
from dopa_pipelines.sources.reader import Reader, clean_title

MAX_KEYS = 10_000
"""More different keys than this are no columns: the keys are data, and must not fill the memory."""

# Numbers that orjson may not give back as they were written: fractions, exponents, more digits than 64 bits hold, -0. Some
# are within texts; that costs time and does no harm.
_INEXACT = re.compile(rb"[:\[,]\s*(-?\d+[.eE][\d.eE+-]*|-?\d{19,}|-0)")
_BOM = "\ufeff"


class Number(str):
    """A number as it was written."""

    __slots__ = ()


def refuse_utf16(reader: Reader) -> None:
    """Raises Rejected where the file is UTF-16 or UTF-32, which JSON in files never is but some programs save."""
    with reader.path.open("rb") as file:
        start = file.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start:
        raise reader.refuse("is UTF-16 or UTF-32 text; JSON is UTF-8: have it saved as UTF-8")


def parse(data: bytes) -> Any:
    """One JSON value. Raises ValueError where it is none, RecursionError where it is nested too deeply to be read."""
    if _is_exact(data):
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass  # halves of characters, NaN and deep nesting are read below; what is wrong is wrong there, too
    return json.loads(data.decode().lstrip(_BOM), parse_int=Number, parse_float=Number, parse_constant=str)


def parse_objects(texts: list[bytes]) -> list[dict[str, Any] | None]:
    """The object that each text is; None for one that is none."""
    if _is_exact(b"\n".join(texts)):
        try:
            found = list(map(orjson.loads, texts))
        except orjson.JSONDecodeError:
            pass
        else:
            return found if all(type(value) is dict for value in found) else [_if_object(value) for value in found]
    return [_object(text) for text in texts]


def _is_exact(data: bytes) -> bool:
    """Whether orjson gives every number back as it was written: most fractions are what their float is written as."""
    return all(map(_is_exact_number, set(_INEXACT.findall(data))))


def _is_exact_number(number: bytes) -> bool:
    try:
        return b"." in number and repr(float(number)).encode() == number and b"e" not in number
    except ValueError:
        return False


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        return _if_object(parse(text))
    except (ValueError, RecursionError):
        return None


def _if_object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def as_text(value: Any) -> str | None:
    """A value as a column holds it: text as it is, numbers as written, true and false, nested values as JSON."""
    if value is None:
        return None
    if isinstance(value, str):
        return _whole_characters(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else as_json(value)


def as_json(value: Any) -> str:
    """A value as JSON text, with nothing between its parts."""
    try:
        return orjson.dumps(value, default=_fragment, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()
    except TypeError:
        return _written(value)


def _fragment(number: Any) -> orjson.Fragment:
    return orjson.Fragment(str(number))


def _written(value: Any) -> str:
    """What orjson refuses to write: halves of characters and deep nesting."""
    out: list[str] = []
    waiting: list[Any] = [value]  # a tuple holds text that is ready
    while waiting:
        item = waiting.pop()
        if isinstance(item, tuple):
            out.append(item[0])
        elif isinstance(item, dict):
            parts = [part for key, inner in item.items() for part in ((",",), (f"{_quoted(key)}:",), inner)]
            waiting += [("}",), *reversed(parts[1:]), ("{",)]
        elif isinstance(item, list):
            parts = [part for inner in item for part in ((",",), inner)]
            waiting += [("]",), *reversed(parts[1:]), ("[",)]
        else:
            out.append(item if isinstance(item, Number) else _quoted(item))
    return "".join(out)


def _quoted(value: Any) -> str:
    return _whole_characters(json.dumps(value, ensure_ascii=False))


def _whole_characters(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _shown(key: str) -> str:
    """A key as the database can keep it."""
    return _whole_characters(key).replace("\0", "\ufffd")


def text_column(values: list[Any]) -> Text:
    """Values of one column as text; each is kept once where they repeat."""
    try:
        array = pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        array = pa.array(list(map(as_text, values)), pa.string())
    codes = None
    if repeats(array):
        encoded = array.dictionary_encode("encode")
        codes, array = pl.Series(pl.from_arrow(encoded.indices)).cast(pl.UInt32), encoded.dictionary
    series = pl.Series(pl.from_arrow(array), dtype=pl.String)
    if series.str.contains("\0", literal=True).any():
        series = series.str.replace_all("\0", "\ufffd", literal=True)
    return Text(series, codes)


class Records:
    """The objects of one delivery as the contract's columns. Which keys are columns is found out as they come.

    A key is matched as a title is. A title with dots reaches into nested objects (``address.tambon``), where no key is called so.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._columns = reader.contract.file_columns
        self._titles: dict[str, str] = {}
        self._nested: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for column in self._columns:
            for title in column.known_titles:
                self._titles.setdefault(clean_title(title), column.name)
                head, *rest = title.split(".")
                if rest and all((head, *rest)):
                    self._nested.setdefault(clean_title(head), []).append((column.name, tuple(rest)))
        self._seen: set[str] = set()
        self._paths: dict[str, list[tuple[str, ...]]] = {column.name: [] for column in self._columns}
        self._found: set[str] = set()
        self._any = False

    def columns(self, records: list[dict[str, Any]]) -> dict[str, Text]:
        """Columns of these objects. Raises Rejected where one names a column twice."""
        self._any = self._any or bool(records)
        self._learn(set().union(*records) - self._seen)
        return {column.name: text_column(self._values(records, column.name)) for column in self._columns}

    def strangers(self, records: list[dict[str, Any]], columns: dict[str, Text]) -> list[int]:
        """Places of those ``records`` whose columns are blank, while a column is not there and keys of no column hold something.

        They are no blank rows: a key was misspelt, or the record is of another kind.
        """
        blank: pl.Series | None = None
        for text in columns.values():
            empty = text.spread((text.values.str.strip_chars() == "").fill_null(True))
            blank = empty if blank is None else blank & empty
            if not blank.any():
                return []
        known = {path[0] for paths in self._paths.values() for path in paths}
        places = [] if blank is None else blank.arg_true().to_list()
        return [place for place in places if self._is_strange(records[place], known)]

    def _is_strange(self, record: dict[str, Any], known: set[str]) -> bool:
        there = all(any(path[0] in record for path in paths) for paths in self._paths.values())
        return not there and any(value not in (None, "") for key, value in record.items() if key not in known)

    def finish(self) -> None:
        """After the last object: tells the reader which keys are unknown. Raises Rejected where a column never came."""
        missing = [column for column in self._columns if column.name not in self._found]
        if self._any and missing:
            wanted = ", ".join(f"{column.name} ({column.title})" for column in missing)
            there = ", ".join(_shown(key) for key in sorted(self._seen)[:60])
            raise self._reader.refuse(
                f"column missing: {wanted}; its records have: {there[:400]}. Ask the bureau for the column, or add its new title"
                f" to 'titles' in {self._reader.contract.path.name}"
            )
        used = {path[0] for paths in self._paths.values() for path in paths}
        self._reader.unknown_titles = tuple(sorted(_shown(key) for key in self._seen - used))

    def _learn(self, keys: set[str]) -> None:
        self._seen |= keys
        if len(self._seen) > MAX_KEYS:
            raise self._reader.refuse(
                f"its records have more than {MAX_KEYS:,} different keys; each must be an object whose keys name columns"
            )
        for key in sorted(keys):
            cleaned = clean_title(key)
            if name := self._titles.get(cleaned):
                self._paths[name].append((key,))
                self._found.add(name)
            for name, rest in self._nested.get(cleaned, ()):
                self._paths[name].append((key, *rest))

    def _values(self, records: list[dict[str, Any]], name: str) -> list[Any]:
        paths = self._paths[name]
        if not paths:
            return [None] * len(records)
        if len(paths) == 1 and len(paths[0]) == 1:
            key = paths[0][0]
            return [record.get(key) for record in records]
        return [self._value(record, name, paths) for record in records]

    def _value(self, record: dict[str, Any], name: str, paths: list[tuple[str, ...]]) -> Any:
        there = []
        for path in paths:
            value: Any = record
            for key in path:
                if not isinstance(value, dict) or key not in value:
                    break
                value = value[key]
            else:
                self._found.add(name)
                there.append((path, value))
        if len(there) > 1:
            keys = " and ".join(_whole_characters(".".join(path)) for path, _ in there)
            raise self._reader.refuse(
                f"column {name} stands {len(there)} times in one record ({keys}); a record must name each column once"
            )
        return there[0][1] if there else None
