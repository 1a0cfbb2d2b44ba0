"""``dopa lineage verify``, ``rebase`` and ``seal``: whether what was recorded is the whole story."""

from __future__ import annotations

from typing import Annotated

import typer

from dopa_pipelines.cli.console import err, fail, out, print_json
from dopa_pipelines.cli.lineage import group

DatasetArgument = Annotated[str | None, typer.Argument(help="A dataset or model (person_register, marts.hotels); default all")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines")]


def add_to(_: typer.Typer) -> None:
    """The commands join those of ``dopa lineage``."""
    group.command("verify")(verify_command)
    group.command("rebase")(rebase_command)
    group.command("seal")(seal_command)


def verify_command(dataset: DatasetArgument = None, as_json: JsonOption = False) -> None:
    """Show that every row belongs to a recorded write and that no record was changed or lost. Exit code 4: it is otherwise."""
    from dopa_pipelines.lineage.verify import note, verify
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    with open_warehouse(settings) as warehouse, err.status("records and seals") as status:
        verdict = verify(warehouse, settings.releases_path, dataset, status.update)
        if dataset is None:
            note(warehouse, verdict, "by hand")
    if as_json:
        print_json(verdict.as_json())
    else:
        for finding in verdict.findings:
            fail(finding.message)
        for words in verdict.notes:
            out.print(words, markup=False)
        out.print(
            f"{verdict.rows:,} rows of {verdict.tables:,} tables, {verdict.views:,} views, {verdict.writes:,} writes,"
            f" {verdict.events:,} events, {verdict.seals:,} seals and {verdict.anchors:,} anchors looked at: "
            + (f"{len(verdict.findings):,} findings" if verdict.findings else "all agree")
        )
    if verdict.findings:
        raise typer.Exit(4)


def rebase_command(
    why: Annotated[str, typer.Option("--why", help="What happened; it is kept with the record")],
    dataset: DatasetArgument = None,
    as_json: JsonOption = False,
) -> None:
    """Account for rows that a restore, a rewrite or a move gave other transactions, where their digests are those of before."""
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.lineage.verify import rebase
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    if not why.strip():
        raise UserError("say in --why what happened to the tables; it is kept with the record")
    settings = load_settings()
    with open_warehouse(settings) as warehouse:
        done = rebase(warehouse, settings.releases_path, why.strip(), dataset)
    if as_json:
        print_json({"rebased": done})
    else:
        out.print(f"rebased: {', '.join(done)}" if done else "nothing to rebase: every row is of a recorded write")


def seal_command(as_json: JsonOption = False) -> None:
    """Seal what was recorded and take the digests that wait; runs do it at their end, as far as it takes no time."""
    from dopa_pipelines.lineage.seal import seal
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    with open_warehouse(settings) as warehouse:
        tell(warehouse, settings, seconds=0)
        done = seal(warehouse)
    if as_json:
        print_json(done.as_json())
    else:
        waits = f"; being replaced just now: {', '.join(done.waits)}" if done.waits else ""
        out.print(f"{done.seals:,} seals made, {done.digests:,} digests taken{waits}")
