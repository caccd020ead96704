"""The network that finds lungs: a small U-Net.

Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI
2015, with padding, batch normalisation and a fraction of the channels.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

CHANNELS = (16, 32, 64, 128, 128)
SIDE = 128  # px of the square input


class _Block(nn.Sequential):
    """Two 3 x 3 convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            layers += [
                nn.Conv2d(width, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class LungNet(nn.Module):
    """(N, 1, S, S) films, each at mean 0 and deviation 1 -> (N, 1, S, S) logits of being lung.

    S must be a multiple of 16; trained at `SIDE`. 1.2 M parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _Block(a, b) for a, b in zip((1, *CHANNELS), CHANNELS, strict=False)
        )
        ups = CHANNELS[::-1]
        self.up = nn.ModuleList(_Block(a + b, b) for a, b in itertools.pairwise(ups))
        self.head = nn.Conv2d(CHANNELS[0], 1, 1)

    def forward(self, films: Tensor) -> Tensor:
        kept: list[Tensor] = []
        features = films
        for number, block in enumerate(self.down):
            if number:
                features = nn.functional.max_pool2d(features, 2)
            features = block(features)
            kept.append(features)
        for block, beside in zip(self.up, kept[-2::-1], strict=True):
            features = interpolate(features, scale_factor=2.0, mode="bilinear")
            features = block(torch.cat([features, beside], 1))
        return self.head(features)


def standardised(films: Tensor) -> Tensor:
    """(N, 1, S, S) grey values of any range -> float32, each film at mean 0 and deviation 1.

    A film of one grey becomes zeros.
    """
    films = films.float()
    deviation, mean = torch.std_mean(films, (1, 2, 3), keepdim=True, correction=0)
    return (films - mean) / deviation.clamp_min(1e-3)
