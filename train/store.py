"""From a finished run to `weights/`, and from `weights/` to the numbers of the tables."""

import datetime
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from kdmodels.checkpoints import WEIGHTS, Checkpoint, Index
from kdmodels.predict import Classifier
from kdmodels.tasks import get_task
from kdmodels.zoo import build_model, get_spec
from train.datasets import DataError, Manifest
from train.evaluate import compare, logits_of, summarise
from train.floors import measure_floors
from train.recipes import FOLDER, read_recipe, to_dict

log = logging.getLogger("train")

MAX_BYTES = 45_000_000
MAX_ACCURACY_CHANGE = 0.002
DEFAULT_STORAGE = {"teacher": "int8", "student": "float16"}


class StoreError(Exception):
    """A run that must not be stored; the message says why."""


def store_run(run: Path, manifest: Manifest, storage: str | None = None) -> Checkpoint:
    """Store a run's best weights in `weights/` and in the index.

    Checks on the test split that the storage type moves the accuracy by less than 0.2 points
    against the float32 weights, and that the file stays below 45 MB. Raises `StoreError`.
    """
    try:
        identity = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
        state = load_file(run / "best.safetensors")
    except FileNotFoundError as error:
        raise StoreError(f"{run} is no run folder with trained weights: {error}") from error
    recipe = identity["recipe"]
    if identity["data"] != manifest.id:
        raise StoreError(f"{run} was trained on {identity['data']}, not on {manifest.id}.")
    _check_run(run, recipe)
    task, spec = get_task(recipe["task"]), get_spec(recipe["model"])
    row = Checkpoint(
        task=task.id,
        model=spec.id,
        teacher=recipe["teacher"],
        classes=task.class_ids,
        file="",
        sha256="",
        bytes=0,
        storage=storage or DEFAULT_STORAGE[spec.role],
        recipe=f"train/recipes/{recipe['name']}.yaml",
        data=manifest.id,
        date=datetime.date.today().isoformat(),
        seed=recipe["seed"],
        input_size=recipe["phases"][-1]["size"],
    )
    with tempfile.TemporaryDirectory() as folder:  # what is refused must not reach `weights/`
        trial = Index(Path(folder))
        row = trial.store(row, state)
        if row.bytes > MAX_BYTES:
            raise StoreError(f"{row.file} has {row.bytes:,} bytes, more than {MAX_BYTES:,}.")
        model = build_model(row.model, task.num_classes, row.input_size)
        model.load_state_dict(state)
        samples = manifest.split("test")
        as_trained = logits_of(Classifier(task, row.spec, row, model.eval()), samples)
        as_stored = logits_of(Classifier.load(trial, row), samples)
    labels = np.array([task.class_ids.index(s.label) for s in samples])
    before, after = ((x.argmax(1) == labels).mean() for x in (as_trained, as_stored))
    log.info("%s: test accuracy %.4f as trained, %.4f as stored.", row.file, before, after)
    if abs(before - after) >= MAX_ACCURACY_CHANGE:
        raise StoreError(f"Storing {row.file} as {row.storage} moves the accuracy too much.")
    index = Index.read() if (WEIGHTS / "index.json").exists() else Index(WEIGHTS)
    return index.store(row, state)


def _check_run(run: Path, recipe: dict) -> None:
    """Raise `StoreError` unless the run is finished and its recipe is the one in the repository."""
    file = FOLDER / f"{recipe['name']}.yaml"
    known = file.exists() and to_dict(read_recipe(file, seed=recipe["seed"]))
    if json.loads(json.dumps(known)) != recipe:
        raise StoreError(f"{run} was not made by {file} as it stands, so nobody could repeat it.")
    with safe_open(run / "state.safetensors", framework="pt") as state:
        if not json.loads(state.metadata()["position"])["finished"]:
            raise StoreError(f"{run} is not finished; start its command again to go on.")


def differences(
    stored: object, found: object, tolerance: float = 0.003, name: str = ""
) -> list[str]:
    """Names of the values that differ: numbers by more than `tolerance`, all else at all.

    The tolerance covers what another processor or number of threads does to the last digits.
    """
    if isinstance(stored, dict) and isinstance(found, dict) and stored.keys() == found.keys():
        pairs = [(stored[k], found[k], f"{name}.{k}") for k in stored]
    elif isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        pairs = [(a, b, f"{name}[{i}]") for i, (a, b) in enumerate(zip(stored, found, strict=True))]
    elif isinstance(stored, float) and isinstance(found, float):
        return [name.strip(".")] if abs(stored - found) > tolerance else []
    else:
        return [] if stored == found else [name.strip(".")]
    return [d for a, b, path in pairs for d in differences(a, b, tolerance, path)]


def evaluate_task(manifest: Manifest, split: str, write: bool) -> None:
    """Evaluate all stored checkpoints of a task; say whether the index agrees, or update it.

    With `write`, also measures the floors and the paired difference between each distilled
    student and the one trained on labels only, into `weights/results.json`.
    """
    index, task = Index.read(), manifest.task
    samples = manifest.split(split)
    rows = [c for c in index.checkpoints if c.task == task.id]
    strange = [c.file for c in rows if c.data != manifest.id]
    if strange:
        raise DataError(
            f"{', '.join(strange)} was trained on other data than {manifest.id}; its test images "
            "may be among the training images here."
        )
    logits, updated = {}, []
    for row in rows:
        logits[row.file] = logits_of(Classifier.load(index, row), samples)
        metrics = summarise(logits[row.file], samples, task)
        _report(row, metrics, split)
        if split == "test" and not write:
            other = differences(row.metrics, metrics)
            log.info("  %s", f"DIFFERS from the index: {other}" if other else "equals the index.")
        updated.append(Checkpoint(**{**row.__dict__, "metrics": metrics}))
    if not write:
        return
    if split != "test":
        raise DataError("Only results of the test split are stored; leave out --split.")
    others = tuple(c for c in index.checkpoints if c.task != task.id)
    Index(index.folder, (*others, *updated), index.hub_repo, index.hub_revision).write()
    results = read_results()
    results[task.id] = {
        "data": manifest.id,
        "floors": measure_floors(manifest),
        "distillation": {
            row.teacher: compare(logits[row.file], logits[control.file], samples, task)
            for control in rows
            if get_spec(control.model).role == "student" and control.teacher is None
            for row in rows
            if row.teacher and (row.model, row.seed) == (control.model, control.seed)
        },
    }
    results_file().write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def results_file() -> Path:
    return WEIGHTS / "results.json"


def read_results() -> dict:
    """Floors and paired differences by task; empty before the first evaluation."""
    if not results_file().exists():
        return {}
    return json.loads(results_file().read_text(encoding="utf-8"))


def _report(row: Checkpoint, metrics: dict, split: str) -> None:
    log.info("%s, %s, %s split, %d images:", row.name, row.task, split, metrics["images"])
    for name in ("accuracy", "macro_f1"):
        low, high = metrics[name]["ci95"]
        log.info("  %s %.4f (95%% interval %.4f to %.4f)", name, metrics[name]["value"], low, high)
    for name, rate in metrics["classes"].items():
        low, high = rate["sensitivity"]["ci95"]
        log.info(
            "  sensitivity of %s %.4f (%.4f to %.4f)", name, rate["sensitivity"]["value"], low, high
        )
    for source, part in metrics["sources"].items():
        cells = ", ".join(
            f"{name} {c['sensitivity']:.3f} of {c['images']}" for name, c in part["classes"].items()
        )
        log.info("  %s: accuracy %.3f of %d; %s", source, part["accuracy"], part["images"], cells)
