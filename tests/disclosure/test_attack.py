"""The attacker is right: against enumeration on tiny tables, and against protectors that leave something open."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.disclosure import naive
from tests.disclosure.attack import Attacker, Public, Rate, System, averaged, joined, knowing, public, rates, shuttle, system
from tests.disclosure.generate import case, cases
from tests.disclosure.judge import insiders, judge
from tests.disclosure.tables import Table, table

SPEC: dict[str, Any] = {
    "measure": "n",
    "dimensions": [{"name": "area", "total": "TH", "levels": [1, 2]}, {"name": "sex", "total": "both"}],
}


def make(cells: dict[tuple[str, ...], int], spec: dict[str, Any] = SPEC, known: Any = (), **more: Any) -> Table:
    names = [item["name"] for item in spec["dimensions"]]
    return table(spec | more, [dict(zip(names, codes, strict=True)) | {"n": n} for codes, n in cells.items()], known)


def hide(truth: Table, *cells: tuple[str, ...]) -> naive.Cells:
    hidden = np.zeros(len(truth.value), bool)
    for codes in cells:
        hidden[truth.cell({item.name: code for item, code in zip(truth.dimensions, codes, strict=True)})] = True
    return naive.release(truth, hidden)


def fitting(seen: Public, fixed: dict[int, float] | None = None) -> list[np.ndarray]:
    """All tables of counts that fit what was published, by trying every one; inner cells up to the largest published number."""
    known = system(seen)
    leaves = [np.flatnonzero(item.leaf) for item in seen.dimensions]
    shape = tuple(len(item.codes) for item in seen.dimensions)
    inner = [int(np.ravel_multi_index(place, shape)) for place in itertools.product(*leaves)]
    parts = []
    for place in itertools.product(*leaves):
        above = [item.above(int(code)) for item, code in zip(seen.dimensions, place, strict=True)]
        parts.append([int(np.ravel_multi_index(codes, shape)) for codes in itertools.product(*above)])
    lower, upper = known.lower.copy(), known.upper.copy()
    for cell, value in (fixed or {}).items():
        lower[cell] = upper[cell] = value
    most = int(np.nanmax(seen.published))
    found: list[np.ndarray] = []
    sums = np.zeros(len(lower))

    def fill(at: int) -> None:
        if at == len(inner):
            if (sums >= lower).all():
                found.append(sums.copy())
            return
        low = int(lower[inner[at]])
        high = int(min(upper[inner[at]], most))
        for value in range(low, high + 1):
            sums[parts[at]] += value
            if (sums[parts[at]] <= upper[parts[at]]).all():
                fill(at + 1)
            sums[parts[at]] -= value

    fill(0)
    return found


def tiny(seed: int) -> tuple[Table, naive.Cells]:
    """A table of at most eight inner cells with small counts; some of its cells hidden, never the grand total."""
    draw = random.Random(seed)
    shape = draw.choice(([2, 2], [2, 3], [4, 2], [2, 2, 2], [3], [5]))
    spec: dict[str, Any] = {
        "measure": "n", "zeros": draw.choice(("published", "hideable")), "rule": {"threshold": 3},
        "dimensions": [{"name": f"d{axis}", "total": "all"} for axis in range(len(shape))],
    }  # fmt: skip
    if shape[0] > 2:
        spec["dimensions"][0]["parents"] = {"c0": "upper", "c1": "upper", "upper": "all"}
    truth = make(
        {tuple(f"c{code}" for code in place): draw.choice((0, 1, 1, 2, 3)) for place in itertools.product(*map(range, shape))},
        spec,
    )
    may = np.ones(len(truth.value), bool) if spec["zeros"] == "hideable" else truth.value > 0
    hidden = may & np.array([draw.random() < 0.6 for _ in truth.value])
    hidden[0] = False
    return truth, naive.release(truth, hidden)


@pytest.mark.parametrize("seed", range(40))
def test_intervals_are_those_of_all_tables_that_fit(seed: int) -> None:
    truth, cells = tiny(seed)
    seen = public(truth, cells)
    attacker = Attacker(system(seen))
    every = np.array(fitting(seen))
    assert any((point == truth.value).all() for point in every)
    for cell in np.flatnonzero(seen.hidden):
        assert attacker.interval(int(cell)) == (every[:, cell].min(), every[:, cell].max()), truth.names(int(cell))


@pytest.mark.parametrize("seed", range(40))
def test_insiders_tell_what_all_tables_that_fit_tell(seed: int) -> None:
    truth, cells = tiny(seed)
    seen = public(truth, cells)
    outsider = np.array(fitting(seen))
    open_ = [int(cell) for cell in np.flatnonzero(outsider.min(0) < outsider.max(0))]
    attacker = Attacker(system(seen))
    for mine in insiders(truth):
        every = np.array(fitting(seen, mine))
        # Another person's, and not told to everybody: told exactly by all tables that fit and his own cells.
        told = {cell: every[0, cell] for cell in open_ if cell not in mine and every[:, cell].min() == every[:, cell].max()}
        hidden = [cell for cell in map(int, np.flatnonzero(seen.hidden)) if cell not in mine]
        # Sums of cells he knows and published ones have no component in common with others only where nothing is open.
        assert attacker.tells(mine, hidden) == told


@pytest.mark.parametrize("seed", range(60))
def test_each_attack_tells_at_least_as_much_as_the_one_before(seed: int) -> None:
    truth = case(seed, most=120, known=False).table()
    seen = public(truth, naive.two_in_each(truth))
    low, high = shuttle(system(seen))
    attacker = Attacker(system(seen))
    linear = Attacker(System(system(seen).sums, system(seen).lower, system(seen).upper, whole=False))
    for cell in map(int, np.flatnonzero(seen.hidden)):
        wide, narrow = linear.interval(cell), attacker.interval(cell)
        slack = 1e-5 * max(1.0, truth.value[cell])
        assert low[cell] <= narrow[0] + slack and narrow[1] <= high[cell] + slack
        assert wide[0] <= narrow[0] + slack and narrow[1] <= wide[1] + slack
        assert narrow[0] - slack <= truth.value[cell] <= narrow[1] + slack


def test_primary_cells_alone_are_told_from_their_sums() -> None:
    truth = make({("11", "m"): 3, ("11", "f"): 9, ("12", "m"): 20, ("12", "f"): 30, ("21", "m"): 40, ("21", "f"): 17})
    verdict = judge(truth, naive.primary_only(truth))
    assert [(told.by, told.cell, told.interval) for told in verdict.told] == [("bounds", {"area": "11", "sex": "m"}, (3, 3))]


def test_rows_without_columns_are_not_enough() -> None:
    truth = make({("11", "m"): 3, ("11", "f"): 9, ("12", "m"): 20, ("12", "f"): 30, ("21", "m"): 40, ("21", "f"): 17})
    assert {told.interval for told in judge(truth, naive.rows_only(truth)).told} == {(3, 3), (20, 20)}


def test_a_hierarchy_that_was_overlooked_tells() -> None:
    # Across the two provinces there are two small cells in each column, but each province has a total.
    cells = {("11", "m"): 3, ("11", "f"): 9, ("12", "m"): 20, ("12", "f"): 30}
    cells |= {("21", "m"): 4, ("21", "f"): 8, ("22", "m"): 14, ("22", "f"): 20}
    truth = make(cells)
    small = [("11", "m"), ("11", "f"), ("21", "m"), ("21", "f")]
    assert {tuple(told.cell.values()) for told in judge(truth, hide(truth, *small)).told} == set(small)
    across = [("11", "m"), ("11", "f"), ("12", "m"), ("12", "f"), ("21", "m"), ("21", "f"), ("22", "m"), ("22", "f")]
    assert judge(truth, hide(truth, *across)).kept


def test_two_hidden_cells_can_be_too_narrow() -> None:
    truth = make(
        {("11", "m"): 2, ("11", "f"): 1, ("12", "m"): 1, ("12", "f"): 2, ("21", "m"): 40, ("21", "f"): 17}, rule={"threshold": 3}
    )
    found = judge(truth, naive.two_in_each(truth))
    assert any(told.interval == (1, 2) and told.primary for told in found.told)


def test_two_that_are_alone_tell_each_other() -> None:
    spec: dict[str, Any] = {"measure": "n", "rule": {"threshold": 2}, "dimensions": [{"name": "age", "total": "all"}]}
    truth = make({("old",): 1, ("young",): 7, ("middle",): 1, ("child",): 9}, spec, zeros="hideable")
    found = judge(truth, hide(truth, ("old",), ("middle",)))
    assert {told.by.partition(" of ")[0] for told in found.told} == {"single contributor"}
    assert judge(truth, hide(truth, ("old",), ("middle",), ("young",))).kept


def test_an_earlier_release_is_remembered() -> None:
    cells = {("11", "m"): 3, ("11", "f"): 9, ("12", "m"): 20, ("12", "f"): 30, ("21", "m"): 40, ("21", "f"): 17}
    pattern = [("11", "m"), ("11", "f"), ("12", "m"), ("12", "f")]
    assert judge(make(cells), hide(make(cells), *pattern)).kept
    earlier = (["area", "sex", "n"], [{"area": "12", "sex": "m", "n": "20"}, {"area": "21", "sex": "m", "n": ""}])
    truth = make(cells, known=[earlier])
    assert {told.interval for told in judge(truth, hide(truth, *pattern)).told} == {(3, 3), (9, 9), (20, 20), (30, 30)}


def test_tables_of_one_family_are_seen_together() -> None:
    one = make({("11", "m"): 6, ("11", "f"): 9, ("12", "m"): 7, ("12", "f"): 2, ("21", "m"): 40, ("21", "f"): 17})
    other = SPEC | {"dimensions": [SPEC["dimensions"][0], {"name": "age", "total": "all"}]}
    # The same areas: 15, 9 and 57 people.
    two = make(
        {("11", "young"): 9, ("11", "old"): 6, ("12", "young"): 3, ("12", "old"): 6, ("21", "young"): 50, ("21", "old"): 7}, other
    )
    first = hide(one, ("12", "f"), ("12", "both"), ("11", "f"), ("11", "both"))
    assert judge(one, first).kept
    second = hide(two, ("12", "young"), ("12", "old"), ("11", "young"), ("11", "old"))
    assert judge(two, second).kept
    together, number = joined(public(one, first), public(two, second))
    assert Attacker(together).interval(one.cell({"area": "12", "sex": "f"})) == (2, 2)
    assert number[two.cell({"area": "12"})] == one.cell({"area": "12"})
    assert together.lower[one.cell({"area": "12"})] == 9


def test_published_percentages_give_hidden_cells_away() -> None:
    truth = make({("11", "m"): 3, ("11", "f"): 97, ("12", "m"): 20, ("12", "f"): 30})
    cells = hide(truth, ("11", "m"), ("11", "f"), ("12", "m"), ("12", "f"))
    seen = public(truth, cells)
    cell, whole = truth.cell({"area": "11", "sex": "m"}), truth.cell({"area": "11"})
    assert Attacker(system(seen)).interval(cell) == (1, 22)
    # 3 of 100 is 3 %: to a whole per cent one count, to tens of per cent any of up to five.
    assert Attacker(rates(system(seen), [Rate(cell, whole, 3, 0)])).interval(cell) == (3, 3)
    assert Attacker(rates(system(seen), [Rate(cell, whole, 0, -1)])).interval(cell) == (1, 5)


def test_rounding_cell_by_cell_is_undone_by_its_sums() -> None:
    spec: dict[str, Any] = {"measure": "n", "rule": {"threshold": 3}, "dimensions": [{"name": "age", "total": "all"}]}
    truth = make({("a",): 2, ("b",): 7, ("c",): 7}, spec, method="rounding", base=5)
    found = judge(truth, naive.rounded(5)(truth))
    assert found.kept and found.intervals[truth.cell({"age": "a"})][0] == 0
    # Each within 4 of the truth: of 16 to 24 people at most 14 and 8 are in b and c, so a may be anything up to 4.
    for total, told in ((20.0, (0, 4)), (30.0, (4, 4))):
        seen = Public(truth.dimensions, np.array([total, 0, 10, 4]), truth.structural, {}, True, True, "rounding", 4.0)
        assert Attacker(system(seen)).interval(1) == told


def test_averaging_takes_noise_away() -> None:
    truth = case(11, dimensions=3, most=300, kind="frequency", known=False).table()
    noise = np.random.default_rng(1).normal(0, 2, len(truth.value))
    seen = Public(truth.dimensions, truth.value + noise, truth.structural, {}, True, True, "cell_key", 10)
    near = averaged(seen)
    sums = truth.relations
    assert np.abs(np.bincount(sums.row, sums.coefficient * near[sums.cell])).max() < 1e-6
    assert np.sqrt(np.mean((near - truth.value) ** 2)) < 0.8 * np.sqrt(np.mean(noise**2))


def test_to_know_which_cells_are_primary_tells_more() -> None:
    truth = make({("11", "m"): 4, ("11", "f"): 6, ("12", "m"): 5, ("12", "f"): 30})
    cells = hide(truth, ("11", "m"), ("11", "f"), ("12", "m"), ("12", "f"))
    seen, cell = public(truth, cells), truth.cell({"area": "11", "sex": "m"})
    assert Attacker(system(seen)).interval(cell) == (1, 8)
    # The other small men's cell is at least 5 of the nine, so these are at most 4; the women of 11 are at least 5.
    assert Attacker(knowing(seen, truth.primary)).interval(cell) == (1, 4)


WEAK: dict[str, Callable[[Table], naive.Cells]] = {
    "primary only": naive.primary_only, "rows only": naive.rows_only, "no margins": naive.flat, "no widths": naive.two_in_each,
}  # fmt: skip


@pytest.mark.parametrize("weakness", WEAK)
def test_weak_protectors_are_broken(weakness: str) -> None:
    broken = tried = 0
    for drawn in cases(30, seed=5, most=120, known=False):
        truth = drawn.table()
        if truth.primary.any():
            tried += 1
            broken += not judge(truth, WEAK[weakness](truth)).kept
    assert tried > 20 and broken > tried / 3


def test_hiding_everything_is_never_broken() -> None:
    for drawn in cases(30, seed=6, most=120, known=False):
        truth = drawn.table()
        assert not [told for told in judge(truth, naive.everything(truth)).told if told.primary], drawn.name
