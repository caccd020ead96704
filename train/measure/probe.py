"""A reference row: what ImageNet features give without any training of a network on the task.

A frozen ImageNet MobileNetV2 (Sandler et al., CVPR 2018) turns each image into 1,280 numbers, on
which logistic regression is fitted: a linear probe (Kornblith et al., "Do Better ImageNet Models
Transfer Better?", CVPR 2019). Networks trained from scratch on a few thousand images should be read
beside it.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from train.data.manifest import Manifest
from train.data.pixels import EvalViews
from train.learn.guides import SIZE, Guide
from train.learn.loop import predict_logits
from train.measure.evaluate import keep_or_compare, say_differences
from train.measure.kept import SPLITS, Floor, TaskResults

NAME = "linear probe on a frozen ImageNet MobileNetV2"
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # inverse of the L2 penalty; chosen on the validation split


def fit_probe(
    features: dict[str, np.ndarray], labels: dict[str, np.ndarray]
) -> tuple[Pipeline, float]:
    """The probe that is right most often on `val` of those fitted on `train`, and its strength."""
    probes = {
        strength: make_pipeline(
            StandardScaler(), LogisticRegression(C=strength, max_iter=2000, random_state=0)
        ).fit(features["train"], labels["train"])
        for strength in STRENGTHS
    }
    best = max(STRENGTHS, key=lambda s: probes[s].score(features["val"], labels["val"]))
    return probes[best], best


def probe_of(manifest: Manifest, weights: Path | None) -> Floor:
    """What the probe answers on val and test. weights: see `Guide.load`. Raises `DataError`."""
    guide = Guide.load(weights)
    guide.to(torch.device("cpu"))
    features, labels = {}, {}
    for split in ("train", *SPLITS):
        views = EvalViews(manifest.split(split), manifest.task, SIZE)
        found, label = predict_logits(guide.model, DataLoader(views, 32), guide.mean, guide.std)
        features[split], labels[split] = found.numpy(), label.numpy()
    probe, strength = fit_probe(features, labels)
    answers = (np.asarray(probe.predict_log_proba(features[split])) for split in SPLITS)
    settings = {"strength": strength, "weights_sha256": guide.sha256}
    return Floor("imagenet_probe", NAME, "probe", *answers, settings=settings)


def probe_task(manifest: Manifest, weights: Path | None, write: bool = False) -> list[str]:
    """Keep what the probe answers in `results/<task>/floors/`, or compare it with what is kept.

    Returns a sentence for each difference. Raises `DataError`, `ResultsError`.
    """
    results = TaskResults.of(manifest.task)
    if write:
        results.keep_images(manifest)
    else:
        results.check_images(manifest)
    lines = keep_or_compare(probe_of(manifest, weights), results, write)
    say_differences(lines)
    return lines
