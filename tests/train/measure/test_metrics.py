"""`train.measure.metrics` against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from tests.train.measure.answers import random_answers
from train.measure.metrics import auroc, rates


@pytest.mark.parametrize("never", [None, 2])
def test_rates_are_those_of_scikit_learn(never):
    labels, predicted = random_answers(1, classes=4, never=never)
    counts = confusion_matrix(labels, predicted, labels=range(4))
    found = rates(counts)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    recall = recall_score(labels, predicted, average=None)
    assert found["sensitivity"] == pytest.approx(recall)
    precision = precision_score(labels, predicted, average=None, zero_division=np.nan)
    assert found["ppv"] == pytest.approx(precision, nan_ok=True)
    assert np.isnan(found["ppv"]).tolist() == [i == never for i in range(4)]
    for i in range(4):  # the specificity of a class is the sensitivity of all others together
        others = recall_score(labels != i, predicted != i)
        assert found["specificity"][i] == pytest.approx(others)


def test_macro_f1_leaves_out_a_class_that_does_not_occur():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    found = rates(confusion_matrix(labels, predicted, labels=range(3)))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_rates_of_many_tables_are_those_of_each():
    tables = np.random.default_rng(0).integers(1, 9, (5, 3, 3))
    together = rates(tables)
    for i, table in enumerate(tables):
        for name, value in rates(table).items():
            assert np.array_equal(together[name][i], value)


@pytest.mark.parametrize("classes", [2, 3])
def test_auroc_is_scikit_learns(classes):
    labels, _ = random_answers(2, classes=classes)
    logits = np.random.default_rng(2).normal(np.eye(classes)[labels])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = roc_auc_score(labels, shares if classes > 2 else shares[:, 1], multi_class="ovr")
    assert auroc(logits, labels) == pytest.approx(wanted)
