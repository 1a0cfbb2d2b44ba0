"""What ``dopa disclose`` lets out, attacked: the same suite as the thousand tables of ``make bench``, on a few dozen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.disclosure.attack import public
from tests.disclosure.generate import Case, cases, changed, families
from tests.disclosure.judge import judge, judge_family
from tests.disclosure.run import attempt, disclose, protect_family, with_known

pytest.importorskip("dopa_pipelines.publishing.disclosure")


@pytest.mark.parametrize("case", list(cases(60, seed=7, most=120)), ids=lambda case: case.name)
def test_nothing_is_told_of_what_is_hidden(case: Case, tmp_path: Path) -> None:
    outcome = attempt(case, tmp_path, exact=True)
    if outcome.verdict is None:
        assert not outcome.needlessly, outcome.said.error
        return
    assert outcome.said.answer["audit"]["passed"] is True
    assert not outcome.verdict.told, [str(told) for told in outcome.verdict.told]
    assert not outcome.verdict.wrong


@pytest.mark.parametrize("case", list(changed(16, seed=7)), ids=lambda case: case.name)
def test_changed_numbers_cannot_be_changed_back(case: Case, tmp_path: Path) -> None:
    outcome = attempt(case, tmp_path / "first")
    if outcome.verdict is None:
        pytest.fail(outcome.said.error)
    assert not outcome.verdict.told, [str(told) for told in outcome.verdict.told]
    assert not outcome.verdict.wrong
    again = attempt(case, tmp_path / "again")
    assert again.said.answer["cells"] == outcome.said.answer["cells"]
    published = public(outcome.truth, outcome.said.answer["cells"]).published
    if case.spec["method"] == "rounding":
        sums = outcome.truth.relations
        assert (published % case.spec["base"] == 0).all()
        for row in range(len(sums.lower)):
            mine = sums.row == row
            assert sums.coefficient[mine] @ published[sums.cell[mine]] == 0
    else:
        assert (published[outcome.truth.value == 0] == 0).all()
        assert (published >= 0).all()


@pytest.mark.parametrize("pair", list(families(8, seed=7)), ids=lambda pair: pair[0].name)
def test_tables_of_the_same_people_protected_together_tell_no_more(pair: tuple[Case, Case]) -> None:
    cells = protect_family(pair)
    assert cells is not None
    truths = (pair[0].table(), pair[1].table())
    for truth, mine in zip(truths, cells, strict=True):
        assert judge(truth, mine).kept
    verdict = judge_family(truths, cells)
    assert not verdict.told, [str(told) for told in verdict.told]


@pytest.mark.parametrize("pair", list(families(4, seed=8)), ids=lambda pair: pair[0].name)
def test_what_the_first_table_hid_the_second_does_not_show(pair: tuple[Case, Case], tmp_path: Path) -> None:
    first = attempt(pair[0], tmp_path / "first")
    assert first.verdict is not None and first.verdict.kept, first.said.error
    later = with_known(pair[1], first)
    second = attempt(later, tmp_path / "second")
    if second.verdict is None:
        assert not second.needlessly, second.said.error
        return
    assert not [told for told in second.verdict.told if told.primary]
    hidden = public(second.truth, second.said.answer["cells"]).hidden
    shown = [cell for cell in second.truth.hidden_before if not hidden[cell]]
    assert not shown, [second.truth.names(cell) for cell in shown]


def test_a_long_dimension_without_levels_is_protected(tmp_path: Path) -> None:
    """It is searched in groups of codes that stand together: what they share is published, or is hidden by none of them."""
    random = np.random.default_rng(11)
    codes = [f"{number:03}" for number in range(150)]
    rows = [
        {"area": code, "sex": sex, "month": month, "births": int(random.poisson(mean))}
        for code, mean in zip(codes, random.gamma(1, 6, len(codes)), strict=True)
        for sex in "fm"
        for month in "123"
    ]
    dimensions = [{"name": name, "total": "all"} for name in ("area", "sex", "month")]
    spec = {
        "measure": "births", "kind": "frequency", "dimensions": dimensions, "rule": {"threshold": 5},
        "method": "suppression", "zeros": "published",
    }  # fmt: skip
    outcome = attempt(Case("long", spec, rows), tmp_path)
    assert outcome.verdict is not None, outcome.said.error
    assert not outcome.verdict.told, [str(told) for told in outcome.verdict.told]
    assert not outcome.verdict.wrong
    assert outcome.said.answer["summary"]["value_kept"] > 0.8


def test_a_table_without_people_goes_out_as_it_is(tmp_path: Path) -> None:
    spec = {"measure": "births", "dimensions": [{"name": "area", "total": "all"}]}
    case = Case("empty", spec, [{"area": "a", "births": 0}, {"area": "b", "births": 0}])
    case.write(tmp_path)
    said = disclose(tmp_path)
    assert said.code == 0
    assert [cell["published"] for cell in said.answer["cells"]] == [0, 0, 0]


@pytest.mark.parametrize("name", ["status", "value", "published", "interval", "cell"])
def test_a_dimension_may_have_any_name(name: str, tmp_path: Path) -> None:
    spec = {"measure": "births", "dimensions": [{"name": name, "total": "all"}]}
    case = Case(name, spec, [{name: code, "births": births} for code, births in (("a", 3), ("b", 9), ("c", 40))])
    case.write(tmp_path)
    said = disclose(tmp_path)
    assert said.code in (0, 2), said.error
    if said.code == 2:
        assert name in said.error
