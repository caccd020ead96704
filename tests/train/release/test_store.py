"""`train.release.store`: what is refused never reaches `weights/`, and results are kept whole."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import train.release.store
from kdmodels.models.checkpoints import Index, sha256_of
from kdmodels.models.zoo import TEACHERS
from kdmodels.predict import Classifier
from train.data.manifest import Manifest, labels_of
from train.learn.runs import write_safetensors
from train.measure.calibration import fit_temperature
from train.measure.predictions import logits_of
from train.release.store import (
    StoreError,
    store_again,
    store_run,
)


@pytest.fixture(autouse=True)
def folder(weights):
    """Every test here has an empty weights folder of its own."""
    return weights


@pytest.fixture
def manifest(make_manifest):
    return make_manifest(train=1, val=1, test=6, group_size=2)


# --- Storing ---------------------------------------------------------------------------------


def test_a_stored_run_is_a_file_and_a_row(finish_run, manifest, weights):
    run = finish_run(manifest, "ofa_595", "vgg19", seed=5)
    row = store_run(run, manifest)
    file = weights / "cxr-ofa_595-from-vgg19.safetensors"
    assert (row.file, row.storage, row.seed, row.teacher) == (file.name, "int8", 5, "vgg19")
    assert (row.recipe, row.data) == ("train/recipes/cxr-ofa_595-from-vgg19.yaml", manifest.id)
    assert (row.variant, row.teacher_sha256) == ("", None)
    assert row.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert row.bytes == file.stat().st_size
    assert file.stat().st_mode == (weights / "index.json").stat().st_mode  # others may read it
    index = Index.read(weights)
    assert index.find("cxr", "ofa_595", "vgg19") == row
    loaded = index.load(row).state_dict()
    for name, tensor in load_file(run / "best.safetensors").items():
        error = (loaded[name] - tensor).float().norm()
        assert error <= 0.05 * tensor.float().norm()
    assert sorted(p.name for p in weights.iterdir()) == [file.name, "index.json"]


def test_a_stored_file_changes_its_storage_type(finish_run, manifest, weights):
    first = store_run(finish_run(manifest, "ofa_595", "vgg19", seed=5), manifest, "float16")
    measured = replace(first, temperature=2.0)
    replace(Index.read(weights), checkpoints=(measured,)).write()
    before = Index.read(weights).load(first).state_dict()
    again = store_again(Path("anywhere") / first.file, manifest, "float32")
    assert Index.read(weights).checkpoints == (again,)
    assert again.sha256 != first.sha256 and again.bytes > 1.5 * first.bytes
    same = ("file", "storage", "sha256", "bytes")
    assert replace(again, **{k: getattr(first, k) for k in same}) == first  # T is fitted anew
    loaded = Index.read(weights).load(again).state_dict()
    assert all(torch.equal(loaded[k], before[k]) for k in loaded)


def test_a_file_that_is_not_stored_or_of_other_data_is_said(finish_run, manifest, weights):
    with pytest.raises(StoreError, match=r"holds no mine\.safetensors that was trained on"):
        store_run(finish_run(manifest), manifest)
        store_again(Path("mine.safetensors"), manifest, "int8")
    with pytest.raises(StoreError, match="that was trained on other"):
        store_again(
            Path("cxr-ofa_595-labels.safetensors"), replace(manifest, name="other"), "float32"
        )


def test_a_teacher_is_stored_as_int6_unless_it_is_named(finish_run, manifest):
    run = finish_run(manifest, "vgg19")
    try:
        assert store_run(run, manifest).storage == "int6"
    except StoreError as error:  # a random network may well change its mind
        assert "vgg19" in str(error) and "as int6 moves" in str(error)
    assert store_run(run, manifest, "float32").storage == "float32"


def test_storing_again_replaces_the_row(finish_run, manifest, weights):
    run = finish_run(manifest)
    first = store_run(run, manifest, "float32")
    state = load_file(run / "best.safetensors")
    state["head.bias"] += 1
    write_safetensors(state, run / "best.safetensors", {})
    second = store_run(run, manifest, "float32")
    assert first.sha256 != second.sha256
    assert Index.read(weights).checkpoints == (second,)


def test_a_storage_type_that_moves_the_accuracy_is_refused(
    finish_run, manifest, weights, monkeypatch
):
    kept = store_run(finish_run(manifest), manifest, "float32")
    networks = []

    def logits_of(classifier, samples):
        """All right as trained; two of the validation images wrong as stored."""
        assert {s.split for s in samples} == {"val"}
        networks.append(classifier.model.state_dict())
        logits = np.eye(3)[[manifest.task.class_ids.index(s.label) for s in samples]]
        if len(networks) == 2:
            logits[:2] = logits[-1]
        return logits

    monkeypatch.setattr(train.release.store, "logits_of", logits_of)
    run = finish_run(manifest, change=0.5, seed=1)
    with pytest.raises(StoreError, match=r"cxr-ofa_595-labels\.safetensors as int8 moves"):
        store_run(run, manifest)
    trained = load_file(run / "best.safetensors")["head.weight"]
    assert torch.equal(networks[0]["head.weight"], trained)
    assert torch.equal(networks[1]["head.weight"], trained.half().float())  # too small for int6
    assert Index.read(weights).checkpoints == (kept,)
    assert sha256_of(weights / kept.file) == kept.sha256


@pytest.mark.parametrize("images, wrong, is_refused", [
    (3, 1, False), (3, 2, True), (999, 1, False), (999, 2, True), (2000, 3, False), (2000, 5, True),
])  # fmt: skip
def test_the_accuracy_may_move_by_a_fifth_of_a_point_or_by_one_image(
    finish_run, make_manifest, monkeypatch, images, wrong, is_refused
):
    manifest = make_manifest(train=1, val=1, test=1)
    first = manifest.split("val")
    many = Manifest.split  # of as many copies as are wanted
    monkeypatch.setattr(
        Manifest, "split",
        lambda self, name: (first * images)[:images] if name == "val" else many(self, name),
    )  # fmt: skip
    calls = []

    def logits_of(classifier, samples):
        calls.append(classifier)
        logits = np.eye(3)[[manifest.task.class_ids.index(s.label) for s in samples]]
        if len(calls) == 2:
            logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
        return logits

    monkeypatch.setattr(train.release.store, "logits_of", logits_of)
    run = finish_run(manifest)
    if is_refused:
        with pytest.raises(StoreError, match="moves the accuracy too much"):
            store_run(run, manifest)
    else:
        assert store_run(run, manifest).storage == "int8"


def test_a_storage_type_is_chosen_on_validation_alone(finish_run, make_manifest, monkeypatch):
    """All test images may be answered otherwise, and nobody looks."""
    manifest = make_manifest(train=1, val=2, test=1)
    looked = []

    def logits_of(classifier, samples):
        looked.extend(samples)
        return np.eye(3)[[manifest.task.class_ids.index(s.label) for s in samples]]

    monkeypatch.setattr(train.release.store, "logits_of", logits_of)
    store_run(finish_run(manifest), manifest)
    assert set(looked) == set(manifest.split("val"))


def test_the_temperature_is_fitted_on_validation(finish_run, make_manifest, weights):
    manifest = make_manifest(train=1, val=6, test=1)
    row = store_run(finish_run(manifest, change=0.1), manifest, "float32")
    logits = logits_of(Classifier.load(Index.read(weights), row), manifest.split("val"))
    labels = labels_of(manifest.split("val"), manifest.task)
    assert row.temperature == fit_temperature(logits, labels) != 1
    assert Index.read(weights).checkpoints == (row,)


# --- Teachers --------------------------------------------------------------------------------


def test_a_student_names_the_teacher_that_it_learned_from(finish_run, manifest, weights):
    teacher = store_run(finish_run(manifest, "vgg19"), manifest, "float32")
    run = finish_run(manifest, "ofa_595", "vgg19", teacher_sha256=teacher.sha256)
    assert store_run(run, manifest, "float32").teacher_sha256 == teacher.sha256
    assert Index.read(weights).teachers("cxr") == ["vgg19"]


def test_a_student_of_a_teacher_that_was_replaced_is_refused(finish_run, manifest, weights):
    teacher = store_run(finish_run(manifest, "vgg19"), manifest, "float32")
    run = finish_run(manifest, "ofa_595", "vgg19", teacher_sha256=teacher.sha256)
    store_again(Path(teacher.file), manifest, "float16")
    before = (weights / "index.json").read_bytes()
    with pytest.raises(StoreError, match="learned from other weights of vgg19 than"):
        store_run(run, manifest, "float32")
    assert (weights / "index.json").read_bytes() == before


def test_of_several_teachers_the_replaced_one_is_named(finish_run, manifest):
    rows = {t: store_run(finish_run(manifest, t), manifest, "float32") for t in TEACHERS}
    learned_from = "+".join(row.sha256 for row in rows.values())
    run = finish_run(manifest, "ofa_595", "+".join(TEACHERS), teacher_sha256=learned_from)
    assert store_run(run, manifest, "float32").teacher_sha256 == learned_from
    store_again(Path(rows[TEACHERS[1]].file), manifest, "float16")
    with pytest.raises(StoreError, match=f"other weights of {TEACHERS[1]} than"):
        store_run(run, manifest, "float32")


def test_a_large_file_is_refused_and_not_stored(finish_run, manifest, weights, monkeypatch):
    monkeypatch.setattr(train.release.store, "MAX_BYTES", 2000)
    with pytest.raises(StoreError, match=r"labels\.safetensors has [\d,]+ bytes, more than 2,000"):
        store_run(finish_run(manifest), manifest)
    assert not (weights / "index.json").exists()
