"""Draw ``docs/pictures/unusual-rows.svg``: the rows of a generated history, what was expected of each, and what was told.

``python -m benchmarks.quality_picture``; the history is one of the measured kind, so that the picture shows what the method does.
"""

from __future__ import annotations

import math
from pathlib import Path

from dopa_pipelines.quality.unusual import Watch

TARGET = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "unusual-rows.svg"
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 900, 300, 60, 30, 40
SEED = 205


def draw() -> str:
    from tests.quality.histories import history

    made = history(SEED, "daily")
    watch = Watch(made.seen)
    # From March: Songkran is in it.
    places = [place for place in made.judged if 3 <= made.seen[place].day.month <= 6]
    verdicts = {place: watch.judge(place) for place in places}
    found = {place: next(item for item in verdict.findings if item.aspect == "rows") for place, verdict in verdicts.items()}
    most = max(max(item.value, item.high) for item in found.values()) * 1.05

    def x(place: int) -> float:
        return LEFT + (place - places[0]) * (WIDTH - LEFT - 20) / (len(places) - 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / most)

    upper = [f"{x(place):.1f},{y(found[place].high):.1f}" for place in places]
    lower = [f"{x(place):.1f},{y(found[place].low):.1f}" for place in reversed(places)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="18">Rows of each delivery (dots), the range expected (band), what was told (red)</text>',
        f'<polygon points="{" ".join(upper + lower)}" fill="#cfe0f3"/>',
    ]
    step = 10 ** math.floor(math.log10(most)) / 2
    for value in (step * number for number in range(1, int(most / step) + 1)):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#555">{value:,.0f}</text>')
    for place in places:
        item, day = found[place], made.seen[place].day
        colour, size = ("#c62828", 5) if item.unusual else ("#1f4e79", 2.5)
        parts.append(f'<circle cx="{x(place):.1f}" cy="{y(item.value):.1f}" r="{size}" fill="{colour}"/>')
        if item.unusual:
            parts.append(
                f'<text x="{x(place) + 8:.1f}" y="{y(item.value) + 4:.1f}" fill="#c62828">{day:%-d %b}: {item.en}</text>'
            )
        if day.day == 1:
            parts.append(f'<text x="{x(place):.1f}" y="{HEIGHT - 12}" fill="#555">{day:%b %Y}</text>')
        if (day.month, day.day) == (4, 14):
            parts.append(f'<text x="{x(place):.1f}" y="{HEIGHT - 28}" text-anchor="middle" fill="#555">Songkran</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    TARGET.write_text(draw(), "utf-8")
