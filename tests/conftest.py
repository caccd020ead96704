"""Shared fixtures: the real model table with tiny networks in it, and checkpoints of them."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import close_session, constants
from PIL import Image
from torch import nn

from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.models.zoo import MODELS, STUDENTS, TEACHERS, ModelSpec, build_model
from kdmodels.predict import Classifier
from kdmodels.tasks import TASKS, get_task
from kdmodels.tasks.known import SHIPPED

REPOSITORY = Path(__file__).parents[1]
ALONE = "KD_TEST_ALONE"
TINY_SIDE = 32
TINY_CHANNELS = {"vgg19": 8, "visformer_s": 10, "autoformerv2_t": 12, "ofa_595": 6}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the tests marked `alone` in a fresh process, as a command of the user's would be.

    Worker processes are forks, and this process has by then the threads of many libraries. The
    first of these tests runs them all there; the others look up how they ended.
    """
    if pyfuncitem.get_closest_marker("alone") is None or ALONE in os.environ:
        return None
    items = [i for i in pyfuncitem.session.items if i.get_closest_marker("alone")]
    output = _run_alone(tuple(item.nodeid for item in items))
    if f"PASSED {pyfuncitem.nodeid}\n" not in output:
        pytest.fail(f"in a process of its own:\n{output}", pytrace=False)
    return True


@cache
def _run_alone(nodeids: tuple[str, ...]) -> str:
    """What pytest prints, with a line for each test that has passed."""
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *nodeids]
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=os.environ | {ALONE: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=290,
    ).stdout


class TinyNet(nn.Module):
    """Two convolutions and a linear head; its `features` are (N, C, 8, 8), or NHWC on request."""

    def __init__(self, num_classes: int, channels: int, seed: int, channels_end: bool = False):
        super().__init__()
        self.channels_end = channels_end
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 5, 4, 2), nn.BatchNorm2d(channels))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.features = nn.Identity()
        self.head = nn.Linear(channels, num_classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(generator=generator)
            self.stem[1].running_mean.normal_(generator=generator)
            self.stem[1].running_var.fill_(75.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(self.stem(images).relu()).relu() / 8
        if self.channels_end:
            return self.head(self.features(features.permute(0, 2, 3, 1)).mean((1, 2)))
        return self.head(self.features(features).mean((2, 3)))


def tiny_spec(spec: ModelSpec) -> ModelSpec:
    """The row of a model with a `TinyNet` in place of the real network, as different as they are."""
    channels = TINY_CHANNELS[spec.id]

    def build(num_classes: int, input_size: int, pretrained: bool) -> nn.Module:
        return TinyNet(num_classes, channels, seed=channels, channels_end=bool(spec.cam_reshape))

    return replace(
        spec,
        builder=build,
        input_size=TINY_SIDE,
        cam_layer="features",
        cam_channels=channels,
        head="head",
        mix=None,
        fit_state=None,
    )


@pytest.fixture
def tiny_models(monkeypatch) -> dict[str, ModelSpec]:
    """Put tiny networks into the model table, under the real ids, for one test."""
    for spec in list(MODELS.values()):
        monkeypatch.setitem(MODELS, spec.id, tiny_spec(spec))
    return MODELS


@pytest.fixture
def tiny_index(tiny_models, tmp_path) -> Index:
    """A folder with checkpoints of tiny networks: teachers, their students, students by labels."""
    index = Index(tmp_path / "weights")
    for task in TASKS:
        pairs = [(teacher, None) for teacher in TEACHERS]
        pairs += [(student, teacher) for student in STUDENTS for teacher in (*TEACHERS, None)]
        for model, teacher in pairs:
            row = unstored(task, model, teacher)
            index.store(row, build_model(model, len(row.classes)).state_dict())
    return Index.read(index.folder)


def unstored(task: str, model: str, teacher: str | None = None) -> Checkpoint:
    """A row of the index as it is before `Index.store` completes it."""
    return Checkpoint(
        task=task,
        model=model,
        teacher=teacher,
        classes=get_task(task).class_ids,
        file="",
        sha256="",
        bytes=0,
        storage="float16" if model in TEACHERS else "int8",
        recipe=f"train/recipes/{task}-{model}.toml",
        data="0123456789ab",
        date="2025-01-31",
    )


@pytest.fixture
def new_row(tiny_models):
    """`unstored`, as a fixture: makes a row for `Index.store`."""
    return unstored


@pytest.fixture(autouse=True)
def forget_own_tasks():
    """A task that a test adds is not known to the next."""
    yield
    for task_id in TASKS.keys() - SHIPPED:
        del TASKS[task_id]


@pytest.fixture(autouse=True)
def torch_engine(monkeypatch):
    """No test compiles for OpenVINO unless it asks to, which takes seconds."""
    monkeypatch.setenv("KD_ENGINE", "torch")


@pytest.fixture
def make_classifier(tiny_models):
    """Make a `Classifier` of a model id and a task id, with a tiny network, on the CPU."""

    def make(model: str = "ofa_595", task: str = "cxr", kind: str | None = None) -> Classifier:
        row = unstored(task, model)
        network = build_model(model, len(row.classes)).eval().requires_grad_(False)
        return Classifier(get_task(task), tiny_models[model], row, network, kind)

    return make


@pytest.fixture
def tiny_classifier(make_classifier) -> Classifier:
    """A student of chest X-rays with a tiny network."""
    return make_classifier()


@pytest.fixture
def photo() -> Image.Image:
    """A (80, 60) RGB image without symmetry and with colour."""
    y, x = np.mgrid[:60, :80]
    pixels = np.stack([x * 3, y * 4, (x * y) % 256], axis=-1)
    pixels[10:25, 50:70] = (250, 20, 90)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def use_hub(monkeypatch, tmp_path):
    """Make huggingface_hub talk to an address, with a cache of its own and nobody's token."""
    for kind in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(kind, raising=False)
        monkeypatch.delenv(kind.upper(), raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def use(address: str) -> None:
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()  # a client keeps the proxies of when it was made
    yield use
    close_session()
