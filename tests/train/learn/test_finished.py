"""`train.learn.finished`: what a run folder must be, and what is read from it."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

from kdmodels.models.zoo import TEACHERS
from train.learn.finished import UnusableRun, as_trained, digest_of, read_run, recipe_of


@pytest.fixture
def manifest(make_manifest):
    return make_manifest(train=1, val=1, test=1)


@pytest.mark.parametrize("teacher, objective, variant, stem", [
    (None, "labels", "", "cxr-ofa_595-labels"),
    ("vgg19", "attention", "attention", "cxr-ofa_595-from-vgg19-attention"),
    ("+".join(TEACHERS), "multi_teacher", "", "cxr-ofa_595-from-all"),
])  # fmt: skip
def test_a_row_is_called_as_its_recipe(finish_run, manifest, teacher, objective, variant, stem):
    row, _ = read_run(finish_run(manifest, "ofa_595", teacher, objective=objective), manifest.id)
    assert (row.variant, row.stem) == (variant, stem)
    assert row.recipe == f"train/recipes/{stem}.yaml"


def test_the_network_of_a_run_is_the_one_that_was_trained(finish_run, manifest):
    run = finish_run(manifest, change=0.25)
    row, state = read_run(run, manifest.id)
    classifier = as_trained(row, state)
    trained = load_file(run / "best.safetensors")
    assert all(torch.equal(v, trained[k]) for k, v in classifier.model.state_dict().items())
    assert not classifier.model.training and classifier.spec.input_size == 32


def test_a_run_on_other_data_is_refused(finish_run, manifest):
    run = finish_run(manifest, data="other@123456789abc")
    with pytest.raises(UnusableRun, match=f"trained on other@123456789abc, not on {manifest.id}"):
        read_run(run, manifest.id)


@pytest.mark.parametrize("missing", ["run.yaml", "best.safetensors", "state.safetensors"])
def test_a_folder_without_a_run_is_refused(finish_run, manifest, missing):
    run = finish_run(manifest)
    (run / missing).unlink()
    with pytest.raises(UnusableRun, match=r"labels-seed0 is no run folder with trained weights"):
        read_run(run, manifest.id)


@pytest.mark.parametrize("broken", ["run.yaml", "best.safetensors", "state.safetensors"])
def test_a_broken_run_is_refused(finish_run, manifest, broken):
    run = finish_run(manifest)
    (run / broken).write_bytes(b"recipe: [")
    with pytest.raises(UnusableRun, match=r"labels-seed0 is no run folder with trained weights"):
        read_run(run, manifest.id)


def test_a_run_folder_names_its_recipe(finish_run, manifest):
    identity = yaml.safe_load((finish_run(manifest) / "run.yaml").read_text())
    assert set(identity) == {"recipe", "data", "teacher_sha256", "settings"}
    assert identity["recipe"]["name"] == "cxr-ofa_595-labels"


def test_an_unfinished_run_is_refused(finish_run, manifest):
    with pytest.raises(UnusableRun, match="is not finished"):
        read_run(finish_run(manifest, finished=False), manifest.id)


def test_a_trial_of_a_few_steps_is_refused(finish_run, manifest):
    with pytest.raises(UnusableRun, match="is a trial with --max-steps 2, not a whole training"):
        read_run(finish_run(manifest, settings={"max_steps": 2}), manifest.id)


def test_a_run_of_a_recipe_that_has_changed_is_refused(finish_run, manifest, recipes):
    run = finish_run(manifest)
    file = recipes / "cxr-ofa_595-labels.yaml"
    file.write_text(file.read_text().replace("batch_size: 4", "batch_size: 5"))
    with pytest.raises(UnusableRun, match="as it stands"):
        read_run(run, manifest.id)
    file.unlink()
    with pytest.raises(UnusableRun, match="as it stands"):
        read_run(run, manifest.id)


def test_the_digest_of_a_recipe_is_of_all_but_the_seed(finish_run, manifest, recipes):
    finish_run(manifest)
    first, second = (digest_of(recipe_of("cxr-ofa_595-labels", seed)) for seed in (0, 1))
    assert first == second
    file = recipes / "cxr-ofa_595-labels.yaml"
    file.write_text(file.read_text().replace("batch_size: 4", "batch_size: 5"))
    assert digest_of(recipe_of("cxr-ofa_595-labels")) != first


def test_a_row_names_the_teacher_of_the_run(finish_run, manifest):
    run = finish_run(manifest, "ofa_595", "vgg19", teacher_sha256="ab" * 32)
    row, _ = read_run(run, manifest.id)
    assert (row.teacher, row.teacher_sha256, row.storage) == ("vgg19", "ab" * 32, "float32")
