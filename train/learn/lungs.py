"""Training the network that finds lungs, on films with lung masks.

The loss is the sum of cross-entropy and soft Dice (Milletari, Navab, Ahmadi, "V-Net", 3DV 2016,
section 3). Pictures without lungs teach it to find none. A run is resumed where it was killed: every
random choice is a function of the seed, the epoch and the step.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from kdmodels.lungs.unet import SIDE, LungNet, standardised
from kdmodels.tasks import Task
from train.data.manifest import DataError, Sample, read_mask
from train.data.pixels import PixelStore
from train.learn.lung_views import LungViews
from train.learn.runs import write_safetensors
from train.learn.views import seed_of

log = logging.getLogger("train")

STORED = 160  # px, at which films are kept, so that enlarged views are sharp


@dataclass(frozen=True)
class LungSettings:
    """lr: peak of AdamW, with a cosine decay after `warmup` epochs. nothing: share of the pictures of
    an epoch that show no lungs.
    """

    epochs: int = 6
    lr: float = 2e-3
    warmup: float = 0.5
    batch_size: int = 16
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    nothing: float = 0.06
    seed: int = 0


def dice(found: Tensor, masks: Tensor) -> Tensor:
    """(N,) Dice coefficients of (N, 1, S, S) masks in [0, 1]; 1 where both are empty."""
    both, all_ = (found * masks).sum((1, 2, 3)), (found + masks).sum((1, 2, 3))
    return (2 * both + 1e-6) / (all_ + 1e-6)


def lung_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy plus 1 - soft Dice of the batch as a whole, where an empty mask is no special case."""
    shares = logits.sigmoid()
    overlap = 2 * (shares * masks).sum() / (shares.sum() + masks.sum()).clamp_min(1e-6)
    return binary_cross_entropy_with_logits(logits, masks) + 1 - overlap


class MaskedFilms:
    """Films with their masks as uint8, (1, S, S) each, decoded when first asked for."""

    def __init__(self, samples: Sequence[Sample], task: Task, size: int) -> None:
        self.films = PixelStore(samples, task, size)
        self.masks: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.films)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        for i in indices:
            if i not in self.masks:
                mask = self.films.samples[i].mask
                shown = (
                    read_mask(mask, self.films.size)
                    if mask
                    else np.zeros((self.films.size, self.films.size), bool)
                )
                self.masks[i] = torch.from_numpy(shown.astype(np.uint8))[None]
        return (
            torch.stack([self.films[i][:1] for i in indices]),
            torch.stack([self.masks[i] for i in indices]),
        )


@torch.inference_mode()
def mean_dice(model: nn.Module, films: MaskedFilms) -> float:
    """Mean Dice of the found lungs, at the network's side."""
    model.eval()
    found = []
    for start in range(0, len(films), 32):
        pixels, masks = films.batch(range(start, min(start + 32, len(films))))
        shares = model(standardised(pixels)).sigmoid()
        found.append(dice((shares > 0.5).float(), masks.float()))
    return torch.cat(found).mean().item()


