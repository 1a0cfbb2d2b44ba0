"""Addresses of the portal's pages, for the portal itself and whoever links to it.

Only text is made here; what is behind an address is in the other modules.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

RAW_FORMS = ("svg", "json")
"""Forms of a trace that are no page: ``/trace/<name>.svg``."""


def trace(base: str, name: str, column: str | None = None, **query: str) -> str:
    """The page of a dataset's trace, or of a column's. ``base``: the portal's address, or the path below which it lies.

    ``query``: as the page's form has it; what is empty is left out.
    """
    whole = name if column is None else f"{name}.{column}"
    asked = {key: value for key, value in query.items() if value}
    if whole.endswith(tuple(f".{form}" for form in RAW_FORMS)):
        # A column may be called so; the page says that it is not meant as a form.
        asked["form"] = "html"
    return f"{base}/trace/{quote(whole, safe=':/')}{'?' + urlencode(asked) if asked else ''}"


def raw_trace(base: str, name: str, form: str, **query: str) -> str:
    """The trace of ``name`` (a dataset, or ``dataset.column``) in one of the ``RAW_FORMS``."""
    asked = {key: value for key, value in query.items() if value}
    return f"{base}/trace/{quote(name, safe=':/')}.{form}{'?' + urlencode(asked) if asked else ''}"


def publication(base: str, name: str) -> str:
    """The page of a publication and its releases."""
    return f"{base}/releases/{quote(name, safe='')}/"


def release(base: str, name: str, version: str) -> str:
    """The page of a release, or the tombstone of one that was withdrawn; ``version`` may be ``latest``."""
    return f"{publication(base, name)}{quote(version, safe='')}/"


def released_file(base: str, name: str, version: str, file: str) -> str:
    """A file of a release; ``version`` may be ``latest``."""
    return f"{release(base, name, version)}{quote(file, safe='')}"


def incidents(base: str, dataset: str = "", bureau: str = "") -> str:
    """The page of open quality incidents: all, those of a dataset or ``schema.table``, or those of a bureau."""
    asked = {key: value for key, value in {"dataset": dataset, "bureau": bureau}.items() if value}
    return f"{base}/incidents{'?' + urlencode(asked) if asked else ''}"


def incident(base: str, number: int) -> str:
    """The page of one quality incident, also after it was closed."""
    return f"{base}/incidents/{number}"
