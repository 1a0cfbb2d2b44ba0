"""Traces of columns as pictures: tables from left to right in layers, their columns as rows, the path in question emphasised.

Belongs here: what of a walk is drawn, a layered layout (Sugiyama: layers by longest path, order by barycentres), SVG, HTML, DOT.
Does not belong here: the walk itself (``columntrace``). Pictures are made without other programs, hold no scripts and refer to
nothing outside themselves, unless they are drawn with links.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from statistics import fmean

from dopa_pipelines.lineage.classes import WHATS, Class
from dopa_pipelines.lineage.columntrace import ColumnWalk, Definition, Place, how, problem_text, source_of, target_of
from dopa_pipelines.lineage.model import ColumnEdge
from dopa_pipelines.lineage.naming import DatasetName, is_project_file
from dopa_pipelines.lineage.trace import BANGKOK

MAX_ROWS = 450
"""A picture with more columns on the walk shows tables only, but for the columns of the dataset in question."""
MAX_INDIRECT = 80
"""More edges that only decide rows or values are counted and not drawn."""
_MANY = 300

FONT = "'Noto Sans Thai', 'Sarabun', 'Noto Sans', 'Leelawadee UI', 'Thonburi', 'Tahoma', sans-serif"
_HEAD, _ROW, _GAP, _BETWEEN, _MARGIN, _TOP = 38.0, 19.0, 22.0, 84.0, 24.0, 64.0
_DUMMY = 8.0
_SWEEPS = 12


Link = Callable[[str, "str | None"], str]
"""The address of a table's own page, by its label, or of a column's."""


@dataclass(frozen=True)
class Words:
    """What a picture says, in one language; figures are filled in by ``format``."""

    up: str
    down: str
    both: str
    as_of: str
    made_by: Mapping[str, str]
    ways: Mapping[str, str]
    masked: str
    unresolved: str
    columns: str
    more_columns: str
    personal_columns: str
    values: str
    decides: str
    contract: str
    derived: str
    classes: Mapping[str, str]
    only_some: str
    not_drawn: str
    beyond: str
    folded: str
    end: str

    def way(self, edge: ColumnEdge) -> str:
        """``aggregation, masked``."""
        if not self.ways:
            return how(edge)
        return f"{self.ways.get(edge.subtype, edge.subtype.lower())}{self.masked if edge.masking else ''}"


ENGLISH = Words(
    up="where it came from",
    down="where it went",
    both="where it came from and where it went",
    as_of=", as of {}",
    made_by={
        "load": "contract {}",
        "model": "model {}",
        "release": "release {}",
        "feed": "silo",
        "file": "file of the project",
        "": "elsewhere",
    },
    ways={},  # OpenLineage's own
    masked=", masked",
    unresolved="not resolved: {}",
    columns="{} columns",
    more_columns="{} more columns",
    personal_columns=", {} with personal data",
    values="values",
    decides="only decides rows or values",
    contract="personal data, as the contract says",
    derived="made from personal data",
    classes={what: said.english for what, said in WHATS.items()},
    only_some="{:,} columns are on the path: only those of {} are drawn",
    not_drawn="{:,} edges that only decide rows or values are not drawn",
    beyond="{:,} further edges lie beyond the depth asked for",
    folded="{:,} columns that are not on the path are folded up",
    end=".",
)
THAI = Words(
    up="มาจากไหน",
    down="นำไปใช้ที่ไหน",
    both="มาจากไหน และนำไปใช้ที่ไหน",
    as_of=" ณ {}",
    made_by={
        "load": "สัญญาข้อมูล {}", "model": "แบบจำลอง {}", "release": "ชุดเผยแพร่ {}", "feed": "ระบบต้นทาง", "file": "ไฟล์ของโครงการ",
        "": "ระบบอื่น",
    },
    ways={
        "IDENTITY": "คัดลอก", "TRANSFORMATION": "แปลงค่า", "AGGREGATION": "สรุปรวม", "JOIN": "เชื่อมตาราง", "FILTER": "คัดเลือก",
        "GROUP_BY": "จัดกลุ่ม", "SORT": "เรียงลำดับ", "WINDOW": "ช่วงแถว", "CONDITIONAL": "เงื่อนไข",
    },
    masked=" (ปกปิด)",
    unresolved="ระบุที่มาไม่ได้: {}",
    columns="{} คอลัมน์",
    more_columns="อีก {} คอลัมน์",
    personal_columns=" มีข้อมูลส่วนบุคคล {}",
    values="ค่าข้อมูล",
    decides="มีผลเพียงว่าจะมีแถวหรือค่าใด",
    contract="ข้อมูลส่วนบุคคลตามสัญญาข้อมูล",
    derived="ได้มาจากข้อมูลส่วนบุคคล",
    classes={what: said.thai for what, said in WHATS.items()},
    only_some="มี {:,} คอลัมน์บนเส้นทาง แสดงเฉพาะคอลัมน์ของ {}",
    not_drawn="ไม่แสดง {:,} เส้นที่มีผลเพียงว่าจะมีแถวหรือค่าใด",
    beyond="มีอีก {:,} เส้นที่อยู่ไกลกว่าจำนวนชั้นที่เลือก",
    folded="ย่อ {:,} คอลัมน์ที่ไม่อยู่บนเส้นทาง",
    end="",
)  # fmt: skip


@dataclass
class Row:
    """A column as it is drawn. ``ways``: how it came about; ``mark``: ``contract`` or ``derived`` where it holds personal data;
    ``path``: whether values of the path in question go through it; ``known``: what it is by its lineage."""

    name: str
    path: bool = False
    mark: str | None = None
    known: Class | None = None
    ways: list[str] = field(default_factory=list)


@dataclass
class Table:
    """A dataset as it is drawn.

    ``more``: columns that are not, ``more_marked`` of them with personal data; ``note``: what it was made by; ``known``: whether
    anything but its name is.
    """

    dataset: DatasetName
    label: str
    kind: str
    note: str = ""
    known: bool = False
    root: bool = False
    problem: str = ""
    rows: dict[str, Row] = field(default_factory=dict)
    more: int = 0
    more_marked: int = 0
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0

    @property
    def height(self) -> float:
        return _HEAD + _ROW * (len(self.rows) + bool(self.more)) + (6 if self.rows or self.more else 0)

    def port(self, column: str | None) -> float:
        """The height at which an edge of a column meets the table; the title where the column is not drawn."""
        place = list(self.rows).index(column) if column is not None and column in self.rows else None
        return self.y + (_HEAD / 2 if place is None else _HEAD + _ROW * (place + 0.5))


@dataclass(frozen=True)
class Line:
    source: DatasetName
    source_column: str | None
    target: DatasetName
    target_column: str | None
    direct: bool
    title: str


@dataclass
class Picture:
    """What is drawn, laid out. ``notes``: what was left out."""

    title: str
    tables: dict[DatasetName, Table]
    lines: list[Line]
    notes: list[str]
    made: list[tuple[str, Definition]]
    words: Words = ENGLISH
    bends: dict[tuple[DatasetName, DatasetName], list[tuple[float, float, float]]] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0


def picture(walks: Sequence[ColumnWalk], words: Words = ENGLISH) -> Picture:
    """The picture of one walk, or of one up and one down from the same place."""
    labels = {name: label for walk in walks for name, label in walk.labels.items()}
    definitions = {name: made for walk in walks for name, made in walk.definitions.items()}
    marks = {place: mark for walk in walks for place, mark in walk.marks().items()}
    classes = {
        Place(name, column): item for walk in walks for name, found in walk.classes.items() for column, item in found.items()
    }
    roots = {walk.root for walk in walks}
    places = dict.fromkeys(place for walk in walks for place in walk.distance if place.column is not None)
    direct = dict.fromkeys(edge for walk in walks for edge in walk.edges)
    indirect = dict.fromkeys(edge for walk in walks for edge in walk.indirect)
    notes: list[str] = []
    whole = len(places) > MAX_ROWS
    if whole:
        kept = {root.dataset for root in roots}
        notes.append(words.only_some.format(len(places), _list(labels[name] for name in kept)))
        places = dict.fromkeys(place for place in places if place.dataset in kept)
    if len(indirect) > MAX_INDIRECT or whole:
        if indirect:
            notes.append(words.not_drawn.format(len(indirect)))
        indirect = {}
    if hidden := sum(sum(walk.hidden.values()) for walk in walks):
        notes.append(words.beyond.format(hidden))

    met = dict.fromkeys(
        [place.dataset for walk in walks for place in walk.distance]
        + [name for edge in [*direct, *indirect] for name in (edge.source, edge.target)]
    )
    tables = {name: _table(name, labels.get(name, name.name), definitions.get(name), roots, words) for name in met}
    for place in places:
        tables[place.dataset].rows[str(place.column)] = Row(str(place.column), True, marks.get(place), classes.get(place))
    for edge in indirect:
        for place in (source_of(edge), target_of(edge)):
            if place.column is not None:
                tables[place.dataset].rows.setdefault(
                    place.column, Row(place.column, False, marks.get(place), classes.get(place))
                )
    for edge in direct:
        row = tables[edge.target].rows.get(str(edge.target_column))
        if row is not None and words.way(edge) not in row.ways:
            row.ways.append(words.way(edge))
    collapsed = 0
    for name, table in tables.items():
        columns = definitions[name].columns if name in definitions else ()
        order = {column: number for number, column in enumerate(columns)}
        table.rows = dict(sorted(table.rows.items(), key=lambda item: order.get(item[0], len(order))))
        folded = [column for column in columns if column not in table.rows]
        table.more, table.more_marked = len(folded), sum(Place(name, column) in marks for column in folded)
        collapsed += table.more
    if collapsed and not whole:
        notes.append(words.folded.format(collapsed))
    lines = dict.fromkeys(
        [
            Line(
                edge.source, _drawn(tables, source_of(edge)), edge.target, _drawn(tables, target_of(edge)), is_direct,
                words.way(edge) if not whole else "",
            )
            for found, is_direct in ((direct, True), (indirect, False))
            for edge in found
            if edge.source != edge.target
        ]
    )  # fmt: skip
    made = Picture(
        _title(walks, labels, words), tables, list(lines), notes, [(labels[n], d) for n, d in definitions.items() if n in met],
        words,
    )  # fmt: skip
    _lay_out(made)
    return made


def _drawn(tables: Mapping[DatasetName, Table], place: Place) -> str | None:
    return place.column if place.column in tables[place.dataset].rows else None


def _table(name: DatasetName, label: str, definition: Definition | None, roots: set[Place], words: Words) -> Table:
    made = Table(name, label, definition.kind if definition else "external", root=any(name == root.dataset for root in roots))
    if definition is None:
        return made
    made.known = True
    made.note = made_by(definition, words)
    made.problem = problem_text(definition.problem) if definition.problem else ""
    return made


def made_by(definition: Definition, words: Words = ENGLISH) -> str:
    """``contract 1.0.0``, ``model 1a2b3c4d``, ``release 2026-11-25-e24ef19f``, ``silo``."""
    version = definition.version or ""
    kind = "file" if definition.kind == "feed" and is_project_file(definition.dataset) else definition.kind
    said = words.made_by.get(kind, words.made_by[""])
    return said.format(version[:8] if kind == "model" else version)


def _title(walks: Sequence[ColumnWalk], labels: Mapping[DatasetName, str], words: Words) -> str:
    root = walks[0].root
    name = f"{labels[root.dataset]}{f'.{root.column}' if root.column else ''}"
    ways = words.both if len(walks) > 1 else words.up if walks[0].direction == "up" else words.down
    when = words.as_of.format(f"{walks[0].at.astimezone(BANGKOK):%Y-%m-%d %H:%M}") if walks[0].at else ""
    return f"{name}: {ways}{when}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


# Layout


def _lay_out(made: Picture) -> None:
    layers = _layers(made)
    names = sorted(made.tables, key=lambda name: (layers[name], made.tables[name].label))
    count = max(layers.values(), default=0) + 1
    # What a long edge passes is a place of its own in the layers between: it is led around tables, not behind them.
    columns: list[list[object]] = [[] for _ in range(count)]
    for name in names:
        columns[layers[name]].append(name)
    up: dict[object, list[object]] = {}
    down: dict[object, list[object]] = {}
    passes: dict[tuple[DatasetName, DatasetName], list[object]] = {}
    for pair in dict.fromkeys((line.source, line.target) for line in made.lines):
        source, target = pair
        if layers[source] >= layers[target]:
            continue
        chain: list[object] = [source]
        for layer in range(layers[source] + 1, layers[target]):
            dummy = (source, target, layer)
            columns[layer].append(dummy)
            chain.append(dummy)
        chain.append(target)
        passes[pair] = chain[1:-1]
        for before, after in pairwise(chain):
            down.setdefault(before, []).append(after)
            up.setdefault(after, []).append(before)
    _order(columns, up, down)

    heights = {item: made.tables[item].height if item in made.tables else _DUMMY for column in columns for item in column}  # type: ignore[index]
    centres = _heights(columns, up, down, heights)
    top = min((centres[item] - heights[item] / 2 for item in centres), default=0.0)
    x = _MARGIN
    across: list[tuple[float, float]] = []
    for column in columns:
        width = max((_table_width(made.tables[item], made.words) for item in column if item in made.tables), default=40.0)  # type: ignore[index]
        for item in column:
            if item in made.tables:
                table = made.tables[item]  # type: ignore[index]
                table.x, table.width = x, width
                table.y = _TOP + centres[item] - heights[item] / 2 - top
        across.append((x, width))
        x += width + _BETWEEN
    for pair, chain in passes.items():
        made.bends[pair] = [
            (*across[layers[pair[0]] + 1 + place], _TOP + centres[dummy] - top) for place, dummy in enumerate(chain)
        ]
    made.width = max(x - _BETWEEN + _MARGIN, 720.0)
    bottom = max((_TOP + centres[item] + heights[item] / 2 - top for item in centres), default=_TOP)
    made.height = bottom + _MARGIN + 20 + 18 * (len(made.notes) + 1)


def _layers(made: Picture) -> dict[DatasetName, int]:
    """The layer of each table: one after its last source, and no further left than what it goes into needs."""
    targets: dict[DatasetName, set[DatasetName]] = {name: set() for name in made.tables}
    for line in made.lines:
        targets[line.source].add(line.target)
    order: list[DatasetName] = []
    state: dict[DatasetName, int] = {}
    for start in sorted(made.tables):
        stack = [(start, iter(sorted(targets[start])))]
        if start in state:
            continue
        state[start] = 1
        while stack:
            name, further = stack[-1]
            for other in further:
                if other not in state:
                    state[other] = 1
                    stack.append((other, iter(sorted(targets[other]))))
                    break
                if state[other] == 1:
                    targets[name] = targets[name] - {other}  # a circle: drawn backwards
            else:
                state[name] = 2
                order.append(name)
                stack.pop()
    order.reverse()
    layers = dict.fromkeys(made.tables, 0)
    for name in order:
        for other in targets[name]:
            layers[other] = max(layers[other], layers[name] + 1)
    for name in reversed(order):
        if targets[name]:
            layers[name] = min(layers[other] for other in targets[name]) - 1
    return layers


def _order(columns: list[list[object]], up: Mapping[object, list[object]], down: Mapping[object, list[object]]) -> None:
    """Put what belongs together at the same height, so that few edges cross."""
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        near = up if forward else down
        numbers = range(1, len(columns)) if forward else range(len(columns) - 2, -1, -1)
        for number in numbers:
            beside = columns[number - 1 if forward else number + 1]
            place = {item: (position + 0.5) / len(beside) for position, item in enumerate(beside)}
            own = {item: (position + 0.5) / len(columns[number]) for position, item in enumerate(columns[number])}
            wanted = {
                item: fmean(found) if (found := [place[other] for other in near.get(item, ()) if other in place]) else own[item]
                for item in columns[number]
            }
            columns[number].sort(key=wanted.__getitem__)


def _heights(
    columns: Sequence[Sequence[object]],
    up: Mapping[object, list[object]],
    down: Mapping[object, list[object]],
    heights: Mapping[object, float],
) -> dict[object, float]:
    """Where the middle of each table is: as near as can be to those it is joined with, none over another."""
    centres: dict[object, float] = {}
    for column in columns:
        y = 0.0
        for item in column:
            centres[item] = y + heights[item] / 2
            y += heights[item] + _GAP
    for sweep in range(_SWEEPS):
        ordered = columns if sweep % 2 == 0 else list(reversed(columns))
        for column in ordered:
            wanted = [
                fmean(near) if (near := [centres[other] for other in (*up.get(item, ()), *down.get(item, ()))]) else centres[item]
                for item in column
            ]
            for item, centre in zip(column, _apart(wanted, [heights[item] for item in column]), strict=True):
                centres[item] = centre
    return centres


def _apart(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """The middles nearest to those wanted that keep order and gaps (least squares: pool adjacent violators)."""
    offsets = [0.0]
    for before, after in pairwise(heights):
        offsets.append(offsets[-1] + (before + after) / 2 + _GAP)
    blocks: list[tuple[float, int]] = []
    for target, offset in zip(wanted, offsets, strict=False):
        mean, count = target - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, size = blocks.pop()
            mean, count = (other * size + mean * count) / (size + count), size + count
        blocks.append((mean, count))
    means = [mean for mean, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]


def text_width(text: str, size: float = 12.0) -> float:
    """About how wide a text is, in pixels, in a wide font; Thai vowels and tone marks stand above or below their letter."""
    units = 0.0
    for letter in text:
        if unicodedata.category(letter) in ("Mn", "Cf"):
            continue
        units += 0.38 if letter in "iljtfr.,:;'|! ()[]" else 0.92 if letter in "mwMW@—" else 0.7 if letter.isupper() else 0.63
    return units * size


def fitted(text: str, width: float, size: float = 12.0) -> str:
    """The text, cut off with an ellipsis where it is wider."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


