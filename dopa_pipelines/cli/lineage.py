"""``dopa lineage``: which columns a statement's output depends on, and the proof of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dopa_pipelines.cli.console import err, fail, out, print_json, table

if TYPE_CHECKING:
    from dopa_pipelines.lineage.columns import Edge
    from dopa_pipelines.lineage.prove import Proof

group = typer.Typer(help="Which columns depend on which, and the proof of it.", no_args_is_help=True, rich_markup_mode=None)


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="lineage")


@group.command("sql")
def sql_command(
    file: Annotated[Path, typer.Argument(help="File with one statement in PostgreSQL's SQL")],
    schema: Annotated[
        Path,
        typer.Option(
            help='JSON: {"schema.table": {"column": "type"}} or nested; views as {"views": {"schema.name": "select …"}}'
        ),
    ],
    search_path: Annotated[str, typer.Option(help="Where names without a schema are looked for, comma between")] = "public",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """The columns that each output column of a statement depends on. Exit code 2: something cannot be resolved."""
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.lineage.columns import analyze, read_schema
    from dopa_pipelines.lineage.columns.model import in_order

    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} can't be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    path = tuple(part.strip() for part in search_path.split(",") if part.strip())
    lineage = analyze(text, read_schema(schema, search_path=path or ("public",)), statement=str(file))
    if as_json:
        print_json(lineage.as_json())
        return
    shown = table("output", "depends on", "how")
    for title, edges in [*lineage.columns, ("(which rows)", lineage.dataset)]:
        for number, edge in enumerate(in_order(edges)):
            shown.add_row("" if number else title, f"{edge.table}.{edge.column}", _how(edge))
        if not edges and title != "(which rows)":
            shown.add_row(title, "", "nothing")
    out.print(shown)


def _how(edge: Edge) -> str:
    kind = "DIRECT" if edge.direct else "INDIRECT"
    return f"{kind} {edge.subtype}{', masked' if edge.masking else ''}"


@group.command("prove")
def prove_command(
    model: Annotated[str | None, typer.Argument(help="A model (hotels or marts.hotels); default all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Change generated data column by column and compare what models then give with their lineage. Exit code 4: it is wrong.

    Real data is neither read nor changed; all happens in a transaction that is rolled back.
    """
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.lineage.prove import shares
    from dopa_pipelines.lineage.proving import prove_models
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.transform import Project
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    proofs: list[Proof] = []
    with (
        open_warehouse(settings) as warehouse,
        warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection,
        err.status("compiling the models") as status,
    ):
        for proof in prove_models(connection, Project(settings), load_contracts(settings.contracts), model):
            proofs.append(proof)
            status.update(f"{proof.name}: tried")
    share = shares(proofs)
    wrong = sum(len(proof.unexplained) for proof in proofs)
    if as_json:
        print_json({"models": [proof.as_json() for proof in proofs], "unexplained": wrong, "never_seen": share})
    else:
        shown = table(
            "model", "direct", "indirect", "never seen", "unexplained", "trials", right=("direct", "indirect", "trials")
        )
        for proof in proofs:
            counts = proof.counts()
            unseen = counts["direct_unseen"] + counts["indirect_unseen"]
            found = len({(item.table, item.column, item.output) for item in proof.unexplained})
            shown.add_row(
                proof.name, str(counts["direct"]), str(counts["indirect"]), str(unseen or ""), str(found or ""), str(proof.trials)
            )
        out.print(shown)
        out.print(f"never seen: {share['direct']:.1%} of the direct edges, {share['indirect']:.1%} of the indirect ones")
        for proof in proofs:
            for item in sorted(proof.unexplained):
                fail(f"{proof.name}: {item}")
    if wrong:
        raise typer.Exit(4)
