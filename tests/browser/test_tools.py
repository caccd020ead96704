"""The tools beside a comparison: views, look, eraser, temperature, window, export."""

import io
import json
import re

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from tests.browser.steps import encoded, percentages, picture_of, upload
from tests.phantom import chest_phantom


@pytest.fixture
def compared(page):
    """A page on which the phantom is compared, without going on to the exact maps."""
    page.get_by_label("Go on to the exact map").uncheck()
    upload(page, "film.png", encoded(chest_phantom(), "PNG"), "image/png")
    page.click("#compare")
    page.wait_for_selector("#progress p.progress >> nth=1", timeout=120_000)
    return page


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_without_the_exact_map_the_work_ends_at_a_settled_one(page):
    page.get_by_label("Go on to the exact map").uncheck()
    # An image of its own: what is scored of one image is kept, and would count here.
    upload(page, "film.png", encoded(chest_phantom(404, 440, 7), "PNG"), "image/png")
    page.click("#compare")
    page.wait_for_selector("#progress :text('estimated at') >> nth=1", timeout=120_000)
    said = page.inner_text("#progress")
    for total in ("512", "1,152"):
        done = int(re.search(rf"([\d,]+) of {total} channels", said)[1].replace(",", ""))
        assert done < int(total.replace(",", "")) / 4


def test_slider_and_difference_draw_when_they_are_opened(compared):
    tab(compared, "Slider")
    compared.wait_for_selector("#slider img >> nth=1", timeout=10_000)
    tab(compared, "Difference")
    compared.wait_for_selector("#difference img", timeout=10_000)


def test_the_look_changes_the_picture_and_not_the_answer(compared):
    answers = percentages(compared, "#student-card")
    before = picture_of(compared, "#student-heatmap img")
    compared.get_by_label("Invert greys").check()
    compared.wait_for_timeout(1_500)
    inverted = picture_of(compared, "#student-heatmap img")
    assert np.abs(inverted.astype(int) - before).mean() > 20
    assert percentages(compared, "#student-card") == answers


def test_painting_over_changes_the_answers_and_starting_again_takes_it_back(compared):
    tab(compared, "Try to fool it")
    canvas = compared.wait_for_selector("#eraser canvas:visible", timeout=10_000)
    canvas.scroll_into_view_if_needed()
    compared.wait_for_function("e => e.width > 300", arg=canvas)
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    compared.mouse.move(x - 80, y)
    compared.mouse.down()
    compared.mouse.move(x + 80, y, steps=8)
    compared.mouse.up()
    compared.wait_for_selector("#changes table", timeout=30_000)
    said = compared.inner_text("#changes")
    assert re.search(r"The teacher (still|now) says .*The student (still|now) says", said)
    pairs = re.findall(r"([\d.]+)% → ([\d.]+)%", said)
    assert len(pairs) == 6 and any(a != b for a, b in pairs)
    before = [float(a) for a, _ in pairs]
    assert before[::2] == pytest.approx(percentages(compared, "#teacher-card"), abs=2)
    share = int(re.search(r"(\d+)% of the picture", said)[1])
    assert 2 <= share <= 20
    compared.get_by_role("button", name="Start again").click()
    compared.wait_for_selector("#changes :text('Paint over a part')", timeout=30_000)


def test_a_lung_mask_adds_two_numbers_until_there_is_another_image(compared):
    mask = Image.new("L", (420, 460))
    mask.paste(255, (60, 80, 360, 300))
    upload(compared, "mask.png", encoded(mask, "PNG"), "image/png", field="mask")
    compared.wait_for_selector("#message :text('Lung mask: 34% of the picture')", timeout=30_000)
    compared.wait_for_selector("#agreement :text('heat inside the lungs') >> nth=1")
    said = compared.inner_text("#agreement")
    assert len(re.findall(r"heat inside the lungs\s+0\.\d\d", said)) == 2
    assert "The lung mask is 0.34 of the picture" in said
    upload(compared, "flat.png", encoded(mask.resize((600, 200)), "PNG"), "image/png", "mask")
    compared.wait_for_selector("#message :text('another shape')", timeout=30_000)
    other = chest_phantom(400, 460, 3)
    upload(compared, "other.png", encoded(other, "PNG"), "image/png")
    compared.wait_for_selector("#message :text('400 × 460 px')", timeout=30_000)
    compared.click("#compare")
    compared.wait_for_selector("#progress :text('estimated at') >> nth=1", timeout=120_000)
    assert "lungs" not in compared.inner_text("#agreement")


