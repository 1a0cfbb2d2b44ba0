"""Who started the work: the person or the system that a record names beside the database's role.

Belongs here: what the process knows of it. Does not belong here: what a scheduler knows of its runs (``assets.platform``). The
server vouches for the role (``lineage.write.written_by``); an actor is what the process says. It stays here: no event names one.
"""

from __future__ import annotations

import getpass
import os

VARIABLE = "DOPA_ACTOR"
"""Environment variable that names who it is, for a service that acts for somebody."""


def actor() -> str:
    """``DOPA_ACTOR``, or else the account of the operating system; empty where neither is known."""
    if named := readable(os.environ.get(VARIABLE, "")):
        return named
    try:
        return readable(getpass.getuser())
    except (OSError, KeyError):
        # An account without a name, as containers have them.
        return ""


def readable(name: str) -> str:
    """A name on one line, without what no text of the warehouse can hold; at most 200 characters."""
    plain = name.encode("utf-8", "replace").decode()
    return " ".join("".join(character if character.isprintable() else " " for character in plain).split())[:200]
