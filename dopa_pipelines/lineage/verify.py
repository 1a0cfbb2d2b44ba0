"""The proof that what is recorded is the whole story: rows, writes, events, seals and anchors held against each other.

Belongs here: looking, and saying what does not agree. Does not belong here: making seals and digests (``seal``), drawing lineage.

What is looked at:

- every row's ``xmin``, the transaction that wrote it, is that of a recorded write of its table on this server, or one that a
  rebase accounts for;
- the rows are as many as was recorded, for a dataset by delivery, and their digest is the one that was taken;
- views are defined as they were recorded;
- every write names inputs and deliveries that exist;
- every event and write is as it was sealed, and every facet that an event names is what its name says;
- no seal is missing, and the anchors outside the database lie on the chain.

Hashes are computed here anew by the server's own functions, never by those of the schema ``lineage``: whoever changed a record
may have changed these too. Each table is scanned once, as of one moment together with its writes; nobody is kept waiting but a
load that replaces the table whole.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from dopa_pipelines.documents import did_you_mean
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.seal import Head, anchor_file, anchor_loss, anchors, head, one_moment, seal
from dopa_pipelines.lineage.store import PRODUCTION
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.warehouse import Role, Warehouse

Connection = psycopg.Connection[Any]

SHOWN = 20
"""Findings of one kind that are told one by one; the rest are counted."""

EPOCH = 1 << 32
"""Transaction ids count on (``xid8``), the ``xmin`` of a row holds what is left of one after division by this."""

_REBASE = "dopa lineage rebase {} --why …"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not agree. ``code``: its kind; ``subject``: the table, event, write, seal or anchor."""

    code: str
    subject: str
    message: str


