"""What recording lineage costs: the same work with it and without it, by turns, on one server and in one process.

Without it is made by the bench, in a database of its own: the functions that record (``lineage.record_write``, ``begin_work``,
``end_work``) do nothing, dbt's hooks that call them are empty, and nothing is made of the records afterwards.
With it is what a run under the daemon does: records of work and writes, in the work's own transactions and beside them. What is
made of them afterwards (the graph of columns, events, seals, digests), by the daemon's sensor or at the end of a command, is
measured apart.

``python -m benchmarks.recording STATE FLAG`` sends events on, over and over, as the daemon's sensor does.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from psycopg import sql

from benchmarks.measure import Row
from benchmarks.registry import registry_contract, write_registry
from dopa_pipelines.contracts import Contract
from dopa_pipelines.ingest import ingest
from dopa_pipelines.publishing.lineage import tell
from dopa_pipelines.settings import Settings
from dopa_pipelines.transform import Project
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse

ROOT = Path(__file__).resolve().parent.parent
ROWS = 1_000_000
PERSONS = 100_000
PAIRS = 7
MODEL_PAIRS = 5
OUTBOX_ROWS = 200_000
OUTBOX_RUNS = 5

# Only what records; turns and snapshots, which keep inputs and rows of one moment, stay.
_HOOKS = ("record_write", "begin_work", "begin_checks", "begin_other_checks", "end_work")
_SILENT = """
create or replace function lineage.record_write(
    p_kind text, p_target text, p_run_id text default null, p_parent_run_id text default null, p_code jsonb default null,
    p_version text default null, p_inputs jsonb default '[]', p_rows_in bigint default null, p_rows_out bigint default null,
    p_detail jsonb default null, p_environment text default 'production'
) returns bigint language sql volatile as 'select 0::bigint';
create or replace function lineage.begin_work(
    p_work uuid, p_kind text, p_target text, p_run_id text default null, p_parent_run_id text default null,
    p_inputs jsonb default '[]', p_detail jsonb default null, p_environment text default 'production',
    p_turn text default null
) returns uuid language sql volatile as 'select p_work';
create or replace function lineage.end_work(p_work uuid, p_state text, p_detail jsonb default null) returns boolean
language sql volatile as 'select true';
"""


def measure(settings: Settings) -> list[Row]:
    """Rows of the table. ``settings``: a state folder that may be filled."""
    with open_warehouse(settings) as warehouse:
        functions = _functions(warehouse)
        rows = _ingest(warehouse, settings, functions)
        rows += _outbox(warehouse, settings)
    models = Settings(state=settings.state.parent / "models" / "state")
    _make_demo(models)
    with open_warehouse(models) as warehouse:
        rows += _models(warehouse, models, _functions(warehouse))
    return rows


def _pairs(on: Callable[[], float], off: Callable[[], float], count: int) -> tuple[float, float, list[float]]:
    """Median seconds with and without, and the ratio of each pair; who begins changes, and the first pair only warms up."""
    on(), off()
    pairs = []
    for number in range(count):
        first, second = (on, off) if number % 2 else (off, on)
        one, two = first(), second()
        pairs.append((one, two) if number % 2 else (two, one))
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs), [a / b for a, b in pairs]


def _after(what: str, seconds: list[float], off: float) -> Row:
    """What is made of the records when the work is over, and what it would be of the work's own time."""
    middle = statistics.median(seconds)
    return Row(
        f"{what}: graph, events, seals, digests, made afterwards",
        f"{middle:.2f} s",
        f"the work {off:.2f} s",
        f"{middle / off:.3f}",
    )


def _row(what: str, on: float, off: float, ratios: list[float], target: str = "≤ 1.03") -> Row:
    middle = statistics.median(ratios)
    spread = f"{min(ratios):.3f} to {max(ratios):.3f} in {len(ratios)} pairs"
    return Row(what, f"{on:.2f} s", f"without recording {off:.2f} s", f"{middle:.3f} ({spread})", target, middle <= 1.03)


