"""`train.measure.evaluate`: what is stored is what the weights give, and what is not is named."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

import train.measure.evaluate
from kdmodels.engines.machine import cpu_name
from kdmodels.models.checkpoints import CheckpointError, Index
from kdmodels.predict import Classifier, predict
from train.data.manifest import DataError
from train.measure.calibration import fit_temperature
from train.measure.evaluate import evaluate_all, evaluate_task
from train.measure.metrics import labels_of, logits_of, summarise
from train.release.store import StoreError, read_results, store_run, update_results

FLOORS = [{"name": "majority class", "accuracy": 0.3333, "macro_f1": 0.1667}]


@pytest.fixture(autouse=True)
def folder(weights, monkeypatch):
    """An empty weights folder, and no forests."""
    monkeypatch.setattr(train.measure.evaluate, "measure_floors", lambda manifest: FLOORS)
    return weights


@pytest.fixture
def manifest(make_manifest):
    return make_manifest(train=1, val=4, test=6, group_size=2)


@pytest.fixture
def stored(finish_run, manifest):
    """A teacher, its student and the control, stored."""
    runs = [("vgg19", None, 0.0), ("ofa_595", None, 0.0), ("ofa_595", "vgg19", 0.3)]
    return [store_run(finish_run(manifest, *run), manifest, "float32") for run in runs]


def log_of(caplog, *arguments, **keywords) -> str:
    caplog.set_level(logging.INFO, logger="train")
    caplog.clear()
    evaluate_task(*arguments, **keywords)
    return caplog.text


# --- Storing and comparing -------------------------------------------------------------------


def test_results_are_stored_and_found_again(stored, manifest, weights, caplog):
    assert log_of(caplog, manifest).count("DIFFERS from the index") == 3
    evaluate_task(manifest, write=True)
    text = log_of(caplog, manifest)
    assert text.count("equals the index") == 3 and "DIFFERS" not in text
    assert "cxr: data, floors, distillation: equals what is stored." in text
    assert evaluate_task(manifest) == []
    index = Index.read(weights)
    assert {c.sha256 for c in index.checkpoints} == {c.sha256 for c in stored}
    for row in index.checkpoints:
        assert row.metrics["images"] == 18 and row.metrics["groups"] == 9


def test_stored_metrics_are_those_of_the_stored_weights(stored, manifest, weights):
    evaluate_task(manifest, write=True)
    index = Index.read(weights)
    samples, validation = manifest.split("test"), manifest.split("val")
    for row in index.checkpoints:
        classifier = Classifier.load(index, row)
        wanted = fit_temperature(
            logits_of(classifier, validation), labels_of(validation, manifest.task)
        )
        latency = row.metrics.pop("latency")
        found = summarise(logits_of(classifier, samples), samples, manifest.task, wanted)
        assert row.metrics == found
        assert row.temperature == found["calibrated"]["temperature"] == wanted
        assert 0 < latency["q1_ms"] <= latency["median_ms"] <= latency["q3_ms"]
        assert latency["runs"] >= 10 and latency["threads"] >= 1
        assert latency["engine"].startswith("PyTorch")
        assert latency["processor"] == cpu_name()


def test_the_page_divides_by_the_stored_temperature(stored, manifest, weights, photo):
    evaluate_task(manifest, write=True)
    index = Index.read(weights)
    rows = [row for row in index.checkpoints if row.temperature != 1]
    assert rows
    for row in rows:
        prediction = predict(Classifier.load(index, row), photo)
        powers = np.exp(np.array(prediction.logits) / row.temperature)
        assert prediction.probabilities == pytest.approx(powers / powers.sum())


@pytest.mark.parametrize("part", ["metrics", "temperature", "results"])
def test_what_was_changed_by_hand_is_named(stored, manifest, weights, part):
    evaluate_task(manifest, write=True)
    index = Index.read(weights)
    first = index.checkpoints[0]
    if part == "results":
        update_results("cxr", floors=[FLOORS[0] | {"accuracy": 0.5}])
        wanted = ["cxr: floors[0].accuracy"]
    elif part == "temperature":
        first = replace(first, temperature=first.temperature + 0.1)
        wanted = [f"{first.file}: temperature"]
    else:
        accuracy = first.metrics["accuracy"] | {"value": 0.99}
        first = replace(first, metrics=first.metrics | {"accuracy": accuracy})
        wanted = [f"{first.file}: accuracy.value"]
    replace(index, checkpoints=(first, *index.checkpoints[1:])).write()
    assert evaluate_task(manifest) == wanted


def test_a_time_is_never_compared(stored, manifest, weights):
    evaluate_task(manifest, write=True)
    index = Index.read(weights)
    latency = {"median_ms": 1e6, "q1_ms": 0.0, "q3_ms": 1e9, "runs": 1, "engine": "abacus"}
    rows = [replace(c, metrics=c.metrics | {"latency": latency}) for c in index.checkpoints]
    replace(index, checkpoints=tuple(rows)).write()
    assert evaluate_task(manifest) == []


def test_a_time_stays_until_it_is_to_be_measured_again(stored, manifest, weights):
    evaluate_task(manifest, write=True)
    first = [c.metrics["latency"] for c in Index.read(weights).checkpoints]
    marked = tuple(
        replace(c, metrics=c.metrics | {"latency": {**c.metrics["latency"], "engine": "abacus"}})
        for c in Index.read(weights).checkpoints
    )
    replace(Index.read(weights), checkpoints=marked).write()
    evaluate_task(manifest, write=True)
    assert {c.metrics["latency"]["engine"] for c in Index.read(weights).checkpoints} == {"abacus"}
    evaluate_task(manifest, write=True, times=True)
    again = [c.metrics["latency"]["engine"] for c in Index.read(weights).checkpoints]
    assert again == [latency["engine"] for latency in first]


def test_results_hold_the_floors_and_what_distillation_changed(stored, manifest, weights):
    evaluate_task(manifest, write=True)
    results = read_results()["cxr"]
    assert (results["data"], results["floors"]) == (manifest.id, FLOORS)
    assert list(results["distillation"]) == ["cxr-ofa_595-from-vgg19"]
    index = Index.read(weights)
    student, control = (index.find("cxr", "ofa_595", t).metrics for t in ("vgg19", None))
    for name in ("accuracy", "macro_f1"):
        change = results["distillation"]["cxr-ofa_595-from-vgg19"][name]
        difference = student[name]["value"] - control[name]["value"]
        assert change["value"] == pytest.approx(difference, abs=2e-4)
        assert change["ci95"][0] <= change["value"] <= change["ci95"][1]


def test_other_commands_results_stay(stored, manifest, weights, caplog):
    update_results("cxr", audit={"a": 1}, leakage={"b": 2})
    evaluate_task(manifest, write=True)
    assert read_results()["cxr"]["audit"] == {"a": 1}
    text = log_of(caplog, manifest)
    assert "cxr: leakage stays as stored; python -m train leakage measures it." in text
    assert "cxr: audit stays as stored" in text and "DIFFERS" not in text


def test_rows_that_were_stored_meanwhile_are_kept(stored, manifest, weights, monkeypatch):
    """Evaluation takes a while; what another command does to the index in between must live."""

    def measure_floors(_):
        index = Index.read(weights)
        gone, *others = index.checkpoints
        other = replace(gone, sha256="0" * 64, seed=9)
        replace(index, checkpoints=(other, *others)).write()
        return FLOORS

    monkeypatch.setattr(train.measure.evaluate, "measure_floors", measure_floors)
    evaluate_task(manifest, write=True)
    rows = Index.read(weights).checkpoints
    assert [c.metrics == {} for c in rows] == [c.seed == 9 for c in rows]
    assert len([c for c in rows if c.seed == 9]) == 1


def test_the_files_are_json_for_everyone(stored, manifest, weights):
    evaluate_task(manifest, write=True)

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    for name in ("index.json", "results.json"):
        json.loads((weights / name).read_text(), parse_constant=refuse)


def test_weights_trained_on_other_data_are_not_evaluated(stored, make_manifest):
    other = make_manifest(train=1, val=1, test=3)
    files = r"cxr-vgg19\.safetensors, .* was trained on other data than generated@"
    with pytest.raises(DataError, match=files):
        evaluate_task(other, write=True)
    assert read_results() == {}


def test_only_the_test_split_is_stored(stored, manifest, weights):
    before = (weights / "index.json").read_bytes()
    with pytest.raises(DataError, match="Only results of the test split are stored"):
        evaluate_task(manifest, "val", write=True)
    evaluate_task(manifest, "val")
    assert (weights / "index.json").read_bytes() == before


def test_evaluation_without_weights_says_so(manifest):
    with pytest.raises(CheckpointError, match=r"index\.json is missing"):
        evaluate_task(manifest)


# --- All tasks -------------------------------------------------------------------------------


@pytest.fixture
def both(stored, finish_run, make_manifest, manifest, monkeypatch):
    """Two tasks with weights, and `open_manifest` that knows the data of those it is told."""
    tiles = make_manifest(train=1, val=2, test=4, task="histopathology")
    store_run(finish_run(tiles, "vgg19"), tiles, "float32")
    known = {"cxr": manifest, "histopathology": tiles}

    def open_manifest(task_id, root):
        if task_id not in root:
            raise DataError(f"{root} holds no {task_id}.")
        return known[task_id]

    monkeypatch.setattr(train.measure.evaluate, "open_manifest", open_manifest)
    return known


def test_every_task_is_evaluated(both, weights, caplog):
    caplog.set_level(logging.INFO, logger="train")
    evaluate_all("cxr+histopathology", write=True)
    assert [c.metrics != {} for c in Index.read(weights).checkpoints] == [True] * 4
    assert set(read_results()) == {"cxr", "histopathology"}
    caplog.clear()
    assert evaluate_all("cxr+histopathology") == []
    assert caplog.text.count("equals the index") == 4
    update_results("histopathology", data="other@0")
    assert evaluate_all("cxr+histopathology") == ["histopathology: data"]


def test_a_task_without_data_is_named_and_left_out(both, caplog):
    assert all(name.startswith("histopathology") for name in evaluate_all("histopathology"))
    assert "cxr was not evaluated: histopathology holds no cxr." in caplog.text
    with pytest.raises(DataError, match=r"cxr was not evaluated.* histopathology was not"):
        evaluate_all("nothing")


# --- Further seeds ---------------------------------------------------------------------------


def test_further_seeds_are_measured_stored_and_compared(stored, finish_run, manifest, caplog):
    runs = [
        finish_run(manifest, "ofa_595", teacher, change, seed=1)
        for teacher, change in ((None, 0.2), ("vgg19", -0.2))
    ]
    evaluate_task(manifest, write=True, runs=runs)
    results = read_results()["cxr"]
    assert set(results["seeds"]) == {"cxr-ofa_595-labels", "cxr-ofa_595-from-vgg19"}
    assert list(results["distillation_over_seeds"]) == ["cxr-ofa_595-from-vgg19"]
    assert evaluate_task(manifest, runs=runs) == []
    assert "seeds, distillation_over_seeds: equals what is stored" in log_of(caplog, manifest)
    evaluate_task(manifest, write=True)
    assert read_results()["cxr"] == results
    other = results["distillation_over_seeds"]["cxr-ofa_595-from-vgg19"]
    other["accuracy"]["value"] += 0.1
    update_results("cxr", **results)
    name = "cxr: distillation_over_seeds.cxr-ofa_595-from-vgg19.accuracy.value"
    assert evaluate_task(manifest) == [name]


def test_runs_measured_on_other_data_do_not_count(stored, finish_run, manifest):
    evaluate_task(manifest, write=True, runs=[finish_run(manifest, "ofa_595", None, 0.2, seed=1)])
    assert read_results()["cxr"]["seeds"]
    update_results("cxr", data="other@0")
    evaluate_task(manifest, write=True)
    assert read_results()["cxr"]["seeds"] == {}


def test_all_tasks_take_their_own_runs(both, finish_run, manifest):
    run = finish_run(manifest, "ofa_595", seed=1)
    evaluate_all("cxr+histopathology", write=True, runs=[run])
    assert "seeds" in read_results()["cxr"] and "seeds" not in read_results()["histopathology"]
    with pytest.raises(StoreError, match="is no run folder"):
        evaluate_all("cxr", runs=[run.parent])
    with pytest.raises(StoreError, match="was trained on"):
        evaluate_task(both["histopathology"], runs=[run])
