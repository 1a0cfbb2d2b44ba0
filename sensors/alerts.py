"""Stewards are told of failing checks and failed runs. A failed check that does not block fails no run, so nothing else tells.

What is told and how it arrives is :mod:`dopa_pipelines.quality.alerts`; nothing is sent where nothing is configured.
"""

import dagster as dg

from assets.platform import AUTOMATIC
from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.errors import UserError
from dopa_pipelines.portal import addresses
from dopa_pipelines.settings import Settings, load_settings
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse

INTERVAL_SECONDS = 60
_STATUS = dg.DefaultSensorStatus.RUNNING if AUTOMATIC else dg.DefaultSensorStatus.STOPPED


def alert_sensors() -> list[dg.SensorDefinition]:
    @dg.sensor(name="alerts", target=None, minimum_interval_seconds=INTERVAL_SECONDS, default_status=_STATUS)
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Incidents that opened or changed go to their owners (แจ้งเตือนผู้รับผิดชอบ)."""
        settings = load_settings()
        with open_warehouse(settings) as warehouse:
            return dg.SkipReason(tell(warehouse, settings))

    @dg.run_failure_sensor(name="failed_runs", minimum_interval_seconds=INTERVAL_SECONDS, default_status=_STATUS)
    def failed_runs(context: dg.RunFailureSensorContext) -> None:
        """A run that failed is told to the technical stewards (แจ้งเตือนงานล้มเหลว)."""
        from dopa_pipelines.quality.alerts import run_failed

        settings = load_settings()
        stewards = sorted(
            {
                member.name
                for item in load_contracts(settings.contracts)
                for member in item.team
                if member.role == "technical_steward"
            }
        )
        # The message of an exception may hold a value; the step that failed does not.
        steps = sorted({event.step_key for event in context.get_step_failure_events() if event.step_key})
        link = f"{settings.ui_address}/runs/{context.dagster_run.run_id}"
        with open_warehouse(settings) as warehouse, warehouse.connect(Role.LOADER) as connection:
            run_failed(connection, context.dagster_run.run_id, stewards, ", ".join(steps) or "before its first step", link)
            connection.commit()

    return [alerts, failed_runs]


def tell(warehouse: Warehouse, settings: Settings) -> str:
    """Collect and send; what became of it, in a sentence."""
    from dopa_pipelines.quality.alerts import collect, send, standing, transports

    try:
        ways = transports(settings)
    except UserError as error:
        return str(error)
    if not ways:
        return "nothing is configured to send alerts by (DOPA_SMTP_URL, DOPA_ALERT_WEBHOOK)"
    with warehouse.connect(Role.LOADER) as connection:
        known = load_contracts(settings.contracts).by_dataset
        noted = collect(connection, known, lambda number: addresses.incident(settings.portal_address, number))
        connection.commit()
        sent = send(connection, ways)
        stands = standing(connection, ways)
    return f"{noted} new alerts, {sent} sent; {'; '.join(map(str, stands))}"
