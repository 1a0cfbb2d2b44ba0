"""A draft of a contract from a sample of its deliveries: what a steward edits instead of writing it.

What form the file has is :mod:`dopa_pipelines.sources.recognise`'s; what words mean is :mod:`.suggest_words`'. Here: what the
columns hold, which rules they keep, and the contract as text. A draft is tried on the very file before it is given: rules that
the file breaks in more than a few rows are no rules and are taken back.

Nothing is suggested to be open: opening is a decision. Where a column may be of persons it is suggested to be personal, and the
comment beside it says by what; no value of such a column is in the draft, but for the few that all rows share (a list of sexes).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

import polars as pl
import yaml

from dopa_pipelines.contracts.model import Classification, Column, Contract, Layout, Load, PdpaRole
from dopa_pipelines.contracts.read import GD_CATALOG_KEYS, IDENTIFIER, SUFFIX, read_contract
from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.ingest.enforce import Plan
from dopa_pipelines.quality.profiles import shape_of
from dopa_pipelines.quality.suggest_words import (
    CODES,
    COUNTS,
    DIRECT,
    EXPIRES,
    FREE_TEXT,
    QUASI,
    SENSITIVE,
    english,
    has_word,
    names_a_thing,
)
from dopa_pipelines.scratch import private_folder
from dopa_pipelines.sources import open_reader
from dopa_pipelines.sources.batch import Batch
from dopa_pipelines.sources.containers import Part, unpacked
from dopa_pipelines.sources.recognise import Place, recognise
from dopa_pipelines.thai.dates import parse_dates
from dopa_pipelines.thai.numbers import digits, has_citizen_check_digit, plain_number
from dopa_pipelines.thai.text import arabic_digits, repaired

SAMPLE_ROWS = 200_000
"""Rows of the file that are looked at; the draft is then tried on all of them."""
FEW = 0.01
"""A rule that no more of the rows break is a rule: what breaks it are errors. Others are taken back."""
MOST_LISTED = 20
STEWARD = "STEWARD"
"""Begins every comment that asks the steward for a decision."""

Area = Literal["province", "district", "tambon", "village", "any"]
_NOTHING = ("-", "--", "---", "–", ".", "..", "N/A", "n/a", "NULL", "null", "None", "none", "nan", "NaN", "#N/A")
_NOTHING_SAID = ("ไม่ระบุ", "ไม่มี", "ไม่ทราบ", "ไม่มีข้อมูล", "unknown")
_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"ใช่", "ไม่ใช่"})
_TITLES = r"^(?:นาย|นางสาว|นาง|น\.ส\.|เด็กชาย|เด็กหญิง|ด\.ช\.|ด\.ญ\.|พระ|Mr\.?|Mrs\.?|Miss|Ms\.?)"
_PLACES = r"^(?:จังหวัด|อำเภอ|กิ่งอำเภอ|เขต|ตำบล|แขวง|ท้องถิ่น|เทศบาล|องค์การบริหาร|อบต|หมู่ที่|บ้าน|สำนักทะเบียน|กรุงเทพ)"
_TOTAL = r"^(?:รวม|ยอดรวม|Total|TOTAL|total|Grand [Tt]otal)"
_ROLES: tuple[PdpaRole, ...] = ("none", "quasi_identifier", "sensitive", "direct_identifier")


@dataclass
class Draft:
    """A column as it is suggested. ``why``: what was seen of it; ``ask``: what the steward must decide."""

    place: Place
    name: str
    logical: str = "string"
    parse: str = "text"
    physical: str = "text"
    required: bool = False
    key: int | None = None
    classification: Classification = "internal"
    role: PdpaRole = "none"
    nulls: tuple[str, ...] = ()
    partial: bool = False
    minimum: Any = None
    maximum: Any = None
    pattern: str | None = None
    listed: tuple[str, ...] = ()
    area: Area | None = None
    reference: str | None = None
    why: list[str] = field(default_factory=list)
    ask: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return self.place.title or self.name


@dataclass(frozen=True)
class Suggestion:
    """A draft and how it did on the file: rows read, and how many of them keep it. ``text`` is the contract's YAML."""

    dataset: str
    text: str
    columns: tuple[Draft, ...]
    notes: tuple[str, ...]
    rows_read: int
    rows_accepted: int
    reasons: dict[str, int]


@dataclass
class _Facts:
    """What is true of the whole draft beside its columns."""

    dataset: str
    bureau: str
    file: str
    layout: Layout
    columns: list[Draft]
    notes: list[str]
    totals: tuple[str, str] | None = None
    scope: str | None = None
    period: str | None = None
    repeated: float = 0.0
    most_rejected: int | None = None
    tried: str = ""


