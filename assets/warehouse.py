"""One asset, and one step, for each dbt model, seed and snapshot, with its tests as checks.

A step a model: Dagster would hold back a whole dbt multi-asset for one failed source. dbt runs inside the run's own process; the
first step builds all models that nothing holds back in one invocation, the other steps report what became of theirs.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import psycopg

from assets.platform import (
    Platform,
    class_table,
    class_tags,
    column_tags,
    incidents_link,
    report,
    to_repair,
    trace_link,
    with_trace,
)
from dopa_pipelines.lineage.classes import Class
from dopa_pipelines.lineage.model import ColumnEdge
from dopa_pipelines.lineage.naming import Identity
from dopa_pipelines.quality import repair
from dopa_pipelines.transform import Model, NodeResult, Project, Test


def model_key(target: str) -> dg.AssetKey:
    """Asset key of ``schema.table``."""
    return dg.AssetKey(target.split("."))


def model_assets(
    project: Project, portal: str, classes: Mapping[str, Mapping[str, Class]] | None = None
) -> list[dg.AssetsDefinition]:
    """An asset a model of the project. ``portal``: the address that its links begin with; ``classes``: what columns are, as last
    derived."""
    return [model_asset(model, portal, (classes or {}).get(model.target)) for model in project.models]


def model_asset(model: Model, portal: str, classes: Mapping[str, Class] | None = None) -> dg.AssetsDefinition:
    key = model_key(model.target)

    @dg.multi_asset(
        name=f"{model.schema}__{model.name}",
        specs=[_spec(model, key, portal, classes or {})],
        check_specs=[*(_check_spec(test, key) for test in model.tests), _column_lineage_spec(key)],
    )
    def build(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Iterator[Any]:
        report(model.target, "started", kind="model")
        if model.unique_id not in platform.built:
            _build(context, platform, _ready(context, platform, model))
        results = platform.built
        built = results.get(model.unique_id)
        if built is None or not built.passed:
            problem = built.message if built else "dbt did not build it"
            report(model.target, "failed", kind="model", problem=problem)
            raise dg.Failure(f"{model.path}: {problem}", allow_retries=False)
        failed = [test.name for test in model.tests if (found := results.get(test.unique_id)) and not found.passed]
        report(model.target, "built", kind="model", tests=len(model.tests), failed=failed)
        yield dg.MaterializeResult(key, metadata=_metadata(platform, model, built))
        for test in model.tests:
            yield _check_result(platform, model, key, test, results.get(test.unique_id))
        yield _column_lineage_result(key, platform.problems.get(model.target))

    return build


def _ready(context: dg.AssetExecutionContext, platform: Platform, model: Model) -> list[Model]:
    """``model`` and all others of this run that nothing holds back: dbt builds them together much faster than one by one.

    The silos' steps come first (their priority), so what failed is known here. What waits for a step still to come is left out
    and built when its own turn comes.
    """
    steps = {node.name for node in context.job_def.nodes}
    ready: dict[str, Model] = {}
    for other in platform.project.models:
        if f"{other.schema}__{other.name}" not in steps or other.unique_id in platform.built:
            continue
        waits = any(
            target.replace(".", "__") in steps and target not in platform.passed and target not in ready
            for target in other.inputs
        )
        if not waits:
            ready[other.target] = other
    return list({model.target: model, **ready}.values())


def _build(context: dg.AssetExecutionContext, platform: Platform, models: list[Model]) -> None:
    targets = {model.unique_id: model.target for model in models}
    results = platform.project.build(
        models,
        run_id=context.run.run_id,
        started=lambda unique_id: report(targets.get(unique_id, unique_id.split(".")[2]), "started", kind="model"),
    )
    platform.built.update(results)
    for model in models:
        tests = [results.get(test.unique_id) for test in model.tests if test.blocking]
        if (built := results.get(model.unique_id)) and built.passed and all(test and test.passed for test in tests):
            platform.passed.add(model.target)
    _keep_tests(context, platform, models)
    _resolve_columns(context, platform, models)
    _profile(context, platform, models)


def _profile(context: dg.AssetExecutionContext, platform: Platform, models: list[Model]) -> None:
    """What the tables that were built look like; values only of columns that their lineage shows to be of no single person."""
    from dopa_pipelines.quality.profiles import profile_table
    from dopa_pipelines.warehouse import Role

    with platform.warehouse.connect(Role.TRANSFORMER) as reader, platform.warehouse.connect() as connection:
        for model in models:
            built = platform.built.get(model.unique_id)
            if built is None or not built.passed or model.materialized == "view":
                continue
            row = connection.execute("select max(id) from lineage.write where target = %s", (model.target,)).fetchone()
            shown = {name for name, found in platform.classes.get(model.target, {}).items() if not found.protected}
            try:
                profile_table(reader, connection, model.target, shown, write=row[0] if row else None)
                connection.commit()
            except psycopg.Error as error:
                reader.rollback()
                connection.rollback()
                context.log.warning(f"{model.target} was not profiled: {type(error).__name__}")


def _keep_tests(context: dg.AssetExecutionContext, platform: Platform, models: list[Model]) -> None:
    """Keep what the models' tests found, with their incidents, and the score and trend of each for its check."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.quality import incidents, store
    from dopa_pipelines.quality.models import keep_tests
    from dopa_pipelines.quality.scores import score_of_rule

    contracts = list(load_contracts(platform.settings.contracts))
    with platform.warehouse.connect() as connection:
        before = {model.target: {item.rule: item for item in store.latest(connection, model.target)} for model in models}
        for model in models:
            owner = incidents.owner_of_table(model.meta.get("owner"), contracts)
            results = keep_tests(connection, [model], platform.built, run_id=context.run.run_id)
            incidents.settle(connection, results, owner, known={model.target: {test.name for test in model.tests}})
        connection.commit()
        for model in models:
            now = {item.rule: item for item in store.latest(connection, model.target)}
            for test in model.tests:
                if test.unique_id not in platform.built or test.name not in now:
                    continue
                kept, earlier = now[test.name], before[model.target].get(test.name)
                numbers = {"score": score_of_rule(kept)}
                if earlier and earlier.rows_failed is not None and kept.rows_failed is not None:
                    numbers["trend"] = float(kept.rows_failed - earlier.rows_failed)
                platform.test_numbers[test.unique_id] = numbers