@dataclass
class Verdict:
    """What was looked at and what was found. ``notes``: what could not be looked at, and what is known and accounted for."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: int = 0
    views: int = 0
    rows: int = 0
    writes: int = 0
    events: int = 0
    seals: int = 0
    anchors: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"clean": not self.findings}

    def add(self, code: str, subject: str, message: str) -> None:
        self.findings.append(Finding(code, subject, message))


def unaccounted(xmins: Iterable[int], writes: Iterable[int], rebased: Iterable[int], following: int) -> set[int]:
    """Those of ``xmins`` (32 bits) that are of no write.

    ``writes``: whole transaction ids (``xid8``) of recorded writes; ``rebased``: what rebases account for, as 32 bits;
    ``following``: the next transaction id of the server. A row that is older than 2^31 transactions was frozen by the server and
    keeps its ``xmin``, so a write of any epoch up to now may be the one; one that is yet to come cannot.
    """
    known = {write % EPOCH for write in writes if write < following} | set(rebased)
    return set(xmins) - known


def verify(
    warehouse: Warehouse, releases: Path, dataset: str | None = None, told: Callable[[str], None] | None = None
) -> Verdict:
    """Hold everything against each other; of ``dataset`` alone (a table, bare or with its schema) where it is given.

    The chain of seals and its anchors are always looked at whole. ``told`` hears each table's name as it begins. Raises UserError
    for a name that nothing was written to.
    """
    verdict = Verdict()
    with warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection:
        # As the server told the definitions of views when they were recorded.
        connection.execute("set search_path = pg_catalog, pg_temp")
        target = _target(connection, dataset) if dataset else None
        _chain(connection, verdict)
        _facets(connection, verdict)
        _anchored(connection, warehouse.state, releases, verdict)
        _agreement(connection, verdict, target)
        _inputs(connection, verdict, target)
        for written in _targets(connection, target):
            if told:
                told(written.target)
            _written(warehouse, connection, verdict, written)
        if target is None:
            _unrecorded(connection, verdict)
        _said(connection, verdict)
    return verdict


_PROOF = "lineage_proof"


@dataclass(frozen=True)
class Proven:
    """How far the records are proven. ``unsealed``: events and digests that no seal is over yet; ``anchored_at``: when the last
    head was written down outside; ``verified_at`` and ``findings``: of the last verification of everything. None before the
    first.
    """

    seals: int
    unsealed: int
    anchored_at: str | None = None
    anchored_seq: int | None = None
    verified_at: datetime | None = None
    findings: int | None = None
    first: str | None = None

    @property
    def healthy(self) -> bool:
        """Nothing was found; what is not sealed yet is sealed by the next run."""
        return not self.findings

    def __str__(self) -> str:
        words = f"lineage: {self.seals:,} seals, {self.unsealed:,} records not sealed yet"
        words += (
            f"; anchored {_shown(self.anchored_at)} (seal {self.anchored_seq:,})" if self.anchored_seq else "; never anchored"
        )
        if self.verified_at is None:
            return words + "; never verified: `dopa lineage verify`"
        words += f"; verified {_shown(self.verified_at)}: "
        if not self.findings:
            return words + "all agreed"
        return words + f"{self.findings:,} findings, the first: {self.first}; all: `dopa lineage verify`"


def note(warehouse: Warehouse, verdict: Verdict, run_id: str) -> None:
    """Keep what a verification of everything came to, for :func:`proven`."""
    first = verdict.findings[0].message if verdict.findings else None
    with warehouse.connect(Role.LOADER, autocommit=True) as connection:
        connection.execute(
            "insert into ops.run_note (run_id, kind, note) values (%s, %s, %s)",
            (run_id, _PROOF, Jsonb({"findings": len(verdict.findings), "first": first})),
        )


def proven(connection: Connection, state: Path) -> Proven:
    """How far the records are sealed, anchored and verified, without looking at them again."""
    row = connection.execute(
        """
        select
            (select count(*) from lineage.seal),
            (select count(*) from lineage.event) + (select count(*) from lineage.digest),
            (select value from lineage.identity where key = 'cluster'),
            last.at, (last.note ->> 'findings')::integer, last.note ->> 'first'
        from (select 1) as one
        left join lateral (
            select at, note from ops.run_note where kind = %s order by id desc limit 1
        ) last on true
        """,
        (_PROOF,),
    ).fetchone()
    assert row is not None
    seals, records, warehouse, at, findings, first = row
    try:
        entries = anchors(state, warehouse)
    except ValueError:
        entries = []  # verify tells of a file that was changed
    last = entries[-1] if entries else {}
    return Proven(seals, max(records - seals, 0), last.get("at"), last.get("seq"), at, findings, first)


def _shown(moment: datetime | str | None) -> str:
    found = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return found.astimezone(BANGKOK).strftime("%Y-%m-%d %H:%M") if found else "at an unknown time"


def unexplained(connection: Connection, target: str, *, rows: bool) -> list[Finding]:
    """What of one table or view is not as it was recorded, in the caller's transaction: the definition of a view; of a table,
    where ``rows`` asks for it, rows of transactions that no record has, and rows that were deleted. Digests are not taken."""
    found = _targets(connection, target)
    if not found:
        return [Finding("unrecorded", target, f"nothing was ever recorded of {target}; build its model with `dopa run`")]
    verdict, (written,) = Verdict(), found
    if written.kind == "v":
        row = connection.execute("select current_setting('search_path')").fetchone()
        connection.execute("set local search_path = pg_catalog, pg_temp")
        _view(connection, verdict, written)
        connection.execute("select set_config('search_path', %s, true)", row)
        if verdict.notes:  # its definition was not recorded
            verdict.add("view_unknown", target, verdict.notes[0])
    elif rows and written.kind is not None:
        scan = _scan(connection, written.schema, written.name, None, hashed=False)
        _tell_foreign(verdict, target, scan, _foreign(connection, [target], scan.xmins))
        out = connection.execute(
            "select rows_out from lineage.write where target = %s and rows_out is not null order by id desc limit 1", (target,)
        ).fetchone()
        if out and scan.rows != out[0]:
            _tell_count(verdict, target, scan.rows, out[0], f"its last write recorded {out[0]:,}")
    return verdict.findings


def rebase(warehouse: Warehouse, releases: Path, why: str, dataset: str | None = None) -> list[str]:
    """Account for rows that other transactions wrote since (a restore, a rewrite by ``alter type``, a move to another server).

    Of ``dataset``, or of all tables that need it; returns them. Each must hold, by its digest, what it held after its last
    recorded write, and the records themselves must be intact. A table that is gone is recorded as dropped. Where a backup was
    restored that is older than the last anchor, the loss is written down beside the anchors. Raises UserError where one of them
    is otherwise; then no table is rebased, though those of rejected rows may be.
    """
    state = warehouse.state
    done: list[str] = []
    with warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection:
        target = _target(connection, dataset) if dataset else None
        records = Verdict()
        _chain(connection, records)
        _facets(connection, records)
        ahead = _anchored(connection, state, releases, records)
        wrong = [item for item in records.findings if item.code != "anchor_ahead"]
        if wrong:
            raise UserError(f"The records themselves are not as they were sealed, so they prove nothing: {wrong[0].message}")
        tables = _targets(connection, target)
        rejected = _rejected(connection, tables)
        chosen = [item for item in tables if (item.kind is None and target) or _needs_rebase(connection, item)]
        with warehouse.connect(Role.LOADER, autocommit=True) as loader:
            # Rejected rows first: what they are compared with is what the writes of their dataset left.
            done += _rebase(loader, [item for item in rejected if _needs_rebase(loader, item)], why)
            done += _rebase(connection, chosen, why)
        found = head(connection)
    if ahead and found is not None:
        anchor_loss(state, found, why)
        done.append("the anchors")
    seal(warehouse)
    return done


def _rebase(connection: Connection, chosen: list[_Written], why: str) -> list[str]:
    """All of them in one transaction, whose locks come before its snapshot."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        for item in chosen:
            if item.kind:
                name = sql.Identifier(item.schema, item.name)
                connection.execute(sql.SQL("lock table {} in access share mode").format(name))
        for item in chosen:
            try:
                connection.execute("select lineage.rebase(%s, %s)", (item.target, why))
            except psycopg.DatabaseError as error:
                if error.sqlstate != "DP001":
                    raise
                raise UserError(
                    f"{item.target} is not rebased: {error.diag.message_primary}; load or build it anew, which records who did it"
                ) from error
    return [item.target for item in chosen]


