"""What a delivery or a table looks like: counts, missing and distinct values, ranges, top values, shapes.

Nothing here judges: what must be is a contract's rules, what is unusual :mod:`dopa_pipelines.quality.unusual`'s. Of a personal
column nothing is kept but counts and shapes: no value, and no smallest or largest one, which is some person's.

What is exact and what is estimated:

- rows, missing values, smallest, largest and mean are exact;
- distinct values, quantiles, top values and shapes are exact up to :data:`SAMPLE` rows, and of more rows where at most
  :data:`COUNTED` values repeat;
- beyond, distinct values are estimated from the :data:`SKETCH` smallest hashes (k minimum values: Bar-Yossef et al. 2002; Beyer
  et al. 2007) with a relative standard error of 1 / sqrt(k - 2), kept as ``distinct_error``; fewer are exact;
- quantiles, top values and shapes are those of a simple random sample, whose size is kept as ``sample``: a quantile's rank is off
  by sqrt(p (1 - p) / sample), one standard error, which is at most 0.36 % of the rows.

The sample is drawn by the number of a row: the same delivery has the same profile.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import numpy as np
import polars as pl
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from dopa_pipelines.contracts import Contract
from dopa_pipelines.ingest.enforce import Enforced
from dopa_pipelines.ingest.load import Delivery
from dopa_pipelines.sources.batch import ROW, Text

Connection = psycopg.Connection[Any]
Kind = Literal["text", "number", "date", "timestamp", "boolean"]
Facts = dict[str, Any]

SAMPLE = 20_000
SKETCH = 4_096
COUNTED = 5_000
KEPT = 64
"""Top values and shapes that are kept of a column; a column with no more values than that has them all."""
RARE = 5
"""Of a column with more values than are kept, one that fewer rows have tells of those rows and is left out."""
LONGEST = 100
"""Characters of a kept value or shape; what is longer is cut."""
LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""Of the quantiles: a quantile is a value that is there (the smallest with at least that share of the rows up to it)."""
_SEED = 2568


@dataclass(frozen=True)
class Field:
    """A column to profile: ``values`` names the one its values stand in, ``known`` the one that tells whether it is missing."""

    name: str
    kind: Kind
    personal: bool
    values: str
    known: str


def fields_of(contract: Contract) -> list[Field]:
    """The columns of a contract. A partial date is missing where not even its year is known."""
    return [
        Field(
            column.name,
            _KINDS[column.logical_type],
            column.is_personal,
            column.name,
            f"{column.name}_year" if column.partial else column.name,
        )
        for column in contract.columns
    ]


_KINDS: Mapping[str, Kind] = {
    "string": "text", "integer": "number", "number": "number", "date": "date", "timestamp": "timestamp", "boolean": "boolean",
}  # fmt: skip


class Profiler:
    """The observer of one load: takes a profile of the rows that kept the contract, and keeps it in the load's transaction.

    Rows that the database then takes out (repeated keys, unknown references) are in the profile; ``late`` counts them. A profile
    that fails is noted with its delivery and fails nothing.
    """

    def __init__(self, contract: Contract) -> None:
        self._dataset = contract.dataset
        self._gathering = Gathering(fields_of(contract))
        self._facts: Future[dict[str | None, Facts]] | None = None
        self._problem: str | None = None

    def saw(self, enforced: Enforced) -> None:
        if self._problem is None:
            try:
                self._gathering.add(enforced.values, enforced.accepted[ROW])
            except Exception as error:
                # What Polars says may quote values.
                self._problem = type(error).__name__

    def ended(self) -> None:
        # While the database settles keys and references there is time.
        if self._problem is None:
            worker = ThreadPoolExecutor(1, thread_name_prefix="profile")
            self._facts = worker.submit(self._gathering.facts)
            worker.shutdown(wait=False)

    def loaded(self, connection: Connection, delivery: Delivery) -> None:
        facts: dict[str | None, Facts] = {}
        if self._problem is None:
            try:
                assert self._facts is not None, "no delivery is loaded before its last batch was seen"
                facts = self._facts.result()
            except Exception as error:
                self._problem = type(error).__name__
        if self._problem is not None:
            connection.execute(
                "update ops.delivery set notes = coalesce(notes, '{}') || jsonb_build_object('not_profiled', %s::text)"
                " where id = %s",
                (self._problem, delivery.delivery),
            )
            return
        found = connection.execute("select bytes from ops.delivery where id = %s", (delivery.delivery,)).fetchone()
        late = facts[None]["rows"] - delivery.rows_loaded
        facts[None] |= {
            "bytes": found[0] if found else None,
            "read": delivery.rows_read,
            "loaded": delivery.rows_loaded,
            "quarantined": delivery.rows_quarantined,
        } | ({"late": late} if late else {})
        keep(connection, self._dataset, facts, delivery=delivery.delivery, write=delivery.write)


