"""One delivery, from file to table, in one transaction.

The order: read, enforce and copy piece by piece; settle what needs other rows; replace what the contract says; record the
delivery and its lineage; commit. Killed at any point, nothing of it is there; run again, it is done once. Rows go straight into a
table that nobody sees yet, if there is one: a new dataset's own, or the next partition of one that is replaced whole; otherwise
by way of the temporary table ``incoming``.
"""

from __future__ import annotations

import json
import uuid
from datetime import date, datetime
from pathlib import Path
from typing import Any

import psycopg

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.ingest.archive import Deposit, content_bytes
from dopa_pipelines.ingest.load import Delivery, Load, Progress, note_archived, take_turn, work_of
from dopa_pipelines.ingest.observe import Observe
from dopa_pipelines.ingest.replay import NothingWaitsError, correct_again, is_corrected, replay
from dopa_pipelines.ingest.stream import Clock, Files
from dopa_pipelines.sources import is_fetched
from dopa_pipelines.sources.containers import content_sha256, readable_name, unpacked
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.warehouse import Role, Warehouse, unfinished

Connection = psycopg.Connection[Any]


def ingest(
    warehouse: Warehouse,
    contract: Contract,
    path: Path,
    *,
    run_id: str | None = None,
    parent_run_id: str | None = None,
    as_of: date | None = None,
    accept_shrink: bool = False,
    progress: Progress | None = None,
    observe: Observe | None = None,
) -> Delivery:
    """Bring one delivery into ``raw.<dataset>``.

    ``as_of``: the day of the delivery (default today in Bangkok), which dates may not lie after; of a dataset with history also
    the day of the snapshot where its name states none. ``observe`` looks on while a file is loaded. The content that is in force
    under the same contract changes nothing (``unchanged``). A refused delivery is recorded with its problem (``rejected``) and
    loads nothing; so is a snapshot of no day, or of one after the delivery's. Raises UserError for what is no property of the
    data: a missing file, an impossible contract change.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; name a delivery of {contract.dataset}")
    if is_corrected(path):
        return _ingest_corrected(warehouse, contract, path, run_id)
    run = run_id or str(uuid.uuid4())
    today = datetime.now(BANGKOK).date()
    name = readable_name(path)
    if name != path.name:
        problem = f"{name}: its name is not UTF-8, so that it cannot be recorded; rename it"
        return _refuse(warehouse, contract, path, Delivery(contract.dataset, name, "", "rejected", run_id=run), problem)
    try:
        day = _business_date(contract, path, as_of, today)
    except Rejected as refusal:
        return _refuse(warehouse, contract, path, Delivery(contract.dataset, path.name, "", "rejected", run_id=run), str(refusal))
    delivery = Delivery(contract.dataset, path.name, "", "loaded", run_id=run)
    clock = Clock()
    with unfinished(path.name), warehouse.connect(Role.LOADER) as connection:
        take_turn(connection, contract)
        with clock.step("hash"):
            found = _in_force(connection, contract, path, delivery, day)
        if found is not None:
            delivery.status, delivery.delivery = "unchanged", found
            delivery.seconds = clock.rounded()
            return delivery
        deposit = Deposit(warehouse.archive, path, clock)
        observer = observe(contract) if observe else None
        load = Load(warehouse, connection, contract, delivery, content_bytes(path), clock, progress, day, observer)
        with work_of(warehouse, contract, delivery, day, parent_run_id) as work:
            try:
                with deposit, unpacked(path, warehouse.scratch) as parts:
                    load.run(Files(contract, parts), deposit, as_of or today, parent_run_id, accept_shrink)
                delivery.sha256 = deposit.sha256
                delivery.seconds = clock.rounded()
                with clock.step("commit"):
                    load.record(delivery.seconds)
                    if observer:
                        observer.loaded(connection, delivery)
                    if delivery.rows_quarantined:
                        correct_again(warehouse, connection, contract, delivery, clock)
                    connection.commit()
                    work.done()
            except BaseException as refusal:
                if load.dropped_views and not connection.closed:
                    connection.rollback()
                    load.restore_views()
                if not isinstance(refusal, Rejected):
                    raise
                connection.rollback()
                delivery.status, delivery.problem = "rejected", str(refusal)
                delivery.rows_loaded = 0
                delivery.sha256 = deposit.sha256
                delivery.seconds = clock.rounded()
                delivery.delivery = _record_refusal(warehouse, connection, contract, path, delivery)
                connection.commit()
                work.failed(delivery.problem)
    return delivery


def _ingest_corrected(warehouse: Warehouse, contract: Contract, path: Path, run_id: str | None) -> Delivery:
    """A workbook of rejected rows that came back: what passes now is loaded. It is refused where nothing of it is."""
    refused = Delivery(contract.dataset, path.name, "", "rejected", run_id=run_id or str(uuid.uuid4()))
    problem = ""
    try:
        done = replay(warehouse, contract, why=f"corrected by the bureau: {path.name}", corrected=path, run_id=refused.run_id)
        if done.delivery is not None:
            return done
        worst = ", ".join(f"{code} {count:,}" for code, count in done.reasons.items())
        refused.rows_read, refused.rows_quarantined, refused.reasons = done.rows_read, done.rows_quarantined, done.reasons
        problem = (
            f"{path.name}: none of its {done.rows_read:,} rows keeps the contract of {contract.dataset} ({worst}); they stay in"
            " the quarantine"
        )
    except (Rejected, NothingWaitsError) as refusal:
        problem = str(refusal)
    return _refuse(warehouse, contract, path, refused, problem)


def _refuse(warehouse: Warehouse, contract: Contract, path: Path, refused: Delivery, problem: str) -> Delivery:
    """Keep and record a delivery that is refused before it is read."""
    refused.problem = problem
    with unfinished(refused.file), warehouse.connect(Role.LOADER) as connection:
        take_turn(connection, contract)
        try:
            with Deposit(warehouse.archive, path, Clock()) as deposit:
                deposit.wait()
        except Rejected:
            pass  # it changed meanwhile, or is none that can be kept: refused all the same
        refused.sha256 = deposit.sha256
        refused.delivery = _record_refusal(warehouse, connection, contract, path, refused)
        with work_of(warehouse, contract, refused, None, None) as work:
            connection.commit()
            work.failed(problem)
    return refused


def _business_date(contract: Contract, path: Path, as_of: date | None, today: date) -> date | None:
    """The day that a snapshot is of; None where the dataset has no history.

    Raises Rejected where nobody says it, or it is yet to come.
    """
    if not contract.has_history:
        return None
    day = contract.business_date_of(path.name) or as_of or (today if is_fetched(contract) else None)
    if day is None:
        raise Rejected(
            f"{path.name}: its name does not state the day it is of ({contract.layout.period}, in {contract.path.name});"
            " name it so, or say the day with --as-of"
        )
    if day > (as_of or today):
        # It would decide, for good, until when every snapshot before it holds.
        raise Rejected(
            f"{path.name}: is of {day}, after the day of its delivery ({as_of or today}); correct its name, or say the day of the"
            " delivery with --as-of"
        )
    return day


def _in_force(connection: Connection, contract: Contract, path: Path, delivery: Delivery, day: date | None) -> int | None:
    """The delivery in force with the same content, of a snapshot also of the same day.

    Content of a size that none has need not be hashed to know.
    """
    rows = connection.execute(
        """
        select sha256, id from ops.delivery
        where dataset = %s and bytes = %s and contract_checksum = %s and in_force and status = 'loaded'
          and to_regclass(%s) is not null and (%s::date is null or business_date = %s)
        order by id
        """,
        (contract.dataset, content_bytes(path), contract.checksum, contract.table, day, day),
    ).fetchall()
    if not rows:
        return None
    delivery.sha256 = content_sha256(path)
    return dict(rows).get(delivery.sha256)


def _record_refusal(warehouse: Warehouse, connection: Connection, contract: Contract, path: Path, delivery: Delivery) -> int:
    row = connection.execute(
        """
        insert into ops.delivery (
            dataset, bureau, file, sha256, bytes, contract_version, contract_checksum, run_id, status, in_force,
            rows_read, rows_loaded, rows_quarantined, rows_layout, reasons, problem, seconds, notes
        ) values (%s, %s, %s, %s, %s, %s, %s, %s, 'rejected', false, %s, 0, %s, %s, %s, %s, %s, %s) returning id
        """,
        (
            contract.dataset, contract.bureau, delivery.file, delivery.sha256, content_bytes(path), contract.version,
            contract.checksum, delivery.run_id, delivery.rows_read, delivery.rows_quarantined, delivery.rows_layout,
            json.dumps(delivery.reasons), delivery.problem, json.dumps(delivery.seconds),
            json.dumps(delivery.notes, ensure_ascii=False),
        ),
    ).fetchone()  # fmt: skip
    assert row is not None
    note_archived(warehouse, connection, delivery.sha256, content_bytes(path))
    return int(row[0])
