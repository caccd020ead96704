"""`train.measure.floors`: features without disease, and what they reach."""

from typing import get_args

import numpy as np
import pytest
from PIL import Image

import train.measure.floors
from kdmodels.tasks import TASKS
from kdmodels.tasks.task import Feature
from train.data.manifest import Manifest, Sample
from train.measure.floors import FEATURES, SIZE, _local_patterns, measure_floors

AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
LENGTHS = {
    "frame": 32**2 - 26**2,
    "grey_histogram": 192,
    "spectrum": SIZE // 2,
    "thumbnail": 256,
    "colour_moments": 6,
    "colour_histogram": 192,
    "colour_texture": 3 * 32 + 10,
}


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """Fewer trees, in this process: enough for images that are easy to tell apart."""
    forest = train.measure.floors.RandomForestClassifier
    monkeypatch.setattr(
        train.measure.floors, "RandomForestClassifier",
        lambda _, n_jobs, random_state: forest(25, random_state=random_state),
    )  # fmt: skip


def pictures() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return {"noise": noise, "black": noise * 0, "white": noise * 0 + 255}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("picture", pictures())
def test_a_feature_is_a_finite_vector_of_fixed_length(name, picture):
    values = FEATURES[name].compute(pictures()[picture])
    assert values.shape == (LENGTHS[name],)
    assert np.isfinite(values.astype(float)).all()


def test_there_is_a_feature_for_each_name_of_a_task_file():
    assert set(LENGTHS) == set(FEATURES) == set(get_args(Feature))
    assert len({feature.name for feature in FEATURES.values()}) == len(FEATURES)


def test_the_frame_does_not_see_the_inside():
    frame = FEATURES["frame"].compute
    picture = pictures()["noise"].copy()
    before = frame(picture)
    picture[24:-24, 24:-24] = 0
    assert np.array_equal(frame(picture), before)
    picture[:24] = 0
    assert not np.array_equal(frame(picture), before)


def test_the_spectrum_finds_a_frequency_in_any_direction():
    spectrum = FEATURES["spectrum"].compute
    wave = 128 + 100 * np.sin(2 * np.pi * 20 * np.arange(SIZE) / SIZE)
    for pixels in (np.tile(wave, (SIZE, 1)), np.tile(wave[:, None], (1, SIZE))):
        pixels = pixels[..., None].repeat(3, axis=2).astype(np.uint8)
        assert spectrum(pixels).argmax() == 20


def test_local_patterns_are_those_of_the_definition():
    """Count by the words of the paper: circular changes, and ones where there are at most two."""
    pixels = pictures()["noise"][:12, :15]
    grey = np.asarray(Image.fromarray(pixels).convert("L")).astype(int)
    counts = np.zeros(10)
    for y in range(1, 11):
        for x in range(1, 14):
            ring = [grey[y + dy, x + dx] >= grey[y, x] for dy, dx in AROUND]
            changes = sum(a != b for a, b in zip(ring, ring[1:] + ring[:1], strict=True))
            counts[sum(ring) if changes <= 2 else 9] += 1
    assert _local_patterns(pixels) == pytest.approx(counts / counts.sum())


def test_texture_does_not_depend_on_how_a_tile_is_turned():
    texture = FEATURES["colour_texture"].compute
    tile = pictures()["noise"]
    for turned in (np.rot90(tile), tile[::-1], tile[:, ::-1]):
        assert texture(np.ascontiguousarray(turned)) == pytest.approx(texture(tile))


def test_the_majority_class_is_right_by_hand(tmp_path):
    samples = []
    for split, numbers in (("train", (2, 5, 3)), ("test", (1, 2, 5))):
        for label, number in zip(TASKS["cxr"].class_ids, numbers, strict=True):
            for i in range(number):
                path = tmp_path / f"{split}-{label}-{i}.png"
                Image.new("L", (40, 40), 100).save(path)
                samples.append(Sample(path, label, split, path.stem, "s"))
    rows = measure_floors(Manifest(TASKS["cxr"], "mine", tuple(samples)))
    # The training split's majority is pneumonia: 2 of 8 right, F1 of 2 * 2 / (2 + 8) and two zeros.
    assert rows[0] == {"name": "majority class", "accuracy": 0.25, "macro_f1": 0.1333}
    assert [row["name"] for row in rows] == [
        "majority class",
        *(FEATURES[f].name for f in TASKS["cxr"].floors),
    ]


def test_colour_alone_tells_colours_apart(make_manifest):
    manifest = make_manifest(train=4, val=1, test=2, task="histopathology")
    rows = {row["name"]: row for row in measure_floors(manifest)}
    assert rows["mean and deviation of each colour"]["accuracy"] == 1.0
    assert rows["mean and deviation of each colour"]["macro_f1"] == 1.0
    assert rows["majority class"]["accuracy"] == 0.2


def test_a_floor_is_the_same_each_time(make_manifest):
    manifest = make_manifest(train=3, val=2, test=2)
    assert measure_floors(manifest, "val") == measure_floors(manifest, "val")
