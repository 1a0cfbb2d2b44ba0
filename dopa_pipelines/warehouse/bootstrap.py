"""Roles and databases on a server: what must exist before migrations can run.

What belongs here: creating the platform's roles and databases, and deciding who connects where. What doesn't:
schemas, tables and grants on them (``migrations``), starting the embedded server (``embedded``).

On the embedded server we may do everything. On an external one the URL's user may do less: without the right
to create roles, every role is that user; without the right to create databases, Dagster's storage is a schema
of the warehouse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from dopa_pipelines.errors import UserError
from dopa_pipelines.warehouse import places, state
from dopa_pipelines.warehouse.embedded import PORT, SUPERUSER, EmbeddedServer
from dopa_pipelines.warehouse.places import CannotConnectError, Place
from dopa_pipelines.warehouse.roles import Role

URL_SOURCE = "DOPA_WAREHOUSE_URL"
LOCK = 0x646F7061
"""Key of the advisory lock around preparing a database ("dopa")."""

_Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Layout:
    """Who connects where, and what the server let us have."""

    places: Mapping[Role, Place]
    roles: bool
    """Whether the roles are roles of the server, or all of them the URL's user."""
    source: str = ""
    """The setting to blame in messages."""

    @property
    def names(self) -> dict[Role, str]:
        """What each role is called on the server."""
        return {role: place["user"] for role, place in self.places.items()}


EMBEDDED_NAMES = {role: role.value for role in Role}


def _external_names(given: Place) -> dict[Role, str]:
    """Roles of an external server carry the database's name.

    Roles belong to the whole server: those of a test warehouse must not open the production one beside it.
    """
    return {role: f"{role.value}_{given['dbname'][:40]}" for role in Role}


# The embedded server.


def embedded_secrets(folder: Path) -> dict[str, str]:
    """Passwords of the embedded server's superuser and roles, generated when there are none."""

    def generate(found: dict[str, Any]) -> None:
        kept = found.setdefault("embedded", {})
        if (folder / "pg" / "data").is_dir() and SUPERUSER not in kept:
            raise UserError(
                f"The passwords of the embedded PostgreSQL are missing from {folder / state.SECRETS_FILE}; "
                "restore that file from a backup, or set DOPA_STATE to a new folder, or delete this one."
            )
        for name in (SUPERUSER, *Role):
            kept.setdefault(str(name), state.new_password())

    kept: dict[str, str] = state.read_secrets(folder).get("embedded", {})
    if not all(str(name) in kept for name in (SUPERUSER, *Role)):
        kept = state.update_secrets(folder, generate)["embedded"]
    return kept


def embedded_layout(server: EmbeddedServer, passwords: Mapping[str, str]) -> Layout:
    """Where each role connects on the embedded server."""
    base = {"host": str(server.socket_folder), "port": str(PORT)}
    return Layout(
        {
            role: base
            | {
                "user": role.value,
                "password": passwords[role],
                "dbname": "dagster" if role is Role.DAGSTER else "warehouse",
            }
            for role in Role
        },
        roles=True,
    )


def provision_embedded(server: EmbeddedServer, passwords: Mapping[str, str]) -> None:
    """Roles and databases of the embedded server, as far as they are missing. Safe to repeat and in
    parallel.
    """
    place = {
        "host": str(server.socket_folder),
        "port": str(PORT),
        "user": SUPERUSER,
        "password": passwords[SUPERUSER],
        "dbname": "postgres",
    }
    source = str(server.state / state.SECRETS_FILE)
    with places.connect(place, autocommit=True, source=source) as admin:
        admin.execute("select pg_advisory_lock(%s)", [LOCK])
        _make_roles(admin, EMBEDDED_NAMES, passwords)
        _make_database(admin, "warehouse", Role.OWNER.value)
        _make_database(admin, "dagster", Role.DAGSTER.value)
        _grant_database(admin, "warehouse", EMBEDDED_NAMES)
        _close_database(admin, "warehouse")
        _close_database(admin, "dagster")


# An external server.


