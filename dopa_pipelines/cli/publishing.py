"""``dopa publish``: releases by hand."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from dopa_pipelines.cli.console import fail, out, print_json, table


def add_to(app: typer.Typer) -> None:
    app.command("publish")(publish_command)


def publish_command(
    names: Annotated[list[str] | None, typer.Argument(help="Publications; none means all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Release publications from the warehouse as it is. What did not change is not released again.

    Exit code 4: some could not be released, the others are.
    """
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.documents import did_you_mean
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.publishing import load_publications, publish
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.quality.scores import take
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    found = load_publications(settings.contracts / "open_data")
    known = {publication.name: publication for publication in found.publications}
    for name in names or []:
        if name not in known:
            wrong = [str(problem) for problem in found.problems if problem.file.stem == name]
            raise UserError("\n".join(wrong) or f"no publication is called {name!r}; {did_you_mean(name, known)}")
    run_id = str(uuid.uuid4())
    releases, problems = [], {}
    with open_warehouse(settings) as warehouse:
        for name in names or sorted(known):
            try:
                releases.append(publish(warehouse, settings, known[name], run_id))
            except UserError as error:
                problems[name] = str(error)
        tell(warehouse, settings)
        take(warehouse, load_contracts(settings.contracts))
    if as_json:
        print_json({"releases": [release.as_dict() for release in releases], "problems": problems})
    else:
        shown = table("publication", "status", "version", "rows", "folder", right=("rows",))
        for release in releases:
            shown.add_row(release.publication, release.status, release.version, f"{release.rows:,}", str(release.path))
        out.print(shown)
        for text in [*map(str, found.problems), *problems.values()]:
            fail(text)
    if problems or (found.problems and not names):
        raise typer.Exit(4)
