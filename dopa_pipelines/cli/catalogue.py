"""``dopa ckan``: releases to the catalogue, and out of it."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from dopa_pipelines.cli.console import fail, out, print_json, table


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Releases in a CKAN catalogue (DOPA_CKAN_URL).")
    group.command("push")(push_command)
    group.command("withdraw")(withdraw_command)
    app.add_typer(group, name="ckan")


def push_command(
    names: Annotated[list[str] | None, typer.Argument(help="Publications; none means all that are released")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Download again what an earlier push found whole, too")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Bring the catalogue to the latest releases. What is there already is left alone.

    Exit code 4: some failed, the others are there.
    """
    from dopa_pipelines.documents import did_you_mean
    from dopa_pipelines.errors import UserError
    from dopa_pipelines.publishing import load_publications
    from dopa_pipelines.publishing.ckan import push
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    known = [item.name for item in load_publications(settings.contracts / "open_data").publications]
    for name in names or []:
        if name not in known:
            raise UserError(f"no publication is called {name!r}; {did_you_mean(name, known)}")
    released = [name for name in known if (settings.releases_path / name / "latest").exists()]
    with open_warehouse(settings) as warehouse:
        pushed = push(warehouse, settings, names or released, str(uuid.uuid4()), look_again=verify)
    if as_json:
        print_json({"pushed": [item.as_dict() for item in pushed]})
    else:
        shown = table("publication", "status", "version", "uploaded", "address", right=("uploaded",))
        for item in pushed:
            shown.add_row(item.publication, item.status, item.version or "", f"{item.bytes:,}", item.address or "")
        out.print(shown)
        for item in pushed:
            if item.problem:
                fail(f"{item.publication}: {item.problem}")
    if any(item.problem for item in pushed):
        raise typer.Exit(4)


def withdraw_command(
    name: Annotated[str, typer.Argument(help="Publication")],
    why: Annotated[str, typer.Option("--why", help="The reason, which the page in the catalogue tells")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Take a publication's files out of the catalogue; its page stays and says when and why.

    Only another release than the withdrawn one is pushed after that. Exit code 4: the catalogue failed.
    """
    from dopa_pipelines.publishing.ckan import withdraw
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    with open_warehouse(settings) as warehouse:
        made = withdraw(warehouse, settings, name, why, str(uuid.uuid4()))
    if as_json:
        print_json(made.as_dict())
    elif made.status == "unchanged":
        out.print(f"{name} had been withdrawn before: {made.address}")
    else:
        out.print(f"{name} {made.version or ''} is withdrawn: {made.address}")