_MAX_NAME, _MAX_TITLE = 250.0, 300.0
_BOLD = 1.1


def _ways(row: Row) -> str:
    return ", ".join(row.ways).lower()


def _class(row: Row, words: Words) -> str:
    """What stands beside its name: nothing where it is open or not known."""
    return "" if row.known is None or row.known.what == "open" else words.classes.get(row.known.what, row.known.what)


def _table_width(table: Table, words: Words) -> float:
    rows = [
        min(text_width(row.name) * _BOLD, _MAX_NAME)
        + text_width(_ways(row), 9.5)
        + text_width(_class(row, words), 9.5)
        + (52 if row.mark else 42)
        for row in table.rows.values()
    ]
    head = min(text_width(table.label, 13) * _BOLD, _MAX_TITLE) + 20
    return max([150.0, head, text_width(table.note, 10) + 24, text_width(_folded(table, words), 10) + 36, *rows])


# SVG

_STYLE = f"""
text {{ font-family: {FONT}; font-size: 12px; fill: #1f2933; }}
.title {{ font-size: 17px; font-weight: 600; }}
.small, .note, .way {{ font-size: 10px; fill: #52606d; }}
.way {{ font-size: 9.5px; text-anchor: end; }}
.is {{ font-size: 9.5px; fill: #52606d; }}
.is.protected {{ fill: #a3160d; font-weight: 600; }}
.box {{ fill: #ffffff; stroke: #9aa5b1; }}
.root .box {{ stroke: #0b5cad; stroke-width: 2.5; }}
.head {{ fill: #e4e9ef; }}
.feed .head {{ fill: #f3e3c3; }}
.load .head {{ fill: #dfe8d8; }}
.model .head {{ fill: #dbe7f5; }}
.release .head {{ fill: #d9d3ee; }}
.name {{ font-size: 13px; font-weight: 600; }}
.off {{ fill: #7b8794; }}
.path {{ font-weight: 600; }}
.asked {{ fill: #fff3bf; }}
.direct {{ fill: none; stroke: #0b5cad; stroke-width: 1.8; }}
.many .direct {{ stroke-width: 1; stroke-opacity: 0.35; }}
.many .asked-for {{ stroke-width: 1.8; stroke-opacity: 1; }}
.indirect {{ fill: none; stroke: #9aa5b1; stroke-width: 1; stroke-dasharray: 4 3; }}
.contract {{ fill: #c81e1e; stroke: #c81e1e; }}
.derived {{ fill: #ffffff; stroke: #c81e1e; stroke-width: 1.6; }}
.problem {{ fill: #b44d12; font-size: 10px; }}
""".strip()


