"""Looking at a dataset after its deliveries: every rule of its contract gets a result, and the results are kept. What is unusual
in a delivery without a rule is kept with them, where the delivery was profiled.

What enforcement rejects is counted where it was written down (the quarantine), not in another scan; the rest is
:mod:`dopa_pipelines.quality.measure`'s. A result says how the dataset stands after the write: rows that still wait in the
quarantine of deliveries that matter, of all rows that those brought. What the delivery itself added is in the result's detail.

Looking happens after the load's commit, in a transaction of its own: a rule that cannot be run, or a crash here, costs no
delivery.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from psycopg import sql

from dopa_pipelines.contracts import Contract
from dopa_pipelines.ingest import Delivery
from dopa_pipelines.ingest.inspect import TableFacts, table_facts
from dopa_pipelines.quality import incidents, store
from dopa_pipelines.quality.measure import SAMPLE_ROWS, Outcome, measure
from dopa_pipelines.quality.rules import Rule, rules_of
from dopa_pipelines.quality.store import Connection, Result
from dopa_pipelines.quality.unusual import look as unusual_in
from dopa_pipelines.warehouse import Role, Warehouse
from dopa_pipelines.warehouse.work import without_values

ACCEPTED = "delivery_accepted"
RECONCILIATION = "reconciliation"


@dataclass(frozen=True)
class Found:
    """One rule and its result now, None where there was nothing to measure (``note`` says why). ``before``: the result before."""

    rule: Rule
    result: Result | None
    note: str | None = None
    before: store.Kept | None = None

    @property
    def number(self) -> float | None:
        """What the rule is plotted by: the share of rows that fail, or what was measured."""
        return None if self.result is None else _number(self.result)

    @property
    def trend(self) -> float | None:
        """Difference to the result before; None where there is none."""
        if self.number is None or self.before is None:
            return None
        before = _number(self.before)
        return None if before is None else self.number - before


@dataclass(frozen=True)
class Checked:
    """What a look at a dataset found. ``kept``: ids of the results that were kept, of all its deliveries;
    ``incidents``: those that they opened, changed or closed."""

    facts: TableFacts
    found: list[Found] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    incidents: incidents.Settled = field(default_factory=incidents.Settled)
    unusual: list[Result] = field(default_factory=list)
    """Figures of the last delivery that are watched, unusual (not passed) or not."""

    @property
    def blocking(self) -> list[Found]:
        """Rules that hold back what descends from the dataset."""
        return [item for item in self.found if item.rule.severity == "block" and item.result and not item.result.passed]


def _number(result: Result | store.Kept) -> float | None:
    if result.rows_failed is not None and result.rows_checked:
        return result.rows_failed / result.rows_checked
    return result.value


def check(
    warehouse: Warehouse,
    contract: Contract,
    deliveries: Iterable[Delivery] = (),
    *,
    run_id: str | None = None,
) -> Checked:
    """Give every rule of a dataset its result, keep them, and open, follow or close its incidents by them.

    With each delivery that was loaded, the results of what enforcement rejects are kept; with the last of them also what is
    measured on the table. The same delivery and write are kept once, however often they are looked at. Without a loaded delivery
    the dataset is only looked at again: what is measured is kept, since it may have changed with time or other tables.
    """
    arrived = [item for item in deliveries if item.delivery is not None]
    with warehouse.connect(Role.LOADER) as connection:
        connection.execute("set transaction isolation level repeatable read, read only")
        facts = table_facts(connection, contract)
        before = {item.rule: item for item in store.latest(connection, contract.dataset)}
        rules = rules_of(contract)
        batches: list[tuple[list[Result], int | None, int | None]] = []
        found: list[Found] = []
        unusual: list[Result] = []
        refused = _still_refused(connection, contract)
        if facts.exists:
            loaded = [item for item in arrived if item.status == "loaded"]
            for item, later in pairwise(loaded):
                until = (later.delivery or 0) - 1
                enforced = enforced_results(connection, contract, rules, item.delivery, until=until)
                kept_with_it = [*enforced.values(), _accepted(contract, item, refused), *_unusual(connection, contract, item)]
                batches.append((kept_with_it, item.delivery, item.write))
            last = loaded[-1] if loaded else None
            enforced = enforced_results(connection, contract, rules, last.delivery if last else None)
            write = last.write if last else facts.write
            measured = measure(connection, contract, [rule.measured for rule in rules if rule.measured], write=write)
            outcomes: Mapping[str, Outcome] = {item.rule.name: item for item in measured}
            for rule in rules:
                if rule.measured:
                    outcome = outcomes[rule.name]
                    found.append(Found(rule, outcome.result, outcome.note, before.get(rule.name)))
                else:
                    found.append(Found(rule, enforced[rule.name], None, before.get(rule.name)))
            looked = [item.result for item in found if item.result and (last or item.rule.measured)]
            looked.append(_reconciled(contract, facts))
            if last:
                unusual = _unusual(connection, contract, last)
                looked += [_accepted(contract, last, refused), *unusual]
            batches.append((looked, last.delivery if last else None, write))
        batches += [([_accepted(contract, item, refused)], item.delivery, None) for item in arrived if item.status == "rejected"]
    with warehouse.connect(Role.LOADER) as connection:
        kept = _keep(connection, contract, batches, run_id)
        names = {rule.name for rule in rules} | {ACCEPTED, RECONCILIATION}
        settled = incidents.settle(connection, kept, incidents.owner_of(contract), known={contract.dataset: names})
        connection.commit()
    return Checked(facts, found, kept, settled, unusual)


def _keep(
    connection: Connection,
    contract: Contract,
    batches: Sequence[tuple[list[Result], int | None, int | None]],
    run_id: str | None,
) -> list[int]:
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"quality:{contract.dataset}",))
    kept = []
    for results, delivery, write in batches:
        if delivery is not None:
            row = connection.execute(
                "select exists (select from quality.result where delivery_id = %s and write_id is not distinct from %s)",
                (delivery, write),
            ).fetchone()
            if row and row[0]:
                continue
        kept += store.keep(connection, results, delivery=delivery, write=write, run_id=run_id, contract_version=contract.version)
    return kept


def _unusual(connection: Connection, contract: Contract, delivery: Delivery) -> list[Result]:
    """What is unusual in a delivery by its own history; nothing where there is no history to judge by."""
    looked = unusual_in(connection, contract, delivery.delivery) if delivery.delivery is not None else []
    return [item for item in looked if item.detail.get("enough", True)]


@dataclass(frozen=True)
class _Refused:
    """A delivery that was refused and never made good. ``rows``: those that were read of it."""

    delivery: int
    file: str
    rows: int


def _still_refused(connection: Connection, contract: Contract) -> list[_Refused]:
    """Refused deliveries in whose place none was accepted since: of the same period or day, where the files' names tell one."""
    waits: dict[tuple[Any, ...], _Refused] = {}
    for number, status, file, rows in connection.execute(
        "select id, status, coalesce(file, ''), coalesce(rows_read, 0) from ops.delivery"
        " where dataset = %s and not replayed order by id",
        (contract.dataset,),
    ):
        place = (contract.period_of(file), contract.business_date_of(file))
        if status == "loaded":
            waits.pop(place, None)
        else:
            waits[place] = _Refused(number, file, rows)
    return list(waits.values())


