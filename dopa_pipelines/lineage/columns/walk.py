"""From a statement's syntax to its edges: one walk over its scopes, every expression once.

Names are resolved here, by PostgreSQL's own rules, and not by sqlglot's qualify: that rewrites the statement, knows no whole rows
or lateral functions, and takes several times as long.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError

from dopa_pipelines.lineage.columns import names, syntax
from dopa_pipelines.lineage.columns.change import CHANGES, changed
from dopa_pipelines.lineage.columns.model import (
    NONE,
    Edge,
    Edges,
    Lineage,
    LineageError,
    Subtype,
    Value,
    carried,
    deciding,
)
from dopa_pipelines.lineage.columns.names import folded
from dopa_pipelines.lineage.columns.schema import Schema, Table, View
from dopa_pipelines.lineage.columns.scope import Columns, Cte, Ctes, Relation, Rows, Scope

# It warns of syntax that it keeps as text; we refuse such a statement with a sentence of our own.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

_EMPTY = Value()
_NAME = re.compile(r"[^\W\d][\w$]*")
_WINDOW_ONLY = (exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue, exp.NthValue)
_LEAVES = (exp.Literal, exp.Null, exp.Boolean, exp.DataType, exp.Var, exp.Star, exp.ObjectIdentifier)
_SPECIAL_NAMES: dict[type[exp.Expr], str] = {
    exp.AtTimeZone: "timezone",
    exp.Array: "array",
    exp.Tuple: "row",
    exp.Exists: "exists",
    exp.Overlaps: "overlaps",
    exp.Grouping: "grouping",
    exp.Substring: "substring",
    exp.StrPosition: "position",
    exp.Overlay: "overlay",
    exp.Explode: "unnest",
    exp.Unnest: "unnest",
    exp.GroupConcat: "string_agg",
    exp.JSONValue: "json_value",
    exp.Localtime: "localtime",
    exp.Localtimestamp: "localtimestamp",
}
_Handler = Callable[["_Walk", Any, Scope], Value]


def analyze(sql: str, schema: Schema, *, statement: str = "") -> Lineage:
    """The lineage of one statement: a query, what makes or fills a table or view with one, or what changes a table.

    The output of ``insert`` are the rows that it puts in; of ``update``, ``delete``, ``merge`` and ``on conflict do update`` it
    is the whole table as it is afterwards (``change`` says how). What common table expressions change besides, and what RETURNING
    gives, is in ``Lineage.also``. ``statement`` names it in complaints. Raises LineageError with the construct, line and column
    that could not be resolved.
    """
    try:
        return _Walk(sql, schema, statement, {}).statement()
    except RecursionError:
        raise LineageError(
            "the statement", "is nested too deeply to be resolved; split it into several", 1, 1, statement
        ) from None


class _Walk:
    """One text of SQL. Views have a text of their own, and so a walk of their own."""

    def __init__(self, sql: str, schema: Schema, statement: str, views: dict[str, Rows | None]) -> None:
        self.sql, self.schema, self.statement_name, self.views = sql, schema, statement, views
        self.changing: list[tuple[Cte, exp.CTE, str]] = []
        self.join_names: dict[int, str] = {}
        self.row_names: dict[str, str] = {}
        self.recursive_view = False

    # -- statements ---------------------------------------------------------------------------------------------------

    def statement(self) -> Lineage:
        node, ctes = self.parsed(), Ctes()
        if isinstance(node, CHANGES):
            made, returned = changed(self, node, ctes)
            given = () if returned is None else (Lineage(_edges(returned.columns), returned.dataset),)
        else:
            made, given = self.queried(node, ctes), ()
        also = []
        for cte, at, name in self.changing:  # they are run also where nobody reads them
            self.cte_rows(cte, at, name)
            also += [cte.change] if cte.change is not None else []
        return replace(made, also=(*also, *given))

    def queried(self, node: exp.Expr, ctes: Ctes) -> Lineage:
        target, titles = None, None
        if isinstance(node, exp.Create):
            if node.args.get("kind") not in ("TABLE", "VIEW") or node.expression is None:
                raise self.error(
                    node, f"create {str(node.args.get('kind') or '').lower()}".rstrip(), "is not a query; give the query"
                )
            target, titles, query = self.created(node)
        else:
            query = node
            into = _into(node)
            if into is not None:
                target, _ = self.target(into.this)
        if not isinstance(query, (exp.Query, exp.Values)):
            raise self.error(node, _kind(query), "has no lineage; that is of queries and of insert, update, delete and merge")
        rows = self.query(query, None, ctes)
        columns = rows.columns
        if titles:
            if len(titles) > len(columns):
                raise self.error(
                    node, f"a list of {len(titles)} columns", f"does not fit the {len(columns)} columns of the query"
                )
            columns = tuple((title, value) for title, (_, value) in zip(titles, columns, strict=False)) + columns[len(titles) :]
        ordered = target is None and query.args.get("order") is not None
        return Lineage(_edges(columns), rows.dataset, ordered, target)

    def created(self, node: exp.Create) -> tuple[str, list[str] | None, exp.Expr]:
        """Name, column list and query of a table or view that is made. A recursive view is one of WITH RECURSIVE of its name."""
        target, titles = self.target(node.this)
        query = node.expression
        if not self.recursive_view:
            return target, titles, query
        if not titles or not isinstance(node.this, exp.Schema):
            raise self.error(node, f"recursive view {target}", "has no column list, which it needs")
        name = node.this.this.this
        own = exp.CTE(this=query, alias=exp.TableAlias(this=name.copy(), columns=[part.copy() for part in node.this.expressions]))
        whole = exp.select(*(exp.Column(this=part.copy()) for part in node.this.expressions)).from_(exp.Table(this=name.copy()))
        whole.set("with_", exp.With(expressions=[own], recursive=True))
        return target, titles, whole

    def parsed(self) -> exp.Expr:
        try:
            text = syntax.parse(self.sql)
        except SqlglotError as error:
            details = getattr(error, "errors", None) or [{}]
            first = details[0]
            said = str(first.get("description") or error).strip().splitlines()[0].rstrip(".")
            near = f" near {first['highlight']!r}" if first.get("highlight") else ""
            raise LineageError(
                f"the syntax{near}",
                f"is not understood ({said})",
                first.get("line") or 1,
                first.get("col") or 1,
                self.statement_name,
            ) from None
        found = [node for node in text.statements if node is not None and not isinstance(node, exp.Semicolon)]
        if len(found) != 1:
            what = f"a text of {len(found)} statements"
            raise LineageError(what, "has no lineage; give one statement", 1, 1, self.statement_name)
        if isinstance(found[0], exp.Command):
            first_word = " ".join(self.sql.split()[:3])
            raise LineageError(f"the syntax of {first_word!r}", "is not understood", 1, 1, self.statement_name)
        self.join_names, self.row_names, self.recursive_view = text.join_names, text.row_names, text.recursive_view
        self.nothing_lost(found[0], text.tokens)
        return found[0]

    def nothing_lost(self, node: exp.Expr, tokens: Sequence[Token]) -> None:
        """Raise where a column's name stands in the text and nowhere in the tree: the parser dropped what it stands in."""
        words: Counter[str] = Counter()
        places: dict[str, Any] = {}
        for token, following in zip(tokens, [*tokens[1:], None], strict=True):
            calls = following is not None and following.token_type == TokenType.L_PAREN
            if token.token_type == TokenType.IDENTIFIER or (token.token_type == TokenType.VAR and not calls):
                words[token.text.lower()] += 1
                places[token.text.lower()] = token
        for part in node.walk():
            if isinstance(part, (exp.Identifier, exp.Var)):
                words[part.name.lower()] -= 1
        lost = {word for word, count in words.items() if count > 0} - names.SYNTAX_WORDS
        if not lost:
            return
        for table in self.schema.base_tables().values():
            for column in table.columns:
                if column.lower() in lost:
                    token = places[column.lower()]
                    place = token.line, token.col - len(token.text) + 1
                    raise LineageError(
                        f"the syntax around {column!r}", "is not understood", *place, statement=self.statement_name
                    )

    def target(self, node: exp.Expr) -> tuple[str, list[str] | None]:
        """Name and column list of what is made or filled."""
        titles = None
        if isinstance(node, exp.Schema):
            titles = [self.identifier(part.this if isinstance(part, exp.ColumnDef) else part) for part in node.expressions]
            node = node.this
        if not isinstance(node, exp.Table):
            raise self.error(node, _kind(node), "is no table")
        parts = [node.args.get("db"), node.this]
        return ".".join(self.identifier(part) for part in parts if isinstance(part, exp.Identifier)), titles

    # -- queries ------------------------------------------------------------------------------------------------------

    def query(self, node: exp.Expr, parent: Scope | None, ctes: Ctes) -> Rows:
        """The rows of a query of any form. ``parent``: the scope whose columns it may use."""
        with_ = node.args.get("with_")
        if with_ is not None:
            ctes = self.with_ctes(with_, parent, ctes)
        if isinstance(node, exp.Select):
            return self.select(node, parent, ctes)
        if isinstance(node, exp.SetOperation):
            return self.set_operation(node, parent, ctes)
        if isinstance(node, exp.Subquery):
            rows = self.query(node.this, parent, ctes)
            return self.arranged(node, rows, parent, ctes)
        if isinstance(node, exp.Values):
            return self.values(node, parent, ctes)
        if isinstance(node, exp.Table):  # `(table t)` of some forms
            return self.select(exp.select("*").from_(node), parent, ctes)
        raise self.error(node, _kind(node), "is not a query whose lineage is known")

    def arranged(self, node: exp.Expr, rows: Rows, parent: Scope | None, ctes: Ctes) -> Rows:
        """ORDER BY, LIMIT and OFFSET of a query in parentheses or a set operation: they see its output only."""
        if not (node.args.get("order") or node.args.get("limit") or node.args.get("offset")):
            return rows
        scope = Scope(parent, ctes, parent, visible=list(rows.columns))
        self.order_and_limit(node, scope, rows.columns)
        return Rows(rows.columns, rows.dataset.union(*scope.dataset))

    def values(self, node: exp.Values, parent: Scope | None, ctes: Ctes) -> Rows:
        scope = Scope(parent, ctes, parent)
        found: list[list[Value]] = []
        for row in node.expressions:
            cells = row.expressions if isinstance(row, exp.Tuple) else [row.this if isinstance(row, exp.Paren) else row]
            found.append([self.value(cell, scope) for cell in cells])
        if len({len(row) for row in found}) > 1:
            raise self.error(node, "values", "has rows of different lengths")
        columns = tuple(
            (f"column{place}", Value(NONE.union(*(cell.edges for cell in cells))))
            for place, cells in enumerate(zip(*found, strict=True), 1)
        )
        return self.arranged(node, Rows(columns, NONE.union(*scope.dataset)), parent, ctes)

    def set_operation(self, node: exp.SetOperation, parent: Scope | None, ctes: Ctes) -> Rows:
        left = self.query(node.this, parent, ctes)
        right = self.query(node.expression, parent, ctes)
        if len(left.columns) != len(right.columns):
            how = f"has {len(left.columns)} columns on its left and {len(right.columns)} on its right"
            raise self.error(node.expression, _kind(node), how)
        if node.args.get("by_name"):
            raise self.error(node, f"{_kind(node)} by name", "is not PostgreSQL")
        decides = left.dataset | right.dataset
        if isinstance(node, exp.Union):
            columns = tuple((name, _either(one, two)) for (name, one), (_, two) in zip(left.columns, right.columns, strict=True))
            if node.args.get("distinct"):
                decides |= deciding(NONE.union(*(value.edges for _, value in columns)), Subtype.GROUP_BY)
        else:
            # The rows are the left side's; the right one decides which of them.
            columns = left.columns
            decides |= deciding(left.edges | right.edges, Subtype.FILTER)
        return self.arranged(node, Rows(columns, decides), parent, ctes)

    def select(self, node: exp.Select, parent: Scope | None, ctes: Ctes) -> Rows:
        for name in ("laterals", "qualify", "connect", "cluster", "distribute", "sort", "match", "prewhere", "pivots"):
            if node.args.get(name):
                raise self.error(node, name, "is not PostgreSQL")
        scope = Scope(parent, ctes, parent)
        from_ = node.args.get("from_")
        if from_ is not None:
            visible = self.item(from_.this, scope)
            for join in node.args.get("joins") or ():
                visible = self.join(visible, join, scope)
            scope.visible = visible
        where = node.args.get("where")
        if where is not None:
            scope.decides(deciding(self.value(where.this, scope).edges, Subtype.FILTER))
        for window in node.args.get("windows") or ():
            scope.windows[self.identifier(window.this)] = window
        columns = self.outputs(node.expressions, scope)
        group = node.args.get("group")
        if group is not None:
            if group.args.get("all"):
                raise self.error(group, "group by all", "is not PostgreSQL")
            scope.decides(deciding(self.grouped(_group_items(group), scope, columns), Subtype.GROUP_BY))
        having = node.args.get("having")
        if having is not None:
            scope.decides(deciding(self.value(having.this, scope).edges, Subtype.FILTER))
        distinct = node.args.get("distinct")
        if distinct is not None:
            on = distinct.args.get("on")
            if on is None:
                scope.decides(deciding(NONE.union(*(value.edges for _, value in columns)), Subtype.GROUP_BY))
            else:
                items = on.expressions if isinstance(on, exp.Tuple) else [on]
                found = (self.sort_key(item, scope, columns) for item in items)
                scope.decides(deciding(NONE.union(*found), Subtype.GROUP_BY))
        self.order_and_limit(node, scope, columns)
        return self.selected(node, scope, columns)

    def selected(self, node: exp.Select, scope: Scope, columns: Columns) -> Rows:
        """The rows of a select whose parts are known."""
        return Rows(columns, NONE.union(*scope.dataset))

    def order_and_limit(self, node: exp.Expr, scope: Scope, columns: Columns) -> None:
        order = node.args.get("order")
        if order is not None:
            for item in order.expressions:
                key = item.this if isinstance(item, exp.Ordered) else item
                scope.decides(deciding(self.sort_key(key, scope, columns), Subtype.SORT))
        for name in ("limit", "offset"):
            limit = node.args.get(name)
            if limit is not None:
                count = limit.args.get("count") or limit.args.get("expression")
                if count is not None:
                    scope.decides(deciding(self.value(count, scope).edges, Subtype.FILTER))

    def grouped(self, items: Iterable[exp.Expr], scope: Scope, columns: Columns) -> Edges:
        """GROUP BY: a bare name is an input column if there is one, else an output column."""
        found: list[Edges] = []
        for item in items:
            if isinstance(item, exp.Literal) and not item.is_string:
                found.append(self.position(item, columns).edges)
            elif _bare(item) and not any(name == self.identifier(item.this) for name, _ in scope.visible):
                name = self.identifier(item.this)
                outputs = [value.edges for title, value in columns if title == name]
                found += outputs or [self.value(item, scope).edges]
            else:
                found.append(self.value(item, scope).edges)
        return NONE.union(*found)

    def sort_key(self, item: exp.Expr, scope: Scope, columns: Columns) -> Edges:
        """ORDER BY and DISTINCT ON: a bare name is an output column if there is one, else an input column."""
        if isinstance(item, exp.Paren):
            return self.sort_key(item.this, scope, columns)
        if isinstance(item, exp.Literal) and not item.is_string:
            return self.position(item, columns).edges
        if _bare(item):
            outputs = [value.edges for title, value in columns if title == self.identifier(item.this)]
            if outputs:
                return NONE.union(*outputs)
        return self.value(item, scope).edges

    def position(self, item: exp.Literal, columns: Columns) -> Value:
        place = int(item.name) if item.name.isdigit() else 0
        if not 1 <= place <= len(columns):
            raise self.error(item, f"position {item.name}", f"is not in the select list of {len(columns)} columns")
        return columns[place - 1][1]

    def outputs(self, items: Sequence[exp.Expr], scope: Scope) -> Columns:
        """The select list, stars expanded."""
        made: list[tuple[str, Value]] = []
        for item in items:
            expanded = self.expanded(item, scope)
            if expanded is not None:
                made += expanded
                continue
            if isinstance(item, exp.Alias):
                made.append((self.identifier(item.args["alias"]), self.value(item.this, scope)))
            else:
                value = self.value(item, scope)
                made.append((self.title(item)[0] or "?column?", value))
        return tuple(made)

    def expanded(self, item: exp.Expr, scope: Scope) -> Columns | None:
        """The columns that a star means; None where the item is no star."""
        if isinstance(item, exp.Star):
            if item.args.get("except_") or item.args.get("except") or item.args.get("replace") or item.args.get("rename"):
                raise self.error(item, "* with except, replace or rename", "is not PostgreSQL")
            if not scope.relations:
                raise self.error(item, "*", "has no table")
            return tuple(scope.visible)
        if isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
            return self.relation(item, scope).columns
        if isinstance(item, exp.Dot) and isinstance(item.expression, exp.Star):
            value = self.value(item.this, scope)
            if value.fields is None:
                how = "cannot be expanded: the fields of this value are not known"
                raise self.error(item, f"{item.this.sql('postgres')}.*", how)
            return value.fields
        return None

    # -- common table expressions -------------------------------------------------------------------------------------

    def with_ctes(self, with_: exp.With, parent: Scope | None, around: Ctes) -> Ctes:
        recursive = bool(with_.args.get("recursive"))
        ctes = Ctes(around)
        last = with_.expressions[-1] if with_.expressions else None
        for node in with_.expressions:
            if not recursive:
                ctes = Ctes(ctes)  # each sees those before it
            alias = node.args["alias"]
            name = self.identifier(alias.this)
            if recursive and name in ctes.by_name:
                raise self.error(node, f"with {name}", "is there twice")
            search = with_.args.get("search") if node is last else None
            seen = ctes if recursive else ctes.around or Ctes()
            ctes.by_name[name] = Cte(self.evaluator(node, parent, seen, search, name))
            if isinstance(node.this, CHANGES):
                self.changing.append((ctes.by_name[name], node, name))
        return ctes

    def evaluator(
        self, node: exp.CTE, parent: Scope | None, ctes: Ctes, search: exp.Expr | None, name: str
    ) -> Callable[[Cte], Rows]:
        titles = [self.identifier(part) for part in node.args["alias"].args.get("columns") or ()]

        def named(rows: Rows) -> Rows:
            columns = self.renamed(rows.columns, titles, node, name)
            if search is not None:
                columns, more = self.searched(columns, search)
                return Rows(columns, rows.dataset | more)
            return Rows(columns, rows.dataset)

        def evaluate(cte: Cte) -> Rows:
            query = node.this
            if isinstance(query, CHANGES):
                cte.change, returned = changed(self, query, ctes)
                cte.silent = returned is None
                return named(returned) if returned is not None else Rows(())
            if not isinstance(query, exp.SetOperation) or not _mentions(query, name):
                return named(self.query(query, parent, ctes))
            with_ = query.args.get("with_")
            inner = self.with_ctes(with_, parent, ctes) if with_ is not None else ctes
            start = self.query(query.this, parent, inner)
            if cte.used:
                raise self.error(node, f"with recursive {name}", "refers to itself before its union")
            if not isinstance(query, exp.Union):
                raise self.error(node, f"with recursive {name}", "recurses by something other than union")
            rows = start
            while True:
                cte.so_far = named(rows)
                step = self.query(query.expression, parent, inner)
                if len(step.columns) != len(start.columns):
                    raise self.error(node, f"with recursive {name}", "has different numbers of columns on its two sides")
                columns = tuple(
                    (title, _either(one, two)) for (title, one), (_, two) in zip(rows.columns, step.columns, strict=True)
                )
                decides = rows.dataset | step.dataset
                if query.args.get("distinct"):
                    decides |= deciding(NONE.union(*(value.edges for _, value in columns)), Subtype.GROUP_BY)
                grown = Rows(columns, decides)
                if grown == rows:
                    return named(self.arranged(query, rows, parent, inner))
                rows = grown

        return evaluate

    def searched(self, columns: Columns, search: exp.Expr) -> tuple[Columns, Edges]:
        """The columns that SEARCH and CYCLE add."""
        key = self.identifier(search.this)
        edges = NONE.union(*(value.edges for title, value in columns if title == key))
        if not any(title == key for title, _ in columns):
            raise self.error(search, f"column {key}", "of search or cycle does not exist")
        added = [search.args.get("expression"), search.args.get("using")]
        made = Value(carried(edges, Subtype.TRANSFORMATION))
        more = tuple((self.identifier(part), made) for part in added if isinstance(part, exp.Identifier))
        cycles = "CYCLE" in str(search.args.get("kind") or "").upper()
        return columns + more, deciding(edges, Subtype.FILTER) if cycles else NONE

    def cte_rows(self, cte: Cte, node: exp.Expr, name: str) -> Rows:
        if cte.rows is not None:
            return cte.rows
        if cte.walking:
            cte.used = True
            if cte.so_far is None:
                raise self.error(node, f"with {name}", "refers to itself where that is not possible")
            return cte.so_far
        cte.walking = True
        try:
            cte.rows = cte.evaluate(cte)
        finally:
            cte.walking = False
        return cte.rows

    # -- from ---------------------------------------------------------------------------------------------------------

    def item(self, node: exp.Expr, scope: Scope) -> list[tuple[str, Value]]:
        """One item of FROM with the joins that hang on it; the columns that it brings in sight."""
        visible = self.single(node, scope)
        for join in node.args.get("joins") or ():
            visible = self.join(visible, join, scope)
        return visible

    def single(self, node: exp.Expr, scope: Scope) -> list[tuple[str, Value]]:
        for name in ("pivots", "laterals", "when", "changes"):
            if node.args.get(name):
                raise self.error(node, name, "is not PostgreSQL")
        lateral = isinstance(node, exp.Lateral)
        alias, ordinality = node.args.get("alias"), node.args.get("ordinality")
        if lateral:
            inner = node.this
            if isinstance(inner, exp.Subquery):
                return self.derived(inner, alias, scope, scope)
            if isinstance(inner, exp.Unnest):
                return self.function([inner], alias or inner.args.get("alias"), inner.args.get("offset") or ordinality, scope)
            return self.function([inner], alias, ordinality, scope)
        if isinstance(node, exp.Table):
            if node.args.get("rows_from"):
                parts = [part.this if isinstance(part, exp.Table) else part for part in node.args["rows_from"]]
                return self.function(parts, alias, ordinality, scope)
            if isinstance(node.this, exp.Identifier):
                return self.table(node, alias, scope)
            return self.function([node.this], alias, ordinality, scope)
        if isinstance(node, exp.Unnest):
            return self.function([node], alias, node.args.get("offset"), scope)
        if isinstance(node, exp.Values):
            rows = self.values(node, scope.outer, scope.ctes)
            return self.enter(node, alias, "*VALUES*", rows.columns, rows.dataset, scope)
        if isinstance(node, exp.Subquery):
            if isinstance(node.this, exp.Table) or (isinstance(node.this, exp.Subquery) and node.this.args.get("joins")):
                return self.joined(node, alias, scope)
            return self.derived(node, alias, scope, scope.outer)
        raise self.error(node, _kind(node), "in FROM is not known")

    def table(self, node: exp.Table, alias: exp.Expr | None, scope: Scope) -> list[tuple[str, Value]]:
        name = self.identifier(node.this)
        db = self.identifier(node.args["db"]) if node.args.get("db") is not None else None
        cte = scope.ctes.find(name) if db is None else None
        if cte is not None:
            rows = self.cte_rows(cte, node, name)
            if cte.silent:
                raise self.error(
                    node, f"with {name}", "changes a table and returns nothing that could be read; give it RETURNING"
                )
            return self.enter(node, alias, name, rows.columns, rows.dataset, scope)
        found = self.schema.find(db, name)
        if found is None:
            shown = f"{db}.{name}" if db else name
            raise self.error(node, f"table {shown}", "is not in the schema")
        if isinstance(found, View):
            rows = self.view(found, node)
            return self.enter(node, alias, name, rows.columns, rows.dataset, scope, schema=db)
        columns = tuple((column, Value(frozenset((Edge(found.name, column, Subtype.IDENTITY),)))) for column in found.columns)
        return self.enter(node, alias, name, columns, NONE, scope, base=found.name, schema=db or self.schema_of(found))

    def schema_of(self, table: Table | View) -> str | None:
        return next((place[0] for place, other in self.schema.tables.items() if other is table), None)

    def view(self, view: View, node: exp.Expr) -> Rows:
        """The rows of a view's query, walked once for the whole statement."""
        if view.name in self.views:
            known = self.views[view.name]
            if known is None:
                raise self.error(node, f"view {view.name}", "refers to itself")
            return known
        self.views[view.name] = None
        walk = self.of_view(view)
        made = walk.parsed()
        titles: list[str] | None = None
        if isinstance(made, exp.Create) and made.expression is not None:
            _, titles, made = walk.created(made)
        rows = walk.query(made, None, Ctes())
        if titles:
            rows = Rows(walk.renamed(rows.columns, titles, made, view.name), rows.dataset)
        self.views[view.name] = rows
        return rows

    def of_view(self, view: View) -> _Walk:
        return _Walk(view.sql, self.schema, f"view {view.name}", self.views)

    def derived(self, node: exp.Subquery, alias: exp.Expr | None, scope: Scope, sees: Scope | None) -> list[tuple[str, Value]]:
        rows = self.query(_unaliased(node), sees, scope.ctes)
        return self.enter(node, alias or node.args.get("alias"), "", rows.columns, rows.dataset, scope)

    def joined(self, node: exp.Subquery, alias: exp.Expr | None, scope: Scope) -> list[tuple[str, Value]]:
        """A join in parentheses: with an alias it is one relation, without its relations stay in sight."""
        if alias is None:
            return self.item(node.this, scope)
        inner = Scope(scope, scope.ctes, scope.outer)
        visible = self.item(node.this, inner)
        return self.enter(node, alias, "", tuple(visible), NONE.union(*inner.dataset), scope)

    def enter(
        self,
        node: exp.Expr,
        alias: exp.Expr | None,
        name: str,
        columns: Columns,
        dataset: Edges,
        scope: Scope,
        *,
        base: str | None = None,
        schema: str | None = None,
        scalar: bool = False,
    ) -> list[tuple[str, Value]]:
        """A relation comes in sight under its alias or name; what decides its rows decides those of the query."""
        if alias is not None:
            if alias.this is not None:
                name, schema = self.identifier(alias.this), None
            titles = [part.this if isinstance(part, exp.ColumnDef) else part for part in alias.args.get("columns") or ()]
            columns = self.renamed(columns, [self.identifier(part) for part in titles], node, name)
        scope.decides(dataset)
        # A subquery without a name cannot be referred to, only its columns.
        key = name or f"\0{len(scope.relations)}"
        if key in scope.relations:
            if scope.relations[key].schema == schema:
                raise self.error(node, f"the name {name}", "is given to two tables of the same FROM")
            key = f"{schema}\0{name}"
        scope.relations[key] = Relation(name, columns, base, schema, scalar)
        return list(columns)

    def renamed(self, columns: Columns, titles: list[str], node: exp.Expr, name: str) -> Columns:
        if len(titles) > len(columns):
            raise self.error(node, f"the column list of {name}", f"has {len(titles)} names for {len(columns)} columns")
        if not titles:
            return columns
        return tuple((title, value) for title, (_, value) in zip(titles, columns, strict=False)) + columns[len(titles) :]

    def join(self, left: list[tuple[str, Value]], join: exp.Join, scope: Scope) -> list[tuple[str, Value]]:
        before = scope.visible
        scope.visible = before + left  # what is lateral sees what stands before it
        right = self.item(join.this, scope)
        kind, side, method = (str(join.args.get(name) or "").upper() for name in ("kind", "side", "method"))
        if kind in ("SEMI", "ANTI") or method not in ("", "NATURAL"):
            raise self.error(join, f"{method or kind} join".lower(), "is not PostgreSQL")
        on, using = join.args.get("on"), [self.identifier(part) for part in join.args.get("using") or ()]
        if method == "NATURAL":
            there = {name for name, _ in right}
            using = list(dict.fromkeys(name for name, _ in left if name in there))
        visible = left + right
        if using:
            merged = []
            for name in using:
                ones, twos = ([value for title, value in side_ if title == name] for side_ in (left, right))
                if len(ones) != 1 or len(twos) != 1:
                    how = "is not on both sides" if not ones or not twos else "is there more than once on a side"
                    at = next((part for part in join.args.get("using") or () if self.identifier(part) == name), join)
                    raise self.error(at, f"column {name} of using", how)
                one, two = ones[0], twos[0]
                scope.decides(deciding(one.edges | two.edges, Subtype.JOIN))
                if side == "FULL":
                    both = one.edges | two.edges
                    merged.append((name, Value(both | deciding(both, Subtype.CONDITIONAL))))
                else:
                    merged.append((name, two if side == "RIGHT" else one))
            rest = [column for column in (*left, *right) if column[0] not in using]
            visible = merged + rest
            self.name_join(join, tuple(merged), scope)
        elif on is not None:
            scope.visible = left + right
            scope.decides(deciding(self.value(on, scope).edges, Subtype.JOIN))
        scope.visible = before
        return visible

    def name_join(self, join: exp.Join, merged: Columns, scope: Scope) -> None:
        """``using (a, b) as j``: j has the merged columns and hides nothing."""
        last = join.args["using"][-1] if join.args.get("using") else None
        name = self.join_names.get(last.meta.get("start", -1)) if last is not None else None
        if name is None:
            return
        if name in scope.relations:
            raise self.error(join, f"the name {name}", "is given to two tables of the same FROM")
        scope.relations[name] = Relation(name, merged)

    # -- functions in from --------------------------------------------------------------------------------------------

    def function(
        self, nodes: Sequence[exp.Expr], alias: exp.Expr | None, ordinality: Any, scope: Scope
    ) -> list[tuple[str, Value]]:
        """Functions in FROM: one, or several side by side."""
        alias_name = self.identifier(alias.this) if alias is not None and alias.this is not None else ""
        titles = list(alias.args.get("columns") or ()) if alias is not None else []
        defined = [self.identifier(part.this) for part in titles if isinstance(part, exp.ColumnDef)]
        columns: list[tuple[str, Value]] = []
        scalar = len(nodes) == 1 and not ordinality
        first_name = ""
        for node in nodes:
            if isinstance(node, exp.Dot):
                node = node.expression
            name = self.function_name(node)
            first_name = first_name or name
            made, is_scalar, is_set = self.function_columns(node, name, alias_name if len(nodes) == 1 else "", defined, scope)
            if is_set:
                scope.decides(deciding(NONE.union(*(value.edges for _, value in made)), Subtype.JOIN))
            columns += made
            scalar = scalar and is_scalar
        if ordinality:
            title = self.identifier(ordinality) if isinstance(ordinality, exp.Identifier) else "ordinality"
            columns.append((title, _EMPTY))
        return self.enter(nodes[0], alias, alias_name or first_name, tuple(columns), NONE, scope, scalar=scalar)

    def function_columns(
        self, node: exp.Expr, name: str, alias: str, defined: list[str], scope: Scope
    ) -> tuple[list[tuple[str, Value]], bool, bool]:
        """Columns of a function in FROM, whether it is of one value, and whether it gives several rows."""
        if isinstance(node, exp.Unnest):
            values = [self.value(part, scope) for part in node.expressions]
            titles = [alias or "unnest"] if len(values) == 1 else ["unnest"] * len(values)
            made = [(title, _made_of(value.edges)) for title, value in zip(titles, values, strict=True)]
            return made, len(made) == 1, True
        if isinstance(node, (exp.JSONTable, exp.XMLTable)):
            defaults = (
                part for column in node.find_all(exp.JSONColumnDef, exp.ColumnDef) for part in column.find_all(exp.Column)
            )
            inputs = [node.this, *(node.args.get("passing") or ()), *defaults]
            value = _made_of(NONE.union(*(self.value(part, scope).edges for part in inputs if part is not None)))
            found = [part for part in node.find_all(exp.JSONColumnDef, exp.ColumnDef) if part.this is not None]
            return [(self.identifier(part.this), value) for part in found], False, True
        value = self.arguments(node, scope)
        is_set = name in names.SETS
        if defined:
            return [(title, value) for title in defined], False, is_set
        if name in names.RECORDS:
            return [(title, value) for title in names.RECORDS[name]], False, is_set
        if name in names.FIELDS_BY_TYPE:
            fields = self.populated(node, scope)
            if fields is None:
                raise self.error(node, f"{name} in FROM", "has a type whose columns are not known; list them after the alias")
            return [(title, value) for title, _ in fields], False, is_set
        if name in names.FIELDS_BY_ALIAS:
            raise self.error(node, f"{name} in FROM", "needs its columns named: as x(a integer, …)")
        if name in names.NAMED_RESULT:
            return [(names.NAMED_RESULT[name], value)], True, True
        if name in names.SETS or name in names.SCALARS_IN_FROM:
            return [(alias or name, value)], True, is_set
        raise self.error(node, f"function {name} in FROM", "is not known: which columns and rows it gives cannot be told")

    def arguments(self, node: exp.Expr, scope: Scope) -> Value:
        return _made_of(NONE.union(*(self.value(part, scope).edges for part in node.iter_expressions())))

    def populated(self, node: exp.Expr, scope: Scope) -> Columns | None:
        """The fields of the row type of a first argument such as ``null::t``."""
        first = next(iter(node.expressions), None)
        return self.value(first, scope).fields if first is not None else None

    # -- names --------------------------------------------------------------------------------------------------------

    def identifier(self, node: exp.Expr) -> str:
        if isinstance(node, exp.Identifier):
            return folded(node.name, bool(node.args.get("quoted")))
        return folded(node.name, False)

    def relation(self, node: exp.Column, scope: Scope) -> Relation:
        """The relation that a column is qualified with, here or in a query around."""
        name = self.identifier(node.args["table"])
        schema = self.identifier(node.args["db"]) if node.args.get("db") is not None else None
        here: Scope | None = scope
        while here is not None:
            found = here.relations.get(name)
            if found is not None and schema in (None, found.schema):
                return found
            if schema is not None and (found := here.relations.get(f"{schema}\0{name}")) is not None:
                return found
            here = here.parent
        shown = f"{schema}.{name}" if schema else name
        raise self.error(node, f"table {shown}", "is not in FROM here")

    def column(self, node: exp.Column, scope: Scope) -> Value:
        if isinstance(node.this, exp.Star):
            return self.relation(node, scope).row() if node.args.get("table") is not None else _EMPTY
        name = self.identifier(node.this)
        if node.args.get("table") is not None:
            relation = self.relation(node, scope)
            found = [value for title, value in relation.columns if title == name]
            if not found and relation.base and name in names.SYSTEM_COLUMNS:
                return _system(relation.base, name)
            if len(found) != 1:
                how = "does not exist" if not found else "is ambiguous"
                raise self.error(node, f"column {relation.name}.{name}", how)
            return found[0]
        if name in names.RESERVED_VALUES and not node.this.args.get("quoted"):
            return _EMPTY
        return self.bare(name, node, scope)

    def bare(self, name: str, node: exp.Expr, scope: Scope) -> Value:
        """A name without a table: a column of the nearest query that has one, else the row of a relation of that name."""
        here: Scope | None = scope
        while here is not None:
            found = [value for title, value in here.visible if title == name]
            if len(found) == 1:
                return found[0]
            if found:
                raise self.error(node, f"column {name}", "is ambiguous: several tables have it")
            if name in names.SYSTEM_COLUMNS:
                bases = [relation.base for relation in here.relations.values() if relation.base]
                if len(bases) == 1:
                    return _system(bases[0], name)
            here = here.parent
        here = scope
        while here is not None:
            if name in here.relations:
                return here.relations[name].row()
            here = here.parent
        raise self.error(node, f"column {name}", "does not exist in any table in sight")

    def function_name(self, node: exp.Expr) -> str:
        """The name as it was written; sqlglot gives many functions one class."""
        if isinstance(node, exp.Anonymous):
            return str(node.name).lower()
        start, end = node.meta.get("start"), node.meta.get("end")
        if isinstance(start, int) and isinstance(end, int):
            return self.sql[start : end + 1].lower()
        special = _SPECIAL_NAMES.get(type(node))
        if special is not None:
            return special
        if isinstance(node, exp.Trim):
            return {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or "").upper(), "btrim")
        # Some are known by what stands before their arguments only.
        for kind, name, other in ((exp.Extract, "extract", "date_part"), (exp.Ceil, "ceil", "ceiling")):
            if isinstance(node, kind):
                first = min((part.meta["start"] for part in node.walk() if "start" in part.meta), default=0)
                before = self.sql[:first].lower()
                return other if before.rfind(other) >= max(before.rfind(name), 0) else name
        if isinstance(node, (exp.CurrentDate, exp.CurrentTime, exp.CurrentTimestamp, exp.CurrentUser)):
            return node.sql_name().lower()
        return node.sql("postgres").partition("(")[0].strip().lower()

    def title(self, node: exp.Expr) -> tuple[str, int]:
        """What PostgreSQL calls a column without an alias, and how sure it is (2: a name, 1: a type or ``case``, 0: nothing)."""
        if isinstance(node, exp.Column):
            return ("", 0) if isinstance(node.this, exp.Star) else (self.identifier(node.this), 2)
        if isinstance(node, exp.Alias):
            return self.identifier(node.args["alias"]), 2
        if isinstance(node, exp.Dot):
            if isinstance(node.expression, exp.Identifier):
                return self.identifier(node.expression), 2
            return self.title(node.expression)
        if isinstance(node, (exp.Paren, exp.Collate, exp.Window, exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.Bracket)):
            return self.title(node.this)
        if isinstance(node, exp.Cast):
            name, sure = self.title(node.this)
            return (name, sure) if sure > 1 else (_type_name(node), 1)
        if isinstance(node, exp.Case):
            default = node.args.get("default")
            name, sure = self.title(default) if default is not None else ("", 0)
            return (name, sure) if sure > 1 else ("case", 1)
        if isinstance(node, exp.Subquery):
            return self.title(node.this)
        if isinstance(node, exp.Select):
            return self.title(node.expressions[0]) if node.expressions else ("", 0)
        if isinstance(node, exp.SetOperation):
            return self.title(node.this)
        if isinstance(node, exp.Values):
            return "column1", 2
        if isinstance(node, exp.Interval):
            return "interval", 1
        if isinstance(node, exp.Mod) and "start" not in node.meta:
            return "", 0
        special = _SPECIAL_NAMES.get(type(node))
        if special is not None and "start" not in node.meta:
            return special, 2
        if isinstance(node, (exp.Any, exp.All, exp.Binary, exp.Predicate)) and "start" not in node.meta:
            return "", 0
        if isinstance(node, exp.Func):
            name = self.function_name(node)
            # What is no call in the text is an operator, whatever function sqlglot makes of it.
            called = "start" in node.meta or isinstance(node, (exp.Trim, exp.Ceil)) or name in self.sql.lower()
            return (name, 2) if called and _NAME.fullmatch(name) else ("", 0)
        return "", 0

    # -- expressions --------------------------------------------------------------------------------------------------

    def value(self, node: exp.Expr, scope: Scope) -> Value:
        kind = type(node)
        handler = _HANDLERS.get(kind)
        if handler is None:
            handler = _HANDLERS[kind] = _handler_for(kind)
        return handler(self, node, scope)

    def leaf(self, node: exp.Expr, scope: Scope) -> Value:
        return _EMPTY

    def inside(self, node: exp.Expr, scope: Scope) -> Value:
        return self.value(node.this, scope)

    def generic(self, node: exp.Expr, scope: Scope) -> Value:
        edges = [found for part in node.iter_expressions() if (found := self.value(part, scope).edges)]
        return _made_of(NONE.union(*edges)) if edges else _EMPTY

    def absolute(self, node: exp.Parameter, scope: Scope) -> Value:
        """``@ x``, which sqlglot takes for a parameter called x."""
        name = node.this
        if isinstance(name, (exp.Var, exp.Identifier)):
            return _made_of(self.bare(self.identifier(name), node, scope).edges)
        return self.generic(node, scope)

    def unknown(self, node: exp.Expr, scope: Scope) -> Value:
        """A name that no construct has told the meaning of: it may be a column."""
        around = node.parent
        if isinstance(around, exp.Lambda):
            return _EMPTY  # its argument, which is looked up there
        if isinstance(around, exp.XMLElement) and around.this is node:
            return _EMPTY
        what = f"{_kind(around)} with {node.name}" if around is not None else node.name
        raise self.error(node, what, "is not a construct whose lineage is known")

    def connector(self, node: exp.Connector, scope: Scope) -> Value:
        # Long chains are deep trees; flat, they need no deep stack.
        parts = [self.value(part, scope).edges for part in node.flatten(unnest=False)]
        return _made_of(NONE.union(*parts))

    def second(self, node: exp.Expr, scope: Scope) -> Value:
        """Named arguments: the name is not looked up."""
        return self.value(node.expression, scope)

    def arrow(self, node: exp.Lambda, scope: Scope) -> Value:
        """``j -> 'a'`` as an argument, which sqlglot takes for a function of j."""
        found = [self.bare(self.identifier(part), node, scope).edges for part in node.expressions]
        return _made_of(NONE.union(self.value(node.this, scope).edges, *found))

    def case(self, node: exp.Case, scope: Scope) -> Value:
        found: list[Edges] = []
        if node.this is not None:
            found.append(deciding(self.value(node.this, scope).edges, Subtype.CONDITIONAL))
        for branch in node.args["ifs"]:
            found.append(deciding(self.value(branch.this, scope).edges, Subtype.CONDITIONAL))
            found.append(self.value(branch.args["true"], scope).edges)
        if node.args.get("default") is not None:
            found.append(self.value(node.args["default"], scope).edges)
        return Value(NONE.union(*found))

    def coalesce(self, node: exp.Coalesce, scope: Scope) -> Value:
        values = NONE.union(*(self.value(part, scope).edges for part in (node.this, *node.expressions)))
        return Value(values | deciding(values, Subtype.CONDITIONAL))

    def nullif(self, node: exp.Nullif, scope: Scope) -> Value:
        one, two = self.value(node.this, scope).edges, self.value(node.expression, scope).edges
        return Value(one | deciding(one | two, Subtype.CONDITIONAL))

    def cast(self, node: exp.Cast, scope: Scope) -> Value:
        value = self.value(node.this, scope)
        to = node.args["to"]
        fields: Columns | None = None
        kind = to.args.get("kind") if isinstance(to, exp.DataType) else None
        if kind is not None:
            # A table's name is the type of its rows.
            named = kind.find_all(exp.Identifier) if isinstance(kind, exp.Expr) else ()
            parts = [self.identifier(part) for part in named] or [str(kind)]
            found = self.schema.find(parts[-2] if len(parts) > 1 else None, str(parts[-1]))
            if isinstance(found, Table):
                edges = carried(value.edges, Subtype.TRANSFORMATION)
                fields = tuple((column, Value(edges)) for column in found.columns)
        return Value(carried(value.edges, Subtype.TRANSFORMATION), fields)

    def row(self, node: exp.Expr, scope: Scope) -> Value:
        """``row(a, t.*)`` and ``(a, b)``: fields f1, f2 …"""
        values: list[Value] = []
        for part in node.expressions:
            expanded = self.expanded(part, scope)
            values += [value for _, value in expanded] if expanded is not None else [self.value(part, scope)]
        edges = carried(NONE.union(*(value.edges for value in values)), Subtype.TRANSFORMATION)
        return Value(edges, tuple((f"f{place}", value) for place, value in enumerate(values, 1)))

    def dot(self, node: exp.Dot, scope: Scope) -> Value:
        part = node.expression
        if isinstance(part, exp.Func):  # a function with its schema
            return self.value(part, scope)
        value = self.value(node.this, scope)
        if isinstance(part, exp.Star):
            return value
        name = self.identifier(part)
        if value.fields is None:
            return _made_of(value.edges)
        found = [field for title, field in value.fields if title == name]
        if len(found) != 1:
            raise self.error(part, f"field {name}", "does not exist in this row" if not found else "is there more than once")
        return found[0]

    def anonymous(self, node: exp.Anonymous, scope: Scope) -> Value:
        return self.call(node, str(node.name).lower(), scope)

    def typed(self, node: exp.Func, scope: Scope) -> Value:
        return self.call(node, self.function_name(node), scope)

    def call(self, node: exp.Expr, name: str, scope: Scope) -> Value:
        if name == "row":
            return self.row(node, scope)
        parts = [found for part in node.iter_expressions() if (found := self.value(part, scope).edges)]
        edges = NONE.union(*parts) if parts else NONE
        masking = name in names.ONE_WAY
        if name in names.AGGREGATES:
            return Value(carried(edges, Subtype.AGGREGATION, masking))
        made = Value(carried(edges, Subtype.TRANSFORMATION, masking))
        if name in names.SETS:
            scope.decides(deciding(edges, Subtype.JOIN))
        if name in names.RECORDS:
            return Value(made.edges, tuple((title, made) for title in names.RECORDS[name]))
        if name in names.FIELDS_BY_TYPE:
            fields = self.populated(node, scope)
            return Value(made.edges, tuple((title, made) for title, _ in fields) if fields is not None else None)
        return made

    def aggregate(self, node: exp.Expr, scope: Scope) -> Value:
        parts = [found for part in node.iter_expressions() if (found := self.value(part, scope).edges)]
        edges = NONE.union(*parts) if parts else NONE
        return Value(carried(edges, Subtype.AGGREGATION, self.function_name(node) in names.ONE_WAY))

    def count(self, node: exp.Count, scope: Scope) -> Value:
        argument = node.this
        value = self.value(argument, scope) if argument is not None else _EMPTY
        if value.fields is not None:
            # A row is counted whatever its fields are, unless a join did not find it.
            return Value(frozenset(edge for edge in value.edges if not edge.direct))
        more = NONE.union(*(self.value(part, scope).edges for part in node.expressions))
        return Value(carried(value.edges | more, Subtype.AGGREGATION, True))

    def distinct(self, node: exp.Distinct, scope: Scope) -> Value:
        """``count(distinct …)``; its values count, rows too, so it tells no fields."""
        return Value(NONE.union(*(self.value(part, scope).edges for part in node.expressions)))

    def ordered_argument(self, node: exp.Order, scope: Scope) -> Value:
        """``string_agg(x order by y)``, and what follows WITHIN GROUP."""
        keys = NONE.union(*(self.value(part.this, scope).edges for part in node.expressions))
        if node.this is None:
            return Value(keys)
        return Value(self.value(node.this, scope).edges | deciding(keys, Subtype.SORT))

    def within_group(self, node: exp.WithinGroup, scope: Scope) -> Value:
        edges = self.value(node.this, scope).edges | self.value(node.expression, scope).edges
        return Value(carried(edges, Subtype.AGGREGATION))

    def filtered(self, node: exp.Filter, scope: Scope) -> Value:
        edges = self.value(node.this, scope).edges
        return Value(edges | deciding(self.value(node.expression.this, scope).edges, Subtype.CONDITIONAL))

    def window(self, node: exp.Window, scope: Scope) -> Value:
        edges = self.value(node.this, scope).edges
        return Value(edges | deciding(NONE.union(*self.window_parts(node, scope, 0)), Subtype.WINDOW))

    def window_parts(self, node: exp.Window, scope: Scope, depth: int) -> Iterable[Edges]:
        for part in node.args.get("partition_by") or ():
            yield self.value(part, scope).edges
        order = node.args.get("order")
        if order is not None:
            for part in order.expressions:
                yield self.value(part.this, scope).edges
        spec = node.args.get("spec")
        if spec is not None:
            for end in (spec.args.get("start"), spec.args.get("end")):
                if isinstance(end, exp.Expr):
                    yield self.value(end, scope).edges
        named = node.args.get("alias")
        if named is not None:
            name = self.identifier(named)
            if name not in scope.windows or depth > len(scope.windows):
                raise self.error(named, f"window {name}", "is not defined")
            yield from self.window_parts(scope.windows[name], scope, depth + 1)

    def scalar(self, node: exp.Expr, scope: Scope) -> Value:
        """A query as a value, or as the set that a value is compared with."""
        rows = self.query(_unaliased(node), scope, scope.ctes)
        fields = rows.columns[0][1].fields if len(rows.columns) == 1 else None
        return Value(rows.edges | rows.dataset, fields)

    def exists(self, node: exp.Exists, scope: Scope) -> Value:
        """Whether there are rows: their values do not matter."""
        return Value(self.query(_unaliased(node.this), scope, scope.ctes).dataset)

    def array(self, node: exp.Array, scope: Scope) -> Value:
        parts = node.expressions
        if len(parts) == 1 and isinstance(parts[0], exp.Query):
            rows = self.query(_unaliased(parts[0]), scope, scope.ctes)
            return Value(carried(rows.edges, Subtype.AGGREGATION) | rows.dataset)
        return self.generic(node, scope)

    def grouping(self, node: exp.Grouping, scope: Scope) -> Value:
        """It tells by which columns was grouped, never what they hold; they must exist nevertheless."""
        for part in node.expressions:
            self.value(part, scope)
        return _EMPTY

    def error(self, node: exp.Expr, construct: str, reason: str) -> LineageError:
        line, column = _place(node)
        return LineageError(construct, reason, line, column, self.statement_name)


