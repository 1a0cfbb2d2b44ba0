"""Claimed lineage against what PostgreSQL does, and the oracle against lineage that is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from dopa_pipelines.cli import lineage as commands
from dopa_pipelines.cli.main import app
from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.columns import Edge, Lineage, Schema, Subtype, analyze
from dopa_pipelines.lineage.columns.project import compiled, lineages, raw_schema
from dopa_pipelines.lineage.prove import Proof, prove, prove_all, shares
from dopa_pipelines.lineage.proving import prove_models
from dopa_pipelines.settings import Settings
from dopa_pipelines.transform import Project
from dopa_pipelines.warehouse import Role, Warehouse
from tests.lineage import suite

SMALL = Schema.from_json(
    {
        "a": {"id": "integer", "k": "integer", "x": "integer", "y": "text", "z": "date"},
        "b": {"id": "integer", "k": "integer", "w": "numeric"},
        "keys": {"a": [["id"]], "b": [["id"]]},
    }
)


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[psycopg.Connection[Any]]:
    with warehouse.connect(Role.TRANSFORMER, autocommit=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def sql(settings: Settings) -> dict[str, str]:
    """The models, compiled once for all tests here."""
    return compiled(Project(settings))


def test_no_dependence_is_unexplained(connection: psycopg.Connection[Any]) -> None:
    """Over all statements; and little is claimed that nothing shows."""
    schema, proofs = suite.schema(), []
    started = time.monotonic()
    for statement in suite.statements():
        lineage = analyze(statement.sql, schema, statement=statement.name)
        if not statement.excluded:
            proofs += prove_all(connection, statement.sql, schema, lineage, name=statement.name)
    said = tell("statements", proofs, started)
    assert [f"{proof.name}: {item}" for proof in proofs for item in sorted(proof.unexplained)] == []
    assert len(proofs) >= 150
    assert shares(proofs)["direct"] <= 0.05, said
    assert shares(proofs)["indirect"] <= 0.10, said


def test_no_dependence_of_a_model_is_unexplained(
    connection: psycopg.Connection[Any], settings: Settings, sql: dict[str, str]
) -> None:
    started = time.monotonic()
    project = Project(settings)
    proofs = list(prove_models(connection, project, load_contracts(settings.contracts), sql=sql))
    said = tell("models", proofs, started)
    # A seed has no SQL: what it is made of is its file.
    assert [proof.name for proof in proofs] == [model.target for model in project.models if not model.is_seed]
    assert [f"{proof.name}: {item}" for proof in proofs for item in sorted(proof.unexplained)] == []
    assert shares(proofs)["direct"] <= 0.05, said
    assert shares(proofs)["indirect"] <= 0.10, said


def test_models_are_resolved_within_20_milliseconds_each(settings: Settings, sql: dict[str, str]) -> None:
    project = Project(settings)
    raw = raw_schema(load_contracts(settings.contracts))
    assert len(list(lineages(project.models, sql, raw))) == sum(not model.is_seed for model in project.models)
    started = time.perf_counter()
    made = list(lineages(project.models, sql, raw))
    assert (time.perf_counter() - started) / len(made) < 0.02
    # What a column is made of over several models, by hand.
    by_name = {found.model.name: found.lineage for found in made}
    rooms = by_name["hotels_by_province"].edges("rooms")
    assert {(edge.table, edge.column, edge.subtype.value) for edge in rooms} == {("marts.hotels", "rooms", "AGGREGATION")}
    sex = by_name["stg_person_register"].edges("sex")
    assert {(edge.table, edge.column, edge.subtype.value) for edge in sex} == {("raw.person_register", "sex", "CONDITIONAL")}


def tell(what: str, proofs: list[Proof], started: float) -> str:
    never = shares(proofs)
    said = (
        f"{len(proofs)} {what}, {sum(proof.trials for proof in proofs)} trials, {time.monotonic() - started:.1f} s; never seen:"
        f" {never['direct']:.1%} of direct edges, {never['indirect']:.1%} of indirect ones"
    )
    print(said)
    return said


# -- the oracle finds what is wrong -----------------------------------------------------------------------------------

QUERIES = [
    "select a.x + 1 as o, upper(a.y) as p from a join b on b.k = a.k where b.w > 2",
    "select k as o, count(*) as p, max(z) as q from a group by k having min(x) > 1",
    "select id as o, sum(x) over (partition by k order by z, id) as p, case when y = 'u' then x end as q from a",
    "select o from (select x as o, row_number() over (partition by k order by z, id) as n from a) t where n = 1",
    "select id as o from a except select k from b where w > 2",
    "select id as o, (select max(w) from b where b.k = a.k) as p from a",
    "select y as o from a order by z, id limit 3",
    "update a set x = b.k + 1 from b where b.id = a.id and b.w > 2",
    "delete from a using b where b.id = a.id and b.w > 2",
    "merge into b using a on a.id = b.id when matched and a.x > 2 then update set w = a.k"
    " when not matched then insert values (a.id)",
    "with d as (delete from b where w > 2 returning id, k) select a.y as o, d.k as p from a join d on d.id = a.id",
]


@pytest.mark.parametrize("query", QUERIES)
def test_an_edge_that_is_left_out_is_noticed(connection: psycopg.Connection[Any], query: str) -> None:
    """Every one of them, unless another edge from the same column still explains what is seen."""
    right = analyze(query, SMALL)
    assert prove(connection, query, SMALL, right).unexplained == set()
    dropped = 0
    for wrong, edge, output in without_one(right):
        of_rows = any(other[:2] == edge[:2] for other in wrong.dataset)
        left = {title for title, edges in wrong.columns for other in edges if other[:2] == edge[:2]}
        if of_rows or output in left or (not output and len(left) == len(wrong.columns)):
            continue
        dropped += 1
        found = prove(connection, query, SMALL, wrong).unexplained
        assert (edge.table, edge.column) in {(item.table, item.column) for item in found}, (edge, output)
    assert dropped >= 1


def without_one(lineage: Lineage) -> Iterator[tuple[Lineage, Edge, str]]:
    for place, (title, edges) in enumerate(lineage.columns):
        for edge in edges:
            columns = list(lineage.columns)
            columns[place] = (title, edges - {edge})
            yield replace(lineage, columns=tuple(columns)), edge, title
    for edge in lineage.dataset:
        yield replace(lineage, dataset=lineage.dataset - {edge}), edge, ""


def test_an_edge_that_is_made_up_is_never_seen(connection: psycopg.Connection[Any]) -> None:
    sql = "select x as o, y as p from a"
    right = analyze(sql, SMALL)
    assert prove(connection, sql, SMALL, right).unseen == []
    (o, edges), p = right.columns
    wrong = replace(
        right,
        columns=((o, edges | {Edge("a", "y", Subtype.IDENTITY)}), p),
        dataset=frozenset({Edge("a", "k", Subtype.FILTER)}),
    )
    proof = prove(connection, sql, SMALL, wrong)
    assert {(claim.column, claim.output, claim.direct) for claim in proof.unseen} == {("y", 0, True), ("k", -1, False)}
    assert shares([proof]) == {"direct": pytest.approx(1 / 3), "indirect": 1.0}


def test_columns_of_another_name_are_refused(connection: psycopg.Connection[Any]) -> None:
    wrong = Lineage((("another", frozenset()),), frozenset())
    with pytest.raises(UserError, match=r"PostgreSQL gives the columns \(x\), claimed are \(another\)"):
        prove(connection, "select x from a", SMALL, wrong, name="q")


def test_a_statement_that_never_runs_is_refused(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(UserError, match=r"q cannot be tried, PostgreSQL refuses it: .*nowhere"):
        prove(connection, "select x from a, nowhere", SMALL, Lineage((("x", frozenset()),), frozenset()), name="q")


def test_nothing_stays(connection: psycopg.Connection[Any]) -> None:
    def everything() -> list[Any]:
        return connection.execute("select nspname from pg_namespace where nspname like 'dopa%' order by 1").fetchall()

    before = everything()
    prove(connection, QUERIES[0], SMALL, analyze(QUERIES[0], SMALL))
    assert everything() == before
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert connection.execute("select count(*) from pg_prepared_statements where name like 'dopa%'").fetchall() == [(0,)]


def test_the_command(settings: Settings, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPA_STATE", str(settings.state))
    done = CliRunner().invoke(app, ["lineage", "prove", "hotels_by_province", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [model["name"] for model in told["models"]] == ["marts.hotels_by_province"]
    assert told["unexplained"] == 0
    unknown = CliRunner().invoke(app, ["lineage", "prove", "nothing_of_the_kind"])
    assert isinstance(unknown.exception, UserError)
    assert commands.group.info.help
