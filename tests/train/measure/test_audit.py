"""`train.measure.audit`: networks that look at one place only are found out, whichever place it is."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kdmodels.models.checkpoints import CheckpointError, Index
from kdmodels.models.zoo import build_model
from kdmodels.predict import Classifier
from tests.train.measure.films import CXR, LEVELS, LUNGS, SIDE
from train.__main__ import main
from train.data.blanking import FILLED, FILLS, SWAPS, VERSIONS
from train.data.manifest import DataError, Manifest
from train.measure.audit import audit_classifier, audit_forest, audit_task
from train.measure.films import Films, masked_films
from train.measure.kept import ResultsError, read_tensors, relative, write_tensors
from train.measure.kept_audit import MIN_FILMS, AuditResults, KeptAudit
from train.measure.predictions import logits_of

FRAME = np.ones((SIDE, SIDE), bool)
FRAME[3:-3, 3:-3] = False


class Reader(nn.Module):
    """Knows the class by the mean grey of one place, and sees nothing else.

    place: (S, S) bool. levels: grey of each class there, of 255.
    """

    def __init__(self, place: np.ndarray, levels, spec) -> None:
        super().__init__()
        self.place = torch.from_numpy(place)
        self.levels = nn.Parameter(torch.tensor(levels, dtype=torch.float32))
        self.mean, self.std = spec.mean[0], spec.std[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = 255 * (images[:, 0] * self.std + self.mean)
        return -((grey[:, self.place].mean(1)[:, None] - self.levels) ** 2) / 100


@pytest.fixture
def read(make_classifier):
    """Make a `Classifier` that looks at the `FRAME`, or at the `LUNGS`."""

    def make(place: np.ndarray) -> Classifier:
        classifier = make_classifier()
        levels = LEVELS if place is FRAME else np.roll(LEVELS, -1)
        about = classifier.task, classifier.spec, classifier.checkpoint
        return Classifier(*about, Reader(place, levels, classifier.spec).eval())

    return make


OUTLINES = {"lungs_outline", "box_outline"}


def audited(classifier: Classifier, manifest: Manifest) -> tuple[KeptAudit, Films]:
    films = masked_films(manifest)
    return audit_classifier(classifier, films, films.kept()), films


def right(logits: np.ndarray, films: Films) -> float:
    return float((logits.argmax(1) == films.labels).mean())


def seen(found: KeptAudit, films: Films) -> dict[str, float]:
    """Accuracies of the versions that leave each part of the film where it was."""
    moved = {*OUTLINES, "crop"}
    return {k: right(logits, films) for k, logits in found.versions.items() if k not in moved}


# --- Networks that look at one place ---------------------------------------------------------


def test_a_network_that_looks_around_the_lungs_is_found_out(write_films, read):
    found, films = audited(read(FRAME), write_films())
    assert seen(found, films) == {
        "whole": 1.0, "no_lungs": 1.0, "no_box": 1.0, "lungs_only": 0.0,
    }  # fmt: skip
    for row in found.fills.values():
        assert right(row["no_lungs"], films) == right(row["no_box"], films) == 1
        assert right(row["lungs_only"], films) < 0.5
    for logits in found.swaps.values():
        assert right(logits, films) == 1  # whatever the box holds


def test_a_network_that_looks_at_the_lungs_is_cleared(write_films, read):
    found, films = audited(read(LUNGS), write_films())
    assert seen(found, films) == {
        "whole": 1.0, "no_lungs": 0.0, "no_box": 0.0, "lungs_only": 1.0,
    }  # fmt: skip
    for row in found.fills.values():
        assert right(row["lungs_only"], films) == 1
        assert max(right(row["no_lungs"], films), right(row["no_box"], films)) < 0.5
    donors = films.kept().donors
    for name, logits in found.swaps.items():
        given = donors[name] >= 0
        assert given.any()
        of_box = films.labels[donors[name][given]]
        assert np.array_equal(logits.argmax(1)[given], of_box)  # it is the box that it names


def test_the_outline_alone_is_one_answer_where_all_outlines_are_alike(write_films, read):
    found, films = audited(read(FRAME), write_films())
    for name in OUTLINES:
        assert right(found.versions[name], films) == pytest.approx(1 / 3)
        assert len(np.unique(found.versions[name], axis=0)) == 1


def test_every_version_fill_and_swap_is_kept(write_films, read):
    found, _ = audited(read(FRAME), write_films())
    assert tuple(found.versions) == tuple(VERSIONS) and tuple(found.swaps) == tuple(SWAPS)
    assert list(found.fills) == list(FILLS)[1:]
    assert all(tuple(row) == FILLED for row in found.fills.values())
    assert {logits.shape for logits in found.tensors().values()} == {(36, 3)}
    assert len(found.tensors()) == 16


def test_the_films_as_they_are_give_the_evaluations_logits(write_films, tiny_classifier):
    found, films = audited(tiny_classifier, write_films())
    assert np.array_equal(found.versions["whole"], logits_of(tiny_classifier, films.samples))


# --- The forest ------------------------------------------------------------------------------


@pytest.mark.parametrize("plain, knows, blind", [
    ("lungs", ("whole", "no_lungs", "no_box"), ("lungs_only", *OUTLINES)),
    ("around", ("whole", "crop", "lungs_only"), ("no_lungs", "no_box", *OUTLINES)),
])  # fmt: skip
def test_the_forest_tells_what_can_be_known_from_what_is_left(
    write_films, plain, knows, blind, monkeypatch
):
    monkeypatch.setattr("train.measure.audit.TREES", 50)
    monkeypatch.setattr("train.measure.audit.FOREST_SIZE", 64)
    manifest = write_films(plain=plain)
    films = masked_films(manifest)
    forest = audit_forest(manifest, films)
    found = {name: right(logits, films) for name, logits in forest.versions.items()}
    assert (forest.key, forest.trained_on, forest.name) == (
        "forest", 36, "random forest on 16 x 16 px thumbnails",
    )  # fmt: skip
    assert all(found[name] == 1 for name in knows), found
    assert all(found[name] < 0.6 for name in blind), found


def test_the_forest_is_not_trained_on_masks_of_no_lungs(write_films, tmp_path, monkeypatch):
    monkeypatch.setattr("train.measure.audit.TREES", 2)
    manifest = write_films()
    Image.fromarray(np.zeros_like(LUNGS)).save(tmp_path / "empty.png")
    first = replace(manifest.samples[0], mask=tmp_path / "empty.png")
    assert first.split == "train"
    manifest = replace(manifest, samples=(first, *manifest.samples[1:]))
    assert audit_forest(manifest, masked_films(manifest)).trained_on == 35


def test_no_forest_without_masks_for_training(write_films):
    manifest = write_films()
    samples = [replace(s, mask=None) if s.split == "train" else s for s in manifest.samples]
    manifest = replace(manifest, samples=tuple(samples))
    assert audit_forest(manifest, masked_films(manifest)) is None


def test_a_class_with_few_masks_is_left_out_and_no_answer_names_it(write_films, read):
    films = masked_films(write_films((12, MIN_FILMS - 1, 12)))
    assert films.task.class_ids == ("covid", "normal") and films.columns == (0, 2)
    assert films.kept().notes == [
        "Left out: Non-COVID pneumonia, with masks for 9 films, fewer than 10."
    ]
    assert set(films.labels) == {0, 1} and len(films.samples) == 24
    classifier = read(FRAME)
    with torch.no_grad():
        classifier.model.levels.copy_(torch.tensor([60.0, 179.0, 180.0]))
    named = set(logits_of(classifier, films.samples).argmax(1).tolist())
    assert named == {0, 1, 2}  # it names pneumonia when it may
    found = audit_classifier(classifier, films, films.kept())
    assert right(found.versions["whole"], films) == right(found.fills["grey"]["no_lungs"], films)
    assert right(found.versions["whole"], films) == 1


# --- The command -----------------------------------------------------------------------------


@pytest.fixture
def stored(weights, write_films, new_row, monkeypatch) -> tuple[Manifest, Index]:
    """Drawn films, and two tiny networks in an index that counts as the project's own."""
    manifest = write_films()
    monkeypatch.setattr("train.measure.audit.TREES", 2)
    monkeypatch.setattr("train.measure.audit.FOREST_SIZE", 64)
    for model in ("vgg19", "ofa_595"):
        row = replace(new_row("cxr", model), data=manifest.id)
        Index(weights).store(row, build_model(model, 3).state_dict())
    return manifest, Index.read(weights)


