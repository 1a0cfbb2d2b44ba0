"""What SQL does to the values of persons on their way: whether a column still tells one person's value, or a group's.

Belongs here: the rules of PostgreSQL's functions and queries, over columns whose nature is given. Does not belong here: what may
go out (``governance.gate``), and what a contract says of a column (``governance.classification``).

The walk is that of lineage, and so are names, views and common table expressions; besides, every edge says how its value was
treated (``How``), and what decides rows tells whose rows they are: ``table.*`` is that a row is there, ``table.(row)`` which one.
What is not known to protect a value leaves it as it was, so a construct that nobody thought of protects nothing. Models are
given as views: edges lead through all of them to the columns of the silos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

from sqlglot import exp

from dopa_pipelines.lineage.columns import names
from dopa_pipelines.lineage.columns.model import NONE, Edge, Edges, How, Subtype, Value, carried, deciding
from dopa_pipelines.lineage.columns.schema import Schema, View
from dopa_pipelines.lineage.columns.scope import Columns, Ctes, Rows, Scope
from dopa_pipelines.lineage.columns.walk import _Walk, group_items, handler_of

ROW = "*"
"""In the place of a column: that there is a row."""
ROW_ID = "(row)"
"""In the place of a column: which row it is, such as its number."""

COUNTS = frozenset({"count", "regr_count", "approx_distinct"})
STATISTICS = COUNTS | frozenset(
    {
        "avg", "corr", "covar_pop", "covar_samp", "regr_avgx", "regr_avgy", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx",
        "regr_sxy", "regr_syy", "stddev", "stddev_pop", "stddev_samp", "sum", "var_pop", "var_samp", "variance",
    }
)  # fmt: skip
"""Aggregates that say something of all rows of a group. The others pick or pack values of single rows."""
_CHOOSING = frozenset({"min", "max", "any_value", "mode", "bool_and", "bool_or", "every", "percentile_disc", "percentile_cont"})
_VOLATILE = frozenset(
    {"random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "uuid_generate_v4", "clock_timestamp", "nextval", "rand"}
)
"""Functions that differ from row to row: by them rows can be told apart."""
_RANKS = frozenset({"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "rownumber"})
_TESTS = frozenset(
    {"starts_with", "startswith", "regexp_like", "like_regex", "textlike", "texteq", "int8eq", "bpchareq", "isfinite"}
)
_OF_DATES = {"month": 1, "quarter": 2, "year": 3, "decade": 4, "century": 5, "isoyear": 3}
_FORMATS = {"YYYY-MM": "month", "YYYYMM": "month", "YYYY/MM": "month", "MM/YYYY": "month", "YYYY": "year"}
_MIN_BAND = 5
_DEPTH = 4
_UNKNOWN = "?*"


class About(NamedTuple):
    """What a contract says of a column. ``date``, ``whole``: its values are days or moments, or whole numbers."""

    classification: str = "internal"
    role: str = "none"
    date: bool = False
    whole: bool = False

    @property
    def personal(self) -> bool:
        return self.role != "none" or self.classification in ("personal", "confidential", "secret")


Abouts = Callable[[str, str], About]
Declarations = Mapping[str, Mapping[str, str]]
"""By table and column: what its yml says that it generalises to (``month``, ``age_band`` …)."""


class Treated(NamedTuple):
    """The columns of a table with their edges to the silos' columns, what decides its rows, and the keys of the groups."""

    columns: Mapping[str, Edges]
    rows: Edges
    groups: Mapping[str, tuple[Edges, ...]]


class Treatment:
    """How models treat values, each walked once. ``schema``: raw tables, and the models as views under their targets' names."""

    def __init__(self, schema: Schema, about: Abouts, declared: Declarations | None = None) -> None:
        self.schema, self.about, self.declared = schema, about, declared or {}
        self.views: dict[str, Rows | None] = {}
        self.groups: dict[str, tuple[Edges, ...]] = {}

    def of(self, target: str) -> Treated:
        """Of the table or model ``schema.name``. Raises LineageError where it, or what it reads, cannot be resolved."""
        walk = _Treating(f"select * from {_quoted(target)}", self.schema, target, self.views, self)
        try:
            rows = walk.query(walk.parsed(), None, Ctes())
        except BaseException:
            # What was being walked when it failed is not known to refer to itself.
            for name in [name for name, rows_ in self.views.items() if rows_ is None]:
                del self.views[name]
            raise
        return Treated({name: value.edges for name, value in rows.columns}, rows.dataset, self.groups)


