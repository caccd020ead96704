"""Floors: what features that see no disease, or no tissue, already reach on the same split.

Where class and source (or stain) go together, a network can win without looking at anatomy. A
random forest on such features tells how much of an accuracy that alone could explain.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier

from kdmodels.tasks import Task
from train.data.manifest import Manifest, Sample, labels_of, read_pixels
from train.measure.kept import SPLITS, Floor

TINY = 1e-6
SIZE = 256  # px; features are computed on the same squares that the networks see


def _thumbnail(pixels: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX))


def _grey(pixels: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 -> (S, S); exactly the values of grey pictures."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _small(pixels: np.ndarray) -> np.ndarray:
    return _thumbnail(_grey(pixels), 16).ravel()


def _frame(pixels: np.ndarray) -> np.ndarray:
    small = _thumbnail(_grey(pixels), 32)
    inside = np.zeros_like(small, dtype=bool)
    inside[3:-3, 3:-3] = True
    return small[~inside]


def _histogram(pixels: np.ndarray, bins: int = 64) -> np.ndarray:
    channels = [np.histogram(pixels[..., c], bins=bins, range=(0, 256))[0] for c in range(3)]
    return np.concatenate(channels) / pixels[..., 0].size


def _spectrum(pixels: np.ndarray) -> np.ndarray:
    grey = _grey(pixels).astype(np.float64)
    power = np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean()))) ** 2
    y, x = np.indices(grey.shape) - SIZE // 2
    radius = np.hypot(y, x).astype(int).ravel()
    mean = np.bincount(radius, power.ravel()) / np.bincount(radius)
    return np.log1p(mean[: SIZE // 2])


def _colour_moments(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1))])


def _pattern_classes() -> np.ndarray:
    """(256,) class of a ring of 8 bits: its number of ones if it is uniform, else 9."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(1)
    return np.where(changes <= 2, bits.sum(1), 9)


PATTERN_CLASSES = _pattern_classes()
RING = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))


def _local_patterns(pixels: np.ndarray) -> np.ndarray:
    """Shares of the 10 rotation-invariant uniform local binary patterns of 8 neighbours.

    Ojala, Pietikainen, Maenpaa, "Multiresolution Gray-Scale and Rotation Invariant Texture
    Classification with Local Binary Patterns", PAMI 24(7), 2002, with the eight adjacent pixels
    for the circle of radius 1.
    """
    grey = _grey(pixels)
    centre = grey[1:-1, 1:-1]
    height, width = centre.shape
    code = np.zeros_like(centre)
    for bit, (y, x) in enumerate(RING):
        code |= (grey[y : y + height, x : x + width] >= centre).astype(np.uint8) << bit
    return np.bincount(PATTERN_CLASSES[code].ravel(), minlength=10) / code.size


def _colour_and_texture(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([_histogram(pixels, bins=32), _local_patterns(pixels)])


@dataclass(frozen=True)
class CheapFeature:
    """A feature that takes no understanding. name: of one; plural: of many.

    compute: (SIZE, SIZE, 3) uint8 -> (D,).
    """

    name: str
    plural: str
    compute: Callable[[np.ndarray], np.ndarray]


# By the name that a task file gives (`kdmodels.tasks.task.Feature`).
FEATURES = {
    "frame": CheapFeature("outer frame, 3 of 32 px", "outer frames", _frame),
    "grey_histogram": CheapFeature("grey-value histogram", "grey-value histograms", _histogram),
    "spectrum": CheapFeature("radial frequency spectrum", "frequency spectra", _spectrum),
    "thumbnail": CheapFeature("16 x 16 px thumbnail", "16 x 16 px thumbnails", _small),
    "colour_moments": CheapFeature(
        "mean and deviation of each colour", "six colour numbers", _colour_moments
    ),
    "colour_histogram": CheapFeature("colour histogram", "colour histograms", _histogram),
    "colour_texture": CheapFeature(
        "colour and texture (LBP) histograms", "colour and texture", _colour_and_texture
    ),
}


def features_of(samples: Sequence[Sample], task: Task) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(N, D) of each of the task's floors and of what its leakage is shown on, by its name in
    `FEATURES`, and (N,) class indices.
    """
    wanted = dict.fromkeys((*task.floors, *(cheap.feature for cheap in task.leakage)))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    for sample in samples:
        pixels = read_pixels(sample, task, SIZE)
        for name, values in rows.items():
            values.append(FEATURES[name].compute(pixels))
    labels = labels_of(samples, task)
    return {name: np.stack(values) for name, values in rows.items()}, labels


def floors_of(manifest: Manifest, seed: int = 0) -> Iterator[Floor]:
    """The majority class, and a random forest on each of the task's floors, fitted on train.

    A probability may be 0, whose logarithm is none; `TINY` is added to each.
    """
    features, labels = {}, {}
    for split in ("train", *SPLITS):
        features[split], labels[split] = features_of(manifest.split(split), manifest.task)
    names = manifest.task.floors
    rows = [("majority", "majority class", DummyClassifier(), names[0])]
    forest = RandomForestClassifier(500, n_jobs=-1, random_state=seed)
    rows += [(feature, FEATURES[feature].name, forest, feature) for feature in names]
    for floor_id, name, model, feature in rows:
        model.fit(features["train"][feature], labels["train"])
        shares = (model.predict_proba(features[split][feature]) for split in SPLITS)
        yield Floor(floor_id, name, "floor", *(np.log(s + TINY) for s in shares))
