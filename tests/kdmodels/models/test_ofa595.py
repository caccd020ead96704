"""`kdmodels.models.ofa595`: the network is the one that its stored configuration describes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import kdmodels
from kdmodels.models.ofa595 import build_ofa595

CONFIG = json.loads(
    (Path(kdmodels.__file__).parent / "models" / "ofa595_net.config.json").read_text()
)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_ofa595(3)


def stored_part(config, found, path="net"):
    """Every value of the stored configuration that differs in the one of the built network.

    The package renamed its classes and one key since the configuration was published, and it
    writes defaults out, so names are passed over and keys that are new are allowed.
    """
    if isinstance(config, dict):
        for key, value in config.items():
            renamed = {"mobile_inverted_conv": "conv"}.get(key, key)
            if key != "name":
                yield from stored_part(value, found[renamed], f"{path}.{key}")
    elif isinstance(config, list):
        assert len(config) == len(found), path
        for number, (value, other) in enumerate(zip(config, found, strict=True)):
            yield from stored_part(value, other, f"{path}[{number}]")
    elif config != found:
        yield path, config, found


def test_the_network_is_built_as_configured(net):
    assert list(stored_part(CONFIG, net.config)) == [("net.classifier.out_features", 1000, 3)]


def test_its_blocks_are_those_of_the_published_subnet(net):
    """Read from the layers themselves: kernel, channels within and behind, squeeze-excitation."""
    wanted, found = [], []
    for row, block in zip(CONFIG["blocks"], net.blocks, strict=True):
        row = row["mobile_inverted_conv"]
        middle = row["mid_channels"] or row["in_channels"]
        wanted.append(
            (row["kernel_size"], row["stride"], middle, row["out_channels"], row["use_se"])
        )
        depth = next(m for m in block.modules() if isinstance(m, nn.Conv2d) and m.groups > 1)
        last = [m for m in block.conv.modules() if isinstance(m, nn.Conv2d)][-1]
        excited = any("SE" in type(m).__name__ for m in block.modules())
        found.append(
            (depth.kernel_size[0], depth.stride[0], depth.groups, last.out_channels, excited)
        )
    assert found == wanted
    assert [kernel for kernel, *_ in found] == [
        *(3, 3, 5, 3, 5, 5, 3, 5, 7, 5),
        *(3, 5, 3, 5, 7, 3, 3, 3, 5, 3),
    ]
    assert net.classifier.linear.weight.shape == (3, 1536)


def test_the_number_of_classes_does_not_stick_to_the_stored_configuration(net):
    assert build_ofa595(5).classifier.linear.out_features == 5
    assert build_ofa595(3).classifier.linear.out_features == 3


def test_weights_are_random_with_the_deviation_of_he_initialisation_on_fan_out(net):
    conv = net.final_expand_layer.conv
    fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels
    assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
    assert not torch.equal(conv.weight, build_ofa595(3).final_expand_layer.conv.weight)


def test_building_writes_nothing_and_fetches_nothing(tmp_path):
    program = """
import socket
def refuse(*arguments, **options):
    raise AssertionError(f"a connection was attempted: {arguments}")
socket.socket.connect = socket.getaddrinfo = refuse
from kdmodels.models.ofa595 import build_ofa595
build_ofa595(3)
"""
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    root = str(Path(kdmodels.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": root, "HOME": str(home)}
    subprocess.run(
        [sys.executable, "-c", program], cwd=work, env=environment, check=True, timeout=200
    )
    assert list(work.iterdir()) == []
    assert not (home / ".torch").exists()
