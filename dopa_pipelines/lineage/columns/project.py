"""The models of the dbt project as statements with lineage: compiled, in order, each over the columns of those before it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from dopa_pipelines.contracts.model import Contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.columns.model import Lineage
from dopa_pipelines.lineage.columns.schema import Schema
from dopa_pipelines.lineage.columns.snapshots import analyze_snapshot
from dopa_pipelines.lineage.columns.walk import analyze
from dopa_pipelines.transform import Model, Project

PROVENANCE = {"_delivery_id": "bigint", "_row": "bigint"}
"""Columns that every raw table has besides those of its contract."""
UNKNOWN = "unknown"
"""Type of a model's column where nobody has asked the database."""


@dataclass(frozen=True)
class ModelLineage:
    """A model with the lineage of its columns, over the tables and models that it reads itself."""

    model: Model
    sql: str
    lineage: Lineage
    inputs: tuple[str, ...] = field(default=())
    """``schema.table`` of what it reads, as dbt knows it."""


def raw_schema(contracts: Iterable[Contract]) -> Schema:
    """The raw tables, as contracts make them."""
    made = Schema()
    for contract in contracts:
        made.add(contract.table, dict(contract.table_columns) | PROVENANCE)
    return made


def compiled(project: Project) -> dict[str, str]:
    """The SQL of each model and snapshot by ``schema.table``, without a connection. Takes seconds. Raises UserError."""
    from dbt.cli.main import dbtRunner

    with tempfile.TemporaryDirectory(prefix="dopa-compile-") as folder, _variables(project.environment()):
        outcome = dbtRunner().invoke(
            [
                "compile", "--project-dir", str(project.folder), "--profiles-dir", str(project.folder), "--target-path", folder,
                "--log-path", folder, "--quiet", "--no-use-colors", "--no-write-json", "--log-level-file", "none",
                "--no-introspect", "--no-populate-cache", "--select", "resource_type:model", "resource_type:snapshot",
            ]
        )  # fmt: skip
    if not outcome.success:
        raise UserError(f"The dbt project cannot be compiled: {outcome.exception or 'dbt says why above'}")
    nodes = [item.node for item in getattr(outcome.result, "results", [])]
    return {f"{node.schema}.{node.alias}": node.compiled_code for node in nodes}


def lineages(models: Iterable[Model], sql: Mapping[str, str], raw: Schema) -> Iterator[ModelLineage]:
    """The lineage of each model that has SQL, in the order of ``Project.models``; ``raw`` is left as it is.

    A seed has the columns of its file. Raises LineageError, which names model, construct and line, where one cannot be resolved.
    """
    known = Schema(tables=dict(raw.tables))
    for model in models:
        if model.is_seed:
            known.add(model.target, seed_columns(model))
            continue
        text = sql[model.target]
        lineage = resolved(model, text, known, statement=model.path)
        known.add(model.target, {title: UNKNOWN for title, _ in lineage.columns})
        yield ModelLineage(model, text, lineage, model.inputs)


def resolved(model: Model, sql: str, known: Schema, *, statement: str) -> Lineage:
    """The lineage of a model or snapshot. Raises LineageError."""
    if model.snapshot is not None:
        return analyze_snapshot(sql, known, model.snapshot, statement=statement)
    return analyze(sql, known, statement=statement)


def seed_columns(model: Model) -> dict[str, str]:
    """The columns of a seed with their types, as far as its yml tells them."""
    return {name: str(model.columns.get(name, {}).get("data_type") or UNKNOWN) for name in model.file_fields}


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
