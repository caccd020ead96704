"""Images in a folder for each class: `train/<class>/`, `val/<class>/`, `test/<class>/`, or `<class>/`
alone, which are then split by group (`train.data.grouping`).
"""

from collections.abc import Sequence
from pathlib import Path

from kdmodels.tasks import Task
from train.data.grouping import ALONE, facts_of, split_by_group
from train.data.layouts import find_parents, known_subfolders
from train.data.manifest import SPLITS, DataError, Manifest, Sample

SPLIT_FOLDERS = {name: name for name in SPLITS} | {"valid": "val", "validation": "val"}
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".dcm"}


def read_folders(root: str | Path, task: Task) -> Manifest:
    """Read the class folders at `root`, or up to four levels below; each is named by a class's id or
    name, in any case, and may hold folders of its own.

    Raises `DataError` for another layout, an unknown split or class folder, and a class without
    images in a split.
    """
    root = Path(root)
    if tops := find_parents(root, SPLIT_FOLDERS):
        top = _only(tops)
        parts = known_subfolders(top, SPLIT_FOLDERS, "split")
        if missing := set(SPLITS) - {split for _, split in parts}:
            raise DataError(
                f"{top} has no folder '{sorted(missing)[0]}'; make it, or put the class folders "
                f"into {top} itself, so that a split is made."
            )
    elif tops := find_parents(root, _class_folders(task)):
        top = _only(tops)
        parts = [(top, "")]
    else:
        raise DataError(
            f"{root} holds no folders train, val and test, no folder for each class "
            f"({', '.join(task.class_ids)}), and no manifest.csv; name another with --data."
        )
    samples = [s for folder, split in parts for s in _list_images(folder, split, top, task)]
    _check_classes(samples, [split for _, split in parts], top, task)
    samples = tuple(samples) if samples[0].split else split_by_group(samples)
    return Manifest(task, task.id, samples, () if task.group_pattern else (ALONE,))


def class_of(text: str, task: Task) -> str | None:
    """The id of the class that has this id or name, in any case; None where there is none."""
    return {name.casefold(): i for name, i in _class_folders(task).items()}.get(text.casefold())


def _class_folders(task: Task) -> dict[str, str]:
    names = {c.id: c.id for c in task.classes}
    return names | {c.name: c.id for c in task.classes if c.name.casefold() != c.id}


def _only(tops: Sequence[Path]) -> Path:
    if len(tops) > 1:
        raise DataError(f"{tops[0]} and {tops[1]} both hold a data set; name one with --data.")
    return tops[0]


def _list_images(folder: Path, split: str, top: Path, task: Task) -> list[Sample]:
    """The images of the class folders in `folder`, sorted by path."""
    found = []
    for place, label in known_subfolders(folder, _class_folders(task), "class"):
        for path in sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES):
            if not path.name.startswith("."):
                group, source = facts_of(path.relative_to(top).as_posix(), task)
                found.append(Sample(path, label, split, group, source))
    return found


def _check_classes(samples: Sequence[Sample], splits: Sequence[str], top: Path, task: Task) -> None:
    """Raise `DataError` where a split misses a class."""
    labels = {s.label for s in samples}
    if len(labels) == 1:
        raise DataError(
            f"{top} holds images of one class only, '{labels.pop()}'; a folder with images is "
            f"needed for each of: {', '.join(task.class_ids)}."
        )
    held = {(s.split, s.label) for s in samples}
    for split in dict.fromkeys(splits):
        for label in task.class_ids:
            if (split, label) not in held:
                raise DataError(
                    f"{top / split / label} holds no image; add some, or take the class "
                    f"'{label}' out of the task file."
                )
