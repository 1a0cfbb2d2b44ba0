"""Reading a contract's quality rules: which are enforced on each row, which are measured after the load.

What ODCS has a metric for is said with it (``nullValues``, ``invalidValues``, ``duplicateValues``, ``rowCount``, ``sql``); the
few that it lacks are ``type: custom, engine: dopa``. Whether an expression is SQL over columns that exist is told by
``dopa check`` (:mod:`dopa_pipelines.quality.rules`): that takes a parser, which reading does without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from open_data_contract_standard.model import DataQuality, SchemaObject, SchemaProperty

from dopa_pipelines.contracts.model import Column, Dimension, Limit, RowRule, RuleKind, Severity, TableRule
from dopa_pipelines.documents import did_you_mean

if TYPE_CHECKING:
    from open_data_contract_standard.model import CustomProperty

    from dopa_pipelines.documents import Document

QUALITY_PROPERTIES = ("nationalDimension", "indicator", "reason", "descriptionTh")
DIMENSIONS = (
    "accuracy", "completeness", "conformity", "consistency", "coverage", "timeliness", "uniqueness",
)  # fmt: skip
NATIONAL_DIMENSIONS = ("accuracy_completeness", "consistency", "relevancy", "timeliness", "availability")
INDICATORS = (5, 6, 2, 4, 5)
"""How many indicators each national dimension has (มรด. 5:2565)."""
SEVERITIES: dict[str, Severity] = {"reject": "reject", "block": "block", "warn": "warn", "warning": "warn"}
"""What a contract may call a severity; ``error`` rejects the row where a row is judged, and blocks otherwise."""

RULE_NAME = re.compile(r"^[a-z][a-z0-9_]{0,99}$")
ENFORCED = {
    "required": "required", "format": "pattern", "range": "range", "values": "values", "reference": "reference",
}  # fmt: skip
"""Ends of the names of a column's enforced rules (``sex_values``), and their kind."""
RESERVED = (
    *ENFORCED, "unique", "key_unique", "lines_readable", "period_matches", "schema", "contract", "reconciliation", "unusual",
    "row_rules", "delivery_accepted",
)  # fmt: skip
"""Names of what is checked of every dataset."""

METRICS: dict[str, RuleKind] = {
    "nullValues": "required", "missingValues": "required", "invalidValues": "values", "duplicateValues": "unique",
    "rowCount": "rows",
}  # fmt: skip
_BOUNDS = {
    "mustBe": "equal", "mustNotBe": "not_equal", "mustBeGreaterThan": "above", "mustBeGreaterOrEqualTo": "at_least",
    "mustBeLessThan": "below", "mustBeLessOrEqualTo": "at_most", "mustBeBetween": "between", "mustNotBeBetween": "outside",
}  # fmt: skip
_UNITS = {"rows": "rows", "row": "rows", "percent": "percent", "%": "percent", "d": "days", "days": "days", "number": "number"}
NO_ROW = Limit(equal=0)
INDICATOR_OF: dict[str, str] = {
    "required": "1.3", "range": "1.2", "row": "2.5", "distribution": "1.2", "volume": "1.2", "rows": "1.2", "unique": "2.3",
    "pattern": "2.2", "values": "2.5", "reference": "2.4", "compare": "2.4", "total": "2.4", "agreement": "2.4", "schema": "2.1",
    "freshness": "4.1", "sql": "2.5",
}  # fmt: skip
"""The indicator of มรด. 5:2565 that a kind of rule speaks to, where the contract names none and the dimension is the same."""


@dataclass(frozen=True)
class Engine:
    """A rule of the engine ``dopa``: its kind, the keys it takes, those it needs, and what must hold if nothing is said."""

    kind: RuleKind
    keys: tuple[str, ...]
    needs: tuple[str, ...] = ()
    limit: Limit | None = NO_ROW


