"""Rejected rows come back, deliveries are kept, tables can be made again; whoever looks is written down."""

import hashlib
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
    text = "k,v\na,1\n"
    # What a load that another test killed had begun to write goes with the first load a minute later.
    begun = set((warehouse.archive / ".incoming").glob("*"))
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
    assert set((warehouse.archive / ".incoming").glob("*")) <= begun


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


def waiting(warehouse: Any, dataset: str) -> int:
    from dopa_pipelines.ingest.quarantine import overview

    with warehouse.connect(Role.CUSTODIAN) as connection:
        return {name: count for name, count, _ in overview(connection)}[dataset]


def test_rejected_rows_wait_on_when_another_row_of_their_delivery_is_replaced(table: Any, warehouse: Any) -> None:
    made = table("waits_on", LISTED, load={"mode": "append"})
    made.deliver("k,v\na,1\nb,1\nc,2\n")
    made.deliver("k,v\na,9\n", "later.csv")
    assert waiting(warehouse, "waits_on") == 1
    # Delivered again under another contract, it does not wait twice.
    mended(made, lambda document: document.update(version="2.0.0"))
    made.deliver("k,v\na,1\nb,1\nc,2\n")
    assert waiting(warehouse, "waits_on") == 1
    mended(made, allow("a", "b", "c"))
    assert replay(warehouse, made.contract, why="c is an office").rows_loaded == 1
    assert made.rows() == [("a", 1), ("b", 1), ("c", 2)]
    assert waiting(warehouse, "waits_on") == 0


def test_a_replay_adds_nothing_to_a_month_that_came_again(table: Any, warehouse: Any) -> None:
    columns = [{"name": "m"}, KEYED[0] | {"logicalTypeOptions": {"pattern": "^[ab]"}}]
    made = table("scope_again", columns, load={"mode": "replace_scope", "scope": [{"column": "m"}], "maxRejectedPercent": 100})
    made.deliver("m,k\njan,a1\nfeb,a2\njan,c1\nfeb,c2\n")
    made.deliver("m,k\nfeb,b2\n", "feb.csv")
    mended(made, lambda document: document["schema"][0]["properties"][1].update(logicalTypeOptions={"pattern": "^[abc]"}))
    result = replay(warehouse, made.contract, why="c is an office")
    assert (result.rows_read, result.rows_loaded) == (2, 1)
    assert made.rows() == [("feb", "b2"), ("jan", "a1"), ("jan", "c1")]
    assert rebuild(warehouse, made.contract).equal


def test_an_export_has_just_what_waits(table: Any, warehouse: Any, tmp_path: Path) -> None:
    made = table("exported_once", LISTED)
    made.deliver("k,v\na,1\nc,2\n", "one.csv")
    made.deliver("k,v\nb,1\nc,3\n", "two.csv")
    with warehouse.connect(Role.CUSTODIAN) as connection:
        assert export(connection, made.contract, tmp_path / "x.xlsx") == 1


def test_a_replay_takes_what_the_bureau_made_of_a_row(table: Any, warehouse: Any, tmp_path: Path) -> None:
    made = table("corrected_in_part", LISTED)
    made.deliver("k,v\na,1\nc,2\nx,3\n")
    back = tmp_path / "back.xlsx"
    with warehouse.connect(Role.CUSTODIAN) as connection:
        export(connection, made.contract, back)
    book = openpyxl.load_workbook(back)
    column = [cell.value for cell in book[SHEET][1]].index("k") + 1
    book[SHEET].cell(2, column).value = "d"
    book[SHEET].cell(3, column).value = "b"
    book.save(back)
    assert ingest(warehouse, made.contract, back).rows_loaded == 1
    mended(made, allow("a", "b", "c", "d"))
    replay(warehouse, made.contract, why="c and d are new offices")
    assert made.rows() == [("a", 1), ("b", 3), ("d", 2)]
    assert rebuild(warehouse, made.contract).equal


