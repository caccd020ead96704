"""`page.compare.comparing`: window controls that gradio accepts, and no answer beside another image."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from kdmodels.examples import examples
from kdmodels.images import CheckedImage, Window
from page.compare import comparing
from page.compare.shown import Shown
from page.compare.study import Study, Upload, Wish
from page.sessions import SESSIONS, Superseded
from page.words import BEFORE
from tests.kdmodels.images.files import dicom
from tests.phantom import chest_phantom


@pytest.fixture
def file(tmp_path, photo) -> str:
    path = tmp_path / "photo.png"
    photo.save(path)
    return str(path)


TAB = SimpleNamespace(session_hash="tab")  # what a handler sees of the browser tab


@pytest.fixture(autouse=True)
def closed():
    yield
    SESSIONS.leave(TAB)


def windowed(*window: float) -> CheckedImage:
    return CheckedImage(Image.new("RGB", (9, 9)), "DICOM", (), Window(*window))


@pytest.mark.parametrize(
    "window", [(40, 400, -1000, 2000), (-5000, 1e-3, 0, 4095), (9000, 1e6, 0, 4095), (0.5, 1, 0, 1)]
)
def test_window_sliders_hold_every_files_own_window(window):
    controls = comparing.window_controls(windowed(*window))
    assert controls["window"].visible
    for slider in (controls["window_centre"], controls["window_width"]):
        assert slider.minimum < slider.maximum and slider.minimum <= slider.value <= slider.maximum
        assert 0 < slider.step <= (slider.maximum - slider.minimum) / 100


@pytest.mark.parametrize("checked", [None, windowed(7, 1, 7, 7), windowed(7, 1, 7, 7 + 1e-9)])
def test_without_a_range_there_are_no_window_sliders(checked):
    (controls,) = comparing.window_controls(checked).values()
    assert not controls.visible


def test_what_is_read_while_something_newer_was_asked_for_is_not_shown(file, monkeypatch):
    session, read = SESSIONS.of(TAB), comparing.read

    def slow(path, *window):
        session.take_turn(comparing.COMPARISON)  # Compare was pressed
        return read(path, *window)

    monkeypatch.setattr(comparing, "read", slow)
    with pytest.raises(Superseded):
        comparing.show_file(session, file, "cxr")
    assert comparing.show_upload(TAB, file, "cxr") == Shown()
    assert session.get(Upload) is None


def test_an_upload_replaces_file_mask_and_comparison(file):
    session = SESSIONS.of(TAB)
    session.keep(Upload("old.dcm", np.ones((3, 3), bool)))
    session.keep(Study(SimpleNamespace(), "cxr", "vgg19", None, 1.0))
    assert comparing.show_upload(TAB, file, "cxr").image.size == (80, 60)
    assert session.get(Upload) == Upload(file) and session.get(Study) is None
    comparing.clear_image(TAB)
    assert session.get(Upload) is None


def test_evidence_that_is_chosen_before_the_answers_is_kept_for_them():
    assert list(comparing.explain_again(TAB, "normal", False)) == [Shown()]
    assert SESSIONS.of(TAB).get(Wish) == ("normal", False)


# --- A doubt stands beside the answers --------------------------------------------------------


@pytest.fixture
def tiny_pair(make_classifier, monkeypatch):
    pair = make_classifier("vgg19"), make_classifier("ofa_595")
    monkeypatch.setattr(comparing, "pair", lambda task, teacher: pair)


def compared(path) -> list[Shown]:
    """All that changes on the page until both have answered."""
    wish = ("own", False, 1.0, *("inferno", 0.65, 0.0, False, "Teacher and student"))
    changes, shown = comparing.answer_and_explain(TAB, str(path), "cxr", "vgg19", *wish), []
    while not shown or "times as fast" not in str(shown[-1].verdict):
        shown.append(next(changes))
    changes.close()
    return shown


def test_a_negative_is_called_doubtful_before_the_first_answer_and_beside_the_verdict(
    tmp_path, tiny_pair
):
    path = tmp_path / "negative.png"
    ImageOps.invert(chest_phantom()).save(path)
    first, *_, last = compared(path)
    assert first.teacher_card == ""
    for verdict in (first.verdict, last.verdict):
        assert BEFORE in verdict and "chest X-ray" in verdict


def test_a_familiar_film_is_answered_without_a_doubt(tiny_pair):
    film = examples("cxr")[0].path
    comparing.show_upload(TAB, str(film), "cxr")
    assert not any(BEFORE in str(shown.verdict) for shown in compared(film))


def test_what_was_done_to_a_file_is_told_beside_the_answers_to_the_picture_on_the_page(
    tmp_path, tiny_pair
):
    film = np.asarray(chest_phantom()).astype(np.uint16) * 16
    (file := tmp_path / "a.dcm").write_bytes(dicom(film, PhotometricInterpretation="MONOCHROME1"))
    shown = comparing.show_upload(TAB, str(file), "cxr")
    shown.image.save(page := tmp_path / "page.png")  # what the page sends back
    inverted = "inverted, as the file stores white as the lowest value."
    assert inverted in compared(page)[-1].verdict
    shown = comparing.show_window(TAB, 2000, 900, "cxr")
    shown.image.save(page)
    said = compared(page)[-1].verdict
    assert inverted in said and "Changed on reading: window 2000 / 900 applied; " in said
    assert "percentiles" not in said
    assert "window 2000 / 900 applied" in comparing.judge_again(TAB, str(page), "cxr").message
