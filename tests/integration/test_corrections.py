"""A release can be taken back or corrected, with a reason that stays; the record decides, files follow, also after a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing import correct, publish, recover, versions, withdraw
from dopa_pipelines.publishing.held import HeldBack, held_back
from dopa_pipelines.publishing.releases import Release, seen_writes
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse
from tests.integration.releasing import assert_whole, publication, records

WHO = {"why": "ตัวเลขผิด", "by": "steward", "run_id": "run-w"}


def changed(warehouse: Warehouse, here: Settings, places: psycopg.Connection[Any], name: str) -> Release:
    places.execute("update open_data.places_to_test set people = people + 1")
    return publish(warehouse, here, publication(name), "run-n")


def tombstone(folder: Path) -> dict[str, Any]:
    assert [path.name for path in folder.iterdir()] == ["WITHDRAWN.json"]
    return dict(json.loads((folder / "WITHDRAWN.json").read_text("utf-8")))


def test_a_withdrawn_release_leaves_a_tombstone_and_latest_moves_back(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection[Any]
) -> None:
    first = publish(warehouse, here, publication("taken"), "run-1")
    second = changed(warehouse, here, places, "taken")
    manifest = json.loads((second.path / "release.json").read_text())
    told = withdraw(warehouse, here, "taken", None, **WHO)
    assert (told["version"], told["replaced_by"]) == (second.version, first.version)
    stone = tombstone(second.path)
    assert {name: stone[name] for name in ("why", "by", "replaced_by")} == {
        "why": "ตัวเลขผิด", "by": "steward", "replaced_by": first.version,
    }  # fmt: skip
    assert stone["at"] and stone["was"]["digest"] == manifest["digest"]
    latest = here.releases_path / "taken" / "latest"
    assert str(latest.readlink()) == first.version
    assert_whole(latest)
    assert [(item.version, item.state) for item in versions(warehouse, here, "taken")] == [
        (second.version, "withdrawn"), (first.version, "latest"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="withdrawn already: ตัวเลขผิด"):
        withdraw(warehouse, here, "taken", second.version, **WHO)


def test_an_older_release_can_be_withdrawn_and_latest_stays(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection[Any]
) -> None:
    first = publish(warehouse, here, publication("older"), "run-1")
    second = changed(warehouse, here, places, "older")
    assert withdraw(warehouse, here, "older", first.version, **WHO)["replaced_by"] == second.version
    tombstone(first.path)
    assert str((here.releases_path / "older" / "latest").readlink()) == second.version
    assert publish(warehouse, here, publication("older"), "run-3").status == "unchanged"


def test_the_only_release_withdrawn_leaves_latest_at_the_tombstone(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection[Any]
) -> None:
    row = places.execute("select max(id) from lineage.write where target = 'open_data.places_to_test'").fetchone()
    assert row is not None
    only = publish(warehouse, here, publication("only"), "run-1")
    assert withdraw(warehouse, here, "only", only.version, **WHO)["replaced_by"] is None
    tombstone(here.releases_path / "only" / "latest")

    # The same content is not released again by itself, and nobody is told to try again and again.
    with pytest.raises(HeldBack, match="this very content was withdrawn"):
        publish(warehouse, here, publication("only"), "run-2")
    with warehouse.connect(Role.READER) as connection:
        assert [item.reasons[0]["rule"] for item in held_back(connection) if item.publication == "only"] == ["withdrawn"]
        assert seen_writes(connection, here, publication("only")) == row[0]

    again = publish(warehouse, here, publication("only"), "run-3", again=True)
    assert again.status == "released" and again.version != only.version
    assert_whole(here.releases_path / "only" / "latest")
    tombstone(only.path)
    assert publish(warehouse, here, publication("only"), "run-4").status == "unchanged"


def test_changed_content_goes_out_after_a_withdrawal(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection[Any]
) -> None:
    first = publish(warehouse, here, publication("mended_data"), "run-1")
    withdraw(warehouse, here, "mended_data", None, **WHO)
    second = changed(warehouse, here, places, "mended_data")
    assert second.status == "released"
    assert_whole(here.releases_path / "mended_data" / "latest")
    # Back to what was withdrawn: still not.
    places.execute("update open_data.places_to_test set people = people - 1")
    with pytest.raises(HeldBack):
        publish(warehouse, here, publication("mended_data"), "run-3")
    assert first.version in {item.version for item in versions(warehouse, here, "mended_data")}


def test_a_correction_links_both_releases_by_an_erratum(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection[Any]
) -> None:
    wrong = publish(warehouse, here, publication("righted"), "run-1")
    with pytest.raises(UserError, match="nothing that corrects it"):
        correct(warehouse, here, publication("righted"), wrong.version, **WHO)
    places.execute("update open_data.places_to_test set people = 7 where code = '000001'")
    right, told = correct(warehouse, here, publication("righted"), wrong.version, **WHO)
    assert right.status == "released" and told["corrects"] == wrong.version
    for release in (wrong, right):
        assert (release.path / "righted.csv").exists(), "a corrected release stays available"
        (erratum,) = json.loads((release.path / "ERRATUM.json").read_text("utf-8"))["errata"]
        assert (erratum["corrects"], erratum["corrected_by"], erratum["why"]) == (wrong.version, right.version, "ตัวเลขผิด")
    assert str((here.releases_path / "righted" / "latest").readlink()) == right.version
    assert publish(warehouse, here, publication("righted"), "run-3").status == "unchanged"
    # What is right went out already: only the erratum is made.
    places.execute("update open_data.places_to_test set people = 8 where code = '000001'")
    third = publish(warehouse, here, publication("righted"), "run-4")
    again, _ = correct(warehouse, here, publication("righted"), right.version, **WHO)
    assert (again.status, again.version) == ("unchanged", third.version)
    assert len(json.loads((right.path / "ERRATUM.json").read_text("utf-8"))["errata"]) == 2


@pytest.mark.parametrize(
    ("name", "version", "why", "words"),
    [
        ("wrongs", "2026-01-01-00000000", "x", "no release '2026-01-01-00000000'"),
        ("wrongs", None, "  ", "--why"),
        ("never_released", None, "x", "never released here"),
    ],
)
def test_what_cannot_be_withdrawn_is_one_sentence(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection[Any], name: str, version: str | None, why: str, words: str
) -> None:
    publish(warehouse, here, publication("wrongs"), "run-1")
    with pytest.raises(UserError, match=words):
        withdraw(warehouse, here, name, version, why=why, by="steward", run_id="run-w")


# Killing

CHILD = """
import os, signal, sys
import psycopg
from dopa_pipelines.publishing import withdraw
from dopa_pipelines.settings import load_settings
from dopa_pipelines.warehouse import open_warehouse

