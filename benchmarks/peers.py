"""The same register through other loaders, each in a process of its own: ``python -m benchmarks.peers NAME FILE URL ROWS``.

They load text as it is: nothing is typed or checked. Installed with the extra ``bench``; where they are not, that is said.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import peak_mb

Load = Callable[[Path, str, int], float]


def dlt_arrow(path: Path, url: str, rows: int) -> float:
    """dlt given Arrow tables, as its documentation recommends for speed. Returns seconds."""
    import pyarrow.csv

    names = path.open(encoding="cp874").readline().strip().split(",")
    options = pyarrow.csv.ReadOptions(encoding="cp874", block_size=8 << 20)
    kinds = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, "string"))
    return _dlt(url, "peer_dlt_arrow", lambda: iter(pyarrow.csv.open_csv(path, options, convert_options=kinds)))


def dlt_rows(path: Path, url: str, rows: int) -> float:
    """dlt given dictionaries, as it is most often used. Returns seconds."""

    def records() -> Iterator[dict[str, Any]]:
        with path.open(encoding="cp874", newline="") as file:
            yield from itertools.islice(csv.DictReader(file), rows)

    return _dlt(url, "peer_dlt_rows", records)


def _dlt(url: str, schema: str, records: Callable[[], Iterator[Any]]) -> float:
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}
    import dlt  # type: ignore[import-not-found, unused-ignore]

    # dlt insists on a host beside the socket's folder, which libpq prefers.
    place = dlt.destinations.postgres(url.replace("@/", "@localhost/", 1))
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline("register", pipelines_dir=folder, destination=place, dataset_name=schema)
        started = time.perf_counter()
        pipeline.run(dlt.resource(records, name="register"), write_disposition="replace")
        return time.perf_counter() - started


def pandas_to_sql(path: Path, url: str, rows: int) -> float:
    """pandas through SQLAlchemy. Returns seconds."""
    import pandas  # type: ignore[import-untyped, import-not-found, unused-ignore]
    import sqlalchemy

    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    started = time.perf_counter()
    frame = pandas.read_csv(path, encoding="cp874", dtype=str, nrows=rows, keep_default_na=False)
    frame.to_sql("peer_pandas", engine, if_exists="replace", index=False, chunksize=10_000)
    seconds = time.perf_counter() - started
    engine.dispose()
    return seconds


PEERS: dict[str, Load] = {"dlt_arrow": dlt_arrow, "dlt_rows": dlt_rows, "pandas_to_sql": pandas_to_sql}


def main(name: str, path: str, url: str, rows: str) -> None:
    try:
        seconds = PEERS[name](Path(path), url, int(rows))
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}))
        return
    peak = peak_mb()
    print(json.dumps({"rows": int(rows), "seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
