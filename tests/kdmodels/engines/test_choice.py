"""`kdmodels.engines.choice`: both engines give the same answers, in the same layout, on the same threads."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdmodels.engines.base import BATCH, EngineError, default_threads
from kdmodels.engines.choice import open_engine
from kdmodels.engines.pytorch import TorchEngine
from kdmodels.models.zoo import MODELS, build_model
from tests.kdmodels.engines.alike import needs_bf16

ROOT = Path(__file__).parents[3]
REAL = dict(MODELS)  # before a fixture puts tiny networks there
SIDE = 64
COUNTS = (1, 5, BATCH)  # alone; in a padded batch; in a full one
pytestmark = pytest.mark.usefixtures("own_cache")


def images(count: int, side: int = SIDE, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


# --- the four architectures ------------------------------------------------------------------


def build(model_id):
    torch.manual_seed(0)
    model = build_model(model_id, 5, SIDE).eval().requires_grad_(False)
    return model, replace(REAL[model_id], input_size=SIDE)


@pytest.fixture(scope="module", params=list(REAL))
def network(request):
    """(module with random weights, its row at 64 px, OpenVINO in float32, what torch says)."""
    model, spec = build(request.param)
    engine = open_engine(model, spec, kind="openvino", precision="float32", threads=1)
    return model, spec, engine, TorchEngine(model, spec)(images(BATCH), features=True)


def distance(found, wanted) -> tuple[float, float]:
    """Largest change of logits in units of their spread, and of features against the largest."""
    logits = (found.logits - wanted.logits).abs().max() / wanted.logits.std()
    features = (found.features - wanted.features).abs().max() / wanted.features.abs().max()
    return logits.item(), features.item()


def first(outputs, count):
    return replace(outputs, logits=outputs.logits[:count], features=outputs.features[:count])


def test_openvino_agrees_with_torch_at_every_size_of_batch(network):
    _, _, engine, wanted = network
    assert (engine.kind, engine.precision, engine.note) == ("openvino", "float32", None)
    spread, largest = wanted.logits.std(), wanted.features.abs().max()
    for count in COUNTS:
        found = engine(images(BATCH)[:count], features=True)
        assert found.features.shape == (count, *wanted.features.shape[1:])
        assert (found.logits - wanted.logits[:count]).abs().max() <= 2e-4 * spread
        assert (found.features - wanted.features[:count]).abs().max() <= 2e-4 * largest
        plain = engine(images(BATCH)[:count])
        assert plain.features is None and torch.equal(plain.logits, found.logits)


@needs_bf16
def test_bf16_of_openvino_is_as_close_as_bf16_of_torch(network):
    """Both have 8 bits of precision; what that does depends on the network and its weights."""
    model, spec, _, wanted = network
    rounded = TorchEngine(model, spec, "bf16")(images(BATCH), features=True)
    engine = open_engine(model, spec, kind="openvino", precision="bf16", threads=1)
    assert (engine.kind, engine.precision, engine.note) == ("openvino", "bf16", None)
    allowed = distance(rounded, wanted)
    for count in COUNTS:
        found = engine(images(BATCH)[:count], features=True)
        assert found.logits.dtype == found.features.dtype == torch.float32
        for change, limit in zip(distance(found, first(wanted, count)), allowed, strict=True):
            assert change <= 3 * limit
        assert distance(found, first(wanted, count))[1] > 1e-4  # it did compute in bf16


@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_features_are_what_the_layer_of_score_cam_gives(network, kind):
    model, spec, openvino, _ = network
    seen = []
    layer = model.get_submodule(spec.cam_layer)
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(images(2))
    handle.remove()
    (raw,) = seen
    if spec.id == "autoformerv2_t":  # the one that keeps its channels last
        raw = raw.permute(0, 3, 1, 2)
    engine = openvino if kind == "openvino" else open_engine(model, spec, kind=kind)
    found = engine(images(2), features=True)
    assert found.features.shape == raw.shape == (2, spec.cam_channels, *raw.shape[2:])
    assert found.features.dtype == found.logits.dtype == torch.float32
    assert (found.features - raw).abs().max() <= 2e-4 * raw.abs().max()
    assert not layer._forward_hooks


# --- several at once -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_who_asks_at_the_same_time_gets_the_own_answer(make_classifier, kind):
    """A request of OpenVINO has one set of output tensors, which the next pass overwrites."""
    engine = make_classifier(kind=kind).engine
    batches = [images(BATCH, 32, seed) for seed in range(4)]
    wanted = [engine(batch, features=True) for batch in batches]
    wrong, right = [], []

    def work(number):
        for _ in range(20):
            found = engine(batches[number], features=True)
            same = torch.equal(found.logits, wanted[number].logits)
            same &= torch.equal(found.features, wanted[number].features)
            (right if same else wrong).append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(right) == 80 and not wrong


# --- threads ---------------------------------------------------------------------------------


def watch_threads(model) -> list[int]:
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(torch.get_num_threads()))
    return seen


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_torch_computes_on_the_threads_asked_for_and_gives_them_back(
    make_classifier, three_threads
):
    classifier = make_classifier()
    seen = watch_threads(classifier.model)
    engine = open_engine(classifier.model, classifier.spec, kind="torch", threads=2)
    engine(images(2, 32))
    assert engine.threads == 2 and seen == [2]
    assert torch.get_num_threads() == 3
    with pytest.raises(EngineError):
        engine(images(1, 32).to(torch.complex64))
    assert torch.get_num_threads() == 3


def test_openvino_leaves_the_threads_of_torch_alone(make_classifier, three_threads):
    classifier = make_classifier()
    engine = open_engine(classifier.model, classifier.spec, kind="openvino", threads=1)
    engine(images(BATCH, 32))
    assert (engine.kind, engine.threads) == ("openvino", 1)
    assert torch.get_num_threads() == 3
    usual = open_engine(classifier.model, classifier.spec, kind="openvino")
    assert usual.threads == default_threads() <= 3


ONE_CORE = """
import json, os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import torch
from dataclasses import replace
from kdmodels.engines.choice import open_engine
from kdmodels.models.zoo import MODELS, build_model

