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
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
import psycopg
import pyarrow as pa
import pyarrow.compute as compute
from psycopg.types.json import Jsonb

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.naming import release_target
from dopa_pipelines.publishing import changes
from dopa_pipelines.publishing.admission import admit
from dopa_pipelines.publishing.dcat import dcat
from dopa_pipelines.publishing.describe import (
    as_json,
    data_dictionary,
    data_package,
    dated,
    dictionary_rows,
    metadata,
)
from dopa_pipelines.publishing.folders import (
    LATEST,
    MANIFEST,
    WrittenFile,
    flush_folder,
    latest_of,
    manifest_of,
    measure,
    no_writing,
    point,
    turn,
    verify,
    write_file,
)
from dopa_pipelines.publishing.held import HeldBack, Reason, note_held_back, note_passed
from dopa_pipelines.publishing.ledger import history, record
from dopa_pipelines.publishing.lineage import tell
from dopa_pipelines.publishing.publication import GEOMETRY, TIMEZONE, Publication, RecordLevel, canonical_json, load_publications
from dopa_pipelines.publishing.readiness import Quality, readiness
from dopa_pipelines.publishing.rows import BATCH_ROWS, Snapshot, snapshot
from dopa_pipelines.publishing.tombstones import follow
from dopa_pipelines.publishing.writers import WRITERS, Style, Writer
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse
from dopa_pipelines.warehouse.work import Work

_UNCHANGED = "publication unchanged"
_CHECKSUMS = "checksums.sha256"
_CHANGES = "changes.json"


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
class _Prepared:
    """A release but for its version: the manifest so far, the data files by format, and the days that the data is of."""

    manifest: dict[str, Any]
    package: dict[str, Any]
    data: dict[str, WrittenFile]
    span: tuple[date, date] | None


def publish(warehouse: Warehouse, settings: Settings, publication: Publication, run_id: str, *, again: bool = False) -> Release:
    """Release the publication as its source is now, or find that nothing changed since the latest release.

    ``again``: also where the same content was withdrawn. Raises :class:`HeldBack` where a rule does not let it out (recorded, see
    :mod:`.held`), :class:`UserError` where the source isn't what the publication says, or nothing can be written.
    """
    began = time.perf_counter()
    folder = settings.releases_path / publication.name
    # The head that its manifest carries is to cover the writes that it is made of. Where the anchor's own file cannot be written,
    # the seals are there all the same, and who tells at the end complains of it.
    with contextlib.suppress(UserError):
        tell(warehouse, settings, seconds=0, comments=False)
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
            with _family_turn(settings, publication), turn(folder), warehouse.connect(Role.LOADER) as ledger:
                bring_to_its_end(ledger, warehouse.cluster, folder, run_id)
                relatives = _relatives(settings, publication)
                temporary = folder / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
                try:
                    with snapshot(warehouse, publication, relatives) as source:
                        verdict = admit(source)
                        quality = _approved(source, publication)
                        rows, protected = _protected(source, publication, relatives, settings)
                        prepared = _prepare(temporary, publication, source, rows, warehouse.cluster, quality, protected)
                        if publication.record_level:
                            prepared.manifest["record_level"] = _anonymous(source, publication.record_level)
                        prepared.manifest.update(gate=verdict.as_json(), exceptions=list(verdict.exceptions))
                    version, status = _settle(ledger, folder, temporary, publication, prepared, run_id, work.id, again)
                    if status == "unchanged":
                        _note_unchanged(ledger, prepared.manifest, run_id)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise UserError(no_writing(publication.name, folder, error)) from error
        except HeldBack as held:
            note_held_back(warehouse.ledger(), publication, held, run_id)
            raise
    note_passed(warehouse.ledger(), publication)
    path = folder / version
    files = tuple(sorted(entry.name for entry in path.iterdir()))
    return Release(publication.name, version, path, prepared.manifest["rows"], files, status, time.perf_counter() - began)


def _approved(source: Snapshot, publication: Publication) -> Quality:
    """The quality of the data, if it is approved. Raises :class:`HeldBack`."""
    reasons, quality = readiness(source.connection, publication)
    if reasons:
        raise HeldBack(publication.name, reasons)
    return quality


def _relatives(settings: Settings, publication: Publication) -> list[Publication]:
    """The other publications of its family."""
    if publication.disclosure is None:
        return []
    known = load_publications(settings.contracts / "open_data").publications
    return [
        other
        for other in known
        if other.name != publication.name and other.disclosure and other.disclosure.family == publication.disclosure.family
    ]


