"""Recorded work and writes as OpenLineage events.

Belongs here: how a row of ``lineage.work`` or ``lineage.write`` is told to the world. Does not belong here: names (``naming``),
what is recorded (``store``, ``warehouse.work``), sending events on (``outbox``), events of others (``importing``).

Work tells START when it begins and, where nothing of it was written, FAIL, ABORT or COMPLETE when it ends; a write tells COMPLETE
after it committed. A write of which nobody recorded the beginning (a recovered release, a hand-made record) tells its START, too.
The run id is that of the work, or else follows from the cluster, the write and its time, so telling a write again tells the same
thing. The class for a facet is always the published client's; the one facet of our own, ``dopa_write``, leads from an event to
the row of ``lineage.write``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as package_version
from typing import Any, ClassVar, Literal

import attr
import psycopg
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.generated import (
    column_lineage_dataset,
    data_quality_assertions_dataset,
    data_quality_metrics_input_dataset,
    dataset_type_dataset,
    dataset_version_dataset,
    datasource_dataset,
    documentation_dataset,
    documentation_job,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    lifecycle_state_change_dataset,
    nominal_time_run,
    output_statistics_output_dataset,
    ownership_dataset,
    ownership_job,
    parent_run,
    processing_engine_run,
    schema_dataset,
    source_code_job,
    source_code_location_job,
    sql_job,
    storage_dataset,
    tags_dataset,
)
from openlineage.client.generated.base import DatasetFacet, InputDatasetFacet, JobFacet, RunFacet
from openlineage.client.serde import Serde
from openlineage.client.uuid import generate_static_uuid
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from dopa_pipelines.contracts import Contract
from dopa_pipelines.lineage.classes import Class, classes_of, without_class
from dopa_pipelines.lineage.model import Column, ColumnEdge, Owner, WriteKind
from dopa_pipelines.lineage.naming import DatasetName, FeedKind, Identity, is_release, without_credentials
from dopa_pipelines.lineage.owners import Described, described_by
from dopa_pipelines.lineage.store import PRODUCTION, identity
from dopa_pipelines.warehouse.work import without_values

JOB_NAMESPACE = "dopa-pipelines"
"""Namespace of our jobs."""

# Read once: looking a version up costs more than the rest of a facet.
_VERSION = package_version("dopa-pipelines")
_CLIENT_VERSION = package_version("openlineage-python")

PRODUCER = f"urn:x-dopa:dopa-pipelines:{_VERSION}"
"""Who says so, in each event and facet; a URI that names the software and its version."""

# Any number: who emits takes turns on it, so that no write is told twice.
_TURN = 0x646F7061_6C696E65

_RUNS = uuid.UUID("2b1f6e2c-5a0e-5b39-9a55-6d2f0f4d3c11")
"""Name space for the ids of runs that have no UUID of their own."""

_DIRECT = frozenset({"IDENTITY", "TRANSFORMATION", "AGGREGATION"})

Owners = Mapping[str, Sequence[Owner]] | Callable[[str], Sequence[Owner]]
"""Who answers for a target (``raw.person_register``, ``release:population``)."""

ColumnEdges = Callable[[psycopg.Connection[Any], DatasetName, datetime | None], Sequence[ColumnEdge]]
"""The edges into the columns of a dataset, as of a moment."""

WorkState = Literal["START", "COMPLETE", "FAIL", "ABORT"]


@attr.define
class WriteRunFacet(RunFacet):
    """Where the write is recorded: the row of ``lineage.write``, and the process that made it."""

    writeId: int  # noqa: N815
    cluster: str
    transactionId: str | None = None  # noqa: N815
    runId: str | None = None  # noqa: N815
    writtenBy: str | None = None  # noqa: N815
    codeChecksum: str | None = None  # noqa: N815
    codeVersion: str | None = None  # noqa: N815

    _additional_skip_redact: ClassVar[list[str]] = ["runId"]


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A row of ``lineage.write`` that has no event yet, joined with its delivery."""

    id: int
    kind: WriteKind
    target: str
    cluster: str
    written_at: datetime
    written_by: str
    transaction_id: str | None = None
    run_id: str | None = None
    parent_run_id: str | None = None
    code: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None
    inputs: Sequence[Mapping[str, Any]] = ()
    rows_in: int | None = None
    rows_out: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    bytes: int | None = None
    superseded: bool = False
    """A later write may have changed the table's form, so its columns of now are not those of this write."""
    work: str | None = None
    """The work that made it: its run id."""
    begun: bool = False
    """The START of its work is told already."""
    described: Mapping[str, Any] = field(default_factory=dict)
    """What was recorded when its work began."""
    first: bool = False
    """Nothing had written the target before."""
    source_code: str | None = None
    """The contract that it was loaded under."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was recorded of it, when it began and when it was written."""
        return {**self.described, **self.detail}

    @property
    def code_facts(self) -> Mapping[str, Any]:
        """Of its code: path, checksum, commit, compiled SQL."""
        return {**(self.described.get("code") or {}), **self.code}


