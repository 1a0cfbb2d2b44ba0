"""What was pushed to the catalogue, and what failed there."""

from __future__ import annotations

from alembic import context, op

revision = "0010"
down_revision = "0008"

TABLES = """
create table ops.ckan_push (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    run_id text collate "C",
    site text collate "C" not null,
    publication text collate "C" not null,
    version text collate "C",
    status text collate "C" not null check (status in ('created', 'updated', 'unchanged', 'withdrawn', 'failed')),
    problem text collate "C",
    files integer not null,
    bytes bigint not null,
    seconds double precision not null,
    constraint failed_says_why check ((status = 'failed') = (problem is not null))
);
comment on table ops.ckan_push is 'What became of each publication in a CKAN catalogue; that nothing changed again is left out';
comment on column ops.ckan_push.files is 'Files that this push uploaded';
create index ckan_push_publication on ops.ckan_push (publication, site, id desc);
"""

RIGHTS = """
grant select, insert on ops.ckan_push to {loader};
grant select on ops.ckan_push to {reader}, {transformer};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
