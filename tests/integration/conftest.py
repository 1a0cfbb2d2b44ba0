"""A demo of 2,000 people, made once for the whole session, and copies of it for tests that change things."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from dopa_pipelines.demo import generate
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse

ROOT = Path(__file__).resolve().parents[2]
DOPA = str(Path(sys.executable).with_name("dopa"))
PERSONS = 2_000
SEED = 2568


@dataclass(frozen=True)
class Demo:
    """A state folder with a demo in it, and what ``dopa demo`` said when it made it."""

    state: Path
    output: str = ""

    @property
    def settings(self) -> Settings:
        return Settings(state=self.state)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"DOPA_STATE": str(self.state)}

    def dopa(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command line on this state."""
        return subprocess.run(
            [DOPA, *arguments], env=self.environment | variables, cwd=ROOT, capture_output=True, text=True, timeout=900
        )


def _copy(source: Path, target: Path) -> Path:
    # cp -a keeps the owner of the server's files, which a copy by Python does not.
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    return target


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory, _no_settings_from_outside: None) -> tuple[Path, str]:
    """Folder with ``delivered`` (silos generated, nothing run), ``pristine`` (run, never to be opened) and ``shared``."""
    # pytest-xdist gives each worker a folder of its own below a common one.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "demo"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = folder / "output"
        if not said.exists():
            delivered = Demo(folder / "delivered")
            with open_warehouse(delivered.settings):
                generate(delivered.settings, PERSONS, SEED)
            (delivered.settings.demo_path / "made.json").write_text(json.dumps({"persons": PERSONS, "seed": SEED}))
            _wait_until_stopped(delivered.state)
            made = Demo(_copy(delivered.state, folder / "pristine"))
            done = made.dopa("demo", "--persons", str(PERSONS))
            assert done.returncode == 0, done.stdout + done.stderr
            _wait_until_stopped(made.state)
            _copy(made.state, folder / "shared")
            said.write_text(done.stderr + done.stdout)
    return folder, (folder / "output").read_text()


def _wait_until_stopped(state: Path) -> None:
    """Until the embedded server of ``state`` has stopped: only then are its files whole."""
    import time

    for _ in range(300):
        if not (state / "pg" / "data" / "postmaster.pid").exists():
            return
        time.sleep(0.1)
    raise AssertionError("the embedded server did not stop")


@pytest.fixture(scope="session")
def demo(_made: tuple[Path, str]) -> Demo:
    """The session's demo: for looking only."""
    folder, output = _made
    return Demo(folder / "shared", output)


@pytest.fixture
def own_demo(_made: tuple[Path, str], tmp_path: Path) -> Demo:
    """A copy of the demo that the test may change."""
    return Demo(_copy(_made[0] / "pristine", tmp_path / "state"))


@pytest.fixture
def delivered(_made: tuple[Path, str], tmp_path: Path) -> Callable[[], Demo]:
    """Makes states in which the silos have delivered and nothing has run yet."""
    made = iter(range(100))
    return lambda: Demo(_copy(_made[0] / "delivered", tmp_path / f"state{next(made)}"))


MADE_BY = "select '1' as code, 'ก' as name_th, 1 as people, 1.0 as area, date '2020-01-01' as since, true as city"
"""The statement that the places to publish are said to be made by; it reads nothing."""

RECORDED = """
create or replace function open_data.record_places() returns trigger language plpgsql as $f$
begin
    perform lineage.record_write(
        'model', 'open_data.places_to_test', 'run-0', p_rows_out => (select count(*) from open_data.places_to_test),
        p_code => jsonb_build_object('compiled', {made_by})
    );
    return null;
end $f$;
create trigger recorded after insert or update or delete on open_data.places_to_test
    for each statement execute function open_data.record_places()
"""


@pytest.fixture
def places(warehouse: Warehouse) -> Iterator[psycopg.Connection]:
    """A table to publish, of 1,000 rows in no order, with a column that no publication lists; a connection
    that owns it."""
    with warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection:
        connection.execute("drop table if exists open_data.places_to_test")
        connection.execute(
            "create table open_data.places_to_test (code text, name_th text, people integer, area "
            "numeric(10, 2), "
            "since date, city boolean, pid text)"
        )
        # Like a model, each change of it records what it is made by: the gate lets nothing else out.
        connection.execute(RECORDED.replace("{made_by}", f"$sql${MADE_BY}$sql$").encode())
        connection.execute(
            "insert into open_data.places_to_test select lpad(i::text, 6, '0'), "
            "case i % 4 when 0 then '=1+1' when 1 then null when 2 then E'กำ\"แพง\"\\nเพชร' else 'ก' end, "
            "i, i / 7.0, date '2020-01-01' + i, i % 2 = 0, '1101700203451' "
            "from generate_series(1, 1000) as i order by md5(i::text)"
        )
        yield connection
        connection.execute("drop table open_data.places_to_test")
        connection.execute("drop function open_data.record_places")


@pytest.fixture
def here(settings: Settings, tmp_path: Path) -> Settings:
    """The session's settings with releases in a folder of this test."""
    return settings.model_copy(update={"releases": tmp_path / "releases"})
