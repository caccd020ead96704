"""Training views: which image comes when, and how it is augmented.

Every random choice is a function of (seed, epoch, position), never of a generator's history, so a
run that was killed resumes on exactly the views that it would have seen.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import v2

from train.data.manifest import Sample
from train.data.pixels import PixelStore

STORED_SIZE = 256  # px; the starter sets' shorter side, and COVID-QU-Ex's side
VIEWS_PER_EPOCH = 256  # more than a sample is ever drawn in one epoch


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from any number of parts; independent parts give independent streams."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _film_views(size: int, strength: float) -> Callable[[Tensor], Tensor]:
    # Geometry, intensity, blur and compression: the cues that tell the sources apart.
    k = strength
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                size, scale=(1 - 0.3 * k, 1), ratio=(1 - 0.15 * k, 1 + 0.18 * k), antialias=True
            ),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply(
                [v2.RandomAffine(degrees=10, shear=4, interpolation=v2.InterpolationMode.BILINEAR)],
                p=0.4 * k,
            ),
            v2.RandomEqualize(0.1 * k),
            v2.ColorJitter(brightness=0.2 * k, contrast=0.3 * k),
            v2.RandomApply([v2.GaussianBlur(3, sigma=(0.2, 1.2))], p=0.2 * k),
            v2.RandomApply([v2.JPEG((40, 95))], p=0.2 * k),
            v2.RandomErasing(0.2 * k, scale=(0.02, 0.15)),
        ]
    )


def _tile_views(size: int, strength: float) -> Callable[[Tensor], Tensor]:
    # A tile has no upright; stain varies between laboratories.
    k = strength
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                size, scale=(1 - 0.5 * k, 1), ratio=(1 - 0.2 * k, 1 + 0.25 * k), antialias=True
            ),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomVerticalFlip(0.5),
            v2.RandomApply([v2.RandomRotation((90, 90))], p=0.5),
            v2.ColorJitter(brightness=0.3 * k, contrast=0.3 * k, saturation=0.4 * k, hue=0.08 * k),
            v2.RandomApply([v2.GaussianBlur(3, sigma=(0.2, 1.5))], p=0.3 * k),
            v2.RandomErasing(0.25 * k, scale=(0.02, 0.15)),
        ]
    )


def _plain_views(size: int, strength: float) -> Callable[[Tensor], Tensor]:
    # For pictures of any kind that have a top: no turns, and colours that stay near what they are.
    k = strength
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                size, scale=(1 - 0.4 * k, 1), ratio=(1 - 0.2 * k, 1 + 0.25 * k), antialias=True
            ),
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(brightness=0.2 * k, contrast=0.2 * k),
            v2.RandomErasing(0.2 * k, scale=(0.02, 0.15)),
        ]
    )


# By the name that a task file gives (`kdmodels.tasks.task.Augmentation`).
AUGMENTATIONS = {"plain": _plain_views, "film": _film_views, "tile": _tile_views}


def numbers_of(samples: Sequence[Sample]) -> list[int]:
    """By index, the number that decides a sample's random views (see `Sample.number`)."""
    return [i if s.number is None else s.number for i, s in enumerate(samples)]


class TrainViews(Dataset):
    """(index, view) -> (image (3, size, size) uint8, class index, index, view).

    strength: of the augmentation, 0 (flips alone) to 1. A pure function of its key. At another
    `size` a key gives the same view at that size, but for rounding, the reach of a blur and the
    place of an erased rectangle. draw: what gives an image's pixels, at random perhaps, in place of
    the store.
    """

    def __init__(
        self,
        store: PixelStore,
        size: int,
        seed: int,
        strength: float = 1.0,
        draw: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.store, self.size, self.seed = store, size, seed
        self.draw = draw or store.__getitem__
        self.augment = AUGMENTATIONS[store.task.augmentation](size, strength)
        ids = store.task.class_ids
        self.labels = [ids.index(s.label) for s in store.samples]
        self.numbers = numbers_of(store.samples)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int, int]:
        index, view = key
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                seed_of(self.seed, "view", self.numbers[index], view)
            )
            image = self.augment(self.draw(index))
        return image.expand(3, -1, -1), self.labels[index], index, view


def collate(batch: Sequence[tuple]) -> tuple[np.ndarray, ...]:
    """A batch as arrays, which worker processes send through a pipe.

    Tensors would go through shared memory, of which a container has 64 MB unless told otherwise
    and which came back damaged on a virtual machine. A batch of 8-bit images is small.
    """
    return tuple(
        np.stack([np.asarray(value) for value in part]) for part in zip(*batch, strict=True)
    )


class BalancedSampler(Sampler[tuple[int, int]]):
    """Draws (index, view) keys: classes evenly, sources within a class by count ** `source_power`.

    source_power: 1 keeps the sources' natural shares within a class, 0 makes them equal.
    views: number of different views of an image; None: a new one each time.
    """

    def __init__(
        self, samples: Sequence[Sample], seed: int, source_power: float, views: int | None = None
    ) -> None:
        cells = Counter((s.label, s.source) for s in samples)
        mass = {cell: count**source_power for cell, count in cells.items()}
        class_mass = Counter()
        for (label, _), value in mass.items():
            class_mass[label] += value
        self.weights = torch.tensor(
            [
                mass[s.label, s.source] / class_mass[s.label] / cells[s.label, s.source]
                for s in samples
            ],
            dtype=torch.float64,
        )
        self.numbers = numbers_of(samples)
        self.seed, self.views = seed, views
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw as in that epoch from now on; Accelerate's loader calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch))
        drawn = torch.multinomial(self.weights, len(self), replacement=True, generator=generator)
        times = Counter()
        for index in drawn.tolist():
            view = self.epoch * VIEWS_PER_EPOCH + times[index] % VIEWS_PER_EPOCH
            times[index] += 1
            if self.views is not None:
                view = seed_of(self.numbers[index], view) % self.views
            yield index, view
