"""`train.tables.confusion`: the picture is small, and its cells are as dark as their share of the row."""

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from kdmodels.tasks import TASKS
from train.tables.confusion import COLOURS, draw_confusion

MAX_BYTES = 40_000


def drawn(counts, task, file) -> np.ndarray:
    draw_confusion(counts, TASKS[task], "A title", file)
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def has(picture: np.ndarray, share: float) -> bool:
    """Whether much of the picture has the colour of a share, up to the palette's rounding."""
    colour = np.array(colormaps[COLOURS](share)[:3]) * 255
    return (np.abs(picture - colour).max(2) < 4).mean() > 0.02


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_is_small_and_wide_enough_to_read(task, tmp_path):
    k = TASKS[task].num_classes
    counts = np.random.default_rng(0).integers(0, 1000, (k, k)).tolist()
    file = tmp_path / "figures" / "confusion.png"
    picture = drawn(counts, task, file)
    assert file.stat().st_size < MAX_BYTES
    assert min(picture.shape[:2]) > 100 * k and max(picture.shape[:2]) < 1000
    for edge in (picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]):
        assert (edge > 250).all()  # nothing is cut off


def test_colours_are_shares_of_the_true_class(tmp_path):
    counts = [[30, 10, 0], [100, 300, 0], [0, 0, 5]]
    picture = drawn(counts, "cxr", tmp_path / "a.png")
    assert [has(picture, share) for share in (0.75, 0.25, 0.0, 1.0)] == [True] * 4
    assert not has(picture, 0.5)


def test_counts_are_written_into_the_cells(tmp_path):
    first = drawn([[10, 0, 0], [0, 10, 0], [0, 0, 10]], "cxr", tmp_path / "a.png")
    second = drawn([[11, 0, 0], [0, 10, 0], [0, 0, 10]], "cxr", tmp_path / "b.png")
    y, x = np.nonzero(np.abs(first - second).max(2) > 60)  # the palettes differ a little
    assert len(y) and y.max() < first.shape[0] / 2 and x.max() < first.shape[1] / 2


def test_a_class_without_images_is_drawn(tmp_path):
    assert drawn([[0, 0, 0], [0, 1, 0], [0, 0, 1]], "cxr", tmp_path / "a.png").size