LINKED_STYLE = f"""{_STYLE}
a .hit {{ fill: transparent; }}
a:hover .hit, a:focus-visible .hit {{ fill: #cfe3f7; }}
svg a:hover text, svg a:focus-visible text {{ fill: #0b5cad; text-decoration: underline; }}
svg a:focus-visible {{ outline: none; }}
"""
"""The style sheet within a picture that has links."""


def as_svg(made: Picture, link: Link | None = None) -> str:
    """The picture as a file of its own. With ``link``, tables and columns lead to their own pages, and the table in question has
    the id ``asked``."""
    width, height = f"{made.width:.0f}", f"{made.height:.0f}"
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    # To those who cannot see it, an image has no parts; a picture with links has.
    role = "img" if link is None else "group"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="{role}">',
        f"<title>{escape(made.title)}</title>",
        f"<style>{_STYLE if link is None else LINKED_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#f7f9fb"/>',
        f'<text class="title" x="{_MARGIN:.0f}" y="34">{escape(made.title)}</text>',
    ]
    # In a picture of many, only what leads to or from what was asked for stands out.
    parts.append(f'<g class="{"many" if len(made.lines) > _MANY else "few"}">')
    parts += [_line(made, line) for line in sorted(made.lines, key=lambda line: line.direct)]
    parts.append("</g>")
    for table in made.tables.values():
        parts += _box(table, made.words, link)
    parts += _legend(made)
    return "\n".join([*parts, "</svg>", ""])


