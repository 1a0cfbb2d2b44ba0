"""Reading contracts: ODCS v3.1 YAML in, :class:`Contract` out, every mistake refused with file and line.

A folder is read as a whole: a contract that is wrong becomes problems, the others still load.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, cast, get_args

from open_data_contract_standard.model import (
    CustomProperty,
    OpenDataContractStandard,
    SchemaProperty,
    Server,
    Team,
)
from pydantic import ValidationError

from dopa_pipelines.contracts.model import (
    Classification,
    Column,
    Contract,
    FileFormat,
    Keep,
    Layout,
    Load,
    LoadMode,
    Paging,
    Partition,
    PdpaRole,
    Reference,
    ScopePart,
    Series,
    ServiceLevel,
    TeamMember,
    Totals,
    Unpivot,
)
from dopa_pipelines.contracts.read_rules import RuleReader
from dopa_pipelines.documents import (
    Document,
    DocumentError,
    Problem,
    did_you_mean,
    read_document,
    unknown_keys,
    validation_problems,
)

API_VERSIONS = ("v3.1.0",)
SUFFIX = ".odcs.yaml"

PARSES: dict[str, tuple[str, ...]] = {
    "string": ("text", "code", "citizen_number", "house_code"),
    "integer": ("integer",),
    "number": ("number",),
    "date": ("date", "be_yymm", "be_date_ymd"),
    "timestamp": ("timestamp",),
    "boolean": ("boolean",),
}
"""The parses that each ODCS logical type may take; the first is the default."""

PHYSICAL_TYPES: dict[str, tuple[str, ...]] = {
    "string": ("text",),
    "integer": ("integer", "smallint", "bigint"),
    "number": ("double precision", "numeric"),
    "date": ("date",),
    "timestamp": ("timestamp", "timestamptz"),
    "boolean": ("boolean",),
}

COLUMN_PROPERTIES = (
    "pdpaRole", "descriptionTh", "titles", "parse", "nullValues", "position", "partial", "referenceLength",
    "renamedFrom", "lawfulBasis", "purpose", "fromFile",
)  # fmt: skip
SERVER_PROPERTIES = (
    "delimiter", "header", "trailingDelimiter", "quoted", "sheet", "headerRows", "totals", "period", "recordsPath", "nextPage",
    "pageParameter", "paging", "pageSize", "sizeParameter", "totalPath", "query", "urlEnvironment", "tokenEnvironment", "unpivot",
)  # fmt: skip
CONTRACT_PROPERTIES = ("load", "gdCatalog", "titleEn", "descriptionTh", "keyDataset", "partition")
GD_CATALOG_KEYS = (
    "data_type", "title", "owner_org", "maintainer", "maintainer_email", "tag_string", "notes", "objective",
    "update_frequency_unit", "geo_coverage", "data_source", "data_format", "data_category", "license_id",
)  # fmt: skip
"""The 14 mandatory items of the government data catalogue (มรด. 3-1:2565)."""

MAX_WIDE_FIELDS = 10_000
MAX_HEADER_ROWS = 20
FORMATS = get_args(FileFormat)
FORMAT_OF_TYPE = {"local": "", "api": "json_api", "postgresql": "sql", "mysql": "sql"}
"""Server types and the form that one implies; ODCS lets only a local server state its format."""
IDENTIFIER = re.compile(r"^[a-z][a-z0-9_]{0,58}$")
UNIT_DAYS = {"d": 1, "w": 7, "m": 31, "q": 92, "y": 366}


@dataclass
class Contracts:
    """The contracts of a folder by dataset, and what was wrong in the others."""

    by_dataset: dict[str, Contract]
    problems: list[Problem] = field(default_factory=list)

    def __iter__(self) -> Iterator[Contract]:
        return iter(self.by_dataset.values())

    def __len__(self) -> int:
        return len(self.by_dataset)

    def in_reference_order(self) -> list[Contract]:
        """Contracts so that a dataset stands before those that refer to it or compare with it; cycles keep name order."""
        ordered: dict[str, Contract] = {}

        def add(contract: Contract, above: frozenset[str]) -> None:
            if contract.dataset in ordered or contract.dataset in above:
                return
            compared = [name for rule in contract.table_rules for name in rule.datasets]
            for name in (*contract.references, *compared):
                if name in self.by_dataset:
                    add(self.by_dataset[name], above | {contract.dataset})
            ordered[contract.dataset] = contract

        for contract in self:
            add(contract, frozenset())
        return list(ordered.values())


def load_contracts(folder: Path) -> Contracts:
    """Read every ``*.odcs.yaml`` below ``folder``. Never raises for a wrong contract: see ``problems``."""
    found: dict[str, Contract] = {}
    problems: list[Problem] = []
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        try:
            contract = _read_once(path)
        except DocumentError as error:
            problems += error.problems
            continue
        if contract.dataset in found:
            other = found[contract.dataset].path
            problems.append(Problem(path, 1, f"dataset {contract.dataset!r} is already described by {other}"))
            continue
        found[contract.dataset] = contract
    for contract in found.values():
        problems += _reference_problems(contract, found)
        problems += _compared_problems(contract, found)
    return Contracts(dict(sorted(found.items())), sorted(problems))


# By path: the bytes of a contract and what was read of them. A run reads its contracts at its beginning and its end.
_READ: dict[Path, tuple[bytes, Contract]] = {}


def _read_once(path: Path) -> Contract:
    """:func:`read_contract`, which costs ten milliseconds, unless this process has read the same bytes before."""
    try:
        content = path.read_bytes()
    except OSError:
        return read_contract(path)  # which says what is wrong
    kept = _READ.get(path)
    if kept is None or kept[0] != content:
        kept = _READ[path] = content, read_contract(path)
    return kept[1]


def _reference_problems(contract: Contract, known: Mapping[str, Contract]) -> Iterator[Problem]:
    for position, column in enumerate(contract.columns):
        if not column.reference:
            continue
        target = known.get(column.reference.dataset)
        keys = ("schema", 0, "properties", position, "relationships")
        if target is None:
            hint = did_you_mean(column.reference.dataset, known)
            # Only for the line: most contracts have no such problem.
            document = read_document(contract.path)
            yield document.problem(f"refers to dataset {column.reference.dataset!r}, which has no contract; {hint}", *keys)
        elif column.reference.column not in {name for name, _ in target.table_columns}:
            names = [name for name, _ in target.table_columns]
            hint = did_you_mean(column.reference.column, names)
            document = read_document(contract.path)
            yield document.problem(f"refers to unknown column {target.dataset}.{column.reference.column}; {hint}", *keys)


def _compared_problems(contract: Contract, known: Mapping[str, Contract]) -> Iterator[Problem]:
    """Where a rule compares with a dataset or column that is not there."""
    for rule in contract.table_rules:
        for name in rule.datasets:
            target = known.get(name)
            if target is None:
                text = (
                    f"the rule {rule.name!r} compares with dataset {name!r}, which has no contract; {did_you_mean(name, known)}"
                )
                yield Problem(contract.path, rule.line, text)
                continue
            names = [column for column, _ in target.table_columns]
            for column in rule.arguments.get("match", {}).values():
                if column not in names:
                    hint = did_you_mean(column, names)
                    text = f"the rule {rule.name!r} names unknown column {name}.{column}; {hint}"
                    yield Problem(contract.path, rule.line, text)


def read_contract(path: Path) -> Contract:
    """Read one contract. Raises :class:`DocumentError` with every problem found in it."""
    document = read_document(path)
    problems = unknown_keys(document, OpenDataContractStandard)
    if problems:
        raise DocumentError(problems)
    try:
        odcs = OpenDataContractStandard.model_validate(document.data)
    except ValidationError as error:
        raise DocumentError(validation_problems(document, error)) from error
    reader = _Reader(document, odcs)
    contract = reader.contract()
    if reader.problems or contract is None:
        raise DocumentError(sorted(reader.problems))
    return contract


class _Reader:
    """Turns one ODCS document into a contract and gathers what is wrong with it."""

    def __init__(self, document: Document, odcs: OpenDataContractStandard) -> None:
        self.document = document
        self.odcs = odcs
        self.problems: list[Problem] = []
        self.rules = RuleReader(self)

    def wrong(self, message: str, *keys: str | int) -> None:
        self.problems.append(self.document.problem(message, *keys))

    def choice(self, value: Any, allowed: tuple[str, ...], what: str, *keys: str | int) -> str:
        if value not in allowed:
            self.wrong(f"{what} {value!r} is not known; {did_you_mean(str(value), allowed)}", *keys)
            return allowed[0]
        return str(value)

    def properties(self, properties: list[CustomProperty] | None, allowed: tuple[str, ...], *keys: str | int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for position, item in enumerate(properties or []):
            name = item.property or ""
            if name not in allowed:
                hint = did_you_mean(name, allowed)
                self.wrong(f"unknown customProperty {name!r}; {hint}", *keys, "customProperties", position)
            found[name] = item.value
        return found

    def contract(self) -> Contract | None:
        odcs = self.odcs
        if odcs.apiVersion not in API_VERSIONS:
            self.wrong(f"apiVersion {odcs.apiVersion!r} must be {API_VERSIONS[0]!r}", "apiVersion")
        if odcs.kind != "DataContract":
            self.wrong(f"kind {odcs.kind!r} must be 'DataContract'", "kind")
        name = odcs.name or odcs.id or ""
        if not IDENTIFIER.match(name):
            self.wrong(f"name {name!r} must be lower case letters, digits and _ (at most 59)", "name")
        if not odcs.version:
            self.wrong("version is missing, such as 1.0.0", "version")
        bureau = odcs.domain or ""
        if not IDENTIFIER.match(bureau):
            self.wrong(f"domain {bureau!r} must name the owner bureau, such as registration", "domain")
        if len(odcs.servers or []) != 1:
            self.wrong("servers must hold exactly one server: how the silo sends the data", "servers")
        if len(odcs.schema_ or []) != 1:
            self.wrong("schema must hold exactly one object: the dataset", "schema")
        if self.problems or not odcs.servers or not odcs.schema_:
            return None
        table = odcs.schema_[0]
        layout = self.layout(odcs.servers[0])
        columns = tuple(
            self.column(item, layout, "schema", 0, "properties", position) for position, item in enumerate(table.properties or [])
        )
        if not columns:
            self.wrong("schema has no properties: name its columns", "schema", 0)
            return None
        repeated = {c.name for c in columns if [d.name for d in columns].count(c.name) > 1}
        for item in sorted(repeated):
            self.wrong(f"column {item!r} stands twice", "schema", 0, "properties")
        layout = replace(layout, unpivot=self.unpivot(odcs.servers[0], layout, columns))
        if layout.totals:
            self.totals_column(layout, columns)
        own = self.properties(odcs.customProperties, CONTRACT_PROPERTIES)
        load = self.load(own.get("load"), columns, layout)
        row_rules, table_rules = self.rules.of_table(table, columns)
        description = odcs.description
        return Contract(
            dataset=name,
            bureau=bureau,
            version=str(odcs.version),
            path=self.document.path,
            title_th=table.businessName or name,
            title_en=str(own.get("titleEn") or name.replace("_", " ")),
            description=table.description or (description.purpose if description else "") or "",
            description_th=str(own.get("descriptionTh") or ""),
            grain=table.dataGranularityDescription or "",
            columns=columns,
            layout=layout,
            load=load,
            row_rules=row_rules,
            table_rules=table_rules,
            partition=self.partition(own.get("partition"), columns),
            team=self.team(),
            service_level=self.service_level(),
            gd_catalog=self.gd_catalog(own.get("gdCatalog")),
            tags=tuple(odcs.tags or ()),
            key_dataset=bool(own.get("keyDataset")),
        )

    def custom_line(self, name: str) -> tuple[str | int, ...]:
        for position, item in enumerate(self.odcs.customProperties or []):
            if item.property == name:
                return ("customProperties", position, "value")
        return ("customProperties",)

    def layout(self, server: Server) -> Layout:
        at: tuple[str | int, ...] = ("servers", 0)
        own = self.properties(server.customProperties, SERVER_PROPERTIES, *at)
        kind = self.choice(server.type, tuple(FORMAT_OF_TYPE), "server type", *at, "type")
        stated = server.format or FORMAT_OF_TYPE[kind]
        form = cast(FileFormat, self.choice(stated, FORMATS, "format", *at, "format"))
        encoding = (server.encoding or "utf-8").lower()
        self.choice(encoding, ("utf-8", "cp874"), "encoding", *at, "encoding")
        delimiter = str(own.get("delimiter") or server.delimiter or ",")
        if len(delimiter) != 1:
            self.wrong(f"delimiter {delimiter!r} must be one character", *at, "delimiter")
        needs = {"sql": ("query", "urlEnvironment"), "json_api": ("urlEnvironment",)}.get(form, ())
        for name in needs:
            if not own.get(name):
                self.wrong(f"a server of format {form} needs the customProperty {name!r}", *at)
        if form not in ("json_api", "sql") and not server.path:
            self.wrong(f"a server of format {form} needs a path below the drop zone", *at)
        totals = own.get("totals")
        if totals is not None and not (isinstance(totals, dict) and {"column", "pattern"} == set(totals)):
            self.wrong("totals must be {column: ..., pattern: ...}", *at)
            totals = None
        if totals:
            self.regex(totals["pattern"], "the totals pattern", *at)
        if period := own.get("period"):
            compiled = self.regex(period, "period", *at)
            if compiled and not {"year", "month"} <= set(compiled.groupindex):
                self.wrong("period must name the groups (?P<year>...) and (?P<month>...)", *at)
        paging, size = self.paging(own, form, *at)
        return Layout(
            format=form,
            type=cast(Any, kind),
            path=server.path or "",
            encoding=encoding,
            delimiter=delimiter,
            header=bool(own.get("header", True)),
            quoted=bool(own.get("quoted", False)),
            trailing_delimiter=bool(own.get("trailingDelimiter", False)),
            sheet=None if own.get("sheet") is None else str(own["sheet"]),
            header_rows=self.header_rows(own.get("headerRows", 1), form, *at),
            totals=Totals(totals["column"], totals["pattern"]) if totals else None,
            period=period,
            query=own.get("query"),
            records_path=str(own.get("recordsPath", "" if form == "json" else "data") or ""),
            next_page=str(own.get("nextPage", "next")),
            page_parameter=str(own.get("pageParameter", paging if paging in ("cursor", "offset") else "page")),
            paging=paging,
            page_size=size,
            size_parameter=str(own.get("sizeParameter", "limit")),
            total_path=str(own["totalPath"]) if own.get("totalPath") else None,
            url_environment=own.get("urlEnvironment"),
            token_environment=own.get("tokenEnvironment"),
        )

    def paging(self, own: Mapping[str, Any], form: str, *at: str | int) -> tuple[Paging, int | None]:
        """How an API is paged, and how many records are asked for at once."""
        paging = cast(Paging, self.choice(own.get("paging", "page"), get_args(Paging), "paging", *at))
        for name in ("paging", "pageSize", "sizeParameter", "totalPath"):
            if name in own and form != "json_api":
                self.wrong(f"{name} is for a server of type api", *at)
        size = own.get("pageSize")
        if size is not None and (type(size) is not int or size < 1):
            self.wrong(f"pageSize {size!r} must be a whole number of at least 1", *at)
            size = None
        if paging == "offset" and size is None:
            self.wrong("paging offset needs the customProperty pageSize: how many records are asked for at once", *at)
        return paging, size

    def header_rows(self, value: Any, form: str, *at: str | int) -> int:
        """How many rows of a sheet the header has."""
        if type(value) is not int or not 1 <= value <= MAX_HEADER_ROWS:
            self.wrong(f"headerRows {value!r} must be a whole number from 1 to {MAX_HEADER_ROWS}", *at)
            return 1
        if value > 1 and form not in ("xlsx", "xls", "html"):
            self.wrong("headerRows is for a server of format xlsx, xls or html", *at)
        return value

    def totals_column(self, layout: Layout, columns: tuple[Column, ...]) -> None:
        """Total rows are told by what stands in the file."""
        wanted = layout.totals.column if layout.totals else ""
        names = layout.unpivot.identity if layout.unpivot else [column.name for column in columns if not column.from_file]
        if wanted not in names:
            self.wrong(
                f"totals names {wanted!r}, which is no column of the file; {did_you_mean(str(wanted), names)}", "servers", 0
            )

    def unpivot(self, server: Server, layout: Layout, columns: tuple[Column, ...]) -> Unpivot | None:
        """The server's ``unpivot``; checked against the columns, each of which must come from one place."""
        for position, item in enumerate(server.customProperties or []):
            if item.property == "unpivot":
                value, at = item.value, ("servers", 0, "customProperties", position, "value")
                break
        else:
            return None
        if layout.format != "delimited" or layout.header:
            self.wrong("unpivot is for a delimited file without header line: format delimited, header false", *at)
        wanted = "unpivot must be {identity: [column, ...], value: column, series: [{first: 2, ...}, ...]}"
        if not isinstance(value, dict):
            self.wrong(wanted, *at)
            return None
        self.only_keys(value, ("identity", "value", "series"), "unpivot", *at)
        identity, name, entries = value.get("identity"), value.get("value"), value.get("series")
        if not (isinstance(identity, list) and isinstance(name, str) and isinstance(entries, list) and entries):
            self.wrong(wanted, *at)
            return None
        before = len(self.problems)
        found: list[Series] = []
        field_number = len(identity) + 1
        for place, entry in enumerate(entries):
            series = self.series(entry, *at, "series", place)
            if series is None:
                return None
            if series.first != field_number:
                message = f"first: {series.first} must be {field_number}, the field after those before it: no field is left out"
                self.wrong(message, *at, "series", place, "first")
            field_number = series.first + series.fields
            found.append(series)
        if field_number > MAX_WIDE_FIELDS:
            self.wrong(f"unpivot has {field_number - 1:,} fields; at most {MAX_WIDE_FIELDS:,} are read", *at)
        if len(self.problems) > before:
            return None
        made = Unpivot(tuple(map(str, identity)), name, tuple(found))
        names = [column.name for column in columns]
        sources = [*made.identity, made.value, *made.filled, *(column.name for column in columns if column.from_file)]
        for source in dict.fromkeys(sources):
            if source not in names:
                self.wrong(f"unpivot names unknown column {source!r}; {did_you_mean(source, names)}", *at)
            elif sources.count(source) > 1:
                self.wrong(f"column {source!r} must be filled in one way: identity, value, by a series or fromFile", *at)
        if missing := [column for column in names if column not in sources]:
            self.wrong(f"unpivot fills no column {', '.join(missing)}; name it in identity or a series, or give it fromFile", *at)
        return made if len(self.problems) == before else None

    def series(self, entry: Any, *at: str | int) -> Series | None:
        """One entry of ``unpivot.series``; None where it is no such thing."""
        if not isinstance(entry, dict):
            self.wrong("a series must be {first: 2, repeat: 102, column: age, start: 0, each: {...}, set: {...}}", *at)
            return None
        self.only_keys(entry, ("first", "repeat", "column", "start", "each", "set"), "a series", *at)
        numbers = {"first": entry.get("first"), "repeat": entry.get("repeat", 1), "start": entry.get("start", 0)}
        wrong = [key for key, number in numbers.items() if type(number) is not int or number < (key != "start")]
        for key in wrong:
            self.wrong(f"{key} must be a whole number of at least {int(key != 'start')}, not {numbers[key]!r}", *at)
        if not wrong and numbers["repeat"] > MAX_WIDE_FIELDS:
            self.wrong(f"repeat must be at most {MAX_WIDE_FIELDS:,}", *at, "repeat")
            wrong.append("repeat")
        column, each, fixed = entry.get("column"), entry.get("each"), entry.get("set") or {}
        if column is not None and not isinstance(column, str):
            self.wrong(f"column {column!r} must name a column", *at, "column")
            wrong.append("column")
        if column is None and not wrong and numbers["repeat"] > 1:
            self.wrong("a series that repeats needs column: what counts the repeats", *at)
        values: list[str] = []
        if each is not None:
            values = _texts(each.get("values")) if isinstance(each, dict) else []
            if not values or set(each) != {"column", "values"} or not isinstance(each["column"], str):
                self.wrong("each must be {column: sex, values: [male, female]}, each value a text and once", *at, "each")
                wrong.append("each")
        if not isinstance(fixed, dict) or not all(_texts([item]) for pair in fixed.items() for item in pair):
            self.wrong("set must be a mapping of columns to texts, such as {group: registered}", *at, "set")
            wrong.append("set")
        if wrong:
            return None
        named = [name for name in (column, each["column"] if each else None, *fixed) if name]
        if len(set(named)) < len(named):
            self.wrong("a series fills a column in two ways", *at)
        return Series(
            **numbers,
            column=column,
            each=each["column"] if each else None,
            values=tuple(values),
            set=tuple((str(name), str(text)) for name, text in fixed.items()),
        )

    def only_keys(self, value: Mapping[str, Any], allowed: tuple[str, ...], what: str, *at: str | int) -> None:
        for key in value:
            if key not in allowed:
                self.wrong(f"unknown key {key!r} of {what}; {did_you_mean(str(key), allowed)}", *at, key)

    def regex(self, pattern: Any, what: str, *keys: str | int) -> re.Pattern[str] | None:
        try:
            return re.compile(str(pattern))
        except re.error as error:
            self.wrong(f"{what} {pattern!r} is not a regular expression: {error}", *keys)
            return None

    def column(self, item: SchemaProperty, layout: Layout, *at: str | int) -> Column:
        own = self.properties(item.customProperties, COLUMN_PROPERTIES, *at)
        name = item.name or ""
        if not IDENTIFIER.match(name):
            self.wrong(f"column name {name!r} must be lower case letters, digits and _ (at most 59)", *at, "name")
        logical = self.choice(item.logicalType, tuple(PARSES), "logicalType", *at, "logicalType")
        parse = self.choice(own.get("parse", PARSES[logical][0]), PARSES[logical], f"parse of a {logical}", *at)
        physical = (item.physicalType or PHYSICAL_TYPES[logical][0]).lower()
        if physical not in PHYSICAL_TYPES[logical]:
            known = ", ".join(PHYSICAL_TYPES[logical])
            self.wrong(
                f"physicalType {physical!r} does not fit logicalType {logical}; use {known}",
                *at,
                "physicalType",
            )
        options = item.logicalTypeOptions or {}
        allowed = ("minLength", "maxLength", "pattern", "minimum", "maximum", "format")
        for key in options:
            if key not in allowed:
                self.wrong(f"unknown option {key!r}; {did_you_mean(key, allowed)}", *at, "logicalTypeOptions", key)
        if options.get("pattern"):
            self.regex(options["pattern"], "pattern", *at, "logicalTypeOptions", "pattern")
        position = own.get("position")
        if layout.format == "fixed_width" and not _is_position(position):
            self.wrong(f"column {name!r} of a fixed-width file needs position: [first byte from 1, length]", *at)
            position = None
        rules = self.rules.of_column(item, name, *at)
        if item.primaryKey and item.primaryKeyPosition is None:
            self.wrong(f"key column {name!r} needs primaryKeyPosition", *at)
        if item.classification is None:
            self.wrong(f"column {name!r} has no classification", *at)
        return Column(
            name=name,
            logical_type=logical,
            physical_type=physical,
            parse=parse,
            title=item.physicalName or name,
            titles=tuple(str(title) for title in own.get("titles") or ()),
            business_name=item.businessName or "",
            description=item.description or "",
            description_th=str(own.get("descriptionTh") or ""),
            required=bool(item.required) or rules.required,
            key_position=item.primaryKeyPosition if item.primaryKey else None,
            classification=cast(
                Classification,
                self.choice(
                    item.classification or "internal",
                    get_args(Classification),
                    "classification",
                    *at,
                    "classification",
                ),
            ),
            pdpa_role=cast(PdpaRole, self.choice(own.get("pdpaRole", "none"), get_args(PdpaRole), "pdpaRole", *at)),
            lawful_basis=str(own.get("lawfulBasis") or ""),
            purpose=str(own.get("purpose") or ""),
            null_values=(*(str(value) for value in own.get("nullValues") or ()), *rules.null_values),
            position=(int(position[0]), int(position[1])) if position else None,
            partial=bool(own.get("partial", False)),
            min_length=options.get("minLength"),
            max_length=options.get("maxLength"),
            pattern=options.get("pattern") or rules.pattern,
            minimum=options.get("minimum"),
            maximum=options.get("maximum"),
            valid_values=rules.valid_values,
            national=rules.national,
            reference=self.reference(item, own, *at),
            renamed_from=own.get("renamedFrom"),
            from_file=self.from_file(own, layout, *at),
        )

    def from_file(self, own: Mapping[str, Any], layout: Layout, *at: str | int) -> Literal["period"] | None:
        if "fromFile" not in own:
            return None
        self.choice(own["fromFile"], ("period",), "fromFile", *at)
        if not layout.period:
            self.wrong("fromFile: period needs the server's customProperty period: the pattern of the file's name", *at)
        return "period"

    def reference(self, item: SchemaProperty, own: Mapping[str, Any], *at: str | int) -> Reference | None:
        links = item.relationships or []
        if not links:
            return None
        target = links[0].to
        if len(links) > 1 or not isinstance(target, str) or target.count(".") != 1:
            self.wrong("relationships must hold one foreignKey, to: dataset.column", *at, "relationships")
            return None
        dataset, column = target.split(".")
        return Reference(dataset, column, int(own.get("referenceLength") or 0))

    def load(self, value: Any, columns: tuple[Column, ...], layout: Layout) -> Load:
        at = self.custom_line("load")
        if not isinstance(value, dict):
            self.wrong("customProperty load is missing, such as {mode: replace, duplicates: first}", *at)
            return Load()
        allowed = ("mode", "scope", "duplicates", "maxRejectedPercent", "maxShrinkPercent")
        for key in value:
            if key not in allowed:
                self.wrong(f"unknown key {key!r} of load; {did_you_mean(str(key), allowed)}", *at, key)
        mode = cast(LoadMode, self.choice(value.get("mode"), get_args(LoadMode), "load mode", *at, "mode"))
        keep = cast(
            Keep,
            self.choice(value.get("duplicates", "first"), get_args(Keep), "duplicates", *at, "duplicates"),
        )
        names = {name for column in columns for name, _ in column.table_columns}
        scope = []
        for part in value.get("scope") or []:
            if not isinstance(part, dict) or part.get("column") not in names:
                self.wrong(f"scope {part!r} must be a mapping with a column of the dataset", *at, "scope")
                continue
            granularity = self.choice(part.get("granularity", "value"), ("value", "month", "year"), "granularity", *at, "scope")
            scope.append(ScopePart(part["column"], cast(Any, granularity)))
        if mode == "replace_scope" and not scope:
            self.wrong("mode replace_scope needs scope: [{column: ...}]", *at)
        if mode in ("append", "history") and not any(column.key_position for column in columns):
            self.wrong(f"mode {mode} needs a primary key", *at)
        if mode == "history" and layout.path and not layout.period:
            self.wrong("mode history needs the server's customProperty period: the day that a file is of stands in its name", *at)
        return Load(
            mode=mode,
            scope=tuple(scope),
            duplicates=keep,
            max_rejected_percent=float(value.get("maxRejectedPercent", 5.0)),
            max_shrink_percent=float(value.get("maxShrinkPercent", 50.0)),
        )

    def partition(self, value: Any, columns: tuple[Column, ...]) -> Partition | None:
        if value is None:
            return None
        at = self.custom_line("partition")
        names = [column.name for column in columns if column.logical_type == "date"]
        if not isinstance(value, dict) or value.get("column") not in names:
            self.wrong(f"partition must name a date column; {did_you_mean(str(value), names)}", *at)
            return None
        self.choice(value.get("granularity", "month"), ("month",), "granularity", *at)
        start = value.get("start")
        try:
            start = start if isinstance(start, date) else date.fromisoformat(str(start))
        except ValueError:
            self.wrong(f"start {start!r} must be a date such as 2025-10-01", *at)
            return None
        return Partition(value["column"], start)

    def team(self) -> tuple[TeamMember, ...]:
        team = self.odcs.team
        members = team.members if isinstance(team, Team) else team
        found = tuple(TeamMember(member.username or member.name or "", member.role or "") for member in members or ())
        if not any("steward" in member.role for member in found):
            self.wrong("team names no steward: add a member with role technical_steward", "team")
        return found

    def service_level(self) -> ServiceLevel:
        days, text, years, latency = 0, "", None, None
        for item in self.odcs.slaProperties or []:
            if item.property == "frequency" and item.value is not None:
                unit = str(item.unit or "d")[0].lower()
                days = int(float(item.value) * UNIT_DAYS.get(unit, 1))
                text = f"{item.value} {item.unit}"
            elif item.property == "retention" and item.value is not None:
                years = int(float(item.value))
            elif item.property == "latency" and item.value is not None:
                latency = int(float(item.value) * UNIT_DAYS.get(str(item.unit or "d")[0].lower(), 1))
        return ServiceLevel(days, text, years, latency)

    def gd_catalog(self, value: Any) -> dict[str, Any]:
        at = self.custom_line("gdCatalog")
        if not isinstance(value, dict):
            self.wrong("customProperty gdCatalog is missing: the 14 items of the data catalogue", *at)
            return {}
        missing = [key for key in GD_CATALOG_KEYS if value.get(key) in (None, "", [])]
        if missing:
            self.wrong(f"gdCatalog lacks {', '.join(missing)}", *at)
        return dict(value)


def _texts(value: Any) -> list[str]:
    """The texts of a YAML list; none where it holds something else (``no`` is not a text in YAML) or one twice."""
    if not isinstance(value, list) or not all(isinstance(item, str | int) and not isinstance(item, bool) for item in value):
        return []
    texts = list(map(str, value))
    return texts if len(set(texts)) == len(texts) else []


def _is_position(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and n > 0 for n in value)
