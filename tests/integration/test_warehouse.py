"""The embedded server: shared by processes, stopped when the last living one leaves, with roles."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from dopa_pipelines.errors import UserError
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse, places
from dopa_pipelines.warehouse._watcher import postmaster

USER = """
import sys
from dopa_pipelines.settings import load_settings
from dopa_pipelines.warehouse import open_warehouse
with open_warehouse(load_settings()) as warehouse:
    print(warehouse.cluster, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def user(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that uses the server of ``folder`` until its input ends; with the cluster it sees."""
    with subprocess.Popen(
        [sys.executable, "-c", USER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"DOPA_STATE": str(folder)},
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


def server(folder: Path) -> int | None:
    return postmaster(folder / "pg" / "data")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A state folder for a server of the test's own, which must have stopped by the end."""
    yield tmp_path / "state"
    assert within(20, lambda: server(tmp_path / "state") is None)


def refused(settings: Settings) -> str:
    with pytest.raises(UserError) as caught:
        open_warehouse(settings).close()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# One server for all processes.


def test_processes_share_one_server_until_the_last_living_one_leaves(folder: Path) -> None:
    with ExitStack() as stack:
        (one, cluster), (two, also), (three, too) = (stack.enter_context(user(folder)) for _ in range(3))
        assert cluster == also == too != ""
        running = server(folder)
        assert running is not None
        one.kill()
        one.wait()
        two.communicate("\n")
        time.sleep(0.5)
        assert server(folder) == running
        three.kill()
        three.wait()
        assert within(20, lambda: server(folder) is None)


def test_processes_that_start_at_once_do_not_collide(folder: Path) -> None:
    with ExitStack() as stack:
        users = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", USER],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"DOPA_STATE": str(folder)},
                )
            )
            for _ in range(4)
        ]
        clusters = {process.communicate("\n")[0] for process in users}
        assert [process.returncode for process in users] == [0, 0, 0, 0]
        assert len(clusters) == 1


def test_joining_while_the_server_stops_starts_it_again(folder: Path) -> None:
    settings = Settings(state=folder)
    seen = set()
    for _ in range(4):
        with open_warehouse(settings) as opened, opened.connect() as connection:
            assert connection.execute("select 1").fetchone() == (1,)
            seen.add(opened.cluster)
    assert len(seen) == 1


def test_a_killed_server_is_started_again_and_kept_what_was_committed(folder: Path) -> None:
    settings = Settings(state=folder)
    with open_warehouse(settings) as opened:
        with opened.connect() as connection:
            connection.execute("create table raw.kept as select 7 as x")
        running = server(folder)
        assert running is not None
        os.kill(running, signal.SIGKILL)
        with open_warehouse(settings) as again, again.connect() as connection:
            assert connection.execute("select x from raw.kept").fetchone() == (7,)
            assert server(folder) not in (None, running)


def test_a_killed_watcher_is_replaced(folder: Path) -> None:
    settings = Settings(state=folder)
    with open_warehouse(settings) as opened:
        watchers = [
            process.pid for process in psutil.process_iter(["cmdline"]) if (process.info["cmdline"] or [""])[-1] == str(folder)
        ]
        assert len(watchers) == 1
        os.kill(watchers[0], signal.SIGKILL)
        assert opened.server is not None
        assert within(5, lambda: not opened.server.watched())  # type: ignore[union-attr]
    # The fixture sees the server stopped.


def test_joining_a_running_server_is_quick_and_imports_no_alembic(warehouse: Warehouse, settings: Settings) -> None:
    script = (
        "import sys, time\n"
        "from dopa_pipelines.settings import load_settings\n"
        "from dopa_pipelines.warehouse import open_warehouse\n"
        "settings = load_settings()\n"
        "def once():\n"
        "    t = time.perf_counter(); open_warehouse(settings).close(); return time.perf_counter() - t\n"
        "print(min(once() for _ in range(5)), 'alembic' in sys.modules, 'sqlalchemy' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"DOPA_STATE": str(settings.state)},
    )
    seconds, *imported = done.stdout.split()
    assert imported == ["False", "False"]
    assert float(seconds) < 0.05


# Permissions.