def keep(
    connection: Connection,
    dataset: str,
    facts: Mapping[str | None, Facts],
    *,
    delivery: int | None = None,
    write: int | None = None,
) -> None:
    """Keep a profile in the caller's transaction; that of a delivery, or write, that has one already changes nothing."""
    rows = facts[None]["rows"]
    connection.cursor().executemany(
        "insert into quality.profile (dataset, column_name, delivery_id, write_id, rows, facts)"
        " values (%s, %s, %s, %s, %s, %s) on conflict do nothing",
        [(dataset, name, delivery, write, rows, Jsonb(one)) for name, one in facts.items()],
    )


@dataclass(frozen=True)
class Profile:
    """A profile as it was kept. ``facts``: of the whole under None, of each column under its name, in that order."""

    dataset: str
    delivery: int | None
    write: int | None
    measured_at: datetime
    rows: int
    facts: dict[str | None, Facts]


def latest(connection: Connection, dataset: str, delivery: int | None = None) -> Profile | None:
    """The last profile of a dataset or table (``schema.name``), or that of a delivery; None where there is none."""
    found = connection.execute(
        """
        with chosen as (
            select delivery_id, write_id, measured_at
            from quality.profile
            where dataset = %(dataset)s and column_name is null
                and (%(delivery)s::bigint is null or delivery_id = %(delivery)s)
            order by id desc
            limit 1
        )
        select p.column_name, p.delivery_id, p.write_id, c.measured_at, p.rows, p.facts
        from quality.profile p
        join chosen c on p.delivery_id is not distinct from c.delivery_id and p.write_id is not distinct from c.write_id
        where p.dataset = %(dataset)s
        order by p.id
        """,
        {"dataset": dataset, "delivery": delivery},
    ).fetchall()
    if not found:
        return None
    _, number, write, when, rows, _ = found[0]
    return Profile(dataset, number, write, when, rows, {row[0]: row[5] for row in found})


