"""Publications are refused by file and line; writers give harmless, stable bytes; descriptions hold what the
catalogue asks for."""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import zipfile
from decimal import Decimal
from pathlib import Path

import openpyxl
import polars as pl
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from openpyxl.utils.escape import unescape

from dopa_pipelines.documents import read_document
from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing import describe, gd_catalog, load_publications, read_publication
from dopa_pipelines.publishing.folders import WrittenFile
from dopa_pipelines.publishing.writers import BOM, SHEET_ROWS, WRITERS, Style

ASSETS = Path(__file__).parents[2] / "assets" / "open_data"
PLACES = """\
name: places
version: 1.0.0
titleEn: Places
titleTh: สถานที่
descriptionEn: Places for testing.
descriptionTh: สถานที่สำหรับทดสอบ
source: open_data.places
columns:
  - {name: code, source: code, type: string, descriptionEn: Code, descriptionTh: รหัส}
  - {name: people, source: people, type: integer, descriptionEn: People, descriptionTh: จำนวนคน, unit: person}
orderBy: [code]
formats: [csv, json, parquet]
schedule: 0 6 5 * *
licence: CC-BY-4.0
contact: {name: สำนักบริหารการทะเบียน, email: open-data@dopa.example}
approval:
  by: คณะกรรมการธรรมาภิบาลข้อมูล
  approvedOn: 2025-10-01
  document: มท 0309/1
  reviewOn: 2027-09-30
  highValue: true
unitOfCount: คน
gdCatalog:
  data_type: ข้อมูลสถิติ
  title: สถานที่
  owner_org: กรมการปกครอง
  maintainer: สำนักบริหารการทะเบียน
  maintainer_email: open-data@dopa.example
  tag_string: สถานที่,ทดสอบ
  notes: สถานที่สำหรับทดสอบ
  objective: [พันธกิจหน่วยงาน]
  update_frequency_unit: เดือน
  update_frequency_interval: 1
  geo_coverage: ประเทศ
  data_source: กรมการปกครอง
  data_format: [CSV, JSON, อื่นๆ]
  data_format_other: Parquet
  data_category: ข้อมูลสาธารณะ
  license_id: Creative Commons Attributions
"""


def written(folder: Path, text: str, name: str = "places") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_publication_is_read(tmp_path: Path) -> None:
    publication = read_publication(written(tmp_path, PLACES))
    assert [column.name for column in publication.columns] == ["code", "people"]
    assert publication.approval.high_value
    assert publication.approval.review_on == datetime.date(2027, 9, 30)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("orderBy: [code]", "order_by: [code]", 11, ["'order_by'", "'orderBy'"]),
        ("titleTh: สถานที่\n", "", 1, ["lacks 'titleTh'"]),
        ("type: integer", "type: whole", 10, ["'type' of column 'people'", "'whole'", "'integer'"]),
        (", descriptionTh: รหัส", "", 9, ["column 'code'", "'descriptionTh'"]),
        ("source: open_data.places", "source: raw.person_register", 7, ["'source'", "raw.person_register"]),
        ("name: people,", "name: code,", 10, ["'code'", "twice"]),
        ("orderBy: [code]", "orderBy: [code, area]", 11, ["'area'", "not a listed column"]),
        ("name: places", "name: spaces", 1, ["'spaces'", "'places'"]),
        ("schedule: 0 6 5 * *", "schedule: monthly", 13, ["'monthly'", "cron", "on the 5th of each month", "ทุกไตรมาส"]),
        ("schedule: 0 6 5 * *", "schedule: on the 31st of each month", 13, ["day 31", "last day"]),
        ("version: 1.0.0", "version: 1.0", 2, ["'version'", "1.0"]),
        ("2027-09-30", "2025-09-30", 20, ["review", "after"]),
        ("  by: คณะกรรมการธรรมาภิบาลข้อมูล\n", "", 16, ["'approval' lacks 'by'"]),
        ("geo_coverage: ประเทศ", "geo_coverage: ทั้งประเทศ", 34, ["'ทั้งประเทศ'", "ประเทศ · ภาค"]),
        ("  notes: สถานที่สำหรับทดสอบ\n", "", 23, ["13 of 14", "missing: notes"]),
        ("  tag_string: สถานที่,ทดสอบ\n  notes", '  tag_string: " "\n  notes', 23, ["13 of 14", "tag_string"]),
        ("  data_format_other: Parquet\n", "", 36, ["data_format_other"]),
        ("data_category: ข้อมูลสาธารณะ", "data_category: ข้อมูลส่วนบุคคล", 38, ["ข้อมูลสาธารณะ"]),
        ("license_id: Creative Commons Attributions", "license_id: Open Data Common", 39, ["CC-BY-4.0"]),
        ("[CSV, JSON, อื่นๆ]", "[CSV, อื่นๆ]", 36, ["'JSON'"]),
        ("  license_id:", "  licence_id: x\n  license_id:", 39, ["licence_id", "no such key"]),
        ("formats: [csv, json, parquet]", "formats: [csv, csv]", 12, ["twice"]),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path: Path, old: str, new: str, line: int, words: list[str]) -> None:
    assert PLACES.count(old) == 1
    path = written(tmp_path, PLACES.replace(old, new))
    with pytest.raises(UserError) as caught:
        read_publication(path)
    complaints = str(caught.value).splitlines()
    matching = [text for text in complaints if text.startswith(f"{path}:{line}: ")]
    assert any(all(word in text for word in words) for text in matching), complaints


