"""Rejected rows come back, deliveries are kept, tables can be made again; whoever looks is written down."""

import json
import os
import stat
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import yaml

from dopa_pipelines.contracts import read_contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest import arrivals, ingest, replay
from dopa_pipelines.ingest.archive import place_of, restored
from dopa_pipelines.ingest.inspect import table_facts
from dopa_pipelines.ingest.quarantine import MASK, NUMBER, SHEET, export, patterns, rejected_rows
from dopa_pipelines.ingest.rebuild import rebuild
from dopa_pipelines.ingest.retention import end_retention
from dopa_pipelines.scratch import private_folder, sweep
from dopa_pipelines.warehouse import Role

KEYED = [
    {"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1},
    {"name": "v", "logicalType": "integer"},
]


def mended(made: Any, change: Any) -> Any:
    """The table's contract with its document changed."""
    document = yaml.safe_load(made.contract.path.read_text("utf-8"))
    change(document)
    made.contract.path.write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8")
    made.contract = read_contract(made.contract.path)
    return made.contract


def allow(*values: str) -> Any:
    def change(document: Any) -> None:
        document["schema"][0]["properties"][0]["logicalTypeOptions"] = {"pattern": f"^({'|'.join(values)})$"}

    return change


LISTED = [KEYED[0] | {"logicalTypeOptions": {"pattern": "^[ab]$"}}, KEYED[1]]


def test_after_a_contract_is_mended_replay_loads_what_passes_now(table: Any, warehouse: Any) -> None:
    made = table("replayed", LISTED)
    first = made.deliver("k,v\na,1\nc,2\nd,x\n")
    assert (first.rows_loaded, first.rows_quarantined) == (1, 2)
    mended(made, allow("a", "b", "c", "d"))
    result = replay(warehouse, made.contract, why="c and d are new offices")
    assert (result.rows_read, result.rows_loaded, result.rows_quarantined) == (2, 1, 1)
    assert result.reasons == {"bad_number": 1}
    assert made.rows() == [("a", 1), ("c", 2)]
    ((who, why, replayed, read, loaded),) = made.query(
        f"select requested_by, why, replayed, rows_read, rows_loaded from ops.delivery where id = {result.delivery}"
    )
    assert (why, replayed, read, loaded) == ("c and d are new offices", True, 1, 1)
    assert who
    assert made.query("select row, replayed_by from quarantine.{d} order by row") == [(3, result.delivery), (4, None)]
    with warehouse.connect() as connection:
        assert table_facts(connection, made.contract).reconciled
    assert made.query("select count(*) from lineage.write where target = '{t}'") == [(2,)]
    with pytest.raises(UserError, match="no rejected row waits"):
        replay(warehouse, made.contract, why="again", delivery=-1)
    again = replay(warehouse, made.contract, why="again")
    assert (again.delivery, again.rows_loaded) == (None, 0)


def test_a_replay_never_replaces_what_came_later(table: Any, warehouse: Any) -> None:
    made = table("replayed_late", LISTED, load={"mode": "append"})
    made.deliver("k,v\na,1\nc,2\n")
    mended(made, allow("a", "b", "c"))
    made.deliver("k,v\nc,9\n", "later.csv")
    result = replay(warehouse, made.contract, why="c is new")
    assert (result.rows_loaded, result.reasons) == (0, {"duplicate_key": 1})
    assert made.rows() == [("a", 1), ("c", 9)]


def test_rows_of_a_replaced_delivery_are_left_alone(table: Any, warehouse: Any) -> None:
    made = table("replayed_gone", LISTED)
    made.deliver("k,v\na,1\nc,2\n")
    made.deliver("k,v\nb,1\n", "later.csv")
    mended(made, allow("a", "b", "c"))
    with pytest.raises(UserError, match="no rejected row waits"):
        replay(warehouse, made.contract, why="c is new")


def test_a_reference_that_came_late_lets_its_rows_in(table: Any, warehouse: Any) -> None:
    area = table("late_area", [KEYED[0]], load={"mode": "append"})
    area.deliver("k\n10\n")
    made = table("late_reference", [*KEYED, {"name": "area", "relationships": [{"type": "foreignKey", "to": "late_area.k"}]}])
    assert made.deliver("k,v,area\na,1,10\nb,2,11\n").reasons == {"unknown_reference": 1}
    area.deliver("k\n11\n", "more.csv")
    assert replay(warehouse, made.contract, why="area 11 was delivered").rows_loaded == 1
    assert made.rows() == [("a", 1, "10"), ("b", 2, "11")]


PERSONAL = [
    {"name": "pid", "physicalName": "เลขประจำตัวประชาชน", "parse": "citizen_number", "required": True, "primaryKey": True,
     "primaryKeyPosition": 1, "classification": "personal", "pdpaRole": "direct_identifier"},
    {"name": "v", "logicalType": "integer"},
]  # fmt: skip


def test_a_corrected_workbook_comes_back_as_a_delivery(table: Any, warehouse: Any, tmp_path: Path) -> None:
    made = table("corrected", PERSONAL)
    made.deliver("เลขประจำตัวประชาชน,v\n1234567890121,1\n1234567890123,2\n=1+1,3\n")
    path = tmp_path / "rejected.xlsx"
    with warehouse.connect(Role.CUSTODIAN) as connection:
        assert export(connection, made.contract, path) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    book = openpyxl.load_workbook(path)
    sheet = book[SHEET]
    header = [cell.value for cell in sheet[1]]
    rows = [dict(zip(header, (cell.value for cell in row), strict=True)) for row in sheet.iter_rows(min_row=2)]
    assert [row["แถว"] for row in rows] == [3, 4]
    assert "เลขประจำตัวประชาชนไม่ถูกต้อง" in rows[0]["เหตุผล"]
    assert rows[1]["เลขประจำตัวประชาชน"] == "=1+1"
    assert sheet.cell(3, header.index("เลขประจำตัวประชาชน") + 1).data_type == "s"
    sheet.cell(2, header.index("เลขประจำตัวประชาชน") + 1).value = "1234567890139"
    book.save(path)
    result = ingest(warehouse, made.contract, path)
    assert (result.status, result.rows_read, result.rows_loaded, result.rows_quarantined) == ("loaded", 2, 1, 1)
    assert made.rows() == [("1234567890121", 1), ("1234567890139", 2)]
    assert rebuild(warehouse, made.contract).equal
    assert place_of(warehouse.archive, result.sha256).is_file()
    sheet.cell(2, header.index(NUMBER) + 1).value = "x"
    book.save(path)
    refused = ingest(warehouse, made.contract, path)
    assert refused.status == "rejected"
    assert "row 2 has no quarantine_id" in (refused.problem or "")


def test_personal_values_are_masked_in_every_answer(table: Any, warehouse: Any) -> None:
    made = table("masked_answers", PERSONAL)
    made.deliver("เลขประจำตัวประชาชน,v\n1234567890121,1\n1234567890123,x\n")
    with warehouse.connect(Role.CUSTODIAN) as connection:
        (row,) = rejected_rows(connection, made.contract)
        found = {(item.code, item.column): item.example for item in patterns(connection, made.contract)}
    assert (row.original, row.fields) == (None, {"pid": MASK, "v": "x"})
    assert found == {("bad_check_digit", "pid"): MASK, ("bad_number", "v"): "x"}


def test_only_the_custodian_and_the_loader_see_the_quarantine(table: Any, warehouse: Any) -> None:
    import psycopg

    made = table("guarded", LISTED)
    made.deliver("k,v\na,1\nc,2\n")
    for role in (Role.READER, Role.TRANSFORMER):
        with warehouse.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select * from quarantine.guarded")
    with warehouse.connect(Role.CUSTODIAN) as connection:
        assert connection.execute("select count(*) from quarantine.guarded").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from quarantine.guarded")
    with warehouse.connect(Role.CUSTODIAN) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("delete from ops.access_log")


def test_deliveries_are_kept_as_they_came_and_only_for_their_owner(table: Any, warehouse: Any, tmp_path: Path) -> None:
    made = table("archived", KEYED)
    text = "k,v\na,1\n" * 1
    delivery = made.deliver(text)
    refused = made.deliver("k,v\n", "empty.csv")
    assert refused.status == "rejected"
    for item, content in ((delivery, text), (refused, "k,v\n")):
        place = place_of(warehouse.archive, item.sha256)
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(warehouse.archive.stat().st_mode) == 0o700
        with restored(warehouse.archive, item.sha256, item.file, tmp_path) as path:
            assert path.read_text("utf-8") == content
        assert not list(tmp_path.glob("restored-*"))
    assert not list((warehouse.archive / ".incoming").iterdir())


MONTHLY = [
    {"name": "day", "logicalType": "date", "required": True, "primaryKey": True, "primaryKeyPosition": 1},
    {"name": "province", "required": True, "primaryKey": True, "primaryKeyPosition": 2},
    {"name": "v", "logicalType": "integer"},
]


@pytest.mark.parametrize(
    "load",
    [
        {"mode": "replace"},
        {"mode": "append"},
        {"mode": "replace_scope", "scope": [{"column": "day", "granularity": "month"}, {"column": "province"}]},
    ],
    ids=lambda load: load["mode"],
)
def test_a_table_rebuilt_from_the_archive_is_equal(table: Any, warehouse: Any, load: dict[str, Any]) -> None:
    made = table(f"rebuilt_{load['mode']}", MONTHLY, load=load | {"duplicates": "last", "maxShrinkPercent": 100})
    made.deliver("day,province,v\n2025-11-01,10,1\n2025-11-02,10,2\n2025-11-02,10,3\n2025-11-01,11,x\n2025-12-01,10,5\n")
    made.deliver("day,province,v\n2025-11-01,10,7\n2025-11-30,10,8\n", "b.csv")
    made.deliver("day,province,v\n2025-12-01,10,6\n2026-01-01,12,9\n", "c.csv")
    result = rebuild(warehouse, made.contract)
    assert (result.equal, result.rows) == (True, len(made.rows()))
    before = made.rows()
    with warehouse.connect() as connection:
        connection.execute(f"update {made.contract.table} set v = 100 where v = 9")
        connection.commit()
    result = rebuild(warehouse, made.contract)
    assert (result.equal, result.missing, result.extra) == (False, 1, 1)
    assert rebuild(warehouse, made.contract, apply=True).applied
    assert (made.rows(), rebuild(warehouse, made.contract).equal) == (before, True)


def test_rebuild_takes_the_contracts_and_decisions_of_then(table: Any, warehouse: Any) -> None:
    area = table("then_area", [KEYED[0]], load={"mode": "append"})
    area.deliver("k\n10\n")
    columns = [*LISTED, {"name": "area", "relationships": [{"type": "foreignKey", "to": "then_area.k"}]}]
    made = table("then", columns, load={"mode": "append"})
    made.deliver("k,v,area\na,1,10\nb,2,11\nc,3,10\n")
    area.deliver("k\n11\n", "more.csv")
    mended(made, allow("a", "b", "c", "d"))
    made.deliver("k,v,area\nd,4,11\n", "b.csv")
    replay(warehouse, made.contract, why="c is new, area 11 is known")
    assert made.rows() == [("a", 1, "10"), ("b", 2, "11"), ("c", 3, "10"), ("d", 4, "11")]
    result = rebuild(warehouse, made.contract)
    assert (result.equal, result.rows, len(result.deliveries)) == (True, 4, 3)


def test_what_retention_destroyed_is_named_and_anything_else_missing_is_an_error(table: Any, warehouse: Any) -> None:
    made = table("destroyed", KEYED, load={"mode": "append"})
    first = made.deliver("k,v\na,1\n")
    made.deliver("k,v\nb,2\n", "b.csv")
    place_of(warehouse.archive, first.sha256).unlink()
    with pytest.raises(UserError, match="restore archive/"):
        rebuild(warehouse, made.contract)
    with warehouse.connect() as connection:
        connection.execute(
            "update ops.archived set destroyed_at = now(), destroyed_by = 'x', why = 'retention of 1 year' where sha256 = %s",
            (first.sha256,),
        )
        connection.commit()
    result = rebuild(warehouse, made.contract)
    assert result.equal
    assert [(item["delivery"], item["why"]) for item in result.destroyed] == [(first.delivery, "retention of 1 year")]


def test_a_damaged_archive_is_found(table: Any, warehouse: Any) -> None:
    made = table("damaged", KEYED)
    delivery = made.deliver("k,v\na,1\n")
    other = made.deliver("k,v\nb,1\n", "b.csv")
    place = place_of(warehouse.archive, other.sha256)
    place.write_bytes(place_of(warehouse.archive, delivery.sha256).read_bytes())
    with pytest.raises(UserError, match="damaged or changed by hand"):
        rebuild(warehouse, made.contract)


def test_reading_the_archive_is_logged(table: Any, warehouse: Any) -> None:
    made = table("logged", KEYED)
    made.deliver("k,v\na,1\n")
    rebuild(warehouse, made.contract)
    (row,) = made.query("select who, action, detail from ops.access_log where subject = '{t}'")
    assert (bool(row[0]), row[1], json.loads(json.dumps(row[2]))) == (True, "archive read", {"for": "rebuild"})


def test_a_delivery_that_changes_while_it_is_read_is_refused(table: Any, warehouse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = table("changing", KEYED)
    from dopa_pipelines.ingest import load

    path = made.folder / "delivery.csv"
    settle = load.settle_references

    def written_to(*arguments: Any) -> Any:
        path.write_text("k,v\na,1\nb,2\n", "utf-8")
        return settle(*arguments)

    monkeypatch.setattr(load, "settle_references", written_to)
    refused = made.deliver("k,v\na,1\n")
    assert (refused.status, "changed while it was read" in (refused.problem or "")) == ("rejected", True)
    assert made.query("select to_regclass('{t}')") == [(None,)]


def test_a_correction_in_the_drop_zone_is_tried_once(table: Any, warehouse: Any, tmp_path: Path) -> None:
    made = table("dropped_correction", PERSONAL)
    folder = tmp_path / "drop" / "testing" / "dropped_correction"
    folder.mkdir(parents=True)
    made.folder = folder
    made.deliver("เลขประจำตัวประชาชน,v\n1234567890121,1\n1234567890123,2\n", "first.csv")
    back = folder / "ส่งคืน.xlsx"
    with warehouse.connect(Role.CUSTODIAN) as connection:
        export(connection, made.contract, back)

    def waiting() -> list[str]:
        with warehouse.connect() as connection:
            found = arrivals(connection, made.contract, tmp_path / "drop")
        return [item.path.name for item in found if item.pending]

    rest(folder)
    assert waiting() == ["ส่งคืน.xlsx"]
    unchanged = ingest(warehouse, made.contract, back)
    assert (unchanged.status, unchanged.reasons) == ("rejected", {"bad_check_digit": 1})
    assert waiting() == []
    book = openpyxl.load_workbook(back)
    sheet = book[SHEET]
    column = [cell.value for cell in sheet[1]].index("เลขประจำตัวประชาชน") + 1
    sheet.cell(2, column).value = "1234567890139"
    book.save(back)
    rest(folder)
    assert waiting() == ["ส่งคืน.xlsx"]
    assert ingest(warehouse, made.contract, back).rows_loaded == 1
    assert waiting() == []
    assert made.rows() == [("1234567890121", 1), ("1234567890139", 2)]
    again = ingest(warehouse, made.contract, back)
    assert again.status == "rejected"
    assert "replayed already" in (again.problem or "")


def test_corrections_outlive_a_change_of_the_contract(table: Any, warehouse: Any, tmp_path: Path) -> None:
    listed = [KEYED[0] | {"logicalTypeOptions": {"pattern": "^[abc]$"}}, KEYED[1]]
    made = table("corrected_again", listed)
    made.deliver("k,v\na,1\nb,x\nc,y\nd,4\n")
    back = tmp_path / "back.xlsx"
    with warehouse.connect(Role.CUSTODIAN) as connection:
        export(connection, made.contract, back)
    book = openpyxl.load_workbook(back)
    sheet = book[SHEET]
    sheet.cell(2, [cell.value for cell in sheet[1]].index("v") + 1).value = "2"
    book.save(back)
    assert ingest(warehouse, made.contract, back).rows_loaded == 1
    assert made.rows() == [("a", 1), ("b", 2)]
    mended(made, allow("a", "b", "c", "d"))
    done = made.deliver("k,v\na,1\nb,x\nc,y\nd,4\n")
    assert (done.status, done.rows_loaded, done.notes["corrected_again"]) == ("loaded", 2, 1)
    assert made.rows() == [("a", 1), ("b", 2), ("d", 4)]
    assert rebuild(warehouse, made.contract).equal
    with warehouse.connect() as connection:
        assert table_facts(connection, made.contract).reconciled
    # A correction that the contract no longer allows stays in the quarantine.
    mended(made, allow("a", "c"))
    assert made.deliver("k,v\na,1\nb,x\nc,y\nd,4\n", accept_shrink=True).status == "loaded"
    assert made.rows() == [("a", 1)]
    assert made.query("select count(*) from ops.delivery where file like 'corrections of%' and dataset = '{d}'") == [(1,)]
    with warehouse.connect() as connection:
        assert table_facts(connection, made.contract).reconciled


def test_of_a_link_nothing_is_kept(table: Any, warehouse: Any, tmp_path: Path) -> None:
    made = table("linked", KEYED)
    secret = tmp_path / "secret"
    secret.write_text("k,v\nsomebody else's,1\n")
    (tmp_path / "link.csv").symlink_to(secret)
    done = ingest(warehouse, made.contract, tmp_path / "link.csv")
    assert (done.status, "is a symbolic link" in (done.problem or "")) == ("rejected", True)
    assert not place_of(warehouse.archive, done.sha256).exists()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "gone.csv").symlink_to(tmp_path / "nowhere")
    done = ingest(warehouse, made.contract, folder)
    assert (done.status, "is a symbolic link" in (done.problem or "")) == ("rejected", True)


def rest(folder: Path) -> None:
    """As if everything in a folder had come a minute ago."""
    for path in folder.iterdir():
        os.utime(path, (time.time() - 60, time.time() - 60))


def test_what_is_still_being_written_is_not_taken(table: Any, warehouse: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys.modules["dopa_pipelines.ingest.arrivals"], "LONGEST_WAIT_SECONDS", 0.3)
    made = table("being_written", KEYED, load={"mode": "append"})
    folder = tmp_path / "drop" / "testing" / "being_written"
    folder.mkdir(parents=True)
    for name in ("whole.csv", "marked.csv", "growing.csv", "sent.csv.part", ".hidden.csv"):
        (folder / name).write_text("k,v\na,1\n")
    rest(folder)
    several = folder / "several"
    several.mkdir()
    (several / "one.csv").write_text("k,v\nb,1\n")
    rest(several)
    os.utime(several, (time.time() - 60, time.time() - 60))
    (folder / "growing.csv").write_text("k,v\na,1\nb,")
    (folder / "marked.csv").write_text("k,v\nc,1\n")
    (folder / "marked.csv.done").write_text("")
    with warehouse.connect() as connection:
        found = [item.path.name for item in arrivals(connection, made.contract, tmp_path / "drop")]
    assert found == ["marked.csv", "several", "whole.csv"]
    rest(folder)
    with warehouse.connect() as connection:
        found = [item.path.name for item in arrivals(connection, made.contract, tmp_path / "drop")]
    assert found == ["growing.csv", "marked.csv", "several", "whole.csv"]


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_stays(tmp_path: Path) -> None:
    left = tmp_path / "unpacked-x"
    left.mkdir()
    (left / "000001").write_text("personal")
    (tmp_path / "piece").write_text("personal")
    rest(tmp_path)
    with private_folder(tmp_path, "unpacked") as used:
        assert stat.S_IMODE(used.stat().st_mode) == 0o700
        assert not left.exists()
        assert not (tmp_path / "piece").exists()
        os.utime(used, (1, 1))
        assert sweep(tmp_path) == []
        assert used.exists()
    assert list(tmp_path.iterdir()) == []


def test_retention_destroys_what_no_contract_keeps_and_says_so(table: Any, warehouse: Any) -> None:
    made = table("kept_a_year", KEYED, load={"mode": "append"})
    made.contract = mended(
        made, lambda document: document.update(slaProperties=[{"property": "retention", "value": 1, "unit": "y"}])
    )
    old = made.deliver("k,v\na,1\nb,x\n", "old.csv")
    new = made.deliver("k,v\nc,1\nd,y\n", "new.csv")
    shared = made.deliver("k,v\ne,1\n", "shared.csv")
    forever = table("kept_for_ever", KEYED, load={"mode": "append"})
    forever.deliver("k,v\ne,1\n", "shared.csv")
    with warehouse.connect(Role.LOADER) as connection:
        connection.execute(
            "update ops.delivery set received_at = received_at - interval '2 years' where id = any(%s)",
            ([old.delivery, shared.delivery],),
        )
        connection.commit()
    contracts = [made.contract, forever.contract]
    seen = end_retention(warehouse, contracts, date.today())
    assert [item["files"] for item in seen.contents] == [["old.csv"]]
    assert seen.rejected_rows == {"kept_a_year": 1}
    assert place_of(warehouse.archive, old.sha256).is_file()
    assert end_retention(warehouse, contracts, date.today(), apply=True).applied
    assert not place_of(warehouse.archive, old.sha256).exists()
    assert place_of(warehouse.archive, new.sha256).is_file()
    assert place_of(warehouse.archive, shared.sha256).is_file()
    assert made.query("select original, fields, reasons from quarantine.{d} order by delivery_id") == [
        ("", None, [{"code": "bad_number", "column": "v"}]),
        ("d,y", {"k": "d", "v": "y"}, [{"code": "bad_number", "column": "v", "value": "y"}]),
    ]
    assert end_retention(warehouse, contracts, date.today()).contents == []
    result = rebuild(warehouse, made.contract)
    assert result.equal
    assert [item["file"] for item in result.destroyed] == ["old.csv"]
    with warehouse.connect() as connection:
        assert table_facts(connection, made.contract).reconciled
