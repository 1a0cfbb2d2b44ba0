"""``dopa run``, ``dopa demo`` and ``dopa up``: what needs Dagster, started as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dopa_pipelines.cli.console import err, fail, out, print_json, table

if TYPE_CHECKING:
    from dopa_pipelines.settings import Settings
    from dopa_pipelines.warehouse import Warehouse

DEMO_PERSONS = 100_000
DEMO_SEED = 2568
DEMO_TOKEN = "demo"
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DONE = ("loaded", "unchanged", "built", "released", "pushed", "rejected", "failed", "missing", "held_back")


def add_to(app: typer.Typer) -> None:
    app.command("demo")(demo_command)
    app.command("run")(run_command)
    app.command("up")(up_command)


def run_command(
    select: Annotated[
        list[str] | None,
        typer.Option("--select", help="Dataset, model or publication; +name adds what it needs, name+ what descends"),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--all", help="Run everything, even where nothing is new")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Bring in what waits, build the models, make the releases. Exit code 4: something failed or was held back."""
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    with open_warehouse(settings) as warehouse, demo_silos(settings, warehouse):
        code, steps = _run(settings, warehouse, select or [], rebuild=rebuild)
        if as_json:
            print_json({"exit_code": code, "steps": steps})
    raise typer.Exit(code)


def demo_command(
    persons: Annotated[int, typer.Option(min=2000, help="People on the synthetic register")] = DEMO_PERSONS,
    seed: Annotated[int, typer.Option(help="Another seed, another department")] = DEMO_SEED,
) -> None:
    """A synthetic department, all the way from its silos to open data. Run again, it finds nothing new."""
    from dopa_pipelines.demo import generate
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    started = time.monotonic()
    settings = load_settings()
    err.print("[bold]1/4[/] warehouse: PostgreSQL starts")
    with open_warehouse(settings) as warehouse:
        made = settings.demo_path / "made.json"
        wanted = {"persons": persons, "seed": seed}
        if not made.exists() or json.loads(made.read_text("utf-8")) != wanted:
            if made.exists():
                _forget_other_demo(settings, json.loads(made.read_text("utf-8")), wanted)
            err.print(f"[bold]2/4[/] department: {persons:,} synthetic people and eleven silos are made")
            generate(settings, persons, seed)
            made.write_text(json.dumps(wanted), "utf-8")
        else:
            err.print("[bold]2/4[/] department: there already")
        with demo_silos(settings, warehouse):
            err.print("[bold]3/4[/] silos in, models built, checks run, extracts out")
            code, _ = _run(settings, warehouse, [], rebuild=False)
        err.print("[bold]4/4[/] summary\n")
        _summary(settings, warehouse)
    out.print(f"\n{time.monotonic() - started:.1f} s in all. What next:")
    out.print("  make up                       the Dagster UI and the portal on this state, until Ctrl-C")
    out.print("  dopa status                   what is loaded, waiting, rejected")
    out.print("  dopa trace hotels_licensed    from the extract back to the silo")
    out.print("  dopa quarantine list birth_event")
    if not shutil.which("dopa"):
        out.print(f"  (dopa is {_shown(Path(sys.executable).with_name('dopa'))})")
    raise typer.Exit(code)


def _forget_other_demo(settings: Settings, before: dict[str, int], wanted: dict[str, int]) -> None:
    from dopa_pipelines.errors import UserError

    raise UserError(
        f"{_shown(settings.state)} holds a demo of {before['persons']:,} people, seed {before['seed']}; for one of"
        f" {wanted['persons']:,}, seed {wanted['seed']}, run `make clean` first or set DOPA_STATE to another folder"
    )


def up_command(
    port: Annotated[int | None, typer.Option(help="Loopback port of the UI; default DOPA_PORT or 3000")] = None,
    portal_port: Annotated[int | None, typer.Option(help="Loopback port of the portal; default DOPA_PORTAL_PORT or 3001")] = None,
) -> None:
    """Serve the Dagster UI, its daemon and the portal until Ctrl-C."""
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse
    from dopa_pipelines.warehouse.ports import require_free_port

    settings = load_settings()
    chosen = port or settings.port
    if portal_port is not None:
        settings = settings.model_copy(update={"portal_port": portal_port})
    require_free_port(chosen)
    require_free_port(settings.portal_port, setting="DOPA_PORTAL_PORT")
    with open_warehouse(settings) as warehouse, demo_silos(settings, warehouse):
        # Assets link to the portal.
        environment = _environment(settings, warehouse) | {
            "DOPA_AUTOMATION": "1",
            "DOPA_PORTAL_PORT": str(settings.portal_port),
        }
        _prepare_manifest(settings, warehouse)
        workspace = ["--workspace", str(settings.root / "workspace.yaml")]
        with (
            _server(settings, environment, "dagster-webserver", "--host", "127.0.0.1", "--port", str(chosen), *workspace) as web,
            _server(settings, environment, "dagster-daemon", "run", *workspace) as daemon,
            _server(settings, environment, "dopa", "portal", log="portal") as portal,
        ):
            code = _serve_until_stopped(
                {
                    "Dagster UI": f"http://127.0.0.1:{chosen}/server_info",
                    "portal": f"http://127.0.0.1:{settings.portal_port}/health",
                },
                {"web server": web, "daemon": daemon, "portal": portal},
                settings,
            )
    raise typer.Exit(code)


