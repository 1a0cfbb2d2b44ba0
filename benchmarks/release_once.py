"""One release, or one plain COPY of the same rows to a file, in a process of its own: prints seconds and its peak of memory."""

from __future__ import annotations

import json
import shutil
import sys
import time
import uuid
from pathlib import Path

from benchmarks.measure import peak_mb
from benchmarks.releases import PUBLICATION, TABLE
from dopa_pipelines.publishing import Publication, publish
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse


def main(state: str, what: str, rows: str) -> None:
    settings = Settings(state=Path(state))
    with open_warehouse(settings) as warehouse:
        if what == "copy":
            seconds = _copy(warehouse, settings.state.parent / "copy.csv", int(rows))
        else:
            seconds = _release(warehouse, settings, what.split("+"), int(rows))
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}))


def _copy(warehouse: Warehouse, path: Path, rows: int) -> float:
    """The rows of the release in its order, as PostgreSQL's own CSV, through a client into a file."""
    columns = [column["source"] for column in PUBLICATION["columns"]]
    order = ", ".join(
        f"{column['source']}{' collate ' + chr(34) + 'C' + chr(34) if column['type'] == 'string' else ''} nulls first"
        for column in PUBLICATION["columns"]
    )
    query = f"copy (select {', '.join(columns)} from {TABLE.format(rows)} order by {order}) to stdout (format csv, header)"
    started = time.perf_counter()
    with warehouse.connect(Role.READER) as connection, connection.cursor().copy(query.encode()) as copy, path.open("wb") as file:
        for block in copy:
            file.write(block)
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def _release(warehouse: Warehouse, settings: Settings, formats: list[str], rows: int) -> float:
    # Under a name of its own, so that it is a first release each time: what went out stays on record.
    name = f"bench_{'_'.join(formats)}_{rows}_{uuid.uuid4().hex[:8]}"
    publication = Publication.model_validate_json(
        json.dumps({**PUBLICATION, "source": TABLE.format(rows), "formats": formats, "name": name})
    )
    started = time.perf_counter()
    release = publish(warehouse, settings, publication, "bench")
    seconds = time.perf_counter() - started
    assert release.rows == rows
    shutil.rmtree(settings.releases_path / name)
    return seconds


if __name__ == "__main__":
    main(*sys.argv[1:])
