"""`kdmodels.predict`: the answer is the network's own, and the time is the network's alone."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kdmodels.predict import COMPUTE, Classifier, FairLock, engine_name, measure, predict
from kdmodels.preprocess import to_input
from kdmodels.zoo import build_model, count_parameters


class Slow(nn.Module):
    """Sleeps in each pass, longest in the first one."""

    def __init__(self, seconds, first=0.0):
        super().__init__()
        self.seconds, self.first, self.passes = seconds, first, 0
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, images):
        self.passes += 1
        time.sleep(self.first if self.passes == 1 and self.first else self.seconds)
        return images.mean((2, 3)) * self.weight


@pytest.mark.parametrize("task", ["cxr", "histopathology"])
def test_a_prediction_is_the_direct_forward_pass(make_classifier, photo, task):
    for model in ("vgg19", "autoformerv2_t", "ofa_595"):
        classifier = make_classifier(model, task)
        prediction = predict(classifier, photo)
        with torch.no_grad():
            logits = classifier.model(to_input(photo, classifier.task, classifier.spec))[0]
        assert prediction.logits == pytest.approx(logits.tolist(), rel=1e-6)
        shifted = np.exp(np.array(prediction.logits) - max(prediction.logits))
        assert prediction.probabilities == pytest.approx(shifted / shifted.sum(), rel=1e-12)
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-12)
        assert prediction.class_ids == classifier.task.class_ids
        assert prediction.index == int(logits.argmax())
        assert prediction.class_id == classifier.task.class_ids[int(logits.argmax())]
        assert prediction.model == model


def test_large_logits_keep_probabilities_finite(make_classifier, photo):
    classifier = make_classifier()
    with torch.no_grad():
        classifier.model.head.weight.mul_(1e4)
    probabilities = predict(classifier, photo).probabilities
    assert np.isfinite(probabilities).all() and sum(probabilities) == pytest.approx(1)


def test_the_order_of_classes_follows_the_logits(tiny_classifier, photo):
    for wanted, class_id in enumerate(tiny_classifier.task.class_ids):
        with torch.no_grad():
            tiny_classifier.model.head.weight.zero_()
            tiny_classifier.model.head.bias.copy_(torch.eye(3)[wanted])
        assert predict(tiny_classifier, photo).class_id == class_id


def test_the_latency_says_what_ran_and_how_often(tiny_classifier, photo):
    prediction = predict(tiny_classifier, photo)
    latency = prediction.latency
    assert 3 <= latency.runs <= 10
    assert 0 < latency.q1_ms <= latency.median_ms <= latency.q3_ms
    assert torch.__version__.split("+")[0] in latency.engine
    assert latency.engine.startswith("PyTorch") and "float32" in latency.engine
    assert engine_name(torch.device("cpu")).endswith("CPU")
    assert latency.threads == torch.get_num_threads()
    assert prediction.preprocess_ms > 0


def test_the_time_of_a_pass_is_measured_without_the_warm_up():
    model = Slow(seconds=0.02, first=0.4)
    logits, latency = measure(model, torch.ones(1, 3, 4, 4), min_runs=3, max_runs=5)
    assert 20 <= latency.q1_ms <= latency.median_ms < 200
    assert latency.q3_ms < 200  # the first pass, of 400 ms, is in no quartile
    assert model.passes == latency.runs + 1
    assert logits.tolist() == [[1, 1, 1]]


def test_quartiles_are_those_of_the_passes(monkeypatch):
    seconds = iter([9.0, *(0.001 * n for n in (5, 1, 3, 2, 4))])
    monkeypatch.setattr(
        "kdmodels.predict._timed", lambda model, images: (images, next(seconds) * 1000)
    )
    _, latency = measure(nn.Identity(), torch.ones(1, 3), min_runs=5, max_runs=5)
    assert (latency.q1_ms, latency.median_ms, latency.q3_ms) == pytest.approx((2, 3, 4))


@pytest.mark.parametrize(("budget_ms", "runs"), [(0, 3), (35, 3), (95, 4), (1000, 6)])
def test_slow_networks_run_as_often_as_the_budget_allows(monkeypatch, budget_ms, runs):
    monkeypatch.setattr("kdmodels.predict._timed", lambda model, images: (images, 30.0))
    _, latency = measure(nn.Identity(), torch.ones(1, 3), 3, 6, budget_ms)
    assert latency.runs == runs


def test_preprocessing_is_not_part_of_the_latency(tiny_classifier, photo, monkeypatch):
    slow_input = to_input

    def to_input_slowly(*arguments):
        time.sleep(0.2)
        return slow_input(*arguments)

    monkeypatch.setattr("kdmodels.predict.to_input", to_input_slowly)
    prediction = predict(tiny_classifier, photo)
    assert prediction.preprocess_ms >= 200 > prediction.latency.median_ms


def test_nothing_else_computes_meanwhile_and_the_lock_is_free_afterwards(tiny_classifier, photo):
    held = []
    handle = tiny_classifier.model.register_forward_hook(lambda *_: held.append(COMPUTE.locked()))
    predict(tiny_classifier, photo)
    handle.remove()
    assert held and all(held)
    assert not COMPUTE.locked()


def test_the_lock_is_free_after_a_failure(tiny_classifier, photo):
    def fail(*_):
        raise MemoryError("no room")

    handle = tiny_classifier.model.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        predict(tiny_classifier, photo)
    assert not COMPUTE.locked()
    handle.remove()
    predict(tiny_classifier, photo)


def test_predictions_leave_no_gradients_and_change_no_weights(tiny_classifier, photo):
    before = {k: v.clone() for k, v in tiny_classifier.model.state_dict().items()}
    predict(tiny_classifier, photo)
    after = tiny_classifier.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in tiny_classifier.model.parameters())


def test_a_classifier_is_loaded_with_what_is_known_of_it(tiny_index, photo):
    row = tiny_index.find("histopathology", "ofa_595", "vgg19")
    classifier = Classifier.load(tiny_index, row)
    assert (classifier.task.id, classifier.spec.id) == ("histopathology", "ofa_595")
    assert classifier.checkpoint is row
    assert classifier.parameters == count_parameters(build_model("ofa_595", 5))
    assert classifier.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert len(predict(classifier, photo).probabilities) == 5


def test_images_are_prepared_for_the_task_and_the_model(make_classifier, photo):
    cxr, colour = make_classifier("vgg19", "cxr"), make_classifier("vgg19", "histopathology")
    small = replace(cxr, spec=replace(cxr.spec, input_size=16))
    assert torch.equal(cxr.prepare(photo), to_input(photo, cxr.task, cxr.spec))
    assert not torch.equal(cxr.prepare(photo), colour.prepare(photo))
    assert small.prepare(photo).shape == (1, 3, 16, 16)


def test_whoever_waits_for_the_lock_goes_before_whoever_takes_it_again():
    turns, order = FairLock(), []

    def wait():
        with turns:
            order.append("waiter")

    turns.acquire()
    thread = threading.Thread(target=wait)
    thread.start()
    while not turns._next.locked():  # until it stands in line
        time.sleep(0.01)
    turns.release()
    turns.acquire()
    order.append("holder")
    turns.release()
    thread.join(5)
    assert order == ["waiter", "holder"]
    assert not turns.locked()
