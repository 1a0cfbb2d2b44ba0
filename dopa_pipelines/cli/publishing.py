"""``dopa publish``, ``dopa release``, ``dopa calendar``: releases by hand, what becomes of them, and what comes when."""

from __future__ import annotations

import getpass
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dopa_pipelines.cli.console import fail, out, print_json, table

if TYPE_CHECKING:
    from dopa_pipelines.publishing import Publication, Publications
    from dopa_pipelines.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines")]
Why = Annotated[str, typer.Option("--why", help="The reason; whoever used the release will read it")]

release_app = typer.Typer(help="Withdraw or correct a release, or list a publication's.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.command("publish")(publish_command)
    app.command("calendar")(calendar_command)
    release_app.command("list")(list_command)
    release_app.command("withdraw")(withdraw_command)
    release_app.command("correct")(correct_command)
    app.add_typer(release_app, name="release")


def publish_command(
    names: Annotated[list[str] | None, typer.Argument(help="Publications; none means all")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what was withdrawn with this very content")] = False,
    as_json: AsJson = False,
) -> None:
    """Release publications from the warehouse as it is. What did not change is not released again.

    Exit code 4: some were held back or could not be released, the others are.
    """
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.publishing import publish
    from dopa_pipelines.publishing.calendar import write_calendar
    from dopa_pipelines.publishing.held import HeldBack
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.quality.scores import reference_day, take
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    found, known = _publications(settings)
    for name in names or []:
        _wanted(found, known, name)
    run_id = str(uuid.uuid4())
    releases, problems = [], {}
    held: dict[str, list[dict[str, str]]] = {}
    with open_warehouse(settings) as warehouse:
        for name in names or sorted(known):
            try:
                releases.append(publish(warehouse, settings, known[name], run_id, again=again))
            except HeldBack as error:
                held[name] = [reason.as_dict() for reason in error.reasons]
                problems[name] = str(error)
            except UserError as error:
                problems[name] = str(error)
        tell(warehouse, settings)
        take(warehouse, load_contracts(settings.contracts), day=reference_day(settings))
    write_calendar(settings.releases_path, known.values())
    if as_json:
        print_json({"releases": [release.as_dict() for release in releases], "held_back": held, "problems": problems})
    else:
        shown = table("publication", "status", "version", "rows", "folder", right=("rows",))
        for release in releases:
            shown.add_row(release.publication, release.status, release.version, f"{release.rows:,}", str(release.path))
        out.print(shown)
        for text in [*map(str, found.problems), *problems.values()]:
            fail(text)
    if problems or (found.problems and not names):
        raise typer.Exit(4)


def calendar_command(
    names: Annotated[list[str] | None, typer.Argument(help="Publications; none means all")] = None,
    as_json: AsJson = False,
) -> None:
    """What is released when, in the next twelve months, by the publications' schedules.

    It also lies beside the releases, as calendar.json and calendar.ics, since the last release.
    """
    from dopa_pipelines.publishing.calendar import release_calendar
    from dopa_pipelines.publishing.schedule import thai_date
    from dopa_pipelines.settings import load_settings

    found, known = _publications(load_settings())
    chosen = [_wanted(found, known, name) for name in names or sorted(known)]
    coming = release_calendar(chosen)
    if as_json:
        print_json([item.as_dict() for item in coming])
    else:
        shown = table("date", "at", "fiscal year", "publication", "title")
        for item in coming:
            facts = item.as_dict()
            shown.add_row(
                thai_date(item.at.date()), f"{item.at:%H:%M}", str(facts["fiscal_year"]), item.publication, item.title_th
            )
        out.print(shown)
    for problem in found.problems:
        fail(str(problem))


def list_command(name: Annotated[str, typer.Argument(help="A publication")], as_json: AsJson = False) -> None:
    """Every release that was ever made of a publication, the newest first."""
    from dopa_pipelines.publishing import versions
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    with open_warehouse(settings) as warehouse:
        found = versions(warehouse, settings, name)
    if not found:
        _wanted(*_publications(settings), name)
    if as_json:
        print_json([item.as_dict() for item in found])
        return
    shown = table("version", "released", "rows", "state", "why", right=("rows",))
    for item in found:
        why = [item.withdrawn["why"]] if item.withdrawn else []
        why += [
            f"corrected by {each['corrected_by']}: {each['why']}"
            if each["corrects"] == item.version
            else f"corrects {each['corrects']}"
            for each in item.errata
        ]
        shown.add_row(item.version, item.created[:16].replace("T", " "), f"{item.rows:,}", item.state, "; ".join(why))
    out.print(shown)


def withdraw_command(
    name: Annotated[str, typer.Argument(help="A publication")],
    version: Annotated[str | None, typer.Argument(help="A release of it; none means the latest")] = None,
    why: Why = "",
    as_json: AsJson = False,
) -> None:
    """Take a release back: its data goes, a tombstone with the reason stays, and `latest` moves to the one before.

    The catalogue follows where one is configured: to the release before, or to a page that says why. Exit code 4: it failed."""
    from dopa_pipelines.publishing import withdraw
    from dopa_pipelines.publishing.ckan import follow_withdrawal
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    with open_warehouse(settings) as warehouse:
        run_id = str(uuid.uuid4())
        told = withdraw(warehouse, settings, name, version, why=why, by=getpass.getuser(), run_id=run_id)
        tell(warehouse, settings)
        problem = follow_withdrawal(warehouse, settings, name, why, run_id)
    if as_json:
        print_json(told | {"catalogue_problem": problem})
        raise typer.Exit(4 if problem else 0)
    now = f"latest is {told['replaced_by']} now" if told["replaced_by"] else "nothing else is out"
    out.print(f"{name} {told['version']} is withdrawn; {now}", markup=False)
    if problem:
        fail(
            f"the catalogue was not brought in step: {problem} Then: `dopa ckan push {name}`, "
            f"or `dopa ckan withdraw {name}` where nothing else is out"
        )
        raise typer.Exit(4)


def correct_command(
    name: Annotated[str, typer.Argument(help="A publication")],
    version: Annotated[str, typer.Argument(help="The release that is wrong")],
    why: Why = "",
    as_json: AsJson = False,
) -> None:
    """Release the publication as it is now, and link it with the release that was wrong by an erratum in both."""
    from dopa_pipelines.publishing import correct
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    publication = _wanted(*_publications(settings), name)
    with open_warehouse(settings) as warehouse:
        release, told = correct(
            warehouse, settings, publication, version, why=why, by=getpass.getuser(), run_id=str(uuid.uuid4())
        )
        tell(warehouse, settings)
    if as_json:
        print_json({"release": release.as_dict(), "erratum": told})
        return
    out.print(f"{name} {version} is corrected by {release.version}; both say so in ERRATUM.json", markup=False)


def _publications(settings: Settings) -> tuple[Publications, dict[str, Publication]]:
    from dopa_pipelines.publishing import load_publications

    found = load_publications(settings.contracts / "open_data")
    return found, {publication.name: publication for publication in found.publications}


def _wanted(found: Any, known: dict[str, Publication], name: str) -> Publication:
    from dopa_pipelines.documents import did_you_mean
    from dopa_pipelines.errors import UserError

    if name not in known:
        wrong = [str(problem) for problem in found.problems if problem.file.stem == name]
        raise UserError("\n".join(wrong) or f"no publication is called {name!r}; {did_you_mean(name, known)}")
    return known[name]
