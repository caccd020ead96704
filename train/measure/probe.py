"""A reference row: what ImageNet features give without any training of a network on the task.

A frozen ImageNet MobileNetV2 (Sandler et al., CVPR 2018) turns each image into 1,280 numbers, on
which logistic regression is fitted: a linear probe (Kornblith et al., "Do Better ImageNet Models
Transfer Better?", CVPR 2019). Networks trained from scratch on a few thousand images should be read
beside it.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from train.data.manifest import Manifest
from train.data.pixels import EvalViews
from train.learn.guides import MODEL, SIZE, Guide
from train.learn.loop import predict_logits
from train.measure.metrics import summarise

log = logging.getLogger("train")

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # inverse of the L2 penalty; chosen on the validation split


def measure_reference(manifest: Manifest, weights: Path | None) -> dict:
    """Fit the probe on the training split and summarise it on the test split.

    Returns the metrics of `train.measure.metrics.summarise` with the chosen strength under `strength`.
    """
    guide = Guide.load(weights)
    guide.to(torch.device("cpu"))
    features, labels = {}, {}
    for split in ("train", "val", "test"):
        views = EvalViews(manifest.split(split), manifest.task, SIZE)
        found, label = predict_logits(guide.model, DataLoader(views, 32), guide.mean, guide.std)
        features[split], labels[split] = found.numpy(), label.numpy()
    probes = {
        strength: make_pipeline(
            StandardScaler(), LogisticRegression(C=strength, max_iter=2000, random_state=0)
        ).fit(features["train"], labels["train"])
        for strength in STRENGTHS
    }
    best = max(STRENGTHS, key=lambda s: probes[s].score(features["val"], labels["val"]))
    log.info("Linear probe on %s: C = %g, chosen on the validation split.", MODEL, best)
    logits = probes[best].predict_log_proba(features["test"])
    return {
        "strength": best,
        **summarise(np.asarray(logits), manifest.split("test"), manifest.task),
    }
