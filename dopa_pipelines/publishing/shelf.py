"""What lies released: the releases of a publication and their files, as a reader finds them.

Only reading what is finished belongs here; making a release and moving ``latest`` is :mod:`.releases`. Nothing is served that the
release's own manifest does not list, so no path that somebody makes up leads anywhere else. Imports neither Polars nor Arrow.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

LATEST = "latest"
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
    """A finished release. ``created``: ISO 8601; ``rows``: of each of its data files."""

    publication: str
    version: str
    created: str
    rows: int
    files: tuple[ReleasedFile, ...]
    columns: tuple[dict[str, Any], ...]

    def file(self, name: str) -> ReleasedFile | None:
        return next((file for file in self.files if file.name == name), None)


def publications_released(folder: Path) -> list[str]:
    """Publications below ``folder``, the folder of all releases, that were released at least once, by name."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if releases_of(folder, path.name))


def releases_of(folder: Path, publication: str) -> list[ShelvedRelease]:
    """The finished releases of a publication, the newest first; none where nothing of that name was released."""
    if not _PUBLICATION.fullmatch(publication) or not (folder / publication).is_dir():
        return []
    versions = [path.name for path in (folder / publication).iterdir() if _VERSION.fullmatch(path.name)]
    found = [release for version in versions if (release := read_release(folder, publication, version))]
    return sorted(found, key=lambda release: (release.created, release.version), reverse=True)


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
        # A finished release never changes; one that was put back from a backup has another time.
        return _read(path, (path / _MANIFEST).stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=512)
def _read(path: Path, changed: int) -> ShelvedRelease:
    manifest = json.loads((path / _MANIFEST).read_bytes())
    try:
        resources = json.loads((path / "datapackage.json").read_bytes())["resources"]
    except FileNotFoundError:
        resources = []
    data = {item["path"]: str(item.get("mediatype") or "") for item in resources}
    listed = [(item["name"], item["bytes"], item["sha256"]) for item in manifest["files"]]
    for name in (_CHECKSUMS, _MANIFEST):  # these list the others, and not themselves
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
    )


def _media_type(name: str) -> str:
    return _MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")
