"""Further seeds: recipes trained again, evaluated from their run folders.

`weights/` holds one training run of each recipe. How much of a difference is the chance of training
shows only when the same recipe is run with other seeds; those are not shipped, so their numbers
are stored with the sha256 of the weights that gave them.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from safetensors.torch import load_file

from kdmodels.checkpoints import Checkpoint, sha256_of
from train.datasets import Manifest
from train.evaluate import compare, confusion, labels_of, logits_of, rates
from train.store import StoreError, as_trained, read_run

log = logging.getLogger("train")


def run_task(run: Path) -> str:
    """Task id of a run folder. Raises `StoreError` where it is none."""
    try:
        return yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))["recipe"]["task"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StoreError(f"{run} is no run folder: {error}") from error


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
) -> dict[str, dict]:
    """Test results of further seeds, and what distillation changes on average over all seeds.

    logits: (N, K) by `Checkpoint.stem` of the stored weights on the test split. Returns

    - `seeds`: by stem a list of {seed, accuracy, macro_f1, sha256 of best.safetensors};
    - `distillation_over_seeds`: by stem of each row that shares two seeds or more with its
      control (one, if it is not stored), the mean difference with its interval (see `compare`),
      the difference of each seed, and the stored files that it rests on.
    """
    samples, task = manifest.split("test"), manifest.task
    labels = labels_of(samples, task)
    rows = [*stored, *(row for _, row in runs)]
    by_seed = {(row.stem, row.seed): logits[row.stem] for row in stored}
    seeds: dict[str, list[dict]] = {}
    for run, row in runs:
        weights = run / "best.safetensors"
        answers = logits_of(as_trained(row, load_file(weights)), samples)
        by_seed[row.stem, row.seed] = answers
        found = _score(answers, labels)
        log.info("%s: accuracy %.4f, macro-F1 %.4f.", run, found["accuracy"], found["macro_f1"])
        entry = {"seed": row.seed, **found, "sha256": sha256_of(weights)}
        seeds.setdefault(row.stem, []).append(entry)
    changes = {}
    for row in sorted({c.stem: c for c in rows}.values(), key=lambda c: c.stem):
        control = control_of(row, rows)
        if control is None:
            continue
        shared = sorted(
            s for stem, s in by_seed if stem == row.stem and (control.stem, s) in by_seed
        )
        if len(shared) < (2 if row.stem in logits else 1):  # one stored seed is compared elsewhere
            continue
        first, second = ([by_seed[c.stem, s] for s in shared] for c in (row, control))
        pairs = [(_score(a, labels), _score(b, labels)) for a, b in zip(first, second, strict=True)]
        changes[row.stem] = {
            "name": row.name,
            **compare(np.stack(first), np.stack(second), samples, task),
            "seeds": [
                {"seed": s, **{k: round(a[k] - b[k], 4) for k in a}}
                for s, (a, b) in zip(shared, pairs, strict=True)
            ],
            "files": {c.file: c.sha256 for c in stored if c.stem in (row.stem, control.stem)},
        }
    in_order = {stem: sorted(seeds[stem], key=lambda e: e["seed"]) for stem in sorted(seeds)}
    return {"seeds": in_order, "distillation_over_seeds": changes}


def _score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    found = rates(confusion(labels, logits.argmax(1), logits.shape[1]))
    return {name: round(float(found[name]), 4) for name in ("accuracy", "macro_f1")}