def _line(made: Picture, line: Line) -> str:
    source, target = made.tables[line.source], made.tables[line.target]
    x, y = source.x + source.width, source.port(line.source_column)
    path = [f"M{x:.1f} {y:.1f}"]
    for left, width, height in made.bends.get((line.source, line.target), ()):
        path += [_curve(x, y, left, height), f"L{left + width:.1f} {height:.1f}"]
        x, y = left + width, height
    path.append(_curve(x, y, target.x, target.port(line.target_column)))
    title = f"{_end(source, line.source_column)} → {_end(target, line.target_column)}{f': {line.title}' if line.title else ''}"
    return f'<path class="{"direct" if line.direct else "indirect"}" d="{" ".join(path)}"><title>{escape(title)}</title></path>'


def _end(table: Table, column: str | None) -> str:
    return f"{table.label}.{column}" if column else table.label


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    bend = max(abs(to_x - x) / 2, 30.0)
    return f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"


def _box(table: Table, words: Words, link: Link | None) -> list[str]:
    x, y, width = table.x, table.y, table.width
    named = ' id="asked"' if table.root and link is not None else ""
    head = [
        f'<rect class="head" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{width - 2:.1f}" height="{_HEAD - 4:.1f}" rx="3"/>',
        f'<text class="name" x="{x + 9:.1f}" y="{y + 16:.1f}">{escape(fitted(table.label, (width - 18) / _BOLD, 13))}</text>',
    ]
    if table.problem:
        shown = fitted(words.unresolved.format(table.problem), width - 16, 10)
        head.append(f'<text class="problem" x="{x + 9:.1f}" y="{y + 29:.1f}">{escape(shown)}</text>')
    else:
        head.append(f'<text class="small" x="{x + 9:.1f}" y="{y + 29:.1f}">{escape(fitted(table.note, width - 16, 10))}</text>')
    parts = [
        f'<g{named} class="{table.kind}{" root" if table.root else ""}">',
        f"<title>{escape(' · '.join(filter(None, (table.label, table.note, table.problem))))}</title>",
        f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{table.height:.1f}" rx="4"/>',
        *_linked(head, table, None, link),
    ]
    for place, row in enumerate(table.rows.values()):
        parts += _linked(_row(table, row, y + _HEAD + _ROW * (place + 0.5), words, link is not None), table, row.name, link)
    if table.more:
        middle = y + _HEAD + _ROW * (len(table.rows) + 0.5)
        left = x + 9
        more = [] if link is None else [_hit(table, middle)]
        if table.more_marked:
            more.append(f'<circle class="contract" cx="{left + 3:.1f}" cy="{middle:.1f}" r="3.6"/>')
            left += 13
        more.append(f'<text class="note" x="{left:.1f}" y="{middle + 3.5:.1f}">{_folded(table, words)}</text>')
        parts += _linked(more, table, None, link)
    return [*parts, "</g>"]