@dataclass(frozen=True, slots=True)
class PendingWork:
    """A row of ``lineage.work`` that has no event yet; ``described`` and what comes before it are of the work's beginning."""

    id: int
    work: str
    state: WorkState
    at: datetime
    kind: str
    target: str
    run_id: str | None = None
    parent_run_id: str | None = None
    inputs: Sequence[Mapping[str, Any]] = ()
    described: Mapping[str, Any] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.described

    @property
    def code_facts(self) -> Mapping[str, Any]:
        return self.described.get("code") or {}


@dataclass(frozen=True, slots=True)
class Context:
    """What is the same for all that is told at once."""

    identity: Identity
    server_version: str
    owners: Owners = field(default_factory=dict)
    columns: Mapping[str, Sequence[Column]] = field(default_factory=dict)
    described: Mapping[str, Described] = field(default_factory=dict)
    column_edges: Callable[[DatasetName, datetime | None], Sequence[ColumnEdge]] | None = None
    classes: Mapping[str, Mapping[str, Class]] = field(default_factory=dict)
    producer: str = PRODUCER
    job_namespace: str = JOB_NAMESPACE

    def owners_of(self, target: str) -> Sequence[Owner]:
        """Who answers for a target; nobody where nobody is named."""
        named = self.owners(target) if callable(self.owners) else self.owners.get(target, ())
        return named or (self.described[target].owners if target in self.described else ())


def run_uuid(cluster: str, write_id: int, written_at: datetime) -> str:
    """The OpenLineage run id of a write: a UUID version 7 of its time, the rest a hash, the same every
    time."""
    return str(generate_static_uuid(written_at, f"{cluster}/{write_id}".encode()))


def job_name(told: PendingWrite | PendingWork) -> str:
    """``ingest.<dataset>``, ``dbt.<model unique id>``, ``publish.<publication>``, ``check.<schema.table>`` or
    ``migrate.<dataset>``."""
    bare = told.target.partition(":" if told.kind == "release" else ".")[2] or told.target
    match told.kind:
        case "load":
            return f"ingest.{bare}"
        case "model":
            return f"dbt.{told.facts.get('unique_id') or told.code_facts.get('unique_id') or told.target}"
        case "release":
            return f"publish.{bare}"
        case "check":
            return f"check.{told.target}"
        case "migration":
            return f"migrate.{bare}"
    return f"{told.kind}.{bare}"


