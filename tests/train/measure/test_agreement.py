"""`train.measure.agreement`: the page's own measures, of the maps of the true class, image by image."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kdmodels.explain.scorecam import explain
from kdmodels.explain.similarity import agreement
from kdmodels.models.checkpoints import CheckpointError, sha256_of
from train.data.manifest import read_pixels
from train.measure.agreement import agreement_task, all_compared, choose, heatmaps_of
from train.measure.kept_rows import AgreementRow, read_rows, write_rows
from train.release.store import store_run


@pytest.fixture
def manifest(make_manifest):
    return make_manifest(train=2, val=2, test=4)


def test_each_class_has_as_many_images(manifest):
    samples = manifest.split("test")
    chosen = choose(samples, manifest.task.class_ids, 6)
    assert [s.label for s in chosen] == [c for c in manifest.task.class_ids for _ in range(2)]
    assert chosen == choose(samples, manifest.task.class_ids, 6)
    assert len(choose(samples, manifest.task.class_ids, 10_000)) == len(samples)


def test_maps_are_of_the_true_class(make_classifier, manifest):
    classifier = make_classifier("autoformerv2_t")
    classifier.engine.batch = 64  # so that the first map is exact
    samples = choose(manifest.split("test"), manifest.task.class_ids, 3)
    for sample, found in zip(samples, heatmaps_of(classifier, samples), strict=True):
        image = Image.fromarray(read_pixels(sample, classifier.task, 256))
        np.testing.assert_allclose(found, explain(classifier, image, sample.label), atol=1e-6)


def test_a_student_is_set_beside_its_teacher_and_the_control_beside_all(new_row, manifest):
    samples = choose(manifest.split("test"), manifest.task.class_ids, 3)
    rng = np.random.default_rng(0)
    first, second, third = ([rng.random((5, 5), np.float32) for _ in samples] for _ in range(3))
    third[1] = np.zeros((5, 5), np.float32)
    taught, control = new_row("cxr", "ofa_595", "vgg19"), new_row("cxr", "ofa_595")
    teachers = [
        (replace(new_row("cxr", model), sha256=f"{model}-of-64-digits"), maps)
        for model, maps in (("vgg19", first), ("visformer_s", second))
    ]
    rows = all_compared([(taught, third), (control, second)], teachers, samples)
    assert [(r.student, r.teacher, r.image) for r in rows] == [
        (f"cxr-ofa_595-{student}-seed0", teacher, sample.path.name)
        for student, teacher in (
            ("from-vgg19", "vgg19"), ("labels", "vgg19"), ("labels", "visformer_s"),
        )
        for sample in samples
    ]  # fmt: skip
    assert [r.group for r in rows[:3]] == [s.group for s in samples]
    assert {r.teacher_sha256 for r in rows} == {"vgg19-of-64-", "visformer_s-"}
    for row, mine, teachers_map in zip(rows[:3], third, first, strict=True):
        wanted = agreement(teachers_map, mine)
        assert (row.correlation, row.overlap) == pytest.approx(
            (wanted.pearson, wanted.overlap), nan_ok=True
        )
    assert np.isnan(rows[1].correlation)  # a flat map is like none
    assert [r.correlation for r in rows[6:]] == pytest.approx([1, 1, 1])


@pytest.fixture
def stored(weights, finish_run, manifest):
    store_run(finish_run(manifest, "vgg19", None), manifest, "float32")
    store_run(finish_run(manifest, "ofa_595", "vgg19"), manifest, "float32")
    return weights / "results" / "cxr" / "agreement.csv"


def test_rows_of_stored_students_and_runs_are_kept_and_compared(
    stored, finish_run, manifest, caplog
):
    run = finish_run(manifest, "ofa_595", None)
    assert agreement_task(manifest, 3, [run], write=True) == []
    rows = read_rows(stored, AgreementRow)
    names = ["cxr-ofa_595-from-vgg19-seed0"] * 3 + ["cxr-ofa_595-labels-seed0"] * 3
    assert [row.student for row in rows] == names
    assert rows[3].student_sha256 == sha256_of(run / "best.safetensors")[:12]
    assert agreement_task(manifest, 3, [run]) == []

    caplog.set_level(logging.INFO, logger="train")
    assert agreement_task(manifest, 3) == []  # its folder is gone, say
    assert "Not checked, as their weights are not at hand: cxr-ofa_595-labels" in caplog.text
    agreement_task(manifest, 3, write=True)
    assert read_rows(stored, AgreementRow) == rows
    agreement_task(manifest, 6, write=True)  # other images
    assert {row.student for row in read_rows(stored, AgreementRow)} == {*names}


def test_a_kept_row_that_was_tampered_with_is_noticed(stored, manifest):
    agreement_task(manifest, 3, write=True)
    rows = read_rows(stored, AgreementRow)
    write_rows(stored, [replace(rows[0], correlation=rows[0].correlation - 0.2), *rows[1:]])
    (line,) = agreement_task(manifest, 3)
    assert "agreement.csv: correlation of" in line and rows[0].image in line
    write_rows(stored, rows[1:])
    (line,) = agreement_task(manifest, 3)
    assert "agreement.csv lacks" in line and rows[0].image in line


def test_a_teacher_is_needed(weights, finish_run, manifest):
    store_run(finish_run(manifest, "ofa_595", "vgg19"), manifest, "float32")
    with pytest.raises(CheckpointError, match="holds no teacher for the task 'cxr'"):
        agreement_task(manifest, 3)