# Tables and views


@dataclass(frozen=True, slots=True)
class _Written:
    """What is written to, and its relation in the catalog now: ``kind`` as in ``pg_class``; None where it is gone."""

    target: str
    schema: str
    name: str
    kind: str | None
    delivered: bool
    """Whether its rows say which delivery brought them."""


_TARGETS = """
with recursive targets as (
    (select w.target from lineage.write w order by w.target limit 1)
    union all
    select (select w.target from lineage.write w where w.target > t.target order by w.target limit 1)
    from targets t where t.target is not null
)
select t.target, split_part(t.target, '.', 1), substr(t.target, strpos(t.target, '.') + 1), c.relkind::text,
    exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = c.oid and a.attname = '_delivery_id' and a.attnum > 0 and not a.attisdropped
    )
from targets t
left join pg_catalog.pg_namespace n on n.nspname = split_part(t.target, '.', 1)
left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = substr(t.target, strpos(t.target, '.') + 1)
where t.target is not null and t.target !~ '^(release:|quarantine[.])' and exists (
    select from lineage.write w where w.target = t.target and w.environment = %s
) and (%s::text is null or t.target = %s)
order by t.target
"""


def _target(connection: Connection, dataset: str) -> str:
    known = [item.target for item in _targets(connection, None)]
    found = [target for target in known if target == dataset] or [
        target for target in known if target.partition(".")[2] == dataset
    ]
    if len(found) == 1:
        return found[0]
    if raw := [target for target in found if target.startswith("raw.")]:
        return raw[0]
    if found:
        raise UserError(f"{dataset!r} may mean {' or '.join(found)}: say which.")
    raise UserError(f"Nothing called {dataset!r} was ever written here; {did_you_mean(dataset, known)}")


def _targets(connection: Connection, target: str | None) -> list[_Written]:
    return [_Written(*row) for row in connection.execute(_TARGETS, (PRODUCTION, target, target)).fetchall()]


def _written(warehouse: Warehouse, connection: Connection, verdict: Verdict, written: _Written) -> None:
    last = connection.execute(
        "select id, detail ->> 'dropped' from lineage.write where target = %s order by id desc limit 1", (written.target,)
    ).fetchone()
    assert last is not None
    if written.kind is None:
        if last[1] != "true":
            verdict.add(
                "gone",
                written.target,
                f"{written.target}, last written by write {last[0]}, is gone: it was dropped without a record; make it again, or"
                f" record why with `{_REBASE.format(written.target)}`",
            )
        return
    if written.kind == "v":
        verdict.views += 1
        _view(connection, verdict, written)
        return
    verdict.tables += 1
    try:
        with one_moment(connection, written.schema, written.name):
            _table(connection, verdict, written)
        for rejected in _rejected(connection, [written]):
            with warehouse.connect(Role.LOADER, autocommit=True) as loader, one_moment(loader, rejected.schema, rejected.name):
                _table(loader, verdict, rejected)
    except psycopg.errors.LockNotAvailable:
        verdict.notes.append(f"{written.target} is being replaced just now and was not looked at; ask again when that has ended")
    except psycopg.errors.UndefinedTable:
        verdict.notes.append(f"{written.target} was dropped meanwhile and was not looked at")