event, needle, name = sys.argv[1:4]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

armed = False

def hook(called, arguments):
    if armed and called == event and any(needle in str(argument) for argument in arguments[:2]):
        die()

sys.addaudithook(hook)
if event == "commit":
    commit = psycopg.Connection.commit
    def after(self):
        commit(self)
        if armed and needle == "after":
            die()
    psycopg.Connection.commit = after
with open_warehouse(load_settings()) as warehouse:
    armed = event != "commit"
    if not armed:
        from dopa_pipelines.publishing import corrections
        follow = corrections.follow
        corrections.follow = lambda *given: die()
    withdraw(warehouse, load_settings(), name, None, why="x", by="steward", run_id="run-killed")
"""

POINTS = {
    "the record is committed": ("commit", "after"),
    "moving the link": ("os.rename", "/.latest-"),
    "making the tombstone's folder": ("os.mkdir", "/.tmp-"),
    "writing the tombstone": ("open", "WITHDRAWN.json"),
    "removing what was there": ("os.unlink", ".csv"),
    "removing its folder": ("shutil.rmtree", "/.tmp-"),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_withdrawal_killed_anywhere_is_brought_to_its_end(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection[Any], environment: dict[str, str], point: str
) -> None:
    name = f"buried{list(POINTS).index(point):02}"
    first = publish(warehouse, here, publication(name), "run-1")
    second = changed(warehouse, here, places, name)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *POINTS[point], name],
        env=environment | {"DOPA_RELEASES": str(here.releases_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if point == "removing what was there":
        assert child.returncode in (-signal.SIGKILL, 0), child.stderr  # files go by their names in an open folder
    else:
        assert child.returncode == -signal.SIGKILL, child.stderr
    assert_whole(here.releases_path / name / "latest")
    recover(warehouse, here, name, "run-2")
    assert str((here.releases_path / name / "latest").readlink()) == first.version
    assert_whole(first.path)
    tombstone(second.path)
    assert recover(warehouse, here, name, "run-3") == []
    assert sorted(path.name for path in (here.releases_path / name).iterdir()) == sorted(
        [".lock", "latest", first.version, second.version]
    )
    assert sum("withdrawn" in detail for _, detail, _ in records(warehouse, name)) == 1


PUBLISHER = """
import sys
from dopa_pipelines.publishing import Publication, publish
from dopa_pipelines.settings import load_settings
from dopa_pipelines.warehouse import open_warehouse
with open_warehouse(load_settings()) as warehouse:
    print("ready", flush=True)
    while True:
        publish(warehouse, load_settings(), Publication.model_validate_json(sys.argv[1]), "run-killed")
"""


def test_a_reader_never_sees_half_a_release_while_publishers_are_killed_at_random(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection[Any], environment: dict[str, str]
) -> None:
    publish(warehouse, here, publication("random"), "run-0")
    latest = here.releases_path / "random" / "latest"
    stop = threading.Event()
    faults: list[str] = []
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            try:
                folder = latest.resolve(strict=True)
                assert_whole(folder)
                seen.add(folder.name)
            except (OSError, AssertionError) as error:
                faults.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    draw = random.Random(2568)
    kills = 0
    # At least so many kills, and so many releases seen in spite of them.
    while kills < 6 or (len(seen) < 4 and kills < 30):
        child = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, publication("random").model_dump_json(by_alias=True)],
            env=environment | {"DOPA_RELEASES": str(here.releases_path)},
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        end = time.monotonic() + draw.uniform(0.05, 2.5)
        while time.monotonic() < end:
            places.execute("update open_data.places_to_test set people = people + 1")
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        kills += 1
        child.stdout.close()
    stop.set()
    reader.join()
    assert not faults, faults[:3]
    assert len(seen) > 3
    last = publish(warehouse, here, publication("random"), "run-last")
    assert str(latest.readlink()) == last.version
    assert_whole(latest)
    # Whatever was recorded lies there, and nothing else.
    recorded = {str(detail["version"]) for _, detail, _ in records(warehouse, "random")}
    assert {path.name for path in (here.releases_path / "random").iterdir()} == recorded | {".lock", "latest"}
