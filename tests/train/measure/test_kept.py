"""`train.measure.kept`: what comes back is what was kept, and what cannot be used is named."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from kdmodels.models.checkpoints import Index
from kdmodels.tasks import TASKS
from tests.conftest import unstored
from train.measure.kept import (
    Floor,
    Images,
    KeptRun,
    ResultsError,
    TaskResults,
    read_tensors,
    relative,
    results_folder,
    write_tensors,
)

CXR = TASKS["cxr"]
NUMBERS = {"val": 6, "test": 9}


def logits(split: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(NUMBERS[split], 3)) * 5


def images(split: str) -> Images:
    number = NUMBERS[split]
    return Images(
        tuple(f"{split} {i}, a.png" for i in range(number)),  # a comma is no end of a cell
        np.arange(number) % 3,
        tuple(f"g{i // 2}" for i in range(number)),
        tuple("ab"[i % 2] for i in range(number)),
    )


def run_of(model="ofa_595", teacher=None, seed=0, shipped=True, **other) -> KeptRun:
    row = replace(unstored("cxr", model, teacher), seed=seed, sha256=f"{model}{teacher}{seed}")
    if shipped:
        row = replace(row, file=f"{row.stem}.safetensors")
    about = {"recipe_sha256": "r", "engine": "an abacus", "parameters": 7, "macs": 8}
    return KeptRun(row, **about, val=logits("val", seed), test=logits("test", seed), **other)


@pytest.fixture
def results(tmp_path) -> TaskResults:
    """A shipped control, its further seed, a teacher and its student; a floor."""
    found = TaskResults.of(CXR, tmp_path)
    for split in NUMBERS:
        images(split).write(found.folder / f"{split}.csv", CXR)
    for run in (
        run_of(), run_of(seed=1, shipped=False), run_of("vgg19"), run_of("ofa_595", "vgg19"),
    ):  # fmt: skip
        run.write(found.folder / "runs")
    Floor("f", "a floor", "floor", logits("val"), logits("test")).write(found.folder / "floors")
    return TaskResults.of(CXR, tmp_path)


def index_of(results: TaskResults) -> Index:
    return Index(results.folder, tuple(run.row for run in results.runs if run.shipped))


# --- There and back --------------------------------------------------------------------------


def test_images_come_back_as_they_were_written(results):
    for split in NUMBERS:
        found, wanted = getattr(results, split), images(split)
        assert found.same_as(wanted) and found.sources == wanted.sources
        assert found.labels.dtype == np.int64 and len(found) == NUMBERS[split]


def test_images_are_the_same_only_in_the_same_order_with_the_same_labels():
    first = images("test")
    assert first.same_as(replace(first))
    assert not first.same_as(replace(first, names=first.names[::-1]))
    assert not first.same_as(replace(first, labels=first.labels[::-1].copy()))
    assert not first.same_as(replace(first, groups=("g",) * 9))


def test_runs_come_back_in_order_with_all_that_is_known_of_them(results, tmp_path):
    assert [(run.key, run.shipped) for run in results.runs] == [
        ("cxr-vgg19-seed0", True),
        ("cxr-ofa_595-from-vgg19-seed0", True),
        ("cxr-ofa_595-labels-seed0", True),
        ("cxr-ofa_595-labels-seed1", False),
    ]
    served = logits("test", 5)
    row = replace(unstored("cxr", "ofa_595", "vgg19"), teacher_sha256="ab", temperature=1.5)
    wanted = run_of(served=served, served_by="a slide rule")
    wanted = replace(wanted, row=row)
    wanted.write(tmp_path)
    found = KeptRun.read(tmp_path / f"{wanted.key}.safetensors")
    for name in ("row", "recipe_sha256", "engine", "parameters", "macs", "served_by"):
        assert getattr(found, name) == getattr(wanted, name)
    assert softmax(found.served, 1) == pytest.approx(softmax(served, 1), abs=2e-3)
    assert (
        run_of().served
        is None
        is KeptRun.read(results.folder / "runs" / f"{run_of().key}.safetensors").served
    )


def test_a_floor_comes_back(results, tmp_path):
    (floor,) = results.floors
    assert (floor.id, floor.name, floor.kind, floor.settings) == ("f", "a floor", "floor", {})
    Floor("p", "a probe", "probe", floor.val, floor.test, {"strength": 0.1}).write(tmp_path)
    assert Floor.read(tmp_path / "p.safetensors").settings == {"strength": 0.1}


def test_no_answer_changes_in_float16(tmp_path):
    """Logits of about 20 have steps of 1/64 in float16; these lie a fifteenth of it apart."""
    generator = np.random.default_rng(0)
    close = 20 + generator.normal(size=(500, 3)) * 1e-3
    Floor("f", "f", "floor", close, close).write(tmp_path)
    found = Floor.read(tmp_path / "f.safetensors").val
    assert found.dtype == np.float16
    assert np.array_equal(found.argmax(1), close.argmax(1))
    assert not np.array_equal(close.astype(np.float16).argmax(1), close.argmax(1))
    assert relative(close).max(1).tolist() == [0] * 500


def test_results_lie_beside_ones_own_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_WEIGHTS", str(tmp_path))
    assert results_folder() == tmp_path / "results"
    monkeypatch.delenv("KD_WEIGHTS")
    assert results_folder().parent.joinpath("pyproject.toml").exists()


# --- What cannot be used ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["runs", "floors"])
@pytest.mark.parametrize("split", NUMBERS)
def test_logits_of_another_number_than_the_images_are_named(results, kind, split):
    file = next((results.folder / kind).glob("*.safetensors"))
    tensors, about = read_tensors(file)
    write_tensors(file, tensors | {split: tensors[split][:-1]}, about)
    rows = NUMBERS[split]
    wanted = rf"{file.name} has {rows - 1} x 3 logits on {split}, but {split}\.csv .* {rows} images"
    with pytest.raises(ResultsError, match=wanted):
        getattr(results, kind)


def test_served_logits_of_another_number_are_named(results):
    run_of(served=logits("val"), served_by="x").write(results.folder / "runs")
    with pytest.raises(ResultsError, match=r"has 6 x 3 logits on served, but test\.csv"):
        _ = results.runs


def test_a_damaged_file_is_named(results):
    file = next((results.folder / "runs").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ResultsError, match=rf"{file.name} is damaged .*; delete it and make it"):
        _ = results.runs


def test_a_file_without_what_a_run_needs_is_named(results):
    file = next((results.folder / "runs").glob("*.safetensors"))
    tensors, about = read_tensors(file)
    del about["engine"]
    write_tensors(file, tensors, about)
    with pytest.raises(ResultsError, match=rf"{file.name} is not what a run answered"):
        _ = results.runs


def test_a_file_under_another_name_is_named(results):
    file = next((results.folder / "runs").glob("*.safetensors"))
    file.rename(file.with_name("copy.safetensors"))
    with pytest.raises(ResultsError, match=rf"copy\.safetensors holds {file.stem}; name it so"):
        _ = results.runs


@pytest.mark.parametrize("change", [
    lambda text: text.replace("covid", "cowid"),
    lambda text: text.replace("label", "class"),
    lambda text: "",
])  # fmt: skip
def test_a_table_of_images_that_is_none_is_named(results, change):
    file = results.folder / "test.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(
        ResultsError, match=r"test\.csv is no table of .*evaluate --task cxr --write"
    ):
        _ = results.test


def test_a_missing_table_of_images_is_named(results):
    (results.folder / "val.csv").unlink()
    with pytest.raises(ResultsError, match=r"val\.csv is no table"):
        _ = results.runs


# --- Of which weights ------------------------------------------------------------------------


def test_answers_of_the_listed_weights_are_taken(results):
    results.check_weights(index_of(results))


def test_answers_of_other_weights_than_the_listed_are_named(results):
    index = index_of(results)
    first, *others = index.checkpoints
    other = replace(index, checkpoints=(replace(first, sha256="f" * 64), *others))
    wanted = (
        rf"{results.runs[0].key}\.safetensors is of weights with the sha256 .*ffffffffffff… *; run"
    )
    with pytest.raises(ResultsError, match=wanted):
        results.check_weights(other)


def test_listed_weights_without_answers_and_the_reverse_are_named(results):
    index = index_of(results)
    with pytest.raises(ResultsError, match="which the index does not list; run python -m train"):
        results.check_weights(replace(index, checkpoints=index.checkpoints[1:]))
    (results.folder / "runs" / f"{results.runs[0].key}.safetensors").unlink()
    with pytest.raises(ResultsError, match=rf"has no answers of {index.checkpoints[0].file}; run"):
        TaskResults(CXR, results.folder).check_weights(index)
