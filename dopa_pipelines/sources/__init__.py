"""Readers: one silo form each, from a file to bounded batches of text columns.

A batch is a Polars frame with every column of the contract as text, and:

- ``_row``: where the row stands in its source, counted from 1 (line of a text file, row of a sheet, record of a feed);
- ``_original``: the row as it came;
- ``_flaw``: a reason code where the row could not be taken apart, else null.

Readers know layout and nothing of rules: typing and checking is :mod:`dopa_pipelines.ingest`. A layout that cannot be read at
all raises :class:`dopa_pipelines.errors.Rejected`.
"""

from dopa_pipelines.sources.feeds import fetch, is_fetched
from dopa_pipelines.sources.reader import Reader, open_reader

__all__ = ["Reader", "fetch", "is_fetched", "open_reader"]
