"""One asset for each contract: what a silo sends, as ``raw.<dataset>``.

Checks ``contract`` and ``reconciliation`` block what descends from the asset and nothing else; every rule of the contract is a
check of its own, but those that each row is held to by column (required, format, …) are shown by kind. What only a run needs is
imported when it runs: definitions load without Polars.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.platform import (
    CLASSIFICATION,
    Platform,
    class_table,
    class_tags,
    column_tags,
    incidents_link,
    report,
    to_repair,
    trace_link,
    with_trace,
)
from dopa_pipelines.contracts import Contract, Contracts
from dopa_pipelines.errors import Rejected
from dopa_pipelines.lineage.classes import Class
from dopa_pipelines.quality import repair
from dopa_pipelines.quality.rules import Rule, rules_of

if TYPE_CHECKING:
    from dopa_pipelines.ingest import Delivery
    from dopa_pipelines.quality.checking import Found
    from dopa_pipelines.quality.store import Result

TIMEZONE = "Asia/Bangkok"
UNUSUAL = "unusual"


def source_key(dataset: str) -> dg.AssetKey:
    return dg.AssetKey(["raw", dataset])


def monthly_partitions(contracts: Contracts) -> dg.MonthlyPartitionsDefinition | None:
    """One calendar for all monthly datasets: assets of different calendars could not be in one run."""
    starts = [contract.partition.start for contract in contracts if contract.partition]
    if not starts:
        return None
    return dg.MonthlyPartitionsDefinition(start_date=min(starts).isoformat(), timezone=TIMEZONE)


def source_assets(
    contracts: Contracts, portal: str, classes: Mapping[str, Mapping[str, Class]] | None = None
) -> list[dg.AssetsDefinition]:
    """An asset a contract. ``portal``: the address that its links begin with; ``classes``: what columns are, as last derived."""
    calendar = monthly_partitions(contracts)
    order = {contract.dataset: place for place, contract in enumerate(contracts.in_reference_order())}
    return [
        source_asset(contract, calendar, len(order) - order[contract.dataset], portal, (classes or {}).get(contract.table, {}))
        for contract in contracts
    ]


def source_asset(
    contract: Contract,
    calendar: dg.MonthlyPartitionsDefinition | None,
    priority: int,
    portal: str,
    classes: Mapping[str, Class],
) -> dg.AssetsDefinition:
    """The asset of one contract. ``priority`` puts referenced datasets first without making them block the others."""
    key = source_key(contract.dataset)
    partitions = calendar if contract.partition else None

    @dg.multi_asset(
        name=f"raw__{contract.dataset}",
        specs=[_spec(contract, key, partitions, portal, classes)],
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
        _score(context, contract, platform, key)

    return load


def _spec(
    contract: Contract,
    key: dg.AssetKey,
    partitions: dg.MonthlyPartitionsDefinition | None,
    portal: str,
    classes: Mapping[str, Class],
) -> dg.AssetSpec:
    schema = dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=name,
                type=kind,
                description=with_trace(f"{column.business_name} / {column.description}", portal, contract.table, name),
                tags={
                    **column_tags(classes.get(name)),
                    "classification": column.classification,
                    "pdpa_role": column.pdpa_role,
                },
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
        tags={
            "classification": contract.classification,
            # Nothing was derived before the first delivery; it could be no other than what the contract says.
            CLASSIFICATION: contract.classification,
            "layer": "raw",
            **class_tags(classes),
            **({"calendar": "month"} if contract.partition else {}),
        },
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
            "incidents": incidents_link(portal, contract.dataset),
            **class_table(classes),
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
    yield dg.AssetCheckSpec(
        UNUSUAL,
        asset=key,
        description="What the delivery looks like, against its own history (เทียบกับการส่งครั้งก่อน ๆ ว่าผิดปกติหรือไม่)",
    )
    for name, rules in rule_groups(contract).items():
        yield dg.AssetCheckSpec(
            name,
            asset=key,
            blocking=rules[0].severity == "block",
            description=described(name, rules),
            metadata={"dimension": rules[0].dimension, "kind": rules[0].kind, "severity": rules[0].severity}
            | ({"indicator": rules[0].indicator} if rules[0].indicator else {}),
        )


def rule_groups(contract: Contract) -> dict[str, list[Rule]]:
    """The dataset's rules by the check that shows them."""
    groups: dict[str, list[Rule]] = {}
    for rule in rules_of(contract):
        groups.setdefault(rule.group, []).append(rule)
    return groups


