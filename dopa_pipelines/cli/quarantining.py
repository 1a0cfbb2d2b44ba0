"""``dopa quarantine``: the rejected rows, without personal values unless they are asked for; loading them after all."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dopa_pipelines.cli.console import out, print_json, table

DatasetArgument = Annotated[str, typer.Argument(help="Dataset")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines")]
RevealOption = Annotated[
    bool, typer.Option("--reveal", help="Show personal values and the original rows; this is logged with your name")
]
ContractOption = Annotated[Path | None, typer.Option("--contract", help="Take the contract from this file")]
DeliveryOption = Annotated[int | None, typer.Option("--delivery", help="Only rows that this delivery brought")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Rows that broke their contract.", no_args_is_help=True)
    group.command("list")(list_command)
    group.command("show")(show_command)
    group.command("explain")(explain_command)
    group.command("replay")(replay_command)
    group.command("export")(export_command)
    app.add_typer(group, name="quarantine")


def list_command(
    dataset: Annotated[str | None, typer.Argument(help="Dataset; without it, how many rows wait in each")] = None,
    limit: Annotated[int, typer.Option(help="Rows at most", min=1)] = 20,
    delivery: DeliveryOption = None,
    code: Annotated[str | None, typer.Option("--code", help="Only rows with this reason code")] = None,
    reveal: RevealOption = False,
    contract_file: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rejected rows of a dataset, the latest deliveries first."""
    from dopa_pipelines.cli.ingesting import contract_for
    from dopa_pipelines.ingest.quarantine import log_look, overview, rejected_rows
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    contract = contract_for(settings, dataset, contract_file) if dataset else None
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.CUSTODIAN) as connection:
        if contract is None:
            counts = overview(connection)
            if as_json:
                print_json([{"dataset": name, "waiting": waiting, "replayed": replayed} for name, waiting, replayed in counts])
                return
            shown = table("dataset", "waiting", "replayed", right=("waiting", "replayed"))
            for name, waiting, replayed in counts:
                shown.add_row(name, f"{waiting:,}", f"{replayed:,}")
            out.print(shown)
            return
        found = list(rejected_rows(connection, contract, reveal=reveal, limit=limit, delivery=delivery, code=code))
        if reveal:
            log_look(connection, "quarantine revealed", f"quarantine.{dataset}", {"rows": len(found)})
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
    out.print(f"  why, and what to do: dopa quarantine explain {dataset}")


def show_command(
    dataset: DatasetArgument,
    row: Annotated[int, typer.Argument(help="Row of the file, as `dopa quarantine list` shows it")],
    delivery: DeliveryOption = None,
    reveal: RevealOption = False,
    contract_file: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """One rejected row: each column as it came, and what is wrong with it."""
    from dopa_pipelines.cli.ingesting import contract_for
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.ingest.quarantine import log_look, rejected_rows
    from dopa_pipelines.ingest.reasons import meaning
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    contract = contract_for(settings, dataset, contract_file)
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.CUSTODIAN) as connection:
        found = list(rejected_rows(connection, contract, reveal=reveal, limit=None, delivery=delivery, row=row))
        if not found:
            raise UserError(f"{dataset}: no rejected row {row}; `dopa quarantine list {dataset}` names those that there are")
        if reveal:
            log_look(connection, "quarantine revealed", f"quarantine.{dataset}", {"row": row, "delivery": delivery})
    if as_json:
        print_json([asdict(item) for item in found])
        return
    names = {column.name: column.business_name for column in contract.columns}
    for item in found:
        state = f"loaded by the replay {item.replayed_by}" if item.replayed_by else "waits"
        out.print(f"{item.file}, row {item.row}, delivery {item.delivery}: {state}")
        for reason in item.reasons:
            known = meaning(reason["code"])
            where = f"{reason['column']} ({names.get(reason['column'], '')}) " if reason.get("column") else ""
            out.print(f"  ✗ {reason['code']}: {where}{known.thai}; {known.english}")
            if known.remedy:
                out.print(f"    → {known.remedy_th}; {known.remedy}")
        if item.fields:
            shown = table("column", "ชื่อ", "value")
            for name, value in item.fields.items():
                shown.add_row(name, names.get(name, ""), "" if value is None else value)
            out.print(shown)
        if item.original is not None:
            out.print(item.original)