def events(write: PendingWrite, context: Context) -> list[RunEvent]:
    """The COMPLETE event of a write, after a START where its work has not told one."""
    run_id = write.work or run_uuid(write.cluster, write.id, write.written_at)
    run_facets = _run_facets(write, context)
    inputs = _inputs(write, context)
    output = context.identity.of_target(write.target)
    job = Job(context.job_namespace, job_name(write), _job_facets(write, context))
    complete = RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=_iso(write.written_at),
        run=Run(
            run_id,
            {
                **run_facets,
                "dopa_write": WriteRunFacet(
                    writeId=write.id,
                    cluster=write.cluster,
                    transactionId=write.transaction_id,
                    runId=write.run_id,
                    writtenBy=write.written_by,
                    codeChecksum=write.code.get("checksum"),
                    codeVersion=write.code.get("git_commit") or write.version,
                    producer=context.producer,
                ),
            },
        ),
        job=job,
        inputs=inputs,
        outputs=[_output(write, output, context)],
        producer=context.producer,
    )
    if write.begun:
        return [complete]
    started = _moment(write.detail.get("started_at")) or write.written_at
    start = RunEvent(
        eventType=RunState.START,
        eventTime=_iso(min(started, write.written_at)),
        run=Run(run_id, run_facets),
        job=Job(context.job_namespace, job.name, {k: v for k, v in (job.facets or {}).items() if k != "sql"}),
        inputs=[InputDataset(given.namespace, given.name) for given in inputs],
        outputs=[OutputDataset(*output)],
        producer=context.producer,
    )
    return [start, complete]


def work_event(work: PendingWork, context: Context) -> RunEvent:
    """START of work, or the end of work that wrote nothing."""
    run_facets = _run_facets(work, context)
    message = work.detail.get("message")
    if work.state in ("FAIL", "ABORT"):
        run_facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            without_values(str(message or "no reason was recorded")),
            str(work.detail.get("language") or "Python"),
            producer=context.producer,
        )
    named = context.identity.of_target(work.target)
    given = [context.identity.canonical(element.get("namespace"), element["name"]) for element in work.inputs]
    inputs, outputs = [InputDataset(*name) for name in dict.fromkeys(given)], [OutputDataset(*named)]
    if work.kind == "check":
        facets: dict[str, DatasetFacet] = {"dataSource": _source(named, context, None)}
        inputs, outputs = [InputDataset(*named, _quality(work.detail, context), facets=facets)], []
    return RunEvent(
        eventType=RunState(work.state),
        eventTime=_iso(work.at),
        run=Run(work.work, run_facets),
        job=Job(context.job_namespace, job_name(work), _job_facets(work, context)),
        inputs=inputs,
        outputs=outputs,
        producer=context.producer,
    )


def as_dict(event: RunEvent) -> dict[str, Any]:
    """The event as JSON, without nulls."""
    return Serde.to_dict(event)


_PENDING = """
select w.id, w.kind, w.target, w.cluster, w.written_at, w.written_by, w.transaction_id::text, w.run_id,
    w.parent_run_id, coalesce(w.code, '{}') as code, w.version, coalesce(w.inputs, '[]') as inputs,
    w.rows_in, w.rows_out,
    coalesce(w.detail, '{}') as detail, coalesce(d.sha256, w.detail ->> 'sha256') as sha256,
    coalesce(d.bytes, (w.detail ->> 'bytes')::bigint) as bytes,
    exists (
        select from lineage.write later
        where later.target = w.target and later.id > w.id and later.kind in ('model', 'migration')
    ) as superseded,
    s.work::text as work, s.id is not null as begun, coalesce(s.detail, '{}') as described,
    not exists (select from lineage.write before where before.target = w.target and before.id < w.id) as first,
    case when w.kind = 'load' then (
        select c.document from ops.contract c where c.checksum = w.code ->> 'checksum'
    ) end as source_code
from lineage.write w
left join ops.delivery d on d.id = (w.detail ->> 'delivery')::bigint
left join lineage.work s on s.state = 'START' and s.work = case
    when w.detail ->> 'work' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then (w.detail ->> 'work')::uuid
end
where w.environment = %s
  and not exists (select from lineage.event e where e.write_id = w.id)
  -- One that committed since its START was looked for is told the next time.
  and (s.id is null or exists (select from lineage.event e where e.work_id = s.id))
order by w.id
limit %s
"""

