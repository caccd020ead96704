"""Rates of confusion counts, and the area under the ROC curve."""

import numpy as np
from scipy.special import softmax
from sklearn.metrics import roc_auc_score


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Rates of (..., K, K) confusion counts, NaN where a denominator is zero.

    accuracy and macro_f1 have shape (...,); sensitivity, specificity and ppv (..., K). macro_f1 is
    averaged over the classes that occur among the labels or the predictions, as scikit-learn does.
    """
    counts = counts.astype(np.float64)
    true_positive = np.diagonal(counts, axis1=-2, axis2=-1)
    actual, predicted = counts.sum(-1), counts.sum(-2)
    total = counts.sum((-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * true_positive / (actual + predicted)
        return {
            "accuracy": true_positive.sum(-1) / total,
            "macro_f1": np.nanmean(f1, axis=-1),
            "sensitivity": true_positive / actual,
            "specificity": 1 - (predicted - true_positive) / (total[..., None] - actual),
            "ppv": true_positive / predicted,
        }


def auroc(logits: np.ndarray, labels: np.ndarray) -> float:
    """Macro AUROC, one class against the rest, of (N, K) logits."""
    shares = softmax(logits.astype(np.float64), axis=1)
    scores = shares if shares.shape[1] > 2 else shares[:, 1]
    return float(roc_auc_score(labels, scores, multi_class="ovr"))
