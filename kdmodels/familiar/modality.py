"""Does a picture look like those that a task's models were trained on?

A classifier answers with one of its classes whatever it is shown. `check` compares the picture
itself, not what a network makes of it, with the training pictures: numbers of its colour,
brightness, texture, layout and edges, and their Mahalanobis distance to the nearest of a few
clusters of training pictures (Lee et al., "A simple unified framework for detecting
out-of-distribution samples and adversarial attacks", NeurIPS 2018, there on a network's features).
So it holds for whatever weights are loaded. The mean features of a network's last layer were tried
too and caught next to no photographs: what a network was never taught to tell apart, it maps
onto what it knows.

`python -m train familiar` makes the stored statistics, measures them and says what is in them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kdmodels.familiar.statistics import COMPRESSED, GROUPS, chroma, describe, small_square
from kdmodels.models.checkpoints import WEIGHTS
from kdmodels.tasks import Task, get_task
from kdmodels.tasks.known import SHIPPED

FOLDER = Path(__file__).parent / "stored"  # of the tasks that come with the project
OWN = WEIGHTS / "familiar"  # of a user's own
_BLANK = 0.02  # spread of each channel, of 1
_GREY = 0.02  # mean chroma, of 1

REASON_BLANK = "This picture is blank, or nearly so."


class FamiliarityError(Exception):
    """The stored statistics cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Familiarity:
    """How far a picture is from the training pictures, and the limit beyond which it is unlike.

    score: Mahalanobis distance to the nearest cluster, 0 or more; it has no unit.
    reason: one sentence for the user where the picture is not `familiar`, else None.
    """

    score: float
    limit: float
    familiar: bool
    reason: str | None


@dataclass(frozen=True)
class Basis:
    """A mean and principal axes: compresses long vectors to coordinates and one remainder.

    mean: (L,); axes: (C, L), orthonormal rows; floor: least remainder, added before its logarithm.
    """

    mean: np.ndarray
    axes: np.ndarray
    floor: float

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(N, L) -> (N, C + 1): coordinates, and the logarithm of what they leave out."""
        centred = vectors - self.mean
        coordinates = centred @ self.axes.T
        rest = np.sqrt(((centred - coordinates @ self.axes) ** 2).mean(1))
        return np.column_stack([coordinates, np.log(rest + self.floor)])


@dataclass(frozen=True)
class Reference:
    """What is known of a task's training pictures: statistics of many, of no single one.

    bases: of the groups in `COMPRESSED`. centre, scale: (D,), which standardise the D statistics.
    means, covariances: (K, D) and (K, D, D) of the K clusters. images: how many pictures they
    are from. limit: largest distance that counts as familiar. group_limits: (G,) the same for
    each group of statistics alone, by which the reason is chosen.
    """

    bases: dict[str, Basis]
    centre: np.ndarray
    scale: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    images: int
    limit: float = np.inf
    group_limits: np.ndarray | None = None

    def vectors(self, described: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
        """Results of `describe` -> (N, D) standardised statistics."""
        groups = {name: np.stack([d[name] for d in described]) for name in GROUPS}
        groups |= {name: self.bases[name](groups[name]) for name in COMPRESSED}
        return (np.concatenate(list(groups.values()), axis=1) - self.centre) / self.scale

    @cached_property
    def parts(self) -> dict[str, slice]:
        """Where in the D statistics each group is."""
        lengths = {name: len(v) for name, v in describe(Image.new("RGB", (8, 8))).items()}
        lengths |= {name: len(self.bases[name].axes) + 1 for name in COMPRESSED}
        ends = np.cumsum(list(lengths.values())).tolist()
        starts = [0, *ends[:-1]]
        return {n: slice(a, b) for n, a, b in zip(lengths, starts, ends, strict=True)}

    @cached_property
    def _whitening(self) -> dict[str | None, np.ndarray]:
        """(K, d, d) factors by group, and of all (None), for `_distances`."""
        parts = {None: slice(None)} | self.parts
        lower = {n: np.linalg.cholesky(self.covariances[:, p, p]) for n, p in parts.items()}
        return {name: np.linalg.inv(factor) for name, factor in lower.items()}

    def _distances(self, vectors: np.ndarray, group: str | None = None) -> np.ndarray:
        """(N, D) -> (N, K) Mahalanobis distances to each cluster, of one group of statistics."""
        part = slice(None) if group is None else self.parts[group]
        offsets = vectors[:, None, part] - self.means[:, part]
        whitened = np.einsum("kij,nkj->nki", self._whitening[group], offsets)
        return np.sqrt((whitened**2).sum(-1))

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) -> (N,) distances to the nearest cluster."""
        return self._distances(vectors).min(1)

    def group_scores(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, G): the distance of each group alone to the cluster that is nearest."""
        nearest = self._distances(vectors).argmin(1)[:, None]
        columns = [np.take_along_axis(self._distances(vectors, g), nearest, 1) for g in GROUPS]
        return np.concatenate(columns, axis=1)

    def worst_group(self, vector: np.ndarray) -> str:
        """The group of statistics in which a picture, (D,), is farthest beyond its limit."""
        excess = self.group_scores(vector[None])[0] / self.group_limits
        return tuple(GROUPS)[int(excess.argmax())]

    # --- Files --------------------------------------------------------------------------------

    def tensors(self) -> dict[str, np.ndarray]:
        found = {name: getattr(self, name) for name in ("centre", "scale", "means", "covariances")}
        found |= {f"{name}.mean": basis.mean for name, basis in self.bases.items()}
        found |= {f"{name}.axes": basis.axes for name, basis in self.bases.items()}
        found["floors"] = np.array([self.bases[name].floor for name in COMPRESSED])
        found["group_limits"] = self.group_limits
        found["limit"] = np.array([self.limit])
        found["images"] = np.array([self.images])
        return {name: np.asarray(value, np.float32, order="C") for name, value in found.items()}

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors(), path)

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read what `save` wrote. Raises `FamiliarityError` on a missing or damaged file."""
        try:
            found = {name: value.astype(float) for name, value in load_file(path).items()}
            floors = dict(zip(COMPRESSED, found["floors"].tolist(), strict=True))
            return cls(
                {n: Basis(found[f"{n}.mean"], found[f"{n}.axes"], floors[n]) for n in COMPRESSED},
                *(found[name] for name in ("centre", "scale", "means", "covariances")),
                images=int(found["images"][0]),
                limit=float(found["limit"][0]),
                group_limits=found["group_limits"],
            )
        except FileNotFoundError as error:
            raise FamiliarityError(
                f"{path.name} is missing; make it with `python -m train familiar --write`."
            ) from error
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise FamiliarityError(f"{path.name} is damaged: {error}; fetch it again.") from error


