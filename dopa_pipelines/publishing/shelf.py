"""What lies released: the releases of a publication and their files, as a reader finds them.

Only reading what is finished belongs here; making a release and moving ``latest`` is :mod:`.releases`. Nothing is served that the
release's own manifest does not list, so no path that somebody makes up leads anywhere else. Imports neither Polars nor Arrow.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

LATEST, TOMBSTONE, ERRATUM = "latest", "WITHDRAWN.json", "ERRATUM.json"
_MANIFEST, _CHECKSUMS = "release.json", "checksums.sha256"
_PUBLICATION = re.compile(r"[a-z][a-z0-9_]*")
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{8,64}")
_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".geojson": "application/geo+json",
    ".json": "application/json",
    ".jsonld": "application/ld+json",
    ".parquet": "application/vnd.apache.parquet",
    ".sha256": "text/plain",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


@dataclass(frozen=True)
class ReleasedFile:
    """A file of a release. ``is_data``: it holds the rows; the others describe them."""

    path: Path
    bytes: int
    sha256: str
    media_type: str
    is_data: bool

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class ShelvedRelease:
    """A finished release. ``created``: ISO 8601; ``rows``: of each of its data files; ``told``: its manifest, so what was known
    when it was made: quality, approval, exceptions, disclosure control. ``errata``: what links it with another release."""

    publication: str
    version: str
    created: str
    rows: int
    files: tuple[ReleasedFile, ...]
    columns: tuple[dict[str, Any], ...]
    told: Mapping[str, Any] = field(default_factory=dict)
    errata: tuple[dict[str, Any], ...] = ()

    @property
    def score(self) -> float | None:
        """The quality, of 100, of the data that it was made of."""
        found = (self.told.get("quality") or {}).get("score")
        return float(found) if isinstance(found, int | float) else None

    @property
    def exceptions(self) -> list[dict[str, Any]]:
        """Columns that went out by an exception of the gate."""
        return [item for item in self.told.get("exceptions") or () if isinstance(item, dict)]

    def file(self, name: str) -> ReleasedFile | None:
        return next((file for file in self.files if file.name == name), None)


@dataclass(frozen=True)
class Tombstone:
    """What stays of a release that was withdrawn: why, by whom, when, which release is out instead, and how a copy of what was
    withdrawn is known (``was``)."""

    publication: str
    version: str
    file: ReleasedFile
    why: str
    by: str
    at: str
    replaced_by: str | None
    was: Mapping[str, Any]


def publications_released(folder: Path) -> list[str]:
    """Publications below ``folder``, the folder of all releases, that were released at least once, by name."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if releases_of(folder, path.name) or withdrawn_of(folder, path.name))


def releases_of(folder: Path, publication: str) -> list[ShelvedRelease]:
    """The finished releases of a publication, the newest first; none where nothing of that name was released."""
    found = [release for version in _versions(folder, publication) if (release := read_release(folder, publication, version))]
    return sorted(found, key=lambda release: (release.created, release.version), reverse=True)


def withdrawn_of(folder: Path, publication: str) -> list[Tombstone]:
    """The tombstones of a publication's releases, the last withdrawn first."""
    found = [stone for version in _versions(folder, publication) if (stone := read_tombstone(folder, publication, version))]
    return sorted(found, key=lambda stone: (stone.at, stone.version), reverse=True)


def _versions(folder: Path, publication: str) -> list[str]:
    if not _PUBLICATION.fullmatch(publication) or not (folder / publication).is_dir():
        return []
    return [path.name for path in (folder / publication).iterdir() if _VERSION.fullmatch(path.name)]


def latest_version(folder: Path, publication: str) -> str | None:
    """The version that is out. Ask once and read that: ``latest`` may move at any moment."""
    if not _PUBLICATION.fullmatch(publication):
        return None
    try:
        named = str((folder / publication / LATEST).readlink())
    except OSError:
        return None
    return named if _VERSION.fullmatch(named) else None


def read_release(folder: Path, publication: str, version: str) -> ShelvedRelease | None:
    """A release by its version, or ``latest``; None where there is no finished one of that name."""
    if version == LATEST:
        found = latest_version(folder, publication)
        return read_release(folder, publication, found) if found else None
    if not _PUBLICATION.fullmatch(publication) or not _VERSION.fullmatch(version):
        return None
    path = folder / publication / version
    try:
        # A finished release never changes but for its erratum; one that was put back from a backup has another time.
        return _read(path, (path / _MANIFEST).stat().st_mtime_ns, _changed(path / ERRATUM))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_tombstone(folder: Path, publication: str, version: str) -> Tombstone | None:
    """What stays of a withdrawn release, by its version or ``latest``; None where no such release was withdrawn."""
    if version == LATEST:
        found = latest_version(folder, publication)
        return read_tombstone(folder, publication, found) if found else None
    if not _PUBLICATION.fullmatch(publication) or not _VERSION.fullmatch(version):
        return None
    path = folder / publication / version / TOMBSTONE
    try:
        content = path.read_bytes()
        told = json.loads(content)
        file = ReleasedFile(path, len(content), hashlib.sha256(content).hexdigest(), _media_type(path.name), False)
        replaced = told.get("replaced_by")
        return Tombstone(
            publication, version, file, str(told["why"]), str(told["by"]), str(told["at"]),
            replaced if isinstance(replaced, str) and _VERSION.fullmatch(replaced) else None, told.get("was") or {},
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@lru_cache(maxsize=512)
def _read(path: Path, changed: int, erratum: int) -> ShelvedRelease:
    manifest = json.loads((path / _MANIFEST).read_bytes())
    try:
        resources = json.loads((path / "datapackage.json").read_bytes())["resources"]
    except FileNotFoundError:
        resources = []
    data = {item["path"]: str(item.get("mediatype") or "") for item in resources}
    listed = [(item["name"], item["bytes"], item["sha256"]) for item in manifest["files"]]
    for name in (_CHECKSUMS, _MANIFEST, ERRATUM):  # these list the others, and not themselves; an erratum comes later
        if (path / name).is_file() and name not in {item[0] for item in listed}:
            content = (path / name).read_bytes()
            listed.append((name, len(content), hashlib.sha256(content).hexdigest()))
    files = tuple(
        ReleasedFile(path / name, size, digest, data.get(name) or _media_type(name), name in data)
        for name, size, digest in listed
        if Path(name).name == name and not name.startswith(".")
    )
    return ShelvedRelease(
        publication=path.parent.name,
        version=path.name,
        created=str(manifest["created"]),
        rows=int(manifest["rows"]),
        files=tuple(sorted(files, key=lambda file: (not file.is_data, file.name))),
        columns=tuple(manifest.get("columns") or ()),
        told=manifest,
        errata=tuple(json.loads((path / ERRATUM).read_bytes())["errata"]) if erratum else (),
    )


def _media_type(name: str) -> str:
    return _MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")
