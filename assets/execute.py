"""``python -m assets.execute``: run the graph, or a part of it, in this process. Started by ``dopa run`` and ``dopa demo``.

Runs are recorded in the Dagster instance of DAGSTER_HOME. Exit code 0: all done; 4: something failed or was held back, the rest
is done; 2: the selection is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from datetime import date

import dagster as dg

from assets.platform import hold_connections, report
from assets.publications import APPROVED
from assets.sources import monthly_partitions, source_key
from dopa_pipelines.contracts import Contracts, load_contracts
from dopa_pipelines.definitions import defs
from dopa_pipelines.documents import did_you_mean
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest import arrivals
from dopa_pipelines.ingest.inspect import months_held
from dopa_pipelines.settings import load_settings
from dopa_pipelines.warehouse import open_warehouse

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
HELD_BACK = 4
Months = tuple[date, date]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m assets.execute")
    parser.add_argument("--select", nargs="*", default=[], help="datasets, models, publications; +name adds what it needs")
    wanted = parser.parse_args(arguments).select
    contracts = load_contracts(load_settings().contracts)
    try:
        selected = selection(wanted)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    with dg.DagsterInstance.get() as instance:
        hold_connections(instance)
        return HELD_BACK if execute(instance, contracts, selected, again=bool(wanted)) else 0


def selection(wanted: Iterable[str]) -> set[dg.AssetKey]:
    """Asset keys for names as people write them: ``person_register``, ``marts.hotels``, ``+hotels`` (with what it needs),
    ``hotels+`` (with what descends). Empty: everything. Raises UserError for an unknown name."""
    graph = defs.resolve_asset_graph()
    keys = set(graph.executable_asset_keys)
    names: dict[str, dg.AssetKey] = {}
    # A short name means the dataset, or else the release, of that name, and what is pushed of it only in full.
    rank = {"raw": 0, "releases": 1, "ckan": 3}
    for key in sorted(keys, key=lambda key: (rank.get(key.path[0], 2), key)):
        names[".".join(key.path)] = key
        names.setdefault(key.path[-1], key)
    chosen: set[dg.AssetKey] = set()
    for word in wanted:
        name = word.strip("+")
        if name not in names:
            raise UserError(f"no dataset, model or publication is called {name!r}; {did_you_mean(name, names)}")
        found: dg.AssetSelection = dg.AssetSelection.assets(names[name])
        found = found.upstream() if word.startswith("+") else found
        found = found.downstream() if word.endswith("+") else found
        chosen |= found.resolve(graph)
    return chosen or keys


def execute(instance: dg.DagsterInstance, contracts: Contracts, selected: set[dg.AssetKey], *, again: bool = False) -> bool:
    """Run ``selected``; returns whether anything failed. ``again``: monthly datasets of which nothing waits are checked again,
    with the last month that they hold.

    Monthly datasets whose waiting deliveries cover the same months go with the rest in one run. Otherwise each of them runs by
    itself first, so that no month is marked as delivered that was not; what descends from one that failed is then left out.
    """
    waiting = _waiting_months(contracts, again=again)
    monthly = {source_key(contract.dataset): contract.dataset for contract in contracts if contract.partition}
    with_rest = {key for key in selected if key not in monthly}
    tags: dict[str, str] = {}
    failed = False
    ranges = {key: _ranges(waiting.get(name, [])) for key, name in monthly.items() if key in selected}
    together = {tuple(found) for found in ranges.values() if found}
    if len(together) == 1 and len(only := next(iter(together))) == 1:
        (start, end) = only[0]
        tags = {RANGE_START: start.isoformat(), RANGE_END: end.isoformat()}
        with_rest |= {key for key, found in ranges.items() if found}
    else:
        graph = defs.resolve_asset_graph()
        for key, found in ranges.items():
            for start, end in found:
                if not _run(instance, {key}, {RANGE_START: start.isoformat(), RANGE_END: end.isoformat()}):
                    failed = True
                    with_rest -= dg.AssetSelection.assets(key).downstream().resolve(graph)
    if with_rest:
        failed |= not _run(instance, with_rest, tags)
    return failed


def _run(instance: dg.DagsterInstance, keys: set[dg.AssetKey], tags: dict[str, str]) -> bool:
    report("", "run", assets=len(keys))
    job = defs.resolve_job_def("everything")
    done = job.execute_in_process(
        instance=instance,
        asset_selection=sorted(keys),
        tags={"dopa/started_by": "dopa", **tags},
        raise_on_error=False,
    )
    begun = {event.step_key for event in done.all_events if event.event_type == dg.DagsterEventType.STEP_START}
    for key in sorted(keys):
        if "__".join(key.path) not in begun:
            report(key.path[-1] if key.path[0] in ("raw", "releases") else ".".join(key.path), "held_back")
    return done.success and not any(_held_back(event) for event in done.all_events)


def _held_back(event: dg.DagsterEvent) -> bool:
    """Whether it tells of a release that was not made."""
    if event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return False
    found = event.asset_check_evaluation_data
    return found.check_name == APPROVED and found.asset_key.path[0] == "releases" and not found.passed


def _waiting_months(contracts: Contracts, *, again: bool) -> dict[str, list[date]]:
    """Months of each monthly dataset for which a delivery waits; a delivery without a month counts for the last one.
    ``again``: where none waits, the last that is held."""
    calendar = monthly_partitions(contracts)
    if calendar is None:
        return {}
    known = [date.fromisoformat(key) for key in calendar.get_partition_keys()]
    settings = load_settings()
    found: dict[str, list[date]] = {}
    with open_warehouse(settings) as warehouse, warehouse.connect() as connection:
        for contract in contracts:
            if contract.partition:
                months = {
                    arrival.period or known[-1]
                    for arrival in arrivals(connection, contract, settings.drop_path)
                    if arrival.pending
                }
                held = months_held(connection, contract) if again and not months else set()
                found[contract.dataset] = sorted((months | set(sorted(held)[-1:])) & set(known))
    return found


def _ranges(months: list[date]) -> list[Months]:
    """Consecutive months as first and last."""
    found: list[Months] = []
    for month in months:
        if found and (month.year * 12 + month.month) - (found[-1][1].year * 12 + found[-1][1].month) == 1:
            found[-1] = (found[-1][0], month)
        else:
            found.append((month, month))
    return found


if __name__ == "__main__":
    sys.exit(main())
