"""The warehouse: one PostgreSQL server, embedded or external.

What belongs here: the embedded server, connections, roles, databases and the platform's own tables
(migrations). What doesn't: tables of datasets (``ingest`` makes them from contracts) and models (dbt).
Importing this stays cheap: psycopg and nothing more.
"""

from dopa_pipelines.warehouse.places import unfinished
from dopa_pipelines.warehouse.ports import require_free_port
from dopa_pipelines.warehouse.roles import Role
from dopa_pipelines.warehouse.warehouse import Warehouse, open_warehouse

__all__ = ["Role", "Warehouse", "open_warehouse", "require_free_port", "unfinished"]
