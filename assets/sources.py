"""One asset for each contract: what a silo sends, as ``raw.<dataset>``.

Checks ``contract`` and ``reconciliation`` block what descends from the asset and nothing else; every table rule of the contract
is a check of its own. What only a run needs is imported when it runs: definitions load without Polars.
"""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.platform import Platform, report, trace_link, with_trace
from dopa_pipelines.contracts import Contract, Contracts
from dopa_pipelines.contracts.model import TableRule
from dopa_pipelines.errors import Rejected

if TYPE_CHECKING:
    from dopa_pipelines.ingest import Delivery

TIMEZONE = "Asia/Bangkok"


def source_key(dataset: str) -> dg.AssetKey:
    return dg.AssetKey(["raw", dataset])


def monthly_partitions(contracts: Contracts) -> dg.MonthlyPartitionsDefinition | None:
    """One calendar for all monthly datasets: assets of different calendars could not be in one run."""
    starts = [contract.partition.start for contract in contracts if contract.partition]
    if not starts:
        return None
    return dg.MonthlyPartitionsDefinition(start_date=min(starts).isoformat(), timezone=TIMEZONE)


def source_assets(contracts: Contracts, portal: str) -> list[dg.AssetsDefinition]:
    """An asset a contract. ``portal``: the address that its links begin with."""
    calendar = monthly_partitions(contracts)
    order = {contract.dataset: place for place, contract in enumerate(contracts.in_reference_order())}
    return [source_asset(contract, calendar, len(order) - order[contract.dataset], portal) for contract in contracts]


def source_asset(
    contract: Contract, calendar: dg.MonthlyPartitionsDefinition | None, priority: int, portal: str
) -> dg.AssetsDefinition:
    """The asset of one contract. ``priority`` puts referenced datasets first without making them block the others."""
    key = source_key(contract.dataset)
    partitions = calendar if contract.partition else None

    @dg.multi_asset(
        name=f"raw__{contract.dataset}",
        specs=[_spec(contract, key, partitions, portal)],
        check_specs=list(_check_specs(contract, key)),
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
        op_tags={"dagster/priority": str(priority)},
    )
    def load(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Iterator[Any]:
        from dopa_pipelines.ingest import ingest
        from dopa_pipelines.quality.profiles import Profiler

        months = [date.fromisoformat(item) for item in context.partition_keys] if partitions else None
        report(contract.dataset, "started", kind="source")
        deliveries: list[Delivery] = []
        problem: str | None = None
        try:
            for path in _waiting(contract, platform, months):
                deliveries.append(
                    ingest(
                        platform.warehouse,
                        contract,
                        path,
                        run_id=context.run.run_id,
                        progress=lambda rows: report(contract.dataset, "reading", rows=rows),
                        observe=Profiler,
                    )
                )
        except Rejected as refusal:  # a feed that does not answer
            problem = str(refusal)
        yield from _results(context, contract, platform, key, deliveries, problem, months)

    return load


def _spec(contract: Contract, key: dg.AssetKey, partitions: dg.MonthlyPartitionsDefinition | None, portal: str) -> dg.AssetSpec:
    schema = dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=name,
                type=kind,
                description=with_trace(f"{column.business_name} / {column.description}", portal, contract.table, name),
                tags={"classification": column.classification, "pdpa_role": column.pdpa_role},
            )
            for column in contract.columns
            for name, kind in column.table_columns
        ]
    )
    days = contract.service_level.frequency_days
    owners = [member.name for member in contract.team if "steward" in member.role and "@" in member.name]
    return dg.AssetSpec(
        key,
        description=f"**{contract.title_th}** {contract.description_th}\n\n{contract.title_en}: {contract.description}",
        group_name=contract.bureau,
        owners=owners,
        kinds={"postgres", _KINDS[contract.layout.format]},
        tags={"classification": contract.classification, "layer": "raw"} | ({"calendar": "month"} if contract.partition else {}),
        skippable=True,
        partitions_def=partitions,
        # A delivery is fresh for its period and half of another: bureaus deliver after the period ended.
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(days=days * 2), warn_window=timedelta(days=days * 1.5)
        )
        if days
        else None,
        metadata={
            "dagster/column_schema": schema,
            "dagster/table_name": contract.table,
            "contract": f"{'/'.join(contract.path.parts[-3:])} (version {contract.version})",
            "grain": contract.grain,
            "arrives_as": contract.layout.format,
            "frequency": contract.service_level.frequency or "ad hoc",
            "trace": trace_link(portal, contract.table),
        },
    )


