"""What is known of a dataset beside the results of its rules: facts that indicators of the standard ask for, by name.

Each comes from the contract, ``ops.delivery`` or the recorded writes, as they are at the moment of asking; a fact that cannot be
known is None. What a fact is worth is the standard's (``standard.yaml`` names them).
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import psycopg

from dopa_pipelines.contracts import Contract
from dopa_pipelines.contracts.read import GD_CATALOG_KEYS
from dopa_pipelines.lineage.model import Graph
from dopa_pipelines.quality.standard import Standard
from dopa_pipelines.quality.store import Kept
from dopa_pipelines.thai import BANGKOK

ROLES = ("data_owner", "data_steward", "technical_steward", "quality_steward")
SCHEMA_INDICATOR = "2.1"

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Facts:
    """Facts by name; ``sources``: what some were read from (a delivery, releases), to be shown to who asks why."""

    values: dict[str, Any]
    sources: dict[str, Any] = field(default_factory=dict)

    def only(self, names: Iterable[str]) -> Facts:
        wanted = set(names)
        return Facts(
            {name: value for name, value in self.values.items() if name in wanted},
            {name: value for name, value in self.sources.items() if name in wanted},
        )


@dataclass(frozen=True)
class Arrival:
    """A delivery that was loaded: its id, the day that its data is of (None: nothing says), and the day it came."""

    delivery: int
    file: str
    of: date | None
    came: date


def facts_of(
    connection: Connection, contract: Contract, results: Sequence[Kept], graph: Graph, standard: Standard, day: date
) -> Facts:
    """Everything that the standard asks of a dataset on ``day``. ``results``: the latest of its rules."""
    # Nothing has come after the day that is asked about.
    came = [replace(item, came=min(item.came, day)) for item in arrivals(connection, contract)]
    timely = timeliness(contract, came, _newest(results), day)
    values = of_contract(contract, standard) | timely.values
    row = connection.execute(
        "select coalesce(sum(rows_held), 0)::bigint from ops.delivery where dataset = %s", (contract.dataset,)
    ).fetchone()
    values["delivered"] = bool(came)
    values["table_holds_rows"] = bool(row and row[0])
    values["rules_measured"] = bool(results)
    schema = [item.passed for item in results if item.indicator == SCHEMA_INDICATOR]
    values["schema_kept"] = bool(schema) and all(schema)
    below = descends(graph, contract)
    models = [name for name in below if not name.startswith("release:")]
    releases = [name for name in below if name.startswith("release:")]
    values["built_on"], values["released"] = bool(models), bool(releases)
    return Facts(values, timely.sources | {"released": releases, "built_on": models})


def of_contract(contract: Contract, standard: Standard) -> dict[str, Any]:
    """What a contract alone says."""
    roles = {member.role for member in contract.team}
    catalogue = contract.gd_catalog

    def says(key: str) -> bool:
        return _says(catalogue.get(key), standard)

    level = contract.service_level
    described = [bool(column.description.strip() and column.description_th.strip()) for column in contract.columns]
    return {
        "contract": True,
        # A register of codes is the list itself.
        "code_lists": str(catalogue.get("reference_data")) == "True"
        or any(column.valid_values or column.reference for column in contract.columns)
        or any(rule.kind in ("values", "reference") for rule in contract.table_rules),
        "linked": bool(contract.references),
        "share_of_columns_defined": round(sum(described) / len(described), 4),
        "source_named": says("data_source"),
        "owner_named": "data_owner" in roles,
        "steward_named": any("steward" in role for role in roles),
        "all_roles_named": set(ROLES) <= roles,
        "alerts_reach_a_steward": any("steward" in member.role and "@" in member.name for member in contract.team),
        "frequency_in_catalogue": says("update_frequency_unit"),
        "interval_in_contract": level.frequency_days > 0,
        "due_day_in_contract": level.latency_days is not None,
        "contact_named": says("maintainer_email"),
        "format_level": standard.formats[contract.layout.format],
        "share_of_metadata_filled": round(sum(says(key) for key in GD_CATALOG_KEYS) / len(GD_CATALOG_KEYS), 4),
    }


def _says(value: Any, standard: Standard) -> bool:
    items = value if isinstance(value, list) else [value]
    return any(item is not None and str(item).strip() not in standard.says_nothing for item in items)


def arrivals(connection: Connection, contract: Contract) -> list[Arrival]:
    """The dataset's deliveries that were loaded, oldest first; rows that were repaired later are no arrival."""
    rows = connection.execute(
        "select id, file, received_at, as_of, business_date from ops.delivery"
        " where dataset = %s and status = 'loaded' and not replayed order by id",
        (contract.dataset,),
    ).fetchall()
    found = []
    for id_, file, received_at, as_of, business_date in rows:
        came: date = as_of or received_at.astimezone(BANGKOK).date()
        found.append(Arrival(int(id_), file or "", _day_of(contract, file or "", business_date, came), came))
    return found