def test_no_folder_above_changes_and_secrets_are_private(tmp_path: Path, folder: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o700)
    parts = [closed, *closed.parents]
    before = [(part, part.stat().st_mode, part.stat().st_uid) for part in parts]
    inner = closed / "state"
    with open_warehouse(Settings(state=inner)) as opened, opened.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)
        running = server(inner)
        assert running is not None
        assert Path(f"/proc/{running}").stat().st_uid != 0
    assert [(part, part.stat().st_mode, part.stat().st_uid) for part in parts] == before
    assert inner.stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)
    assert (inner / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert (inner / "pg").stat().st_mode & 0o777 == 0o700
    assert within(20, lambda: server(inner) is None)


def test_a_long_path_still_gets_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60) / "state"
    with open_warehouse(Settings(state=deep)) as opened:
        assert opened.server is not None
        outside = opened.server.socket_folder
        assert deep not in outside.parents
        with open_warehouse(Settings(state=deep)) as again:
            assert again.cluster == opened.cluster
    assert within(20, lambda: server(deep) is None and not outside.exists())


# What a person did wrong.


def test_a_state_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "STATE_VERSION").write_text("layout 99\n")
    assert str(folder) in refused(Settings(state=folder))


def test_data_of_another_postgresql_is_refused(folder: Path) -> None:
    open_warehouse(Settings(state=folder)).close()
    assert within(20, lambda: server(folder) is None)
    (folder / "pg" / "data" / "PG_VERSION").write_text("17\n")
    assert "PostgreSQL 17" in refused(Settings(state=folder))


def test_lost_secrets_are_named(folder: Path) -> None:
    open_warehouse(Settings(state=folder)).close()
    (folder / "secrets.json").unlink()
    assert "secrets.json" in refused(Settings(state=folder))


def test_a_wrong_password_is_named(folder: Path) -> None:
    with open_warehouse(Settings(state=folder)):
        secrets = json.loads((folder / "secrets.json").read_text())
        secrets["embedded"] = dict.fromkeys(secrets["embedded"], "wrong")
        (folder / "secrets.json").write_text(json.dumps(secrets))
        message = refused(Settings(state=folder))
    assert "password" in message
    assert "secrets.json" in message


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * 2**20))
    assert "5 MB" in refused(Settings(state=tmp_path / "state"))
    assert not (tmp_path / "state" / "STATE_VERSION").exists()


def test_a_file_in_the_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert "file" in refused(Settings(state=tmp_path / "state"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o500)
    assert "can't be written" in refused(Settings(state=tmp_path / "state"))


def test_an_old_server_is_refused(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "OLDEST_SERVER", 190000)
    with pytest.raises(UserError, match=r"PostgreSQL 18, too old; use PostgreSQL 19 or later"):
        warehouse.connect()


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "state", warehouse_url="postgresql://me:hidden@127.0.0.1:1/w")
    message = refused(settings)
    assert "w on 127.0.0.1:1" in message
    assert "DOPA_WAREHOUSE_URL" in message
    assert "hidden" not in message


def test_a_newer_warehouse_is_refused(folder: Path) -> None:
    with open_warehouse(Settings(state=folder)) as opened:
        with opened.connect(Role.OWNER) as connection:
            connection.execute("update ops.alembic_version set version_num = '9999'")
        assert "9999" in refused(Settings(state=folder))


# Roles.


def test_no_role_is_a_superuser_or_may_make_others(warehouse: Warehouse) -> None:
    with warehouse.connect(Role.READER) as connection:
        rows = connection.execute(
            "select rolname from pg_roles "
            "where rolname like 'dopa%' and not (rolsuper or rolcreaterole or rolcreatedb or rolbypassrls)"
        ).fetchall()
    assert {name for (name,) in rows} >= {role.value for role in Role}


@pytest.mark.parametrize("role", list(Role))
def test_a_role_needs_its_password(warehouse: Warehouse, role: Role) -> None:
    place = {**warehouse.layout.places[role], "password": "guess"}
    with pytest.raises(UserError, match="password"):
        places.connect(place)


def test_each_role_connects_as_itself_and_the_url_says_the_same(warehouse: Warehouse) -> None:
    for role in Role:
        with warehouse.connect(role) as connection, psycopg.connect(warehouse.url(role)) as other:
            query = "select current_user::text, current_database()::text"
            assert connection.execute(query).fetchone() == other.execute(query).fetchone()
            row = connection.execute(query).fetchone()
            assert row == (role.value, "dagster" if role is Role.DAGSTER else "warehouse")


