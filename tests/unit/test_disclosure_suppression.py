"""Suppression and its audit against answer keys and against every whole table that looks the same from outside."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.disclosure import (
    Dimension,
    Dominance,
    Family,
    Policy,
    Protected,
    Rule,
    Table,
    attack,
    protect,
    suppression,
)
from dopa_pipelines.publishing.disclosure.attack import Attacker, Needs
from dopa_pipelines.publishing.disclosure.search import Problem
from dopa_pipelines.publishing.disclosure.system import System
from dopa_pipelines.publishing.disclosure.tables import build


def two_way(values: list[list[int]], **more: object) -> Family:
    rows = [(f"r{i}", f"c{j}", value) for i, line in enumerate(values) for j, value in enumerate(line)]
    frame = pl.DataFrame(rows, schema={"row": pl.String, "column": pl.String, "n": pl.Int64}, orient="row")
    dimensions = (Dimension.flat("row", "all", frame["row"]), Dimension.flat("column", "all", frame["column"]))
    return Family(dimensions, (Table("t", frame, ("row", "column"), "n", **more),))  # type: ignore[arg-type]


def at(protected: Protected, **codes: str) -> dict[str, object]:
    found = protected.frame
    for name, code in codes.items():
        found = found.filter(pl.col(name) == code)
    return found.row(0, named=True)


MOST_TABLES = 15_000


def tables_like(protected: Protected, shape: tuple[int, int]) -> list[np.ndarray] | None:
    """Every two-way table of whole numbers that agrees with what is published: the independent oracle, by enumeration.

    None where nothing bounds a hidden cell, or there are too many to count.
    """
    published = {(cell["row"], cell["column"]): cell["published"] for cell in protected.frame.rows(named=True)}
    inner = [(f"r{i}", f"c{j}") for i in range(shape[0]) for j in range(shape[1])]
    unknown = [place for place in inner if published[place] is None]
    choices = []
    for row, column in unknown:
        bounds = []
        for axis, margin in enumerate(((row, "all"), ("all", column))):
            if published[margin] is not None:
                # Every other hidden cell of the line is at least 1.
                line = [published[place] for place in inner if place[axis] == margin[axis]]
                bounds.append(published[margin] - sum(1 if value is None else value for value in line) + 1)
        if not bounds:
            return None
        choices.append(range(1, min(bounds) + 1))
    if np.prod([float(len(choice)) for choice in choices]) > MOST_TABLES:
        return None
    found = []
    for guess in itertools.product(*choices):
        full = {place: published[place] for place in inner} | dict(zip(unknown, guess, strict=True))
        grid = np.array([[full[f"r{i}", f"c{j}"] for j in range(shape[1])] for i in range(shape[0])])
        margins = {(f"r{i}", "all"): grid[i].sum() for i in range(shape[0])}
        margins |= {("all", f"c{j}"): grid[:, j].sum() for j in range(shape[1])} | {("all", "all"): grid.sum()}
        if all(published[place] in (None, total) for place, total in margins.items()):
            found.append(grid)
    return found


def test_one_unsafe_cell_takes_three_more() -> None:
    """The textbook case (Willenborg and de Waal 2001, ch. 6): in a two-way table a cell is hidden with a rectangle."""
    protected = protect(two_way([[3, 20, 30], [25, 9, 40], [50, 60, 70]]))
    assert protected.passed
    hidden = {(cell["row"], cell["column"]) for cell in protected.frame.rows(named=True) if cell["published"] is None}
    assert hidden == {("r0", "c0"), ("r0", "c1"), ("r1", "c0"), ("r1", "c1")}
    # By hand: the rectangle may move by -2 (r0 c0 stays at least 1) to +19 (r0 c1 stays at least 1).
    assert (at(protected, row="r0", column="c0")["low"], at(protected, row="r0", column="c0")["high"]) == (1, 22)


def test_intervals_are_those_of_all_tables_that_look_the_same() -> None:
    """The audit's interval of every hidden cell is exactly the least and the greatest value that enumeration finds."""
    random = np.random.default_rng(11)
    compared = 0
    for _ in range(80):
        values = random.poisson(random.choice([2.0, 7.0], (3, 3), p=[0.15, 0.85]))
        protected = protect(two_way(values.tolist()), Policy(Rule(threshold=3)))
        found = tables_like(protected, (3, 3))
        if not found:
            continue
        assert any((grid == values).all() for grid in found)
        for cell in protected.frame.filter(pl.col("published").is_null(), pl.col("row") != "all", pl.col("column") != "all").rows(
            named=True
        ):
            seen = [grid[int(cell["row"][1:]), int(cell["column"][1:])] for grid in found]
            assert (cell["low"], cell["high"]) == (min(seen), max(seen))
            compared += 1
            if protected.passed and cell["status"] == "primary":
                assert max(seen) - min(seen) >= 3
    assert compared > 40