def _view(connection: Connection, verdict: Verdict, written: _Written) -> None:
    row = connection.execute(
        """
        select w.id, w.detail ->> 'definition_sha256',
            encode(sha256(convert_to(pg_get_viewdef(to_regclass(format('%%I.%%I', %s::text, %s::text))), 'UTF8')), 'hex')
        from lineage.write w
        where w.target = %s and w.kind in ('model', 'migration') order by w.id desc limit 1
        """,
        (written.schema, written.name, written.target),
    ).fetchone()
    if row is None or row[1] is None:
        verdict.notes.append(f"{written.target} is a view whose definition was not recorded yet; its next build records it")
    elif row[1] != row[2]:
        verdict.add(
            "view_changed",
            written.target,
            f"The view {written.target} is not defined as write {row[0]} recorded it: it was changed by hand; build it anew with"
            f" `dopa run --select {written.name}`",
        )


@dataclass
class _Scan:
    """One scan of a table: rows by transaction and by delivery, and the digest where it was asked for."""

    xmins: Counter[int] = field(default_factory=Counter)
    deliveries: Counter[int | None] = field(default_factory=Counter)
    sums: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def rows(self) -> int:
        return self.xmins.total()

    @property
    def digest(self) -> str:
        return f"{self.sums[0]}:{self.sums[1]}"


# How rows are told as text while they are hashed: as it was when the digest was taken.
_SETTINGS = (
    "set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres'; set local timezone = 'UTC';"
    " set local extra_float_digits = 1; set local bytea_output = 'hex'"
)


def _scan(connection: Connection, schema: str, name: str, delivery: str | None, *, hashed: bool) -> _Scan:
    by = sql.Identifier("r", delivery) if delivery else sql.SQL("null::bigint")
    if hashed:
        connection.execute(_SETTINGS)
    row_hash = sql.SQL("sha256(convert_to(r::text, 'UTF8'))" if hashed else "null::bytea")
    found = _Scan()
    statement = sql.SQL(
        """
        select xmin::text::bigint, delivery, count(*),
            sum(('x' || encode(substr(hash, 1, 8), 'hex'))::bit(64)::bigint),
            sum(('x' || encode(substr(hash, 9, 8), 'hex'))::bit(64)::bigint)
        from (select r.xmin, {} as delivery, {} as hash from {} r offset 0) hashed
        group by xmin, delivery
        """
    ).format(by, row_hash, sql.Identifier(schema, name))
    for xmin, number, count, first, second in connection.execute(statement):
        found.xmins[xmin] += count
        found.deliveries[number] += count
        found.sums[0] += int(first or 0)
        found.sums[1] += int(second or 0)
    return found


def _foreign(connection: Connection, targets: list[str], xmins: Iterable[int]) -> set[int]:
    """Those of ``xmins`` that no write of the targets on this server accounts for."""
    writes = connection.execute(
        """
        select w.transaction_id::text, case when w.kind = 'rebase' then w.detail -> 'xmins' end
        from lineage.write w where w.target = any(%s) and w.cluster = lineage.cluster()
        """,
        (targets,),
    ).fetchall()
    row = connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
    assert row is not None
    rebased = [xmin for _, accounted in writes for xmin in accounted or ()]
    return unaccounted(xmins, (int(write) for write, _ in writes), rebased, int(row[0]))


# The last write, and the last digest that still says what the table holds: a rebase changes no value.
_STANDING = """
select w.last, d.rows, d.digest, to_char(d.taken_at, 'YYYY-MM-DD HH24:MI')
from (
    select max(id) as last, max(id) filter (where kind <> 'rebase') as changed
    from lineage.write where target in (%(target)s, regexp_replace(%(target)s, '^quarantine[.]', 'raw.'))
) w
left join lateral (
    select * from lineage.digest d where d.target = %(target)s and d.write_id >= w.changed order by d.write_id desc limit 1
) d on true
"""


