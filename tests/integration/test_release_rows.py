"""The rows of a release are what the table holds, of every type that a publication knows, in one snapshot and in even batches."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from dopa_pipelines.errors import UnfinishedError, UserError
from dopa_pipelines.publishing import Publication
from dopa_pipelines.publishing.rows import BATCH_ROWS, snapshot
from dopa_pipelines.warehouse import Role, Warehouse
from tests.integration.releasing import publication

TYPES = {
    "code": ("string", "varchar(10)"),
    "word": ("string", "text"),
    "small": ("integer", "smallint"),
    "whole": ("integer", "integer"),
    "large": ("integer", "bigint"),
    "exact": ("number", "numeric(12, 3)"),
    "free": ("number", "numeric"),
    "single": ("number", "real"),
    "double": ("number", "double precision"),
    "yes": ("boolean", "boolean"),
    "day": ("date", "date"),
}
Make = Callable[..., Publication]


@pytest.fixture
def typed(warehouse: Warehouse) -> Iterator[tuple[psycopg.Connection[Any], Publication]]:
    """A table with a column of each type, and the publication of all of it."""
    with warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection:
        connection.execute("drop table if exists open_data.typed_to_test")
        columns = ", ".join(f"{name} {kind}" for name, (_, kind) in TYPES.items())
        connection.execute(f"create table open_data.typed_to_test ({columns})".encode())
        listed = [
            {"name": name, "source": name, "type": kind, "descriptionEn": name, "descriptionTh": "ไทย"}
            for name, (kind, _) in TYPES.items()
        ]
        yield connection, publication("typed", source="open_data.typed_to_test", columns=listed, orderBy=["code"])
        connection.execute("drop table open_data.typed_to_test")


def rows_of(warehouse: Warehouse, wanted: Publication) -> list[tuple[Any, ...]]:
    with snapshot(warehouse, wanted) as source:
        return [tuple(row.values()) for table in source.batches() for row in table.to_pylist()]


def test_every_type_comes_as_it_is(warehouse: Warehouse, typed: tuple[psycopg.Connection[Any], Publication]) -> None:
    connection, wanted = typed
    connection.execute(
        "insert into open_data.typed_to_test values"
        " ('ก', E'กำ\"แพง\"\\n, \\\\N', -32768, 2147483647, 9223372036854775807, -123456789.125, 0.1, 0.1, 1e300, true,"
        " '0001-01-01'),"
        " ('a', '', 1, 1, 1, 0.001, 1e30, 16777216, 'NaN', false, '9999-12-31'),"
        " (null, null, null, null, null, null, null, null, null, null, null)"
    )
    absent, ascii_, thai = rows_of(warehouse, wanted)
    assert absent == (None,) * len(TYPES)
    assert thai == (
        "ก", 'กำ"แพง"\n, \\N', -32768, 2147483647, 9223372036854775807, Decimal("-123456789.125"), 0.1, 0.1, 1e300, True,
        datetime.date(1, 1, 1),
    )  # fmt: skip
    assert ascii_[:8] == ("a", "", 1, 1, 1, Decimal("0.001"), 1e30, 16777216.0)
    assert ascii_[8] != ascii_[8]
    assert ascii_[9:] == (False, datetime.date(9999, 12, 31))


@pytest.mark.parametrize(
    ("column", "value"),
    [("day", "'infinity'"), ("day", "'-infinity'"), ("day", "'10000-01-01'"), ("day", "'0001-12-31 BC'"), ("exact", "'NaN'")],
)
def test_a_value_that_no_format_can_write_is_named(
    warehouse: Warehouse, typed: tuple[psycopg.Connection[Any], Publication], column: str, value: str
) -> None:
    connection, wanted = typed
    connection.execute(f"insert into open_data.typed_to_test (code, {column}) values ('1', {value})".encode())
    with pytest.raises(UserError, match=rf"open_data\.typed_to_test.*{column}.*correct it in the model"):
        rows_of(warehouse, wanted)


def test_batches_are_even_however_the_server_cuts_them(
    warehouse: Warehouse, typed: tuple[psycopg.Connection[Any], Publication]
) -> None:
    connection, wanted = typed
    connection.execute(
        "insert into open_data.typed_to_test (code, word) select lpad(i::text, 7, '0'), repeat('ก', (i % 997)::int)"
        " from generate_series(1, 120000) i order by md5(i::text)"
    )
    with snapshot(warehouse, wanted) as source:
        tables = list(source.batches())
        assert [table.num_rows for table in tables] == [BATCH_ROWS, BATCH_ROWS, 20_000]
        assert [code for table in tables for code in table["code"].to_pylist()] == [f"{i:07}" for i in range(1, 120_001)]
        # Read again, it is the same; what was committed in between is not seen.
        connection.execute("update open_data.typed_to_test set word = 'other'")
        assert all(one.equals(two) for one, two in zip(tables, source.batches(), strict=True))


def test_who_stops_reading_leaves_no_thread_behind(
    warehouse: Warehouse, typed: tuple[psycopg.Connection[Any], Publication]
) -> None:
    connection, wanted = typed
    connection.execute("insert into open_data.typed_to_test (code) select i::text from generate_series(1, 400000) i")
    with snapshot(warehouse, wanted) as source:
        batches = source.batches()
        next(batches)
        batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "rows of a release"]


def test_a_connection_that_is_cut_is_one_sentence(
    warehouse: Warehouse, typed: tuple[psycopg.Connection[Any], Publication]
) -> None:
    connection, wanted = typed
    connection.execute(
        "insert into open_data.typed_to_test (code, word) select i::text, repeat('x', 500) from generate_series(1, 400000) i"
    )
    with (
        snapshot(warehouse, wanted) as source,
        pytest.raises(UnfinishedError, match=r"reading open_data\.typed_to_test was cut off"),
    ):
        for _ in source.batches():
            with warehouse.connect(Role.READER, autocommit=True) as other:
                other.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where usename = current_user"
                    " and query like '%typed_to_test%' and query like 'COPY%' and pid <> pg_backend_pid()"
                )
