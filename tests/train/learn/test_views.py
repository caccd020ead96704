"""`train.learn.views`: every view is a function of its key, and the draw is as even as it says."""

import random
from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from kdmodels.tasks import TASKS, Task
from kdmodels.tasks.task import Augmentation
from train.data.manifest import Sample
from train.data.pixels import PixelStore
from train.learn.views import (
    AUGMENTATIONS,
    VIEWS_PER_EPOCH,
    BalancedSampler,
    TrainViews,
    collate,
    seed_of,
)

OWN = Task(id="shapes", name="Shapes", classes=["circle", "square", "star"])
TASK_IDS = (*TASKS, OWN.id)


@pytest.fixture(autouse=True)
def own_task(monkeypatch):
    """A task of the user's, whose augmentation is the plain one."""
    monkeypatch.setitem(TASKS, OWN.id, OWN)


@pytest.fixture
def make_views(make_samples):
    def make(task_id: str = "cxr", size: int = 40, seed: int = 3, **settings) -> TrainViews:
        store = PixelStore(make_samples(task_id), TASKS[task_id], 128)
        return TrainViews(store, size, seed, **settings)

    return make


def crowd(cells: dict[tuple[str, str], int]) -> list[Sample]:
    """Samples that exist only by name: so many of each (class, source)."""
    return [
        Sample(f"{label}-{source}-{i}", label, "train", "", source)
        for (label, source), number in cells.items()
        for i in range(number)
    ]


# --- Seeds -----------------------------------------------------------------------------------


def test_a_seed_is_the_same_everywhere_and_always():
    assert seed_of(0, "view", 3, 7) == 5021433520479167385
    assert seed_of("a") == 874320866082539574


def test_seeds_of_different_parts_differ():
    parts = [(a, b) for a in range(30) for b in range(30)] + [(a,) for a in range(900)]
    seeds = {seed_of(*p) for p in parts} | {seed_of("1", 2), seed_of(1, "2")}
    assert len(seeds) == len(parts) + 2
    assert all(0 <= s < 2**63 for s in seeds)


# --- Training views --------------------------------------------------------------------------


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_a_view_is_a_function_of_its_key(make_views, task_id):
    keys = [(index, view) for index in (0, 1, 2) for view in range(6)]
    first = {key: views[key][0] for views in [make_views(task_id)] for key in keys}
    torch.manual_seed(99), np.random.seed(99), random.seed(99)
    torch.rand(17), np.random.rand(17), random.random()
    again = make_views(task_id)
    for key in reversed(keys):
        image, label, index, view = again[key]
        assert torch.equal(image, first[key])
        assert (label, (index, view)) == (key[0], key)


@pytest.mark.alone
def test_views_in_workers_are_the_views_in_this_process(make_views):
    views = make_views()
    keys = [(index, view) for view in range(4) for index in (2, 0, 1)]
    loader = DataLoader(views, batch_size=5, sampler=keys, num_workers=1, collate_fn=collate)
    images, labels, indices, numbers = map(np.concatenate, zip(*loader, strict=True))
    wanted = [views[key] for key in keys]
    assert np.array_equal(images, torch.stack([image for image, *_ in wanted]).numpy())
    assert list(zip(labels, indices, numbers, strict=True)) == [tuple(rest) for _, *rest in wanted]


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_views_differ_by_view_image_and_seed(make_views, task_id):
    views, other = make_views(task_id), make_views(task_id, seed=4)
    images = [views[1, view][0] for view in range(12)] + [views[0, 0][0], other[1, 0][0]]
    assert len({image.numpy().tobytes() for image in images}) == len(images)


def test_a_view_leaves_the_global_random_numbers_alone(make_views):
    views = make_views()
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    for view in range(8):
        views[0, view]
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_a_view_is_a_uint8_square_without_colour_where_the_task_has_none(make_views, task_id):
    views = make_views(task_id, size=36)
    for view in range(8):
        image = views[0, view][0]
        assert (image.shape, image.dtype) == ((3, 36, 36), torch.uint8)
        grey = torch.equal(image[0], image[1]) and torch.equal(image[1], image[2])
        assert grey == TASKS[task_id].greyscale


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_a_key_gives_the_same_view_at_another_size(make_views, task_id):
    keys = [(index, view) for index in (0, 1, 2) for view in range(10)]
    small, large = (
        torch.stack(
            [
                interpolate(views[key][0][None].float(), 24, mode="bilinear", antialias=True)[0]
                for key in keys
            ]
        )
        for views in (make_views(task_id, size=48), make_views(task_id, size=80))
    )
    distance = (small[:, None] - large[None]).abs().mean((2, 3, 4))  # of each to each, grey values
    same, others = distance.diagonal(), distance[~torch.eye(len(keys), dtype=bool)]
    assert same.median() < 3 < 15 < others.median()
    assert (distance.argmin(dim=1) == torch.arange(len(keys))).float().mean() > 0.9


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_an_augmentation_is_described_without_memory_addresses(make_views, task_id):
    # The description is part of the key under which teacher targets are kept.
    views = [make_views(task_id), make_views(task_id, size=44), make_views(task_id, strength=0.5)]
    descriptions = [repr(each.augment) for each in views]
    assert not any(" at 0x" in text for text in descriptions)
    assert len(set(descriptions)) == 3
    assert repr(make_views(task_id).augment) == descriptions[0]


