"""What profiling a delivery costs beside loading it: the same register with and without, by turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Row
from benchmarks.registry import registry_contract, write_registry
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import open_warehouse

RUNS = {20_000: 15, 200_000: 9, 2_000_000: 5}
MAIN = 2_000_000


def measure(settings: Settings) -> list[Row]:
    """Rows of the table. ``settings``: a state folder that may be filled with a gigabyte."""
    folder = settings.state.parent / "register"
    folder.mkdir(parents=True)
    contracts = {"personal": registry_contract(folder, dataset="bench_personal").path, "not personal": _public(folder)}
    rows = []
    # The server runs through, so that no child waits for its start.
    with open_warehouse(settings):
        for size, runs in RUNS.items():
            path = folder / f"register_{size}.txt"
            write_registry(path, size)
            for kind, contract in contracts.items():
                if kind == "personal" or size == MAIN:
                    rows.append(_row(settings, contract, path, f"{size:,} rows, columns {kind}", runs))
            path.unlink()
    return rows


def _row(settings: Settings, contract: Path, path: Path, what: str, runs: int) -> Row:
    without: list[dict[str, float]] = []
    profiled: list[dict[str, float]] = []
    _once(settings, contract, path)
    for _ in range(runs):
        # By turns, so that a slow minute of the machine is everybody's.
        without.append(_once(settings, contract, path))
        profiled.append(_once(settings, contract, path, "profiled"))
    mine, theirs = (statistics.median(run["seconds"] for run in some) for some in (profiled, without))
    more = statistics.median(run["cpu"] for run in profiled) - statistics.median(run["cpu"] for run in without)
    ratio = mine / theirs
    return Row(
        f"a delivery with its profile: {what}",
        f"{mine:.2f} s ({more:.2f} s more of CPU)",
        f"without a profile {theirs:.2f} s",
        f"{ratio:.2f}",
        "≤ 1.15",
        ratio <= 1.15,
    )


def _once(settings: Settings, contract: Path, path: Path, profiled: str = "") -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.once", str(settings.state), str(contract), str(path), "fresh", profiled],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks.once failed:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert said["status"] == "loaded", said
    return {"seconds": float(said["seconds"]), "cpu": float(said["cpu"])}


def _public(folder: Path) -> Path:
    """The register's contract with no column personal, so that ranges and values are kept of all."""
    made = registry_contract(folder, dataset="bench_public").path
    made.write_text(made.read_text("utf-8").replace("classification: personal", "classification: internal"), "utf-8")
    return made
