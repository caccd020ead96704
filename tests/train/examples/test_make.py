"""The synthetic examples: whatever is near to one patient's image is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from kdmodels.examples import examples
from kdmodels.tasks import TASKS, get_task
from kdmodels.tasks.task import Examples
from train.data.manifest import DataError, Sample
from train.examples.closeness import Images, compare, turns_of
from train.examples.composites import LICENCES, Plan, Pool, blend, choose, permitted, read_licences
from train.examples.make import MAKERS, Made, check, write_examples
from train.examples.registration import blur
from train.examples.tissue import DRAWN

TASK = get_task("cxr")
SIDE = 128
(SOURCE, LICENCE) = ("kermany", "CC BY 4.0")


def person(seed: int) -> Image.Image:
    """A film of somebody: blobs of many sizes, unlike those of any other seed."""
    noise = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    field = sum(blur(noise, s) * s for s in (1.2, 3.0, 8.0))[0, 0]
    field = 128 + 45 * field / field.std()
    return Image.fromarray(field.clamp(0, 255).byte().numpy())


def sample(seed: int, **other) -> Sample:
    return replace(
        Sample(Path(f"{seed}.jpg"), "normal", "train", f"patient {seed}", SOURCE), **other
    )


@pytest.fixture(scope="module")
def people() -> tuple[list[Sample], Images]:
    samples = [sample(seed) for seed in range(24)]
    films = [person(seed) for seed in range(24)]
    return samples, Images.of(films, [s.group for s in samples], turns_of(TASKS["cxr"]))


def made(picture: Image.Image, people) -> Made:
    credit = LICENCES[SOURCE, LICENCE]
    return Made(
        "cxr/normal-1.jpg", "normal", "composite", 0, picture, credit, tuple(people[0][:16])
    )


def refusal(picture: Image.Image, people) -> str:
    with pytest.raises(DataError, match="Too close") as error:
        check([made(picture, people)], *people, TASK)
    return str(error.value)


def test_a_picture_of_nobody_passes(people):
    (done,), limits = check([made(person(1000), people)], *people, TASK)
    assert set(done.nearest) == set(limits) == {"whole", "piece", "hash"}
    assert all(done.nearest[name] >= limits[name] for name in limits)


def test_a_copy_is_refused_by_every_measure(people):
    text = refusal(person(3), people)
    assert all(f"({name} " in text for name in ("whole", "piece", "hash"))
    assert "Choose another seed" in text


def test_a_mirrored_copy_is_refused(people):
    assert "whole" in refusal(person(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT), people)


def test_a_shifted_darker_copy_is_refused(people):
    pixels = np.roll(np.asarray(person(3)), (5, -4), (0, 1)) * 0.6 + 20
    assert "whole" in refusal(Image.fromarray(pixels.astype(np.uint8)), people)


def test_a_faint_copy_in_a_blend_is_refused(people):
    """As much of one patient as a blend of two with equal shares holds."""
    assert "whole" in refusal(Image.blend(person(3), person(1000), 0.5), people)


def test_a_part_of_a_patient_is_refused(people):
    picture = person(1000)
    picture.paste(person(3).crop((40, 40, 90, 90)), (40, 40))
    assert "piece" in refusal(picture, people)


def test_one_patient_twice_is_refused(people):
    twice = replace(made(person(1000), people), sources=(people[0][0],) * 16)
    with pytest.raises(DataError, match="fewer than 16 patients"):
        check([twice], *people, TASK)


def test_images_of_the_same_group_are_no_yardstick(people):
    same = Images(people[1].detail, people[1].hashes, ("one",) * 24)
    assert np.isinf(compare(same.take([0]), same, turns_of(TASKS["cxr"])).nearest()["whole"]).all()


def test_tiles_are_looked_for_in_every_turn():
    films = [person(seed) for seed in range(6)]
    turns = turns_of(TASKS["histopathology"])
    sources = Images.of(films, "abcdef", turns)
    for turned in (films[2].rotate(90), films[2].rotate(270).transpose(Image.Transpose.TRANSPOSE)):
        near = compare(Images.of([turned], [""], turns), sources, turns, ("whole", "hash"))
        assert near.values["whole"].argmin() == 2 and near.values["whole"].min() < 0.1
        assert near.values["hash"].argmin() == 2


def test_only_training_films_of_a_clear_licence_are_used():
    samples = [sample(0), sample(1), sample(2, split="test"), sample(3, source="radiography-db")]
    licences = {"0": LICENCE, "1": "CC BY-NC-ND", "2": LICENCE, "3": LICENCE}
    assert permitted(samples, licences) == samples[:1]


def test_a_data_set_without_licences_is_refused(tmp_path):
    with pytest.raises(DataError, match="licences"):
        read_licences(tmp_path)
    (tmp_path / "manifest.csv").write_text("stem,label\na,normal\n")
    with pytest.raises(DataError, match="lacks the column"):
        read_licences(tmp_path)


@pytest.fixture(scope="module")
def pool() -> Pool:
    samples = [sample(i, group=f"patient {i // 2}") for i in range(60)]
    samples += [sample(60 + i, label="covid") for i in range(10)]
    films = [torch.from_numpy(np.array(person(i).resize((64, 64)))) for i in range(70)]
    return Pool.of(samples, torch.stack(films).float()[:, None] / 255)


def test_every_film_of_a_composite_is_of_another_patient_of_the_class(pool):
    chosen = choose(pool, Plan("normal", SOURCE, 0), patients=16)
    films = [pool.samples[i] for i in chosen]
    assert len({film.group for film in films}) == 16
    assert {film.label for film in films} == {"normal"}


def test_the_seed_alone_decides(pool):
    plan = Plan("normal", SOURCE, 1)
    assert choose(pool, plan) == choose(pool, plan) != choose(pool, replace(plan, seed=2))
    chosen = choose(pool, plan)
    first, again = (blend(pool.films[chosen], pool.theta[chosen]) for _ in range(2))
    assert torch.equal(first, again)
    assert first.min() == 0 and first.max() == 1


def test_too_few_patients_are_refused(pool):
    with pytest.raises(DataError, match="Only 7 patients"):
        choose(pool, Plan("covid", SOURCE, 0), patients=7)


def test_what_is_in_one_film_alone_is_cut_back():
    """A bright letter of one film must not be readable in the composite."""
    films = torch.stack([torch.from_numpy(np.array(person(7))).float()[None] / 255] * 16)
    films = films + 0.03 * torch.randn(films.shape, generator=torch.Generator().manual_seed(0))
    marked = films.clone()
    marked[5, 0, 60:70, 60:70] = 1.5
    theta = torch.eye(2, 3).repeat(16, 1, 1)
    change = (blend(marked, theta) - blend(films, theta)).abs().max()
    assert change < 0.1  # a plain mean with its contrast restored changes by more


def test_a_drawn_tile_is_the_same_each_time():
    first, again = (np.asarray(DRAWN["lung_scc"](1)) for _ in range(2))
    assert first.shape == (256, 256, 3)
    assert np.array_equal(first, again)


def test_what_is_stored_is_what_the_app_reads(people, tmp_path):
    example = made(person(1000), people)
    (done,), limits = check([example], *people, TASK)
    stale = tmp_path / "cxr" / "normal-9.jpg"
    stale.parent.mkdir()
    stale.touch()
    write_examples([done], limits, TASK, tmp_path)
    (found,) = examples("cxr", tmp_path)
    assert not stale.exists()
    assert found.path.read_bytes() == done.jpeg and found.sources == 16
    row = json.loads((tmp_path / "index.json").read_text())["examples"][0]
    assert all(row["nearest"][name] >= row["allowed_from"][name] for name in limits)


def test_there_is_a_program_for_each_name_of_a_task_file():
    assert {*MAKERS, "none"} == set(get_args(Examples))
