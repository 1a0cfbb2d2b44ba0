"""Publishing: publications, and the releases that go out.

What may leave (publication, gate, disclosure control), the files that leave, and how they become visible
belong here. Shaping the data is dbt's; showing it is the portal's.
"""

from dopa_pipelines.publishing.publication import (
    TIMEZONE,
    Publication,
    Publications,
    PublishedColumn,
    load_publications,
    read_publication,
)
from dopa_pipelines.publishing.releases import Release, publish, recover, seen_writes

__all__ = [
    "TIMEZONE",
    "Publication",
    "Publications",
    "PublishedColumn",
    "Release",
    "load_publications",
    "publish",
    "read_publication",
    "recover",
    "seen_writes",
]
