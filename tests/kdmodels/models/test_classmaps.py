"""`kdmodels.models.classmaps`: each place's evidence is what the network's own head says of it alone."""

import pytest
import torch
from torch import nn

from kdmodels.models.classmaps import class_maps, maps_of, tapped
from kdmodels.models.zoo import MODELS, ModelSpec, build_model, get_spec

CLASSES, SIDE = 5, 64
CELLS = {"vgg19": 4, "visformer_s": 2, "autoformerv2_t": 2, "ofa_595": 2}  # a side, at 64 px
POOLING_ONLY = ("visformer_s", "autoformerv2_t")


def head_of(model: nn.Module, spec: ModelSpec, features: torch.Tensor) -> torch.Tensor:
    """What the network's own forward pass does after the Score-CAM layer, less VGG19's pooling."""
    if spec.id == "ofa_595":
        mixed = model.feature_mix_layer(model.global_avg_pool(features))
        return model.classifier(mixed.view(len(features), -1))
    return model.forward_head(features.permute(0, 2, 3, 1) if spec.cam_reshape else features)


def images_of(number: int = 2, side: int = SIDE) -> torch.Tensor:
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(number))


def hooks_of(model: nn.Module) -> int:
    names = [name for name in vars(nn.Module()) if name.endswith("_hooks")]
    return sum(len(getattr(module, name)) for module in model.modules() for name in names)


@pytest.fixture(scope="module")
def real():
    """The real networks for images of 64 px, with running statistics and biases that are not 0."""
    torch.manual_seed(11)
    networks = {model: build_model(model, CLASSES, SIDE) for model in MODELS}
    for network in networks.values():
        with torch.no_grad():
            network.train()(images_of(4))
            for name, parameter in network.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.1)
        network.eval()
    return networks


@pytest.fixture
def tiny(tiny_models):
    return {model: build_model(model, CLASSES).eval() for model in tiny_models}


def answered(model: nn.Module, spec: ModelSpec, images: torch.Tensor):
    """Logits, features and class maps of a pass."""
    with tapped(model, spec) as tap:
        logits = model(images)
    return logits, tap["features"], class_maps(model, spec, tap["features"])


# --- the maps --------------------------------------------------------------------------


@pytest.mark.parametrize("model", POOLING_ONLY)
def test_the_mean_of_the_maps_is_the_logits_of_the_real_networks(real, model):
    with torch.no_grad():
        logits, _, maps = answered(real[model], get_spec(model), images_of())
    torch.testing.assert_close(maps.mean((2, 3)), logits, rtol=1e-4, atol=1e-5)
    assert maps.std((2, 3)).min() > 0  # and not because all places are alike


