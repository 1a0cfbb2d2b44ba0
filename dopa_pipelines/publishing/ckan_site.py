"""One CKAN site spoken to through its Action API: calls, streamed uploads, downloads, and failures as typed facts.

Belongs here: how a site answers and how it fails. Does not belong here: what is put there (:mod:`.ckan`).

``ckanapi`` makes the calls. Left to itself it would read a whole file into memory (``requests`` builds a multipart body with
``read()``) and tell a proxy's 413 from its 504 only by their text; the session given to it streams the body and looks at the
status first.

A failure is permanent (:class:`Refused`: it would come again, so it is never retried) or passing (:class:`Unavailable`: retried
with growing pauses, and bounded). Either says what to do next. The token is in no message.
"""

from __future__ import annotations

import hashlib
import mimetypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from ckanapi import RemoteCKAN
from ckanapi.errors import CKANAPIError, NotAuthorized, NotFound, ServerIncompatibleError, ValidationError
from requests_toolbelt.multipart.encoder import MultipartEncoder

from dopa_pipelines.errors import UserError
from dopa_pipelines.settings import Settings

PASSING = frozenset({408, 429, 502, 503, 504})
"""Statuses of a site that may answer better soon."""

_NEXT = {
    400: "that is a fault of this program or of a proxy in between; tell the catalogue's administrator",
    401: "set DOPA_CKAN_TOKEN to a token of an account that may edit datasets of the organisation",
    403: "set DOPA_CKAN_TOKEN to a token of an account that may edit datasets of the organisation",
    404: "it may have been deleted meanwhile; push again",
    409: "correct what it names, in the publication's file or with the catalogue's administrator",
    413: "ask the administrator to raise ckan.max_resource_size and the proxy's limit, or take the format out of the publication",
    500: "the reason is in the site's own log; tell the catalogue's administrator",
}
_BLOCK = 1 << 20
_SLOWEST_BYTES_PER_SECOND = 20_000
_Made = TypeVar("_Made")


class CkanFailure(UserError):  # noqa: N818 - what it is, not what it derives from
    """What a CKAN site did not do; the other datasets are not concerned."""

    exit_code = 4


class Refused(CkanFailure):
    """The site said no, and would say it again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class NoCkan(CkanFailure):
    """What answers is not a CKAN."""


class Unavailable(CkanFailure):
    """The site was busy, cut the connection or was not there. ``after``: seconds that it asked to wait."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


@dataclass(frozen=True)
class Patience:
    """How long a site that fails in passing is borne with; times in seconds."""

    attempts: int = 5
    first_pause: float = 2
    longest_pause: float = 60
    connect: float = 15
    read: float = 120
    """Without a byte of an answer, a large upload included: a site stores the file before it answers."""

    def pause(self, failed: int, after: float | None) -> float:
        """Before the next attempt, when ``failed`` have failed: doubled each time, or what the site asked for."""
        wished = self.first_pause * 2 ** (failed - 1) if after is None else after
        return min(wished, self.longest_pause)


class _Passing(Exception):  # noqa: N818 - no error yet: it is tried again
    """A status of :data:`PASSING`, on its way through ckanapi, which would make text of it."""

    def __init__(self, status: int, after: float | None) -> None:
        super().__init__(status)
        self.status = status
        self.after = after


class _NoAnswer(Exception):  # noqa: N818 - turned into Refused by who knows what was asked
    """An answer that no CKAN gives, such as a proxy's page."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Session(requests.Session):
    """Streams what is uploaded, and looks at an answer's status before anyone reads its text."""

    def __init__(self) -> None:
        super().__init__()
        # Else a .netrc would put its own Authorization over the token.
        self.auth = lambda request: request

    def post(self, url: str | bytes, data: Any = None, json: Any = None, **more: Any) -> requests.Response:
        files: Mapping[str, tuple[str, Any, str]] | None = more.pop("files", None)
        if files:
            fields = {key.decode(): value.decode() for key, value in data.items()}
            data = MultipartEncoder(fields={**fields, **files})
            more["headers"] = {**more["headers"], "Content-Type": data.content_type}
        answer = super().post(url, data=data, json=json, **more)
        if answer.status_code in PASSING:
            raise _Passing(answer.status_code, _seconds(answer.headers.get("Retry-After")))
        if "json" not in answer.headers.get("Content-Type", ""):
            raise _NoAnswer(answer.status_code)
        answer.encoding = "utf-8"  # else a missing charset is guessed, slowly, from Thai bytes
        return answer


