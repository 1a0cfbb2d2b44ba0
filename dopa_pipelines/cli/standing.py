"""``dopa status``: what is loaded, waiting and rejected, runs whose process died, lineage that is sent out and proven."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dopa_pipelines.cli.console import fail, out, print_json, table
from dopa_pipelines.thai import BANGKOK

if TYPE_CHECKING:
    import psycopg

    from dopa_pipelines.contracts import Contracts
    from dopa_pipelines.quality.alerts import Standing
    from dopa_pipelines.settings import Settings
    from dopa_pipelines.warehouse import Warehouse


def add_to(app: typer.Typer) -> None:
    app.command("status")(status_command)


def status_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """The datasets, what waits, what was refused; dead runs are found and marked failed."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.ingest import arrivals
    from dopa_pipelines.lineage.outbox import standing
    from dopa_pipelines.lineage.verify import proven
    from dopa_pipelines.publishing import load_publications
    from dopa_pipelines.publishing.held import held_back
    from dopa_pipelines.publishing.pushes import last_pushes
    from dopa_pipelines.quality.incidents import open_by_severity
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse
    from dopa_pipelines.warehouse.work import end_dead_work

    settings = load_settings()
    contracts = load_contracts(settings.contracts)
    publications = load_publications(settings.contracts / "open_data")
    with open_warehouse(settings) as warehouse:
        dead = mark_dead_runs(settings, warehouse)
        aborted = end_dead_work(warehouse)
        receiver, wrong = _receiver()
        if aborted:
            from dopa_pipelines.publishing.lineage import tell

            tell(warehouse, settings)
        with warehouse.connect() as connection:
            events = standing(connection, receiver)
            held = held_back(connection)
            pushes = last_pushes(connection)
            incidents = open_by_severity(connection)
            alerts, unsent = _alerts(connection, settings)
            proof = proven(connection, settings.state)
            counts = deliveries_by_dataset(connection)
            for contract in contracts:
                waiting = sum(item.pending for item in arrivals(connection, contract, settings.drop_path))
                counts.setdefault(contract.dataset, {})["waiting"] = waiting
            models = connection.execute(
                "select count(distinct target), max(written_at) from lineage.write"
                " where kind = 'model' and environment = 'production'"
            ).fetchone()
    releases = {
        publication.name: (settings.releases_path / publication.name / "latest").exists()
        for publication in publications.publications
    }
    problems = [*contracts.problems, *publications.problems, *wrong, *unsent]
    if as_json:
        print_json(
            {
                "datasets": counts,
                "models": {"built": models[0] if models else 0, "last": models[1] if models else None},
                "releases": releases,
                "incidents": incidents,
                "alerts": [asdict(item) for item in alerts],
                "held_back": [item.as_dict() for item in held],
                "dead_runs": dead,
                "aborted": [{"kind": kind, "target": target} for kind, target in aborted],
                "lineage_events": events.as_dict(),
                "catalogue": pushes,
                "lineage_proof": asdict(proof),
                "problems": [str(problem) for problem in problems],
            }
        )
        return
    out.print(datasets_table(contracts, counts))
    if models:
        last = _moment(models[1])
        out.print(f"\n{models[0]} models built, the last {last}; {sum(releases.values())} of {len(releases)} extracts released")
    late = incidents.pop("overdue")
    if any(incidents.values()):
        told = ", ".join(f"{number} {severity}" for severity, number in incidents.items() if number)
        out.print(f"{sum(incidents.values())} quality incidents are open ({told}; {late} overdue): dopa quality incidents")
    for transport in alerts:
        out.print(str(transport), style=None if transport.healthy else "red", markup=False)
    for dataset, item in counts.items():
        if item.get("problem"):
            out.print(f"[red]{dataset}[/]: ", end="")
            out.print(item["problem"], markup=False)
    for stands in held:
        out.print(f"[red]{stands.publication}[/]: held back since {_moment(stands.since)}: ", end="")
        out.print("; ".join(reason["reason_en"] for reason in stands.reasons), markup=False)
    for run in dead:
        out.print(f"[red]run {run}[/]: its process was gone; it is marked failed now, start it again")
    for kind, target in aborted:
        out.print(f"[red]{target}[/]: its {kind} was cut off; nothing of it was half done")
    if events.configured or not events.healthy:
        out.print(str(events), style=None if events.healthy else "red", markup=False)
    _say_pushes(pushes)
    out.print(str(proof), style=None if proof.healthy else "red", markup=False)
    for problem in problems:
        fail(str(problem))


