"""Running a delivery where it can do no harm: in a child process with bounded memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dopa_pipelines.contracts import Contract

SECONDS = 120

_CHILD = """
import json, resource, sys, time
from pathlib import Path
from dopa_pipelines.contracts import read_contract
from dopa_pipelines.errors import UserError
from dopa_pipelines.ingest import ingest
from dopa_pipelines.settings import load_settings
from dopa_pipelines.warehouse import open_warehouse

contract, small, path, room = read_contract(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
with open_warehouse(load_settings()) as warehouse:
    ingest(warehouse, contract, small)  # what every delivery takes is there
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + room, mapped + room))
    started = time.monotonic()
    try:
        done = ingest(warehouse, contract, path).as_json()
    except UserError as error:
        done = {"status": "error", "problem": str(error)}
    done["took"] = time.monotonic() - started
    done["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - idle
print(json.dumps(done))
"""


@dataclass(frozen=True)
class Bounded:
    """What became of a delivery, the seconds it took, and the bytes of memory it took at most beyond those of a small one."""

    delivery: dict[str, Any]
    seconds: float
    memory: int


@pytest.fixture
def bounded(environment: dict[str, str]) -> Callable[[Contract, Path, Path, int], Bounded]:
    """Ingests ``path`` in a child process, after ``small``. Fails where the child ends by a traceback, a signal or the clock.

    ``memory``: what it may take, about. What runs away ends at a bound of its address space, of which allocators and threads
    reserve more than they ever touch; what was taken in truth is measured.
    """

    def ingest(contract: Contract, small: Path, path: Path, memory: int) -> Bounded:
        room = 5 * memory
        arguments = [sys.executable, "-c", _CHILD, str(contract.path), str(small), str(path), str(room)]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads(done.stdout)
        return Bounded(found, found.pop("took"), found.pop("memory"))

    return ingest
