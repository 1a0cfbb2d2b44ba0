"""Processes that share the work on one large table, for as long as it is protected.

Each has an interpreter of its own (a fork would inherit other threads' locks), which takes a second to start: it is started
early, kept, and given what all tasks need once for each kind of work. What the work is does not belong here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from types import TracebackType
from typing import Any, TypeVar

WORTH = 20_000
"""From this many variables on a second process pays for what it has to be told."""
CHUNKS = 80
"""Pieces that the work is cut into, so that no process waits long for the others."""

Task = TypeVar("Task", bound=tuple[Any, ...])
Found = TypeVar("Found")

_shared: Any = None


def _share(value: Any) -> None:
    global _shared
    _shared = value


def _call(work: Callable[[Any, Any], Any], tasks: list[Any]) -> list[Any]:
    return [work(_shared, task) for task in tasks]


class Workers:
    """``processes`` of them; one means this process. A context manager: leaving it ends them."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pools: list[ProcessPoolExecutor] = []
        self._known: Any = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)
        self._pools, self._known = [], None

    def start(self) -> None:
        """Start them without waiting, where there are to be several."""
        if self._processes > 1 and not self._pools:
            self._pools = [ProcessPoolExecutor(1, mp_context=get_context("spawn")) for _ in range(self._processes)]
            for pool in self._pools:
                pool.submit(_share, None)

    def run(self, work: Callable[[Any, Task], Found], shared: Any, tasks: Sequence[Task]) -> list[Found]:
        """``work(shared, task)`` for every task, in order. The first item of a task is the variables that it is about. ``shared``
        is told again only where it is another object: it must not be changed in between."""
        size = sum(len(task[0]) for task in tasks)
        if self._processes < 2 or size < WORTH or len(tasks) < 8:
            return [work(shared, task) for task in tasks]
        self.start()
        if shared is not self._known:
            self._known = shared
            for pool in self._pools:
                pool.submit(_share, shared)
        waiting = enumerate(_chunks(tasks, size / CHUNKS))
        running: dict[Future[list[Any]], tuple[int, ProcessPoolExecutor]] = {}
        done: dict[int, list[Any]] = {}

        def give(pool: ProcessPoolExecutor) -> None:
            for number, chunk in waiting:
                running[pool.submit(_call, work, chunk)] = number, pool
                return

        for pool in self._pools:
            # One is worked on while the next is already on its way.
            give(pool)
            give(pool)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, pool = running.pop(future)
                done[number] = future.result()
                give(pool)
        return [found for _, chunk in sorted(done.items()) for found in chunk]


def _chunks(tasks: Sequence[Task], share: float) -> Iterator[list[Task]]:
    chunk: list[Task] = []
    filled = 0
    for task in tasks:
        chunk.append(task)
        filled += len(task[0])
        if filled >= share:
            yield chunk
            chunk, filled = [], 0
    if chunk:
        yield chunk


ALONE = Workers(1)
