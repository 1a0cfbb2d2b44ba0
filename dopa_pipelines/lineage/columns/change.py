"""What insert, update, delete and merge make of a table, and what RETURNING gives of it.

Belongs here: what each clause does with rows and values. Does not belong here: names and expressions (``walk``).

The output of an ``insert`` are the rows that it puts in. The output of the others, and of ``on conflict do update``, is the whole
table as it is afterwards, each column of it:

- what no clause sets keeps itself: IDENTITY;
- what is set has the edges of its expression, and, where only some rows are changed, itself as well (the others keep it) and
  CONDITIONAL edges from what decides which: WHERE, the conditions of WHEN, and how FROM and USING join (JOIN);
- what decides which rows are deleted or put in concerns all columns: FILTER, and JOIN for the ON of a merge and the key of a
  conflict. An update decides on no rows, so it has no such edges.

RETURNING gives the rows that were changed, as they are then (deleted ones as they were), so there all conditions decide rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp

from dopa_pipelines.lineage.columns.model import NONE, Edge, Edges, Lineage, Subtype, Value, carried, deciding
from dopa_pipelines.lineage.columns.schema import Table
from dopa_pipelines.lineage.columns.scope import Columns, Ctes, Relation, Rows, Scope

if TYPE_CHECKING:
    from dopa_pipelines.lineage.columns.walk import _Walk

CHANGES = (exp.Insert, exp.Update, exp.Delete, exp.Merge)

Values = dict[str, Value]
_EMPTY = Value()


def changed(walk: _Walk, node: exp.Insert | exp.Update | exp.Delete | exp.Merge, ctes: Ctes) -> tuple[Lineage, Rows | None]:
    """What a statement does to its table, and the rows that it returns, None without RETURNING."""
    with_ = node.args.get("with_")
    if with_ is not None:
        ctes = walk.with_ctes(with_, None, ctes)
    if isinstance(node, exp.Insert):
        return _insert(walk, node, ctes)
    scope = Scope(None, ctes)
    target = _target(walk, node.this, scope)
    if isinstance(node, exp.Update):
        return _update(walk, node, scope, target)
    if isinstance(node, exp.Delete):
        return _delete(walk, node, scope, target)
    return _merge(walk, node, scope, target)


@dataclass(frozen=True)
class _Target:
    """The table that is changed: as it is written, as it is called in the statement, and its columns as they were."""

    written: str
    name: str
    own: Values

    @property
    def columns(self) -> Columns:
        return tuple(self.own.items())

    def lineage(self, after: Mapping[str, Value], dataset: Edges, *, kept: bool = True) -> Lineage:
        columns = tuple((name, value.edges) for name, value in after.items())
        return Lineage(columns, dataset, target=self.written, kept=kept)


def _target(walk: _Walk, node: exp.Expr, scope: Scope) -> _Target:
    if not isinstance(node, exp.Table) or node.args.get("joins"):
        raise walk.error(node, "what is changed", "is not one table")
    written, _ = walk.target(node)
    db = walk.identifier(node.args["db"]) if node.args.get("db") is not None else None
    name = walk.identifier(node.this)
    found = walk.schema.find(db, name)
    if not isinstance(found, Table):
        how = "is not in the schema" if found is None else "is a view; change the table under it"
        raise walk.error(node, f"table {written}", how)
    own = {column: Value(frozenset((Edge(found.name, column, Subtype.IDENTITY),))) for column in found.columns}
    schema = db or walk.schema_of(found)
    walk.enter(node, node.args.get("alias"), name, tuple(own.items()), NONE, scope, base=found.name, schema=schema)
    called = next(iter(scope.relations))
    return _Target(written, called, own)


def _insert(walk: _Walk, node: exp.Insert, ctes: Ctes) -> tuple[Lineage, Rows | None]:
    written, titles = walk.target(node.this)
    table = node.this.this if isinstance(node.this, exp.Schema) else node.this
    db = walk.identifier(table.args["db"]) if table.args.get("db") is not None else None
    found = walk.schema.find(db, walk.identifier(table.this))
    conflict = node.args.get("conflict")
    updates = conflict is not None and "UPDATE" in str(conflict.args.get("action") or "").upper()
    known = list(found.columns) if isinstance(found, Table) else None
    if known is None and ((found is None and titles is None) or updates):
        how = "is not in the schema, and no column list says what is filled"
        raise walk.error(table, f"table {written}", "is not a table of the schema" if updates else how)
    if node.args.get("default"):
        rows = Rows(tuple((title, _EMPTY) for title in known or ()))
    elif isinstance(node.expression, (exp.Query, exp.Values)):
        rows = walk.query(node.expression, None, ctes)
    else:
        raise walk.error(node, "insert", "has no query")
    wanted = titles or known
    if wanted is not None and (len(wanted) < len(rows.columns) or (titles and len(titles) != len(rows.columns))):
        raise walk.error(node, f"a list of {len(wanted)} columns", f"does not fit the {len(rows.columns)} columns of the query")
    if titles and known:
        _check(walk, node, titles, known, written)
    put = rows.columns
    if wanted is not None:
        put = tuple((title, value) for title, (_, value) in zip(wanted, rows.columns, strict=False))
    whole = dict.fromkeys(known or (), _EMPTY) | dict(put)
    if conflict is None or not updates:
        made = Lineage(tuple((name, value.edges) for name, value in put), rows.dataset, target=written)
        returned = None
        if node.args.get("returning") is not None:
            scope = Scope(None, ctes)
            alias = table.args.get("alias")
            name = walk.identifier(alias.this) if alias is not None else walk.identifier(table.this)
            nulls = dict.fromkeys(whole, _EMPTY)
            returned = _returned(walk, node, scope, name, (), new=whole, old=nulls, shown=whole, dataset=rows.dataset)
        return made, returned
    return _upsert(walk, node, table, conflict, Rows(tuple(whole.items()), rows.dataset), ctes)


def _upsert(
    walk: _Walk, node: exp.Insert, table: exp.Expr, conflict: exp.Expr, put: Rows, ctes: Ctes
) -> tuple[Lineage, Rows | None]:
    """``on conflict (key) do update``: rows whose key is there already change those, the others are added."""
    if conflict.args.get("constraint") is not None:
        named = conflict.args["constraint"]
        raise walk.error(named, f"on conflict on constraint {named.name}", "is not followed: name the columns of its key instead")
    scope = Scope(None, ctes)
    target = _target(walk, table, scope)
    whole = dict(put.columns)
    scope.visible = list(target.columns)
    key = deciding(_all(walk.value(_key(part), scope).edges for part in conflict.args.get("conflict_keys") or ()), Subtype.JOIN)
    arriving = Scope(None, ctes)
    walk.enter(table, None, target.name, put.columns, NONE, arriving)
    arriving.visible = list(put.columns)
    key |= deciding(
        _all(walk.value(_key(part), arriving).edges for part in conflict.args.get("conflict_keys") or ()), Subtype.JOIN
    )
    scope.relations["excluded"] = Relation("excluded", put.columns)
    scope.visible = [*target.columns, *put.columns]
    where = conflict.args.get("where")
    condition = walk.value(where.this, scope).edges if where is not None else NONE
    partial = conflict.args.get("index_predicate")
    if partial is not None:
        walk.value(partial.this, scope)
    new = _assigned(walk, conflict.expressions, scope, target)
    after, given = {}, {}
    for name, own in target.own.items():
        later = new.get(name, own).edges
        decided = deciding(condition, Subtype.CONDITIONAL) if name in new else NONE
        after[name] = Value(own.edges | whole[name].edges | later | decided)
        given[name] = Value(whole[name].edges | later)
    dataset = put.dataset | key
    returned = None
    if node.args.get("returning") is not None:
        decides = dataset | deciding(condition, Subtype.FILTER)
        returned = _returned(walk, node, scope, target.name, (), new=given, old=target.own, shown=given, dataset=decides)
    return target.lineage(after, dataset), returned


def _update(walk: _Walk, node: exp.Update, scope: Scope, target: _Target) -> tuple[Lineage, Rows | None]:
    others = walk.item(node.args["from_"].this, scope) if node.args.get("from_") is not None else []
    scope.visible = [*target.columns, *others]
    condition = _condition(walk, node, scope)
    new = _assigned(walk, node.expressions, scope, target)
    joined = NONE.union(*scope.dataset)
    some = node.args.get("where") is not None or node.args.get("from_") is not None
    decided = deciding(joined | condition, Subtype.CONDITIONAL)
    after = dict(target.own)
    for name, value in new.items():
        after[name] = Value(value.edges | decided | (target.own[name].edges if some else NONE))
    now = target.own | new
    decides = joined | deciding(condition, Subtype.FILTER)
    returned = _returned(walk, node, scope, target.name, others, new=now, old=target.own, shown=now, dataset=decides)
    return target.lineage(after, NONE), returned


def _delete(walk: _Walk, node: exp.Delete, scope: Scope, target: _Target) -> tuple[Lineage, Rows | None]:
    others: list[tuple[str, Value]] = []
    for item in node.args.get("using") or ():
        scope.visible = list(others)
        others += walk.item(item, scope)
    scope.visible = [*target.columns, *others]
    condition = _condition(walk, node, scope)
    decides = NONE.union(*scope.dataset) | deciding(condition, Subtype.FILTER)
    # Without any condition nothing is left.
    left = target.own if node.args.get("where") is not None or others else dict.fromkeys(target.own, _EMPTY)
    gone = dict.fromkeys(target.own, _EMPTY)
    returned = _returned(walk, node, scope, target.name, others, new=gone, old=target.own, shown=target.own, dataset=decides)
    return target.lineage(left, decides), returned


def _merge(walk: _Walk, node: exp.Merge, scope: Scope, target: _Target) -> tuple[Lineage, Rows | None]:
    if node.args.get("using_cond"):
        raise walk.error(node, "merge with using", "is not PostgreSQL")
    source = walk.item(node.args["using"], scope)
    joined = NONE.union(*scope.dataset)
    scope.visible = [*target.columns, *source]
    on = walk.value(node.args["on"], scope).edges
    set_: dict[str, list[Edges]] = {}
    given: dict[str, list[Edges]] = {name: [] for name in target.own}
    rows: list[Edges] = []
    so_far: dict[tuple[bool, bool], Edges] = {}  # of the clauses for the same rows, the first that fits is taken
    for when in node.args["whens"].expressions:
        kind = bool(when.args.get("matched")), bool(when.args.get("source"))
        if when.args.get("condition") is not None:
            so_far[kind] = so_far.get(kind, NONE) | walk.value(when.args["condition"], scope).edges
        decided, then = so_far.get(kind, NONE), when.args.get("then")
        if isinstance(then, exp.Update):
            new = _assigned(walk, then.expressions, scope, target)
            for name, value in new.items():
                set_.setdefault(name, []).append(value.edges | deciding(decided, Subtype.CONDITIONAL))
            for name, own in target.own.items():
                given[name].append(new.get(name, own).edges)
        elif isinstance(then, exp.Insert):
            rows.append(deciding(decided, Subtype.FILTER) | deciding(on, Subtype.JOIN))
            for name, value in _put(walk, then, scope, target).items():
                set_.setdefault(name, []).append(value.edges)
                given[name].append(value.edges)
        elif isinstance(then, exp.Var) and then.name.upper() == "DELETE":
            rows.append(deciding(decided, Subtype.FILTER) | deciding(on, Subtype.JOIN))
            for name, own in target.own.items():
                given[name].append(own.edges)
        elif not (isinstance(then, exp.Var) and then.name.upper() == "DO NOTHING"):
            raise walk.error(when, "this clause of merge", "is not PostgreSQL")
    more = NONE.union(*scope.dataset)  # of sets that a value is made of, too
    found = NONE if rows else deciding(more | on, Subtype.JOIN)
    after = {
        name: Value(own.edges | NONE.union(*set_[name]) | found) if name in set_ else own for name, own in target.own.items()
    }  # fmt: skip
    now = {name: Value(NONE.union(*edges)) for name, edges in given.items()}
    decides = joined | more | deciding(on, Subtype.JOIN)
    decides |= NONE.union(*(deciding(edges, Subtype.FILTER) for edges in so_far.values()))
    returned = _returned(
        walk, node, scope, target.name, source, new=now, old=target.own, shown=now, dataset=decides, source_first=True
    )
    return target.lineage(after, NONE.union(*rows, more) if rows else NONE), returned


def _put(walk: _Walk, then: exp.Insert, scope: Scope, target: _Target) -> Values:
    """The columns that an insert of a merge fills."""
    listed = then.this.expressions if isinstance(then.this, exp.Tuple) else [then.this] if then.this is not None else []
    titles = [walk.identifier(part.this if isinstance(part, exp.Column) else part) for part in listed]
    if then.expression is None:
        if titles == ["default"]:
            return {}
        raise walk.error(then, "insert of a merge", "has no values")
    values = then.expression.expressions if isinstance(then.expression, exp.Tuple) else [then.expression]
    titles = titles or list(target.own)[: len(values)]
    if len(titles) != len(values):
        raise walk.error(then, f"a list of {len(titles)} columns", f"does not fit the {len(values)} values")
    _check(walk, then, titles, target.own, target.written)
    return {title: walk.value(value, scope) for title, value in zip(titles, values, strict=True)}


def _condition(walk: _Walk, node: exp.Expr, scope: Scope) -> Edges:
    where = node.args.get("where")
    return walk.value(where.this, scope).edges if where is not None else NONE


def _key(node: exp.Expr) -> exp.Expr:
    """A column or expression of a conflict's key, without its order, collation and operator class."""
    while isinstance(node, (exp.Ordered, exp.Opclass)):
        node = node.this
    return node


