"""`kdmodels.doubts`: nothing is said of a plain film, and what is odd about another is."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from kdmodels import doubts
from kdmodels.doubts import doubts_of
from kdmodels.examples import examples
from kdmodels.familiar import FamiliarityError
from kdmodels.images import read_image
from kdmodels.images.checked import CheckedImage
from kdmodels.models import CheckpointError
from kdmodels.tasks import get_task
from tests.kdmodels.images.files import dicom, encode, ramp
from tests.phantom import chest_phantom

CXR = get_task("cxr")


def checked(image: Image.Image) -> CheckedImage:
    return CheckedImage(image.convert("RGB"), "PNG", ())


@pytest.mark.parametrize("example", examples("cxr"), ids=lambda e: e.path.stem)
def test_a_film_is_beyond_doubt_and_its_negative_is_not(example):
    film = read_image(example.path)
    assert doubts_of(CXR, film) == ()
    assert doubts_of(CXR, checked(ImageOps.invert(film.pixels))) == (
        "Light and dark lie elsewhere in this picture than in an upright frontal chest X-ray.",
    )


def test_an_inverted_drawn_chest_and_noise_are_doubtful():
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    (negative,) = doubts_of(CXR, checked(ImageOps.invert(chest_phantom())))
    unlike, lungless = doubts_of(CXR, checked(Image.fromarray(noise)))
    assert all("chest X-ray" in said and said.endswith(".") for said in (negative, unlike))
    assert lungless == "No lungs were found in this picture."


@pytest.mark.parametrize("example", examples("histopathology")[:2], ids=lambda e: e.path.stem)
def test_a_tile_among_films_has_no_lungs_and_among_tiles_needs_none(example):
    tile = read_image(example.path)
    assert "No lungs were found in this picture." in doubts_of(CXR, tile)
    assert not any("ungs" in said for said in doubts_of(get_task("histopathology"), tile))


def test_a_damaged_lung_finder_is_told_of(monkeypatch):
    def damaged():
        raise CheckpointError("lungs.safetensors has another sha256.")

    monkeypatch.setattr(doubts, "stored_finder", damaged)
    film = read_image(examples("cxr")[0].path)
    assert doubts_of(CXR, film) == (
        "Lungs cannot be looked for: lungs.safetensors has another sha256.",
    )


def told(data: bytes, window: tuple[float, float] | None = None) -> str:
    """What is said of the way a file was read."""
    return " ".join(doubts.changed(CXR, read_image(data, window)))


FRAMES = np.stack([ramp(4095)] * 3)


@pytest.mark.parametrize(
    ("data", "window", "said"),
    [
        (dicom(FRAMES, NumberOfFrames=3), None, "Changed on reading: first of 3 frames used; "),
        (
            encode(Image.new("L", (40, 40)), "GIF", save_all=True,
                   append_images=[Image.new("L", (40, 40), 9)]),
            None,
            "Changed on reading: first of several frames used.",
        ),
        (
            dicom(ramp(4095), PhotometricInterpretation="MONOCHROME1"),
            None,
            "; inverted, as the file stores white as the lowest value.",
        ),
        (
            dicom(ramp(4095), WindowCenter="2000", WindowWidth="900"),
            None,
            "Changed on reading: display window of the file applied.",
        ),
        (dicom(ramp(4095)), (1000, 300), "Changed on reading: window 1000 / 300 applied."),
        (
            dicom(ramp(4095)),
            None,
            "Changed on reading: values between the 0.5 and 99.5 percentiles scaled to 8 bit.",
        ),
        (
            encode(Image.new("RGBA", (40, 40), (9, 9, 9, 9))),
            None,
            "Changed on reading: transparency flattened on black.",
        ),
    ],
)  # fmt: skip
def test_what_changes_the_meaning_of_the_pixels_is_a_doubt(data, window, said):
    assert said in told(data, window)


def test_what_changes_no_meaning_is_none():
    deep = read_image(encode(Image.fromarray(ramp(65535))))
    assert deep.notes == ("16-bit values scaled to 8 bit",)
    assert doubts.changed(CXR, deep) == ()


def test_a_check_that_is_not_stored_is_said(monkeypatch):
    def none(task, image):
        raise FamiliarityError("cxr.safetensors is missing.")

    monkeypatch.setattr(doubts, "check", none)
    said = doubts_of(CXR, checked(chest_phantom()))
    assert said == ("No check is stored that a picture is of this kind: Chest X-ray.",)


def test_all_that_is_doubtful_is_told_the_gravest_first():
    film = read_image(dicom(ramp(4095), PhotometricInterpretation="MONOCHROME1"))
    first, second, third = doubts_of(CXR, film)
    assert "chest X-ray" in first and second == "No lungs were found in this picture."
    assert third == f"Changed on reading: {'; '.join(film.notes)}."
