"""Hashes whose key or salt stands in the SQL: whoever reads the statement, or a log of it, can make the same hash.

Belongs here: finding them in a statement. Does not belong here: what is then said, and to whom (``governance.classification``).
"""

from __future__ import annotations

import sqlglot
from sqlglot import exp

from dopa_pipelines.lineage.columns import names

_ENCODINGS = frozenset(
    {"utf8", "utf-8", "hex", "base64", "escape", "sha256", "sha1", "sha224", "sha384", "sha512", "md5", "bf", "c"}
)


def literal_keys(sql: str) -> list[str]:
    """One-way functions in a statement that are given text besides a column: the key or salt of a hash."""
    found: list[str] = []
    try:
        tree = sqlglot.parse_one(sql, dialect="postgres")
    except sqlglot.errors.SqlglotError:
        return []
    for node in tree.walk():
        if not isinstance(node, exp.Func) or isinstance(node, (exp.AggFunc, exp.Binary)):
            continue
        name = str(node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
        if name not in names.ONE_WAY and name not in ("sha", "sha2", "md5digest", "sha1digest", "sha2digest"):
            continue
        texts = [part for part in node.find_all(exp.Literal) if part.is_string and part.name.lower() not in _ENCODINGS]
        if texts and next(node.find_all(exp.Column), None) is not None:
            found.append(name)
    return found
