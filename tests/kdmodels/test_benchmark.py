"""`kdmodels.benchmark`: what it says was measured was measured, on the engine that it names."""

import csv
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kdmodels.__main__ import main
from kdmodels.benchmark.command import chosen, usable_choices
from kdmodels.benchmark.passes import (
    CHOICES,
    Job,
    in_a_process,
    measure_all,
    memory,
    open_choice,
    start_with_empty_cache,
)
from kdmodels.benchmark.tables import merged, ratios, table
from kdmodels.engines.base import EngineError
from kdmodels.engines.openvino import OpenVINOEngine
from kdmodels.engines.pytorch import TorchEngine
from kdmodels.models.checkpoints import CheckpointError, Index
from kdmodels.models.zoo import build_model
from tests.conftest import unstored
from tests.kdmodels.engines.alike import HAS_BF16

ROOT = Path(__file__).parents[2]
SUITABLE = [name for name in CHOICES if name != "openvino-bf16" or HAS_BF16]


@pytest.fixture
def index(tiny_index, monkeypatch) -> Index:
    """Tiny checkpoints, as the ones that are stored; what a measurement sets is put back."""
    monkeypatch.setattr(Index, "read", lambda: tiny_index)
    monkeypatch.setenv("KD_CACHE", os.environ.get("KD_CACHE", ""))
    threads = torch.get_num_threads()
    yield tiny_index
    torch.set_num_threads(threads)


def job_of(index: Index, tmp_path: Path, engine: str, **kwargs) -> Job:
    checkpoint = index.find("cxr", "vgg19")
    wanted = {"threads": 1, "batch": 12, "seconds": 0.1, "cache": str(tmp_path / "cache")}
    return Job(index, checkpoint, engine, **wanted | kwargs)