def test_what_is_published_adds_up_to_the_truth() -> None:
    protected = protect(two_way([[3, 20, 30], [25, 9, 40], [50, 60, 70]]))
    shown = protected.frame.filter(pl.col("published").is_not_null())
    assert shown["published"].to_list() == shown["value"].to_list()


def test_a_row_equal_to_its_margin_hides_both() -> None:
    protected = protect(two_way([[0, 4, 0], [25, 9, 40], [50, 60, 70]]))
    assert protected.passed
    assert at(protected, row="r0", column="c1")["published"] is None
    assert at(protected, row="r0", column="all")["published"] is None
    assert at(protected, row="r0", column="c0")["published"] == 0


def test_a_single_contributor_does_not_tell_the_other_cell() -> None:
    """r0 is 1 + 3: whoever is the 1 must not learn the 3 from the margin, though outsiders could not."""
    protected = protect(two_way([[1, 3, 30], [25, 9, 40], [50, 60, 70]], threshold=5))
    assert protected.passed
    row = [at(protected, row="r0", column=column)["published"] for column in ("c0", "c1", "c2", "all")]
    assert sum(value is None for value in row) > 2


def system_of(relations: list[dict[int, int]], down: list[float]) -> System:
    return System(
        variable=np.arange(len(down)),
        count=len(down),
        start=np.cumsum([0, *(len(row) for row in relations)]),
        index=np.concatenate([np.array(list(row)) for row in relations]),
        coefficient=np.concatenate([np.array(list(row.values()), dtype=float) for row in relations]),
        down=np.array(down),
        implied=np.zeros(len(relations), dtype=bool),
    )


def needs_for(count: int, secret: int, persons: dict[int, int]) -> Needs:
    needs = Needs(np.zeros(count), np.zeros(count), np.zeros(count), np.full(count, -1), np.zeros(count, dtype=bool))
    needs.width[secret] = 1
    needs.secret[secret] = True
    needs.person[list(persons)] = list(persons.values())
    return needs


