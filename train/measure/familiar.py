"""Fits and measures `kdmodels.familiar.modality`: does a picture look like a task's training pictures?

Fitted on the training split; the limit is such that 1% of the validation images pass it. What is
said of the test split, of another task's images and of junk is measured with that limit.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy.stats import binomtest, chi2
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from kdmodels.cache import write_atomically
from kdmodels.familiar import modality
from kdmodels.familiar.modality import Basis, Reference, paragraph
from kdmodels.familiar.statistics import COMPRESSED, describe
from kdmodels.images.read import read_image
from kdmodels.tasks import TASKS, Task
from train.data.manifest import DataError, Manifest, Sample, read_picture
from train.data.open import open_manifest
from train.measure.junk import GREY, junk

log = logging.getLogger("train")

AXES = 20  # of each basis
CLUSTERS, LEAST_IMAGES = 5, 100  # clusters of training images, and images for each at least
RIDGE = 0.02  # variance added to each standardised statistic, which keeps covariances invertible
# Least deviation of a statistic, of 1: where the training images have none at all (the colour of
# grey films), a faint tint or compression must not count as far away.
LEAST_SCALE = 0.02
ALARMS = 0.01  # share of validation images beyond the limit
ENCODED_EACH = 4  # of the test images, each fourth is saved in other ways

Described = list[dict[str, np.ndarray]]


def describe_all(pictures: Iterable[Image.Image]) -> Described:
    return [describe(picture) for picture in pictures]


def pictures_of(samples: Sequence[Sample]) -> Iterable[Image.Image]:
    return map(read_picture, samples)


# --- Fitting ---------------------------------------------------------------------------------


def _single(values: np.ndarray) -> np.ndarray:
    """As they will be stored, so that the limit is measured on what the app computes."""
    return np.asarray(values, np.float32).astype(float)


def _fit_basis(vectors: np.ndarray, seed: int) -> Basis:
    number = min(AXES, len(vectors) - 1, vectors.shape[1])
    pca = PCA(number, svd_solver="full", random_state=seed).fit(vectors)
    floor = float(_single(0.05 * vectors.std()))
    return Basis(_single(pca.mean_), _single(pca.components_), floor)


def fit_statistics(described: Described, seed: int = 0) -> Reference:
    """Clusters of training pictures, without limits."""
    number = len(described)
    bases = {n: _fit_basis(np.stack([d[n] for d in described]), seed) for n in COMPRESSED}
    empty = np.zeros(0)
    raw = Reference(bases, np.zeros(1), np.ones(1), empty, empty, number).vectors(described)
    centre = _single(raw.mean(0))
    scale = _single(np.maximum(raw.std(0), LEAST_SCALE))
    standard = (raw - centre) / scale
    mixture = GaussianMixture(
        max(1, min(CLUSTERS, number // LEAST_IMAGES)), reg_covar=RIDGE, random_state=seed
    ).fit(standard)
    tolerance = np.diag(np.clip(1 - standard.var(0), 0, None))
    covariances = _single(mixture.covariances_ + tolerance)
    return Reference(bases, centre, scale, _single(mixture.means_), covariances, number)


def with_limits(reference: Reference, validation: Described) -> Reference:
    """The same clusters, with the limits that 1% of the validation pictures pass."""
    vectors = reference.vectors(validation)
    limit = np.quantile(reference.scores(vectors), 1 - ALARMS)
    groups = np.quantile(reference.group_scores(vectors), 1 - ALARMS, axis=0)
    # No lower than for normally distributed statistics: that of constant ones would be 0.
    sizes = [part.stop - part.start for part in reference.parts.values()]
    least = np.sqrt(chi2.ppf(1 - ALARMS, sizes))
    limits = _single(np.maximum(groups, least))
    return replace(reference, limit=float(_single(limit)), group_limits=limits)


def fit(manifest: Manifest, seed: int = 0) -> Reference:
    """Fit on the training split, and choose the limits on the validation split.

    Raises `DataError` where a split is empty, misses a class or has an image that is unreadable.
    """
    train, val = (describe_all(pictures_of(manifest.split(s))) for s in ("train", "val"))
    return with_limits(fit_statistics(train, seed), val)


# --- Measuring -------------------------------------------------------------------------------


def _middle(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 10, height // 10, width - width // 10, height - height // 10))


def _framed(image: Image.Image) -> Image.Image:
    return ImageOps.expand(image, max(image.size) // 10, "black")


# What is done to test images that stay images of their kind.
ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned by 90°": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "inverted": ImageOps.invert,
    "middle 80% of each side": _middle,
    "black frame of 10%": _framed,
}


def _saved(image: Image.Image, **options: object) -> Image.Image:
    file = BytesIO()
    image.save(file, **options)
    return read_image(file.getvalue()).pixels


def _enlarged(image: Image.Image, side: int) -> Image.Image:
    factor = side / min(image.size)
    size = [round(factor * length) for length in image.size]
    return image.resize(size, Image.Resampling.BICUBIC)


# Other ways to save the same image.
ENCODED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "PNG of 1024 px": lambda i: _saved(_enlarged(i, 1024), format="PNG", compress_level=1),
    "JPEG of 1024 px": lambda i: _saved(_enlarged(i, 1024), format="JPEG", quality=90),
    "JPEG of quality 60": lambda i: _saved(i, format="JPEG", quality=60),
    "shrunk to 160 px": lambda i: _enlarged(i, 160),
}


def counted(flags: Sequence[bool] | np.ndarray) -> dict:
    """How many of them are called unfamiliar, with the exact 95% interval of the share.

    Clopper and Pearson, Biometrika 26(4), 1934; it takes the images for independent.
    """
    number = int(np.sum(flags))
    interval = binomtest(number, len(flags)).proportion_ci(0.95, method="exact")
    ci95 = [round(float(end), 4) for end in interval]
    return {"flagged": number, "images": len(flags), "ci95": ci95}


def _by(values: Iterable[str], flags: np.ndarray) -> dict[str, dict]:
    values = np.array(list(values))
    return {name: counted(flags[values == name]) for name in sorted(set(values.tolist()))}


def measure_familiar(
    reference: Reference, manifest: Manifest, others: Sequence[Manifest] = (), seed: int = 0
) -> dict:
    """False alarms on the test split by class and source; catches of others' images and junk."""

    def flags(pictures: Iterable[Image.Image]) -> np.ndarray:
        return reference.scores(reference.vectors(describe_all(pictures))) > reference.limit

    samples = manifest.split("test")
    alarms = flags(pictures_of(samples))
    overall = float(alarms.mean())
    sources = _by((s.source for s in samples), alarms)
    caught = {}
    for other in others:
        theirs = list(pictures_of(other.split("test")))
        name = f"test images of {other.task.name.lower()}"
        caught[name] = counted(flags(theirs))
        if not other.task.greyscale:
            caught[name + GREY] = counted(flags(p.convert("L") for p in theirs))
    kinds: dict[str, list[Image.Image]] = {}
    for kind, picture in junk(seed):
        kinds.setdefault(kind, []).append(picture)
    caught |= {kind: counted(flags(pictures)) for kind, pictures in kinds.items()}
    some = slice(None, None, ENCODED_EACH)
    return {
        "task": manifest.task.id,
        "data": manifest.id,
        "fitted_on": reference.images,
        "clusters": len(reference.means),
        "limit": round(reference.limit, 3),
        "validation": counted(flags(pictures_of(manifest.split("val")))),
        "test": counted(alarms) | {"groups": len({s.group for s in samples})},
        "classes": _by((s.label for s in samples), alarms),
        "sources": sources,
        "high_sources": [n for n, found in sources.items() if found["ci95"][0] > overall],
        "caught": caught,
        "altered": {
            name: counted(flags(map(alter, pictures_of(samples))))
            for name, alter in ALTERED.items()
        },
        "encoded": {
            name: {"same": int((now == alarms[some]).sum()), "images": len(now)}
            for name, encode in ENCODED.items()
            for now in [flags(map(encode, pictures_of(samples[some])))]
        },
    }


