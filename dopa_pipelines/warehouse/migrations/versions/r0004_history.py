"""The business date of a delivery that is a snapshot: since when what it says holds."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = """
alter table ops.delivery add column business_date date;
comment on column ops.delivery.business_date is 'Of a dataset with history: the day that the snapshot is of';
create index delivery_business_date on ops.delivery (dataset, business_date) where business_date is not null;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)