def test_a_column_that_is_renamed_twice_keeps_its_values(table: Any, warehouse: Any, make_contract: Any) -> None:
    key = KEYED[0] | {"logicalTypeOptions": {"pattern": "^[ab]$"}}
    made = table("renamed_twice", [key, {"name": "x"}], load={"mode": "append"})
    made.deliver("k,x\na,1\nc,7\n", "x.csv")
    for number, (new, old) in enumerate((("y", "x"), ("z", "y"))):
        columns = [KEYED[0], {"name": new, "renamedFrom": old}]
        made.contract = make_contract("renamed_twice", columns, load={"mode": "append"}, version=f"{number + 2}.0.0")
        made.deliver(f"k,{new}\nb{number},1\n", f"{new}.csv")
    assert rebuild(warehouse, made.contract).equal
    assert replay(warehouse, made.contract, why="c is an office").rows_loaded == 1
    assert made.rows() == [("a", "1"), ("b0", "1"), ("b1", "1"), ("c", "7")]
    assert rebuild(warehouse, made.contract).equal


def test_a_personal_column_that_is_renamed_stays_masked(table: Any, warehouse: Any, make_contract: Any) -> None:
    from dopa_pipelines.ingest.quarantine import rejected_preview

    made = table("masked_renamed", PERSONAL)
    made.deliver("เลขประจำตัวประชาชน,v\n1234567890121,1\n1234567890123,x\n")
    renamed = [PERSONAL[0] | {"name": "citizen", "renamedFrom": "pid"}, PERSONAL[1]]
    contract = make_contract("masked_renamed", renamed, version="2.0.0")
    with warehouse.connect(Role.CUSTODIAN) as connection:
        (row,) = rejected_rows(connection, contract)
        assert row.fields == {"pid": MASK, "v": "x"}
        assert {item.example for item in patterns(connection, contract)} == {MASK, "x"}
        assert "1234567890123" not in rejected_preview(connection, contract)


def test_a_value_that_does_not_fit_a_new_type_is_not_shown(table: Any, make_contract: Any) -> None:
    personal = {"name": "who", "classification": "personal", "pdpaRole": "direct_identifier", "lawfulBasis": "x", "purpose": "y"}
    made = table("retyped_secretly", [KEYED[0], personal], load={"mode": "append"})
    made.deliver("k,who\na,สมชาย\n")
    typed = [KEYED[0], personal | {"logicalType": "integer"}]
    made.contract = make_contract("retyped_secretly", typed, load={"mode": "append"}, version="2.0.0")
    with pytest.raises(UserError, match="cannot change from text to integer") as refusal:
        made.deliver("k,who\nb,1\n")
    assert "สมชาย" not in str(refusal.value)


def test_another_key_is_kept_by_the_table_or_refused(table: Any, make_contract: Any) -> None:
    part = {"name": "m", "required": True}
    wide = [KEYED[0], part | {"primaryKey": True, "primaryKeyPosition": 2}, KEYED[1]]
    made = table("key_changed", [KEYED[0], part, KEYED[1]], load={"mode": "append"})
    made.deliver("k,m,v\na,1,1\n")
    made.contract = make_contract("key_changed", wide, load={"mode": "append"}, version="2.0.0")
    assert made.deliver("k,m,v\na,2,1\n").status == "loaded"
    made.contract = make_contract("key_changed", [KEYED[0], part, KEYED[1]], load={"mode": "append"}, version="3.0.0")
    with pytest.raises(UserError, match="the key cannot become k") as refusal:
        made.deliver("k,m,v\na,3,1\n")
    assert "(a" not in str(refusal.value)
    assert len(made.rows()) == 2


def test_a_scope_column_may_have_any_name(table: Any) -> None:
    made = table("scope_named", [{"name": "s0"}, KEYED[1]], load={"mode": "replace_scope", "scope": [{"column": "s0"}]})
    made.deliver("s0,v\nx,1\ny,1\n")
    made.deliver("s0,v\nx,2\n", "x.csv")
    assert made.rows() == [("x", 2), ("y", 1)]


