"""Private files and folders for a while: readable by their owner only, removed at the end, also where the process was killed.

Each is locked (``flock``) while it is in use: the kernel releases the lock when its holder dies, however it dies, and what nobody
holds is swept away by the next process that makes one. What is put into them is not looked at here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS_TO_LOCK = 60.0
"""What is younger may not have been locked yet by the process that made it."""


@contextmanager
def private_folder(scratch: Path, prefix: str) -> Iterator[Path]:
    """A new folder below ``scratch`` that is removed when the block ends. Raises OSError where it cannot be made."""
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(scratch)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=scratch))  # mode 0700
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def private_file(folder: Path) -> Iterator[tuple[int, Path]]:
    """A new file in ``folder``, open for writing: its descriptor and path. Removed when the block ends, unless it was moved."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(folder)
    descriptor, name = tempfile.mkstemp(dir=folder)  # mode 0600
    path = Path(name)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor, path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def sweep(folder: Path) -> list[Path]:
    """Remove what killed processes left in ``folder``; returns what was removed."""
    swept = []
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime < SECONDS_TO_LOCK:
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # gone, or not ours
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            swept.append(path)
        finally:
            os.close(lock)
    return swept
