"""Stops the embedded server when its last living user has left.

A program of its own (``python -I -S _watcher.py STATE``), started with the server in a session of its own, so
that Ctrl-C in a terminal doesn't reach it; standard library only, so that it stays small. It waits for an
exclusive lock on ``pg.users``, which every user holds shared. Users that were killed don't count: the kernel
took their locks back.
"""

import contextlib
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

SOCKET = ".s.PGSQL.5432"


def postmaster(data: Path) -> int | None:
    """Process id of the living server of this data folder; ``None`` when there is none, whatever a stale
    file says.
    """
    try:
        process = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    # The command line, not the working folder: root in a container may not see another account's.
    return process if os.fsencode(data) in words else None


def stop(data: Path, patience: float = 60.0) -> None:
    """Fast shutdown: running statements are cancelled, what was committed is kept. After ``patience``
    seconds: at once.
    """
    process = postmaster(data)
    if process is None:
        return
    until = time.monotonic() + patience
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGINT)
        while postmaster(data) == process:
            if time.monotonic() > until:
                os.kill(process, signal.SIGQUIT)
                until += patience
            time.sleep(0.01)


def main() -> None:
    """Hold the watcher's lock, tell the starter, wait for the last user to leave, stop the server."""
    state = Path(sys.argv[1])
    # Opened first: descriptors of a killed process are closed in order, and nobody may find a server that is
    # free to use beside a watcher that seems to live.
    watcher = os.open(state / "pg.watcher", os.O_RDWR)
    users = os.open(state / "pg.users", os.O_RDWR)
    for _ in range(200):
        try:
            fcntl.flock(watcher, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:  # another process is just looking whether a watcher lives, or one does
            time.sleep(0.01)
    else:
        return
    sys.stdout.write("watching\n")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    fcntl.flock(users, fcntl.LOCK_EX)
    with contextlib.suppress(OSError):
        # Else the state folder was deleted, and another took its place.
        if os.fstat(users).st_ino == (state / "pg.users").stat().st_ino:
            data = state / "pg" / "data"
            for _ in range(50):
                if postmaster(data) is not None:
                    break
                # Its starter may have been killed a moment before the server wrote its process id.
                time.sleep(0.01)
            stop(data)
            clean(state)
    os.close(watcher)
    os.close(users)


def clean(state: Path) -> None:
    """Remove the socket's folder if it had to lie outside the state folder."""
    recorded = state / "pg.socket"
    folder = Path(recorded.read_text(encoding="utf-8").strip())
    if state not in folder.parents:
        for name in (SOCKET, f"{SOCKET}.lock"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
        recorded.unlink()


if __name__ == "__main__":
    main()
