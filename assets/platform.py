"""The platform as a Dagster resource, and what assets report while they run.

Nothing about a single asset belongs here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import psycopg
from pydantic import PrivateAttr

from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.errors import UserError
from dopa_pipelines.settings import Settings, load_settings
from dopa_pipelines.transform import NodeResult, Project
from dopa_pipelines.warehouse import Warehouse, open_warehouse
from dopa_pipelines.warehouse.dagster_storage import report_process

PROGRESS = "DOPA_PROGRESS_FD"
"""Environment variable with the file descriptor that a command line waiting for this run reads."""


def hold_connections(instance: dg.DagsterInstance) -> None:
    """Keep a connection to Dagster's storage open, as its web server does; a run opens a new one for every event otherwise,
    which is two thirds of what an asset costs."""
    instance.optimize_for_webserver(statement_timeout=0, pool_recycle=3600, max_overflow=20)


class Platform(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The open warehouse and dbt project of a run; closed with the run."""

    _warehouse: Warehouse | None = PrivateAttr(default=None)
    _project: Project | None = PrivateAttr(default=None)
    _settings: Settings | None = PrivateAttr(default=None)
    _passed: set[str] = PrivateAttr(default_factory=set)
    _built: dict[str, NodeResult] = PrivateAttr(default_factory=dict)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Platform, None, None]:
        self._settings = load_settings()
        with open_warehouse(self._settings) as warehouse, Project(self._settings, warehouse) as project:
            self._warehouse, self._project = warehouse, project
            if context.instance is not None:
                hold_connections(context.instance)
            if context.run is not None:
                with warehouse.connect() as connection:
                    report_process(connection, context.run.run_id)
            yield self
            self._tell(context)
        self._warehouse = self._project = None
        self._passed, self._built = set(), {}

    def _tell(self, context: dg.InitResourceContext) -> None:
        """Make OpenLineage events of the run's writes. They can be made later, too: a failure here fails no run."""
        from dopa_pipelines.lineage.openlineage import record_events
        from dopa_pipelines.lineage.owners import owners_of

        try:
            with self.warehouse.connect() as connection:
                record_events(connection, owners=owners_of(load_contracts(self.settings.contracts)))
                connection.commit()
        except (psycopg.Error, UserError) as error:
            if context.log is not None:
                context.log.warning(f"the run's lineage events were not recorded; the next run makes up for it: {error}")

    @property
    def passed(self) -> set[str]:
        """Tables that this run brought in and that passed their blocking checks."""
        return self._passed

    @property
    def built(self) -> dict[str, NodeResult]:
        """What dbt did in this run, by unique id."""
        return self._built

    @property
    def settings(self) -> Settings:
        assert self._settings is not None, "the resource is used outside a run"
        return self._settings

    @property
    def warehouse(self) -> Warehouse:
        assert self._warehouse is not None, "the resource is used outside a run"
        return self._warehouse

    @property
    def project(self) -> Project:
        assert self._project is not None, "the resource is used outside a run"
        return self._project


def report(asset: str, state: str, **facts: Any) -> None:
    """Tell the command line that waits for this run, if one does, what an asset is about."""
    descriptor = os.environ.get(PROGRESS)
    if descriptor:
        line = json.dumps({"asset": asset, "state": state, **facts}, ensure_ascii=False, default=str)
        try:
            os.write(int(descriptor), f"{line}\n".encode())
        except (OSError, ValueError):
            os.environ.pop(PROGRESS, None)  # nobody reads any more; the run goes on
