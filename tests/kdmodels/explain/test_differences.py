"""`kdmodels.explain.differences`: two colours, and none where maps agree."""

import numpy as np
from PIL import Image

from kdmodels.explain.differences import difference_overlay


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def test_a_difference_is_orange_where_the_first_is_hotter_and_clear_where_they_agree():
    grey = Image.new("RGB", (40, 40), (128, 128, 128))
    first, second = np.zeros((2, 4, 4), np.float32)
    first[:, 0] = 1
    second[:, 3] = 1
    shown = array(difference_overlay(grey, first, second, opacity=1))
    scale = shown.shape[0] // 40
    left, middle, right = (shown[20 * scale, x * scale] for x in (1, 20, 38))
    assert left[0] > left[2] + 60  # orange
    assert right[2] > right[1] + 60 and right[2] > right[0]  # purple
    same = array(difference_overlay(grey, first, first, opacity=1))
    assert np.abs(same - 128).max() == 0 and np.abs(middle - 128).max() < 40
    swapped = array(difference_overlay(grey, second, first, opacity=1))
    assert swapped[20 * scale, 1 * scale, 2] > swapped[20 * scale, 1 * scale, 1] + 60