class Gathering:
    """What has been seen of some columns, batch after batch, in bounded memory."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = list(fields)
        self._columns = [_Seen(item) for item in fields]
        self._rows = 0
        self._sample = _Sample(list(dict.fromkeys(item.values for item in fields)))

    def add(self, columns: Mapping[str, Text], numbers: pl.Series) -> None:
        """Rows by column, and the number of each (Int64), no number twice."""
        if not len(numbers):
            return
        self._rows += len(numbers)
        for seen in self._columns:
            seen.add(columns[seen.field.values], columns[seen.field.known])
        self._sample.add(columns, numbers)

    def facts(self) -> dict[str | None, Facts]:
        """The facts of the whole, under None, and of each column."""
        whole = self._sample.frame()
        found: dict[str | None, Facts] = {None: {"rows": self._rows}}
        for seen in self._columns:
            found[seen.field.name] = seen.facts(whole[seen.field.values], self._rows)
        return found


class _Sample:
    """A simple random sample of :data:`SAMPLE` rows: those whose numbers have the smallest hashes."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._parts: list[pl.DataFrame] = []
        self._height = 0
        self._below: int | None = None

    def add(self, columns: Mapping[str, Text], numbers: pl.Series) -> None:
        ranks = numbers.hash(_SEED)
        if self._below is not None:
            places = (ranks < self._below).arg_true()
        elif len(ranks) > SAMPLE:
            # More would be thrown away again.
            places = (ranks <= ranks.bottom_k(SAMPLE).max()).arg_true()
        else:
            places = pl.int_range(len(ranks), dtype=pl.UInt32, eager=True)
        taken = [columns[name].take(places).alias(f"v{place}") for place, name in enumerate(self._names)]
        self._parts.append(pl.DataFrame([ranks.gather(places).alias("rank"), *taken]))
        self._height += len(places)
        if self._height > 2 * SAMPLE:
            self._shrink()

    def _shrink(self) -> None:
        whole = pl.concat(self._parts) if self._parts else pl.DataFrame()
        if whole.height > SAMPLE:
            whole = whole.bottom_k(SAMPLE, by="rank")
            last = whole["rank"].max()
            assert isinstance(last, int)
            self._below = last
        self._parts, self._height = [whole], whole.height

    def frame(self) -> dict[str, pl.Series]:
        self._shrink()
        whole = self._parts[0]
        if not whole.width:
            return {name: pl.Series(name, [], dtype=pl.Null) for name in self._names}
        return {name: whole[f"v{place}"] for place, name in enumerate(self._names)}


class _Seen:
    """What has been seen of one column."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.missing = 0
        self.empty = 0
        self.total = 0.0
        self.smallest: Any = None
        self.largest: Any = None
        self._distinct = _Distinct()
        self._counts: _Counts | None = _Counts()

    def add(self, text: Text, known: Text) -> None:
        values, codes = text.values, text.codes
        numbers = None if codes is None else np.bincount(codes.to_numpy(), minlength=len(values))
        if numbers is None:
            empty = values.null_count()
            there = values.drop_nulls() if empty else values
        else:
            filled = pl.Series(numbers > 0) & values.is_not_null()
            numbers = numbers[filled.to_numpy()]
            there = values.filter(filled)
            empty = len(text) - int(numbers.sum())
        self.empty += empty
        self.missing += empty if known is text else _missing(known)
        if self.field.kind == "number" and there.dtype == pl.String:
            there = there.cast(pl.Float64, strict=False)
        if not len(there):
            return
        self._distinct.add(there)
        if not self.field.personal:
            self._range(there, numbers)
        if self._counts is not None and not self._counts.add(there, numbers):
            self._counts = None

    def _range(self, values: pl.Series, numbers: NDArray[np.int64] | None) -> None:
        if self.field.kind in ("text", "boolean"):
            return
        low, high = values.min(), values.max()
        self.smallest = low if self.smallest is None else min(self.smallest, low)
        self.largest = high if self.largest is None else max(self.largest, high)
        if self.field.kind == "number":
            number = values.cast(pl.Float64).to_numpy()
            self.total += float(number.sum() if numbers is None else number @ numbers)

    def facts(self, sampled: pl.Series, rows: int) -> Facts:
        """``sampled``: the column in the sample of all ``rows``."""
        counts = None if self._counts is None else self._counts.frame()
        found: Facts = {"missing": self.missing}
        if self.field.kind == "number" and sampled.dtype == pl.String:
            sampled = sampled.cast(pl.Float64, strict=False)
        if self.empty > self.missing:
            found["partial"] = self.empty - self.missing
        whole = counts is not None or len(sampled) == rows
        if counts is None:
            there = sampled.drop_nulls()
            counts = pl.DataFrame({"value": there}).group_by("value").len("count")
        found |= {"distinct": counts.height} if whole else {**self._distinct.facts(), "sample": len(sampled)}
        counts = counts.with_columns(pl.col("count").cast(pl.Int64))
        if not self.field.personal:
            found |= self._of_values(counts, rows)
        if self.field.kind == "text" and counts.height:
            found["shapes"] = _shapes(counts)
        return found

    def _of_values(self, counts: pl.DataFrame, rows: int) -> Facts:
        found: Facts = {}
        if self.smallest is not None:
            found |= {"min": _plain(self.smallest), "max": _plain(self.largest)}
            middle = _quantiles(counts)
            found["quantiles"] = [_plain(value) for value in (self.smallest, *middle[1:-1], self.largest)]
            if self.field.kind == "number":
                found["mean"] = _plain(self.total / (rows - self.empty))
        top = counts.sort(["count", "value"], descending=[True, False], maintain_order=True)
        if top.height > KEPT:
            top = top.filter(pl.col("count") >= RARE)
        found["top"] = [[_plain(value), count] for value, count in top.head(KEPT).iter_rows()]
        return found


def _missing(known: Text) -> int:
    if known.codes is None:
        return known.values.null_count()
    if not known.values.null_count():
        return 0
    return int(np.bincount(known.codes.to_numpy(), minlength=len(known.values))[known.values.is_null().to_numpy()].sum())


class _Counts:
    """How often each value was seen, as long as there are few."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []
        self._height = 0

    def add(self, values: pl.Series, numbers: NDArray[np.int64] | None) -> bool:
        """Add values with their numbers, or one each. False where there are too many to go on."""
        if numbers is None:
            first = values.head(COUNTED)
            if len(values) > COUNTED and first.n_unique() > 0.5 * COUNTED:
                return False
            part = values.alias("value").to_frame().group_by("value").len("count")
        else:
            part = pl.DataFrame([values.alias("value"), pl.Series("count", numbers)])
        self._parts.append(part.with_columns(pl.col("count").cast(pl.Int64)))
        self._height += part.height
        if self._height > 2 * COUNTED:
            self._merge()
        return self._height <= 2 * COUNTED

    def _merge(self) -> None:
        whole = pl.concat(self._parts).group_by("value").agg(pl.col("count").sum())
        self._parts, self._height = [whole], whole.height

    def frame(self) -> pl.DataFrame | None:
        """``value`` and ``count``, each value once; None where nothing was seen, or too many values."""
        if not self._parts:
            return None
        self._merge()
        return self._parts[0] if self._height <= COUNTED else None


