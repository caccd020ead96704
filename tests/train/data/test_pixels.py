"""`train.data.pixels`: images as the app sees them, decoded once, and shared with worker processes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import train.data.pixels
from kdmodels.images.preprocess import squared
from kdmodels.tasks import TASKS
from train.data.pixels import EvalViews, PixelStore
from train.learn.views import TrainViews, collate


@pytest.mark.parametrize("task_id", TASKS)
def test_evaluation_sees_what_the_app_sees(make_samples, task_id):
    samples, task = make_samples(task_id), TASKS[task_id]
    views = EvalViews(samples, task, 48)
    assert len(views) == len(samples)
    for index, sample in enumerate(samples):
        image, label = views[index]
        with Image.open(sample.path) as opened:
            expected = squared(opened, task, 48)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
        assert label == index


@pytest.mark.parametrize("limit, reads", [(3 * 16**2, 3), (3 * 16**2 - 1, 6)])
def test_pixels_are_kept_in_memory_only_while_all_fit(make_samples, monkeypatch, limit, reads):
    calls = []
    read = train.data.pixels.read_pixels
    monkeypatch.setattr(train.data.pixels, "CACHE_LIMIT_BYTES", limit)
    monkeypatch.setattr(train.data.pixels, "read_pixels", lambda *a: calls.append(1) or read(*a))
    store = PixelStore(make_samples("cxr"), TASKS["cxr"], 16)
    first = [store[i].clone() for i in range(3)]
    assert all(torch.equal(store[i], first[i]) for i in range(3))
    assert len(calls) == reads
    assert first[0].shape == (1, 16, 16)


@pytest.mark.alone
def test_filled_pixels_are_shared_with_worker_processes(make_samples):
    samples = make_samples("cxr")
    store = PixelStore(samples, TASKS["cxr"], 64)
    expected = [PixelStore(samples, TASKS["cxr"], 64)[i] for i in range(3)]
    store.fill()
    for sample in samples:
        sample.path.unlink()  # nobody reads them again
    assert all(torch.equal(store[i], expected[i]) for i in range(3))
    views = TrainViews(store, 40, 3)
    keys = [(index, view) for view in range(2) for index in (2, 0, 1)]
    loader = DataLoader(
        views, 2, sampler=keys, num_workers=2, persistent_workers=True, collate_fn=collate
    )
    for _ in range(2):
        images = np.concatenate([batch[0] for batch in loader])
        assert np.array_equal(images, torch.stack([views[key][0] for key in keys]).numpy())


def test_pixels_that_do_not_fit_are_not_decoded_in_advance(make_samples, monkeypatch):
    monkeypatch.setattr(train.data.pixels, "CACHE_LIMIT_BYTES", 1)
    store = PixelStore(make_samples("cxr"), TASKS["cxr"], 16)
    monkeypatch.setattr(train.data.pixels, "read_pixels", lambda *_: pytest.fail("it was decoded"))
    store.fill()
