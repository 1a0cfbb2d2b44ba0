"""``dopa impact`` and ``dopa diff``, for pull requests: what a change would touch, and what changes did to lineage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dopa_pipelines.cli.console import print_json
from dopa_pipelines.errors import UserError

if TYPE_CHECKING:
    from dopa_pipelines.lineage.declared import Declared, Dependence, Difference, Impact

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines")]
_PARTS = ("assets", "dbt_project")
"""What of a revision decides its lineage."""


def add_to(app: typer.Typer) -> None:
    app.command("impact")(impact_command)
    app.command("diff")(diff_command)


def impact_command(
    model: Annotated[str, typer.Argument(help="A model, raw table or publication, or one of its columns: marts.hotels.rooms")],
    as_json: Json = False,
) -> None:
    """What a change to a model or column of the working copy would touch, in Markdown. Takes seconds: dbt compiles it all."""
    from dopa_pipelines.lineage.declared import impact

    graph = working_copy()
    dataset, column = model, None
    if "." in model and not any(model in (name, name.rpartition(".")[2]) for name in graph.columns):
        dataset, _, column = model.rpartition(".")
    found = impact(graph, dataset, column)
    if as_json:
        print_json(found.as_json())
    else:
        sys.stdout.write(_impact_markdown(found, graph))


def diff_command(
    revision: Annotated[str, typer.Argument(help="A commit, branch or tag of git to compare the working copy with")],
    as_json: Json = False,
) -> None:
    """What the changes since a revision do to column lineage, in Markdown. Takes seconds: dbt compiles both."""
    from dopa_pipelines.lineage.declared import Difference

    found = Difference(_of_revision(revision), working_copy())
    if as_json:
        print_json(found.as_json())
    else:
        sys.stdout.write(_difference_markdown(found, revision))


def working_copy() -> Declared:
    """What contracts, models and publications declare as they stand."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.lineage.declared import declared
    from dopa_pipelines.publishing import load_publications
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.transform import Project

    settings = load_settings()
    made = declared(Project(settings), load_contracts(settings.contracts))
    for publication in load_publications(settings.contracts / "open_data").publications:
        made.add_release(publication.name, publication.source, [(column.name, column.source) for column in publication.columns])
    return made


def _of_revision(revision: str) -> Declared:
    """What a revision declares, by this version of the engine: its files are laid out in a folder of their own."""
    from dopa_pipelines.lineage.declared import Declared
    from dopa_pipelines.settings import project_root

    root = project_root()
    packed = subprocess.run(
        ["git", "-C", str(root), "archive", "--format=tar", revision, *_PARTS], capture_output=True, check=False
    )
    if packed.returncode:
        reason = packed.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["git says nothing"]
        raise UserError(f"{revision}: git cannot give {' and '.join(_PARTS)} of it ({reason[0]}); name a commit, branch or tag")
    with tempfile.TemporaryDirectory(prefix="dopa-revision-") as folder:
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as tar:
            tar.extractall(folder, filter="data")
        environment = {name: value for name, value in os.environ.items() if name != "DOPA_CONTRACTS"}
        # In a process of its own: dbt keeps a project once it has read it.
        done = subprocess.run(
            [sys.executable, "-c", "from dopa_pipelines.cli.changes import print_declared; print_declared()"],
            cwd=folder, env=environment | {"DOPA_STATE": str(Path(folder) / ".dopa")}, capture_output=True, check=False,
        )  # fmt: skip
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it says nothing"]
        raise UserError(f"{revision}: its lineage cannot be told: {reason[0]}")
    return Declared.from_json(json.loads(done.stdout.splitlines()[-1]))


def print_declared() -> None:
    """The working folder's :class:`Declared` as one line of JSON."""
    try:
        print(json.dumps(working_copy().as_json()))
    except UserError as error:
        sys.exit(str(error))


def _impact_markdown(found: Impact, graph: Declared) -> str:
    from dopa_pipelines.lineage.declared import ROWS

    subject = f"`{found.dataset}`" if len(found.columns) != 1 else f"`{found.dataset}.{found.columns[0]}`"
    lines = [f"## What a change to {subject} touches", ""]
    grouped = found.by_dataset()
    releases = [name for name in grouped if name.startswith("release:")]
    if not grouped:
        lines += ["Nothing descends from it.", ""]
    else:
        values = sum(item.direct for item in found.reached)
        lines += [
            f"{_count(len(grouped) - len(releases), 'table')} and {_count(len(releases), 'publication')};"
            f" values arrive in {_count(values, 'column')}.",
            "",
            "| dataset | values arrive in | decides rows, or which value, of |",
            "|---|---|---|",
        ]
        for name, items in grouped.items():
            direct = [f"`{item.column}`" for item in items if item.direct]
            other = ["its rows" if item.column == ROWS else f"`{item.column}`" for item in items if not item.direct]
            title = f"**`{name}`** (published)" if name in releases else f"`{name}`"
            lines.append(f"| {title} | {', '.join(direct)} | {', '.join(other)} |")
        lines.append("")
    personal = [name for name in found.columns if (found.dataset, name) in graph.personal]
    if personal:
        lines += [f"Personal: {', '.join(f'`{name}`' for name in personal)}.", ""]
    return "\n".join(lines + _problem_lines(dict(found.problems)))


def _difference_markdown(found: Difference, revision: str) -> str:
    lines = [f"## Lineage since `{revision}`", ""]
    if found.empty:
        return "\n".join([*lines, "No change.", ""])
    for title, names in (("Datasets added", found.datasets_added), ("Datasets removed", found.datasets_removed)):
        if names:
            lines += [f"{title}: {', '.join(f'`{name}`' for name in names)}.", ""]
    columns = found.columns()
    if columns:
        lines += ["| dataset | columns added | columns removed |", "|---|---|---|"]
        for name, (added, removed) in columns.items():
            sides = (", ".join(f"`{column}`" for column in side) for side in (added, removed))
            lines.append(f"| `{name}` | {' | '.join(sides)} |")
        lines.append("")
    if found.added or found.removed:
        lines += ["| | column | depends on | how |", "|---|---|---|---|"]
        lines += [_edge_line("＋", edge) for edge in found.added] + [_edge_line("－", edge) for edge in found.removed]
        lines.append("")
    return "\n".join(lines + _problem_lines(found.problems))


def _edge_line(mark: str, edge: Dependence) -> str:
    from dopa_pipelines.lineage.declared import ROWS

    target = f"`{edge.target}` (its rows)" if edge.target_column == ROWS else f"`{edge.target}.{edge.target_column}`"
    source = f"`{edge.source}.{edge.source_column}`"
    return f"| {mark} | {target} | {source} | {edge.how}{', masked' if edge.masking else ''} |"


def _problem_lines(problems: dict[str, str]) -> list[str]:
    if not problems:
        return []
    return ["Not resolved, so not told:", "", *(f"- `{name}`: {why}" for name, why in problems.items()), ""]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
