"""`train.learn.runs`: what is on disk after an epoch is enough to go on, even after a full disk."""

import csv

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import train.learn.runs
from train.learn.recipes import Phase, RecipeError
from train.learn.runs import RunFolder, RunState, write_safetensors

SHA = "ab" * 32


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # as in training


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.05, fused=True)


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    model(torch.randn(6, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def row_of(epoch: int, f1: float = 0.5, **changes) -> dict:
    return dict(epoch=epoch, size=32, lr=0.1, train_loss=1.0 / (epoch + 1), val_accuracy=0.25,
                val_macro_f1=f1, val_nll=0.75, seconds=1.5) | changes  # fmt: skip


def recorded(model, optimizer, epoch: int = 0, f1: float = 0.5, selectable=True) -> RunState:
    state = RunState()
    state.record(model, model, optimizer, epoch + 1, epoch, row_of(epoch, f1), selectable)
    return state


@pytest.fixture
def trained():
    model = network()
    optimizer = adamw(model)
    for seed in range(3):
        take_step(model, optimizer, seed)
    return model, optimizer


@pytest.fixture
def folder(make_recipe, tmp_path):
    return RunFolder(tmp_path / "run", make_recipe(), "generated@1", SHA)


@pytest.fixture
def no_curves(monkeypatch):
    """Spare the time of drawing."""
    monkeypatch.setattr(train.learn.runs, "plot_curves", lambda *_: None)


# --- The state -------------------------------------------------------------------------------


def test_a_saved_state_comes_back_as_it_was(trained, tmp_path):
    state = recorded(*trained, epoch=4, f1=0.8125)
    state.phase, state.finished = 2, True
    state.save(tmp_path / "state.safetensors")
    loaded = RunState.load(tmp_path / "state.safetensors")
    for name in ("phase", "phase_epoch", "best", "best_epoch", "finished"):
        assert getattr(loaded, name) == getattr(state, name)
    assert (loaded.phase, loaded.phase_epoch, loaded.best, loaded.best_epoch) == (2, 5, 0.8125, 4)
    for part in ("model", "ema", "optimizer"):
        saved, read = getattr(state, part), getattr(loaded, part)
        assert saved.keys() == read.keys() and len(saved) > 5
        assert all(torch.equal(saved[k], read[k]) for k in saved)
        assert all(saved[k].dtype == read[k].dtype for k in saved)


def test_one_more_step_after_loading_gives_the_same_weights(trained, tmp_path):
    model, optimizer = trained
    recorded(model, optimizer).save(tmp_path / "state.safetensors")
    loaded = RunState.load(tmp_path / "state.safetensors")
    again = network(seed=1)
    again.load_state_dict(loaded.model)
    restored, without = adamw(again), network(seed=1)
    without.load_state_dict(loaded.model)
    loaded.restore_optimizer(restored)
    for each, its in ((model, optimizer), (again, restored), (without, adamw(without))):
        take_step(each, its, seed=9)
    states = [m.state_dict() for m in (model, again, without)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["3.weight"], states[2]["3.weight"])  # the moments do matter


def test_a_recorded_state_does_not_change_with_the_model(trained):
    model, optimizer = trained
    state = recorded(model, optimizer)
    before = {k: v.clone() for k, v in (state.model | state.optimizer).items()}
    take_step(model, optimizer, seed=7)
    assert all(torch.equal(v, before[k]) for k, v in (state.model | state.optimizer).items())


def test_only_better_epochs_that_may_be_chosen_become_the_best(trained):
    state = RunState()
    for epoch, (f1, selectable) in enumerate(
        [(0.9, False), (0.3, True), (0.6, True), (0.6, True), (0.5, True), (0.7, False)]
    ):
        model, optimizer = trained
        state.record(model, model, optimizer, epoch + 1, epoch, row_of(epoch, f1), selectable)
        assert state.is_best == (epoch in (1, 2))
    assert (state.best, state.best_epoch) == (0.6, 2)


def test_a_new_phase_keeps_the_averaged_weights_only(trained):
    state = recorded(*trained, epoch=2)
    state.begin_phase(1)
    assert (state.phase, state.phase_epoch, state.best, state.best_epoch) == (1, 0, -1, -1)
    assert state.ema and not state.model and not state.optimizer


# --- A full disk -----------------------------------------------------------------------------


def half_a_file(tensors, file, metadata=None):
    file.write_bytes(b"half a file")
    raise OSError(28, "No space left on device")


def test_a_full_disk_keeps_the_former_state(trained, folder, monkeypatch):
    model, optimizer = trained
    state = recorded(model, optimizer)
    folder.save_epoch(state, row_of(0))
    kept = {p.name: p.read_bytes() for p in folder.path.iterdir()}
    take_step(model, optimizer, seed=5)
    monkeypatch.setattr(train.learn.runs, "save_file", half_a_file)
    with pytest.raises(OSError, match="No space left"):
        folder.save_state(recorded(model, optimizer, epoch=1))
    assert {p.name: p.read_bytes() for p in folder.path.iterdir()} == kept
    loaded = folder.load_state()
    assert torch.equal(loaded.model["3.weight"], state.model["3.weight"])


def test_a_full_disk_keeps_the_former_metrics(trained, folder, monkeypatch):
    folder.save_epoch(recorded(*trained), row_of(0))
    kept = folder.metrics_file.read_bytes()

    class Full(csv.DictWriter):
        def writerows(self, rows):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv, "DictWriter", Full)
    with pytest.raises(OSError, match="No space left"):
        folder.save_epoch(recorded(*trained, epoch=1), row_of(1))
    assert folder.metrics_file.read_bytes() == kept


def test_writing_leaves_no_partial_file(tmp_path):
    write_safetensors({"x": torch.ones(3)}, tmp_path / "x.safetensors", {"a": "b"})
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


# --- The folder ------------------------------------------------------------------------------


def test_a_folder_is_opened_again_by_the_same_run(folder, make_recipe):
    again = RunFolder(folder.path, make_recipe(), "generated@1", SHA)
    assert again.load_state() is None
    assert again.read_metrics() == []


SHORT, OTHER = Phase(size=32, epochs=2, lr=0.01), Phase(size=32, epochs=3, lr=0.01)


@pytest.mark.parametrize(
    "before, after, settings, grown",
    [
        ((SHORT,), (SHORT, OTHER), {}, True),
        ((SHORT,), (SHORT, OTHER, SHORT), {}, True),
        ((SHORT, OTHER), (SHORT,), {}, False),
        ((SHORT,), (OTHER, SHORT), {}, False),
        ((SHORT,), (OTHER,), {}, False),
        ((SHORT,), (SHORT, OTHER), {"seed": 1}, False),
    ],
)
def test_only_further_phases_at_the_end_may_be_new(
    make_recipe, tmp_path, before, after, settings, grown
):
    RunFolder(tmp_path / "a", make_recipe(*before), "generated@1", SHA)
    if grown:
        for create in (True, False):  # the main process, then the others
            RunFolder(tmp_path / "a", make_recipe(*after), "generated@1", SHA, create=create)
        with pytest.raises(RecipeError, match="holds a run of another recipe"):  # and not back
            RunFolder(tmp_path / "a", make_recipe(*before), "generated@1", SHA)
    else:
        with pytest.raises(RecipeError, match="holds a run of another recipe"):
            RunFolder(tmp_path / "a", make_recipe(*after, **settings), "generated@1", SHA)


@pytest.mark.parametrize(
    "settings, data, teacher",
    [
        (dict(seed=1), "generated@1", SHA),
        (dict(weight_decay=0.01), "generated@1", SHA),
        ({}, "generated@2", SHA),
        ({}, "generated@1", "cd" * 32),
        ({}, "generated@1", None),
    ],
)
def test_a_folder_of_another_run_is_refused(folder, make_recipe, settings, data, teacher):
    sentence = "holds a run of another recipe, data set, teacher, guide or precision; name a new folder with --run"
    with pytest.raises(RecipeError, match=sentence) as caught:
        RunFolder(folder.path, make_recipe(**settings), data, teacher)
    assert str(folder.path) in str(caught.value) and "\n" not in str(caught.value)


def test_metrics_have_one_row_an_epoch_however_often_it_ran(trained, folder, no_curves):
    for epoch in (0, 1, 2, 2, 1, 2, 3):  # as after two crashes between metrics and state
        folder.save_epoch(recorded(*trained, epoch=epoch), row_of(epoch, seconds=9.0))
    rows = folder.read_metrics()
    assert [int(r["epoch"]) for r in rows] == [0, 1, 2, 3]
    assert list(rows[0]) == list(row_of(0))
    assert [float(r["train_loss"]) for r in rows] == [1.0, 1 / 2, 1 / 3, 1 / 4]


def test_the_best_weights_are_those_of_the_best_epoch(trained, folder, no_curves):
    model, optimizer = trained
    state = RunState()
    for epoch, f1 in enumerate((0.2, 0.6, 0.4)):
        take_step(model, optimizer, seed=20 + epoch)
        state.record(model, model, optimizer, epoch + 1, epoch, row_of(epoch, f1), True)
        folder.save_epoch(state, row_of(epoch, f1))
        if epoch == 1:
            best = {k: v.clone() for k, v in model.state_dict().items()}
    stored = load_file(folder.best_file)
    assert stored.keys() == best.keys()
    assert all(torch.equal(stored[k], best[k]) for k in best)
    assert not torch.equal(stored["3.weight"], model.state_dict()["3.weight"])


def test_the_curves_are_a_picture(trained, folder):
    for epoch, size in enumerate((32, 32, 48)):
        folder.save_epoch(recorded(*trained, epoch=epoch), row_of(epoch, size=size))
    with Image.open(folder.path / "curves.png") as image:
        image.load()
        assert image.format == "PNG" and image.width > 600
        assert len(set(image.convert("RGB").resize((200, 80)).get_flattened_data())) > 4
