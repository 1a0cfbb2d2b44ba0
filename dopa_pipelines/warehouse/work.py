"""That a piece of work began, and how it ended: told outside its own transaction, so that what is rolled back is known too.

Belongs here: the record in ``lineage.work`` and what may be said of a failure. Does not belong here: the record of what was
written (``lineage.write``, in the work's own transaction) and the events made of both (``lineage.openlineage``).
"""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

import psycopg
from psycopg.types.json import Jsonb

from dopa_pipelines.errors import UserError
from dopa_pipelines.warehouse.roles import Role
from dopa_pipelines.warehouse.warehouse import Warehouse

WorkKind = Literal["load", "model", "release", "check"]
ABORTED = "the process ended before its work did"
_UNLOCK = "pg_advisory_unlock(hashtextextended('work:' || %s, 0))"


def new_work() -> str:
    """A new id of a piece of work, which is its OpenLineage run id: a UUID of version 7, so that ids sort by time."""
    bits = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    bits = bits & ~(0xF << 76) | 7 << 76
    return str(uuid.UUID(int=bits & ~(0x3 << 62) | 2 << 62))


class Work:
    """A piece of work that is going on. A context manager.

    Entering records START and commits it. Leaving records the end: FAIL for an exception, ABORT for an interrupt, COMPLETE
    otherwise; nothing where :meth:`done` says that a row of ``lineage.write`` with this ``id`` in ``detail.work`` tells it.
    Killed, the work is found by :func:`end_dead_work`: the server sees that its session is gone.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        kind: WorkKind,
        target: str,
        *,
        run_id: str | None = None,
        parent_run_id: str | None = None,
        inputs: Sequence[Mapping[str, object]] = (),
        detail: Mapping[str, object] | None = None,
    ) -> None:
        self.id = new_work()
        self._warehouse = warehouse
        self._begun = (kind, target, run_id, parent_run_id, Jsonb([dict(item) for item in inputs]), Jsonb(dict(detail or {})))
        self._connection: psycopg.Connection[Any] | None = None
        self._over = False

    def __enter__(self) -> Self:
        # Not the work's own connection: this one outlasts it, and its end shows that the process is gone.
        self._connection = self._warehouse.ledger()
        self._connection.execute("select lineage.begin_work(%s, %s, %s, %s, %s, %s, %s)", (self.id, *self._begun))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._end("COMPLETE", {})
            elif isinstance(error, Exception):
                self.failed(str(error), language="SQL" if isinstance(error, psycopg.Error) else "Python")
            else:
                self._end("ABORT", {"message": ABORTED})
        except (psycopg.Error, UserError):
            # The server is gone: whoever looks next finds the work without its session. The error itself is the news.
            if error is None:
                raise

    def done(self) -> None:
        """The write that names this work is committed."""
        if self._connection is not None and not self._over:
            self._over = True
            # Where the session is gone, so is its lock.
            with suppress(psycopg.Error):
                self._connection.execute(f"select {_UNLOCK}", (self.id,))

    def complete(self, detail: Mapping[str, object]) -> None:
        """The work is complete and wrote nothing that ``lineage.write`` tells of: checks, or a release that is unchanged."""
        self._end("COMPLETE", detail)

    def failed(self, problem: str, *, language: str = "Python") -> None:
        """The work failed and was rolled back. Values are taken out of ``problem``: events go to others."""
        self._end("FAIL", {"message": without_values(problem), "language": language})

    def _end(self, state: str, detail: Mapping[str, object]) -> None:
        if self._over or self._connection is None:
            return
        self._over = True
        query = f"select lineage.end_work(%s, %s, %s), {_UNLOCK}"
        values = (self.id, state, Jsonb(dict(detail)), self.id)
        try:
            self._connection.execute(query, values)
        except psycopg.OperationalError:
            # The session was cut off meanwhile; the server may be there all the same.
            self._warehouse.ledger().execute(query, values)


_NAMED = (
    r"(?:columns?|relation|table|view|constraint|index|function|schema|type|role|operator|sequence|model|macro|dataset|source)"
)
_QUOTED = re.compile(rf"(?P<kept>\b{_NAMED}\s+)?(?P<quoted>\"[^\"]*\"|'[^']*'|“[^”]*”|‘[^’]*’)", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9๐-๙](?:[-\s]?[0-9๐-๙]){4,}")
_ADDRESS = re.compile(r"[^\s@]+@[^\s@]+")
_MORE = re.compile(
    r"^\s*(DETAIL|CONTEXT|HINT|LINE \d+|QUERY|WHERE|\^|compiled code at)\b.*", re.IGNORECASE | re.DOTALL | re.MULTILINE
)


def without_values(problem: str, limit: int = 500) -> str:
    """A failure as it may be told to other systems: what went wrong and where, without values of rows.

    What is quoted goes, unless a word such as *column* says that it is a name; so do long numbers, addresses and what PostgreSQL
    adds below its first line.
    """
    text = _MORE.sub("", problem.replace("\r", "")).strip()
    text = _ADDRESS.sub("…", text)
    text = _QUOTED.sub(lambda found: found[0] if found["kept"] else found["quoted"][0] + "…" + found["quoted"][-1], text)
    text = re.sub(r"=\([^)]*\)", "=(…)", text)
    text = " ".join(_DIGITS.sub("…", text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


# Of a session's work the server knows whether the session lives: its lock is free when it does not. A dbt lives while a
# connection keeps its turn or a statement of it runs; between two nodes there is neither for a moment, hence the grace.
_DEAD = """
with open_work as (
    select w.id, w.work, w.kind, w.target, w.turn, w.at
    from lineage.work w
    where w.state = 'START'
      and not exists (select from lineage.work e where e.work = w.work and e.state <> 'START')
      and not exists (select from lineage.write l where l.detail ->> 'work' = w.work::text)
),
turns as (
    select t.turn,
        exists (
            select from pg_stat_activity a
            where a.pid <> pg_backend_pid()
              and (a.application_name = 'dbt ' || t.turn or position('dbt ' || t.turn in a.query) > 0)
        ) or (
            max(t.at) > clock_timestamp() - %(grace)s::interval
            and exists (select from ops.dbt_turn d where d.turn = t.turn and d.keeper_pid is null)
        ) as lives
    from open_work t
    where t.turn is not null
    group by t.turn
)
select o.work, o.kind, o.target
from open_work o
left join turns t on t.turn = o.turn
where case
    when o.turn is null then pg_try_advisory_xact_lock(hashtextextended('work:' || o.work, 0))
    else not t.lives
end
order by o.id
"""
DBT_GRACE_SECONDS = 15


def end_dead_work(warehouse: Warehouse, *, grace_seconds: float = DBT_GRACE_SECONDS) -> list[tuple[str, str]]:
    """Record ABORT for work whose process is gone; returns the kind and target of each.

    ``grace_seconds``: a dbt that was begun by hand counts as alive for so long after it began a model, though no statement of
    it is seen.
    """
    found = []
    # As dbt's role, which sees its own statements.
    with warehouse.connect(Role.TRANSFORMER) as connection:
        rows = connection.execute(_DEAD, {"grace": f"{grace_seconds} seconds"}).fetchall()
        for work, kind, target in rows:
            row = connection.execute("select lineage.end_work(%s, 'ABORT', %s)", (work, Jsonb({"message": ABORTED}))).fetchone()
            if row and row[0]:
                found.append((str(kind), str(target)))
    return found