ENGINE: dict[str, Engine] = {
    "condition": Engine("compare", ("expression", "where", "column"), ("expression",)),
    "range": Engine("range", ("column", "minimum", "maximum", "where"), ("column",)),
    "reference": Engine("reference", ("column", "to", "length", "where"), ("column", "to")),
    "compare": Engine("compare", ("dataset", "match", "expression", "where"), ("dataset", "match", "expression")),
    "total": Engine("total", ("by", "columns", "whole", "parts", "where"), ("by", "columns", "whole", "parts")),
    "freshness": Engine("freshness", ("column",), (), None),
    "volume": Engine("volume", ("deliveries", "atLeast"), (), None),
    "change": Engine("rows", (), (), None),
    "distribution": Engine(
        "distribution", ("column", "values", "bins", "results"), ("column",), Limit(at_most=0.2, unit="number")
    ),
    "schema": Engine("schema", ()),
    "agreement": Engine("agreement", ("here", "there", "dataset", "tolerance"), ("here", "there", "dataset")),
}
_UNIT_OF_KIND = {"freshness": "days", "volume": "number", "distribution": "number"}
_SIDE = ("value", "by", "where")


@dataclass(frozen=True)
class ColumnRules:
    """What a column's rules ask of each row."""

    required: bool
    valid_values: tuple[str, ...]
    pattern: str | None
    null_values: tuple[str, ...]
    national: tuple[tuple[str, Dimension, str | None], ...]


class Reader(Protocol):
    """The reader of the whole contract, which gathers what is wrong."""

    document: Document

    def wrong(self, message: str, *keys: str | int) -> None: ...
    def choice(self, value: Any, allowed: tuple[str, ...], what: str, *keys: str | int) -> str: ...
    def properties(
        self, properties: list[CustomProperty] | None, allowed: tuple[str, ...], *keys: str | int
    ) -> dict[str, Any]: ...
    def regex(self, pattern: Any, what: str, *keys: str | int) -> re.Pattern[str] | None: ...
    def only_keys(self, value: Mapping[str, Any], allowed: tuple[str, ...], what: str, *at: str | int) -> None: ...


