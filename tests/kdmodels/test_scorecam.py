"""`kdmodels.scorecam`: torchcam's Score-CAM, the equation written out, and nothing left behind."""

import copy
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchcam.methods import ScoreCAM

from kdmodels.predict import COMPUTE, Classifier, predict
from kdmodels.scorecam import explain
from kdmodels.tasks import get_task
from kdmodels.zoo import MODELS, build_model

HOOKS = [
    name for name in vars(nn.Module()) if name.startswith("_") and name.endswith("_hooks")
]  # forward, backward, state dict ...


def hooks_of(model):
    return sum(len(getattr(module, name)) for module in model.modules() for name in HOOKS)


def written_out(classifier, image, class_index):
    """Score-CAM from its equation in float64: (h, w), scaled to [0, 1].

    w = softmax over channels k of (y(mask_k * x) - y(x)), map = ReLU(sum of w_k A_k), where mask_k
    is A_k scaled to [0, 1] and enlarged bilinearly, and y the logit of the class.
    """
    model, spec = copy.deepcopy(classifier.model).double(), classifier.spec
    images, kept = classifier.prepare(image).double(), []
    handle = model.get_submodule(spec.cam_layer).register_forward_hook(lambda *a: kept.append(a[2]))
    with torch.no_grad():
        baseline = model(images)[0, class_index]
        handle.remove()
        maps = (spec.cam_reshape(kept[0]) if spec.cam_reshape else kept[0])[0]
        rises = []
        for feature_map in maps:
            low, high = feature_map.min(), feature_map.max()
            mask = (feature_map - low) / (high - low) if high > low else feature_map * 0
            mask = nn.functional.interpolate(mask[None, None], images.shape[2:], mode="bilinear")
            rises.append(model(mask * images)[0, class_index] - baseline)
        weights = torch.stack(rises).softmax(0)
        cam = torch.einsum("k,kij->ij", weights, maps).relu()
    return ((cam - cam.min()) / (cam.max() - cam.min())).numpy()


def all_classes(classifier):
    return list(enumerate(classifier.task.class_ids))


@pytest.mark.parametrize("task", ["cxr", "histopathology"])
@pytest.mark.parametrize("model", list(MODELS))  # autoformerv2_t has its channels at the end
def test_every_class_gets_the_map_of_the_equation(make_classifier, photo, model, task):
    classifier = make_classifier(model, task)
    maps = []
    for class_index, class_id in all_classes(classifier):
        heatmap = explain(classifier, photo, class_id)
        assert heatmap.shape == (8, 8) and heatmap.dtype == np.float32
        assert (heatmap.min(), heatmap.max()) == (0, 1)
        np.testing.assert_allclose(heatmap, written_out(classifier, photo, class_index), atol=1e-4)
        maps.append(heatmap)
    differences = [np.abs(one - other).max() for one in maps for other in maps if one is not other]
    assert min(differences) > 0.01  # each class has its own


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_the_map_is_that_of_torchcam(make_classifier, photo, batch_size):
    for model in ("visformer_s", "autoformerv2_t"):
        classifier = make_classifier(model)
        images = classifier.prepare(photo)
        with ScoreCAM(
            classifier.model,
            "features",
            input_shape=tuple(images.shape[1:]),
            reshape_transform=classifier.spec.cam_reshape,
        ) as extractor:
            classifier.model(images)
            (wanted,) = extractor(1)
        heatmap = explain(classifier, photo, "pneumonia", batch_size=batch_size)
        np.testing.assert_allclose(heatmap, wanted[0].numpy(), atol=1e-5)
        assert np.corrcoef(heatmap.ravel(), wanted.numpy().ravel())[0, 1] > 0.99999


def test_evidence_is_shown_where_it_is(make_classifier):
    """A network whose first class counts bright pixels must point at the only bright corner."""
    classifier = make_classifier()
    with torch.no_grad():
        for parameter in classifier.model.parameters():
            parameter.zero_()
        stem, norm = classifier.model.stem
        stem.weight[:, :, 2, 2] = torch.linspace(0.5, 1.5, 6)[:, None]
        norm.weight.fill_(1)
        norm.running_mean.zero_()
        norm.running_var.fill_(1)
        for channel in range(6):
            classifier.model.conv.weight[channel, channel, 1, 1] = 1
        classifier.model.head.weight[0] = 1
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[40:56, 8:24] = 255
    heatmap = explain(classifier, Image.fromarray(pixels), "covid")
    hot = np.argwhere(heatmap > 0.5)
    assert hot[:, 0].min() >= 5 and hot[:, 1].max() <= 3
    assert heatmap[:4].max() == 0 and heatmap[:, 4:].max() == 0


