"""The application: routes, security headers, how failures look.

Belongs here: what answers at which address. Does not belong here: what pages show (``traces``, ``catalogue``), their words
(``templates/``). Nothing can be changed through it: it answers GET and HEAD, asks nobody who they are, and runs no script.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.classes import LEVELS, WHATS
from dopa_pipelines.lineage.columntrace import Connection
from dopa_pipelines.lineage.drawing import LINKED_STYLE
from dopa_pipelines.lineage.trace import BANGKOK
from dopa_pipelines.portal import addresses, catalogue, incidents, publications, traces
from dopa_pipelines.portal.readers import Readers, WarehouseDownError
from dopa_pipelines.portal.traces import BadQuestionError, Question
from dopa_pipelines.publishing import calendar, shelf
from dopa_pipelines.publishing.publication import LICENCES
from dopa_pipelines.publishing.schedule import MONTHS_TH
from dopa_pipelines.quality.incidents import SEVERITY_TH
from dopa_pipelines.settings import Settings

log = logging.getLogger("dopa.portal")

T = TypeVar("T")

# Pictures bring their own style sheet; by its digest it is the only one within a page that is obeyed.
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(LINKED_STYLE.encode()).digest()).decode()
SECURITY_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'self' 'sha256-{_STYLE_DIGEST}'; img-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
WIDE = 1500
"""A picture that is wider, in pixels, is scrolled; others are made to fit the window."""


class Portal:
    """The pages. ``base``: the path below which the portal lies for others, empty at the root of a host."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.base = urlsplit(settings.portal_address).path.rstrip("/")
        self.readers = Readers(settings)
        self.declared = catalogue.Declared(settings)
        self.templates = jinja2.Environment(
            loader=jinja2.PackageLoader("dopa_pipelines.portal"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {"moment": _moment, "thai_date": thai_date, "size": _size, "month": _month, "steps": _steps}
        self.templates.globals |= {
            "home": f"{self.base}/",
            "css": f"{self.base}/static/portal.css",
            "icon": f"{self.base}/static/icon.svg",
            "trace_address": partial(addresses.trace, self.base),
            "raw_trace_address": partial(addresses.raw_trace, self.base),
            "publication_address": partial(addresses.publication, self.base),
            "release_address": partial(addresses.release, self.base),
            "file_address": partial(addresses.released_file, self.base),
            "calendar_address": f"{self.base}/calendar",
            "incidents_address": partial(addresses.incidents, self.base),
            "incident_address": partial(addresses.incident, self.base),
            "severity_th": SEVERITY_TH,
            "levels": LEVELS,
            "whats": WHATS,
            "licences": LICENCES,
        }

    def page(self, template: str, status: int = 200, **facts: Any) -> Response:
        text = self.templates.get_template(template).render(**facts)
        return HTMLResponse(text, status, headers={"cache-control": "no-cache"})

    def message(self, status: int, thai: str, english: str, **facts: Any) -> Response:
        """A page that says one thing, with ``near``: names that may have been meant."""
        return self.page(
            "message.html.j2", status, thai=thai, english=english, **{"near": [], "publications": [], "detail": "", **facts}
        )

    async def read(self, ask: Callable[[Connection], T]) -> T:
        """What ``ask`` finds in the warehouse, in one transaction. Raises WarehouseDownError."""

        def within() -> T:
            with self.readers.snapshot() as connection:
                return ask(connection)

        return await run_in_threadpool(within)

    # Pages

    async def home(self, request: Request) -> Response:
        wanted = request.query_params.get("q", "").strip()[:200]
        contracts = await run_in_threadpool(self.declared.contracts)
        extracts = await run_in_threadpool(self.declared.extracts)

        def ask(connection: Connection) -> tuple[list[catalogue.Table], publications.Known, dict[str, int]]:
            return catalogue.tables(connection), publications.held(connection), incidents.open_by_dataset(connection)

        try:
            (tables, known, failing), down = await self.read(ask), False
        except WarehouseDownError as error:
            log.error("the warehouse does not answer: %s", error)
            tables, known, failing, down = [], publications.Known(), {}, True
        now = datetime.now(BANGKOK)
        written = {table.target: table.written_at for table in tables}

        def fits(*texts: str) -> bool:
            return all(word in " ".join(texts).casefold() for word in wanted.casefold().split())

        return self.page(
            "catalogue.html.j2",
            wanted=wanted,
            down=down,
            written=written,
            most={table.target: table.most for table in tables},
            held=known.held,
            failing=failing,
            due={
                item.name: publications.next_release(item.publication, now) for item in extracts if item.publication is not None
            },
            contracts=[
                item
                for item in contracts
                if fits(item.dataset, item.bureau, item.title_th, item.title_en, item.description, item.description_th)
            ],
            tables=[item for item in tables if item.kind == "model" and fits(item.target, item.description)],
            extracts=[
                item
                for item in extracts
                if fits(item.name, *((item.publication.title_th, item.publication.title_en) if item.publication else ()))
            ],
        )

    async def trace(self, request: Request) -> Response:
        name: str = request.path_params["name"]
        form = request.query_params.get("form", "")
        try:
            question, form = await self._asked(name, form, request.query_params)
            if form == "json":
                return JSONResponse(await self.read(partial(traces.as_json, question=question)))
            if form == "svg":
                base = self.settings.portal_address
                drawn = await self.read(partial(traces.as_svg, question=question, base=base))
                return Response(drawn, media_type="image/svg+xml", headers={"cache-control": "no-cache"})
            shown = await self.read(partial(traces.answer, question=question, base=self.base))
        except BadQuestionError as error:
            return self.message(
                400,
                f"ค่า {error.field} ไม่ถูกต้อง ใช้ได้เช่น {error.right}",
                f"{error.field} is not understood; it may be {error.right}",
            )
        except UserError as error:
            return await self._nothing_called(name, request.query_params.get("as_of", ""), str(error))
        public = shown.table.removeprefix("release:") if shown.kind == "release" else None
        return self.page(
            "trace.html.j2", question=question, shown=shown, publication=public, wide=shown.picture.width > WIDE,
            fitted=request.query_params.get("size") == "fit",
        )  # fmt: skip

    async def _asked(self, name: str, form: str, query: Mapping[str, str]) -> tuple[Question, str]:
        """The question, and in which form it is to be answered: the name's ending says so, unless something is called that."""
        if form and form not in ("html", *addresses.RAW_FORMS):
            raise BadQuestionError("form", ", ".join(("html", *addresses.RAW_FORMS)))
        stem, _, ending = name.rpartition(".")
        if not form and stem and ending in addresses.RAW_FORMS and not await self.read(partial(traces.is_name, name=name)):
            return Question.of(stem, query), ending
        return Question.of(name, query), form or "html"

    async def _nothing_called(self, name: str, as_of: str, said: str) -> Response:
        near = await self.read(partial(traces.suggestions, name=name))
        declared = {item.dataset for item in await run_in_threadpool(self.declared.contracts)}
        if name.removeprefix("raw.") in declared and not near:
            return self.message(404, "ยังไม่เคยมีข้อมูลของชุดข้อมูลนี้เข้าระบบ", "Nothing of this dataset was brought in yet")
        if as_of and any(item == name or item.endswith((f".{name}", f":{name}")) for item in near):
            return self.message(404, f"ยังไม่มีข้อมูลนี้ ณ เวลาที่เลือก ({as_of})", f"This was not known at that time ({as_of})", near=near)
        thai = "ไม่พบชุดข้อมูลหรือคอลัมน์ชื่อนี้ในระบบ"
        english = "No dataset or column is called so"
        if near == [name]:  # it is there, and still cannot be shown
            thai, english = "ยังไม่ทราบที่มาของคอลัมน์ในชุดข้อมูลนี้", said
        return self.message(404, thai, english, near=near, detail=name)

    # Releases

    async def publication(self, request: Request) -> Response:
        name: str = request.path_params["publication"]
        found = await run_in_threadpool(self.declared.extract, name)
        if found is None:
            known = [item.name for item in await run_in_threadpool(self.declared.extracts)]
            return self._no_publication(name, known)
        return self.page("publication.html.j2", **await self._shown(found))

    async def _shown(self, found: catalogue.Extract) -> dict[str, Any]:
        """What the pages of a publication and of its releases show of it; without the warehouse, what files say."""
        down = False
        try:
            known = await self.read(partial(publications.known, publication=found.publication, name=found.name))
        except WarehouseDownError as error:
            log.error("the warehouse does not answer: %s", error)
            known, down = publications.Known(), True
        return {
            "extract": found,
            "publication": found.publication,
            "decided": publications.decided(found.publication, datetime.now(BANGKOK)) if found.publication else None,
            "held": known.held.get(found.name),
            "classes": known.classes,
            "down": down,
        }

    def _no_publication(self, name: str, known: list[str]) -> Response:
        return self.message(
            404, "ไม่พบชุดข้อมูลเปิดชื่อนี้", "No publication is called so", detail=name,
            publications=traces.near(name, {item: item for item in known}),
        )  # fmt: skip

    async def release(self, request: Request) -> Response:
        """The page of one release; its address stays, also when it was withdrawn: 410 and the tombstone."""
        name, version = request.path_params["publication"], request.path_params["version"]
        folder = self.settings.releases_path
        release = await run_in_threadpool(shelf.read_release, folder, name, version)
        stone = await run_in_threadpool(shelf.read_tombstone, folder, name, version)
        found = await run_in_threadpool(self.declared.extract, name)
        if found is None or (release is None and stone is None):
            return self.message(404, "ไม่พบชุดเผยแพร่นี้", "There is no such release", detail=f"{name}/{version}")
        if release is None and stone is not None:
            return self._withdrawn(stone, found)
        page = self.page("release.html.j2", release=release, **await self._shown(found))
        page.headers["content-location"] = addresses.release(self.base, name, release.version if release else version)
        return page

    def _withdrawn(self, stone: shelf.Tombstone, found: catalogue.Extract | None) -> Response:
        """What stays at every address of a withdrawn release but that of its tombstone's file: 410."""
        publication, latest = (found.publication, found.latest) if found else (None, None)
        return self.page("withdrawn.html.j2", 410, stone=stone, publication=publication, latest=latest)

    # Quality

    async def incidents(self, request: Request) -> Response:
        """Open incidents: of all, of ``dataset`` (also ``schema.table``) or of ``bureau``."""
        dataset, bureau = (request.query_params.get(name, "").strip()[:200].replace("\0", "") for name in ("dataset", "bureau"))
        contracts, today = await run_in_threadpool(self.declared.by_dataset), datetime.now(BANGKOK).date()
        listed = await self.read(partial(incidents.listed, contracts=contracts, day=today, dataset=dataset, bureau=bureau))
        return self.page("incidents.html.j2", listed=listed, dataset=dataset, bureau=bureau)

    async def incident(self, request: Request) -> Response:
        number: int = request.path_params["number"]
        contracts, today = await run_in_threadpool(self.declared.by_dataset), datetime.now(BANGKOK).date()
        shown = None
        if number < 2**63:
            shown = await self.read(partial(incidents.shown, contracts=contracts, day=today, number=number))
        if shown is None:
            return self.message(404, "ไม่พบเหตุเลขที่นี้", "There is no incident of that number", detail=str(number)[:20])
        return self.page("incident.html.j2", shown=shown)

    # The calendar

    async def calendar(self, request: Request) -> Response:
        declared = (await run_in_threadpool(self.declared.publications)).values()
        shown = await run_in_threadpool(publications.calendar, declared, datetime.now(BANGKOK))
        return self.page("calendar.html.j2", calendar=shown, json=f"{self.base}/calendar.json", ics=f"{self.base}/calendar.ics")

    async def calendar_file(self, request: Request) -> Response:
        """What is due in the next twelve months, for machines and people's own calendars."""
        declared = list((await run_in_threadpool(self.declared.publications)).values())
        now = datetime.now(BANGKOK)
        coming = await run_in_threadpool(calendar.release_calendar, declared, now)
        name = request.url.path.rpartition("/")[2]
        kind = "application/json" if name.endswith(".json") else "text/calendar; charset=utf-8"
        return Response(
            calendar.calendar_files(declared, coming, now)[name], media_type=kind, headers={"cache-control": "no-cache"}
        )

    async def file(self, request: Request) -> Response:
        parts: dict[str, str] = request.path_params
        folder = self.settings.releases_path
        release = await run_in_threadpool(shelf.read_release, folder, parts["publication"], parts["version"])
        file = release.file(parts["file"]) if release else None
        stone = None
        if release is None:
            stone = await run_in_threadpool(shelf.read_tombstone, folder, parts["publication"], parts["version"])
            file = stone.file if stone and stone.file.name == parts["file"] else None
        if stone is not None and file is None:
            return self._withdrawn(stone, await run_in_threadpool(self.declared.extract, parts["publication"]))
        which = release or stone
        if which is None or file is None or not file.path.is_file():
            return self.message(404, "ไม่พบไฟล์นี้ในชุดเผยแพร่", "No release has this file", detail="/".join(parts.values()))
        # What latest means may change at any time, and an erratum comes later; a version may be withdrawn.
        changes = parts["version"] == shelf.LATEST or file.name in (shelf.ERRATUM, shelf.TOMBSTONE)
        headers = {
            "etag": f'"{file.sha256}"',
            "cache-control": "no-cache" if changes else "public, max-age=300",
            "content-location": addresses.released_file(self.base, which.publication, which.version, file.name),
        }
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if headers["etag"] in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return FileResponse(
            file.path, headers=headers, media_type=file.media_type, filename=file.name, content_disposition_type="inline"
        )

    # For machines

    async def health(self, request: Request) -> Response:
        try:
            await self.read(lambda connection: connection.execute("select 1"))
        except WarehouseDownError:
            return JSONResponse({"status": "warehouse down"}, 503)
        return JSONResponse({"status": "ok"})


# Failures


def _failures(portal: Portal) -> dict[Any, Callable[[Request, Exception], Any]]:
    async def down(request: Request, error: Exception) -> Response:
        log.error("the warehouse does not answer: %s", error)
        page = portal.message(
            503,
            "คลังข้อมูลยังไม่พร้อมให้บริการ โปรดลองใหม่ภายหลัง",
            "The warehouse does not answer at the moment; please try again later",
        )
        page.headers["retry-after"] = "10"
        return page

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return portal.message(404, "ไม่พบหน้านี้", "There is no such page", detail=request.url.path)
        page = portal.message(error.status_code, "คำขอนี้ใช้ไม่ได้", f"This request is not possible: {error.detail}")
        page.headers.update(error.headers or {})
        return page

    async def broken(request: Request, error: Exception) -> Response:
        return portal.message(
            500,
            "ระบบขัดข้อง ผู้ดูแลระบบดูสาเหตุได้จากบันทึกของระบบ",
            "Something is broken here; those who run this find the reason in its log",
        )

    return {WarehouseDownError: down, HTTPException: refused, Exception: broken}


class _Secured:
    """Adds the security headers to every answer, also to those of failures."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, told if scope["type"] == "http" else send)


def create_app(settings: Settings) -> ASGIApp:
    """The portal of an installation; opens the warehouse at the first page that needs it."""
    portal = Portal(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(portal.readers.close)

    hosts = {"127.0.0.1", "localhost", urlsplit(settings.portal_address).hostname or "localhost"}
    app = Starlette(
        routes=[
            Route("/", portal.home),
            Route("/trace/{name:path}", portal.trace),
            Route("/calendar", portal.calendar),
            *(
                # The second is where the files lie, among the releases.
                Route(f"{below}/{name}", portal.calendar_file, name=name)
                for below in ("", "/releases")
                for name in calendar.FILES
            ),
            Route("/incidents", portal.incidents),
            Route("/incidents/{number:int}", portal.incident),
            Route("/releases/{publication}/", portal.publication),
            Route("/releases/{publication}/{version}/", portal.release),
            Route("/releases/{publication}/{version}/{file}", portal.file),
            Route("/health", portal.health),
            Mount("/static", StaticFiles(packages=[("dopa_pipelines.portal", "static")])),
        ],
        # Another name that leads here, made up by a page elsewhere, is not ours (DNS rebinding).
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=sorted(hosts), www_redirect=False)],
        exception_handlers=_failures(portal),
        lifespan=lifespan,
    )
    # Outermost: what answers where something is broken is outside of the application's own middleware.
    return _Secured(app)


# What templates use

_MONTHS = ("ม.ค.", "ก.พ.", "มี.ค.", "เม.ย.", "พ.ค.", "มิ.ย.", "ก.ค.", "ส.ค.", "ก.ย.", "ต.ค.", "พ.ย.", "ธ.ค.")


def thai_date(value: date | datetime | str) -> str:
    """``25 พ.ย. 2569``: day, month, Buddhist year; a time is told as the day that it is in Bangkok. Text: ISO 8601."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        value = value.astimezone(BANGKOK)
    return f"{value.day} {_MONTHS[value.month - 1]} {value.year + 543}"


def _moment(value: datetime | str) -> str:
    """A time in Bangkok, with the Thai date."""
    when = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{thai_date(when)} {when.astimezone(BANGKOK):%H:%M} น."


def _month(value: date) -> str:
    """``ธันวาคม 2569``."""
    return f"{MONTHS_TH[value.month - 1]} {value.year + 543}"


def _steps(path: Sequence[str]) -> list[tuple[str, str | None]]:
    """The columns of a path as dataset and column; without a column, the rows of the dataset."""
    found = [step.rpartition(".") for step in path]
    return [(dataset, None if column == "*" else column) for dataset, _, column in found]


def _size(count: int) -> str:
    """``1.2 MB``: bytes as people read them, in powers of 1,000."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
