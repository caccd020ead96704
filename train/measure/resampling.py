"""The bootstrap over groups: one draw for all classifiers on the same images, so that they are paired.

Images of one patient (or tile) are not independent, so the group is the unit that is drawn (the
cluster bootstrap; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section
3.8). Everywhere, the first of the axis of resamples is the images as they are.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
LEVEL = 95  # % of the intervals
TAILS = ((100 - LEVEL) / 2, (100 + LEVEL) / 2)


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95% interval; all NaN where it has no value."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Estimate":
        """values: (1 + R,), of the images as they are and of the resamples."""
        if np.isnan(values[0]):  # such as the PPV of a class that is never predicted
            return cls(np.nan, np.nan, np.nan)
        low, high = np.nanpercentile(values[1:], TAILS)
        return cls(float(values[0]), float(low), float(high))

    @property
    def known(self) -> bool:
        return not np.isnan(self.value)

    def beats(self, floor: float) -> bool:
        """Whether the whole interval lies above the floor."""
        return self.low > floor

    def excludes(self, value: float) -> bool:
        return self.low > value or self.high < value


@lru_cache(maxsize=64)
def _drawn(groups: tuple[str, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N,) place of each image's group, and (1 + R, G) how often each resample holds each group."""
    names, place = np.unique(groups, return_inverse=True)
    even = np.full(len(names), 1 / len(names))
    times = np.random.default_rng(seed).multinomial(len(names), even, RESAMPLES)
    return place, np.concatenate([np.ones((1, len(names))), times])


def resampled_sums(values: np.ndarray, groups: tuple[str, ...]) -> np.ndarray:
    """(N, ...) values of images -> (1 + R, ...) their sums over the images of each resample."""
    place, times = _drawn(tuple(groups))
    by_group = np.zeros((times.shape[1], *values.shape[1:]))
    np.add.at(by_group, place, values)
    return np.tensordot(times, by_group, axes=1)


def resampled_counts(
    labels: np.ndarray, predicted: np.ndarray, classes: int, groups: tuple[str, ...]
) -> np.ndarray:
    """(1 + R, K, K) confusion counts; rows are true classes."""
    pairs = np.eye(classes * classes)[labels * classes + predicted]
    return resampled_sums(pairs, groups).reshape(-1, classes, classes)


def mean_estimate(values: np.ndarray, groups: tuple[str, ...]) -> Estimate:
    """The mean of (N,) values, those that are NaN left out."""
    kept = np.isfinite(values)
    if not kept.any():
        return Estimate(np.nan, np.nan, np.nan)
    of_kept = tuple(group for group, is_kept in zip(groups, kept, strict=True) if is_kept)
    sums = resampled_sums(np.stack([values[kept], np.ones(kept.sum())], axis=1), of_kept)
    return Estimate.of(sums[:, 0] / sums[:, 1])
