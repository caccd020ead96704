"""`train.measure.probe`: fitted on train, chosen on val, and never told what is in test."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import train.measure.probe
from train.measure.kept import TaskResults
from train.measure.probe import STRENGTHS, fit_probe, probe_of, probe_task


def made_up(seed: int = 0, number: int = 60) -> tuple[dict, dict]:
    """Few noisy features of many: what strength is best hangs on the images."""
    generator = np.random.default_rng(seed)
    features, labels = {}, {}
    for split in ("train", "val", "test"):
        labels[split] = generator.integers(0, 3, number)
        features[split] = generator.normal(size=(number, 200))
        features[split][:, :3] += 2 * np.eye(3)[labels[split]]
    return features, labels


def rate(strength: float, features: dict, labels: dict, split: str) -> float:
    """Accuracy of the probe of one strength, fitted on train alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.measure.probe, "STRENGTHS", (strength,))
        probe, _ = fit_probe(features, labels)
    return probe.score(features[split], labels[split])


@pytest.mark.parametrize("wanted", [STRENGTHS[0], STRENGTHS[-1]])
def test_the_strength_is_chosen_on_validation_and_not_on_test(wanted):
    """Whichever strength the validation images are made to favour is taken, and test is turned
    against it.
    """
    features, labels = made_up()
    answers = {}
    for strength in STRENGTHS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train.measure.probe, "STRENGTHS", (strength,))
            probe, _ = fit_probe(features, labels)
        answers[strength] = {s: probe.predict(features[s]) for s in ("val", "test")}
    other = next(s for s in (STRENGTHS[0], STRENGTHS[-1]) if s != wanted)
    labels |= {"val": answers[wanted]["val"], "test": answers[other]["test"]}
    assert rate(other, features, labels, "test") == 1 > rate(wanted, features, labels, "test")
    assert rate(wanted, features, labels, "val") == 1 > rate(other, features, labels, "val")
    assert fit_probe(features, labels)[1] == wanted


def test_nothing_of_val_or_test_is_learned():
    features, labels = made_up()
    before = fit_probe(features, labels)[0].predict_proba(features["val"])
    shuffled = labels | {"test": labels["test"][::-1]}
    moved = features | {"test": features["test"] + 100}
    assert np.array_equal(fit_probe(moved, shuffled)[0].predict_proba(features["val"]), before)
    one_strength = {**labels, "val": labels["val"][::-1]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.measure.probe, "STRENGTHS", (1e-2,))
        first, second = (fit_probe(features, x)[0] for x in (labels, one_strength))
    assert np.array_equal(*(p.predict_proba(features["val"]) for p in (first, second)))


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """A network of the right shape with random weights, fed small images."""
    torch.manual_seed(0)
    file = tmp_path / "guide.safetensors"
    save_file(timm.create_model("mobilenetv2_100", pad_type="same").state_dict(), file)
    monkeypatch.setattr(train.measure.probe, "SIZE", 32)
    return file


def test_a_probe_answers_val_and_test(guide, make_manifest):
    manifest = make_manifest(train=4, val=2, test=3, task="histopathology")
    probe = probe_of(manifest, guide)
    assert (probe.id, probe.kind) == ("imagenet_probe", "probe")
    assert (probe.val.shape, probe.test.shape) == ((10, 5), (15, 5))
    assert np.exp(probe.test).sum(1) == pytest.approx(1)
    assert probe.settings["strength"] in STRENGTHS and len(probe.settings["weights_sha256"]) == 64
    labels = [manifest.task.class_ids.index(s.label) for s in manifest.split("test")]
    assert (probe.test.argmax(1) == labels).mean() > 0.8  # colours are told even by a random net


def test_a_probe_is_kept_and_compared(guide, make_manifest, weights):
    manifest = make_manifest(train=3, val=2, test=2)
    assert probe_task(manifest, guide, write=True) == []
    (kept,) = TaskResults.of(manifest.task).floors
    assert kept.settings == probe_of(manifest, guide).settings
    assert probe_task(manifest, guide) == []
    tampered = kept.test.astype(np.float64)
    tampered[0] = np.roll(tampered[0], 1)
    type(kept)(kept.id, kept.name, kept.kind, kept.val, tampered, {"strength": 7}).write(
        weights / "results" / "cxr" / "floors"
    )
    lines = probe_task(manifest, guide)
    assert len(lines) == 2 and "test: 1 of 6 images" in lines[0] and "strength" in lines[1]
