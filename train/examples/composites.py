"""Chest films that show nobody: the common picture of many patients of one class.

Films of one collection are aligned (`train.examples.registration`); a seed picks a film, and the films most
like it, one a patient and without itself, are bent onto their common mean and averaged. What stands
out in one film alone (letters, lines, wires) is cut back to what the others show; then each band of
detail gets back the contrast that averaging took from it.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from train.data.manifest import DataError, Manifest, Sample, read_pixels
from train.examples.registration import Placement, align, bend, blur, likeness, local_contrast

SIDE = 256
PATIENTS = 16
"""Films of a composite, each of another patient and each of the same weight, 1 of 16."""

LICENCES = {
    ("hannover", "CC BY 3.0"): (
        "COVID-19 Image Repository, Institute for Diagnostic and Interventional Radiology, "
        "Hannover Medical School (Winther et al., 2020), CC BY 3.0"
    ),
    ("kermany", "CC BY 4.0"): (
        "Chest X-Ray Images (Kermany, Zhang and Goldbaum, Mendeley Data, 2018), CC BY 4.0"
    ),
    ("nih-chestxray14", "NIH ChestX-ray14: unrestricted use with attribution"): (
        "ChestX-ray14, NIH Clinical Center (Wang et al., CVPR 2017), free use with attribution"
    ),
}
"""Collections whose films may be made into something new and shown: what to say of each.

All else is left out: it forbids derivatives, asks for the same licence, or does not say clearly.
"""

POOLS = {"adults": ("hannover", "nih-chestxray14"), "children": ("kermany",)}
"""Collections whose films are aligned together."""


@dataclass(frozen=True)
class Plan:
    """One composite: films of a class from one collection, and the seed that picks them."""

    label: str
    source: str
    seed: int

    @property
    def pool(self) -> str:
        return next(name for name, sources in POOLS.items() if self.source in sources)


PLANS = (
    Plan("covid", "hannover", 6),
    Plan("covid", "hannover", 1),
    Plan("pneumonia", "kermany", 6),
    Plan("pneumonia", "kermany", 4),
    Plan("normal", "kermany", 14),
    Plan("normal", "kermany", 21),
)
"""Seeds that pass the check, of the first 10 (of the normal films, 37) that were tried.

