"""Whether claimed lineage is true, asked of PostgreSQL: change one column, run the statement again, see what differs.

This module knows no SQL. It fills the base tables with small generated data, changes one column of one table at a time and
compares what comes out; of a statement that changes a table, what that table then holds. Each dependence that it sees must be
explained by an edge (``columns`` claims them); what is claimed and never seen is counted, since claiming everything would explain
everything.

All of it happens in schemas of its own inside a transaction that is rolled back, so it may run on any database where the role can
create schemas. Names of the statement that carry a schema are led there by replacing the schema's name in its text.

Volatile statements (``random()``, ``now()`` across runs, ``nextval``) and those whose result depends on the physical order of
rows (``limit`` without a total order) differ without reason; whoever gives statements leaves them out by name.
"""

from __future__ import annotations

import datetime as dt
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import pq

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.columns.model import Lineage
from dopa_pipelines.lineage.columns.names import SYSTEM_COLUMNS
from dopa_pipelines.lineage.columns.schema import Schema, Table, View

Place = tuple[str, str]
"""Schema and name of a base table."""
BaseColumn = tuple[str, str]
"""A base table as edges call it, and its column."""
Cells = list[str | None]

ROWS = (9, 14, 22)
"""Rows of a table, by turns: few, so that single rows matter; more, so that joins of many tables find partners."""
FIRST_SEEDS = 3
"""Sets of data that every column is tried on."""
MORE_SEEDS = 14
"""Further sets, only for claims that nothing has shown yet."""
TRIES = 10
"""Sets of data of which the one is taken on which the statement gives most."""
WIDTHS = (0, 0, 6, 4, 3, 3, 2, 2, 3, 4)
"""How many values a column then has at most, for each try; 0: all of its domain."""
TRIALS = 900
SECONDS = 30
"""The most trials and time of one statement; what is not seen by then stays unseen."""
_TIMEOUT_MS = 1000
_PREPARED = "dopa_proof"
_CHANGES = ("shift", "some", "permute", "null", "one", "same", "fresh")


@dataclass(frozen=True, order=True)
class Claim:
    """An edge as far as it can be seen. ``output`` is the position of a column, or -1: which rows there are."""

    table: str
    column: str
    output: int
    direct: bool


@dataclass(frozen=True, order=True)
class Unexplained:
    """An output column that changed with a base column and has no edge from it. An empty name: only rows changed."""

    table: str
    column: str
    output: str
    change: str

    def __str__(self) -> str:
        what = f"the column {self.output}" if self.output else "which rows there are"
        return f"{what} depends on {self.table}.{self.column} (seen when its values were changed: {self.change}), without an edge"


@dataclass
class Proof:
    """What the trials of one statement showed. ``trials`` counts its runs; ``failed`` those that the database refused, such as a
    division by a zero that a change brought in.
    """

    name: str
    outputs: tuple[str, ...] = ()
    claims: set[Claim] = field(default_factory=set)
    seen: set[Claim] = field(default_factory=set)
    unexplained: set[Unexplained] = field(default_factory=set)
    trials: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def unseen(self) -> list[Claim]:
        return sorted(self.claims - self.seen)

    def counts(self) -> dict[str, int]:
        """Claims and those never seen, direct and indirect."""
        return {
            "direct": sum(claim.direct for claim in self.claims),
            "direct_unseen": sum(claim.direct for claim in self.unseen),
            "indirect": sum(not claim.direct for claim in self.claims),
            "indirect_unseen": sum(not claim.direct for claim in self.unseen),
        }

    def as_json(self) -> dict[str, Any]:
        def told(claim: Claim) -> dict[str, Any]:
            output = self.outputs[claim.output] if claim.output >= 0 else None
            kind = "DIRECT" if claim.direct else "INDIRECT"
            return {"table": claim.table, "column": claim.column, "output": output, "type": kind}

        return {
            "name": self.name,
            "unexplained": [
                {"table": item.table, "column": item.column, "output": item.output or None, "change": item.change}
                for item in sorted(self.unexplained)
            ],
            "unseen": [told(claim) for claim in self.unseen],
            **self.counts(),
            "trials": self.trials,
            "failed": self.failed,
            "seconds": round(self.seconds, 3),
        }