# What records, and what does not


def _functions(warehouse: Warehouse) -> str:
    """The functions as they are, to be put back."""
    with warehouse.connect(Role.OWNER) as connection:
        rows = connection.execute(
            "select pg_get_functiondef(p.oid) from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname = 'lineage' and p.proname in ('record_write', 'begin_work', 'end_work')"
        ).fetchall()
    if sum("insert into lineage." in row[0] for row in rows) != 3:
        raise RuntimeError("this warehouse records nothing: an earlier measure was cut off; use a new state folder")
    return ";\n".join(row[0] for row in rows)


@contextmanager
def _silent(warehouse: Warehouse, functions: str) -> Iterator[None]:
    _put(warehouse, _SILENT)
    try:
        yield
    finally:
        _put(warehouse, functions)


def _put(warehouse: Warehouse, functions: str) -> None:
    with warehouse.connect(Role.OWNER, autocommit=True) as connection:
        connection.execute(functions.encode())


# A load


def _ingest(warehouse: Warehouse, settings: Settings, functions: str) -> list[Row]:
    contract, path = _registry(settings, ROWS)
    told: list[float] = []

    def on() -> float:
        _forget(warehouse, contract)
        started = time.perf_counter()
        _done(ingest(warehouse, contract, path).status)
        ended = time.perf_counter()
        tell(warehouse, settings, contract=contract)
        told.append(time.perf_counter() - ended)
        return ended - started

    def off() -> float:
        _forget(warehouse, contract)
        with _silent(warehouse, functions):
            started = time.perf_counter()
            _done(ingest(warehouse, contract, path).status)
            return time.perf_counter() - started

    seconds, without, ratios = _pairs(on, off, PAIRS)
    path.unlink()
    what = f"recording a load of {ROWS:,} rows"
    return [_row(what, seconds, without, ratios), _after(what, told, without)]


def _registry(settings: Settings, rows: int) -> tuple[Contract, Path]:
    settings.state.mkdir(parents=True, exist_ok=True)
    folder = settings.state.parent
    path = folder / f"register-{rows}.csv"
    write_registry(path, rows)
    return registry_contract(folder), path


def _load(warehouse: Warehouse, settings: Settings, contract: Contract, path: Path) -> None:
    _done(ingest(warehouse, contract, path).status)
    tell(warehouse, settings, contract=contract)


def _done(status: str) -> None:
    if status != "loaded":
        raise RuntimeError(f"the load is {status}")


def _forget(warehouse: Warehouse, contract: Contract) -> None:
    """As if nothing had been loaded; what is recorded stays, as it does from run to run."""
    with warehouse.connect() as connection:
        for schema in ("raw", "quarantine"):
            connection.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(schema, contract.dataset)))
        connection.execute("delete from ops.delivery where dataset = %s", (contract.dataset,))
        connection.commit()


# Models


class _Unrecorded(Project):
    """The project with hooks that record nothing, copied into its state folder."""

    @property
    def folder(self) -> Path:
        return self.settings.state / "dbt_project"

    def make(self) -> None:
        shutil.copytree(ROOT / "dbt_project", self.folder)
        missing = set(_HOOKS)
        for name in ("lineage.sql", "work.sql"):
            path = self.folder / "macros" / name
            text = path.read_text("utf-8")
            for macro in _HOOKS:
                before, start, rest = text.partition(f"{{% macro {macro}(")
                if start:
                    head, _, tail = rest.partition("%}")
                    text = f"{before}{start}{head}%}}{{% endmacro %}}" + tail.split("endmacro %}", 1)[1].lstrip("-")
                    missing.discard(macro)
            path.write_text(text, "utf-8")
        if missing:
            raise RuntimeError(f"no macro {', '.join(sorted(missing))} was found to be left out")


