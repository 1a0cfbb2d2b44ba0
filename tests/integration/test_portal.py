"""The portal on the demo: every link leads somewhere, it answers as the command line does, fast, and outlives the server."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import httpx
import psycopg
import pytest
from starlette.testclient import TestClient

from dopa_pipelines.portal.app import create_app
from dopa_pipelines.portal.readers import Readers, WarehouseDownError
from dopa_pipelines.publishing import shelf
from dopa_pipelines.quality import incidents
from dopa_pipelines.warehouse import Role, open_warehouse

from .conftest import DOPA, Demo

HREF = re.compile(r'href="([^"#]+)"')
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def portal(demo: Any) -> Iterator[TestClient]:
    with TestClient(create_app(demo.settings), base_url="http://127.0.0.1") as client:
        yield client


def links(text: str) -> set[str]:
    return {unescape(found) for found in HREF.findall(text) if not found.startswith("mailto:")}


def test_the_catalogue_lists_everything_and_every_link_leads_somewhere(portal: TestClient, demo: Any) -> None:
    home = portal.get("/")
    assert home.status_code == 200 and "ไม่มีรายการ" not in home.text
    for name in ("raw.person_register", "staging.stg_person_register", "marts.hotels", "open_data.hotels_licensed"):
        assert f'href="/trace/{name}"' in home.text, name
    for name in shelf.publications_released(demo.settings.releases_path):
        assert {f"/releases/{name}/", f"/releases/{name}/latest/{name}.csv", f"/trace/release:{name}"} <= links(home.text)
    # Two steps from the catalogue every page is met that there is; of the columns' pages those of the raw tables.
    seen, waiting = set(), {"/"}
    for _ in range(2):
        for path in sorted(waiting):
            seen.add(path)
            answer = portal.get(path)
            assert answer.status_code == 200, path
            if answer.headers["content-type"].startswith("text/html"):
                waiting = waiting | links(answer.text)
        waiting -= seen
    columns = [path for path in waiting if path.startswith(("/trace/raw.", "/trace/registration/"))]
    assert len(columns) > 80
    for path in columns:
        assert portal.get(path).status_code == 200, path


def test_a_search_finds_in_thai_and_english(portal: TestClient) -> None:
    for wanted in ("โรงแรม", "hotel", "HOTELS licence"):
        found = links(portal.get("/", params={"q": wanted}).text)
        assert "/releases/hotels_licensed/" in found and "/releases/area_codes/" not in found, wanted


@pytest.mark.parametrize(
    ("name", "query", "options"),
    [
        ("hotels_licensed", "direction=up", ["--up"]),
        ("raw.person_register", "", ["--up", "--down"]),
        ("person_register.pid", "direction=down&depth=2", ["--down", "--depth", "2"]),
        ("release:hotels_licensed", "as_of=release:hotels_licensed", ["--up", "--down", "--as-of", "release:hotels_licensed"]),
    ],
)
def test_it_answers_as_the_command_line_does(portal: TestClient, demo: Any, name: str, query: str, options: list[str]) -> None:
    said = demo.dopa("trace", name, *options, "--json")
    assert said.returncode == 0, said.stderr
    assert portal.get(f"/trace/{name}.json?{query}").json() == json.loads(said.stdout)
    drawn = demo.dopa("trace", name, *options, "--format", "svg")
    ours = ElementTree.fromstring(portal.get(f"/trace/{name}.svg?{query}").content)
    theirs = ElementTree.fromstring(drawn.stdout)
    for tree in (ours, theirs):
        tree.remove(next(iter(tree.iter(f"{SVG}title"))))
    names = [text.text for text in theirs.iter(f"{SVG}text") if text.get("class") in ("name", "path", "off")]
    assert len(names) > 3
    assert [text.text for text in ours.iter(f"{SVG}text") if text.get("class") in ("name", "path", "off")] == names
    page = portal.get(f"/trace/{name}?{query}")
    assert page.status_code == 200
    inside = ElementTree.fromstring(page.text[page.text.index("<svg") : page.text.index("</svg>") + 6])
    addresses = [link.get("href") or "" for link in inside.iter(f"{SVG}a")]
    assert len(addresses) >= len(names)
    # What was asked stays asked from page to page.
    assert all(urlsplit(address).query.replace("%3A", ":") == query for address in addresses)


def test_what_is_not_there_is_told_with_what_may_be_meant(portal: TestClient) -> None:
    for path, near in (
        ("/trace/hotls", "/trace/marts.hotels"),
        ("/trace/marts.hotels.roms", "/trace/marts.hotels.rooms"),
        ("/trace/release:hotel_licensed", "/trace/release:hotels_licensed"),
        ("/trace/person_registr.svg", "/trace/raw.person_register"),
    ):
        page = portal.get(path)
        assert page.status_code == 404, path
        assert near in links(page.text) and "ท่านหมายถึง" in page.text and "Did you mean" in page.text, path
    before = portal.get("/trace/marts.hotels?as_of=2001-01-01")
    assert before.status_code == 404 and "ณ เวลาที่เลือก" in before.text
    for path in ("/trace/", "/trace/%00", "/trace/" + "x" * 3000, "/trace/a%0Ab", "/trace/%FF", "/trace/." * 40):
        assert portal.get(path).status_code == 404, path
    for query in ("direction=sideways", "depth=0", "as_of=yesterday", "as_of=%00", "form=exe"):
        page = portal.get(f"/trace/marts.hotels?{query}")
        assert page.status_code == 400 and "ไม่ถูกต้อง" in page.text, query
    ends = {"9999-12-31": 200, "0001-01-01": 404, "0001-01-01T00:00:00%2B14:00": 400, "9999-12-31T23:59:59-12:00": 400}
    for when, code in ends.items():
        assert portal.get(f"/trace/marts.hotels?as_of={when}").status_code == code, when


def test_incidents_are_shown_as_the_command_line_tells_them(portal: TestClient, demo: Any) -> None:
    known = json.loads(demo.dopa("quality", "incidents", "--json").stdout)
    page = portal.get("/incidents")
    numbers = {int(found) for found in re.findall(r'href="/incidents/(\d+)"', page.text)}
    assert numbers == {item["id"] for item in known} and len(known) > 100
    by_dataset: dict[str, list[dict[str, Any]]] = {}
    for item in known:
        by_dataset.setdefault(item["dataset"], []).append(item)
    home = portal.get("/").text
    for dataset, items in by_dataset.items():
        own = portal.get("/incidents", params={"dataset": dataset}).text
        assert {int(found) for found in re.findall(r'href="/incidents/(\d+)"', own)} == {item["id"] for item in items}, dataset
        if "." not in dataset:
            assert f'<a href="/incidents?dataset={dataset}">{len(items)}</a>' in home, dataset
    bureaus = {item["bureau"] for item in known}
    of_bureaus = [
        len(re.findall(r"<code>[^<]*</code></a></td>\s+<td>", portal.get("/incidents", params={"bureau": name}).text))
        for name in bureaus
    ]
    assert sum(of_bureaus) == len(known)
    for item in [items[0] for items in by_dataset.values()]:
        one = portal.get(f"/incidents/{item['id']}")
        told = json.loads(demo.dopa("quality", "incidents", "about", str(item["id"]), "--json").stdout)
        assert one.status_code == 200 and f"{item['rows_now']:,}" in one.text
        for step in told["repair"]:
            assert unescape(one.text).count(step["th"]) and step["command"].replace(" ID ", f" {item['id']} ") in unescape(
                one.text
            )
        for event in told["events"]:
            assert {"opened": "พบครั้งแรก", "seen": "จำนวนแถวเปลี่ยน"}[event["action"]] in one.text
        # Who sees to it is told by the command line alone: nobody is asked here who they are.
        assert item["owner"] and item["owner"] not in one.text + page.text
    for path in ("/incidents/999999999", f"/incidents/{2**63}", f"/incidents/{10**30}", "/incidents/x", "/incidents/-1"):
        assert portal.get(path).status_code == 404, path
    nothing = portal.get("/incidents", params={"dataset": "nothing\0"})
    assert nothing.status_code == 200 and "ไม่มีเหตุที่เปิดอยู่" in nothing.text


def test_an_incident_tells_of_no_person_and_keeps_its_page_when_it_is_closed(warehouse: Any, settings: Any) -> None:
    dataset, free = f"told_{os.getpid()}", "สมชาย ใจดี 1101700203451"
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client, warehouse.connect(Role.LOADER) as connection:

        def result(rows: int) -> None:
            row = connection.execute(
                "insert into quality.result (dataset, rule, kind, dimension, severity, rows_checked, rows_failed, passed, detail)"
                " values (%s, 'sex_required', 'required', 'accuracy_completeness', 'reject', 100, %s, %s, %s) returning id",
                (dataset, rows, rows == 0, json.dumps({"sample": [{"file": "a.csv", "row": 1234, "pid": "1101700203451"}]})),
            ).fetchone()
            assert row is not None
            incidents.settle(connection, [row[0]], incidents.Owner("registration", {"reject": "somchai@dopa.example"}))
            connection.commit()

        result(5)
        (item,) = incidents.incidents(connection, dataset)
        result(7)
        incidents.acknowledge(connection, item.id, free)
        incidents.explain(connection, item.id, free)
        incidents.assign(connection, item.id, "malee@dopa.example")
        connection.execute("update quality.incident set due_on = current_date - 1 where id = %s", (item.id,))
        connection.commit()
        page = client.get(f"/incidents/{item.id}").text
        listed = client.get("/incidents", params={"dataset": dataset}).text
        for word in (
            "5 rows",
            "5 rows → 7 rows",
            "1,234",
            "a.csv",
            "มีผู้รับเรื่องแล้ว",
            "มีคำอธิบายแล้ว",
            "มอบหมายผู้รับผิดชอบใหม่",
            "เลยกำหนดแก้",
        ):
            assert word in page, word
        assert "1 เหตุ" in listed and "เลยกำหนด 1" in listed and f'href="/incidents/{item.id}"' in listed
        assert f'href="/incidents/{item.id}"' in client.get("/incidents", params={"bureau": "registration"}).text
        assert f'href="/incidents/{item.id}"' not in client.get("/incidents", params={"bureau": "damrongdhama"}).text

        result(0)
        closed = client.get(f"/incidents/{item.id}")
        assert closed.status_code == 200 and "ปิดแล้วเมื่อ" in closed.text and 'id="repair"' not in closed.text
        assert "ไม่มีเหตุที่เปิดอยู่" in client.get("/incidents", params={"dataset": dataset}).text
        for secret in ("สมชาย", "1101700203451", "@dopa.example"):
            assert secret not in page + listed + closed.text, secret


def test_no_value_of_a_row_is_on_a_page(portal: TestClient, demo: Any) -> None:
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.LOADER) as connection:
        rows = connection.execute("select pid::text, first_name, last_name from raw.person_register limit 400").fetchall()
    paths = {"/", "/trace/raw.person_register", "/trace/raw.person_register.json"}
    paths |= {path for path in links(portal.get("/incidents?dataset=person_register").text) if path.startswith("/incidents/")}
    assert len(paths) > 5
    pages = [portal.get(path).text for path in paths]
    text = "\n".join([*pages, portal.get("/trace/registration/person_register").text])
    assert [pid for pid, _, _ in rows if pid in text] == []
    assert [f"{first} {last}" for _, first, last in rows if f"{first} {last}" in text] == []


def test_a_page_takes_a_fifth_of_a_second_at_most(portal: TestClient) -> None:
    for path in ("/", "/trace/raw.person_register", "/trace/raw.area_code", "/releases/hotels_licensed/", "/incidents"):
        portal.get(path)
        took = []
        for _ in range(5):
            began = time.perf_counter()
            assert portal.get(path).status_code == 200
            took.append(time.perf_counter() - began)
        assert statistics.median(took) < 0.2, (path, took)


def test_many_at_once_share_few_connections(portal: TestClient) -> None:
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda _: portal.get("/trace/marts.hotels").status_code, range(64)))
    assert codes == [200] * 64


def test_it_can_only_read(demo: Any) -> None:
    readers = Readers(demo.settings)
    try:
        with readers.snapshot() as connection:
            role = connection.execute("select current_user, current_setting('transaction_read_only')").fetchone()
        assert role == (Role.READER.value, "on")
        with pytest.raises(psycopg.Error), readers.snapshot() as connection:
            connection.execute("select * from raw.person_register")
        with pytest.raises(psycopg.Error), readers.snapshot() as connection:
            connection.execute("create temporary table t (x int)")
        with readers.snapshot() as connection:  # what failed is not handed out again
            assert connection.execute("select 1").fetchone() == (1,)
        with pytest.raises(WarehouseDownError), readers.snapshot() as connection:
            connection.execute("set local statement_timeout = 50; select pg_sleep(5)")
    finally:
        readers.close()


def test_it_outlives_the_server(own_demo: Demo) -> None:
    with TestClient(create_app(own_demo.settings), base_url="http://127.0.0.1") as client:
        assert client.get("/trace/marts.hotels").status_code == 200
        postmaster = int((own_demo.state / "pg" / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGINT)  # PostgreSQL's fast shutdown
        for _ in range(300):
            if not (own_demo.state / "pg" / "data" / "postmaster.pid").exists():
                break
            time.sleep(0.1)
        # The connections that it kept are dead; nobody else starts the embedded server.
        assert client.get("/trace/marts.hotels").status_code == 200
        assert client.get("/health").json() == {"status": "ok"}
    assert int((own_demo.state / "pg" / "data" / "postmaster.pid").read_text().splitlines()[0]) != postmaster


def test_the_command_serves_until_it_is_stopped(own_demo: Demo, free_port: int) -> None:
    served = subprocess.Popen(
        [DOPA, "portal", "--port", str(free_port)], env=own_demo.environment, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    address = f"http://127.0.0.1:{free_port}"
    try:
        for _ in range(200):
            try:
                if httpx.get(f"{address}/health").is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        page = httpx.get(f"{address}/trace/registration/area_code.ชื่อภาษาไทย")
        assert page.status_code == 200 and "server" not in page.headers
        taken = own_demo.dopa("portal", "--port", str(free_port))
        assert taken.returncode == 2 and "DOPA_PORTAL_PORT" in taken.stderr
    finally:
        served.send_signal(signal.SIGTERM)
        said = served.communicate(timeout=30)[1]
    assert served.returncode == 0
    assert address in said and "Traceback" not in said


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