def shares(proofs: Iterable[Proof]) -> dict[str, float]:
    """The shares of direct and of indirect claims that no trial has shown, 0 to 1."""
    total: Counter[str] = Counter()
    for proof in proofs:
        total.update(proof.counts())
    return {
        kind: total[f"{kind}_unseen"] / total[kind] if total[kind] else 0.0
        for kind in ("direct", "indirect")
    }  # fmt: skip


def prove(
    connection: psycopg.Connection[Any],
    sql: str,
    schema: Schema,
    lineage: Lineage,
    *,
    name: str = "",
    domains: Mapping[str, Sequence[str]] | None = None,
    tables: Iterable[Place] | None = None,
) -> Proof:
    """Try a statement's claimed lineage against the database.

    ``connection`` must be in autocommit mode and may create schemas; nothing of it stays. ``tables``: the base tables to make, by
    default all of ``schema`` whose names occur in the text; ``domains``: values of ``table.column`` (or of a column name), where
    generated ones would not do. Raises UserError where PostgreSQL never runs the statement or gives other columns than claimed.
    """
    started = time.monotonic()
    trial = _Trial(connection, sql, schema, lineage, name, domains or {}, tables)
    try:
        trial.run(started + SECONDS)
    finally:
        trial.close()
    trial.proof.seconds = time.monotonic() - started
    return trial.proof


def prove_all(connection: psycopg.Connection[Any], sql: str, schema: Schema, lineage: Lineage, *, name: str = "") -> list[Proof]:
    """Proofs of all that a statement does: one of its output, and one of each part of ``Lineage.also``, as ``prove`` has them."""
    made = []
    for part in (lineage, *lineage.also):
        called = name if part is lineage else f"{name}: {part.target or 'returning'}"
        made.append(prove(connection, sql, schema, part, name=called))
    return made


@dataclass(frozen=True)
class _Result:
    """What a run gave: a fingerprint of each column and of the rows."""

    columns: tuple[Any, ...]
    rows: Any
    filled: int = field(default=0, compare=False)
    """Columns in which any row has a value."""


class _Refused(Exception):  # noqa: N818 - not an error here: a changed value may well be impossible
    pass


