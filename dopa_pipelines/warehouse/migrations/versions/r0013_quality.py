"""What was measured of the data's quality: results of rules, profiles, scores, incidents.

Results, profiles, scores and what happened to incidents are kept: who writes them may add and not change. No value of a person is
in any of them.
"""

from __future__ import annotations

from alembic import context, op

revision = "0013"
down_revision = "0012"

TABLES = """
create schema quality;

create table quality.result (
    id bigint generated always as identity primary key,
    dataset text collate "C" not null,
    rule text collate "C" not null,
    kind text collate "C" not null,
    dimension text collate "C" not null check (
        dimension in ('accuracy_completeness', 'consistency', 'relevancy', 'timeliness', 'availability')
    ),
    indicator text collate "C",
    severity text collate "C" not null check (severity in ('reject', 'block', 'warn')),
    column_name text collate "C",
    measured_at timestamptz not null default clock_timestamp(),
    delivery_id bigint,
    write_id bigint,
    run_id text collate "C",
    contract_version text collate "C",
    rows_checked bigint,
    rows_failed bigint,
    value double precision,
    passed boolean not null,
    detail jsonb not null default '{}'
);
comment on table quality.result is 'What each rule found, each time it was looked at';
comment on column quality.result.dataset is 'Name of a contract''s dataset, or schema.table of a model';
comment on column quality.result.kind is 'What sort of rule: required, unique, pattern, range, freshness, …';
comment on column quality.result.indicator is 'The indicator of the national standard that the rule speaks to, such as 2.3';
comment on column quality.result.value is 'What was measured where it is more than a count: days, a share, a distance';
comment on column quality.result.write_id is 'The write of the table that was looked at';
create index result_of_rule on quality.result (dataset, rule, id);
create index result_of_delivery on quality.result (delivery_id) where delivery_id is not null;

create table quality.profile (
    id bigint generated always as identity primary key,
    dataset text collate "C" not null,
    column_name text collate "C",
    measured_at timestamptz not null default clock_timestamp(),
    delivery_id bigint,
    write_id bigint,
    rows bigint not null,
    facts jsonb not null
);
comment on table quality.profile is 'What a table or delivery looked like: a row a column, and one without a column';
create index profile_of_column on quality.profile (dataset, column_name, id);

create table quality.score (
    id bigint generated always as identity primary key,
    dataset text collate "C" not null,
    measured_at timestamptz not null default clock_timestamp(),
    write_id bigint,
    code text collate "C" not null,
    level numeric(4, 3) check (level between 1 and 4),
    score numeric(6, 3) check (score between 0 and 100),
    why jsonb not null default '{}',
    formula text collate "C" not null
);
comment on table quality.score is 'Scores by indicator (2.3), dimension (2), overall (0): 1 to 4 (มรด. 5:2565) and 0 to 100';
comment on column quality.score.why is 'Results, facts and answers that it was worked out from, and can be again';
comment on column quality.score.formula is 'Version of the formula and weights';
create index score_of_dataset on quality.score (dataset, code, id);

create table quality.incident (
    id bigint generated always as identity primary key,
    dataset text collate "C" not null,
    bureau text collate "C",
    rule text collate "C" not null,
    dimension text collate "C" not null,
    severity text collate "C" not null,
    opened_at timestamptz not null default clock_timestamp(),
    first_result bigint not null references quality.result (id),
    last_result bigint not null references quality.result (id),
    last_seen_at timestamptz not null default clock_timestamp(),
    rows_first bigint,
    rows_now bigint,
    owner text collate "C",
    due_on date,
    acknowledged_at timestamptz,
    closed_at timestamptz,
    constraint closed_after_it_opened check (closed_at is null or closed_at >= opened_at)
);
comment on table quality.incident is 'A rule that failed, from its first failure until it passes again';
create unique index incident_open on quality.incident (dataset, rule) where closed_at is null;

create table quality.incident_event (
    id bigint generated always as identity primary key,
    incident_id bigint not null references quality.incident (id),
    at timestamptz not null default clock_timestamp(),
    who text collate "C" not null,
    action text collate "C" not null check (
        action in ('opened', 'seen', 'acknowledged', 'explained', 'assigned', 'due', 'closed', 'reopened')
    ),
    note text
);
comment on table quality.incident_event is 'What happened to an incident, and who did it; append only';
create index incident_event_of on quality.incident_event (incident_id, id);
"""

RIGHTS = """
grant usage on schema quality to {loader}, {transformer}, {reader};
grant select, insert on quality.result, quality.profile, quality.score, quality.incident_event to {loader};
grant select, insert, update on quality.incident to {loader};
grant select on all tables in schema quality to {transformer}, {reader};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