def explain_command(dataset: DatasetArgument, contract_file: ContractOption = None, as_json: JsonOption = False) -> None:
    """Why rows of a dataset wait, the most frequent reasons first, and what to do about each."""
    from dopa_pipelines.cli.ingesting import contract_for
    from dopa_pipelines.ingest.quarantine import patterns
    from dopa_pipelines.ingest.reasons import meaning
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    contract = contract_for(settings, dataset, contract_file)
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.CUSTODIAN) as connection:
        found = patterns(connection, contract)
    if as_json:
        print_json([asdict(item) | asdict(meaning(item.code)) for item in found])
        return
    if not found:
        out.print(f"{dataset}: no rejected rows wait")
        return
    for item in found:
        known = meaning(item.code)
        where = f" in {item.column}" if item.column else ""
        example = f", such as {item.example!r}" if item.example else ""
        out.print(f"{item.rows:,} × {item.code}{where}{example}")
        out.print(f"  {known.thai} ({known.english})")
        if known.remedy:
            out.print(f"  → {known.remedy_th} ({known.remedy})")
    out.print(f"\n  for the bureau: dopa quarantine export {dataset} --to {dataset}.xlsx")
    out.print(f'  once the contract or a reference is mended: dopa quarantine replay {dataset} --why "…"')


def replay_command(
    dataset: DatasetArgument,
    why: Annotated[str, typer.Option("--why", help="What was mended; kept with your name")],
    delivery: DeliveryOption = None,
    contract_file: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enforce rejected rows again and load those that pass now. Rows that later deliveries replaced are left alone."""
    from dopa_pipelines.cli.ingesting import contract_for
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.ingest import replay
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.quality.checking import check
    from dopa_pipelines.quality.scores import reference_day, take
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    if not why.strip():
        raise UserError("say in --why what was mended; it is kept with the replay")
    settings = load_settings()
    contract = contract_for(settings, dataset, contract_file)
    with open_warehouse(settings) as warehouse:
        result = replay(warehouse, contract, why=why.strip(), delivery=delivery)
        check(warehouse, contract, [result])
        tell(warehouse, settings, contract=contract)
        take(warehouse, [contract], day=reference_day(settings))
    if as_json:
        print_json(result.as_json())
        return
    number = f" (delivery {result.delivery})" if result.delivery else ""
    out.print(
        f"{dataset}: {result.rows_read:,} rejected rows tried, {result.rows_loaded:,} loaded{number},"
        f" {result.rows_quarantined:,} still wait"
    )
    for code, count in result.reasons.items():
        out.print(f"  {code}: {count:,}")


def export_command(
    dataset: DatasetArgument,
    to: Annotated[Path | None, typer.Option("--to", help="Workbook to write; default DATASET_rejected.xlsx")] = None,
    delivery: DeliveryOption = None,
    contract_file: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """A workbook of the rejected rows for their bureau, reasons in Thai; this is logged. Corrected, it is a delivery."""
    from dopa_pipelines.cli.ingesting import contract_for
    from dopa_pipelines.ingest.quarantine import export, log_look
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    contract = contract_for(settings, dataset, contract_file)
    path = to or Path(f"{dataset}_rejected.xlsx")
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.CUSTODIAN) as connection:
        log_look(connection, "quarantine exported", f"quarantine.{dataset}", {"file": path.name, "delivery": delivery})
        count = export(connection, contract, path, delivery=delivery)
    if as_json:
        print_json({"dataset": dataset, "file": str(path), "rows": count})
        return
    out.print(f"{path}: {count:,} rejected rows, with personal values in the clear; only you can read it")
    out.print(f"  corrected, bring it back: dopa ingest {dataset} {path}")
