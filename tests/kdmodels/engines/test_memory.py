"""`kdmodels.engines.choice` when memory runs out: smaller batches, the same answers, or one clear sentence.

Memory really runs out: allocations that no machine can serve, and a limit on a process's memory.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdmodels.engines.base import BATCH, EngineError, MemoryShortage
from kdmodels.engines.choice import open_engine
from kdmodels.engines.openvino import OpenVINOEngine, import_openvino
from kdmodels.engines.pytorch import TorchEngine
from tests.kdmodels.engines.alike import same

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("own_cache")


def exhaust_torch():
    torch.empty(10**14)


def exhaust_openvino():
    ov = import_openvino()
    ov.Tensor(ov.Type.f32, [10**5, 10**5, 10**4])


def exhaust_python():
    bytearray(10**15)


def only_up_to(monkeypatch, engine_class, most: int, exhaust) -> list[int]:
    """Let passes over more than `most` images run out of memory; what was tried is listed."""
    run, tried = engine_class._run, []

    def limited(self, images, features):
        tried.append(len(images))
        if len(images) > most:
            exhaust()
        return run(self, images, features)

    monkeypatch.setattr(engine_class, "_run", limited)
    return tried


@pytest.mark.parametrize("exhaust", [exhaust_torch, exhaust_python])
@pytest.mark.parametrize(
    "most, tried", [(4, [8, 4, 4, 4, 1]), (3, [8, 4, *[2] * 6, 1]), (1, [8, 4, 2, *[1] * 13])]
)
def test_torch_halves_its_batch_until_memory_suffices(parts, monkeypatch, most, tried, exhaust):
    model, spec, batch, wanted = parts
    engine = open_engine(model, spec, kind="torch")
    seen = only_up_to(monkeypatch, TorchEngine, most, exhaust)
    assert same(engine(batch, features=True), wanted)
    assert seen == tried
    seen.clear()
    engine(batch)  # it has learned
    assert seen == tried[-len(seen) :] and max(seen) == engine.batch <= most


class Request:
    """An infer request of OpenVINO whose passes may run out of memory."""

    def __init__(self, request, fail):
        self.request, self.fail, self.passes = request, fail, 0

    def infer(self, *args, **kwargs):
        self.passes += 1
        self.fail()
        return self.request.infer(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.request, name)


def test_openvino_goes_on_one_by_one_when_a_full_batch_is_too_much(parts):
    model, spec, batch, wanted = parts
    engine = open_engine(model, spec, kind="openvino", precision="float32")
    engine(batch)  # compiles for a full batch
    full = engine._requests[BATCH] = Request(engine._requests[BATCH], exhaust_openvino)
    for _ in range(2):
        assert same(engine(batch, features=True), wanted)
        assert (engine.kind, engine.note, engine.batch) == ("openvino", None, 1)
    assert full.passes == 1
    assert list(engine._requests) == [1] and engine._converted is None  # memory is given back


def test_openvino_goes_on_one_by_one_when_compiling_a_full_batch_is_too_much(parts, monkeypatch):
    model, spec, batch, wanted = parts
    engine = open_engine(model, spec, kind="openvino", precision="float32")
    monkeypatch.setattr(OpenVINOEngine, "_shaped", lambda self, count: exhaust_openvino())
    assert same(engine(batch, features=True), wanted)
    assert (engine.kind, engine.note, engine.batch) == ("openvino", None, 1)


@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_too_little_memory_for_one_image_is_said_and_is_not_for_ever(parts, monkeypatch, kind):
    model, spec, batch, wanted = parts
    engine = open_engine(model, spec, kind=kind, precision="float32")
    running = TorchEngine if kind == "torch" else OpenVINOEngine
    with monkeypatch.context() as patch:
        only_up_to(patch, running, 0, exhaust_torch if kind == "torch" else exhaust_openvino)
        with pytest.raises(MemoryShortage) as caught:
            engine(batch)
    assert str(caught.value) == (
        f"There is not enough memory to run {engine.name} on one image: close other programs and "
        "try again."
    )
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert isinstance(caught.value, EngineError)  # what the page reports
    assert (engine.kind, engine.batch) == (kind, 1)
    assert same(engine(batch, features=True), wanted)


def test_torch_takes_over_when_memory_does_not_suffice_to_compile(parts, monkeypatch):
    model, spec, batch, wanted = parts
    monkeypatch.setattr(OpenVINOEngine, "_shaped", lambda self, count: exhaust_openvino())
    engine = open_engine(model, spec, kind="openvino")
    assert engine.kind == "torch" and same(engine(batch, features=True), wanted)
    assert engine.note == (
        "There is not enough memory to compile VGG19 for OpenVINO, so PyTorch took over."
    )


WITH_LITTLE_MEMORY = """
import json, resource, sys
import torch
from dataclasses import replace
from torch import nn
from kdmodels.engines.base import EngineError
from kdmodels.engines.choice import open_engine
from kdmodels.models.zoo import MODELS

side, channels = 512, 64  # 64 MiB of features for an image
model = nn.Sequential(nn.Conv2d(3, channels, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(1))
spec = replace(MODELS["vgg19"], input_size=side, cam_layer="1")
model = model.eval().requires_grad_(False)
engine = open_engine(model, spec, kind=sys.argv[1], precision="float32", threads=1)
images = torch.randn(8, 3, side, side)
wanted = torch.cat([engine(images[i:i + 1]).logits for i in range(8)])
status = open("/proc/self/status").read().split("VmSize:")[1]
used = int(status.split()[0]) * 1024

def allow(megabytes):
    limit = used + megabytes * 2**20 if megabytes else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

found = {}
allow(300)
found["close"] = (engine(images).logits - wanted).abs().max().item() < 1e-5
found["batch"] = engine.batch
allow(20)
try:
    engine(images)
    found["said"] = None
except EngineError as error:
    found["said"] = str(error)
allow(None)
found["after"] = (engine(images).logits - wanted).abs().max().item() < 1e-5
found["kind"], found["note"] = engine.kind, engine.note
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_a_process_with_little_memory_works_in_smaller_batches(kind):
    done = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_MEMORY, kind],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["close"] and found["after"] and found["batch"] < BATCH
    assert (found["kind"], found["note"]) == (kind, None)
    if kind == "torch":  # OpenVINO holds the memory for one image from the start
        assert found["said"].startswith("There is not enough memory to run PyTorch")
