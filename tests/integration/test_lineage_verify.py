"""What is done by hand, past the records, is found and named; what is done by the platform is not.

All tampering is real SQL of the server's superuser on a copy of the demo. It adds up: each test looks at what it newly gave
rise to.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.openlineage import record_events
from dopa_pipelines.lineage.seal import anchor_file, seal
from dopa_pipelines.lineage.verify import EPOCH, Finding, rebase, unaccounted, verify
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse
from dopa_pipelines.warehouse.bootstrap import embedded_secrets
from dopa_pipelines.warehouse.embedded import SUPERUSER, programs
from dopa_pipelines.warehouse.places import connect
from dopa_pipelines.warehouse.work import Work


def superuser(warehouse: Warehouse, database: str = "warehouse") -> psycopg.Connection[Any]:
    """Who may do everything, as with psql."""
    assert warehouse.server is not None
    password = embedded_secrets(warehouse.state)[SUPERUSER]
    place = {**warehouse.layout.places[Role.OWNER], "user": SUPERUSER, "password": password, "dbname": database}
    return connect(place, autocommit=True)


@dataclass
class Department:
    """A demo that is proven to be undisturbed, and what was found in it since."""

    settings: Settings
    warehouse: Warehouse
    known: set[Finding]

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        with superuser(self.warehouse) as connection:
            for statement in statements[:-1]:
                connection.execute(statement.encode())
            cursor = connection.execute(statements[-1].encode())
            return cursor.fetchall() if cursor.description else []

    def found(self, *statements: str) -> list[Finding]:
        """What is newly found after the statements."""
        self.execute(*statements)
        return self.look()

    def look(self, dataset: str | None = None) -> list[Finding]:
        now = verify(self.warehouse, self.settings.releases_path, dataset).findings
        new = [finding for finding in now if finding not in self.known]
        self.known |= set(now)
        return new


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, finding.subject) for finding in findings]


def copied(demo: Any, folder: Path) -> Settings:
    subprocess.run(["cp", "-a", str(demo.state.with_name("pristine")), str(folder)], check=True)
    return Settings(state=folder)


@pytest.fixture(scope="module")
def department(demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Department]:
    settings = copied(demo, tmp_path_factory.mktemp("tampered") / "state")
    with open_warehouse(settings) as warehouse:
        seal(warehouse)  # a run takes digests as far as its second lasts
        yield Department(settings, warehouse, set())


def test_an_undisturbed_demo_agrees_and_says_what_was_looked_at(department: Department, demo: Any) -> None:
    verdict = verify(department.warehouse, department.settings.releases_path)
    assert verdict.findings == []
    assert verdict.notes == []
    ((rows,), (writes,), (events,)) = department.execute(
        "select sum(rows_held) from ops.delivery union all select count(*) from lineage.write"
        " union all select count(*) from lineage.event"
    )
    assert (verdict.writes, verdict.events) == (writes, events)
    assert verdict.rows > rows
    assert verdict.seals == verdict.events + verdict.tables + 11, "each event, the digest of each table and of rejected rows"
    assert (verdict.tables, verdict.views) == (50, 11)
    said = Path(department.settings.state).parent / "said"
    done = replace(demo, state=department.settings.state).dopa("lineage", "verify", "--json")
    said.write_text(done.stdout)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["clean"] is True


def test_a_chain_can_be_checked_without_this_software(department: Department) -> None:
    """The documented rule, in six lines of Python over what psql prints."""
    before = "0" * 64
    for seq, subject, number, subject_hash, write_hash, found in department.execute(
        "select seq, subject, subject_id, subject_sha256, coalesce(write_sha256, '-'), hash from lineage.seal order by seq"
    ):
        before = hashlib.sha256(f"{before} {seq} {subject} {number} {subject_hash} {write_hash}".encode()).hexdigest()
        assert before == found
    last = json.loads(anchor_file(department.settings.state).read_text().splitlines()[-1])
    assert (last["seq"], last["hash"]) == (seq, before)
    ((told, expected),) = department.execute(
        "select jsonb_build_object('id', e.id, 'write_id', e.write_id, 'run_id', e.run_id,"
        " 'event_time', extract(epoch from e.event_time), 'event', e.event)::text, s.subject_sha256"
        " from lineage.event e join lineage.seal s on s.subject = 'event' and s.subject_id = e.id order by s.seq limit 1"
    )
    assert hashlib.sha256(told.encode()).hexdigest() == expected


def test_the_anchor_is_its_owners_alone(department: Department) -> None:
    path = anchor_file(department.settings.state)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_row_inserted_by_hand(department: Department) -> None:
    found = department.found(
        'insert into raw.complaint select (jsonb_populate_record(c, \'{"case_no": "x"}\')).* from raw.complaint c limit 1'
    )
    assert [code for code, _ in codes(found)] == ["foreign_rows", "row_count"]
    assert {subject for _, subject in codes(found)} == {"raw.complaint"}
    assert "1 row of raw.complaint is of transaction" in found[0].message
    assert "too many" in found[1].message


def test_a_value_changed_by_hand(department: Department) -> None:
    found = department.found(
        "update marts.hotels set rooms = rooms + 1 where licence_no = (select min(licence_no) from marts.hotels)"
    )
    assert codes(found) == [("foreign_rows", "marts.hotels")]
    assert "changed by hand" in found[0].message


def test_a_row_deleted_by_hand_from_a_dataset(department: Department) -> None:
    found = department.found("delete from raw.person_register where pid = (select min(pid) from raw.person_register)")
    assert codes(found) == [("row_count", "raw.person_register")]
    assert "1,999 rows" in found[0].message
    assert "2,000" in found[0].message


def test_a_row_deleted_by_hand_from_a_model(department: Department) -> None:
    found = department.found("delete from marts.dim_month where ctid = (select min(ctid) from marts.dim_month)")
    assert codes(found) == [("row_count", "marts.dim_month")]


def test_a_value_changed_past_the_server_shows_in_the_digest(department: Department) -> None:
    """The row keeps its transaction: only the digest tells. A column is given another type's reading, without a rewrite."""
    found = department.found("alter table open_data.area_codes drop column name_en")
    assert codes(found) == [("digest", "open_data.area_codes")]
    assert "past the server" in found[0].message


