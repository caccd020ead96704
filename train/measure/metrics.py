"""Honest numbers of a classifier on one split: per class, per source, with bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, roc_auc_score

from kdmodels.tasks import Task
from train.data.manifest import Sample
from train.measure.calibration import calibration_of

RESAMPLES = 2000
LEVEL = 95  # % of the intervals
MIN_WITHIN = 10  # images of a class in a source, to be compared within it


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(K, K) counts; rows are true classes."""
    return confusion_matrix(labels, predicted, labels=range(classes))


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Rates of (..., K, K) confusion counts, NaN where a denominator is zero.

    accuracy and macro_f1 have shape (...,); sensitivity, specificity and ppv (..., K). macro_f1 is
    averaged over the classes that occur among the labels or the predictions, as scikit-learn does.
    """
    counts = counts.astype(np.float64)
    true_positive = np.diagonal(counts, axis1=-2, axis2=-1)
    actual, predicted = counts.sum(-1), counts.sum(-2)
    total = counts.sum((-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * true_positive / (actual + predicted)
        return {
            "accuracy": true_positive.sum(-1) / total,
            "macro_f1": np.nanmean(f1, axis=-1),
            "sensitivity": true_positive / actual,
            "specificity": 1 - (predicted - true_positive) / (total[..., None] - actual),
            "ppv": true_positive / predicted,
        }


def auroc(logits: np.ndarray, labels: np.ndarray) -> float:
    """Macro AUROC, one class against the rest, of (N, K) logits."""
    shares = softmax(logits.astype(np.float64), axis=1)
    scores = shares if shares.shape[1] > 2 else shares[:, 1]
    return float(roc_auc_score(labels, scores, multi_class="ovr"))


def group_bootstrap(
    labels: np.ndarray, predicted: np.ndarray, groups: Sequence[str], classes: int, seed: int = 0
) -> np.ndarray:
    """(RESAMPLES, K, K) confusion counts of resamples that draw whole groups with replacement.

    Images of one patient (or tile) are not independent, so the group is the unit (the cluster
    bootstrap; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).
    """
    _, group = np.unique(groups, return_inverse=True)
    number = group.max() + 1
    by_group = np.zeros((number, classes, classes))
    np.add.at(by_group, (group, labels, predicted), 1)
    draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), RESAMPLES)
    return np.tensordot(draws, by_group, axes=1)


def _interval(values: np.ndarray) -> list[float]:
    tail = (100 - LEVEL) / 2
    return [round(float(v), 4) for v in np.nanpercentile(values, (tail, 100 - tail), axis=0)]


def _with_interval(value: float, resampled: np.ndarray) -> dict:
    if np.isnan(value):  # the PPV of a class that is never predicted; JSON has no NaN
        return {"value": None, "ci95": [None, None]}
    return {"value": round(float(value), 4), "ci95": _interval(resampled)}


def labels_of(samples: Sequence[Sample], task: Task) -> np.ndarray:
    """(N,) int64 indices of the samples' classes."""
    return np.array([task.class_ids.index(s.label) for s in samples])


def summarise(
    logits: np.ndarray, samples: Sequence[Sample], task: Task, temperature: float = 1.0
) -> dict:
    """All metrics of (N, K) logits on labelled samples, ready for JSON.

    Accuracy, macro-F1, and sensitivity, specificity and PPV of each class, with 95% intervals;
    macro AUROC (one against rest); expected calibration error and negative log-likelihood as the
    network is, and calibrated by the temperature; the confusion matrix; per source the accuracy and
    each class's sensitivity; and within sources, or within organs, the choice among their classes.
    """
    labels, k = labels_of(samples, task), task.num_classes
    predicted = logits.argmax(1)
    probabilities = torch.from_numpy(logits).softmax(1)
    counts = confusion(labels, predicted, k)
    point = rates(counts)
    resampled = rates(group_bootstrap(labels, predicted, [s.group for s in samples], k))
    organs = task.organs
    return {
        "images": len(samples),
        "groups": len({s.group for s in samples}),
        "accuracy": _with_interval(point["accuracy"], resampled["accuracy"]),
        "macro_f1": _with_interval(point["macro_f1"], resampled["macro_f1"]),
        "auroc": round(float(roc_auc_score(labels, probabilities, multi_class="ovr")), 4),
        **asdict(calibration_of(logits, labels)),
        "calibrated": {
            "temperature": temperature,
            **asdict(calibration_of(logits, labels, temperature)),
        },
        "classes": {
            name: {
                rate: _with_interval(point[rate][i], resampled[rate][:, i])
                for rate in ("sensitivity", "specificity", "ppv")
            }
            for i, name in enumerate(task.class_ids)
        },
        "confusion": counts.tolist(),
        "sources": per_source(labels, predicted, samples, task),
        "within": within_organs(labels, logits, samples, task)
        if organs
        else within_sources(labels, logits, samples),
    }


