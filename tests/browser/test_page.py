"""The real page in a real browser: what a visitor does, sees, and may do wrong."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdmodels.checkpoints import WEIGHTS

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
sys.path.insert(0, str(Path(__file__).parents[1]))
from phantom import chest_phantom  # noqa: E402

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
QUIET += " --disable-background-networking --disable-component-update"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(not (WEIGHTS / "index.json").exists(), reason="no weights are stored yet"),
    pytest.mark.timeout(600),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The app as `make app` starts it, on a port of its own and without the network."""
    port = free_port()
    log = tmp_path_factory.mktemp("app") / "log.txt"
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("uploads")),
        "KD_NO_BROWSER": "1",
        "HF_HUB_OFFLINE": "1",
        "no_proxy": "127.0.0.1,localhost",
    }
    with log.open("w") as output:
        app = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=output, stderr=output
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


@pytest.fixture(scope="module")
def browser():
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


def upload(page, name: str, content: bytes, kind: str, field: str = "#image"):
    page.set_input_files(
        f"{field} input[type=file]" if field == "#image" else "input[type=file] >> nth=-1",
        {"name": name, "mimeType": kind, "buffer": content},
    )
    return page.wait_for_selector("#message .message", timeout=60_000).inner_text()


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def percentages(page, card: str) -> list[float]:
    values = page.locator(f"{card} .bars .value").all_inner_texts()
    return [float(v.rstrip("%")) for v in values]


def test_both_answers_then_both_heatmaps(page):
    assert "Not a medical device" in page.inner_text("#heading")
    message = upload(page, "film.png", encoded(chest_phantom(), "PNG"), "image/png")
    assert "PNG, 420 × 460 px" in message
    page.click("#compare")
    page.wait_for_selector("#verdict .verdict:not(.hint)", timeout=120_000)
    for role, model in (("teacher", "VGG19"), ("student", "OFA-595 (from VGG19)")):
        card = f"#{role}-card"
        assert model in page.inner_text(card)
        shares = percentages(page, card)
        assert len(shares) == 3
        assert sum(shares) == pytest.approx(100, abs=0.2)
        assert float(re.search(r"([\d.]+) ms", page.inner_text(f"{card} .latency"))[1]) > 0
        assert re.search(r"(OpenVINO|PyTorch) .* \d+ thread", page.inner_text(f"{card} footer"))
    assert re.search(r"(Both say|They differ).*times as fast", page.inner_text("#verdict"))
    # The answers stand before any heatmap does, and the wait for those is shown.
    assert page.locator("#teacher-heatmap img").count() == 0
    assert (
        "of 1,152 channels"
        in page.wait_for_selector("#student-progress progress >> ..").inner_text()
    )
    for role in ("student", "teacher"):
        picture = page.wait_for_selector(f"#{role}-heatmap img", timeout=400_000)
        page.wait_for_function("e => e.complete && e.naturalWidth > 0", arg=picture)
        assert picture.evaluate("e => Math.max(e.naturalWidth, e.naturalHeight)") == 512
        assert f"Where the {role} saw" in page.inner_text(f"#{role}-heatmap")
    if picture_file := os.environ.get("KD_SCREENSHOT"):  # how the README's picture is made
        page.screenshot(path=picture_file, full_page=True)


def test_a_new_image_ends_the_old_comparison(page):
    upload(page, "film.png", encoded(chest_phantom(), "PNG"), "image/png")
    page.click("#compare")
    page.wait_for_selector("#teacher-card .card", timeout=120_000)
    wide = chest_phantom(600, 300)
    upload(page, "wide.png", encoded(wide, "PNG"), "image/png")
    page.wait_for_selector("#message :text('600 × 300 px')", timeout=30_000)
    page.wait_for_timeout(6_000)  # longer than the old comparison's next step would take
    assert page.locator(".card").count() == 0
    assert page.locator("#verdict .hint").count() == 1
    assert page.locator("progress").count() == 0


def test_the_last_of_two_quick_changes_of_evidence_wins(page):
    upload(page, "film.png", encoded(chest_phantom(), "PNG"), "image/png")
    for name in ("COVID-19", "Normal"):
        page.click("#evidence input")
        page.get_by_role("option", name=name, exact=True).click()
        page.wait_for_timeout(1_500)
    page.wait_for_selector("#student-heatmap img", timeout=400_000)
    assert "Where the student saw “Normal”" in page.inner_text("#student-heatmap")


@pytest.mark.parametrize(
    ("name", "content", "kind", "sentence"),
    [
        ("report.pdf", b"%PDF-1.7 ...", "application/pdf", "This is a PDF"),
        ("empty.png", b"", "image/png", "empty"),
        ("notes.txt", b"no image at all " * 9, "text/plain", "not an image"),
        ("cut.jpg", encoded(chest_phantom(), "JPEG")[:4000], "image/jpeg", "damaged or incomplete"),
    ],
)
def test_bad_files_get_one_sentence_and_the_page_goes_on(page, name, content, kind, sentence):
    said = upload(page, name, content, kind, field="other")
    assert sentence in said
    assert said.count(".") == 1
    assert page.locator("#message [role=alert]").count() == 1
    page.click("#compare")
    page.wait_for_selector("#message :text('no image yet')", timeout=30_000)
    assert "PNG" in upload_after_error(page)


def upload_after_error(page) -> str:
    page.set_input_files(
        "#image input[type=file]",
        {"name": "a.png", "mimeType": "image/png", "buffer": encoded(chest_phantom(), "PNG")},
    )
    return page.wait_for_selector("#message .note", timeout=30_000).inner_text()


def test_sixteen_bit_film_is_scaled(page):
    deep = np.asarray(chest_phantom()).astype(np.uint16) * 257
    said = upload(page, "deep.png", encoded(Image.fromarray(deep), "PNG"), "image/png")
    assert "16-bit values scaled to 8 bit" in said


def test_an_image_can_be_pasted(page, address):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page.evaluate(
        """async (bytes) => {
            const film = new Blob([new Uint8Array(bytes)], {type: "image/png"});
            await navigator.clipboard.write([new ClipboardItem({"image/png": film})]);
        }""",
        list(encoded(chest_phantom(), "PNG")),
    )
    page.locator("#image").get_by_role("button", name=re.compile("clipboard", re.I)).click()
    said = page.wait_for_selector("#message .message", timeout=30_000).inner_text()
    assert "420 × 460 px" in said


def test_comparing_without_an_image_says_so(page):
    page.click("#compare")
    said = page.wait_for_selector("#message [role=alert]", timeout=30_000).inner_text()
    assert said == "There is no image yet; upload or paste one first."


def test_a_phone_needs_no_sideways_scrolling(page):
    page.set_viewport_size({"width": 390, "height": 844})
    upload(page, "film.png", encoded(chest_phantom(), "PNG"), "image/png")
    page.click("#compare")
    page.wait_for_selector("#student-card .card", timeout=120_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
