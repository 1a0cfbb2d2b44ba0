"""Disclosure control of an extract: its rows as cells of its family, protected with all that is out already, and put back.

What belongs here: from a publication's columns to cells and back, what of earlier releases and of the family's other
publications an attacker has, and what a release tells of its protection. The methods and the attack are those of
:mod:`.disclosure`; that a column may go out at all was for the gate.

Publications of one ``family`` are over the same people. Whoever attacks one has the others, and every release that was: their
cells stand in the same system of sums, known where a value is out and hidden where it was hidden. What is not out yet is
protected together with what goes out, so that it still can be when its turn comes. What was revised since (a
late registration) is about other people than today's figure: it is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
import polars as pl

from dopa_pipelines.documents import Problem
from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing import disclosure
from dopa_pipelines.publishing.disclosure import Family, Policy, Rule, Table, protect
from dopa_pipelines.publishing.disclosure.tables import build
from dopa_pipelines.publishing.folders import manifest_of
from dopa_pipelines.publishing.publication import Dimension, Disclosure, Publication
from dopa_pipelines.publishing.rows import beside

TOTAL = "(total)"
"""Code of every dimension's total within a family."""
REST = "(rest)"
"""Code of what a wide table's columns leave of their total."""
_VALUE, _ROW, _MEASURE, _PEOPLE = "(value)", "(row)", "(measure)", "(people)"


@dataclass(frozen=True)
class Released:
    """A release that is out: of which publication and version, the rule it had, and its rows (hidden cells are null)."""

    publication: str
    version: str
    rule: Disclosure
    frame: pl.DataFrame


@dataclass(frozen=True)
class Member:
    """Another publication of the family: its rule and its source's rows as they are now."""

    publication: str
    rule: Disclosure
    frame: pl.DataFrame


@dataclass
class Extract:
    """The rows as they may go out, in the order they came, and what the release tells of their protection."""

    frame: pl.DataFrame
    facts: dict[str, Any]
    disclosed: list[str] = field(default_factory=list)
    """Cells (their codes) that an attacker can tell; the extract may not go out unless there are none."""
    pattern: pl.DataFrame | None = None
    """The hidden cells of the whole family, a column a dimension: what ``hint`` is to be for the family's next extract."""


def family_problems(
    publications: Iterable[Publication], counted: Mapping[str, frozenset[str]] = MappingProxyType({})
) -> list[Problem]:
    """Publications of one family that do not mean the same by a dimension, and those over the same people in families of their
    own: one could be told by the other. ``counted``: by publication, the tables whose rows its measures count or add up."""
    found: list[Problem] = []
    under = [item for item in publications if item.disclosure]
    for one, other in combinations(under, 2):
        assert one.disclosure is not None and other.disclosure is not None
        if one.disclosure.family == other.disclosure.family:
            continue
        shared = counted.get(one.name, frozenset()) & counted.get(other.name, frozenset())
        if shared and one.unit_of_count == other.unit_of_count:
            found.append(
                Problem(
                    other.path,
                    1,
                    f"{other.name} counts {', '.join(sorted(shared))} in {other.unit_of_count}, and so does {one.name}: "
                    "they must be of one disclosure family "
                    f"(it is {other.disclosure.family!r} here, {one.disclosure.family!r} there)",
                )
            )
    families: dict[str, list[Publication]] = {}
    for publication in under:
        if publication.disclosure:
            families.setdefault(publication.disclosure.family, []).append(publication)
    for name, members in families.items():
        for other in members[1:]:
            found += _disagreements(name, members[0], other)
    return found


def _disagreements(name: str, first: Publication, other: Publication) -> Iterator[Problem]:
    one, two = first.disclosure, other.disclosure
    assert one is not None and two is not None
    if one.method != two.method or one.base != two.base or one.zeros != two.zeros:
        message = f"family {name!r}: {first.name} is protected by other means (method, base, zeros); one family, one method"
        yield Problem(other.path, 1, message)
    apart = [{item.name for item in rule.dimensions if not item.additive} for rule in (one, two)]
    if apart[0] != apart[1]:
        said = ", ".join(sorted(apart[0] ^ apart[1]))
        message = f"family {name!r}: {first.name} and {other.name} must both have {said} with `additive: false`, or neither"
        yield Problem(other.path, 1, message)


