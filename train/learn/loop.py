"""The one training loop, on Accelerate: teachers, students on labels, and distilled students."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from sklearn.metrics import f1_score
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

from kdmodels.images.preprocess import normalise
from kdmodels.models.classmaps import maps_of, tapped
from kdmodels.models.zoo import build_model, get_spec, load_fitted
from kdmodels.tasks import get_task
from train.data.manifest import DataError, Manifest
from train.data.pixels import EvalViews, PixelStore
from train.learn.guides import Guide, GuideFeatures
from train.learn.objectives import Answers, Objective, build_objective
from train.learn.recipes import Phase, Recipe, RecipeError
from train.learn.runs import RunFolder, RunState
from train.learn.surroundings import Surroundings
from train.learn.targets import Targets, teacher_targets
from train.learn.teachers import Teacher
from train.learn.views import STORED_SIZE, BalancedSampler, TrainViews, collate, seed_of

log = logging.getLogger("train")


@torch.inference_mode()
def predict_logits(model: nn.Module, loader: DataLoader, mean, std) -> tuple[Tensor, Tensor]:
    """Logits (N, K) float32 and labels (N,) of all images of a loader, on the CPU, in order."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits, labels = [], []
    for images, label in loader:
        logits.append(model(normalise(images.to(device), mean, std)).float().cpu())
        labels.append(label)
    model.train(was_training)
    return torch.cat(logits), torch.cat(labels)


