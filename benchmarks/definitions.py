"""How long the code location takes to load, over the bare import of Dagster and dagster-dbt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Row, median

DATASETS, MODELS = 36, 120

_BARE = "import time; t = time.perf_counter(); import dagster, dagster_dbt; print(time.perf_counter() - t)"
# The project's contracts and models, repeated under other names until there are as many as the target speaks of.
_OURS = f"""
import time
import dagster, dagster_dbt
t = time.perf_counter()
import itertools
from dataclasses import replace
import dagster as dg
from assets.platform import platform_resource
from assets.sources import source_assets
from assets.warehouse import model_asset
from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.contracts.read import Contracts, read_contract
from dopa_pipelines.settings import load_settings
from dopa_pipelines.transform import Project
settings = load_settings()
contracts, models = load_contracts(settings.contracts), Project(settings).models
paths = itertools.islice(itertools.cycle([contract.path for contract in contracts]), {DATASETS} - len(contracts))
more = [replace(read_contract(path), dataset=f"copy_{{n}}") for n, path in enumerate(paths)]
every = Contracts(contracts.by_dataset | {{contract.dataset: contract for contract in more}})
copies = itertools.islice(itertools.cycle(models), {MODELS} - len(models))
all_models = models + [replace(model, name=f"{{model.name}}_{{n}}", inputs=()) for n, model in enumerate(copies)]
defs = dg.Definitions(
    assets=[*source_assets(every, settings.portal_address), *(model_asset(model, PORTAL) for model in all_models)],
    resources={{"platform": platform_resource}}, executor=dg.in_process_executor,
)
assert len(list(defs.resolve_asset_graph().get_all_asset_keys())) == {DATASETS + MODELS}
print(time.perf_counter() - t)
"""


def measure() -> list[Row]:
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


def _run(code: str) -> float:
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])
