"""The open warehouse: connections by role, URLs for other tools, and this process's hold on the embedded
server.
"""

from __future__ import annotations

import errno
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from dopa_pipelines import code
from dopa_pipelines.errors import UserError
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import bootstrap, migrate, places, state
from dopa_pipelines.warehouse.actor import VARIABLE, actor
from dopa_pipelines.warehouse.bootstrap import Layout
from dopa_pipelines.warehouse.embedded import SUPERUSER, EmbeddedServer
from dopa_pipelines.warehouse.places import CannotConnectError
from dopa_pipelines.warehouse.roles import Role

# libpq's parameters that dbt's profile has no place for, and the variables that libpq reads instead.
_LIBPQ_VARIABLES = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "options": "PGOPTIONS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "hostaddr": "PGHOSTADDR",
    "gssencmode": "PGGSSENCMODE",
    "channel_binding": "PGCHANNELBINDING",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


class Warehouse:
    """A warehouse that is there and has this version's tables. A context manager; ``close`` when done.

    ``cluster`` is the system identifier of the server: transaction ids mean nothing on another. ``namespace``
    is the OpenLineage namespace of its tables, fixed once. ``actor``: who works with it, which records of writes name.
    """

    def __init__(
        self,
        layout: Layout,
        server: EmbeddedServer | None,
        cluster: str,
        namespace: str,
        revision: str | None,
        state: Path,
        url: str | None = None,
    ) -> None:
        self.layout = layout
        self.server = server
        self.cluster = cluster
        self.namespace = namespace
        self.revision = revision
        self.state = state
        self.actor = actor()
        self._url = url
        self._ledger: psycopg.Connection[tuple[Any, ...]] | None = None

    @property
    def archive(self) -> Path:
        """Where deliveries are kept as they came."""
        return self.state / "archive"

    @property
    def scratch(self) -> Path:
        """Where deliveries are unpacked while they are read."""
        return self.state / "scratch"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Drop this process's hold on the embedded server, which stops when nobody holds it. Connections
        are yours to close.
        """
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        if self.server is not None:
            self.server.leave()

    def connect(self, role: Role = Role.LOADER, *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        """A new connection as ``role``; ``DAGSTER`` gets Dagster's storage, all others the warehouse.
        Raises ``UserError``.
        """
        return places.connect(self.layout.places[role], autocommit=autocommit, source=self.layout.source, actor=self.actor)

    def ledger(self) -> psycopg.Connection[tuple[Any, ...]]:
        """The loader's connection that tells what work goes on, apart from the work's own; closed with the warehouse. In
        autocommit: what it is told stays told. Raises ``UserError``.
        """
        if self._ledger is None or self._ledger.closed:
            self._ledger = self.connect(Role.LOADER, autocommit=True)
            # Its end means that this process is gone, however long a load takes.
            self._ledger.execute("set idle_session_timeout = 0")
        return self._ledger

    def url(self, role: Role, driver: str = "postgresql") -> str:
        """The URL of ``role``, with its password: for the environment of a child process, never for a log.

        Dagster needs ``driver="postgresql+psycopg2"``.
        """
        return places.make_url(self.layout.places[role], driver)

    def departmental_database(self, name: str = "dopa_demo") -> str:
        """URL of a database that plays a departmental system, made when missing, owned by a role of its own.

        For the synthetic department. Where the server lets us create no database it is a schema of the
        warehouse. Raises ``UserError``.
        """
        return places.make_url(bootstrap.departmental_place(self.layout, self.server, self._url, name))

    def dbt_environment(self) -> dict[str, str]:
        """What ``profiles.yml`` and the macros read by ``env_var``, and what libpq reads itself."""
        place = self.layout.places[Role.TRANSFORMER]
        found = {
            "DOPA_DBT_HOST": place.get("host", "localhost"),
            "DOPA_DBT_PORT": place.get("port", "5432"),
            "DOPA_DBT_USER": place.get("user", ""),
            "DOPA_DBT_PASSWORD": place.get("password", ""),
            "DOPA_DBT_DBNAME": place["dbname"],
            VARIABLE: self.actor,
        }
        return (
            found | code.environment() | {variable: place[name] for name, variable in _LIBPQ_VARIABLES.items() if name in place}
        )


def open_warehouse(settings: Settings, *, migrate: bool = True) -> Warehouse:
    """Open the warehouse of ``settings``: start or join the embedded server, or connect to the external one.

    Creates what is missing (state folder, roles, databases, tables); with ``migrate=False`` the tables are
    left as they are. Costs some milliseconds where everything is there. Raises ``UserError``.
    """
    try:
        return _open(settings, migrate)
    except PermissionError as error:
        raise UserError(
            f"{error.filename or settings.state} can't be used by this account (permission denied); "
            "run as the owner of the state folder, or set DOPA_STATE to a folder of your own."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise UserError(
            f"{error.filename or settings.state} can't be written ({error.strerror}); "
            "free some space, or set DOPA_STATE to a folder on another disk."
        ) from error


def _open(settings: Settings, migrate: bool) -> Warehouse:
    state.prepare_state(settings.state)
    if settings.warehouse_url is not None:
        return _open_external(settings, settings.warehouse_url.get_secret_value(), migrate)
    server = EmbeddedServer(settings.state, settings.postgres_user)
    server.join()
    try:
        return _open_embedded(server, migrate)
    except BaseException:
        server.leave()
        raise


def _open_embedded(server: EmbeddedServer, migrate: bool) -> Warehouse:
    passwords = bootstrap.embedded_secrets(server.state)
    layout = bootstrap.embedded_layout(server, passwords)
    if server.watched() and server.answers():
        try:
            return _finish(layout, server, migrate, server.state)
        except CannotConnectError:
            pass  # started, but its roles or databases are still being made, or its maker was killed
    server.start(passwords[SUPERUSER])
    bootstrap.provision_embedded(server, passwords)
    return _finish(bootstrap.embedded_layout(server, passwords), server, migrate, server.state)


def _open_external(settings: Settings, url: str, migrate: bool) -> Warehouse:
    layout = bootstrap.external_layout(settings.state, url)
    if layout is not None:
        try:
            return _finish(layout, None, migrate, settings.state, url)
        except CannotConnectError as error:
            # Roles or databases may have been dropped, or passwords changed, by someone else.
            if error.why not in ("password", "role", "database", "access"):
                raise
    return _finish(bootstrap.provision_external(settings.state, url), None, migrate, settings.state, url)


def _finish(layout: Layout, server: EmbeddedServer | None, upgrade: bool, state: Path, url: str | None = None) -> Warehouse:
    """Look at what is there, migrate if need be."""
    cluster, namespace, revision = _look(layout)
    where = places.describe(layout.places[Role.OWNER])
    if revision is not None:
        migrate.require_known(revision, where)
    if upgrade and revision != migrate.head():
        if server is not None:
            # A later version may have roles that a server already running was not given.
            bootstrap.provision_embedded(server, bootstrap.embedded_secrets(server.state))
        migrate.upgrade(layout, _namespace(layout, server))
        cluster, namespace, revision = _look(layout)
    if cluster is None:
        raise UserError(f"The warehouse {where} has no tables of the platform yet; run `dopa run` once, which makes them.")
    return Warehouse(layout, server, cluster, namespace or "", revision, state, url)


def _look(layout: Layout) -> tuple[str | None, str | None, str | None]:
    """System identifier, namespace and revision of the warehouse; what isn't there yet is ``None``."""
    with places.connect(layout.places[Role.OWNER], autocommit=True, source=layout.source) as connection:
        try:
            row = connection.execute(
                "select lineage.cluster(), "
                "(select value from lineage.identity where key = 'warehouse_namespace'), "
                "(select version_num from ops.alembic_version)"
            ).fetchone()
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedFunction,
            psycopg.errors.InvalidSchemaName,
        ):
            return _identifier(connection), None, None
    return row or (None, None, None)


def _identifier(connection: psycopg.Connection[tuple[Any, ...]]) -> str | None:
    try:
        row = connection.execute("select system_identifier::text from pg_control_system()").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    return None if row is None else str(row[0])


def _namespace(layout: Layout, server: EmbeddedServer | None) -> str:
    """OpenLineage's name for the server (``postgres://host:port``); the embedded one has neither, its
    identity stands in.
    """
    place = layout.places[Role.OWNER]
    host, port = place.get("host", "localhost"), place.get("port", "5432")
    if server is None and not host.startswith("/"):
        return f"postgres://{host}:{port}"
    identifier, _, _ = _look(layout)
    return f"postgres://{'embedded' if server else 'local'}-{identifier}:{port}"