def external_layout(folder: Path, url: str) -> Layout | None:
    """Where each role connects on the server of ``url``, decided earlier for that very URL, or ``None``."""
    given = places.parse_url(url)
    decided = state.read_secrets(folder).get("external", {}).get(_key(given))
    if decided is None or decided.get("seal") != _seal(url, decided.get("salt", "")):
        return None  # a changed password must not go unnoticed because the roles still have theirs
    if decided["roles"] and not set(_external_names(given).values()) <= set(decided["passwords"]):
        return None  # decided before there was one of the roles
    return _external(given, decided)


def _seal(url: str, salt: str) -> str:
    return hashlib.blake2b(url.encode(), key=salt.encode(), digest_size=32).hexdigest()


def provision_external(folder: Path, url: str) -> Layout:
    """Decide what the URL's user may have, create it as far as it is missing, and remember the decision.

    Safe to repeat and in parallel. Raises ``UserError``.
    """
    given = places.parse_url(url)
    names = _external_names(given)
    _require_database(given)
    with places.connect(given, autocommit=True, source=URL_SOURCE) as admin:
        admin.execute("select pg_advisory_lock(%s)", [LOCK])
        row = admin.execute(
            """
            -- Rights on the database can be passed on to roles by its owner only.
            select r.rolsuper, r.rolsuper or (r.rolcreaterole and pg_has_role(r.oid, d.datdba, 'usage')),
                   r.rolsuper or r.rolcreatedb,
                   has_database_privilege(current_database(), 'create'), pg_encoding_to_char(d.encoding)
            from pg_roles r, pg_database d
            where r.rolname = current_user and d.datname = current_database()
            """
        ).fetchone()
        assert row is not None
        superuser, may_roles, may_databases, may_schemas, encoding = row
        if encoding != "UTF8":
            raise UserError(
                f"Database {places.describe(given)} is encoded in {encoding}; name one made with encoding UTF8 in {URL_SOURCE}."
            )
        if not may_schemas:
            raise UserError(
                f"User {given.get('user', '')} may create no schemas in database {places.describe(given)}; "
                f'ask its administrator for: grant create on database "{given["dbname"]}" to '
                f'"{given.get("user", "")}".'
            )
        decided: dict[str, Any] = {
            "roles": _roles_apart(admin, may_roles),
            "databases": may_databases,
            "passwords": {},
            "salt": (salt := state.new_password()),
            "seal": _seal(url, salt),
        }
        if decided["roles"]:
            decided["passwords"] = _external_passwords(folder, given)
            try:
                member = None if superuser else given["user"]
                _make_roles(admin, names, decided["passwords"], reset=True, member=member)
                _grant_database(admin, given["dbname"], names)
            except psycopg.errors.InsufficientPrivilege as error:
                raise UserError(
                    f"User {given['user']} may create roles on the server of {places.describe(given)}, but "
                    f"not use those that are there ({error.diag.message_primary}); ask its administrator to "
                    f"drop the roles dopa_*_{given['dbname']} or to make this user their administrator, or "
                    f"name a user without createrole in {URL_SOURCE}."
                ) from None
        owner = names[Role.DAGSTER] if decided["roles"] else given["user"]
        if may_databases:
            _make_database(admin, _dagster_database(given), owner)
            if decided["roles"]:
                _close_database(admin, _dagster_database(given))
        else:
            admin.execute(sql.SQL("create schema if not exists dagster authorization {}").format(sql.Identifier(owner)))

    def remember(found: dict[str, Any]) -> None:
        found.setdefault("external", {})[_key(given)] = decided

    state.update_secrets(folder, remember)
    return _external(given, decided)


def _key(given: Place) -> str:
    return f"{given.get('user', '')}@{given.get('host', '')}:{given.get('port', '5432')}/{given['dbname']}"


def _dagster_database(given: Place) -> str:
    return f"{given['dbname']}_dagster"