_BY_COLUMN = {
    "required": "Values that must be there (ค่าที่ต้องมี)",
    "format": "Values have their form (รูปแบบของค่า)",
    "range": "Values are within their limits (ช่วงของค่า)",
    "values": "Values are those of the contract's lists (รายการค่าที่กำหนด)",
    "reference": "Values exist where they refer to (อ้างอิงข้อมูลที่มีอยู่จริง)",
}


def described(name: str, rules: list[Rule]) -> str:
    """What a check is about, in English and Thai."""
    text = _BY_COLUMN.get(name)
    if text:
        return f"{text}: {', '.join(rule.column or rule.name for rule in rules)}"
    rule = rules[0]
    english = rule.description.rstrip(".") or name.replace("_", " ")
    return f"{english} ({rule.description_th})" if rule.description_th else english


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
    from dopa_pipelines.ingest.inspect import as_checks, months_held
    from dopa_pipelines.ingest.quarantine import rejected_preview
    from dopa_pipelines.quality.checking import as_assertion, check
    from dopa_pipelines.warehouse.work import Work

    refused = [delivery for delivery in deliveries if delivery.status == "rejected"]
    problems = [*([problem] if problem else []), *(delivery.problem or "" for delivery in refused)]
    loaded = [delivery for delivery in deliveries if delivery.status == "loaded"]
    with Work(platform.warehouse, "check", contract.table, run_id=context.run.run_id) as work:
        looked = check(platform.warehouse, contract, deliveries, run_id=context.run.run_id)
        facts = looked.facts
        with platform.warehouse.connect() as connection:
            absent = sorted(set(months or ()) - months_held(connection, contract)) if months and facts.exists else []
            counts = {
                "rows_read": sum(delivery.rows_read for delivery in loaded),
                "rows_loaded": sum(delivery.rows_loaded for delivery in loaded),
                "rows_quarantined": sum(delivery.rows_quarantined for delivery in loaded),
            }
            preview = rejected_preview(connection, contract)
        if not problems and (absent or not facts.exists):
            which = f" for {', '.join(f'{month:%Y-%m}' for month in absent)}" if absent else ""
            where = contract.layout.path or contract.layout.url_environment
            problems = [f"no delivery of {contract.dataset}{which} has arrived yet ({where})"]
        told = [as_assertion(item) for item in looked.found if item.rule.measured and item.result]
        work.complete(as_checks(contract, facts, problems, told, counts["rows_quarantined"]))
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
            metadata |= to_repair(platform, contract.dataset, repair.rows(contract))
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
        metadata={
            **counts,
            "deliveries_refused": len(refused),
            **(to_repair(platform, contract.dataset, repair.delivery(contract)) if refused else {}),
        },
    )
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name="reconciliation",
        passed=facts.reconciled,
        description=None if facts.reconciled else f"{contract.table} does not hold the rows that were recorded as loaded",
        metadata={"rows_recorded": facts.rows_recorded, "rows_in_table": facts.rows},
    )
    found = {item.rule.name: item for item in looked.found}
    for name, rules in rule_groups(contract).items():
        yield _rule_result(contract, platform, key, name, [found.get(rule.name) or None for rule in rules], rules)
    yield _unusual_result(contract, platform, key, looked.unusual)
    if facts.exists and not problems and facts.reconciled and not looked.blocking:
        platform.passed.add(contract.table)


def _score(context: dg.AssetExecutionContext, contract: Contract, platform: Platform, key: dg.AssetKey) -> None:
    """Score the dataset after its deliveries; the asset shows score and trend as numbers that the UI plots."""
    from dopa_pipelines.quality import scores

    for problem in scores.take(platform.warehouse, [contract], day=scores.reference_day(platform.settings)).problems:
        context.log.warning(str(problem))
    with platform.warehouse.connect() as connection:
        overall = scores.history(connection, [contract.dataset], limit=2).get(contract.dataset, [])
        now = scores.latest(connection, contract.dataset)
    numbers = scores.as_numbers(now, overall)
    if numbers:
        context.log_event(dg.AssetObservation(asset_key=key, metadata=numbers))