_EXACT: tuple[tuple[type[exp.Expr], _Handler], ...] = (
    (exp.Column, _Walk.column),
    (exp.Identifier, _Walk.unknown),
    (exp.Parameter, _Walk.absolute),
    (exp.Paren, _Walk.inside),
    (exp.Alias, _Walk.inside),
    (exp.Collate, _Walk.inside),
    (exp.Where, _Walk.inside),
    (exp.Connector, _Walk.connector),
    (exp.Kwarg, _Walk.second),
    (exp.PropertyEQ, _Walk.second),
    (exp.Lambda, _Walk.arrow),
    (exp.Case, _Walk.case),
    (exp.Coalesce, _Walk.coalesce),
    (exp.Nullif, _Walk.nullif),
    (exp.Cast, _Walk.cast),
    (exp.Tuple, _Walk.row),
    (exp.Dot, _Walk.dot),
    (exp.Count, _Walk.count),
    (exp.Distinct, _Walk.distinct),
    (exp.Order, _Walk.ordered_argument),
    (exp.WithinGroup, _Walk.within_group),
    (exp.Filter, _Walk.filtered),
    (exp.Window, _Walk.window),
    (exp.Query, _Walk.scalar),
    (exp.Values, _Walk.scalar),
    (exp.Exists, _Walk.exists),
    (exp.Array, _Walk.array),
    (exp.Grouping, _Walk.grouping),
    (exp.Anonymous, _Walk.anonymous),
)
_HANDLERS: dict[type[exp.Expr], _Handler] = {}


