"""`kdmodels.familiar.modality`, with the statistics that the app ships: what passes, what does not, and why."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file

from kdmodels.familiar import modality
from kdmodels.familiar.modality import (
    FamiliarityError,
    Reference,
    check,
    measured,
    paragraph,
    share,
)
from kdmodels.familiar.statistics import GROUPS, describe, small_square
from kdmodels.images.read import read_image
from kdmodels.tasks import TASKS, get_task
from kdmodels.tasks.task import Reasons
from tests.phantom import chest_phantom
from train.measure.junk import KINDS, junk


@pytest.fixture(scope="module")
def rubbish() -> dict[str, list[Image.Image]]:
    """The junk that the stored numbers speak of, by kind."""
    kinds: dict[str, list[Image.Image]] = {}
    for kind, picture in junk():
        kinds.setdefault(kind, []).append(picture)
    return kinds


def tissue_like(seed: int = 0, colours: bool = True) -> Image.Image:
    """Violet nuclei on pink: nobody's tissue."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (224, 224), (226, 178, 210))
    draw = ImageDraw.Draw(image)
    for x, y, r in zip(*rng.integers(0, 224, (2, 180)), rng.integers(3, 8, 180), strict=True):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(110, 60, 150))
    return image if colours else image.convert("L")


# --- What is refused, and why -----------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_what_is_caught_is_what_the_stored_numbers_say(task, rubbish):
    stored = measured(task)["caught"]
    assert set(rubbish) <= set(stored)
    for kind, pictures in rubbish.items():
        refused = sum(not check(task, picture).familiar for picture in pictures)
        assert abs(refused - stored[kind]["flagged"]) <= 1, kind  # a font may differ


@pytest.mark.parametrize("task", TASKS)
def test_nearly_all_junk_is_refused(task, rubbish):
    for kind in KINDS:
        refused = [not check(task, picture).familiar for picture in rubbish[kind]]
        assert len(refused) >= 12 and np.mean(refused) >= 0.98, kind


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("colour", ["black", "white", "grey", (200, 30, 90)])
def test_a_blank_picture_is_called_blank(task, colour):
    found = check(task, Image.new("RGB", (500, 300), colour))
    assert not found.familiar and found.score > found.limit
    assert found.reason == "This picture is blank, or nearly so."


def test_colours_are_named_for_a_chest_x_ray():
    found = check("cxr", tissue_like())
    assert found.reason == "This picture has colours; chest X-rays are grey."
    film = np.asarray(chest_phantom().convert("RGB")) * np.array([1, 0.75, 0.5])
    found = check("cxr", Image.fromarray(film.astype(np.uint8)))
    assert found.reason == "This picture has colours; chest X-rays are grey."


def test_missing_colours_are_named_for_tissue():
    reason = "This picture has no colours; stained tissue (H&E) is pink and violet."
    for picture in (chest_phantom(), tissue_like(colours=False)):
        assert check("histopathology", picture).reason == reason


def test_a_grey_page_is_refused_for_something_else_than_its_colour(rubbish):
    reasons = {check("cxr", page).reason for page in rubbish["pages and screens in grey"]}
    assert all("colour" not in reason for reason in reasons)
    assert any("fitted" not in reason and "chest X-ray" in reason for reason in reasons)


@pytest.mark.parametrize("task", TASKS)
def test_every_reason_is_one_plain_sentence(task):
    images = measured(task)["fitted_on"]
    assert set(Reasons.model_fields) == {*GROUPS, "grey"}
    reasons = TASKS[task].unfamiliar
    for _, text in (*reasons, ("blank", modality.REASON_BLANK), *Reasons()):
        sentence = text.format(images=images)
        assert sentence.endswith(".") and "{" not in sentence
        assert "e.g." in sentence or sentence.count(". ") == 0
    assert f"{images:,}" in reasons.texture.format(images=images)


# --- What does not depend on the file ---------------------------------------------------------


def saved(image: Image.Image, **options) -> Image.Image:
    file = BytesIO()
    image.save(file, **options)
    return read_image(file.getvalue()).pixels


@pytest.mark.parametrize("save", [
    lambda image: saved(image, format="PNG"),
    lambda image: saved(image, format="JPEG", quality=60),
    lambda image: saved(image.resize((2048, 2048), Image.Resampling.BICUBIC), format="WEBP"),
    lambda image: image.resize((160, 160), Image.Resampling.BOX),
    lambda image: image.convert("RGB"),
])  # fmt: skip
def test_size_and_compression_hardly_move_the_score(save):
    film = chest_phantom(900, 900)
    before, after = check("cxr", film), check("cxr", save(film))
    assert after.familiar == before.familiar
    assert after.score == pytest.approx(before.score, rel=0.1)


