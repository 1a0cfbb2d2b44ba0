"""Attempts to take a personal column out, each with the rule that refuses it, and benign twins that pass.

An attempt is the SQL of one model, or of several (the last is published), over a register of persons, one of deaths, a list of areas
and a seed that nobody classified. What is published and how it is declared is written beside it.
"""

# ruff: noqa: E501 (an attempt, how it is declared and its rule stand in one line)
from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

import pytest

from dopa_pipelines.governance.classification import Abouts, Classified, classify
from dopa_pipelines.governance.gate import Verdict, judge
from dopa_pipelines.lineage.columns import LineageError, Schema, analyze
from dopa_pipelines.lineage.columns.treated import ROW, About
from dopa_pipelines.lineage.declared import Declared, Dependence

TODAY = date(2026, 11, 25)
PERSON = {
    "pid": About("personal", "direct_identifier"),
    "first_name": About("personal", "direct_identifier"),
    "birth_date": About("personal", "quasi_identifier", date=True),
    "age_years": About("personal", "quasi_identifier", whole=True),
    "sex": About("personal", "quasi_identifier"),
    "area_code": About("personal", "quasi_identifier"),
    "house_code": About("personal", "quasi_identifier"),
    "income": About("personal", "sensitive"),
    "weight": About("personal", "quasi_identifier"),
    "note": About("confidential", "sensitive"),
    "office": About("internal"),
    "flag": About("open"),
}
DEATH = {
    "pid": About("personal", "direct_identifier"),
    "death_date": About("personal", "quasi_identifier", date=True),
    "cause": About("personal", "sensitive"),
}
AREA = {"code": About("open"), "name": About("open")}
TABLES = {"raw.person": PERSON, "raw.death": DEATH, "raw.area": AREA, "seeds.given": {"pid": About(), "code": About()}}


@dataclass
class Column:
    name: str

    @property
    def source(self) -> str:
        return self.name


@dataclass
class Exempted:
    column: str
    expires_on: date
    approved_by: str = "อธิบดีกรมการปกครอง"
    reason: str = "a study"
    document: str = "มท 0309/2"


@dataclass
class Named:
    column: str | None


@dataclass
class Rule:
    dimensions: list[Named]
    measures: list[Named]
    rates: list[Named] = field(default_factory=list)


@dataclass
class Approved:
    internal: list[str] = field(default_factory=list)
    review_on: date = date(2027, 9, 30)


@dataclass
class Publication:
    columns: list[Column]
    disclosure: Rule | None
    unit_of_count: str | None = "คน"
    approval: Approved = field(default_factory=Approved)
    exceptions: list[Exempted] = field(default_factory=list)
    name: str = "extract"
    source: str = "open_data.extract"


def classified(*models: str, declared: dict[str, str] | None = None) -> Classified:
    """Models m1, m2 … in schema ``m``; the last is ``open_data.extract``."""
    about = Abouts()
    raw = Schema()
    graph = Declared()
    for table, columns in TABLES.items():
        raw.add(table, dict.fromkeys(columns, "text"))
        graph.columns[table] = list(columns)
        for column, said in columns.items():
            about.say(table, column, said)
    for table in ("raw.person", "raw.death"):
        about.say(table, ROW, About("personal", "quasi_identifier"))
        for column in ("(row)", "ctid", "_row"):
            about.say(table, column, About("personal", "direct_identifier"))
    about.say("raw.area", ROW, About("open"))
    names = [f"m.m{place}" for place in range(1, len(models))] + ["open_data.extract"]
    sql = dict(zip(names, models, strict=True))
    known = Schema(tables=dict(raw.tables))
    for name, text in sql.items():
        try:
            lineage = analyze(text, known)
        except LineageError:
            continue
        known.add(name, {title: "text" for title, _ in lineage.columns})
        graph.columns[name] = [title for title, _ in lineage.columns]
        for title, edges in lineage.columns:
            graph.edges |= {Dependence(e.table, e.column, name, title, str(e.subtype), e.masking) for e in edges}
    kinds = {name: dict(declared or {}) for name in names}
    return classify(sql, raw, about, kinds, graph)


