"""`train.learn.loop`: it learns, keeps its promises to the teachers, and resumes to the very bit."""

import csv
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import nn

import train.learn.loop
import train.learn.runs
from kdmodels.models.zoo import TEACHERS, build_model
from train.data.manifest import DataError
from train.data.pixels import EvalViews
from train.learn.guides import Guide
from train.learn.loop import Trainer, predict_logits, score
from train.learn.objectives import Answers, Objective
from train.learn.recipes import Phase, RecipeError
from train.learn.runs import RunFolder, RunState
from train.learn.teachers import Teacher
from train.learn.views import BalancedSampler

LABELS = dict(objective="labels")
HYBRID = dict(objective="hybrid", teacher="vgg19")
ATTENTION = dict(objective="attention", teacher="vgg19")
MULTI = dict(objective="multi_teacher", teacher="+".join(TEACHERS))
OBJECTIVES = {"labels": LABELS, "hybrid": HYBRID, "multi_teacher": MULTI, "attention": ATTENTION}
TWO = (Phase(size=32, epochs=3, lr=0.02), Phase(size=24, epochs=2, lr=0.01))
GUIDED = (TWO[0].model_copy(update={"objective": "features"}), TWO[1])


pytestmark = pytest.mark.usefixtures("clean_accelerate")


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Spare the time of drawing."""
    monkeypatch.setattr(train.learn.runs, "plot_curves", lambda *_: None)


@pytest.fixture(autouse=True)
def small_pixels(monkeypatch, tiny_models):
    """Keep the generated images at 48 px in memory; tiny networks in the model table."""
    monkeypatch.setattr(train.learn.loop, "STORED_SIZE", 48)


@pytest.fixture
def make_trainer(make_manifest, tmp_path):
    """Make a `Trainer` of a recipe on a generated data set, into a named run folder."""
    manifest = make_manifest(train=4, val=2, test=1)

    def make(recipe, run: str = "run", teachers=(), precision: str = "no", **options) -> Trainer:
        sha256 = "+".join(t.sha256 for t in teachers) or None
        folder = RunFolder(tmp_path / run, recipe, manifest.id, sha256)
        accelerator = Accelerator(cpu=True, mixed_precision=precision)
        return Trainer(recipe, manifest, folder, accelerator, teachers, **options)

    return make


@pytest.fixture
def make_teachers(tiny_models):
    """Make the teachers of a recipe, with the weights that their networks are built with."""

    def make(recipe, size: int = 32) -> tuple[Teacher, ...]:
        return tuple(
            Teacher(build_model(model, 3), tiny_models[model], f"{i:02x}" * 32, size)
            for i, model in enumerate(recipe.teachers)
        )

    return make


@pytest.fixture
def guide() -> Guide:
    """A guide of 30 features: the brightness of as many places."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d((5, 2)), nn.Flatten())
    return Guide(network, "9a" * 32, size=40)


