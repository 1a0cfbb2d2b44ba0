"""Releases as ``lineage.write`` has them: the record decides what is out, what was withdrawn and what corrects what.

Folders and links follow the record (:mod:`.releases`, :mod:`.tombstones`); none of them belongs here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dopa_pipelines.code import commit
from dopa_pipelines.lineage.naming import release_target
from dopa_pipelines.lineage.store import record_write


@dataclass(frozen=True)
class Record:
    """A release as ``lineage.write`` has it; ``current`` unless a newer one was out when it was recorded. ``withdrawn``: why, by
    whom and when, where the record is that of a withdrawal; ``erratum``: what it corrects, where it is that of a correction."""

    version: str
    digest: str
    current: bool
    created: str
    rows: int
    withdrawn: dict[str, Any] | None = None
    erratum: dict[str, Any] | None = None


@dataclass(frozen=True)
class History:
    """All records of a publication's releases, oldest first."""

    records: tuple[Record, ...]

    @property
    def versions(self) -> dict[str, Record]:
        """The first record of each version, oldest first."""
        found: dict[str, Record] = {}
        for record in self.records:
            found.setdefault(record.version, record)
        return found

    @property
    def withdrawn(self) -> dict[str, dict[str, Any]]:
        """Versions that were withdrawn; they stay so."""
        return {record.version: record.withdrawn for record in self.records if record.withdrawn}

    @property
    def current(self) -> Record | None:
        """What is out: the last that was not withdrawn."""
        gone = self.withdrawn
        return next((record for record in reversed(self.records) if record.current and record.version not in gone), None)

    def is_withdrawn(self, digest: str) -> bool:
        """Whether the last that is known of this content is that it was withdrawn."""
        last = next((record for record in reversed(self.records) if record.digest == digest), None)
        return last is not None and last.version in self.withdrawn

    @property
    def errata(self) -> dict[str, list[dict[str, Any]]]:
        """By version, the errata that link it to another."""
        found: dict[str, list[dict[str, Any]]] = {}
        for record in self.records:
            if record.erratum:
                item = {"corrects": record.erratum["corrects"], "corrected_by": record.version, **record.erratum}
                for version in (record.erratum["corrects"], record.version):
                    found.setdefault(version, []).append(item)
        return found


def history(ledger: psycopg.Connection[Any], publication: str) -> History:
    """Releases of the publication as recorded."""
    rows = ledger.execute(
        "select detail ->> 'version', detail ->> 'digest', "
        "not coalesce((detail ->> 'superseded')::boolean, false), coalesce(detail ->> 'created', written_at::text), "
        "coalesce(rows_out, 0), detail -> 'withdrawn', detail -> 'erratum' "
        "from lineage.write where kind = 'release' and target = %s order by id",
        [release_target(publication)],
    ).fetchall()
    ledger.commit()
    return History(tuple(Record(*row) for row in rows))


def record(
    ledger: psycopg.Connection[Any],
    path: Path,
    manifest: Mapping[str, Any],
    run_id: str,
    notes: Mapping[str, Any],
    more: Iterable[tuple[Path, Mapping[str, Any], Mapping[str, Any]]] = (),
) -> None:
    """Record the release at ``path`` as a write, and commit. The input is the write that its snapshot saw. ``more``: others
    (path, manifest, notes) that are recorded in the same transaction."""
    for folder, told, noted in [(path, manifest, notes), *more]:
        _record(ledger, folder, told, run_id, noted)
    ledger.commit()


def _record(
    ledger: psycopg.Connection[Any], path: Path, manifest: Mapping[str, Any], run_id: str, notes: Mapping[str, Any]
) -> None:
    name = path.parent.name
    writes: list[int] = manifest["source_writes"]
    inputs: list[dict[str, object]] = [{"name": manifest["source"], "write": writes[-1] if writes else None}]
    detail = {
        "version": path.name,
        "digest": manifest["digest"],
        "folder": f"{name}/{path.name}",
        "rows": manifest["rows"],
        "created": manifest["created"],
        "columns": manifest.get("columns", []),
        **notes,
    }
    record_write(
        ledger,
        kind="release",
        target=release_target(name),
        run_id=run_id,
        code={"checksum": manifest["publication_checksum"], "path": f"assets/open_data/{name}.yaml", **commit()},
        version=manifest["publication_version"],
        inputs=inputs,
        rows_in=manifest["rows"],
        rows_out=manifest["rows"],
        detail=detail,
    )
