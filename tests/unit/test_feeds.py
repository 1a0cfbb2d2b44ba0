"""Feeds against a server that misbehaves: what is fetched is whole and once, or refused in one sentence; the token stays home."""

import gzip
import itertools
import json
import multiprocessing
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import polars as pl
import pytest

from dopa_pipelines.contracts import Contract, read_contract
from dopa_pipelines.documents import DocumentError
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.sources import api, fetch, open_reader
from dopa_pipelines.sources.api import Timing
from dopa_pipelines.sources.batch import frame_of

AB = [{"name": "a"}, {"name": "b"}]
TOKEN = "s3cret-t0ken"


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0
        self.waits: list[float] = []

    def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds

    @property
    def timing(self) -> Timing:
        return Timing(self.pause, lambda: self.time)


class Request(BaseHTTPRequestHandler):
    """One request. An answer is what a test's function does with it."""

    protocol_version = "HTTP/1.1"

    @property
    def asked(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.path).query))

    @property
    def host(self) -> str:
        return f"http://{self.headers['host']}"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("authorization")))  # type: ignore[attr-defined]
        self.server.answer(self)  # type: ignore[attr-defined]

    def send(self, body: Any, status: int = 200, *, short: int = 0, **headers: str) -> None:
        """Send a body; ``short``: bytes that are announced and not sent."""
        content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        for name, value in ({"content_type": "application/json"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(content) + short))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = bool(short)

    def log_message(self, format: str, *args: Any) -> None:
        pass


Answer = Callable[[Request], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answer = answer
        self.requests: list[tuple[str, str | None]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/records"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that hangs up is what is tested."""


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], Server]]:
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        if len(servers) == 1:
            monkeypatch.setenv("TEST_FEED_URL", servers[0].url)
            monkeypatch.setenv("TEST_FEED_TOKEN", TOKEN)
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def contract(make_contract: Any) -> Callable[..., Contract]:
    def make(columns: list[dict[str, Any]] = AB, **layout: Any) -> Contract:
        own = {"urlEnvironment": "TEST_FEED_URL", "tokenEnvironment": "TEST_FEED_TOKEN"} | layout
        made: Contract = make_contract("feed_unit", columns, server={"type": "api", "format": "json_api"}, layout=own)
        return made

    return make


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def rows(contract: Contract, path: Path) -> list[tuple[Any, ...]]:
    frames = [frame_of(batch) for batch in open_reader(contract, path).batches()]
    names = [column.name for column in contract.file_columns]
    return pl.concat(frames).sort("_row").select(names).rows() if frames else []


def records(*values: Any) -> list[dict[str, Any]]:
    return [{"a": str(value), "b": "x"} for value in values]


def pages(*contents: list[dict[str, Any]]) -> Answer:
    """Serves numbered pages, as ``data`` and ``next``."""

    def answer(request: Request) -> None:
        number = int(request.asked["page"])
        request.send({"data": contents[number - 1], "next": number + 1 if number < len(contents) else None})

    return answer


def stumbling(answer: Answer, *mishaps: Answer) -> Answer:
    """Serves as ``answer`` does, but its second requests and those after go wrong first."""
    waiting = list(mishaps)
    count = itertools.count(1)

    def stumble(request: Request) -> None:
        (waiting.pop(0) if next(count) > 1 and waiting else answer)(request)

    return stumble


def hang(request: Request) -> None:
    time.sleep(1.5)
    request.close_connection = True


def drip(request: Request) -> None:
    """An answer that would take minutes, a byte at a time."""
    request.send_response(200)
    request.send_header("content-length", "100000")
    request.end_headers()
    for _ in range(30):
        request.wfile.write(b" ")
        request.wfile.flush()
        time.sleep(0.05)
    request.close_connection = True


def drip_headers(request: Request) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(30):
        request.wfile.write(b"x: y\r\n")
        request.wfile.flush()
        time.sleep(0.05)
    request.close_connection = True


