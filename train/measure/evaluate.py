"""What the stored weights answer: kept in `results/`, or compared with what is kept there."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from kdmodels.models.checkpoints import Checkpoint, Index, sha256_of
from kdmodels.predict import Classifier
from kdmodels.tasks import TASKS
from train.data.manifest import DataError, Manifest
from train.data.open import open_manifest
from train.learn.finished import as_trained, digest_of, read_identity, read_runs, recipe_of
from train.measure.calibration import fit_temperature
from train.measure.floors import floors_of
from train.measure.kept import SPLITS, Floor, KeptRun, ResultsError, TaskResults, relative
from train.measure.predictions import answered, stored_on

log = logging.getLogger("train")

# Another processor or number of threads moves the last digits; more is a difference.
TOLERANCE = 0.02  # of a logit less the greatest of its image, and 1% of it
FOREST_TOLERANCE = 0.02  # of a probability: 10 trees of 500
FITTED = 0.01  # of a temperature
FLIPS = 2  # answers of a split that may be others


def evaluate_task(manifest: Manifest, write: bool = False, runs: Sequence[Path] = ()) -> list[str]:
    """What all stored checkpoints of a task answer on val and test, the run folders `runs`, and
    the floors.

    `write` keeps it in `results/<task>/`, beside what other runs answered. Else it is compared with
    what is kept there: returns a sentence for each difference. Raises `DataError`,
    `CheckpointError`, `UnusableRun`, `ResultsError`.
    """
    index, results = Index.read(), TaskResults.of(manifest.task)
    rows = stored_on(manifest, index)
    if write:
        results.keep_images(manifest)
    else:
        results.check_images(manifest)
    known = {run.key: run for run in results.runs}
    other, found = [], set()
    for run in _all_answered(index, rows, runs, manifest):
        found.add(run.key)
        _report(run.row.name, run.row.seed, run, results)
        before = known.get(run.key)
        if not write:
            other += _unlike_run(before, run) + _unlike_temperature(run, results)
            continue
        if before and before.row.sha256 == run.row.sha256:  # its recipe may have changed since
            run = replace(run, recipe_sha256=before.recipe_sha256)
        run.write(results.folder / "runs")
    for key in sorted(known.keys() - found):
        other += _not_at_hand(known[key], write, results)
    for floor in floors_of(manifest):
        other += keep_or_compare(floor, results, write)
    if write:
        log.info("Written to %s.", results.folder)
    say_differences(other)
    return other


def say_differences(lines: Sequence[str]) -> None:
    for line in lines:
        log.info("DIFFERS: %s", line)


def _all_answered(
    index: Index,
    rows: Sequence[Checkpoint],
    runs: Sequence[Path],
    manifest: Manifest,
) -> Iterator[KeptRun]:
    """The stored checkpoints first, then further runs, of which those stored are left out."""
    further = list(read_runs(runs, manifest.id))  # a mistake is said before the long work
    for row in rows:
        yield answered(Classifier.load(index, row), manifest, _recipe_digest(row))
    stored = {(c.stem, c.seed) for c in rows}
    for folder, row, state in further:
        if (row.stem, row.seed) in stored:
            log.info("%s: seed %d of %s is in weights/ already.", folder, row.seed, row.stem)
            continue
        row = replace(row, sha256=sha256_of(folder / "best.safetensors"))
        yield answered(as_trained(row, state), manifest, _recipe_digest(row))


def _recipe_digest(row: Checkpoint) -> str:
    recipe = recipe_of(row.stem)
    if not recipe:
        raise ResultsError(
            f"{row.recipe}, which {row.name} was trained by, is gone; restore it, or remove the "
            "row from weights/index.json."
        )
    return digest_of(recipe)


def _report(name: str, seed: int | None, kept: KeptRun | Floor, results: TaskResults) -> None:
    parts = (
        f"{split} {100 * (getattr(kept, split).argmax(1) == getattr(results, split).labels).mean():.1f}%"
        for split in SPLITS
    )
    seed_text = "" if seed is None else f", seed {seed}"
    log.info("%s%s: accuracy on %s", name, seed_text, ", ".join(parts))


# --- Comparing -------------------------------------------------------------------------------


def _unlike(kept: np.ndarray, found: np.ndarray, tolerance: float, share: float = 0.0) -> str:
    """How (N, K) values differ by more than they may, in words; empty if they do not."""
    moved = np.abs(kept - found)
    too_far = (moved > tolerance + share * np.abs(found)).any(1).sum()
    flipped = (kept.argmax(1) != found.argmax(1)).sum()
    if not too_far and flipped <= FLIPS:
        return ""
    return f"{too_far} of {len(kept)} images by up to {moved.max():.3g}, {flipped} answers"


def unlike_logits(kept: np.ndarray, found: np.ndarray) -> str:
    """How (N, K) logits of a network differ by more than they may, in words; else empty."""
    kept, found = (relative(x.astype(np.float64)) for x in (kept, found))
    return _unlike(kept, found, TOLERANCE, share=0.01)


def unlike_shares(kept: np.ndarray, found: np.ndarray) -> str:
    """The same of (N, K) log-probabilities of a forest."""
    shares = (softmax(x.astype(np.float64), axis=1) for x in (kept, found))
    return _unlike(*shares, FOREST_TOLERANCE)


def _unlike_run(kept: KeptRun | None, found: KeptRun) -> list[str]:
    """A sentence for each way in which kept answers are not those that were found now."""
    again = f"if the weights are right, evaluate --task {found.row.task} --write keeps the new ones"
    if kept is None:
        return [f"{found.key} has no kept answers; {again}."]
    if kept.row.sha256 != found.row.sha256:
        return [f"{found.key}: the kept answers are of other weights; {again}."]
    lines = [
        f"{found.key}, {split}: {unlike}; {again}."
        for split in SPLITS
        if (unlike := unlike_logits(getattr(kept, split), getattr(found, split)))
    ]
    lines += [
        f"{found.key}: its {name} are kept as {a}, but are {b}; {again}."
        for name in ("parameters", "macs")
        if (a := getattr(kept, name)) != (b := getattr(found, name))
    ]
    if replace(kept.row, date="") != replace(found.row, date=""):
        lines.append(f"{found.key}: {kept.row} is kept, but it is {found.row}; {again}.")
    if kept.recipe_sha256 != found.recipe_sha256:
        lines.append(
            f"{found.key}: the recipe that is kept is another than {found.row.recipe} is now; "
            "restore that, or train again."
        )
    if (kept.served is None) != (found.served is None):
        return [*lines, f"{found.key}: what the page's engine answers is not kept; {again}."]
    if found.served is None:
        return lines
    if kept.served_by != found.served_by:
        log.info(
            "%s: not checked what the page's engine answers: %s is kept, this machine has %s.",
            found.key, kept.served_by, found.served_by,
        )  # fmt: skip
    elif unlike := unlike_logits(kept.served, found.served):
        lines.append(f"{found.key}, served: {unlike}; {again}.")
    return lines


def _unlike_temperature(run: KeptRun, results: TaskResults) -> list[str]:
    """Whether the page divides by what the validation images give."""
    wanted = fit_temperature(run.val, results.val.labels)
    if not run.shipped or abs(wanted - run.row.temperature) <= FITTED:
        return []
    return [
        f"{run.row.file}: the index has the temperature {run.row.temperature}, but the validation "
        f"images give {wanted}; store it again."
    ]


def keep_or_compare(floor: Floor, results: TaskResults, write: bool) -> list[str]:
    """Keep a floor or probe, or a sentence for each way in which the kept one differs."""
    _report(floor.name, None, floor, results)
    if write:
        floor.write(results.folder / "floors")
        return []
    kept = next((f for f in results.floors if f.id == floor.id), None)
    again = "the same command with --write keeps it"
    if kept is None:
        return [f"The {floor.kind} '{floor.name}' is not kept; {again}."]
    lines = [
        f"The {floor.kind} '{floor.name}', {split}: {unlike}; {again}."
        for split in SPLITS
        if (unlike := unlike_shares(getattr(kept, split), getattr(floor, split)))
    ]
    if kept.settings != floor.settings:
        lines.append(f"The {floor.kind} '{floor.name}' is kept as {kept.settings}; {again}.")
    return lines


def _not_at_hand(run: KeptRun, write: bool, results: TaskResults) -> list[str]:
    """Of a kept run whose weights are neither stored nor given."""
    if not run.shipped:
        log.info(
            "%s: not checked, its weights are not at hand; name its folder by --runs.", run.key
        )
        return []
    if not write:
        return [f"{run.key} is kept as a stored checkpoint, but weights/index.json lists it not."]
    log.info("%s is no longer stored; what it answered stays.", run.key)
    replace(run, row=replace(run.row, file="")).write(results.folder / "runs")
    return []


# --- All tasks -------------------------------------------------------------------------------


def evaluate_all(root: str | Path, write: bool = False, runs: Sequence[Path] = ()) -> list[str]:
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
        other += evaluate_task(manifest, write, mine)
    for line in missing:
        log.warning("%s", line)
    return other
