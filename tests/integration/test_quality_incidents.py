"""Incidents: opened by failures, followed, closed by what passes, seen to by people; figures by month; the bureau's workbook."""

from __future__ import annotations

import json
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.demo import AnswerKey
from dopa_pipelines.errors import UserError
from dopa_pipelines.quality import incidents, workbook
from dopa_pipelines.quality.checking import check
from dopa_pipelines.quality.incidents import Owner
from dopa_pipelines.quality.places import OfDelivery, Places
from dopa_pipelines.quality.rules import rules_of
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.warehouse import Role, Warehouse
from tests.integration.conftest import Demo

SOMCHAI, MALEE = "somchai@dopa.example", "malee@dopa.example"
OWNER = Owner("registration", {"block": SOMCHAI, "reject": SOMCHAI, "warn": MALEE})


@pytest.fixture
def conn(warehouse: Warehouse) -> Iterator[psycopg.Connection[Any]]:
    with warehouse.connect(Role.LOADER) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def dataset() -> str:
    return f"dataset_{uuid.uuid4().hex[:8]}"


def result(conn: psycopg.Connection[Any], dataset: str, failed: int, *, at: datetime | None = None) -> int:
    row = conn.execute(
        "insert into quality.result"
        " (dataset, rule, kind, dimension, severity, measured_at, rows_checked, rows_failed, passed, detail)"
        " values (%s, 'births_required', 'required', 'accuracy_completeness', 'reject', coalesce(%s, clock_timestamp()), 100, %s,"
        " %s, '{}') returning id",
        (dataset, at, failed, failed == 0),
    ).fetchone()
    assert row is not None
    return int(row[0])


def only(conn: psycopg.Connection[Any], dataset: str) -> incidents.Incident:
    (found,) = incidents.incidents(conn, dataset, closed=True)
    return found


def test_a_failure_opens_one_incident_that_follows_the_rows_and_closes_when_the_rule_passes(
    conn: psycopg.Connection[Any], dataset: str
) -> None:
    first = result(conn, dataset, 12)
    settled = incidents.settle(conn, [first], OWNER)
    item = only(conn, dataset)
    assert settled.opened == [item.id]
    assert (item.rows_first, item.rows_now, item.rows_most, item.owner, item.bureau) == (12, 12, 12, SOMCHAI, "registration")
    assert item.due_on == incidents.due("reject", item.opened_at.astimezone(BANGKOK).date())
    # The same again changes nothing.
    assert incidents.settle(conn, [first], OWNER) == incidents.Settled()

    assert incidents.settle(conn, [result(conn, dataset, 30), result(conn, dataset, 7)], OWNER).seen == [item.id, item.id]
    item = only(conn, dataset)
    assert (item.rows_first, item.rows_now, item.rows_most, item.is_open) == (12, 7, 30, True)

    assert incidents.settle(conn, [result(conn, dataset, 0)], OWNER).closed == [item.id]
    item = only(conn, dataset)
    assert (item.is_open, item.rows_now, item.rows_most) == (False, 0, 30)
    assert [event.action for event in incidents.events(conn, item.id)] == ["opened", "seen", "seen", "closed"]
    # What passes opens nothing.
    assert incidents.settle(conn, [result(conn, dataset, 0)], OWNER) == incidents.Settled()


def test_soon_after_it_closed_it_is_the_same_incident_and_later_another(conn: psycopg.Connection[Any], dataset: str) -> None:
    start = datetime(2025, 11, 3, 9, tzinfo=BANGKOK)
    days = [(0, 5), (2, 0), (6, 4), (8, 0), (20, 3)]
    ids = [result(conn, dataset, failed, at=start + timedelta(days=day)) for day, failed in days]
    settled = incidents.settle(conn, ids, OWNER)
    assert len(settled.opened) == 2 and len(settled.reopened) == 1
    one, two = sorted(incidents.incidents(conn, dataset, closed=True), key=lambda item: item.id)
    assert one.closed_at is not None and one.closed_at - one.opened_at == timedelta(days=8)
    assert (two.opened_at, two.is_open) == (start + timedelta(days=20), True)


