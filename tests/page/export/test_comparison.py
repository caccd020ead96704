"""`page.export.comparison`: the JSON holds what was measured, and nothing of the picture."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from kdmodels.explain.scorecam import VARIANT, explain_progressively
from kdmodels.predict import predict
from kdmodels.tasks import get_task
from page.export.comparison import DISCLAIMER, SCHEMA, Comparison, Settings, Side, to_json
from tests.phantom import chest_phantom

NOON = datetime(2026, 1, 31, 12, 30, 15, 999, tzinfo=UTC)


@pytest.fixture
def comparison(make_classifier):
    """Of the drawn chest, by tiny networks: the teacher's map is exact, the student has none."""
    picture = chest_phantom(120, 130).convert("RGB")
    sides = {}
    for model in ("vgg19", "ofa_595"):
        classifier = make_classifier(model)
        row = replace(classifier.checkpoint, sha256=model[0] * 64, bytes=123_456, temperature=1.25)
        classifier = replace(classifier, checkpoint=row)
        step = None
        if classifier.spec.role == "teacher":
            *_, step = explain_progressively(classifier, picture, "normal")
        side = Side.of(classifier, predict(classifier, picture), "normal", step)
        sides[classifier.spec.role] = side
    return Comparison(
        task=get_task("cxr"),
        picture=picture,
        verdict="Both say Normal.",
        made_at=NOON,
        version="0.1.0",
        settings=Settings("viridis", 0.8, 0.25, 4.0),
        agreement={"correlation": 0.5, "overlap": float("nan")},
        **sides,
    )


def test_the_json_holds_what_was_said_and_measured(comparison):
    content = json.loads(to_json(comparison))
    assert (content["schema"], content["schema_version"]) == (SCHEMA, 1)
    assert content["disclaimer"] == DISCLAIMER and content["verdict"] == "Both say Normal."
    assert content["made_at"] == "2026-01-31T12:30:15+00:00" and content["app_version"] == "0.1.0"
    assert content["task"]["id"] == "cxr" and len(content["task"]["classes"]) == 3
    assert content["image"] == {"width": 120, "height": 130}
    assert content["settings"] == {
        "colours": "viridis",
        "opacity": 0.8,
        "threshold": 0.25,
        "temperature": 4.0,
        "inverted": False,
    }
    assert content["agreement"] == {"correlation": 0.5, "overlap": None}
    assert content["heatmap_method"] == VARIANT
    for side in comparison.sides:
        said = content[side.role]
        assert said["checkpoint_sha256"] == side.sha256 == side.model[0] * 64
        assert tuple(said["probabilities"].values()) == side.probabilities
        assert said["answer"] == max(said["probabilities"], key=said["probabilities"].get)
        assert said["calibration_temperature"] == 1.25
        assert said["latency"]["median_ms"] == side.latency.median_ms > 0
        assert said["latency"]["engine"] == side.latency.engine
        assert said["size"]["parameters"] == side.parameters > 0
        assert said["size"]["macs"] == side.macs > 0 and said["size"]["file_bytes"] == 123_456


def test_the_doubts_are_in_the_json_or_an_empty_list(comparison):
    assert json.loads(to_json(comparison))["doubts"] == []
    said = ("This picture is blank, or nearly so.", "Changed on reading: first of 3 frames used.")
    assert json.loads(to_json(replace(comparison, doubts=said)))["doubts"] == list(said)


def test_the_heatmap_is_in_the_json_as_it_was_computed(comparison):
    content = json.loads(to_json(comparison))
    heatmap = content["teacher"]["heatmap"]
    np.testing.assert_allclose(heatmap["values"], comparison.teacher.heatmap, atol=1e-4)
    assert comparison.teacher.exact and heatmap["exact"] is True and heatmap["class"] == "normal"
    assert heatmap["channels_done"] == heatmap["channels_total"] == 8
    assert content["student"]["heatmap"] is None and not comparison.student.exact
    rough = replace(comparison.teacher, channels_done=3)
    assert not rough.exact


def test_the_json_has_the_keys_that_are_documented_and_no_others(comparison):
    def keys(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key
                if key != "probabilities" and key != "agreement":  # keyed by class and by number
                    yield from keys(inner)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from keys(value[0])

    undocumented = {
        key for key in keys(json.loads(to_json(comparison))) if key not in to_json.__doc__
    }
    assert undocumented == set()


def test_nothing_of_the_picture_or_the_machine_gets_into_the_json(comparison):
    latency = replace(comparison.teacher.latency, note="OpenVINO failed in /home/someone/x")
    noted = replace(comparison, teacher=replace(comparison.teacher, latency=latency))
    other = replace(noted, picture=Image.new("RGB", (120, 130), "red"))
    assert to_json(noted) == to_json(other)  # only its size
    assert "someone" not in to_json(noted)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"picture": Image.new("L", (9, 9))}, "must be RGB, not L"),
        ({"made_at": datetime(2026, 1, 31)}, "needs a time zone"),
        ({"task": get_task("histopathology")}, "has other classes than the task 'histopathology'"),
    ],
)
def test_what_would_make_a_wrong_report_is_refused(comparison, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(comparison, **change)