def _accepted(contract: Contract, delivery: Delivery, refused: Sequence[_Refused]) -> Result:
    """Whether all of a dataset was taken that came until this delivery. A refused one keeps all its rows out until another comes
    in its place."""
    before = [item for item in refused if item.delivery < (delivery.delivery or 0)]
    refused_now = delivery.status == "rejected"
    own = delivery.rows_read if refused_now else 0
    out = own + sum(item.rows for item in before)
    detail: dict[str, Any] = {"problem": without_values(delivery.problem)} if refused_now and delivery.problem else {}
    if before:
        detail["not_made_good"] = sorted(item.file for item in before)[:SAMPLE_ROWS]
    return Result(
        contract.dataset, ACCEPTED, "schema", "accuracy_completeness", "block", not refused_now and not before,
        indicator="1.2", rows_checked=delivery.rows_read + sum(item.rows for item in before), rows_failed=out, detail=detail,
    )  # fmt: skip


def _reconciled(contract: Contract, facts: TableFacts) -> Result:
    return Result(
        contract.dataset, RECONCILIATION, "rows", "accuracy_completeness", "block", facts.reconciled, indicator="1.3",
        value=float(facts.rows - facts.rows_recorded), detail={"rows": facts.rows, "rows_recorded": facts.rows_recorded},
    )  # fmt: skip


