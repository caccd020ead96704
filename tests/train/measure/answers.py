"""Made-up answers on made-up images, for tests of numbers."""

import numpy as np

from train.measure.kept import Images


def random_answers(seed: int, number: int = 200, classes: int = 3, never: int | None = None):
    """(N,) labels, and (N,) answers that are right in about two thirds of them."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, number)
    wrong = generator.integers(0, classes, number)
    predicted = np.where(generator.random(number) < 0.6, labels, wrong)
    if never is not None:
        predicted[predicted == never] = (never + 1) % classes
    return labels, predicted


def images_of(labels, groups=None, sources=None) -> Images:
    """Each image is a group of its own, and of the source `here`, unless others are named."""
    number = len(labels)
    groups = range(number) if groups is None else groups
    return Images(
        tuple(f"{i}.png" for i in range(number)),
        np.asarray(labels),
        tuple(map(str, groups)),
        tuple(sources) if sources is not None else ("here",) * number,
    )


def logits_for(predicted, seed: int = 0, classes: int = 3) -> np.ndarray:
    """Random logits with their maximum where `predicted` says."""
    logits = np.random.default_rng(seed).normal(size=(len(predicted), classes))
    logits[np.arange(len(predicted)), predicted] = logits.max(axis=1) + 0.5
    return logits
