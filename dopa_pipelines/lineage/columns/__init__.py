"""Column lineage of SQL: which columns of which base tables each output column depends on, and how.

Belongs here: PostgreSQL's rules of names and what each construct does with values and rows. Does not belong here: whether that is
true (``prove`` asks the database), and where statements come from.
"""

import warnings

with warnings.catch_warnings():
    # dagster-dbt brings sqlglot's old accelerator along, which complains of being there.
    warnings.filterwarnings("ignore", "sqlglotrs is deprecated", DeprecationWarning)
    import sqlglot  # noqa: F401

from dopa_pipelines.lineage.columns.model import Edge, Edges, Lineage, LineageError, Subtype
from dopa_pipelines.lineage.columns.schema import Schema, Table, View, read_schema
from dopa_pipelines.lineage.columns.snapshots import analyze_snapshot
from dopa_pipelines.lineage.columns.walk import analyze

__all__ = [
    "Edge", "Edges", "Lineage", "LineageError", "Schema", "Subtype", "Table", "View", "analyze", "analyze_snapshot",
    "read_schema",
]  # fmt: skip
