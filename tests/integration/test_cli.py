"""The command line as people and scripts use it: output, exit codes, JSON."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.warehouse import open_warehouse

ROOT = Path(__file__).resolve().parents[2]
AREAS = ROOT / "assets" / "registration" / "area_code.odcs.yaml"


@pytest.fixture
def contract_anywhere(tmp_path: Path) -> Path:
    """A contract and dataset that the project has never seen."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path = folder / "course.odcs.yaml"
    path.write_text(
        """
apiVersion: v3.1.0
kind: DataContract
id: course
name: course
version: 1.0.0
status: active
domain: college
team: {name: college, members: [{username: college-steward@dopa.example, role: technical_steward}]}
servers:
  - server: drop_zone
    type: local
    path: college/course/*.csv
    format: delimited
    delimiter: ";"
    encoding: cp874
schema:
  - name: course
    businessName: หลักสูตร
    description: Courses of the college
    properties:
      - {name: code, physicalName: รหัส, logicalType: string, required: true, primaryKey: true, primaryKeyPosition: 1,
         classification: open}
      - {name: held_on, physicalName: วันที่, logicalType: date, required: true, classification: open}
customProperties:
  - {property: load, value: {mode: replace, maxRejectedPercent: 60}}
  - property: gdCatalog
    value: {data_type: x, title: x, owner_org: x, maintainer: x, maintainer_email: x, tag_string: x, notes: x, objective: [x],
            update_frequency_unit: x, geo_coverage: x, data_source: x, data_format: [x], data_category: x, license_id: x}
""",
        "utf-8",
    )
    (folder / "course.csv").write_bytes("รหัส;วันที่\nปค-1;1 ม.ค. 2568\nปค-2;31 ก.พ. 2568\n".encode("cp874"))
    return path