def test_a_rejected_row_taken_away(department: Department) -> None:
    found = department.found("delete from quarantine.birth_event where id = (select min(id) from quarantine.birth_event)")
    assert codes(found) == [("row_count", "quarantine.birth_event")]


def test_a_view_changed_by_hand(department: Department) -> None:
    found = department.found(
        "create or replace view staging.stg_complaint as "
        + str(department.execute("select rtrim(pg_get_viewdef('staging.stg_complaint'), ';')")[0][0])
        + " limit 1"
    )
    assert codes(found) == [("view_changed", "staging.stg_complaint")]


def test_tables_made_and_dropped_by_hand(department: Department) -> None:
    found = department.found("create table marts.favour (pid text)", "drop table marts.linkage_usage_by_agency")
    assert codes(found) == [("gone", "marts.linkage_usage_by_agency"), ("unrecorded_table", "marts.favour")]


def test_one_dataset_alone(department: Department) -> None:
    department.execute("delete from raw.area_code where code = (select min(code) from raw.area_code)")
    assert department.look("house_register") == []
    assert codes(department.look("area_code")) == [("row_count", "raw.area_code")]
    with pytest.raises(UserError, match=r"Nothing called 'area_cod' was ever written here; did you mean"):
        department.look("area_cod")


def test_an_edited_event(department: Department) -> None:
    found = department.found(
        "update lineage.event set event = jsonb_set(event, '{job,name}', '\"dbt.another\"') where id = 7"
    )  # fmt: skip
    assert codes(found) == [("event_changed", "lineage.event 7")]
    assert "edited" in found[0].message


