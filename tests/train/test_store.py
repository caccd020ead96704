"""`train.store`: what is refused never reaches `weights/`, and what is stored is evaluated."""

import hashlib
import json
import logging

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import train.store
from kdmodels.checkpoints import CheckpointError, Index, sha256_of
from kdmodels.zoo import build_model
from train.datasets import DataError
from train.evaluate import summarise
from train.recipes import Phase, to_dict
from train.runs import RunFolder, RunState, write_safetensors
from train.store import StoreError, differences, evaluate_task, read_results, store_run

FLOORS = [{"name": "majority class", "accuracy": 0.3333, "macro_f1": 0.1667}]


@pytest.fixture(autouse=True)
def weights(tiny_models, tmp_path, monkeypatch):
    """An empty weights folder for the length of a test; no forests."""
    folder = tmp_path / "weights"
    monkeypatch.setattr(train.store, "WEIGHTS", folder)
    monkeypatch.setattr(Index.read.__func__, "__defaults__", (folder,))
    monkeypatch.setattr(train.store, "measure_floors", lambda manifest: FLOORS)
    return folder


@pytest.fixture
def manifest(make_manifest):
    return make_manifest(train=1, val=1, test=6, group_size=2)


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    folder = tmp_path / "recipes"
    monkeypatch.setattr(train.store, "FOLDER", folder)
    return folder


@pytest.fixture
def finish_run(make_recipe, manifest, tmp_path, recipes):
    """Make the folder of a finished run, with weights as the network is built."""

    def finish(model="ofa_595", teacher=None, change=0.0, data=manifest.id, seed=0, finished=True):
        name = f"cxr-{model}" + (f"-from-{teacher}" if teacher else "")
        objective = "hybrid" if teacher else "labels"
        recipe = make_recipe(
            Phase(size=32, epochs=1, lr=0.1),
            name=name, model=model, teacher=teacher, objective=objective, seed=seed,
        )  # fmt: skip
        folder = RunFolder(tmp_path / "runs" / name, recipe, data)
        state = build_model(model, 3).state_dict()
        state["head.weight"] = state["head.weight"] + change
        state["head.weight"][0] -= 2 * change
        write_safetensors(state, folder.best_file, {})
        folder.save_state(RunState(finished=finished))
        recipes.mkdir(exist_ok=True)
        (recipes / f"{name}.yaml").write_text(
            yaml.safe_dump(json.loads(json.dumps(to_dict(recipe))))
        )
        return folder.path

    return finish


@pytest.fixture
def stored(finish_run, manifest):
    """A teacher, its student and the control, stored."""
    runs = [("vgg19", None, 0.0), ("ofa_595", None, 0.0), ("ofa_595", "vgg19", 0.3)]
    return [store_run(finish_run(*run), manifest, "float32") for run in runs]


def test_a_stored_run_is_a_file_and_a_row(finish_run, manifest, weights):
    run = finish_run("ofa_595", "vgg19", seed=5)
    row = store_run(run, manifest)
    file = weights / "cxr-ofa_595-from-vgg19.safetensors"
    assert (row.file, row.storage, row.seed, row.teacher) == (file.name, "float16", 5, "vgg19")
    assert (row.recipe, row.data) == ("train/recipes/cxr-ofa_595-from-vgg19.yaml", manifest.id)
    assert row.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert row.bytes == file.stat().st_size
    index = Index.read(weights)
    assert index.find("cxr", "ofa_595", "vgg19") == row
    loaded = index.load(row).state_dict()
    for name, tensor in load_file(run / "best.safetensors").items():
        assert torch.allclose(loaded[name], tensor, rtol=1e-3, atol=1e-4)
    assert sorted(p.name for p in weights.iterdir()) == [file.name, "index.json"]


def test_a_teacher_is_stored_as_int8_unless_it_is_named(finish_run, manifest):
    run = finish_run("vgg19")
    try:
        assert store_run(run, manifest).storage == "int8"
    except StoreError as error:  # a random network may well change its mind
        assert "vgg19" in str(error) and "as int8 moves" in str(error)
    assert store_run(run, manifest, "float32").storage == "float32"


def test_storing_again_replaces_the_row(finish_run, manifest, weights):
    first = store_run(finish_run(), manifest, "float32")
    state = load_file(weights.parent / "runs" / "cxr-ofa_595" / "best.safetensors")
    state["head.bias"] += 1
    write_safetensors(state, weights.parent / "runs" / "cxr-ofa_595" / "best.safetensors", {})
    second = store_run(weights.parent / "runs" / "cxr-ofa_595", manifest, "float32")
    assert first.sha256 != second.sha256
    assert Index.read(weights).checkpoints == (second,)


def test_a_storage_type_that_moves_the_accuracy_is_refused(
    finish_run, manifest, weights, monkeypatch
):
    kept = store_run(finish_run(), manifest, "float32")
    networks = []

    def logits_of(classifier, samples):
        """All right as trained; one of the 18 images wrong as stored."""
        networks.append(classifier.model.state_dict())
        logits = np.eye(3)[[manifest.task.class_ids.index(s.label) for s in samples]]
        if len(networks) == 2:
            logits[0] = logits[-1]
        return logits

    monkeypatch.setattr(train.store, "logits_of", logits_of)
    run = finish_run(change=0.5)
    with pytest.raises(StoreError, match=r"cxr-ofa_595-labels\.safetensors as float16 moves"):
        store_run(run, manifest)
    trained = load_file(run / "best.safetensors")["head.weight"]
    assert torch.equal(networks[0]["head.weight"], trained)
    assert torch.equal(networks[1]["head.weight"], trained.half().float())
    assert Index.read(weights).checkpoints == (kept,)
    assert sha256_of(weights / kept.file) == kept.sha256


