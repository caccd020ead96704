"""Which films the shortcut audit is of: those of one split with masks of two lungs."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from kdmodels.tasks import Task
from train.data.blanking import SWAPS, choose_donors, has_lungs
from train.data.manifest import DataError, Manifest, Sample, labels_of
from train.measure.kept import COLUMNS, Images
from train.measure.kept_audit import FEW, MIN_FILMS, NO_LUNGS, NO_MASK, AuditFilms


@dataclass(frozen=True)
class Films:
    """Films of one split with usable masks, of the classes that have enough of them.

    whole_task, task: with all classes, and with those alone. columns: their places among the network's logits.
    left_out: the other films, by why (see `train.measure.kept_audit.REASONS`).
    """

    whole_task: Task
    task: Task
    samples: tuple[Sample, ...]
    columns: tuple[int, ...]
    left_out: dict[str, tuple[Sample, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        """(N,) places of the labels in `task`."""
        return labels_of(self.samples, self.task)

    def kept(self) -> AuditFilms:
        """They and their donors, as `results/` keeps them."""
        donors = {name: choose_donors(self.samples, swap) for name, swap in SWAPS.items()}
        left_out = (
            {c: getattr(s, c) for c in COLUMNS[1:]} | {"name": s.path.name, "left_out": reason}
            for reason, samples in self.left_out.items()
            for s in samples
        )
        images = Images.of(self.samples, self.task)
        return AuditFilms(self.whole_task, self.task, images, donors, tuple(left_out))


def masked_films(manifest: Manifest, split: str = "test") -> Films:
    """The films of a split to audit on. Raises `DataError` when they hold fewer than two classes.

    Left out: films without a mask, films whose mask cannot be of two lungs (`LUNGS`), and then
    classes with fewer than `MIN_FILMS`.
    """
    task, samples = manifest.task, manifest.split(split)
    usable = [s for s in samples if has_lungs(s)]
    counts = Counter(s.label for s in usable)
    held = tuple(c for c in task.classes if counts[c.id] >= MIN_FILMS)
    if len(held) < 2:
        raise DataError(
            f"The audit needs lung masks for {MIN_FILMS} films each of two classes or more, but "
            f"the {split} split of '{manifest.name}' has them for {len(usable)} films in all."
        )
    part = task.model_copy(update={"classes": held})
    films = tuple(s for s in usable if s.label in part.class_ids)
    names = Counter(s.path.name for s in films)
    if twice := [name for name, number in names.items() if number > 1]:
        raise DataError(f"Two films of the audit are called {twice[0]}; rename one of them.")
    left_out = {
        NO_LUNGS: tuple(s for s in samples if s.mask and not has_lungs(s)),
        NO_MASK: tuple(s for s in samples if not s.mask),
        FEW: tuple(s for s in usable if s.label not in part.class_ids),
    }
    columns = tuple(task.class_ids.index(c.id) for c in held)
    return Films(task, part, films, columns, left_out)
