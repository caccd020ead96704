"""`train.measure.seeds`: further runs of a recipe, and what distillation changes over all of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from kdmodels.models.checkpoints import Index, sha256_of
from kdmodels.models.zoo import TEACHERS
from kdmodels.predict import Classifier
from train.measure.metrics import compare, labels_of, logits_of
from train.measure.seeds import control_of, measure_runs, read_runs
from train.release.store import StoreError, as_trained, read_identity, read_run, store_run

STUDENT, CONTROL = "cxr-ofa_595-from-vgg19", "cxr-ofa_595-labels"


@pytest.fixture
def manifest(make_manifest):
    """With 6, 4 and 2 test images of the classes, so that networks of one answer differ too."""
    whole = make_manifest(train=1, val=1, test=6, group_size=2)
    less = {"pneumonia": "45", "normal": "2345"}
    kept = [
        s
        for s in whole.samples
        if s.split != "test" or s.path.stem[-1] not in less.get(s.label, "")
    ]
    return replace(whole, samples=tuple(kept))


@pytest.fixture
def logits_by_run(manifest):
    """The test logits of a run folder, computed apart from `train.measure.seeds`."""

    def compute(run) -> np.ndarray:
        row, _ = read_run(run, manifest.id)
        classifier = as_trained(row, load_file(run / "best.safetensors"))
        return logits_of(classifier, manifest.split("test"))

    return compute


@pytest.fixture
def measured(weights, finish_run, manifest):
    """Seed 0 of student and control stored, seeds 1 and 2 of both as run folders."""
    # Below -0.5 the first class wins, else the second.
    changes = {None: (0.0, -0.6, -0.3), "vgg19": (-0.7, -0.2, -0.8)}
    folders = {
        (teacher, seed): finish_run(manifest, "ofa_595", teacher, change, seed=seed)
        for teacher, row in changes.items()
        for seed, change in enumerate(row)
    }
    stored = [store_run(folders[teacher, 0], manifest, "float32") for teacher in changes]
    index = Index.read(weights)
    samples = manifest.split("test")
    logits = {c.stem: logits_of(Classifier.load(index, c), samples) for c in stored}
    runs = read_runs([f for (_, seed), f in folders.items() if seed], manifest.id, stored)
    return folders, stored, measure_runs(runs, stored, logits, manifest)


def test_each_further_seed_has_its_own_numbers(measured, manifest, logits_by_run):
    folders, _, found = measured
    labels = labels_of(manifest.split("test"), manifest.task)
    assert list(found["seeds"]) == sorted([STUDENT, CONTROL])
    for stem, teacher in ((STUDENT, "vgg19"), (CONTROL, None)):
        assert [entry["seed"] for entry in found["seeds"][stem]] == [1, 2]
        for entry in found["seeds"][stem]:
            run = folders[teacher, entry["seed"]]
            accuracy = (logits_by_run(run).argmax(1) == labels).mean()
            assert entry["accuracy"] == pytest.approx(accuracy, abs=1e-4)
            assert entry["sha256"] == sha256_of(run / "best.safetensors")


def test_the_difference_is_paired_by_seed(measured, manifest, logits_by_run):
    folders, stored, found = measured
    change = found["distillation_over_seeds"][STUDENT]
    assert change["name"] == "OFA-595 (from VGG19)"
    assert [entry["seed"] for entry in change["seeds"]] == [0, 1, 2]
    first, second = (
        np.stack([logits_by_run(folders[teacher, seed]) for seed in range(3)])
        for teacher in ("vgg19", None)
    )
    wanted = compare(first, second, manifest.split("test"), manifest.task)
    assert {k: change[k] for k in wanted} == wanted
    for name in ("accuracy", "macro_f1"):
        mean = np.mean([entry[name] for entry in change["seeds"]])
        assert change[name]["value"] == pytest.approx(mean, abs=2e-4)
        assert len({entry[name] for entry in change["seeds"]}) > 1
    assert change["files"] == {c.file: c.sha256 for c in stored}


def test_a_seed_that_the_control_lacks_is_in_no_pair(weights, finish_run, manifest):
    stored = [
        store_run(finish_run(manifest, "ofa_595", t), manifest, "float32") for t in (None, "vgg19")
    ]
    samples = manifest.split("test")
    logits = {c.stem: logits_of(Classifier.load(Index.read(weights), c), samples) for c in stored}
    runs = read_runs([finish_run(manifest, "ofa_595", "vgg19", seed=1)], manifest.id, stored)
    found = measure_runs(runs, stored, logits, manifest)
    assert [entry["seed"] for entry in found["seeds"][STUDENT]] == [1]
    assert found["distillation_over_seeds"] == {}


def test_a_student_that_is_not_stored_is_compared_by_one_seed(weights, finish_run, manifest):
    control = store_run(finish_run(manifest, "ofa_595", None), manifest, "float32")
    samples = manifest.split("test")
    logits = {control.stem: logits_of(Classifier.load(Index.read(weights), control), samples)}
    runs = read_runs([finish_run(manifest, "ofa_595", "vgg19")], manifest.id, [control])
    found = measure_runs(runs, [control], logits, manifest)
    change = found["distillation_over_seeds"][STUDENT]
    assert [entry["seed"] for entry in change["seeds"]] == [0]
    assert change["files"] == {control.file: control.sha256}


# --- Runs whose folders are gone -------------------------------------------------------------


@pytest.fixture
def later(measured, manifest, weights):
    """Measure again, with what was found before and other folders."""
    _, stored, _ = measured
    samples = manifest.split("test")
    logits = {c.stem: logits_of(Classifier.load(Index.read(weights), c), samples) for c in stored}

    def measure(known: dict, folders=(), rows=stored) -> dict:
        runs = read_runs(folders, manifest.id, rows)
        return measure_runs(runs, rows, {c.stem: logits[c.stem] for c in rows}, manifest, known)

    return measure


def test_runs_count_when_their_folders_are_gone(measured, later):
    folders, _, found = measured
    assert later(found) == found
    known: dict = {}
    for seed in (1, 2):
        known = later(known, [folders[teacher, seed] for teacher in (None, "vgg19")])
    assert known == found


def test_a_seed_that_was_trained_again_takes_the_place(measured, later, finish_run, manifest):
    folders, _, found = measured
    shutil.rmtree(folders[None, 1])
    again = finish_run(manifest, "ofa_595", None, 0.7, seed=1)
    entries = later(found, [again])["seeds"][CONTROL]
    assert [e["seed"] for e in entries] == [1, 2]
    assert entries[0]["sha256"] == sha256_of(again / "best.safetensors")
    assert entries[1] == found["seeds"][CONTROL][1]


def _bare(found: dict, *gone: int) -> dict:
    """The same, as if the answers of these seeds had not been kept."""
    seeds = {
        stem: [
            {k: v for k, v in e.items() if k != "answers" or e["seed"] not in gone} for e in entries
        ]
        for stem, entries in found["seeds"].items()
    }
    return found | {"seeds": seeds}


def _new_teacher(found: dict, recipe: Path) -> None:
    found["seeds"][STUDENT][0]["teacher"] = "0" * 64


def _new_images(found: dict, recipe: Path) -> None:
    found["seeds"][STUDENT][0]["images"] = "0" * 64


def _new_rate(found: dict, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("lr: 0.1", "lr: 0.2"))


def _no_recipe(found: dict, recipe: Path) -> None:
    recipe.unlink()


@pytest.mark.parametrize("gone", [(), (1, 2)], ids=["with answers", "without"])
@pytest.mark.parametrize(
    ("happens", "left", "reason"),
    [
        (_new_teacher, [2], "its teacher is not stored"),
        (_new_images, [2], "its test images were others"),
        (_new_rate, [], "its recipe has changed"),
        (_no_recipe, [], "its recipe is gone"),
    ],
)
def test_what_would_not_be_trained_so_today_is_forgotten(
    measured, later, recipes, caplog, gone, happens, left, reason
):
    found = _bare(measured[-1], *gone)
    happens(found, recipes / f"{STUDENT}.yaml")
    now = later(found)
    assert [e["seed"] for e in now["seeds"].get(STUDENT, [])] == left
    assert f"{STUDENT}, seed 1, does not count: {reason}." in caplog.text
    change = now["distillation_over_seeds"].get(STUDENT, {"seeds": []})
    assert [s["seed"] for s in change["seeds"]] == ([0, 2] if left and not gone else [])


def test_a_run_of_another_teacher_is_not_measured(measured, later, finish_run, manifest, caplog):
    run = finish_run(manifest, "ofa_595", "vgg19", 0.2, seed=5)
    identity = yaml.safe_load((run / "run.yaml").read_text())
    (run / "run.yaml").write_text(yaml.safe_dump(identity | {"teacher_sha256": "0" * 64}))
    assert later(measured[-1], [run]) == measured[-1]
    assert f"{STUDENT}, seed 5, does not count: its teacher is not stored." in caplog.text


def test_a_run_of_a_stored_teacher_stays(measured, later, finish_run, manifest):
    _, stored, found = measured
    run = finish_run(manifest, "ofa_595", "vgg19", 0.2, seed=5)
    identity = yaml.safe_load((run / "run.yaml").read_text())
    teachers = "+".join(c.sha256 for c in stored)  # whichever they are
    (run / "run.yaml").write_text(yaml.safe_dump(identity | {"teacher_sha256": teachers}))
    with_it = later(found, [run])
    assert [e["seed"] for e in with_it["seeds"][STUDENT]] == [1, 2, 5]
    assert later(with_it) == with_it


# --- Runs of which only the rates were kept --------------------------------------------------


def test_an_earlier_difference_stays_while_its_runs_count(measured, later):
    known = _bare(measured[-1], 1, 2)
    now = later(known)
    change = now["distillation_over_seeds"][STUDENT]
    before = known["distillation_over_seeds"][STUDENT]
    assert change == before | {"earlier": {k: before[k] for k in change["earlier"]}}
    assert now["seeds"] == known["seeds"] and later(now) == now


def test_an_earlier_difference_is_joined_with_later_seeds(measured, later, finish_run, manifest):
    """Its interval is at least as wide as the one that all answers would have given."""
    folders, _, _ = measured
    pair = [folders[teacher, 1] for teacher in (None, "vgg19")]
    known = _bare(later({}, pair), 1)
    exact = measured[-1]["distillation_over_seeds"][STUDENT]
    now = later(known, [folders[teacher, 2] for teacher in (None, "vgg19")])
    change = now["distillation_over_seeds"][STUDENT]
    assert change["seeds"] == exact["seeds"] and change["files"] == exact["files"]
    assert [s["seed"] for s in change["earlier"]["seeds"]] == [0, 1]
    for name in ("accuracy", "macro_f1"):
        assert change[name]["value"] == pytest.approx(exact[name]["value"], abs=2e-4)
        (low, high), (lowest, highest) = exact[name]["ci95"], change[name]["ci95"]
        assert highest - lowest >= high - low - 2e-4
        assert lowest <= change[name]["value"] <= highest
    assert later(now) == now


def test_an_earlier_difference_is_left_out_when_it_rests_on_others(
    measured, later, finish_run, manifest, caplog
):
    _, stored, found = measured
    known = _bare(found, 1, 2)
    other = replace(stored[0], sha256="0" * 64), *stored[1:]  # weights that were replaced
    assert later(known, rows=other)["distillation_over_seeds"] == {}
    assert "rests on other runs" in caplog.text
    again = finish_run(manifest, "ofa_595", None, 0.7, seed=1)  # the control, trained again
    now = later(known, [again])
    assert now["distillation_over_seeds"] == {}
    assert [e["seed"] for e in now["seeds"][STUDENT]] == [1, 2]


def test_a_seed_that_is_stored_is_not_measured_twice(measured, manifest, caplog):
    folders, stored, _ = measured
    caplog.set_level("INFO", logger="train")
    assert read_runs([folders["vgg19", 0]], manifest.id, stored) == []
    assert f"seed 0 of {STUDENT} is in weights/ already" in caplog.text


def test_a_run_that_is_there_twice_is_refused(measured, manifest, tmp_path):
    folders, stored, _ = measured
    copy = tmp_path / "copy"
    copy.symlink_to(folders["vgg19", 1])
    with pytest.raises(StoreError, match="copy are the same recipe with the same seed"):
        read_runs([folders["vgg19", 1], copy], manifest.id, stored)


def test_an_unfinished_run_is_refused(finish_run, manifest):
    run = finish_run(manifest, seed=3, finished=False)
    with pytest.raises(StoreError, match="is not finished"):
        read_runs([run], manifest.id, [])


def test_a_run_tells_its_task(finish_run, manifest, tmp_path):
    assert read_identity(finish_run(manifest))["task"] == "cxr"
    with pytest.raises(StoreError, match=f"{tmp_path} is no run folder"):
        read_identity(tmp_path)
    (tmp_path / "run.yaml").write_text("recipe: [")
    with pytest.raises(StoreError, match="is no run folder"):
        read_identity(tmp_path)


def test_the_control_is_the_same_student_of_the_same_task(new_row):
    rows = [
        new_row(task, model, teacher)
        for task in ("cxr", "histopathology")
        for model, teacher in (("vgg19", None), ("ofa_595", None), ("ofa_595", "vgg19"))
    ]
    for row in rows:
        control = control_of(row, rows)
        if row.teacher is None:
            assert control is None
        else:
            assert (control.task, control.model, control.teacher) == (row.task, row.model, None)
    all_teachers = new_row("cxr", "ofa_595", "+".join(TEACHERS))
    assert control_of(all_teachers, rows) is rows[1]
    assert control_of(all_teachers, rows[2:3]) is None
    assert control_of(replace(new_row("cxr", "vgg19"), variant="scratch"), rows) is rows[0]
