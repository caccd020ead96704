"""The app as a process of its own, and a real browser on its page."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdmodels.models.checkpoints import WEIGHTS

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
QUIET += " --disable-background-networking --disable-component-update"


pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


def pytest_collection_modifyitems(items):
    """All tests of this folder need a browser and weights, and may take long."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(600))
            if BROWSER is None:
                item.add_marker(pytest.mark.skip("no Chromium on this machine"))
            if not (WEIGHTS / "index.json").exists():
                item.add_marker(pytest.mark.skip("no weights are stored yet"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_app(folder: Path, **environment: str) -> Iterator[str]:
    """The app as `make app` starts it, on a port of its own and without the network: its address."""
    port = free_port()
    log = folder / "log.txt"
    surroundings = {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "KD_NO_BROWSER": "1",
        "HF_HUB_OFFLINE": "1",
        "no_proxy": "127.0.0.1,localhost",
    }
    with log.open("w") as output:
        app = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=os.environ | surroundings | environment,
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(url, timeout=5).read()
                break
            except OSError:
                assert app.poll() is None, f"the app has stopped:\n{log.read_text()}"
                time.sleep(0.5)
        else:
            pytest.fail(f"the app does not answer:\n{log.read_text()}")
        yield url
    finally:
        app.terminate()
        app.wait(20)
    errors = [line for line in log.read_text().splitlines() if "Traceback" in line]
    assert not errors, log.read_text()


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """The address of one app for all tests."""
    with running_app(tmp_path_factory.mktemp("app")) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=QUIET.split())
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    """A fresh tab at 1440 px; fails the test when the page asks for anything from elsewhere."""
    tab = browser.new_page(viewport={"width": 1440, "height": 1000})
    elsewhere, mistakes = [], []
    local = (address, "data:", "blob:")
    tab.on("request", lambda r: None if r.url.startswith(local) else elsewhere.append(r.url))
    tab.on("pageerror", lambda error: mistakes.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector("#compare", timeout=60_000)
    yield tab
    tab.close()
    assert elsewhere == []
    assert mistakes == []
