"""What a page of a trace shows: the question as its address has it, the walks, the picture with links, the columns.

Belongs here: from an address to what its template is filled with. Does not belong here: routes and how failures look (``app``),
the walk and the drawing themselves (``dopa_pipelines.lineage``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage import asking, columntrace, drawing
from dopa_pipelines.lineage.classes import Class, most_protected
from dopa_pipelines.lineage.columngraph import pending
from dopa_pipelines.lineage.columntrace import Connection, Definition
from dopa_pipelines.lineage.naming import DatasetName, Identity
from dopa_pipelines.lineage.store import identity
from dopa_pipelines.lineage.trace import Direction
from dopa_pipelines.portal import addresses

LONGEST_NAME = 400
DEEPEST = 1000
WAYS: Mapping[str, tuple[Direction, ...]] = {"both": ("up", "down"), "up": ("up",), "down": ("down",)}


class BadQuestionError(Exception):
    """A part of the address is none that the page understands: what it is called, and what would be right."""

    def __init__(self, field: str, right: str) -> None:
        super().__init__(f"{field}: {right}")
        self.field = field
        self.right = right


@dataclass(frozen=True)
class Question:
    """What is asked: ``as_of`` as it was written, ``at`` what that means."""

    name: str
    direction: str = "both"
    depth: int | None = None
    as_of: str = ""

    @classmethod
    def of(cls, name: str, query: Mapping[str, str]) -> Question:
        """From an address. Raises BadQuestionError."""
        direction = query.get("direction") or "both"
        if direction not in WAYS:
            raise BadQuestionError("direction", f"{', '.join(WAYS)}")
        depth = query.get("depth", "").strip()
        if depth and not (depth.isascii() and depth.isdigit() and 1 <= int(depth[:6]) <= DEEPEST and len(depth) <= 6):
            raise BadQuestionError("depth", f"1-{DEEPEST}")
        return cls(name, direction, int(depth) if depth else None, query.get("as_of", "").strip()[:LONGEST_NAME])

    @property
    def ways(self) -> tuple[Direction, ...]:
        return WAYS[self.direction]

    @property
    def query(self) -> dict[str, str]:
        """As an address has it, without what is so anyway."""
        return {
            "direction": "" if self.direction == "both" else self.direction,
            "depth": str(self.depth or ""),
            "as_of": self.as_of,
        }

    def at(self, conn: Connection) -> datetime | None:
        """The time that is asked about. Raises BadQuestionError."""
        if not self.as_of:
            return None
        try:
            if not self.as_of.isprintable():
                raise UserError("")
            return columntrace.moment(conn, self.as_of)
        except UserError:
            raise BadQuestionError("as_of", "2026-11-01, 2026-11-01T08:30, release:<publication>") from None


@dataclass(frozen=True)
class Shown:
    """What the page of a trace shows.

    ``title``: of what; ``table``, ``column``: its parts; ``columns``: of its dataset, with class and link; ``known``: what the
    column is by its lineage, or the column that protects the table most; ``made``: what each dataset of the picture was made by;
    ``behind``: whether writes were recorded that are not in the graph of columns yet.
    """

    title: str
    table: str
    column: str | None
    kind: str
    picture: drawing.Picture
    svg: str
    columns: list[dict[str, Any]]
    known: Class | None
    made: list[dict[str, Any]]
    at: datetime | None
    behind: bool


def answer(conn: Connection, question: Question, base: str) -> Shown:
    """The page's contents. Raises UserError where nothing of that name was known (then), and BadQuestionError."""
    _check(question.name)
    at = question.at(conn)
    walks = asking.column_walks(conn, question.name, question.ways, question.depth, at)
    picture = drawing.picture(list(walks.values()), drawing.THAI)

    def link(label: str, column: str | None) -> str:
        return addresses.trace(base, label, column, **question.query)

    first = next(iter(walks.values()))
    label = first.labels[first.root.dataset]
    own = first.definitions.get(first.root.dataset)
    marks = {place: mark for walk in walks.values() for place, mark in walk.marks().items()}
    classes = first.classes.get(first.root.dataset, {})
    return Shown(
        title=label if first.root.column is None else f"{label}.{first.root.column}",
        table=label,
        column=first.root.column,
        kind=own.kind if own else "",
        picture=picture,
        svg=drawing.as_svg(picture, link),
        columns=[
            {
                **item,
                "mark": marks.get(columntrace.Place(first.root.dataset, item["name"])),
                "known": classes.get(item["name"]),
                "address": link(label, item["name"]),
            }
            for item in (own.fields if own else ())
        ],
        known=classes.get(first.root.column) if first.root.column else most_protected(classes.values()),
        made=[_made(name, definition, link(name, None)) for name, definition in sorted(picture.made, key=lambda pair: pair[0])],
        at=at,
        behind=pending(conn),
    )


def _made(label: str, definition: Definition, address: str) -> dict[str, Any]:
    return {
        "label": label,
        "address": address,
        "by": drawing.made_by(definition, drawing.THAI),
        "since": definition.valid_from,
        "path": str(definition.code.get("path") or ""),
        "checksum": str(definition.code.get("checksum") or ""),
        "problem": columntrace.problem_text(definition.problem) if definition.problem else "",
    }


def as_json(conn: Connection, question: Question) -> dict[str, Any]:
    """As ``dopa trace --json`` has it. Raises as :func:`answer`."""
    _check(question.name)
    return asking.as_json(conn, question.name, question.ways, question.depth, question.at(conn))


def as_svg(conn: Connection, question: Question, base: str) -> str:
    """The picture alone, its links whole addresses. Raises as :func:`answer`."""
    return answer(conn, question, base).svg


def is_name(conn: Connection, name: str) -> bool:
    """Whether ``name`` as a whole means a dataset or one of its columns."""
    try:
        _check(name)
        place = columntrace.find_place(conn, name, "up")
    except UserError:
        return False
    if place is None or place.column is None:
        return place is not None
    made = columntrace.definitions(conn, [place.dataset]).get(place.dataset)
    return made is not None and place.column in made.columns


def _check(name: str) -> None:
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise UserError("Nothing has such a name")


def suggestions(conn: Connection, name: str) -> list[str]:
    """Up to five datasets or columns that ``name`` may have meant, as they are called."""
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        return []
    named = identity(conn)
    try:
        place = columntrace.find_place(conn, name, "up")
    except UserError:  # it may mean several
        place = None
    if place is not None and place.column is not None:
        made = columntrace.definitions(conn, [place.dataset]).get(place.dataset)
        label = columntrace.label_of(named, place.dataset)
        columns = near(place.column, {column: column for column in made.columns} if made else {})
        return [f"{label}.{column}" for column in columns] or [label]
    return near(name, dict(_called(conn, named)))


def _called(conn: Connection, named: Identity) -> Iterator[tuple[str, str]]:
    rows = conn.execute("select namespace, name from lineage.dataset order by name").fetchall()
    for row in rows:
        label = columntrace.label_of(named, DatasetName(*row))
        for separator in (".", "/", ":"):
            yield label.rpartition(separator)[2], label
    for row in rows:
        label = columntrace.label_of(named, DatasetName(*row))
        yield label, label


def near(word: str, known: Mapping[str, str]) -> list[str]:
    """Up to five of ``known``, told by its values, whose name is nearly ``word``."""
    lowered = {name.lower(): label for name, label in known.items()}
    close = difflib.get_close_matches(word.lower(), lowered, n=8, cutoff=0.6)
    return list(dict.fromkeys(lowered[name] for name in close))[:5]
