"""Made-up kept results, for tests of what is made of them: written as an evaluation writes them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.tasks import TASKS, Task
from train.measure.kept import Floor, Images, KeptRun, TaskResults

NUMBER = 90  # images of a split
ENGINE, SERVED_BY = "PyTorch eager, float32", "OpenVINO, bf16"


def images_of(task: Task, split: str) -> Images:
    labels = np.random.default_rng(len(split)).integers(0, task.num_classes, NUMBER)
    return Images(
        tuple(f"{split}-{i}.png" for i in range(NUMBER)),
        labels,
        tuple(f"{split}-g{i // 2}" for i in range(NUMBER)),
        tuple(f"source {i % 2}" for i in range(NUMBER)),
    )


def answers(task: Task, split: str, seed: int, skill: float = 1.5) -> np.ndarray:
    """(90, K) logits that are the more often right, the greater `skill` is."""
    logits = np.random.default_rng(seed).normal(size=(NUMBER, task.num_classes))
    logits[np.arange(NUMBER), images_of(task, split).labels] += skill
    return logits


def run_of(row: Checkpoint, seed: int, skill: float = 1.5) -> KeptRun:
    """A run's made-up answers; of a shipped one, by the page's engine too, which errs a little."""
    task = TASKS[row.task]
    test = answers(task, "test", seed, skill)
    noise = np.random.default_rng(seed).normal(0, 0.1, test.shape)
    return KeptRun(
        row,
        recipe_sha256="0" * 64,
        engine=ENGINE,
        parameters=7_600_000,
        macs=140_000_000,
        val=answers(task, "val", 1000 + seed, skill),
        test=test,
        served=test + noise if row.file else None,
        served_by=SERVED_BY if row.file else None,
    )


def write_results(root: Path, index: Index) -> Path:
    """Results of all checkpoints of an index, other seeds of VGG19's student and of the control of
    chest films, and floors and a probe of each task. Returns `root`.
    """
    for task in TASKS.values():
        folder = TaskResults.of(task, root).folder
        for split in ("val", "test"):
            images_of(task, split).write(folder / f"{split}.csv", task)
        for i, row in enumerate(c for c in index.checkpoints if c.task == task.id):
            run_of(row, i).write(folder / "runs")
            if task.id == "cxr" and row.model == "ofa_595" and row.teacher in (None, "vgg19"):
                other = replace(row, file="", sha256=f"{i:064d}", seed=2)
                run_of(other, 50 + i).write(folder / "runs")
        for seed, (name, kind, skill) in enumerate(
            (
                ("majority class", "floor", 0.0),
                ("thumbnail", "floor", 1.2),
                ("linear probe on a frozen network", "probe", 3.0),
            ),
            100,
        ):
            both = (
                answers(task, split, seed + place, skill)
                for place, split in ((9, "val"), (0, "test"))
            )
            Floor(name.replace(" ", "-"), name, kind, *both).write(folder / "floors")
    return root
