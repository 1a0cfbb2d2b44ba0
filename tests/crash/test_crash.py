"""A few kills in every test run; ``python -m tests.crash`` does a hundred."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.errors import UnfinishedError
from dopa_pipelines.ingest import ingest
from dopa_pipelines.ingest.inspect import table_facts
from dopa_pipelines.ingest.rebuild import rebuild
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import open_warehouse
from tests.crash.suite import disturbed, make_work, undisturbed


def test_killed_at_any_point_the_next_run_finishes_the_work_once(make_contract: Any, tmp_path: Path) -> None:
    work = make_work(make_contract, tmp_path, rows=5_000)
    expected = undisturbed(tmp_path / "a" / "state", work)
    tally = disturbed(tmp_path / "b" / "state", work, expected, client=9, server=3, seed=2569)
    assert tally.differences == []
    assert tally.killed >= 6, tally


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    place.chmod(0o755)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_told_and_the_next_run_finishes_the_work(make_contract: Any, small_disk: Path, tmp_path: Path) -> None:
    key = {"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1}
    contract = make_contract("disk_full", [key, {"name": "v"}], load={"mode": "append"})
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("k,v\n0,x\n")
    second.write_text("k,v\n" + "".join(f"{number},{number:0100}\n" for number in range(200_000)))
    with open_warehouse(Settings(state=small_disk / "state")) as warehouse:
        ingest(warehouse, contract, first)
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file:
            file.write(bytes(max(0, shutil.disk_usage(small_disk).free - (12 << 20))))
        with pytest.raises(UnfinishedError, match=r"second\.csv: the disk of the warehouse's server is full"):
            ingest(warehouse, contract, second)
        with warehouse.connect() as connection:
            assert connection.execute("select count(*) from raw.disk_full").fetchone() == (1,)
        ballast.unlink()
        done = ingest(warehouse, contract, second)
        assert (done.status, done.rows_loaded) == ("loaded", 200_000)
        with warehouse.connect() as connection:
            assert connection.execute("select count(*) from raw.disk_full").fetchone() == (200_000,)
            assert table_facts(connection, contract).reconciled
        assert rebuild(warehouse, contract).equal
