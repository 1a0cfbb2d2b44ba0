"""What every column is by its lineage, as it was last derived: for comments, pages, events and the Dagster UI."""

from __future__ import annotations

from alembic import context, op

revision = "0012"
down_revision = "0011"

TABLES = """
create table governance.classified (
    target text collate "C" not null,
    name text collate "C" not null,
    place integer not null,
    what text collate "C" not null,
    level text collate "C" not null,
    role text collate "C" not null,
    path text[] collate "C" not null,
    indirect text[] collate "C" not null,
    problem text,
    since timestamptz not null default clock_timestamp(),
    primary key (target, name)
);
comment on table governance.classified is 'What each column of raw tables, models and releases is by its lineage';
comment on column governance.classified.target is 'schema.table, or release:<publication>';
comment on column governance.classified.path is 'From the column that makes it so to this one';
comment on column governance.classified.indirect is 'Personal columns that only decide which rows there are';
comment on column governance.classified.since is 'When it became what it is, or another way led to it';
create table governance.classified_from (
    single boolean primary key default true check (single),
    mark text collate "C" not null
);
comment on table governance.classified_from is 'Digest of what governance.classified was derived from';
"""

RIGHTS = """
grant usage on schema governance to {loader}, {transformer}, {reader};
grant select, insert, update, delete on governance.classified, governance.classified_from to {loader};
grant select on governance.classified, governance.classified_from to {reader}, {transformer};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