_PENDING_WORK = """
select w.id, w.work::text, w.state, w.at, s.kind, s.target, s.run_id, s.parent_run_id, coalesce(s.inputs, '[]') as inputs,
    coalesce(s.detail, '{}') as described, case when w.state <> 'START' then coalesce(w.detail, '{}') else '{}' end as detail
from lineage.work w
join lineage.work s on s.work = w.work and s.state = 'START'
where s.environment = %s and (w.state = 'START') = %s
  and not exists (select from lineage.event e where e.work_id = w.id)
  and (w.state = 'START' or exists (select from lineage.event e where e.work_id = s.id))
order by w.id
limit %s
"""

_COLUMNS = """
select n.nspname || '.' || c.relname as target, a.attname as name,
    format_type(a.atttypid, a.atttypmod) as type, col_description(c.oid, a.attnum) as description
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where (n.nspname, c.relname) in (select * from unnest(%s::text[], %s::text[]))
order by c.oid, a.attnum
"""


def record_events(
    conn: psycopg.Connection[Any],
    *,
    contracts: Iterable[Contract] = (),
    owners: Owners | None = None,
    columns: Mapping[str, Sequence[Column]] | None = None,
    column_edges: ColumnEdges | None = None,
    producer: str = PRODUCER,
    job_namespace: str = JOB_NAMESPACE,
    environment: str = PRODUCTION,
    batch: int = 1000,
) -> int:
    """Tell all of production's work and writes that were not told yet; returns the number of events recorded.

    ``contracts`` document raw tables, their owners and what is personal in them. Tables' columns are read from the catalog;
    ``columns`` gives those of releases by target, where their writes do not tell them in ``detail``. ``column_edges`` is asked
    what each written table's columns were made of. Part of the caller's transaction, or in one of its own; either must be read
    committed, so that who waited for another emitter sees what that one told.
    """
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (_TURN,))
        recorded = 0
        context: Context | None = None
        while True:
            # START before the end of the same work; a write in between, whose time lies between the two.
            begun = _fetch(conn, _PENDING_WORK, (environment, True, batch))
            written = _fetch(conn, _PENDING, (environment, batch)) if not begun else []
            ended = _fetch(conn, _PENDING_WORK, (environment, False, batch)) if not begun and not written else []
            if not (begun or written or ended):
                return recorded
            context = context or Context(
                identity=identity(conn),
                server_version=conn.info.parameter_status("server_version") or str(conn.info.server_version),
                owners=owners or {},
                described=described_by(contracts),
                column_edges=partial(column_edges, conn) if column_edges else None,
                producer=producer,
                job_namespace=job_namespace,
            )
            told: list[tuple[str, int, RunEvent]] = []
            for row in [*begun, *ended]:
                work = PendingWork(**row)
                told.append(("work", work.id, work_event(work, context)))
            if written:
                pending = [PendingWrite(**row) for row in written]
                tables = {write.target for write in pending if write.kind != "release"}
                known = replace(
                    context,
                    columns={**_table_columns(conn, tables), **(columns or {})},
                    described={**_documented(conn, tables), **context.described},
                    classes=classes_of(conn, {write.target for write in pending}),
                )
                told += [("write", write.id, event) for write in pending for event in events(write, known)]
            conn.execute(
                # One document: an array of documents would be escaped character by character.
                "select case t.told ->> 'of'"
                " when 'work' then lineage.tell((t.told ->> 'id')::bigint, t.told ->> 'run', t.told -> 'event')"
                " else lineage.record_event((t.told ->> 'id')::bigint, t.told ->> 'run', t.told -> 'event') end"
                " from jsonb_array_elements(%s) with ordinality as t(told, position) order by t.position",
                (Jsonb([{"of": of, "id": number, "run": e.run.runId, "event": as_dict(e)} for of, number, e in told]),),
            )
            recorded += len(told)


