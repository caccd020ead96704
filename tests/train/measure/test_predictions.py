"""`train.measure.predictions`: weights are measured on what the app would show them."""

import numpy as np
import pytest
import torch

from kdmodels.images.read import read_image
from kdmodels.tasks import TASKS
from train.measure.predictions import logits_of


@pytest.mark.parametrize("task", TASKS)
def test_logits_are_the_apps_own(make_classifier, make_manifest, task):
    classifier = make_classifier("ofa_595", task)
    samples = make_manifest(train=0, val=0, test=2, task=task).split("test")
    logits = logits_of(classifier, samples, batch_size=4)
    assert (logits.shape, logits.dtype) == ((len(samples), len(samples) // 2), np.float64)
    for row, sample in zip(logits, samples, strict=True):
        with torch.no_grad():
            own = classifier.model(classifier.prepare(read_image(sample.path).pixels))[0]
        assert row == pytest.approx(own.numpy(), abs=1e-5)