def score(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, macro-F1 and mean negative log-likelihood (nats) of (N, K) logits."""
    predicted = logits.argmax(dim=1)
    return {
        "val_accuracy": (predicted == labels).float().mean().item(),
        "val_macro_f1": float(f1_score(labels, predicted, average="macro")),
        "val_nll": nn.functional.cross_entropy(logits, labels).item(),
    }


def explained(outputs: Tensor, features: Tensor) -> float:
    """Share of the variance of standardised (N, D) features that (N, D) outputs give back."""
    return 1 - nn.functional.mse_loss(outputs, features).item()


class Trainer:
    """Runs a recipe on a manifest into a run folder; `fit` resumes where the folder left off.

    max_steps: stop each epoch after that many steps (for smoke tests); None runs it whole.
    guide: for recipes that are guided (see `train.learn.guides`).
    compiled: run the network through torch.compile (on a CPU it pays for OFA-595, after minutes
        of compilation for each image size; dropout then draws other masks).
    """

    def __init__(
        self,
        recipe: Recipe,
        manifest: Manifest,
        folder: RunFolder,
        accelerator: Accelerator,
        teachers: Sequence[Teacher] = (),
        workers: int = 0,
        max_steps: int | None = None,
        compiled: bool = False,
        guide: Guide | None = None,
    ) -> None:
        self.recipe, self.manifest, self.folder = recipe, manifest, folder
        self.accelerator, self.workers, self.max_steps = accelerator, workers, max_steps
        self.compiled = compiled
        self.task, self.spec = get_task(recipe.task), get_spec(recipe.model)
        self.objective: Objective = build_objective(recipe.objective, **recipe.objective_settings)
        if not self.objective.takes(len(teachers)):
            raise ValueError(f"The objective '{recipe.objective}' and the teachers do not fit.")
        if recipe.guided and guide is None:
            raise ValueError(f"The recipe '{recipe.name}' needs a guide.")
        if compiled and self.objective.needs_maps:
            raise RecipeError(f"The objective '{recipe.objective}' cannot run under --compile.")
        self.teachers = tuple(teachers)
        for teacher in self.teachers:
            teacher.to(accelerator.device)
        self.store = PixelStore(manifest.split("train"), self.task, STORED_SIZE)
        if workers:
            self.store.fill()
        swapped = recipe.swap_surroundings
        self.surroundings = Surroundings(self.store, swapped).draw if swapped else None
        self.targets = self._cached_targets()
        self.guide, self.features = guide, None
        self.mixup = (
            v2.MixUp(alpha=recipe.mixup, num_classes=self.task.num_classes)
            if recipe.mixup
            else None
        )

    def _cached_targets(self) -> tuple[Targets, ...]:
        """The answers of each teacher where the recipe fixes the views, else nothing."""
        number = self.recipe.views
        if number is None:
            return ()
        strength = self.recipe.phases[0].augmentation  # the same in all phases, with fixed views
        folder, device = self.folder.path.parent / "targets", self.accelerator.device
        targets = []
        for teacher in self.teachers:
            views = TrainViews(self.store, teacher.size, self.recipe.seed, strength)
            with self.accelerator.main_process_first():
                targets.append(teacher_targets(teacher, views, number, folder, device))
        return tuple(targets)

    def _guide_features(self) -> GuideFeatures:
        recipe, guide = self.recipe, self.guide
        views = TrainViews(self.store, guide.size, recipe.seed, recipe.phases[0].augmentation)
        folder, device = self.folder.path.parent / "targets", self.accelerator.device
        with self.accelerator.main_process_first():
            return GuideFeatures(guide, views, recipe.views, folder, device)

    def fit(self) -> RunState:
        """Train to the end of the last phase (or patience) and return the final state."""
        state = self.folder.load_state() or RunState()
        if state.finished and state.phase == len(self.recipe.phases) - 1:
            log.info("This run is finished; its best weights are in %s.", self.folder.best_file)
            return state
        for number, phase in enumerate(self.recipe.phases):
            if number >= state.phase:
                self._run_phase(number, phase, state)
        state.finished = True
        if self.accelerator.is_main_process:
            self.folder.save_state(state)
        log.info("Finished: best validation macro-F1 %.4f, epoch %d.", state.best, state.best_epoch)
        return state

    def _build(self, phase: Phase, state: RunState):
        """Model, averaged model and optimizer of a phase, restored from the state where it fits."""
        set_seed(seed_of(self.recipe.seed, "init") % 2**32)
        outputs = self.features.width if phase.objective else self.task.num_classes
        model = build_model(self.spec.id, outputs, phase.size, pretrained=self.recipe.pretrained)
        if state.ema and not state.optimizer:  # a new phase starts from the averaged weights
            head = {
                k: v for k, v in model.state_dict().items() if k.startswith(f"{self.spec.head}.")
            }
            kept = state.ema[f"{self.spec.head}.weight"].shape[0] == outputs
            load_fitted(self.spec.id, model, state.ema if kept else state.ema | head)
        model = model.to(self.accelerator.device, memory_format=torch.channels_last)
        optimizer = create_optimizer_v2(
            model, opt="adamw", lr=phase.lr, weight_decay=self.recipe.weight_decay, fused=True
        )
        ema = ModelEmaV3(model, decay=self.recipe.ema_decay, use_warmup=True, foreach=True)
        if state.optimizer:
            model.load_state_dict(state.model)
            ema.module.load_state_dict(state.ema)
            state.restore_optimizer(optimizer)
        return model, ema, optimizer

    def _run_phase(self, number: int, phase: Phase, state: RunState) -> None:
        recipe, accelerator = self.recipe, self.accelerator
        if number > state.phase:
            state.begin_phase(number)
        # Large, so it is freed once no phase needs it.
        self.features = self._guide_features() if phase.objective else None
        model, ema, optimizer = self._build(phase, state)
        draw = None if phase.objective else self.surroundings  # the guide saw films as they are
        views = TrainViews(self.store, phase.size, recipe.seed, phase.augmentation, draw)
        sampler = BalancedSampler(
            self.store.samples, recipe.seed, recipe.source_power, recipe.views
        )
        loader = DataLoader(
            views,
            recipe.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            collate_fn=collate,
            persistent_workers=self.workers > 0,
            drop_last=True,
        )
        if not len(loader):
            raise DataError(
                f"{len(views)} training images do not fill a batch of {recipe.batch_size}; "
                "set a smaller batch_size in the recipe."
            )
        evaluate = self._evaluation(phase)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        network = torch.compile(model) if self.compiled else model
        steps = min(len(loader), phase.steps or len(loader), self.max_steps or len(loader))
        scheduler = CosineLRScheduler(
            optimizer,
            t_initial=steps * phase.epochs,
            lr_min=phase.lr / 100,
            warmup_t=int(steps * phase.warmup),
            warmup_lr_init=phase.lr / 100,
            t_in_epochs=False,
        )
        first_epoch = sum(p.epochs for p in recipe.phases[:number])
        last_phase = number == len(recipe.phases) - 1
        for phase_epoch in range(state.phase_epoch, phase.epochs):
            epoch = first_epoch + phase_epoch
            # Asked before an epoch, not after it, so that a run killed in between stops here too.
            if last_phase and phase_epoch and epoch - 1 - state.best_epoch >= recipe.patience:
                log.info("No better epoch for %d epochs: stopping early.", recipe.patience)
                break
            started = time.perf_counter()
            loader.set_epoch(epoch)  # Accelerate's loader passes its own count to the sampler
            loss = self._train_epoch(
                model, network, ema, optimizer, loader, scheduler, epoch,
                phase_epoch * steps, steps, phase,
            )  # fmt: skip
            metrics = evaluate(ema.module)
            row = {
                "epoch": epoch,
                "size": phase.size,
                "lr": optimizer.param_groups[0]["lr"],
                "train_loss": loss,
                **metrics,
                "seconds": time.perf_counter() - started,
            }
            state.record(
                accelerator.unwrap_model(model),
                ema.module,
                optimizer,
                phase_epoch + 1,
                epoch,
                row,
                last_phase,
            )
            if accelerator.is_main_process:
                self.folder.save_epoch(state, row)
            accelerator.wait_for_everyone()
            found = ", ".join(f"{k} {v:.4f}" for k, v in metrics.items() if not math.isnan(v))
            log.info(
                "epoch %d at %d px: loss %.4f, %s, %.0f s",
                epoch,
                phase.size,
                loss,
                found,
                row["seconds"],
            )
        accelerator.free_memory()

    def _evaluation(self, phase: Phase) -> Callable[[nn.Module], dict[str, float]]:
        """What scores a network on the validation split, by the main process, and tells it to all.

        Each process has BatchNorm statistics of its own, and all must stop at the same epoch. Rows
        of guided recipes also have `val_features`, the share of the guide's features that is given
        back; what a phase cannot have is not a number.
        """
        samples, mean, std = self.manifest.split("val"), self.spec.mean, self.spec.std
        loader = DataLoader(EvalViews(samples, self.task, phase.size), 32)
        nothing = dict.fromkeys(("val_accuracy", "val_macro_f1", "val_nll"), math.nan)
        wanted = None
        if phase.objective and self.accelerator.is_main_process:
            images = EvalViews(samples, self.task, self.features.guide.size)
            wanted = self.features.of_images(images)

        def evaluate(model: nn.Module) -> dict[str, float]:
            told: list[dict[str, float]] = [{}]
            if self.accelerator.is_main_process:
                with self.accelerator.autocast():
                    outputs, labels = predict_logits(model, loader, mean, std)
                if wanted is not None:
                    told = [nothing | {"val_features": explained(outputs, wanted)}]
                elif self.recipe.guided:
                    told = [score(outputs, labels) | {"val_features": math.nan}]
                else:
                    told = [score(outputs, labels)]
            return broadcast_object_list(told)[0]

        return evaluate

    def _train_epoch(
        self, model, network, ema, optimizer, loader, scheduler, epoch, done, steps, phase
    ) -> float:
        """One epoch; returns the mean loss over all processes."""
        accelerator, recipe = self.accelerator, self.recipe
        objective, cached = self.objective, self.targets
        if phase.objective:
            objective, cached = build_objective(phase.objective), (self.features.targets,)
        bare = accelerator.unwrap_model(model)
        model.train()
        total = torch.zeros((), device=accelerator.device)
        bar = tqdm(
            loader,
            total=steps,
            desc=f"epoch {epoch}",
            leave=False,
            disable=None if accelerator.is_local_main_process else True,  # None: only on a terminal
            mininterval=1.0,
        )
        for step, batch in enumerate(bar):
            if step == steps:
                break
            images, labels, indices, views = (
                torch.from_numpy(part).to(accelerator.device) for part in batch
            )
            # Mixup and dropout draw from a stream of their own at every step: resumable anywhere.
            torch.manual_seed(seed_of(recipe.seed, "step", epoch, step, accelerator.process_index))
            scheduler.step_update(done + step)
            targets = nn.functional.one_hot(labels, self.task.num_classes).float()
            if self.mixup is not None:
                images, targets = self.mixup(images.float(), labels)
            if cached:
                taught = [t.of(indices, views, accelerator.device) for t in cached]
            else:
                taught = [teacher(images, labels) for teacher in self.teachers]
            images = normalise(images, self.spec.mean, self.spec.std)
            tapping = tapped(bare, self.spec) if objective.needs_maps else nullcontext()
            with tapping as tap, accelerator.autocast():
                logits = network(images)
                maps = maps_of(bare, self.spec, tap["features"], labels) if tap else None
            student = Answers(logits.float(), None if maps is None else maps.float())
            loss = objective(student, targets, taught)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            ema.update(bare, step=done + step)
            total += loss.detach()
        return accelerator.reduce(total / steps, "mean").item()
