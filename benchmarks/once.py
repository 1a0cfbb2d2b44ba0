"""One ingest in a process of its own: prints seconds, steps and the peak of its memory as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from psycopg import sql

from benchmarks.measure import peak_mb
from dopa_pipelines.contracts import read_contract
from dopa_pipelines.ingest import ingest
from dopa_pipelines.quality.profiles import Profiler
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import open_warehouse


def main(state: str, contract_path: str, path: str, fresh: str, profiled: str = "") -> None:
    contract = read_contract(Path(contract_path))
    with open_warehouse(Settings(state=Path(state)), migrate=True) as warehouse:
        if fresh:
            with warehouse.connect() as connection:
                for schema in ("raw", "quarantine"):
                    table = sql.Identifier(schema, contract.dataset)
                    connection.execute(sql.SQL("drop table if exists {}").format(table))
                connection.execute("delete from ops.delivery where dataset = %s", (contract.dataset,))
                connection.commit()
        started, worked = time.perf_counter(), time.process_time()
        delivery = ingest(warehouse, contract, Path(path), observe=Profiler if profiled else None)
        seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    said = {
        "status": delivery.status, "problem": delivery.problem, "rows": delivery.rows_read, "seconds": seconds, "cpu": cpu,
        "steps": delivery.seconds, "peak_mb": peak_mb(),
    }  # fmt: skip
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
