"""Deliveries into a real PostgreSQL: modes, duplicates, references, refusals, migrations, kills."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest import arrivals, ingest
from dopa_pipelines.ingest.inspect import table_facts
from dopa_pipelines.ingest.quarantine import MASK, rejected_rows
from dopa_pipelines.quality.measure import measure
from dopa_pipelines.warehouse import Role, Warehouse
from tests.conftest import SAMPLE

ROOT = Path(__file__).resolve().parents[2]
KEYED = [
    {"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1},
    {"name": "v", "logicalType": "integer"},
]
MONTHLY = [
    {"name": "day", "logicalType": "date", "required": True, "primaryKey": True, "primaryKeyPosition": 1},
    {"name": "province", "required": True, "primaryKey": True, "primaryKeyPosition": 2},
    {"name": "v", "logicalType": "integer"},
]


def test_replace(table: Any) -> None:
    made = table("replaced", KEYED)
    first = made.deliver("k,v\na,1\nb,2\n")
    assert (first.status, first.rows_read, first.rows_loaded) == ("loaded", 2, 2)
    made.deliver("k,v\nb,3\nc,4\n")
    assert made.rows() == [("b", 3), ("c", 4)]


def test_the_content_in_force_changes_nothing(table: Any) -> None:
    made = table("same_again", KEYED)
    first = made.deliver("k,v\na,1\n")
    before = made.query("select xmin, ctid, * from {t}")
    again = made.deliver("k,v\na,1\n", "other_name.csv")
    assert (again.status, again.delivery) == ("unchanged", first.delivery)
    assert made.query("select xmin, ctid, * from {t}") == before
    assert made.query("select count(*) from ops.delivery where dataset = '{d}'") == [(1,)]


def test_an_earlier_and_a_recontracted_delivery_are_processed_again(table: Any, make_contract: Any) -> None:
    made = table("again", KEYED)
    made.deliver("k,v\na,1\n")
    made.deliver("k,v\na,2\n")
    assert made.deliver("k,v\na,1\n").status == "loaded"
    assert made.rows() == [("a", 1)]
    made.contract = make_contract("again", KEYED, version="1.1.0")
    assert made.deliver("k,v\na,1\n").status == "loaded"


def test_append_replaces_by_key_and_keeps_the_rest(table: Any) -> None:
    made = table("appended", KEYED, load={"mode": "append"})
    first = made.deliver("k,v\na,1\nb,2\n", "1.csv")
    made.deliver("k,v\nb,3\nc,4\n", "2.csv")
    assert made.rows() == [("a", 1), ("b", 3), ("c", 4)]
    held = made.query("select id, in_force, rows_held from ops.delivery where dataset = '{d}' order by id")
    assert held == [(first.delivery, False, 1), (held[1][0], True, 2)]


def test_a_file_for_one_province_and_month_never_touches_another(table: Any) -> None:
    scope = [{"column": "day", "granularity": "month"}, {"column": "province"}]
    made = table("scoped", MONTHLY, load={"mode": "replace_scope", "scope": scope})
    made.deliver("day,province,v\n2025-11-05,10,1\n2025-12-05,10,2\n2025-12-06,11,3\n2025-12-07,11,4\n")
    untouched = made.query(
        "select xmin, day, province, v from {t} where not (province = '11' and day >= '2025-12-01') order by 2, 3"
    )
    made.deliver("day,province,v\n2025-12-30,11,9\n")
    assert [row[1:] for row in made.query("select xmin, day::text, province, v from {t} order by 2, 3")] == [
        ("2025-11-05", "10", 1),
        ("2025-12-05", "10", 2),
        ("2025-12-30", "11", 9),
    ]
    assert made.query("select xmin, day, province, v from {t} where province = '10' order by 2, 3") == untouched


@pytest.mark.parametrize(
    ("keep", "loaded", "quarantined"),
    [("first", [("a", 1), ("b", 9)], [3]), ("last", [("a", 2), ("b", 9)], [2]), ("none", [("b", 9)], [2, 3])],
)
def test_of_duplicates_the_contract_says_which_stays(table: Any, keep: str, loaded: list[Any], quarantined: list[int]) -> None:
    made = table(f"keeps_{keep}", KEYED, load={"mode": "replace", "duplicates": keep})
    delivery = made.deliver("k,v\na,1\na,2\nb,9\n")
    assert made.rows() == loaded
    assert [row for (row,) in made.query("select row from quarantine.{d} order by row")] == quarantined
    assert delivery.reasons == {"duplicate_key": len(quarantined)}
    assert delivery.rows_read == delivery.rows_loaded + delivery.rows_quarantined


def test_references(table: Any) -> None:
    areas = table("areas", [{"name": "code", "primaryKey": True, "primaryKeyPosition": 1}])
    refer = {"relationships": [{"type": "foreignKey", "to": "areas.code"}]}
    columns = [{"name": "k"}, {"name": "area", **refer}, {"name": "village", "referenceLength": 6, **refer}]
    made = table("referring", columns)
    text = "k,area,village\na,110101,11010101\nb,999999,11010102\nc,,\nd,110101,99999901\n"
    early = made.deliver(text)
    assert early.notes["references_not_checked"] == ["area → areas.code", "village → areas.code"]
    areas.deliver("code\n110101\n")
    late = made.deliver(text + "e,110101,11010102\n")
    assert [row[0] for row in made.rows()] == ["a", "c", "e"]
    kept = made.query(f"select row, original, reasons from quarantine.{{d}} where delivery_id = {late.delivery} order by row")
    assert kept == [
        (3, "b,999999,11010102", [{"code": "unknown_reference", "column": "area", "value": "999999"}]),
        (5, "d,110101,99999901", [{"code": "unknown_reference", "column": "village", "value": "99999901"}]),
    ]


def test_a_rejected_row_keeps_its_text_and_reasons_and_shows_no_personal_value(table: Any) -> None:
    columns = [
        {"name": "pid", "parse": "citizen_number", "pdpaRole": "direct_identifier", "classification": "personal"},
        {"name": "v", "logicalType": "integer"},
    ]
    made = table("masked", columns)
    made.deliver("pid,v\n1234567890123,1\n1234567890121,x\n1234567890121,3\n")
    with made.warehouse.connect() as connection:
        hidden = list(rejected_rows(connection, made.contract))
        shown = list(rejected_rows(connection, made.contract, reveal=True))
    assert [(row.row, row.reasons[0]["code"], row.reasons[0]["value"], row.original) for row in hidden] == [
        (2, "bad_check_digit", MASK, None),
        (3, "bad_number", "x", None),
    ]
    assert [(row.reasons[0]["value"], row.original) for row in shown] == [
        ("1234567890123", "1234567890123,1"),
        ("x", "1234567890121,x"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k,w\na,1\n", "column missing: v"),
        ("k,v\n", "holds no rows"),
        ("k,v\n,1\n", "break the contract"),
        ("k,v\n" + "a,1\n" + "".join(f"x{n},?\n" for n in range(30)), "30 of 31 rows"),
    ],
)
def test_a_refused_delivery_is_recorded_and_loads_nothing(table: Any, text: str, words: str) -> None:
    made = table("refusing", KEYED)
    made.deliver("k,v\nkept,1\n")
    before = made.query("select xmin, * from {t}")
    writes = made.query("select count(*) from lineage.write where target = '{t}'")
    delivery = made.deliver(text, "bad.csv")
    assert delivery.status == "rejected"
    assert words in (delivery.problem or "")
    assert made.query("select xmin, * from {t}") == before
    assert made.query("select count(*) from lineage.write where target = '{t}'") == writes
    record = made.query(f"select status, rows_loaded, problem from ops.delivery where id = {delivery.delivery}")
    assert record == [("rejected", 0, delivery.problem)]


def test_a_delivery_that_loses_most_rows_is_refused_unless_it_is_meant(table: Any) -> None:
    made = table("shrinking", KEYED)
    made.deliver("k,v\n" + "".join(f"k{n},1\n" for n in range(100)))
    small = "k,v\n" + "".join(f"k{n},2\n" for n in range(30))
    assert made.deliver(small).status == "rejected"
    assert len(made.rows()) == 100
    assert made.deliver(small, accept_shrink=True).status == "loaded"
    assert len(made.rows()) == 30


def test_lineage_commits_with_the_rows(table: Any) -> None:
    made = table("traced", KEYED)
    delivery = made.deliver("k,v\na,1\n")
    ((xmin, transaction, feed, rows, user),) = made.query(
        "select t.xmin::text, w.transaction_id::text, w.inputs -> 0 ->> 'name', w.rows_out, w.written_by"
        f" from {{t}} t, lineage.write w where w.id = {delivery.write}"
    )
    assert (xmin, feed, rows) == (transaction, "testing/traced", 1)
    assert "loader" in user


def test_the_database_itself_refuses_lost_rows(table: Any) -> None:
    made = table("constrained", KEYED)
    delivery = made.deliver("k,v\na,1\n")
    with made.warehouse.connect() as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("update ops.delivery set rows_loaded = 0 where id = %s", (delivery.delivery,))


@pytest.mark.parametrize(
    "harm", ["delete from {t} where k = 'a'", "insert into {t} values ('z', 1, {id}, 9)", "delete from quarantine.{d}"]
)
def test_reconciliation_finds_what_was_done_by_hand(table: Any, harm: str) -> None:
    made = table(f"harmed_{abs(hash(harm)) % 10_000}", KEYED)
    delivery = made.deliver("k,v\na,1\nb,2\nc,x\n")
    with made.warehouse.connect() as connection:
        facts = table_facts(connection, made.contract)
        assert (facts.reconciled, facts.rows, facts.rows_recorded) == (True, 2, 2)
        connection.execute(harm.format(t=made.contract.table, d=made.contract.dataset, id=delivery.delivery).encode())
        assert table_facts(connection, made.contract).reconciled is False
        connection.rollback()


def test_a_contract_gains_renames_and_retypes_columns(table: Any, make_contract: Any, warehouse: Warehouse) -> None:
    made = table("growing", KEYED)
    made.deliver("k,v\na,1\n")
    with warehouse.connect(Role.TRANSFORMER) as connection:
        connection.execute("create view staging.stg_growing as select k, v from raw.growing")
    grown = [KEYED[0], {"name": "amount", "renamedFrom": "v", "logicalType": "integer", "physicalType": "bigint"}, {"name": "w"}]
    made.contract = make_contract("growing", grown, version="2.0.0")
    delivery = made.deliver("k,amount,w\na,5000000000,x\n")
    assert made.rows() == [("a", 5_000_000_000, "x")]
    assert delivery.notes["table_changed"] == ["renamed v to amount", "added w text", "retyped amount from integer to bigint"]
    assert delivery.notes["views_dropped"] == ["staging.stg_growing"]
    ((changes,),) = made.query("select detail -> 'changes' from lineage.write where target = '{t}' and kind = 'migration'")
    assert changes == delivery.notes["table_changed"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([KEYED[0]], "has the column v that the contract no longer names"),
        ([KEYED[0] | {"logicalType": "integer"}, KEYED[1]], "k cannot change from text to integer"),
    ],
)
def test_what_would_lose_data_is_refused_in_a_sentence(table: Any, make_contract: Any, columns: Any, words: str) -> None:
    made = table("stubborn", KEYED)
    made.deliver("k,v\nabc,1\n")
    before = made.rows()
    contract = made.contract
    made.contract = make_contract("stubborn", columns, version="2.0.0")
    with pytest.raises(UserError, match=words):
        made.deliver("k,v\n1,1\n")
    made.contract = contract
    assert made.rows() == before


def test_exact_decimals_and_times(table: Any) -> None:
    columns = [
        {"name": "n", "logicalType": "number", "physicalType": "numeric"},
        {"name": "t", "logicalType": "timestamp", "physicalType": "timestamptz"},
        {"name": "b", "logicalType": "boolean"},
        {"name": "f", "logicalType": "number"},
    ]
    made = table("typed", columns)
    made.deliver("n,t,b,f\n12345678901234567.89,2025-01-01 07:00:00,ใช่,0.5\n")
    assert made.query("select n::text, t at time zone 'utc' = '2025-01-01 00:00:00', b, f from {t}") == [
        ("12345678901234567.89", True, True, 0.5)
    ]


def test_a_table_rule_counts(table: Any) -> None:
    rule = {"type": "sql", "name": "no_negative", "query": "select count(*) from {table} where v < 0", "mustBe": 0}
    made = table("ruled", KEYED, quality=[rule])
    made.deliver("k,v\na,-1\nb,-2\nc,3\n")
    with made.warehouse.connect() as connection:
        (outcome,) = measure(connection, made.contract, made.contract.table_rules)
    assert outcome.result is not None
    assert (outcome.result.passed, outcome.result.rows_failed) == (False, 2)


def test_two_deliveries_of_one_dataset_queue(table: Any) -> None:
    made = table("queued", KEYED, load={"mode": "append"})
    made.deliver("k,v\nz,0\n")
    text = "k,v\n" + "".join(f"k{n},{{}}\n" for n in range(2000))
    threads = [
        threading.Thread(target=made.deliver, args=(text.replace("{}", str(number)), f"{number}.csv")) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.query("select count(*), count(distinct v), count(distinct _delivery_id) from {t} where k <> 'z'") == [
        (2000, 1, 1)
    ]


def test_arrivals(table: Any, tmp_path: Path) -> None:
    made = table("arriving", KEYED, load={"mode": "append"}, layout={"period": r"_(?P<year>\d{4})-(?P<month>\d{2})"})
    zone = tmp_path / "drop"
    folder = zone / "testing" / "arriving"
    folder.mkdir(parents=True)
    for name in ("a_2568-12.csv", "a_2568-10.csv", ".half_2568-11.csv"):
        (folder / name).write_text(f"k,v\n{name},1\n", "utf-8")

    def waiting() -> list[tuple[str, bool]]:
        with made.warehouse.connect() as connection:
            return [(item.path.name, item.pending) for item in arrivals(connection, made.contract, zone)]

    assert waiting() == [("a_2568-10.csv", True), ("a_2568-12.csv", True)]
    ingest(made.warehouse, made.contract, folder / "a_2568-10.csv")
    assert waiting() == [("a_2568-10.csv", False), ("a_2568-12.csv", True)]
    (folder / "a_2568-12.csv").write_text("k,w\na,1\n", "utf-8")
    assert ingest(made.warehouse, made.contract, folder / "a_2568-12.csv").status == "rejected"
    assert waiting()[1] == ("a_2568-12.csv", True), "a refused delivery is not forgotten"
    (folder / "b_2568-12.csv").write_text("k,v\nnew,1\n", "utf-8")
    ingest(made.warehouse, made.contract, folder / "b_2568-12.csv")
    assert dict(waiting())["a_2568-12.csv"] is False, "until one for the same month was loaded"


_CHILD = """
import sys
from pathlib import Path
from dopa_pipelines.contracts import read_contract
from dopa_pipelines.ingest import ingest
from dopa_pipelines.settings import load_settings
from dopa_pipelines.warehouse import open_warehouse
with open_warehouse(load_settings()) as warehouse:
    print("ready", flush=True)
    print(ingest(warehouse, read_contract(Path(sys.argv[1])), Path(sys.argv[2])).status, flush=True)