def test_what_the_loader_makes_is_read_by_dbt_and_by_nobody_else(warehouse: Warehouse) -> None:
    with warehouse.connect(Role.LOADER) as connection:
        connection.execute("create table raw.rights as select 1 as x")
        connection.execute("create table quarantine.rights as select 'a name' as original")
    with warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection:
        assert connection.execute("select x from raw.rights").fetchone() == (1,)
        for statement in ("delete from raw.rights", "select * from quarantine.rights"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        connection.execute("create table marts.rights as select x from raw.rights")
        connection.execute("create schema dev_someone_marts")
    with warehouse.connect(Role.READER, autocommit=True) as connection:
        assert connection.execute("select x from marts.rights").fetchone() == (1,)
        for statement in (
            "select * from raw.rights",
            "select * from quarantine.rights",
            "delete from marts.rights",
            "create table marts.mine (x int)",
            "create schema mine",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_dagsters_role_sees_nothing_of_the_warehouse(warehouse: Warehouse) -> None:
    place = {**warehouse.layout.places[Role.DAGSTER], "dbname": "warehouse"}
    with pytest.raises(UserError, match="let user dopa_dagster"):
        places.connect(place)


def test_only_the_loader_writes_deliveries_and_nothing_is_lost(warehouse: Warehouse) -> None:
    insert = (
        "insert into ops.delivery (dataset, status, rows_read, rows_loaded, rows_quarantined) values ('d', 'loaded', %s, %s, %s)"
    )
    with warehouse.connect(Role.LOADER, autocommit=True) as connection:
        connection.execute(insert, [3, 2, 1])
        for counts in ([3, 2, 0], [3, 3, None]):
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(insert, counts)
        connection.execute("insert into ops.access_log (who, action) values ('me', 'looked')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from ops.access_log")
    for role in (Role.TRANSFORMER, Role.READER):
        with warehouse.connect(role, autocommit=True) as connection:
            assert connection.execute("select count(*) > 0 from ops.delivery").fetchone() == (True,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(insert, [1, 1, 0])


def test_text_is_ordered_by_code_point(warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        rows = connection.execute("select x from unnest(array['b', 'B', 'ก', 'a', 'เก', 'A']) x order by x")
        assert [x for (x,) in rows] == ["A", "B", "a", "b", "ก", "เก"]


# Lineage.


def test_a_write_takes_user_transaction_and_time_from_the_server(warehouse: Warehouse) -> None:
    with warehouse.connect(Role.LOADER) as connection:
        connection.execute("create table raw.written as select generate_series(1, 3) as x")
        first = connection.execute(
            "select lineage.record_write('load', 'raw.written', p_run_id => 'r', p_rows_out => 3)"
        ).fetchone()
        rows = connection.execute(
            "select w.written_by, w.transaction_id = pg_current_xact_id(), w.cluster, w.environment, "
            "  abs(extract(epoch from w.written_at - clock_timestamp())) < 5, "
            "  (select count(*) from raw.written r where r.xmin = w.transaction_id::xid) "
            "from lineage.write w where w.id = %s",
            first,
        ).fetchone()
    assert rows == ("dopa_loader", True, warehouse.cluster, "production", True, 3)
    assert first is not None
    with warehouse.connect(Role.TRANSFORMER) as connection:
        connection.execute("create temporary table write (id bigint)")  # must not deceive the function
        inputs = [
            {"namespace": "file", "name": "drop/x.csv"},
            {"name": "raw.written", "write": None},
            {"namespace": warehouse.namespace, "name": "warehouse.raw.written"},
            {"namespace": warehouse.namespace, "name": "warehouse.raw.written", "write": 1},
        ]
        row = connection.execute(
            "select lineage.record_write('model', 'marts.m', p_inputs => %s, p_environment => 'dev')",
            [json.dumps(inputs)],
        ).fetchone()
        assert row is not None
        found = connection.execute("select inputs, written_by, environment from lineage.write where id = %s", row).fetchone()
    assert found is not None
    assert [i["write"] for i in found[0]] == [None, first[0], first[0], 1]
    assert found[1:] == ("dopa_transformer", "dev")


def test_a_write_of_a_transaction_that_fails_was_never_recorded(warehouse: Warehouse) -> None:
    with warehouse.connect(Role.LOADER) as connection:
        row = connection.execute("select lineage.record_write('load', 'raw.gone')").fetchone()
        connection.rollback()
        found = connection.execute("select from lineage.write where id = %s", row).fetchone()
    assert found is None


@pytest.mark.parametrize("role", [Role.LOADER, Role.TRANSFORMER, Role.READER])
def test_nobody_changes_the_record(warehouse: Warehouse, role: Role) -> None:
    with warehouse.connect(role, autocommit=True) as connection:
        for statement in (
            "insert into lineage.write (kind, target, transaction_id, cluster, written_at, written_by) "
            "values ('load', 'x', '1', 'c', now(), 'someone else')",
            "update lineage.write set written_by = 'someone else'",
            "delete from lineage.write",
            "truncate lineage.event",
            "insert into lineage.event (event_time, event) values (now(), '{}')",
            "update lineage.identity set value = 'x'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    if role is Role.READER:
        with warehouse.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select lineage.record_write('load', 'x')")


@pytest.mark.parametrize("name", ["สมชาย ใจดี", r"DOPA\\somchai j", "o'neil"])
def test_a_write_names_who_started_it(settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DOPA_ACTOR", name)
    with open_warehouse(settings) as opened, opened.connect(Role.LOADER) as connection:
        assert opened.dbt_environment()["DOPA_ACTOR"] == name
        asked = "select detail from lineage.write where id = %s"
        (number,) = connection.execute("select lineage.record_write('load', 'raw.acted')").fetchone() or ()
        assert connection.execute(asked, (number,)).fetchone() == ({"actor": name},)
        # Who says it himself is not overruled.
        (number,) = (
            connection.execute("select lineage.record_write('load', 'raw.acted', p_detail => '{\"actor\": \"a\"}')").fetchone()
            or ()
        )
        assert connection.execute(asked, (number,)).fetchone() == ({"actor": "a"},)
        connection.rollback()


def test_events_are_appended_to_a_write(warehouse: Warehouse) -> None:
    with warehouse.connect(Role.LOADER) as connection:
        row = connection.execute(
            "select lineage.record_event(lineage.record_write('load', 'raw.e'), 'r', %s)",
            [json.dumps({"eventTime": "2025-10-01T00:00:00Z", "eventType": "COMPLETE"})],
        ).fetchone()
        found = connection.execute(
            "select e.run_id, e.event_time = '2025-10-01T00:00:00Z', w.target "
            "from lineage.event e join lineage.write w on w.id = e.write_id where e.id = %s",
            row,
        ).fetchone()
    assert found == ("r", True, "raw.e")


def test_the_namespace_is_fixed_and_names_this_server(warehouse: Warehouse) -> None:
    assert warehouse.namespace == f"postgres://embedded-{warehouse.cluster}:5432"


# Other tools.


def test_dagster_and_dbt_connect_with_what_they_are_given(warehouse: Warehouse) -> None:
    import psycopg2  # type: ignore[import-untyped]
    import sqlalchemy

    engine = sqlalchemy.create_engine(warehouse.url(Role.DAGSTER, "postgresql+psycopg2"))
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("select current_user")).scalar_one() == "dopa_dagster"
    engine.dispose()
    given = warehouse.dbt_environment()
    other = psycopg2.connect(
        host=given["DOPA_DBT_HOST"],
        port=int(given["DOPA_DBT_PORT"]),
        user=given["DOPA_DBT_USER"],
        password=given["DOPA_DBT_PASSWORD"],
        dbname=given["DOPA_DBT_DBNAME"],
    )
    other.close()


def test_the_departmental_system_is_a_database_apart(warehouse: Warehouse) -> None:
    url = warehouse.departmental_database()
    assert warehouse.departmental_database() == url
    with psycopg.connect(url) as connection:
        connection.execute("create table hotel (name text)")
        row = connection.execute("select current_user::text, current_database()::text").fetchone()
    assert row == ("dopa_demo", "dopa_demo")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(url, dbname="warehouse")
