"""Several processes, killed ones, worker processes and full disks: the real ones, as users have them."""

import csv
import logging
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

import train.data.pixels
import train.learn.loop
import train.learn.runs
from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.models.zoo import MODELS, build_model
from kdmodels.tasks import get_task
from train.__main__ import main
from train.data.manifest import DataError
from train.learn.guides import MODEL
from train.learn.loop import Trainer
from train.learn.processes import start_processes
from train.learn.recipes import Phase, RecipeError
from train.learn.runs import RunError, RunFolder, RunState

REPOSITORY = Path(__file__).parents[2]
TINY = Path(__file__).with_name("launch_tiny.py")
TWO_PROCESSES = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
    "--main_process_port", "0",
]  # fmt: skip
LABELS = {  # 6 steps an epoch
    "task": "cxr",
    "model": "ofa_595",
    "batch_size": 8,
    "mixup": 0.0,
    "ema_decay": 0.9,
    "phases": [
        {"size": 32, "epochs": 2, "lr": 0.01, "augmentation": 0.5},
        {"size": 40, "epochs": 1, "lr": 0.005, "augmentation": 0.5},
    ],
}
TEACHERS = ("vgg19", "visformer_s", "autoformerv2_t")
RECIPE = LABELS | {"objective": "multi_teacher", "teacher": "+".join(TEACHERS), "views": 2}
GUIDED = LABELS | {
    "model": "vgg19",
    "views": 2,
    "phases": [
        {"size": 32, "epochs": 1, "lr": 0.01, "augmentation": 0.5, "objective": "features"},
        {"size": 40, "epochs": 1, "lr": 0.005, "augmentation": 0.5},
    ],
}


pytestmark = pytest.mark.usefixtures("clean_accelerate")


@pytest.fixture(scope="module")
def place(tmp_path_factory, starter_writer) -> Path:
    """A folder with a data set, stored weights of small teachers, and a recipe that needs both."""
    place = tmp_path_factory.mktemp("place")
    starter_writer(place / "data", train=16, val=4, test=1)
    (place / "mine.yaml").write_text(yaml.safe_dump(RECIPE))
    (place / "guided.yaml").write_text(yaml.safe_dump(GUIDED))
    torch.manual_seed(9)
    save_file(timm.create_model(MODEL, pad_type="same").state_dict(), place / "guide.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TINY.parent))
        from launch_tiny import plain_spec

        index = Index(place / "weights")
        for seed, model in enumerate(TEACHERS):
            patch.setitem(MODELS, model, plain_spec(MODELS[model]))
            torch.manual_seed(seed)
            index.store(new_row(model), build_model(model, 3).state_dict())
    return place


def new_row(model: str) -> Checkpoint:
    return Checkpoint(
        task="cxr", model=model, teacher=None, classes=get_task("cxr").class_ids, file="",
        sha256="", bytes=0, storage="float16", recipe="", data="", date="2025-01-31",
    )  # fmt: skip


DISTILL = ("distill", "--teacher", "all", "--recipe", "mine.yaml")
TEACHER = ("teacher", "--model", "vgg19", "--recipe", "guided.yaml", "--guide", "guide.safetensors")


def start(
    place: Path, run: str, launcher=(sys.executable,), words=DISTILL, ends: int = 0, **environment
) -> str:
    """Train a small network in processes of its own; returns what they printed."""
    words = [*words, "--task", "cxr", "--data", "data", "--run", run, "--precision", "float32"]
    surroundings = {
        "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY),
        "KD_WEIGHTS": str(place / "weights"), "XDG_CACHE_HOME": str(place / "cache"),
    }  # fmt: skip
    done = subprocess.run(
        [*launcher, str(TINY), *words],
        cwd=place,
        env=os.environ | surroundings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert done.returncode == ends, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def whole(place) -> Path:
    """The folder of a run of one process that nothing interrupted."""
    start(place, "one/whole")
    return place / "one" / "whole"


def rows_of(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
        ]


def same_files(first: Path, second: Path) -> bool:
    pairs = [
        (load_file(first / name), load_file(second / name))
        for name in ("state.safetensors", "best.safetensors")
    ]
    return all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in pairs)


# --- Several processes -----------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_two_processes_give_the_losses_of_one(place, whole):
    said = start(place, "two/whole", TWO_PROCESSES)  # with targets of its own
    assert said.count("2 processes share each batch of 8 images") == 1
    two = place / "two" / "whole"
    wanted, found = rows_of(whole), rows_of(two)
    assert len(found) == len(wanted) == 3
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert len({round(row["train_loss"], 3) for row in found}) == 3  # there is something to compare
    first, second = (load_file(run / "state.safetensors") for run in (whole, two))
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[k], second[k], rtol=1e-3, atol=1e-4) for k in first)
    log = (two / "log.txt").read_text()
    assert [log.count(f"epoch {epoch} at") for epoch in (0, 1, 2)] == [1, 1, 1]
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in whole.iterdir())


@pytest.mark.timeout(900)
def test_two_processes_learn_a_guides_features_as_one(place):
    for run, launcher in (("one", (sys.executable,)), ("two", TWO_PROCESSES)):
        start(place, f"{run}/guided", launcher, TEACHER)  # with targets of its own
    wanted, found = (rows_of(place / run / "guided") for run in ("one", "two"))
    assert len(found) == len(wanted) == 2
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, nan_ok=True)
    first, second = (load_file(place / r / "guided/best.safetensors") for r in ("one", "two"))
    assert all(torch.allclose(first[k], second[k], rtol=1e-3, atol=1e-4) for k in first)


