"""Work that began and how it ended, events of other systems, and what of our events was forwarded.

``lineage.work`` is written outside the transaction of the work it tells of, so that work which was rolled back is known too.
"""

from __future__ import annotations

from alembic import context, op

revision = "0007"
down_revision = "0006"

TABLES = """
create table lineage.work (
    id bigint generated always as identity primary key,
    work uuid not null,
    state text collate "C" not null check (state in ('START', 'COMPLETE', 'FAIL', 'ABORT')),
    at timestamptz not null,
    told_by text collate "C" not null,
    kind text collate "C",
    target text collate "C",
    run_id text collate "C",
    parent_run_id text collate "C",
    environment text collate "C",
    inputs jsonb,
    turn text collate "C",
    detail jsonb,
    constraint told_what_began check (state <> 'START' or (kind is not null and target is not null and environment is not null))
);
comment on table lineage.work is 'That work began, and how it ended where no row of lineage.write tells so; append only';
comment on column lineage.work.work is 'Id of the work: the OpenLineage run id; lineage.write has it in detail ->> ''work''';
comment on column lineage.work.turn is
    'The turn of dbt that the work belongs to; without one, the work lives as long as the session that began it';
-- One beginning and one end each.
create unique index work_begun on lineage.work (work) where state = 'START';
create unique index work_ended on lineage.work (work) where state <> 'START';
create index write_work on lineage.write ((detail ->> 'work')) where detail ->> 'work' is not null;

alter table lineage.event
    add column work_id bigint references lineage.work (id),
    add column imported text collate "C",
    add column told_by text collate "C";
comment on column lineage.event.work_id is 'The row of lineage.work that the event tells of';
comment on column lineage.event.imported is 'Of an event of another system: SHA-256 of what it says';
create unique index event_work on lineage.event (work_id);
create unique index event_imported on lineage.event (imported);

create table lineage.imported_dataset (
    id bigint generated always as identity primary key,
    event_id bigint not null references lineage.event (id),
    job text collate "C" not null,
    run text collate "C" not null,
    direction text collate "C" not null check (direction in ('input', 'output')),
    namespace text collate "C" not null,
    name text collate "C" not null
);
comment on table lineage.imported_dataset is 'Datasets that events of other systems read and wrote';
create index imported_dataset_run on lineage.imported_dataset (run);

create table ops.outbox (
    event_id bigint primary key,
    state text collate "C" not null check (state in ('retry', 'sent', 'failed')),
    attempts integer not null default 0,
    sent_before bigint,
    next_try timestamptz,
    problem text collate "C",
    at timestamptz not null default clock_timestamp()
);
comment on table ops.outbox is 'Events above ops.outbox_state.through that are being forwarded, and those refused for good';
comment on column ops.outbox.sent_before is 'How many events had been sent when this one failed first';

create table ops.outbox_state (
    single boolean primary key default true check (single),
    through bigint not null default 0,
    sent bigint not null default 0,
    failed bigint not null default 0,
    dropped bigint not null default 0,
    failures integer not null default 0,
    pause_until timestamptz,
    problem text collate "C",
    last_sent timestamptz
);
comment on table ops.outbox_state is 'How far events are forwarded: all up to `through` are settled';
insert into ops.outbox_state default values;
"""

FUNCTIONS = """
create function lineage.begin_work(
    p_work uuid,
    p_kind text,
    p_target text,
    p_run_id text default null,
    p_parent_run_id text default null,
    p_inputs jsonb default '[]',
    p_detail jsonb default null,
    p_environment text default 'production',
    p_turn text default null
) returns uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into lineage.work (
        work, state, at, told_by, kind, target, run_id, parent_run_id, environment, inputs, turn, detail
    ) values (
        p_work, 'START', clock_timestamp(), session_user, p_kind, p_target, p_run_id, p_parent_run_id,
        coalesce(p_environment, 'production'), coalesce(p_inputs, '[]'), p_turn, p_detail
    ) on conflict do nothing;
    -- Held until the session ends, however it ends: so it is seen from outside that the work goes on.
    if p_turn is null then
        perform pg_advisory_lock(hashtextextended('work:' || p_work, 0));
    end if;
    return p_work;
end
$$;
comment on function lineage.begin_work is 'Record that work begins; commit it before the work''s own transaction begins';

create function lineage.end_work(p_work uuid, p_state text, p_detail jsonb default null) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into lineage.work (work, state, at, told_by, detail)
    select p_work, p_state, clock_timestamp(), session_user, p_detail
    where p_state <> 'START'
      and exists (select from lineage.work w where w.work = p_work and w.state = 'START')
      and not exists (select from lineage.write w where w.detail ->> 'work' = p_work::text)
    on conflict do nothing;
    return found;
end
$$;
comment on function lineage.end_work is
    'Record how work ended; nothing where it never began, has ended, or its write tells that it is complete';

create function lineage.tell(p_work_id bigint, p_run_id text, p_event jsonb) returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    insert into lineage.event (work_id, run_id, event_time, event, told_by)
    values (
        p_work_id, p_run_id, coalesce((p_event ->> 'eventTime')::timestamptz, clock_timestamp()), p_event, session_user
    )
    returning id
$$;
comment on function lineage.tell is 'Append an OpenLineage event that tells of a row of lineage.work';

create function lineage.import_event(p_event jsonb, p_digest text, p_job text, p_run text, p_datasets jsonb) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_id bigint;
begin
    insert into lineage.event (run_id, event_time, event, imported, told_by)
    values (p_event #>> '{run,runId}', (p_event ->> 'eventTime')::timestamptz, p_event, p_digest, session_user)
    on conflict (imported) do nothing
    returning id into v_id;
    insert into lineage.imported_dataset (event_id, job, run, direction, namespace, name)
    select v_id, p_job, p_run, d ->> 'direction', d ->> 'namespace', d ->> 'name'
    from jsonb_array_elements(p_datasets) d
    where v_id is not null;
    return v_id;
end
$$;
comment on function lineage.import_event is 'Keep an event of another system; null where it is kept already';

revoke all on function lineage.begin_work from public;
revoke all on function lineage.end_work from public;
revoke all on function lineage.tell from public;
revoke all on function lineage.import_event from public;
"""

RIGHTS = """
grant execute on function lineage.begin_work, lineage.end_work to {loader}, {transformer};
grant execute on function lineage.tell, lineage.import_event to {loader}, {transformer};
grant select on all tables in schema lineage to {reader}, {loader}, {transformer};
grant select, insert, update, delete on ops.outbox, ops.outbox_state to {loader};
grant select on ops.outbox, ops.outbox_state to {reader}, {transformer};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    bind.exec_driver_sql(FUNCTIONS)
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
