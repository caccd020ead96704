"""Fixtures of the engines' tests."""

import pytest
import torch

from kdmodels.engines.pytorch import TorchEngine


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    """The folder of compiled networks, for this test alone."""
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def parts(make_classifier):
    """(module, its row of the model table, eight images and five, what torch says of them all)."""
    classifier = make_classifier("vgg19")
    batch = torch.randn(13, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = TorchEngine(classifier.model, classifier.spec)(batch, features=True)
    return classifier.model, classifier.spec, batch, wanted
