"""What tables, columns and views there are: the names that a statement can mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.columns.names import truncated

PUBLIC = ("public",)


@dataclass(frozen=True)
class Table:
    """A base table. ``name`` is how edges call it; ``columns``: name → type, in the table's order."""

    name: str
    columns: Mapping[str, str]


@dataclass(frozen=True)
class View:
    """A view: its lineage is that of its query, so edges lead on to base tables."""

    name: str
    sql: str


@dataclass
class Schema:
    """Tables and views by (schema, name), as the catalog spells them.

    ``search_path``: where a name without a schema is looked for, in this order. ``keys``: columns of a table that together are
    unique; ``domains``: values that make sense in ``schema.table.column``. Lineage needs neither, generated data respects them.
    """

    tables: dict[tuple[str, str], Table | View] = field(default_factory=dict)
    search_path: tuple[str, ...] = PUBLIC
    keys: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    domains: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Any, *, search_path: Iterable[str] = PUBLIC) -> Schema:
        """From ``{"schema.table": {"column": "type"}}`` or ``{"schema": {"table": {"column": "type"}}}``, mixed as you like.

        Besides: ``{"views": {"schema.name": "select …"}}``, ``{"keys": {"schema.table": [["column"], …]}}`` and ``{"domains":
        {"schema.table.column": ["value", …]}}``. A name without a schema is in the first schema of the search path. Raises
        UserError.
        """
        made = cls(search_path=tuple(search_path))
        if not isinstance(document, Mapping):
            raise UserError(f"A schema is an object of tables, not {type(document).__name__}; see `dopa lineage sql --help`")
        for name, content in document.items():
            if not isinstance(content, Mapping):
                raise UserError(f"Schema: {name} is {content!r}; it should be an object that maps columns to their types")
            if name == "views" and content and all(isinstance(value, str) for value in content.values()) and _queries(content):
                for view, sql in content.items():
                    made.tables[made._place(view)] = View(view, sql)
            elif name == "keys" and all(isinstance(value, list) for value in content.values()) and content:
                made.keys |= {
                    table: tuple(tuple(key) if isinstance(key, list) else (str(key),) for key in keys)
                    for table, keys in content.items()
                }
            elif name == "domains" and all(isinstance(value, list) for value in content.values()) and content:
                made.domains |= {column: tuple(map(str, values)) for column, values in content.items()}
            elif all(isinstance(value, Mapping) for value in content.values()) and content:
                for table, columns in content.items():
                    made.add(f"{name}.{table}", columns, place=(truncated(name), truncated(table)))
            else:
                made.add(name, content)
        return made

    def add(self, name: str, columns: Mapping[str, Any], *, place: tuple[str, str] | None = None) -> None:
        """A base table ``name``. Raises UserError where a type is no text."""
        for column, kind in columns.items():
            if not isinstance(kind, str):
                raise UserError(f'Schema: the type of {name}.{column} is {kind!r}; it should be text such as "integer"')
        self.tables[place or self._place(name)] = Table(name, {truncated(column): kind for column, kind in columns.items()})

    def find(self, schema: str | None, name: str) -> Table | View | None:
        """The table or view of this name, by the search path where no schema is named."""
        for candidate in (schema,) if schema is not None else self.search_path:
            found = self.tables.get((candidate, name))
            if found is not None:
                return found
        return None

    def base_tables(self) -> dict[tuple[str, str], Table]:
        return {place: table for place, table in self.tables.items() if isinstance(table, Table)}

    def views(self) -> dict[tuple[str, str], View]:
        return {place: view for place, view in self.tables.items() if isinstance(view, View)}

    def _place(self, name: str) -> tuple[str, str]:
        *before, table = name.split(".")
        return (truncated(before[-1]) if before else self.search_path[0], truncated(table))


def _queries(content: Mapping[str, str]) -> bool:
    """Whether the texts are queries: a table may be called ``views``, too, but no type has a blank-separated query's length."""
    first = ("select", "with", "values", "table", "create", "(")
    return all(text.lstrip().lower().startswith(first) for text in content.values())


def read_schema(path: Path, *, search_path: Iterable[str] = PUBLIC) -> Schema:
    """A schema from a JSON file (``Schema.from_json`` says its form). Raises UserError."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    return Schema.from_json(document, search_path=search_path)