def _handler_for(kind: type[exp.Expr]) -> _Handler:
    for known, handler in _EXACT:
        if issubclass(kind, known):
            return handler
    if issubclass(kind, _LEAVES):
        return _Walk.leaf
    if issubclass(kind, exp.AggFunc) and not issubclass(kind, _WINDOW_ONLY):
        return _Walk.aggregate
    if issubclass(kind, exp.Func) and not issubclass(kind, (exp.Binary, exp.Connector)):
        return _Walk.typed
    return _Walk.generic


def handler_of(node: exp.Expr) -> str:
    """The name of the method that tells the value of such a node, for walks that tell more than this one."""
    kind = type(node)
    handler = _HANDLERS.get(kind)
    if handler is None:
        handler = _HANDLERS[kind] = _handler_for(kind)
    return handler.__name__


def group_items(node: exp.Expr) -> Iterable[exp.Expr]:
    """The expressions of GROUP BY, out of their sets."""
    return _group_items(node)


def _made_of(edges: Edges) -> Value:
    return Value(carried(edges, Subtype.TRANSFORMATION)) if edges else _EMPTY


def _either(one: Value, two: Value) -> Value:
    """A column that comes from two queries."""
    fields = one.fields
    if fields is not None:
        other = two.fields
        fields = (
            tuple((title, _either(a, b)) for (title, a), (_, b) in zip(fields, other, strict=True))
            if other is not None and len(other) == len(fields)
            else None
        )
    return Value(one.edges | two.edges, fields)


