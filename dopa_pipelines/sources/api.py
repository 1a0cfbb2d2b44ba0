"""JSON APIs: the records of all pages, as JSON lines in the spool.

A page is asked for again where the silo stumbles, within bounded attempts and time. Whole pages are kept as they come, so that a
fetch that was broken off goes on after the last one. What would load a page twice, or leave one out, is refused. The token goes
to the address that is configured and nowhere else, and neither stands in any message.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import socket
import ssl
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.sources.records import as_json, parse
from dopa_pipelines.sources.spool import private_file

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 5
MAX_RETRIES = 200
"""Of a whole fetch: a silo that stumbles at every other page is down, not slow."""
MAX_PAGES = 100_000
MAX_PAGE_BYTES = 32 << 20
"""Of a page, unpacked: it is taken apart in memory."""
MAX_REDIRECTS = 5
READ_SECONDS = 30.0
"""A silence this long in the middle of an answer ends an attempt."""
PAGE_SECONDS = 300.0
"""An attempt takes no longer, however slowly bytes drip."""
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 120.0
RESUME_SECONDS = 6 * 60 * 60
"""Pages that were kept for longer are no longer one state of the silo."""

_STATE_VERSION = 1


@dataclass(frozen=True)
class Timing:
    """How to wait (seconds) and what the time is (seconds since 1970)."""

    pause: Callable[[float], None]
    now: Callable[[], float]


def fetch(contract: Contract, address: str, spool: Path, timing: Timing) -> Path:
    """All records of the API, as ``<dataset>.jsonl`` in ``spool``.

    Raises Rejected where the API does not give them, UserError where address or token cannot be used, OSError where the records
    cannot be kept.
    """
    parts = _split(address)
    if parts is None:
        raise UserError(
            f"{contract.dataset}: {contract.layout.url_environment} is no address of an API; it must be https://host/path"
        )
    with _Kept(contract, address, spool, timing) as kept, _Client(contract, parts, _token(contract), timing) as client:
        try:
            _fetch_pages(contract, address, kept, client)
        except _UnreachableError as error:
            # What is whole is kept for the next fetch.
            raise Rejected(str(error)) from None
        except Rejected:
            kept.discard()
            raise
        return kept.finish()


def _token(contract: Contract) -> str:
    variable = contract.layout.token_environment
    if not variable:
        return ""
    token = os.environ.get(variable, "").strip()
    if not token:
        raise UserError(
            f"{contract.dataset}: the environment variable {variable} (named in {contract.path.name}) is not set;"
            " set it to the token of the API"
        )
    if not (token.isascii() and token.isprintable()):
        raise UserError(f"{contract.dataset}: {variable} holds characters that no token has; set it again")
    return token


def _fetch_pages(contract: Contract, address: str, kept: _Kept, client: _Client) -> None:
    pages = _Pages(contract, address)
    for page in kept.pages:
        pages.take(page)
    while (key := pages.following) is not None:
        number = len(pages.seen) + 1
        if key in pages.seen or number > MAX_PAGES:
            raise Rejected(f"{contract.dataset}: after page {number - 1} the API names a page again; its paging does not end")
        answer = client.get(pages.url(key), number)
        lines, total = pages.read(answer, number)
        following = pages.after(key, answer, len(lines), total)
        page = kept.add(key, following, lines, total)
        pages.take(page)
    pages.check_total()


# What a page says


class Answer(NamedTuple):
    """A page as it came: its address, the link to the next one in its headers, and its body."""

    url: str
    link: str | None
    body: Any


@dataclass(frozen=True)
class Page:
    """A page that is kept. ``key`` names it, ``following`` the next one; ``size`` is its bytes in the spool."""

    key: str
    following: str | None
    records: int
    total: int | None
    size: int
    sha256: str


_ABSENT = object()


class _Pages:
    """The pages of one fetch: which come next, and whether together they are what they should be."""

    def __init__(self, contract: Contract, address: str) -> None:
        self._contract = contract
        self._layout = contract.layout
        self._address = address
        self._first = {"page": "1", "offset": "0", "cursor": "", "none": "", "link": address}[self._layout.paging]
        self.following: str | None = self._first
        self.seen: set[str] = set()
        self._contents: dict[str, int] = {}
        self._records = 0
        self._largest = 0
        self._total: int | None = None

    def take(self, page: Page) -> None:
        """Go on after ``page``. Raises Rejected where it repeats another or says another total."""
        number = len(self.seen) + 1
        if page.records and page.sha256 in self._contents:
            raise self._refused(
                f"page {number} holds the same records as page {self._contents[page.sha256]}, though another page was asked for;"
                " it is not loaded twice: have the API's paging mended, or compare the contract's paging with it"
            )
        if page.total is not None and self._total not in (None, page.total):
            raise self._refused(
                f"the API's total changed from {self._total:,} to {page.total:,} while its pages were fetched; fetch them again"
            )
        self.seen.add(page.key)
        self._contents[page.sha256] = number
        self._records += page.records
        self._largest = max(self._largest, page.records)
        self._total = page.total if page.total is not None else self._total
        self.following = page.following

    def url(self, key: str) -> str:
        """The address of a page."""
        import httpx

        if self._layout.paging == "link" and key != self._first:
            return key
        url = httpx.URL(self._address)
        if key and self._layout.paging != "link":
            url = url.copy_set_param(self._layout.page_parameter, key)
        if self._layout.page_size and self._layout.paging != "none":
            url = url.copy_set_param(self._layout.size_parameter, str(self._layout.page_size))
        return str(url)

    def read(self, answer: Answer, number: int) -> tuple[list[bytes], int | None]:
        """The records of a page, a line of JSON each, and the total that it says."""
        path = self._layout.records_path
        records = _at(answer.body, path) if path else answer.body
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            where = f"under {path!r}" if path else "at its beginning"
            raise self._refused(
                f"page {number} of the API has no list of objects {where};"
                f" compare recordsPath in {self._contract.path.name} with what it sends"
            )
        total = _at(answer.body, self._layout.total_path) if self._layout.total_path else None
        if total is _ABSENT or total is None:
            return [as_json(record).encode() for record in records], None
        text = str(total)
        if isinstance(total, bool) or not (text.isascii() and text.isdigit() and len(text) < 16):
            raise self._refused(
                f"page {number} of the API has no number under {self._layout.total_path!r};"
                f" compare totalPath in {self._contract.path.name} with what it sends"
            )
        return [as_json(record).encode() for record in records], int(text)

    def after(self, key: str, answer: Answer, records: int, total: int | None) -> str | None:
        """Which page comes after page ``key``; None if it is the last one."""
        paging = self._layout.paging
        if paging == "none":
            return None
        if paging == "offset":
            return self._next_offset(int(key), records, total if total is not None else self._total)
        found = _at(answer.body, self._layout.next_page)
        if paging == "link" and found is _ABSENT:
            found = answer.link
        if found is _ABSENT or found is None or found is False or found == "":
            return None
        if isinstance(found, bool | dict | list):
            raise self._refused(
                f"under {self._layout.next_page!r} the API names no page but {as_json(found)[:40]};"
                f" compare nextPage in {self._contract.path.name} with what it sends"
            )
        return self._link(answer.url, str(found)) if paging == "link" else str(found)

    def _next_offset(self, offset: int, records: int, total: int | None) -> str | None:
        if not records:
            return None
        fetched = offset + records
        if total is not None:
            return str(fetched) if fetched < total else None
        # A page shorter than one before is the last. The first one may be short because the API gives no more at once.
        return None if records < self._largest else str(fetched)

    def _link(self, base: str, link: str) -> str:
        target = _joined(base, link)
        if not _same_origin(target, self._address):
            raise self._refused(
                "the API links to a next page at another address, which is not followed, so that the token goes nowhere else;"
                f" set {self._layout.url_environment} to that address if it is right"
            )
        return target.partition("#")[0]

    def check_total(self) -> None:
        """Raises Rejected where the API told how many records there are and gave another number."""
        if self._layout.total_path and self._total is None:
            raise self._refused(
                f"no page of the API tells a total under {self._layout.total_path!r};"
                f" compare totalPath in {self._contract.path.name} with what it sends"
            )
        if self._total is not None and self._total != self._records:
            raise self._refused(
                f"the API says it has {self._total:,} records but gave {self._records:,}; nothing of them is taken: fetch again,"
                " and ask the bureau if it stays so"
            )

    def _refused(self, reason: str) -> Rejected:
        return Rejected(f"{self._contract.dataset}: {reason}")


def _at(body: Any, path: str) -> Any:
    """What stands at a key, or at keys with dots, of a body."""
    if isinstance(body, dict) and path in body:
        return body[path]
    for key in path.split("."):
        if not isinstance(body, dict) or key not in body:
            return _ABSENT
        body = body[key]
    return body


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None where it is none of an API."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if whole and url.isprintable() else None


def _joined(base: str, link: str) -> str:
    """An address from one that may be relative; no address where it cannot be one."""
    try:
        return urljoin(base, link)
    except ValueError:
        return ""


def _same_origin(url: str, other: str) -> bool:
    """Whether two addresses are of one server, and the first one brings no user of its own."""
    first, second = _split(url), _split(other)
    if first is None or second is None or "\\" in first.netloc:
        return False
    defaults = {"http": 80, "https": 443}
    origins = [(item.scheme, item.hostname, item.port or defaults[item.scheme]) for item in (first, second)]
    return origins[0] == origins[1] and first.username in (None, second.username) and first.password in (None, second.password)


# What is kept


class _Kept:
    """Whole pages in the spool: their records, and a journal with a line for each page.

    A context manager; leaving it without :meth:`finish` keeps the pages for the next fetch. Killed at any point, a page is either
    in the journal and whole, or cut off by the next fetch.
    """

    def __init__(self, contract: Contract, address: str, spool: Path, timing: Timing) -> None:
        self._final = spool / f"{contract.dataset}.jsonl"
        self._data_path = spool / f".{contract.dataset}.pages"
        self._journal_path = spool / f".{contract.dataset}.pages.state"
        self._now = timing.now
        self._head = {
            "version": _STATE_VERSION,
            "contract": contract.checksum,
            "address": hashlib.sha256(f"{contract.dataset}\0{address}".encode()).hexdigest(),
        }
        self.pages: list[Page] = []
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> _Kept:
        self.pages, size = self._resumable()
        if self.pages:
            data, journal = self._data_path.open("r+b"), self._journal_path.open("r+b")
            self._files = [data, journal]
            data.truncate(sum(page.size for page in self.pages))
            journal.truncate(size)
            for file in self._files:
                file.seek(0, os.SEEK_END)
        else:
            self.discard()
            self._files = [private_file(self._data_path), private_file(self._journal_path)]
            self._write(self._files[1], json.dumps(self._head | {"begun": self._now()}).encode() + b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()
        if not self.pages:
            self.discard()

    def _resumable(self) -> tuple[list[Page], int]:
        """Pages that an earlier fetch has kept and that still hold, and how long their part of the journal is."""
        try:
            lines = self._journal_path.read_bytes().split(b"\n")[:-1]
            head = json.loads(lines[0])
            age = self._now() - head.pop("begun")
            if head != self._head or not 0 <= age < RESUME_SECONDS:
                return [], 0
            pages, size = [], len(lines[0]) + 1
            with self._data_path.open("rb") as data:
                for line in lines[1:]:
                    page = Page(**json.loads(line))
                    part = data.read(page.size)
                    if len(part) != page.size or hashlib.sha256(part).hexdigest() != page.sha256:
                        break
                    pages.append(page)
                    size += len(line) + 1
            return pages, size
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            return [], 0

    def add(self, key: str, following: str | None, lines: list[bytes], total: int | None) -> Page:
        """Keep a page: its records first, then its line in the journal."""
        part = b"".join(line + b"\n" for line in lines)
        page = Page(key, following, len(lines), total, len(part), hashlib.sha256(part).hexdigest())
        self._write(self._files[0], part)
        self._write(self._files[1], json.dumps(asdict(page)).encode() + b"\n")
        self.pages.append(page)
        return page

    def _write(self, file: IO[bytes], data: bytes) -> None:
        file.write(data)
        file.flush()

    def finish(self) -> Path:
        """All pages are there: they become the delivery."""
        for file in self._files:
            file.close()
        self._data_path.replace(self._final)
        self._journal_path.unlink()
        return self._final

    def discard(self) -> None:
        """The pages are no good."""
        self.pages = []
        self._journal_path.unlink(missing_ok=True)
        self._data_path.unlink(missing_ok=True)


# How a page is asked for


class _UnreachableError(Exception):
    """The API gives no answer; what it gave before may still be good."""


class _TryAgainError(Exception):
    """An attempt failed in a way that may pass. ``wait``: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Client:
    """Asks one API for pages. A context manager."""

    def __init__(self, contract: Contract, address: SplitResult, token: str, timing: Timing) -> None:
        self._contract = contract
        self._address = address.geturl()
        self._timing = timing
        self._retries = 0
        self._headers = {"accept": "application/json", "accept-encoding": "gzip"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def __enter__(self) -> _Client:
        import httpx

        self._runner = asyncio.Runner()
        self._http = httpx.AsyncClient(headers=self._headers, timeout=READ_SECONDS, follow_redirects=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._http.aclose())
        self._runner.close()

    def get(self, url: str, number: int) -> Answer:
        """Page ``number``. Raises _UnreachableError once the attempts are used up, Rejected for what no attempt will change."""
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                return self._runner.run(self._attempt(url))
            except _TryAgainError as error:
                reason = str(error)
                self._retries += 1
                if attempt + 1 == ATTEMPTS or self._retries > MAX_RETRIES:
                    break
                # Not all at once after a failure: others wait for the same server.
                wait = FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.0)
                self._timing.pause(min(max(wait, error.wait), MAX_WAIT_SECONDS))
            except _GivenUpError as error:
                reason = str(error)
                break
        layout = self._contract.layout
        check = f"check {layout.url_environment}" + (f" and {layout.token_environment}" if layout.token_environment else "")
        if reason in ("status 401", "status 403"):
            check += ": the token is missing, wrong or expired"
        raise _UnreachableError(f"{self._contract.dataset}: the API did not answer page {number} ({reason}); {check}")

    async def _attempt(self, url: str) -> Answer:
        import httpx

        try:
            async with asyncio.timeout(PAGE_SECONDS):
                for _ in range(MAX_REDIRECTS):
                    async with self._http.stream("GET", url) as response:
                        if response.is_redirect:
                            url = self._redirected(response)
                            continue
                        self._check_status(response)
                        content = await _body(response)
                        link = response.links.get("next", {}).get("url")
                    return Answer(url, link, self._parsed(content))
        except httpx.HTTPError as error:
            raise _TryAgainError(_reason(error)) from None
        except TimeoutError:
            raise _TryAgainError(f"its answer took longer than {PAGE_SECONDS:g} seconds") from None
        except (httpx.InvalidURL, UnicodeError):
            raise _GivenUpError("its address cannot be asked for") from None
        raise _GivenUpError(f"more than {MAX_REDIRECTS} redirects")

    def _redirected(self, response: httpx.Response) -> str:
        target = _joined(str(response.url), str(response.headers.get("location", "")))
        if not _same_origin(target, self._address):
            raise Rejected(
                f"{self._contract.dataset}: the API redirects to another address, which is not followed, so that the token goes"
                f" nowhere else; set {self._contract.layout.url_environment} to that address if it is right"
            )
        return target

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status >= 500 or status in (408, 429):
            raise _TryAgainError(f"status {status}", self._asked_to_wait(response.headers.get("retry-after", "")))
        if status >= 300:
            raise _GivenUpError(f"status {status}")

    def _asked_to_wait(self, text: str) -> float:
        """Seconds of a Retry-After header; 0 where it says nothing."""
        if text.isascii() and text.isdigit():
            return float(text[:6])
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._timing.now())
        except (ValueError, OverflowError):
            return 0.0

    def _parsed(self, content: bytes) -> Any:
        try:
            body = parse(content)
        except (ValueError, RecursionError):
            raise _TryAgainError("it sends no whole JSON") from None
        wanted = list if not self._contract.layout.records_path else dict
        if not isinstance(body, wanted):
            raise _GivenUpError(f"it sends no JSON {'list' if wanted is list else 'object'}")
        return body


