"""`page.compare.comparing`: window controls that gradio accepts, and no answer beside another image."""

from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from kdmodels.images.read import CheckedImage, Window
from page.compare import comparing
from page.compare.results import Results
from page.studies import STUDIES, Studies, Study
from page.turns import Superseded


@pytest.fixture
def file(tmp_path, photo) -> str:
    path = tmp_path / "photo.png"
    photo.save(path)
    return str(path)


def tab_of(name: str) -> SimpleNamespace:
    """What a handler sees of the browser tab."""
    return SimpleNamespace(session_hash=name)


def windowed(*window: float) -> CheckedImage:
    return CheckedImage(Image.new("RGB", (9, 9)), "DICOM", (), Window(*window))


@pytest.mark.parametrize(
    "window", [(40, 400, -1000, 2000), (-5000, 1e-3, 0, 4095), (9000, 1e6, 0, 4095), (0.5, 1, 0, 1)]
)
def test_window_sliders_hold_every_files_own_window(window):
    centre, width, group = comparing.window_controls(windowed(*window))
    assert group.visible
    for slider in (centre, width):
        assert slider.minimum < slider.maximum and slider.minimum <= slider.value <= slider.maximum
        assert 0 < slider.step <= (slider.maximum - slider.minimum) / 100


@pytest.mark.parametrize("checked", [None, windowed(7, 1, 7, 7), windowed(7, 1, 7, 7 + 1e-9)])
def test_without_a_range_there_are_no_window_sliders(checked):
    centre, width, group = comparing.window_controls(checked)
    assert not group.visible
    assert not isinstance(centre, gr.Slider) and not isinstance(width, gr.Slider)


def test_what_is_read_while_something_newer_was_asked_for_is_not_shown(file, monkeypatch):
    read = comparing.read

    def slow(path, *window):
        comparing.TURNS.take("tab")  # Compare was pressed
        return read(path, *window)

    monkeypatch.setattr(comparing, "read", slow)
    with pytest.raises(Superseded):
        comparing.show_file("tab", file, "cxr")
    shown = comparing.show_upload(tab_of("tab"), file, "cxr")
    assert len(shown) == 4 + len(Results()) and all(part == gr.skip() for part in shown)
    assert STUDIES.source("tab") is None
    comparing.leave(tab_of("tab"))


def test_an_upload_replaces_file_mask_and_comparison(file):
    STUDIES.put_source("tab", "old.dcm")
    STUDIES.put_mask("tab", np.ones((3, 3), bool), "old.dcm")
    STUDIES.put("tab", Study(SimpleNamespace(), "cxr", "vgg19", None, 1.0))
    shown = comparing.show_upload(tab_of("tab"), file, "cxr")
    assert len(shown) == 4 + len(Results()) and shown[0].size == (80, 60)
    assert STUDIES.source("tab") == file
    assert STUDIES.mask("tab") is None and STUDIES.get("tab") is None
    comparing.clear_image(tab_of("tab"))
    assert STUDIES.source("tab") is None
    comparing.leave(tab_of("tab"))


def test_evidence_that_is_chosen_before_the_answers_is_kept_for_them():
    assert list(comparing.explain_again(tab_of("tab"), "normal", False)) == [Results()]
    assert comparing.WISH["tab"] == ("normal", False)
    comparing.leave(tab_of("tab"))
    assert "tab" not in comparing.WISH


def test_a_study_is_the_same_for_any_class_but_not_for_another_image():
    from dataclasses import replace

    studies, pair = Studies(), object()
    first = Study(SimpleNamespace(), "cxr", "vgg19", pair, 1.0)
    studies.put("tab", replace(first, evidence={"teacher": "covid"}))
    assert studies.shows("tab", first) and not studies.shows("other", first)
    studies.put("tab", replace(first, checked=SimpleNamespace()))
    assert not studies.shows("tab", first)
