"""Measure against peers, print the rows and put them into ``docs/benchmarks.md``, a section a measure.

``python -m benchmarks`` measures everything, each in a process and a state folder of its own; ``python -m benchmarks NAME …``
only those, and leaves the other sections as they are. A measure that fails leaves its section as it was, the others go on, and
the exit code is 1.
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row
from dopa_pipelines.settings import Settings

TARGET = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
NAMES = (
    "definitions",
    "orchestration",
    "ingest",
    "lineage",
    "lineage_graph",
    "recording",
    "quality",
    "quality_profiles",
    "quality_unusual",
    "releases",
    "disclosure",
)
"""Modules of this package whose ``measure``, given a state folder of its own, gives rows; in the order of the page."""


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in NAMES]:
        print(f"No measure is called {', '.join(unknown)}; there are {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    if len(names) == 1:
        one(names[0])
        return 0
    failed = [name for name in names or NAMES if subprocess.run([sys.executable, "-m", "benchmarks", name]).returncode]
    if failed:
        print(f"Not measured, what failed is said above: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def one(name: str) -> None:
    """Measure, print and put the rows into the page."""
    module = importlib.import_module(f"benchmarks.{name}")
    with tempfile.TemporaryDirectory(prefix="dopa-bench-") as folder:
        # A folder deeper, for what measures lay beside their state.
        settings = Settings(state=Path(folder) / name / "state")
        os.environ["DOPA_STATE"] = str(settings.state)
        rows: list[Row] = module.measure(settings)
    shown = Table("what", "ours", "peer", "ratio", "target", "met", title=name)
    for row in rows:
        shown.add_row(*row.cells())
    Console(width=150).print(shown)
    sections = read()
    sections[name] = section((module.__doc__ or "").splitlines()[0], rows)
    TARGET.write_text(page(sections), "utf-8")


def read() -> dict[str, str]:
    """The sections of the page by name."""
    text = TARGET.read_text("utf-8") if TARGET.exists() else ""
    parts = (part.partition("\n") for part in f"\n{text}".split("\n## ")[1:])
    return {name: body.strip() for name, _, body in parts}


def section(about: str, rows: list[Row]) -> str:
    """What was measured, and where, with its table."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    head = f"{about}\n\n{machine}.\n\n| what | ours | peer | ratio | target | met |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(f"| {' | '.join(row.cells())} |" for row in rows)


def page(sections: dict[str, str]) -> str:
    """The whole page."""
    head = (
        "# Benchmarks\n\nWritten by `make bench`, each section in one run; `make bench ARGS=disclosure` measures one anew."
        " Ratios travel between machines, seconds do not.\n"
    )
    return head + "".join(f"\n## {name}\n\n{sections[name]}\n" for name in NAMES if name in sections)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