def flat_net(classifier, how):
    with torch.no_grad():
        if how == "zero weights":
            for parameter in classifier.model.parameters():
                parameter.zero_()
        elif how == "constant features":
            classifier.model.conv.weight.zero_()
            classifier.model.conv.bias.fill_(2.5)
        elif how == "nothing after the ReLU":
            classifier.model.conv.weight.zero_()
            classifier.model.conv.bias.fill_(-1)
        elif how == "not a number":
            classifier.model.conv.bias.fill_(float("nan"))


@pytest.mark.parametrize(
    "how", ["zero weights", "constant features", "nothing after the ReLU", "not a number"]
)
@pytest.mark.filterwarnings("error")
def test_a_map_that_shows_nothing_is_all_zeros(make_classifier, photo, how):
    for model in ("ofa_595", "autoformerv2_t"):
        classifier = make_classifier(model)
        flat_net(classifier, how)
        heatmap = explain(classifier, photo, "normal")
        assert heatmap.dtype == np.float32
        np.testing.assert_array_equal(heatmap, np.zeros((8, 8)))


def test_a_constant_image_without_padding_shows_nothing(make_classifier):
    classifier = make_classifier()
    classifier.model.stem[0] = nn.Conv2d(3, 6, 4, 4)
    classifier.model.conv = nn.Conv2d(6, 6, 1)
    heatmap = explain(classifier, Image.new("RGB", (64, 64), "grey"), "normal")
    np.testing.assert_array_equal(heatmap, np.zeros((8, 8)))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 6, 32])
def test_progress_counts_channels_and_ends_with_all_of_them(tiny_classifier, photo, batch_size):
    progress = []
    explain(tiny_classifier, photo, "covid", lambda *p: progress.append(p), batch_size)
    done = [done for done, _ in progress]
    assert {total for _, total in progress} == {6}
    assert done == sorted(done) and done[0] == 0
    assert done[2:] == [min(n, 6) for n in range(batch_size, 6 + batch_size, batch_size)]


def test_an_unknown_class_is_answered_with_the_known_ones(tiny_classifier, photo):
    sentence = r"There is no class 'flu'; the classes are: covid, pneumonia, normal\."
    with pytest.raises(ValueError, match=sentence):
        explain(tiny_classifier, photo, "flu")
    assert not COMPUTE.locked()


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("model", ["ofa_595", "autoformerv2_t"])
@pytest.mark.parametrize("when", [None, 0, 1, 2, 4])
def test_a_cancelled_explanation_leaves_nothing_behind(make_classifier, photo, model, when):
    classifier = make_classifier(model)
    before, calls = hooks_of(classifier.model), []
    answer = predict(classifier, photo).logits

    def report(done, total):
        assert COMPUTE.locked() and hooks_of(classifier.model) > before
        calls.append(done)
        if len(calls) - 1 == when:
            raise Cancelled

    if when is None:
        explain(classifier, photo, "normal", report, batch_size=2)
    else:
        with pytest.raises(Cancelled):
            explain(classifier, photo, "normal", report, batch_size=2)
    assert hooks_of(classifier.model) == before
    assert not COMPUTE.locked()
    assert not classifier.model.training
    assert predict(classifier, photo).logits == answer


@pytest.mark.parametrize("failing_pass", [1, 2, 3])
def test_an_error_within_the_network_leaves_nothing_behind(tiny_classifier, photo, failing_pass):
    passes = []

    def fail(module, images):
        passes.append(1)
        if len(passes) == failing_pass:
            raise MemoryError("no room")

    handle = tiny_classifier.model.conv.register_forward_pre_hook(fail)
    before = hooks_of(tiny_classifier.model)
    with pytest.raises(MemoryError, match="no room"):
        explain(tiny_classifier, photo, "normal", batch_size=2)
    assert hooks_of(tiny_classifier.model) == before
    assert not COMPUTE.locked()
    handle.remove()
    assert explain(tiny_classifier, photo, "normal").max() == 1


