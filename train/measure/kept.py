"""What every run answered, kept in `results/`: all rates, differences and tables are made from it.

    results/<task>/val.csv, test.csv           name, label, group and source of each image
    results/<task>/runs/<key>.safetensors      a run's logits on both, in the order of the CSV files
    results/<task>/floors/<id>.safetensors     the same of classifiers that see no disease, or probes
    results/<task>/audit.csv, audit/           see `train.measure.kept_audit`
    results/<task>/agreement.csv, leakage.csv  see `train.measure.kept_rows`

A run's file holds `val` and `test`, (N, K) float16 logits, and perhaps `served`, those on test by the
page's default engine; its metadata (`about`, JSON) say which weights gave them. Logits are kept less
the greatest of each image (see `relative`). `<key>` is `<Checkpoint.stem>-seed<seed>`. No number that
can be computed from these is stored anywhere.
"""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kdmodels.cache import write_atomically
from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.tasks import Task
from train.data.manifest import Manifest, Sample, labels_of

REPOSITORY = Path(__file__).parents[2]
SPLITS = ("val", "test")
COLUMNS = ("name", "label", "group", "source")


def results_folder() -> Path:
    """`results/` of the repository, or in the folder that $KD_WEIGHTS names."""
    own = os.environ.get("KD_WEIGHTS")
    return Path(own) / "results" if own else REPOSITORY / "results"


class ResultsError(Exception):
    """Kept results that cannot be used; the message names the file and what to do."""


