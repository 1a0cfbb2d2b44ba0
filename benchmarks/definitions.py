"""How long the code location takes to load, over the bare import of Dagster and dagster-dbt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Row, median
from dopa_pipelines.settings import Settings

DATASETS, MODELS = 36, 120

_BARE = ["-c", "import time; t = time.perf_counter(); import dagster, dagster_dbt; print(time.perf_counter() - t)"]
_OURS = ["-m", "benchmarks.definitions_once", str(DATASETS), str(MODELS)]


def measure(settings: Settings) -> list[Row]:
    _run(_OURS)  # parses the dbt project and fills caches
    bare, ours = median(lambda: _run(_BARE)), median(lambda: _run(_OURS))
    return [
        Row(
            f"definitions of {DATASETS} datasets and {MODELS} models, over the bare import",
            f"{ours:.2f} s",
            f"import of Dagster and dagster-dbt {bare:.2f} s",
            f"{ours / bare:.2f}",
            "≤ 1 s",
            ours <= 1.0,
        )
    ]


def _run(arguments: list[str]) -> float:
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, *arguments], cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])
