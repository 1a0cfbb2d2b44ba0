"""The dbt project as files: what every model must have beside it. No database, no dbt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2] / "dbt_project"
MODELS = sorted(path for path in (PROJECT / "models").rglob("*.sql"))
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


@pytest.mark.parametrize("path", [path for path in MODELS if "staging" not in path.parts], ids=lambda path: path.stem)
def test_personal_columns_stay_in_staging(path: Path) -> None:
    assert not [name for name in final_columns(path) if PERSONAL.search(name)]


@pytest.mark.parametrize("path", sorted((PROJECT / "models/open_data").glob("*.sql")), ids=lambda path: path.stem)
def test_open_data_has_types_and_a_key(path: Path) -> None:
    model = described(path)
    assert all(column["data_type"] for column in model["columns"])
    (key,) = (c["columns"] for c in model["constraints"] if c["type"] == "primary_key")
    assert set(key) <= {column["name"] for column in model["columns"]}
