"""One asset for each publication: its releases."""

import dagster as dg

from assets.platform import Platform, report, trace_link, with_trace
from assets.warehouse import model_key
from dopa_pipelines.lineage.naming import release_target
from dopa_pipelines.portal import addresses
from dopa_pipelines.publishing import Publication


def publication_key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["releases", name])


def publication_assets(publications: list[Publication], portal: str) -> list[dg.AssetsDefinition]:
    """An asset a publication. ``portal``: the address that its links begin with."""
    return [publication_asset(publication, portal) for publication in publications]


def publication_asset(publication: Publication, portal: str) -> dg.AssetsDefinition:
    key = publication_key(publication.name)
    target = release_target(publication.name)

    @dg.asset(
        key=key,
        deps=[model_key(publication.source)],
        group_name="releases",
        description=f"**{publication.title_th}**\n\n{publication.title_en}",
        kinds=set(publication.formats),
        tags={"layer": "releases"},
        metadata={
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn(
                        name=column.name,
                        type=column.type,
                        description=with_trace(f"{column.description_th} / {column.description_en}", portal, target, column.name),
                    )
                    for column in publication.columns
                ]
            ),
            "licence": publication.licence,
            "schedule": publication.schedule,
            "trace": trace_link(portal, target),
            "releases": dg.MetadataValue.url(addresses.publication(portal, publication.name)),
        },
    )
    def release(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[None]:
        from dopa_pipelines.publishing import publish

        report(publication.name, "started", kind="release")
        made = publish(platform.warehouse, platform.settings, publication, context.run.run_id)
        report(publication.name, made.status, kind="release", rows=made.rows, path=str(made.path))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": made.rows,
                "status": made.status,
                "version": made.version,
                "folder": dg.MetadataValue.path(str(made.path)),
                "files": ", ".join(made.files),
                "dagster/column_lineage": _column_lineage(publication),
            }
        )

    return release


def _column_lineage(publication: Publication) -> dg.TableColumnLineage:
    source = model_key(publication.source)
    return dg.TableColumnLineage(
        {column.name: [dg.TableColumnDep(asset_key=source, column_name=column.source)] for column in publication.columns}
    )