def _external(given: Place, decided: Mapping[str, Any]) -> Layout:
    found: dict[Role, Place] = {}
    for role, name in _external_names(given).items():
        place = dict(given)
        if decided["roles"]:
            place |= {"user": name, "password": decided["passwords"][name]}
        if role is Role.DAGSTER:
            if decided["databases"]:
                place["dbname"] = _dagster_database(given)
            else:
                place["options"] = f"{place.get('options', '')} -csearch_path=dagster".strip()
        found[role] = place
    return Layout(found, roles=bool(decided["roles"]), source=URL_SOURCE)


def _roles_apart(admin: _Connection, may_roles: bool) -> bool:
    """Whether the roles are to be roles of the server; a warehouse keeps what it was made with."""
    row = admin.execute("select to_regclass('lineage.identity')").fetchone()
    if row is not None and row[0] is not None:
        try:
            made = admin.execute("select value from lineage.identity where key = 'roles'").fetchone()
        except psycopg.errors.InsufficientPrivilege:
            return may_roles
        if made is not None:
            return bool(may_roles and made[0] == "apart")
    return may_roles


def _external_passwords(folder: Path, given: Place) -> dict[str, str]:
    """Passwords of our roles on an external server.

    They come from the URL's own password, by scrypt, so that every machine with that URL has the same ones
    and none locks the others out. Where the URL has no password (trust, a certificate), they are random and
    kept in the state folder.
    """
    names = _external_names(given).values()
    kept = state.read_secrets(folder).get("external", {}).get(_key(given), {}).get("passwords", {})
    if "password" not in given:
        return {name: kept.get(name) or state.new_password() for name in names}
    salt = f"dopa\0{given['user']}"
    key = hashlib.scrypt(given["password"].encode(), salt=salt.encode(), n=2**15, r=8, p=1, maxmem=2**26, dklen=32)
    return {name: hashlib.blake2b(name.encode(), key=key, digest_size=24).hexdigest() for name in names}


def _require_database(given: Place) -> None:
    """Create the URL's database when it is missing and the user may."""
    try:
        places.connect(given, source=URL_SOURCE).close()
        return
    except CannotConnectError as error:
        if error.why != "database":
            raise
        missing = error
    for maintenance in ("postgres", "template1"):
        try:
            admin = places.connect({**given, "dbname": maintenance}, autocommit=True, source=URL_SOURCE)
        except CannotConnectError:
            continue
        with admin:
            try:
                _make_database(admin, given["dbname"], given["user"])
                return
            except psycopg.errors.InsufficientPrivilege:
                break
    raise missing


# Both.


def departmental_place(layout: Layout, server: EmbeddedServer | None, url: str | None, name: str) -> Place:
    """Where the departmental system of the synthetic department connects; made when missing.

    Its role may log in there and nowhere else. Where we may create no role it is the URL's user, where we may
    create no database it is a schema. Raises ``UserError``.
    """
    if server is not None:
        secrets = state.update_secrets(server.state, lambda found: found["embedded"].setdefault(name, state.new_password()))[
            "embedded"
        ]
        base = {"host": str(server.socket_folder), "port": str(PORT)}
        admin_place: Place = base | {"user": SUPERUSER, "password": secrets[SUPERUSER], "dbname": "postgres"}
        password = secrets[name]
    else:
        assert url is not None
        admin_place = places.parse_url(url)
        name = f"{name}_{admin_place['dbname'][:40]}"
        password = hashlib.blake2b(
            name.encode(), key=layout.places[Role.OWNER].get("password", "")[:64].encode(), digest_size=24
        ).hexdigest()
    place = dict(admin_place)
    with places.connect(admin_place, autocommit=True, source=layout.source) as admin:
        admin.execute("select pg_advisory_lock(%s)", [LOCK])
        if layout.roles:
            place |= {"user": name, "password": password}
            _make_role(admin, name, password)
            admin.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(name)))
        row = admin.execute("select rolsuper or rolcreatedb from pg_roles where rolname = current_user").fetchone()
        if row is not None and row[0]:
            _make_database(admin, name, place["user"])
            place["dbname"] = name
            if layout.roles:
                _close_database(admin, name)
        else:
            admin.execute(
                sql.SQL("create schema if not exists {} authorization {}").format(
                    sql.Identifier(name), sql.Identifier(place["user"])
                )
            )
            place["options"] = f"{place.get('options', '')} -csearch_path={name}".strip()
    return place