def suggest(
    path: Path,
    scratch: Path,
    *,
    dataset: str | None = None,
    bureau: str | None = None,
    as_of: date | None = None,
    areas: str | None = None,
) -> Suggestion:
    """Draft a contract for deliveries like ``path``: a file, or a zip, gzip or folder whose first file is looked at.

    ``scratch``: where it may be unpacked. ``as_of``: the day of the delivery, default today. ``areas``: a dataset of area codes
    (``code``) to which columns of area codes shall refer. Raises UserError for what cannot be read.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; give a sample of a delivery")
    for given, what in ((dataset, "--dataset"), (bureau, "--bureau")):
        if given is not None and not IDENTIFIER.match(given):
            raise UserError(f"{what} {given!r} must be lower case letters, digits and _ (at most 59), beginning with a letter")
    day = as_of or date.today()
    try:
        with unpacked(path, scratch) as parts, private_folder(scratch, "suggested") as folder:
            part = parts[0]
            found = recognise(part.path, part.name)
            notes = [
                *([f"{len(parts)} files are in it: the first, {part.name}, was looked at"] if len(parts) > 1 else []),
                *found.notes,
            ]
            name = dataset or _dataset_name(path)
            facts = _Facts(name, bureau or "bureau", path.name, found.layout, _named(found.places), notes)
            _look(facts, part, day, areas)
            return _tried(facts, part, folder, day)
    except Rejected as refusal:
        raise UserError(str(refusal)) from refusal


def _dataset_name(path: Path) -> str:
    """A name from that of the file, without its extensions and dates."""
    stem = path.name.split(".")[0].casefold()
    name = re.sub(r"[^a-z0-9]+", "_", re.sub(r"[\d๐-๙]{2,}", " ", stem)).strip("_ ")
    name = re.sub(r"^[^a-z]+", "", name)[:50].strip("_")
    return name if IDENTIFIER.match(name) else "dataset"


def _named(places: Sequence[Place]) -> list[Draft]:
    taken: Counter[str] = Counter()
    drafts = []
    for number, place in enumerate(places, 1):
        name = (english(place.title) if place.title else None) or f"column_{number}"
        if not IDENTIFIER.match(name) or name.startswith("_"):
            name = f"column_{number}"
        taken[name] += 1
        if taken[name] > 1:
            name = f"{name}_{number}"
        draft = Draft(place, name)
        if not place.title:
            draft.ask.append("what it is called is not in the file: name it, and give its title as physicalName")
        elif name == f"column_{number}":
            draft.ask.append("its title was not understood: name it")
        drafts.append(draft)
    return drafts


# -- what the columns hold ----------------------------------------------------------------------------------------------


class Values:
    """The values of a column with their numbers: text as enforcement sees it, blank ones apart."""

    def __init__(self, text: pl.Series) -> None:
        plain = text.alias("v").to_frame().select(repaired(pl.col("v")).alias("v"))
        counts = plain.group_by("v").len("n").with_columns(pl.col("n").cast(pl.Int64))
        self.rows = len(text)
        self.counts = counts.filter((pl.col("v") != "").fill_null(False)).sort("n", "v", descending=[True, False])
        self.filled = int(self.counts["n"].sum())

    def without(self, nothing: Sequence[str]) -> Values:
        made = Values(pl.Series("v", [], dtype=pl.String))
        made.rows = self.rows
        made.counts = self.counts.filter(~pl.col("v").is_in(list(nothing)))
        made.filled = int(made.counts["n"].sum())
        return made

    @property
    def distinct(self) -> int:
        return self.counts.height

    def share(self, condition: pl.Expr | pl.Series) -> float:
        """Share of the filled rows whose value keeps a condition on ``v``."""
        if not self.filled:
            return 0.0
        kept = self.counts.filter(condition.fill_null(False))
        return int(kept["n"].sum()) / self.filled

    def where(self, condition: pl.Expr | pl.Series) -> list[str]:
        return self.counts.filter(condition.fill_null(False))["v"].to_list()


V = pl.col("v")


def _look(facts: _Facts, part: Part, day: date, areas: str | None) -> None:
    """Fill in what the columns of the file hold."""
    texts: dict[str, list[pl.Series]] = {draft.name: [] for draft in facts.columns}
    rows = flawed = 0
    for batch in _batches(facts, part):
        rows += len(batch.rows)
        flawed += batch.flawed.height
        for name, column in batch.columns.items():
            texts[name].append(column.rows())
        if rows >= SAMPLE_ROWS:
            facts.notes.append(f"the columns were told by the first {rows:,} rows")
            break
    if not rows:
        if flawed:
            raise UserError(f"{part.name}: none of its {flawed:,} lines could be taken apart; is it whole?")
        facts.notes.append("there are no rows: types, keys and rules are not known")
    table = {name: pl.concat(held) if held else pl.Series(name, [], dtype=pl.String) for name, held in texts.items()}
    kept = _without_totals(facts, table, rows)
    if kept is not None:
        table = {name: text.filter(kept) for name, text in table.items()}
    values = {name: Values(text) for name, text in table.items()}
    for draft in facts.columns:
        _type(draft, values[draft.name], facts, day)
    _classify(facts.columns, values, bool(any(draft.place.title for draft in facts.columns)))
    for draft in facts.columns:
        _rules(draft, values[draft.name], None if areas == facts.dataset else areas)
    _key(facts, table, values)


def _batches(facts: _Facts, part: Part) -> Iterator[Batch]:
    """The file as text, by a contract that asks nothing of it."""
    columns = tuple(
        Column(draft.name, "string", "text", "text", draft.title, position=draft.place.position) for draft in facts.columns
    )
    draft = Contract(
        facts.dataset, facts.bureau, "0", Path(f"{facts.dataset}{SUFFIX}"), "", "", "", "", "", columns, facts.layout, Load()
    )  # fmt: skip
    yield from open_reader(draft, part.path, part.name).batches()


def _without_totals(facts: _Facts, table: dict[str, pl.Series], rows: int) -> pl.Series | None:
    """Rows that are no totals, where a column of text has a few that say so; None where there is no such column."""
    for draft in facts.columns:
        total = table[draft.name].str.strip_chars().str.contains(_TOTAL).fill_null(False)
        few = int(total.sum())
        if 0 < few <= max(3, FEW * rows) and bool(total.tail(max(3, few)).any()) and rows > few:
            word = re.match(_TOTAL, str(table[draft.name].filter(total)[-1]).strip())
            facts.totals = (draft.name, f"^{word[0]}" if word else _TOTAL)
            facts.notes.append(
                f"{few} rows that begin with {word[0] if word else 'a total'!r} in {draft.name} are layout: totals"
            )
            return ~total
    return None


def _type(draft: Draft, values: Values, facts: _Facts, day: date) -> None:
    """Logical type, parse and placeholders of a column."""
    nothing = [value for value in (*_NOTHING, *_NOTHING_SAID) if value in set(values.counts["v"].head(500))]
    there = values.without(nothing)
    if not there.filled:
        draft.ask.append("no row has a value: its type is not known")
        draft.nulls = tuple(nothing)
        return
    for tell in (_citizen, _house, _timestamp, _dates, _boolean, _numbers):
        if tell(draft, there, facts, day):
            break
    else:
        _text(draft, there)
    if draft.logical == "string" and draft.parse == "text":
        # In a text these words may be answers.
        nothing = [value for value in nothing if value in _NOTHING]
    draft.nulls = (*nothing, *draft.nulls)


def _citizen(draft: Draft, values: Values, *_: Any) -> bool:
    number = values.counts.select(digits(V).alias("v"))["v"]
    long = number.str.contains(r"^\d{13}$")
    share = values.share(long)
    good = values.share((has_citizen_check_digit(number) == True).fill_null(False))  # noqa: E712
    if share < 0.7 or good < 0.6 * share or good < 0.5:
        return False
    draft.parse = "citizen_number"
    draft.why.append(f"{good:.1%} are citizen numbers with the right check digit")
    zeros = values.where(V.str.contains("^0+$"))
    draft.nulls = tuple(zeros)
    return True


def _house(draft: Draft, values: Values, *_: Any) -> bool:
    number = values.counts.select(digits(V).alias("v"))["v"]
    if values.share(number.str.contains(r"^\d{11}$")) < 0.9 or draft.place.number:
        return False
    offices = _offices()
    office = values.share(number.str.slice(0, 4).is_in(offices))
    if not (has_word(draft.place.title, ("บ้าน", "house")) or office >= 0.95):
        return False
    draft.parse = "house_code"
    draft.why.append(f"eleven digits, and {office:.1%} begin with a registration office")
    draft.nulls = tuple(values.where(V.str.contains("^0+$")))
    return True


def _timestamp(draft: Draft, values: Values, *_: Any) -> bool:
    form = r"^(\d{4})-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?$"
    if values.share(V.str.contains(form)) < 0.9 or values.share(V.str.contains(r"[T ]00:00(?::00(?:\.0+)?)?$")) > 0.99:
        return False
    if values.share(V.str.extract(form, 1).cast(pl.Int32, strict=False) >= 2400) > 0.5:
        draft.ask.append("moments of the Buddhist era are not read: have them written as common era, or as days")
        return False
    zoned = values.share(V.str.contains(r"(?:Z|[+-]\d\d:?\d\d)$")) > 0.5
    draft.logical, draft.parse, draft.physical = "timestamp", "timestamp", "timestamptz" if zoned else "timestamp"
    draft.why.append("moments" + ("" if zoned else ", taken as Bangkok's time"))
    return True


def _dates(draft: Draft, values: Values, facts: _Facts, day: date) -> bool:
    text = values.counts["v"]
    eight = values.share(V.str.contains(r"^[\d๐-๙]{8}$"))
    short = values.share(V.str.contains(r"^[\d๐-๙]{4}$"))
    if short >= 0.9 and not draft.place.number and _is_month(draft, values, facts):
        draft.logical, draft.parse, draft.physical = "date", "be_yymm", "date"
        draft.why.append("year and month of the Buddhist era in four digits")
        return True
    if values.share(V.str.contains(r"^[\d๐-๙]{1,7}$|^[\d๐-๙]{9,}$")) > 0.5:
        return False
    form: Literal["ymd", "any"] = "ymd" if eight >= 0.9 else "any"
    parsed = parse_dates(text, form, day)
    good = values.share(parsed["possible"])
    if good < 0.75:
        return False
    years = values.counts.select(arabic_digits(V).str.extract(r"(\d{4})", 1).cast(pl.Int32, strict=False))["v"]
    buddhist = values.share(years >= 2400) >= 0.5
    if form == "ymd":
        # Codes of eight digits may happen to be days of some year: a register's days are of living memory.
        near = parsed["year"].is_between(1880, day.year + 30)
        if values.share(parsed["possible"] & near) < 0.9:
            return False
    draft.logical, draft.physical = "date", "date"
    draft.parse = "be_date_ymd" if form == "ymd" and buddhist else "date"
    draft.why.append(f"{good:.1%} are days" + (" of the Buddhist era" if buddhist else ""))
    draft.partial = values.share(parsed["possible"] & parsed["value"].is_null()) > 0
    if draft.partial:
        draft.ask.append("some days or months are unknown and stay so (partial); without it such rows are rejected")
    zeros = values.where(V.str.contains(r"^[0๐]+$"))
    # What is written again and again instead of a day means something.
    words = values.where(~parsed["possible"] & ~text.str.contains(r"\d") & (values.counts["n"] >= max(2, 0.005 * values.filled)))
    draft.nulls = (*zeros, *words)
    if words:
        draft.ask.append(
            f"nullValues: is {', '.join(map(repr, words))} no day? What it means is lost, unless another column says it"
        )
    return True


def _is_month(draft: Draft, values: Values, facts: _Facts) -> bool:
    """Four digits that are a month: by the title, or because the file's name says the same."""
    possible = values.share(V.str.contains(r"^[4-7]\d(?:0[1-9]|1[0-2])$"))
    said = has_word(draft.place.title, ("yymm", "เดือน", "งวด", "month", "period"))
    usual = values.counts["v"][0]
    one = _is_one(values)
    named = one and usual in facts.file
    # The yearly file of a dataset bears the year alone.
    yearly = one and not draft.place.title and re.search(rf"(?<!\d){usual[:2]}(?!\d)", facts.file)
    return possible >= 0.95 and (said or named or bool(yearly))


