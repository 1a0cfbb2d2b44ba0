"""``dopa rebuild``: a table made again from the archive, and the proof that it is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dopa_pipelines.cli.console import err, fail, out, print_json


def add_to(app: typer.Typer) -> None:
    app.command("rebuild")(rebuild_command)


def rebuild_command(
    dataset: Annotated[str, typer.Argument(help="Dataset")],
    apply: Annotated[
        bool, typer.Option("--apply", help="Where they differ, put what the archive gives in the table's place")
    ] = False,
    contract_file: Annotated[Path | None, typer.Option("--contract", help="Take the contract from this file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Rebuild a table from the archive, beside itself, and compare. Exit code 3: it is not the same."""
    from dopa_pipelines.cli.ingesting import contract_for
    from dopa_pipelines.ingest.rebuild import rebuild
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    contract = contract_for(settings, dataset, contract_file)
    with open_warehouse(settings) as warehouse, err.status(f"{dataset}: reading the archive"):
        result = rebuild(warehouse, contract, apply=apply)
        if result.applied:
            tell(warehouse, settings, contract=contract)
    if as_json:
        print_json(result.as_json())
    else:
        for item in result.destroyed:
            day = item["destroyed_at"][:10]
            out.print(f"  delivery {item['delivery']} ({item['file']}) was destroyed on {day}: {item['why']}")
        deliveries = f"{len(result.deliveries)} deliver{'y' if len(result.deliveries) == 1 else 'ies'}"
        if result.equal:
            out.print(f"raw.{dataset}: equal, {result.rows:,} rows from {deliveries} ({result.seconds:.1f} s)")
        elif result.applied:
            out.print(f"raw.{dataset}: rebuilt from {deliveries}: {result.missing:,} rows put back, {result.extra:,} taken out")
        else:
            fail(
                f"raw.{dataset}: not what its deliveries give: {result.missing:,} rows are missing, {result.extra:,} are there"
                f" that no delivery brought; `dopa rebuild {dataset} --apply` puts it right"
            )
    if not result.equal and not result.applied:
        raise typer.Exit(3)
