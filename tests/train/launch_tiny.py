"""`python -m train` with small networks without BatchNorm in the model table: started by tests.

The statistics of BatchNorm are those of each process's part of a batch, so only a network without
it can give the same losses with any number of processes. `KILL_AT=<n>` ends this process with
SIGKILL in its n-th training step.
"""

import os
import signal
import sys
from dataclasses import replace

import torch
from timm.utils import ModelEmaV3
from torch import nn

from kdmodels.models.zoo import MODELS, ModelSpec
from train.__main__ import main

CHANNELS = {"vgg19": 12, "visformer_s": 10, "autoformerv2_t": 8, "ofa_595": 6}


class PlainNet(nn.Module):
    """Two convolutions, group normalisation and a linear head; `features` are (N, C, 8, 8)."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 5, 4, 2), nn.GroupNorm(2, channels))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.features = nn.Identity()
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(self.conv(self.stem(images).relu()).relu()).mean((2, 3)))


def plain_spec(spec: ModelSpec) -> ModelSpec:
    """The row of a model with a `PlainNet` of a width of its own in place of the real network."""
    channels = CHANNELS[spec.id]
    return replace(
        spec,
        builder=lambda num_classes, *_: PlainNet(num_classes, channels),
        input_size=32,
        cam_layer="features",
        cam_channels=channels,
        cam_reshape=None,
        head="head",
        mix=None,
        fit_state=None,
    )


def kill_at(step: int) -> None:
    """End this process as `kill -9` does when the weights have been changed that many times."""
    update = ModelEmaV3.update
    done = 0

    def counted(*args, **kwargs):
        nonlocal done
        done += 1
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(*args, **kwargs)

    ModelEmaV3.update = counted


if __name__ == "__main__":
    for row in list(MODELS.values()):
        MODELS[row.id] = plain_spec(row)
    if "KILL_AT" in os.environ:
        kill_at(int(os.environ["KILL_AT"]))
    sys.exit(main())