def test_explaining_changes_no_weights_and_needs_no_gradients(tiny_classifier, photo):
    before = {k: v.clone() for k, v in tiny_classifier.model.state_dict().items()}
    explain(tiny_classifier, photo, "normal")
    after = tiny_classifier.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in tiny_classifier.model.parameters())


def run_beside(work, results):
    """Start `work` in a thread that stands in line for the lock when this returns."""
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    for _ in range(1000):
        if COMPUTE._next.locked():
            return thread
        time.sleep(0.01)
    pytest.fail("the thread never came to wait for its turn")


def test_a_prediction_is_answered_while_an_explanation_runs(tiny_classifier, photo):
    """Of the same network and another image; neither may show in the other's result."""
    other = photo.transpose(Image.Transpose.ROTATE_180)
    alone = explain(tiny_classifier, photo, "covid", batch_size=1)
    wanted = predict(tiny_classifier, other).logits
    progress, answers, threads = [], [], []

    def report(done, total):
        progress.append(done)
        if len(progress) in (1, 2, 4):
            work = lambda: predict(tiny_classifier, other).logits  # noqa: E731
            threads.append(run_beside(work, answers))
        if done == total - 1:  # those who had the lock by now need it no more to finish
            for thread in threads:
                thread.join(5)
            assert len(answers) == 3, "a prediction had to wait for the whole explanation"

    beside = explain(tiny_classifier, photo, "covid", report, batch_size=1)
    assert answers == [pytest.approx(wanted, rel=1e-6)] * 3
    assert progress == [0, 0, 1, 2, 3, 4, 5, 6]  # passes of predictions do not count
    np.testing.assert_array_equal(beside, alone)


def test_two_explanations_of_one_network_do_not_mix(tiny_classifier, photo):
    other = photo.transpose(Image.Transpose.ROTATE_180)
    wanted = [
        explain(tiny_classifier, photo, "covid", batch_size=1),
        explain(tiny_classifier, other, "normal", batch_size=1),
    ]
    started, order = threading.Barrier(2), {"first": [], "second": []}
    results = {}

    def work(name, image, class_id):
        def report(done, total):
            order[name].append(time.perf_counter())
            time.sleep(0.02)

        started.wait(10)
        results[name] = explain(tiny_classifier, image, class_id, report, batch_size=1)

    threads = [
        threading.Thread(target=work, args=("first", photo, "covid"), daemon=True),
        threading.Thread(target=work, args=("second", other, "normal"), daemon=True),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    np.testing.assert_array_equal(results["first"], wanted[0])
    np.testing.assert_array_equal(results["second"], wanted[1])
    assert hooks_of(tiny_classifier.model) == 0
    first, second = order["first"], order["second"]
    assert first[0] < second[-1] and second[0] < first[-1], "they ran one after the other"


@pytest.mark.parametrize(
    ("model_id", "side", "shape"),
    [
        ("vgg19", 64, (4, 4)),
        ("visformer_s", 96, (3, 3)),
        ("autoformerv2_t", 96, (3, 3)),
        ("ofa_595", 128, (4, 4)),
    ],
)
def test_real_architectures_are_explained(model_id, side, shape, photo):
    """With a small input and the first 24 channels, for the sake of time.

    Random weights may give no positive evidence at all, hence the ReLU.
    """
    torch.manual_seed(0)
    full = MODELS[model_id]
    reshape = full.cam_reshape or (lambda features: features)
    spec = replace(
        full,
        input_size=side,
        cam_channels=24,
        cam_reshape=lambda features: reshape(features)[:, :24].relu(),
    )
    model = build_model(model_id, 3, input_size=side).eval().requires_grad_(False)
    model = model.to(memory_format=torch.channels_last)
    classifier = Classifier(get_task("cxr"), spec, None, model)
    progress, before = [], hooks_of(model)
    heatmap = explain(classifier, photo, "normal", lambda *p: progress.append(p), batch_size=8)
    assert heatmap.shape == shape and np.isfinite(heatmap).all()
    assert (heatmap.min(), heatmap.max()) == (0, 1)
    assert progress == [(0, 24), (0, 24), (8, 24), (16, 24), (24, 24)]
    assert hooks_of(model) == before and not model.training