def releases_of_family(folder: Path, family: str) -> list[Released]:
    """Every release below ``folder`` that is of the family, by publication and version.

    Raises :class:`UserError` for one whose rows can no longer be read: the attacker may still have it.
    """
    found = []
    for path in sorted(folder.glob("*/*/release.json")):
        if path.parent.is_symlink():
            continue
        manifest = manifest_of(path.parent)
        told = (manifest.get("disclosure") or {}).get("rule") or {}
        if told.get("family") == family:
            rule = Disclosure.model_validate_json(orjson.dumps(told))
            found.append(Released(path.parent.parent.name, path.parent.name, rule, _rows(path.parent, manifest)))
    return found


def _rows(folder: Path, manifest: Mapping[str, Any]) -> pl.DataFrame:
    name = manifest["publication"]
    types = {column["name"]: column["type"] for column in manifest["columns"]}
    parquet, text = folder / f"{name}.parquet", folder / f"{name}.csv"
    try:
        if parquet.exists():
            return pl.read_parquet(parquet)
        numbers = {key: pl.Int64 if kind == "integer" else pl.Float64 for key, kind in types.items() if kind in _NUMBERS}
        return pl.read_csv(text, schema_overrides={key: numbers.get(key, pl.String) for key in types}, encoding="utf8-lossy")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(
            f"the release {name} {folder.name} cannot be read ({str(error).splitlines()[0]}), so that it is not known what an "
            "attacker has of it; put its files back"
        ) from error


_NUMBERS = ("integer", "number")


def protect_extract(
    publication: Publication,
    frame: pl.DataFrame,
    out: Sequence[Released] = (),
    others: Sequence[Member] = (),
    hint: pl.DataFrame | None = None,
) -> Extract:
    """Protect ``frame``, the rows of ``publication`` (published columns, and those that its rule's ``carried`` names, as
    :func:`.rows.beside` calls them).

    ``out``: every release of the family, this publication's own included. ``others``: the family's other publications, with
    their rows as they are now. ``hint``: the :attr:`Extract.pattern` of the family's last extract; it protected what was not out
    yet, too, so that it is tried first. Raises :class:`UserError` where the rows are not what the rule says.
    """
    rule = publication.disclosure
    if rule is None:
        raise ValueError("a publication without disclosure control")
    _rates(frame, rule, publication.name)
    apart = [item for item in rule.dimensions if not item.additive and item.column]
    parts = _split(frame, rule, apart, publication.name)
    hidden: list[pl.DataFrame] = []
    totals = {"cells": 0, "primary": 0, "complementary": 0, "zeros": 0, "revised": 0}
    kept_cells = kept_value = value = 0.0
    disclosed: list[str] = []
    audits: list[dict[str, Any]] = []
    stale: set[str] = set()
    patterns: list[pl.DataFrame] = []
    for codes, own in parts:
        family, known, table, revised, out_of_step = _family(publication.name, rule, own, codes, out, others)
        made = protect(family, _policy(rule), known, _of_part(hint, codes))
        patterns.append(_hidden(made, codes))
        status = own.select(_ROW, _MEASURE).hstack(made.of(table))
        hidden.append(status)
        totals["revised"] += revised
        stale.update(out_of_step)
        for name in ("cells", "primary", "complementary", "zeros"):
            totals[name] += made.summary[name]
        kept_cells += made.summary["cells_kept"] * made.summary["cells"]
        amount = float(own[_VALUE].sum() or 0)
        kept_value, value = kept_value + made.summary["value_kept"] * amount, value + amount
        told = made.audit.as_dict()
        audits.append(told)
        if not made.passed:
            where = " ".join(f"{name} {code}" for name, code in codes.items())
            disclosed += [f"{where} {_named(cell)}".strip() for cell in told.get("disclosed", [])[:5]] or [where or "a cell"]
    changed = _put_back(frame, rule, pl.concat(hidden) if hidden else None)
    facts = {
        "rule": rule.model_dump(mode="json", by_alias=True),
        "unit_of_count": publication.unit_of_count,
        **totals,
        "cells_kept": round(kept_cells / totals["cells"], 6) if totals["cells"] else 1.0,
        "value_kept": round(kept_value / value, 6) if value else 1.0,
        "audit": {
            "passed": not disclosed,
            "attackers": audits[0].get("attackers", []) if audits else [],
            "tables": len(audits),
        },
        "attacked_with": sorted({f"{item.publication} {item.version}" for item in out if item.publication not in stale}),
        "out_of_step": sorted(stale),
    }
    return Extract(changed, facts, disclosed, pl.concat(patterns, how="diagonal") if patterns and not disclosed else None)


