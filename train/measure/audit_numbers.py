"""Numbers of the shortcut audit, from the answers to each version of the films (`train.measure.audit`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from kdmodels.tasks import Task
from train.data.blanking import FILLED, FILLS, SWAPS, VERSIONS, WHOLE
from train.measure.differences import difference
from train.measure.kept import Images
from train.measure.kept_audit import FOREST, AuditFilms, AuditResults, KeptAudit
from train.measure.measured import Measured
from train.measure.resampling import Estimate, resampled_counts


@dataclass(frozen=True)
class SwapNumbers:
    """Which class the answers name on swapped films, as shares of the films that have a donor.

    box, surroundings: the class of the box, or that of the surroundings. mistaken: the donor, shown
    as it is, is called by the class of the surroundings. pull: by how much the surroundings add to
    that.
    """

    images: int
    box: Estimate
    surroundings: Estimate
    mistaken: Estimate
    pull: Estimate


def swap_numbers(
    swapped: np.ndarray, whole: np.ndarray, donors: np.ndarray, images: Images
) -> SwapNumbers | None:
    """swapped, whole: (N, K) logits on the films with their donors' boxes, and as they are.

    donors: as `train.data.blanking.choose_donors` gives them; None where no film has one.
    """
    given = np.flatnonzero(donors >= 0)
    if not len(given):
        return None
    predicted, labels, donors = swapped.argmax(1)[given], images.labels[given], donors[given]
    groups = tuple(images.groups[i] for i in given)
    before = (whole.argmax(1)[donors] == labels).astype(int)

    def shares(answers: np.ndarray) -> np.ndarray:
        """(1 + R, 2, 2) shares of `before` against `answers`, of the films and of resamples."""
        counts = resampled_counts(before, answers.astype(int), 2, groups)
        return counts / counts.sum((1, 2), keepdims=True)

    box, around = shares(predicted == images.labels[donors]), shares(predicted == labels)
    return SwapNumbers(
        images=len(given),
        box=Estimate.of(box[:, :, 1].sum(1)),
        surroundings=Estimate.of(around[:, :, 1].sum(1)),
        mistaken=Estimate.of(around[:, 1].sum(1)),
        pull=Estimate.of(around[:, 0, 1] - around[:, 1, 0]),
    )


@dataclass(frozen=True)
class Audited:
    """What one network, or the forest, answered on each version of the films.

    versions: by id of `train.data.blanking.VERSIONS`. fills: by further fill, and version.
    swaps: by id of `SWAPS`; None where no film has a donor.
    """

    name: str
    role: str
    versions: Mapping[str, Measured]
    sha256: str = ""
    fills: Mapping[str, Mapping[str, Measured]] = field(default_factory=dict)
    swaps: Mapping[str, SwapNumbers | None] = field(default_factory=dict)

    @property
    def whole(self) -> Measured:
        return self.versions[WHOLE]

    def unchanged(self, version: str) -> float:
        """Share of films that are answered as they are without blanking."""
        return float((self.versions[version].predicted == self.whole.predicted).mean())

    @cached_property
    def changes(self) -> dict[str, Estimate]:
        """By version, how much its accuracy differs from that on the films as they are."""
        return {
            name: difference([found], [self.whole]).accuracy
            for name, found in self.versions.items()
        }


def majority(labels: np.ndarray, parts: Sequence[str] | None = None) -> float:
    """Accuracy of naming the most frequent class, or that of each part."""
    of = np.array(parts if parts is not None else [""] * len(labels))
    right = sum(np.bincount(labels[of == part]).max() for part in np.unique(of))
    return float(right / len(labels))


@dataclass(frozen=True)
class AuditNumbers:
    """The audit of one task. task: with the classes alone that enough films have.

    notes: what was left out, in words. forest: trained on each version; None where it could not be.
    """

    task: Task
    images: Images
    notes: tuple[str, ...]
    models: tuple[Audited, ...]
    forest: Audited | None = None

    @property
    def groups(self) -> int:
        return len(set(self.images.groups))

    @property
    def counts(self) -> dict[str, int]:
        """Films by class id."""
        found = np.bincount(self.images.labels, minlength=self.task.num_classes)
        return dict(zip(self.task.class_ids, found.tolist(), strict=True))

    @cached_property
    def majority(self) -> float:
        return majority(self.images.labels)

    @cached_property
    def source_majority(self) -> float:
        return majority(self.images.labels, self.images.sources)

    @property
    def rows(self) -> tuple[Audited, ...]:
        """The models, and the forest where there is one."""
        return self.models + ((self.forest,) if self.forest else ())


def audit_numbers(kept: AuditResults) -> AuditNumbers | None:
    """From what is kept; None where no audit is. Raises `ResultsError`."""
    if not kept.there:
        return None
    films = kept.films
    audited = [_audited(found, films) for found in kept.audits]
    return AuditNumbers(
        films.task,
        films.images,
        tuple(films.notes),
        tuple(a for a in audited if a.role != FOREST),
        next((a for a in audited if a.role == FOREST), None),
    )


def _audited(kept: KeptAudit, films: AuditFilms) -> Audited:
    """In the order of `VERSIONS`, `FILLS` and `SWAPS`."""

    def measured(logits: np.ndarray) -> Measured:
        return Measured(logits.astype(np.float64), films.images, films.task)

    forest = ", trained on each version" if kept.role == FOREST else ""
    return Audited(
        kept.name + forest,
        kept.role,
        {name: measured(kept.versions[name]) for name in VERSIONS},
        kept.sha256,
        {
            fill: {name: measured(kept.fills[fill][name]) for name in FILLED}
            for fill in FILLS
            if fill in kept.fills
        },
        {
            name: swap_numbers(
                kept.swaps[name], kept.versions[WHOLE], films.donors[name], films.images
            )
            for name in SWAPS
            if name in kept.swaps
        },
    )
