"""Releases: how an extract goes out, whole or not at all.

``<releases>/<publication>/<version>/`` is an immutable folder; ``latest`` beside it is a relative link that
is moved by a rename. A reader that resolves ``latest`` once sees one whole release. The order of a publish is

1. write everything in a hidden folder ``.tmp-…``, and flush it to disk;
2. rename that to ``<version>``;
3. record the write in ``lineage.write`` and commit;
4. move ``latest``.

Whoever is killed in between leaves a state that :func:`recover`, which every publish begins with, brings to
its end: after 2 the record is made, after 3 ``latest`` is moved. The record decides what ``latest`` is.
Publishers of one publication take turns by a file lock. Clocks and ids of writes are in ``release.json``
only: the other files depend on data, publication and day.

What goes out is decided in the publication and its gate; the bytes of a format are :mod:`.writers`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
import psycopg
import pyarrow as pa
from psycopg.types.json import Jsonb

from dopa_pipelines.code import commit
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.naming import release_target
from dopa_pipelines.lineage.store import record_write
from dopa_pipelines.publishing.admission import admit
from dopa_pipelines.publishing.describe import (
    WrittenFile,
    as_json,
    data_dictionary,
    data_package,
    dated,
    metadata,
)
from dopa_pipelines.publishing.lineage import tell
from dopa_pipelines.publishing.publication import TIMEZONE, Publication, canonical_json
from dopa_pipelines.publishing.rows import Snapshot, snapshot
from dopa_pipelines.publishing.writers import WRITERS, Writer
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse
from dopa_pipelines.warehouse.work import Work

LATEST = "latest"
_MANIFEST = "release.json"
_UNCHANGED = "publication unchanged"
_CHECKSUMS = "checksums.sha256"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Release:
    """What a publish ended with; ``unchanged``: the latest release, left as it was. ``seconds`` is wall
    time."""

    publication: str
    version: str
    path: Path
    rows: int
    files: tuple[str, ...]
    status: Literal["released", "unchanged"]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "publication": self.publication,
            "version": self.version,
            "path": str(self.path),
            "rows": self.rows,
            "files": list(self.files),
            "status": self.status,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class _Record:
    """A release as ``lineage.write`` has it; ``current`` unless a newer one was out when it was recorded."""

    version: str
    digest: str
    current: bool


def publish(warehouse: Warehouse, settings: Settings, publication: Publication, run_id: str) -> Release:
    """Release the publication as its source is now, or find that nothing changed since the latest release.

    Raises :class:`UserError` where the source isn't what the publication says, or nothing can be written.
    """
    began = time.perf_counter()
    folder = settings.releases_path / publication.name
    # The head that its manifest carries is to cover the writes that it is made of. Where the anchor's own file cannot be written,
    # the seals are there all the same, and who tells at the end complains of it.
    with contextlib.suppress(UserError):
        tell(warehouse, settings, seconds=0)
    with Work(
        warehouse,
        "release",
        release_target(publication.name),
        run_id=run_id,
        inputs=[{"name": publication.source}],
        detail=_described(publication),
    ) as work:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _turn(folder), warehouse.connect(Role.LOADER) as ledger:
                _recover(ledger, warehouse.cluster, folder, run_id)
                temporary = folder / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
                try:
                    with snapshot(warehouse, publication) as source:
                        verdict = admit(source)
                        manifest = _prepare(temporary, publication, source, warehouse.cluster) | {"gate": verdict.as_json()}
                    version, status = _settle(ledger, folder, temporary, publication, manifest, run_id, work.id)
                    if status == "unchanged":
                        _note_unchanged(ledger, manifest, run_id)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise UserError(_no_writing(publication.name, folder, error)) from error
    path = folder / version
    files = tuple(sorted(entry.name for entry in path.iterdir()))
    return Release(publication.name, version, path, manifest["rows"], files, status, time.perf_counter() - began)


def _described(publication: Publication) -> dict[str, Any]:
    """What events tell of the publication."""
    return {
        "documentation": f"{publication.title_th} / {publication.title_en}",
        "owners": [{"name": f"team:{publication.contact.name}", "type": "contact"}],
        "formats": list(publication.formats),
        "code": {"checksum": publication.checksum, "path": f"assets/open_data/{publication.name}.yaml"},
    }


def seen_writes(ledger: psycopg.Connection, settings: Settings, publication: Publication) -> int:
    """The latest write of the publication's source that it was released from, or compared with and found unchanged; 0 for none.

    Only the publication as it is now counts: another edition of its file would release something else.
    """
    manifest_file = settings.releases_path / publication.name / LATEST / _MANIFEST
    if not manifest_file.exists():
        return 0
    manifest = json.loads(manifest_file.read_text("utf-8"))
    released = manifest["source_writes"] if manifest["publication_checksum"] == publication.checksum else []
    row = ledger.execute(
        "select max((note ->> 'source_write')::bigint) from ops.run_note"
        " where kind = %s and note ->> 'publication' = %s and note ->> 'checksum' = %s",
        (_UNCHANGED, publication.name, publication.checksum),
    ).fetchone()
    return int(max([0, *released, row[0] if row and row[0] else 0]))


def _note_unchanged(ledger: psycopg.Connection, manifest: dict[str, Any], run_id: str) -> None:
    note = {
        "publication": manifest["publication"],
        "checksum": manifest["publication_checksum"],
        "source_write": max(manifest["source_writes"], default=0),
    }
    ledger.execute("insert into ops.run_note (run_id, kind, note) values (%s, %s, %s)", (run_id, _UNCHANGED, Jsonb(note)))
    ledger.commit()


def recover(warehouse: Warehouse, settings: Settings, publication: str, run_id: str) -> list[str]:
    """Bring what a killed publisher left to its end; says what was done, usually nothing."""
    folder = settings.releases_path / publication
    if not folder.is_dir():
        return []
    with _turn(folder), warehouse.connect(Role.LOADER) as ledger:
        return _recover(ledger, warehouse.cluster, folder, run_id)


def _prepare(temporary: Path, publication: Publication, source: Snapshot, cluster: str) -> dict[str, Any]:
    """Write the files that don't name the version; returns what the manifest says but for version and
    files."""
    temporary.mkdir()
    data, rows = _write_data(temporary, publication, source)
    described, packaged = metadata(publication), data_package(publication, data)
    dictionary = data_dictionary(publication)
    now = datetime.now(ZoneInfo(TIMEZONE))
    facts = {
        "files": {file.name: file.sha256 for file in data.values()},
        "dictionary": hashlib.sha256(dictionary).hexdigest(),
        "metadata": described,
        "package": packaged,
    }
    digest = hashlib.sha256(canonical_json(facts)).hexdigest()
    _write(temporary / "data_dictionary.csv", dictionary)
    _write(temporary / "metadata.json", as_json(dated(described, now.date())))
    return {
        "publication": publication.name,
        "publication_version": publication.version,
        "publication_checksum": publication.checksum,
        "created": now.isoformat(timespec="seconds"),
        "cluster": cluster,
        "source": publication.source,
        "source_writes": source.writes,
        # Whoever holds the release can show that what was recorded until then is still there.
        "lineage": source.head.as_json() if source.head else None,
        "columns": [
            {
                "name": column.name,
                "type": column.type,
                "source": column.source,
                "description": f"{column.description_en} / {column.description_th}",
            }
            for column in publication.columns
        ],
        "rows": rows,
        "digest": digest,
        "package": packaged,
    }


def _write_data(folder: Path, publication: Publication, source: Snapshot) -> tuple[dict[str, WrittenFile], int]:
    """Stream the rows into every format at once; (file by format, rows)."""
    rows = 0
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(_writer(folder / f"{publication.name}.{form}", form, source.schema))
            for form in publication.formats
        ]
        for table in source.batches():
            frame = pl.DataFrame(pl.from_arrow(table))
            for writer in writers:
                writer.write(table, frame)
            rows += table.num_rows
    return {form: _measure(folder / f"{publication.name}.{form}") for form in publication.formats}, rows


@contextlib.contextmanager
def _writer(path: Path, form: str, schema: pa.Schema) -> Iterator[Writer]:
    """A writer whose file is ended, and on disk, at the end."""
    with path.open("wb", buffering=_BLOCK) as file:
        writer = WRITERS[form](file, schema)
        try:
            yield writer
        finally:
            writer.close()
        file.flush()
        os.fsync(file.fileno())


def _settle(
    ledger: psycopg.Connection,
    folder: Path,
    temporary: Path,
    publication: Publication,
    manifest: dict[str, Any],
    run_id: str,
    work: str,
) -> tuple[str, Literal["released", "unchanged"]]:
    """Make the prepared folder the latest release, unless the latest has the same content already."""
    digest = manifest["digest"]
    current = _current(_records(ledger, publication.name))
    out = current.version if current else _link(folder)
    if out and (folder / out).is_dir() and _manifest(folder / out).get("digest") == digest:
        _verify(folder / out)
        if current is None:  # released from another warehouse: this one has no record of it
            _record(ledger, folder / out, manifest, run_id, {"adopted": True, "work": work})
        _point(folder, out)
        return out, "unchanged"
    version = _free_version(folder, manifest["created"][:10], digest)
    if (folder / version).exists():
        # The content of earlier today is back, after another went out in between.
        _verify(folder / version)
        _record(ledger, folder / version, manifest, run_id, {"again": True, "work": work})
    else:
        _finish(temporary, manifest, version)
        temporary.rename(folder / version)
        _flush_folder(folder)
        _record(ledger, folder / version, manifest, run_id, {"work": work})
    _point(folder, version)
    return version, "released"


def _finish(temporary: Path, manifest: dict[str, Any], version: str) -> None:
    """Write what carries the version, then checksums; everything is on disk and read-only afterwards."""
    package = {**manifest.pop("package"), "version": version}
    _write(temporary / "datapackage.json", as_json(package))
    files = [_measure(path) for path in sorted(temporary.iterdir())]
    _write(temporary / _CHECKSUMS, "".join(f"{file.sha256}  {file.name}\n" for file in files).encode())
    listed = [{"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in files]
    _write(temporary / _MANIFEST, as_json({"version": version, **manifest, "files": listed}))
    for path in temporary.iterdir():
        path.chmod(0o444)
    _flush_folder(temporary)


def _free_version(folder: Path, day: str, digest: str) -> str:
    """Day and the start of the digest; more of it where another content has the same start."""
    for length in (8, 16, 64):
        version = f"{day}-{digest[:length]}"
        if not (folder / version).exists() or _manifest(folder / version).get("digest") == digest:
            return version
    raise UserError(f"The folder {folder / version} is not the release that it is named after; move it away.")


# Recovery


def _recover(ledger: psycopg.Connection, cluster: str, folder: Path, run_id: str) -> list[str]:
    """See :func:`recover`. Under the lock, so every temporary thing here is a dead publisher's."""
    done: list[str] = []
    for path in folder.iterdir():
        if path.name.startswith(".tmp-") and path.is_dir():
            shutil.rmtree(path)
            done.append(f"removed the unfinished {path.name}")
        elif path.name.startswith(f".{LATEST}-"):
            path.unlink()
    records = _records(ledger, folder.name)
    known = {record.version for record in records}
    for path, manifest in _unrecorded(folder, known, cluster):
        current = _current(records)
        newest = _manifest(folder / current.version).get("created", "") if current else ""
        # Older than what is out: it went out once, and its record was lost with a restored backup.
        behind = {"superseded": True} if manifest["created"] < newest else {}
        _record(ledger, path, manifest, run_id, {"recovered": True, **behind})
        records = _records(ledger, folder.name)
        done.append(f"recorded the release {path.name}")
    current = _current(records)
    if current and (folder / current.version).is_dir() and _link(folder) != current.version:
        _point(folder, current.version)
        done.append(f"moved {LATEST} to {current.version}")
    return done


