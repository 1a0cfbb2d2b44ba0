"""What many events say alike is kept once, who started the work is recorded, and renamed columns keep their edges.

An event of ours names the facets of its job and datasets, which seldom change, by the SHA-256 of their text; ``lineage.facet``
has the text. A seal is over the event and so over the names: a facet that was edited does not have its name any more. Facets
that differ from run to run stay in the event, and an event that was stored whole before stays whole.
"""

from __future__ import annotations

from alembic import context, op

revision = "0008"
down_revision = "0007"

TABLES = """
create table lineage.facet (
    sha256 text collate "C" primary key,
    facet jsonb not null
);
comment on table lineage.facet is 'Facets of jobs and datasets that events name, once each; append only';
comment on column lineage.facet.sha256 is 'SHA-256 of the text of the facet in UTF-8: its name in events, as {"_facet": …}';
create index imported_dataset_name on lineage.imported_dataset (name, namespace);
"""

FUNCTIONS = r"""
-- The version of a dataset is another one with every write. Of a run, only what did the work is the same every time.
create function lineage.keep_facets(p_facets jsonb, p_only text default null) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    with given as materialized (
        select f.key, f.value,
            case when f.key = coalesce(p_only, f.key) and f.key <> 'version' and not f.value ? '_facet'
                then encode(sha256(convert_to(f.value::text, 'UTF8')), 'hex') end as sha256
        from jsonb_each(p_facets) as f (key, value)
    ),
    kept as (
        insert into lineage.facet (sha256, facet)
        select g.sha256, g.value from given g
        where g.sha256 is not null and not exists (select from lineage.facet k where k.sha256 = g.sha256)
        on conflict do nothing
    )
    select coalesce(jsonb_object_agg(
        g.key, case when g.sha256 is null then g.value else jsonb_build_object('_facet', g.sha256) end
    ), '{}')
    from given g
$$;
comment on function lineage.keep_facets is 'Keep facets and name them; all but the version, or only the one named p_only';

create function lineage.split_event() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_part text;
begin
    if jsonb_typeof(new.event #> '{job,facets}') = 'object' then
        new.event := jsonb_set(new.event, '{job,facets}', lineage.keep_facets(new.event #> '{job,facets}'));
    end if;
    if jsonb_typeof(new.event #> '{run,facets}') = 'object' then
        new.event := jsonb_set(
            new.event, '{run,facets}', lineage.keep_facets(new.event #> '{run,facets}', 'processing_engine')
        );
    end if;
    foreach v_part in array array['inputs', 'outputs'] loop
        if jsonb_typeof(new.event -> v_part) = 'array' then
            new.event := new.event || jsonb_build_object(v_part, (
                select coalesce(jsonb_agg(
                    case when jsonb_typeof(d.item -> 'facets') = 'object'
                        then d.item || jsonb_build_object('facets', lineage.keep_facets(d.item -> 'facets')) else d.item end
                    order by d.place
                ), '[]')
                from jsonb_array_elements(new.event -> v_part) with ordinality as d (item, place)
            ));
        end if;
    end loop;
    return new;
end
$$;
comment on function lineage.split_event is 'Puts names in the place of an event''s facets that are kept once';

-- What others told stays as it came.
create trigger split before insert on lineage.event
    for each row when (new.imported is null) execute function lineage.split_event();

create function lineage.whole_facets(p_facets jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_object_agg(f.key, coalesce(k.facet, f.value)), '{}')
    from jsonb_each(p_facets) as f (key, value)
    left join lineage.facet k on k.sha256 = f.value ->> '_facet'
$$;
comment on function lineage.whole_facets is 'Facets in the place of their names; a name whose facet is gone stays';

create function lineage.whole_event(p_event jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    v_part text;
begin
    foreach v_part in array array['job', 'run'] loop
        if jsonb_typeof(p_event #> array[v_part, 'facets']) = 'object' then
            p_event := jsonb_set(p_event, array[v_part, 'facets'], lineage.whole_facets(p_event #> array[v_part, 'facets']));
        end if;
    end loop;
    foreach v_part in array array['inputs', 'outputs'] loop
        if jsonb_typeof(p_event -> v_part) = 'array' then
            p_event := p_event || jsonb_build_object(v_part, (
                select coalesce(jsonb_agg(
                    case when jsonb_typeof(d.item -> 'facets') = 'object'
                        then d.item || jsonb_build_object('facets', lineage.whole_facets(d.item -> 'facets')) else d.item end
                    order by d.place
                ), '[]')
                from jsonb_array_elements(p_event -> v_part) with ordinality as d (item, place)
            ));
        end if;
    end loop;
    return p_event;
end
$$;
comment on function lineage.whole_event is 'An event of ours as it is told to others, its facets in the place of their names';

-- What the process says of who started it, in the setting dopa.actor of its session. written_by is what the server knows.
create function lineage.note_actor() returns trigger
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    v_actor text := nullif(current_setting('dopa.actor', true), '');
begin
    if v_actor is not null and new.detail ->> 'actor' is null then
        new.detail := coalesce(new.detail, '{}') || jsonb_build_object('actor', v_actor);
    end if;
    return new;
end
$$;
comment on function lineage.note_actor is 'Adds to a record who started the work, where the session says so';

create trigger actor before insert on lineage.write
    for each row when (new.transaction_id = pg_current_xact_id()) execute function lineage.note_actor();
create trigger actor before insert on lineage.work
    for each row when (new.state = 'START') execute function lineage.note_actor();

create function lineage.rename_field(p_write_id bigint, p_namespace text, p_name text, p_old text, p_new text) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_at timestamptz := (select written_at from lineage.write where id = p_write_id);
    v_dataset integer := (select id from lineage.dataset where namespace = p_namespace and name = p_name);
    v_new integer;
    v_moved bigint;
begin
    if v_at is null then
        raise exception using message = 'there is no write ' || coalesce(p_write_id, 0);
    end if;
    if v_dataset is null then
        return 0;
    end if;
    insert into lineage.field (dataset_id, name) values (v_dataset, p_new) on conflict do nothing;
    select id into strict v_new from lineage.field where dataset_id = v_dataset and name = p_new;
    with moved as (
        update lineage.column_edge e
        set valid_to = v_at
        from lineage.field s
        where s.dataset_id = v_dataset and s.name = p_old and e.source_id = s.id
            and e.valid_to = 'infinity' and e.valid_from < v_at
        returning e.target_id, e.subtype, e.masking
    ),
    opened as (
        insert into lineage.column_edge (source_id, target_id, subtype, masking, valid_from)
        select v_new, m.target_id, m.subtype, m.masking, v_at
        from moved m
        where not exists (
            select from lineage.column_edge e
            where e.source_id = v_new and e.target_id = m.target_id and e.subtype = m.subtype and e.masking = m.masking
                and e.valid_to = 'infinity'
        )
        returning 1
    )
    select count(*) into v_moved from moved;
    return v_moved;
end
$$;
comment on function lineage.rename_field is
    'What was made of a column is made of it under its new name from a write on; returns how many edges';

revoke all on function lineage.keep_facets, lineage.split_event, lineage.whole_facets, lineage.whole_event, lineage.note_actor,
lineage.rename_field from public;
"""

RIGHTS = """
grant select on lineage.facet to {reader}, {loader}, {transformer};
grant execute on function lineage.whole_facets, lineage.whole_event to {reader}, {loader}, {transformer};
grant execute on function lineage.rename_field to {loader}, {transformer};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    bind.exec_driver_sql(FUNCTIONS)
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
