"""Incidents over the months, and alerts to their owners: what is to be told, to whom, and what became of it."""

from __future__ import annotations

from alembic import context, op

revision = "0015"
down_revision = "0014"

TABLES = """
alter table quality.incident add column rows_most bigint, add column explanation text;
comment on column quality.incident.rows_first is 'Rows that failed when it was opened';
comment on column quality.incident.rows_now is 'Rows that failed when it was last seen; none once it is closed';
comment on column quality.incident.rows_most is 'The most rows that failed at any time';
comment on column quality.incident.explanation is 'What a person last said of it';
create index incident_of_rule on quality.incident (dataset, rule, id);

create view quality.incident_month as
with incident as (
    select id, coalesce(bureau, '') as bureau, opened_at at time zone 'Asia/Bangkok' as opened,
        closed_at at time zone 'Asia/Bangkok' as closed, due_on, coalesce(rows_most, 1) as rows
    from quality.incident
),
month as (
    select b.bureau, m.month::date as month, (m.month + interval '1 month') as until
    from (select bureau, min(opened) as since from incident group by bureau) b
    cross join lateral generate_series(
        date_trunc('month', b.since), date_trunc('month', now() at time zone 'Asia/Bangkok'), interval '1 month'
    ) m (month)
)
select m.bureau, m.month, (extract(year from m.month)::integer + 543) || to_char(m.month, '-MM') as month_be,
    count(*) filter (where i.opened >= m.month and i.opened < m.until) as opened,
    coalesce(sum(i.rows) filter (where i.opened >= m.month and i.opened < m.until), 0)::bigint as errors,
    count(*) filter (where i.closed >= m.month and i.closed < m.until) as closed,
    count(*) filter (where i.closed >= m.month and i.closed < m.until and i.closed::date > i.due_on) as closed_late,
    (avg(extract(epoch from i.closed - i.opened) / 86400) filter (where i.closed >= m.month and i.closed < m.until))::float8
        as days_to_repair,
    percentile_cont(0.5) within group (order by extract(epoch from i.closed - i.opened)::float8 / 86400)
        filter (where i.closed >= m.month and i.closed < m.until) as days_to_repair_median,
    count(*) filter (where i.opened < m.until and (i.closed is null or i.closed >= m.until)) as open_at_end
from month m
join incident i on i.bureau = m.bureau
group by m.bureau, m.month, m.until;
comment on view quality.incident_month is 'Errors and time to repair by bureau and month in Thailand (KPI S1.2, P1.2, O1.3)';
comment on column quality.incident_month.month_be is 'The month of the Buddhist era, such as 2568-11';
comment on column quality.incident_month.errors is
    'Rows that failed at most, of the incidents that were opened in the month; one that is not about rows counts one';
comment on column quality.incident_month.days_to_repair is 'Mean days from opening to closing, of those closed in the month';

create table quality.alert (
    id bigint generated always as identity primary key,
    kind text collate "C" not null check (kind in ('incident', 'run')),
    incident_id bigint references quality.incident (id),
    run_id text collate "C",
    day date not null,
    raised_at timestamptz not null default clock_timestamp(),
    recipients text[] not null,
    message jsonb not null,
    constraint one_a_day unique nulls not distinct (kind, incident_id, run_id, day),
    constraint of_its_kind check ((kind = 'incident') = (incident_id is not null) and (kind = 'run') = (run_id is not null))
);
comment on table quality.alert is 'What owners are to be told: one a day for an incident, one for a run that failed';
comment on column quality.alert.message is 'Texts in Thai and English, links, what to do; no value of a row';

create table quality.alert_sending (
    alert_id bigint not null references quality.alert (id),
    transport text collate "C" not null,
    state text collate "C" not null check (state in ('retry', 'sent', 'given_up')),
    attempts integer not null,
    at timestamptz not null default clock_timestamp(),
    next_try timestamptz,
    problem text,
    primary key (alert_id, transport)
);
comment on table quality.alert_sending is 'What became of an alert on its way: mail, webhook';

create table quality.alert_transport (
    transport text collate "C" primary key,
    since timestamptz not null default clock_timestamp(),
    failures integer not null default 0,
    pause_until timestamptz,
    last_sent timestamptz,
    problem text
);
comment on table quality.alert_transport is 'Ways by which alerts go out: since when, and the pause after the far side failed';
"""

RIGHTS = """
grant select on quality.incident_month, quality.alert, quality.alert_sending, quality.alert_transport
    to {loader}, {transformer}, {reader};
grant insert on quality.alert to {loader};
grant insert, update on quality.alert_sending, quality.alert_transport to {loader};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