def test_the_others_still_load_when_one_is_wrong(tmp_path: Path) -> None:
    written(tmp_path, PLACES)
    written(tmp_path, PLACES.replace("titleEn: Places\n", ""), "wrong")
    written(tmp_path, "name: [", "broken")
    publications, problems = load_publications(tmp_path)
    assert [publication.name for publication in publications] == ["places"]
    assert {problem.file.name for problem in problems} == {"wrong.yaml", "broken.yaml"}
    assert all(problem.line >= 1 for problem in problems)


def test_the_departments_publications_are_right() -> None:
    publications, problems = load_publications(ASSETS)
    assert not problems
    assert {publication.name for publication in publications} >= {
        "area_codes",
        "births_by_province",
        "deaths_by_province",
        "hotels_licensed",
        "id_cards_by_office",
        "population_by_district",
    }
    for publication in publications:
        assert not gd_catalog.problems(describe.metadata(publication)), publication.name


def test_publications_and_models_agree_on_columns_and_types() -> None:
    types = {
        "text": "string",
        "integer": "integer",
        "bigint": "integer",
        "numeric": "number",
        "date": "date",
        "boolean": "boolean",
    }
    models = ASSETS.parents[1] / "dbt_project" / "models" / "open_data"
    for publication in load_publications(ASSETS).publications:
        model = publication.source.removeprefix("open_data.")
        described = read_document(models / f"{model}.yml").data["models"]
        columns = {
            column["name"]: types[column["data_type"].split("(")[0]]
            for entry in described
            if entry["name"] == model
            for column in entry["columns"]
        }
        listed = {column.source: column.type for column in publication.columns}
        assert listed.items() <= columns.items(), publication.name


PLAIN = Style()
SCHEMA = pa.schema([("name", pa.string()), ("n", pa.int64()), ("share", pa.decimal128(6, 2)), ("day", pa.date32())])
ROWS = [
    ("=1+1", 1, Decimal("0.50"), datetime.date(2026, 1, 31)),
    ("+66", -2, None, None),
    ("-", 3, Decimal("1.00"), None),
    ("@x", 4, None, None),
    ("\tx", 5, None, None),
    ("\rx", 6, None, None),
    ("＝1", 7, None, None),
    ('กำ "แพง"\nเพชร, x', None, None, None),
    ("", None, None, None),
    (None, None, None, None),
    ("ไม่=", 8, None, None),
]


def file_of(
    folder: Path, form: str, *batches: list[tuple[object, ...]], schema: pa.Schema = SCHEMA, style: Style = PLAIN
) -> bytes:
    """The file of these rows; what the writer says of it holds."""
    path = folder / f"extract.{form}"
    writer = WRITERS[form](path, schema, style)
    try:
        for rows in batches:
            table = pa.table([list(values) for values in zip(*rows, strict=True)], schema=schema)
            writer.write(table, pl.DataFrame(pl.from_arrow(table)))
    except UserError:
        writer.abandon()
        raise
    said = writer.close()
    content = path.read_bytes()
    path.unlink()
    assert said == WrittenFile(path.name, len(content), hashlib.sha256(content).hexdigest())
    assert not list(folder.iterdir()), "a writer leaves nothing behind"
    return content