def _system(base: str, name: str) -> Value:
    return Value(frozenset((Edge(base, name, Subtype.IDENTITY),)))


def _edges(columns: Columns) -> tuple[tuple[str, Edges], ...]:
    return tuple((name, value.edges) for name, value in columns)


def _into(node: exp.Expr) -> exp.Expr | None:
    """``select … into t``, in a union of its first query."""
    while isinstance(node, exp.SetOperation):
        node = node.this
    into = node.args.get("into")
    return into if isinstance(into, exp.Into) else None


def _bare(node: exp.Expr) -> bool:
    return isinstance(node, exp.Column) and node.args.get("table") is None and isinstance(node.this, exp.Identifier)


def _group_items(node: exp.Expr) -> Iterable[exp.Expr]:
    """The expressions of GROUP BY, out of their sets."""
    parts = list(node.expressions)
    for name in ("grouping_sets", "cube", "rollup"):
        parts += [part for part in node.args.get(name) or () if isinstance(part, exp.Expr)]
    for part in parts:
        if isinstance(part, (exp.GroupingSets, exp.Rollup, exp.Cube, exp.Tuple)):
            yield from _group_items(part)
        elif isinstance(part, exp.Paren):
            inner = part.this
            if isinstance(inner, exp.Tuple):
                yield from _group_items(inner)
            else:
                yield inner
        else:
            yield part


