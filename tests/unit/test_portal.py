"""The portal without a warehouse: addresses, released files and nothing else, headers, what a warehouse that is down does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from starlette.testclient import TestClient

from dopa_pipelines.errors import UserError
from dopa_pipelines.portal import addresses
from dopa_pipelines.portal.app import create_app, thai_date
from dopa_pipelines.portal.traces import BadQuestionError, Question
from dopa_pipelines.publishing import shelf
from dopa_pipelines.settings import Settings, load_settings

VERSIONS = ("2026-10-05-0a1b2c3d", "2026-11-05-9f8e7d6c")
ROWS = "ชื่อ,จำนวน\nโรงแรมหนึ่ง,12\n".encode()


def put_release(folder: Path, publication: str, version: str, data: bytes) -> None:
    """A release as the platform leaves one, of a table of one row."""
    path = folder / publication / version
    path.mkdir(parents=True)
    files = {
        f"{publication}.csv": data,
        "datapackage.json": json.dumps({"resources": [{"path": f"{publication}.csv", "mediatype": "text/csv"}]}).encode(),
    }
    for name, content in files.items():
        (path / name).write_bytes(content)
    listed = [
        {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    ]
    (path / "checksums.sha256").write_text("".join(f"{item['sha256']}  {item['name']}\n" for item in listed))
    manifest = {"created": f"{version[:10]}T06:00:00+07:00", "rows": 1, "files": listed, "columns": []}
    (path / "release.json").write_text(json.dumps(manifest))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation whose warehouse cannot be reached, with two releases of hotels."""
    folder = tmp_path / "releases"
    put_release(folder, "hotels", VERSIONS[0], ROWS)
    put_release(folder, "hotels", VERSIONS[1], ROWS + b"x,1\n")
    (folder / "hotels" / "latest").symlink_to(VERSIONS[1])
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "hotels" / VERSIONS[1] / "unlisted.csv").write_text("secret")
    (folder / "hotels" / ".tmp-1-abc").mkdir()
    (folder / "hotels" / ".tmp-1-abc" / "release.json").write_text("secret")
    return Settings(
        state=tmp_path / "state",
        releases=folder,
        warehouse_url="postgresql://nobody:hidden-word@127.0.0.1:1/nowhere",  # type: ignore[arg-type]
    )


@pytest.fixture
def portal(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client


def test_a_released_file_comes_as_it_was_released(portal: TestClient) -> None:
    for version, data in zip((*VERSIONS, "latest"), (ROWS, ROWS + b"x,1\n", ROWS + b"x,1\n"), strict=True):
        answer = portal.get(f"/releases/hotels/{version}/hotels.csv")
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-location"] == f"/releases/hotels/{VERSIONS[1]}/hotels.csv"
    assert answer.headers["cache-control"] == "no-cache"
    for tag in (answer.headers["etag"], f"W/{answer.headers['etag']}", f'"other", {answer.headers["etag"]}', "*"):
        again = portal.get("/releases/hotels/latest/hotels.csv", headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
    assert portal.get("/releases/hotels/latest/hotels.csv", headers={"if-none-match": '"other"'}).status_code == 200
    part = portal.get("/releases/hotels/latest/hotels.csv", headers={"range": "bytes=4-9"})
    assert (part.status_code, part.content) == (206, (ROWS + b"x,1\n")[4:10])
    head = portal.head("/releases/hotels/latest/hotels.csv")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(ROWS) + 4))


def test_the_manifest_is_served_too(portal: TestClient, settings: Settings) -> None:
    for name, kind in (("release.json", "application/json"), ("checksums.sha256", "text/plain; charset=utf-8")):
        answer = portal.get(f"/releases/hotels/latest/{name}")
        content = (settings.releases_path / "hotels" / VERSIONS[1] / name).read_bytes()
        assert (answer.content, answer.headers["content-type"]) == (content, kind)
        assert answer.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'


