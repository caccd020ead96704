"""`page.compare.looks`: each map with its look, and two pictures of one size on the slider."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from kdmodels.explain.overlays import overlay
from page.compare import looks
from page.compare.looks import SLIDER_PAIRS, Look
from page.compare.study import Study

LOOK = Look("viridis", 0.5, 0.2, False, "Original and student")


@pytest.fixture
def study(photo) -> Study:
    """A study of a photo with two different maps."""
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    found = Study(SimpleNamespace(pixels=photo), "cxr", "vgg19", None, 1.0)
    found.steps = {"teacher": SimpleNamespace(heatmap=ramp)}
    found.steps["student"] = SimpleNamespace(heatmap=ramp[::-1].copy())
    return found


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def test_each_model_is_drawn_with_its_own_map_and_the_look(study, photo):
    for role in ("teacher", "student"):
        wanted = overlay(
            photo, study.steps[role].heatmap, colours="viridis", opacity=0.5, threshold=0.2
        )
        assert np.array_equal(array(looks.explained(study, LOOK, role)), array(wanted))


def test_inverting_inverts_what_is_shown_alone(study, photo):
    inverted = LOOK._replace(inverted=True)
    assert np.array_equal(array(looks.original(study, inverted)), 255 - array(photo))
    wanted = overlay(
        ImageOps.invert(photo), study.steps["student"].heatmap, "viridis", 0.5, threshold=0.2
    )
    assert np.array_equal(array(looks.explained(study, inverted, "student")), array(wanted))
    assert study.checked.pixels is photo


@pytest.mark.parametrize("pair", SLIDER_PAIRS)
def test_the_slider_has_two_pictures_of_one_size_in_the_order_said(study, pair):
    look = LOOK._replace(slider_pair=pair)
    shown = looks.on_slider(study, look)
    assert shown[0].size == shown[1].size
    for what, picture in zip(SLIDER_PAIRS[pair], shown, strict=True):
        if what != "original":
            assert np.array_equal(array(picture), array(looks.explained(study, look, what)))