def _fetch(conn: psycopg.Connection[Any], query: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), values).fetchall()


def _documented(conn: psycopg.Connection[Any], targets: Iterable[str]) -> dict[str, Described]:
    """Comments of tables and views, where dbt keeps the descriptions of models."""
    split = [target.partition(".") for target in sorted(targets)]
    rows = conn.execute(
        "select n.nspname || '.' || c.relname, obj_description(c.oid, 'pg_class')"
        " from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
        " where (n.nspname, c.relname) in (select * from unnest(%s::text[], %s::text[]))",
        ([s for s, _, _ in split], [t for _, _, t in split]),
    ).fetchall()
    return {target: Described(documentation=text) for target, comment in rows if comment and (text := without_class(comment))}


def _table_columns(conn: psycopg.Connection[Any], targets: Iterable[str]) -> dict[str, list[Column]]:
    split = [target.partition(".") for target in sorted(targets)]
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_COLUMNS, ([s for s, _, _ in split], [t for _, _, t in split])).fetchall()
    found: dict[str, list[Column]] = {}
    for row in rows:
        row["description"] = without_class(row["description"] or "") or None
        found.setdefault(row.pop("target"), []).append(Column(**row))
    return found


def _run_facets(told: PendingWrite | PendingWork, context: Context) -> dict[str, RunFacet]:
    producer = context.producer
    facets: dict[str, RunFacet] = {"processing_engine": _engine(told, context)}
    # The run that orders the work (Dagster's), else the process that did it (a dbt or dopa by hand).
    parent = told.parent_run_id or told.run_id
    if parent:
        # A run is of one job, whichever of its writes tells of it.
        by_dbt = parent == told.facts.get("invocation_id")
        job = str(told.facts.get("job") or ("dbt" if by_dbt else "dopa"))
        facets["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(_uuid(parent), None),
            job=parent_run.Job(context.job_namespace, job, None),
            root=parent_run.Root(parent_run.RootRun(_uuid(parent), None), parent_run.RootJob(context.job_namespace, job, None)),
            producer=producer,
        )
    nominal = _moment(told.facts.get("nominal_start"))
    if nominal:
        end = _moment(told.facts.get("nominal_end"))
        facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(_iso(nominal), _iso(end) if end else None, producer=producer)
    return facets


_JOB_TYPES = {
    "load": "LOAD", "model": "MODEL", "release": "RELEASE", "check": "TEST", "migration": "MIGRATION", "rebase": "REBASE",
}  # fmt: skip


def _engine(told: PendingWrite | PendingWork, context: Context) -> processing_engine_run.ProcessingEngineRunFacet:
    """What did the work: PostgreSQL for models and migrations, else this package; or what the writer says."""
    engine = told.facts.get("engine")
    if isinstance(engine, Mapping) and engine.get("version"):
        name, number = engine.get("name"), str(engine["version"])
    elif told.kind in ("model", "migration", "rebase"):
        name, number = "PostgreSQL", context.server_version
    else:
        name, number = "dopa-pipelines", _VERSION
    return processing_engine_run.ProcessingEngineRunFacet(number, name, _CLIENT_VERSION, producer=context.producer)


def _job_type(told: PendingWrite | PendingWork, context: Context) -> job_type_job.JobTypeJobFacet:
    by_dbt = told.kind == "model" or (told.kind == "check" and "unique_id" in told.facts)
    node = str(told.facts.get("unique_id") or told.code_facts.get("unique_id") or "").partition(".")[0].upper()
    kind = node if told.kind == "model" and node in ("SEED", "SNAPSHOT") else _JOB_TYPES.get(told.kind, told.kind.upper())
    return job_type_job.JobTypeJobFacet("BATCH", "DBT" if by_dbt else "DOPA", kind, producer=context.producer)