def _day_of(contract: Contract, file: str, business_date: date | None, came: date) -> date | None:
    """The last day that a delivery is of: that of its name, the last of its month, or of a fetch the day itself."""
    month, day = contract.period_of(file), contract.business_date_of(file)
    if month is not None and day is not None:
        whole = "day" not in (contract.layout.period or "")
        return month.replace(day=monthrange(month.year, month.month)[1]) if whole else day
    if business_date is not None:
        return business_date
    return came if contract.layout.type != "local" else None


def _newest(results: Sequence[Kept]) -> date | None:
    """The newest day in the table, where a rule of freshness looked at a column."""
    days = []
    for item in results:
        if item.kind == "freshness" and item.column_name and item.detail.get("newest"):
            moment = datetime.fromisoformat(str(item.detail["newest"]))
            days.append((moment.astimezone(BANGKOK) if moment.tzinfo else moment).date())
    return max(days, default=None)


def timeliness(contract: Contract, came: Sequence[Arrival], newest: date | None, day: date) -> Facts:
    """Delay of the latest delivery, age of its data, and days after it (or the next one) was due; None where nothing says.

    A correction that comes later is not late: of the latest day that data is of, the first arrival counts. Where no delivery says
    what day it is of, ``newest`` (the newest day in the table) stands for it.
    """
    values: dict[str, Any] = {"delivery_delay_days": None, "age_years": None, "days_after_due": None}
    if not came:
        return Facts(values)
    of: date | None
    dated = [item for item in came if item.of is not None]
    if dated:
        last = max(item.of for item in dated if item.of is not None)
        first = min((item for item in dated if item.of == last), key=lambda item: (item.came, item.delivery))
        of, arrived = last, first
    else:
        arrived = came[-1]
        of = min(newest, arrived.came) if newest else None  # a day in the future is an error of the data
    values["age_years"] = round(max(0, (day - (of or arrived.came)).days) / 365.25, 3)
    late = []
    if of is not None:
        values["delivery_delay_days"] = max(0, (arrived.came - of).days)
        if contract.service_level.latency_days is not None:
            late.append((arrived.came - of).days - contract.service_level.latency_days)
    if contract.service_level.frequency_days:
        due = (of or arrived.came) + timedelta(
            days=contract.service_level.frequency_days + (contract.service_level.latency_days or 0)
        )
        late.append((day - due).days)
    if late:
        values["days_after_due"] = max(0, *late)
    source = {"delivery": arrived.delivery, "file": arrived.file, "came": arrived.came.isoformat(),
              "of": of.isoformat() if of else None}  # fmt: skip
    return Facts(values, {name: source for name, value in values.items() if value is not None})


def descends(graph: Graph, contract: Contract) -> list[str]:
    """Names of what was built or released from a dataset, directly or through others; what only compared with it is left out."""
    waiting = [node.dataset for node in graph.nodes.values() if node.target == contract.table]
    seen = set(waiting)
    while waiting:
        for edge in graph.outputs.get(waiting.pop(), ()):
            if edge.kind != "reference" and edge.target not in seen and graph.nodes[edge.target].exists:
                seen.add(edge.target)
                waiting.append(edge.target)
    return sorted(graph.nodes[name].label for name in seen if graph.nodes[name].target != contract.table)
