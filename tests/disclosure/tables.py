"""Tables as ``dopa disclose`` is given them, read a second time: dimensions, cells, additive relations, what is sensitive.

The attacker's own reading of the format, shared with nothing of the platform, so that a relation that the protector overlooks is
not overlooked here as well. What can be told from what was published belongs to ``attack``, whether it may be to ``judge``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Dimension:
    """A column of codes. ``codes`` begins with the total, parents come before their children."""

    name: str
    codes: tuple[str, ...]
    parent: tuple[int, ...]
    """Position of each code's parent; -1 for the total."""

    @cached_property
    def position(self) -> dict[str, int]:
        return {code: number for number, code in enumerate(self.codes)}

    @cached_property
    def leaf(self) -> Bools:
        leaf = np.ones(len(self.codes), bool)
        leaf[[parent for parent in self.parent if parent >= 0]] = False
        return leaf

    def above(self, code: int) -> list[int]:
        """The code itself and all that contain it."""
        found = [code]
        while self.parent[found[-1]] >= 0:
            found.append(self.parent[found[-1]])
        return found


def dimension(spec: Mapping[str, Any], seen: Iterable[str], folder: Path | None = None) -> Dimension:
    """The dimension that a spec's entry describes; ``seen``: the codes of the table."""
    total = str(spec["total"])
    seen = {str(code) for code in seen} - {total}
    parents: dict[str, str] = {}
    if "levels" in spec:
        levels = sorted(spec["levels"])
        for code in seen:
            chain = [code[:level] for level in levels if level < len(code)] + [code]
            for upper, lower in zip([total, *chain], chain, strict=False):
                parents[lower] = upper
    elif "parents" in spec or "parentsFile" in spec:
        if "parentsFile" in spec:
            assert folder is not None
            with (folder / spec["parentsFile"]).open(encoding="utf-8") as lines:
                given = {row["code"]: row["parent"] for row in csv.DictReader(lines)}
        else:
            given = {str(child): str(parent) for child, parent in spec["parents"].items()}
        for code in seen | set(given):
            parents[code] = given.get(code, total)
            parents.setdefault(parents[code], given.get(parents[code], total))
        parents.pop(total, None)
    else:
        parents = dict.fromkeys(seen, total)
    children: dict[str, list[str]] = {}
    for code in sorted(parents):
        children.setdefault(parents[code], []).append(code)
    order, number = [total], 0
    while number < len(order):
        order += children.get(order[number], [])
        number += 1
    if len(order) != len(parents) + 1:
        raise ValueError(f"codes of {spec['name']} that are not below {total}: {sorted(set(parents) - set(order))[:5]}")
    position = {code: number for number, code in enumerate(order)}
    return Dimension(str(spec["name"]), tuple(order), tuple(position[parents[code]] if code != total else -1 for code in order))


@dataclass(frozen=True)
class Relations:
    """Sums that everybody knows: in each row, the sum of coefficient × cell lies between ``lower`` and ``upper``."""

    row: Ints
    cell: Ints
    coefficient: Floats
    lower: Floats
    upper: Floats

    def plus(self, other: Relations) -> Relations:
        return Relations(
            np.concatenate([self.row, other.row + len(self.lower)]),
            np.concatenate([self.cell, other.cell]),
            np.concatenate([self.coefficient, other.coefficient]),
            np.concatenate([self.lower, other.lower]),
            np.concatenate([self.upper, other.upper]),
        )


