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
from train.measure.evaluate import say_differences
from train.measure.floors import FEATURES, features_of
from train.measure.kept import results_folder
from train.measure.kept_rows import LeakageRow, read_rows, unlike_rows, write_rows

log = logging.getLogger("train")

FLIPS = 5  # right answers by which another version of scikit-learn may differ
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


def measure_leakage(manifest: Manifest, seeds: Sequence[int] = (0, 1, 2)) -> list[LeakageRow]:
    """How often the classifiers of a task are right on its images of the training and test split.

    They are split as the manifest says, and for each seed anew by group and by image, with as many
    test images.
    """
    task = manifest.task
    stored = [manifest.split(name) for name in ("train", "test")]
    samples = [s for part in stored for s in part]
    number = len(stored[1])
    features, labels = features_of(samples, task)
    groups = np.array([s.group for s in samples])
    places = np.arange(len(samples))
    splits = {("as_stored", seeds[0]): (places[:-number], places[-number:])}
    splits |= {("by_group", seed): split_by_group(labels, groups, number, seed) for seed in seeds}
    splits |= {("by_image", seed): split_by_image(labels, number, seed) for seed in seeds}
    rows = []
    for cheap in task.leakage:
        words, build = CLASSIFIERS[cheap.classifier]
        values = features[cheap.feature]
        for (way, seed), (train, test) in splits.items():
            model = build(seed).fit(values[train], labels[train])
            rows.append(
                LeakageRow(
                    classifier=f"{words} {FEATURES[cheap.feature].plural}",
                    way=way,
                    seed=seed,
                    trained=len(train),
                    tested=len(test),
                    right=int((model.predict(values[test]) == labels[test]).sum()),
                    seen=int(np.isin(groups[test], groups[train]).sum()),
                )
            )
            log.info("%s", rows[-1])
    return rows


def leakage_task(manifest: Manifest, write: bool = False) -> list[str]:
    """Measure, and keep it in `results/<task>/leakage.csv`, or compare it with what is kept there.

    Returns a sentence for each row that differs. Raises `ResultsError`.
    """
    file = results_folder() / manifest.task.id / "leakage.csv"
    known = () if write else read_rows(file, LeakageRow)
    rows = measure_leakage(manifest)
    if write:
        write_rows(file, rows)
        return []
    lines = unlike_rows(file, known, rows, {"right": FLIPS})
    say_differences(lines)
    return lines
