"""Shortcut audit: what a network still knows of a film when the lungs, or all else, are taken away.

Class and source go together in public chest X-ray collections, so a network can be right without
looking at the lungs (DeGrave, Janizek, Lee, "AI for radiographic COVID-19 detection selects
shortcuts over signal", Nature Machine Intelligence 3, 2021). Three questions are asked:

- What can be known without the lungs? Maguolo and Nanni ("A critic evaluation of methods for
  COVID-19 automatic detection from X-ray images", Information Fusion 76, 2021) blanked the centre
  of the films and trained on the rest; here a random forest is trained so, on each version.
- What do the stored networks still know? They answer, as they are, on films blanked by lung masks.
  A right answer comes from what is left or from the outline of the blank; a wrong one may come
  from the blanking, which no training film had (Hooker et al., "A Benchmark for Interpretability
  Methods in Deep Neural Networks", NeurIPS 2019).
- Where do lungs and surroundings each pull the answer? The box around the lungs is taken from
  another film (`train.data.blanking.swap_box`); nothing is blank, and a film of the same class as donor
  shows what the swap itself does.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader, Dataset

from kdmodels.models.checkpoints import Index, sha256_of
from kdmodels.predict import Classifier
from kdmodels.tasks import Task
from train.data.blanking import (
    FILLED,
    FILLS,
    MAIN_FILL,
    SWAPS,
    VERSIONS,
    WHOLE,
    BlankedViews,
    SwappedViews,
    Version,
    choose_donors,
    has_lungs,
)
from train.data.manifest import DataError, Manifest
from train.data.pixels import PixelStore
from train.learn.finished import as_trained
from train.learn.loop import predict_logits
from train.measure.films import Films, masked_films
from train.measure.floors import FEATURES
from train.measure.metrics import (
    LEVEL,
    compare,
    confusion,
    group_bootstrap,
    rates,
    within_sources,
)
from train.measure.seeds import read_runs
from train.release.store import (
    StoreError,
    differences,
    read_results,
    results_file,
    update_results,
)

log = logging.getLogger("train")

FOREST_FEATURE = "thumbnail"
TREES = 500
FOREST_SIZE = 128  # px, the side of the films that thumbnails are made of


# --- Measuring -------------------------------------------------------------------------------


def _with_interval(value: float, resampled: np.ndarray) -> dict:
    interval = np.nanpercentile(resampled, ((100 - LEVEL) / 2, (100 + LEVEL) / 2))
    return {"value": round(float(value), 4), "ci95": [round(float(v), 4) for v in interval]}


def measure(scores: np.ndarray, whole: np.ndarray, films: Films) -> dict:
    """Numbers of one version, ready for JSON.

    scores, whole: (N, K) logits of the K classes of `films.task`, in the version and on the films
    as they are. Returns accuracy, macro-F1 and each class's sensitivity with 95% intervals over
    groups; macro AUROC (one against rest), which a shift of all answers towards one class leaves
    alone; the share of unchanged answers; the change in accuracy with its paired interval; and
    accuracy and macro-F1 within the sources that hold several classes.
    """
    labels, k = films.labels, films.task.num_classes
    predicted = scores.argmax(1)
    point = rates(confusion(labels, predicted, k))
    drawn = rates(group_bootstrap(labels, predicted, films.groups, k))
    shares = torch.from_numpy(scores).softmax(1).numpy()
    auroc = roc_auc_score(labels, shares if k > 2 else shares[:, 1], multi_class="ovr")
    return {
        "accuracy": _with_interval(point["accuracy"], drawn["accuracy"]),
        "macro_f1": _with_interval(point["macro_f1"], drawn["macro_f1"]),
        "auroc": round(float(auroc), 4),
        "sensitivity": {
            name: _with_interval(point["sensitivity"][i], drawn["sensitivity"][:, i])
            for i, name in enumerate(films.task.class_ids)
        },
        "unchanged": round(float((predicted == whole.argmax(1)).mean()), 4),
        "change": compare(scores, whole, films.samples, films.task)["accuracy"],
        "within": within_sources(labels, scores, films.samples),
    }


def measure_swap(scores: np.ndarray, whole: np.ndarray, donors: np.ndarray, films: Films) -> dict:
    """Which class the answers name on swapped films, as shares with 95% intervals over groups.

    scores, whole: (N, K) logits on the films with their donors' boxes, and as they are. donors: as
    `train.data.blanking.choose_donors` gives them; films without a donor do not count.
    Returns the shares that name the class of the box and that of the surroundings; `mistaken`, the
    share whose donor, shown as it is, is called by the class of the surroundings; and `pull`, by
    how much the surroundings add to that.
    """
    given = donors >= 0
    if not given.any():
        return {}
    predicted, labels, k = scores.argmax(1)[given], films.labels[given], 2
    groups = [g for g, has in zip(films.groups, given, strict=True) if has]
    before = (whole.argmax(1)[donors[given]] == labels).astype(int)
    after = (predicted == labels).astype(int)
    as_box = (predicted == films.labels[donors[given]]).astype(int)

    def rows(answers: np.ndarray) -> np.ndarray:
        """(1 + R, 2, 2) counts of `before` against `answers`: of the films, and of resamples."""
        drawn = group_bootstrap(before, answers, groups, k)
        return np.concatenate([confusion(before, answers, k)[None], drawn])

    box, around = rows(as_box), rows(after)
    shares = {
        "box": box[:, :, 1].sum(1),
        "surroundings": around[:, :, 1].sum(1),
        "mistaken": around[:, 1].sum(1),
        "pull": around[:, 0, 1] - around[:, 1, 0],
    }
    total = around.sum((1, 2))
    return {"images": int(given.sum())} | {
        name: _with_interval((counts / total)[0], (counts / total)[1:])
        for name, counts in shares.items()
    }


def audit_classifier(classifier: Classifier, films: Films) -> dict:
    """Results by version (with the main fill), accuracy by further fill and version, and swaps.

    The network chooses among the classes of `films.task` alone.
    """
    spec = classifier.spec
    store = PixelStore(films.samples, classifier.task, spec.input_size)

    def logits(views: Dataset) -> np.ndarray:
        loader = DataLoader(views, 16)
        found, _ = predict_logits(classifier.model, loader, spec.mean, spec.std)
        return found.double().numpy()[:, films.columns]

    main = {name: logits(BlankedViews(store, version)) for name, version in VERSIONS.items()}
    fills: dict[str, dict[str, float]] = {fill: {} for fill in FILLS if fill != MAIN_FILL}
    for fill, row in fills.items():
        for name in FILLED:
            predicted = logits(BlankedViews(store, VERSIONS[name], fill)).argmax(1)
            row[name] = round(float((predicted == films.labels).mean()), 4)
    donors = {name: choose_donors(films.samples, swap) for name, swap in SWAPS.items()}
    return {
        "versions": {name: measure(scores, main[WHOLE], films) for name, scores in main.items()},
        "fills": fills,
        "swaps": {
            name: measure_swap(logits(SwappedViews(store, chosen)), main[WHOLE], chosen, films)
            for name, chosen in donors.items()
        },
    }


def _thumbnails(films: Films, task: Task, version: Version) -> np.ndarray:
    views = BlankedViews(PixelStore(films.samples, task, FOREST_SIZE), version)
    feature = FEATURES[FOREST_FEATURE].compute
    return np.stack([feature(image.permute(1, 2, 0).numpy()) for image, _ in views])


def audit_forest(manifest: Manifest, films: Films, seed: int = 0) -> dict:
    """Results by version of a random forest on thumbnails, trained on films blanked alike.

    It is fitted on the films of the training split with masks; `{}` when they miss a class. No
    version is unlike its training, so it tells how much is to be known from what a version leaves.
    """
    task, classes = manifest.task, films.task.class_ids
    samples = [s for s in manifest.split("train") if s.label in classes and has_lungs(s)]
    train = Films(films.task, tuple(samples), films.columns)
    if len(set(train.labels.tolist())) < len(classes):
        return {}
    scores = {}
    for name, version in VERSIONS.items():
        forest = RandomForestClassifier(TREES, n_jobs=-1, random_state=seed)
        forest.fit(_thumbnails(train, task, version), train.labels)
        shares = forest.predict_proba(_thumbnails(films, task, version))
        scores[name] = np.log(shares + 1e-6)
    return {
        "films": len(samples),
        "versions": {name: measure(s, scores[WHOLE], films) for name, s in scores.items()},
    }


def _majority(labels: np.ndarray, parts: Sequence[str]) -> float:
    """Accuracy of naming the most frequent class of each part."""
    parts = np.array(parts)
    right = sum(np.bincount(labels[parts == part]).max() for part in set(parts.tolist()))
    return round(float(right / len(labels)), 4)


# --- The command -----------------------------------------------------------------------------


def _kept(results: dict, audit: dict) -> dict[str, dict]:
    """By name the runs of the stored audit that still count, if it asked the same of the same films.

    results: stored ones of the task; audit: the new one, with its networks of `weights/`.
    """
    before = results.get("audit", {})
    counted = {e["sha256"] for entries in results.get("seeds", {}).values() for e in entries}
    if any(before.get(k) != audit[k] for k in ("data", "images", "groups", "classes")):
        return {}
    asked = next(iter(audit["models"].values()))
    parts = ("versions", "fills", "swaps")
    return {
        name: m
        for name, m in before["models"].items()
        if m["sha256"] in counted and all(m[p].keys() == asked[p].keys() for p in parts)
    }


def audit_task(manifest: Manifest, write: bool = False, runs: Sequence[Path] = ()) -> dict:
    """Audit all stored checkpoints of a task on the test split; `write` stores the results.

    runs: folders of further runs, which are audited too. Those of an earlier audit stay, as long
    as the evaluation counts them (see `train.measure.seeds`).

    They go into `weights/results.json` under [task]["audit"], and a figure beside it. Without
    `write`, says whether the stored results are the same. Raises `DataError` or `StoreError`.
    """
    from train.tables.audit_figure import draw_audit  # only the command needs matplotlib
    from train.tables.audit_tables import audit_lines

    films = masked_films(manifest)
    index, task = Index.read(), manifest.task
    rows = [c for c in index.checkpoints if c.task == task.id]
    if not rows:
        raise StoreError(f"{index.folder} holds no weights for the task '{task.id}'; store some.")
    if strange := [c.file for c in rows if c.data != manifest.id]:
        raise DataError(
            f"{', '.join(strange)} was trained on other data than {manifest.id}; its test images "
            "may be among the training images here."
        )
    counts = Counter(s.label for s in films.samples)
    audit = {
        "task": task.id,
        "data": manifest.id,
        "images": len(films.samples),
        "groups": len(set(films.groups)),
        "classes": {name: counts[name] for name in films.task.class_ids},
        "notes": list(films.notes),
        "majority": _majority(films.labels, [""] * len(films.samples)),
        "source_majority": _majority(films.labels, [s.source for s in films.samples]),
        "models": {},
    }
    for row in rows:
        log.info("%s: %d films in %d versions", row.name, len(films.samples), len(VERSIONS))
        found = audit_classifier(Classifier.load(index, row), films)
        about = {"name": row.name, "role": row.spec.role, "sha256": row.sha256}
        audit["models"][row.file] = about | found
    further = read_runs(runs, manifest.id, rows)
    known = read_results().get(task.id, {})
    of_runs = _kept(known, audit)
    for run, row in further:
        log.info("%s, seed %d, not stored", row.name, row.seed)
        weights = run / "best.safetensors"
        found = audit_classifier(as_trained(row, load_file(weights)), films)
        name = f"{row.name}, seed {row.seed}"
        about = {"name": name, "role": row.spec.role, "sha256": sha256_of(weights)}
        of_runs[f"{row.stem}-seed{row.seed}"] = about | found
    if of_runs:
        audit["notes"].append("Rows that name a seed are further runs, which are not stored.")
        audit["models"] |= dict(sorted(of_runs.items()))
    audit["forest"] = audit_forest(manifest, films)
    log.info("%s", "\n".join(audit_lines({"audit": audit})))
    if write:
        update_results(task.id, audit=audit)
        draw_audit(audit, results_file().parent / "figures" / f"audit-{task.id}.png")
    elif "audit" in known:
        other = differences(known["audit"], audit)
        log.info("%s", f"DIFFERS from the stored audit: {other}" if other else "As stored.")
    return audit