def relations(dimensions: tuple[Dimension, ...]) -> Relations:
    """Every code with children equals their sum, in each dimension, for every combination of the others' codes."""
    shape = tuple(len(item.codes) for item in dimensions)
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    rows, cells, coefficients, count = [], [], [], 0
    for axis, item in enumerate(dimensions):
        across = np.moveaxis(numbers, axis, 0).reshape(shape[axis], -1)
        parents = np.flatnonzero(~item.leaf)
        row_of = np.full(shape[axis], -1)
        row_of[parents] = np.arange(len(parents))
        children = np.arange(1, shape[axis])
        code = np.concatenate([parents, children])
        which = np.concatenate([row_of[parents], row_of[np.array(item.parent, np.int64)[children]]])
        sign = np.concatenate([np.ones(len(parents)), -np.ones(len(children))])
        wide = across.shape[1]
        rows.append((count + which[:, None] * wide + np.arange(wide)[None, :]).ravel())
        cells.append(across[code].ravel())
        coefficients.append(np.repeat(sign, wide))
        count += len(parents) * wide
    zero = np.zeros(count)
    return Relations(np.concatenate(rows), np.concatenate(cells), np.concatenate(coefficients), zero, zero)


def add_up(inner: Floats, dimensions: tuple[Dimension, ...]) -> Floats:
    """Fills the margins of an array over all codes that holds inner cells only."""
    for axis, item in enumerate(dimensions):
        view = np.moveaxis(inner, axis, 0)
        for code in range(len(item.codes) - 1, 0, -1):
            view[item.parent[code]] += view[code]
    return inner


@dataclass(frozen=True)
class Table:
    """The truth: what the protector was given. Arrays are over all cells, inner and margins, in the order of the codes."""

    spec: dict[str, Any]
    dimensions: tuple[Dimension, ...]
    value: Floats
    contributors: Floats
    """How many people a cell is made of: the value itself for counts."""
    largest: Floats
    """Cells × largest contributions, descending; no columns for counts."""
    structural: Bools
    known: dict[int, float]
    """What the attacker knows besides: cell → value."""
    hidden_before: frozenset[int]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(item.codes) for item in self.dimensions)

    @property
    def counts(self) -> bool:
        return bool(self.spec.get("kind", "frequency") == "frequency")

    @property
    def threshold(self) -> int:
        return int((self.spec.get("rule") or {}).get("threshold", 5))

    @property
    def zeros_published(self) -> bool:
        return bool(self.spec.get("zeros", "published") == "published")

    @cached_property
    def relations(self) -> Relations:
        return relations(self.dimensions)

    def names(self, cell: int) -> dict[str, str]:
        place = np.unravel_index(cell, self.shape)
        return {item.name: item.codes[int(code)] for item, code in zip(self.dimensions, place, strict=True)}

    def cell(self, names: Mapping[str, Any]) -> int:
        """The number of a cell; a dimension that is not named is at its total."""
        place = tuple(item.position[str(names[item.name])] if item.name in names else 0 for item in self.dimensions)
        return int(np.ravel_multi_index(place, self.shape))

    @cached_property
    def inner(self) -> Bools:
        leaf = np.ones(self.shape, bool)
        for axis, item in enumerate(self.dimensions):
            leaf &= item.leaf.reshape([-1 if axis == other else 1 for other in range(len(self.dimensions))])
        return leaf.ravel()

    def containing(self, cell: int) -> list[int]:
        """The cell and all margins that it is part of."""
        place = [int(code) for code in np.unravel_index(cell, self.shape)]
        above = np.meshgrid(*(item.above(code) for item, code in zip(self.dimensions, place, strict=True)), indexing="ij")
        return [int(number) for number in np.ravel_multi_index(tuple(part.ravel() for part in above), self.shape)]

    @cached_property
    def by_threshold(self) -> Bools:
        small: Bools = (self.contributors > 0) & (self.contributors < self.threshold) & (self.value != 0)
        return small

    @cached_property
    def by_dominance(self) -> Bools:
        """Cells of which n contributors make more than k % (Hundepool et al., Statistical Disclosure Control, 2012, ch. 4)."""
        rule = (self.spec.get("rule") or {}).get("dominance")
        if not rule:
            return np.zeros(self.value.shape, bool)
        largest = self.largest[:, : int(rule["n"])].sum(1)
        found: Bools = (largest > float(rule["k"]) / 100 * self.value + 1e-9) & (self.value > 0)
        return found

    @cached_property
    def by_p(self) -> Bools:
        """Cells in which the second largest contributor can tell the largest to within p % (the same, ch. 4)."""
        p = (self.spec.get("rule") or {}).get("p")
        if not p:
            return np.zeros(self.value.shape, bool)
        rest = self.value - self.largest[:, 0] - self.largest[:, 1]
        found: Bools = (rest < float(p) / 100 * self.largest[:, 0] - 1e-9) & (self.value > 0)
        return found

    @cached_property
    def primary(self) -> Bools:
        return self.by_threshold | self.by_dominance | self.by_p


