"""What proves the lineage: a chain of hashes over events and writes, digests of tables, and rebases.

Rows of ``lineage.seal`` and ``lineage.digest`` come from functions only, which compute what they store: no role can say
what a hash or a digest is. Under one role for everything (``lineage.identity``, key ``roles``) that role owns the tables and can
change them; only the anchors outside the database tell then.
"""

from __future__ import annotations

from alembic import context, op

revision = "0006"
down_revision = "0005"

TABLES = """
alter table lineage.write drop constraint write_kind_check;
alter table lineage.write add constraint write_kind_check
    check (kind in ('load', 'model', 'release', 'migration', 'rebase'));

create table lineage.digest (
    id bigint generated always as identity primary key,
    write_id bigint not null references lineage.write (id),
    target text collate "C" not null,
    rows bigint not null,
    digest text collate "C" not null,
    taken_at timestamptz not null,
    unique (target, write_id)
); comment on table lineage.digest is 'What a table held after a write: its rows, counted and hashed in any order'; comment on
column lineage.digest.target is 'Of rejected rows quarantine.<dataset>, which the writes of raw.<dataset> write as well'; comment
on column lineage.digest.digest is 'Of the first and the second eight bytes of each row''s SHA-256, as signed numbers, the sums';

create table lineage.seal (
    seq bigint primary key,
    subject text collate "C" not null check (subject in ('event', 'digest')),
    subject_id bigint not null,
    subject_sha256 text collate "C" not null,
    write_sha256 text collate "C",
    hash text collate "C" not null,
    sealed_at timestamptz not null,
    unique (subject, subject_id)
);
comment on table lineage.seal is 'Events and digests in the order in which they were sealed, each hash over the one before';
comment on column lineage.seal.hash is
    'SHA-256 of: hash before, seq, subject, subject_id, subject_sha256, write_sha256 (or -), a space between';
comment on column lineage.seal.write_sha256 is 'Of the row of lineage.write that the event or digest is of';
"""

