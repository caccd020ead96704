"""Do student and teacher look at the same places, and does distillation make them?

Both explain the true class of the same test images by Score-CAM, and their maps are compared as the
page compares them (`kdmodels.explain.similarity`). The control, which never met the teacher, tells how alike
the maps of two networks are that only share the labels.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from tqdm import tqdm

from kdmodels.explain.scorecam import SETTLED, explain_progressively
from kdmodels.explain.similarity import agreement
from kdmodels.models.checkpoints import Checkpoint, Index, sha256_of
from kdmodels.predict import Classifier
from train.data.manifest import Manifest, Sample, read_pixels
from train.learn.finished import as_trained
from train.measure.metrics import LEVEL, RESAMPLES
from train.measure.seeds import control_of, read_runs
from train.release.store import StoreError, read_results, update_results

log = logging.getLogger("train")

SIDE = 256  # px, at which images are read
METRICS = ("correlation", "overlap")
Maps = list[np.ndarray]


def choose(samples: Sequence[Sample], classes: Sequence[str], number: int) -> list[Sample]:
    """About `number` samples, as many of each class as of any other where it has them."""
    order = np.random.default_rng(0).permutation(len(samples))
    share = -(-number // len(classes))
    return [
        s for c in classes for s in [samples[i] for i in order if samples[i].label == c][:share]
    ]


def maps_of(classifier: Classifier, samples: Sequence[Sample]) -> Maps:
    """The settled heatmap of each sample's own class, (h, w) in [0, 1]."""
    maps = []
    for sample in tqdm(samples, classifier.checkpoint.name, leave=False, disable=None):
        image = Image.fromarray(read_pixels(sample, classifier.task, SIDE))
        steps = explain_progressively(classifier, image, sample.label, agreement=SETTLED)
        maps.append(list(steps)[-1].heatmap)
    return maps


def compared(teacher: Maps, student: Maps) -> np.ndarray:
    """(N, 2): `METRICS` of each pair of maps; NaN where one of them is flat."""
    found = [agreement(a, b) for a, b in zip(teacher, student, strict=True)]
    return np.array([(pair.pearson, pair.overlap) for pair in found])


def mean_of(values: np.ndarray, groups: Sequence[str]) -> dict:
    """Mean of (N,) values without NaNs, with the interval of a bootstrap over groups.

    The interval covers the choice of images, not the chance of training. images: how many counted.
    """
    kept = np.isfinite(values)
    if not kept.any():  # JSON has no NaN
        return {"value": None, "ci95": [None, None], "images": 0}
    _, group = np.unique(np.array(groups)[kept], return_inverse=True)
    number = group.max() + 1
    sums, counts = np.bincount(group, values[kept]), np.bincount(group)
    draws = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), RESAMPLES)
    tail = (100 - LEVEL) / 2
    interval = np.percentile((draws @ sums) / (draws @ counts), (tail, 100 - tail))
    return {
        "value": round(float(values[kept].mean()), 4),
        "ci95": [round(float(v), 4) for v in interval],
        "images": int(kept.sum()),
    }


def measure_agreement(
    students: Sequence[tuple[Checkpoint, Maps]],
    teachers: Mapping[str, Maps],
    groups: Sequence[str],
) -> list[dict]:
    """A row for each student and each teacher of it, and for the control and each of these.

    students: with the maps of the same images, each; teachers: maps by model id. A row holds
    `METRICS` with intervals, and `over_control`: by how much they are above those of the control
    with the same seed, where it is there; and the sha256 of these students' weights.
    """
    known = {(row.stem, row.seed): (row, maps) for row, maps in students}
    rows = [row for row, _ in students]
    table = []
    for row, maps in students:
        wanted = row.teacher.split("+") if row.teacher else sorted(teachers)
        for teacher in [t for t in wanted if t in teachers]:
            pairs = compared(teachers[teacher], maps)
            entry = {"student": row.name, "seed": row.seed, "teacher": teacher}
            entry["sha256"] = [row.sha256]
            entry |= {m: mean_of(pairs[:, i], groups) for i, m in enumerate(METRICS)}
            control = control_of(row, rows)
            if control and (control.stem, row.seed) in known:
                control, plain = known[control.stem, row.seed]
                entry["sha256"].append(control.sha256)
                other = compared(teachers[teacher], plain)
                entry["over_control"] = {
                    m: mean_of(pairs[:, i] - other[:, i], groups) for i, m in enumerate(METRICS)
                }
            table.append(entry)
    return table


def agreement_task(
    manifest: Manifest, number: int, runs: Sequence[Path] = (), write: bool = False
) -> list[dict]:
    """Compare all stored students of a task, and those of `runs`, with their teachers.

    number: of test images, about. `write` stores the rows in `weights/results.json`; those of
    earlier runs stay as long as the evaluation counts them (see `train.measure.seeds`) and the images and
    teachers are the same. Raises `StoreError` where no teacher is stored.
    """
    index, task = Index.read(), manifest.task
    stored = [c for c in index.checkpoints if c.task == task.id]
    teachers = [c for c in stored if c.spec.role == "teacher" and not c.variant]
    if not teachers:
        raise StoreError(f"{index.folder} holds no teacher for the task '{task.id}'; store one.")
    samples = choose(manifest.split("test"), task.class_ids, number)
    log.info("%d test images of %s", len(samples), manifest.id)
    taught = {c.model: maps_of(Classifier.load(index, c), samples) for c in teachers}
    students = [
        (c, maps_of(Classifier.load(index, c), samples)) for c in stored if c.spec.role == "student"
    ]
    for run, row in read_runs(runs, manifest.id, stored):
        if row.spec.role == "teacher":
            log.info("%s: a teacher is not compared with itself.", run)
            continue
        weights = run / "best.safetensors"
        row = replace(row, sha256=sha256_of(weights))
        students.append((row, maps_of(as_trained(row, load_file(weights)), samples)))
    table = measure_agreement(students, taught, [s.group for s in samples])
    for entry in table:
        numbers = ", ".join(f"{m} {entry[m]['value']} of {entry[m]['ci95']}" for m in METRICS)
        log.info(
            "%s, seed %d, and %s: %s", entry["student"], entry["seed"], entry["teacher"], numbers
        )
    found = {"images": len(samples), "teachers": {c.model: c.sha256 for c in teachers}}
    table += _kept(read_results().get(task.id, {}), found, table, students)
    if write:
        update_results(task.id, agreement=found | {"rows": table})
    return table


def _kept(
    results: dict, found: dict, table: list[dict], students: Sequence[tuple[Checkpoint, Maps]]
) -> list[dict]:
    """Rows of the stored agreement of runs that are not at hand, if all else is as it was."""
    before = results.get("agreement", {})
    if any(before.get(part) != found[part] for part in found):
        return []
    counted = {e["sha256"] for entries in results.get("seeds", {}).values() for e in entries}
    counted |= {row.sha256 for row, _ in students}
    new = {(entry["student"], entry["seed"]) for entry in table}
    return [
        entry
        for entry in before["rows"]
        if (entry["student"], entry["seed"]) not in new and counted.issuperset(entry["sha256"])
    ]
