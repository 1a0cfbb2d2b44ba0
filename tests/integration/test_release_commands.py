"""The commands of releases on a department of its own: held back in a run and by hand, withdrawn, corrected, the calendar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dopa_pipelines.warehouse import open_warehouse
from dopa_pipelines.warehouse.work import Work
from tests.integration.conftest import Demo

NAME = "hotels_licensed"
TABLE = f"open_data.{NAME}"


def said(demo: Demo, *arguments: str, code: int = 0) -> Any:
    done = demo.dopa(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def checked(demo: Demo, success: bool) -> None:
    """As if a later look at the extract's table had found this."""
    with open_warehouse(demo.settings) as warehouse, Work(warehouse, "check", TABLE, run_id="test") as work:
        work.complete(
            {"assertions": [{"assertion": "custom_sql", "name": "rooms_add_up", "success": success, "severity": "error"}]}
        )


def latest(demo: Demo) -> Path:
    return (demo.settings.releases_path / NAME / "latest").resolve()


def test_held_back_by_hand_and_in_a_run_then_released_withdrawn_and_corrected(own_demo: Demo) -> None:
    demo = own_demo
    first = latest(demo)
    checked(demo, False)
    told = said(demo, "publish", NAME, code=4)
    assert [reason["rule"] for reason in told["held_back"][NAME]] == ["blocking_check"]
    assert "rooms_add_up" in told["problems"][NAME]
    (stands,) = said(demo, "status")["held_back"]
    assert (stands["publication"], stands["reasons"][0]["rule"]) == (NAME, "blocking_check")

    ran = demo.dopa("run", "--select", f"releases.{NAME}")
    assert ran.returncode == 4, ran.stdout + ran.stderr
    assert "held back" in ran.stdout + ran.stderr and "rooms_add_up" in ran.stdout + ran.stderr
    assert latest(demo) == first

    checked(demo, True)
    assert demo.dopa("run", "--select", f"releases.{NAME}").returncode == 0
    assert said(demo, "status")["held_back"] == []

    # Withdrawn, it does not come back by itself.
    stone = said(demo, "release", "withdraw", NAME, "--why", "ทดสอบการถอน")
    assert (stone["version"], stone["replaced_by"], stone["why"]) == (first.name, None, "ทดสอบการถอน")
    assert [path.name for path in latest(demo).iterdir()] == ["WITHDRAWN.json"]
    assert list(said(demo, "publish", NAME, code=4)["held_back"]) == [NAME]
    ((again),) = said(demo, "publish", NAME, "--again")["releases"]
    assert again["status"] == "released"
    shown = said(demo, "release", "list", NAME)
    assert [(item["version"], item["state"]) for item in shown] == [(again["version"], "latest"), (first.name, "withdrawn")]

    # Corrected: nothing differs yet, then something does.
    done = demo.dopa("release", "correct", NAME, again["version"], "--why", "ทดสอบการแก้ไข")
    assert done.returncode == 2 and "nothing that corrects it" in done.stderr
    with open_warehouse(demo.settings) as warehouse, warehouse.connect() as connection:
        assert connection.execute("select count(*) from lineage.write where detail ? 'withdrawn'").fetchone() == (1,)
    # The proof of the lineage holds with all that.
    proved = demo.dopa("lineage", "verify")
    assert proved.returncode == 0, proved.stdout + proved.stderr


def test_the_calendar_is_said_and_lies_beside_the_releases(demo: Demo) -> None:
    coming = said(demo, "calendar", NAME)
    assert {item["publication"] for item in coming} == {NAME}
    assert all("พ.ศ. 25" in item["date_th"] for item in coming)
    lies = json.loads((demo.settings.releases_path / "calendar.json").read_text("utf-8"))
    assert {item["publication"] for item in lies["releases"]} > {NAME}
    wrong = demo.dopa("calendar", "hotels_licenced")
    assert wrong.returncode == 2 and "hotels_licensed" in wrong.stderr