def _hidden(made: disclosure.Protected, codes: Mapping[str, str]) -> pl.DataFrame:
    names = [dimension.name for dimension in made.cells.dimensions]
    there = made.frame.filter(pl.col("published").is_null()).select(names)
    return there.with_columns(pl.lit(code).alias(name) for name, code in codes.items())


def _of_part(hint: pl.DataFrame | None, codes: Mapping[str, str]) -> pl.DataFrame | None:
    if hint is None or any(name not in hint.columns for name in codes):
        return None
    return _only(hint, codes).drop(codes)


def _named(cell: Any) -> str:
    codes = cell.get("cell", cell) if isinstance(cell, Mapping) else cell
    return ", ".join(f"{name} {code}" for name, code in codes.items()) if isinstance(codes, Mapping) else str(codes)


def _policy(rule: Disclosure) -> Policy:
    dominance = disclosure.Dominance(rule.dominance.n, rule.dominance.k) if rule.dominance else None
    sums = any(measure.contributors for measure in rule.measures)
    return Policy(
        rule=Rule(rule.threshold, dominance, rule.p_percent),
        kind="magnitude" if sums else "frequency",
        method=rule.method,
        base=rule.base or 5,
        zeros=rule.zeros,
    )


# From rows to cells


def _long(frame: pl.DataFrame, rule: Disclosure, what: str) -> pl.DataFrame:
    """A row a cell: each dimension that the rule gives a column or a code, ``(value)``, ``(row)`` and ``(measure)``."""
    held = []
    numbered = frame.with_row_index(_ROW)
    for measure in rule.measures:
        codes = []
        for item in rule.dimensions:
            if item.column is not None:
                codes.append(_code(item).alias(item.name))
            else:
                codes.append(pl.lit(measure.at.get(item.name, TOTAL)).alias(item.name))
        extra = [pl.col(beside(measure.contributors)).alias(_PEOPLE)] if measure.contributors else []
        extra += [pl.col(beside(name)).alias(f"(largest {rank})") for rank, name in enumerate(measure.largest)]
        held.append(
            numbered.select(
                *codes,
                pl.col(measure.column).cast(pl.Float64).alias(_VALUE),
                pl.col(_ROW),
                pl.lit(measure.column).alias(_MEASURE),
                *extra,
            )
        )
    made = pl.concat([*held, *_rests(held, rule, what)], how="diagonal")
    for item in rule.dimensions:
        if made[item.name].null_count():
            row = int(made.filter(pl.col(item.name).is_null())[_ROW][0]) + 1
            raise UserError(
                f"{what}: row {row} has no {item.column}: a count without its place cannot be protected; give it one in the model"
            )
    return made


def _rests(held: Sequence[pl.DataFrame], rule: Disclosure, what: str) -> Iterator[pl.DataFrame]:
    """What the columns of a wide table leave of their total (posts, of which vacant: the others): any reader can subtract."""
    wide = [item.name for item in rule.dimensions if item.column is None]
    for name in wide:
        groups: dict[tuple[str, ...], dict[str, pl.DataFrame]] = {}
        for measure, cells in zip(rule.measures, held, strict=True):
            others = tuple(measure.at.get(other, TOTAL) for other in wide if other != name)
            groups.setdefault(others, {})[measure.at.get(name, TOTAL)] = cells
        for codes in groups.values():
            if TOTAL not in codes or len(codes) < 2:
                continue
            whole = codes.pop(TOTAL)
            extra = [column for column in whole.columns if column == _PEOPLE]
            rest = whole.with_columns(
                pl.lit(REST).alias(name),
                pl.lit(REST).alias(_MEASURE),
                *(pl.col(column) - sum(cells[column] for cells in codes.values()) for column in (_VALUE, *extra)),
            )
            short = rest.filter(pl.col(_VALUE) < -1e-9)
            if short.height:
                raise UserError(
                    f"{what}: row {int(short[_ROW][0]) + 1}: {whole[_MEASURE][0]} is less than its parts by {name};"
                    " mend the model"
                )
            if rest[_VALUE].sum():
                yield rest


