"""A few kills in every test run; ``python -m tests.crash`` does a hundred."""

from pathlib import Path
from typing import Any

from tests.crash.suite import disturbed, make_work, undisturbed


def test_killed_at_any_point_the_next_run_finishes_the_work_once(make_contract: Any, tmp_path: Path) -> None:
    work = make_work(make_contract, tmp_path, rows=5_000)
    expected = undisturbed(tmp_path / "a" / "state", work)
    tally = disturbed(tmp_path / "b" / "state", work, expected, client=9, server=3, seed=2569)
    assert tally.differences == []
    assert tally.killed >= 6, tally