def test_replacing_by_key_takes_time_by_rows_and_not_by_pairs_of_rows(table: Any) -> None:
    loose = [{"name": "k", "primaryKey": True, "primaryKeyPosition": 1}, KEYED[1]]
    made = table("key_hashed", loose, load={"mode": "append"})
    made.deliver("k,v\n,7\n" + "".join(f"{number:07},1\n" for number in range(50_000)))
    done = made.deliver("k,v\n,8\n" + "".join(f"{number:07},2\n" for number in range(45_000, 55_000)), "later.csv")
    # Every row with every other were 500 million comparisons, about a minute.
    assert done.seconds["write"] < 5
    assert made.query("select count(*), sum(v) filter (where k is null) from {t}") == [(55_001, 8)]


def test_views_are_there_again_after_a_refused_delivery(table: Any, warehouse: Any, make_contract: Any) -> None:
    made = table("viewed", KEYED, load={"mode": "append"})
    made.deliver("k,v\na,1\n")
    with warehouse.connect(Role.TRANSFORMER) as connection:
        connection.execute("create view staging.stg_viewed as select * from raw.viewed")
        connection.execute("create view staging.stg_viewed_twice as select k, v + 1 as v from staging.stg_viewed")
        connection.commit()
    number = [KEYED[0], KEYED[1] | {"logicalType": "number"}]
    made.contract = make_contract("viewed", number, load={"mode": "append"}, version="2.0.0")
    with pytest.raises(UserError, match="stg_viewed stand"):
        rebuild(warehouse, made.contract)
    assert made.deliver("k,v\na,x\n").status == "rejected"
    with warehouse.connect(Role.TRANSFORMER) as connection:
        assert connection.execute("select * from staging.stg_viewed_twice").fetchall() == [("a", 2)]


def test_retention_ends_for_refused_deliveries_too(table: Any, warehouse: Any) -> None:
    made = table("refused_kept", KEYED)
    mended(made, lambda document: document.update(slaProperties=[{"property": "retention", "value": 1, "unit": "y"}]))
    refused = made.deliver("k,v\nrefused and kept,x\n")
    assert refused.status == "rejected"
    with warehouse.connect(Role.LOADER) as connection:
        past = "update ops.delivery set received_at = received_at - interval '2 years' where id = %s"
        connection.execute(past, (refused.delivery,))
        connection.commit()
    end_retention(warehouse, [made.contract], date.today(), apply=True)
    assert not place_of(warehouse.archive, refused.sha256).exists()


def test_a_replay_of_rows_that_retention_destroyed_is_named(table: Any, warehouse: Any) -> None:
    made = table("replay_destroyed", LISTED, load={"mode": "append"})
    mended(made, lambda document: document.update(slaProperties=[{"property": "retention", "value": 1, "unit": "y"}]))
    old = made.deliver("k,v\na,1\nc,55\n")
    mended(made, allow("a", "b", "c"))
    again = replay(warehouse, made.contract, why="c is an office")
    with warehouse.connect(Role.LOADER) as connection:
        past = "update ops.delivery set received_at = received_at - interval '2 years' where id = %s"
        connection.execute(past, (old.delivery,))
        connection.commit()
    end_retention(warehouse, [made.contract], date.today(), apply=True)
    result = rebuild(warehouse, made.contract)
    assert result.equal
    assert [item["delivery"] for item in result.destroyed] == [old.delivery, again.delivery]


def test_what_is_no_workbook_and_what_is_no_file_stop_nobody_else(table: Any, warehouse: Any, tmp_path: Path) -> None:
    import zipfile

    made = table("odd_arrivals", KEYED, load={"mode": "append"})
    folder = tmp_path / "drop" / "testing" / "odd_arrivals"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "bad.xlsx", "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/workbook.xml", "<sheet " * 900)
    content = bytearray((folder / "bad.xlsx").read_bytes())
    start = content.find(b"workbook.xml") + len("workbook.xml")
    content[start : start + 20] = b"\xff" * 20
    (folder / "bad.xlsx").write_bytes(content)
    (folder / "good.csv").write_text("k,v\na,1\n")
    os.mkfifo(folder / "pipe.csv")
    rest(folder)
    with warehouse.connect() as connection:
        found = arrivals(connection, made.contract, tmp_path / "drop")
    assert [(item.path.name, item.pending) for item in found] == [("bad.xlsx", True), ("good.csv", True), ("pipe.csv", True)]
    done = {item.path.name: ingest(warehouse, made.contract, item.path) for item in found}
    assert {name: item.status for name, item in done.items()} == {
        "bad.xlsx": "rejected", "good.csv": "loaded", "pipe.csv": "rejected",
    }  # fmt: skip


