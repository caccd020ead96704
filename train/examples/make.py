"""`python -m train examples`: make the synthetic examples, check them, store them.

No example is stored that lies closer to any image of the data set than images of different patients
lie to each other (`train.examples.closeness`), and none that gives one patient more than one share of many.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from kdmodels.cache import write_atomically
from kdmodels.examples import FOLDER
from kdmodels.tasks import Task
from train.data.manifest import DataError, Manifest, Sample, read_pixels
from train.examples.closeness import MEASURES, Images, compare, thresholds, too_close, turns_of
from train.examples.composites import LICENCES, PATIENTS, PLANS, SIDE, film_maker, read_licences
from train.examples.tissue import DRAWN

DRAWN_SEEDS = {"lung_n": (0, 1), "lung_aca": (1, 5)}  # those between are closer than allowed
_SEEDS = (1, 2)  # of all others
REAL = 48
"""Real images whose distance to the nearest of another patient is the yardstick."""

QUALITY = 92  # of the JPEG


@dataclass(frozen=True)
class Made:
    """An example before it is checked. sources: the images in it, each with the same weight."""

    file: str
    label: str
    made: str
    seed: int
    picture: Image.Image
    attribution: str
    sources: tuple[Sample, ...] = ()
    nearest: dict[str, float] = field(default_factory=dict)

    @property
    def jpeg(self) -> bytes:
        buffer = BytesIO()
        self.picture.save(buffer, "JPEG", quality=QUALITY)
        return buffer.getvalue()

    @property
    def shown(self) -> Image.Image:
        """The picture as it is stored: that is what is checked."""
        with Image.open(BytesIO(self.jpeg)) as image:
            return image.convert("RGB")


def make_films(manifest: Manifest, root: Path) -> list[Made]:
    """The composites of `PLANS`. Raises `DataError` without licences, or with too few films."""
    licences = read_licences(root)
    make = film_maker(manifest, licences)
    found, numbers = [], dict.fromkeys(manifest.task.class_ids, 0)
    for plan in PLANS:
        numbers[plan.label] += 1
        picture, sources = make(plan)
        credit = {LICENCES[s.source, licences[s.path.stem]] for s in sources}
        found.append(
            Made(
                f"{manifest.task.id}/{plan.label}-{numbers[plan.label]}.jpg",
                plan.label,
                "composite",
                plan.seed,
                picture,
                "Made from films of: " + "; ".join(sorted(credit)),
                tuple(sources),
            )
        )
    return found


def make_tiles(manifest: Manifest, root: Path) -> list[Made]:
    """Drawn tiles: no collection of tiles here has a licence that clearly allows to rework them."""
    credit = "Drawn by this project's own program (train/examples/tissue.py); no image was used."
    return [
        Made(
            f"{manifest.task.id}/{label}-{n}.jpg", label, "drawn", seed, DRAWN[label](seed), credit
        )
        for label in manifest.task.class_ids
        for n, seed in enumerate(DRAWN_SEEDS.get(label, _SEEDS), 1)
    ]


# By the name that a task file gives (`kdmodels.tasks.task.Examples`).
MAKERS = {"composite": make_films, "drawn": make_tiles}


def read_all(samples: Sequence[Sample], task: Task) -> Images:
    """All images of a data set, ready to be compared."""
    turns = turns_of(task)
    parts = [
        Images.of([Image.fromarray(read_pixels(s, task, SIDE))], [s.group], turns)
        for s in tqdm(samples, "Reading images to compare with", unit="image", disable=None)
    ]
    return Images.join(parts)


def check(
    made: Sequence[Made], samples: Sequence[Sample], images: Images, task: Task
) -> tuple[list[Made], dict[str, float]]:
    """The same examples with their nearest distances, and the smallest distance allowed.

    samples, images: all of the data set. `whole` and `hash` look through all of them, `piece`
    through what a composite of this task may be made of, if anything. Raises `DataError` where one
    is too close to an image, or shows one patient twice.
    """
    for example in made:
        if example.sources and len({s.group for s in example.sources}) < PATIENTS:
            raise DataError(f"{example.file} shows fewer than {PATIENTS} patients.")
    turns = turns_of(task)
    collections = {s.source for example in made for s in example.sources}
    usable = [i for i, s in enumerate(samples) if s.split == "train" and s.source in collections]
    train = usable or [i for i, s in enumerate(samples) if s.split == "train"]
    real = images.take(np.random.default_rng(0).permutation(train)[:REAL])
    pictures = Images.of([m.shown for m in made], [""] * len(made), turns)
    limits: dict[str, float] = {}
    nearest: dict[str, np.ndarray] = {}
    jobs = [(("whole", "hash"), images)] + ([(("piece",), images.take(usable))] if usable else [])
    for measures, sources in jobs:
        limits |= thresholds(compare(real, sources, turns, measures))
        nearest |= compare(pictures, sources, turns, measures).nearest()
    done, refused = [], []
    for i, example in enumerate(made):
        near = {name: float(nearest[name][i]) for name in MEASURES if name in nearest}
        done.append(Made(**{**example.__dict__, "nearest": near}))
        refused += [
            f"{example.file} ({name} {near[name]:.3g}, allowed from {limits[name]:.3g})"
            for name in too_close(near, limits)
        ]
    if refused:
        raise DataError(
            "Too close to the image of one patient, nothing was written: "
            f"{'; '.join(refused)}. Choose another seed (PLANS or DRAWN_SEEDS)."
        )
    return done, limits


def write_examples(
    made: Sequence[Made], limits: dict[str, float], task: Task, folder: Path
) -> None:
    """Store the pictures of one task, and its rows in index.json; another task's rows stay."""
    path = folder / "index.json"
    index = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"examples": []}
    rows = [row for row in index["examples"] if row["task"] != task.id]
    keep = {folder / m.file for m in made}
    for old in (folder / task.id).glob("*.jpg"):
        if old not in keep:
            old.unlink()
    for example in made:
        write_atomically(folder / example.file, example.jpeg)
        rows.append(
            {
                "file": example.file,
                "task": task.id,
                "class": example.label,
                "made": example.made,
                "seed": example.seed,
                "sources": len(example.sources),
                "attribution": example.attribution,
                "sha256": hashlib.sha256(example.jpeg).hexdigest(),
                "nearest": {k: round(v, 4) for k, v in example.nearest.items()},
                "allowed_from": {k: round(v, 4) for k, v in limits.items()},
            }
        )
    rows.sort(key=lambda row: row["file"])
    write_atomically(path, (json.dumps({"format": 1, "examples": rows}, indent=2) + "\n").encode())


def make_examples(manifest: Manifest, root: Path, write: bool, folder: Path = FOLDER) -> None:
    """Make and check the examples of a task; with `write`, store them. Raises `DataError`."""
    if manifest.task.examples not in MAKERS:
        raise DataError(f"No program makes examples of the task '{manifest.task.id}'.")
    made = MAKERS[manifest.task.examples](manifest, root)
    images = read_all(manifest.samples, manifest.task)
    made, limits = check(made, manifest.samples, images, manifest.task)
    for example in made:
        near = ", ".join(f"{k} {v:.3g} (from {limits[k]:.3g})" for k, v in example.nearest.items())
        print(f"{example.file}: {example.made}, {len(example.sources)} sources; nearest: {near}")
    if write:
        write_examples(made, limits, manifest.task, folder)
        print(f"Written to {folder}.")