def _say_pushes(pushes: list[dict[str, Any]]) -> None:
    """Where releases were pushed, and each that failed; nothing where none ever was."""
    for site in sorted({push["site"] for push in pushes}):
        here = [push for push in pushes if push["site"] == site]
        good = sum(push["status"] in ("created", "updated", "unchanged") for push in here)
        withdrawn = sum(push["status"] == "withdrawn" for push in here)
        last = max(push["at"] for push in here)
        out.print(f"{good} extracts in {site}, {withdrawn} withdrawn, the last change {_moment(last)}", markup=False)
        for push in here:
            if push["status"] == "failed":
                out.print(f"[red]{push['publication']}[/] was not pushed: ", end="")
                out.print(push["problem"], markup=False)


def _alerts(connection: psycopg.Connection[Any], settings: Settings) -> tuple[list[Standing], list[str]]:
    """What became of alerts by each configured transport, and what is wrong with the configuration."""
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.quality.alerts import standing, transports

    try:
        return standing(connection, transports(settings)), []
    except UserError as error:
        return [], [str(error)]


def _receiver() -> tuple[str | None, list[str]]:
    """The kind of receiver of lineage events, and what is wrong with its configuration."""
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.lineage.outbox import configured

    try:
        return configured(), []
    except UserError as error:
        return None, [str(error)]


def deliveries_by_dataset(connection: psycopg.Connection[Any]) -> dict[str, dict[str, Any]]:
    """By dataset: counts over the deliveries that the table holds rows of, when the last came, the problem of a later refusal."""
    rows = connection.execute(
        """
        with last as (select distinct on (dataset) * from ops.delivery order by dataset, id desc)
        select d.dataset,
            count(*) filter (where d.rows_held > 0),
            coalesce(sum(d.rows_read) filter (where d.rows_held > 0), 0)::bigint,
            coalesce(sum(d.rows_loaded) filter (where d.rows_held > 0), 0)::bigint,
            coalesce(sum(d.rows_quarantined) filter (where d.rows_held > 0), 0)::bigint,
            max(d.received_at) filter (where d.status = 'loaded'),
            max(case when last.status = 'rejected' then last.problem end)
        from ops.delivery d
        join last on last.dataset = d.dataset
        group by d.dataset
        order by d.dataset collate "C"
        """
    )
    names = ("deliveries", "rows_read", "rows_loaded", "rows_quarantined", "last", "problem")
    return {dataset: dict(zip(names, values, strict=True)) for dataset, *values in rows}


def datasets_table(contracts: Contracts, counts: dict[str, dict[str, Any]]) -> Table:
    numbers = ("deliveries", "read", "loaded", "quarantined", "waiting")
    waits = any("waiting" in item for item in counts.values())
    shown = table("dataset", "bureau", *(numbers if waits else numbers[:-1]), "last loaded", right=numbers)
    for contract in contracts:
        item = counts.get(contract.dataset, {})
        cells = [f"{item.get(name, 0):,}" for name in ("deliveries", "rows_read", "rows_loaded", "rows_quarantined")]
        if waits:
            cells.append(f"{item.get('waiting', 0):,}")
        last = item.get("last")
        shown.add_row(
            contract.dataset,
            contract.bureau,
            *cells,
            _moment(last),
        )
    return shown


def _moment(at: datetime | None) -> str:
    return at.astimezone(BANGKOK).strftime("%Y-%m-%d %H:%M") if at else "never"


def mark_dead_runs(settings: Settings, warehouse: Warehouse) -> list[str]:
    """Ids of runs whose process is gone; Dagster is started only where there is one to mark."""
    from dopa_pipelines.warehouse.dagster_storage import dead_runs, prepare_home

    dead = dead_runs(warehouse)
    if dead:
        subprocess.run(
            [sys.executable, "-m", "sensors.housekeeping"],
            cwd=settings.root,
            env={**os.environ, **prepare_home(settings, warehouse), "DOPA_STATE": str(settings.state)},
            check=True,
            capture_output=True,
        )
    return [run.run_id for run in dead]