_KINDS = {
    "delimited": "csv",
    "fixed_width": "file",
    "xlsx": "excel",
    "xls": "excel",
    "html": "excel",
    "dbf": "file",
    "json_lines": "json",
    "json": "json",
    "geojson": "json",
    "json_api": "rest",
    "sql": "sql",
}


def _check_specs(contract: Contract, key: dg.AssetKey) -> Iterator[dg.AssetCheckSpec]:
    yield dg.AssetCheckSpec(
        "contract",
        asset=key,
        blocking=True,
        description="The delivery keeps its contract (ข้อมูลเป็นไปตามสัญญาข้อมูล)",
    )
    yield dg.AssetCheckSpec(
        "reconciliation",
        asset=key,
        blocking=True,
        description="Rows read = loaded + quarantined, and the table holds what was loaded (กระทบยอดจำนวนแถว)",
    )
    for rule in contract.table_rules:
        yield dg.AssetCheckSpec(rule.name, asset=key, blocking=rule.severity == "error", description=rule.description or None)


def _waiting(contract: Contract, platform: Platform, months: list[date] | None) -> Iterable[Path]:
    """Deliveries to process: what was fetched just now, or what waits in the drop zone for the run's months."""
    from dopa_pipelines.ingest import arrivals
    from dopa_pipelines.sources import fetch, is_fetched

    if is_fetched(contract):
        return [fetch(contract, platform.settings.spool_path)]
    with platform.warehouse.connect() as connection:
        found = arrivals(connection, contract, platform.settings.drop_path)
    return [
        arrival.path
        for arrival in found
        if arrival.pending and (months is None or arrival.period is None or arrival.period in months)
    ]


