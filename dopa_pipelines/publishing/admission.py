"""Admission of a release: the gate, in the snapshot that the release is read from.

Only asking it belongs here; its rules are ``governance.gate``, what was recorded is ``governance.recorded``.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from dopa_pipelines.governance.gate import Verdict, judge
from dopa_pipelines.governance.recorded import recorded
from dopa_pipelines.publishing.held import HeldBack, Reason
from dopa_pipelines.publishing.publication import TIMEZONE, Publication
from dopa_pipelines.publishing.rows import Snapshot, snapshot
from dopa_pipelines.warehouse import Warehouse


def admit(source: Snapshot) -> Verdict:
    """Judge the publication by the records of its source as the snapshot sees them. Raises HeldBack with the reasons."""
    verdict = judged(source)
    if not verdict.allowed:
        name = source.publication.name
        raise HeldBack(
            name,
            [
                Reason(
                    f"gate:{reason.rule}",
                    f"ด่านตรวจไม่ให้เผยแพร่คอลัมน์ {reason.column} ({reason.rule}); ดู `dopa gate {name} --recorded`",
                    f"the gate refuses {reason}; `dopa gate {name} --recorded` shows it, docs/classification.md says what to do",
                )
                for reason in verdict.reasons
            ],
        )
    return verdict


def judged(source: Snapshot) -> Verdict:
    classified, reasons = recorded(source.connection, source.publication.source)
    return judge(source.publication, classified, datetime.now(ZoneInfo(TIMEZONE)).date(), reasons)


def recorded_verdict(warehouse: Warehouse, publication: Publication) -> Verdict:
    """What a release would be told now."""
    with snapshot(warehouse, publication) as source:
        return judged(source)