def _row(table: Table, row: Row, middle: float, words: Words, hit: bool) -> list[str]:
    x, width = table.x, table.width
    parts = []
    if row.known and row.known.why and hit:
        parts.append(
            f"<title>{escape(f'{row.name}: {words.classes.get(row.known.what, row.known.what)} ({row.known.why})')}</title>"
        )
    left = x + 9
    if table.root and row.path:
        parts.append(
            f'<rect class="asked" x="{x + 2:.1f}" y="{middle - _ROW / 2:.1f}" width="{width - 4:.1f}" height="{_ROW:.1f}"/>'
        )
    if hit:
        parts.append(_hit(table, middle))
    if row.mark:
        parts.append(f'<circle class="{row.mark}" cx="{left + 3:.1f}" cy="{middle:.1f}" r="3.6"/>')
        left += 13
    name = escape(fitted(row.name, _MAX_NAME / _BOLD))
    parts.append(f'<text class="{"path" if row.path else "off"}" x="{left:.1f}" y="{middle + 4:.1f}">{name}</text>')
    if said := _class(row, words):
        left += min(text_width(row.name) * _BOLD, _MAX_NAME) + 6
        emphasis = " protected" if row.known and row.known.protected else ""
        parts.append(f'<text class="is{emphasis}" x="{left:.1f}" y="{middle + 3.5:.1f}">{escape(said)}</text>')
    if row.ways:
        parts.append(f'<text class="way" x="{x + width - 8:.1f}" y="{middle + 3.5:.1f}">{escape(_ways(row))}</text>')
    return parts


