"""`kdmodels.models.zoo`: the architectures that the tables speak of, with random weights."""

import copy
import socket

import pytest
import torch
from torch import nn

from kdmodels.models.zoo import (
    MODELS,
    STUDENTS,
    TEACHERS,
    build_model,
    count_macs,
    count_parameters,
    get_spec,
    load_fitted,
)

PARAMETERS = {  # with three classes
    "vgg19": 20_036_931,
    "visformer_s": 39_452_899,
    "autoformerv2_t": 27_561_981,
    "ofa_595": 7_603_539,
}
FEATURES = {"vgg19": 512, "visformer_s": 768, "autoformerv2_t": 768, "ofa_595": 1536}
GIGA_MACS = {"vgg19": 19.5, "visformer_s": 4.88, "autoformerv2_t": 4.62, "ofa_595": 0.594}
CAM_SIDE = {"vgg19": 14, "visformer_s": 7, "autoformerv2_t": 7, "ofa_595": 8}
SMALL = {"vgg19": 64, "visformer_s": 96, "autoformerv2_t": 96, "ofa_595": 64}
# The tensors that depend on the input size, by what their names contain.
POSITIONS = {"visformer_s": "pos_embed", "autoformerv2_t": "relative_position_bias_table"}

every_model = pytest.mark.parametrize("model_id", list(MODELS))


@pytest.fixture(scope="module")
def connections():
    """Where to connections were attempted while the models below were built."""
    return []


@pytest.fixture(scope="module")
def built(connections):
    """Build a model without a network, and only once: `built(model_id, classes, small)`."""
    models = {}

    def refuse(*address, **options):
        connections.append(address)
        raise OSError("there is no network here")

    def get(model_id, num_classes=3, small=False):
        key = (model_id, num_classes, small)
        if key not in models:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(socket.socket, "connect", refuse)
                patch.setattr(socket, "getaddrinfo", refuse)
                torch.manual_seed(len(models))
                size = SMALL[model_id] if small else None
                models[key] = build_model(model_id, num_classes, size).eval().requires_grad_(False)
        return models[key]

    return get


@every_model
def test_logits_and_feature_maps_have_the_shapes_of_the_table(built, model_id):
    spec, model, kept = get_spec(model_id), built(model_id), []
    layer = model.get_submodule(spec.cam_layer)
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.inference_mode():
        logits = model(torch.zeros(1, 3, spec.input_size, spec.input_size))
    handle.remove()
    assert logits.shape == (1, 3) and logits.dtype == torch.float32
    (features,) = kept
    features = spec.cam_reshape(features) if spec.cam_reshape else features
    assert features.shape == (1, spec.cam_channels, CAM_SIDE[model_id], CAM_SIDE[model_id])


@every_model
def test_five_classes_give_five_logits(built, model_id):
    model = built(model_id, 5, small=True)
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, SMALL[model_id], SMALL[model_id])).shape == (2, 5)


@every_model
def test_parameters_are_counted(built, model_id):
    assert count_parameters(built(model_id)) == PARAMETERS[model_id]


@every_model
def test_each_further_class_adds_one_row_to_the_last_layer(built, model_id):
    """So nothing else depends on the number of classes. At one input size, as position tensors do."""
    more = count_parameters(built(model_id, 5, small=True))
    assert more - count_parameters(built(model_id, 3, small=True)) == 2 * (FEATURES[model_id] + 1)


@every_model
def test_operations_are_counted_at_the_size_of_evaluation(built, model_id):
    macs = count_macs(built(model_id), get_spec(model_id).input_size)
    assert macs / 1e9 == pytest.approx(GIGA_MACS[model_id], rel=2e-3)
    if model_id == "ofa_595":
        assert f"{macs / 1e9:.3f}" == "0.594"


def test_operations_of_a_known_network_are_exact():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 5)
    )
    net.train()
    assert count_macs(net, 4) == 16 * 8 * 3 * 9 + 8 * 16 * 5
    assert net.training and net[1].num_batches_tracked == 0  # counting leaves no trace


@every_model
def test_building_fetches_nothing(built, connections, model_id):
    built(model_id)
    assert connections == []


@pytest.mark.parametrize("model_id", [i for i in MODELS if MODELS[i].pretrained])
def test_pretrained_weights_are_asked_for_by_their_name(monkeypatch, model_id):
    asked = []

    class Asked(Exception):
        pass

    def create_model(name, pretrained, **options):
        asked.append((name, pretrained))
        raise Asked

    monkeypatch.setattr("timm.create_model", create_model)
    with pytest.raises(Asked):
        build_model(model_id, 3, pretrained=True)
    assert asked == [(get_spec(model_id).pretrained, True)]


