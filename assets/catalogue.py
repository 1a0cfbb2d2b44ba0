"""One asset for each publication in the catalogue, where a catalogue is configured: its dataset there.

Apart from the release: a catalogue that is down fails this asset and leaves the release made, and it can be run again alone.
"""

import dagster as dg

from assets.platform import Platform, report
from assets.publications import publication_key
from dopa_pipelines.publishing import Publication
from dopa_pipelines.settings import Settings

GROUP = "ckan"


def catalogue_key(name: str) -> dg.AssetKey:
    return dg.AssetKey([GROUP, name])


def catalogue_assets(settings: Settings, publications: list[Publication]) -> list[dg.AssetsDefinition]:
    """An asset a publication; none where no catalogue is configured."""
    return [catalogue_asset(publication) for publication in publications] if settings.ckan_url else []


def catalogue_asset(publication: Publication) -> dg.AssetsDefinition:
    @dg.asset(
        key=catalogue_key(publication.name),
        deps=[publication_key(publication.name)],
        group_name=GROUP,
        description=f"**{publication.title_th}** ในบัญชีข้อมูล\n\n{publication.title_en}, in the catalogue",
        kinds={"ckan"},
        tags={"layer": GROUP},
    )
    def pushed(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[None]:
        from dopa_pipelines.publishing.ckan import push

        asset = f"{GROUP}.{publication.name}"
        report(asset, "started", kind=GROUP)
        (made,) = push(platform.warehouse, platform.settings, [publication.name], context.run.run_id)
        if made.problem:
            report(asset, "failed", kind=GROUP, problem=made.problem)
            # What passes was tried often enough; what does not pass would come again.
            raise dg.Failure(made.problem, allow_retries=False)
        report(asset, "unchanged" if made.status == "unchanged" else "pushed", kind=GROUP)
        return dg.MaterializeResult(
            metadata={
                "status": made.status,
                "version": made.version or "",
                "dataset": dg.MetadataValue.url(made.address or ""),
                "files_uploaded": made.files,
                "bytes_uploaded": made.bytes,
                "seconds": round(made.seconds, 3),
            }
        )

    return pushed