FUNCTIONS = r"""
create function lineage.relation(p_target text) returns table (oid oid, kind "char")
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select c.oid, c.relkind
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = split_part(p_target, '.', 1) and c.relname = substr(p_target, strpos(p_target, '.') + 1)
$$;
comment on function lineage.relation is 'The table or view of a target; no row where there is none';

-- The server completes a write by what it knows itself, whoever records it and however: the definition of a view, which is
-- all there is of it; the tables behind views that a model read, and the write of each that it saw; how many rows they held.
create function lineage.complete_write() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_namespace text := (select value from lineage.identity where key = 'warehouse_namespace');
    v_prefix text := current_database() || '.';
    v_relation oid;
    v_kind "char";
begin
    select r.oid, r.kind into v_relation, v_kind from lineage.relation(new.target) r;
    if v_kind = 'v' and new.kind in ('model', 'migration', 'rebase') then
        new.detail := coalesce(new.detail, '{}') || jsonb_build_object(
            'definition_sha256', encode(sha256(convert_to(pg_get_viewdef(v_relation), 'UTF8')), 'hex'));
    end if;
    if new.kind <> 'model' then
        return new;
    end if;

    with recursive input as (
        select i.input, i.position, r.oid, r.kind
        from jsonb_array_elements(new.inputs) with ordinality as i (input, position)
        left join lateral lineage.relation(case
            when starts_with(i.input ->> 'name', v_prefix) then substr(i.input ->> 'name', length(v_prefix) + 1)
            else i.input ->> 'name'
        end) r on coalesce(i.input ->> 'namespace', v_namespace) = v_namespace
    ), below (position, oid, kind) as (
        select position, oid, kind from input where oid is not null
        union
        select b.position, c.oid, c.relkind
        from below b
        join pg_rewrite w on w.ev_class = b.oid
        join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjid <> b.oid
        join pg_class c on c.oid = d.refobjid
        where b.kind = 'v'
    ), base as (
        select distinct b.oid, n.nspname || '.' || c.relname as target
        from below b join pg_class c on c.oid = b.oid join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'm')
    ), held as (
        select b.oid, b.target,
            (select max(w.id) from lineage.write w where w.target = b.target) as write,
            case
                when starts_with(b.target, 'raw.') then
                    (select sum(d.rows_held) from ops.delivery d where d.dataset = substr(b.target, 5))
                else (
                    select w.rows_out from lineage.write w
                    where w.target = b.target and w.rows_out is not null order by w.id desc limit 1
                )
            end as rows
        from base b
    )
    select
        coalesce((
            select jsonb_agg(
                case when i.kind = 'v' then i.input || jsonb_build_object('reads', coalesce((
                    select jsonb_agg(jsonb_build_object('name', h.target, 'write', h.write) order by h.target)
                    from held h where h.oid in (select b.oid from below b where b.position = i.position)
                ), '[]')) else i.input end
                order by i.position
            ) from input i
        ), '[]'),
        coalesce(new.rows_in, case
            when v_kind is distinct from 'v' then
                (select case when count(*) filter (where h.rows is null) = 0 then sum(h.rows) end from held h)
        end)
    into new.inputs, new.rows_in;
    return new;
end
$$;
comment on function lineage.complete_write is 'Adds to a write what only the server knows';

-- A write that is restored from a backup is of another transaction, and stays as it was.
create trigger complete before insert on lineage.write
    for each row when (new.transaction_id = pg_current_xact_id()) execute function lineage.complete_write();

-- The values of a row are told as text, so the settings that decide how have to be the same every time. Rows are hashed inside
-- `offset 0`, or each sum would hash them anew.
create function lineage.measure(p_target text, out v_rows bigint, out v_digest text, out v_xmins jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = off set datestyle = 'ISO, YMD' set intervalstyle = 'postgres'
set timezone = 'UTC' set extra_float_digits = 1 set bytea_output = 'hex'
as $$
begin
    execute format($query$
        select coalesce(sum(rows), 0)::bigint, coalesce(sum(first), 0) || ':' || coalesce(sum(second), 0),
            coalesce(jsonb_agg(xmin::text::bigint order by xmin::text::bigint), '[]')
        from (
            select xmin, count(*) as rows,
                sum(('x' || encode(substr(hash, 1, 8), 'hex'))::bit(64)::bigint) as first,
                sum(('x' || encode(substr(hash, 9, 8), 'hex'))::bit(64)::bigint) as second
            from (
                select r.xmin, sha256(convert_to(r::text, 'UTF8')) as hash from %I.%I r offset 0
            ) hashed
            group by xmin
        ) measured
    $query$, split_part(p_target, '.', 1), substr(p_target, strpos(p_target, '.') + 1))
    into v_rows, v_digest, v_xmins;
end
$$;
comment on function lineage.measure is 'Rows of a table, their digest in any order, and the transactions that wrote them';

-- The last digest that still says what the table holds: a rebase changes no value.
create function lineage.standing_digest(
    p_target text, out v_write bigint, out v_changed bigint, out v_rows bigint, out v_digest text, out v_taken_at timestamptz
)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select w.last, w.changed, d.rows, d.digest, d.taken_at
    from (
        select max(id) as last, max(id) filter (where kind <> 'rebase') as changed
        from lineage.write
        where target in (p_target, regexp_replace(p_target, '^quarantine[.]', 'raw.'))
    ) w
    left join lateral (
        select d.rows, d.digest, d.taken_at from lineage.digest d
        where d.target = p_target and d.write_id >= w.changed order by d.write_id desc limit 1
    ) d on true
$$;
comment on function lineage.standing_digest is
    'Last write of a table, last one that changed values, and the digest since; null where none was taken';

create function lineage.take_digest(p_target text) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_last record;
    v_measured record;
begin
    if current_setting('transaction_isolation') <> 'repeatable read' then
        raise exception 'a digest and the write it is of have to be read in one snapshot: begin isolation level repeatable read';
    end if;
    select * into v_last from lineage.standing_digest(p_target);
    if v_last.v_changed is null or v_last.v_digest is not null
        or not exists (select from lineage.relation(p_target) where kind in ('r', 'p', 'm'))
    then
        return null;
    end if;
    select * into v_measured from lineage.measure(p_target);
    insert into lineage.digest (write_id, target, rows, digest, taken_at)
    values (v_last.v_write, p_target, v_measured.v_rows, v_measured.v_digest, clock_timestamp())
    on conflict do nothing;
    return v_last.v_write;
end
$$;
comment on function lineage.take_digest is 'Keep the digest of a table as of its last write; the write, or null where it is kept';

create function lineage.rebase(p_target text, p_why text) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_kept record;
    v_measured record;
    v_id bigint;
begin
    if current_setting('transaction_isolation') <> 'repeatable read' then
        raise exception 'a rebase compares within one snapshot: begin isolation level repeatable read';
    end if;
    select * into v_kept from lineage.standing_digest(p_target);
    if v_kept.v_write is null then
        raise exception using errcode = 'DP001', message = 'no write of it is recorded';
    end if;
    if not exists (select from lineage.relation(p_target)) then
        return lineage.record_write('rebase', p_target, p_detail => jsonb_build_object('why', p_why, 'dropped', true));
    end if;
    if not exists (select from lineage.relation(p_target) where kind in ('r', 'p', 'm')) then
        raise exception using errcode = 'DP001', message = 'it is a view and has no rows; build it anew';
    end if;
    if v_kept.v_digest is null then
        raise exception using errcode = 'DP001', message = format(
            'no digest was taken after its last write (%s), so nothing proves that its rows are those of before', v_kept.v_write);
    end if;
    select * into v_measured from lineage.measure(p_target);
    if v_measured.v_rows <> v_kept.v_rows then
        raise exception using errcode = 'DP001', message = format(
            'it has %s rows and had %s after its last write (%s)', v_measured.v_rows, v_kept.v_rows, v_kept.v_write);
    elsif v_measured.v_digest <> v_kept.v_digest then
        raise exception using errcode = 'DP001', message = format(
            'its rows are not those that were there after its last write (%s): their digest is another one', v_kept.v_write);
    end if;
    v_id := lineage.record_write('rebase', p_target, p_rows_out => v_measured.v_rows, p_detail => jsonb_build_object(
        'why', p_why, 'of', v_kept.v_write, 'digest', v_measured.v_digest, 'xmins', v_measured.v_xmins));
    insert into lineage.digest (write_id, target, rows, digest, taken_at)
    values (v_id, p_target, v_measured.v_rows, v_measured.v_digest, clock_timestamp());
    return v_id;
end
$$;
comment on function lineage.rebase is
    'Record that a table whose rows are those of before has them by other transactions now (a restore, a rewrite, a move)';

-- Waits for no writer and keeps none waiting: it reads what is committed, and takes turns with other sealers only. What a seal
-- is over is text: JSON with its keys in a fixed order, moments as seconds, so that no setting of a session changes it.
create function lineage.seal_pending() returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_seq bigint;
    v_hash text;
    v_item record;
    v_sealed bigint := 0;
begin
    perform pg_advisory_xact_lock(x'646F70617365616C'::bigint);
    select seq, hash into v_seq, v_hash from lineage.seal order by seq desc limit 1;
    v_seq := coalesce(v_seq, 0);
    v_hash := coalesce(v_hash, repeat('0', 64));
    for v_item in
        select p.subject, p.id, encode(sha256(convert_to(p.told, 'UTF8')), 'hex') as subject_sha256,
            case when w.id is not null then encode(sha256(convert_to(jsonb_build_object(
                'id', w.id, 'kind', w.kind, 'target', w.target, 'transaction_id', w.transaction_id::text,
                'cluster', w.cluster, 'run_id', w.run_id, 'parent_run_id', w.parent_run_id,
                'written_at', extract(epoch from w.written_at), 'written_by', w.written_by, 'code', w.code,
                'version', w.version, 'inputs', w.inputs, 'rows_in', w.rows_in, 'rows_out', w.rows_out,
                'detail', w.detail, 'environment', w.environment
            )::text, 'UTF8')), 'hex') end as write_sha256
        from (
            select 'event' as subject, e.id, e.write_id, jsonb_build_object(
                'id', e.id, 'write_id', e.write_id, 'run_id', e.run_id,
                'event_time', extract(epoch from e.event_time), 'event', e.event
            )::text as told
            from lineage.event e
            where not exists (select from lineage.seal s where s.subject = 'event' and s.subject_id = e.id)
            union all
            select 'digest', d.id, d.write_id, jsonb_build_object(
                'id', d.id, 'write_id', d.write_id, 'target', d.target, 'rows', d.rows, 'digest', d.digest,
                'taken_at', extract(epoch from d.taken_at)
            )::text
            from lineage.digest d
            where not exists (select from lineage.seal s where s.subject = 'digest' and s.subject_id = d.id)
        ) p
        left join lineage.write w on w.id = p.write_id
        order by p.subject desc, p.id
    loop
        v_seq := v_seq + 1;
        v_hash := encode(sha256(convert_to(concat_ws(' ', v_hash, v_seq, v_item.subject, v_item.id,
            v_item.subject_sha256, coalesce(v_item.write_sha256, '-')), 'UTF8')), 'hex');
        insert into lineage.seal (seq, subject, subject_id, subject_sha256, write_sha256, hash, sealed_at)
        values (v_seq, v_item.subject, v_item.id, v_item.subject_sha256, v_item.write_sha256, v_hash, clock_timestamp());
        v_sealed := v_sealed + 1;
    end loop;
    return v_sealed;
end
$$;
comment on function lineage.seal_pending is 'Seal the events and digests that are not sealed yet, in turn; returns how many';

revoke all on function lineage.relation, lineage.complete_write, lineage.measure, lineage.standing_digest, lineage.take_digest,
lineage.rebase, lineage.seal_pending from public;
"""

# Locks on what is digested or rebased are the caller's own: raw tables and models are the transformer's to read, rejected rows
# the loader's.
RIGHTS = """
grant execute on function lineage.seal_pending, lineage.standing_digest, lineage.take_digest, lineage.rebase
    to {loader}, {transformer};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    bind.exec_driver_sql(FUNCTIONS.replace("%", "%%"))
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
