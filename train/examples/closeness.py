"""How close is a picture to the image of any one patient?

Three measures, each a distance to the nearest of many images: of the whole picture, of the piece of
it that is found best in any one image, and of perceptual hashes. The yardstick is the same distance
between real images of different patients: who looks at a composite shall not be nearer to a patient
than he is by looking at somebody else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import imagehash
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kdmodels.tasks import Task
from train.examples.registration import blur

SIDE = 96  # px of the thumbnails
FINE, COARSE = 0.7, 2.5  # sigmas in px: detail between them is a person's, what is larger anybody's
SHIFT, STEP = 6, 2  # px up, down, left and right in which a piece is looked for, and how finely
PIECE = 24  # px: side of a piece, a quarter of the picture's
PLAIN = 0.5  # of a picture's median contrast: pieces with less could be of anybody
PERCENTILE = 5
"""Of the distances between real images of different patients: what is nearer is too close."""

MEASURES = ("whole", "piece", "hash")
_SIZES = {"whole": SIDE - 2 * SHIFT, "piece": PIECE}
_CHUNK = 64  # images compared at a time; about 80 MB

Turn = Callable[[Tensor], Tensor]


def _dihedral() -> tuple[Turn, ...]:
    def turn(k: int, mirror: bool) -> Turn:
        return lambda t: torch.rot90(t.flip(-1) if mirror else t, k, (-2, -1))

    return tuple(turn(k, mirror) for k in range(4) for mirror in (False, True))


def turns_of(task: Task) -> tuple[Turn, ...]:
    """In which ways a picture is also looked for: films may be mirrored, tiles have no upright."""
    return (lambda t: t, lambda t: t.flip(-1)) if task.upright else _dihedral()


@dataclass(frozen=True)
class Images:
    """What is compared: detail (N, 1, 96, 96) float32, hashes (N, T, 256) bool, by turn; groups."""

    detail: Tensor
    hashes: np.ndarray
    groups: tuple[str, ...]

    @classmethod
    def of(
        cls, pictures: Sequence[Image.Image], groups: Sequence[str], turns: Sequence[Turn]
    ) -> "Images":
        grey = [p.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX) for p in pictures]
        small = torch.from_numpy(np.stack([np.asarray(g) for g in grey])).float()[:, None]
        hashes = [_hashes(picture, turns) for picture in pictures]
        detail = blur(small, FINE) - blur(small, COARSE)
        detail = detail / (blur(detail**2, 2 * COARSE).sqrt() + 0.5)  # weak detail tells as much
        return cls(detail, np.array(hashes), tuple(groups))

    @classmethod
    def join(cls, parts: Sequence["Images"]) -> "Images":
        return cls(
            torch.cat([p.detail for p in parts]),
            np.concatenate([p.hashes for p in parts]),
            tuple(g for p in parts for g in p.groups),
        )

    def take(self, which: Sequence[int]) -> "Images":
        which = list(which)
        return Images(self.detail[which], self.hashes[which], tuple(self.groups[i] for i in which))


def _hashes(picture: Image.Image, turns: Sequence[Turn]) -> list[np.ndarray]:
    """pHash, 256 bits, of each turn of a picture; 64 px is what imagehash looks at."""
    small = picture.convert("L").resize((64, 64), Image.Resampling.LANCZOS)
    turned = (turn(torch.from_numpy(np.array(small))).contiguous().numpy() for turn in turns)
    return [imagehash.phash(Image.fromarray(t), hash_size=16).hash.reshape(-1) for t in turned]


@dataclass(frozen=True)
class Distances:
    """Of Q pictures to N images: `whole` and `piece` are 1 - correlation, `hash` is in bits."""

    values: dict[str, np.ndarray]
    own: np.ndarray = field(repr=False)

    def nearest(self) -> dict[str, np.ndarray]:
        """(Q,) distance to the nearest image of another group, by measure."""
        return {
            name: np.where(self.own, np.inf, value).min(1) for name, value in self.values.items()
        }


def compare(
    pictures: Images, sources: Images, turns: Sequence[Turn], measures: Sequence[str] = MEASURES
) -> Distances:
    """Distances of pictures to sources, each the smallest of all turns of the picture."""
    turned = [turn(pictures.detail) for turn in turns]
    values = {}
    for name, size in _SIZES.items():
        if name not in measures:
            continue
        wanted = [_pieces(t, size) for t in turned]
        found = [
            torch.stack([_best(w, chunk, size) for w in wanted]).amax(0)
            for chunk in sources.detail.split(_CHUNK)
        ]
        values[name] = 1 - torch.cat(found, 1).numpy()
    if "hash" in measures:
        straight = sources.hashes[:, 0].astype(np.float32) * 2 - 1
        bits = [h.astype(np.float32) * 2 - 1 for h in pictures.hashes.transpose(1, 0, 2)]
        values["hash"] = np.min([(straight.shape[1] - b @ straight.T) / 2 for b in bits], axis=0)
    groups = np.array(sources.groups)
    return Distances(values, np.array([groups == group for group in pictures.groups]))


def _unit(vectors: Tensor) -> Tensor:
    vectors = vectors - vectors.mean(-1, keepdim=True)
    return vectors / (vectors.norm(dim=-1, keepdim=True) + 1e-3)


def _corners(size: int) -> list[tuple[int, int]]:
    """Of the pieces: they overlap by half and keep `SHIFT` from the edges."""
    places = range(SHIFT, SIDE - SHIFT - size + 1, size // 2)
    return [(y, x) for y in places for x in places]


def _pieces(pictures: Tensor, size: int) -> Tensor:
    """(Q, 1, S, S) -> (P, Q, size * size): pieces of each; those with little in them are zero."""
    cut = [pictures[..., y : y + size, x : x + size].flatten(1) for y, x in _corners(size)]
    pieces = torch.stack(cut)
    contrast = pieces.std(2, keepdim=True)
    return _unit(pieces) * (contrast >= PLAIN * contrast.median(0, keepdim=True).values)


def _best(pieces: Tensor, sources: Tensor, size: int) -> Tensor:
    """(P, Q, D) and (N, 1, S, S) -> (Q, N): correlation of the piece that is found best."""
    best = torch.full((pieces.shape[1], len(sources)), -1.0)
    for (y, x), wanted in zip(_corners(size), pieces, strict=True):
        around = sources[..., y - SHIFT : y + size + SHIFT, x - SHIFT : x + size + SHIFT]
        found = _unit(F.unfold(around, size, stride=STEP).transpose(1, 2))  # (N, places, D)
        here = (wanted @ found.flatten(0, 1).T).view(len(wanted), len(sources), -1)
        best = torch.maximum(best, here.amax(2))
    return best


def thresholds(real: Distances) -> dict[str, float]:
    """The smallest distance allowed, by measure, from those of real images to other groups."""
    return {name: float(np.percentile(near, PERCENTILE)) for name, near in real.nearest().items()}


def too_close(nearest: dict[str, float], limits: dict[str, float]) -> list[str]:
    """The measures by which a picture is closer to an image than allowed."""
    return [name for name, limit in limits.items() if nearest[name] < limit]
