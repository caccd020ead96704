"""`train.measure.resampling`: groups are drawn whole, once, and intervals are as wide as theory says."""

import numpy as np
import pytest

from tests.train.measure.answers import random_answers
from train.measure.resampling import (
    RESAMPLES,
    Estimate,
    mean_estimate,
    resampled_counts,
    resampled_sums,
)


def names(groups) -> tuple[str, ...]:
    return tuple(f"g{i}" for i in groups)


def test_groups_are_drawn_whole_after_the_images_as_they_are():
    # Group g holds 10**g images of the cell (g, g): each count tells how often g was drawn.
    sizes = [1, 10, 100]
    labels = np.repeat([0, 1, 2], sizes)
    counts = resampled_counts(labels, labels, 3, names(labels))
    assert counts.shape == (1 + RESAMPLES, 3, 3)
    assert np.array_equal(counts[0], np.diag(sizes))
    times = np.diagonal(counts[1:], axis1=1, axis2=2) / sizes
    assert np.array_equal(times, times.round())
    assert (times.sum(axis=1) == 3).all()
    assert times.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.1)
    assert counts[1:].sum() == pytest.approx((times * sizes).sum())


def test_a_group_keeps_its_wrong_answers_together():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    counts = resampled_counts(labels, predicted, 2, ("a", "a", "b", "b"))
    assert np.array_equal(counts[:, 0, 0], counts[:, 0, 1])
    assert np.array_equal(counts[:, 1, 1], counts[:, 1, 0])


def test_all_classifiers_on_the_same_images_share_one_draw():
    groups = names(np.arange(50) // 2)
    first, second = np.random.default_rng(0).normal(size=(2, 50))
    together = resampled_sums(first + second, groups)
    apart = resampled_sums(first, groups) + resampled_sums(second, groups)
    assert together == pytest.approx(apart)


def accuracy_of(labels, predicted, groups=None) -> Estimate:
    groups = names(range(len(labels)) if groups is None else groups)
    return mean_estimate((labels == predicted).astype(float), groups)


def test_the_interval_is_about_the_analytic_one_for_independent_images():
    labels, predicted = random_answers(3, number=400)
    p = (labels == predicted).mean()
    error = 1.96 * np.sqrt(p * (1 - p) / len(labels))
    found = accuracy_of(labels, predicted)
    assert found.value == pytest.approx(p)
    assert (found.low, found.high) == pytest.approx((p - error, p + error), abs=0.2 * error)


def test_repeated_images_of_a_group_do_not_narrow_the_interval():
    labels, predicted = random_answers(4, number=150)
    alone = accuracy_of(labels, predicted)
    four = [np.repeat(x, 4) for x in (labels, predicted, np.arange(150))]
    grouped, naive = accuracy_of(*four), accuracy_of(*four[:2])
    width = {id(e): e.high - e.low for e in (alone, grouped, naive)}
    assert width[id(grouped)] == pytest.approx(width[id(alone)], rel=0.15)
    assert width[id(grouped)] == pytest.approx(2 * width[id(naive)], rel=0.2)


def test_a_mean_leaves_out_what_has_no_value():
    values = np.array([1.0, np.nan, 3.0, np.nan])
    found = mean_estimate(values, names(range(4)))
    assert (found.value, found.low, found.high) == (2, 1, 3)
    nothing = mean_estimate(values[1:2], ("g",))
    assert not nothing.known and np.isnan(nothing.low)


def test_an_estimate_is_above_a_floor_with_its_whole_interval():
    found = Estimate(0.8, 0.7, 0.9)
    assert found.beats(0.69) and not found.beats(0.7)
    assert found.excludes(0.69) and found.excludes(0.91) and not found.excludes(0.75)