def _mentions(query: exp.Expr, name: str) -> bool:
    return any(
        isinstance(table.this, exp.Identifier)
        and not table.args.get("db")
        and folded(table.name, bool(table.this.args.get("quoted"))) == name
        for table in query.find_all(exp.Table)
    )


def _unaliased(node: exp.Expr) -> exp.Expr:
    """The query within parentheses, if nothing else is said of these."""
    while isinstance(node, exp.Subquery) and not any(node.args.get(name) for name in ("with_", "order", "limit", "offset")):
        node = node.this
    return node


def _type_name(node: exp.Cast) -> str:
    to = node.args["to"]
    if not isinstance(to, exp.DataType):
        return str(to.name).lower()
    if to.is_type(exp.DataType.Type.ARRAY) and to.expressions:
        to = to.expressions[0]
    written = to.sql("postgres").partition("(")[0].strip().rpartition(".")[2].strip('"').lower()
    return str(names.TYPE_NAMES.get(written, written))


def _kind(node: object) -> str:
    return type(node).__name__.lower()


def _place(node: exp.Expr) -> tuple[int, int]:
    """Line and column where the node begins: of the first name in it that knows, else of one around it."""
    around: exp.Expr | None = node
    for _ in range(4):
        if around is None:
            break
        found = [part.meta for part in around.walk() if "line" in part.meta]
        if found:
            first = min(found, key=lambda meta: int(meta.get("start", 0)))
            return int(first["line"]), int(first["col"]) - (int(first["end"]) - int(first["start"]) if "end" in first else 0)
        around = around.parent
    return 1, 1
