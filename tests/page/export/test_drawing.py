"""`page.export.drawing`: slide and page hold both answers and say who made them, not whose they are."""

import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from io import BytesIO

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from kdmodels.explain.overlays import overlay
from kdmodels.predict import Latency
from kdmodels.tasks import TASKS, get_task
from page.export import drawing
from page.export.comparison import DISCLAIMER
from page.export.drawing import Comparison, Settings, Side, to_pdf, to_png
from page.words import BEFORE
from tests.phantom import chest_phantom

LOCAL = datetime(2026, 1, 31, 9, 5, tzinfo=timezone(timedelta(hours=2), "EET"))
ENGINE = "OpenVINO 2026.4.0 (float32) on the CPU"


def hot_at(row, column, side=7):
    heatmap = np.zeros((side, side), np.float32)
    heatmap[row, column] = 1
    return heatmap


def side_of(task, role, heatmap, share=0.86):
    student = role == "student"
    rest = (1 - share) / (task.num_classes - 1)
    return Side(
        model="ofa_595" if student else "autoformerv2_t",
        name="OFA-595 (from AutoFormerV2-T, ensemble)" if student else "AutoFormerV2-T",
        role=role,
        sha256=("fedcba9876543210" if student else "0123456789abcdef") * 4,
        class_ids=task.class_ids,
        probabilities=tuple(share if n == 2 else rest for n in range(task.num_classes)),
        latency=Latency(2.51 if student else 85.94, 2.4, 88.2, 24, ENGINE, 2),
        parameters=7_600_123 if student else 27_600_123,
        macs=594_000_000 if student else 4_620_000_000,
        file_bytes=7_723_456 if student else 55_123_456,
        calibration=1.317,
        evidence=task.class_ids[2],
        heatmap=heatmap,
        channels_done=118 if student else 768,
        channels_total=1152 if student else 768,
    )


def compared(task):
    picture = chest_phantom(210, 230).convert("RGB")
    picture.info |= {"comment": "Jane Doe", "exif": b"Exif\0\0Jane Doe", "dpi": (72, 72)}
    return Comparison(
        task=task,
        picture=picture,
        teacher=side_of(task, "teacher", hot_at(1, 1)),
        student=side_of(task, "student", hot_at(5, 5)),
        verdict=f"They differ: the teacher says {task.class_names[-1]} (52%), the student "
        f"{task.class_names[-2]} (61%). The student was 34.2 times as fast here ({ENGINE}).",
        made_at=LOCAL,
        version="0.1.0",
        agreement={"correlation": 0.731, "overlap": float("nan"), "teacher_lungs": 0.62},
    )


DOUBTS = (
    "This picture is lighter, darker or of another contrast than the 3,314 chest X-rays that the "
    "models were trained on.",
    "Changed on reading: first of 12 frames used; values between the 0.5 and 99.5 percentiles scaled "
    "to 8 bit; inverted, as the file stores white as the lowest value.",
)


@pytest.fixture(
    params=[(t, d) for t in TASKS for d in ((), DOUBTS)], ids=lambda p: f"{p[0]}-{len(p[1])}"
)
def comparison(request):
    task, doubts = request.param
    return replace(compared(get_task(task)), doubts=doubts)


@pytest.fixture
def cxr():
    return compared(get_task("cxr"))


def pixels_of(data):
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)


def chunks_of(png):
    place, kinds = 8, []
    while place < len(png):
        length, kind = struct.unpack(">L4s", png[place : place + 8])
        kinds.append(kind.decode())
        place += 12 + length
    return kinds


def written(sheet):
    return [t for t in sheet.figure.findobj(Text) if t.get_text()]


def test_the_slide_is_a_plain_png_for_a_projector(cxr):
    data = to_png(cxr)
    assert b"Jane" not in data and cxr.picture.size == (210, 230)
    with Image.open(BytesIO(data)) as image:
        assert (image.format, image.size) == ("PNG", (1920, 1080))
    assert set(chunks_of(data)) <= {"IHDR", "pHYs", "IDAT", "IEND"}


@pytest.mark.parametrize("make", [drawing._slide, drawing._page])
def test_all_texts_are_on_the_sheet_legible_and_do_not_overlap(comparison, make):
    sheet = make(comparison)
    renderer = sheet.figure.canvas.get_renderer()
    boxes = [(t, t.get_window_extent(renderer)) for t in written(sheet)]
    width, height = sheet.figure.canvas.get_width_height()
    least = 12 if make is drawing._slide else 7
    for text, box in boxes:
        assert min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height, text
        assert text.get_fontsize() >= least, text
    for n, (text, box) in enumerate(boxes):
        for other, against in boxes[n + 1 :]:
            across = min(box.x1, against.x1) - max(box.x0, against.x0)
            down = min(box.y1, against.y1) - max(box.y0, against.y0)
            lower = min(box.height, against.height)
            assert across <= 1 or down <= 0.3 * lower, (text.get_text(), other.get_text())


