"""``dopa audit``: evidence for auditors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dopa_pipelines.cli.console import err, fail, out, print_json

group = typer.Typer(help="Evidence for auditors.", no_args_is_help=True, rich_markup_mode=None)


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="audit")


@group.callback()
def audit() -> None:
    """Evidence for auditors."""


@group.command("bundle")
def bundle_command(
    subject: Annotated[
        str, typer.Argument(help="Dataset, table, publication, or one release: hotels_licensed@2026-11-25-1a2b3c4d")
    ],
    to: Annotated[Path | None, typer.Option("--out", help="The zip file; default audit-<subject>.zip here")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """All that was recorded of how it came to be, in one zip file that is read without this software. Holds no personal values.

    Exit code 4: the bundle is written, and what was recorded does not stand up to `dopa lineage verify`.
    """
    from dataclasses import replace

    from dopa_pipelines.governance.audit import gather, write_bundle
    from dopa_pipelines.lineage.verify import verify
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import Role, open_warehouse

    settings = load_settings()
    with open_warehouse(settings) as warehouse:
        # What was written without us is told and sealed first.
        tell(warehouse, settings, seconds=0)
        with warehouse.connect(Role.READER) as connection:
            evidence = gather(connection, subject, settings.releases_path)
        with err.status("verifying") as status:
            verdict = verify(warehouse, settings.releases_path, told=lambda name: status.update(f"verifying {name}"))
        evidence = replace(evidence, findings=[finding.message for finding in verdict.findings], notes=verdict.notes)
    path = to or Path(f"audit-{evidence.subject.replace(':', '-').replace('/', '-')}.zip")
    names = write_bundle(evidence, path)
    if as_json:
        print_json({"subject": evidence.subject, "path": str(path), "files": names, "findings": evidence.findings})
    else:
        out.print(
            f"{path}: {len(evidence.writes):,} writes, {len(evidence.deliveries):,} deliveries, {len(names)} files", markup=False
        )
        out.print("  open index.html; check it with sha256sum -c checksums.sha256 and python3 verify.py", markup=False)
    for finding in () if as_json else evidence.findings:
        fail(finding)
    if evidence.findings:
        raise typer.Exit(4)