def _boolean(draft: Draft, values: Values, *_: Any) -> bool:
    said = set(values.counts.select(V.str.to_lowercase())["v"].head(10))
    if values.distinct > 4 or not any(said == pair or (said <= pair and said <= {"true", "false"}) for pair in _BOOLEANS):
        return False
    draft.logical = draft.parse = draft.physical = "boolean"
    return True


def _numbers(draft: Draft, values: Values, *_: Any) -> bool:
    number = values.counts.select(plain_number(V).alias("v"))["v"]
    whole, decimal = number.str.contains(r"^[+-]?\d{1,18}$"), number.str.contains(r"^[+-]?\d*\.\d+(?:[eE][+-]?\d+)?$")
    if values.share(whole | decimal) < 0.9:
        return False
    title = draft.place.title
    if values.distinct == 1 and values.counts["v"][0] == "0" and not title:
        draft.parse, draft.nulls = "code", ("0",)
        draft.ask.append("all rows hold 0, which is taken for none: what stands there otherwise?")
        return True
    if values.share(decimal) == 0:
        area = None if draft.place.number else _area(values.without(["0"]), title)
        if area:
            draft.area, draft.parse = area, "code"
            draft.why.append(f"codes of areas ({area})")
        elif draft.place.number or not _is_code(values, number, title):
            widest = number.filter(whole).cast(pl.Int64).abs().max()
            draft.logical = draft.parse = "integer"
            draft.physical = "bigint" if isinstance(widest, int) and widest > 2**31 - 1 else "integer"
            if values.share(V.str.contains(r"\d,\d")) > 0:
                draft.why.append("written with thousands commas")
        else:
            draft.parse = "code"
        longer = values.share((V.str.len_chars() > 1) | (V == "0")) > 0.99
        if draft.parse == "code" and longer and 0 < values.share(V == "0") < 1:
            draft.nulls = ("0",)
            draft.why.append("0 stands where there is none")
        return True
    draft.logical = draft.parse = "number"
    places = number.str.extract(r"\.(\d+)$", 1).str.len_chars().max()
    draft.physical = "numeric" if isinstance(places, int) and places <= 4 else "double precision"
    return True


