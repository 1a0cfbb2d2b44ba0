"""Measuring the rules of one dataset in as few scans of its table as can be.

Conditions on single rows, ranges, shares and the newest date of a table are filters of one ``select`` over it; repeated values
are grouping sets of one other; rules that join the same dataset on the same columns share the join; totals of the same groups
share the grouping. Only rules of type ``sql`` are queries of their own. What is known without the table (freshness of deliveries,
volume) is read from ``ops.delivery`` and from earlier results.

Nothing is kept here, and nothing written: see :mod:`dopa_pipelines.quality.checking`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from typing import Any

import psycopg
from psycopg import sql

from dopa_pipelines.contracts import Contract
from dopa_pipelines.contracts.model import TableRule
from dopa_pipelines.quality import store
from dopa_pipelines.quality.store import Connection, Result
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.warehouse.work import without_values

SAMPLE_ROWS = 5
WORK_MEMORY = "128MB"
"""For the groups of a table of millions of rows; PostgreSQL's own default writes them to disk."""


@dataclass
class Outcome:
    """What came of one rule. ``result`` is None where there was nothing to measure; ``note`` then says why."""

    rule: TableRule
    result: Result | None = None
    note: str | None = None


@dataclass(frozen=True)
class _Scan:
    """What a rule needs of the shared scan: SQL of each number, and what is made of them (the first is the count of all rows)."""

    rule: TableRule
    numbers: tuple[str, ...]
    take: Callable[[int, Sequence[Any]], Result]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """A value as SQL: numbers as they are, all else as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    return "'" + text.replace("'", "''") + "'" if "\\" not in text else "e'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def measure(connection: Connection, contract: Contract, rules: Iterable[TableRule], *, write: int | None = None) -> list[Outcome]:
    """Measure rules of one dataset on its table as it is now; outcomes in the order of the rules.

    ``write``: the latest write of the table, so that its earlier results are told from those of another look at the same rows.
    A rule that cannot be run has failed, and its result says why; the others are measured all the same.
    """
    return _Measure(connection, contract, list(rules), write).run()


def explain(contract: Contract, rules: Iterable[TableRule]) -> list[str]:
    """The shared statements that :func:`measure` would run, as far as they do not depend on the warehouse."""
    work = _Measure(None, contract, list(rules), None)
    found = []
    if scan := work.scan():
        found.append(scan[0])
    if groups := work.groups():
        found.append(groups[0])
    found += [work.join(key, members, unique=False)[0] for key, members in work.joins().items()]
    found += [work.totals(by, members)[0] for by, members in work.total_groups().items()]
    return found


class _Measure:
    def __init__(self, connection: Connection | None, contract: Contract, rules: list[TableRule], write: int | None) -> None:
        self.maybe = connection
        self.contract = contract
        self.rules = rules
        self.write = write
        self.found: dict[str, Outcome] = {}
        self.table = f"raw.{quoted(contract.dataset)}"
        self.believed = "_superseded_by is null and _valid_to is null" if contract.has_history else "true"
        self.types = dict(contract.table_columns)

    @property
    def connection(self) -> Connection:
        assert self.maybe is not None
        return self.maybe

    def run(self) -> list[Outcome]:
        with self.connection.transaction():
            self.connection.execute(f"set local work_mem = '{WORK_MEMORY}'")
            # Compiling dozens of filters takes longer than it saves.
            self.connection.execute("set local jit = off")
            self._shared()
            for rule in self.rules:
                if rule.name not in self.found:
                    self._alone(rule)
            self._samples()
        return [self.found[rule.name] for rule in self.rules]

    # What is shared

    def _shared(self) -> None:
        if scan := self.scan():
            text, members = scan
            self._try(text, [member.rule for member in members], lambda row: self._take_scan(row, members))
        if groups := self.groups():
            text, unique = groups
            self._try(text, unique, lambda rows: self._take_groups(rows, unique), all_rows=True)
        for key, rules in self.joins().items():
            if not self._is_loaded(key[0]):
                for rule in rules:
                    self.found[rule.name] = Outcome(rule, note=f"not checked: raw.{key[0]} holds nothing yet")
                continue
            text, _ = self.join(key, rules, unique=self._is_unique(key))
            self._try(text, rules, lambda row, rules=rules: self._take_pairs(row, rules))  # type: ignore[misc]
        for by, rules in self.total_groups().items():
            text, _ = self.totals(by, rules)
            self._try(text, rules, lambda row, rules=rules: self._take_pairs(row, rules))  # type: ignore[misc]

    def _try(self, text: str, rules: list[TableRule], take: Callable[[Any], None], *, all_rows: bool = False) -> None:
        """Run one statement for all its rules. Where it fails, each is run by itself, so that only the wrong ones fail."""
        try:
            with self.connection.transaction():
                cursor = self.connection.execute(text.encode())
                found = cursor.fetchall() if all_rows else cursor.fetchone()
        except psycopg.Error as error:
            if len(rules) == 1:
                self._fail(rules[0], error)
                return
            for rule in rules:
                alone = _Measure(self.connection, self.contract, [rule], self.write)
                alone._shared()
                self.found |= alone.found
            return
        take(found)

    def _fail(self, rule: TableRule, error: psycopg.Error) -> None:
        problem = without_values(error.diag.message_primary or str(error))
        where = f"{self.contract.path.name}:{rule.line}"
        self.found[rule.name] = Outcome(
            rule, self._result(rule, False, detail={"problem": f"{where}: the rule {rule.name!r} cannot be run: {problem}"})
        )

    # One scan of the table

    def scan(self) -> tuple[str, list[_Scan]] | None:
        members = [member for rule in self.rules if (member := self._of_scan(rule))]
        if not members:
            return None
        numbers = ["count(*)", *(number for member in members for number in member.numbers)]
        listed = ",\n    ".join(numbers)
        return f"select\n    {listed}\nfrom {self.table} as this\nwhere {self.believed}", members

    def _take_scan(self, row: Sequence[Any], members: list[_Scan]) -> None:
        place = 1
        for member in members:
            numbers = row[place : place + len(member.numbers)]
            place += len(member.numbers)
            self.found[member.rule.name] = Outcome(member.rule, member.take(int(row[0]), numbers))

    def _of_scan(self, rule: TableRule) -> _Scan | None:
        if bad := self.bad(rule):
            where = rule.arguments.get("where")
            numbers = [f"count(*) filter (where {bad})", *([f"count(*) filter (where {where})"] if where else [])]

            def counted(all_rows: int, found: Sequence[Any]) -> Result:
                return self._counted(rule, int(found[1]) if where else all_rows, int(found[0]))

            return _Scan(rule, tuple(numbers), counted)
        if rule.kind == "unique" and self._holds_the_key(rule):
            return _Scan(rule, (), lambda all_rows, _: self._counted(rule, all_rows, 0))
        if rule.kind == "rows":
            change = rule.arguments.get("rule") == "change"

            def rows(all_rows: int, _: Sequence[Any]) -> Result:
                return self._changed(rule, all_rows) if change else self._result(
                    rule, rule.limit.holds(all_rows), value=all_rows, detail={"rows": all_rows}
                )  # fmt: skip

            return _Scan(rule, (), rows)
        if rule.kind == "freshness" and rule.column:

            def newest(_: int, found: Sequence[Any]) -> Result:
                return self._aged(rule, found[0])

            return _Scan(rule, (f"max({quoted(rule.column)})",), newest)
        if rule.kind == "distribution":
            names, conditions = self._categories(rule)

            def shares(_: int, found: Sequence[Any]) -> Result:
                return self._shifted(rule, dict(zip(names, map(int, found), strict=True)))

            return _Scan(rule, tuple(f"count(*) filter (where {condition})" for condition in conditions), shares)
        return None

    def bad(self, rule: TableRule) -> str | None:
        """When a row breaks a rule on single rows; None for other rules. What is null passes, unless it must not be."""
        arguments, where = rule.arguments, rule.arguments.get("where")
        column = quoted(rule.column) if rule.column else ""
        found: list[str] = []
        if rule.kind == "required":
            found = [f"{column} is null"]
            if arguments.get("missing"):
                found.append(f"{column}::text in ({', '.join(map(literal, arguments['missing']))})")
        elif rule.kind in ("values", "pattern"):
            if arguments.get("valid"):
                found.append(f"{column}::text not in ({', '.join(map(literal, arguments['valid']))})")
            if arguments.get("pattern"):
                found.append(f"{column}::text !~ {literal(arguments['pattern'])}")
        elif rule.kind == "range":
            for bound, sign in (("minimum", "<"), ("maximum", ">")):
                if (value := arguments.get(bound)) is not None:
                    found.append(f"{column} {sign} {'current_date' if value == 'delivery' else literal(_plain(value))}")
        elif rule.kind == "compare" and not rule.datasets:
            found = [f"({arguments['expression']}) is false"]
        if not found:
            return None
        either = " or ".join(found)
        return f"({where}) and ({either})" if where else either

    def _categories(self, rule: TableRule) -> tuple[list[str], list[str]]:
        """Names of the shares of a distribution, and the condition of each; what is null is none of them."""
        column = quoted(rule.column or "")
        if bins := rule.arguments.get("bins"):
            limits = [literal(_plain(item)) for item in bins]
            names = [f"< {bins[0]}", *(f"{low} to < {high}" for low, high in pairwise(bins)), f">= {bins[-1]}"]
            conditions = [f"{column} < {limits[0]}"]
            conditions += [f"{column} >= {low} and {column} < {high}" for low, high in pairwise(limits)]
            return names, [*conditions, f"{column} >= {limits[-1]}"]
        listed = [str(item) for item in rule.arguments.get("values") or self.contract.column(rule.column or "").valid_values]
        conditions = [f"{column}::text = {literal(item)}" for item in listed]
        other = f"{column}::text not in ({', '.join(map(literal, listed))})"
        return [*listed, "(other)"], [*conditions, other]

    # Repeated values: grouping sets

    def groups(self) -> tuple[str, list[TableRule]] | None:
        rules = [rule for rule in self.rules if rule.kind == "unique" and not self._holds_the_key(rule)]
        if not rules:
            return None
        sets = [self._set(rule) for rule in rules]
        columns = list(dict.fromkeys(name for names in sets for name in names))
        listed = ", ".join(map(quoted, columns))
        wanted = ", ".join(f"({', '.join(map(quoted, names))})" for names in dict.fromkeys(map(tuple, sets)))
        # One set is grouped by workers side by side, several in one pass.
        grouped, which = f"grouping sets ({wanted})", f"grouping({listed})"
        if len({tuple(names) for names in sets}) == 1:
            grouped, which = wanted, "0"
        # A row of which a value is absent repeats nothing.
        alone = which == "0"
        absent = " and ".join(
            f"{quoted(name)} is not null" if alone else f"({quoted(name)} is not null or grouping({quoted(name)}) = 1)"
            for name in columns
        )
        text = (
            f"select which, sum(rows - 1)::bigint, sum(rows)::bigint from (\n"
            f"    select {which} as which, count(*) as rows\n"
            f"    from {self.table} as this\n    where {self.believed}\n    group by {grouped}\n"
            f"    having count(*) > 1 and {absent}\n) as repeated\ngroup by which\n"
            f"union all\nselect -1, count(*), null from {self.table} where {self.believed}"
        )
        return text, rules

    def _holds_the_key(self, rule: TableRule) -> bool:
        """Whether the key is among the columns: its index lets no two rows have the same, so none can repeat them."""
        key = set(self.contract.key)
        return bool(key) and key <= set(self._set(rule)) and not self.contract.has_history

    def _set(self, rule: TableRule) -> list[str]:
        return list(rule.arguments.get("columns") or [rule.column])

    def _take_groups(self, rows: Sequence[Sequence[Any]], rules: list[TableRule]) -> None:
        by_set = {int(which): (int(more), int(total or 0)) for which, more, total in rows}
        columns = list(dict.fromkeys(name for rule in rules for name in self._set(rule)))
        for rule in rules:
            names = self._set(rule)
            # grouping(): a bit for each column, the last one the lowest; 1 where it is not of the set.
            which = sum(1 << place for place, name in enumerate(reversed(columns)) if name not in names)
            more, total = by_set.get(which, (0, 0))
            result = self._counted(rule, by_set[-1][0], more, detail={"rows_that_share": total} if more else {})
            self.found[rule.name] = Outcome(rule, result)

    # Joins

    def joins(self) -> dict[tuple[str, tuple[tuple[str, str], ...], int], list[TableRule]]:
        """Rules that compare with another dataset, by dataset, pairs of columns, and length of what is compared."""
        found: dict[tuple[str, tuple[tuple[str, str], ...], int], list[TableRule]] = {}
        for rule in self.rules:
            if rule.kind in ("reference", "compare") and rule.datasets:
                pairs = tuple((str(own), str(other)) for own, other in rule.arguments["match"].items())
                found.setdefault((rule.datasets[0], pairs, int(rule.arguments.get("length") or 0)), []).append(rule)
        return found

    def join(
        self, key: tuple[str, tuple[tuple[str, str], ...], int], rules: list[TableRule], *, unique: bool
    ) -> tuple[str, list[TableRule]]:
        """Two numbers a rule: rows looked at, rows that fail. ``unique``: the other table has no two rows of the same columns."""
        dataset, pairs, length = key
        other = f"raw.{quoted(dataset)}"
        if not unique:
            names = ", ".join(quoted(name) for _, name in pairs)
            needs_all = any(rule.kind == "compare" for rule in rules)
            believed = self._believed_of(dataset)
            other = f"(select distinct on ({names}) {'*' if needs_all else names} from {other} where {believed})"
        own = {name: f"left(this.{quoted(name)}, {length})" if length else f"this.{quoted(name)}" for name, _ in pairs}
        on = " and ".join(f"other.{quoted(theirs)} = {own[mine]}" for mine, theirs in pairs)
        there = " and ".join(f"this.{quoted(mine)} is not null" for mine, _ in pairs)
        matched = f"other.{quoted(pairs[0][1])} is not null"
        wheres = list(dict.fromkeys(str(rule.arguments["where"]) for rule in rules if rule.arguments.get("where")))
        numbers = []
        for rule in rules:
            where = rule.arguments.get("where")
            also = f" and this._where{wheres.index(where)}" if where else ""
            if rule.kind == "reference":
                numbers += [f"{there}{also}", f"{there} and not ({matched}){also}"]
            else:
                numbers += [f"{matched}{also}", f"{matched} and (({rule.arguments['expression']}) is false){also}"]
        listed = ",\n    ".join(f"count(*) filter (where {number})" for number in numbers)
        extra = "".join(f", ({where}) as _where{place}" for place, where in enumerate(wheres))
        here = (
            f"(select *{extra} from {self.table} as this where {self.believed})"
            if extra or self.contract.has_history
            else self.table
        )
        return f"select\n    {listed}\nfrom {here} as this\nleft join {other} as other on {on}", rules

    def _take_pairs(self, row: Sequence[Any], rules: list[TableRule]) -> None:
        for place, rule in enumerate(rules):
            self.found[rule.name] = Outcome(rule, self._counted(rule, int(row[2 * place]), int(row[2 * place + 1])))

    def _is_loaded(self, dataset: str) -> bool:
        row = self.connection.execute("select to_regclass(%s) is not null", (f"raw.{dataset}",)).fetchone()
        if not row or not row[0]:
            return False
        some = sql.SQL("select from {} limit 1").format(sql.Identifier("raw", dataset))
        return self.connection.execute(some).fetchone() is not None

    def _has_history(self, dataset: str) -> bool:
        if self.maybe is None:
            return False
        row = self.connection.execute(
            "select exists (select from pg_attribute where attrelid = to_regclass(%s) and attname = '_superseded_by')",
            (f"raw.{dataset}",),
        ).fetchone()
        return bool(row and row[0])

    def _believed_of(self, dataset: str) -> str:
        return "_superseded_by is null and _valid_to is null" if self._has_history(dataset) else "true"

    def _is_unique(self, key: tuple[str, tuple[tuple[str, str], ...], int]) -> bool:
        dataset, pairs, _ = key
        # A dataset that is replaced whole is a partition of its table, and the index is the partition's.
        row = self.connection.execute(
            """
            with parts as (
                select coalesce(p.relid, to_regclass(%(table)s)) as part
                from (select 1) as one
                left join pg_partition_tree(to_regclass(%(table)s)) p on p.isleaf
            )
            select count(*) = 1 and bool_and(exists (
                select from pg_index i
                where i.indrelid = parts.part and i.indisunique and i.indpred is null and i.indexprs is null
                    and (
                        select array_agg(a.attname::text)
                        from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any (i.indkey)
                    ) <@ %(columns)s::text[]
            ))
            from parts
            """,
            {"table": f"raw.{dataset}", "columns": [other for _, other in pairs]},
        ).fetchone()
        return bool(row and row[0]) and not self._has_history(dataset)

    # Totals

    def total_groups(self) -> dict[tuple[str, ...], list[TableRule]]:
        found: dict[tuple[str, ...], list[TableRule]] = {}
        for rule in self.rules:
            if rule.kind == "total":
                found.setdefault(tuple(map(str, rule.arguments["by"])), []).append(rule)
        return found

    def totals(self, by: tuple[str, ...], rules: list[TableRule]) -> tuple[str, list[TableRule]]:
        """Two numbers a rule: groups that have whole and parts, and those where a figure of the whole is not their sum."""
        sums: list[str] = []
        numbers: list[str] = []
        for place, rule in enumerate(rules):
            where = f"({rule.arguments['where']}) and " if rule.arguments.get("where") else ""
            whole, parts = (f"{where}({rule.arguments[side]})" for side in ("whole", "parts"))
            ours, theirs = [], []
            for number, column in enumerate(rule.arguments["columns"]):
                sums.append(f"sum({quoted(column)}) filter (where {whole}) as w{place}_{number}")
                sums.append(f"sum({quoted(column)}) filter (where {parts}) as p{place}_{number}")
                ours.append(f"w{place}_{number}")
                theirs.append(f"p{place}_{number}")
            sums.append(f"bool_or({whole}) and bool_or({parts}) as there{place}")
            differs = f"({', '.join(ours)}) is distinct from ({', '.join(theirs)})"
            numbers += [f"count(*) filter (where there{place})", f"count(*) filter (where there{place} and {differs})"]
        listed, summed = ",\n    ".join(numbers), ",\n        ".join(sums)
        groups = ", ".join(map(quoted, by))
        return (
            f"select\n    {listed}\nfrom (\n    select\n        {summed}\n    from {self.table} as this\n"
            f"    where {self.believed}\n    group by {groups}\n) as whole"
        ), rules

    # What is measured alone

    def _alone(self, rule: TableRule) -> None:
        ways: dict[str, Callable[[TableRule], Outcome]] = {
            "sql": self._sql, "agreement": self._agreement, "freshness": self._freshness, "volume": self._volume,
            "schema": self._schema,
        }  # fmt: skip
        try:
            with self.connection.transaction():
                self.found[rule.name] = ways[rule.kind](rule)
        except psycopg.Error as error:
            self._fail(rule, error)

    def _sql(self, rule: TableRule) -> Outcome:
        query = str(rule.arguments["query"]).replace("{table}", self.contract.table).replace("{object}", self.contract.table)
        row = self.connection.execute(query.encode()).fetchone()
        number = float(row[0]) if row and row[0] is not None else 0.0
        rows = int(number) if number >= 0 and number == int(number) and rule.limit.unit == "rows" else None
        return Outcome(rule, self._result(rule, rule.limit.holds(number), failed=rows, value=number))

    def _agreement(self, rule: TableRule) -> Outcome:
        """Each group of this dataset against the same group of the other; a group that the other lacks counts as 0 there."""
        dataset = rule.datasets[0]
        if not self._is_loaded(dataset):
            return Outcome(rule, note=f"not checked: raw.{dataset} holds nothing yet")
        sides = []
        for side, table, believed in (
            ("here", self.table, self.believed), ("there", f"raw.{quoted(dataset)}", self._believed_of(dataset))
        ):  # fmt: skip
            given = rule.arguments[side]
            by = [str(item) for item in given.get("by") or []]
            keys = "".join(f"({item})::text as k{place}, " for place, item in enumerate(by))
            grouped = f" group by {', '.join(str(place + 1) for place in range(len(by)))}" if by else ""
            where = f" and ({given['where']})" if given.get("where") else ""
            sides.append(f"select {keys}{given['value']} as figure from {table} as this where {believed}{where}{grouped}")
        count = len(rule.arguments["here"].get("by") or [])
        on = " and ".join(f"there.k{place} is not distinct from here.k{place}" for place in range(count)) or "true"
        allowed = float(rule.arguments["tolerance"]) / 100
        ours, theirs = "coalesce(here.figure, 0)::numeric", "coalesce(there.figure, 0)::numeric"
        differs = f"abs({ours} - {theirs}) > {allowed!r} * greatest(abs({ours}), abs({theirs}))"
        row = self.connection.execute(
            (
                f"with here as ({sides[0]}), there as ({sides[1]}) select count(*), count(*) filter (where {differs}),"
                f" sum({ours}), sum({theirs}) from here left join there on {on}"
            ).encode()
        ).fetchone()
        assert row is not None
        figures = {"here": float(row[2] or 0), "there": float(row[3] or 0), "dataset": dataset}
        return Outcome(rule, self._counted(rule, int(row[0]), int(row[1]), detail=figures))

    def _freshness(self, rule: TableRule) -> Outcome:
        """Age of the latest delivery that was loaded."""
        row = self.connection.execute(
            "select max(received_at) from ops.delivery where dataset = %s and status = 'loaded' and not replayed",
            (self.contract.dataset,),
        ).fetchone()
        if not row or row[0] is None:
            return Outcome(rule, note="not checked: nothing was delivered yet")
        return Outcome(rule, self._aged(rule, row[0]))

    def _volume(self, rule: TableRule) -> Outcome:
        """Rows of the latest delivery over the median of those before it."""
        rows = self.connection.execute(
            "select rows_read from ops.delivery where dataset = %s and status = 'loaded' and not replayed"
            " order by id desc limit %s",
            (self.contract.dataset, int(rule.arguments["deliveries"]) + 1),
        ).fetchall()
        if not rows:
            return Outcome(rule, note="not checked: nothing was delivered yet")
        latest, before = int(rows[0][0]), [int(count) for (count,) in rows[1:]]
        detail: dict[str, Any] = {"rows": latest, "deliveries_before": len(before)}
        if len(before) < int(rule.arguments["atLeast"]):
            return Outcome(rule, self._result(rule, True, detail=detail | {"too_little_history": True}))
        usual = statistics.median(before)
        ratio = latest / usual if usual else math.inf if latest else 1.0
        return Outcome(
            rule,
            self._result(
                rule,
                rule.limit.holds(ratio),
                value=None if math.isinf(ratio) else round(ratio, 4),
                detail=detail | {"usual": usual},
            ),
        )

    def _schema(self, rule: TableRule) -> Outcome:
        """Columns that the latest delivery had and the contract lacks; columns of the table that are not as the contract says."""
        row = self.connection.execute(
            """
            select
                coalesce((
                    select jsonb_array_length(coalesce(notes -> 'unknown_columns', '[]'))
                    from ops.delivery where dataset = %(dataset)s and status = 'loaded' and not replayed order by id desc limit 1
                ), 0),
                (
                    select array_agg(w.name order by w.name)
                    from unnest(%(names)s::text[], %(types)s::text[]) as w (name, type)
                    left join pg_attribute a on a.attrelid = to_regclass(%(table)s) and a.attname = w.name and not a.attisdropped
                    where a.attname is null or a.atttypid <> to_regtype(w.type)
                )
            """,
            {
                "dataset": self.contract.dataset, "table": self.contract.table, "names": list(self.types),
                "types": list(self.types.values()),
            },
        ).fetchone()  # fmt: skip
        assert row is not None
        unknown, other = int(row[0]), list(row[1] or [])
        number = unknown + len(other)
        # Titles that no contract knows may be a row of values: their number is all that is told.
        detail = {"unknown_columns": unknown, "other_columns": other} if number else {}
        return Outcome(rule, self._result(rule, rule.limit.holds(number), value=number, detail=detail))

    # Results

    def _result(
        self,
        rule: TableRule,
        passed: bool,
        *,
        checked: int | None = None,
        failed: int | None = None,
        value: float | None = None,
        detail: dict[str, Any] | None = None,
    ) -> Result:
        limit = {"must_be": rule.limit.words} if not passed else {}
        return Result(
            dataset=self.contract.dataset, rule=rule.name, kind=rule.kind, dimension=rule.dimension, severity=rule.severity,
            passed=passed, rows_checked=checked, rows_failed=failed, value=value, indicator=rule.indicator, column=rule.column,
            detail=(detail or {}) | limit,
        )  # fmt: skip

    def _counted(self, rule: TableRule, checked: int, failed: int, *, detail: dict[str, Any] | None = None) -> Result:
        share = failed / checked if checked else 0.0
        number = 100 * share if rule.limit.unit == "percent" else failed
        return self._result(rule, rule.limit.holds(number), checked=checked, failed=failed, value=round(share, 6), detail=detail)

    def _aged(self, rule: TableRule, moment: date | datetime | None) -> Result:
        if moment is None:
            return self._result(rule, False, detail={"problem": "no row has a date"})
        now = datetime.now(BANGKOK)
        if isinstance(moment, datetime):
            moment = moment if moment.tzinfo else moment.replace(tzinfo=BANGKOK)
            days = (now - moment).total_seconds() / 86_400
        else:
            days = float((now.date() - moment).days)
        newest = moment.astimezone(BANGKOK).isoformat() if isinstance(moment, datetime) else moment.isoformat()
        return self._result(rule, rule.limit.holds(days), value=round(days, 3), detail={"newest": newest})

    def _before(self, rule: TableRule, limit: int) -> list[store.Kept]:
        """Earlier results of the rule, oldest first, without those of the write that is looked at."""
        found = store.history(self.connection, self.contract.dataset, rule.name, limit=limit + 20)
        by_write = {item.write_id: item for item in found if item.write_id is not None and item.write_id != self.write}
        return list(by_write.values())[-limit:]

    def _changed(self, rule: TableRule, rows: int) -> Result:
        before = [item for item in self._before(rule, 1) if "rows" in item.detail]
        if not before:
            return self._result(rule, True, detail={"rows": rows, "too_little_history": True})
        held = int(before[-1].detail["rows"])
        change = rows - held
        number = (100 * change / held if held else 100.0 if rows else 0.0) if rule.limit.unit == "percent" else float(change)
        return self._result(rule, rule.limit.holds(number), value=round(number, 4), detail={"rows": rows, "rows_before": held})

    def _shifted(self, rule: TableRule, counts: dict[str, int]) -> Result:
        shares = _shares(counts)
        detail: dict[str, Any] = {"shares": {name: round(share, 4) for name, share in shares.items()}}
        before = [
            item.detail["shares"]
            for item in self._before(rule, int(rule.arguments["results"]))
            if set(item.detail.get("shares") or {}) == set(shares)
        ]
        if not before:
            return self._result(rule, True, detail=detail | {"too_little_history": True})
        usual = {name: statistics.fmean(float(item[name]) for item in before) for name in shares}
        index = stability_index(usual, shares)
        return self._result(rule, rule.limit.holds(index), value=round(index, 4), detail=detail | {"results_before": len(before)})

    # Which rows

    def _samples(self) -> None:
        """Rows that break a rule on single rows or joins: their numbers, and columns of the rule and the key that name nobody."""
        for outcome in self.found.values():
            result, rule = outcome.result, outcome.rule
            if result is None or result.passed or not result.rows_failed:
                continue
            statement = self._sample_of(rule)
            if statement is None:
                continue
            try:
                with self.connection.transaction():
                    cursor = self.connection.execute(statement.encode())
                    names = [item.name for item in cursor.description or ()]
                    rows = [
                        {
                            name: value if isinstance(value, int) else str(value)[:60]
                            for name, value in zip(names, row, strict=True)
                        }
                        for row in cursor.fetchall()
                    ]
            except psycopg.Error:
                continue  # the count is the news; which rows is a help
            outcome.result = Result(**{**vars(result), "detail": {**result.detail, "sample": rows}})

    def _sample_of(self, rule: TableRule) -> str | None:
        told = {rule.column, *self.contract.key, *(rule.arguments.get("columns") or ()), *(rule.arguments.get("match") or {})}
        shown = [
            name
            for column in self.contract.columns
            if column.name in told and not column.is_personal
            for name, _ in column.table_columns
        ]
        names = ", ".join(["_delivery_id as delivery", "_row as row", *map(quoted, shown)])
        if bad := self.bad(rule):
            return f"select {names} from {self.table} as this where {self.believed} and ({bad}) limit {SAMPLE_ROWS}"
        if rule.kind == "unique":
            columns = ", ".join(map(quoted, self._set(rule)))
            there = " and ".join(f"{quoted(name)} is not null" for name in self._set(rule))
            return (
                f"select {names} from (select *, count(*) over (partition by {columns}) as _times from {self.table} as this"
                f" where {self.believed} and {there}) as this where _times > 1 order by {columns}, _row limit {SAMPLE_ROWS}"
            )
        if rule.kind in ("reference", "compare") and rule.datasets:
            dataset = rule.datasets[0]
            length = int(rule.arguments.get("length") or 0)
            on = " and ".join(
                f"other.{quoted(str(theirs))} = "
                + (f"left(this.{quoted(str(mine))}, {length})" if length else f"this.{quoted(str(mine))}")
                for mine, theirs in rule.arguments["match"].items()
            )
            there = " and ".join(f"this.{quoted(str(mine))} is not null" for mine in rule.arguments["match"])
            where = f" and ({rule.arguments['where']})" if rule.arguments.get("where") else ""
            believed = self._believed_of(dataset)
            other = f"select from (select * from raw.{quoted(dataset)} where {believed}) as other where {on}"
            wrong = f"not exists ({other})"
            if rule.kind == "compare":
                wrong = f"exists ({other} and (({rule.arguments['expression']}) is false))"
            return (
                f"select {names} from (select * from {self.table} as this where {self.believed}{where}) as this"
                f" where {there} and {wrong} limit {SAMPLE_ROWS}"
            )
        return None


def stability_index(usual: dict[str, float], now: dict[str, float]) -> float:
    """The population stability index of two sets of shares: Σ (now − usual) · ln(now / usual).

    Below 0.1 a distribution is taken as the same, from 0.25 as another (N. Siddiqi, Credit Risk Scorecards, 2006). A share of
    nothing counts as one in ten thousand.
    """
    least = 1e-4
    pairs = [(max(usual[name], least), max(now[name], least)) for name in now]
    return sum((share - was) * math.log(share / was) for was, share in pairs)


def _shares(counts: dict[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total if total else 0.0 for name, count in counts.items()}


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, date | datetime) else value
