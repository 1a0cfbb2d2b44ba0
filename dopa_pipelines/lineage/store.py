"""The recorded writes: one way in for those who write, and the graph that the latest writes make.

Belongs here: SQL over ``lineage.write``, ``lineage.identity`` and ``ops.delivery``. Does not belong here: the
tables and their functions (a migration of the warehouse), what a graph is (``model``), events
(``openlineage``).

What a writer puts into ``detail`` (all optional), for the graph and the events to tell:

- loads: ``delivery`` (id in ``ops.delivery``; or ``file``, ``sha256``, ``bytes`` themselves),
  ``rows_quarantined``, ``location`` (where the feed is fetched from)
- models: ``unique_id`` (dbt's), ``materialized``
- releases: ``version`` (of the release), ``superseded`` (true: not what is out), ``columns`` (list of
  ``{name, type, description}``), ``files``, ``bytes``
- all: ``actor`` (who started it; added where the session says so), ``started_at``, ``nominal_start``, ``nominal_end``
  (ISO 8601), ``job`` (name of the parent run's job)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.model import Edge, EdgeKind, Graph, Node, NodeKind, Write, WriteKind
from dopa_pipelines.lineage.naming import DatasetName, FeedKind, Identity, is_release

PRODUCTION = "production"


def record_write(
    conn: psycopg.Connection[Any],
    *,
    kind: WriteKind,
    target: str,
    inputs: Sequence[DatasetName | Mapping[str, object]] = (),
    run_id: str | None = None,
    parent_run_id: str | None = None,
    code: Mapping[str, object] | None = None,
    version: str | None = None,
    rows_in: int | None = None,
    rows_out: int | None = None,
    detail: Mapping[str, object] | None = None,
    environment: str = PRODUCTION,
) -> int:
    """Record a write in the transaction that makes it; returns its id.

    Call it in the same transaction as the rows (for a release, before ``latest`` moves): it commits or
    vanishes with them. ``target`` is ``schema.table`` or ``release:<publication>``. Transaction, user and
    time are taken by the server, and an input that names no write gets its latest.
    """
    told: list[dict[str, object]] = [
        {"namespace": given.namespace, "name": given.name, "write": None} if isinstance(given, DatasetName) else dict(given)
        for given in inputs
    ]
    row = conn.execute(
        "select lineage.record_write(p_kind => %s, p_target => %s, p_run_id => %s, p_parent_run_id => %s,"
        " p_code => %s, p_version => %s, p_inputs => %s, p_rows_in => %s, p_rows_out => %s, p_detail => %s,"
        " p_environment => %s)",
        (
            kind,
            target,
            run_id,
            parent_run_id,
            Jsonb(dict(code or {})),
            version,
            Jsonb(told),
            rows_in,
            rows_out,
            Jsonb(dict(detail or {})),
            environment,
        ),
    ).fetchone()
    assert row is not None
    return int(next(iter(row.values())) if isinstance(row, dict) else row[0])


def identity(conn: psycopg.Connection[Any]) -> Identity:
    """How this warehouse's tables are named, for good."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "select key, value from lineage.identity union all select 'current_database', current_database()"
        ).fetchall()
    values = {row["key"]: row["value"] for row in rows}
    if "warehouse_namespace" not in values:
        raise UserError("The warehouse has no name in lineage.identity: it was not migrated; run `dopa status`.")
    return Identity.from_rows(values)


