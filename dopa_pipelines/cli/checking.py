"""``dopa check``: what is wrong in contracts and publications, and what drifted, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dopa_pipelines.cli.console import err, out, print_json


def add_to(app: typer.Typer) -> None:
    app.command("check")(check_command)


def check_command(
    write: Annotated[bool, typer.Option("--write", help="Write generated files that drifted")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Check contracts, publications and generated files. Exit code 2: something is wrong, each with file and line."""
    from dopa_pipelines.contracts import dbt_sources, load_contracts
    from dopa_pipelines.publishing import load_publications
    from dopa_pipelines.publishing.sources import source_problems
    from dopa_pipelines.quality.assessment import load_assessments
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.transform import Project

    settings = load_settings()
    contracts = load_contracts(settings.contracts)
    publications = load_publications(settings.contracts / "open_data")
    problems = [*contracts.problems, *publications.problems]
    written = dbt_sources.write(contracts, settings.root / "dbt_project") if write and not contracts.problems else []
    problems += dbt_sources.drift(contracts, settings.root / "dbt_project")
    problems += load_assessments(contracts, settings.contracts).problems
    models = {model.target: set(model.columns) for model in Project(settings).models}
    for publication in publications.publications:
        problems += source_problems(publication, models)
    shown = [(_relative(problem.file), problem.line, problem.message) for problem in sorted(problems)]
    if as_json:
        print_json(
            {
                "contracts": len(contracts),
                "publications": len(publications.publications),
                "written": [str(_relative(path)) for path in written],
                "problems": [{"file": str(file), "line": line, "message": text} for file, line, text in shown],
            }
        )
    else:
        for path in written:
            out.print(f"written: {_relative(path)}")
        for file, line, text in shown:
            err.print(f"{file}:{line}: {text}", markup=False)
        if not shown:
            out.print(
                f"{len(contracts)} contracts, {len(publications.publications)} publications, {len(models)} models: nothing wrong"
            )
    if problems:
        raise typer.Exit(2)


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
