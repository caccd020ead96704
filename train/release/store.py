"""From a finished run to `weights/`."""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

from kdmodels.models.checkpoints import WEIGHTS, Checkpoint, Index, read_state
from kdmodels.models.zoo import StateDict
from kdmodels.predict import Classifier
from train.data.manifest import Manifest, labels_of
from train.learn.finished import as_trained, read_run
from train.measure.calibration import fit_temperature
from train.measure.predictions import logits_of

log = logging.getLogger("train")

MAX_BYTES = 45_000_000
MAX_ACCURACY_CHANGE = 0.002
# The student is small already, and six bits moved its accuracy by more than is let pass below.
DEFAULT_STORAGE = {"teacher": "int6", "student": "int8"}


class StoreError(Exception):
    """A run that must not be stored; the message says why."""


def stored_index() -> Index:
    """The index of the folder of weights, or an empty one before anything was stored."""
    return Index.read() if (WEIGHTS / "index.json").exists() else Index(WEIGHTS)


def store_run(run: Path, manifest: Manifest, storage: str | None = None) -> Checkpoint:
    """Store a run's best weights in `weights/` and in the index (see `_store`)."""
    row, state = read_run(run, manifest.id)
    index = stored_index()
    if replaced := index.replaced_teachers(row):
        raise StoreError(
            f"{run} learned from other weights of {', '.join(replaced)} than {index.folder} holds "
            "now; distil again from those."
        )
    row = replace(row, storage=storage or DEFAULT_STORAGE[row.spec.role])
    return _store(row, state, manifest, index)


def store_again(file: Path, manifest: Manifest, storage: str) -> Checkpoint:
    """Store a file of `weights/` in another storage type (see `_store`). The sha256 changes: what
    was distilled from it as it was is no longer shown as its pair.
    """
    index = Index.read()
    row = next((c for c in index.checkpoints if c.file == file.name), None)
    if row is None or row.data != manifest.id:
        raise StoreError(f"{index.folder} holds no {file.name} that was trained on {manifest.id}.")
    state = read_state(index.locate(row))
    return _store(replace(row, storage=storage), state, manifest, index)


def _store(row: Checkpoint, state: StateDict, manifest: Manifest, index: Index) -> Checkpoint:
    """Store weights as the row says, with the temperature that suits the validation images.

    Checks on the validation images that the storage type moves the accuracy by less than 0.2 points
    against `state`, or by one image, and that the file stays below 45 MB. Raises `StoreError`.
    """
    with tempfile.TemporaryDirectory() as folder:  # what is refused must not reach `weights/`
        trial = Index(Path(folder))
        row = trial.store(row, state)
        if row.bytes > MAX_BYTES:
            raise StoreError(f"{row.file} has {row.bytes:,} bytes, more than {MAX_BYTES:,}.")
        samples = manifest.split("val")
        exact = logits_of(as_trained(row, state), samples)
        stored = logits_of(Classifier.load(trial, row), samples)
    labels = labels_of(samples, manifest.task)
    before, after = ((x.argmax(1) == labels).mean() for x in (exact, stored))
    log.info("%s: accuracy on validation %.4f as trained, %.4f as stored.", row.file, before, after)
    if abs(before - after) > max(MAX_ACCURACY_CHANGE, 1.001 / len(samples)):
        raise StoreError(f"Storing {row.file} as {row.storage} moves the accuracy too much.")
    return index.store(replace(row, temperature=fit_temperature(stored, labels)), state)
