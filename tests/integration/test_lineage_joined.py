"""Lineage where its parts meet: releases and their anchor, dbt by hand, views, rebuilds, imports, and the bundle of all."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.ingest.rebuild import rebuild
from dopa_pipelines.lineage.importing import import_events
from dopa_pipelines.lineage.store import graph, identity, record_write
from dopa_pipelines.lineage.trace import as_json, trace
from dopa_pipelines.publishing import load_publications
from dopa_pipelines.warehouse import Role, open_warehouse


def test_each_release_of_a_run_anchors_the_writes_that_it_is_made_of(demo: Any) -> None:
    manifests = [json.loads(path.read_text("utf-8")) for path in demo.settings.releases_path.glob("*/latest/release.json")]
    assert len(manifests) == len(load_publications(demo.settings.contracts / "open_data").publications)
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.READER) as connection:
        for manifest in manifests:
            row = connection.execute(
                "select max(s.seq), count(distinct e.write_id) from lineage.seal s"
                " join lineage.event e on s.subject = 'event' and e.id = s.subject_id where e.write_id = any(%s)",
                (manifest["source_writes"],),
            ).fetchone()
            assert row is not None and row[1] == len(manifest["source_writes"])
            assert row[0] <= manifest["lineage"]["seq"], f"{manifest['publication']}: its head does not cover its source"


def test_a_bundle_after_a_late_delivery_and_dbt_by_hand(own_demo: Any, tmp_path: Path) -> None:
    """A view stays as it was built while the table behind it changes: the delivery is in the bundle, and all of it is sealed."""
    (late,) = (own_demo.settings.drop_path / "registration" / "death_event").glob("*2568-12*")
    again = tmp_path / late.name
    again.write_bytes(b"".join(late.read_bytes().splitlines(keepends=True)[:-1]))
    done = own_demo.dopa("ingest", "death_event", str(again), "--json")
    assert done.returncode == 0, done.stderr
    delivery = json.loads(done.stdout)
    assert own_demo.dopa("run", "--select", "raw.death_event").returncode == 0
    chosen = ("--select", "deaths_by_month", "deaths_by_province")
    done = own_demo.dopa("dbt", "build", "--target", "production", *chosen, DOPA_DBT_TARGET="production")
    assert done.returncode == 0, done.stdout
    assert own_demo.dopa("publish", "deaths_by_province").returncode == 0
    done = own_demo.dopa("audit", "bundle", "deaths_by_province", "--out", str(tmp_path / "b.zip"), "--json")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "b.zip") as packed:
        packed.extractall(tmp_path / "b")
    writes = list(csv.DictReader(io.StringIO((tmp_path / "b" / "writes.csv").read_text("utf-8-sig"))))
    assert str(delivery["write"]) in {write["id"] for write in writes}
    checked = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "b" / "verify.py")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    # Told by a command that was about something else, a dataset still has its owners and tags.
    with open_warehouse(own_demo.settings) as warehouse, warehouse.connect(Role.READER) as connection:
        row = connection.execute(
            "select event #> '{outputs,0,facets}' from lineage.event where write_id = %s and event ->> 'eventType' = 'COMPLETE'",
            (delivery["write"],),
        ).fetchone()
    assert row is not None and {"ownership", "tags", "columnLineage"} <= set(row[0])


def test_a_rebuilt_table_still_comes_from_its_silo(table: Any, warehouse: Any) -> None:
    made = table("rebuilt_traced", [{"name": "k", "required": True, "primaryKey": True, "primaryKeyPosition": 1}])
    made.deliver("k\na\nb\n")
    with warehouse.connect() as connection:
        connection.execute("delete from raw.rebuilt_traced where k = 'b'")
        connection.commit()
    assert rebuild(warehouse, made.contract, apply=True).applied
    with warehouse.connect() as connection:
        assert [node.label for node in trace(graph(connection), "raw.rebuilt_traced").nodes] == [
            "raw.rebuilt_traced", "testing/rebuilt_traced",
        ]  # fmt: skip
        row = connection.execute(
            "select w.run_id is not null, k.state from lineage.write w join lineage.work k on k.work::text = w.detail ->> 'work'"
            " where w.target = 'raw.rebuilt_traced' and w.detail ->> 'rebuild' = 'true'"
        ).fetchone()
    assert row == (True, "START")


@pytest.mark.parametrize("subtype", ["HASH", "IDENTITY", None])
def test_what_others_tell_of_our_own_tables_changes_nothing_of_them(warehouse: Any, subtype: str | None) -> None:
    with warehouse.connect() as connection:
        named = identity(connection)
        connection.execute(f"create table if not exists raw.told_{str(subtype).lower()} (k text)".encode())
        target = f"raw.told_{str(subtype).lower()}"
        record_write(connection, kind="load", target=target, inputs=[named.canonical("file", "testing/told")])
        before = as_json(trace(graph(connection), target))
        producer = "https://example.org/etl"
        way = {"type": "DIRECT"} | ({"subtype": subtype} if subtype else {})
        event = {
            "eventType": "COMPLETE", "eventTime": "2026-11-01T00:00:00Z", "producer": producer,
            "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
            "run": {"runId": "01890000-0000-7000-8000-00000000000a"}, "job": {"namespace": "etl", "name": f"copy {subtype}"},
            "inputs": [{"namespace": "oracle://x:1521", "name": "A.B"}],
            "outputs": [
                {"namespace": named.namespace, "name": target},
                {
                    "namespace": "elsewhere", "name": f"copy {subtype}",
                    "facets": {
                        "columnLineage": {
                            "_producer": producer,
                            "_schemaURL": "https://openlineage.io/spec/facets/1-2-0/ColumnLineageDatasetFacet.json",
                            "fields": {
                                "k": {
                                    "inputFields": [
                                        {"namespace": "oracle://x:1521", "name": "A.B", "field": "K", "transformations": [way]}
                                    ]
                                }
                            },
                        }
                    },
                },
            ],
        }  # fmt: skip
        assert import_events(connection, [event], "x").new == 1
        assert as_json(trace(graph(connection), target)) == before
        connection.rollback()
