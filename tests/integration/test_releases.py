"""Releases: whole or not at all, also when the publisher is killed; recorded before they are visible; the
same data, the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from benchmarks import releases as bench
from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing import publish, recover
from dopa_pipelines.publishing.rows import snapshot
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse
from tests.integration.releasing import assert_whole, publication, records


def content(folder: Path, name: str) -> dict[str, bytes]:
    """What a release holds with the publication's name taken out; clocks (release.json), sums over names, and what tells of the
    release before, aside."""
    return {
        path.name.replace(name, "NAME"): path.read_bytes()
        .replace(folder.resolve().name.encode(), b"VERSION")
        .replace(name.encode(), b"NAME")
        for path in folder.iterdir()
        if path.name not in ("release.json", "checksums.sha256", "changes.json", "dcat.jsonld")
    }


def test_a_release_is_whole_recorded_and_visible(warehouse: Warehouse, here: Settings, places: psycopg.Connection) -> None:
    release = publish(warehouse, here, publication("whole"), "run-1")
    latest = here.releases_path / "whole" / "latest"
    assert (release.status, release.rows) == ("released", 1000)
    assert set(release.files) == {
        "whole.csv",
        "whole.json",
        "whole.parquet",
        "data_dictionary.csv",
        "metadata.json",
        "datapackage.json",
        "dcat.jsonld",
        "checksums.sha256",
        "release.json",
    }
    assert str(latest.readlink()) == release.version == release.path.name
    assert_whole(latest)
    manifest = json.loads((latest / "release.json").read_text())
    assert release.version.endswith("-" + manifest["digest"][:8])
    for path in latest.iterdir():
        assert b"1101700203451" not in path.read_bytes()
    rows = json.loads((latest / "whole.json").read_text("utf-8"))
    assert [row["code"] for row in rows] == [f"{i:06}" for i in range(1, 1001)]
    ((kind, detail, inputs),) = records(warehouse, "whole")
    assert kind == "release"
    assert (detail["version"], detail["digest"], detail["rows"]) == (
        release.version,
        manifest["digest"],
        1000,
    )
    assert inputs[0]["name"] == "open_data.places_to_test"


def test_the_release_names_the_write_that_its_snapshot_saw(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection
) -> None:
    row = places.execute("select max(id) from lineage.write where target = 'open_data.places_to_test'").fetchone()
    assert row is not None
    release = publish(warehouse, here, publication("writes"), "run-1")
    assert json.loads((release.path / "release.json").read_text())["source_writes"] == [row[0]]
    assert records(warehouse, "writes")[0][2][0]["write"] == row[0]


def test_nothing_is_published_when_nothing_changed(warehouse: Warehouse, here: Settings, places: psycopg.Connection) -> None:
    first = publish(warehouse, here, publication("same"), "run-1")
    # The same rows, stored anew in another order.
    places.execute("create temporary table kept as select * from open_data.places_to_test")
    places.execute("truncate open_data.places_to_test")
    places.execute("insert into open_data.places_to_test select * from kept order by code desc")
    second = publish(warehouse, here, publication("same"), "run-2")
    assert (second.status, second.version) == ("unchanged", first.version)
    assert len(records(warehouse, "same")) == 1
    assert sorted(path.name for path in (here.releases_path / "same").iterdir()) == sorted([".lock", "latest", first.version])


def test_a_change_makes_a_release_beside_the_old_one_and_going_back_shows_the_old_again(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection
) -> None:
    first = publish(warehouse, here, publication("change"), "run-1")
    before = content(first.path, "change")
    places.execute("update open_data.places_to_test set people = 5 where code = '000001'")
    second = publish(warehouse, here, publication("change"), "run-2")
    assert second.status == "released" and second.version != first.version
    assert content(first.path, "change") == before
    places.execute("update open_data.places_to_test set people = 1 where code = '000001'")
    third = publish(warehouse, here, publication("change"), "run-3")
    assert (third.status, third.version) == ("released", first.version)
    assert str((here.releases_path / "change" / "latest").readlink()) == first.version
    assert len(records(warehouse, "change")) == 3


def test_what_is_said_about_the_data_is_content_too(warehouse: Warehouse, here: Settings, places: psycopg.Connection) -> None:
    first = publish(warehouse, here, publication("said"), "run-1")
    second = publish(warehouse, here, publication("said", titleTh="สถานที่ต่างๆ"), "run-2")
    assert second.version != first.version


def test_rows_equal_by_the_order_have_one_order_all_the_same(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection
) -> None:
    loosely = {"orderBy": ["city"]}
    first = publish(warehouse, here, publication("ties", **loosely), "run-1")
    places.execute("create temporary table kept as select * from open_data.places_to_test")
    places.execute("truncate open_data.places_to_test")
    places.execute("insert into open_data.places_to_test select * from kept order by code desc")
    assert publish(warehouse, here, publication("ties", **loosely), "run-2").version == first.version


CODE = {"name": "code", "source": "code", "type": "string", "descriptionEn": "Code", "descriptionTh": "รหัส"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "open_data.nowhere"}, ["open_data.nowhere", "isn't in the warehouse"]),
        ({"columns": [{**CODE, "source": "kode"}]}, ["no column kode", "code"]),
        ({"columns": [{**CODE, "type": "integer"}]}, ["declared integer", "is text"]),
    ],
)
def test_a_source_that_is_not_what_the_publication_says_is_refused(
    warehouse: Warehouse,
    here: Settings,
    places: psycopg.Connection,
    changes: dict[str, object],
    words: list[str],
) -> None:
    with pytest.raises(UserError) as caught:
        publish(warehouse, here, publication("refused", **changes), "run-1")
    assert all(word in str(caught.value) for word in words), caught.value
    assert [path.name for path in (here.releases_path / "refused").iterdir()] == [".lock"]
    assert records(warehouse, "refused") == []


def test_a_release_that_was_tampered_with_is_not_passed_off_as_unchanged(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection
) -> None:
    release = publish(warehouse, here, publication("tampered"), "run-1")
    (release.path / "tampered.csv").chmod(0o644)
    (release.path / "tampered.csv").write_text("code\n1\n")
    with pytest.raises(UserError, match=r"tampered\.csv is gone or was changed"):
        publish(warehouse, here, publication("tampered"), "run-2")


def test_a_rebuild_of_the_source_waits_for_the_snapshot(warehouse: Warehouse, here: Settings, places: psycopg.Connection) -> None:
    places.execute("set lock_timeout = '50ms'")
    with snapshot(warehouse, publication("waits")) as source:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            places.execute("alter table open_data.places_to_test rename to places_old")
        places.execute("delete from open_data.places_to_test")
        assert sum(table.num_rows for table in source.batches()) == 1000


# Killing

CHILD = """
import os, signal, sys
from pathlib import Path
import psycopg
from dopa_pipelines.publishing import Publication, publish
from dopa_pipelines.settings import load_settings
from dopa_pipelines.warehouse import open_warehouse

