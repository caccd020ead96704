"""`train.learn.guides`: the ImageNet network's features, and what may go wrong with its file."""

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

import train.learn.guides
from train.data.manifest import DataError
from train.data.pixels import EvalViews, PixelStore
from train.learn.guides import Guide, GuideFeatures
from train.learn.views import TrainViews

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A weights file of the ImageNet network, with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("guide") / "mobilenet.safetensors"
    save_file(timm.create_model(train.learn.guides.MODEL, pad_type="same").state_dict(), path)
    return path


class Moments(nn.Module):
    """(N, 3, H, W) -> (N, 4): mean and deviation, a multiple of the mean, and what never varies."""

    def forward(self, images):
        mean, deviation = images.mean((1, 2, 3)), images.std((1, 2, 3))
        return torch.stack([mean, deviation, 50 * mean + 3, torch.full_like(mean, 2.5)], dim=1)


@pytest.fixture
def images(make_manifest):
    manifest = make_manifest(train=3, val=2, test=0)
    store = PixelStore(manifest.split("train"), manifest.task, 48)
    return TrainViews(store, 32, seed=3), EvalViews(manifest.split("val"), manifest.task, 32)


@pytest.fixture
def features(images, tmp_path) -> GuideFeatures:
    return GuideFeatures(Guide(Moments(), "ab" * 32, size=32), images[0], 2, tmp_path / "kept", CPU)


def test_the_features_are_those_before_the_head(file):
    whole = timm.create_model(train.learn.guides.MODEL, pad_type="same").eval()
    whole.load_state_dict(load_file(file))
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    found = Guide.load(file)(pixels, torch.zeros(2, dtype=torch.long))
    assert found.maps is None and found.logits.shape == (2, 1280)
    with torch.no_grad():
        wanted = whole.forward_head(
            whole.forward_features(pixels.float() / 127.5 - 1), pre_logits=True
        )
    torch.testing.assert_close(found.logits, wanted, rtol=1e-4, atol=1e-5)


def test_timms_own_weights_are_fed_as_they_were_trained(file, monkeypatch):
    create = timm.create_model

    def fetched(name, pretrained=False, **settings):
        assert pretrained  # the same weights as in the file, so that only their use differs
        model = create(name, **settings)
        model.load_state_dict(load_file(file), strict=False)
        return model

    of_file = Guide.load(file)
    monkeypatch.setattr(timm, "create_model", fetched)
    own = Guide.load(None)
    assert (own.mean, own.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    assert own.sha256 != of_file.sha256
    assert of_file.mean == of_file.std == (0.5, 0.5, 0.5)


def test_another_file_is_another_guide(file, tmp_path):
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_file(timm.create_model(train.learn.guides.MODEL, pad_type="same").state_dict(), other)
    assert Guide.load(file).sha256 == Guide.load(file).sha256 != Guide.load(other).sha256


def test_the_targets_are_standardised_over_all_views(features, images):
    values = features.targets.logits
    assert features.targets.maps is None and features.width == 4
    assert values.shape == (len(images[0]), 2, 4)
    torch.testing.assert_close(values.mean((0, 1)), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(values[..., :3].std((0, 1)), torch.ones(3), rtol=1e-4, atol=0)
    torch.testing.assert_close(values[..., 0], values[..., 2], rtol=1e-3, atol=1e-3)
    assert torch.equal(values[..., 3], torch.zeros_like(values[..., 3]))  # and not a division by 0


def test_a_batch_gets_the_features_of_its_own_views(features, images):
    answers = features.targets.of(torch.tensor([4, 0]), torch.tensor([1, 0]), CPU)
    for row, (index, view) in zip(answers.logits, [(4, 1), (0, 0)], strict=True):
        image, label, *_ = images[0][index, view]
        raw = features.guide(image[None], torch.tensor([label])).logits[0]
        torch.testing.assert_close(row, (raw - features.mean) / features.deviation)


def test_other_images_are_standardised_by_the_training_views(features, images):
    found = features.of_images(images[1])
    assert found.shape == (len(images[1]), 4)
    raw = features.guide(images[1][3][0][None], torch.zeros(1)).logits[0]
    torch.testing.assert_close(found[3], (raw - features.mean) / features.deviation)


@pytest.mark.parametrize("content", [None, b"no weights", "other network"])
def test_a_file_that_holds_something_else_is_said(tmp_path, content):
    path = tmp_path / "mine.safetensors"
    if content == "other network":
        save_file({"weight": torch.zeros(2)}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.safetensors does not hold the weights of mobile"):
        Guide.load(path)


def test_a_hub_out_of_reach_is_said(use_hub, monkeypatch):
    use_hub("http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # spares a minute of trying again
    with pytest.raises(DataError, match=r"could not be fetched .*; name a file with --guide"):
        Guide.load(None)
