"""``dopa quality``: scores by the national standard, what they came from, and the report.

Incidents are a group of their own, mounted on :data:`group`.
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from dopa_pipelines.cli.console import fail, out, print_json, table

if TYPE_CHECKING:
    from dopa_pipelines.contracts import Contract, Contracts
    from dopa_pipelines.quality.report import Standing
    from dopa_pipelines.quality.scores import Explained, RuleBehind
    from dopa_pipelines.settings import Settings


class Group(TyperGroup):
    """``dopa quality [DATASET]`` is ``dopa quality show [DATASET]``: what is no command is a dataset."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else None
        if first not in self.commands and first not in ("--help", "-h"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=Group,
    help="Scores by the national data quality standard. `dopa quality DATASET` shows one dataset.",
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    from dopa_pipelines.cli import incidents

    group.add_typer(incidents.group, name="incidents")
    app.add_typer(group, name="quality")


@group.callback()
def quality() -> None:
    """Scores by the national data quality standard. `dopa quality DATASET` shows one dataset."""


@group.command("show")
def show_command(
    dataset: Annotated[str | None, typer.Argument(help="Dataset; none means all, by bureau")] = None,
    code: Annotated[
        str | None,
        typer.Option("--explain", help="An indicator (2.3), a dimension (2) or 0: what its score came from, down to the rows"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Scores as they were last taken: after each delivery, build and release.

    Exit code 4: a self-assessment is wrong, the scores are shown all the same.
    """
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.quality.assessment import load_assessments
    from dopa_pipelines.settings import load_settings

    settings = load_settings()
    contracts = _contracts(settings)
    if code is not None and dataset is None:
        raise UserError("--explain needs a dataset, such as `dopa quality birth_event --explain 2.3`")
    if dataset is not None:
        _explain(settings, _named(contracts, dataset), code, as_json)
    else:
        _all(settings, contracts, as_json)
    problems = load_assessments(contracts, settings.contracts).problems
    for problem in problems:
        fail(str(problem))
    if problems:
        raise typer.Exit(4)


@group.command("report")
def report_command(
    to: Annotated[Path | None, typer.Option("--out", help="The page to write; default quality.html here")] = None,
    bureau: Annotated[str | None, typer.Option("--bureau", help="Only the datasets of one bureau")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """One HTML page in Thai and English: scores with trend, worst rules, open incidents, what changed since the last report."""
    from dopa_pipelines.documents import did_you_mean
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.quality import report
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    contracts = list(_contracts(settings))
    bureaus = sorted({contract.bureau for contract in contracts})
    if bureau is not None and bureau not in bureaus:
        raise UserError(f"no dataset is of bureau {bureau!r}; {did_you_mean(bureau, bureaus)}")
    path = to or Path("quality.html")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{path}: not a file in a folder that exists; name the page to write with --out")
    chosen = [contract for contract in contracts if bureau is None or contract.bureau == bureau]
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.LOADER) as connection:
        page = report.gather(connection, chosen, bureau=bureau)
        try:
            path.write_text(report.as_html(page), "utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
        report.keep(connection, bureau, getpass.getuser())
        connection.commit()
    facts = {
        "path": str(path),
        "datasets": len(page.standings),
        "scored": sum(1 for item in page.standings if item.score is not None),
        "key_datasets": page.key_total,
        "key_datasets_at_the_line": page.key_reached,
    }
    if as_json:
        print_json(facts)
    else:
        out.print(
            f"{path}: {facts['scored']} of {facts['datasets']} datasets scored,"
            f" {page.key_reached} of {page.key_total} key datasets at {page.line:g} or more",
            markup=False,
        )


def _contracts(settings: Settings) -> Contracts:
    from dopa_pipelines.contracts import load_contracts

    return load_contracts(settings.contracts)


def _named(contracts: Contracts, dataset: str) -> Contract:
    from dopa_pipelines.documents import did_you_mean
    from dopa_pipelines.errors import UserError

    if dataset not in contracts.by_dataset:
        wrong = [str(problem) for problem in contracts.problems if problem.file.name.startswith(f"{dataset}.")]
        known = did_you_mean(dataset, contracts.by_dataset)
        raise UserError("\n".join(wrong) or f"no dataset is called {dataset!r}; {known}")
    return contracts.by_dataset[dataset]


def _all(settings: Settings, contracts: Contracts, as_json: bool) -> None:
    from dopa_pipelines.quality.report import standings
    from dopa_pipelines.warehouse import Role, open_warehouse

    with open_warehouse(settings) as warehouse, warehouse.connect(Role.LOADER) as connection:
        found = standings(connection, contracts)
    if as_json:
        print_json([_as_json(item) for item in found])
        return
    numbers = ("overall", "level", "accuracy", "consistency", "relevancy", "timeliness", "availability", "trend", "incidents")
    shown = table("bureau", "dataset", *numbers, right=numbers)
    for item in found:
        parts = [_number(item.dimension(code)) for code in "12345"]
        shown.add_row(
            item.contract.bureau, item.contract.dataset + (" *" if item.contract.key_dataset else ""), _number(item.score),
            "-" if item.level is None else f"{item.level:.2f}", *parts, _trend(item.trend), str(item.incidents),
        )  # fmt: skip
    out.print(shown)
    out.print("\n* key dataset; 0 to 100 (level: 1 to 4). One dataset: dopa quality DATASET; a page: dopa quality report")


def _explain(settings: Settings, contract: Contract, code: str | None, as_json: bool) -> None:
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.quality.incidents import incidents
    from dopa_pipelines.quality.report import standings
    from dopa_pipelines.quality.scores import explain, failing
    from dopa_pipelines.quality.standard import current
    from dopa_pipelines.warehouse import Role, open_warehouse

    with open_warehouse(settings) as warehouse, warehouse.connect(Role.LOADER) as connection:
        if code is not None:
            told = explain(connection, contract.dataset, code)
            if as_json:
                print_json(_explained_json(told))
            else:
                _say(told)
            return
        (item,) = standings(connection, [contract])
        failed = failing(connection, contract.dataset)
        numbers = {one.rule: one.id for one in incidents(connection, contract.dataset)}
    if item.score is None and not item.scores:
        raise UserError(
            f"{contract.dataset} has no score yet: `dopa ingest {contract.dataset}` brings a delivery in and scores it."
        )
    if as_json:
        told_rules = [_rule_json(rule) | {"incident": numbers.get(rule.result.rule)} for rule in failed]
        print_json(_as_json(item) | {"scores": [_score_json(score) for score in item.scores.values()], "failing": told_rules})
        return
    standard = current()
    out.print(f"{contract.dataset}  {contract.title_th}", markup=False)
    if item.level is not None and item.score is not None:
        word = standard.word(item.level)
        out.print(
            f"{item.score:.1f} of 100, level {item.level:.2f} of 4.00: {word.en} ({word.th}), trend {_trend(item.trend)},"
            f" {item.incidents} open incidents\n",
            markup=False,
        )
    shown = table("", "indicator", "ตัวชี้วัด", "level", "0-100", "by", right=("level", "0-100"))
    for dimension in standard.dimensions:
        whole = item.scores.get(dimension.code)
        if whole:
            shown.add_row(
                f"[bold]{dimension.code}[/]", f"[bold]{dimension.title.en}[/]", dimension.title.th,
                "-" if whole.level is None else f"{whole.level:.2f}", _number(whole.score), "",
            )  # fmt: skip
        for indicator in dimension.indicators:
            if part := item.scores.get(indicator.code):
                level = "-" if part.level is None else f"{part.level:g}"
                shown.add_row(
                    indicator.code,
                    f"  {indicator.name.en}",
                    indicator.name.th,
                    level,
                    _number(part.score),
                    part.why.get("way", ""),
                )
    out.print(shown)
    if failed:
        out.print("\nrules that fail, with their rows by delivery:", markup=False)
        rules = table("", "rule", "severity", "rows", "of", "incident", "deliveries", right=("rows", "of", "incident"))
        for rule in failed:
            result, number = rule.result, numbers.get(rule.result.rule)
            rules.add_row(
                result.indicator or "", result.rule, result.severity, _count(result.rows_failed), _count(result.rows_checked),
                "" if number is None else str(number), _deliveries(rule),
            )  # fmt: skip
        out.print(rules)
    out.print(f"\nwhat a score came from, down to the rows: dopa quality {contract.dataset} --explain 2.3", markup=False)


def _say(told: Explained) -> None:
    score, standard = told.score, told.standard
    title = standard.title(score.code)
    level = "does not apply" if score.level is None else f"level {score.level:g}, {_number(score.score)} of 100"
    out.print(f"{score.dataset} {score.code} {title.en} ({title.th}): {level}", markup=False)
    out.print(f"  taken {score.measured_at:%Y-%m-%d %H:%M} of write {score.write_id}, score {score.id}, formula {score.formula}",
              markup=False)  # fmt: skip
    for part in told.parts:
        name = standard.title(part.code)
        out.print(f"  {part.code} {name.en} ({name.th}): {_number(part.score)}", markup=False)
    if told.indicator is None:
        return
    meaning = told.indicator.meaning.get(int(score.level)) if score.level is not None else None
    if meaning:
        out.print(f"  {meaning.en} ({meaning.th})", markup=False)
    for name, value in (score.why.get("facts") or {}).items():
        source = (score.why.get("sources") or {}).get(name)
        out.print(f"  fact {name}: {value}" + (f"  ({_source(source)})" if source else ""), markup=False)
    if answer := score.why.get("answer"):
        counts = "" if answer["counts"] else "; it has run out or is not in force yet and does not count"
        out.print(
            f"  answer: level {answer['level']}, {answer['evidence']} ({answer['signed_by']}, {answer['assessed_on']}{counts})",
            markup=False,
        )
    for rule in told.rules:
        result = rule.result
        found = (
            f"{result.rows_failed:,} of {result.rows_checked:,} rows fail"
            if result.rows_failed is not None and result.rows_checked is not None
            else ("passed" if result.passed else "failed")
        )
        out.print(
            f"  rule {result.rule} ({result.kind}), result {result.id}: {found}, {100 * rule.share:.2f} % keep it", markup=False
        )
        if rule.deliveries:
            out.print(f"    of {_deliveries(rule, most=1000)}", markup=False)
        for place in rule.places:
            where = ", ".join(f"{name} {value}" for name, value in place.items() if name != "codes")
            codes = f": {', '.join(place['codes'])}" if place.get("codes") else ""
            out.print(f"    {where}{codes}", markup=False)
        if rule.rows > len(rule.places):
            out.print(f"    and {rule.rows - len(rule.places):,} more: dopa quarantine list {result.dataset}", markup=False)


SHOWN_DELIVERIES = 2
"""Deliveries that a line of the table names."""


def _deliveries(rule: RuleBehind, most: int = SHOWN_DELIVERIES) -> str:
    """``4 births.csv: 2``: rows by delivery, the latest first; of a measured rule the delivery that it was measured with."""
    found = [f"{item.delivery} {item.file}: {item.rows:,}" for item in reversed(rule.deliveries)]
    if not found and rule.result.delivery_id is not None:
        return f"after {rule.result.delivery_id}"
    more = len(found) - most
    return "; ".join(found[:most]) + (f"; {more} more" if more > 0 else "")


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _source(source: Any) -> str:
    if isinstance(source, dict):
        return ", ".join(f"{name} {value}" for name, value in source.items() if value is not None)
    return ", ".join(map(str, source)) if isinstance(source, list) else str(source)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _trend(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _as_json(item: Standing) -> dict[str, Any]:
    return {
        "dataset": item.contract.dataset,
        "bureau": item.contract.bureau,
        "key_dataset": item.contract.key_dataset,
        "score": item.score,
        "level": item.level,
        "dimensions": {code: item.dimension(code) for code in "12345"},
        "trend": item.trend,
        "open_incidents": item.incidents,
    }


def _score_json(score: Any) -> dict[str, Any]:
    names = ("id", "code", "level", "score", "measured_at", "write_id", "formula", "why")
    return {name: getattr(score, name) for name in names}


def _explained_json(told: Explained) -> dict[str, Any]:
    return {
        "dataset": told.score.dataset,
        **_score_json(told.score),
        "parts": [_score_json(part) for part in told.parts],
        "rules": [_rule_json(rule) | {"places": rule.places} for rule in told.rules],
    }


def _rule_json(rule: RuleBehind) -> dict[str, Any]:
    result = rule.result
    return {
        "result": result.id,
        "rule": result.rule,
        "kind": result.kind,
        "indicator": result.indicator,
        "severity": result.severity,
        "column": result.column_name,
        "delivery": result.delivery_id,
        "rows_checked": result.rows_checked,
        "rows_failed": result.rows_failed,
        "share": rule.share,
        "rows": rule.rows,
        "deliveries": [{"delivery": item.delivery, "file": item.file, "rows": item.rows} for item in rule.deliveries],
    }
