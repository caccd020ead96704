"""`train.measure.lungs`: a finder that is always right, and one that never is, on drawn films."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from kdmodels.lungs import LungFinder
from kdmodels.lungs.unet import SIDE
from kdmodels.tasks import get_task
from train.data.manifest import Sample
from train.measure import lungs as measured
from train.measure.kept_rows import LungRow, read_rows, write_rows
from train.measure.lungs import PLAIN, REFUSED, SPOILED, dice_of, lungs_task, rows_of
from train.measure.lungs_numbers import lung_numbers

DARK = LungFinder(lambda film: -20 * film - 10, 0.5)  # dark places are lung, as they were drawn


@pytest.fixture
def films(tmp_path):
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    inside = sum(
        ((x - c - lean * (y - 0.5)) / 0.12) ** 2 + ((y - 0.5) / 0.3) ** 2 < 1
        for c, lean in ((0.28, -0.15), (0.72, 0.15))
    )
    samples = []
    for i in range(4):
        film, mask = tmp_path / f"{i}.png", tmp_path / f"{i}-mask.png"
        Image.fromarray(np.where(inside > 0, 60, 180 + 5 * i).astype(np.uint8)).save(film)
        Image.fromarray(((inside > 0) * 255).astype(np.uint8)).save(mask)
        source = "a" if i < 3 else "b"
        samples.append(Sample(film, "normal", "test", f"group {i // 2}", source, mask))
    return samples


@pytest.fixture(autouse=True)
def little_junk(monkeypatch):
    grains = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)
    monkeypatch.setattr(measured, "junk", lambda: [("noise", Image.fromarray(grains))])


def test_dice_of_two_masks():
    a = np.array([[True, True], [False, False]])
    b = np.array([[True, False], [True, False]])
    assert dice_of(a, b) == 0.5
    assert dice_of(a, ~a) == 0
    assert dice_of(a & ~a, a & ~a) == 1


def test_a_finder_that_is_right_is_said_to_be(films):
    found = lung_numbers(list(rows_of(DARK, "f" * 64, films, films[:1])))
    plain = found.versions[0]
    assert (plain.name, plain.films, plain.doubted) == (PLAIN, 4, 0)
    assert plain.dice.value > 0.99
    assert [v.name for v in found.versions] == list(SPOILED)
    assert {v.name: v.dice.value > 0.9 for v in found.versions}["letters"]
    assert {v.name: v.dice.value for v in found.versions}[
        "inverted"
    ] < 0.5  # dark is not lung there
    assert [(s.name, s.films) for s in found.sources] == [("a", 3), ("b", 1)]
    refused = {r.name: r for r in found.refused}
    assert set(refused) == {*REFUSED, "other images", "noise"}
    for name in ("upside down", "left half", "two films in one picture", "turned by 90 degrees"):
        assert refused[name].refused == refused[name].pictures == 4
    assert refused["upside down"].reason.startswith("The lungs seem to be upside down")
    assert refused["other images"].refused == 0  # it is a film


def test_a_mask_moves_with_its_film(films):
    """Else a right finder would be wrong on every film that was turned or got borders."""
    found = lung_numbers(list(rows_of(DARK, "f" * 64, films, [])))
    dice = {v.name: v.dice.value for v in found.versions}
    # What is black around the film is as dark as the lungs, so a threshold alone finds it too.
    nothing = LungFinder(lambda film: torch.full_like(film, -10.0))
    wrong = lung_numbers(list(rows_of(nothing, "f" * 64, films, [])))
    assert all(v.dice.value == 0 and v.doubted == 4 for v in wrong.versions)
    assert dice["turned by 15 degrees"] > 0.7


def test_rows_are_kept_and_a_changed_one_is_noticed(films, tmp_path, monkeypatch):
    class Data:
        task, name = get_task("cxr"), "films"

        def split(self, name):
            return films

    class Weights:
        folder, lungs = tmp_path, type("Row", (), {"sha256": "f" * 64})

    monkeypatch.setenv("KD_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(measured, "stored_finder", lambda: DARK)
    monkeypatch.setattr(measured.Index, "read", lambda: Weights)
    assert lungs_task(Data(), [], write=True) == []
    assert lungs_task(Data(), []) == []
    file = tmp_path / "results" / "cxr" / "lungs.csv"
    rows = list(read_rows(file, LungRow))
    assert math.isnan(rows[-1].dice)
    rows[0] = LungRow(**vars(rows[0]) | {"dice": 0.5})
    write_rows(file, rows)
    assert len(lungs_task(Data(), [])) == 1


def test_nothing_kept_gives_no_numbers():
    assert lung_numbers([]) is None
