"""The same rules through other tools: ``python -m benchmarks.quality_peers NAME DATASET``, the warehouse's URL on standard input.

They run the rules that both have: conditions on single rows, forms, lists, ranges, absent and repeated values; not references or
comparisons with other tables. They may need packages of other versions than ours: give ``DOPA_BENCH_PEERS`` the Python of an
environment that has them (``pandera[polars]`` with ``adbc-driver-postgresql`` and ``pyarrow``; ``great_expectations``,
``sqlalchemy``, ``psycopg2-binary``).
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
import sys
import time
from typing import Any

FORMS = {
    "pid": "^[1-8][0-9]{12}$", "house_code": "^[0-9]{11}$", "nationality": "^[0-9]{3}$", "sex": "^[12]$", "status": "^[0-2]$",
    "title": "^(นาย|นาง|นางสาว)$",
}  # fmt: skip
LISTS = {"sex": ["1", "2"], "status": ["0", "1", "2"], "nationality": ["099"], "title": ["นาย", "นาง", "นางสาว"]}
THERE = ("title", "first_name", "last_name", "nationality", "house_code")
RANGES = {"birth_date": ("1880-01-01", "2030-01-01"), "moved_in": ("1990-01-01", "2030-01-01")}
UNIQUE = (["house_code", "first_name", "last_name"], ["pid", "last_name"])


def great_expectations(url: str, dataset: str) -> dict[str, Any]:
    """Great Expectations' own expectations, compiled to SQL by it."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx  # type: ignore[import-not-found, unused-ignore]

    context = gx.get_context(mode="ephemeral")
    source = context.data_sources.add_sql(
        "warehouse", connection_string=url.replace("postgresql://", "postgresql+psycopg2://", 1)
    )
    asset = source.add_table_asset("register", table_name=dataset, schema_name="raw")
    batch = asset.add_batch_definition_whole_table("all")
    of = gx.expectations
    wanted = [of.ExpectColumnValuesToMatchRegex(column=column, regex=form) for column, form in FORMS.items()]
    wanted += [of.ExpectColumnValuesToBeInSet(column=column, value_set=values) for column, values in LISTS.items()]
    wanted += [of.ExpectColumnValuesToNotBeNull(column=column) for column in THERE]
    wanted += [
        of.ExpectColumnValuesToBeBetween(
            column=column, min_value=datetime.date.fromisoformat(low), max_value=datetime.date.fromisoformat(high)
        )
        for column, (low, high) in RANGES.items()
    ]
    wanted += [of.ExpectCompoundColumnsToBeUnique(column_list=columns) for columns in UNIQUE]
    suite = gx.ExpectationSuite(name="register", expectations=wanted)
    validator = context.validation_definitions.add(
        gx.ValidationDefinition(name="register", data=batch, suite=context.suites.add(suite))
    )
    started = time.perf_counter()
    outcome = validator.run()
    seconds = time.perf_counter() - started
    broken = [item.expectation_config.type for item in outcome.results if item.exception_info.get("raised_exception")]
    if broken:
        raise RuntimeError(f"not run: {', '.join(broken)}")
    return {"rules": len(wanted), "seconds": seconds}


def pandera(url: str, dataset: str) -> dict[str, Any]:
    """pandera's checks on a Polars frame of the table; every failure is gathered (``lazy``), as a report needs it."""
    import pandera.polars as pa  # type: ignore[import-not-found, unused-ignore]
    import polars as pl

    frame = pl.read_database_uri(f"select * from raw.{dataset}", url, engine="adbc")
    checks: dict[str, list[Any]] = {}
    for column, form in FORMS.items():
        checks.setdefault(column, []).append(pa.Check.str_matches(form))
    for column, values in LISTS.items():
        checks.setdefault(column, []).append(pa.Check.isin(values))
    for column, (low, high) in RANGES.items():
        bounds = (datetime.date.fromisoformat(low), datetime.date.fromisoformat(high))
        checks.setdefault(column, []).append(pa.Check.in_range(*bounds))
    columns = {
        column: pa.Column(frame.schema[column], checks.get(column, []), nullable=column not in THERE)
        for column in {*checks, *THERE}
    }
    schemas = [pa.DataFrameSchema(columns), *(pa.DataFrameSchema({}, unique=names) for names in UNIQUE)]
    started = time.perf_counter()
    for schema in schemas:
        # That it finds rows that fail is its work.
        with contextlib.suppress(pa.errors.SchemaErrors):
            schema.validate(frame, lazy=True)
    seconds = time.perf_counter() - started
    return {"rules": sum(map(len, checks.values())) + len(THERE) + len(UNIQUE), "seconds": seconds}


def main(name: str, dataset: str) -> None:
    url = sys.stdin.read().strip()
    other = os.environ.pop("DOPA_BENCH_PEERS", None)
    if other:
        done = subprocess.run([other, __file__, name, dataset], input=url, text=True, timeout=1500)
        raise SystemExit(done.returncode)
    try:
        found = {"pandera": pandera, "great_expectations": great_expectations}[name](url, dataset)
    except ModuleNotFoundError as error:
        found = {"missing": error.name or str(error).splitlines()[0]}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
