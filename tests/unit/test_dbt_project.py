"""The dbt project as files: what every model must have beside it. No database, no dbt."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import geothai
import pytest
import yaml

PROJECT = Path(__file__).parents[2] / "dbt_project"
MODELS = sorted(path for path in (PROJECT / "models").rglob("*.sql"))
SEEDS = sorted((PROJECT / "seeds").glob("*.csv"))
THAI = re.compile("[\u0e00-\u0e7f]")
PERSONAL = re.compile(r"pid$|first_name|last_name|full_name|complainant|licensee|detail|house_no|house_code")


def described(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.with_suffix(".yml").read_text(encoding="utf-8"))
    (model,) = document["models"]
    return dict(model)


def final_columns(path: Path) -> list[str]:
    """Names in the select list of the CTE `final`, which every model ends with."""
    body = path.read_text(encoding="utf-8").split("\nfinal as (", 1)[1].split("select", 1)[1]
    body = re.sub(r"--[^\n]*", "", body)
    depth, items = 0, [""]
    for character in body:
        depth += (character in "({") - (character in ")}")
        if depth == 0 and character == ",":
            items.append("")
        elif depth == 0 and items[-1].endswith("\n    from") and character in " \n":
            items[-1] = items[-1].removesuffix("from")
            break
        else:
            items[-1] += character
    return [re.split(r"[\s.]", item.strip())[-1] for item in items]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_column_is_described_in_english_and_thai(path: Path) -> None:
    model = described(path)
    assert model["name"] == path.stem
    assert [column["name"] for column in model["columns"]] == final_columns(path)
    for text in [model["description"], *(column["description"] for column in model["columns"])]:
        english, _, thai = text.partition(" / ")
        assert english and THAI.search(thai) and not THAI.search(english), text


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_model_has_an_owner_and_ends_with_final(path: Path) -> None:
    assert described(path)["config"]["meta"]["owner"]
    assert path.read_text(encoding="utf-8").endswith("select * from final\n")


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.stem)
def test_a_seed_is_described_and_says_who_may_see_its_columns(path: Path) -> None:
    document = yaml.safe_load(path.with_suffix(".yml").read_text(encoding="utf-8"))
    (seed,) = document["seeds"]
    lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert seed["name"] == path.stem
    assert seed["config"]["meta"]["owner"]
    # dbt guesses a type where none is said, and takes a leading zero off a code.
    assert list(seed["config"]["column_types"]) == [column["name"] for column in seed["columns"]] == lines[0]
    assert {len(line) for line in lines} == {len(lines[0])}
    for column in seed["columns"]:
        assert column["config"]["meta"]["classification"] in ("open", "internal", "personal", "confidential", "secret")
        assert column["data_type"] == seed["config"]["column_types"][column["name"]]
    for text in [seed["description"], *(column["description"] for column in seed["columns"])]:
        english, _, thai = text.partition(" / ")
        assert english and THAI.search(thai) and not THAI.search(english), text


def test_every_province_is_in_one_region() -> None:
    """By the National Geographic Committee: 9, 20, 22, 7, 5 and 14 provinces."""
    rows = list(csv.DictReader((PROJECT / "seeds" / "province_region.csv").read_text(encoding="utf-8").splitlines()))
    assert sorted(row["province_code"] for row in rows) == sorted(province.code for province in geothai.provinces())
    regions = Counter((row["region_code"], row["region_th"], row["region_en"]) for row in rows)
    assert regions == {
        ("N", "ภาคเหนือ", "Northern"): 9, ("NE", "ภาคตะวันออกเฉียงเหนือ", "Northeastern"): 20, ("C", "ภาคกลาง", "Central"): 22,
        ("E", "ภาคตะวันออก", "Eastern"): 7, ("W", "ภาคตะวันตก", "Western"): 5, ("S", "ภาคใต้", "Southern"): 14,
    }  # fmt: skip
    of = {row["province_code"]: row["region_code"] for row in rows}
    # Where other divisions of the country differ.
    assert [of[code] for code in ("10", "38", "60", "63", "67", "77", "86")] == ["C", "NE", "C", "W", "C", "W", "S"]


def test_what_is_configured_by_folder_has_that_folder() -> None:
    """dbt does not complain of others, so that snapshots can be configured before there is one."""
    project = yaml.safe_load((PROJECT / "dbt_project.yml").read_text(encoding="utf-8"))
    for kind in ("models", "seeds", "snapshots"):
        assert list(project[kind]) == [project["name"]]
        for name in project[kind][project["name"]]:
            assert name.startswith("+") or (PROJECT / kind / name).is_dir(), f"{kind}: {name}"


@pytest.mark.parametrize("path", [path for path in MODELS if "staging" not in path.parts], ids=lambda path: path.stem)
def test_personal_columns_stay_in_staging(path: Path) -> None:
    assert not [name for name in final_columns(path) if PERSONAL.search(name)]


@pytest.mark.parametrize("path", sorted((PROJECT / "models/open_data").glob("*.sql")), ids=lambda path: path.stem)
def test_open_data_has_types_and_a_key(path: Path) -> None:
    model = described(path)
    assert all(column["data_type"] for column in model["columns"])
    (key,) = (c["columns"] for c in model["constraints"] if c["type"] == "primary_key")
    assert set(key) <= {column["name"] for column in model["columns"]}
