"""Lineage events are told and sent on; what waits and what failed is a check in the UI.

Runs record what they do; forwarding happens here, so that neither a receiver that hangs nor one that is down ever slows a run.
Nothing is sent where nothing is configured (``openlineage.yml``, ``OPENLINEAGE_URL``).
"""

import dagster as dg

from assets.platform import AUTOMATIC
from dopa_pipelines.errors import UserError
from dopa_pipelines.settings import Settings, load_settings
from dopa_pipelines.warehouse import Warehouse, open_warehouse
from dopa_pipelines.warehouse.work import end_dead_work

INTERVAL_SECONDS = 30
EVENTS = dg.AssetKey(["lineage", "events"])
CHECK = "forwarded"


def events_asset() -> tuple[dg.AssetSpec, dg.AssetChecksDefinition]:
    """The events as an asset that no run makes, and the check of their forwarding, which also runs by hand."""
    spec = dg.AssetSpec(
        EVENTS,
        group_name="lineage",
        kinds={"openlineage"},
        description="**เหตุการณ์ OpenLineage** What every run did, as events for other systems (`lineage.event`)",
    )

    @dg.asset_check(asset=EVENTS, name=CHECK, description="Events reach the configured receiver (ส่งต่อเหตุการณ์ได้ครบ)")
    def forwarded() -> dg.AssetCheckResult:
        with open_warehouse(load_settings()) as warehouse:
            passed, words, facts = _standing(warehouse)
        return dg.AssetCheckResult(passed=passed, description=words, metadata=facts, severity=dg.AssetCheckSeverity.WARN)

    return spec, forwarded


def lineage_sensor() -> dg.SensorDefinition:
    @dg.sensor(
        name="lineage_events",
        target=None,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if AUTOMATIC else dg.DefaultSensorStatus.STOPPED,
    )
    def lineage_events(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Work that was cut off is marked so, what was recorded becomes events, and events go to the configured receiver."""
        settings = load_settings()
        with open_warehouse(settings) as warehouse:
            tell(warehouse, settings)
            send(warehouse)
            passed, words, facts = _standing(warehouse)
        evaluation = dg.AssetCheckEvaluation(
            asset_key=EVENTS,
            check_name=CHECK,
            passed=passed,
            description=words,
            metadata={name: dg.MetadataValue.int(value) for name, value in facts.items()},
            severity=dg.AssetCheckSeverity.WARN,
        )
        # An evaluation is kept for good: only one that says something new is.
        news = [] if context.cursor == words else [evaluation]
        return dg.SensorResult(skip_reason=None if news else dg.SkipReason(words), asset_events=news, cursor=words)

    return lineage_events


def tell(warehouse: Warehouse, settings: Settings) -> None:
    """Find work that was cut off, and make of all that was recorded what is not made of it yet."""
    from dopa_pipelines.publishing import lineage

    end_dead_work(warehouse)
    lineage.tell(warehouse, settings)


def send(warehouse: Warehouse) -> None:
    """Send what waits, within the budget of a pass."""
    from dopa_pipelines.lineage.outbox import forward

    try:
        with warehouse.connect(autocommit=True) as connection:
            forward(connection)
    except UserError as error:
        dg.get_dagster_logger("dopa").error(str(error))


def _standing(warehouse: Warehouse) -> tuple[bool, str, dict[str, int]]:
    """Whether all is well with forwarding, in words and numbers."""
    from dopa_pipelines.lineage.outbox import configured, standing

    wrong = None
    try:
        kind = configured()
    except UserError as error:
        kind, wrong = None, str(error)
    with warehouse.connect() as connection:
        now = standing(connection, kind)
    facts = {"waiting": now.waiting, "sent": now.sent, "refused": now.failed, "dropped": now.dropped}
    return now.healthy and wrong is None, wrong or str(now), facts
