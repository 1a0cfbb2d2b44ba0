"""The statements that lineage is tried on, their schema, and which are left out and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dopa_pipelines.lineage.columns import Schema, read_schema

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Statement:
    """``excluded``: why what it gives says nothing about its columns; empty where it is tried."""

    name: str
    sql: str
    excluded: str = ""


def schema() -> Schema:
    return read_schema(FOLDER / "schema.json")


def statements() -> list[Statement]:
    """All of them, in the order of the files."""
    found = []
    for path in sorted((FOLDER / "statements").glob("*.sql")):
        for part in re.split(r"(?m)^-- name: ", path.read_text("utf-8"))[1:]:
            name, _, body = part.partition("\n")
            why = re.match(r"-- excluded: (.*)\n", body)
            found.append(Statement(name.strip(), body.strip(), why[1] if why else ""))
    return found
