"""Fixtures that all tests may use: settings with a state folder of their own, and a warehouse in it.

Tests never see the developer's own state or servers: every ``DOPA_`` variable is taken away first. Under
pytest-xdist each worker has a state folder and a server of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Warehouse, open_warehouse


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
