"""The way of a family through disclosure control: cells, unsafe ones, a method, the audit, what may go out.

What a method does is its own module's; here they are put together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import orjson
import polars as pl

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.disclosure import RESERVED, cell_key, rounding
from dopa_pipelines.publishing.disclosure.audit import Audit, audit, needs_of
from dopa_pipelines.publishing.disclosure.proof import Moves
from dopa_pipelines.publishing.disclosure.rules import Rule, sensitivity
from dopa_pipelines.publishing.disclosure.search import Problem
from dopa_pipelines.publishing.disclosure.suppression import suppress
from dopa_pipelines.publishing.disclosure.sweep import Parts
from dopa_pipelines.publishing.disclosure.system import reduce
from dopa_pipelines.publishing.disclosure.tables import Bools, Cells, Family, Floats, Ints, Table, build, nodes_of
from dopa_pipelines.publishing.disclosure.workers import WORTH, Workers

Method = Literal["suppression", "rounding", "cell_key"]


@dataclass(frozen=True)
class Policy:
    """How a family is protected. The fields are those of the specification file: see docs/disclosure.md.

    ``processes``: workers for large tables; they import ``__main__`` again."""

    rule: Rule = field(default_factory=Rule)
    kind: Literal["frequency", "magnitude"] = "frequency"
    method: Method = "suppression"
    base: int = 5
    noise: cell_key.Noise | None = None
    zeros: Literal["published", "hideable"] = "published"
    cost: Literal["value", "unit", "log"] = "value"
    processes: int = 1


@dataclass
class Protected:
    """What may go out, if ``passed``, and why.

    ``frame``: a row a cell, inner ones and margins, in a stable order: the codes, ``value``, ``published`` (null: hidden),
    ``status``
    (published, primary, complementary, rounded, perturbed; unpublished for a margin that no table shows), ``low`` and
    ``high`` (the
    attacker's interval; a null ``high`` of a hidden cell: unbounded).
    """

    cells: Cells
    frame: pl.DataFrame
    summary: dict[str, Any]
    audit: Audit
    whole: bool

    @property
    def passed(self) -> bool:
        return self.audit.passed

    def of(self, table: Table) -> pl.DataFrame:
        """For each row of a table's frame, in its order: ``hidden``, ``status`` and ``published``."""
        at = self.cells.find(nodes_of(table.frame.select(table.dimensions), self.cells.dimensions, table.name, table.at))
        found = self.frame.select("status", "published")[at]
        return found.select(pl.col("published").is_null().alias("hidden"), "status", "published")

    def as_dict(self) -> dict[str, Any]:
        """The document that ``dopa disclose --json`` prints, for :mod:`orjson`: its cells are JSON already, as there may be a
        million."""
        names = [dimension.name for dimension in self.cells.dimensions]
        value, published, low, high = (_exact(self.frame[name]) for name in ("value", "published", "low", "high"))
        status, hidden = self.frame["status"], published.is_null() | low.is_not_null()
        ends = pl.DataFrame([low, high]).select(pl.concat_list("low", "high")).to_series()
        interval = ends.zip_with(hidden, pl.Series([None], dtype=ends.dtype)).alias("interval")
        cells = self.frame.select(names).with_columns(value, published, status, interval)
        return {"cells": orjson.Fragment(cells.write_json()), "summary": self.summary, "audit": self.audit.as_dict()}


def _exact(numbers: pl.Series) -> pl.Series:
    """Whole numbers without a point where all are; null for what has no bound."""
    known = numbers.cast(pl.Float64)
    known = known.set(~known.is_finite(), None)
    whole = (known - known.round()).abs() < 1e-6
    return known.round().cast(pl.Int64) if (whole & (known.abs() < 2**53)).all() else known.zip_with(~whole, known.round())


def protect(
    family: Family, policy: Policy | None = None, known: Sequence[pl.DataFrame] = (), hint: pl.DataFrame | None = None
) -> Protected:
    """Protect all tables of a family together and attack the result.

    ``known``: what everybody knows besides, frames with dimensions' columns (a missing one is at its total) and ``value``:
    official totals, earlier releases; null where an earlier release hid the cell, which then stays hidden. ``hint``: cells
    (dimensions' columns) that were hidden when the family was last protected; suppression hides them again if that protects it,
    and searches anew only if not. Raises :class:`UserError` for tables that are wrong. The caller publishes nothing unless
    ``passed``.
    """
    policy = policy or Policy()
    with Workers(policy.processes) as workers:
        if policy.method == "suppression" and sum(table.frame.height for table in family.tables) > WORTH:
            workers.start()
        return _protect(family, policy, known, hint, workers)


def _protect(
    family: Family, policy: Policy, known: Sequence[pl.DataFrame], hint: pl.DataFrame | None, workers: Workers
) -> Protected:
    began = time.monotonic()
    whole = policy.kind == "frequency"
    for dimension in family.dimensions:
        if dimension.name in RESERVED:
            raise UserError(
                f"a dimension cannot be called {dimension.name!r}; rename its column (taken: {', '.join(sorted(RESERVED))})"
            )
    cells = build(family)
    if whole and (wrong := np.flatnonzero(np.abs(cells.value - np.round(cells.value)) > 1e-9)).size:
        raise UserError(
            f"the count of {_named(cells, int(wrong[0]))} is {cells.value[wrong[0]]:g}, no whole number; sums are kind: magnitude"
        )
    sensitive = sensitivity(cells, policy.rule, magnitude=not whole)
    given, hidden_before = _known(cells, known)
    if policy.method == "rounding":
        outcome = rounding.control(cells, policy.base, sensitive, given, whole=whole)
        return _changed(cells, outcome.published, "rounded", outcome.audit, sensitive.primary, began, whole)
    if policy.method == "cell_key":
        if policy.noise is None:
            raise UserError("the cell-key method needs cellKey: the column of record keys, variance and maximum")
        made = cell_key.perturb(cells, policy.noise, sensitive, given, whole=whole)
        return _changed(cells, made.published, "perturbed", made.audit, sensitive.primary, began, whole)
    zero = (cells.contributors == 0) & (cells.value == 0)
    open_zero = zero if policy.zeros == "published" else cells.impossible
    lower = np.full(len(cells), 1.0 if whole and policy.zeros == "published" else 0.0)
    lower[open_zero | ~cells.public] = 0
    fixed = given | open_zero
    private = ~cells.public & ~given
    hidden_before &= ~fixed
    system = reduce(cells, fixed, lower)
    demanded = ~private & ~zero if policy.zeros == "published" else ~private & ~cells.impossible
    needs = needs_of(cells, system, sensitive, demanded, whole)
    forced_cells = (sensitive.primary & demanded) | hidden_before | private
    forced = system.gather((forced_cells & ~fixed).astype(np.float64), np.maximum) > 0
    cost = {"value": cells.value, "unit": np.ones(len(cells)), "log": np.log1p(cells.value)}[policy.cost]
    moving = system.variable >= 0

    def attacked(hidden: Bools, claimed: tuple[Ints, Moves, Moves] | None = None) -> Audit:
        return audit(cells, sensitive, hidden, demanded & hidden, given, lower, whole=whole, workers=workers, claimed=claimed)

    if hint is not None:
        hidden = _hinted(cells, hint) & moving | forced_cells
        hidden[moving] |= (system.gather(hidden.astype(np.float64), np.maximum) > 0)[system.variable[moving]]
        hidden &= ~open_zero & (moving | sensitive.primary | private)
        found = attacked(hidden)
        if found.passed:
            return _suppressed(cells, hidden, sensitive.primary, private, found, began, whole)
    problem = Problem(
        system,
        needs,
        system.gather(np.where(demanded, cost, 0.0), np.add),
        forced,
        np.ones(system.count, dtype=bool),
        whole,
    )
    shown, moves, walks = suppress(problem, Parts.of(cells, system), workers)
    hidden = forced_cells.copy()
    hidden[moving] |= shown[system.variable[moving]]
    # An unsafe cell that is known elsewhere is hidden all the same; the audit says that it helps nothing.
    hidden &= ~open_zero
    # What is not unsafe and can be told by what is known anyway need not stay hidden.
    hidden &= moving | sensitive.primary | private
    while True:
        found = attacked(hidden, (system.cell, moves, walks))
        useless = found.told & hidden & ~sensitive.primary & ~private
        if not useless.any() or useless.sum() < found.told.sum():
            break
        hidden &= ~useless
    return _suppressed(cells, hidden, sensitive.primary, private, found, began, whole)


def _suppressed(
    cells: Cells, hidden: Bools, primary: Bools, private: Bools, found: Audit, began: float, whole: bool
) -> Protected:
    status = np.where(hidden, np.where(primary, "primary", "complementary"), "published")
    status[hidden & private] = "unpublished"
    return _finish(cells, np.where(hidden, np.nan, cells.value), status, found, ~private, began, whole)


def _hinted(cells: Cells, hint: pl.DataFrame) -> Bools:
    """The cells of a hint that are still there."""
    there = hint.filter(
        pl.all_horizontal(
            pl.lit(True), *(pl.col(item.name).is_in(item.codes) for item in cells.dimensions if item.name in hint.columns)
        )
    )
    at = cells.find(nodes_of(there, cells.dimensions, "the hint"))
    found = np.zeros(len(cells), dtype=bool)
    found[at[at >= 0]] = True
    return found


def _changed(cells: Cells, published: Floats, word: str, found: Audit, primary: Bools, began: float, whole: bool) -> Protected:
    status = np.full(len(cells), word)
    return _finish(cells, published, status, found, np.ones(len(cells), dtype=bool), began, whole, primary)


def _finish(
    cells: Cells,
    published: Floats,
    status: np.ndarray[Any, Any],
    found: Audit,
    counted: Bools,
    began: float,
    whole: bool,
    primary: Bools | None = None,
) -> Protected:
    hidden = np.isnan(published)
    numbers = pl.Int64 if whole else pl.Float64
    frame = cells.frame().with_columns(
        pl.Series("value", cells.value).cast(numbers),
        pl.Series("published", published).fill_nan(None).cast(numbers),
        pl.Series("status", status.astype(object), dtype=pl.String),
        pl.Series("low", found.low).fill_nan(None),
        pl.Series("high", np.where(np.isinf(found.high), np.nan, found.high)).fill_nan(None),
    )
    kept = counted & ~hidden
    total = float(cells.value[counted].sum())
    distance = 0.0 if primary is None else float(np.abs(published - cells.value)[counted].sum())
    summary = {
        "cells": len(cells),
        "primary": int((status == "primary").sum()) if primary is None else int(primary.sum()),
        "complementary": int((status == "complementary").sum()),
        "zeros": int((cells.value == 0).sum()),
        "cells_kept": round(float(kept.sum()) / max(int(counted.sum()), 1), 6),
        "value_kept": round(
            1 - distance / total if primary is not None and total else float(cells.value[kept].sum()) / total if total else 1.0, 6
        ),
        "seconds": round(time.monotonic() - began, 3),
    }
    return Protected(cells, frame, summary, found, whole)


def _known(cells: Cells, frames: Sequence[pl.DataFrame]) -> tuple[Bools, Bools]:
    given = np.zeros(len(cells), dtype=bool)
    hidden = np.zeros(len(cells), dtype=bool)
    for number, frame in enumerate(frames, 1):
        what = f"known table {number}"
        if "value" not in frame.columns:
            raise UserError(f"{what} has no column 'value'; it has {', '.join(frame.columns)}")
        nodes = nodes_of(frame, cells.dimensions, what)
        at = cells.find(nodes)
        if (at < 0).any():
            raise UserError(f"{what}, row {int(np.argmax(at < 0)) + 2}: no table of the family has this cell; leave it out")
        values = frame["value"].cast(pl.Float64, strict=False)
        bad = values.is_null() & frame["value"].is_not_null() & (frame["value"].cast(pl.String).str.strip_chars() != "")
        if bad.any():
            raise UserError(
                f"{what}, row {int(bad.arg_max() or 0) + 2}: {frame['value'][int(bad.arg_max() or 0)]!r} is no number"
            )
        number_known = values.to_numpy()
        stated = ~np.isnan(number_known)
        differs = stated & ~np.isclose(number_known, cells.value[at], rtol=1e-9, atol=1e-6)
        if differs.any():
            row = int(np.argmax(differs))
            raise UserError(
                f"{what}, row {row + 2}: {_named(cells, int(at[row]))} is {number_known[row]:g} there and "
                f"{cells.value[at[row]]:g} in the table; what is known must be about the same people: leave out what was revised"
            )
        given[at[stated]] = True
        hidden[at[~stated]] = True
    return given, hidden & ~given


def _named(cells: Cells, at: int) -> str:
    return ", ".join(f"{name} {code}" for name, code in cells.code(at).items())
