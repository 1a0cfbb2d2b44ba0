"""What stays of a release that was withdrawn, and the erratum beside one that was corrected: files that follow from the record.

That a release is withdrawn or corrected is decided in :mod:`.corrections` and recorded first; whoever is killed before the files
are as the record says leaves it to the next publish, which begins with :func:`follow`.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from dopa_pipelines.publishing.describe import as_json
from dopa_pipelines.publishing.folders import (
    ERRATUM,
    LATEST,
    MANIFEST,
    TOMBSTONE,
    flush_folder,
    latest_of,
    manifest_of,
    point,
    put,
    take_place,
    write_file,
)
from dopa_pipelines.publishing.ledger import History


def follow(folder: Path, known: History) -> list[str]:
    """Bring ``latest``, tombstones and errata to what the record says; says what was done, usually nothing. Under the
    publication's turn."""
    done: list[str] = []
    current = known.current
    if current and (folder / current.version).is_dir() and latest_of(folder) != current.version:
        point(folder, current.version)
        done.append(f"moved {LATEST} to {current.version}")
    for version, facts in known.withdrawn.items():
        if (folder / version / MANIFEST).exists() or not (folder / version).exists():
            _bury(folder, version, facts)
            done.append(f"withdrew {version}")
    for version, errata in known.errata.items():
        path = folder / version
        if not path.is_dir():
            continue
        for left in path.glob(f".{ERRATUM}-*"):
            left.unlink()
        content = as_json({"version": version, "errata": errata})
        if not (path / ERRATUM).exists() or (path / ERRATUM).read_bytes() != content:
            put(path / ERRATUM, content)
            done.append(f"wrote the erratum of {version}")
    return done


def _bury(folder: Path, version: str, facts: dict[str, Any]) -> None:
    """Put a tombstone in the place of a release."""
    was = manifest_of(folder / version)
    fresh = folder / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    fresh.mkdir()
    told = {
        "publication": folder.name,
        "version": version,
        **facts,
        # By which a copy of what was withdrawn is known; the data is gone.
        "was": {name: was.get(name) for name in ("created", "rows", "digest", "files")},
    }
    write_file(fresh / TOMBSTONE, as_json(told))
    (fresh / TOMBSTONE).chmod(0o444)
    flush_folder(fresh)
    if (folder / version).exists():
        take_place(fresh, folder / version)
    else:
        fresh.rename(folder / version)
        flush_folder(folder)