def _is_code(values: Values, number: pl.Series, title: str) -> bool:
    """Whether digits are a code: by the title, zeros in front, one length, or a few that repeat."""
    if values.share(V.str.contains(r"\d,\d|^[+-]")) > 0.001:
        return False
    if values.share(number.str.contains(r"^0\d")) > 0.005:
        return True
    if has_word(title, COUNTS):
        return False
    if has_word(title, CODES):
        return True
    if re.search(r"ปี|year", title.casefold()) and values.share(number.str.contains(r"^(?:2[45]\d\d|19\d\d|20\d\d)$")) > 0.9:
        return False
    lengths = values.counts.with_columns(length=number.str.len_chars())
    # A 0 among codes stands where there is none.
    some = lengths.filter(V != "0")
    if some.height > 1 and some["n"].sum() > 0.1 * values.filled:
        lengths = some
    lengths = lengths.group_by("length").agg(pl.col("n").sum()).sort("n")
    usual, often = lengths["length"][-1], lengths["n"][-1] / lengths["n"].sum()
    if often >= 0.98 and usual >= 4:
        return True
    if usual == 1 and often >= 0.98 and values.distinct <= 10 and values.filled >= 5 * values.distinct:
        return True
    return values.distinct == 1 and usual >= 2 and values.filled > 1


def _text(draft: Draft, values: Values) -> None:
    """Identifiers that are no number are codes: a few shapes that cover nearly all, half of them digits."""
    if values.share(V.str.contains(r"\d|[๐-๙]")) < 0.9 or values.share(V.str.contains(r"\s\S+\s")) > 0.1:
        return
    digit = values.counts.select(V.str.count_matches(r"[\d๐-๙]") / V.str.len_chars())["v"]
    shapes = values.counts.select(shape_of(V).alias("s"), "n").group_by("s").agg(pl.col("n").sum()).sort("n", descending=True)
    if values.share(digit >= 0.4) >= 0.9 and int(shapes["n"].head(4).sum()) >= 0.95 * values.filled:
        draft.parse = "code"


# Areas


@cache
def _codes() -> dict[Area, frozenset[str]]:
    import geothai

    provinces = [place.code for place in geothai.provinces()]
    districts = [place.code for code in provinces for place in geothai.districts(code)]
    tambons = [place.code for code in districts for place in geothai.subdistricts(code)]
    return {"province": frozenset(provinces), "district": frozenset(districts), "tambon": frozenset(tambons)}


@cache
def _offices() -> list[str]:
    """Codes of registration offices: districts, and municipalities, which count down from 99."""
    codes = _codes()
    offices = {*codes["district"], *(f"{province}{number}" for province in codes["province"] for number in range(80, 100))}
    return sorted(offices)


@cache
def _place_names() -> frozenset[str]:
    import geothai

    provinces = geothai.provinces()
    districts = [place for province in provinces for place in geothai.districts(province.code)]
    tambons = [place for district in districts for place in geothai.subdistricts(district.code)]
    thai = [p.name_th for p in provinces] + [p.name_th for p in districts] + [p.name_th for p in tambons]
    latin = [p.name_en for p in provinces] + [p.name_en for p in districts] + [p.name_en for p in tambons]
    return frozenset((*thai, *(name.casefold() for name in latin)))


