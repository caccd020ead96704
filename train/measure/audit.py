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
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from torch.utils.data import DataLoader, Dataset

from kdmodels.models.checkpoints import Index, sha256_of
from kdmodels.predict import Classifier
from kdmodels.tasks import Task
from train.data.blanking import (
    FILLED,
    FILLS,
    MAIN_FILL,
    VERSIONS,
    BlankedViews,
    SwappedViews,
    Version,
    has_lungs,
)
from train.data.manifest import Manifest
from train.data.pixels import PixelStore
from train.learn.finished import as_trained, read_runs
from train.learn.loop import predict_logits
from train.measure.evaluate import say_differences, unlike_logits, unlike_shares
from train.measure.films import Films, masked_films
from train.measure.floors import FEATURES, TINY
from train.measure.kept import KeptRun, ResultsError
from train.measure.kept_audit import FOREST, AuditFilms, AuditResults, KeptAudit
from train.measure.predictions import stored_on

log = logging.getLogger("train")

FOREST_FEATURE = "thumbnail"
TREES = 500
FOREST_SIZE = 128  # px, the side of the films that thumbnails are made of


def audit_classifier(classifier: Classifier, films: Films, kept: AuditFilms) -> KeptAudit:
    """What a network answers on all versions, fills and swaps, in the classes of `films.task` alone."""
    spec, row = classifier.spec, classifier.checkpoint
    store = PixelStore(films.samples, classifier.task, spec.input_size)

    def logits(views: Dataset) -> np.ndarray:
        found, _ = predict_logits(classifier.model, DataLoader(views, 16), spec.mean, spec.std)
        return found.double().numpy()[:, films.columns]

    return KeptAudit(
        KeptRun.key_of(row),
        row.name,
        row.spec.role,
        row.sha256,
        versions={name: logits(BlankedViews(store, v)) for name, v in VERSIONS.items()},
        fills={
            fill: {name: logits(BlankedViews(store, VERSIONS[name], fill)) for name in FILLED}
            for fill in FILLS
            if fill != MAIN_FILL
        },
        swaps={name: logits(SwappedViews(store, donors)) for name, donors in kept.donors.items()},
    )


def _thumbnails(films: Films, task: Task, version: Version) -> np.ndarray:
    views = BlankedViews(PixelStore(films.samples, task, FOREST_SIZE), version)
    feature = FEATURES[FOREST_FEATURE].compute
    return np.stack([feature(image.permute(1, 2, 0).numpy()) for image, _ in views])


def audit_forest(manifest: Manifest, films: Films, seed: int = 0) -> KeptAudit | None:
    """What a random forest on thumbnails answers, trained on films blanked alike.

    It is fitted on the films of the training split with masks; None when they miss a class. No
    version is unlike its training, so it tells how much is to be known from what a version leaves.
    """
    task, classes = manifest.task, films.task.class_ids
    samples = [s for s in manifest.split("train") if s.label in classes and has_lungs(s)]
    train = replace(films, samples=tuple(samples), left_out={})
    if len(set(train.labels.tolist())) < len(classes):
        return None
    scores = {}
    for name, version in VERSIONS.items():
        forest = RandomForestClassifier(TREES, n_jobs=-1, random_state=seed)
        forest.fit(_thumbnails(train, task, version), train.labels)
        scores[name] = np.log(forest.predict_proba(_thumbnails(films, task, version)) + TINY)
    about = f"random forest on {FEATURES[FOREST_FEATURE].plural}"
    return KeptAudit(FOREST, about, FOREST, "", scores, trained_on=len(samples))


# --- The command -----------------------------------------------------------------------------


def audit_task(manifest: Manifest, write: bool = False, runs: Sequence[Path] = ()) -> list[str]:
    """Audit all stored checkpoints of a task on the test split, further runs, and the forest.

    `write` keeps what they answered in `results/<task>/`. Else it is compared with what is kept
    there: returns a sentence for each difference. Raises `DataError`, `CheckpointError`,
    `UnusableRun`, `ResultsError`.
    """
    index, task = Index.read(), manifest.task
    films, results = masked_films(manifest), AuditResults.of(task)
    rows = stored_on(manifest, index)
    further = list(read_runs(runs, manifest.id))
    kept = films.kept()
    if write:
        kept.write(results.folder / "audit.csv")
    elif not results.films.same_as(kept):
        raise ResultsError(
            f"{results.folder / 'audit.csv'} lists other films or donors than {manifest.id} gives; "
            "audit again with --write."
        )
    sources: list[Callable[[], KeptAudit | None]] = [
        lambda row=row: audit_classifier(Classifier.load(index, row), films, kept) for row in rows
    ]
    for folder, row, state in further:
        row = replace(row, sha256=sha256_of(folder / "best.safetensors"))
        sources.append(
            lambda row=row, state=state: audit_classifier(as_trained(row, state), films, kept)
        )
    sources.append(lambda: audit_forest(manifest, films))
    known = {} if write else {audit.key: audit for audit in results.audits}
    other, seen = [], set()
    for source in sources:
        if (audit := source()) is None:
            continue
        seen.add(audit.key)
        _report(audit, films)
        if write:
            audit.write(results.folder / "audit")
        else:
            other += _unlike(known.get(audit.key), audit)
    for key in sorted(known.keys() - seen):
        log.info("%s: not checked, its weights are not at hand.", key)
    say_differences(other)
    return other


def _report(audit: KeptAudit, films: Films) -> None:
    parts = (
        f"{name} {100 * (logits.argmax(1) == films.labels).mean():.0f}%"
        for name, logits in audit.versions.items()
    )
    log.info("%s: accuracy on %d films, %s", audit.name, len(films.samples), ", ".join(parts))


def _unlike(kept: KeptAudit | None, found: KeptAudit) -> list[str]:
    again = "audit again with --write"
    if kept is None:
        return [f"{found.key} is not in the kept audit; {again}."]
    if kept.sha256 != found.sha256:
        return [f"{found.key}: the kept audit is of other weights; {again}."]
    before, after = kept.tensors(), found.tensors()
    if before.keys() != after.keys():
        return [f"{found.key}: the kept audit asked {', '.join(before)}; {again}."]
    compared = unlike_shares if found.role == FOREST else unlike_logits
    return [
        f"{found.key}, {name}: {unlike}; {again}."
        for name in after
        if (unlike := compared(before[name], after[name]))
    ]
