"""The Dagster UI of the demo, as a person sees it in a browser."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Debian's chromium is not installed")


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser.new_page(viewport={"width": 1600, "height": 1000})
        browser.close()


def test_a_steward_sees_the_register_and_stops_the_server(own_demo: Any, page: Page) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = subprocess.Popen(
        [str(Path(sys.executable).with_name("dopa")), "up", "--port", str(port)],
        env=own_demo.environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert served.stderr is not None
        said = ""
        while f"http://127.0.0.1:{port}" not in said:
            line = served.stderr.readline()
            assert line, said
            said += line
        page.set_default_timeout(30_000)
        page.goto(f"http://127.0.0.1:{port}/assets/raw/person_register")
        expect(page.get_by_text("ทะเบียนราษฎร").first).to_be_visible(timeout=30_000)
        expect(page.get_by_text("registration-technical@dopa.example").first).to_be_visible()
        expect(page.get_by_text("2,000", exact=True).first).to_be_visible()
        expect(page.get_by_text("pdpa_role: direct_identifier").first).to_be_visible()
        page.goto(f"http://127.0.0.1:{port}/assets/raw/person_register?view=checks")
        expect(page.get_by_text("reconciliation").first).to_be_visible()
        expect(page.get_by_text("blocking").first).to_be_visible()
        page.goto(f"http://127.0.0.1:{port}/assets/raw/birth_event?view=partitions")
        expect(page.get_by_text(re.compile("2025-12")).first).to_be_visible()
        page.goto(f"http://127.0.0.1:{port}/asset-groups")
        for group in ("registration", "legal_affairs", "marts", "releases"):
            expect(page.get_by_text(group, exact=True).first).to_be_visible()
        page.goto(f"http://127.0.0.1:{port}/automation")
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
