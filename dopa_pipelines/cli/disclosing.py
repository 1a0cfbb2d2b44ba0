"""``dopa disclose``: disclosure control of any table, for anyone to try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dopa_pipelines.cli.console import fail, out, print_json, table


def add_to(app: typer.Typer) -> None:
    app.command("disclose")(disclose_command)


def disclose_command(
    data: Annotated[Path, typer.Argument(help="CSV, long form: a row a cell", metavar="TABLE.csv")],
    spec: Annotated[Path, typer.Option("--spec", help="YAML: columns, hierarchies, rule; docs/disclosure.md explains it")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Write what may go out as CSV; hidden cells are empty")] = None,
) -> None:
    """Protect a table of counts or sums over people, and attack the result.

    Exit code 4: the audit failed, nothing may go out and nothing is written.
    """
    import polars as pl

    from dopa_pipelines.publishing.disclosure.protecting import protect
    from dopa_pipelines.publishing.disclosure.spec import family_of, read_specification, read_table

    specification = read_specification(spec)
    family, known = family_of(specification, read_table(data), data.name, spec.parent)
    protected = protect(family, specification.policy(processes=2), known)
    if to is not None and protected.passed:
        names = [dimension.name for dimension in family.dimensions]
        protected.frame.select(*names, pl.col("published").alias(specification.measure)).write_csv(to)
    if as_json:
        print_json(protected.as_dict())
    else:
        summary = protected.summary
        shown = table("cells", "primary", "complementary", "zeros", "cells kept", "value kept", "seconds")
        shown.add_row(
            *(f"{summary[key]:,}" for key in ("cells", "primary", "complementary", "zeros")),
            f"{summary['cells_kept']:.1%}",
            f"{summary['value_kept']:.1%}",
            f"{summary['seconds']:.1f}",
        )
        out.print(shown)
        audit = protected.audit
        if audit.narrowest is not None:
            cell = ", ".join(f"{name} {code}" for name, code in audit.narrowest["cell"].items())
            low, high = audit.narrowest["interval"]
            out.print(f"narrowest interval: {cell}: {low} to {'any' if high is None else high}", markup=False)
        for item in audit.disclosed[:20]:
            cell = ", ".join(f"{name} {code}" for name, code in item["cell"].items())
            low, high = item["interval"]
            fail(f"can be told: {cell}: between {low} and {high}")
        if len(audit.disclosed) > 20:
            fail(f"and {len(audit.disclosed) - 20} more; --json has them all")
    if not protected.passed:
        fail("the audit failed: nothing may go out. Publish fewer dimensions or coarser areas, or use rounding")
        raise typer.Exit(4)
