"""`train.measure.films`: which films the audit is of, and which not and why."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.train.measure.films import CXR, LUNGS, SIDE
from train.data.manifest import DataError
from train.measure.films import masked_films


def test_films_without_masks_are_left_out(write_films):
    manifest = write_films()
    samples = [replace(s, mask=None) if s.path.stem.endswith("0") else s for s in manifest.samples]
    films = masked_films(replace(manifest, samples=tuple(samples)))
    assert len(films.samples) == 30 and films.kept().notes == []
    assert [row["left_out"] for row in films.kept().left_out] == ["no mask"] * 6
    assert {s.split for s in films.samples} == {"test"} and films.task == CXR


def test_two_classes_at_least_are_needed(write_films):
    with pytest.raises(DataError, match=r"for 10 films each of two classes or more.* 16 films"):
        masked_films(write_films((12, 2, 2)))


@pytest.mark.parametrize("rows", [1, SIDE])
def test_masks_that_cannot_be_of_two_lungs_are_left_out_by_name(write_films, tmp_path, rows):
    manifest = write_films()
    strange = np.zeros_like(LUNGS)
    strange[:rows] = True
    Image.fromarray(strange).save(tmp_path / "strange.png")
    first = manifest.samples[-1]
    samples = (*manifest.samples[:-1], replace(first, mask=tmp_path / "strange.png"))
    films = masked_films(replace(manifest, samples=samples))
    assert len(films.samples) == 35
    (row,) = films.kept().left_out
    assert (row["name"], row["left_out"]) == (first.path.name, "no lungs")
    assert films.kept().notes == [
        "Left out: 1 films whose masks cover less than 5% or more than 75%."
    ]


def test_two_films_of_one_name_are_said(write_films, tmp_path):
    manifest = write_films()
    (tmp_path / "b").mkdir()
    *others, last = manifest.samples
    twin = replace(last, path=(tmp_path / "b" / others[-1].path.name))
    with pytest.raises(DataError, match=f"Two films of the audit are called {twin.path.name}"):
        masked_films(replace(manifest, samples=(*others, twin)))


def test_a_damaged_mask_is_named(write_films, tmp_path):
    manifest = write_films()
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"The mask .*mask\.png cannot be read"):
        masked_films(manifest)
