"""What every network answered in the shortcut audit, kept in `results/<task>/`.

    audit.csv                every test film: why it is left out, or its donor in each swap
    audit/<key>.safetensors  the logits of a run, or of the forest, on the films that are not left out

A file of logits holds, (N, K) float16 each, in the order of the films and of the classes that count:
`<version>` of `train.data.blanking.VERSIONS` with the main fill, `<version>.<fill>` with another, and
`swap.<id>` of `SWAPS`; there a film without a donor is as it is, and counts for nothing.
"""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from kdmodels.tasks import Task
from train.data.blanking import LUNGS, SWAPS
from train.measure.kept import (
    COLUMNS,
    Images,
    ResultsError,
    read_tensors,
    relative,
    results_folder,
    write_tensors,
)

MIN_FILMS = 10  # of a class with masks; classes with fewer are left out
FOREST = "forest"  # key and role of the forest
# Why a film is left out: its mask cannot be of two lungs, it has none, or its class has too few.
NO_LUNGS, NO_MASK, FEW = REASONS = ("no lungs", "no mask", "few masks")


@dataclass(frozen=True, eq=False)
class KeptAudit:
    """What one network, or the forest, answered on each version of the films.

    key: of the run, or `FOREST`. role: `teacher`, `student` or `FOREST`. sha256: of the weights,
    empty for the forest. versions: by id, with the main fill. fills: by further fill and version.
    swaps: by id. trained_on: films that the forest was fitted on.
    """

    key: str
    name: str
    role: str
    sha256: str
    versions: Mapping[str, np.ndarray]
    fills: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    swaps: Mapping[str, np.ndarray] = field(default_factory=dict)
    trained_on: int = 0

    def tensors(self) -> dict[str, np.ndarray]:
        """By the names that they have in the file."""
        further = {f"{v}.{fill}": x for fill, row in self.fills.items() for v, x in row.items()}
        return {**self.versions, **further, **{f"swap.{k}": x for k, x in self.swaps.items()}}

    def write(self, folder: Path) -> None:
        """Write `<folder>/<key>.safetensors`."""
        about = {k: getattr(self, k) for k in ("key", "name", "role", "sha256", "trained_on")}
        tensors = {name: relative(x) for name, x in self.tensors().items()}
        write_tensors(folder / f"{self.key}.safetensors", tensors, about)

    @classmethod
    def read(cls, file: Path) -> "KeptAudit":
        """Raises `ResultsError` for a damaged file."""
        tensors, about = read_tensors(file)
        fills: dict[str, dict[str, np.ndarray]] = {}
        versions, swaps = {}, {}
        for name, logits in tensors.items():
            first, _, second = name.partition(".")
            if first == "swap":
                swaps[second] = logits
            elif second:
                fills.setdefault(second, {})[first] = logits
            else:
                versions[first] = logits
        try:
            return cls(**about, versions=versions, fills=fills, swaps=swaps)
        except TypeError as error:
            raise ResultsError(
                f"{file} is damaged ({error}); delete it and run the audit again."
            ) from error


