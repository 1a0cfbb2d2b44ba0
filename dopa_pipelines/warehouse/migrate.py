"""Bring the platform's tables to this version's state with Alembic.

Alembic and SQLAlchemy are imported only when there is something to do.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from dopa_pipelines.errors import UserError
from dopa_pipelines.warehouse import places
from dopa_pipelines.warehouse.bootstrap import LOCK, Layout
from dopa_pipelines.warehouse.roles import Role

MIGRATIONS = Path(__file__).parent / "migrations"


@cache
def revisions() -> tuple[str, ...]:
    """All revisions, oldest first: they are linear, and their files are named ``r<revision>_<what>.py``."""
    names = sorted(path.name for path in (MIGRATIONS / "versions").glob("r*_*.py"))
    return tuple(found[1] for name in names if (found := re.match(r"r(\d{4})_", name)))


def head() -> str:
    """The revision that this version of the program needs."""
    return revisions()[-1]


def require_known(revision: str, where: str) -> None:
    """Raise ``UserError`` when a newer version of the program has been here."""
    if revision not in revisions():
        raise UserError(
            f"The warehouse {where} was made by a newer version (revision {revision}, this one knows up to "
            f"{head()}); update this installation."
        )


def upgrade(layout: Layout, namespace: str) -> None:
    """Run the migrations that are missing, one process at a time. ``namespace``: see ``lineage.identity``."""
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    owner = layout.places[Role.OWNER]
    with places.connect(owner, autocommit=True, source=layout.source) as guard:
        guard.execute("select pg_advisory_lock(%s)", [LOCK + 1])
        guard.execute("create schema if not exists ops")
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: places.connect(owner), poolclass=sqlalchemy.NullPool
        )
        with engine.connect() as connection:
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            names = layout.names if layout.roles else None
            config.attributes.update(connection=connection, roles=names, namespace=namespace)
            command.upgrade(config, "head")
