"""Drawn films with lung masks, for the tests of the audit."""

import numpy as np
import pytest
from PIL import Image

from tests.train.measure.films import CXR, LEVELS, LUNGS, SIDE
from train.data.manifest import Manifest, Sample


@pytest.fixture
def write_films(tmp_path):
    """Make a `Manifest` of films whose lungs and surroundings each tell the class by their grey.

    numbers: films of each class in each split. plain: what tells nothing, "lungs" or "around".
    """

    def write(numbers=(12, 12, 12), plain=None, mask=LUNGS) -> Manifest:
        generator, samples = np.random.default_rng(0), []
        Image.fromarray(mask).save(tmp_path / "mask.png")
        for split in ("train", "val", "test"):
            for kind, (label, number) in enumerate(zip(CXR.class_ids, numbers, strict=True)):
                for i in range(number):
                    around = 120 if plain == "around" else LEVELS[kind]
                    inside = 120 if plain == "lungs" else LEVELS[(kind + 1) % 3]
                    film = np.where(LUNGS, inside, around) + generator.normal(0, 6, (SIDE, SIDE))
                    path = tmp_path / f"{split}-{label}-{i}.png"
                    Image.fromarray(film.clip(0, 255).astype(np.uint8)).save(path)
                    group = f"{split}-{label}-{i // 2}"
                    source = f"source {i // 10}"
                    samples.append(Sample(path, label, split, group, source, tmp_path / "mask.png"))
        return Manifest(CXR, "drawn", tuple(samples))

    return write