def judged(
    *models: str,
    columns: str,
    dims: str = "",
    measures: str = "",
    declared: dict[str, str] | None = None,
    internal: str = "",
    exceptions: list[Exempted] | None = None,
    unit: str | None = "คน",
) -> Verdict:
    rule = Rule([Named(name) for name in dims.split()], [Named(name) for name in measures.split()]) if measures else None
    publication = Publication(
        [Column(name) for name in columns.split()], rule, unit, Approved(internal.split()), exceptions or []
    )
    return judge(publication, classified(*models, declared=declared), TODAY)


COUNTED = {"columns": "k n", "dims": "k", "measures": "n"}
"""How an attempt in the form of a table of counts is declared: key ``k``, count ``n``."""
ONE = {"columns": "k"}
BY_SEX = {"columns": "sex x", "dims": "sex", "measures": "x"}

ATTEMPTS: list[tuple[str, str | tuple[str, ...], dict[str, object], str]] = [
    # A value under another guise, a row a person
    ("as it is", "select pid from raw.person", {"columns": "pid"}, "direct_identifier"),
    ("rename", "select pid as k from raw.person", ONE, "direct_identifier"),
    ("cast", "select pid::bigint::text as k from raw.person", ONE, "direct_identifier"),
    ("substring", "select substring(pid from 2 for 11) as k from raw.person", ONE, "direct_identifier"),
    ("concat", "select 'p' || pid as k from raw.person", ONE, "direct_identifier"),
    ("concat_ws", "select concat_ws('-', flag, first_name) as k from raw.person", ONE, "direct_identifier"),
    ("format", "select format('%s', pid) as k from raw.person", ONE, "direct_identifier"),
    ("arithmetic", "select pid::bigint + 1 as k from raw.person", ONE, "direct_identifier"),
    ("array", "select array[flag, pid] as k from raw.person", ONE, "direct_identifier"),
    ("array element", "select (array[pid])[1] as k from raw.person", ONE, "direct_identifier"),
    ("unnest", "select unnest(array[flag, pid]) as k from raw.person", ONE, "direct_identifier"),
    ("unnest of a packed group", "select unnest(array_agg(pid)) as k from raw.person", ONE, "direct_identifier"),
    ("json of the row", "select to_jsonb(p) as k from raw.person p", ONE, "security_class"),
    ("json object", "select jsonb_build_object('a', pid) ->> 'a' as k from raw.person", ONE, "direct_identifier"),
    ("whole row as text", "select p::text as k from raw.person p", ONE, "security_class"),
    ("row constructor", "select row(flag, pid)::text as k from raw.person", ONE, "direct_identifier"),
    ("hash", "select md5(pid) as k from raw.person", ONE, "direct_identifier"),
    ("hash of bytes", "select encode(sha256(convert_to(pid, 'UTF8')), 'hex') as k from raw.person", ONE, "direct_identifier"),
    ("keyed hash", "select hmac(pid, current_setting('k'), 'sha256') as k from raw.person", ONE, "direct_identifier"),
    ("reverse", "select reverse(pid) as k from raw.person", ONE, "direct_identifier"),
    ("translate", "select translate(pid, '0123456789', 'abcdefghij') as k from raw.person", ONE, "direct_identifier"),
    ("encode", "select encode(convert_to(pid, 'UTF8'), 'base64') as k from raw.person", ONE, "direct_identifier"),
    ("regexp_replace", "select regexp_replace(pid, '(.)(.)', '\\2\\1') as k from raw.person", ONE, "direct_identifier"),
    ("coalesce", "select coalesce(null, pid) as k from raw.person", ONE, "direct_identifier"),
    ("nullif", "select nullif(pid, '') as k from raw.person", ONE, "direct_identifier"),
    ("greatest", "select greatest(pid, '0') as k from raw.person", ONE, "direct_identifier"),
    ("xml", "select xmlelement(name a, pid)::text as k from raw.person", ONE, "direct_identifier"),
    ("a chain of cases", "select case when left(pid, 1) = '1' then 'a' when left(pid, 1) = '2' then 'b' end as k from raw.person",
     ONE, "singles_out"),
    ("free text", "select note as k from raw.person", ONE, "security_class"),
    ("count of free text", "select sex as k, count(note) as n from raw.person group by sex", COUNTED, "security_class"),
    ("sensitive", "select income as k from raw.person", ONE, "sensitive"),
    ("quasi-identifier, a row a person", "select sex as k from raw.person", ONE, "personal"),
    ("generalised, a row a person", "select date_trunc('year', birth_date)::date as k from raw.person", ONE | {"declared": {"k": "year"}}, "personal"),
    ("open columns, a row a person", "select flag as k from raw.person", ONE, "record_level"),
    ("looked up", "select a.name as k from raw.person p join raw.area a on a.code = p.area_code", ONE, "record_level"),
    ("constant, a row a person", "select 1 as k from raw.person", ONE, "record_level"),
    # Ways through other queries
    ("view of a view", ("select pid as a from raw.person", "select a as b from m.m1", "select upper(b) as k from m.m2"), ONE, "direct_identifier"),
    ("common table expression", "with a as (select pid as x from raw.person), b as (select x as y from a) select y as k from b", ONE, "direct_identifier"),
    ("recursive", "with recursive r as (select pid as x, 1 as i from raw.person union all select x, i + 1 from r where i < 3) select x as k from r",
     ONE, "direct_identifier"),
    ("union", "select name as k from raw.area union all select first_name from raw.person", ONE, "direct_identifier"),
    ("except", "select first_name as k from raw.person except select name from raw.area", ONE, "direct_identifier"),
    ("values beside", "select k from (select pid as k from raw.person union select 'x') s", ONE, "direct_identifier"),
    ("lateral", "select l.x as k from raw.person p cross join lateral (select p.pid as x) l", ONE, "direct_identifier"),
    ("scalar subquery", "select (select p.pid from raw.person p limit 1) as k", ONE, "direct_identifier"),
    ("join back", "select p.pid as k, c.n from (select sex, count(*) as n from raw.person group by sex) c join raw.person p using (sex)",
     COUNTED, "direct_identifier"),
    ("self-join", "select a.sex as k, count(*) as n from raw.person a join raw.person b on a.pid = b.pid group by a.sex, a.pid", COUNTED, "record_level"),
    ("lookup by a seed of nobody's", "select g.code as k, count(*) as n from raw.person p join seeds.given g on g.pid = p.pid group by g.code",
     COUNTED | {"internal": "k"}, "singles_out"),
    ("a seed that nobody classified", "select code as k from seeds.given", ONE, "internal"),
    ("whether there is one, row by row", "select a.code as k, exists (select from raw.person p where p.area_code = a.code and p.income = '1') as n from raw.area a",
     COUNTED, "sensitive"),
    # Aggregates that pick
    ("min", "select sex, min(birth_date) as x from raw.person group by sex", BY_SEX, "personal"),
    ("max of an identifier", "select sex, max(pid) as x from raw.person group by sex", BY_SEX, "direct_identifier"),
    ("mode", "select sex, mode() within group (order by first_name) as x from raw.person group by sex", BY_SEX, "direct_identifier"),
    ("any_value", "select sex, any_value(income) as x from raw.person group by sex", BY_SEX, "sensitive"),
    ("first of a list", "select sex, (array_agg(first_name order by birth_date))[1] as x from raw.person group by sex", BY_SEX, "direct_identifier"),
    ("string_agg", "select sex, string_agg(first_name, ',') as x from raw.person group by sex", BY_SEX, "direct_identifier"),
    ("json_agg", "select sex, json_agg(age_years) as x from raw.person group by sex", BY_SEX, "personal"),
    ("percentile of all", "select sex, percentile_cont(0) within group (order by weight) as x from raw.person group by sex", BY_SEX, "personal"),
    ("percentile_disc", "select sex, percentile_disc(0.5) within group (order by weight) as x from raw.person group by sex", BY_SEX, "personal"),
    ("sum of identifiers", "select sex, sum(pid::bigint) as x from raw.person group by sex", BY_SEX, "direct_identifier"),
    ("bool_or", "select sex, bool_or(age_years > 99) as x from raw.person group by sex", BY_SEX, "personal"),
    ("average of picked ones", "select sex, avg(m) as x from (select sex, max(income) as m from raw.person group by sex) s group by sex", BY_SEX, "sensitive"),
    # Groups of one
    ("group by an identifier", "select sex, avg(weight) as x from raw.person group by sex, pid", BY_SEX, "record_level"),
    ("group by a hash", "select sex, sum(weight) as x from raw.person group by sex, md5(pid)", BY_SEX, "personal"),
    ("group by a row's number", "select rn as k, avg(weight) as n from (select weight, row_number() over () as rn from raw.person) s group by rn",
     COUNTED, "direct_identifier"),
    ("group by chance", "select sex, avg(weight) as x from raw.person group by sex, random()", BY_SEX, "record_level"),
    ("group by place", "select sex, avg(weight) as x from raw.person group by sex, raw.person.ctid", BY_SEX, "record_level"),
    ("identifier within a key", "select sex || pid as k, count(*) as n from raw.person group by sex || pid", COUNTED, "direct_identifier"),
    ("count by identifier, counted", "select pid as k, count(distinct sex) as n from raw.person group by pid", COUNTED, "direct_identifier"),
    ("aggregate for each row", "select d.cause as k, (select avg(p.weight) from raw.person p where p.pid = d.pid) as n from raw.death d", COUNTED, "record_level"),
    ("aggregate of another query's column",
     "select p.sex, (select sum(p.weight::int) from (values (1)) v) as x from raw.person p group by p.sex", BY_SEX, "personal"),
    ("a subquery for each area", "select a.code as k, (select avg(weight) from raw.person p where p.area_code = a.code) as n from raw.area a", COUNTED, "personal"),
    # Windows
    ("sum by person", "select sex, sum(weight) over (partition by pid) as x from raw.person", BY_SEX, "direct_identifier"),
    ("lag", "select lag(first_name) over (order by pid) as k from raw.person", ONE, "direct_identifier"),
    ("first_value", "select first_value(weight) over (partition by sex order by pid) as k from raw.person", ONE, "direct_identifier"),
    ("count over everything", "select count(*) over () as k from raw.person", ONE, "direct_identifier"),
    ("rank as a key", "select r as k, count(*) as n from (select rank() over (order by birth_date) as r from raw.person) s group by r",
     COUNTED, "direct_identifier"),
    ("running sum", "select k, count(*) as n from (select sum(weight) over (order by birth_date) as k from raw.person) s group by k", COUNTED, "direct_identifier"),
    # One person
    ("a condition on an identifier", "select sex as k, count(*) as n from raw.person where pid = '1101700203451' group by sex", COUNTED, "singles_out"),
    ("like", "select sex as k, count(*) as n from raw.person where pid like '110170020345_' group by sex", COUNTED, "singles_out"),
    ("in a list", "select sex as k, count(*) as n from raw.person where pid in ('1', '2') group by sex", COUNTED, "singles_out"),
    ("joined to a list", "select sex as k, count(*) as n from raw.person p join (values ('1')) v (pid) on v.pid = p.pid group by sex", COUNTED, "singles_out"),
    ("starts_with", "select sex as k, count(*) as n from raw.person where starts_with(pid, '11017') group by sex", COUNTED, "singles_out"),
    ("filter", "select sex as k, count(*) filter (where pid = '1') as n from raw.person group by sex", COUNTED, "singles_out"),
    ("sum of a case", "select sex as k, sum(case when pid = '1' then 1 end) as n from raw.person group by sex", COUNTED, "singles_out"),
    ("count of a comparison", "select sex as k, count(nullif(pid = '1', false)) as n from raw.person group by sex", COUNTED, "singles_out"),
    ("limit", "select sex as k, avg(weight) as n from (select sex, weight from raw.person limit 1) s group by sex", COUNTED, "singles_out"),
    ("fetch first", "select avg(weight) as n, sex as k from (select * from raw.person order by birth_date fetch first 1 rows only) s group by sex",
     COUNTED, "singles_out"),
    ("order by and offset", "select sex as k, count(*) as n from (select sex from raw.person order by pid offset 5) s group by sex", COUNTED, "singles_out"),
    ("row_number = 1", "select sex as k, avg(weight) as n from (select *, row_number() over (order by birth_date) as r from raw.person) s where r = 1 group by sex",
     COUNTED, "singles_out"),
    ("distinct on", "select sex as k, avg(weight) as n from (select distinct on (sex) sex, weight from raw.person order by sex) s group by sex", COUNTED, "singles_out"),
    ("series as long as a number", "select sex as k, count(*) as n from raw.person cross join lateral generate_series(1, pid::bigint) g group by sex",
     COUNTED, "singles_out"),
    ("the one with the least number", "select sex as k, count(*) as n from raw.person where pid = (select min(pid) from raw.person) group by sex", COUNTED, "singles_out"),
    ("joined to the least number", "select sex as k, count(*) as n from raw.person p join (select min(pid) as pid from raw.person) m on m.pid = p.pid group by sex",
     COUNTED, "singles_out"),
    ("equal to one row's", "select sex as k, count(*) as n from raw.person where pid = (select d.pid from raw.death d where d.cause = 'x') group by sex", COUNTED, "singles_out"),
    ("a name looked up for one person", "select sex, max(a.name) as x from raw.person p join raw.area a on a.code = p.area_code group by sex", BY_SEX, "personal"),
    ("names looked up, packed", "select sex, string_agg(a.name, ',') as x from raw.person p join raw.area a on a.code = p.area_code group by sex", BY_SEX, "personal"),
    ("having the least number", "select sex as k, count(*) as n from raw.person group by sex having min(pid) = '1'", COUNTED, "singles_out"),
    ("another cell's count", ("select sex as k, count(*) as n from raw.person group by sex", "select k, lag(n) over (order by k) as n from m.m1"), COUNTED, "personal"),
    ("the largest cell", ("select sex, area_code, count(*) as n from raw.person group by sex, area_code", "select sex as k, max(n) as n from m.m1 group by sex"), COUNTED, "personal"),
    # Keys and cells
    ("day of birth as a key", "select birth_date as k, count(*) as n from raw.person group by birth_date", COUNTED, "fine_date"),
    ("birth date rounded to a day", "select date_trunc('day', birth_date)::date as k, count(*) as n from raw.person group by 1",
     COUNTED | {"declared": {"k": "month"}}, "fine_date"),
    ("month that nobody declared", "select date_trunc('month', birth_date)::date as k, count(*) as n from raw.person group by 1", COUNTED, "fine_date"),
    ("shifted month", "select date_trunc('month', birth_date + interval '9 days')::date as k, count(*) as n from raw.person group by 1",
     COUNTED | {"declared": {"k": "month"}}, "fine_date"),
    ("day by arithmetic", "select birth_date - date '1900-01-01' as k, count(*) as n from raw.person group by 1", COUNTED | {"declared": {"k": "year"}}, "fine_date"),
    ("no disclosure rule", "select sex as k, count(*) as n from raw.person group by sex", {"columns": "k n"}, "disclosure"),
    ("no unit of count", "select sex as k, count(*) as n from raw.person group by sex", COUNTED | {"unit": None}, "disclosure"),
    ("a count that is no measure", "select sex as k, count(*) as n, sum(1) as m from raw.person group by sex", COUNTED | {"columns": "k n m"}, "disclosure"),
    ("cells finer than said", "select sex as k, count(*) as n from raw.person group by sex, area_code", COUNTED, "disclosure"),
    ("a key that is no dimension", "select sex as k, area_code as a, count(*) as n from raw.person group by sex, area_code", COUNTED | {"columns": "k a n"}, "disclosure"),
    ("a dimension coarser than the cells", "select left(area_code, 2) as k, count(*) as n from raw.person group by area_code", COUNTED, "disclosure"),
    ("a dimension of another making", "select right(house_code, 1) as k, count(*) as n from raw.person group by house_code", COUNTED, "disclosure"),
    ("cells by an open name", "select sex as k, count(*) as n from raw.person p join raw.area a on a.code = p.area_code group by sex, a.name", COUNTED, "disclosure"),
    ("an open name that is no dimension", "select sex as k, a.name as a, count(*) as n from raw.person p join raw.area a on a.code = p.area_code group by sex, a.name",
     COUNTED | {"columns": "k a n"}, "disclosure"),
    ("sensitive key", "select income as k, count(*) as n from raw.person group by income", COUNTED, "sensitive"),
    ("keys without a count", "select area_code as k, sex as n from raw.person group by area_code, sex", {"columns": "k n", "dims": "k n", "measures": "z"}, "personal"),
    ("distinct", "select distinct area_code as k from raw.person", ONE, "personal"),
    ("internal", "select office as k, count(*) as n from raw.person group by office", COUNTED, "internal"),
    # Exceptions
    ("exception on an identifier", "select pid as k from raw.person", ONE | {"exceptions": [Exempted("k", date(2027, 1, 1))]}, "direct_identifier"),
    ("exception on a security class", "select note as k from raw.person", ONE | {"exceptions": [Exempted("k", date(2027, 1, 1))]}, "security_class"),
    ("exception on rows of persons", "select flag as k from raw.person", ONE | {"exceptions": [Exempted("k", date(2027, 1, 1))]}, "record_level"),
    ("exception that ended", "select income as k, count(*) as n from raw.person group by income", COUNTED | {"exceptions": [Exempted("k", date(2026, 11, 24))]}, "sensitive"),
    # What is not known
    ("an unknown construct", "select * from dblink('x') as k", ONE, "unresolved"),
    ("a table that is not known", "select x as k from elsewhere.t", ONE, "unresolved"),
]  # fmt: skip