event, needle, text = sys.argv[1:4]
armed = False

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def hook(name, arguments):
    if armed and name == event:
        paths = [str(argument) for argument in arguments[:2]]
        whole = needle.endswith("/")
        if needle[:-1] in paths if whole else any(needle in path for path in paths):
            die()

sys.addaudithook(hook)
if event == "statement":
    execute = psycopg.Cursor.execute
    def after(self, query, *arguments, **keywords):
        done = execute(self, query, *arguments, **keywords)
        if needle in str(query):
            die()
        return done
    psycopg.Cursor.execute = after
with open_warehouse(load_settings()) as warehouse:
    armed = True
    publish(warehouse, load_settings(), Publication.model_validate_json(text), "run-killed")
"""

# What the publisher is about to do when it is killed, in the order in which it comes.
POINTS = {
    "making the temporary folder": ("os.mkdir", "/.tmp-"),
    "opening the last data file": ("open", ".parquet"),
    "writing the dictionary": ("open", "data_dictionary.csv"),
    "writing the metadata": ("open", "metadata.json"),
    "telling what changed": ("open", "changes.json"),
    "writing the DCAT description": ("open", "dcat.jsonld"),
    "writing the data package": ("open", "datapackage.json"),
    "writing the checksums": ("open", "checksums.sha256"),
    "writing the manifest": ("open", "release.json"),
    "making files read-only": ("os.chmod", "release.json"),
    "naming the folder": ("os.rename", "/.tmp-"),
    "flushing the new name": ("open", "{folder}/"),
    "committing the record": ("statement", "lineage.record_write"),
    "making the link": ("os.symlink", ""),
    "moving the link": ("os.rename", "/.latest-"),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_and_run_again_it_ends_the_same(
    warehouse: Warehouse,
    here: Settings,
    places: psycopg.Connection,
    environment: dict[str, str],
    point: str,
) -> None:
    name = f"killed{list(POINTS).index(point):02}"
    event, needle = POINTS[point]
    folder = here.releases_path / name
    latest = folder / "latest"
    old = publish(warehouse, here, publication(name), "run-1")
    places.execute("update open_data.places_to_test set people = people + 1")
    text = publication(name).model_dump_json(by_alias=True)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, event, needle.format(folder=folder), text],
        env=environment | {"DOPA_RELEASES": str(here.releases_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert str(latest.readlink()) == old.version
    assert_whole(latest)

    again = publish(warehouse, here, publication(name), "run-2")

    assert str(latest.readlink()) == again.version != old.version
    assert_whole(latest)
    assert sorted(path.name for path in folder.iterdir()) == sorted([".lock", "latest", old.version, again.version])
    reference = publish(warehouse, here, publication(f"spared{name[-2:]}"), "run-3")
    assert content(again.path, name) == content(reference.path, f"spared{name[-2:]}")
    assert [detail["version"] for _, detail, _ in records(warehouse, name)] == [old.version, again.version]


def test_recovery_alone_ends_what_was_begun_and_then_finds_nothing(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection, environment: dict[str, str]
) -> None:
    old = publish(warehouse, here, publication("mended"), "run-1")
    places.execute("update open_data.places_to_test set people = people + 1")
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            CHILD,
            "statement",
            "lineage.record_write",
            publication("mended").model_dump_json(by_alias=True),
        ],
        env=environment | {"DOPA_RELEASES": str(here.releases_path)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    assert len(recover(warehouse, here, "mended", "run-2")) == 2
    new = str((here.releases_path / "mended" / "latest").readlink())
    assert new != old.version
    assert records(warehouse, "mended")[-1][1]["recovered"] is True
    assert recover(warehouse, here, "mended", "run-3") == []
    assert publish(warehouse, here, publication("mended"), "run-4").status == "unchanged"


def test_a_release_that_went_out_and_lost_its_record_is_kept_and_does_not_come_back(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection
) -> None:
    first = publish(warehouse, here, publication("lost"), "run-1")
    places.execute("update open_data.places_to_test set people = people + 1")
    second = publish(warehouse, here, publication("lost"), "run-2")
    with warehouse.connect(Role.OWNER) as connection:
        # Gone for who publishes; events and definitions that tell of it keep the row itself from being deleted.
        connection.execute(
            "update lineage.write set target = 'release:elsewhere' where target = 'release:lost' and detail ->> 'version' = %s",
            [first.version],
        )
    manifest = first.path / "release.json"
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text().replace('"created": "20', '"created": "19'))
    assert recover(warehouse, here, "lost", "run-3") == [f"recorded the release {first.version}"]
    assert str((here.releases_path / "lost" / "latest").readlink()) == second.version
    assert publish(warehouse, here, publication("lost"), "run-4").status == "unchanged"


def test_a_reader_sees_a_whole_release_while_publishers_take_turns(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection
) -> None:
    publish(warehouse, here, publication("busy"), "run-0")
    latest = here.releases_path / "busy" / "latest"
    stop = threading.Event()
    faults: list[str] = []
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            try:
                folder = latest.resolve(strict=True)
                manifest = json.loads((folder / "release.json").read_bytes())
                rows = json.loads((folder / "busy.json").read_bytes())
                if manifest["rows"] != len(rows) or len({row["people"] for row in rows}) != 1000:
                    faults.append("a release in parts")
                seen.add(folder.name)
            except OSError as error:
                faults.append(str(error))

    def work(run: str) -> None:
        try:
            publish(warehouse, here, publication("busy"), run)
        except Exception as error:
            faults.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(3):
        places.execute("update open_data.places_to_test set people = people + 1")
        publishers = [threading.Thread(target=work, args=[f"run-{turn}-{each}"]) for each in range(3)]
        for publisher in publishers:
            publisher.start()
        for publisher in publishers:
            publisher.join()
    stop.set()
    reader.join()
    assert not faults
    assert len(seen) > 1
    assert len(records(warehouse, "busy")) == 4


def test_a_full_disk_is_one_sentence(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("dopa_pipelines.publishing.releases.os.fsync", full)
    with pytest.raises(UserError, match="is full, so fullness was not released"):
        publish(warehouse, here, publication("fullness"), "run-1")
    assert [path.name for path in (here.releases_path / "fullness").iterdir()] == [".lock"]


def test_releases_can_be_measured(settings: Settings, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """``make bench`` lets a table of its own through the gate; what comes of it is not judged here."""
    monkeypatch.setattr(bench, "SIZES", (3_000,))
    monkeypatch.setattr(bench, "RUNS", {3_000: 1})
    rows = bench.measure(settings)
    assert [row.what for row in rows[:-1]] == [
        f"release of 3,000 rows as {form}" for form in ("csv", "parquet", "csv and parquet")
    ]
    assert not [path for path in settings.releases_path.glob("bench_*") if path.is_dir()]
    with warehouse.connect(Role.READER) as connection:
        assert connection.execute("select to_regclass('open_data.bench_3000')").fetchone() == (None,)
