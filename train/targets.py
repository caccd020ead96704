"""Teacher targets, computed once: logits of the frozen teacher on a fixed set of views.

With `views: V` a recipe draws each image in V fixed augmentations instead of ever new ones, so the
teacher runs V times over the training images instead of once an epoch, and a distillation epoch
then costs what plain training costs.
"""

import hashlib
import json
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from kdmodels.preprocess import normalise
from kdmodels.zoo import ModelSpec
from train.runs import write_safetensors
from train.views import TrainViews

log = logging.getLogger("train")


def targets_key(teacher_sha256: str, views: TrainViews) -> str:
    """Digest of all that the targets depend on: teacher, images, seed, and augmentation."""
    images = [(s.path.name, s.path.stat().st_size) for s in views.store.samples]
    parts = [teacher_sha256, views.seed, views.size, repr(views.augment), images]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@torch.inference_mode()
def _logits_of_view(
    teacher: nn.Module, spec: ModelSpec, views: TrainViews, view: int, device: torch.device
) -> Tensor:
    keys = [(index, view) for index in range(len(views))]
    loader = DataLoader(views, batch_size=32, sampler=keys)
    logits = [
        teacher(normalise(images.to(device), spec.mean, spec.std)).float().cpu()
        for images, *_ in tqdm(loader, desc=f"teacher, view {view}", leave=False, disable=None)
    ]
    return torch.cat(logits)


def teacher_targets(
    teacher: nn.Module,
    spec: ModelSpec,
    sha256: str,
    views: TrainViews,
    number: int,
    folder: Path,
    device: torch.device,
) -> Tensor:
    """(N, number, K) float32 logits of the teacher on views 0 to number - 1 of N images.

    Each view is a file below `folder`, under the digest of all that it depends on; a missing or
    damaged file is computed anew, so an interrupted computation goes on where it stopped.
    """
    folder = folder / targets_key(sha256, views)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for view in range(number):
        file = folder / f"view-{view}.safetensors"
        try:
            logits = load_file(file)["logits"]
        except (FileNotFoundError, SafetensorError, KeyError):
            log.info("Teacher targets: view %d of %d ...", view + 1, number)
            logits = _logits_of_view(teacher, spec, views, view, device)
            write_safetensors({"logits": logits}, file, {})
        parts.append(logits)
    return torch.stack(parts, dim=1)
