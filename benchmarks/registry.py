"""A registry file as a silo would send it: cp874, ten columns, one row in a hundred with a defect in a value.

The same rows in three forms, and the contracts that describe them. Defects are such that PostgreSQL's ``COPY`` into text columns
still takes the file: it is the peer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
import yaml

from dopa_pipelines.contracts import Contract, read_contract
from dopa_pipelines.contracts.read import GD_CATALOG_KEYS
from dopa_pipelines.demo.vocabulary import FEMALE_NAMES, MALE_NAMES, SURNAME_ENDS, SURNAME_STARTS

Form = Literal["csv", "pipe", "fixed", "xlsx"]
SLICE = 500_000
DEFECTS_PER_THOUSAND = 10

WIDTHS = {
    "pid": 13, "house_code": 11, "title": 10, "first_name": 20, "last_name": 26, "sex": 1, "birth_date": 8,
    "nationality": 3, "status": 1, "moved_in": 8,
}  # fmt: skip
COLUMNS = tuple(WIDTHS)


def write_registry(path: Path, rows: int, form: Form = "csv") -> None:
    """Write ``rows`` rows of the registry in cp874; the same number gives the same bytes."""
    with path.open("wb") as file:
        if form == "csv":
            file.write((",".join(COLUMNS) + "\n").encode())
        for first in range(0, rows, SLICE):
            frame = _people(first, min(SLICE, rows - first))
            if form == "fixed":
                padded = [pl.col(name).str.pad_end(width) for name, width in WIDTHS.items()]
                lines = frame.select(pl.concat_str(padded))
            else:
                lines = frame.select(pl.concat_str(list(COLUMNS), separator="," if form == "csv" else "|"))
            file.write(("\n".join(lines.to_series()) + "\n").encode("cp874"))


def _people(first: int, count: int) -> pl.DataFrame:
    number = pl.int_range(first, first + count, dtype=pl.Int64)
    frame = pl.select(number=number).with_columns(draw=pl.col("number").hash(seed=7))

    def pick(values: Sequence[str], seed: int) -> pl.Expr:
        return pl.lit(pl.Series(values)).gather((pl.col("number").hash(seed=seed) % len(values)).cast(pl.UInt32))

    serial = (pl.col("number") * 7919) % 1_000_000_000
    surnames = [start + end for start in SURNAME_STARTS for end in SURNAME_ENDS]
    frame = frame.with_columns(
        body=pl.concat_str(
            (pl.col("number") % 8 + 1).cast(pl.String),
            (pl.col("number") // 1_000_000_000 * 100 + 10 + pl.col("draw") % 80).cast(pl.String),
            serial.cast(pl.String).str.zfill(9),
        ),
        male=pl.col("number").hash(seed=1) % 2 == 0,
        born=pl.date(1930, 1, 1) + pl.duration(days=(pl.col("number").hash(seed=2) % 34_000).cast(pl.Int64)),
        moved=pl.date(2000, 1, 1) + pl.duration(days=(pl.col("number").hash(seed=3) % 9_000).cast(pl.Int64)),
    )
    value = pl.col("body").cast(pl.Int64)
    total = pl.sum_horizontal(((value // 10 ** (11 - i)) % 10) * (13 - i) for i in range(12))
    defect = pl.col("draw") % 1000
    check = (11 - total % 11) % 10
    frame = frame.with_columns(
        pid=pl.concat_str("body", pl.when(defect < 3).then((check + 1) % 10).otherwise(check).cast(pl.String)),
        house_code=pl.concat_str(
            (1000 + pl.col("number").hash(seed=4) % 8600).cast(pl.String),
            (pl.col("number") * 31 % 10_000_000).cast(pl.String).str.zfill(7),
        ),
        title=pl.when("male").then(pl.lit("นาย")).otherwise(pick(["นาง", "นางสาว"], 5)),
        first_name=pl.when(defect == 3).then(pl.lit("")).when("male").then(pick(MALE_NAMES, 6)).otherwise(pick(FEMALE_NAMES, 6)),
        last_name=pick(surnames, 8),
        sex=pl.when(defect.is_between(4, 5)).then(pl.lit("9")).when("male").then(pl.lit("1")).otherwise(pl.lit("2")),
        birth_date=pl.when(defect.is_between(6, 8)).then(pl.lit("25680231")).otherwise(_buddhist(pl.col("born"))),
        nationality=pl.lit("099"),
        status=pl.when(defect == 9).then(pl.lit("X")).otherwise((pl.col("number") % 3).cast(pl.String)),
        moved_in=_buddhist(pl.col("moved")),
    )
    return frame.select(COLUMNS)


def _buddhist(day: pl.Expr) -> pl.Expr:
    """A day as the registers write it; January to March of early years bear the year before (the year began in April)."""
    year = day.dt.year() + 543 - ((day.dt.year() <= 1940) & (day.dt.month() <= 3)).cast(pl.Int32)
    return pl.concat_str(year.cast(pl.String), day.dt.strftime("%m%d"))


def registry_contract(folder: Path, form: Form = "csv", dataset: str | None = None) -> Contract:
    """The contract of the file, written into ``folder``. ``dataset`` names its table (default ``bench_<form>``)."""
    name = dataset or f"bench_{form}"
    own: dict[str, dict[str, Any]] = {
        "pid": {"parse": "citizen_number"}, "house_code": {"parse": "house_code"}, "title": {}, "first_name": {}, "last_name": {},
        "sex": {"parse": "code"}, "birth_date": {"parse": "be_date_ymd"}, "nationality": {"parse": "code"},
        "status": {"parse": "code"}, "moved_in": {"parse": "be_date_ymd"},
    }  # fmt: skip
    listed = {"sex": ["1", "2"], "status": ["0", "1", "2"]}
    start, properties = 1, []
    for column, width in WIDTHS.items():
        if form == "fixed":
            own[column]["position"] = [start, width]
        start += width
        dated = column in ("birth_date", "moved_in")
        rule = {
            "metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": listed.get(column)}, "dimension": "conformity",
            "customProperties": [{"property": "nationalDimension", "value": "consistency"}],
        }  # fmt: skip
        properties.append(
            {
                "name": column, "logicalType": "date" if dated else "string", "classification": "personal",
                "required": column != "moved_in", "customProperties": _custom(own[column]),
            }
            | ({"primaryKey": True, "primaryKeyPosition": 1} if column == "pid" else {})
            | ({"logicalTypeOptions": {"minimum": "1880-01-01", "maximum": "delivery"}} if dated else {})
            | ({"quality": [rule]} if column in listed else {})
        )  # fmt: skip
    layouts: dict[Form, dict[str, Any]] = {
        "csv": {"delimiter": ",", "header": True}, "pipe": {"delimiter": "|", "header": False}, "fixed": {"header": False},
        "xlsx": {},
    }  # fmt: skip
    kinds = {"csv": "delimited", "pipe": "delimited", "fixed": "fixed_width", "xlsx": "xlsx"}
    document = {
        "apiVersion": "v3.1.0", "kind": "DataContract", "id": name, "name": name, "version": "1.0.0", "status": "active",
        "domain": "bench", "team": {"name": "b", "members": [{"username": "bench@dopa.example", "role": "technical_steward"}]},
        "servers": [
            {
                "server": "s", "type": "local", "path": "bench/*", "format": kinds[form], "encoding": "cp874",
                "customProperties": _custom(layouts[form]),
            }
        ],
        "schema": [{"name": name, "properties": properties}],
        "customProperties": _custom(
            {"load": {"mode": "replace", "duplicates": "first"}, "gdCatalog": dict.fromkeys(GD_CATALOG_KEYS, "x")}
        ),
    }  # fmt: skip
    path = folder / f"{name}.odcs.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), "utf-8")
    return read_contract(path)


def _custom(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"property": name, "value": value} for name, value in facts.items()]