def test_ingest_json_for_a_contract_from_anywhere(own_demo: Any, contract_anywhere: Path) -> None:
    delivery = str(contract_anywhere.with_name("course.csv"))
    done = own_demo.dopa("ingest", "course", delivery, "--contract", str(contract_anywhere), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {
        "dataset",
        "delivery",
        "sha256",
        "rows_read",
        "rows_loaded",
        "rows_quarantined",
        "reasons",
        "seconds",
        "status",
    } <= set(said)
    assert (said["dataset"], said["rows_read"], said["rows_loaded"], said["rows_quarantined"]) == ("course", 2, 1, 1)
    assert (said["reasons"], said["status"]) == ({"impossible_date": 1}, "loaded")
    assert set(said["seconds"]) >= {"hash", "read", "enforce", "copy", "total"}
    again = own_demo.dopa("ingest", "--contract", str(contract_anywhere), "--json", delivery)
    assert (again.returncode, json.loads(again.stdout)["status"]) == (0, "unchanged")
    contract_anywhere.with_name("course.csv").write_bytes("รหัส\nปค-1\n".encode("cp874"))
    refused = own_demo.dopa("ingest", "course", delivery, "--contract", str(contract_anywhere), "--json")
    assert (refused.returncode, json.loads(refused.stdout)["status"]) == (3, "rejected")
    assert "column missing: held_on (วันที่)" in json.loads(refused.stdout)["problem"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ingest", "person_registr", "x"], "did you mean 'person_register'"),
        (["ingest", "person_register", "no/such/file"], "no such file"),
        (["trace", "hotel"], "hotel"),
        (["publish", "hotels"], "no publication is called 'hotels'"),
        (["run", "--select", "nothing_like_it"], "no dataset, model or publication"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(demo: Any, arguments: list[str], words: str) -> None:
    done = demo.dopa(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_file_and_line(demo: Any, tmp_path: Path) -> None:
    assert demo.dopa("check").returncode == 0
    contracts = tmp_path / "assets"
    shutil.copytree(ROOT / "assets", contracts)
    broken = contracts / "registration" / AREAS.name
    text = AREAS.read_text("utf-8").replace("logicalType: date", "logicalType: day", 1)
    broken.write_text(text, "utf-8")
    line = next(number for number, content in enumerate(text.splitlines(), 1) if "logicalType: day" in content)
    publication = contracts / "open_data" / "hotels_licensed.yaml"
    publication.write_text(publication.read_text("utf-8").replace("source: hotel_name", "source: hotel_nam", 1), "utf-8")
    done = demo.dopa("check", "--json", DOPA_CONTRACTS=str(contracts))
    assert done.returncode == 2
    problems = json.loads(done.stdout)["problems"]
    assert any(problem["file"].endswith(AREAS.name) and problem["line"] == line for problem in problems)
    assert any("did you mean 'hotel_name'" in problem["message"] for problem in problems)


def test_trace_leads_from_the_silo_to_the_extract_and_back(demo: Any) -> None:
    up = demo.dopa("trace", "hotels_licensed", "--up")
    assert up.returncode == 0
    for name in (
        "open_data.hotels_licensed",
        "marts.hotels",
        "staging.stg_hotel_licence",
        "raw.hotel_licence",
        "legal_affairs/hotel_licence",
    ):
        assert name in up.stdout
    down = demo.dopa("trace", "hotel_licence", "--down", "--json")
    assert "hotels_licensed" in json.dumps(json.loads(down.stdout))


def test_status_json(demo: Any) -> None:
    said = json.loads(demo.dopa("status", "--json").stdout)
    assert said["datasets"]["person_register"]["rows_loaded"] == 2_000
    assert said["datasets"]["birth_event"]["deliveries"] == 3
    assert all(said["releases"].values())
    assert said["dead_runs"] == []
    assert said["lineage_proof"]["unsealed"] == 0
    assert said["lineage_proof"]["anchored_seq"] == said["lineage_proof"]["seals"] > 0


def test_publish_again_releases_nothing(own_demo: Any) -> None:
    said = json.loads(own_demo.dopa("publish", "--json").stdout)
    assert {release["status"] for release in said["releases"]} == {"unchanged"}
    assert len(said["releases"]) == len(list((ROOT / "assets" / "open_data").glob("*.yaml")))


def test_rejected_rows_show_personal_values_only_when_asked_and_that_is_logged(own_demo: Any) -> None:
    def listed(*more: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(own_demo.dopa("quarantine", "list", "person_register", "--json", *more).stdout)
        return found

    hidden = [reason for row in listed() for reason in row["reasons"] if reason["column"] == "pid"]
    assert hidden
    assert {reason["value"] for reason in hidden} == {"•••"}
    assert {row["original"] for row in listed()} == {None}
    shown = listed("--reveal")
    assert all(row["original"] for row in shown)
    with open_warehouse(own_demo.settings) as warehouse, warehouse.connect() as connection:
        logged = connection.execute("select action, subject, (detail ->> 'rows')::int from ops.access_log").fetchall()
    assert logged == [("quarantine revealed", "quarantine.person_register", len(shown))]


def test_the_engine_never_imports_dagster() -> None:
    code = """
import sys, pkgutil, importlib, dopa_pipelines
for module in pkgutil.walk_packages(dopa_pipelines.__path__, "dopa_pipelines."):
    if module.name != "dopa_pipelines.definitions" and ".migrations" not in module.name and "_watcher" not in module.name:
        importlib.import_module(module.name)
print([name for name in sys.modules if name.split(".")[0] in ("dagster", "dagster_dbt", "assets", "sensors")])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_twelfth_dataset_is_one_contract(own_demo: Any, contract_anywhere: Path, tmp_path: Path) -> None:
    contracts = tmp_path / "assets"
    shutil.copytree(ROOT / "assets", contracts)
    (contracts / "college").mkdir()
    shutil.copy(contract_anywhere, contracts / "college")
    folder = own_demo.settings.drop_path / "college" / "course"
    folder.mkdir(parents=True)
    shutil.copy(contract_anywhere.with_name("course.csv"), folder)
    there = {"DOPA_CONTRACTS": str(contracts)}
    waiting = json.loads(own_demo.dopa("status", "--json", **there).stdout)
    assert waiting["datasets"]["course"]["waiting"] == 1
    done = own_demo.dopa("run", "--select", "course", "--json", **there)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"][0]["rows_loaded"] == 1
    status = json.loads(own_demo.dopa("status", "--json", **there).stdout)
    assert status["datasets"]["course"]["rows_loaded"] == 1
    assert "college/course" in own_demo.dopa("trace", "course", **there).stdout
    listed = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "dopa_pipelines.definitions"],
        env=own_demo.environment | there | {"DAGSTER_HOME": ""}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
