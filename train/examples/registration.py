"""Lay films of many patients over each other: affine first, then a smooth displacement.

Groupwise: every film is moved towards the mean of all, which is taken anew in each round, so that
no single film sets the shape. Similarity is the correlation of locally normalised grey values,
which does not mind exposure.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = ((32, 60), (64, 40))
"""Thumbnail side in px and steps of each affine round."""

_WARPS = ((64, 5, 60), (128, 9, 50))
"""Thumbnail side in px, control points a side, and steps of each round of displacements."""

_STIFF = 2.0  # what moving and stretching cost: films that are hard to match stay where they are
_SMOOTH = 20.0  # what bending costs
_MARGIN = 0.1  # of each side that does not count: letters, shutters, shoulders


@dataclass(frozen=True)
class Placement:
    """Where each of N films comes to lie: theta (N, 2, 3), and control (N, 2, G, G) or None.

    Both in units of `affine_grid`: the picture reaches from -1 to 1.
    """

    theta: Tensor
    control: Tensor | None = None

    def apply(self, films: Tensor) -> Tensor:
        """films: (N, 1, S, S) -> the same films moved, with their edges repeated outwards."""
        grid = F.affine_grid(self.theta, list(films.shape), align_corners=False)
        if self.control is not None:
            grid = grid + _spread(self.control, films.shape[-1])
        return F.grid_sample(
            films, grid, mode="bicubic", padding_mode="border", align_corners=False
        )


def _spread(control: Tensor, side: int) -> Tensor:
    """(N, 2, G, G) control points -> (N, side, side, 2) displacements."""
    field = F.interpolate(control, size=(side, side), mode="bicubic", align_corners=True)
    return field.permute(0, 2, 3, 1)


def blur(films: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (N, 1, S, S) with reflected edges; sigma in px."""
    reach = min(max(1, round(3 * sigma)), films.shape[-1] - 1)
    x = torch.arange(-reach, reach + 1, dtype=films.dtype)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    films = F.conv2d(F.pad(films, (reach, reach, 0, 0), mode="reflect"), kernel)
    return F.conv2d(F.pad(films, (0, 0, reach, reach), mode="reflect"), kernel.mT)


def local_contrast(films: Tensor, sigma: float) -> Tensor:
    """(N, 1, S, S) less the mean and over the deviation of each point's surroundings."""
    detail = films - blur(films, sigma)
    return detail / (blur(detail**2, sigma).sqrt() + 0.02)


def likeness(films: Tensor, others: Tensor) -> Tensor:
    """Correlation of pairs, edges left out: (N, 1, S, S) and (N or 1, 1, S, S) -> (N,)."""
    cut = round(films.shape[-1] * _MARGIN)
    a, b = (t[..., cut:-cut, cut:-cut].flatten(1) for t in (films, others))
    a, b = (t - t.mean(1, keepdim=True) for t in (a, b))
    return F.cosine_similarity(a, b.expand_as(a), dim=1)


def _thumbnails(films: Tensor, side: int) -> Tensor:
    small = F.interpolate(films, size=(side, side), mode="area")
    return local_contrast(small, side / 10)


def _climb(placement: Placement, small: Tensor, steps: int) -> Placement:
    """Adam on the mean likeness of each film to the mean of all, less what moving costs."""
    bending = placement.control is not None
    start = torch.eye(2, 3)
    moved = (placement.control if bending else placement.theta - start).clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=0.01)
    for _ in range(steps):
        # The mean move is none: else the whole group drifts to where it looks most alike.
        centred = moved - moved.mean(0, keepdim=True)
        if bending:
            at = Placement(placement.theta, centred)
            cost = _SMOOTH * sum((d**2).mean() for d in torch.gradient(centred, dim=(2, 3)))
        else:
            at = Placement(start + centred)
            cost = _STIFF * (centred**2).mean()
        films = at.apply(small)
        loss = cost - likeness(films, films.mean(0, keepdim=True).detach()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Placement(at.theta.detach(), None if at.control is None else at.control.detach())


def align(films: Tensor) -> Placement:
    """Affine placement of N films on their common mean. films: (N, 1, S, S) in [0, 1]."""
    placement = Placement(torch.eye(2, 3).repeat(len(films), 1, 1))
    for side, steps in _LEVELS:
        placement = _climb(placement, _thumbnails(films, side), steps)
    return placement


def bend(films: Tensor, placement: Placement) -> Placement:
    """Add a smooth displacement to an affine placement, from coarse to fine."""
    for side, points, steps in _WARPS:
        if placement.control is None:
            control = torch.zeros(len(films), 2, points, points)
        else:
            control = F.interpolate(
                placement.control, size=(points, points), mode="bicubic", align_corners=True
            )
        placement = _climb(Placement(placement.theta, control), _thumbnails(films, side), steps)
    return placement