MISHAPS: dict[str, Answer] = {
    "500": lambda request: request.send(b"oops", 500),
    "408": lambda request: request.send(b"", 408),
    "half a page": lambda request: request.send(b'{"data": [{"a": "1"', short=500),
    "cut JSON": lambda request: request.send(b'{"data": [{"a": "1"'),
    "not JSON": lambda request: request.send("<html>เข้าสู่ระบบ</html>".encode(), content_type="text/html"),
    "no UTF-8": lambda request: request.send(b'{"data": [{"a": "\xa1"}]}'),
    "hang": hang,
    "drip": drip,
    "drip of headers": drip_headers,
    "cut gzip": lambda request: request.send(gzip.compress(b'{"data": []}')[:-6], content_encoding="gzip"),
    "no gzip": lambda request: request.send(b'{"data": []}', content_encoding="gzip"),
    "hang up": lambda request: request.connection.close(),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "READ_SECONDS", 0.4)
    monkeypatch.setattr(api, "PAGE_SECONDS", 0.8)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("mishap", MISHAPS)
def test_a_silo_that_stumbles_is_asked_again(contract: Any, serve: Any, spool: Path, clock: Clock, mishap: str) -> None:
    server = serve(stumbling(pages(records(1), records(2), records(3)), MISHAPS[mishap]))
    made = contract()
    path = fetch(made, spool, clock.timing)
    assert rows(made, path) == [("1", "x"), ("2", "x"), ("3", "x")]
    assert len(server.requests) == 4
    assert len(clock.waits) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("mishap", MISHAPS)
def test_attempts_end(contract: Any, serve: Any, spool: Path, clock: Clock, mishap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "ATTEMPTS", 2)
    server = serve(MISHAPS[mishap])
    with pytest.raises(Rejected, match=r"did not answer page 1 \(.+\); check TEST_FEED_URL and TEST_FEED_TOKEN") as refusal:
        fetch(contract(), spool, clock.timing)
    assert_tells_nothing(str(refusal.value), server)
    assert len(server.requests) == 2
    assert list(spool.iterdir()) == []


def assert_tells_nothing(message: str, *servers: Server) -> None:
    assert TOKEN not in message
    assert "127.0.0.1" not in message
    assert not any(str(server.server_address[1]) in message for server in servers)


def test_waits_grow_and_are_what_the_server_asks_for(contract: Any, serve: Any, spool: Path, clock: Clock) -> None:
    busy = [
        lambda request: request.send(b"", 429, retry_after="7"),
        lambda request: request.send(b"", 503, retry_after="999999"),
        lambda request: request.send(b"", 503, retry_after="Fri, 15 Jan 2027 08:01:50 GMT"),
        lambda request: request.send(b"", 429),
    ]
    serve(stumbling(pages(records(1), records(2)), *busy))
    clock.time = 1_800_000_000.0 - 127  # the date above less what is waited before
    assert len(rows(contract(), fetch(contract(), spool, clock.timing))) == 2
    assert clock.waits[0] == 7
    assert clock.waits[1] == api.MAX_WAIT_SECONDS
    # 1,800,000,000 is 08:00:00 on that day.
    assert clock.waits[2] == pytest.approx(110)
    assert 2 <= clock.waits[3] <= 4


def test_retries_of_a_whole_fetch_end(contract: Any, serve: Any, spool: Path, clock: Clock, monkeypatch: Any) -> None:
    monkeypatch.setattr(api, "MAX_RETRIES", 3)
    failed: set[str] = set()

    def answer(request: Request) -> None:
        if request.path not in failed:
            failed.add(request.path)
            return request.send(b"", 500)
        number = int(request.asked["page"])
        return request.send({"data": records(number), "next": number + 1})

    serve(answer)
    with pytest.raises(Rejected, match=r"page 4 \(status 500\)"):
        fetch(contract(), spool, clock.timing)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_is_the_clients_fault_is_not_asked_again(contract: Any, serve: Any, spool: Path, clock: Clock, status: int) -> None:
    server = serve(lambda request: request.send(b"", status))
    with pytest.raises(Rejected, match=f"status {status}") as refusal:
        fetch(contract(), spool, clock.timing)
    assert ("the token is missing, wrong or expired" in str(refusal.value)) == (status in (401, 403))
    assert len(server.requests) == 1


# paging


def links(request: Request, *, relative: bool = False) -> None:
    number = int(request.asked.get("p", "1"))
    following = f"{'' if relative else request.host}/records?p={number + 1}" if number < 3 else None
    request.send({"data": records(number), "links": {"next": following}})


