"""A release as DCAT-AP 3 in JSON-LD: catalogue, dataset and a distribution for each file of the data.

Source: DCAT-AP 3.0 (SEMIC), the European application profile of the W3C's DCAT, with the vocabularies of the EU's Publications
Office where the profile asks for them. What the GD Catalog says in Thai is looked up here; nothing is decided.

Addresses are relative to the file, ``/releases/<name>/<version>/dcat.jsonld``: they hold wherever the folder of releases is
served, and the dataset is ``/releases/<name>/`` in every version.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from dopa_pipelines.publishing.folders import WrittenFile
from dopa_pipelines.publishing.publication import Publication
from dopa_pipelines.publishing.writers import MEDIA_TYPES

_AUTHORITY = "http://publications.europa.eu/resource/authority/"
_LICENCES = {"CC-BY-4.0": "CC_BY_4_0", "ODC-BY-1.0": "ODC_BY"}
_FILE_TYPES = {"csv": "CSV", "json": "JSON", "parquet": "PARQUET", "xlsx": "XLSX", "geojson": "GEOJSON"}
# By the GD Catalog's unit and interval; whatever is not here is OTHER.
_FREQUENCIES: dict[tuple[str, int], str] = {
    ("ปี", 1): "ANNUAL",
    ("ปี", 2): "BIENNIAL",
    ("ปี", 3): "TRIENNIAL",
    ("ครึ่งปี", 1): "ANNUAL_2",
    ("ไตรมาส", 1): "QUARTERLY",
    ("เดือน", 1): "MONTHLY",
    ("เดือน", 2): "BIMONTHLY",
    ("เดือน", 3): "QUARTERLY",
    ("เดือน", 6): "ANNUAL_2",
    ("เดือน", 12): "ANNUAL",
    ("สัปดาห์", 1): "WEEKLY",
    ("สัปดาห์", 2): "BIWEEKLY",
    ("วัน", 1): "DAILY",
    ("วันทำการ", 1): "DAILY",
    ("ชั่วโมง", 1): "HOURLY",
    ("ตามเวลาจริง", 1): "UPDATE_CONT",
    ("ไม่มีการปรับปรุงหลังจากการจัดเก็บข้อมูล", 1): "NEVER",
    ("ไม่ทราบ", 1): "UNKNOWN",
}
CONTEXT: dict[str, Any] = {
    "adms": "http://www.w3.org/ns/adms#",
    "dcat": "http://www.w3.org/ns/dcat#",
    "dcatap": "http://data.europa.eu/r5r/",
    "dct": "http://purl.org/dc/terms/",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "spdx": "http://spdx.org/rdf/terms#",
    "vcard": "http://www.w3.org/2006/vcard/ns#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}


def dcat(
    publication: Publication,
    files: Mapping[str, WrittenFile],
    *,
    version: str,
    day: date,
    span: tuple[date, date] | None,
    previous: str | None,
) -> dict[str, Any]:
    """The document. ``files``: of the data, by format. ``day``: of the release. ``span``: first and last day that the data is of,
    where it has days. ``previous``: the version before this one."""
    agent = {"@id": "../../#publisher", "@type": "foaf:Agent", "foaf:name": _thai(publication.gd_catalog["owner_org"])}
    licence = {"@id": f"{_AUTHORITY}licence/{_LICENCES[publication.licence]}", "@type": "dct:LicenseDocument"}
    languages = [{"@id": f"{_AUTHORITY}language/{code}", "@type": "dct:LinguisticSystem"} for code in ("THA", "ENG")]
    issued = {"@value": day.isoformat(), "@type": "xsd:date"}
    dataset: dict[str, Any] = {
        "@id": "../",
        "@type": "dcat:Dataset",
        "dct:identifier": publication.name,
        "dct:title": _both(publication.title_th, publication.title_en),
        "dct:description": _both(publication.description_th, publication.description_en),
        "dct:publisher": agent,
        "dcat:contactPoint": {
            "@id": "#contact",
            "@type": "vcard:Kind",
            "vcard:fn": publication.contact.name,
            "vcard:hasEmail": {"@id": f"mailto:{publication.contact.email}"},
        },
        "dcat:keyword": [_thai(word.strip()) for word in publication.gd_catalog["tag_string"].split(",") if word.strip()],
        "dcat:theme": [
            {"@id": f"{_AUTHORITY}data-theme/{theme}", "@type": "skos:Concept", "skos:prefLabel": _english(label)}
            for theme, label in _themes(publication)
        ],
        "dct:accessRights": {"@id": f"{_AUTHORITY}access-right/PUBLIC", "@type": "dct:RightsStatement"},
        "dct:accrualPeriodicity": {"@id": f"{_AUTHORITY}frequency/{_frequency(publication)}", "@type": "dct:Frequency"},
        "dct:spatial": {"@id": f"{_AUTHORITY}country/THA", "@type": "dct:Location"},
        "dct:language": languages,
        "dct:modified": issued,
        "dcat:version": version,
        "adms:versionNotes": _english("What changed since the version before: changes.json in the folder of the release."),
        "dcat:landingPage": {"@id": "./", "@type": "foaf:Document"},
        "dcat:distribution": [
            {
                "@id": f"#{form}",
                "@type": "dcat:Distribution",
                "dct:title": _both(f"{publication.title_th} ({form})", f"{publication.title_en} ({form})"),
                "dct:description": _both(
                    "คำอธิบายข้อมูลอยู่ใน data_dictionary.csv", "The data dictionary is data_dictionary.csv in the same folder."
                ),
                "dcat:accessURL": {"@id": "./"},
                "dcat:downloadURL": {"@id": file.name},
                "dct:license": licence,
                "dct:format": {"@id": f"{_AUTHORITY}file-type/{_FILE_TYPES[form]}", "@type": "dct:MediaTypeOrExtent"},
                "dcat:mediaType": {
                    "@id": f"https://www.iana.org/assignments/media-types/{MEDIA_TYPES[form]}",
                    "@type": "dct:MediaType",
                },
                "dcatap:availability": {
                    "@id": f"{_AUTHORITY}planned-availability/STABLE",
                    "@type": "skos:Concept",
                    "skos:prefLabel": _english("stable"),
                },
                "dcat:byteSize": {"@value": str(file.bytes), "@type": "xsd:nonNegativeInteger"},
                "spdx:checksum": {
                    "@id": f"#{form}-checksum",
                    "@type": "spdx:Checksum",
                    "spdx:algorithm": {"@id": "spdx:checksumAlgorithm_sha256", "@type": "spdx:ChecksumAlgorithm"},
                    "spdx:checksumValue": {"@value": file.sha256, "@type": "xsd:hexBinary"},
                },
                "dct:language": languages,
                "dct:issued": issued,
                "dct:modified": issued,
            }
            for form, file in files.items()
        ],
    }
    if previous:
        dataset["dcat:previousVersion"] = {"@id": f"../{previous}/"}
    if span:
        dataset["dct:temporal"] = {
            "@id": "#period",
            "@type": "dct:PeriodOfTime",
            "dcat:startDate": {"@value": span[0].isoformat(), "@type": "xsd:date"},
            "dcat:endDate": {"@value": span[1].isoformat(), "@type": "xsd:date"},
        }
    return {
        "@context": CONTEXT,
        "@id": "../../",
        "@type": "dcat:Catalog",
        "dct:title": _both("ข้อมูลเปิดของกรมการปกครอง", "Open data of the Department of Provincial Administration"),
        "dct:description": _both(
            "ชุดข้อมูลเปิดที่กรมการปกครองเผยแพร่ตามรอบเวลา",
            "The open data sets that the Department of Provincial Administration publishes, as they are released.",
        ),
        "dct:publisher": agent,
        "dct:language": languages,
        "dct:spatial": {"@id": f"{_AUTHORITY}country/THA", "@type": "dct:Location"},
        "dcat:dataset": dataset,
    }


def _themes(publication: Publication) -> list[tuple[str, str]]:
    """Of the EU's data themes: it is the government's data; counts of people are about population, areas about regions."""
    found = [("GOVE", "Government and public sector")]
    if publication.unit_of_count == "คน":
        found.append(("SOCI", "Population and society"))
    if publication.geometry:
        found.append(("REGI", "Regions and cities"))
    return found


def _frequency(publication: Publication) -> str:
    values = publication.gd_catalog
    return _FREQUENCIES.get((values["update_frequency_unit"], int(values.get("update_frequency_interval", 1))), "OTHER")


def _thai(text: str) -> dict[str, str]:
    return {"@value": text, "@language": "th"}


def _english(text: str) -> dict[str, str]:
    return {"@value": text, "@language": "en"}


def _both(thai: str, english: str) -> list[dict[str, str]]:
    return [_thai(thai), _english(english)]
