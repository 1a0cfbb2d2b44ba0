"""Tables to protect, drawn from a seed: one to four dimensions, ragged hierarchies, few people or many.

A ``Case`` is what ``dopa disclose`` takes: TABLE.csv, SPEC.yaml and the files that the spec's ``known`` names. The same seed
gives the same case. No case is chosen by what becomes of it.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.disclosure.tables import Table, table

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """``marks``: what is special about it, for counting what fails where."""

    name: str
    spec: dict[str, Any]
    rows: list[Row]
    known: dict[str, list[Row]] = field(default_factory=dict)
    marks: frozenset[str] = frozenset()

    def table(self) -> Table:
        return table(self.spec, self.rows, [(list(rows[0]) if rows else [], rows) for rows in self.known.values()])

    def write(self, folder: Path) -> None:
        """As files."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "SPEC.yaml").write_text(yaml.safe_dump(self.spec, allow_unicode=True, sort_keys=False), "utf-8")
        for name, rows in {"TABLE.csv": self.rows, **self.known}.items():
            with (folder / name).open("w", encoding="utf-8", newline="") as file:
                lines = csv.DictWriter(file, list(rows[0]))
                lines.writeheader()
                lines.writerows(rows)


def cases(count: int, seed: int = 2568, **chosen: Any) -> Iterator[Case]:
    """``chosen``: as ``case`` takes it."""
    for number in range(count):
        yield case(seed * 1_000_003 + number, **chosen)


def case(
    seed: int, *, dimensions: int | None = None, most: int = 700, kind: str | None = None, known: bool | None = None
) -> Case:
    """One table of at most ``most`` cells, margins counted."""
    draw = random.Random(seed)
    made = None
    while made is None:
        made = _case(draw, seed, dimensions, most, kind, known)
    return made


def _case(draw: random.Random, seed: int, dimensions: int | None, most: int, kind: str | None, known: bool | None) -> Case | None:
    count = dimensions or draw.choice((1, 2, 2, 2, 3, 3, 4))
    described = [_dimension(draw, number, draw.randint(2, (14, 12, 6, 4)[count - 1])) for number in range(count)]
    specs, leaves = [item[0] for item in described], [item[1] for item in described]
    kind = kind or draw.choice(("frequency",) * 3 + ("magnitude",))
    marks = {f"{count} dimensions", kind}
    spec: dict[str, Any] = {"measure": "births" if kind == "frequency" else "amount", "kind": kind}
    rule: dict[str, Any] = {"threshold": draw.choice((3, 5, 5, 5, 10))}
    if kind == "magnitude":
        spec |= {"contributors": "n", "largest": ["first", "second"]}
        if draw.random() < 0.6:
            rule["p"] = draw.choice((5, 10, 15))
        if draw.random() < 0.4:
            rule["dominance"] = {"n": draw.choice((1, 2)), "k": draw.choice((75, 85))}
        marks |= {name for name in ("p", "dominance") if name in rule}
    spec |= {
        "dimensions": specs,
        "rule": rule,
        "method": "suppression",
        "zeros": draw.choice(("published", "published", "hideable")),
    }
    spec["cost"] = draw.choice(("value", "value", "unit", "log"))
    rng = np.random.default_rng(draw.getrandbits(32))
    size = [len(codes) for codes in leaves]
    # Margins of lognormal weights: few large areas, many small ones.
    weight = np.ones(size)
    spread = draw.choice((0.2, 0.7, 1.2))
    for axis, length in enumerate(size):
        shape = [-1 if axis == other else 1 for other in range(count)]
        weight = weight * rng.lognormal(0, spread, length).reshape(shape)
    mean = draw.choice((0.5, 1.5, 4, 10, 40))
    people = rng.poisson(weight * mean)
    empty = draw.choice((0.0, 0.0, 0.3, 0.7))
    people[rng.random(size) < empty] = 0
    if not people.any():
        people.flat[0] = 1 + draw.randrange(9)
    structural = None
    if draw.random() < 0.2:
        structural = (people == 0) & (rng.random(size) < 0.5)
        spec["structural"] = {"column": "impossible"}
        marks.add("structural zeros")
    rows: list[Row] = []
    left_out = draw.random() < 0.5
    for place in np.ndindex(*size):
        n = int(people[place])
        if n == 0 and left_out and structural is None:
            continue
        row: Row = {item["name"]: codes[at] for item, codes, at in zip(specs, leaves, place, strict=True)}
        if kind == "frequency":
            row["births"] = n
        else:
            amounts = np.sort(np.maximum(np.round(rng.lognormal(6, draw.choice((0.5, 1.5)), n)), 1))[::-1]
            row |= {"amount": int(amounts.sum()), "n": n} | {
                column: int(amounts[at]) if n > at else 0 for at, column in enumerate(("first", "second"))
            }
        if structural is not None:
            row["impossible"] = "true" if structural[place] else "false"
        rows.append(row)
    if left_out and structural is None:
        marks.add("zeros left out")
    if empty:
        marks.add("sparse")
    found = Case(f"table-{seed}", spec, rows, {}, frozenset(marks))
    truth = found.table()
    if len(truth.value) > most or not truth.value.any():
        return None
    if kind == "frequency" and draw.random() < 0.25:
        # With the margins that the publisher computed himself.
        found = replace(found, rows=_with_margins(truth, found.rows, draw), marks=found.marks | {"margins given"})
    if known if known is not None else draw.random() < 0.25:
        found = _known(draw, found, truth)
    return replace(found, marks=found.marks | {f"zeros {spec['zeros']}"} | _what(truth))