def per_source(
    labels: np.ndarray, predicted: np.ndarray, samples: Sequence[Sample], task: Task
) -> dict[str, dict]:
    """By source: images, accuracy, and sensitivity with the count of each class that it holds.

    A source with one class only shows whether the class is found there, not whether the network
    sees the disease rather than the source.
    """
    sources = np.array([s.source for s in samples])
    table = {}
    for source in sorted(set(sources)):
        mine = sources == source
        right = predicted[mine] == labels[mine]
        table[source] = {
            "images": int(mine.sum()),
            "accuracy": round(float(right.mean()), 4),
            "classes": {
                name: {
                    "images": int((labels[mine] == i).sum()),
                    "sensitivity": round(float(right[labels[mine] == i].mean()), 4),
                }
                for i, name in enumerate(task.class_ids)
                if (labels[mine] == i).any()
            },
        }
    return table


def within_sources(labels: np.ndarray, logits: np.ndarray, samples: Sequence[Sample]) -> dict:
    """Accuracy and macro-F1 among the classes of one source, where it holds several.

    The network chooses between those classes alone. Only here can its answer not be read off the
    source. Classes with fewer than 10 images in the source are left out.
    """
    sources = np.array([s.source for s in samples])
    table = {}
    for source in sorted(set(sources)):
        counts = np.bincount(labels[sources == source], minlength=logits.shape[1])
        held = np.flatnonzero(counts >= MIN_WITHIN)
        if len(held) > 1:
            table[source] = _among(held, sources == source, labels, logits, samples)
    return table


def within_organs(
    labels: np.ndarray, logits: np.ndarray, samples: Sequence[Sample], task: Task
) -> dict:
    """Accuracy and macro-F1 among the classes of one of the task's organs, as `within_sources` does.

    Which organ it is can be told without seeing disease, and earns accuracy over all classes.
    """
    everywhere = np.ones(len(samples), dtype=bool)
    return {
        organ: _among(
            np.sort([task.class_ids.index(i) for i in ids]), everywhere, labels, logits, samples
        )
        for organ, ids in task.organs.items()
    }


def _among(
    held: np.ndarray,
    part: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    samples: Sequence[Sample],
) -> dict:
    """Results on the images of `part` ((N,) bool) that are of the sorted class indices `held`."""
    mine = part & np.isin(labels, held)
    true = np.searchsorted(held, labels[mine])
    chosen = logits[mine][:, held].argmax(1)
    groups = [s.group for s, is_mine in zip(samples, mine, strict=True) if is_mine]
    point = rates(confusion(true, chosen, len(held)))
    drawn = rates(group_bootstrap(true, chosen, groups, len(held)))
    return {
        "images": int(mine.sum()),
        "classes": held.tolist(),
        "majority": round(float(np.bincount(true).max() / len(true)), 4),
        "accuracy": _with_interval(point["accuracy"], drawn["accuracy"]),
        "macro_f1": _with_interval(point["macro_f1"], drawn["macro_f1"]),
    }


def compare(
    first: np.ndarray, second: np.ndarray, samples: Sequence[Sample], task: Task, seed: int = 0
) -> dict[str, dict]:
    """Difference `first - second` in accuracy and macro-F1, with paired bootstrap intervals.

    first, second: (N, K) logits of two models on the same samples. The same groups are drawn for
    both in each resample, so what the images share cancels out. Or (R, N, K) of R training runs of
    each, paired in order: then of the mean difference, the same groups drawn for all runs.
    """
    labels, k = labels_of(samples, task), task.num_classes
    groups = [s.group for s in samples]
    points, draws = [], []
    for runs in (first, second):
        answers = runs.reshape(-1, *runs.shape[-2:]).argmax(2)
        points.append([rates(confusion(labels, x, k)) for x in answers])
        draws.append([rates(group_bootstrap(labels, x, groups, k, seed)) for x in answers])

    def mean(table: list[dict], name: str) -> np.ndarray:
        return np.mean([row[name] for row in table], axis=0)

    return {
        name: _with_interval(
            mean(points[0], name) - mean(points[1], name),
            mean(draws[0], name) - mean(draws[1], name),
        )
        for name in ("accuracy", "macro_f1")
    }
