"""The government data catalogue's metadata (GD Catalog, มรด. 3-1:2565): its keys and its literal choices.

Source: the Thai CKAN schema ``ckanext-thai_gdc`` (``ckan_dataset.json``). Only what the catalogue accepts is
known here; what a publication fills in belongs to the publication.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OTHER = "อื่นๆ"
PUBLIC_CATEGORY = "ข้อมูลสาธารณะ"
STATISTICS = "ข้อมูลสถิติ"
OPEN_CLASSIFICATION = "เปิดเผย"

MANDATORY: tuple[str, ...] = (
    "data_type",
    "title",
    "owner_org",
    "maintainer",
    "maintainer_email",
    "tag_string",
    "notes",
    "objective",
    "update_frequency_unit",
    "geo_coverage",
    "data_source",
    "data_format",
    "data_category",
    "license_id",
)
SEVERAL: frozenset[str] = frozenset({"objective", "data_format", "data_language", "disaggregate"})
"""Keys that hold a list."""

CHOICES: dict[str, tuple[str, ...]] = {
    "data_type": (
        "ข้อมูลระเบียน",
        STATISTICS,
        "ข้อมูลภูมิสารสนเทศเชิงพื้นที่",
        "ข้อมูลหลากหลายประเภท",
        "ข้อมูลประเภทอื่นๆ",
    ),
    "objective": (
        "ยุทธศาสตร์ชาติ",
        "แผนพัฒนาเศรษฐกิจและสังคมแห่งชาติ",
        "แผนความมั่นคงแห่งชาติ",
        "แผนแม่บทภายใต้ยุทธศาสตร์ชาติ",
        "แผนปฏิรูปประเทศ",
        "แผนระดับที่ 3 (มติครม. 4 ธ.ค. 2560)",
        "นโยบายรัฐบาล/ข้อสั่งการนายกรัฐมนตรี",
        "มติคณะรัฐมนตรี",
        "เพื่อการให้บริการประชาชน",
        "กฎหมายที่เกี่ยวข้อง",
        "พันธกิจหน่วยงาน",
        "ดัชนี/ตัวชี้วัดระดับนานาชาติ",
        "ไม่ทราบ",
        OTHER,
    ),
    "update_frequency_unit": (
        "ไม่ทราบ",
        "ปี",
        "ครึ่งปี",
        "ไตรมาส",
        "เดือน",
        "สัปดาห์",
        "วัน",
        "วันทำการ",
        "ชั่วโมง",
        "นาที",
        "ตามเวลาจริง",
        "ไม่มีการปรับปรุงหลังจากการจัดเก็บข้อมูล",
        OTHER,
    ),
    "geo_coverage": (
        "ไม่มี",
        "โลก",
        "ทวีป/กลุ่มประเทศในทวีป",
        "กลุ่มประเทศทางเศรษฐกิจ",
        "ประเทศ",
        "ภาค",
        "จังหวัด",
        "อำเภอ",
        "ตำบล",
        "หมู่บ้าน",
        "เทศบาล/อบต.",
        "พิกัด",
        "ไม่ทราบ",
        OTHER,
    ),
    "data_format": (
        "Database",
        "CSV",
        "XML",
        "Image",
        "Video",
        "Audio",
        "Text",
        "JSON",
        "HTML",
        "DOC/DOCX",
        "XLS",
        "PDF",
        "RDF",
        "NoSQL",
        "Arc/Info Coverage",
        "Shapefile",
        "GeoTiff",
        "GML",
        "ไม่ทราบ",
        OTHER,
    ),
    "data_category": (
        PUBLIC_CATEGORY,
        "ข้อมูลใช้ภายใน",
        "ข้อมูลส่วนบุคคล",
        "ข้อมูลความมั่นคง",
        "ข้อมูลความลับทางราชการ",
    ),
    "license_id": (
        "Open Data Common",
        "Creative Commons Attributions",
        "Creative Commons Attribution Non-Commercial",
        "Creative Commons Attribution Share-Alike",
        "Creative Commons Attribution Non-Commercial Share-Alike",
        "Creative Commons Attribution Non-Commercial No-Derivs",
        "Creative Commons Attribution No-Derivs",
        OTHER,
    ),
    "data_support": (
        "ไม่มี",
        "หน่วยงานของรัฐ",
        "หน่วยงานเอกชน",
        "หน่วยงาน/องค์กรระหว่างประเทศ",
        "มูลนิธิ/สมาคม",
        "สถาบันการศึกษา",
        OTHER,
    ),
    "data_collect": (
        "ไม่มี",
        "บุคคล",
        "ครัวเรือน/ครอบครัว",
        "บ้าน/ที่อยู่อาศัย",
        "บริษัท/ห้างร้าน/สถานประกอบการ",
        "อาคาร/สิ่งปลูกสร้าง",
        "พื้นที่การเกษตร ประมง ป่าไม้",
        "สัตว์และพันธุ์พืช",
        "ขอบเขตเชิงภูมิศาสตร์หรือเชิงพื้นที่",
        "แหล่งน้ำ เช่น แม่น้ำ อ่างเก็บน้ำ",
        "เส้นทางการเดินทาง เช่น ถนน ทางรถไฟ",
        "ไม่ทราบ",
        OTHER,
    ),
    "data_language": (
        "ไทย",
        "อังกฤษ",
        "จีน",
        "มลายู",
        "พม่า",
        "ลาว",
        "เขมร",
        "ญี่ปุ่น",
        "เกาหลี",
        "ฝรั่งเศส",
        "เยอรมัน",
        "อารบิก",
        "ไม่ทราบ",
        OTHER,
    ),
    "disaggregate": (
        "ไม่มี",
        "เพศ",
        "อายุ/กลุ่มอายุ",
        "สถานภาพสมรส",
        "ศาสนา",
        "ระดับการศึกษา",
        "อาชีพ",
        "สถานภาพการทำงาน",
        "อุตสาหกรรม/ประเภทกิจการ",
        "รายได้",
        "ขอบเขตเชิงภูมิศาสตร์หรือเชิงพื้นที่",
        "ผลิตภัณฑ์",
        "ไม่ทราบ",
        OTHER,
    ),
    "unit_of_multiplier": (
        "หน่วย",
        "สิบ",
        "ร้อย",
        "พัน",
        "หมื่น",
        "แสน",
        "ล้าน",
        "สิบล้าน",
        "ร้อยล้าน",
        "พันล้าน",
        "หมื่นล้าน",
        "แสนล้าน",
        "ล้านล้าน",
        "ไม่ทราบ",
        OTHER,
    ),
}

OPTIONAL: frozenset[str] = frozenset(
    {
        "accessible_condition",
        "allow_harvest",
        "calculation_method",
        "created_date",
        "data_collect",
        "data_language",
        "data_release_calendar",
        "data_support",
        "disaggregate",
        "first_year_of_data",
        "last_year_of_data",
        "official_statistics",
        "reference_data",
        "reference_url_catalog",
        "standard",
        "unit_of_multiplier",
        "update_frequency_interval",
        "url",
    }
)
"""Further keys a publication may fill; high value, last update, unit and classification are derived."""

_BOOLEANS = frozenset({"allow_harvest", "official_statistics", "reference_data"})
_ENDS_IN_OTHER = {OTHER, "ข้อมูลประเภทอื่นๆ"}


def known_keys() -> frozenset[str]:
    """Every key that a publication's mapping may have."""
    return frozenset(MANDATORY) | OPTIONAL | {f"{key}_other" for key in CHOICES}


