"""Which edition of the code is at work: the git commit of the project.

What a write records beside the checksum of its contract or SQL. Nothing else about git belongs here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from functools import cache

from dopa_pipelines.settings import project_root

COMMIT = "DOPA_GIT_COMMIT"
"""Environment variable: the commit, where no git is there to ask (a container); also how dbt is told it."""
CHANGED = "DOPA_GIT_CHANGED"
"""Environment variable: ``1`` where files differ from that commit."""

_SECONDS = 5.0


@cache
def commit() -> Mapping[str, object]:
    """``git_commit`` of the project, and ``git_changed`` where files that git knows differ from it; empty where it is not known.

    Asked once a process, whose code is that of its start.
    """
    if given := os.environ.get(COMMIT):
        return {"git_commit": given} | ({"git_changed": True} if os.environ.get(CHANGED) == "1" else {})
    # A project that lies in some other repository's folder, unknown to it, has no commit.
    if _git("ls-files", "--error-unmatch", "dbt_project/dbt_project.yml") is None:
        return {}
    described = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    if not described:
        return {}
    found, changed, _ = described.partition("-dirty")
    return {"git_commit": found} | ({"git_changed": True} if changed else {})


def environment() -> dict[str, str]:
    """The same for a child process."""
    known = commit()
    found = {COMMIT: str(known["git_commit"])} if "git_commit" in known else {}
    return found | ({CHANGED: "1"} if "git_changed" in known else {})


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=project_root(), capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
