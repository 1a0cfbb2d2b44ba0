"""Deliveries of every load mode that are brought in while the client, or the server, is killed at random points.

The measure: tables, quarantine, records and archive are those of an undisturbed run, to the last value; and every table can be
rebuilt from its archive. ``python -m tests.crash`` does it as often as is asked for; the test does it a few times.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from dopa_pipelines.contracts import Contract
from dopa_pipelines.ingest import ingest
from dopa_pipelines.ingest.inspect import table_facts
from dopa_pipelines.ingest.rebuild import rebuild
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Warehouse, open_warehouse

DOPA = str(Path(sys.executable).with_name("dopa"))
TRIES = 3
"""A killed server may take a while until it takes connections again."""


@dataclass
class Tally:
    """How the disturbed runs ended. ``late``: the process had ended before it could be killed; ``committed``: it was killed after
    it had finished its work.
    """

    killed: int = 0
    late: int = 0
    committed: int = 0
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.killed} killed ({self.committed} of them after their commit), {self.late} had ended before;"
            f" {len(self.differences)} differences"
        )


@dataclass(frozen=True)
class Work:
    """Deliveries in the order in which they come, each with its contract."""

    deliveries: list[tuple[Contract, Path]]

    @property
    def contracts(self) -> list[Contract]:
        return list({contract.dataset: contract for contract, _ in self.deliveries}.values())


def make_work(make_contract: Any, folder: Path, rows: int, prefix: str = "crash") -> Work:
    """Four datasets, one of each load mode, with three deliveries each; one row in fifty is rejected, some stand twice."""
    key = {"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1}
    columns = [key, {"name": "month", "logicalType": "date", "required": True}, {"name": "v", "logicalType": "integer"}]
    dated = {"period": r"(?P<year>\d{4})-(?P<month>\d\d)"}
    loads: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "replace": ({"mode": "replace"}, {}),
        "append": ({"mode": "append"}, {}),
        "scope": ({"mode": "replace_scope", "scope": [{"column": "month", "granularity": "month"}]}, dated),
        "history": ({"mode": "history"}, dated),
    }
    contracts = {
        name: make_contract(f"{prefix}_{name}", columns, load=load | {"maxShrinkPercent": 100}, layout=layout)
        for name, (load, layout) in loads.items()
    }
    work = []
    for number, month in enumerate(("2026-01", "2026-03", "2026-02")):
        for place, (name, contract) in enumerate(contracts.items()):
            draw = random.Random(f"{number} {name}")
            start = number * rows // 2 if name in ("append", "history") else 0
            lines = ["k,month,v"]
            for k in range(start, start + rows):
                value = "x" if k % 50 == 0 else str(draw.randrange(3))
                scope = f"{month}-{1 + k % 28:02}" if name != "scope" or draw.random() < 0.99 else "2025-01-01"
                lines.append(f"{month if name == 'scope' else ''}{k:07},{scope},{value}")
            lines += lines[-3:]
            path = folder / f"{place}_{name}_{month}.csv"
            path.write_text("\n".join(lines) + "\n")
            work.append((contract, path))
    return Work(work)


def undisturbed(state: Path, work: Work) -> dict[str, Any]:
    with open_warehouse(Settings(state=state)) as warehouse:
        for contract, path in work.deliveries:
            done = ingest(warehouse, contract, path)
            assert done.status == "loaded", done.problem
        return outcome(warehouse, work)


def disturbed(state: Path, work: Work, expected: dict[str, Any], *, client: int, server: int, seed: int) -> Tally:
    """Bring the same deliveries in while ``client`` clients and ``server`` servers are killed."""
    draw = random.Random(seed)
    tally = Tally()
    kinds = ["client"] * client + ["server"] * server
    draw.shuffle(kinds)
    shares = [kinds[place :: len(work.deliveries)] for place in range(len(work.deliveries))]
    with open_warehouse(Settings(state=state)):
        pass
    usual = 2.0
    for (contract, path), share in zip(work.deliveries, shares, strict=True):
        for kind in share:
            _kill(state, contract, path, kind, draw.uniform(0.1, 1.05) * usual, tally)
        started = time.monotonic()
        _finish(state, contract, path)
        usual = 0.7 * usual + 0.3 * (time.monotonic() - started)
    with open_warehouse(Settings(state=state)) as warehouse:
        found = outcome(warehouse, work)
        for what, value in expected.items():
            if found[what] != value:
                tally.differences.append(f"{what}: {found[what]!r} where {value!r} must be")
        for contract in work.contracts:
            again = rebuild(warehouse, contract)
            if not again.equal:
                tally.differences.append(f"{contract.dataset}: {again}")
        _age(warehouse.scratch)
        _age(warehouse.archive / ".incoming")
        rebuild(warehouse, work.contracts[0])  # what makes a folder sweeps those that were left
        tally.differences += [f"left behind: {path}" for path in warehouse.scratch.iterdir()]
    return tally


def _command(contract: Contract, path: Path) -> list[str]:
    return [DOPA, "ingest", "--contract", str(contract.path), str(path), "--json"]


def _kill(state: Path, contract: Contract, path: Path, kind: str, seconds: float, tally: Tally) -> None:
    child = subprocess.Popen(
        _command(contract, path),
        env=os.environ | {"DOPA_STATE": str(state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(seconds)
    ended = child.poll() is not None
    if kind == "client" and not ended:
        os.killpg(child.pid, signal.SIGKILL)
    if kind == "server" and not ended:
        _kill_server(state)
    said, complaint = child.communicate(timeout=120)
    if ended:
        tally.late += 1
        assert child.returncode == 0, complaint
        return
    tally.killed += 1
    if kind == "client":
        tally.committed += '"loaded"' in said
        return
    if child.returncode == 0:
        tally.committed += 1
    elif "Traceback" in complaint or len(complaint.strip().splitlines()) > 3:
        tally.differences.append(f"the client of a killed server said: {complaint}")


def _kill_server(state: Path) -> None:
    """Kill the server's first process; the others end when they see that it is gone."""
    try:
        pid = int((state / "pg" / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
    except (OSError, IndexError, ValueError):
        return


def _finish(state: Path, contract: Contract, path: Path) -> None:
    said = ""
    for _ in range(TRIES):
        done = subprocess.run(
            _command(contract, path), env=os.environ | {"DOPA_STATE": str(state)}, capture_output=True, text=True, timeout=120
        )
        if done.returncode == 0:
            assert json.loads(done.stdout)["status"] in ("loaded", "unchanged")
            return
        said = done.stderr
    raise AssertionError(f"{path.name} cannot be brought in: {said}")


def _age(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            os.utime(path, (1, 1))


def outcome(warehouse: Warehouse, work: Work) -> dict[str, Any]:
    """All that must be the same: rows with the files they came from, rejected rows, records, the archive."""
    found: dict[str, Any] = {
        "archive": sorted(path.name for path in warehouse.archive.rglob("*.zst")),
        "tables": [],
    }
    with warehouse.connect() as connection:
        for contract in work.contracts:
            found |= {f"{contract.dataset} {what}": value for what, value in _table(connection, contract)}
        found["tables"] = connection.execute(
            "select count(*) from pg_class where relnamespace = 'raw'::regnamespace and relkind in ('r', 'p')"
        ).fetchall()
    return found


def _table(connection: psycopg.Connection[Any], contract: Contract) -> Iterator[tuple[str, Any]]:
    files = "(select file from ops.delivery d where d.id = t.{0}) as {0}"
    numbered = ["_delivery_id"] + (["_recorded_by", "_superseded_by"] if contract.has_history else [])
    columns = [name for name, _ in contract.table_columns] + ["_row"] + [files.format(name) for name in numbered]
    if contract.has_history:
        columns += ["_valid_from", "_valid_to"]
    rows = f"select {', '.join(columns)} from {contract.table} t"
    digest = "select count(*), md5(string_agg(r::text, E'\\n' order by r::text)) from ({}) r"
    yield "rows", connection.execute(digest.format(rows).encode()).fetchone()
    rejected = (
        "select (select d.file from ops.delivery d where d.id = q.delivery_id) as delivery, file, row, original, reasons, fields"
        f" from quarantine.{contract.dataset} q"
    )
    yield "rejected rows", connection.execute(digest.format(rejected).encode()).fetchone()
    yield (
        "records",
        connection.execute(
            "select file, sha256, rows_read, rows_loaded, rows_quarantined, rows_held, in_force, business_date"
            " from ops.delivery where dataset = %s and status = 'loaded' order by id",
            (contract.dataset,),
        ).fetchall(),
    )
    yield (
        "writes",
        connection.execute("select count(*) from lineage.write where target = %s", (contract.table,)).fetchone(),
    )
    yield "reconciled", table_facts(connection, contract).reconciled
