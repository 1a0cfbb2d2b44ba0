"""``dopa classify`` and ``dopa gate``: what columns are by their lineage, and what may go out."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from dopa_pipelines.cli.console import err, fail, out, print_json, table

if TYPE_CHECKING:
    from dopa_pipelines.governance.classification import Derived

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines")]


def add_to(app: typer.Typer) -> None:
    app.command("classify")(classify_command)
    app.command("gate")(gate_command)


def classify_command(
    name: Annotated[str | None, typer.Argument(help="A dataset or model, or one column of it: births_by_month.month")] = None,
    as_json: JsonOption = False,
) -> None:
    """What each column is by its lineage in the working copy, and why: the way from the silo's column that makes it so."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.governance.classification import working_copy
    from dopa_pipelines.lineage.declared import dataset_named
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.transform import Project

    settings = load_settings()
    with err.status("compiling models"):
        classified = working_copy(Project(settings), load_contracts(settings.contracts)).classified
    found: list[Derived]
    column = None
    if name is None:
        found = list(classified.all())
    else:
        dataset = None
        try:
            dataset = dataset_named(classified.graph, name)
        except UserError:
            before, _, column = name.rpartition(".")
            if not before:
                raise
            dataset = dataset_named(classified.graph, before)
        columns = [column] if column else classified.graph.columns[dataset]
        found = [classified.column(dataset, item) for item in columns]
    if as_json:
        print_json([item.as_json() for item in found])
        return
    if column and found:
        (item,) = found
        out.print(f"{item.dataset}.{item.column}: {item.what.replace('_', ' ')}, {item.level}", markup=False)
        if item.problem:
            fail(item.problem)
        for step in item.path:
            out.print(f"  {step}", markup=False)
        if item.indirect:
            out.print("  which rows there are depends on " + ", ".join(map(str, item.indirect)), markup=False)
        return
    shown = table("column", "is", "classification", "because of")
    for item in found:
        because = item.problem or (str(item.origin) if item.origin and item.what != "open" else "")
        shown.add_row(f"{item.dataset}.{item.column}", item.what.replace("_", " "), item.level, because)
    out.print(shown)


def gate_command(
    name: Annotated[str, typer.Argument(help="A publication")],
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Judge what was recorded with the tables in the warehouse, as a release does")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Whether a publication may go out: by the working copy, or with --recorded by what a release would find.

    Exit code 4: it may not.
    """
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.documents import did_you_mean
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.governance.classification import working_copy
    from dopa_pipelines.governance.gate import judge
    from dopa_pipelines.publishing import load_publications
    from dopa_pipelines.publishing.admission import recorded_verdict
    from dopa_pipelines.publishing.publication import TIMEZONE
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.transform import Project

    settings = load_settings()
    publications = load_publications(settings.contracts / "open_data")
    known = {publication.name: publication for publication in publications.publications}
    if name not in known:
        wrong = [str(problem) for problem in publications.problems if problem.file.stem == name]
        raise UserError("\n".join(wrong) or f"no publication is called {name!r}; {did_you_mean(name, known)}")
    today = datetime.now(ZoneInfo(TIMEZONE)).date()
    if recorded:
        from dopa_pipelines.warehouse import open_warehouse

        with open_warehouse(settings) as warehouse:
            verdict = recorded_verdict(warehouse, known[name])
    else:
        with err.status("compiling models"):
            classified = working_copy(Project(settings), load_contracts(settings.contracts)).classified
        verdict = judge(known[name], classified, today)
    if as_json:
        print_json(verdict.as_json())
    else:
        out.print(f"{name} {'may' if verdict.allowed else 'may not'} go out", markup=False)
        for reason in verdict.reasons:
            fail(f"{reason.column}: {reason.text} [{reason.rule}]")
            for step in reason.path:
                out.print(f"    {step}", markup=False)
        for item in verdict.exceptions:
            out.print(
                f"exception on {item['column']} by {item['approvedBy']} until {item['expiresOn']}: {item['reason']}", markup=False
            )
        for note in verdict.notes:
            out.print(note, markup=False)
    if not verdict.allowed:
        raise typer.Exit(4)
