"""`train.measure.floors`: features without disease, and what they reach."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import train.measure.floors
from kdmodels.tasks import TASKS
from kdmodels.tasks.task import Feature
from train.data.manifest import Manifest, Sample
from train.measure.floors import FEATURES, SIZE, _local_patterns, floors_of
from train.measure.kept import Images

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
    for split, numbers in (("train", (2, 5, 3)), ("val", (1, 1, 1)), ("test", (1, 2, 5))):
        for label, number in zip(TASKS["cxr"].class_ids, numbers, strict=True):
            for i in range(number):
                path = tmp_path / f"{split}-{label}-{i}.png"
                Image.new("L", (40, 40), 100).save(path)
                samples.append(Sample(path, label, split, path.stem, "s"))
    floors = list(floors_of(Manifest(TASKS["cxr"], "mine", tuple(samples))))
    # The training split holds 2, 5 and 3 of 10: the majority is pneumonia, whatever the film.
    shares = np.exp(floors[0].test)
    assert shares == pytest.approx(np.tile((0.2, 0.5, 0.3), (8, 1)), abs=1e-5)
    assert floors[0].val.shape == (3, 3)
    ids = TASKS["cxr"].floors
    assert [floor.id for floor in floors] == ["majority", *ids]
    assert [floor.name for floor in floors] == ["majority class", *(FEATURES[i].name for i in ids)]
    assert {floor.kind for floor in floors} == {"floor"}


def test_colour_alone_tells_colours_apart(make_manifest):
    manifest = make_manifest(train=4, val=1, test=2, task="histopathology")
    floors = {floor.name: floor for floor in floors_of(manifest)}
    for split in ("val", "test"):
        answers = getattr(floors["mean and deviation of each colour"], split).argmax(1)
        assert answers.tolist() == Images.of(manifest.split(split), manifest.task).labels.tolist()
    assert set(floors["majority class"].test.argmax(1)) == {0}


def test_a_floor_is_the_same_each_time_and_learns_from_train_alone(make_manifest):
    manifest = make_manifest(train=3, val=2, test=2)
    first, second = list(floors_of(manifest)), list(floors_of(manifest))
    kept = tuple(s for s in manifest.samples if s.split != "test" or s.path.stem[-1] == "0")
    fewer = list(floors_of(replace(manifest, samples=kept)))
    for one, other, less in zip(first, second, fewer, strict=True):
        assert np.array_equal(one.test, other.test) and np.array_equal(one.val, other.val)
        assert np.array_equal(one.test[::2], less.test)
