"""Wide lines as rows, and columns that the file's name fills: what a contract's ``unpivot`` and ``fromFile`` say.

Pure functions on batches. A row that came from field ``k`` (from 1, after the identity fields) of line ``l`` has the number
``(l - 1) * Contract.rows_per_line + k``: unique in the file, in its order, and :func:`line_of` gives the line back.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected
from dopa_pipelines.sources.batch import ROW, Batch, Text

MAX_ROWS = 250_000
"""Rows of one batch that lines are made into, about: what bounds the memory."""


def line_of(row: int, contract: Contract) -> int:
    """The line of the file, from 1, that a row came from."""
    return (row - 1) // contract.rows_per_line + 1


def unpivot(batch: Batch, contract: Contract) -> Iterator[Batch]:
    """Rows of the lines in ``batch``, which has the contract's ``file_columns``. Without ``unpivot`` the batch as it is.

    A row's original is its line. A line that could not be taken apart stays one row, under the number of its first.
    """
    layout = contract.layout.unpivot
    if layout is None:
        yield batch
        return
    flawed = batch.flawed.with_columns((pl.col(ROW) - 1) * contract.rows_per_line + 1)
    step = max(1, MAX_ROWS // contract.rows_per_line)
    for start in range(0, max(1, len(batch.rows)), step):
        yield _rows(batch, contract, start, min(step, len(batch.rows) - start), flawed if not start else flawed.clear())


def _rows(batch: Batch, contract: Contract, start: int, lines: int, flawed: pl.DataFrame) -> Batch:
    """Rows of ``lines`` lines from place ``start``: all of the first field, then all of the second."""
    layout = contract.layout.unpivot
    assert layout is not None
    fields = contract.rows_per_line
    line = np.tile(np.arange(lines, dtype=np.uint32), fields)
    field = np.repeat(np.arange(fields, dtype=np.int64), lines)
    columns: dict[str, Text] = {}
    for name in layout.identity:
        values = _part(batch.columns[name], start, lines)
        columns[name] = Text(values.values, pl.Series(line) if values.codes is None else values.codes.gather(pl.Series(line)))
    wide = [_part(batch.columns[name], start, lines).rows() for name in layout.wide]
    columns[layout.value] = Text(pl.concat(wide).alias(layout.value))
    for name in layout.filled:
        texts = [row.get(name) for row in layout.rows]
        distinct = list(dict.fromkeys(texts))
        codes = np.array([distinct.index(text) for text in texts], dtype=np.uint32)
        columns[name] = Text(pl.Series(distinct, dtype=pl.String), pl.Series(codes[field]))
    first = (batch.rows.slice(start, lines).to_numpy() - 1) * fields + 1
    return Batch(
        pl.Series(ROW, first[line] + field, dtype=pl.Int64),
        {column.name: columns[column.name] for column in contract.columns if column.name in columns},
        lambda asked: batch.original(asked.cast(pl.Int64) % max(1, lines) + start),
        flawed,
    )


def _part(text: Text, start: int, count: int) -> Text:
    if text.codes is None:
        return Text(text.values.slice(start, count), None, text.ascii)
    return Text(text.values, text.codes.slice(start, count), text.ascii)


def fill_from_file(batch: Batch, contract: Contract, file_name: str) -> Batch:
    """``batch`` with the columns that the file's name fills. Raises Rejected where the name does not state what they need."""
    names = [column.name for column in contract.columns if column.from_file]
    if not names:
        return batch
    month = contract.period_of(file_name)
    if month is None:
        raise Rejected(
            f"{file_name}: its name states no month, which column {', '.join(names)} needs; name it so that the pattern"
            f" {contract.layout.period} of {contract.path.name} finds year and month"
        )
    codes = pl.zeros(len(batch.rows), pl.UInt32, eager=True)
    filled = dict.fromkeys(names, Text(pl.Series([month.isoformat()], dtype=pl.String), codes, ascii=True))
    columns = batch.columns | filled
    return Batch(batch.rows, {column.name: columns[column.name] for column in contract.columns}, batch.original, batch.flawed)
