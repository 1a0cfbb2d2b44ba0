"""dbt's sources, generated from the contracts: ``dbt_project/models/sources/<bureau>.yml``.

They are committed, so that dbt runs without the platform; ``dopa check`` says where they drifted and ``dopa check --write`` makes
them anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dopa_pipelines.contracts.model import Contract
from dopa_pipelines.contracts.read import Contracts
from dopa_pipelines.documents import Problem

FOLDER = Path("models/sources")
_HEADER = "# Generated from the contracts of assets/{bureau}; do not edit, run: dopa check --write\n"


def rendered(contracts: Contracts) -> dict[str, str]:
    """File name and text for each bureau."""
    bureaus = sorted({contract.bureau for contract in contracts})
    return {
        f"{bureau}.yml": _render(bureau, [contract for contract in contracts if contract.bureau == bureau]) for bureau in bureaus
    }


def _render(bureau: str, contracts: list[Contract]) -> str:
    source = {"name": "raw", "schema": "raw", "tables": [_table(contract) for contract in contracts]}
    body = yaml.safe_dump({"version": 2, "sources": [source]}, sort_keys=False, allow_unicode=True, width=110)
    return _HEADER.format(bureau=bureau) + body


def _table(contract: Contract) -> dict[str, Any]:
    columns = [
        {"name": name, "description": f"{column.description} / {column.business_name}", "data_type": kind}
        for column in contract.columns
        for name, kind in column.table_columns
    ]
    columns += [
        {
            "name": "_delivery_id",
            "description": "Delivery that brought the row (ops.delivery)",
            "data_type": "bigint",
        },
        {"name": "_row", "description": "Row of the delivery, counted from 1", "data_type": "bigint"},
    ]
    if contract.has_history:
        columns += [
            {"name": "_valid_from", "description": "First day that the row held", "data_type": "date"},
            {"name": "_valid_to", "description": "First day that it held no more; null: it still holds", "data_type": "date"},
            {"name": "_recorded_by", "description": "Delivery that recorded the row (ops.delivery)", "data_type": "bigint"},
            {
                "name": "_superseded_by",
                "description": "Delivery that knew better; null: the row is believed now",
                "data_type": "bigint",
            },
        ]
    return {
        "name": contract.dataset,
        "description": f"{contract.description} / {contract.title_th}",
        "columns": columns,
    }


def drift(contracts: Contracts, project: Path) -> Iterator[Problem]:
    """Where the committed sources are not what the contracts say."""
    wanted = rendered(contracts)
    folder = project / FOLDER
    for name, text in wanted.items():
        path = folder / name
        if not path.exists():
            yield Problem(path, 1, "is missing; run: dopa check --write")
            continue
        have = path.read_text("utf-8").splitlines()
        lines = text.splitlines()
        if have != lines:
            pairs = zip(have, lines, strict=False)
            line = next((n for n, (a, b) in enumerate(pairs, 1) if a != b), min(len(have), len(lines)) + 1)
            yield Problem(path, line, "differs from the contracts it is generated from; run: dopa check --write")
    for path in sorted(folder.glob("*.yml")):
        if path.name not in wanted:
            yield Problem(path, 1, "belongs to no bureau with a contract; delete it")


def write(contracts: Contracts, project: Path) -> list[Path]:
    """Write the files that drifted; returns them."""
    folder = project / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in rendered(contracts).items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            changed.append(path)
    return changed
