"""Whether the data that a publication reads is approved: what it is made of passed its blocking checks and has its quality.

Asked in the release's own snapshot, of what was recorded: the writes that the source was made from, what was found when each of
them was checked, and the datasets' scores by the national standard. A newer delivery that failed does not hold back a table that
was made before it came. What may go out by classification is the gate's business, not asked here; what a score is,
:mod:`dopa_pipelines.quality.scores`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from dopa_pipelines.publishing.held import Reason
from dopa_pipelines.publishing.publication import Publication
from dopa_pipelines.quality.scores import quality_of

# What the source was made from: of each input the last write that its consumer can have seen. A view has no rows of its own, so
# what it reads is as new as whoever reads the view.
_MADE_OF = """
with recursive made_of as (
    select w.id, w.target, w.inputs, w.written_at,
        case when w.detail ->> 'materialized' = 'view' then 9223372036854775807 else w.id end as as_of
    from lineage.write w
    where w.id = (
        select max(l.id) from lineage.write l
        where l.target = %(source)s and l.kind not in ('migration', 'rebase') and l.environment = 'production'
    )
    union
    select w.id, w.target, w.inputs, w.written_at,
        case when w.detail ->> 'materialized' = 'view' then m.as_of else w.id end
    from made_of m
    cross join lateral jsonb_array_elements(m.inputs) i (input)
    join lineage.write w on w.id = (
        select max(l.id) from lineage.write l
        where l.target = regexp_replace(i.input ->> 'name', '^' || current_database() || '[.]', '')
            and l.id <= m.as_of and l.kind not in ('migration', 'rebase') and l.environment = 'production'
    )
)
"""

# The last result of each suite of checks (the contract's, dbt's) between a write and the next one of that table.
_CHECKED = (
    _MADE_OF
    + """,
windows as (
    select m.id, m.target, m.written_at, min(n.written_at) as until
    from (select distinct id, target, written_at from made_of) m
    left join lineage.write n on n.target = m.target and n.id > m.id and n.kind not in ('migration', 'rebase')
    group by m.id, m.target, m.written_at
),
results as (
    select b.target, coalesce(b.detail ->> 'unique_id', '') as suite, e.at, e.state, e.detail
    from lineage.work b
    join lineage.work e on e.work = b.work and e.state in ('COMPLETE', 'FAIL')
    where b.state = 'START' and b.kind = 'check' and b.environment = 'production'
        and b.target in (select target from windows)
)
select distinct on (w.target, r.suite) w.target, r.suite, r.state, r.detail
from windows w
left join results r on r.target = w.target and r.at >= w.written_at and (w.until is null or r.at < w.until)
where r.target is not null or exists (select from results o where o.target = w.target)
order by w.target, r.suite, r.at desc
"""
)


@dataclass(frozen=True)
class Quality:
    """Overall scores, of 100, of the datasets that a publication is made of, as last taken; ``score`` is the lowest, None where
    none of them was scored yet."""

    datasets: dict[str, float]

    @property
    def score(self) -> float | None:
        return min(self.datasets.values(), default=None)


def check_reasons(connection: psycopg.Connection[Any], source: str) -> list[Reason]:
    """Blocking checks of what ``source`` is made of that failed, and tables that were not checked since they were written.

    A table that has no checks at all holds nothing back.
    """
    found = []
    for target, _, state, detail in connection.execute(_CHECKED, {"source": source}).fetchall():
        if state is None:
            found.append(
                Reason(
                    "checks_missing",
                    f"{target} ยังไม่ได้ตรวจตั้งแต่เขียนครั้งล่าสุด ให้รัน `dopa run --select {target}`",
                    f"{target} was not checked since it was last written; run `dopa run --select {target}`",
                )
            )
            continue
        # A test of two tables holds back what descends from the one that it is written at.
        failed = [
            item
            for item in detail.get("assertions", [])
            if not item.get("success") and item.get("severity", "error") == "error" and not item.get("elsewhere")
        ]
        for item in failed:
            name = item.get("name") or item.get("assertion")
            found.append(
                Reason(
                    "blocking_check",
                    f"ข้อมูล {target} ไม่ผ่านการตรวจ {name}",
                    f"the check {name} of {target} failed; repair the data and run `dopa run --select {target}+`",
                )
            )
        if state == "FAIL" and not failed:
            found.append(
                Reason(
                    "blocking_check",
                    f"การตรวจ {target} ทำไม่สำเร็จ",
                    f"the checks of {target} could not be carried out; run `dopa run --select {target}+`",
                )
            )
    return found


def datasets_below(connection: psycopg.Connection[Any], source: str) -> list[str]:
    """Datasets (tables of ``raw``) that ``source`` is made of, as recorded."""
    rows = connection.execute(
        _MADE_OF + "select distinct substr(target, 5) from made_of where starts_with(target, 'raw.') order by 1",
        {"source": source},
    ).fetchall()
    return [row[0] for row in rows]


def readiness(connection: psycopg.Connection[Any], publication: Publication) -> tuple[list[Reason], Quality]:
    """Why the publication's data is not approved (empty: it is), and its quality."""
    reasons = check_reasons(connection, publication.source)
    quality = Quality(quality_of(connection, datasets_below(connection, publication.source)))
    for dataset, score in quality.datasets.items():
        if score < publication.quality_line:
            reasons.append(
                Reason(
                    "quality",
                    f"คุณภาพของชุดข้อมูล {dataset} คือ {score:g} จาก 100 ต่ำกว่าเกณฑ์ {publication.quality_line:g}",
                    f"the quality of {dataset} is {score:g} of 100, below the line of {publication.quality_line:g}: "
                    f"`dopa quality {dataset}` says where it stands",
                )
            )
    return reasons, quality