def _assigned(walk: _Walk, items: Iterable[exp.Expr], scope: Scope, target: _Target) -> Values:
    """``set a = …, (b, c) = (…), d[1] = …, e.f = …``: what each column is set to, where the row is changed."""
    made: Values = {}
    for item in items:
        if not isinstance(item, exp.EQ):
            raise walk.error(item, "set", "is not of the form column = value")
        left, right = item.this, item.expression
        if isinstance(left, (exp.Tuple, exp.Paren)):
            parts = left.expressions if isinstance(left, exp.Tuple) else [left.this]
            values = _several(walk, right, len(parts), scope)
            if len(parts) != len(values):
                raise walk.error(item, f"a list of {len(parts)} columns", f"does not fit the {len(values)} values")
        else:
            parts, values = [left], [walk.value(right, scope)]
        for part, value in zip(parts, values, strict=True):
            column, inner = part, []
            while isinstance(column, exp.Bracket):
                inner += [walk.value(index, scope).edges for index in column.expressions]
                column = column.this
            name, field = _column(walk, column, target)
            if inner or field:
                # One element or field of a value that otherwise stays.
                before = made.get(name, target.own[name])
                value = Value(carried(NONE.union(before.edges, value.edges, *inner), Subtype.TRANSFORMATION))
            elif name in made:
                raise walk.error(part, f"column {name}", "is set twice")
            made[name] = value
    return made