ALLOWED: list[tuple[str, str | tuple[str, ...], dict[str, object]]] = [
    ("open", "select name as k from raw.area", ONE),
    ("count by sex", "select sex as k, count(*) as n from raw.person group by sex", COUNTED),
    ("counted after joining registers", "select p.sex as k, count(*) as n from raw.person p join raw.death d on d.pid = p.pid group by p.sex", COUNTED),
    ("joined by using", "select sex as k, count(*) as n from raw.person join raw.death using (pid) group by sex", COUNTED),
    ("those of another register", "select sex as k, count(*) as n from raw.person where pid in (select pid from raw.death) group by sex", COUNTED),
    ("whether there is one, counted", "select sex as k, count(*) filter (where exists (select from raw.death d where d.pid = p.pid)) as n from raw.person p group by sex", COUNTED),
    ("those who have a number", "select sex as k, count(*) as n from raw.person where pid is not null group by sex", COUNTED),
    ("different persons", "select sex as k, count(distinct pid) as n from raw.person group by sex", COUNTED),
    ("counts of counts", ("select sex, area_code, count(*) as n from raw.person group by sex, area_code", "select sex as k, sum(n) as n from m.m1 group by sex"), COUNTED),
    ("average of what each has", "select sex as k, avg(n) as n from (select pid, sex, count(*) as n from raw.person group by pid, sex) s group by sex", COUNTED),
    ("average", "select sex, avg(weight) as x from raw.person group by sex", BY_SEX),
    ("spread", "select sex, stddev(weight) as x from raw.person group by sex", BY_SEX),
    ("median", "select sex, percentile_cont(0.5) within group (order by weight) as x from raw.person group by sex", BY_SEX),
    ("sum of a case", "select sex, sum(case when age_years > 60 then 1 else 0 end) as x from raw.person group by sex", BY_SEX),
    ("filter", "select sex, count(*) filter (where age_years > 60) as x from raw.person group by sex", BY_SEX),
    ("share", "select sex, 100.0 * count(*) filter (where age_years > 60) / count(*) as x from raw.person group by sex", BY_SEX),
    ("share of all, over groups", ("select sex, count(*) as n from raw.person group by sex", "select sex, n / sum(n) over () as x from m.m1"), BY_SEX),
    ("the largest groups", "select sex as k, count(*) as n from raw.person group by sex order by n desc limit 10", COUNTED),
    ("month, declared", "select date_trunc('month', birth_date)::date as k, count(*) as n from raw.person group by 1", COUNTED | {"declared": {"k": "month"}}),
    ("year of birth, declared", "select extract(year from birth_date)::int as k, count(*) as n from raw.person group by 1", COUNTED | {"declared": {"k": "year"}}),
    ("age band, declared",
     "with a as (select extract(year from age(date '2026-01-01', birth_date))::integer as age from raw.person), b as (select case when age is null then"
     " 'unknown' when age >= 100 then '100+' else (age / 5 * 5)::text end as k from a) select k, count(*) as n from b group by k",
     COUNTED | {"declared": {"k": "age_band"}}),
    ("province of an address", "select left(area_code, 2) as k, count(*) as n from raw.person group by 1", COUNTED),
    ("the name of a dimension's area",
     "with c as (select area_code as k, count(*) as n from raw.person group by 1) select k, a.name, n from c left join raw.area a on a.code = c.k",
     COUNTED | {"columns": "k name n"}),
    ("coarser beside the dimension", ("select area_code as k, count(*) as n from raw.person group by 1", "select k, left(k, 2) as p, n from m.m1"), COUNTED | {"columns": "k p n"}),
    ("an open name as a dimension", "select a.name as k, count(*) as n from raw.person p join raw.area a on a.code = p.area_code group by a.name", COUNTED),
    ("one row for each person, the latest", "select sex as k, count(*) as n from (select sex, row_number() over (partition by pid order by birth_date) as r"
     " from raw.person) s where r = 1 group by sex", COUNTED),
    ("internal, approved", "select office as k, count(*) as n from raw.person group by office", COUNTED | {"internal": "k"}),
    ("sensitive key, with an exception", "select income as k, count(*) as n from raw.person group by income", COUNTED | {"exceptions": [Exempted("k", TODAY)]}),
    ("union of areas", "select name as k from raw.area union select code from raw.area", ONE),
    ("everybody", "select 'all' as k, count(*) as n from raw.person", COUNTED),
]  # fmt: skip


