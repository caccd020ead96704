"""Weights -> logits: what a classifier answers on the images of a data set."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from kdmodels.engines.pytorch import TorchEngine
from kdmodels.models.checkpoints import Checkpoint, CheckpointError, Index
from kdmodels.predict import COMPUTE, Classifier
from train.data.manifest import DataError, Manifest, Sample, read_pixels
from train.data.pixels import EvalViews
from train.learn.loop import predict_logits
from train.measure.kept import KeptRun

log = logging.getLogger("train")


def stored_on(manifest: Manifest, index: Index) -> list[Checkpoint]:
    """The checkpoints of a task, all trained on this data set. Raises `DataError` where one was
    trained on another, and `CheckpointError` where there is none.
    """
    rows = [c for c in index.checkpoints if c.task == manifest.task.id]
    if not rows:
        raise CheckpointError(
            f"{index.folder} holds no weights for the task '{manifest.task.id}'; store some."
        )
    if strange := [c.file for c in rows if c.data != manifest.id]:
        raise DataError(
            f"{', '.join(strange)} was trained on other data than {manifest.id}; its test images "
            "may be among the training images here."
        )
    return rows


def logits_of(
    classifier: Classifier, samples: Sequence[Sample], batch_size: int = 16
) -> np.ndarray:
    """(N, K) float64 logits of samples, through the same preprocessing as the app's."""
    views = EvalViews(samples, classifier.task, classifier.spec.input_size)
    logits, _ = predict_logits(
        classifier.model, DataLoader(views, batch_size), classifier.spec.mean, classifier.spec.std
    )
    return logits.double().numpy()


def served_logits(classifier: Classifier, samples: Sequence[Sample]) -> np.ndarray:
    """(N, K) float64 logits by the engine that the page uses, one image at a time as it does."""
    side, found = classifier.spec.input_size, []
    for sample in samples:
        image = Image.fromarray(read_pixels(sample, classifier.task, side))
        with COMPUTE:
            found.append(classifier.engine(classifier.prepare(image)).logits)
    return torch.cat(found).double().numpy()


def answered(classifier: Classifier, manifest: Manifest, recipe_sha256: str) -> KeptRun:
    """What a classifier answers on val and test; of a shipped one also by the page's engine."""
    eager = TorchEngine(classifier.model, classifier.spec)
    row, test = classifier.checkpoint, manifest.split("test")
    served = served_logits(classifier, test) if row.file else None
    return KeptRun(
        row,
        recipe_sha256,
        engine=eager.name,
        parameters=eager.size.parameters,
        macs=eager.size.macs,
        val=logits_of(classifier, manifest.split("val")),
        test=logits_of(classifier, test),
        served=served,
        served_by=classifier.engine.name if row.file else None,
    )