# The latest write of each target. Targets are stepped through on the index, so the cost follows the number of
# tables, not of writes. A migration changes a table's form and a rebase its transactions; neither has inputs or
# hides where the rows came from. A release that was recorded behind a newer one (recovery) is not what is out.
_LATEST = """
with recursive targets as (
    (select w.target from lineage.write w order by w.target limit 1)
    union all
    select (select w.target from lineage.write w where w.target > t.target order by w.target limit 1)
    from targets t where t.target is not null
)
select w.id, w.kind, w.target, w.written_at, w.written_by, w.run_id, w.parent_run_id,
    coalesce(case when w.kind = 'release' then w.detail ->> 'version' end, w.version) as version,
    w.rows_in, w.rows_out, (w.detail ->> 'rows_quarantined')::bigint as rows_quarantined, w.inputs,
    coalesce(d.file, w.detail ->> 'file') as file,
    coalesce(d.sha256, w.detail ->> 'sha256') as sha256, w.detail ->> 'actor' as actor,
    starts_with(w.target, 'release:') or exists (
        select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname = split_part(w.target, '.', 1) and c.relname = split_part(w.target, '.', 2)
    ) as table_exists
from targets t
cross join lateral (
    select * from lineage.write w
    where w.target = t.target and w.kind not in ('migration', 'rebase')
        and (%(environment)s::text is null or w.environment = %(environment)s)
        and w.detail ->> 'superseded' is distinct from 'true'
        and (%(at)s::timestamptz is null or w.written_at <= %(at)s)
    order by w.id desc limit 1
) w
left join ops.delivery d on d.id = (w.detail ->> 'delivery')::bigint
"""


def graph(conn: psycopg.Connection[Any], *, environment: str | None = PRODUCTION, at: datetime | None = None) -> Graph:
    """The graph of datasets that the latest write of each makes, or made ``at`` a time, with what other systems tell of them.

    Only what production wrote, unless another ``environment`` is asked for (None: all). A dropped table stays
    while something that is still there came from it; what there was at a time stays always.
    """
    named = identity(conn)
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_LATEST, {"environment": environment, "at": at}).fetchall()
    nodes: dict[DatasetName, Node] = {}
    edges: list[Edge] = []
    for row in rows:
        inputs, exists = row.pop("inputs"), row.pop("table_exists")
        write = Write(**row)
        dataset = named.of_target(write.target)
        kind: NodeKind = "release" if is_release(dataset) else "table"
        nodes[dataset] = Node(dataset, kind, write.target, write, exists)
        for given in inputs or ():
            source = named.canonical(given.get("namespace"), given["name"])
            source_kind = _kind(named, source)
            edges.append(Edge(source, dataset, _edge_kind(write.kind, source_kind)))
            if source_kind == "feed":
                nodes[source] = Node(source, "feed", None, write)
    if environment in (PRODUCTION, None):
        from dopa_pipelines.lineage.importing import imported_graph

        # What is written here nobody else knows better.
        own = {name for name, node in nodes.items() if node.kind in ("table", "release")}
        edges += [Edge(source, target, "imported") for source, target in imported_graph(conn, at=at) if target not in own]
    for edge in edges:
        for name in (edge.source, edge.target):
            if name not in nodes:
                nodes[name] = Node(name, _kind(named, name), named.target(name))
    return _without_leftovers(nodes, edges) if at is None else Graph.of(nodes.values(), edges)


def _kind(named: Identity, dataset: DatasetName) -> NodeKind:
    if is_release(dataset):
        return "release"
    if named.target(dataset):
        return "table"
    return "feed" if dataset.namespace in list(FeedKind) else "external"


def _edge_kind(written: WriteKind, source: NodeKind) -> EdgeKind:
    if written == "load":
        return "delivery" if source == "feed" else "reference"
    return "release" if written == "release" else "model"


def _without_leftovers(nodes: dict[DatasetName, Node], edges: list[Edge]) -> Graph:
    """The graph without dropped tables that nothing came from, and what fed only them."""
    while True:
        sources = {edge.source for edge in edges if edge.source != edge.target}
        gone = {name for name, node in nodes.items() if not node.exists and name not in sources}
        if not gone:
            break
        edges = [edge for edge in edges if edge.target not in gone]
        nodes = {name: node for name, node in nodes.items() if name not in gone}
    told = {name for edge in edges for name in (edge.source, edge.target)}
    return Graph.of((node for name, node in nodes.items() if node.target or name in told), edges)