None of 7 seeds each passes with the NIH's films of pneumonia or of no finding: they differ so little
in detail that what many share is closer to one of them than two patients are.
"""

_KEPT = 0.7  # of a collection's films, by likeness to the common picture; the rest lie askew
_STANDS_OUT = 1.5  # robust deviations from the median
_ZOOM = 0.9  # of each side is shown: past it, films end
_BANDS = (1.5, 3, 6, 12, 24)  # sigmas in px
_MOST_GAIN = 2.0
_REACH = (0.62, 0.95)  # from the centre to the edge: where detail is restored, and where not


def read_licences(root) -> dict[str, str]:
    """The `licence` column of a starter set's manifest.csv, by file stem.

    Raises `DataError` where there is none: nothing may be made of films of unknown licence.
    """
    path = next(
        (p for p in (root / "manifest.csv", root / "cxr/manifest.csv") if p.is_file()), None
    )
    if path is None:
        raise DataError(
            f"{root} has no manifest.csv with the films' licences; composites need one."
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or "licence" not in rows[0] or "stem" not in rows[0]:
        raise DataError(f"{path} lacks the column stem or licence; composites need both.")
    return {row["stem"]: row["licence"] for row in rows}


def permitted(samples: Sequence[Sample], licences: dict[str, str]) -> list[Sample]:
    """Training films of `LICENCES`."""
    return [
        s
        for s in samples
        if s.split == "train" and (s.source, licences.get(s.path.stem)) in LICENCES
    ]


def read_films(samples: Sequence[Sample], manifest: Manifest) -> Tensor:
    """(N, 1, 256, 256) float32 in [0, 1]."""
    pixels = [read_pixels(s, manifest.task, SIDE)[..., 0] for s in samples]
    return torch.from_numpy(np.stack(pixels)).float().unsqueeze(1) / 255


@dataclass(frozen=True)
class Pool:
    """Aligned films. films: (N, 1, S, S); theta: (N, 2, 3); typical: (N,) likeness to all."""

    samples: tuple[Sample, ...]
    films: Tensor
    theta: Tensor
    typical: Tensor

    @classmethod
    def of(cls, samples: Sequence[Sample], films: Tensor) -> "Pool":
        theta = align(films).theta
        looks = _looks(Placement(theta).apply(films))
        return cls(tuple(samples), films, theta, likeness(looks, looks.mean(0, keepdim=True)))


def _looks(films: Tensor) -> Tensor:
    return local_contrast(F.interpolate(films, size=(96, 96), mode="area"), 7)


def choose(pool: Pool, plan: Plan, patients: int = PATIENTS) -> list[int]:
    """Which films of a pool make a composite: each of another group, of one class and source.

    Raises `DataError` when there are too few.
    """
    order = np.random.default_rng(plan.seed).permutation(len(pool.samples))
    matching = [
        i for i in order if (pool.samples[i].label, pool.samples[i].source) == (plan.label, plan.source)
    ]  # fmt: skip
    one_each = list({pool.samples[i].group: i for i in reversed(matching)}.values())[::-1]
    if one_each:
        least = pool.typical[one_each].quantile(1 - _KEPT)
        one_each = [i for i in one_each if pool.typical[i] >= least]
    if len(one_each) <= patients:
        raise DataError(
            f"Only {len(one_each)} patients with fitting films of {plan.label} from {plan.source} "
            f"may be used; a composite needs more than {patients}."
        )
    looks = _looks(Placement(pool.theta[one_each]).apply(pool.films[one_each]))
    nearest = likeness(looks[1:], looks[:1]).argsort(descending=True)[:patients]
    return [one_each[1 + i] for i in nearest.tolist()]


def blend(films: Tensor, theta: Tensor) -> Tensor:
    """(K, 1, S, S) films and their (K, 2, 3) placement -> (S, S) composite in [0, 1]."""
    moved = bend(films, Placement(theta)).apply(films)
    moved = _zoomed(moved)
    moved = (moved - moved.mean((2, 3), keepdim=True)) / moved.std((2, 3), keepdim=True)
    middle = moved.median(0, keepdim=True).values
    spread = 1.48 * (moved - middle).abs().median(0, keepdim=True).values
    moved = moved.clamp(middle - _STANDS_OUT * spread, middle + _STANDS_OUT * spread)
    inner = _inner(moved.shape[-1])
    result = 0
    for sigma in _BANDS:
        low = blur(moved, sigma)
        result = result + _restored(moved - low, sigma, inner)
        moved = low
    result = (result + moved.mean(0, keepdim=True))[0, 0]
    dark, bright = torch.quantile(result, torch.tensor([0.005, 0.995]))
    return ((result - dark) / (bright - dark)).clamp(0, 1)


def _zoomed(films: Tensor) -> Tensor:
    return Placement(_ZOOM * torch.eye(2, 3).repeat(len(films), 1, 1)).apply(films)


def _inner(side: int) -> Tensor:
    """(S, S): 1 in the middle, 0 towards the edges."""
    line = torch.linspace(-1, 1, side)
    radius = torch.maximum(line[:, None].abs(), line[None, :].abs())
    start, end = _REACH
    return ((end - radius) / (end - start)).clamp(0, 1)


def _restored(band: Tensor, sigma: float, inner: Tensor) -> Tensor:
    """The mean of (K, 1, S, S), its local contrast as in one film where `inner` is 1."""
    mean = band.mean(0, keepdim=True)
    one = blur((band**2).mean(0, keepdim=True), 3 * sigma)
    gain = (one / (blur(mean**2, 3 * sigma) + 1e-6)).sqrt().clamp(1, _MOST_GAIN)
    return mean * (1 + (gain - 1) * inner)


def film_maker(manifest: Manifest, licences: dict[str, str]) -> Callable[[Plan], tuple]:
    """What makes a composite of a plan: the picture (256 px, mode L) and its samples."""
    usable = permitted(manifest.samples, licences)

    @cache
    def pool(name: str) -> Pool:
        samples = [s for s in usable if s.source in POOLS[name]]
        if not samples:
            raise DataError(f"No film of {', '.join(POOLS[name])} may be used for composites.")
        return Pool.of(samples, read_films(samples, manifest))

    def make(plan: Plan) -> tuple[Image.Image, list[Sample]]:
        films = pool(plan.pool)
        chosen = choose(films, plan)
        picture = blend(films.films[chosen], films.theta[chosen])
        picture = Image.fromarray((picture * 255).round().byte().numpy())
        return picture, [films.samples[i] for i in chosen]

    return make
