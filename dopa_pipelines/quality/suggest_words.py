"""Words of column titles: what a column is called in English, and which words tell of a person.

A title that is not understood is no harm: the column is named by its place. A word of a person that is missed would be: where in
doubt it is here, and a steward takes the suggestion back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("เลขประจำตัวประชาชน", "pid"), ("เลขบัตรประชาชน", "pid"), ("หมายเลขบัตรประชาชน", "pid"), ("เลขประชาชน", "pid"),
    ("เลขประจำตัวเด็ก", "child_pid"), ("เลขประจำตัวบุตร", "child_pid"), ("เลขประจำตัวมารดา", "mother_pid"),
    ("เลขประจำตัวบิดา", "father_pid"), ("เลขประจำตัวผู้ตาย", "pid"), ("เลขประจำตัวคู่สมรส", "spouse_pid"),
    ("เลขประจำตัวผู้เสียภาษี", "tax_id"), ("เลขหนังสือเดินทาง", "passport_no"), ("เลขที่หนังสือเดินทาง", "passport_no"),
    ("คำนำหน้านาม", "title"), ("คำนำหน้าชื่อ", "title"), ("คำนำหน้า", "title"), ("ชื่อ-สกุล", "full_name"),
    ("ชื่อ-นามสกุล", "full_name"), ("ชื่อสกุล", "last_name"), ("นามสกุล", "last_name"), ("สกุล", "last_name"),
    ("ชื่อตัว", "first_name"), ("ชื่อกลาง", "middle_name"), ("ชื่อภาษาไทย", "name_th"), ("ชื่อภาษาอังกฤษ", "name_en"),
    ("ชื่อโรงแรม", "hotel_name"), ("ชื่อหมู่บ้าน", "village_name"), ("ชื่อจังหวัด", "province_name"),
    ("ชื่ออำเภอ", "district_name"), ("ชื่อตำบล", "tambon_name"), ("ชื่อหน่วยงาน", "agency"), ("ชื่อบิดา", "father_name"),
    ("ชื่อมารดา", "mother_name"), ("ชื่อ", "first_name"), ("วันเดือนปีเกิด", "birth_date"), ("วันเกิด", "birth_date"),
    ("วันที่เกิด", "birth_date"), ("วันที่ตาย", "death_date"), ("วันตาย", "death_date"), ("วันที่แจ้ง", "registered_on"),
    ("วันที่จดทะเบียน", "registered_on"), ("วันออกบัตร", "issued_on"), ("วันที่ออกบัตร", "issued_on"),
    ("วันที่ออกใบอนุญาต", "issued_on"), ("วันบัตรหมดอายุ", "expires_on"), ("วันหมดอายุ", "expires_on"),
    ("วันเริ่มดำรงตำแหน่ง", "start_date"), ("วันพ้นตำแหน่ง", "end_date"), ("วันที่เริ่ม", "start_date"),
    ("วันที่สิ้นสุด", "end_date"), ("วันที่ย้ายเข้า", "moved_in_date"), ("วันที่ย้ายออก", "moved_out_date"),
    ("วันที่รับเรื่อง", "received_on"), ("วันที่ยกเลิก", "abolished_on"), ("วันที่กำหนดบ้านเลขที่", "registered_on"),
    ("วันที่", "date"), ("วันเดือนปี", "date"), ("ปีงบประมาณ", "fiscal_year"), ("ปีพ.ศ.", "year"), ("ปี", "year"),
    ("เดือน", "month"), ("งวด", "period"), ("รหัสประจำบ้าน", "house_code"), ("เลขรหัสประจำบ้าน", "house_code"),
    ("บ้านเลขที่", "house_no"), ("ประเภทบ้าน", "house_type"), ("สถานะบ้าน", "house_status"), ("ที่อยู่", "address"),
    ("ถนน", "street"), ("ซอย", "lane"), ("หมู่ที่", "moo"), ("หมู่", "moo"), ("รหัสไปรษณีย์", "postcode"),
    ("รหัสหมู่บ้าน", "village_code"), ("รหัสตำบล", "tambon_code"), ("รหัสอำเภอ", "district_code"),
    ("รหัสจังหวัด", "province_code"), ("รหัสสำนักทะเบียน", "office_code"), ("สำนักทะเบียน", "office_code"),
    ("หมู่บ้าน", "village"), ("ตำบล", "tambon"), ("แขวง", "tambon"), ("อำเภอ", "district"), ("เขต", "district"),
    ("จังหวัด", "province"), ("ภาค", "region"), ("เพศ", "sex"), ("อายุ", "age_years"), ("สัญชาติ", "nationality"),
    ("เชื้อชาติ", "ethnicity"), ("ศาสนา", "religion"), ("อาชีพ", "occupation"), ("การศึกษา", "education"),
    ("รายได้", "income"), ("สถานภาพสมรส", "marital_status"), ("สถานภาพ", "status"), ("สถานะบุคคล", "person_status"),
    ("สถานะ", "status"), ("กรุ๊ปเลือด", "blood_group"), ("หมู่โลหิต", "blood_group"), ("โทรศัพท์มือถือ", "mobile"),
    ("หมายเลขโทรศัพท์", "phone"), ("เบอร์โทรศัพท์", "phone"), ("เบอร์โทร", "phone"), ("โทรศัพท์", "phone"),
    ("อีเมล", "email"), ("เลขบัญชี", "bank_account"), ("เลขที่บัญชี", "bank_account"), ("เลขที่สูติบัตร", "birth_no"),
    ("เลขที่มรณบัตร", "death_no"), ("เลขที่คำขอ", "request_no"), ("เลขที่ใบอนุญาต", "licence_no"),
    ("เลขที่เรื่อง", "case_no"), ("เลขที่", "number"), ("ลำดับที่", "row_no"), ("ลำดับ", "row_no"), ("ที่", "row_no"),
    ("ตำแหน่ง", "post"), ("หน่วยงาน", "agency"), ("สำนัก", "bureau"), ("เหตุที่ขอมีบัตร", "reason"), ("เหตุผล", "reason"),
    ("สาเหตุ", "cause"), ("กลุ่มสาเหตุการตาย", "cause_group"), ("สาเหตุการตาย", "cause_of_death"),
    ("น้ำหนักแรกเกิด", "weight_grams"), ("น้ำหนัก", "weight"), ("ส่วนสูง", "height"), ("โรค", "disease"),
    ("รายละเอียด", "detail"), ("หมายเหตุ", "note"), ("เรื่อง", "topic"), ("ช่องทาง", "channel"),
    ("ผลการดำเนินการ", "outcome"), ("ประเภท", "type"), ("รหัสที่ใช้แทน", "successor"), ("รหัส", "code"), ("จำนวนชาย", "male"),
    ("จำนวนหญิง", "female"), ("จำนวนบ้าน", "houses"), ("จำนวนคน", "people"), ("จำนวนห้อง", "rooms"), ("จำนวนเงิน", "amount"),
    ("จำนวนครั้ง", "times"), ("จำนวน", "count"), ("ชาย", "male"), ("หญิง", "female"), ("รวม", "total"), ("บ้าน", "houses"),
    ("ละติจูด", "latitude"), ("ลองจิจูด", "longitude"),
)  # fmt: skip
"""Titles of the department's silos in Thai, without spaces, and the column names that its datasets use."""