@contextmanager
def _server(
    settings: Settings, environment: dict[str, str], program: str, *arguments: str, log: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, its output in the log folder; stopped with all that it started."""
    path = settings.state / "logs" / f"{log or program}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name(program)), *arguments],
            cwd=settings.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _serve_until_stopped(probes: dict[str, str], servers: dict[str, subprocess.Popen[bytes]], settings: Settings) -> int:
    """Say when what serves pages answers, then wait for Ctrl-C, SIGTERM, or the end of a server (exit code 4).

    ``probes``: an address of each, by its name, that answers once it is ready.
    """
    import threading

    import httpx

    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in _STOPPING}
    waiting = dict(probes)
    try:
        with err.status("Dagster starts") as status:
            while not stopped.wait(1.0):
                for name, process in servers.items():
                    if process.poll() is not None:
                        fail(f"the {name} ended by itself; its log lies in {_shown(settings.state / 'logs')}")
                        return 4
                for name, address in list(waiting.items()):
                    ready = False
                    with suppress(httpx.HTTPError):
                        ready = httpx.get(address, timeout=2).is_success
                    if ready:
                        del waiting[name]
                        if not waiting:
                            status.stop()
                        err.print(f"{name}: [bold]{address.rpartition('/')[0]}[/]  (Ctrl-C stops it)")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    err.print("stopping")
    return 0


@contextmanager
def demo_silos(settings: Settings, warehouse: Warehouse) -> Iterator[None]:
    """Where the state holds the demo: its departmental database and API, named in the environment as the contracts ask.

    What the environment names already stays as it is.
    """
    if not (settings.demo_path / "made.json").exists():
        yield
        return
    import psycopg

    from dopa_pipelines.demo import hotel_rows, linkage_rows, serve_linkage_api, write_departmental

    with ExitStack() as stack:
        if "DOPA_SOURCE_HOTEL_URL" not in os.environ:
            url = warehouse.departmental_database()
            with psycopg.connect(url) as connection:
                write_departmental(connection, hotel_rows(settings))
            stack.enter_context(_variable("DOPA_SOURCE_HOTEL_URL", url))
        if "DOPA_SOURCE_LINKAGE_URL" not in os.environ:
            address = stack.enter_context(serve_linkage_api(linkage_rows(settings), token=DEMO_TOKEN))
            stack.enter_context(_variable("DOPA_SOURCE_LINKAGE_URL", address))
            stack.enter_context(_variable("DOPA_SOURCE_LINKAGE_TOKEN", DEMO_TOKEN))
        yield


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _environment(settings: Settings, warehouse: Warehouse) -> dict[str, str]:
    from dopa_pipelines.warehouse.dagster_storage import prepare_home

    return {**os.environ, **prepare_home(settings, warehouse), "DOPA_STATE": str(settings.state)}


def _prepare_manifest(settings: Settings, warehouse: Warehouse) -> None:
    from dopa_pipelines.transform import Project

    _ = Project(settings, warehouse).manifest


def _run(settings: Settings, warehouse: Warehouse, select: list[str], *, rebuild: bool) -> tuple[int, list[dict[str, Any]]]:
    """Run in a Dagster process, showing its progress. Returns the exit code and what became of each asset."""
    from dopa_pipelines.cli.outstanding import outstanding
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.publishing import load_publications
    from dopa_pipelines.transform import Project

    contracts = load_contracts(settings.contracts)
    publications = load_publications(settings.contracts / "open_data")
    for problem in [*contracts.problems, *publications.problems]:
        fail(str(problem))
    models = Project(settings, warehouse).models
    if not select and not rebuild:
        with warehouse.connect() as connection:
            todo = outstanding(connection, settings, contracts, models, publications.publications)
        if not todo:
            err.print("nothing new: every delivery, model and release is up to date")
            return (2 if contracts.problems or publications.problems else 0), []
    total = len(contracts) + len(models) + len(publications.publications)
    code, steps = _watch(settings, _environment(settings, warehouse), select, total)
    if contracts.problems or publications.problems:
        code = code or 2
    return code, steps


def _watch(settings: Settings, environment: dict[str, str], select: list[str], total: int) -> tuple[int, list[dict[str, Any]]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    log = settings.state / "logs" / "run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    read, write = os.pipe()
    steps: dict[str, dict[str, Any]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with log.open("wb") as file, Progress(*columns, console=err, transient=True) as progress:
        process = subprocess.Popen(
            [sys.executable, "-m", "assets.execute", "--select", *select],
            cwd=settings.root,
            env=environment | {"DOPA_PROGRESS_FD": str(write)},
            pass_fds=(write,),
            stdout=file,
            stderr=file,
        )
        os.close(write)
        task = progress.add_task("Dagster starts", total=total)
        try:
            with os.fdopen(read, encoding="utf-8") as lines:
                for line in lines:
                    event = json.loads(line)
                    if event["state"] == "run":
                        progress.update(task, total=max(event["assets"], len(steps)) if select else total)
                    elif event["state"] in _DONE:
                        steps[event["asset"]] = event
                        progress.update(task, completed=len(steps))
                        _say(progress, event)
                    else:
                        rows = f" {event['rows']:,} rows" if "rows" in event else ""
                        progress.update(task, description=f"{event['asset']}{rows}")
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
            raise
    if code not in (0, 2, 4):
        tail = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        fail(f"the run ended before its time ({' '.join(tail)[:300]}); see {_shown(log)}")
        code = 4
    elif code == 2:
        fail(log.read_text("utf-8", "replace").strip().splitlines()[-1])
    return code, list(steps.values())


def _say(progress: Any, event: dict[str, Any]) -> None:
    name, state = event["asset"], event["state"]
    if state == "loaded":
        words = f"{event['rows_loaded']:,} rows loaded, {event['rows_quarantined']:,} quarantined"
    elif state == "built":
        words = f"built, {event['tests']} tests" + (f", failed: {', '.join(event['failed'])}" if event["failed"] else "")
    elif state == "released":
        words = f"released, {event['rows']:,} rows"
    elif state == "held_back":
        words = f"held back: {event.get('problem') or 'something it needs failed its checks'}"
    else:
        words = state if not event.get("problem") else f"{state}: {event['problem']}"
    bad = state in ("rejected", "failed", "missing", "held_back") or bool(event.get("failed"))
    progress.console.print(f"  {'[red]✗[/]' if bad else '[green]✓[/]'} {name}  ", end="")
    progress.console.print(words, style="red" if bad else "dim", markup=False)


def _summary(settings: Settings, warehouse: Warehouse) -> None:
    """Rows by dataset, models and tests, extracts: what the demo ends with."""
    from dopa_pipelines.cli.standing import datasets_table, deliveries_by_dataset
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.demo import AnswerKey
    from dopa_pipelines.publishing import load_publications
    from dopa_pipelines.transform import Project

    contracts = load_contracts(settings.contracts)
    with warehouse.connect() as connection:
        counts = deliveries_by_dataset(connection)
        built = connection.execute(
            "select count(distinct target) from lineage.write where kind = 'model' and environment = 'production'"
        ).fetchone()
    out.print(datasets_table(contracts, counts))
    models = Project(settings, warehouse).models
    tests = sum(len(model.tests) for model in models)
    out.print(f"\n{built[0] if built else 0} of {len(models)} models built, with {tests} tests")
    shown = table("extract", "rows", "latest release", right=("rows",))
    for publication in load_publications(settings.contracts / "open_data").publications:
        folder = settings.releases_path / publication.name / "latest"
        if (folder / "release.json").exists():
            manifest = json.loads((folder / "release.json").read_text("utf-8"))
            shown.add_row(publication.name, f"{manifest['rows']:,}", _shown(folder))
        else:
            shown.add_row(publication.name, "", "not released yet")
    out.print(shown)
    planted = AnswerKey.read(settings.demo_path)
    quarantined = sum(item.get("rows_quarantined", 0) for item in counts.values())
    out.print(f"\n{len(planted.defects):,} defects were planted, {quarantined:,} rows are in quarantine")


def _shown(path: Path) -> str:
    """A path as a person types it: from the working folder where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
