"""The audit bundle: read and checked without our software, by the script in it and by what the demo's answer key says."""

from __future__ import annotations

import csv
import getpass
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import psycopg
import pytest
from stdnum.th import pin

from dopa_pipelines.warehouse import Role, open_warehouse, places
from dopa_pipelines.warehouse.bootstrap import embedded_secrets
from dopa_pipelines.warehouse.embedded import SUPERUSER


@pytest.fixture(scope="module")
def bundle(demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a publication, unpacked."""
    folder = tmp_path_factory.mktemp("bundle")
    done = demo.dopa("audit", "bundle", "deaths_by_province", "--out", str(folder / "b.zip"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["findings"] == []
    with zipfile.ZipFile(folder / "b.zip") as packed:
        packed.extractall(folder / "b")
    return folder / "b"


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """What the bundle's own script says, by a Python without our packages."""
    return subprocess.run([sys.executable, "-I", "-S", str(folder / "verify.py")], capture_output=True, text=True, check=False)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_it_holds_every_write_from_the_silo_to_the_release(bundle: Path) -> None:
    writes = rows(bundle / "writes.csv")
    # dbt builds what does not wait for each other in any order.
    assert sorted(write["target"] for write in writes if write["kind"] == "model") == [
        "marts.deaths_by_month", "marts.dim_area", "open_data.deaths_by_province", "staging.stg_area_code",
        "staging.stg_death_event",
    ]  # fmt: skip
    assert [write["target"] for write in writes if write["kind"] == "load"] == ["raw.area_code", *["raw.death_event"] * 3]
    assert writes[-1]["target"] == "release:deaths_by_province"
    # A demo is started by a person at a terminal, dbt and Dagster below it.
    assert {write["actor"] for write in writes} == {getpass.getuser()}
    numbers = {int(write["id"]) for write in writes}
    asked = {given["write"] for write in writes for given in json.loads(write["inputs"]) if given["write"]}
    assert asked <= numbers, "an input's own write is missing"


def test_deliveries_add_up_and_contracts_and_code_are_whole(bundle: Path, demo: Any) -> None:
    deliveries = rows(bundle / "deliveries.csv")
    assert {delivery["dataset"] for delivery in deliveries} == {"area_code", "death_event"}
    for delivery in deliveries:
        assert int(delivery["rows_read"]) == int(delivery["rows_loaded"]) + int(delivery["rows_quarantined"])
    root = Path(__file__).resolve().parents[2]
    (contract,) = (bundle / "contracts").glob("death_event-*")
    assert contract.read_text("utf-8") == (root / "assets/registration/death_event.odcs.yaml").read_text("utf-8")
    assert len(list((bundle / "code").glob("*.sql"))) == 5
    passed = {(check["dataset"], check["passed"]) for check in rows(bundle / "checks.csv")}
    assert ("warehouse.marts.deaths_by_month", "True") in passed
    released = json.loads((bundle / "release" / "release.json").read_text("utf-8"))
    assert released["publication"] == "deaths_by_province"
    edges = {(edge["source"], edge["target"], edge["target_column"]) for edge in rows(bundle / "columns.csv")}
    assert ("open_data.deaths_by_province", "release:deaths_by_province", "deaths") in edges


def test_its_own_script_finds_what_was_changed(bundle: Path, tmp_path: Path) -> None:
    assert check(bundle).returncode == 0, check(bundle).stdout
    copy = tmp_path / "copy"
    for name, words in (("sealed.jsonl", "is not what was sealed"), ("chain.jsonl", "does not follow")):
        subprocess.run(["cp", "-r", str(bundle), str(copy)], check=True)
        text = (copy / name).read_text("utf-8")
        place = re.search(r"rows_out|\"hash\": \"[0-9a-f]", text)
        assert place is not None
        other = "f" if text[place.end() - 1] == "e" else "e"
        (copy / name).write_text(text[: place.end() - 1] + other + text[place.end() :], "utf-8")
        done = check(copy)
        assert done.returncode == 1
        assert words in done.stdout
        assert f"{name}: is not the file of the bundle" in done.stdout
        subprocess.run(["rm", "-r", str(copy)], check=True)


def test_no_value_of_a_person_is_in_it(bundle: Path) -> None:
    for path in bundle.rglob("*"):
        if path.is_file():
            text = path.read_text("utf-8-sig")
            assert not [number for number in re.findall(r"(?<![0-9a-f])\d{13}(?![0-9a-f])", text) if pin.is_valid(number)], (
                path.name
            )


def test_it_is_read_by_a_person(bundle: Path) -> None:
    text = (bundle / "index.html").read_text("utf-8")
    assert "ชุดหลักฐานการตรวจสอบ: release:deaths_by_province" in text
    assert "<svg" in text and "ไม่พบสิ่งผิดปกติ" in text
    assert not re.search(r"(src|href)=\"https?://", text), "something would have to be fetched"


def test_what_does_not_stand_up_is_said(own_demo: Any, tmp_path: Path) -> None:
    with open_warehouse(own_demo.settings) as warehouse:
        place = {**warehouse.layout.places[Role.OWNER], "user": SUPERUSER, "dbname": "warehouse"}
        place["password"] = embedded_secrets(warehouse.state)[SUPERUSER]
        with psycopg.connect(places.make_url(place)) as connection:
            connection.execute("delete from marts.deaths_by_month where ctid in (select ctid from marts.deaths_by_month limit 1)")
    done = own_demo.dopa("audit", "bundle", "deaths_by_province", "--out", str(tmp_path / "b.zip"))
    assert done.returncode == 4
    assert "marts.deaths_by_month" in done.stderr
    with zipfile.ZipFile(tmp_path / "b.zip") as packed:
        assert "พบ 1 รายการ" in packed.read("index.html").decode()
    done = own_demo.dopa("audit", "bundle", "deaths_by_provinse", "--out", str(tmp_path / "c.zip"))
    assert done.returncode == 2
    assert "Did you mean" in done.stderr
