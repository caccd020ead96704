"""The decoded images of a data set, and the views of them that evaluation sees."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from kdmodels.tasks import Task
from train.data.manifest import Sample, read_pixels

CACHE_LIMIT_BYTES = 3 * 2**30


class PixelStore:
    """Decoded images as uint8, greyscale ones with one channel, in memory where all of them fit.

    Decoded on first use, or all at once by `fill`; where they do not fit, whenever they are used.
    """

    def __init__(self, samples: Sequence[Sample], task: Task, size: int) -> None:
        self.samples, self.task, self.size = samples, task, size
        self.channels = 1 if task.greyscale else 3
        number = len(samples) * self.channels * size**2
        # One tensor, which worker processes share, and which takes memory only as it is filled.
        shape = (len(samples), self.channels, size, size)
        self._pixels = (
            torch.empty(shape, dtype=torch.uint8) if number <= CACHE_LIMIT_BYTES else None
        )
        self._kept = np.zeros(len(samples), bool)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        """(1 or 3, size, size) uint8."""
        if self._pixels is None:
            return self._decode(index)
        if not self._kept[index]:
            self._pixels[index] = self._decode(index)
            self._kept[index] = True
        return self._pixels[index]

    def _decode(self, index: int) -> Tensor:
        pixels = read_pixels(self.samples[index], self.task, self.size)
        pixels = np.ascontiguousarray(pixels[..., : self.channels].transpose(2, 0, 1))
        return torch.from_numpy(pixels)

    def fill(self) -> None:
        """Decode all images that are to be kept, before worker processes would each do it."""
        if self._pixels is None:
            return
        pool = ThreadPoolExecutor(torch.get_num_threads())
        try:
            done = pool.map(self.__getitem__, range(len(self)))
            for _ in tqdm(done, "Decoding", len(self), leave=False, disable=None):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


class EvalViews(Dataset):
    """index -> (image (3, size, size) uint8, class index), resized exactly as the app does."""

    def __init__(self, samples: Sequence[Sample], task: Task, size: int) -> None:
        self.store = PixelStore(samples, task, size)
        self.labels = [task.class_ids.index(s.label) for s in samples]

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.store[index].expand(3, -1, -1), self.labels[index]