def _table(connection: Connection, verdict: Verdict, written: _Written) -> None:
    target = written.target
    rejected = written.schema == "quarantine"
    row = connection.execute(_STANDING, {"target": target}).fetchone()
    assert row is not None
    write, rows, digest, taken = row
    by = "delivery_id" if rejected else "_delivery_id" if written.delivered else None
    scan = _scan(connection, written.schema, written.name, by, hashed=digest is not None)
    verdict.rows += scan.rows
    if digest is None:
        verdict.notes.append(f"{target} has no digest since write {write} yet; `dopa lineage seal` takes it")
    before = len(verdict.findings)
    foreign = _foreign(connection, [target, *([f"raw.{written.name}"] if rejected else [])], scan.xmins)
    same = digest is not None and (scan.rows, scan.digest) == (rows, digest)
    if foreign and same:
        count = sum(scan.xmins[xmin] for xmin in foreign)
        verdict.add(
            "rewritten",
            target,
            f"{count:,} of the {scan.rows:,} rows of {target} are of transactions that no recorded write has, though all values"
            f" are those of write {write} (the digest agrees): it was restored, rewritten (alter type) or touched by hand; if"
            f" that was meant, run `{_REBASE.format(target)}`",
        )
    else:
        _tell_foreign(verdict, target, scan, foreign)
    if by:
        _deliveries(connection, verdict, written, scan)
    else:
        found = connection.execute(
            "select rows_out from lineage.write where target = %s and rows_out is not null order by id desc limit 1", (target,)
        ).fetchone()
        if found and scan.rows != found[0]:
            _tell_count(verdict, target, scan.rows, found[0], f"its last write recorded {found[0]:,}")
    if digest is not None and not same and len(verdict.findings) == before:
        verdict.add(
            "digest",
            target,
            f"The values of {target} are not those that it had after write {write} (digest taken {taken}), though its rows are as"
            " many and of recorded transactions: it was changed past the server; restore it, or load or build it anew",
        )


def _tell_foreign(verdict: Verdict, table: str, scan: _Scan, foreign: set[int]) -> None:
    for xmin in sorted(foreign)[:SHOWN]:
        verdict.add(
            "foreign_rows",
            table,
            f"{_rows(scan.xmins[xmin])} of {table} {'is' if scan.xmins[xmin] == 1 else 'are'} of transaction {xmin}, which no"
            f" recorded write of it has: inserted or changed by hand; see them with `select * from {table} where xmin ="
            f" '{xmin}'`, and load or build it anew",
        )
    if len(foreign) > SHOWN:
        verdict.add("foreign_rows", table, f"{len(foreign) - SHOWN:,} more transactions wrote rows of {table} without a record")


def _tell_count(verdict: Verdict, table: str, found: int, expected: int, recorded: str) -> None:
    more = found - expected
    what = f"{_rows(abs(more))} {'too many' if more > 0 else 'missing'}"
    by = "added" if more > 0 else "deleted"
    verdict.add(
        "row_count",
        table,
        f"{table} has {_rows(found)} and {recorded} ({what}): rows were {by} by hand; load or build it anew",
    )


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _deliveries(connection: Connection, verdict: Verdict, written: _Written, scan: _Scan) -> None:
    """Rows by delivery. Of rejected rows, retention may take the values, nothing the place."""
    counted = "rows_quarantined" if written.schema == "quarantine" else "rows_held"
    held: dict[int | None, int] = dict(
        connection.execute(
            sql.SQL("select id, {0} from ops.delivery where dataset = %s and status = 'loaded' and {0} <> 0").format(
                sql.Identifier(counted)
            ),
            (written.name,),
        ).fetchall()
    )
    numbers = sorted(held.keys() | scan.deliveries.keys(), key=lambda number: number or 0)
    differ = [number for number in numbers if held.get(number, 0) != scan.deliveries.get(number, 0)]
    for number in differ[:SHOWN]:
        expected = held.get(number, 0)
        recorded = f"of delivery {number}, ops.delivery says {expected:,}"
        _tell_count(verdict, written.target, scan.deliveries.get(number, 0), expected, recorded)
    if len(differ) > SHOWN:
        more = f"{len(differ) - SHOWN:,} more deliveries hold other numbers of rows of {written.target}"
        verdict.add("row_count", written.target, more)


def _rejected(connection: Connection, written: Iterable[_Written]) -> list[_Written]:
    """The tables of rejected rows of datasets."""
    names = [item.name for item in written if item.schema == "raw"]
    rows = connection.execute(
        """
        select c.relname, c.relkind::text
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'quarantine' and c.relname = any(%s) order by 1
        """,
        (names,),
    ).fetchall()
    return [_Written(f"quarantine.{name}", "quarantine", name, kind, True) for name, kind in rows]


def _needs_rebase(connection: Connection, written: _Written) -> bool:
    if written.kind not in ("r", "p", "m"):
        return False
    with one_moment(connection, written.schema, written.name):
        scan = _scan(connection, written.schema, written.name, None, hashed=False)
        rejected = [f"raw.{written.name}"] if written.schema == "quarantine" else []
        return bool(_foreign(connection, [written.target, *rejected], scan.xmins))