def test_people_see_to_it_and_their_names_stay(conn: psycopg.Connection[Any], dataset: str) -> None:
    conn.execute("select set_config('dopa.actor', 'malee', true)")
    incidents.settle(conn, [result(conn, dataset, 3)], OWNER)
    number = only(conn, dataset).id
    incidents.acknowledge(conn, number, "asked the office")
    incidents.acknowledge(conn, number, "asked the office")
    incidents.explain(conn, number, "the office sent last year's file")
    incidents.assign(conn, number, MALEE)
    later = date.today() + timedelta(days=30)
    item = incidents.set_due(conn, number, later)
    assert (item.owner, item.due_on, item.explanation) == (MALEE, later, "the office sent last year's file")
    told = [(event.who, event.action) for event in incidents.events(conn, number)]
    assert told[1:] == [("malee", action) for action in ("acknowledged", "explained", "assigned", "due")]
    with pytest.raises(UserError, match="no e-mail address"):
        incidents.assign(conn, number, "malee")
    with pytest.raises(UserError, match="was opened on"):
        incidents.set_due(conn, number, date(2020, 1, 1))
    incidents.settle(conn, [result(conn, dataset, 0)], OWNER)
    with pytest.raises(UserError, match="is closed; it opens again by itself"):
        incidents.acknowledge(conn, number)
    with pytest.raises(UserError, match="There is no incident 999999999"):
        incidents.get(conn, 999_999_999)


def test_an_incident_of_a_rule_that_is_no_more_is_closed(conn: psycopg.Connection[Any], dataset: str) -> None:
    incidents.settle(conn, [result(conn, dataset, 3)], OWNER, known={dataset: {"births_required"}})
    assert only(conn, dataset).is_open
    incidents.settle(conn, [], OWNER, known={dataset: {"another_rule"}})
    assert not only(conn, dataset).is_open
    assert incidents.events(conn, only(conn, dataset).id)[-1].note == "the rule is no more"


def test_what_is_due_leaves_out_weekends_and_holidays() -> None:
    # 2 December 2025 is a Tuesday; the 5th, Father's Day, is a holiday.
    assert incidents.due("block", date(2025, 12, 2)) == date(2025, 12, 8)
    assert incidents.due("reject", date(2025, 11, 3)) == date(2025, 11, 12)


def test_errors_and_time_to_repair_by_bureau_and_month(conn: psycopg.Connection[Any]) -> None:
    bureau = f"bureau_{uuid.uuid4().hex[:6]}"
    owner = Owner(bureau, {"reject": SOMCHAI})
    start = datetime(2025, 10, 30, 12, tzinfo=BANGKOK)
    for name, failed, lasts in (("a", 10, 2), ("b", 5, 30), ("c", 1, None)):
        of = f"{bureau}_{name}"
        ids = [result(conn, of, failed, at=start)]
        if lasts is not None:
            ids.append(result(conn, of, 0, at=start + timedelta(days=lasts)))
        incidents.settle(conn, ids, owner)
    found = {item.month_be: item for item in incidents.months(conn, bureau)}
    october, november, december = found["2568-10"], found["2568-11"], found["2568-12"]
    assert (october.opened, october.errors, october.closed, october.open_at_end) == (3, 16, 0, 3)
    # Two were closed in November, after 2 and 30 days; the second was due on 10 November.
    assert (november.opened, november.closed, november.closed_late, november.open_at_end) == (0, 2, 1, 1)
    assert (november.days_to_repair, november.days_to_repair_median) == (16, 16)
    assert (december.opened, december.closed, december.days_to_repair, december.open_at_end) == (0, 0, None, 1)