def test_a_marker_of_the_file_before_says_nothing(
    table: Any, warehouse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["dopa_pipelines.ingest.arrivals"], "LONGEST_WAIT_SECONDS", 0.3)
    made = table("marked_before", KEYED, load={"mode": "append"})
    folder = tmp_path / "drop" / "testing" / "marked_before"
    folder.mkdir(parents=True)
    for name in ("a.csv.done", "b.csv", "c.csv", "d.csv"):
        (folder / name).write_text("")
    os.utime(folder / "a.csv.done", (time.time() - 60, time.time() - 60))
    (folder / "a.csv").write_text("k,v\na,1\nb,")
    started = time.monotonic()
    with warehouse.connect() as connection:
        assert arrivals(connection, made.contract, tmp_path / "drop") == []
        assert arrivals(connection, made.contract, tmp_path / "drop", wait=False) == []
    assert time.monotonic() - started < 1


def test_a_corrected_file_is_taken_whatever_its_name(table: Any, warehouse: Any, tmp_path: Path) -> None:
    made = table("mended_name", KEYED)
    made.folder = tmp_path / "drop" / "testing" / "mended_name"
    made.folder.mkdir(parents=True)
    (made.folder / "early.csv").write_text("k,v\nold,1\n")
    (made.folder / "heads.csv").write_text("k,w\na,1\n")
    rest(made.folder)
    assert ingest(warehouse, made.contract, made.folder / "heads.csv").status == "rejected"

    def pending() -> list[str]:
        with warehouse.connect() as connection:
            found = arrivals(connection, made.contract, tmp_path / "drop")
        return [item.path.name for item in found if item.pending]

    assert pending() == ["heads.csv"]
    (made.folder / "corrected.csv").write_text("k,v\na,1\n")
    (made.folder / "corrected.csv.done").write_text("")
    assert pending() == ["corrected.csv", "heads.csv"]
    assert ingest(warehouse, made.contract, made.folder / "corrected.csv").status == "loaded"
    assert pending() == []


def corrected_by_bureau(table: Any, warehouse: Any, folder: Path, **cells: Any) -> Any:
    """The first rejected row of ``table`` exported, with other values in some of its cells, and delivered."""
    back = folder / "corrected.xlsx"
    with warehouse.connect(Role.CUSTODIAN) as connection:
        export(connection, table.contract, back)
    book = openpyxl.load_workbook(back)
    titles = [cell.value for cell in book[SHEET][1]]
    for title, value in cells.items():
        book[SHEET].cell(2, titles.index(title) + 1).value = value
    book.save(back)
    return ingest(warehouse, table.contract, back)


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_corrections_are_kept_under_another_contract_while_views_stand_on_the_table(
    table: Any, warehouse: Any, tmp_path: Path, mode: str
) -> None:
    made = table(f"again_{mode}", LISTED, load={"mode": mode})
    made.deliver("k,v\na,1\nc,2\n")
    assert corrected_by_bureau(made, warehouse, tmp_path, k="b").rows_loaded == 1
    with warehouse.connect(Role.TRANSFORMER) as connection:
        connection.execute(f"create view staging.stg_again_{mode} as select k from raw.again_{mode}".encode())
        connection.commit()

    def rename(document: Any) -> None:
        column = document["schema"][0]["properties"][1]
        column |= {"name": "w", "physicalName": "v", "customProperties": [{"property": "renamedFrom", "value": "v"}]}

    mended(made, rename)
    # Two transactions of ours would wait for each other where the server sees no deadlock.
    done = ingest(warehouse, made.contract, made.folder / "delivery.csv")
    # In a table that is not replaced the corrected row is still there.
    assert done.notes.get("corrected_again") == (1 if mode == "replace" else None)
    assert sorted(made.rows()) == [("a", 1), ("b", 2)]


