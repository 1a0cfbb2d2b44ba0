"""The nightly build, the nightly proof of the lineage, and the publishing of each publication, in Thai time.

Schedules and sensors start only where ``dopa up`` (or an operator) says DOPA_AUTOMATION=1: a code location that is merely looked
at never runs anything.
"""

from __future__ import annotations

from collections.abc import Callable
from zoneinfo import ZoneInfo

import dagster as dg

from assets.catalogue import GROUP, catalogue_key
from assets.platform import AUTOMATIC
from assets.proof import lineage_proof
from assets.publications import publication_key
from dopa_pipelines.publishing import TIMEZONE, Publication
from dopa_pipelines.settings import Settings

NIGHTLY = "0 2 * * *"
PROOF = "0 5 * * *"

EVERYTHING = dg.define_asset_job(
    "everything", dg.AssetSelection.all(), description="All silos in, all models built, all extracts out"
)


def jobs_and_schedules(
    settings: Settings,
    publications: list[Publication],
) -> tuple[list[dg.UnresolvedAssetJobDefinition], list[dg.ScheduleDefinition]]:
    """A nightly job over silos and models, the schedule of the proof, and a job with its schedule for each publication."""
    status = dg.DefaultScheduleStatus.RUNNING if AUTOMATIC else dg.DefaultScheduleStatus.STOPPED
    releases: dg.AssetSelection = dg.AssetSelection.groups("releases")
    if settings.ckan_url:
        releases = releases | dg.AssetSelection.groups(GROUP)
    unpartitioned = dg.AssetSelection.all() - releases - dg.AssetSelection.tag("calendar", "month")
    nightly = dg.define_asset_job(
        "nightly", unpartitioned, description="Registers in and models built; monthly silos come by delivery"
    )
    jobs = [nightly]
    schedules = [
        dg.ScheduleDefinition(job=job, cron_schedule=cron, execution_timezone=TIMEZONE, default_status=status)
        for job, cron in ((nightly, NIGHTLY), (lineage_proof, PROOF))
    ]
    for publication in publications:
        keys = [publication_key(publication.name), *([catalogue_key(publication.name)] if settings.ckan_url else [])]
        job = dg.define_asset_job(f"publish_{publication.name}", dg.AssetSelection.assets(*keys))
        jobs.append(job)
        schedules.append(
            dg.ScheduleDefinition(
                job=job,
                cron_schedule=crons if len(crons := publication.calendar.crons) > 1 else crons[0],
                execution_timezone=TIMEZONE,
                default_status=status,
                should_execute=_due(publication),
            )
        )
    return jobs, schedules


def _due(publication: Publication) -> Callable[[dg.ScheduleEvaluationContext], bool]:
    """Whether the day is meant: cron lines know no last day of February."""
    calendar = publication.calendar

    def due(context: dg.ScheduleEvaluationContext) -> bool:
        return calendar.due(context.scheduled_execution_time.astimezone(ZoneInfo(TIMEZONE)).date())

    return due