def _area(values: Values, title: str) -> Area | None:
    """Of which areas digits are codes: those that exist, all of one length, or of several where the title says so."""
    if not values.filled or has_word(title, COUNTS):
        return None
    codes = _codes()
    lengths: tuple[tuple[int, Area], ...] = ((2, "province"), (4, "district"), (6, "tambon"))
    for length, area in lengths:
        if values.share(V.str.len_chars() == length) >= 0.97:
            # Two or four digits may be anything.
            sure = values.distinct > 5 or values.distinct == 1 or has_word(title, ("จังหวัด", "อำเภอ", "province", "district"))
            return area if sure and values.share(V.is_in(list(codes[area]))) >= 0.95 else None
    if values.share(V.str.len_chars() == 8) >= 0.97:
        return "village" if values.share(V.str.slice(0, 6).is_in(list(codes["tambon"]))) >= 0.95 else None
    every = [*codes["province"], *codes["district"], *codes["tambon"]]
    several = values.share(V.str.contains(r"^\d{2}(?:\d{2}){0,3}$")) >= 0.97
    return "any" if several and values.distinct > 20 and values.share(V.is_in(every)) >= 0.7 else None


# -- who may see it -----------------------------------------------------------------------------------------------------


def _classify(drafts: list[Draft], values: dict[str, Values], titled: bool) -> None:
    """Classification and role of each column, on the safe side, with what they were told by."""
    told = {draft.name: _role(draft, values[draft.name]) for draft in drafts}
    for draft in drafts:
        role, why = told[draft.name]
        if role != "none":
            _set(draft, role, why)
    # Rows are of persons or houses where nearly each names one.
    persons = [
        draft
        for draft in drafts
        if (draft.role == "direct_identifier" or draft.parse == "house_code")
        and values[draft.name].without(draft.nulls).filled >= 0.8 * max(1, values[draft.name].rows)
    ]
    somebody = [draft for draft in drafts if draft.role != "none"]
    for draft in drafts:
        held = values[draft.name].without(draft.nulls)
        many = held.distinct > 20
        if persons:
            of = persons[0].name
            if draft.role in ("none", "quasi_identifier") and draft.logical == "string":
                if (
                    held.filled
                    and held.distinct >= 0.95 * held.filled
                    and held.filled >= 0.5 * held.rows
                    and draft.parse != "house_code"
                ):
                    _set(draft, "direct_identifier", f"each row has another one, and rows are of persons or houses ({of})")
                elif not draft.place.title and many and draft.parse == "text":
                    _set(draft, "direct_identifier", f"a text without a title where rows are of persons ({of}): it may be a name")
            if draft.role == "none":
                _set(draft, "quasi_identifier", f"rows are of persons or houses ({of}); lower it if it tells nothing of them")
        elif draft.role == "none" and somebody and draft.area in ("tambon", "village", "any"):
            _set(draft, "quasi_identifier", f"where somebody lives or was, beside {somebody[0].name}")
        elif draft.role == "none" and draft.parse == "text" and many and _is_nameless(draft) and not _is_place(held):
            _set(draft, "quasi_identifier", "many different texts under no title that is understood: they may name persons")
    for draft in drafts:
        held = values[draft.name].without(draft.nulls)
        free = has_word(draft.place.title, FREE_TEXT) or _is_long(held)
        if free and draft.logical == "string" and draft.parse == "text":
            _set(draft, "sensitive", "people write freely there, so that anything may stand in it")
            draft.classification = "confidential"


def _is_nameless(draft: Draft) -> bool:
    return not draft.place.title or draft.name.startswith("column_")


def _set(draft: Draft, role: PdpaRole, why: str) -> None:
    if _ROLES.index(role) > _ROLES.index(draft.role):
        draft.role = role
    if draft.classification == "internal":
        draft.classification = "personal"
    draft.ask.append(f"{role}: {why}")


def _role(draft: Draft, values: Values) -> tuple[PdpaRole, str]:
    """What a column is by its content and its title; the strongest counts."""
    held = values.without(draft.nulls)
    title = draft.place.title
    if draft.parse == "citizen_number":
        return "direct_identifier", "citizen numbers"
    counted = draft.logical in ("integer", "number") and has_word(title, COUNTS)
    if draft.logical == "string" and held.filled:
        bare = held.share(V.str.contains(_TITLES + "$"))
        if bare >= 0.8:
            return "quasi_identifier", "titles before names"
        if held.share(V.str.contains(_TITLES)) - bare >= 0.2:
            return "direct_identifier", "texts that begin as names do"
        if held.share(V.str.contains(r"^[^@\s]+@[^@\s]+\.[a-zA-Z]{2,}$")) >= 0.5:
            return "direct_identifier", "addresses of mail"
        phone = V.str.replace_all(r"[\s()-]", "").str.contains(r"^(?:\+66|0)[2-9]\d{7,8}$")
        if held.share(phone) >= 0.8 and draft.area is None and draft.parse != "house_code":
            return "direct_identifier", "telephone numbers"
    of_place = draft.area is not None or names_a_thing(title) or (draft.logical == "string" and _is_place(held))
    timed = draft.logical in ("date", "timestamp", "boolean")
    if has_word(title, DIRECT) and not (counted or timed or of_place):
        return "direct_identifier", "by its title"
    if has_word(title, SENSITIVE):
        return "sensitive", "by its title (section 26 of the PDPA)"
    if draft.parse == "house_code":
        return "quasi_identifier", "codes of houses"
    if has_word(title, QUASI):
        return "quasi_identifier", "by its title"
    if draft.logical == "string" and held.share(V.str.contains(r"^\d{1,4}/\d{1,4}[ก-ฮ]?$")) >= 0.7:
        return "quasi_identifier", "house numbers"
    return "none", ""


def _is_place(values: Values) -> bool:
    """Whether texts are names of places that exist, or say what place they name."""
    if not values.filled:
        return False
    bare = V.str.replace(r"^(?:จังหวัด|อำเภอ|กิ่งอำเภอ|เขต|ตำบล|แขวง)\s*", "").str.to_lowercase()
    return values.share(bare.is_in(list(_place_names())) | V.str.contains(_PLACES)) >= 0.8


