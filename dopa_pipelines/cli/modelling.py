"""``dopa dbt``: dbt by hand, with the warehouse's login."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import typer


def add_to(app: typer.Typer) -> None:
    app.command(
        "dbt",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(dbt_command)


def dbt_command(context: typer.Context) -> None:
    """Run dbt on the project: dopa dbt build --select +hotels. Builds into schemas of your own unless --target says otherwise."""
    from dopa_pipelines.publishing.lineage import tell
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.transform import Project
    from dopa_pipelines.warehouse import open_warehouse

    settings = load_settings()
    with open_warehouse(settings) as warehouse:
        project = Project(settings, warehouse)
        done = subprocess.run(
            [str(Path(sys.executable).with_name("dbt")), *context.args],
            cwd=project.folder,
            env={
                **os.environ,
                **project.environment(),
                "DBT_PROFILES_DIR": str(project.folder),
                # A folder of its own: production's manifest is another target's.
                "DBT_TARGET_PATH": str(settings.dbt_target_path / "by_hand"),
                "DBT_LOG_PATH": str(settings.state / "logs"),
                "DOPA_DBT_TARGET": os.environ.get("DOPA_DBT_TARGET", "dev"),
            },
        )
        tell(warehouse, settings)
    raise typer.Exit(done.returncode)
