"""What a steward does about data that is not right: steps in Thai and English, each with the command that takes it.

The one place of these words: checks in the UI, alerts, and the bureau's workbook show them. docs/stewards.md says more.
"""

from __future__ import annotations

from dataclasses import dataclass

from dopa_pipelines.contracts import Contract


@dataclass(frozen=True)
class Step:
    """One thing to do. ``command``: what does it; empty where a person does."""

    th: str
    en: str
    command: str = ""


def as_markdown(steps: list[Step]) -> str:
    """Steps as a list for the UI."""
    return "\n".join(f"- {item.th} / {item.en}" + (f": `{item.command}`" if item.command else "") for item in steps)


def rows(contract: Contract) -> list[Step]:
    """Rows were rejected and wait in the quarantine."""
    name = contract.dataset
    return [
        Step("ดูเหตุผลและวิธีแก้", "why, and what to do", f"dopa quarantine explain {name}"),
        Step("ส่งให้สำนักเจ้าของข้อมูลแก้ไข", "for the bureau to correct", f"dopa quarantine export {name}"),
        Step("นำไฟล์ที่แก้แล้วกลับเข้าระบบ", "bring the corrected file back", f"dopa ingest {name} FILE"),
        Step("แก้สัญญาข้อมูลหรือข้อมูลอ้างอิงแล้ว", "the contract or a reference was mended", f'dopa quarantine replay {name} --why "…"'),
    ]


def delivery(contract: Contract) -> list[Step]:
    """A delivery was refused whole."""
    name = contract.dataset
    where = contract.layout.path or contract.layout.url_environment
    return [
        Step(f"ไฟล์ผิด: ขอไฟล์ใหม่แล้ววางที่ {where}", f"the file is wrong: put a corrected one at {where}", f"dopa ingest {name}"),
        Step(f"สัญญาข้อมูลผิด: แก้ {_path(contract)}", f"the contract is wrong: mend {_path(contract)}", "dopa check"),
        Step("ข้อมูลลดลงจริง", "fewer rows are right", f"dopa ingest {name} FILE --accept-shrink"),
    ]


def rule(contract: Contract, line: int | None = None) -> list[Step]:
    """A rule of the table fails. ``line``: where it stands in the contract."""
    where = f"{_path(contract)}{f':{line}' if line else ''}"
    return [
        Step(
            "ข้อมูลผิด: แก้ที่ระบบต้นทางแล้วส่งใหม่", "the data is wrong: correct it at the source", f"dopa ingest {contract.dataset} FILE"
        ),
        Step(f"กฎผิด: แก้สัญญาข้อมูล {where}", f"the rule is wrong: mend {where}", "dopa check"),
    ]


def unusual(contract: Contract) -> list[Step]:
    """A delivery is not as the ones before it."""
    return [
        Step("ถามสำนักเจ้าของข้อมูลว่าเปลี่ยนจริงหรือส่งผิด", "ask the bureau whether it is so or was sent wrongly"),
        Step("ส่งผิด: แก้แล้วส่งใหม่", "sent wrongly: bring in a corrected file", f"dopa ingest {contract.dataset} FILE"),
        Step("เปลี่ยนจริง: อธิบายไว้ที่เหตุ", "it is so: explain it", 'dopa quality incidents explain ID --note "…"'),
    ]


def model(target: str) -> list[Step]:
    """A test of a built table fails. ``target``: ``schema.table``."""
    return [
        Step("ดูว่าข้อมูลมาจากที่ใด", "see what it was made from", f"dopa trace {target} --up"),
        Step(
            "แก้ข้อมูลต้นทางหรือแบบจำลองแล้วสร้างใหม่",
            "mend the data below it, or the model, and build it anew",
            f"dopa run --select +{target}+",
        ),
    ]


def of(kind: str, severity: str, name: str, contract: Contract | None, dataset: str) -> list[Step]:
    """Steps for a rule that fails. ``name``: the rule's; ``contract``: None of a model, which is ``dataset`` then."""
    if contract is None:
        return model(dataset)
    if kind == "unusual":
        return unusual(contract)
    if name == "delivery_accepted":
        return delivery(contract)
    if severity == "reject":
        return rows(contract)
    return rule(contract, next((item.line for item in contract.table_rules if item.name == name), None))


def _path(contract: Contract) -> str:
    return "/".join(contract.path.parts[-3:])
