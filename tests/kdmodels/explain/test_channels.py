"""`kdmodels.explain.channels`: torchcam's masks and masked images, no needless run, a bounded memory."""

import pytest
import torch
from torch import nn
from torchcam.methods import ScoreCAM

from kdmodels.explain.channels import Channels, Kept, MaskedImages, unit_masks


def test_masked_images_are_those_of_torchcam(make_classifier, photo):
    classifier = make_classifier("visformer_s")
    images, seen = classifier.prepare(photo), []
    with ScoreCAM(classifier.model, "features", batch_size=10) as extractor:
        classifier.model(images)
        features = extractor.hook_a[0][0].clone()
        handle = classifier.model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        extractor(0)
        handle.remove()
    masked = MaskedImages(images[0], unit_masks(features))
    torch.testing.assert_close(masked(list(range(10))), seen[-1].contiguous())


def test_the_buffer_is_used_again_and_grows():
    masked = MaskedImages(torch.rand(3, 16, 16), torch.rand(5, 4, 4))
    small = masked([0, 1]).clone()
    assert masked([2]).data_ptr() == masked([3]).data_ptr()
    large = masked([0, 1, 4])
    torch.testing.assert_close(large[:2], small)
    assert masked([1]).data_ptr() == large.data_ptr()
    torch.testing.assert_close(masked([1])[0], small[1])


@pytest.fixture
def features():
    """Nine channels, of which 2 and 5 are flat and zero, and 7 is flat and is not."""
    maps = torch.rand(9, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    maps[[2, 5]] = 0
    return maps


def test_flat_channels_that_are_zero_are_not_run(features):
    channels = Channels(features, torch.zeros(3))
    assert channels.runs.tolist() == [0, 1, 3, 4, 6, 7, 8]
    assert channels.total == 9 and channels.done == 2 and len(channels.left) == 7
    channels.record(channels.left, torch.zeros(7, 3))
    assert channels.done == 9 and not channels.left


def test_one_run_stands_for_all_flat_channels(features):
    features[7] = 0.3
    features[5] = 0.5
    channels = Channels(features, torch.zeros(2))
    assert channels.runs.tolist() == [0, 1, 3, 4, 6, 8, 2]  # 2, 5 and 7 are flat
    assert not channels.masks[-1].any()
    torch.testing.assert_close(channels.activations[-1], torch.full((4, 4), 0.8))
    channels.record([0, 1, 2, 3, 4, 5], torch.zeros(6, 2))
    assert channels.done == 6
    channels.record([6], torch.zeros(1, 2))
    assert channels.done == 9


def test_a_weighted_sum_over_the_runs_is_one_over_all_channels(features):
    """With the scores that a linear network would give, black images having one score."""
    features[7] = 0.3
    channels = Channels(features, torch.tensor([0.7]))
    network = nn.Linear(16, 1)
    with torch.no_grad():
        by_run, by_channel = (network(m.flatten(1)) for m in (channels.masks, unit_masks(features)))
        channels.record(channels.left, by_run)
        wanted = torch.einsum("k,kij->ij", (by_channel[:, 0] - 0.7).exp(), features)
        found = torch.einsum("k,kij->ij", channels.scores(0).exp(), channels.activations)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("where", ["features", "baseline", "logits"])
def test_what_is_no_number_ends_the_work(features, where):
    baseline, logits = torch.zeros(2), torch.zeros(1, 2)
    broken = {"features": features, "baseline": baseline, "logits": logits}[where]
    broken.view(-1)[1] = float("nan")
    channels = Channels(features, baseline)
    assert channels.finite == (where == "logits")
    channels.record([0], logits)
    assert not channels.finite and not channels.left and channels.done == channels.total


def channels_of(size):
    return Channels(torch.rand(size, 4, 4), torch.zeros(2))


def test_the_least_recently_used_go_when_there_is_no_room():
    one = channels_of(10)
    kept = Kept(limit=3 * one.bytes)
    for key in "abc":
        kept.put(key, channels_of(10))
    assert kept.get("a") is not None
    kept.put("d", channels_of(10))
    assert kept.get("b") is None
    assert all(kept.get(key) is not None for key in "acd")
    kept.put("e", channels_of(20))  # as large as two
    assert [key for key in "acde" if kept.get(key)] == ["d", "e"]
    kept.put("f", channels_of(100))  # larger than all that may be kept
    assert not any(kept.get(key) for key in "def")


def test_what_is_kept_is_counted_to_the_byte():
    channels = channels_of(10)
    size = 10 * (16 + 16 + 2) * 4 + 2 * 4 + 10 * (1 + 8 + 8)
    assert channels.bytes == size
