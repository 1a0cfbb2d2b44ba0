"""Disclosure control of extracts: from columns to cells and back, with what is out already."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import polars as pl
import pytest

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.protection import Member, Released, family_problems, protect_extract
from dopa_pipelines.publishing.publication import Disclosure, Publication, PublishedColumn

AREAS = ["1001", "1002", "1003", "1101", "1102", "1103"]


def rule(**more: object) -> Disclosure:
    given: dict[str, object] = {
        "family": "births",
        "dimensions": [
            {"name": "month", "column": "month", "additive": False},
            {"name": "area", "column": "area", "levels": [2, 4]},
            {"name": "sex", "column": "sex"},
        ],
        "measures": [{"column": "births"}],
    }
    return Disclosure.model_validate(given | more)


def publication(name: str, disclosure: Disclosure, columns: list[str]) -> Publication:
    listed = [
        PublishedColumn.model_construct(name=item, source=item, type="string", description_en=item, description_th=item)
        for item in columns
    ]
    return Publication.model_construct(name=name, disclosure=disclosure, columns=listed, unit_of_count="คน")


def births(values: dict[tuple[str, str, str], int]) -> pl.DataFrame:
    rows = [(month, area, sex, values.get((month, area, sex), 20)) for month, area, sex in product(["01", "02"], AREAS, "fm")]
    return pl.DataFrame(rows, schema=["month", "area", "sex", "births"], orient="row")


DISTRICTS = publication("births_by_district", rule(), ["month", "area", "sex", "births"])


def holds(frame: pl.DataFrame, truth: pl.DataFrame, month: str, totals: dict[str, int]) -> None:
    """By brute force over whole numbers: in ``month``, with the provinces' totals by sex, no hidden cell has a single value."""
    cells = frame.with_columns(truth=truth["births"]).filter(pl.col("month") == month)
    for province in ("10", "11"):
        for sex in "fm":
            part = cells.filter(pl.col("area").str.starts_with(province) & (pl.col("sex") == sex))
            hidden = part.filter(pl.col("births").is_null())
            assert hidden.height != 1, "the total less the others tells the only hidden cell"
            rest = totals[f"{province}{sex}"] - int(part["births"].sum())
            assert rest == int(hidden["truth"].sum())


def test_a_small_count_is_hidden_with_others_that_keep_it_so_and_months_stand_apart() -> None:
    truth = births({("01", "1001", "f"): 2})
    made = protect_extract(DISTRICTS, truth)
    assert not made.disclosed
    january = made.frame.filter(pl.col("month") == "01")
    hidden = january.filter(pl.col("births").is_null())
    assert ("1001", "f") in hidden.select("area", "sex").rows()
    assert hidden.height >= 4  # two rows and two columns at least
    totals = {
        f"{province}{sex}": int(
            truth.filter((pl.col("month") == "01") & pl.col("area").str.starts_with(province) & (pl.col("sex") == sex))[
                "births"
            ].sum()
        )
        for province in ("10", "11")
        for sex in "fm"
    }
    holds(made.frame, truth, "01", totals)
    assert made.frame.filter(pl.col("month") == "02")["births"].null_count() == 0
    assert made.frame.select("month", "area", "sex").equals(truth.select("month", "area", "sex"))
    published = made.frame.with_columns(truth=truth["births"]).drop_nulls()
    assert published["births"].to_list() == published["truth"].to_list()
    assert made.facts["primary"] == 1 and made.facts["audit"]["passed"]


def test_what_an_earlier_release_hid_stays_hidden_and_what_it_showed_hides_nothing() -> None:
    truth = births({("01", "1001", "f"): 2})
    first = protect_extract(DISTRICTS, truth)
    before = [Released("births_by_district", "2026-01-05-a", rule(), first.frame)]
    again = protect_extract(DISTRICTS, truth, before)
    assert not again.disclosed
    assert again.frame.equals(first.frame)
    # Another figure became small: nothing that is out can hide it, so only what is hidden already may.
    later = births({("01", "1001", "f"): 2, ("01", "1103", "m"): 3})
    changed = protect_extract(DISTRICTS, later, before)
    assert changed.facts["revised"] >= 1


