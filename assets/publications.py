"""One asset for each publication: its releases."""

import dagster as dg

from assets.platform import Platform, report
from assets.warehouse import model_key
from dopa_pipelines.publishing import Publication


def publication_key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["releases", name])


def publication_assets(publications: list[Publication]) -> list[dg.AssetsDefinition]:
    """An asset a publication."""
    return [publication_asset(publication) for publication in publications]


def publication_asset(publication: Publication) -> dg.AssetsDefinition:
    key = publication_key(publication.name)

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
                        description=f"{column.description_th} / {column.description_en}",
                    )
                    for column in publication.columns
                ]
            ),
            "licence": publication.licence,
            "schedule": publication.schedule,
            "trace": f"dopa trace release:{publication.name} --format html > {publication.name}.html",
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