def relative(logits: np.ndarray) -> np.ndarray:
    """(N, K) logits less the greatest of each image: the same answers and probabilities.

    Near zero float16 is finest, so that no answer changes where two logits lie close together.
    """
    return logits - logits.max(1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Images:
    """The images of one split, in the order of all logits on it.

    names, groups, sources: of each; labels: (N,) int64 class indices.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    groups: tuple[str, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def same_as(self, other: "Images") -> bool:
        """Whether they are the same images with the same labels and groups, in the same order."""
        return (self.names, self.groups) == (other.names, other.groups) and np.array_equal(
            self.labels, other.labels
        )

    @classmethod
    def of(cls, samples: Sequence[Sample], task: Task) -> "Images":
        labels = labels_of(samples, task)
        columns = ([getattr(s, c) for s in samples] for c in ("group", "source"))
        return cls(tuple(s.path.name for s in samples), labels, *map(tuple, columns))

    @classmethod
    def read(cls, file: Path, task: Task) -> "Images":
        """Raises `ResultsError` for a file that is missing or not such a table."""
        try:
            with file.open(newline="", encoding="utf-8") as opened:
                rows = list(csv.DictReader(opened))
            if not rows:
                raise ValueError("it lists no image")
            labels = np.array([task.class_ids.index(row["label"]) for row in rows], np.int64)
            columns = {c: tuple(row[c] for row in rows) for c in COLUMNS}
        except (OSError, ValueError, KeyError) as error:
            raise ResultsError(
                f"{file} is no table of {', '.join(COLUMNS)} of the task '{task.id}' ({error}); make "
                f"it again with python -m train evaluate --task {task.id} --write."
            ) from error
        return cls(columns["name"], labels, columns["group"], columns["source"])

    def write(self, file: Path, task: Task) -> None:
        rows = zip(
            self.names,
            (task.class_ids[i] for i in self.labels),
            self.groups,
            self.sources,
            strict=True,
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened, lineterminator="\n")
            writer.writerows([COLUMNS, *rows])


@dataclass(frozen=True, eq=False)
class KeptRun:
    """What one training run answered, and which it is.

    row: of the index; of a run that is not shipped, `file` is empty and `sha256` that of its
    `best.safetensors`, or of the file in which it was shipped once. recipe_sha256: digest of all settings but the seed. engine: what gave
    `val` and `test`, in words. parameters, macs: of the network, on one image.
    val, test: (N, K) float16 logits. served, served_by: those on test by the page's default engine
    and its name, where they were measured.
    """

    row: Checkpoint
    recipe_sha256: str
    engine: str
    parameters: int
    macs: int
    val: np.ndarray
    test: np.ndarray
    served: np.ndarray | None = None
    served_by: str | None = None

    @property
    def key(self) -> str:
        return self.key_of(self.row)

    @staticmethod
    def key_of(row: Checkpoint) -> str:
        return f"{row.stem}-seed{row.seed}"

    @property
    def shipped(self) -> bool:
        return bool(self.row.file)

    def write(self, folder: Path) -> None:
        """Write `<folder>/<key>.safetensors`."""
        tensors = {name: getattr(self, name) for name in (*SPLITS, "served")}
        about = {
            name: getattr(self, name)
            for name in ("recipe_sha256", "engine", "parameters", "macs", "served_by")
        }
        write_tensors(
            folder / f"{self.key}.safetensors",
            {k: relative(v) for k, v in tensors.items() if v is not None},
            {"row": asdict(self.row), **about},
        )

    @classmethod
    def read(cls, file: Path) -> "KeptRun":
        """Raises `ResultsError` for a damaged file."""
        tensors, about = read_tensors(file)
        try:
            row = about.pop("row")
            return cls(Checkpoint(**row | {"classes": tuple(row["classes"])}), **about, **tensors)
        except (TypeError, KeyError) as error:
            raise ResultsError(
                f"{file} is not what a run answered ({error}); delete it and evaluate the run again."
            ) from error


@dataclass(frozen=True, eq=False)
class Floor:
    """What a cheap classifier answered: `name` in words, and (N, K) float16 log-probabilities.

    kind: `floor` for features that see no disease, `probe` for a linear probe on ImageNet features.
    settings: what else there is to know of it.
    """

    id: str
    name: str
    kind: str
    val: np.ndarray
    test: np.ndarray
    settings: dict = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        about = {k: getattr(self, k) for k in ("id", "name", "kind", "settings")}
        file = folder / f"{self.id}.safetensors"
        write_tensors(file, {s: relative(getattr(self, s)) for s in SPLITS}, about)

    @classmethod
    def read(cls, file: Path) -> "Floor":
        """Raises `ResultsError` for a damaged file."""
        tensors, about = read_tensors(file)
        try:
            return cls(**about, **tensors)
        except TypeError as error:
            raise ResultsError(
                f"{file} is damaged ({error}); delete it and measure it again."
            ) from error


def write_tensors(file: Path, tensors: dict[str, np.ndarray], about: dict) -> None:
    """Floating tensors as float16, others as they are, and `about` as JSON; whole or not at all."""
    kept = {
        name: np.ascontiguousarray(value, np.float16 if value.dtype.kind == "f" else None)
        for name, value in tensors.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, save(kept, {"about": json.dumps(about)}))


def read_tensors(file: Path) -> tuple[dict[str, np.ndarray], dict]:
    """What `write_tensors` wrote. Raises `ResultsError`."""
    try:
        with safe_open(file, framework="np") as reader:
            about = json.loads(reader.metadata()["about"])
            return {name: reader.get_tensor(name) for name in reader.keys()}, about  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{file} is damaged ({error}); delete it and make it again.") from error


@dataclass(frozen=True)
class TaskResults:
    """All that is kept of one task, read when it is asked for. folder: `results/<task>`."""

    task: Task
    folder: Path

    @classmethod
    def of(cls, task: Task, root: Path | None = None) -> "TaskResults":
        return cls(task, (root or results_folder()) / task.id)

    @cached_property
    def val(self) -> Images:
        return Images.read(self.folder / "val.csv", self.task)

    @cached_property
    def test(self) -> Images:
        return Images.read(self.folder / "test.csv", self.task)

    @cached_property
    def runs(self) -> tuple[KeptRun, ...]:
        """In the order teachers, students; each shipped first, then by name and seed.

        Raises `ResultsError` where logits and images differ in number, or two files are one run.
        """
        files = sorted((self.folder / "runs").glob("*.safetensors"))
        runs = [self._checked(KeptRun.read(file), file) for file in files]
        for run, file in zip(runs, files, strict=True):
            if file.stem != run.key:
                raise ResultsError(f"{file} holds {run.key}; name it so, or delete it.")
        return tuple(sorted(runs, key=_place))

    @cached_property
    def floors(self) -> tuple[Floor, ...]:
        files = sorted((self.folder / "floors").glob("*.safetensors"))
        return tuple(self._checked(Floor.read(file), file) for file in files)

    def _checked(self, kept, file: Path):
        for name, split in (("val", "val"), ("test", "test"), ("served", "test")):
            if (logits := getattr(kept, name, None)) is None:
                continue
            wanted = (len(getattr(self, split)), self.task.num_classes)
            if logits.shape != wanted:
                raise ResultsError(
                    f"{file} has {logits.shape[0]} x {logits.shape[-1]} logits on {name}, but "
                    f"{split}.csv and the task have {wanted[0]} images and {wanted[1]} classes; "
                    "evaluate it again."
                )
        return kept

    def check_images(self, manifest: Manifest) -> None:
        """Raises `ResultsError` where val.csv and test.csv do not list a data set's images."""
        for split in SPLITS:
            known, images = getattr(self, split), Images.of(manifest.split(split), self.task)
            if not known.same_as(images):
                raise ResultsError(
                    f"{self.folder / split}.csv lists other images than the {split} split of "
                    f"{manifest.id}; move {self.folder} away to begin anew."
                )

    def keep_images(self, manifest: Manifest) -> None:
        """Write val.csv and test.csv. Raises `ResultsError` where runs on other images are kept."""
        if any((self.folder / "runs").glob("*.safetensors")):
            self.check_images(manifest)
        for split in SPLITS:
            images = Images.of(manifest.split(split), self.task)
            images.write(self.folder / f"{split}.csv", self.task)

    def check_weights(self, index: Index) -> None:
        """Raises `ResultsError` unless the shipped runs are the checkpoints that an index lists."""
        again = f"run python -m train evaluate --task {self.task.id} --write"
        rows = {c.file: c for c in index.checkpoints if c.task == self.task.id}
        kept = {run.row.file: run for run in self.runs if run.shipped}
        for file in sorted(rows.keys() | kept.keys()):
            if file not in kept:
                raise ResultsError(f"{self.folder} has no answers of {file}; {again}.")
            run = self.folder / "runs" / f"{kept[file].key}.safetensors"
            if file not in rows:
                raise ResultsError(f"{run} is of {file}, which the index does not list; {again}.")
            if kept[file].row.sha256 != rows[file].sha256:
                raise ResultsError(
                    f"{run} is of weights with the sha256 {kept[file].row.sha256[:12]}…, but the "
                    f"index lists {file} with {rows[file].sha256[:12]}…; {again}."
                )


def _place(run: KeptRun) -> tuple:
    return (run.row.spec.role != "teacher", run.row.stem, not run.shipped, run.row.seed)
