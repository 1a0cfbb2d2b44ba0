"""Alembic's entry: run the migrations on the connection that ``migrate.upgrade`` hands over, in one
transaction.
"""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="alembic_version",
    version_table_schema="ops",
)
with context.begin_transaction():
    context.run_migrations()
