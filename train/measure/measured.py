"""Honest numbers of a classifier from its answers: per class, per source, with bootstrap intervals."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kdmodels.tasks import Task
from train.measure.kept import Images
from train.measure.metrics import auroc, rates
from train.measure.resampling import Estimate, resampled_counts

MIN_WITHIN = 10  # images of a class in a source, to be compared within it
RATES = ("sensitivity", "specificity", "ppv")


@dataclass(frozen=True)
class SourcePart:
    """One source: images, accuracy, and by class id the sensitivity and the number of images.

    A source with one class only shows whether the class is found there, not whether the network
    sees the disease rather than the source.
    """

    name: str
    images: int
    accuracy: float
    sensitivity: dict[str, float]
    counts: dict[str, int]


@dataclass(frozen=True)
class Within:
    """The choice among the classes (indices) of one source or organ alone.

    majority: the accuracy of always naming the most frequent of them.
    """

    name: str
    images: int
    classes: tuple[int, ...]
    majority: float
    accuracy: Estimate
    macro_f1: Estimate

    def told(self, task: Task) -> str:
        """`kermany: Non-COVID pneumonia or Normal`."""
        return f"{self.name}: {' or '.join(task.class_names[i] for i in self.classes)}"


@dataclass(frozen=True, eq=False)
class Measured:
    """All numbers of (N, K) logits on labelled images, each computed when it is asked for."""

    logits: np.ndarray
    images: Images
    task: Task

    @cached_property
    def predicted(self) -> np.ndarray:
        return self.logits.argmax(1)

    @cached_property
    def _counts(self) -> np.ndarray:
        k = self.task.num_classes
        return resampled_counts(self.images.labels, self.predicted, k, self.images.groups)

    @cached_property
    def resampled(self) -> dict[str, np.ndarray]:
        """`rates` of the images and of each resample, in the first axis."""
        return rates(self._counts)

    @property
    def confusion(self) -> np.ndarray:
        """(K, K) counts; rows are true classes."""
        return self._counts[0].astype(int)

    @property
    def groups(self) -> int:
        return len(set(self.images.groups))

    @cached_property
    def accuracy(self) -> Estimate:
        return Estimate.of(self.resampled["accuracy"])

    @cached_property
    def macro_f1(self) -> Estimate:
        return Estimate.of(self.resampled["macro_f1"])

    @cached_property
    def classes(self) -> dict[str, dict[str, Estimate]]:
        """By class id: sensitivity, specificity and PPV."""
        return {
            name: {rate: Estimate.of(self.resampled[rate][:, i]) for rate in RATES}
            for i, name in enumerate(self.task.class_ids)
        }

    @cached_property
    def auroc(self) -> float:
        return auroc(self.logits, self.images.labels)

    @cached_property
    def sources(self) -> list[SourcePart]:
        labels, right = self.images.labels, self.predicted == self.images.labels
        of = np.array(self.images.sources)
        parts = []
        for source in sorted(set(self.images.sources)):
            mine = of == source
            by_class = {
                name: right[mine & (labels == i)]
                for i, name in enumerate(self.task.class_ids)
                if (mine & (labels == i)).any()
            }
            sensitivity = {name: float(hits.mean()) for name, hits in by_class.items()}
            counts = {name: len(hits) for name, hits in by_class.items()}
            accuracy = float(right[mine].mean())
            parts.append(SourcePart(source, int(mine.sum()), accuracy, sensitivity, counts))
        return parts

    @cached_property
    def within_sources(self) -> list[Within]:
        """Where a source holds several classes. Only here can the answer not be read off the source.

        Classes with fewer than `MIN_WITHIN` images in the source are left out.
        """
        of, labels = np.array(self.images.sources), self.images.labels
        parts = []
        for source in sorted(set(self.images.sources)):
            counts = np.bincount(labels[of == source], minlength=self.task.num_classes)
            held = np.flatnonzero(counts >= MIN_WITHIN)
            if len(held) > 1:
                parts.append(self._among(source, held, of == source))
        return parts

    @cached_property
    def organs(self) -> list[Within]:
        """Within each organ, which can be told without seeing disease."""
        everywhere, ids = np.ones(len(self.images), dtype=bool), self.task.class_ids
        organs = {
            organ: np.sort([ids.index(i) for i in held if i in ids])
            for organ, held in self.task.organs.items()
        }
        return [self._among(o, held, everywhere) for o, held in organs.items() if len(held) > 1]

    @property
    def within(self) -> list[Within]:
        """Within organs where the task has any, else within sources."""
        return self.organs or self.within_sources

    def _among(self, name: str, held: np.ndarray, part: np.ndarray) -> Within:
        """On the images of `part` ((N,) bool) that are of the sorted class indices `held`."""
        mine = np.flatnonzero(part & np.isin(self.images.labels, held))
        true = np.searchsorted(held, self.images.labels[mine])
        chosen = self.logits[mine][:, held].argmax(1)
        groups = tuple(self.images.groups[i] for i in mine)
        found = rates(resampled_counts(true, chosen, len(held), groups))
        majority = float(np.bincount(true).max() / len(true))
        estimates = (Estimate.of(found[rate]) for rate in ("accuracy", "macro_f1"))
        return Within(name, len(mine), tuple(held.tolist()), majority, *estimates)