# --- one measurement -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUITABLE)
def test_each_engine_is_the_one_that_is_named(index, tmp_path, monkeypatch, name):
    job, choice = job_of(index, tmp_path, name), CHOICES[name]
    monkeypatch.setenv("KD_CACHE", job.cache)
    engine = open_choice(job)
    assert (engine.kind, engine.precision, engine.threads) == (choice.kind, choice.precision, 1)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = index.load(job.checkpoint)(images)
    near = {"float32": 1e-4, "bf16": 0.1}[choice.precision]
    found = engine(images).logits
    torch.testing.assert_close(found, wanted, rtol=near, atol=near)
    assert (choice.precision == "bf16") != torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
    if choice.kind == "torch":
        layout = torch.channels_last if choice.channels_last else torch.contiguous_format
        seen = []
        engine.model.conv.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
        engine(images)
        assert engine.model.conv.weight.is_contiguous(memory_format=layout)
        assert seen[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_a_measurement_is_of_the_passes_that_it_counts(index, tmp_path, monkeypatch, name):
    passes = []
    engine_class = {"torch": TorchEngine, "openvino": OpenVINOEngine}[name]
    run = engine_class._run

    def counted(self, images, features):
        passes.append(len(images))
        return run(self, images, features)

    monkeypatch.setattr(engine_class, "_run", counted)
    row = measure_all(job_of(index, tmp_path, name))
    # The first answer, and one pass of warm-up for each of the two.
    assert passes.count(1) == row["runs"] + 2 and passes.count(12) == row["batch_runs"] + 1
    assert len(passes) == row["runs"] + row["batch_runs"] + 3
    assert row["runs"] >= 1 and row["batch_runs"] >= 1 and row["batch"] == 12
    assert 0 < row["q1_ms"] <= row["latency_ms"] <= row["q3_ms"]
    assert row["images_per_s"] > 0 and row["start_s"] > 0 and row["note"] == ""
    assert 0 <= row["added_mb"] < row["peak_mb"]


def test_a_filled_cache_is_used_and_torch_needs_none(index, tmp_path, monkeypatch):
    job = job_of(index, tmp_path, "openvino")
    row = start_with_empty_cache(job)
    assert set(row) == {"start_empty_s", "peak_empty_mb"} and min(row.values()) > 0
    files = {file: file.stat().st_mtime_ns for file in Path(job.cache).glob("*.blob")}
    assert len(files) == 2  # for one image, and for the batch
    monkeypatch.setattr(Index, "load", None)  # which compiling needs
    measure_all(job)
    assert {f: f.stat().st_mtime_ns for f in Path(job.cache).glob("*.blob")} == files


def test_a_batch_that_had_to_shrink_is_told(index, tmp_path, monkeypatch):
    run = TorchEngine._run

    def limited(self, images, features):
        if len(images) > 4:
            torch.empty(10**14)
        return run(self, images, features)

    monkeypatch.setattr(TorchEngine, "_run", limited)
    row = measure_all(job_of(index, tmp_path, "torch"))
    assert row["batch"] == 3 and row["note"] == "Memory did not suffice for 12 images at once."


def test_memory_is_the_process_s_own():
    """The peak of `getrusage` begins on Linux with what the parent held."""
    held = np.ones(600_000_000, np.uint8)
    before = memory()
    assert before[0] > 600 and before[1] >= before[0]
    code = "from kdmodels.benchmark.passes import memory; print(*memory())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    now, peak = map(float, done.stdout.split())
    if sys.platform == "linux":
        assert 50 < now <= peak < before[0] - len(held) / 1e6 / 4
    del held
    if sys.platform == "linux":
        after = memory()
        assert after[0] < before[0] - 500 and after[1] > before[1] - 5  # counted in pages, late


def test_a_process_that_dies_is_said(tmp_path):
    with pytest.raises(EngineError, match="The process was killed, for lack of memory perhaps"):
        in_a_process(os._exit, 9)
    with pytest.raises(CheckpointError, match="is missing"):  # and an error comes through
        in_a_process(Index.read, tmp_path / "none")


# --- what is measured ------------------------------------------------------------------------


def test_the_stored_checkpoints_are_chosen_by_task_and_name(index):
    assert len(chosen(index, None, None)) == len(index.checkpoints) == 14
    rows = chosen(index, ["cxr"], None)
    assert {c.task for c in rows} == {"cxr"}
    assert [c.model for c in rows][3:] == ["ofa_595"] * 4  # teachers first
    assert [c.stem for c in chosen(index, None, ["cxr-ofa_595-from-vgg19"])] == [
        "cxr-ofa_595-from-vgg19"
    ]
    assert {c.stem for c in chosen(index, None, ["vgg19"])} == {"cxr-vgg19", "histopathology-vgg19"}
    with pytest.raises(CheckpointError) as caught:
        chosen(index, ["cxr"], ["vgg16"])
    assert str(caught.value).startswith("No checkpoint is stored for --model vgg16; choose from: ")
    assert "cxr-ofa_595-labels" in str(caught.value) and "histo" not in str(caught.value)
    with pytest.raises(CheckpointError, match="--task mri; choose from: cxr, histopathology"):
        chosen(index, ["mri"], None)
    with pytest.raises(CheckpointError, match="holds no checkpoint to measure"):
        chosen(Index(index.folder), None, None)


def test_the_engines_are_those_that_suit_the_machine(monkeypatch, capsys):
    assert usable_choices() == SUITABLE
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert usable_choices() == ["torch", "torch-channels-last", "torch-bf16"]
    assert "OpenVINO is left out (import of openvino halted" in capsys.readouterr().err


# --- the whole, in this process --------------------------------------------------------------


@pytest.fixture
def run_here(index, monkeypatch):
    """Runs the command without processes of their own, which would not know the tiny networks."""
    order = []

    def here(function, job):
        order.append((function.__name__, job.checkpoint.stem, job.engine, job.threads))
        return function(job)

    monkeypatch.setattr("kdmodels.benchmark.passes.in_a_process", here)

    def run(*options):
        order.clear()
        code = main(["benchmark", "--seconds", "0.001", "--batch", "2", *options])
        return SimpleNamespace(code=code, order=list(order))

    return run


PAIR = ["--task", "cxr", "--model", "cxr-vgg19", "--model", "cxr-ofa_595-from-vgg19"]


def test_teacher_and_student_take_turns_on_the_same_threads(run_here, tmp_path, capsys):
    file = tmp_path / "deep" / "times.csv"
    done = run_here(*PAIR, "--engines", "torch", "openvino", "--threads", "1", "--csv", str(file))
    assert done.code == 0
    first = [
        ("measure_all", "cxr-vgg19", "torch", 1),
        ("measure_all", "cxr-ofa_595-from-vgg19", "torch", 1),
        ("start_with_empty_cache", "cxr-vgg19", "openvino", 1),
        ("measure_all", "cxr-vgg19", "openvino", 1),
        ("start_with_empty_cache", "cxr-ofa_595-from-vgg19", "openvino", 1),
        ("measure_all", "cxr-ofa_595-from-vgg19", "openvino", 1),
    ]
    assert done.order[:6] == first
    assert [step for step in done.order[6:] if step[0] == "measure_all"] == [
        step for step in reversed(first) if step[0] == "measure_all"
    ]

    comment, *lines = file.read_text().splitlines()
    assert comment.startswith("# ") and "torch " in comment and ", 1 threads" in comment
    rows = list(csv.DictReader(lines))
    assert len(rows) == 8 and [row["round"] for row in rows] == ["1"] * 4 + ["2"] * 4
    for row in rows:
        assert row["start_empty_s"] == "" if row["engine"] == "torch" else row["start_empty_s"]
        assert row["engine_name"].startswith({"t": "PyTorch", "o": "OpenVINO"}[row["engine"][0]])
        assert row["batch"] == "2" and float(row["peak_mb"]) > float(row["added_mb"])

    said = capsys.readouterr().out
    assert said.count("OFA-595 (from VGG19)") == 2  # one row for each engine
    found = re.findall(r"cxr, (.+): OFA-595 is ([\d.]+) times as fast as the fastest teacher", said)
    assert [engine for engine, _ in found] == ["PyTorch float32", "OpenVINO float32"]
    for engine, (_, ratio) in zip(("torch", "openvino"), found, strict=True):
        middle = {
            model: np.median([
                float(row["latency_ms"])
                for row in rows
                if (row["engine"], row["model"]) == (engine, model)
            ])
            for model in ("vgg19", "ofa_595")
        }  # fmt: skip
        # Printed to the hundredth; the file has four digits of times of tens of microseconds.
        assert float(ratio) == pytest.approx(
            middle["vgg19"] / middle["ofa_595"], abs=0.03, rel=0.02
        )


def test_one_that_fails_leaves_the_others_and_is_told(run_here, index, capsys):
    (index.folder / index.find("cxr", "vgg19").file).write_bytes(b"cut")
    done = run_here(*PAIR, "--engines", "torch", "--rounds", "1")
    assert done.code == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("cxr-vgg19, PyTorch float32: ") and "truncated" in captured.err
    assert "OFA-595 (from VGG19)" in captured.out and "times as fast" not in captured.out


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--model", "resnet"], "No checkpoint is stored for --model resnet; choose from: "),
        (["--csv", "/proc/none/times.csv"], "/proc/none"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(
    run_here, capsys, options, sentence
):
    done = run_here(*options)
    assert done.code == 2 and done.order == []
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "option, value, sentence",
    [
        ("--threads", "0", "must be above 0"),
        ("--batch", "many", "invalid whole number value"),
        ("--seconds", "nan", "must be above 0"),
        ("--engines", "tvm", "choose from"),
    ],
)
def test_options_out_of_range_are_refused(capsys, option, value, sentence):
    with pytest.raises(SystemExit):
        main(["benchmark", option, value])
    assert sentence in capsys.readouterr().err


# --- tables ----------------------------------------------------------------------------------

ROW = {
    "task": "cxr", "checkpoint": "cxr-vgg19", "model": "vgg19", "name": "VGG19", "size_px": 224,
    "engine": "openvino-bf16", "precision": "bf16", "latency_ms": 40.0, "q1_ms": 39.0,
    "q3_ms": 41.5, "images_per_s": 30.0, "peak_mb": 700.0, "added_mb": 250.0, "start_s": 0.5,
    "start_empty_s": 9.0, "note": "",
}  # fmt: skip


def row(name: str, latency: float, rate: float, **others) -> dict:
    model = {"V": "vgg19", "A": "autoformerv2_t", "O": "ofa_595"}[name[0]]
    changes = {"name": name, "checkpoint": name, "model": model}
    return ROW | changes | {"latency_ms": latency, "images_per_s": rate} | others


def test_the_students_are_compared_with_the_fastest_teacher():
    rows = [
        row("VGG19", 40.0, 50.0), row("AutoFormerV2-T", 20.0, 40.0),
        row("OFA-595 (a)", 5.0, 100.0), row("OFA-595 (b)", 4.0, 125.0),
        row("OFA-595 (c)", 8.0, 90.0, precision="float32", note="It runs in float32."),
        row("VGG19", 400.0, 5.0, engine="torch"),
    ]  # fmt: skip
    assert list(ratios(rows)) == [
        "cxr, OpenVINO bf16: OFA-595 is 4.00 to 5.00 times as fast as the fastest teacher at batch "
        "1 (AutoFormerV2-T), and 2.00 to 2.50 times in batches (VGG19)."
    ]


def test_rounds_are_merged_by_their_median():
    rounds = [row("VGG19", value, 1.0, start_empty_s=None) for value in (3.0, 1.0, 2.0)]
    (found,) = merged([*rounds])
    assert found == row("VGG19", 2.0, 1.0, start_empty_s=None)
    assert len(merged([*rounds, row("VGG19", 9.0, 1.0, engine="torch")])) == 2


def test_the_table_is_aligned_and_explains_what_ran_otherwise():
    note = "OpenVINO in bf16 moved probabilities by 0.20. So it runs in float32."
    lines = list(table([row("VGG19", 40.0, 30.0), row("OFA-595 (a)", 4.0, 300.0, note=note)], 32))
    assert lines[-1] == f"[1] {note}" and "OpenVINO bf16 [1]" in lines[2]
    assert "images/s, batch 32" in lines[0] and len(lines) == 4
    assert len({len(line) for line in lines[:3]}) == 1  # numbers end below each other
    assert lines[1].index("40.00") + 5 == lines[2].index("4.00") + 4


# --- the whole, as a user runs it ------------------------------------------------------------


@pytest.fixture
def real_folder(tmp_path) -> Path:
    """Weights of two real architectures, random, for images of 64 px."""
    index = Index(tmp_path / "weights")
    for model, teacher in (("vgg19", None), ("ofa_595", "vgg19")):
        checkpoint = replace(unstored("cxr", model, teacher), input_size=64)
        torch.manual_seed(0)
        index.store(checkpoint, build_model(model, 3, 64).state_dict())
    return index.folder


def test_the_command_measures_in_processes_of_their_own(real_folder, tmp_path):
    file = tmp_path / "times.csv"
    options = ["--engines", "openvino", "--seconds", "0.05", "--batch", "2", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "kdmodels", "benchmark", *options, "--csv", str(file)],
        cwd=ROOT, env=os.environ | {"KD_WEIGHTS": str(real_folder), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "OFA-595 is " in done.stdout and "the fastest teacher at batch 1 (VGG19)" in done.stdout
    teacher, student = csv.DictReader(file.read_text().splitlines()[1:])
    assert (teacher["name"], student["name"]) == ("VGG19", "OFA-595 (from VGG19)")
    assert float(student["latency_ms"]) < float(teacher["latency_ms"])
    for row in (teacher, student):
        assert row["engine_name"].startswith("OpenVINO ") and row["note"] == ""
        assert (row["threads"], row["size_px"], row["batch"]) == ("1", "64", "2")
        assert float(row["start_s"]) < float(row["start_empty_s"])  # nothing had to be compiled
        assert float(row["peak_mb"]) < float(row["peak_empty_mb"])
    assert 20 < float(teacher["added_mb"]) < 2000  # VGG19 has 80 MB of weights
