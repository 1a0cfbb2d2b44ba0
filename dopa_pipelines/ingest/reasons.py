"""What each reason code means, for those who must mend the rows: in Thai for bureaus, in English for engineers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Meaning:
    """``thai`` and ``english``: what is wrong; ``remedy_th`` and ``remedy``: what to do about it."""

    thai: str
    english: str
    remedy_th: str
    remedy: str


MEANINGS: dict[str, Meaning] = {
    "missing": Meaning(
        "ไม่มีข้อมูลในช่องที่ต้องมี", "a required value is missing",
        "เติมข้อมูลในช่องนี้", "fill the value in",
    ),
    "bad_number": Meaning(
        "ไม่ใช่ตัวเลข", "the text is no number",
        "พิมพ์เป็นตัวเลขเท่านั้น", "write digits only",
    ),
    "bad_date": Meaning(
        "อ่านเป็นวันที่ไม่ได้", "the text is no date",
        "พิมพ์วันที่เป็น วว/ดด/ปปปป (พ.ศ.)", "write the date as dd/mm/yyyy (Buddhist era)",
    ),
    "impossible_date": Meaning(
        "วันที่นี้ไม่มีอยู่จริง", "there is no such day, such as 31 February",
        "ตรวจวัน เดือน ปี กับหลักฐาน", "compare day, month and year with the document",
    ),
    "future_date": Meaning(
        "วันที่อยู่หลังวันที่ส่งข้อมูล", "the date lies after the day of the delivery",
        "ตรวจปี (พ.ศ. หรือ ค.ศ.) และวันที่กับหลักฐาน", "compare the date, and its era, with the document",
    ),
    "out_of_range": Meaning(
        "ค่าอยู่นอกช่วงที่กำหนด", "the value lies outside of the allowed range",
        "ตรวจค่ากับหลักฐาน", "compare the value with the document",
    ),
    "bad_check_digit": Meaning(
        "เลขประจำตัวประชาชนไม่ถูกต้อง (หลักตรวจสอบไม่ตรง)", "the check digit of the citizen number is wrong",
        "ตรวจเลข 13 หลักกับบัตรหรือทะเบียนบ้าน", "compare the 13 digits with the card or the house registration",
    ),
    "bad_length": Meaning(
        "จำนวนหลักหรือความยาวไม่ถูกต้อง", "the number of digits or characters is wrong",
        "ตรวจว่าครบทุกหลัก (เลขประชาชน 13 หลัก รหัสประจำบ้าน 11 หลัก)",
        "check that no digit is missing (citizen number 13, house code 11)",
    ),
    "bad_pattern": Meaning(
        "รูปแบบไม่ตรงตามที่กำหนด", "the value does not have the form that the contract asks for",
        "พิมพ์ตามรูปแบบที่กำหนด", "write it in that form",
    ),
    "too_long": Meaning(
        "ข้อความยาวเกินกำหนด", "the text is too long",
        "ย่อข้อความ หรือแจ้งเจ้าของข้อตกลงข้อมูล", "shorten it, or have the contract changed",
    ),
    "not_in_list": Meaning(
        "ค่าไม่อยู่ในรายการที่กำหนด", "the value is not in the list of allowed ones",
        "เลือกค่าจากรายการ หรือแจ้งให้เพิ่มค่าใหม่ในข้อตกลงข้อมูล", "use a listed value, or have the new one added to the contract",
    ),
    "unknown_reference": Meaning(
        "รหัสนี้ไม่มีในทะเบียนอ้างอิง", "the code is not in the dataset that it refers to",
        "ตรวจรหัส หรือส่งทะเบียนอ้างอิงฉบับใหม่ก่อน", "correct the code, or deliver the newer reference data first, then replay",
    ),
    "duplicate_key": Meaning(
        "ซ้ำกับแถวอื่นที่มีเลขหลักเดียวกัน", "another row has the same key",
        "คงไว้เพียงแถวที่ถูกต้องแถวเดียว", "keep the one row that is right",
    ),
    "ragged_line": Meaning(
        "จำนวนช่องในบรรทัดไม่ครบหรือเกิน", "the line has too few or too many fields, or another length",
        "ตรวจตัวคั่นและเครื่องหมายคำพูดในบรรทัดนี้ แล้วส่งไฟล์ใหม่", "mend delimiters and quotes of the line and deliver the file again",
    ),
    "undecodable": Meaning(
        "อ่านตัวอักษรไม่ได้ (รหัสอักขระเสียหาย)", "bytes that are no text in the file's encoding, or a broken JSON record",
        "ส่งออกข้อมูลใหม่เป็น UTF-8 หรือ TIS-620", "export the data again as UTF-8 or TIS-620",
    ),
    "mojibake": Meaning(
        "ตัวอักษรไทยเพี้ยน (อ่านผิดรหัสอักขระ)", "Thai text that was once read in the wrong encoding",
        "พิมพ์ข้อความใหม่ หรือส่งออกใหม่จากระบบต้นทาง", "export it again from the system of origin",
    ),
    "out_of_scope": Meaning(
        "แถวนี้เป็นของเดือนอื่น ไม่ตรงกับชื่อไฟล์", "the row belongs to another month than the file's name says",
        "ย้ายแถวไปไว้ในไฟล์ของเดือนนั้น", "move the row into that month's file",
    ),
    "row_rule": Meaning(
        "ข้อมูลในแถวขัดแย้งกันเอง", "values of the row contradict each other",
        "ตรวจช่องที่เกี่ยวข้องกับหลักฐาน", "compare the columns concerned with the document",
    ),
}  # fmt: skip


def meaning(code: str) -> Meaning:
    """What a code means; a row rule's code is ``row_rule:<name>``."""
    kind, _, name = code.partition(":")
    found = MEANINGS.get(kind)
    if found is None:
        return Meaning(code, code, "", "")
    if not name:
        return found
    return Meaning(f"{found.thai} ({name})", f"{found.english} ({name})", found.remedy_th, found.remedy)
