"""Owners of tables, as events tell them: from the contracts' teams."""

from __future__ import annotations

from collections.abc import Iterable

from dopa_pipelines.contracts import Contract
from dopa_pipelines.lineage.model import Owner


def owners_of(contracts: Iterable[Contract]) -> dict[str, list[Owner]]:
    """Owners by ``schema.table``."""
    return {contract.table: [Owner(f"user:{member.name}", member.role) for member in contract.team] for contract in contracts}
