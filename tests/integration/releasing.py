"""A small publication, and what tests ask of its releases; its table and its folder are fixtures (conftest)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from dopa_pipelines.publishing import Publication
from dopa_pipelines.warehouse import Role, Warehouse

PUBLICATION = {
    "version": "1.0.0",
    "titleEn": "Places",
    "titleTh": "สถานที่",
    "descriptionEn": "Places for testing.",
    "descriptionTh": "สถานที่สำหรับทดสอบ",
    "source": "open_data.places_to_test",
    "columns": [
        {"name": name, "source": source, "type": kind, "descriptionEn": name, "descriptionTh": "ไทย"}
        for name, source, kind in [
            ("code", "code", "string"),
            ("name", "name_th", "string"),
            ("people", "people", "integer"),
            ("area", "area", "number"),
            ("since", "since", "date"),
            ("city", "city", "boolean"),
        ]
    ],
    "orderBy": ["code"],
    "formats": ["csv", "json", "parquet"],
    "schedule": "0 6 5 * *",
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
        "title": "สถานที่",
        "owner_org": "กรมการปกครอง",
        "maintainer": "สำนักบริหารการทะเบียน",
        "maintainer_email": "open-data@dopa.example",
        "tag_string": "สถานที่",
        "notes": "สถานที่",
        "objective": ["พันธกิจหน่วยงาน"],
        "update_frequency_unit": "เดือน",
        "geo_coverage": "ประเทศ",
        "data_source": "กรมการปกครอง",
        "data_format": ["CSV", "JSON", "อื่นๆ"],
        "data_format_other": "Parquet",
        "data_category": "ข้อมูลสาธารณะ",
        "license_id": "Open Data Common",
    },
}


def publication(name: str, **changes: object) -> Publication:
    return Publication.model_validate_json(json.dumps({"name": name, **PUBLICATION, **changes}))


def records(warehouse: Warehouse, name: str) -> list[tuple[str, dict[str, object], list[dict[str, object]]]]:
    with warehouse.connect(Role.READER) as connection:
        return connection.execute(
            "select kind, detail, inputs from lineage.write where target = %s order by id",
            [f"release:{name}"],
        ).fetchall()


def assert_whole(folder: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "checksums.sha256"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    listed = (folder / "checksums.sha256").read_text().splitlines()
    assert {line.split("  ")[1] for line in listed} | {"checksums.sha256", "release.json"} == {
        path.name for path in folder.iterdir()
    }