torch.manual_seed(0)
model = build_model("ofa_595", 3).eval().requires_grad_(False)
spec = replace(MODELS["ofa_595"], input_size=64)
images = torch.randn(8, 3, 64, 64)
found = {}
for kind in ("torch", "openvino"):
    engine = open_engine(model, spec, kind=kind, precision="float32")
    logits = engine(images).logits
    found[kind] = [engine.kind, engine.threads, (logits / logits.std()).tolist()]
print(json.dumps(found))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no process")
def test_one_core_is_enough():
    done = subprocess.run(
        [sys.executable, "-c", ONE_CORE], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [found[kind][:2] for kind in found] == [["torch", 1], ["openvino", 1]]
    logits = [torch.tensor(found[kind][2]) for kind in found]
    torch.testing.assert_close(*logits, atol=2e-4, rtol=0)


# --- what the caller gets wrong --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["torch", "openvino"])
@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3)])
def test_what_is_no_batch_of_images_is_refused(make_classifier, kind, shape):
    engine = make_classifier(kind=kind).engine
    with pytest.raises(ValueError, match=r"Images must be \(N, 3, S, S\) with N >= 1, not"):
        engine(torch.zeros(shape))
    assert engine.kind == kind and engine.note is None  # no reason to change the engine


def test_an_unknown_engine_or_precision_is_named(make_classifier, monkeypatch):
    classifier = make_classifier()
    for wish, sentence in (
        ({"kind": "onnx"}, "There is no engine 'onnx': set KD_ENGINE to torch or openvino."),
        ({"precision": "int8"}, "There is no precision 'int8': choose float32 or bf16."),
    ):
        with pytest.raises(EngineError) as caught:
            open_engine(classifier.model, classifier.spec, **wish)
        assert str(caught.value) == sentence
    monkeypatch.setenv("KD_ENGINE", "tensorrt")
    with pytest.raises(EngineError, match="no engine 'tensorrt'"):
        open_engine(classifier.model, classifier.spec)


def test_the_environment_chooses_the_engine(make_classifier, monkeypatch):
    classifier = make_classifier()
    for kind in ("openvino", "torch"):
        monkeypatch.setenv("KD_ENGINE", kind)
        assert open_engine(classifier.model, classifier.spec).kind == kind
    monkeypatch.delenv("KD_ENGINE")
    usual = "torch" if torch.cuda.is_available() else "openvino"
    assert open_engine(classifier.model, classifier.spec).kind == usual