def _what(truth: Table) -> set[str]:
    marks = set()
    if (truth.contributors == 1).any():
        marks.add("singletons")
    if any(len(set(item.parent)) > 2 for item in truth.dimensions):
        marks.add("hierarchy")
    return marks


def _dimension(draw: random.Random, number: int, leaves: int) -> tuple[dict[str, Any], list[str]]:
    """A dimension's entry of the spec, and its lowest codes."""
    name = ("area", "age", "sex", "month")[number]
    how = draw.choice(("flat", "levels", "parents"))
    if how == "flat":
        return {"name": name, "total": "all"}, [f"{name[0]}{code}" for code in range(leaves)]
    codes, parents = _ragged(draw, leaves, draw.randint(2, 3))
    if how == "levels":
        lengths = sorted({len(code) for code in codes} | {len(parent) for parent in parents.values() if parent})
        return {"name": name, "total": "TH", "levels": lengths}, codes
    named = {f"{name}-{code}": f"{name}-{parent}" if parent else "all" for code, parent in parents.items()}
    return {"name": name, "total": "all", "parents": named}, [f"{name}-{code}" for code in codes]


def _ragged(draw: random.Random, leaves: int, depth: int) -> tuple[list[str], dict[str, str]]:
    """Lowest codes, and every code's parent ("" at the top): two digits a level, some branches shorter than others."""
    parents: dict[str, str] = {}
    lowest: list[str] = []

    def grow(parent: str, many: int, left: int) -> None:
        split = min(many, draw.randint(1, 4)) if left else many
        sizes = [many // split + (1 if at < many % split else 0) for at in range(split)]
        for at, size in enumerate(sizes):
            code = f"{parent}{at + 10}"
            parents[code] = parent
            if size > 1 and left:
                grow(code, size, left - 1)
            elif left and draw.random() < 0.3:
                grow(code, 1, left - 1)  # an only child, equal to its parent
            else:
                lowest.append(code)

    grow("", leaves, depth - 1)
    return lowest, parents


def _with_margins(truth: Table, rows: list[Row], draw: random.Random) -> list[Row]:
    measure = truth.spec["measure"]
    structural = truth.spec.get("structural")
    more = []
    part = draw.choice((1.0, 0.5))
    for cell in np.flatnonzero(~truth.inner):
        if draw.random() < part:
            row: Row = truth.names(int(cell)) | {measure: int(truth.value[cell])}
            if structural:
                row[structural["column"]] = "true" if truth.structural[cell] else "false"
            more.append(row)
    return rows + more


def _known(draw: random.Random, found: Case, truth: Table) -> Case:
    """What was published before: official totals, or an earlier release of fewer dimensions or cells."""
    measure = truth.spec["measure"]
    names = [item.name for item in truth.dimensions]
    form = draw.choice(("totals", "release", "release"))
    rows: list[Row] = []
    if form == "totals":
        # Official totals of one dimension: only those large enough to be published.
        axis = draw.randrange(len(names))
        for code in truth.dimensions[axis].codes:
            cell = truth.cell({names[axis]: code})
            if truth.value[cell] > 0 and not truth.primary[cell]:
                rows.append({names[axis]: code, measure: int(truth.value[cell])})
    else:
        # A release in which whole families of siblings were hidden where one was small.
        kept = sorted(draw.sample(range(len(names)), draw.randint(1, len(names))))
        cells = [cell for cell in range(len(truth.value)) if _coarse(truth, cell, kept)]
        hidden = {cell for cell in cells if truth.primary[cell]}
        for cell in list(hidden):
            place = [int(code) for code in np.unravel_index(cell, truth.shape)]
            for axis in kept:
                parent = truth.dimensions[axis].parent[place[axis]]
                siblings = [code for code, above in enumerate(truth.dimensions[axis].parent) if above == parent]
                for sibling in siblings:
                    hidden.add(int(np.ravel_multi_index((*place[:axis], sibling, *place[axis + 1 :]), truth.shape)))
        for cell in cells:
            named = truth.names(cell)
            value: Any = int(truth.value[cell])
            if cell in hidden and (value or not truth.zeros_published):
                value = ""
            rows.append({names[axis]: named[names[axis]] for axis in kept} | {measure: value})
    if not rows:
        return found
    spec = found.spec | {"known": [{"file": "earlier.csv"}]}
    return replace(found, spec=spec, known={"earlier.csv": rows}, marks=found.marks | {f"known {form}"})


def _coarse(truth: Table, cell: int, kept: list[int]) -> bool:
    place = np.unravel_index(cell, truth.shape)
    return all(int(code) == 0 for axis, code in enumerate(place) if axis not in kept)


def changed(count: int, seed: int = 2568) -> Iterator[Case]:
    """Tables for the methods that change numbers: rounding and cell keys in turn."""
    for number in range(count):
        draw = random.Random(seed * 9_176_263 + number)
        found = case(draw.getrandbits(40), most=150, kind="frequency", known=False)
        plain = {item.name for item in found.table().dimensions} | {"births"}
        inner = {item.name: item for item in found.table().dimensions}
        rows = [
            {key: value for key, value in row.items() if key in plain}
            for row in found.rows
            if all(item.leaf[item.position[row[name]]] for name, item in inner.items())
        ]
        spec = {key: value for key, value in found.spec.items() if key != "structural"}
        if number % 2:
            spec |= {"method": "cell_key", "cellKey": {"column": "key", "variance": 2.0, "maximum": draw.choice((3, 5))}}
            rows = [row | {"key": f"{sum(draw.random() for _ in range(row['births'])) % 1:.12f}"} for row in rows]
        else:
            spec |= {"method": "rounding", "base": draw.choice((3, 5, 10))}
        yield Case(f"changed-{number}", spec, rows, {}, found.marks | {spec["method"]})


def families(count: int, seed: int = 2568) -> Iterator[tuple[Case, Case]]:
    """Two tables over the same people: they share their first dimension (areas, of which the second may know fewer levels)."""
    for number in range(count):
        draw = random.Random(seed * 7_368_787 + number)
        first = case(draw.getrandbits(40), dimensions=2, most=150, kind="frequency", known=False)
        truth = first.table()
        shared = truth.dimensions[0]
        lowest = [code for code, leaf in zip(shared.codes, shared.leaf, strict=True) if leaf]
        rng = np.random.default_rng(draw.getrandbits(32))
        groups = draw.randint(2, 4)
        chance = rng.dirichlet(np.ones(groups))
        rows: list[Row] = []
        for code in lowest:
            people = int(truth.value[truth.cell({shared.name: code})])
            for group, n in enumerate(rng.multinomial(people, chance)):
                rows.append({shared.name: code, "origin": f"s{group}", "births": int(n)})
        spec = {
            key: value for key, value in first.spec.items() if key not in ("dimensions", "structural")
        } | {"dimensions": [first.spec["dimensions"][0], {"name": "origin", "total": "all"}]}  # fmt: skip
        plain = {item.name for item in truth.dimensions} | {"births"}
        lines = [{key: value for key, value in row.items() if key in plain} for row in first.rows]
        one = replace(first, spec={k: v for k, v in first.spec.items() if k != "structural"}, rows=lines)
        yield one, Case(f"{first.name}-family", spec, rows, {}, frozenset({"family"}))


def tambons(seed: int = 2568, months: int = 12) -> Case:
    """Births in Thailand's 7,436 tambons by sex and month: about three a cell, some tambons a hundred times others."""
    import geothai

    rng = np.random.default_rng(seed)
    areas = [
        place.code
        for province in geothai.provinces()
        for district in geothai.districts(province.code)
        for place in geothai.subdistricts(district.code)
    ]
    rate = rng.lognormal(0, 0.9, len(areas))
    rate *= 3 / rate.mean()
    births = rng.poisson(rate[:, None, None], (len(areas), 2, months))
    rows: list[Row] = [
        {"area": area, "sex": sex, "month": f"{month + 1:02}", "births": int(births[at, which, month])}
        for at, area in enumerate(areas)
        for which, sex in enumerate(("f", "m"))
        for month in range(months)
    ]
    spec: dict[str, Any] = {
        "measure": "births", "kind": "frequency",
        "dimensions": [
            {"name": "area", "total": "TH", "levels": [2, 4, 6]},
            {"name": "sex", "total": "both"},
            {"name": "month", "total": "year"},
        ],
        "rule": {"threshold": 5}, "method": "suppression", "zeros": "published",
    }  # fmt: skip
    return Case("tambons", spec, rows)
