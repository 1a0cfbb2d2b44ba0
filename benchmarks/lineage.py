"""Column lineage against what PostgreSQL shows: ours and two peers on the same statements.

What depends on what is taken from the oracle (``dopa_pipelines.lineage.prove``), not from any parser. Peers tell no dataset-wide
or indirect edges, so dependences of values are counted apart: those that an output column carries (our DIRECT ones), each shown
by a trial. ``python -m benchmarks.lineage PEER`` reads statements as JSON and prints a peer's edges, in a process of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Row
from dopa_pipelines.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("sqllineage", "openlineage-sql")
Pair = tuple[str, str, str]
"""Base table, its column, output column."""


def measure(settings: Settings) -> list[Row]:
    """Dependences missed, falsely claimed, and time a statement; and the time of the project's own models."""
    from dopa_pipelines.lineage.columns import analyze
    from dopa_pipelines.lineage.prove import Proof, prove, shares
    from dopa_pipelines.warehouse import Role, open_warehouse
    from tests.lineage import suite

    schema = suite.schema()
    tried = [statement for statement in suite.statements() if not statement.excluded]
    ours = [analyze(statement.sql, schema, statement=statement.name) for statement in tried]
    seconds = []
    for statement in tried:
        started = time.perf_counter()
        analyze(statement.sql, schema, statement=statement.name)
        seconds.append(time.perf_counter() - started)
    proofs: list[Proof] = []
    with open_warehouse(settings) as warehouse, warehouse.connect(Role.TRANSFORMER, autocommit=True) as connection:
        for statement, lineage in zip(tried, ours, strict=True):
            proofs.append(prove(connection, statement.sql, schema, lineage, name=statement.name))
    true: dict[str, set[Pair]] = {}
    of_values: dict[str, set[Pair]] = {}
    for proof in proofs:
        shown = true.setdefault(proof.name, set())
        values = of_values.setdefault(proof.name, set())
        for claim in proof.seen:
            outputs = proof.outputs if claim.output < 0 else (proof.outputs[claim.output],)
            shown |= {(claim.table, claim.column, output) for output in outputs}
            if claim.direct:
                values.add((claim.table, claim.column, proof.outputs[claim.output]))
        shown |= {(item.table, item.column, item.output) for item in proof.unexplained}
    unexplained = sum(len(proof.unexplained) for proof in proofs)
    share = shares(proofs)
    total = sum(map(len, of_values.values()))
    rows = [
        Row(
            f"column lineage of {len(tried)} statements: dependences seen that no edge explains",
            str(unexplained), "", "", "0", unexplained == 0,
        ),
        Row("direct edges that no trial has shown", f"{share['direct']:.1%}", "", "", "≤ 5 %", share["direct"] <= 0.05),
        Row("indirect edges that no trial has shown", f"{share['indirect']:.1%}", "", "", "≤ 10 %", share["indirect"] <= 0.10),
    ]  # fmt: skip
    mine = statistics.mean(seconds)
    base = {table.name: list(table.columns) for table in schema.base_tables().values()}
    asked = {"columns": base, "statements": {statement.name: statement.sql for statement in tried}}
    for peer in PEERS:
        told = _ask(peer, asked)
        if told is None:
            rows.append(Row(f"column lineage against {peer}", "", "not installed"))
            continue
        edges = {name: {(table, column, output) for table, column, output in found} for name, found in told["edges"].items()}
        missed = sum(len(values - edges.get(name, set())) for name, values in of_values.items())
        false = sum(len(found - true[name]) for name, found in edges.items())
        claimed = sum(map(len, edges.values()))
        theirs = told["seconds"] / len(tried)
        wrong = claimed and false / claimed
        rows += [
            Row(f"dependences of values missed, of {total}", str(unexplained), f"{peer} {missed} ({missed / total:.0%})"),
            Row("claims that no trial has shown", f"{share['direct']:.1%}", f"{peer} {wrong:.1%} of {claimed}"),
            Row("time a statement", f"{mine * 1e3:.1f} ms", f"{peer} {theirs * 1e3:.1f} ms", f"{theirs / mine:.1f}"),
        ]
    rows.append(_models(settings))
    return rows


def _models(settings: Settings) -> Row:
    from dopa_pipelines.contracts import load_contracts
    from dopa_pipelines.lineage.columns.project import compiled, lineages, raw_schema
    from dopa_pipelines.transform import Project

    project = Project(settings)
    sql, raw = compiled(project), raw_schema(load_contracts(settings.contracts))
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        count = len(list(lineages(project.models, sql, raw)))
        taken.append((time.perf_counter() - started) / count)
    each = statistics.median(taken)
    return Row(f"column lineage of the project's {count} models, each", f"{each * 1e3:.1f} ms", "", "", "≤ 20 ms", each <= 0.02)


def _ask(peer: str, asked: dict[str, Any]) -> dict[str, Any] | None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.lineage", peer],
        cwd=ROOT, input=json.dumps(asked), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        if "ModuleNotFoundError" in done.stderr:
            return None
        raise RuntimeError(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


# -- peers ------------------------------------------------------------------------------------------------------------


def _as_write(sql: str) -> str:
    """Both tell columns only of what is written somewhere."""
    first = sql.lower().lstrip("( \n-")
    return sql if first.startswith(("create", "insert")) else f"create table result.made as {sql}"


def _sqllineage(columns: dict[str, list[str]]) -> Callable[[str], list[Pair]]:
    from sqllineage.core.metadata.dummy import (  # type: ignore[import-not-found, unused-ignore]
        DummyMetaDataProvider,
    )
    from sqllineage.runner import LineageRunner  # type: ignore[import-not-found, unused-ignore]

    known = DummyMetaDataProvider(columns)

    def edges(sql: str) -> list[Pair]:
        paths = LineageRunner(_as_write(sql), dialect="postgres", metadata_provider=known).get_column_lineage()
        return [(str(path[0].parent).replace("<default>", "public"), path[0].raw_name, path[-1].raw_name) for path in paths]

    return edges


def _openlineage_sql(columns: dict[str, list[str]]) -> Callable[[str], list[Pair]]:
    import openlineage_sql  # type: ignore[import-untyped, import-not-found, unused-ignore]

    def edges(sql: str) -> list[Pair]:
        found = openlineage_sql.parse([_as_write(sql)], dialect="postgres", default_schema="public")
        return [
            (source.origin.qualified_name if source.origin else "", source.name, item.descendant.name)
            for item in (found.column_lineage if found else [])
            for source in item.lineage
        ]

    return edges


def main(peer: str) -> None:
    """Print the edges that a peer finds; a statement that it cannot read has none."""
    asked = json.load(sys.stdin)
    find = {"sqllineage": _sqllineage, "openlineage-sql": _openlineage_sql}[peer](asked["columns"])
    found: dict[str, list[Pair]] = {}
    started = time.perf_counter()
    for name, sql in asked["statements"].items():
        try:
            found[name] = find(sql)
        except Exception:  # whatever it raises, it does not know
            found[name] = []
    print(json.dumps({"edges": found, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main(sys.argv[1])
