"""``dopa contract suggest``: the draft of a contract, from a file that no contract describes yet."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dopa_pipelines.cli.console import err, print_json

contract_app = typer.Typer(help="Contracts: what a dataset must be.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(contract_app, name="contract")


@contract_app.callback()
def _contract() -> None:
    """Contracts: what a dataset must be."""


@contract_app.command("suggest")
def suggest_command(
    path: Annotated[Path, typer.Argument(help="A sample of a delivery: a file, zip, gzip or folder")],
    dataset: Annotated[str | None, typer.Option("--dataset", help="Name of the dataset; default that of the file")] = None,
    bureau: Annotated[str | None, typer.Option("--bureau", help="Bureau that owns it, such as registration")] = None,
    target: Annotated[Path | None, typer.Option("--out", help="Write the draft there; default standard output")] = None,
    as_of: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day of the delivery, such as 2026-11-01 (default today)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Draft a contract with rules from a sample file: layout, types, dates, keys, what is personal. Nothing is loaded."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.quality.suggest import suggest
    from dopa_pipelines.settings import load_settings

    settings = load_settings()
    if target is not None and target.exists():
        raise UserError(f"{target}: is there already; name another file, or remove it first")
    if target is not None and not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder; make it, or name another file")
    areas = "area_code" if "area_code" in load_contracts(settings.contracts).by_dataset else None
    made = suggest(
        path,
        settings.state / "scratch",
        dataset=dataset,
        bureau=bureau,
        as_of=as_of.date() if as_of else None,
        areas=areas,
    )
    if target is not None:
        target.write_text(made.text, "utf-8")
    if as_json:
        print_json(
            {
                "dataset": made.dataset, "rows_read": made.rows_read, "rows_accepted": made.rows_accepted,
                "reasons": made.reasons, "notes": list(made.notes), "file": str(target) if target else None,
                "columns": [
                    {
                        "name": draft.name, "title": draft.place.title or None, "logicalType": draft.logical,
                        "parse": draft.parse, "required": draft.required, "key": draft.key,
                        "classification": draft.classification, "pdpaRole": draft.role, "seen": draft.why, "decide": draft.ask,
                    }
                    for draft in made.columns
                ],
                "contract": made.text,
            }
        )  # fmt: skip
        return
    if target is None:
        typer.echo(made.text, nl=False)
    decisions = sum(len(draft.ask) for draft in made.columns)
    err.print(
        f"{path.name}: {made.rows_read:,} rows, {made.rows_accepted:,} keep the draft of {made.dataset}"
        f" ({len(made.columns)} columns, {decisions} decisions for the steward)",
        markup=False,
    )
    if target is not None:
        err.print(f"written to {target}; decide what its comments ask, then: dopa check", markup=False)
