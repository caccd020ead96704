"""`train.learn.precision`: the arithmetic follows the hardware and the network, unless it is named."""

import pytest
import torch

from kdmodels.models.zoo import MODELS, build_model, get_spec
from train.learn.precision import choose_precision

DENSE, DEPTHWISE = "vgg19", "ofa_595"
NOTHING, AMX, AVX, CUDA = set(), {"amx"}, {"avx512_bf16"}, {"cuda"}


@pytest.fixture
def hardware(monkeypatch):
    """Make torch report a machine with these features and no others."""

    def of(features: set[str]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in features)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: "amx" in features)
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda: "avx512_bf16" in features
        )

    return of


@pytest.mark.parametrize(
    "features, model, chosen",
    [
        (NOTHING, DENSE, "no"),
        (NOTHING, DEPTHWISE, "no"),
        (AVX, DENSE, "bf16"),
        (AVX, DEPTHWISE, "no"),  # 1.6 times as slow there, and with AMX
        (AMX | AVX, DENSE, "bf16"),
        (AMX | AVX, DEPTHWISE, "no"),
        (CUDA, DENSE, "bf16"),
        (CUDA, DEPTHWISE, "bf16"),
    ],
)
def test_auto_follows_the_hardware_and_the_network(hardware, features, model, chosen):
    hardware(features)
    assert choose_precision("auto", get_spec(model)) == chosen


@pytest.mark.parametrize("features", [NOTHING, AVX, AMX | AVX, CUDA], ids=sorted)
@pytest.mark.parametrize("wanted, chosen", [("float32", "no"), ("bf16", "bf16")])
@pytest.mark.parametrize("model", list(MODELS))
def test_what_is_named_is_taken_whatever_the_hardware(hardware, features, wanted, chosen, model):
    hardware(features)
    assert choose_precision(wanted, get_spec(model)) == chosen


@pytest.mark.parametrize("model", list(MODELS))
def test_the_table_says_which_networks_are_built_of_depthwise_convolutions(model):
    with torch.device("meta"):  # the layers alone, no weights
        modules = list(build_model(model, 3).modules())
    depthwise = [m for m in modules if isinstance(m, torch.nn.Conv2d) and m.groups == m.in_channels]
    assert get_spec(model).depthwise == (len(depthwise) > 0)


def test_this_machine_is_asked_in_terms_that_torch_knows():
    """The functions are private ones of torch: a release without them must be noticed."""
    assert choose_precision("auto", get_spec(DENSE)) in ("no", "bf16")