def folder_of(task_id: str) -> Path:
    """Where what is stored of a task lies. Raises `ValueError` for an unknown task."""
    return FOLDER if get_task(task_id).id in SHIPPED else OWN


@cache
def stored_reference(task_id: str, folder: Path | None = None) -> Reference:
    """The stored statistics of a task, read once. Raises `ValueError` or `FamiliarityError`."""
    return Reference.load((folder or folder_of(task_id)) / f"{task_id}.safetensors")


def check(task: Task | str, image: Image.Image, reference: Reference | None = None) -> Familiarity:
    """Whether a checked picture of any size looks like the task's training pictures, and why not.

    Depends on the picture alone, needs no network and takes some milliseconds. `reference`: other
    statistics than the stored ones. Raises `ValueError` for an unknown task, `FamiliarityError`
    where its statistics cannot be read.
    """
    task = get_task(task) if isinstance(task, str) else task
    reference = reference or stored_reference(task.id)
    image = image.convert("RGB")
    vectors = reference.vectors([describe(image)])
    score = float(reference.scores(vectors)[0])
    if score <= reference.limit:
        return Familiarity(score, reference.limit, True, None)
    return Familiarity(score, reference.limit, False, _reason(task, image, reference, vectors))


def _reason(task: Task, image: Image.Image, reference: Reference, vectors: np.ndarray) -> str:
    pixels = small_square(image)
    if pixels.std((0, 1)).max() < _BLANK:
        return REASON_BLANK
    if not task.greyscale and chroma(pixels).mean() < _GREY:
        return task.unfamiliar.grey
    reason = getattr(task.unfamiliar, reference.worst_group(vectors[0]))
    return reason.format(images=reference.images)


# --- What was measured -----------------------------------------------------------------------


def measured(task_id: str, folder: Path | None = None) -> dict:
    """What `python -m train familiar --write` measured for a task, and stored beside it."""
    path = (folder or folder_of(task_id)) / f"{task_id}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FamiliarityError(f"{path.name} cannot be read: {error}.") from error


def share(counted: dict) -> str:
    """`3 of 769 (0.4%; 95% interval 0.1% to 1.1%)` of a measured share."""
    low, high = counted["ci95"]
    rate = f"{counted['flagged'] / counted['images']:.1%}"
    return (
        f"{counted['flagged']:,} of {counted['images']:,} ({rate}; "
        f"95% interval {low:.1%} to {high:.1%})"
    )


def paragraph(found: dict) -> str:
    """What was measured for a task, as a Markdown paragraph, all from the stored numbers."""
    task = get_task(found["task"])
    caught = "; ".join(
        f"{name}: {counted['flagged']} of {counted['images']}"
        for name, counted in found["caught"].items()
    )
    still = "; ".join(
        f"{name}: {counted['flagged']} of {counted['images']}"
        for name, counted in found["altered"].items()
    )
    kept = "; ".join(
        f"{name}: {counted['same']} of {counted['images']}"
        for name, counted in found["encoded"].items()
    )
    high = found["high_sources"]
    sources = (
        f"Sources with clearly more: {', '.join(high)}."
        if high
        else "No source of the test images has clearly more than the others."
    )
    return (
        f"**Does it look like the modality? {task.name}.** The limit is such that "
        f"{found['validation']['flagged']} of {found['validation']['images']} validation images "
        f"are called unfamiliar. False alarms on the test split, looked at with this limit: "
        f"{share(found['test'])}. {sources} Called unfamiliar, as they should be: {caught}. "
        f"Test images that were altered, called unfamiliar: {still}. "
        f"Same verdict after saving a test image in another way: {kept}. "
        "The check knows only the collections it was fitted on: images of another laboratory, "
        "stain, device or projection may be called unfamiliar, and what is made to resemble them "
        "passes. An unfamiliar image is still classified if the user wishes."
    )