def _rule_result(
    contract: Contract, platform: Platform, key: dg.AssetKey, name: str, found: "list[Found | None]", rules: list[Rule]
) -> dg.AssetCheckResult:
    """The result of a check: counts, score and trend as numbers that the UI plots, some rows, what to do."""
    from dopa_pipelines.quality.scores import score_of_rule

    severity = dg.AssetCheckSeverity.ERROR if rules[0].severity == "block" else dg.AssetCheckSeverity.WARN
    there = [item for item in found if item is not None]
    results = [(item, item.result) for item in there if item.result is not None]
    if not results:
        note = next((item.note for item in there if item.note), None)
        return dg.AssetCheckResult(
            asset_key=key,
            check_name=name,
            passed=note is not None,
            severity=severity,
            description=note or "nothing is loaded yet",
        )
    failing = [(item, result) for item, result in results if not result.passed]
    metadata: dict[str, Any] = {}
    if results[0][1].rows_checked is not None:
        checked, failed = results[0][1].rows_checked, sum(result.rows_failed or 0 for _, result in results)
        metadata |= {"rows_checked": checked, "rows_failed": failed, "share_failed": failed / checked if checked else 0.0}
    elif results[0][1].value is not None:
        metadata["value"] = float(results[0][1].value)
    metadata["score"] = sum(score_of_rule(result) for _, result in results) / len(results)
    trends = [item.trend for item, _ in results if item.trend is not None]
    if trends:
        metadata["trend"] = float(sum(trends))
    if len(rules) > 1:
        lines = [f"| `{item.rule.column}` | {result.rows_failed:,} | {result.passed} |" for item, result in results]
        metadata["by_column"] = dg.MetadataValue.md("\n".join(["| column | rows failed | passed |", "|---|---|---|", *lines]))
    if failing:
        sample = [row for _, result in failing for row in result.detail.get("sample", [])]
        if sample:
            metadata["sample"] = dg.MetadataValue.md(_rows_as_table(sample[:5]))
        steps = repair.rule(contract, rules[0].measured.line) if rules[0].measured else repair.rows(contract)
        metadata |= to_repair(platform, contract.dataset, steps)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=not failing,
        severity=severity,
        description="; ".join(_said(item) for item, _ in failing) or None,
        metadata=metadata,
    )


def _unusual_result(contract: Contract, platform: Platform, key: dg.AssetKey, figures: "list[Result]") -> dg.AssetCheckResult:
    """What is unusual in the last delivery, in words of the method (docs/quality_methods.md)."""
    found = [item for item in figures if not item.passed]
    metadata: dict[str, Any] = {"figures_watched": len(figures), "figures_unusual": len(found)}
    if found:
        lines = [f"- {item.detail['th']} / {item.detail['en']}" for item in found]
        metadata["unusual"] = dg.MetadataValue.md("\n".join(lines))
        metadata |= to_repair(platform, contract.dataset, repair.unusual(contract))
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=UNUSUAL,
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(item.detail["en"] for item in found) or (None if figures else "not enough history to judge by"),
        metadata=metadata,
    )


def _said(item: "Found") -> str:
    """One sentence about a rule that failed."""
    rule, result = item.rule, item.result
    assert result is not None
    what = f"{rule.description_th or rule.name} / {rule.description.rstrip('.') or rule.name}"
    if problem := result.detail.get("problem"):
        return f"{what}: {problem}"
    if result.rows_failed is not None and result.rows_checked is not None:
        return f"{what}: {result.rows_failed:,} of {result.rows_checked:,} rows fail"
    value = "nothing" if result.value is None else f"{result.value:,g}"
    return f"{what}: {value} where {rule.limit.words} must be"


def _rows_as_table(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [" | ".join(str(row.get(name, "")).replace("|", "\\|") for name in names) for row in rows]
    return "\n".join([f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *(f"| {line} |" for line in cells)])