def _unrecorded(connection: Connection, verdict: Verdict) -> None:
    """Tables and views where only recorded ones may be. Parts of a table count with it."""
    for (name,) in connection.execute(
        """
        select n.nspname || '.' || c.relname
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('raw', 'staging', 'marts', 'open_data') and c.relkind in ('r', 'p', 'v', 'm', 'f')
            and not c.relispartition
            and not exists (select from lineage.write w where w.target = n.nspname || '.' || c.relname)
        order by 1
        """
    ).fetchall():
        verdict.add(
            "unrecorded_table",
            name,
            f"{name} stands among the datasets and no write of it is recorded: it was made by hand; drop it, or load or build it"
            " by its contract or model",
        )


# Records


_CHAIN = """
with sealed as (
    select s.*, lag(s.seq, 1, 0::bigint) over w as seq_before, lag(s.hash, 1, repeat('0', 64)) over w as hash_before
    from lineage.seal s window w as (order by s.seq)
), told as (
    select s.*, t.write_id, w.id as there_write, w.target, t.id is not null as there, t.told as subject_told, t.write_told
    from sealed s
    left join lineage.sealable t on t.subject = s.subject and t.id = s.subject_id
    left join lineage.write w on w.id = t.write_id
), held as (
    select seq, subject, subject_id, seq_before, there, there_write, target, write_sha256 is not null as of_write,
        seq = seq_before + 1 as follows,
        hash = encode(sha256(convert_to(concat_ws(' ',
            hash_before, seq, subject, subject_id, subject_sha256, coalesce(write_sha256, '-')), 'UTF8')), 'hex') as linked,
        subject_sha256 = encode(sha256(convert_to(subject_told, 'UTF8')), 'hex') as same_subject,
        write_sha256 is not distinct from encode(sha256(convert_to(write_told, 'UTF8')), 'hex') as same_write
    from told
)
select * from held where not (follows and linked and there and same_subject and same_write) order by seq
"""


def _chain(connection: Connection, verdict: Verdict) -> None:
    row = connection.execute(
        "select (select count(*) from lineage.write), (select count(*) from lineage.event), (select count(*) from lineage.seal)"
    ).fetchone()
    assert row is not None
    verdict.writes, verdict.events, verdict.seals = (int(count) for count in row)
    writes: set[int] = set()
    told: Counter[str] = Counter()
    for item in connection.execute(_CHAIN):
        seq, subject, number, before, there, write, target, of_write, follows, linked, same_subject, same_write = item
        place = f"lineage.{subject} {number}"
        found: list[tuple[str, str, str]] = []
        if not follows:
            gap = f"Seal {before + 1} is" if seq == before + 2 else f"Seals {before + 1} to {seq - 1} are"
            found.append(("seal_missing", f"lineage.seal {before + 1}", f"{gap} missing before seal {seq}: deleted by hand"))
        elif not linked:
            found.append(
                ("seal_changed", f"lineage.seal {seq}", f"Seal {seq} does not follow from the one before: it was edited")
            )
        if not there:
            found.append((f"{subject}_missing", place, f"{place}, sealed as {seq}, is gone: it was deleted by hand"))
        elif not same_subject:
            found.append((f"{subject}_changed", place, f"{place} is not what was sealed as {seq}: it was edited"))
        if there and of_write and write is None:
            found.append(("write_missing", place, f"The row of lineage.write that {place} is of is gone: it was deleted by hand"))
        elif there and not same_write and write is not None and write not in writes:
            writes.add(write)
            text = f"lineage.write {write} ({target}) is not what was sealed as {seq}: it was edited"
            found.append(("write_changed", f"lineage.write {write}", text))
        for code, about, message in found:
            told[code] += 1
            if told[code] <= SHOWN:
                verdict.add(code, about, f"{message}; restore it from a backup, and find out who may write there")
    for code, count in told.items():
        if count > SHOWN:
            verdict.add(code, "lineage.seal", f"{count - SHOWN:,} more findings of this kind ({code}) along the chain")


def _facets(connection: Connection, verdict: Verdict) -> None:
    """What events say alike stands apart, named by its SHA-256: seals are over names, so a text must be what its name says."""
    found = connection.execute(
        """
        with named as (
            select n.name #>> '{}' as sha256, min(e.id) as event
            from lineage.event e
            cross join lateral jsonb_path_query(e.event, '$.*.facets.*._facet') as n (name)
            where e.imported is null
            group by 1
        )
        select 'facet_missing', n.sha256, n.event
        from named n where not exists (select from lineage.facet f where f.sha256 = n.sha256)
        union all
        select 'facet_changed', f.sha256, n.event
        from lineage.facet f left join named n on n.sha256 = f.sha256
        where f.sha256 <> encode(sha256(convert_to(f.facet::text, 'UTF8')), 'hex')
        order by 1, 3, 2
        """
    ).fetchall()
    words = {
        "facet_missing": "is gone: it was deleted by hand",
        "facet_changed": "is not what its name is the SHA-256 of: it was edited",
    }
    for code, name, event in found[:SHOWN]:
        place = f"lineage.facet {name}"
        where = f", which lineage.event {event} names first," if event else ""
        message = f"{place}{where} {words[code]}; restore it from a backup, and find out who may write there"
        verdict.add(code, place, message)
    if len(found) > SHOWN:
        verdict.add("facet_changed", "lineage.facet", f"{len(found) - SHOWN:,} more facets are gone or edited")


