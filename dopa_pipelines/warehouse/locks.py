"""File locks of the state folder (``flock``): the kernel releases them when their holder dies, however it
dies.

Their descriptors are never inherited by child processes (Python opens files so), or a server would hold its
own users' lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dopa_pipelines.errors import UserError

PATIENCE = 120.0
"""Seconds to wait for a lock that another process holds only while it starts or stops the server."""


def open_lock(path: Path) -> int:
    """Descriptor of a lock file, made when missing and given to the owner of its folder."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if os.geteuid() == 0:
        folder = path.parent.stat()
        if folder.st_uid != 0:
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    return descriptor


def acquire(descriptor: int, operation: int, path: Path, patience: float = PATIENCE) -> None:
    """Take a lock, waiting at most ``patience`` seconds. Raises ``UserError`` after that."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise UserError(
                    f"Another process has held the lock {path} for {patience:.0f} s; "
                    f"end the process that `fuser {path}` names, and run this again."
                ) from None
            time.sleep(0.01)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at ``path`` exclusively."""
    descriptor = open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock at ``path`` exclusively."""
    descriptor = open_lock(path)
    try:
        acquire(descriptor, fcntl.LOCK_EX, path)
        yield
    finally:
        os.close(descriptor)
