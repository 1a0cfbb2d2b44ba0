"""What Dagster costs for an asset and for a check, with PostgreSQL storage, beside the same run as Dagster comes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.platform import hold_connections
from benchmarks.measure import Row, median
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import open_warehouse
from dopa_pipelines.warehouse.dagster_storage import prepare_home

ASSETS, CHECKS = 30, 4


def measure(settings: Settings) -> list[Row]:
    logging.disable(logging.INFO)
    with open_warehouse(settings) as warehouse:
        os.environ.update(prepare_home(settings, warehouse))
        figures = {}
        for held in (False, True):
            with dg.DagsterInstance.get() as instance:
                if held:
                    hold_connections(instance)
                none = median(lambda: _run(instance, 0), 3)
                some = median(lambda: _run(instance, CHECKS), 3)
            figures[held] = (none / ASSETS, (some - none) / (ASSETS * CHECKS))
    logging.disable(logging.NOTSET)
    (peer_asset, peer_check), (asset, check) = figures[False], figures[True]
    return [
        Row(
            "orchestration, an asset", f"{asset:.3f} s", f"Dagster's defaults in process {peer_asset:.3f} s",
            f"{asset / peer_asset:.2f}", "≤ 0.1 s", asset <= 0.1,
        ),
        Row(
            "orchestration, a check", f"{check:.3f} s", f"Dagster's defaults in process {peer_check:.3f} s",
            f"{check / peer_check:.2f}", "≤ 0.04 s", check <= 0.04,
        ),
    ]  # fmt: skip


def _run(instance: dg.DagsterInstance, checks: int) -> float:
    job = dg.Definitions(
        assets=[_asset(number, checks) for number in range(ASSETS)],
        jobs=[dg.define_asset_job("bench")],
        executor=dg.in_process_executor,
    ).resolve_job_def("bench")
    started = time.perf_counter()
    assert job.execute_in_process(instance=instance).success
    return time.perf_counter() - started


def _asset(number: int, checks: int) -> dg.AssetsDefinition:
    key = dg.AssetKey(["bench", f"a{number}"])
    names = [f"check_{place}" for place in range(checks)]

    @dg.multi_asset(
        name=f"a{number}", specs=[dg.AssetSpec(key)], check_specs=[dg.AssetCheckSpec(name, asset=key) for name in names]
    )
    def made() -> Iterator[Any]:
        results = [dg.AssetCheckResult(asset_key=key, check_name=name, passed=True) for name in names]
        yield dg.MaterializeResult(key, check_results=results)

    return made
