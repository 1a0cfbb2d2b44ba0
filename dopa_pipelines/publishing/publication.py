"""Publications: the files ``assets/open_data/<name>.yaml`` that say what may leave, as typed facts.

Only reading, refusing and describing publications belongs here; making a release of one is :mod:`.releases`.
Deny by default: a column that isn't listed never leaves, whatever its model holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic.alias_generators import to_camel

from dopa_pipelines.documents import Document, DocumentError, Problem, read_document, unknown_keys
from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing import gd_catalog
from dopa_pipelines.publishing.disclosure import RESERVED
from dopa_pipelines.publishing.schedule import NoScheduleError, Schedule, read_schedule

TIMEZONE = "Asia/Bangkok"
"""Schedules are read, and releases dated, in the department's own time."""

GEOMETRY = "geometry"
"""What the geometry of a GeoJSON extract is called among its columns."""

ColumnType = Literal["string", "integer", "number", "boolean", "date"]
FileFormat = Literal["csv", "json", "parquet", "xlsx", "geojson"]


class Licence(NamedTuple):
    """A licence of open data: its title, its text and what the GD Catalog calls it."""

    title: str
    path: str
    gd_catalog: str


LICENCES: dict[str, Licence] = {
    "CC-BY-4.0": Licence(
        "Creative Commons Attribution 4.0",
        "https://creativecommons.org/licenses/by/4.0/",
        "Creative Commons Attributions",
    ),
    "ODC-BY-1.0": Licence(
        "Open Data Commons Attribution License 1.0",
        "https://opendatacommons.org/licenses/by/1-0/",
        "Open Data Common",
    ),
}

_GD_FORMAT: dict[str, str] = {
    "csv": "CSV",
    "json": "JSON",
    "parquet": gd_catalog.OTHER,
    "xlsx": "XLS",
    "geojson": gd_catalog.OTHER,
}
_NAME = r"^[a-z][a-z0-9_]*$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel, validate_by_name=False)


class PublishedColumn(_Part):
    """A column of the extract and the column of the model that it is."""

    name: str = Field(pattern=_NAME)
    source: str = Field(pattern=_NAME)
    type: ColumnType
    description_en: str = Field(min_length=1)
    description_th: str = Field(min_length=1)
    unit: str | None = None


class Approval(_Part):
    """The data governance council's decision that this may go out."""

    by: str = Field(min_length=1)
    approved_on: date  # not `on`: YAML 1.1 reads that key as true
    document: str = Field(min_length=1)
    review_on: date
    high_value: bool
    internal: list[str] = []
    """Published columns that are internal by lineage and that the council lets out all the same."""


class GateException(_Part):
    """A named person's decision that one column goes out although the gate refuses it. It can lift neither a direct
    identifier nor a security class."""

    column: str = Field(pattern=_NAME)
    approved_by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    document: str = Field(min_length=1)
    expires_on: date


class Dimension(_Part):
    """What cells of a count are told apart by. Publications of a family that have a dimension of one ``name`` mean the
    same by it.

    ``column``: the published column with its codes; none where the measures' ``at`` say it (a wide table). ``levels``:
    lengths of the code's prefixes, from the top (province 2, district 4, tambon 6); ``parents``: or each code's parent.
    With neither, every code is a part of the total. ``total``: the code that the table itself uses for the total, where
    it has such rows. ``additive`` false: its codes do not add up to anything (the months of a stock, such as a
    population), so each is a table of its own.
    """

    name: str = Field(pattern=_NAME)
    column: str | None = Field(default=None, pattern=_NAME)
    levels: list[int] = []
    parents: dict[str, str] = {}
    total: str | None = None
    additive: bool = True


class Measure(_Part):
    """A published column of counts or sums, and the codes that it stands for in dimensions without a column; those it
    does not name are at their total. ``contributors`` and ``largest``: of a sum over people, columns of the source
    (published or not) with the number of people in it and the largest contributions, descending."""

    column: str = Field(pattern=_NAME)
    at: dict[str, str] = {}
    contributors: str | None = Field(default=None, pattern=_NAME)
    largest: list[str] = []


class Rate(_Part):
    """A percentage, ratio or mean that is published beside the counts it is made of: ``scale`` × numerator / denominator,
    rounded to ``decimals``."""

    column: str = Field(pattern=_NAME)
    numerator: str = Field(pattern=_NAME)
    denominator: str = Field(pattern=_NAME)
    scale: float = 100
    decimals: int = 2


