"""Who may do what in the warehouse: the platform's database roles.

What belongs here: the roles' names and what each is for. The rights themselves are granted by ``bootstrap``
(databases) and by the migrations (schemas, tables, functions).
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """A database role; its value is its name on the server. None of them is a superuser."""

    OWNER = "dopa_owner"
    """Owns the platform's own tables and functions; used by migrations only."""
    LOADER = "dopa_loader"
    """Owns ``raw`` and ``quarantine``, writes ``ops``: deliveries."""
    TRANSFORMER = "dopa_transformer"
    """dbt: reads ``raw``, owns ``staging``, ``marts``, ``open_data`` and engineers' own schemas."""
    CUSTODIAN = "dopa_custodian"
    """Reads ``quarantine``, where personal data lies in the clear, and writes down who looked; nothing else."""
    DAGSTER = "dopa_dagster"
    """Owns Dagster's storage and sees nothing of the warehouse."""
    READER = "dopa_reader"
    """Reads what was built, never ``raw`` or ``quarantine``: publishing, the portal, people."""