def test_an_edited_facet(department: Department) -> None:
    """What many events say alike is kept once and named by its hash, which the seals are over."""
    ((name,),) = department.execute("select event #>> '{job,facets,jobType,_facet}' from lineage.event where id = 9")
    found = department.found(
        f"update lineage.facet set facet = jsonb_set(facet, '{{jobType}}', '\"OTHER\"') where sha256 = '{name}'"
    )
    assert codes(found) == [("facet_changed", f"lineage.facet {name}")]
    assert "which lineage.event " in found[0].message


def test_a_deleted_facet(department: Department) -> None:
    ((name,),) = department.execute(
        "select event #>> '{outputs,0,facets,columnLineage,_facet}' from lineage.event"
        " where event #> '{outputs,0,facets,columnLineage}' is not null order by id limit 1"
    )
    found = department.found(f"delete from lineage.facet where sha256 = '{name}'")
    assert codes(found) == [("facet_missing", f"lineage.facet {name}")]


def test_an_edited_write(department: Department) -> None:
    found = department.found("update lineage.write set written_by = 'somchai' where id = 5")
    assert codes(found) == [("write_changed", "lineage.write 5")]


def test_a_deleted_event_in_the_middle(department: Department) -> None:
    found = department.found("delete from lineage.event where id = 11")
    assert codes(found) == [("event_missing", "lineage.event 11")]


def test_a_deleted_seal_in_the_middle(department: Department) -> None:
    found = department.found("delete from lineage.seal where seq = 20")
    assert codes(found) == [("seal_missing", "lineage.seal 20")]


def test_a_seal_that_was_edited(department: Department) -> None:
    found = department.found("update lineage.seal set hash = repeat('a', 64) where seq = 30")
    assert [subject for _, subject in codes(found)] == ["lineage.seal 30", "lineage.seal 31"]


def test_an_edited_digest(department: Department) -> None:
    found = department.found("update lineage.digest set rows = rows - 1 where target = 'raw.house_register'")
    ((number,),) = department.execute("select id from lineage.digest where target = 'raw.house_register'")
    assert ("digest_changed", f"lineage.digest {number}") in codes(found)


def test_a_delivery_taken_off_the_record(department: Department) -> None:
    found = department.found("delete from ops.delivery where dataset = 'village_headman'")
    assert {code for code, _ in codes(found)} >= {"delivery_missing", "row_count"}


def test_records_that_prove_nothing_prove_no_rebase(department: Department) -> None:
    with pytest.raises(UserError, match="The records themselves are not as they were sealed"):
        rebase(department.warehouse, department.settings.releases_path, "to hide it", "marts.hotels")


# Each of these begins with a demo of its own.


@pytest.fixture
def fresh(own_demo: Any) -> Iterator[Department]:
    with open_warehouse(own_demo.settings) as warehouse:
        seal(warehouse)
        yield Department(own_demo.settings, warehouse, set())


def test_a_deleted_last_event_is_found_by_the_anchor_also_after_sealing_anew(fresh: Department, own_demo: Any) -> None:
    ((seq, event),) = fresh.execute(
        "select seq, subject_id from lineage.seal where subject = 'event' order by seq desc limit 1"
    )  # fmt: skip
    found = fresh.found(
        f"delete from lineage.seal where seq >= {seq}", f"delete from lineage.event where id = {event}", "select 1"
    )
    assert [code for code, _ in codes(found)] == ["anchor_ahead"]
    assert f"The chain ends with seal {seq - 1}" in found[0].message
    # Whoever may change the database may also seal what is left as if nothing had been.
    seal(fresh.warehouse)
    assert [code for code, _ in codes(fresh.look())] == ["anchor_ahead"]
    with fresh.warehouse.connect() as connection:
        connection.execute("select lineage.record_write('migration', 'raw.complaint')")
        record_events(connection)
        connection.commit()
    seal(fresh.warehouse)
    assert [code for code, _ in codes(fresh.look())] == ["anchor_differs"]
    done = own_demo.dopa("lineage", "verify")
    assert done.returncode == 4
    assert "lineage.jsonl" in done.stderr


