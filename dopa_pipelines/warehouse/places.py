"""Where each role connects: connection parameters, URLs made of them, connecting with errors that a
person understands.

What belongs here: pure handling of libpq's parameters, and ``connect``. What doesn't: deciding who connects
where (``bootstrap``).
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dopa_pipelines.errors import UnfinishedError, UserError

Place: TypeAlias = Mapping[str, str]
"""libpq's parameters of one connection: host, port, user, password, dbname, and whatever else a URL gave."""

OLDEST_SERVER = 150000
"""PostgreSQL 15, as libpq counts: the oldest server that we test against."""

_CONNECT_TIMEOUT = "10"
_SEARCH_TIMEZONE = "-c timezone=Asia/Bangkok"


def parse_url(url: str) -> dict[str, str]:
    """Parameters of a URL as people write it (``postgresql://user:password@host:port/db``).

    Raises ``UserError``, which doesn't repeat the URL: it may hold a password.
    """
    scheme, colon, rest = url.partition("://")
    # Forms of other tools: postgresql+psycopg2:// is SQLAlchemy's.
    if colon and scheme.split("+")[0] in ("postgres", "postgresql"):
        url = f"postgresql://{rest}"
    elif colon:
        raise UserError(f"DOPA_WAREHOUSE_URL begins with {scheme}://; it must be postgresql://user:password@host:port/database.")
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except (psycopg.ProgrammingError, UnicodeDecodeError):
        raise UserError(
            "DOPA_WAREHOUSE_URL can't be read; it must be postgresql://user:password@host:port/database, "
            "with special characters of the password percent-encoded."
        ) from None
    if "dbname" not in found:
        raise UserError("DOPA_WAREHOUSE_URL names no database; write it as postgresql://user:password@host:port/database.")
    # As libpq itself would take it.
    found.setdefault("user", os.environ.get("PGUSER") or getpass.getuser())
    return found


def make_url(place: Place, driver: str = "postgresql") -> str:
    """The URL of a place, everything percent-encoded; a socket's folder and several hosts go in the query."""
    rest = {name: value for name, value in place.items() if name not in ("user", "password", "dbname")}
    host = rest.get("host", "")
    authority = quote(place.get("user", ""), safe="")
    if "password" in place:
        authority += ":" + quote(place["password"], safe="")
    if authority:
        authority += "@"
    if host and not host.startswith(("/", "@")) and "," not in host:
        del rest["host"]
        authority += f"[{host}]" if ":" in host else host
        if "port" in rest:
            authority += ":" + rest.pop("port")
    query = "?" + urlencode(rest, quote_via=quote) if rest else ""
    return f"{driver}://{authority}/{quote(place.get('dbname', ''), safe='')}{query}"


def describe(place: Place) -> str:
    """``database on host:port``, for messages; never the password."""
    host = place.get("host") or place.get("hostaddr") or "the local socket"
    port = "" if host.startswith("/") or "port" not in place else f":{place['port']}"
    return f"{place.get('dbname', '')} on {host}{port}"


def connect(place: Place, *, autocommit: bool = False, source: str = "", actor: str = "") -> psycopg.Connection[tuple[Any, ...]]:
    """A connection, with the time zone of the department.

    ``source`` names the setting the place came from, for messages; ``actor``: who works, which records name. Raises
    ``UserError``.
    """
    # A space ends an option unless it is escaped.
    named = "-c dopa.actor=" + re.sub(r"([\\\s])", r"\\\1", actor) if actor else ""
    options = " ".join(part for part in (place.get("options", ""), _SEARCH_TIMEZONE, named) if part)
    given = {"connect_timeout": _CONNECT_TIMEOUT, "application_name": "dopa", **place, "options": options}
    try:
        connection = psycopg.connect(make_conninfo(**given), autocommit=autocommit)
    except psycopg.OperationalError as error:
        raise explain(error, place, source) from error
    if connection.info.server_version < OLDEST_SERVER:
        found = connection.info.server_version // 10000
        connection.close()
        raise UserError(
            f"The server of {describe(place)} is PostgreSQL {found}, too old; "
            f"use PostgreSQL {OLDEST_SERVER // 10000} or later{_in(source)}."
        )
    return connection


class CannotConnectError(UserError):
    """A connection failed; ``why`` says how, for those who can repair it."""

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


@contextmanager
def unfinished(what: str) -> Iterator[None]:
    """Tell in one sentence that the server ended, or has no room left, while ``what`` was under way.

    Raises UnfinishedError for what psycopg raises. Nothing of the transaction is there, or all, where it was being committed.
    """
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        if isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.QueryCanceled):
            raise
        if isinstance(error, psycopg.errors.DiskFull):
            why, cure = "the disk of the warehouse's server is full", "make room there"
        else:
            said = error.diag.message_primary or str(error).strip().splitlines()[0:1] or [type(error).__name__]
            reason = said if isinstance(said, str) else said[0]
            why, cure = f"the connection to the warehouse was lost ({reason})", "see that its server runs"
        raise UnfinishedError(
            f"{what}: {why}; {cure} and run this again: it is finished then, and nothing is done twice"
        ) from error


def explain(error: psycopg.OperationalError, place: Place, source: str = "") -> CannotConnectError:
    """What a failed connection means, in one sentence."""
    said = str(error)
    user = place.get("user", "")
    where = describe(place)
    if "password authentication failed" in said or "no password supplied" in said:
        return CannotConnectError(
            "password", f"The password of user {user} for database {where} is wrong; correct it{_in(source)}."
        )
    if "does not exist" in said and "database" in said:
        return CannotConnectError("database", f"There is no database {where}; create it, or name another{_in(source)}.")
    if "does not exist" in said and "role" in said:
        return CannotConnectError("role", f"There is no user {user} for database {where}; correct it{_in(source)}.")
    if "no pg_hba.conf entry" in said or "permission denied for database" in said:
        return CannotConnectError(
            "access",
            f"The server doesn't let user {user} into database {where}; "
            f"ask its administrator for access, or name another{_in(source)}.",
        )
    if "remaining connection slots" in said or "too many clients" in said or "too many connections" in said:
        return CannotConnectError(
            "full",
            f"The server of {where} takes no more connections; close some, or raise max_connections there.",
        )
    last = [line.strip() for line in said.splitlines() if line.strip()]
    return CannotConnectError(
        "unreachable",
        f"The server of {where} can't be reached ({last[-1] if last else 'no reason given'}); "
        f"check that it runs and that its address is right{_in(source)}.",
    )


def _in(source: str) -> str:
    return f" in {source}" if source else ""