class _GivenUpError(Exception):
    """An attempt failed in a way that another one will not change."""


async def _body(response: httpx.Response) -> bytes:
    """The body, unpacked. Raises _TryAgainError where it breaks off, _GivenUpError where it is too long or packed otherwise."""
    encoding = response.headers.get("content-encoding", "identity").strip().casefold()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise _GivenUpError(f"its answer is packed as {encoding[:20]!r}, which was not asked for")
    unpack = zlib.decompressobj(wbits=31) if "gzip" in encoding else None
    content = bytearray()
    async for piece in response.aiter_raw():
        if unpack is not None:
            try:
                piece = unpack.decompress(piece, MAX_PAGE_BYTES + 1 - len(content))
            except zlib.error:
                raise _TryAgainError("its gzip is damaged") from None
        content += piece
        if len(content) > MAX_PAGE_BYTES:
            raise _GivenUpError(f"a page is longer than {MAX_PAGE_BYTES:,} bytes; have it send fewer records at once")
    if unpack is not None and not unpack.eof:
        raise _TryAgainError("its gzip breaks off")
    return bytes(content)


def _reason(error: httpx.HTTPError) -> str:
    """What went wrong, in words without the address."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return f"it was silent for {READ_SECONDS:g} seconds"
    if isinstance(error, httpx.ConnectError):
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, socket.gaierror):
                return "its host is unknown"
            if isinstance(cause, ssl.SSLError):
                return "its certificate is not accepted, or TLS was not agreed on"
            cause = cause.__cause__ or cause.__context__
        return "nothing answers at its address"
    return "it broke off its answer" if isinstance(error, httpx.TransportError) else type(error).__name__
