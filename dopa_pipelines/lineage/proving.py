"""The models of the project before the oracle: real columns and types, generated rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import psycopg

from dopa_pipelines.contracts.model import Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.columns.project import UNKNOWN, compiled, lineages, raw_schema, seed_columns
from dopa_pipelines.lineage.columns.schema import Schema, Table, View
from dopa_pipelines.lineage.prove import Proof, column_types, prove
from dopa_pipelines.transform import Project


def prove_models(
    connection: psycopg.Connection[Any],
    project: Project,
    contracts: Iterable[Contract],
    wanted: str | None = None,
    *,
    sql: Mapping[str, str] | None = None,
) -> Iterator[Proof]:
    """Prove the lineage of one model or of all, each over the tables and models that it reads itself.

    ``connection``: in autocommit mode, may create schemas; nothing stays. ``sql``: what ``compiled`` gave, where it is known.
    Raises UserError where there is no such model, and LineageError where one cannot be resolved.
    """
    models = project.models
    if wanted is not None and not any(wanted in (model.name, model.target) for model in models):
        raise UserError(f"There is no model {wanted!r}; `dopa dbt ls --resource-type model` lists them")
    raw = raw_schema(contracts)
    sql = compiled(project) if sql is None else sql
    as_views = Schema(tables=dict(raw.tables))
    for model in models:
        place = (model.schema, model.name)
        if model.is_seed:
            kinds = {name: "text" if kind == UNKNOWN else kind for name, kind in seed_columns(model).items()}
            as_views.tables[place] = Table(model.target, kinds)
        else:
            as_views.tables[place] = View(model.target, sql[model.target])
    # What type a model's column has, only the database can tell.
    types = column_types(connection, as_views)
    tables: dict[tuple[str, str], Table | View] = dict(as_views.base_tables())
    for place, columns in types.items():
        tables[place] = Table(".".join(place), columns)
    schema = Schema(tables=tables)
    for found in lineages(models, sql, raw):
        if wanted in (None, found.model.name, found.model.target):
            schema_name, _, name = found.model.target.partition(".")
            read = [place for place in tables if ".".join(place) in found.inputs and place != (schema_name, name)]
            yield prove(connection, found.sql, schema, found.lineage, name=found.model.target, tables=read)