class Dominance(_Part):
    """The (n,k) rule: a cell is sensitive where its ``n`` largest contributions are more than ``k`` percent of it."""

    n: int = Field(ge=1)
    k: float = Field(gt=0, lt=100)


class Disclosure(_Part):
    """How counts of and sums over people are protected. Publications with the same ``family`` are over the same people:
    whoever attacks one has the others too."""

    family: str = Field(pattern=_NAME)
    method: Literal["suppression", "rounding", "cell_key"] = "suppression"
    threshold: int = Field(default=5, ge=2)
    dominance: Dominance | None = None
    p_percent: float | None = Field(default=None, gt=0)
    base: int | None = Field(default=None, ge=2)
    zeros: Literal["published", "hideable"] = "published"
    dimensions: list[Dimension] = Field(min_length=1)
    measures: list[Measure] = Field(min_length=1)
    rates: list[Rate] = []

    @property
    def carried(self) -> list[str]:
        """Columns of the source that protection needs and that do not go out: contributors and largest contributions."""
        named = [name for measure in self.measures for name in (measure.contributors, *measure.largest) if name]
        return list(dict.fromkeys(named))


class RecordLevel(_Part):
    """An extract with a row a person or thing: the k-anonymity (Sweeney 2002) and l-diversity (Machanavajjhala et al.
    2007) it must have."""

    quasi_identifiers: list[str] = Field(min_length=1)
    sensitive: list[str] = []
    k_anonymity: int = Field(default=5, ge=2)
    l_diversity: int = Field(default=1, ge=1)


class Contact(_Part):
    name: str = Field(min_length=1)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")


class Publication(_Part):
    """What goes out, from where, in which order and forms, and who allowed it."""

    name: str = Field(pattern=_NAME)
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    title_en: str = Field(min_length=1)
    title_th: str = Field(min_length=1)
    description_en: str = Field(min_length=1)
    description_th: str = Field(min_length=1)
    source: str = Field(pattern=r"^open_data\.[a-z_][a-z0-9_]*$")
    columns: list[PublishedColumn] = Field(min_length=1)
    order_by: list[str] = Field(min_length=1)
    formats: list[FileFormat] = Field(min_length=1)
    schedule: str
    licence: Literal["CC-BY-4.0", "ODC-BY-1.0"]
    contact: Contact
    approval: Approval
    unit_of_count: str | None = None
    disclosure: Disclosure | None = None
    record_level: RecordLevel | None = None
    exceptions: list[GateException] = []
    excel: bool = False
    """Excel users read the CSV: it begins with a byte order mark."""
    geometry: str | None = Field(default=None, pattern=_NAME)
    """The column of the source with each row's geometry as GeoJSON, for the format ``geojson``."""
    quality_line: float = Field(default=80, ge=0, le=100)
    """The quality score, of 100, that the datasets it is made of must have for a release."""
    gd_catalog: dict[str, Any]
    _path: Path = PrivateAttr(default=Path())

    @property
    def path(self) -> Path:
        """The file it was read from."""
        return self._path

    @property
    def calendar(self) -> Schedule:
        """When it is released."""
        return read_schedule(self.schedule)

    @property
    def checksum(self) -> str:
        """SHA-256 of the whole publication: what was approved, told apart from its next edition."""
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).hexdigest()


class Publications(NamedTuple):
    """The publications that are right, and what is wrong with the others."""

    publications: list[Publication]
    problems: list[Problem]


def load_publications(folder: Path) -> Publications:
    """Read every publication in ``folder``, by name. One that is wrong doesn't hold back the others."""
    publications: list[Publication] = []
    problems: list[Problem] = []
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            publications.append(_read(path))
        except DocumentError as error:
            problems += error.problems
    return Publications(publications, sorted(problems))


def columns_of(publications: Iterable[Publication]) -> dict[str, dict[str, str]]:
    """The column of the model that each published column is, the geometry included, by the publications' checksums."""
    return {
        item.checksum: {column.name: column.source for column in item.columns}
        | ({GEOMETRY: item.geometry} if item.geometry else {})
        for item in publications
    }


