"""A server that isn't ours: Debian's PostgreSQL 15 on a loopback port, with more and with fewer rights."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.openlineage import record_events
from dopa_pipelines.lineage.seal import seal
from dopa_pipelines.lineage.verify import verify
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, open_warehouse
from dopa_pipelines.warehouse.embedded import ACCOUNTS

PROGRAMS = Path("/usr/lib/postgresql/15/bin")

pytestmark = pytest.mark.skipif(not PROGRAMS.is_dir(), reason="Debian's PostgreSQL 15 is not installed")


@dataclass(frozen=True)
class Server:
    port: int

    def url(self, user: str, password: str, database: str) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, *statements: str, database: str = "postgres") -> None:
        url = self.url("postgres", "super%2Fp%40ss", database)
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An empty PostgreSQL 15, run by an unprivileged account."""
    # Not below pytest's own folder: that is closed to the account.
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    account: dict[str, object] = {}
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        found = pwd.getpwnam(next(name for name in ACCOUNTS if name in names))
        account = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
        os.chown(folder, found.pw_uid, found.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        with (folder / f"{program}.out").open("w") as output:
            subprocess.run(
                [PROGRAMS / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                check=True,
                **account,  # type: ignore[call-overload]
            )

    (folder / "password").write_text("super/p@ss\n")
    (folder / "password").chmod(0o644)
    run("initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C",
        f"--pwfile={folder}/password", "--no-sync")  # fmt: skip
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "start", "-w", "-D", f"{folder}/data", "-l", f"{folder}/log", "-o", options)
    try:
        yield Server(port)
    finally:
        run("pg_ctl", "stop", "-m", "immediate", "-D", f"{folder}/data")
        subprocess.run(["rm", "-rf", folder], check=True)


def who(settings: Settings, role: Role) -> tuple[object, ...] | None:
    with open_warehouse(settings) as opened, opened.connect(role) as connection:
        return connection.execute("select current_user::text, current_database()::text").fetchone()


def test_a_user_with_every_right_gives_roles_and_databases(server: Server, tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "state", warehouse_url=server.url("postgres", "super%2Fp%40ss", "statistics"))
    with open_warehouse(settings) as opened:
        assert opened.namespace == f"postgres://127.0.0.1:{server.port}"
        with opened.connect(Role.LOADER) as connection:
            connection.execute("create table raw.x as select 1 as x")
            row = connection.execute("select lineage.record_write('load', 'raw.x')").fetchone()
            assert row == (1,)
        with opened.connect(Role.TRANSFORMER) as connection:
            connection.execute("create table marts.x as select x from raw.x")
        with opened.connect(Role.READER, autocommit=True) as connection:
            assert connection.execute("select x from marts.x").fetchone() == (1,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("select x from raw.x")
        with psycopg.connect(opened.departmental_database()) as connection:
            connection.execute("create table hotel (name text)")
    assert who(settings, Role.DAGSTER) == ("dopa_dagster_statistics", "statistics_dagster")
    assert who(settings, Role.OWNER) == ("dopa_owner_statistics", "statistics")
    # Another machine with the same URL: it has the same passwords, and the first one's go on working.
    other = Settings(state=tmp_path / "other", warehouse_url=settings.warehouse_url)
    assert who(other, Role.LOADER) == ("dopa_loader_statistics", "statistics")
    assert who(settings, Role.LOADER) == ("dopa_loader_statistics", "statistics")
    # A password that became wrong is noticed, although the roles still have theirs.
    wrong = Settings(state=tmp_path / "state", warehouse_url=server.url("postgres", "wrong", "statistics"))
    with pytest.raises(UserError, match=r"password of user postgres.*DOPA_WAREHOUSE_URL"):
        open_warehouse(wrong)


def test_a_user_with_no_right_but_its_database_gets_schemas(server: Server, tmp_path: Path) -> None:
    server.execute("create role small login password 'pw'", "create database small owner small")
    settings = Settings(state=tmp_path / "state", warehouse_url=server.url("small", "pw", "small"))
    for role in Role:
        assert who(settings, role) == ("small", "small")
    with open_warehouse(settings) as opened:
        with opened.connect(Role.DAGSTER) as connection:
            connection.execute("create table runs (id int)")
            row = connection.execute("select to_regclass('dagster.runs')::text").fetchone()
            assert row == ("runs",)
        with psycopg.connect(opened.url(Role.DAGSTER)) as connection:
            row = connection.execute("show search_path").fetchone()
            assert row == ("dagster",)
        with opened.connect(Role.LOADER) as connection:
            row = connection.execute("select lineage.record_write('load', 'raw.x')").fetchone()
            assert row == (1,)
            row = connection.execute("select written_by from lineage.write").fetchone()
            assert row == ("small",)
        with psycopg.connect(opened.departmental_database()) as connection:
            connection.execute("create table hotel (name text)")
            row = connection.execute("select current_schema()::text").fetchone()
            assert row == ("dopa_demo_small",)


def test_an_administrator_that_is_no_superuser(server: Server, tmp_path: Path) -> None:
    server.execute("create role chief login createdb password 'pw'")
    settings = Settings(state=tmp_path / "state", warehouse_url=server.url("chief", "pw", "chiefs"))
    assert who(settings, Role.LOADER) == ("chief", "chiefs")
    assert who(settings, Role.DAGSTER) == ("chief", "chiefs_dagster")


def test_rights_that_are_missing_are_named(server: Server, tmp_path: Path) -> None:
    server.execute("create role guest login password 'pw'")
    state = tmp_path / "state"
    with pytest.raises(UserError, match="no database nowhere"):
        open_warehouse(Settings(state=state, warehouse_url=server.url("guest", "pw", "nowhere")))
    with pytest.raises(UserError, match="grant create on database"):
        open_warehouse(Settings(state=state, warehouse_url=server.url("guest", "pw", "postgres")))
    with pytest.raises(UserError, match="user nobody_here"):
        open_warehouse(Settings(state=state, warehouse_url=server.url("nobody_here", "pw", "postgres")))


def test_a_database_in_another_encoding_is_refused(server: Server, tmp_path: Path) -> None:
    server.execute("create database latin encoding 'LATIN1' template template0")
    settings = Settings(state=tmp_path / "state", warehouse_url=server.url("postgres", "super%2Fp%40ss", "latin"))
    with pytest.raises(UserError, match="LATIN1"):
        open_warehouse(settings)


def test_a_role_administrator_without_superuser(server: Server, tmp_path: Path) -> None:
    server.execute("create role deputy login createdb createrole password 'pw'", "create database deputies owner deputy")
    settings = Settings(state=tmp_path / "state", warehouse_url=server.url("deputy", "pw", "deputies"))
    assert who(settings, Role.LOADER) == ("dopa_loader_deputies", "deputies")
    assert who(settings, Role.DAGSTER) == ("dopa_dagster_deputies", "deputies_dagster")
    with open_warehouse(settings) as opened, psycopg.connect(opened.departmental_database()) as connection:
        connection.execute("create table hotel (name text)")


@pytest.mark.parametrize("rights", ["every right", "its database only"])
def test_the_whole_demo_runs_on_it(server: Server, tmp_path: Path, rights: str) -> None:
    """The same commands on a server by URL, as a superuser and as a user with nothing but a database."""
    name = "whole" if rights == "every right" else "schemas"
    url = server.url("postgres", "super%2Fp%40ss", name)
    if rights == "its database only":
        server.execute(f"create role {name} login password 'pw'", f"create database {name} owner {name}")
        url = server.url(name, "pw", name)
    environment = os.environ | {"DOPA_STATE": str(tmp_path / "state"), "DOPA_WAREHOUSE_URL": url}
    dopa = str(Path(sys.executable).with_name("dopa"))
    made = subprocess.run([dopa, "demo", "--persons", "2000"], env=environment, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "✗" not in made.stderr
    assert not (tmp_path / "state" / "pg").exists(), "no server of our own"
    again = subprocess.run([dopa, "demo", "--persons", "2000"], env=environment, capture_output=True, text=True, timeout=120)
    assert "nothing new" in again.stderr
    trace = subprocess.run([dopa, "trace", "hotels_licensed"], env=environment, capture_output=True, text=True, timeout=60)
    assert "legal_affairs/hotel_licence" in trace.stdout


def test_one_role_for_everything_may_change_records_and_the_anchor_tells(server: Server, tmp_path: Path) -> None:
    server.execute("create role alone login password 'pw'", "create database alone owner alone")
    settings = Settings(state=tmp_path / "state", warehouse_url=server.url("alone", "pw", "alone"))
    with open_warehouse(settings) as opened:
        with opened.connect(Role.LOADER) as connection:
            connection.execute("create table marts.x as select 1 as x")
            connection.execute("select lineage.record_write('model', 'marts.x', p_rows_out => 1)")
            record_events(connection)
        seal(opened)
        verdict = verify(opened, settings.releases_path)
        assert verdict.findings == []
        assert any(note.startswith("One database login plays every role") for note in verdict.notes)
        # The records and their chain, made anew by their owner: within the database all is well again.
        with opened.connect(Role.LOADER) as connection:
            connection.execute("update lineage.write set written_by = 'nobody'")
            connection.execute("delete from lineage.seal")
            connection.execute(
                "update lineage.event set event = jsonb_set(event, '{run,facets,dopa_write,writtenBy}', '\"nobody\"')"
                " where event #> '{run,facets,dopa_write}' is not null"
            )
        seal(opened)
        assert [finding.code for finding in verify(opened, settings.releases_path).findings] == ["anchor_differs"]
