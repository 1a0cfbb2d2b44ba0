"""A delivery is profiled once: whoever profiles it again adds nothing."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"

TABLES = """
create unique index profile_of_delivery on quality.profile (delivery_id, column_name) nulls not distinct
    where delivery_id is not null;
create unique index profile_of_write on quality.profile (write_id, column_name) nulls not distinct
    where delivery_id is null and write_id is not null;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)
