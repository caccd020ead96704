"""Further seeds: recipes trained again, evaluated from their run folders.

`weights/` holds one training run of each recipe. How much of a difference is the chance of training
shows only when the same recipe is run with other seeds; those are not shipped, so their numbers and
their answers on the test images are stored with the sha256 of the weights that gave them. So a later
evaluation can pair them with runs of its own when their folders are gone.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from kdmodels.models.checkpoints import Checkpoint, sha256_of
from train.data.manifest import Manifest, Sample
from train.learn.recipes import to_dict
from train.measure.metrics import compare, confusion, labels_of, logits_of, rates
from train.release.store import StoreError, as_trained, read_identity, read_run, recipe_of, row_of

log = logging.getLogger("train")

METRICS = ("accuracy", "macro_f1")


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
    earlier call returned for the same data. Its runs still count while their recipe, teachers and
    test images are those of now, and `runs` holds none of the same seed. Returns

    - `seeds`: by stem a list of {seed, accuracy, macro_f1, sha256 of best.safetensors, recipe,
      teacher, images, answers}; `answers` has one digit, the class, for each test image;
    - `distillation_over_seeds`: by stem of each row that shares two seeds or more with its
      control (one, if it is not stored), the mean difference with its interval (see `compare`),
      the difference of each seed, the stored files that it rests on, and `earlier`, the part that
      rests on runs whose answers were not kept (see `_joined`).
    """
    samples, task, known = manifest.split("test"), manifest.task, known or {}
    labels, k, images = labels_of(samples, task), task.num_classes, _digest_of_images(samples)
    entries = {
        (stem, entry["seed"]): entry
        for stem, listed in known.get("seeds", {}).items()
        for entry in listed
        if _still_counts(entry, stem, stored, images)
    }
    rows = {stem: row_of(recipe_of(stem), manifest.id) for stem, _ in entries}
    rows |= {row.stem: row for row in stored}
    for run, row in runs:
        weights = run / "best.safetensors"
        entry = {
            "seed": row.seed,
            "sha256": sha256_of(weights),
            "recipe": _digest_of_recipe(row.stem),
            "teacher": read_identity(run)["teacher_sha256"],
            "images": images,
        }
        if _still_counts(entry, row.stem, stored, images):
            answers = logits_of(as_trained(row, load_file(weights)), samples).argmax(1)
            entry |= _score(answers, labels, k) | {"answers": "".join(map(str, answers))}
            log.info("%s: accuracy %.4f, macro-F1 %.4f.", run, entry["accuracy"], entry["macro_f1"])
            entries[row.stem, row.seed] = entry
            rows.setdefault(row.stem, row)
    if others := len(entries.keys() - {(row.stem, row.seed) for _, row in runs}):
        log.info("%d runs of earlier evaluations are taken as they were measured.", others)
    answers = {key: np.array([*e["answers"]], int) for key, e in entries.items() if "answers" in e}
    answers |= {(row.stem, row.seed): logits[row.stem].argmax(1) for row in stored}
    points = {key: {m: entry[m] for m in METRICS} for key, entry in entries.items()}
    points |= {key: _score(found, labels, k) for key, found in answers.items()}
    measured = _Measured(manifest, stored, answers, points)
    before = known.get("distillation_over_seeds", {})
    changes = {
        stem: change
        for stem, row in sorted(rows.items())
        if (control := control_of(row, list(rows.values())))
        and (change := measured.change(row, control, before.get(stem)))
    }
    seeds: dict[str, list[dict]] = {}
    for stem, seed in sorted(entries):
        seeds.setdefault(stem, []).append(entries[stem, seed])
    return {"seeds": seeds, "distillation_over_seeds": changes}


