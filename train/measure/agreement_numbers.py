"""How alike the heatmaps of students and teachers are, on average, from what is kept of each image."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdmodels.models.checkpoints import Checkpoint
from train.measure.kept_rows import AgreementRow
from train.measure.resampling import Estimate, mean_estimate

METRICS = ("correlation", "overlap")
Pair = tuple[str, str]  # key of a student's run, and teacher


@dataclass(frozen=True)
class AgreementNumbers:
    """Means over the images whose maps are not flat, with intervals that cover the choice of images.

    over_control: by how much the correlation is above that of the control of the same seed with the
    same teacher, which it never met, paired on the images; None where that was not measured.
    """

    student: Checkpoint
    teacher: str
    images: int
    correlation: Estimate
    overlap: Estimate
    over_control: Estimate | None


def agreement_numbers(
    rows: Sequence[AgreementRow],
    students: dict[str, Checkpoint],
    teachers: dict[str, Checkpoint],
    controls: dict[str, str],
) -> list[AgreementNumbers]:
    """A row for each student and teacher that maps were compared of.

    students: the runs by key; teachers: by model; maps of other weights than theirs do not count.
    controls: by key of a student's run that of its control; not of the control itself.
    """
    by_pair: dict[Pair, dict[str, AgreementRow]] = defaultdict(dict)
    for row in rows:
        run, teacher = students.get(row.student), teachers.get(row.teacher)
        if _is_of(run, row.student_sha256) and _is_of(teacher, row.teacher_sha256):
            by_pair[row.student, row.teacher][row.image] = row
    return [
        AgreementNumbers(
            students[student],
            teacher,
            len(found),
            *(_mean(found, metric) for metric in METRICS),
            _over_control(found, by_pair.get((controls.get(student, ""), teacher))),
        )
        for (student, teacher), found in by_pair.items()
    ]


def _is_of(checkpoint: Checkpoint | None, sha256: str) -> bool:
    return bool(checkpoint) and checkpoint.sha256.startswith(sha256)


def _mean(found: dict[str, AgreementRow], metric: str) -> Estimate:
    values = np.array([getattr(row, metric) for row in found.values()])
    return mean_estimate(values, tuple(row.group for row in found.values()))


def _over_control(
    found: dict[str, AgreementRow], control: dict[str, AgreementRow] | None
) -> Estimate | None:
    shared = [name for name in found if control and name in control]
    if not shared:
        return None
    changes = [found[name].correlation - control[name].correlation for name in shared]
    return mean_estimate(np.array(changes), tuple(found[name].group for name in shared))
