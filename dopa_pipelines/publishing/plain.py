"""What a publication says of the protection of people, in plain words, Thai and English, for readers of its page.

Only words belong here: what the rules do is ``disclosure``, what each column's figures carry is ``describe``.
"""

from __future__ import annotations

from typing import NamedTuple

from dopa_pipelines.publishing.publication import Publication


class Sentence(NamedTuple):
    thai: str
    english: str


def protection(publication: Publication) -> list[Sentence]:
    """How people are protected in what goes out; nothing where it holds no figures over people and no rows of persons."""
    found: list[Sentence] = []
    unit = publication.unit_of_count or "คน"
    if rule := publication.disclosure:
        match rule.method:
            case "suppression":
                found.append(
                    Sentence(
                        f"ตัวเลขที่นับได้น้อยกว่า {rule.threshold} {unit} ไม่แสดง (ช่องว่าง) และเว้นช่องอื่นเพิ่มเท่าที่จำเป็น "
                        "เพื่อไม่ให้คำนวณย้อนกลับจากยอดรวมได้",
                        f"A figure over fewer than {rule.threshold} is left empty, and so are as many others as it takes "
                        "that nobody can work it out from totals",
                    )
                )
            case "rounding":
                found.append(
                    Sentence(
                        f"ตัวเลขทุกช่องปัดเป็นจำนวนเท่าของ {rule.base} โดยยอดรวมยังตรงกัน",
                        f"Every figure is rounded to a multiple of {rule.base}, so that totals still add up",
                    )
                )
            case "cell_key":
                found.append(
                    Sentence(
                        "ตัวเลขทุกช่องถูกปรับด้วยจำนวนสุ่มขนาดเล็ก ข้อมูลเดียวกันได้ค่าเดียวกันเสมอ",
                        "Every figure is changed by a small random amount, always the same for the same data",
                    )
                )
        if rule.dominance:
            found.append(
                Sentence(
                    f"ผลรวมที่ผู้ให้ข้อมูลรายใหญ่ {rule.dominance.n} รายรวมกันเกินร้อยละ {rule.dominance.k:g} ไม่แสดง",
                    f"A sum of which the {rule.dominance.n} largest contributors make more than {rule.dominance.k:g} % is empty",
                )
            )
        if rule.p_percent:
            found.append(
                Sentence(
                    f"ผลรวมที่ผู้ให้ข้อมูลรายหนึ่งประมาณค่าของอีกรายได้ใกล้กว่าร้อยละ {rule.p_percent:g} ไม่แสดง",
                    f"A sum from which one contributor could estimate another to within {rule.p_percent:g} % is left empty",
                )
            )
        found.append(
            Sentence(
                "ก่อนเผยแพร่ทุกครั้ง ระบบลองคำนวณย้อนกลับจากข้อมูลทุกชุดที่เผยแพร่ไปแล้ว ถ้ายังรู้ถึงตัวบุคคลได้จะไม่เผยแพร่",
                "Before each release an attack is tried with all that is out already; if it tells of anybody, nothing goes out",
            )
        )
    if level := publication.record_level:
        names = ", ".join(level.quasi_identifiers)
        found.append(
            Sentence(
                f"ทุกแถวมีแถวอื่นที่เหมือนกันอย่างน้อย {level.k_anonymity - 1} แถวเมื่อดูจาก {names}",
                f"Every row is like at least {level.k_anonymity - 1} others in {names}",
            )
        )
    return found
