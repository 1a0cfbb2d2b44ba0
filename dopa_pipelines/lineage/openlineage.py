"""Recorded writes as OpenLineage events.

Belongs here: how a row of ``lineage.write`` is told to the world. Does not belong here: names (``naming``),
what is recorded (``store``), sending events on.

A write becomes a START and a COMPLETE event, recorded after it committed: rolled-back work leaves no event
here. The run id follows from the cluster, the write and its time, so telling a write again tells the same
thing. The class for a facet is always the published client's; the one facet of our own, ``dopa_write``, leads
from an event to the row of ``lineage.write``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from typing import Any, ClassVar

import attr
import psycopg
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.generated import (
    dataset_type_dataset,
    dataset_version_dataset,
    datasource_dataset,
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
    sql_job,
)
from openlineage.client.generated.base import DatasetFacet, InputDatasetFacet, JobFacet, RunFacet
from openlineage.client.serde import Serde
from openlineage.client.uuid import generate_static_uuid
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from dopa_pipelines.lineage.model import Column, Owner, WriteKind
from dopa_pipelines.lineage.naming import DatasetName, FeedKind, Identity, is_release, without_credentials
from dopa_pipelines.lineage.store import PRODUCTION, identity

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

Owners = Mapping[str, Sequence[Owner]] | Callable[[str], Sequence[Owner]]
"""Who answers for a target (``raw.person_register``, ``release:population``)."""


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


@dataclass(frozen=True, slots=True)
class Context:
    """What is the same for all writes told at once."""

    identity: Identity
    server_version: str
    owners: Owners = field(default_factory=dict)
    columns: Mapping[str, Sequence[Column]] = field(default_factory=dict)
    producer: str = PRODUCER
    job_namespace: str = JOB_NAMESPACE

    def owners_of(self, target: str) -> Sequence[Owner]:
        """Who answers for a target; nobody where nobody is named."""
        return self.owners(target) if callable(self.owners) else self.owners.get(target, ())


def run_uuid(cluster: str, write_id: int, written_at: datetime) -> str:
    """The OpenLineage run id of a write: a UUID version 7 of its time, the rest a hash, the same every
    time."""
    return str(generate_static_uuid(written_at, f"{cluster}/{write_id}".encode()))


def job_name(write: PendingWrite) -> str:
    """``ingest.<dataset>``, ``dbt.<model unique id>``, ``publish.<publication>``, ``migrate.<dataset>`` or"
    " ``rebase.<dataset>``."""
    bare = write.target.partition(":" if write.kind == "release" else ".")[2] or write.target
    match write.kind:
        case "load":
            return f"ingest.{bare}"
        case "model":
            return f"dbt.{write.detail.get('unique_id') or write.code.get('unique_id') or write.target}"
        case "release":
            return f"publish.{bare}"
        case "migration":
            return f"migrate.{bare}"
        case "rebase":
            return f"rebase.{bare}"


def events(write: PendingWrite, context: Context) -> list[RunEvent]:
    """The START and the COMPLETE event of a write."""
    run_id = run_uuid(write.cluster, write.id, write.written_at)
    run_facets = _run_facets(write, context)
    inputs = _inputs(write, context)
    output = context.identity.of_target(write.target)
    started = _moment(write.detail.get("started_at")) or write.written_at
    start = RunEvent(
        eventType=RunState.START,
        eventTime=_iso(min(started, write.written_at)),
        run=Run(run_id, {key: run_facets[key] for key in ("parent", "nominalTime") if key in run_facets}),
        job=Job(context.job_namespace, job_name(write), {"jobType": _job_type(write, context)}),
        inputs=[InputDataset(given.namespace, given.name) for given in inputs],
        outputs=[OutputDataset(*output)],
        producer=context.producer,
    )
    complete = RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=_iso(write.written_at),
        run=Run(run_id, run_facets),
        job=Job(context.job_namespace, job_name(write), _job_facets(write, context)),
        inputs=inputs,
        outputs=[_output(write, output, context)],
        producer=context.producer,
    )
    return [start, complete]


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
    ) as superseded
