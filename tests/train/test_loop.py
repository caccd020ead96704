"""`train.loop`: it learns, keeps its promises to the teacher, and resumes to the very bit."""

import csv
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file

import train.loop
import train.runs
from kdmodels.zoo import build_model
from train.datasets import DataError
from train.loop import Teacher, Trainer, choose_precision, predict_logits, score
from train.recipes import Phase
from train.runs import RunFolder
from train.views import BalancedSampler, EvalViews

HYBRID = dict(objective="hybrid", teacher="vgg19")
TWO = (Phase(size=32, epochs=3, lr=0.02), Phase(size=24, epochs=2, lr=0.01))


@pytest.fixture(autouse=True)
def clean_accelerate():
    """Accelerate keeps its settings for the process; give each test a new start."""
    yield
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Spare the time of drawing."""
    monkeypatch.setattr(train.runs, "plot_curves", lambda *_: None)


@pytest.fixture(autouse=True)
def small_pixels(monkeypatch, tiny_models):
    """Keep the generated images at 48 px in memory; tiny networks in the model table."""
    monkeypatch.setattr(train.loop, "STORED_SIZE", 48)


@pytest.fixture
def make_trainer(make_manifest, tmp_path):
    """Make a `Trainer` of a recipe on a generated data set, into a named run folder."""
    manifest = make_manifest(train=4, val=2, test=1)

    def make(recipe, run: str = "run", teacher: Teacher | None = None, **options) -> Trainer:
        sha256 = teacher and teacher.sha256
        folder = RunFolder(tmp_path / run, recipe, manifest.id, sha256)
        accelerator = Accelerator(cpu=True)
        return Trainer(recipe, manifest, folder, accelerator, teacher, **options)

    return make


@pytest.fixture
def make_teacher(tiny_models):
    def make(size: int = 32, sha256: str = "ab" * 32) -> Teacher:
        return Teacher(build_model("vgg19", 3), tiny_models["vgg19"], sha256, size)

    return make


def metrics_of(trainer: Trainer) -> list[dict[str, str]]:
    """Rows of metrics.csv without what the clock says."""
    return [{k: v for k, v in r.items() if k != "seconds"} for r in trainer.folder.read_metrics()]


def same_tensors(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def same_files(first: RunFolder, second: RunFolder) -> bool:
    return all(
        same_tensors(load_file(first.path / name), load_file(second.path / name))
        for name in ("state.safetensors", "best.safetensors")
    )


# --- Learning --------------------------------------------------------------------------------


def test_training_learns_an_easy_data_set(make_manifest, make_recipe, tmp_path):
    manifest, recipe = (
        make_manifest(train=16),
        make_recipe(Phase(size=32, epochs=9, lr=0.03), batch_size=8),
    )
    folder = RunFolder(tmp_path / "run", recipe, manifest.id)
    state = Trainer(recipe, manifest, folder, Accelerator(cpu=True)).fit()
    rows = [{k: float(v) for k, v in r.items()} for r in folder.read_metrics()]
    assert rows[-1]["train_loss"] < 0.65 * rows[0]["train_loss"]
    assert rows[state.best_epoch]["val_accuracy"] >= 0.9
    assert state.finished and (state.phase, state.phase_epoch) == (0, 9)


@pytest.mark.parametrize("task", ["histopathology"])
def test_mixup_and_colour_train_as_well(make_manifest, make_recipe, tmp_path, task):
    manifest = make_manifest(train=2, val=1, test=1, task=task)
    recipe = make_recipe(Phase(size=32, epochs=1, lr=0.01), task=task, mixup=0.4, batch_size=5)
    folder = RunFolder(tmp_path / "run", recipe, manifest.id)
    trainer = Trainer(recipe, manifest, folder, Accelerator(cpu=True))
    mixed = []
    trainer.objective = lambda logits, targets, _: mixed.append(targets) or logits.sum() * 0.0
    trainer.fit()
    assert all(torch.allclose(t.sum(1), torch.ones(5)) for t in mixed)
    assert any(((t > 0.02) & (t < 0.98)).any() for t in mixed)


def test_the_metrics_are_those_of_the_averaged_weights(make_trainer, make_recipe, tiny_models):
    trainer = make_trainer(make_recipe())
    trainer.fit()
    state = trainer.folder.load_state()
    model = build_model("ofa_595", 3)
    model.load_state_dict(state.ema)
    samples = trainer.manifest.split("val")
    loader = torch.utils.data.DataLoader(EvalViews(samples, trainer.task, 32), 32)
    found = score(*predict_logits(model, loader, trainer.spec.mean, trainer.spec.std))
    for name, value in found.items():
        assert float(metrics_of(trainer)[-1][name]) == pytest.approx(value, abs=1e-6)


def test_score_knows_accuracy_f1_and_likelihood():
    logits = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]]).log()
    values = score(logits, torch.tensor([0, 1, 1, 0]))
    assert values["val_accuracy"] == 0.75
    assert values["val_macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    expected = -torch.tensor([0.9, 0.8, 0.3, 0.6]).log().mean().item()
    assert values["val_nll"] == pytest.approx(expected)


# --- Phases ----------------------------------------------------------------------------------


def test_every_epoch_of_every_phase_draws_its_own_views(make_trainer, make_recipe, monkeypatch):
    drawn = []
    draw = BalancedSampler.__iter__
    monkeypatch.setattr(
        BalancedSampler, "__iter__", lambda self: drawn.append(self.epoch) or draw(self)
    )
    phases = (TWO[0], replace(TWO[1], steps=2), TWO[1])
    make_trainer(make_recipe(*phases)).fit()
    assert drawn == [0, 1, 2, 3, 4, 5, 6]


def test_a_phase_starts_from_the_averaged_weights_of_the_last(
    make_trainer, make_recipe, monkeypatch
):
    starts = []
    epoch = Trainer._train_epoch

    def watched(self, model, *rest):
        starts.append({k: v.clone() for k, v in model.state_dict().items()})
        return epoch(self, model, *rest)

    monkeypatch.setattr(Trainer, "_train_epoch", watched)
    averaged = []
    save = RunFolder.save_epoch
    monkeypatch.setattr(
        RunFolder, "save_epoch", lambda s, st, row: averaged.append(st.ema) or save(s, st, row)
    )
    trainer = make_trainer(make_recipe(*TWO))
    trainer.fit()
    assert same_tensors(starts[3], averaged[2])
    assert not same_tensors(starts[2], averaged[1])  # within a phase the model goes on
    assert [row["size"] for row in metrics_of(trainer)] == ["32"] * 3 + ["24"] * 2


@pytest.mark.parametrize(
    "phase_steps, max_steps, steps", [(None, None, 3), (2, None, 2), (9, 1, 1), (99, None, 3)]
)
def test_steps_cap_an_epoch(make_trainer, make_recipe, phase_steps, max_steps, steps):
    phase = Phase(size=32, epochs=2, lr=0.01, steps=phase_steps)
    state = make_trainer(make_recipe(phase), max_steps=max_steps).fit()
    assert state.optimizer["0.step"].item() == 2 * steps


def test_the_learning_rate_warms_up_and_decays(make_trainer, make_recipe, monkeypatch):
    rates = []
    update = train.loop.ModelEmaV3.update
    monkeypatch.setattr(
        train.loop.ModelEmaV3, "update", lambda s, m, step: rates.append(step) or update(s, m, step)
    )
    trainer = make_trainer(make_recipe(Phase(size=32, epochs=6, lr=0.02, warmup=1.0)))
    trainer.fit()
    shown = [float(row["lr"]) for row in metrics_of(trainer)]
    assert rates == list(range(6 * 3))
    assert shown[0] < 0.02 and max(shown) < 0.02
    assert shown[1:] == sorted(shown[1:], reverse=True)
    assert shown[-1] < 0.1 * 0.02


def test_the_best_weights_are_the_averaged_ones_of_the_best_epoch_of_the_last_phase(
    make_trainer, make_recipe, monkeypatch
):
    values = iter([0.9, 0.95, 0.9, 0.2, 0.6, 0.6, 0.5])
    monkeypatch.setattr(
        train.loop, "score",
        lambda *_: dict(val_accuracy=0.0, val_macro_f1=next(values), val_nll=0.0),
    )  # fmt: skip
    averaged = []
    save = RunFolder.save_epoch
    monkeypatch.setattr(
        RunFolder, "save_epoch", lambda s, st, row: averaged.append(st.ema) or save(s, st, row)
    )
    trainer = make_trainer(make_recipe(TWO[0], replace(TWO[1], epochs=4)))
    state = trainer.fit()
    assert (state.best, state.best_epoch) == (0.6, 4)
    assert same_tensors(load_file(trainer.folder.best_file), averaged[4])
    assert not same_tensors(averaged[4], averaged[5])


def scores_that_never_rise(monkeypatch):
    monkeypatch.setattr(
        train.loop, "score", lambda *_: dict(val_accuracy=0.5, val_macro_f1=0.5, val_nll=1.0)
    )


def test_patience_ends_the_last_phase_only(make_trainer, make_recipe, monkeypatch):
    scores_that_never_rise(monkeypatch)
    phases = (TWO[0], Phase(size=24, epochs=9, lr=0.01, steps=1))
    trainer = make_trainer(make_recipe(*phases, patience=2))
    state = trainer.fit()
    assert state.finished
    assert [int(r["epoch"]) for r in metrics_of(trainer)] == [0, 1, 2, 3, 4, 5]


# --- The teacher -----------------------------------------------------------------------------


@pytest.mark.parametrize("views", [None, 2])
def test_a_teacher_comes_out_of_a_distillation_as_it_went_in(
    make_trainer, make_recipe, make_teacher, views
):
    teacher = make_teacher()
    before = {k: v.clone() for k, v in teacher.model.state_dict().items()}
    teacher.model.train()
    trainer = make_trainer(make_recipe(*TWO, **HYBRID, views=views), teacher=teacher)
    assert (trainer.targets is None) == (views is None)
    state = trainer.fit()
    assert state.finished
    assert same_tensors(teacher.model.state_dict(), before)
    assert "stem.1.running_mean" in before
    assert not any(module.training for module in teacher.model.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())


def test_cached_targets_teach_what_the_teacher_says(make_trainer, make_recipe, make_teacher):
    recipe = make_recipe(Phase(size=32, epochs=1, lr=0.01), **HYBRID, views=2)
    cached = make_trainer(recipe, "cached", make_teacher())
    asked = make_trainer(recipe, "asked", make_teacher())
    asked.targets = None
    losses = []
    for trainer in (cached, asked):
        trainer.fit()
        losses.append(float(metrics_of(trainer)[0]["train_loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    other = make_trainer(recipe, "other", make_teacher())
    other.targets = other.targets.flip(0)
    other.fit()
    assert float(metrics_of(other)[0]["train_loss"]) != pytest.approx(losses[0], rel=1e-3)


def test_a_teacher_sees_images_at_its_own_size(make_teacher):
    teacher, seen = make_teacher(size=40), []
    teacher.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    for side in (24, 40, 64):
        logits = teacher(torch.randn(2, 3, side, side))
        assert (logits.shape, logits.requires_grad) == ((2, 3), False)
    assert seen == [(2, 3, 40, 40)] * 3


@pytest.mark.parametrize("objective", ["labels", "hybrid"])
def test_objective_and_teacher_must_fit(make_trainer, make_recipe, make_teacher, objective):
    recipe = make_recipe(objective=objective)
    teacher = make_teacher() if objective == "labels" else None
    with pytest.raises(ValueError, match=f"The objective '{objective}' and the teacher do not fit"):
        make_trainer(recipe, teacher=teacher)


# --- The same again --------------------------------------------------------------------------


def test_a_seed_decides_the_weights(make_trainer, make_recipe):
    phase = Phase(size=32, epochs=1, lr=0.01)
    states = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(states))
        states.append(make_trainer(make_recipe(phase, seed=seed), run).fit())
    assert same_tensors(states[0].model, states[1].model)
    assert same_tensors(states[0].optimizer, states[1].optimizer)
    assert not same_tensors(states[0].model, states[2].model)


INTERRUPTIONS = {  # an epoch has three steps
    "in epoch 1": ("update", 5),
    "in the second phase": ("update", 11),
    "after its first epoch": ("update", 13),
    "before the state of epoch 1 is written": ("save", 2),
    "before the run is called finished": ("save", 6),
}


class Interruption:
    """Raises `KeyboardInterrupt` at a call of a method, counted from 1, and then never again."""

    def __init__(self, monkeypatch, what: str, number: int) -> None:
        owner, name = {
            "update": (train.loop.ModelEmaV3, "update"),
            "save": (RunFolder, "save_state"),
        }[what]
        self.left, original = number, getattr(owner, name)

        def method(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, method)


@pytest.fixture
def run_of_two_phases(make_trainer, make_recipe, make_teacher):
    """Make the trainer of a run with dropout-free networks, mixup and a teacher asked as it goes."""
    recipe = make_recipe(*TWO, **HYBRID | {"mixup": 0.2})
    return lambda run: make_trainer(recipe, run, make_teacher())


@pytest.mark.parametrize("moment", INTERRUPTIONS)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(run_of_two_phases, moment, monkeypatch):
    whole = run_of_two_phases("whole")
    whole.fit()
    interrupted = run_of_two_phases("interrupted")
    with monkeypatch.context() as patch:
        Interruption(patch, *INTERRUPTIONS[moment])
        with pytest.raises(KeyboardInterrupt):
            interrupted.fit()
    AcceleratorState._reset_state(True)
    torch.manual_seed(1234)
    resumed = run_of_two_phases("interrupted")
    resumed.fit()
    assert same_files(resumed.folder, whole.folder)
    assert metrics_of(resumed) == metrics_of(whole)
    assert len(metrics_of(whole)) == 5


def test_a_run_out_of_patience_does_not_go_on_when_it_is_resumed(
    make_trainer, make_recipe, monkeypatch
):
    scores_that_never_rise(monkeypatch)
    recipe = make_recipe(Phase(size=32, epochs=9, lr=0.01, steps=1), patience=2)
    with monkeypatch.context() as patch:
        Interruption(patch, "save", 4)  # three epochs, then the end
        with pytest.raises(KeyboardInterrupt):
            make_trainer(recipe).fit()
    resumed = make_trainer(recipe)
    assert resumed.fit().finished
    assert [int(r["epoch"]) for r in metrics_of(resumed)] == [0, 1, 2]


def test_a_finished_run_returns_at_once(make_trainer, make_recipe, monkeypatch):
    first = make_trainer(make_recipe())
    state = first.fit()
    written = first.folder.state_file.stat().st_mtime_ns
    monkeypatch.setattr(Trainer, "_run_phase", lambda *_: pytest.fail("it trained again"))
    again = make_trainer(make_recipe()).fit()
    assert again.finished and same_tensors(again.model, state.model)
    assert first.folder.state_file.stat().st_mtime_ns == written


def test_metrics_file_has_the_documented_columns(make_trainer, make_recipe):
    trainer = make_trainer(make_recipe())
    trainer.fit()
    with trainer.folder.metrics_file.open(newline="") as file:
        header = next(csv.reader(file))
    assert header == ["epoch", "size", "lr", "train_loss", "val_accuracy", "val_macro_f1",
                      "val_nll", "seconds"]  # fmt: skip


def test_too_few_images_for_a_batch_are_said(make_trainer, make_recipe):
    with pytest.raises(DataError, match="12 training images do not fill a batch of 64"):
        make_trainer(make_recipe(batch_size=64)).fit()


# --- Precision -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted, cuda, amx, chosen",
    [
        ("auto", False, False, "no"),
        ("auto", False, True, "bf16"),
        ("auto", True, False, "bf16"),
        ("float32", True, True, "no"),
        ("bf16", False, False, "bf16"),
    ],
)
def test_precision_follows_the_hardware_unless_it_is_named(monkeypatch, wanted, cuda, amx, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert choose_precision(wanted) == chosen