def _unrecorded(folder: Path, known: set[str], cluster: str) -> list[tuple[Path, dict[str, Any]]]:
    """Finished folders of this warehouse without a record, oldest first; another warehouse's are left
    alone."""
    found = []
    for path in folder.iterdir():
        if path.name.startswith(".") or path.is_symlink() or not path.is_dir() or path.name in known:
            continue
        manifest = _manifest(path)
        if manifest.get("cluster") == cluster:
            _verify(path)
            found.append((path, manifest))
    return sorted(found, key=lambda pair: pair[1]["created"])


def _records(ledger: psycopg.Connection, publication: str) -> list[_Record]:
    """Releases of the publication as recorded, oldest first."""
    rows = ledger.execute(
        "select detail ->> 'version', detail ->> 'digest', "
        "not coalesce((detail ->> 'superseded')::boolean, false) "
        "from lineage.write where kind = 'release' and target = %s order by id",
        [release_target(publication)],
    ).fetchall()
    ledger.commit()
    return [_Record(*row) for row in rows]


def _current(records: list[_Record]) -> _Record | None:
    return next((record for record in reversed(records) if record.current), None)


def _record(ledger: psycopg.Connection, path: Path, manifest: dict[str, Any], run_id: str, notes: dict[str, Any]) -> None:
    """Record the release at ``path`` as a write, and commit. The input is the write that its snapshot saw."""
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
    ledger.commit()


