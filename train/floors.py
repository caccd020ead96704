"""Floors: what features that see no disease already reach on the same split.

Where class and source (or stain) go together, a network can win without looking at anatomy. A
random forest on such features tells how much of an accuracy that alone could explain.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score

from kdmodels.tasks import Task
from train.datasets import Manifest, Sample, read_pixels

SIZE = 256  # px; features are computed on the same squares that the networks see


def _thumbnail(pixels: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX))


def _frame(pixels: np.ndarray) -> np.ndarray:
    small = _thumbnail(pixels, 32)[..., 0]
    inside = np.zeros_like(small, dtype=bool)
    inside[3:-3, 3:-3] = True
    return small[~inside]


def _histogram(pixels: np.ndarray) -> np.ndarray:
    channels = [np.histogram(pixels[..., c], bins=64, range=(0, 256))[0] for c in range(3)]
    return np.concatenate(channels) / pixels[..., 0].size


def _spectrum(pixels: np.ndarray) -> np.ndarray:
    grey = pixels[..., 0].astype(np.float64)
    power = np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean()))) ** 2
    y, x = np.indices(grey.shape) - SIZE // 2
    radius = np.hypot(y, x).astype(int).ravel()
    mean = np.bincount(radius, power.ravel()) / np.bincount(radius)
    return np.log1p(mean[: SIZE // 2])


def _colour_moments(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1))])


FEATURES: dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "cxr": {
        "outer frame, 3 of 32 px": _frame,
        "grey-value histogram": _histogram,
        "radial frequency spectrum": _spectrum,
        "16 x 16 px thumbnail": lambda pixels: _thumbnail(pixels, 16)[..., 0].ravel(),
    },
    "histopathology": {
        "mean and deviation of each colour": _colour_moments,
        "colour histogram": _histogram,
    },
}


def _table(samples: Sequence[Sample], task: Task) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rows: dict[str, list[np.ndarray]] = {name: [] for name in FEATURES[task.id]}
    for sample in samples:
        pixels = read_pixels(sample, task, SIZE)
        for name, feature in FEATURES[task.id].items():
            rows[name].append(feature(pixels))
    labels = np.array([task.class_ids.index(s.label) for s in samples])
    return {name: np.stack(values) for name, values in rows.items()}, labels


def measure_floors(manifest: Manifest, split: str = "test", seed: int = 0) -> list[dict]:
    """Accuracy and macro-F1 of a random forest per feature set, and of the majority class.

    Fitted on the training split. Returns rows {name, accuracy, macro_f1}.
    """
    train, train_labels = _table(manifest.split("train"), manifest.task)
    held, labels = _table(manifest.split(split), manifest.task)
    nothing = next(iter(train))
    models = {"majority class": (DummyClassifier(), nothing)} | {
        name: (RandomForestClassifier(500, n_jobs=-1, random_state=seed), name) for name in train
    }
    rows = []
    for name, (model, feature) in models.items():
        predicted = model.fit(train[feature], train_labels).predict(held[feature])
        rows.append(
            {
                "name": name,
                "accuracy": round(float(accuracy_score(labels, predicted)), 4),
                "macro_f1": round(float(f1_score(labels, predicted, average="macro")), 4),
            }
        )
    return rows