class Watched:
    """An objective that keeps what it was given."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.needs_maps = objective, objective.needs_maps
        self.students, self.targets, self.teachers, self.losses = [], [], [], []

    def __call__(self, student, targets, teachers=()):
        loss = self.objective(student, targets, teachers)
        maps = None if student.maps is None else student.maps.detach()
        self.students.append(Answers(student.logits.detach(), maps))
        self.targets.append(targets)
        self.teachers.append(list(teachers))
        self.losses.append(loss.item())
        return loss


def watch(trainer: Trainer) -> Watched:
    trainer.objective = Watched(trainer.objective)
    return trainer.objective


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
    watched = watch(trainer)
    trainer.fit()
    assert all(torch.allclose(t.sum(1), torch.ones(5)) for t in watched.targets)
    assert any(((t > 0.02) & (t < 0.98)).any() for t in watched.targets)


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
    phases = (TWO[0], TWO[1].model_copy(update={"steps": 2}), TWO[1])
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
    update = train.learn.loop.ModelEmaV3.update
    monkeypatch.setattr(
        train.learn.loop.ModelEmaV3,
        "update",
        lambda s, m, step: rates.append(step) or update(s, m, step),
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
        train.learn.loop, "score",
        lambda *_: dict(val_accuracy=0.0, val_macro_f1=next(values), val_nll=0.0),
    )  # fmt: skip
    averaged = []
    save = RunFolder.save_epoch
    monkeypatch.setattr(
        RunFolder, "save_epoch", lambda s, st, row: averaged.append(st.ema) or save(s, st, row)
    )
    trainer = make_trainer(make_recipe(TWO[0], TWO[1].model_copy(update={"epochs": 4})))
    state = trainer.fit()
    assert (state.best, state.best_epoch) == (0.6, 4)
    assert same_tensors(load_file(trainer.folder.best_file), averaged[4])
    assert not same_tensors(averaged[4], averaged[5])


def scores_that_never_rise(monkeypatch):
    monkeypatch.setattr(
        train.learn.loop, "score", lambda *_: dict(val_accuracy=0.5, val_macro_f1=0.5, val_nll=1.0)
    )


def test_patience_ends_the_last_phase_only(make_trainer, make_recipe, monkeypatch):
    scores_that_never_rise(monkeypatch)
    phases = (TWO[0], Phase(size=24, epochs=9, lr=0.01, steps=1))
    trainer = make_trainer(make_recipe(*phases, patience=2))
    state = trainer.fit()
    assert state.finished
    assert [int(r["epoch"]) for r in metrics_of(trainer)] == [0, 1, 2, 3, 4, 5]


# --- A guide ---------------------------------------------------------------------------------


def test_a_guided_run_learns_features_first_and_keeps_all_but_the_head(
    make_trainer, make_recipe, guide, monkeypatch
):
    recipe = make_recipe(*GUIDED, views=2)
    trainer = make_trainer(recipe, guide=guide)
    built, original = [], Trainer._build

    def build(self, phase, state):
        found = original(self, phase, state)
        built.append(({k: v.clone() for k, v in found[0].state_dict().items()}, dict(state.ema)))
        return found

    monkeypatch.setattr(Trainer, "_build", build)
    state = trainer.fit()
    (first, nothing), (second, averaged) = built
    assert nothing == {} and first["head.weight"].shape[0] == 30
    fresh = build_model("ofa_595", 3).state_dict()
    assert torch.equal(second["head.weight"], fresh["head.weight"])
    others = [k for k in second if not k.startswith("head.")]
    assert all(torch.equal(second[k], averaged[k]) for k in others)
    assert not any(torch.equal(second[k], fresh[k]) for k in others if "weight" in k)
    assert state.ema["head.weight"].shape[0] == 3 and state.best_epoch >= 3
    rows = metrics_of(trainer)
    shares = [float(row["val_features"]) for row in rows]
    assert shares[0] < shares[2] <= 1 and all(math.isnan(share) for share in shares[3:])
    scores = [float(row["val_macro_f1"]) for row in rows]
    assert all(math.isnan(s) for s in scores[:3]) and all(0 <= s <= 1 for s in scores[3:])


def test_the_guide_shows_films_as_they_are_and_the_labels_other_surroundings(
    make_trainer, make_recipe, guide, monkeypatch
):
    draws, original = [], train.learn.loop.TrainViews

    def views(store, size, seed, strength, draw=None):
        draws.append((size, draw is not None))
        return original(store, size, seed, strength, draw)

    monkeypatch.setattr(train.learn.loop, "TrainViews", views)
    monkeypatch.setattr(
        train.learn.loop,
        "Surroundings",
        lambda store, share: SimpleNamespace(draw=store.__getitem__),
    )
    make_trainer(make_recipe(*GUIDED, views=2, swap_surroundings=0.5), guide=guide).fit()
    assert draws == [(40, False), (32, False), (24, True)]


def test_a_guided_recipe_needs_its_guide(make_trainer, make_recipe):
    with pytest.raises(ValueError, match="The recipe 'small' needs a guide"):
        make_trainer(make_recipe(*GUIDED, views=2))


# --- The objectives --------------------------------------------------------------------------


@pytest.mark.parametrize("views", [None, 2], ids=["new views", "fixed views"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_with_what_it_asks_for(
    make_trainer, make_recipe, make_teachers, objective, views
):
    recipe = make_recipe(
        Phase(size=32, epochs=1, lr=0.01, steps=2), **OBJECTIVES[objective], views=views
    )
    trainer = make_trainer(recipe, teachers=make_teachers(recipe))
    before = {k: v.clone() for k, v in build_model("ofa_595", 3).state_dict().items()}
    watched = watch(trainer)
    state = trainer.fit()
    assert state.finished and state.optimizer["0.step"].item() == 2
    assert not any(torch.equal(state.model[k], before[k]) for k in before if "weight" in k)
    assert len(watched.losses) == 2 and all(math.isfinite(loss) for loss in watched.losses)
    row = metrics_of(trainer)[0]
    assert float(row["train_loss"]) == pytest.approx(sum(watched.losses) / 2, rel=1e-5)
    for student, targets, teachers in zip(
        watched.students, watched.targets, watched.teachers, strict=True
    ):
        assert student.logits.shape == targets.shape == (4, 3)
        assert targets.sum(1).eq(1).all() and targets.max(1).values.eq(1).all()
        assert [t.logits.shape for t in teachers] == [(4, 3)] * len(recipe.teachers)
        labels = targets.argmax(1)
        if objective == "attention":
            seen = [student, *teachers]
        else:
            assert student.maps is None
            seen = teachers
        for answers in seen:  # of a tiny network, a map's mean is the logit
            of_label = answers.logits[range(4), labels]
            assert answers.maps.shape == (4, 8, 8)
            torch.testing.assert_close(answers.maps.mean((1, 2)), of_label, rtol=1e-4, atol=1e-4)
    assert not any(m._forward_hooks for t in trainer.teachers for m in t.model.modules())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_in_bf16(make_trainer, make_recipe, make_teachers, objective):
    phase = Phase(size=32, epochs=1, lr=0.01, steps=2)
    recipe = make_recipe(phase, **OBJECTIVES[objective])
    teachers = [replace(teacher, bf16=True) for teacher in make_teachers(recipe)]
    trainer = make_trainer(recipe, teachers=teachers, precision="bf16")
    watched = watch(trainer)
    assert trainer.fit().finished
    assert all(math.isfinite(loss) for loss in watched.losses)
    for answers in (*watched.students, *(t for each in watched.teachers for t in each)):
        assert answers.logits.dtype == torch.float32
        assert answers.maps is None or answers.maps.dtype == torch.float32


def test_the_term_of_attention_draws_the_maps_together(make_trainer, make_recipe, make_teachers):
    """A student that is only told where to look ends up looking there."""
    distances = {}
    for beta in (0.0, 5.0):
        settings = dict(alpha=1e-6, beta=beta, grid=4)
        recipe = make_recipe(
            Phase(size=32, epochs=8, lr=0.02), **ATTENTION, objective_settings=settings
        )
        trainer = make_trainer(recipe, f"beta {beta}", make_teachers(recipe))
        watched = watch(trainer)
        trainer.fit()
        cosines = [
            torch.cosine_similarity(student.maps.flatten(1), teachers[0].maps.flatten(1)).mean()
            for student, teachers in zip(watched.students, watched.teachers, strict=True)
        ]
        distances[beta] = torch.stack(cosines[-6:]).mean().item()
    assert distances[5.0] > distances[0.0] + 0.05


@pytest.mark.parametrize("objective", ["labels", "hybrid", "multi_teacher", "attention"])
def test_objective_and_teachers_must_fit(make_trainer, make_recipe, make_teachers, objective):
    recipe = make_recipe(**OBJECTIVES[objective])
    teachers = make_teachers(make_recipe(**(HYBRID if objective == "labels" else LABELS)))
    with pytest.raises(ValueError, match=f"The objective '{objective}' and the teachers do not"):
        make_trainer(recipe, teachers=teachers)


def test_maps_and_compiling_exclude_each_other(make_trainer, make_recipe, make_teachers):
    recipe = make_recipe(**ATTENTION)
    with pytest.raises(RecipeError, match="'attention' cannot run under --compile"):
        make_trainer(recipe, teachers=make_teachers(recipe), compiled=True)


# --- The teachers ----------------------------------------------------------------------------


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize("objective", ["hybrid", "multi_teacher", "attention"])
def test_teachers_come_out_of_a_distillation_as_they_went_in(
    make_trainer, make_recipe, make_teachers, objective, views
):
    recipe = make_recipe(*TWO, **OBJECTIVES[objective], views=views)
    teachers = make_teachers(recipe)
    before = [{k: v.clone() for k, v in t.model.state_dict().items()} for t in teachers]
    for teacher in teachers:
        teacher.model.train()
    trainer = make_trainer(recipe, teachers=teachers)
    assert len(trainer.targets) == (len(teachers) if views else 0)
    state = trainer.fit()
    assert state.finished
    for teacher, weights in zip(teachers, before, strict=True):
        assert same_tensors(teacher.model.state_dict(), weights)
        assert "stem.1.running_mean" in weights
        assert not any(module.training for module in teacher.model.modules())
        assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())


@pytest.mark.parametrize("objective", ["hybrid", "multi_teacher", "attention"])
def test_cached_targets_teach_what_the_teachers_say(
    make_trainer, make_recipe, make_teachers, objective
):
    """Where a phase has the teacher's size, the cache changes nothing but the time."""
    phase = Phase(size=32, epochs=2, lr=0.01)
    recipe = make_recipe(phase, **OBJECTIVES[objective], views=2)
    cached = make_trainer(recipe, "cached", make_teachers(recipe))
    asked = make_trainer(recipe, "asked", make_teachers(recipe))
    asked.targets = ()
    losses = []
    for trainer in (cached, asked):
        watched = watch(trainer)
        trainer.fit()
        losses.append(watched.losses)
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    other = make_trainer(recipe, "other", make_teachers(recipe))
    other.targets = tuple(
        replace(t, logits=t.logits.flip(0), maps=t.maps.flip(0)) for t in other.targets
    )
    watched = watch(other)
    other.fit()
    assert watched.losses[0] != pytest.approx(losses[0][0], rel=1e-3)


