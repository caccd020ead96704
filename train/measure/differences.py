"""Differences of two classifiers on the same images, with intervals that say what they cover.

One run each: the paired bootstrap over groups. It covers the choice of images, not the chance of
training. Several runs each, paired by seed: images and seeds are crossed, and both count as drawn
by chance. The variance of the mean difference is then the sum of

- s^2 / S, of the differences of the S seeds, and
- the variance of the mean over seeds when groups are drawn again,

and the interval is that of Student's t with the degrees of freedom of Satterthwaite ("An
Approximate Distribution of Estimates of Variance Components", Biometrics Bulletin 2(6), 1946). What
images and seeds do together is in both parts, so it is rather too wide than too narrow (Owen, "The
pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007). Drawing two or three seeds with
replacement would not do: it never reaches beyond the seeds that were seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from train.measure.measured import Measured
from train.measure.resampling import LEVEL, Estimate

RATES = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Difference:
    """First minus second, as shares in [-1, 1].

    by_seed: the differences in accuracy and macro-F1 of each pair of runs. covers_seeds: whether
    the intervals tell of the chance of training too; with one seed they cannot.
    """

    accuracy: Estimate
    macro_f1: Estimate
    by_seed: dict[int, tuple[float, float]]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.by_seed)

    @property
    def covers_seeds(self) -> bool:
        return len(self.by_seed) > 1


def difference(
    firsts: Sequence[Measured], seconds: Sequence[Measured], seeds: Sequence[int] = (0,)
) -> Difference:
    """Of runs on the same images, paired in order; `seeds` names the pairs."""
    pairs = list(zip(firsts, seconds, strict=True))
    found = {
        rate: np.stack([a.resampled[rate] - b.resampled[rate] for a, b in pairs]) for rate in RATES
    }
    by_seed = {
        seed: (float(found["accuracy"][i, 0]), float(found["macro_f1"][i, 0]))
        for i, seed in enumerate(seeds)
    }
    groups = firsts[0].groups
    return Difference(*(_estimate(found[rate], groups) for rate in RATES), by_seed)


def _estimate(changes: np.ndarray, groups: int) -> Estimate:
    """changes: (S, 1 + R), by seed, of the images as they are and of the resamples."""
    mean = changes.mean(0)
    if len(changes) == 1:
        return Estimate.of(mean)
    of_seeds = changes[:, 0].var(ddof=1) / len(changes)
    of_images = mean[1:].var(ddof=1)
    if not of_seeds + of_images:
        return Estimate(float(mean[0]), float(mean[0]), float(mean[0]))
    freedom = (of_seeds + of_images) ** 2 / (
        of_seeds**2 / (len(changes) - 1) + of_images**2 / max(groups - 1, 1)
    )
    reach = t.ppf((100 + LEVEL) / 200, freedom) * np.sqrt(of_seeds + of_images)
    return Estimate(*(float(v) for v in (mean[0], mean[0] - reach, mean[0] + reach)))