def test_a_large_file_is_refused_and_not_stored(finish_run, manifest, weights, monkeypatch):
    monkeypatch.setattr(train.store, "MAX_BYTES", 2000)
    with pytest.raises(StoreError, match=r"labels\.safetensors has [\d,]+ bytes, more than 2,000"):
        store_run(finish_run(), manifest)
    assert not (weights / "index.json").exists()


def test_a_run_on_other_data_is_refused(finish_run, manifest, weights):
    run = finish_run(data="other@123456789abc")
    with pytest.raises(StoreError, match=f"trained on other@123456789abc, not on {manifest.id}"):
        store_run(run, manifest)
    assert not weights.exists()


@pytest.mark.parametrize("missing", ["run.yaml", "best.safetensors"])
def test_a_folder_without_a_run_is_refused(finish_run, manifest, missing):
    run = finish_run()
    (run / missing).unlink()
    with pytest.raises(StoreError, match=r"cxr-ofa_595 is no run folder with trained weights"):
        store_run(run, manifest)


# --- Evaluation ------------------------------------------------------------------------------


def test_results_are_stored_and_found_again(stored, manifest, weights, caplog):
    caplog.set_level(logging.INFO, logger="train")
    evaluate_task(manifest, "test", write=False)
    assert caplog.text.count("DIFFERS from the index") == 3
    evaluate_task(manifest, "test", write=True)
    caplog.clear()
    evaluate_task(manifest, "test", write=False)
    assert caplog.text.count("equals the index") == 3 and "DIFFERS" not in caplog.text
    index = Index.read(weights)
    assert [c.sha256 for c in index.checkpoints] == [
        index.find(c.task, c.model, c.teacher).sha256 for c in index.checkpoints
    ]
    for row in index.checkpoints:
        assert row.sha256 in {c.sha256 for c in stored}
        assert row.metrics["images"] == 18 and row.metrics["groups"] == 9


def test_stored_metrics_are_those_of_the_stored_weights(stored, manifest, weights):
    evaluate_task(manifest, "test", write=True)
    index = Index.read(weights)
    for row in index.checkpoints:
        classifier = train.store.Classifier.load(index, row)
        samples = manifest.split("test")
        logits = train.store.logits_of(classifier, samples)
        assert row.metrics == summarise(logits, samples, manifest.task)


def test_results_hold_the_floors_and_what_distillation_changed(stored, manifest, weights):
    assert read_results() == {}
    evaluate_task(manifest, "test", write=True)
    results = read_results()["cxr"]
    assert (results["data"], results["floors"]) == (manifest.id, FLOORS)
    assert list(results["distillation"]) == ["vgg19"]
    index = Index.read(weights)
    student, control = (index.find("cxr", "ofa_595", t).metrics for t in ("vgg19", None))
    for name in ("accuracy", "macro_f1"):
        change = results["distillation"]["vgg19"][name]
        difference = student[name]["value"] - control[name]["value"]
        assert change["value"] == pytest.approx(difference, abs=2e-4)
        assert change["ci95"][0] <= change["value"] <= change["ci95"][1]


def test_the_files_are_json_for_everyone(stored, manifest, weights):
    evaluate_task(manifest, "test", write=True)

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    for name in ("index.json", "results.json"):
        json.loads((weights / name).read_text(), parse_constant=refuse)


def test_weights_trained_on_other_data_are_not_evaluated(stored, make_manifest):
    other = make_manifest(train=1, val=1, test=3)
    files = r"cxr-vgg19\.safetensors, .* was trained on other data than generated@"
    with pytest.raises(DataError, match=files):
        evaluate_task(other, "test", write=True)
    assert read_results() == {}


def test_only_the_test_split_is_stored(stored, manifest, weights):
    before = (weights / "index.json").read_bytes()
    with pytest.raises(DataError, match="Only results of the test split are stored"):
        evaluate_task(manifest, "val", write=True)
    evaluate_task(manifest, "val", write=False)
    assert (weights / "index.json").read_bytes() == before


def test_evaluation_without_weights_says_so(manifest):
    with pytest.raises(CheckpointError, match=r"index\.json is missing"):
        evaluate_task(manifest, "test", write=False)


def test_a_run_folder_names_its_recipe(finish_run):
    identity = yaml.safe_load((finish_run() / "run.yaml").read_text())
    assert set(identity) == {"recipe", "data", "teacher_sha256", "settings"}
    assert identity["recipe"]["name"] == "cxr-ofa_595"


def test_an_unfinished_run_is_refused(finish_run, manifest):
    with pytest.raises(StoreError, match="is not finished"):
        store_run(finish_run(finished=False), manifest)


def test_a_run_of_a_recipe_that_has_changed_is_refused(finish_run, manifest, recipes):
    run = finish_run()
    file = recipes / "cxr-ofa_595.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 0\nbatch_size: 5"))
    with pytest.raises(StoreError, match="as it stands"):
        store_run(run, manifest)
    file.unlink()
    with pytest.raises(StoreError, match="as it stands"):
        store_run(run, manifest)


def test_differences_name_what_moved_beyond_rounding():
    stored = {"a": 0.5, "b": {"c": [1.0, 2.0]}, "n": 3}
    assert differences(stored, {"a": 0.502, "b": {"c": [1.0, 2.0]}, "n": 3}) == []
    assert differences(stored, {"a": 0.51, "b": {"c": [1.0, 2.2]}, "n": 4}) == ["a", "b.c[1]", "n"]
    assert differences(stored, {"a": 0.5}) == [""]
