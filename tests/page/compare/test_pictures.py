"""What is drawn: looks, differences, and the paint of the eraser."""

import base64
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from kdmodels.explain.differences import difference_overlay
from kdmodels.explain.overlays import overlay
from kdmodels.images.read import ImageError
from page.compare import looks
from page.compare.erasing import PNG_ADDRESS, painted
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


# --- Paint -------------------------------------------------------------------------------------


def address(layer: Image.Image, kind: str = "PNG") -> str:
    layer.save(stream := BytesIO(), kind)
    return PNG_ADDRESS + base64.b64encode(stream.getvalue()).decode()


def test_paint_covers_what_it_covers_and_nothing_else(photo):
    layer = Image.new("RGBA", photo.size)
    layer.paste((128, 128, 128, 255), (10, 20, 30, 40))
    under, share = painted(photo, address(layer))
    assert share == pytest.approx(20 * 20 / (80 * 60))
    wanted = array(photo)
    wanted[20:40, 10:30] = 128
    assert np.array_equal(array(under), wanted)


@pytest.mark.parametrize(
    "paint",
    [
        "nonsense",
        PNG_ADDRESS + "%%%",
        PNG_ADDRESS + base64.b64encode(b"no picture").decode(),
        "data:image/jpeg;base64,AAAA",
        address(Image.new("RGBA", (80, 61))),
        address(Image.new("RGB", (80, 60)), "JPEG"),
        PNG_ADDRESS + "A" * 4_000_001,
    ],
    ids=["word", "base64", "picture", "kind", "size", "jpeg inside", "long"],
)
def test_paint_that_is_none_is_answered_with_one_sentence(photo, paint):
    with pytest.raises(ImageError, match=r"^The paint could not be read; press Start again\.$"):
        painted(photo, paint)
