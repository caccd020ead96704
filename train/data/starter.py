"""The starter sets: a folder with a manifest.csv."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

from kdmodels.tasks import Task
from train.data.manifest import DataError, Manifest, Sample


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