def satisfies(grain: str, kind: str) -> bool:
    """Whether a recognised ``grain`` is at least as coarse as the declared ``kind`` (month, quarter, year, age_band, tambon,
    district, province)."""
    length = {"province": 2, "district": 4, "tambon": 6}.get(kind)
    if length is not None:
        return grain.startswith("prefix:") and int(grain.partition(":")[2]) <= length
    if kind == "age_band":
        return grain == "band"
    return kind in _OF_DATES and (_OF_DATES.get(grain, 0) >= _OF_DATES[kind] or grain == f"{kind}_of_year")


KINDS = ("month", "quarter", "year", "age_band", "tambon", "district", "province")


def covers(fine: str, coarse: str) -> bool:
    """Whether a value of grain ``fine`` tells one of grain ``coarse`` of the same column."""
    if fine == "" or (fine == coarse and fine != _UNKNOWN):
        return True
    if fine in _OF_DATES:
        return _OF_DATES.get(coarse, 0) >= _OF_DATES[fine] or (fine in ("month", "quarter") and coarse.endswith("_of_year"))
    if fine.startswith("prefix:") and coarse.startswith("prefix:"):
        return int(fine[7:]) >= int(coarse[7:])
    return fine == "age" and coarse == "band"


class _Treating(_Walk):
    """A walk that also follows how values are treated."""

    def __init__(self, sql: str, schema: Schema, statement: str, views: dict[str, Rows | None], treatment: Treatment) -> None:
        super().__init__(sql, schema, statement, views)
        self.treatment = treatment
        self.aggregating: set[int] = set()
        self.scopes: list[Scope] = []  # kept, so that their ids stay theirs

    def of_view(self, view: View) -> _Walk:
        return _Treating(view.sql, self.schema, f"view {view.name}", self.views, self.treatment)

    def about(self, edge: Edge) -> About:
        return self.treatment.about(edge.table, edge.column)

    def identifies(self, edge: Edge) -> bool:
        """Whether the value tells which person it is."""
        return edge.how.shape in ("value", "picked", "singled") and self.about(edge).role == "direct_identifier"

    # -- queries ------------------------------------------------------------------------------------------------------

    def view(self, view: View, node: exp.Expr) -> Rows:
        known = self.views.get(view.name) is not None
        rows = super().view(view, node)
        kinds = self.treatment.declared.get(view.name)
        if known or not kinds:
            return rows
        columns = tuple(
            (name, self.mapped(value, lambda edge, kind=kinds[name]: _confirmed(edge, kind)) if name in kinds else value)  # type: ignore[misc]
            for name, value in rows.columns
        )
        self.views[view.name] = rows = Rows(columns, rows.dataset)
        return rows

    def table(self, node: exp.Table, alias: exp.Expr | None, scope: Scope) -> list[tuple[str, Value]]:
        before = set(scope.relations)
        visible = super().table(node, alias, scope)
        for key in scope.relations.keys() - before:
            if base := scope.relations[key].base:
                scope.decides(frozenset((Edge(base, ROW, Subtype.JOIN),)))
        return visible

    def join(self, left: list[tuple[str, Value]], join: exp.Join, scope: Scope) -> list[tuple[str, Value]]:
        before = set(scope.dataset)
        visible = super().join(left, join, scope)
        if join.args.get("using") or str(join.args.get("method") or "").upper() == "NATURAL":
            for edges in scope.dataset - before:
                told = {edge[:2] for edge in edges if edge.subtype is Subtype.JOIN and self.identifies(edge)}
                if len(told) > 1:
                    scope.dataset.remove(edges)
                    scope.dataset.add(frozenset(self.matched(edge) for edge in edges))
        return visible

    def matched(self, edge: Edge) -> Edge:
        return edge._replace(how=edge.how._replace(shape="matched")) if self.identifies(edge) else edge

    def selected(self, node: exp.Select, scope: Scope, columns: Columns) -> Rows:
        group = node.args.get("group")
        dataset = self.single_outs(NONE.union(*scope.dataset))
        distinct = node.args.get("distinct")
        if distinct is not None and distinct.args.get("on") is not None and self.of_people(dataset):
            on = distinct.args["on"]
            items = on.expressions if isinstance(on, exp.Tuple) else [on]
            if not any(self.identifies(edge) for item in items for edge in self.sort_key(item, scope, columns)):
                dataset |= self.singled_rows(dataset)
        if group is None and node.args.get("having") is None and id(scope) not in self.aggregating:
            return Rows(columns, dataset)
        keys = tuple(self.grouped([item], scope, columns) for item in group_items(group)) if group is not None else ()
        alone = "value" if any(self.identifies(edge) for key in keys for edge in key) else ""
        values = (edge for edge in dataset if edge.column != ROW and edge.how.shape in ("value", "picked", "matched"))
        if scope.parent is not None and any(self.about(edge).personal for edge in values):
            # A query within another one is made anew for each row of that: its group may be one person.
            alone = "picked"
        name = f"{self.statement_name}#{len(self.treatment.groups)}"
        self.treatment.groups[name] = keys

        def grouped(edge: Edge) -> Edge:
            how = edge.how
            match how.shape:
                case "fresh":
                    return edge._replace(how=how._replace(shape=alone or "statistic", group=name))
                case "statistic":
                    return edge._replace(how=how._replace(group=name))
                case "value" | "key" if not alone:
                    return edge._replace(how=how._replace(shape="key", group=name))
            return edge

        return Rows(tuple((title, self.mapped(value, grouped)) for title, value in columns), frozenset(map(grouped, dataset)))

    def single_outs(self, dataset: Edges) -> Edges:
        """What decides rows by a direct identifier, other than by the same of another table, is about one person."""
        return frozenset(
            edge._replace(how=edge.how._replace(shape="singled"))
            if edge.subtype in (Subtype.FILTER, Subtype.JOIN) and edge.column != ROW and self.identifies(edge)
            else edge
            for edge in dataset
        )

    def of_people(self, dataset: Edges) -> bool:
        return any(self.presence(edge) and edge.how.shape == "value" and self.about(edge).personal for edge in dataset)

    def presence(self, edge: Edge) -> bool:
        return edge.column == ROW

    def singled_rows(self, dataset: Edges) -> Edges:
        return frozenset(
            Edge(edge.table, ROW_ID, Subtype.FILTER, False, How("singled"))
            for edge in dataset
            if self.presence(edge) and edge.how.shape == "value" and self.about(edge).personal
        )

    def order_and_limit(self, node: exp.Expr, scope: Scope, columns: Columns) -> None:
        super().order_and_limit(node, scope, columns)
        grouped = node.args.get("group") is not None or id(scope) in self.aggregating
        if (node.args.get("limit") or node.args.get("offset")) and not grouped:
            scope.decides(self.singled_rows(NONE.union(*scope.dataset)))

    def arranged(self, node: exp.Expr, rows: Rows, parent: Scope | None, ctes: Ctes) -> Rows:
        rows = super().arranged(node, rows, parent, ctes)
        if node.args.get("limit") or node.args.get("offset"):
            return Rows(rows.columns, rows.dataset | self.singled_rows(rows.dataset))
        return rows

    # -- expressions --------------------------------------------------------------------------------------------------

    def mapped(self, value: Value, change: Callable[[Edge], Edge]) -> Value:
        fields = value.fields
        if fields is not None:
            fields = tuple((title, self.mapped(field, change)) for title, field in fields)
        return Value(frozenset(map(change, value.edges)), fields)

    def value(self, node: exp.Expr, scope: Scope) -> Value:
        if isinstance(node, exp.Case) and (banded := self.band(node, scope)) is not None:
            return banded
        found: Value = getattr(self, handler_of(node))(node, scope)
        if not found.edges or isinstance(node, _TRANSPARENT) or _sizeless(node):
            return found
        if isinstance(node, _TREATED_ELSEWHERE):
            return found
        if isinstance(node, exp.Predicate) or self.is_test(node):
            found = self.compared(node, found, scope)
        grain = _grain(node)
        text: list[str] = []

        def coarser(edge: Edge) -> Edge:
            how = edge.how
            # An age as of a day that is itself picked, such as the register's last, may become a band.
            if (
                not (how.shape in ("value", "key") or (how.shape == "picked" and grain[0] == "age"))
                or not self.about(edge).personal
            ):
                return edge
            made = _regrained(how.grain, grain)
            if made is None:
                if not text:
                    text.append(hashlib.sha256(node.sql("postgres").encode()).hexdigest()[:8])
                parts = how.grain.removeprefix("?").split(".") if how.grain else []
                made = _UNKNOWN if how.grain == _UNKNOWN or len(parts) >= _DEPTH else "?" + ".".join([*parts, text[0]])
            return edge._replace(how=how._replace(grain=made))

        return self.mapped(found, coarser)

    def band(self, node: exp.Case, scope: Scope) -> Value | None:
        """The bands of an age, if the node is that; the age must be whole years."""
        if not _is_band(node):
            return None
        column = next(iter(node.find_all(exp.Column)))
        edges = self.value(column, scope).edges
        if not all(
            edge.how.grain == "age" or (not edge.how.grain and self.about(edge).whole)
            for edge in edges
            if self.about(edge).personal and edge.how.shape in ("value", "key")
        ):
            return None
        made = carried(edges, Subtype.TRANSFORMATION)

        def banded(edge: Edge) -> Edge:
            if edge.how.shape == "picked" and edge.how.grain == "age":
                return edge._replace(how=edge.how._replace(shape="value", grain="band"))
            return edge._replace(how=edge.how._replace(grain="band")) if edge.how.shape in ("value", "key") else edge

        return self.mapped(
            Value(made | deciding(edges, Subtype.CONDITIONAL)),
            banded,
        )

    def is_test(self, node: exp.Expr) -> bool:
        return isinstance(node, exp.Func) and self.function_name(node) in _TESTS

    def compared(self, node: exp.Expr, found: Value, scope: Scope) -> Value:
        """A comparison of a direct identifier: with that of another table it matches rows, with a constant it is about one."""
        if not any(self.identifies(edge) for edge in found.edges):
            return found
        empty = any(isinstance(part, exp.Null) or _blank(part) for part in node.iter_expressions())
        if empty and isinstance(node, (exp.Is, exp.EQ, exp.NEQ)):
            shape = "matched"
        else:
            sides = list(node.iter_expressions())
            # A value that was picked, or comes from a query of one row, is that of one person.
            told = [
                not isinstance(side, exp.Query)
                and any(self.identifies(edge) for edge in edges)
                and not any(self.identifies(edge) and edge.how.shape != "value" for edge in edges)
                for side in sides
                for edges in (self.value(side, scope).edges,)
            ]
            shape = (
                "matched" if len(told) == 2 and all(told) and isinstance(node, (exp.EQ, exp.NullSafeEQ, exp.In)) else "singled"
            )
        if isinstance(node, exp.In) and node.args.get("query") is not None:
            inner = self.value(node.args["query"], scope).edges
            outer = self.value(node.this, scope).edges
            both = all(any(self.identifies(edge) for edge in side) for side in (inner, outer))
            shape = "matched" if both else "singled"
        return self.mapped(
            found, lambda edge: edge._replace(how=edge.how._replace(shape=shape)) if self.identifies(edge) else edge
        )

    def case(self, node: exp.Case, scope: Scope) -> Value:
        return self.conditions(super().case(node, scope))

    def conditions(self, value: Value) -> Value:
        def condition(edge: Edge) -> Edge:
            if edge.subtype is Subtype.CONDITIONAL and edge.how.shape == "value" and self.identifies(edge):
                return edge._replace(how=edge.how._replace(shape="singled"))
            return edge

        return self.mapped(value, condition)

    def nullif(self, node: exp.Nullif, scope: Scope) -> Value:
        found = super().nullif(node, scope)
        return found if _blank(node.expression) else self.conditions(found)

    # -- aggregates ---------------------------------------------------------------------------------------------------

    def call(self, node: exp.Expr, name: str, scope: Scope) -> Value:
        found = super().call(node, name, scope)
        if name in names.AGGREGATES or name in STATISTICS:
            return self.of_group(node, name, found, scope)
        if name in _VOLATILE:
            return Value(found.edges | self.row_ids(scope))
        if name not in _BUILT_IN and isinstance(node, exp.Anonymous) and self.of_people(NONE.union(*scope.dataset)):
            # Nobody knows what it does: it may tell rows apart, or be an aggregate.
            return Value(found.edges | self.row_ids(scope)) if not found.edges else found
        return found

    def row_ids(self, scope: Scope) -> Edges:
        return frozenset(
            Edge(edge.table, ROW_ID, Subtype.TRANSFORMATION)
            for edge in NONE.union(*scope.dataset)
            if self.presence(edge) and edge.how.shape == "value" and self.about(edge).personal
        )

    def aggregate(self, node: exp.Expr, scope: Scope) -> Value:
        return self.of_group(node, self.function_name(node), super().aggregate(node, scope), scope)

    def count(self, node: exp.Count, scope: Scope) -> Value:
        return self.of_group(node, "count", super().count(node, scope), scope)

    def within_group(self, node: exp.WithinGroup, scope: Scope) -> Value:
        inner = node.this
        parts = (*inner.iter_expressions(), node.expression)
        edges = carried(NONE.union(*(self.value(part, scope).edges for part in parts)), Subtype.AGGREGATION)
        name = self.function_name(inner) if isinstance(inner, exp.Func) else ""
        fraction = next((part for part in inner.iter_expressions() if isinstance(part, exp.Literal)), None)
        if name == "percentile_cont" and fraction is not None and not fraction.is_string and 0.1 <= float(fraction.name) <= 0.9:
            name = "avg"
        return self.of_group(node, name, Value(edges), scope)

    def of_group(self, node: exp.Expr, name: str, value: Value, scope: Scope) -> Value:
        """What an aggregate makes of its arguments, and of the rows that it goes over."""
        self.aggregating.add(id(scope))
        self.scopes.append(scope)
        local = self.local(node, scope)

        def treated(edge: Edge) -> Edge:
            shape = edge.how.shape
            personal = self.about(edge).personal
            if not local or shape in ("picked", "singled"):
                return edge
            if shape == "fresh":
                new = shape
            elif shape in ("key", "statistic"):
                new = "fresh" if name in STATISTICS or not personal else "picked"
                if shape == "key" and name in _CHOOSING:
                    new = shape
            elif not personal:
                new = "fresh"
            elif name in COUNTS and edge.column != ROW_ID:
                new = "singled" if self.identifies(edge) and edge.subtype is Subtype.CONDITIONAL else "fresh"
            elif name in STATISTICS and not self.identifies(edge):
                new = "fresh"
            else:
                new = "picked"
            return edge._replace(how=edge.how._replace(shape=new))

        edges = frozenset(map(treated, value.edges))
        rows = [edge for edge in NONE.union(*scope.dataset) if self.presence(edge)]
        if name in STATISTICS:
            shape = "fresh" if local else "value"
            return Value(edges | {Edge(edge.table, ROW, Subtype.AGGREGATION, False, How(shape)) for edge in rows})
        # What it picks or packs is a single row's, also where the column is of a table that was only looked up.
        over = (edge for edge in rows if edge.how.shape == "value" and self.about(edge).personal)
        return Value(edges | {Edge(edge.table, ROW, Subtype.AGGREGATION, False, How("picked")) for edge in over})

    def local(self, node: exp.Expr, scope: Scope) -> bool:
        """Whether all columns are of this query: PostgreSQL gives an aggregate of another one's columns to that."""
        seen = {title for title, _ in scope.visible}
        for column in node.find_all(exp.Column):
            table = column.args.get("table")
            if column.find_ancestor(exp.Query) is not node.find_ancestor(exp.Query):
                continue
            if table is not None:
                if self.identifier(table) not in scope.relations:
                    return False
            elif isinstance(column.this, exp.Identifier):
                name = self.identifier(column.this)
                if name not in seen and name not in scope.relations and name not in names.SYSTEM_COLUMNS:
                    return False
        return True

    def filtered(self, node: exp.Filter, scope: Scope) -> Value:
        found = self.value(node.this, scope).edges
        condition = deciding(self.value(node.expression.this, scope).edges, Subtype.CONDITIONAL)
        condition = self.conditions(Value(condition)).edges
        inner = node.this
        name = self.function_name(inner) if isinstance(inner, exp.Func) else ""
        fresh = frozenset(
            edge._replace(how=edge.how._replace(shape="fresh"))
            if edge.how.shape in ("value", "key", "statistic", "matched") and name in STATISTICS
            else edge._replace(how=edge.how._replace(shape="picked"))
            if edge.how.shape == "value" and self.about(edge).personal
            else edge
            for edge in condition
        )
        return Value(found | fresh)

    def array(self, node: exp.Array, scope: Scope) -> Value:
        found = super().array(node, scope)
        if len(node.expressions) == 1 and isinstance(node.expressions[0], exp.Query):
            return self.mapped(found, self.packed)
        return found

    def packed(self, edge: Edge) -> Edge:
        if edge.how.shape in ("value", "key", "statistic") and self.about(edge).personal:
            return edge._replace(how=edge.how._replace(shape="picked"))
        return edge

    def window(self, node: exp.Window, scope: Scope) -> Value:
        """Over rows of persons, a window tells of single ones; over groups, it tells what these tell."""
        function = node.this
        condition: Edges = NONE
        while isinstance(function, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls, exp.WithinGroup)):
            if isinstance(function, exp.Filter):
                condition |= deciding(self.value(function.expression.this, scope).edges, Subtype.CONDITIONAL)
            function = function.this
        name = self.function_name(function) if isinstance(function, exp.Func) else ""
        arguments = [part for part in function.iter_expressions() if not isinstance(part, exp.Star)]
        edges = NONE.union(condition, *(self.value(part, scope).edges for part in arguments))
        kind = Subtype.AGGREGATION if name in names.AGGREGATES else Subtype.TRANSFORMATION
        edges = frozenset(edge._replace(subtype=kind) if edge.direct else edge for edge in edges)
        parts = list(self.window_parts(node, scope, 0))
        deciding_parts = deciding(NONE.union(*parts), Subtype.WINDOW)
        if name not in names.AGGREGATES:
            # Another group's figure is not this one's, so no disclosure rule protects it here.
            edges = frozenset(
                edge._replace(how=edge.how._replace(shape="picked"))
                if edge.how.shape in ("statistic", "fresh") and self.about(edge).personal
                else edge
                for edge in edges
            )
        select = node.find_ancestor(exp.Select)
        if select is not None and select.args.get("group") is not None:
            return Value(edges | deciding_parts)  # its rows are groups
        by_person = any(
            self.identifies(edge) for part in node.args.get("partition_by") or () for edge in self.value(part, scope).edges
        )
        rows = NONE.union(*scope.dataset)
        if name in _RANKS and by_person:
            # Which of the rows of one person: it tells nobody apart.
            neutral = frozenset(edge._replace(how=edge.how._replace(shape="matched")) for edge in deciding_parts)
            return Value(edges | neutral)
        found = frozenset(
            edge._replace(how=edge.how._replace(shape="picked"))
            if edge.how.shape in ("value", "matched") and self.about(edge).personal
            else edge
            for edge in edges | deciding_parts
        )
        counted = frozenset(
            Edge(
                edge.table,
                ROW,
                Subtype.AGGREGATION,
                True,
                How("picked" if edge.how.shape == "value" else "statistic", "", edge.how.group),
            )
            for edge in rows
            if self.presence(edge) and self.about(edge).personal
        )
        return Value(found | counted | self.row_ids(scope))


