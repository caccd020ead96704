"""`page.teach.tab`: a doubt is told when the answers are, and not before."""

from types import SimpleNamespace

import pytest
from PIL import ImageOps

from kdmodels.examples import examples
from page.sessions import SESSIONS
from page.teach import tab
from page.words import BEFORE
from tests.phantom import chest_phantom

TAB = SimpleNamespace(session_hash="teach tab")


@pytest.fixture(autouse=True)
def tiny_pair(make_classifier, monkeypatch, tmp_path):
    pair = make_classifier("vgg19"), make_classifier("ofa_595")
    monkeypatch.setattr(tab, "pair", lambda task, teacher: pair)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    yield
    SESSIONS.leave(TAB)


def test_a_doubt_stands_beside_the_answers_once_they_are_revealed(tmp_path):
    path = tmp_path / "negative.png"
    ImageOps.invert(chest_phantom()).save(path)
    *_, asked = tab.start(TAB, [str(path)], "cxr", "vgg19", False)
    assert "What is it?" in asked.question and BEFORE not in asked.question
    revealed = next(tab.reveal(TAB, "normal"))
    assert "The teacher says" in revealed.question
    assert BEFORE in revealed.question and "chest X-ray" in revealed.question


def test_a_familiar_film_is_revealed_without_one():
    film = str(examples("cxr")[0].path)
    list(tab.start(TAB, [film], "cxr", "vgg19", False))
    revealed = next(tab.reveal(TAB, None))
    assert "The teacher says" in revealed.question and BEFORE not in revealed.question
