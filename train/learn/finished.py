"""Finished runs: what a run folder says it is, and its best weights."""

import datetime
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from kdmodels.models.checkpoints import Checkpoint
from kdmodels.models.zoo import StateDict, build_model
from kdmodels.predict import Classifier
from kdmodels.tasks import get_task
from train.learn.recipes import FOLDER, Recipe, file_of, read_recipe, to_dict

log = logging.getLogger("train")


class UnusableRun(Exception):
    """A run folder whose weights must not be stored or measured; the message says why."""


def read_identity(run: Path) -> dict:
    """What a run folder says it is (see `train.learn.runs.RunFolder`). Raises `UnusableRun`."""
    try:
        identity = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
        return identity | {"task": identity["recipe"]["task"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UnusableRun(f"{run} is no run folder with trained weights: {error}") from error


def read_run(run: Path, data_id: str) -> tuple[Checkpoint, StateDict]:
    """The best weights of a finished run, and their row of the index before `Index.store`.

    Raises `UnusableRun` unless the run is finished, its recipe is the one in the repository, and
    its data are those of `data_id`.
    """
    identity = read_identity(run)
    try:
        recipe, trained_on = identity["recipe"], identity["data"]
        teacher_sha256 = identity["teacher_sha256"]
        shortened = (identity.get("settings") or {}).get("max_steps")
        state = load_file(run / "best.safetensors")
        with safe_open(run / "state.safetensors", framework="pt") as reader:
            position = json.loads(reader.metadata()["position"])
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise UnusableRun(f"{run} is no run folder with trained weights: {error}") from error
    if trained_on != data_id:
        raise UnusableRun(f"{run} was trained on {trained_on}, not on {data_id}.")
    known = recipe_of(recipe["name"], recipe["seed"])
    if not known or json.loads(json.dumps(to_dict(known))) != recipe:
        raise UnusableRun(
            f"{run} was not made by {file_of(recipe['name'], FOLDER)} as it stands, so nobody could "
            "repeat it."
        )
    if shortened:
        raise UnusableRun(f"{run} is a trial with --max-steps {shortened}, not a whole training.")
    if not position["finished"]:
        raise UnusableRun(f"{run} is not finished; start its command again to go on.")
    return row_of(known, data_id, teacher_sha256), state


def read_runs(runs: Sequence[Path], data_id: str) -> Iterator[tuple[Path, Checkpoint, StateDict]]:
    """Each run folder with its row and weights. Raises `UnusableRun`, also for one there twice."""
    found: dict[tuple[str, int], Path] = {}
    for run in runs:
        row, state = read_run(run, data_id)
        key = (row.stem, row.seed)
        if key in found:
            raise UnusableRun(f"{found[key]} and {run} are the same recipe with the same seed.")
        found[key] = run
        yield run, row, state


def recipe_of(name: str, seed: int = 0) -> Recipe | None:
    """The recipe of that name in the repository, which is the `Checkpoint.stem` of its weights."""
    file = file_of(name, FOLDER)
    task = name.partition("-")[0]
    return read_recipe(file, task, seed=seed) if file.exists() else None


def digest_of(recipe: Recipe) -> str:
    """sha256 of all settings of a recipe but the seed."""
    settings = {k: v for k, v in to_dict(recipe).items() if k != "seed"}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def row_of(recipe: Recipe, data_id: str, teacher_sha256: str | None = None) -> Checkpoint:
    """The row of the index of a recipe's float32 weights on some data, before `Index.store`."""
    return Checkpoint(
        task=recipe.task,
        model=recipe.model,
        teacher=recipe.teacher,
        teacher_sha256=teacher_sha256,
        classes=get_task(recipe.task).class_ids,
        file="",
        sha256="",
        bytes=0,
        storage="float32",
        recipe=f"train/recipes/{file_of(recipe.name, FOLDER).name}",
        data=data_id,
        date=datetime.date.today().isoformat(),
        seed=recipe.seed,
        input_size=recipe.phases[-1].size,
        variant=recipe.variant,
    )


def as_trained(row: Checkpoint, state: StateDict) -> Classifier:
    """The float32 network of a run that is not stored."""
    task = get_task(row.task)
    model = build_model(row.model, task.num_classes, row.input_size)
    model.load_state_dict(state)
    return Classifier(task, row.spec, row, model.eval().requires_grad_(False))
