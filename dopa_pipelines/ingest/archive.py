"""The archive: every delivery as it came, by the SHA-256 of its content, compressed, readable by its owner only.

``<archive>/<first two hex digits>/<sha256>.zst``. A delivery that is a folder is kept as a tar file with fixed owners and times.
What is destroyed when its retention ends is named in ``ops.archived``; this module never decides that by itself.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.ingest.stream import Clock
from dopa_pipelines.scratch import private_file, private_folder
from dopa_pipelines.sources.containers import content_sha256

PIECE_BYTES = 8 << 20
"""Each piece is a call to the compressor, which takes half as long again for pieces of 1 MB."""


def content_bytes(path: Path) -> int:
    """Bytes of a delivery: of a file its size, of a folder the sum of its files."""
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return path.stat().st_size


def place_of(archive: Path, sha256: str) -> Path:
    return archive / sha256[:2] / f"{sha256}.zst"


class Deposit:
    """One delivery on its way into the archive: hashed and compressed in a thread, in place once it is whole.

    A context manager. ``start`` may be called late, so that the work fills time in which the server is busy; leaving the block
    waits for the end in any case, since a refused delivery is kept, too.
    """

    def __init__(self, archive: Path, path: Path, clock: Clock) -> None:
        self._archive = archive
        self._path = path
        self._clock = clock
        self._before = _state(path)
        self._sha256 = ""
        self._stored = 0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Deposit:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Rejected):
            self.start()
        if self._thread is not None:
            self._thread.join()

    @property
    def sha256(self) -> str:
        """The content's name, once :meth:`wait` or the block has ended."""
        return self._sha256

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="archive", daemon=True)
            self._thread.start()

    def wait(self) -> str:
        """The content's SHA-256, once it is in the archive.

        Raises Rejected if the delivery changed while it was read, UserError if it cannot be kept.
        """
        self.start()
        assert self._thread is not None
        self._thread.join()
        if isinstance(self._error, OSError):
            reason = self._error.strerror or type(self._error).__name__
            raise UserError(f"{self._archive}: the delivery cannot be kept in the archive ({reason}); nothing of it was loaded")
        if self._error is not None:
            raise self._error
        if _state(self._path) != self._before:
            raise Rejected(f"{self._path.name}: changed while it was read; deliver it under a name of its own once it is whole")
        return self._sha256

    def _run(self) -> None:
        try:
            with self._clock.step("archive"):
                if self._path.is_symlink():
                    # Refused, and what it points to is not the sender's to give.
                    self._sha256 = hashlib.sha256(os.fsencode(self._path.readlink())).hexdigest()
                elif self._path.is_dir() or self._path.is_file():
                    # What is neither, such as a pipe, is refused; reading it might never end.
                    self._sha256 = store(self._archive, self._path)
        except BaseException as error:
            self._error = error


def store(archive: Path, path: Path) -> str:
    """Keep a delivery; returns its SHA-256. What is there already is left as it is."""
    archive.mkdir(mode=0o700, parents=True, exist_ok=True)
    with private_file(archive / ".incoming") as (descriptor, partial):
        # zstandard at the lowest level: text of registers shrinks to a fifth, at the speed of a disk.
        raw = os.fdopen(descriptor, "wb", closefd=False)
        with raw, pa.CompressedOutputStream(pa.PythonFile(raw, "w"), "zstd") as packed:
            digest = _tar(path, packed) if path.is_dir() else _copy(path, packed)
        os.fsync(descriptor)
        place = place_of(archive, digest)
        if not place.parent.exists():
            place.parent.mkdir(mode=0o700, exist_ok=True)
            _sync(archive)
        if not place.exists():
            partial.replace(place)
            _sync(place.parent)
        return digest


def _sync(folder: Path) -> None:
    """Make a new name survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(path: Path, packed: Any) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            packed.write(piece)
    return digest.hexdigest()


def _tar(folder: Path, packed: Any) -> str:
    with tarfile.open(fileobj=_Sink(packed), mode="w|") as tar:  # type: ignore[call-overload]
        for item in sorted(folder.rglob("*")):
            if item.is_file() and not item.is_symlink():
                entry = tarfile.TarInfo(str(item.relative_to(folder)))
                entry.size = item.stat().st_size
                with item.open("rb") as file:
                    tar.addfile(entry, file)
    return content_sha256(folder)


class _Sink:
    def __init__(self, packed: Any) -> None:
        self._packed = packed

    def write(self, data: bytes) -> int:
        self._packed.write(data)
        return len(data)


@contextmanager
def restored(archive: Path, sha256: str, name: str, scratch: Path) -> Iterator[Path]:
    """A delivery as it came, in a private folder that is removed afterwards. Raises FileNotFoundError where it is not kept."""
    place = place_of(archive, sha256)
    with private_folder(scratch, "restored") as folder:
        path = folder / (Path(name).name or "delivery")
        with place.open("rb") as raw, pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd") as plain:
            _unpack(plain, path)
        found = content_sha256(path)
        if found != sha256:
            if path.is_file():
                path = _untarred(path)
            if content_sha256(path) != sha256:
                raise UserError(f"{place}: is not what its name says; the archive was damaged or changed by hand")
        yield path


def _unpack(plain: Any, path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while piece := plain.read(PIECE_BYTES):
            file.write(piece)


def _untarred(path: Path) -> Path:
    folder = path.with_name(f"{path.name}.folder")
    try:
        with tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.TarError:
        return path
    named = path.with_name("folder") / path.name
    path.unlink()
    named.parent.mkdir()
    folder.rename(named)
    return named


def _state(path: Path) -> list[tuple[str, int, int]]:
    """What tells that files were written to: names, sizes, times."""
    items = sorted(path.rglob("*")) if path.is_dir() else [path]
    facts: list[tuple[str, int, int]] = []
    for item in items:
        stat = item.lstat()
        facts.append((str(item), stat.st_size, stat.st_mtime_ns))
    return facts