@dataclass(frozen=True, eq=False)
class AuditFilms:
    """The films of the audit. task: with the classes that count alone; images: of these.

    donors: by id of `SWAPS`, (N,) place of the film whose box each is given, or -1.
    left_out: rows {name, label, group, source, left_out} of the other test films, the last of
    `REASONS`.
    """

    whole_task: Task
    task: Task
    images: Images
    donors: Mapping[str, np.ndarray]
    left_out: tuple[dict[str, str], ...] = ()

    @property
    def notes(self) -> list[str]:
        """What was left out although it has a mask, in words."""
        counts = Counter((row["left_out"], row["label"]) for row in self.left_out)
        low, high = (f"{100 * share:.0f}%" for share in LUNGS)
        strange = sum(n for (reason, _), n in counts.items() if reason == NO_LUNGS)
        notes = [
            f"Left out: {strange} films whose masks cover less than {low} or more than {high}."
        ]
        return notes[: bool(strange)] + [
            f"Left out: {c.name}, with masks for {n} films, fewer than {MIN_FILMS}."
            for c in self.whole_task.classes
            if (n := counts[FEW, c.id])
        ]

    def same_as(self, other: "AuditFilms") -> bool:
        """Whether they are the same films in the same order, with the same donors."""
        return self.images.same_as(other.images) and all(
            np.array_equal(self.donors[swap], other.donors[swap]) for swap in SWAPS
        )

    @classmethod
    def read(cls, file: Path, task: Task) -> "AuditFilms":
        """Raises `ResultsError` for a file that is missing or not such a table."""
        try:
            with file.open(newline="", encoding="utf-8") as opened:
                table = list(csv.DictReader(opened))
            rows = [row for row in table if not row["left_out"]]
            held = {row["label"] for row in rows}
            part = task.model_copy(
                update={"classes": tuple(c for c in task.classes if c.id in held)}
            )
            places = {row["name"]: i for i, row in enumerate(rows)} | {"": -1}
            donors = {
                swap: np.array([places[row[f"donor_{swap}"]] for row in rows], np.int64)
                for swap in SWAPS
            }
            images = Images(
                tuple(row["name"] for row in rows),
                np.array([part.class_ids.index(row["label"]) for row in rows], np.int64),
                *(tuple(row[c] for row in rows) for c in ("group", "source")),
            )
        except (OSError, ValueError, KeyError) as error:
            raise ResultsError(
                f"{file} is no table of the audit's films ({error}); make it again with "
                f"python -m train audit --task {task.id} --write."
            ) from error
        return cls(task, part, images, donors, tuple(row for row in table if row["left_out"]))

    def write(self, file: Path) -> None:
        names, swaps = (*self.images.names, ""), [f"donor_{swap}" for swap in SWAPS]
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(
                opened, [*COLUMNS, "left_out", *swaps], lineterminator="\n", restval=""
            )
            writer.writeheader()
            for i, name in enumerate(self.images.names):
                donors = {f"donor_{swap}": names[self.donors[swap][i]] for swap in SWAPS}
                label = self.task.class_ids[self.images.labels[i]]
                about = zip(
                    COLUMNS,
                    (name, label, self.images.groups[i], self.images.sources[i]),
                    strict=True,
                )
                writer.writerow({**dict(about), "left_out": "", **donors})
            writer.writerows(self.left_out)


@dataclass(frozen=True)
class AuditResults:
    """All that is kept of a task's audit, read when it is asked for. folder: `results/<task>`."""

    whole_task: Task
    folder: Path

    @classmethod
    def of(cls, task: Task, root: Path | None = None) -> "AuditResults":
        return cls(task, (root or results_folder()) / task.id)

    @property
    def there(self) -> bool:
        return (self.folder / "audit.csv").exists()

    @cached_property
    def films(self) -> AuditFilms:
        return AuditFilms.read(self.folder / "audit.csv", self.whole_task)

    @cached_property
    def audits(self) -> tuple[KeptAudit, ...]:
        """Teachers first, then students, the forest last; each in the order of their keys.

        Raises `ResultsError` where logits and films differ in number.
        """
        files = sorted((self.folder / "audit").glob("*.safetensors"))
        wanted = (len(self.films.images), self.films.task.num_classes)
        found = []
        for file in files:
            audit = KeptAudit.read(file)
            for name, logits in audit.tensors().items():
                if logits.shape != wanted:
                    raise ResultsError(
                        f"{file} has {logits.shape[0]} x {logits.shape[-1]} logits on '{name}', but "
                        f"audit.csv has {wanted[0]} films of {wanted[1]} classes; audit it again."
                    )
            found.append(audit)
        roles = ("teacher", "student", FOREST)
        return tuple(sorted(found, key=lambda a: (roles.index(a.role), a.key)))
