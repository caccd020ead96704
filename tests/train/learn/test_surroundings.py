"""`train.learn.surroundings`: a film's own lungs and label, another class's surroundings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kdmodels.tasks import TASKS
from train.data.blanking import box_bounds
from train.data.manifest import DataError, Sample, read_mask
from train.data.pixels import PixelStore
from train.learn.recipes import RecipeError, read_recipe
from train.learn.surroundings import Surroundings
from train.learn.views import TrainViews

CXR = TASKS["cxr"]
SIDE = 64
GREYS = {"covid": 40, "pneumonia": 120, "normal": 200}  # of the surroundings; the lungs add 30


@pytest.fixture
def store(tmp_path) -> PixelStore:
    """Two films of each class, each of its own grey, and one film without a mask."""
    samples = []
    for number, (label, grey) in enumerate((c, g) for c, g in GREYS.items() for _ in range(2)):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[20:44, 12 + number : 50] = 255
        film = np.full((SIDE, SIDE), grey + number, np.uint8)
        film[mask > 0] += 30
        paths = tmp_path / f"{number}.png", tmp_path / f"{number}-mask.png"
        Image.fromarray(film).save(paths[0])
        Image.fromarray(mask).save(paths[1])
        samples.append(Sample(paths[0], label, "train", str(number), "source", mask=paths[1]))
    samples.append(replace(samples[0], mask=None, group="bare"))
    return PixelStore(samples, CXR, SIDE)


def test_a_swapped_film_keeps_its_lungs_in_the_surroundings_of_another_class(store):
    surroundings = Surroundings(store, share=1.0)
    torch.manual_seed(3)
    corners = {label: set() for label in GREYS}
    for _ in range(12):
        for i, sample in enumerate(store.samples[:6]):
            shown = surroundings.draw(i)[0].numpy()
            corner = int(shown[0, 0])
            donor = next(j for j in range(6) if store[j][0, 0, 0] == corner)
            assert store.samples[donor].label != sample.label
            corners[sample.label].add(corner)
            place = box_bounds(read_mask(store.samples[donor].mask, SIDE))
            own = store[i][0].numpy()
            assert abs(int(np.median(shown[place])) - int(own[32, 40])) <= 1
    assert all(len(found) == 4 for found in corners.values())  # all films of both other classes


def test_films_without_a_mask_and_the_other_draws_stay_as_they_are(store):
    torch.manual_seed(0)
    always, never = Surroundings(store, 1.0), Surroundings(store, 0.0)
    assert torch.equal(always.draw(6), store[6])
    assert all(torch.equal(never.draw(i), store[i]) for i in range(6))
    sometimes = Surroundings(store, 0.25)
    kept = sum(torch.equal(sometimes.draw(1), store[1]) for _ in range(400))
    assert 260 <= kept <= 340


def test_a_view_is_still_a_function_of_its_key(store):
    views = TrainViews(store, 32, seed=1, draw=Surroundings(store, 0.5).draw)
    keys = [(i, v) for i in range(7) for v in range(4)]
    first = [views[key][0] for key in keys]
    torch.rand(9)
    assert all(torch.equal(views[key][0], image) for key, image in zip(keys, first, strict=True))
    plain = TrainViews(store, 32, seed=1)
    changed = [
        not torch.equal(plain[key][0], image) for key, image in zip(keys, first, strict=True)
    ]
    assert any(changed[:24]) and not any(changed[24:])  # the film without a mask


def test_masks_of_one_class_are_not_enough(store):
    one = [replace(s, mask=s.mask if s.label == "covid" else None) for s in store.samples]
    with pytest.raises(DataError, match="has them of 1; leave the key out"):
        Surroundings(PixelStore(one, CXR, SIDE), 0.5)


def test_a_recipe_with_a_teacher_cannot_swap(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "task: cxr\nmodel: ofa_595\nteacher: vgg19\nobjective: hybrid\nmixup: 0.0\n"
        "swap_surroundings: 0.5\nphases: [{size: 32, epochs: 1, lr: 1.0e-3}]\n"
    )
    with pytest.raises(RecipeError, match="sees films as they are"):
        read_recipe(file)