def test_a_figure_that_is_out_already_holds_the_release_back() -> None:
    truth = births({("01", "1001", "f"): 2})
    out = [Released("births_by_district", "2026-01-05-a", rule(), truth)]
    made = protect_extract(DISTRICTS, truth, out)
    assert made.disclosed and "1001" in made.disclosed[0]
    assert not made.facts["audit"]["passed"]


def test_what_another_publication_of_the_family_shows_is_known_to_the_attacker() -> None:
    truth = births({("01", "1001", "f"): 2})
    by_area = rule(dimensions=[item for item in rule().model_dump(by_alias=True)["dimensions"] if item["name"] != "sex"])
    counted = truth.group_by("month", "area", maintain_order=True).agg(pl.col("births").sum())
    out = [Released("births_by_area", "2026-01-04-a", by_area, counted)]
    made = protect_extract(DISTRICTS, truth, out, [Member("births_by_area", by_area, counted)])
    assert not made.disclosed
    hidden = made.frame.filter(pl.col("births").is_null())
    # With the district's total out, the other sex of the same district must be hidden, too.
    assert {("01", "1001", "f"), ("01", "1001", "m")} <= set(hidden.select("month", "area", "sex").rows())
    assert "births_by_area 2026-01-04-a" in made.facts["attacked_with"]


def test_a_wide_table_s_columns_are_codes_of_a_dimension() -> None:
    wide = rule(
        dimensions=[{"name": "area", "column": "area", "levels": [2, 4]}, {"name": "sex"}],
        measures=[
            {"column": "male", "at": {"sex": "m"}},
            {"column": "female", "at": {"sex": "f"}},
            {"column": "total"},
        ],
        rates=[{"column": "percent_female", "numerator": "female", "denominator": "total"}],
    )
    rows = [(area, 30, 3 if area == "1001" else 25, 33 if area == "1001" else 55) for area in AREAS]
    truth = pl.DataFrame(rows, schema=["area", "male", "female", "total"], orient="row")
    truth = truth.with_columns(percent_female=(100 * pl.col("female") / pl.col("total")).round(2))
    made = protect_extract(publication("population", wide, truth.columns), truth)
    row = made.frame.filter(pl.col("area") == "1001").row(0, named=True)
    assert row["female"] is None and (row["male"] is None or row["total"] is None)
    assert row["percent_female"] is None
    assert not made.disclosed


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (pl.lit(None, pl.Int64).alias("births"), "births of row 1 is empty"),
        (pl.lit(None, pl.String).alias("area"), "row 1 has no area"),
    ],
)
def test_rows_that_cannot_be_protected_are_refused_with_their_place(spoil: pl.Expr, words: str) -> None:
    with pytest.raises(UserError, match=words):
        protect_extract(DISTRICTS, births({}).with_columns(spoil))


def test_what_is_not_out_yet_can_still_be_protected_when_its_turn_comes() -> None:
    # Two tambons with 2 and 4: of their district's 6, an attacker would know each to within 4.
    tambons = pl.DataFrame(
        [
            (month, f"{district}{tambon:02}", sex, 2 * tambon if (district, sex) == ("1002", "f") else 20 + 3 * place + tambon)
            for month in ("01", "02")
            for place, district in enumerate(AREAS)
            for tambon in (1, 2)
            for sex in "fm"
        ],
        schema=["month", "area", "sex", "births"],
        orient="row",
    )
    levels = [2, 4, 6]
    finer = rule(
        dimensions=[
            {**item, "levels": levels} if item["name"] == "area" else item
            for item in rule().model_dump(by_alias=True)["dimensions"]
        ]
    )
    districts = tambons.group_by("month", pl.col("area").str.head(4), "sex", maintain_order=True).agg(pl.col("births").sum())
    first = protect_extract(DISTRICTS, districts, (), [Member("births_by_tambon", finer, tambons)])
    assert not first.disclosed
    out = [Released("births_by_district", "2026-01-05-a", rule(), first.frame)]
    then = protect_extract(
        publication("births_by_tambon", finer, tambons.columns), tambons, out, [Member("births_by_district", rule(), districts)]
    )
    assert not then.disclosed
    # What protected both is tried first, and is what both have.
    again = protect_extract(
        publication("births_by_tambon", finer, tambons.columns),
        tambons,
        out,
        [Member("births_by_district", rule(), districts)],
        first.pattern,
    )
    assert not again.disclosed and again.pattern is not None and first.pattern is not None
    assert set(again.pattern.rows()) == set(first.pattern.select(again.pattern.columns).rows())
    # A pattern that does not protect is not used.
    useless = first.pattern.head(1)
    mended = protect_extract(DISTRICTS, districts, (), [Member("births_by_tambon", finer, tambons)], useless)
    assert mended.frame.equals(first.frame)
    # Alone, the districts hide less, and the tambons cannot be protected any more.
    alone = protect_extract(DISTRICTS, districts)
    assert alone.frame["births"].null_count() < first.frame["births"].null_count()
    late = protect_extract(
        publication("births_by_tambon", finer, tambons.columns),
        tambons,
        [Released("births_by_district", "2026-01-05-a", rule(), alone.frame)],
        [Member("births_by_district", rule(), districts)],
    )
    assert late.disclosed