_MATTERS = """
    d.dataset = %(dataset)s and d.status = 'loaded' and d.id <= %(until)s and not exists (
        select from ops.delivery l
        where l.dataset = d.dataset and l.id > d.id and l.id <= %(until)s and l.status = 'loaded' and not l.replayed
          and (l.sha256 = d.sha256 or l.business_date = d.business_date or l.notes ->> 'replaces' = 'all')
    )
"""
"""Deliveries whose rejected rows still matter (as :data:`dopa_pipelines.ingest.quarantine.WAITS`), as of one of them."""


def enforced_results(
    connection: Connection, contract: Contract, rules: Iterable[Rule], delivery: int | None = None, *, until: int | None = None
) -> dict[str, Result]:
    """Results of the rules that enforcement has, by name: as the dataset stands now, or stood after the delivery ``until``.

    ``rows_checked``: rows that the deliveries brought which still matter. ``rows_failed``: those of them that wait in the
    quarantine for this rule. ``detail``: ``delivery_rows``, those of ``delivery`` itself, and where some of the rows stand.
    """
    facts = {"dataset": contract.dataset, "until": 2**62 if until is None else until, "delivery": delivery}
    row = connection.execute(
        f"select coalesce(sum(d.rows_read), 0)::bigint from ops.delivery d where not d.replayed and {_MATTERS}".encode(), facts
    ).fetchone()
    checked = int(row[0]) if row else 0
    counted: dict[tuple[str | None, str], tuple[int, int, list[dict[str, Any]]]] = {}
    statement = sql.SQL(
        """
        with waits as (
            select q.id, q.delivery_id, q.file, q.row, r ->> 'code' as code, r ->> 'column' as column_name,
                row_number() over (partition by r ->> 'code', r ->> 'column' order by q.id) as place
            from {} q
            join ops.delivery d on d.id = q.delivery_id and {}
            cross join jsonb_array_elements(q.reasons) r
            where q.replayed_by is null or q.replayed_by > %(until)s
        )
        select column_name, code, count(distinct id), count(distinct id) filter (where delivery_id = %(delivery)s::bigint),
            jsonb_agg(distinct jsonb_build_object('file', file, 'row', row)) filter (where place <= {})
        from waits
        group by column_name, code
        """
    ).format(sql.Identifier("quarantine", contract.dataset), sql.SQL(_MATTERS), sql.Literal(SAMPLE_ROWS))
    for column, code, rows, own, sample in connection.execute(statement, facts):
        counted[column, code] = (int(rows), int(own), list(sample or []))
    results = {}
    for rule in rules:
        if rule.measured:
            continue
        hits = [
            hit
            for (column, code), hit in counted.items()
            if code in rule.codes and (rule.column is None or column in _columns(contract, rule.column))
        ]
        failed = sum(rows for rows, _, _ in hits)
        detail: dict[str, Any] = {}
        if failed:
            detail = {
                "delivery_rows": sum(own for _, own, _ in hits),
                "sample": [place for _, _, sample in hits for place in sample][:SAMPLE_ROWS],
            }
        results[rule.name] = Result(
            contract.dataset, rule.name, rule.kind, rule.dimension, rule.severity, failed == 0, checked, failed,
            round(failed / checked, 6) if checked else 0.0, rule.indicator, rule.column, detail,
        )  # fmt: skip
    return results


def _columns(contract: Contract, name: str) -> set[str]:
    """A column of the contract by the names that reasons have for it."""
    return {name, *(made for made, _ in contract.column(name).table_columns)}


def as_assertion(item: Found) -> dict[str, Any]:
    """A rule's result as events tell it (OpenLineage ``DataQualityAssertions``): counts, no values of rows."""
    rule, result = item.rule, item.result
    assert result is not None
    actual = result.rows_failed if result.rows_failed is not None else result.value
    told = {
        "assertion": "custom_sql" if rule.kind == "sql" else rule.kind,
        "name": rule.name,
        "success": result.passed,
        "severity": "error" if rule.severity == "block" else "warn",
        "description": rule.description or None,
        "column": rule.column,
        "expected": rule.limit.words,
        "actual": "" if actual is None else f"{round(actual, 2):g}" if isinstance(actual, float) else str(actual),
    }
    if rule.kind == "sql" and rule.measured:
        told |= {"expected": f"{rule.limit.equal:g}" if rule.limit.equal is not None else rule.limit.words,
                 "content": rule.measured.arguments["query"], "contentType": "sql"}  # fmt: skip
    return {key: value for key, value in told.items() if value is not None}
