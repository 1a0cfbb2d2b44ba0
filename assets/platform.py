"""The platform as a Dagster resource, and what assets report while they run.

Nothing about a single asset belongs here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import psycopg

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.classes import Class, most_protected
from dopa_pipelines.portal import addresses
from dopa_pipelines.quality.repair import Step, as_markdown
from dopa_pipelines.settings import Settings, load_settings
from dopa_pipelines.transform import NodeResult, Project
from dopa_pipelines.warehouse import Warehouse, open_warehouse
from dopa_pipelines.warehouse.actor import readable
from dopa_pipelines.warehouse.dagster_storage import report_process
from dopa_pipelines.warehouse.work import end_dead_work

PROGRESS = "DOPA_PROGRESS_FD"
"""Environment variable with the file descriptor that a command line waiting for this run reads."""

CLASSIFICATION = "dopa/classification"
"""The tag of an asset with the most protected class of its columns, as last derived."""

AUTOMATIC = os.environ.get("DOPA_AUTOMATION") == "1"
"""Whether schedules and sensors start by themselves, as under ``dopa up``."""


def hold_connections(instance: dg.DagsterInstance) -> None:
    """Keep a connection to Dagster's storage open, as its web server does; a run opens a new one for every event otherwise,
    which is two thirds of what an asset costs."""
    instance.optimize_for_webserver(statement_timeout=0, pool_recycle=3600, max_overflow=20)


class Platform:
    """The open warehouse and dbt project of a run.

    ``passed``: tables that this run brought in or built and that passed their blocking checks. ``built``: what dbt did in this
    run, by unique id; ``test_numbers``: score and trend of its tests. ``column_lineage``: metadata of the models that it built,
    ``problems``: why the columns of one cannot be resolved, both by ``schema.table``. ``classes``: what columns are by their
    lineage, by ``schema.table`` and name.
    """

    def __init__(self, settings: Settings, warehouse: Warehouse, project: Project) -> None:
        self.settings = settings
        self.warehouse = warehouse
        self.project = project
        self.passed: set[str] = set()
        self.built: dict[str, NodeResult] = {}
        self.test_numbers: dict[str, dict[str, float]] = {}
        self.column_lineage: dict[str, dict[str, Any]] = {}
        self.problems: dict[str, str] = {}
        self.classes: dict[str, dict[str, Class]] = {}


@dg.resource(description="The warehouse and the dbt project; open while a run lasts")
def platform_resource(context: dg.InitResourceContext) -> Iterator[Platform]:
    """Opened with a run and closed with it. The run's writes are told as events at its end, or by the daemon's sensor."""
    settings = load_settings()
    with open_warehouse(settings) as warehouse, Project(settings, warehouse) as project:
        if context.instance is not None:
            hold_connections(context.instance)
        if context.run is not None:
            warehouse.actor = actor_of(context.run.tags, warehouse.actor)
            with warehouse.connect() as connection:
                report_process(connection, context.run.run_id)
        platform = Platform(settings, warehouse, project)
        try:
            yield platform
        finally:
            # A run under the daemon does not pay for it: the sensor `lineage_events` tells within half a minute.
            if not AUTOMATIC:
                _tell(platform, context)


def actor_of(tags: Mapping[str, str], account: str) -> str:
    """Who started a run: the user it names, or the schedule, sensor or page that launched it; ``account`` where none did.

    A run from the UI knows no person unless whatever stands before the UI sets the tag ``user``.
    """
    if user := readable(tags.get("user", "")):
        return user
    for tag, kind in (("dagster/schedule_name", "schedule"), ("dagster/sensor_name", "sensor")):
        if name := readable(tags.get(tag, "")):
            return f"system:{kind}:{name}"
    if tags.get("dagster/from_automation_condition") == "true" or tags.get("dagster/auto_materialize") == "true":
        return "system:automation"
    return "system:dagster-ui" if tags.get("dagster/from_ui") == "true" else account


def _tell(platform: Platform, context: dg.InitResourceContext) -> None:
    """Make events and column lineage of the run's work and writes. That can be done later, too: a failure here fails no run."""
    from dopa_pipelines.publishing import lineage

    try:
        end_dead_work(platform.warehouse)
        lineage.tell(platform.warehouse, platform.settings)
    except (psycopg.Error, UserError) as error:
        if context.log is not None:
            context.log.warning(f"the run's lineage events were not recorded or sealed; the next run makes up for it: {error}")
    _score(platform, context)


