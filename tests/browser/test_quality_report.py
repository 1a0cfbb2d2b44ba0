"""The report of quality as a person sees it: on a wide and a narrow screen, and on paper."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

from dopa_pipelines.quality import report, scores
from dopa_pipelines.warehouse import Role, Warehouse

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Debian's chromium is not installed")


def test_the_report_fits_its_screen_and_shows_its_radars(
    table: Callable[..., Any], warehouse: Warehouse, tmp_path: Path
) -> None:  # fmt: skip
    column = {"name": "code", "primaryKey": True, "primaryKeyPosition": 1}
    first, second = (table(name, [column]) for name in ("seen_first", "seen_second"))
    for made in (first, second):
        made.deliver("code\na\nb\n", f"{made.contract.dataset}.csv")
    chosen = [replace(first.contract, title_th="ทะเบียนราษฎร", key_dataset=True), replace(second.contract, bureau="other")]
    with warehouse.connect(Role.LOADER) as connection:
        for contract in chosen:
            scores.score(connection, contract, day=date(2026, 11, 25))
        page_file = tmp_path / "quality.html"
        page_file.write_text(report.as_html(report.gather(connection, chosen)), "utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        asked: list[str] = []
        for width in (1280, 400):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("request", lambda request: asked.append(request.url))
            page.goto(page_file.as_uri())
            expect(page.get_by_role("heading", level=1)).to_contain_text("กรมการปกครอง")
            expect(page.get_by_text("ทะเบียนราษฎร").first).to_be_visible()
            radars = page.get_by_role("img", name="Timeliness")
            assert radars.count() == 5  # the department, two bureaus, two datasets
            for place in range(5):
                box = radars.nth(place).bounding_box()
                assert box is not None
                assert box["width"] > 150
                assert box["x"] + box["width"] <= width
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert asked == [page_file.as_uri()] * 2
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
        browser.close()
