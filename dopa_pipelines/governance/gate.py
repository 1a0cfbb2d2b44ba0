"""The gate: whether a publication may go out, by the lineage of its columns.

Belongs here: the rules, each with its name, and what they say of a working copy or of what was recorded. Does not belong here:
what a column is (:mod:`.classification`), and how numbers are protected (``publishing``'s disclosure control).

The rules, by the names that reasons carry:

- ``direct_identifier``, ``sensitive``, ``personal``: a value of one person, however it was written;
- ``security_class``: a column that is confidential or secret, in whatever form;
- ``internal``: internal by lineage, and the approval does not name it;
- ``disclosure``: an aggregate of people or a key of one, without unit of count and disclosure rule, or not covered by the rule;
- ``fine_date``: a day of a person as a key; at least the month must be made of it, declared and recognised;
- ``record_level``: rows of persons; ``singles_out``: rows or values that a condition takes from one person;
- ``unresolved``: lineage that is not known; ``unexplained``: rows or definitions that no record explains.

An exception lifts ``sensitive``, ``personal``, ``internal``, ``disclosure`` and ``fine_date`` of one column, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from dopa_pipelines.governance.classification import Classified, Step, rank, worst
from dopa_pipelines.lineage.columns import LineageError
from dopa_pipelines.lineage.columns.model import Edge, Edges
from dopa_pipelines.lineage.columns.treated import ROW, ROW_ID, Treated, covers

if TYPE_CHECKING:
    from dopa_pipelines.governance.described import Described

ROWS = "(rows)"
"""In the place of a column: the rows of the extract."""
LIFTABLE = frozenset({"sensitive", "personal", "internal", "disclosure", "fine_date"})
_RULES = {
    "confidential": "security_class", "secret": "security_class", "direct_identifier": "direct_identifier",
    "sensitive": "sensitive", "personal": "personal", "generalised": "personal",
}  # fmt: skip


class Reason(NamedTuple):
    """Why a publication is refused. ``path``: from the person's column to the extract."""

    column: str
    path: tuple[str, ...]
    rule: str
    text: str

    def __str__(self) -> str:
        way = f" ({' → '.join(self.path)})" if self.path else ""
        return f"{self.column}: {self.text}{way}"

    def as_json(self) -> dict[str, Any]:
        return {"column": self.column, "path": list(self.path), "rule": self.rule, "text": self.text}