def _seconds(text: str | None) -> float | None:
    """``Retry-After`` as seconds; its other form, a date, is left to the usual pauses."""
    return float(text) if text and text.isascii() and text.isdigit() else None


class Site:
    """A CKAN site and the organisation there that datasets belong to."""

    def __init__(self, url: str, token: str, organisation: str, patience: Patience | None = None) -> None:
        self.url = url.rstrip("/")
        self.organisation = organisation
        self._token = token
        self._patience = patience or Patience()
        self._session = _Session()
        self._api = RemoteCKAN(self.url, apikey=token, session=self._session)

    def close(self) -> None:
        self._session.close()

    def call(self, action: str, upload: Path | None = None, **data: Any) -> Any:
        """Call an action once and return its result. ``upload``: a file that is streamed with it; all values are text then.

        Raises :class:`Refused` or :class:`Unavailable`.
        """
        times = {"timeout": (self._patience.connect, self._patience.read)}
        try:
            if upload is None:
                return self._api.call_action(action, data, requests_kwargs=times)
            kind = mimetypes.guess_type(upload.name)[0] or "application/octet-stream"
            with upload.open("rb") as file:
                files = {"upload": (upload.name, file, kind)}
                return self._api.call_action(action, data, files=files, requests_kwargs=times)
        except _Passing as busy:
            raise Unavailable(f"{self.url} answered {action} with {busy.status}", busy.after) from None
        except _NoAnswer as odd:
            raise self._not_ckan(action, odd.status) from None
        except NotFound as error:
            raise self._refused(action, 404, error.extra_msg or "") from None
        except NotAuthorized as error:
            raise self._refused(action, 403, _message(error)) from None
        except ValidationError as error:
            raise self._refused(action, 409, _fields(error.error_dict)) from None
        except (ServerIncompatibleError, CKANAPIError) as error:
            raise self._refused(action, _status(error), "") from None
        except requests.RequestException as error:
            raise self._broken(action, error) from None

    def find(self, action: str, name: str) -> dict[str, Any] | None:
        """The result of a ``…_show`` action, asked once; None where there is no such thing."""
        try:
            found: dict[str, Any] = self.call(action, id=name)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return found

    def show(self, action: str, name: str) -> dict[str, Any] | None:
        """:meth:`find`, patiently."""
        return self.patiently(lambda: self.find(action, name))

    def patiently(self, step: Callable[[], _Made]) -> _Made:
        """Do a step that may be begun again, as often as the patience says. Raises the last :class:`Unavailable`."""
        failed = 0
        while True:
            try:
                return step()
            except Unavailable as error:
                failed += 1
                if failed >= self._patience.attempts:
                    raise Unavailable(f"{error}; given up after {failed} attempts: push again when the site is well") from error
                time.sleep(self._patience.pause(failed, error.after))

    def digest(self, url: str, expected: int) -> tuple[int, str]:
        """(bytes, SHA-256) of what the site serves at ``url``, read to the end, or just past the ``expected`` bytes.

        Raises :class:`Refused` or :class:`Unavailable`.
        """
        # To another host, such as a store of files, requests takes the token away on a redirect; so do we.
        own = urlsplit(url)[:2] == urlsplit(self.url)[:2]
        headers = {"Accept-Encoding": "identity", **({"Authorization": self._token} if own else {})}
        times = (self._patience.connect, self._patience.read)
        until = time.monotonic() + self._patience.read + expected / _SLOWEST_BYTES_PER_SECOND
        size, sha256 = 0, hashlib.sha256()
        try:
            with self._session.get(url, headers=headers, stream=True, timeout=times) as answer:
                if answer.status_code in PASSING:
                    raise Unavailable(f"{self.url} answered the download with {answer.status_code}")
                if answer.status_code != 200:
                    raise self._refused("the download of what was uploaded", answer.status_code, "")
                for block in answer.iter_content(_BLOCK):
                    size += len(block)
                    sha256.update(block)
                    if size > expected:
                        break
                    if time.monotonic() > until:
                        raise Unavailable(f"{self.url} serves what was uploaded too slowly to look at it")
        except requests.RequestException as error:
            raise self._broken("the download of what was uploaded", error) from None
        return size, sha256.hexdigest()

    def _refused(self, action: str, status: int, why: str, what: str | None = None) -> Refused:
        if what is None and 300 <= status < 400:
            what = "set DOPA_CKAN_URL to the address that it redirects to"
        what = what or _NEXT.get(status, "tell the catalogue's administrator")
        said = f": {self._clean(why)}" if why.strip() else ""
        return Refused(f"{self.url} refused {action} ({status}){said}; {what}.", status)

    def _not_ckan(self, action: str, status: int) -> CkanFailure:
        """An answer of another program: a proxy's, where its status says what is wrong, or not that of a CKAN at all."""
        if status in _NEXT and status != 404:
            return self._refused(action, status, "")
        address = "see that DOPA_CKAN_URL is the address of the catalogue's first page"
        # Not a Refused of 404: that would mean that a dataset is not there.
        return NoCkan(f"{self.url} answered {action} ({status}) as no CKAN does; {address}.")

    def _broken(self, action: str, error: requests.RequestException) -> CkanFailure:
        if isinstance(error, requests.exceptions.SSLError):
            return Refused(f"The certificate of {self.url} is not trusted; have it or DOPA_CKAN_URL corrected.", 495)
        if isinstance(error, requests.Timeout):
            return Unavailable(f"{self.url} did not answer {action} in time")
        if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
            return Unavailable(f"{self.url} could not be reached or cut {action} off (as some do with a file that is too large)")
        return Refused(f"DOPA_CKAN_URL is {self.url!r}, which cannot be called; correct it.", 0)

    def _clean(self, text: str) -> str:
        """The site's words, short, on one line, and without the token, should it repeat it."""
        text = " ".join(text.replace(self._token, "…").split())
        return text if len(text) <= 300 else text[:299] + "…"


