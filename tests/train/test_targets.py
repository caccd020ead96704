"""`train.targets`: cached teacher logits are the teacher's, and are computed only when needed."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms import v2

import train.views
from kdmodels.preprocess import normalise
from kdmodels.zoo import build_model
from train.targets import targets_key, teacher_targets
from train.views import PixelStore, TrainViews

VIEWS = 3
SHA = "ab" * 32


class Counting(nn.Module):
    """A network that counts the images it was given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.images = network, 0

    def forward(self, images):
        self.images += len(images)
        return self.network(images)


@pytest.fixture
def views(make_manifest):
    manifest = make_manifest(train=2, val=0, test=0)
    return TrainViews(PixelStore(manifest.split("train"), manifest.task, 48), 32, seed=3)


@pytest.fixture
def teacher(tiny_models):
    return Counting(build_model("vgg19", 3).eval())


@pytest.fixture
def compute(tiny_models, teacher, views, tmp_path):
    """Compute, or read, the targets of the views."""

    def compute(number: int = VIEWS, sha256: str = SHA, of: TrainViews = views):
        folder = tmp_path / "targets"
        spec = tiny_models["vgg19"]
        return teacher_targets(teacher, spec, sha256, of, number, folder, torch.device("cpu"))

    return compute


def files_of(tmp_path):
    return sorted((tmp_path / "targets").glob("*/*"))


def test_targets_are_the_teachers_answers_to_the_views(compute, teacher, views, tiny_models):
    targets = compute()
    assert (targets.shape, targets.dtype) == ((len(views), VIEWS, 3), torch.float32)
    spec = tiny_models["vgg19"]
    for index in range(len(views)):
        for view in range(VIEWS):
            with torch.no_grad():
                image = normalise(views[index, view][0][None], spec.mean, spec.std)
                assert torch.allclose(teacher(image)[0], targets[index, view], atol=1e-5)
    assert (targets[:, 0] - targets[:, 1]).abs().min() > 0


def test_the_second_time_they_are_read(compute, teacher, views):
    first, asked = compute(), teacher.images
    assert asked == len(views) * VIEWS
    assert torch.equal(compute(), first)
    assert teacher.images == asked


def test_more_views_compute_the_new_ones_only(compute, teacher, views):
    first = compute(number=2)
    assert torch.equal(compute(number=3)[:, :2], first)
    assert teacher.images == len(views) * 3


@pytest.mark.parametrize("damage", [b"", b"no tensors", None, "cut"])
def test_a_damaged_or_missing_file_is_computed_again(compute, teacher, views, tmp_path, damage):
    first, asked = compute(), teacher.images
    file = files_of(tmp_path)[1]
    assert file.name == "view-1.safetensors"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-5] if damage == "cut" else damage)
    assert torch.allclose(compute(), first, atol=1e-6)
    assert teacher.images == asked + len(views)
    assert torch.equal(load_file(file)["logits"], compute()[:, 1])
    assert [p.name for p in files_of(tmp_path)] == [f"view-{i}.safetensors" for i in range(VIEWS)]


def test_the_key_stays_for_the_same_views_anywhere(views, make_manifest):
    task, samples = views.store.task, views.store.samples
    again = TrainViews(PixelStore(samples, task, 48), 32, seed=3)
    assert targets_key(SHA, again) == targets_key(SHA, views)


def changed_views(views: TrainViews, change: str, monkeypatch) -> TrainViews:
    samples, task = list(views.store.samples), views.store.task
    size, seed, settings = views.size, views.seed, {}
    if change == "fewer images":
        samples = samples[:-1]
    elif change == "another order":
        samples = samples[::-1]
    elif change == "another name":
        path = samples[0].path
        samples[0] = replace(samples[0], path=path.rename(path.with_name("other.png")))
    elif change == "another file":
        Image.new("L", (32, 32)).save(samples[0].path)
    elif change == "seed":
        seed += 1
    elif change == "size":
        size += 4
    elif change == "strength":
        settings = {"strength": 0.5}
    elif change == "augmentation":
        flip = {"cxr": lambda size, _: v2.Compose([v2.Resize((size, size))])}
        monkeypatch.setattr(train.views, "AUGMENTATIONS", flip)
    return TrainViews(PixelStore(samples, task, 48), size, seed, **settings)


@pytest.mark.parametrize(
    "change",
    ["fewer images", "another order", "another name", "another file",
     "seed", "size", "strength", "augmentation"],
)  # fmt: skip
def test_the_key_changes_with_all_that_the_targets_depend_on(views, change, monkeypatch):
    before = targets_key(SHA, views)
    assert targets_key(SHA, changed_views(views, change, monkeypatch)) != before


def test_another_teacher_has_targets_of_its_own(compute, teacher, views, tmp_path):
    compute(), compute(sha256="cd" * 32)
    assert teacher.images == 2 * len(views) * VIEWS
    assert len({file.parent for file in files_of(tmp_path)}) == 2
