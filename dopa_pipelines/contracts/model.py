"""The contract as the rest of the platform sees it.

Plain, typed, immutable facts about one dataset: what its columns are, how its silo sends it, how it is loaded, who owns it.
Reading and refusing ODCS files is in :mod:`dopa_pipelines.contracts.read`; acting on a contract is in the rooms above.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

Classification = Literal["open", "internal", "personal", "confidential", "secret"]
PdpaRole = Literal["direct_identifier", "quasi_identifier", "sensitive", "none"]
LoadMode = Literal["replace", "append", "replace_scope", "history"]
Keep = Literal["first", "last", "none"]
FileFormat = Literal["delimited", "fixed_width", "xlsx", "xls", "html", "dbf", "json_lines", "json", "geojson", "json_api", "sql"]
Severity = Literal["reject", "block", "warn"]
Dimension = Literal["accuracy_completeness", "consistency", "relevancy", "timeliness", "availability"]
RuleKind = Literal[
    "required", "unique", "pattern", "range", "values", "reference", "compare", "total", "freshness", "volume", "distribution",
    "rows", "schema", "agreement", "sql", "row",
]  # fmt: skip
Paging = Literal["page", "link", "cursor", "offset", "none"]


@dataclass(frozen=True)
class Reference:
    """A column whose values must exist in another dataset.

    ``length``: only that many leading characters are compared (a village code refers to its tambon); 0 compares all.
    """

    dataset: str
    column: str
    length: int = 0


@dataclass(frozen=True)
class Column:
    """One column of ``raw.<dataset>`` and how it is made from the silo's text."""

    name: str
    logical_type: str
    physical_type: str
    parse: str
    title: str
    titles: tuple[str, ...] = ()
    business_name: str = ""
    description: str = ""
    description_th: str = ""
    required: bool = False
    key_position: int | None = None
    classification: Classification = "internal"
    pdpa_role: PdpaRole = "none"
    lawful_basis: str = ""
    purpose: str = ""
    null_values: tuple[str, ...] = ()
    position: tuple[int, int] | None = None
    partial: bool = False
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    minimum: Any = None
    maximum: Any = None
    valid_values: tuple[str, ...] = ()
    reference: Reference | None = None
    renamed_from: str | None = None
    from_file: Literal["period"] | None = None
    national: tuple[tuple[str, Dimension, str | None], ...] = ()
    """(kind, dimension, indicator) of its enforced rules, where the contract states them."""

    @property
    def is_personal(self) -> bool:
        """Whether its values must be masked wherever they are shown without being asked for."""
        return self.pdpa_role != "none" or self.classification in ("personal", "confidential", "secret")

    @property
    def known_titles(self) -> tuple[str, ...]:
        return (self.title, *self.titles, self.name)

    @cached_property
    def table_columns(self) -> tuple[tuple[str, str], ...]:
        """(name, PostgreSQL type) of the raw columns it makes; a partial date makes three."""
        if self.partial:
            return (
                (self.name, "date"),
                (f"{self.name}_year", "smallint"),
                (f"{self.name}_month", "smallint"),
            )
        return ((self.name, self.physical_type),)


@dataclass(frozen=True)
class RowRule:
    """A condition over the columns of one row, as a Polars SQL expression; a row where it is false is quarantined."""

    name: str
    expression: str
    description: str = ""
    description_th: str = ""
    dimension: Dimension = "consistency"
    indicator: str | None = None
    line: int = field(default=1, compare=False)


@dataclass(frozen=True)
class Limit:
    """What a measured number must be: every bound that is set must hold.

    ``unit``: what the number counts: ``rows``, ``percent`` (of the rows that were looked at, 0 to 100), ``days`` or ``number``.
    """

    equal: float | None = None
    not_equal: float | None = None
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    between: tuple[float, float] | None = None
    outside: tuple[float, float] | None = None
    unit: Literal["rows", "percent", "days", "number"] = "rows"

    def holds(self, value: float) -> bool:
        return (
            (self.equal is None or value == self.equal)
            and (self.not_equal is None or value != self.not_equal)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
            and (self.between is None or self.between[0] <= value <= self.between[1])
            and (self.outside is None or not self.outside[0] <= value <= self.outside[1])
        )

    @property
    def words(self) -> str:
        """The bounds for people: ``at most 5 percent``."""
        said = [
            f"{word} {value:g}"
            for word, value in (
                ("exactly", self.equal), ("not", self.not_equal), ("more than", self.above), ("at least", self.at_least),
                ("less than", self.below), ("at most", self.at_most),
            )
            if value is not None
        ]  # fmt: skip
        said += [f"between {self.between[0]:g} and {self.between[1]:g}"] if self.between else []
        said += [f"not between {self.outside[0]:g} and {self.outside[1]:g}"] if self.outside else []
        return " and ".join(said) + ("" if self.unit == "number" else f" {self.unit}")


