"""Shared fixtures: small generated data sets that are easy to tell apart, and small recipes."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from accelerate.state import AcceleratorState, GradientState, PartialState
from PIL import Image

import train.learn.finished
import train.release.store
from kdmodels.models.checkpoints import Index
from kdmodels.models.zoo import build_model
from kdmodels.tasks import get_task
from train.data.manifest import Manifest, Sample
from train.learn.recipes import Phase, Recipe, find_recipe, to_dict
from train.learn.runs import RunFolder, RunState, write_safetensors

COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220), (200, 200, 40), (200, 40, 200))


def draw(kind: int, seed: int, side: int = 32, colour: bool = False) -> Image.Image:
    """A noisy image of a class: stripes that lie, that stand, or none; or a colour."""
    noise = np.random.default_rng(seed).normal(0, 12, (side, side, 3))
    y, x = np.mgrid[:side, :side] / side
    if colour:
        pixels = np.array(COLOURS[kind]) + noise
    else:
        pattern = (np.sin(8 * np.pi * y), np.sin(8 * np.pi * x), np.zeros_like(y))[kind]
        pixels = 128 + 90 * pattern[..., None] + noise[..., :1].repeat(3, axis=2)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """What is kept between runs stays in a folder of each test."""
    monkeypatch.delenv("KD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def clean_accelerate(monkeypatch):
    """Accelerate keeps its settings for the process: a function to forget them; used after a test.

    Spares the collection of garbage at the end of each phase, which takes longer than a tiny one.
    """
    monkeypatch.setattr("accelerate.utils.memory.gc", SimpleNamespace(collect=lambda: 0))

    def forget() -> None:
        AcceleratorState._reset_state(True)
        PartialState._reset_state()
        GradientState._reset_state()

    yield forget
    forget()


@pytest.fixture
def make_manifest(tmp_path):
    """Make a `Manifest` of generated images: so many of each class in each split."""

    def make(
        train: int = 8, val: int = 4, test: int = 4, task: str = "cxr", group_size: int = 1
    ) -> Manifest:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        samples = []
        for split, number in (("train", train), ("val", val), ("test", test)):
            for kind, label in enumerate(get_task(task).class_ids):
                for i in range(number):
                    path = folder / f"{split}-{label}-{i}.png"
                    seed = len(samples)
                    draw(kind, seed, colour=not get_task(task).greyscale).save(path)
                    group = f"{split}-{label}-{i // group_size}"
                    samples.append(Sample(path, label, split, group, f"source {i % 2}"))
        return Manifest(get_task(task), "generated", tuple(samples))

    return make


@pytest.fixture
def make_samples(tmp_path):
    """Smooth images without symmetry, one of each class of a task."""

    def make(task_id: str) -> list[Sample]:
        samples = []
        for kind, label in enumerate(get_task(task_id).class_ids):
            small = np.random.default_rng(kind).integers(0, 256, (7, 6, 3), dtype=np.uint8)
            path = tmp_path / f"{label}.png"
            Image.fromarray(small).resize((90, 110), Image.Resampling.BICUBIC).save(path)
            samples.append(Sample(path, label, "train", label, "source"))
        return samples

    return make


@pytest.fixture
def write_starter(starter_writer):
    """Write a starter set (see `starter_writer`)."""
    return starter_writer


@pytest.fixture(scope="session")
def starter_writer():
    """Write a starter set of generated chest images (JPEG, 64 px) with its manifest.csv."""

    def write(folder: Path, train: int = 6, val: int = 2, test: int = 2) -> Path:
        (folder / "images").mkdir(parents=True)
        rows = []
        for split, number in (("train", train), ("val", val), ("test", test)):
            for kind, label in enumerate(get_task("cxr").class_ids):
                for i in range(number):
                    stem = f"{split}-{label}-{i}"
                    draw(kind, len(rows), side=64).save(folder / "images" / f"{stem}.jpg")
                    source = f"source {i % 2}"
                    rows.append(dict(stem=stem, label=label, split=split, group=stem,
                                     source=source, has_mask="0"))  # fmt: skip
        with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return folder

    return write


@pytest.fixture
def make_recipe():
    """Make a small `Recipe` for chest images of 32 px; keywords replace its settings."""

    def make(*phases: Phase, **settings) -> Recipe:
        defaults = dict(
            name="small", task="cxr", model="ofa_595", batch_size=4, mixup=0.0, ema_decay=0.9
        )
        return Recipe(
            phases=phases or (Phase(size=32, epochs=2, lr=0.01),), **(defaults | settings)
        )

    return make


@pytest.fixture
def weights(tiny_models, tmp_path, monkeypatch) -> Path:
    """An empty weights folder of tiny networks, for the length of a test."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("KD_WEIGHTS", str(folder))  # results/ lies in it then
    monkeypatch.setattr(train.release.store, "WEIGHTS", folder)
    monkeypatch.setattr(Index.read.__func__, "__defaults__", (folder,))
    return folder


@pytest.fixture
def recipes(tmp_path, monkeypatch) -> Path:
    """An empty folder in place of train/recipes, as far as finished runs are concerned."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    monkeypatch.setattr(train.learn.finished, "FOLDER", folder)
    return folder


@pytest.fixture
def finish_run(make_recipe, tiny_models, tmp_path, recipes):
    """Make the folder of a finished run and its recipe, with weights as the network is built.

    change: what the head's weights are moved by, so that runs answer differently. Keywords replace
    the recipe's settings.
    """

    def finish(
        manifest, model="ofa_595", teacher=None, change=0.0, seed=0, finished=True,
        data=None, settings=None, teacher_sha256=None, **other,
    ) -> Path:  # fmt: skip
        objective = "multi_teacher" if "+" in (teacher or "") else "hybrid" if teacher else "labels"
        objective = other.pop("objective", objective)
        name = find_recipe(manifest.task.id, model, teacher, objective).stem
        recipe = make_recipe(
            Phase(size=32, epochs=1, lr=0.1), name=name, task=manifest.task.id, model=model,
            teacher=teacher, objective=objective, **other,
        )  # fmt: skip
        (recipes / f"{name}.yaml").write_text(
            yaml.safe_dump(json.loads(json.dumps(to_dict(recipe))))
        )
        recipe = recipe.model_copy(update={"seed": seed})
        folder = RunFolder(
            tmp_path / "runs" / f"{name}-seed{seed}", recipe, data or manifest.id,
            teacher_sha256, settings,
        )  # fmt: skip
        state = build_model(model, manifest.task.num_classes).state_dict()
        state["head.weight"] = state["head.weight"] + change
        state["head.weight"][0] -= 2 * change
        write_safetensors(state, folder.best_file, {})
        folder.save_state(RunState(finished=finished))
        return folder.path

    return finish