def _several(walk: _Walk, node: exp.Expr, wanted: int, scope: Scope) -> list[Value]:
    """The values for several columns: those of a row, or of a query that gives one."""
    if isinstance(node, exp.Subquery):
        rows = walk.query(node, scope, scope.ctes)
        return [Value(value.edges | rows.dataset) for _, value in rows.columns]
    if isinstance(node, exp.Anonymous) and node.name.lower() == "row":
        return [walk.value(part, scope) for part in node.expressions]
    if isinstance(node, exp.Tuple):
        return [walk.value(part, scope) for part in node.expressions]
    if wanted == 1:
        return [walk.value(node, scope)]
    raise walk.error(node, "set of several columns", "needs a row or a query in parentheses")


def _column(walk: _Walk, node: exp.Expr, target: _Target) -> tuple[str, bool]:
    """The column that is set, and whether only a field of it is: a table's name never stands before it."""
    parts = node.parts if isinstance(node, (exp.Column, exp.Dot)) else [node]
    name = walk.identifier(parts[0])
    _check(walk, node, [name], target.own, target.written)
    return name, len(parts) > 1


def _check(walk: _Walk, node: exp.Expr, titles: Iterable[str], known: Iterable[str], written: str) -> None:
    there = set(known)
    for title in titles:
        if title not in there:
            raise walk.error(node, f"column {title}", f"does not exist in {written}")


