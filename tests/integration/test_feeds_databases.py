"""Departmental databases: a PostgreSQL of ours, and Debian's MariaDB in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import psycopg
import pymysql
import pytest

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.ingest import ingest
from dopa_pipelines.ingest.rebuild import rebuild
from dopa_pipelines.settings import Settings
from dopa_pipelines.sources import databases, fetch, open_reader, query_result
from dopa_pipelines.sources.batch import frame_of
from dopa_pipelines.warehouse import Warehouse
from tests.integration.conftest import DOPA, ROOT

ODD = [
    None, "", "NULL", "\\N", "\\.", ",", '"', '""', "a\nb", "a\r\nb", "\r", "\t", "\\", "'", "น้ำ ", "ก" * 5000, "x" * 100_000,
    "\u2028", "\U0001f600", "{}", "-0", "1e309", "' or 1=1 --", "=1+1", " lead",
]  # fmt: skip
"""Texts that forms of files and protocols are known to lose."""


@dataclass(frozen=True)
class Silo:
    """A departmental database. ``execute`` runs statements as its owner."""

    kind: str
    url: str
    execute: Callable[..., list[tuple[Any, ...]]]

    @property
    def secrets(self) -> list[str]:
        return ["s3cret", "127.0.0.1", "clerk"]


MakeContract = Callable[..., Contract]


@pytest.fixture
def contract(make_contract: Any, monkeypatch: pytest.MonkeyPatch) -> MakeContract:
    def make(silo: Silo, dataset: str, columns: list[Any], query: str, url: str | None = None, **layout: Any) -> Contract:
        monkeypatch.setenv("TEST_SILO_URL", silo.url if url is None else url)
        server = {"type": silo.kind, "format": "sql"} | ({"encoding": layout.pop("encoding")} if "encoding" in layout else {})
        named = [column if isinstance(column, dict) else {"name": column} for column in columns]
        made: Contract = make_contract(
            dataset, named, server=server, layout={"query": query, "urlEnvironment": "TEST_SILO_URL"} | layout
        )
        return made

    return make


def rows(contract: Contract, path: Path) -> list[tuple[Any, ...]]:
    frames = [frame_of(batch) for batch in open_reader(contract, path).batches()]
    names = ["_row", "_flaw", *(column.name for column in contract.file_columns)]
    return pl.concat(frames).select(names).rows() if frames else []


def refusal(contract: Contract, spool: Path, silo: Silo) -> str:
    """The sentence with which a fetch is refused; nothing is left of it, and nothing is told that must not be."""
    with pytest.raises(Rejected) as refused:
        fetch(contract, spool)
    message = str(refused.value)
    assert "\n" not in message
    assert [secret for secret in silo.secrets if secret in message] == []
    assert message.endswith(f"; check TEST_SILO_URL and the query in {contract.path.name}")
    assert list(spool.iterdir()) == []
    return message


# the two servers


@pytest.fixture(scope="module")
def postgresql(warehouse: Warehouse) -> Iterator[Silo]:
    url = warehouse.departmental_database()

    def execute(*statements: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    execute("create schema feeds")
    yield Silo("postgresql", url, execute)
    execute("drop schema feeds cascade")


MARIADB = next(
    (path for name in ("mariadbd", "mysqld") if (path := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"))), None
)
INSTALL = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")


@dataclass
class MariaDb:
    """A server in a folder of its own."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        account = ["--user=root"] if os.geteuid() == 0 else []
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(MARIADB), "--no-defaults", *account, f"--datadir={self.folder}/data", f"--socket={self.folder}/s",
                 f"--port={self.port}", "--bind-address=127.0.0.1", f"--pid-file={self.folder}/pid", "--skip-name-resolve",
                 "--innodb-flush-log-at-trx-commit=0", "--character-set-server=latin1"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self._listens():
            assert self.process.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"{self.folder}/s") == 0

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def connect(self) -> Any:
        return pymysql.connect(unix_socket=f"{self.folder}/s", user="root", autocommit=True, charset="utf8mb4")

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())


