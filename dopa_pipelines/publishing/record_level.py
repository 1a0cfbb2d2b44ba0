"""Whether an extract with a row a person may go out: k-anonymity and l-diversity, as ``pycanon`` computes them.

Belongs here: the check of rows against a publication's :class:`RecordLevel`. Does not belong here: tables of counts, which are
under disclosure control.

k-anonymity (Sweeney 2002, "k-anonymity: a model for protecting privacy"): every combination of quasi-identifiers that occurs
has at least k rows. l-diversity (Machanavajjhala et al. 2007, "l-diversity: privacy beyond k-anonymity"): in each such class,
every sensitive column has at least l distinct values.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.publication import RecordLevel


@dataclass(frozen=True)
class Findings:
    """What an extract has. ``k``: rows of its smallest class, ``l``: the fewest distinct values of a sensitive column in a class
    (None where none is sensitive); both None without rows. ``risky_rows``: rows in classes that are too small."""

    rows: int
    k: int | None
    l: int | None  # noqa: E741 - what the literature calls it
    risky_rows: int


def findings(frame: pl.DataFrame, rule: RecordLevel) -> Findings:
    """Measure the rows, missing values taken for a value of their own. Raises :class:`UserError` where a column is not there."""
    missing = [name for name in [*rule.quasi_identifiers, *rule.sensitive] if name not in frame.columns]
    if missing:
        raise UserError(f"The extract has no column {', '.join(missing)}, which recordLevel names; correct it.")
    if frame.is_empty():
        return Findings(0, None, None, 0)
    # pandas, which pycanon brings, takes most of a second to import.
    import pandas as pd
    from pycanon import anonymity

    # pycanon leaves out rows with a missing quasi-identifier, and those are often the rarest; numbers in place of values keep
    # them, and keep what is personal out of it.
    quasi = list(dict.fromkeys(rule.quasi_identifiers))
    sensitive = list(dict.fromkeys(rule.sensitive))
    ranked = [*(pl.col(name).alias(f"q:{name}") for name in quasi), *(pl.col(name).alias(f"s:{name}") for name in sensitive)]
    coded = frame.select(ranked).select(pl.all().rank("dense").fill_null(0).cast(pl.Int64))
    keys = [f"q:{name}" for name in quasi]
    # pandas groups by a list of one otherwise than by longer ones, and warns.
    values = pd.DataFrame({"one": 0, **{name: coded[name].to_numpy() for name in coded.columns}})
    k = int(anonymity.k_anonymity(values, ["one", *keys]))
    diversity = int(anonymity.l_diversity(values, ["one", *keys], [f"s:{name}" for name in sensitive])) if sensitive else None
    sizes = coded.group_by(keys).len()["len"]
    return Findings(frame.height, k, diversity, int(sizes.filter(sizes < rule.k_anonymity).sum()))


def check(frame: pl.DataFrame, rule: RecordLevel) -> Findings:
    """:func:`findings`; a :class:`UserError` where the rule asks for more, which names sizes and columns, never values."""
    found = findings(frame, rule)
    columns = ", ".join(rule.quasi_identifiers)
    if found.k is not None and found.k < rule.k_anonymity:
        raise UserError(
            f"The extract is not {rule.k_anonymity}-anonymous: its smallest class by {columns} has {found.k}"
            f" {'row' if found.k == 1 else 'rows'}, and {found.risky_rows:,} of {found.rows:,} rows are in classes that are too"
            " small; make these columns coarser, publish fewer of them, or leave such rows out in the model."
        )
    if found.l is not None and found.l < rule.l_diversity:
        raise UserError(
            f"The extract is not {rule.l_diversity}-diverse: in some class by {columns}, one of {', '.join(rule.sensitive)} has"
            f" only {found.l} distinct {'value' if found.l == 1 else 'values'}; make these columns coarser or publish fewer."
        )
    return found