def test_the_keyboard_paints_too(compared):
    tab(compared, "Try to fool it")
    canvas = compared.wait_for_selector("#eraser canvas:visible", timeout=10_000)
    compared.wait_for_function("e => e.width > 300", arg=canvas)
    canvas.focus()
    for key in ("ArrowLeft", "ArrowUp", " "):
        compared.keyboard.press(key)
    compared.wait_for_selector("#changes table", timeout=30_000)
    assert int(re.search(r"(\d+)% of the picture", compared.inner_text("#changes"))[1]) >= 1
    compared.keyboard.press("Backspace")
    compared.wait_for_selector("#changes :text('Paint over a part')", timeout=30_000)


def test_a_higher_temperature_softens_both(compared):
    tab(compared, "Temperature")
    compared.wait_for_timeout(1000)  # what is typed before a new tab is set up is lost

    def largest(value: str) -> list[float]:
        compared.locator("#temperature input[type=number]").fill(value)
        compared.locator("#temperature input[type=number]").press("Enter")
        compared.wait_for_selector(f"#softened :text('At T = {value},')", timeout=10_000)
        values = compared.locator("#softened .value").all_inner_texts()
        shares = [float(v.rstrip("%")) for v in values]
        assert sum(shares) == pytest.approx(200, abs=0.4)
        return [max(shares[::2]), max(shares[1::2])]

    hot, cold = largest("20"), largest("1")
    assert all(33 <= a < b for a, b in zip(hot, cold, strict=True))
    assert max(hot) < 45


def test_the_three_exports_are_what_their_names_say(compared):
    tab(compared, "Export")
    files = {}
    for kind in ("png", "pdf", "json"):
        with compared.expect_download(timeout=60_000) as download:
            compared.click(f"#export-{kind}")
        assert download.value.suggested_filename.endswith(f".{kind}")
        with open(download.value.path(), "rb") as file:
            files[kind] = file.read()
    slide = Image.open(io.BytesIO(files["png"]))
    assert slide.size == (1920, 1080) and np.asarray(slide.convert("L")).std() > 30
    assert files["pdf"].startswith(b"%PDF-") and files["pdf"].count(b"/Type /Page\n") <= 1
    told = json.loads(files["json"])
    shown = percentages(compared, "#teacher-card")
    assert max(shown) == pytest.approx(
        100 * max(told["teacher"]["probabilities"].values()), abs=0.06
    )
    assert b"film.png" not in b"".join(files.values())


def test_an_earlier_export_is_not_downloaded_beside_another_image(compared):
    tab(compared, "Export")
    with compared.expect_download(timeout=60_000):
        compared.click("#export-json")
    upload(compared, "other.png", encoded(chest_phantom(410, 450, 2), "PNG"), "image/png")
    compared.wait_for_selector("#message :text('410 × 450 px')", timeout=30_000)
    downloads = []
    compared.on("download", lambda download: downloads.append(download))
    compared.click("#export-json")
    compared.wait_for_selector("#export-message :text('compare first')", timeout=10_000)
    compared.wait_for_timeout(1_500)
    assert downloads == []


def test_exporting_nothing_says_so(page):
    tab(page, "Export")
    page.click("#export-json")
    page.wait_for_selector("#export-message :text('compare first')", timeout=10_000)


def test_the_window_of_a_dicom_film_can_be_moved(page):
    path = get_testdata_file("CT_small.dcm")
    assert pydicom.dcmread(path, stop_before_pixels=True).BitsStored == 16
    with open(path, "rb") as file:
        said = upload(page, "ct.dcm", file.read(), "application/dicom", field="other")
    assert "DICOM" in said
    page.wait_for_selector("#window:visible", timeout=10_000)
    width = page.locator("#window input[type=number]").nth(1)
    before = picture_of(page, "#image img")
    width.fill("60")
    width.press("Enter")
    page.locator("#window input[type=range]").nth(1).press("ArrowRight")
    page.wait_for_selector("#message :text('applied')", timeout=10_000)
    page.wait_for_timeout(1_000)
    after = picture_of(page, "#image img")
    assert np.abs(after.astype(int) - before).mean() > 5
    upload(page, "film.png", encoded(chest_phantom(), "PNG"), "image/png")
    page.wait_for_selector("#window", state="hidden", timeout=10_000)