def _anchored(connection: Connection, state: Path, releases: Path, verdict: Verdict) -> bool:
    """Whether what was written down outside lies on the chain; returns whether the chain ends before it."""
    row = connection.execute("select value from lineage.identity where key = 'cluster'").fetchone()
    assert row is not None
    path = anchor_file(state)
    try:
        # Read before the chain: a sealer that is at work now writes an anchor after its seals.
        entries = anchors(state, row[0])
        manifests = _of_releases(releases, row[0])
    except ValueError as error:
        verdict.add("anchor_changed", str(path), f"The anchors cannot be relied on: {error}; restore that file from a backup")
        return False
    found = head(connection)
    if found is not None and not entries:
        verdict.add(
            "anchor_missing",
            str(path),
            f"{path} has no anchor of this warehouse, though it has {found.seq:,} seals: restore that file from a backup, or run"
            " this with the DOPA_STATE that the warehouse is used with",
        )
    loss: tuple[str, int] | None = None
    given: list[tuple[str, int, str]] = []
    for entry in entries:
        if entry.get("lost"):
            lost = [item for item in given if item[1] > entry["seq"]]
            given = [item for item in given if item[1] <= entry["seq"]]
            loss = (str(entry.get("at")), entry["seq"])
            if lost:
                verdict.notes.append(
                    f"Seals {entry['seq'] + 1} to {max(item[1] for item in lost)} were lost, as was recorded at"
                    f" {entry.get('at')}: {entry.get('why')}"
                )
        given.append((f"the anchor of {entry.get('at')} in {path}", entry["seq"], entry["hash"]))
    given += [(where, seq, told) for where, seq, told, at in manifests if not loss or seq <= loss[1] or at > loss[0]]
    verdict.anchors = len(given)
    return _compare(connection, verdict, given, found)


