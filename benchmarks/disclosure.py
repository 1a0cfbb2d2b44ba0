"""Disclosure control against an attacker written apart from it, and against the optimum.

The tables are drawn from a seed (``tests.disclosure.generate``), protected by ``dopa disclose`` and attacked with what it would
publish (``tests.disclosure.attack``). ``python -m benchmarks.disclosure FOLDER`` protects the table of a folder in a process of
its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Row, peak_mb
from dopa_pipelines.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
TABLES, SMALL, FAMILIES = 1000, 120, 40
LIMIT_S = 30.0


def measure(settings: Settings) -> list[Row]:
    """Cells disclosed in generated tables, cost against the optimum, and the country by tambon, sex and month."""
    folder = settings.state.parent
    return [
        *_generated(folder / "generated", TABLES),
        *_weak(200),
        _families(FAMILIES),
        *_changed(folder / "changed", 200),
        *_optimum(folder / "small", SMALL),
        *_tambons(folder / "tambons"),
    ]


def _generated(folder: Path, tables: int) -> list[Row]:
    from tests.disclosure.attack import Attacker, knowing, public
    from tests.disclosure.generate import cases
    from tests.disclosure.run import attempt

    by: Counter[str] = Counter()
    hidden = primary = attacked = refused = needless = wrong = told_if_known = known_about = 0
    for case in cases(tables):
        outcome = attempt(case, folder / case.name, exact=True)
        if outcome.verdict is None:
            refused += 1
            needless += outcome.needlessly
            continue
        verdict, truth = outcome.verdict, outcome.truth
        attacked += 1
        hidden, primary, wrong = hidden + verdict.hidden, primary + verdict.primary, wrong + len(verdict.wrong)
        by.update({told.by.partition(" of ")[0] for told in verdict.told})
        if truth.counts and truth.primary.any():
            insider = Attacker(knowing(public(truth, outcome.said.answer["cells"]), truth.primary))
            for cell in np.flatnonzero(truth.primary):
                low, high = insider.interval(int(cell))
                told_if_known += high <= low
                known_about += 1
        told = len(verdict.told)
        by["cells"] += told
    broken = ", ".join(f"{name} {count / max(attacked, 1):.1%}" for name, count in sorted(by.items()) if name != "cells")
    return [
        Row(
            f"{tables:,} generated tables, {hidden:,} cells hidden in {attacked:,}, {primary:,} of them primary: disclosed",
            str(by["cells"]), "", "", "0", by["cells"] == 0,
        ),
        Row("tables whose audit passed and was wrong, by attack", broken or "none", "", "", "none", not broken),
        Row("statements of audit and file that are not so", str(wrong), "", "", "0", wrong == 0),
        Row(
            f"tables refused, {refused} for what is known from outside: of which some choice of cells would have protected",
            str(needless), "", "", "0", needless == 0,
        ),
        Row(
            "primary counts told to one who knows which cells are primary, which nobody publishes",
            f"{told_if_known / max(known_about, 1):.1%} of {known_about:,}",
        ),
    ]  # fmt: skip


def _weak(tables: int) -> list[Row]:
    """The attacker is worth something: what it breaks of protectors that do too little."""
    from tests.disclosure import naive
    from tests.disclosure.generate import cases
    from tests.disclosure.judge import judge

    weak = {"primary only": naive.primary_only, "rows only": naive.rows_only, "two in each sum": naive.two_in_each}
    tried = 0
    broken: Counter[str] = Counter()
    for case in cases(tables, known=False):
        truth = case.table()
        if truth.primary.any():
            tried += 1
            broken.update(name for name, protect in weak.items() if not judge(truth, protect(truth)).kept)
    said = ", ".join(f"{name} {broken[name] / tried:.0%}" for name in weak)
    return [Row(f"tables that the same attacker breaks, of {tried}", "", said)]


def _families(pairs: int) -> Row:
    """Two tables over the same people, protected together and attacked as one."""
    from tests.disclosure.generate import families
    from tests.disclosure.judge import judge_family
    from tests.disclosure.run import protect_family

    told = refused = 0
    for pair in families(pairs):
        cells = protect_family(pair)
        if cells is None:
            refused += 1
        else:
            told += len(judge_family((pair[0].table(), pair[1].table()), cells).told)
    kept = told == 0 and refused == 0
    said = f"{told}, {refused} refused" if refused else str(told)
    return Row(f"{pairs} families of two tables of the same people, attacked as one: cells disclosed", said, "", "", "0", kept)


def _changed(folder: Path, tables: int) -> list[Row]:
    """Rounding and cell keys, undone as far as sums undo them."""
    from tests.disclosure.attack import averaged, public
    from tests.disclosure.generate import changed
    from tests.disclosure.run import attempt

    told: Counter[str] = Counter()
    small: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    errors: dict[str, list[float]] = {}
    wrong = 0
    for case in changed(tables):
        outcome, method = attempt(case, folder / case.name), case.spec["method"]
        if outcome.verdict is None:
            refused[method] += 1
            continue
        seen, truth = public(outcome.truth, outcome.said.answer["cells"]), outcome.truth
        told[method] += len(outcome.verdict.told)
        small[method] += int(truth.primary.sum())
        wrong += len(outcome.verdict.wrong)
        away = averaged(seen)
        for name, found in ((method, seen.published), (f"{method} averaged", away)):
            errors.setdefault(name, []).extend(((found - truth.value)[truth.value > 0] ** 2).tolist())
    rows = []
    for method, name in (("rounding", "controlled rounding"), ("cell_key", "cell keys")):
        if method not in errors:
            rows.append(Row(f"{name}: tables refused", str(refused[method]), "", "", "0", False))
            continue
        error, averages = (statistics.mean(errors[key]) ** 0.5 for key in (method, f"{method} averaged"))
        rows.append(
            Row(
                f"{name}, {tables // 2 - refused[method]} tables: small counts told exactly, of {small[method]:,}",
                str(told[method]), "", "", "0", told[method] == 0,
            )
        )  # fmt: skip
        rows.append(
            Row(f"{name}: error of a count, and after averaging over all sums", f"{error:.2f}", f"{averages:.2f}")
        )  # fmt: skip
    rows.append(Row("changed numbers further off than the method says", str(wrong), "", "", "0", wrong == 0))
    return rows


def small_tables(count: int) -> Iterator[Any]:
    """Tables of at most 40 cells in which something is to be protected and something may serve for it."""
    from tests.disclosure.generate import case
    from tests.disclosure.optimum import candidates

    seed = found = 0
    while found < count:
        seed += 1
        drawn = case(seed, most=40, dimensions=(1, 2, 2, 3)[seed % 4], known=False)
        truth = drawn.table()
        if truth.primary.any() and candidates(truth).sum() >= 5:
            found += 1
            yield drawn


def _optimum(folder: Path, tables: int) -> list[Row]:
    from tests.disclosure.attack import public
    from tests.disclosure.optimum import costs, optimum
    from tests.disclosure.run import attempt

    ratios: list[float] = []
    free = 0
    for case in small_tables(tables):
        outcome = attempt(case, folder / case.name)
        best = optimum(outcome.truth)
        if outcome.verdict is None:
            raise RuntimeError(f"{case.name} is refused, but can be protected: {outcome.said.error}")
        hidden = public(outcome.truth, outcome.said.answer["cells"]).hidden & ~outcome.truth.primary
        cost = float(costs(outcome.truth)[hidden].sum())
        if best.cost == 0:
            free += cost > 0
        else:
            ratios.append(cost / best.cost)
    middle, high = statistics.median(ratios), float(np.percentile(ratios, 95))
    at = sum(ratio < 1 + 1e-9 for ratio in ratios)
    return [
        Row(
            f"cost of complementary cells over the optimum, {len(ratios)} tables of up to 40 cells: median", f"{middle:.2f}",
            "", "", "≤ 1.5", middle <= 1.5,
        ),
        Row("the same: 95 % of tables within, worst", f"{high:.2f}, {max(ratios):.2f}"),
        Row("the same: tables at the optimum", f"{at} of {len(ratios)}"),
        Row("tables that need no complementary cell and got one", str(free), "", "", "0", free == 0),
    ]  # fmt: skip


def _tambons(folder: Path) -> list[Row]:
    from tests.disclosure.generate import tambons
    from tests.disclosure.judge import judge

    case = tambons()
    case.write(folder)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.disclosure", str(folder)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        return [
            Row("7,436 tambons × 2 sexes × 12 months", done.stderr.strip().splitlines()[-1][:200], "", "", "protected", False)
        ]
    said = json.loads(done.stdout.splitlines()[-1])
    answer = json.loads((folder / "answer.json").read_text("utf-8"))
    truth = case.table()
    started = time.perf_counter()
    verdict = judge(truth, answer["cells"])
    attack_s = time.perf_counter() - started
    complementary = verdict.hidden - verdict.primary
    cells = len(truth.value)
    return [
        Row(
            "7,436 tambons × 2 sexes × 12 months: protected and audited", f"{said['seconds']:.1f} s, {said['peak_mb']:.0f} MB",
            "", "", f"≤ {LIMIT_S:.0f} s", said["seconds"] <= LIMIT_S,
        ),
        Row(
            f"of its {cells:,} cells", f"{verdict.primary:,} primary, {complementary:,} complementary,"
            f" {1 - verdict.hidden / cells:.0%} of cells and {answer['summary']['value_kept']:.0%} of the value kept",
        ),
        Row(f"cells disclosed to the attacker, in {attack_s:.0f} s", str(len(verdict.told)), "", "", "0", verdict.kept),
    ]  # fmt: skip


def main(folder: str) -> None:
    """Protect a folder's table by the command; prints seconds and the peak of memory as JSON, ``answer.json`` has the rest."""
    from contextlib import redirect_stdout

    from dopa_pipelines.cli.main import app

    place = Path(folder)
    started = time.perf_counter()
    with (place / "answer.json").open("w", encoding="utf-8") as answer, redirect_stdout(answer):
        app(["disclose", str(place / "TABLE.csv"), "--spec", str(place / "SPEC.yaml"), "--json"], standalone_mode=False)
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main(sys.argv[1])