class _Distinct:
    """How many distinct values there are, by the smallest of their hashes."""

    def __init__(self) -> None:
        self._kept: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._whole = True

    def add(self, values: pl.Series) -> None:
        hashes = values.hash(_SEED).to_numpy()
        if not self._whole:
            hashes = hashes[hashes < self._kept[-1]]
            if not len(hashes):
                return
        kept = np.unique(np.concatenate([self._kept, hashes]))
        if len(kept) > SKETCH:
            kept, self._whole = kept[:SKETCH], False
        self._kept = kept

    def facts(self) -> Facts:
        if self._whole:
            return {"distinct": len(self._kept)}
        estimate = (SKETCH - 1) / (float(self._kept[-1]) / 2**64)
        return {"distinct": round(estimate), "distinct_error": round(1 / math.sqrt(SKETCH - 2), 4)}


def _quantiles(counts: pl.DataFrame) -> list[Any]:
    """Of values with their counts: at each level the smallest value with at least that share of all up to it."""
    ordered = counts.sort("value")
    upto = np.cumsum(ordered["count"].to_numpy())
    places = np.searchsorted(upto, np.maximum(1, np.ceil(np.array(LEVELS) * upto[-1])))
    return ordered["value"].gather(np.minimum(places, len(upto) - 1)).to_list()


_SHAPES = (
    (r"[ก-\x{0E3A}\x{0E40}-\x{0E4E}]+", "ก"),
    (r"[\d๐-๙]", "9"),
    (r"[A-Z]+", "A"),
    (r"[a-z]+", "a"),
    (r"\s", " "),
    (r"[^กAa9 !-/:-@\[-`{-~]+", "?"),
)
"""In this order: a run of Thai letters, each digit, runs of Latin letters, white space, runs of anything else."""


