"""The one naming of datasets, used by everything that records or emits lineage.

Belongs here: how a table, a silo's feed and a publication are called, and the way back from a name. Does not
belong here: what is recorded under a name (``store``), and how a person may abbreviate it (``trace``).

The names follow OpenLineage's naming rules (namespace + name), with two rules of our own:

- The warehouse's namespace and database are fixed once, in ``lineage.identity``: the embedded server has no
  host and port, and a server that moves must not turn one graph into two.
- A silo's *feed* is the dataset and a delivery is a version of it. Its name says whose it is and what it
  carries, never where it is fetched from: a drop folder, a host or a token may change without the feed
  becoming another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

FILES = "file"
"""Namespace of files, as OpenLineage names the local file system; ours are never absolute paths."""

_RELEASE = "release:"
_RELEASES = "releases/"


class DatasetName(NamedTuple):
    """A dataset as OpenLineage names it."""

    namespace: str
    name: str


class FeedKind(StrEnum):
    """How a silo hands its data over: the namespaces of feeds. A contract names its own feed."""

    FILE = "file"
    API = "api"
    POSTGRES = "postgres"
    MYSQL = "mysql"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which warehouse this is: the values of ``lineage.identity``."""

    namespace: str
    database: str

    @classmethod
    def from_rows(cls, rows: Mapping[str, str]) -> Identity:
        """From the key and value pairs of ``lineage.identity``.

        Where they name no database, it is the one that is connected to (``current_database``), as it is for
        the function that records writes.
        """
        return cls(rows["warehouse_namespace"], rows.get("warehouse_database") or rows["current_database"])

    def table(self, target: str) -> DatasetName:
        """The dataset for ``schema.table``."""
        return DatasetName(self.namespace, f"{self.database}.{target}")

    def of_target(self, target: str) -> DatasetName:
        """The dataset for a ``lineage.write.target``: ``schema.table`` or ``release:<publication>``."""
        if target.startswith(_RELEASE):
            return release(target.removeprefix(_RELEASE))
        return self.table(target)

    def target(self, dataset: DatasetName) -> str | None:
        """The ``lineage.write.target`` that writes this dataset; None for feeds and what others own."""
        if dataset.namespace == self.namespace and dataset.name.startswith(f"{self.database}."):
            return dataset.name.removeprefix(f"{self.database}.")
        if is_release(dataset):
            return _RELEASE + dataset.name.removeprefix(_RELEASES)
        return None

    def canonical(self, namespace: str | None, name: str) -> DatasetName:
        """The dataset for an element of ``lineage.write.inputs``, or of another system's event.

        Without a namespace, the name is a write's target. Within ours, ``schema.table`` is understood as well
        as ``database.schema.table``: what a hand-written record abbreviates must not split the graph.
        """
        if not namespace:
            return self.of_target(name)
        if namespace != self.namespace and _same_server(namespace, self.namespace):
            namespace = self.namespace
        if namespace == self.namespace and name.count(".") == 1:
            return self.table(name)
        return DatasetName(namespace, name)


def _same_server(one: str, other: str) -> bool:
    """Whether two namespaces are one PostgreSQL server, which other systems write with other words for the scheme, capital
    letters, an account or without the usual port."""
    if not one.lower().startswith(("postgres://", "postgresql://")):
        return False
    try:
        parts = [urlsplit(namespace) for namespace in (one, other)]
        servers = {((part.hostname or "").lower(), part.port or 5432) for part in parts}
    except ValueError:
        return False
    return len(servers) == 1 and other.startswith("postgres://")


def release(publication: str) -> DatasetName:
    """What a publication puts out; a release is a version of it."""
    return DatasetName(FILES, _RELEASES + publication)


def release_target(publication: str) -> str:
    """The ``lineage.write.target`` of a publication's releases."""
    return _RELEASE + publication


def is_release(dataset: DatasetName) -> bool:
    """Whether the dataset is a publication's output."""
    return dataset.namespace == FILES and dataset.name.startswith(_RELEASES)


def is_project_file(dataset: DatasetName) -> bool:
    """Whether the dataset is a file of the dbt project, which a seed is made of: nobody delivers it."""
    return dataset.namespace == FILES and dataset.name.startswith("dbt_project/")


def without_credentials(location: str) -> str:
    """A location as it may be told to others: user, password, query and fragment are removed from a URL."""
    parts = urlsplit(location)
    if not parts.scheme or "://" not in location:
        return location
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
