"""Planting known defects among good rows, and the answer key that remembers them.

What belongs here: how a defect gets its place in a delivery and its line in the key. Which defects a dataset
gets is said in :mod:`dopa_pipelines.demo.department`. The platform's enforcement isn't imported: the key
states what was planted, not what the platform makes of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar

from dopa_pipelines.demo.forms import write_whole

Record = dict[str, Any]
Keep = Literal["first", "last", "none"]
Row = TypeVar("Row")

RATE = 0.007
"""Planted rows as a share of a dataset's rows, unless each kind would come up less than twice."""


@dataclass(frozen=True)
class Recipe:
    """One way to spoil a row.

    ``change`` gets a good record with a key of its own and a serial number, and returns the spoiled one.
    ``edit`` spoils the line after it is written (bytes). With neither, the row is a copy of another row's
    key.
    """

    reason: str
    change: Callable[[Record, int], Record] | None = None
    edit: Callable[[bytes, int], bytes] | None = None


@dataclass(frozen=True)
class Plant:
    """A spoiled record and where among the good rows it may stand: before good row ``low`` at the
    earliest, ``high`` at the latest.
    """

    reason: str
    record: Record
    low: int
    high: int
    serial: int
    edit: Callable[[bytes, int], bytes] | None = None


@dataclass(frozen=True)
class Defect:
    """One planted row. ``row``: line of a text file (header is line 1), row of a sheet, ordinal of a
    served record; all from 1.
    """

    dataset: str
    file: str
    row: int
    reason: str


@dataclass
class Totals:
    """What a dataset's deliveries hold: ``rows`` (planted ones included), ``defects`` among them,
    ``layout`` rows (blank, totals).
    """

    rows: int = 0
    defects: int = 0
    layout: int = 0
    files: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


@dataclass
class AnswerKey:
    """Every planted row and its reason, and the totals of each dataset."""

    seed: int
    persons: int
    defects: list[Defect] = field(default_factory=list)
    totals: dict[str, Totals] = field(default_factory=dict)

    def reasons(self, dataset: str) -> dict[str, int]:
        """How many rows of ``dataset`` were planted for each reason."""
        return dict(sorted(Counter(found.reason for found in self.defects if found.dataset == dataset).items()))

    def record(self, dataset: str, file: str, rows: int, planted: Sequence[tuple[int, str]], layout: int = 0) -> None:
        """Add one delivery: ``planted`` holds (row, reason)."""
        self.defects += [Defect(dataset, file, row, reason) for row, reason in planted]
        totals = self.totals.setdefault(dataset, Totals())
        totals.rows += rows
        totals.defects += len(planted)
        totals.layout += layout
        totals.files.append(file)

    def write(self, folder: Path) -> None:
        """Write ``answer_key.jsonl`` (a planted row a line) and ``answer_key.json`` (arguments and
        totals).
        """
        lines = "".join(json.dumps(asdict(found), ensure_ascii=False) + "\n" for found in self.defects)
        write_whole(folder / "answer_key.jsonl", lines.encode())
        totals = {name: asdict(found) | {"reasons": self.reasons(name)} for name, found in self.totals.items()}
        summary = {"seed": self.seed, "persons": self.persons, "datasets": totals}
        write_whole(folder / "answer_key.json", json.dumps(summary, ensure_ascii=False, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> AnswerKey:
        """The key that ``write`` left in ``folder``."""
        summary = json.loads((folder / "answer_key.json").read_text("utf-8"))
        totals = {name: {k: v for k, v in found.items() if k != "reasons"} for name, found in summary["datasets"].items()}
        lines = (folder / "answer_key.jsonl").read_text("utf-8").splitlines()
        return cls(
            seed=summary["seed"],
            persons=summary["persons"],
            defects=[Defect(**json.loads(line)) for line in lines],
            totals={name: Totals(**found) for name, found in totals.items()},
        )


class Planter:
    """Spoils rows of one dataset, dealt out over its deliveries.

    ``fresh`` gives a record a key that nobody else has; ``keep`` is which of duplicates the contract keeps.
    """

    def __init__(
        self, rng: Random, recipes: Sequence[Recipe], rows: int, files: int, fresh: Callable[[Record, int],
        Record], keep: Keep = "first",
    ) -> None:  # fmt: skip
        ways = Counter(recipe.reason for recipe in recipes)
        share = rows * RATE / len(recipes)
        drawn = [recipe for recipe in recipes for _ in range(max(1 if ways[recipe.reason] > 1 else 2, round(share)))]
        rng.shuffle(drawn)
        self._rng = rng
        self._fresh = fresh
        self._keep = keep
        self._serial = 0
        self._hands = [drawn[hand::files] for hand in range(files)]

    def plant(self, count: int, template: Callable[[int], Record]) -> list[Plant]:
        """The plants of the next delivery, which has ``count`` good rows; ``template`` gives a good row as
        a record.
        """
        recipes = self._hands.pop(0)
        templates = self._rng.sample(range(count), len(recipes))
        planted: list[Plant] = []
        for recipe, position in zip(recipes, templates, strict=True):
            self._serial += 1
            serial = self._serial
            record = template(position)
            if recipe.change is None and recipe.edit is None:
                if self._keep == "none":
                    pair = self._fresh(record, serial)
                    planted += [Plant(recipe.reason, pair, 0, count, serial) for _ in range(2)]
                elif self._keep == "first":
                    planted.append(Plant(recipe.reason, record, position + 1, count, serial))
                else:
                    planted.append(Plant(recipe.reason, record, 0, position, serial))
                continue
            record = self._fresh(record, serial)
            if recipe.change:
                record = recipe.change(dict(record), serial)
            planted.append(Plant(recipe.reason, record, 0, count, serial, recipe.edit))
        return planted

    def place(
        self, good: Sequence[Row], plants: Sequence[Plant], spoiled: Sequence[Row]
    ) -> tuple[list[Row], list[tuple[int, str]]]:
        """All rows in their final order, and (ordinal from 1, reason) of the spoiled ones; ``spoiled``
        renders ``plants``.
        """
        slots = [(self._rng.randint(plant.low, plant.high), number) for number, plant in enumerate(plants)]
        rows: list[Row] = []
        answers: list[tuple[int, str]] = []
        done = 0
        for slot, number in sorted(slots):
            rows += good[done:slot]
            done = slot
            rows.append(spoiled[number])
            answers.append((len(rows), plants[number].reason))
        rows += good[done:]
        return rows, answers