@contextlib.contextmanager
def _family_turn(settings: Settings, publication: Publication) -> Iterator[None]:
    """Publications of one family go out one after the other: each is protected against those that are out."""
    if publication.disclosure is None:
        yield
        return
    folder = settings.releases_path / f".family-{publication.disclosure.family}"
    folder.mkdir(exist_ok=True)
    with turn(folder):
        yield


def _protected(
    source: Snapshot, publication: Publication, relatives: list[Publication], settings: Settings
) -> tuple[Iterable[pa.Table], dict[str, Any] | None]:
    """The rows as they may go out, and what the release tells of their protection. Raises :class:`HeldBack` where an attack on
    them, and all that is out already, tells somebody."""
    if publication.disclosure is None:
        return source.batches(), None
    from dopa_pipelines.publishing.protection import Member, protect_extract, releases_of_family

    out = releases_of_family(settings.releases_path, publication.disclosure.family)
    others = []
    for other in relatives:
        beside = source.of(other) if other.disclosure else None
        if beside is not None and other.disclosure is not None:
            others.append(Member(other.name, other.disclosure, pl.DataFrame(pl.from_arrow(beside.whole()))))
    # Beside the releases, and never within one: it tells of cells that are not out yet.
    pattern = settings.releases_path / f".family-{publication.disclosure.family}" / "hidden.parquet"
    hint = None
    # One that is lost or damaged is found anew.
    with contextlib.suppress(OSError, pl.exceptions.PolarsError):
        hint = pl.read_parquet(pattern)
    extract = protect_extract(publication, pl.DataFrame(pl.from_arrow(source.whole())), out, others, hint)
    if extract.disclosed:
        shown = "; ".join(extract.disclosed[:3])
        raise HeldBack(
            publication.name,
            [
                Reason(
                    "disclosure",
                    f"การควบคุมการเปิดเผยไม่ผ่านการตรวจสอบ: ยังคำนวณย้อนกลับได้ {len(extract.disclosed)} ช่อง ({shown})",
                    f"disclosure control does not hold: {len(extract.disclosed)} cells can be told ({shown})",
                )
            ],
        )
    if extract.pattern is not None:
        partial = pattern.with_suffix(".part")
        extract.pattern.write_parquet(partial)
        partial.replace(pattern)
    return _in_batches(extract.frame.to_arrow(), source.published_schema), extract.facts


def _anonymous(source: Snapshot, rule: RecordLevel) -> dict[str, Any]:
    """How anonymous rows of persons or things are. Raises :class:`HeldBack` where they are less so than the rule says."""
    from dopa_pipelines.publishing.record_level import check

    try:
        found = check(pl.DataFrame(pl.from_arrow(source.whole())), rule)
    except UserError as error:
        reason = Reason("record_level", f"ข้อมูลรายบุคคลไม่ผ่าน k-anonymity หรือ l-diversity ที่กำหนด: {error}", str(error))
        raise HeldBack(source.publication.name, [reason]) from error
    return {"rule": rule.model_dump(mode="json", by_alias=True), "k": found.k, "l": found.l, "rows": found.rows}


