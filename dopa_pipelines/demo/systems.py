"""The two silos of the synthetic department that are no files: a departmental database and a JSON API.

They stand in for systems of other bureaus: nothing of the platform's warehouse is used, and what they serve
is given to them.
"""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg import sql

from dopa_pipelines.demo.defects import Record

HOTEL_COLUMNS = (
    "licence_no", "hotel_name", "hotel_type", "rooms", "province_code", "district_code", "licensee_pid",
    "issued_on", "expires_on", "status",
)  # fmt: skip
USAGE_PATH = "/usage"


def write_departmental(connection: psycopg.Connection[Any], rows: Sequence[Record]) -> None:
    """Put ``rows`` into the table ``hotel``, in place of what was there, in one transaction of
    ``connection``.

    The table lies in the first schema of the search path: a database of its own or, where the server lets us
    make none, a schema. The old system keeps everything as text: that is how impossible dates get into it.
    ``row_id`` is the order of entry.
    """
    with connection.transaction(), connection.cursor() as cursor:
        columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in HOTEL_COLUMNS)
        cursor.execute(sql.SQL("create table if not exists hotel (row_id integer primary key, {})").format(columns))
        cursor.execute("delete from hotel")
        names = sql.SQL(", ").join(sql.Identifier(name) for name in ("row_id", *HOTEL_COLUMNS))
        with cursor.copy(sql.SQL("copy hotel ({}) from stdin").format(names)) as copy:
            for number, row in enumerate(rows, 1):
                copy.write_row((number, *(row[name] for name in HOTEL_COLUMNS)))


@contextmanager
def serve_linkage_api(rows: Sequence[Record], *, token: str, page_size: int = 500) -> Iterator[str]:
    """Serve ``rows`` as the Linkage Center does while the block runs; yields the URL of the first page.

    Loopback, a free port. ``?page=2`` gives ``{"data": […], "next": 3}``; ``next`` is null on the last page.
    Without the bearer ``token`` the answer is 401, elsewhere 404, for a page that isn't a number from 1 up
    400.
    """
    pages = max(1, -(-len(rows) // page_size))
    expected = f"Bearer {token}".encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), expected):
                return self._answer(401, {"error": "a bearer token is needed"})
            if asked.path != USAGE_PATH:
                return self._answer(404, {"error": "no such resource"})
            page = parse_qs(asked.query).get("page", ["1"])[0]
            if not (page.isascii() and page.isdigit() and int(page) > 0):
                return self._answer(400, {"error": "page must be a number from 1 up"})
            number = int(page)
            data = rows[(number - 1) * page_size : number * page_size]
            return self._answer(200, {"data": list(data), "next": number + 1 if number < pages else None})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: requests of a demonstration are no news."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{USAGE_PATH}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
