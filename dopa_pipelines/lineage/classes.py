"""What columns are by their lineage, as it was last derived and kept: reading it, and its words.

Belongs here: ``governance.classified`` as traces, pictures, events and pages read it, its copy in a file. Does not belong here:
how a class is derived and kept up to date (``governance.derived``), which stands above this room.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

PROTECTED_LEVELS = frozenset({"personal", "confidential", "secret"})
ORDER = (
    "open", "internal", "aggregate", "grouping_key", "generalised", "personal", "sensitive", "direct_identifier", "confidential",
    "secret",
)  # fmt: skip
"""What a column can be, the least protected first (``governance.classification.RANKS``)."""

FILE = "classes.json"
"""Below the state folder: what was derived, for definitions, which load without the warehouse."""
_MARK = "ชั้นข้อมูล / classification: "
"""Between what a comment of the warehouse says of a table or column and what it is by its lineage."""


class Said(NamedTuple):
    thai: str
    english: str


LEVELS: Mapping[str, Said] = {
    "open": Said("เปิดเผย", "open"),
    "internal": Said("ใช้ภายใน", "internal"),
    "personal": Said("ส่วนบุคคล", "personal"),
    "confidential": Said("ลับ", "confidential"),
    "secret": Said("ลับมาก", "secret"),
}
WHATS: Mapping[str, Said] = {
    **LEVELS,
    "aggregate": Said("ค่ารวมของกลุ่มคน", "aggregate of people"),
    "grouping_key": Said("ตัวจำแนกกลุ่มคน", "key of groups of people"),
    "generalised": Said("ค่าหยาบของบุคคล", "coarser value of a person"),
    "personal": Said("ข้อมูลส่วนบุคคล", "personal"),
    "sensitive": Said("ข้อมูลอ่อนไหว", "sensitive"),
    "direct_identifier": Said("ระบุตัวบุคคลโดยตรง", "direct identifier"),
}


@dataclass(frozen=True, slots=True)
class Class:
    """What a column is. ``level``: the classification of contracts; ``what``: one of ``ORDER``; ``path``: from the column that
    makes it so; ``indirect``: personal columns that only decide which rows there are."""

    column: str
    what: str
    level: str
    role: str = "none"
    path: tuple[str, ...] = ()
    indirect: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def protected(self) -> bool:
        """Whether it tells of single persons, or is confidential or secret."""
        return self.level in PROTECTED_LEVELS

    @property
    def words(self) -> str:
        """``ส่วนบุคคล / personal, direct identifier``."""
        level = LEVELS.get(self.level, Said(self.level, self.level))
        exactly = WHATS.get(self.what, Said(self.what, self.what)).english
        return f"{level.thai} / {level.english}" + (f", {exactly}" if exactly != level.english else "")

    @property
    def why(self) -> str:
        """The path as text, or why none is known."""
        return self.problem or " → ".join(self.path)


def most_protected(classes: Iterable[Class]) -> Class | None:
    """The column that protects a table most; None where there is none."""
    return max(classes, key=lambda item: ORDER.index(item.what), default=None)


def classes_of(connection: psycopg.Connection[Any], targets: Iterable[str] | None = None) -> dict[str, dict[str, Class]]:
    """By target (``schema.table``, ``release:<publication>``) and column, in the order of the columns; of all without
    ``targets``. What was not derived yet is left out."""
    asked = "where target = any(%s)" if targets is not None else ""
    rows = connection.execute(
        f"select target, name, what, level, role, path, indirect, problem from governance.classified {asked}"
        " order by target, place".encode(),
        [list(targets)] if targets is not None else None,
    ).fetchall()
    found: dict[str, dict[str, Class]] = {}
    for target, name, what, level, role, path, indirect, problem in rows:
        found.setdefault(target, {})[name] = Class(name, what, level, role, tuple(path), tuple(indirect), problem)
    return found


def without_class(comment: str) -> str:
    """What a comment of the warehouse says but for the class that was added to it."""
    return comment.partition(_MARK)[0].rstrip()


def with_class(comment: str | None, words: str) -> str:
    """A comment of the warehouse with a class behind what it says, in the place of one that it has."""
    said = without_class(comment or "")
    return f"{said}\n\n{_MARK}{words}" if said else f"{_MARK}{words}"


# The file


def write_file(connection: psycopg.Connection[Any], path: Path) -> None:
    """Keep what was derived in a file, whole or not at all; nothing where the file has it already."""
    row = connection.execute("select mark from governance.classified_from").fetchone()
    begin = f'{{"mark":{json.dumps(row[0] if row else "")},'
    try:
        with path.open(encoding="utf-8") as file:
            if file.read(len(begin)) == begin:
                return
    except OSError:
        pass  # not there yet
    told = {
        target: [
            [item.column, item.what, item.level, item.role, item.path, item.indirect, item.problem] for item in columns.values()
        ]
        for target, columns in classes_of(connection).items()
    }
    fresh = path.with_name(f".{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    fresh.write_text(f'{begin}"classes":{json.dumps(told, ensure_ascii=False, separators=(",", ":"))}}}', "utf-8")
    fresh.replace(path)


def read_file(path: Path) -> dict[str, dict[str, Class]]:
    """What was derived last, by target and column; nothing where nothing was."""
    try:
        told = json.loads(path.read_bytes())["classes"]
        return {
            target: {
                name: Class(name, what, level, role, tuple(way), tuple(indirect), problem)
                for name, what, level, role, way, indirect, problem in columns
            }
            for target, columns in told.items()
        }
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return {}
