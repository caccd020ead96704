"""`kdmodels.engines.choice` where something is missing or fails: it goes on, and says what it did instead.

The faults are OpenVINO's own: it cannot be imported, is given what it refuses, or is forbidden the
instructions that it wants. What happens when memory runs out is in `test_engine_memory`.
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdmodels.engines.base import EngineError
from kdmodels.engines.choice import open_engine
from kdmodels.engines.openvino import import_openvino
from tests.kdmodels.engines.alike import needs_bf16, same

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("own_cache")


# --- OpenVINO missing or failing -------------------------------------------------------------


def without_openvino(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # `import openvino` raises


def without_its_cpu_plugin(monkeypatch):
    ov = import_openvino()

    class Core(ov.Core):
        def get_property(self, *args):
            return super().get_property("NPU7", "INFERENCE_PRECISION_HINT")

    monkeypatch.setattr(ov, "Core", Core)


def unable_to_convert(monkeypatch):
    ov = import_openvino()
    monkeypatch.setattr(ov, "convert_model", lambda *a, **k: ov.PartialShape("nonsense"))


def unable_to_compile(monkeypatch):
    ov = import_openvino()

    class Core(ov.Core):
        def compile_model(self, network, device, config):
            return super().compile_model(network, device, {"NO_SUCH_SETTING": 1})

    monkeypatch.setattr(ov, "Core", Core)


FAULTS = {
    without_openvino: "OpenVINO cannot be used (import of openvino halted",
    without_its_cpu_plugin: "OpenVINO cannot be used (",
    unable_to_convert: "OpenVINO cannot compile VGG19 (",
    unable_to_compile: "OpenVINO cannot compile VGG19 (",
}


@pytest.mark.parametrize("break_it", list(FAULTS), ids=lambda fault: fault.__name__)
def test_torch_takes_over_where_openvino_cannot_be_opened(parts, monkeypatch, caplog, break_it):
    model, spec, batch, wanted = parts
    break_it(monkeypatch)
    with caplog.at_level(logging.WARNING):
        engine = open_engine(model, spec, "ab" * 32, kind="openvino")
    assert (engine.kind, engine.precision) == ("torch", "float32")
    assert "OpenVINO" not in engine.name
    assert engine.note.startswith(FAULTS[break_it])
    assert engine.note.endswith("), so PyTorch took over.") and engine.note.count(". ") == 0
    assert engine.note.split(", so")[0] in caplog.text
    found = engine(batch, features=True)
    assert torch.equal(found.logits, wanted.logits)
    assert torch.equal(found.features, wanted.features)


def fail_to_infer(engine, monkeypatch):
    def fail(*args):
        engine._core.get_property("NPU7", "FULL_DEVICE_NAME")  # an error of OpenVINO's own

    monkeypatch.setattr("kdmodels.engines.openvino._infer", fail)


def fail_to_compile(engine, monkeypatch):
    monkeypatch.setattr(engine, "_config", lambda: {"NO_SUCH_SETTING": 1})


@pytest.mark.parametrize(
    "break_it, told",
    [
        (fail_to_infer, ", float32, CPU failed while running ("),
        (fail_to_compile, "OpenVINO cannot compile VGG19 ("),  # for a full batch, when it comes
    ],
)
def test_where_openvino_fails_later_one_sentence_says_what_to_do(
    parts, monkeypatch, break_it, told
):
    model, spec, batch, _ = parts
    engine = open_engine(model, spec, kind="openvino", precision="float32", threads=1)
    alone = engine(batch[:1]).logits
    with monkeypatch.context() as patch:
        break_it(engine, patch)
        for _ in range(2):
            with pytest.raises(EngineError) as caught:
                engine(batch, features=True)
            said = str(caught.value)
            assert told in said and said.count(". ") == 0
            assert said.endswith("; set KD_ENGINE=torch and start again to go on with PyTorch.")
    assert torch.equal(engine(batch[:1]).logits, alone)  # and it is not for ever


def test_a_pass_of_torch_that_fails_is_told_in_one_sentence(parts):
    model, spec, batch, wanted = parts
    engine = open_engine(model, spec, kind="torch")
    handle = model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(
        EngineError, match=r"^PyTorch .* failed while running \(division by zero\); "
    ):
        engine(batch)
    handle.remove()
    assert torch.equal(engine(batch).logits, wanted.logits)


def test_a_mistake_of_the_caller_is_no_failure_of_openvino(parts):
    model, spec, *_ = parts
    engine = open_engine(model, spec, kind="openvino")
    with pytest.raises(ValueError, match="VGG19 takes images of 32 px here, not 32 x 40"):
        engine(torch.zeros(2, 3, 32, 40))
    assert (engine.kind, engine.note) == ("openvino", None)


# --- processors with less --------------------------------------------------------------------

WITH_FEWER_INSTRUCTIONS = """
import json, sys
import torch
from dataclasses import replace
from kdmodels.engines.choice import open_engine
from kdmodels.engines.pytorch import TorchEngine
from kdmodels.models.zoo import MODELS, build_model

