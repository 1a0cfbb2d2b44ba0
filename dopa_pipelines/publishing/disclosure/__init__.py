"""Disclosure control: counts and sums over people go out so that nobody in them is told.

Unsafe cells are found by the standard rules, hidden with as many others as it takes (or all cells rounded, or perturbed), and the
result is attacked before it goes out. It stands apart from publications: it takes tables, not files that say what leaves.

>>> import polars as pl
>>> frame = pl.DataFrame({"area": ["1001", "1001", "1002", "1002"], "sex": ["f", "m", "f", "m"], "births": [3, 12, 9, 14]})
>>> area = Dimension.by_prefix("area", "TH", frame["area"], [2, 4])
>>> sex = Dimension.flat("sex", "both", frame["sex"])
>>> table = Table("births", frame, ("area", "sex"), "births")
>>> protected = protect(Family((area, sex), (table,)), Policy(Rule(threshold=5)))
>>> protected.passed, protected.of(table)["hidden"].to_list()
(True, [True, True, True, True])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dopa_pipelines.publishing.disclosure.cell_key import Noise
    from dopa_pipelines.publishing.disclosure.protecting import Policy, Protected, protect
    from dopa_pipelines.publishing.disclosure.rules import Dominance, Rule
    from dopa_pipelines.publishing.disclosure.tables import Dimension, Family, Table

_WHERE = {
    "Dimension": "tables",
    "Dominance": "rules",
    "Family": "tables",
    "Noise": "cell_key",
    "Policy": "protecting",
    "Protected": "protecting",
    "Rule": "rules",
    "Table": "tables",
    "protect": "protecting",
}

RESERVED = frozenset({"value", "published", "status", "low", "high", "interval", "hidden"})
"""Names that the result has for itself: no dimension can be called so."""

__all__ = ["RESERVED", "Dimension", "Dominance", "Family", "Noise", "Policy", "Protected", "Rule", "Table", "protect"]


def __getattr__(name: str) -> Any:
    """The solver and Polars are paid for by who protects a table, not by who only names this package."""
    if name not in _WHERE:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