def _resolve_columns(context: dg.AssetExecutionContext, platform: Platform, models: list[Model]) -> None:
    """Bring the column graph, and what columns are by it, to what was built. It can be made up for later, too: a failure here
    fails no run."""
    from dopa_pipelines.governance.derived import derive
    from dopa_pipelines.lineage.classes import classes_of
    from dopa_pipelines.lineage.columngraph import record_columns
    from dopa_pipelines.lineage.columntrace import definitions, edges_into, problem_text
    from dopa_pipelines.lineage.store import identity
    from dopa_pipelines.publishing import columns_of, load_publications

    try:
        with platform.warehouse.connect() as connection:
            publications = load_publications(platform.settings.contracts / "open_data").publications
            record_columns(connection, published=columns_of(publications))
            derive(connection)
            connection.commit()
            platform.classes = classes_of(connection)
            named = identity(connection)
            datasets = {named.table(model.target): model.target for model in models}
            made = definitions(connection, datasets)
            for dataset, target in datasets.items():
                platform.column_lineage[target] = _column_lineage(named, edges_into(connection, dataset))
                if dataset not in made:
                    platform.problems[target] = "its columns are not recorded yet"
                elif problem := made[dataset].problem:
                    platform.problems[target] = problem_text(problem)
                else:
                    platform.problems.pop(target, None)
    except psycopg.Error as error:
        context.log.warning(f"the columns' lineage was not recorded; the next run makes up for it: {error}")
        platform.problems |= {model.target: f"its columns were not recorded: {error}" for model in models}


def _column_lineage(named: Identity, edges: Sequence[ColumnEdge]) -> dict[str, Any]:
    """What columns were made from, for Dagster's own column lineage (which its free edition does not show) and as a table."""
    from dopa_pipelines.lineage.columntrace import DIRECT, how, label_of

    deps: dict[str, dict[dg.TableColumnDep, None]] = {}
    told: dict[tuple[str, str], list[str]] = {}
    for edge in edges:
        column = f"`{edge.target_column}`" if edge.target_column else "(which rows)"
        told.setdefault((column, f"`{label_of(named, edge.source)}.{edge.source_column}`"), []).append(how(edge))
        source = named.target(edge.source)
        if edge.subtype in DIRECT and edge.target_column is not None and source is not None:
            dep = dg.TableColumnDep(asset_key=model_key(source), column_name=edge.source_column)
            deps.setdefault(edge.target_column, {})[dep] = None
    # What concerns all rows stands last.
    pairs = sorted(told, key=lambda pair: pair[0].startswith("("))
    rows = [f"| {column} | {source} | {', '.join(told[column, source])} |" for column, source in pairs]
    return {
        "dagster/column_lineage": dg.TableColumnLineage({column: list(found) for column, found in deps.items()}),
        "columns_made_from": dg.MetadataValue.md("\n".join(["| column | made from | how |", "|---|---|---|", *rows])),
    }