def test_a_rename_that_a_rebuild_carried_out_is_known_to_the_next_one(table: Any, warehouse: Any, make_contract: Any) -> None:
    made = table("rebuilt_renamed", KEYED, load={"mode": "append"})
    made.deliver("k,v\na,1\nb,2\n")
    columns = [KEYED[0], KEYED[1] | {"name": "w", "renamedFrom": "v"}]
    made.contract = make_contract("rebuilt_renamed", columns, load={"mode": "append"}, version="2.0.0")
    with warehouse.connect() as connection:
        connection.execute("delete from raw.rebuilt_renamed where k = 'b'")
        connection.commit()
    assert rebuild(warehouse, made.contract, apply=True).applied
    assert rebuild(warehouse, made.contract).equal
    assert sorted(made.rows()) == [("a", 1), ("b", 2)]


def test_what_another_mode_took_out_stays_out(table: Any, warehouse: Any, make_contract: Any) -> None:
    day = {"name": "day", "logicalType": "date", "required": True, "primaryKey": True, "primaryKeyPosition": 1}
    scope = {"mode": "replace_scope", "scope": [{"column": "day", "granularity": "month"}], "maxShrinkPercent": 100}
    made = table("other_mode", [day, KEYED[1]], load=scope)
    made.deliver("day,v\n2025-11-01,1\n2025-11-02,2\n2025-12-01,3\n", "a.csv")
    made.deliver("day,v\n2025-11-01,9\n", "b.csv")
    made.contract = make_contract("other_mode", [day, KEYED[1]], load={"mode": "append"}, version="2.0.0")
    made.deliver("day,v\n2025-11-01,10\n", "c.csv")
    assert [value for _, value in made.rows()] == [10, 3]
    assert rebuild(warehouse, made.contract).equal


def test_a_rejected_row_waits_on_when_all_others_of_its_delivery_came_again(table: Any, warehouse: Any) -> None:
    made = table("waits_alone", LISTED, load={"mode": "append"})
    made.deliver("k,v\na,1\nc,2\n")
    made.deliver("k,v\na,5\n", "next.csv")
    assert waiting(warehouse, "waits_alone") == 1
    mended(made, allow("a", "b", "c"))
    assert replay(warehouse, made.contract, why="c is an office").rows_loaded == 1
    assert sorted(made.rows()) == [("a", 5), ("c", 2)]


def test_rejected_rows_of_what_was_replaced_whole_wait_no_more(table: Any, warehouse: Any) -> None:
    made = table("waits_not", LISTED)
    made.deliver("k,v\na,1\nc,2\n")
    made.deliver("k,v\nb,5\n", "next.csv")
    assert waiting(warehouse, "waits_not") == 0


@pytest.mark.parametrize("number", ["inf", "1e300", "9223372036854775808", "-5", "1.7"])
def test_a_place_in_the_quarantine_is_a_whole_number(table: Any, warehouse: Any, tmp_path: Path, number: str) -> None:
    made = table(f"numbered_{len(number)}_{number[:2].strip('-.')}", LISTED)
    made.deliver("k,v\na,1\nc,2\n")
    refused = corrected_by_bureau(made, warehouse, tmp_path, quarantine_id=number)
    assert refused.status == "rejected"
    assert "row 2 has no quarantine_id" in refused.problem


def test_a_name_that_is_no_text_is_refused_and_stops_no_other(table: Any, warehouse: Any, tmp_path: Path) -> None:
    made = table("named_badly", KEYED)
    folder = tmp_path / "drop" / "testing" / "named_badly"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("k,v\na,1\n")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xa1\xa2.csv")).write_text("k,v\nb,1\n")
    rest(folder)
    with warehouse.connect() as connection:
        (found,) = arrivals(connection, made.contract, tmp_path / "drop")
    refused = ingest(warehouse, made.contract, found.path)
    assert (refused.status, refused.file) == ("rejected", "\\udca1\\udca2.csv")
    assert refused.problem == "\\udca1\\udca2.csv: its name is not UTF-8, so that it cannot be recorded; rename it"
    with warehouse.connect() as connection:
        assert arrivals(connection, made.contract, tmp_path / "drop")


