"""The state folder: that it is usable, of this version, and its secrets.

What belongs here: the folder as a whole. What doesn't: the embedded server inside it (``embedded``).
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dopa_pipelines.errors import UserError
from dopa_pipelines.warehouse.locks import exclusive

LAYOUT = 1
"""Version of the state folder's layout; raise it when an older folder can no longer be used as it is."""

VERSION_FILE = "STATE_VERSION"
SECRETS_FILE = "secrets.json"
LEAST_FREE = 200 * 1024 * 1024
"""Bytes that must be free before anything is started: a full disk stops PostgreSQL in the middle of a
write.
"""


def prepare_state(state: Path) -> None:
    """Make the state folder, or check that it can be used.

    Raises ``UserError``: cannot be made or written, too little space, made by another version.
    """
    try:
        made = not state.is_dir()
        if made:
            state.mkdir(parents=True, exist_ok=True)
        # stat before anything else, so that a file in the folder's place or a folder of someone else is told
        # apart.
        if not os.access(state, os.W_OK | os.X_OK):
            raise PermissionError
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"The state folder {state} can't be made because a file is in its place; "
            "remove the file, or set DOPA_STATE to another folder."
        ) from None
    except PermissionError:
        raise UserError(
            f"The state folder {state} can't be written by {_account()}{_owned_by(state)}; "
            "run as its owner, or set DOPA_STATE to a folder of your own."
        ) from None
    except OSError as error:
        raise UserError(f"The state folder {state} can't be made ({error.strerror}); set DOPA_STATE to another folder.") from None
    free = shutil.disk_usage(state).free
    if free < LEAST_FREE:
        raise UserError(
            f"Only {free // 2**20} MB are free on the disk of {state}, {LEAST_FREE // 2**20} MB are needed; "
            "free some space, or set DOPA_STATE to a folder on another disk."
        )
    version = state / VERSION_FILE
    try:
        written = version.read_text(encoding="utf-8")
    except FileNotFoundError:
        if (state / "pg").exists():
            written = "layout unknown"
        else:
            if made or all(entry.name.startswith((".", "drop", "demo")) for entry in state.iterdir()):
                # Root's server runs as another account, which must reach its own folder below this one.
                state.chmod(0o711 if os.geteuid() == 0 else 0o700)
            write_private(version, f"layout {LAYOUT}\n")
            return
    if written.split("\n", 1)[0] != f"layout {LAYOUT}":
        raise UserError(
            f"The state folder {state} is of another version ({written.split(chr(10), 1)[0]}, this is layout "
            f"{LAYOUT}); use the version that made it, or set DOPA_STATE to a new folder, or delete this one."
        )


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all, and on the disk when this returns."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def read_secrets(state: Path) -> dict[str, Any]:
    """Generated passwords and what was decided about servers; empty when there is none yet."""
    path = state / SECRETS_FILE
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, UnicodeDecodeError):
        raise UserError(f"{path} can't be read as JSON; restore it from a backup, or set DOPA_STATE to a new folder.") from None
    except PermissionError:
        raise UserError(
            f"{path} can't be read by {_account()}{_owned_by(path)}; run as its owner, or set DOPA_STATE to a folder of your own."
        ) from None
    return found


def update_secrets(state: Path, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Change the secrets under a lock; returns them as they are now."""
    with exclusive(state / "secrets.lock"):
        found = read_secrets(state)
        before = json.dumps(found, sort_keys=True)
        change(found)
        if json.dumps(found, sort_keys=True) != before:
            write_private(state / SECRETS_FILE, json.dumps(found, indent=2, sort_keys=True) + "\n")
    return found


def new_password() -> str:
    """A random password of 192 bits, in characters that need no escape."""
    return secrets.token_urlsafe(24)


def _account() -> str:
    try:
        return f"account {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"account {os.geteuid()}"


def _owned_by(path: Path) -> str:
    """`` (it belongs to …)`` for the nearest part of ``path`` that exists."""
    for part in (path, *path.parents):
        try:
            owner = part.stat().st_uid
        except OSError:
            continue
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = str(owner)
        return f" ({part} belongs to {name})"
    return ""
