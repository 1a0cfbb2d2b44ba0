"""A browser, servers for it to look at, and the demo's fixtures, which are the integration tests' own."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.integration.conftest import _made, demo, own_demo

__all__ = ["_made", "demo", "own_demo"]

PROGRAM = "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
CHROMIUM = pytest.mark.skipif(not Path(PROGRAM).exists(), reason="Debian's chromium is not installed")


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        yield browser.new_page(viewport={"width": 1600, "height": 1000})
        browser.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(demo: Any, address: str, *command: str) -> subprocess.Popen[str]:
    """Start ``dopa`` on the demo, and wait until it says that it serves ``address``; stopping it is the test's."""
    served = subprocess.Popen(
        [str(Path(sys.executable).with_name("dopa")), *command],
        env=demo.environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert served.stderr is not None
    said = ""
    while address not in said:
        line = served.stderr.readline()
        assert line, said
        said += line
    return served
