"""A delivery as a stream of pieces ready for COPY: reading, enforcing and encoding run beside the server's work.

What a delivery consists of is a :class:`Source`; what becomes of its rows in the database is in
:mod:`dopa_pipelines.ingest.deliver`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import polars as pl

from dopa_pipelines.contracts import Contract
from dopa_pipelines.ingest.encode import Encoder
from dopa_pipelines.ingest.enforce import Enforced, Plan, fields_json
from dopa_pipelines.ingest.observe import Observer
from dopa_pipelines.sources import open_reader
from dopa_pipelines.sources.batch import ORIGINAL, ROW, Batch
from dopa_pipelines.sources.containers import Part

PLACES_AHEAD, PIECES_AHEAD = 1, 1
"""What may wait for enforcement, and for the server: what bounds the memory."""

T = TypeVar("T")


class Clock:
    """Seconds by step. Steps of different threads overlap, so that they may add up to more than the total."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def rounded(self) -> dict[str, float]:
        steps = {name: round(value, 4) for name, value in self.seconds.items()}
        return steps | {"total": round(time.perf_counter() - self.started, 4)}


@dataclass(frozen=True)
class Place:
    """Rows of a batch and where they stand: ``offset`` is what their numbers are ahead of those in the file."""

    batch: Batch
    file: str
    offset: int


class Source(Protocol):
    """What a delivery's rows come from. Reading it twice gives the same rows under the same numbers."""

    layout_rows: int
    unknown_titles: tuple[str, ...]

    def places(self) -> Iterator[Place]: ...


class Files:
    """The files of a delivery, one after the other; rows are numbered through."""

    def __init__(self, contract: Contract, parts: list[Part]) -> None:
        self.contract = contract
        self.parts = parts
        self.layout_rows = 0
        self.unknown_titles: tuple[str, ...] = ()

    def places(self) -> Iterator[Place]:
        self.layout_rows, offset = 0, 0
        unknown: dict[str, None] = {}
        for part in self.parts:
            reader = open_reader(self.contract, part.path, part.name)
            last = 0
            for batch in reader.batches():
                numbers = [int(rows.max() or 0) for rows in (batch.rows, batch.flawed[ROW]) if len(rows)]  # type: ignore[arg-type]
                last = max(last, *numbers)
                yield Place(_moved(batch, offset), part.name, offset)
            offset += last
            self.layout_rows += reader.layout_rows
            unknown |= dict.fromkeys(reader.unknown_titles)
        self.unknown_titles = tuple(unknown)


def _moved(batch: Batch, offset: int) -> Batch:
    if not offset:
        return batch
    return Batch(batch.rows + offset, batch.columns, batch.original, batch.flawed.with_columns(pl.col(ROW) + offset))


@dataclass(frozen=True)
class Piece:
    """A batch after enforcement. ``data``: its accepted rows for COPY, empty where there are none."""

    height: int
    accepted: int
    data: list[bytes]
    enforced: Enforced
    file: str
    offset: int


class Ahead(Generic[T]):
    """What an iterator gives, made in a thread of its own and at most ``size`` items before somebody takes them.

    A context manager: leaving it ends the thread. Iterating raises what the iterator raised.
    """

    def __init__(self, name: str, items: Iterator[T], size: int) -> None:
        self._items = items
        self._made: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(size)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._produce, name=name, daemon=True)

    def __enter__(self) -> Ahead[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._made.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while (made := self._made.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            yield made[0]

    def _produce(self) -> None:
        last: BaseException | None = None
        try:
            for item in self._items:
                self._made.put((item,))
                if self._stopped.is_set():
                    return
        except BaseException as error:
            last = error
        finally:
            # Files and processes that it holds are closed by whom they were opened.
            if isinstance(self._items, Generator):
                self._items.close()
        if not self._stopped.is_set():
            self._made.put(last)


class Stream:
    """Pieces of a source: one thread reads, another enforces and encodes. A context manager: leaving it ends the threads.

    Iterating raises what reading or enforcing raised. ``when_read`` is called once everything is read: a core is free then.
    ``observer`` sees every batch.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        encoder: Encoder,
        clock: Clock,
        when_read: Callable[[], None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._source = source
        self._plan = plan
        self._encoder = encoder
        self._clock = clock
        self._when_read = when_read
        self._observer = observer
        self._read = Ahead("read", self._places(), PLACES_AHEAD)
        self._made = Ahead("enforce", self._pieces(), PIECES_AHEAD)

    def __enter__(self) -> Stream:
        self._read.__enter__()
        self._made.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        # Who reads is ended last: the other thread may be waiting for it.
        self._made.__exit__(*error)
        self._read.__exit__(*error)

    def __iter__(self) -> Iterator[Piece]:
        return iter(self._made)

    def _places(self) -> Iterator[Place]:
        places = self._source.places()
        while True:
            with self._clock.step("read"):
                place = next(places, None)
            if place is None:
                break
            yield place
        if self._when_read:
            self._when_read()

    def _pieces(self) -> Iterator[Piece]:
        for place in self._read:
            with self._clock.step("enforce"):
                enforced = self._plan.apply(place.batch)
            with self._clock.step("encode"):
                accepted = enforced.accepted.height
                data = list(self._encoder.encode(enforced.accepted)) if accepted else []
            yield Piece(place.batch.height, accepted, data, enforced, place.file, place.offset)
            if self._observer:
                with self._clock.step("observe"):
                    self._observer.saw(enforced)
        if self._observer:
            self._observer.ended()


def look_up(source: Source, rows: list[int]) -> Iterator[tuple[str, int, pl.DataFrame]]:
    """Rows of a source by their numbers: file, offset, and a frame of ``_row``, ``_original`` and ``fields``."""
    wanted = pl.Series(sorted(rows), dtype=pl.Int64)
    missing = len(wanted)
    for place in source.places():
        batch = place.batch
        places = batch.rows.is_in(wanted.implode()).arg_true()
        if len(places):
            yield (
                place.file,
                place.offset,
                pl.DataFrame(
                    {
                        ROW: batch.rows.gather(places),
                        ORIGINAL: batch.original(places),
                        "fields": fields_json(batch, places),
                    }
                ),
            )
            missing -= len(places)
            if missing <= 0:
                return
