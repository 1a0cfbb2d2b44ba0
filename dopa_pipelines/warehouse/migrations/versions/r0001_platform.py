"""The platform's schemas, tables, functions and rights.

Tables of datasets (``raw``, ``quarantine``) are made by the load from the contract, models by dbt; neither
belongs here.

``lineage`` is written through two functions only. They run as their owner and take user, transaction and time
from the server, so that no role can record a write as another's or change one.
"""

from __future__ import annotations

from alembic import context, op

revision = "0001"
down_revision = None

TABLES = """
create table ops.delivery (
    id bigint generated always as identity primary key,
    dataset text collate "C" not null,
    bureau text collate "C",
    file text collate "C",
    sha256 text collate "C",
    bytes bigint,
    contract_version text collate "C",
    contract_checksum text collate "C",
    run_id text collate "C",
    status text collate "C" not null check (status in ('loaded', 'rejected')),
    in_force boolean not null default false,
    rows_read bigint,
    rows_loaded bigint,
    rows_quarantined bigint,
    rows_layout bigint,
    rows_held bigint not null default 0,
    reasons jsonb,
    scope jsonb,
    problem text,
    seconds jsonb,
    notes jsonb,
    received_at timestamptz not null default clock_timestamp(),
    constraint nothing_is_lost check (
        status <> 'loaded'
        or (rows_read is not null and rows_loaded is not null and rows_quarantined is not null
            and rows_read = rows_loaded + rows_quarantined)
    )
);
comment on table ops.delivery is 'Every delivery that was processed, loaded or rejected: counts and reasons';
comment on column ops.delivery.rows_held is 'Rows of the delivery that later ones have not replaced';
comment on column ops.delivery.in_force is 'Whether the table still holds all that the delivery loaded';
create index delivery_content on ops.delivery (dataset, sha256);
create index delivery_in_force on ops.delivery (dataset) where in_force;

create table ops.access_log (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    who text collate "C" not null,
    action text collate "C" not null,
    subject text collate "C",
    detail jsonb
);
comment on table ops.access_log is 'Who was shown personal values, when, and which';

create table ops.run_note (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    run_id text collate "C" not null,
    kind text collate "C" not null,
    note jsonb
);
comment on table ops.run_note is 'What a run has to tell beside its deliveries and writes';
create index run_note_run on ops.run_note (run_id);

create table lineage.identity (
    key text collate "C" primary key,
    value text collate "C" not null
);
comment on table lineage.identity is 'Names that are fixed once for this warehouse';

create table lineage.write (
    id bigint generated always as identity primary key,
    kind text collate "C" not null check (kind in ('load', 'model', 'release', 'migration')),
    target text collate "C" not null,
    transaction_id xid8 not null,
    cluster text collate "C" not null,
    run_id text collate "C",
    parent_run_id text collate "C",
    written_at timestamptz not null,
    written_by text collate "C" not null,
    code jsonb,
    version text collate "C",
    inputs jsonb not null default '[]',
    rows_in bigint,
    rows_out bigint,
    detail jsonb,
    environment text collate "C" not null default 'production'
);
comment on table lineage.write is 'Every change of every table, recorded in the transaction that made it';
comment on column lineage.write.target is 'schema.table, or release:<publication>';
comment on column lineage.write.cluster is 'The server (system identifier) that the transaction id is of';
create index write_target on lineage.write (target, id);
create index write_transaction on lineage.write (transaction_id);
create index write_run on lineage.write (run_id);

create table lineage.event (
    id bigint generated always as identity primary key,
    write_id bigint references lineage.write (id),
    run_id text collate "C",
    event_time timestamptz not null,
    event jsonb not null
);
comment on table lineage.event is 'OpenLineage events made from the writes, append only';
create index event_write on lineage.event (write_id);
"""

