"""The ingest of a register against what PostgreSQL itself and other loaders make of the same file.

Every run is a process of its own, so that memory peaks are its own. The server is the platform's embedded one, for all.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks.measure import Row
from benchmarks.registry import COLUMNS, Form, registry_contract, write_registry
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Warehouse, bootstrap, open_warehouse, places
from dopa_pipelines.warehouse.embedded import PORT, SUPERUSER

SIZES = (200_000, 2_000_000, 10_000_000)
MAIN = 2_000_000
RUNS = {200_000: 3, 2_000_000: 5, 10_000_000: 1}
SAMPLES = {"dlt_rows": 20_000, "pandas_to_sql": 100_000}
WORKBOOK_ROWS = 50_000


def measure(settings: Settings) -> list[Row]:
    """Rows of the table. ``settings``: a state folder that may be filled with gigabytes."""
    folder = settings.state.parent / "register"
    folder.mkdir(parents=True)
    # The server reads the file itself for its own COPY.
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    with open_warehouse(settings) as warehouse:
        return _Measures(settings, warehouse, folder).rows()


class _Measures:
    def __init__(self, settings: Settings, warehouse: Warehouse, folder: Path) -> None:
        self.settings = settings
        self.warehouse = warehouse
        self.folder = folder

    def rows(self) -> list[Row]:
        ours: dict[int, dict[str, Any]] = {}
        raw: dict[int, float] = {}
        for size in SIZES:
            path = self.file("csv", size)
            pairs = []
            for _ in range(RUNS[size]):
                # By turns, so that a slow minute of the machine is everybody's.
                pairs.append((self.ingest("csv", path), self.copy(path)))
            ours[size] = _middle([mine for mine, _ in pairs])
            raw[size] = statistics.median(theirs for _, theirs in pairs)
            if size != MAIN:
                path.unlink()
        rows = [self.against_copy(size, ours[size], raw[size]) for size in SIZES]
        growth = math.log(ours[SIZES[-1]]["seconds"] / ours[SIZES[0]]["seconds"]) / math.log(SIZES[-1] / SIZES[0])
        rows.append(
            Row(
                "growth of the ingest's time from 0.2 to 10 million rows",
                f"exponent {growth:.2f}",
                "",
                "",
                "≤ 1.05",
                growth <= 1.05,
            )
        )
        peak = max(item["peak_mb"] for item in ours.values())
        rows.append(Row("client memory at every size", f"{peak:.0f} MB", "", "", "≤ 600 MB", peak <= 600))
        rows.append(self.cpu(ours[MAIN]["seconds"]))
        rows += self.other_forms(ours[MAIN]["seconds"])
        rows += self.again(ours[MAIN]["seconds"])
        rows += self.peers(MAIN / ours[MAIN]["seconds"])
        rows.append(self.workbook())
        rows += _steps(ours[MAIN])
        return rows

    def against_copy(self, size: int, mine: dict[str, Any], theirs: float) -> Row:
        ratio = mine["seconds"] / theirs
        return Row(
            f"register, {size:,} rows: decode, type, check, quarantine, load, index, lineage, archive",
            f"{mine['seconds']:.2f} s, {size / mine['seconds']:,.0f} rows/s, {mine['peak_mb']:.0f} MB",
            f"raw COPY into text and the same index {theirs:.2f} s",
            f"{ratio:.2f}",
            "≤ 1.3" if size == MAIN else "",
            ratio <= 1.3 if size == MAIN else None,
        )

    def other_forms(self, csv_seconds: float) -> list[Row]:
        found = []
        forms: tuple[tuple[Form, str], ...] = (("pipe", "pipe-separated"), ("fixed", "fixed-width"))
        for form, name in forms:
            path = self.file(form, MAIN)
            mine = _middle([self.ingest(form, path) for _ in range(3)])["seconds"]
            ratio = mine / csv_seconds
            path.unlink()
            found.append(
                Row(
                    f"the same register, {name}",
                    f"{mine:.2f} s",
                    f"CSV {csv_seconds:.2f} s",
                    f"{ratio:.2f}",
                    "≤ 1.2",
                    ratio <= 1.2,
                )
            )
        return found

    def again(self, csv_seconds: float) -> list[Row]:
        """What is in force costs a hash; another delivery takes the place of all rows."""
        path = self.file("csv", MAIN)
        self.ingest("csv", path)
        same = self.ingest("csv", path, fresh=False)["seconds"]
        with path.open("ab") as file:
            file.write(b"\n")
        other = self.ingest("csv", path, fresh=False)["seconds"]
        started = time.perf_counter()
        subprocess.run(["sha256sum", str(path)], check=True, capture_output=True)
        hashed = time.perf_counter() - started
        return [
            Row("the same delivery again", f"{same:.2f} s", f"sha256sum {hashed:.2f} s", f"{same / hashed:.2f}"),
            Row(
                "another delivery replaces all rows",
                f"{other:.2f} s",
                f"first load {csv_seconds:.2f} s",
                f"{other / csv_seconds:.2f}",
            ),
        ]

    def peers(self, our_rate: float) -> list[Row]:
        path = self.file("csv", MAIN)
        url = _url(self.warehouse)
        found = []
        for peer, name, target in (
            ("dlt_arrow", "dlt on Arrow", "≥ 10"),
            ("dlt_rows", "dlt default", ""),
            ("pandas_to_sql", "pandas to_sql", ""),
        ):
            count = SAMPLES.get(peer, MAIN)
            said = _child("benchmarks.peers", peer, str(path), url, str(count))
            if "missing" in said:
                found.append(Row(f"rows a second against {name}", f"{our_rate:,.0f}", "not installed: pip install .[bench]"))
                continue
            rate = said["rows"] / said["seconds"]
            times = our_rate / rate
            found.append(
                Row(
                    f"rows a second against {name} ({said['rows']:,} rows, {said['peak_mb']:.0f} MB)",
                    f"{our_rate:,.0f}",
                    f"{rate:,.0f}",
                    f"{times:.1f} ×",
                    target,
                    times >= 10 if target else None,
                )
            )
        return found

    def workbook(self) -> Row:
        import fastexcel
        import xlsxwriter

        text = self.file("csv", MAIN)
        path = self.folder / "register.xlsx"
        with xlsxwriter.Workbook(path, {"constant_memory": True}) as book, text.open(encoding="cp874") as lines:
            sheet = book.add_worksheet()
            for place, line in zip(range(WORKBOOK_ROWS + 1), lines, strict=False):
                sheet.write_row(place, 0, line.rstrip("\n").split(","))
        contract = registry_contract(self.folder, "xlsx")
        seconds = statistics.median(self._once(contract.path, path)["seconds"] for _ in range(3))

        def parse() -> float:
            started = time.perf_counter()
            fastexcel.read_excel(path).load_sheet(0, header_row=None, dtypes="string").to_polars()
            return time.perf_counter() - started

        parsed = statistics.median(parse() for _ in range(3))
        return Row(
            f"a workbook of {WORKBOOK_ROWS:,} rows",
            f"{seconds:.2f} s",
            f"its parser alone (calamine) {parsed:.2f} s",
            f"{seconds / parsed:.2f}",
        )

    def cpu(self, seconds: float) -> Row:
        """What bounds the ingest: the work that client and server have together, and the cores there are for it."""
        path = self.file("csv", MAIN)
        before = self.server_cpu()
        client = self.ingest("csv", path)["cpu"]
        between = self.server_cpu()
        self.copy(path)
        server, theirs = between - before, self.server_cpu() - between
        cores = os.cpu_count() or 1
        return Row(
            f"CPU seconds of the register, {MAIN:,} rows",
            f"client {client:.2f} + server {server:.2f} = {client + server:.2f} s; on {cores} cores at least"
            f" {(client + server) / cores:.2f} s, {(client + server) / cores / seconds:.0%} of its time",
            f"raw COPY {theirs:.2f} s",
            f"{(client + server) / theirs:.2f}",
        )

    def server_cpu(self) -> float:
        """CPU seconds of the server so far, of its ended processes included."""
        assert self.warehouse.server is not None
        postmaster = psutil.Process(int((self.warehouse.server.data / "postmaster.pid").read_text().split()[0]))
        found = 0.0
        for process in (postmaster, *postmaster.children()):
            times = process.cpu_times()
            found += times.user + times.system
            if process == postmaster:
                found += times.children_user + times.children_system
        return found

    def file(self, form: Form, size: int) -> Path:
        path = self.folder / f"{form}_{size}.txt"
        if not path.exists():
            write_registry(path, size, form)
            path.chmod(0o644)
        return path

    def ingest(self, form: Form, path: Path, *, fresh: bool = True) -> dict[str, Any]:
        return self._once(registry_contract(self.folder, form).path, path, fresh=fresh)

    def _once(self, contract: Path, path: Path, *, fresh: bool = True) -> dict[str, Any]:
        said = _child("benchmarks.once", str(self.settings.state), str(contract), str(path), "fresh" if fresh else "")
        assert said["status"] in ("loaded", "unchanged"), said
        return said

    def copy(self, path: Path) -> float:
        """Seconds of the server's own COPY of the file into text columns, and of the key's index."""
        columns = ", ".join(f'{name} text collate "C"' for name in COLUMNS)
        with psycopg.connect(_url(self.warehouse)) as connection:
            connection.execute("drop table if exists raw_copy")
            connection.commit()
            started = time.perf_counter()
            connection.execute(f"create table raw_copy ({columns})".encode())
            connection.execute(f"copy raw_copy from '{path}' (format csv, header, encoding 'win874')".encode())
            connection.execute("create unique index raw_copy_key on raw_copy (pid) nulls not distinct")
            connection.commit()
            return time.perf_counter() - started


def _url(warehouse: Warehouse) -> str:
    """The embedded server's superuser: only it may read files on the server."""
    assert warehouse.server is not None
    secrets = bootstrap.embedded_secrets(warehouse.server.state)
    place = {"host": str(warehouse.server.socket_folder), "port": str(PORT), "dbname": "warehouse"}
    return places.make_url(place | {"user": SUPERUSER, "password": secrets[SUPERUSER]})


def _child(module: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments[:1])} failed:\n{done.stderr[-2000:]}")
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return said


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(runs, key=lambda run: float(run["seconds"]))[len(runs) // 2]


def _steps(run: dict[str, Any]) -> list[Row]:
    """Where the time of the ingest goes. Steps of its three threads and the server overlap."""
    steps = ", ".join(f"{name} {seconds:.2f}" for name, seconds in run["steps"].items() if name != "total" and seconds >= 0.005)
    return [Row(f"steps of the ingest of {MAIN:,} rows, overlapping (s)", steps)]
