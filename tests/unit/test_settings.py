"""Settings: where they come from, and what a wrong one says."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.settings import load_settings, project_root
from dopa_pipelines.warehouse import require_free_port
from dopa_pipelines.warehouse.places import describe, make_url, parse_url


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("assets", "dbt_project", "below/it"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


def test_defaults_lie_in_the_project_from_any_folder_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "below" / "it")
    settings = load_settings()
    assert project_root() == tmp_path
    assert settings.state == tmp_path / ".dopa"
    assert settings.contracts == tmp_path / "assets"
    assert settings.drop_path == tmp_path / ".dopa" / "drop"
    assert settings.releases_path == tmp_path / ".dopa" / "releases"
    assert settings.warehouse_url is None


def test_a_given_path_is_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("DOPA_STATE", "other/../mine")
    monkeypatch.setenv("DOPA_DROP_ZONE", "/srv/drop")
    settings = load_settings()
    assert settings.state == tmp_path / "below" / "mine"
    assert settings.drop_path == Path("/srv/drop")
    assert settings.dagster_home == tmp_path / "below" / "mine" / "dagster"


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPA_WAREHOUSE_URL", "")
    assert load_settings().warehouse_url is None


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPA_PORT", "seventy")
    with pytest.raises(UserError, match="DOPA_PORT") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_the_url_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPA_WAREHOUSE_URL", "postgresql://me:hidden@db/w")
    assert "hidden" not in repr(load_settings())


def test_exit_codes() -> None:
    assert (UserError.exit_code, Rejected.exit_code) == (2, 3)


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"{port}.*DOPA_PORT"):
            require_free_port(port)
    require_free_port(port)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p%40ss%2F%3A%25w@db.example:5433/ware%20house",
        "postgresql://me:pw@/warehouse?host=/var/run/postgresql&port=5432",
        "postgresql://me:pw@[::1]:5432/w",
        "postgresql://me:pw@one:5432,two:5433/w?target_session_attrs=read-write",
        "postgresql://me@db/w?sslmode=verify-full",
    ],
)
def test_urls_keep_their_meaning(url: str) -> None:
    place = parse_url(url)
    assert parse_url(make_url(place)) == place
    assert parse_url(make_url(place, "postgresql+psycopg2")) == place
    assert "pw" not in describe(place)


@pytest.mark.parametrize("url", ["mysql://me:hidden@db/w", "postgresql://me:hid%den@db/w", "nonsense hidden"])
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UserError, match="DOPA_WAREHOUSE_URL") as caught:
        parse_url(url)
    assert "hid" not in str(caught.value)


def test_a_url_without_a_database_is_refused() -> None:
    with pytest.raises(UserError, match="names no database"):
        parse_url("postgresql://me:pw@db")
