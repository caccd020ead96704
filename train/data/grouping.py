"""Which images of a user's own data set belong together, and a split that keeps them so."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from kdmodels.tasks import Task
from train.data.manifest import DataError, Sample

SHARES = {
    "val": 0.12,
    "test": 0.18,
}  # of the groups of each class, and one at least; train: the rest
ALONE = (
    "Each image counts as independent of all others. If several show one patient or object, let "
    "group_pattern in the task file, or a column of manifest.csv, say which."
)


def facts_of(name: str, task: Task) -> tuple[str, str]:
    """Group and source of a file, by its path below the data folder (with `/`).

    Without a `group_pattern` each file is a group of its own. Raises `DataError` where the pattern
    does not fit.
    """
    if task.group_pattern is None:
        return name, task.id
    found = re.search(task.group_pattern, name)
    if not found or not found["group"]:
        raise DataError(
            f"{name} does not fit the group_pattern '{task.group_pattern}' of the task '{task.id}'; "
            "rename the file or mend the pattern."
        )
    return found["group"], found.groupdict().get("source") or task.id


def split_by_group(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Give each sample a split: the same whenever the groups are the same, and whole groups only.

    The groups of a class are ordered by a hash of their names, which knows nothing of the images. A
    group of several classes counts for the most frequent one. Raises `DataError` for a class with
    fewer than three groups.
    """
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        labels[sample.group][sample.label] += 1
    groups: dict[str, list[str]] = defaultdict(list)
    for group, counted in labels.items():
        groups[min(counted, key=lambda label: (-counted[label], label))].append(group)
    splits: dict[str, str] = {}
    for label, mine in groups.items():
        mine.sort(key=lambda group: hashlib.sha256(group.encode()).digest())
        if len(mine) < 3:
            raise DataError(
                f"The class '{label}' has {len(mine)} independent groups, but train, val and test "
                "need one each; add images, or mend group_pattern if it joins too many."
            )
        start = 0
        for split, share in SHARES.items():
            end = start + max(1, round(share * len(mine)))
            splits |= dict.fromkeys(mine[start:end], split)
            start = end
        splits |= dict.fromkeys(mine[start:], "train")
    return tuple(replace(sample, split=splits[sample.group]) for sample in samples)