def _of_releases(releases: Path, warehouse: str) -> list[tuple[str, int, str, str]]:
    """Which release it is, the seal that it knows, that seal's hash, and when it was made."""
    given = []
    for manifest in sorted(releases.glob("*/*/release.json")):
        if manifest.parent.is_symlink():
            continue
        try:
            told: Mapping[str, Any] = json.loads(manifest.read_text("utf-8"))
            entry = told.get("lineage") or {}
            if entry.get("warehouse") != warehouse:
                continue
            where = f"the release {manifest.parent.parent.name}/{manifest.parent.name}"
            given.append((where, int(entry["seq"]), str(entry["hash"]), str(told["created"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # publishing tells of a release that is damaged
    return given


def _compare(connection: Connection, verdict: Verdict, given: list[tuple[str, int, str]], found: Head | None) -> bool:
    seals = dict(
        connection.execute("select seq, hash from lineage.seal where seq = any(%s)", ([seq for _, seq, _ in given],)).fetchall()
    )
    end = found.seq if found else 0
    ahead = [item for item in given if item[1] > end]
    other = [item for item in given if item[1] <= end and seals.get(item[1]) != item[2]]
    if ahead:
        where, seq, _ = max(ahead, key=lambda item: item[1])
        verdict.add(
            "anchor_ahead",
            where.split(" in ")[-1],
            f"The chain ends with seal {end}, but {where} knows seal {seq}: what was recorded last was deleted, or an older"
            " backup restored; restore a later one, or record the loss with `dopa lineage rebase --why …`",
        )
    if other:
        where, seq, _ = min(other, key=lambda item: item[1])
        verdict.add(
            "anchor_differs",
            where.split(" in ")[-1],
            f"Seal {seq} is not the one that {where} knows ({len(other)} anchors disagree): records up to it were deleted or"
            " edited and sealed anew; restore them from a backup",
        )
    return bool(ahead)


def _agreement(connection: Connection, verdict: Verdict, target: str | None) -> None:
    """Events say of their writes what these say. What is not as it was sealed was told of already."""
    known = {finding.subject for finding in verdict.findings}
    rows = connection.execute(
        """
        select e.id, w.id, w.target
        from lineage.event e
        join lineage.write w on w.id = e.write_id
        cross join lateral (select e.event #> '{run,facets,dopa_write}' as facet) f
        where f.facet is not null and (%s::text is null or w.target = %s) and (
            (f.facet ->> 'writeId') is distinct from w.id::text
            or (f.facet ->> 'transactionId') is distinct from w.transaction_id::text
            or (f.facet ->> 'cluster') is distinct from w.cluster
            or (f.facet ->> 'writtenBy') is distinct from w.written_by
            or (e.event #>> '{outputs,0,outputFacets,outputStatistics,rowCount}') is distinct from w.rows_out::text
        )
        order by e.id
        """,
        (target, target),
    ).fetchall()
    for event, write, about in rows[:SHOWN]:
        if not known & {f"lineage.event {event}", f"lineage.write {write}"}:
            verdict.add(
                "event_disagrees",
                f"lineage.event {event}",
                f"lineage.event {event} does not say of {about} what lineage.write {write} says: one of them was edited before"
                " it was sealed; restore it from a backup",
            )


def _inputs(connection: Connection, verdict: Verdict, target: str | None) -> None:
    """Every input that a write names was written before it, and every delivery is on record."""
    rows = connection.execute(
        """
        with input as (
            select w.id, w.target, i.input
            from lineage.write w cross join lateral jsonb_array_elements(w.inputs) as i (input)
            where w.environment = %(environment)s and (%(target)s::text is null or w.target = %(target)s)
        ), named as (
            select id, target, input from input
            union all
            select id, target, r.input
            from input cross join lateral jsonb_array_elements(coalesce(input -> 'reads', '[]')) as r (input)
        ), ours as (
            select n.id, n.target, n.input ->> 'write' as write,
                case when starts_with(n.input ->> 'name', current_database() || '.')
                    then substr(n.input ->> 'name', length(current_database()) + 2) else n.input ->> 'name' end as name
            from named n
            where coalesce(n.input ->> 'namespace', (select value from lineage.identity where key = 'warehouse_namespace'))
                = (select value from lineage.identity where key = 'warehouse_namespace')
        )
        select o.id, o.target, o.name, o.write
        from ours o left join lineage.write s on s.id::text = o.write
        where s.id is null or s.id >= o.id or s.target <> o.name
        order by o.id
        """,
        {"environment": PRODUCTION, "target": target},
    ).fetchall()
    for write, about, name, given in rows[:SHOWN]:
        which = f"by write {given}, which is none of it" if given else "of which no write is recorded"
        verdict.add(
            "input_missing",
            f"lineage.write {write}",
            f"Write {write} of {about} names {name} {which}: it read what nobody recorded, or a record was deleted; load or build"
            f" {name}, then {about}, anew",
        )
    for write, about, number in connection.execute(
        """
        select w.id, w.target, w.detail ->> 'delivery'
        from lineage.write w left join ops.delivery d on d.id::text = w.detail ->> 'delivery'
        where w.kind = 'load' and w.detail ? 'delivery' and (%s::text is null or w.target = %s)
            and (d.id is null or d.sha256 is distinct from w.detail ->> 'sha256' or 'raw.' || d.dataset <> w.target)
        order by w.id limit %s
        """,
        (target, target, SHOWN),
    ).fetchall():
        verdict.add(
            "delivery_missing",
            f"lineage.write {write}",
            f"Write {write} of {about} names delivery {number}, which ops.delivery does not have so: it was deleted or edited;"
            " restore it from a backup",
        )


def _said(connection: Connection, verdict: Verdict) -> None:
    """What is not proved yet, and what this installation cannot prove."""
    row = connection.execute(
        """
        select
            (select count(*) from lineage.write w where w.environment = %s
                and not exists (select from lineage.event e where e.write_id = w.id)),
            (select count(*) from lineage.event e
                where not exists (select from lineage.seal s where s.subject = 'event' and s.subject_id = e.id)),
            (select value from lineage.identity where key = 'roles')
        """,
        (PRODUCTION,),
    ).fetchone()
    assert row is not None
    untold, unsealed, roles = row
    if untold:
        verdict.notes.append(f"{untold:,} writes have no event yet, so no seal; the end of the next run tells of them")
    if unsealed:
        verdict.notes.append(f"{unsealed:,} events are not sealed yet; `dopa lineage seal` seals them")
    if roles == "one":
        verdict.notes.append(
            "One database login plays every role here and may change records; that the chain is whole is shown by the anchors"
            " outside the database alone"
        )