def header_links(request: Request) -> None:
    number = int(request.asked.get("p", "1"))
    more = {"link": f'</records?p={number + 1}>; rel="next", </records?p=1>; rel="first"'} if number < 3 else {}
    request.send(records(number), **more)


def cursors(request: Request) -> None:
    following = {"": "x/&=ก", "x/&=ก": "z", "z": ""}
    given = request.asked.get("cursor", "")
    request.send({"meta": {"cursor": following[given]}, "data": records(list(following).index(given) + 1)})


def offsets(request: Request, *, total: int | None = None, cap: int = 10) -> None:
    offset, limit = int(request.asked["offset"]), int(request.asked["limit"])
    found = records(*range(1, 4))[offset : offset + min(limit, cap)]
    request.send({"result": {"rows": found}, "count": total})


@pytest.mark.parametrize(
    ("layout", "answer", "requests"),
    [
        ({}, pages(records(1), records(2), records(3)), 3),
        ({"paging": "link", "nextPage": "links.next"}, links, 3),
        ({"paging": "link", "nextPage": "links.next"}, lambda request: links(request, relative=True), 3),
        ({"paging": "link", "recordsPath": ""}, header_links, 3),
        ({"paging": "cursor", "nextPage": "meta.cursor"}, cursors, 3),
        ({"paging": "offset", "pageSize": 2, "recordsPath": "result.rows"}, offsets, 2),
        # A page that is whole may be followed by an empty one; one that is short at once may be all the server gives.
        ({"paging": "offset", "pageSize": 3, "recordsPath": "result.rows"}, offsets, 2),
        ({"paging": "offset", "pageSize": 9, "recordsPath": "result.rows"}, lambda request: offsets(request, cap=1), 4),
        (
            {"paging": "offset", "pageSize": 9, "recordsPath": "result.rows", "totalPath": "count"},
            lambda request: offsets(request, cap=2, total=3),
            2,
        ),
        ({"paging": "none", "recordsPath": ""}, lambda request: request.send(records(1, 2, 3)), 1),
        ({"paging": "none", "recordsPath": "a.b"}, lambda request: request.send({"a": {"b": records(1, 2, 3)}}), 1),
        ({"paging": "none", "recordsPath": "a.b"}, lambda request: request.send({"a.b": records(1, 2, 3)}), 1),
    ],
)  # fmt: skip
def test_styles_of_paging(
    contract: Any, serve: Any, spool: Path, clock: Clock, layout: dict[str, Any], answer: Answer, requests: int
) -> None:
    server = serve(answer)
    made = contract(**layout)
    assert rows(made, fetch(made, spool, clock.timing)) == [("1", "x"), ("2", "x"), ("3", "x")]
    assert len(server.requests) == requests
    assert {token for _, token in server.requests} == {f"Bearer {TOKEN}"}
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    assert [(item.name, stat.S_IMODE(item.stat().st_mode)) for item in spool.iterdir()] == [("feed_unit.jsonl", 0o600)]


def test_what_the_address_asks_for_is_kept(contract: Any, serve: Any, spool: Path, clock: Clock, monkeypatch: Any) -> None:
    server = serve(pages(records(1), records(2)))
    monkeypatch.setenv("TEST_FEED_URL", f"{server.url}?office=1001&page=7")
    fetch(contract(pageSize=50, sizeParameter="per_page"), spool, clock.timing)
    asked = [dict(parse_qsl(urlsplit(path).query)) for path, _ in server.requests]
    assert asked == [{"office": "1001", "page": str(page), "per_page": "50"} for page in (1, 2)]


def again_and_again(request: Request) -> None:
    request.send({"data": records(request.asked["page"]), "next": 1})


def endless(request: Request) -> None:
    number = int(request.asked["page"])
    request.send({"data": records(number), "next": number + 1})


def repeated(request: Request) -> None:
    number = int(request.asked["page"])
    request.send({"data": records(min(number, 2)), "next": number + 1})


