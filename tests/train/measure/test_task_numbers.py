"""`train.measure.task_numbers`: the right runs are compared, and nothing is chosen on test images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from kdmodels.tasks import TASKS
from tests.train.made_results import answers, run_of, write_results
from train.measure.calibration import calibration_of, fit_temperature
from train.measure.kept import Floor, TaskResults
from train.measure.task_numbers import TaskNumbers, control_of

CXR = TASKS["cxr"]


@pytest.fixture
def root(tiny_index, tmp_path) -> Path:
    return write_results(tmp_path, tiny_index)


@pytest.fixture
def numbers(root) -> TaskNumbers:
    return TaskNumbers(TaskResults.of(CXR, root))


def test_a_distilled_run_is_compared_with_the_control_of_its_seed(numbers):
    changes = {change.row.teacher: change.by for change in numbers.changes}
    assert changes["vgg19"].seeds == (0, 2) and changes["vgg19"].covers_seeds
    assert changes["visformer_s"].seeds == (0,) and not changes["visformer_s"].covers_seeds
    assert len(changes) == 3 and {c.control.name for c in numbers.changes} == {
        "OFA-595 (labels only)"
    }
    by_key = {run.run.key: run.accuracy.value for run in numbers.runs}
    for seed, (accuracy, _) in changes["vgg19"].by_seed.items():
        pair = (f"cxr-ofa_595-from-vgg19-seed{seed}", f"cxr-ofa_595-labels-seed{seed}")
        assert accuracy == pytest.approx(by_key[pair[0]] - by_key[pair[1]])


def test_variants_are_compared_with_the_usual_recipe(new_row):
    assert control_of(replace(new_row("cxr", "vgg19"), variant="scratch")).stem == "cxr-vgg19"
    several = replace(new_row("cxr", "ofa_595", "vgg19"), variant="attention")
    assert control_of(several).stem == "cxr-ofa_595-labels"


def test_the_best_floor_is_chosen_on_the_validation_split(root, numbers):
    assert numbers.best_floor.name == "thumbnail" and [p.name for p in numbers.probes]
    lucky = Floor(
        "lucky", "lucky", "floor", answers(CXR, "val", 1, 0.0), answers(CXR, "test", 2, 9.0)
    )
    lucky.write(root / "cxr" / "floors")
    again = TaskNumbers(TaskResults.of(CXR, root))
    found = {floor.name: floor for floor in again.floors}
    assert found["lucky"].accuracy.value > found["thumbnail"].accuracy.value
    assert again.best_floor is found["thumbnail"]


def test_floors_are_compared_on_the_same_images(numbers):
    run, floor = numbers.shipped[0], numbers.best_floor
    change = numbers.over_floor(run)
    assert change.accuracy.value == pytest.approx(run.accuracy.value - floor.accuracy.value)
    assert numbers.over_floor(floor) is None
    assert numbers.over(floor, run).accuracy.value == -change.accuracy.value


def test_the_temperature_is_fitted_on_the_validation_split(numbers):
    run = numbers.shipped[0]
    labels = numbers.results.val.labels
    assert run.temperature == fit_temperature(run.run.val.astype(np.float64), labels)
    logits = run.run.test.astype(np.float64)
    assert run.plain == calibration_of(logits, run.images.labels)
    assert run.calibrated == calibration_of(logits / run.temperature, run.images.labels)
    assert run.calibrated != run.plain


def test_the_pages_engine_is_compared_on_the_same_images(root, new_row):
    row = replace(new_row("cxr", "vgg19"), file="x.safetensors", sha256="1" * 64)
    run = run_of(row, 7)
    served = run.test.copy()
    served[:9] = np.roll(served[:9], 1, axis=1)  # nine of 90 answers
    replace(run, served=served).write(root / "cxr" / "runs")
    numbers = TaskNumbers(TaskResults.of(CXR, root))
    found = numbers.find(row)
    assert found.served.engine == "OpenVINO, bf16"
    assert found.served.otherwise == pytest.approx(0.1)
    shares = softmax(found.logits / found.temperature, axis=1)
    moved = np.abs(shares - np.roll(shares, 1, axis=1))[:9].max()
    assert found.served.largest == pytest.approx(moved, abs=0.01)
    assert all(run.served is None for run in numbers.runs if not run.run.shipped)


def test_other_seeds_are_not_shipped_but_told(numbers):
    assert len(numbers.shipped) == len(numbers.runs) - 2 == 7
    assert [[(r.row.teacher, r.row.seed) for r in runs] for runs in numbers.repeated] == [
        [("vgg19", 0), ("vgg19", 2)],
        [(None, 0), (None, 2)],
    ]


def test_a_checkpoint_is_found_by_name_and_weights(numbers, tiny_index):
    row = tiny_index.find("cxr", "ofa_595", "vgg19")
    assert numbers.find(row).run.key == "cxr-ofa_595-from-vgg19-seed0"
    assert numbers.find(replace(row, sha256="f" * 64)) is None


def test_what_was_not_measured_is_none(numbers):
    assert numbers.audit is None and numbers.leakage is None and numbers.agreement == []
