"""Where the images are: every data set, whatever its layout, as one `Manifest`."""

import csv
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from kdmodels.tasks import Task, get_task
from train.members import Member

SPLITS = ("train", "val", "test")


class DataError(Exception):
    """Something about the data is wrong; the message says what and where, in one sentence."""


@dataclass(frozen=True)
class Sample:
    """One labelled image. `group` is the unit of independence: patient, or original tile.

    number: its place in its split before unreadable images were left out, on which its random
        views depend; None where none was left out, and the place is the same.
    """

    path: Path | Member
    label: str
    split: str
    group: str
    source: str
    mask: Path | Member | None = None
    number: int | None = None


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


def read_pixels(sample: Sample, task: Task, size: int) -> np.ndarray:
    """Read one image as the models see it: (size, size, 3) uint8. Raises `DataError` by name."""
    from kdmodels.images import ImageError, read_image
    from kdmodels.preprocess import squared

    path = sample.path
    try:
        source = path.read_bytes() if isinstance(path, Member) else path
        return squared(read_image(source).pixels, task, size)
    except (ImageError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def read_mask(path: Path | Member, size: int) -> np.ndarray:
    """Read a lung mask as a (size, size) bool array. Raises `DataError` by name."""
    try:
        with Image.open(BytesIO(path.read_bytes())) as image:
            return (
                np.asarray(image.convert("L").resize((size, size), Image.Resampling.NEAREST)) > 127
            )
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises each for some bad bytes
        raise DataError(f"The mask {path} cannot be read: {error}.") from error


# --- The starter sets: a folder with a manifest.csv ------------------------------------------


def _rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [c for c in columns if c not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path} lacks the column(s) {', '.join(missing)}.")
        return list(reader)


def _starter_cxr(root: Path, row: dict[str, str]) -> Sample:
    mask = root / "masks" / f"{row['stem']}.png" if row["has_mask"] == "1" else None
    return Sample(
        path=root / "images" / f"{row['stem']}.jpg",
        label=row["label"],
        split=row["split"],
        group=row["group"],
        source=row["source"],
        mask=mask,
    )


def _starter_histopathology(root: Path, row: dict[str, str]) -> Sample:
    return Sample(
        path=root / row["file"],
        label=row["label"],
        split=row["split"],
        group=row["original_id"],
        source=row["source_repo"],
    )


_STARTER: dict[str, tuple[tuple[str, ...], Callable[[Path, dict[str, str]], Sample]]] = {
    "cxr": (("stem", "label", "split", "group", "source", "has_mask"), _starter_cxr),
    "histopathology": (
        ("file", "label", "split", "original_id", "source_repo"),
        _starter_histopathology,
    ),
}


def read_starter(root: Path, task: Task) -> Manifest:
    """Read a folder with `manifest.csv`: the small sets that the shipped weights are trained on."""
    columns, to_sample = _STARTER[task.id]
    samples = tuple(to_sample(root, row) for row in _rows(root / "manifest.csv", columns))
    for sample in samples:
        if not sample.path.is_file():
            raise DataError(f"{root / 'manifest.csv'} names {sample.path}, which does not exist.")
    return Manifest(task, f"starter-{task.id}", samples)


# --- Any of them -----------------------------------------------------------------------------


def open_manifest(task_id: str, root: str | Path, check: bool = True) -> Manifest:
    """Read the data set under `root`, whichever of the known layouts it has.

    Starter set (manifest.csv), official COVID-QU-Ex (`cxr`), official LC25000 (`histopathology`),
    or shards of any of them (`train.shards`), of which `root` may also be a URL.
    check: leave out images that cannot be read (`train.unreadable`).
    Raises `DataError` when the folder is missing or holds none of them.
    """
    from train.unreadable import leave_out_unreadable  # imports this module

    manifest = _read_any(get_task(task_id), root)
    return leave_out_unreadable(manifest) if check else manifest


def _read_any(task: Task, root: str | Path) -> Manifest:
    # Imported here, as these modules import this one.
    from train.covid_qu_ex import read_covid_qu_ex
    from train.lc25000 import read_lc25000
    from train.shards import INDEX, read_shards

    if "://" in str(root):
        return read_shards(str(root), task)
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist; name it with --data.")
    if (root / INDEX).is_file():
        return read_shards(root, task)
    if (root / "manifest.csv").is_file():
        return read_starter(root, task)
    if (root / task.id / "manifest.csv").is_file():
        return read_starter(root / task.id, task)
    return {"cxr": read_covid_qu_ex, "histopathology": read_lc25000}[task.id](root)