def test_a_release_carries_the_head_and_finds_a_chain_made_anew(fresh: Department, own_demo: Any) -> None:
    # As a build of another day would: the rows, and the record of how they were made, then its check.
    fresh.execute(
        "begin",
        "update open_data.hotels_licensed set rooms = rooms + 1",
        "select lineage.record_write('model', w.target, 'run', p_inputs => w.inputs, p_code => w.code, p_detail => w.detail)"
        " from lineage.write w where w.target = 'open_data.hotels_licensed' order by w.id desc limit 1",
        "commit",
    )
    with Work(fresh.warehouse, "check", "open_data.hotels_licensed", run_id="run") as work:
        work.complete({"assertions": [{"assertion": "unique", "success": True, "severity": "error"}]})
    done = own_demo.dopa("publish", "hotels_licensed", "--json")
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout)["releases"]
    told = json.loads((Path(made["path"]) / "release.json").read_text())["lineage"]
    ((found,),) = fresh.execute(f"select hash from lineage.seal where seq = {told['seq']}")
    assert told["hash"] == found
    fresh.look()
    # Even with the file of anchors gone, and all of the chain sealed anew over an edited write.
    anchor_file(fresh.settings.state).unlink()
    fresh.execute("update lineage.write set written_by = 'nobody' where id = 1", "delete from lineage.seal")
    seal(fresh.warehouse)
    found = codes(fresh.look())
    assert [code for code, subject in found if subject.startswith("the release ")] == ["anchor_differs"]


def test_a_rewrite_is_rebased_where_the_values_are_those_of_before(fresh: Department, own_demo: Any) -> None:
    found = fresh.found("alter table marts.dim_month alter column be_year type bigint")
    assert codes(found) == [("rewritten", "marts.dim_month")]
    assert "dopa lineage rebase marts.dim_month --why" in found[0].message
    done = own_demo.dopa("lineage", "rebase", "dim_month", "--why", "years were made longer", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"rebased": ["marts.dim_month"]}
    assert verify(fresh.warehouse, fresh.settings.releases_path).findings == []
    ((kind, why, by),) = fresh.execute(
        "select kind, detail ->> 'why', written_by from lineage.write where target = 'marts.dim_month' order by id desc limit 1"
    )
    assert (kind, why, by) == ("rebase", "years were made longer", "dopa_transformer")
    # Rebased or not, a row changed afterwards is found; and what was changed cannot be rebased.
    assert codes(
        fresh.found("update marts.dim_month set be_year = be_year where month = (select min(month) from marts.dim_month)")
    ) == [("rewritten", "marts.dim_month")]
    fresh.execute("alter table marts.hotels alter column rooms type bigint using rooms + 1")
    with pytest.raises(
        UserError, match=r"marts.hotels is not rebased: its rows are not those that were there after its last write"
    ):
        rebase(fresh.warehouse, fresh.settings.releases_path, "to hide it", "marts.hotels")
    fresh.execute("delete from marts.hotels where licence_no = (select min(licence_no) from marts.hotels)")
    with pytest.raises(UserError, match=r"it has 299 rows and had 300 after its last write"):
        rebase(fresh.warehouse, fresh.settings.releases_path, "to hide it", "marts.hotels")


