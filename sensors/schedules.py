"""The nightly build, the nightly proof of the lineage, and the publishing of each publication, in Thai time.

Schedules and sensors start only where ``dopa up`` (or an operator) says DOPA_AUTOMATION=1: a code location that is merely looked
at never runs anything.
"""

from __future__ import annotations

import dagster as dg

from assets.platform import AUTOMATIC
from assets.proof import lineage_proof
from assets.publications import publication_key
from dopa_pipelines.publishing import TIMEZONE, Publication

NIGHTLY = "0 2 * * *"
PROOF = "0 5 * * *"

EVERYTHING = dg.define_asset_job(
    "everything", dg.AssetSelection.all(), description="All silos in, all models built, all extracts out"
)


def jobs_and_schedules(
    publications: list[Publication],
) -> tuple[list[dg.UnresolvedAssetJobDefinition], list[dg.ScheduleDefinition]]:
    """A nightly job over silos and models, the schedule of the proof, and a job with its schedule for each publication."""
    status = dg.DefaultScheduleStatus.RUNNING if AUTOMATIC else dg.DefaultScheduleStatus.STOPPED
    releases = dg.AssetSelection.groups("releases")
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
        job = dg.define_asset_job(f"publish_{publication.name}", dg.AssetSelection.assets(publication_key(publication.name)))
        jobs.append(job)
        schedules.append(
            dg.ScheduleDefinition(
                job=job,
                cron_schedule=publication.schedule,
                execution_timezone=TIMEZONE,
                default_status=status,
            )
        )
    return jobs, schedules
