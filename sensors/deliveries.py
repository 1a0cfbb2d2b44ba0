"""A file that arrives in the drop zone becomes a run of just its dataset, one run a delivery."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from assets.platform import AUTOMATIC
from assets.sources import monthly_partitions, source_key
from dopa_pipelines.contracts import Contract, Contracts
from dopa_pipelines.settings import load_settings
from dopa_pipelines.warehouse import open_warehouse

INTERVAL_SECONDS = 30


def delivery_sensor(contracts: Contracts) -> dg.SensorDefinition:
    """Looks at every dataset's folder; its cursor is what each file looked like when its run was asked for."""
    calendar = monthly_partitions(contracts)
    watched = [contract for contract in contracts if contract.layout.path]

    @dg.sensor(
        name="deliveries",
        target=dg.AssetSelection.assets(*(source_key(contract.dataset) for contract in watched)),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if AUTOMATIC else dg.DefaultSensorStatus.STOPPED,
    )
    def deliveries(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Files in the drop zone that are new or changed since they were last seen."""
        seen: dict[str, list[float]] = json.loads(context.cursor or "{}")
        now: dict[str, list[float]] = {}
        changed: dict[str, list[tuple[Path, list[float]]]] = {}
        from dopa_pipelines.ingest.arrivals import arrivals, settled
        from dopa_pipelines.ingest.arrivals import deliveries as lying

        settings = load_settings()
        zone = settings.drop_path
        for contract in watched:
            for path in lying(contract, zone):
                look = settled(path)
                name = path.relative_to(zone).as_posix()
                if look is None:
                    if name in seen:
                        now[name] = seen[name]
                    continue
                now[name] = look
                if seen.get(name) != look:
                    changed.setdefault(contract.dataset, []).append((path, look))
        requests = []
        if changed:
            with open_warehouse(settings) as warehouse, warehouse.connect() as connection:
                for dataset, files in changed.items():
                    contract = contracts.by_dataset[dataset]
                    pending = {item.path for item in arrivals(connection, contract, zone, wait=False) if item.pending}
                    for path, look in files:
                        if path in pending:
                            requests += list(_requests(contract, calendar, path, look))
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(now))

    return deliveries


def _requests(
    contract: Contract, calendar: dg.MonthlyPartitionsDefinition | None, path: Path, look: list[float]
) -> Iterator[dg.RunRequest]:
    from dopa_pipelines.sources.containers import readable_name

    partition = None
    if contract.partition and calendar is not None:
        period = contract.period_of(path.name)
        keys = calendar.get_partition_keys()
        # A name without a month says nothing of its partition: the load decides by the content.
        partition = period.isoformat() if period else keys[-1] if keys else None
        if partition not in keys:
            return
    yield dg.RunRequest(
        run_key=f"{contract.dataset}/{readable_name(path)}/{look[0]}/{look[1]}",
        asset_selection=[source_key(contract.dataset)],
        partition_key=partition,
        tags={"dopa/delivery": readable_name(path)[:60]},
    )
