"""`train.learn.targets`: cached answers are the teacher's, are computed only when needed, and never stale."""

import os
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms import v2

import train.learn.views
from kdmodels.models.zoo import TEACHERS, build_model
from train.data.cells import Cell
from train.data.pixels import PixelStore
from train.learn.runs import RunError
from train.learn.targets import Targets, targets_key, teacher_targets
from train.learn.teachers import Teacher
from train.learn.views import TrainViews

CPU = torch.device("cpu")
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
def make_teacher(tiny_models):
    def make(model: str = "vgg19", sha256: str = SHA, **settings) -> Teacher:
        spec = tiny_models[model]
        spec = replace(spec, cam_layer="network.features", head="network.head")
        network = Counting(build_model(model, 3).eval())
        return Teacher(network, spec, sha256, **({"size": 32} | settings))

    return make


@pytest.fixture
def teacher(make_teacher):
    return make_teacher()


@pytest.fixture
def compute(teacher, views, tmp_path):
    """Compute, or read, a teacher's answers to the views."""

    def compute(number: int = VIEWS, by: Teacher = teacher, of: TrainViews = views) -> Targets:
        return teacher_targets(by, of, number, tmp_path / "targets", CPU)

    return compute


def files_of(tmp_path):
    return sorted((tmp_path / "targets").glob("*/*"))


def same_targets(first: Targets, second: Targets) -> bool:
    return torch.equal(first.logits, second.logits) and torch.equal(first.maps, second.maps)


# --- What the teacher says -------------------------------------------------------------------


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("model", TEACHERS)
def test_targets_are_the_teachers_answers_to_the_views(make_teacher, compute, views, model, bf16):
    teacher = make_teacher(model, bf16=bf16)
    targets = compute(by=teacher)
    assert (targets.logits.shape, targets.logits.dtype) == ((len(views), VIEWS, 3), torch.float32)
    assert (targets.maps.shape, targets.maps.dtype) == (
        (len(views), VIEWS, 8, 8),
        torch.float32,
    )
    tolerance = 0.05 if bf16 else 1e-5
    for index in range(len(views)):
        for view in range(VIEWS):
            image, label, *_ = views[index, view]
            online = teacher(image[None], torch.tensor([label]))
            assert torch.allclose(online.logits[0], targets.logits[index, view], atol=tolerance)
            assert torch.allclose(online.maps[0], targets.maps[index, view], atol=tolerance)
    assert (targets.logits[:, 0] - targets.logits[:, 1]).abs().amax(1).min() > 0


def test_a_batch_gets_the_answers_to_its_own_images_and_views(compute):
    targets = compute()
    indices, views = torch.tensor([5, 0, 0, 3]), torch.tensor([1, 2, 0, 0])
    answers = targets.of(indices, views, CPU)
    for place, (index, view) in enumerate(zip(indices, views, strict=True)):
        assert torch.equal(answers.logits[place], targets.logits[index, view])
        assert torch.equal(answers.maps[place], targets.maps[index, view])


# --- Once ------------------------------------------------------------------------------------


def test_the_second_time_they_are_read(compute, teacher, views):
    first, asked = compute(), teacher.model.images
    assert asked == len(views) * VIEWS
    assert same_targets(compute(), first)
    assert teacher.model.images == asked


def test_more_views_compute_the_new_ones_only(compute, teacher, views):
    first, more = compute(number=2), compute(number=3)
    assert torch.equal(more.logits[:, :2], first.logits)
    assert torch.equal(more.maps[:, :2], first.maps)
    assert teacher.model.images == len(views) * 3


@pytest.mark.parametrize("damage", [b"", b"no tensors", None, "cut"])
def test_a_damaged_or_missing_file_is_computed_again(compute, teacher, views, tmp_path, damage):
    first, asked = compute(), teacher.model.images
    file = files_of(tmp_path)[1]
    assert file.name == "view-1.safetensors"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-5] if damage == "cut" else damage)
    assert torch.allclose(compute().logits, first.logits, atol=1e-6)
    assert teacher.model.images == asked + len(views)
    assert torch.equal(load_file(file)["logits"], compute().logits[:, 1])
    assert torch.equal(load_file(file)["maps"], compute().maps[:, 1])
    assert [p.name for p in files_of(tmp_path)] == [f"view-{i}.safetensors" for i in range(VIEWS)]


def test_an_interrupted_computation_goes_on_where_it_stopped(
    compute, teacher, views, tmp_path, monkeypatch
):
    class Interrupted(Exception):
        pass

    def stop(_self, inputs):
        if teacher.model.images == len(views):  # in the second view
            raise Interrupted

    handle = teacher.model.register_forward_pre_hook(stop)
    with pytest.raises(Interrupted):
        compute()
    handle.remove()
    assert [file.name for file in files_of(tmp_path)] == ["view-0.safetensors"]
    compute()
    assert teacher.model.images == len(views) * VIEWS