def test_a_server_moved_by_dump_and_restore_is_rebased(fresh: Department, tmp_path: Path) -> None:
    """To a new server: another system identifier, other transactions. The state folder's anchors and releases go along."""
    dump = tmp_path / "dump"
    password = embedded_secrets(fresh.settings.state)[SUPERUSER]
    place = fresh.warehouse.layout.places[Role.OWNER]
    login = ["-h", place["host"], "-p", place["port"], "-U", SUPERUSER, "-d"]
    run = {"env": os.environ | {"PGPASSWORD": password}, "check": True, "capture_output": True}
    subprocess.run([programs() / "pg_dump", *login, "warehouse", "-Fc", "-f", dump], **run)  # type: ignore[call-overload]
    later = Settings(state=tmp_path / "new")
    with open_warehouse(later) as warehouse:
        with superuser(warehouse, "postgres") as connection:
            connection.execute("drop database warehouse with (force)")
            connection.execute("create database warehouse owner dopa_owner template template0 encoding 'UTF8'")
        place = warehouse.layout.places[Role.OWNER]
        login = ["-h", place["host"], "-p", place["port"], "-U", SUPERUSER, "-d"]
        run["env"] = os.environ | {"PGPASSWORD": embedded_secrets(later.state)[SUPERUSER]}
        # The system's own schema `public` and its rights come with the database.
        subprocess.run([programs() / "pg_restore", *login, "warehouse", dump], **run)  # type: ignore[call-overload]
    for name in ("anchors", "releases"):
        subprocess.run(["cp", "-a", fresh.settings.state / name, later.state / name], check=True)
    with open_warehouse(later) as warehouse:
        moved = Department(later, warehouse, set())
        found = moved.look()
        assert {code for code, _ in codes(found)} == {"rewritten"}
        assert len(found) == 61, "every table, and that of every dataset's rejected rows"
        # A value that changed on the way keeps all of it from being rebased.
        moved.execute("begin", "update marts.hotels set rooms = rooms + 1", "commit")
        with pytest.raises(UserError, match=r"marts\.hotels is not rebased"):
            rebase(warehouse, later.releases_path, "moved")
        assert {code for code, _ in codes(verify(warehouse, later.releases_path).findings)} >= {"rewritten"}
        moved.execute("update marts.hotels set rooms = rooms - 1")
        done = rebase(warehouse, later.releases_path, "moved to a new server")
        assert len(done) == 61 - 11, "rejected rows were rebased already"
        assert verify(warehouse, later.releases_path).findings == []


def test_an_older_backup_is_a_loss_that_is_written_down(fresh: Department) -> None:
    """The chain is cut back to an earlier end together with what it told of, as a restored backup has it."""
    ((seq, event),) = fresh.execute(
        "select seq, subject_id from lineage.seal where subject = 'event' order by seq desc limit 1"
    )  # fmt: skip
    fresh.execute(f"delete from lineage.seal where seq >= {seq}", f"delete from lineage.event where id = {event}", "select 1")
    assert "anchor_ahead" in dict(codes(fresh.look()))
    assert rebase(fresh.warehouse, fresh.settings.releases_path, "restored the backup of Sunday") == ["the anchors"]
    verdict = verify(fresh.warehouse, fresh.settings.releases_path)
    assert verdict.findings == []
    assert any("restored the backup of Sunday" in note for note in verdict.notes)


def test_loads_replays_and_contract_changes_are_no_findings(
    table: Callable[..., Any], warehouse: Warehouse, settings: Settings
) -> None:
    columns = [
        {"name": "code", "primaryKey": True, "primaryKeyPosition": 1, "required": True},
        {"name": "people", "logicalType": "integer", "physicalType": "integer"},
    ]
    for mode in ("replace", "append"):
        made = table(f"proved_{mode}", columns, load={"mode": mode})
        assert made.deliver("code,people\na,1\nb,2\nc,x\n").status == "loaded"
        made.deliver("code,people\nb,3\n", "second.csv", accept_shrink=True)
        with warehouse.connect(Role.TRANSFORMER) as connection:
            connection.execute(f"create or replace view staging.proved_{mode} as select code, people from raw.proved_{mode}")
            connection.execute(f"select lineage.record_write('model', 'staging.proved_{mode}', p_code => '{{}}')")
            connection.commit()
        wider = [columns[0], columns[1] | {"physicalType": "bigint"}]
        made = table(f"proved_{mode}", wider, version="1.1.0", load={"mode": mode})
        assert made.deliver("code,people\nd,4\n", "third.csv", accept_shrink=True).status == "loaded"
        with warehouse.connect() as connection:
            record_events(connection)
        seal(warehouse)
        verdict = verify(warehouse, settings.releases_path, f"raw.proved_{mode}")
        assert [finding for finding in verdict.findings if finding.code != "anchor_missing"] == []
        assert verdict.tables == 1
        view = verify(warehouse, settings.releases_path, f"staging.proved_{mode}")
        assert [finding for finding in view.findings if finding.subject.startswith("staging")] == [], "dropped on record"