def test_csv_is_rfc_4180_and_harmless_to_spreadsheets(tmp_path: Path) -> None:
    content = file_of(tmp_path, "csv", ROWS[:5], ROWS[5:])
    assert content.startswith(b"name,n,share,day\n")
    read = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    assert [row[0] for row in read[1:]] == [
        "'=1+1",
        "'+66",
        "'-",
        "'@x",
        "'\tx",
        "'\rx",
        "'＝1",
        'กำ "แพง"\nเพชร, x',
        "",
        "",
        "ไม่=",
    ]
    # A negative number is a number and stays one.
    assert read[1][1:] == ["1", "0.50", "2026-01-31"]
    assert read[2][1] == "-2"
    # An empty text and no value can be told apart.
    assert b'\n"",,,\n,,,\n' in content


def test_json_is_an_array_with_an_object_a_line_and_thai_as_it_is(tmp_path: Path) -> None:
    content = file_of(tmp_path, "json", ROWS[:5], ROWS[5:])
    read = json.loads(content)
    assert [row["name"] for row in read] == [row[0] for row in ROWS]
    assert read[0] == {"name": "=1+1", "n": 1, "share": 0.5, "day": "2026-01-31"}
    assert len(content.decode().splitlines()) == len(ROWS) + 2
    assert "ไม่=" in content.decode()


def test_parquet_keeps_types_and_values(tmp_path: Path) -> None:
    content = file_of(tmp_path, "parquet", ROWS[:5], ROWS[5:])
    read = parquet.read_table(io.BytesIO(content))
    assert read.schema.types == SCHEMA.types
    assert [tuple(row.values()) for row in read.to_pylist()] == ROWS


@pytest.mark.parametrize("form", ["csv", "json", "parquet", "xlsx"])
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, form: str) -> None:
    assert file_of(tmp_path, form, ROWS[:5], ROWS[5:]) == file_of(tmp_path, form, ROWS[:5], ROWS[5:])


def test_files_without_rows_are_whole(tmp_path: Path) -> None:
    assert file_of(tmp_path, "csv") == b"name,n,share,day\n"
    assert json.loads(file_of(tmp_path, "json")) == []
    assert parquet.read_table(io.BytesIO(file_of(tmp_path, "parquet"))).num_rows == 0


def test_csv_for_excel_begins_with_a_byte_order_mark_and_is_the_same_otherwise(tmp_path: Path) -> None:
    assert file_of(tmp_path, "csv", ROWS, style=Style(excel=True)) == BOM + file_of(tmp_path, "csv", ROWS)


def test_a_workbook_holds_texts_numbers_days_and_no_formula(tmp_path: Path) -> None:
    rows = [*ROWS, ("เลข", 10**15, Decimal("9.99"), datetime.date(1899, 12, 31))]
    dictionary = [["name", "description_th"], ["n", "=จำนวน"]]
    content = file_of(tmp_path, "xlsx", rows[:5], rows[5:], style=Style(dictionary=dictionary))
    book = openpyxl.load_workbook(io.BytesIO(content))
    assert book.sheetnames == ["data", "data_dictionary"]
    read = list(book["data"].iter_rows())
    assert [cell.value for cell in read[0]] == SCHEMA.names
    assert [row[0].value and unescape(row[0].value) for row in read[1:]] == [row[0] for row in rows]
    assert {cell.data_type for row in read[1:] for cell in row} <= {"s", "n", "d", "inlineStr"}
    assert [row[0].quotePrefix for row in read[1:]] == [str(row[0]).startswith(tuple("=+-@\t\r＝")) for row in rows]
    assert read[1][3].value == datetime.datetime(2026, 1, 31)
    assert (read[2][1].value, read[1][2].value) == (-2, 0.5)
    # What Excel would round, or has no day for, is text.
    assert (read[-1][1].value, read[-1][3].value) == ("1000000000000000", "1899-12-31")
    assert [[cell.value for cell in row] for row in book["data_dictionary"].iter_rows()] == dictionary
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert not any(b"<f>" in archive.read(name) for name in archive.namelist())
        assert all(info.date_time[0] == 1980 for info in archive.infolist()), "no clock in the bytes"