def _hit(table: Table, middle: float) -> str:
    """What a pointer meets, between the letters, too."""
    return (
        f'<rect class="hit" x="{table.x + 2:.1f}" y="{middle - _ROW / 2:.1f}" width="{table.width - 4:.1f}" height="{_ROW:.1f}"/>'
    )


def _linked(parts: list[str], table: Table, column: str | None, link: Link | None) -> list[str]:
    """``parts`` within a link to the page of the table or of its column, where there is one."""
    if link is None or not table.known:
        return parts
    return [f'<a href="{escape(link(table.label, column))}">', *parts, "</a>"]


def _folded(table: Table, words: Words) -> str:
    """``9 more columns, 2 with personal data``."""
    said = (words.more_columns if table.rows else words.columns).format(table.more)
    if table.more == 1:
        said = said.removesuffix("s")
    return f"{said}{words.personal_columns.format(table.more_marked)}" if table.more_marked else said


def _legend(made: Picture) -> list[str]:
    y = made.height - _MARGIN - 18 * len(made.notes)
    x = _MARGIN
    parts: list[str] = []
    for kind, words in (("direct", made.words.values), ("indirect", made.words.decides)):
        if kind == "direct" or any(not line.direct for line in made.lines):
            parts += [
                f'<path class="{kind}" d="M{x:.0f} {y - 4:.0f}h28"/>',
                f'<text class="small" x="{x + 34:.0f}" y="{y:.0f}">{words}</text>',
            ]
            x += 54 + text_width(words, 10)
    marks = {row.mark for table in made.tables.values() for row in table.rows.values()}
    marks |= {"contract" for table in made.tables.values() if table.more_marked}
    for mark, words in (("contract", made.words.contract), ("derived", made.words.derived)):
        if mark in marks:
            parts += [
                f'<circle class="{mark}" cx="{x + 4:.0f}" cy="{y - 4:.0f}" r="3.6"/>',
                f'<text class="small" x="{x + 13:.0f}" y="{y:.0f}">{words}</text>',
            ]
            x += 36 + text_width(words, 10)
    for place, note in enumerate(made.notes, start=1):
        parts.append(f'<text class="small" x="{_MARGIN:.0f}" y="{y + 18 * place:.0f}">{escape(note)}{made.words.end}</text>')
    return parts


