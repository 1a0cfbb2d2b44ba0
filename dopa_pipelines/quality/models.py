"""Results of dbt's data tests: each test of a model is a rule of it, kept as those of datasets are.

``dataset`` of such a result is ``schema.table`` of the model that the test runs with. What dbt tests is said in the models' yml;
running them is :mod:`dopa_pipelines.transform`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from dopa_pipelines.contracts.model import Dimension, RuleKind
from dopa_pipelines.contracts.read_rules import NATIONAL_DIMENSIONS
from dopa_pipelines.documents import Problem, did_you_mean
from dopa_pipelines.quality import store
from dopa_pipelines.quality.store import Connection, Result
from dopa_pipelines.transform import Model, NodeResult, Test

KINDS: dict[str | None, RuleKind] = {
    "not_null": "required", "unique": "unique", "unique_key": "unique", "accepted_values": "values",
    "relationships": "reference", "holds": "compare", "reconciles_with": "agreement", None: "sql",
}  # fmt: skip
"""What sort of rule each generic test is; any other is ``sql``."""
_INDICATORS: dict[tuple[str, str], str] = {
    ("required", "accuracy_completeness"): "1.3", ("agreement", "accuracy_completeness"): "1.3", ("unique", "consistency"): "2.3",
    ("values", "consistency"): "2.5", ("reference", "consistency"): "2.4", ("compare", "consistency"): "2.5",
    ("sql", "consistency"): "2.4", ("agreement", "consistency"): "2.4",
}  # fmt: skip


def keep_tests(
    connection: Connection, models: Iterable[Model], results: Mapping[str, NodeResult], *, run_id: str | None = None
) -> list[int]:
    """Keep what the tests of ``models`` found in a build, in the caller's transaction; ids of the results.

    A test without a result (it was skipped) has none here either. The same run's tests of a model are kept once.
    """
    kept: list[int] = []
    for model in models:
        found = [(test, results[test.unique_id]) for test in model.tests if test.unique_id in results]
        if not found:
            continue
        if run_id is not None:
            again = connection.execute(
                "select exists (select from quality.result where dataset = %s and run_id = %s)", (model.target, run_id)
            ).fetchone()
            if again and again[0]:
                continue
        written = connection.execute(
            "select id, rows_out from lineage.write where target = %s order by id desc limit 1", (model.target,)
        ).fetchone()
        rows = int(written[1]) if written and written[1] is not None and model.materialized != "view" else None
        kept += store.keep(
            connection,
            [as_result(model, test, result, rows) for test, result in found],
            write=int(written[0]) if written else None,
            run_id=run_id,
        )
    return kept


def as_result(model: Model, test: Test, result: NodeResult, rows: int | None) -> Result:
    """A test's outcome as a result. ``rows``: of the model, where they were counted. A test that broke counted nothing."""
    kind = KINDS.get(test.sort, "sql")
    dimension = cast(Dimension, test.dimension if test.dimension in NATIONAL_DIMENSIONS else "consistency")
    counted = result.failures is not None and result.status in ("pass", "fail", "warn")
    # dbt says of a query that broke what it broke on: that may be a value.
    detail = {} if counted or result.passed else {"problem": f"dbt could not run it ({result.status})"}
    failed = result.failures if counted else None
    return Result(
        dataset=model.target, rule=test.name, kind=kind, dimension=dimension, severity="block" if test.blocking else "warn",
        passed=result.passed, rows_checked=rows if kind not in ("agreement", "sql") else None, rows_failed=failed,
        value=float(failed) if failed is not None else None, indicator=_INDICATORS.get((kind, dimension)), column=test.column,
        detail=detail,
    )  # fmt: skip


def test_problems(models: Iterable[Model], project: Path) -> Iterator[Problem]:
    """Tests that belong to no dimension of the national standard; the file is that of the model."""
    for model in models:
        for test in model.tests:
            if test.dimension not in NATIONAL_DIMENSIONS:
                hint = did_you_mean(str(test.dimension), NATIONAL_DIMENSIONS)
                yield Problem(
                    project / model.path, 1,
                    f"test {test.name!r} names no dimension: give it config: {{meta: {{national_dimension: ...}}}}; {hint}",
                )  # fmt: skip
