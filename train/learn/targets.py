"""Teacher targets, computed once: answers of the frozen teacher on a fixed set of views.

With `views: V` a recipe draws each image in V fixed augmentations instead of ever new ones, so the
teacher runs V times over the training images instead of once an epoch, and a distillation epoch
then costs what plain training costs.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from kdmodels.cache import write_atomically
from train.data.cells import file_size
from train.learn.objectives import Answers
from train.learn.runs import RunError
from train.learn.views import TrainViews

log = logging.getLogger("train")


class Frozen(Protocol):
    """A network whose answers are kept: a `train.learn.teachers.Teacher` or a `train.learn.guides.Guide`."""

    name: str
    sha256: str
    size: int
    bf16: bool

    def __call__(self, images: Tensor, labels: Tensor) -> Answers: ...


@dataclass(frozen=True)
class Targets:
    """A network's answers to V views of N images: logits (N, V, K) and maps (N, V, h, w) or None."""

    logits: Tensor
    maps: Tensor | None = None

    def of(self, indices: Tensor, views: Tensor, device: torch.device) -> Answers:
        """The answers to (N,) pairs of image and view."""
        indices, views = indices.cpu(), views.cpu()
        maps = None if self.maps is None else self.maps[indices, views].to(device)
        return Answers(self.logits[indices, views].to(device), maps)


def targets_key(teacher: Frozen, views: TrainViews) -> str:
    """Digest of all that the targets depend on: teacher, images, labels, seed, and augmentation.

    An image is known by its name, its size in bytes and its number (see `train.data.manifest.Sample`).
    """
    samples = zip(views.store.samples, views.numbers, strict=True)
    images = [(s.path.name, file_size(s.path), s.label, number) for s, number in samples]
    seen = [views.store.size, views.size, views.seed, repr(views.augment), images]
    parts = [teacher.sha256, teacher.bf16, teacher.size, *seen]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _answers_to_view(
    teacher: Frozen, views: TrainViews, view: int, device: torch.device
) -> dict[str, Tensor]:
    keys = [(index, view) for index in range(len(views))]
    loader = DataLoader(views, batch_size=32, sampler=keys)
    answers = [
        teacher(images.to(device), labels.to(device))
        for images, labels, *_ in tqdm(loader, f"teacher, view {view}", leave=False, disable=None)
    ]
    found = {"logits": torch.cat([a.logits for a in answers]).cpu()}
    if answers[0].maps is not None:
        found["maps"] = torch.cat([a.maps for a in answers]).cpu()
    return found


def _write(part: dict[str, Tensor], file: Path) -> None:
    """Safe from another run that computes the same targets at the same time."""
    try:
        write_atomically(file, save(part))
    except OSError as error:
        raise RunError(
            f"The teacher's targets cannot be written to {file} ({error}); make room and start the "
            "same command again to go on."
        ) from error


def teacher_targets(
    teacher: Frozen, views: TrainViews, number: int, folder: Path, device: torch.device
) -> Targets:
    """The teacher's answers to views 0 to number - 1 of all images; `views` are of its size.

    Each view is a file below `folder`, under the digest of all that it depends on; a missing or
    damaged file is computed anew, so an interrupted computation goes on where it stopped.
    Raises `RunError` where the disk does not take it.
    """
    folder = folder / targets_key(teacher, views)
    parts = []
    for view in range(number):
        file = folder / f"view-{view}.safetensors"
        try:
            part = load_file(file)
            parts.append((part["logits"], part.get("maps")))
        except (FileNotFoundError, SafetensorError, KeyError):
            log.info("Targets of %s: view %d of %d ...", teacher.name, view + 1, number)
            part = _answers_to_view(teacher, views, view, device)
            _write(part, file)
            parts.append((part["logits"], part.get("maps")))
    logits, maps = zip(*parts, strict=True)
    return Targets(
        torch.stack(logits, dim=1), None if maps[0] is None else torch.stack(maps, dim=1)
    )
