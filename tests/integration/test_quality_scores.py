"""Scores in a real warehouse: kept once for a write, worked out again to the same, explained down to the rows; the report."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from typing import Any

import pytest

from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.contracts.model import TeamMember
from dopa_pipelines.demo import AnswerKey
from dopa_pipelines.errors import UserError
from dopa_pipelines.quality import incidents, report, scores, store
from dopa_pipelines.quality.assessment import Answer
from dopa_pipelines.quality.standard import current, parse
from dopa_pipelines.warehouse import Role, Warehouse, open_warehouse
from tests.integration.conftest import Demo

DAY = date(2026, 11, 25)
COLUMNS = [
    {"name": "code", "primaryKey": True, "primaryKeyPosition": 1, "required": True},
    {"name": "amount", "logicalType": "integer", "physicalType": "integer", "required": True, "description": "How many"},
]
ANSWER = Answer("3.1", 3, "asked", date(2026, 10, 1), "q@dopa.example", "0" * 64)


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Any]:
    with warehouse.connect(Role.LOADER) as opened:
        yield opened


def result(dataset: str, rule: str, kind: Any, indicator: str, checked: int, failed: int, column: str | None) -> store.Result:
    dimension: Any = "accuracy_completeness" if indicator[0] == "1" else "consistency"
    return store.Result(
        dataset, rule, kind, dimension, "reject", failed == 0, checked, failed, indicator=indicator, column=column
    )  # fmt: skip


def delivered(table: Callable[..., Any], connection: Any, name: str) -> Any:
    """A dataset of four rows, two of them rejected, with results as they are kept for a delivery."""
    made = table(name, COLUMNS, load={"mode": "replace", "duplicates": "first", "maxRejectedPercent": 90})
    delivery = made.deliver("code,amount\na,1\nb,x\nc,\nd,4\n")
    assert (delivery.rows_loaded, delivery.rows_quarantined) == (2, 2)
    store.keep(
        connection,
        [
            result(name, "amount_required", "required", "1.3", 4, 1, "amount"),
            result(name, "code_required", "required", "1.3", 4, 0, "code"),
            result(name, "amount_format", "pattern", "2.2", 4, 1, "amount"),
            result(name, "key_unique", "unique", "2.3", 4, 0, None),
        ],
        delivery=delivery.delivery,
        write=delivery.write,
    )
    return made


def test_a_score_is_what_its_results_facts_and_answers_come_to(table: Callable[..., Any], connection: Any) -> None:
    made = delivered(table, connection, "scored_once")
    scores.score(connection, made.contract, {"3.1": ANSWER}, day=DAY)
    found = scores.latest(connection, "scored_once")
    assert (found["1.3"].level, found["1.3"].score) == (2, 87.5)  # (0.75 + 1) / 2
    assert (found["2.2"].level, found["2.2"].score) == (1, 75.0)
    assert (found["2.3"].level, found["2.3"].score) == (4, 100.0)
    assert found["2.4"].level is None  # it refers to nothing
    assert found["1.5"].level == 1  # no column is described in Thai
    assert found["3.1"].level == 3
    assert found["3.2"].level == 1  # nobody answered
    assert (found["3"].level, found["3"].score) == (2.0, 33.334)  # (66.667 + 0) / 2
    five = [found[code].score or 0 for code in "12345"]
    assert found["0"].score == pytest.approx(sum(five) / 5, abs=0.001)
    assert scores.quality_of(connection, ["scored_once", "no_such_dataset"]) == {"scored_once": found["0"].score}


def test_the_same_write_is_scored_once_and_a_new_finding_again(table: Callable[..., Any], connection: Any) -> None:
    made = delivered(table, connection, "scored_twice")
    first = scores.score(connection, made.contract, day=DAY)
    assert len(first) == 22 + 5 + 1
    assert scores.score(connection, made.contract, day=DAY) == []
    assert scores.score(connection, made.contract, {"3.1": ANSWER}, day=DAY) != []
    late = scores.score(connection, made.contract, {"3.1": ANSWER}, day=date(2027, 10, 2))
    found = scores.latest(connection, "scored_twice")
    assert found["3.1"].level == 1
    assert found["3.1"].why["answer"]["counts"] is False
    assert found["3.1"].id in late
    assert [item.id for item in scores.history(connection, ["scored_twice"])["scored_twice"]][-1] == found["0"].id


def test_every_score_can_be_worked_out_again_by_its_own_edition(table: Callable[..., Any], connection: Any) -> None:
    made = delivered(table, connection, "scored_again")
    strict = parse(current().document.replace("atLeast: {4: 0.99, 3: 0.95, 2: 0.8}", "atLeast: {4: 1, 3: 0.7, 2: 0.6}"))
    old = scores.score(connection, made.contract, {"3.1": ANSWER}, day=DAY, standard=strict)
    new = scores.score(connection, made.contract, {"3.1": ANSWER}, day=DAY)
    for score_id in (*old, *new):
        kept = scores.get(connection, score_id)
        again = scores.recompute(connection, score_id)
        assert (again.level, again.score) == (kept.level, kept.score), kept.code
    levels = {scores.get(connection, id_).level for id_ in (*old, *new) if scores.get(connection, id_).code == "2.2"}
    assert levels == {3, 1}


def test_a_score_that_was_tampered_with_differs_from_what_it_comes_to(table: Callable[..., Any], warehouse: Warehouse) -> None:
    with warehouse.connect(Role.LOADER) as connection:
        made = delivered(table, connection, "scored_wrong")
        scores.score(connection, made.contract, day=DAY)
        (kept,) = [item for item in scores.latest(connection, "scored_wrong").values() if item.code == "2.2"]
        connection.commit()
    with warehouse.connect(Role.LOADER) as connection, pytest.raises(Exception, match="permission denied"):
        connection.execute("update quality.score set score = 100 where id = %s", (kept.id,))
    with warehouse.connect(Role.OWNER) as owner:
        owner.execute("update quality.score set score = 100 where id = %s", (kept.id,))
        assert scores.recompute(owner, kept.id).score == 75.0
        owner.rollback()


def test_a_score_is_explained_down_to_the_rows(table: Callable[..., Any], connection: Any) -> None:
    made = delivered(table, connection, "scored_why")
    scores.score(connection, made.contract, day=DAY)
    told = scores.explain(connection, "scored_why", "2.2")
    (rule,) = told.rules
    assert (rule.result.rule, rule.rows, rule.share) == ("amount_format", 1, 0.75)
    (place,) = rule.places
    assert (place["file"], place["row"], place["codes"]) == ("delivery.csv", 3, ["bad_number"])
    assert "x" not in place.values()
    assert [item.result.rule for item in scores.explain(connection, "scored_why", "1.3").rules] == [
        "amount_required",
        "code_required",
    ]
    whole = scores.explain(connection, "scored_why", "2")
    assert [part.code for part in whole.parts] == ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6"]
    with pytest.raises(UserError, match="no score '9'"):
        scores.explain(connection, "scored_why", "9")
    with pytest.raises(UserError, match="has no score yet"):
        scores.explain(connection, "never_delivered", "2")


def test_rows_of_a_delivery_that_another_replaced_explain_nothing(table: Callable[..., Any], connection: Any) -> None:
    made = delivered(table, connection, "scored_anew")
    again = made.deliver("code,amount\na,1\nb,2\nc,3\nd,y\n", "second.csv", accept_shrink=True)
    store.keep(
        connection, [result("scored_anew", "amount_format", "pattern", "2.2", 4, 1, "amount")], delivery=again.delivery,
        write=again.write,
    )  # fmt: skip
    (rule,) = scores.failing(connection, "scored_anew", places=10)
    assert [(item.delivery, item.file, item.rows) for item in rule.deliveries] == [(again.delivery, "second.csv", 1)]
    assert [(place["file"], place["row"]) for place in rule.places] == [("second.csv", 5)]


def test_every_score_of_the_demo_is_explained_by_the_rows_that_were_planted(demo: Demo) -> None:
    """The rows behind a dataset's indicators are those of the generator's key, all and no others, each with its reason."""
    key = AnswerKey.read(demo.settings.demo_path)
    with open_warehouse(demo.settings) as warehouse, warehouse.connect(Role.LOADER) as connection:
        for contract in load_contracts(demo.settings.contracts):
            name = contract.dataset
            planted = {(item.file, item.row, item.reason) for item in key.defects if item.dataset == name}
            found = set()
            for code, score in scores.latest(connection, name).items():
                told = scores.explain(connection, name, code, places=10_000)
                assert [part.id for part in told.parts] == score.why.get("scores", [])
                for rule in told.rules:
                    if rule.result.severity != "reject" or rule.result.passed:
                        continue
                    assert rule.rows == rule.result.rows_failed == len(rule.places) == sum(item.rows for item in rule.deliveries)
                    found |= {(place["file"], place["row"], reason) for place in rule.places for reason in place["codes"]}
            assert found == planted, name
            assert planted


def test_the_command_line_tells_rules_deliveries_and_rows(demo: Demo) -> None:
    key = AnswerKey.read(demo.settings.demo_path)
    told = json.loads(demo.dopa("quality", "birth_event", "--json").stdout)
    by_file: dict[str, int] = {}
    for rule in told["failing"]:
        assert rule["incident"] and rule["rows_failed"] == sum(item["rows"] for item in rule["deliveries"])
        for item in rule["deliveries"]:
            by_file[item["file"]] = by_file.get(item["file"], 0) + item["rows"]
    planted = [item.file for item in key.defects if item.dataset == "birth_event"]
    assert by_file == {file: planted.count(file) for file in planted}
    shown = demo.dopa("quality", "birth_event", COLUMNS="160").stdout
    assert "rules that fail" in shown and all(rule["rule"] in shown for rule in told["failing"])
    down = demo.dopa("quality", "birth_event", "--explain", "1.3").stdout
    (sex,) = [rule for rule in told["failing"] if rule["rule"] == "sex_required"]
    place = next(item for item in key.defects if item.file == sex["deliveries"][0]["file"] and item.reason == "missing")
    assert f"file {place.file}, row {place.row}, " in down


def test_a_rule_that_left_the_contract_counts_no_more(table: Callable[..., Any], connection: Any) -> None:
    made = delivered(table, connection, "scored_less")
    again = made.deliver("code,amount\na,1\nb,2\n", "second.csv", accept_shrink=True)
    store.keep(connection, [result("scored_less", "key_unique", "unique", "2.3", 2, 0, None)], delivery=again.delivery,
               write=again.write)  # fmt: skip
    scores.score(connection, made.contract, day=DAY)
    found = scores.latest(connection, "scored_less")
    assert found["2.3"].level == 4
    assert found["2.2"].why["way"] == "otherwise"


class _Tags(HTMLParser):
    VOID = ("meta", "polygon", "line", "circle", "polyline", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_report_is_one_page_that_says_what_changed(table: Callable[..., Any], connection: Any) -> None:
    made = delivered(table, connection, "reported")
    hostile = replace(made.contract, title_th="<script>alert(1)</script>", key_dataset=True,
                      team=(TeamMember("q@dopa.example", "quality_steward"),))  # fmt: skip
    scores.score(connection, hostile, day=DAY)
    first = report.gather(connection, [hostile], bureau="reported_test")
    assert first.since is None
    assert (first.key_total, first.key_reached) == (1, 0)
    assert [item.rule for item in first.worst if item.dataset == "reported"] == ["amount_format", "amount_required"]
    report.keep(connection, "reported_test", "tester")
    connection.commit()
    # What fails of a table that is built for the bureau is the bureau's, too; another bureau's is not.
    for bureau, rule in ((hostile.bureau, "sum_is_right"), ("another_bureau", "not_mine")):
        (failed,) = store.keep(
            connection, [store.Result(f"marts.{rule}", rule, "sql", "consistency", "block", False, 10, 3)]
        )  # fmt: skip
        incidents.settle(connection, [failed], incidents.Owner(bureau, {"block": "t@dopa.example"}))
    scores.score(connection, hostile, {"3.1": ANSWER, "3.2": replace(ANSWER, indicator="3.2", level=4)}, day=DAY)
    second = report.gather(connection, [hostile], bureau="reported_test")
    (change,) = second.changes
    assert change.difference is not None
    assert change.difference == pytest.approx((66.667 + 100) / 2 / 5, abs=0.01)
    assert (second.opened, second.closed) == (1, 0)
    assert [(item.dataset, item.rows_now) for item in second.incidents if item.dataset.startswith("marts.")] == [
        ("marts.sum_is_right", 3)
    ]
    assert "marts.not_mine" in {item.dataset for item in report.gather(connection, [hostile]).incidents}
    page = report.as_html(second)
    parsed = _Tags()
    parsed.feed(page)
    assert parsed.open == []
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "amount_format" in "".join(parsed.text)
    assert not [value for name, value in parsed.attributes if name in ("src", "href")]
    assert page.count('class="radar"') == 2  # the scope's, and the dataset's
