"""`train.measure.measured` against scikit-learn, and what a source or an organ alone tells."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score, roc_auc_score

from kdmodels.tasks import TASKS
from tests.train.measure.answers import images_of, logits_for, random_answers
from train.measure.measured import MIN_WITHIN, RATES, Measured

CXR = TASKS["cxr"]


def test_the_numbers_are_those_of_scikit_learn():
    labels, predicted = random_answers(8)
    logits = logits_for(predicted)
    found = Measured(logits, images_of(labels, np.arange(200) // 2), CXR)
    assert (len(found.images), found.groups) == (200, 100)
    assert found.confusion.tolist() == confusion_matrix(labels, predicted).tolist()
    assert found.accuracy.value == pytest.approx((labels == predicted).mean())
    assert tuple(found.classes) == CXR.class_ids
    recall = recall_score(labels, predicted, average=None)
    for i, name in enumerate(CXR.class_ids):
        assert set(found.classes[name]) == set(RATES)
        assert found.classes[name]["sensitivity"].value == pytest.approx(recall[i])
    for rate in (found.accuracy, found.macro_f1, found.classes["covid"]["ppv"]):
        assert 0 <= rate.low < rate.value < rate.high <= 1
    powers = np.exp(logits)
    shares = powers / powers.sum(axis=1, keepdims=True)
    each = [roc_auc_score(labels == i, shares[:, i]) for i in range(3)]
    assert found.auroc == pytest.approx(np.mean(each))


def test_organs_are_of_all_classes_of_their_task():
    for task in TASKS.values():
        named = [class_id for ids in task.organs.values() for class_id in ids]
        assert not task.organs or sorted(named) == sorted(task.class_ids)
    assert list(TASKS["histopathology"].organs) == ["lung", "colon"]


def test_a_class_that_is_never_predicted_has_no_ppv():
    labels, predicted = random_answers(10, never=1)
    found = Measured(logits_for(predicted), images_of(labels), CXR).classes["pneumonia"]
    assert not found["ppv"].known and found["sensitivity"].value == 0


def test_sources_are_counted_each_on_its_own():
    labels = np.array([0, 0, 0, 1, 2, 2])
    predicted = np.array([0, 1, 0, 1, 2, 0])
    images = images_of(labels, sources=["a", "a", "b", "a", "b", "b"])
    first, second = Measured(logits_for(predicted), images, CXR).sources
    assert (first.name, first.images, second.name, second.images) == ("a", 3, "b", 3)
    assert first.accuracy == second.accuracy == pytest.approx(2 / 3)
    assert first.sensitivity == {"covid": 0.5, "pneumonia": 1.0}
    assert first.counts == {"covid": 2, "pneumonia": 1}
    assert second.sensitivity == {"covid": 1.0, "normal": 0.5}


def test_within_a_source_only_its_own_classes_compete():
    # "mixed" holds classes 0 and 1; "few" too, but one image too few; "single" class 2 alone.
    labels = np.array([0] * 10 + [1] * 10 + [2] * 10 + [0] * 10 + [1] * (MIN_WITHIN - 1))
    sources = ["mixed"] * 20 + ["single"] * 10 + ["few"] * (9 + MIN_WITHIN)
    logits = np.zeros((len(labels), 3))
    logits[:, 2] = 9.0  # the best class overall, but not one of "mixed"
    logits[:8, 0] = 1.0  # 8 of 10 right
    logits[8:20, 1] = 1.0  # 2 wrong, 10 right
    [mixed] = Measured(logits, images_of(labels, sources=sources), CXR).within
    assert (mixed.name, mixed.classes, mixed.images, mixed.majority) == ("mixed", (0, 1), 20, 0.5)
    assert mixed.accuracy.value == pytest.approx(18 / 20)
    assert mixed.accuracy.low < 0.9 < mixed.accuracy.high <= 1


def test_within_an_organ_only_its_own_classes_compete():
    labels = np.repeat(np.arange(5), 10)
    logits = np.eye(5)[labels]
    organ = np.where(labels < 3, 0, 1)
    logits[organ == 0, 3] = 9.0  # every lung is taken for a colon: wrong over all five classes
    logits[10:14] += np.eye(5)[0] * 2  # and 4 of 30 for another lung
    logits[30:33] = np.eye(5)[4]  # 3 of 20 for the other colon
    found = Measured(logits, images_of(labels), TASKS["histopathology"])
    assert found.accuracy.value == pytest.approx(17 / 50)
    lung, colon = found.within
    assert (lung.name, colon.name) == ("lung", "colon")
    assert (lung.classes, colon.classes) == ((0, 1, 2), (3, 4))
    assert (lung.images, colon.images) == (30, 20)
    assert lung.accuracy.value == pytest.approx(26 / 30)
    assert colon.accuracy.value == pytest.approx(17 / 20)
    assert (lung.majority, colon.majority) == (pytest.approx(1 / 3), 0.5)
