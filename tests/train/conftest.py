"""Shared fixtures: small generated data sets that are easy to tell apart, and small recipes."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdmodels.tasks import get_task
from train.datasets import Manifest, Sample
from train.recipes import Phase, Recipe

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
def write_starter():
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
