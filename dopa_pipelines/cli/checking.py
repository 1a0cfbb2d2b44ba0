"""``dopa check``: what is wrong in contracts and publications, and what drifted, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from dopa_pipelines.cli.console import err, out, print_json

if TYPE_CHECKING:
    from dopa_pipelines.contracts import Contract
    from dopa_pipelines.documents import Problem
    from dopa_pipelines.governance.classification import Classified
    from dopa_pipelines.publishing import Publication
    from dopa_pipelines.settings import Settings


def add_to(app: typer.Typer) -> None:
    app.command("check")(check_command)


def check_command(
    write: Annotated[bool, typer.Option("--write", help="Write generated files that drifted")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Check contracts, publications, what columns are by lineage, the gate, and generated files.

    Exit code 2: something is wrong, each with file and line."""
    from dopa_pipelines.contracts import dbt_sources, load_contracts
    from dopa_pipelines.publishing import load_publications
    from dopa_pipelines.publishing.sources import source_problems
    from dopa_pipelines.quality.assessment import load_assessments
    from dopa_pipelines.quality.models import test_problems
    from dopa_pipelines.quality.rules import problems as rule_problems
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.transform import Project

    settings = load_settings()
    contracts = load_contracts(settings.contracts)
    publications = load_publications(settings.contracts / "open_data")
    problems = [*contracts.problems, *publications.problems, *rule_problems(contracts)]
    written = dbt_sources.write(contracts, settings.root / "dbt_project") if write and not contracts.problems else []
    problems += dbt_sources.drift(contracts, settings.root / "dbt_project")
    problems += load_assessments(contracts, settings.contracts).problems
    project = Project(settings)
    problems += test_problems(project.models, settings.root / "dbt_project")
    models = {model.target: set(model.columns) for model in project.models}
    for publication in publications.publications:
        problems += source_problems(publication, models)
    notes: list[str] = []
    if not problems:
        # What columns are by lineage can be told only of contracts and models that are right.
        judged, notes = _judged(settings, contracts, publications.publications)
        problems += judged
    shown = [(_relative(problem.file), problem.line, problem.message) for problem in sorted(problems)]
    if as_json:
        print_json(
            {
                "contracts": len(contracts),
                "publications": len(publications.publications),
                "written": [str(_relative(path)) for path in written],
                "notes": notes,
                "problems": [{"file": str(file), "line": line, "message": text} for file, line, text in shown],
            }
        )
    else:
        for path in written:
            out.print(f"written: {_relative(path)}")
        for note in notes:
            out.print(note, markup=False)
        for file, line, text in shown:
            err.print(f"{file}:{line}: {text}", markup=False)
        if not shown:
            out.print(
                f"{len(contracts)} contracts, {len(publications.publications)} publications, {len(models)} models: nothing wrong"
            )
    if problems:
        raise typer.Exit(2)


def _judged(
    settings: Settings, contracts: Iterable[Contract], publications: Iterable[Publication]
) -> tuple[list[Problem], list[str]]:
    """What the gate refuses, and what yml says of columns that is not so; and what the gate tells besides."""
    from dopa_pipelines.documents import read_document
    from dopa_pipelines.governance.classification import working_copy
    from dopa_pipelines.governance.gate import judge
    from dopa_pipelines.publishing.protection import family_problems
    from dopa_pipelines.publishing.publication import TIMEZONE
    from dopa_pipelines.transform import Project

    copy = working_copy(Project(settings), contracts)
    problems = list(copy.problems())
    notes = []
    counted: dict[str, frozenset[str]] = {}
    publications = list(publications)
    today = datetime.now(ZoneInfo(TIMEZONE)).date()
    for publication in publications:
        verdict = judge(publication, copy.classified, today)
        document = read_document(publication.path)
        places = {column.name: place for place, column in enumerate(publication.columns)}
        for reason in verdict.reasons:
            keys = ("columns", places[reason.column]) if reason.column in places else ("source",)
            problems.append(document.problem(f"the gate refuses {reason} [{reason.rule}]", *keys))
        notes += [f"{publication.name}: {note}" for note in verdict.notes]
        counted[publication.name] = _counted(copy.classified, publication)
    return problems + family_problems(publications, counted), notes


def _counted(classified: Classified, publication: Publication) -> frozenset[str]:
    """The tables whose rows or values the publication's protected measures count or add up."""
    if publication.disclosure is None:
        return frozenset()
    from dopa_pipelines.lineage.columns import LineageError

    sources = {column.name: column.source for column in publication.columns}
    try:
        columns = classified.treated(publication.source).columns
    except LineageError:
        return frozenset()  # the gate has refused it
    return frozenset(
        edge.table for measure in publication.disclosure.measures for edge in columns.get(sources[measure.column], ())
    )


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