@dataclass(frozen=True)
class _Measured:
    """All runs of a task by stem and seed: (N,) answers, where they are at hand, and rates."""

    manifest: Manifest
    stored: Sequence[Checkpoint]
    answers: Mapping[tuple[str, int], np.ndarray]
    points: Mapping[tuple[str, int], dict[str, float]]

    def change(self, row: Checkpoint, control: Checkpoint, known: dict | None) -> dict | None:
        """What `row` changes against its control; `known`: what an earlier evaluation found."""
        stem, task = row.stem, self.manifest.task
        pairs = {
            seed: {m: round(x - self.points[control.stem, seed][m], 4) for m, x in found.items()}
            for (name, seed), found in sorted(self.points.items())
            if name == stem and (control.stem, seed) in self.points
        }
        keys = {seed: ((stem, seed), (control.stem, seed)) for seed in pairs}
        exact = [s for s, both in keys.items() if self.answers.keys() >= {*both}]
        files = {c.file: c.sha256 for c in self.stored if c.stem in (stem, control.stem)}
        earlier = _earlier(known, pairs, files, exact)
        before = [s["seed"] for s in earlier["seeds"]] if earlier else []
        fresh = [s for s in exact if s not in before]
        is_stored = any(c.stem == stem for c in self.stored)
        if len(before) + len(fresh) < (2 if is_stored else 1):  # one is compared elsewhere
            return None
        change = earlier
        if fresh:
            pair = (np.stack([self.answers[keys[s][i]] for s in fresh]) for i in (0, 1))
            first, second = (np.eye(task.num_classes)[answers] for answers in pair)
            change = compare(first, second, self.manifest.split("test"), task)
            change = _joined(earlier, len(before), change, len(fresh)) if earlier else change
        return {
            "name": row.name,
            **{m: change[m] for m in METRICS},
            "seeds": [{"seed": s} | pairs[s] for s in sorted(before + fresh)],
            "files": files,
            **({"earlier": earlier} if earlier else {}),
        }


def _still_counts(entry: dict, stem: str, stored: Sequence[Checkpoint], images: str) -> bool:
    """Whether a run is one that `stem` could be today; a warning says why it is not."""
    teachers = (entry["teacher"] or "").split("+")
    if (stem, entry["seed"]) in {(c.stem, c.seed) for c in stored}:
        reason = "weights/ holds that seed now"
    elif not recipe_of(stem):
        reason = "its recipe is gone"
    elif entry["recipe"] != _digest_of_recipe(stem):
        reason = "its recipe has changed"
    elif not {c.sha256 for c in stored}.issuperset(filter(None, teachers)):
        reason = "its teacher is not stored"
    elif entry.get("images", images) != images:
        reason = "its test images were others"
    else:
        return True
    log.warning("%s, seed %d, does not count: %s.", stem, entry["seed"], reason)
    return False


def _earlier(
    change: dict | None, pairs: dict[int, dict], files: dict[str, str], exact: Sequence[int]
) -> dict | None:
    """The part of a stored difference that cannot be computed again, if it is still that of `pairs`.

    pairs: difference of each seed as it is now. exact: seeds of which all answers are at hand.
    """
    part = (change or {}).get("earlier", change)
    if not part or all(s["seed"] in exact for s in part["seeds"]):
        return None
    same = change["files"] == files and all(
        s["seed"] in pairs and abs(s[m] - pairs[s["seed"]][m]) < 5e-4
        for s in part["seeds"]
        for m in METRICS
    )
    if not same:
        log.warning(
            "An earlier difference of %s rests on other runs and is left out.", change["name"]
        )
    return {m: part[m] for m in (*METRICS, "seeds")} if same else None


def _joined(first: dict, n: int, second: dict, m: int) -> dict:
    """The mean of two differences, of n and of m seeds, with an interval that is never too narrow.

    Its ends are the weighted means of the parts' ends: the deviation of a sum is at most the sum of
    the deviations, and how the two vary together is not known where answers were not kept.
    """

    def mean(a: float, b: float) -> float:
        return round((n * a + m * b) / (n + m), 4)

    return {
        key: {
            "value": mean(first[key]["value"], second[key]["value"]),
            "ci95": [
                mean(*ends) for ends in zip(first[key]["ci95"], second[key]["ci95"], strict=True)
            ],
        }
        for key in METRICS
    }


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest_of_recipe(name: str) -> str:
    """Of all its settings; a run's own seed does not matter."""
    return _digest(to_dict(recipe_of(name)))


def _digest_of_images(samples: Sequence[Sample]) -> str:
    """Of which images they are, and in which order."""
    return _digest([(sample.path.name, sample.label) for sample in samples])


def _score(answers: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, float]:
    found = rates(confusion(labels, answers, classes))
    return {name: round(float(found[name]), 4) for name in METRICS}
