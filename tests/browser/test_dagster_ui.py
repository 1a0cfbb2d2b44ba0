"""The Dagster UI of the demo, as a person sees it in a browser."""

import os
import re
import signal
from typing import Any

import psutil
from playwright.sync_api import Page, expect

from .conftest import CHROMIUM, free_port, serve

pytestmark = CHROMIUM


def test_a_steward_sees_the_register_and_stops_the_server(own_demo: Any, page: Page) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    served = serve(own_demo, address, "up", "--port", str(port), "--portal-port", str(free_port()))
    try:
        page.set_default_timeout(30_000)
        page.goto(f"{address}/assets/raw/person_register")
        expect(page.get_by_text("ทะเบียนราษฎร").first).to_be_visible(timeout=30_000)
        expect(page.get_by_text("registration-technical@dopa.example").first).to_be_visible()
        expect(page.get_by_text("2,000", exact=True).first).to_be_visible()
        expect(page.get_by_text("pdpa_role: direct_identifier").first).to_be_visible()
        page.goto(f"{address}/assets/raw/person_register?view=checks")
        expect(page.get_by_text("reconciliation").first).to_be_visible()
        expect(page.get_by_text("blocking").first).to_be_visible()
        page.goto(f"{address}/assets/raw/birth_event?view=partitions")
        expect(page.get_by_text(re.compile("2025-12")).first).to_be_visible()
        page.goto(f"{address}/asset-groups")
        for group in ("registration", "legal_affairs", "marts", "releases"):
            expect(page.get_by_text(group, exact=True).first).to_be_visible()
        page.goto(f"{address}/automation")
        expect(page.get_by_text("nightly_schedule").first).to_be_visible()
        assert served.poll() is None
    finally:
        children = psutil.Process(served.pid).children(recursive=True)
        os.kill(served.pid, signal.SIGINT)
        code = served.wait(timeout=40)
        if served.stderr is not None:
            served.stderr.close()
    assert code == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert [process.cmdline() for process in alive if "_watcher" not in " ".join(process.cmdline())] == []
