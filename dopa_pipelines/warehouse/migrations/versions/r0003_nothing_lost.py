"""What is needed to do a delivery again: its day, its contract, who asked for it and why; what the archive has destroyed."""

from __future__ import annotations

from alembic import context, op

revision = "0003"
down_revision = "0002"

TABLES = """
alter table ops.delivery
    add column as_of date,
    add column requested_by text collate "C",
    add column why text collate "C",
    add column replayed boolean not null default false;
comment on column ops.delivery.as_of is 'The day of the delivery, which its dates may not lie after';
comment on column ops.delivery.requested_by is 'Who asked for a replay';
comment on column ops.delivery.why is 'Why rows were replayed';
comment on column ops.delivery.replayed is 'Whether its rows came from the quarantine';

create table ops.contract (
    checksum text collate "C" primary key,
    dataset text collate "C" not null,
    version text collate "C" not null,
    document text collate "C" not null,
    recorded_at timestamptz not null default clock_timestamp()
);
comment on table ops.contract is 'The text of every contract under which something was loaded';

create table ops.archived (
    sha256 text collate "C" primary key,
    bytes bigint not null,
    stored_at timestamptz not null default clock_timestamp(),
    destroyed_at timestamptz,
    destroyed_by text collate "C",
    why text collate "C"
);
comment on table ops.archived is 'Deliveries in the archive by their SHA-256, and those destroyed when their retention ended';
"""

RIGHTS = """
grant select, insert on ops.contract to {loader};
grant select, insert, update on ops.archived to {loader};
grant usage on schema quarantine, ops to {custodian};
grant select on all tables in schema quarantine to {custodian};
grant select on ops.delivery, ops.archived, ops.contract to {custodian};
grant select, insert on ops.access_log to {custodian};
alter default privileges for role {loader} in schema quarantine grant select on tables to {custodian};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