def test_without_strength_a_view_is_the_image_or_its_mirror_image(make_views):
    views = make_views(size=128, strength=0.0)
    image = views.store[1].expand(3, -1, -1)
    found = [views[1, view][0] for view in range(12)]
    assert all(torch.equal(v, image) or torch.equal(v, image.flip(2)) for v in found)
    assert len({v.numpy().tobytes() for v in found}) == 2


def test_there_is_an_augmentation_for_each_name_of_a_task_file():
    assert set(AUGMENTATIONS) == set(get_args(Augmentation))


# --- Images that are left out ----------------------------------------------------------------


def test_an_image_that_is_left_out_shifts_no_view_of_another(make_samples):
    samples = make_samples("cxr")
    whole = TrainViews(PixelStore(samples, TASKS["cxr"], 128), 40, 3)
    rest = [replace(samples[0], number=0), replace(samples[2], number=2)]
    left = TrainViews(PixelStore(rest, TASKS["cxr"], 128), 40, 3)
    for view in range(4):
        assert torch.equal(left[0, view][0], whole[0, view][0])
        image, label, index, _ = left[1, view]
        assert torch.equal(image, whole[2, view][0])
        assert (label, index) == (2, 1)


def test_an_image_that_is_left_out_shifts_no_fixed_view_of_another():
    def chosen(samples):
        """How often each image comes in each fixed view, by its number."""
        sampler = BalancedSampler(samples, 0, 0.5, views=4)
        times = Counter()
        for index, view in sampler:
            times[samples[index].path, times[samples[index].path]] = view
            times[samples[index].path] += 1
        return times

    samples = crowd({("covid", "a"): 60, ("normal", "a"): 60})
    rest = [replace(s, number=i) for i, s in enumerate(samples) if i != 7]
    ours, wanted = chosen(rest), chosen(samples)
    both = [key for key in ours.keys() & wanted.keys() if isinstance(key, tuple)]
    assert len(both) > 60 and all(ours[key] == wanted[key] for key in both)


# --- The sampler -----------------------------------------------------------------------------

CELLS = {
    ("covid", "a"): 400, ("covid", "b"): 100,
    ("pneumonia", "a"): 60,
    ("normal", "a"): 900, ("normal", "c"): 225, ("normal", "d"): 100,
}  # fmt: skip


def drawn_cells(power: float) -> tuple[Counter, int]:
    samples = crowd(CELLS)
    sampler = BalancedSampler(samples, 0, power)
    counts = Counter()
    for epoch in range(8):
        sampler.set_epoch(epoch)
        counts.update((samples[i].label, samples[i].source) for i, _ in sampler)
    return counts, 8 * len(samples)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_classes_are_drawn_evenly_and_sources_by_their_power(power):
    counts, total = drawn_cells(power)
    assert counts.total() == total
    for cell, number in CELLS.items():
        among = sum(n**power for (label, _), n in CELLS.items() if label == cell[0])
        share = number**power / among / 3
        error = (share * (1 - share) / total) ** 0.5
        assert counts[cell] / total == pytest.approx(share, abs=4 * error)


def test_the_draw_is_a_function_of_seed_and_epoch():
    def draw(seed, epoch):
        sampler = BalancedSampler(crowd(CELLS), seed, 0.5)
        sampler.set_epoch(epoch)
        torch.rand(3)
        return list(sampler)

    assert draw(1, 2) == draw(1, 2)
    indices = [[i for i, _ in draw(*key)] for key in ((1, 2), (1, 3), (2, 2))]
    assert indices[0] != indices[1] and indices[0] != indices[2]


def test_no_view_comes_twice_without_fixed_views():
    sampler = BalancedSampler(crowd({("covid", "a"): 20, ("normal", "a"): 300}), 0, 0.5)
    keys = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys += sampler
    assert len(set(keys)) == len(keys)
    assert max(view for _, view in keys) < 3 * VIEWS_PER_EPOCH


def test_fixed_views_are_all_used_and_evenly():
    sampler = BalancedSampler(crowd(CELLS), 0, 0.5, views=4)
    keys = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        keys += sampler
    views = Counter(view for _, view in keys)
    assert set(views) == {0, 1, 2, 3}
    assert min(views.values()) > 0.9 * len(keys) / 4
    assert {index for index, _ in keys} >= set(range(500, 560))  # all images of the rarest class
