"""Forty rules on a register of two million rows, measured together, against one query for each of them written by hand.

The queries are what an engineer would write: one ``select count(*)`` with the condition in ``where``, a grouping for repeated
values, an anti-join for references. All run in the same warehouse, by turns. Peers judge the same rules on the same rows: Great
Expectations in the database, pandera on a Polars frame (the reading of the table is not counted); where they are not installed,
that is said.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import yaml

from benchmarks.measure import Row
from benchmarks.registry import registry_contract, write_registry
from dopa_pipelines.contracts import Contract, read_contract
from dopa_pipelines.ingest import ingest
from dopa_pipelines.quality.measure import measure as measure_rules
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse

ROWS = 2_000_000
RUNS = 5
DATASET = "bench_quality"
ALIKE = ("_form", "_listed", "_there", "_between")
"""Ends of the names of the rules that peers have, too."""
TEXTS = ("title", "first_name", "last_name", "nationality", "house_code")
Query = tuple[str, str]
_COUNT = f"select count(*) from raw.{DATASET} where"

# Name, the rule as a contract says it, the query that counts the same rows.
CONDITIONS: list[tuple[str, str, str]] = [
    ("moved_in_after_birth", "moved_in >= birth_date", "moved_in < birth_date"),
    ("titles_of_men", "sex <> '1' or title = 'นาย'", "sex = '1' and title <> 'นาย'"),
    ("titles_of_women", "sex <> '2' or title <> 'นาย'", "sex = '2' and title = 'นาย'"),
    ("born_in_time", "birth_date <= date '2024-01-01'", "birth_date > date '2024-01-01'"),
    ("names_differ", "first_name <> last_name", "first_name = last_name"),
    ("adult_at_moving", "moved_in is null or extract(year from age(moved_in, birth_date)) >= 0",
     "extract(year from age(moved_in, birth_date)) < 0"),
    ("house_of_known_office", "left(house_code, 1) between '1' and '9'", "not (left(house_code, 1) between '1' and '9')"),
    ("status_of_the_living", "status <> '1' or moved_in is not null", "status = '1' and moved_in is null"),
    ("moved_this_century", "moved_in >= date '2000-01-01'", "moved_in < date '2000-01-01'"),
    ("short_names", "length(first_name) + length(last_name) <= 45", "length(first_name) + length(last_name) > 45"),
]  # fmt: skip
PATTERNS = {
    "pid": "^[1-8][0-9]{12}$", "house_code": "^[0-9]{11}$", "nationality": "^[0-9]{3}$", "sex": "^[12]$", "status": "^[0-2]$",
    "title": "^(นาย|นาง|นางสาว)$",
}  # fmt: skip
LISTS = {"sex": ["1", "2"], "status": ["0", "1", "2"], "nationality": ["099"], "title": ["นาย", "นาง", "นางสาว"]}


def measure(settings: Settings) -> list[Row]:
    """Rows of the table. ``settings``: a state folder that may be filled with gigabytes."""
    with open_warehouse(settings) as warehouse, tempfile.TemporaryDirectory(prefix="dopa-quality-") as folder:
        contract, queries = _prepared(warehouse, Path(folder))
        with warehouse.connect(Role.LOADER) as connection:
            connection.execute("set work_mem = '128MB'")
            connection.execute("set jit = off")
            together, apart = [], []
            for _ in range(RUNS):
                # By turns, so that a slow minute of the machine is everybody's.
                together.append(_seconds(lambda: measure_rules(connection, contract, contract.table_rules)))
                apart.append(_seconds(lambda: _each(connection, queries)))
            alike = [rule for rule in contract.table_rules if rule.name.endswith(ALIKE) or rule.name.startswith("one_")]
            ours_alike = statistics.median(_seconds(lambda: measure_rules(connection, contract, alike)) for _ in range(RUNS))
            _same(measure_rules(connection, contract, contract.table_rules), _each(connection, queries))
        ours, theirs = statistics.median(together), statistics.median(apart)
        ratio = ours / theirs
        rows = [
            Row(
                f"{len(queries)} rules on {ROWS:,} rows, measured together",
                f"{ours:.2f} s",
                f"one hand-written query a rule {theirs:.2f} s",
                f"{ratio:.2f}",
                "≤ 0.5",
                ratio <= 0.5,
            )
        ]
        return rows + _peers(warehouse, ours_alike)


def _prepared(warehouse: Warehouse, folder: Path) -> tuple[Contract, list[Query]]:
    """The register in ``raw``, a contract with forty rules on it, and the query of each."""
    path = folder / "register.csv"
    write_registry(path, ROWS)
    base = registry_contract(folder, dataset=DATASET)
    ingest(warehouse, base, path)
    document = yaml.safe_load(base.path.read_text("utf-8"))
    rules, queries = _rules()
    document["schema"][0]["quality"] = rules
    base.path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), "utf-8")
    return read_contract(base.path), queries


def _rules() -> tuple[list[dict[str, Any]], list[Query]]:
    facts = {
        "dimension": "consistency", "severity": "warn",
        "customProperties": [{"property": "nationalDimension", "value": "consistency"}],
    }  # fmt: skip
    rules: list[dict[str, Any]] = []
    queries: list[Query] = []

    def add(name: str, query: str, **implementation: Any) -> None:
        rules.append(facts | {"name": name, "type": "custom", "engine": "dopa", "implementation": implementation})
        queries.append((name, query))

    for name, expression, wrong in CONDITIONS:
        add(name, f"{_COUNT} {wrong}", rule="condition", expression=expression)
    for column, pattern in PATTERNS.items():
        add(f"{column}_form", f"{_COUNT} {column} !~ '{pattern}'", rule="condition", expression=f"{column} ~ '{pattern}'")
    for column, values in LISTS.items():
        listed = ", ".join(f"'{value}'" for value in values)
        add(f"{column}_listed", f"{_COUNT} {column} not in ({listed})", rule="condition", expression=f"{column} in ({listed})")
    for column in TEXTS:
        add(f"{column}_there", f"{_COUNT} {column} is null", rule="condition", expression=f"{column} is not null")
        add(
            f"{column}_trimmed",
            f"{_COUNT} {column} <> btrim({column})",
            rule="condition",
            expression=f"{column} = btrim({column})",
        )
    for column, low, high in (("birth_date", "1880-01-01", "2030-01-01"), ("moved_in", "1990-01-01", "2030-01-01")):
        where = f"{column} < '{low}' or {column} > '{high}'"
        add(f"{column}_between", f"{_COUNT} {where}", rule="range", column=column, minimum=low, maximum=high)
    for name, columns in (("one_house_a_name", ["house_code", "first_name", "last_name"]), ("one_name", ["pid", "last_name"])):
        listed = ", ".join(columns)
        there = " and ".join(f"{column} is not null" for column in columns)
        rules.append(facts | {"name": name, "metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": columns}})
        queries.append(
            (name, f"select coalesce(sum(n - 1), 0)::bigint from (select count(*) as n from raw.{DATASET} where {there}"
             f" group by {listed} having count(*) > 1) as repeated")
        )  # fmt: skip
    for name, column in (("pid_again", "pid"), ("pid_exists", "pid")):
        add(
            name,
            f"select count(*) from raw.{DATASET} t where not exists (select from raw.{DATASET} o where o.pid = t.{column})",
            rule="reference", column=column, to=f"{DATASET}.pid",
        )  # fmt: skip
    for name, other in (
        ("sex_agrees", "sex"),
        ("status_agrees", "status"),
        ("birth_agrees", "birth_date"),
        ("house_agrees", "house_code"),
    ):
        add(
            name,
            f"select count(*) from raw.{DATASET} t join raw.{DATASET} o on o.pid = t.pid where t.{other} <> o.{other}",
            rule="compare", dataset=DATASET, match={"pid": "pid"}, expression=f"this.{other} = other.{other}",
        )  # fmt: skip
    return rules, queries


def _each(connection: psycopg.Connection[Any], queries: list[Query]) -> dict[str, int]:
    found = {}
    for name, query in queries:
        row = connection.execute(query.encode()).fetchone()
        found[name] = int(row[0]) if row else 0
    return found


def _same(outcomes: list[Any], counted: dict[str, int]) -> None:
    """Both must have counted the same rows, or the comparison says nothing."""
    ours = {outcome.rule.name: outcome.result.rows_failed for outcome in outcomes}
    assert ours == counted, {name: (ours[name], counted[name]) for name in counted if ours[name] != counted[name]}


def _seconds(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _peers(warehouse: Warehouse, ours: float) -> list[Row]:
    """What the rules on single rows and repeated values that others have take them, each in a process of its own.

    ``ours``: what the same rules take here.
    """
    rows = []
    url = warehouse.url(Role.LOADER)
    for name, title in (("pandera", "pandera on a Polars frame"), ("great_expectations", "Great Expectations, in the database")):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.quality_peers", name, DATASET],
            input=url, capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 and done.stdout else {}
        if "seconds" in said:
            rows.append(
                Row(
                    f"{said['rules']} of the rules in {title}", f"{ours:.2f} s", f"{said['seconds']:.2f} s",
                    f"{ours / said['seconds']:.2f}",
                )
            )  # fmt: skip
        else:
            why = f"{said['missing']} is not installed" if "missing" in said else "could not be run"
            rows.append(Row(f"the rules in {title}", f"{ours:.2f} s", why))
    return rows