def _returned(
    walk: _Walk,
    node: exp.Expr,
    scope: Scope,
    name: str,
    others: Iterable[tuple[str, Value]],
    *,
    new: Values,
    old: Values,
    shown: Values,
    dataset: Edges,
    source_first: bool = False,
) -> Rows | None:
    """The rows that RETURNING gives, None without.

    ``shown``: the row that the table's own name means; ``old`` and ``new``: those that these words mean.
    """
    returning = node.args.get("returning")
    if returning is None:
        return None
    seen = Scope(None, scope.ctes)
    seen.relations = dict(scope.relations)
    seen.relations.pop("excluded", None)
    before = seen.relations.get(name)
    seen.relations[name] = Relation(
        name, tuple(shown.items()), before.base if before else None, before.schema if before else None
    )
    for word, rows in [("old", old), ("new", new)]:
        for called in [word, *(alias for alias, means in walk.row_names.items() if means == word)]:
            seen.relations.setdefault(called, Relation(called, tuple(rows.items())))
    own = list(shown.items())
    seen.visible = [*others, *own] if source_first else [*own, *others]
    columns = walk.outputs(returning.expressions, seen)
    return Rows(columns, NONE.union(dataset, *seen.dataset))


def _all(found: Iterable[Edges]) -> Edges:
    return NONE.union(*found)
