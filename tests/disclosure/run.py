"""``dopa disclose`` on a case, and what the judge says of it.

All that is known of the protector is its command: exit code 0 and JSON, 4 where it says itself that nothing may go out, 2 where
it refuses the table or the spec.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.disclosure.generate import Case, Row
from tests.disclosure.judge import Verdict, judge
from tests.disclosure.naive import protectable
from tests.disclosure.tables import Table

Disclose = Callable[[Path], "Said"]


@dataclass(frozen=True)
class Said:
    """``answer``: the JSON, where there is one; ``rows``: of the file that would be published."""

    code: int
    answer: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    rows: list[dict[str, str]] | None = None


def disclose(folder: Path) -> Said:
    """The command in this process, on ``TABLE.csv`` and ``SPEC.yaml`` of a folder."""
    from typer.testing import CliRunner

    from dopa_pipelines.cli.main import app
    from dopa_pipelines.errors import UserError

    out = folder / "published.csv"
    arguments = ["disclose", str(folder / "TABLE.csv"), "--spec", str(folder / "SPEC.yaml"), "--json", "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    code, error = result.exit_code, result.stderr
    if isinstance(result.exception, UserError):
        code, error = result.exception.exit_code, str(result.exception)
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    answer = json.loads(result.stdout) if code in (0, 4) and result.stdout.strip() else {}
    rows = None
    if out.exists():
        with out.open(encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    return Said(code, answer, error, rows)


@dataclass(frozen=True)
class Outcome:
    """``refused``: nothing went out, though it could have been protected (``needlessly``) or not."""

    case: Case
    truth: Table
    said: Said
    verdict: Verdict | None
    refused: bool = False
    needlessly: bool = False


def attempt(case: Case, folder: Path, ask: Disclose = disclose, *, exact: bool = False) -> Outcome:
    """Protect a case, and attack what would go out. ``exact``: every interval to its ends, against those of the audit."""
    case.write(folder)
    truth, said = case.table(), ask(folder)
    if said.code != 0:
        if said.code not in (2, 4):
            raise RuntimeError(f"{case.name}: exit code {said.code}: {said.error}")
        suppression = truth.spec.get("method", "suppression") == "suppression"
        return Outcome(case, truth, said, None, True, said.code == 2 or (suppression and protectable(truth)))
    verdict = judge(truth, said.answer["cells"], exact=exact)
    verdict.wrong += _file(truth, said)
    return Outcome(case, truth, said, verdict)


def _file(truth: Table, said: Said) -> list[str]:
    """The file must say what the JSON says is published, and not a word more of a hidden cell."""
    if said.rows is None:
        return ["--out wrote no file"]
    hidden = {truth.cell(cell) for cell in said.answer["cells"] if cell["published"] is None}
    measure, wrong = truth.spec["measure"], []
    names = {item.name for item in truth.dimensions}
    for row in said.rows:
        cell = truth.cell(row)
        numbers = {column: text for column, text in row.items() if column not in names and _number(text)}
        if cell in hidden and numbers:
            wrong.append(f"the file gives numbers of the hidden cell {truth.names(cell)}: {numbers}")
        elif cell not in hidden and not _number(row.get(measure, "")):
            wrong.append(f"the file gives no number of {truth.names(cell)}")
    # Whoever can tell primary cells from complementary ones knows that they are below the threshold.
    kinds: dict[str, dict[bool, set[str]]] = {}
    for row in said.rows:
        cell = truth.cell(row)
        if cell in hidden:
            for column in set(row) - names:
                kinds.setdefault(column, {True: set(), False: set()})[bool(truth.primary[cell])].add(row[column])
    for column, seen in kinds.items():
        if seen[True] and seen[False] and not seen[True] & seen[False]:
            wrong.append(f"the file's column {column} tells primary from complementary cells: {sorted(seen[True] | seen[False])}")
    return wrong


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def protect_family(cases: tuple[Case, Case]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
    """Two tables of the same people protected together, by the Python interface; their cells as in the JSON. None: refused."""
    import polars as pl

    from dopa_pipelines.publishing.disclosure import Dimension, Family, Policy, Rule, protect
    from dopa_pipelines.publishing.disclosure import Table as Given

    dimensions: dict[str, Any] = {}
    given = []
    for case in cases:
        truth = case.table()
        measure = case.spec["measure"]
        for item in truth.dimensions:
            parents = {code: item.codes[above] for code, above in zip(item.codes, item.parent, strict=True) if above >= 0}
            dimensions.setdefault(item.name, Dimension.from_parents(item.name, item.codes[0], parents))
        inner = [truth.names(int(cell)) | {measure: int(truth.value[cell])} for cell in truth.inner.nonzero()[0]]
        given.append(Given(case.name, pl.DataFrame(inner), tuple(item.name for item in truth.dimensions), measure))
    spec = cases[0].spec
    policy = Policy(Rule(threshold=spec["rule"]["threshold"]), zeros=spec["zeros"])
    protected = protect(Family(tuple(dimensions.values()), tuple(given)), policy)
    if not protected.passed:
        return None
    found = []
    for case in cases:
        names = _names(case)
        elsewhere = {name: item.codes[0] for name, item in dimensions.items() if name not in names}
        mine = pl.all_horizontal(pl.lit(True), *(pl.col(name) == total for name, total in elsewhere.items()))
        rows = protected.frame.filter(mine)
        found.append(rows.select(*names, "value", "published", "status").to_dicts())
    return found[0], found[1]


def with_known(second: Case, first: Outcome) -> Case:
    """The second table of a family, told what the first one publishes of the cells they share."""
    shared = [item["name"] for item in first.truth.spec["dimensions"] if item["name"] in _names(second)]
    measure = second.spec["measure"]
    totals = {item.name: item.codes[0] for item in first.truth.dimensions if item.name not in shared}
    rows: list[Row] = [
        {name: cell[name] for name in shared} | {measure: "" if cell["published"] is None else cell["published"]}
        for cell in first.said.answer["cells"]
        if all(cell[name] == total for name, total in totals.items())
    ]
    return replace(second, spec=second.spec | {"known": [{"file": "first.csv"}]}, known={"first.csv": rows})


def _names(case: Case) -> set[str]:
    return {item["name"] for item in case.spec["dimensions"]}
