"""Every number of the tables, from the stored weights: measured, then stored or compared."""

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from kdmodels.engines.machine import cpu_name
from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.predict import COMPUTE, Classifier, measure
from kdmodels.tasks import TASKS
from train.data.manifest import DataError, Manifest
from train.data.open import open_manifest
from train.measure.calibration import fit_temperature
from train.measure.floors import measure_floors
from train.measure.metrics import compare, labels_of, logits_of, summarise
from train.measure.seeds import control_of, measure_runs, read_runs
from train.release.store import differences, read_identity, read_results, update_results

log = logging.getLogger("train")

GREY = (128, 128, 128)
# Parts of results.json that no evaluation measures, and what does.
OTHERS = {
    "leakage": "leakage",
    "audit": "audit",
    "agreement": "agreement",
    "reference": "reference",
}


def latency_of(classifier: Classifier) -> dict:
    """`kdmodels.predict.Latency` of a stored network as a dict, with the name of the processor;
    10 passes or more in 1 to 5 s.
    """
    side = classifier.spec.input_size
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0, os.cpu_count()
    if load > cores:
        log.warning("  Load %.1f on %d cores: other work makes the time too long.", load, cores)
    with COMPUTE:
        images = classifier.prepare(Image.new("RGB", (side, side), GREY))
        _, latency = measure(classifier.engine, images, min_ms=1000, max_ms=5000)
    found = {k: round(v, 2) if isinstance(v, float) else v for k, v in asdict(latency).items()}
    return found | {"processor": cpu_name()}


def evaluate_task(
    manifest: Manifest,
    split: str = "test",
    write: bool = False,
    runs: Sequence[Path] = (),
    times: bool = False,
) -> list[str]:
    """Evaluate all stored checkpoints of a task; say whether the index agrees, or update it.

    The temperature of each is fitted on the validation split. Besides, on the test split: the
    floors, and the paired difference between each distilled student and the control. `runs`: run
    folders of the same recipes with further seeds (see `train.measure.seeds`), which are added to those that
    were measured before. With `write`, all of it goes
    into `weights/index.json` and `weights/results.json`, with the time that a network
    takes here, if none is stored for its weights or `times` asks for it. Returns the names of stored values that differ. Raises `DataError`, `StoreError`.
    """
    index, task = Index.read(), manifest.task
    if write and split != "test":
        raise DataError("Only results of the test split are stored; leave out --split.")
    rows = [c for c in index.checkpoints if c.task == task.id]
    strange = [c.file for c in rows if c.data != manifest.id]
    if strange:
        raise DataError(
            f"{', '.join(strange)} was trained on other data than {manifest.id}; its test images "
            "may be among the training images here."
        )
    further = read_runs(runs, manifest.id, rows)
    samples, validation = manifest.split(split), manifest.split("val")
    logits: dict[str, np.ndarray] = {}
    updated, other = [], []
    for row in rows:
        classifier = Classifier.load(index, row)
        logits[row.stem] = logits_of(classifier, samples)
        of_val = logits[row.stem] if split == "val" else logits_of(classifier, validation)
        temperature = fit_temperature(of_val, labels_of(validation, task))
        metrics = summarise(logits[row.stem], samples, task, temperature)
        _report(row, metrics, split)
        if split == "test" and not write:
            other += _compare_row(row, metrics)
        if write:
            known = None if times else row.metrics.get("latency")
            metrics["latency"] = known or latency_of(classifier)
        updated.append(replace(row, temperature=temperature, metrics=metrics))
    if split != "test":
        return []
    results = {
        "data": manifest.id,
        "floors": measure_floors(manifest),
        "distillation": {
            row.stem: compare(logits[row.stem], logits[control.stem], samples, task)
            for row in rows
            if (control := control_of(row, rows)) and control.seed == row.seed
        },
    }
    stored = read_results().get(task.id, {})
    known = stored if stored.get("data") == manifest.id else None
    measured = measure_runs(further, rows, logits, manifest, known)
    results |= {part: found for part, found in measured.items() if found or part in stored}
    if write:
        _write_rows(updated)
        update_results(task.id, **results)
    else:
        other += _compare_results(task.id, results)
    return other


def _compare_row(row: Checkpoint, metrics: dict) -> list[str]:
    stored = {k: v for k, v in row.metrics.items() if k != "latency"}  # never twice the same
    other = differences(stored, metrics)
    other += differences(row.temperature, metrics["calibrated"]["temperature"], name="temperature")
    log.info("  %s", f"DIFFERS from the index: {other}" if other else "equals the index.")
    return [f"{row.file}: {name}" for name in other]


def _compare_results(task_id: str, found: dict) -> list[str]:
    stored = read_results().get(task_id, {})
    # Another processor may answer an image or two otherwise; the rates tell whether it matters.
    before, after = ({k: _without_answers(part.get(k)) for k in found} for part in (stored, found))
    other = differences(before, after)
    names = f"{task_id}: {', '.join(found)}"
    log.info("%s: %s", names, f"DIFFERS: {other}" if other else "equals what is stored.")
    for part in sorted(stored.keys() - found.keys()):
        how = f"python -m train {OTHERS[part]}" if part in OTHERS else "its own command"
        log.info("%s: %s stays as stored; %s measures it.", task_id, part, how)
    return [f"{task_id}: {name}" for name in other]


def _without_answers(part: object) -> object:
    if isinstance(part, dict):
        return {k: _without_answers(v) for k, v in part.items() if k != "answers"}
    return [_without_answers(v) for v in part] if isinstance(part, list) else part


def _write_rows(updated: list[Checkpoint]) -> None:
    """Put rows with their metrics into the index as it is now, where the weights are the same."""
    index, by_weights = Index.read(), {(c.file, c.sha256): c for c in updated}
    rows = tuple(by_weights.get((c.file, c.sha256), c) for c in index.checkpoints)
    replace(index, checkpoints=rows).write()


def evaluate_all(
    root: str | Path,
    split: str = "test",
    write: bool = False,
    runs: Sequence[Path] = (),
    times: bool = False,
) -> list[str]:
    """`evaluate_task` for every task that has checkpoints and whose data are under `root`.

    Raises `DataError` where that is no task.
    """
    index = Index.read()
    manifests, missing = [], []
    for task_id in TASKS:
        if any(c.task == task_id for c in index.checkpoints):
            try:
                manifests.append(open_manifest(task_id, root))
            except DataError as error:
                missing.append(f"{task_id} was not evaluated: {error}")
    if not manifests:
        raise DataError(" ".join(missing) or f"{index.folder} holds no checkpoint.")
    other = []
    for manifest in manifests:
        for note in manifest.notes:
            log.info("%s", note)
        mine = [run for run in runs if read_identity(run)["task"] == manifest.task.id]
        other += evaluate_task(manifest, split, write, mine, times)
    for line in missing:
        log.warning("%s", line)
    return other


def _report(row: Checkpoint, metrics: dict, split: str) -> None:
    log.info("%s, %s, %s split, %d images:", row.name, row.task, split, metrics["images"])
    for name in ("accuracy", "macro_f1"):
        low, high = metrics[name]["ci95"]
        log.info("  %s %.4f (95%% interval %.4f to %.4f)", name, metrics[name]["value"], low, high)
    log.info(
        "  expected calibration error %.4f, and %.4f with the temperature %.3f",
        metrics["ece"], metrics["calibrated"]["ece"], metrics["calibrated"]["temperature"],
    )  # fmt: skip
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