def _is_long(values: Values) -> bool:
    """Whether texts are sentences: long ones, of which hardly two are the same."""
    if values.filled < 5 or values.distinct < 0.3 * values.filled:
        return False
    return values.share(V.str.len_chars() >= 40) >= 0.3


# -- rules --------------------------------------------------------------------------------------------------------------


def _rules(draft: Draft, values: Values, areas: str | None) -> None:
    """Required, limits, patterns and lists that the rows keep, errors apart."""
    held = values.without(draft.nulls)
    missing = values.rows - held.filled
    draft.required = values.rows > 0 and missing <= max(values.rows >= 50, 0.005 * values.rows)
    if draft.required and missing:
        draft.why.append(f"{missing:,} rows have no value and will be quarantined")
    if draft.logical == "date" and draft.parse != "be_yymm":
        draft.minimum = "1900-01-01"
        if not has_word(draft.place.title, EXPIRES) and not re.search(r"expire|end_date|until", draft.name):
            draft.maximum = "delivery"
    elif draft.logical in ("integer", "number") and held.share(~V.str.starts_with("-")) >= 1 - FEW:
        draft.minimum = 0
        if has_word(draft.place.title, ("อายุ", "age")):
            draft.maximum = 130
    if draft.logical != "string" or not held.filled:
        return
    listed = _listed(draft, held)
    if listed:
        draft.listed = listed
    elif draft.parse == "code":
        draft.pattern = _pattern(draft, held)
    if draft.area:
        draft.reference = areas
        ask = "registration offices have codes of their own; does it refer to areas?" if draft.area == "district" else None
        draft.ask += [ask] if ask and areas else []
        draft.ask += [] if areas else ["refer to the dataset of area codes, where there is one: relationships, type foreignKey"]


def _listed(draft: Draft, held: Values) -> tuple[str, ...]:
    """The few values that nearly all rows have, where they are answers and not identities."""
    if draft.area or draft.parse in ("citizen_number", "house_code") or draft.role == "direct_identifier" or held.filled < 20:
        return ()
    if draft.classification == "confidential" or held.distinct < 2:
        return ()
    often = held.counts.filter(pl.col("n") >= max(3, 0.001 * held.filled))
    rest = held.filled - int(often["n"].sum())
    longest = often["v"].str.len_chars().max() or 0
    if not 2 <= often.height <= MOST_LISTED or rest > max(1, FEW * held.filled) or int(str(longest)) > 60:
        return ()
    # In a small file what stands once may be as right as the rest.
    if often.height > 0.2 * held.filled or (rest and held.filled < 300):
        return ()
    if draft.parse == "code" and held.share(V.str.contains(r"^\d{4,}$")) > 0.5:
        return ()
    more = f"; {rest:,} rows hold something else and will be quarantined" if rest else ""
    draft.ask.append(f"are these all the values there may be{more}?")
    return tuple(sorted(often["v"]))


def _pattern(draft: Draft, held: Values) -> str | None:
    """The form that nearly all codes have: so many digits, letters, and what stands between them."""
    shapes = held.counts.select(shape_of(V).alias("s"), "n").group_by("s").agg(pl.col("n").sum()).sort("n", "s", descending=True)
    most, often = shapes.row(0)
    if draft.area == "any":
        return r"^\d{2}(\d{2}){0,3}$"
    if held.filled - often > max(2, FEW * held.filled) or "?" in most or len(most) > 60:
        return None
    made = ""
    for run in re.finditer(r"9+|ก|A|a|.", most):
        text = run[0]
        if text[0] == "9":
            made += rf"\d{{{len(text)}}}"
        else:
            made += {"ก": r"[\x{0E01}-\x{0E4E}]+", "A": "[A-Z]+", "a": "[a-z]+"}.get(text, re.escape(text))
    # Python reads the pattern, too, and knows no \x{...}.
    return f"^{made}$".replace(r"[\x{0E01}-\x{0E4E}]", "[ก-๎]")


def _key(facts: _Facts, table: dict[str, pl.Series], values: dict[str, Values]) -> None:
    """The fewest columns from the left that tell nearly all rows apart, and the scope where a file is of one month."""
    rows = len(next(iter(table.values()), pl.Series()))
    if rows < 2:
        return
    month = next((draft for draft in facts.columns if draft.parse == "be_yymm" and _is_one(values[draft.name])), None)
    candidates = [
        draft
        for draft in facts.columns
        if draft.logical in ("string", "date")
        and draft.classification != "confidential"
        and values[draft.name].distinct > 1
        and not (draft.parse == "text" and (_is_place(values[draft.name]) or has_word(draft.place.title, ("ชื่อ", "name"))))
    ]
    frame = pl.DataFrame({name: text.fill_null("").str.strip_chars() for name, text in table.items()})

    enough = 1 - max(FEW, 1.5 / rows if rows >= 50 else 0)

    def apart(names: list[str]) -> float:
        return int(frame.select(pl.struct(names).n_unique())[0, 0]) / rows

    single = [draft for draft in candidates if draft.required and draft.logical == "string" and apart([draft.name]) >= enough]
    chosen: list[str] = []
    if single:
        chosen = [min(single, key=lambda draft: (draft.parse == "text", facts.columns.index(draft))).name]
    else:
        best = 0.0
        for draft in candidates:
            share = apart([*chosen, draft.name])
            if share > best + 1e-9:
                chosen.append(draft.name)
                best = share
            if best >= enough or len(chosen) >= 8:
                break
        if best < enough:
            facts.notes.append("no columns tell the rows apart: there is no key; rows that repeat are kept")
            chosen = []
        for name in list(chosen):
            rest = [other for other in chosen if other != name]
            if rest and apart(rest) >= max(1 - FEW, best - 1e-9):
                chosen = rest
    if month is not None:
        chosen = [month.name, *(name for name in chosen if name != month.name)] if chosen else []
        _scope(facts, month, values)
    if any(draft.required for draft in facts.columns):
        facts.notes.append("required says that hardly a row of this file lacks a value: must it always be there?")
    for number, name in enumerate(chosen, 1):
        next(draft for draft in facts.columns if draft.name == name).key = number
    if chosen:
        share = apart(chosen)
        facts.repeated = 1 - share
        facts.notes.append(
            f"key: {', '.join(chosen)} tell {share:.2%} of the rows apart, of those looked at; is it what makes a row one?"
        )


