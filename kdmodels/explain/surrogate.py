"""Predicts the Score-CAM scores of channels that were not run from those of a few that were.

A channel's score depends on nothing but its mask, so the scores are values of one function at C
points, and a Gaussian process learns it (Rasmussen and Williams, "Gaussian Processes for Machine
Learning", 2006, algorithm 2.1). Up to a factor, which the scaling to [0, 1] removes, the map is

    ReLU(sum over channels k of exp(s_k) A_k),    s_k: score, A_k: activation

so a channel that was not run enters with its predicted exp(s_k) instead of being left out.

Which channels to run follows from the same model: those that lower most the expected squared error
of the whole map (a sequential A-optimal design; Cohn, "Neural Network Exploration Using Optimal
Experiment Design", Neural Networks 1996). How far the map of predicted scores agrees with the exact
one is estimated by drawing maps from the model.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

SAMPLES = 128  # maps drawn for an estimate
PESSIMISM = 0.1  # the estimate is this quantile of their correlations with the believed map


@dataclass(frozen=True)
class Kernel:
    """Covariance of the scores of two masks m and m', up to the scale of the scores.

    exp(-|m - m'|^2 / (2 length^2)) + linear * m.m' + noise where they are the same mask. Masks are
    centred and scaled to a mean square norm of 1.
    """

    length: float
    linear: float
    noise: float

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, P) and (M, P) masks -> (N, M) covariances, without the noise."""
        dots = a @ b.T
        squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * dots
        return torch.exp(squares.clamp_min(0) / (-2 * self.length**2)) + self.linear * dots

    def variances(self, masks: Tensor) -> Tensor:
        """(N, P) masks -> (N,) variances, without the noise."""
        return 1 + self.linear * masks.square().sum(1)


PRIOR = Kernel(length=0.7, linear=0.3, noise=0.05)  # before any score is known
KERNELS = tuple(
    Kernel(*settings)
    for settings in product((0.35, 0.7, 1.4, 2.8), (0.0, 0.3, 1.0), (1e-3, 1e-2, 1e-1))
)


@dataclass(frozen=True)
class Belief:
    """What is known of all C scores, given those of the n channels `known`.

    scores: (C,) predicted, the known ones as they are. variance: of a score that is not known and
    like no other, in squared logits. whitened: (n, C) covariances of the known channels with all,
    times the inverse Cholesky root of their own. parts: (C, P) of the unknown channels' parts of
    the map, exp(score) times activation up to a factor; the known ones' are zero. error: (C, P)
    covariances of each score with the map's error. Covariances are in units of `variance`.
    """

    kernel: Kernel
    known: Tensor
    scores: Tensor
    variance: float
    whitened: Tensor
    parts: Tensor
    error: Tensor


class Surrogate:
    """The Gaussian process over the channels of one image.

    masks, activations: (C, h, w), on the CPU; no mask is flat.
    """

    def __init__(self, masks: Tensor, activations: Tensor) -> None:
        masks = masks.flatten(1).double()
        masks = masks - masks.mean(0)
        self.masks = masks / masks.square().sum(1).mean().sqrt().clamp_min(1e-12)
        self.activations = activations.flatten(1).double()

    def believe(self, known: Tensor, scores: Tensor) -> Belief:
        """Learn from the (n,) finite scores of the channels with the (n,) indices `known`."""
        if not len(known):
            nothing = self.masks.new_zeros(0, len(self.masks))
            return self._belief(PRIOR, known, nothing.sum(0), 1.0, nothing)
        masks = self.masks[known]
        targets = torch.stack([torch.ones(len(known)).double(), scores.double()], 1)
        best, most = None, -float("inf")
        for kernel in KERNELS:
            covariance = kernel(masks, masks)
            covariance.diagonal().add_(kernel.noise)
            root = torch.linalg.cholesky(covariance)
            ones, values = torch.linalg.solve_triangular(root, targets, upper=False).T
            level = (ones @ values) / (ones @ ones)
            rest = values - level * ones
            spread = (rest @ rest).clamp_min(1e-12)
            likelihood = -0.5 * len(known) * spread.log() - root.diagonal().log().sum()
            if likelihood > most:
                best, most = (kernel, root, level, rest, spread.item()), likelihood
        kernel, root, level, rest, spread = best
        variance = spread / max(len(known) - 3, 1)  # of Student's t, as the scale is estimated
        whitened = torch.linalg.solve_triangular(root, kernel(masks, self.masks), upper=False)
        predicted = level + rest @ whitened
        predicted[known] = scores.double()
        return self._belief(kernel, known, predicted, variance, whitened)

    def _belief(
        self, kernel: Kernel, known: Tensor, scores: Tensor, variance: float, whitened: Tensor
    ) -> Belief:
        parts = self.activations * (scores - scores.max()).exp()[:, None]
        parts[known] = 0
        masks = self.masks.float()  # most of the time goes into this product, single for speed
        error = (kernel(masks, masks) @ parts.float()).double() - whitened.T @ (whitened @ parts)
        return Belief(kernel, known, scores, variance, whitened, parts, error)

    def choose(self, count: int, belief: Belief) -> list[int]:
        """The `count` channels to run next, the one that tells most about the map first.

        Running channel j lowers the map's expected squared error, about the mean over its places,
        by |error_j|^2 / variance_j.
        """
        kernel, rows = belief.kernel, list(belief.whitened)
        parts = belief.parts - belief.parts.mean(1, keepdim=True)
        error = belief.error - belief.error.mean(1, keepdim=True)
        variances = kernel.variances(self.masks) - belief.whitened.square().sum(0)
        variances = variances.clamp_min(0) + kernel.noise
        taken = torch.zeros(len(parts), dtype=torch.bool)
        taken[belief.known] = True
        chosen: list[int] = []
        while len(chosen) < count and not taken.all():
            gain = error.square().sum(1) / variances
            pick = int(gain.masked_fill(taken, -1).argmax())
            column = kernel(self.masks, self.masks[pick : pick + 1])[:, 0]
            for row in rows:
                column -= row[pick] * row
            rows.append(column / variances[pick].sqrt())
            variances = (variances - rows[-1].square()).clamp_min(kernel.noise)
            error -= torch.outer(rows[-1], rows[-1] @ parts)
            # Once run, a channel's own part is exact and leaves the map's error.
            error -= torch.outer(column - rows[-1] * rows[-1][pick], parts[pick])
            parts[pick] = 0
            taken[pick] = True
            chosen.append(pick)
        return chosen

    def estimate(self, belief: Belief) -> float:
        """Estimated Pearson correlation of the believed map with the exact one, in [-1, 1].

        By the model, the exact map agrees better with a probability of 1 - `PESSIMISM`.
        """
        parts, weights = belief.parts, (belief.scores - belief.scores.max()).exp()
        believed = weights @ self.activations
        covariance = parts.T @ belief.error + belief.kernel.noise * parts.T @ parts
        values, vectors = torch.linalg.eigh(belief.variance * (covariance + covariance.T) / 2)
        draws = torch.randn(
            len(believed),
            SAMPLES,
            generator=torch.Generator().manual_seed(0),
            dtype=believed.dtype,
        )
        maps = (believed + (vectors * values.clamp_min(0).sqrt() @ draws).T).relu()
        maps = maps - maps.mean(1, keepdim=True)
        own = believed.relu() - believed.relu().mean()
        norms = maps.norm(dim=1) * own.norm()
        # A flat map agrees with a flat one alone.
        flat = (maps.norm(dim=1) == 0) & (own.norm() == 0)
        correlations = torch.where(norms > 0, maps @ own / norms, flat.double())
        return correlations.quantile(PESSIMISM).item()
