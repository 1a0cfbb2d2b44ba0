"""Departmental databases: the rows of one query, as a file in the spool.

One transaction that sees one moment of the database and can change nothing. The same rows in the same order give the same bytes,
whatever the settings of server and user: values are the server's own text, dates ISO, moments in Bangkok's time. The file's form
is :mod:`dopa_pipelines.sources.query_result`'s.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.sources.query_result import header_line
from dopa_pipelines.sources.spool import private_file

if TYPE_CHECKING:
    import psycopg
    import pymysql

CONNECT_SECONDS = 15
SILENCE_SECONDS = 30 * 60
"""A server that sends nothing for so long is given up: a large sort takes minutes, not this."""
STATEMENT_SECONDS = 6 * 60 * 60
FETCH_ROWS = 20_000
_ZONE = "+07:00"


def fetch(contract: Contract, address: str, spool: Path) -> Path:
    """The result of the contract's query, as ``<dataset>.csv`` in ``spool``.

    Raises Rejected where the server does not give it, UserError where ``address`` is none, OSError where it cannot be kept.
    """
    final = spool / f"{contract.dataset}.csv"
    partial = spool / f".{contract.dataset}.part"
    copy = _from_mysql if contract.layout.type == "mysql" else _from_postgresql
    try:
        with private_file(partial) as file:
            copy(contract, address, file)
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    return final


def _query(contract: Contract) -> str:
    """The query without what ends a statement."""
    return (contract.layout.query or "").strip().rstrip("; \t\r\n")


def _refused(contract: Contract, reason: str) -> Rejected:
    return Rejected(
        f"{contract.dataset}: the departmental database did not give the rows ({reason});"
        f" check {contract.layout.url_environment} and the query in {contract.path.name}"
    )


def _unreadable(contract: Contract, form: str) -> UserError:
    return UserError(
        f"{contract.dataset}: {contract.layout.url_environment} is no address of a database; it must be {form},"
        " with special characters in user and password written as %40"
    )


# PostgreSQL


def _from_postgresql(contract: Contract, address: str, file: IO[bytes]) -> None:
    import psycopg
    from psycopg import conninfo

    try:
        ports = str(conninfo.conninfo_to_dict(address).get("port") or 5432)
        if not ports.replace(",", "").isdigit():
            raise psycopg.ProgrammingError
    except psycopg.ProgrammingError:
        # Its text holds parts of the address, and so of the password.
        raise _unreadable(contract, "postgresql://user:password@host:5432/database") from None
    try:
        with psycopg.connect(
            address,
            connect_timeout=CONNECT_SECONDS,
            client_encoding="utf8",
            application_name="dopa_feed",
            keepalives=1,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=6,
            prepare_threshold=None,
        ) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            _copy(contract, connection, file)
            connection.rollback()
    except psycopg.Error as error:
        raise _refused(contract, _postgresql_reason(error)) from None


def _copy(contract: Contract, connection: psycopg.Connection[Any], file: IO[bytes]) -> None:
    connection.execute(
        "set local datestyle = 'ISO, YMD'; set local intervalstyle = 'iso_8601'; set local bytea_output = 'hex';"
        f" set local timezone = 'Asia/Bangkok'; set local statement_timeout = '{STATEMENT_SECONDS}s'"
    )
    query = _query(contract).encode()
    # Parsed alone first: what is one statement by itself cannot end the COPY that it is put into.
    file.write(header_line(_titles(contract, connection, query)))
    with connection.cursor() as cursor, _watched(connection.fileno()) as watch:
        with cursor.copy(b"copy (" + query + b"\n) to stdout (format csv)") as copy:
            for data in copy:
                file.write(data)
                watch.seen += 1
        connection.execute("select 1")  # raises if the watch has cut the connection


def _titles(contract: Contract, connection: psycopg.Connection[Any], query: bytes) -> list[str]:
    """Names of the query's columns, from the server."""
    from psycopg import errors, pq

    low = connection.pgconn
    for result in (low.prepare(b"dopa_feed", query), low.describe_prepared(b"dopa_feed")):
        if result.status != pq.ExecStatus.COMMAND_OK:
            state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")
            try:
                raise errors.lookup(state)(message)
            except KeyError:
                raise _refused(contract, f"error {state}" if state else "the connection was lost") from None
    if not result.nfields:
        raise _refused(contract, "the query gives no rows; it must be a select")
    return [(result.fname(place) or b"").decode("utf-8", "replace") for place in range(result.nfields)]


