"""Datasets with history: whatever the order in which snapshots come, the history is the same and is what they say.

The oracle takes no intervals apart: it lists, day by day, what the snapshots in force say.
"""

import itertools
import random
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.contracts import read_contract
from dopa_pipelines.documents import DocumentError
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest import arrivals, ingest, replay
from dopa_pipelines.ingest.archive import place_of
from dopa_pipelines.ingest.inspect import table_facts
from dopa_pipelines.ingest.rebuild import rebuild
from dopa_pipelines.warehouse import Role

KEYED = [
    {"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1},
    {"name": "v", "logicalType": "integer"},
]
DAILY = {"period": r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"}
HISTORY = {"mode": "history", "maxShrinkPercent": 100, "maxRejectedPercent": 100}


def text(rows: dict[str, Any]) -> str:
    return "k,v\n" + "".join(f"{key},{value}\n" for key, value in rows.items())


def believed(made: Any, *, after: int | None = None) -> list[tuple[Any, ...]]:
    """What is believed now, or was after a delivery: key, value, from, to."""
    condition = "_superseded_by is null"
    if after is not None:
        condition = f"_recorded_by <= {after} and (_superseded_by is null or _superseded_by > {after})"
    return made.query(f"select k, v, _valid_from, _valid_to from {{t}} where {condition} order by k, _valid_from")


def expected(snapshots: dict[date, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The same from the snapshots themselves: runs of snapshots in which a key has one value."""
    days = sorted(snapshots)
    found = []
    for key in sorted({key for rows in snapshots.values() for key in rows}):
        values = [snapshots[day].get(key) for day in days]
        for value, run in itertools.groupby(enumerate(values), key=lambda item: item[1]):
            places = [place for place, _ in run]
            if value is not None:
                end = places[-1] + 1
                found.append((key, value, days[places[0]], days[end] if end < len(days) else None))
    return found


def test_an_older_snapshot_that_arrives_late_leaves_the_right_history(table: Any, warehouse: Any) -> None:
    made = table("history_late", KEYED, layout=DAILY, load=HISTORY)
    january, february, march = date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)
    made.deliver(text({"a": 1, "b": 1, "c": 1}), "2026-01-01.csv")
    late = made.deliver(text({"a": 1, "b": 2, "d": 4}), "2026-03-01.csv")
    assert late.notes["difference"] == {"inserted": 1, "updated": 1, "closed": 1, "same": 1}
    assert believed(made) == [
        ("a", 1, january, None), ("b", 1, january, march), ("b", 2, march, None), ("c", 1, january, march), ("d", 4, march, None),
    ]  # fmt: skip
    between = made.deliver(text({"a": 9, "b": 2, "c": 1}), "2026-02-01.csv")
    assert believed(made) == [
        ("a", 1, january, february), ("a", 9, february, march), ("a", 1, march, None),
        ("b", 1, january, february), ("b", 2, february, None),
        ("c", 1, january, march), ("d", 4, march, None),
    ]  # fmt: skip
    # What was believed before is still known.
    assert ("b", 1, january, march) in believed(made, after=late.delivery)
    assert ("b", 1, january, march) not in believed(made, after=between.delivery)
    with warehouse.connect() as connection:
        assert table_facts(connection, made.contract).reconciled
    assert rebuild(warehouse, made.contract).equal


@pytest.mark.parametrize("seed", range(6))
def test_any_order_and_any_correction_give_the_history_of_the_snapshots(table: Any, warehouse: Any, seed: int) -> None:
    draw = random.Random(seed)
    made = table(f"history_any_{seed}", KEYED, layout=DAILY, load=HISTORY)
    days = [date(2026, 1, 1 + 3 * number) for number in range(6)]
    order = [*days, *draw.choices(days, k=4)]
    draw.shuffle(order)
    snapshots: dict[date, dict[str, Any]] = {}
    after: dict[int, list[tuple[Any, ...]]] = {}
    for number, day in enumerate(order):
        rows = {key: draw.randint(1, 2) for key in "abcdefgh" if draw.random() < 0.7} | {"z": 1}
        snapshots[day] = rows
        done = made.deliver(text(rows), f"{day}_{number}.csv")
        assert done.status in ("loaded", "unchanged"), done.problem
        assert believed(made) == expected(snapshots), (order, number)
        if done.status == "loaded":
            assert done.delivery is not None
            assert (done.rows_read, done.rows_loaded) == (len(rows), len(rows))
            after[done.delivery] = expected(snapshots)
    for delivery, was in after.items():
        assert believed(made, after=delivery) == was
    with warehouse.connect() as connection:
        assert table_facts(connection, made.contract).reconciled
    again = rebuild(warehouse, made.contract)
    assert (again.missing, again.extra) == (0, 0)
    assert again.rows == made.query("select count(*) from {t}")[0][0]


def test_a_row_changed_by_hand_is_found_and_mended(table: Any, warehouse: Any) -> None:
    made = table("history_mended", KEYED, layout=DAILY, load=HISTORY)
    made.deliver(text({"a": 1}), "2026-01-01.csv")
    made.deliver(text({"a": 2}), "2026-02-01.csv")
    before = believed(made)
    with warehouse.connect(Role.LOADER) as connection:
        connection.execute("update raw.history_mended set _valid_to = null where v = 1 and _superseded_by is null")
        connection.commit()
    with warehouse.connect() as connection:
        assert not table_facts(connection, made.contract).reconciled
    assert not rebuild(warehouse, made.contract).equal
    assert rebuild(warehouse, made.contract, apply=True).applied
    assert believed(made) == before
    assert rebuild(warehouse, made.contract).equal


def test_what_retention_destroyed_is_named_and_the_rest_still_proven(table: Any, warehouse: Any) -> None:
    made = table("history_destroyed", KEYED, layout=DAILY, load=HISTORY)
    first = made.deliver(text({"a": 1, "b": 1}), "2026-01-01.csv")
    made.deliver(text({"a": 2, "b": 1}), "2026-02-01.csv")
    place_of(warehouse.archive, first.sha256).unlink()
    with warehouse.connect(Role.LOADER) as connection:
        connection.execute("update ops.archived set destroyed_at = now(), destroyed_by = 'x' where sha256 = %s", (first.sha256,))
        connection.commit()
    result = rebuild(warehouse, made.contract)
    assert result.equal
    assert [item["delivery"] for item in result.destroyed] == [first.delivery]
    assert result.rows == 1


def test_rejected_rows_come_back_on_the_day_of_their_snapshot(table: Any, warehouse: Any) -> None:
    from tests.integration.test_nothing_lost import allow, mended

    listed = [KEYED[0] | {"logicalTypeOptions": {"pattern": "^[ab]$"}}, KEYED[1]]
    made = table("history_replayed", listed, layout=DAILY, load=HISTORY)
    made.deliver(text({"a": 1, "c": 1}), "2026-01-01.csv")
    made.deliver(text({"a": 1, "b": 1, "c": 2}), "2026-02-01.csv")
    mended(made, allow("a", "b", "c"))
    assert replay(warehouse, made.contract, why="c is an office").rows_loaded == 1
    january, february = date(2026, 1, 1), date(2026, 2, 1)
    assert believed(made) == [("a", 1, january, None), ("b", 1, february, None), ("c", 2, february, None)]
    assert replay(warehouse, made.contract, why="c was one before").rows_loaded == 1
    assert believed(made)[2:] == [("c", 1, january, february), ("c", 2, february, None)]
    with warehouse.connect() as connection:
        assert table_facts(connection, made.contract).reconciled
    assert rebuild(warehouse, made.contract).equal


def test_the_same_snapshot_again_is_unchanged_and_of_another_day_is_not(table: Any) -> None:
    made = table("history_same", KEYED, layout=DAILY, load=HISTORY)
    made.deliver(text({"a": 1}), "2026-01-01.csv")
    assert made.deliver(text({"a": 1}), "2026-01-01_again.csv").status == "unchanged"
    third = made.deliver(text({"a": 1}), "2026-03-01.csv")
    assert (third.status, third.rows_loaded, third.notes["difference"]["same"]) == ("loaded", 1, 1)
    # Without the snapshot of March, February's would hold until now.
    made.deliver(text({"a": 2}), "2026-02-01.csv")
    assert [row[1] for row in believed(made)] == [1, 2, 1]


def test_a_file_must_say_its_day(table: Any, tmp_path: Path) -> None:
    made = table("history_nameless", KEYED, layout=DAILY, load=HISTORY)
    refused = made.deliver(text({"a": 1}), "latest.csv")
    assert refused.status == "rejected"
    assert "does not state the day" in (refused.problem or "") and "--as-of" in (refused.problem or "")
    assert place_of(made.warehouse.archive, refused.sha256).is_file()
    made.deliver(text({"a": 1}), "latest.csv", as_of=date(2026, 1, 5))
    assert believed(made) == [("a", 1, date(2026, 1, 5), None)]


def test_a_snapshot_that_shrinks_too_much_is_refused_and_leaves_the_history(table: Any) -> None:
    made = table("history_shrunk", KEYED, layout=DAILY, load={"mode": "history"})
    made.deliver(text({f"k{number}": 1 for number in range(100)}), "2026-01-01.csv")
    before = made.query("select count(*) from {t}")
    refused = made.deliver(text({"k1": 1}), "2026-02-01.csv")
    assert refused.status == "rejected"
    assert "--accept-shrink" in (refused.problem or "")
    assert made.query("select count(*) from {t}") == before
    assert made.deliver(text({"k1": 1}), "2026-02-01.csv", accept_shrink=True).status == "loaded"


def test_waiting_snapshots_are_taken_in_the_order_of_their_days(table: Any, warehouse: Any, tmp_path: Path) -> None:
    made = table("history_waiting", KEYED, layout=DAILY, load=HISTORY)
    folder = tmp_path / "drop" / "testing" / "history_waiting"
    folder.mkdir(parents=True)
    (folder / "b_2026-01-01.csv").write_text(text({"a": 1}))
    (folder / "a_2026-02-01.csv").write_text(text({"a": 1}))
    with warehouse.connect() as connection:
        found = arrivals(connection, made.contract, tmp_path / "drop")
        assert [(item.path.name, item.pending) for item in found] == [("b_2026-01-01.csv", True), ("a_2026-02-01.csv", True)]
    for item in found:
        ingest(warehouse, made.contract, item.path)
    with warehouse.connect() as connection:
        assert not any(item.pending for item in arrivals(connection, made.contract, tmp_path / "drop"))


def test_a_table_of_another_mode_gains_a_history_and_never_loses_it(table: Any, warehouse: Any, make_contract: Any) -> None:
    made = table("history_gained", KEYED)
    made.deliver(text({"a": 1, "b": 1}), "first.csv", as_of=date(2026, 1, 1))
    plain = made.contract
    made.contract = make_contract("history_gained", KEYED, layout=DAILY, load=HISTORY, version="2.0.0")
    made.deliver(text({"a": 2, "b": 1}), "2026-02-01.csv")
    january, february = date(2026, 1, 1), date(2026, 2, 1)
    assert believed(made) == [("a", 1, january, february), ("a", 2, february, None), ("b", 1, january, None)]
    with warehouse.connect() as connection:
        assert table_facts(connection, made.contract).reconciled
    make_contract("history_gained", KEYED)
    made.contract = read_contract(plain.path)
    with pytest.raises(UserError, match="keeps a history"):
        made.deliver(text({"a": 3}), "third.csv")


def test_a_contract_with_history_needs_a_key_and_a_day(make_contract: Any) -> None:
    with pytest.raises(DocumentError, match="primary key"):
        make_contract("history_no_key", [{"name": "k"}], layout=DAILY, load={"mode": "history"})
    with pytest.raises(DocumentError, match="needs the server's customProperty period"):
        make_contract("history_no_day", KEYED, load={"mode": "history"})


def test_a_key_twice_in_one_snapshot_is_a_duplicate(table: Any) -> None:
    made = table("history_twice", KEYED, layout=DAILY, load=HISTORY)
    first = made.deliver("k,v\na,1\na,2\nb,1\n", "2026-01-01.csv")
    second = made.deliver("k,v\na,1\nb,2\nb,3\n", "2026-02-01.csv")
    assert first.reasons == second.reasons == {"duplicate_key": 1}
    assert [row[:2] for row in believed(made)] == [("a", 1), ("b", 1), ("b", 2)]


def test_a_snapshot_of_a_day_to_come_is_refused(table: Any) -> None:
    made = table("history_future", KEYED, layout=DAILY, load=HISTORY)
    refused = made.deliver(text({"a": 1}), "2199-01-01.csv")
    assert (refused.status, "after the day of its delivery" in (refused.problem or "")) == ("rejected", True)
    assert made.deliver(text({"a": 1}), "2199-01-01.csv", as_of=date(2199, 1, 2)).status == "loaded"


def test_a_refused_day_waits_though_a_later_day_of_its_month_came(table: Any, warehouse: Any, tmp_path: Path) -> None:
    from tests.integration.test_nothing_lost import rest

    made = table("history_refused_day", KEYED, layout=DAILY, load=HISTORY | {"maxRejectedPercent": 5})
    made.folder = tmp_path / "drop" / "testing" / "history_refused_day"
    made.folder.mkdir(parents=True)
    assert made.deliver("k,v\na,x\n", "2026-01-05.csv").status == "rejected"
    assert made.deliver("k,v\na,1\n", "2026-01-06.csv").status == "loaded"
    rest(made.folder)
    with warehouse.connect() as connection:
        found = arrivals(connection, made.contract, tmp_path / "drop")
    assert [(item.path.name, item.pending) for item in found] == [("2026-01-05.csv", True), ("2026-01-06.csv", False)]


def test_columns_may_be_called_what_the_difference_calls_its_own(table: Any, warehouse: Any) -> None:
    names = ["place", "closed", "replaces", "said", "before", "t", "i"]
    made = table("history_names", [KEYED[0], *({"name": name} for name in names)], layout=DAILY, load=HISTORY)
    header = ",".join(["k", *names])
    made.deliver(f"{header}\na,1,1,1,1,1,1,1\nb,1,1,1,1,1,1,1\n", "2026-01-01.csv")
    made.deliver(f"{header}\na,2,1,1,1,1,1,1\n", "2026-02-01.csv")
    days = [date(2026, 1, 1), date(2026, 2, 1), None]
    assert made.query("select k, place, _valid_from, _valid_to from {t} where _superseded_by is null order by 1, 2") == [
        ("a", "1", days[0], days[1]), ("a", "2", days[1], None), ("b", "1", days[0], days[1]),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_what_came_before_the_history_is_a_part_of_it(table: Any, warehouse: Any, make_contract: Any, mode: str) -> None:
    name = f"history_after_{mode}"
    made = table(name, KEYED, load={"mode": mode})
    made.deliver(text({"a": 1, "b": 1, "c": 1}), "first.csv", as_of=date(2026, 1, 1))
    made.deliver(text({"c": 2}), "second.csv", as_of=date(2026, 1, 5))
    made.contract = make_contract(name, KEYED, layout=DAILY, load=HISTORY, version="2.0.0")
    made.deliver(text({"a": 1, "c": 3}), "2026-02-01.csv")
    january, second, february = date(2026, 1, 1), date(2026, 1, 5), date(2026, 2, 1)
    before = [("a", 1, january, None), ("b", 1, january, february)] if mode == "append" else [("a", 1, february, None)]
    assert believed(made) == [*before, ("c", 2, second, february), ("c", 3, february, None)]
    with warehouse.connect() as connection:
        assert table_facts(connection, made.contract).reconciled
    assert rebuild(warehouse, made.contract).equal


def test_a_key_may_become_wider_and_not_one_that_the_rows_do_not_have(table: Any, warehouse: Any, make_contract: Any) -> None:
    part = {"name": "m", "required": True}
    wide = [KEYED[0], part | {"primaryKey": True, "primaryKeyPosition": 2}, KEYED[1]]
    made = table("history_wider", [KEYED[0], part, KEYED[1]], layout=DAILY, load=HISTORY)
    made.deliver("k,m,v\na,1,1\n", "2026-01-01.csv")
    made.contract = make_contract("history_wider", wide, layout=DAILY, load=HISTORY, version="2.0.0")
    assert made.deliver("k,m,v\na,1,1\na,2,1\na,3,1\n", "2026-02-01.csv").rows_loaded == 3
    assert rebuild(warehouse, made.contract).equal
    make_contract("history_wider", [KEYED[0], part, KEYED[1]], layout=DAILY, load=HISTORY, version="3.0.0")
    made.contract = read_contract(made.contract.path)
    with pytest.raises(UserError, match="the key cannot become k"):
        made.deliver("k,m,v\na,1,1\n", "2026-03-01.csv")


def test_rows_without_a_key_are_rebuilt_after_it_is_required(table: Any, warehouse: Any, make_contract: Any) -> None:
    loose = [{"name": "k", "primaryKey": True, "primaryKeyPosition": 1}, KEYED[1]]
    made = table("history_keyless", loose, layout=DAILY, load=HISTORY)
    made.deliver("k,v\na,1\n,1\n", "2026-01-01.csv")
    made.deliver("k,v\na,1\n,1\n", "2026-01-02.csv")
    assert made.query("select count(*) from {t}") == [(2,)]
    made.contract = make_contract("history_keyless", KEYED, layout=DAILY, load=HISTORY, version="2.0.0")
    made.deliver("k,v\na,1\n", "2026-01-03.csv")
    assert rebuild(warehouse, made.contract).equal
