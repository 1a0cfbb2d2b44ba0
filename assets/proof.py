"""The nightly proof that what is recorded is the whole story: a job, not an asset, since it makes nothing."""

import dagster as dg

from assets.platform import Platform


@dg.op
def prove_lineage(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
    """Take the digests that wait, however large the tables, then hold rows, records, seals and anchors against each other."""
    from dopa_pipelines.lineage.seal import seal
    from dopa_pipelines.lineage.verify import note, verify

    seal(platform.warehouse)
    verdict = verify(platform.warehouse, platform.settings.releases_path)
    note(platform.warehouse, verdict, context.run.run_id)
    for words in verdict.notes:
        context.log.info(words)
    for finding in verdict.findings:
        context.log.error(finding.message)
    if verdict.findings:
        raise dg.Failure(
            f"{len(verdict.findings)} findings, the first: {verdict.findings[0].message}; all: `dopa lineage verify`",
            allow_retries=False,
        )


@dg.job(description="Every row is of a recorded write, every record as it was sealed: dopa lineage verify")
def lineage_proof() -> None:
    prove_lineage()
