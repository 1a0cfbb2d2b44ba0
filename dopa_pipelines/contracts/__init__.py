"""Data contracts: ODCS v3.1 files under ``assets/<bureau>/`` as typed facts.

Only reading, refusing and describing contracts belongs here; enforcing them is :mod:`dopa_pipelines.ingest`.
"""

from dopa_pipelines.contracts.model import Column, Contract, Layout, Load, Partition, RowRule, TableRule
from dopa_pipelines.contracts.read import Contracts, load_contracts, read_contract

__all__ = [
    "Column",
    "Contract",
    "Contracts",
    "Layout",
    "Load",
    "Partition",
    "RowRule",
    "TableRule",
    "load_contracts",
    "read_contract",
]