def _results(
    context: dg.AssetExecutionContext,
    contract: Contract,
    platform: Platform,
    key: dg.AssetKey,
    deliveries: "list[Delivery]",
    problem: str | None,
    months: list[date] | None,
) -> Iterator[Any]:
    from dopa_pipelines.ingest.inspect import as_checks, check_table_rule, months_held, table_facts
    from dopa_pipelines.ingest.quarantine import rejected_preview
    from dopa_pipelines.warehouse.work import Work

    refused = [delivery for delivery in deliveries if delivery.status == "rejected"]
    problems = [*([problem] if problem else []), *(delivery.problem or "" for delivery in refused)]
    loaded = [delivery for delivery in deliveries if delivery.status == "loaded"]
    with Work(platform.warehouse, "check", contract.table, run_id=context.run.run_id) as work:
        with platform.warehouse.connect() as connection:
            facts = table_facts(connection, contract)
            absent = sorted(set(months or ()) - months_held(connection, contract)) if months and facts.exists else []
            counts = {
                "rows_read": sum(delivery.rows_read for delivery in loaded),
                "rows_loaded": sum(delivery.rows_loaded for delivery in loaded),
                "rows_quarantined": sum(delivery.rows_quarantined for delivery in loaded),
            }
            preview = rejected_preview(connection, contract)
            rules = [(rule, check_table_rule(connection, contract, rule)) for rule in contract.table_rules if facts.exists]
        if not problems and (absent or not facts.exists):
            which = f" for {', '.join(f'{month:%Y-%m}' for month in absent)}" if absent else ""
            where = contract.layout.path or contract.layout.url_environment
            problems = [f"no delivery of {contract.dataset}{which} has arrived yet ({where})"]
        work.complete(as_checks(contract, facts, problems, rules, counts["rows_quarantined"]))
    state = "rejected" if refused or problem else "missing" if problems else "loaded" if loaded else "unchanged"
    report(contract.dataset, state, kind="source", problem="; ".join(problems) or None, **counts)
    for text in problems:
        context.log.error(text)
    # A month that was not delivered is not materialized, nor is what only failed.
    if facts.exists and not absent and not (problems and not loaded):
        metadata: dict[str, Any] = {
            "dagster/row_count": facts.rows,
            "deliveries": len(loaded),
            **counts,
            "rejected_rows": dg.MetadataValue.md(preview),
        }
        if counts["rows_quarantined"]:
            metadata["what_to_do"] = dg.MetadataValue.md(repair_rows(contract))
        reasons: dict[str, int] = {}
        for delivery in loaded:
            for code, count in delivery.reasons.items():
                reasons[code] = reasons.get(code, 0) + count
        metadata |= {f"rejected/{code}": count for code, count in sorted(reasons.items())}
        version = dg.DataVersion(str(facts.write or 0))
        yield dg.MaterializeResult(key, metadata=metadata, data_version=None if months else version)
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name="contract",
        passed=not problems,
        description="; ".join(problems) or None,
        metadata={**counts, "deliveries_refused": len(refused)}
        | ({"what_to_do": dg.MetadataValue.md(repair_delivery(contract))} if refused else {}),
    )
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name="reconciliation",
        passed=facts.reconciled,
        description=None if facts.reconciled else f"{contract.table} does not hold the rows that were recorded as loaded",
        metadata={"rows_recorded": facts.rows_recorded, "rows_in_table": facts.rows},
    )
    checked = {rule.name for rule, _ in rules}
    for rule, count in rules:
        yield _rule_result(key, rule, count)
    blocking = [count == rule.must_be for rule, count in rules if rule.severity == "error"]
    if facts.exists and not problems and facts.reconciled and all(blocking):
        platform.passed.add(contract.table)
    for rule in contract.table_rules:
        if rule.name not in checked:
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=rule.name,
                passed=False,
                severity=_severity(rule),
                description="nothing is loaded yet",
            )


def repair_rows(contract: Contract) -> str:
    """What a steward does about rejected rows, in Markdown; docs/stewards.md says more."""
    name = contract.dataset
    return (
        f"- ดูเหตุผลและวิธีแก้ / why, and what to do: `dopa quarantine explain {name}`\n"
        f"- ส่งให้สำนักเจ้าของข้อมูลแก้ไข / for the bureau to correct: `dopa quarantine export {name}`\n"
        f"- นำไฟล์ที่แก้แล้วกลับเข้าระบบ / bring the corrected file back: `dopa ingest {name} FILE`\n"
        f'- แก้สัญญาข้อมูลหรือข้อมูลอ้างอิงแล้ว / the contract or a reference was mended: `dopa quarantine replay {name} --why "…"`'
    )


def repair_delivery(contract: Contract) -> str:
    """What a steward does about a refused delivery, in Markdown."""
    name, path = contract.dataset, "/".join(contract.path.parts[-3:])
    where = contract.layout.path or contract.layout.url_environment
    return (
        f"- ไฟล์ผิด: ขอไฟล์ใหม่แล้ววางที่ / the file is wrong: put a corrected one at `{where}`\n"
        f"- สัญญาข้อมูลผิด: แก้ / the contract is wrong: mend `{path}`, `dopa check`, `dopa ingest {name}`\n"
        f"- ข้อมูลลดลงจริง / fewer rows are right: `dopa ingest {name} FILE --accept-shrink`"
    )


def _rule_result(key: dg.AssetKey, rule: TableRule, count: int) -> dg.AssetCheckResult:
    passed = count == rule.must_be
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=rule.name,
        passed=passed,
        severity=_severity(rule),
        description=None if passed else f"{rule.description or rule.name}: {count:,} where {rule.must_be:,} must be",
        metadata={"count": count},
    )


def _severity(rule: TableRule) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if rule.severity == "error" else dg.AssetCheckSeverity.WARN
