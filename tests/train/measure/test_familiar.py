"""`train.measure.familiar`: fitting on small drawn sets, measuring by hand, and the stored numbers."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.stats import beta

from kdmodels.familiar import modality
from kdmodels.familiar.modality import check
from kdmodels.tasks import TASKS
from train.__main__ import main
from train.data.manifest import DataError, read_picture
from train.data.open import open_manifest
from train.measure import familiar as fitting
from train.measure.familiar import (
    counted,
    describe_all,
    differences,
    fit,
    measure_familiar,
    pictures_of,
)

DATA = os.environ.get("KD_DATA", "../shared/data")


@pytest.fixture
def few_pictures(monkeypatch):
    """Junk of a few pictures."""

    def some(seed):
        rng = np.random.default_rng(seed)
        for _ in range(3):
            yield "noise", Image.fromarray(rng.integers(0, 256, (90, 80, 3), dtype=np.uint8))

    monkeypatch.setattr(fitting, "junk", some)


def test_what_it_was_fitted_on_is_familiar_and_other_things_are_not(make_manifest):
    manifest = make_manifest(train=40, val=20, test=4)
    reference = fit(manifest)
    film = read_picture(manifest.split("test")[0])
    assert check("cxr", film, reference).familiar
    assert reference.images == 120 and reference.limit > 0
    pixels = np.asarray(film)
    for other in (ImageOps.colorize(film.convert("L"), "red", "yellow"), Image.new("L", film.size),
                  Image.fromarray(np.random.default_rng(0).permuted(pixels, axis=0))):  # fmt: skip
        found = check("cxr", other, reference)
        assert not found.familiar and found.score > 1.5 * reference.limit


def test_the_limit_is_passed_by_a_hundredth_of_the_validation_images(make_manifest):
    manifest = make_manifest(train=30, val=70, test=1)
    reference = fit(manifest)
    scores = reference.scores(reference.vectors(describe_all(pictures_of(manifest.split("val")))))
    assert (scores > reference.limit).sum() == 3  # of 210
    assert np.isfinite(reference.group_limits).all() and (reference.group_limits > 1).all()


def test_fitting_again_gives_the_same_and_a_changed_file_another_result(make_manifest):
    manifest = make_manifest(train=8, val=4, test=1)
    first, again = fit(manifest).tensors(), fit(manifest).tensors()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    sample = manifest.split("train")[0]
    ImageOps.invert(Image.open(sample.path).convert("RGB")).save(sample.path)
    changed = fit(manifest).tensors()
    assert not np.array_equal(first["centre"], changed["centre"])
    assert not np.array_equal(first["limit"], changed["limit"])


def test_test_images_do_not_move_what_is_fitted(make_manifest):
    manifest = make_manifest(train=8, val=4, test=2)
    before = fit(manifest).tensors()
    for sample in manifest.split("test"):
        Image.new("RGB", (32, 32), "red").save(sample.path)
    after = fit(manifest).tensors()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_false_alarms_are_counted_by_class_and_source(make_manifest, few_pictures):
    manifest = make_manifest(train=30, val=15, test=10)
    odd = [s for s in manifest.split("test") if s.label == "covid" and s.source == "source 1"]
    for sample in odd:
        Image.new("RGB", (32, 32), "red").save(sample.path)
    other = make_manifest(train=1, val=1, test=2, task="histopathology")
    found = measure_familiar(fit(manifest), manifest, [other])
    assert (found["test"]["flagged"], found["test"]["images"]) == (len(odd), 30) == (5, 30)
    assert {n: c["flagged"] for n, c in found["classes"].items()} == {
        "covid": 5, "normal": 0, "pneumonia": 0,
    }  # fmt: skip
    assert {n: (c["flagged"], c["images"]) for n, c in found["sources"].items()} == {
        "source 0": (0, 15), "source 1": (5, 15),
    }  # fmt: skip
    assert found["high_sources"] == []  # 5 of 15 is not clearly more than 5 of 30
    assert found["caught"]["noise"]["images"] == 3
    assert found["caught"]["test images of histopathology"]["flagged"] == 10
    assert found["caught"]["test images of histopathology in grey"]["images"] == 10
    assert found["fitted_on"] == 90 and found["data"] == manifest.id
    assert {c["images"] for c in found["encoded"].values()} == {8}
    assert found["altered"]["inverted"]["images"] == 30
    json.dumps(found)


def test_a_source_with_far_more_false_alarms_is_named(make_manifest, few_pictures):
    manifest = make_manifest(train=30, val=15, test=10)
    samples = []
    for sample in manifest.samples:
        if sample.split == "test" and sample.label == "covid":
            Image.new("RGB", (32, 32), "red").save(sample.path)
            sample = replace(sample, source="a clinic")
        samples.append(sample)
    found = measure_familiar(fit(manifest), replace(manifest, samples=tuple(samples)))
    assert found["high_sources"] == ["a clinic"]
    assert "clearly more: a clinic." in modality.paragraph(found | {"task": "cxr"})


@pytest.mark.parametrize("k, n", [(0, 20), (3, 769), (20, 20)])
def test_intervals_are_those_of_clopper_and_pearson(k, n):
    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    found = counted(np.arange(n) < k)
    assert (found["flagged"], found["images"]) == (k, n)
    assert found["ci95"] == pytest.approx([low, high], abs=1e-4)


def test_an_image_that_cannot_be_read_is_named(make_manifest):
    manifest = make_manifest(train=2, val=2, test=1)
    path = manifest.split("val")[1].path
    Path(path).write_bytes(b"no image")
    with pytest.raises(DataError, match=f"{Path(path).name} cannot be read: "):
        fit(manifest)


def test_the_command_stores_and_compares(
    write_starter, few_pictures, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(modality, "FOLDER", tmp_path / "stored")
    caplog.set_level(logging.INFO, logger="train")
    words = ["familiar", "--task", "cxr", "--data", str(write_starter(tmp_path / "data"))]
    assert main([*words, "--write"]) == 0
    assert "Not measured on images of the task 'histopathology'" in caplog.text
    stored = modality.measured("cxr", tmp_path / "stored")
    assert modality.paragraph(stored) in caplog.text
    assert modality.stored_reference("cxr", tmp_path / "stored").images == stored["fitted_on"] == 18
    caplog.clear()
    assert main(words) == 0
    assert "As stored." in caplog.text
    stored["test"]["flagged"] += 1
    (tmp_path / "stored" / "cxr.json").write_text(json.dumps(stored))
    assert main(words) == 0
    assert "DIFFERS from what is stored: ['test.flagged']" in caplog.text


@pytest.mark.data
@pytest.mark.parametrize("task", TASKS)
def test_the_stored_false_alarms_are_those_of_the_test_images(task):
    try:
        manifest = open_manifest(task, DATA, check=False)
    except DataError as error:
        pytest.skip(f"no data: {error}")
    stored = modality.measured(task)
    if manifest.id != stored["data"]:
        pytest.skip(f"the data are {manifest.id}, not {stored['data']}")
    label = min(stored["classes"], key=lambda name: stored["classes"][name]["images"])
    samples = [s for s in manifest.split("test") if s.label == label]
    alarms = [not check(task, read_picture(s)).familiar for s in samples]
    assert {"flagged": sum(alarms), "images": len(alarms)}.items() <= stored["classes"][
        label
    ].items()


def test_differences_name_what_moved_beyond_rounding():
    stored = {"a": 0.5, "b": {"c": [1.0, 2.0]}, "n": 3}
    assert differences(stored, {"a": 0.502, "b": {"c": [1.0, 2.0]}, "n": 3}) == []
    assert differences(stored, {"a": 0.51, "b": {"c": [1.0, 2.2]}, "n": 4}) == ["a", "b.c[1]", "n"]


def test_differences_name_what_is_missing_or_new():
    stored = {"a": 0.5, "b": {"c": 1}}
    assert differences(stored, {"a": 0.5}) == ["b"]
    assert differences(stored, {"a": 0.5, "b": {"c": 1, "d": 2}}) == ["b.d"]
    assert differences({}, {"a": [1]}) == ["a"]
    assert differences([1, 2], [1], name="x") == ["x"]
