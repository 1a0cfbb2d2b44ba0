"""``dopa lineage``: which columns a statement's output depends on, and the proof of it; events of others in, ours out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dopa_pipelines.cli.console import err, fail, out, print_json, table

if TYPE_CHECKING:
    from dopa_pipelines.lineage.columns import Edge
    from dopa_pipelines.lineage.prove import Proof

group = typer.Typer(
    help="Which columns depend on which, the proof of it, and OpenLineage in and out.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


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
    for part in (lineage, *lineage.also):
        if part is not lineage:
            out.print(f"Besides, {f'of the table {part.target}' if part.target else 'what RETURNING gives'}:")
        shown = table("output", "depends on", "how")
        for title, edges in [*part.columns, ("(which rows)", part.dataset)]:
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


@group.command("import")
def import_command(
    source: Annotated[str, typer.Argument(help="File or http(s) URL with OpenLineage events: JSON, an array, or one a line")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Take events of other systems into the one graph; what is there already changes nothing. Exit code 2: an event is wrong."""
    from dopa_pipelines.lineage.importing import import_events, read_events
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    events = read_events(source)
    with open_warehouse(load_settings()) as warehouse, warehouse.connect() as connection:
        done = import_events(connection, events, source)
        connection.commit()
    if as_json:
        print_json(done.as_dict())
        return
    out.print(f"{done.source}: {done.new:,} of {done.events:,} events are new", markup=False)
    out.print(f"  {done.datasets:,} datasets, {done.edges:,} edges, {done.column_edges:,} between columns")
    for producer in done.producers:
        out.print(f"  from {producer}", markup=False)


@group.command("forward")
def forward_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Send lineage events to the receiver that OpenLineage's configuration names. Exit code 4: it did not take some of them."""
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.lineage.outbox import configured, forward, standing
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse
    from dopa_pipelines.warehouse.work import end_dead_work

    kind = configured()
    if kind is None:
        raise UserError(
            "no receiver of lineage events is configured; set OPENLINEAGE_URL, or OPENLINEAGE_CONFIG to an openlineage.yml"
        )
    settings = load_settings()
    with open_warehouse(settings) as warehouse:
        end_dead_work(warehouse)
        tell(warehouse, settings)
        with warehouse.connect(autocommit=True) as connection:
            done = forward(connection, at_once=True, budget_seconds=float("inf"))
            now = standing(connection, kind)
    if as_json:
        print_json({"pass": done.__dict__, "outbox": now.as_dict()})
    elif done.busy:
        out.print("another process is forwarding just now")
    else:
        out.print(f"{done.sent:,} events sent, {done.left:,} left, {done.failed:,} refused, {done.dropped:,} dropped")
    if done.problem and not as_json:
        fail(done.problem)
    if done.failed or done.dropped or (done.left and not done.busy):
        raise typer.Exit(4)
