"""`train.measure.evaluate`: what is kept is what the weights answer, and what is not is named."""

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest

import train.measure.evaluate
from kdmodels.models.checkpoints import CheckpointError, Index, sha256_of
from kdmodels.models.zoo import count_macs, count_parameters
from kdmodels.predict import Classifier
from train.data.manifest import DataError
from train.learn.finished import UnusableRun, as_trained, read_run
from train.measure.evaluate import evaluate_all, evaluate_task, unlike_logits
from train.measure.kept import Floor, KeptRun, ResultsError, TaskResults, relative
from train.measure.predictions import logits_of
from train.release.store import store_run


@pytest.fixture(autouse=True)
def folder(weights, monkeypatch):
    """An empty weights folder, and a floor that needs no forest."""

    def floors_of(manifest):
        shares = (np.log([[0.5, 0.3, 0.2]] * len(manifest.split(s))) for s in ("val", "test"))
        yield Floor("guess", "a guess", "floor", *shares)

    monkeypatch.setattr(train.measure.evaluate, "floors_of", floors_of)
    return weights


@pytest.fixture
def manifest(make_manifest):
    return make_manifest(train=1, val=4, test=6, group_size=2)


@pytest.fixture
def stored(finish_run, manifest):
    """A teacher, its student and the control, stored."""
    runs = [("vgg19", None, 0.0), ("ofa_595", None, 0.0), ("ofa_595", "vgg19", 0.3)]
    return [store_run(finish_run(manifest, *run), manifest, "float32") for run in runs]


def kept(manifest) -> TaskResults:
    return TaskResults.of(manifest.task)


def same(kept: np.ndarray, logits: np.ndarray) -> bool:
    """As far as float16 goes, and the same answers."""
    near = np.allclose(kept, relative(logits), atol=2e-3, rtol=1e-3)
    return near and np.array_equal(kept.argmax(1), logits.argmax(1))


# --- Keeping ---------------------------------------------------------------------------------


def test_what_is_kept_is_what_the_stored_weights_answer(stored, manifest, weights):
    assert evaluate_task(manifest, write=True) == []
    results, index = kept(manifest), Index.read(weights)
    assert results.folder == weights / "results" / "cxr"
    assert [run.row for run in results.runs] == list(index.checkpoints)
    assert sorted(stored, key=lambda row: row.file) == sorted(
        index.checkpoints, key=lambda row: row.file
    )
    for run in results.runs:
        classifier = Classifier.load(index, run.row)
        for split in ("val", "test"):
            assert same(getattr(run, split), logits_of(classifier, manifest.split(split)))
        assert same(run.served, logits_of(classifier, manifest.split("test")))
        assert (
            run.engine.startswith("PyTorch") and run.engine == run.served_by
        )  # see `torch_engine`
        assert run.parameters == count_parameters(classifier.model)
        assert run.macs == count_macs(classifier.model, classifier.spec.input_size)
        assert run.key == f"{run.row.stem}-seed0" and run.shipped
    names = [s.path.name for s in manifest.split("test")]
    assert list(results.test.names) == names
    assert len(set(results.test.groups)) == 9
    results.check_weights(index)


def test_a_second_look_finds_no_difference(stored, manifest, caplog):
    evaluate_task(manifest, write=True)
    caplog.set_level(logging.INFO, logger="train")
    assert evaluate_task(manifest) == []
    assert "DIFFERS" not in caplog.text and "not checked" not in caplog.text


def test_a_look_changes_nothing(stored, manifest, weights):
    evaluate_task(manifest, write=True)
    files = {f: f.read_bytes() for f in weights.rglob("*") if f.is_file()}
    evaluate_task(manifest)
    assert {f: f.read_bytes() for f in weights.rglob("*") if f.is_file()} == files


def test_nothing_kept_is_a_difference_for_each(stored, manifest):
    evaluate_task(manifest, write=True)
    for file in kept(manifest).folder.rglob("*.safetensors"):
        file.unlink()
    found = evaluate_task(manifest)
    assert len(found) == 4 and all("kept" in line for line in found)


# --- Tampering -------------------------------------------------------------------------------


def change_logits(run: KeptRun, name: str) -> KeptRun:
    """One image, by what no processor does."""
    logits = getattr(run, name).astype(np.float64)
    logits[1, logits[1].argmin()] -= 0.5
    return replace(run, **{name: logits})