def _make_role(admin: _Connection, name: str, password: str) -> None:
    """Create a role that may log in and nothing else, or give it this password again."""
    # Hashed here: a server's log may show statements.
    hashed = admin.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    tail = sql.SQL("role {} login password {}").format(sql.Identifier(name), sql.Literal(hashed))
    try:
        admin.execute(sql.SQL("create ") + tail)
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        admin.execute(sql.SQL("alter ") + tail)


def _make_roles(
    admin: _Connection,
    names: Mapping[Role, str],
    passwords: Mapping[str, str],
    *,
    reset: bool = False,
    member: str | None = None,
) -> None:
    """Create the roles that are missing; with ``reset`` give them their passwords again; make ``member``
    one of them.
    """
    found = {
        name: (superuser, joined)
        for name, superuser, joined in admin.execute(
            "select rolname, rolsuper, pg_has_role(current_user, oid, 'usage') from pg_roles where rolname = any(%s)",
            [list(names.values())],
        )
    }
    for name in names.values():
        if found.get(name, (False,))[0]:
            raise UserError(f"Role {name} of the server is a superuser; run `alter role {name} nosuperuser` there.")
        if name not in found or reset:
            _make_role(admin, name, passwords[name])
        if member is not None and not found.get(name, (False, False))[1]:
            # To create a database for a role one must be able to become it.
            admin.execute(sql.SQL("grant {} to {}").format(sql.Identifier(name), sql.Identifier(member)))
    # Migrations set the default privileges of what these two create.
    owner = names[Role.OWNER]
    for name in (names[Role.LOADER], names[Role.TRANSFORMER]):
        row = admin.execute("select pg_has_role(%s, %s, 'member')", [owner, name]).fetchone()
        if row is not None and not row[0]:
            admin.execute(sql.SQL("grant {} to {}").format(sql.Identifier(name), sql.Identifier(owner)))


def _make_database(admin: _Connection, name: str, owner: str) -> None:
    if admin.execute("select from pg_database where datname = %s", [name]).fetchone() is not None:
        return
    # One order of text everywhere: by code point. Before 17 there is no provider but the system's library.
    locales: list[LiteralString] = [
        "locale_provider builtin builtin_locale 'C.UTF-8' lc_collate 'C' lc_ctype 'C'",
        "locale_provider libc lc_collate 'C' lc_ctype 'C.UTF-8'",
        "locale_provider libc lc_collate 'C' lc_ctype 'C'",
    ]
    for locale in locales[0 if admin.info.server_version >= 170000 else 1 :]:
        statement = sql.SQL("create database {} owner {} template template0 encoding 'UTF8' {}")
        try:
            admin.execute(statement.format(sql.Identifier(name), sql.Identifier(owner), sql.SQL(locale)))
        except (psycopg.errors.WrongObjectType, psycopg.errors.InvalidParameterValue):
            continue  # the server's system doesn't know that locale
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return
        return
    raise UserError(f"The server can make no database {name} in UTF-8; create it there, then run this again.")


def _grant_database(admin: _Connection, name: str, names: Mapping[Role, str]) -> None:
    """Who may do what with the warehouse's database; engineers build schemas of their own as the
    transformer.
    """
    for role, rights in (
        (Role.OWNER, sql.SQL("create, connect, temporary")),
        (Role.LOADER, sql.SQL("connect, temporary")),
        (Role.TRANSFORMER, sql.SQL("create, connect, temporary")),
        (Role.DAGSTER, sql.SQL("connect")),
        (Role.READER, sql.SQL("connect, temporary")),
        (Role.CUSTODIAN, sql.SQL("connect")),
    ):
        if role is Role.DAGSTER and admin.info.dbname != name:
            continue  # the embedded server: its database is another
        admin.execute(sql.SQL("grant {} on database {} to {}").format(rights, sql.Identifier(name), sql.Identifier(names[role])))


def _close_database(admin: _Connection, name: str) -> None:
    """Only those with a grant, and the owner, get in."""
    admin.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(name)))
