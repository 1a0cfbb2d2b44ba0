"""Controlled rounding, cell keys and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.disclosure import Dimension, Family, Noise, Policy, Table, protect
from dopa_pipelines.publishing.disclosure.cell_key import table as noise_table

SPEC = """\
measure: births
dimensions:
  - {name: area, total: TH, levels: [2, 4]}
  - {name: sex, total: both}
rule: {threshold: 5}
"""
DATA = "area,sex,births\n1001,m,3\n1001,f,12\n1002,m,9\n1002,f,14\n1101,m,40\n1101,f,30\n1102,m,22\n1102,f,11\n"


def grid(values: list[list[int]], keys: list[float] | None = None) -> Family:
    rows = [(f"r{i}", f"c{j}", value) for i, line in enumerate(values) for j, value in enumerate(line)]
    frame = pl.DataFrame(rows, schema={"row": pl.String, "column": pl.String, "n": pl.Int64}, orient="row")
    if keys is not None:
        frame = frame.with_columns(pl.Series("key", keys))
    dimensions = (Dimension.flat("row", "all", frame["row"]), Dimension.flat("column", "all", frame["column"]))
    return Family(dimensions, (Table("t", frame, ("row", "column"), "n", key=None if keys is None else "key"),))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), min_size=4, max_size=4), min_size=3, max_size=3), st.sampled_from([3, 5, 10]))
def test_controlled_rounding_is_additive_and_zero_restricted(values: list[list[int]], base: int) -> None:
    protected = protect(grid(values), Policy(method="rounding", base=base))
    got = {(row["row"], row["column"]): row for row in protected.frame.rows(named=True)}
    for row in got.values():
        assert row["published"] % base == 0
        assert abs(row["published"] - row["value"]) < base
    for i in range(3):
        assert got[f"r{i}", "all"]["published"] == sum(got[f"r{i}", f"c{j}"]["published"] for j in range(4))
    for j in range(4):
        assert got["all", f"c{j}"]["published"] == sum(got[f"r{i}", f"c{j}"]["published"] for i in range(3))


@pytest.mark.parametrize(("maximum", "variance", "jth"), [(2, 1.0, 0), (4, 2.0, 0), (5, 3.0, 2)])
def test_noise_is_unbiased_bounded_and_never_shows_small_counts(maximum: int, variance: float, jth: int) -> None:
    rows = noise_table(Noise(variance, maximum, jth))
    steps = np.arange(-maximum, maximum + 1)
    assert rows[0, maximum] == 1
    for count, row in enumerate(rows[1:], 1):
        assert row.sum() == pytest.approx(1)
        assert row @ steps == pytest.approx(0, abs=1e-9)
        assert row @ steps**2 <= variance + 1e-6
        shown = count + steps[row > 1e-12]
        assert shown.min() >= 0
        assert not ((shown >= 1) & (shown <= jth)).any()
    assert rows[-1] @ steps**2 == pytest.approx(min(variance, np.mean(steps**2)), abs=1e-6)


def test_a_row_of_the_noise_table_known_from_the_literature() -> None:
    """For D = 2 and no bound on the variance that binds, a count of 2 takes every step alike, as ``ptable`` gives it."""
    assert noise_table(Noise(variance=3, maximum=2))[2] == pytest.approx([0.2] * 5)


def test_noise_that_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="raise maximum or variance, or lower jth"):
        noise_table(Noise(variance=0.5, maximum=2, jth=2))


def test_cell_keys_give_the_same_noise_to_the_same_cell() -> None:
    values, keys = [[3, 20, 0], [25, 9, 40]], [0.1, 0.92, 0.0, 0.4, 0.77, 0.05]
    policy = Policy(method="cell_key", noise=Noise(2, 3))
    one = protect(grid(values, keys), policy)
    assert one.frame.equals(protect(grid(values, keys), policy).frame)
    assert (one.frame["published"] - one.frame["value"]).abs().max() <= 3
    assert one.frame.filter(pl.col("value") == 0)["published"].to_list() == [0]
    assert one.frame["published"].to_list() != one.frame["value"].to_list()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from dopa_pipelines.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_the_command_prints_json_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(DATA)
    (tmp_path / "s.yaml").write_text(SPEC)
    done = run(
        "disclose", str(tmp_path / "t.csv"), "--spec", str(tmp_path / "s.yaml"), "--json", "--out", str(tmp_path / "o.csv")
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["audit"]["passed"] and found["summary"]["primary"] == 1
    assert found["cells"][0] == {
        "area": "TH",
        "sex": "both",
        "value": 141,
        "published": 141,
        "status": "published",
        "interval": None,
    }
    # What goes out does not say which cells are the unsafe ones.
    assert (tmp_path / "o.csv").read_text().splitlines()[0] == "area,sex,births"


def test_the_command_ends_with_4_when_the_audit_fails(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(DATA)
    (tmp_path / "known.csv").write_text("area,sex,births\n1001,m,3\n")
    (tmp_path / "s.yaml").write_text(SPEC + "known:\n  - file: known.csv\n")
    done = run("disclose", str(tmp_path / "t.csv"), "--spec", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "o.csv"))
    assert done.returncode == 4
    assert "area 1001, sex m" in done.stderr
    assert not (tmp_path / "o.csv").exists()


def test_a_wrong_specification_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(DATA)
    (tmp_path / "s.yaml").write_text(SPEC + "treshold: 3\n")
    done = run("disclose", str(tmp_path / "t.csv"), "--spec", str(tmp_path / "s.yaml"))
    assert done.returncode == 2
    assert "s.yaml:6: unknown key 'treshold'" in done.stderr.replace("\n", "")
