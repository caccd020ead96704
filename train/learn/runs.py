"""A run folder: recipe, log, metrics.csv, curves.png, the resumable state and the best weights."""

import csv
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kdmodels.cache import write_atomically
from train.learn.recipes import Recipe, RecipeError, to_dict

log = logging.getLogger("train")


class RunError(OSError):
    """The disk does not take what a run has to write; the message says what holds."""


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in state.items()}


@dataclass
class RunState:
    """All that a run needs to go on: weights, averaged weights, optimizer moments, position.

    Random numbers need no state: they are functions of seed, epoch and step (see `train.learn.views`).
    """

    phase: int = 0
    phase_epoch: int = 0
    best: float = -1.0
    best_epoch: int = -1
    finished: bool = False
    model: dict[str, Tensor] = field(default_factory=dict)
    ema: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    is_best: bool = False

    _POSITION = ("phase", "phase_epoch", "best", "best_epoch", "finished")
    _TENSORS = ("model", "ema", "optimizer")

    def begin_phase(self, number: int) -> None:
        """Move to a later phase: keep the averaged weights, forget the rest.

        Also the best epoch, in case the former phase was the last of a recipe that has grown since.
        """
        self.phase, self.phase_epoch = number, 0
        self.best, self.best_epoch, self.finished = -1.0, -1, False
        self.model, self.optimizer = {}, {}

    def record(
        self,
        model: nn.Module,
        ema: nn.Module,
        optimizer,
        phase_epoch: int,
        epoch: int,
        row: dict,
        selectable: bool,
    ) -> None:
        """Take in the state after an epoch; only `selectable` epochs compete for the best weights."""
        self.phase_epoch = phase_epoch
        self.model, self.ema = _copied(model.state_dict()), _copied(ema.state_dict())
        moments = optimizer.state_dict()["state"]
        self.optimizer = _copied(
            {
                f"{i}.{k}": torch.as_tensor(v)
                for i, slots in moments.items()
                for k, v in slots.items()
            }
        )
        self.is_best = selectable and row["val_macro_f1"] > self.best
        if self.is_best:
            self.best, self.best_epoch = row["val_macro_f1"], epoch

    def restore_optimizer(self, optimizer) -> None:
        """Put the saved moments into a freshly built optimizer of the same model.

        The fused AdamW pairs weights and moments by their place in memory, so each moment is laid
        out as its weight (channels-last, say), and not as the file holds it.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        current = optimizer.state_dict()
        current["state"] = {}
        for name, value in self.optimizer.items():
            index, slot = name.split(".", 1)
            weight = parameters[int(index)]
            as_weight = value.shape == weight.shape
            placed = torch.empty_like(weight).copy_(value) if as_weight else value.clone()
            current["state"].setdefault(int(index), {})[slot] = placed
        optimizer.load_state_dict(current)

    def save(self, file: Path) -> None:
        """Write to a temporary name, then rename: a crash or a full disk keeps the old state."""
        tensors = {
            f"{part}/{k}": v for part in self._TENSORS for k, v in getattr(self, part).items()
        }
        position = {name: getattr(self, name) for name in self._POSITION}
        write_safetensors(tensors, file, {"position": json.dumps(position)})

    @classmethod
    def load(cls, file: Path) -> "RunState":
        """Read what `save` wrote, on the CPU."""
        with safe_open(file, framework="pt") as reader:
            state = cls(**json.loads(reader.metadata()["position"]))
            for name in reader.keys():  # noqa: SIM118 (safe_open is no mapping)
                part, key = name.split("/", 1)
                getattr(state, part)[key] = reader.get_tensor(name)
        return state


def write_safetensors(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file that appears under its name only when it is complete.

    Raises `OSError`.
    """
    partial = file.with_name(file.name + ".partial")
    try:
        save_file(tensors, partial, metadata=metadata)
        os.replace(partial, file)
    except SafetensorError as error:
        raise OSError(f"{file}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _is_longer(identity: dict, former: object) -> bool:
    """Whether a run differs from what a folder holds only in further phases at the end."""
    try:
        phases, known = identity["recipe"]["phases"], former["recipe"]["phases"]
        same = identity == former | {"recipe": former["recipe"] | {"phases": phases}}
        return same and len(known) < len(phases) and phases[: len(known)] == known
    except (KeyError, TypeError):
        return False


class RunFolder:
    """The files of one run. Raises `RecipeError` when the folder belongs to another run.

    A recipe that gained phases at its end goes on where the shorter one ended.

    settings: what besides recipe, data and teacher changes the result (precision and the like).
    create: make the folder where there is none; of several processes, the main one does.
    """

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        data_id: str,
        teacher_sha256: str | None = None,
        settings: dict | None = None,
        create: bool = True,
    ) -> None:
        self.path = Path(path)
        self.state_file = self.path / "state.safetensors"
        self.best_file = self.path / "best.safetensors"
        self.metrics_file = self.path / "metrics.csv"
        self.identity = {
            "recipe": to_dict(recipe),
            "data": data_id,
            "teacher_sha256": teacher_sha256,
            "settings": settings or {},
        }
        file = self.path / "run.yaml"
        identity = yaml.safe_dump(json.loads(json.dumps(self.identity)), sort_keys=False)
        if not file.exists():
            if not create:
                raise RecipeError(
                    f"{self.path} is not the folder that the main process opened; with several "
                    "machines it must lie on a disk that all of them share."
                )
            write_atomically(file, identity.encode())
        elif (former := file.read_text(encoding="utf-8")) == identity:
            pass
        elif create and _is_longer(yaml.safe_load(identity), yaml.safe_load(former)):
            write_atomically(file, identity.encode())
        else:
            raise RecipeError(
                f"{self.path} holds a run of another recipe, data set, teacher, guide or precision; "
                "name a new folder with --run, or delete it."
            )

    def load_state(self) -> RunState | None:
        """The state to resume from; None where no epoch has ended yet."""
        return RunState.load(self.state_file) if self.state_file.exists() else None

    def save_state(self, state: RunState) -> None:
        """Write the state to resume from. Raises `RunError` and keeps the former one."""
        with self._writing():
            state.save(self.state_file)

    def save_epoch(self, state: RunState, row: dict) -> None:
        """Store an epoch: best weights first, metrics next, the state (the commit point) last.

        Raises `RunError` where the disk is full, say; then the run resumes from the former state.
        """
        with self._writing():
            self._save_epoch(state, row)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written ({error}); what it held is still valid, so make "
                "room and start the same command again to go on."
            ) from error

    def _save_epoch(self, state: RunState, row: dict) -> None:
        if state.is_best:
            write_safetensors(state.ema, self.best_file, {"epoch": str(row["epoch"])})
        rows = [r for r in self.read_metrics() if int(r["epoch"]) < row["epoch"]]
        partial = self.metrics_file.with_name("metrics.csv.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerows([*rows, row])
        os.replace(partial, self.metrics_file)
        plot_curves(self.read_metrics(), self.path / "curves.png", self.path.name)
        state.save(self.state_file)

    def read_metrics(self) -> list[dict[str, str]]:
        """The rows of `metrics.csv`, one an epoch, as text."""
        if not self.metrics_file.exists():
            return []
        with self.metrics_file.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def plot_curves(rows: list[dict[str, str]], file: Path, title: str) -> None:
    """Draw training loss, and validation macro-F1 and accuracy, by epoch; of guided runs also the
    share of the guide's features (see `train.learn.guides`).
    """
    from matplotlib.figure import Figure

    epochs = [int(r["epoch"]) for r in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, quality = figure.subplots(1, 2)
    loss.plot(
        epochs, [float(r["train_loss"]) for r in rows], color="#0072B2", label="training loss"
    )
    loss.plot(epochs, [float(r["val_nll"]) for r in rows], color="#D55E00", label="validation NLL")
    guided = "val_features" in rows[0]
    loss.set_ylabel("squared error of features, then nats" if guided else "nats")
    quality.plot(
        epochs, [float(r["val_macro_f1"]) for r in rows], color="#009E73", label="macro-F1"
    )
    quality.plot(
        epochs, [float(r["val_accuracy"]) for r in rows], color="#CC79A7", label="accuracy"
    )
    quality.set_ylabel("validation")
    kinds = [f"{r['size']} px" + (", features" if r["val_accuracy"] == "nan" else "") for r in rows]
    starts = [i for i in range(1, len(rows)) if kinds[i] != kinds[i - 1]]
    for axis in (loss, quality):
        for i in starts:
            axis.axvline(epochs[i] - 0.5, color="0.8", linewidth=1)
            axis.annotate(
                kinds[i],
                (epochs[i] - 0.45, 1),
                xycoords=("data", "axes fraction"),
                va="top",
                fontsize=8,
                color="0.4",
            )
        axis.set_xlabel("epoch")
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    if guided:
        quality.plot(
            epochs,
            [float(r["val_features"]) for r in rows],
            color="#0072B2",
            label="share of the guide's features",
        )
        quality.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(file, dpi=110)