"""


def test_killed_at_any_point_and_run_again_it_is_done_once(table: Any, environment: dict[str, str], tmp_path: Path) -> None:
    made = table("killed", KEYED)
    made.deliver("k,v\n" + "".join(f"k{n},0\n" for n in range(60_000)))
    both = "select count(*), sum(v), (select count(*) from quarantine.{d}) from {t}"
    before = made.query(both)
    path = tmp_path / "next.csv"
    path.write_text("k,v\n" + "".join(f"k{n},1\n" for n in range(60_000)) + "bad,x\n", "utf-8")
    command = [sys.executable, "-c", _CHILD, str(made.contract.path), str(path)]
    killed = 0
    for delay in (0.0, 0.02, 0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4):
        child = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        # One snapshot: what the server was already committing may still become visible after the kill, but only whole.
        found = made.query(both)
        assert found in (before, [(60_000, 60_000, 1)])
        if found != before:
            break
        killed += 1
    assert killed >= 3, "the kills came too late to prove anything"
    delivery = ingest(made.warehouse, made.contract, path)
    assert delivery.status in ("loaded", "unchanged")
    assert made.query(both) == [(60_000, 60_000, 1)]


@pytest.mark.skipif(not SAMPLE.exists(), reason="the department's sample file is not here")
def test_the_departments_own_file(warehouse: Warehouse) -> None:
    contract = load_contracts(ROOT / "assets").by_dataset["population_area"]
    delivery = ingest(warehouse, contract, SAMPLE)
    assert (delivery.status, delivery.rows_loaded, delivery.rows_quarantined) == ("loaded", 25, 0)
    with warehouse.connect() as connection:
        rows = connection.execute(
            "select office_code is null, sum(male), sum(female), sum(total), sum(houses) from raw.population_area group by 1"
        ).fetchall()
        assert sorted(rows) == [
            (False, 654_644, 729_280, 1_383_924, 792_409),
            (True, 654_644, 729_280, 1_383_924, 792_409),
        ]
        rules = [rule for rule in contract.table_rules if rule.kind == "total"]
        assert [outcome.result and outcome.result.rows_failed for outcome in measure(connection, contract, rules)] == [0, 0]
        month = connection.execute("select distinct month::text from raw.population_area").fetchall()
    assert month == [("2025-12-01",)]
