"""`kdmodels.explain.overlays`: a heatmap lies where it belongs, and cold places show the image."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from kdmodels.explain.overlays import COLOURS, OVERLAY_SIDE, overlay, resized_heatmap


def hot_at(row, column, side=7):
    heatmap = np.zeros((side, side), np.float32)
    heatmap[row, column] = 1
    return heatmap


@pytest.mark.parametrize(
    ("size", "shown"),
    [((80, 60), (512, 384)), ((60, 80), (384, 512)), ((1024, 1024), (512, 512))],
)
def test_an_overlay_keeps_the_aspect_and_has_a_fixed_longer_side(size, shown):
    picture = overlay(Image.new("RGB", size, "grey"), hot_at(0, 0))
    assert (picture.size, picture.mode, OVERLAY_SIDE) == (shown, "RGB", 512)


def test_a_very_long_image_keeps_at_least_one_pixel_of_height():
    assert overlay(Image.new("RGB", (4000, 3)), hot_at(0, 0)).size == (512, 1)


def test_a_cold_heatmap_leaves_the_image_as_it_is(photo):
    picture = overlay(photo, np.zeros((7, 7), np.float32))
    resized = photo.resize(picture.size, Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(resized))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (6, 0), (6, 6)])
def test_a_hot_spot_colours_its_own_corner_only(photo, row, column):
    clear = overlay(photo, np.zeros((7, 7), np.float32))
    marked = overlay(photo, hot_at(row, column))
    change = np.abs(np.asarray(marked).astype(int) - np.asarray(clear).astype(int)).sum(-1)
    height, width = change.shape
    corner = {0: slice(None, 1 / 3), 6: slice(2 / 3, None)}

    def part(length, where):
        start, stop = corner[where].start or 0, corner[where].stop or 1
        return slice(int(start * length), int(stop * length))

    inside = np.zeros_like(change, bool)
    inside[part(height, row), part(width, column)] = True
    assert change[inside].mean() > 20
    assert change[~inside].max() == 0


def test_opacity_is_that_of_the_hottest_place():
    black, hot = Image.new("RGB", (64, 64)), np.ones((7, 7), np.float32)
    full = np.asarray(overlay(black, hot, colours="inferno", opacity=1.0)).astype(float)
    half = np.asarray(overlay(black, hot, colours="inferno", opacity=0.5)).astype(float)
    last_colour = [252, 255, 164]
    assert full.min(axis=(0, 1)).tolist() == pytest.approx(last_colour, abs=1)
    np.testing.assert_allclose(half, full / 2, atol=1)
    np.testing.assert_array_equal(overlay(black, hot, opacity=0.0), np.zeros((512, 512, 3)))


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 1), (0.25, 0.75), (0.5, 0.5), (1.0, 0)])
def test_below_the_threshold_the_image_shows_as_it_is(threshold, share):
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    grey = Image.new("RGB", (64, 64), "grey")
    full = np.asarray(overlay(grey, ramp, colours="cividis", opacity=1.0))
    cut = np.asarray(overlay(grey, ramp, colours="cividis", opacity=1.0, threshold=threshold))
    changed = (cut != 128).any(-1)
    assert changed.mean() == pytest.approx(share, abs=0.03)
    assert changed[:, -1].all()  # the hottest place always shows
    np.testing.assert_array_equal(cut[changed], full[changed])


@pytest.mark.parametrize("colours", COLOURS)
def test_all_colours_run_evenly_from_dark_to_light(colours):
    rgb = colormaps[colours](np.linspace(0, 1, 17))[:, :3]
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    steps = np.diff(lightness)
    assert (steps > 0).all() and steps.max() < 1.6 * np.median(steps)
    hot = overlay(Image.new("RGB", (9, 9)), np.ones((7, 7), np.float32), colours, opacity=1.0)
    assert np.asarray(hot)[0, 0] == pytest.approx(rgb[-1] * 255, abs=1)


def test_an_overlay_is_the_same_each_time_and_changes_neither_input(photo):
    heatmap = np.random.default_rng(0).random((14, 14), dtype=np.float32)
    before = photo.tobytes(), heatmap.tobytes()
    assert overlay(photo, heatmap).tobytes() == overlay(photo, heatmap).tobytes()
    assert (photo.tobytes(), heatmap.tobytes()) == before


def test_a_heatmap_is_enlarged_without_leaving_its_range():
    heatmap = np.random.default_rng(1).random((7, 5)).astype(np.float32)
    large = resized_heatmap(heatmap, 55, 77)
    assert large.shape == (77, 55) and large.dtype == np.float32
    assert heatmap.min() <= large.min() and large.max() <= heatmap.max()
    centres = large.reshape(7, 11, 5, 11)[:, 5, :, 5]
    np.testing.assert_allclose(centres, heatmap, atol=1e-6)


def test_the_page_is_built_without_drawing_libraries():
    program = """
import sys
import page.compare.looks, page.compare.exporting, page.about
assert "matplotlib" not in sys.modules, "the first page waits for it"
import numpy as np
from PIL import Image
from page.export.drawing import to_png
from kdmodels.explain.overlays import overlay
overlay(Image.new("RGB", (64, 64)), np.ones((7, 7), np.float32))
assert "matplotlib.pyplot" not in sys.modules, "pyplot keeps every figure until it is closed"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
