"""The ``dopa`` command: its groups, and how failures end.

Exit codes: 0 done; 2 wrong usage, contract or environment; 3 a delivery was rejected; 4 something failed or was held back, the
rest is done; 130 interrupted. Commands import what they need when they run, so that none pays for another.
"""

from __future__ import annotations

import sys

import typer

from dopa_pipelines.cli import (
    auditing,
    catalogue,
    changes,
    checking,
    disclosing,
    gating,
    ingesting,
    lineage,
    modelling,
    profiling,
    publishing,
    quality,
    quarantining,
    rebuilding,
    retaining,
    running,
    serving,
    standing,
    suggesting,
    tracing,
    verifying,
)
from dopa_pipelines.cli.console import fail
from dopa_pipelines.errors import UserError

app = typer.Typer(
    name="dopa",
    help="The data platform of the Department of Provincial Administration.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
running.add_to(app)
serving.add_to(app)
ingesting.add_to(app)
standing.add_to(app)
tracing.add_to(app)
modelling.add_to(app)
publishing.add_to(app)
disclosing.add_to(app)
catalogue.add_to(app)
checking.add_to(app)
gating.add_to(app)
quality.add_to(app)
quarantining.add_to(app)
rebuilding.add_to(app)
retaining.add_to(app)
lineage.add_to(app)
changes.add_to(app)
auditing.add_to(app)
verifying.add_to(app)
suggesting.add_to(app)
profiling.add_to(app)


def _run() -> None:
    try:
        app(standalone_mode=True)
    except Exception as error:
        # Asked by name: most commands that fail have no need of psycopg.
        if type(error).__module__.partition(".")[0] != "psycopg":
            raise
        from dopa_pipelines.warehouse import unfinished

        with unfinished("dopa " + " ".join(sys.argv[1:2])):
            raise


def main() -> None:
    """Entry point of the console script."""
    try:
        _run()
    except UserError as error:
        fail(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as ended:
        # Typer makes an exit code of Ctrl-C by itself, and says nothing.
        if isinstance(ended, SystemExit) and ended.code != 130:
            raise
        fail("interrupted; what was finished is kept, the rest is done by the same command again")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
