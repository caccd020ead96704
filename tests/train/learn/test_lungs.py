"""`train.learn.lungs` and its views, on drawn films: two bright ellipses on grey."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kdmodels.lungs.unet import SIDE
from kdmodels.tasks import get_task
from train.data.manifest import DataError, Sample
from train.learn.lung_views import LungViews
from train.learn.lungs import LungSettings, dice, lung_loss, train_lungs

SETTINGS = LungSettings(epochs=2, batch_size=2, lr=1e-3, ema_decay=0.5)


@pytest.fixture
def films(tmp_path):
    """Six films with masks: four to train on, two to judge by."""
    y, x = np.mgrid[:64, :64] / 64
    samples = []
    for i in range(6):
        inside = sum(((x - c) / 0.13) ** 2 + ((y - 0.5) / 0.3) ** 2 < 1 for c in (0.28, 0.72)) > 0
        noise = np.random.default_rng(i).normal(0, 8, inside.shape)
        film = np.where(inside, 60, 160) + noise
        Image.fromarray(film.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{i}.png")
        Image.fromarray((inside * 255).astype(np.uint8)).save(tmp_path / f"{i}-mask.png")
        split = "train" if i < 4 else "val"
        place = tmp_path / f"{i}.png", "normal", split, str(i), "drawn", tmp_path / f"{i}-mask.png"
        samples.append(Sample(*place))
    return samples[:4], samples[4:]


def run(films, folder, settings=SETTINGS, others=(), data="films@0") -> float:
    torch.set_num_threads(1)
    return train_lungs(*films, others, get_task("cxr"), folder, settings, data)


def test_a_run_killed_after_an_epoch_ends_as_one_that_was_not(films, tmp_path, monkeypatch):
    run(films, tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("train.learn.lungs.log.info", kill)
        with pytest.raises(Killed):
            run(films, tmp_path / "killed")
    run(films, tmp_path / "killed")
    for name in ("best.safetensors", "state.safetensors"):
        whole, killed = (load_file(tmp_path / f / name) for f in ("whole", "killed"))
        assert all(torch.equal(whole[key], killed[key]) for key in whole)


def test_a_folder_of_other_settings_or_data_is_refused(films, tmp_path):
    run(films, tmp_path / "run")
    for changed in ({"settings": LungSettings(epochs=2, batch_size=2)}, {"data": "films@1"}):
        with pytest.raises(DataError, match="other settings or data"):
            run(films, tmp_path / "run", **changed)


def test_films_without_masks_are_refused(films, tmp_path):
    train = [Sample(s.path, s.label, s.split, s.group, s.source) for s in films[0]]
    with pytest.raises(DataError, match="needs films with lung masks"):
        run((train, films[1]), tmp_path / "run")


def test_pictures_without_lungs_change_the_training(films, tmp_path):
    others = [Sample(s.path, s.label, s.split, s.group, s.source) for s in films[0]]
    settings = LungSettings(epochs=6, batch_size=2, lr=0.02, warmup=0.0, nothing=1.0)
    run(films, tmp_path / "all", settings, others)
    run(films, tmp_path / "none", settings)
    found = [
        load_file(tmp_path / f / "state.safetensors")["model/head.bias"] for f in ("all", "none")
    ]
    assert found[0] < found[1]  # all of them said that there is no lung


def test_the_loss_is_cross_entropy_and_what_dice_lacks():
    logits = torch.tensor([[[[2.0, -1.0]]], [[[0.5, -3.0]]]], dtype=torch.float64)
    masks = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]], dtype=torch.float64)
    p = 1 / (1 + np.exp(-logits.numpy()))
    m = masks.numpy()
    entropy = -(m * np.log(p) + (1 - m) * np.log(1 - p)).mean()
    wanted = entropy + 1 - 2 * (p * m).sum() / (p.sum() + m.sum())
    assert lung_loss(logits, masks).item() == pytest.approx(wanted, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: lung_loss(x, masks), logits.requires_grad_())


def test_dice_counts_each_picture_and_takes_two_empty_masks_for_alike():
    masks = torch.zeros(3, 1, 2, 2)
    masks[0, 0, 0] = 1
    found = torch.zeros(3, 1, 2, 2)
    found[0, 0, 0, 0] = found[2, 0, 0, 0] = 1
    assert dice(found, masks).tolist() == pytest.approx([2 / 3, 1, 0], abs=1e-4)


def test_views_move_film_and_mask_alike_and_are_a_function_of_the_seed():
    films = torch.zeros(8, 1, 96, 96, dtype=torch.uint8)
    films[..., 30:60, 20:50] = 255
    masks = (films > 0).to(torch.uint8)
    views = LungViews(SIDE)

    def seen(seed: int):
        torch.manual_seed(seed)
        return views(films.clone(), masks.clone())

    (a, mask_a), (b, mask_b), (c, _) = seen(1), seen(1), seen(2)
    assert torch.equal(a, b)
    assert torch.equal(mask_a, mask_b)
    assert not torch.equal(a, c)
    assert a.shape == mask_a.shape == (8, 1, SIDE, SIDE)
    assert set(mask_a.unique().tolist()) == {0.0, 1.0}
    # Where the mask says so, the film is unlike the rest: bright, or dark where it was inverted.
    apart = [
        (f[m > 0].mean() - f[m == 0].mean()).abs()
        for f, m in zip(a, mask_a, strict=True)
        if m.any()
    ]
    assert torch.stack(apart).median() > 1