def _code(item: Dimension) -> pl.Expr:
    code = pl.col(item.column or "").cast(pl.String)
    return pl.when(code == item.total).then(pl.lit(TOTAL)).otherwise(code) if item.total is not None else code


def _split(
    frame: pl.DataFrame, rule: Disclosure, apart: Sequence[Dimension], what: str
) -> Iterator[tuple[dict[str, str], pl.DataFrame]]:
    """The cells, a table for each combination of codes that do not add up."""
    cells = _long(frame, rule, what)
    missing = cells.filter(pl.col(_VALUE).is_null())
    if missing.height:
        first = missing.row(0, named=True)
        raise UserError(
            f"{what}: {first[_MEASURE]} of row {first[_ROW] + 1} is empty and would look like a hidden cell; "
            "make it a number in the model"
        )
    names = [item.name for item in apart]
    if not names:
        yield {}, cells
        return
    for codes, part in cells.partition_by(names, as_dict=True, maintain_order=True).items():
        yield dict(zip(names, map(str, codes), strict=True)), part


def _only(cells: pl.DataFrame, codes: Mapping[str, str]) -> pl.DataFrame:
    for name, code in codes.items():
        cells = cells.filter(pl.col(name) == code)
    return cells


def _family(
    name: str,
    rule: Disclosure,
    own: pl.DataFrame,
    codes: Mapping[str, str],
    out: Sequence[Released],
    others: Sequence[Member],
) -> tuple[Family, list[pl.DataFrame], Table, int, list[str]]:
    """The family of one table of the extract, what is known of it, that table, how many known cells were revised, and the
    publications that do not agree with it: their models have to be built anew."""
    members: list[tuple[str, Disclosure, pl.DataFrame]] = [(name, rule, own)]
    known: list[pl.DataFrame] = []
    apart: list[str] = []
    revised = 0
    now = {name: (rule, own)}
    for other in others:
        if all(any(item.name == split for item in other.rule.dimensions) for split in codes):
            now[other.publication] = other.rule, _only(_long(other.frame, other.rule, other.publication), codes)
    for publication, (is_rule, cells) in now.items():
        names = [item.name for item in is_rule.dimensions if item.name not in codes]
        seen: list[pl.DataFrame] = []
        for release in out:
            if release.publication != publication or {item.name for item in release.rule.dimensions} != {*names, *codes}:
                continue
            told = _only(_long(release.frame, release.rule, f"{publication} {release.version}"), codes)
            pairs = told.select(*names, pl.col(_VALUE).alias("told")).join(cells.select(*names, _VALUE), on=names, how="left")
            pairs = pairs.with_columns(pl.col(_VALUE).fill_null(0.0))
            same = pairs.filter(pl.col("told").is_null() | ((pl.col("told") - pl.col(_VALUE)).abs() < 1e-6))
            revised += pairs.height - same.height
            # A cell that is gone now is zero, and only its table's rows are cells here.
            seen.append(same.join(cells.select(names), on=names, how="semi").select(*names, pl.col("told").alias("value")))
        if seen:
            # What one release shows is known, whatever another hid.
            known.append(pl.concat(seen).group_by(names, maintain_order=True).agg(pl.col("value").max()))
        if publication == name:
            continue
        tried = [*members, (publication, is_rule, cells)]
        try:
            build(_together(tried, codes))
        except UserError:
            # Its model was built of other data than this one's, which differ by people: no sum over both holds.
            apart.append(publication)
            if seen:
                known.pop()
            continue
        members = tried
    family = _together(members, codes)
    return family, known, family.tables[0], revised, apart


