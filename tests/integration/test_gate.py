"""The gate over a real warehouse: what was recorded decides, and not the working copy; what no record explains is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psycopg
import pytest

from dopa_pipelines.governance.derived import derive
from dopa_pipelines.lineage.classes import classes_of
from dopa_pipelines.publishing import load_publications, publish
from dopa_pipelines.publishing.admission import recorded_verdict
from dopa_pipelines.publishing.held import HeldBack
from dopa_pipelines.publishing.publication import Publication
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse
from tests.integration.conftest import ROOT, Demo

PUBLICATIONS = {item.name: item for item in load_publications(ROOT / "assets" / "open_data").publications}


def rules(warehouse: Warehouse, publication: Publication) -> set[str]:
    return {reason.rule for reason in recorded_verdict(warehouse, publication).reasons}


def test_every_publication_of_the_project_goes_out_by_its_records(demo: Demo) -> None:
    with open_warehouse(demo.settings) as warehouse:
        for publication in PUBLICATIONS.values():
            verdict = recorded_verdict(warehouse, publication)
            assert verdict.allowed, verdict
    said = demo.dopa("gate", "births_by_province", "--recorded", "--json")
    assert (said.returncode, json.loads(said.stdout)["allowed"]) == (0, True)


def test_a_release_says_what_the_gate_said(demo: Demo) -> None:
    manifest = json.loads((demo.settings.releases_path / "deaths_by_province" / "latest" / "release.json").read_text())
    assert manifest["gate"] == {
        "publication": "deaths_by_province", "allowed": True, "reasons": [], "exceptions": [], "notes": [],
    }  # fmt: skip


def _execute(warehouse: Warehouse, *statements: str) -> None:
    with warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_rows_and_definitions_that_no_record_has_are_refused(own_demo: Demo) -> None:
    births, deaths, hotels = (PUBLICATIONS[name] for name in ("births_by_province", "deaths_by_province", "hotels_licensed"))
    with open_warehouse(own_demo.settings) as warehouse:
        latest = own_demo.settings.releases_path / "births_by_province" / "latest"
        before = latest.readlink()
        _execute(warehouse, "update open_data.births_by_province set births = births + 1 where month = (select max(month) from"
                            " open_data.births_by_province)")  # fmt: skip
        assert rules(warehouse, births) == {"unexplained"}
        with pytest.raises(HeldBack, match="which no recorded write of it has"):
            publish(warehouse, own_demo.settings, births, "run-refused")
        assert latest.readlink() == before
        with warehouse.connect(Role.READER) as connection:
            row = connection.execute(
                "select ended.detail ->> 'message' from lineage.work begun join lineage.work ended on ended.work = begun.work"
                " where begun.run_id = 'run-refused' and ended.state = 'FAIL'"
            ).fetchone()
        assert row is not None and "births_by_province is held back: the gate refuses (rows)" in row[0]
        _execute(warehouse, "delete from open_data.deaths_by_province where month = (select max(month) from"
                            " open_data.deaths_by_province)")  # fmt: skip
        assert rules(warehouse, deaths) == {"unexplained"}
        # A view on the way that was changed by hand: another column under the name of one that may go out.
        with warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection:
            row = connection.execute("select pg_get_viewdef('staging.stg_hotel_licence'::regclass)").fetchone()
            assert row is not None
            changed = row[0].replace("(hotel_name)", "(licensee_pid)").replace("hotel_name,", "licensee_pid as hotel_name,")
            connection.execute(f"create or replace view staging.stg_hotel_licence as {changed}")
        assert rules(warehouse, hotels) == {"unexplained"}


def test_what_a_table_was_built_by_decides_and_not_the_working_copy(own_demo: Demo) -> None:
    """A model that takes a holder's number out is built, then its file is put back as it was."""
    hotels = PUBLICATIONS["hotels_licensed"]
    with open_warehouse(own_demo.settings) as warehouse:
        _rewrite(warehouse, "marts.hotels", "licences.hotel_name,", "licences.licensee_pid as hotel_name,")
        _rewrite(warehouse, "open_data.hotels_licensed", "", "")
        verdict = recorded_verdict(warehouse, hotels)
    assert not verdict.allowed
    reason = next(reason for reason in verdict.reasons if reason.column == "hotel_name")
    assert reason.rule == "direct_identifier"
    assert reason.path == (
        "raw.hotel_licence.licensee_pid", "staging.stg_hotel_licence.licensee_pid", "marts.hotels.hotel_name",
        "open_data.hotels_licensed.hotel_name", "hotels_licensed.hotel_name",
    )  # fmt: skip