def read_publication(path: Path) -> Publication:
    """Read one publication. Raises :class:`UserError`: file, line and what would be right, a line a
    problem."""
    try:
        return _read(path)
    except DocumentError as error:
        raise UserError(str(error)) from error


def _read(path: Path) -> Publication:
    document = read_document(path)
    problems = unknown_keys(document, Publication)
    try:
        publication = Publication.model_validate(document.data)
    except ValidationError as error:
        problems += list(_shape_problems(document, error))
        raise DocumentError(sorted(problems + _gd_problems(document))) from error
    problems += [*_gd_problems(document), *_sense_problems(document, publication)]
    if problems:
        raise DocumentError(sorted(problems))
    publication._path = path
    return publication


def _shape_problems(document: Document, error: ValidationError) -> Iterator[Problem]:
    """Pydantic's complaints in our words; unknown keys are left out, they were found with a suggestion."""
    for item in error.errors(include_url=False):
        keys = tuple(key for key in item["loc"] if isinstance(key, str | int))
        match item["type"]:
            case "extra_forbidden":
                continue
            case "missing":
                owner = _place(document, keys[:-1]) or "the publication"
                yield document.problem(f"{owner} lacks {keys[-1]!r}; add it", *keys)
            case "literal_error":
                expected = item.get("ctx", {}).get("expected", "")
                message = f"{_place(document, keys)} is {item['input']!r}; it must be {expected}"
                yield document.problem(message, *keys)
            case _:
                message = item["msg"][0].lower() + item["msg"][1:]
                yield document.problem(f"{_place(document, keys)} is {item['input']!r}; {message}", *keys)


def _place(document: Document, keys: tuple[str | int, ...]) -> str:
    """``columns.2.type`` as ``type of column 'male'``."""
    if len(keys) >= 2 and keys[0] == "columns" and isinstance(keys[1], int):
        column = document.data["columns"][keys[1]]
        name = column.get("name") if isinstance(column, dict) else None
        owner = f"column {name!r}" if name else f"column {keys[1] + 1}"
        return f"{keys[2]!r} of {owner}" if len(keys) > 2 else owner
    return repr(".".join(str(key) for key in keys)) if keys else ""


def _gd_problems(document: Document) -> list[Problem]:
    values = document.data.get("gdCatalog")
    if not isinstance(values, dict):
        return []
    found = []
    for key, message in gd_catalog.problems(values):
        keys = ("gdCatalog", key) if key else ("gdCatalog",)
        found.append(document.problem(f"{'.'.join(keys)}: {message}", *keys))
    for key in values:
        if key not in gd_catalog.known_keys():
            message = f"gdCatalog.{key}: the catalogue has no such key, or it is derived; remove it"
            found.append(document.problem(message, "gdCatalog", str(key)))
    category = values.get("data_category")
    if category in gd_catalog.CHOICES["data_category"] and category != gd_catalog.PUBLIC_CATEGORY:
        message = f"gdCatalog.data_category: must be {gd_catalog.PUBLIC_CATEGORY} to go out, not {category}"
        found.append(document.problem(message, "gdCatalog", "data_category"))
    return found