def _spec(model: Model, key: dg.AssetKey, portal: str, classes: Mapping[str, Class]) -> dg.AssetSpec:
    owner = model.meta.get("owner")
    columns = [
        dg.TableColumn(
            name=name,
            type=column.get("data_type") or "",
            description=with_trace(column.get("description") or "", portal, model.target, name),
            tags=column_tags(classes.get(name)),
        )
        for name, column in model.columns.items()
    ]
    return dg.AssetSpec(
        key,
        deps=[model_key(target) for target in model.inputs],
        description=model.description,
        group_name=model.schema,
        owners=[owner] if isinstance(owner, str) and "@" in owner else None,
        kinds={"dbt", "postgres", model.materialized if model.materialized in ("view", "seed", "snapshot") else "table"},
        tags={"layer": model.schema, **{tag: "" for tag in model.tags if tag != model.schema}, **class_tags(classes)},
        code_version=model.checksum,
        metadata={
            "dagster/column_schema": dg.TableSchema(columns=columns),
            "dagster/table_name": model.target,
            "dbt_model": f"dbt_project/{model.path}",
            "trace": trace_link(portal, model.target),
            "incidents": incidents_link(portal, model.target),
            **class_table(classes),
        },
    )


def _check_spec(test: Test, key: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        test.name, asset=key, blocking=test.blocking, description=test.description or None,
        metadata={"dimension": test.dimension} if test.dimension else None,
    )  # fmt: skip


def _column_lineage_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        "column_lineage", asset=key, description="Where each column comes from can be resolved: nothing of it is guessed"
    )


def _column_lineage_result(key: dg.AssetKey, problem: str | None) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key, check_name="column_lineage", passed=problem is None, severity=dg.AssetCheckSeverity.WARN,
        description=problem,
    )  # fmt: skip


def _metadata(platform: Platform, model: Model, built: NodeResult) -> dict[str, Any]:
    facts: dict[str, Any] = {"seconds": round(built.seconds, 3)}
    facts |= platform.column_lineage.get(model.target, {})
    facts |= class_table(platform.classes.get(model.target, {}))
    facts["dagster/column_schema"] = _built_columns(platform, model)
    if model.materialized == "view":
        return facts
    with platform.warehouse.connect() as connection:
        row = connection.execute(
            "select rows_out from lineage.write where target = %s order by id desc limit 1", (model.target,)
        ).fetchone()
    if row and row[0] is not None:
        facts["dagster/row_count"] = int(row[0])
    return facts


def _built_columns(platform: Platform, model: Model) -> dg.TableSchema:
    """The columns as they were built, with the types that they have in the warehouse, whether or not the yml says them."""
    with platform.warehouse.connect() as connection:
        rows = connection.execute(
            """
            select a.attname::text, format_type(a.atttypid, a.atttypmod)
            from pg_catalog.pg_attribute a
            where a.attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text)) and a.attnum > 0 and not a.attisdropped
            order by a.attnum
            """,
            (model.schema, model.name),
        ).fetchall()
    described = {name: column.get("description") or None for name, column in model.columns.items()}
    classes = platform.classes.get(model.target, {})
    return dg.TableSchema(
        columns=[dg.TableColumn(name, kind, described.get(name), tags=column_tags(classes.get(name))) for name, kind in rows]
    )


def _check_result(
    platform: Platform, model: Model, key: dg.AssetKey, test: Test, result: NodeResult | None
) -> dg.AssetCheckResult:
    if result is None:
        return dg.AssetCheckResult(asset_key=key, check_name=test.name, passed=False, description="dbt did not run this test")
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=test.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR if test.blocking else dg.AssetCheckSeverity.WARN,
        description=None if result.passed else result.message,
        metadata={
            "failing_rows": result.failures or 0,
            **platform.test_numbers.get(test.unique_id, {}),
            **({} if result.passed else to_repair(platform, model.target, repair.model(model.target))),
        },
    )