@pytest.fixture(scope="module")
def maria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    if MARIADB is None or INSTALL is None:
        pytest.skip("Debian's mariadb-server is not installed")
    # The path of a socket has little room.
    folder = Path("/tmp") / f"maria-{os.getpid()}"
    folder.mkdir(mode=0o700)
    account = ["--user=root"] if os.geteuid() == 0 else []
    try:
        subprocess.run(
            [INSTALL, "--no-defaults", *account, f"--datadir={folder}/data", "--auth-root-authentication-method=normal",
             "--skip-test-db"],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            server = MariaDb(folder, probe.getsockname()[1])
        server.start()
        try:
            server.execute(
                "create database silo character set utf8mb4",
                "create user 'clerk'@'%' identified by 's3cret/p@ss'",
                "grant all on silo.* to 'clerk'@'%'",
            )
            yield server
        finally:
            server.stop(signal.SIGKILL)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mysql(maria: MariaDb) -> Silo:
    url = f"mysql://clerk:{quote('s3cret/p@ss', safe='')}@127.0.0.1:{maria.port}/silo"
    return Silo("mysql", url, maria.execute)


@pytest.fixture(params=["postgresql", "mysql"])
def silo(request: pytest.FixtureRequest) -> Silo:
    found: Silo = request.getfixturevalue(request.param)
    return found


def schema(silo: Silo) -> str:
    return "feeds" if silo.kind == "postgresql" else "silo"


def literal(silo: Silo, text: str | None) -> str:
    if text is None:
        return "null"
    escaped = text.replace("'", "''")
    return f"'{escaped if silo.kind == 'postgresql' else escaped.replace(chr(92), chr(92) * 2)}'"


# both


def test_texts_come_as_they_are_and_null_is_not_empty(silo: Silo, contract: MakeContract, tmp_path: Path) -> None:
    table = f"{schema(silo)}.odd"
    values = ", ".join(f"({number}, {literal(silo, text)})" for number, text in enumerate(ODD))
    kind = "text" if silo.kind == "postgresql" else "longtext"
    silo.execute(f"create table {table} (n int primary key, t {kind})", f"insert into {table} values {values}")
    made = contract(silo, "feed_odd", ["t", "n"], f"select n, t from {table} order by n -- all of them")
    path = fetch(made, tmp_path / "spool")
    assert rows(made, path) == [(number + 1, None, text, str(number)) for number, text in enumerate(ODD)]
    assert path.name == "feed_odd.csv"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text("utf-8").startswith('"n","t"\n')
    before = path.read_bytes()
    assert fetch(made, tmp_path / "spool").read_bytes() == before


def test_many_rows_come_in_bounded_batches(silo: Silo, contract: MakeContract, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(query_result, "BLOCK_BYTES", 1 << 20)
    table = f"{schema(silo)}.many"
    series = "generate_series(1, 200000) seq" if silo.kind == "postgresql" else "silo.seq_1_to_200000"
    text = "'สมชาย ' || seq" if silo.kind == "postgresql" else "concat('สมชาย ', seq)"
    silo.execute(
        f"create table {table} as select seq as n, {text} as t, case when seq % 3 = 0 then null else 'x' end as x from {series}"
    )
    made = contract(silo, "feed_many", ["n", "t", "x"], f"select n, t, x from {table} order by n;")
    reader = open_reader(made, fetch(made, tmp_path / "spool"))
    batches = list(reader.batches())
    assert len(batches) > 5
    found = pl.concat(map(frame_of, batches))
    expected = pl.select(
        pl.int_range(1, 200_001).alias("_row"),
        pl.int_range(1, 200_001).cast(pl.String).alias("n"),
        ("สมชาย " + pl.int_range(1, 200_001).cast(pl.String)).alias("t"),
        pl.when(pl.int_range(1, 200_001) % 3 != 0).then(pl.lit("x")).alias("x"),
    )
    assert found.select("_row", "n", "t", "x").equals(expected)
    assert found["_original"][:3].to_list() in (["1,สมชาย 1,x", "2,สมชาย 2,x", "3,สมชาย 3,"],)


def test_columns_are_told_by_their_titles(silo: Silo, contract: MakeContract, tmp_path: Path) -> None:
    query = "select 3 as c, 1 as a, 'ก' as ชื่อ, 9 as more"
    made = contract(silo, "feed_titles", ["a", {"name": "b", "physicalName": "ชื่อ"}, {"name": "c"}], query)
    path = fetch(made, tmp_path / "spool")
    reader = open_reader(made, path)
    assert rows(made, path) == [(1, None, "1", "ก", "3")]
    assert list(reader.batches()) and reader.unknown_titles == ("more",)
    lacking = contract(silo, "feed_titles", ["a", "b", "z"], query)
    with pytest.raises(Rejected, match=r"column missing: .*z \(z\); the file has: c, a, ชื่อ, more"):
        rows(lacking, path)
    none = contract(silo, "feed_titles", ["a"], "select 1 as a where 1 = 0")
    assert rows(none, fetch(none, tmp_path / "spool")) == []
    twice = contract(silo, "feed_titles", ["a"], "select 1 as a, 2 as a")
    with pytest.raises(Rejected, match="stands 2 times"):
        rows(twice, fetch(twice, tmp_path / "spool"))


WRITES = {
    "postgresql": [
        "insert into feeds.kept values (2) returning n",
        "delete from feeds.kept returning n",
        "with gone as (delete from feeds.kept returning n) select n from gone",
        "select feeds.writes() as n",
        "select 1 as n; delete from feeds.kept",
        "select 1 as n) to stdout; commit; delete from feeds.kept; copy (select 1",
        "truncate feeds.kept",
        "do $$ begin delete from feeds.kept; end $$",
        "call feeds.wipes()",
        "select nextval('feeds.counter') as n",
        "drop table feeds.kept",
        "commit",
    ],
    "mysql": [
        "insert into silo.kept values (2) returning n",
        "delete from silo.kept returning n",
        "select writes() as n",
        "select 1 as n; delete from silo.kept",
        "truncate silo.kept",
        "call wipes()",
        "/*!50000 call wipes() */",
        "drop table silo.kept",
        "commit",
        "select n from silo.kept into outfile '/tmp/feed_outfile'",
        "select '#' as n into /* */ dumpfile '/tmp/feed_outfile'",
        "set @a = 1",
        "",
    ],
}  # fmt: skip


def test_a_query_cannot_change_anything(silo: Silo, contract: MakeContract, tmp_path: Path) -> None:
    place = schema(silo)
    silo.execute(f"create table {place}.kept (n int)", f"insert into {place}.kept values (1)")
    if silo.kind == "postgresql":
        silo.execute(
            "create function feeds.writes() returns int language plpgsql as $$ begin"
            " begin set transaction read write; exception when others then null; end;"
            " delete from feeds.kept; return 1; end $$",
            "create procedure feeds.wipes() language plpgsql as $$ begin commit; delete from feeds.kept; end $$",
            "create sequence feeds.counter",
        )
    else:
        silo.execute(
            "use silo",
            "create function silo.writes() returns int modifies sql data begin delete from silo.kept; return 1; end",
        )
        silo.execute(
            "use silo", "create procedure silo.wipes() begin commit; set session transaction read write; delete from kept; end"
        )
    for query in WRITES[silo.kind]:
        if query:
            assert "did not give the rows" in refusal(contract(silo, "feed_writes", ["n"], query), tmp_path / "spool", silo), (
                query
            )
        assert silo.execute(f"select n from {place}.kept") == [(1,)], query


def test_what_the_query_gets_wrong_is_told(silo: Silo, contract: MakeContract, tmp_path: Path) -> None:
    place = schema(silo)
    silo.execute(f"create table {place}.people (name text)", f"insert into {place}.people values ('สมชาย ใจดี')")
    spool = tmp_path / "spool"
    assert "nope" in refusal(contract(silo, "feed_wrong", ["n"], f"select n from {place}.nope"), spool, silo)
    assert "wrong_column" in refusal(contract(silo, "feed_wrong", ["n"], f"select wrong_column from {place}.people"), spool, silo)
    assert "syntax" in refusal(contract(silo, "feed_wrong", ["n"], "select from from"), spool, silo).casefold()
    # Values of rows are nobody's to read in a message.
    if silo.kind == "postgresql":
        query = "select cast(name as integer) as n from feeds.people"
        assert "InvalidTextRepresentation, error 22P02" in refusal(contract(silo, "feed_wrong", ["n"], query), spool, silo)
    else:
        query = "select exp(n) from (select char_length(name) * 1000 as n from silo.people) p"
        assert "(error 1690)" in refusal(contract(silo, "feed_wrong", ["n"], query), spool, silo)


def test_an_address_that_fails_is_told_without_it(silo: Silo, contract: MakeContract, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    scheme = "postgresql" if silo.kind == "postgresql" else "mysql"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        for url, words in [
            (f"{scheme}://clerk:s3cret@127.0.0.1:{port}/silo", "nothing answers at its address"),
            (f"{scheme}://clerk:s3cret@no-such-host.invalid/silo", "its host is unknown"),
        ]:
            assert words in refusal(contract(silo, "feed_down", ["n"], "select 1 as n", url), spool, silo)
    for url in ("s3cret", f"{scheme}://clerk:s3cret@127.0.0.1:port/silo", f"{scheme}://clerk:s3cret@h/silo?s3cret=1"):
        with pytest.raises(UserError, match="TEST_SILO_URL is no address of a database; it must be") as error:
            fetch(contract(silo, "feed_down", ["n"], "select 1 as n", url), spool)
        assert "s3cret" not in str(error.value)


# PostgreSQL


def test_a_wrong_password_of_postgresql(postgresql: Silo, contract: MakeContract, tmp_path: Path) -> None:
    for change, words in [
        ({"password": "wrong"}, "user or password are not accepted"),
        ({"user": "clerk", "password": "s3cret"}, "user or password are not accepted"),
        ({"dbname": "no_such_database"}, "its database does not exist"),
    ]:
        url = psycopg.conninfo.make_conninfo(postgresql.url, **change)
        made = contract(postgresql, "feed_password", ["n"], "select 1 as n", url)
        assert words in refusal(made, tmp_path / "spool", postgresql)


def test_values_of_postgresql_are_its_own_text(postgresql: Silo, contract: MakeContract, tmp_path: Path) -> None:
    expected = {
        "1::numeric / 3": "0.33333333333333333333",
        "12345678901234567890.10::numeric": "12345678901234567890.10",
        "'NaN'::float8": "NaN",
        "0.1::float8 + 0.2::float8": "0.30000000000000004",
        "date '2568-04-01'": "2568-04-01",
        "timestamp '2025-01-02 03:04:05.6'": "2025-01-02 03:04:05.6",
        "timestamptz '2025-01-02 03:04:05+00'": "2025-01-02 10:04:05+07",
        "interval '1 day 2 hours'": "P1DT2H",
        "true": "t",
        "'\\x00ff'::bytea": "\\x00ff",
        "array['a','b c']": "{a,\"b c\"}",
        "'{\"a\": 1.0}'::jsonb": '{"a": 1.0}',
        "null::int": None,
        "''": "",
    }  # fmt: skip
    names = [f"c{place}" for place in range(len(expected))]
    query = "select " + ", ".join(f"{value} as {name}" for value, name in zip(expected, names, strict=True))
    # What the user's own settings say must not matter.
    postgresql.execute(
        "alter role current_user set datestyle = 'German'", "alter role current_user set timezone = 'America/Lima'"
    )
    try:
        made = contract(postgresql, "feed_values", names, query)
        assert rows(made, fetch(made, tmp_path / "spool")) == [(1, None, *expected.values())]
    finally:
        postgresql.execute("alter role current_user reset datestyle", "alter role current_user reset timezone")


def test_a_postgresql_that_ends_in_the_middle(postgresql: Silo, contract: MakeContract, tmp_path: Path) -> None:
    made = contract(
        postgresql, "feed_cut", ["n"], "select case when n > 50000 then pg_sleep(0.05)::text else n::text end as n"
        " from generate_series(1, 60000) n",
    )  # fmt: skip
    ended = threading.Thread(target=_end_feed, args=(postgresql,))
    ended.start()
    message = refusal(made, tmp_path / "spool", postgresql)
    ended.join()
    assert "error 57P01" in message or "the connection was lost" in message


def _end_feed(silo: Silo) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = silo.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'dopa_feed' and wait_event = 'PgSleep'"
        )
        if found:
            return
        time.sleep(0.05)


def test_a_postgresql_that_falls_silent(postgresql: Silo, contract: MakeContract, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(databases, "SILENCE_SECONDS", 0.5)
    made = contract(postgresql, "feed_silent", ["n"], "select pg_sleep(20)::text as n")
    started = time.monotonic()
    assert "the connection was lost" in refusal(made, tmp_path / "spool", postgresql)
    assert time.monotonic() - started < 10


def test_one_moment_of_the_database_is_seen(postgresql: Silo, contract: MakeContract, tmp_path: Path) -> None:
    postgresql.execute("create table feeds.moving as select n from generate_series(1, 3) n")
    # The second scan starts a second after the first one; what was written in between is not seen.
    query = (
        "with a as materialized (select count(*) c, pg_sleep(1) from feeds.moving)"
        " select a.c as before, feeds.count_now() as after from a"
    )
    postgresql.execute(
        "create function feeds.count_now() returns bigint volatile language sql as 'select count(*) from feeds.moving'"
    )
    made = contract(postgresql, "feed_moment", ["before", "after"], query)
    writer = threading.Timer(0.5, postgresql.execute, ["insert into feeds.moving values (4)"])
    writer.start()
    path = fetch(made, tmp_path / "spool")
    writer.join()
    assert rows(made, path) == [(1, None, "3", "3")]
    assert postgresql.execute("select count(*) from feeds.moving") == [(4,)]


# MariaDB


def test_values_of_mariadb_are_its_own_text(mysql: Silo, contract: MakeContract, tmp_path: Path) -> None:
    mysql.execute(
        "set session sql_mode = ''",
        "create table silo.typed (d decimal(30,10), f double, i bigint unsigned, day date, at datetime(6), ts timestamp, y year,"
        " t time(3), e enum('ชาย','หญิง'), b bit(10), bin binary(3), bl blob, j json, c char(5), s set('a','b'), n int zerofill)"
        " character set utf8mb4",
        "insert into silo.typed values (12345678901234567890.0123456789, 0.1, 18446744073709551615, '0000-00-00',"
        " '2025-01-02 03:04:05.000006', from_unixtime(0 + 86400), 2025, '-25:00:00.5', 'หญิง', b'1000000001', x'00ff10',"
        " x'000a22', '{\"a\": 1.0}', 'x', 'a,b', 7), (null, null, null, null, null, null, null, null, null,"
        " null, null, null, null, null, null, null),"
        " (0, -0.0, 0, '2025-12-00', '0000-00-00', 0, 0, '838:59:59', '', b'0', '', '', '[]', '', '', 0)",
    )
    names = ["d", "f", "i", "day", "at", "ts", "y", "t", "e", "b", "bin", "bl", "j", "c", "s", "n"]
    # On the connection the server answers in Bangkok's time.
    made = contract(mysql, "feed_typed", [*names, "one"], "select typed.*, 1 as one from typed")
    assert rows(made, fetch(made, tmp_path / "spool")) == [
        (1, None, "12345678901234567890.0123456789", "0.1", "18446744073709551615", "0000-00-00", "2025-01-02 03:04:05.000006",
         "1970-01-02 07:00:00", "2025", "-25:00:00.500", "หญิง", "513", "00ff10", "000a22", '{"a": 1.0}', "x", "a,b",
         "0000000007", "1"),
        (2, None, *[None] * 16, "1"),
        (3, None, "0.0000000000", "0", "0", "2025-12-00", "0000-00-00 00:00:00.000000", "0000-00-00 00:00:00", "0000",
         "838:59:59.000", "", "0", "000000", "", "[]", "", "", "0000000000", "1"),
    ]  # fmt: skip


def test_a_nul_in_a_text_is_quarantined_not_changed(mysql: Silo, contract: MakeContract, tmp_path: Path) -> None:
    query = "select 1 as n, 'ok' as t union all select 2, concat('a', char(0 using utf8mb4), 'b') order by n"
    made = contract(mysql, "feed_nul", ["n", "t"], query)
    path = fetch(made, tmp_path / "spool")
    assert rows(made, path) == [(1, None, "1", "ok"), (2, "undecodable", None, None)]
    (batch,) = open_reader(made, path).batches()
    assert frame_of(batch)["_original"].to_list() == ["1,ok", "2,a\\x00b"]


def test_thai_of_an_old_encoding_becomes_text(mysql: Silo, contract: MakeContract, tmp_path: Path) -> None:
    mysql.execute("create table silo.old (t varchar(20)) character set tis620", "insert into silo.old values ('น้ำใจ')")
    made = contract(mysql, "feed_tis620", ["t"], "select t from old")
    assert rows(made, fetch(made, tmp_path / "spool")) == [(1, None, "น้ำใจ")]


def test_a_wrong_password_of_mariadb(mysql: Silo, maria: MariaDb, contract: MakeContract, tmp_path: Path) -> None:
    for url, words in [
        (f"mysql://clerk:wrong@127.0.0.1:{maria.port}/silo", "user or password are not accepted"),
        (mysql.url.replace("/silo", "/other"), "its database does not exist or is closed to us"),
    ]:
        assert words in refusal(contract(mysql, "feed_mysql_password", ["n"], "select 1 as n", url), tmp_path / "spool", mysql)
    made = contract(mysql, "feed_mysql_password", ["n"], "select user as n from mysql.user")
    assert "the user may not read what the query asks for" in refusal(made, tmp_path / "spool", mysql)


def test_a_socket_and_tls_can_be_asked_for(mysql: Silo, maria: MariaDb, contract: MakeContract, tmp_path: Path) -> None:
    query = "select variable_value as n from information_schema.session_status where variable_name = 'Ssl_cipher'"
    by_socket = f"mariadb://root@localhost/silo?unix_socket={maria.folder}/s"
    made = contract(mysql, "feed_socket", ["n"], query, by_socket)
    assert rows(made, fetch(made, tmp_path / "spool")) == []  # a blank row: no cipher
    made = contract(mysql, "feed_socket", ["n"], query, f"{mysql.url}?ssl-mode=REQUIRED")
    assert "TLS was not agreed on" in refusal(made, tmp_path / "spool2", mysql)
    with pytest.raises(UserError, match="one of disabled, preferred, required, verify_ca, verify_identity"):
        fetch(contract(mysql, "feed_socket", ["n"], query, f"{mysql.url}?ssl-mode=maybe"), tmp_path / "spool")


@pytest.mark.parametrize("how", ["kill", "server"])
def test_a_mariadb_that_ends_in_the_middle(mysql: Silo, maria: MariaDb, contract: MakeContract, tmp_path: Path, how: str) -> None:
    query = "select case when seq > 150000 then sleep(0.05) else repeat(seq, 100) end as n from seq_1_to_200000"
    made = contract(mysql, "feed_mysql_cut", ["n"], query)

    def end() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = maria.execute("select id from information_schema.processlist where info like 'select case when seq%'")
            if found:
                time.sleep(0.3)
                if how == "kill":
                    maria.execute(f"kill {found[0][0]}")
                else:
                    maria.stop(signal.SIGKILL)
                return
            time.sleep(0.05)

    ending = threading.Thread(target=end)
    ending.start()
    try:
        message = refusal(made, tmp_path / "spool", mysql)
    finally:
        ending.join()
        if maria.process is None:
            maria.start()
    assert "the connection was lost" in message or "the query was cancelled" in message


def test_a_mariadb_that_falls_silent(mysql: Silo, contract: MakeContract, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(databases, "SILENCE_SECONDS", 0.5)
    started = time.monotonic()
    made = contract(mysql, "feed_mysql_silent", ["n"], "select sleep(20) as n")
    assert "the connection was lost" in refusal(made, tmp_path / "spool", mysql)
    assert time.monotonic() - started < 10


def test_a_full_disk_is_told_and_the_server_let_go(
    mysql: Silo, maria: MariaDb, contract: MakeContract, tmp_path: Path, monkeypatch: Any
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(databases, "header_line", full)
    # Ten gigabytes: read to their end, they would take minutes.
    made = contract(mysql, "feed_full", ["n"], "select repeat('x', 1000) as n from seq_1_to_10000000")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be kept in .* \(No space left on device\); make room there"):
        fetch(made, tmp_path / "spool")
    running = "select id from information_schema.processlist where info like 'select repeat%'"
    while maria.execute(running) and time.monotonic() - started < 10:
        time.sleep(0.1)
    assert time.monotonic() - started < 10
    assert list((tmp_path / "spool").iterdir()) == []


# all the way


def test_a_database_never_seen_is_ingested(
    silo: Silo, contract: MakeContract, environment: dict[str, str], warehouse: Warehouse, tmp_path: Path, settings: Settings
) -> None:
    table, dataset = f"{schema(silo)}.cases", f"feed_cases_{silo.kind}"
    silo.execute(
        f"create table {table} (no varchar(9) primary key, day varchar(20), amount decimal(12,2), note text)",
        f"insert into {table} values ('1', '01/04/2568', 10.50, null), ('2', '31/02/2568', 1, 'x')",
        f"insert into {table} values ('3', '2025-04-02', 0.10, '')",
    )
    made = contract(
        silo, dataset,
        [{"name": "no", "required": True, "primaryKey": True, "primaryKeyPosition": 1}, {"name": "day", "logicalType": "date"},
         {"name": "amount", "logicalType": "number", "physicalType": "numeric"}, "note"],
        f"select * from {table} order by no",
    )  # fmt: skip
    done = subprocess.run(
        [DOPA, "ingest", "--contract", str(made.path), "--json"],
        env=environment | {"TEST_SILO_URL": silo.url}, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["status"], told["rows_read"], told["rows_loaded"], told["rows_quarantined"]) == ("loaded", 3, 2, 1)
    with warehouse.connect() as connection:
        query = f"select no, day::text, amount::text, note from raw.{dataset} order by no"
        assert connection.execute(query.encode()).fetchall() == [
            ("1", "2025-04-01", "10.50", None), ("3", "2025-04-02", "0.10", None),
        ]  # fmt: skip
        assert connection.execute(f"select row, original from quarantine.{dataset}".encode()).fetchall() == [
            (2, "2,31/02/2568,1.00,x")
        ]
        ((inputs,),) = connection.execute("select inputs from lineage.write where target = %s", (f"raw.{dataset}",)).fetchall()
    assert [item["namespace"] for item in inputs if item["name"] == f"testing/{dataset}"] == [
        {"postgresql": "postgres", "mysql": "mysql"}[silo.kind]
    ]
    assert ingest(warehouse, made, fetch(made, settings.spool_path)).status == "unchanged"
    assert rebuild(warehouse, made).equal


def test_what_was_fetched_before_as_json_lines_is_still_read(make_contract: Any, tmp_path: Path) -> None:
    layout = {"query": "select 1", "urlEnvironment": "U"}
    made = make_contract(
        "feed_older", [{"name": "a"}, {"name": "b"}], server={"type": "postgresql", "format": "sql"}, layout=layout
    )
    older = tmp_path / "older.jsonl"
    older.write_text('{"b": null, "a": "ก", "more": 1}\n\nbroken\n{"a": "", "b": 1.50}\n', "utf-8")
    assert rows(made, older) == [(1, None, "ก", None), (3, "undecodable", None, None), (4, None, "", "1.50")]
    (tmp_path / "empty.jsonl").touch()
    assert rows(made, tmp_path / "empty.jsonl") == []
