"""What contracts say of their tables, as events tell it: who answers for them, what they are, what is personal in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dopa_pipelines.contracts import Contract
from dopa_pipelines.lineage.model import Owner


@dataclass(frozen=True, slots=True)
class Described:
    """A table as people described it. ``classes``: by column, ``classification`` and ``pdpaRole``."""

    owners: Sequence[Owner] = ()
    documentation: str | None = None
    classes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def owners_of(contracts: Iterable[Contract]) -> dict[str, list[Owner]]:
    """Owners by ``schema.table``."""
    return {contract.table: [Owner(f"user:{member.name}", member.role) for member in contract.team] for contract in contracts}


def described_by(contracts: Iterable[Contract]) -> dict[str, Described]:
    """What each contract says of its table, by ``schema.table``."""
    known = list(contracts)
    owners = owners_of(known)
    return {
        contract.table: Described(
            owners=owners[contract.table],
            documentation=f"{contract.title_th} / {contract.title_en}: {contract.description}",
            classes={
                name: {"classification": column.classification, "pdpaRole": column.pdpa_role}
                for column in contract.columns
                for name, _ in column.table_columns
            },
        )
        for contract in known
    }
