"""``dopa ingest``: one delivery, by hand."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dopa_pipelines.cli.console import err, fail, out, print_json

if TYPE_CHECKING:
    from dopa_pipelines.contracts import Contract
    from dopa_pipelines.ingest import Delivery
    from dopa_pipelines.quality.checking import Checked
    from dopa_pipelines.settings import Settings


def add_to(app: typer.Typer) -> None:
    app.command("ingest")(ingest_command)


def contract_for(settings: Settings, dataset: str, file: Path | None = None) -> Contract:
    """The dataset's contract, or the one in ``file``. Raises UserError with file and line of what is wrong."""
    from dopa_pipelines.contracts import load_contracts, read_contract
    from dopa_pipelines.documents import DocumentError, did_you_mean
    from dopa_pipelines.errors import UserError

    if file is not None:
        try:
            contract = read_contract(file)
        except DocumentError as error:
            raise UserError(str(error)) from error
        if contract.dataset != dataset:
            raise UserError(f"{file}: describes the dataset {contract.dataset!r}, not {dataset!r}")
        return contract
    contracts = load_contracts(settings.contracts)
    if dataset not in contracts.by_dataset:
        wrong = [problem for problem in contracts.problems if problem.file.name.startswith(dataset)]
        if wrong:
            raise UserError("\n".join(map(str, wrong)))
        raise UserError(f"no contract describes the dataset {dataset!r}; {did_you_mean(dataset, contracts.by_dataset)}")
    return contracts.by_dataset[dataset]


def ingest_command(
    dataset: Annotated[str | None, typer.Argument(help="Dataset, as its contract names it")] = None,
    path: Annotated[Path | None, typer.Argument(help="File of the delivery; without it, all that wait in the drop zone")] = None,
    contract_file: Annotated[
        Path | None,
        typer.Option("--contract", help="Take the contract from this file; DATASET may then be left out"),
    ] = None,
    accept_shrink: Annotated[
        bool,
        typer.Option("--accept-shrink", help="Load a delivery that leaves far fewer rows than there are"),
    ] = False,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="Day of the delivery, such as 2026-11-01: its dates may not lie after it (default today)"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Bring a delivery into the warehouse. Exit code 3: it was rejected and nothing of it was loaded."""
    from dopa_pipelines.contracts import read_contract
    from dopa_pipelines.documents import DocumentError
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.ingest import arrivals, ingest
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.quality.checking import check
    from dopa_pipelines.quality.profiles import Profiler
    from dopa_pipelines.quality.scores import reference_day, take
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.sources import fetch, is_fetched
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    if contract_file is not None and path is None and dataset is not None and Path(dataset).exists():
        path = Path(dataset)
        dataset = None
    if dataset is None:
        if contract_file is None:
            raise UserError("name the dataset to ingest, or give its contract with --contract")
        try:
            dataset = read_contract(contract_file).dataset
        except DocumentError as error:
            raise UserError(str(error)) from error
    contract = contract_for(settings, dataset, contract_file)
    if path is not None and not path.exists():
        raise UserError(f"{path}: no such file; name a delivery of {dataset}")
    with open_warehouse(settings) as warehouse:
        if path is not None:
            paths = [path]
        elif is_fetched(contract):
            paths = [fetch(contract, settings.spool_path)]
        else:
            with warehouse.connect() as connection:
                paths = [item.path for item in arrivals(connection, contract, settings.drop_path) if item.pending]
        deliveries: list[Delivery] = []
        with err.status("") as status:
            for file in paths:

                def progress(rows: int, name: str = file.name) -> None:
                    status.update(f"{name}: {rows:,} rows")

                day = as_of.date() if as_of else None
                deliveries.append(
                    ingest(
                        warehouse,
                        contract,
                        file,
                        as_of=day,
                        accept_shrink=accept_shrink,
                        progress=progress,
                        observe=Profiler,
                    )
                )
        looked = check(warehouse, contract, deliveries)
        tell(warehouse, settings, contract=contract)
        for problem in take(warehouse, [contract], day=reference_day(settings)).problems:
            fail(str(problem))
    if as_json:
        shown = [item.as_json() for item in deliveries]
        print_json(shown[0] if path is not None or len(shown) == 1 else shown)
    else:
        if not deliveries:
            out.print(f"{dataset}: nothing new in {settings.drop_path / Path(contract.layout.path).parent}")
        for item in deliveries:
            _say(item)
        if any(item.status == "loaded" for item in deliveries):
            _say_rules(looked)
    if any(item.status == "rejected" for item in deliveries):
        raise typer.Exit(3)


def _say_rules(looked: Checked) -> None:
    """Rules of the table that fail; what enforcement rejects is told with its delivery."""
    for item in looked.found:
        if item.rule.measured and item.result and not item.result.passed:
            word = "holds back what descends from it" if item.rule.severity == "block" else "a warning"
            number = item.result.rows_failed if item.result.rows_failed is not None else item.result.value
            shown = (
                item.result.detail.get("problem")
                or f"{number if number is not None else 'nothing'}, must be {item.rule.limit.words}"
            )
            out.print(f"  rule {item.rule.name} fails ({word}): {shown}", markup=False)


def _say(item: Delivery) -> None:
    if item.status == "rejected":
        fail(item.problem or "the delivery was rejected")
    elif item.status == "unchanged":
        out.print(f"{item.file}: unchanged, in force as delivery {item.delivery}")
    else:
        seconds = item.seconds.get("total", 0.0)
        out.print(
            f"{item.file}: {item.rows_loaded:,} rows loaded, {item.rows_quarantined:,} quarantined"
            f" (delivery {item.delivery}, {seconds:.1f} s)"
        )
        for code, count in item.reasons.items():
            out.print(f"  {code}: {count:,}")
        if again := item.notes.get("corrected_again"):
            out.print(f"  {again:,} of them loaded as their bureau corrected them before")
        for unchecked in item.notes.get("references_not_checked", []):
            out.print(f"  not checked, the referenced dataset is not loaded: {unchecked}")
        for title in item.notes.get("unknown_columns", []):
            out.print(f"  a column that the contract does not know was left out: {title}")
        if item.rows_quarantined:
            out.print(f"  see them: dopa quarantine list {item.dataset}")
