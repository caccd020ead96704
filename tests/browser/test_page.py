"""The comparison in a real browser: what a visitor does, sees, and may do wrong."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from tests.browser.steps import encoded, percentages, upload
from tests.phantom import chest_phantom


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
    assert "chest X-ray" in page.inner_text("#verdict .doubt")  # a drawing is no film
    for role in ("student", "teacher"):  # rough maps come first, and say so
        picture = page.wait_for_selector(f"#{role}-heatmap img", timeout=120_000)
        page.wait_for_function("e => e.complete && e.naturalWidth > 0", arg=picture)
        assert picture.evaluate("e => Math.max(e.naturalWidth, e.naturalHeight)") == 512
        assert f"Where the {role} saw" in page.inner_text(f"#{role}-heatmap")
    page.wait_for_selector("#progress :text('exact, all 512 channels')", timeout=400_000)
    page.wait_for_selector("#progress :text('exact, all 1,152 channels')", timeout=400_000)
    for name in ("Correlation", "Overlap of the hottest fifth"):
        assert re.search(rf"{name}\s+-?[01]\.\d\d", page.inner_text("#agreement"))
    if picture_file := os.environ.get("KD_SCREENSHOT"):  # how the README's picture is made
        page.screenshot(path=picture_file, full_page=True)


@pytest.mark.parametrize("modality", ["Chest X-ray", "Histopathology"])
def test_an_example_can_be_compared_and_says_that_it_shows_nobody(page, modality):
    page.get_by_label(modality, exact=True).click()
    page.wait_for_timeout(1_000)
    page.get_by_label("Go on to the exact map").uncheck()
    page.locator("#examples .gallery-item, #examples button.thumbnail-item").first.click()
    said = page.wait_for_selector("#message :text('ynthetic')", timeout=30_000).inner_text()
    assert "not a patient" in said
    page.wait_for_selector("#image img", timeout=30_000)
    page.click("#compare")
    page.wait_for_selector("#verdict .verdict:not(.hint)", timeout=120_000)
    assert len(percentages(page, "#student-card")) == (3 if modality == "Chest X-ray" else 5)


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
    page.click("#compare")
    page.wait_for_selector("#student-heatmap img", timeout=120_000)
    for name in ("COVID-19", "Normal"):
        page.click("#evidence input")
        page.get_by_role("option", name=name, exact=True).click()
        page.wait_for_timeout(300)
    page.wait_for_selector("#student-heatmap :text('“Normal”')", timeout=400_000)
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
