"""Wide lines as rows: the yearly file of ages against an oracle that counts fields, and what a contract may not say."""

import csv
import random
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dopa_pipelines.contracts import Contract, read_contract
from dopa_pipelines.documents import DocumentError
from dopa_pipelines.errors import Rejected
from dopa_pipelines.sources import open_reader, unpivot
from dopa_pipelines.sources.batch import FLAW, ORIGINAL, ROW, Batch, batch_of
from dopa_pipelines.sources.unpivot import fill_from_file, line_of

AGE = Path(__file__).parents[1] / "contracts" / "population_age.odcs.yaml"


@pytest.fixture(scope="module")
def age() -> Contract:
    return read_contract(AGE)


def rows_of(batches: list[Batch]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for batch in batches:
        places = pl.int_range(len(batch.rows), eager=True)
        columns = {name: text.rows() for name, text in batch.columns.items()}
        found += pl.DataFrame({ROW: batch.rows, ORIGINAL: batch.original(places)} | columns).to_dicts()
    return sorted(found, key=lambda row: row[ROW])


def age_file(path: Path, areas: int) -> Path:
    chance = random.Random(areas)
    lines = [f"พื้นที่ {n}|" + "|".join(str(chance.randint(0, 9999)) for _ in range(219)) + "|\n" for n in range(areas)]
    path.write_text("".join(lines), "utf-8")
    return path


GROUPS = ["lunar_birth_date", "central_house_register", "other_nationality", "moving", "all"]


def by_counting_fields(path: Path) -> list[tuple[Any, ...]]:
    """The oracle: line, area, group, age, sex, population, read off a line by the places of its fields."""
    found: list[tuple[Any, ...]] = []
    with path.open(encoding="utf-8") as file:
        for number, fields in enumerate(csv.reader(file, delimiter="|"), 1):
            assert len(fields) == 221 and fields[220] == ""
            for years in range(102):
                found.append((number, fields[0], "registered", str(years), "male", fields[1 + 2 * years]))
                found.append((number, fields[0], "registered", str(years), "female", fields[2 + 2 * years]))
            for place, group in enumerate(GROUPS):
                for offset, sex in enumerate(("male", "female", "total")):
                    found.append((number, fields[0], group, None, sex, fields[205 + 3 * place + offset]))
    return found


def read_wide(contract: Contract, path: Path) -> list[Batch]:
    """The file's lines as its reader takes them apart, before they become rows."""
    reader = open_reader(contract, path)
    reader.names = [column.name for column in contract.file_columns]
    return [rows if isinstance(rows, Batch) else batch_of(rows, reader.names) for rows in reader.read()]


@pytest.mark.parametrize("most_rows", [1, 500, unpivot.MAX_ROWS])
def test_the_age_file_becomes_a_row_for_each_count(
    age: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_rows: int
) -> None:
    monkeypatch.setattr(unpivot, "MAX_ROWS", most_rows)
    path = age_file(tmp_path / "tambon_age6812.txt", 7)
    made = [fill_from_file(part, age, path.name) for wide in read_wide(age, path) for part in unpivot.unpivot(wide, age)]
    assert max(part.height for part in made) <= max(most_rows, 219)
    rows = rows_of(made)
    names = ("area_name", "population_group", "age", "sex", "population")
    assert [(line_of(row[ROW], age), *(row[name] for name in names)) for row in rows] == by_counting_fields(path)
    assert [row[ROW] for row in rows] == list(range(1, 7 * 219 + 1))
    lines = path.read_text("utf-8").splitlines()
    assert [row[ORIGINAL] for row in rows] == [line for line in lines for _ in range(219)]
    assert {row["month"] for row in rows} == {"2025-12-01"}
    assert list(made[0].columns) == [column.name for column in age.columns]


def test_the_contract_tells_what_stands_in_the_file(age: Contract) -> None:
    assert age.rows_per_line == 219
    names = [column.name for column in age.file_columns]
    assert (len(names), names[0], names[1], names[-1]) == (220, "area_name", "_field_2", "_field_220")
    assert age.period_of("tambon_age6812.txt") == date(2025, 12, 1)


def test_a_line_that_could_not_be_taken_apart_stays_one_row(age: Contract, tmp_path: Path) -> None:
    path = age_file(tmp_path / "x_age6812.txt", 3)
    first, second, third = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text(first + "too|short|\n" + second + "\n" + third, "utf-8")
    made = [part for wide in read_wide(age, path) for part in unpivot.unpivot(wide, age)]
    flawed = pl.concat([part.flawed for part in made]).to_dicts()
    assert flawed == [{ROW: 220, ORIGINAL: "too|short|", FLAW: "ragged_line"}]
    assert line_of(220, age) == 2
    numbers = sorted(number for part in made for number in part.rows)
    # Whether the reader or the base class takes the blank line (the fourth) out, the others keep their numbers.
    lines = sorted({line_of(number, age) for number in numbers})
    assert [line for line in lines if line != 4] == [1, 3, 5]
    assert len(numbers) == len(set(numbers)) == 219 * len(lines)


def test_only_flawed_lines_and_no_lines_at_all(age: Contract) -> None:
    names = [column.name for column in age.file_columns]
    empty = batch_of(
        pl.DataFrame(schema={ROW: pl.Int64, ORIGINAL: pl.String, FLAW: pl.String, **dict.fromkeys(names, pl.String)}), names
    )
    (made,) = unpivot.unpivot(empty, age)
    assert (made.height, list(made.columns)) == (0, [name for name in [c.name for c in age.columns] if name != "month"])
    assert rows_of([fill_from_file(made, age, "x_age6812.txt")]) == []


def test_values_that_repeat_keep_their_codes(make_contract: Any, tmp_path: Path) -> None:
    """Of 30,000 lines with three areas the areas are stored once."""
    contract = make_contract("d", COLUMNS, layout=wide_layout())
    path = tmp_path / "many.txt"
    path.write_text("".join(f"area {n % 3},{n},{n + 1},x\n" for n in range(30_000)))
    made = [part for wide in read_wide(contract, path) for part in unpivot.unpivot(wide, contract)]
    assert all(len(part.columns["area"].values) == 3 for part in made)
    rows = rows_of(made)
    assert [(row["area"], row["kind"], row["n"]) for row in rows[:3] + rows[-1:]] == [
        ("area 0", "a", "0"), ("area 0", "b", "1"), ("area 0", None, "x"), ("area 2", None, "x"),
    ]  # fmt: skip


def test_a_contract_without_unpivot_keeps_its_batches(make_contract: Any, tmp_path: Path) -> None:
    contract = make_contract("d", [{"name": "a"}, {"name": "b"}], layout={"header": False})
    path = tmp_path / "x.csv"
    path.write_text("1,2\n")
    (wide,) = read_wide(contract, path)
    assert list(unpivot.unpivot(wide, contract)) == [wide]
    assert fill_from_file(wide, contract, path.name) is wide
    assert (contract.rows_per_line, contract.file_columns, line_of(5, contract)) == (1, contract.columns, 5)


PERIOD = r"_(?P<year>\d{4})-(?P<month>\d\d)"


def test_a_column_from_the_files_name(make_contract: Any, tmp_path: Path) -> None:
    columns = [{"name": "a"}, {"name": "month", "logicalType": "date", "fromFile": "period"}, {"name": "b"}]
    contract = make_contract("d", columns, layout={"header": False, "period": PERIOD})
    assert [column.name for column in contract.file_columns] == ["a", "b"]
    path = tmp_path / "x.csv"
    path.write_text("1,2\n3,4\n")
    (wide,) = read_wide(contract, path)
    made = fill_from_file(wide, contract, "register.zip/x_2568-04.csv")
    assert list(made.columns) == ["a", "month", "b"]
    assert [(row["a"], row["month"], row["b"]) for row in rows_of([made])] == [("1", "2025-04-01", "2"), ("3", "2025-04-01", "4")]
    for name in ("x.csv", "x_2568-13.csv"):
        with pytest.raises(Rejected, match=f"^{name}: its name states no month, which column month needs"):
            fill_from_file(wide, contract, name)


COLUMNS = [{"name": "area"}, {"name": "kind"}, {"name": "n"}]
SERIES: list[Any] = [{"first": 2, "each": {"column": "kind", "values": ["a", "b"]}}, {"first": 4}]


def wide_layout(**changes: Any) -> dict[str, Any]:
    value = {"identity": ["area"], "value": "n", "series": SERIES} | changes
    return {"header": False, "unpivot": {key: item for key, item in value.items() if item is not None}}


def each(**facts: Any) -> dict[str, Any]:
    return {"first": 2, "each": {"column": "kind", "values": ["a", "b"]}} | facts


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (wide_layout() | {"header": True}, "unpivot is for a delimited file without header line"),
        ({"header": False, "unpivot": []}, r"unpivot must be \{identity"),
        (wide_layout(identity=None), r"unpivot must be \{identity"),
        (wide_layout(identity="area"), r"unpivot must be \{identity"),
        (wide_layout(value=None), r"unpivot must be \{identity"),
        (wide_layout(series=[]), r"unpivot must be \{identity"),
        (wide_layout(series=[5]), "a series must be"),
        (wide_layout(valeu="n"), "unknown key 'valeu' of unpivot.*value"),
        (wide_layout(series=[each(colunm="kind")]), "unknown key 'colunm' of a series.*column"),
        (wide_layout(value="m"), "unpivot names unknown column 'm'"),
        (wide_layout(identity=["aera"]), "unpivot names unknown column 'aera'.*area"),
        (wide_layout(identity=["area", "area"], series=[each(first=3)]), "'area' must be filled in one way"),
        (wide_layout(value="kind"), "'kind' must be filled in one way"),
        (wide_layout(series=[{"first": 2}]), "unpivot fills no column kind"),
        (wide_layout(series=[each(first=3)]), "first: 3 must be 2"),
        (wide_layout(series=[each(), {"first": 5}]), "first: 5 must be 4"),
        (wide_layout(series=[each(), {"first": 3}]), "first: 3 must be 4"),
        (wide_layout(series=[each(first=0)]), "first must be a whole number of at least 1, not 0"),
        (wide_layout(series=[each(first="2")]), "first must be a whole number"),
        (wide_layout(series=[each(first=None)]), "first must be a whole number"),
        (wide_layout(series=[each(repeat=True)]), "repeat must be a whole number"),
        (wide_layout(series=[each(repeat=2)]), "a series that repeats needs column"),
        (wide_layout(series=[each(start=-1)]), "start must be a whole number of at least 0"),
        (wide_layout(series=[{"first": 2, "repeat": 10**12, "column": "kind"}]), "repeat must be at most 10,000"),
        (wide_layout(series=[{"first": 2, "repeat": 10_000, "column": "kind"}]), "at most 10,000 are read"),
        (wide_layout(series=[each(column=["kind"])]), "must name a column"),
        (wide_layout(series=[each(column="kind", repeat=2)]), "fills a column in two ways"),
        (wide_layout(series=[each(set={"kind": "x"})]), "fills a column in two ways"),
        (wide_layout(series=[each(set=["kind"])]), "set must be a mapping"),
        (wide_layout(series=[each(set={"kind": None})]), "set must be a mapping"),
        *(
            (wide_layout(series=[each(each=wrong)]), "each must be")
            for wrong in (5, {}, {"column": "kind"}, {"column": "kind", "values": []}, {"column": "kind", "values": ["a", "a"]},
                          {"column": "kind", "values": [True, False]}, {"column": 5, "values": ["a"]},
                          {"column": "kind", "values": "ab"}, {"column": "kind", "values": ["a"], "x": 1})
        ),
    ],
)  # fmt: skip
def test_an_unpivot_that_is_wrong_is_refused_with_its_line(make_contract: Any, layout: dict[str, Any], words: str) -> None:
    with pytest.raises(DocumentError, match=words) as refused:
        make_contract("d", COLUMNS, layout=layout)
    assert all(problem.line > 1 for problem in refused.value.problems)


