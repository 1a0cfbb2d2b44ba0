"""``dopa trace``: where a dataset or a column came from, and where it went."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dopa_pipelines.cli.console import fail, out, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import psycopg

    from dopa_pipelines.lineage.columntrace import ColumnWalk
    from dopa_pipelines.lineage.trace import Direction, Trace
    from dopa_pipelines.settings import Settings
    from dopa_pipelines.warehouse import Warehouse


class Format(StrEnum):
    """In which form a trace is shown."""

    TREE = "tree"
    JSON = "json"
    DOT = "dot"
    SVG = "svg"
    HTML = "html"


def add_to(app: typer.Typer) -> None:
    app.command("trace")(trace_command)


def trace_command(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET[.COLUMN]", help="Dataset, table (marts.hotels) or publication, or a column of one")
    ],
    up: Annotated[bool, typer.Option("--up", help="Where it came from (the default)")] = False,
    down: Annotated[bool, typer.Option("--down", help="Where it went")] = False,
    depth: Annotated[int | None, typer.Option(min=1, help="Steps at most")] = None,
    as_of: Annotated[
        str | None,
        typer.Option(help="As it was then: a date (its end) or time in Bangkok, release:<publication>, or a release's version"),
    ] = None,
    indirect: Annotated[
        bool, typer.Option("--indirect", help="Follow what decides rows and values of a column, not only its values")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="How to show it; pictures go to standard output")] = Format.TREE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines (--format json)")] = False,
) -> None:
    """The path between silo file and extract, from the recorded writes: of datasets, or of a column."""
    from dopa_pipelines.lineage import asking, columntrace
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    form = Format.JSON if as_json else form
    directions: list[Direction] = []
    if up or not down:
        directions.append("up")
    if down:
        directions.append("down")
    settings = load_settings()
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.READER) as connection:
        _catch_up(warehouse, settings, connection)
        at = columntrace.moment(connection, as_of) if as_of else None
        if form is Format.JSON:
            print_json(asking.as_json(connection, dataset, directions, depth, at, indirect=indirect))
            return
        if form is Format.TREE and not asking.names_column(connection, dataset, directions):
            _show_datasets(asking.dataset_walks(connection, dataset, directions, depth, at), at)
            return
        walks = asking.column_walks(connection, dataset, directions, depth, at, indirect=indirect)
    _show(walks, form)


def _catch_up(warehouse: Warehouse, settings: Settings, connection: psycopg.Connection[Any]) -> None:
    """What was written without us (dbt by hand) is brought into the column graph first."""
    import psycopg

    from dopa_pipelines.lineage.columngraph import pending, record_columns
    from dopa_pipelines.warehouse import Role

    if pending(connection):
        from dopa_pipelines.publishing import columns_of, load_publications

        publications = load_publications(settings.contracts / "open_data").publications
        try:
            with warehouse.connect(Role.LOADER) as writer:
                record_columns(writer, published=columns_of(publications))
                writer.commit()
        except psycopg.Error as error:
            # A warehouse that can only be read can be asked all the same.
            fail(f"the latest writes are not in this trace, they could not be recorded as columns: {error}")


def _show_datasets(traces: Mapping[Direction, Trace], at: datetime | None) -> None:
    from dopa_pipelines.lineage import trace as tracing

    if at is not None:
        out.print(f"as of {at.astimezone(tracing.BANGKOK):%Y-%m-%d %H:%M}")
    for found in traces.values():
        out.print(tracing.as_tree(found))


def _show(walks: Mapping[Direction, ColumnWalk], form: Format) -> None:
    from dopa_pipelines.lineage import columntrace, drawing

    if form is Format.TREE:
        for walk in walks.values():
            out.print(columntrace.as_tree(walk), soft_wrap=True)
        return
    picture = drawing.picture(list(walks.values()))
    if form is Format.SVG:
        drawn = drawing.as_svg(picture)
    else:
        drawn = drawing.as_html(picture) if form is Format.HTML else drawing.as_dot(picture)
    sys.stdout.write(drawn)
