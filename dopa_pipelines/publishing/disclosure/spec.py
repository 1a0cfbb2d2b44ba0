"""The specification of a table: a YAML file that says what its columns are and how it is protected.

Reading and refusing it belongs here, and making a family of one table; docs/disclosure.md explains every field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from dopa_pipelines.documents import DocumentError, did_you_mean, read_document, unknown_keys, validation_problems
from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.disclosure import rules
from dopa_pipelines.publishing.disclosure.cell_key import Noise
from dopa_pipelines.publishing.disclosure.protecting import Policy
from dopa_pipelines.publishing.disclosure.tables import Dimension, Family, Table


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=False)


class DimensionSpec(_Part):
    """A column and its hierarchy: by ``levels`` (lengths of the code), by ``parents``, or flat."""

    name: str = Field(min_length=1)
    total: str = Field(min_length=1, coerce_numbers_to_str=True)
    levels: list[int] | None = Field(default=None, min_length=1)
    parents: dict[str, str] | None = None
    parents_file: str | None = None


class DominanceSpec(_Part):
    n: int = Field(ge=1)
    k: float = Field(gt=0, lt=100)


class RuleSpec(_Part):
    threshold: int = Field(default=5, ge=1)
    dominance: DominanceSpec | None = None
    p: float | None = Field(default=None, gt=0, le=100)


class CellKeySpec(_Part):
    column: str = Field(min_length=1)
    variance: float = Field(default=2.0, gt=0)
    maximum: int = Field(default=4, ge=1, le=100)
    jth: int = Field(default=0, ge=0)


class StructuralSpec(_Part):
    column: str = Field(min_length=1)


class KnownSpec(_Part):
    file: str = Field(min_length=1)


class Specification(_Part):
    """What a table is and how it is protected."""

    measure: str = Field(min_length=1)
    kind: Literal["frequency", "magnitude"] = "frequency"
    contributors: str | None = None
    largest: list[str] = []
    dimensions: list[DimensionSpec] = Field(min_length=1)
    rule: RuleSpec = RuleSpec()
    method: Literal["suppression", "rounding", "cell_key"] = "suppression"
    base: int = Field(default=5, ge=2)
    cell_key: CellKeySpec | None = None
    zeros: Literal["published", "hideable"] = "published"
    structural: StructuralSpec | None = None
    known: list[KnownSpec] = []
    cost: Literal["value", "unit", "log"] = "value"

    def policy(self, processes: int = 1) -> Policy:
        dominance = None if self.rule.dominance is None else rules.Dominance(self.rule.dominance.n, self.rule.dominance.k)
        noise = None
        if self.cell_key is not None:
            noise = Noise(self.cell_key.variance, self.cell_key.maximum, self.cell_key.jth)
        return Policy(
            rule=rules.Rule(self.rule.threshold, dominance, self.rule.p),
            kind=self.kind,
            method=self.method,
            base=self.base,
            noise=noise,
            zeros=self.zeros,
            cost=self.cost,
            processes=processes,
        )


def read_specification(path: Path) -> Specification:
    """Read a specification. Raises :class:`UserError`: file, line and what would be right, a line a problem."""
    try:
        document = read_document(path)
        problems = unknown_keys(document, Specification)
        try:
            found = Specification.model_validate(document.data)
        except ValidationError as error:
            lines = {problem.line for problem in problems}
            raise DocumentError(
                sorted(
                    problems
                    + [
                        one
                        for one in validation_problems(document, error)
                        if "extra inputs" not in one.message or one.line not in lines
                    ]
                )
            ) from error
        if found.kind == "magnitude" and found.contributors is None:
            problems.append(document.problem("sums need contributors: the column with the number of people in a cell", "kind"))
        if found.kind == "frequency" and (found.rule.dominance or found.rule.p):
            problems.append(document.problem("dominance and p are rules for sums; set kind: magnitude", "rule"))
        needed = max(2 if found.rule.p else 0, found.rule.dominance.n if found.rule.dominance else 0)
        if len(found.largest) < needed:
            problems.append(
                document.problem(f"the rule needs the {needed} largest contributions; name their columns in largest", "rule")
            )
        if found.method == "cell_key" and found.cell_key is None:
            problems.append(document.problem("the cell-key method needs cellKey with the column of record keys", "method"))
        names = [dimension.name for dimension in found.dimensions]
        for position, dimension in enumerate(found.dimensions):
            if names.index(dimension.name) != position:
                problems.append(document.problem(f"dimension {dimension.name!r} stands twice; keep one", "dimensions", position))
            if sum(way is not None for way in (dimension.levels, dimension.parents, dimension.parents_file)) > 1:
                message = f"dimension {dimension.name!r} has several of levels, parents and parentsFile; keep one"
                problems.append(document.problem(message, "dimensions", position))
            if dimension.levels is not None and sorted(set(dimension.levels)) != dimension.levels:
                message = f"levels of dimension {dimension.name!r} must grow, such as [2, 4, 6]"
                problems.append(document.problem(message, "dimensions", position, "levels"))
        if problems:
            raise DocumentError(sorted(problems))
    except DocumentError as error:
        raise UserError(str(error)) from error
    return found


def read_table(path: Path) -> pl.DataFrame:
    """A CSV file, all text. Raises :class:`UserError` where it cannot be read."""
    try:
        return pl.read_csv(path, infer_schema=False, encoding="utf8")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path} is not read as CSV in UTF-8 with a header: {str(error).splitlines()[0]}") from error


def family_of(found: Specification, frame: pl.DataFrame, name: str, folder: Path) -> tuple[Family, list[pl.DataFrame]]:
    """The table as a family of one, and what is known besides; files are named relative to ``folder``."""
    known = []
    for item in found.known:
        other = read_table(folder / item.file)
        value = next((column for column in (found.measure, "value") if column in other.columns), None)
        if value is None:
            raise UserError(f"{item.file} has no column {found.measure!r}; it has {', '.join(other.columns)}")
        number = pl.col(value).str.strip_chars()
        known.append(
            other.select(
                *[column for column in other.columns if column in {dimension.name for dimension in found.dimensions}],
                pl.when(number == "").then(None).otherwise(number).alias("value"),
            )
        )
    dimensions = []
    for part in found.dimensions:
        if part.name not in frame.columns:
            raise UserError(f"{name} has no column {part.name!r}; {did_you_mean(part.name, frame.columns)}")
        codes = frame[part.name].drop_nulls().unique().to_list()
        for other in known:
            if part.name in other.columns:
                codes += other[part.name].drop_nulls().unique().to_list()
        dimensions.append(_dimension(part, codes, folder))
    table = Table(
        name=name,
        frame=frame,
        dimensions=tuple(dimension.name for dimension in dimensions),
        measure=found.measure,
        contributors=found.contributors if found.kind == "magnitude" else None,
        largest=tuple(found.largest),
        key=found.cell_key.column if found.cell_key and found.method == "cell_key" else None,
        impossible=found.structural.column if found.structural else None,
        complete=True,
    )
    return Family(tuple(dimensions), (table,)), known


def _dimension(part: DimensionSpec, codes: list[str], folder: Path) -> Dimension:
    if part.levels is not None:
        return Dimension.by_prefix(part.name, part.total, codes, part.levels)
    parents = part.parents
    if part.parents_file is not None:
        listed = read_table(folder / part.parents_file)
        if missing := [column for column in ("code", "parent") if column not in listed.columns]:
            raise UserError(f"{part.parents_file} has no column {missing[0]!r}; it needs code and parent")
        parents = dict(listed.select("code", "parent").iter_rows())
    if parents is None:
        return Dimension.flat(part.name, part.total, codes)
    return Dimension.from_parents(part.name, part.total, parents)