def train_lungs(
    train: Sequence[Sample],
    val: Sequence[Sample],
    others: Sequence[Sample],
    task: Task,
    folder: Path,
    settings: LungSettings,
    data: str,
) -> float:
    """Train into `folder` (`best.safetensors`, `state.safetensors`); returns the best Dice on `val`.

    train, val: films with masks. others: pictures that show no lungs, for training alone. data:
    `Manifest.id` of the films, which is kept with the weights.
    Raises `DataError` where films have no masks, and for a folder of other settings.
    """
    if not (train and val and all(s.mask for s in (*train, *val))):
        raise DataError("Training the lung finder needs films with lung masks in train and val.")
    run = _LungRun(folder, settings, data)
    films, held = MaskedFilms(train, task, STORED), MaskedFilms(val, task, SIDE)
    nothing, views = MaskedFilms(others, task, STORED), LungViews(SIDE)
    steps = len(films) // settings.batch_size
    scheduler = CosineLRScheduler(
        run.optimizer, t_initial=steps * settings.epochs, lr_min=settings.lr / 100,
        warmup_t=int(steps * settings.warmup), warmup_lr_init=settings.lr / 100, t_in_epochs=False,
    )  # fmt: skip
    for epoch in range(run.epoch, settings.epochs):
        started, total = time.perf_counter(), 0.0
        torch.manual_seed(seed_of(settings.seed, "order", epoch))
        order = torch.randperm(len(films)).tolist()
        run.model.train()
        for step in range(steps):
            torch.manual_seed(seed_of(settings.seed, "step", epoch, step))
            pixels, masks = films.batch(
                order[step * settings.batch_size : (step + 1) * settings.batch_size]
            )
            if len(nothing):
                replaced = (torch.rand(len(pixels)) < settings.nothing).nonzero()[:, 0].tolist()
                if replaced:
                    chosen = torch.randint(len(nothing), (len(replaced),)).tolist()
                    pixels[replaced], masks[replaced] = nothing.batch(chosen)
            scheduler.step_update(epoch * steps + step)
            inputs, wanted = views(pixels, masks)
            loss = lung_loss(run.model(inputs), wanted)
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            run.ema.update(run.model, step=epoch * steps + step)
            total += loss.item()
        score = mean_dice(run.ema.module, held)
        run.save(epoch + 1, score)
        log.info(
            "epoch %d: loss %.4f, validation Dice %.4f, %.0f s",
            epoch, total / steps, score, time.perf_counter() - started,
        )  # fmt: skip
    return run.best


class _LungRun:
    """Network, averaged network and optimizer, as far as `folder` got."""

    def __init__(self, folder: Path, settings: LungSettings, data: str) -> None:
        self.folder, self.about = folder, {"settings": asdict(settings), "data": data}
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed_of(settings.seed, "init"))
        self.model = LungNet().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.lr, weight_decay=settings.weight_decay
        )
        self.ema = ModelEmaV3(self.model, decay=settings.ema_decay, use_warmup=True)
        self.epoch, self.best = 0, 0.0
        if (folder / "state.safetensors").exists():
            self._load()

    def _load(self) -> None:
        with safe_open(self.folder / "state.safetensors", framework="pt") as reader:
            about = json.loads(reader.metadata()["lungs"])
            if {k: about[k] for k in self.about} != self.about:
                raise DataError(
                    f"{self.folder} holds a run of other settings or data; name a new folder with "
                    "--run, or delete it."
                )
            tensors = {k: reader.get_tensor(k) for k in reader.keys()}  # noqa: SIM118
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "moments": {}}
        for name, value in tensors.items():
            part, key = name.split("/", 1)
            parts[part][key] = value
        self.model.load_state_dict(parts["model"])
        self.ema.module.load_state_dict(parts["ema"])
        moments = self.optimizer.state_dict()
        for name, value in parts["moments"].items():
            index, slot = name.split(".", 1)
            moments["state"].setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict(moments)
        self.epoch, self.best = about["epoch"], about["best"]

    def save(self, epoch: int, score: float) -> None:
        """Store an epoch: the best weights first, the state to resume from last."""
        self.epoch = epoch
        if score > self.best:
            self.best = score
            write_safetensors(
                _contiguous(self.ema.module.state_dict()), self.folder / "best.safetensors",
                {"epoch": str(epoch)},
            )  # fmt: skip
        moments = {
            f"{i}.{k}": torch.as_tensor(v)
            for i, slots in self.optimizer.state_dict()["state"].items()
            for k, v in slots.items()
        }
        parts = {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict(),
            "moments": moments,
        }
        tensors = {f"{p}/{k}": v for p, part in parts.items() for k, v in _contiguous(part).items()}
        about = self.about | {"epoch": epoch, "best": self.best}
        write_safetensors(tensors, self.folder / "state.safetensors", {"lungs": json.dumps(about)})


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().contiguous().clone() for k, v in state.items()}
