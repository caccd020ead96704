"""What a data set is, whatever its layout: one `Manifest` of `Sample`s, and how they are read."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from kdmodels.images.preprocess import squared
from kdmodels.images.read import CheckedImage, ImageError, read_image
from kdmodels.tasks import Task
from train.data.cells import Cell

SPLITS = ("train", "val", "test")


class DataError(Exception):
    """Something about the data is wrong; the message says what and where, in one sentence."""


@dataclass(frozen=True)
class Sample:
    """One labelled image. `group` is the unit of independence: patient, or original tile.

    number: its place in its split before unreadable images were left out, on which its random
        views depend; None where none was left out, and the place is the same.
    """

    path: Path | Cell
    label: str
    split: str
    group: str
    source: str
    mask: Path | Cell | None = None
    number: int | None = None


def labels_of(samples: Sequence[Sample], task: Task) -> np.ndarray:
    """(N,) int64 indices of the samples' classes."""
    return np.array([task.class_ids.index(s.label) for s in samples], np.int64)


@dataclass(frozen=True)
class Manifest:
    """All samples of one task. Raises `DataError` when a group lies in two splits.

    notes: what is to be said about them. skipped: those left out because their image cannot be
    read, with their `number`; they belong to the data set, but to no split.
    """

    task: Task
    name: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = field(default=())
    skipped: tuple[Sample, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.samples:
            raise DataError(
                f"The data set '{self.name}' holds no images of the task '{self.task.id}'."
            )
        seen: dict[str, str] = {}
        for sample in self.samples:
            if sample.label not in self.task.class_ids:
                known = ", ".join(self.task.class_ids)
                raise DataError(
                    f"{sample.path} has the unknown class '{sample.label}'; known: {known}."
                )
            if sample.split not in SPLITS:
                raise DataError(f"{sample.path} is in the unknown split '{sample.split}'.")
            if seen.setdefault(sample.group, sample.split) != sample.split:
                raise DataError(
                    f"The group '{sample.group}' is in two splits, {seen[sample.group]} and "
                    f"{sample.split} ({sample.path}); a group must stay in one."
                )

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of one split. Raises `DataError` when it is empty or misses a class."""
        samples = tuple(s for s in self.samples if s.split == name)
        missing = [c for c in self.task.class_ids if c not in {s.label for s in samples}]
        if missing:
            raise DataError(
                f"The {name} split of '{self.name}' has no image of: {', '.join(missing)}."
            )
        gone = {s.number for s in self.skipped if s.split == name}
        if not gone:
            return samples
        numbers = (number for number in itertools.count() if number not in gone)
        return tuple(replace(s, number=n) for s, n in zip(samples, numbers, strict=False))

    @property
    def id(self) -> str:
        """`name@digest`: changes with any file name, label, split, group or source.

        Skipped images count, so that a damaged copy of a data set is known for what it is.
        """
        lines = sorted(
            f"{s.path.name},{s.label},{s.split},{s.group},{s.source}"
            for s in (*self.samples, *self.skipped)
        )
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return f"{self.name}@{digest[:12]}"

    def counts(self) -> Counter[tuple[str, str]]:
        """Number of images by (split, label)."""
        return Counter((s.split, s.label) for s in self.samples)


def read_picture(sample: Sample) -> Image.Image:
    """Read one image as a user would upload it, RGB. Raises `DataError` by name."""
    try:
        return read_checked(sample.path).pixels
    except (ImageError, OSError) as error:
        raise DataError(f"{sample.path} cannot be read: {error}") from error


def read_checked(path: Path | Cell) -> CheckedImage:
    """`read_image` of a file, wherever it lies. Raises `ImageError` or `OSError`."""
    return read_image(path.read_bytes() if isinstance(path, Cell) else path)


def read_pixels(sample: Sample, task: Task, size: int) -> np.ndarray:
    """Read one image as the models see it: (size, size, 3) uint8. Raises `DataError` by name."""
    return squared(read_picture(sample), task, size)


def read_mask(path: Path | Cell, size: int) -> np.ndarray:
    """Read a lung mask as a (size, size) bool array. Raises `DataError` by name."""
    try:
        with Image.open(BytesIO(path.read_bytes())) as image:
            return (
                np.asarray(image.convert("L").resize((size, size), Image.Resampling.NEAREST)) > 127
            )
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises each for some bad bytes
        raise DataError(f"The mask {path} cannot be read: {error}.") from error