def table(
    spec: dict[str, Any],
    rows: Iterable[Mapping[str, Any]],
    known: Iterable[tuple[Iterable[str], Iterable[Mapping[str, Any]]]] = (),
    folder: Path | None = None,
) -> Table:
    """``rows``: those of TABLE.csv; ``known``: header and rows of each file that the spec's ``known`` names."""
    rows = list(rows)
    dimensions = tuple(dimension(item, (row[item["name"]] for row in rows), folder) for item in spec["dimensions"])
    shape = tuple(len(item.codes) for item in dimensions)
    size = int(np.prod(shape))
    counts = spec.get("kind", "frequency") == "frequency"
    most = 0 if counts else len(spec.get("largest", []))
    value, people = np.zeros(size), np.zeros(size)
    parts = np.zeros((size, most))
    possible = np.zeros(size, bool)
    structural_column = (spec.get("structural") or {}).get("column")
    if structural_column is None:
        possible[:] = True
    given = np.zeros(size, bool)
    inner = Table(spec, dimensions, value, people, parts, ~possible, {}, frozenset()).inner
    possible |= inner  # until a row says otherwise
    for row in rows:
        place = tuple(item.position[str(row[item.name])] for item in dimensions)
        cell = int(np.ravel_multi_index(place, shape))
        if not inner[cell]:
            continue  # margins are sums
        given[cell] = True
        value[cell] = float(row[spec["measure"]] or 0)
        if not counts:
            people[cell] = float(row[spec["contributors"]] or 0) if "contributors" in spec else np.nan
            parts[cell] = [float(row[column] or 0) for column in spec.get("largest", [])]
        if structural_column is not None:
            possible[cell] = str(row[structural_column]).lower() not in ("true", "1", "t", "yes")
    value = add_up(value.reshape(shape), dimensions).ravel()
    people = value if counts else add_up(people.reshape(shape), dimensions).ravel()
    possible = add_up(possible.astype(float).reshape(shape) * inner.reshape(shape), dimensions).ravel() > 0
    if most:
        cells = parts.reshape(*shape, most)
        for axis, item in enumerate(dimensions):
            view = np.moveaxis(cells, axis, 0)
            for code in range(len(item.codes) - 1, 0, -1):
                both = np.concatenate([view[item.parent[code]], view[code]], axis=-1)
                view[item.parent[code]] = -np.sort(-both, axis=-1)[..., :most]
        parts = cells.reshape(size, most)
    made = Table(spec, dimensions, value, people, parts, ~possible, {}, frozenset())
    told: dict[int, float] = {}
    before: set[int] = set()
    for _, lines in known:
        for line in lines:
            if any(item.name in line and str(line[item.name]) not in item.position for item in dimensions):
                continue  # not of this table
            cell = made.cell(line)
            if str(line[spec["measure"]]) == "":
                before.add(cell)
            else:
                told[cell] = float(line[spec["measure"]])
    return Table(spec, dimensions, value, people, parts, ~possible, told, frozenset(before - set(told)))


def read(folder: Path) -> Table:
    """The table of ``TABLE.csv`` and ``SPEC.yaml`` in a folder."""
    spec = yaml.safe_load((folder / "SPEC.yaml").read_text("utf-8"))

    def lines(name: str) -> tuple[list[str], list[dict[str, str]]]:
        with (folder / name).open(encoding="utf-8") as file:
            found = csv.DictReader(file)
            return list(found.fieldnames or []), list(found)

    return table(spec, lines("TABLE.csv")[1], [lines(item["file"]) for item in spec.get("known") or []], folder)
