"""Files in the spool: readable by their owner only, written by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

BUFFER_BYTES = 1 << 20


def private_file(path: Path) -> IO[bytes]:
    """A new file for writing, in place of what was there."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", BUFFER_BYTES)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Holds the lock file ``path`` while the block runs and takes it away afterwards; a killed process lets go of it."""
    descriptor = _hold(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _hold(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever held it has taken the file away: another one may stand there by now.
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