DIRECT = (
    "เลขประจำตัว", "บัตรประชาชน", "เลขประชาชน", "ชื่อ", "สกุล", "หนังสือเดินทาง", "พาสปอร์ต", "โทรศัพท์", "เบอร์โทร",
    "มือถือ", "อีเมล", "เลขบัญชี", "เลขที่บัญชี", "ผู้เสียภาษี", "สูติบัตร", "มรณบัตร", "ลายนิ้วมือ", "ภาพถ่าย", "ใบหน้า",
    "ทะเบียนรถ", "ไลน์", "ลายเซ็น", "pid", "cid", "citizen", "national_id", "nationalid", "id_card", "idcard", "name",
    "surname", "passport", "phone", "mobile", "tel", "email", "mail", "account", "tax_id", "line_id", "fingerprint", "photo",
    "face", "licence_plate", "plate", "signature", "birth_no", "death_no", "person_id", "personid", "ผู้", "เจ้าของ",
    "กรรมการ", "บุคคล", "owner", "holder", "applicant", "complainant", "licensee", "person", "contact", "guardian", "spouse",
    "mother", "father", "child",
)  # fmt: skip
"""Words of what names one person or reaches them."""
SENSITIVE = (
    "เชื้อชาติ", "ศาสนา", "ลัทธิ", "ความเชื่อ", "ปรัชญา", "การเมือง", "พฤติกรรมทางเพศ", "ประวัติอาชญากรรม", "อาชญากรรม",
    "โทษ", "คดี", "สุขภาพ", "โรค", "พิการ", "สหภาพ", "พันธุกรรม", "ชีวภาพ", "สาเหตุการตาย", "น้ำหนัก", "ส่วนสูง",
    "กรุ๊ปเลือด", "หมู่โลหิต", "ยา", "แพ้ยา", "วินิจฉัย", "ethnic", "race", "religio", "belief", "politic", "sexual",
    "crimin", "convict", "health", "disease", "illness", "disab", "union", "genetic", "biometric", "cause_of_death", "cause",
    "weight", "height", "blood", "diagnos", "medic", "fingerprint", "face",
)  # fmt: skip
"""Words of section 26 of the PDPA: race, opinion, belief, sexual behaviour, crime, health, disability, union, genes, body."""
FREE_TEXT = (
    "รายละเอียด", "หมายเหตุ", "ข้อความ", "คำร้อง", "เนื้อหา", "detail", "note", "remark", "comment", "text", "message",
    "statement", "narrative",
)  # fmt: skip
"""Words of what people write freely, where anything may stand."""
QUASI = (
    "เกิด", "ตาย", "เพศ", "อายุ", "สัญชาติ", "อาชีพ", "การศึกษา", "รายได้", "สมรส", "ที่อยู่", "บ้านเลขที่", "รหัสประจำบ้าน",
    "เลขรหัสบ้าน", "ถนน", "ซอย", "คำนำหน้า", "ย้ายเข้า", "ย้ายออก", "ละติจูด", "ลองจิจูด", "พิกัด", "birth", "born", "dob",
    "death", "sex", "gender", "age", "nationality", "occupation", "education", "income", "salary", "marital", "address",
    "house_no", "house_code", "houseid", "street", "lane", "title", "prefix", "moved", "latitude", "longitude", "lat", "lon",
    "gps",
)  # fmt: skip
"""Words of what tells persons apart together with other things."""
THINGS = (
    "โรงแรม", "หมู่บ้าน", "จังหวัด", "อำเภอ", "ตำบล", "หน่วยงาน", "สำนัก", "ส่วนราชการ", "บริษัท", "โครงการ", "ไฟล์",
    "ชุดข้อมูล", "บริการ", "ชื่อเรื่อง", "hotel", "village", "province", "district", "tambon", "subdistrict", "agency",
    "office", "company", "project", "service", "file", "dataset", "column", "table", "region", "country", "area", "place",
    "type", "group", "class",
)  # fmt: skip
"""Whose name is not a person's."""
_PERSONS = ("ผู้", "เจ้าของ", "บุคคล", "กรรมการ", "หัวหน้า", "ประธาน", "นาย", "คน", "กำนัน")
COUNTS = (
    "จำนวน", "รวม", "ยอด", "บาท", "ราคา", "อายุ", "น้ำหนัก", "ส่วนสูง", "ชาย", "หญิง", "คน", "ครั้ง", "ห้อง", "หลัง",
    "ร้อยละ", "พื้นที่", "คะแนน", "count", "total", "sum", "amount", "number_of", "rooms", "calls", "people", "population",
    "male", "female", "houses", "age", "weight", "height", "price", "cost", "percent", "rate", "area_km", "score", "times",
    "quantity", "qty", "income", "salary",
)  # fmt: skip
"""Words of what is counted or measured, and so a number."""
CODES = (
    "รหัส", "เลขที่", "เลขประจำตัว", "หมายเลข", "เบอร์", "โทรศัพท์", "code", "_no", "no.", "number", "_id", "phone", "tel",
    "postcode", "zip",
)  # fmt: skip
"""Words of what is written in digits and no number."""
EXPIRES = ("หมดอายุ", "สิ้นสุด", "พ้น", "ครบกำหนด", "expire", "expir", "end_date", "valid_to", "due", "until")
"""Words of days that may be yet to come."""


