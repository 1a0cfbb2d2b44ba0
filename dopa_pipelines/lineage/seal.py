"""The sealing of what was recorded: hashes over events and writes, digests of tables, and the anchor outside the database.

Belongs here: what happens to a record after it was committed. Does not belong here: how hashes and digests are computed
(functions of the warehouse, see its migration ``r0006``) and what they prove (``verify``).

Sealing is never in a writer's way: it reads what is committed, and what it does not get to now it does the next time. Each seal
is a hash over the one before, over the event and over the row of ``lineage.write`` that the event tells of. Whoever may change
the database may compute all of them anew, so the last one is written down outside it as well: in
``<state>/anchors/lineage.jsonl`` and in the ``release.json`` of every release.

A digest of a table is the sum, over its rows, of the first and of the second eight bytes of the row's SHA-256: the order of the
rows does not matter, and a row changed by mistake or by hand leaves both sums as they were with a probability of 2^-128. Who
wanted to find rows that keep them would have to compute very many, to keep the number of rows and their transactions as well, and
could not touch what the digest says, which is sealed itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.store import PRODUCTION
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.warehouse import Role, Warehouse

BRIEF = 1.0
"""Seconds that digests may take at the end of a run; the rest is left to housekeeping."""

_ROWS_A_SECOND = 200_000
"""Of a digest, on a slow machine: only to guess whether a table can be digested in the time that is left."""

_PATIENCE = "2s"
"""How long a digest waits for a table that is being replaced; it is taken the next time."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last seal of a warehouse. ``warehouse``: an identity that moves with its database from server to server."""

    warehouse: str
    seq: int
    hash: str

    def as_json(self) -> dict[str, Any]:
        return {"warehouse": self.warehouse, "seq": self.seq, "hash": self.hash}


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a sealing did: ``seals`` made, ``digests`` taken, tables whose digest ``waits`` for the next one."""

    seals: int
    digests: int
    waits: tuple[str, ...] = ()
    head: Head | None = None

    def as_json(self) -> dict[str, Any]:
        head = self.head.as_json() if self.head else None
        return {"seals": self.seals, "digests": self.digests, "waits": list(self.waits), "head": head}


def anchor_file(state: Path) -> Path:
    """Where heads are written down: one JSON object a line, appended to, readable by its owner only."""
    return state / "anchors" / "lineage.jsonl"


def seal(warehouse: Warehouse, *, seconds: float | None = None) -> Sealed:
    """Seal what was recorded and committed, take the digests that are missing, and anchor the head.

    ``seconds``: what digests may take, the smallest tables first; None: as long as it needs. Call it after events were recorded.
    Raises UserError where the anchor cannot be written; the seals stay, and the next sealing anchors them.
    """
    with warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection:
        seals = _seal_pending(connection)
        taken, waits = _take_digests(warehouse, connection, seconds)
        if taken:
            seals += _seal_pending(connection)
        found = head(connection)
    if found is not None:
        path = anchor_file(warehouse.state)
        try:
            _anchor(path, found)
        except OSError as error:
            raise UserError(
                f"{path}, which proves what was recorded, cannot be written ({error.strerror or error}); see to its disk and"
                " rights, and run `dopa lineage seal`: everything else is done"
            ) from error
    return Sealed(seals, taken, tuple(waits), found)


def head(connection: psycopg.Connection[Any]) -> Head | None:
    """The last seal; None before the first."""
    row = connection.execute(
        "select i.value, s.seq, s.hash from lineage.identity i, lineage.seal s where i.key = 'cluster' order by s.seq desc limit"
        " 1"
    ).fetchone()
    return Head(*row) if row else None


def _seal_pending(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("select lineage.seal_pending()").fetchone()
    return int(row[0]) if row else 0


# Tables that changed since their last digest, those of rejected rows among them. Targets are stepped through on the index, as in
# the store.
_UNDIGESTED = """
with recursive targets as (
    (select w.target from lineage.write w order by w.target limit 1)
    union all
    select (select w.target from lineage.write w where w.target > t.target order by w.target limit 1)
    from targets t where t.target is not null
), tables as (
    select t.target from targets t where t.target is not null and t.target !~ '^(release:|quarantine[.])'
    union all
    select 'quarantine.' || substr(t.target, 5) from targets t where starts_with(t.target, 'raw.')
)
select t.target, n.nspname, c.relname, coalesce(
    (
        select sum(case n.nspname when 'raw' then d.rows_held else d.rows_quarantined end)
        from ops.delivery d where n.nspname in ('raw', 'quarantine') and d.dataset = c.relname
    ),
    l.rows_out, 0
)::bigint as rows
from tables t
join pg_catalog.pg_namespace n on n.nspname = split_part(t.target, '.', 1)
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = substr(t.target, strpos(t.target, '.') + 1)
cross join lateral (
    select w.environment, w.rows_out from lineage.write w
    where w.target in (t.target, regexp_replace(t.target, '^quarantine[.]', 'raw.')) order by w.id desc limit 1
) l
where l.environment = %s and c.relkind in ('r', 'p', 'm') and (lineage.standing_digest(t.target)).v_digest is null
order by rows, t.target
"""


def _take_digests(warehouse: Warehouse, connection: psycopg.Connection[Any], seconds: float | None) -> tuple[int, list[str]]:
    """Take digests; returns their number and the tables that have to wait."""
    began = time.monotonic()
    taken, waits = 0, []
    wanted = connection.execute(_UNDIGESTED, (PRODUCTION,)).fetchall()
    if not wanted:
        return 0, []
    with warehouse.connect(Role.LOADER, autocommit=True) as loader:
        for target, schema, table, rows in wanted:
            if seconds is not None and time.monotonic() - began + rows / _ROWS_A_SECOND > seconds:
                waits.append(target)
                continue
            reader = loader if schema == "quarantine" else connection
            try:
                with one_moment(reader, schema, table):
                    found = reader.execute("select lineage.take_digest(%s)", (target,)).fetchone()
            except (psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable):
                waits.append(target)
            else:
                taken += bool(found and found[0] is not None)
    return taken, waits


@contextmanager
def one_moment(connection: psycopg.Connection[Any], schema: str, table: str) -> Iterator[None]:
    """A transaction that sees a table and its writes as of one moment, on a connection that commits by itself.

    The lock, which keeps nobody from reading or writing rows, comes before the snapshot: a table that was replaced after it would
    seem empty. Raises LockNotAvailable where the table is being replaced just now.
    """
    before = connection.isolation_level
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        with connection.transaction():
            connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(_PATIENCE)))
            connection.execute(sql.SQL("lock table {} in access share mode").format(sql.Identifier(schema, table)))
            yield
    finally:
        connection.isolation_level = before


# The anchor


def anchors(state: Path, warehouse: str) -> list[dict[str, Any]]:
    """What was written down of a warehouse, oldest first. Raises ValueError where a line is no JSON object."""
    path = anchor_file(state)
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            fits = isinstance(entry["seq"], int) and isinstance(entry["hash"], str) and isinstance(entry["warehouse"], str)
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise ValueError(f"line {number} of {path} is no anchor")
        if entry["warehouse"] == warehouse:
            found.append(entry)
    return found


def _anchor(path: Path, found: Head) -> None:
    """Write a head down, unless it is what was written last."""
    with _appending(path) as file:
        last = None
        for line in file:
            # A line that is none is verify's to tell of.
            if found.warehouse.encode() in line:
                last = line
        if last is not None and f'"seq": {found.seq}, "hash": "{found.hash}"'.encode() in last:
            return
        _append(file, found, {})


def anchor_loss(state: Path, found: Head, why: str) -> None:
    """Write down that later seals than ``found`` were lost, with their reason: a backup was restored."""
    with _appending(anchor_file(state)) as file:
        _append(file, found, {"lost": True, "why": why})


@contextmanager
def _appending(path: Path) -> Iterator[Any]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _append(file: Any, found: Head, more: dict[str, Any]) -> None:
    file.seek(0)
    content = file.read()
    start = "\n" if content and not content.endswith(b"\n") else ""
    line = json.dumps({"at": datetime.now(BANGKOK).isoformat(timespec="seconds"), **found.as_json(), **more}, ensure_ascii=False)
    file.write(f"{start}{line}\n".encode())
    file.flush()
    os.fsync(file.fileno())
