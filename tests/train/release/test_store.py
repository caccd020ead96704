"""`train.release.store`: what is refused never reaches `weights/`, and results are kept whole."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import train.release.store
from kdmodels.models.checkpoints import Index, sha256_of
from kdmodels.models.zoo import TEACHERS
from train.learn.runs import write_safetensors
from train.release.store import (
    StoreError,
    as_trained,
    differences,
    read_results,
    read_run,
    results_file,
    store_again,
    store_run,
    update_results,
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
    assert (row.variant, row.temperature, row.metrics) == ("", 1.0, {})
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
    measured = replace(first, temperature=2.0, metrics={"accuracy": 0.5})
    replace(Index.read(weights), checkpoints=(measured,)).write()
    before = Index.read(weights).load(first).state_dict()
    again = store_again(Path("anywhere") / first.file, manifest, "float32")
    assert Index.read(weights).checkpoints == (again,)
    assert again.sha256 != first.sha256 and again.bytes > 1.5 * first.bytes
    same = ("file", "storage", "sha256", "bytes")
    assert replace(again, **{k: getattr(first, k) for k in same}) == first  # measured anew
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


@pytest.mark.parametrize("teacher, objective, variant, stem", [
    (None, "labels", "", "cxr-ofa_595-labels"),
    ("vgg19", "attention", "attention", "cxr-ofa_595-from-vgg19-attention"),
    ("+".join(TEACHERS), "multi_teacher", "", "cxr-ofa_595-from-all"),
])  # fmt: skip
def test_a_row_is_called_as_its_recipe(finish_run, manifest, teacher, objective, variant, stem):
    row, _ = read_run(finish_run(manifest, "ofa_595", teacher, objective=objective), manifest.id)
    assert (row.variant, row.stem) == (variant, stem)
    assert row.recipe == f"train/recipes/{stem}.yaml"


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


def test_the_network_of_a_run_is_the_one_that_was_trained(finish_run, manifest):
    run = finish_run(manifest, change=0.25)
    row, state = read_run(run, manifest.id)
    classifier = as_trained(row, state)
    trained = load_file(run / "best.safetensors")
    assert all(torch.equal(v, trained[k]) for k, v in classifier.model.state_dict().items())
    assert not classifier.model.training and classifier.spec.input_size == 32


def test_a_storage_type_that_moves_the_accuracy_is_refused(
    finish_run, manifest, weights, monkeypatch
):
    kept = store_run(finish_run(manifest), manifest, "float32")
    networks = []

    def logits_of(classifier, samples):
        """All right as trained; one of the 21 images wrong as stored."""
        networks.append(classifier.model.state_dict())
        logits = np.eye(3)[[manifest.task.class_ids.index(s.label) for s in samples]]
        if len(networks) == 2:
            logits[0] = logits[-1]
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


def test_a_large_file_is_refused_and_not_stored(finish_run, manifest, weights, monkeypatch):
    monkeypatch.setattr(train.release.store, "MAX_BYTES", 2000)
    with pytest.raises(StoreError, match=r"labels\.safetensors has [\d,]+ bytes, more than 2,000"):
        store_run(finish_run(manifest), manifest)
    assert not (weights / "index.json").exists()


# --- What is no run --------------------------------------------------------------------------


def test_a_run_on_other_data_is_refused(finish_run, manifest, weights):
    run = finish_run(manifest, data="other@123456789abc")
    with pytest.raises(StoreError, match=f"trained on other@123456789abc, not on {manifest.id}"):
        store_run(run, manifest)
    assert not weights.exists()


@pytest.mark.parametrize("missing", ["run.yaml", "best.safetensors", "state.safetensors"])
def test_a_folder_without_a_run_is_refused(finish_run, manifest, missing):
    run = finish_run(manifest)
    (run / missing).unlink()
    with pytest.raises(StoreError, match=r"labels-seed0 is no run folder with trained weights"):
        store_run(run, manifest)


@pytest.mark.parametrize("broken", ["run.yaml", "best.safetensors", "state.safetensors"])
def test_a_broken_run_is_refused(finish_run, manifest, broken):
    run = finish_run(manifest)
    (run / broken).write_bytes(b"recipe: [")
    with pytest.raises(StoreError, match=r"labels-seed0 is no run folder with trained weights"):
        store_run(run, manifest)


def test_a_run_folder_names_its_recipe(finish_run, manifest):
    identity = yaml.safe_load((finish_run(manifest) / "run.yaml").read_text())
    assert set(identity) == {"recipe", "data", "teacher_sha256", "settings"}
    assert identity["recipe"]["name"] == "cxr-ofa_595-labels"


def test_an_unfinished_run_is_refused(finish_run, manifest):
    with pytest.raises(StoreError, match="is not finished"):
        store_run(finish_run(manifest, finished=False), manifest)


def test_a_trial_of_a_few_steps_is_refused(finish_run, manifest):
    with pytest.raises(StoreError, match="is a trial with --max-steps 2, not a whole training"):
        store_run(finish_run(manifest, settings={"max_steps": 2}), manifest)


def test_a_run_of_a_recipe_that_has_changed_is_refused(finish_run, manifest, recipes):
    run = finish_run(manifest)
    file = recipes / "cxr-ofa_595-labels.yaml"
    file.write_text(file.read_text().replace("batch_size: 4", "batch_size: 5"))
    with pytest.raises(StoreError, match="as it stands"):
        store_run(run, manifest)
    file.unlink()
    with pytest.raises(StoreError, match="as it stands"):
        store_run(run, manifest)


# --- results.json ----------------------------------------------------------------------------


def test_a_part_of_the_results_is_replaced_and_the_others_stay(weights):
    assert read_results() == {}
    weights.mkdir()
    update_results("cxr", floors=[1], audit={"a": 2})
    update_results("histopathology", floors=[3])
    update_results("cxr", floors=[4], seeds={})
    assert read_results() == {
        "cxr": {"floors": [4], "audit": {"a": 2}, "seeds": {}},
        "histopathology": {"floors": [3]},
    }


def test_results_that_cannot_be_written_stay_as_they_are(weights, monkeypatch):
    weights.mkdir()
    update_results("cxr", floors=[1])
    before = results_file().read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train.release.store.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        update_results("cxr", floors=[2])
    assert results_file().read_bytes() == before and json.loads(before)


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