def _rewrite(warehouse: Warehouse, target: str, old: str, new: str) -> None:
    """Build a table by its recorded statement with one change, and record it as a model's post-hook does."""
    with warehouse.connect(Role.TRANSFORMER) as connection:
        row = connection.execute(
            "select code ->> 'compiled', inputs, detail from lineage.write where target = %s and kind = 'model' order by id desc",
            (target,),
        ).fetchone()
        assert row is not None
        sql = row[0].replace(old, new) if old else row[0]
        assert not old or sql != row[0]
        inputs = [{"name": item["name"]} for item in row[1]]
        names = connection.execute(
            "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute where attrelid = %s::regclass and"
            " attnum > 0 and not attisdropped", (target,),
        ).fetchone()  # fmt: skip
        assert names is not None
        connection.execute(f"delete from {target}")
        connection.execute(f"insert into {target} ({names[0]}) select {names[0]} from ({sql}) made")
        connection.execute(
            "select lineage.record_write('model', %s, 'by-hand', null, jsonb_build_object('compiled', %s::text, 'path',"
            f" %s::text), null, %s::jsonb, null, (select count(*) from {target}), %s::jsonb)",
            (target, sql, target, json.dumps(inputs), json.dumps(row[2])),
        )
        connection.commit()


@pytest.fixture
def copy(own_demo: Demo, tmp_path: Path) -> Path:
    """A working copy of contracts, publications and models of this test's own."""
    folder = tmp_path / "copy"
    for name in ("assets", "dbt_project"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
    return folder


def _check(copy: Path, state: Path) -> list[dict[str, object]]:
    """What ``dopa check`` finds, of the working copy at ``copy``."""
    from dopa_pipelines.cli.checking import _judged
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.settings import Settings

    class Elsewhere(Settings):
        @property
        def root(self) -> Path:
            return copy

    settings = Elsewhere(state=state, contracts=copy / "assets")
    publications = load_publications(settings.contracts / "open_data")
    problems, _ = _judged(settings, load_contracts(settings.contracts), publications.publications)
    return [{"file": problem.file.name, "line": problem.line, "text": problem.message} for problem in problems]


def test_check_finds_smuggling_through_dbt_ephemeral_models_seeds_and_views_of_views(copy: Path, tmp_path: Path) -> None:
    models = copy / "dbt_project" / "models"
    # Ephemeral: there is no table or view of it, only SQL within the next model's.
    (models / "marts" / "hidden.sql").write_text(
        "{{ config(materialized='ephemeral') }}\n"
        "select licence_no, licensee_pid as hotel_name_2 from {{ ref('stg_hotel_licence') }}\n"
    )
    hotels = models / "marts" / "legal_affairs" / "hotels.sql"
    text = hotels.read_text()
    text = text.replace("licences.hotel_name,", "reverse(hidden.hotel_name_2) as hotel_name,")
    text = text.replace("    from licences\n", "    from licences\n    join {{ ref('hidden') }} as hidden using (licence_no)\n")
    hotels.write_text(text.replace("        licences.licence_no,\n", "        licence_no,\n"))
    # A view of a view.
    (models / "marts" / "behind.sql").write_text(
        "{{ config(materialized='view') }}\nselect pid, left(area_code, 2) as province from {{ source('raw', 'death_event') }}\n"
    )
    deaths = models / "open_data" / "deaths_by_province.sql"
    text = deaths.read_text()
    taken = "(select max(pid) from {{ ref('behind') }})::text as province_name_en"
    deaths.write_text(text.replace("areas.name_en::text as province_name_en", taken))
    # A seed that nobody classified.
    seeds = copy / "dbt_project" / "seeds"
    (seeds / "nicknames.csv").write_text("code,nickname\n10,กรุงเทพ\n")
    areas = models / "open_data" / "area_codes.sql"
    text = areas.read_text()
    assert "name_en::text as name_en" in text
    areas.write_text(
        text.replace("name_en::text as name_en", "(select max(n.nickname) from {{ ref('nicknames') }} n)::text as name_en", 1)
    )
    # A generalisation that is declared and not there, and one that is there and not declared.
    births = models / "marts" / "civil_registration" / "births_by_month.sql"
    births.write_text(births.read_text().replace("{{ month_of('registered_on') }} as month", "registered_on as month"))
    # A key in SQL.
    salted = models / "staging" / "stg_id_card_issue.sql"
    salted.write_text(salted.read_text().replace("request_no::text collate", "md5(request_no || 'secret')::text collate"))
    found = _check(copy, tmp_path / "check")
    by_file = {str(item["file"]): str(item["text"]) for item in found}
    texts = [str(item["text"]) for item in found]
    assert any("hotels_licensed.hotel_name" in text and "[direct_identifier]" in text for text in texts), texts
    assert any("deaths_by_province.province_name_en" in text and "[direct_identifier]" in text for text in texts), texts
    assert any("area_codes.name_en" in text and "[internal]" in text for text in texts), texts
    assert any("births_by_province.month" in text and "[fine_date]" in text for text in texts), texts
    assert "not recognised as" in by_file["births_by_month.yml"]
    assert "key or salt" in by_file["stg_id_card_issue.sql"]
    assert all(int(str(item["line"])) > 1 for item in found if str(item["file"]).endswith(("yml", "yaml"))), found


def test_a_declared_class_below_the_derived_one_is_an_error_with_its_line(copy: Path, tmp_path: Path) -> None:
    yml = copy / "dbt_project" / "models" / "marts" / "civil_registration" / "deaths_by_month.yml"
    text = yml.read_text()
    line = next(number for number, row in enumerate(text.splitlines(), 1) if row.strip() == "- name: cause_group")
    described = text.splitlines()[line]
    yml.write_text(text.replace(described + "\n", described + "\n        config: {meta: {classification: open}}\n", 1))
    (problem,) = _check(copy, tmp_path / "check")
    assert (problem["file"], problem["line"]) == ("deaths_by_month.yml", line)
    assert "declared open and is personal" in str(problem["text"])
    assert "raw.death_event.cause_group" in str(problem["text"])


def test_classify_tells_the_way(demo: Demo) -> None:
    said = demo.dopa("classify", "births_by_province.births", "--json")
    (told,) = json.loads(said.stdout)
    assert (told["what"], told["classification"]) == ("aggregate", "internal")
    assert told["path"][0] == "raw.birth_event.*" and told["path"][-1] == "open_data.births_by_province.births"


def test_the_gate_refuses_by_the_working_copy_with_exit_code_4(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "assets"
    shutil.copytree(ROOT / "assets", folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "open_data" / "births_by_province.yaml"
    text = file.read_text()
    start, end = text.index("disclosure:"), text.index("gdCatalog:")
    file.write_text(text[:start] + text[end:])
    said = demo.dopa("gate", "births_by_province", "--json", DOPA_CONTRACTS=str(folder))
    told = json.loads(said.stdout)
    assert said.returncode == 4 and not told["allowed"]
    assert {reason["rule"] for reason in told["reasons"]} == {"disclosure"}
    assert all(reason["path"] for reason in told["reasons"])


def test_a_view_as_source_is_no_way_around(own_demo: Demo) -> None:
    with open_warehouse(own_demo.settings) as warehouse:
        with warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection, pytest.raises(psycopg.Error):
            # The role that publishes cannot read raw tables; a view of it in open_data by hand has no record.
            connection.execute("create view open_data.sly as select pid as area_code from raw.person_register")
            raise psycopg.Error
        sly = PUBLICATIONS["area_codes"].model_copy(
            update={"source": "open_data.sly", "columns": PUBLICATIONS["area_codes"].columns[:1], "order_by": ["area_code"]}
        )
        assert "unexplained" in rules(warehouse, sly)


def test_classes_that_stand_are_those_that_would_be_derived_anew(demo: Demo) -> None:
    """Releases come after the tables that they are made of, and then only their own classes are derived."""
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.LOADER) as connection:
        before = classes_of(connection)
        connection.execute("delete from governance.classified_from")
        connection.execute("delete from governance.classified")
        assert derive(connection) and classes_of(connection) == before
        connection.rollback()
    kinds = {target.partition(".")[0].partition(":")[0] for target in before}
    assert {"raw", "staging", "marts", "open_data", "release"} <= kinds