def _is_one(values: Values) -> bool:
    """Whether nearly all rows have the same value."""
    return values.filled > 0 and values.counts["n"][0] >= 0.97 * values.filled


def _scope(facts: _Facts, month: Draft, values: dict[str, Values]) -> None:
    """A file of one month replaces that month, and nothing else."""
    text = values[month.name].counts["v"][0]
    facts.scope = month.name
    if text in facts.file:
        at = facts.file.index(text)
        before = re.sub(r"\d+", r"\\d+", re.escape(re.sub(r"[^A-Za-z_-].*$", "", facts.file[max(0, at - 2) : at]) or ""))
        facts.period = rf"{before}(?P<year>\d{{2}})(?P<month>\d{{2}})(?!\d)"
    facts.notes.append(f"each file is of one month ({month.name}): a delivery replaces that month")


# -- the draft is tried -------------------------------------------------------------------------------------------------


def _tried(facts: _Facts, part: Part, folder: Path, day: date) -> Suggestion:
    """The draft as text, after the file was enforced by it and what too many rows break was taken back."""
    path = folder / f"{facts.dataset}{SUFFIX}"
    for last in (False, False, False, True):
        path.write_text(write(facts), "utf-8")
        contract = replace(read_contract(path), path=Path(path.name))
        read, accepted, by_column, reasons = _enforced(contract, part, day, facts.file)
        if last or not _take_back(facts, by_column, read):
            break
    # Rows that repeat a key are rejected, too, as far as could be seen.
    rejected = 100 * ((read - accepted) / read + facts.repeated) if read else 0.0
    if rejected > contract.load.max_rejected_percent:
        facts.most_rejected = min(100, math.ceil(rejected))
        facts.notes.append(f"{rejected:.1f} % of the rows keep no contract like this: look at them before it is accepted")
    told = ", ".join(f"{code} {count:,}" for code, count in reasons.most_common())
    facts.tried = f"{read:,} rows read, {accepted:,} keep this draft" + (f"; the others: {told}" if told else "")
    text = write(facts)
    path.write_text(text, "utf-8")
    read_contract(path)
    return Suggestion(facts.dataset, text, tuple(facts.columns), tuple(facts.notes), read, accepted, dict(reasons))


def _enforced(contract: Contract, part: Part, day: date, file: str) -> tuple[int, int, Counter[tuple[str, str]], Counter[str]]:
    """Rows read and accepted, and rejected rows by column and reason."""
    plan = Plan(contract, day, contract.period_of(file))
    read = accepted = 0
    by_column: Counter[tuple[str, str]] = Counter()
    codes: Counter[str] = Counter()
    for batch in open_reader(contract, part.path, part.name).batches():
        enforced = plan.apply(batch)
        read += batch.height
        accepted += enforced.accepted.height
        codes.update(enforced.codes)
        if enforced.rejected.height:
            told = (
                enforced.rejected.select(
                    pl.col("reasons").str.json_decode(pl.List(pl.Struct({"code": pl.String, "column": pl.String})))
                )
                .explode("reasons")
                .unnest("reasons")
            )
            for code, column, count in told.drop_nulls().group_by("code", "column").len().iter_rows():
                by_column[(column, code)] += count
    return read, accepted, by_column, codes


def _take_back(facts: _Facts, by_column: Counter[tuple[str, str]], read: int) -> bool:
    """Take back the rules that too many rows break; whether any was."""
    changed = False
    for (name, code), count in by_column.items():
        if count <= max(2, FEW * read):
            continue
        draft = next(draft for draft in facts.columns if draft.name == name)
        before = replace(draft, why=[], ask=[])
        match code:
            case "missing":
                draft.required = False
            case "not_in_list":
                draft.listed = ()
            case "bad_pattern":
                draft.pattern = None
            case "out_of_range" | "future_date":
                draft.minimum = draft.minimum if code == "future_date" else None
                draft.maximum = None
            case "bad_check_digit" | "bad_length" if count > 0.3 * read:
                draft.parse = "code"
            case "bad_number" | "bad_date" | "impossible_date" if count > 0.3 * read:
                draft.logical, draft.parse, draft.physical = "string", "text", "text"
                draft.minimum = draft.maximum = None
                draft.partial = False
        if replace(draft, why=[], ask=[]) != before:
            changed = True
            draft.ask.append(f"{count:,} of {read:,} rows broke a rule ({code}), so that it was taken back")
        elif not any(f"({code})" in text for text in draft.ask):
            draft.ask.append(f"{count:,} of {read:,} rows are rejected ({code}): are they errors?")
    return changed


# -- the contract as text -----------------------------------------------------------------------------------------------