def test_jpeg_of_a_grey_film_does_not_count_as_colour():
    film = np.asarray(chest_phantom().convert("RGB")).astype(int)
    tinted = Image.fromarray((film + np.array([2, 0, -2])).clip(0, 255).astype(np.uint8))
    reference = modality.stored_reference("cxr")
    column = list(GROUPS).index("colour")
    plain, faint = (
        reference.group_scores(reference.vectors([describe(i)]))[0, column]
        for i in (chest_phantom(), tinted)
    )
    assert plain < 0.5 and faint < 0.5 * reference.group_limits[column]


def test_the_square_is_that_of_pillow():
    film = chest_phantom(3000, 2500)
    exact = np.asarray(film.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)) / 255
    assert np.abs(small_square(film) - exact).max() < 0.02


# --- The distance -----------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_distance_is_that_of_scipy(task):
    from scipy.spatial.distance import mahalanobis

    reference = modality.stored_reference(task)
    (vector,) = reference.vectors([describe(tissue_like(3))])
    wanted = min(
        mahalanobis(vector, mean, np.linalg.inv(covariance))
        for mean, covariance in zip(reference.means, reference.covariances, strict=True)
    )
    assert check(task, tissue_like(3)).score == pytest.approx(wanted, rel=1e-6)


def test_parts_cover_all_statistics_once():
    reference = modality.stored_reference("cxr")
    covered = np.concatenate([np.arange(500)[part] for part in reference.parts.values()])
    assert covered.tolist() == list(range(len(reference.centre)))
    assert list(reference.parts) == list(GROUPS)


def test_the_limit_decides():
    reference, film = modality.stored_reference("cxr"), chest_phantom()
    score = check("cxr", film).score
    near = check("cxr", film, replace(reference, limit=score + 0.1))
    far = check("cxr", film, replace(reference, limit=score - 0.1))
    assert near.familiar and near.reason is None
    assert not far.familiar and "chest X-ray" in far.reason


def test_a_task_may_be_given_whole():
    film = chest_phantom()
    assert check(get_task("cxr"), film) == check("cxr", film)


# --- Stored files -----------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_stored_statistics_are_small_and_of_one_fit(task):
    file, found = modality.FOLDER / f"{task}.safetensors", measured(task)
    assert file.stat().st_size < 300_000
    reference = modality.stored_reference(task)
    assert reference.limit == pytest.approx(found["limit"], abs=0.001)
    assert (reference.images, len(reference.means)) == (found["fitted_on"], found["clusters"])
    rate = found["validation"]["flagged"] / found["validation"]["images"]
    assert 0.005 < rate < 0.015


def test_they_are_read_as_they_were_written(tmp_path):
    reference = modality.stored_reference("cxr")
    reference.save(tmp_path / "again" / "cxr.safetensors")
    again = Reference.load(tmp_path / "again" / "cxr.safetensors")
    assert check("cxr", tissue_like(), again) == check("cxr", tissue_like(), reference)


def damage(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif how == "part":
        tensors = load_file(path)
        del tensors["means"]
        save_file(tensors, path)
    else:
        path.unlink()


@pytest.mark.parametrize("how, said", [
    ("cut", "cxr.safetensors is damaged"),
    ("part", "cxr.safetensors is damaged"),
    ("gone", "cxr.safetensors is missing; make it with `python -m train familiar"),
])  # fmt: skip
def test_a_damaged_file_is_said(how, said, tmp_path):
    path = tmp_path / "cxr.safetensors"
    modality.stored_reference("cxr").save(path)
    damage(path, how)
    with pytest.raises(FamiliarityError, match=said):
        modality.stored_reference("cxr", tmp_path)
    with pytest.raises(FamiliarityError, match=r"cxr\.json cannot be read"):
        measured("cxr", tmp_path)


def test_an_unknown_task_is_said():
    with pytest.raises(ValueError, match="There is no task 'mri'"):
        check("mri", chest_phantom())


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (2, 700), (33, 31)])
def test_odd_pictures_get_a_finite_score(mode, size):
    for task in TASKS:
        found = check(task, chest_phantom().resize(size).convert(mode))
        assert np.isfinite(found.score)


# --- In words ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_paragraph_holds_the_stored_numbers(task):
    found = measured(task)
    text = paragraph(found)
    assert text.startswith(f"**Does it look like the modality? {get_task(task).name}.**")
    assert share(found["test"]) in text
    for name, counted in (found["caught"] | found["altered"]).items():
        assert f"{name}: {counted['flagged']} of {counted['images']}" in text
    assert "No source of the test images has clearly more" in paragraph(
        found | {"high_sources": []}
    )
    assert "clearly more: a clinic." in paragraph(found | {"high_sources": ["a clinic"]})


def test_a_share_has_its_interval():
    counted = {"flagged": 3, "images": 769, "ci95": [0.0008, 0.0114]}
    assert share(counted) == "3 of 769 (0.4%; 95% interval 0.1% to 1.1%)"


def test_stored_numbers_are_plain_json():
    for task in TASKS:
        assert json.loads((modality.FOLDER / f"{task}.json").read_text()) == measured(task)