@pytest.mark.parametrize("model", list(MODELS))
def test_the_mean_of_the_maps_is_the_logits_of_the_tiny_networks(tiny, model):
    with torch.no_grad():
        logits, features, maps = answered(tiny[model], get_spec(model), images_of(side=32))
    assert maps.shape == (2, CLASSES, 8, 8) and features.shape[2:] == (8, 8)
    torch.testing.assert_close(maps.mean((2, 3)), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", list(MODELS))
def test_a_place_of_a_map_is_what_the_head_says_of_that_place(real, model):
    spec, network = get_spec(model), real[model]
    with torch.no_grad():
        _, features, maps = answered(network, spec, images_of())
        assert features.shape == (2, spec.cam_channels, CELLS[model], CELLS[model])
        assert maps.shape == (2, CLASSES, CELLS[model], CELLS[model])
        for y in range(CELLS[model]):
            for x in range(CELLS[model]):
                alone = head_of(network, spec, features[:, :, y : y + 1, x : x + 1])
                torch.testing.assert_close(maps[:, :, y, x], alone, rtol=1e-4, atol=1e-5)
    assert maps.std((2, 3)).min() > 0


@pytest.mark.parametrize("model", list(MODELS))
def test_the_head_at_hand_is_all_that_comes_after_the_features(real, model):
    """So that no layer between features and logits is forgotten; VGG19 pools once more."""
    spec, network = get_spec(model), real[model]
    with torch.no_grad():
        logits, features, _ = answered(network, spec, images_of())
        if model == "vgg19":
            features = nn.functional.max_pool2d(features, 2)
        torch.testing.assert_close(head_of(network, spec, features), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", list(MODELS))
def test_each_image_gets_the_map_of_its_own_label(tiny, model):
    spec, labels = get_spec(model), torch.tensor([4, 0, 2])
    with torch.no_grad():
        _, features, maps = answered(tiny[model], spec, images_of(3, 32))
        chosen = maps_of(tiny[model], spec, features, labels)
    assert chosen.shape == (3, 8, 8)
    for number, label in enumerate(labels.tolist()):
        assert torch.equal(chosen[number], maps[number, label])


# --- gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("model", list(MODELS))
def test_a_map_teaches_the_whole_network(real, model):
    spec, network = get_spec(model), real[model]
    network.zero_grad()
    with tapped(network, spec) as tap:
        network(images_of())
        maps = maps_of(network, spec, tap["features"], torch.tensor([1, 3]))
    maps.square().mean().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    network.zero_grad()
    assert [name for name in still if not name.endswith("bias")] == []
    assert next(name for name, _ in network.named_parameters()) not in still


@pytest.mark.parametrize("model", list(MODELS))
def test_the_gradient_of_a_maps_mean_is_that_of_the_logit(tiny, model):
    spec, network, labels = get_spec(model), tiny[model].double(), torch.tensor([2, 0])
    images = images_of(side=32).double()
    with tapped(network, spec) as tap:
        logits = network(images)
        maps = maps_of(network, spec, tap["features"], labels)
    parameters = list(network.parameters())
    wanted = torch.autograd.grad(logits[[0, 1], labels].sum(), parameters, retain_graph=True)
    found = torch.autograd.grad(maps.mean((1, 2)).sum(), parameters)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert all(gradient.any() for gradient in wanted)


# --- the hook --------------------------------------------------------------------------


@pytest.mark.parametrize("model", list(MODELS))
def test_no_hook_is_left_and_later_passes_are_not_recorded(tiny, model):
    spec, network = get_spec(model), tiny[model]
    with tapped(network, spec) as tap:
        assert hooks_of(network) == 1
        network(images_of(side=32))
        network(images_of(3, 32))
    assert len(tap["features"]) == 3  # the latest pass
    assert hooks_of(network) == 0
    network(images_of(4, 32))
    assert len(tap["features"]) == 3


def test_no_hook_is_left_by_an_exception(tiny):
    spec, network = get_spec("vgg19"), tiny["vgg19"]
    with pytest.raises(KeyboardInterrupt), tapped(network, spec):
        raise KeyboardInterrupt
    assert hooks_of(network) == 0
    with pytest.raises(RuntimeError, match="channels"), tapped(network, spec):
        network(torch.zeros(1, 5, 32, 32))
    assert hooks_of(network) == 0


def test_tapping_changes_no_answer(tiny):
    network, images = tiny["autoformerv2_t"], images_of(side=32)
    before = network(images)
    with tapped(network, get_spec("autoformerv2_t")):
        assert torch.equal(network(images), before)


def test_networks_and_taps_do_not_mix(tiny):
    first, second = tiny["vgg19"], tiny["ofa_595"]
    with (
        tapped(first, get_spec("vgg19")) as outer,
        tapped(second, get_spec("ofa_595")) as inner,
        tapped(first, get_spec("vgg19")) as again,
    ):
        second(images_of(side=32))
        assert not outer and inner["features"].shape[1] == get_spec("ofa_595").cam_channels
        first(images_of(side=32))
        assert torch.equal(outer["features"], again["features"])
    assert hooks_of(first) == hooks_of(second) == 0