def _in_batches(table: pa.Table, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows as they would have come from the source."""
    whole = table.select(schema.names).cast(schema)
    for start in range(0, whole.num_rows, BATCH_ROWS):
        yield whole.slice(start, BATCH_ROWS).combine_chunks()


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
    folder = settings.releases_path / publication.name
    # None where nothing was released, or the latest was withdrawn and left a tombstone.
    manifest = manifest_of(folder / LATEST)
    released = manifest["source_writes"] if manifest.get("publication_checksum") == publication.checksum else []
    if not (folder / LATEST).exists():
        return 0
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
    with turn(folder), warehouse.connect(Role.LOADER) as ledger:
        return bring_to_its_end(ledger, warehouse.cluster, folder, run_id)


def _prepare(
    temporary: Path,
    publication: Publication,
    source: Snapshot,
    rows: Iterable[pa.Table],
    cluster: str,
    quality: Quality,
    protected: dict[str, Any] | None = None,
) -> _Prepared:
    """Write the files that don't name the version. ``rows``: those of ``source``, or what disclosure control made of them."""
    temporary.mkdir()
    data, seen = _write_data(temporary, publication, source.published_schema, rows)
    described, packaged = metadata(publication), data_package(publication, data, keyed=seen.keyed)
    dictionary = data_dictionary(publication)
    now = datetime.now(ZoneInfo(TIMEZONE))
    facts = {
        "files": {file.name: file.sha256 for file in data.values()},
        "dictionary": hashlib.sha256(dictionary).hexdigest(),
        "metadata": described,
        "package": packaged,
    }
    digest = hashlib.sha256(canonical_json(facts)).hexdigest()
    write_file(temporary / "data_dictionary.csv", dictionary)
    write_file(temporary / "metadata.json", as_json(dated(described, now.date())))
    columns = [
        {
            "name": column.name,
            "type": column.type,
            "source": column.source,
            "description": f"{column.description_en} / {column.description_th}",
        }
        for column in publication.columns
    ]
    if publication.geometry:
        columns.append({"name": GEOMETRY, "type": "string", "source": publication.geometry, "description": "GeoJSON"})
    manifest = {
        "publication": publication.name,
        "publication_version": publication.version,
        "publication_checksum": publication.checksum,
        "created": now.isoformat(timespec="seconds"),
        "cluster": cluster,
        "source": publication.source,
        "source_writes": source.writes,
        # Whoever holds the release can show that what was recorded until then is still there.
        "lineage": source.head.as_json() if source.head else None,
        "licence": publication.licence,
        "approval": publication.approval.model_dump(mode="json", by_alias=True),
        "quality": {"score": quality.score, "line": publication.quality_line, "datasets": quality.datasets},
        # What was done to protect people, and what was let out by exception: disclosure control and the gate tell it.
        "disclosure": protected,
        "exceptions": [],
        "columns": columns,
        "order": publication.order_by,
        "rows": seen.rows,
        "digest": digest,
    }
    return _Prepared(manifest, packaged, data, seen.span)


def _write_data(
    folder: Path, publication: Publication, schema: pa.Schema, rows: Iterable[pa.Table]
) -> tuple[dict[str, WrittenFile], _Seen]:
    """Stream the rows into every format at once; the files by format, and what was seen on the way."""
    style = Style(excel=publication.excel, dictionary=dictionary_rows(publication))
    seen = _Seen(publication.order_by, schema)
    writers: dict[str, Writer] = {}
    try:
        for form in publication.formats:
            writers[form] = WRITERS[form](folder / f"{publication.name}.{form}", schema, style)
        for table in rows:
            frame = pl.DataFrame(pl.from_arrow(table))
            for writer in writers.values():
                writer.write(table, frame)
            seen.look(table, frame)
        return {form: writers.pop(form).close() for form in publication.formats}, seen
    finally:
        for writer in writers.values():
            writer.abandon()


class _Seen:
    """What is noticed of rows that pass in the order of ``order``: how many there are, whether those columns are a key, and the
    first and last day of the first of them that holds days."""

    def __init__(self, order: list[str], schema: pa.Schema) -> None:
        self.rows = 0
        self.keyed = True
        self.span: tuple[date, date] | None = None
        self._order = order
        self._days = next((name for name in order if schema.field(name).type == pa.date32()), None)
        self._last: tuple[Any, ...] | None = None

    def look(self, table: pa.Table, frame: pl.DataFrame) -> None:
        self.rows += frame.height
        key = frame.select(self._order)
        if self.keyed:
            # In order, so that those of one key stand together.
            repeated = pl.all_horizontal(pl.all().eq_missing(pl.all().shift(1))).slice(1).any()
            absent = pl.any_horizontal(pl.all().is_null().any())
            self.keyed = self._last != key.row(0) and not any(key.select(repeated.alias("1"), absent.alias("2")).row(0))
            self._last = key.row(-1)
        if self._days and (ends := compute.min_max(table[self._days]).as_py())["min"] is not None:
            first, last = self.span or (ends["min"], ends["max"])
            self.span = (min(first, ends["min"]), max(last, ends["max"]))


def _settle(
    ledger: psycopg.Connection,
    folder: Path,
    temporary: Path,
    publication: Publication,
    prepared: _Prepared,
    run_id: str,
    work: str,
    again: bool,
) -> tuple[str, Literal["released", "unchanged"]]:
    """Make the prepared folder the latest release, unless the latest has the same content already."""
    manifest = prepared.manifest
    digest = manifest["digest"]
    known = history(ledger, publication.name)
    current = known.current
    out = current.version if current else latest_of(folder)
    if out and (folder / out).is_dir() and manifest_of(folder / out).get("digest") == digest:
        verify(folder / out)
        if current is None:  # released from another warehouse: this one has no record of it
            record(ledger, folder / out, manifest, run_id, {"adopted": True, "work": work})
        point(folder, out)
        return out, "unchanged"
    if known.is_withdrawn(digest) and not again:
        # Seen, so that nobody tries again and again until something changes.
        _note_unchanged(ledger, manifest, run_id)
        raise HeldBack(publication.name, [_WITHDRAWN])
    version = _free_version(folder, manifest["created"][:10], digest)
    if (folder / version).exists():
        # The content of earlier today is back, after another went out in between.
        verify(folder / version)
        record(ledger, folder / version, manifest, run_id, {"again": True, "work": work})
    else:
        _finish(temporary, folder, publication, prepared, version, out)
        temporary.rename(folder / version)
        flush_folder(folder)
        record(ledger, folder / version, manifest, run_id, {"work": work})
    point(folder, version)
    return version, "released"


_WITHDRAWN = Reason(
    "withdrawn",
    "ข้อมูลเหมือนกับฉบับที่ถอนไปแล้ว ต้องแก้ไขข้อมูลก่อน หรือใช้ `dopa publish --again` หากตั้งใจเผยแพร่อีกครั้ง",
    "this very content was withdrawn; repair the data, or release it all the same with `dopa publish --again`",
)


def _finish(
    temporary: Path, folder: Path, publication: Publication, prepared: _Prepared, version: str, previous: str | None
) -> None:
    """Write what carries the version, then checksums; everything is on disk and read-only afterwards."""
    manifest = {"version": version, **prepared.manifest}
    before = manifest_of(folder / previous) if previous else {}
    if before:
        told = changes.describe(before, manifest, folder / before["version"], temporary, publication.order_by)
        write_file(temporary / _CHANGES, as_json(told))
    day = date.fromisoformat(manifest["created"][:10])
    described = dcat(publication, prepared.data, version=version, day=day, span=prepared.span, previous=before.get("version"))
    write_file(temporary / "dcat.jsonld", as_json(described))
    write_file(temporary / "datapackage.json", as_json({**prepared.package, "version": version}))
    written = {file.name: file for file in prepared.data.values()}
    files = [written.get(path.name) or measure(path) for path in sorted(temporary.iterdir())]
    write_file(temporary / _CHECKSUMS, "".join(f"{file.sha256}  {file.name}\n" for file in files).encode())
    listed = [{"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in files]
    write_file(temporary / MANIFEST, as_json({**manifest, "files": listed}))
    for path in temporary.iterdir():
        path.chmod(0o444)
    flush_folder(temporary)


def _free_version(folder: Path, day: str, digest: str) -> str:
    """Day and the start of the digest; more of it where another content has the same start."""
    for length in (8, 16, 32, 64):
        version = f"{day}-{digest[:length]}"
        if not (folder / version).exists() or manifest_of(folder / version).get("digest") == digest:
            return version
    raise UserError(f"The folder {folder / version} is not the release that it is named after; move it away.")


# Recovery


def bring_to_its_end(ledger: psycopg.Connection, cluster: str, folder: Path, run_id: str) -> list[str]:
    """See :func:`recover`. Under the lock, so every temporary thing here is a dead publisher's."""
    done: list[str] = []
    for path in folder.iterdir():
        if path.name.startswith(".tmp-") and path.is_dir():
            shutil.rmtree(path)
            done.append(f"removed the unfinished {path.name}")
        elif path.name.startswith(f".{LATEST}-"):
            path.unlink()
    known = history(ledger, folder.name)
    for path, manifest in _unrecorded(folder, set(known.versions), cluster):
        current = known.current
        newest = manifest_of(folder / current.version).get("created", "") if current else ""
        # Older than what is out: it went out once, and its record was lost with a restored backup.
        behind = {"superseded": True} if manifest["created"] < newest else {}
        record(ledger, path, manifest, run_id, {"recovered": True, **behind})
        known = history(ledger, folder.name)
        done.append(f"recorded the release {path.name}")
    return done + follow(folder, known)


def _unrecorded(folder: Path, known: set[str], cluster: str) -> list[tuple[Path, dict[str, Any]]]:
    """Finished folders of this warehouse without a record, oldest first; another warehouse's are left
    alone."""
    found = []
    for path in folder.iterdir():
        if path.name.startswith(".") or path.is_symlink() or not path.is_dir() or path.name in known:
            continue
        manifest = manifest_of(path)
        if manifest.get("cluster") == cluster:
            verify(path)
            found.append((path, manifest))
    return sorted(found, key=lambda pair: pair[1]["created"])