_TRANSPARENT = (
    exp.Column,
    exp.Paren,
    exp.Alias,
    exp.Collate,
    exp.Order,
    exp.Ordered,
    exp.Distinct,
    exp.Identifier,
    exp.Dot,
    exp.Tuple,
)
_TREATED_ELSEWHERE = (
    exp.AggFunc, exp.Window, exp.Filter, exp.WithinGroup, exp.Query, exp.Exists, exp.Connector, exp.SubqueryPredicate,
)  # fmt: skip
_BUILT_IN = names.SCALARS_IN_FROM | names.ONE_WAY


def _quoted(target: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in target.split(".", 1))


def _sizeless(node: exp.Expr) -> bool:
    """A cast that keeps the value: to a type without a length, by which text would be cut off."""
    if not isinstance(node, exp.Cast):
        return False
    to = node.args["to"]
    return isinstance(to, exp.DataType) and not to.expressions and not _age_in_years(node)


def _confirmed(edge: Edge, kind: str) -> Edge:
    if edge.how.shape in ("value", "key") and satisfies(edge.how.grain, kind):
        return edge._replace(how=edge.how._replace(declared=True))
    return edge


def _blank(node: exp.Expr) -> bool:
    """Text that stands for no value in old files: everybody without one has it."""
    return isinstance(node, exp.Literal) and node.is_string and node.name.strip(" -0") == ""


