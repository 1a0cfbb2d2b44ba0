"""``dopa trace``: where a dataset or a column came from, and where it went."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dopa_pipelines.cli.console import fail, out, print_json

if TYPE_CHECKING:
    from datetime import datetime

    import psycopg

    from dopa_pipelines.lineage.columntrace import ColumnWalk
    from dopa_pipelines.lineage.trace import Direction
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
    from dopa_pipelines.lineage import columntrace
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
        places = {direction: columntrace.find_place(connection, dataset, direction) for direction in directions}
        known = {direction: place for direction, place in places.items() if place is not None}
        if form in (Format.TREE, Format.JSON) and not any(place.column for place in known.values()):
            _trace_datasets(connection, dataset, directions, depth, at, form)
            return
        if len(known) < len(directions):
            _explain(connection, dataset, directions, at)
        walks = {
            direction: columntrace.walk(connection, place, direction, depth, at, indirect=indirect)
            for direction, place in known.items()
        }
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


def _trace_datasets(
    connection: psycopg.Connection[Any],
    dataset: str,
    directions: list[Direction],
    depth: int | None,
    at: datetime | None,
    form: Format,
) -> None:
    from dopa_pipelines.lineage import columntrace
    from dopa_pipelines.lineage import trace as tracing
    from dopa_pipelines.lineage.store import graph

    known = graph(connection, at=at)
    traces = {direction: tracing.trace(known, dataset, direction, depth) for direction in directions}
    if form is Format.TREE:
        if at is not None:
            out.print(f"as of {at.astimezone(tracing.BANGKOK):%Y-%m-%d %H:%M}")
        for found in traces.values():
            out.print(tracing.as_tree(found))
        return
    shown = {}
    for direction, found in traces.items():
        names = [node.dataset for node in found.nodes]
        made = columntrace.definitions(connection, names, at)
        shown[direction] = tracing.as_json(found) | {
            "as_of": at.isoformat() if at else None,
            "definitions": [
                columntrace.definition_json(made[node.dataset], node.label) for node in found.nodes if node.dataset in made
            ],
        }
    print_json(next(iter(shown.values())) if len(shown) == 1 else shown)


def _explain(connection: psycopg.Connection[Any], dataset: str, directions: list[Direction], at: datetime | None) -> None:
    """Complain of a name in the words of the trace of datasets."""
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.lineage import trace as tracing
    from dopa_pipelines.lineage.store import graph

    known = graph(connection, at=at)
    for direction in directions:
        node = tracing.find(known, dataset, direction)
        raise UserError(f"The columns of {node.label} are not known; `dopa trace {dataset}` shows what was written")


def _show(walks: dict[Direction, ColumnWalk], form: Format) -> None:
    from dopa_pipelines.lineage import columntrace

    if form is Format.TREE:
        for walk in walks.values():
            out.print(columntrace.as_tree(walk), soft_wrap=True)
    elif form is Format.JSON:
        shown = {direction: columntrace.as_json(walk) for direction, walk in walks.items()}
        print_json(next(iter(shown.values())) if len(shown) == 1 else shown)
    else:
        from dopa_pipelines.lineage import drawing

        picture = drawing.picture(list(walks.values()))
        draw = {Format.DOT: drawing.as_dot, Format.SVG: drawing.as_svg, Format.HTML: drawing.as_html}[form]
        sys.stdout.write(draw(picture))