_TELLS = ("42", "25", "0A", "3F", "53", "57")
"""Classes of SQLSTATE whose messages tell about the query or the server, never about a value."""
_FAILURES = (
    ("password authentication failed", "user or password are not accepted"),
    ("no password supplied", "user or password are not accepted"),
    ("authentication failed", "user or password are not accepted"),
    ("no pg_hba.conf entry", "the server does not let us in from here"),
    ("could not translate host name", "its host is unknown"),
    ("failed to resolve host", "its host is unknown"),
    ("name or service not known", "its host is unknown"),
    ("connection refused", "nothing answers at its address"),
    ("no such file or directory", "nothing answers at its address"),
    ("timeout expired", f"no answer within {CONNECT_SECONDS} seconds"),
    ("timed out", f"no answer within {CONNECT_SECONDS} seconds"),
    ("too many", "it has too many connections"),
    ("starting up", "it is starting or stopping"),
    ("shutting down", "it is starting or stopping"),
    ("ssl", "TLS was not agreed on"),
    ("certificate", "its certificate is not accepted"),
    ("role", "user or password are not accepted"),
    ("database", "its database does not exist or is closed to us"),
)  # fmt: skip


def _postgresql_reason(error: psycopg.Error) -> str:
    """What went wrong, without address, user, password or values."""
    import psycopg

    text = " ".join(str(error.diag.message_primary or error).split())
    if error.sqlstate:
        if error.sqlstate == "57014":
            return f"the query took longer than {STATEMENT_SECONDS // 3600} hours or was cancelled"
        told = error.sqlstate[:2] in _TELLS
        return f"{text[:300]}, error {error.sqlstate}" if told else f"{type(error).__name__}, error {error.sqlstate}"
    if isinstance(error, psycopg.OperationalError):
        lower = text.casefold()
        if "connection failed" not in lower and "connection is bad" not in lower and "failed to resolve" not in lower:
            return "the connection was lost"
        return next((reason for words, reason in _FAILURES if words in lower), "no connection was made")
    return type(error).__name__


class _Watch:
    """Counts what comes over a connection. ``seen`` is raised by whoever reads."""

    def __init__(self) -> None:
        self.seen = 0