def _score(platform: Platform, context: dg.InitResourceContext) -> None:
    """Score the datasets again: models were built and extracts released since their deliveries. A failure here fails no run."""
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.quality import scores

    try:
        day = scores.reference_day(platform.settings)
        taken = scores.take(platform.warehouse, load_contracts(platform.settings.contracts), day=day)
        said = [str(problem) for problem in taken.problems]
    except (psycopg.Error, UserError) as error:
        said = [f"the datasets were not scored; the next run makes up for it: {error}"]
    if context.log is not None:
        for text in said:
            context.log.warning(text)


def trace_link(portal: str, name: str) -> dg.MetadataValue[Any]:
    """The trace of a table or release as asset metadata. ``portal``: its address."""
    return dg.MetadataValue.url(addresses.trace(portal, name))


def incidents_link(portal: str, name: str) -> dg.MetadataValue[Any]:
    """The open incidents of a dataset, or of a built table, as asset metadata: what fails and how it is repaired."""
    return dg.MetadataValue.url(addresses.incidents(portal, name))


def to_repair(platform: Platform, name: str, steps: list[Step]) -> dict[str, Any]:
    """What is to be done about a check of a dataset or table that fails, and the page of its incidents, as metadata."""
    return {
        "what_to_do": dg.MetadataValue.md(as_markdown(steps)),
        "repair": incidents_link(platform.settings.portal_address, name),
    }


def with_trace(description: str, portal: str, name: str, column: str) -> str:
    """A column's description with a link to its trace: in descriptions, Dagster's UI reads Markdown."""
    return f"{description} [ที่มา / trace]({addresses.trace(portal, name, column)})".lstrip()


def class_tags(classes: Mapping[str, Class]) -> dict[str, str]:
    """The most protected class among an asset's columns, as a tag; none where it was not derived yet."""
    most = most_protected(classes.values())
    return {CLASSIFICATION: most.level} if most else {}


def column_tags(item: Class | None) -> dict[str, str]:
    """What a column is, as its tags."""
    return {"classification": item.level, "derived_as": item.what} if item else {}


def class_table(classes: Mapping[str, Class]) -> dict[str, dg.MetadataValue[Any]]:
    """What each column is and why, as metadata: the path from the silo's column that makes it so, and what decides its rows."""
    if not classes:
        return {}
    rows = []
    for item in classes.values():
        level = f"**{item.level}**" if item.protected else item.level
        way = " → ".join(f"`{step}`" for step in item.path) if not item.problem else item.problem.replace("|", "\\|")
        rows.append(f"| `{item.column}` | {level} | {item.what.replace('_', ' ')} | {way} |")
    indirect = sorted({step for item in classes.values() for step in item.indirect})
    more = ["", f"Which rows there are depends on {', '.join(f'`{step}`' for step in indirect)}."] if indirect else []
    head = ["| column | classification | it is | because of |", "|---|---|---|---|"]
    return {"classification": dg.MetadataValue.md("\n".join([*head, *rows, *more]))}


def report(asset: str, state: str, **facts: Any) -> None:
    """Tell the command line that waits for this run, if one does, what an asset is about."""
    descriptor = os.environ.get(PROGRESS)
    if descriptor:
        line = json.dumps({"asset": asset, "state": state, **facts}, ensure_ascii=False, default=str)
        try:
            os.write(int(descriptor), f"{line}\n".encode())
        except (OSError, ValueError):
            os.environ.pop(PROGRESS, None)  # nobody reads any more; the run goes on