FUNCTIONS = """
create function lineage.cluster() returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    -- Asked for by right, not by catching the error: that would be a sub-transaction.
    if has_function_privilege('pg_catalog.pg_control_system()', 'execute') then
        return (select system_identifier::text from pg_control_system());
    end if;
    return (select value from lineage.identity where key = 'cluster');
end
$$;
comment on function lineage.cluster() is
    'System identifier of this server, or the stand-in fixed at the first migration';

create function lineage.record_write(
    p_kind text,
    p_target text,
    p_run_id text default null,
    p_parent_run_id text default null,
    p_code jsonb default null,
    p_version text default null,
    p_inputs jsonb default '[]',
    p_rows_in bigint default null,
    p_rows_out bigint default null,
    p_detail jsonb default null,
    p_environment text default 'production'
) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_namespace text := (select value from lineage.identity where key = 'warehouse_namespace');
    v_prefix text := current_database() || '.';
    v_inputs jsonb;
    v_id bigint;
begin
    -- An input without a write is given the latest one of that target in this warehouse.
    select coalesce(jsonb_agg(
        case
            when jsonb_typeof(i.input -> 'write') = 'number' then i.input
            else i.input || jsonb_build_object('write', (
                select max(w.id)
                from lineage.write w
                where coalesce(i.input ->> 'namespace', v_namespace) = v_namespace
                  and w.target = case
                      when starts_with(i.input ->> 'name', v_prefix)
                          then substr(i.input ->> 'name', length(v_prefix) + 1)
                      else i.input ->> 'name'
                  end
            ))
        end
        order by i.position
    ), '[]')
    into v_inputs
    from jsonb_array_elements(coalesce(p_inputs, '[]')) with ordinality as i (input, position);

    insert into lineage.write (
        kind, target, transaction_id, cluster, run_id, parent_run_id, written_at, written_by,
        code, version, inputs, rows_in, rows_out, detail, environment
    ) values (
        p_kind, p_target, pg_current_xact_id(), lineage.cluster(), p_run_id, p_parent_run_id,
        clock_timestamp(), session_user,
        p_code, p_version, v_inputs, p_rows_in, p_rows_out, p_detail, coalesce(p_environment, 'production')
    ) returning id into v_id;
    return v_id;
end
$$;
comment on function lineage.record_write is
    'Record a write in the transaction that makes it; user, transaction and time come from the server';

create function lineage.record_event(p_write_id bigint, p_run_id text, p_event jsonb) returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    insert into lineage.event (write_id, run_id, event_time, event)
    values (
        p_write_id, p_run_id, coalesce((p_event ->> 'eventTime')::timestamptz, clock_timestamp()), p_event
    )
    returning id
$$;
comment on function lineage.record_event is 'Append an OpenLineage event that tells of a write';

revoke all on function lineage.cluster() from public;
revoke all on function lineage.record_write from public;
revoke all on function lineage.record_event from public;
"""

# Skipped where every role is the URL's user; {names} stand for what the roles are called on this server.
RIGHTS = """
grant usage on schema raw to {transformer};
alter default privileges for role {loader} in schema raw grant select on tables to {transformer};

grant usage on schema staging, marts, open_data, lineage, ops to {reader};
alter default privileges for role {transformer} in schema staging grant select on tables to {reader};
alter default privileges for role {transformer} in schema marts grant select on tables to {reader};
alter default privileges for role {transformer} in schema open_data grant select on tables to {reader};
alter default privileges in schema lineage
    grant select on tables to {reader}, {loader}, {transformer};
alter default privileges in schema ops grant select on tables to {reader}, {transformer};
grant usage on schema staging, marts, open_data to {loader};

grant usage on schema lineage, ops to {loader}, {transformer};
grant select on all tables in schema lineage to {reader}, {loader}, {transformer};
grant select on all tables in schema ops to {reader}, {transformer};
grant select, insert, update, delete on ops.delivery, ops.run_note to {loader};
-- A log that its writer can change is none.
grant select, insert on ops.access_log to {loader};

grant execute on function lineage.cluster() to {loader}, {transformer}, {reader};
grant execute on function lineage.record_write to {loader}, {transformer};
grant execute on function lineage.record_event to {loader}, {transformer};
"""

SCHEMAS = {
    "raw": "loader",
    "quarantine": "loader",
    "staging": "transformer",
    "marts": "transformer",
    "open_data": "transformer",
    "lineage": "owner",
    "governance": "owner",
    "ops": "owner",
}


def upgrade() -> None:
    attributes = context.config.attributes
    # exec_driver_sql: the text has colons of its own.
    bind = op.get_bind()
    quote = bind.dialect.identifier_preparer.quote
    names = {role.name.lower(): quote(name) for role, name in (attributes["roles"] or {}).items()}
    for schema, owner in SCHEMAS.items():
        authorization = f" authorization {names[owner]}" if names else ""
        bind.exec_driver_sql(f"create schema if not exists {schema}{authorization}")
    bind.exec_driver_sql(TABLES)
    bind.exec_driver_sql(FUNCTIONS)
    bind.exec_driver_sql(
        "insert into lineage.identity (key, value) values ('warehouse_namespace', %s), ('roles', %s), "
        "('cluster', gen_random_uuid()::text)",
        (attributes["namespace"], "apart" if names else "one"),
    )
    if names:
        bind.exec_driver_sql(RIGHTS.format(**names))
