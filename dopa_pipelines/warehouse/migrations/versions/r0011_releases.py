"""Releases that were held back, and why."""

from __future__ import annotations

from alembic import context, op

revision = "0011"
down_revision = "0010"

TABLES = """
create table ops.held_back (
    id bigint generated always as identity primary key,
    publication text collate "C" not null,
    publication_checksum text collate "C" not null,
    run_id text collate "C",
    at timestamptz not null default clock_timestamp(),
    last_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    reasons jsonb not null
);
comment on table ops.held_back is 'Releases that were not made, and why: rule, reason_th, reason_en';
comment on column ops.held_back.last_at is 'When it was last tried, for the same reasons';
comment on column ops.held_back.ended_at is 'When the reasons were others, or none any more';
create unique index held_back_now on ops.held_back (publication) where ended_at is null;
"""

RIGHTS = """
grant select, insert, update on ops.held_back to {loader};
grant select on ops.held_back to {reader}, {transformer};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
