"""Run every measure, print the table and write ``docs/benchmarks.md``."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    definitions,
    disclosure,
    ingest,
    lineage,
    lineage_graph,
    orchestration,
    quality,
    quality_profiles,
    quality_unusual,
    recording,
    releases,
)
from benchmarks.measure import Row
from dopa_pipelines.settings import Settings

TARGET = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def main() -> None:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dopa-bench-") as folder:
        settings = Settings(state=Path(folder) / "state")
        os.environ["DOPA_STATE"] = str(settings.state)
        rows += definitions.measure()
        rows += orchestration.measure(settings)
        rows += lineage.measure(settings)
        rows += lineage_graph.measure(settings)
        rows += recording.measure(Settings(state=Path(folder) / "recording" / "state"))
        rows += releases.measure(settings)
        rows += disclosure.measure()
        rows += quality_unusual.measure()
        rows += quality_profiles.measure(Settings(state=Path(folder) / "profiles" / "state"))
        rows += ingest.measure(Settings(state=Path(folder) / "registers" / "state"))
        rows += quality.measure(Settings(state=Path(folder) / "quality" / "state"))
    shown = Table("what", "ours", "peer", "ratio", "target", "met")
    for row in rows:
        shown.add_row(*row.cells())
    Console(width=150).print(shown)
    TARGET.write_text(_markdown(rows), "utf-8")


def put_rows(rows: list[Row]) -> None:
    """Put rows that were measured apart into the page: in the place of those of the same name, or at its end."""
    lines = TARGET.read_text("utf-8").splitlines()
    for row in rows:
        line = f"| {' | '.join(row.cells())} |"
        places = [place for place, there in enumerate(lines) if there.startswith(f"| {row.what} |")]
        if places:
            lines[places[0]] = line
        else:
            lines.append(line)
    TARGET.write_text("\n".join(lines) + "\n", "utf-8")


def _markdown(rows: list[Row]) -> str:
    head = (
        "# Benchmarks\n\nWritten by `make bench`, all in one run on one machine"
        f" ({os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()})."
        " Ratios travel between machines, seconds do not.\n\n"
        "| what | ours | peer | ratio | target | met |\n|---|---|---|---|---|---|\n"
    )
    return head + "".join(f"| {' | '.join(row.cells())} |\n" for row in rows)


if __name__ == "__main__":
    main()