def _bare(node: exp.Expr | None) -> bool:
    while isinstance(node, (exp.Paren, exp.Collate)) or (isinstance(node, exp.Cast) and _sizeless(node)):
        node = node.this
    return isinstance(node, exp.Column)


def _number(node: exp.Expr | None) -> int | None:
    return int(node.name) if isinstance(node, exp.Literal) and not node.is_string and node.name.isdigit() else None


def _age_in_years(node: exp.Expr) -> bool:
    """``extract(year from age(…))::integer``: completed years."""
    if not isinstance(node, exp.Cast) or not node.args["to"].is_type("int", "smallint", "bigint"):
        return False
    inner = node.this
    while isinstance(inner, exp.Paren):
        inner = inner.this
    if not isinstance(inner, exp.Extract) or inner.this.name.lower() != "year":
        return False
    of = inner.expression
    return (isinstance(of, exp.Anonymous) and of.name.lower() == "age") or type(of).__name__.lower() == "age"


def _grain(node: exp.Expr) -> tuple[str, exp.Expr | None]:
    """What a generaliser makes of its argument; ``""`` where the node is none."""
    if _age_in_years(node):
        return "age", None
    if isinstance(node, exp.Left) and (length := _number(node.expression)):
        return f"prefix:{length}", node.this
    if isinstance(node, exp.Substring) and _number(node.args.get("start")) == 1 and (length := _number(node.args.get("length"))):
        return f"prefix:{length}", node.this
    if isinstance(node, exp.Extract):
        unit = node.this.name.lower()
        if unit in ("year", "decade", "century", "isoyear"):
            return unit, node.expression
        if unit in ("month", "quarter"):
            return f"{unit}_of_year", node.expression
    if isinstance(node, (exp.TimestampTrunc, exp.DateTrunc)):
        unit = node.args["unit"].name.lower() if node.args.get("unit") is not None else ""
        if unit in _OF_DATES:
            return unit, node.this
    if isinstance(node, (exp.TimeToStr, exp.ToChar)):
        form = node.args.get("format")
        written = form.name if isinstance(form, exp.Literal) else ""
        # sqlglot writes formats as strftime has them.
        kind = _FORMATS.get(written.upper()) or {"%Y-%m": "month", "%Y%m": "month", "%Y/%m": "month", "%Y": "year"}.get(written)
        if kind:
            return kind, node.this
    return "", None


