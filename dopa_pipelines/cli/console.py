"""What commands share for speaking: the console, JSON, tables, and the shape of a complaint."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output, for machines."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


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
        made.add_column(title, justify="right" if title in right else "left")
    return made
