"""One asset for each publication: its releases."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.platform import Platform, class_table, class_tags, column_tags, report, trace_link, with_trace
from assets.warehouse import model_key
from dopa_pipelines.lineage.classes import Class
from dopa_pipelines.lineage.naming import release_target
from dopa_pipelines.portal import addresses
from dopa_pipelines.publishing import Publication, load_publications

if TYPE_CHECKING:
    from dopa_pipelines.publishing.held import Reason

APPROVED = "approved"
"""The check of every release asset: a release that is held back is a warning, and an alert."""


def publication_key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["releases", name])


def publication_assets(
    publications: list[Publication], portal: str, classes: Mapping[str, Mapping[str, Class]] | None = None
) -> list[dg.AssetsDefinition]:
    """An asset a publication. ``portal``: the address that its links begin with; ``classes``: what columns are, as derived."""
    known = classes or {}
    return [
        publication_asset(publication, portal, known.get(release_target(publication.name), {})) for publication in publications
    ]


def publication_asset(publication: Publication, portal: str, classes: Mapping[str, Class]) -> dg.AssetsDefinition:
    key = publication_key(publication.name)
    target = release_target(publication.name)
    spec = dg.AssetSpec(
        key,
        deps=[model_key(publication.source)],
        group_name="releases",
        # Held back, nothing is made, and the check tells why.
        skippable=True,
        description=f"**{publication.title_th}**\n\n{publication.title_en}",
        kinds=set(publication.formats),
        tags={"layer": "releases", **class_tags(classes)},
        metadata={
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn(
                        name=column.name,
                        type=column.type,
                        description=with_trace(f"{column.description_th} / {column.description_en}", portal, target, column.name),
                        tags=column_tags(classes.get(column.name)),
                    )
                    for column in publication.columns
                ]
            ),
            "licence": publication.licence,
            "schedule": " / ".join(publication.calendar.as_words()),
            "trace": trace_link(portal, target),
            "releases": dg.MetadataValue.url(addresses.publication(portal, publication.name)),
            **class_table(classes),
        },
    )
    check = dg.AssetCheckSpec(
        APPROVED,
        asset=key,
        description="The data is approved and may go out; otherwise the release is held back (ข้อมูลผ่านเกณฑ์การเผยแพร่)",
    )

    @dg.multi_asset(name=f"releases__{publication.name}", specs=[spec], check_specs=[check])
    def release(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Iterator[Any]:
        from dopa_pipelines.publishing import publish
        from dopa_pipelines.publishing.calendar import write_calendar
        from dopa_pipelines.publishing.held import HeldBack

        report(publication.name, "started", kind="release")
        try:
            made = publish(platform.warehouse, platform.settings, publication, context.run.run_id)
        except HeldBack as held:
            reasons = "; ".join(reason.reason_en for reason in held.reasons)
            report(publication.name, "held_back", kind="release", problem=reasons)
            context.log.warning(str(held))
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=APPROVED,
                passed=False,
                severity=dg.AssetCheckSeverity.WARN,
                description=reasons,
                metadata={"reasons": dg.MetadataValue.md(_reasons(held.reasons))},
            )
            return
        report(publication.name, made.status, kind="release", rows=made.rows, path=str(made.path))
        write_calendar(platform.settings.releases_path, load_publications(platform.settings.contracts / "open_data").publications)
        yield dg.MaterializeResult(
            key,
            metadata={
                "dagster/row_count": made.rows,
                "status": made.status,
                "version": made.version,
                "folder": dg.MetadataValue.path(str(made.path)),
                "files": ", ".join(made.files),
                "dagster/column_lineage": _column_lineage(publication),
            },
        )
        yield dg.AssetCheckResult(asset_key=key, check_name=APPROVED, passed=True)

    return release


def _reasons(reasons: "Iterable[Reason]") -> str:
    return "\n".join(f"- {reason.reason_th} / {reason.reason_en} (`{reason.rule}`)" for reason in reasons)


def _column_lineage(publication: Publication) -> dg.TableColumnLineage:
    source = model_key(publication.source)
    return dg.TableColumnLineage(
        {column.name: [dg.TableColumnDep(asset_key=source, column_name=column.source)] for column in publication.columns}
    )