def _models(sql: str | tuple[str, ...]) -> tuple[str, ...]:
    return (sql,) if isinstance(sql, str) else sql


@pytest.mark.parametrize(("sql", "how", "rule"), [item[1:] for item in ATTEMPTS], ids=[item[0] for item in ATTEMPTS])
def test_an_attempt_to_smuggle_is_refused(sql: str | tuple[str, ...], how: dict[str, object], rule: str) -> None:
    verdict = judged(*_models(sql), **how)  # type: ignore[arg-type]
    assert not verdict.allowed
    assert rule in {reason.rule for reason in verdict.reasons}, verdict


@pytest.mark.parametrize(("sql", "how"), [item[1:] for item in ALLOWED], ids=[item[0] for item in ALLOWED])
def test_its_benign_twin_goes_out(sql: str | tuple[str, ...], how: dict[str, object]) -> None:
    verdict = judged(*_models(sql), **how)  # type: ignore[arg-type]
    assert verdict.allowed, verdict


def test_there_are_enough_attempts() -> None:
    assert len({item[0] for item in ATTEMPTS}) == len(ATTEMPTS) >= 60


def test_a_refusal_shows_the_way_from_the_person_to_the_extract() -> None:
    verdict = judged("select pid as a from raw.person", "select upper(a) as k from m.m1", columns="k")
    reason = next(reason for reason in verdict.reasons if reason.column == "k")
    assert reason.path == ("raw.person.pid", "m.m1.a", "open_data.extract.k", "extract.k")
    assert "raw.person.pid" in str(verdict)


def test_an_exception_in_force_is_told_with_what_it_lifts() -> None:
    sql = "select income as k, count(*) as n from raw.person group by income"
    verdict = judged(sql, **COUNTED, exceptions=[Exempted("k", TODAY)])  # type: ignore[arg-type]
    (told,) = verdict.as_json()["exceptions"]
    assert told["lifts"] == ["sensitive"]
    assert told["approvedBy"] == "อธิบดีกรมการปกครอง"
    ended = judged(sql, **COUNTED, exceptions=[Exempted("k", date(2026, 11, 24))])  # type: ignore[arg-type]
    assert "ended on 2026-11-24" in str(ended)
    assert ended.exceptions == ()


def test_a_review_that_is_due_is_told_and_refuses_nothing() -> None:
    publication = Publication([Column("k")], None, approval=Approved(review_on=date(2026, 1, 1)))
    verdict = judge(publication, classified("select name as k from raw.area"), TODAY)
    assert verdict.allowed
    assert "2026-01-01" in verdict.notes[0]
