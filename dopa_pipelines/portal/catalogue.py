"""What the catalogue lists: datasets as their contracts say, tables of models as the warehouse has them, publications.

Belongs here: gathering names, titles, classes and times. Does not belong here: pages (``app``), rows of any table.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dopa_pipelines.contracts import Contract, load_contracts
from dopa_pipelines.lineage.classes import Class, classes_of, most_protected, without_class
from dopa_pipelines.lineage.columntrace import Connection
from dopa_pipelines.lineage.store import identity
from dopa_pipelines.publishing import Publication, load_publications
from dopa_pipelines.publishing.shelf import (
    LATEST,
    ShelvedRelease,
    Tombstone,
    publications_released,
    read_release,
    releases_of,
    withdrawn_of,
)
from dopa_pipelines.settings import Settings


@dataclass(frozen=True)
class Table:
    """A table of the warehouse: who makes it, its number of columns, when it was last written; ``most``: the column that protects
    it most, None where that was not derived yet."""

    target: str
    kind: str
    columns: int
    description: str
    written_at: datetime | None
    most: Class | None = None

    @property
    def schema(self) -> str:
        return self.target.partition(".")[0]

    @property
    def description_en(self) -> str:
        """Descriptions of models have both languages, English first."""
        return self.description.partition(" / ")[0]

    @property
    def description_th(self) -> str:
        return self.description.partition(" / ")[2]


@dataclass(frozen=True)
class Extract:
    """A publication, and what is out of it.

    ``publication``: None where its file is gone and its releases are still there; ``releases``: the newest first; ``latest``: the
    one that is out; ``withdrawn``: what stays of those that were taken back.
    """

    name: str
    publication: Publication | None
    releases: tuple[ShelvedRelease, ...]
    latest: ShelvedRelease | None
    withdrawn: tuple[Tombstone, ...] = ()


class Declared:
    """Contracts and publications of the installation, read again when one of their files changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._mark: tuple[tuple[str, int, int], ...] | None = None
        self._contracts: tuple[Contract, ...] = ()
        self._publications: Mapping[str, Publication] = {}

    def contracts(self) -> tuple[Contract, ...]:
        """Those that are right, by bureau and name."""
        self._look()
        return self._contracts

    def by_dataset(self) -> dict[str, Contract]:
        """Contracts that are right, by dataset."""
        return {item.dataset: item for item in self.contracts()}

    def publications(self) -> Mapping[str, Publication]:
        """Those that are right, by name."""
        self._look()
        return self._publications

    def extracts(self) -> list[Extract]:
        """Every publication that is declared or was ever released, by name."""
        released = publications_released(self._settings.releases_path)
        return [extract for name in sorted({*self.publications(), *released}) if (extract := self.extract(name))]

    def extract(self, name: str) -> Extract | None:
        """A publication by its name; None where nothing is called so."""
        folder = self._settings.releases_path
        releases, withdrawn = tuple(releases_of(folder, name)), tuple(withdrawn_of(folder, name))
        publication = self.publications().get(name)
        if not (publication or releases or withdrawn):
            return None
        return Extract(name, publication, releases, read_release(folder, name, LATEST), withdrawn)

    def _look(self) -> None:
        folder = self._settings.contracts
        with self._lock:
            mark = tuple(_mark(path) for path in sorted(folder.glob("*/*.y*ml")))
            if mark != self._mark:
                self._contracts = tuple(sorted(load_contracts(folder), key=lambda item: (item.bureau, item.dataset)))
                found = load_publications(folder / "open_data").publications
                self._publications = {item.name: item for item in found}
                self._mark = mark


def _mark(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path), found.st_mtime_ns, found.st_size


# Descriptions come from the catalogue by name: to_regclass would need rights on schemas that the reader has none on.
_TABLES = """
with made as (
    select d.name, f.kind,
        (select count(*) from jsonb_array_elements(f.fields) c where c ->> 'name' not like '\\_%%') as columns
    from lineage.dataset d
    join lineage.definition f on f.dataset_id = d.id and f.valid_to = 'infinity'
    where f.kind in ('load', 'model') and d.namespace = %(namespace)s and starts_with(d.name, %(prefix)s)
), named as (
    select substr(name, length(%(prefix)s) + 1) as target, kind, columns from made
)
select n.target, n.kind, n.columns,
    coalesce((
        select pg_catalog.obj_description(c.oid, 'pg_class')
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace s on s.oid = c.relnamespace
        where s.nspname = split_part(n.target, '.', 1) and c.relname = split_part(n.target, '.', 2)
    ), '') as description,
    (
        select w.written_at from lineage.write w
        where w.target = n.target and w.environment = 'production' and w.kind in ('load', 'model')
        order by w.id desc limit 1
    ) as written_at
from named n
order by n.target
"""


def tables(conn: Connection) -> list[Table]:
    """The tables that deliveries or models make, by name."""
    named = identity(conn)
    rows = conn.execute(_TABLES, {"namespace": named.namespace, "prefix": f"{named.database}."}).fetchall()
    classes = classes_of(conn)
    return [
        Table(target, kind, columns, without_class(description), written_at, most_protected(classes.get(target, {}).values()))
        for target, kind, columns, description, written_at in rows
    ]
