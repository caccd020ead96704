"""Checkpoints: find, verify, decode, load and store. Safetensors only; no pickle is ever opened.

`weights/index.json` lists every checkpoint with its sha256. A file is taken from `weights/` if it
is there, otherwise from the Hub at the revision that the index pins; the hash is checked each time.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from kdmodels.models.codecs import decode, encode
from kdmodels.models.zoo import TEACHERS, ModelSpec, StateDict, build_model, get_spec
from kdmodels.tasks import TaskError, add_tasks, get_task, keep_task

# KD_WEIGHTS points the app and the training at another folder of weights, such as your own.
WEIGHTS = Path(os.environ.get("KD_WEIGHTS") or Path(__file__).parents[2] / "weights")
LUNG_STORAGE = "int8"  # see `kdmodels.models.codecs`
_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
_STRANGE_CONTENTS = (RuntimeError, KeyError, TypeError, IndexError)  # what `decode` trips over
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class CheckpointError(Exception):
    """A checkpoint that is missing or must not be used; the message names the file and the cause."""


def sha256_of(file: Path) -> str:
    """Hex digest of a file's bytes."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """One row of the index.

    teacher: id of the teacher it was distilled from (several joined by "+"); None for teachers and
        for the control. variant: what sets its recipe apart from the usual one, such as `attention`.
    classes: class ids in logit order. bytes: file size. storage: see `kdmodels.models.codecs`.
    recipe: recipe file in the repository. data: `Manifest.id` of the training data.
    input_size: side in px of the images it was finished on; None: the model's own input size.
    teacher_sha256: of the file of the teacher that it learned from (several joined by "+"); None for
        those without a teacher, or where it is not known.
    temperature: what the logits are divided by before the softmax (`train.measure.calibration`).
    """

    task: str
    model: str
    teacher: str | None
    classes: tuple[str, ...]
    file: str
    sha256: str
    bytes: int
    storage: str
    recipe: str
    data: str
    date: str
    seed: int = 0
    input_size: int | None = None
    variant: str = ""
    teacher_sha256: str | None = None
    temperature: float = 1.0

    @property
    def spec(self) -> ModelSpec:
        """The row of its architecture, with the input size of these weights."""
        spec = get_spec(self.model)
        return replace(spec, input_size=self.input_size) if self.input_size else spec

    @property
    def origin(self) -> str:
        """Of a student: which file of its teacher it learned from, in words; empty for others."""
        if not self.teacher:
            return ""
        if not self.teacher_sha256:
            return "which file of its teacher it learned from was not recorded"
        starts = " and ".join(f"{sha256[:12]}…" for sha256 in self.teacher_sha256.split("+"))
        return f"it learned from the file with the sha256 {starts}"

    @property
    def name(self) -> str:
        """Human-readable: `OFA-595 (from Visformer-S)`."""
        paper_name = get_spec(self.model).paper_name
        if get_spec(self.model).role == "teacher":
            return f"{paper_name} ({self.variant})" if self.variant else paper_name
        if self.teacher is None:
            origin = "labels only"
        elif "+" in self.teacher:
            origin = f"from {self.teacher.count('+') + 1} teachers"
        else:
            origin = f"from {get_spec(self.teacher).paper_name}"
        return f"{paper_name} ({origin}{', ' + self.variant if self.variant else ''})"

    @property
    def stem(self) -> str:
        """File name without suffix: `<task>-<model>`, for students with `-labels` or `-from-...`; a variant last."""
        if get_spec(self.model).role == "teacher":
            origin = ""
        elif self.teacher is None:
            origin = "-labels"
        else:
            origin = f"-from-{'all' if '+' in self.teacher else self.teacher}"
        return f"{self.task}-{self.model}{origin}{'-' + self.variant if self.variant else ''}"


@dataclass(frozen=True)
class LungWeights:
    """The stored network that finds lungs (`kdmodels.lungs`).

    bytes: file size. data: `Manifest.id` of the training data. limit: least sureness of lungs that
    are taken for found.
    """

    file: str
    sha256: str
    bytes: int
    data: str
    date: str
    seed: int
    limit: float


def read_state(file: Path) -> StateDict:
    """Read and decode a safetensors file. Raises `CheckpointError` for anything else."""
    try:
        with file.open("rb") as handle:
            start = handle.read(9)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}.") from error
    # A safetensors file begins with 8 bytes of length, which may look like a pickle's, then "{".
    pickled = start.startswith(_PICKLE_STARTS) and not start.endswith(b"{")
    if file.suffix in _PICKLE_SUFFIXES or pickled:
        raise CheckpointError(
            f"{file} is a pickle, which can run code when opened; only safetensors are loaded."
        )
    try:
        with safe_open(file, framework="pt") as reader:
            return decode({k: reader.get_tensor(k) for k in reader.keys()})  # noqa: SIM118
    except (SafetensorError, *_STRANGE_CONTENTS) as error:
        raise CheckpointError(f"{file} is not a whole safetensors file: {error}.") from error


def verify(file: Path, sha256: str, size: int) -> None:
    """Check a file's size and sha256. Raises `CheckpointError` that tells expected from found."""
    found = file.stat().st_size
    if found != size:
        raise CheckpointError(
            f"{file} has {found:,} bytes instead of {size:,}: it is truncated or not the right "
            "file; delete it and fetch it again."
        )
    digest = sha256_of(file)
    if digest != sha256:
        raise CheckpointError(
            f"{file} has the sha256 {digest[:12]}… instead of {sha256[:12]}…: it was changed or "
            "damaged; delete it and fetch it again."
        )