def test_values_of_people_are_in_no_refusal(table: Any, make_contract: Any) -> None:
    made = table("headless", PERSONAL)
    problem = made.deliver("1234567890121,1\n1234567890139,2\n").problem
    assert problem.startswith("delivery.csv: none of its 2 titles is known; is the line of titles missing")
    assert "1234567890121" not in problem
    name = {"name": "who", "classification": "personal", "pdpaRole": "direct_identifier", "lawfulBasis": "x", "purpose": "y"}
    rule = {"type": "custom", "engine": "polars", "name": "r", "implementation": "cast(who as bigint) > 0"}
    made = table("ruled_badly", [*KEYED, name], quality=[rule])
    with pytest.raises(UserError, match="a row rule") as failure:
        made.deliver("k,v,who\na,1,สมชาย\n")
    assert "สมชาย" not in str(failure.value)


def test_what_no_delivery_has_is_taken_out_of_the_archive(table: Any, warehouse: Any) -> None:
    rule = {"type": "custom", "engine": "polars", "name": "r", "implementation": "cast(k as bigint) > 0"}
    made = table("orphaned", KEYED, quality=[rule])
    with pytest.raises(UserError):
        made.deliver("k,v\norphaned,123456\n")
    place = place_of(warehouse.archive, hashlib.sha256(b"k,v\norphaned,123456\n").hexdigest())
    if place.exists():
        os.utime(place, (0, 0))
    end_retention(warehouse, [made.contract], date.today(), apply=True)
    assert not place.exists()


def test_what_a_history_no_longer_believes_is_no_reference(table: Any) -> None:
    daily = {"period": r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"}
    areas = table("believed_area", [KEYED[0]], load={"mode": "history"}, layout=daily)
    areas.deliver("k\n10\n11\n", "a_2026-01-01.csv", as_of=date(2026, 11, 1))
    areas.deliver("k\n10\n", "fixed_2026-01-01.csv", as_of=date(2026, 11, 1))
    area = {"name": "area", "relationships": [{"type": "foreignKey", "to": "believed_area.k"}]}
    made = table("believing", [*KEYED, area])
    assert made.deliver("k,v,area\na,1,10\nb,2,11\n").reasons == {"unknown_reference": 1}


def test_views_are_there_again_after_an_interruption(table: Any, warehouse: Any, make_contract: Any) -> None:
    made = table("interrupted", KEYED, load={"mode": "append"})
    made.deliver("k,v\na,1\n")
    with warehouse.connect(Role.TRANSFORMER) as connection:
        connection.execute("create view staging.stg_interrupted as select * from raw.interrupted")
        connection.commit()
    text = [KEYED[0], KEYED[1] | {"logicalType": "string"}]
    made.contract = make_contract("interrupted", text, load={"mode": "append"}, version="2.0.0")

    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.deliver("k,v\nb,zz\n", "next.csv", progress=interrupt)
    with warehouse.connect(Role.TRANSFORMER) as connection:
        assert connection.execute("select k, v from staging.stg_interrupted").fetchall() == [("a", 1)]


def test_a_date_known_in_part_is_wrong_only_if_all_its_days_are(table: Any) -> None:
    limits = {"minimum": "1907-06-01", "maximum": "2020-06-30"}
    born = {"name": "b", "logicalType": "date", "parse": "be_date_ymd", "partial": True, "logicalTypeOptions": limits}
    made = table("partly_known", [KEYED[0], born])
    done = made.deliver("k,b\na,24500000\nb,25630000\nc,24500500\nd,24500600\ne,25630700\n")
    assert done.reasons == {"out_of_range": 2}
    assert [row[0] for row in made.query("select k from {t} order by k")] == ["a", "b", "d"]