@pytest.mark.parametrize(
    ("layout", "answer", "words"),
    [
        ({}, again_and_again, "after page 1 the API names a page again; its paging does not end"),
        ({}, endless, "after page 5 the API names a page again"),
        ({}, repeated, "page 3 holds the same records as page 2, though another page was asked for"),
        ({}, lambda request: request.send({"rows": []}), "page 1 of the API has no list of objects under 'data'"),
        ({}, lambda request: request.send({"data": {"a": 1}}), "no list of objects"),
        ({}, lambda request: request.send({"data": [{"a": 1}, None]}), "no list of objects"),
        ({}, lambda request: request.send([]), "sends no JSON object"),
        ({"recordsPath": ""}, lambda request: request.send({"data": []}), "sends no JSON list"),
        ({}, lambda request: request.send({"data": records(1), "next": {"page": 2}}), "names no page but"),
        ({}, lambda request: request.send({"data": records(1), "next": True}), "names no page but true"),
        ({"totalPath": "n"}, lambda request: request.send({"data": records(1), "n": 2}), "says it has 2 records but gave 1"),
        ({"totalPath": "n"}, lambda request: request.send({"data": records(1)}), "no page of the API tells a total under 'n'"),
        ({"totalPath": "n"}, lambda request: request.send({"data": records(1), "n": "many"}), "no number under 'n'"),
        (
            {"totalPath": "n"},
            lambda request: request.send(
                {"data": records(request.asked["page"]), "n": 1 + int(request.asked["page"]), "next": 2}
            ),
            "total changed from 2 to 3",
        ),
        (
            {"paging": "offset", "pageSize": 2, "totalPath": "count", "recordsPath": "result.rows"},
            lambda request: offsets(request, total=7),
            "says it has 7 records but gave 3",
        ),
        ({}, lambda request: request.send(b"[" * 100_000), "no whole JSON"),
        ({}, lambda request: request.send(b"{}", content_encoding="br"), "packed as 'br', which was not asked for"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    contract: Any, serve: Any, spool: Path, clock: Clock, layout: Any, answer: Answer, words: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(api, "MAX_PAGES", 5)
    server = serve(answer)
    with pytest.raises(Rejected) as refusal:
        fetch(contract(**layout), spool, clock.timing)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert_tells_nothing(str(refusal.value), server)
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    "target",
    ["http://localhost:{port}/records?p=2", "https://127.0.0.1:{own}/records?p=2", "//127.0.0.1:{port}/", "http://127.0.0.1:{own}@127.0.0.1:{port}/",
     "http://u:p@127.0.0.1:{own}/", "file:///etc/passwd", "http://127.0.0.1:{own}\\@x/", "http://[::1", "http://127.0.0.1:99999/"],
)  # fmt: skip
@pytest.mark.parametrize("way", ["body", "header", "redirect"])
def test_the_token_never_goes_elsewhere(contract: Any, serve: Any, spool: Path, clock: Clock, target: str, way: str) -> None:
    def answer(request: Request) -> None:
        url = target.format(port=other.server_address[1], own=server.server_address[1])
        if way == "body":
            request.send({"data": records(1), "next": url})
        elif way == "header":
            request.send({"data": records(1)}, link=f'<{url}>; rel="next"')
        else:
            request.send(b"", 302, location=url)

    server, other = serve(answer), serve(lambda request: request.send({"data": records(2)}))
    with pytest.raises(Rejected) as refusal:
        fetch(contract(paging="link"), spool, clock.timing)
    words = "redirects to another address" if way == "redirect" else "links to a next page at another address"
    if way == "redirect" and "[" in target:  # which the library takes for a broken answer
        words = "broke off its answer"
    assert words in str(refusal.value)
    assert_tells_nothing(str(refusal.value), server, other)
    assert other.requests == []
    assert {path for path, _ in server.requests} == {"/records"}


def test_a_redirect_at_home_is_followed_but_not_for_ever(contract: Any, serve: Any, spool: Path, clock: Clock) -> None:
    def answer(request: Request) -> None:
        if request.path.startswith("/records"):
            request.send(b"", 307, location="/v2/" + request.path.rpartition("/")[2])
        else:
            pages(records(1), records(2))(request)

    serve(answer)
    made = contract()
    assert rows(made, fetch(made, spool, clock.timing)) == [("1", "x"), ("2", "x")]
    serve(lambda request: None)
    loop = serve(lambda request: request.send(b"", 302, location="/records"))
    os.environ["TEST_FEED_URL"] = loop.url
    with pytest.raises(Rejected, match="more than 5 redirects"):
        fetch(made, spool, clock.timing)
    assert len(loop.requests) == 5


# values


def test_numbers_stay_as_they_were_written(contract: Any, serve: Any, spool: Path, clock: Clock) -> None:
    numbers = ["1e309", "-0", "1234567890123", "12345678901234567890123", "0.10", "1.0", "-1.5E-400", "0.1"]
    body = ",".join(f'{{"a": {number}, "b": [{number}]}}' for number in numbers)
    serve(lambda request: request.send(f'{{"data": [{body}], "next": null}}'.encode()))
    made = contract()
    assert rows(made, fetch(made, spool, clock.timing)) == [(number, f"[{number}]") for number in numbers]


def test_texts_stay_what_they_are(contract: Any, serve: Any, spool: Path, clock: Clock) -> None:
    texts = ["น้ำ", "", "a\nb\r\n", 'say "x"', "\\", "a\u2028b", "', drop table x", "\u202eabc", "=1+1"]
    serve(lambda request: request.send({"data": [{"a": text, "b": None} for text in texts], "next": None}))
    made = contract()
    path = fetch(made, spool, clock.timing)
    found = rows(made, path)
    assert len(path.read_text("utf-8").split("\n")) == len(texts) + 1
    assert found == [(text, None) for text in texts if text]


def test_pages_that_lose_a_column_keep_their_rows(contract: Any, serve: Any, spool: Path, clock: Clock) -> None:
    serve(pages(records(1), [{"a": "2", "new": True}], [{"A": "3", "b": {"deep": 1}}]))
    made = contract()
    assert rows(made, fetch(made, spool, clock.timing)) == [("1", "x"), ("2", None), ("3", '{"deep":1}')]


def test_gzip_is_read_and_a_bomb_is_not(contract: Any, serve: Any, spool: Path, clock: Clock, monkeypatch: Any) -> None:
    body = gzip.compress(json.dumps({"data": records(1), "next": None}).encode())
    made = contract()
    serve(lambda request: request.send(body, content_encoding="gzip"))
    assert rows(made, fetch(made, spool, clock.timing)) == [("1", "x")]
    monkeypatch.setattr(api, "MAX_PAGE_BYTES", 1 << 20)
    bomb = gzip.compress(b" " * (200 << 20))
    server = serve(lambda request: request.send(bomb, content_encoding="gzip"))
    monkeypatch.setenv("TEST_FEED_URL", server.url)
    with pytest.raises(Rejected, match="a page is longer than 1,048,576 bytes"):
        fetch(made, spool, clock.timing)
    server = serve(lambda request: request.send(b" " * (2 << 20)))
    monkeypatch.setenv("TEST_FEED_URL", server.url)
    with pytest.raises(Rejected, match="a page is longer than"):
        fetch(made, spool, clock.timing)
    assert len(server.requests) == 1


# going on


class Broken:
    """Serves ten pages but answers 500 from page ``until`` on, until it is mended."""

    def __init__(self, until: int) -> None:
        self.until = until

    def __call__(self, request: Request) -> None:
        number = int(request.asked["page"])
        if number >= self.until:
            request.send(b"", 500)
        else:
            pages(*(records(page) for page in range(1, 11)))(request)


ALL_TEN = [(str(number), "x") for number in range(1, 11)]


def asked(server: Server) -> list[int]:
    found = [int(dict(parse_qsl(urlsplit(path).query))["page"]) for path, _ in server.requests]
    server.requests.clear()
    return found


@pytest.fixture
def broken(serve: Any, spool: Path, clock: Clock, contract: Any) -> tuple[Server, Broken]:
    """A fetch that broke off after page 4; the silo has been mended since."""
    answer = Broken(5)
    server = serve(answer)
    with pytest.raises(Rejected, match=r"page 5 \(status 500\)"):
        fetch(contract(), spool, clock.timing)
    assert asked(server) == [1, 2, 3, 4, 5, 5, 5, 5, 5]
    assert {stat.S_IMODE(item.stat().st_mode) for item in spool.iterdir()} == {0o600}
    answer.until = 99
    return server, answer


def test_a_broken_fetch_goes_on(broken: Any, contract: Any, spool: Path, clock: Clock) -> None:
    server, _ = broken
    clock.time += api.RESUME_SECONDS - 60
    path = fetch(contract(), spool, clock.timing)
    assert asked(server) == [5, 6, 7, 8, 9, 10]
    assert rows(contract(), path) == ALL_TEN
    assert [item.name for item in spool.iterdir()] == ["feed_unit.jsonl"]
    fetch(contract(), spool, clock.timing)
    assert asked(server) == list(range(1, 11))


@pytest.mark.parametrize("what", ["age", "clock", "contract", "address", "state", "version", "data"])
def test_what_does_not_fit_is_fetched_anew(
    broken: Any, contract: Any, spool: Path, clock: Clock, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = broken
    made = contract()
    state, data = spool / ".feed_unit.pages.state", spool / ".feed_unit.pages"
    if what == "age":
        clock.time += api.RESUME_SECONDS
    elif what == "clock":
        clock.time -= 3600
    elif what == "contract":
        made = contract([*AB, {"name": "c", "titles": ["x"]}][:2], pageParameter="page", sizeParameter="n")
    elif what == "address":
        monkeypatch.setenv("TEST_FEED_URL", server.url + "?office=2")
    elif what == "state":
        state.write_bytes(b"\xff\x00 no state\n")
    elif what == "version":
        state.write_bytes(state.read_bytes().replace(b'"version": 1', b'"version": 2'))
    else:
        data.unlink()
    assert rows(made, fetch(made, spool, clock.timing)) == ALL_TEN
    assert asked(server) == list(range(1, 11))


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        (lambda data, state: (data + b'{"a": "5", "b"', state), 5),  # killed before the page was whole
        (lambda data, state: (data + b'{"a":"5","b":"x"}\n', state), 5),  # killed before the journal knew of it
        (lambda data, state: (data, state[:-7]), 4),  # killed while the journal was written
        (lambda data, state: (data[:-3], state), 4),  # the disk lost the end
        (lambda data, state: (data.replace(b'"3"', b'"7"'), state), 3),  # the disk lost the middle
        (lambda data, state: (data, state + b'{"key": "5"}\n'), 1),
    ],
)
def test_a_torn_page_is_cut_off(broken: Any, contract: Any, spool: Path, clock: Clock, damage: Any, first: int) -> None:
    server, _ = broken
    files = [spool / ".feed_unit.pages", spool / ".feed_unit.pages.state"]
    for file, content in zip(files, damage(*(file.read_bytes() for file in files)), strict=True):
        file.write_bytes(content)
    path = fetch(contract(), spool, clock.timing)
    assert asked(server) == list(range(first, 11))
    assert rows(contract(), path) == ALL_TEN


def test_a_page_that_comes_again_after_going_on_is_refused(broken: Any, contract: Any, spool: Path, clock: Clock) -> None:
    server, _ = broken
    server.answer = lambda request: request.send({"data": records(2), "next": None})
    with pytest.raises(Rejected, match="page 5 holds the same records as page 2"):
        fetch(contract(), spool, clock.timing)
    assert list(spool.iterdir()) == []


def test_totals_count_what_was_kept(contract: Any, serve: Any, spool: Path, clock: Clock) -> None:
    failing = [True]

    def answer(request: Request) -> None:
        number = int(request.asked["page"])
        if number == 3 and failing[0]:
            return request.send(b"", 500)
        return request.send({"data": records(number), "total": 4, "next": number + 1 if number < 3 else None})

    serve(answer)
    made = contract(totalPath="total")
    with pytest.raises(Rejected, match="status 500"):
        fetch(made, spool, clock.timing)
    failing[0] = False
    with pytest.raises(Rejected, match="says it has 4 records but gave 3"):
        fetch(made, spool, clock.timing)


def _fetch_once(path: str, spool: str) -> None:
    fetch(read_contract(Path(path)), Path(spool))


def test_killed_a_fetch_goes_on_where_it_was(contract: Any, serve: Any, spool: Path) -> None:
    made = contract()
    big = [[{"a": f"{page}-{row}", "b": "ย" * 50} for row in range(200)] for page in range(1, 31)]
    children: list[Any] = []

    def answer(request: Request) -> None:
        number = int(request.asked["page"])
        if number == 10 * len(children):
            os.kill(children[-1].pid, signal.SIGKILL)
        pages(*big)(request)

    server = serve(answer)
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        children.append(context.Process(target=_fetch_once, args=(str(made.path), str(spool))))
        children[-1].start()
        children[-1].join(60)
        assert children[-1].exitcode == -signal.SIGKILL
    children.clear()
    assert asked(server) == [*range(1, 11), *range(10, 21)]
    assert rows(made, fetch(made, spool)) == [(record["a"], record["b"]) for page in big for record in page]
    assert asked(server) == list(range(20, 31))
    assert [item.name for item in spool.iterdir()] == ["feed_unit.jsonl"]


def test_two_fetches_at_once_both_are_whole(contract: Any, serve: Any, spool: Path, clock: Clock) -> None:
    serve(pages(*(records(page) for page in range(1, 11))))
    made = contract()
    done: list[Any] = []
    threads = [threading.Thread(target=lambda: done.append(fetch(made, spool, clock.timing).read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4 and len(set(done)) == 1
    assert rows(made, spool / "feed_unit.jsonl") == ALL_TEN


# configuration


@pytest.mark.parametrize(
    "address", ["ftp://x/y", "127.0.0.1:8000/records", "http://", "http://[::1", "https://h:99999/", "http://a\x1b/"]
)
def test_an_address_that_is_none_is_named_by_its_variable(contract: Any, spool: Path, monkeypatch: Any, address: str) -> None:
    monkeypatch.setenv("TEST_FEED_URL", address)
    monkeypatch.setenv("TEST_FEED_TOKEN", TOKEN)
    with pytest.raises(UserError, match="TEST_FEED_URL is no address of an API; it must be https://host/path") as error:
        fetch(contract(), spool)
    assert address not in str(error.value)


@pytest.mark.parametrize(
    ("token", "words"), [("", "TEST_FEED_TOKEN .* is not set"), ("a\nb", "characters that no token has"), ("ก", "characters")]
)
def test_a_token_that_is_none_is_named_by_its_variable(
    contract: Any, serve: Any, spool: Path, monkeypatch: Any, token: str, words: str
) -> None:
    server = serve(pages(records(1)))
    monkeypatch.setenv("TEST_FEED_TOKEN", token)
    with pytest.raises(UserError, match=words):
        fetch(contract(), spool)
    assert server.requests == []


def test_a_spool_that_cannot_be_written_is_named(contract: Any, serve: Any, tmp_path: Path, clock: Clock) -> None:
    serve(pages(records(1)))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be kept in .*file.* \(.*\); make room there"):
        fetch(contract(), tmp_path / "file" / "spool", clock.timing)


def test_an_unknown_host_is_told_without_its_name(contract: Any, spool: Path, clock: Clock, monkeypatch: Any) -> None:
    monkeypatch.setenv("TEST_FEED_URL", "https://no-such-host.invalid/records")
    monkeypatch.setenv("TEST_FEED_TOKEN", TOKEN)
    with pytest.raises(Rejected, match="its host is unknown") as refusal:
        fetch(contract(), spool, clock.timing)
    assert "no-such-host" not in str(refusal.value)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"paging": "pages"}, "paging 'pages' is not known; did you mean 'page'"),
        ({"paging": "offset"}, "paging offset needs the customProperty pageSize"),
        ({"paging": "offset", "pageSize": "10"}, "pageSize '10' must be a whole number of at least 1"),
        ({"pageSize": 0}, "pageSize 0 must be a whole number"),
        ({"totalpath": "n"}, "unknown customProperty 'totalpath'"),
    ],
)
def test_paging_in_a_contract_is_checked(contract: Any, layout: dict[str, Any], words: str) -> None:
    with pytest.raises(DocumentError) as error:
        contract(**layout)
    assert words in str(error.value)


def test_paging_is_for_an_api(make_contract: Any) -> None:
    with pytest.raises(DocumentError, match="totalPath is for a server of type api"):
        make_contract("feed_unit", AB, layout={"totalPath": "n"})
