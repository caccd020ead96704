"""`kdmodels.predict`: the answer is the network's own, and the time is the network's alone."""

import gc
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from kdmodels.engines.base import Engine, EngineError, Outputs, Size
from kdmodels.images.preprocess import to_input
from kdmodels.models.checkpoints import CheckpointError
from kdmodels.models.zoo import build_model, count_macs, count_parameters
from kdmodels.predict import (
    COMPUTE,
    Classifier,
    FairLock,
    on_equal_terms,
    predict,
    time_passes,
    warm_up,
)

IMAGE = torch.ones(1, 3, 4, 4)


class Slow(Engine):
    """Sleeps in each pass, longest in the first one."""

    kind, name, precision, threads, size = "slow", "sleep", "float32", 1, Size(0, 0)

    def __init__(self, seconds, first=0.0):
        super().__init__()
        self.seconds, self.first, self.passes = seconds, first, 0

    def _run(self, images, features):
        self.passes += 1
        time.sleep(self.first if self.passes == 1 and self.first else self.seconds)
        return Outputs(images.mean((2, 3)))


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


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_temperature_changes_how_sure_the_answer_is_and_nothing_else(
    tiny_classifier, photo, temperature
):
    plain = predict(tiny_classifier, photo)
    row = replace(tiny_classifier.checkpoint, temperature=temperature)
    prediction = predict(replace(tiny_classifier, checkpoint=row), photo)
    assert prediction.logits == pytest.approx(plain.logits, rel=1e-6)
    assert prediction.index == plain.index
    powers = np.exp(np.array(prediction.logits) / temperature)
    assert prediction.probabilities == pytest.approx(powers / powers.sum(), rel=1e-9)
    assert (max(prediction.probabilities) > max(plain.probabilities)) == (temperature < 1)


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
    assert latency.runs >= 10 or latency.median_ms > 50  # on a machine under load
    assert 0 < latency.q1_ms <= latency.median_ms <= latency.q3_ms
    assert torch.__version__.split("+")[0] in latency.engine
    assert latency.engine.startswith("PyTorch") and "float32" in latency.engine
    assert latency.threads == tiny_classifier.engine.threads
    assert latency.note is None
    assert prediction.preprocess_ms > 0


def test_the_time_of_a_pass_is_measured_without_the_warm_up():
    engine = Slow(seconds=0.02, first=0.4)
    logits, latency = time_passes(engine, IMAGE, min_runs=3)
    assert 20 <= latency.q1_ms <= latency.median_ms < 200
    assert latency.q3_ms < 200  # the first pass, of 400 ms, is in no quartile
    assert engine.passes == latency.runs + 1
    assert logits.tolist() == [[1, 1, 1]]
    assert (latency.engine, latency.threads) == ("sleep", 1)


def test_quartiles_are_those_of_the_passes(monkeypatch):
    seconds = iter([9.0, *(0.001 * n for n in (5, 1, 3, 2, 4))])
    monkeypatch.setattr(
        "kdmodels.predict._timed", lambda engine, images: (images, next(seconds) * 1000)
    )
    _, latency = time_passes(Slow(0), IMAGE, min_runs=5, min_ms=0, max_ms=1e6)
    assert (latency.q1_ms, latency.median_ms, latency.q3_ms) == pytest.approx((2, 3, 4))


@pytest.mark.parametrize(
    ("pass_ms", "runs"),
    [(0.5, 100), (2, 25), (5, 10), (50, 10), (90, 10), (150, 6), (300, 3), (600, 1), (5000, 1)],
)
def test_ten_runs_or_one_second(monkeypatch, pass_ms, runs):
    """Of quick networks more than ten, for steadier quartiles; the warm-up is in the second."""
    monkeypatch.setattr("kdmodels.predict._timed", lambda engine, images: (images, float(pass_ms)))
    _, latency = time_passes(Slow(0), IMAGE)
    assert latency.runs == runs


@pytest.mark.parametrize("passes", [0, 1, 4])
def test_a_request_that_no_longer_counts_stops_after_the_pass_at_hand(passes):
    class Superseded(Exception):
        pass

    engine = Slow(0.01)

    def check():
        if engine.passes == passes:
            raise Superseded

    with pytest.raises(Superseded):
        time_passes(engine, IMAGE, check=check)
    assert engine.passes == passes


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
    with pytest.raises(EngineError, match=r"not enough memory to run PyTorch .* on one image"):
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
    assert classifier.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert len(predict(classifier, photo).probabilities) == 5
    model = build_model("ofa_595", 5)
    assert classifier.size == Size(count_parameters(model), count_macs(model, 32))


def test_a_damaged_file_is_refused_before_anything_is_opened(tiny_index):
    row = tiny_index.find("cxr", "ofa_595", "vgg19")
    with (tiny_index.folder / row.file).open("r+b") as file:
        file.seek(200)
        file.write(b"damage")
    with pytest.raises(CheckpointError, match="was changed or damaged"):
        Classifier.load(tiny_index, row)


def test_the_torch_network_is_loaded_once_for_all_who_want_it(tiny_index, photo, monkeypatch):
    loads, load = [], type(tiny_index).load
    monkeypatch.setattr(
        type(tiny_index), "load", lambda self, row: loads.append(row) or load(self, row)
    )
    classifier = Classifier.load(tiny_index, tiny_index.find("cxr", "ofa_595", "vgg19"))
    assert loads == []
    started, models = threading.Barrier(3), []

    def want(what):
        started.wait(10)
        models.append(what())

    wishes = (lambda: classifier.model, lambda: classifier.engine.model, lambda: classifier.model)
    threads = [threading.Thread(target=want, args=(wish,)) for wish in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(loads) == 1 and len({id(model) for model in models}) == 1


def test_an_engine_that_needs_the_torch_network_no_more_does_not_keep_it(
    tiny_index, photo, monkeypatch, tmp_path
):
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "cache"))
    row = tiny_index.find("cxr", "ofa_595", "vgg19")
    classifier = replace(Classifier.load(tiny_index, row), kind="openvino")
    seen, load = [], classifier.source

    def watched():
        model = load()
        seen.append(weakref.ref(model))
        return model

    classifier = replace(classifier, source=watched)
    warm_up(classifier)
    assert classifier.engine.kind == "openvino", classifier.engine.note
    assert seen
    gc.collect()
    assert [model() for model in seen] == [None] * len(seen)
    again = replace(classifier, source=watched)
    before = len(seen)
    assert predict(again, photo).logits == predict(classifier, photo).logits
    assert len(seen) == before, "a compiled network was at hand, yet the torch network was loaded"


def test_teacher_and_student_run_on_equal_terms(make_classifier):
    teacher = make_classifier("vgg19", kind="openvino")
    student = replace(make_classifier("ofa_595", kind="openvino"), precision="float32", threads=1)
    assert teacher.engine.kind == "openvino", teacher.engine.note
    first, second = on_equal_terms(teacher, student)
    assert first.engine.name == second.engine.name
    assert first.engine.threads == second.engine.threads == 1
    assert (first.engine.kind, first.engine.precision) == ("openvino", "float32")
    assert first.engine is teacher.engine or teacher.engine.name != first.engine.name
    assert second.engine is student.engine
    first, second = on_equal_terms(teacher, make_classifier("ofa_595", kind="torch"))
    assert first.engine.kind == second.engine.kind == "torch"
    assert not COMPUTE.locked()


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
