"""Which commit the code is of, asked of a real git."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dopa_pipelines import code


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project as the working folder, not under git yet."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "dbt_project").mkdir()
    (tmp_path / "dbt_project" / "dbt_project.yml").write_text("name: dopa\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    code.commit.cache_clear()
    yield tmp_path
    code.commit.cache_clear()


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@dopa.example")
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def asked_anew() -> tuple[dict[str, object], dict[str, str]]:
    code.commit.cache_clear()
    return dict(code.commit()), code.environment()


def test_without_git_nothing_is_claimed(project: Path) -> None:
    assert asked_anew() == ({}, {})
    git("init", "-q")
    assert asked_anew() == ({}, {}), "the repository does not know the project"


def test_a_commit_and_whether_files_differ_from_it(project: Path) -> None:
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("tag", "v1")
    first = git("rev-parse", "HEAD")
    assert asked_anew() == ({"git_commit": first}, {"DOPA_GIT_COMMIT": first})
    (project / "dbt_project" / "dbt_project.yml").write_text("name: another\n")
    assert asked_anew() == (
        {"git_commit": first, "git_changed": True},
        {"DOPA_GIT_COMMIT": first, "DOPA_GIT_CHANGED": "1"},
    )


def test_a_container_without_git_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPA_GIT_COMMIT", "c0ffee")
    assert asked_anew() == ({"git_commit": "c0ffee"}, {"DOPA_GIT_COMMIT": "c0ffee"})
