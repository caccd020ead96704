"""`train.release.store_lungs`: what is stored, with which limit, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from kdmodels.lungs.find import LungFinder
from kdmodels.lungs.unet import LungNet
from kdmodels.models.checkpoints import LUNG_STORAGE, Index
from kdmodels.models.codecs import decode, encode
from train.data.manifest import Manifest, Sample
from train.release.store import StoreError
from train.release.store_lungs import store_lungs


@pytest.fixture
def manifest(make_manifest, tmp_path) -> Manifest:
    made = make_manifest()
    Image.new("L", (32, 32), 255).save(tmp_path / "mask.png")
    samples = [
        Sample(s.path, s.label, s.split, s.group, s.source, tmp_path / "mask.png")
        for s in made.samples
    ]
    return Manifest(made.task, made.name, tuple(samples))


@pytest.fixture
def finished(manifest, tmp_path):
    def make(data: str | None = None, epoch: int = 6):
        torch.manual_seed(0)
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        state = LungNet().state_dict()
        save_file(state, run / "best.safetensors")
        about = {"settings": {"epochs": 6, "seed": 3}, "data": data or manifest.id, "epoch": epoch}
        save_file(state, run / "state.safetensors", {"lungs": json.dumps(about)})
        return run, state

    return make


def test_the_limit_lets_99_of_100_validation_films_pass(finished, manifest, weights):
    run, state = finished()
    row = store_lungs(run, manifest)
    assert Index.read(weights).lungs == row
    assert (row.seed, row.data, row.file) == (3, manifest.id, "lungs.safetensors")
    network = LungNet()
    network.load_state_dict(decode(encode(state, LUNG_STORAGE)))
    finder = LungFinder(network.eval())
    sure = [finder(Image.open(s.path)).sureness for s in manifest.split("val")]
    assert row.limit == pytest.approx(np.percentile(sure, 1), abs=1e-4)


def test_what_is_no_finished_run_on_these_films_is_refused(finished, manifest, weights, tmp_path):
    with pytest.raises(StoreError, match="was trained on films@1"):
        store_lungs(finished(data="films@1")[0], manifest)
    with pytest.raises(StoreError, match="is not finished"):
        store_lungs(finished(epoch=5)[0], manifest)
    with pytest.raises(StoreError, match="no run folder of the lung finder"):
        store_lungs(tmp_path, manifest)
    assert not (weights / "index.json").exists()