# --- The command -----------------------------------------------------------------------------


def other_manifests(task: Task, data: str | Path) -> list[Manifest]:
    """The data sets of the other tasks that are in the same place; what is not there is said."""
    found = []
    for other in TASKS:
        if other != task.id:
            try:
                found.append(open_manifest(other, data))
            except DataError as error:
                log.info("Not measured on images of the task '%s': %s", other, error)
    return found


def differences(
    stored: object, found: object, tolerance: float = 0.003, name: str = ""
) -> list[str]:
    """Names of the values that differ: numbers by more than `tolerance`, all else at all.

    The tolerance covers what another processor or number of threads does to the last digits.
    """
    if isinstance(stored, dict) and isinstance(found, dict):
        pairs = [(stored.get(k), found.get(k), f"{name}.{k}") for k in (stored | found)]
    elif isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        pairs = [(a, b, f"{name}[{i}]") for i, (a, b) in enumerate(zip(stored, found, strict=True))]
    elif isinstance(stored, float) and isinstance(found, float):
        return [name.strip(".")] if abs(stored - found) > tolerance else []
    else:
        return [] if stored == found else [name.strip(".")]
    return [d for a, b, path in pairs for d in differences(a, b, tolerance, path)]


def familiar_task(manifest: Manifest, data: str | Path, write: bool = False) -> dict:
    """Fit and measure the check of a task, and say what was found; `write` stores both.

    data: where the other tasks' images are. Without `write`, says whether what is stored is the
    same. Raises `DataError`.
    """
    reference = fit(manifest)
    found = measure_familiar(reference, manifest, other_manifests(manifest.task, data))
    log.info("%s", paragraph(found))
    for part in ("classes", "sources"):
        for name, number in found[part].items():
            log.info("  %s: %s", name, modality.share(number))
    path = modality.folder_of(manifest.task.id) / f"{manifest.task.id}.json"
    if write:
        reference.save(path.with_suffix(".safetensors"))
        write_atomically(path, (json.dumps(found, indent=2) + "\n").encode())
        log.info("Stored in %s.", path.parent)
    elif path.exists():
        other = differences(modality.measured(manifest.task.id), found)
        log.info("%s", f"DIFFERS from what is stored: {other}" if other else "As stored.")
    return found
