"""From an asset in the Dagster UI to the picture of its trace, and on from there, in a browser."""

import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect

from .conftest import CHROMIUM, free_port, serve

pytestmark = CHROMIUM


@pytest.fixture
def portal(own_demo: Any) -> Iterator[str]:
    """The address of a portal on the demo."""
    port = free_port()
    served = serve(own_demo, f"http://127.0.0.1:{port}", "portal", "--port", str(port))
    yield f"http://127.0.0.1:{port}"
    served.send_signal(signal.SIGINT)
    served.communicate(timeout=40)


@pytest.fixture
def complaints(page: Page) -> Iterator[list[str]]:
    """What the browser complained of, such as a style or script that the page's policy forbids."""
    found: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            found.append(message.text)

    page.on("console", hear)
    yield found


def test_an_engineer_goes_from_an_asset_to_the_trace_of_a_column(own_demo: Any, page: Page) -> None:
    port, portal_port = free_port(), free_port()
    portal = f"http://127.0.0.1:{portal_port}"
    served = serve(own_demo, f"http://127.0.0.1:{port}", "up", "--port", str(port), "--portal-port", str(portal_port))
    try:
        page.set_default_timeout(30_000)
        page.goto(f"http://127.0.0.1:{port}/assets/marts/hotels")
        # Each column's description leads to its own trace, the asset's metadata to that of the table.
        column = page.locator(f'a[href="{portal}/trace/marts.hotels.rooms"]').first
        expect(column).to_be_visible(timeout=30_000)
        expect(column).to_have_text("ที่มา / trace")
        link = page.locator(f'a[href="{portal}/trace/marts.hotels"]').first
        expect(link).to_be_visible()
        if link.get_attribute("target") == "_blank":
            with page.context.expect_page() as opened:
                link.click()
            page = opened.value
        else:
            link.click()
        expect(page).to_have_url(f"{portal}/trace/marts.hotels")
        expect(page.locator("svg #asked text", has_text="marts.hotels").first).to_be_visible()
        expect(page.locator("svg text", has_text="release:hotels_licensed").first).to_be_attached()
        page.locator("svg #asked a", has_text="hotel_name").click()
        expect(page).to_have_url(f"{portal}/trace/marts.hotels.hotel_name")
        expect(page.get_by_role("heading", level=1)).to_contain_text("marts.hotels.hotel_name")
        expect(page.locator("svg text", has_text="legal_affairs/hotel_licence").first).to_be_visible()
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=40)
    assert served.returncode == 0


def test_a_citizen_finds_a_file_and_where_it_came_from(portal: str, page: Page, complaints: list[str]) -> None:
    page.set_default_timeout(10_000)
    page.goto(portal)
    page.get_by_placeholder("ค้นหาชุดข้อมูล").fill("โรงแรม")
    page.get_by_role("button", name="ค้นหา").click()
    expect(page).to_have_url(re.compile("q="))
    page.get_by_role("link", name="โรงแรมที่มีใบอนุญาตประกอบธุรกิจ").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="hotels_licensed.csv", exact=True).click()
    assert download.value.suggested_filename == "hotels_licensed.csv"
    page.get_by_role("link", name="ที่มาของทุกคอลัมน์").click()
    expect(page.locator("svg #asked")).to_be_visible()
    # The picture has its own colours: its style sheet passed the page's policy.
    assert page.locator("svg .model .head").first.evaluate("it => getComputedStyle(it).fill") == "rgb(219, 231, 245)"
    page.get_by_label("ทิศทาง").select_option("up")
    page.get_by_label("จำนวนชั้น").fill("1")
    page.get_by_role("button", name="แสดง").click()
    expect(page.locator("svg g.model, svg g.release")).to_have_count(2)
    expect(page.get_by_text("อยู่ไกลกว่าจำนวนชั้นที่เลือก")).to_be_visible()
    # By keyboard, too.
    page.locator("svg #asked a").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("release:hotels_licensed.")
    expect(page).to_have_url(re.compile("direction=up&depth=1"))
    # A picture wider than the window is scrolled, the page is not.
    page.goto(f"{portal}/trace/raw.area_code")
    for size in ({"width": 1600, "height": 1000}, {"width": 400, "height": 800}):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), size
    assert complaints == []


def test_a_steward_goes_from_the_catalogue_to_the_repair_of_an_incident(portal: str, page: Page, complaints: list[str]) -> None:
    page.set_default_timeout(10_000)
    page.goto(portal)
    page.locator('#datasets a[href="/incidents?dataset=village_headman"]').click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("เหตุด้านคุณภาพข้อมูลที่ยังเปิดอยู่")
    page.get_by_role("link", name="end_after_start").click()
    expect(page).to_have_url(re.compile(r"/incidents/\d+$"))
    expect(page.locator("#repair li").first).to_contain_text("dopa quarantine explain village_headman")
    expect(page.locator("#rows tbody tr").first).to_contain_text("village_headman_2568")
    page.set_viewport_size({"width": 400, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.get_by_role("link", name="raw.village_headman").click()
    expect(page.locator("svg #asked")).to_be_visible()
    assert complaints == []
