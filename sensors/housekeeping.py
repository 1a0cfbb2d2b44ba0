"""What Dagster does not do by itself: finding runs whose process died, and keeping its event log bounded."""

from datetime import UTC, datetime

import dagster as dg

from assets.platform import AUTOMATIC
from dopa_pipelines.settings import load_settings
from dopa_pipelines.warehouse import Warehouse, open_warehouse
from dopa_pipelines.warehouse.dagster_storage import dead_runs, purge_events

INTERVAL_SECONDS = 60


def fail_dead_runs(instance: dg.DagsterInstance, warehouse: Warehouse) -> list[str]:
    """Mark runs failed whose process is gone; returns their ids."""
    failed = []
    for dead in dead_runs(warehouse):
        run = instance.get_run_by_id(dead.run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, "The process of this run is gone; start it again: nothing of it was half done.")
            failed.append(dead.run_id)
    return failed


def housekeeping_sensor() -> dg.SensorDefinition:
    @dg.sensor(
        name="housekeeping",
        target=None,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if AUTOMATIC else dg.DefaultSensorStatus.STOPPED,
    )
    def housekeeping(context: dg.SensorEvaluationContext) -> dg.SkipReason | dg.SensorResult:
        """Runs whose process is gone are marked failed; once a day old log lines are deleted."""
        today = datetime.now(UTC).date().isoformat()
        with open_warehouse(load_settings()) as warehouse:
            failed = fail_dead_runs(context.instance, warehouse)
            purged = purge_events(warehouse) if context.cursor != today else 0
        words = f"{len(failed)} dead runs marked failed, {purged:,} old log lines deleted"
        return dg.SensorResult(skip_reason=dg.SkipReason(words), cursor=today)

    return housekeeping


def main() -> None:
    """``python -m sensors.housekeeping``: what ``dopa status`` starts when it sees a dead run."""
    with dg.DagsterInstance.get() as instance, open_warehouse(load_settings()) as warehouse:
        for run_id in fail_dead_runs(instance, warehouse):
            print(run_id)


if __name__ == "__main__":
    main()