def test_a_workbook_that_no_sheet_or_cell_can_hold_is_refused(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    writer = WRITERS["xlsx"](tmp_path / "many.xlsx", schema, PLAIN)
    table = pa.table([pa.nulls(SHEET_ROWS + 1, pa.int64())], schema=schema)
    with pytest.raises(UserError, match=r"many\.xlsx: the extract has more than 1,048,575 rows.*`formats`"):
        writer.write(table, pl.DataFrame(pl.from_arrow(table)))
    writer.abandon()
    (tmp_path / "many.xlsx").unlink()
    with pytest.raises(UserError, match=r"row 1, column name: a text of 40,000 characters"):
        file_of(tmp_path, "xlsx", [("ก" * 40_000, None, None, None)])


AREAS = pa.schema([("code", pa.string()), ("share", pa.decimal128(6, 2)), ("geometry", pa.string())])
CLOCKWISE = '{"type": "Polygon", "coordinates": [[[100,13],[100,14],[101,14],[101,13],[100,13]]]}'


def test_geojson_is_rfc_7946(tmp_path: Path) -> None:
    rows = [
        ("10", Decimal("0.50"), '{"type": "Point", "coordinates": [100.5, 13.75]}'),
        ("11", None, CLOCKWISE),
        ("12", None, None),
    ]
    content = file_of(tmp_path, "geojson", rows[:1], rows[1:], schema=AREAS)
    read = json.loads(content)
    assert read["type"] == "FeatureCollection"
    assert [feature["properties"] for feature in read["features"]] == [
        {"code": "10", "share": 0.5}, {"code": "11", "share": None}, {"code": "12", "share": None},
    ]  # fmt: skip
    assert read["features"][0]["geometry"] == {"type": "Point", "coordinates": [100.5, 13.75]}
    # Outer rings go counterclockwise.
    assert read["features"][1]["geometry"]["coordinates"][0] == [[100, 13], [101, 13], [101, 14], [100, 14], [100, 13]]
    assert read["features"][2]["geometry"] is None
    assert content == file_of(tmp_path, "geojson", rows[:1], rows[1:], schema=AREAS)
    assert json.loads(file_of(tmp_path, "geojson", schema=AREAS)) == {"type": "FeatureCollection", "features": []}
    # The geometry is in no other format.
    assert file_of(tmp_path, "csv", rows, schema=AREAS) == b"code,share\n10,0.50\n11,\n12,\n"


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ("POINT(100 13)", "no GeoJSON"),
        ('{"type": "Feature"}', "'Feature'"),
        ('{"type": "Point", "coordinates": [665000, 1520000]}', "no longitude and latitude"),
        ('{"type": "Polygon", "coordinates": [[[100,13],[100,14],[101,14]]]}', "not closed"),
        ('{"type": "LineString", "coordinates": 5}', "nested"),
    ],
)
def test_a_geometry_that_is_none_is_refused_with_its_row(tmp_path: Path, geometry: str, words: str) -> None:
    with pytest.raises(UserError, match=f"row 2: .*{words}"):
        file_of(tmp_path, "geojson", [("10", None, None), ("11", None, geometry)], schema=AREAS)


def test_the_dictionary_has_a_row_a_column(tmp_path: Path) -> None:
    publication = read_publication(written(tmp_path, PLACES))
    rows = list(csv.reader(io.StringIO(describe.data_dictionary(publication).decode())))
    assert rows[0][:4] == ["name", "type", "description_en", "description_th"]
    assert rows[1:] == [
        ["code", "string", "Code", "รหัส", ""],
        ["people", "integer", "People", "จำนวนคน", "person"],
    ]


def test_metadata_has_fourteen_of_fourteen_under_the_catalogues_keys(tmp_path: Path) -> None:
    publication = read_publication(written(tmp_path, PLACES))
    values = describe.dated(describe.metadata(publication), datetime.date(2026, 11, 22))
    assert len(gd_catalog.MANDATORY) == 14
    assert all(values[key] for key in gd_catalog.MANDATORY)
    assert values["high_value_dataset"] == "True"
    assert values["update_frequency_interval"] == "1"
    assert values["unit_of_measure"] == "คน"
    assert values["last_updated_date"] == "2026-11-22"
