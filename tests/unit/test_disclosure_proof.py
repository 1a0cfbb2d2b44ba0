"""What moves prove, against the definition; and that processes that share the work are told what it is about."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from dopa_pipelines.publishing.disclosure import workers
from dopa_pipelines.publishing.disclosure.attack import Needs
from dopa_pipelines.publishing.disclosure.proof import Moves, Proven

VARIABLES = 12


def some_moves(random: np.random.Generator, count: int) -> np.ndarray:
    moves: np.ndarray = random.integers(-3, 4, (count, VARIABLES)).astype(float)
    moves[random.random(moves.shape) < 0.5] = 0
    return moves


def by_definition(moves: np.ndarray, person: np.ndarray, cell: int) -> set[int]:
    """Who moves whenever the cell does, but for who is in it: only he may tell it."""
    taking = moves[moves[:, cell] != 0]
    return {who for who in set(person.tolist()) - {-1, person[cell]} if all((move[person == who] != 0).any() for move in taking)}


@pytest.mark.parametrize("seed", range(60))
def test_a_single_contributor_is_doubted_until_a_move_leaves_his_cells(seed: int) -> None:
    random = np.random.default_rng(seed)
    # Some have several cells, so that one move may take a person twice.
    person = random.integers(-1, 4, VARIABLES)
    secret, hidden = random.random(VARIABLES) < 0.7, np.ones(VARIABLES, dtype=bool)
    needs = Needs(np.zeros(VARIABLES), np.zeros(VARIABLES), np.zeros(VARIABLES), person, secret)
    proven = Proven.nothing(VARIABLES)
    first, second = some_moves(random, 3), some_moves(random, 2)
    seen = np.zeros((0, VARIABLES))
    for moves in (first, second):
        proven.learn(Moves.of(moves, np.arange(VARIABLES)), needs, hidden)
        seen = np.concatenate([seen, moves])
        assert (proven.low == seen.min(axis=0, initial=0)).all() and (proven.high == seen.max(axis=0, initial=0)).all()
        moved = [cell for cell in np.flatnonzero(secret).tolist() if (seen[:, cell] != 0).any()]
        unsure = proven.unsure(needs, hidden)
        for cell in np.flatnonzero(secret).tolist():
            doubted = by_definition(seen, person, cell)
            assert unsure[cell] == (cell not in moved or bool(doubted)), cell
            assert proven.safe[cell] != unsure[cell], cell
            if cell in moved and doubted:
                assert proven.pending[cell] == doubted, cell


def test_processes_work_on_what_was_shared_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WORTH", 0)
    tasks = [(f"task {number}",) for number in range(20)]
    one, two = ({task: f"{name} {task[0]}" for task in tasks} for name in ("one", "two"))
    with workers.Workers(2) as both:
        for shared in (one, one, two, one):
            assert both.run(operator.getitem, shared, tasks) == [shared[task] for task in tasks]
        assert len(both._pools) == 2, "the work was done in this process"
