"""Further seeds: recipes trained again, evaluated from their run folders.

`weights/` holds one training run of each recipe. How much of a difference is the chance of training
shows only when the same recipe is run with other seeds; those are not shipped, so their numbers and
their answers on the test images are stored with the sha256 of the weights that gave them. With the
answers, a later evaluation compares them with runs of its own when their folders are gone.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from kdmodels.checkpoints import Checkpoint, sha256_of
from train.datasets import Manifest
from train.evaluate import compare, confusion, labels_of, logits_of, rates
from train.recipes import to_dict
from train.store import StoreError, as_trained, read_identity, read_run, recipe_of, row_of

log = logging.getLogger("train")


def control_of(row: Checkpoint, rows: Sequence[Checkpoint]) -> Checkpoint | None:
    """What a row is compared with, if it is there: the plain student on labels only, or for a
    teacher with a variant the same teacher without.
    """
    if row.teacher is None and not row.variant:
        return None
    key = (row.task, row.model, None, "")
    return next((c for c in rows if (c.task, c.model, c.teacher, c.variant) == key), None)


def read_runs(
    runs: Sequence[Path], data_id: str, stored: Sequence[Checkpoint]
) -> list[tuple[Path, Checkpoint]]:
    """Each run folder with its row, without those whose seed `weights/` holds.

    Raises `StoreError` for one that is unfinished, of a recipe that has changed, on other data, or
    there twice.
    """
    known = {(c.stem, c.seed) for c in stored}
    found: dict[tuple[str, int], tuple[Path, Checkpoint]] = {}
    for run in runs:
        row, _ = read_run(run, data_id)
        key = (row.stem, row.seed)
        if key in known:
            log.info("%s: seed %d of %s is in weights/ already.", run, row.seed, row.stem)
        elif key in found:
            raise StoreError(f"{found[key][0]} and {run} are the same recipe with the same seed.")
        else:
            found[key] = run, row
    return list(found.values())


def measure_runs(
    runs: Sequence[tuple[Path, Checkpoint]],
    stored: Sequence[Checkpoint],
    logits: Mapping[str, np.ndarray],
    manifest: Manifest,
    known: Mapping[str, dict] | None = None,
) -> dict[str, dict]:
    """Test results of further seeds, and what distillation changes on average over all seeds.

    logits: (N, K) by `Checkpoint.stem` of the stored weights on the test split. known: what an
    earlier call returned for the same data; its runs still count where their recipe and teachers
    are those of now and `runs` holds none of the same seed. Returns

    - `seeds`: by stem a list of {seed, accuracy, macro_f1, sha256 of best.safetensors, recipe,
      teacher, answers}; `answers` has one digit, the class, for each test image;
    - `distillation_over_seeds`: by stem of each row that shares two seeds or more with its
      control (one, if it is not stored), the mean difference with its interval (see `compare`),
      the difference of each seed, and the stored files that it rests on. A seed whose answers were
      not kept has `counted: false`: it is in no mean and no interval.
    """
    samples, task = manifest.split("test"), manifest.task
    labels, k = labels_of(samples, task), task.num_classes
    entries = _kept(known or {}, stored)
    rows = {row.stem: row for row in stored}
    rows |= {stem: row_of(recipe_of(stem), manifest.id) for stem, _ in entries}
    for run, row in runs:
        weights = run / "best.safetensors"
        answers = logits_of(as_trained(row, load_file(weights)), samples).argmax(1)
        found = _score(answers, labels, k)
        log.info("%s: accuracy %.4f, macro-F1 %.4f.", run, found["accuracy"], found["macro_f1"])
        rows[row.stem] = row
        entries[row.stem, row.seed] = {
            "seed": row.seed,
            **found,
            "sha256": sha256_of(weights),
            "recipe": _digest(row.stem),
            "teacher": read_identity(run)["teacher_sha256"],
            "answers": "".join(map(str, answers)),
        }
    answers = {key: np.array([*e["answers"]], int) for key, e in entries.items() if "answers" in e}
    answers |= {(row.stem, row.seed): logits[row.stem].argmax(1) for row in stored}
    points = {key: _score(found, labels, k) for key, found in answers.items()}
    for key, entry in entries.items():  # where no answers were kept
        points.setdefault(key, {name: entry[name] for name in ("accuracy", "macro_f1")})
    changes = _kept_changes(known or {}, stored)
    for stem, row in sorted(rows.items()):
        control = control_of(row, list(rows.values()))
        if control is None:
            continue
        both = sorted(s for name, s in points if name == stem and (control.stem, s) in points)
        shared = [s for s in both if (stem, s) in answers and (control.stem, s) in answers]
        if len(shared) < (2 if stem in logits else 1):  # one stored seed is compared elsewhere
            continue
        if len(shared) < len(counted(changes.get(stem, {}))):
            continue  # the earlier one rests on more, of which not all was kept
        first, second = (
            np.stack([np.eye(k)[answers[c.stem, s]] for s in shared]) for c in (row, control)
        )
        changes[stem] = {
            "name": row.name,
            **compare(first, second, samples, task),
            "seeds": [
                {"seed": s}
                | {m: round(x - points[control.stem, s][m], 4) for m, x in points[stem, s].items()}
                | ({} if s in shared else {"counted": False})
                for s in both
            ],
            "files": {c.file: c.sha256 for c in stored if c.stem in (stem, control.stem)},
        }
    seeds: dict[str, list[dict]] = {}
    for stem, seed in sorted(entries):
        seeds.setdefault(stem, []).append(entries[stem, seed])
    return {"seeds": seeds, "distillation_over_seeds": dict(sorted(changes.items()))}


def counted(change: Mapping) -> list[dict]:
    """The seeds that a difference is the mean of."""
    return [s for s in change.get("seeds", ()) if s.get("counted", True)]


def _kept(known: Mapping[str, dict], stored: Sequence[Checkpoint]) -> dict[tuple[str, int], dict]:
    """By stem and seed what an earlier evaluation says of runs that are as they would be now."""
    in_weights, digests = {(c.stem, c.seed) for c in stored}, {c.sha256 for c in stored}
    kept = {}
    for stem, entries in known.get("seeds", {}).items():
        for entry in entries:
            teachers = (entry.get("teacher") or "").split("+")
            if (stem, entry["seed"]) in in_weights:
                continue
            if not recipe_of(stem):
                reason = "its recipe is gone"
            elif entry.get("recipe", _digest(stem)) != _digest(stem):
                reason = "its recipe has changed"
            elif not digests.issuperset(filter(None, teachers)):
                reason = "its teacher is no longer stored"
            else:
                kept[stem, entry["seed"]] = entry
                continue
            log.info("%s, seed %d, no longer counts: %s.", stem, entry["seed"], reason)
    return kept


def _kept_changes(known: Mapping[str, dict], stored: Sequence[Checkpoint]) -> dict[str, dict]:
    """The earlier differences that rest on stored weights as they are now."""
    sha256 = {c.file: c.sha256 for c in stored}
    return {
        stem: change
        for stem, change in known.get("distillation_over_seeds", {}).items()
        if all(sha256.get(file) == digest for file, digest in change["files"].items())
    }


def _digest(stem: str) -> str:
    """Of a recipe's content; a run's own seed does not matter."""
    content = json.dumps(to_dict(recipe_of(stem)), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _score(answers: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, float]:
    found = rates(confusion(labels, answers, classes))
    return {name: round(float(found[name]), 4) for name in ("accuracy", "macro_f1")}
