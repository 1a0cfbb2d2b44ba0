"""What scores were worked out by, so that an old one can be worked out again, and when reports of quality were made."""

from __future__ import annotations

from alembic import context, op

revision = "0014"
down_revision = "0013"

TABLES = """
create table quality.standard (
    formula text collate "C" primary key,
    document text collate "C" not null,
    recorded_at timestamptz not null default clock_timestamp()
);
comment on table quality.standard is 'Editions of the standard (indicators, thresholds, weights) that scores were worked out by';
comment on column quality.standard.formula is 'Edition of the arithmetic, and the beginning of the document''s SHA-256';

create table quality.report (
    id bigint generated always as identity primary key,
    made_at timestamptz not null default clock_timestamp(),
    bureau text collate "C",
    made_by text collate "C" not null
);
comment on table quality.report is 'When reports of quality were made, so that the next says what changed since';
"""

RIGHTS = """
grant select, insert on quality.standard, quality.report to {loader};
grant select on quality.standard, quality.report to {transformer}, {reader};
"""


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql(TABLES)
    # What each role is called here; None where every role is the URL's user.
    if roles := context.config.attributes["roles"]:
        quote = bind.dialect.identifier_preparer.quote
        bind.exec_driver_sql(RIGHTS.format(**{role.name.lower(): quote(name) for role, name in roles.items()}))