def test_with_fixed_views_the_teachers_are_asked_before_the_first_step_and_never_after(
    make_trainer, make_recipe, make_teachers
):
    """Whatever the sizes of the phases: a view is the same view at every size."""
    recipe = make_recipe(*TWO, **MULTI, views=2)
    teachers, images = make_teachers(recipe, size=40), []
    for teacher in teachers:
        teacher.model.register_forward_pre_hook(lambda _, inputs: images.append(inputs[0].shape))
    trainer = make_trainer(recipe, teachers=teachers)
    assert sum(shape[0] for shape in images) == 3 * 2 * 12  # teachers, views, images
    assert {shape[2:] for shape in images} == {(40, 40)}
    images.clear()
    watched = watch(trainer)
    trainer.fit()
    assert images == [] and len(watched.losses) == 5 * 3
    again = make_trainer(recipe, "again", teachers)  # a second run finds what the first computed
    assert images == [] and len(again.targets) == 3


def test_the_cache_holds_the_teachers_view_at_its_own_size(
    make_trainer, make_recipe, make_teachers
):
    """Not the phase's view enlarged, which is coarser; both show the same part of the image."""
    recipe = make_recipe(Phase(size=24, epochs=1, lr=0.01), **HYBRID, views=2)
    cached = make_trainer(recipe, "cached", make_teachers(recipe, size=48))
    asked = make_trainer(recipe, "asked", make_teachers(recipe, size=48))
    asked.targets = ()
    said = []
    for trainer in (cached, asked):
        watched = watch(trainer)
        trainer.fit()
        said.append(torch.cat([teachers[0].logits for teachers in watched.teachers]))
    assert not torch.allclose(said[0], said[1], atol=1e-3)
    together = torch.corrcoef(torch.stack([said[0].flatten(), said[1].flatten()]))[0, 1]
    assert together > 0.9


