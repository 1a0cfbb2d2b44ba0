"""What is unusual, from profiles that are kept: of the same place, of each day the last, what was told not learned from."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from dopa_pipelines.quality.store import keep
from dopa_pipelines.quality.unusual import look
from dopa_pipelines.warehouse import Role, Warehouse

COLUMNS = [
    {"name": "month", "logicalType": "date", "required": True, "primaryKey": True, "primaryKeyPosition": 1},
    {"name": "province", "required": True, "primaryKey": True, "primaryKeyPosition": 2},
    {"name": "kind"},
    {
        "name": "family_name", "classification": "personal", "pdpaRole": "direct_identifier", "lawfulBasis": "public_task",
        "purpose": "x",
    },
]  # fmt: skip


class Profiles:
    """Deliveries with profiles, without data."""

    def __init__(self, connection: Any, contract: Any) -> None:
        self.connection, self.contract = connection, contract

    def add(self, month: int, rows: int, province: str = "11", kinds: tuple[int, int] = (60, 40), empty: int = 0) -> int:
        day = date(2023 + month // 12, month % 12 + 1, 1)
        (number,) = self.connection.execute(
            "insert into ops.delivery (dataset, file, status, rows_read, rows_loaded, rows_quarantined, scope)"
            " values (%s, 'x.csv', 'loaded', %s, %s, 0, %s) returning id",
            (self.contract.dataset, rows, rows, Jsonb([{"month": day.isoformat(), "province": province}])),
        ).fetchone()
        counts = [[value, rows * share // 100] for value, share in zip("AB", kinds, strict=True) if share]
        names = {"missing": empty, "top": [["สมชาย", rows]], "distinct": 1, "shapes": [["ก", rows - empty]]}
        facts = {None: {"rows": rows}, "kind": {"missing": 0, "distinct": len(counts), "top": counts}, "family_name": names}
        for column, one in facts.items():
            self.connection.execute(
                "insert into quality.profile (dataset, column_name, delivery_id, rows, facts) values (%s, %s, %s, %s, %s)",
                (self.contract.dataset, column, number, rows, Jsonb(one)),
            )
        return int(number)

    def unusual(self, number: int) -> dict[str, str]:
        return {item.rule: item.detail["en"] for item in look(self.connection, self.contract, number) if not item.passed}


@pytest.fixture
def profiles(warehouse: Warehouse, make_contract: Any, request: pytest.FixtureRequest) -> Any:
    scope = [{"column": "month", "granularity": "month"}, {"column": "province"}]
    contract = make_contract(f"{request.node.name[5:50]}", COLUMNS, load={"mode": "replace_scope", "scope": scope})
    with warehouse.connect(Role.LOADER) as connection:
        yield Profiles(connection, contract)
        connection.rollback()


def test_volume_category_and_missing_of_a_personal_column(profiles: Profiles) -> None:
    for month in range(14):
        profiles.add(month, 5_000 + 10 * month)
    assert profiles.unusual(profiles.add(14, 5_100)) == {}
    assert set(profiles.unusual(profiles.add(15, 2_000))) == {"unusual_rows@11"}
    assert set(profiles.unusual(profiles.add(16, 5_100, kinds=(100, 0)))) == {"unusual_categories_kind@11"}
    told = profiles.unusual(profiles.add(17, 5_100, empty=900))
    assert set(told) == {"unusual_missing_family_name@11"}
    assert "สมชาย" not in str(look(profiles.connection, profiles.contract, profiles.add(18, 5_100)))


def test_places_have_their_own_history(profiles: Profiles) -> None:
    for month in range(12):
        profiles.add(month, 5_000, "11")
        profiles.add(month, 300, "12")
    assert profiles.unusual(profiles.add(12, 300, "12")) == {}
    assert set(profiles.unusual(profiles.add(12, 300, "11"))) == {"unusual_rows@11"}
    first = look(profiles.connection, profiles.contract, profiles.add(12, 300, "13"))
    assert [(item.rule, item.passed, item.detail["enough"]) for item in first] == [("unusual", True, False)]


def test_a_corrected_delivery_takes_the_place_of_the_first(profiles: Profiles) -> None:
    for month in range(12):
        profiles.add(month, 5_000)
    for month in (9, 10, 11):
        profiles.add(month, 5_000)
    wrong = profiles.add(12, 1_000)
    results = look(profiles.connection, profiles.contract, wrong)
    (told,) = [item for item in results if not item.passed]
    assert (told.kind, told.severity, told.value, told.detail["history"]) == ("unusual", "warn", 1_000, 12)
    assert told.detail["low"] < 5_000 < told.detail["high"]
    keep(profiles.connection, results, delivery=wrong)
    assert profiles.unusual(profiles.add(12, 5_000)) == {}


def test_what_was_told_is_not_learned_from(profiles: Profiles) -> None:
    for month in range(12):
        profiles.add(month, 5_000)
    keep(profiles.connection, look(profiles.connection, profiles.contract, wrong := profiles.add(12, 9_000)), delivery=wrong)
    (rows,) = [i for i in look(profiles.connection, profiles.contract, profiles.add(13, 5_000)) if i.rule == "unusual_rows@11"]
    assert rows.passed
    assert rows.detail["expected"] == pytest.approx(5_000, rel=0.01)


def test_a_delivery_without_a_profile_has_no_results(profiles: Profiles) -> None:
    (number,) = profiles.connection.execute(
        "insert into ops.delivery (dataset, status) values (%s, 'rejected') returning id", (profiles.contract.dataset,)
    ).fetchone()
    assert look(profiles.connection, profiles.contract, number) == []
