"""What contracts say of columns, and walks as pictures: nothing over another, nothing left out unsaid."""

from __future__ import annotations

import random
import re
import time
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import pytest

from dopa_pipelines.contracts import read_contract
from dopa_pipelines.lineage.columngraph import FILE_NAME, contract_edges
from dopa_pipelines.lineage.columntrace import ColumnWalk, Definition, Place
from dopa_pipelines.lineage.drawing import Picture, as_dot, as_html, as_svg, fitted, picture, text_width
from dopa_pipelines.lineage.model import ColumnEdge
from dopa_pipelines.lineage.naming import DatasetName

CONTRACTS = Path(__file__).resolve().parents[1] / "contracts"
SVG = "{http://www.w3.org/2000/svg}"
KINDS = ["feed", "load", "model", "model", "model", "release"]
WHEN = datetime(2026, 11, 1, tzinfo=UTC)


def test_a_line_of_many_rows_leads_to_the_column_of_its_values() -> None:
    contract = read_contract(CONTRACTS / "population_age.odcs.yaml")
    table, feed = DatasetName("postgres://x", "db.raw.population_age"), DatasetName("file", "registration/population_age")
    fields, edges = contract_edges(contract, table, feed)
    assert [item["name"] for item in fields][-2:] == ["_delivery_id", "_row"]
    sources = {item["name"]: {edge.source_column for edge in edges if edge.target_column == item["name"]} for item in fields}
    # 219 fields after the name of the area; which of them says age, sex and group by its place.
    assert sources["population"] == {f"field {number}" for number in range(2, 221)}
    assert sources["month"] == {FILE_NAME}
    assert sources["age"] == sources["sex"] == sources["_row"] == set()
    assert sources["area_name"] == {contract.column("area_name").title}
    assert {edge.subtype for edge in edges if edge.target_column == "area_name"} == {"IDENTITY"}
    assert {edge.subtype for edge in edges if edge.target_column == "population"} == {"TRANSFORMATION"}


def walk_of(tables: int, columns: int, *, layers: int = 6, indirect: int = 0) -> ColumnWalk:
    """A walk up from the last table over layers of tables, as a department may have them."""
    some = random.Random(tables * 1000 + columns)
    layer = [number * layers // tables for number in range(tables)]
    names = [DatasetName("postgres://x", f"db.layer{layer[n]}.ตาราง_{n}") for n in range(tables)]
    edges, decide = [], []
    for number, name in enumerate(names):
        before = [other for other in range(tables) if layer[other] == layer[number] - 1]
        before += [other for other in range(tables) if layer[other] < layer[number] - 1 and some.random() < 0.05]
        for column in range(columns if before else 0):
            source = names[some.choice(before)]
            edges.append(ColumnEdge(source, f"คอลัมน์_{some.randrange(columns)}", name, f"คอลัมน์_{column}", "IDENTITY"))
    for _ in range(indirect):
        edge = some.choice(edges)
        decide.append(ColumnEdge(edge.source, "other", edge.target, None, "FILTER"))

    def definition(number: int) -> Definition:
        fields = [{"name": f"คอลัมน์_{column}"} for column in range(columns)] + [{"name": "other"}, {"name": "unused"}]
        if layer[number] == 0:
            fields[0] |= {"classification": "personal", "pdpa_role": "direct_identifier"}
        return Definition(
            names[number], KINDS[layer[number]], "1.0.0", tuple(fields), None, WHEN, None, number, None, "dopa_loader", None, {}
        )

    return ColumnWalk(
        Place(names[-1], None), "up", None, {name: name.name.removeprefix("db.") for name in names}, tuple(edges), tuple(decide),
        {Place(name, f"คอลัมน์_{column}"): layers - layer[n] for n, name in enumerate(names) for column in range(columns)},
        {}, {name: definition(number) for number, name in enumerate(names)},
    )  # fmt: skip


def boxes_are_apart(made: Picture) -> None:
    for one, two in combinations(made.tables.values(), 2):
        beside = one.x + one.width <= two.x or two.x + two.width <= one.x
        above = one.y + one.height <= two.y or two.y + two.height <= one.y
        assert beside or above, (one.label, two.label)
    for table in made.tables.values():
        assert table.x >= 0 and table.y >= 0
        assert table.x + table.width <= made.width and table.y + table.height <= made.height


@pytest.mark.parametrize(("tables", "columns"), [(2, 3), (5, 4), (40, 8), (200, 2), (200, 12)])
def test_sources_stand_left_of_what_is_made_of_them(tables: int, columns: int) -> None:
    started = time.perf_counter()
    made = picture([walk_of(tables, columns)])
    svg = as_svg(made)
    assert time.perf_counter() - started < 3  # 0.03 s here
    boxes_are_apart(made)
    assert len(made.tables) == tables
    for line in made.lines:
        source, target = made.tables[line.source], made.tables[line.target]
        assert source.x + source.width < target.x
    root = ET.fromstring(svg)
    assert len(list(root.iter(f"{SVG}path"))) >= len(made.lines)


def test_what_is_folded_up_or_left_out_is_said() -> None:
    small = picture([walk_of(5, 4, indirect=3)])
    assert all(table.more in (1, 2) for table in small.tables.values())
    assert any(re.fullmatch(r"\d+ columns that are not on the path are folded up", note) for note in small.notes)
    assert any(not line.direct for line in small.lines)
    large = picture([walk_of(200, 12, indirect=3)])
    drawn = [row for table in large.tables.values() for row in table.rows.values()]
    assert len(drawn) == 12  # those of the table that was asked for
    assert any(note.startswith("2,400 columns are on the path: only those of layer5.ตาราง_199") for note in large.notes)
    assert any("edges that only decide rows or values are not drawn" in note for note in large.notes)
    svg = as_svg(large)
    assert "with personal data" in svg
    for note in large.notes:
        assert note in svg


def test_personal_data_is_marked_where_it_came_from_and_where_it_went() -> None:
    walk = walk_of(6, 1)
    made = picture([walk])
    marks = {table.kind: {row.mark for row in table.rows.values()} for table in made.tables.values()}
    assert marks["feed"] == {"contract"}
    assert marks["release"] == {"derived"}
    assert as_svg(made).count('<circle class="contract"') >= 2  # and in the legend


def test_a_circle_of_tables_is_drawn_all_the_same() -> None:
    walk = walk_of(3, 1, layers=3)
    first, *_, last = walk.labels
    back = ColumnEdge(last, "คอลัมน์_0", first, "คอลัมน์_0", "IDENTITY")
    itself = ColumnEdge(last, "คอลัมน์_0", last, "คอลัมน์_0", "IDENTITY")
    made = picture([ColumnWalk(**{**vars(walk), "edges": (*walk.edges, back, itself)})])
    boxes_are_apart(made)
    assert as_svg(made)


def test_names_are_escaped_and_cut_to_fit() -> None:
    walk = walk_of(2, 1, layers=2)
    labels = dict.fromkeys(walk.labels, f'<b>"{"ยาวมาก" * 20}"&')
    made = picture([ColumnWalk(**{**vars(walk), "labels": labels})])
    ET.fromstring(as_svg(made))
    assert "<b>" not in as_html(made).replace("<tbody>", "")
    assert '\\"' in as_dot(made)
    assert text_width("กี่") == text_width("ก")
    assert text_width(fitted("ก" * 100, 120)) <= 120
    assert fitted("สั้น", 120) == "สั้น"