class _Trial:
    """One statement on one connection."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        sql: str,
        schema: Schema,
        lineage: Lineage,
        name: str,
        domains: Mapping[str, Sequence[str]],
        tables: Iterable[Place] | None,
    ) -> None:
        if not connection.autocommit:
            raise UserError("The connection for a proof must be in autocommit mode: the proof has a transaction of its own")
        self.server = connection.pgconn
        self.encoding = connection.info.encoding
        self.lineage, self.schema = lineage, schema
        self.proof = Proof(name, tuple(title for title, _ in lineage.columns))
        self.prefix = f"dopa_proof_{connection.info.backend_pid}_"
        self.text = sql.strip().rstrip(";")
        self.prepared = False
        self.views = _mentioned(schema.views(), self.text)
        everything = " ".join([self.text, *(view.sql for view in self.views.values())])
        base = schema.base_tables()
        self.tables: dict[Place, Table] = (
            {place: base[place] for place in tables} if tables is not None else _mentioned(base, everything)
        )
        self.target = self._target()
        self.domain = _Domains(everything, list(self.tables.values()), {**schema.domains, **domains})
        self.statement = self.moved(self.text)
        if lineage.target is not None:
            listed = ", ".join(_quoted(title) for title in self.proof.outputs)
            self.statement += f"\n; select {listed} from {self.moved(lineage.target)}"
        self.by_column: dict[BaseColumn, set[Claim]] = {}
        self.paired: dict[BaseColumn, set[frozenset[int]]] = {}
        for output, (_, edges) in enumerate(lineage.columns):
            for edge in edges:
                self._claim(Claim(edge.table, edge.column, output, edge.direct))
        for edge in lineage.dataset:
            self._claim(Claim(edge.table, edge.column, -1, False))

    def _claim(self, claim: Claim) -> None:
        self.by_column.setdefault((claim.table, claim.column), set()).add(claim)
        if claim.column not in SYSTEM_COLUMNS:  # nobody can change those
            self.proof.claims.add(claim)

    def _target(self) -> Place | None:
        """The table that the statement fills, which stays empty before: what comes out is what it puts in."""
        if self.lineage.target is None or self.lineage.kept:
            return None
        *before, name = self.lineage.target.split(".")
        for candidate in before or self.schema.search_path:
            if (candidate, name) in self.tables:
                return candidate, name
        return None

    # -- the database -------------------------------------------------------------------------------------------------

    def moved(self, text: str) -> str:
        return moved(text, self.schema, self.prefix)

    def send(self, text: str) -> pq.abc.PGresult:
        result = self.server.exec_(text.encode(self.encoding))
        if result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
            raise _Refused(result.error_message.decode("utf-8", "replace").strip())
        return result

    def begin(self) -> None:
        made = sorted({place[0] for place in (*self.tables, *self.views)} | set(self.schema.search_path))
        path = ", ".join(_quoted(self.prefix + name) for name in self.schema.search_path)
        self.send(
            "begin; set local client_min_messages = error; set local geqo_threshold = 5; set local jit = off;"
            " set local max_parallel_workers_per_gather = 0; set local timezone = 'UTC'; set local datestyle = 'ISO';"
            f" set local statement_timeout = {_TIMEOUT_MS};"
            + "".join(f" create schema {_quoted(self.prefix + name)};" for name in made)
            + f" set local search_path = {path}, pg_catalog;"
        )
        for place, table in self.tables.items():
            self.send(self._create(place, table))
        waiting = dict(self.views)
        while waiting:  # a view may need another
            failures: list[str] = []
            for place, view in list(waiting.items()):
                self.send("savepoint view")
                try:
                    query = self.moved(view.sql.strip().rstrip(";"))
                    whole = query[:6].lower() == "create"
                    self.send(query if whole else f"create view {self._name(place)} as {query}")
                    del waiting[place]
                except _Refused as error:
                    self.send("rollback to savepoint view")
                    failures.append(f"{'.'.join(place)}: {error}")
            if len(failures) == len(waiting) and waiting:
                raise UserError(f"{self.proof.name or 'The statement'}: a view cannot be made: {failures[0]}")

    def _create(self, place: Place, table: Table) -> str:
        parts = [f"{_quoted(column)} {kind}" for column, kind in table.columns.items()]
        for number, key in enumerate(self._keys(table)):
            parts.append(("primary key" if number == 0 else "unique") + f" ({', '.join(map(_quoted, key))})")
        return f"create table {self._name(place)} ({', '.join(parts)})"

    def _keys(self, table: Table) -> tuple[tuple[str, ...], ...]:
        return self.schema.keys.get(table.name, ())

    def _name(self, place: Place) -> str:
        return f"{_quoted(self.prefix + place[0])}.{_quoted(place[1])}"

    def close(self) -> None:
        if self.server.transaction_status != pq.TransactionStatus.IDLE:
            self.server.exec_(b"rollback")
        if self.prepared:
            self.server.exec_(f"deallocate {_PREPARED}".encode())
            self.prepared = False

    # -- trials -------------------------------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        refused = ""
        worked = 0
        for seed in range(FIRST_SEEDS + MORE_SEEDS):
            if worked >= FIRST_SEEDS and (not (self.proof.claims - self.proof.seen) or self.spent(until)):
                break
            chance = random.Random(f"{self.proof.name} {seed}")
            try:
                self.begin()
                try:
                    self.prepare()
                    data, before = self.fill(chance, seed)
                except _Refused as error:
                    refused = str(error)
                    continue
                self.vary(chance, seed, data, before, thorough=worked < FIRST_SEEDS, until=until)
                worked += 1
                if worked >= FIRST_SEEDS:
                    self.settle()
            except _Refused as error:
                raise UserError(f"{self.proof.name or 'The statement'} cannot be tried: {error}") from None
            finally:
                self.close()
        if not worked:
            raise UserError(f"{self.proof.name or 'The statement'} cannot be tried, PostgreSQL refuses it: {refused}")

    def spent(self, until: float) -> bool:
        return self.proof.trials >= TRIALS or time.monotonic() > until

    def fill(self, chance: random.Random, seed: int) -> tuple[dict[Place, dict[str, Cells]], _Result]:
        """Data on which the statement gives something: of some tries, narrower each time, the one that gives most."""
        best: tuple[int, dict[Place, dict[str, Cells]], _Result] | None = None
        refused: _Refused | None = None
        self.send("savepoint filled")
        for attempt in range(TRIES):
            data = {
                place: self.domain.rows(
                    table,
                    self._keys(table),
                    self.count(seed),
                    chance,
                    nulls=(seed + attempt) % 3 != 0,
                    width=WIDTHS[attempt],
                )
                for place, table in self.tables.items()
                if place != self.target
            }
            try:
                result = self.result("".join(f"{self._insert(place, columns)}; " for place, columns in data.items()))
            except _Refused as error:
                refused = error
                continue
            if best is None or result.filled > best[0]:
                best = result.filled, data, result
            if result.filled == len(self.proof.outputs):
                break
        if best is None:
            raise refused or _Refused("it gives nothing")
        _, data, result = best
        self.send("".join(f"{self._insert(place, columns)}; " for place, columns in data.items()) + "savepoint filled")
        return data, result

    def prepare(self) -> None:
        """Plan a query once: of statements over eight tables, planning takes longer than running them."""
        if self.lineage.target is None:
            self.send(f"prepare {_PREPARED} as {self.statement}")
            self.prepared = True

    def count(self, seed: int) -> int:
        """Rows of each table; fewer where many tables are joined, which would multiply them."""
        return ROWS[seed % len(ROWS)] if len(self.tables) < 5 else 11 + seed % 3

    def _insert(self, place: Place, columns: Mapping[str, Cells]) -> str:
        rows = ", ".join(f"({', '.join(map(_literal, row))})" for row in zip(*columns.values(), strict=True))
        return f"insert into {self._name(place)} values {rows}" if rows else "select"

    def vary(
        self,
        chance: random.Random,
        seed: int,
        data: dict[Place, dict[str, Cells]],
        before: _Result,
        *,
        thorough: bool,
        until: float,
    ) -> None:
        """Change columns by turns. What has no claim is changed all at once, and looked for only if that changed anything."""
        quiet: list[tuple[Place, str]] = []
        for place, columns in data.items():
            table = self.tables[place]
            for column in columns:
                claims = self.by_column.get((table.name, column))
                if claims is None:
                    quiet.append((place, column))
                    continue
                enough = (1 if seed else 2) if thorough else 0
                for number, change in enumerate(_CHANGES[seed % 2 :: 2] if thorough else _CHANGES):
                    if (number >= enough and claims <= self.proof.seen) or self.spent(until):
                        break
                    self.try_one(place, column, change, data, before, chance)
        if thorough and quiet:
            for change in ("some", "null", "permute", "shift"):
                changed = {
                    (place, column): self.changed(place, column, change, data, chance) for place, column in quiet
                }  # fmt: skip
                try:
                    after = self.result(self._replace(data, {key: cells for key, cells in changed.items() if cells is not None}))
                except _Refused:
                    self.proof.failed += 1
                    after = None
                if after is None or after != before:
                    for place, column in quiet:
                        self.try_one(place, column, change, data, before, chance)

    def try_one(
        self,
        place: Place,
        column: str,
        change: str,
        data: dict[Place, dict[str, Cells]],
        before: _Result,
        chance: random.Random,
    ) -> None:
        cells = self.changed(place, column, change, data, chance)
        if cells is None:
            return
        try:
            after = self.result(self._replace(data, {(place, column): cells}))
        except _Refused:
            self.proof.failed += 1
            return
        self.compare(self.tables[place].name, column, change, before, after)

    def compare(self, table: str, column: str, change: str, before: _Result, after: _Result) -> None:
        moved = [place for place, (one, two) in enumerate(zip(before.columns, after.columns, strict=True)) if one != two]
        rows_moved = before.rows != after.rows
        if not moved and not rows_moved:
            return
        claims = self.by_column.get((table, column), set())
        about_rows = any(claim.output == -1 for claim in claims)
        for claim in claims:
            if claim.output == -1 or claim.output in moved:
                self.proof.seen.add(claim)
        if not moved and not claims <= self.proof.seen:
            # Each column holds the same values as before, paired otherwise: one has moved without which rows are the same.
            places = frozenset(place for place in range(len(before.columns)) if _same_without(place, before, after))
            self.paired.setdefault((table, column), set()).add(places)
        for place in moved:
            if not about_rows and not any(claim.output == place for claim in claims):
                self.proof.unexplained.add(Unexplained(table, column, self.proof.outputs[place], change))
        if not moved and not claims:
            self.proof.unexplained.add(Unexplained(table, column, "", change))

    def settle(self) -> None:
        """What only a pairing has shown counts as seen, unless a column that is known to have moved explains the pairing."""
        for key, pairings in self.paired.items():
            claims = self.by_column.get(key, set())
            known = {claim.output for claim in claims & self.proof.seen}
            for places in pairings:
                if not places & known:
                    self.proof.seen.update(claim for claim in claims if claim.output in places)

    def changed(
        self, place: Place, column: str, change: str, data: dict[Place, dict[str, Cells]], chance: random.Random
    ) -> Cells | None:
        """New values of a column, None where the change is not possible: a key stays a key."""
        cells = data[place][column]
        table = self.tables[place]
        keys = [key for key in self._keys(table) if column in key]
        domain = self.domain.of(table, column)
        made = list(cells)
        if change == "permute":
            chance.shuffle(made)
        elif any(len(key) == 1 for key in keys):
            # Still a key: some rows take values that no row has.
            free = [value for value in self.domain.numbered(table, column, len(cells)) if value not in cells]
            for row in chance.sample(
                range(len(cells)), min(len(free), 1 if change == "one" else len(cells) // 2 + 1, len(cells))
            ):
                made[row] = free.pop(chance.randrange(len(free)))
        elif change == "shift":
            following = dict(zip(domain, [*domain[1:], *domain[:1]], strict=True))
            made = [following.get(cell, cell) if cell is not None else domain[0] for cell in cells]
        elif change == "some":
            made = [chance.choice(domain) if chance.random() < 0.5 else cell for cell in cells]
        elif change == "null":
            if keys:
                return None
            made = [None if chance.random() < 0.4 else cell for cell in cells]
        elif change == "one" and cells:
            made[chance.randrange(len(made))] = chance.choice(domain)
        elif change == "same":
            made = [chance.choice(domain)] * len(cells)
        elif change == "fresh":
            fresh = self.domain.fresh(table, column)
            if not fresh:
                return None
            made = [chance.choice(fresh) if chance.random() < 0.5 else cell for cell in cells]
        if made == cells:
            return None
        for key in keys:
            parts = [made if part == column else data[place][part] for part in key]
            if len(set(zip(*parts, strict=True))) < len(cells):
                return None if change == "permute" else self.changed(place, column, "permute", data, chance)
        return made

    def _replace(self, data: dict[Place, dict[str, Cells]], changed: Mapping[tuple[Place, str], Cells]) -> str:
        parts = []
        for place in dict.fromkeys(place for place, _ in changed):
            columns = {column: changed.get((place, column), cells) for column, cells in data[place].items()}
            parts.append(f"delete from {self._name(place)}; {self._insert(place, columns)}; ")
        return "".join(parts)

    def result(self, preparation: str) -> _Result:
        """Run the statement on what ``preparation`` makes of the data, which is then as it was."""
        self.proof.trials += 1
        try:
            found = self.send(preparation + (f"execute {_PREPARED}" if self.prepared else self.statement))
        finally:
            if preparation or self.lineage.target is not None or self.server.transaction_status == pq.TransactionStatus.INERROR:
                self.server.exec_(b"rollback to savepoint filled")
        outputs = tuple((found.fname(place) or b"").decode("utf-8") for place in range(found.nfields))
        if outputs != self.proof.outputs:
            claimed, given = ", ".join(self.proof.outputs), ", ".join(outputs)
            raise UserError(
                f"{self.proof.name or 'The statement'}: PostgreSQL gives the columns ({given}), claimed are ({claimed})"
            )
        columns = [[found.get_value(row, place) for row in range(found.ntuples)] for place in range(found.nfields)]
        rows = list(zip(*columns, strict=True)) if columns else [()] * found.ntuples
        filled = sum(any(cell is not None and cell != b"0" for cell in cells) for cells in columns)
        if self.lineage.ordered:
            return _Result(tuple(tuple(cells) for cells in columns), tuple(rows), filled)
        return _Result(tuple(Counter(cells) for cells in columns), Counter(rows), filled)


def moved(text: str, schema: Schema, prefix: str) -> str:
    """A text in which names of the schema's tables lead to schemas of that prefix; a database's name before them is taken out."""
    schemas: dict[str, set[str]] = {}
    for place in schema.tables:
        schemas.setdefault(place[0], set()).add(place[1])
    for name, known in schemas.items():
        spelled = "|".join(sorted((_spelled(table) for table in known), key=len, reverse=True))
        pattern = rf'(?<![\w".$])(?:(?:"[^"]+"|\w+)\s*\.\s*)?{_spelled(name)}\s*\.\s*(?=(?:{spelled})(?![\w"]))'
        text = re.sub(pattern, f"{_quoted(prefix + name)}.", text)
    return text


def column_types(connection: psycopg.Connection[Any], schema: Schema) -> dict[Place, dict[str, str]]:
    """The columns of the schema's views with their types, as PostgreSQL sees them. Each view may use those before it.

    Nothing of it stays. Raises UserError where a view cannot be made.
    """
    trial = _Trial(connection, "", schema, Lineage((), frozenset()), "The schema", {}, schema.base_tables())
    trial.views = schema.views()
    try:
        trial.begin()
        found: dict[Place, dict[str, str]] = {}
        for place in trial.views:
            asked = trial.send(
                "select attname, format_type(atttypid, atttypmod) from pg_attribute"
                f" where attrelid = {_literal(trial._name(place))}::regclass and attnum > 0 order by attnum"
            )
            cells = [[asked.get_value(row, column) or b"" for column in (0, 1)] for row in range(asked.ntuples)]
            found[place] = {name.decode(): kind.decode() for name, kind in cells}
        return found
    finally:
        trial.close()


def _same_without(place: int, before: _Result, after: _Result) -> bool:
    def rest(result: _Result) -> Counter[Any]:
        rows = result.rows if isinstance(result.rows, tuple) else result.rows.elements()
        return Counter(row[:place] + row[place + 1 :] for row in rows)

    return rest(before) == rest(after)


# -- generated data ---------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"""'((?:[^']|'')*)'|"((?:[^"]|"")*)"|([^\W\d]\w*)|(\d+(?:\.\d+)?)""")
_REACH = 14
"""How many words after a column's name a literal still belongs to it."""
_TEXTS = ("10", "11", "1001", "1101", "100101", "110101", "10010101", "7")
"""Digits that begin alike: they can be joined, cut off, cast to numbers and sorted."""
_WHOLE = ("1", "2", "3", "4", "5", "6")
_DAYS = tuple(dt.date(2024, 1, 15) + dt.timedelta(days) for days in (0, 1, 20, 45, 120, 400))
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class _Domains:
    """Few values for each column, so that joins meet and filters pass: literals that stand near its name, and common ones."""

    def __init__(self, text: str, tables: Sequence[Table], given: Mapping[str, Sequence[str]]) -> None:
        self.given = given
        known = {column.casefold() for table in tables for column in table.columns}
        self.near: dict[str, list[str]] = {}
        self.all: list[str] = []
        last: list[str] = []
        distance = 0
        for match in _TOKEN.finditer(text):
            literal, quoted, word, number = match.groups()
            if literal is None and number is None:
                name = (quoted or word or "").casefold()
                if name in known:
                    last, distance = [name, *(other for other in last if other != name)][:2], 0
                else:
                    distance += 1
                continue
            value = literal.replace("''", "'") if literal is not None else number
            self.all.append(value)
            if distance < _REACH:
                for name in last:
                    self.near.setdefault(name, []).append(value)
        self.kept: dict[tuple[str, str], list[str]] = {}

    def of(self, table: Table, column: str) -> list[str]:
        """The values of a column, as PostgreSQL reads them; two at least."""
        key = (table.name, column)
        if key not in self.kept:
            given = self.given.get(f"{table.name}.{column}") or self.given.get(column)
            made = list(given) if given else self.made(table.columns[column], self.near.get(column.casefold(), []))
            self.kept[key] = list(dict.fromkeys(made))
        return self.kept[key]

    def made(self, kind: str, near: list[str]) -> list[str]:
        base = kind.lower().strip()
        if base.endswith("[]"):
            inner = self.made(base[:-2], near)[:4]
            shapes: tuple[list[int], ...] = ([0], [1], [0, 1], [2, 0, 1], [1, 1], [])
            return ["{" + ",".join(f'"{inner[place % len(inner)]}"' for place in shape) + "}" for shape in shapes]
        base = re.sub(r"\(.*?\)", "", base).strip()
        if base in ("smallint", "integer", "int", "bigint", "int2", "int4", "int8"):
            numbers = [int(value) for value in near if value.isdigit() and len(value) < 5]
            return [*(str(value + step) for value in numbers[:6] for step in (0, 1, -1)), *_WHOLE]
        if base in ("numeric", "decimal", "real", "double precision", "float8", "float4", "money"):
            numeric = [value for value in near if re.fullmatch(r"\d+(\.\d+)?", value)]
            around = [f"{float(value) + step:g}" for value in numeric[:6] for step in (0, 1, -1, 0.5)]
            return [*around, *_WHOLE, "2.5"]
        if base in ("boolean", "bool"):
            return ["true", "false"]
        if base.startswith(("date", "timestamp")):
            days = [_day(found) for value in (*near, *self.all) for found in _DATE.findall(value)]
            dates = [day + dt.timedelta(step) for day in dict.fromkeys(days) if day for step in (0, 1, 40, -1, -100)][:15]
            clock = "" if base == "date" else " 10:30:00"
            return [f"{day.isoformat()}{clock}" for day in (dates or _DAYS)]
        if base in ("json", "jsonb"):
            return self.documents()
        if base in ("text", "varchar", "character varying", "char", "character", "bpchar", "name", "citext"):
            own = [value.replace("%", "").replace("_", "x") if "%" in value else value for value in near]
            if own:
                return [*own[:8], *_TEXTS[:3]]
            common = [value for value in dict.fromkeys(self.all) if value and not re.search(r"[%{}\[\]$]", value)]
            return [*_TEXTS, *common[:3]]
        fixed = _OTHER.get(base)
        if fixed is None:
            raise UserError(f"No values can be made for the type {kind}; give the column a domain")
        return list(fixed)

    def documents(self) -> list[str]:
        """Objects with the keys that the text names."""
        keys = [value for value in dict.fromkeys(self.all) if re.fullmatch(r"[^\W\d]\w*", value)][:6] or ["a"]
        made = []
        for number in range(5):
            inner = ", ".join(f'"{key}": "{number + place}"' for place, key in enumerate(keys))
            made.append("{" + inner + "}")
        return made

    def fresh(self, table: Table, column: str) -> list[str]:
        """Values that are nowhere else."""
        base = re.sub(r"\(.*?\)", "", table.columns[column].lower()).strip()
        if f"{table.name}.{column}" in self.given or column in self.given:
            return []
        if base in ("smallint", "integer", "int", "bigint", "int2", "int4", "int8", "numeric", "decimal"):
            return ["41", "77", "103"]
        if base in ("text", "varchar", "character varying"):
            return ["41", "4102", "98"]
        return ["2031-05-06", "1994-02-03"] if base == "date" else []

    def rows(
        self, table: Table, keys: Sequence[Sequence[str]], count: int, chance: random.Random, *, nulls: bool, width: int
    ) -> dict[str, Cells]:
        """Columns of random values; in a key no combination comes twice, and nothing is null."""
        of_keys = {column for key in keys for column in key}
        made: dict[str, Cells] = {}
        for column in table.columns:
            domain = self.of(table, column)
            if width and column.casefold() in self.near:
                domain = chance.sample(domain, min(width, len(domain)))
            elif width:
                domain = domain[:width]  # the same everywhere, so that joins meet
            share = 0.1 if nulls and column not in of_keys else 0.0
            made[column] = [None if chance.random() < share else chance.choice(domain) for _ in range(count)]
        for key in keys:
            if len(key) == 1:
                more = self.numbered(table, key[0], count)[: count + 3]
                count = min(count, len(more))
                made[key[0]] = list(chance.sample(more, count))
        made = {column: cells[:count] for column, cells in made.items()}
        for key in keys:
            seen: set[tuple[str | None, ...]] = set()
            keep = []
            for row, combination in enumerate(zip(*(made[column] for column in key), strict=True)):
                if combination not in seen:
                    keep.append(row)
                seen.add(combination)
            made = {column: [cells[row] for row in keep] for column, cells in made.items()}
        return made

    def numbered(self, table: Table, column: str, count: int) -> list[str]:
        """More values than rows, for a key."""
        domain = self.of(table, column)
        if re.sub(r"\(.*?\)", "", table.columns[column].lower()).strip() in ("smallint", "integer", "int", "bigint", "numeric"):
            return [*domain, *(str(number) for number in range(1, count + 8) if str(number) not in domain)]
        return domain


