"""The folders of releases: how files become durable there, and how what is visible moves in one step.

What a release holds and when it is made is :mod:`.releases`; nothing here knows the warehouse.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dopa_pipelines.errors import UserError

LATEST = "latest"
MANIFEST = "release.json"
TOMBSTONE = "WITHDRAWN.json"
ERRATUM = "ERRATUM.json"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True)
class WrittenFile:
    """A finished file of a release."""

    name: str
    bytes: int
    sha256: str


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[None]:
    """This publication's turn: waits for one that is at work; the kernel ends the turn of one that dies."""
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def latest_of(folder: Path) -> str | None:
    """The version that ``latest`` names."""
    latest = folder / LATEST
    return str(latest.readlink()) if latest.is_symlink() else None


def point(folder: Path, version: str) -> None:
    """Move ``latest`` in one step: a reader sees the old or the new, never neither."""
    if latest_of(folder) == version:
        return
    if (folder / LATEST).is_dir() and not (folder / LATEST).is_symlink():
        raise UserError(f"{folder / LATEST} is a folder and must be a link; move it away and publish again.")
    fresh = folder / f".{LATEST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    fresh.symlink_to(version)
    fresh.replace(folder / LATEST)
    flush_folder(folder)


def manifest_of(path: Path) -> dict[str, Any]:
    """``release.json`` of a release; empty where it isn't a release of ours."""
    try:
        read: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return read


def verify(path: Path) -> None:
    """Refuse a release whose files are no longer those that were written."""
    for entry in manifest_of(path)["files"]:
        file = path / entry["name"]
        if not file.is_file() or measure(file).sha256 != entry["sha256"]:
            raise UserError(
                f"{file} is gone or was changed after its release, which may not be: put the file back, "
                f"or remove the folder {path.name} and publish again."
            )


def write_file(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def measure(path: Path) -> WrittenFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WrittenFile(path.name, path.stat().st_size, digest)


def flush_folder(folder: Path) -> None:
    """Names, too, must survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def no_writing(name: str, folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk of {folder} is full, so {name} was not released; make room and publish again."
    return f"{name} was not released: {folder} cannot be written ({error.strerror or error})."


def put(path: Path, content: bytes) -> None:
    """Make or replace a file in one step."""
    fresh = path.with_name(f".{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        write_file(fresh, content)
        fresh.chmod(0o444)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    flush_folder(path.parent)


def take_place(fresh: Path, path: Path) -> None:
    """Put the folder ``fresh`` in the place of the folder ``path`` in one step, and remove what was there.

    Linux exchanges two names at once (renameat2). Where the file system cannot, there is no folder at ``path`` for a moment.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    exchange = getattr(libc, "renameat2", None)
    if exchange is None or exchange(_AT_FDCWD, os.fsencode(fresh), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE) != 0:
        gone = path.with_name(f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        path.rename(gone)
        fresh.rename(path)
        fresh = gone
    flush_folder(path.parent)
    shutil.rmtree(fresh)
