"""`train.measure.calibration` on labels that were drawn from known probabilities."""

import logging

import numpy as np
import pytest
from scipy.special import log_softmax

from train.measure.calibration import LIMITS, calibration_of, fit_temperature


def drawn(temperature: float, number: int = 4000, classes: int = 4, seed: int = 0):
    """Logits, and labels that follow softmax(logits / temperature)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 4, (number, classes))
    noise = generator.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(1)


def nll(logits, labels, temperature: float) -> float:
    return -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.06)


def test_no_other_temperature_is_likelier():
    logits, labels = drawn(1.7, number=300)
    best = fit_temperature(logits, labels)
    everywhere = np.geomspace(*LIMITS, 400)
    least = min(nll(logits, labels, t) for t in everywhere)
    assert nll(logits, labels, best) <= least + 1e-7


def test_calibration_makes_overconfident_probabilities_true():
    logits, labels = drawn(2.5)
    held, truth = drawn(2.5, seed=1)
    temperature = fit_temperature(logits, labels)
    before, after = calibration_of(held, truth), calibration_of(held, truth, temperature)
    assert before.ece > 0.15 and after.ece < 0.03
    assert after.nll == pytest.approx(nll(held, truth, temperature), abs=1e-4)
    assert after.nll < before.nll == pytest.approx(nll(held, truth, 1.0), abs=1e-4)


def test_answers_that_are_all_right_fit_no_temperature(caplog):
    caplog.set_level(logging.INFO, logger="train")
    logits, _ = drawn(1.0, number=50)
    assert fit_temperature(logits, logits.argmax(1)) == 1.0
    assert "All 50 validation answers are right, so no temperature is fitted." in caplog.text


@pytest.mark.parametrize("factor, limit", [(1e-4, LIMITS[0]), (1e6, LIMITS[1])])
def test_the_temperature_stays_within_its_limits(factor, limit):
    logits, labels = drawn(1.0, number=200)
    assert fit_temperature(logits * factor, labels) == pytest.approx(limit, rel=1e-3)


def test_the_error_is_that_of_fifteen_bins():
    logits, labels = drawn(2.0, number=500)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares = powers / powers.sum(1, keepdims=True)
    confidence, right = shares.max(1), shares.argmax(1) == labels
    place = np.clip((confidence * 15).astype(int), 0, 14)
    error = sum(
        abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean()
        for b in set(place)
    )
    assert calibration_of(logits, labels).ece == pytest.approx(error, abs=1e-4)
