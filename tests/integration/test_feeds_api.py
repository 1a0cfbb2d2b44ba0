"""A JSON API that the project has never seen, by the command line alone."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dopa_pipelines.ingest.rebuild import rebuild
from tests.integration.conftest import DOPA, ROOT

RECORDS = [
    {"id": "1", "day": "01/04/2568", "who": {"name": "สมชาย"}, "amount": "AMOUNT"},
    {"id": "2", "day": "31/02/2568", "who": {"name": "สมหญิง"}},
    {"id": "3", "day": "2025-04-02"},
]
TEXTS = [json.dumps(record, ensure_ascii=False).replace('"AMOUNT"', "12345678901234567890.10") for record in RECORDS]


class Api(ThreadingHTTPServer):
    """Serves records by offset. ``down``: from which offset on it fails; ``told``: the total that it tells."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.down = 99
        self.told = len(TEXTS)
        self.asked: list[int] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Api)
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        offset, size = int(query["offset"]), int(query["limit"])
        self.server.asked.append(offset)
        found = TEXTS[offset : offset + size]
        body = f'{{"meta": {{"total": {self.server.told}}}, "items": [{", ".join(found)}]}}'.encode()
        status = 404 if offset >= self.server.down else 200 if self.headers["authorization"] == "Bearer k3y" else 401
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def test_an_api_never_seen_is_ingested(api: Api, make_contract: Any, environment: dict[str, str], warehouse: Any) -> None:
    columns = [
        {"name": "no", "titles": ["id"], "required": True, "primaryKey": True, "primaryKeyPosition": 1},
        {"name": "day", "logicalType": "date"},
        {"name": "person", "physicalName": "who.name", "classification": "personal", "pdpaRole": "direct_identifier"},
        {"name": "amount", "logicalType": "number", "physicalType": "numeric"},
    ]
    layout = {
        "urlEnvironment": "TEST_API_URL", "tokenEnvironment": "TEST_API_TOKEN", "paging": "offset", "pageSize": 1,
        "recordsPath": "items", "totalPath": "meta.total",
    }  # fmt: skip
    made = make_contract("feed_api_seen_first", columns, server={"type": "api", "format": "json_api"}, layout=layout)
    url = f"http://127.0.0.1:{api.server_address[1]}/v1/items"

    def dopa(token: str = "k3y") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DOPA, "ingest", "--contract", str(made.path), "--json"],
            env=environment | {"TEST_API_URL": url, "TEST_API_TOKEN": token},
            cwd=ROOT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def refused(done: subprocess.CompletedProcess[str], words: str) -> None:
        assert (done.returncode, done.stdout) == (3, ""), done
        assert words in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
        assert not any(secret in done.stderr for secret in ("k3y", "wrong-key", "127.0.0.1"))

    refused(dopa("wrong-key"), "status 401); check TEST_API_URL and TEST_API_TOKEN: the token is missing, wrong or expired")
    api.down = 2
    refused(dopa(), "did not answer page 3 (status 404)")
    api.down, api.asked = 99, []
    api.told = 4
    refused(dopa(), "total changed from 3 to 4 while its pages were fetched")
    assert api.asked == [2]
    api.told = 3
    done = dopa()
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["status"], told["rows_read"], told["rows_loaded"], told["rows_quarantined"]) == ("loaded", 3, 2, 1)
    with warehouse.connect() as connection:
        found = connection.execute(
            "select no, day::text, person, amount::text from raw.feed_api_seen_first order by no"
        ).fetchall()
    assert found == [("1", "2025-04-01", "สมชาย", "12345678901234567890.10"), ("3", "2025-04-02", None, None)]
    assert json.loads(dopa().stdout)["status"] == "unchanged"
    assert rebuild(warehouse, made).equal