def test_a_rate_that_is_not_what_the_rule_says_is_refused() -> None:
    rated = rule(
        dimensions=[{"name": "area", "column": "area", "levels": [2, 4]}, {"name": "sex"}],
        measures=[{"column": "female", "at": {"sex": "f"}}, {"column": "total"}],
        rates=[{"column": "percent", "numerator": "female", "denominator": "total", "decimals": 1}],
    )
    truth = pl.DataFrame([(area, 25, 60) for area in AREAS], schema=["area", "female", "total"], orient="row")
    right = truth.with_columns(percent=(100 * pl.col("female") / pl.col("total")).round(1))
    assert protect_extract(publication("people", rated, right.columns), right).frame.equals(right)
    for wrong in (41.67, 41.5):
        with pytest.raises(UserError, match=r"row 3: percent is .* not 100 x female / total .25 / 60. to 1 decimals"):
            spoiled = right.with_row_index("at").with_columns(percent=pl.when(pl.col("at") == 2).then(wrong).otherwise("percent"))
            protect_extract(publication("people", rated, right.columns), spoiled.drop("at"))


def test_a_rate_of_rounded_counts_is_made_of_what_goes_out() -> None:
    rounded = rule(
        method="rounding",
        base=5,
        dimensions=[{"name": "area", "column": "area", "levels": [2, 4]}, {"name": "sex"}],
        measures=[{"column": "female", "at": {"sex": "f"}}, {"column": "male", "at": {"sex": "m"}}, {"column": "total"}],
        rates=[{"column": "percent", "numerator": "female", "denominator": "total", "decimals": 1}],
    )
    rows = [(area, 3 + at, 31 - at, 34) for at, area in enumerate(AREAS)]
    truth = pl.DataFrame(rows, schema=["area", "female", "male", "total"], orient="row")
    truth = truth.with_columns(percent=(100 * pl.col("female") / pl.col("total")).round(1))
    made = protect_extract(publication("people", rounded, truth.columns), truth).frame
    assert (made["female"] % 5 == 0).all()
    assert made["percent"].to_list() == (100 * made["female"] / made["total"]).round(1).to_list()
    assert made["percent"].to_list() != truth["percent"].to_list()


def test_the_same_people_in_two_families_are_a_problem() -> None:
    def one(name: str, family: str) -> Publication:
        made = publication(name, rule(family=family), ["month", "area", "sex", "births"])
        made._path = Path(f"{name}.yaml")
        return made

    apart = [one("births_by_district", "births"), one("births_by_sex", "others")]
    same = {
        "births_by_district": frozenset({"raw.birth_event"}),
        "births_by_sex": frozenset({"raw.birth_event", "raw.area_code"}),
    }
    (problem,) = family_problems(apart, same)
    assert "counts raw.birth_event" in problem.message and "one disclosure family" in problem.message
    assert not family_problems(apart, same | {"births_by_sex": frozenset({"raw.death_event"})})
    assert not family_problems([one("a", "births"), one("b", "births")], same)


def test_a_model_of_other_data_is_left_out_and_named() -> None:
    truth = births({("01", "1001", "f"): 2})
    by_area = rule(dimensions=[item for item in rule().model_dump(by_alias=True)["dimensions"] if item["name"] != "sex"])
    older = truth.group_by("month", "area", maintain_order=True).agg(pl.col("births").sum() - 1)
    made = protect_extract(DISTRICTS, truth, (), [Member("births_by_area", by_area, older)])
    assert made.facts["out_of_step"] == ["births_by_area"] and not made.disclosed
    assert made.frame.equals(protect_extract(DISTRICTS, truth).frame)
