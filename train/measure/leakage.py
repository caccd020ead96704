"""Leakage made visible: the same cheap classifiers on a split by group and on a split by image.

Where several images show one thing (the turned and mirrored copies of a tile, the films of a
patient), a random split of the images tests on copies of what was trained on, and remembering
passes for recognising: type L3.2 of Kapoor and Narayanan, "Leakage and the reproducibility crisis
in machine-learning-based science", Patterns 4(9), 2023. No network is trained here: the gap is that
of the simplest classifiers.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier

from train.data.manifest import Manifest
from train.measure.floors import FEATURES, features_of
from train.release.store import update_results

log = logging.getLogger("train")

Split = tuple[np.ndarray, np.ndarray]  # indices of the images to train and to test on


def _forest(seed: int) -> ClassifierMixin:
    return RandomForestClassifier(500, n_jobs=-1, random_state=seed)


def _nearest(seed: int) -> ClassifierMixin:
    return KNeighborsClassifier(1, metric="cityblock")


# By the name that a task file gives (`kdmodels.tasks.task.Classifier`): in words, and how it is built.
CLASSIFIERS: dict[str, tuple[str, Callable[[int], ClassifierMixin]]] = {
    "forest": ("random forest on", _forest),
    "nearest": ("nearest neighbour of", _nearest),
}


def split_by_image(labels: np.ndarray, number: int, seed: int) -> Split:
    """A random split with `number` test images, stratified by class; groups are not looked at."""
    splitter = StratifiedShuffleSplit(1, test_size=number, random_state=seed)
    return next(splitter.split(labels, labels))


def split_by_group(labels: np.ndarray, groups: np.ndarray, number: int, seed: int) -> Split:
    """A random split of whole groups, with at least its share of `number` test images of a class.

    A group of images of several classes counts for the class that is served first.
    """
    generator = np.random.default_rng(seed)
    tested = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        of_class = labels == label
        wanted = number * of_class.mean()
        for group in generator.permutation(np.unique(groups[of_class])):
            if tested[of_class].sum() >= wanted:
                break
            tested |= groups == group
    return np.flatnonzero(~tested), np.flatnonzero(tested)


def measure_leakage(manifest: Manifest, seeds: Sequence[int] = (0, 1, 2)) -> dict:
    """Accuracy of the classifiers of a task on its images of the training and the test split.

    They are split as the manifest says, and for each seed anew by group and by image, with as many
    test images. Returns, ready for JSON:

    - `rows`: {name, as_stored, by_group, by_image}, the latter two lists by seed;
    - `seen`: for the same splits the share of test images with a training image of their group.
    """
    task = manifest.task
    stored = [manifest.split(name) for name in ("train", "test")]
    samples = [s for part in stored for s in part]
    number = len(stored[1])
    features, labels = features_of(samples, task)
    groups = np.array([s.group for s in samples])
    places = np.arange(len(samples))
    splits = {
        "as_stored": [(places[:-number], places[-number:])],
        "by_group": [split_by_group(labels, groups, number, seed) for seed in seeds],
        "by_image": [split_by_image(labels, number, seed) for seed in seeds],
    }
    rows = []
    for cheap in task.leakage:
        words, build = CLASSIFIERS[cheap.classifier]
        row: dict = {"name": f"{words} {FEATURES[cheap.feature].plural}"}
        for way, pairs in splits.items():
            row[way] = [
                _accuracy(build(seed), features[cheap.feature], labels, pair)
                for pair, seed in zip(pairs, seeds, strict=False)
            ]
            log.info("%s, %s: %s", row["name"], way.replace("_", " "), row[way])
        rows.append(row | {"as_stored": row["as_stored"][0]})
    seen = {
        way: round(float(np.mean([np.isin(groups[b], groups[a]).mean() for a, b in pairs])), 4)
        for way, pairs in splits.items()
    }
    return {
        "data": manifest.id,
        "images": len(samples),
        "test_images": number,
        "seeds": list(seeds),
        "seen": seen,
        "rows": rows,
    }


def _accuracy(
    model: ClassifierMixin, features: np.ndarray, labels: np.ndarray, split: Split
) -> float:
    train, test = split
    model.fit(features[train], labels[train])
    return round(float(model.score(features[test], labels[test])), 4)


def write_leakage(manifest: Manifest) -> None:
    """Measure, and store under [task]["leakage"] in `weights/results.json`."""
    update_results(manifest.task.id, leakage=measure_leakage(manifest))