@dataclass(frozen=True)
class Verdict:
    """What the gate says. ``exceptions``: those that are in force, with what each lifted; ``notes``: what is told and refuses
    nothing, such as an approval whose review is due."""

    publication: str
    reasons: tuple[Reason, ...]
    exceptions: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        return {
            "publication": self.publication,
            "allowed": self.allowed,
            "reasons": [reason.as_json() for reason in self.reasons],
            "exceptions": list(self.exceptions),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        if self.allowed:
            return f"{self.publication} may go out"
        return f"{self.publication} may not go out: " + "; ".join(map(str, self.reasons))


def exceptions_in_force(publication: Described, day: date) -> list[dict[str, Any]]:
    """The exceptions of a publication that have not expired on ``day``, for its metadata, page and audit bundle."""
    return [
        {
            "column": item.column,
            "approvedBy": item.approved_by,
            "reason": item.reason,
            "document": item.document,
            "expiresOn": item.expires_on.isoformat(),
        }
        for item in publication.exceptions
        if item.expires_on >= day
    ]


def judge(publication: Described, classified: Classified, day: date, unexplained: Iterable[Reason] = ()) -> Verdict:
    """Judge a publication over what is known of its source. ``unexplained``: what was found besides, in the warehouse."""
    try:
        treated = classified.treated(publication.source)
    except LineageError as error:
        return Verdict(publication.name, (Reason(ROWS, (), "unresolved", str(error)), *unexplained))
    found = [*_Judge(publication, classified, treated).reasons(), *unexplained]
    forced = {item["column"]: item for item in exceptions_in_force(publication, day)}
    expired = {item.column: item for item in publication.exceptions if item.expires_on < day}
    # What of a column cannot be lifted keeps it in, whatever else is.
    firm = {reason.column for reason in found if reason.rule not in LIFTABLE}
    kept: list[Reason] = []
    lifted: dict[str, list[str]] = {}
    for reason in found:
        if reason.rule in LIFTABLE and reason.column in forced and reason.column not in firm:
            lifted.setdefault(reason.column, []).append(reason.rule)
        elif reason.column in expired and reason.column not in forced:
            ended = f"{reason.text}; its exception ended on {expired[reason.column].expires_on.isoformat()}"
            kept.append(reason._replace(text=ended))
        elif reason.column in forced:
            kept.append(reason._replace(text=f"{reason.text}; no exception lifts that"))
        else:
            kept.append(reason)
    shown = tuple(item | {"lifts": sorted(lifted.get(column, []))} for column, item in forced.items())
    notes = []
    if publication.approval.review_on < day:
        notes.append(
            f"the review of its approval was due on {publication.approval.review_on.isoformat()}; the council decides anew"
        )
    return Verdict(publication.name, tuple(kept), shown, tuple(notes))


class _Judge:
    def __init__(self, publication: Described, classified: Classified, treated: Treated) -> None:
        self.publication, self.classified, self.treated = publication, classified, treated
        self.about = classified.about
        rule = publication.disclosure
        self.measures = {item.column for item in rule.measures} | {item.column for item in rule.rates} if rule else set()
        self.dimensions = {item.column for item in rule.dimensions if item.column} if rule else set()
        self.sources = {column.name: column.source for column in publication.columns}

    def reasons(self) -> Iterator[Reason]:
        yield from self._rows()
        for name, source in self.sources.items():
            edges = self.treated.columns.get(source)
            if edges is None:
                yield Reason(name, (), "unresolved", f"{self.publication.source} has no column {source!r} by its lineage")
            else:
                yield from self._column(name, source, edges)

    # Rows

    def _rows(self) -> Iterator[Reason]:
        for edge in sorted(self.treated.rows):
            about = self.about(edge.table, edge.column)
            if edge.column == ROW and edge.how.shape == "value" and about.personal:
                way = self._path(edge, ROWS, None)
                yield Reason(ROWS, way, "record_level", f"its rows are single rows of {edge.table}, and those are of persons")
            elif edge.how.shape == "singled" and about.personal:
                what = "a limit" if edge.column == ROW_ID else f"a condition on {edge.column}"
                yield Reason(
                    ROWS, self._path(edge, ROWS, None), "singles_out", f"{what} takes one person's rows from {edge.table}"
                )

    # Columns

    def _column(self, name: str, source: str, edges: Edges) -> Iterator[Reason]:
        for edge in edges:
            if edge.how.shape == "singled" and self.about(edge.table, edge.column).personal:
                text = f"a condition on {edge.column} makes it tell of one person"
                yield Reason(name, self._path(edge, name, source), "singles_out", text)
                break
        edges = frozenset(edge for edge in edges if edge.how.shape != "singled")
        worst_edge = worst(self.about, edges)
        if worst_edge is None:
            return
        what = rank(self.about(worst_edge.table, worst_edge.column), worst_edge)
        if what in _RULES:
            yield Reason(name, self._path(worst_edge, name, source), _RULES[what], _told(what, worst_edge))
            return
        ranks = {rank(self.about(edge.table, edge.column), edge) for edge in edges}
        if "internal" in ranks and name not in self.publication.approval.internal:
            edge = max(edge for edge in edges if rank(self.about(edge.table, edge.column), edge) == "internal")
            text = "it is internal, and the approval does not name it under `internal`"
            yield Reason(name, self._path(edge, name, source), "internal", text)
        if "aggregate" in ranks:
            yield from self._aggregate(name, source, edges)
        if "grouping_key" in ranks:
            yield from self._key(name, source, edges)
        elif any(edge.how.shape == "key" and self._of_people(edge.how.group) for edge in edges) and not self._covered(edges):
            # A key that is no person's column tells groups apart all the same.
            text = "it tells groups of people apart, and no dimension of the disclosure rule covers it"
            yield Reason(name, self._path(worst_edge, name, source), "disclosure", text)

    def _aggregate(self, name: str, source: str, edges: Edges) -> Iterator[Reason]:
        about_people = [edge for edge in edges if rank(self.about(edge.table, edge.column), edge) == "aggregate"]
        way = self._path(max(about_people), name, source)
        if missing := self._missing():
            yield Reason(name, way, "disclosure", f"it is an aggregate of people, and {missing}")
        elif name not in self.measures:
            text = "it is an aggregate of people, and neither measure nor rate of the disclosure rule"
            yield Reason(name, way, "disclosure", text)
        else:
            for key in sorted({key for edge in about_people for key in self._uncovered(edge.how.group)}):
                text = f"it is counted by {key}, which no dimension of the disclosure rule covers: its cells are finer than said"
                yield Reason(name, way, "disclosure", text)

    def _key(self, name: str, source: str, edges: Edges) -> Iterator[Reason]:
        keys = [edge for edge in edges if rank(self.about(edge.table, edge.column), edge) == "grouping_key"]
        way = self._path(max(keys), name, source)
        fine = [edge for edge in keys if self.about(edge.table, edge.column).date and not edge.how.declared]
        if fine:
            text = (
                f"{fine[0].column} is a day of a person; make at least a month of it, and declare that (`generalises`) in the yml"
                " of the model that does"
            )
            yield Reason(name, self._path(fine[0], name, source), "fine_date", text)
        if missing := self._missing():
            yield Reason(name, way, "disclosure", f"it is a key of an aggregate of people, and {missing}")
        elif not self._covered(edges):
            yield Reason(name, way, "disclosure", "it is a key of an aggregate of people, and no dimension of the rule covers it")
        elif not self._counted({edge.how.group for edge in keys}):
            yield Reason(name, way, "personal", "it is a key of no aggregate that goes out, so it tells of persons alone")

    def _missing(self) -> str:
        if not self.publication.unit_of_count:
            return "the publication names no unit of count (`unitOfCount`)"
        return "" if self.publication.disclosure else "the publication has no disclosure rule (`disclosure`)"

    def _counted(self, groups: set[str]) -> bool:
        return any(
            edge.how.group in groups
            for measure in self.measures
            for edge in self.treated.columns.get(self.sources.get(measure, ""), ())
            if edge.how.shape == "statistic"
        )

    def _of_people(self, group: str) -> bool:
        """Whether groups of this query are of people: a measure of theirs is an aggregate of people."""
        return any(
            edge.how.group == group and edge.how.shape in ("key", "statistic") and self.about(edge.table, edge.column).personal
            for edge in self.treated.rows
            if edge.column == ROW
        )

    def _covered(self, key: Edges) -> bool:
        """Whether a dimension's column is made of the same columns, as fine or finer."""
        needed = [edge for edge in key if edge.column != ROW and edge.how.shape not in ("statistic", "matched")]
        for name in self.dimensions:
            have = [edge for edge in self.treated.columns.get(self.sources.get(name, ""), ()) if edge.column != ROW]
            if all(any(e[:2] == h[:2] and covers(h.how.grain, e.how.grain) for h in have) for e in needed):
                return True
        return not needed

    def _uncovered(self, group: str) -> Iterator[str]:
        for key in self.treated.groups.get(group, ()):
            if key and not self._covered(key):
                yield ", ".join(sorted({f"{edge.table}.{edge.column}" for edge in key if edge.column != ROW}))

    def _path(self, edge: Edge, name: str, source: str | None) -> tuple[str, ...]:
        origin = Step(edge.table, edge.column)
        end = Step(self.publication.source, source or ROW)
        way = self.classified.path(origin, end)
        return (*map(str, way), f"{self.publication.name}.{name}" if source else self.publication.name)


def _told(what: str, edge: Edge) -> str:
    column = f"{edge.table}.{edge.column}"
    masked = ", though hashed: a hash of a person's value stays personal" if edge.masking else ""
    match what:
        case "confidential" | "secret":
            return f"{column} is {what}; nothing made of it goes out"
        case "direct_identifier" if edge.column == ROW_ID:
            return f"it tells single rows of {edge.table} apart, and those are of persons"
        case "direct_identifier":
            return f"it is made of {column}, which identifies a person{masked}"
        case "sensitive":
            return f"it is made of {column}, which is sensitive{masked}"
        case "generalised":
            return f"it is a coarser value of {column}, yet of one person: only as the key of an aggregate it goes out"
    picked = " picked from a group" if edge.how.shape == "picked" else ""
    return f"it is a value of {column}, of one person{picked}{masked}"
