"""The column graph: which column was made from which, since when and until when.

It grows by what changed: a definition (contract, compiled SQL, publication) that is the same adds nothing, of another one only
the edges that differ are closed and opened. Rows are written by the functions alone; what they say follows from
``lineage.write``, so that it can always be made again and compared.
"""

from __future__ import annotations

from alembic import context, op

revision = "0005"
down_revision = "0004"

TABLES = """
create table lineage.dataset (
    id integer generated always as identity primary key,
    namespace text collate "C" not null,
    name text collate "C" not null,
    unique (name, namespace)
);
comment on table lineage.dataset is 'Datasets of the column graph, as OpenLineage names them';

create table lineage.field (
    id integer generated always as identity primary key,
    dataset_id integer not null references lineage.dataset (id),
    name text collate "C",
    unique nulls not distinct (dataset_id, name)
);
comment on table lineage.field is 'Columns of datasets, past ones too';
comment on column lineage.field.name is 'Null: which rows the dataset has, whatever their values';

create table lineage.definition (
    id integer generated always as identity primary key,
    dataset_id integer not null references lineage.dataset (id),
    kind text collate "C" not null check (kind in ('feed', 'load', 'model', 'release', 'table', 'external')),
    checksum text collate "C" not null,
    version text collate "C",
    reads jsonb not null default '{}',
    fields jsonb not null default '[]',
    problem jsonb,
    write_id bigint references lineage.write (id),
    valid_from timestamptz not null,
    valid_to timestamptz not null default 'infinity',
    check (valid_from < valid_to)
);
comment on table lineage.definition is 'What a dataset was made by and which columns it had, from when until when';
comment on column lineage.definition.kind is
    'load: by a contract; table: read from the catalog, nobody here has written it; external: told by another system';
comment on column lineage.definition.checksum is
    'SHA-256 over that of the code (contract, compiled SQL, publication) and the edition of what resolves it';
comment on column lineage.definition.reads is 'The datasets it was analyzed over, each with the SHA-256 of its columns'' names';
comment on column lineage.definition.fields is 'Columns in order; with classification and PDPA role where a contract says them';
comment on column lineage.definition.problem is 'Why its columns cannot be resolved: construct, reason, line, column';
comment on column lineage.definition.write_id is 'The write from which on it was in force';
create unique index definition_now on lineage.definition (dataset_id) where valid_to = 'infinity';
create index definition_time on lineage.definition (dataset_id, valid_to);

create type lineage.subtype as enum (
    'IDENTITY', 'TRANSFORMATION', 'AGGREGATION', 'JOIN', 'FILTER', 'GROUP_BY', 'SORT', 'WINDOW', 'CONDITIONAL'
);
comment on type lineage.subtype is 'As in OpenLineage''s columnLineage facet; the first three are DIRECT';

create table lineage.column_edge (
    source_id integer not null references lineage.field (id),
    target_id integer not null references lineage.field (id),
    subtype lineage.subtype not null,
    masking boolean not null default false,
    valid_from timestamptz not null,
    valid_to timestamptz not null default 'infinity',
    check (valid_from < valid_to)
);
comment on table lineage.column_edge is 'That a column was made from another, from when until when';
-- What is in force now has the greatest valid_to, and what was in force then a later one than then: one index a way for both.
create index column_edge_up on lineage.column_edge (target_id, valid_to) include (valid_from, source_id, subtype, masking);
create index column_edge_down on lineage.column_edge (source_id, valid_to) include (valid_from, target_id, subtype, masking);

create table lineage.columns_seen (
    cluster text collate "C" primary key,
    snapshot pg_snapshot not null
);
comment on table lineage.columns_seen is 'The writes that the column graph knows: those that this snapshot sees';
"""