def test_whole_transaction_ids_against_what_rows_keep_of_them() -> None:
    now = 3 * EPOCH + 1_000
    assert unaccounted([7], [7], [], now) == set()
    # Frozen long ago: the row keeps its xmin through any number of epochs.
    assert unaccounted([7], [EPOCH + 7], [], now) == set()
    assert unaccounted([7], [3 * EPOCH + 7], [], now) == set()
    assert unaccounted([7, 8], [3 * EPOCH + 7], [], now) == {8}
    # A write that this server cannot have made yet accounts for nothing.
    assert unaccounted([2_000], [3 * EPOCH + 2_000], [], now) == {2_000}
    assert unaccounted([9, 2_000], [], [9], now) == {2_000}


@pytest.mark.parametrize("role", [Role.LOADER, Role.TRANSFORMER, Role.READER, Role.CUSTODIAN])
def test_nobody_writes_or_changes_seals_and_digests(warehouse: Warehouse, role: Role) -> None:
    with warehouse.connect(role, autocommit=True) as connection:
        for statement in (
            "insert into lineage.seal values (0, 'event', 0, '', '', '', now())",
            "update lineage.seal set hash = ''",
            "delete from lineage.seal",
            "truncate lineage.seal",
            "insert into lineage.digest (write_id, target, rows, digest, taken_at) values (1, 'x', 1, '', now())",
            "update lineage.digest set digest = ''",
            "delete from lineage.digest",
            "alter table lineage.write disable trigger complete",
            "select lineage.measure('raw.x')",
        ):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction)):
                connection.execute(statement.encode())
        if role in (Role.READER, Role.CUSTODIAN):
            for statement in ("select lineage.seal_pending()", "select lineage.rebase('raw.x', 'why')"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


def test_sealers_take_turns_and_neither_wait_for_a_writer_nor_miss_it(warehouse: Warehouse) -> None:
    tell = """select lineage.record_event(null, 'turns', '{"eventTime": "2025-10-01T00:00:00Z"}')"""
    sealed = "select seq from lineage.seal where subject = 'event' and subject_id = %s"

    def tell_and_seal(_: int) -> list[int]:
        with warehouse.connect(autocommit=True) as connection:
            told = [int(connection.execute(tell).fetchone()[0]) for _ in range(5)]  # type: ignore[index]
            connection.execute("select lineage.seal_pending()")
            return told

    with warehouse.connect() as writer, warehouse.connect(autocommit=True) as looking:
        (slow,) = writer.execute(tell).fetchone() or (0,)  # not committed yet, and of a lower number than what follows
        with ThreadPoolExecutor(4) as pool:
            told = [event for part in pool.map(tell_and_seal, range(8)) for event in part]
        assert min(told) > slow
        assert all(looking.execute(sealed, (event,)).fetchone() for event in told)
        assert looking.execute(sealed, (slow,)).fetchone() is None
        writer.commit()
        looking.execute("select lineage.seal_pending()")
        assert looking.execute(sealed, (slow,)).fetchone() is not None
        assert looking.execute("select count(*) = max(seq), min(seq) from lineage.seal").fetchone() == (True, 1)
