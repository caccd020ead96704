"""`train.measure.agreement`: the page's own measures, of the maps of the true class, against the control."""

import numpy as np
import pytest
from PIL import Image

from kdmodels.explain.scorecam import explain
from kdmodels.explain.similarity import pearson
from kdmodels.models.checkpoints import sha256_of
from train.data.manifest import read_pixels
from train.measure.agreement import (
    agreement_task,
    choose,
    compared,
    maps_of,
    mean_of,
    measure_agreement,
)
from train.release.store import StoreError, read_results, store_run, update_results
from train.tables.details import _agreement


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
    for sample, found in zip(samples, maps_of(classifier, samples), strict=True):
        image = Image.fromarray(read_pixels(sample, classifier.task, 256))
        np.testing.assert_allclose(found, explain(classifier, image, sample.label), atol=1e-6)


def test_the_mean_leaves_flat_maps_out_and_its_interval_is_over_groups():
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    pairs = compared([ramp, ramp, ramp], [ramp, ramp.T.copy(), ramp * 0])
    assert pairs[0].tolist() == pytest.approx([1, 1]) and np.isnan(pairs[2]).all()
    assert pairs[1, 0] == pytest.approx(pearson(ramp, ramp.T))
    found = mean_of(np.array([0.0, 1.0, np.nan]), ["a", "b", "c"])
    assert found == {"value": 0.5, "ci95": [0.0, 1.0], "images": 2}
    nothing = {"value": None, "ci95": [None, None], "images": 0}
    assert mean_of(np.array([np.nan]), ["a"]) == nothing
    many = np.array([0.2, 0.4] * 50)
    wide = mean_of(many, ["a", "b"] * 50)["ci95"]
    narrow = mean_of(many, [str(i) for i in range(100)])["ci95"]
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 3


def test_a_student_is_set_against_its_teacher_and_the_control(new_row):
    rng = np.random.default_rng(0)
    teacher = [rng.random((5, 5), np.float32) for _ in range(20)]
    far = [rng.random((5, 5), np.float32) for _ in range(20)]
    near = [0.7 * t + 0.3 * f for t, f in zip(teacher, far, strict=True)]
    taught, control = new_row("cxr", "ofa_595", "vgg19"), new_row("cxr", "ofa_595")
    rows = measure_agreement(
        [(taught, near), (control, far)],
        {"vgg19": teacher, "visformer_s": far},
        ["g"] * 10 + ["h"] * 10,
    )
    assert [(r["student"], r["teacher"]) for r in rows] == [
        ("OFA-595 (from VGG19)", "vgg19"),
        ("OFA-595 (labels only)", "vgg19"),
        ("OFA-595 (labels only)", "visformer_s"),
    ]
    assert rows[0]["correlation"]["value"] > 0.7 > 0.4 > abs(rows[1]["correlation"]["value"])
    assert rows[2]["correlation"]["value"] == pytest.approx(1)
    gain = rows[0]["correlation"]["value"] - rows[1]["correlation"]["value"]
    assert rows[0]["over_control"]["correlation"]["value"] == pytest.approx(gain, abs=2e-4)
    assert "over_control" not in rows[1]
    text = "\n".join(_agreement({"agreement": {"images": 20, "rows": rows}}))
    assert f"+{gain:.2f}" in text and "| VGG19 |" in text and "of 20 test images" in text


def test_the_command_measures_stored_students_and_runs(weights, finish_run, manifest):
    store_run(finish_run(manifest, "ofa_595", "vgg19"), manifest, "float32")
    with pytest.raises(StoreError, match="holds no teacher"):
        agreement_task(manifest, 3)
    store_run(finish_run(manifest, "vgg19", None), manifest, "float32")
    run = finish_run(manifest, "ofa_595", None)
    table = agreement_task(manifest, 3, [run], write=True)
    assert [r["student"] for r in table] == ["OFA-595 (from VGG19)", "OFA-595 (labels only)"]
    stored = read_results()["cxr"]["agreement"]
    assert (stored["images"], stored["rows"]) == (3, table)


def test_runs_stay_while_the_evaluation_counts_them(weights, finish_run, manifest):
    store_run(finish_run(manifest, "vgg19", None), manifest, "float32")
    store_run(finish_run(manifest, "ofa_595", "vgg19"), manifest, "float32")
    run = finish_run(manifest, "ofa_595", None)
    digest = sha256_of(run / "best.safetensors")
    table = agreement_task(manifest, 3, [run], write=True)
    assert digest in table[0]["sha256"] and table[1]["sha256"] == [digest]
    names = [r["student"] for r in table]
    assert [r["student"] for r in agreement_task(manifest, 3)] == names[:1]
    update_results("cxr", seeds={"any": [{"sha256": digest}]})
    found = agreement_task(manifest, 3)
    assert [r["student"] for r in found] == names and found[1] == table[1]
    assert [r["student"] for r in agreement_task(manifest, 6)] == names[:1]  # other images
    agreement = read_results()["cxr"]["agreement"]
    update_results("cxr", agreement=agreement | {"teachers": {"vgg19": "0" * 64}})
    assert [r["student"] for r in agreement_task(manifest, 3)] == names[:1]
