"""Lung masks: what counts as inside, and which masks cannot be of the image."""

import numpy as np
import pytest
from PIL import Image

from kdmodels.explain.similarity import share_inside
from kdmodels.images.read import ImageError
from page.compare import panels
from page.compare.masks import mask_of

FILM = Image.new("RGB", (100, 120))


def half() -> Image.Image:
    mask = Image.new("L", (50, 60))
    mask.paste(255, (0, 0, 25, 60))
    return mask


def test_inside_is_what_is_bright_whatever_the_size():
    inside = mask_of(half(), FILM)
    assert inside.shape == (60, 50) and inside[:, :25].all() and not inside[:, 25:].any()


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (Image.new("L", (50, 60)), "black or white all over"),
        (Image.new("L", (50, 60), 255), "black or white all over"),
        (half().resize((60, 50)), "60 × 50 px and the image 100 × 120 px"),
    ],
)
def test_a_mask_that_cannot_be_of_the_film_is_refused(mask, sentence):
    with pytest.raises(ImageError, match=sentence) as error:
        mask_of(mask, FILM)
    assert str(error.value).count(".") == 1


def test_the_shares_are_those_of_each_models_own_heat():
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    maps = {"teacher": ramp, "student": ramp[:, ::-1].copy()}
    inside = mask_of(half(), FILM)
    numbers = panels.numbers_of(maps, inside)
    assert list(numbers) == list(panels.EXPLAINED)
    for role, heatmap in maps.items():
        assert numbers[f"{role}_lungs"] == share_inside(heatmap, inside)
    assert numbers["teacher_lungs"] < 0.5 < numbers["student_lungs"]
    assert set(panels.numbers_of(maps)) == {"correlation", "overlap"}
