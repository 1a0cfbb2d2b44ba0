"""What a change would touch and what changes did, on the project itself and on a copy of it whose models are changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dopa_pipelines.cli.main import app
from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.declared import ROWS, Declared, Dependence, Difference, impact

ROOT = Path(__file__).resolve().parents[2]

SMALL = Declared(
    columns={"raw.a": ["k", "v"], "marts.b": ["k", "n"], "marts.c": ["n"], "release:c": ["count"], "marts.apart": ["x"]},
    edges={
        Dependence("raw.a", "k", "marts.b", "k", "IDENTITY"),
        Dependence("raw.a", "v", "marts.b", "n", "AGGREGATION"),
        Dependence("raw.a", "k", "marts.b", "n", "GROUP_BY"),
        Dependence("marts.b", "k", "marts.c", ROWS, "FILTER"),
        Dependence("marts.b", "n", "marts.c", "n", "IDENTITY"),
    },
    inputs={"marts.b": ["raw.a"], "marts.c": ["marts.b"], "marts.apart": []},
    personal={("raw.a", "k")},
)
SMALL.add_release("c", "marts.c", [("count", "n")])


def reached(dataset: str, column: str | None = None) -> set[tuple[str, str, bool]]:
    return {(item.dataset, item.column, item.direct) for item in impact(SMALL, dataset, column).reached}


def test_values_and_rows_are_told_apart() -> None:
    assert reached("raw.a", "v") == {("marts.b", "n", True), ("marts.c", "n", True), ("release:c", "count", True)}
    assert reached("marts.b", "k") == {("marts.c", ROWS, False), ("release:c", ROWS, False)}


def test_a_direct_way_counts_more_than_an_indirect_one() -> None:
    assert ("marts.b", "n", True) in reached("raw.a")
    assert {item.column for item in impact(SMALL, "a", "k").reached if item.direct} == {"k"}


def test_another_release_or_table_of_that_name_is_asked_for() -> None:
    assert impact(SMALL, "c").dataset == "marts.c"
    assert impact(SMALL, "release:c").reached == ()
    with pytest.raises(UserError, match="no model, table or publication 'nothing'"):
        impact(SMALL, "nothing")
    with pytest.raises(UserError, match=r"marts\.b has no column 'z'; it has k, n"):
        impact(SMALL, "b", "z")


def test_a_difference_names_what_is_new_and_what_is_gone() -> None:
    after = Declared.from_json(json.loads(json.dumps(SMALL.as_json())))
    assert Difference(SMALL, after).empty
    after.columns["marts.b"] = ["k", "n", "m"]
    after.edges -= {Dependence("raw.a", "k", "marts.b", "n", "GROUP_BY")}
    after.edges |= {Dependence("raw.a", "v", "marts.b", "m", "IDENTITY")}
    found = Difference(SMALL, after)
    assert found.columns() == {"marts.b": (["m"], [])}
    assert found.added == [Dependence("raw.a", "v", "marts.b", "m", "IDENTITY")]
    assert found.removed == [Dependence("raw.a", "k", "marts.b", "n", "GROUP_BY")]


def test_impact_of_a_model_of_the_project(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["impact", "hotels.rooms"])
    assert done.exit_code == 0, done.output
    assert "touches" in done.stdout
    assert "| **`release:hotels_licensed`** (published) | `rooms` |" in done.stdout
    assert "| `marts.hotels_by_province` | `rooms` |" in done.stdout
    done = CliRunner().invoke(app, ["impact", "raw.hotel_licence.licensee_pid", "--json"])
    said = json.loads(done.stdout)
    # Who holds a licence stays in staging.
    assert {(item["dataset"], item["column"]) for item in said["reached"] if item["direct"]} == {
        ("staging.stg_hotel_licence", "licensee_pid")
    }


@pytest.fixture
def changed(tmp_path: Path, environment: dict[str, str]) -> Callable[..., Any]:
    """A copy of the project under git, and ``dopa`` in it."""
    project = tmp_path / "project"
    for part in ("assets", "dbt_project"):
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("target", "logs", "__pycache__"))
    author = {"GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@x", "GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x@x"}
    variables = {name: value for name, value in os.environ.items() if name != "DOPA_CONTRACTS"} | environment | author
    variables |= {"DOPA_STATE": str(tmp_path / "state")}
    variables.pop("DOPA_CONTRACTS", None)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "before"]):
        subprocess.run(["git", *command], cwd=project, env=variables, check=True)

    def dopa(*arguments: str) -> Any:
        code = "from dopa_pipelines.cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=project, env=variables, capture_output=True, text=True
        )

    dopa.project = project  # type: ignore[attr-defined]
    return dopa


def test_what_a_changed_model_does_to_lineage(changed: Any) -> None:
    model = changed.project / "dbt_project" / "models" / "open_data" / "hotels_licensed.sql"
    text = model.read_text("utf-8")
    for old, new in (
        ("where status = 'active'", "where status = 'active' and rooms > 0"),
        ("rooms::integer as rooms", "(rooms + length(hotel_name))::integer as rooms"),
        ("issued_on::date as issued_on", "expires_on::date as issued_on"),
    ):
        assert old in text
        text = text.replace(old, new)
    model.write_text(text, "utf-8")
    done = changed("diff", "HEAD", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    source, target = "marts.hotels", "open_data.hotels_licensed"

    def edge(column: str, to: str, how: str) -> dict[str, Any]:
        return {
            "source": source, "source_column": column, "target": target, "target_column": to, "how": how, "masking": False,
        }  # fmt: skip

    assert said["edges"]["added"] == [
        edge("rooms", ROWS, "FILTER"),
        edge("expires_on", "issued_on", "TRANSFORMATION"),
        edge("hotel_name", "rooms", "TRANSFORMATION"),
    ]
    assert said["edges"]["removed"] == [edge("issued_on", "issued_on", "TRANSFORMATION")]
    assert said["columns"] == {} and said["unresolved"] == {}
    refused = changed("diff", "no-such-branch")
    assert refused.returncode == 2
    assert refused.stderr.startswith("dopa: no-such-branch: git cannot give assets and dbt_project of it")