# Files


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """This publication's turn: waits for one that is at work; the kernel ends the turn of one that dies."""
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _link(folder: Path) -> str | None:
    """The version that ``latest`` names."""
    latest = folder / LATEST
    return str(latest.readlink()) if latest.is_symlink() else None


def _point(folder: Path, version: str) -> None:
    """Move ``latest`` in one step: a reader sees the old or the new, never neither."""
    if _link(folder) == version:
        return
    if (folder / LATEST).is_dir() and not (folder / LATEST).is_symlink():
        raise UserError(f"{folder / LATEST} is a folder and must be a link; move it away and publish again.")
    fresh = folder / f".{LATEST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    fresh.symlink_to(version)
    fresh.replace(folder / LATEST)
    _flush_folder(folder)


def _manifest(path: Path) -> dict[str, Any]:
    """``release.json`` of a release; empty where it isn't a release of ours."""
    try:
        read: dict[str, Any] = json.loads((path / _MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return read


def _verify(path: Path) -> None:
    """Refuse a release whose files are no longer those that were written."""
    for entry in _manifest(path)["files"]:
        file = path / entry["name"]
        if not file.is_file() or _measure(file).sha256 != entry["sha256"]:
            raise UserError(
                f"{file} is gone or was changed after its release, which may not be: put the file back, "
                f"or remove the folder {path.name} and publish again."
            )


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _measure(path: Path) -> WrittenFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WrittenFile(path.name, path.stat().st_size, digest)


def _flush_folder(folder: Path) -> None:
    """Names, too, must survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_writing(name: str, folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk of {folder} is full, so {name} was not released; make room and publish again."
    return f"{name} was not released: {folder} cannot be written ({error.strerror or error})."
