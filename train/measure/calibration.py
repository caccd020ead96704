"""Temperature scaling: one number per network that makes its probabilities mean what they say.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2:
the logits are divided by T > 0 before the softmax. T is the one that gives the validation images
the greatest likelihood. It changes how sure the network is, and never what it answers.
"""

import logging
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from torch import from_numpy
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

log = logging.getLogger("train")

LIMITS = (0.2, 5.0)  # of T
BINS = 15  # of confidence, of equal width; as in the paper


def _nll(logits: np.ndarray, labels: np.ndarray) -> float:
    return cross_entropy(from_numpy(logits), from_numpy(labels)).item()


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """T in `LIMITS` that minimises the negative log-likelihood of (N, K) logits and (N,) labels.

    The search is over log T, in which there is one minimum (in 1 / T the function is convex). Where
    every answer is right there is none: the surer the better, without end. T then stays 1, as such
    images do not tell how often the network errs.
    """
    if (logits.argmax(1) == labels).all():
        log.info("  All %d validation answers are right, so no temperature is fitted.", len(labels))
        return 1.0
    found = minimize_scalar(
        lambda log_t: _nll(logits / np.exp(log_t), labels), bounds=np.log(LIMITS), method="bounded"
    )
    return round(float(np.exp(found.x)), 4)


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error and negative log-likelihood (nats).

    The former is the mean over images of |accuracy - confidence| of the image's bin of confidence
    (section 2 of the paper).
    """

    ece: float
    nll: float


def calibration_of(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> Calibration:
    """That of softmax(logits / T), rounded to 4 places."""
    scaled = logits / temperature
    error = multiclass_calibration_error(
        from_numpy(scaled).softmax(1), from_numpy(labels), logits.shape[1], BINS
    )
    return Calibration(round(float(error), 4), round(_nll(scaled, labels), 4))
