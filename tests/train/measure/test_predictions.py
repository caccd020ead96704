"""`train.measure.predictions`: logits of the images as the page sees them, whatever the batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdmodels.engines.pytorch import TorchEngine
from kdmodels.images.read import read_image
from kdmodels.predict import predict
from kdmodels.tasks import TASKS
from train.measure.predictions import answered, logits_of, served_logits


@pytest.fixture
def samples(make_manifest):
    return make_manifest(train=1, val=1, test=3).split("test")


def test_logits_are_those_that_the_page_computes(tiny_classifier, samples):
    wanted = [predict(tiny_classifier, read_image(s.path).pixels).logits for s in samples]
    for found in (logits_of(tiny_classifier, samples), served_logits(tiny_classifier, samples)):
        assert found.dtype == np.float64
        assert found == pytest.approx(np.array(wanted), abs=1e-5)


def test_batches_do_not_matter(tiny_classifier, samples):
    one, many = (logits_of(tiny_classifier, samples, size) for size in (1, 16))
    assert one == pytest.approx(many, abs=1e-5)


def test_what_is_served_comes_from_the_classifiers_engine(tiny_classifier, samples):
    class Doubled(TorchEngine):
        def _run(self, images, features):
            outputs = super()._run(images, features)
            return replace(outputs, logits=2 * outputs.logits)

    engine = Doubled(tiny_classifier.model, tiny_classifier.spec)
    tiny_classifier.__dict__["engine"] = engine
    twice = 2 * logits_of(tiny_classifier, samples)
    assert served_logits(tiny_classifier, samples) == pytest.approx(twice, abs=1e-5)


def test_a_run_that_is_not_shipped_is_not_served(tiny_classifier, make_manifest):
    manifest = make_manifest(train=1, val=1, test=1)
    run = answered(tiny_classifier, manifest, "digest")
    assert (run.served, run.served_by, run.shipped) == (None, None, False)
    shipped = replace(tiny_classifier.checkpoint, file="a.safetensors")
    run = answered(replace(tiny_classifier, checkpoint=shipped), manifest, "digest")
    assert run.served.shape == run.test.shape == (3, 3) and run.served_by == run.engine


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
