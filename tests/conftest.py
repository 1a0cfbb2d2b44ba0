"""Fixtures that all tests may use: settings with a state folder of their own, and a warehouse in it.

Tests never see the developer's own state or servers: every ``DOPA_`` variable is taken away first. Under
pytest-xdist each worker has a state folder and a server of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dopa_pipelines.contracts import Contract, read_contract
from dopa_pipelines.contracts.read import GD_CATALOG_KEYS
from dopa_pipelines.ingest import Delivery, ingest
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Warehouse, open_warehouse

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "stat_a68_samutprakan.txt"
"""A real file of the department, which lies beside the project and is never committed: tests of it skip where it is absent."""

_LONG = ("test_kill.py", "test_external_postgres.py", "test_demo.py")
"""Files of minutes, which begin first: what begins last would keep one worker busy while the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(("DOPA_", "PG"))}
    yield
    os.environ.update(kept)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory, _no_settings_from_outside: None) -> Settings:
    """Settings of this test session: a state folder of its own, no server started yet."""
    return Settings(state=tmp_path_factory.mktemp("s") / "state")


@pytest.fixture(scope="session")
def warehouse(settings: Settings) -> Iterator[Warehouse]:
    """The session's warehouse, migrated; all tests of the session share it, so each leaves what it made
    for others to ignore.
    """
    with open_warehouse(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def environment(settings: Settings) -> dict[str, str]:
    """The environment for a child process (the command line, dbt) that is to use this session's state."""
    return os.environ | {"DOPA_STATE": str(settings.state)}


MakeContract = Callable[..., Contract]


@pytest.fixture
def make_contract(tmp_path: Path) -> MakeContract:
    """Makes small valid contracts in ``tmp_path``."""
    return contract_maker(tmp_path)


def contract_maker(folder: Path) -> MakeContract:
    """Makes a small valid contract in ``folder`` and reads it.

    ``columns``: ODCS properties; what a column needs is added (type text, classification open). A key of a column that ODCS does
    not know becomes a customProperty, so tests write ``{"name": "pid", "parse": "citizen_number"}``.
    """
    odcs = {
        "name", "physicalName", "logicalType", "physicalType", "required", "primaryKey", "primaryKeyPosition", "classification",
        "logicalTypeOptions", "quality", "relationships", "businessName", "description",
    }  # fmt: skip

    def custom(facts: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"property": name, "value": value} for name, value in facts.items()]

    def make(
        dataset: str,
        columns: list[dict[str, Any]],
        *,
        server: dict[str, Any] | None = None,
        layout: dict[str, Any] | None = None,
        load: dict[str, Any] | None = None,
        quality: list[dict[str, Any]] | None = None,
        version: str = "1.0.0",
        **properties: Any,
    ) -> Contract:
        made = []
        for column in columns:
            known = {"logicalType": "string", "classification": "open"} | {k: v for k, v in column.items() if k in odcs}
            own = custom({name: value for name, value in column.items() if name not in odcs})
            made.append(known | ({"customProperties": own} if own else {}))
        facts = {
            "dimension": "consistency",
            "customProperties": [{"property": "nationalDimension", "value": "consistency"}],
        }
        document = {
            "apiVersion": "v3.1.0", "kind": "DataContract", "id": dataset, "name": dataset, "version": version,
            "status": "active", "domain": "testing",
            "team": {"name": "t", "members": [{"username": "steward@dopa.example", "role": "technical_steward"}]},
            "servers": [
                {"server": "s", "type": "local", "path": f"testing/{dataset}/*", "format": "delimited", "delimiter": ","}
                | (server or {})
                | {"customProperties": custom(layout or {})}
            ],
            "schema": [
                {"name": dataset, "properties": made, "quality": [rule | facts for rule in quality or []]}
            ],
            "customProperties": custom(
                {"load": load or {"mode": "replace"}, "gdCatalog": dict.fromkeys(GD_CATALOG_KEYS, "x")} | properties
            ),
        }  # fmt: skip
        path = folder / f"{dataset}.odcs.yaml"
        path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), "utf-8")
        return read_contract(path)

    return make


class Table:
    """A dataset of one test: writes deliveries, brings them in, looks at the table."""

    def __init__(self, warehouse: Warehouse, contract: Contract, folder: Path) -> None:
        self.warehouse, self.contract, self.folder = warehouse, contract, folder

    def deliver(self, text: str, name: str = "delivery.csv", **options: Any) -> Delivery:
        path = self.folder / name
        path.write_text(text, "utf-8")
        return ingest(self.warehouse, self.contract, path, **options)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with self.warehouse.connect() as connection:
            return connection.execute(statement.format(t=self.contract.table, d=self.contract.dataset).encode()).fetchall()

    def rows(self) -> list[tuple[Any, ...]]:
        names = ", ".join(name for name, _ in self.contract.table_columns)
        return self.query(f"select {names} from {{t}} order by {names}")


@pytest.fixture
def table(warehouse: Warehouse, make_contract: Any, tmp_path: Path) -> Callable[..., Table]:
    def make(dataset: str, columns: list[dict[str, Any]], **contract: Any) -> Table:
        return Table(warehouse, make_contract(dataset, columns, **contract), tmp_path)

    return make
