"""Dagster's own storage, seen from outside Dagster: its configuration, runs whose process is gone, and old events.

Nothing here imports Dagster, so that ``dopa status`` stays fast; marking a run failed is Dagster's and done in ``sensors``.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import psycopg
import yaml

from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse.roles import Role
from dopa_pipelines.warehouse.warehouse import Warehouse

URL_VARIABLE = "DOPA_DAGSTER_URL"
"""Environment variable that ``dagster.yaml`` reads the storage's URL from: no password lies in the file."""

EVENT_DAYS = 90
"""Days that a finished run's log lines are kept; events of assets are kept for good."""

START_GRACE = timedelta(minutes=10)
"""A run that was launched this long ago and never reported a process is dead."""

PROCESS = "process"


def prepare_home(settings: Settings, warehouse: Warehouse) -> dict[str, str]:
    """Write ``dagster.yaml`` under the state folder and return the environment that Dagster needs."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(_configuration(), sort_keys=False)
    file = home / "dagster.yaml"
    if not file.exists() or file.read_text("utf-8") != text:
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(text, "utf-8")
        partial.replace(file)
    return {
        "DAGSTER_HOME": str(home),
        URL_VARIABLE: warehouse.url(Role.DAGSTER, "postgresql+psycopg2"),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DO_NOT_TRACK": "1",
    }


def _configuration() -> dict[str, Any]:
    retention = {"skipped": 2, "success": 30, "failure": 90, "started": 30}
    return {
        "storage": {"postgres": {"postgres_url": {"env": URL_VARIABLE}}},
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "retention": {
            "schedule": {"purge_after_days": dict(retention)},
            "sensor": {"purge_after_days": dict(retention)},
        },
        "concurrency": {"runs": {"max_concurrent_runs": 2}},
        "run_monitoring": {"enabled": True, "start_timeout_seconds": 300, "poll_interval_seconds": 60},
        "local_artifact_storage": {
            "module": "dagster._core.storage.root",
            "class": "LocalArtifactStorage",
            "config": {"base_dir": {"env": "DAGSTER_HOME"}},
        },
    }


@dataclass(frozen=True)
class Run:
    """An unfinished run. ``process``: what it reported of its process; None before it did."""

    run_id: str
    job: str
    status: str
    updated: datetime
    process: dict[str, Any] | None = None


def report_process(connection: psycopg.Connection[Any], run_id: str) -> None:
    """Note which process carries a run, so that its death can be seen from outside."""
    own = psutil.Process()
    note = {"pid": own.pid, "started": own.create_time(), "host": socket.gethostname()}
    connection.execute(
        "insert into ops.run_note (run_id, kind, note) values (%s, %s, %s)",
        (run_id, PROCESS, json.dumps(note)),
    )


def unfinished_runs(warehouse: Warehouse) -> list[Run]:
    """Runs that Dagster counts as going on. None where Dagster has no storage yet."""
    with warehouse.connect(Role.DAGSTER) as storage:
        there = storage.execute("select to_regclass('runs') is not null").fetchone()
        if not there or not there[0]:
            return []
        rows = storage.execute(
            "select run_id, pipeline_name, status, update_timestamp from runs"
            " where status in ('STARTING', 'STARTED', 'CANCELING')"
        ).fetchall()
    if not rows:
        return []
    with warehouse.connect(Role.LOADER) as connection:
        notes = dict(
            connection.execute(
                "select distinct on (run_id) run_id, note from ops.run_note where kind = %s and run_id = any(%s)"
                " order by run_id, id desc",
                (PROCESS, [row[0] for row in rows]),
            ).fetchall()
        )
    return [Run(row[0], row[1], row[2], row[3].replace(tzinfo=UTC), notes.get(row[0])) for row in rows]


def is_dead(run: Run, now: datetime | None = None) -> bool:
    """Whether the run's process is gone. A run on another host is left to that host."""
    if run.process is None:
        return (now or datetime.now(UTC)) - run.updated > START_GRACE
    if run.process["host"] != socket.gethostname():
        return False
    try:
        process = psutil.Process(run.process["pid"])
        same = abs(process.create_time() - run.process["started"]) < 1
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def dead_runs(warehouse: Warehouse) -> list[Run]:
    return [run for run in unfinished_runs(warehouse) if is_dead(run)]


def purge_events(warehouse: Warehouse, days: int = EVENT_DAYS) -> int:
    """Delete log lines of finished runs older than ``days``; returns how many. Events of assets and checks stay."""
    with warehouse.connect(Role.DAGSTER) as storage:
        there = storage.execute("select to_regclass('event_logs') is not null").fetchone()
        if not there or not there[0]:
            return 0
        gone = storage.execute(
            """
            delete from event_logs e
            using runs r
            where r.run_id = e.run_id and r.status in ('SUCCESS', 'FAILURE', 'CANCELED')
              and e.timestamp < (now() at time zone 'utc') - make_interval(days => %s)
              and e.asset_key is null
              and coalesce(e.dagster_event_type, '') not in (
                  'ASSET_MATERIALIZATION', 'ASSET_OBSERVATION', 'ASSET_CHECK_EVALUATION', 'PIPELINE_START',
                  'PIPELINE_SUCCESS', 'PIPELINE_FAILURE', 'PIPELINE_CANCELED', 'STEP_FAILURE'
              )
              and not exists (select from asset_check_executions c where c.evaluation_event_storage_id = e.id)
            """,
            (days,),
        )
        return gone.rowcount
