"""The documents name everything there is."""

import re
from pathlib import Path

from typer.main import get_command

from dopa_pipelines.cli.main import app
from dopa_pipelines.contracts import read, read_rules
from dopa_pipelines.publishing.publication import Publication
from dopa_pipelines.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def words(path: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]+", (ROOT / path).read_text("utf-8")))


def test_contract_fields_are_explained() -> None:
    names = {*read.COLUMN_PROPERTIES, *read.SERVER_PROPERTIES, *read.CONTRACT_PROPERTIES, *read_rules.QUALITY_PROPERTIES}
    names |= {*read_rules.METRICS, *read_rules.ENGINE, *read_rules.SEVERITIES}
    names |= {key for engine in read_rules.ENGINE.values() for key in engine.keys}
    names |= {parse for parses in read.PARSES.values() for parse in parses} | set(read.FORMATS)
    assert names - words("docs/contracts.md") == set()


def test_reason_codes_are_explained() -> None:
    code = re.compile(r'"(missing|[a-z]+_[a-z_]+)"')
    source = "".join((ROOT / "dopa_pipelines" / name).read_text() for name in ("ingest/enforce.py", "ingest/settle.py"))
    known = words("docs/contracts.md")
    reasons = {
        found for found in code.findall(source) if found.split("_")[0] in ("bad", "out", "not", "too", "future", "impossible")
    }
    reasons |= {"missing", "ragged_line", "undecodable", "mojibake", "duplicate_key", "unknown_reference", "row_rule"}
    assert len(reasons) > 15
    assert reasons - known == set()


def test_publication_fields_are_explained() -> None:
    assert {info.alias for info in Publication.model_fields.values()} - words("docs/publications.md") == set()


def test_commands_and_settings_are_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"dopa {name}" not in text] == []
    assert [name for name in Settings.model_fields if f"DOPA_{name.upper()}" not in text] == []


def test_pictures_are_there() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", document.read_text("utf-8")):
            assert (document.parent / picture).is_file(), picture
