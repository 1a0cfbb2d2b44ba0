"""The column graph: tracing a large one, what unchanged runs cost and store.

The large graph is generated in the database: 21 layers of 1,000 datasets with 25 columns, each made from two columns of the layer
before, in areas of ten datasets: a trace from the top meets some 2,700 columns and 5,400 edges.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from os import environ
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.measure import Row
from dopa_pipelines.settings import Settings

LAYERS, DATASETS, COLUMNS = 21, 1_000, 25
AREA = 10
RUNS = 100
TRACES = 60

_GENERATE = f"""
insert into lineage.dataset (namespace, name)
select i.value, current_database() || '.layer' || lpad(layer::text, 2, '0') || '.t' || lpad(place::text, 4, '0')
from generate_series(0, {LAYERS - 1}) layer, generate_series(0, {DATASETS - 1}) place, lineage.identity i
where i.key = 'warehouse_namespace'
order by layer, place;

create temporary table made as
select id, row_number() over (order by id) - 1 as number from lineage.dataset where name like '%%.layer__.t____';
create unique index on made (number);

insert into lineage.field (dataset_id, name)
select id, 'c' || lpad(c::text, 2, '0') from made, generate_series(0, {COLUMNS - 1}) c order by id, c;

create temporary table numbered as
select f.id, m.number / {DATASETS} as layer, m.number %% {DATASETS} as place, substr(f.name, 2)::integer as c
from lineage.field f join made m on m.id = f.dataset_id;
create unique index on numbered (layer, place, c);
analyze numbered;

insert into lineage.definition (dataset_id, kind, checksum, version, fields, valid_from)
select m.id, 'model', md5(m.number::text), '1',
    (select jsonb_agg(jsonb_build_object('name', 'c' || lpad(c::text, 2, '0')) order by c)
     from generate_series(0, {COLUMNS - 1}) c),
    '2026-01-01'
from made m;

insert into lineage.column_edge (source_id, target_id, subtype, valid_from)
select s.id, t.id, (array['IDENTITY', 'TRANSFORMATION', 'AGGREGATION'])[1 + t.c %% 3]::lineage.subtype, '2026-01-01'
from numbered t
cross join generate_series(0, 1) k
join numbered s on s.layer = t.layer - 1
    and s.place = t.place / {AREA} * {AREA} + (t.place + k) %% {AREA}
    and s.c = case k when 0 then t.c else (t.c * 7 + t.layer) %% {COLUMNS} end;
analyze lineage.column_edge;
analyze lineage.field;
"""


def measure(settings: Settings) -> list[Row]:
    """Traces over a generated graph in a state of its own, and repeated runs in another."""
    with tempfile.TemporaryDirectory(prefix="dopa-graph-") as folder:
        rows = _traces(Settings(state=Path(folder) / "large" / "state"))
        rows += _runs(Settings(state=Path(folder) / "runs" / "state"))
    return rows


def _traces(settings: Settings) -> list[Row]:
    from dopa_pipelines.lineage.columntrace import Place, walk
    from dopa_pipelines.lineage.store import identity
    from dopa_pipelines.warehouse import Role, open_warehouse

    rows: list[Row] = []
    with open_warehouse(settings) as warehouse:
        with warehouse.connect(Role.OWNER) as connection:
            connection.execute(_GENERATE.replace("%%", "%").encode())
            connection.commit()
            count = _count(connection, "select count(*) from lineage.column_edge")
        with warehouse.connect(Role.OWNER, autocommit=True) as connection:
            connection.execute("vacuum lineage.column_edge")
        with warehouse.connect(Role.READER) as connection:
            named = identity(connection)
            some = random.Random(2568)
            for direction, layer in (("up", LAYERS - 1), ("down", 0)):
                taken, met = [], 0
                for _ in range(TRACES):
                    table = named.table(f"layer{layer:02}.t{some.randrange(DATASETS):04}")
                    place = Place(table, f"c{some.randrange(COLUMNS):02}")
                    started = time.perf_counter()
                    met = len(walk(connection, place, direction).edges)  # type: ignore[arg-type]
                    taken.append(time.perf_counter() - started)
                p95 = statistics.quantiles(taken, n=20)[-1]
                what = f"trace {direction} over {count:,} column edges, {LAYERS - 1} deep, {met:,} of them met: p95"
                rows.append(Row(what, f"{p95 * 1e3:.0f} ms", "", "", "≤ 50 ms", p95 <= 0.05))
        whole = statistics.median(_command(settings) for _ in range(5))
        rows.append(Row("`dopa trace` over it, whole process", f"{whole:.2f} s", "", "", "≤ 0.5 s", whole <= 0.5))
    return rows


def _command(settings: Settings) -> float:
    started = time.perf_counter()
    subprocess.run(
        [str(Path(sys.executable).with_name("dopa")), "trace", f"layer{LAYERS - 1}.t0000.c00", "--format", "json"],
        env=environ | {"DOPA_STATE": str(settings.state)}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - started


def _runs(settings: Settings) -> list[Row]:
    """The project's models recorded as dbt records them, then again and again without a change."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.lineage.columngraph import record_columns
    from dopa_pipelines.lineage.columns.project import compiled
    from dopa_pipelines.lineage.store import record_write
    from dopa_pipelines.transform import Project
    from dopa_pipelines.warehouse import Role, open_warehouse

    with open_warehouse(settings) as warehouse, warehouse.connect(Role.LOADER) as connection:
        project = Project(settings, warehouse)
        models, sql = [model for model in project.models if not model.is_seed], compiled(project)
        contracts = list(load_contracts(settings.contracts))
        for contract in contracts:
            text = contract.path.read_text("utf-8")
            connection.execute(
                "insert into ops.contract (checksum, dataset, version, document) values (%s, %s, %s, %s) on conflict do nothing",
                (contract.checksum, contract.dataset, contract.version, text),
            )

        def run() -> float:
            for contract in contracts:
                record_write(connection, kind="load", target=contract.table, code={"checksum": contract.checksum})
            for model in models:
                text = sql[model.target]
                code = {"compiled": text, "checksum": str(hash(text)), "path": model.path, "unique_id": model.unique_id}
                inputs = [{"name": name} for name in model.inputs]
                record_write(connection, kind="model", target=model.target, code=code, inputs=inputs)
            connection.commit()
            started = time.perf_counter()
            record_columns(connection)
            connection.commit()
            return time.perf_counter() - started

        run_first = run()
        size = _size(connection)
        again = [run() for _ in range(RUNS)]
        grown = _size(connection) - size
        stored = _count(connection, "select count(*) from lineage.definition")
    both = len(contracts) + len(models)
    each = run_first / both
    unchanged = statistics.median(again) / both
    return [
        Row(f"columns of {both} contracts and models, at first, each", f"{each * 1e3:.1f} ms", "", "", "≤ 20 ms", each <= 0.02),
        Row("the same again, unchanged, each", f"{unchanged * 1e3:.2f} ms", "", "", "≤ 1 ms", unchanged <= 0.001),
        Row(f"rows that {RUNS} runs without a change added to the column graph", str(grown), "", "", "0", grown == 0),
        Row("definitions stored", str(stored)),
    ]  # fmt: skip


def _size(connection: psycopg.Connection[Any]) -> int:
    """Rows of the graph's tables."""
    tables = ("dataset", "field", "definition", "column_edge")
    return sum(_count(connection, f"select count(*) from lineage.{table}") for table in tables)


def _count(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0
