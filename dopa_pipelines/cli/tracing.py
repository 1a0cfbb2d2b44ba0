"""``dopa trace``: where a dataset came from, and where it went."""

from __future__ import annotations

from typing import Annotated

import typer

from dopa_pipelines.cli.console import out, print_json


def add_to(app: typer.Typer) -> None:
    app.command("trace")(trace_command)


def trace_command(
    dataset: Annotated[str, typer.Argument(help="Dataset, table (marts.hotels) or publication")],
    up: Annotated[bool, typer.Option("--up", help="Where it came from (the default)")] = False,
    down: Annotated[bool, typer.Option("--down", help="Where it went")] = False,
    depth: Annotated[int | None, typer.Option(min=1, help="Steps at most")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """The path between silo file and extract, from the recorded writes."""
    from dopa_pipelines.lineage import trace as tracing
    from dopa_pipelines.lineage.store import graph
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    with open_warehouse(load_settings()) as warehouse, warehouse.connect(Role.READER) as connection:
        known = graph(connection)
    wanted = ["up"] * (up or not down) + ["down"] * down
    traces = {direction: tracing.trace(known, dataset, direction, depth) for direction in wanted}  # type: ignore[arg-type]
    if as_json:
        shown = {direction: tracing.as_json(found) for direction, found in traces.items()}
        print_json(next(iter(shown.values())) if len(shown) == 1 else shown)
        return
    for found in traces.values():
        out.print(tracing.as_tree(found))
