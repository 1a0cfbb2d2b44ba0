"""Run a PostgreSQL program as an unprivileged account; PostgreSQL refuses to run as root.

A program of its own (``python -I -S _account.py REQUEST``), so that nothing is done between fork and exec of
a process with threads. REQUEST is JSON: ``uid``, ``gid``, ``postgres`` (its path), ``paths`` (folders that it
must reach), ``command``.

A folder above the programs or the state folder may be closed to that account (a clone below ``/root``, mode
0700). Its mode isn't changed: the program gets the least capability that lets it through, from those that
root has here, and keeps no other.
"""

import contextlib
import ctypes
import json
import os
import struct
import sys

CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
# Reading and searching is less than overriding; a container often grants only the latter.
CANDIDATES = ((), (CAP_DAC_READ_SEARCH,), (CAP_DAC_OVERRIDE,))
CANNOT_SWITCH = 97
CANNOT_REACH = 98

_PR_SET_SECUREBITS = 28
_NO_SETUID_FIXUP = 1 << 2
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522


def become(uid: int, gid: int, capabilities: tuple[int, ...]) -> None:
    """Switch this process to the account for good, keeping only ``capabilities``, across exec too.

    Raises OSError where this root may not.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    if capabilities:
        # Keeps them across the switch; and access(2) counts them, by which PostgreSQL finds its programs.
        call(libc.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0))
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if capabilities:
        mask = sum(1 << number for number in capabilities)
        header = ctypes.create_string_buffer(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0))
        # Effective, permitted, inheritable: for the capabilities 0-31, then for those from 32 on.
        data = ctypes.create_string_buffer(struct.pack("<6I", mask, mask, mask, 0, 0, 0))
        call(libc.capset(header, data))
        for number in capabilities:
            call(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0))


def reaches(uid: int, gid: int, capabilities: tuple[int, ...], postgres: str, paths: list[str]) -> bool:
    """Whether the account, so equipped, reaches all paths and can run the server's program."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            become(uid, gid, capabilities)
            for path in paths:
                os.stat(os.path.join(path, "."))  # noqa: PTH116, PTH118 - no imports beyond need
            if not os.access(postgres, os.R_OK | os.X_OK):
                os._exit(1)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            os.execv(postgres, [postgres, "--version"])
        os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    """Find the least capabilities that suffice, and become the command."""
    request = json.loads(sys.argv[1])
    uid, gid = request["uid"], request["gid"]
    for capabilities in CANDIDATES:
        if reaches(uid, gid, capabilities, request["postgres"], request["paths"]):
            become(uid, gid, capabilities)
            os.execv(request["command"][0], request["command"])
    try:
        become(uid, gid, ())
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        sys.exit(CANNOT_SWITCH)
    sys.exit(CANNOT_REACH)


if __name__ == "__main__":
    main()