torch.manual_seed(0)
model = build_model("ofa_595", 3).eval().requires_grad_(False)
spec = replace(MODELS["ofa_595"], input_size=64)
images = torch.randn(8, 3, 64, 64)
wanted = TorchEngine(model, spec)(images).logits
engine = open_engine(model, spec, kind="openvino", precision=sys.argv[1] or None)
network = engine._requests[1].get_compiled_model().get_runtime_model()
change = (engine(images).logits - wanted).abs().max() / wanted.std()
print(json.dumps({
    "kind": engine.kind, "precision": engine.precision, "note": engine.note,
    "change": change.item(),
    "kernels": sorted({op.get_rt_info()["primitiveType"].astype(str) for op in network.get_ops()}),
}))
"""
LESS = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def in_a_process(program: str, *arguments: str, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_without_avx512_it_runs_in_float32():
    """oneDNN, by which both engines convolve, keeps to a ceiling on instructions where told to."""
    found = in_a_process(WITH_FEWER_INSTRUCTIONS, "float32", **LESS)
    convolutions = [kernel for kernel in found["kernels"] if "conv" in kernel]
    assert convolutions and not [kernel for kernel in convolutions if "avx512" in kernel]
    assert (found["kind"], found["precision"], found["note"]) == ("openvino", "float32", None)
    assert found["change"] < 2e-4


@needs_bf16
@pytest.mark.parametrize("wish", ["", "bf16"])
def test_where_bf16_cannot_be_compiled_openvino_runs_in_float32(wish):
    """OpenVINO names bf16 by what the processor has, and then is refused the kernels for it."""
    found = in_a_process(WITH_FEWER_INSTRUCTIONS, wish, **LESS)
    assert (found["kind"], found["precision"]) == ("openvino", "float32")
    assert found["note"].startswith("OpenVINO cannot compile it in bf16 (")
    assert found["note"].endswith(" So it runs in float32.") and found["change"] < 2e-4


def test_without_bf16_the_usual_precision_is_float32(parts, monkeypatch):
    """A processor without it has OpenVINO name float32 itself, as here when it is told to."""
    model, spec, batch, wanted = parts
    ov = import_openvino()

    class Core(ov.Core):
        def __init__(self):
            super().__init__()
            self.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(ov, "Core", Core)
    engine = open_engine(model, spec, kind="openvino")
    assert (engine.kind, engine.precision, engine.note) == ("openvino", "float32", None)
    assert same(engine(batch, features=True), wanted)


# --- cache -----------------------------------------------------------------------------------


def absent(folder, first):
    assert not folder.exists()


def a_file(folder, first):
    folder.write_text("not a folder")


def unwritable(folder, first):
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("root may write everywhere")


def damaged(folder, first):
    first()
    files = list(folder.iterdir())
    assert len(files) == 4  # networks for one image and for eight, and what they are
    for file in files:
        file.write_bytes(file.read_bytes()[::-1])


@pytest.mark.parametrize("prepare", [absent, a_file, unwritable, damaged])
def test_whatever_the_cache_folder_is_the_answers_are_the_same(
    parts, monkeypatch, tmp_path, prepare
):
    model, spec, batch, wanted = parts
    folder = tmp_path / "deep" / "cache"
    folder.parent.mkdir()
    monkeypatch.setenv("KD_CACHE", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run():
        engine = open_engine(model, spec, "ab" * 32, kind="openvino", precision="float32")
        assert (engine.kind, engine.note) == ("openvino", None)
        assert same(engine(batch, features=True), wanted)

    prepare(folder, run)
    for _ in range(2):
        run()


def test_a_cache_folder_that_vanishes_meanwhile_is_no_fault(parts, own_cache):
    model, spec, batch, wanted = parts
    engine = open_engine(model, spec, "ab" * 32, kind="openvino", precision="float32")
    for file in own_cache.iterdir():
        file.unlink()
    own_cache.rmdir()
    assert same(engine(batch, features=True), wanted)  # compiles for a full batch
    assert (engine.kind, engine.note) == ("openvino", None)