def test_a_mixed_batch_is_mixed_before_the_teacher_sees_it(
    make_trainer, make_recipe, make_teachers, monkeypatch
):
    recipe = make_recipe(Phase(size=32, epochs=1, lr=0.01), **HYBRID, mixup=0.4)
    trainer = make_trainer(recipe, teachers=make_teachers(recipe))
    seen = {"student": [], "teacher": []}
    build = train.learn.loop.build_model

    def watched_build(*args, **options):
        model = build(*args, **options)
        model.register_forward_pre_hook(
            lambda m, x: seen["student"].append(x[0]) if m.training else None
        )
        return model

    monkeypatch.setattr(train.learn.loop, "build_model", watched_build)
    trainer.teachers[0].model.register_forward_pre_hook(lambda _, x: seen["teacher"].append(x[0]))
    trainer.fit()
    assert len(seen["student"]) == len(seen["teacher"]) == 3
    for student, teacher in zip(seen["student"], seen["teacher"], strict=True):
        assert torch.equal(student, teacher)


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
            "update": (train.learn.loop.ModelEmaV3, "update"),
            "save": (RunState, "save"),
        }[what]
        self.left, original = number, getattr(owner, name)

        def method(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, method)


RUNS = {  # dropout-free networks; mixup and teachers asked as it goes, or fixed views
    "hybrid": HYBRID | {"mixup": 0.2},
    "multi_teacher": MULTI | {"mixup": 0.2},
    "multi_teacher, fixed views": MULTI | {"views": 2},
    "attention": ATTENTION,
    "attention, fixed views": ATTENTION | {"views": 2},
    "guided": LABELS | {"views": 2},
}
INTERRUPTED_RUNS = [
    *(("hybrid", moment) for moment in INTERRUPTIONS),
    ("multi_teacher", "in epoch 1"),
    ("multi_teacher, fixed views", "before the state of epoch 1 is written"),
    ("attention", "in the second phase"),
    ("attention, fixed views", "after its first epoch"),
    ("guided", "in epoch 1"),
    ("guided", "in the second phase"),
    ("guided", "after its first epoch"),
]