@pytest.mark.parametrize("large", [False, True], ids=["a small part", "one in which moves with fractions are held"])
def test_a_single_contributor_is_not_kept_from_a_count_by_half_a_person(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """x + y + p = w, y + z = w, x + z = w, q = p, and w is known within one. Who knows p (or q) knows 2x within one: x itself, as
    counts are whole, though a half on either side would add up as well."""
    if large:
        monkeypatch.setattr(attack, "LENIENT", 0)
    relations = [{0: 1, 1: 1, 3: 1, 2: -1}, {1: 1, 4: 1, 2: -1}, {0: 1, 4: 1, 2: -1}, {5: 1, 3: -1}]
    x, w, p, q = 0, 2, 3, 5
    system = system_of(relations, [5.0, 5, 1, 4, 5, 4])
    up = system.down.copy()
    up[w] = 1
    attacker = Attacker(system, np.arange(6), needs_for(6, x, {p: 0, q: 1}), np.ones(6, dtype=bool), whole=True, up=up)
    assert not len(attacker.settle()), "an outsider cannot tell"
    # A move that was held for what else it proves shows no more of a half than one that is found now.
    attacker.learn(np.array([0.5, 0.5, 1.0, 0.0, 0.5, 0.0]))
    assert not attacker.apart(0, x) and not attacker.apart(1, x)
    assert sorted(attacker.told()) == sorted(attacker.told(quick=True)) == [(0, x), (1, x)]


def test_who_may_tell_a_cell_is_asked_about_where_he_is_not() -> None:
    """x + y = 0 among what is looked at; who is in doubt is elsewhere, so any move of x is proof, but there must be one."""
    system = system_of([{0: 1, 1: 1}], [3.0, 3])
    needs = needs_for(2, 0, {})
    needs.width[:] = 0
    stuck = Attacker(system, np.arange(2), needs, np.array([True, False]), whole=True)
    stuck.pending = {0: {7}}
    assert stuck.told(quick=True) == stuck.told() == [(7, 0)], "x cannot move"
    free = Attacker(system, np.arange(2), needs, np.ones(2, dtype=bool), whole=True)
    free.pending = {0: {7}}
    assert free.told() == []
    assert (free.points[:, 0] != 0).any()


def test_what_a_neighbourhood_cannot_mend_is_left_to_a_wider_one() -> None:
    """x + y = 0 and x + z = 0: without z, x cannot move; with it hiding the other two lets it, and leaves who is elsewhere."""
    system = system_of([{0: 1, 1: 1}, {0: 1, 2: 1}], [3.0, 3, 3])
    needs = needs_for(3, 0, {})
    needs.width[0] = 2
    everything, only = np.ones(3, dtype=bool), np.array([True, False, False])
    problem = Problem(system, needs, np.ones(3), only, everything, whole=True)
    for near, mended in ((np.array([0, 1]), False), (np.array([0, 1, 2]), True)):
        small = only[near]
        hidden, narrow, left, moves = suppression._mend(problem, near, small, small, small, {0: {7}}, seed=1)
        assert hidden.tolist() == [True] + [mended] * (len(near) - 1)
        assert bool(narrow[0]) != mended
        assert left == ({} if mended else {0: {7}})
        assert bool(len(moves)) == mended


def test_all_zero_and_one_cell_tables() -> None:
    zero = protect(two_way([[0, 0], [0, 0]]))
    assert zero.passed and zero.summary["primary"] == 0 and zero.summary["cells_kept"] == 1
    large = protect(two_way([[40]]))
    assert large.passed and large.summary["cells_kept"] == 1
    small = protect(two_way([[3]]))
    assert small.passed and small.frame["published"].null_count() == len(small.frame)


def test_a_cell_that_is_known_cannot_hide_another() -> None:
    family = two_way([[3, 20, 30], [25, 9, 40], [50, 60, 70]])
    known = pl.DataFrame({"row": ["r1"], "column": ["c1"], "value": [9]})
    protected = protect(family, known=[known])
    assert protected.passed
    assert at(protected, row="r1", column="c1")["status"] == "published"


def test_an_unsafe_cell_that_is_known_fails_the_audit() -> None:
    known = pl.DataFrame({"row": ["r0"], "column": ["c0"], "value": [3]})
    protected = protect(two_way([[3, 20, 30], [25, 9, 40], [50, 60, 70]]), known=[known])
    assert not protected.passed
    assert protected.audit.disclosed[0]["cell"] == {"row": "r0", "column": "c0"}


def test_a_cell_hidden_before_stays_hidden() -> None:
    before = pl.DataFrame({"row": ["r2"], "column": ["c2"], "value": [None]}, schema_overrides={"value": pl.Int64})
    protected = protect(two_way([[8, 20, 30], [25, 9, 40], [50, 60, 70]]), known=[before])
    assert protected.passed and protected.summary["primary"] == 0
    assert at(protected, row="r2", column="c2")["published"] is None
    assert protected.frame["published"].null_count() >= 4


def test_known_values_that_contradict_are_refused() -> None:
    known = pl.DataFrame({"row": ["r1"], "column": ["c1"], "value": [10]})
    with pytest.raises(UserError, match=r"row 2.*is 10 there and 9"):
        protect(two_way([[3, 20], [25, 9]]), known=[known])


def test_tables_of_a_family_share_their_margins() -> None:
    """The total by area stands in both tables: hidden in one it is hidden in the other, and neither tells the other's cells."""
    area, sex, age = ["1", "2", "3"], ["f", "m"], ["old", "young"]
    one = pl.DataFrame(
        [(a, s, n) for (a, s), n in zip(itertools.product(area, sex), [2, 30, 8, 20, 40, 9], strict=True)],
        schema={"area": pl.String, "sex": pl.String, "n": pl.Int64},
        orient="row",
    )
    two = pl.DataFrame(
        [(a, g, n) for (a, g), n in zip(itertools.product(area, age), [12, 20, 3, 25, 19, 30], strict=True)],
        schema={"area": pl.String, "age": pl.String, "n": pl.Int64},
        orient="row",
    )
    dimensions = (Dimension.flat("area", "all", area), Dimension.flat("sex", "all", sex), Dimension.flat("age", "all", age))
    tables = (Table("one", one, ("area", "sex"), "n"), Table("two", two, ("area", "age"), "n"))
    protected = protect(Family(dimensions, tables))
    assert protected.passed and protected.summary["cells"] == 12 + 12 - 4
    assert protected.of(tables[0])["status"].to_list()[0] == "primary"
    assert protected.of(tables[1])["status"].to_list()[2] == "primary"
    wrong = Family(dimensions, (tables[0], Table("two", two.with_columns(n=pl.col("n") + 1), ("area", "age"), "n")))
    with pytest.raises(UserError, match="tables over the same people must agree"):
        build(wrong)


def test_thresholds_may_differ_between_tables() -> None:
    values = [[7, 20, 30], [25, 19, 40], [50, 60, 70]]
    assert protect(two_way(values)).summary["primary"] == 0
    assert protect(two_way(values, threshold=10)).summary["primary"] == 1


def test_margins_that_nobody_publishes_need_no_protection() -> None:
    values = [[3, 20, 30], [25, 9, 40], [50, 60, 70]]
    protected = protect(two_way(values, margins=False))
    assert protected.passed
    assert protected.of(protected_table(values))["hidden"].sum() == 1
    assert at(protected, row="all", column="all")["status"] == "unpublished"


def protected_table(values: list[list[int]]) -> Table:
    return two_way(values).tables[0]


def test_structural_zeros_are_known_to_everybody() -> None:
    frame = pl.DataFrame(
        {
            "row": ["r0", "r0", "r1", "r1"],
            "column": ["c0", "c1", "c0", "c1"],
            "n": [6, 0, 9, 30],
            "no": [False, True, False, False],
        }
    )
    dimensions = (Dimension.flat("row", "all", ["r0", "r1"]), Dimension.flat("column", "all", ["c0", "c1"]))
    family = Family(dimensions, (Table("t", frame, ("row", "column"), "n", impossible="no"),))
    protected = protect(family, Policy(Rule(threshold=7), zeros="hideable"))
    assert protected.passed and at(protected, row="r0", column="c1")["published"] == 0
    with pytest.raises(UserError, match="cannot be, but is not zero"):
        build(Family(dimensions, (Table("t", frame.with_columns(n=pl.lit(1)), ("row", "column"), "n", impossible="no"),)))


def magnitude(rows: list[tuple[str, str, float, int, float, float]]) -> Family:
    frame = pl.DataFrame(rows, schema=["area", "kind", "tax", "n", "first", "second"], orient="row")
    dimensions = (Dimension.flat("area", "all", frame["area"]), Dimension.flat("kind", "all", frame["kind"]))
    table = Table("t", frame, ("area", "kind"), "tax", contributors="n", largest=("first", "second"))
    return Family(dimensions, (table,))


def test_dominance_and_p_rule_by_hand() -> None:
    rows = [
        ("1", "a", 100.0, 9, 80.0, 5.0),  # 80 of 100: dominated at (1, 75); the rest, 15, exceeds 10 % of 80
        ("1", "b", 200.0, 20, 30.0, 25.0),
        ("2", "a", 300.0, 30, 40.0, 20.0),
        ("2", "b", 100.0, 9, 60.0, 36.0),  # the rest, 4, is below 10 % of 60: unsafe by p; not dominated
    ]
    dominated = protect(magnitude(rows), Policy(Rule(5, Dominance(1, 75)), kind="magnitude"))
    unsafe = dominated.frame.filter(pl.col("status") == "primary")
    assert unsafe.select("area", "kind").rows() == [("1", "a")]
    assert dominated.passed
    low, high = unsafe["low"][0], unsafe["high"][0]
    assert high >= 100 / 75 * 80 - 1e-6 and low <= 100 - (100 / 75 * 80 - 100) + 1e-6
    by_p = protect(magnitude(rows), Policy(Rule(5, None, 10), kind="magnitude"))
    assert by_p.frame.filter(pl.col("status") == "primary").select("area", "kind").rows() == [("2", "b")]


def test_negative_sums_are_refused() -> None:
    with pytest.raises(UserError, match=r"row 2, column 'tax': -1\.0 is negative"):
        build(magnitude([("1", "a", -1.0, 9, 1.0, 1.0), ("1", "b", 2.0, 9, 1.0, 1.0)]))


def test_a_margin_that_does_not_add_up_names_its_row() -> None:
    family = two_way([[3, 20], [25, 9]])
    wrong = pl.concat([family.tables[0].frame, pl.DataFrame({"row": ["r0"], "column": ["all"], "n": [24]})])
    with pytest.raises(UserError, match="row 6: the margin row r0, column all is 24, but its parts add up to 23"):
        build(Family(family.dimensions, (Table("t", wrong, ("row", "column"), "n"),)))


def test_ragged_hierarchies_and_only_children() -> None:
    codes = {"1001": 3, "1002": 20, "1101": 30, "12": 9}
    frame = pl.DataFrame(
        [(c, s, n + (s == "m")) for c, n in codes.items() for s in "fm"], schema=["area", "sex", "n"], orient="row"
    )
    area = Dimension.by_prefix("area", "TH", frame["area"], [2, 4])
    family = Family((area, Dimension.flat("sex", "both", ["f", "m"])), (Table("t", frame, ("area", "sex"), "n"),))
    protected = protect(family)
    assert protected.passed
    # 1101 is the only part of 11: what is hidden of one is hidden of the other.
    for sex in ("f", "m", "both"):
        assert at(protected, area="11", sex=sex)["published"] == at(protected, area="1101", sex=sex)["published"]


def test_the_same_table_is_protected_the_same_way() -> None:
    values = np.random.default_rng(5).poisson(9, (6, 6)).tolist()
    one, other = protect(two_way(values)), protect(two_way(values))
    assert one.frame.equals(other.frame)


def test_a_hierarchy_over_three_dimensions_is_protected() -> None:
    random = np.random.default_rng(7)
    codes = [f"{p}{d}{t}" for p in "12" for d in "123" for t in "1234"]
    rows = [
        (c, s, m, int(n))
        for c in codes
        for n, (s, m) in zip(random.poisson(random.gamma(1, 5), 8), itertools.product("fm", "1234"), strict=True)
    ]
    frame = pl.DataFrame(rows, schema=["area", "sex", "month", "n"], orient="row")
    area = Dimension.by_prefix("area", "TH", codes, [1, 2, 3])
    dimensions = (area, Dimension.flat("sex", "both", "fm"), Dimension.flat("month", "year", "1234"))
    table = Table("t", frame, ("area", "sex", "month"), "n")
    protected = protect(Family(dimensions, (table,)))
    assert protected.passed, protected.audit.disclosed[:3]
    primary = protected.frame.filter(pl.col("status") == "primary", pl.col("high").is_not_null())
    assert (primary["high"] - primary["low"]).min() >= 5
    assert protected.summary["cells_kept"] > 0.2