def write(facts: _Facts) -> str:
    """The draft as ODCS in YAML, with what was seen and what must be decided as comments."""
    lines = [
        f"# Drafted from {_safe(facts.file)}: {facts.tried or 'not tried yet'}.",
        f"# Every line with {STEWARD} asks for a decision; delete it when it is made. docs/contracts.md explains the fields.",
        *(f"# {STEWARD} {_safe(note)}" for note in facts.notes),
        "apiVersion: v3.1.0",
        "kind: DataContract",
        f"id: {facts.dataset}",
        f"name: {facts.dataset}",
        "version: 0.1.0",
        "status: draft",
        *([f"# {STEWARD} the bureau that owns it, which is also the folder of this file"] if facts.bureau == "bureau" else []),
        f"domain: {facts.bureau}",
        f"# {STEWARD} purpose, usage and limitations",
        "description: {purpose: to be stated}",
        f"# {STEWARD} who answers for it: mailboxes of the owner and the stewards",
        "team:",
        f"  name: {facts.bureau}",
        "  members:",
        "    - {username: to_be_named, role: technical_steward}",
        f"# {STEWARD} slaProperties: how often it is delivered (frequency) and how long it is kept (retention)",
        "servers:",
        *_block([_server(facts)]),
        "schema:",
        f"  - name: {facts.dataset}",
        f"    physicalName: raw.{facts.dataset}",
        "    physicalType: table",
        f"    # {STEWARD} businessName: its title in Thai; dataGranularityDescription: what one row is",
        "    properties:",
    ]
    for draft in facts.columns:
        notes = [*draft.why, *(f"{STEWARD} {text}" for text in draft.ask)]
        if draft.role != "none":
            notes.append(f"{STEWARD} lawfulBasis and purpose, as customProperties")
        lines += [f"      # {_safe(note)}" for note in notes]
        lines += ["      " + line.removeprefix("  ") for line in _block([_property(draft)])]
    load: dict[str, Any] = {"mode": "replace", "duplicates": "first"}
    if facts.scope:
        load = {"mode": "replace_scope", "scope": [{"column": facts.scope}], "duplicates": "first"}
    if facts.most_rejected:
        load["maxRejectedPercent"] = facts.most_rejected
    catalogue = dict.fromkeys(GD_CATALOG_KEYS, "ไม่ทราบ")
    lines += [
        "customProperties:",
        f"  # {STEWARD} whether a delivery replaces everything (replace), a part (replace_scope), or adds by key (append)",
        *_block([{"property": "load", "value": load}]),
        f"  # {STEWARD} the 14 items of the government data catalogue",
        *_block([{"property": "gdCatalog", "value": catalogue}]),
    ]
    return "\n".join(lines) + "\n"


def _server(facts: _Facts) -> dict[str, Any]:
    layout = facts.layout
    own: dict[str, Any] = {}
    if layout.format == "delimited":
        own = {"delimiter": layout.delimiter, "header": layout.header}
        own |= {"quoted": True} if layout.quoted else {}
        own |= {"trailingDelimiter": True} if layout.trailing_delimiter else {}
    elif layout.format == "fixed_width":
        own = {"header": layout.header}
    elif layout.format == "json" and layout.records_path:
        own = {"recordsPath": layout.records_path}
    if layout.sheet:
        own["sheet"] = layout.sheet
    if facts.totals:
        own["totals"] = {"column": facts.totals[0], "pattern": facts.totals[1]}
    if facts.period:
        own["period"] = facts.period
    suffix = Path(facts.file).suffix or ""
    server: dict[str, Any] = {
        "server": "drop_zone", "type": "local", "path": f"{facts.bureau}/{facts.dataset}/*{suffix}", "format": layout.format,
        "encoding": layout.encoding,
    }  # fmt: skip
    return server | ({"customProperties": _custom(own)} if own else {})


def _property(draft: Draft) -> dict[str, Any]:
    made: dict[str, Any] = {"name": draft.name}
    if draft.place.title:
        made |= {"physicalName": draft.place.title, "businessName": draft.place.title}
    made |= {"logicalType": draft.logical, "physicalType": draft.physical}
    made |= {"required": True} if draft.required else {}
    made |= {"primaryKey": True, "primaryKeyPosition": draft.key} if draft.key else {}
    made["classification"] = draft.classification
    limits = {"minimum": draft.minimum, "maximum": draft.maximum}
    limits = {name: value for name, value in limits.items() if value is not None}
    made |= {"logicalTypeOptions": limits} if limits else {}
    own: dict[str, Any] = {"pdpaRole": draft.role} if draft.role != "none" else {}
    own |= {"parse": draft.parse} if draft.parse != draft.logical and draft.parse != "text" else {}
    own |= {"partial": True} if draft.partial else {}
    if draft.reference:
        made["relationships"] = [{"type": "foreignKey", "to": f"{draft.reference}.code"}]
        own |= {"referenceLength": 6} if draft.area == "village" else {}
    own |= {"nullValues": list(draft.nulls)} if draft.nulls else {}
    own |= {"position": list(draft.place.position)} if draft.place.position else {}
    made |= {"customProperties": _custom(own)} if own else {}
    rules = []
    if draft.required:
        rules.append(_rule("nullValues", "completeness", "accuracy_completeness"))
    if draft.listed:
        rules.append(_rule("invalidValues", "conformity", "consistency", {"validValues": list(draft.listed)}))
    elif draft.pattern:
        rules.append(_rule("invalidValues", "conformity", "consistency", {"pattern": draft.pattern}))
    return made | ({"quality": rules} if rules else {})


def _rule(metric: str, dimension: str, national: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"metric": metric, "mustBe": 0, "dimension": dimension, "severity": "error"}
    return rule | ({"arguments": arguments} if arguments else {}) | {"customProperties": _custom({"nationalDimension": national})}


def _custom(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"property": name, "value": value} for name, value in facts.items()]


def _block(value: list[dict[str, Any]]) -> list[str]:
    """A list as YAML, two spaces in."""
    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=120, default_flow_style=None)
    return [f"  {line}" for line in text.rstrip("\n").split("\n")]


def _safe(text: str) -> str:
    """Text of a comment: one line, nothing that steers."""
    return "".join(character if character.isprintable() else " " for character in text)