def test_what_is_kept_is_what_the_networks_answered(stored):
    manifest, index = stored
    assert audit_task(manifest, write=True) == []
    results, films = AuditResults.of(CXR), masked_films(manifest)
    assert [audit.key for audit in results.audits] == [
        "cxr-vgg19-seed0", "cxr-ofa_595-labels-seed0", "forest",
    ]  # fmt: skip
    assert results.films.images.same_as(films.kept().images)
    assert results.films.task == CXR
    for swap, donors in films.kept().donors.items():
        assert np.array_equal(results.films.donors[swap], donors)
    for row, audit in zip(index.checkpoints, results.audits, strict=False):
        assert (audit.name, audit.role, audit.sha256) == (row.name, row.spec.role, row.sha256)
        found = audit_classifier(Classifier.load(index, row), films, films.kept()).tensors()
        kept = audit.tensors()
        assert kept.keys() == found.keys()
        for name, logits in found.items():
            assert np.allclose(kept[name], relative(logits), atol=2e-3, rtol=1e-3)
            assert np.array_equal(kept[name].argmax(1), logits.argmax(1))
    assert results.audits[-1].trained_on == 36
    assert audit_task(manifest) == []


@pytest.mark.parametrize("name", ["no_box", "no_lungs.grey", "swap.other"])
def test_a_kept_audit_that_was_tampered_with_is_noticed(stored, name):
    manifest, _ = stored
    audit_task(manifest, write=True)
    file = AuditResults.of(CXR).folder / "audit" / "cxr-vgg19-seed0.safetensors"
    tensors, about = read_tensors(file)
    tensors[name][0] -= np.array((0, 1, 2), np.float16)
    write_tensors(file, tensors, about)
    (line,) = audit_task(manifest)
    assert line.startswith(f"cxr-vgg19-seed0, {name}: ")
    assert main_exits_with(manifest) == 1