def test_two_runs_may_compute_the_same_targets_at_the_same_time(
    compute, make_teacher, tmp_path, monkeypatch
):
    """The second starts and ends while the first one has its file half written."""
    first, second = make_teacher(), make_teacher()
    move, others = os.replace, []

    def replace_late(source, target):
        if not others:
            others.append(None)
            others.append(compute(number=1, by=second))
        move(source, target)

    monkeypatch.setattr("os.replace", replace_late)
    found = compute(number=1, by=first)
    assert second.model.images == first.model.images > 0
    assert torch.allclose(found.logits, others[1].logits, atol=1e-6)
    assert [file.name for file in files_of(tmp_path)] == ["view-0.safetensors"]


def test_a_full_disk_is_said_and_keeps_what_was_computed(compute, tmp_path, monkeypatch):
    compute(number=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(
        RunError, match=r"view-1\.safetensors .*No space left.* make room and start"
    ):
        compute()
    assert [file.name for file in files_of(tmp_path)] == ["view-0.safetensors"]


# --- Never stale -----------------------------------------------------------------------------


def test_the_key_stays_for_the_same_views_anywhere(teacher, views, make_teacher):
    task, samples = views.store.task, views.store.samples
    again = TrainViews(PixelStore(samples, task, 48), 32, seed=3)
    assert targets_key(make_teacher(), again) == targets_key(teacher, views)


def changed_views(views: TrainViews, change: str, monkeypatch) -> TrainViews:
    samples, task = list(views.store.samples), views.store.task
    size, stored, seed, settings = views.size, views.store.size, views.seed, {}
    if change == "fewer images":
        samples = samples[:-1]
    elif change == "another order":
        samples = samples[::-1]
    elif change == "another name":
        path = samples[0].path
        samples[0] = replace(samples[0], path=path.rename(path.with_name("other.png")))
    elif change == "another file":
        Image.new("L", (32, 32)).save(samples[0].path)
    elif change == "another label":  # the map is that of the labelled class
        samples[0] = replace(samples[0], label=samples[-1].label)
    elif change == "another number":  # one before it was left out as unreadable
        samples[-1] = replace(samples[-1], number=len(samples))
    elif change == "seed":
        seed += 1
    elif change == "size":
        size += 4
    elif change == "stored size":
        stored += 16
    elif change == "strength":
        settings = {"strength": 0.5}
    elif change == "augmentation":
        flip = {"film": lambda size, _: v2.Compose([v2.Resize((size, size))])}
        monkeypatch.setattr(train.learn.views, "AUGMENTATIONS", flip)
    return TrainViews(PixelStore(samples, task, stored), size, seed, **settings)


@pytest.mark.parametrize(
    "change",
    ["fewer images", "another order", "another name", "another file", "another label",
     "another number", "seed", "size", "stored size", "strength", "augmentation"],
)  # fmt: skip
def test_another_data_set_or_other_views_reuse_nothing(
    compute, teacher, views, change, monkeypatch
):
    compute(number=1)
    asked = teacher.model.images
    changed = changed_views(views, change, monkeypatch)
    targets = compute(number=1, of=changed)
    assert teacher.model.images == asked + len(changed)
    image, label, *_ = changed[0, 0]
    online = teacher(image[None], torch.tensor([label]))
    assert torch.allclose(targets.logits[0, 0], online.logits[0], atol=1e-5)
    assert torch.allclose(targets.maps[0, 0], online.maps[0], atol=1e-5)


@pytest.mark.parametrize("change", [{"sha256": "cd" * 32}, {"bf16": True}, {"size": 40}], ids=str)
def test_another_teacher_reuses_nothing(make_teacher, compute, views, tmp_path, change):
    first, other = make_teacher(), make_teacher(**change)
    compute(by=first)
    compute(by=other)
    assert first.model.images == other.model.images == len(views) * VIEWS
    assert len({file.parent for file in files_of(tmp_path)}) == 2


def test_a_teacher_with_new_weights_is_asked_itself(make_teacher, compute):
    """The same architecture, trained again: what the old one said is left alone."""
    old, new = make_teacher(), make_teacher(sha256="cd" * 32)
    with torch.no_grad():
        new.model.network.head.weight.mul_(-2)
    before, after = compute(by=old), compute(by=new)
    assert not torch.allclose(before.logits, after.logits, atol=0.01)
    assert same_targets(compute(by=old), before)


def test_several_teachers_keep_their_answers_apart(make_teacher, compute, views, tmp_path):
    teachers = [make_teacher(m, sha256=f"{i}" * 64) for i, m in enumerate(TEACHERS)]
    first = [compute(by=teacher) for teacher in teachers]
    assert len(files_of(tmp_path)) == VIEWS * len(teachers)
    again = [compute(by=teacher) for teacher in teachers]
    assert all(same_targets(*pair) for pair in zip(first, again, strict=True))
    assert [t.model.images for t in teachers] == [len(views) * VIEWS] * len(teachers)
    assert not torch.allclose(first[0].logits, first[1].logits, atol=0.01)


def test_images_inside_tables_have_the_same_key(teacher, views):
    cells = [
        replace(s, path=Cell(None, "a table", i, s.path.name, s.path.stat().st_size))
        for i, s in enumerate(views.store.samples)
    ]
    from_table = TrainViews(PixelStore(cells, views.store.task, 48), 32, seed=3)
    assert targets_key(teacher, from_table) == targets_key(teacher, views)