def shape_of(text: pl.Expr) -> pl.Expr:
    """The shape of text: ``ก`` for a run of Thai letters, ``A`` and ``a`` of Latin ones, ``9`` for each digit; punctuation stays,
    anything else is ``?``. Nothing of the letters and digits can be told from it.
    """
    for pattern, symbol in _SHAPES:
        text = text.str.replace_all(pattern, symbol)
    return text.str.slice(0, LONGEST)


def _shapes(counts: pl.DataFrame) -> list[list[Any]]:
    text = pl.col("value").cast(pl.String)
    # Identifiers are most of what is looked at, and need one pattern of the six.
    digits = bool(counts.select(text.str.contains("^[0-9]+$").all())[0, 0])
    shape = text.str.replace_all("[0-9]", "9").str.slice(0, LONGEST) if digits else shape_of(text)
    found = counts.group_by(shape.alias("shape")).agg(pl.col("count").sum())
    found = found.sort(["count", "shape"], descending=[True, False]).head(KEPT)
    return [[shape, count] for shape, count in found.iter_rows()]


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.12g}")
    if isinstance(value, str):
        value = value.replace("\0", "")
        return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
    return value


def profile_rows(fields: Sequence[Field], batches: Iterable[pl.DataFrame]) -> dict[str | None, Facts]:
    """The facts of rows that come as frames with the columns ``fields`` name."""
    gathering, seen = Gathering(fields), 0
    for frame in batches:
        gathering.add({name: Text(frame[name]) for name in frame.columns}, pl.int_range(seen, seen + frame.height, eager=True))
        seen += frame.height
    return gathering.facts()


_TYPES: Mapping[str, Kind] = {
    "int2": "number", "int4": "number", "int8": "number", "numeric": "number", "float4": "number", "float8": "number",
    "date": "date", "timestamp": "timestamp", "timestamptz": "timestamp", "bool": "boolean",
}  # fmt: skip
_FRAMES: Mapping[Kind, tuple[str, type[pl.DataType]]] = {
    "text": ("{}::text", pl.String),
    "number": ("{}::float8", pl.Float64),
    "date": ("{}::date", pl.Date),
    "timestamp": ("{}::timestamp", pl.Datetime),
    "boolean": ("{}", pl.Boolean),
}
_BATCH = 20_000


def profile_table(
    reader: Connection, connection: Connection, target: str, open_columns: Container[str], *, write: int | None = None
) -> Profile | None:
    """Profile a built table, ``schema.name``, that ``reader`` may read, and keep it in the transaction of ``connection``; None
    where it has no columns.

    ``open_columns``: those of which values may be kept; of all others only counts and shapes are. ``write``: the write that the
    table is of; a write that was profiled is not profiled again.
    """
    schema, _, name = target.partition(".")
    found = reader.execute(
        "select a.attname, t.typname from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid"
        " where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped order by a.attnum",
        (f"{sql.Identifier(schema, name).as_string(reader)}",),
    ).fetchall()
    if not found:
        return None
    if write is not None:
        known = connection.execute("select exists (select from quality.profile where write_id = %s)", (write,)).fetchone()
        if known and known[0]:
            return latest(connection, target)
    fields = [Field(column, _TYPES.get(kind, "text"), column not in open_columns, column, column) for column, kind in found]
    chosen = sql.SQL(", ").join(sql.SQL(_FRAMES[field.kind][0]).format(sql.Identifier(field.name)) for field in fields)
    frames = {field.name: _FRAMES[field.kind][1] for field in fields}

    def batches() -> Iterator[pl.DataFrame]:
        with reader.cursor(name="profile") as cursor:
            cursor.execute(sql.SQL("select {} from {}").format(chosen, sql.Identifier(schema, name)))
            while rows := cursor.fetchmany(_BATCH):
                yield pl.DataFrame(rows, schema=frames, orient="row")

    keep(connection, target, profile_rows(fields, batches()), write=write)
    return latest(connection, target)
