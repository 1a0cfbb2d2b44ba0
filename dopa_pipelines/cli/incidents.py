"""``dopa quality incidents``: rules that fail, who sees to them, figures by month, and the workbook of a bureau."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dopa_pipelines.cli.console import out, print_json, table
from dopa_pipelines.cli.quality import Group
from dopa_pipelines.thai import BANGKOK

if TYPE_CHECKING:
    from dopa_pipelines.quality.incidents import Incident
    from dopa_pipelines.quality.store import Connection

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines")]
Number = Annotated[int, typer.Argument(help="Number of the incident, as `dopa quality incidents` lists it")]
Bureau = Annotated[str | None, typer.Option("--bureau", help="Only those of one bureau")]

group = typer.Typer(cls=Group, help="Rules that fail, until they pass again, and who sees to them.", rich_markup_mode=None)


@group.callback()
def incidents() -> None:
    """Rules that fail, until they pass again. `dopa quality incidents DATASET` lists those of one dataset."""


@group.command("show")
def show_command(
    dataset: Annotated[str | None, typer.Argument(help="Dataset, or schema.table of a model; none means all")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were closed")] = False,
    bureau: Bureau = None,
    as_json: AsJson = False,
) -> None:
    """Open incidents: those that hold others back first, then by the day on which they are due."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.quality.incidents import incidents, require_bureau
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    if bureau is not None:
        require_bureau(bureau, load_contracts(settings.contracts))
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.READER) as connection:
        found = incidents(connection, dataset, bureau=bureau, closed=everything)
    if as_json:
        print_json([item.as_dict() for item in found])
        return
    if not found:
        out.print("no incident is open" if not everything else "there was never an incident")
        return
    shown = table("id", "dataset", "rule", "severity", "rows", "since", "due", "owner", "state", right=("id", "rows"))
    today = datetime.now(BANGKOK).date()
    for item in found:
        state = (
            "closed" if not item.is_open else "overdue" if item.overdue(today) else "seen to" if item.acknowledged_at else "open"
        )
        shown.add_row(
            str(item.id), item.dataset, item.rule, item.severity, "" if item.rows_now is None else f"{item.rows_now:,}",
            f"{item.opened_at.astimezone(BANGKOK):%Y-%m-%d}", str(item.due_on or ""), item.owner or "", state,
        )  # fmt: skip
    out.print(shown)
    out.print("  one of them: dopa quality incidents about ID", markup=False)


