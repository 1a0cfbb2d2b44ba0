"""Definitions of as many datasets and models as asked, made in a process of its own: prints seconds over the imports of Dagster.

The project's contracts and models are repeated under other names until there are so many.
"""

from __future__ import annotations

import sys
import time

# Imported before the clock starts: its own import is what the measure is over.
import dagster as dg
import dagster_dbt  # noqa: F401


def main(datasets: int, number: int) -> None:
    started = time.perf_counter()
    import itertools
    from dataclasses import replace

    from assets.platform import platform_resource
    from assets.sources import source_assets
    from assets.warehouse import model_asset
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.contracts.read import Contracts, read_contract
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.transform import Project

    settings = load_settings()
    contracts, models = load_contracts(settings.contracts), Project(settings).models
    paths = itertools.islice(itertools.cycle([contract.path for contract in contracts]), datasets - len(contracts))
    more = [replace(read_contract(path), dataset=f"copy_{n}") for n, path in enumerate(paths)]
    every = Contracts({**contracts.by_dataset, **{contract.dataset: contract for contract in more}})
    copies = itertools.islice(itertools.cycle(models), number - len(models))
    all_models = [*models, *(replace(model, name=f"{model.name}_{n}", inputs=()) for n, model in enumerate(copies))]
    definitions = dg.Definitions(
        assets=[
            *source_assets(every, settings.portal_address),
            *(model_asset(model, settings.portal_address) for model in all_models),
        ],
        resources={"platform": platform_resource},
        executor=dg.in_process_executor,
    )
    found = len(list(definitions.resolve_asset_graph().get_all_asset_keys()))
    seconds = time.perf_counter() - started
    if found != datasets + number:
        raise RuntimeError(f"{found} assets came of {datasets} datasets and {number} models")
    print(seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
