"""Loading rejected rows after all: once a contract was mended, a reference was delivered, or their bureau corrected them.

A replay is a delivery of its own, with who asked for it and why. It takes only rows of deliveries that still matter, and never
replaces a row, or adds to a scope, that came later. Rows that still break the contract stay in the quarantine. Where
the dataset has history, rows belong to the day of the snapshot that brought them, so that a replay takes those of one delivery.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import lzma
import re
import uuid
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.ingest.archive import Deposit, content_bytes
from dopa_pipelines.ingest.enforce import Plan
from dopa_pipelines.ingest.history import covering, same_key
from dopa_pipelines.ingest.load import Delivery, Load, scope_of, take_turn, work_of
from dopa_pipelines.ingest.quarantine import NUMBER, SHEET, WAITS
from dopa_pipelines.ingest.settle import settle_duplicates, settle_references
from dopa_pipelines.ingest.stream import Clock
from dopa_pipelines.ingest.tables import Renames
from dopa_pipelines.sources.batch import FLAW, ORIGINAL, ROW, Batch, batch_of
from dopa_pipelines.sources.office_file import UnusableError
from dopa_pipelines.sources.reader import clean_title
from dopa_pipelines.sources.workbook import read_sheet
from dopa_pipelines.warehouse import Role, Warehouse, unfinished

Connection = psycopg.Connection[Any]
BATCH_ROWS = 50_000


class NothingWaitsError(UserError):
    """No rejected row is there to be replayed."""


def is_corrected(path: Path) -> bool:
    """Whether a file is a workbook that ``dopa quarantine export`` wrote."""
    if path.suffix.lower() != ".xlsx" or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as book, book.open("xl/workbook.xml") as part:
            names = re.findall(rb'<sheet [^>]*name="([^"]*)"', part.read(1 << 20))
    except (KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError):
        return False
    return SHEET.encode() in names


def replay(
    warehouse: Warehouse,
    contract: Contract,
    *,
    why: str,
    delivery: int | None = None,
    corrected: Path | None = None,
    run_id: str | None = None,
) -> Delivery:
    """Enforce rejected rows again and load those that pass now.

    ``delivery``: only rows that this one brought. ``corrected``: a workbook with the rows' corrected values; only they are taken.
    ``rows_read`` of the result are the rows that were tried and ``rows_quarantined`` those that stay; the record of the delivery
    counts what it loaded. Where nothing passes, there is no delivery. Raises UserError where there is nothing to try.
    """
    clock = Clock()
    file = corrected.name if corrected else f"replay of {'delivery ' + str(delivery) if delivery else contract.dataset}"
    result = Delivery(contract.dataset, file, "", "loaded", run_id=run_id or str(uuid.uuid4()))
    values = _corrections(contract, corrected) if corrected else None
    with unfinished(file), warehouse.connect(Role.LOADER) as connection:
        take_turn(connection, contract)
        work = _Replay(warehouse, connection, contract, result, content_bytes(corrected) if corrected else 0, clock)
        rows = work.candidates(delivery, values)
        if not rows:
            raise NothingWaitsError(
                f"{contract.dataset}: no rejected row waits"
                + (
                    f" among those of {file}; they were replayed already, or a later delivery replaced them"
                    if values is not None
                    else ""
                )
            )
        try:
            if corrected:
                with Deposit(warehouse.archive, corrected, clock) as deposit:
                    result.sha256 = deposit.wait()
            else:
                result.sha256 = _name(contract, rows)
            with work_of(warehouse, contract, result, None, None) as going:
                work.enforce(rows)
                result.seconds = clock.rounded()
                if result.rows_loaded:
                    work.finish(result.seconds, why)
                    connection.commit()
                    going.done()
                else:
                    connection.rollback()
                    result.delivery = result.write = None
                    work.restore_views()
        except Exception as error:
            if work.dropped_views and not connection.closed:
                connection.rollback()
                work.restore_views()
            if isinstance(error, psycopg.errors.ProgramLimitExceeded):
                raise Rejected(f"{file}: {error.diag.message_primary}; a key value is too long") from error
            raise
    return result


def correct_again(warehouse: Warehouse, connection: Connection, contract: Contract, delivery: Delivery, clock: Clock) -> None:
    """Correct the rows of a delivery as they were corrected when the same content was loaded before, under another contract.

    Within the transaction that loads the delivery: there is no moment at which the corrections are lost.
    """
    found = connection.execute(
        sql.SQL(
            """
            select distinct on (new.id) new.id, old.corrected
            from {quarantine} new
            join {quarantine} old on old.file = new.file and old.row = new.row and old.corrected is not null
            join ops.delivery d on d.id = old.delivery_id and d.sha256 = %s and d.id <> %s
            where new.delivery_id = %s and new.replayed_by is null
            order by new.id, old.id desc
            """
        ).format(quarantine=sql.Identifier("quarantine", contract.dataset)),
        (delivery.sha256, delivery.delivery, delivery.delivery),
    ).fetchall()
    if not found:
        return
    connection.execute("drop table if exists incoming")
    result = Delivery(contract.dataset, f"corrections of {delivery.file}", "", "loaded", run_id=delivery.run_id)
    work = _Replay(warehouse, connection, contract, result, 0, clock)
    work.within = True
    rows = work.candidates(delivery.delivery, dict(found))
    result.sha256 = _name(contract, rows)
    work.enforce(rows)
    if result.rows_loaded:
        work.finish({}, f"corrected when {delivery.file} was loaded before")
        delivery.notes["corrected_again"] = result.rows_loaded
    else:
        connection.execute("delete from ops.delivery where id = %s", (result.delivery,))


def _name(contract: Contract, rows: list[dict[str, Any]]) -> str:
    """What stands for the content of a replay, which is no file."""
    ids = ",".join(str(row["id"]) for row in rows)
    return hashlib.sha256(f"replay:{contract.checksum}:{ids}".encode()).hexdigest()


class _Replay(Load):
    """The transaction of a replay. Rows are numbered by their place in the quarantine."""

    def candidates(self, delivery: int | None, values: dict[int, dict[str, str | None]] | None) -> list[dict[str, Any]]:
        """Rows that wait, with the text to enforce and the day and file of their delivery."""
        there = self.connection.execute(
            "select count(*) from pg_attribute where attrelid = to_regclass(%s) and attname = 'replayed_by'",
            (f"quarantine.{self.contract.dataset}",),
        ).fetchone()
        if not there or not there[0]:
            return []
        found = self.connection.execute(
            sql.SQL(
                """
                select q.id, q.original, coalesce(q.corrected, q.fields), q.delivery_id, d.as_of, d.received_at::date, d.file,
                    d.business_date
                from {} q
                join ops.delivery d on d.id = q.delivery_id and {}
                where q.replayed_by is null
                  and (%(delivery)s::bigint is null or q.delivery_id = %(delivery)s)
                  and (%(ids)s::bigint[] is null or q.id = any(%(ids)s))
                order by q.delivery_id, q.id
                """
            ).format(sql.Identifier("quarantine", self.contract.dataset), sql.SQL(WAITS)),
            {"delivery": delivery, "ids": None if values is None else list(values)},
        ).fetchall()
        if self.contract.has_history and found:
            latest = max(row[3] for row in found)
            found = [row for row in found if row[3] == latest]
            self.day = found[0][7]
        rows = []
        for number, original, fields, origin, as_of, received, file, _ in found:
            text = fields if values is None else (fields or {}) | values[number]
            rows.append(
                {
                    "id": number, "original": original, "fields": text, "delivery": origin, "as_of": as_of or received,
                    "file": file,
                }
            )  # fmt: skip
        self.corrected = {row["id"]: row["fields"] for row in rows} if values is not None else {}
        return rows

    def enforce(self, rows: list[dict[str, Any]]) -> None:
        """Fill ``incoming`` with the rows that pass now."""
        result = self.delivery
        as_of: date = max(row["as_of"] for row in rows)
        self.begin(as_of)
        self.make_incoming()
        result.rows_read = len(rows)
        statement = self.encoder.statement(self.incoming)
        unusable = sum(row["fields"] is None for row in rows)
        if unusable:
            result.notes["not_taken_apart"] = unusable
        still: Counter[str] = Counter()
        renames = Renames(self.connection, self.contract)
        for (origin, day, file), group in groupby(rows, key=lambda row: (row["delivery"], row["as_of"], row["file"])):
            plan = Plan(self.contract, day, self.contract.period_of(file))
            names = renames.since(origin)
            whole = [row | {"fields": in_names(row["fields"], names)} for row in group if row["fields"] is not None]
            self.corrected |= {row["id"]: row["fields"] for row in whole if row["id"] in self.corrected}
            for batch in batches_of(self.contract, whole):
                enforced = plan.apply(batch)
                still.update(enforced.codes)
                result.rows_loaded += enforced.accepted.height
                if enforced.accepted.height:
                    with self.connection.cursor().copy(statement) as copy:
                        for data in self.encoder.encode(enforced.accepted):
                            copy.write(data)
        late, unchecked = settle_references(self.connection, self.contract, self.incoming)
        late |= settle_duplicates(self.connection, self.contract, self.incoming)
        for reasons in late.values():
            still.update({str(reason["code"]) for reason in reasons})
        newer = self._leave_newer()
        if newer:
            still["duplicate_key"] += newer
        result.rows_loaded -= len(late) + newer
        result.rows_quarantined = result.rows_read - result.rows_loaded
        result.reasons = dict(sorted(still.items()))
        if unchecked:
            result.notes["references_not_checked"] = unchecked
        result.notes |= {"tried": result.rows_read, "still_rejected": result.rows_quarantined}

    def _leave_newer(self) -> int:
        """Take out rows whose key is in the table, which came later or was judged right before, or whose scope came later."""
        taken = 0
        if self.contract.load.mode == "replace_scope":
            taken += self.connection.execute(
                sql.SQL(
                    """
                    delete from incoming i using {quarantine} q
                    where q.id = i._row and exists (
                        select from {table} t
                        join ops.delivery d on d.id = t._delivery_id and not d.replayed
                        where t._delivery_id > q.delivery_id and array[{later}] = array[{own}]
                    )
                    """
                ).format(
                    quarantine=sql.Identifier("quarantine", self.contract.dataset),
                    table=self.table,
                    later=sql.SQL(", ").join(sql.SQL("{}::text").format(part) for part in scope_of(self.contract, "t")),
                    own=sql.SQL(", ").join(sql.SQL("{}::text").format(part) for part in scope_of(self.contract, "i")),
                )
            ).rowcount
        if self.contract.key:
            same = same_key(self.contract)
            if self.day is not None:
                same = sql.SQL("{} and {}").format(same, covering(self.day))
            taken += self.connection.execute(
                sql.SQL("delete from incoming i using {} t where {}").format(self.table, same)
            ).rowcount
        return taken

    def finish(self, seconds: dict[str, float], why: str) -> None:
        """Load what passed, mark it in the quarantine, record the delivery and its lineage."""
        result = self.delivery
        if self.contract.has_history:
            self.apply_difference(whole=False)
        else:
            self.insert()
        if self.corrected:
            self.connection.cursor().executemany(
                sql.SQL("update {} set corrected = %s where id = %s").format(sql.Identifier("quarantine", self.contract.dataset)),
                [(json.dumps(text, ensure_ascii=False), number) for number, text in self.corrected.items()],
            )
        self.connection.execute(
            sql.SQL("update {} q set replayed_by = %s from incoming i where q.id = i._row").format(
                sql.Identifier("quarantine", self.contract.dataset)
            ),
            (result.delivery,),
        )
        tried, stay = result.rows_read, result.rows_quarantined
        result.rows_read, result.rows_quarantined = result.rows_loaded, 0
        result.write = self.record_write(None)
        self.record(seconds)
        result.rows_read, result.rows_quarantined = tried, stay
        self.connection.execute(
            "update ops.delivery set requested_by = %s, why = %s, replayed = true where id = %s",
            (getpass.getuser(), why, result.delivery),
        )


def in_names(fields: dict[str, str | None], names: dict[str, str]) -> dict[str, str | None]:
    """Text by column, in other names; of two texts of a column the later one counts."""
    return {names.get(name, name): text for name, text in fields.items()}


def batches_of(contract: Contract, rows: list[dict[str, Any]]) -> Iterator[Batch]:
    """Rows of the quarantine (``id``, ``original``, ``fields``) as a reader would give them, numbered by their ``id``."""
    names = [column.name for column in contract.columns]
    for start in range(0, len(rows), BATCH_ROWS):
        part = rows[start : start + BATCH_ROWS]
        texts = [row["fields"] for row in part]
        frame = pl.DataFrame(
            {
                ROW: pl.Series([row["id"] for row in part], dtype=pl.Int64),
                ORIGINAL: pl.Series([row["original"] for row in part], dtype=pl.String),
                FLAW: pl.Series([None] * len(part), dtype=pl.String),
                **{name: pl.Series([text.get(name) for text in texts], dtype=pl.String) for name in names},
            }
        )
        yield batch_of(frame, names)


def _whole(number: str | None) -> int | None:
    """A place in the quarantine as a cell holds it, a number or its text; None of what cannot be one."""
    found = re.fullmatch(r"\s*0*([1-9][0-9]{0,17})(?:\.0*)?\s*", number or "")
    return int(found[1]) if found else None


def _corrections(contract: Contract, path: Path) -> dict[int, dict[str, str | None]]:
    """Corrected text by place in the quarantine. Raises Rejected where the workbook is not what was exported."""
    try:
        sheet = read_sheet(path, SHEET)
    except UnusableError as error:
        raise Rejected(f"{path.name}: {error}; correct the workbook that was exported, with its sheet {SHEET!r}") from error
    head = sheet.row(0) if sheet.height else ()
    titles = {clean_title(title): name for name, title in zip(sheet.columns, head, strict=False) if title}
    wanted = {column.name: titles.get(clean_title(column.title)) for column in contract.columns}
    missing = [contract.column(name).title for name, title in wanted.items() if title is None]
    if clean_title(NUMBER) not in titles or missing:
        lacking = ", ".join(missing or [NUMBER])
        raise Rejected(f"{path.name}: the column {lacking} is missing; correct values in place and leave the columns as they are")
    found: dict[int, dict[str, str | None]] = {}
    for place, row in enumerate(sheet.slice(1).iter_rows(named=True), 2):
        number = row[titles[clean_title(NUMBER)]]
        text = {name: row[title] for name, title in wanted.items() if title is not None}
        if number is None and not any(text.values()):
            continue
        key = _whole(number)
        if key is None:
            raise Rejected(
                f"{path.name}: row {place} has no {NUMBER}; new rows come with the bureau's own delivery, not with corrections"
            )
        if key in found:
            raise Rejected(f"{path.name}: row {place} repeats {NUMBER} {key}; each rejected row may be corrected once")
        found[key] = text
    return found
