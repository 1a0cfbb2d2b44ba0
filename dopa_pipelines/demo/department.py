"""The synthetic department: what each silo delivers, and which of its rows are spoiled.

Each ``_<dataset>`` method writes the deliveries of one dataset from the register and plants its defects. How
a form is written is in :mod:`dopa_pipelines.demo.forms`; how a plant finds its place is in
:mod:`dopa_pipelines.demo.defects`. The titles and layouts repeat what the contracts say on purpose: the silo
doesn't read the contract either.

Every planted row breaks exactly one rule. Whole deliveries are never spoiled: all of them load.
"""

from __future__ import annotations

import json
from calendar import monthrange
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from random import Random
from typing import Any

import geothai
import polars as pl
from geothai.abolished import abolished_areas

from dopa_pipelines.demo import forms
from dopa_pipelines.demo.defects import AnswerKey, Planter, Recipe, Record
from dopa_pipelines.demo.forms import (
    check_digit,
    dashed,
    formal,
    long_written,
    misread,
    short_written,
    slashed,
    thai_digits,
    write_whole,
)
from dopa_pipelines.demo.register import MONTHS, SERIALS, SNAPSHOT, Register, make_register, unique_pid
from dopa_pipelines.demo.vocabulary import (
    AGENCIES,
    CAUSES,
    CHANNELS,
    COMPLAINT_DETAILS,
    HOTEL_STARTS,
    HOTEL_WORDS,
    MOJIBAKE_WORDS,
    OUTCOMES,
    SERVICES,
    TOPICS,
)
from dopa_pipelines.errors import UserError
from dopa_pipelines.settings import Settings

Progress = Callable[[str, int, int], None]
"""Told (dataset, number of it from 1, number of datasets) before each dataset is written."""

Render = Callable[[pl.DataFrame], list[bytes]]
"""Writes the rows of a frame of text as lines, without their ends."""

MIN_PERSONS, MAX_PERSONS = 2_000, 5_000_000
CARD_DAYS = 15
HOTEL_FILE = "hotel_licence.jsonl"
LINKAGE_FILE = "linkage_usage.jsonl"
"""What the silos serve, as JSON lines."""
HOTEL_DELIVERY, LINKAGE_DELIVERY = "hotel_licence.csv", "linkage_usage.jsonl"
"""What is fetched from them: the names that the answer key knows."""

DUPLICATE = Recipe("duplicate_key")
LAYOUT_BLANKS = 3


def generate(settings: Settings, persons: int = 100_000, seed: int = 2568, progress: Progress | None = None) -> AnswerKey:
    """Write the deliveries of the synthetic department into the drop zone, and the answer key into the demo
    folder.

    The same ``persons`` and ``seed`` give the same bytes; a file that is there already is left alone. What
    the licensing database and the Linkage API are to serve is kept beside the answer key: ``hotel_rows`` and
    ``linkage_rows`` give it. Raises ``UserError`` where ``persons`` is too small to spoil or too large to
    number.
    """
    if not MIN_PERSONS <= persons <= MAX_PERSONS:
        raise UserError(
            f"The synthetic department can have {MIN_PERSONS:,} to {MAX_PERSONS:,} persons, not {persons:,}: "
            "choose a number between them."
        )
    return _Department(settings, persons, seed, progress).write()


def hotel_rows(settings: Settings) -> list[Record]:
    """Rows of the departmental table ``hotel`` in their order, as ``generate`` left them."""
    return _served(settings, HOTEL_FILE)


def linkage_rows(settings: Settings) -> list[Record]:
    """Records of the Linkage API in their order, as ``generate`` left them."""
    return _served(settings, LINKAGE_FILE)


def _served(settings: Settings, name: str) -> list[Record]:
    path = settings.demo_path / name
    if not path.is_file():
        raise UserError(f"{path} is missing: generate the synthetic department first (dopa demo).")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _put(column: str, *values: Any) -> Callable[[Record, int], Record]:
    """A change that sets ``column`` to one of ``values`` in turn."""
    return lambda record, serial: record | {column: values[serial % len(values)]}


def _wrong_check_digit(column: str) -> Callable[[Record, int], Record]:
    def change(record: Record, serial: int) -> Record:
        pid = f"1{1000 + serial % 9000:04d}{serial * 7919 % SERIALS:07d}"
        wrong = (int(check_digit(pid)) + 1 + serial % 9) % 10
        return record | {column: f"{pid}{wrong}"}

    return change


def _short_pid(column: str) -> Callable[[Record, int], Record]:
    """A citizen number that lost its last digit."""
    return lambda record, serial: record | {column: unique_pid(SERIALS - serial, "1", "1001")}


def _word(serial: int) -> str:
    return MOJIBAKE_WORDS[serial % len(MOJIBAKE_WORDS)]


def _garble_cp874(column: str) -> Recipe:
    """UTF-8 bytes that were read as cp874 and written again."""
    return Recipe("mojibake", lambda record, serial: record | {column: misread(_word(serial), "cp874")})


def _garble_unicode(column: str) -> tuple[Recipe, ...]:
    """What forms in Unicode can hold besides: latin-1 misreadings and characters lost for good."""
    return (
        _garble_cp874(column),
        Recipe("mojibake", lambda record, serial: record | {column: misread(_word(serial), "latin-1")}),
        Recipe("mojibake", lambda record, serial: record | {column: f"{_word(serial)}\ufffd\ufffd{serial}"}),
    )


def _undecodable(column: str) -> Recipe:
    """Bytes that cp874 doesn't know; as many as they replace, so that a fixed width stays."""
    return Recipe(
        "undecodable",
        lambda record, serial: record | {column: "@@"},
        lambda line, serial: line.replace(b"@@", (b"\xfc\xfc", b"\xdb\xdc", b"\xff\xfd")[serial % 3]),
    )


def _ragged(separator: bytes, end: bytes = b"") -> tuple[Recipe, ...]:
    """A line with one field too few, and one with one too many."""
    return (
        Recipe("ragged_line", edit=lambda line, _: line.removesuffix(end).rpartition(separator)[0] + end),
        Recipe("ragged_line", edit=lambda line, serial: line + (b"" if end else separator) + b"%d" % serial + end),
    )