def _is_band(node: exp.Case) -> bool:
    """Bands of an age: every result is a constant, or made of the age divided by at least five; limits are five apart."""
    columns = {column.sql() for column in node.find_all(exp.Column)}
    if len(columns) != 1 or node.this is not None:
        return False
    limits: list[int] = []
    for branch in node.args["ifs"]:
        for part in branch.this.flatten(unnest=False) if isinstance(branch.this, exp.Connector) else [branch.this]:
            if isinstance(part, exp.Is) and isinstance(part.expression, exp.Null):
                continue
            if isinstance(part, exp.Between):
                ends = [_number(part.args["low"]), _number(part.args["high"])]
            elif isinstance(part, (exp.GT, exp.GTE, exp.LT, exp.LTE)) and isinstance(part.this, exp.Column):
                ends = [_number(part.expression)]
            else:
                return False
            if None in ends:
                return False
            limits += [
                end + (1 if isinstance(part, exp.Between) and place else 0) for place, end in enumerate(ends) if end is not None
            ]
    apart = sorted(set(limits))
    if any(two - one < _MIN_BAND for one, two in pairwise(apart)):
        return False
    results = [branch.args["true"] for branch in node.args["ifs"]]
    if node.args.get("default") is not None:
        results.append(node.args["default"])
    return all(_divided(column) for result in results for column in result.find_all(exp.Column))


def _divided(column: exp.Expr) -> bool:
    around = column.parent
    while isinstance(around, exp.Paren):
        column, around = around, around.parent
    if not isinstance(around, exp.Div) or around.this is not column:
        return False
    by = _number(around.expression)
    return by is not None and by >= _MIN_BAND


def _regrained(grain: str, made: tuple[str, exp.Expr | None]) -> str | None:
    """The grain after a node; None where it is nothing that is recognised."""
    kind, argument = made
    known = grain and not grain.startswith("?")
    if kind == "age":
        return kind
    if kind:
        same = (kind.startswith("prefix:") and grain.startswith("prefix:")) or (
            not kind.startswith("prefix:") and (grain in _OF_DATES)
        )
        if same:
            return kind if covers(grain, kind) else grain
        if not grain and _bare(argument):
            return kind
    return grain if known else None


__all__ = ["KINDS", "ROW", "ROW_ID", "About", "Treated", "Treatment", "covers", "satisfies"]
