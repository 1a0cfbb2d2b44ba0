"""The release of an extract against PostgreSQL's COPY of the same rows in the same order, through a client into a file.

Every run is a process of its own, so that memory peaks are its own. A release is all of it: snapshot, rows, files, digests,
descriptions, lineage; the files are flushed to disk, those of the COPY are not.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.measure import Row
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse

SIZES = (2_000_000, 10_000_000)
RUNS = {2_000_000: 3, 10_000_000: 1}
TABLE = "open_data.bench_{}"
FORMATS = ("csv", "parquet", "csv+parquet")
MADE_BY = """
select date '2020-01-01' + (i % 1500)::int as month, lpad((i % 9999)::text, 4, '0') as area_code,
    'อำเภอเมือง' || (i % 900) as name_th, 'Mueang ' || (i % 900) as name_en,
    (i * 7919 % 100000)::integer as male, i * 104729 % 100000 as female,
    ((i * 31 % 10000) / 100.0)::numeric(8, 2) as share, i % 3 = 0 as complete, i as id
from generate_series(1::bigint, {rows}) as i
"""
PUBLICATION: dict[str, Any] = {
    "version": "1.0.0",
    "titleEn": "Counts",
    "titleTh": "จำนวน",
    "descriptionEn": "Counts to measure a release by.",
    "descriptionTh": "จำนวนสำหรับวัดความเร็ว",
    "columns": [
        {"name": name, "source": name, "type": kind, "descriptionEn": name, "descriptionTh": "คอลัมน์"}
        for name, kind in [
            ("month", "date"),
            ("area_code", "string"),
            ("name_th", "string"),
            ("name_en", "string"),
            ("male", "integer"),
            ("female", "integer"),
            ("share", "number"),
            ("complete", "boolean"),
            ("id", "integer"),
        ]
    ],
    "orderBy": ["month", "area_code"],
    "schedule": "each month",
    "licence": "ODC-BY-1.0",
    "contact": {"name": "สำนักบริหารการทะเบียน", "email": "open-data@dopa.example"},
    "approval": {
        "by": "คณะกรรมการธรรมาภิบาลข้อมูล",
        "approvedOn": "2025-10-01",
        "document": "มท 0309/1",
        "reviewOn": "2027-09-30",
        "highValue": False,
    },
    "gdCatalog": {
        "data_type": "ข้อมูลสถิติ",
        "title": "จำนวน",
        "owner_org": "กรมการปกครอง",
        "maintainer": "สำนักบริหารการทะเบียน",
        "maintainer_email": "open-data@dopa.example",
        "tag_string": "จำนวน",
        "notes": "จำนวนสำหรับวัดความเร็ว",
        "objective": ["พันธกิจหน่วยงาน"],
        "update_frequency_unit": "เดือน",
        "geo_coverage": "ประเทศ",
        "data_source": "กรมการปกครอง",
        "data_format": ["CSV", "อื่นๆ"],
        "data_format_other": "Parquet",
        "data_category": "ข้อมูลสาธารณะ",
        "license_id": "Open Data Common",
    },
}


def measure(settings: Settings) -> list[Row]:
    """Rows of the table. ``settings``: a state folder that may be filled with gigabytes."""
    found = []
    peaks: dict[int, float] = {}
    with open_warehouse(settings) as warehouse:
        for size in SIZES:
            _fill(warehouse, size)
            runs: dict[str, list[dict[str, float]]] = {}
            for _ in range(RUNS[size]):
                # By turns, so that a slow minute of the machine is everybody's.
                for what in ("copy", *FORMATS):
                    runs.setdefault(what, []).append(_run(settings, what, size))
            seconds = {what: statistics.median(run["seconds"] for run in each) for what, each in runs.items()}
            peaks[size] = max(run["peak_mb"] for what, each in runs.items() if what != "copy" for run in each)
            for what in FORMATS:
                ratio = seconds[what] / seconds["copy"]
                bound = what != "csv+parquet"
                found.append(
                    Row(
                        f"release of {size:,} rows as {what.replace('+', ' and ')}",
                        f"{seconds[what]:.2f} s, {max(run['peak_mb'] for run in runs[what]):.0f} MB",
                        f"COPY TO of the same rows {seconds['copy']:.2f} s",
                        f"{ratio:.2f}",
                        "≤ 1.5" if bound else "",
                        ratio <= 1.5 if bound else None,
                    )
                )
            _drop(warehouse, size)
    growth = peaks[SIZES[-1]] / peaks[SIZES[0]]
    found.append(
        Row(
            "memory of a release, 10 million rows over 2 million",
            f"{peaks[SIZES[-1]]:.0f} MB",
            f"{peaks[SIZES[0]]:.0f} MB",
            f"{growth:.2f}",
            "≤ 1.2",
            growth <= 1.2,
        )
    )
    return found


def _run(settings: Settings, what: str, rows: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.release_once", str(settings.state), what, str(rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def _fill(warehouse: Warehouse, rows: int) -> None:
    made_by = MADE_BY.format(rows=rows)
    table = TABLE.format(rows)
    with warehouse.connect(Role.TRANSFORMER) as connection:
        connection.execute(f"create table {table} as {made_by}".encode())
        # As dbt's hook does for a model: nothing goes out whose making is not on record.
        connection.execute(
            "select lineage.record_write('model', %s, 'bench', p_rows_out => %s,"
            " p_code => jsonb_build_object('compiled', %s::text))",
            (table, rows, made_by),
        )
        connection.commit()
        connection.execute(f"analyze {table}".encode())
        connection.commit()


def _drop(warehouse: Warehouse, rows: int) -> None:
    with warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection:
        connection.execute(f"drop table {TABLE.format(rows)}".encode())
