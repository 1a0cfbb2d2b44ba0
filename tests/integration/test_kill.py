"""Killing a run at ten different points and running again gives the same tables and extracts as an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dopa_pipelines.warehouse import Role, open_warehouse

ROOT = Path(__file__).resolve().parents[2]

# After how many assets are done, and how many seconds later: while Dagster starts, while silos come in, while dbt
# builds, while releases are made.
POINTS = [(0, 0.3), (0, 4.0), (1, 0.0), (4, 0.1), (8, 0.0), (11, 0.3), (11, 2.5), (20, 0.0), (43, 0.0), (46, 0.05)]


def test_killed_ten_times_it_ends_the_same(demo: Any, delivered: Callable[[], Any]) -> None:
    victim = delivered()
    killed = 0
    for done, seconds in POINTS:
        killed += _run_and_kill(victim, done, seconds)
    assert killed >= 8, "too many runs ended before their kill"
    last = victim.dopa("run")
    assert last.returncode == 0, last.stderr
    assert tables(victim) == tables(demo)
    assert extracts(victim) == extracts(demo)
    assert _tmp(victim) == []


def _run_and_kill(state: Any, done: int, seconds: float) -> bool:
    """Start a run, kill it and all its children with SIGKILL at the given point; False where it had ended."""
    child = subprocess.Popen(
        [str(Path(sys.executable).with_name("dopa")), "run", "--all"],
        env=state.environment,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stderr is not None
    said: list[str] = []
    while sum("✓" in line for line in said) < done and (line := child.stderr.readline()):
        said.append(line)
    time.sleep(seconds)
    if lived := child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    said += child.stderr.readlines()
    child.stderr.close()
    assert lived or child.returncode == 0, "".join(said)
    return lived


def tables(state: Any) -> dict[str, str]:
    """Digest of every table's rows, in any order, without the numbers of deliveries.

    A table that holds one delivery is named here by the delivery's file: its number skips where a load was killed.
    """
    found = {}
    with open_warehouse(state.settings) as warehouse:
        for role, schemas in ((Role.LOADER, ("raw", "quarantine")), (Role.TRANSFORMER, ("staging", "marts", "open_data"))):
            with warehouse.connect(role) as connection:
                files = dict(
                    connection.execute("select 'raw.' || left(dataset, 40) || '__' || id, file from ops.delivery").fetchall()
                )
                columns = connection.execute(
                    "select table_schema || '.' || table_name,"
                    " string_agg(quote_ident(column_name), ', ' order by ordinal_position)"
                    " from information_schema.columns where table_schema = any(%s)"
                    " and column_name not in ('_delivery_id', 'delivery_id', 'quarantined_at') group by 1 order by 1",
                    (list(schemas),),
                ).fetchall()
                for table, names in columns:
                    rows = f"(select {names} from {table}) r"
                    digest = f"select md5(coalesce(string_agg(r::text, E'\\n' order by r::text), '')) from {rows}"
                    ((found[files.get(table, table)],),) = connection.execute(digest.encode()).fetchall()
    assert len(found) > 40
    return found


def extracts(state: Any) -> dict[str, bytes]:
    """Every file of every latest release but the one with clocks and ids."""
    releases = state.settings.releases_path
    return {
        f"{latest.parent.name}/{path.name}": path.read_bytes()
        for latest in releases.glob("*/latest")
        for path in latest.resolve().iterdir()
        if path.name != "release.json"
    }


def _tmp(state: Any) -> list[Path]:
    return list(state.settings.releases_path.rglob(".tmp-*"))