def _cut_in_two(line: bytes, _: int) -> bytes:
    """The first half, cut between letters: the file as a whole stays valid UTF-8."""
    text = line.decode()
    return text[: len(text) // 2].encode()


def _delimited(separator: str, encoding: str, quoted: bool = False, trailing: bool = False) -> Render:
    """Renders a frame of text as lines of delimited text."""

    def render(frame: pl.DataFrame) -> list[bytes]:
        fields: list[pl.Expr] = [pl.col(name).fill_null("") for name in frame.columns]
        if quoted:
            needed = f'[{separator}"]'
            fields = [
                pl.when(field.str.contains(needed))
                .then('"' + field.str.replace_all('"', '""', literal=True) + '"')
                .otherwise(field)
                for field in fields
            ]
        lines = frame.select(pl.concat_str(fields, separator=separator).alias("line"))["line"]
        if trailing:
            lines = lines + separator
        return _encoded(lines, encoding)

    return render


def _encoded(lines: pl.Series, encoding: str) -> list[bytes]:
    return "\n".join(lines).encode(encoding).split(b"\n") if len(lines) else []


PERSON_WIDTHS = {
    "pid": 13, "title": 10, "first_name": 30, "last_name": 40, "sex": 1, "birth_date": 8, "nationality": 3,
    "house_code": 11, "area_code": 6, "status": 1, "moved_in_date": 8,
}  # fmt: skip
"""Bytes of each field of a line of the register of persons, in order."""


def _fixed_width(frame: pl.DataFrame) -> list[bytes]:
    fields = [pl.col(name).str.pad_end(width) for name, width in PERSON_WIDTHS.items()]
    return _encoded(frame.select(pl.concat_str(fields).alias("line"))["line"], "cp874")


class _Department:
    """One generation: the register, where things are written, and the answer key that grows."""

    def __init__(self, settings: Settings, persons: int, seed: int, progress: Progress | None) -> None:
        self.settings = settings
        self.persons = persons
        self.seed = seed
        self.progress = progress
        self.key = AnswerKey(seed, persons)
        self.register: Register = make_register(self.rng("register"), persons)

    def rng(self, purpose: str) -> Random:
        """A generator of its own for each purpose, so that a change in one dataset leaves the others as
        they are.
        """
        return Random(f"{self.seed}:{self.persons}:{purpose}")

    def write(self) -> AnswerKey:
        steps = {
            "area_code": self._area_code,
            "population_area": self._population_area,
            "person_register": self._person_register,
            "house_register": self._house_register,
            "birth_event": self._birth_event,
            "death_event": self._death_event,
            "id_card_issue": self._id_card_issue,
            "village_headman": self._village_headman,
            "hotel_licence": self._hotel_licence,
            "complaint": self._complaint,
            "linkage_usage": self._linkage_usage,
        }
        for number, (dataset, step) in enumerate(steps.items(), 1):
            if self.progress:
                self.progress(dataset, number, len(steps))
            step(self.rng(dataset))
        self.key.write(self.settings.demo_path)
        return self.key

    # How deliveries of each kind are put together.

    def _drop(self, bureau: str, dataset: str, file: str, content: bytes) -> None:
        write_whole(self.settings.drop_path / bureau / dataset / file, content)

    def _text(
        self, bureau: str, dataset: str, file: str, good: pl.DataFrame, render: Render, planter: Planter,
        header: str | None = None, encoding: str = "cp874", end: bytes = b"\n",
    ) -> None:  # fmt: skip
        plants = planter.plant(len(good), lambda position: good.row(position, named=True))
        spoiled = render(pl.DataFrame([plant.record for plant in plants], schema=good.schema))
        spoiled = [plant.edit(line, plant.serial) if plant.edit else line for plant, line in zip(plants, spoiled, strict=True)]
        lines, answers = planter.place(render(good), plants, spoiled)
        above = 0
        if header is not None:
            lines.insert(0, header.encode(encoding))
            above = 1
        self._drop(bureau, dataset, file, end.join(lines) + end)
        self.key.record(dataset, file, len(lines) - above, [(row + above, reason) for row, reason in answers])

    def _records(self, good: Sequence[Record], planter: Planter) -> tuple[list[Record], list[tuple[int, str]]]:
        plants = planter.plant(len(good), lambda position: dict(good[position]))
        return planter.place(list(good), plants, [plant.record for plant in plants])

    def _sheet(
        self, rng: Random, bureau: str, dataset: str, file: str, sheet: str, titles: Sequence[str],
        columns: dict[str, str], good: Sequence[Record], planter: Planter, blanks: int = 0,
        total: Sequence[Any] | None = None,
    ) -> None:  # fmt: skip
        """``columns``: name of the field → title over its column."""
        records, answers = self._records(good, planter)
        gaps = sorted(rng.sample(range(1, len(records)), blanks))
        rows: list[Sequence[Any]] = []
        place: list[int] = []
        for number, record in enumerate(records):
            if number in gaps:
                rows.append(())
            place.append(len(rows))
            rows.append([record[name] for name in columns])
        if total is not None:
            rows.append(total)
        self._drop(bureau, dataset, file, forms.workbook(sheet, titles, list(columns.values()), rows))
        first = len(titles) + 2
        planted = [(first + place[ordinal - 1], reason) for ordinal, reason in answers]
        self.key.record(dataset, file, len(records), planted, blanks + (total is not None))

    def _serve(self, dataset: str, name: str, delivery: str, records: Sequence[Record], answers: list[tuple[int, str]]) -> None:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_whole(self.settings.demo_path / name, lines.encode())
        self.key.record(dataset, delivery, len(records), answers)

    # The datasets.

    def _area_code(self, rng: Random) -> None:
        def area(code: str, name_th: str, name_en: str | None, ended: str | None, successor: str) -> Record:
            day = date.fromisoformat(ended) if ended else None
            return {
                "code": code,
                "name_th": name_th,
                "name_en": name_en,
                "abolished_on": short_written(day) if day else None,
                "successor": successor or None,
            }

        good: list[Record] = []
        for province in geothai.provinces():
            good.append(area(province.code, province.name_th, province.name_en, None, ""))
            for district in geothai.districts(province.code):
                good.append(area(district.code, district.name_th, district.name_en, None, ""))
                good += [
                    area(tambon.code, tambon.name_th, tambon.name_en, None, "") for tambon in geothai.subdistricts(district.code)
                ]
        good += [
            area(old.code, old.name_th, old.name_en, old.abolished_on, " ".join(old.successors)) for old in abolished_areas()
        ]
        recipes = [
            DUPLICATE,
            Recipe("missing", _put("name_th", None, " ")),
            *_garble_unicode("name_th"),
            Recipe("bad_pattern", lambda record, serial: record | {"code": f"98O{serial:03d}"}),
            Recipe("bad_date", _put("abolished_on", "ปีก่อน", "รอประกาศ")),
            Recipe("impossible_date", _put("abolished_on", "31 เม.ย. 2550", "29 กุมภาพันธ์ 2566", "30/02/2549")),
            Recipe("future_date", _put("abolished_on", "1 ม.ค. 2640", "01/10/2655")),
            Recipe("out_of_range", _put("abolished_on", "1 พ.ค. 2420", "05/05/2431")),
            Recipe("too_long", _put("name_en", "Mueang " * 20)),
        ]  # fmt: skip
        # No area begins with 98.
        planter = Planter(rng, recipes, len(good), 1, lambda record, serial: record | {"code": f"98{serial:04d}"})
        columns = {
            "code": "รหัส",
            "name_th": "ชื่อภาษาไทย",
            "name_en": "ชื่อภาษาอังกฤษ",
            "abolished_on": "วันที่ยกเลิก",
            "successor": "รหัสที่ใช้แทน",
        }
        titles = ("รหัสเขตการปกครองของประเทศไทย", "กรมการปกครอง ข้อมูล ณ วันที่ 31 ธันวาคม 2568")
        self._sheet(
            rng, "registration", "area_code", "area_code_2568.xlsx", "รหัสเขตการปกครอง", titles, columns,
            good, planter
        )  # fmt: skip

    def _population_area(self, rng: Random) -> None:
        offices, persons, houses = self.register.offices, self.register.persons, self.register.houses
        tambons = self.register.tambons
        alive = persons.filter((pl.col("status") != "4") & ((pl.col("status") != "1") | pl.col("died").is_not_null()))
        recipes = [
            DUPLICATE,
            Recipe("missing", _put("houses", "", " ")),
            *_garble_unicode("office_name"),
            *_ragged(b"|", b"|"),
            Recipe("bad_number", _put("houses", "ไม่ทราบ", "1O2", "12.3.4")),
            Recipe("bad_date", _put("month", "ธ.ค.", "2568-", "XX12")),
            Recipe("impossible_date", _put("month", "6813", "6800")),
            Recipe("out_of_range", lambda record, _: record | {"male": "-5", "female": "12", "total": "7"}),
            Recipe("out_of_range", _put("houses", "-1")),
            Recipe("out_of_scope", _put("month", "6709", "6501")),
            Recipe("unknown_reference", _put("province_code", "99", "28")),
            Recipe("bad_pattern", lambda record, serial: record | {"office_code": f"{serial:02d}A1"}),
            Recipe("too_long", _put("office_name", "ท้องถิ่น" * 20)),
            Recipe(
                "row_rule:total_is_male_plus_female",
                lambda record, serial: record | {"male": "1,204", "female": "1,310", "total": f"2,{520 + serial % 400}"},
            ),
        ]

        def fresh(record: Record, serial: int) -> Record:
            # Registration offices number from 01 up and from 99 down: nobody has 55 to 79.
            provinces = geothai.provinces()
            province = provinces[serial % len(provinces)].code
            return record | {
                "province_code": province,
                "office_code": f"{province}{55 + serial // len(provinces) % 25}",
                "male": "101",
                "female": "99",
                "total": "200",
                "houses": "80",
            }

        rows = (len(offices) + len(tambons) + 77) * len(MONTHS)
        planter = Planter(rng, recipes, rows, len(MONTHS), fresh)
        for year, month, length in MONTHS:
            last = date(year, month, length)
            table = _with_levels(
                offices,
                tambons,
                alive.filter((pl.col("born") <= last) & (pl.col("died").is_null() | (pl.col("died") > last))),
                houses.filter(pl.col("standing") & (pl.col("registered") <= last)),
            )
            text = table.select(
                month=pl.lit(f"{(year + 543) % 100:02d}{month:02d}"),
                province_code="province",
                province_name=pl.col("province_name") + " ",
                office_code="code",
                office_name="name",
                tambon_code="tambon",
                tambon_name="tambon_name",
                village_code=pl.lit("0"),
                village_name=pl.lit(" "),
                male=_with_commas("male"),
                female=_with_commas("female"),
                total=_with_commas(pl.col("male") + pl.col("female")),
                houses=_with_commas("houses"),
            )
            file = f"stat_a{(year + 543) % 100:02d}{month:02d}.txt"
            self._text(
                "registration",
                "population_area",
                file,
                text,
                _delimited("|", "utf-8", trailing=True),
                planter,
                encoding="utf-8",
            )

    def _fresh_person(self, record: Record, serial: int) -> Record:
        first_twelve = unique_pid(SERIALS - serial, "1", "1001")
        return record | {"pid": first_twelve + check_digit(first_twelve)}

    def _person_register(self, rng: Random) -> None:
        good = self.register.persons.select(
            "pid",
            "title",
            "first_name",
            "last_name",
            "sex",
            birth_date="birth_text",
            nationality="nationality",
            house_code="house_code",
            area_code="tambon",
            status="status",
            moved_in_date="moved_text",
        )
        recipes = [
            DUPLICATE,
            Recipe("bad_check_digit", _wrong_check_digit("pid")),
            Recipe("bad_length", _short_pid("pid")),
            Recipe("bad_length", lambda record, _: record | {"house_code": record["house_code"][:10]}),
            Recipe("missing", _put("first_name", "")),
            Recipe("missing", _put("last_name", "")),
            Recipe("missing", _put("house_code", "")),
            _garble_cp874("first_name"),
            _undecodable("last_name"),
            Recipe("ragged_line", edit=lambda line, serial: line[: -3 - serial % 40]),
            Recipe("ragged_line", edit=lambda line, serial: line + b"  %d" % serial),
            Recipe("impossible_date", _put("birth_date", "25310231", "25660229", "25301301", "24830215")),
            Recipe("impossible_date", _put("moved_in_date", "25640431", "25551240")),
            Recipe("bad_date", _put("birth_date", "ไม่ทราบ", "2531/2/1", "25X10203")),
            Recipe("bad_date", _put("moved_in_date", "ย้ายเข้า", "25")),
            Recipe("future_date", _put("birth_date", "26410101", "26680615")),
            Recipe("out_of_range", _put("birth_date", "24200615", "24351231")),
            Recipe("unknown_reference", _put("area_code", "119999", "990101", "100000")),
            Recipe("not_in_list", _put("sex", "3", "M", "0")),
            Recipe("not_in_list", _put("status", "9", "X")),
            Recipe("bad_pattern", _put("nationality", "TH", "99", "THA")),
        ]
        planter = Planter(rng, recipes, len(good), 1, self._fresh_person)
        self._text(
            "registration",
            "person_register",
            "person_register_25681231.txt",
            good,
            _fixed_width,
            planter,
            end=b"\r\n",
        )
        notes = self.register.persons["unregistered"].sum()
        self.key.totals["person_register"].notes["unregistered_citizen_number"] = int(notes)

    def _house_register(self, rng: Random) -> None:
        registered = pl.col("registered")
        good = self.register.houses.select(
            "house_code",
            "house_no",
            area_code="village",
            house_type="house_type",
            registered_on=registered.dt.strftime("%d/%m/") + forms.era_year_of(registered),
            status=pl.when("standing").then(pl.lit("ปกติ")).otherwise(pl.lit("รื้อถอน")),
        )
        recipes = [
            DUPLICATE,
            Recipe("bad_length", lambda record, _: record | {"house_code": record["house_code"][:10]}),
            Recipe("bad_length", lambda record, _: record | {"house_code": record["house_code"] + "0"}),
            Recipe("missing", _put("house_type", "", " ")),
            _garble_cp874("house_no"),
            _undecodable("house_no"),
            *_ragged(b"|"),
            Recipe("not_in_list", _put("house_type", "ปราสาท", "บ้าน")),
            Recipe("not_in_list", _put("status", "ร้าง")),
            Recipe("unknown_reference", _put("area_code", "11999901", "99010100")),
            Recipe("bad_pattern", lambda record, _: record | {"area_code": record["area_code"][:7]}),
            Recipe("impossible_date", _put("registered_on", "31/02/2550", "29/02/2566", "15/13/2540")),
            Recipe("bad_date", _put("registered_on", "ไม่ทราบวัน", "ราว ๆ ปี 40")),
            Recipe("future_date", _put("registered_on", "01/01/2640", "12/08/2671")),
            Recipe("out_of_range", _put("registered_on", "01/05/2420", "30/06/2430")),
            Recipe("too_long", _put("house_no", "99/9 " * 15)),
        ]
        # Serials of offices count up from 1; these count down.
        planter = Planter(
            rng, recipes, len(good), 1,
            lambda record, serial: record | {"house_code": f"{record['house_code'][:4]}{9_999_999 - serial}"},
        )  # fmt: skip
        header = "รหัสประจำบ้าน|บ้านเลขที่|รหัสหมู่บ้าน|ประเภทบ้าน|วันที่กำหนดบ้านเลขที่|สถานะบ้าน"
        self._text(
            "registration",
            "house_register",
            "house_register_25681231.txt",
            good,
            _delimited("|", "cp874"),
            planter,
            header=header,
        )

    def _birth_event(self, rng: Random) -> None:
        babies = self.register.persons.filter(pl.col("born_month").is_not_null())
        written: tuple[Callable[[date], Any], ...] = (
            slashed, short_written, long_written, formal, lambda day: day,
        )  # fmt: skip

        def late(record: Record, _: int) -> Record:
            year, month = record["period"]
            return record | {
                "registered_on": slashed(date(year, month, 5)),
                "birth_date": long_written(date(year, month, 20)),
            }

        def other_month(record: Record, serial: int) -> Record:
            year, month = record["period"]
            before = date(year, month, 1) - timedelta(days=1 + serial % 20)
            return record | {
                "registered_on": slashed(before),
                "birth_date": slashed(before - timedelta(days=3)),
            }

        recipes = [
            DUPLICATE,
            Recipe("bad_check_digit", _wrong_check_digit("child_pid")),
            Recipe("bad_check_digit", _wrong_check_digit("mother_pid")),
            Recipe("bad_length", _short_pid("child_pid")),
            Recipe("missing", _put("child_pid", None)),
            Recipe("missing", _put("sex", None, " ")),
            Recipe("impossible_date", _put("birth_date", "31/09/2568", "31 พ.ย. 2568", "30 กุมภาพันธ์ 2568")),
            Recipe("bad_date", _put("birth_date", "วันอังคาร", "ต้นเดือน")),
            Recipe("unknown_reference", _put("area_code", "119999", "990101")),
            Recipe("not_in_list", _put("sex", "ช", "ไม่ระบุ")),
            Recipe("out_of_range", _put("weight_grams", 95_000, 12)),
            Recipe("bad_number", _put("weight_grams", "สามพัน", "3 กก.")),
            Recipe("bad_pattern", _put("office_code", "11", "อ.เมือง")),
            Recipe("row_rule:registered_after_birth", late),
            Recipe("out_of_scope", other_month),
        ]
        planter = Planter(
            rng, recipes, len(babies), len(MONTHS),
            lambda record, serial: record | {"birth_no": f"{record['birth_no'][:8]}{900_000 + serial}"},
        )  # fmt: skip
        columns = {
            "birth_no": "เลขที่สูติบัตร",
            "child_pid": "เลขประจำตัวเด็ก",
            "birth_date": "วันเกิด",
            "registered_on": "วันที่แจ้ง",
            "office_code": "สำนักทะเบียน",
            "area_code": "รหัสตำบล",
            "sex": "เพศ",
            "mother_pid": "เลขประจำตัวมารดา",
            "weight_grams": "น้ำหนักแรกเกิด (กรัม)",
        }
        for number, (year, month, _) in enumerate(MONTHS):
            found = babies.filter(pl.col("born_month") == number).sort("birth_registered", "pid")
            good = [
                {
                    "birth_no": f"{baby['office']}-{(year + 543) % 100}-{serial:06d}",
                    "child_pid": baby["pid"],
                    "birth_date": rng.choice(written)(baby["born"]),
                    "registered_on": rng.choice(written)(baby["birth_registered"]),
                    "office_code": baby["office"],
                    "area_code": baby["tambon"],
                    "sex": "หญิง" if baby["sex"] == "2" else "ชาย",
                    "mother_pid": baby["mother_pid"] if rng.random() < 0.97 else "-",
                    "weight_grams": round(min(5_200, max(900, rng.gauss(3_050, 430)))),
                    "period": (year, month),
                }
                for serial, baby in enumerate(found.iter_rows(named=True), 1 + number * 100_000)
            ]
            titles = (
                "รายงานการแจ้งเกิด",
                f"ประจำเดือน {forms.MONTHS[month - 1]} {year + 543}",
                "สำนักบริหารการทะเบียน",
            )
            file = f"birth_event_{year + 543}-{month:02d}.xlsx"
            self._sheet(
                rng, "registration", "birth_event", file, "แจ้งเกิด", titles, columns, good, planter,
                LAYOUT_BLANKS
            )  # fmt: skip

    def _death_event(self, rng: Random) -> None:
        dead = self.register.persons.filter(pl.col("died").is_not_null())

        def month_of(record: Record) -> date:
            day, month, year = (int(part) for part in record["registered_on"].split("/"))
            return date(year - 543, month, min(day, 28))

        def early(record: Record, _: int) -> Record:
            day = month_of(record)
            return record | {
                "registered_on": slashed(day.replace(day=4)),
                "death_date": slashed(day.replace(day=19)),
            }

        def other_month(record: Record, serial: int) -> Record:
            before = month_of(record).replace(day=1) - timedelta(days=1 + serial % 20)
            return record | {
                "registered_on": slashed(before),
                "death_date": slashed(before - timedelta(days=1)),
            }

        short = _put("cause_group", "ชราภาพ")
        recipes = [
            DUPLICATE,
            Recipe("bad_check_digit", _wrong_check_digit("pid")),
            Recipe("bad_length", _short_pid("pid")),
            Recipe("missing", _put("sex", "")),
            Recipe("missing", _put("cause_group", "")),
            Recipe("impossible_date", _put("death_date", "31/09/2568", "31/11/2568", "32/10/2568")),
            Recipe("bad_date", _put("death_date", "วันศุกร์", "ปลายเดือน")),
            Recipe("unknown_reference", _put("area_code", "119999", "990101")),
            Recipe("not_in_list", _put("cause_group", "ไม่ทราบแน่ชัด", "Covid, 19")),
            Recipe("out_of_range", _put("age_years", "145", "-1")),
            Recipe("bad_number", _put("age_years", "เจ็ดสิบ", "7O")),
            Recipe("bad_pattern", _put("office_code", "11", "เมือง")),
            _undecodable("cause_group"),
            # Nothing quoted in these lines, so that a comma in quotes isn't what is cut at.
            *(Recipe(ragged.reason, short, ragged.edit) for ragged in _ragged(b",")),
            Recipe("row_rule:registered_after_death", early),
            Recipe("out_of_scope", other_month),
        ]
        planter = Planter(
            rng, recipes, len(dead), len(MONTHS),
            lambda record, serial: record | {"death_no": f"{record['death_no'][:8]}{900_000 + serial}"},
        )  # fmt: skip
        header = "เลขที่มรณบัตร,เลขประจำตัวผู้ตาย,วันที่ตาย,วันที่แจ้ง,สำนักทะเบียน,รหัสตำบล,เพศ,อายุ (ปี),กลุ่มสาเหตุการตาย"
        for number, (year, month, _) in enumerate(MONTHS):
            found = dead.filter(pl.col("died_month") == number).sort("death_registered", "pid")
            good = pl.DataFrame(
                [
                    {
                        "death_no": f"{person['office']}-{(year + 543) % 100}-{serial:06d}",
                        "pid": person["pid"],
                        "death_date": slashed(person["died"]),
                        "registered_on": slashed(person["death_registered"]),
                        "office_code": person["office"],
                        "area_code": person["tambon"],
                        "sex": "หญิง" if person["sex"] == "2" else "ชาย",
                        "age_years": str(_age(person["born"], person["died"])),
                        "cause_group": "ชราภาพ" if person["age"] > 85 else rng.choice(CAUSES),
                    }
                    for serial, person in enumerate(found.iter_rows(named=True), 1 + number * 100_000)
                ]
            )
            file = f"death_event_{year + 543}-{month:02d}.csv"
            self._text(
                "registration", "death_event", file, good, _delimited(",", "cp874", quoted=True), planter,
                header=header, end=b"\r\n",
            )  # fmt: skip

    def _id_card_issue(self, rng: Random) -> None:
        adults = self.register.persons.filter(
            (pl.col("status") == "0") & (pl.col("nationality") == "099") & ~pl.col("unregistered") & (pl.col("age") >= 7)
        )
        a_day = max(60, self.persons // 2_500)
        days = [day for day in (date(2025, 12, number) for number in range(1, 32)) if day.weekday() < 5][:CARD_DAYS]
        total = a_day * len(days)
        holders = adults[rng.sample(range(len(adults)), total)] if total <= len(adults) else adults
        a_day = len(holders) // len(days)

        def backwards(record: Record, _: int) -> Record:
            return record | {"expires_on": "01/12/2560"}

        def ahead(record: Record, _: int) -> Record:
            return record | {"issued_on": "15/06/2640", "expires_on": "14/06/2648"}

        recipes = [
            DUPLICATE,
            Recipe("bad_check_digit", _wrong_check_digit("pid")),
            Recipe("bad_length", _short_pid("pid")),
            Recipe("missing", _put("pid", "")),
            Recipe("missing", _put("reason", "")),
            Recipe("impossible_date", _put("issued_on", "31/11/2568", "30/02/2568")),
            Recipe("bad_date", _put("expires_on", "อีกแปดปี", "ไม่มี")),
            Recipe("future_date", ahead),
            Recipe("not_in_list", _put("reason", "ทำหาย", "อยากได้รูปใหม่, สวยกว่า")),
            Recipe("bad_pattern", _put("office_code", "11", "110A")),
            _undecodable("reason"),
            *_ragged(b","),
            Recipe("row_rule:expires_after_issue", backwards),
        ]
        planter = Planter(
            rng, recipes, a_day * len(days), len(days),
            lambda record, serial: record | {"request_no": f"9{record['request_no'][1:5]}{serial:07d}"},
        )  # fmt: skip
        header = "เลขที่คำขอ,เลขประจำตัวประชาชน,สำนักทะเบียน,เหตุที่ขอมีบัตร,วันออกบัตร,วันบัตรหมดอายุ"
        for number, day in enumerate(days):
            rows = []
            for serial, person in enumerate(holders[number * a_day : (number + 1) * a_day].iter_rows(named=True)):
                first = person["age"] <= 8
                reason = rng.choices(("บัตรหมดอายุ", "บัตรหาย", "บัตรชำรุด", "เปลี่ยนชื่อหรือที่อยู่"), (62, 18, 8, 12))[0]
                rows.append(
                    {
                        "request_no": f"1{person['office']}{number * a_day + serial:07d}",
                        "pid": person["pid"],
                        "office_code": person["office"],
                        "reason": "ขอมีบัตรครั้งแรก" if first else reason,
                        "issued_on": slashed(day),
                        "expires_on": "ตลอดชีพ" if person["age"] >= 70 else slashed(day.replace(year=day.year + 8)),
                    }
                )
            file = f"id_card_issue_{day.year + 543}{day:%m%d}.csv"
            self._text(
                "registration",
                "id_card_issue",
                file,
                pl.DataFrame(rows),
                _delimited(",", "cp874", quoted=True),
                planter,
                header=header,
                end=b"\r\n",
            )

    def _village_headman(self, rng: Random) -> None:
        eligible = self.register.persons.filter(
            (pl.col("status") == "0")
            & (pl.col("nationality") == "099")
            & ~pl.col("unregistered")
            & pl.col("age").is_between(38, 59)
            & ~pl.col("village").str.ends_with("00")
        ).unique("village", keep="first", maintain_order=True)  # fmt: skip
        count = min(len(eligible), max(300, self.persons // 80))
        holders = eligible[sorted(rng.sample(range(len(eligible)), count))].sort("village")
        written = (slashed, short_written, long_written, lambda day: thai_digits(long_written(day)))
        good = []
        for person in holders.iter_rows(named=True):
            post = rng.choices(("กำนัน", "ผู้ใหญ่บ้าน", "ผู้ช่วยผู้ใหญ่บ้าน", "สารวัตรกำนัน", "แพทย์ประจำตำบล"), (9, 71, 12, 4, 4))[0]
            start = SNAPSHOT - timedelta(days=rng.randint(60, 4_300))
            turn = rng.random()
            end: date | None = None
            if turn < 0.06:
                end = start + timedelta(days=rng.randint(30, max(31, (SNAPSHOT - start).days)))
            elif turn < 0.5:
                # The Act ends a headman's term at sixty.
                born: date = person["born"]
                end = born.replace(year=born.year + 60, day=min(born.day, 28))
            style = rng.choice(written)
            good.append(
                {
                    "pid": dashed(person["pid"]) if rng.random() < 0.2 else person["pid"],
                    "full_name": f"{person['title']}{person['first_name']} {person['last_name']}",
                    "post": post,
                    "village_code": thai_digits(person["village"]) if rng.random() < 0.1 else person["village"],
                    "start_date": style(start),
                    "end_date": style(end) if end else rng.choice((None, "-")),
                }
            )
        recipes = [
            DUPLICATE,
            Recipe("bad_check_digit", _wrong_check_digit("pid")),
            Recipe("bad_length", _short_pid("pid")),
            Recipe("missing", _put("full_name", None, " ")),
            Recipe("missing", _put("pid", None)),
            *_garble_unicode("full_name"),
            Recipe("impossible_date", _put("start_date", "31 เมษายน 2560", "๓๐ กุมภาพันธ์ ๒๕๖๑")),
            Recipe("bad_date", _put("end_date", "เมื่อครบวาระ", "ไม่มีกำหนด")),
            Recipe(
                "future_date",
                lambda record, serial: record | {"start_date": f"1 มกราคม {2640 + serial % 50}", "end_date": None},
            ),
            Recipe("unknown_reference", _put("village_code", "11999901", "99010101")),
            Recipe("not_in_list", _put("post", "นายก อบต.", "ผญบ.")),
            Recipe("bad_pattern", lambda record, _: record | {"village_code": record["village_code"][:7]}),
            Recipe("row_rule:end_after_start", _put("end_date", "1 ม.ค. 2530", "05/05/2541")),
        ]

        def fresh(record: Record, serial: int) -> Record:
            # A day of long ago, one for each plant: nobody's term of today began then.
            return record | {
                "start_date": slashed(date(2002, 1, 1) + timedelta(days=serial)),
                "end_date": None,
            }

        planter = Planter(rng, recipes, len(good), 1, fresh)
        columns = {
            "pid": "เลขประจำตัวประชาชน",
            "full_name": "ชื่อ - สกุล",
            "post": "ตำแหน่ง",
            "village_code": "รหัสหมู่บ้าน",
            "start_date": "วันเริ่มดำรงตำแหน่ง",
            "end_date": "วันพ้นตำแหน่ง",
        }
        titles = ("ทะเบียนกำนัน ผู้ใหญ่บ้าน แพทย์ประจำตำบล สารวัตรกำนัน และผู้ช่วยผู้ใหญ่บ้าน", "ข้อมูล ณ วันที่ ๓๑ ธันวาคม ๒๕๖๘")
        total = (None, "รวมทั้งสิ้น", f"{thai_digits(f'{len(good):,}')} ตำแหน่ง")
        self._sheet(
            rng,
            "local_administration",
            "village_headman",
            "village_headman_2568-12.xlsx",
            "ทะเบียน",
            titles,
            columns,
            good,
            planter,
            total=total,
        )

    def _hotel_licence(self, rng: Random) -> None:
        owners = self.register.persons.filter(
            (pl.col("status") == "0") & ~pl.col("unregistered") & pl.col("age").is_between(25, 75)
        )
        count = max(300, self.persons // 125)
        good: list[Record] = []
        for serial, position in enumerate(rng.choices(range(len(owners)), k=count), 1):
            person = owners.row(position, named=True)
            issued = SNAPSHOT - timedelta(days=rng.randint(20, 2_200))
            expires = issued.replace(year=issued.year + 5, day=min(issued.day, 28))
            status = "active" if expires > SNAPSHOT else "expired"
            kind = rng.choices("1234", (48, 34, 13, 5))[0]
            name = f"{rng.choice(HOTEL_STARTS)}{person['first_name']} {rng.choice(HOTEL_WORDS)}"
            good.append(
                {
                    "licence_no": f"{person['tambon'][:2]}/{serial:05d}/{issued.year + 543}",
                    "hotel_name": name,
                    "hotel_type": kind,
                    "rooms": str(rng.randint(5, 60) * int(kind)),
                    "province_code": person["tambon"][:2],
                    "district_code": person["tambon"][:4],
                    "licensee_pid": person["pid"] if rng.random() < 0.6 else None,
                    "issued_on": issued.isoformat(),
                    "expires_on": expires.isoformat(),
                    "status": "revoked" if rng.random() < 0.02 else status,
                }
            )

        def ahead(record: Record, _: int) -> Record:
            return record | {"issued_on": "2097-06-01", "expires_on": "2102-05-31"}

        recipes = [
            DUPLICATE,
            Recipe("bad_check_digit", _wrong_check_digit("licensee_pid")),
            Recipe("bad_length", _short_pid("licensee_pid")),
            Recipe("missing", _put("hotel_name", None, "")),
            *_garble_unicode("hotel_name"),
            Recipe("impossible_date", _put("issued_on", "2025-02-30", "2023-02-29")),
            Recipe("bad_date", _put("issued_on", "soon", "n/a")),
            Recipe("future_date", ahead),
            Recipe("unknown_reference", _put("province_code", "99", "28")),
            Recipe("unknown_reference", _put("district_code", "1199", "9901")),
            Recipe("not_in_list", _put("hotel_type", "7", "โรงแรม")),
            Recipe("not_in_list", _put("status", "closed")),
            Recipe("out_of_range", _put("rooms", "0", "9000")),
            Recipe("bad_number", _put("rooms", "many", "12 ห้อง")),
            Recipe("too_long", _put("hotel_name", "โรงแรม" * 25)),
            Recipe(
                "row_rule:expires_after_issue",
                lambda record, _: record | {"issued_on": "2024-06-01", "expires_on": "2023-06-01"},
            ),
        ]
        planter = Planter(
            rng, recipes, len(good), 1,
            lambda record, serial: record | {"licence_no": f"{record['province_code']}/X{serial:04d}/2568"},
            keep="none",
        )  # fmt: skip
        records, answers = self._records(good, planter)
        self._serve("hotel_licence", HOTEL_FILE, HOTEL_DELIVERY, records, answers)

    def _complaint(self, rng: Random) -> None:
        people = self.register.persons.filter((pl.col("status") == "0") & ~pl.col("unregistered"))
        adults = people.filter(pl.col("age") >= 18)
        count = max(600, self.persons // 50)
        good: list[Record] = []
        for serial, position in enumerate(rng.choices(range(len(adults)), k=count), 1):
            person = adults.row(position, named=True)
            received = SNAPSHOT - timedelta(days=rng.randint(0, 91))
            closed = received + timedelta(days=rng.randint(0, 60))
            done = closed <= SNAPSHOT
            anonymous = rng.random() < 0.2
            good.append(
                {
                    "case_no": f"มท-{person['tambon'][:2]}-{received.year + 543}-{serial:06d}",
                    "received_on": received.isoformat(),
                    "topic": rng.choice(TOPICS),
                    "channel": rng.choices(CHANNELS, (50, 15, 20, 5, 10))[0],
                    "area_code": person["tambon"],
                    "complainant_pid": None if anonymous else person["pid"],
                    "complainant_name": None if anonymous else f"{person['first_name']} {person['last_name']}",
                    "detail": rng.choice(COMPLAINT_DETAILS),
                    "status": "closed" if done else "open",
                    "outcome": rng.choice(OUTCOMES) if done else None,
                    "closed_on": closed.isoformat() if done else None,
                }
            )
        good.sort(key=lambda record: (record["received_on"], record["case_no"]))
        unclosed = {"status": "open", "outcome": None, "closed_on": None}
        recipes = [
            DUPLICATE,
            Recipe("bad_check_digit", _wrong_check_digit("complainant_pid")),
            Recipe("bad_length", _short_pid("complainant_pid")),
            Recipe("missing", _put("topic", None, "")),
            Recipe("missing", _put("area_code", None)),
            *_garble_unicode("complainant_name"),
            _garble_cp874("detail"),
            Recipe("undecodable", edit=_cut_in_two),
            Recipe("undecodable", edit=lambda line, serial: line.replace(b'"topic": ', b'"topic" ')),
            Recipe("impossible_date", _put("received_on", "2025-11-31", "2025-02-29")),
            Recipe("bad_date", _put("closed_on", "รอผล", "yesterday")),
            Recipe("future_date", lambda record, _: record | unclosed | {"received_on": "2097-10-10"}),
            Recipe("unknown_reference", _put("area_code", "119999", "990101")),
            Recipe("not_in_list", _put("topic", "บ่น", "?")),
            Recipe("not_in_list", _put("status", "pending")),
            Recipe(
                "row_rule:closed_after_received",
                lambda record, _: record | {"received_on": "2025-11-20", "closed_on": "2025-11-05"},
            ),
        ]
        planter = Planter(
            rng, recipes, len(good), 1,
            lambda record, serial: record | {"case_no": f"{record['case_no'][:11]}X{serial:05d}"},
            keep="last",
        )  # fmt: skip
        plants = planter.plant(len(good), lambda position: dict(good[position]))

        def line(record: Record) -> bytes:
            return json.dumps(record, ensure_ascii=False).encode()

        spoiled = [
            plant.edit(line(plant.record), plant.serial) if plant.edit else line(plant.record) for plant in
            plants
        ]  # fmt: skip
        lines, answers = planter.place([line(record) for record in good], plants, spoiled)
        file = "complaint_25681231.jsonl"
        self._drop("damrongdhama", "complaint", file, b"\n".join(lines) + b"\n")
        self.key.record("complaint", file, len(lines), answers)

    def _linkage_usage(self, rng: Random) -> None:
        used = [(agency, service) for agency in AGENCIES for service in SERVICES if rng.random() < 0.6]
        size = {pair: 10 ** (1 + 3 * rng.random()) for pair in used}
        good: list[Record] = []
        for year, month, _ in MONTHS:
            for day in range(1, monthrange(year, month)[1] + 1):
                on = date(year, month, day)
                share = 1.0 if on.weekday() < 5 else 0.15
                good += [
                    {
                        "usage_date": on.isoformat(),
                        "agency": agency,
                        "service": service,
                        "calls": round(size[agency, service] * share * (0.6 + 0.8 * rng.random())),
                    }
                    for agency, service in used
                ]
        recipes = [
            DUPLICATE,
            Recipe("missing", _put("service", None, "")),
            Recipe("missing", _put("calls", None)),
            *(Recipe(garble.reason, _numbered(garble, "agency")) for garble in _garble_unicode("agency")),
            Recipe("impossible_date", _put("usage_date", "2025-11-31", "2025-02-30")),
            Recipe("bad_date", _put("usage_date", "เมื่อวาน", "2025-W44")),
            Recipe(
                "future_date",
                lambda record, serial: record | {"usage_date": f"2097-01-{1 + serial % 28:02d}"},
            ),
            Recipe("out_of_range", _put("calls", -4, -1)),
            Recipe("bad_number", _put("calls", "มาก", "1.2.3")),
            Recipe("too_long", _put("service", "บริการ" * 20)),
        ]
        planter = Planter(
            rng, recipes, len(good), 1,
            lambda record, serial: record | {"agency": f"หน่วยงานทดสอบที่ {serial}"},
        )  # fmt: skip
        records, answers = self._records(good, planter)
        self._serve("linkage_usage", LINKAGE_FILE, LINKAGE_DELIVERY, records, answers)


def _with_levels(offices: pl.DataFrame, tambons: pl.DataFrame, people: pl.DataFrame, houses: pl.DataFrame) -> pl.DataFrame:
    """The rows of one month in the order of the statistics: each province, its offices, and the tambons of each office.

    A tambon stands once for each office that keeps some of its people; the rows of a level add up to the level above.
    """
    counts = ("male", "female", "houses")
    living = people.group_by("office", "tambon").agg(
        male=(pl.col("sex") == "1").sum().cast(pl.Int64), female=(pl.col("sex") == "2").sum().cast(pl.Int64)
    )
    standing = houses.group_by("office", "tambon").agg(houses=pl.len().cast(pl.Int64))
    places = (
        living.join(standing, on=["office", "tambon"], how="full", coalesce=True)
        .join(tambons.select(tambon="code", tambon_name="name_th", district="district"), on="tambon")
        .with_columns(pl.col(name).fill_null(0) for name in counts)
        .with_columns(
            tambon_name=pl.when(pl.col("district").str.starts_with("10")).then(pl.lit("แขวง")).otherwise(pl.lit("ตำบล"))
            + pl.col("tambon_name")
        )
    )
    every = offices.select("province", "province_name", "code", "name")
    lowest = every.join(places, left_on="code", right_on="office").drop("district")
    above = every.join(places.group_by("office").agg(pl.col(counts).sum()), left_on="code", right_on="office", how="left")
    above = above.with_columns(*(pl.col(name).fill_null(0) for name in counts), tambon=pl.lit("0"), tambon_name=pl.lit(" "))
    top = above.group_by("province", "province_name").agg(pl.col(counts).sum()).with_columns(
        code=pl.lit("0"), name=pl.lit(" "), tambon=pl.lit("0"), tambon_name=pl.lit(" ")
    )  # fmt: skip
    order = ["province", "province_name", "code", "name", "tambon", "tambon_name", *counts]
    return pl.concat([frame.select(order) for frame in (top, above, lowest)]).sort("province", "code", "tambon")


def _numbered(garble: Recipe, column: str) -> Callable[[Record, int], Record]:
    """The change of ``garble``, its value made one of a kind where the column is a part of the key."""

    def change(record: Record, serial: int) -> Record:
        assert garble.change is not None
        spoiled = garble.change(record, serial)
        return spoiled | {column: f"{spoiled[column]} {serial}"}

    return change


def _with_commas(count: str | pl.Expr) -> pl.Expr:
    """A whole number with commas at the thousands (counts below a thousand million)."""
    text = (pl.col(count) if isinstance(count, str) else count).cast(pl.String)
    return text.str.replace(r"^(\d+)(\d{3})$", "${1},${2}").str.replace(r"^(\d+)(\d{3}),", "${1},${2},")


def _age(born: date, day: date) -> int:
    """Completed years."""
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))