def _models(warehouse: Warehouse, settings: Settings, functions: str) -> list[Row]:
    recorded = Project(settings, warehouse)
    unrecorded = _Unrecorded(Settings(state=settings.state.parent / "unrecorded"), warehouse)
    unrecorded.make()
    models = recorded.models
    told: list[float] = []

    def build(project: Project) -> None:
        results = project.build(project.models, run_id=str(uuid.uuid4()))
        failed = [item.message for item in results.values() if item.status == "error"]
        if failed or not {model.unique_id for model in models} <= set(results):
            raise RuntimeError(f"dbt did not build everything: {failed[:1]}")
        project.close()  # dbt's turn is the other's now

    def on() -> float:
        started = time.perf_counter()
        build(recorded)
        ended = time.perf_counter()
        tell(warehouse, settings)
        told.append(time.perf_counter() - ended)
        return ended - started

    def off() -> float:
        with _silent(warehouse, functions):
            started = time.perf_counter()
            build(unrecorded)
            return time.perf_counter() - started

    seconds, without, ratios = _pairs(on, off, MODEL_PAIRS)
    what = f"recording a build of {len(models)} models and their tests over {PERSONS:,} people"
    return [_row(what, seconds, without, ratios), _after(what, told, without)]


def _make_demo(settings: Settings) -> None:
    """Everything in, so that models have what they read."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dopa")), "demo", "--persons", str(PERSONS)],
        cwd=ROOT, env={**os.environ, "DOPA_STATE": str(settings.state)}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


# The outbox


class _Receiver(BaseHTTPRequestHandler):
    hangs = False

    def do_POST(self) -> None:
        if self.hangs:
            time.sleep(60)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""


class _Hanging(_Receiver):
    hangs = True


def _outbox(warehouse: Warehouse, settings: Settings) -> list[Row]:
    """Loads while events go to a receiver that answers, to one that hangs, and to none."""
    contract, path = _registry(settings, OUTBOX_ROWS)

    def load() -> float:
        _forget(warehouse, contract)
        started = time.perf_counter()
        _load(warehouse, settings, contract, path)
        return time.perf_counter() - started

    rows = []
    for name, handler in (("answers", _Receiver), ("hangs", _Hanging)):
        with _forwarding(settings, handler) as go:

            def on(go: Callable[[bool], None] = go) -> float:
                go(True)
                return load()

            def off(go: Callable[[bool], None] = go) -> float:
                go(False)
                return load()

            seconds, without, ratios = _pairs(on, off, OUTBOX_RUNS)
        row = _row(f"loads of {OUTBOX_ROWS:,} rows while events go out to a receiver that {name}", seconds, without, ratios)
        rows.append(Row(row.what, row.ours, f"no receiver {without:.2f} s", row.ratio, row.target, row.met))
    path.unlink()
    return rows


@contextmanager
def _forwarding(settings: Settings, handler: type[_Receiver]) -> Iterator[Callable[[bool], None]]:
    """A process beside that forwards, or stands still."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flag = settings.state.parent / "forward"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.recording", str(settings.state), str(flag)],
        cwd=ROOT, env={**os.environ, "OPENLINEAGE_URL": f"http://127.0.0.1:{server.server_port}"},
    )  # fmt: skip

    def go(on: bool) -> None:
        flag.touch() if on else flag.unlink(missing_ok=True)

    try:
        yield go
    finally:
        process.terminate()
        process.wait()
        flag.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()


def _forward(state: Path, flag: Path) -> None:
    from dopa_pipelines.lineage.outbox import forward

    with open_warehouse(Settings(state=state)) as warehouse, warehouse.connect(autocommit=True) as connection:
        while True:
            if flag.exists():
                forward(connection, at_once=True, budget_seconds=5)
            time.sleep(0.2)


if __name__ == "__main__":
    _forward(Path(sys.argv[1]), Path(sys.argv[2]))
