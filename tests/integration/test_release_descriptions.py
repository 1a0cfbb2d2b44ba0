"""What goes out beside the data holds in others' eyes: Frictionless validates package and rows, SHACL the DCAT description, the
Thai CKAN schema's keys and choices the metadata."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import psycopg
import pyarrow.parquet as parquet
import pyshacl
import pytest
import rdflib

from dopa_pipelines.publishing import gd_catalog, publish
from dopa_pipelines.publishing.releases import Release
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Warehouse
from tests.integration.releasing import PUBLICATION, publication

SHAPES = Path(__file__).parents[1] / "shapes" / "dcat_ap_3.ttl"
BASE = "https://data.example/releases/{name}/{version}/dcat.jsonld"
EVERY_FORMAT = {
    "formats": ["csv", "json", "parquet", "xlsx", "geojson"],
    "excel": True,
    "geometry": "shape",
    "unitOfCount": "คน",
    "gdCatalog": {**PUBLICATION["gdCatalog"], "data_format": ["CSV", "JSON", "XLS", "อื่นๆ"]},  # type: ignore[dict-item]
}


@pytest.fixture
def released(warehouse: Warehouse, here: Settings, places: psycopg.Connection, request: pytest.FixtureRequest) -> Release:
    """A release in every format."""
    places.execute("alter table open_data.places_to_test add column shape jsonb")
    places.execute(
        "update open_data.places_to_test set shape = jsonb_build_object('type', 'Point', 'coordinates',"
        " jsonb_build_array(100 + people / 1000.0, 13))"
    )
    return publish(warehouse, here, publication("described", **EVERY_FORMAT), "run-1")


def test_frictionless_validates_package_and_rows(released: Release) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own making
        from frictionless import validate

        report = validate(str(released.path / "datapackage.json"))
    assert report.valid, report.flatten(["type", "title", "rowNumber", "fieldName", "message"])
    assert {task.name: task.stats.get("rows") for task in report.tasks if task.type == "table"} == {
        "described-csv": 1000,
        "described-xlsx": 1000,
    }
    package = json.loads((released.path / "datapackage.json").read_text("utf-8"))
    assert package["resources"][0]["schema"]["primaryKey"] == ["code"]


def test_frictionless_finds_a_row_that_was_changed(released: Release, tmp_path: Path) -> None:
    """The validation that passes can fail."""
    copy = shutil.copytree(released.path.resolve(), tmp_path / "copy")
    (copy / "described.csv").chmod(0o644)
    text = (copy / "described.csv").read_bytes()
    assert b"000002," in text
    (copy / "described.csv").write_bytes(text.replace(b"000002,", b"000001,", 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from frictionless import validate

        report = validate(str(copy / "datapackage.json"))
    found = {error[0] for error in report.flatten(["type"])}
    assert {"primary-key", "hash-count"} <= found


def graph_of(release: Release, *without: str) -> rdflib.Graph:
    """The DCAT description as triples, of a reader that found it under ``BASE``; without some keys of the dataset."""
    document = json.loads((release.path / "dcat.jsonld").read_text("utf-8"))
    for key in without:
        owner = document["dcat:dataset"]
        if key not in owner:
            owner = owner["dcat:distribution"][0]
        del owner[key]
    base = BASE.format(name=release.publication, version=release.version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of rdflib about itself
        return rdflib.Graph().parse(data=json.dumps(document), format="json-ld", publicID=base)


def conforms(graph: rdflib.Graph) -> tuple[bool, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of rdflib about itself
        ok, _, text = pyshacl.validate(graph, shacl_graph=rdflib.Graph().parse(SHAPES), inference="none")
    return bool(ok), str(text)


def test_the_dcat_description_passes_the_shapes(released: Release) -> None:
    ok, text = conforms(graph_of(released))
    assert ok, text


@pytest.mark.parametrize(
    "without",
    [
        "dct:title",
        "dct:publisher",
        "dcat:contactPoint",
        "dct:accrualPeriodicity",
        "dcat:distribution",
        "dct:license",
        "spdx:checksum",
    ],
)
def test_the_shapes_find_what_is_missing(released: Release, without: str) -> None:
    assert not conforms(graph_of(released, without))[0]


def test_the_dcat_description_tells_of_files_that_are_there(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection, released: Release
) -> None:
    dcat, spdx = (rdflib.Namespace(f"http://{name}#") for name in ("www.w3.org/ns/dcat", "spdx.org/rdf/terms"))
    dct = rdflib.Namespace("http://purl.org/dc/terms/")
    graph = graph_of(released)
    folder = f"https://data.example/releases/described/{released.version}/"
    dataset = rdflib.URIRef("https://data.example/releases/described/")
    assert (rdflib.URIRef("https://data.example/releases/"), dcat.dataset, dataset) in graph
    sums = dict(line.split("  ")[::-1] for line in (released.path / "checksums.sha256").read_text().splitlines())
    told = {
        str(graph.value(item, dcat.downloadURL)).removeprefix(folder): (
            int(graph.value(item, dcat.byteSize)),  # type: ignore[arg-type]
            str(graph.value(graph.value(item, spdx.checksum), spdx.checksumValue).value.hex()),  # type: ignore[union-attr]
        )
        for item in graph.objects(dataset, dcat.distribution)
    }
    assert told == {
        f"described.{form}": ((released.path / f"described.{form}").stat().st_size, sums[f"described.{form}"])
        for form in EVERY_FORMAT["formats"]
    }
    period = graph.value(dataset, dct.temporal)
    assert period is None  # the order has no day
    by_day = publish(warehouse, here, publication("bydays", orderBy=["since", "code"]), "run-1")
    graph = graph_of(by_day)
    period = graph.value(rdflib.URIRef("https://data.example/releases/bydays/"), dct.temporal)
    assert [str(graph.value(period, dcat[name])) for name in ("startDate", "endDate")] == ["2020-01-02", "2022-09-27"]


def test_the_metadata_is_what_the_thai_catalogue_takes(released: Release) -> None:
    values = json.loads((released.path / "metadata.json").read_text("utf-8"))
    assert gd_catalog.problems(values) == []
    assert values["last_updated_date"] == released.version[:10]
    assert all(isinstance(value, str | list) for value in values.values())


def test_excel_users_get_a_mark_and_the_geometry_is_in_geojson_alone(released: Release) -> None:
    assert (released.path / "described.csv").read_bytes().startswith(b"\xef\xbb\xbfcode,")
    assert (released.path / "data_dictionary.csv").read_bytes().startswith(b"\xef\xbb\xbfname,")
    assert "geometry" not in parquet.read_schema(released.path / "described.parquet").names
    features = json.loads((released.path / "described.geojson").read_text("utf-8"))["features"]
    assert features[0]["geometry"] == {"type": "Point", "coordinates": [100.001, 13]}
    assert features[0]["properties"]["code"] == "000001"
    assert [column["name"] for column in json.loads((released.path / "release.json").read_bytes())["columns"]][-1] == "geometry"


def test_a_release_tells_what_changed_since_the_one_before(
    warehouse: Warehouse, here: Settings, places: psycopg.Connection
) -> None:
    for forms in (["csv"], ["parquet"], ["json"]):
        name = f"changing_{forms[0]}"
        catalogue = {**PUBLICATION["gdCatalog"], "data_format": ["CSV", "JSON", "อื่นๆ"]}  # type: ignore[dict-item]
        first = publish(warehouse, here, publication(name, formats=forms, gdCatalog=catalogue), "run-1")
        assert not (first.path / "changes.json").exists()
        places.execute("update open_data.places_to_test set name_th = '=2+2' where code = '000003'")
        places.execute("update open_data.places_to_test set city = null where code = '000004'")
        places.execute("delete from open_data.places_to_test where code = '000500'")
        places.execute("insert into open_data.places_to_test (code, people) values ('900001', 1), ('900002', 2)")
        second = publish(warehouse, here, publication(name, formats=forms, gdCatalog=catalogue), "run-2")
        told = json.loads((second.path / "changes.json").read_text("utf-8"))
        assert (told["since"], told["rows_before"], told["rows_after"]) == (first.version, 1000, 1001)
        assert told["rows"] == (None if forms == ["json"] else {"added": 2, "removed": 1, "changed": 2})
        assert told["columns"] == {"added": [], "removed": [], "retyped": []}
        assert told["summary_th"] and told["summary_en"]
        graph = graph_of(second)
        address = "https://data.example/releases"
        previous = rdflib.URIRef("http://www.w3.org/ns/dcat#previousVersion")
        assert graph.value(rdflib.URIRef(f"{address}/{name}/"), previous) == rdflib.URIRef(f"{address}/{name}/{first.version}/")
        places.execute("delete from open_data.places_to_test where code > '900000'")
        places.execute("insert into open_data.places_to_test (code, people) values ('000500', 500)")
        places.execute("update open_data.places_to_test set name_th = 'ก', city = true where code in ('000003', '000004')")
    columns = [*PUBLICATION["columns"][:-1], {**CITY, "name": "is_city"}]  # type: ignore[misc]
    third = publish(warehouse, here, publication("changing_csv", formats=["csv"], columns=columns), "run-3")
    told = json.loads((third.path / "changes.json").read_text("utf-8"))
    assert told["columns"] == {"added": ["is_city"], "removed": ["city"], "retyped": []}
    assert told["publication_changed"] and told["rows"] is None
    assert "is_city" in told["summary_en"]


CITY = {"name": "city", "source": "city", "type": "boolean", "descriptionEn": "City", "descriptionTh": "เมือง"}
