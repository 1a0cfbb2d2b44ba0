"""Classification of what was recorded: the SQL, contracts and declarations of the very writes that made a table what it is.

Belongs here: reading them back, and what of a table's rows and views no record explains. Does not belong here: the working copy
(:mod:`.classification`), and whether records themselves were changed (``lineage.verify``).

What is judged are the recorded statements, by the rules of today: a rule that is mended holds for what was built before as well.
Everything is read by the caller's connection, so as of the moment that its snapshot sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dopa_pipelines.documents import DocumentError
from dopa_pipelines.governance.classification import Abouts, Classified, Said, classify, declarations, said_of, say_seed
from dopa_pipelines.governance.gate import ROWS, Reason
from dopa_pipelines.lineage.columngraph import contract_of
from dopa_pipelines.lineage.columns import LineageError, Schema, analyze
from dopa_pipelines.lineage.columns.project import PROVENANCE, UNKNOWN
from dopa_pipelines.lineage.declared import Declared, Dependence
from dopa_pipelines.lineage.verify import unexplained

Connection = psycopg.Connection[Any]

# The writes that a table is made of: its last, those that it read, and what views read when they were read.
_MADE_OF = """
with recursive made_of (id) as (
    select last.id
    from unnest(%(targets)s::text[]) as asked (target)
    cross join lateral (
        select max(id) as id from lineage.write
        where target = asked.target and environment = 'production' and kind not in ('rebase', 'migration')
    ) last
    union
    select before.id
    from made_of
    join lineage.write w on w.id = made_of.id
    cross join lateral (
        select (i.input ->> 'write')::bigint as id
        from jsonb_array_elements(w.inputs) as i (input)
        where jsonb_typeof(i.input -> 'write') = 'number'
        union all
        select (r.read ->> 'write')::bigint
        from jsonb_array_elements(w.inputs) as i (input)
        cross join lateral jsonb_array_elements(coalesce(i.input -> 'reads', '[]')) as r (read)
        where jsonb_typeof(r.read -> 'write') = 'number'
        union all
        select max(earlier.id)
        from lineage.write earlier
        where earlier.target = w.target and earlier.id < w.id and earlier.environment = w.environment
          and w.detail ->> 'materialized' in ('incremental', 'snapshot')
    ) before
    where before.id is not null
)
select w.id, w.kind, w.target, w.code ->> 'checksum' as checksum, w.code ->> 'compiled' as compiled,
    w.code ->> 'path' as path, w.code ->> 'unique_id' as unique_id, w.inputs, w.detail -> 'said' as said
from lineage.write w
where w.id in (select id from made_of)
order by w.id
"""

_COLUMNS = """
select a.attname
from pg_catalog.pg_attribute a
where a.attrelid = (
    select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = %s
) and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""


def recorded(connection: Connection, target: str) -> tuple[Classified, list[Reason]]:
    """What ``target`` is by its records, and what refuses whatever is made of it."""
    with connection.cursor(row_factory=dict_row) as cursor:
        writes = cursor.execute(_MADE_OF, {"targets": [target]}).fetchall()
    found = _Recorded(connection, target)
    reasons = list(found.read(writes))
    reasons += [Reason(ROWS, (item.subject,), "unexplained", item.message) for item in found.differing(writes)]
    return found.classified(), reasons


def recorded_all(connection: Connection, targets: Sequence[str]) -> Classified:
    """What all ``targets`` are by their records, and what they are made of. What no record explains is not looked for: that is
    for the gate."""
    with connection.cursor(row_factory=dict_row) as cursor:
        writes = cursor.execute(_MADE_OF, {"targets": list(targets)}).fetchall()
    found = _Recorded(connection, "")
    if writes:
        list(found.read(writes))
    return found.classified()