def main_exits_with(manifest: Manifest) -> int:
    """The exit code of the command without --write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.measure.commands.open_data", lambda args: manifest)
        return main(["audit", "--task", "cxr"])


def test_an_audit_of_other_weights_or_donors_is_said(stored):
    manifest, _ = stored
    audit_task(manifest, write=True)
    results = AuditResults.of(CXR)
    replace(results.audits[0], sha256="0" * 64).write(results.folder / "audit")
    (line,) = audit_task(manifest)
    assert "the kept audit is of other weights" in line
    file = results.folder / "audit.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    with pytest.raises(ResultsError, match=r"audit\.csv lists other films or donors than"):
        audit_task(manifest)


def test_a_further_run_is_audited_and_stays_when_its_folder_is_gone(stored, finish_run, caplog):
    manifest, _ = stored
    audit_task(manifest, write=True, runs=[finish_run(manifest, seed=1)])
    key = "cxr-ofa_595-labels-seed1"
    assert key in {audit.key for audit in AuditResults.of(CXR).audits}
    caplog.set_level(logging.INFO, logger="train")
    assert audit_task(manifest) == []
    assert f"{key}: not checked, its weights are not at hand." in caplog.text


def test_weights_of_other_data_are_refused(stored, write_films):
    with pytest.raises(DataError, match="was trained on other data than drawn@"):
        audit_task(write_films((11, 12, 12)))


def test_an_audit_needs_weights(stored, write_films):
    replace(Index.read(), checkpoints=()).write()
    with pytest.raises(CheckpointError, match="holds no weights for the task 'cxr'"):
        audit_task(write_films())


def test_the_command_says_that_there_are_no_masks(write_starter, tmp_path, capfd):
    data = write_starter(tmp_path / "data")
    assert main(["audit", "--task", "cxr", "--data", str(data)]) == 2
    _, err = capfd.readouterr()
    assert err.startswith("error: The audit needs lung masks") and err.count("\n") == 1
