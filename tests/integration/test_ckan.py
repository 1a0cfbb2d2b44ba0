"""Releases in a catalogue: by hand and by Dagster, recorded, against the stand-in of a CKAN site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dopa_pipelines.definitions import build_definitions
from dopa_pipelines.publishing import load_publications
from dopa_pipelines.settings import Settings, load_settings
from dopa_pipelines.warehouse import open_warehouse
from dopa_pipelines.warehouse.dagster_storage import prepare_home
from tests.ckan.standin import ORGANISATION, TOKEN, Standin, serve

ROOT = Path(__file__).resolve().parents[2]
NAMES = [item.name for item in load_publications(ROOT / "assets" / "open_data").publications]


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Standin]:
    (tmp_path / "site").mkdir()
    with serve(tmp_path / "site") as site:
        yield site


def variables(site: Standin) -> dict[str, str]:
    return {"DOPA_CKAN_URL": site.url, "DOPA_CKAN_TOKEN": TOKEN, "DOPA_CKAN_ORGANISATION": ORGANISATION}


def test_by_hand(own_demo: Any, catalogue: Standin) -> None:
    known = variables(catalogue)
    none = own_demo.dopa("ckan", "push")
    assert none.returncode == 2 and "No catalogue is configured" in none.stderr

    # One dataset fails for good; the others go out.
    catalogue.faults["package_create"] = [409]
    done = own_demo.dopa("ckan", "push", "--json", **known)
    assert done.returncode == 4
    pushed = {item["publication"]: item for item in json.loads(done.stdout)["pushed"]}
    assert sorted(pushed) == sorted(NAMES)
    failed = NAMES[0]
    assert {name for name, item in pushed.items() if item["status"] != "created"} == {failed}
    assert not catalogue.broken
    latest = own_demo.settings.releases_path / "births_by_province" / "latest"
    manifest = json.loads((latest / "release.json").read_text("utf-8"))
    shown = catalogue.shown("births_by_province")
    assert shown["version"] == manifest["version"]
    for resource in shown["resources"]:
        assert catalogue.content(resource) == (latest / resource["description"]).read_bytes()

    status = own_demo.dopa("status")
    assert f"{len(NAMES) - 1} extracts in {catalogue.url}" in status.stdout
    assert f"{failed} was not pushed" in status.stdout

    again = own_demo.dopa("ckan", "push", "--json", **known)
    assert again.returncode == 0
    statuses = {item["publication"]: item["status"] for item in json.loads(again.stdout)["pushed"]}
    assert statuses == {name: "created" if name == failed else "unchanged" for name in NAMES}

    gone = own_demo.dopa("ckan", "withdraw", "births_by_province", "--why", "พบตัวเลขผิด", **known)
    assert gone.returncode == 0, gone.stderr
    assert catalogue.shown("births_by_province")["resources"] == []
    held = own_demo.dopa("ckan", "push", "births_by_province", **known)
    assert held.returncode == 4 and "was withdrawn" in held.stderr

    # A release that is taken back takes the catalogue's with it.
    back = own_demo.dopa("release", "withdraw", "deaths_by_cause", "--why", "นับซ้ำ", **known)
    assert back.returncode == 0, back.stderr
    page = catalogue.shown("deaths_by_cause")
    assert page["resources"] == [] and "นับซ้ำ" in page["notes"]

    with open_warehouse(own_demo.settings) as warehouse, warehouse.connect() as connection:
        told = connection.execute("select string_agg(t::text, ' ') from ops.ckan_push t").fetchone()
    assert told is not None and failed in told[0] and TOKEN not in told[0]
    said = [run.stdout + run.stderr for run in (done, again, gone, held, status)]
    assert not any(TOKEN in text for text in said)


def test_no_assets_without_a_catalogue() -> None:
    found = build_definitions(load_settings()).resolve_all_asset_keys()
    assert not [key for key in found if key.path[0] == "ckan"]


def test_as_assets_after_their_releases(own_demo: Any, catalogue: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPA_STATE", str(own_demo.state))
    for name, value in variables(catalogue).items():
        monkeypatch.setenv(name, value)
    defs = build_definitions(Settings())
    keys = {key for key in defs.resolve_all_asset_keys() if key.path[0] == "ckan"}
    assert {key.path[1] for key in keys} == set(NAMES)
    nightly = defs.resolve_job_def("nightly")
    assert not keys & set(nightly.asset_layer.executable_asset_keys)
    with open_warehouse(own_demo.settings) as warehouse:
        for name, value in prepare_home(own_demo.settings, warehouse).items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.get() as instance:
            job = defs.resolve_job_def("publish_area_codes")
            catalogue.faults["resource_create"] = [413]
            first = job.execute_in_process(instance=instance, raise_on_error=False)
            assert not first.success
            # The release is made all the same, and only its dataset's asset is to be run again.
            assert [event.step_key for event in first.all_events if event.is_step_failure] == ["ckan__area_codes"]
            assert catalogue.count("resource_create") == 1
            second = job.execute_in_process(instance=instance)
            assert second.success
    (made,) = second.asset_materializations_for_node("ckan__area_codes")
    assert made.metadata["status"].value == "created"
    assert made.metadata["dataset"].value == f"{catalogue.url}/dataset/area_codes"
    assert not catalogue.broken
