"""The page of measures: a measure writes its own section and no other."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import measure
from dopa_pipelines.settings import Settings


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bench, "TARGET", tmp_path / "benchmarks.md")
    monkeypatch.setenv("DOPA_STATE", "")  # a measure sets it for its process; put back after the test
    return tmp_path / "benchmarks.md"


def test_a_measure_replaces_its_own_section_and_leaves_the_others(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import definitions, releases

    told: list[Path] = []
    monkeypatch.setattr(definitions, "measure", lambda _: [measure.Row("a load", "1 s", met=True)])

    def once(settings: Settings) -> list[measure.Row]:
        told.append(settings.state)
        return [measure.Row("a release", "2 s", "COPY 1 s", "2.0", "≤ 1.5", False)]

    monkeypatch.setattr(releases, "measure", once)
    bench.one("releases")
    bench.one("definitions")
    before = target.read_text("utf-8")
    assert "| a load | 1 s |  |  |  | yes |" in before
    assert "| a release | 2 s | COPY 1 s | 2.0 | ≤ 1.5 | no |" in before
    assert before.index("## definitions") < before.index("## releases")
    monkeypatch.setattr(definitions, "measure", lambda _: [measure.Row("a load", "3 s", met=True)])
    bench.one("definitions")
    assert target.read_text("utf-8") == before.replace("1 s |  |", "3 s |  |")
    assert not told[0].parent.exists()


def test_the_committed_page_is_of_the_measures_there_are() -> None:
    sections = bench.read()
    assert list(sections) == list(bench.NAMES)
    assert bench.TARGET.read_text("utf-8") == bench.page(sections)


@pytest.mark.parametrize("name", bench.NAMES)
def test_every_name_is_a_measure(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert callable(module.measure)
    assert module.__doc__


def test_a_name_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["release"]) == 2
    assert "releases" in capsys.readouterr().err