_OTHER: dict[str, tuple[str, ...]] = {
    "interval": ("1 day", "2 days", "1 month", "3 hours"),
    "time": ("08:00", "09:30", "17:45"),
    "time without time zone": ("08:00", "09:30", "17:45"),
    "uuid": tuple(f"00000000-0000-0000-0000-00000000000{number}" for number in range(1, 6)),
    "bytea": ("\\x01", "\\x02", "\\x0304"),
    "int4range": ("[1,3)", "[2,5)", "[4,9)", "empty"),
    "int8range": ("[1,3)", "[2,5)", "[4,9)", "empty"),
    "numrange": ("[1,3)", "[2,5)", "[4,9)"),
    "daterange": ("[2024-01-01,2024-02-01)", "[2024-01-20,2024-03-01)", "[2024-04-01,2024-05-01)"),
    "tsrange": ("[2024-01-01,2024-02-01)", "[2024-01-20,2024-03-01)", "[2024-04-01,2024-05-01)"),
    "inet": ("10.0.0.1", "10.0.0.2", "192.168.1.1"),
    "point": ("(1,1)", "(2,3)", "(0,5)"),
}


def _day(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None


def _mentioned(known: Mapping[Place, Any], text: str) -> dict[Place, Any]:
    """What of ``known`` is named in the text, or in the text of a view that is."""
    found: dict[Place, Any] = {}
    looked = text.casefold()
    while True:
        more = {
            place: item for place, item in known.items() if place not in found and place[1].casefold() in looked
        }  # fmt: skip
        if not more:
            return {place: known[place] for place in known if place in found}
        found |= more
        looked += " ".join(item.sql.casefold() for item in more.values() if isinstance(item, View))


def _spelled(name: str) -> str:
    """A pattern for a name, quoted or, where the catalog's spelling allows it, not."""
    quoted = re.escape(_quoted(name))
    return f"(?:{quoted}|(?i:{re.escape(name)}))" if re.fullmatch(r"[^\W\dA-Z][^\WA-Z]*", name) else quoted


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(cell: str | None) -> str:
    if cell is None:
        return "null"
    text = cell.replace("'", "''")
    return "E'" + text.replace("\\", "\\\\") + "'" if "\\" in cell else f"'{text}'"
