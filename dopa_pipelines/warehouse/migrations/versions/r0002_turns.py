"""Whose turn it is to run dbt, so that two at once wait for each other (``dbt_project/macros/turns.sql``)."""

from __future__ import annotations

from alembic import context, op

from dopa_pipelines.warehouse.roles import Role

revision = "0002"
down_revision = "0001"

TABLES = """
create table ops.dbt_turn (
    line text collate "C" primary key,
    turn text collate "C" not null,
    keeper_pid integer,
    taken_at timestamptz not null default clock_timestamp()
);
comment on table ops.dbt_turn is 'Whose turn it is to run dbt, in production and in each development target';
comment on column ops.dbt_turn.turn is 'DOPA_DBT_TURN, or else the invocation id of dbt';
comment on column ops.dbt_turn.keeper_pid is
    'The connection with which the turn ends; null when the end of the dbt run ends it';
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        name = bind.dialect.identifier_preparer.quote(roles[Role.TRANSFORMER])
        bind.exec_driver_sql(f"grant select, insert, update, delete on ops.dbt_turn to {name}")
