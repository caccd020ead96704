"""`python -m train publish` with real networks, and the code of its cards in a reader's hands."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdmodels.models.checkpoints import Index
from kdmodels.models.zoo import build_model
from tests.conftest import unstored
from tests.hub import TOKENS, HubStandIn

REPOSITORY = Path(__file__).parents[2]
REPO = "someone/models"


@pytest.fixture
def hub():
    with HubStandIn() as server:
        yield server


PASTED = r"""
import json, re, sys
from pathlib import Path
import torch
from PIL import Image
from huggingface_hub import hf_hub_download
from kdmodels.models.checkpoints import WEIGHTS, Index
from kdmodels.images.preprocess import to_input
from kdmodels.tasks import get_task
from train.__main__ import main

assert main(["publish", "--repo", "someone/models", "--licence", "mit"]) == 0
mine = Index.read()
student, teacher = mine.find("cxr", "ofa_595"), mine.find("cxr", "visformer_s")
blocks = {}
for file in ("README.md", f"models/{student.stem}.md", f"models/{teacher.stem}.md"):
    text = Path(hf_hub_download("someone/models", file)).read_text(encoding="utf-8")
    blocks[file] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)

images = torch.linspace(-2, 2, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
film = Image.effect_noise((90, 70), 60).convert("RGB")

def answer(model):
    return model.to(memory_format=torch.contiguous_format)(images)  # timm's is laid out so

found = {"revision": mine.hub_revision, "blocks": [len(b) for b in blocks.values()]}
for name, row in (("student", student), ("teacher", teacher)):
    for number, code in enumerate(blocks[f"models/{row.stem}.md"]):
        seen = {}
        exec(code, seen)
        with torch.inference_mode():
            found[f"{name} {number}"] = torch.equal(answer(seen["model"]), answer(mine.load(row)))
transform, row = seen["transform"], teacher
theirs = transform(film.convert("L").convert("RGB"))[None]
ours = to_input(film, get_task("cxr"), row.spec)
found["same input"] = bool(torch.allclose(theirs, ours, atol=1e-5))
found["label names"] = seen["model"].pretrained_cfg["label_names"]
Path(sys.argv[1]).write_text(json.dumps(found))
"""


def test_the_command_publishes_and_the_code_of_the_cards_runs_as_pasted(hub, tmp_path):
    """In a process of its own, with nothing replaced: `HF_ENDPOINT` alone leads to the stand-in."""
    weights = tmp_path / "weights"
    for model in ("visformer_s", "ofa_595"):
        torch.manual_seed(0)
        state = build_model(model, 3, 64).state_dict()
        Index(weights).store(replace(unstored("cxr", model), input_size=64), state)
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": next(iter(TOKENS)),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "KD_WEIGHTS": str(weights),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    for kind in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        settings |= {kind: "", kind.lower(): ""}
    done = subprocess.run(
        [sys.executable, "-c", PASTED, tmp_path / "found.json"],
        cwd=REPOSITORY,
        env=os.environ | settings | {"HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "found.json").read_text()) == {
        "revision": hub.repos[REPO].branches["main"],
        "blocks": [2, 1, 2],  # of the repository, the student, and the teacher that timm knows
        "student 0": True,
        "teacher 0": True,
        "teacher 1": True,
        "same input": True,
        "label names": ["covid", "pneumonia", "normal"],
    }
    assert hub.names(REPO, "timm-cxr-visformer_s") == [
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
    ]