def _together(members: Sequence[tuple[str, Disclosure, pl.DataFrame]], codes: Mapping[str, str]) -> Family:
    dimensions = _dimensions([(rule, cells) for _, rule, cells in members], codes)
    return Family(dimensions, tuple(_table(title, rule, cells, codes) for title, rule, cells in members))


def _dimensions(members: Sequence[tuple[Disclosure, pl.DataFrame]], codes: Mapping[str, str]) -> tuple[disclosure.Dimension, ...]:
    made: dict[str, disclosure.Dimension] = {}
    names = dict.fromkeys(item.name for rule, _ in members for item in rule.dimensions if item.name not in codes)
    for name in names:
        levels: set[int] = set()
        parents: dict[str, str] = {}
        found: set[str] = set()
        for rule, cells in members:
            for item in rule.dimensions:
                if item.name == name:
                    levels |= set(item.levels)
                    parents |= {child: TOTAL if above == item.total else above for child, above in item.parents.items()}
                    found |= set(cells[name].unique())
        if levels:
            made[name] = disclosure.Dimension.by_prefix(name, TOTAL, found, sorted(levels))
        elif parents:
            tops = set(parents.values()) - set(parents) - {TOTAL}
            known = parents | dict.fromkeys(tops, TOTAL)
            made[name] = disclosure.Dimension.from_parents(
                name, TOTAL, known | dict.fromkeys(found - set(known) - {TOTAL}, TOTAL)
            )
        else:
            made[name] = disclosure.Dimension.flat(name, TOTAL, found)
    return tuple(made.values())


def _table(title: str, rule: Disclosure, cells: pl.DataFrame, codes: Mapping[str, str]) -> Table:
    largest = [name for name in cells.columns if name.startswith("(largest ")]
    return Table(
        name=title,
        frame=cells,
        dimensions=tuple(item.name for item in rule.dimensions if item.name not in codes),
        measure=_VALUE,
        contributors=_PEOPLE if _PEOPLE in cells.columns else None,
        largest=tuple(largest),
        threshold=rule.threshold,
    )


# And back


def _put_back(frame: pl.DataFrame, rule: Disclosure, cells: pl.DataFrame | None) -> pl.DataFrame:
    """The extract with each measure as it may go out, and rates hidden where one of their counts is."""
    changed = frame.drop(map(beside, rule.carried))
    if cells is None:
        return changed
    for measure in rule.measures:
        told = cells.filter(pl.col(_MEASURE) == measure.column).sort(_ROW)
        changed = changed.with_columns(told["published"].cast(frame.schema[measure.column]).alias(measure.column))
    for rate in rule.rates:
        over, below = changed[rate.numerator], changed[rate.denominator]
        shown = pl.col(rate.column)
        if rule.method != "suppression":
            # Of the true counts it would tell them; of those that go out it tells nothing that they do not.
            shown = (rate.scale * over / pl.when(below != 0).then(below)).round(rate.decimals).cast(frame.schema[rate.column])
        changed = changed.with_columns(pl.when(over.is_not_null() & below.is_not_null()).then(shown).alias(rate.column))
    return changed


def _rates(frame: pl.DataFrame, rule: Disclosure, what: str) -> None:
    """Refuse a rate that is not what the rule says: more decimals, or other counts, could tell what the counts hide."""
    for rate in rule.rates:
        made = rate.scale * pl.col(rate.numerator) / pl.col(rate.denominator)
        wrong = frame.with_row_index(_ROW).filter(
            (pl.col(rate.denominator) != 0) & ((pl.col(rate.column) - made).abs() > 0.5 * 10.0**-rate.decimals + 1e-9)
            | ((pl.col(rate.column) - pl.col(rate.column).round(rate.decimals)).abs() > 1e-9)
        )
        if wrong.height:
            row = wrong.row(0, named=True)
            raise UserError(
                f"{what}: row {row[_ROW] + 1}: {rate.column} is {row[rate.column]}, not {rate.scale:g} x {rate.numerator} / "
                f"{rate.denominator} ({row[rate.numerator]} / {row[rate.denominator]}) to {rate.decimals} decimals; "
                "mend the model, or the rate in the publication"
            )