def _job_facets(told: PendingWrite | PendingWork, context: Context) -> dict[str, JobFacet]:
    producer = context.producer
    facets: dict[str, JobFacet] = {"jobType": _job_type(told, context)}
    code = told.code_facts
    query = code.get("compiled")
    if query and told.kind == "model":
        facets["sql"] = sql_job.SQLJobFacet(str(query), "postgres", producer=producer)
    if isinstance(told, PendingWrite) and told.source_code:
        facets["sourceCode"] = source_code_job.SourceCodeJobFacet("yaml", told.source_code, producer=producer)
    path = str(code.get("path") or "")
    if path and not path.startswith("/"):
        facets["sourceCodeLocation"] = _location(told.kind, path, code, producer)
    owners = _owners(told, context)
    if owners:
        facets["ownership"] = ownership_job.OwnershipJobFacet(
            [ownership_job.Owner(owner.name, owner.type) for owner in owners], producer=producer
        )
    text = _documentation(told, context)
    if text:
        facets["documentation"] = documentation_job.DocumentationJobFacet(text, producer=producer)
    return facets


_FOLDERS = {"load": "assets/", "model": "dbt_project/", "migration": "assets/"}


def _location(
    kind: str, path: str, code: Mapping[str, Any], producer: str
) -> source_code_location_job.SourceCodeLocationJobFacet:
    """Where the code is kept: the path in the project, the commit and the repository where they were recorded."""
    folder = _FOLDERS.get(kind, "")
    path = path if path.startswith(folder) else folder + path
    repository = code.get("git_url")
    return source_code_location_job.SourceCodeLocationJobFacet(
        type="git",
        # A URL must be there also where the working copy has none.
        url=f"{without_credentials(str(repository)).removesuffix('.git')}/{path}" if repository else f"{producer}:{path}",
        repoUrl=without_credentials(str(repository)) if repository else None,
        path=path,
        version=code.get("git_commit"),
        producer=producer,
    )


def _owners(told: PendingWrite | PendingWork, context: Context) -> Sequence[Owner]:
    if owners := context.owners_of(told.target):
        return owners
    listed = [Owner(str(owner["name"]), owner.get("type")) for owner in told.facts.get("owners") or ()]
    if team := told.facts.get("owner"):
        listed.append(Owner(f"team:{team}", "data_owner"))
    return listed


def _documentation(told: PendingWrite | PendingWork, context: Context) -> str | None:
    described = context.described.get(told.target)
    return (described.documentation if described else None) or told.facts.get("documentation")


def _inputs(write: PendingWrite, context: Context) -> list[InputDataset]:
    given: dict[DatasetName, InputDataset] = {}
    for element in write.inputs:
        name = context.identity.canonical(element.get("namespace"), element["name"])
        feed = write.kind == "load" and name.namespace in list(FeedKind) and not is_release(name)
        version = write.sha256 if feed else element.get("write")
        location = write.detail.get("location") if feed else None
        facets: dict[str, DatasetFacet] = {"dataSource": _source(name, context, location)}
        if version is not None:
            facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(str(version), producer=context.producer)
        input_facets: dict[str, InputDatasetFacet] = {}
        if feed and (write.rows_in is not None or write.bytes is not None):
            input_facets["inputStatistics"] = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                rowCount=write.rows_in, size=write.bytes, producer=context.producer
            )
        if feed and write.rows_in is not None and write.rows_out is not None and "rows_quarantined" in write.detail:
            input_facets |= _quality(_of_delivery(write), context)
        given[name] = InputDataset(name.namespace, name.name, input_facets, facets=facets)
    return list(given.values())


def _of_delivery(write: PendingWrite) -> dict[str, Any]:
    """What was checked of a delivery while it was loaded."""
    quarantined = int(write.detail["rows_quarantined"])
    return {
        "assertions": [
            {
                "assertion": "nothing_is_lost",
                "success": write.rows_in == (write.rows_out or 0) + quarantined,
                "severity": "error",
                "description": "Rows read = rows loaded + rows quarantined",
                "expected": str(write.rows_in),
                "actual": str((write.rows_out or 0) + quarantined),
            }
        ],
        "metrics": {"rowCount": write.rows_in, "bytes": write.bytes},
    }


