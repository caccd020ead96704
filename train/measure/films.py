"""Which films the shortcut audit is of: those of one split with masks of two lungs."""

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np

from kdmodels.tasks import Task
from train.data.blanking import LUNGS, has_lungs
from train.data.manifest import DataError, Manifest, Sample
from train.measure.metrics import MIN_WITHIN, labels_of

log = logging.getLogger("train")

MIN_FILMS = MIN_WITHIN  # of a class with masks; classes with fewer are left out


@dataclass(frozen=True)
class Films:
    """Films of one split with usable masks, of the classes that have enough of them.

    task: the task with those classes alone. columns: their places among the network's logits.
    notes: what was left out, in words.
    """

    task: Task
    samples: tuple[Sample, ...]
    columns: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> np.ndarray:
        """(N,) places of the labels in `task`."""
        return labels_of(self.samples, self.task)

    @property
    def groups(self) -> list[str]:
        return [s.group for s in self.samples]


def masked_films(manifest: Manifest, split: str = "test") -> Films:
    """The films of a split to audit on. Raises `DataError` when they hold fewer than two classes.

    Left out: films without a mask, films whose mask cannot be of two lungs (`LUNGS`), and then
    classes with fewer than `MIN_FILMS`.
    """
    task, notes = manifest.task, []
    masked = [s for s in manifest.split(split) if s.mask]
    usable = [s for s in masked if has_lungs(s)]
    if strange := sorted(s.mask.name for s in set(masked) - set(usable)):
        log.info("Masks that cannot be of two lungs: %s", ", ".join(strange))
        low, high = (f"{100 * share:.0f}%" for share in LUNGS)
        notes.append(
            f"Left out: {len(strange)} films whose masks cover less than {low} or more than {high}."
        )
    counts = Counter(s.label for s in usable)
    held = tuple(c for c in task.classes if counts[c.id] >= MIN_FILMS)
    if len(held) < 2:
        raise DataError(
            f"The audit needs lung masks for {MIN_FILMS} films each of two classes or more, but "
            f"the {split} split of '{manifest.name}' has them for {len(usable)} films in all."
        )
    notes += [
        f"Left out: {c.name}, with masks for {counts[c.id]} films, fewer than {MIN_FILMS}."
        for c in task.classes
        if c not in held
    ]
    part = task.model_copy(update={"classes": held})
    return Films(
        part,
        tuple(s for s in usable if s.label in part.class_ids),
        tuple(task.class_ids.index(c.id) for c in held),
        tuple(notes),
    )
