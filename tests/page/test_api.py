"""`page.api`: no answer leaves without its doubts."""

import json
from pathlib import Path

import pytest
from PIL import ImageOps

from kdmodels.examples import examples
from page import api
from tests.phantom import chest_phantom


@pytest.fixture
def film() -> str:
    """A familiar one."""
    return str(examples("cxr")[0].path)


@pytest.fixture
def negative(tmp_path) -> str:
    path = tmp_path / "negative.png"
    ImageOps.invert(chest_phantom()).save(path)
    return str(path)


@pytest.fixture(autouse=True)
def tiny_pair(make_classifier, monkeypatch):
    pair = make_classifier("vgg19"), make_classifier("ofa_595")
    monkeypatch.setattr(api, "_chosen", lambda task, teacher: pair)


def test_both_answers_come_with_their_doubts(film, negative):
    assert api.compare(film, "cxr", "")["doubts"] == []
    said = api.compare(negative, "cxr", "")
    (sentence,) = said["doubts"]
    assert "chest X-ray" in sentence and said["student"]["class"]
    json.dumps(said)


def test_a_heatmap_comes_with_them(film, negative):
    wanted = ("cxr", "", "student", "normal", False)
    assert api.explain(film, *wanted)[1]["doubts"] == []
    _, about = api.explain(negative, *wanted)
    assert about["doubts"] == api.compare(negative, "cxr", "")["doubts"]


def test_each_row_of_a_batch_has_its_own(film, negative):
    rows = {row["file"]: row for row in api.run_batch([film, negative], "cxr", "")}
    assert rows[Path(film).name]["doubt"] == ""
    assert rows["negative.png"]["doubt"] == api.compare(negative, "cxr", "")["doubts"][0]