def plain(title: str) -> str:
    """A title as its words are looked up: no spaces around hyphens and in Thai, small letters, what is in brackets left out."""
    text = re.sub(r"\([^)]*\)|\[[^\]]*\]", " ", title.casefold())
    text = re.sub(r"\s*-\s*", "-", text)
    text = re.sub(r"(?<=[\u0e00-\u0e7f])\s+(?=[\u0e00-\u0e7f])", "", text)
    return text.strip()


def english(title: str) -> str | None:
    """A column name for a title: from the glossary, or of the title itself where it is ASCII; None where neither."""
    text = plain(title)
    for thai, name in sorted(GLOSSARY, key=lambda pair: -len(pair[0])):
        if text == thai:
            return name
    if re.search(r"[a-z]", text) and text.isascii():
        split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", title.strip())
        name = re.sub(r"[^a-z0-9]+", "_", split.casefold()).strip("_")
        return (name if name[:1].isalpha() else f"c_{name}")[:55] or None
    begins = [(thai, name) for thai, name in GLOSSARY if len(thai) >= 4 and text.startswith(thai)]
    return max(begins, key=lambda pair: len(pair[0]))[1] if begins else None


def has_word(title: str, words: Iterable[str]) -> bool:
    """Whether one of the words is in the title. Short ASCII words must stand by themselves (``age`` is not in ``agency``)."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", title)
    text = plain(split)
    parts = {part.rstrip("0123456789") for part in re.split(r"[^a-z0-9\u0e00-\u0e7f]+", text)}
    for word in words:
        if not word.isascii():
            if word == "ยา":
                if text == word:
                    return True
            elif word in text:
                return True
        elif len(word) <= 5 and "_" not in word:
            if word in parts or word + "s" in parts:
                return True
        elif word in text or word in re.sub(r"[^a-z0-9]+", "_", text):
            return True
    return False


def names_a_thing(title: str) -> bool:
    """Whether a title is of the name of a place, an office or another thing, and of nothing else."""
    text = plain(title)
    if any(person in text for person in _PERSONS):
        return False
    things = "|".join(sorted(map(re.escape, THINGS), key=len, reverse=True))
    snake = re.sub(r"[^a-z0-9\u0e00-\u0e7f]+", "_", text).strip("_")
    return bool(re.match(rf"^ชื่อ(?:{things})", text) or re.fullmatch(rf"(?:name_of_)?(?:{things})(?:_name)?(?:_th|_en)?", snake))