class RuleReader:
    """Reads the ``quality`` of columns, then that of the table."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.measured: list[tuple[TableRule, tuple[str | int, ...]]] = []
        """Rules of columns that reject nothing, with their place."""

    def of_column(self, item: SchemaProperty, column: str, *at: str | int) -> ColumnRules:
        """What is enforced; rules with another severity or another limit than no row are measured on the table."""
        required, pattern = False, None
        valid = tuple(str(entry.value) for entry in item.enum or ())
        null_values: list[str] = []
        national: list[tuple[str, Dimension, str | None]] = []
        for position, rule in enumerate(item.quality or []):
            keys = (*at, "quality", position)
            facts = self.facts(rule, *keys)
            severity = self.severity(rule, "reject", *keys)
            limit = self.limit(rule, NO_ROW, *keys)
            arguments = rule.arguments or {}
            metric = rule.metric or ""
            if metric not in METRICS or metric == "rowCount":
                self.reader.wrong(
                    f"rule of metric {rule.metric!r} is not known on a column; use nullValues, missingValues, invalidValues,"
                    " duplicateValues, or a rule of the table",
                    *keys,
                )
                continue
            texts = tuple(str(value) for value in arguments.get("validValues") or ())
            form = arguments.get("pattern")
            if metric == "invalidValues":
                if not (texts or valid) and not form:
                    self.reader.wrong("invalidValues needs arguments: {validValues: [...]} or {pattern: ...}", *keys)
                if form:
                    self.reader.regex(form, "pattern", *keys)
            missing = tuple(str(value) for value in arguments.get("missingValues") or ())
            if metric != "duplicateValues" and severity == "reject" and limit == NO_ROW:
                if metric == "invalidValues":
                    valid, pattern = texts or valid, form or pattern
                    kinds = [kind for kind, there in (("values", texts or not form), ("format", form)) if there]
                else:
                    required = True
                    null_values += missing
                    kinds = ["required"]
                national += [(kind, facts[0], facts[1]) for kind in kinds]
                continue
            if metric == "duplicateValues" and rule.severity in (None, "error"):
                severity = "block"  # a repeated value rejects no row: which of them is right is not known
            name = rule.name or f"{column}_{_snake(metric)}"
            listed = texts or (valid if metric == "invalidValues" and not form else ())
            made = self.measure(
                rule, METRICS[metric], name, facts, severity, limit, keys, column=column,
                arguments={"valid": listed, "pattern": form, "missing": missing},
            )  # fmt: skip
            self.measured.append((made, keys))
        return ColumnRules(required, valid, pattern, tuple(null_values), tuple(national))

    def of_table(self, table: SchemaObject, columns: tuple[Column, ...]) -> tuple[tuple[RowRule, ...], tuple[TableRule, ...]]:
        """Conditions on each row, and what is measured after the load."""
        rows: list[tuple[RowRule, tuple[str | int, ...]]] = []
        tables = list(self.measured)
        names = [name for column in columns for name, _ in column.table_columns]
        key = {column.name for column in columns if column.key_position is not None}
        for position, rule in enumerate(table.quality or []):
            keys: tuple[str | int, ...] = ("schema", 0, "quality", position)
            facts = self.facts(rule, *keys)
            name = rule.name or ""
            if rule.type == "custom" and rule.engine == "polars":
                if not isinstance(rule.implementation, str) or not name:
                    self.reader.wrong("a row rule needs name, engine: polars and implementation: an expression", *keys)
                    continue
                if self.severity(rule, "reject", *keys) != "reject":
                    self.reader.wrong(
                        "a rule of engine polars rejects rows; to only count them use engine: dopa and implementation:"
                        " {rule: condition, expression: ...}",
                        *keys,
                    )
                rows.append(
                    (
                        RowRule(
                            name, rule.implementation, rule.description or "", facts[2], facts[0], _indicator("row", facts),
                            self.reader.document.line(*keys),
                        ),
                        keys,
                    )
                )  # fmt: skip
            elif rule.type == "custom" and rule.engine == "dopa":
                if found := self.engine_rule(rule, columns, facts, keys):
                    tables.append((found, keys))
            elif rule.type == "custom":
                self.reader.wrong(f"engine {rule.engine!r} is not known; use polars (each row) or dopa (the table)", *keys)
            elif rule.type == "sql":
                limit = self.limit(rule, None, *keys)
                if not rule.query or not name or limit is None:
                    self.reader.wrong("a table rule needs name, query and what its number must be, such as mustBe: 0", *keys)
                    continue
                severity = self.severity(rule, "block", *keys)
                tables.append(
                    (self.measure(rule, "sql", name, facts, severity, limit, keys, arguments={"query": rule.query}), keys)
                )
            elif rule.metric == "duplicateValues":
                wanted = [str(item) for item in (rule.arguments or {}).get("properties") or ()]
                self.known(wanted, names, "duplicateValues", *keys)
                if not wanted:
                    self.reader.wrong("duplicateValues needs arguments: {properties: [column, ...]}", *keys)
                elif set(wanted) != key:
                    severity = self.severity(rule, "block", *keys)
                    limit = self.limit(rule, NO_ROW, *keys) or NO_ROW
                    made = name or f"{'_'.join(wanted)}_unique"
                    arguments = {"columns": tuple(wanted)}
                    tables.append((self.measure(rule, "unique", made, facts, severity, limit, keys, arguments=arguments), keys))
            elif rule.metric == "rowCount":
                limit = self.limit(rule, None, *keys)
                if limit is None:
                    self.reader.wrong("rowCount needs what it must be, such as mustBeGreaterThan: 0", *keys)
                    continue
                severity = self.severity(rule, "block", *keys)
                tables.append((self.measure(rule, "rows", name or "row_count", facts, severity, limit, keys), keys))
            else:
                self.reader.wrong(
                    "a rule on the table is of type custom (engine polars or dopa) or sql, or of metric duplicateValues or"
                    " rowCount",
                    *keys,
                )
        self.names([(rule.name, keys) for rule, keys in rows] + [(rule.name, keys) for rule, keys in tables], columns)
        return tuple(rule for rule, _ in rows), tuple(rule for rule, _ in tables)

    def engine_rule(
        self,
        rule: DataQuality,
        columns: tuple[Column, ...],
        facts: tuple[Dimension, str | None, str],
        keys: tuple[str | int, ...],
    ) -> TableRule | None:
        """A rule of ``engine: dopa``; None where it is wrong."""
        at = (*keys, "implementation")
        given = rule.implementation
        if not isinstance(given, dict) or not rule.name:
            self.reader.wrong("a rule of engine dopa needs name and implementation: {rule: freshness, ...}", *keys)
            return None
        sort = given.get("rule")
        engine = ENGINE.get(str(sort))
        if engine is None:
            self.reader.wrong(f"rule {sort!r} is not known; {did_you_mean(str(sort), ENGINE)}", *at, "rule")
            return None
        self.reader.only_keys(given, ("rule", *engine.keys, *_BOUNDS), f"rule {sort}", *at)
        if stated := [name for name in _BOUNDS if getattr(rule, name) is not None]:
            # ODCS has them for its own metrics and for SQL only.
            self.reader.wrong(f"{stated[0]} of a rule of type custom belongs into its implementation", *keys, stated[0])
            return None
        missing = [name for name in engine.needs if given.get(name) in (None, "", [], {})]
        if missing:
            self.reader.wrong(f"rule {sort} needs {', '.join(missing)}; docs/contracts.md shows one", *at)
            return None
        limit = self.limit(rule, engine.limit, *at, unit=_UNIT_OF_KIND.get(engine.kind), bounds=given)
        if sort == "change" and limit is not None and rule.unit is None:
            limit = Limit(**{**vars(limit), "unit": "percent"})
        if limit is None:
            self.reader.wrong(f"rule {sort} needs what its number must be, such as mustBeLessOrEqualTo: 2", *at)
            return None
        if self.severity(rule, "block", *keys) == "reject":
            self.reader.wrong("a rule of engine dopa rejects no row: severity is block or warn", *keys, "severity")
            return None
        arguments = self.arguments(str(sort), given, [name for each in columns for name, _ in each.table_columns], *at)
        if arguments is None:
            return None
        column = arguments.get("column")
        listed = (
            arguments.get("values") or arguments.get("bins") or any(item.name == column and item.valid_values for item in columns)
        )
        if sort == "distribution" and not listed:
            self.reader.wrong(f"column {column!r} has no list of values: name the values, or bins of a number or date", *at)
            return None
        severity = self.severity(rule, "block", *keys)
        arguments["rule"] = sort
        return self.measure(rule, engine.kind, rule.name, facts, severity, limit, keys, column=column, arguments=arguments)

    def arguments(self, sort: str, given: Mapping[str, Any], names: list[str], *at: str | int) -> dict[str, Any] | None:
        """The arguments of a rule, checked; None where they are wrong."""
        before = len(getattr(self.reader, "problems", ()))
        found: dict[str, Any] = {key: value for key, value in given.items() if key != "rule" and key not in _BOUNDS}
        if column := found.get("column"):
            self.known([str(column)], names, f"rule {sort}", *at)
        for key in ("expression", "where", "whole", "parts"):
            if key in found and not isinstance(found[key], str):
                self.reader.wrong(f"{key} must be a condition over the columns, as a text", *at, key)
        if sort == "range" and found.get("minimum") is None and found.get("maximum") is None:
            self.reader.wrong("rule range needs minimum, maximum or both", *at)
        if sort == "reference":
            to = str(found.pop("to"))
            if to.count(".") != 1:
                self.reader.wrong(f"to {to!r} must be dataset.column", *at, "to")
            else:
                found["dataset"], other = to.split(".")
                found["match"] = {str(column): other}
            if type(found.setdefault("length", 0)) is not int or found["length"] < 0:
                self.reader.wrong(f"length {found['length']!r} must be a number of characters", *at, "length")
        if sort == "compare":
            if not isinstance(found["match"], dict):
                self.reader.wrong("match must be {own column: column of the other dataset}", *at, "match")
            else:
                self.known(list(map(str, found["match"])), names, "match", *at)
        if sort == "total":
            for key in ("by", "columns"):
                if not isinstance(found[key], list):
                    self.reader.wrong(f"{key} must be a list of columns", *at, key)
                else:
                    self.known(list(map(str, found[key])), names, key, *at)
        if sort == "volume":
            for key, default in (("deliveries", 12), ("atLeast", 3)):
                self.whole(found, key, default, *at)
        if sort == "distribution":
            self.whole(found, "results", 12, *at)
            bins, values = found.get("bins"), found.get("values")
            if bins is not None and (not isinstance(bins, list) or sorted(bins) != bins or len(set(bins)) < len(bins)):
                self.reader.wrong("bins must be limits in rising order, such as [18, 60]", *at, "bins")
            if values is not None and not isinstance(values, list):
                self.reader.wrong("values must be a list of texts", *at, "values")
        if sort == "agreement":
            for side in ("here", "there"):
                self.side(found[side], side, *at)
            here, there = found["here"], found["there"]
            if isinstance(here, dict) and isinstance(there, dict) and len(here.get("by") or ()) != len(there.get("by") or ()):
                self.reader.wrong("here and there must be grouped by as many expressions", *at)
            tolerance = found.setdefault("tolerance", 0)
            if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance <= 100:
                self.reader.wrong(f"tolerance {tolerance!r} must be a percentage from 0 to 100", *at, "tolerance")
        return found if len(getattr(self.reader, "problems", ())) == before else None

    def side(self, side: Any, name: str, *at: str | int) -> None:
        if not isinstance(side, dict) or not isinstance(side.get("value"), str):
            self.reader.wrong(f"{name} must be {{value: count(*), by: [...], where: ...}}", *at, name)
            return
        self.reader.only_keys(side, _SIDE, name, *at, name)
        if not isinstance(side.get("by") or [], list):
            self.reader.wrong("by must be a list of expressions", *at, name, "by")

    def whole(self, found: dict[str, Any], key: str, default: int, *at: str | int) -> None:
        value = found.setdefault(key, default)
        if type(value) is not int or value < 1:
            self.reader.wrong(f"{key} {value!r} must be a whole number of at least 1", *at, key)

    def measure(
        self,
        rule: DataQuality,
        kind: RuleKind,
        name: str,
        facts: tuple[Dimension, str | None, str],
        severity: Severity,
        limit: Limit | None,
        keys: tuple[str | int, ...],
        *,
        column: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> TableRule:
        return TableRule(
            name=name, kind=kind, limit=limit or NO_ROW, severity=severity, column=column, description=rule.description or "",
            description_th=facts[2], dimension=facts[0], indicator=_indicator(kind, facts), arguments=arguments or {},
            line=self.reader.document.line(*keys),
        )  # fmt: skip

    def facts(self, rule: DataQuality, *at: str | int) -> tuple[Dimension, str | None, str]:
        """National dimension, indicator and Thai description."""
        own = self.reader.properties(rule.customProperties, QUALITY_PROPERTIES, *at)
        self.reader.choice(rule.dimension, DIMENSIONS, "dimension", *at, "dimension")
        dimension = self.reader.choice(own.get("nationalDimension"), NATIONAL_DIMENSIONS, "nationalDimension", *at)
        indicator = own.get("indicator")
        if indicator is not None:
            place = NATIONAL_DIMENSIONS.index(dimension)
            known = [f"{place + 1}.{number}" for number in range(1, INDICATORS[place] + 1)]
            indicator = str(indicator)
            if indicator not in known:
                self.reader.wrong(
                    f"indicator {indicator!r} is none of {dimension}; known: {', '.join(known)} (write it as a text)", *at
                )
        return cast(Dimension, dimension), indicator, str(own.get("descriptionTh") or "")

    def severity(self, rule: DataQuality, error: Severity, *at: str | int) -> Severity:
        """``error``: what that word, and nothing, mean here."""
        given = rule.severity or "error"
        if given == "error":
            return error
        found = SEVERITIES.get(given)
        if found is None:
            self.reader.wrong(f"severity {given!r} is not known; {did_you_mean(given, (*SEVERITIES, 'error'))}", *at, "severity")
            return error
        if found == "reject" and error == "block":
            self.reader.wrong("this rule judges the table and can reject no row: severity is block or warn", *at, "severity")
        return found

    def limit(
        self,
        rule: DataQuality,
        default: Limit | None,
        *at: str | int,
        unit: str | None = None,
        bounds: Mapping[str, Any] | None = None,
    ) -> Limit | None:
        """The bounds that the rule (or ``bounds``) states; ``default`` where it states none. A wrong one is told and left out."""
        found: dict[str, Any] = {}
        for key, name in _BOUNDS.items():
            value = getattr(rule, key) if bounds is None else bounds.get(key)
            if value is None:
                continue
            pair = name in ("between", "outside")
            numbers = value if pair and isinstance(value, list) else [value]
            if len(numbers) != 1 + pair or any(
                isinstance(number, bool) or not isinstance(number, int | float) for number in numbers
            ):
                self.reader.wrong(f"{key} {value!r} must be {'two numbers' if pair else 'a number'}", *at, key)
                continue
            if pair and value[0] > value[1]:
                self.reader.wrong(f"{key} {value!r} must name the smaller number first", *at, key)
                continue
            found[name] = tuple(float(number) for number in value) if pair else float(value)
        said = rule.unit or unit
        if said is not None and said not in _UNITS:
            self.reader.wrong(f"unit {said!r} is not known; {did_you_mean(said, _UNITS)}", *at, "unit")
            said = None
        if not found:
            return default
        return Limit(**found, unit=cast(Any, _UNITS[said or "rows"]))

    def known(self, wanted: list[str], names: list[str], what: str, *at: str | int) -> None:
        for name in wanted:
            if name not in names:
                self.reader.wrong(f"{what} names unknown column {name!r}; {did_you_mean(name, names)}", *at)

    def names(self, named: list[tuple[str, tuple[str | int, ...]]], columns: tuple[Column, ...]) -> None:
        """Each rule's name must tell it from the others, and from those that enforcement has itself."""
        taken = {*RESERVED, *(f"{column.name}_{end}" for column in columns for end in ENFORCED)}
        seen: set[str] = set()
        for name, keys in named:
            if not RULE_NAME.match(name):
                self.reader.wrong(f"rule name {name!r} must be lower case letters, digits and _ (at most 100)", *keys, "name")
            elif name in taken:
                self.reader.wrong(f"{name!r} is the name of a rule that every such dataset has; choose another", *keys, "name")
            elif name in seen:
                self.reader.wrong(f"two rules are called {name!r}; each needs a name of its own", *keys, "name")
            seen.add(name)


def _indicator(kind: RuleKind, facts: tuple[Dimension, str | None, str]) -> str | None:
    """The indicator that the rule states, or that of its kind if it is one of the stated dimension."""
    dimension, stated, _ = facts
    usual = INDICATOR_OF.get(kind)
    return stated or (usual if usual and usual[0] == str(NATIONAL_DIMENSIONS.index(dimension) + 1) else None)


def _snake(text: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda found: f"_{found[1].lower()}", text)