@pytest.fixture
def run_of_two_phases(make_trainer, make_recipe, make_teachers, guide):
    """Make the trainer of a run."""

    def make(settings: str, run: str) -> Trainer:
        guided = settings == "guided"
        recipe = make_recipe(*(GUIDED if guided else TWO), **RUNS[settings])
        return make_trainer(recipe, run, make_teachers(recipe), guide=guide if guided else None)

    return make


@pytest.mark.parametrize("settings, moment", INTERRUPTED_RUNS)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    run_of_two_phases, settings, moment, monkeypatch
):
    whole = run_of_two_phases(settings, "whole")
    whole.fit()
    interrupted = run_of_two_phases(settings, "interrupted")
    with monkeypatch.context() as patch:
        Interruption(patch, *INTERRUPTIONS[moment])
        with pytest.raises(KeyboardInterrupt):
            interrupted.fit()
    AcceleratorState._reset_state(True)
    torch.manual_seed(1234)
    resumed = run_of_two_phases(settings, "interrupted")
    resumed.fit()
    assert same_files(resumed.folder, whole.folder)
    assert metrics_of(resumed) == metrics_of(whole)
    assert len(metrics_of(whole)) == 5


def test_the_objectives_end_in_different_weights(run_of_two_phases):
    """So that none of the runs above is another one in disguise."""
    states = [run_of_two_phases(name, name).fit().model for name in RUNS]
    for number, state in enumerate(states):
        assert not any(same_tensors(state, other) for other in states[:number])


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


@pytest.mark.parametrize("patience", [5, 1])
def test_a_recipe_that_gains_phases_goes_on_where_the_shorter_one_ended(
    make_trainer, make_recipe, monkeypatch, patience
):
    scores_that_never_rise(monkeypatch)  # so that patience ends the shorter recipe early
    longer = make_recipe(*TWO, patience=patience)
    whole = make_trainer(longer, "whole")
    whole.fit()
    shorter = make_trainer(longer.model_copy(update={"phases": TWO[:1]}), "grown")
    assert shorter.fit().finished
    assert len(metrics_of(shorter)) == (3 if patience == 5 else 2)
    grown = make_trainer(longer, "grown")
    assert grown.fit().finished
    assert same_files(grown.folder, whole.folder)
    assert metrics_of(grown) == metrics_of(whole)


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