@pytest.mark.parametrize(
    "path",
    [
        "/releases/hotels/latest/unlisted.csv",
        "/releases/hotels/latest/..%2f..%2f..%2fsecret.txt",
        "/releases/hotels/latest/%2e%2e%2f%2e%2e%2f%2e%2e%2fsecret.txt",
        "/releases/hotels/latest/..%5c..%5csecret.txt",
        "/releases/hotels/..%2f..%2fsecret.txt/",
        "/releases/hotels/../../secret.txt",
        "/releases/hotels/../secret.txt",
        "/releases/hotels/%2e%2e/secret.txt",
        "/releases/%2e%2e/%2e%2e/secret.txt",
        "/releases/..%2f/latest/secret.txt",
        "/releases/hotels/.tmp-1-abc/release.json",
        "/releases/hotels/latest/hotels.csv%00",
        "/releases/hotels/latest/%00",
        "/releases/hotels/latest//etc/passwd",
        "/releases//etc/passwd",
        "/static/../app.py",
        "/static/..%2fapp.py",
    ],
)
def test_no_path_leads_out_of_a_release(portal: TestClient, path: str) -> None:
    scope_path = unquote(path)

    # As a client that resolves nothing sends it: httpx would take ".." out.
    async def raw(scope: dict[str, object], receive: object, send: object) -> None:
        await portal.app({**scope, "path": scope_path, "raw_path": path.encode()}, receive, send)  # type: ignore[arg-type]

    answer = TestClient(raw, base_url="http://127.0.0.1").get("/")  # type: ignore[arg-type]
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace("secret.txt", "")
    assert "def " not in answer.text and "root:" not in answer.text


def test_a_link_out_of_the_folder_is_no_release(portal: TestClient, settings: Settings, tmp_path: Path) -> None:
    folder = settings.releases_path / "hotels"
    (folder / "latest").unlink()
    (folder / "latest").symlink_to(tmp_path)
    assert shelf.latest_version(settings.releases_path, "hotels") is None
    assert portal.get("/releases/hotels/latest/secret.txt").status_code == 404
    assert portal.get(f"/releases/hotels/{VERSIONS[0]}/hotels.csv").status_code == 200


def test_a_half_written_or_foreign_folder_is_no_release(settings: Settings) -> None:
    folder = settings.releases_path
    for name, content in (("2026-11-06-00000000", "{"), ("2026-11-06-00000001", '{"rows": 1}'), ("2026-11-06-00000002", "[]")):
        (folder / "hotels" / name).mkdir()
        (folder / "hotels" / name / "release.json").write_text(content)
    (folder / "hotels" / "2026-11-06-00000003").mkdir()
    (folder / "Other").mkdir()
    assert [release.version for release in shelf.releases_of(folder, "hotels")] == list(reversed(VERSIONS))
    assert shelf.publications_released(folder) == ["hotels"]
    assert shelf.releases_of(folder, "..") == []


def test_the_page_of_a_publication_lists_all_its_releases(portal: TestClient) -> None:
    page = portal.get("/releases/hotels", follow_redirects=True)
    assert page.status_code == 200 and page.url.path == "/releases/hotels/"
    for version in VERSIONS:
        assert f'href="/releases/hotels/{version}/hotels.csv"' in page.text
    assert hashlib.sha256(ROWS).hexdigest() in page.text
    assert 'href="/releases/hotels/latest/hotels.csv"' in page.text
    assert page.text.index(VERSIONS[1]) < page.text.index(VERSIONS[0])
    assert "5 พ.ย. 2569 06:00 น." in page.text


def test_what_is_nearly_right_is_proposed(portal: TestClient) -> None:
    page = portal.get("/releases/hotls/")
    assert page.status_code == 404
    assert 'href="/releases/hotels/"' in page.text and "ท่านหมายถึง" in page.text


def test_without_the_warehouse_there_are_clear_pages_and_no_secret(portal: TestClient) -> None:
    for path in ("/trace/marts.hotels", "/trace/marts.hotels.svg", "/trace/marts.hotels.json"):
        page = portal.get(path)
        assert page.status_code == 503 and page.headers["retry-after"]
        assert "คลังข้อมูลยังไม่พร้อมให้บริการ" in page.text and "does not answer" in page.text
        assert "nowhere" not in page.text and "hidden-word" not in page.text
    assert portal.get("/health").status_code == 503
    home = portal.get("/")
    assert home.status_code == 200
    assert "คลังข้อมูลยังไม่พร้อมให้บริการ" in home.text
    assert 'href="/releases/hotels/"' in home.text and 'href="/trace/raw.person_register"' in home.text


def test_every_answer_forbids_scripts(portal: TestClient) -> None:
    for path in ("/", "/nothing", "/trace/x", "/releases/hotels/", "/releases/hotels/latest/hotels.csv", "/static/portal.css"):
        answer = portal.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src" not in policy, path
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "<script" not in answer.text and not re.search(r"\sstyle=|\son[a-z]+=|javascript:", answer.text), path
    assert portal.post("/").status_code == 405
    assert "content-security-policy" in portal.post("/").headers