from lineage.write w
left join ops.delivery d on d.id = (w.detail ->> 'delivery')::bigint
where w.environment = %s and not exists (select from lineage.event e where e.write_id = w.id)
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
    owners: Owners | None = None,
    columns: Mapping[str, Sequence[Column]] | None = None,
    producer: str = PRODUCER,
    job_namespace: str = JOB_NAMESPACE,
    environment: str = PRODUCTION,
    batch: int = 1000,
) -> int:
    """Tell every write of production that was not told yet; returns the number of events recorded.

    Tables' columns are read from the catalog; ``columns`` gives those of releases by target, where their
    writes do not tell them in ``detail``. Part of the caller's transaction, or in one of its own; either must
    be read committed, so that who waited for another emitter sees what that one told.
    """
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (_TURN,))
        recorded = 0
        while True:
            with conn.cursor(row_factory=dict_row) as cursor:
                rows = cursor.execute(_PENDING, (environment, batch)).fetchall()
            if not rows:
                return recorded
            pending = [PendingWrite(**row) for row in rows]
            context = Context(
                identity=identity(conn),
                server_version=conn.info.parameter_status("server_version") or str(conn.info.server_version),
                owners=owners or {},
                columns={
                    **_table_columns(conn, {w.target for w in pending if w.kind != "release"}),
                    **(columns or {}),
                },
                producer=producer,
                job_namespace=job_namespace,
            )
            told = [(write, event) for write in pending for event in events(write, context)]
            conn.execute(
                # One document: an array of documents would be escaped character by character.
                "select lineage.record_event((t.told ->> 'write')::bigint, t.told ->> 'run',"
                " t.told -> 'event')"
                " from jsonb_array_elements(%s) with ordinality as t(told, position) order by t.position",
                (Jsonb([{"write": write.id, "run": event.run.runId, "event": as_dict(event)} for write, event in told]),),
            )
            recorded += len(told)


def _table_columns(conn: psycopg.Connection[Any], targets: Iterable[str]) -> dict[str, list[Column]]:
    split = [target.partition(".") for target in sorted(targets)]
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_COLUMNS, ([s for s, _, _ in split], [t for _, _, t in split])).fetchall()
    found: dict[str, list[Column]] = {}
    for row in rows:
        found.setdefault(row.pop("target"), []).append(Column(**row))
    return found


def _run_facets(write: PendingWrite, context: Context) -> dict[str, RunFacet]:
    producer = context.producer
    facets: dict[str, RunFacet] = {
        "processing_engine": _engine(write, context),
        "dopa_write": WriteRunFacet(
            writeId=write.id,
            cluster=write.cluster,
            transactionId=write.transaction_id,
            runId=write.run_id,
            writtenBy=write.written_by,
            codeChecksum=write.code.get("checksum"),
            codeVersion=write.code.get("git_commit") or write.version,
            producer=producer,
        ),
    }
    # The run that orders the work (Dagster's), else the process that did it (a dbt or dopa by hand).
    parent = write.parent_run_id or write.run_id
    if parent:
        # A run is of one job, whichever of its writes tells of it.
        by_dbt = parent == write.detail.get("invocation_id")
        job = str(write.detail.get("job") or ("dbt" if by_dbt else "dopa"))
        facets["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(_uuid(parent)),
            job=parent_run.Job(context.job_namespace, job),
            producer=producer,
        )
    nominal = _moment(write.detail.get("nominal_start"))
    if nominal:
        end = _moment(write.detail.get("nominal_end"))
        facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(_iso(nominal), _iso(end) if end else None, producer=producer)
    return facets


_JOB_TYPES = {"load": "LOAD", "model": "MODEL", "release": "RELEASE", "migration": "MIGRATION", "rebase": "REBASE"}


def _engine(write: PendingWrite, context: Context) -> processing_engine_run.ProcessingEngineRunFacet:
    """What did the work: PostgreSQL for models and migrations, else this package; or what the writer says."""
    told = write.detail.get("engine")
    if isinstance(told, Mapping) and told.get("version"):
        name, number = told.get("name"), str(told["version"])
    elif write.kind in ("model", "migration", "rebase"):
        name, number = "PostgreSQL", context.server_version
    else:
        name, number = "dopa-pipelines", _VERSION
    return processing_engine_run.ProcessingEngineRunFacet(number, name, _CLIENT_VERSION, producer=context.producer)


def _job_type(write: PendingWrite, context: Context) -> job_type_job.JobTypeJobFacet:
    return job_type_job.JobTypeJobFacet(
        "BATCH",
        "DBT" if write.kind == "model" else "DOPA",
        _JOB_TYPES[write.kind],
        producer=context.producer,
    )


def _job_facets(write: PendingWrite, context: Context) -> dict[str, JobFacet]:
    facets: dict[str, JobFacet] = {"jobType": _job_type(write, context)}
    query = write.code.get("compiled")
    if query and write.kind == "model":
        facets["sql"] = sql_job.SQLJobFacet(str(query), "postgres", producer=context.producer)
    owners = context.owners_of(write.target)
    if owners:
        facets["ownership"] = ownership_job.OwnershipJobFacet(
            [ownership_job.Owner(owner.name, owner.type) for owner in owners], producer=context.producer
        )
    return facets


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
        given[name] = InputDataset(name.namespace, name.name, input_facets, facets=facets)
    return list(given.values())


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
    owners = context.owners_of(write.target)
    if owners:
        facets["ownership"] = ownership_dataset.OwnershipDatasetFacet(
            [ownership_dataset.Owner(owner.name, owner.type) for owner in owners], producer=producer
        )
    if write.kind == "migration":
        facets["lifecycleStateChange"] = lifecycle_state_change_dataset.LifecycleStateChangeDatasetFacet(
            lifecycle_state_change_dataset.LifecycleStateChange.ALTER, producer=producer
        )
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
