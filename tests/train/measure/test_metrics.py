"""`train.measure.metrics` against scikit-learn, and its intervals against what theory gives."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from kdmodels.tasks import TASKS
from train.data.manifest import Sample
from train.measure.metrics import (
    RESAMPLES,
    compare,
    confusion,
    group_bootstrap,
    logits_of,
    per_source,
    rates,
    summarise,
    within_sources,
)

CXR = TASKS["cxr"]
RATES = ("sensitivity", "specificity", "ppv")


def random_answers(seed: int, number: int = 200, classes: int = 4, never: int | None = None):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, number)
    wrong = generator.integers(0, classes, number)
    predicted = np.where(generator.random(number) < 0.6, labels, wrong)
    if never is not None:
        predicted[predicted == never] = (never + 1) % classes
    return labels, predicted


def samples_of(labels, groups=None, sources=None) -> list[Sample]:
    return [
        Sample(
            f"{i}.png",
            CXR.class_ids[label],
            "test",
            str(groups[i] if groups is not None else i),
            sources[i] if sources is not None else "here",
        )
        for i, label in enumerate(labels)
    ]


def logits_for(predicted, seed: int = 0, classes: int = 3) -> np.ndarray:
    """Random logits with their maximum where `predicted` says."""
    logits = np.random.default_rng(seed).normal(size=(len(predicted), classes))
    logits[np.arange(len(predicted)), predicted] = logits.max(axis=1) + 0.5
    return logits


def width(interval: list[float]) -> float:
    return interval[1] - interval[0]


# --- Rates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("never", [None, 2])
def test_rates_are_those_of_scikit_learn(never):
    labels, predicted = random_answers(1, never=never)
    counts = confusion(labels, predicted, 4)
    assert np.array_equal(counts, confusion_matrix(labels, predicted, labels=[0, 1, 2, 3]))
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
    found = rates(confusion(labels, predicted, 3))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_rates_of_many_tables_are_those_of_each():
    tables = np.random.default_rng(0).integers(1, 9, (5, 3, 3))
    together = rates(tables)
    for i, table in enumerate(tables):
        for name, value in rates(table).items():
            assert np.array_equal(together[name][i], value)


# --- The bootstrap ---------------------------------------------------------------------------


def test_groups_are_drawn_whole():
    # Group g holds 10**g images of the cell (g, g): each count tells how often g was drawn.
    sizes = [1, 10, 100]
    labels = np.repeat([0, 1, 2], sizes)
    counts = group_bootstrap(labels, labels, [f"g{i}" for i in labels], 3)
    assert counts.shape == (RESAMPLES, 3, 3)
    times = np.diagonal(counts, axis1=1, axis2=2) / sizes
    assert np.array_equal(times, times.round())
    assert (times.sum(axis=1) == 3).all()
    assert times.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.1)
    assert counts.sum() == pytest.approx((times * sizes).sum())


def test_a_group_keeps_its_wrong_answers_together():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    counts = group_bootstrap(labels, predicted, ["a", "a", "b", "b"], 2)
    assert np.array_equal(counts[:, 0, 0], counts[:, 0, 1])
    assert np.array_equal(counts[:, 1, 1], counts[:, 1, 0])


def accuracy_interval(labels, predicted, groups=None) -> list[float]:
    metrics = summarise(logits_for(predicted), samples_of(labels, groups), CXR)
    return metrics["accuracy"]["ci95"]


def test_the_interval_is_about_the_analytic_one_for_independent_images():
    labels, predicted = random_answers(3, number=400, classes=3)
    p = (labels == predicted).mean()
    error = 1.96 * np.sqrt(p * (1 - p) / len(labels))
    low, high = accuracy_interval(labels, predicted)
    assert low == pytest.approx(p - error, abs=0.2 * error)
    assert high == pytest.approx(p + error, abs=0.2 * error)


def test_repeated_images_of_a_group_do_not_narrow_the_interval():
    labels, predicted = random_answers(4, number=150, classes=3)
    alone = accuracy_interval(labels, predicted)
    four = [np.repeat(x, 4) for x in (labels, predicted, np.arange(150))]
    grouped, naive = accuracy_interval(*four), accuracy_interval(*four[:2])
    assert width(grouped) == pytest.approx(width(alone), rel=0.15)
    assert width(grouped) == pytest.approx(2 * width(naive), rel=0.2)


# --- The difference --------------------------------------------------------------------------


def test_a_model_does_not_differ_from_itself():
    labels, predicted = random_answers(5, classes=3)
    logits = logits_for(predicted)
    for change in compare(logits, logits.copy(), samples_of(labels), CXR).values():
        assert change == {"value": 0.0, "ci95": [0.0, 0.0]}


def test_the_difference_is_first_minus_second():
    labels, predicted = random_answers(6, classes=3)
    samples = samples_of(labels)
    better, worse = logits_for(labels), logits_for(predicted)
    change = compare(better, worse, samples, CXR)
    accuracy = (labels == predicted).mean()
    assert change["accuracy"]["value"] == pytest.approx(1 - accuracy, abs=1e-4)
    f1 = f1_score(labels, predicted, average="macro")
    assert change["macro_f1"]["value"] == pytest.approx(1 - f1, abs=1e-4)
    assert change["accuracy"]["ci95"][0] > 0
    back = compare(worse, better, samples, CXR)
    assert back["accuracy"]["value"] == -change["accuracy"]["value"]


def test_pairing_narrows_the_interval_of_models_that_err_together():
    labels, predicted = random_answers(7, number=300, classes=3)
    other = predicted.copy()
    other[:20] = labels[:20]
    samples = samples_of(labels)
    paired = compare(logits_for(predicted), logits_for(other), samples, CXR)["accuracy"]["ci95"]
    each = [width(accuracy_interval(labels, x)) for x in (predicted, other)]
    assert width(paired) < 0.5 * np.hypot(*each)


def test_the_difference_of_several_runs_is_the_mean_of_theirs():
    labels, predicted = random_answers(11, number=300, classes=3)
    samples = samples_of(labels)
    other = np.where(np.arange(300) < 30, labels, predicted)
    first = np.stack([logits_for(labels), logits_for(other)])
    second = np.stack([logits_for(predicted)] * 2)
    together = compare(first, second, samples, CXR)
    apart = [compare(a, b, samples, CXR) for a, b in zip(first, second, strict=True)]
    for name, change in together.items():
        values = [part[name]["value"] for part in apart]
        assert change["value"] == pytest.approx(np.mean(values), abs=1e-4)
        assert values[1] < change["value"] < values[0]
        for end, i in (("lowest", 0), ("highest", 1)):
            ends = sorted(part[name]["ci95"][i] for part in apart)
            assert ends[0] < change["ci95"][i] < ends[1], end
    assert compare(first[0], second[0], samples, CXR) == compare(
        first[:1], second[:1], samples, CXR
    )


# --- The summary -----------------------------------------------------------------------------


def test_a_summary_is_json_and_has_the_documented_numbers():
    labels, predicted = random_answers(8, classes=3)
    groups, sources = np.arange(200) // 2, [f"s{i % 3}" for i in range(200)]
    logits = logits_for(predicted)
    metrics = summarise(logits, samples_of(labels, groups, sources), CXR)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert set(metrics) == {"images", "groups", "accuracy", "macro_f1", "auroc", "ece", "nll",
                            "calibrated", "classes", "confusion", "sources", "within"}  # fmt: skip
    assert (metrics["images"], metrics["groups"]) == (200, 100)
    assert tuple(metrics["classes"]) == CXR.class_ids
    assert metrics["confusion"] == confusion_matrix(labels, predicted).tolist()
    assert metrics["accuracy"]["value"] == pytest.approx((labels == predicted).mean(), abs=1e-4)
    for i, name in enumerate(CXR.class_ids):
        assert set(metrics["classes"][name]) == set(RATES)
        recall = recall_score(labels, predicted, average=None)[i]
        assert metrics["classes"][name]["sensitivity"]["value"] == pytest.approx(recall, abs=1e-4)
    for metric in (metrics["accuracy"], metrics["macro_f1"], metrics["classes"]["covid"]["ppv"]):
        low, high = metric["ci95"]
        assert 0 <= low < metric["value"] < high <= 1


def test_likelihood_auroc_and_calibration_are_the_written_ones():
    labels, predicted = random_answers(9, classes=3)
    logits = logits_for(predicted)
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    metrics = summarise(logits, samples_of(labels), CXR)
    nll = -np.log(probabilities[np.arange(200), labels]).mean()
    assert metrics["nll"] == pytest.approx(nll, abs=1e-4)
    each = [roc_auc_score(labels == i, probabilities[:, i]) for i in range(3)]
    assert metrics["auroc"] == pytest.approx(np.mean(each), abs=1e-4)
    confidence, right = probabilities.max(axis=1), labels == predicted
    bins = np.clip((confidence * 15).astype(int), 0, 14)
    ece = sum(
        abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()
        for b in set(bins)
    )
    assert metrics["ece"] == pytest.approx(ece, abs=1e-4)


def test_a_temperature_changes_the_calibrated_numbers_alone():
    labels, predicted = random_answers(9, classes=3)
    logits, samples = logits_for(predicted), samples_of(labels)
    plain, scaled = summarise(logits, samples, CXR), summarise(logits, samples, CXR, 2.0)
    assert {k: v for k, v in scaled.items() if k != "calibrated"} == {
        k: v for k, v in plain.items() if k != "calibrated"
    }
    assert plain["calibrated"] == {"temperature": 1.0, "ece": plain["ece"], "nll": plain["nll"]}
    halved = summarise(logits / 2, samples, CXR)
    assert scaled["calibrated"] == {"temperature": 2.0, "ece": halved["ece"], "nll": halved["nll"]}


def test_a_class_that_is_never_predicted_has_no_ppv():
    labels, predicted = random_answers(10, classes=3, never=1)
    metrics = summarise(logits_for(predicted), samples_of(labels), CXR)
    assert metrics["classes"]["pneumonia"]["ppv"] == {"value": None, "ci95": [None, None]}
    assert metrics["classes"]["pneumonia"]["sensitivity"]["value"] == 0
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_sources_are_counted_each_on_its_own():
    labels = np.array([0, 0, 0, 1, 2, 2])
    predicted = np.array([0, 1, 0, 1, 2, 0])
    samples = samples_of(labels, sources=["a", "a", "b", "a", "b", "b"])
    assert per_source(labels, predicted, samples, CXR) == {
        "a": {
            "images": 3,
            "accuracy": 0.6667,
            "classes": {
                "covid": {"images": 2, "sensitivity": 0.5},
                "pneumonia": {"images": 1, "sensitivity": 1.0},
            },
        },
        "b": {
            "images": 3,
            "accuracy": 0.6667,
            "classes": {
                "covid": {"images": 1, "sensitivity": 1.0},
                "normal": {"images": 2, "sensitivity": 0.5},
            },
        },
    }


@pytest.mark.parametrize("task", TASKS)
def test_logits_are_the_apps_own(make_classifier, make_manifest, task):
    from kdmodels.images.read import read_image

    classifier = make_classifier("ofa_595", task)
    samples = make_manifest(train=0, val=0, test=2, task=task).split("test")
    logits = logits_of(classifier, samples, batch_size=4)
    assert (logits.shape, logits.dtype) == ((len(samples), len(samples) // 2), np.float64)
    for row, sample in zip(logits, samples, strict=True):
        with torch.no_grad():
            own = classifier.model(classifier.prepare(read_image(sample.path).pixels))[0]
        assert row == pytest.approx(own.numpy(), abs=1e-5)


def test_within_a_source_only_its_own_classes_compete():
    # "mixed" holds classes 0 and 1, ten each; "single" holds class 2 alone.
    labels = np.array([0] * 10 + [1] * 10 + [2] * 10)
    sources = ["mixed"] * 20 + ["single"] * 10
    logits = np.zeros((30, 3))
    logits[:, 2] = 9.0  # the best class overall, but not one of "mixed"
    logits[:8, 0] = 1.0  # 8 of 10 right
    logits[8:20, 1] = 1.0  # 2 wrong, 10 right
    table = within_sources(labels, logits, samples_of(labels, sources=sources))
    assert list(table) == ["mixed"]
    assert table["mixed"]["classes"] == [0, 1]
    assert table["mixed"]["images"] == 20
    assert table["mixed"]["majority"] == 0.5
    assert table["mixed"]["accuracy"]["value"] == pytest.approx(18 / 20)
    low, high = table["mixed"]["accuracy"]["ci95"]
    assert low < 0.9 < high <= 1


def test_within_an_organ_only_its_own_classes_compete():
    task = TASKS["histopathology"]
    labels = np.repeat(np.arange(5), 10)
    samples = [
        Sample(f"{i}.png", task.class_ids[label], "test", str(i), "one source for all")
        for i, label in enumerate(labels)
    ]
    logits = np.eye(5)[labels]
    organ = np.where(labels < 3, 0, 1)
    logits[organ == 0, 3] = 9.0  # every lung is taken for a colon: wrong over all five classes
    logits[10:14] += np.eye(5)[0] * 2  # and 4 of 30 for another lung
    logits[30:33] = np.eye(5)[4]  # 3 of 20 for the other colon
    metrics = summarise(logits, samples, task)
    assert metrics["accuracy"]["value"] == pytest.approx(17 / 50)
    lung, colon = metrics["within"]["lung"], metrics["within"]["colon"]
    assert list(metrics["within"]) == ["lung", "colon"]
    assert (lung["classes"], colon["classes"]) == ([0, 1, 2], [3, 4])
    assert (lung["images"], colon["images"]) == (30, 20)
    assert lung["accuracy"]["value"] == pytest.approx(26 / 30, abs=1e-4)
    assert colon["accuracy"]["value"] == pytest.approx(17 / 20)
    assert (lung["majority"], colon["majority"]) == (0.3333, 0.5)


def test_organs_are_of_all_classes_of_their_task():
    for task in TASKS.values():
        named = [class_id for ids in task.organs.values() for class_id in ids]
        assert not task.organs or sorted(named) == sorted(task.class_ids)
    assert list(TASKS["histopathology"].organs) == ["lung", "colon"]
