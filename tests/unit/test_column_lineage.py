"""Column lineage against answers written by hand, and what it refuses.

Answers are short: ``t.a=I`` is an identity of t.a; T transformation, A aggregation, and of the indirect ones J join, F filter,
G group by, S sort, W window, C conditional; ``!`` is masked. ``*`` holds what decides rows.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dopa_pipelines.cli.main import app
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.columns import Edge, LineageError, Schema, analyze, read_schema
from tests.lineage import suite

LETTERS = {
    "I": "IDENTITY", "T": "TRANSFORMATION", "A": "AGGREGATION", "J": "JOIN", "F": "FILTER", "G": "GROUP_BY", "S": "SORT",
    "W": "WINDOW", "C": "CONDITIONAL",
}  # fmt: skip

TABLES = {
    "t": {"id": "int", "a": "int", "b": "text", "c": "date", "j": "jsonb", "arr": "int[]"},
    "u": {"id": "int", "d": "int", "e": "text"},
    "s.v": {"id": "int", "g": "text"},
    "คน": {"เลข": "int", "ชื่อ": "text"},
    "views": {"w": "select id, a + 1 as a1 from t where b = 'x'", "s.deep": "select w.a1, v.g from w join s.v using (id)"},
}

ANSWERS: list[tuple[str, dict[str, str]]] = [
    ("select a, b from t", {"a": "t.a=I", "b": "t.b=I"}),
    ("select a as x, (b) as y from t", {"x": "t.a=I", "y": "t.b=I"}),
    ("select a + 1 as x, b || 'z' as y, a::text as z from t", {"x": "t.a=T", "y": "t.b=T", "z": "t.a=T"}),
    ('select b collate "C" as b from t', {"b": "t.b=I"}),
    ("select * from u", {"id": "u.id=I", "d": "u.d=I", "e": "u.e=I"}),
    ("select x.* from (select u.*, d + 1 as f from u) x", {"id": "u.id=I", "d": "u.d=I", "e": "u.e=I", "f": "u.d=T"}),
    ("select 1 as one from t where a > 1 and b is null", {"one": "", "*": "t.a=F t.b=F"}),
    ("select count(*), count(a), sum(a), min(b) from t", {"count": "t.a=A!", "sum": "t.a=A", "min": "t.b=A"}),
    ("select b, sum(a) from t group by b having max(c) > date '2020-01-01'", {"b": "t.b=I", "sum": "t.a=A", "*": "t.b=G t.c=F"}),
    ("select upper(b) as k, count(*) as n from t group by k", {"k": "t.b=T", "n": "", "*": "t.b=G"}),
    # an input column before an output name in GROUP BY, an output name before an input column in ORDER BY
    ("select a as b, count(*) as n from t group by b, a", {"b": "t.a=I", "n": "", "*": "t.a=G t.b=G"}),
    ("select a as b from t order by b", {"b": "t.a=I", "*": "t.a=S"}),
    ("select a as b from t order by b || ''", {"b": "t.a=I", "*": "t.b=S"}),
    ("select b, a from t order by 2", {"b": "t.b=I", "a": "t.a=I", "*": "t.a=S"}),
    ("select a, b from t group by rollup (a), cube (b)", {"a": "t.a=I", "b": "t.b=I", "*": "t.a=G t.b=G"}),
    ("select grouping(a) as g from t group by grouping sets ((a, b), ())", {"g": "", "*": "t.a=G t.b=G"}),
    ("select t.a, u.d from t join u on t.id = u.id", {"a": "t.a=I", "d": "u.d=I", "*": "t.id=J u.id=J"}),
    ("select id from t join u using (id)", {"id": "t.id=I", "*": "t.id=J u.id=J"}),
    ("select id from t right join u using (id)", {"id": "u.id=I", "*": "t.id=J u.id=J"}),
    ("select id from t full join u using (id)", {"id": "t.id=I u.id=I t.id=C u.id=C", "*": "t.id=J u.id=J"}),
    ("select g, e from u natural join s.v", {"g": "s.v.g=I", "e": "u.e=I", "*": "u.id=J s.v.id=J"}),
    ("select j2.d from (t join u using (id)) as j2", {"d": "u.d=I", "*": "t.id=J u.id=J"}),
    ("select case when a > 1 then b else 'x' end as k from t", {"k": "t.a=C t.b=I"}),
    ("select case a when 1 then id + 1 end as k from t", {"k": "t.a=C t.id=T"}),
    ("select coalesce(b, 'x') as k, nullif(a, id) as n from t", {"k": "t.b=I t.b=C", "n": "t.a=I t.a=C t.id=C"}),
    ("select coalesce(j -> 'a', '1') as k, lower(t.j ->> 'b') as l from t", {"k": "t.j=T t.j=C", "l": "t.j=T"}),
    ("select md5(b) as h, count(distinct b) over () as n from t", {"h": "t.b=T!", "n": "t.b=A!"}),
    ("select max(h) as m from (select md5(b) as h from t) x", {"m": "t.b=A!"}),
    ("select count(*) filter (where a > 1) as n from t", {"n": "t.a=C"}),
    ("select string_agg(b, ',' order by c) as s from t", {"s": "t.b=A t.c=S"}),
    ("select percentile_cont(0.5) within group (order by a) as m from t", {"m": "t.a=A"}),
    ("select sum(a) over (partition by b order by c) as s from t", {"s": "t.a=A t.b=W t.c=W"}),
    ("select rank() over w as r from t window w as (partition by b order by c)", {"r": "t.b=W t.c=W"}),
    ("select lag(a) over (w order by c) as p from t window w as (partition by b)", {"p": "t.a=T t.b=W t.c=W"}),
    (
        "select a from (select a, row_number() over (partition by b order by c) as n from t) x where n = 1",
        {"a": "t.a=I", "*": "t.b=F t.c=F"},
    ),
    ("select distinct a from t", {"a": "t.a=I", "*": "t.a=G"}),
    ("select distinct on (b) a from t order by b, c", {"a": "t.a=I", "*": "t.b=G t.b=S t.c=S"}),
    ("select a from t order by c limit 1", {"a": "t.a=I", "*": "t.c=S"}),
    ("select a, b from t union all select d, e from u", {"a": "t.a=I u.d=I", "b": "t.b=I u.e=I"}),
    ("select a from t union select d from u", {"a": "t.a=I u.d=I", "*": "t.a=G u.d=G"}),
    ("select a from t except select d from u where e = 'x'", {"a": "t.a=I", "*": "t.a=F u.d=F u.e=F"}),
    ("select id, (select max(d) from u where u.id = t.id) as m from t", {"id": "t.id=I", "m": "u.d=A u.id=F t.id=F"}),
    ("select a from t where exists (select 1 from u where u.id = t.id)", {"a": "t.a=I", "*": "u.id=F t.id=F"}),
    ("select a in (select d from u where e = 'x') as k from t", {"k": "t.a=T u.d=T u.e=F"}),
    ("select a from t where a > all (select d from u join s.v using (id))", {"a": "t.a=I", "*": "t.a=F u.d=F u.id=J s.v.id=J"}),
    ("select array(select d from u order by e) as k", {"k": "u.d=A u.e=S"}),
    ("select x.k from t, lateral (select t.a + 1 as k) x", {"k": "t.a=T"}),
    ("select e.key, e.value from t, jsonb_each(t.j) as e", {"key": "t.j=T", "value": "t.j=T", "*": "t.j=J"}),
    ("select x, n from t, unnest(arr) with ordinality as q (x, n)", {"x": "t.arr=T", "n": "", "*": "t.arr=J"}),
    ("select e ->> 'k' as k, e.value from t, jsonb_array_elements(j) e", {"k": "t.j=T", "value": "t.j=T", "*": "t.j=J"}),
    ("select p, q from t, jsonb_to_recordset(j) as r (p int, q text)", {"p": "t.j=T", "q": "t.j=T", "*": "t.j=J"}),
    ("select generate_series(1, a) as n, b from t", {"n": "t.a=T", "b": "t.b=I", "*": "t.a=J"}),
    ("select (jsonb_each(j)).value from t", {"value": "t.j=T", "*": "t.j=J"}),
    ("select u from u", {"u": "u.id=T u.d=T u.e=T"}),
    ("select row_to_json(u) as r, (u).d, count(u.*) over () as n from u", {"r": "u.id=T u.d=T u.e=T", "d": "u.d=I", "n": ""}),
    ("select (x.r).d, (x.r).* from (select u as r from u) x", {"d": "u.d=I", "id": "u.id=I", "e": "u.e=I"}),
    ("with x as (select a, b from t where c is null) select a from x", {"a": "t.a=I", "*": "t.c=F"}),
    ("with unused as (select b from t), x (k) as (select a from t) select k from x", {"k": "t.a=I"}),
    (
        "with recursive r (n) as (select a from t union all select n + d from r join u on u.id = r.n) select n from r",
        {"n": "t.a=I t.a=T u.d=T", "*": "t.a=J u.d=J u.id=J"},
    ),
    ("select * from w", {"id": "t.id=I", "a1": "t.a=T", "*": "t.b=F"}),
    ("select a1, g from s.deep", {"a1": "t.a=T", "g": "s.v.g=I", "*": "t.b=F t.id=J s.v.id=J"}),
    ("create table x (k, l) as select a, b from t", {"k": "t.a=I", "l": "t.b=I"}),
    ("insert into u select id, a, b from t", {"id": "t.id=I", "d": "t.a=I", "e": "t.b=I"}),
    ("insert into u (e, id) select b, id from t", {"e": "t.b=I", "id": "t.id=I"}),
    ("update u set d = d + 1", {"id": "u.id=I", "d": "u.d=T", "e": "u.e=I"}),
    (
        "update u set e = t.b, d = default from t where t.id = u.id",
        {"id": "u.id=I", "d": "u.d=I t.id=C u.id=C", "e": "u.e=I t.b=I t.id=C u.id=C"},
    ),
    ("update u set (d, e) = (select a, b from t where c is null)", {"id": "u.id=I", "d": "t.a=I t.c=F", "e": "t.b=I t.c=F"}),
    ("delete from u where d > 1", {"id": "u.id=I", "d": "u.d=I", "e": "u.e=I", "*": "u.d=F"}),
    ("delete from u using s.v where v.id = u.id", {"id": "u.id=I", "d": "u.d=I", "e": "u.e=I", "*": "u.id=F s.v.id=F"}),
    ("delete from u", {"id": "", "d": "", "e": ""}),
    (
        "merge into u using t on t.id = u.id when matched and t.a > 1 then update set e = t.b",
        {"id": "u.id=I", "d": "u.d=I", "e": "u.e=I t.b=I t.a=C t.id=J u.id=J"},
    ),
    (
        "merge into u using t on t.id = u.id when matched then delete"
        " when not matched and t.a > 1 then insert (id) values (t.id)",
        {"id": "u.id=I t.id=I", "d": "u.d=I", "e": "u.e=I", "*": "t.a=F t.id=J u.id=J"},
    ),
    (
        "insert into u (id, e) select id, b from t on conflict (id) do update set e = excluded.e where u.d > 1",
        {"id": "u.id=I t.id=I", "d": "u.d=I", "e": "u.e=I t.b=I u.d=C", "*": "u.id=J t.id=J"},
    ),
    (
        "with x as (update u set d = 1 where e = 'x' returning id, d, e) select * from x",
        {"id": "u.id=I", "d": "", "e": "u.e=I", "*": "u.e=F"},
    ),
    ("create recursive view r (n) as select a from t union all select n + 1 from r", {"n": "t.a=I t.a=T"}),
    ("select j.* from t left join u using (id) as j", {"id": "t.id=I", "*": "t.id=J u.id=J"}),
    ("select a from t order by b using operator(pg_catalog.<), c using >", {"a": "t.a=I", "*": "t.b=S t.c=S"}),
    ("select a as x into y from t union select d from u", {"x": "t.a=I u.d=I", "*": "t.a=G u.d=G"}),
    ("table u", {"id": "u.id=I", "d": "u.d=I", "e": "u.e=I"}),
    ("select v.k from (values (1, 'x'), (2, 'y')) as v (n, k) join u on u.id = v.n", {"k": "", "*": "u.id=J"}),
    ('SELECT T.A, "b" AS "B" FROM T', {"a": "t.a=I", "B": "t.b=I"}),
    ("select เลข, ชื่อ || '.' as นาม from คน", {"เลข": "คน.เลข=I", "นาม": "คน.ชื่อ=T"}),
    ("select (a, id) is not distinct from (1, 2) as k from t", {"k": "t.a=T t.id=T"}),
    ("select @ a as k, a between 1 and id as m from t", {"k": "t.a=T", "m": "t.a=T t.id=T"}),
    ("select user, current_date as d, ctid from u", {"user": "", "d": "", "ctid": "u.ctid=I"}),
]


def answer(text: str) -> set[tuple[str, str, str, bool]]:
    edges = set()
    for part in text.split():
        source, _, how = part.rpartition("=")
        table, _, column = source.rpartition(".")
        edges.add((table, column, LETTERS[how[0]], how.endswith("!")))
    return edges


def plain(edges: frozenset[Edge]) -> set[tuple[str, str, str, bool]]:
    return {(edge.table, edge.column, edge.subtype.value, edge.masking) for edge in edges}


@pytest.mark.parametrize(("sql", "expected"), ANSWERS, ids=[sql[:60] for sql, _ in ANSWERS])
def test_answers_written_by_hand(sql: str, expected: dict[str, str]) -> None:
    found = analyze(sql, Schema.from_json(TABLES))
    assert {title: plain(found.edges(title)) for title, _ in found.columns} == {
        title: answer(text) for title, text in expected.items() if title != "*"
    }
    assert plain(found.dataset) == answer(expected.get("*", ""))


@pytest.mark.parametrize(
    ("sql", "construct", "place"),
    [
        ("select nope from t", "column nope", (1, 8)),
        ("select a\nfrom t\nwhere t.nope = 1", "column t.nope", (3, 7)),
        ("select 1 from nowhere", "table nowhere", (1, 15)),
        ("select x.a from t", "table x", (1, 8)),
        ("select id from t, u", "column id", (1, 8)),
        ("select id from t join u using (nope)", "column nope of using", (1, 32)),
        ("select t.j.* from t", "table t.j", (1, 8)),
        ("select (j).* from t", "(j).*", (1, 9)),
        ("select * from mystery(1)", "function mystery in FROM", (1, 15)),
        ("select * from jsonb_to_record('{}')", "jsonb_to_record in FROM", None),
        ("select sum(a) over nope from t", "window nope", (1, 20)),
        ("select a from t union select id, d from u", "union", None),
        ("select a from t order by 3", "position 3", None),
        ("select a from t t1, u t1", "the name t1", None),
        ("select q from t as x (p)", "column q", (1, 8)),
        ("select q from t as x (a, b, c, d, e, f, g)", "the column list of x", None),
        ("truncate t", "truncatetable", None),
        ("delete from nowhere", "table nowhere", (1, 13)),
        ("delete from w where id = 1", "table w", (1, 13)),
        ("update t set nope = 1", "column nope", (1, 14)),
        ("update t set t.a = 1", "column t", (1, 14)),
        ("update t set a = 1, a = 2", "column a", (1, 21)),
        ("update t set (a, b) = (1, 'x', 2)", "a list of 2 columns", None),
        ("update t set a = id from u", "column id", (1, 18)),
        ("update t set a = 1 returning nope", "column nope", (1, 30)),
        ("update t set a = 1 where current of c", "the syntax", (1, None)),
        ("merge into t using u on t.id = u.id when not matched then insert (id, nope) values (1, 2)", "column nope", None),
        ("merge into t using u on t.id = u.id when not matched then insert (id, a) values (1)", "a list of 2 columns", None),
        ("with x as (delete from t) select * from x", "with x", (1, 41)),
        ("with x as (delete from nowhere) select a from t", "table nowhere", (1, 24)),
        ("select 1 from t join u using (id) as t", "the name t", None),
        ("create recursive view v as select 1", "recursive view v", None),
        ("insert into nowhere select 1", "table nowhere", None),
        ("insert into u (id, nope) select 1, 2", "column nope", None),
        (
            "insert into u (id) select 1 on conflict on constraint u_pkey do update set d = excluded.d",
            "on conflict on constraint u_pkey",
            (1, 55),
        ),
        ("select a from t; select b from t", "a text of 2 statements", None),
        ("select a from (select b from t) x where a > 1", "column a", None),
        ("select * from t, (select t.a) x", "table t", None),
        # A parameter; what the parser makes of a name that it drops elsewhere is the same.
        ("select a from t where a = :id", "the syntax around 'id'", (1, 28)),
        ("select a fro t wher", "the syntax", (1, None)),
        ("with recursive r as (select * from r) select * from r", "with r", None),
    ],
)
def test_what_cannot_be_resolved_is_named(sql: str, construct: str, place: tuple[int, int | None] | None) -> None:
    with pytest.raises(LineageError) as caught:
        analyze(sql, Schema.from_json(TABLES), statement="model.sql")
    assert caught.value.construct.startswith(construct)
    assert caught.value.line >= 1
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith("model.sql, line ")
    assert "\n" not in message
    if place is not None:
        assert caught.value.line == place[0]
        assert place[1] is None or caught.value.column == place[1]


def test_all_that_a_statement_does_is_told() -> None:
    """Also what nobody reads: a table that a common table expression changes, and what RETURNING gives."""
    sql = (
        "with gone as (delete from t where a > 1 returning id, b), more as (insert into s.v select 1, 'x')"
        " update u set e = gone.b from gone where gone.id = u.id returning u.e as now, old.e as was"
    )
    found = analyze(sql, Schema.from_json(TABLES))
    assert (found.target, found.kept) == ("u", True)
    assert plain(found.edges("e")) == answer("u.e=I t.b=I t.a=F t.id=C u.id=C")
    assert [(part.target, part.kept) for part in found.also] == [("t", True), ("s.v", False), (None, False)]
    deleted, put, returned = found.also
    assert plain(deleted.dataset) == answer("t.a=F")
    assert plain(deleted.edges("b")) == answer("t.b=I")
    assert [(title, plain(edges)) for title, edges in put.columns] == [("id", set()), ("g", set())]
    assert (plain(returned.edges("now")), plain(returned.edges("was"))) == (answer("t.b=I"), answer("u.e=I"))
    assert plain(returned.dataset) == answer("t.a=F t.id=F u.id=F")
    told = found.as_json()
    assert set(told) == {"output", "dataset", "also"}
    assert [part["target"] for part in told["also"]] == ["t", "s.v", None]


def test_what_only_looks_like_syntax_is_left_alone() -> None:
    """What the parser cannot read is taken out of tokens: not out of strings, comments and quoted names."""
    schema = Schema.from_json({"x": {"using <": "text", "as j": "int", "a": "text"}})
    sql = """select "using <" as "using (a) as j", 'order by a using <' as k, $$returning with (old as o)$$ as l
        from x /* using > */ where a = 'using (a) as b' order by a using < -- using (a) as c"""
    found = analyze(sql, schema)
    assert [title for title, _ in found.columns] == ["using (a) as j", "k", "l"]
    assert plain(found.edges("using (a) as j")) == {("x", "using <", "IDENTITY", False)}
    assert plain(found.dataset) == answer("x.a=F x.a=S")


def test_a_name_is_cut_off_at_63_bytes_as_the_catalog_does() -> None:
    long = "ก" * 30
    found = analyze(f"select {long} from x", Schema.from_json({"x": {"ก" * 21: "text"}}))
    assert found.columns[0][0] == "ก" * 21


def test_only_ascii_letters_fold() -> None:
    found = analyze("select ÀB from x", Schema.from_json({"x": {"Àb": "text"}}))
    assert found.columns[0][0] == "Àb"


def test_schemas_of_both_forms_and_a_search_path() -> None:
    nested = Schema.from_json({"s": {"t": {"a": "int"}}}, search_path=("s", "public"))
    flat = Schema.from_json({"s.t": {"a": "int"}}, search_path=("s", "public"))
    for schema in (nested, flat):
        assert plain(analyze("select a from t", schema).edges("a")) == {("s.t", "a", "IDENTITY", False)}
        assert plain(analyze('select a from "db"."s"."t"', schema).edges("a")) == {("s.t", "a", "IDENTITY", False)}
    with pytest.raises(LineageError, match="table t is not in the schema"):
        analyze("select a from t", Schema.from_json({"s.t": {"a": "int"}}))


@pytest.mark.parametrize("document", [[], {"t": 5}, {"t": {"a": 1}}])
def test_a_schema_of_another_form_is_refused(document: object) -> None:
    with pytest.raises(UserError, match=r"[Ss]chema"):
        Schema.from_json(document)


def test_a_view_that_refers_to_itself_is_refused() -> None:
    schema = Schema.from_json({"views": {"a": "select * from b", "b": "select * from a"}})
    with pytest.raises(LineageError, match="view a refers to itself"):
        analyze("select * from a", schema)


def test_a_long_condition_needs_no_deep_stack() -> None:
    sql = "select a from t where " + " or ".join(f"a = {number}" for number in range(3000))
    assert plain(analyze(sql, Schema.from_json(TABLES)).dataset) == {("t", "a", "FILTER", False)}


def test_json_form(tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("select md5(b) as h from t where a > 1", "utf-8")
    (tmp_path / "s.json").write_text(json.dumps(TABLES), "utf-8")
    arguments = ["lineage", "sql", str(tmp_path / "q.sql"), "--schema", str(tmp_path / "s.json")]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "output": {"h": [{"table": "t", "column": "b", "type": "DIRECT", "subtype": "TRANSFORMATION", "masking": True}]},
        "dataset": [{"table": "t", "column": "a", "type": "INDIRECT", "subtype": "FILTER", "masking": False}],
    }
    shown = CliRunner().invoke(app, arguments)
    assert "DIRECT TRANSFORMATION, masked" in shown.stdout
    (tmp_path / "q.sql").write_text("select nope from t", "utf-8")
    failed = CliRunner().invoke(app, arguments)
    assert isinstance(failed.exception, LineageError)


def test_the_suite_is_as_large_as_promised_and_nothing_is_left_out_unsaid() -> None:
    found = suite.statements()
    assert len(found) >= 150
    assert len({statement.name for statement in found}) == len(found)
    assert sum(bool(statement.excluded) for statement in found) <= 10
    schema = suite.schema()
    for statement in found:
        analyze(statement.sql, schema, statement=statement.name)


def test_a_statement_takes_milliseconds() -> None:
    schema = read_schema(suite.FOLDER / "schema.json")
    largest = sorted((statement.sql for statement in suite.statements()), key=len)[-20:]
    analyze(largest[0], schema)  # imports
    seconds = []
    for sql in largest:
        started = time.perf_counter()
        analyze(sql, schema)
        seconds.append(time.perf_counter() - started)
    assert statistics.median(seconds) < 0.02