class _Recorded:
    def __init__(self, connection: Connection, target: str) -> None:
        self.connection, self.target = connection, target
        self.about = Abouts()
        self.raw = Schema()
        self.sql: dict[str, list[str]] = {}
        self.paths: dict[str, str] = {}
        self.said: list[Said] = []
        self.graph = Declared()

    def read(self, writes: list[dict[str, Any]]) -> Iterator[Reason]:
        if not writes:
            yield Reason(
                ROWS, (self.target,), "unexplained", f"nothing is recorded of how {self.target} was made; build its model"
            )
        loads: dict[str, dict[str, Any]] = {}
        for write in writes:
            name = write["target"]
            if write["kind"] == "load":
                loads[name] = write  # the latest stays
                continue
            self.graph.inputs.setdefault(name, []).extend(item["name"] for item in write["inputs"] or ())
            said = list(said_of(name, {column: {"meta": meta} for column, meta in (write["said"] or {}).items()}))
            if str(write["unique_id"]).startswith("seed."):
                self._table(name)
                say_seed(self.about, said)
            elif write["compiled"]:
                texts = self.sql.setdefault(name, [])
                if write["compiled"] not in texts:
                    texts.append(write["compiled"])
                self.paths[name] = write["path"] or name
                self.said += said
            else:
                yield Reason(ROWS, (name,), "unexplained", f"write {write['id']} of {name} recorded no SQL; build its model anew")
        for name, write in loads.items():
            yield from self._load(name, write)
        known = {*self.sql, *loads, *(f"{schema}.{table}" for schema, table in self.raw.tables)}
        for name in {name for inputs in self.graph.inputs.values() for name in inputs} - known:
            self._table(name)  # nobody here wrote it: internal, as its catalog has it
        self._draw(writes)

    def _load(self, name: str, write: dict[str, Any]) -> Iterator[Reason]:
        """A raw table: what its contract said when it was loaded and what it says now, whichever protects more."""
        rows = self.connection.execute(
            """
            select c.document from ops.contract c where c.checksum = %(then)s or c.checksum = (
                select w.code ->> 'checksum' from lineage.write w where w.target = %(name)s and w.kind = 'load'
                order by w.id desc limit 1
            )
            """,
            {"then": write["checksum"], "name": name},
        ).fetchall()
        columns: dict[str, str] = {}
        for (document,) in rows:
            try:
                contract = contract_of(document)
            except DocumentError as error:
                yield Reason(ROWS, (name,), "unexplained", f"the contract of {name} cannot be read any more: {error}")
                continue
            self.about.add(contract)
            columns |= dict(contract.table_columns) | PROVENANCE
        if not rows:
            yield Reason(ROWS, (name,), "unexplained", f"the contract that {name} was loaded by was not kept; load it anew")
        self._table(name, columns)

    def _table(self, name: str, columns: dict[str, str] | None = None) -> None:
        schema, _, table = name.partition(".")
        catalog = [row[0] for row in self.connection.execute(_COLUMNS, (schema, table)).fetchall()]
        self.raw.add(name, dict.fromkeys(catalog, UNKNOWN) | (columns or {}))
        self.graph.columns[name] = list(self.raw.base_tables()[(schema, table)].columns)

    def _draw(self, writes: list[dict[str, Any]]) -> None:
        """The edges for paths, table by table."""
        known = Schema(tables=dict(self.raw.tables))
        for write in writes:
            name = write["target"]
            if name not in self.sql or (name in self.graph.columns):
                continue
            try:
                lineage = analyze(self.sql[name][-1], known, statement=self.paths[name])
            except LineageError:
                continue
            known.add(name, {title: UNKNOWN for title, _ in lineage.columns})
            self.graph.columns[name] = [title for title, _ in lineage.columns]
            for title, edges in [*lineage.columns, ("*", lineage.dataset)]:
                self.graph.edges |= {Dependence(e.table, e.column, name, title, str(e.subtype), e.masking) for e in edges}

    def classified(self) -> Classified:
        # A table that was made by several statements holds what any of them gave.
        sql = {name: texts[0] if len(texts) == 1 else _either(texts) for name, texts in self.sql.items()}
        kinds: dict[str, dict[str, str]] = declarations(self.said)
        return classify(sql, self.raw, self.about, kinds, self.graph)

    def differing(self, writes: list[dict[str, Any]]) -> Iterator[Any]:
        """Rows of the source, and definitions of views on the way, that no record has."""
        for name in dict.fromkeys([self.target, *(write["target"] for write in writes if write["kind"] == "model")]):
            yield from unexplained(self.connection, name, rows=name == self.target)


def _either(texts: list[str]) -> str:
    return " union all ".join(f"({text.strip().rstrip(';')})" for text in texts)
