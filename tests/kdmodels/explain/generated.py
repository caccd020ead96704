"""Generated channels and scores, so that the exact map is known."""

import torch

from kdmodels.explain.channels import unit_masks


def hills(count, side, seed):
    """(count, side, side) activations: a hill each, at a random place, of random width and height."""
    generator = torch.Generator().manual_seed(seed)
    x, y, width, height = torch.rand(4, count, 1, 1, generator=generator, dtype=torch.float64)
    at = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    squares = (at[None, None] - x) ** 2 + (at[None, :, None] - y) ** 2
    return (0.2 + height) * torch.exp(-squares / (0.02 + 0.1 * width)) + 0.1 * height


def scores_of(activations, noise=0.0, seed=0):
    """(C,) what a network might say of the masks: more for light at the upper left, saturating."""
    masks = unit_masks(activations)
    side = masks.shape[-1]
    at = torch.linspace(1, -1, side, dtype=torch.float64)
    light = (masks * (at[None] + at[:, None])).mean((1, 2)) + 0.5 * masks.mean((1, 2))
    generator = torch.Generator().manual_seed(seed)
    rest = torch.randn(len(masks), generator=generator, dtype=torch.float64)
    return 3 * torch.tanh(3 * light) + noise * rest