def test_incidents_follow_what_is_delivered(table: Any, conn: psycopg.Connection[Any]) -> None:
    """From deliveries alone: rows rejected, a rule of the table that fails, a delivery refused; what repairs them closes them."""
    columns = [
        {"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1},
        {"name": "n", "logicalType": "integer", "physicalType": "integer", "required": True},
    ]
    small = {
        "name": "n_small", "type": "custom", "engine": "dopa", "dimension": "consistency", "severity": "warn",
        "implementation": {"rule": "condition", "expression": "n < 10"},
        "customProperties": [{"property": "nationalDimension", "value": "consistency"}],
    }  # fmt: skip
    made = table("incidents_follow", columns, quality=[small], load={"mode": "replace", "maxRejectedPercent": 50})

    def delivered(text: str, name: str) -> dict[str, tuple[str, int | None]]:
        check(made.warehouse, made.contract, [made.deliver("k,n\n" + text, name)])
        return {item.rule: (item.severity, item.rows_now) for item in incidents.incidents(conn, "incidents_follow")}

    assert delivered("a,1\nb,x\nc,\nd,y\ne,20\nf,2\ng,3\n", "one.csv") == {
        "n_format": ("reject", 2), "n_required": ("reject", 1), "n_small": ("warn", 1),
    }  # fmt: skip
    # Refused whole: what was there stays, and so do its incidents.
    refused = delivered("a,x\nb,x\nc,x\nd,x\n", "two.csv")
    assert refused["delivery_accepted"] == ("block", 4)
    assert (refused["n_format"], refused["n_small"]) == (("reject", 2), ("warn", 1))
    assert delivered("a,1\nb,x\nc,1\nd,1\ne,2\nf,2\ng,3\n", "three.csv") == {"n_format": ("reject", 1)}
    assert delivered("a,1\nb,1\nc,1\nd,1\ne,2\nf,2\ng,4\n", "four.csv") == {}
    closed = {item.rule: item.rows_most for item in incidents.incidents(conn, "incidents_follow", closed=True)}
    assert closed == {"n_format": 2, "n_required": 1, "n_small": 1, "delivery_accepted": 4}
    told = [event.action for item in incidents.incidents(conn, "incidents_follow", closed=True) if item.rule == "n_format"
            for event in incidents.events(conn, item.id)]  # fmt: skip
    assert told == ["opened", "seen", "closed"]


# The demo department


@pytest.fixture(scope="module")
def standing(demo: Demo) -> list[dict[str, Any]]:
    told = demo.dopa("quality", "incidents", "--json")
    assert told.returncode == 0, told.stderr
    found: list[dict[str, Any]] = json.loads(told.stdout)
    return found


def test_the_planted_errors_are_the_open_incidents(demo: Demo, standing: list[dict[str, Any]]) -> None:
    """Every planted defect is a failing rule of its dataset, with as many rows as were planted; the key is the generator's."""
    key = AnswerKey.read(demo.settings.demo_path)
    for contract in load_contracts(demo.settings.contracts):
        # What a defect's reason can be a failure of: most reasons belong to rules of one kind only.
        kinds: dict[str, set[str]] = {}
        for rule in rules_of(contract):
            for code in rule.codes if not rule.measured else ():
                kinds.setdefault(code, set()).add(rule.kind)
        planted = Counter(item.reason for item in key.defects if item.dataset == contract.dataset)
        mine = [item for item in standing if item["dataset"] == contract.dataset]
        opened: Counter[str] = Counter()
        for item in mine:
            if item["severity"] == "reject":
                opened[item["kind"]] += item["rows_now"]
        assert sum(opened.values()) == sum(planted.values()), contract.dataset
        assert not set(planted) - set(kinds), contract.dataset
        for kind in {kind for reason in planted for kind in kinds[reason]} | set(opened):
            least = sum(count for reason, count in planted.items() if kinds[reason] == {kind})
            most = sum(count for reason, count in planted.items() if kind in kinds[reason])
            assert least <= opened[kind] <= most, (contract.dataset, kind)
        assert {item["bureau"] for item in mine} <= {contract.bureau}


def test_each_has_an_owner_and_a_day(standing: list[dict[str, Any]]) -> None:
    assert standing
    assert all("@" in item["owner"] and item["due_on"] for item in standing)


def test_the_bureau_gets_a_workbook(own_demo: Demo, standing: list[dict[str, Any]]) -> None:
    path = own_demo.settings.state / "registration.xlsx"
    done = own_demo.dopa("quality", "incidents", "export", "--bureau", "registration", "--out", str(path))
    assert done.returncode == 0, done.stderr
    sheets = pl.read_excel(path, sheet_id=0)
    listed = sheets["เหตุที่ต้องแก้"]
    mine = {item["id"]: item for item in standing if item["bureau"] == "registration"}
    assert dict(zip(listed["เลขที่"], listed["แถวที่ผิด"], strict=True)) == {number: item["rows_now"] for number, item in mine.items()}
    # Every planted row of the bureau is in it, by file and number, with the incident whose count it is part of.
    key = AnswerKey.read(own_demo.settings.demo_path)
    of_bureau = {item.dataset for item in load_contracts(own_demo.settings.contracts) if item.bureau == "registration"}
    rows = sheets["แถวที่ต้องแก้"]
    planted = sorted((item.file, item.row) for item in key.defects if item.dataset in of_bureau)
    assert sorted(zip(rows["ไฟล์"], rows["แถว"], strict=True)) == planted
    assert Counter(rows["เลขที่"]) == {number: item["rows_now"] for number, item in mine.items()}
    assert rows["เหตุผล"].null_count() == 0 and rows["วิธีแก้"].null_count() == 0
    assert sheets["สถิติรายเดือน"]["เหตุที่เปิด"].sum() == len(mine)
    wrong = own_demo.dopa("quality", "incidents", "export", "--bureau", "registrations")
    assert wrong.returncode == 2 and "did you mean" in wrong.stderr


def test_the_workbook_says_how_many_more_there_are_and_makes_no_formula_of_a_file_name(
    conn: psycopg.Connection[Any], dataset: str, tmp_path: Path
) -> None:
    incidents.settle(conn, [result(conn, dataset, 1500)], OWNER)
    item = only(conn, dataset)
    place = {"delivery": 7, "file": "=cmd|' /C calc'!A0", "row": 4, "codes": ["missing"], "province_code": "=1+1"}
    behind = Places(1500, [OfDelivery(7, "=cmd", 1500)], [place])
    path = tmp_path / "book.xlsx"
    workbook.write(path, "registration", [item], {item.result: behind}, {}, [], date(2025, 12, 1))
    rows = pl.read_excel(path, sheet_name="แถวที่ต้องแก้")
    assert rows["ไฟล์"].to_list() == [place["file"], None]
    assert rows["ค่าประกอบ"][0] == "province_code =1+1"
    assert "และอีก 1,499 แถว" in rows["เหตุผล"][1]
    with zipfile.ZipFile(path) as book:
        assert not any(b"<f>" in book.read(name) for name in book.namelist() if name.startswith("xl/worksheets/"))


def test_from_the_command_line(own_demo: Demo, standing: list[dict[str, Any]]) -> None:
    number = str(standing[0]["id"])
    assert own_demo.dopa("quality", "incidents", "ack", number, "--note", "ถามสำนักแล้ว").returncode == 0
    assert own_demo.dopa("quality", "incidents", "explain", number, "--note", "ไฟล์เก่า").returncode == 0
    told = json.loads(own_demo.dopa("quality", "incidents", "about", number, "--json").stdout)
    assert [event["action"] for event in told["events"]][-2:] == ["acknowledged", "explained"]
    assert told["repair"] and told["explanation"] == "ไฟล์เก่า"
    status = json.loads(own_demo.dopa("status", "--json").stdout)["incidents"]
    by_severity = Counter(item["severity"] for item in standing)
    assert {name: status[name] for name in ("block", "reject", "warn")} == {
        name: by_severity[name] for name in ("block", "reject", "warn")
    }
    nobody = own_demo.dopa("quality", "incidents", "ack", "987654321")
    assert nobody.returncode == 2 and "There is no incident 987654321" in nobody.stderr