def _sense_problems(document: Document, publication: Publication) -> Iterator[Problem]:
    """What is well formed and still contradicts itself."""
    if publication.name != document.path.stem:
        yield document.problem(f"the name {publication.name!r} must be that of the file, {document.path.stem!r}", "name")
    seen: set[str] = set()
    for position, column in enumerate(publication.columns):
        if column.name in seen:
            yield document.problem(f"column {column.name!r} is listed twice; keep one", "columns", position)
        seen.add(column.name)
    for position, name in enumerate(publication.order_by):
        if name not in seen:
            yield document.problem(f"orderBy names {name!r}, which is not a listed column", "orderBy", position)
    if len(set(publication.formats)) != len(publication.formats):
        yield document.problem("formats names a format twice; keep one", "formats")
    try:
        read_schedule(publication.schedule)
    except NoScheduleError as error:
        yield document.problem(f"schedule: {error}", "schedule")
    if publication.approval.review_on <= publication.approval.approved_on:
        yield document.problem("the review must come after the approval", "approval", "reviewOn")
    yield from _disclosure_problems(document, publication, seen)
    for position, item in enumerate(publication.exceptions):
        if item.column not in seen:
            yield document.problem(f"the exception names {item.column!r}, which is not a listed column", "exceptions", position)
    for position, name in enumerate(publication.approval.internal):
        if name not in seen:
            yield document.problem(
                f"approval.internal names {name!r}, which is not a listed column", "approval", "internal", position
            )
    if publication.record_level:
        for name in [*publication.record_level.quasi_identifiers, *publication.record_level.sensitive]:
            if name not in seen:
                yield document.problem(f"recordLevel names {name!r}, which is not a listed column", "recordLevel")
    if ("geojson" in publication.formats) != (publication.geometry is not None):
        yield document.problem(
            "the format geojson and `geometry`, the column with the geometry, go together; add the other", "formats"
        )
    if publication.geometry and GEOMETRY in seen:
        yield document.problem(f"no listed column can be called {GEOMETRY!r} beside the geometry; name it otherwise", "geometry")
    called = LICENCES[publication.licence].gd_catalog
    stated = publication.gd_catalog.get("license_id")
    if stated in gd_catalog.CHOICES["license_id"] and stated != called:
        yield document.problem(
            f"gdCatalog.license_id: {publication.licence} is called {called!r} there, not {stated!r}",
            "gdCatalog",
            "license_id",
        )
    declared = publication.gd_catalog.get("data_format")
    for form in publication.formats:
        if isinstance(declared, list) and _GD_FORMAT[form] not in declared:
            yield document.problem(
                f"gdCatalog.data_format lacks {_GD_FORMAT[form]!r}, the catalogue's word for {form}",
                "gdCatalog",
                "data_format",
            )


def _disclosure_problems(document: Document, publication: Publication, listed: set[str]) -> Iterator[Problem]:
    rule = publication.disclosure
    if rule is None:
        return
    if publication.unit_of_count is None:
        yield document.problem("disclosure control needs `unitOfCount`: whom or what the counts count", "disclosure")
    dimensions = {item.name: item for item in rule.dimensions}
    if len(dimensions) != len(rule.dimensions):
        yield document.problem("two dimensions have one name; name each once", "disclosure", "dimensions")
    for position, dimension in enumerate(rule.dimensions):
        place = ("disclosure", "dimensions", position)
        if dimension.name in RESERVED:
            yield document.problem(
                f"no dimension can be called {dimension.name!r} (taken: {', '.join(sorted(RESERVED))}); name it otherwise", *place
            )
        if dimension.column is not None and dimension.column not in listed:
            yield document.problem(f"dimension {dimension.name!r}: {dimension.column!r} is not a listed column", *place)
        if dimension.levels and dimension.parents:
            yield document.problem(f"dimension {dimension.name!r} has levels and parents; keep one", *place)
        if dimension.levels != sorted(set(dimension.levels)):
            yield document.problem(f"dimension {dimension.name!r}: levels must grow from the top down", *place)
        if dimension.column is None and not any(dimension.name in measure.at for measure in rule.measures):
            yield document.problem(f"dimension {dimension.name!r} has no column and no measure is `at` a code of it", *place)
    counted: set[str] = set()
    for position, measure in enumerate(rule.measures):
        place = ("disclosure", "measures", position)
        if measure.column not in listed:
            yield document.problem(f"the measure {measure.column!r} is not a listed column", *place)
        if measure.column in counted:
            yield document.problem(f"the measure {measure.column!r} is listed twice; keep one", *place)
        counted.add(measure.column)
        for name in measure.at:
            if name not in dimensions:
                yield document.problem(f"the measure {measure.column!r} is at {name!r}, which is no dimension", *place)
            elif dimensions[name].column is not None:
                yield document.problem(f"the measure {measure.column!r} is at {name!r}, which has a column; remove one", *place)
    for position, rate in enumerate(rule.rates):
        for name in (rate.column, rate.numerator, rate.denominator):
            if name not in listed:
                yield document.problem(f"the rate names {name!r}, which is not a listed column", "disclosure", "rates", position)
    if (rule.method == "rounding") != (rule.base is not None):
        yield document.problem(
            "the method rounding and its `base` go together; add the other or remove it", "disclosure", "method"
        )
    if rule.dominance and any(len(measure.largest) < rule.dominance.n for measure in rule.measures if measure.contributors):
        yield document.problem(
            f"dominance looks at the {rule.dominance.n} largest contributions: name as many columns", "disclosure"
        )


def canonical_json(value: object) -> bytes:
    """One spelling for one value: the form that digests are taken of."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str).encode()