FUNCTIONS = """
create function lineage.record_definition(
    p_write_id bigint,
    p_namespace text,
    p_name text,
    p_kind text,
    p_checksum text,
    p_version text,
    p_reads jsonb,
    p_fields jsonb,
    p_problem jsonb,
    p_edges jsonb,
    p_event_id bigint default null
) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- Other systems may say that it is tomorrow.
    v_at timestamptz := coalesce(
        (select written_at from lineage.write where id = p_write_id),
        (select least(event_time, clock_timestamp()) from lineage.event where id = p_event_id)
    );
    v_dataset integer;
    v_now lineage.definition;
begin
    if v_at is null then
        raise exception using message = 'there is no write ' || coalesce(p_write_id, p_event_id, 0);
    end if;
    insert into lineage.dataset (namespace, name)
    select n.namespace, n.name
    from (
        select p_namespace as namespace, p_name as name
        union
        select e.namespace, e.name from jsonb_to_recordset(p_edges) as e (namespace text, name text)
    ) as n
    where not exists (select from lineage.dataset d where d.name = n.name and d.namespace = n.namespace);
    select id into strict v_dataset from lineage.dataset where namespace = p_namespace and name = p_name;

    select * into v_now from lineage.definition where dataset_id = v_dataset and valid_to = 'infinity';
    if p_kind = 'external' and v_now.kind in ('load', 'model', 'release') then
        -- What we write ourselves, nobody knows better.
        return false;
    end if;
    -- Of what a silo sends, its contract says the fields and its own system where they come from.
    if p_kind <> 'external' or v_now.kind is null or v_now.kind = 'external' then
        -- Writes of one dataset come one after the other: an older one was replaced before it was looked at.
        if v_now.valid_from >= v_at
            or (v_now.kind = p_kind and v_now.checksum = p_checksum and v_now.reads = p_reads and v_now.fields = p_fields
                and v_now.problem is not distinct from p_problem)
        then
            return false;
        end if;
        update lineage.definition set valid_to = v_at where id = v_now.id;
        insert into lineage.definition (
            dataset_id, kind, checksum, version, reads, fields, problem, write_id, valid_from
        ) values (v_dataset, p_kind, p_checksum, p_version, p_reads, p_fields, p_problem, p_write_id, v_at);
    end if;

    insert into lineage.field (dataset_id, name)
    select n.dataset_id, n.name
    from (
        select v_dataset as dataset_id, f ->> 'name' as name from jsonb_array_elements(p_fields) as f
        union
        select v_dataset, e.target from jsonb_to_recordset(p_edges) as e (target text)
        union
        select d.id, e.source
        from jsonb_to_recordset(p_edges) as e (namespace text, name text, source text)
        join lineage.dataset d on d.name = e.name and d.namespace = e.namespace
    ) as n
    where not exists (select from lineage.field f where f.dataset_id = n.dataset_id and f.name is not distinct from n.name);

    if p_kind in ('feed', 'table') then
        return true;
    end if;
    -- One statement, so one view of the edges as they were: what is closed and what is opened are not the same.
    with wanted as materialized (
        select distinct s.id as source_id, t.id as target_id, e.subtype::lineage.subtype, coalesce(e.masking, false) as masking
        from jsonb_to_recordset(p_edges) as e (
            namespace text, name text, source text, target text, subtype text, masking boolean
        )
        join lineage.dataset d on d.name = e.name and d.namespace = e.namespace
        join lineage.field s on s.dataset_id = d.id and s.name = e.source
        join lineage.field t on t.dataset_id = v_dataset and t.name is not distinct from e.target
    ),
    closed as (
        update lineage.column_edge e
        set valid_to = v_at
        from lineage.field t
        where t.dataset_id = v_dataset and e.target_id = t.id and e.valid_to = 'infinity' and e.valid_from < v_at
            and not exists (
                select from wanted w
                where w.source_id = e.source_id and w.target_id = e.target_id
                    and w.subtype = e.subtype and w.masking = e.masking
            )
    )
    insert into lineage.column_edge (source_id, target_id, subtype, masking, valid_from)
    select w.source_id, w.target_id, w.subtype, w.masking, v_at
    from wanted w
    where not exists (
        select from lineage.column_edge e
        where e.source_id = w.source_id and e.target_id = w.target_id and e.subtype = w.subtype and e.masking = w.masking
            and e.valid_to = 'infinity'
    );
    return true;
end
$$;
comment on function lineage.record_definition is
    'Bring the column graph of one dataset to what a write made it; the time is that of the write';

create function lineage.columns_looked_at(p_snapshot pg_snapshot) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    insert into lineage.columns_seen (cluster, snapshot) values (lineage.cluster(), p_snapshot)
    on conflict (cluster) do update set snapshot = excluded.snapshot
$$;
comment on function lineage.columns_looked_at is 'Note that the column graph knows all writes that a snapshot sees';

revoke all on function lineage.record_definition from public;
revoke all on function lineage.columns_looked_at from public;
"""

RIGHTS = """
grant execute on function lineage.record_definition to {loader}, {transformer};
grant execute on function lineage.columns_looked_at to {loader}, {transformer};
grant usage on type lineage.subtype to {loader}, {transformer}, {reader};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    bind.exec_driver_sql(FUNCTIONS)
    # What each role is called here; None where every role is the URL's user. Reading is granted by default privileges (r0001).
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