def test_a_batch_that_cannot_be_shared_evenly_is_said(monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(RecipeError, match="3 processes cannot share batches of 32 images evenly"):
        start_processes("no", 32)


def test_a_lone_process_needs_no_launcher():
    accelerator = start_processes("no", 7)
    assert (accelerator.num_processes, accelerator.is_main_process) == (1, True)


def test_a_run_folder_that_other_machines_do_not_see_is_said(make_recipe, tmp_path):
    with pytest.raises(RecipeError, match="must lie on a disk that all of them share"):
        RunFolder(tmp_path / "run", make_recipe(), "generated@1", create=False)
    assert not (tmp_path / "run").exists()
    RunFolder(tmp_path / "run", make_recipe(), "generated@1")
    RunFolder(tmp_path / "run", make_recipe(), "generated@1", create=False)


# --- Killed, out of disk, and started again --------------------------------------------------


@pytest.mark.timeout(900)
def test_kill_9_in_an_epoch_changes_no_bit(place, whole):
    start(place, "one/killed", ends=-signal.SIGKILL, KILL_AT="9")  # the third step of epoch 1
    killed = place / "one" / "killed"
    state = RunState.load(killed / "state.safetensors")
    assert (state.phase, state.phase_epoch, state.finished) == (0, 1, False)
    assert rows_of(killed) == rows_of(whole)[:1]
    start(place, "one/killed")
    assert rows_of(killed) == rows_of(whole)
    assert same_files(killed, whole)


@contextmanager
def full_disk(size: int):
    """No file can grow beyond that many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("file", ["state.safetensors", "best.safetensors"])
def test_a_full_disk_keeps_the_state_that_was_there(make_recipe, tmp_path, monkeypatch, file):
    monkeypatch.setattr(train.learn.runs, "plot_curves", lambda *_: None)
    folder = RunFolder(tmp_path / "run", make_recipe(), "generated@1")
    row = dict(epoch=0, val_macro_f1=0.5)
    old, new = (
        RunState(model={"w": torch.rand(5000)}, ema={"w": torch.rand(5000)}, is_best=True)
        for _ in range(2)
    )
    folder.save_epoch(old, row)
    kept = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    limit = {"best.safetensors": 10_000, "state.safetensors": 30_000}[file]
    with full_disk(limit), pytest.raises(RunError, match=r"too large.* is still valid, so make"):
        folder.save_epoch(new, row | {"epoch": 1})
    left = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    assert left.keys() == kept.keys()
    assert left["state.safetensors"] == kept["state.safetensors"]
    assert (left["best.safetensors"] == kept["best.safetensors"]) == (file == "best.safetensors")
    assert torch.equal(folder.load_state().model["w"], old.model["w"])
    folder.save_epoch(new, row | {"epoch": 1})
    assert torch.equal(folder.load_state().model["w"], new.model["w"])


def test_a_full_disk_ends_the_command_with_a_sentence(
    write_starter, tiny_models, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(train.learn.runs, "plot_curves", lambda *_: None)
    data = write_starter(tmp_path / "data", train=4, val=2, test=2)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(LABELS))
    words = ["student", "--task", "cxr", "--data", data, "--recipe", tmp_path / "mine.yaml"]
    with full_disk(2_000):
        assert main([*map(str, words), "--run", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {tmp_path / 'run'} cannot be written")
    assert error.endswith("so make room and start the same command again to go on.")
    assert not (tmp_path / "run" / "state.safetensors").exists()


# --- Worker processes ------------------------------------------------------------------------


@pytest.mark.alone
def test_workers_change_nothing_and_decode_nothing(
    make_manifest, make_recipe, tiny_models, tmp_path, monkeypatch
):
    monkeypatch.setattr(train.learn.runs, "plot_curves", lambda *_: None)
    monkeypatch.setattr(train.learn.loop, "STORED_SIZE", 48)
    manifest = make_manifest(train=5, val=1, test=1)
    recipe = make_recipe(Phase(size=32, epochs=3, lr=0.02, steps=2))  # of three
    folders = []
    for workers in (0, 2):
        folder = RunFolder(tmp_path / f"with-{workers}", recipe, manifest.id)
        trainer = Trainer(recipe, manifest, folder, Accelerator(cpu=True), workers=workers)
        read = train.data.pixels.read_pixels
        if workers:  # worker processes inherit it
            monkeypatch.setattr(train.data.pixels, "read_pixels", only_of("val", read))
        trainer.fit()
        folders.append(folder.path)
    assert same_files(*folders) and rows_of(folders[0]) == rows_of(folders[1])


def only_of(split: str, read):
    def read_some(sample, *rest):
        if sample.split != split:
            raise DataError(f"{sample.path} was decoded again")
        return read(sample, *rest)

    return read_some


# --- A damaged image -------------------------------------------------------------------------


def test_a_damaged_image_is_named_once_in_the_log_of_a_run(
    write_starter, tiny_models, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, logger="train")
    monkeypatch.setattr(train.learn.runs, "plot_curves", lambda *_: None)
    data = write_starter(tmp_path / "data", train=32, val=2, test=2)
    broken = data / "images" / "train-covid-3.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump(LABELS))
    words = ["student", "--task", "cxr", "--data", data, "--recipe", recipe, "--max-steps", 2]
    words = [*map(str, words), "--run", str(tmp_path / "run")]
    assert main(words) == 0
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert [str(broken) in line for line in lines] == [False, True] + [False] * (len(lines) - 2)
    assert "1 of 108 images cannot be read and are left out" in lines[0]
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["settings"]["skipped"] == [
        broken.name
    ]
    broken.write_bytes(whole)  # what is another set of images is another run
    assert main(words) == 2
    assert logging.getLogger("train").level != logging.ERROR
