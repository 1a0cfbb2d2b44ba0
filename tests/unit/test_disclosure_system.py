"""Relations and the moves that they allow: what follows from what, what each sum needs, cubes; against definitions."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from dopa_pipelines.publishing.disclosure import Dimension, Family, Table, cubes
from dopa_pipelines.publishing.disclosure.attack import Needs
from dopa_pipelines.publishing.disclosure.cubes import Grid
from dopa_pipelines.publishing.disclosure.proof import Moves, Proven
from dopa_pipelines.publishing.disclosure.search import Problem
from dopa_pipelines.publishing.disclosure.suppression import fill_lines
from dopa_pipelines.publishing.disclosure.sweep import _keep, _piece
from dopa_pipelines.publishing.disclosure.system import System, reduce
from dopa_pipelines.publishing.disclosure.tables import Cells, build

AREAS = [f"{p}{d}{t}" for p in "12" for d in "12" for t in "123"]


def cells_of(seed: int, *, tables: int = 1) -> Cells:
    """Areas in three levels by sex and by month; of two tables the second is by province, sex and age."""
    random = np.random.default_rng(seed)
    areas = random.permutation(AREAS)[: random.integers(6, len(AREAS) + 1)].tolist()
    dimensions = (
        Dimension.by_prefix("area", "TH", areas, [1, 2, 3]),
        Dimension.flat("sex", "both", "fm"),
        Dimension.flat("month", "year", "1234"),
        Dimension.flat("age", "all", ["old", "young"]),
    )
    rows = [(*codes, int(random.poisson(5))) for codes in itertools.product(areas, "fm", "1234")]
    months = pl.DataFrame(rows, schema=["area", "sex", "month", "n"], orient="row")
    found = [Table("months", months, ("area", "sex", "month"), "n")]
    if tables == 2:
        by = months.group_by(pl.col("area").str.head(1), "sex", maintain_order=True).agg(pl.col("n").sum())
        old = by.with_columns(age=pl.lit("old"), n=pl.col("n") // 3)
        young = by.with_columns(age=pl.lit("young"), n=pl.col("n") - pl.col("n") // 3)
        ages = pl.concat([old, young]).select("area", "sex", "age", "n")
        found.append(Table("ages", ages, ("area", "sex", "age"), "n"))
    return build(Family(dimensions, tuple(found)))


def dense(start: np.ndarray, index: np.ndarray, coefficient: np.ndarray, count: int) -> np.ndarray:
    matrix = np.zeros((len(start) - 1, count))
    np.add.at(matrix, (np.repeat(np.arange(len(start) - 1), np.diff(start)), index), coefficient)
    return matrix


def rank(matrix: np.ndarray) -> int:
    return int(np.linalg.matrix_rank(matrix)) if matrix.size else 0


@pytest.mark.parametrize("seed", range(6))
def test_implied_relations_follow_from_the_others_and_no_other_does(seed: int) -> None:
    cells = cells_of(seed)
    matrix = dense(cells.start, cells.cell, cells.sign, len(cells))
    assert rank(matrix[~cells.implied]) == rank(matrix) == np.count_nonzero(~cells.implied)
    assert cells.implied.any()


@pytest.mark.parametrize("seed", range(12))
def test_among_any_variables_implied_relations_say_nothing_more(seed: int) -> None:
    """Also where cells are fixed or move together, and of two tables."""
    random = np.random.default_rng(seed)
    cells = cells_of(seed, tables=1 + seed % 2)
    system = reduce(cells, random.random(len(cells)) < random.choice([0.05, 0.2, 0.4]), np.zeros(len(cells)))
    assert system.implied.any()
    for _ in range(10):
        variables = np.flatnonzero(random.random(system.count) < random.choice([0.2, 0.6, 1.0]))
        everything, less = (dense(*system.part(variables, implied=more), len(variables)) for more in (True, False))
        assert rank(less) == rank(everything) == rank(np.concatenate([less, everything]))


def lacking(system: System, needs: Needs, hidden: np.ndarray, row: int) -> bool:
    """By definition: a side of a sum, the total or its parts, of which nothing on the other side is hidden, has hidden cells that
    need more room than the others of that side have; or the only person in one of two hidden cells is not in the other, which
    is unsafe."""
    entries = range(system.start[row], system.start[row + 1])
    shown = [(int(system.index[k]), bool(system.coefficient[k] < 0)) for k in entries if hidden[system.index[k]]]
    for side in (True, False):
        mine = [at for at, parent in shown if parent == side]
        if not mine or len(mine) < len(shown):
            continue
        want = max(needs.width[mine])
        if want > 0 and (len(mine) == 1 or want > sum(system.down[mine])):
            return True
    if len(shown) == 2 and needs.person[shown[0][0]] != needs.person[shown[1][0]]:
        alone = any(needs.person[at] >= 0 for at, _ in shown)
        return alone and any(needs.secret[at] for at, _ in shown)
    return False


@pytest.mark.parametrize("seed", range(12))
def test_no_sum_that_something_may_serve_is_left_without_room(seed: int) -> None:
    random = np.random.default_rng(seed)
    cells = cells_of(seed)
    system = reduce(cells, cells.value == 0, np.minimum(cells.value, 1))
    count = system.count
    forced = random.random(count) < 0.15
    person = np.where(random.random(count) < 0.2, random.integers(0, 6, count), -1)
    needs = Needs(np.where(forced, 5.0, 1.0), np.zeros(count), np.zeros(count), person, forced.copy())
    candidate = random.random(count) < 0.8
    hidden = fill_lines(Problem(system, needs, random.random(count), forced, candidate, whole=True), forced)
    assert hidden[forced].all() and not (hidden & ~forced & ~candidate).any() and hidden.sum() > forced.sum()
    helped = 0
    for row in range(len(system.start) - 1):
        entries = system.index[system.start[row] : system.start[row + 1]]
        free = candidate[entries] & ~hidden[entries]
        helped += lacking(system, needs, forced, row) and not lacking(system, needs, hidden, row)
        assert not (free.any() and lacking(system, needs, hidden, row)), row
    assert helped


@pytest.mark.parametrize("seed", range(20))
def test_moves_are_the_same_over_variables_that_became_one_or_cannot_move(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = random.integers(-1, 9, 12)
    # What is one variable moves as one.
    over = random.integers(-2, 3, (8, 9)) * (random.random((8, 9)) < 0.4)
    moves = np.where(names >= 0, over[:, np.maximum(names, 0)], random.integers(0, 2, (8, 12)) * (random.random((8, 12)) < 0.1))
    found = Moves.of(moves.astype(float), np.arange(12)).renamed(names)
    kept = [row for row in range(8) if not moves[row, names < 0].any()]
    wanted = np.zeros((len(kept), 9))
    for at, row in enumerate(kept):
        wanted[at, names[names >= 0]] = moves[row, names >= 0]
    assert (dense(found.start, found.index, found.value, 9) == wanted).all()
    assert all(len(set(found.index[a:b])) == b - a for a, b in itertools.pairwise(found.start))


@pytest.mark.parametrize("seed", range(4))
def test_cubes_are_moves_and_take_what_moves_together_once(seed: int) -> None:
    cells = cells_of(seed)
    # No girls in some months: the boys are all there are.
    girls = (cells.nodes[:, 1] == cells.dimensions[1].position["f"]) & (cells.nodes[:, 2] == cells.dimensions[2].position["1"])
    system = reduce(cells, girls, np.zeros(len(cells)))
    together = np.bincount(system.variable[system.variable >= 0]) > 1
    matrix = dense(system.start, system.index, system.coefficient, system.count)
    seen = 0
    for piece in Grid(cells, system, 0).cubes(np.ones(system.count, dtype=bool)):
        for corner, sign in zip(piece.corner, piece.sign, strict=True):
            used = corner[sign != 0]
            assert len(set(used.tolist())) == len(used)
            move = np.zeros(system.count)
            move[used] = sign[sign != 0]
            assert not (matrix @ move).any()
            seen += together[used].any()
    assert seen


def test_what_one_contributor_can_tell_is_not_taken_for_safe() -> None:
    """x + p = 0 and y + z = 0: who is alone in p knows x, and nobody knows y."""
    x, p, y, z = range(4)
    system = System(
        variable=np.arange(4),
        count=4,
        start=np.array([0, 2, 4]),
        index=np.array([x, p, y, z]),
        coefficient=np.ones(4),
        down=np.full(4, 9.0),
        implied=np.zeros(2, dtype=bool),
    )
    secret = np.array([True, False, True, False])
    needs = Needs(np.full(4, 5.0), np.zeros(4), np.zeros(4), np.array([-1, 7, -1, -1]), secret)
    everything, proven = np.ones(4, dtype=bool), Proven.nothing(4)
    for piece in (np.array([x, p]), np.array([y, z])):
        _keep(proven, piece, _piece((system, needs, everything, True, None), (piece, proven.of(piece), False)))
    assert not proven.open(needs, everything).any()
    assert proven.unsure(needs, everything).tolist() == [True, False, False, False]
    assert proven.pending == {x: {7}}


@pytest.mark.parametrize("seed", range(4))
def test_cubes_prove_the_same_however_many_are_looked_at_together(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(seed)
    cells = cells_of(seed)
    system = reduce(cells, random.random(len(cells)) < 0.15, np.minimum(cells.value, 1))
    count = system.count
    person = np.where(random.random(count) < 0.2, random.integers(0, 9, count), -1)
    needs = Needs(np.full(count, 5.0), np.zeros(count), np.zeros(count), person, random.random(count) < 0.5)
    found = []
    for at_once in (1, 3, 10_000):
        monkeypatch.setattr(cubes, "AT_ONCE", at_once)
        proven = Proven.nothing(count)
        hidden = np.ones(count, dtype=bool)
        Grid(cells, system, 0).prove(needs, hidden, needs.reach, proven, whole=True)
        found.append(proven)
    matrix = dense(system.start, system.index, system.coefficient, count)
    for walk in found[0].walks:
        assert not (matrix @ dense(walk.start, walk.index, walk.value, count).T).any()
    first = found[0]
    assert (first.high > 0).any() and first.safe.any()
    for other in found[1:]:
        assert (other.low == first.low).all() and (other.high == first.high).all()
        assert (other.safe == first.safe).all() and other.pending == first.pending
