"""`python -m train`: the real command, killed in the middle and told nonsense."""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import train.measure.floors
import train.measure.leakage
from kdmodels.models.checkpoints import Index
from kdmodels.tasks import TASKS
from train.__main__ import main
from train.data.open import open_manifest
from train.learn.recipes import FOLDER
from train.learn.runs import RunState
from train.measure.kept import TaskResults

REPOSITORY = Path(__file__).parents[2]
RECIPE = {
    "task": "cxr",
    "model": "ofa_595",
    "batch_size": 4,
    "mixup": 0.2,
    "phases": [{"size": 32, "epochs": 2, "lr": 0.001}, {"size": 40, "epochs": 2, "lr": 0.001}],
}


pytestmark = pytest.mark.usefixtures("clean_accelerate")


@pytest.fixture
def write_recipe(tmp_path):
    def write(**changes) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(RECIPE | changes), encoding="utf-8")
        return path

    return write


# --- Killed and started again ----------------------------------------------------------------


def start_training(data: Path, recipe: Path, run: Path) -> subprocess.Popen:
    words = ["student", "--task", "cxr", "--data", data, "--recipe", recipe, "--run", run]
    return subprocess.Popen(
        [sys.executable, "-m", "train", *map(str, words), "--threads", "1"],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    return output


def rows_of(run: Path) -> list[list[str]]:
    """Rows of metrics.csv, its head first."""
    return [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]


@pytest.mark.timeout(900)
def test_a_killed_run_resumes_to_the_same_bits(write_starter, write_recipe, tmp_path):
    data, recipe = write_starter(tmp_path / "data", train=4), write_recipe()
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start_training(data, recipe, killed)
    while not (killed / "state.safetensors").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(0.3)  # now in the second epoch
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = rows_of(killed)
    state = RunState.load(killed / "state.safetensors")
    assert 1 <= len(before) - 1 < 4 and not state.finished

    finish(start_training(data, recipe, killed))
    finish(start_training(data, recipe, whole))
    for name in ("state.safetensors", "best.safetensors"):
        resumed, wanted = load_file(killed / name), load_file(whole / name)
        assert resumed.keys() == wanted.keys() and len(wanted) > 300
        assert [k for k in wanted if not torch.equal(resumed[k], wanted[k])] == []
    assert RunState.load(killed / "state.safetensors").finished
    assert rows_of(killed)[1] == before[1]  # it did not begin anew: even the seconds are the same
    assert [r[:-1] for r in rows_of(killed)] == [r[:-1] for r in rows_of(whole)]
    assert [r[0] for r in rows_of(whole)] == ["epoch", "0", "1", "2", "3"]
    assert "epoch 3 at 40 px" in (killed / "log.txt").read_text()


# --- Mistakes --------------------------------------------------------------------------------


@pytest.fixture
def mistake(capfd):
    """Run a command that must end with exit code 2; return its one line on stderr."""

    def run(*words) -> str:
        assert main([str(word) for word in words]) == 2
        _, err = capfd.readouterr()
        assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
        return err

    return run


def test_a_missing_data_folder_is_said(mistake, tmp_path):
    line = mistake("data", "--task", "cxr", "--data", tmp_path / "nowhere")
    assert f"The data folder {tmp_path / 'nowhere'} does not exist; name it with --data." in line


def test_a_mistake_in_a_task_file_is_said(mistake, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("{id: shapes, name: Shapes, classes: [a, b], flor: [frame]}")
    line = mistake("data", "--task", file, "--data", tmp_path)
    assert f"{file}: the key 'flor' is unknown; the nearest valid one is 'floors'." in line


def test_an_unknown_recipe_key_is_said(mistake, write_recipe, tmp_path):
    recipe = write_recipe(batchsize=3)
    line = mistake("student", "--task", "cxr", "--data", tmp_path, "--recipe", recipe)
    assert "the key 'batchsize' is unknown; the nearest valid one is 'batch_size'" in line


def test_a_guide_needs_a_recipe_that_asks_for_it(mistake, write_recipe, tmp_path):
    words = ("student", "--task", "cxr", "--data", tmp_path, "--guide", tmp_path / "none")
    assert "has no phase of features; leave out --guide." in mistake(
        *words, "--recipe", write_recipe()
    )
    phases = [{"size": 32, "epochs": 1, "lr": 0.1, "objective": "features"},
              {"size": 32, "epochs": 1, "lr": 0.1}]  # fmt: skip
    guided = write_recipe(phases=phases, views=2, mixup=0.0)
    line = mistake(*words, "--recipe", guided)
    assert f"{tmp_path / 'none'} does not hold the weights of mobilenetv2_100" in line


def test_an_unknown_objective_is_said_with_the_recipes_there_are(mistake, tmp_path):
    words = ("distill", "--task", "histopathology", "--teacher", "vgg19", "--objective", "mse")
    line = mistake(*words, "--data", tmp_path)
    assert "There is no recipe" in line and "ofa_595-from-vgg19-mse.yaml; there are: " in line


def test_a_recipe_for_something_else_is_said(mistake, write_recipe, tmp_path):
    distilled = {"objective": "hybrid", "teacher": "vgg19", "mixup": 0.0}
    start = ("--task", "cxr", "--data", tmp_path, "--recipe", write_recipe(**distilled))
    line = mistake("student", *start)
    assert "is for task cxr, model ofa_595 and teacher vgg19, not for cxr, ofa_595 and None" in line
    line = mistake("distill", "--teacher", "all", *start)
    assert "teacher vgg19, not for cxr, ofa_595 and vgg19+visformer_s+autoformerv2_t" in line
    line = mistake("distill", "--teacher", "vgg19", "--objective", "attention", *start)
    assert "has the objective 'hybrid', not 'attention' as the command says" in line


def test_a_teacher_that_is_not_stored_is_said(
    mistake, write_recipe, write_starter, tmp_path, tiny_index, monkeypatch
):
    kept = [c for c in tiny_index.checkpoints if (c.task, c.model) != ("cxr", "autoformerv2_t")]
    replace(tiny_index, checkpoints=tuple(kept)).write()
    monkeypatch.setattr(Index.read.__func__, "__defaults__", (tiny_index.folder,))
    data = write_starter(tmp_path / "data", train=1, val=1, test=1)
    everyone = "vgg19+visformer_s+autoformerv2_t"
    recipe = write_recipe(objective="multi_teacher", teacher=everyone, mixup=0.0)
    words = ("distill", "--task", "cxr", "--teacher", "all", "--data", data, "--recipe", recipe)
    line = mistake(*words, "--run", tmp_path / "run")
    assert "index.json lists no autoformerv2_t for the task 'cxr'" in line
    assert not (tmp_path / "run").exists()


def test_bad_yaml_and_a_missing_recipe_are_said(mistake, tmp_path):
    (tmp_path / "bad.yaml").write_text("phases: [")
    start = ("student", "--task", "cxr", "--data", tmp_path, "--recipe")
    assert "bad.yaml is not valid YAML" in mistake(*start, tmp_path / "bad.yaml")
    assert "There is no recipe" in mistake(*start, tmp_path / "no.yaml")


def test_a_run_folder_of_another_recipe_is_said(mistake, write_recipe, write_starter, tmp_path):
    data = write_starter(tmp_path / "data", train=1, val=1, test=1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.yaml").write_text("recipe: {}\n")
    words = ("student", "--task", "cxr", "--data", data, "--recipe", write_recipe())
    line = mistake(*words, "--run", tmp_path / "run")
    assert "holds a run of another recipe, data set, teacher, guide or precision" in line


def test_a_folder_without_a_run_is_said(mistake, write_starter, tmp_path):
    data = write_starter(tmp_path / "data", train=1, val=1, test=1)
    line = mistake("store", "--task", "cxr", "--data", data, "--run", tmp_path / "run")
    assert f"{tmp_path / 'run'} is no run folder with trained weights" in line


@pytest.mark.parametrize(
    "words", [["train"], ["data"], ["distill", "--task", "cxr"], ["teacher", "--task", "mri"]]
)
def test_a_wrong_command_line_shows_its_usage(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: python -m train" in capsys.readouterr().err


# --- The other commands ----------------------------------------------------------------------


def test_data_counts_the_images(write_starter, tmp_path, capsys):
    assert main(["data", "--task", "cxr", "--data", str(write_starter(tmp_path / "data"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("starter-cxr@") and lines[0].endswith(": 30 images")
    assert lines[1:] == [
        "  train: covid 6, pneumonia 6, normal 6",
        "  val: covid 2, pneumonia 2, normal 2",
        "  test: covid 2, pneumonia 2, normal 2",
    ]


def test_the_data_folder_may_come_from_the_environment(
    write_starter, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("KD_DATA", str(write_starter(tmp_path / "data")))
    assert main(["data", "--task", "cxr"]) == 0
    assert "30 images" in capsys.readouterr().out


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("words, stem", [
    (["teacher", "--model", "vgg19"], "vgg19"),
    (["student"], "ofa_595-labels"),
    (["distill", "--teacher", "vgg19"], "ofa_595-from-vgg19"),
    (["distill", "--teacher", "vgg19", "--objective", "hybrid"], "ofa_595-from-vgg19"),
    (["distill", "--teacher", "vgg19", "--objective", "attention"], "ofa_595-from-vgg19-attention"),
    (["distill", "--teacher", "all"], "ofa_595-from-all"),
    (["distill", "--teacher", "all", "--objective", "multi_teacher"], "ofa_595-from-all"),
])  # fmt: skip
def test_a_command_takes_its_own_recipe(words, stem, task, monkeypatch):
    import train.learn.recipes

    asked = []

    def read_recipe(path, task, seed):
        asked.append((path, task, seed))
        raise train.learn.recipes.RecipeError("far enough")

    monkeypatch.setattr(train.learn.recipes, "read_recipe", read_recipe)
    assert main([*words, "--task", task, "--seed", "7"]) == 2
    assert asked == [(FOLDER / f"{task}-{stem}.yaml", task, 7)]


# --- Evaluation ------------------------------------------------------------------------------


@pytest.fixture
def evaluated(weights, finish_run, write_starter, tmp_path) -> list[str]:
    """A stored and evaluated network; the words that evaluate it again."""
    import train.release.store

    data = write_starter(tmp_path / "data")
    manifest = open_manifest("cxr", data)
    train.release.store.store_run(finish_run(manifest), manifest, "float32")
    words = ["evaluate", "--data", str(data)]
    assert main([*words, "--task", "cxr", "--write"]) == 0
    return words


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """Few trees, in this process."""
    for module in (train.measure.floors, train.measure.leakage):
        forest = module.RandomForestClassifier
        monkeypatch.setattr(
            module, "RandomForestClassifier",
            lambda _, n_jobs, random_state, forest=forest: forest(5, random_state=random_state),
        )  # fmt: skip


@pytest.mark.parametrize("which", [["--task", "cxr"], ["--all"]])
def test_evaluation_ends_in_1_when_a_kept_answer_is_another(evaluated, which, caplog):
    assert main([*evaluated, *which]) == 0
    results = TaskResults.of(TASKS["cxr"])
    (run,) = results.runs
    replace(run, test=run.test[:, ::-1]).write(results.folder / "runs")
    caplog.set_level(logging.INFO, logger="train")
    assert main([*evaluated, *which]) == 1
    assert "DIFFERS: cxr-ofa_595-labels-seed0, test: " in caplog.text


def test_evaluation_is_of_one_task_or_of_all(capsys):
    for words in (["evaluate"], ["evaluate", "--all", "--task", "cxr"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_runs_for_evaluation_must_be_runs(evaluated, mistake, tmp_path):
    line = mistake(*evaluated, "--task", "cxr", "--runs", tmp_path / "none")
    assert f"{tmp_path / 'none'} is no run folder with trained weights" in line


def test_leakage_is_measured_into_the_results(evaluated, weights):
    assert main(["leakage", "--task", "cxr", *evaluated[1:], "--write"]) == 0
    lines = (weights / "results" / "cxr" / "leakage.csv").read_text().splitlines()
    assert lines[0] == "classifier,way,seed,trained,tested,right,seen" and len(lines) == 15
    assert main(["leakage", "--task", "cxr", *evaluated[1:]]) == 0