def _message(error: Any) -> str:
    said = error.extra_msg
    return str(said.get("message", "")) if isinstance(said, dict) else str(said or "")


def _fields(problems: Mapping[str, Any]) -> str:
    """A validation error as ``field: message``."""
    told = [(key, value) for key, value in problems.items() if key != "__type"]
    return "; ".join(f"{key}: {'; '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in told)


def _status(error: Exception) -> int:
    """The status in an error of ckanapi, which holds ``repr([url, status, text])``."""
    part = str(error).split(", ")[1:2]
    return int(part[0]) if part and part[0].isdigit() else 0


def site_of(settings: Settings, patience: Patience | None = None) -> Site | None:
    """The site that the settings name; None where they name none. Raises :class:`UserError` where they are not whole."""
    if settings.ckan_url is None:
        return None
    lacking = [
        f"DOPA_CKAN_{name.upper()}"
        for name, value in (("token", settings.ckan_token), ("organisation", settings.ckan_organisation))
        if value is None
    ]
    if lacking or settings.ckan_token is None or settings.ckan_organisation is None:
        raise UserError(f"DOPA_CKAN_URL is set, and {' and '.join(lacking)} must be, too; without any, nothing is pushed.")
    parts = urlsplit(settings.ckan_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise UserError("DOPA_CKAN_URL must be such as https://catalogue.example.go.th, without a user or password in it.")
    return Site(settings.ckan_url, settings.ckan_token.get_secret_value(), settings.ckan_organisation, patience)
