"""``dopa quarantine``: the rejected rows, without personal values unless they are asked for."""

from __future__ import annotations

import getpass
import json
from typing import Annotated

import typer

from dopa_pipelines.cli.console import out, print_json, table


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Rows that broke their contract.", no_args_is_help=True)
    group.command("list")(list_command)
    app.add_typer(group, name="quarantine")


def list_command(
    dataset: Annotated[str, typer.Argument(help="Dataset")],
    limit: Annotated[int, typer.Option(help="Rows at most")] = 20,
    reveal: Annotated[
        bool,
        typer.Option("--reveal", help="Show personal values and the original rows; this is logged with your name"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Rejected rows of a dataset, the latest deliveries first."""
    from dataclasses import asdict

    from dopa_pipelines.cli.ingesting import contract_for
    from dopa_pipelines.ingest.inspect import rejected_rows
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    contract = contract_for(settings, dataset)
    with open_warehouse(settings) as warehouse, warehouse.connect() as connection:
        found = list(rejected_rows(connection, contract, reveal=reveal, limit=limit))
        if reveal:
            # Logged before anything is shown: a look that cannot be logged is not given.
            connection.execute(
                "insert into ops.access_log (who, action, subject, detail) values (%s, 'quarantine revealed', %s, %s)",
                (getpass.getuser(), f"quarantine.{dataset}", json.dumps({"rows": len(found)})),
            )
            connection.commit()
    if as_json:
        print_json([asdict(item) for item in found])
        return
    if not found:
        out.print(f"{dataset}: no rejected rows")
        return
    shown = table("delivery", "file", "row", "reason", "column", "value", right=("delivery", "row"))
    for item in found:
        for reason in item.reasons:
            shown.add_row(
                str(item.delivery), item.file, str(item.row), reason["code"], reason.get("column") or "",
                str(reason.get("value") or ""),
            )  # fmt: skip
        if item.original is not None:
            shown.add_row("", "", "", "", "", item.original)
    out.print(shown)
