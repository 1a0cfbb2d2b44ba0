"""``dopa retention``: what is kept longer than its contract allows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from dopa_pipelines.cli.console import err, out, print_json


def add_to(app: typer.Typer) -> None:
    app.command("retention")(retention_command)


def retention_command(
    apply: Annotated[bool, typer.Option("--apply", help="Destroy it; there is no way back")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Deliveries of the archive, and values of the quarantine, whose retention has ended."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.ingest.retention import end_retention
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.thai import BANGKOK
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    contracts = load_contracts(settings.contracts)
    with open_warehouse(settings) as warehouse, err.status("looking through the archive"):
        ended = end_retention(warehouse, contracts, datetime.now(BANGKOK).date(), apply=apply)
        if apply:
            tell(warehouse, settings)
    if as_json:
        print_json(ended.as_json())
        return
    done = "destroyed" if apply else "to be destroyed"
    for item in ended.contents:
        out.print(f"  {', '.join(item['datasets'])}: {', '.join(item['files'])} (retention ended on {item['ended']})")
    for dataset, rows in ended.rejected_rows.items():
        out.print(f"  {dataset}: the values of {rows:,} rejected rows")
    rows = sum(ended.rejected_rows.values())
    out.print(f"{len(ended.contents):,} deliveries and the values of {rows:,} rejected rows {done}")
    if not apply and (ended.contents or rows):
        out.print("destroy them with: dopa retention --apply")