@contextmanager
def _watched(descriptor: int) -> Iterator[_Watch]:
    """Cuts the connection when nothing has come over it for SILENCE_SECONDS: a reader of libpq waits without end."""
    watch, done = _Watch(), threading.Event()
    own = os.dup(descriptor)

    def look() -> None:
        seen, since = -1, time.monotonic()
        while not done.wait(min(5.0, SILENCE_SECONDS / 4)):
            if watch.seen != seen:
                seen, since = watch.seen, time.monotonic()
            elif time.monotonic() - since > SILENCE_SECONDS:
                with socket.socket(fileno=os.dup(own)) as cut, suppress(OSError):
                    cut.shutdown(socket.SHUT_RDWR)
                return

    thread = threading.Thread(target=look, name="feed", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()
        os.close(own)


# MySQL and MariaDB

_MYSQL_FORM = "mysql://user:password@host:3306/database"
_TLS = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
_COMMENT = re.compile(r"/\*(?![!M]).*?\*/|--(?=\s)[^\n]*\n?|#[^\n]*\n?", re.DOTALL)
_READS = re.compile(r"^[\s(]*(select|with|values|table)\b", re.IGNORECASE)
_INTO_FILE = re.compile(r"\binto\s+(outfile|dumpfile)\b", re.IGNORECASE)
_BIT = 16


def _from_mysql(contract: Contract, address: str, file: IO[bytes]) -> None:
    import pymysql

    query = _query(contract)
    bare = _COMMENT.sub(" ", query)
    # The transaction lets nothing be written, but a procedure could end it, and a file is no part of it.
    if not _READS.match(bare) or _INTO_FILE.search(bare) or _INTO_FILE.search(query):
        raise _refused(contract, "the query must be one select that gives rows, and write no file")
    options = _mysql_options(contract, address)
    try:
        connection = pymysql.connect(**options)
        try:
            _begin(connection)
            with closing(connection.cursor(_unbuffered())) as cursor:
                cursor.execute(query)
                _write(contract, cursor, file)
        finally:
            with suppress(pymysql.MySQLError):
                connection.close()
    except pymysql.MySQLError as error:
        raise _refused(contract, _mysql_reason(error)) from None


@cache
def _unbuffered() -> Any:
    """A cursor that gives rows as they come, and when it is closed early leaves the rest to the end of the connection."""
    from pymysql.cursors import SSCursor

    class Cursor(SSCursor):  # type: ignore[misc]
        def close(self) -> None:
            # The driver would read the rest, however long it is, and from a connection that may be gone.
            if self._result is not None:
                self._result.unbuffered_active = False
            self.connection = None

    return Cursor


def _begin(connection: pymysql.Connection[Any]) -> None:
    maria = "mariadb" in connection.get_server_info().lower()
    limit = f"max_statement_time = {STATEMENT_SECONDS}" if maria else f"max_execution_time = {STATEMENT_SECONDS * 1000}"
    with connection.cursor() as cursor:
        for statement in (
            f"set session {limit}, time_zone = '{_ZONE}', net_write_timeout = 600",
            "set session transaction isolation level repeatable read",
            "set session transaction read only",
            "start transaction with consistent snapshot, read only",
        ):
            cursor.execute(statement)


def _write(contract: Contract, cursor: Any, file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.csv

    if not cursor.description:
        raise _refused(contract, "the query gives no rows; it must be a select")
    kinds = [field[1] for field in cursor.description]
    file.write(header_line([str(field[0]) for field in cursor.description]))
    schema = pa.schema([(f"c{place}", pa.string()) for place in range(len(kinds))])
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
    with pyarrow.csv.CSVWriter(file, schema, write_options=options) as writer:
        while rows := cursor.fetchmany(FETCH_ROWS):
            columns = [_as_text(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
            writer.write_batch(pa.record_batch([pa.array(values, pa.string()) for values in columns], schema=schema))


def _as_text(values: tuple[Any, ...], kind: int) -> Any:
    """A column as text: it is already, unless it holds bytes."""
    if not isinstance(next((value for value in values if value is not None), ""), bytes):
        return values
    if kind == _BIT:
        return [None if value is None else str(int.from_bytes(value, "big")) for value in values]
    return [None if value is None else value.hex() for value in values]


def _mysql_options(contract: Contract, address: str) -> dict[str, Any]:
    """Arguments of a connection from ``mysql://user:password@host:port/database?ssl-mode=…&ssl-ca=…&unix_socket=…``."""
    from pymysql import converters

    try:
        parts = urlsplit(address)
        port = parts.port or 3306
        given = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise _unreadable(contract, _MYSQL_FORM) from None
    given = {name.casefold().replace("_", "-"): value for name, value in given.items()}
    if parts.scheme.split("+")[0] not in ("mysql", "mariadb") or not (parts.hostname or "unix-socket" in given):
        raise _unreadable(contract, _MYSQL_FORM)
    if set(given) - {"ssl-mode", "ssl-ca", "unix-socket", "charset"}:
        raise _unreadable(contract, f"{_MYSQL_FORM}, followed by nothing but ssl-mode, ssl-ca and unix_socket")
    options: dict[str, Any] = {
        "host": parts.hostname,
        "port": port,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or "").encode(),
        "database": unquote(parts.path.strip("/")) or None,
        "unix_socket": given.get("unix-socket"),
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": SILENCE_SECONDS,
        "write_timeout": CONNECT_SECONDS,
        "conv": dict(converters.encoders),  # and no decoders: every value stays the server's text
        "autocommit": None,
        "program_name": "dopa_feed",
    }
    return options | _tls(contract, given.get("ssl-mode", "preferred"), given.get("ssl-ca"))


def _tls(contract: Contract, mode: str, authority: str | None) -> dict[str, Any]:
    mode = mode.casefold().replace("-", "_")
    if mode not in _TLS:
        raise _unreadable(contract, f"{_MYSQL_FORM}?ssl-mode=…, one of {', '.join(_TLS)}")
    if mode == "disabled":
        return {"ssl_disabled": True}
    if mode == "preferred" and not authority:
        return {}  # TLS where the server offers it
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"{contract.dataset}: the file that ssl-ca in {contract.layout.url_environment} names cannot be read; correct it"
        ) from error
    context.check_hostname = mode == "verify_identity"
    context.verify_mode = ssl.CERT_REQUIRED if authority or mode.startswith("verify") else ssl.CERT_NONE
    return {"ssl": context}


_MYSQL_REASONS = {
    1045: "user or password are not accepted",
    1698: "user or password are not accepted",
    1044: "its database does not exist or is closed to us",
    1049: "its database does not exist or is closed to us",
    1040: "it has too many connections",
    1142: "the user may not read what the query asks for",
    1143: "the user may not read what the query asks for",
    1370: "the user may not read what the query asks for",
    1130: "the server does not let us in from here",
    1792: "the query would change something; it must only read",
    1927: "the connection was lost",
    1053: "the connection was lost",
    1317: "the query was cancelled",
    1969: f"the query took longer than {STATEMENT_SECONDS // 3600} hours",
    3024: f"the query took longer than {STATEMENT_SECONDS // 3600} hours",
    2006: "the connection was lost",
    2013: "the connection was lost",
    2026: "TLS was not agreed on",
}
_MYSQL_TELLS = {1046, 1051, 1052, 1054, 1055, 1060, 1064, 1066, 1109, 1146, 1149, 1222, 1248, 1305, 1630}
"""Errors whose messages tell about the query, never about a value."""


def _mysql_reason(error: Any) -> str:
    """What went wrong, without address, user, password or values."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    if code == 2003:
        cause = getattr(error, "original_exception", None)
        if isinstance(cause, socket.gaierror):
            return "its host is unknown"
        if isinstance(cause, ssl.SSLError):
            return "its certificate is not accepted" if "CERTIFICATE" in str(cause) else "TLS was not agreed on"
        return (
            f"no answer within {CONNECT_SECONDS} seconds" if isinstance(cause, TimeoutError) else "nothing answers at its address"
        )
    if code in _MYSQL_REASONS:
        return _MYSQL_REASONS[code]
    if code in _MYSQL_TELLS:
        return f"{' '.join(str(error.args[1]).split())[:300]}, error {code}"
    return f"error {code}" if code else type(error).__name__