TAMPERED = {
    "val": lambda run: change_logits(run, "val"),
    "test": lambda run: change_logits(run, "test"),
    "served": lambda run: change_logits(run, "served"),
    "parameters": lambda run: replace(run, parameters=1),
    "macs": lambda run: replace(run, macs=1),
    "recipe": lambda run: replace(run, recipe_sha256="0" * 64),
    "ab" * 32: lambda run: replace(run, row=replace(run.row, teacher_sha256="ab" * 32)),
    "engine": lambda run: replace(run, served=None),
    "other weights": lambda run: replace(run, row=replace(run.row, sha256="0" * 64)),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_kept_file_that_was_tampered_with_is_noticed(stored, manifest, what):
    evaluate_task(manifest, write=True)
    run = kept(manifest).runs[1]
    TAMPERED[what](run).write(kept(manifest).folder / "runs")
    (line,) = evaluate_task(manifest)
    assert run.key in line and what in line


def test_a_temperature_that_was_changed_in_the_index_is_noticed(stored, manifest):
    index = Index.read()
    first, *others = index.checkpoints
    first = replace(first, temperature=first.temperature + 0.1)
    replace(index, checkpoints=(first, *others)).write()
    evaluate_task(manifest, write=True)
    (line,) = evaluate_task(manifest)
    assert line.startswith(f"{first.file}: the index has the temperature {first.temperature}")


def test_answers_of_two_runs_that_changed_places_are_noticed(stored, manifest):
    evaluate_task(manifest, write=True)
    _, student, control = kept(manifest).runs
    folder = kept(manifest).folder / "runs"
    replace(student, val=control.val, test=control.test, served=control.served).write(folder)
    assert any(student.key in line for line in evaluate_task(manifest))


def test_the_last_digits_may_be_another_processors(stored, manifest):
    evaluate_task(manifest, write=True)
    run = kept(manifest).runs[0]
    noise = np.random.default_rng(0).normal(size=run.test.shape) * 1e-3
    replace(run, test=run.test + noise).write(kept(manifest).folder / "runs")
    assert evaluate_task(manifest) == []


def test_more_than_two_answers_that_flip_are_a_difference_however_close_they_were():
    close = np.array([[0.01, 0, -3]] * 3 + [[5, 0, 0]] * 5)
    flipped = close.copy()
    for images, wanted in ((2, ""), (3, "0 of 8 images by up to 0.01, 3 answers")):
        flipped[:images] = (0, 0.01, -3)
        assert unlike_logits(close, flipped) == wanted


@pytest.mark.parametrize("by, is_other", [(0.015, False), (0.03, True)])
def test_a_logit_may_move_by_the_tolerance_and_one_per_cent(by, is_other):
    logits = np.array([[0.0, -0.1, -20]])
    assert bool(unlike_logits(logits, logits - (0, by, 0))) == is_other
    assert bool(unlike_logits(logits, logits - (0, 0, 10 * by))) == is_other


def test_a_floor_that_was_tampered_with_is_noticed(stored, manifest):
    evaluate_task(manifest, write=True)
    (floor,) = kept(manifest).floors
    better = floor.test.astype(np.float64)
    better[0, 1] += 1
    replace(floor, test=better).write(kept(manifest).folder / "floors")
    (line,) = evaluate_task(manifest)
    assert "a guess" in line and "test" in line


def test_what_another_engine_served_is_not_checked_and_said(stored, manifest, caplog):
    evaluate_task(manifest, write=True)
    run = change_logits(kept(manifest).runs[0], "served")
    replace(run, served_by="an abacus").write(kept(manifest).folder / "runs")
    caplog.set_level(logging.INFO, logger="train")
    assert evaluate_task(manifest) == []
    assert f"{run.key}: not checked what the page's engine answers: an abacus" in caplog.text


# --- Which runs ------------------------------------------------------------------------------


def test_further_seeds_are_kept_and_checked_only_where_they_are_at_hand(
    stored, finish_run, manifest, caplog
):
    run = finish_run(manifest, "ofa_595", "vgg19", -0.2, seed=1, teacher_sha256=stored[0].sha256)
    evaluate_task(manifest, write=True, runs=[run])
    (further,) = (r for r in kept(manifest).runs if not r.shipped)
    classifier = as_trained(*read_run(run, manifest.id))
    assert same(further.test, logits_of(classifier, manifest.split("test")))
    assert further.key == "cxr-ofa_595-from-vgg19-seed1" and further.served is None
    assert further.row.sha256 == sha256_of(run / "best.safetensors")
    assert further.row.teacher_sha256 == stored[0].sha256
    sibling = next(r for r in kept(manifest).runs if r.shipped and r.row.teacher)
    assert further.recipe_sha256 == sibling.recipe_sha256  # a seed is no other recipe

    change_logits(further, "test").write(kept(manifest).folder / "runs")
    (line,) = evaluate_task(manifest, runs=[run])
    assert further.key in line
    caplog.set_level(logging.INFO, logger="train")
    assert evaluate_task(manifest) == []
    assert f"{further.key}: not checked, its weights are not at hand" in caplog.text
    evaluate_task(manifest, write=True)  # and what it answered stays
    assert further.key in {r.key for r in kept(manifest).runs}


def test_a_run_that_is_stored_already_is_not_kept_twice(stored, finish_run, manifest):
    run = finish_run(manifest, "ofa_595", None)
    evaluate_task(manifest, write=True, runs=[run])
    assert len(kept(manifest).runs) == 3


def test_one_run_given_twice_is_said(stored, finish_run, manifest, tmp_path):
    run = finish_run(manifest, "ofa_595", None, seed=1)
    copy = shutil.copytree(run, tmp_path / "copy")
    with pytest.raises(UnusableRun, match="are the same recipe with the same seed"):
        evaluate_task(manifest, write=True, runs=[run, copy])


def test_a_checkpoint_that_was_replaced_keeps_its_answers_as_a_run(stored, finish_run, manifest):
    evaluate_task(manifest, write=True)
    store_run(finish_run(manifest, "ofa_595", None, seed=1), manifest, "float32")
    lines = evaluate_task(manifest)
    assert len(lines) == 2  # the new one is not kept, the old one not listed
    evaluate_task(manifest, write=True)
    runs = {run.key: run.shipped for run in kept(manifest).runs}
    assert runs["cxr-ofa_595-labels-seed1"] and not runs["cxr-ofa_595-labels-seed0"]
    kept(manifest).check_weights(Index.read())
    assert evaluate_task(manifest) == []


def test_the_recipe_of_an_evaluated_checkpoint_is_that_of_its_training(stored, manifest, recipes):
    evaluate_task(manifest, write=True)
    before = {run.key: run.recipe_sha256 for run in kept(manifest).runs}
    for file in recipes.glob("*.yaml"):
        file.write_text(file.read_text().replace("batch_size: 4", "batch_size: 5"))
    evaluate_task(manifest, write=True)
    assert {run.key: run.recipe_sha256 for run in kept(manifest).runs} == before
    lines = evaluate_task(manifest)
    assert len(lines) == 3 and all("restore that, or train again" in line for line in lines)


def test_a_recipe_that_is_gone_is_said(stored, manifest, recipes):
    (recipes / "cxr-vgg19.yaml").unlink()
    with pytest.raises(ResultsError, match=r"cxr-vgg19\.yaml, .* is gone; restore it"):
        evaluate_task(manifest, write=True)


# --- Mistakes --------------------------------------------------------------------------------


def test_weights_trained_on_other_data_are_not_evaluated(stored, make_manifest, weights):
    other = make_manifest(train=1, val=1, test=3)
    files = r"cxr-vgg19\.safetensors, .* was trained on other data than generated@"
    with pytest.raises(DataError, match=files):
        evaluate_task(other, write=True)
    assert not (weights / "results").exists()


def test_evaluation_without_weights_says_so(manifest):
    with pytest.raises(CheckpointError, match=r"index\.json is missing"):
        evaluate_task(manifest)


def test_other_images_than_those_kept_are_said(stored, manifest):
    evaluate_task(manifest, write=True)
    file = kept(manifest).folder / "test.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    for write in (False, True):
        with pytest.raises(ResultsError, match=r"test\.csv lists other images than the test split"):
            evaluate_task(manifest, write)


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
    monkeypatch.setattr(train.measure.evaluate, "floors_of", lambda manifest: ())
    return known


def test_every_task_is_evaluated(both):
    evaluate_all("cxr+histopathology", write=True)
    assert [len(kept(manifest).runs) for manifest in both.values()] == [3, 1]
    assert evaluate_all("cxr+histopathology") == []
    (run,) = kept(both["histopathology"]).runs
    replace(run, macs=1).write(kept(both["histopathology"]).folder / "runs")
    (line,) = evaluate_all("cxr+histopathology")
    assert "histopathology-vgg19-seed0" in line


def test_a_task_without_data_is_named_and_left_out(both, caplog):
    evaluate_all("histopathology", write=True)
    assert "cxr was not evaluated: histopathology holds no cxr." in caplog.text
    with pytest.raises(DataError, match=r"cxr was not evaluated.* histopathology was not"):
        evaluate_all("nothing")


def test_all_tasks_take_their_own_runs(both, finish_run, manifest):
    run = finish_run(manifest, "ofa_595", seed=1)
    evaluate_all("cxr+histopathology", write=True, runs=[run])
    assert [len(kept(manifest).runs) for manifest in both.values()] == [4, 1]
    with pytest.raises(UnusableRun, match="is no run folder"):
        evaluate_all("cxr", runs=[run.parent])
    with pytest.raises(UnusableRun, match="was trained on"):
        evaluate_task(both["histopathology"], write=True, runs=[run])
