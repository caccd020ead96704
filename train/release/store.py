"""From a finished run to `weights/`; and `results.json`, what there is to tell beside the index."""

import datetime
import json
import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from kdmodels.models.checkpoints import WEIGHTS, Checkpoint, Index, read_state
from kdmodels.models.zoo import StateDict, build_model, get_spec
from kdmodels.predict import Classifier
from kdmodels.tasks import get_task
from train.data.manifest import Manifest
from train.learn.recipes import FOLDER, Recipe, read_recipe, to_dict
from train.measure.metrics import labels_of, logits_of

log = logging.getLogger("train")

MAX_BYTES = 45_000_000
MAX_ACCURACY_CHANGE = 0.002
# The student is small already, and six bits moved its accuracy by more than is let pass below.
DEFAULT_STORAGE = {"teacher": "int6", "student": "int8"}


class StoreError(Exception):
    """A run that must not be stored, or not be compared; the message says why."""


def read_identity(run: Path) -> dict:
    """What a run folder says it is (see `train.learn.runs.RunFolder`). Raises `StoreError`."""
    try:
        identity = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
        return identity | {"task": identity["recipe"]["task"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StoreError(f"{run} is no run folder with trained weights: {error}") from error


def read_run(run: Path, data_id: str) -> tuple[Checkpoint, StateDict]:
    """The best weights of a finished run, and their row of the index before `Index.store`.

    Raises `StoreError` unless the run is finished, its recipe is the one in the repository, and its
    data are those of `data_id`.
    """
    identity = read_identity(run)
    try:
        recipe, trained_on = identity["recipe"], identity["data"]
        shortened = (identity.get("settings") or {}).get("max_steps")
        state = load_file(run / "best.safetensors")
        with safe_open(run / "state.safetensors", framework="pt") as reader:
            position = json.loads(reader.metadata()["position"])
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise StoreError(f"{run} is no run folder with trained weights: {error}") from error
    if trained_on != data_id:
        raise StoreError(f"{run} was trained on {trained_on}, not on {data_id}.")
    known = recipe_of(recipe["name"], recipe["seed"])
    if not known or json.loads(json.dumps(to_dict(known))) != recipe:
        raise StoreError(
            f"{run} was not made by {FOLDER / recipe['name']}.yaml as it stands, so nobody could "
            "repeat it."
        )
    if shortened:
        raise StoreError(f"{run} is a trial with --max-steps {shortened}, not a whole training.")
    if not position["finished"]:
        raise StoreError(f"{run} is not finished; start its command again to go on.")
    return row_of(known, data_id), state


def recipe_of(name: str, seed: int = 0) -> Recipe | None:
    """The recipe of that name in the repository, which is the `Checkpoint.stem` of its weights."""
    file = FOLDER / f"{name}.yaml"
    return read_recipe(file, seed=seed) if file.exists() else None


def row_of(recipe: Recipe, data_id: str) -> Checkpoint:
    """The row of the index of a recipe's weights on some data, before `Index.store`."""
    return Checkpoint(
        task=recipe.task,
        model=recipe.model,
        teacher=recipe.teacher,
        classes=get_task(recipe.task).class_ids,
        file="",
        sha256="",
        bytes=0,
        storage=DEFAULT_STORAGE[get_spec(recipe.model).role],
        recipe=f"train/recipes/{recipe.name}.yaml",
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


def store_run(run: Path, manifest: Manifest, storage: str | None = None) -> Checkpoint:
    """Store a run's best weights in `weights/` and in the index (see `_store`)."""
    row, state = read_run(run, manifest.id)
    return _store(replace(row, storage=storage or row.storage), state, manifest)


def store_again(file: Path, manifest: Manifest, storage: str) -> Checkpoint:
    """Store a file of `weights/` in another storage type (see `_store`); its metrics are to be
    measured anew.
    """
    index = Index.read()
    row = next((c for c in index.checkpoints if c.file == file.name), None)
    if row is None or row.data != manifest.id:
        raise StoreError(f"{index.folder} holds no {file.name} that was trained on {manifest.id}.")
    state = read_state(index.locate(row))
    return _store(replace(row, storage=storage, temperature=1.0, metrics={}), state, manifest)


def _store(row: Checkpoint, state: StateDict, manifest: Manifest) -> Checkpoint:
    """Store weights as the row says.

    Checks on the validation and test images together that the storage type moves the accuracy by
    less than 0.2 points against `state`, and that the file stays below 45 MB. Raises `StoreError`.
    """
    with tempfile.TemporaryDirectory() as folder:  # what is refused must not reach `weights/`
        trial = Index(Path(folder))
        row = trial.store(row, state)
        if row.bytes > MAX_BYTES:
            raise StoreError(f"{row.file} has {row.bytes:,} bytes, more than {MAX_BYTES:,}.")
        samples = (*manifest.split("val"), *manifest.split("test"))
        exact = logits_of(as_trained(row, state), samples)
        stored = logits_of(Classifier.load(trial, row), samples)
    labels = labels_of(samples, manifest.task)
    before, after = ((x.argmax(1) == labels).mean() for x in (exact, stored))
    log.info(
        "%s: accuracy on held-out images %.4f as trained, %.4f as stored.", row.file, before, after
    )
    if abs(before - after) >= MAX_ACCURACY_CHANGE:
        raise StoreError(f"Storing {row.file} as {row.storage} moves the accuracy too much.")
    index = Index.read() if (WEIGHTS / "index.json").exists() else Index(WEIGHTS)
    return index.store(row, state)


# --- results.json ----------------------------------------------------------------------------


def results_file() -> Path:
    return WEIGHTS / "results.json"


def read_results() -> dict:
    """What `update_results` stored, by task; empty before the first evaluation."""
    if not results_file().exists():
        return {}
    return json.loads(results_file().read_text(encoding="utf-8"))


def update_results(task_id: str, **parts: object) -> None:
    """Replace the named parts of a task's results, and keep the others. Written whole or not."""
    results = read_results()
    results.setdefault(task_id, {}).update(parts)
    partial = results_file().with_name("results.json.partial")
    partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, results_file())


def differences(
    stored: object, found: object, tolerance: float = 0.003, name: str = ""
) -> list[str]:
    """Names of the values that differ: numbers by more than `tolerance`, all else at all.

    The tolerance covers what another processor or number of threads does to the last digits.
    """
    if isinstance(stored, dict) and isinstance(found, dict):
        pairs = [(stored.get(k), found.get(k), f"{name}.{k}") for k in (stored | found)]
    elif isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        pairs = [(a, b, f"{name}[{i}]") for i, (a, b) in enumerate(zip(stored, found, strict=True))]
    elif isinstance(stored, float) and isinstance(found, float):
        return [name.strip(".")] if abs(stored - found) > tolerance else []
    else:
        return [] if stored == found else [name.strip(".")]
    return [d for a, b, path in pairs for d in differences(a, b, tolerance, path)]
