"""``dopa profile``: what a delivery or a table looks like."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dopa_pipelines.cli.console import out, print_json, table


def add_to(app: typer.Typer) -> None:
    app.command("profile")(profile_command)


def profile_command(
    name: Annotated[str, typer.Argument(help="Dataset, or schema.table of a model")],
    delivery: Annotated[int | None, typer.Option("--delivery", help="Number of a delivery; default the last")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Counts, missing and distinct values, ranges, frequent values; of personal columns only counts and shapes."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.documents import did_you_mean
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.quality.profiles import latest
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.READER) as connection:
        found = latest(connection, name.removeprefix("raw."), delivery)
        if found is None:
            rows = connection.execute("select distinct dataset from quality.profile").fetchall()
            known = sorted({row[0] for row in rows} | {item.dataset for item in load_contracts(settings.contracts)})
            which = f" of delivery {delivery}" if delivery is not None else ""
            raise UserError(f"there is no profile of {name}{which}; {did_you_mean(name, known)}")
    if as_json:
        columns = {column: facts for column, facts in found.facts.items() if column is not None}
        print_json(
            {
                "dataset": found.dataset, "delivery": found.delivery, "write": found.write, "measured_at": found.measured_at,
                "rows": found.rows, "facts": found.facts.get(None, {}), "columns": columns,
            }
        )  # fmt: skip
        return
    of = f"delivery {found.delivery}" if found.delivery is not None else f"write {found.write}"
    out.print(f"{found.dataset}, {of}: {found.rows:,} rows", markup=False)
    shown = table("column", "missing", "distinct", "least", "greatest", "frequent", right=("missing", "distinct"))
    for column, facts in found.facts.items():
        if column is None:
            continue
        distinct = facts.get("distinct")
        about = "~" if facts.get("distinct_error") else ""
        frequent = facts.get("top") or facts.get("shapes") or []
        shown.add_row(
            column,
            f"{facts.get('missing', 0):,}",
            "" if distinct is None else f"{about}{distinct:,.0f}",
            _text(facts.get("min")),
            _text(facts.get("max")),
            ", ".join(f"{_text(value)} ({count:,})" for value, count in frequent[:3]),
        )
    out.print(shown)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