def _quality(found: Mapping[str, Any], context: Context) -> dict[str, InputDatasetFacet]:
    """The input facets for what checks found: ``assertions`` and ``metrics``."""
    facets: dict[str, InputDatasetFacet] = {}
    assertions = found.get("assertions")
    if assertions:
        known = ("severity", "name", "description", "expected", "actual", "content", "contentType", "column")
        facets["dataQualityAssertions"] = data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(
            [
                data_quality_assertions_dataset.Assertion(
                    item["assertion"], bool(item["success"]), params=None, **{name: item.get(name) for name in known}
                )
                for item in assertions
            ],
            producer=context.producer,
        )
    metrics = found.get("metrics")
    if metrics:
        facets["dataQualityMetrics"] = data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet(
            {
                column: data_quality_metrics_input_dataset.ColumnMetrics(quantiles=None, **values)
                for column, values in (metrics.get("columnMetrics") or {}).items()
            },
            rowCount=metrics.get("rowCount"),
            bytes=metrics.get("bytes"),
            producer=context.producer,
        )
    return facets


def _output(write: PendingWrite, name: DatasetName, context: Context) -> OutputDataset:
    producer = context.producer
    facets: dict[str, DatasetFacet] = {
        "dataSource": _source(name, context, None),
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(
            # A release is known by its version; a table by the write that made it what it is.
            str((_release_version(write) if write.kind == "release" else None) or write.id),
            producer=producer,
        ),
        "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(_dataset_type(write), producer=producer),
    }
    columns = _columns(write, context)
    if columns:
        facets["schema"] = schema_dataset.SchemaDatasetFacet(
            [
                # Written without `fields` (an empty list by default): columns of ours are not nested.
                schema_dataset.SchemaDatasetFacetFields(c.name, c.type, c.description, position, fields=None)
                for position, c in enumerate(columns, start=1)
            ],
            producer=producer,
        )
    owners = _owners(write, context)
    if owners:
        facets["ownership"] = ownership_dataset.OwnershipDatasetFacet(
            [ownership_dataset.Owner(owner.name, owner.type) for owner in owners], producer=producer
        )
    text = _documentation(write, context)
    if text:
        facets["documentation"] = documentation_dataset.DocumentationDatasetFacet(text, producer=producer)
    facets["storage"] = _storage(write, producer)
    change = _lifecycle(write)
    if change:
        facets["lifecycleStateChange"] = lifecycle_state_change_dataset.LifecycleStateChangeDatasetFacet(
            change, producer=producer
        )
    tags = list(_tags(write, context))
    if tags:
        facets["tags"] = tags_dataset.TagsDatasetFacet(tags, producer=producer)
    lineage = context.column_edges(name, write.written_at) if context.column_edges and write.kind != "migration" else ()
    if lineage:
        facets["columnLineage"] = _column_lineage(lineage, producer)
    files = write.detail.get("files")
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=write.rows_out,
        size=write.bytes if write.kind == "release" else None,
        fileCount=len(files) if write.kind == "release" and isinstance(files, Sequence | Mapping) else None,
        producer=producer,
    )
    return OutputDataset(
        name.namespace,
        name.name,
        {} if write.rows_out is None and statistics.size is None else {"outputStatistics": statistics},
        facets=facets,
    )


def _tags(write: PendingWrite, context: Context) -> Iterator[tags_dataset.TagsDatasetFacetFields]:
    """What the contract says of a raw table's columns; of others, what they are by their lineage."""
    described = context.described.get(write.target)
    if described and described.classes:
        for column, told in described.classes.items():
            for key, value in told.items():
                yield tags_dataset.TagsDatasetFacetFields(key, value, "CONTRACT", column)
    elif write.kind in ("model", "release"):
        for column, item in context.classes.get(write.target, {}).items():
            yield tags_dataset.TagsDatasetFacetFields("classification", item.level, "DERIVED", column)
            yield tags_dataset.TagsDatasetFacetFields("derivedAs", item.what, "DERIVED", column)


