"""What commands share for speaking: the console, JSON, tables, and the shape of a complaint."""

from __future__ import annotations

import sys
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 160
"""Columns where the output goes into a file or pipe, which has no width of its own."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)


def print_json(value: Any) -> None:
    """One JSON document on standard output, for machines."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
    sys.stdout.write(orjson.dumps(value, default=str, option=options).decode() + "\n")


def fail(message: str) -> None:
    """A complaint on standard error, without a traceback."""
    err.print(f"[bold red]dopa:[/] {_escaped(message)}")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def table(*titles: str, right: tuple[str, ...] = ()) -> Table:
    """A plain table; the columns in ``right`` hold numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        made.add_column(title, justify="right" if title in right else "left", no_wrap=True, overflow="fold")
    return made
