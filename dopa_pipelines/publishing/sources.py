"""Whether a publication's source is there: its model in the dbt project, and the columns it lists."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from dopa_pipelines.documents import Problem, did_you_mean, read_document
from dopa_pipelines.publishing.publication import Publication


def source_problems(publication: Publication, models: Mapping[str, Collection[str]]) -> Iterator[Problem]:
    """What the publication asks of a model that the model (``schema.table`` → columns) does not have."""
    document = read_document(publication.path)
    if publication.source not in models:
        yield document.problem(f"no model makes {publication.source}; {did_you_mean(publication.source, models)}", "source")
        return
    columns = models[publication.source]
    for place, column in enumerate(publication.columns):
        if column.source not in columns:
            yield document.problem(
                f"{publication.source} has no column {column.source!r}; {did_you_mean(column.source, columns)}",
                "columns", place, "source",
            )  # fmt: skip