@pytest.mark.parametrize(
    ("column", "layout", "words"),
    [
        ({"name": "kind", "fromFile": "name"}, {"period": PERIOD}, "fromFile 'name' is not known; .*period"),
        ({"name": "kind"}, {"totals": {"column": "knid", "pattern": "x"}}, "totals names 'knid', .*kind"),
        (
            {"name": "kind"},
            wide_layout() | {"totals": {"column": "kind", "pattern": "x"}},
            "totals names 'kind', which is no column",
        ),
        ({"name": "kind", "fromFile": "period"}, {}, "fromFile: period needs the server's customProperty period"),
        ({"name": "kind", "fromFile": "period"}, wide_layout() | {"period": PERIOD}, "'kind' must be filled in one way"),
    ],
)
def test_a_from_file_that_is_wrong_is_refused(make_contract: Any, column: Any, layout: dict[str, Any], words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        make_contract("d", [{"name": "area"}, column, {"name": "n"}], layout={"header": False} | layout)


def test_other_unpivots_treat_deliveries_in_another_way(make_contract: Any) -> None:
    one = make_contract("d", COLUMNS, layout=wide_layout())
    other = make_contract("d", COLUMNS, layout=wide_layout(series=[each(each={"column": "kind", "values": ["a", "c"]})]))
    assert one.checksum != other.checksum
