"""Feeds that are fetched, not sent: departmental databases and JSON APIs.

What was fetched is written as JSON lines into the spool, and that file is the delivery: it has a checksum, can be read twice and
looked at later. Addresses and credentials come from the environment variables that the contract names.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dopa_pipelines.contracts import Contract
from dopa_pipelines.errors import Rejected, UserError

ATTEMPTS = 4
MAX_PAGES = 100_000
TIMEOUT_SECONDS = 30.0


def is_fetched(contract: Contract) -> bool:
    return contract.layout.format in ("json_api", "sql")


def fetch(contract: Contract, spool: Path) -> Path:
    """Fetch the feed into ``spool`` and return the file, in place only once it is whole.

    Raises UserError where the address is not configured, Rejected where the silo does not answer as its contract says.
    """
    variable = contract.layout.url_environment or ""
    address = os.environ.get(variable)
    if not address:
        raise UserError(
            f"{contract.dataset}: the environment variable {variable} (named in {contract.path.name}) is not set;"
            " set it to the address of the silo"
        )
    spool.mkdir(parents=True, exist_ok=True)
    final = spool / f"{contract.dataset}.jsonl"
    partial = spool / f".{contract.dataset}.{os.getpid()}.part"
    records = _query(contract, address) if contract.layout.format == "sql" else _pages(contract, address)
    try:
        with partial.open("w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False, default=str))
                file.write("\n")
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    return final


def _query(contract: Contract, address: str) -> Iterator[dict[str, Any]]:
    import psycopg
    from psycopg.rows import dict_row

    try:
        with (
            psycopg.connect(address, row_factory=dict_row, connect_timeout=15) as connection,
            connection.cursor(name="dopa_feed") as cursor,
        ):
            cursor.itersize = 10_000
            cursor.execute(contract.layout.query.encode() if contract.layout.query else b"")
            yield from cursor
    except psycopg.Error as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Rejected(
            f"{contract.dataset}: the departmental database did not answer ({first});"
            f" check {contract.layout.url_environment} and the query in {contract.path.name}"
        ) from error


def _pages(contract: Contract, address: str) -> Iterator[dict[str, Any]]:
    import httpx

    layout = contract.layout
    token = os.environ.get(layout.token_environment or "", "")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    page: Any = 1
    seen: set[str] = set()
    with httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS) as client:
        while page is not None:
            if str(page) in seen or len(seen) >= MAX_PAGES:
                raise Rejected(f"{contract.dataset}: the API names page {page!r} again; its paging does not end")
            seen.add(str(page))
            body = _get(client, contract, address, {layout.page_parameter: str(page)})
            records = body.get(layout.records_path)
            if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
                raise Rejected(
                    f"{contract.dataset}: page {page} of the API has no list of objects under {layout.records_path!r};"
                    f" compare recordsPath in {contract.path.name} with what it sends"
                )
            yield from records
            page = body.get(layout.next_page)


def _get(client: Any, contract: Contract, address: str, parameters: dict[str, str]) -> dict[str, Any]:
    import httpx

    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.2 * 2**attempt)
        try:
            response = client.get(address, params=parameters)
            if response.status_code < 400:
                body = response.json()
                if isinstance(body, dict):
                    return body
                problem = "it sends no JSON object"
            else:
                problem = f"status {response.status_code}"
                if response.status_code < 500 and response.status_code not in (408, 429):
                    break
        except (httpx.HTTPError, ValueError) as error:
            problem = str(error) or type(error).__name__
    raise Rejected(
        f"{contract.dataset}: the API did not answer page {', '.join(parameters.values())} ({problem});"
        f" check {contract.layout.url_environment}"
        + (f" and {contract.layout.token_environment}" if contract.layout.token_environment else "")
    )