# HTML and DOT

_FITS = 2400.0
"""A wider picture is scrolled; others are made to fit the window."""


def as_html(made: Picture) -> str:
    """The picture and what each dataset was made by, as a page of its own."""
    rows = "\n".join(
        f"<tr><td>{escape(label)}</td><td>{escape(made_by(item))}</td>"
        f"<td>{item.valid_from.astimezone(BANGKOK):%Y-%m-%d %H:%M}</td><td>{escape(str(item.code.get('path') or ''))}</td>"
        f"<td><code>{escape(str(item.code.get('checksum') or '')[:16])}</code></td>"
        f"<td>{escape(problem_text(item.problem) if item.problem else '')}</td></tr>"
        for label, item in sorted(made.made, key=lambda pair: pair[0])
    )
    title = escape(made.title)
    return f"""<!doctype html>
<html lang="th">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font-family: {FONT}; margin: 1.5rem; color: #1f2933; }}
.picture svg {{ {"max-width: 100%; height: auto;" if made.width <= _FITS else ""} }}
.picture {{ background: #f7f9fb; overflow: auto; border: 1px solid #cbd2d9; }}
table {{ border-collapse: collapse; margin-top: 1.5rem; font-size: 0.85rem; }}
th, td {{ text-align: left; padding: 0.25rem 0.9rem 0.25rem 0; border-bottom: 1px solid #e4e7eb; vertical-align: top; }}
</style>
</head>
<body>
<div class="picture">
{as_svg(made)}</div>
<table>
<thead><tr><th>Dataset</th><th>Made by</th><th>Since (Bangkok)</th><th>Code</th><th>SHA-256</th><th>Not resolved</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def as_dot(made: Picture) -> str:
    """The picture as Graphviz reads it; the layout is then Graphviz's own."""
    numbers = {name: f"t{number}" for number, name in enumerate(made.tables)}
    parts = [
        "digraph lineage {",
        f'  graph [rankdir=LR, label={_quoted(made.title)}, labelloc=t, fontname="Noto Sans Thai"];',
        '  node [shape=plaintext, fontname="Noto Sans Thai", fontsize=11];',
        '  edge [color="#0b5cad"];',
    ]
    for name, table in made.tables.items():
        rows = [
            f'<tr><td port="c{place}" align="left">{"● " if row.mark else ""}{escape(row.name)}</td></tr>'
            for place, row in enumerate(table.rows.values())
        ]
        if table.more:
            rows.append(f'<tr><td align="left"><i>{_folded(table, made.words)}</i></td></tr>')
        border = ' color="#0b5cad"' if table.root else ""
        parts.append(
            f'  {numbers[name]} [label=<<table border="0" cellborder="1" cellspacing="0"{border}>'
            f'<tr><td port="h" bgcolor="#e4e9ef"><b>{escape(table.label)}</b></td></tr>{"".join(rows)}</table>>];'
        )
    for line in made.lines:
        ends = []
        for name, column in ((line.source, line.source_column), (line.target, line.target_column)):
            place = list(made.tables[name].rows).index(column) if column else None
            ends.append(f"{numbers[name]}:{'h' if place is None else f'c{place}'}")
        style = f" [tooltip={_quoted(line.title)}{'' if line.direct else ', style=dashed, color=gray'}]"
        parts.append(f"  {ends[0]} -> {ends[1]}{style};")
    return "\n".join([*parts, "}", ""])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