def test_ofa_595_says_that_it_has_no_pretrained_weights():
    assert get_spec("ofa_595").pretrained is None
    with pytest.raises(ValueError, match="train it from scratch"):
        build_model("ofa_595", 3, pretrained=True)


@every_model
def test_a_state_moves_between_input_sizes_and_changes_in_position_tensors_only(built, model_id):
    full, small = built(model_id), built(model_id, small=True)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    # A constant stays the same constant under any resampling.
    state = {
        name: torch.full_like(tensor, 0.25) if is_position(model_id, name) else tensor.clone()
        for name, tensor in full.state_dict().items()
    }
    given = {name: tensor.clone() for name, tensor in state.items()}
    try:
        load_fitted(model_id, small, state)
        moved = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    finally:
        small.load_state_dict(before)
    assert state.keys() == given.keys()
    assert all(torch.equal(state[name], given[name]) for name in given)  # not changed in place
    reshaped = {name for name in moved if moved[name].shape != given[name].shape}
    assert all(is_position(model_id, name) for name in reshaped)
    assert bool(reshaped) == (model_id in POSITIONS)
    for name, tensor in moved.items():
        if is_position(model_id, name):
            torch.testing.assert_close(tensor, torch.full_like(tensor, 0.25), msg=name)
        else:
            assert torch.equal(tensor, given[name]), name


def is_position(model_id, name):
    return model_id in POSITIONS and POSITIONS[model_id] in name


@pytest.mark.parametrize("model_id", list(POSITIONS))
def test_smooth_positions_survive_the_way_to_another_size_and_back(built, model_id):
    full, small = built(model_id), built(model_id, small=True)
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in (full, small)]
    state = {k: v.clone() for k, v in before[0].items()}
    for name, tensor in state.items():
        if is_position(model_id, name):
            tensor.copy_(ramp(tensor))
    try:
        load_fitted(model_id, small, state)
        load_fitted(model_id, full, {k: v.clone() for k, v in small.state_dict().items()})
        back = {k: v.clone() for k, v in full.state_dict().items()}
    finally:
        full.load_state_dict(before[0])
        small.load_state_dict(before[1])
    for name, tensor in state.items():
        if is_position(model_id, name):
            assert torch.corrcoef(torch.stack([tensor.flatten(), back[name].flatten()]))[0, 1] > 0.9
        else:
            assert torch.equal(back[name], tensor), name


def ramp(positions):
    """Rises evenly over the rows and half as fast over the columns of any position tensor."""
    if positions.ndim == 4:  # (1, C, h, w)
        height, width = positions.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return ((y + 0.5) / height + 0.5 * (x + 0.5) / width).expand_as(positions)
    side = int(positions.shape[0] ** 0.5)  # ((2w - 1)^2, heads)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((y + 0.5) / side + 0.5 * (x + 0.5) / side).reshape(-1, 1).expand_as(positions)


@every_model
def test_a_state_of_the_same_size_gives_the_same_logits(built, model_id):
    model, side = built(model_id, small=True), SMALL[model_id]
    other = copy.deepcopy(model)
    for tensor in other.state_dict().values():
        tensor.zero_()
    load_fitted(model_id, other, model.state_dict())
    images = torch.linspace(-2, 2, 3 * side * side).reshape(1, 3, side, side)
    with torch.inference_mode():
        assert torch.equal(other(images), model(images))


def test_a_state_that_does_not_fit_is_not_loaded_in_part(built):
    model = built("ofa_595", small=True)
    state = dict(model.state_dict())
    state.pop("classifier.linear.weight")
    with pytest.raises(RuntimeError, match=r"classifier\.linear\.weight"):
        load_fitted("ofa_595", model, state)


def test_three_teachers_and_one_student_are_known():
    assert TEACHERS == ("vgg19", "visformer_s", "autoformerv2_t")
    assert STUDENTS == ("ofa_595",)
    assert all(model_id == spec.id for model_id, spec in MODELS.items())


@pytest.mark.parametrize("look_up", [get_spec, lambda i: build_model(i, 3)])
def test_an_unknown_model_is_answered_with_the_known_ones(look_up):
    known = "vgg19, visformer_s, autoformerv2_t, ofa_595"
    with pytest.raises(ValueError, match=rf"no model 'resnet'; the models are: {known}\."):
        look_up("resnet")
