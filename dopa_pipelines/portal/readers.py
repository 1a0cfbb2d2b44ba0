"""Connections of the portal to the warehouse: few, kept, and made anew when the server was restarted.

Only reading belongs here: every connection is ``Role.READER`` and every transaction read only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from dopa_pipelines.errors import UserError
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse

Connection = psycopg.Connection[Any]

SIZE = 4
"""Connections at most; more requests wait for one."""
WAIT_SECONDS = 10.0
LONGEST_STATEMENT = "15s"
_REST_SECONDS = 2.0
"""After a failure nobody tries again for so long: with an address that does not answer, each try takes seconds."""
_BEGIN = "begin transaction isolation level repeatable read read only"
_LOST = (psycopg.OperationalError, psycopg.InterfaceError)


class WarehouseDownError(Exception):
    """The warehouse does not answer; the text says why, for the log."""


class Readers:
    """A pool of connections for reading, opened at first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._warehouse: Warehouse | None = None
        self._idle: list[Connection] = []
        self._turns = threading.BoundedSemaphore(SIZE)
        self._opening = threading.Lock()
        self._failed: tuple[float, str] | None = None

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection in a transaction that sees one moment and writes nothing. Raises WarehouseDownError."""
        if not self._turns.acquire(timeout=WAIT_SECONDS):
            raise WarehouseDownError("all connections are busy")
        try:
            connection = self._begun()
            try:
                yield connection
                connection.execute("rollback")
            except BaseException as error:
                with suppress(psycopg.Error):
                    connection.close()
                if isinstance(error, _LOST):
                    raise WarehouseDownError(str(error)) from error
                raise
            self._idle.append(connection)
        finally:
            self._turns.release()

    def close(self) -> None:
        """Close all connections, and drop the hold on the embedded server."""
        self._forget()
        if self._warehouse is not None:
            self._warehouse.close()
            self._warehouse = None

    def _begun(self) -> Connection:
        """A connection whose transaction has begun: a kept one, if its server is still the one it was connected to."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took it
                break
            try:
                connection.execute(_BEGIN)
                return connection
            except _LOST:
                with suppress(psycopg.Error):
                    connection.close()
        connection = self._connected()
        connection.execute(f"set statement_timeout = '{LONGEST_STATEMENT}'")
        connection.execute(_BEGIN)
        return connection

    def _connected(self) -> Connection:
        with self._opening:
            if self._failed is not None and time.monotonic() - self._failed[0] < _REST_SECONDS:
                raise WarehouseDownError(self._failed[1])
            try:
                connection = self._open()
            except UserError as error:
                self._failed = time.monotonic(), str(error)
                raise WarehouseDownError(str(error)) from error
            self._failed = None
            return connection

    def _open(self) -> Connection:
        if self._warehouse is not None:
            try:
                return self._warehouse.connect(Role.READER, autocommit=True)
            except UserError:
                # The server may have moved, its roles may have other passwords; the embedded one may have to be started.
                self._warehouse.close()
                self._warehouse = None
        self._warehouse = open_warehouse(self._settings, migrate=False)
        return self._warehouse.connect(Role.READER, autocommit=True)

    def _forget(self) -> None:
        while self._idle:
            with suppress(psycopg.Error):
                self._idle.pop().close()