@dataclass(frozen=True)
class TableRule:
    """A rule that is measured after the load, on the table or against what is known of it; it rejects no row.

    ``arguments`` are those of the kind, checked as they were read: docs/contracts.md. ``severity``: ``block`` holds back what
    descends from the dataset, ``warn`` only tells. ``line``: of the contract, where the rule stands.
    """

    name: str
    kind: RuleKind
    limit: Limit = Limit(equal=0)
    severity: Severity = "block"
    column: str | None = None
    description: str = ""
    description_th: str = ""
    dimension: Dimension = "consistency"
    indicator: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    line: int = field(default=1, compare=False)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Other datasets that it compares with; what the SQL of a ``sql`` rule reads is not known here."""
        to = self.arguments.get("dataset")
        return (str(to),) if to else ()


@dataclass(frozen=True)
class Totals:
    """Rows that are layout: those whose ``column`` matches ``pattern`` are neither loaded nor quarantined."""

    column: str
    pattern: str


@dataclass(frozen=True)
class Series:
    """Fields of a wide line that follow one another, from field ``first`` (1 is the line's first).

    ``repeat`` times a group of fields; ``column`` counts the groups from ``start``. A group has one field for each of ``values``,
    which column ``each`` takes; without it a group is one field. ``set``: columns that are the same in all its rows, with value.
    """

    first: int
    repeat: int = 1
    column: str | None = None
    start: int = 0
    each: str | None = None
    values: tuple[str, ...] = ()
    set: tuple[tuple[str, str], ...] = ()

    @property
    def fields(self) -> int:
        return self.repeat * max(1, len(self.values))

    def rows(self) -> Iterator[dict[str, str]]:
        """Of each field, in order, the columns it fills, with their text."""
        for count in range(self.start, self.start + self.repeat):
            for value in self.values or ("",):
                filled = dict(self.set)
                if self.column:
                    filled[self.column] = str(count)
                if self.each:
                    filled[self.each] = value
                yield filled


@dataclass(frozen=True)
class Unpivot:
    """A line that holds many rows: first the fields of the columns ``identity``, then those of ``series``, one row each.

    What stands in a field becomes column ``value`` of its row.
    """

    identity: tuple[str, ...]
    value: str
    series: tuple[Series, ...]

    @cached_property
    def rows(self) -> tuple[dict[str, str], ...]:
        """Of each row of a line, in the order of its fields, the columns that its field fills, with their text."""
        return tuple(row for series in self.series for row in series.rows())

    @property
    def filled(self) -> tuple[str, ...]:
        """Columns that a field's place fills, each once."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def wide(self) -> tuple[str, ...]:
        """Names that the fields have before they become rows; no contract column can have such a name."""
        first = len(self.identity) + 1
        return tuple(f"_field_{number}" for number in range(first, first + len(self.rows)))


@dataclass(frozen=True)
class Layout:
    """How the silo sends the data. Field meanings: docs/contracts.md."""

    format: FileFormat
    type: Literal["local", "api", "postgresql", "mysql"] = "local"
    path: str = ""
    encoding: str = "utf-8"
    delimiter: str = ","
    header: bool = True
    quoted: bool = False
    trailing_delimiter: bool = False
    sheet: str | None = None
    header_rows: int = 1
    totals: Totals | None = None
    period: str | None = None
    query: str | None = None
    records_path: str = "data"
    next_page: str = "next"
    page_parameter: str = "page"
    paging: Paging = "page"
    page_size: int | None = None
    size_parameter: str = "limit"
    total_path: str | None = None
    url_environment: str | None = None
    token_environment: str | None = None
    unpivot: Unpivot | None = None


@dataclass(frozen=True)
class ScopePart:
    """One column of the scope that a delivery replaces; dates may be cut to their month or year."""

    column: str
    granularity: Literal["value", "month", "year"] = "value"


@dataclass(frozen=True)
class Load:
    """How a delivery changes the table."""

    mode: LoadMode = "replace"
    scope: tuple[ScopePart, ...] = ()
    duplicates: Keep = "first"
    max_rejected_percent: float = 5.0
    max_shrink_percent: float = 50.0


@dataclass(frozen=True)
class Partition:
    """Calendar partitions of the dataset's asset: by month of ``column``, from ``start``."""

    column: str
    start: date
    granularity: Literal["month"] = "month"


@dataclass(frozen=True)
class TeamMember:
    name: str
    role: str


@dataclass(frozen=True)
class ServiceLevel:
    """Frequency of deliveries in days (0: ad hoc), years of retention, days after its own day by which a delivery is due."""

    frequency_days: int = 0
    frequency: str = ""
    retention_years: int | None = None
    latency_days: int | None = None


@dataclass(frozen=True)
class Contract:
    """What one dataset must be."""

    dataset: str
    bureau: str
    version: str
    path: Path
    title_th: str
    title_en: str
    description: str
    description_th: str
    grain: str
    columns: tuple[Column, ...]
    layout: Layout
    load: Load
    row_rules: tuple[RowRule, ...] = ()
    table_rules: tuple[TableRule, ...] = ()
    partition: Partition | None = None
    team: tuple[TeamMember, ...] = ()
    service_level: ServiceLevel = field(default_factory=ServiceLevel)
    gd_catalog: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    key_dataset: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the key columns, in key order."""
        keyed = [column for column in self.columns if column.key_position is not None]
        return tuple(column.name for column in sorted(keyed, key=lambda column: column.key_position or 0))

    @cached_property
    def file_columns(self) -> tuple[Column, ...]:
        """Columns as they stand in the file: without those that the file's name fills, and before a line becomes many rows."""
        unpivot = self.layout.unpivot
        if unpivot is None:
            return tuple(column for column in self.columns if not column.from_file)
        fields = tuple(Column(name, "string", "text", "text", name.strip("_").replace("_", " ")) for name in unpivot.wide)
        return (*map(self.column, unpivot.identity), *fields)

    @property
    def has_history(self) -> bool:
        """Whether its table says since when and until when a row held; a delivery is a snapshot."""
        return self.load.mode == "history"

    @property
    def rows_per_line(self) -> int:
        """Rows that one line of a delivery makes; 1 unless the layout is unpivoted."""
        return len(self.layout.unpivot.rows) if self.layout.unpivot else 1

    @property
    def table(self) -> str:
        return f"raw.{self.dataset}"

    @property
    def feed(self) -> tuple[str, str]:
        """OpenLineage namespace and name of what the silo sends: the feed is the dataset, a delivery its version."""
        namespaces = {"local": "file", "api": "api", "postgresql": "postgres", "mysql": "mysql"}
        return namespaces[self.layout.type], f"{self.bureau}/{self.dataset}"

    @property
    def references(self) -> tuple[str, ...]:
        """Datasets that its columns refer to, each once."""
        return tuple(dict.fromkeys(column.reference.dataset for column in self.columns if column.reference))

    @property
    def classification(self) -> Classification:
        """The most protected class of its columns: a dataset that mixes takes that one (มรด. 3-1:2565)."""
        order: tuple[Classification, ...] = ("open", "internal", "personal", "confidential", "secret")
        return max((column.classification for column in self.columns), key=order.index)

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @cached_property
    def table_columns(self) -> tuple[tuple[str, str], ...]:
        return tuple(pair for column in self.columns for pair in column.table_columns)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of everything that decides how a delivery is treated; descriptions and people don't."""
        prose = {"business_name", "description", "description_th", "lawful_basis", "purpose", "national"}
        facts = {
            "dataset": self.dataset,
            "version": self.version,
            "columns": [{key: value for key, value in asdict(column).items() if key not in prose} for column in self.columns],
            "layout": {k: v for k, v in asdict(self.layout).items() if not k.endswith("environment")},
            "load": asdict(self.load),
            "row_rules": [(rule.name, rule.expression) for rule in self.row_rules],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def period_of(self, file_name: str) -> date | None:
        """First day of the month that a file's name states, by the layout's ``period`` pattern; None where it states none."""
        if not self.layout.period:
            return None
        match = re.search(self.layout.period, file_name)
        if not match:
            return None
        year, month = int(match["year"]), int(match["month"])
        if year < 100:
            year += 2500
        year = year - 543 if year >= 2400 else year
        return date(year, month, 1) if 1 <= month <= 12 and 1800 <= year <= 2200 else None

    def business_date_of(self, file_name: str) -> date | None:
        """The day that a snapshot is of, by its file's name: that of the pattern's group ``day``, or the month's first."""
        month = self.period_of(file_name)
        match = re.search(self.layout.period or "", file_name)
        if month is None or match is None or "day" not in match.re.groupindex:
            return month
        try:
            return month.replace(day=int(match["day"]))
        except ValueError:
            return None
