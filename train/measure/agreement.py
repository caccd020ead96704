"""Do student and teacher look at the same places, and does distillation make them?

Both explain the true class of the same test images by Score-CAM, and their maps are compared as the
page compares them (`kdmodels.explain.similarity`). The control, which never met the teacher, tells how
alike the maps of two networks are that only share the labels.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from kdmodels.explain.scorecam import explain_progressively
from kdmodels.explain.similarity import agreement
from kdmodels.models.checkpoints import Checkpoint, CheckpointError, Index, sha256_of
from kdmodels.predict import Classifier
from train.data.manifest import Manifest, Sample, read_pixels
from train.learn.finished import as_trained, read_runs
from train.measure.evaluate import say_differences
from train.measure.kept import KeptRun, results_folder
from train.measure.kept_rows import DIGITS, AgreementRow, read_rows, unlike_rows, write_rows
from train.measure.predictions import stored_on

log = logging.getLogger("train")

SIDE = 256  # px, at which images are read
TOLERANCE = 0.1  # of one image's similarity, which another engine or processor may move
Maps = list[np.ndarray]


def choose(samples: Sequence[Sample], classes: Sequence[str], number: int) -> list[Sample]:
    """About `number` samples, as many of each class as of any other where it has them."""
    order = np.random.default_rng(0).permutation(len(samples))
    share = -(-number // len(classes))
    return [
        s for c in classes for s in [samples[i] for i in order if samples[i].label == c][:share]
    ]


def heatmaps_of(classifier: Classifier, samples: Sequence[Sample]) -> Maps:
    """The settled heatmap of each sample's own class, (h, w) in [0, 1]."""
    maps = []
    for sample in tqdm(samples, classifier.checkpoint.name, leave=False, disable=None):
        image = Image.fromarray(read_pixels(sample, classifier.task, SIDE))
        steps = explain_progressively(classifier, image, sample.label)
        maps.append(next(step for step in steps if step.settled).heatmap)
    return maps


def compared(
    student: tuple[Checkpoint, Maps], teacher: tuple[Checkpoint, Maps], samples: Sequence[Sample]
) -> Iterator[AgreementRow]:
    """A row for each sample, of the rows and maps of a student and a teacher."""
    (taught, theirs), (teaching, wanted) = student, teacher
    for sample, first, second in zip(samples, wanted, theirs, strict=True):
        found = agreement(first, second)
        yield AgreementRow(
            student=KeptRun.key_of(taught),
            student_sha256=taught.sha256[:DIGITS],
            teacher=teaching.model,
            teacher_sha256=teaching.sha256[:DIGITS],
            image=sample.path.name,
            group=sample.group,
            correlation=found.pearson,
            overlap=found.overlap,
        )


def all_compared(
    students: Sequence[tuple[Checkpoint, Maps]],
    teachers: Sequence[tuple[Checkpoint, Maps]],
    samples: Sequence[Sample],
) -> list[AgreementRow]:
    """Each student beside each of its teachers; the control, which has none, beside all."""
    return [
        row
        for student in students
        for teacher in teachers
        if teacher[0].model in (student[0].teacher or teacher[0].model).split("+")
        for row in compared(student, teacher, samples)
    ]


def agreement_task(
    manifest: Manifest, number: int, runs: Sequence[Path] = (), write: bool = False
) -> list[str]:
    """Compare the heatmaps of all stored students of a task, and of `runs`, with their teachers'.

    number: of test images, about. `write` keeps the rows in `results/<task>/agreement.csv`, beside
    those of other runs on the same images; else they are compared with what is kept there: returns
    a sentence for each difference. Raises `CheckpointError`, `DataError`, `UnusableRun`,
    `ResultsError`.
    """
    index, task = Index.read(), manifest.task
    file = results_folder() / task.id / "agreement.csv"
    known = read_rows(file, AgreementRow)
    stored = stored_on(manifest, index)
    teachers = [c for c in stored if c.spec.role == "teacher" and not c.variant]
    if not teachers:
        raise CheckpointError(
            f"{index.folder} holds no teacher for the task '{task.id}'; store one."
        )
    further = [f for f in read_runs(runs, manifest.id) if f[1].spec.role == "student"]
    samples = choose(manifest.split("test"), task.class_ids, number)
    log.info("%d test images of %s", len(samples), manifest.id)
    taught = [(c, heatmaps_of(Classifier.load(index, c), samples)) for c in teachers]
    students = [
        (c, heatmaps_of(Classifier.load(index, c), samples))
        for c in stored
        if c.spec.role == "student"
    ]
    for folder, row, state in further:
        row = replace(row, sha256=sha256_of(folder / "best.safetensors"))
        students.append((row, heatmaps_of(as_trained(row, state), samples)))
    rows = all_compared(students, taught, samples)
    for pair in dict.fromkeys((row.student, row.teacher) for row in rows):
        found = [r.correlation for r in rows if (r.student, r.teacher) == pair]
        log.info("%s and %s: correlation %.3f", *pair, np.nanmean(found))
    names, mine = {s.path.name for s in samples}, {row.student for row in rows}
    others = [r for r in known if r.student not in mine and r.image in names]
    if write:
        write_rows(file, [*rows, *others])
        return []
    if others:
        students_left = ", ".join(sorted({row.student for row in others}))
        log.info("Not checked, as their weights are not at hand: %s", students_left)
    kept = [row for row in known if row.student in mine]
    lines = unlike_rows(file, kept, rows, {"correlation": TOLERANCE, "overlap": TOLERANCE})
    say_differences(lines)
    return lines