def problems(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, what is wrong) for every item that the catalogue would not take; none means fourteen of
    fourteen."""
    found: list[tuple[str, str]] = []
    missing = [key for key in MANDATORY if not _filled(values.get(key))]
    if missing:
        have = len(MANDATORY) - len(missing)
        message = f"{have} of {len(MANDATORY)} mandatory keys are filled; missing: {', '.join(missing)}"
        found.append(("", message))
    for key, value in values.items():
        if (key in MANDATORY or key in CHOICES) and _filled(value):
            found += [(key, message) for message in _value_problems(key, value)]
        elif key in _BOOLEANS and value not in ("True", "False"):
            found.append((key, 'must be the text "True" or "False"'))
    for key in CHOICES:
        chosen = values.get(key)
        parts = chosen if isinstance(chosen, list) else [chosen]
        if any(part in _ENDS_IN_OTHER for part in parts) and not _filled(values.get(f"{key}_other")):
            found.append((key, f"is {OTHER}, so {key}_other must say which"))
    return found


def _filled(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else bool(value)


def _value_problems(key: str, value: object) -> list[str]:
    if key in SEVERAL:
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            return ["must be a list of texts"]
    elif not isinstance(value, str):
        return ["must be a text"]
    if key == "maintainer_email" and "@" not in str(value):
        return [f"{value!r} is no e-mail address"]
    if key not in CHOICES:
        return []
    parts = value if isinstance(value, list) else [value]
    return [
        f"{part!r} is not a choice of the catalogue; take one of: {' · '.join(CHOICES[key])}"
        for part in parts
        if part not in CHOICES[key]
    ]
