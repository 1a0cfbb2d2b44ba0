"""What goes out beside the data: data dictionary, GD Catalog metadata, Frictionless data package.

All of it follows from the publication and the files; a clock enters only as the day of the release, which its
version has too.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from datetime import date
from typing import Any

from dopa_pipelines.publishing import gd_catalog
from dopa_pipelines.publishing.folders import WrittenFile
from dopa_pipelines.publishing.publication import LICENCES, Publication, PublishedColumn
from dopa_pipelines.publishing.writers import BOM, MEDIA_TYPES

_CSV_NOTE = (
    "A text that a spreadsheet would take for a formula (it begins with = + - @, a tab or a line end) has an apostrophe in front."
)


def dictionary_rows(publication: Publication) -> list[list[str]]:
    """Name, type, description (English, Thai) and unit of every column, a header first; มรด. 3-1:2565 asks for the first
    three."""
    return [
        ["name", "type", "description_en", "description_th", "unit"],
        *([column.name, column.type, *described(publication, column), column.unit or ""] for column in publication.columns),
    ]


def described(publication: Publication, column: PublishedColumn) -> tuple[str, str]:
    """Description in English and Thai, with what disclosure control does to the column's values."""
    rule = publication.disclosure
    told = {measure.column for measure in rule.measures} | {rate.column for rate in rule.rates} if rule else set()
    if rule is None or column.name not in told:
        return column.description_en, column.description_th
    words = {
        "suppression": (
            f"Empty: withheld so that nobody can be told (fewer than {rule.threshold}, or needed to hide such a figure).",
            f"ว่าง: ไม่เปิดเผยเพื่อคุ้มครองบุคคล (น้อยกว่า {rule.threshold} หรือเพื่อป้องกันการคำนวณย้อนกลับ)",
        ),
        "rounding": (f"Rounded to multiples of {rule.base}.", f"ปัดเป็นจำนวนเท่าของ {rule.base}"),
        "cell_key": ("Changed by a small random amount.", "ปรับค่าด้วยจำนวนสุ่มขนาดเล็กเพื่อคุ้มครองบุคคล"),
    }[rule.method]
    return f"{column.description_en.rstrip('.')}. {words[0]}", f"{column.description_th} {words[1]}"


def data_dictionary(publication: Publication) -> bytes:
    """The data dictionary as CSV, with a byte order mark where the data has one."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(dictionary_rows(publication))
    return (BOM if publication.excel else b"") + text.getvalue().encode()


def metadata(publication: Publication) -> dict[str, Any]:
    """The GD Catalog's keys, literally; the release adds ``last_updated_date``."""
    filled = {key: publication.gd_catalog[key] for key in gd_catalog.MANDATORY}
    others = {key: value for key, value in publication.gd_catalog.items() if key not in filled}
    if "update_frequency_interval" in others:
        others["update_frequency_interval"] = str(others["update_frequency_interval"])
    if publication.unit_of_count and filled["data_type"] == gd_catalog.STATISTICS:
        others["unit_of_measure"] = publication.unit_of_count
    return {
        "name": publication.name,
        **filled,
        **others,
        "data_classification": gd_catalog.OPEN_CLASSIFICATION,
        "high_value_dataset": str(publication.approval.high_value),
    }


def dated(values: Mapping[str, Any], day: date) -> dict[str, Any]:
    """Metadata with the day of the release."""
    return {**values, "last_updated_date": day.isoformat()}


def data_package(publication: Publication, files: Mapping[str, WrittenFile], *, keyed: bool = False) -> dict[str, Any]:
    """A Frictionless data package (specs.frictionlessdata.io, version 1) of the data files, which come by format.

    CSV and xlsx have a table schema that their rows can be validated by; the others are named with the columns they hold.
    ``keyed``: no two rows share the columns of ``orderBy``, so they are the primary key. The release adds its version.
    """
    licence = LICENCES[publication.licence]
    fields = [
        {
            "name": column.name,
            "type": column.type,
            "description": "{} ({})".format(*described(publication, column)),
            **({"unit": column.unit} if column.unit else {}),
            # As the files have it: 0.50 and true, never 0,50 or yes.
            **({"trueValues": ["true", "TRUE"], "falseValues": ["false", "FALSE"]} if column.type == "boolean" else {}),
        }
        for column in publication.columns
    ]
    schema: dict[str, Any] = {"fields": fields, "missingValues": [""]}
    if keyed:
        schema["primaryKey"] = list(publication.order_by)
    return {
        "profile": "data-package",
        "name": publication.name,
        "title": f"{publication.title_en} ({publication.title_th})",
        "description": f"{publication.description_en}\n\n{publication.description_th}",
        "licenses": [{"name": publication.licence, "title": licence.title, "path": licence.path}],
        "contributors": [
            {
                "title": publication.contact.name,
                "email": publication.contact.email,
                "role": "publisher",
            }
        ],
        "sources": [{"title": publication.gd_catalog["data_source"]}],
        "resources": [
            {
                "name": f"{publication.name}-{form}",
                "path": file.name,
                **_FORMS[form],
                "format": form,
                "mediatype": MEDIA_TYPES[form],
                "bytes": file.bytes,
                "hash": f"sha256:{file.sha256}",
                **({"description": _CSV_NOTE} if form == "csv" else {}),
                "schema": schema,
            }
            for form, file in files.items()
        ],
    }


_FORMS: dict[str, dict[str, Any]] = {
    # utf-8-sig reads a byte order mark and does without one.
    "csv": {"profile": "tabular-data-resource", "encoding": "utf-8-sig", "dialect": {"delimiter": ",", "lineTerminator": "\n"}},
    "xlsx": {"profile": "tabular-data-resource", "dialect": {"excel": {"sheet": "data"}}},
    "json": {"profile": "data-resource", "encoding": "utf-8"},
    # Frictionless has no reader of its own for these; it checks size and digest of a file.
    "parquet": {"profile": "data-resource", "type": "file"},
    "geojson": {"profile": "data-resource", "type": "file", "encoding": "utf-8"},
}


def as_json(value: Mapping[str, Any]) -> bytes:
    """JSON for people and machines: indented, Thai unescaped, keys in the order given."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