def test_what_breaks_tells_no_inside(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(shelf, "read_release", broken)
    client = TestClient(create_app(settings), base_url="http://127.0.0.1", raise_server_exceptions=False)
    answer = client.get("/releases/hotels/latest/hotels.csv")
    assert answer.status_code == 500 and "inside" not in answer.text and "ระบบขัดข้อง" in answer.text
    assert "content-security-policy" in answer.headers


def test_only_our_own_names_are_answered(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"portal_url": "https://data.example.go.th/portal"}))
    for host, code in (("127.0.0.1:3001", 200), ("data.example.go.th", 200), ("rebound.example.com", 400)):
        assert TestClient(app, base_url=f"http://{host}").get("/static/portal.css").status_code == code
    # Below a path, all links are.
    page = TestClient(app, base_url="http://localhost").get("/")
    links = [link for link in re.findall(r'(?:href|action)="([^"#]+)', page.text) if not link.startswith("mailto:")]
    assert links and all(link.startswith("/portal/") for link in links)


def test_text_from_addresses_is_never_markup(portal: TestClient) -> None:
    bad = "<img src=x onerror=alert(1)>"
    for path in (
        f"/?q={bad}",
        f"/releases/{bad}/",
        f"/{bad}",
        f"/trace/x?direction={bad}",
        f"/trace/x?depth={bad}",
        f"/incidents?dataset={bad}",
    ):
        assert "<img" not in portal.get(path).text, path


@pytest.mark.parametrize(
    ("name", "column"),
    [("raw.person", "pid"), ("registration/area_code", "ชื่อภาษาไทย"), ("release:x", "a b"), ("s.t", "q?#%&+"), ("s.t", "json")],
)
def test_an_address_comes_back_as_the_name(name: str, column: str) -> None:
    made = urlsplit(addresses.trace("http://127.0.0.1:3001", name, column, direction="up", as_of=""))
    assert unquote(made.path) == f"/trace/{name}.{column}"
    assert made.fragment == "" and "as_of" not in made.query
    assert ("form=html" in made.query) == (column == "json")


def test_a_question_is_understood_or_refused() -> None:
    asked = Question.of("x", {"direction": "down", "depth": "3", "as_of": " 2026-11-01 "})
    assert (asked.ways, asked.depth, asked.as_of) == (("down",), 3, "2026-11-01")
    assert Question.of("x", {"direction": "", "depth": "", "as_of": ""}) == Question("x")
    assert Question("x").query == {"direction": "", "depth": "", "as_of": ""}
    for query in (
        {"direction": "sideways"},
        {"depth": "0"},
        {"depth": "-1"},
        {"depth": "1e3"},
        {"depth": "9" * 50},
        {"depth": "๓"},
    ):
        with pytest.raises(BadQuestionError):
            Question.of("x", query)


@pytest.mark.parametrize(
    ("port", "url", "address"),
    [("DOPA_PORTAL_PORT", "DOPA_PORTAL_URL", "portal_address"), ("DOPA_PORT", "DOPA_UI_URL", "ui_address")],
)
def test_addresses_for_others_are_settings(monkeypatch: pytest.MonkeyPatch, port: str, url: str, address: str) -> None:
    monkeypatch.setenv(port, "3099")
    assert getattr(load_settings(), address) == "http://127.0.0.1:3099"
    monkeypatch.setenv(url, "https://data.example.go.th/portal/")
    assert getattr(load_settings(), address) == "https://data.example.go.th/portal"
    for wrong in ("data.example.go.th", "ftp://x", "https://user:word@x", "https://x/?q"):
        monkeypatch.setenv(url, wrong)
        with pytest.raises(UserError, match=url):
            load_settings()
    monkeypatch.setenv(url, "")
    assert getattr(load_settings(), address) == "http://127.0.0.1:3099"


def test_dates_are_thai() -> None:
    assert thai_date("2026-11-25T23:30:00+00:00") == "26 พ.ย. 2569"
    assert thai_date("2024-02-29") == "29 ก.พ. 2567"


def test_links_to_the_portal_cost_no_web_framework() -> None:
    code = (
        "import sys, dopa_pipelines.portal.addresses, dopa_pipelines.publishing.shelf;"
        "print('starlette' in sys.modules, 'polars' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout.split() == ["False", "False"]