def test_both_sheets_say_what_was_found_and_by_what(comparison):
    slide, page = (
        " | ".join(t.get_text() for t in written(make(comparison)))
        for make in (drawing._slide, drawing._page)
    )
    for said in (slide, page):
        assert DISCLAIMER in said and "86.0%" in said and "85.9 ms" in said and "2.5 ms" in said
        assert "2026-01-31 09:05 EET, version 0.1.0" in said and ENGINE in said
        assert "exact: all 768 channels" in said and "estimate: 118 of 1,152 channels" in said
        assert "0.73" in said and "not defined" in said and "2 threads" in said
        assert all(name in said for name in comparison.task.class_names)
        assert "OFA-595 (from AutoFormerV2-T, ensemble)" in said
        assert all(doubt in said.replace(" | ", " ") for doubt in comparison.doubts)
        assert (f"{BEFORE}:" in said) == bool(comparison.doubts)
    hashes = page.replace(" | ", "")
    for side in comparison.sides:
        first, second = side.sha256[:32], side.sha256[32:]
        assert first in hashes and second in hashes
    for setting in ("inferno", "65%", "27,600,123", "0.594 GMAC", "7,723,456 bytes", "by 1.317"):
        assert setting in page


def test_the_slide_shows_the_picture_and_each_heatmap_where_it_belongs(cxr):
    shown = replace(cxr, settings=Settings("viridis", 1.0, 0.5))
    pixels = pixels_of(to_png(shown))
    for x, side in ((60, None), (680, shown.teacher), (1300, shown.student)):
        if side is None:
            picture = shown.picture
        else:
            picture = overlay(shown.picture, side.heatmap, "viridis", 1.0, 0.5)
        height, width = 438, round(438 * picture.width / picture.height)
        left = x + (560 - width) // 2
        found = pixels[286 : 286 + height, left : left + width]
        wanted = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(found - wanted).mean() < 4
        assert (pixels[300, x + 5] == 0).all()  # a dark surround


def test_doubts_take_their_place_from_the_height_of_the_pictures_alone(cxr):
    plain, doubtful = pixels_of(to_png(cxr)), pixels_of(to_png(replace(cxr, doubts=DOUBTS)))
    np.testing.assert_array_equal(doubtful[724:], plain[724:])
    np.testing.assert_array_equal(doubtful[:170], plain[:170])
    amber = (doubtful == [0xFF, 0xF4, 0xD6]).all(-1)
    assert amber[172:260].any(1).sum() > 40 and not (plain == [0xFF, 0xF4, 0xD6]).all(-1).any()


def test_bars_are_as_long_as_the_probabilities(cxr):
    pixels = pixels_of(to_png(cxr))
    for x in (680, 1300):
        part = pixels[740:952, x : x + 560]
        for n, info in enumerate(cxr.task.classes):
            colour = [int(info.colour[i : i + 2], 16) for i in (1, 3, 5)]
            length = (part == colour).all(-1).sum(1).max() / 560
            assert length == pytest.approx(cxr.teacher.probabilities[n], abs=0.01)


def test_a_missing_and_a_flat_heatmap_are_said_to_be_so(cxr):
    flat = replace(cxr.student, heatmap=np.zeros((8, 8), np.float32))
    none = replace(cxr.teacher, heatmap=None, evidence=None, channels_done=0, channels_total=0)
    shown = replace(cxr, teacher=none, student=flat, agreement={})
    for make in (drawing._slide, drawing._page):
        said = [t.get_text() for t in written(make(shown))]
        assert "no heatmap was made" in said and "evidence for Normal: nothing found" in said
    pixels = pixels_of(to_png(shown))
    np.testing.assert_array_equal(pixels[286:724, 60:620], pixels[286:724, 680:1240])


@pytest.mark.parametrize("size", [(900, 100), (60, 500)])
def test_long_and_tall_pictures_fit(cxr, size):
    shown = replace(cxr, picture=chest_phantom(*size).convert("RGB"))
    pixels = pixels_of(to_png(shown))[286:724, 60:620]
    wide = size[0] > size[1]
    lit = pixels.max(axis=(1 if wide else 0, 2)) > 60
    assert 0.08 < lit.mean() < 0.16  # the rest is the dark surround
    assert lit[len(lit) // 2] and not lit[:10].any() and not lit[-10:].any()


def test_the_page_is_one_a4_sheet_with_embedded_truetype_fonts(cxr):
    data = to_pdf(cxr)
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
    assert data.count(b"/Type /Page ") == 1
    box = re.search(rb"/MediaBox \[ *([\d. ]+)\]", data).group(1).split()
    assert [float(v) / 72 * 25.4 for v in box] == pytest.approx([0, 0, 210, 297], abs=0.1)
    assert b"/FontFile2" in data and b"/Subtype /Type3" not in data
    assert matplotlib.rcParams["pdf.fonttype"] == 3  # the setting of all others is as it was


def test_the_page_names_no_author_program_or_path(cxr):
    data = to_pdf(cxr)
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL)
    readable = [data]
    for stream in streams:
        try:
            readable.append(zlib.decompress(stream))
        except zlib.error:
            readable.append(stream)
    whole = b"\n".join(readable)
    for word in (
        b"Jane",
        b"/Author",
        b"/Creator",
        b"/Producer",
        b"atplotlib",
        b"/home/",
        b"/work",
        b"/tmp",
    ):
        assert word not in whole
    assert b"/CreationDate (D:20260131070500Z)" in data


def test_several_may_draw_at_a_time(cxr):
    alone = to_png(cxr)
    with ThreadPoolExecutor(3) as pool:
        page, slide, again = pool.map(lambda make: make(cxr), (to_pdf, to_png, to_pdf))
    assert slide == alone and page == again and b"/Subtype /Type3" not in page
    assert matplotlib.rcParams["pdf.fonttype"] == 3


def test_drawing_keeps_no_figure_and_needs_no_window_system():
    program = """
import sys
import page.export.drawing
assert "matplotlib.pyplot" not in sys.modules, "pyplot keeps every figure until it is closed"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