@group.command("about")
def about_command(incident: Number, as_json: AsJson = False) -> None:
    """One incident: what fails, what happened to it, how it is repaired."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.quality import repair
    from dopa_pipelines.quality.incidents import events, get
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    contract = None
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.READER) as connection:
        item = get(connection, incident)
        history = events(connection, incident)
    contract = load_contracts(settings.contracts).by_dataset.get(item.dataset)
    steps = repair.of(item.kind, item.severity, item.rule, contract, item.dataset)
    if as_json:
        told = [{"at": event.at, "who": event.who, "action": event.action, "note": event.note} for event in history]
        steps_told = [{"th": step.th, "en": step.en, "command": step.command} for step in steps]
        print_json(item.as_dict() | {"detail": item.detail, "events": told, "repair": steps_told})
        return
    rows = "" if item.rows_now is None else f", {item.rows_now:,} rows now, {item.rows_most:,} at most"
    out.print(f"incident {item.id}: {item.rule} of {item.dataset} ({item.dimension}, {item.severity}){rows}", markup=False)
    for event in history:
        note = f": {event.note}" if event.note else ""
        out.print(f"  {event.at.astimezone(BANGKOK):%Y-%m-%d %H:%M} {event.action} by {event.who}{note}", markup=False)
    for place in item.detail.get("sample", []):
        out.print("  " + ", ".join(f"{name} {value}" for name, value in place.items()), markup=False)
    if item.is_open:
        for step in steps:
            out.print(f"  → {step.th} ({step.en})" + (f": {step.command}" if step.command else ""), markup=False)


@group.command("ack")
def acknowledge_command(
    incident: Number,
    note: Annotated[str | None, typer.Option("--note", help="What you do about it")] = None,
    as_json: AsJson = False,
) -> None:
    """Say that you see to an incident."""
    from dopa_pipelines.quality.incidents import acknowledge

    _change(lambda connection: acknowledge(connection, incident, note), as_json)


@group.command("explain")
def explain_command(
    incident: Number,
    note: Annotated[str, typer.Option("--note", help="What it is about; kept with your name")],
    as_json: AsJson = False,
) -> None:
    """Say what an incident is about, also after it was closed."""
    from dopa_pipelines.quality.incidents import explain

    _change(lambda connection: explain(connection, incident, note), as_json)


@group.command("assign")
def assign_command(
    incident: Number, to: Annotated[str, typer.Argument(help="E-mail address of who sees to it")], as_json: AsJson = False
) -> None:
    """Give an incident to somebody else."""
    from dopa_pipelines.quality.incidents import assign

    _change(lambda connection: assign(connection, incident, to), as_json)


@group.command("due")
def due_command(
    incident: Number,
    day: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="The day, such as 2026-01-31")],
    note: Annotated[str | None, typer.Option("--note", help="Why")] = None,
    as_json: AsJson = False,
) -> None:
    """Set the day by which an incident should be repaired."""
    from dopa_pipelines.quality.incidents import set_due

    _change(lambda connection: set_due(connection, incident, day.date(), note), as_json)


@group.command("months")
def months_command(bureau: Bureau = None, as_json: AsJson = False) -> None:
    """Error counts and time to repair by bureau and month of the Buddhist era."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.quality.incidents import months, require_bureau
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    if bureau is not None:
        require_bureau(bureau, load_contracts(settings.contracts))
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.READER) as connection:
        found = months(connection, bureau)
    if as_json:
        print_json([{name: getattr(item, name) for name in item.__dataclass_fields__} for item in found])
        return
    numbers = ("opened", "errors", "closed", "late", "days", "open at end")
    shown = table("bureau", "month", *numbers, right=numbers)
    for item in found:
        days = "" if item.days_to_repair is None else f"{item.days_to_repair:.1f}"
        shown.add_row(
            item.bureau, item.month_be, f"{item.opened:,}", f"{item.errors:,}", f"{item.closed:,}", f"{item.closed_late:,}", days,
            f"{item.open_at_end:,}",
        )  # fmt: skip
    out.print(shown)


@group.command("export")
def export_command(
    bureau: Annotated[str, typer.Option("--bureau", help="Whose incidents")],
    to: Annotated[Path | None, typer.Option("--out", help="Workbook to write; default BUREAU_incidents.xlsx")] = None,
    as_json: AsJson = False,
) -> None:
    """The workbook of a bureau in Thai: open incidents, their rows, how they are repaired, by whom and until when."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.quality import store, workbook
    from dopa_pipelines.quality.incidents import incidents, months, require_bureau
    from dopa_pipelines.quality.places import places_of
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    contracts = load_contracts(settings.contracts)
    require_bureau(bureau, contracts)
    path = to or Path(f"{bureau}_incidents.xlsx")
    # Rejected rows are shown by file and number only, but who reads them at all is the loader.
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.LOADER) as connection:
        found = incidents(connection, bureau=bureau)
        figures = months(connection, bureau)
        results = store.named(connection, [item.result for item in found])
        places = {item.id: places_of(connection, item, workbook.MOST_ROWS) for item in results}
    workbook.write(path, bureau, found, places, contracts.by_dataset, figures, datetime.now(BANGKOK).date())
    if as_json:
        print_json({"path": str(path), "incidents": len(found)})
    else:
        out.print(f"{path}: {len(found)} open incidents of {bureau}", markup=False)


def _change(make: Callable[[Connection], Incident], as_json: bool) -> None:
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    with open_warehouse(load_settings()) as warehouse, warehouse.connect(Role.LOADER) as connection:
        item = make(connection)
        connection.commit()
    if as_json:
        print_json(item.as_dict())
        return
    facts: dict[str, Any] = {"owner": item.owner, "due": item.due_on, "explained": item.explanation}
    told = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
    out.print(f"incident {item.id}: {item.rule} of {item.dataset}" + (f"; {told}" if told else ""), markup=False)
