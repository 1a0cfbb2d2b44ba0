"""Publishing: publications, and the releases that go out.

What may leave (publication, gate, disclosure control), the files that leave, and how they become visible
belong here. Shaping the data is dbt's; showing it is the portal's.
"""

from typing import TYPE_CHECKING, Any

from dopa_pipelines.publishing.publication import (
    TIMEZONE,
    Publication,
    Publications,
    PublishedColumn,
    columns_of,
    load_publications,
    read_publication,
)

if TYPE_CHECKING:
    from dopa_pipelines.publishing.corrections import Version, correct, versions, withdraw
    from dopa_pipelines.publishing.releases import Release, publish, recover, seen_writes

__all__ = [
    "TIMEZONE",
    "Publication",
    "Publications",
    "PublishedColumn",
    "Release",
    "Version",
    "columns_of",
    "correct",
    "load_publications",
    "publish",
    "read_publication",
    "recover",
    "seen_writes",
    "versions",
    "withdraw",
]
_CORRECTIONS = ("Version", "correct", "versions", "withdraw")


def __getattr__(name: str) -> Any:
    """What writes releases pays for Polars and Arrow; who only reads publications need not."""
    if name not in __all__:
        raise AttributeError(name)
    from dopa_pipelines.publishing import corrections, releases

    return getattr(corrections if name in _CORRECTIONS else releases, name)
