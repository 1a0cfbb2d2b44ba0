"""The synthetic department: the same bytes for the same arguments, and an answer key that tells the truth.

Looked at with other eyes than the platform's: the standard library, ``stdnum`` and fastexcel. Whether the
platform finds every planted row is for the integration tests.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import fastexcel
import httpx
import pytest
from stdnum.th import pin

from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.demo import AnswerKey, generate, hotel_rows, linkage_rows, serve_linkage_api
from dopa_pipelines.demo.department import PERSON_WIDTHS
from dopa_pipelines.errors import UserError
from dopa_pipelines.settings import Settings

PERSONS = 3_000
BUREAUS = {
    "village_headman": "local_administration",
    "hotel_licence": "legal_affairs",
    "complaint": "damrongdhama",
}
DATASETS = {
    "area_code", "population_area", "person_register", "house_register", "birth_event", "death_event",
    "id_card_issue", "village_headman", "hotel_licence", "complaint", "linkage_usage",
}  # fmt: skip


def made(state: Path, seed: int = 7, persons: int = PERSONS) -> Settings:
    settings = Settings(state=state, drop_zone=state / "drop", releases=state / "releases")
    generate(settings, persons, seed)
    return settings


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return made(tmp_path_factory.mktemp("department"))


@pytest.fixture(scope="module")
def key(department: Settings) -> AnswerKey:
    return AnswerKey.read(department.demo_path)


def checksums(settings: Settings) -> dict[str, str]:
    return {
        str(path.relative_to(settings.state)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(settings.state.rglob("*"))
        if path.is_file()
    }


def lines_of(settings: Settings, dataset: str, file: str) -> list[bytes]:
    path = settings.drop_path / BUREAUS.get(dataset, "registration") / dataset / file
    return path.read_bytes().replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")


def rows_of(settings: Settings, key: AnswerKey, dataset: str) -> Iterator[tuple[str, int, dict[str, str] | None]]:
    """(file, row as the key counts it, record of a text file's line; None where its fields can't be told
    apart).
    """
    for file in key.totals[dataset].files:
        lines = lines_of(settings, dataset, file)
        if dataset == "person_register":
            for number, line in enumerate(lines, 1):
                yield file, number, fixed_width(line)
            continue
        separator = "," if file.endswith(".csv") else "|"
        text = [line.decode("utf-8" if dataset == "population_area" else "cp874", "replace") for line in lines]
        if dataset == "population_area":
            names = [str(place) for place in range(14)]
            body = list(csv.reader(text, delimiter=separator, quoting=csv.QUOTE_NONE))
        else:
            names, *body = csv.reader(text, delimiter=separator)
        first = 1 + len(lines) - len(body)
        for number, fields in enumerate(body, first):
            yield file, number, dict(zip(names, fields, strict=True)) if len(fields) == len(names) else None


def fixed_width(line: bytes) -> dict[str, str] | None:
    if len(line) != sum(PERSON_WIDTHS.values()):
        return None
    record, start = {}, 0
    for name, width in PERSON_WIDTHS.items():
        record[name] = line[start : start + width].decode("cp874", "replace").strip()
        start += width
    return record


def sheet_of(settings: Settings, dataset: str, file: str) -> list[tuple[Any, ...]]:
    path = settings.drop_path / BUREAUS.get(dataset, "registration") / dataset / file
    sheet = fastexcel.read_excel(path.read_bytes()).load_sheet(
        0, header_row=None, dtypes="string", skip_whitespace_tail_rows=False
    )
    return sheet.to_polars().rows()


def planted(key: AnswerKey, dataset: str) -> dict[tuple[str, int], str]:
    return {(found.file, found.row): found.reason for found in key.defects if found.dataset == dataset}


def test_same_arguments_same_bytes(department: Settings, tmp_path: Path) -> None:
    assert checksums(made(tmp_path)) == checksums(department)


def test_writing_again_touches_nothing(tmp_path: Path) -> None:
    settings = made(tmp_path, persons=2_000)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    made(tmp_path, persons=2_000)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert settings.demo_path.is_dir()


def test_another_seed_gives_another_department(department: Settings, tmp_path: Path) -> None:
    other = checksums(made(tmp_path, seed=8))
    same = {name for name, checksum in checksums(department).items() if other[name] == checksum}
    assert not same


@pytest.mark.parametrize("persons", [0, 1_999, 5_000_001])
def test_size_that_cannot_be_made_is_refused(tmp_path: Path, persons: int) -> None:
    with pytest.raises(UserError, match="2,000 to 5,000,000"):
        generate(Settings(state=tmp_path), persons)


def test_progress_names_every_dataset(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    generate(Settings(state=tmp_path, drop_zone=tmp_path / "d"), 2_000, progress=lambda *step: told.append(step))
    assert [number for _, number, _ in told] == list(range(1, 12))
    assert {dataset for dataset, _, _ in told} == DATASETS


def test_key_is_complete_and_names_each_row_once(key: AnswerKey) -> None:
    assert set(key.totals) == DATASETS
    assert len({(found.dataset, found.file, found.row) for found in key.defects}) == len(key.defects)
    for dataset, totals in key.totals.items():
        assert totals.defects == sum(key.reasons(dataset).values())
        assert min(key.reasons(dataset).values()) >= 2, dataset
        # Contracts refuse a delivery from 5 % up, the small monthly ones from 20 %.
        assert totals.defects / totals.rows < (0.16 if totals.rows < 1_000 else 0.05), dataset


def test_rows_counted_are_rows_written(department: Settings, key: AnswerKey) -> None:
    for dataset in ("population_area", "person_register", "house_register", "death_event", "id_card_issue"):
        assert len(list(rows_of(department, key, dataset))) == key.totals[dataset].rows
    for dataset, titles in (("area_code", 2), ("birth_event", 3), ("village_headman", 2)):
        rows = [row for file in key.totals[dataset].files for row in sheet_of(department, dataset, file)[titles + 1 :]]
        assert len(rows) == key.totals[dataset].rows + key.totals[dataset].layout
    assert len(hotel_rows(department)) == key.totals["hotel_licence"].rows
    assert len(linkage_rows(department)) == key.totals["linkage_usage"].rows
    assert len(lines_of(department, "complaint", "complaint_25681231.jsonl")) == key.totals["complaint"].rows


def test_citizen_numbers_are_right_but_where_planted(department: Settings, key: AnswerKey) -> None:
    bad = planted(key, "person_register")
    unregistered = 0
    for file, row, record in rows_of(department, key, "person_register"):
        reason = bad.get((file, row))
        assert (record is None) == (reason == "ragged_line")
        if record is None:
            continue
        number = record["pid"]
        if number.startswith("0") and reason is None:
            unregistered += 1
            assert pin.calc_check_digit(number[:-1]) == number[-1]
        elif reason == "bad_check_digit":
            assert len(number) == 13
            assert pin.calc_check_digit(number[:-1]) != number[-1]
        elif reason != "bad_length":
            assert pin.is_valid(number), (row, reason)
    assert unregistered == key.totals["person_register"].notes["unregistered_citizen_number"] > 0


def test_keys_repeat_only_where_planted(department: Settings, key: AnswerKey) -> None:
    for dataset, column in (
        ("person_register", "pid"),
        ("house_register", "รหัสประจำบ้าน"),
        ("id_card_issue", "เลขที่คำขอ"),
    ):
        bad = planted(key, dataset)
        seen: set[str] = set()
        for file, row, record in rows_of(department, key, dataset):
            if record is None:
                continue
            assert (record[column] in seen) == (bad.get((file, row)) == "duplicate_key"), (dataset, row)
            seen.add(record[column])


def test_of_complaints_the_last_copy_is_good(department: Settings, key: AnswerKey) -> None:
    bad = planted(key, "complaint")
    last: dict[str, int] = {}
    numbers: dict[int, str] = {}
    for row, line in enumerate(lines_of(department, "complaint", "complaint_25681231.jsonl"), 1):
        try:
            record = json.loads(line)
        except ValueError:
            assert bad["complaint_25681231.jsonl", row] == "undecodable"
            continue
        last[record["case_no"]] = row
        numbers[row] = record["case_no"]
    repeated = {row for row, number in numbers.items() if last[number] != row}
    assert repeated == {row for (_, row), reason in bad.items() if reason == "duplicate_key"}


def test_tambons_add_up_to_offices_and_offices_to_provinces(department: Settings, key: AnswerKey) -> None:
    bad = planted(key, "population_area")
    provinces: dict[tuple[str, str], list[int]] = {}
    offices: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    tambons: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for file, row, record in rows_of(department, key, "population_area"):
        if (file, row) in bad:
            continue
        assert record is not None
        fields = list(record.values())
        counts = [int(field.replace(",", "")) for field in fields[9:13]]
        assert counts[0] + counts[1] == counts[2]
        assert fields[2].endswith(" ")
        assert fields[7:9] == ["0", " "]
        where = (fields[0], fields[1])
        if fields[5] != "0":
            assert fields[5].startswith(fields[1])
            assert len(fields[5]) == 6
            tambons[where] = [left + right for left, right in zip(tambons[where], counts, strict=True)]
        elif fields[3] == "0":
            provinces[where] = counts
        else:
            assert fields[3].startswith(fields[1])
            offices[where] = [left + right for left, right in zip(offices[where], counts, strict=True)]
    assert len(provinces) == 3 * 77
    assert provinces == offices
    assert {where: counts for where, counts in provinces.items() if any(counts)} == tambons


def test_population_is_the_register(department: Settings, key: AnswerKey) -> None:
    bad = planted(key, "person_register")
    living: Counter[str] = Counter()
    for file, row, record in rows_of(department, key, "person_register"):
        if record and (file, row) not in bad and record["status"] not in "14":
            living[record["house_code"][:2]] += 1
    bad = planted(key, "population_area")
    told = {
        record["1"]: int(record["11"].replace(",", ""))
        for file, row, record in rows_of(department, key, "population_area")
        if record and (file, row) not in bad and record["0"] == "6812" and record["3"] == "0"
    }
    assert told == {province: living[province] for province in told}
    assert told["10"] == max(told.values())


def test_people_live_in_houses_of_their_tambon(department: Settings, key: AnswerKey) -> None:
    bad = planted(key, "house_register")
    tambon = {
        record["รหัสประจำบ้าน"]: record["รหัสหมู่บ้าน"][:6]
        for file, row, record in rows_of(department, key, "house_register")
        if record and (file, row) not in bad
    }
    bad = planted(key, "person_register")
    for file, row, record in rows_of(department, key, "person_register"):
        if record and (file, row) not in bad:
            assert tambon[record["house_code"]] == record["area_code"]


def test_events_belong_to_persons_of_the_register(department: Settings, key: AnswerKey) -> None:
    bad = planted(key, "person_register")
    people = {
        record["pid"]: record
        for file, row, record in rows_of(department, key, "person_register")
        if record and (file, row) not in bad
    }
    bad = planted(key, "death_event")
    for file, row, record in rows_of(department, key, "death_event"):
        if record and (file, row) not in bad:
            assert people[record["เลขประจำตัวผู้ตาย"]]["status"] == "1"
            assert record["วันที่ตาย"][3:] == f"{file[17:19]}/{file[12:16]}"
    bad = planted(key, "birth_event")
    newborn = set()
    for file in key.totals["birth_event"].files:
        for row, cells in enumerate(sheet_of(department, "birth_event", file), 1):
            if row > 4 and cells[0] and (file, row) not in bad:
                newborn.add(cells[1])
                assert people[cells[1]]["birth_date"].startswith(file[12:16] + file[17:19])
    young = {pid for pid, record in people.items() if record["birth_date"] > "25681000"}
    assert newborn == young
    bad = planted(key, "id_card_issue")
    for file, row, record in rows_of(department, key, "id_card_issue"):
        if record and (file, row) not in bad:
            assert people[record["เลขประจำตัวประชาชน"]]["status"] == "0"


def test_old_birth_years_begin_in_april(department: Settings, key: AnswerKey) -> None:
    bad = planted(key, "person_register")
    years = Counter(
        record["birth_date"][:4]
        for file, row, record in rows_of(department, key, "person_register")
        if record and (file, row) not in bad and record["birth_date"][4:6] in ("01", "02", "03")
    )
    assert years["2483"] == 0
    assert sum(count for year, count in years.items() if year < "2483") > 0


def test_text_planted_as_wrong_looks_wrong(department: Settings, key: AnswerKey) -> None:
    def garbled(text: str) -> bool:
        return bool(re.search(r"(?:เ[ธน].){3}|(?:à[¸¹].){2}|\ufffd", text))

    for dataset, column in (
        ("person_register", "first_name"),
        ("house_register", "บ้านเลขที่"),
        ("population_area", "4"),
    ):
        bad = planted(key, dataset)
        for file, row, record in rows_of(department, key, dataset):
            if record is not None:
                reason = bad.get((file, row))
                wrong = reason == "mojibake" or (reason == "undecodable" and dataset == "house_register")
                assert garbled(record[column]) == wrong, (dataset, row, record[column])


def test_bytes_planted_as_undecodable_are(department: Settings, key: AnswerKey) -> None:
    for dataset in ("person_register", "house_register", "death_event", "id_card_issue"):
        bad = planted(key, dataset)
        for file in key.totals[dataset].files:
            lines = lines_of(department, dataset, file)
            for row, line in enumerate(lines, 1):
                try:
                    line.decode("cp874")
                    readable = True
                except UnicodeDecodeError:
                    readable = False
                assert readable == (bad.get((file, row)) != "undecodable")
    # One byte of cp874 in them would turn whole files of UTF-8 into something else.
    for dataset in ("population_area", "complaint"):
        for file in key.totals[dataset].files:
            b"\n".join(lines_of(department, dataset, file)).decode("utf-8")


def test_sheets_point_at_the_planted_rows(department: Settings, key: AnswerKey) -> None:
    rows = sheet_of(department, "village_headman", "village_headman_2568-12.xlsx")
    bad = planted(key, "village_headman")
    for row, cells in enumerate(rows[3:-1], 4):
        number = re.sub(r"\D", "", cells[0] or "")
        reason = bad.get(("village_headman_2568-12.xlsx", row))
        assert pin.is_valid(number) == (reason not in ("bad_check_digit", "bad_length") and bool(number)), (
            row,
            reason,
        )
        if reason == "not_in_list":
            assert cells[2] in ("นายก อบต.", "ผญบ.")
    assert rows[-1][1].startswith("รวม")


def test_hotels_are_invalid_only_where_planted(department: Settings, key: AnswerKey) -> None:
    bad = planted(key, "hotel_licence")
    rows = hotel_rows(department)
    times = Counter(record["licence_no"] for record in rows)
    for number, record in enumerate(rows, 1):
        reason = bad.get(("hotel_licence.csv", number))
        assert (times[record["licence_no"]] > 1) == (reason == "duplicate_key")
        if reason is None:
            assert date.fromisoformat(record["issued_on"]) < date.fromisoformat(record["expires_on"])
            assert 1 <= int(record["rooms"]) <= 5000


def test_api_serves_pages_to_those_who_have_the_token(department: Settings) -> None:
    rows = linkage_rows(department)
    with serve_linkage_api(rows, token="let me in", page_size=1_000) as url, httpx.Client() as client:
        assert client.get(url).status_code == 401
        client.headers["Authorization"] = "Bearer let me in"
        assert client.get(url + "x").status_code == 404
        assert client.get(url, params={"page": "x"}).status_code == 400
        served: list[dict[str, Any]] = []
        page: int | None = 1
        while page:
            answer = client.get(url, params={"page": page}).json()
            served += answer["data"]
            page = answer["next"]
    assert served == rows
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_silos_write_what_the_contracts_expect(department: Settings, key: AnswerKey) -> None:
    contracts = load_contracts(Path(__file__).parents[2] / "assets").by_dataset
    start = 1
    for name, width in PERSON_WIDTHS.items():
        assert contracts["person_register"].column(name).position == (start, width)
        start += width
    titles = {
        dataset: lines_of(department, dataset, key.totals[dataset].files[0])[0].decode("cp874").split(separator)
        for dataset, separator in (("house_register", "|"), ("death_event", ","), ("id_card_issue", ","))
    }
    for dataset, above in (("area_code", 2), ("birth_event", 3), ("village_headman", 2)):
        titles[dataset] = list(sheet_of(department, dataset, key.totals[dataset].files[0])[above])
    titles["hotel_licence"] = list(hotel_rows(department)[0])
    titles["linkage_usage"] = list(linkage_rows(department)[0])
    titles["complaint"] = list(json.loads(lines_of(department, "complaint", "complaint_25681231.jsonl")[0]))
    for dataset, found in titles.items():
        assert found == [column.title for column in contracts[dataset].columns]
    for dataset, contract in contracts.items():
        if dataset in DATASETS:
            for file in key.totals[dataset].files:
                assert not contract.partition or contract.period_of(file) is not None