def _fill(checkpoint: Checkpoint, file: Path) -> nn.Module:
    classes = get_task(checkpoint.task).class_ids
    if tuple(checkpoint.classes) != classes:
        raise CheckpointError(
            f"{file} was trained for the classes {', '.join(checkpoint.classes)}, but the task "
            f"'{checkpoint.task}' has {', '.join(classes)}."
        )
    model = build_model(checkpoint.model, len(classes), checkpoint.input_size)
    state = read_state(file)
    wanted = model.state_dict()
    wrong = [k for k in wanted if k not in state or state[k].shape != wanted[k].shape]
    if wrong or len(state) != len(wanted):
        strange = wrong or [k for k in state if k not in wanted]
        found = tuple(state[strange[0]].shape) if strange[0] in state else "missing"
        expected = tuple(wanted[strange[0]].shape) if strange[0] in wanted else "absent"
        raise CheckpointError(
            f"{file} does not hold a {checkpoint.model} with {len(classes)} classes: the tensor "
            f"'{strange[0]}' is {found} instead of {expected}."
        )
    model.load_state_dict(state)
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Index:
    """The checkpoints of `folder`, and the Hub repository and revision that also hold them."""

    folder: Path
    checkpoints: tuple[Checkpoint, ...] = ()
    hub_repo: str | None = None
    hub_revision: str | None = None
    lungs: LungWeights | None = None

    @property
    def files(self) -> tuple[Checkpoint | LungWeights, ...]:
        """All files that the index lists."""
        return (*self.checkpoints, *filter(None, [self.lungs]))

    @classmethod
    def read(cls, folder: str | Path = WEIGHTS) -> "Index":
        """Read `index.json`, and make known the user's own tasks in `tasks/` beside it. Raises `CheckpointError` when it is missing or malformed."""
        folder = Path(folder)
        file = folder / "index.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            add_tasks(folder / "tasks")
            checkpoints = tuple(
                Checkpoint(**row | {"classes": tuple(row["classes"])})
                for row in content["checkpoints"]
            )
            for checkpoint in checkpoints:
                if Path(checkpoint.file).name != checkpoint.file:
                    raise ValueError(f"'{checkpoint.file}' must be a plain file name")
                known, teachers = checkpoint.teacher_sha256, checkpoint.teacher or ""
                if known and known.count("+") != teachers.count("+"):
                    raise ValueError(f"'{checkpoint.file}' needs a sha256 for each teacher")
                if not checkpoint.temperature > 0:
                    raise ValueError(f"'{checkpoint.file}' needs a temperature above 0")
                get_task(checkpoint.task), get_spec(checkpoint.model)  # ValueError for unknown ids
            lungs = LungWeights(**content["lungs"]) if content.get("lungs") else None
            if lungs and Path(lungs.file).name != lungs.file:
                raise ValueError(f"'{lungs.file}' must be a plain file name")
            hub = content["hub"]
            return cls(folder, checkpoints, hub["repo"], hub["revision"], lungs)
        except FileNotFoundError:
            raise CheckpointError(f"{file} is missing, so no checkpoint is known.") from None
        except TaskError as error:
            raise CheckpointError(str(error)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} cannot be understood: {error}.") from error

    def write(self) -> None:
        """Write `index.json`, sorted, complete or not at all."""
        rows = sorted(
            self.checkpoints, key=lambda c: (c.task, get_spec(c.model).role != "teacher", c.file)
        )
        content = {
            "format": 1,
            "hub": {"repo": self.hub_repo, "revision": self.hub_revision},
            "lungs": asdict(self.lungs) if self.lungs else None,
            "checkpoints": [asdict(c) for c in rows],
        }
        partial = self.folder / "index.json.partial"
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self.folder / "index.json")

    def find(
        self, task: str, model: str, teacher: str | None = None, variant: str = ""
    ) -> Checkpoint:
        """The checkpoint of a model (of a student: distilled from `teacher`; None: labels only)."""
        for row in self.checkpoints:
            if (row.task, row.model, row.teacher, row.variant) == (task, model, teacher, variant):
                return row
        origin = f" distilled from {teacher}" if teacher else ""
        means = f" by '{variant}'" if variant else ""
        raise CheckpointError(
            f"{self.folder / 'index.json'} lists no {model}{origin}{means} for the task '{task}'."
        )

    def replaced_teachers(self, student: Checkpoint) -> list[str]:
        """Ids of the teachers that are stored with other weights than a student learned from."""
        if not (student.teacher and student.teacher_sha256):
            return []
        stored = {
            c.model: c.sha256
            for c in self.checkpoints
            if (c.task, c.teacher, c.variant) == (student.task, None, "")
        }
        learned_from = zip(
            student.teacher.split("+"), student.teacher_sha256.split("+"), strict=True
        )
        return [
            teacher for teacher, sha256 in learned_from if stored.get(teacher, sha256) != sha256
        ]

    def teachers(self, task: str) -> list[str]:
        """Teachers of a task that are stored together with a student distilled from them, in the
        order of the model table. A student whose teacher was replaced since is nobody's pair.
        """
        rows = [c for c in self.checkpoints if c.task == task and not c.variant]
        taught = {c.teacher for c in rows if not self.replaced_teachers(c)}
        stored = {c.model for c in rows} & taught
        return [teacher for teacher in TEACHERS if teacher in stored]

    def locate(self, checkpoint: Checkpoint | LungWeights) -> Path:
        """The verified file: from the folder, else from the Hub at the pinned revision.

        Raises `CheckpointError` when it is in neither place, or its size or sha256 is wrong.
        """
        file = self.folder / checkpoint.file
        if not file.is_file():
            file = self._download(checkpoint)
        verify(file, checkpoint.sha256, checkpoint.bytes)
        return file

    def _download(self, checkpoint: Checkpoint | LungWeights) -> Path:
        if not (self.hub_repo and self.hub_revision):
            raise CheckpointError(
                f"{self.folder / checkpoint.file} is missing, and the index names no Hub "
                "repository to fetch it from; restore the file from the project's repository."
            )
        from huggingface_hub import (
            get_hf_file_metadata,
            hf_hub_download,
            hf_hub_url,
            try_to_load_from_cache,
        )

        place = {
            "repo_id": self.hub_repo,
            "filename": checkpoint.file,
            "revision": self.hub_revision,
        }
        try:
            if not isinstance(try_to_load_from_cache(**place), str):
                get_hf_file_metadata(hf_hub_url(**place))  # without it, 24 s of trying when offline
            return Path(hf_hub_download(**place))
        except Exception as error:  # errors of the HTTP client come through as they are
            raise CheckpointError(
                f"{checkpoint.file} is not in {self.folder} and could not be fetched from "
                f"{self.hub_repo} at {self.hub_revision}: {type(error).__name__}."
            ) from error

    def load(self, checkpoint: Checkpoint) -> nn.Module:
        """Verify and load a checkpoint: eval mode, no gradients, channels-last, float32.

        Raises `CheckpointError` (missing, truncated, wrong hash, pickle, wrong class count).
        """
        return _fill(checkpoint, self.locate(checkpoint))

    def store(self, checkpoint: Checkpoint, state: StateDict) -> Checkpoint:
        """Encode `state` into the folder and return the row with file name, size and sha256.

        A row of the same task, model, teacher and variant is replaced, together with its file; rows
        that the folder's index gained since this one was read are kept.
        """
        file = f"{checkpoint.stem}.safetensors"
        keep_task(get_task(checkpoint.task), self.folder / "tasks")
        about = {k: getattr(checkpoint, k) for k in ("task", "model", "classes", "storage")}
        path = self._put(file, encode(state, checkpoint.storage), about)
        row = replace(checkpoint, file=file, sha256=sha256_of(path), bytes=path.stat().st_size)
        known = self._now()
        others = tuple(c for c in known.checkpoints if c.stem != row.stem)
        replace(self, checkpoints=(*others, row), lungs=known.lungs).write()
        return row

    def store_lungs(self, lungs: LungWeights, state: StateDict) -> LungWeights:
        """Put the lung finder's weights into the folder, as `LUNG_STORAGE`, and into the index."""
        path = self._put("lungs.safetensors", encode(state, LUNG_STORAGE), {"network": "lungs"})
        row = replace(lungs, file=path.name, sha256=sha256_of(path), bytes=path.stat().st_size)
        replace(self._now(), lungs=row).write()
        return row

    def _now(self) -> "Index":
        """The folder's index as it is now, which others may have written to."""
        return Index.read(self.folder) if (self.folder / "index.json").exists() else self

    def _put(self, name: str, encoded: StateDict, about: dict) -> Path:
        """Write a file of weights, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # One key only: safetensors writes several in random order, and the sha256 with them.
        metadata = {"checkpoint": json.dumps(about)}
        partial = self.folder / f"{name}.partial"
        # Not `save_file`, which hides the file from all but its owner.
        partial.write_bytes(save(encoded, metadata=metadata))
        os.replace(partial, self.folder / name)
        return self.folder / name