def _storage(write: PendingWrite, producer: str) -> storage_dataset.StorageDatasetFacet:
    if write.kind == "release":
        return storage_dataset.StorageDatasetFacet("file", ",".join(write.facts.get("formats") or ()) or None, producer=producer)
    return storage_dataset.StorageDatasetFacet("postgresql", producer=producer)


def _lifecycle(write: PendingWrite) -> lifecycle_state_change_dataset.LifecycleStateChange | None:
    """What the write did to the dataset as a whole; None where it changed some of its rows."""
    states = lifecycle_state_change_dataset.LifecycleStateChange
    if write.kind == "migration":
        return states.ALTER
    if write.first:
        return states.CREATE
    whole = write.kind in ("model", "release") and write.facts.get("materialized") not in ("incremental", "snapshot")
    return states.OVERWRITE if whole or write.facts.get("mode") == "replace" else None


def _column_lineage(edges: Sequence[ColumnEdge], producer: str) -> column_lineage_dataset.ColumnLineageDatasetFacet:
    """The edges by column, those that decide which rows there are in ``dataset``; in a stable order."""
    grouped: dict[str | None, dict[tuple[str, str, str], dict[str, bool]]] = {}
    for edge in edges:
        sources = grouped.setdefault(edge.target_column, {})
        how = sources.setdefault((edge.source.namespace, edge.source.name, edge.source_column), {})
        # Masked only where every way of this kind is.
        how[edge.subtype] = edge.masking and how.get(edge.subtype, True)

    def fields(sources: Mapping[tuple[str, str, str], Mapping[str, bool]]) -> list[column_lineage_dataset.InputField]:
        return [
            column_lineage_dataset.InputField(
                *source,
                [
                    column_lineage_dataset.Transformation(
                        "DIRECT" if subtype in _DIRECT else "INDIRECT", str(subtype), masking=masking
                    )
                    for subtype, masking in sorted(how.items())
                ],
            )
            for source, how in sorted(sources.items())
        ]

    return column_lineage_dataset.ColumnLineageDatasetFacet(
        {
            column: column_lineage_dataset.Fields(fields(sources))
            for column, sources in sorted((c, s) for c, s in grouped.items() if c is not None)
        },
        fields(grouped.get(None, {})),
        producer=producer,
    )


def _release_version(write: PendingWrite) -> str | None:
    """Which release it is; the write's own version is that of the publication."""
    return write.detail.get("version") or write.version


def _columns(write: PendingWrite, context: Context) -> Sequence[Column]:
    told = write.detail.get("columns") if write.kind == "release" else None
    if told:
        return [
            Column(c["name"], c.get("type"), c.get("description")) if isinstance(c, Mapping) else Column(str(c)) for c in told
        ]
    return () if write.superseded else context.columns.get(write.target, ())


def _dataset_type(write: PendingWrite) -> str:
    if write.kind == "release":
        return "FILE"
    return "VIEW" if write.detail.get("materialized") == "view" else "TABLE"


def _source(name: DatasetName, context: Context, location: object) -> datasource_dataset.DatasourceDatasetFacet:
    """Where the dataset lives. A location is told only as a URL and without credentials: paths of a machine
    stay in it."""
    uri = name.namespace if "://" in name.namespace else None
    if isinstance(location, str) and "://" in location:
        uri = without_credentials(location)
    return datasource_dataset.DatasourceDatasetFacet(name.namespace, uri, producer=context.producer)


def _uuid(run_id: str) -> str:
    """A run's id as a UUID: its own, or one that always follows from it."""
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        return str(uuid.uuid5(_RUNS, run_id))


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str) or not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
